//! Asks every node of a map how it is, and publishes the answers as a
//! [`Cluster`].
//!
//! One task and one connection per node, which the node's budget counts. What
//! an answer means is `health`'s to decide; `follow` has the tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;

use super::follow::follow;
use super::patroni::vouch;
use crate::cluster::{Cluster, LineageId, Member, SampleNumber, Writer};
use crate::config::UrlTemplate;
use crate::engine::Marks;
use crate::health::{Authority, NotNamed, Thresholds, Watch};
use crate::net::clock;
use crate::types::{Consistency, Millis, NodeId, Role, Secret, ShardId};

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
    /// As whom the monitor logs in by now, where that is written down.
    pub credentials: Credentials,
}

/// As whom the control plane logs in at each node now, by the node's name: a
/// reload may say otherwise than what a task was started with.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Mutex<LoginByNode>>);

type LoginByNode = HashMap<String, (String, Option<Secret>)>;

impl Credentials {
    /// From here on the node is logged in at as `target` says.
    pub fn note(&self, target: &Target) {
        let login = (target.user.clone(), target.password.clone());
        self.all().insert(target.name.clone(), login);
    }

    fn all(&self) -> MutexGuard<'_, LoginByNode> {
        // Each step leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    /// The same, to be logged in at as the last reload says.
    pub(super) fn of_now(&self) -> Self {
        let known = self.credentials.all().get(&self.name).cloned();
        let (user, password) = known.unwrap_or_else(|| (self.user.clone(), self.password.clone()));
        Self { user, password, ..self.clone() }
    }

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
    /// Time between two samples of a node when nobody waits for one.
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
    /// Who says which of two primaries is the right one.
    pub authority: Authority,
}

impl Rhythm {
    /// The rhythm that reads under `consistency` need: a bound in time needs
    /// several proofs within it, marks ask for samples themselves.
    pub fn for_reads(
        consistency: Consistency,
        connect: Millis,
        reconnect: (Millis, Millis),
    ) -> Self {
        let interval = match consistency {
            Consistency::Primary | Consistency::Session | Consistency::Slot | Consistency::Any => {
                INTERVAL_MS
            }
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
            authority: Authority::default(),
        }
    }
}

/// Takes each new snapshot; must not block.
pub type Publish = Arc<dyn Fn(Arc<Cluster>) + Send + Sync>;

/// The monitor's tasks; dropping it ends them and their connections.
pub struct Monitor {
    _tasks: JoinSet<()>,
    board: Arc<Board>,
}

impl Monitor {
    /// Starts watching `targets` on the current runtime; `patroni` says where
    /// a node's is asked, should that be the authority.
    pub fn start(
        targets: Vec<Target>,
        rhythm: Rhythm,
        patroni: &UrlTemplate,
        marks: Arc<Marks>,
        publish: Publish,
    ) -> Self {
        let members = targets.iter().map(|target| target.member);
        let mut names = [0_u8; 16];
        // Two routers whose markers have one name would trust each other's
        // replicas: without randomness this one's are of its own start.
        if getrandom::fill(&mut names).is_err() {
            names =
                (u128::from(clock::now_us()) << 64 | u128::from(std::process::id())).to_ne_bytes();
        }
        let names = u128::from_ne_bytes(names);
        let watch = Watch::new(members, rhythm.thresholds, rhythm.authority, names);
        let (sampled, _) = watch::channel(SampleNumber::NONE);
        let board = Arc::new(Board { watch: Mutex::new(watch), marks, sampled, publish });
        let mut tasks = JoinSet::new();
        for target in targets {
            if rhythm.authority == Authority::Patroni {
                let url = patroni.of(&target.host, target.port);
                tasks.spawn(vouch(target.clone(), url, rhythm, Arc::clone(&board)));
            }
            tasks.spawn(follow(target, rhythm, Arc::clone(&board)));
        }
        Self { _tasks: tasks, board }
    }

