//! Statements around reads over several shards: EXPLAIN and COPY … TO STDOUT.

use futures_util::TryStreamExt;
use tokio_postgres::Client;

use super::answers::shown;
use super::both::{Both, connect};
use super::support::psql::{psql, psql_with};

pub(crate) async fn all(both: &Both) {
    copies_are_those_of_one_server(both).await;
    copies_of_whole_tables(both).await;
    copies_in_transactions_and_with_errors(both).await;
    plans_of_all_servers_stand_under_one_head(both).await;
    explain_goes_the_way_of_the_read(both).await;
    explain_in_a_transaction(both).await;
}

/// What COPY gives, by the extended protocol.
async fn copied(client: &Client, sql: &str) -> Vec<u8> {
    let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let pieces: Vec<_> = stream.try_collect().await.unwrap();
    pieces.concat()
}

async fn copies_are_those_of_one_server(both: &Both) {
    let clients = both.clients().await;
    let all = "SELECT * FROM events ORDER BY tenant_id, id";
    let odd = "SELECT tenant_id, id, t || E'\\n\\t\\\\\"|,' AS \"a,b\", t, c FROM events \
        ORDER BY tenant_id, id";
    let queries = [
        all.to_owned(),
        odd.to_owned(),
        format!("{odd} LIMIT 7 OFFSET 3"),
        "SELECT t FROM events ORDER BY c COLLATE \"C\" DESC NULLS LAST, tenant_id, id".to_owned(),
        "SELECT count(*), min(t), sum(num) FROM events".to_owned(),
        "SELECT n, count(*) AS much FROM events GROUP BY n ORDER BY n NULLS FIRST".to_owned(),
        "SELECT rank() OVER (ORDER BY tenant_id), name FROM accounts ORDER BY 1".to_owned(),
        "SELECT id FROM events WHERE false ORDER BY id".to_owned(),
    ];
    let ways = [
        "",
        "CSV HEADER",
        "(FORMAT csv, DELIMITER ';', NULL 'nil', FORCE_QUOTE *)",
        "(DELIMITER '|', NULL '', HEADER)",
        "BINARY",
    ];
    for query in &queries {
        for way in ways {
            let sql = format!("COPY ({query}) TO STDOUT {way}");
            let one = copied(&clients.plain, &sql).await;
            let many = copied(&clients.router, &sql).await;
            assert!(one == many, "{sql}:\n{}", String::from_utf8_lossy(&many));
        }
    }
    // By a simple query, and what psql prints of it.
    let sql = format!("COPY ({odd}) TO STDOUT CSV HEADER");
    let one = psql(&both.plain_url(), &sql).expect();
    assert_eq!(psql(&both.router_url(), &sql).expect(), one);
    let tag = ["--command", &format!("COPY ({odd}) TO STDOUT"), "--command", "SELECT 1"];
    assert!(psql_with(&both.router_url(), &tag).expect().ends_with("\n1"));
}

async fn copies_of_whole_tables(both: &Both) {
    let clients = both.clients().await;
    let sorted = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        let (head, rows) = text.split_once('\n').unwrap();
        let mut rows: Vec<String> = rows.lines().map(str::to_owned).collect();
        rows.sort();
        (head.to_owned(), rows)
    };
    for sql in [
        "COPY events TO STDOUT CSV HEADER",
        "COPY public.items (price, id) TO STDOUT (FORMAT text, HEADER)",
    ] {
        let one = sorted(copied(&clients.plain, sql).await);
        assert!(one.1.len() > 100, "{sql}");
        assert_eq!(sorted(copied(&clients.router, sql).await), one, "{sql}");
    }
    for (sql, word) in [
        ("COPY events TO '/tmp/keyway-events'", "file or program"),
        ("COPY events TO STDOUT (ENCODING 'latin1')", "ENCODING"),
        ("COPY (SELECT * FROM events FOR UPDATE) TO STDOUT", "sharding key"),
    ] {
        let error = clients.router.batch_execute(sql).await.unwrap_err();
        assert_eq!(shown(&error).0, "0A000", "{sql}: {error:?}");
        assert!(shown(&error).1.contains(word), "{sql}: {error:?}");
    }
}

async fn copies_in_transactions_and_with_errors(both: &Both) {
    let mut client = connect(&both.router_url()).await;
    let transaction = client.transaction().await.unwrap();
    let sql = "COPY (SELECT name FROM accounts ORDER BY tenant_id LIMIT 2) TO STDOUT";
    let update = "UPDATE accounts SET name = 'x' WHERE tenant_id = 1";
    transaction.execute(update, &[]).await.unwrap();
    let pieces: Vec<_> = {
        let stream = transaction.copy_out(sql).await.unwrap();
        stream.try_collect().await.unwrap()
    };
    assert!(pieces.concat().starts_with(b"x\n"), "its own change is seen");
    transaction.rollback().await.unwrap();
    let sql = "COPY (SELECT 1 / (tenant_id - 7) FROM accounts) TO STDOUT";
    let failed = match client.copy_out(sql).await {
        Err(error) => error,
        Ok(stream) => stream.try_collect::<Vec<_>>().await.unwrap_err(),
    };
    assert_eq!(shown(&failed).0, "22012");
    assert_eq!(lines(&client, "SELECT 7").await, ["7"]);
}

