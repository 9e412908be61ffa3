//! Keys of several columns: the router places a row where the servers' own hash of
//! the row says, whatever brought it there.

use std::fs;

use crate::support::psql::{Psql, psql, psql_with};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::{cluster, shown};

const PLACES: &str = r#"
[[keyspace]]
name = "places"
types = ["text", "int8"]
ranges = { shard1 = ["0-2047"], shard2 = ["2048-4095"] }

[[table]]
name = "public.shops"
keyspace = "places"
columns = ["region", "id"]

[[table]]
name = "public.sales"
keyspace = "places"
columns = ["region", "shop"]

[[table]]
name = "public.loose"
keyspace = "places"
columns = ["region", "shop"]
"#;

/// Rows of `shops` that are not on the shard which the servers' hash names.
const STRAY: &str = "SELECT count(*) FROM shops \
    WHERE (hash_record_extended(ROW(region, id), 0) & 4095 < 2048) <> ";

fn router() -> Router {
    let options = RouterOptions::sharded(cluster()).with_map(|map| format!("{map}\n{PLACES}"));
    let router = Router::start(cluster(), &options);
    wait_for("both catalogs", || shown(&router).matches("|in force").count() == 2);
    router
}

#[test]
fn rows_lie_where_the_servers_hash_of_their_columns_says() {
    let cluster = cluster();
    cluster.sql_everywhere(
        "CREATE TABLE shops (note text, region varchar COLLATE \"C\", id int, \
             PRIMARY KEY (region, id));
         CREATE TABLE sales (region text NOT NULL, shop bigint NOT NULL, amount int, \
             FOREIGN KEY (region, shop) REFERENCES shops ON DELETE CASCADE);
         CREATE VIEW open_shops AS SELECT region AS region, id, note FROM shops \
             WHERE note <> 'shut';
         CREATE TABLE loose (region text NOT NULL, shop bigint)",
    );
    let router = router();
    let run = |sql: &str| psql(&router.url(), sql).expect();
    let regions = ["eu", "us", "a\"b,(c)", "日本", ""];
    for (n, region) in regions.iter().enumerate() {
        for id in 0..24 {
            run(&match (n + id) % 3 {
                0 => format!("INSERT INTO shops VALUES ('open', '{region}', {id})"),
                1 => {
                    format!("INSERT INTO shops (id, region, note) SELECT {id}, '{region}', 'open'")
                }
                _ => format!(
                    "INSERT INTO shops (region, note, id) VALUES ('{region}'::text, 'open', {id}::int4)"
                ),
            });
        }
    }
    let counts = [1, 2].map(|shard| cluster.sql(shard, "SELECT count(*) FROM shops"));
    assert!(counts.iter().all(|count| count.parse::<u32>().unwrap() > 30), "{counts:?}");
    assert_eq!(cluster.sql(1, &format!("{STRAY} true")), "0");
    assert_eq!(cluster.sql(2, &format!("{STRAY} false")), "0");

    assert_eq!(run("SELECT count(*) FROM shops"), "120");
    assert_eq!(run("SELECT count(*) FROM shops WHERE region = '日本'"), "24");
    assert_eq!(run("SELECT count(*) FROM shops WHERE region = 'eu' AND id = 7"), "1");
    assert_eq!(run("SELECT id FROM open_shops WHERE region = 'us' AND id = 3"), "3");
    let some = "SELECT region, id FROM shops WHERE (region, id) IN (('eu', 1), ('us', 2), ('', 3)) \
                ORDER BY id";
    assert_eq!(run(some), "eu|1\nus|2\n|3");
    writes_stay_with_their_key(&router);
    a_copy_goes_where_its_key_is_declared(&router);
    what_can_not_be_told_is_refused(&router);
}

fn writes_stay_with_their_key(router: &Router) {
    let run = |sql: &str| psql(&router.url(), sql).expect();
    for id in 0..12 {
        run(&format!("INSERT INTO sales VALUES ('eu', {id}, {id})"));
    }
    let joined =
        "SELECT count(*) FROM shops s JOIN sales x ON x.region = s.region AND x.shop = s.id";
    assert_eq!(run(joined), "12", "joined on every column, on all shards");
    assert_eq!(run(&format!("{joined} WHERE s.region = 'eu' AND s.id = 4")), "1");
    let changed = "UPDATE sales SET amount = 99 FROM shops s WHERE s.region = sales.region \
                   AND s.id = sales.shop AND (s.region, s.id) = ('eu', 4) RETURNING amount";
    assert_eq!(run(changed), "99");
    // The cascade meets the row's own sales: the marks need not be the shard's.
    run("DELETE FROM shops WHERE region = 'eu' AND id = 4");
    assert_eq!(run("SELECT count(*) FROM sales"), "11");
    let upsert = "INSERT INTO shops (region, id, note) VALUES ('eu', 5, 'shut') \
                  ON CONFLICT (region, id) DO UPDATE SET note = excluded.note";
    run(upsert);
    assert_eq!(run("SELECT note FROM shops WHERE region = 'eu' AND id = 5"), "shut");
    assert_eq!(run("SELECT count(*) FROM open_shops WHERE region = 'eu' AND id = 5"), "0");
}

fn a_copy_goes_where_its_key_is_declared(router: &Router) {
    let file = router.dir().join("rows.txt");
    let copy = |rows: &str| -> Psql {
        fs::write(&file, rows).unwrap();
        let from = format!("\\copy sales from '{}'", file.display());
        psql_with(&router.url(), &["-c", "SET keyway.key.places = '(us,2)'", "-c", &from])
    };
    copy("us\t2\t1\nus\t2\t2\n").expect();
    let counted = "SELECT count(*) FROM sales WHERE region = 'us' AND shop = 2";
    assert_eq!(psql(&router.url(), counted).expect(), "2");
    let error = copy("us\t2\t1\nus\t3\t2\n").expect_error();
    assert!(error.contains("another sharding key"), "{error}");
    assert_eq!(psql(&router.url(), counted).expect(), "2");
}

fn what_can_not_be_told_is_refused(router: &Router) {
    for (sql, reason) in [
        (
            "UPDATE shops SET note = 'x' WHERE region = 'eu'",
            "sharding key (region, id) of table shops",
        ),
        ("UPDATE shops SET id = 9 WHERE region = 'eu' AND id = 8", "the sharding key id"),
        ("DELETE FROM sales WHERE shop = 2", "sharding key (region, shop)"),
        ("SELECT * FROM loose WHERE region = 'eu' AND shop = 1", "column shop of table loose"),
    ] {
        let error = psql(&router.url(), sql).expect_error();
        assert!(error.contains(reason), "{sql}: {error}");
    }
    let moved = psql(&router.console_url(), "MOVE SLOTS 0-9 TO shard2 OF places");
    let error = moved.expect_error();
    assert!(error.contains("have several columns"), "{error}");
}
