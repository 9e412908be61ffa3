//! Everybody who writes to a tenant at once: clients of the router, in every
//! way that a driver has, and others who know of no router. Each remembers what
//! was acknowledged and what may have happened.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_postgres::{Client, NoTls};

use crate::routed::runtime;
use crate::support::psql::{Psql, command, psql};

/// What one writer knows.
#[derive(Clone, Default)]
pub(crate) struct Account {
    pub(crate) acknowledged: BTreeSet<i32>,
    /// Sent, and not answered yet, or nobody knows.
    pub(crate) open: BTreeSet<i32>,
    next: i32,
}

/// The writers of one tenant.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

pub(crate) struct Shared {
    pub(crate) tenant: i64,
    router: String,
    shards: Vec<String>,
    stop: AtomicBool,
    /// Whether those may write who go past the router; they hold it while they
    /// do.
    direct: Mutex<bool>,
    pub(crate) accounts: Vec<Mutex<Account>>,
    /// What must not have happened.
    pub(crate) wrong: Mutex<Vec<String>>,
}

impl Crowd {
    /// Starts them all; those past the router are kept back at first.
    pub(crate) fn start(router: String, shards: Vec<String>, tenant: i64) -> Self {
        let shared = Arc::new(Shared {
            tenant,
            router,
            shards,
            stop: AtomicBool::new(false),
            direct: Mutex::new(false),
            accounts: (0..WRITERS).map(|_| Mutex::new(Account::default())).collect(),
            wrong: Mutex::new(Vec::new()),
        });
        let one = Arc::clone(&shared);
        let drivers = std::thread::spawn(move || {
            runtime().block_on(async {
                let at = |writer: usize| drive(&one, writer);
                tokio::join!(at(0), at(1), at(2), at(3), at(4), read(&one));
            });
        });
        let by_thread = |work: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared))
        };
        let threads = vec![drivers, by_thread(copy), by_thread(past), by_thread(prepare)];
        Self { shared, threads }
    }

    /// Lets those write who go past the router, or waits until none does.
    pub(crate) fn admit_direct(&self, admit: bool) {
        *self.shared.direct.lock().unwrap() = admit;
    }

    pub(crate) fn end(self) -> Arc<Shared> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.shared
    }
}

/// What came of sending something.
#[derive(Debug)]
enum Verdict {
    Done,
    /// It has not happened, for a reason that may be.
    Refused,
    /// Nobody knows.
    Open,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn begin(&self, writer: usize, count: i32) -> Vec<i32> {
        let mut account = self.accounts[writer].lock().unwrap();
        let first = account.next + 1;
        account.next += count;
        let all: Vec<i32> = (first..first + count).collect();
        account.open.extend(&all);
        all
    }

    fn end(&self, writer: usize, all: &[i32], verdict: &Verdict) {
        let mut account = self.accounts[writer].lock().unwrap();
        for seq in all {
            match verdict {
                Verdict::Done => {
                    account.open.remove(seq);
                    account.acknowledged.insert(*seq);
                }
                Verdict::Refused => drop(account.open.remove(seq)),
                Verdict::Open => {}
            }
        }
    }

    /// What an answer with this SQLSTATE means, or none at all.
    fn judge(&self, writer: usize, code: Option<&str>, text: &str) -> Verdict {
        match code {
            None => Verdict::Open,
            // Nothing is known after these.
            Some("40003" | "08007") => Verdict::Open,
            Some(code) if ["08", "57P"].iter().any(|class| code.starts_with(class)) => {
                Verdict::Open
            }
            Some(code)
                if ["40", "KW0", "25", "53", "55P03"].iter().any(|c| code.starts_with(c)) =>
            {
                Verdict::Refused
            }
            Some(_) => {
                self.wrong.lock().unwrap().push(format!("writer {writer} was told: {text}"));
                Verdict::Refused
            }
        }
    }

    fn judge_error(&self, writer: usize, error: &tokio_postgres::Error) -> Verdict {
        let code = error.code().map(|code| code.code().to_owned());
        self.judge(writer, code.as_deref(), &format!("{error:?}"))
    }