    /// An operator names `node` as its shard's primary, should several nodes
    /// say that they are.
    ///
    /// # Errors
    /// Another authority than the console decides, or there is no such node.
    pub fn name_primary(&self, node: NodeId) -> Result<(), NotNamed> {
        self.board.watch().name(node)?;
        self.board.publish();
        Ok(())
    }
}

/// What the tasks of one map share.
pub(super) struct Board {
    watch: Mutex<Watch>,
    pub(super) marks: Arc<Marks>,
    /// The newest sample of a primary that was answered: its replicas are
    /// asked right after.
    pub(super) sampled: watch::Sender<SampleNumber>,
    publish: Publish,
}

/// What of a node or its shard the engine must hear of at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) health: crate::cluster::Health,
    pub(super) writer: Option<Writer>,
    pub(super) lineage: Option<LineageId>,
    pub(super) role: Option<crate::types::Role>,
}

impl Board {
    pub(super) fn watch(&self) -> MutexGuard<'_, Watch> {
        // Each step leaves the watch whole, so a panic elsewhere did not harm it.
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn publish(&self) {
        let cluster = self.watch().cluster();
        (self.publish)(Arc::new(cluster));
    }

    /// Writes into the log what has changed of a node, and of its shard.
    pub(super) fn tell(&self, target: &Target, before: Headline, after: Headline) {
        let (name, node) = (&target.name, target.member.node);
        if after.health != before.health {
            tracing::info!(node = %name, health = after.health.as_str(), "node");
        }
        if after.writer != before.writer {
            match after.writer {
                Some(Writer::Several) => tracing::error!(
                    node = %name,
                    "several nodes of the shard are primaries: writes stop until all but one \
                     are gone, or nodes.authority names the right one"
                ),
                Some(Writer::Unconfirmed) => tracing::error!(
                    node = %name,
                    "the shard's primary is not the leader by its Patroni: writes stop"
                ),
                Some(Writer::Absent) => tracing::warn!(
                    node = %name,
                    "the shard's primary is a replica now: writes wait for another one"
                ),
                Some(Writer::Node(writer)) if writer == node => {
                    tracing::warn!(node = %name, "is the shard's primary now: writes go there");
                }
                Some(Writer::Node(_)) | None => {
                    tracing::warn!(node = %name, "another node is the shard's primary now");
                }
            }
        }
        if after.lineage != before.lineage && after.lineage.is_some() {
            tracing::info!(
                node = %name,
                "a new life of the shard's primary: replicas prove themselves anew"
            );
        }
    }

    pub(super) fn headline(&self, node: NodeId, shard: ShardId) -> Headline {
        let watch = self.watch();
        Headline {
            health: watch.health(node),
            writer: watch.writer(shard),
            lineage: watch.lineage_id(shard),
            role: watch.role_seen(node),
        }
    }
}

/// Time between samples where reads set no bound.
const INTERVAL_MS: u64 = 250;
/// Below this nothing is gained; the replay itself takes a few milliseconds.
const INTERVAL_MS_MIN: u64 = 10;
/// How many samples fit into a bound on the lag.
const PROOFS_PER_BOUND: u64 = 4;
/// A sample that takes longer has failed.
const DEADLINE_MS: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_on_the_lag_makes_samples_more_frequent() {
        let interval = |consistency| {
            let reconnect = (Millis::new(100), Millis::new(10_000));
            Rhythm::for_reads(consistency, Millis::new(1), reconnect).interval.count()
        };
        assert_eq!(interval(Consistency::Any), 250);
        assert_eq!(interval(Consistency::Slot), 250);
        assert_eq!(interval(Consistency::Bounded(Millis::new(100))), 25);
        assert_eq!(interval(Consistency::Bounded(Millis::new(1))), 10);
        assert_eq!(interval(Consistency::Bounded(Millis::new(60_000))), 250);
    }
}
