//! `keyway local`: servers start, replicate, keep their data, and never outlive
//! their supervisor.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod sample;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use keyway::local::{Guard, Installation, NodeName, Stop, Version};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cluster::{Cluster, ClusterOptions};
use support::psql::{Psql, psql};
use support::{first_port, scratch_dir, wait_for};

#[test]
fn row_written_on_a_primary_appears_on_its_replica_only() {
    check_replication(Cluster::shared());
}

#[test]
fn servers_are_ready_for_moves_and_prepared_transactions() {
    let cluster = Cluster::shared();
    let setting = |name: &str| cluster.sql(2, &format!("SHOW {name}"));
    assert_eq!(setting("wal_level"), "logical");
    assert_eq!(setting("max_prepared_transactions"), "64");
    assert_eq!(setting("max_replication_slots"), "20");
    assert_eq!(setting("server_encoding"), "UTF8");
    let port = cluster.primary(1).port;
    let refused = psql(&format!("postgres://app:wrong@127.0.0.1:{port}/app"), "SELECT 1");
    assert!(refused.expect_error().contains("password authentication failed"));
}

#[test]
fn application_reaches_its_database_through_the_socket() {
    let cluster = Cluster::shared();
    assert_eq!(psql(&cluster.primary(1).socket_url, "SELECT current_user").expect(), "app");
}

#[test]
fn server_that_was_killed_starts_again_with_its_data() {
    let cluster = Cluster::start(ClusterOptions { shards: 1, replicas: 0, ..Default::default() });
    cluster.sql(1, "CREATE TABLE kept AS SELECT 7 AS n");
    let name = NodeName { shard: 1, replica: 0 };
    cluster.servers().stop_node(name, Stop::Kill).unwrap();
    psql(&cluster.primary(1).url, "SELECT 1").expect_error();
    cluster.servers().start_node(name).unwrap();
    assert_eq!(cluster.sql(1, "SELECT n FROM kept"), "7");
}

#[test]
fn version_15_serves_and_replicates_where_it_is_installed() {
    if Installation::find(Version::Major(15), None).is_err() {
        eprintln!("no PostgreSQL 15 here");
        return;
    }
    let version = Version::Major(15);
    let cluster = Cluster::start(ClusterOptions { shards: 1, version, ..Default::default() });
    assert!(cluster.sql(1, "SHOW server_version").starts_with("15."));
    check_replication(&cluster);
}

#[test]
fn restart_keeps_data_ports_and_password() {
    let dir = Scratch::new();
    let before = dir.up(&["--shards", "1", "--detach"]);
    psql(&primary_url(&before), "CREATE TABLE kept AS SELECT 42 AS n").expect();
    assert_eq!(code(&dir.run(&["down"])), 0);
    assert_gone(&pids(&before));
    let after = dir.up(&["--detach"]);
    assert_eq!(primary_url(&before), primary_url(&after));
    assert_eq!(psql(&primary_url(&after), "SELECT n FROM kept").expect(), "42");
    let replica = after["shards"][0]["replicas"][0]["url"].as_str().unwrap();
    wait_for("the replica to follow again", || {
        psql(&primary_url(&after), "SELECT count(*) FROM pg_stat_replication").expect() == "1"
    });
    assert_eq!(psql(replica, "SELECT n FROM kept").expect(), "42");
    dir.run(&["down"]);
}

#[test]
fn second_start_other_shape_and_absent_cluster_are_refused_clearly() {
    let dir = Scratch::new();
    let refused = dir.run(&["status"]);
    assert_eq!(code(&refused), 5);
    assert!(stderr(&refused).contains("nothing runs on"), "{}", stderr(&refused));
    assert_eq!(code(&dir.run(&["down"])), 0, "down is done where nothing runs");
    let up = dir.up(&["--shards", "1", "--replicas", "0", "--detach"]);
    for background in [&["up"][..], &["up", "--detach"]] {
        let refused = dir.run(background);
        assert_eq!(code(&refused), 4);
        assert!(stderr(&refused).contains("already running on"), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("hint: "), "{}", stderr(&refused));
    }
    assert_eq!(psql(&primary_url(&up), "SELECT 1").expect(), "1", "the first goes on");
    let shown = dir.run(&["psql", "--", "-Atc", "SELECT current_user"]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "app\n");
    dir.run(&["down"]);
    let refused = dir.run(&["up", "--shards", "3"]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("holds 1 shards"), "{}", stderr(&refused));
}

#[test]
fn port_that_was_taken_meanwhile_is_chosen_anew() {
    let dir = Scratch::new();
    let before = dir.up(&["--shards", "1", "--detach"]);
    dir.run(&["down"]);
    let port = before["shards"][0]["primary"]["port"].as_u64().unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let after = dir.up(&["--detach"]);
    assert_ne!(primary_url(&before), primary_url(&after));
    wait_for("the replica to follow the new port", || {
        psql(&primary_url(&after), "SELECT count(*) FROM pg_stat_replication").expect() == "1"
    });
    dir.run(&["down"]);
}

#[test]
fn folder_that_is_closed_to_the_servers_user_or_too_deep_for_sockets_works() {
    let dir = Scratch::new();
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(&dir.dir, closed).unwrap();
    let deep = Scratch { dir: dir.dir.join("x".repeat(110)), _guard: Guard::start().unwrap() };
    let view = deep.up(&["--shards", "1", "--detach"]);
    let url = view["shards"][0]["primary"]["socket_url"].as_str().unwrap();
    assert_eq!(psql(url, "SELECT 1").expect(), "1");
    assert_eq!(code(&deep.run(&["down"])), 0);
    for elsewhere in [&view["socket_dir"], &view["shards"][0]["primary"]["data"]] {
        let path = Path::new(elsewhere.as_str().unwrap());
        let root = path.ancestors().find(|p| {
            p.parent().is_some_and(|p| p == Path::new("/tmp") || p == Path::new("/var/tmp"))
        });
        // Only what is ours and was made outside the scratch folder.
        let name = root.unwrap().file_name().unwrap().to_str().unwrap();
        if !name.starts_with("keyway-test-") {
            fs::remove_dir_all(root.unwrap()).unwrap_or_default();
        }
    }
}

