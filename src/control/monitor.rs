//! Asks every node of a map how it is, and publishes the answers as a
//! [`Cluster`].
//!
//! One task and one connection per node, which the node's budget counts. What
//! an answer means is `health`'s to decide.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;

use super::sampler::{SampleError, Sampler};
use crate::cluster::{Cluster, Health, Member};
use crate::health::{Geometry, Thresholds, Watch};
use crate::net::clock;
use crate::types::{Consistency, Millis, NodeId, Role, Secret};

/// A node and how to log in there.
#[derive(Clone, Debug)]
pub struct Target {
    /// The node.
    pub member: Member,
    /// Its name in the log: database, shard and address.
    pub name: String,
    /// Host name, address, or absolute folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The database there.
    pub dbname: String,
    /// The role to log in as.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// TLS; `None` never encrypts.
    pub tls: Option<Arc<ClientConfig>>,
    /// A node that declines TLS counts as down.
    pub tls_required: bool,
}

impl Target {
    /// Whether the map says that it is a shard's primary.
    pub const fn is_primary(&self) -> bool {
        match self.member.role {
            Role::Primary => true,
            Role::Replica => false,
        }
    }
}

/// How often and how patiently nodes are asked.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Time between two samples of a node.
    pub interval: Millis,
    /// A sample that takes longer has failed.
    pub deadline: Millis,
    /// A connection attempt that takes longer has failed.
    pub connect: Millis,
    /// First wait after a connection attempt failed.
    pub reconnect_min: Millis,
    /// Longest wait between connection attempts.
    pub reconnect_max: Millis,
    /// Answers in a row that change a verdict.
    pub thresholds: Thresholds,
}

impl Rhythm {
    /// The rhythm that reads under `consistency` need: a bound in time needs
    /// several proofs within it.
    pub fn for_reads(
        consistency: Consistency,
        connect: Millis,
        reconnect: (Millis, Millis),
    ) -> Self {
        let interval = match consistency {
            Consistency::Primary | Consistency::Any => INTERVAL_MS,
            Consistency::Bounded(limit) => {
                (limit.count() / PROOFS_PER_BOUND).clamp(INTERVAL_MS_MIN, INTERVAL_MS)
            }
        };
        Self {
            interval: Millis::new(interval),
            deadline: Millis::new(DEADLINE_MS),
            connect,
            reconnect_min: reconnect.0,
            reconnect_max: reconnect.1,
            thresholds: Thresholds::default(),
        }
    }
}

/// Takes each new snapshot; must not block.
pub type Publish = Arc<dyn Fn(Arc<Cluster>) + Send + Sync>;

/// The monitor's tasks; dropping it ends them and their connections.
#[derive(Debug)]
pub struct Monitor {
    _tasks: JoinSet<()>,
}

impl Monitor {
    /// Starts watching `targets` on the current runtime.
    pub fn start(targets: Vec<Target>, rhythm: Rhythm, publish: Publish) -> Self {
        let members = targets.iter().map(|target| target.member);
        let watch = Watch::new(members, rhythm.thresholds);
        let (sampled, _) = watch::channel(None);
        let board = Arc::new(Board { watch: Mutex::new(watch), sampled, publish });
        let mut tasks = JoinSet::new();
        for target in targets {
            tasks.spawn(follow(target, rhythm, Arc::clone(&board)));
        }
        Self { _tasks: tasks }
    }
}

/// What the tasks of one map share.
struct Board {
    watch: Mutex<Watch>,
    /// The primary that answered last; its replicas are asked right after.
    sampled: watch::Sender<Option<NodeId>>,
    publish: Publish,
}

impl Board {
    fn watch(&self) -> MutexGuard<'_, Watch> {
        // Each step leaves the watch whole, so a panic elsewhere did not harm it.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let cluster = self.watch().cluster();
        (self.publish)(Arc::new(cluster));
    }

    fn health(&self, node: NodeId) -> Health {
        self.watch().health(node)
    }
}

