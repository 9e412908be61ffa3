//! Maps are reloaded, hundreds of times, while pgbench runs in all three
//! protocols: weights change, a replica and a shard come and go, files are
//! broken. No statement fails, none is lost or done twice, no prepared statement
//! is forgotten, and no connection to a node that stays is closed.
//!
//! `KEYWAY_RELOADS` makes it longer (scripts/soak). What the threads'
//! own part of a reload takes is printed, not judged: the machine is shared.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::cluster::{Cluster, ClusterOptions};
use support::psql::{command, psql};
use support::router::{Router, RouterOptions};
use support::{scratch_dir, wait_for};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement};

#[test]
fn reloads_under_load_fail_no_statement_and_close_no_connection_that_stays() {
    let options = ClusterOptions { shards: 3, replicas: 1, ..Default::default() };
    let cluster = Cluster::start(options);
    cluster.sql_everywhere(&format!(
        "CREATE TABLE accounts (tenant_id bigint PRIMARY KEY, balance bigint NOT NULL);
         INSERT INTO accounts SELECT n, 0 FROM generate_series(1, {TENANTS}) n"
    ));
    cluster.wait_replicated();
    let maps = Maps { cluster: &cluster };
    let router = Router::start(
        &cluster,
        &RouterOptions { map: Some(maps.text(Shape::default(), 1)), ..Default::default() }
            .with_config("pool.size_max = 8"),
    );
    wait_for("the schemas", || {
        let sql = "EXPLAIN ROUTE SELECT FROM accounts WHERE tenant_id = 2";
        psql(&router.url(), sql).expect().contains("marks|its slot")
    });
    let wanted: usize = std::env::var("KEYWAY_RELOADS").map_or(30, |text| text.parse().unwrap());
    let script = scratch_dir().join("load.sql");
    fs::write(&script, LOAD).unwrap();
    let mut operator = Operator::before(&router);
    let mut stay = BTreeSet::new();
    let mut transactions = 0;
    while operator.taken < wanted {
        let runs: Vec<Child> = ["simple", "extended", "prepared"]
            .iter()
            .map(|protocol| pgbench(&router, protocol, &script))
            .collect();
        if stay.is_empty() {
            let staying = maps.staying();
            wait_for("connections", || operator.servers(&staying).len() >= staying.len() * 2);
            stay = operator.servers(&staying);
        }
        operator.reload_while(&maps, || runs.iter().all(is_running));
        transactions += runs.into_iter().map(transactions_of).sum::<u64>();
    }

    let now = operator.servers(&maps.staying());
    let gone: Vec<_> = stay.difference(&now).collect();
    assert!(gone.is_empty(), "connections that were closed: {gone:?}");
    let sums = [1, 2].map(|shard| cluster.sql(shard, "SELECT sum(balance) FROM accounts"));
    let written: u64 = sums.iter().map(|sum| sum.parse::<u64>().unwrap()).sum();
    assert_eq!(written, transactions * 2, "each acknowledged write, once");
    println!(
        "{} reloads taken over and {} refused under {transactions} transactions; {}",
        operator.taken,
        operator.refused,
        operator.swaps()
    );
}

/// Who reloads, over connections that last.
struct Operator<'r> {
    router: &'r Router,
    runtime: Runtime,
    console: Client,
    client: Client,
    /// Prepared before the first reload.
    prepared: Statement,
    shape: Shape,
    turn: u32,
    taken: usize,
    refused: usize,
}

impl<'r> Operator<'r> {
    fn before(router: &'r Router) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connect = |url: String| {
            let (client, connection) =
                runtime.block_on(tokio_postgres::connect(&url, NoTls)).unwrap();
            runtime.spawn(connection);
            client
        };
        let (console, client) = (connect(router.console_url()), connect(router.url()));
        let sql = "SELECT tenant_id FROM accounts WHERE tenant_id = $1";
        let prepared = runtime.block_on(client.prepare(sql)).unwrap();
        let shape = Shape::default();
        Self { router, runtime, console, client, prepared, shape, turn: 0, taken: 0, refused: 0 }
    }

    /// Reloads one map after the other, and runs what was prepared before.
    fn reload_while(&mut self, maps: &Maps<'_>, mut go_on: impl FnMut() -> bool) {
        while go_on() {
            self.turn += 1;
            let before = self.epoch();
            match self.turn % 6 {
                0 => self.shape.weight = 1 + self.shape.weight % 7,
                1 | 3 => self.shape.replica_of_two = !self.shape.replica_of_two,
                2 | 5 => self.shape.third_shard = !self.shape.third_shard,
                _ => {
                    let broken =
                        maps.text(self.shape, before).replace("[[keyspace]]", "[[keyspace");
                    let said = self.reload(&broken);
                    assert!(said.contains("refused"), "{said}");
                    assert_eq!(self.epoch(), before, "a broken file changes nothing");
                    self.refused += 1;
                    continue;
                }
            }
            let said = self.reload(&maps.text(self.shape, before));
            assert!(!said.contains("refused"), "{said}");
            // The file's watcher may have been quicker than RELOAD.
            assert_eq!(self.epoch(), before + 1, "{said}");
            self.taken += 1;
            let tenant = i64::from(1 + self.turn % TENANTS);
            let rows =
                self.runtime.block_on(self.client.query(&self.prepared, &[&tenant])).unwrap();
            assert_eq!(rows[0].get::<_, i64>(0), tenant);
        }
    }

    fn reload(&self, map: &str) -> String {
        let file = self.router.map_file();
        fs::write(file.with_extension("new"), map).unwrap();
        fs::rename(file.with_extension("new"), &file).unwrap();
        rows(&self.runtime, &self.console, "RELOAD").concat().join("|")
    }

    fn epoch(&self) -> u64 {
        rows(&self.runtime, &self.client, "SHOW keyway.epoch")[0][0].parse().unwrap()
    }

    /// Node and process of each connection to these nodes.
    fn servers(&self, nodes: &[String]) -> BTreeSet<(String, String)> {
        let shown = rows(&self.runtime, &self.console, "SHOW SERVERS");
        let open = shown.into_iter().filter(|row| row[3] == "idle" || row[3] == "active");
        let here = open.filter(|row| nodes.contains(&row[0]));
        here.map(|row| (row[0].clone(), row[4].clone())).collect()
    }

    /// What SHOW STATS has on the threads' part of the reloads.
    fn swaps(&self) -> String {
        let shown = rows(&self.runtime, &self.console, "SHOW STATS");
        let lines = shown.iter().filter(|row| row[0].starts_with("map_swap"));
        lines.map(|row| row.join(" ")).collect::<Vec<_>>().join(", ")
    }
}

