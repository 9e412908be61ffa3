//! Sessions that keep backends of several shards.

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::psql::psql;
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::wire::Wire;

/// Tenants of the sample: the first lives on shard 1, the second on shard 2.
const ON: [(u16, &str); 2] = [
    (1, "SELECT count(*) FROM tasks WHERE tenant_id = 1"),
    (2, "SELECT count(*) FROM tasks WHERE tenant_id = 2"),
];

fn sharded() -> (Cluster, Router) {
    let cluster = Cluster::start(ClusterOptions { replicas: 0, ..Default::default() });
    cluster.load_sample();
    let mut config = "pool.size_max = 3\n".to_owned();
    for user in ["t1", "t2"] {
        config += &format!("[[user]]\nname = \"{user}\"\ntrust = true\n");
    }
    config += "[[user]]\nname = \"s1\"\ntrust = true\npool_mode = \"session\"\n";
    let router = Router::start(&cluster, &RouterOptions::sharded(&cluster).with_config(&config));
    (cluster, router)
}

#[test]
fn shards_keep_what_a_session_holds_on_them() {
    let (cluster, router) = sharded();
    let mut client = Wire::open(router.port(), "t1");
    // Migration tools lock like this: the home shard has it, for all of them.
    client.query("SELECT pg_advisory_lock(7)").unwrap();
    let mut other = Wire::open(router.port(), "t1");
    assert_eq!(other.value("SELECT pg_try_advisory_lock(7)"), "f");
    // The session works on all shards meanwhile, in transactions and beside.
    for (_, sql) in ON {
        client.query(sql).unwrap();
        client.query("BEGIN").unwrap();
        client.query(sql).unwrap();
        client.query("COMMIT").unwrap();
    }
    client.query("SELECT title FROM tasks ORDER BY tenant_id, task_id LIMIT 3").unwrap();
    // A lock is where its statement runs.
    let on_second = "SELECT pg_advisory_lock(8) FROM tenants WHERE tenant_id = 2";
    client.query(on_second).unwrap();
    let locks = |shard, id: u32| {
        let sql =
            format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {id}");
        cluster.superuser_sql(shard, &sql)
    };
    assert_eq!((&*locks(1, 7), &*locks(2, 8), &*locks(1, 8)), ("1", "1", "0"));
    let row = shown(&router, &format!("CLIENTS {}", client.pid)).remove(0);
    assert_eq!(row[8], "advisory lock");
    assert_eq!(row[10].split(", ").count(), 2, "two backends: {row:?}");
    assert_eq!(client.value("SELECT pg_advisory_unlock(7)"), "t");
    assert_eq!(client.value(&on_second.replace("_lock", "_unlock")), "t");
    client.query(on_second).unwrap();
    client.query("DISCARD ALL").unwrap();
    wait_for("the lock to be given back", || locks(2, 8) == "0");
    client.query("SELECT pg_advisory_lock(9)").unwrap();
    drop(client);
    wait_for("the lock of a client that is gone", || locks(1, 9) == "0");
}

#[test]
fn cursors_with_hold_are_read_where_they_were_declared() {
    let (_cluster, router) = sharded();
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    let declare = "DECLARE c CURSOR WITH HOLD FOR SELECT task_id FROM tasks WHERE tenant_id = 2";
    client.query(declare).unwrap();
    client.query("COMMIT").unwrap();
    client.query(ON[0].1).unwrap();
    let first = client.value("FETCH 1 FROM c");
    assert_ne!(client.value("FETCH 1 FROM c"), first);
    client.query("BEGIN").unwrap();
    client.query(ON[0].1).unwrap();
    client.query("COMMIT").unwrap();
    client.query("CLOSE c").unwrap();
    assert_eq!(client.query("FETCH 1 FROM c").unwrap_err().code, "34000");
    client.query(&declare.replace("tenant_id = 2", "tenant_id = 1").replace(" c ", " d ")).unwrap();
    let error = client.query("FETCH 1 FROM d").unwrap_err();
    assert_eq!(error.code, "0A000");
    assert!(error.message.starts_with("cursors WITH HOLD are on several shards"), "{error:?}");
}

