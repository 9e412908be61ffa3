//! Chaos with primaries: they die and come back, or a replica is promoted in
//! their place, another one is pointed at it, and the dead one rejoins as a
//! copy; in between the replicas suffer what they suffer elsewhere.
//!
//! Replication is synchronous (any one of two), and sessions differ in whether
//! they wait for it. What a session that waited was acknowledged must outlive
//! the primary; of the others' writes the registers say themselves, on the new
//! primary, what is left: from then on no more is due.

use std::time::Duration;

use keyway::local::{NodeName, Stop};
use rustix::process::{Pid, Signal, kill_process};

use super::chaos;
use super::registers::{Dice, Lives};
use super::support::cluster::Cluster;
use super::support::psql::psql;
use super::support::wait_for;

/// What became of the primaries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) promotions: u64,
    pub(crate) crashes: u64,
    /// Registers that lost a write which no session had secured, added up.
    pub(crate) lost: u64,
    /// Registers that lost one which was secured.
    pub(crate) broken: u64,
}

/// Makes replication synchronous, now and after every promotion.
pub(crate) fn secure(cluster: &Cluster) {
    for replica in 0..3 {
        let node = NodeName { shard: 1, replica };
        sql(cluster, node, "ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'");
        sql(cluster, node, "SELECT pg_reload_conf()");
    }
    streaming(cluster, NodeName { shard: 1, replica: 0 });
}

/// Ends one life of the primary after the other until the run is over.
pub(crate) fn go_on(
    cluster: &Cluster,
    seed: u64,
    registers: i64,
    lives: &Lives,
    running: &dyn Fn() -> bool,
) -> Ends {
    let mut dice = Dice(seed | 1);
    let mut ends = Ends::default();
    let mut primary = 0;
    chaos::rest(running, 500);
    while running() {
        let (first, second) = ((primary + 1) % 3, (primary + 2) % 3);
        for _ in 0..2 {
            let replica = if dice.roll(2) == 0 { first } else { second };
            chaos::strike(cluster, NodeName { shard: 1, replica }, &mut dice, running);
        }
        if !running() {
            break;
        }
        let node = |replica: u16| NodeName { shard: 1, replica };
        streaming(cluster, node(primary));
        // Half of them die with writes that no replica has.
        let senders = if dice.roll(2) == 0 { cut_off(cluster, node(primary)) } else { Vec::new() };
        lives.ends();
        cluster.servers().stop_node(node(primary), Stop::Kill).unwrap();
        for sender in senders {
            // A process that stands still does not notice that its server died.
            let _ = kill_process(sender, Signal::KILL);
        }
        if dice.roll(4) == 0 {
            cluster.servers().start_node(node(primary)).unwrap();
            ends.crashes += 1;
            account(cluster, primary, registers, lives, &mut ends);
            continue;
        }
        let next = if received(cluster, node(first)) >= received(cluster, node(second)) {
            (first, second)
        } else {
            (second, first)
        };
        cluster.servers().promote_node(node(next.0)).unwrap();
        ends.promotions += 1;
        account(cluster, next.0, registers, lives, &mut ends);
        // While it still follows the dead one it must not serve.
        chaos::rest(running, dice.roll(300));
        cluster.servers().follow_primary(node(next.1)).unwrap();
        chaos::rest(running, dice.roll(300));
        cluster.servers().rejoin_node(node(primary)).unwrap();
        primary = next.0;
    }
    ends
}

/// Holds what was acknowledged against what the new life has.
fn account(cluster: &Cluster, primary: u16, registers: i64, lives: &Lives, ends: &mut Ends) {
    let node = match primary {
        0 => cluster.primary(1),
        replica => cluster.replica(1, replica),
    };
    let sql =
        format!("SELECT value FROM registers WHERE tenant_id < {registers} ORDER BY tenant_id");
    let values = psql(&node.url, &sql).expect();
    let values: Vec<i64> = values.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(i64::try_from(values.len()).unwrap(), registers);
    let (lost, broken) = lives.begun(&values);
    ends.lost += lost;
    ends.broken += broken;
}

/// Lets the primary send nothing to its replicas while its clients go on for a
/// moment; returns the processes that stand still.
fn cut_off(cluster: &Cluster, primary: NodeName) -> Vec<Pid> {
    let pids = sql(cluster, primary, "SELECT pid FROM pg_stat_replication");
    let pids: Vec<Pid> =
        pids.lines().filter_map(|pid| Pid::from_raw(pid.parse().unwrap())).collect();
    for pid in &pids {
        kill_process(*pid, Signal::STOP).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    pids
}

/// Waits until both replicas have all that the primary has sent.
fn streaming(cluster: &Cluster, primary: NodeName) {
    wait_for("both replicas to stream", || {
        let count = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        sql(cluster, primary, count) == "2"
    });
}

/// How much of the log a replica has on disk.
fn received(cluster: &Cluster, replica: NodeName) -> u64 {
    let position =
        "SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::int8";
    sql(cluster, replica, position).parse().unwrap()
}

fn sql(cluster: &Cluster, node: NodeName, sql: &str) -> String {
    cluster.servers().superuser_sql(node, sql).unwrap()
}

/// How long the short form runs.
pub(crate) const SHORT: Duration = Duration::from_secs(15);
