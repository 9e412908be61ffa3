//! What a move costs, measured: for how long the writes of its tenant wait at a
//! cutover, part by part, and how fast rows are copied beside a plain COPY.
//!
//! The long forms, on servers that flush as in production:
//! `KEYWAY_PAUSES=20 KEYWAY_ROWS=100000` and `KEYWAY_COPY_ROWS=1000000`. Times are
//! held to limits there only; that nobody else waits is held always.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyway::local::Version;
use tokio_postgres::NoTls;

use crate::routed::{Routed, runtime};
use crate::support::psql::command;
use crate::support::wait_for;
use crate::whole::fill;
use crate::world::World;

/// What one client has done.
struct Done {
    own: bool,
    writer: usize,
    rows: i32,
    errors: Vec<String>,
    took: Vec<(Instant, Duration)>,
}

/// Clients on a thread of their own.
struct Clients {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Done>>,
}

impl Clients {
    /// A quarter writes to the first tenant, the others to all others in
    /// turn; each has written once this returns.
    fn start(url: &str, tenants: Vec<i64>, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let signals = (Arc::clone(&begun), Arc::clone(&stop));
        let url = url.to_owned();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async move {
                let one = |writer: usize| {
                    let own = writer < count / 4;
                    let mut mine = if own { &tenants[..1] } else { &tenants[1..] }.to_vec();
                    let first = writer % mine.len();
                    mine.rotate_left(first);
                    tokio::spawn(client(url.clone(), own, mine, writer, signals.clone()))
                };
                let tasks: Vec<_> = (0..count).map(one).collect();
                let mut done = Vec::new();
                for task in tasks {
                    done.push(task.await.unwrap());
                }
                done
            })
        });
        wait_for("all clients write", || begun.load(Ordering::Relaxed) == count);
        Self { stop, thread }
    }

    fn end(self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn client(
    url: String,
    own: bool,
    tenants: Vec<i64>,
    writer: usize,
    (begun, stop): (Arc<AtomicUsize>, Arc<AtomicBool>),
) -> Done {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let config = config.clone().application_name(if own { "own" } else { "other" }).clone();
    let (client, connection) = match config.connect(NoTls).await {
        Ok(connected) => connected,
        Err(error) => panic!("writer {writer} is not let in: {error:?}"),
    };
    tokio::spawn(async move { drop(connection.await) });
    let mut done = Done { own, writer, rows: 0, errors: Vec::new(), took: Vec::new() };
    let sql = "INSERT INTO ledger (tenant_id, writer, seq) VALUES ($1, $2, $3)";
    let number = i32::try_from(writer).unwrap();
    for tenant in tenants.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begin = Instant::now();
        match client.execute(sql, &[tenant, &number, &(done.rows + 1)]).await {
            Ok(_) => done.rows += 1,
            Err(error) => done.errors.push(format!("{error:?}")),
        }
        if done.took.is_empty() {
            begun.fetch_add(1, Ordering::Relaxed);
        }
        done.took.push((begin, begin.elapsed()));
        tokio::time::sleep(PAUSE).await;
    }
    done
}

/// A world whose servers flush what they acknowledge, if `full`.
fn world(full: bool) -> World {
    let all = [("fsync", "on"), ("synchronous_commit", "on"), ("full_page_writes", "on")];
    World::start_with(Version::Newest, 0, if full { &all } else { &[] })
}

