//! What happens to replicas: replay that pauses or lags, restarts, crashes.

use std::time::Duration;

use keyway::local::{NodeName, Stop};

use super::registers::Dice;
use super::support::cluster::Cluster;

/// Does one thing after the other to the replicas of shard 1 until the run is
/// over, then makes them whole.
pub(crate) fn on_replicas(cluster: &Cluster, seed: u64, running: &dyn Fn() -> bool) {
    let mut dice = Dice(seed | 1);
    // What is sampled first is a quiet shard.
    rest(running, 1_000);
    while running() {
        let node = NodeName { shard: 1, replica: 1 + u16::try_from(dice.roll(2)).unwrap() };
        strike(cluster, node, &mut dice, running);
    }
}

/// Does one thing to a replica, makes it whole, and lets it rest.
pub(crate) fn strike(
    cluster: &Cluster,
    node: NodeName,
    dice: &mut Dice,
    running: &dyn Fn() -> bool,
) {
    match dice.roll(5) {
        0 | 1 => {
            sql(cluster, node, "SELECT pg_wal_replay_pause()");
            rest(running, 700);
            sql(cluster, node, "SELECT pg_wal_replay_resume()");
        }
        2 => {
            delay(cluster, node, "250ms");
            rest(running, 900);
            delay(cluster, node, "0");
        }
        3 => restart(cluster, node, Stop::Fast),
        _ => restart(cluster, node, Stop::Immediate),
    }
    rest(running, 200 + dice.roll(500));
}

fn restart(cluster: &Cluster, node: NodeName, stop: Stop) {
    let mut servers = cluster.servers();
    servers.stop_node(node, stop).unwrap();
    servers.start_node(node).unwrap();
}

fn delay(cluster: &Cluster, node: NodeName, delay: &str) {
    sql(cluster, node, &format!("ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'"));
    sql(cluster, node, "SELECT pg_reload_conf()");
}

fn sql(cluster: &Cluster, node: NodeName, sql: &str) {
    cluster.servers().superuser_sql(node, sql).unwrap();
}

/// Sleeps, but not past the run's end.
pub(crate) fn rest(running: &dyn Fn() -> bool, ms: u64) {
    for _ in 0..ms / 20 {
        if !running() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
