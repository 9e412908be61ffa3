//! Reads over several shards, and on other shards, inside transactions that
//! have a shard: what they see, how they fail, and what may follow.

use std::fmt::Write as _;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::answers::shown;
use super::both::{Both, Clients, connect};

pub(crate) async fn all(both: &Both) {
    own_writes_are_seen(both).await;
    errors_fail_the_transaction_and_savepoints_heal_it(both).await;
    snapshots_last(both).await;
    statements_see_what_is_committed_when_they_begin(both).await;
    one_shard_writes(both).await;
    prepared_statements_join(both).await;
    lost_backends_fail_the_transaction(both).await;
    clients_that_leave_leave_nothing(both).await;
}

/// Rows or the SQLSTATE; and the tags.
async fn answer(client: &Client, sql: &str) -> String {
    let mut out = String::new();
    let answered =
        tokio::time::timeout(std::time::Duration::from_secs(30), client.simple_query(sql));
    match answered.await.unwrap_or_else(|_| panic!("no answer: {sql}")) {
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        let values: Vec<&str> =
                            (0..row.len()).map(|at| row.get(at).unwrap_or("null")).collect();
                        writeln!(out, "{}", values.join("|")).unwrap();
                    }
                    SimpleQueryMessage::CommandComplete(rows) => {
                        writeln!(out, "{rows} rows").unwrap()
                    }
                    _ => {}
                }
            }
        }
        Err(error) => out = shown(&error).0,
    }
    out
}

async fn alike(clients: &Clients, statements: &[&str]) {
    for sql in statements {
        let expected = answer(&clients.plain, sql).await;
        assert_eq!(answer(&clients.router, sql).await, expected, "{sql}");
    }
}

/// Every way in which several shards answer one statement.
const WAYS: [&str; 5] = [
    "SELECT count(*), sum(n), max(t) FROM events",
    "SELECT tenant_id, id FROM events WHERE id > 8 ORDER BY tenant_id DESC, id",
    "SELECT name FROM accounts ORDER BY name || '', tenant_id LIMIT 4 OFFSET 1",
    "SELECT DISTINCT rank() OVER (ORDER BY id) FROM events ORDER BY 1",
    "SELECT count(*), count(DISTINCT region) FROM accounts WHERE tenant_id IN (1, 2, 3, 4, 5, 6)",
];

async fn own_writes_are_seen(both: &Both) {
    let clients = both.clients().await;
    for begin in
        ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL SERIALIZABLE"]
    {
        for tenant in [1, 2, 3, 4, 5, 6] {
            let write =
                format!("INSERT INTO events (tenant_id, id, n, t) VALUES ({tenant}, 77, 5, 'zz')");
            let rename = format!(
                "UPDATE accounts SET name = 'AA', region = 'zz' WHERE tenant_id = {tenant}"
            );
            let read = format!("SELECT id FROM events WHERE tenant_id = {tenant} ORDER BY id");
            alike(&clients, &[begin, &write]).await;
            alike(&clients, &WAYS).await;
            alike(&clients, &[&rename]).await;
            alike(&clients, &WAYS).await;
            alike(&clients, &[&read, "ROLLBACK"]).await;
        }
        // The first statement is the read.
        alike(&clients, &[begin]).await;
        alike(&clients, &WAYS).await;
        alike(&clients, &["COMMIT"]).await;
        alike(&clients, &WAYS).await;
    }
}

async fn errors_fail_the_transaction_and_savepoints_heal_it(both: &Both) {
    let clients = both.clients().await;
    let write = "INSERT INTO events (tenant_id, id, n) VALUES (3, 78, 5)";
    let fails = [
        "SELECT 1 / (tenant_id - 7) FROM accounts",
        "SELECT sum(1 / (tenant_id - 9)) FROM accounts",
        "SELECT rank() OVER (ORDER BY 1 / (tenant_id - 11)) FROM accounts",
        "SELECT nothing FROM accounts",
    ];
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for fail in fails {
            alike(&clients, &[begin, write, fail, WAYS[0], "COMMIT"]).await;
            alike(&clients, &[begin, write, "SAVEPOINT a", WAYS[0], fail, "SELECT 1"]).await;
            alike(&clients, &["ROLLBACK TO a", WAYS[0], WAYS[1], write, "ROLLBACK TO a"]).await;
            alike(&clients, &["UPDATE events SET n = 8 WHERE tenant_id = 3", WAYS[0]]).await;
            alike(&clients, &[fail, "ROLLBACK TO a", WAYS[3], "RELEASE a", WAYS[0], "ROLLBACK"])
                .await;
            // A savepoint before the transaction has a shard.
            alike(&clients, &[begin, "SAVEPOINT b", fail, "ROLLBACK TO b", WAYS[0], "ROLLBACK"])
                .await;
        }
        alike(&clients, &WAYS).await;
    }
}