async fn lines(client: &Client, sql: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for message in client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")) {
        if let tokio_postgres::SimpleQueryMessage::Row(row) = message {
            seen.push(row.get(0).unwrap_or("null").to_owned());
        }
    }
    seen
}

/// Whether the lines hold these, in this order.
fn assert_in_order(lines: &[String], parts: &[&str]) {
    let mut rest = lines.iter();
    for part in parts {
        assert!(rest.any(|line| line.contains(part)), "{part:?} in\n{}", lines.join("\n"));
    }
}

async fn plans_of_all_servers_stand_under_one_head(both: &Both) {
    let client = connect(&both.router_url()).await;
    let plan = lines(&client, "EXPLAIN SELECT id FROM events ORDER BY id LIMIT 3").await;
    assert_in_order(
        &plan,
        &[
            "Read over shards (T1: the router merges the shards' rows in order)",
            "Shards: shard1, shard2, shard3",
            "Merge: in the router",
            "Shard shard1",
            "Asked: SELECT id",
            "Limit",
            "Shard shard2",
            "Limit",
            "Shard shard3",
            "Limit",
        ],
    );
    let plan =
        lines(&client, "EXPLAIN (ANALYZE, COSTS OFF) SELECT n, count(*) FROM events GROUP BY n")
            .await;
    assert_in_order(
        &plan,
        &[
            "T2: one shard combines the shards' parts",
            "Merge: on shard shard",
            "Asked: ",
            "Function Scan",
            "Execution Time",
            "Shard shard1",
            "Aggregate",
            "Seq Scan on events",
            "Execution Time",
            "Shard shard3",
            "Execution Time",
        ],
    );
    let plan = lines(&client, "EXPLAIN SELECT rank() OVER (ORDER BY n) FROM events").await;
    assert_in_order(&plan, &["one shard makes the answer", "WindowAgg", "Shard shard2", "events"]);
    // As a prepared statement, with parameters.
    for sql in [
        "EXPLAIN (COSTS OFF) SELECT id FROM events WHERE id = $1",
        "EXPLAIN (COSTS OFF, ANALYZE) SELECT count(*) FROM events WHERE id = $1",
        "EXPLAIN (COSTS OFF, ANALYZE) SELECT count(DISTINCT n) FROM events WHERE id = $1",
    ] {
        let statement = client.prepare(sql).await.unwrap();
        assert_eq!(statement.columns()[0].name(), "QUERY PLAN");
        let rows = client.query(&statement, &[&3_i64]).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_in_order(&plan, &["Shard shard1", "id = '3'", "Shard shard3", "id = '3'"]);
    }
    // A shard that fixes the key answers as ever.
    let plan = lines(&client, "EXPLAIN SELECT id FROM events WHERE tenant_id = 1").await;
    assert!(!plan[0].contains("shards"), "{plan:?}");
    for (sql, word) in [
        ("EXPLAIN (FORMAT JSON) SELECT id FROM events", "FORMAT JSON"),
        ("EXPLAIN UPDATE events SET n = 1", "shard"),
    ] {
        let error = client.simple_query(sql).await.unwrap_err();
        assert_eq!(shown(&error).0, "0A000", "{sql}");
        assert!(shown(&error).1.contains(word), "{sql}: {error:?}");
    }
    let error = client.simple_query("EXPLAIN SELECT nothing FROM events").await.unwrap_err();
    assert_eq!(shown(&error).0, "42703");
    let sql = "EXPLAIN ANALYZE SELECT 1 / (tenant_id - 7) FROM accounts";
    assert_eq!(shown(&client.simple_query(sql).await.unwrap_err()).0, "22012");
    assert_eq!(lines(&client, "SELECT 7").await, ["7"]);
}

/// The router can't compare text of the database's collation: the first server
/// says so, and one of them sorts.
async fn explain_goes_the_way_of_the_read(both: &Both) {
    let client = connect(&both.router_url()).await;
    let plan = lines(&client, "EXPLAIN SELECT m FROM moods ORDER BY m, tenant_id LIMIT 4").await;
    assert_in_order(
        &plan,
        &["T2: one shard sorts the shards' first rows", "Merge: on shard shard1"],
    );
    assert_in_order(&plan, &["Shard shard1", "Limit", "Shard shard2", "Limit"]);
}

async fn explain_in_a_transaction(both: &Both) {
    let client = connect(&both.router_url()).await;
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("UPDATE accounts SET name = 'x' WHERE tenant_id = 1").await.unwrap();
    for sql in
        ["EXPLAIN ANALYZE SELECT name FROM accounts", "EXPLAIN SELECT count(*) FROM accounts"]
    {
        let plan = lines(&client, sql).await;
        assert_in_order(&plan, &["Shard shard1", "accounts", "Shard shard3", "accounts"]);
    }
    assert_eq!(
        lines(&client, "SELECT count(*) FROM accounts WHERE name = 'x'").await,
        ["1"],
        "the transaction goes on"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
}
