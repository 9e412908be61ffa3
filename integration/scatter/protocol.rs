//! Portals, row limits, transactions, errors, cancels and settings around reads
//! over several shards.

use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::answers::shown;
use super::both::{Both, connect};

pub(crate) async fn all(both: &Both) {
    row_limits(both).await;
    transactions(both).await;
    errors_leave_everything_clean(both).await;
    cancels_reach_every_shard(both).await;
    lost_backends_fail_the_read_alone(both).await;
    connections_that_ended_idle_fail_no_read(both).await;
    settings_go_to_every_shard(both).await;
    large_results_stream(both).await;
    many_at_once(both).await;
}

async fn numbers(client: &Client, sql: &str) -> Vec<String> {
    let mut seen = Vec::new();
    for message in client.simple_query(sql).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            seen.push(row.get(0).unwrap_or("null").to_owned());
        }
    }
    seen
}

async fn row_limits(both: &Both) {
    let mut client = connect(&both.router_url()).await;
    let transaction = client.transaction().await.unwrap();
    let statement =
        transaction.prepare("SELECT tenant_id FROM accounts ORDER BY tenant_id").await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let rows = transaction.query_portal(&portal, 3).await.unwrap();
    let seen: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, [1, 2, 3]);
    let rows = transaction.query_portal(&portal, 3).await.unwrap();
    let seen: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, [4, 5, 6]);
    transaction.rollback().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let rows = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!(rows.len(), 40);
    transaction.commit().await.unwrap();
}