#[test]
fn session_mode_has_a_backend_of_each_shard_for_life() {
    let (_cluster, router) = sharded();
    let mut client = Wire::open(router.port(), "s1");
    let pid = |client: &mut Wire, tenant: u32| {
        client.value(&format!("SELECT pg_backend_pid() FROM tenants WHERE tenant_id = {tenant}"))
    };
    let first = (pid(&mut client, 1), pid(&mut client, 2));
    let mut other = Wire::open(router.port(), "s1");
    assert_ne!(pid(&mut other, 1), first.0);
    assert_eq!((pid(&mut client, 1), pid(&mut client, 2)), first);
    client.query("BEGIN").unwrap();
    assert_eq!(pid(&mut client, 2), first.1);
    client.query("ROLLBACK").unwrap();
}

#[test]
fn session_whose_held_backend_is_lost_ends() {
    let (cluster, router) = sharded();
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT pg_advisory_lock(7)").unwrap();
    let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'";
    cluster.superuser_sql(1, sql);
    // It does not go on without its lock on that shard.
    client.query(ON[1].1).unwrap();
    let refusal = client.query(ON[0].1).unwrap_err();
    assert_eq!(refusal.severity, "FATAL", "{refusal:?}");
}

fn shown(router: &Router, topic: &str) -> Vec<Vec<String>> {
    let text = psql(&router.console_url(), &format!("SHOW {topic}")).expect();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// Two of three clients may keep connections; the third is told why it may not,
/// and the console who they are.
#[test]
fn holders_are_limited_and_listed_with_their_reason() {
    let config = "threads = 2\npool.size_max = 4\npool.holders_max = 2";
    let router = crate::setup::router(crate::setup::cluster(), config);
    let mut clients: Vec<Wire> = (0..3).map(|_| Wire::open(router.port(), "t1")).collect();
    let [one, two, three] = &mut clients[..] else { unreachable!() };
    one.query("CREATE TEMP TABLE mine (i int)").unwrap();
    two.query("SELECT pg_advisory_lock(77)").unwrap();
    // What a client holds more does not count again.
    two.query("DECLARE c CURSOR WITH HOLD FOR SELECT 1").unwrap();
    for (refused, why) in [
        ("CREATE TEMP TABLE other (i int)", "temp table"),
        ("SELECT pg_advisory_lock(78)", "advisory lock"),
    ] {
        let refusal = three.query(refused).unwrap_err();
        assert_eq!((&*refusal.code, &*refusal.severity), ("53400", "ERROR"));
        assert!(refusal.message.starts_with(why), "{}", refusal.message);
        assert!(refusal.hint.contains("pool.holders_max"), "{}", refusal.hint);
        assert_eq!(three.value("SELECT 1"), "1");
    }
    three.send(b'P', b"\0DECLARE c CURSOR WITH HOLD FOR SELECT 1\0\0\0");
    three.send(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]);
    three.send(b'E', &[0, 0, 0, 0, 0]);
    three.send(b'S', b"");
    assert_eq!(three.finish().unwrap_err().code, "53400");
    // Within a transaction it fails as any statement does.
    three.query("BEGIN; SELECT 1").unwrap();
    assert_eq!(three.query("CREATE TEMP TABLE other (i int)").unwrap_err().code, "53400");
    assert_eq!(three.query("SELECT 1").unwrap_err().code, "25P02");
    three.query("ROLLBACK").unwrap();
    // Another user has seats of its own.
    Wire::open(router.port(), "t2").query("CREATE TEMP TABLE mine (i int)").unwrap();

    let rows: Vec<_> = shown(&router, "HOLDS").into_iter().filter(|row| row[1] == "t1").collect();
    let reasons: Vec<&str> = rows.iter().map(|row| &*row[3]).collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(reasons.contains(&"temp table"), "{rows:?}");
    assert!(reasons.contains(&"cursor with hold, advisory lock"), "{rows:?}");
    // Who is behind a process, and the other way round.
    let pid = one.value("SELECT pg_backend_pid()");
    let id = one.pid.to_string();
    let of_process = shown(&router, &format!("SERVERS {pid}"));
    let [server] = &of_process[..] else { panic!("{of_process:?}") };
    assert_eq!((&server[4], &server[5]), (&pid, &id));
    let of_client = shown(&router, &format!("CLIENTS {id}"));
    let [client] = &of_client[..] else { panic!("{of_client:?}") };
    assert_eq!((&client[0], &client[10]), (&id, &pid));
    assert!(rows.iter().any(|row| row[0] == id && row[8] == pid), "{rows:?}");

    // DISCARD ALL, and leaving, free a seat.
    two.query("DISCARD ALL").unwrap();
    three.query("CREATE TEMP TABLE other (i int)").unwrap();
    assert_eq!(two.query("SELECT pg_advisory_lock(77)").unwrap_err().code, "53400");
    clients.remove(0);
    wait_for("the first one's seat", || clients[0].query("SELECT pg_advisory_lock(77)").is_ok());
}

