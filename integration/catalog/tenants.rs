//! A schema for each tenant: the schema's name is the key, by a name with a
//! schema or by the search path.

use std::process::Command;

use crate::support::psql::{Psql, psql, psql_with};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::{cluster, shown};

const KEYSPACE: &str = r#"
[[keyspace]]
name = "schools"
type = "text"
schemas = ["school_*"]
slots = 4096
ranges = { shard1 = ["0-2047"], shard2 = ["2048-4095"] }
"#;

fn router() -> Router {
    let options = RouterOptions::sharded(cluster()).with_map(|map| {
        format!("{}\n{KEYSPACE}", map.replace("\"public.plans\"", "\"public.grades\""))
    });
    let router = Router::start(cluster(), &options);
    wait_for("both catalogs", || shown(&router).matches("|in force").count() == 2);
    router
}

/// Schools of which the first two are on shard 1 and the third on shard 2.
fn schools(router: &Router) -> [String; 3] {
    let on = |shard: &str, after: u32| {
        (after + 1..200)
            .find(|n| {
                let sql = format!("EXPLAIN ROUTE SELECT 1 FROM school_{n}.pupils");
                psql(&router.url(), &sql).expect().contains(shard)
            })
            .unwrap()
    };
    let first = on("shard1", 0);
    [first, on("shard1", first), on("shard2", 0)].map(|n| format!("school_{n}"))
}

/// The commands of one session, one after the other.
fn session(router: &Router, commands: &[&str]) -> Psql {
    let args: Vec<&str> = commands.iter().flat_map(|sql| ["--command", *sql]).collect();
    psql_with(&router.url(), &args)
}

#[test]
fn tenants_that_are_schemas_are_each_on_their_shard() {
    let cluster = cluster();
    cluster.sql_everywhere(
        "CREATE TABLE grades (id int PRIMARY KEY, name text); INSERT INTO grades VALUES (1, 'one')",
    );
    let router = router();
    let schools = schools(&router);
    for school in &schools {
        psql(&router.url(), &format!("CREATE SCHEMA {school}")).expect();
        let first = format!(
            "CREATE TABLE {school}.pupils (id int PRIMARY KEY, grade int REFERENCES public.grades)"
        );
        psql(&router.url(), &first).expect();
    }
    let owners = schools.each_ref().map(|school| {
        let sql = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{school}'");
        [1, 2].map(|shard| cluster.sql(shard, &sql))
    });
    let [here, there] = [["1", "0"], ["0", "1"]].map(|counts| counts.map(str::to_owned));
    assert_eq!(owners, [here.clone(), here, there], "a schema is on its owner's shard alone");
    for school in &schools {
        the_search_path_leads_to(&router, school);
        let copied = format!(
            "CREATE TABLE {school}.copied AS SELECT p.id, g.name FROM \
             {school}.pupils p JOIN public.grades g ON g.id = p.grade"
        );
        psql(&router.url(), &copied).expect();
    }
    whoever_is_the_current_role_is_the_user_of_the_path(&router, &schools[2]);
    let [one, two, far] = schools.each_ref().map(String::as_str);
    tenants_stay_apart(&router, one, two, far);
    for school in &schools {
        psql(&router.url(), &format!("DROP SCHEMA {school} CASCADE")).expect();
    }
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'school%'";
    assert_eq!([1, 2].map(|shard| cluster.sql(shard, left)), ["0", "0"]);
}

