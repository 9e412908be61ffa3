//! Registers that many clients write and read back, and what each of them may
//! see: the promise of the level `slot` as a checker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, NoTls, Statement};

/// What a run is made of.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) url: String,
    pub(crate) clients: u64,
    pub(crate) registers: i64,
    /// Writes among 100 operations.
    pub(crate) write_percent: u64,
    /// Operations after which the run ends.
    pub(crate) operations: u64,
    /// The run ends here whatever was done.
    pub(crate) limit: Duration,
    /// Waits between two operations of a client.
    pub(crate) pause: Duration,
    pub(crate) seed: u64,
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) errors: u64,
    /// Reads that missed a write that had been acknowledged before they began.
    pub(crate) stale: u64,
    /// Reads that showed less than an earlier read of the same session.
    pub(crate) backward: u64,
    /// Reads that showed less than an earlier read of another session.
    pub(crate) backward_elsewhere: u64,
    /// The oldest acknowledgement that a read missed.
    pub(crate) stale_ms_max: u64,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations ({} reads, {} writes, {} errors): {} stale (up to {} ms), \
             {} backward in their session, {} behind another session's read",
            self.reads + self.writes,
            self.reads,
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
struct Board {
    /// The greatest value that was acknowledged, and when.
    acknowledged: Vec<(AtomicI64, AtomicU64)>,
    /// The greatest value that any read showed.
    shown: Vec<AtomicI64>,
    began: Instant,
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

/// Runs the workload, and sets `over` at its end.
pub(crate) async fn run(workload: &Workload, over: &AtomicBool) -> Seen {
    let count = usize::try_from(workload.registers).unwrap();
    let board = Arc::new(Board {
        acknowledged: (0..count).map(|_| (AtomicI64::new(0), AtomicU64::new(0))).collect(),
        shown: (0..count).map(|_| AtomicI64::new(0)).collect(),
        began: Instant::now(),
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
    }
}

async fn client(workload: Workload, number: u64, board: Arc<Board>) {
    let mut dice = Dice(workload.seed ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut own: Vec<i64> = vec![0; board.shown.len()];
    let mut session: Option<Session> = None;
    while !board.stop.load(Ordering::Relaxed) {
        if board.began.elapsed() > workload.limit
            || board.done.load(Ordering::Relaxed) >= workload.operations
        {
            board.stop.store(true, Ordering::Relaxed);
            break;
        }
        let Some(open) = &session else {
            session = Session::open(&workload.url, number).await;
            own.fill(0);
            continue;
        };
        let register = usize::try_from(dice.roll(u64::try_from(own.len()).unwrap())).unwrap();
        let write = dice.roll(100) < workload.write_percent;
        let done = if write {
            open.write(&mut dice, register, &board).await
        } else {
            open.read(&mut dice, register, &board, &mut own).await
        };
        if done.is_err() {
            board.errors.fetch_add(1, Ordering::Relaxed);
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
    write: Statement,
}

impl Session {
    async fn open(url: &str, number: u64) -> Option<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
        tokio::spawn(connection);
        let commit = ["on", "off", "local"][usize::try_from(number % 3).unwrap()];
        client.batch_execute(&format!("SET synchronous_commit = {commit}")).await.ok()?;
        let read = client.prepare(READ).await.ok()?;
        let write = client.prepare(WRITE).await.ok()?;
        Some(Self { client, read, write })
    }

    async fn write(
        &self,
        dice: &mut Dice,
        register: usize,
        board: &Board,
    ) -> Result<(), tokio_postgres::Error> {
        let id = i64::try_from(register).unwrap();
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
        let (acknowledged, at) = &board.acknowledged[register];
        let now = u64::try_from(board.began.elapsed().as_millis()).unwrap();
        if acknowledged.fetch_max(value, Ordering::SeqCst) < value {
            at.store(now, Ordering::SeqCst);
        }
        board.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn read(
        &self,
        dice: &mut Dice,
        register: usize,
        board: &Board,
        own: &mut [i64],
    ) -> Result<(), tokio_postgres::Error> {
        let id = i64::try_from(register).unwrap();
        let floor = board.acknowledged[register].0.load(Ordering::SeqCst);
        let since = board.acknowledged[register].1.load(Ordering::SeqCst);
        let elsewhere = board.shown[register].load(Ordering::SeqCst);
        let value: i64 = match dice.roll(3) {
            0 => {
                let sql = READ.replace("$1", &id.to_string());
                first(&self.client.simple_query(&sql).await?)
            }
            _ => self.client.query_one(&self.read, &[&id]).await?.get(0),
        };
        board.reads.fetch_add(1, Ordering::Relaxed);
        if value < floor {
            if board.stale.fetch_add(1, Ordering::Relaxed) < SHOWN_MAX {
                println!("stale: register {register} shows {value}, acknowledged is {floor}");
            }
            let now = u64::try_from(board.began.elapsed().as_millis()).unwrap();
            board.stale_ms_max.fetch_max(now.saturating_sub(since), Ordering::Relaxed);
        } else if value < own[register] {
            board.backward.fetch_add(1, Ordering::Relaxed);
        } else if value < elsewhere {
            board.backward_elsewhere.fetch_add(1, Ordering::Relaxed);
        }
        own[register] = own[register].max(value);
        board.shown[register].fetch_max(value, Ordering::SeqCst);
        Ok(())
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

/// Stale reads that are printed.
const SHOWN_MAX: u64 = 5;
const READ: &str = "SELECT value FROM registers WHERE tenant_id = $1";
const WRITE: &str = "UPDATE registers SET value = value + 1 WHERE tenant_id = $1 RETURNING value";

/// Reads registers that hold their own numbers until `over`; returns how many.
pub(crate) async fn read_identities(url: &str, client: i64, over: &AtomicBool) -> u64 {
    let mut count = 0;
    let mut id = client * 1_000;
    while !over.load(Ordering::Relaxed) {
        let (session, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let Ok(read) = session.prepare(READ).await else { continue };
        while !over.load(Ordering::Relaxed) && !session.is_closed() {
            id = (id + 1) % 9_999;
            let row = session.query_one(&read, &[&id]).await;
            let simple = session.simple_query(&READ.replace("$1", &id.to_string())).await;
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