#[test]
fn idle_holder_is_sent_away_and_others_are_not() {
    let config = "timeouts.idle_hold = \"700ms\"";
    let router = crate::setup::router(crate::setup::cluster(), config);
    let mut idle = Wire::open(router.port(), "t1");
    let mut holder = Wire::open(router.port(), "t1");
    let mut in_transaction = Wire::open(router.port(), "t1");
    holder.query("CREATE TEMP TABLE mine (i int)").unwrap();
    let pid = holder.value("SELECT pg_backend_pid()");
    in_transaction.query("CREATE TEMP TABLE mine (i int); BEGIN; SELECT 1").unwrap();
    let refusal = holder.farewell();
    assert_eq!(refusal.code, "57P05");
    assert_eq!(refusal.message, "terminating connection because it kept a backend and was idle");
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    wait_for("its backend to go", || crate::setup::cluster().superuser_sql(1, &there) == "0");
    assert_eq!(idle.value("SELECT 1"), "1");
    assert_eq!(in_transaction.value("SELECT 1"), "1");
}

/// What a session with the temporary table `recent` on the second shard can't do.
const NOT_TEMPORARY: [&str; 12] = [
    "SELECT count(*) FROM recent JOIN tasks USING (task_id)",
    "SELECT count(*) FROM tasks WHERE task_id IN (SELECT task_id FROM recent)",
    "CREATE TEMP TABLE tasks (i int)",
    "CREATE TEMP TABLE more AS SELECT * FROM tasks",
    "CREATE TEMP TABLE more (i int) INHERITS (tasks)",
    "CREATE TEMP VIEW more AS SELECT 1",
    "SELECT 1 AS i INTO TEMP more",
    "CREATE TEMP TABLE recent AS SELECT 1 AS i FROM tasks WHERE tenant_id = 1",
    "ALTER TABLE recent RENAME TO old",
    "DROP TABLE recent, tasks",
    "DISCARD TEMP",
    "SET search_path = pg_temp, public",
];

