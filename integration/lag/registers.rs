//! The checker: many clients add to registers and read them back, and what a
//! read shows is held against what its level promises.
//!
//! Values only grow, so a smaller one than must be seen is a violation. What
//! was acknowledged is noted after the client has heard of it and looked up
//! before a read is sent: a read is never judged by what came later.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Barrier;
use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, Statement};

use super::naive::Naive;

/// What a client's reads must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// What was acknowledged to anybody, and no less than before.
    Slot,
    /// What was acknowledged to this session.
    Session,
    /// What was acknowledged to anybody so many milliseconds before.
    Bounded(u64),
    /// The same as `Slot`, on the primary.
    Primary,
    /// Nothing.
    Any,
}

impl Promise {
    fn level(self) -> String {
        match self {
            Self::Slot => "slot".to_owned(),
            Self::Session => "session".to_owned(),
            Self::Bounded(ms) => format!("bounded({ms}ms)"),
            Self::Primary => "primary".to_owned(),
            Self::Any => "any".to_owned(),
        }
    }
}

/// Who says which server a read uses.
#[derive(Clone, Debug)]
pub(crate) enum Reader {
    /// The router, at its own level.
    Router,
    /// The router; clients ask for the levels of these promises in turn.
    Levels(&'static [Promise]),
    /// A rule that looks right.
    Naive(Arc<Naive>),
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) url: String,
    pub(crate) reader: Reader,
    pub(crate) clients: u64,
    pub(crate) registers: i64,
    /// Writes among 100 operations.
    pub(crate) write_percent: u64,
    /// One read in eight is a READ ONLY transaction of three.
    pub(crate) transactions: bool,
    /// Operations after which the run ends.
    pub(crate) operations: u64,
    /// Stale reads after which it ends.
    pub(crate) stale: u64,
    /// The run ends here whatever was done.
    pub(crate) limit: Duration,
    /// Waits between two operations of a client.
    pub(crate) pause: Duration,
    pub(crate) seed: u64,
    /// The lives of the primary, where it changes under way.
    pub(crate) lives: Arc<Lives>,
}

/// Which life of the primary it is. Odd: one has ended, and what is left of
/// its writes is not known yet.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    count: AtomicU64,
    board: Mutex<Option<Arc<Board>>>,
}

impl Lives {
    fn now(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The primary's life is about to end. Until `begun` no read is judged.
    pub(crate) fn ends(&self) {
        assert!(self.count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2));
    }

    /// Another life has begun, whose registers hold `values`. What was
    /// acknowledged beyond them is gone; returns how many registers have lost
    /// something, and how many of them what a synchronous commit had secured.
    pub(crate) fn begun(&self, values: &[i64]) -> (u64, u64) {
        let (mut lost, mut broken) = (0, 0);
        if let Some(board) = &*self.board.lock().unwrap() {
            for (register, value) in board.registers.iter().zip(values) {
                let mut acknowledged = register.acknowledged.lock().unwrap();
                let before = acknowledged.len();
                acknowledged.retain(|(acknowledged, _)| acknowledged <= value);
                lost += u64::from(acknowledged.len() < before);
                broken += u64::from(register.secured.load(Ordering::SeqCst) > *value);
                register.shown.store(0, Ordering::SeqCst);
            }
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        (lost, broken)
    }
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) errors: u64,
    /// Reads that missed a write which they had to show.
    pub(crate) stale: u64,
    /// Reads at level slot that showed less than an earlier read of the same
    /// session.
    pub(crate) backward: u64,
    /// Reads that showed less than an earlier read of another session.
    pub(crate) backward_elsewhere: u64,
    /// The oldest acknowledgement that a read missed.
    pub(crate) stale_ms_max: u64,
    /// Reads that saw a primary's life end.
    pub(crate) unjudged: u64,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations ({} reads, {} of them unjudged, {} writes, {} errors): {} stale (up to \
             {} ms), {} backward in their session, {} behind another session's read",
            self.reads + self.writes,
            self.reads,
            self.unjudged,
            self.writes,
            self.errors,
            self.stale,
            self.stale_ms_max,
            self.backward,
            self.backward_elsewhere
        )
    }
}

/// What all clients know of the registers.
#[derive(Debug)]
struct Board {
    lives: Arc<Lives>,
    unjudged: AtomicU64,
    registers: Vec<Register>,
    began: Instant,
    /// Lets the clients begin when all of them are logged in.
    ready: Barrier,
    done: AtomicU64,
    stop: AtomicBool,
    reads: AtomicU64,
    writes: AtomicU64,
    errors: AtomicU64,
    stale: AtomicU64,
    backward: AtomicU64,
    backward_elsewhere: AtomicU64,
    stale_ms_max: AtomicU64,
}