async fn transactions(both: &Both) {
    let client = connect(&both.router_url()).await;
    client.batch_execute("BEGIN").await.unwrap();
    assert_eq!(
        numbers(&client, "SELECT tenant_id FROM accounts ORDER BY 1 LIMIT 2").await,
        ["1", "2"]
    );
    // The transaction has no shard yet, and gets one.
    client.batch_execute("UPDATE accounts SET name = 'x' WHERE tenant_id = 1").await.unwrap();
    assert_eq!(
        numbers(&client, "SELECT name FROM accounts ORDER BY tenant_id LIMIT 1").await,
        ["x"]
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(
        numbers(&client, "SELECT name FROM accounts WHERE tenant_id = 1").await,
        ["Berta"],
        "the update is undone"
    );
    // An error in it fails the transaction.
    client.batch_execute("BEGIN").await.unwrap();
    let error = client.simple_query("SELECT 1 / (tenant_id - 7) FROM accounts").await.unwrap_err();
    assert_eq!(shown(&error).0, "22012");
    let failed = client.simple_query("SELECT tenant_id FROM accounts").await.unwrap_err();
    assert_eq!(shown(&failed).0, "25P02");
    client.batch_execute("COMMIT").await.unwrap();
}

async fn errors_leave_everything_clean(both: &Both) {
    let client = connect(&both.router_url()).await;
    for _ in 0..20 {
        let sql = "SELECT 1 / (tenant_id - 7) FROM accounts ORDER BY tenant_id";
        let error = client.simple_query(sql).await.unwrap_err();
        assert_eq!(shown(&error), ("22012".to_owned(), "division by zero".to_owned()));
        let error = client.query(sql, &[]).await.unwrap_err();
        assert_eq!(shown(&error).0, "22012");
        let sql = "SELECT tenant_id FROM accounts ORDER BY tenant_id DESC LIMIT 1";
        assert_eq!(numbers(&client, sql).await, ["40"]);
        let rows = client.query(sql, &[]).await.unwrap();
        assert_eq!(rows[0].get::<_, i64>(0), 40);
    }
}

/// Takes the servers' time: every row compares with millions of others.
const LONG: &str = "SELECT e1.n FROM events e1, events e2, events e3, events e4, events e5, events e6 \
    WHERE e1.tenant_id = e2.tenant_id AND e2.tenant_id = e3.tenant_id AND e3.tenant_id = e4.tenant_id \
    AND e4.tenant_id = e5.tenant_id AND e5.tenant_id = e6.tenant_id AND repeat(md5(concat( \
    e1.id, e2.id, e3.id, e4.id, e5.id, e6.id)), 300) = 'x'";

/// The same for each way in which several shards answer: rows that stream, parts
/// that one server combines, rows that one server has brought to it.
fn long() -> [String; 3] {
    let parts = LONG.replace("e1.n FROM", "count(e1.n) FROM");
    let brought = LONG.replace("e1.n FROM", "DISTINCT rank() OVER (ORDER BY e1.n) FROM");
    [LONG.to_owned(), parts, brought]
}

async fn cancels_reach_every_shard(both: &Both) {
    let client = connect(&both.router_url()).await;
    for sql in long() {
        let token = client.cancel_token();
        let waits = async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.simple_query(&sql), waits);
        assert_eq!(shown(&answer.unwrap_err()).0, "57014", "{sql}");
    }
    assert_eq!(numbers(&client, "SELECT tenant_id FROM accounts ORDER BY 1 LIMIT 1").await, ["1"]);
    // A client that goes away leaves nothing running.
    let (gone, connection) = tokio_postgres::connect(&both.router_url(), NoTls).await.unwrap();
    let socket = tokio::spawn(connection);
    let _ = tokio::time::timeout(Duration::from_millis(200), gone.simple_query(LONG)).await;
    socket.abort();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%repeat(md5%' AND pid <> pg_backend_pid()";
    let mut left = String::new();
    for _ in 0..100 {
        left = numbers(&client, running).await.join("");
        if left == "0" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(left, "0", "still running on the home shard");
}

/// A shard that hangs up in the middle.
async fn lost_backends_fail_the_read_alone(both: &Both) {
    let client = connect(&both.router_url()).await;
    let [streamed, parts, _] = long();
    for (shard, begin, sql) in
        [(1, false, &streamed), (3, false, &parts), (2, true, &streamed), (2, true, &parts)]
    {
        if begin {
            client.batch_execute("BEGIN").await.unwrap();
        }
        let kills = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            both.superuser_sql(
                shard,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE query LIKE '%repeat(md5%' AND state = 'active' AND pid <> pg_backend_pid() \
                 AND backend_type = 'client backend'",
            )
        };
        let (answer, killed) = tokio::join!(client.simple_query(sql), kills);
        assert_eq!(killed.trim(), "1", "one backend of shard {shard}");
        let (state, message) = shown(&answer.unwrap_err());
        assert_eq!(state, "08006", "{message}");
        if begin {
            let failed = client.simple_query("SELECT tenant_id FROM accounts").await.unwrap_err();
            assert_eq!(shown(&failed).0, "25P02");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        assert_eq!(
            numbers(&client, "SELECT tenant_id FROM accounts ORDER BY 1 LIMIT 1").await,
            ["1"]
        );
    }
}

/// The router may take one for a read that has ended a moment ago: the client sees
/// nothing of it.
async fn connections_that_ended_idle_fail_no_read(both: &Both) {
    let router = both.own_router();
    let client = connect(&router.url()).await;
    client.batch_execute("SET application_name = 'ended idle'").await.unwrap();
    // The application's own role may end its own connections, without a new
    // process in between that would give the router time to see it.
    let (url, _) = &both.shards()[1];
    let killer = connect(url).await;
    let (streamed, parts, brought) = (
        "SELECT tenant_id FROM accounts ORDER BY tenant_id",
        "SELECT count(*) FROM accounts",
        "SELECT DISTINCT rank() OVER (ORDER BY tenant_id) FROM accounts ORDER BY 1",
    );
    let mut killed = 0;
    for _ in 0..30 {
        for (sql, first) in [(streamed, "1"), (parts, "40"), (brought, "1")] {
            assert_eq!(numbers(&client, sql).await[0], first);
            let ended: i64 = killer
                .query_one(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                     WHERE usename = current_user AND state = 'idle' AND query = 'COMMIT' \
                     AND application_name = 'ended idle'",
                    &[],
                )
                .await
                .unwrap()
                .get(0);
            killed += ended;
            assert_eq!(numbers(&client, sql).await[0], first, "{sql}");
            let rows = client.query(sql, &[]).await.unwrap();
            assert!(!rows.is_empty(), "{sql}");
        }
    }
    assert!(killed > 30, "{killed} connections were ended");
}

async fn settings_go_to_every_shard(both: &Both) {
    let client = connect(&both.router_url()).await;
    client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await.unwrap();
    let sql = "SELECT DISTINCT to_char(tz, 'TZ') FROM events WHERE tz IS NOT NULL";
    assert_eq!(numbers(&client, sql).await, ["JST"]);
    let sql = "SELECT to_char(tz, 'TZ') FROM events WHERE tz IS NOT NULL";
    let zones = numbers(&client, sql).await;
    assert!(!zones.is_empty() && zones.iter().all(|zone| zone == "JST"), "{zones:?}");
    // The next client sees nothing of it.
    let other = connect(&both.router_url()).await;
    let zones = numbers(&other, sql).await;
    assert!(zones.iter().all(|zone| zone != "JST"), "{zones:?}");
}

/// Millions of bytes, more than any buffer on the way.
async fn large_results_stream(both: &Both) {
    let client = connect(&both.router_url()).await;
    let sql = "SELECT e1.tenant_id, repeat('x', 4000) FROM events e1, events e2, events e3 \
        WHERE e1.tenant_id = e2.tenant_id AND e2.tenant_id = e3.tenant_id \
        ORDER BY e1.tenant_id";
    let params: [&str; 0] = [];
    let rows = client.query_raw(sql, params).await.unwrap();
    let mut rows = std::pin::pin!(rows);
    let (mut count, mut last) = (0, 0);
    while let Some(row) = rows.try_next().await.unwrap() {
        let tenant: i64 = row.get(0);
        assert!(tenant >= last);
        assert_eq!(row.get::<_, &str>(1).len(), 4000);
        (count, last) = (count + 1, tenant);
    }
    assert!(count > 5000, "{count} rows");
}

/// More clients than backends, all of them on all shards.
async fn many_at_once(both: &Both) {
    let url = both.router_url();
    let clients = (0..12).map(|_| {
        let url = url.clone();
        async move {
            let client = connect(&url).await;
            for _ in 0..5 {
                let seen = numbers(&client, "SELECT tenant_id FROM accounts ORDER BY 1").await;
                assert_eq!(seen.len(), 40);
                assert_eq!(numbers(&client, "SELECT 7").await, ["7"]);
            }
        }
    });
    futures_util::future::join_all(clients).await;
}