#[test]
fn no_server_outlives_its_supervisor() {
    for signal in [Signal::KILL, Signal::INT, Signal::TERM, Signal::HUP] {
        let dir = Scratch::new();
        let (mut supervisor, view) = dir.foreground();
        let pids = pids(&view);
        assert_eq!(pids.len(), 2);
        assert!(pids.iter().all(|pid| alive(*pid)));
        let raw = Pid::from_raw(i32::try_from(supervisor.id()).unwrap()).unwrap();
        kill_process(raw, signal).unwrap();
        let status = supervisor.wait().unwrap();
        assert_eq!(status.success(), signal != Signal::KILL, "{signal:?}: {status}");
        assert_gone(&pids);
    }
}

#[test]
fn server_that_crashes_is_started_again_by_the_supervisor() {
    let dir = Scratch::new();
    let view = dir.up(&["--shards", "1", "--replicas", "0", "--detach"]);
    psql(&primary_url(&view), "CREATE TABLE kept AS SELECT 3 AS n").expect();
    let crashed = pids(&view);
    kill_process(Pid::from_raw(i32::try_from(crashed[0]).unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_gone(&crashed);
    wait_for(
        "the server to be back",
        || matches!(psql(&primary_url(&view), "SELECT n FROM kept"), Psql::Done(n) if n == "3"),
    );
    let mut now = Vec::new();
    wait_for("status to show the new process", || {
        let status = dir.run(&["status", "--json"]);
        now = pids(&serde_json::from_slice(&status.stdout).unwrap());
        now != crashed
    });
    assert_eq!(code(&dir.run(&["down"])), 0);
    assert_gone(&now);
}

#[test]
fn servers_that_an_earlier_supervisor_left_are_ended_by_the_next_start() {
    let dir = Scratch::new();
    let (mut supervisor, view) = dir.foreground();
    // The watchdog is stopped too, so nothing ends the servers.
    let watchdog = watchdog_of(supervisor.id());
    kill_process(watchdog, Signal::KILL).unwrap();
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let left = pids(&view);
    assert!(left.iter().all(|pid| alive(*pid)), "nobody ended them");
    let again = dir.up(&["--detach"]);
    assert_gone(&left);
    assert_eq!(psql(&primary_url(&again), "SELECT 1").expect(), "1");
    dir.run(&["down"]);
}

fn check_replication(cluster: &Cluster) {
    cluster.sql(1, "CREATE TABLE replicated AS SELECT 'here'::text AS t");
    cluster.wait_replicated();
    assert_eq!(psql(&cluster.replica(1, 1).url, "SELECT t FROM replicated").expect(), "here");
    let refused = psql(&cluster.replica(1, 1).url, "DROP TABLE replicated").expect_error();
    assert!(refused.contains("25006"), "a replica takes no writes: {refused}");
    if cluster.view().shards.len() > 1 {
        psql(&cluster.primary(2).url, "SELECT t FROM replicated").expect_error();
    }
}

/// A cluster's folder that is cleared away, servers included.
struct Scratch {
    dir: PathBuf,
    _guard: Guard,
}

impl Scratch {
    fn new() -> Self {
        let dir = scratch_dir();
        let mut guard = Guard::start().unwrap();
        guard.remove_at_end(&dir).unwrap();
        Self { dir, _guard: guard }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyway"));
        let (name, rest) = args.split_first().unwrap();
        command.args(["local", name, "--dir"]).arg(&self.dir).args(rest);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn up(&self, args: &[&str]) -> Value {
        let port = first_port().to_string();
        let output = self.run(&[&["up", "--fast", "--json", "--port", &port], args].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts a supervisor in the foreground: one shard with a replica.
    fn foreground(&self) -> (Child, Value) {
        let port = first_port().to_string();
        let mut supervisor = self
            .command(&["up", "--fast", "--json", "--shards", "1", "--port", &port])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut json = String::new();
        for line in BufReader::new(supervisor.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            json.push_str(&line);
            if line == "}" {
                break;
            }
        }
        (supervisor, serde_json::from_str(&json).unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}

fn primary_url(view: &Value) -> String {
    view["shards"][0]["primary"]["url"].as_str().unwrap().to_owned()
}

fn pids(view: &Value) -> Vec<u64> {
    let shards = view["shards"].as_array().unwrap();
    let nodes = shards
        .iter()
        .flat_map(|s| std::iter::once(&s["primary"]).chain(s["replicas"].as_array().unwrap()));
    nodes.map(|n| n["pid"].as_u64().unwrap()).collect()
}

fn alive(pid: u64) -> bool {
    // A process that nobody reaps is dead all the same.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
}

fn assert_gone(pids: &[u64]) {
    for pid in pids {
        wait_for(&format!("server {pid} to be gone"), || !alive(*pid));
    }
}

/// The shell that a supervisor started.
fn watchdog_of(supervisor: u32) -> Pid {
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let Some((pid, stat)) = stat_of(&path) else { continue };
        let rest: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        if stat.contains("(sh)") && rest[1] == supervisor.to_string() {
            return Pid::from_raw(pid).unwrap();
        }
    }
    panic!("process {supervisor} has no watchdog");
}

fn stat_of(path: &Path) -> Option<(i32, String)> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    Some((pid, fs::read_to_string(path.join("stat")).ok()?))
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