/// What a tenant's application does, whose search path is set once.
fn the_search_path_leads_to(router: &Router, school: &str) {
    let path = format!("SET search_path = {school}, public");
    // The schema was made a moment ago; until the router knows it, a new table
    // without a schema is refused.
    wait_for("the new schema", || {
        let made = session(
            router,
            &[
                &path,
                "BEGIN",
                "CREATE TABLE IF NOT EXISTS marks (pupil int REFERENCES pupils, mark int)",
                "COMMIT",
            ],
        );
        match made {
            Psql::Done(_) => true,
            Psql::Failed(error) => {
                assert!(error.contains("name the schema"), "{error}");
                false
            }
        }
    });
    wait_for("the new table", || shown_by(router, school, "SELECT count(*) FROM marks") == "0");
    let work = [
        &*path,
        "BEGIN",
        "INSERT INTO pupils VALUES (1, 1), (2, NULL)",
        "INSERT INTO marks SELECT id, id * 10 FROM pupils",
        "COMMIT",
        "ALTER TABLE marks ADD COLUMN at date",
        "CREATE INDEX ON marks (mark)",
        "CREATE FUNCTION best() RETURNS int LANGUAGE sql STABLE AS 'SELECT max(mark) FROM marks'",
        "SELECT best()",
        "SELECT name, mark FROM marks JOIN pupils ON id = pupil JOIN grades ON grades.id = grade",
        "ANALYZE marks",
        "SELECT string_agg(c.relname, ',' ORDER BY c.relname) FROM pg_class c WHERE relkind = 'r' \
         AND pg_table_is_visible(oid) AND relnamespace::regnamespace::text LIKE 'school%'",
    ];
    let said = session(router, &work).expect();
    let rows: Vec<&str> =
        said.lines().filter(|line| !line.chars().all(char::is_uppercase)).collect();
    let rows = rows.join(" ");
    for expected in ["20", "one|10", "marks,pupils"] {
        assert!(rows.contains(expected), "{expected} of {school}: {said}");
    }
    // Within a transaction, and from the start of the session.
    let local = format!("SET LOCAL search_path = {school}");
    let count = "SELECT count(*) FROM marks";
    let said = session(router, &["BEGIN", &local, count, "COMMIT"]).expect();
    assert!(said.lines().any(|line| line == "2"), "{said}");
    let said = session(
        router,
        &["BEGIN", &format!("SET SCHEMA '{school}'"), count, "ROLLBACK", "SHOW search_path"],
    )
    .expect();
    assert!(said.lines().any(|line| line == "2") && said.contains("$user"), "{said}");
    assert_eq!(shown_by(router, school, count), "2");
}

/// `"$user"` is the current role, also after SET ROLE.
fn whoever_is_the_current_role_is_the_user_of_the_path(router: &Router, school: &str) {
    for shard in [1, 2] {
        let roles = format!("CREATE ROLE {school}; GRANT {school} TO app");
        cluster().superuser_sql(shard, &roles);
    }
    psql(&router.url(), &format!("GRANT ALL ON SCHEMA {school} TO {school}")).expect();
    psql(&router.url(), &format!("GRANT ALL ON ALL TABLES IN SCHEMA {school} TO {school}"))
        .expect();
    let (role, count) = (format!("SET ROLE {school}"), "SELECT count(*) FROM marks");
    let rows = |said: &str| said.lines().filter(|line| *line == "2").count();
    let said = session(router, &[&role, count, "BEGIN", count, "COMMIT"]).expect();
    assert_eq!(rows(&said), 2, "{said}");
    let local = format!("SET LOCAL ROLE {school}");
    let said = session(router, &["BEGIN", &local, count, "COMMIT"]).expect();
    assert_eq!(rows(&said), 1, "{said}");
    let said = session(router, &["SET search_path = \"$user\"", &role, count, "RESET ROLE", count]);
    let error = said.expect_error();
    assert!(error.contains("marks"), "nobody's table any more: {error}");
    for shard in [1, 2] {
        let gone = format!("DROP OWNED BY {school}; DROP ROLE {school}");
        cluster().superuser_sql(shard, &gone);
    }
}

/// A query of a session whose startup message has the path.
fn shown_by(router: &Router, school: &str, sql: &str) -> String {
    let url = format!("{}&options=-csearch_path%3D{school}", with_query(&router.url()));
    match psql(&url, sql) {
        Psql::Done(said) => said.trim().to_owned(),
        Psql::Failed(error) => error,
    }
}

fn with_query(url: &str) -> String {
    if url.contains('?') { url.to_owned() } else { format!("{url}?sslmode=disable") }
}

