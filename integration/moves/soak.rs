//! Moves through a running router while everything is killed and cut, at
//! moments that a seed chooses, and everybody writes on.
//!
//! `KEYWAY_MOVES` and `KEYWAY_SEED` set how many and which (the long form);
//! `KEYWAY_PG_BIN` the servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyway::control::mover::node::Node;
use keyway::local::{NodeName, Stop};
use keyway::mover::{End, Phase, Side, Subject, Wish};
use keyway::store::moves;
use rustix::process::Signal;

use crate::between::{Between, Link};
use crate::crowd::{Crowd, Shared};
use crate::routed::{Routed, runtime};
use crate::support::psql::{Psql, psql};
use crate::support::router::Router;
use crate::whole::filling;
use crate::world::World;

/// What a move that does not end is asked for.
const QUESTIONS: [&str; 6] = [
    "SELECT s.subname, s.subenabled, r.srrelid::regclass, r.srsubstate, r.srsublsn \
     FROM pg_subscription s LEFT JOIN pg_subscription_rel r ON r.srsubid = s.oid",
    "SELECT * FROM pg_stat_subscription",
    "SELECT slot_name, active_pid, xmin, catalog_xmin, restart_lsn, confirmed_flush_lsn, \
     wal_status FROM pg_replication_slots",
    "SELECT * FROM pg_prepared_xacts",
    "SELECT pid, backend_type, application_name, state, wait_event_type, wait_event, \
     backend_xid, backend_xmin, now() - xact_start, pg_blocking_pids(pid), left(query, 150) \
     FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    "SELECT pid, locktype, relation::regclass, transactionid, virtualtransaction, mode, granted \
     FROM pg_locks WHERE pid <> pg_backend_pid() ORDER BY granted, pid LIMIT 80",
];

/// A world in which things break.
struct Soak {
    world: World,
    router: Mutex<Router>,
    router_url: String,
    console_url: String,
    links: [Between; 2],
    next: AtomicUsize,
    /// What was broken, and in which phase of a move.
    hits: Mutex<BTreeMap<(String, &'static str), u32>>,
    wrong: Mutex<Vec<String>>,
    ends: Mutex<BTreeMap<&'static str, u32>>,
}

/// What a move's operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Finish,
    ThereBackAndThere,
    ThereAndBack,
    /// Gives up after so many milliseconds, if it still may.
    Abort(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Router,
    Source,
    Target,
    Both,
    Cut,
    Silent,
}

struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % u64::try_from(limit).unwrap()).unwrap()
    }

    fn ms(&mut self, limit: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(limit)).unwrap())
    }
}