async fn snapshots_last(both: &Both) {
    let (reader, writer) = (connect(&both.router_url()).await, connect(&both.router_url()).await);
    let insert = |id: i64| -> String {
        let row = |tenant: i64| {
            format!("INSERT INTO events (tenant_id, id, n) VALUES ({tenant}, {id}, 1);")
        };
        (1..=12).map(row).collect()
    };
    let write = async |sql: String| {
        for one in sql.split_terminator(';') {
            writer.batch_execute(one).await.unwrap();
        }
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for first in
            ["", "UPDATE accounts SET region = region WHERE tenant_id = 5", "SAVEPOINT early"]
        {
            reader.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
            if !first.is_empty() {
                reader.batch_execute(first).await.unwrap();
            }
            let before = answer(&reader, WAYS[0]).await;
            reader.batch_execute("SAVEPOINT s").await.unwrap();
            write(insert(90)).await;
            assert_eq!(answer(&reader, WAYS[0]).await, before, "{level} {first}");
            let fails = answer(&reader, "SELECT 1 / (tenant_id - tenant_id) FROM events").await;
            assert_eq!(fails, "22012");
            reader.batch_execute("ROLLBACK TO s").await.unwrap();
            assert_eq!(answer(&reader, WAYS[0]).await, before, "an error keeps the snapshot");
            for tenant in 1..=12 {
                let one =
                    format!("SELECT count(*) FROM events WHERE tenant_id = {tenant} AND id = 90");
                assert_eq!(answer(&reader, &one).await, "0\n1 rows\n", "{tenant}");
            }
            reader.batch_execute("COMMIT").await.unwrap();
            assert_ne!(answer(&reader, WAYS[0]).await, before, "a new one begins");
            for tenant in 1..=12 {
                let delete = format!("DELETE FROM events WHERE tenant_id = {tenant} AND id = 90");
                writer.batch_execute(&delete).await.unwrap();
            }
        }
    }
    // AND CHAIN begins anew.
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    reader.batch_execute("UPDATE accounts SET region = region WHERE tenant_id = 5").await.unwrap();
    let before = answer(&reader, WAYS[0]).await;
    write(insert(91)).await;
    assert_eq!(answer(&reader, WAYS[0]).await, before);
    reader.batch_execute("COMMIT AND CHAIN").await.unwrap();
    assert_ne!(answer(&reader, WAYS[0]).await, before);
    reader.batch_execute("ROLLBACK").await.unwrap();
    for tenant in 1..=12 {
        let delete = format!("DELETE FROM events WHERE tenant_id = {tenant} AND id = 91");
        writer.batch_execute(&delete).await.unwrap();
    }
}

async fn statements_see_what_is_committed_when_they_begin(both: &Both) {
    let (reader, writer) = (connect(&both.router_url()).await, connect(&both.router_url()).await);
    reader.batch_execute("BEGIN").await.unwrap();
    reader.batch_execute("UPDATE accounts SET region = region WHERE tenant_id = 5").await.unwrap();
    for tenant in 1..=6 {
        let count = "SELECT count(*) FROM moods";
        let before: i64 = answer(&reader, count).await.lines().next().unwrap().parse().unwrap();
        let insert = format!("INSERT INTO moods VALUES ({}, 'ok')", 100 + tenant);
        writer.batch_execute(&insert).await.unwrap();
        assert_eq!(answer(&reader, count).await, format!("{}\n1 rows\n", before + 1));
    }
    // Two tables' rows would be of two moments on the transaction's own shard.
    let two = "SELECT count(*) FROM accounts a, events e WHERE a.tenant_id = e.id";
    assert_eq!(answer(&reader, two).await, "0A000");
    assert_eq!(answer(&reader, two).await, "25P02");
    reader.batch_execute("ROLLBACK").await.unwrap();
    for tenant in 1..=6 {
        let delete = format!("DELETE FROM moods WHERE tenant_id = {}", 100 + tenant);
        writer.batch_execute(&delete).await.unwrap();
    }
}

async fn one_shard_writes(both: &Both) {
    let clients = both.clients().await;
    let write =
        |tenant: i64| format!("UPDATE accounts SET name = name || 'x' WHERE tenant_id = {tenant}");
    let read =
        |tenant: i64| format!("SELECT name, region FROM accounts WHERE tenant_id = {tenant}");
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        alike(&clients, &[begin, &write(1)]).await;
        for tenant in 1..=12 {
            alike(&clients, &[&read(tenant), WAYS[0], &write(1)]).await;
        }
        alike(
            &clients,
            &["SAVEPOINT a", "SELECT 1 / 0 FROM accounts WHERE tenant_id = 2", "ROLLBACK TO a"],
        )
        .await;
        alike(&clients, &[&write(1), &read(1), &read(2), &read(3), "ROLLBACK", &read(1)]).await;
        // Another shard's row can't be written or locked.
        for tenant in 2..=12 {
            for sql in [write(tenant), format!("{} FOR UPDATE", read(tenant))] {
                clients.router.batch_execute(begin).await.unwrap();
                clients.router.batch_execute(&write(1)).await.unwrap();
                let said = answer(&clients.router, &sql).await;
                assert!(said == "0A000" || said.ends_with("1 rows\n"), "{said}");
                clients.router.batch_execute("ROLLBACK").await.unwrap();
            }
        }
    }
    // A setting of the transaction's own is not known elsewhere.
    clients.router.batch_execute("BEGIN; ").await.unwrap();
    clients.router.batch_execute("SET LOCAL TimeZone = 'Asia/Tokyo'").await.unwrap();
    clients.router.batch_execute(&write(1)).await.unwrap();
    assert_eq!(answer(&clients.router, "SELECT max(tz) FROM events").await, "0A000");
    clients.router.batch_execute("ROLLBACK").await.unwrap();
}