fn rows(runtime: &Runtime, client: &Client, sql: &str) -> Vec<Vec<String>> {
    let messages = runtime.block_on(client.simple_query(sql)).unwrap();
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        })
        .collect()
}

/// What changes from one map to the next; no key ever belongs elsewhere.
#[derive(Clone, Copy)]
struct Shape {
    weight: u32,
    replica_of_two: bool,
    third_shard: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { weight: 1, replica_of_two: true, third_shard: false }
    }
}

struct Maps<'c> {
    cluster: &'c Cluster,
}

impl Maps<'_> {
    /// The map as it follows the one of `epoch`.
    fn text(&self, shape: Shape, epoch: u64) -> String {
        let view = self.cluster.view();
        let mut text = format!(
            "epoch = {epoch}\ndatabase = \"app\"\nhome = \"shard1\"\nconsistency = \"any\"\n"
        );
        let shards = if shape.third_shard { 3 } else { 2 };
        for number in 1..=shards {
            let primary = self.cluster.primary(number);
            let replica = self.cluster.replica(number, 1);
            let weight = if number == 1 { shape.weight } else { 1 };
            let replicas = if number == 2 && !shape.replica_of_two {
                String::new()
            } else {
                format!(
                    "{{ host = {:?}, port = {}, weight = {weight} }}",
                    replica.host, replica.port
                )
            };
            write!(
                text,
                "[[shard]]\nnumber = {number}\nname = \"shard{number}\"\nuser = {:?}\n\
                 password_file = {:?}\ntls = \"disable\"\n\
                 primary = {{ host = {:?}, port = {} }}\nreplicas = [{replicas}]\n",
                view.user, view.password_file, primary.host, primary.port
            )
            .unwrap();
        }
        text.push_str(
            "[[keyspace]]\nname = \"tenants\"\ntype = \"int8\"\nslots = 4096\n\
             ranges = { shard1 = [\"0-2047\"], shard2 = [\"2048-4095\"] }\n\
             [[key_rule]]\nkeyspace = \"tenants\"\ncolumn = \"tenant_id\"\n\
             tables = [\"public.accounts\"]\n",
        );
        text
    }

    /// The addresses that every map has.
    fn staying(&self) -> Vec<String> {
        let nodes = [self.cluster.primary(1), self.cluster.primary(2), self.cluster.replica(1, 1)];
        nodes.iter().map(|node| format!("{}:{}", node.host, node.port)).collect()
    }
}

fn pgbench(router: &Router, protocol: &str, script: &Path) -> Child {
    let program = Path::new(command().get_program()).with_file_name("pgbench");
    Command::new(program)
        .args(["--no-vacuum", "--client=6", "--jobs=6", "--protocol", protocol, "--file"])
        .arg(script)
        .arg(format!("--time={ROUND_SECONDS}"))
        .arg(router.url())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Whether the process has not ended; it is waited for later.
fn is_running(run: &Child) -> bool {
    // A process that has ended and was not waited for is a zombie.
    let stat = fs::read_to_string(format!("/proc/{}/stat", run.id())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z'))
}

/// How many transactions it ran; all of them have succeeded.
fn transactions_of(run: Child) -> u64 {
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !errors.contains("ERROR"), "{said}\n{errors}");
    let line = said.lines().find(|line| line.starts_with("number of transactions actually"));
    let count = line.and_then(|line| line.rsplit(' ').next()).unwrap();
    count.split('/').next().unwrap().parse().unwrap()
}

const TENANTS: u32 = 200;
const ROUND_SECONDS: u32 = 6;
/// Reads, a write of its own, and a transaction with another.
const LOAD: &str = "\\set t random(1, 200)\n\
    SELECT balance FROM accounts WHERE tenant_id = :t;\n\
    UPDATE accounts SET balance = balance + 1 WHERE tenant_id = :t;\n\
    BEGIN;\n\
    SELECT balance FROM accounts WHERE tenant_id = :t;\n\
    UPDATE accounts SET balance = balance + 1 WHERE tenant_id = :t;\n\
    COMMIT;\n";
