//! READ ONLY transactions: which of them a replica serves, and that it is one
//! replica for the whole, with nothing stale in it.

use std::time::Duration;

use keyway::local::NodeName;
use tokio_postgres::{Client, NoTls};

use super::levels::{Paused, connect, one};
use super::support::router::Router;
use super::support::wait_for;
use super::{alone, router, shared};

/// Says whether it runs on a replica; anybody may run it.
const WHERE: &str = "SELECT pg_is_in_recovery()::text FROM identities WHERE tenant_id = 1";
const PORT: &str = "SELECT inet_server_port()::text FROM identities WHERE tenant_id = 1";
const READ: &str = "SELECT value FROM registers WHERE tenant_id = 7000";
const WRITE: &str = "UPDATE registers SET value = value + 1 WHERE tenant_id = 7000 RETURNING value";

/// A router at level slot whose replicas have been seen to serve.
fn ready(config: &str) -> Router {
    let router = router(shared(), "slot", config);
    wait_for("a transaction on a replica", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = connect(&router).await;
            client.batch_execute("BEGIN READ ONLY").await.unwrap();
            let replica = one(&client, WHERE).await == "true";
            client.batch_execute("COMMIT").await.unwrap();
            replica
        })
    });
    router
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Whether the transaction that these statements begin runs on a replica; several
/// tries, because a write of the monitor's may be in flight.
async fn on_replica(client: &Client, begin: &[&str]) -> bool {
    let mut replica = false;
    for _ in 0..40 {
        for sql in begin {
            client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        replica = one(client, WHERE).await == "true";
        let again = one(client, WHERE).await == "true";
        client.batch_execute("COMMIT").await.unwrap();
        assert_eq!(replica, again, "one node for the whole");
        if replica {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    replica
}

#[test]
fn a_read_only_transaction_runs_on_one_replica_however_it_says_so() {
    let _alone = alone();
    let router = ready("");
    block_on(async {
        let client = connect(&router).await;
        let replica: &[&[&str]] = &[
            &["BEGIN READ ONLY"],
            &["START TRANSACTION READ ONLY"],
            &["BEGIN", "SET TRANSACTION READ ONLY"],
            &["BEGIN", "SET LOCAL work_mem = '1MB'", "SET TRANSACTION READ ONLY"],
            &["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SAVEPOINT a"],
            &["BEGIN READ ONLY DEFERRABLE"],
            &["SET default_transaction_read_only = on", "BEGIN"],
            &["RESET default_transaction_read_only", "BEGIN READ ONLY"],
            &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "START TRANSACTION"],
        ];
        for begin in replica {
            assert!(on_replica(&client, begin).await, "{begin:?}");
        }
        let primary: &[&[&str]] = &[
            &["BEGIN READ WRITE"],
            &["BEGIN READ WRITE", "SET TRANSACTION READ ONLY"],
            &["BEGIN READ ONLY", "SET TRANSACTION READ WRITE"],
            &["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE"],
            &["RESET default_transaction_read_only", "BEGIN"],
            &["SET default_transaction_isolation = 'serializable'", "BEGIN READ ONLY"],
            &["BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY"],
        ];
        for begin in primary {
            assert!(!on_replica(&client, begin).await, "{begin:?}");
        }
        // And a read outside of a transaction, which a standby would refuse.
        assert_eq!(one(&client, "SELECT value FROM identities WHERE tenant_id = 5").await, "5");
        let url = format!("{}&options=-cdefault_transaction_read_only%3Don", router.url());
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        assert!(on_replica(&client, &["BEGIN"]).await, "the startup says so");
    });
}

#[test]
fn a_roles_default_makes_its_transactions_read_only() {
    let _alone = alone();
    let cluster = shared();
    let _reset = RoleReset;
    let set = |words: &str| {
        cluster.superuser_sql(1, &format!("ALTER ROLE app {words}"));
        let value = words.rsplit(' ').next().unwrap().trim_matches('\'').to_owned();
        let arrived = format!("SELECT setconfig::text LIKE '%{value}%' FROM pg_db_role_setting");
        for replica in [1, 2] {
            let node = NodeName { shard: 1, replica };
            wait_for("the role's setting", || {
                cluster.servers().superuser_sql(node, &arrived).unwrap().contains('t')
            });
        }
    };
    set("SET default_transaction_read_only = on");
    let router = ready("");
    block_on(async {
        let client = connect(&router).await;
        assert!(on_replica(&client, &["BEGIN"]).await);
        assert!(!on_replica(&client, &["BEGIN READ WRITE"]).await);
    });
    set("SET default_transaction_isolation = 'serializable'");
    drop(router);
    let router = super::router(cluster, "slot", "");
    block_on(async {
        let client = connect(&router).await;
        for _ in 0..20 {
            // A replica refuses it, and the primary runs it.
            assert_eq!(one(&client, "SELECT value FROM identities WHERE tenant_id = 5").await, "5");
        }
        assert!(!on_replica(&client, &["BEGIN"]).await);
    });
}

/// Takes back what the role was given.
struct RoleReset;

impl Drop for RoleReset {
    fn drop(&mut self) {
        shared().superuser_sql(1, "ALTER ROLE app RESET ALL");
        shared().wait_replicated();
    }
}

#[test]
fn a_read_only_transaction_is_whole_on_its_replica() {
    let _alone = alone();
    let router = ready("");
    block_on(async {
        let mut client = connect(&router).await;
        let ports = |transaction: &[String]| transaction.windows(2).all(|two| two[0] == two[1]);
        for _ in 0..10 {
            let transaction = client.build_transaction().read_only(true).start().await.unwrap();
            let mut seen = Vec::new();
            let prepared = transaction.prepare(PORT).await.unwrap();
            for _ in 0..3 {
                seen.push(transaction.query_one(&prepared, &[]).await.unwrap().get::<_, String>(0));
                seen.push(one(transaction.client(), PORT).await);
                transaction.batch_execute("SAVEPOINT s").await.unwrap();
            }
            let cursor = "DECLARE c CURSOR FOR SELECT inet_server_port()::text FROM identities \
                          WHERE tenant_id = 1";
            transaction.batch_execute(cursor).await.unwrap();
            seen.push(one(transaction.client(), "FETCH 1 FROM c").await);
            transaction.batch_execute("CLOSE c; ROLLBACK TO s").await.unwrap();
            seen.push(one(transaction.client(), PORT).await);
            transaction.commit().await.unwrap();
            assert!(ports(&seen), "{seen:?}");
        }
        refusals(&client).await;
        // All of that leaves a session that writes.
        let before: i64 = one(&client, READ).await.parse().unwrap();
        let after: i64 = one(&client, WRITE).await.parse().unwrap();
        assert_eq!(after, before + 1);
    });
}

/// What a transaction on a replica refuses, and what it says.
async fn refusals(client: &Client) {
    for (sql, code) in [
        ("UPDATE registers SET value = 0 WHERE tenant_id = 1", "25006"),
        ("SELECT value FROM registers WHERE tenant_id = 1 FOR UPDATE", "25006"),
        ("SET TRANSACTION READ WRITE", "25001"),
        ("SELECT pg_advisory_xact_lock(1)", "0A000"),
        ("SELECT pg_notify('a', 'b')", "0A000"),
        ("NOTIFY a", "0A000"),
        ("DO $$BEGIN END$$", "0A000"),
        (
            "SELECT /* keyway: consistency=primary */ value FROM registers WHERE tenant_id = 1",
            "0A000",
        ),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT value FROM registers WHERE tenant_id = 1", "0A000"),
        ("COMMIT; UPDATE registers SET value = 0 WHERE tenant_id = 1", "0A000"),
    ] {
        let mut replica = false;
        for _ in 0..40 {
            client.batch_execute("BEGIN READ ONLY").await.unwrap();
            replica = one(client, WHERE).await == "true";
            if replica {
                break;
            }
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        assert!(replica, "a replica serves");
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), code, "{sql}: {error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

#[test]
fn a_statement_of_a_read_only_transaction_waits_for_what_was_acknowledged() {
    let _alone = alone();
    let cluster = shared();
    let router = ready("");
    block_on(async {
        let (writer, reader) = (connect(&router).await, connect(&router).await);
        let first: i64 = one(&writer, WRITE).await.parse().unwrap();
        for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
            let begin = format!("BEGIN ISOLATION LEVEL {isolation} READ ONLY");
            let before: i64 = open_on_replica(&reader, &begin).await;
            assert!(before >= first, "{before} of {first}");
            let paused = Paused::new(cluster);
            let written: i64 = one(&writer, WRITE).await.parse().unwrap();
            if isolation == "READ COMMITTED" {
                let error = reader.simple_query(READ).await.unwrap_err();
                assert_eq!(error.code().unwrap().code(), "40001", "{error:?}");
                reader.batch_execute("ROLLBACK").await.unwrap();
                drop(paused);
                let before = open_on_replica(&reader, &begin).await;
                assert_eq!(before, written);
                let next: i64 = one(&writer, WRITE).await.parse().unwrap();
                let seen: i64 = one(&reader, READ).await.parse().unwrap();
                assert_eq!(seen, next, "what was acknowledged meanwhile");
            } else {
                let seen: i64 = one(&reader, READ).await.parse().unwrap();
                assert_eq!(seen, before, "one snapshot");
                drop(paused);
                let seen: i64 = one(&reader, READ).await.parse().unwrap();
                assert_eq!((seen, written), (before, before + 1), "also later");
            }
            reader.batch_execute("COMMIT").await.unwrap();
        }
    });
}

/// Begins until the first read is served by a replica; what it showed.
async fn open_on_replica(client: &Client, begin: &str) -> i64 {
    for _ in 0..400 {
        client.batch_execute(begin).await.unwrap();
        if one(client, WHERE).await == "true" {
            return one(client, READ).await.parse().unwrap();
        }
        client.batch_execute("ROLLBACK").await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no replica serves");
}

#[test]
fn a_conflict_with_replay_ends_a_read_only_transaction_as_on_a_server() {
    let _alone = alone();
    let cluster = shared();
    cluster.sql(1, "CREATE TABLE noted_once (tenant_id int8 PRIMARY KEY, value int8)");
    for replica in [1, 2] {
        let node = NodeName { shard: 1, replica };
        for sql in
            ["ALTER SYSTEM SET max_standby_streaming_delay = '100ms'", "SELECT pg_reload_conf()"]
        {
            cluster.servers().superuser_sql(node, sql).unwrap();
        }
    }
    let router = ready("");
    block_on(async {
        let client = connect(&router).await;
        open_on_replica(&client, "BEGIN READ ONLY").await;
        client.batch_execute("SELECT value FROM identities WHERE tenant_id = 3").await.unwrap();
        let slow = "SELECT value, pg_sleep(60) FROM identities WHERE tenant_id = 3";
        let runs = "SELECT count(*) FROM pg_stat_activity \
                    WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' \
                    AND pid <> pg_backend_pid()";
        let conflict = async {
            // A transaction that is idle would lose its connection instead.
            let is_active = |replica| {
                let node = NodeName { shard: 1, replica };
                cluster.servers().superuser_sql(node, runs).unwrap() == "1"
            };
            while !is_active(1) && !is_active(2) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Replay waits for the lock of the transaction, and ends its statement.
            cluster.sql(
                1,
                "BEGIN; LOCK TABLE identities IN ACCESS EXCLUSIVE MODE; \
                 ALTER TABLE identities SET (fillfactor = 90); COMMIT",
            );
        };
        let (answer, ()) = tokio::join!(client.simple_query(slow), conflict);
        let error = answer.unwrap_err();
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("40001"), "{error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(one(&client, "SELECT value FROM identities WHERE tenant_id = 3").await, "3");
    });
    for replica in [1, 2] {
        let node = NodeName { shard: 1, replica };
        for sql in ["ALTER SYSTEM RESET max_standby_streaming_delay", "SELECT pg_reload_conf()"] {
            cluster.servers().superuser_sql(node, sql).unwrap();
        }
    }
}