#[derive(Debug, Default)]
struct Register {
    /// The greatest value that was acknowledged under synchronous replication.
    secured: AtomicI64,
    /// The values that were acknowledged and when, both growing.
    acknowledged: Mutex<Vec<(i64, u64)>>,
    /// The greatest value that any read showed.
    shown: AtomicI64,
}

/// What a session knows of one register.
#[derive(Clone, Copy, Default)]
struct Own {
    written: i64,
    shown: i64,
}

impl Board {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// The value that a read which begins now must show, and when that was
    /// acknowledged.
    fn floor(&self, register: usize, promise: Promise, own: Own) -> (i64, u64) {
        let now = self.now_ms();
        let until = match promise {
            Promise::Slot | Promise::Primary => now,
            Promise::Any => return (0, now),
            Promise::Session => return (own.written, now),
            Promise::Bounded(ms) => now.saturating_sub(ms),
        };
        let acknowledged = self.registers[register].acknowledged.lock().unwrap();
        let old = acknowledged.iter().rev().find(|(_, at)| *at <= until);
        old.copied().unwrap_or_default()
    }

    /// A write that was sent in the life `life` is acknowledged.
    fn acknowledge(&self, register: usize, value: i64, life: u64, commit: Commit) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let register = &self.registers[register];
        let mut acknowledged = register.acknowledged.lock().unwrap();
        // By whom it was acknowledged is not known if a life has ended since.
        if self.lives.now() != life || !life.is_multiple_of(2) {
            return;
        }
        if acknowledged.last().is_none_or(|(last, _)| *last < value) {
            acknowledged.push((value, self.now_ms()));
        }
        if commit.is_secure() {
            register.secured.fetch_max(value, Ordering::SeqCst);
        }
    }
}