/// Each temporary table is on the shard where it was made, and statements that
/// name it go there.
#[test]
fn temporary_tables_are_on_the_shard_that_made_them() {
    let (cluster, router) = sharded();
    let mut client = Wire::open(router.port(), "t1");
    let made = |shard: u16| {
        let sql = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'";
        cluster.superuser_sql(shard, sql)
    };
    // The schemas must have been read: until then it is refused.
    wait_for("the first table", || {
        let sql =
            "CREATE TEMP TABLE recent AS SELECT task_id, title FROM tasks WHERE tenant_id = 2";
        client.query(sql).is_ok()
    });
    assert_eq!((&*made(1), &*made(2)), ("0", "1"));
    let all = client.value("SELECT count(*) FROM tasks WHERE tenant_id = 2");
    assert_eq!(client.value("SELECT count(*) FROM recent"), all);
    // Other shards serve the session meanwhile, and the table stays.
    let elsewhere = client.value(ON[0].1);
    assert_eq!(client.value("SELECT count(*) FROM pg_temp.recent"), all);
    assert_eq!(client.value(ON[0].1), elsewhere);
    client.query("SELECT tenant_id, count(*) FROM tasks GROUP BY tenant_id ORDER BY 1").unwrap();
    // With rows of the same shard it joins; with others it does not.
    let join = |tenant: &str| {
        format!("SELECT count(*) FROM recent JOIN tasks USING (task_id) WHERE tenant_id = {tenant}")
    };
    assert_eq!(client.value(&join("2")), all);
    for refused in NOT_TEMPORARY.iter().map(|sql| (*sql).to_owned()).chain([join("1")]) {
        let refusal = client.query(&refused).unwrap_err();
        assert_eq!(refusal.code, "0A000", "{refused}: {}", refusal.message);
    }
    // Written, filled by COPY, indexed, in transactions and prepared.
    client.query("ALTER TABLE recent ADD COLUMN mark int").unwrap();
    client.query("CREATE INDEX ON recent (task_id)").unwrap();
    client.query("ANALYZE recent").unwrap();
    client.query("BEGIN").unwrap();
    client.query("UPDATE recent SET mark = 1").unwrap();
    client.query("UPDATE tasks SET title = title WHERE tenant_id = 2").unwrap();
    client.query("COMMIT").unwrap();
    client.send(b'P', b"by_name\0SELECT sum(mark)::text FROM recent\0\0\0");
    client.send(b'B', b"\0by_name\0\0\0\0\0\0\0");
    client.send(b'E', &[0, 0, 0, 0, 0]);
    client.send(b'S', b"");
    assert_eq!(client.finish().unwrap()[0][0].as_deref(), Some(&*all));
    // A second one of the session is where its transaction is, by the extended
    // protocol too; what a rollback undoes is nowhere else.
    client.query("BEGIN").unwrap();
    client.query(ON[0].1).unwrap();
    client.send(b'P', b"\0CREATE TEMP TABLE here (i int)\0\0\0");
    client.send(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]);
    client.send(b'E', &[0, 0, 0, 0, 0]);
    client.send(b'S', b"");
    client.finish().unwrap();
    client.query("INSERT INTO here (i) VALUES (1)").unwrap();
    assert_eq!(made(1), "0");
    // The backend that keeps the other one does not join.
    assert_eq!(client.query("SELECT count(*) FROM recent").unwrap_err().code, "0A000");
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.query("SELECT * FROM here").unwrap_err().code, "42P01");
    // Others neither see it nor get its backend.
    let mut other = Wire::open(router.port(), "t1");
    assert_eq!(other.query("SELECT * FROM recent").unwrap_err().code, "0A000");
    let rows = shown(&router, "HOLDS");
    assert!(rows.iter().all(|row| row[3] == "temp table"), "{rows:?}");
    assert_eq!(rows.len(), 2, "{rows:?}");
    client.query("DROP TABLE recent").unwrap();
    assert_eq!(client.query("SELECT * FROM recent").unwrap_err().code, "42P01");
    client.query("DISCARD ALL").unwrap();
    wait_for("its backends to be closed", || shown(&router, "HOLDS").is_empty());
    client.query("CREATE TEMP TABLE recent (i int)").unwrap();
    assert_eq!(client.value("SELECT count(*) FROM recent"), "0");
    drop(client);
    wait_for("the table to go with its session", || (&*made(1), &*made(2)) == ("0", "0"));
}