fn number_of(variable: &str) -> Option<u32> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The columns of the last move, and those of every client, by their names.
fn shown(routed: &Routed, topic: &str) -> Vec<Vec<(String, String)>> {
    let out = command()
        .args(["--no-psqlrc", "--no-align", "--no-password", "--expanded", "--tuples-only"])
        .args(["--dbname", &routed.router.console_url(), "--command", &format!("SHOW {topic}")])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let pair = |line: &str| {
        let (name, value) = line.split_once('|')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.split("\n\n").map(|record| record.lines().filter_map(pair).collect()).collect()
}

fn cell(record: &[(String, String)], name: &str) -> String {
    let found = record.iter().find(|(own, _)| own == name);
    found.map(|(_, value)| value.clone()).unwrap_or_default()
}

/// How often statements of clients that call themselves so have waited.
fn waits(routed: &Routed, name: &str) -> u64 {
    let clients = shown(routed, "CLIENTS");
    let of = clients.iter().filter(|client| cell(client, "application_name") == name);
    let all: Vec<u64> = of.map(|client| cell(client, "move_waits").parse().unwrap()).collect();
    assert!(!all.is_empty(), "no client is called {name}: {clients:?}");
    all.iter().sum()
}

/// The parts of a pause as the console tells them, the whole first.
fn parts(paused: &str) -> Vec<f64> {
    let number = |word: &str| word.trim_end_matches([',', ':']).parse::<f64>().ok();
    paused.split_whitespace().filter_map(number).collect()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn the_moving_tenants_writes_wait_for_a_cutover_as_its_parts_say_and_nobody_elses_do() {
    let long = number_of("KEYWAY_PAUSES");
    let (count, rows) = (long.unwrap_or(1), number_of("KEYWAY_ROWS").unwrap_or(4_000));
    let routed = Routed::before(world(long.is_some()), "");
    let world = &routed.world;
    let tenants: Vec<i64> =
        (0..25).flat_map(|skip| [1, 2].map(|shard| world.tenant_on(shard, skip))).collect();
    for (index, tenant) in tenants.iter().enumerate() {
        let rows = if index == 0 { rows / 2 } else { 20 };
        fill(world, 1 + u16::try_from(index % 2).unwrap(), *tenant, rows);
    }
    let crowd = if long.is_some() { 32 } else { 8 };
    let clients = Clients::start(&routed.router.url(), tenants.clone(), crowd);
    let (mut pauses, mut copies, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    for id in 1..=count {
        let begin = Instant::now();
        let target = 1 + id % 2;
        routed.console(&format!("MOVE TENANT {} TO shard{target}", tenants[0])).expect();
        let last = || shown(&routed, "MOVES").pop().unwrap();
        let reached = |state: &str| {
            let reached = || {
                let last = last();
                cell(&last, "move") == id.to_string() && cell(&last, "state") == state
            };
            wait_for(&format!("move {id} is {state}: {:?}", last()), reached);
        };
        reached("switched");
        windows.push((begin, Instant::now()));
        let paused = cell(&last(), "paused");
        println!("move {id}: copied in {} ms, {paused}", cell(&last(), "copied_ms"));
        copies.push(cell(&last(), "copied_ms").parse::<f64>().unwrap());
        pauses.push(parts(&paused));
        routed.console(&format!("FINISH MOVE {id}")).expect();
        reached("done");
    }
    assert_eq!(waits(&routed, "other"), 0, "statements of other tenants were held");
    assert!(waits(&routed, "own") > 0, "nobody was held");
    let done = clients.end();
    check(&routed, &done);
    report(&done, &windows, &pauses, &copies);
    runtime().block_on(world.nothing_left());
    let total = median(pauses.iter().map(|parts| parts[0]).collect());
    assert!(long.is_none() || total < 100.0, "the median pause took {total} ms");
}

/// Nobody saw an error, and every acknowledged row is there once.
fn check(routed: &Routed, done: &[Done]) {
    for client in done {
        let Done { writer, rows, errors, .. } = client;
        assert!(errors.is_empty(), "writer {writer}: {errors:?}");
        let sql = format!(
            "SELECT count(*) || ' ' || count(DISTINCT seq) FROM ledger WHERE writer = {writer}"
        );
        let counts = [1, 2].map(|shard| {
            let found = routed.world.cluster.sql(shard, &sql);
            let (all, distinct) = found.split_once(' ').unwrap();
            assert_eq!(all, distinct, "writer {writer} on shard {shard}");
            all.parse::<i32>().unwrap()
        });
        assert_eq!(counts.iter().sum::<i32>(), *rows, "writer {writer}");
    }
}

/// Medians, and the longest writes that clients saw while a move went on.
fn report(done: &[Done], windows: &[(Instant, Instant)], pauses: &[Vec<f64>], copies: &[f64]) {
    let names = ["wait", "drain", "fence", "apply", "switch", "open"];
    for (index, name) in names.iter().enumerate() {
        let all: Vec<f64> = pauses.iter().map(|parts| parts[index]).collect();
        let longest = all.iter().copied().fold(0.0, f64::max);
        println!("{name}: {} ms (median), {longest} ms (maximum)", median(all));
    }
    println!("copy: {} ms (median)", median(copies.to_vec()));
    for (who, own) in [("the moving tenant", true), ("others", false)] {
        let mut longest = Vec::new();
        for client in done.iter().filter(|client| client.own == own) {
            for (begin, end) in windows {
                let within = |(at, took): &&(Instant, Duration)| at < end && *at + *took > *begin;
                let took = client.took.iter().filter(within).map(|(_, took)| *took).max();
                longest.push(took.unwrap_or_default().as_secs_f64() * 1000.0);
            }
        }
        let most = longest.iter().copied().fold(0.0, f64::max);
        println!(
            "the longest write of each client of {who} in each move: {:.1} ms (median), \
             {most:.1} ms (maximum)",
            median(longest)
        );
    }
    let rows: i32 = done.iter().map(|client| client.rows).sum();
    println!("{} moves, {rows} rows written by {} clients", pauses.len(), done.len());
}

#[test]
fn rows_are_copied_beside_a_plain_copy_in_binary_form() {
    let long = number_of("KEYWAY_COPY_ROWS");
    let rows = long.unwrap_or(5_000);
    let routed = Routed::before(world(long.is_some()), "");
    let world = &routed.world;
    let tenant = world.tenant_on(1, 0);
    fill(world, 1, tenant, rows / 2);
    world.cluster.superuser_sql(1, "CHECKPOINT");
    world.cluster.sql_everywhere("ANALYZE");
    let plain: Vec<f64> = (0..3).map(|_| plain_copy(world, tenant)).collect();
    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    routed.wait_state("switched");
    let last = shown(&routed, "MOVES").pop().unwrap();
    let moved: f64 = cell(&last, "copied_ms").parse().unwrap();
    println!("{rows} rows: plain binary COPY {plain:?} ms, by a move {moved} ms");
    routed.console("FINISH MOVE 1").expect();
    routed.wait_state("done");
    runtime().block_on(world.nothing_left());
    let plain = median(plain);
    assert!(long.is_none() || moved <= plain * 2.0, "{moved} ms beside {plain} ms");
}

/// Copies the tenant's rows, table by table, into tables of the same kind on
/// the other server, through a pipe; how long that takes, in milliseconds.
fn plain_copy(world: &World, tenant: i64) -> f64 {
    const TABLES: [(&str, &str); 4] = [
        ("accounts", "tenant_id, name"),
        ("ledger", "tenant_id, id, writer, seq, note"),
        ("counters", "tenant_id, writer, n, price, body, doc"),
        ("events", "tenant_id, at, id, what"),
    ];
    world.cluster.sql(
        2,
        "SET client_min_messages = warning; DROP SCHEMA IF EXISTS plain CASCADE; \
         CREATE SCHEMA plain; \
         CREATE TABLE plain.accounts (LIKE accounts INCLUDING ALL); \
         CREATE TABLE plain.ledger (LIKE ledger INCLUDING ALL); \
         CREATE TABLE plain.counters (LIKE counters INCLUDING ALL); \
         CREATE TABLE plain.events (LIKE events INCLUDING ALL)",
    );
    let psql = |shard: u16, sql: String| -> Command {
        let mut command = command();
        command.args(["--no-psqlrc", "--quiet", "--no-password", "--set=ON_ERROR_STOP=1"]);
        command.args(["--dbname", &world.cluster.primary(shard).url, "--command", &sql]);
        command
    };
    let begin = Instant::now();
    for (table, columns) in TABLES {
        let out = format!(
            "COPY (SELECT {columns} FROM {table} WHERE tenant_id = {tenant}) TO STDOUT (FORMAT binary)"
        );
        let mut reader = psql(1, out).stdout(Stdio::piped()).spawn().unwrap();
        let into = format!("COPY plain.{table} ({columns}) FROM STDIN (FORMAT binary)");
        let pipe = reader.stdout.take().unwrap();
        assert!(psql(2, into).stdin(pipe).status().unwrap().success());
        assert!(reader.wait().unwrap().success());
    }
    begin.elapsed().as_secs_f64() * 1000.0
}

/// Between two writes of a client.
const PAUSE: Duration = Duration::from_millis(5);
