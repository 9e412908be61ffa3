//! Moves that a running router carries out: by the console and by the command
//! line, with clients that only know the router.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyway::control::mover::checks::grants;
use keyway::local::Version;
use tokio_postgres::NoTls;

use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::whole::fill;
use crate::world::World;

pub(crate) struct Routed {
    pub(crate) world: World,
    pub(crate) router: Router,
}

impl Routed {
    pub(crate) fn start() -> Self {
        Self::start_with("", |_| {})
    }

    /// With further settings of moves, in a world that `change` has changed.
    pub(crate) fn start_with(settings: &str, change: impl FnOnce(&mut World)) -> Self {
        let mut world = World::start(Version::Newest);
        change(&mut world);
        Self::before(world, settings)
    }

    /// A router before `world`, with further settings of moves.
    pub(crate) fn before(world: World, settings: &str) -> Self {
        // One role for moves, which may do what docs/moves.md lists and no more.
        let version = runtime().block_on(world.node(1).version()).unwrap();
        let rights = if version < 16 {
            "ALTER ROLE keyway_mover SUPERUSER".to_owned()
        } else {
            grants("keyway_mover", "app")
        };
        let grants = format!(
            "CREATE ROLE keyway_mover LOGIN PASSWORD 'sesame'; GRANT app TO keyway_mover; {rights}"
        );
        for shard in [1, 2] {
            runtime().block_on(world.node(shard).rows(&grants)).unwrap();
        }
        let options = RouterOptions {
            map: Some(world.map_text.clone()),
            env: vec![("MOVER_PASSWORD".to_owned(), "sesame".to_owned())],
            ..RouterOptions::default()
        }
        .with_config(&format!(
            "[moves]\nuser = \"keyway_mover\"\npassword_env = \"MOVER_PASSWORD\"\n{settings}"
        ));
        let router = Router::start(&world.cluster, &options);
        Self { world, router }
    }

    pub(crate) fn console(&self, sql: &str) -> Psql {
        psql(&self.router.console_url(), sql)
    }

    /// Waits until the only move there was is in `state`.
    pub(crate) fn wait_state(&self, state: &str) {
        self.wait_state_of(1, state);
    }

    /// Waits until move `id` is in `state`, whatever the others are in.
    pub(crate) fn wait_state_of(&self, id: u32, state: &str) {
        let moves = || self.console("SHOW MOVES");
        let it = |line: &str| {
            let mut cells = line.split('|');
            cells.nth(1) == Some(&id.to_string()) && cells.any(|cell| cell == state)
        };
        wait_for(
            &format!("move {id} that is {state}; {:?}", moves()),
            || matches!(moves(), Psql::Done(out) if out.lines().any(it)),
        );
    }

    fn keyway(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(args)
            .env("PGPASSWORD", "sesame")
            .output()
            .unwrap()
    }
}

/// A client of the router's that writes rows of a tenant, one after the other.
async fn client(
    url: String,
    tenant: i64,
    writer: i32,
    stop: Arc<AtomicBool>,
) -> (i32, Vec<String>) {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let (mut seq, mut errors) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let sql = format!(
            "INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, {})",
            seq + 1
        );
        match client.batch_execute(&sql).await {
            Ok(()) => seq += 1,
            Err(error) => errors.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (seq, errors)
}

/// Clients of their own thread; what each has written, and its errors.
fn clients(
    url: &str,
    tenant: i64,
    stop: &Arc<AtomicBool>,
) -> std::thread::JoinHandle<Vec<(i32, Vec<String>)>> {
    let (url, stop) = (url.to_owned(), Arc::clone(stop));
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let one = |writer| tokio::spawn(client(url.clone(), tenant, writer, Arc::clone(&stop)));
            let tasks: Vec<_> = (0..3).map(one).collect();
            let mut all = Vec::new();
            for task in tasks {
                all.push(task.await.unwrap());
            }
            all
        })
    })
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn console_and_command_line_move_tenants_with_a_role_of_least_rights() {
    let routed = Routed::start();
    let world = &routed.world;
    let tenant = world.tenant_on(1, 0);
    fill(world, 1, tenant, 200);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = clients(&routed.router.url(), tenant, &stop);

    let answer = routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    assert_eq!(answer, "1");
    {
        let again = routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect_error();
        assert!(again.contains("already moves some of these rows"), "{again}");
        routed.wait_state("switched");
        std::thread::sleep(Duration::from_millis(300));
        routed.console("REVERSE MOVE 1").expect();
        routed.wait_state("ready");
        routed.console("RESUME MOVE 1").expect();
        routed.wait_state("switched");
        let early = routed.console("ABORT MOVE 1").expect_error();
        assert!(early.contains("REVERSE MOVE comes first"), "{early}");
        std::thread::sleep(Duration::from_millis(300));
        routed.console("FINISH MOVE 1").expect();
        routed.wait_state("done");
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for (written, errors) in clients.join().unwrap() {
        println!("{written} rows, {} errors: {:?}", errors.len(), errors.first());
        assert!(errors.is_empty(), "a client has seen {errors:?}");
        total += written;
    }
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer < 100");
    assert_eq!(world.cluster.sql(2, &count), total.to_string());
    assert_eq!(world.cluster.sql(1, &count), "0");
    let through = psql(&routed.router.url(), &count).expect();
    assert_eq!(through, total.to_string(), "the router knows the new owner");
    runtime().block_on(world.nothing_left());

    // The same back, by a map file.
    let file = routed.router.dir().join("wanted.toml");
    std::fs::write(&file, &world.map_text).unwrap();
    let name = file.to_str().unwrap().to_owned();
    {
        let plan = routed.keyway(&["plan", "--user", "keyway_mover", "--json", "--exact", &name]);
        let plan = String::from_utf8(plan.stdout).unwrap();
        assert!(plan.contains(&format!("tenant {tenant}")) && plan.contains("\"rows\":"), "{plan}");
        let applied = routed.keyway(&["apply", "--user", "keyway_mover", "--finish", &name]);
        let said = String::from_utf8_lossy(&applied.stdout).into_owned();
        assert!(applied.status.success(), "{said}{}", String::from_utf8_lossy(&applied.stderr));
        assert!(said.contains("done"), "{said}");
        let again = routed.keyway(&["plan", "--user", "keyway_mover", &name]);
        assert!(String::from_utf8_lossy(&again.stdout).contains("nothing moves"));
    }
    assert_eq!(world.cluster.sql(1, &count), total.to_string());
    let log = routed.router.log();
    assert!(!log.contains("sesame") && !log.contains("password="), "a secret in the log");
    for shard in [1, 2] {
        let log = std::fs::read_to_string(&world.cluster.primary(shard).log).unwrap();
        assert!(!log.contains("password="), "a secret in the log of shard {shard}");
    }
}
