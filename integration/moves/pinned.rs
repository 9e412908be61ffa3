//! Clients that keep a connection to the shard which their tenant leaves: what
//! they write goes to the owner all the same, and what they keep stays theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::routed::{Routed, runtime};
use crate::support::psql::{Psql, psql};
use crate::support::wait_for;
use crate::whole::fill;
use crate::world::World;

/// Why a client keeps its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Listens,
    TempTable,
    Lock,
    Cursor,
    Mode,
}

const ALL: [Kept; 5] = [Kept::Listens, Kept::TempTable, Kept::Lock, Kept::Cursor, Kept::Mode];

impl Kept {
    fn user(self) -> &'static str {
        match self {
            Self::Mode => "steady",
            Self::Listens | Self::TempTable | Self::Lock | Self::Cursor => "pinned",
        }
    }

    /// What makes the client keep it, on the tenant's shard.
    fn begin(self, tenant: i64) -> String {
        match self {
            Self::Listens => "LISTEN news".to_owned(),
            Self::TempTable => "CREATE TEMP TABLE mine (n) AS SELECT 7".to_owned(),
            Self::Lock => {
                format!("SELECT pg_advisory_lock(77) FROM accounts WHERE tenant_id = {tenant}")
            }
            Self::Cursor => format!(
                "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT seq FROM ledger \
                 WHERE tenant_id = {tenant} AND writer = 1000 ORDER BY seq; COMMIT"
            ),
            Self::Mode => format!("SELECT name FROM accounts WHERE tenant_id = {tenant}"),
        }
    }
}

struct Done {
    kept: Kept,
    rows: i32,
    looks: u32,
    errors: Vec<String>,
}

async fn client(
    (url, kept, tenant): (String, Kept, i64),
    (ready, stop): (Arc<AtomicUsize>, Arc<AtomicBool>),
) -> Done {
    let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    let (heard_from, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(told) = message {
                let _ = heard_from.send(told.payload().to_owned());
            }
        }
    });
    client.batch_execute(&kept.begin(tenant)).await.unwrap();
    let mut done = Done { kept, rows: 0, looks: 0, errors: Vec::new() };
    if kept == Kept::TempTable {
        keeps(&client, kept, &mut heard).await.unwrap();
    }
    let writer = ALL.iter().position(|one| *one == kept).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let seq = done.rows + 1;
        let insert = format!(
            "INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, {seq})"
        );
        match client.batch_execute(&insert).await {
            Ok(()) => done.rows += 1,
            Err(error) => done.errors.push(format!("{kept:?}: {error:?}")),
        }
        // Whoever is asked must know of it.
        let count =
            format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer = {writer}");
        match client.query_one(&count, &[]).await {
            Ok(row) if row.get::<_, i64>(0) == i64::from(done.rows) => done.looks += 1,
            Ok(row) => {
                let seen: i64 = row.get(0);
                done.errors.push(format!("{kept:?}: {seen} rows seen of {}", done.rows));
            }
            Err(error) => done.errors.push(format!("{kept:?}: {error:?}")),
        }
        if done.looks == 1 {
            ready.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if let Err(what) = keeps(&client, kept, &mut heard).await {
        done.errors.push(what);
    }
    done
}

/// What the client has kept is still there.
async fn keeps(
    client: &Client,
    kept: Kept,
    heard: &mut tokio::sync::mpsc::UnboundedReceiver<String>,
) -> Result<(), String> {
    let ask = async |sql: &str| {
        let row = client.query_one(sql, &[]).await;
        row.map(|row| row.get::<_, i64>(0)).map_err(|error| format!("{kept:?}: {error:?}"))
    };
    match kept {
        Kept::Listens => {
            client.batch_execute("NOTIFY news, 'good'").await.map_err(|e| format!("{e:?}"))?;
            let told = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
            if told != Ok(Some("good".to_owned())) {
                return Err(format!("{kept:?} heard {told:?}"));
            }
        }
        Kept::TempTable => {
            if ask("SELECT count(*) FROM mine WHERE n = 7").await? != 1 {
                return Err("the temporary table is empty".to_owned());
            }
        }
        Kept::Cursor => {
            let rows = client.simple_query("FETCH 3 FROM c").await.map_err(|e| format!("{e:?}"))?;
            let rows = rows
                .iter()
                .filter(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_)));
            if rows.count() != 3 {
                return Err("the cursor is another".to_owned());
            }
        }
        // It is looked at from outside.
        Kept::Lock | Kept::Mode => {}
    }
    Ok(())
}

fn locked(world: &World, shard: u16) -> String {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77";
    world.cluster.superuser_sql(shard, sql)
}

#[test]
fn clients_that_keep_a_connection_write_and_read_on_the_owner_and_keep_what_they_had() {
    let users = "[[user]]\nname = \"pinned\"\ntrust = true\n\
                 [[user]]\nname = \"steady\"\ntrust = true\npool_mode = \"session\"\n";
    let routed = Routed::start_with(users, |_| {});
    let world = &routed.world;
    let tenant = world.tenant_on(1, 0);
    fill(world, 1, tenant, 50);
    let temp = "CREATE TEMP TABLE early (n int)";
    let url = routed.router.url_for("pinned", "", "app");
    wait_for("the schemas", || matches!(psql(&url, temp), Psql::Done(_)));
    let (ready, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let signals = (Arc::clone(&ready), Arc::clone(&stop));
    let urls = ALL.map(|kept| (routed.router.url_for(kept.user(), "", "app"), kept, tenant));
    let clients = std::thread::spawn(move || {
        runtime().block_on(async move {
            let tasks = urls.map(|one| tokio::spawn(client(one, signals.clone())));
            let mut all = Vec::new();
            for task in tasks {
                all.push(task.await.unwrap());
            }
            all
        })
    });
    wait_for("every client to write", || ready.load(Ordering::Relaxed) == ALL.len());
    assert_eq!(locked(world, 1), "1");

    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    routed.wait_state("switched");
    routed.console("REVERSE MOVE 1").expect();
    routed.wait_state("ready");
    routed.console("RESUME MOVE 1").expect();
    routed.wait_state("switched");
    routed.console("FINISH MOVE 1").expect();
    routed.wait_state("done");
    assert_eq!(locked(world, 1), "1", "the lock stays where it was taken");
    stop.store(true, Ordering::Relaxed);
    for Done { kept, rows, looks, errors } in clients.join().unwrap() {
        println!(
            "{kept:?}: {rows} rows, {looks} looks, {} errors: {:?}",
            errors.len(),
            errors.first()
        );
        assert!(errors.is_empty(), "{errors:?}");
        assert!(rows > 0 && looks > 0, "{kept:?}: {rows} rows, {looks} looks");
        let writer = ALL.iter().position(|one| *one == kept).unwrap();
        let sql = format!(
            "SELECT count(*) || ' ' || count(DISTINCT seq) FROM ledger \
             WHERE tenant_id = {tenant} AND writer = {writer}"
        );
        assert_eq!(world.cluster.sql(2, &sql), format!("{rows} {rows}"), "{kept:?}");
        assert_eq!(world.cluster.sql(1, &sql), "0 0", "{kept:?}");
    }
    let all = psql(
        &routed.router.url(),
        &format!("SELECT count(*) FROM accounts WHERE tenant_id = {tenant}"),
    );
    assert_eq!(all.expect(), "1");
    runtime().block_on(world.nothing_left());
}