#[test]
fn no_write_is_lost_or_doubled_whatever_is_killed_or_cut_at_any_step() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let (count, seed) = (number("KEYWAY_MOVES", MOVES), number("KEYWAY_SEED", 1));
    let soak = Soak::start();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let number = soak.next.fetch_add(1, Ordering::SeqCst);
                    if number >= usize::try_from(count).unwrap() {
                        return;
                    }
                    soak.one(number, seed + u64::try_from(number).unwrap());
                }
            });
        }
    });
    let wrong = soak.wrong.lock().unwrap();
    if wrong.is_empty() {
        runtime().block_on(soak.world.nothing_left());
    }
    println!("{:?}", soak.hits.lock().unwrap());
    println!(
        "{count} moves from seed {seed} in {} s: {:?}, {} violations",
        begun.elapsed().as_secs(),
        soak.ends.lock().unwrap(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Soak {
    fn start() -> Self {
        let mut links = Vec::new();
        let Routed { world, router } =
            Routed::start_with("parallel_max = 4", |world: &mut World| {
                let mut text = world.map_text.clone();
                for shard in [1, 2] {
                    let port = world.cluster.primary(shard).port;
                    let link = Between::start(port);
                    text =
                        text.replace(&format!("port = {port} "), &format!("port = {} ", link.port));
                    links.push(link);
                }
                world.set_map(text);
            });
        let links = <[Between; 2]>::try_from(links).ok().unwrap();
        Self {
            world,
            router_url: router.url(),
            console_url: router.console_url(),
            router: Mutex::new(router),
            links,
            next: AtomicUsize::new(0),
            hits: Mutex::default(),
            wrong: Mutex::default(),
            ends: Mutex::default(),
        }
    }

    /// One move of a tenant of its own, with its writers.
    fn one(&self, number: usize, seed: u64) {
        let mut dice = Dice::new(seed);
        let source = if number.is_multiple_of(2) { 1 } else { 2 };
        let tenant = self.world.tenant_on(source, number);
        self.fill(source, tenant);
        let shards = [1, 2].map(|shard| self.world.cluster.primary(shard).url.clone());
        let crowd = Crowd::start(self.router_url.clone(), shards.to_vec(), tenant);
        let course = match dice.below(10) {
            0..4 => Course::Finish,
            4..6 => Course::ThereBackAndThere,
            6..8 => Course::ThereAndBack,
            _ => Course::Abort(u64::try_from(dice.below(2500)).unwrap()),
        };
        let begun = Instant::now();
        let id = self.submit(tenant, 3 - source);
        let over = AtomicBool::new(false);
        let (end, log) = std::thread::scope(|scope| {
            let breaking = scope.spawn(|| self.break_things(id, source, &mut dice, &over));
            let end = runtime().block_on(self.steer(id, course, &crowd));
            over.store(true, Ordering::SeqCst);
            (end, breaking.join().unwrap())
        });
        let end = match end {
            Ok(end) => end,
            Err(why) => {
                // What follows would fail too.
                self.next.store(usize::MAX / 2, Ordering::SeqCst);
                drop(crowd.end());
                println!("seed {seed}: move {id} of tenant {tenant}, {course:?}, {log}: {why}");
                self.post_mortem();
                self.wrong.lock().unwrap().push(format!("seed {seed}: {why}"));
                return;
            }
        };
        let owner = if end == End::Moved { 3 - source } else { source };
        std::thread::sleep(Duration::from_millis(200));
        let shared = crowd.end();
        let (total, mut wrong) = self.audit(&shared, owner);
        wrong.extend(self.left_of(id));
        println!(
            "seed {seed}: move {id} of tenant {tenant} from {source}, {course:?}, {log}: {end:?} \
             in {} ms, {total} rows{}",
            begun.elapsed().as_millis(),
            if wrong.is_empty() { String::new() } else { format!(" WRONG: {wrong:?}") }
        );
        let word = if end == End::Moved { "moved" } else { "aborted" };
        *self.ends.lock().unwrap().entry(word).or_default() += 1;
        self.wrong.lock().unwrap().extend(wrong.iter().map(|w| format!("seed {seed}: {w}")));
    }

    /// Asks the router for the move until it is stored.
    fn submit(&self, tenant: i64, target: u16) -> u32 {
        let mut home = self.world.node(1);
        let mut said = Psql::Done(String::new());
        for _ in 0..300 {
            // It may be stored although the answer was lost.
            if let Some(id) = runtime().block_on(number_of(&mut home, tenant)) {
                return id;
            }
            said = psql(&self.console_url, &format!("MOVE TENANT {tenant} TO shard{target}"));
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the move of tenant {tenant} is not taken in: {said:?}");
    }

    /// Lets the move take its course to the end.
    async fn steer(&self, id: u32, course: Course, crowd: &Crowd) -> Result<End, String> {
        let begun = Instant::now();
        let mut home = self.world.node(1);
        let (mut back, mut seen) = (false, String::new());
        while begun.elapsed() < MOVE_MAX {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let Ok(client) = home.client().await else { continue };
            let Ok(Some(stored)) = moves::load(client, id).await else { continue };
            seen = format!("{stored:?}");
            if let Some(why) = &stored.journal.stopped {
                crowd.admit_direct(false);
                return Err(format!("move {id} has stopped: {why}"));
            }
            let wish = match (stored.journal.phase, course) {
                (Phase::Ended(end), _) => return Ok(end),
                (Phase::Guarding, _) => None,
                (
                    Phase::Standing(Side::Target),
                    Course::ThereBackAndThere | Course::ThereAndBack,
                ) if !back => Some(Wish::Reverse),
                (Phase::Standing(Side::Target), _) => Some(Wish::Finish),
                (Phase::Standing(Side::Source), Course::ThereBackAndThere)
                    if stored.wish == Wish::Reverse =>
                {
                    back = true;
                    Some(Wish::Run)
                }
                (Phase::Standing(Side::Source), Course::ThereAndBack)
                    if stored.wish == Wish::Reverse =>
                {
                    Some(Wish::Abort)
                }
                (_, Course::Abort(after))
                    if begun.elapsed() > Duration::from_millis(after)
                        && stored.journal.admits(Wish::Abort).is_ok() =>
                {
                    Some(Wish::Abort)
                }
                _ => {
                    let ends = matches!(stored.wish, Wish::Abort | Wish::Finish);
                    crowd.admit_direct(!ends);
                    None
                }
            };
            if let Some(wish) = wish
                && wish != stored.wish
            {
                // From the end on only the router knows where the rows are.
                crowd.admit_direct(!matches!(wish, Wish::Abort | Wish::Finish));
                let _ = moves::wish(client, id, wish).await;
            }
        }
        crowd.admit_direct(false);
        Err(format!("move {id} has not ended after {} s: {seen}", MOVE_MAX.as_secs()))
    }

    /// Breaks some things, each in a phase of the move that the dice choose.
    fn break_things(&self, id: u32, source: u16, dice: &mut Dice, over: &AtomicBool) -> String {
        let mut moments: Vec<usize> =
            (0..1 + dice.below(3)).map(|_| dice.below(MOMENTS.len())).collect();
        moments.sort_unstable();
        let mut log = String::new();
        let mut home = self.world.node(1);
        for moment in moments {
            let wanted = MOMENTS[moment];
            let mut phase = String::new();
            if wanted == "any" {
                std::thread::sleep(dice.ms(600));
            }
            while !over.load(Ordering::SeqCst) {
                phase = runtime().block_on(phase_of(&mut home, id)).unwrap_or(phase);
                if phase == wanted || wanted == "any" {
                    break;
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            std::thread::sleep(dice.ms(if wanted == "cutting" { 40 } else { 150 }));
            if over.load(Ordering::SeqCst) {
                break;
            }
            let fault = FAULTS[dice.below(FAULTS.len())];
            let _ = write!(log, "{fault:?} at {phase}, ");
            *self.hits.lock().unwrap().entry((phase, name(fault))).or_default() += 1;
            self.strike(fault, source, dice);
        }
        log
    }

    fn strike(&self, fault: Fault, source: u16, dice: &mut Dice) {
        match fault {
            Fault::Router => {
                let mut router = self.router.lock().unwrap();
                router.signal(Signal::KILL);
                router.wait_end();
                std::thread::sleep(dice.ms(800));
                router.start_again();
            }
            Fault::Source => self.crash(&[source], dice.ms(500)),
            Fault::Target => self.crash(&[3 - source], dice.ms(500)),
            Fault::Both => self.crash(&[1, 2], dice.ms(500)),
            Fault::Cut | Fault::Silent => {
                let link = if fault == Fault::Cut { Link::Cut } else { Link::Silent };
                let one = dice.below(3);
                for (number, between) in self.links.iter().enumerate() {
                    if one != number {
                        between.set(link);
                    }
                }
                std::thread::sleep(dice.ms(1500));
                for between in &self.links {
                    between.set(Link::Up);
                }
            }
        }
    }

    /// Kills servers, which come back after `pause`.
    fn crash(&self, shards: &[u16], pause: Duration) {
        let mut servers = self.world.cluster.servers();
        for shard in shards {
            let name = NodeName { shard: *shard, replica: 0 };
            servers.stop_node(name, Stop::Kill).unwrap();
        }
        std::thread::sleep(pause);
        for shard in shards {
            let name = NodeName { shard: *shard, replica: 0 };
            // Not while children of the one that was killed are there.
            for _ in 0..50 {
                match servers.start_node(name) {
                    Ok(()) => break,
                    Err(_) => std::thread::sleep(Duration::from_millis(200)),
                }
            }
        }
    }

    /// Fills a tenant on a shard that another move's faults may take down.
    fn fill(&self, shard: u16, tenant: i64) {
        let there = format!("SELECT count(*) FROM accounts WHERE tenant_id = {tenant}");
        // The answer may be lost of an insert that was done.
        while self.ask(shard, &there) == "0" {
            let _tried_again = psql(&self.world.cluster.primary(shard).url, &filling(tenant, 300));
        }
    }

    /// Prints what both servers can say about a move that did not end.
    fn post_mortem(&self) {
        for shard in [1, 2] {
            for question in QUESTIONS {
                let name = NodeName { shard, replica: 0 };
                let said = self.world.cluster.servers().superuser_sql(name, question);
                println!("shard {shard}: {question}\n{}", said.unwrap_or_else(|e| e.to_string()));
            }
            let log = &self.world.cluster.primary(shard).log;
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(400)..];
            println!("shard {shard}: the end of its log\n{}", last.join("\n"));
        }
    }

    /// The answer of a shard that another move's faults may have taken down.
    fn ask(&self, shard: u16, sql: &str) -> String {
        for _ in 0..300 {
            match psql(&self.world.cluster.primary(shard).url, sql) {
                Psql::Done(out) => return out,
                Psql::Failed(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
        panic!("shard {shard} does not answer: {sql}");
    }

    /// Compares what the writers know with the shards; the number of rows.
    fn audit(&self, shared: &Shared, owner: u16) -> (usize, Vec<String>) {
        let tenant = shared.tenant;
        let mut wrong = std::mem::take(&mut *shared.wrong.lock().unwrap());
        let mut total = 0;
        for (writer, account) in shared.accounts.iter().enumerate() {
            let account = account.lock().unwrap();
            let rows = self.ask(
                owner,
                &format!("SELECT seq FROM ledger WHERE tenant_id = {tenant} AND writer = {writer}"),
            );
            let found: Vec<i32> = rows.lines().map(|line| line.parse().unwrap()).collect();
            let set: BTreeSet<i32> = found.iter().copied().collect();
            total += found.len();
            if found.len() != set.len() {
                wrong.push(format!("writer {writer} has doubled rows"));
            }
            let lost: Vec<_> = account.acknowledged.difference(&set).collect();
            if !lost.is_empty() {
                wrong.push(format!("writer {writer} lost {lost:?}"));
            }
            let known: BTreeSet<i32> = account.acknowledged.union(&account.open).copied().collect();
            let extra: Vec<_> = set.difference(&known).collect();
            if !extra.is_empty() {
                wrong.push(format!("writer {writer} has rows that failed: {extra:?}"));
            }
        }
        // Each transaction wrote a row of three tables.
        let whole = format!(
            "SELECT (SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer < 3), \
             (SELECT count(*) FROM entries e JOIN ledger l ON l.tenant_id = e.tenant_id \
             AND l.id = e.ledger_id JOIN accounts a ON a.tenant_id = l.tenant_id \
             WHERE e.tenant_id = {tenant}), \
             (SELECT count(*) FROM entries WHERE tenant_id = {tenant}), \
             (SELECT coalesce(sum(n), 0) FROM counters WHERE tenant_id = {tenant} AND writer < 0)"
        );
        let whole = self.ask(owner, &whole);
        let mut parts = whole.split('|');
        let first = parts.next();
        if !parts.all(|part| Some(part) == first) {
            wrong.push(format!("rows, their entries and their counter don't agree: {whole}"));
        }
        for table in ["accounts", "ledger", "entries", "counters", "events"] {
            let count = format!("SELECT count(*) FROM {table} WHERE tenant_id = {tenant}");
            let count = self.ask(3 - owner, &count);
            if count != "0" {
                wrong.push(format!("{count} rows of {table} are on the shard that lost them"));
            }
        }
        (total, wrong)
    }

    /// What is left of one move on the shards.
    fn left_of(&self, id: u32) -> Vec<String> {
        let sql = format!(
            "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname LIKE 'kw\\_{id}\\_%' \
             UNION ALL SELECT 'subscription ' || subname FROM pg_stat_subscription \
             WHERE subname LIKE 'kw\\_{id}\\_%' \
             UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots \
             WHERE slot_name LIKE 'kw\\_{id}\\_%' \
             UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'kw\\_{id}\\_%' \
             UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname LIKE '~keyway\\_{id}\\_%' \
             UNION ALL SELECT 'function ' || proname FROM pg_proc \
             WHERE pronamespace = to_regnamespace('keyway') AND (proname LIKE '%\\_{id}') \
             UNION ALL SELECT 'sequence ' || relname FROM pg_class \
             WHERE relkind = 'S' AND relname = 'fence_{id}'"
        );
        [1, 2]
            .into_iter()
            .flat_map(|shard| {
                let left = self.ask(shard, &sql);
                left.lines().map(|line| format!("{line} is left on {shard}")).collect::<Vec<_>>()
            })
            .collect()
    }
}

async fn number_of(home: &mut Node, tenant: i64) -> Option<u32> {
    let client = home.client().await.ok()?;
    let all = moves::list(client, "app").await.ok()?;
    let subject = Subject::Tenant(tenant.to_string());
    let found = all.iter().find(|stored| stored.journal.subject == subject)?;
    Some(found.journal.id)
}

async fn phase_of(home: &mut Node, id: u32) -> Option<String> {
    let client = home.client().await.ok()?;
    Some(moves::load(client, id).await.ok()??.journal.phase.to_string())
}

const fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Router => "router",
        Fault::Source => "source",
        Fault::Target => "target",
        Fault::Both => "both",
        Fault::Cut => "cut",
        Fault::Silent => "silent",
    }
}

/// The phases in their order: what is broken in one may show in the next.
const MOMENTS: [&str; 14] = [
    "any",
    "guarding",
    "publishing",
    "copying",
    "linking",
    "verifying",
    "ready",
    "cutting",
    "switched",
    "going back",
    "finishing",
    "aborting",
    "purging",
    "clearing",
];
const FAULTS: [Fault; 7] = [
    Fault::Router,
    Fault::Router,
    Fault::Source,
    Fault::Target,
    Fault::Both,
    Fault::Cut,
    Fault::Silent,
];
/// Moves of the short form.
const MOVES: u64 = 10;
/// Moves at a time.
const LANES: usize = 2;
/// A move that takes longer hangs.
const MOVE_MAX: Duration = Duration::from_secs(600);