/// Samples one node for ever, over one connection after the other.
async fn follow(target: Target, rhythm: Rhythm, board: Arc<Board>) {
    let node = target.member.node;
    let mut failures: u32 = 0;
    let mut connection: u64 = 0;
    loop {
        connection += 1;
        let ticket = board.watch().begin(node, clock::now());
        match Sampler::connect(&target, connection, clock::duration(rhythm.connect)).await {
            Ok((sampler, geometry)) => {
                failures = 0;
                let error = stay(&target, rhythm, &board, sampler, geometry).await;
                note(&target, &board, &error);
                board.watch().disconnected(node);
            }
            Err(error) => {
                board.watch().failed(ticket);
                if failures == 0 {
                    note(&target, &board, &error);
                }
            }
        }
        board.publish();
        tokio::time::sleep(backoff(rhythm, failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Samples over one connection until it fails.
async fn stay(
    target: &Target,
    rhythm: Rhythm,
    board: &Board,
    sampler: Sampler,
    geometry: Geometry,
) -> SampleError {
    let node = target.member.node;
    board.watch().geometry(node, geometry);
    let mut sampled = board.sampled.subscribe();
    let mut timer = tokio::time::interval(clock::duration(rhythm.interval));
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        match target.member.role {
            Role::Primary => {
                timer.tick().await;
            }
            Role::Replica => wait_for_primary(&mut sampled, rhythm).await,
        }
        let before = board.health(node);
        let ticket = board.watch().begin(node, clock::now());
        match sampler.sample(clock::duration(rhythm.deadline)).await {
            Ok(answer) => board.watch().answered(ticket, answer),
            Err(error) => {
                board.watch().failed(ticket);
                return error;
            }
        }
        let after = board.health(node);
        if after != before {
            tracing::info!(node = %target.name, health = after.as_str(), "node");
        }
        match target.member.role {
            Role::Primary => {
                board.sampled.send_replace(Some(node));
                if after != before {
                    board.publish();
                }
            }
            Role::Replica => board.publish(),
        }
    }
}

/// Waits until a primary has answered and its answer has had time to be
/// replayed: asked then, a replica proves the newest sample. Without a primary
/// the replica is asked at the usual interval.
///
/// Any primary of the map wakes all its replicas; one sample too many costs
/// less than a channel for each shard.
async fn wait_for_primary(sampled: &mut watch::Receiver<Option<NodeId>>, rhythm: Rhythm) {
    let interval = clock::duration(rhythm.interval);
    // The sender lives as long as the tasks: an error can't come.
    let _ = tokio::time::timeout(interval + interval / 2, sampled.changed()).await;
    tokio::time::sleep(REPLAY_TIME).await;
    sampled.mark_unchanged();
}

fn note(target: &Target, board: &Board, error: &SampleError) {
    let health = board.health(target.member.node);
    tracing::warn!(node = %target.name, health = health.as_str(), %error, "node does not answer");
}

/// Wait before connection attempt `failures` + 1: doubled each time, and up to
/// a quarter shorter, so that the routers of a fleet don't knock together.
fn backoff(rhythm: Rhythm, failures: u32) -> Duration {
    let (min, max) = (rhythm.reconnect_min.count(), rhythm.reconnect_max.count());
    let wait = min.saturating_mul(1_u64.checked_shl(failures.min(32)).unwrap_or(u64::MAX)).min(max);
    let mut dice = [0_u8; 1];
    // Without randomness the wait is only less spread.
    let _ = getrandom::fill(&mut dice);
    let [dice] = dice;
    Duration::from_millis(wait - wait / 4 * u64::from(dice) / 255)
}

/// Time between samples where reads set no bound.
const INTERVAL_MS: u64 = 250;
/// Below this nothing is gained; the replay itself takes a few milliseconds.
const INTERVAL_MS_MIN: u64 = 10;
/// How many samples fit into a bound on the lag.
const PROOFS_PER_BOUND: u64 = 4;
/// A sample that takes longer has failed.
const DEADLINE_MS: u64 = 500;
/// What a replica usually needs to replay what the primary just wrote.
const REPLAY_TIME: Duration = Duration::from_millis(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn rhythm(consistency: Consistency) -> Rhythm {
        Rhythm::for_reads(consistency, Millis::new(1), (Millis::new(100), Millis::new(10_000)))
    }

    #[test]
    fn a_bound_on_the_lag_makes_samples_more_frequent() {
        let interval = |consistency| rhythm(consistency).interval.count();
        assert_eq!(interval(Consistency::Any), 250);
        assert_eq!(interval(Consistency::Bounded(Millis::new(100))), 25);
        assert_eq!(interval(Consistency::Bounded(Millis::new(1))), 10);
        assert_eq!(interval(Consistency::Bounded(Millis::new(60_000))), 250);
    }

    #[test]
    fn waits_double_and_have_a_limit() {
        let rhythm = rhythm(Consistency::Any);
        for (failures, least, most) in [(0, 75, 100), (1, 150, 200), (40, 7_500, 10_000)] {
            let wait = u64::try_from(backoff(rhythm, failures).as_millis()).unwrap();
            assert!((least..=most).contains(&wait), "{failures}: {wait}");
        }
    }
}