fn tenants_stay_apart(router: &Router, one: &str, two: &str, far: &str) {
    let run = |sql: &str| psql(&router.url(), sql);
    let count = |first: &str, second: &str| {
        format!(
            "SELECT sum(n) FROM (SELECT count(*) n FROM {first}.marks UNION ALL \
             SELECT count(*) FROM {second}.marks) c"
        )
    };
    assert_eq!(run(&count(one, two)).expect().trim(), "4", "two tenants of one shard");
    let refused = run(&count(one, far)).expect_error();
    assert!(refused.contains("0A000") && refused.contains("more than one shard"), "{refused}");
    let write = format!("INSERT INTO {far}.marks SELECT pupil, mark FROM {one}.marks");
    assert!(run(&write).expect_error().contains("0A000"));
    let both = session(
        router,
        &["BEGIN", &format!("DELETE FROM {one}.marks"), &format!("DELETE FROM {far}.marks")],
    );
    assert!(both.expect_error().contains("0A000"));
    assert_eq!(run(&format!("SELECT count(*) FROM {one}.marks")).expect().trim(), "2");
    // Where a tenant is to be elsewhere, its rows don't follow by themselves.
    let file = router.dir().join("wanted.toml");
    let map = std::fs::read_to_string(router.map_file()).unwrap();
    let wanted = format!("{map}\n[keyspace.pins]\n\"{one}\" = \"shard2\"\n");
    std::fs::write(&file, wanted).unwrap();
    let planned = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(["plan", file.to_str().unwrap(), "--in-force", router.map_file().to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&planned.stdout).into_owned()
        + &String::from_utf8_lossy(&planned.stderr);
    assert!(!planned.status.success() && said.contains("pg_dump --schema"), "{said}");
}

/// The map places the schema `ledger` on the second shard.
#[test]
fn what_is_in_a_schema_on_one_shard_is_made_there_alone() {
    let cluster = cluster();
    cluster.sql_everywhere(
        "CREATE TABLE ledger_rates (id int PRIMARY KEY, rate int);
         INSERT INTO ledger_rates VALUES (1, 7);
         CREATE TABLE ledger_tasks (tenant_id bigint NOT NULL, id int)",
    );
    let options = RouterOptions::sharded(cluster).with_map(|map| {
        let map = map.replace("\"public.plans\"", "\"public.ledger_rates\"");
        let map = map.replace("\"public.tasks\"", "\"public.ledger_tasks\"");
        format!("{map}\n[[single]]\nshard = \"shard2\"\nschemas = [\"ledger\"]\n")
    });
    let router = Router::start(cluster, &options);
    wait_for("both catalogs", || shown(&router).matches("|in force").count() == 2);
    let run = |sql: &str| psql(&router.url(), sql).expect();
    run("CREATE SCHEMA ledger");
    run(
        "CREATE TABLE ledger.entries (id int PRIMARY KEY, rate int REFERENCES public.ledger_rates)",
    );
    run("INSERT INTO ledger.entries VALUES (1, 1), (2, 1)");
    run("CREATE INDEX ON ledger.entries (rate)");
    run("ALTER TABLE ledger.entries ADD COLUMN note text DEFAULT 'x'");
    run("CREATE TABLE ledger.copies AS SELECT e.id, r.rate FROM ledger.entries e \
         JOIN public.ledger_rates r ON r.id = e.rate");
    wait_for(
        "the copy's table",
        || matches!(psql(&router.url(), "SELECT sum(rate) FROM ledger.copies"), Psql::Done(sum) if sum.trim() == "14"),
    );
    let parted =
        "CREATE TABLE ledger.parted AS SELECT * FROM public.ledger_tasks WHERE tenant_id = ";
    let made = (1..60).filter(|tenant| {
        let made = psql(&router.url(), &format!("{parted}{tenant}"));
        match made {
            Psql::Done(_) => {
                run("DROP TABLE ledger.parted");
                true
            }
            Psql::Failed(error) => {
                assert!(error.contains("more than one shard"), "{error}");
                false
            }
        }
    });
    let made = made.count();
    assert!(made > 5 && made < 55, "tenants of one shard only: {made}");
    let there = "SELECT count(*) FROM pg_namespace WHERE nspname = 'ledger'";
    assert_eq!([1, 2].map(|shard| cluster.sql(shard, there)), ["0", "1"]);
    run("DROP SCHEMA ledger CASCADE");
    assert_eq!([1, 2].map(|shard| cluster.sql(shard, there)), ["0", "0"]);
}
