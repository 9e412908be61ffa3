//! The state of the nodes as an immutable snapshot, and which replica may
//! serve a read.
//!
//! Decides from what the monitor published; knows no sockets, no map and no
//! statement. A snapshot is taken once per statement and never changes; the
//! monitor publishes a new one after every sample that changed something.
//! Rules for lag: a replica's lag in time is the age of the newest sample of
//! its primary's insert position that it has replayed. That needs no foreign
//! clock and stays right on an idle server.

mod choice;

pub use choice::{Choice, Passed, ReadReason};

use crate::types::{Consistency, Lsn, Millis, Moment, NodeId, Role, ShardId};

/// Whether a node answers the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not asked yet, or too few answers to say.
    Unknown,
    /// Answers.
    Up,
    /// Failed several times in a row.
    Down,
}

impl Health {
    /// The word that the console and the metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A node as the map declares it: what the snapshot needs of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The shard that it belongs to.
    pub shard: ShardId,
    /// The role that the map gives it.
    pub role: Role,
    /// Share of the shard's replica reads relative to its siblings; 0 = none.
    pub weight: u32,
}

/// How far a replica has replayed, as its last good sample showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The replica's replay position.
    pub lsn: Lsn,
    /// Bytes between the primary's newest known insert position and `lsn`.
    pub lag_bytes: u64,
    /// When the newest primary sample that the replica has replayed was begun;
    /// `None` while it has proven none of them.
    pub proven_at: Option<Moment>,
}

/// What the monitor knows of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// The node as declared.
    pub member: Member,
    /// Whether it answers.
    pub health: Health,
    /// The role that it showed itself; `None` before its first answer.
    pub role_seen: Option<Role>,
    /// A replica's progress; `None` for a primary and before the first answer.
    pub replay: Option<Replay>,
    /// A primary's newest insert position; `None` for a replica.
    pub insert_lsn: Option<Lsn>,
    /// When the newest successful sample was begun.
    pub sampled_at: Option<Moment>,
}

impl NodeState {
    /// A node that nobody has asked yet.
    pub const fn unknown(member: Member) -> Self {
        Self {
            member,
            health: Health::Unknown,
            role_seen: None,
            replay: None,
            insert_lsn: None,
            sampled_at: None,
        }
    }

    /// A replica's lag in time at `now`: everything acknowledged on the
    /// primary that long ago has been replayed. `None` if nothing is proven.
    pub fn lag_ms(&self, now: Moment) -> Option<Millis> {
        self.replay?.proven_at.map(|at| now.since(at))
    }

    /// A replica's lag in bytes as of its last sample.
    pub fn lag_bytes(&self) -> Option<u64> {
        self.replay.map(|replay| replay.lag_bytes)
    }

    /// Whether it showed the role that the map declares.
    pub fn plays_its_role(&self) -> bool {
        self.role_seen == Some(self.member.role)
    }
}

/// All nodes of a map at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Sorted by node, one entry each.
    nodes: Vec<NodeState>,
    /// Sorted by shard; replicas by node.
    shards: Vec<ShardNodes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ShardNodes {
    shard: ShardId,
    primary: Option<NodeId>,
    /// Positions in `Cluster::nodes`.
    replicas: Vec<usize>,
}

impl Cluster {
    /// The snapshot before any sample: every node's health is unknown.
    pub fn unknown(members: impl IntoIterator<Item = Member>) -> Self {
        Self::new(members.into_iter().map(NodeState::unknown).collect())
    }

    /// A snapshot of `nodes`; a node given twice counts once, first come.
    pub fn new(mut nodes: Vec<NodeState>) -> Self {
        nodes.sort_by_key(|state| state.member.node);
        nodes.dedup_by_key(|state| state.member.node);
        let mut shards: Vec<ShardNodes> = Vec::new();
        for (position, state) in nodes.iter().enumerate() {
            let shard = state.member.shard;
            let at = match shards.binary_search_by_key(&shard, |entry| entry.shard) {
                Ok(at) => at,
                Err(at) => {
                    shards.insert(at, ShardNodes { shard, primary: None, replicas: Vec::new() });
                    at
                }
            };
            let Some(entry) = shards.get_mut(at) else { continue };
            match state.member.role {
                Role::Primary => {
                    entry.primary.get_or_insert(state.member.node);
                }
                Role::Replica => entry.replicas.push(position),
            }
        }
        Self { nodes, shards }
    }

    /// What is known of `node`; `None` if the map has no such node.
    pub fn node(&self, node: NodeId) -> Option<&NodeState> {
        let at = self.nodes.binary_search_by_key(&node, |state| state.member.node).ok()?;
        self.nodes.get(at)
    }

    /// All nodes, by number.
    pub fn nodes(&self) -> &[NodeState] {
        &self.nodes
    }

    /// Health of `node`; `Unknown` if the map has no such node.
    pub fn health(&self, node: NodeId) -> Health {
        self.node(node).map_or(Health::Unknown, |state| state.health)
    }

    /// The shards, by number.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().map(|entry| entry.shard)
    }

    /// The declared primary of `shard`.
    pub fn primary_of(&self, shard: ShardId) -> Option<NodeId> {
        self.entry(shard)?.primary
    }

    /// Whether a connection to the replica `node` that was opened at `opened`
    /// certainly leads to the incarnation that the newest sample came from.
    ///
    /// A replica that crashed opens again at an older position before the
    /// monitor notices; only a connection that is older than the newest good
    /// sample is known not to end there. `bounded` reads need this, `any` not.
    pub fn vouches_for(&self, node: NodeId, opened: Moment) -> bool {
        self.node(node).and_then(|state| state.sampled_at).is_some_and(|at| opened < at)
    }

    /// The replica that serves a read of `shard` at `now`, or `None` for the
    /// primary. `tie` spreads reads over equals by weight: a counter or any
    /// number will do.
    pub fn replica_for(
        &self,
        shard: ShardId,
        consistency: Consistency,
        tie: u64,
        now: Moment,
    ) -> Option<NodeId> {
        self.choose(shard, consistency, tie, now).node()
    }

    fn entry(&self, shard: ShardId) -> Option<&ShardNodes> {
        let at = self.shards.binary_search_by_key(&shard, |entry| entry.shard).ok()?;
        self.shards.get(at)
    }
}