    fn judge_psql(&self, writer: usize, answer: &Psql) -> Verdict {
        match answer {
            Psql::Done(_) => Verdict::Done,
            // It was not let in: servers and routers come and go.
            Psql::Failed(text) if text.contains("connection to server at") => Verdict::Open,
            Psql::Failed(text) => {
                let code = |line: &str| {
                    let rest = line.split_once("ERROR:").or(line.split_once("FATAL:"))?.1;
                    let code = rest.trim_start().get(..5)?.to_owned();
                    // What the client library says by itself has none.
                    code.bytes()
                        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
                        .then_some(code)
                };
                let code = text.lines().find_map(code);
                self.judge(writer, code.as_deref(), text)
            }
        }
    }
}

async fn connect(url: &str) -> Option<Client> {
    let connecting = tokio_postgres::connect(url, NoTls);
    let (client, connection) =
        tokio::time::timeout(Duration::from_secs(5), connecting).await.ok()?.ok()?;
    tokio::spawn(async move { drop(connection.await) });
    Some(client)
}

/// A client of the router's that writes: transactions of the three levels, bound
/// parameters, or several statements in one batch.
async fn drive(shared: &Shared, writer: usize) {
    let mut client = None;
    while !shared.stopped() {
        if client.as_ref().is_none_or(Client::is_closed) {
            client = connect(&shared.router).await;
        }
        if let Some(client) = &client {
            match writer {
                0..3 => transaction(shared, client, writer).await,
                _ => bound(shared, client, writer).await,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn transaction(shared: &Shared, client: &Client, writer: usize) {
    let tenant = shared.tenant;
    let all = shared.begin(writer, 1);
    let seq = all[0];
    let level = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"][writer];
    let begin = format!("BEGIN ISOLATION LEVEL {level}");
    // Its snapshot is old by the time that it writes.
    let look = format!("SELECT count(*) FROM accounts WHERE tenant_id = {tenant}");
    let write = format!(
        "INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, {seq}); \
         INSERT INTO entries (tenant_id, ledger_id) SELECT tenant_id, id FROM ledger \
         WHERE tenant_id = {tenant} AND writer = {writer} AND seq = {seq}; \
         INSERT INTO counters (tenant_id, writer, n) VALUES ({tenant}, -1, 1) \
         ON CONFLICT (tenant_id, writer) DO UPDATE SET n = counters.n + 1"
    );
    let pause = Duration::from_millis(u64::from(seq.unsigned_abs().is_multiple_of(7)) * 150);
    for (sql, is_commit) in [(&begin, false), (&look, false), (&write, false), (&commit(), true)] {
        if let Err(error) = client.batch_execute(sql).await {
            // What was not committed did not happen, whatever is said.
            let verdict = match (shared.judge_error(writer, &error), is_commit) {
                (verdict, true) => verdict,
                (_, false) => Verdict::Refused,
            };
            shared.end(writer, &all, &verdict);
            let _ = client.batch_execute("ROLLBACK").await;
            return;
        }
        if *sql == look {
            tokio::time::sleep(pause).await;
        }
    }
    shared.end(writer, &all, &Verdict::Done);
}

fn commit() -> String {
    "COMMIT".to_owned()
}

async fn bound(shared: &Shared, client: &Client, writer: usize) {
    let sql = "INSERT INTO ledger (tenant_id, writer, seq) VALUES ($1, $2, $3)";
    let Ok(statement) = client.prepare(sql).await else { return };
    for _ in 0..4 {
        let all = shared.begin(writer, 3);
        let number = i32::try_from(writer).unwrap();
        let one = async |seq: &i32| {
            let sent = client.execute(&statement, &[&shared.tenant, &number, seq]).await;
            let verdict = match sent {
                Ok(_) => Verdict::Done,
                Err(error) => shared.judge_error(writer, &error),
            };
            shared.end(writer, &[*seq], &verdict);
        };
        match writer {
            // One after the other is acknowledged.
            3 => {
                for seq in &all {
                    one(seq).await;
                }
            }
            // All are sent before the first is answered.
            _ => drop(tokio::join!(one(&all[0]), one(&all[1]), one(&all[2]))),
        }
        if client.is_closed() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Reads never show less than was acknowledged before.
async fn read(shared: &Shared) {
    let mut client = None;
    let mut writer = 0;
    while !shared.stopped() {
        if client.as_ref().is_none_or(Client::is_closed) {
            client = connect(&shared.router).await;
        }
        writer = (writer + 1) % WRITERS;
        let least = shared.accounts[writer].lock().unwrap().acknowledged.len();
        let sql = "SELECT count(*) FROM ledger WHERE tenant_id = $1 AND writer = $2";
        let number = i32::try_from(writer).unwrap();
        if let Some(client) = &client {
            match client.query_one(sql, &[&shared.tenant, &number]).await {
                Ok(row) => {
                    let seen: i64 = row.get(0);
                    if seen < i64::try_from(least).unwrap() {
                        shared.wrong.lock().unwrap().push(format!(
                            "a read of writer {writer} saw {seen} rows of {least} acknowledged"
                        ));
                    }
                }
                Err(error) => drop(shared.judge_error(WRITERS, &error)),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// COPY through the router, with the key declared.
fn copy(shared: &Shared) {
    while !shared.stopped() {
        let all = shared.begin(COPIER, 5);
        let tenant = shared.tenant;
        let mut script = format!(
            "SET keyway.key = '{tenant}';\nCOPY ledger (tenant_id, writer, seq) FROM STDIN;\n"
        );
        for seq in &all {
            script.push_str(&format!("{tenant}\t{COPIER}\t{seq}\n"));
        }
        script.push_str("\\.\n");
        let verdict = shared.judge_psql(COPIER, &piped(&shared.router, &script));
        shared.end(COPIER, &all, &verdict);
        std::thread::sleep(PAUSE * 4);
    }
}

/// psql with a script at its standard input.
fn piped(url: &str, script: &str) -> Psql {
    let mut child = command()
        .args(["--no-psqlrc", "--quiet", "--no-password", "--dbname", url])
        .args(["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already.
    let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Psql::Done(String::new())
    } else {
        Psql::Failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }
}

/// psql at the shards themselves: where the fence sends it away, it goes to the
/// other one.
fn past(shared: &Shared) {
    let mut at = 0;
    while !shared.stopped() {
        {
            let direct = shared.direct.lock().unwrap();
            if *direct {
                let all = shared.begin(DIRECT, 1);
                let sql = format!(
                    "INSERT INTO ledger (tenant_id, writer, seq) VALUES ({}, {DIRECT}, {})",
                    shared.tenant, all[0]
                );
                let verdict = shared.judge_psql(DIRECT, &psql(&shared.shards[at], &sql));
                shared.end(DIRECT, &all, &verdict);
                if !matches!(verdict, Verdict::Done) {
                    at = 1 - at;
                }
            }
        }
        std::thread::sleep(PAUSE * 2);
    }
}

/// Prepared transactions at the shards themselves, which stand open without any
/// session for a while.
fn prepare(shared: &Shared) {
    let mut at = 0;
    while !shared.stopped() {
        {
            let direct = shared.direct.lock().unwrap();
            if *direct {
                let verdict = prepared(shared, at);
                if !matches!(verdict, Verdict::Done) {
                    at = 1 - at;
                }
            }
        }
        std::thread::sleep(PAUSE * 20);
    }
}

fn prepared(shared: &Shared, at: usize) -> Verdict {
    let (tenant, url) = (shared.tenant, &shared.shards[at]);
    let all = shared.begin(PREPARER, 1);
    let gid = format!("soak-{tenant}-{}", all[0]);
    let begin = format!(
        "BEGIN; INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {PREPARER}, {}); \
         PREPARE TRANSACTION '{gid}'",
        all[0]
    );
    let asked = psql(url, &begin);
    std::thread::sleep(PAUSE);
    let mut verdict = match shared.judge_psql(PREPARER, &asked) {
        Verdict::Refused => Verdict::Refused,
        Verdict::Done | Verdict::Open => Verdict::Open,
    };
    while matches!(verdict, Verdict::Open) {
        let there = format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{gid}'");
        match psql(url, &there) {
            Psql::Done(count) if count == "1" => {
                if let Psql::Done(_) = psql(url, &format!("COMMIT PREPARED '{gid}'")) {
                    verdict = Verdict::Done;
                }
            }
            // Committed although nobody said so, or never prepared.
            Psql::Done(_) => break,
            Psql::Failed(_) => std::thread::sleep(PAUSE * 4),
        }
    }
    shared.end(PREPARER, &all, &verdict);
    verdict
}

/// Writers 0 to 2 are transactions, 3 and 4 bound parameters.
pub(crate) const WRITERS: usize = 8;
const COPIER: usize = 5;
const DIRECT: usize = 6;
const PREPARER: usize = 7;
const PAUSE: Duration = Duration::from_millis(15);