/// Runs the workload, and sets `over` at its end.
pub(crate) async fn run(workload: &Workload, over: &AtomicBool) -> Seen {
    let count = usize::try_from(workload.registers).unwrap();
    let board = Arc::new(Board {
        lives: Arc::clone(&workload.lives),
        unjudged: AtomicU64::new(0),
        registers: (0..count).map(|_| Register::default()).collect(),
        began: Instant::now(),
        ready: Barrier::new(usize::try_from(workload.clients).unwrap()),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        stale: AtomicU64::new(0),
        backward: AtomicU64::new(0),
        backward_elsewhere: AtomicU64::new(0),
        stale_ms_max: AtomicU64::new(0),
    });
    *workload.lives.board.lock().unwrap() = Some(Arc::clone(&board));
    let mut tasks = Vec::new();
    for number in 0..workload.clients {
        tasks.push(tokio::spawn(client(workload.clone(), number, Arc::clone(&board))));
    }
    for task in tasks {
        task.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Seen {
        reads: get(&board.reads),
        writes: get(&board.writes),
        errors: get(&board.errors),
        stale: get(&board.stale),
        backward: get(&board.backward),
        backward_elsewhere: get(&board.backward_elsewhere),
        stale_ms_max: get(&board.stale_ms_max),
        unjudged: get(&board.unjudged),
    }
}

async fn client(workload: Workload, number: u64, board: Arc<Board>) {
    let mut dice = Dice(workload.seed ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut own: Vec<Own> = vec![Own::default(); board.registers.len()];
    let mut session: Option<Session> = None;
    while session.is_none() {
        session = Session::open(&workload, number).await;
    }
    board.ready.wait().await;
    let began = Instant::now();
    let mut life = 0;
    while !board.stop.load(Ordering::Relaxed) {
        if began.elapsed() > workload.limit
            || board.done.load(Ordering::Relaxed) >= workload.operations
            || board.stale.load(Ordering::Relaxed) >= workload.stale
        {
            board.stop.store(true, Ordering::Relaxed);
            break;
        }
        let Some(open) = &session else {
            session = Session::open(&workload, number).await;
            own.fill(Own::default());
            continue;
        };
        // What a session has seen of a life that ended may be gone.
        if std::mem::replace(&mut life, board.lives.now()) != life {
            own.fill(Own::default());
        }
        open.life.store(life, Ordering::Relaxed);
        let register = usize::try_from(dice.roll(u64::try_from(own.len()).unwrap())).unwrap();
        let write = dice.roll(100) < workload.write_percent;
        let done = if write {
            open.write(&mut dice, register, &board, &mut own).await
        } else if workload.transactions && open.naive.is_none() && dice.roll(8) == 0 {
            let done = open.transaction(&mut dice, register, &board, &mut own).await;
            if done.is_err() {
                let _ = open.client.batch_execute("ROLLBACK").await;
            }
            done
        } else {
            open.read(&mut dice, register, &board, &mut own).await
        };
        if let Err(error) = done {
            if board.errors.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX {
                println!("client {number}: {error:?}");
            }
            if open.client.is_closed() {
                session = None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        board.done.fetch_add(1, Ordering::Relaxed);
        if dice.roll(200) == 0 {
            // A pooled application's next request: another session.
            session = None;
        }
        tokio::time::sleep(workload.pause).await;
    }
}

/// One client connection.
struct Session {
    client: Client,
    read: Statement,
    pair: Statement,
    write: Statement,
    promise: Promise,
    commit: Commit,
    /// The primary's life in which its present operation began.
    life: AtomicU64,
    naive: Option<Arc<Naive>>,
}

/// A session's `synchronous_commit`.
#[derive(Clone, Copy, Debug)]
struct Commit(&'static str);

impl Commit {
    /// True if what it acknowledged is on a replica's disk, too, where
    /// replication is synchronous.
    fn is_secure(self) -> bool {
        ["on", "remote_apply"].contains(&self.0)
    }
}

impl Session {
    async fn open(workload: &Workload, number: u64) -> Option<Self> {
        let (client, connection) = tokio_postgres::connect(&workload.url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let at = |count: usize| usize::try_from(number).unwrap() % count;
        // So that every level meets every one of them.
        let commit = Commit(["on", "off", "local", "remote_apply"][(at(4) + at(16) / 4) % 4]);
        client.batch_execute(&format!("SET synchronous_commit = {}", commit.0)).await.ok()?;
        let (promise, naive) = match &workload.reader {
            Reader::Router => (Promise::Slot, None),
            Reader::Naive(naive) => (Promise::Slot, Some(Arc::clone(naive))),
            Reader::Levels(promises) => {
                let promise = promises[at(promises.len())];
                let level = promise.level();
                client.batch_execute(&format!("SET keyway.consistency = '{level}'")).await.ok()?;
                (promise, None)
            }
        };
        let read = client.prepare(READ).await.ok()?;
        let pair = client.prepare(PAIR).await.ok()?;
        let write = client.prepare(WRITE).await.ok()?;
        Some(Self { client, read, pair, write, promise, commit, life: AtomicU64::new(0), naive })
    }

    async fn write(
        &self,
        dice: &mut Dice,
        register: usize,
        board: &Board,
        own: &mut [Own],
    ) -> Result<(), tokio_postgres::Error> {
        let id = i64::try_from(register).unwrap();
        let life = self.life.load(Ordering::Relaxed);
        let value: i64 = match dice.roll(4) {
            // In a transaction of several statements.
            0 => {
                self.client.batch_execute("BEGIN").await?;
                let row = self.client.query_one(&self.write, &[&id]).await;
                let row = match row {
                    Ok(row) => row,
                    Err(error) => {
                        let _ = self.client.batch_execute("ROLLBACK").await;
                        return Err(error);
                    }
                };
                self.client.batch_execute("COMMIT").await?;
                row.get(0)
            }
            // As one query string.
            1 => {
                let sql = WRITE.replace("$1", &id.to_string());
                let rows = self.client.simple_query(&sql).await?;
                first(&rows)
            }
            _ => self.client.query_one(&self.write, &[&id]).await?.get(0),
        };
        if let Some(naive) = &self.naive {
            naive.acknowledged(register);
        }
        board.acknowledge(register, value, life, self.commit);
        own[register].written = own[register].written.max(value);
        Ok(())
    }

    async fn read(
        &self,
        dice: &mut Dice,
        register: usize,
        board: &Board,
        own: &mut [Own],
    ) -> Result<(), tokio_postgres::Error> {
        let id = i64::try_from(register).unwrap();
        let other = (register + 1) % own.len();
        let floor = |at: usize| board.floor(at, self.promise, own[at]);
        let shown = |at: usize| board.registers[at].shown.load(Ordering::SeqCst);
        let before = [register, other].map(|at| (at, floor(at), shown(at)));
        let mut values = Vec::new();
        match (&self.naive, dice.roll(8)) {
            (Some(naive), _) => {
                let sql = READ.replace("$1", &id.to_string());
                let client = naive.client(register, dice).await;
                let client = client.as_deref().unwrap_or(&self.client);
                values.push(first(&client.simple_query(&sql).await?));
            }
            (None, 0..3) => {
                let sql = READ.replace("$1", &id.to_string());
                values.push(first(&self.client.simple_query(&sql).await?));
            }
            (None, 3) => {
                let second = i64::try_from(other).unwrap();
                let rows = self.client.query(&self.pair, &[&id, &second]).await?;
                let mut rows: Vec<(i64, i64)> =
                    rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                rows.sort_by_key(|(of, _)| *of != id);
                values.extend(rows.iter().map(|(_, value)| *value));
            }
            (None, _) => values.push(self.client.query_one(&self.read, &[&id]).await?.get(0)),
        }
        board.reads.fetch_add(1, Ordering::Relaxed);
        for (value, (register, floor, elsewhere)) in values.into_iter().zip(before) {
            self.judge(board, value, register, floor, elsewhere, &mut own[register]);
        }
        Ok(())
    }

    /// A READ ONLY transaction of three reads.
    async fn transaction(
        &self,
        dice: &mut Dice,
        register: usize,
        board: &Board,
        own: &mut [Own],
    ) -> Result<(), tokio_postgres::Error> {
        let fixed = dice.roll(2) == 0;
        let isolation = if fixed { "ISOLATION LEVEL REPEATABLE READ " } else { "" };
        self.client.batch_execute(&format!("BEGIN {isolation}READ ONLY")).await?;
        let other = (register + 1) % own.len();
        let floors = |own: &[Own]| {
            [register, other].map(|at| {
                let shown = board.registers[at].shown.load(Ordering::SeqCst);
                (board.floor(at, self.promise, own[at]), shown)
            })
        };
        let mut due = floors(own);
        let mut first_value = None;
        for at in [0, 1, 0] {
            // One snapshot shows what was due when it was taken.
            if !fixed {
                due = floors(own);
            }
            let number = [register, other][at];
            let id = i64::try_from(number).unwrap();
            let value = if dice.roll(2) == 0 {
                self.client.query_one(&self.read, &[&id]).await?.get(0)
            } else {
                first(&self.client.simple_query(&READ.replace("$1", &id.to_string())).await?)
            };
            board.reads.fetch_add(1, Ordering::Relaxed);
            let (floor, elsewhere) = due[at];
            self.judge(board, value, number, floor, elsewhere, &mut own[number]);
            if at == 0 && fixed {
                assert_eq!(*first_value.get_or_insert(value), value, "one snapshot");
            }
            tokio::time::sleep(Duration::from_millis(dice.roll(4))).await;
        }
        self.client.batch_execute("COMMIT").await
    }

    fn judge(
        &self,
        board: &Board,
        value: i64,
        register: usize,
        (floor, since): (i64, u64),
        elsewhere: i64,
        own: &mut Own,
    ) {
        let life = self.life.load(Ordering::Relaxed);
        if board.lives.now() != life || !life.is_multiple_of(2) {
            board.unjudged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if value < floor {
            if board.stale.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX {
                println!(
                    "stale: register {register} shows {value}, {floor} is due at {:?}",
                    self.promise
                );
            }
            let missed = board.now_ms().saturating_sub(since);
            board.stale_ms_max.fetch_max(missed, Ordering::Relaxed);
        } else if value < own.shown && [Promise::Slot, Promise::Primary].contains(&self.promise) {
            board.backward.fetch_add(1, Ordering::Relaxed);
        } else if value < elsewhere {
            board.backward_elsewhere.fetch_add(1, Ordering::Relaxed);
        }
        own.shown = own.shown.max(value);
        board.registers[register].shown.fetch_max(value, Ordering::SeqCst);
    }
}

fn first(messages: &[tokio_postgres::SimpleQueryMessage]) -> i64 {
    let value = messages.iter().find_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    value.unwrap().parse().unwrap()
}

/// Numbers that spread, from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

/// Stale reads, and errors, that are printed.
const SHOWN_MAX: u64 = 5;
const READ: &str = "SELECT value FROM registers WHERE tenant_id = $1";
const IDENTITY: &str = "SELECT value FROM identities WHERE tenant_id = $1";
const PAIR: &str = "SELECT tenant_id, value FROM registers WHERE tenant_id IN ($1, $2)";
const WRITE: &str = "UPDATE registers SET value = value + 1 WHERE tenant_id = $1 RETURNING value";

/// Reads registers that hold their own numbers until `over`; returns how many.
pub(crate) async fn read_identities(url: &str, client: i64, over: &AtomicBool) -> u64 {
    let mut count = 0;
    let mut id = client * 1_000;
    while !over.load(Ordering::Relaxed) {
        let (session, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let Ok(read) = session.prepare(IDENTITY).await else { continue };
        while !over.load(Ordering::Relaxed) && !session.is_closed() {
            id = (id + 1) % 9_999;
            let row = session.query_one(&read, &[&id]).await;
            let simple = session.simple_query(&IDENTITY.replace("$1", &id.to_string())).await;
            // A connection that ends after the first bytes of its answer is an error.
            let simple = simple.map(|rows| first(&rows));
            for value in [row.map(|row| row.get::<_, i64>(0)), simple].into_iter().flatten() {
                assert_eq!(value, id, "another question's answer");
                count += 1;
            }
        }
    }
    count
}
