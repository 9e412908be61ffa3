//! Two shards, and routers that may move rows between them.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use keyway::local::Version;
use tokio_postgres::{Client, NoTls};

use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::world::World;

/// What most routers here are told of leases.
pub(crate) const LEASES: &str = "lease = \"3s\"\nlease_idle = \"3s\"";

/// Two shards with a role of least rights for moves.
pub(crate) fn world() -> World {
    let world = World::start(Version::Newest);
    std::fs::write(map_file(&world), &world.map_text).unwrap();
    let grants = doctor(&world, &["--grants", "keyway_mover"]);
    assert!(grants.status.success(), "{grants:?}");
    let text = String::from_utf8(grants.stdout).unwrap();
    let parts: Vec<&str> = text.split("-- shard").collect();
    for shard in [1_u16, 2] {
        let part = parts.iter().find(|part| part.starts_with(&format!("{shard},"))).unwrap();
        let (_, sql) = part.split_once('\n').unwrap();
        let sql = format!("{sql} ALTER ROLE keyway_mover PASSWORD 'sesame'");
        runtime().block_on(world.node(shard).rows(&sql)).unwrap();
    }
    world
}

/// The map as a file, for the command line.
pub(crate) fn map_file(world: &World) -> String {
    let folder = std::path::Path::new(&world.cluster.view().map).parent().unwrap().to_owned();
    folder.join("fleet-map.toml").display().to_string()
}

/// `keyway doctor` as a superuser.
pub(crate) fn doctor(world: &World, args: &[&str]) -> Output {
    let url: tokio_postgres::Config = world.cluster.primary(1).superuser_url.parse().unwrap();
    let password = String::from_utf8(url.get_password().unwrap().to_vec()).unwrap();
    let args: Vec<&str> = ["--user", url.get_user().unwrap()].iter().chain(args).copied().collect();
    keyway(world, "doctor", &args, &password)
}

/// A command of the program's on the map.
pub(crate) fn keyway(world: &World, command: &str, args: &[&str], password: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyway"))
        .arg(command)
        .arg(map_file(world))
        .args(args)
        .env("PGPASSWORD", password)
        .output()
        .unwrap()
}

/// A router before both, with `moves` in its section of moves.
pub(crate) fn router(world: &World, moves: &str) -> Router {
    let config =
        format!("[moves]\nuser = \"keyway_mover\"\npassword_env = \"MOVER_PASSWORD\"\n{moves}");
    let options = RouterOptions {
        map: Some(world.map_text.clone()),
        env: vec![("MOVER_PASSWORD".to_owned(), "sesame".to_owned())],
        ..RouterOptions::default()
    }
    .with_config(&config);
    Router::start(&world.cluster, &options)
}

pub(crate) fn console(router: &Router, sql: &str) -> Psql {
    psql(&router.console_url(), sql)
}

/// Waits until the router's only move is in `state`.
pub(crate) fn wait_state(router: &Router, state: &str) {
    let moves = || console(router, "SHOW MOVES");
    let there = || matches!(moves(), Psql::Done(out) if out.contains(&format!("|{state}|")));
    for _ in 0..3 {
        if (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            there()
        }) {
            return;
        }
    }
    panic!("no move is {state}: {:?}\n{:?}", moves(), console(router, "SHOW EPOCHS"));
}

/// The epochs of all routers that have a row, as `router` shows them, once
/// there are `count`.
pub(crate) fn epochs(router: &Router, count: usize) -> Vec<(String, String)> {
    let shown = || {
        let rows = console(router, "SHOW EPOCHS").expect();
        let row = |line: &str| {
            let cells: Vec<&str> = line.split('|').collect();
            (cells[1].to_owned(), cells[2].to_owned())
        };
        rows.lines().map(row).collect::<Vec<_>>()
    };
    wait_for(&format!("{count} routers, instead of {:?}", shown()), || shown().len() == count);
    shown()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// A client in a thread of its own, which waits for answers while others act.
pub(crate) struct Speaker {
    say: mpsc::Sender<String>,
    hear: mpsc::Receiver<Result<(), String>>,
}

impl Speaker {
    pub(crate) fn new(url: String) -> Self {
        let (say, said) = mpsc::channel::<String>();
        let (answer, hear) = mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let client = connect(&url).await;
                while let Ok(sql) = said.recv() {
                    let state = |error: tokio_postgres::Error| {
                        error
                            .code()
                            .map_or_else(|| error.to_string(), |code| code.code().to_owned())
                    };
                    let done = client.batch_execute(&sql).await.map_err(state);
                    let _test_is_over = answer.send(done);
                }
            });
        });
        Self { say, hear }
    }

    pub(crate) fn say(&self, sql: &str) {
        self.say.send(sql.to_owned()).unwrap();
    }

    /// The answer, or its SQLSTATE.
    pub(crate) fn hear(&self) -> Result<(), String> {
        self.hear.recv_timeout(Duration::from_secs(60)).unwrap()
    }
}

/// What a writer has written, and the errors that it saw.
pub(crate) type Written = (i32, Vec<String>);

/// Writes rows of a tenant, one after the other, in a thread of its own.
pub(crate) fn writer(
    url: String,
    tenant: i64,
    writer: i32,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<Written> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let client = connect(&url).await;
            let (mut seq, mut errors) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let sql = format!(
                    "INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, {})",
                    seq + 1
                );
                match client.batch_execute(&sql).await {
                    Ok(()) => seq += 1,
                    Err(error) => errors.push(format!("{error:?}")),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (seq, errors)
        })
    })
}

/// Gives the tenant an account and rows on `shard`.
pub(crate) fn fill(world: &World, shard: u16, tenant: i64) {
    world.cluster.sql(
        shard,
        &format!(
            "INSERT INTO accounts VALUES ({tenant}, 'a'); \
             INSERT INTO ledger (tenant_id, writer, seq) \
             SELECT {tenant}, 1000, g FROM generate_series(1, 200) g"
        ),
    );
}

/// Rows of `tenant` on `shard` that somebody else than [`fill`] wrote.
pub(crate) fn rows(world: &World, shard: u16, tenant: i64) -> String {
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer < 1000");
    world.cluster.sql(shard, &count)
}