async fn prepared_statements_join(both: &Both) {
    let mut clients = both.clients().await;
    let sqls = [
        "SELECT tenant_id, name FROM accounts WHERE tenant_id > $1 ORDER BY tenant_id",
        "SELECT count(*), max(name) FROM accounts WHERE tenant_id > $1",
        "SELECT tenant_id, name FROM accounts WHERE tenant_id = $1",
        "SELECT DISTINCT tenant_id % 5, 'x' FROM accounts WHERE tenant_id <> $1 ORDER BY 1",
    ];
    let run = async |client: &mut Client| -> Vec<String> {
        let mut seen = Vec::new();
        let builder = client.build_transaction();
        let transaction = builder.start().await.unwrap();
        let write = "UPDATE accounts SET name = $2 WHERE tenant_id = $1";
        transaction.execute(write, &[&4_i64, &"own"]).await.unwrap();
        for (number, sql) in sqls.iter().enumerate() {
            let statement = transaction.prepare(sql).await.unwrap();
            for from in [4_i64, 7, 3] {
                for row in transaction.query(&statement, &[&from]).await.unwrap() {
                    match number {
                        3 => seen.push(format!("{}", row.get::<_, i64>(0))),
                        _ => {
                            seen.push(format!("{}{}", row.get::<_, i64>(0), row.get::<_, &str>(1)))
                        }
                    }
                }
            }
        }
        let fails = "SELECT tenant_id / (tenant_id - $1) FROM accounts";
        let error = transaction.query(fails, &[&9_i64]).await.unwrap_err();
        seen.push(shown(&error).0);
        let error = transaction.query(sqls[0], &[&9_i64]).await.unwrap_err();
        seen.push(shown(&error).0);
        transaction.rollback().await.unwrap();
        seen
    };
    let expected = run(&mut clients.plain).await;
    assert_eq!(run(&mut clients.router).await, expected);
    assert_eq!(run(&mut clients.router).await, expected);
}

async fn lost_backends_fail_the_transaction(both: &Both) {
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for shard in [1, 2, 3] {
            let client = connect(&both.router_url()).await;
            client.batch_execute(begin).await.unwrap();
            client
                .batch_execute("UPDATE accounts SET region = region WHERE tenant_id = 1")
                .await
                .unwrap();
            client.batch_execute("SAVEPOINT a").await.unwrap();
            let before = answer(&client, WAYS[0]).await;
            both.superuser_sql(
                shard,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE state LIKE 'idle in transaction%' AND backend_type = 'client backend'",
            );
            // Whatever was lost: never another answer than before, or an error.
            let after = answer(&client, WAYS[0]).await;
            if after == "57P01" {
                // The transaction's own server has said so itself.
                continue;
            }
            assert!(after == before || ["08006", "25P02", "0A000"].contains(&&*after), "{after}");
            let _ = client.batch_execute("ROLLBACK TO a").await;
            let after = answer(&client, WAYS[0]).await;
            assert!(after == before || ["08006", "25P02", "0A000"].contains(&&*after), "{after}");
            client.batch_execute("ROLLBACK").await.unwrap();
            assert_eq!(answer(&client, WAYS[0]).await, before);
        }
    }
}

async fn clients_that_leave_leave_nothing(both: &Both) {
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for _ in 0..6 {
            let (gone, connection) =
                tokio_postgres::connect(&both.router_url(), NoTls).await.unwrap();
            let socket = tokio::spawn(connection);
            gone.batch_execute(begin).await.unwrap();
            gone.batch_execute("UPDATE accounts SET region = region WHERE tenant_id = 1")
                .await
                .unwrap();
            answer(&gone, WAYS[0]).await;
            drop(gone);
            let _ = socket.await;
        }
    }
    let client = connect(&both.router_url()).await;
    client.batch_execute("UPDATE accounts SET region = region WHERE tenant_id = 1").await.unwrap();
    for way in WAYS {
        answer(&client, way).await;
    }
    let mut left = String::new();
    for _ in 0..100 {
        left.clear();
        for shard in [1, 2, 3] {
            left += both
                .superuser_sql(
                    shard,
                    "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'",
                )
                .trim();
        }
        if left == "000" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("transactions are left open: {left}");
}
