//! The state of the nodes as an immutable snapshot, which replica may serve a
//! read, and the arithmetic of marks.
//!
//! Decides from what the monitor published; knows no sockets, no map and no
//! statement. A snapshot is taken once per statement and never changes; the
//! monitor publishes a new one after every sample that changed something.
//! Rules for lag: a replica's lag in time is the age of the newest sample of
//! its primary's insert position that it has replayed. That needs no foreign
//! clock and stays right on an idle server.

mod choice;
mod mark;
mod token;

pub use choice::{Choice, Passed, ReadReason, Wanted};
pub use mark::{Demand, Footprint, Mark, SampleNumber, SlotMark, SlotMarks, Word};
pub use token::TokenError;

use std::fmt;

use crate::types::{Lsn, Millis, Moment, NodeId, Role, ShardId};

/// How a node fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not asked yet, or too few answers to say.
    Unknown,
    /// Answers.
    Healthy,
    /// Answers, and is far behind its primary.
    Lagging,
    /// A sample or several clients' connections have failed lately: it serves
    /// what no other node can.
    Suspect,
    /// Failed several times in a row.
    Down,
}

impl Health {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Unknown, Self::Healthy, Self::Lagging, Self::Suspect, Self::Down];

    /// The word that the console and the metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Lagging => "lagging",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }

    /// True if nothing speaks against sending it work.
    pub const fn is_well(self) -> bool {
        match self {
            Self::Healthy | Self::Lagging => true,
            Self::Unknown | Self::Suspect | Self::Down => false,
        }
    }

    /// True if it may serve.
    pub const fn may_serve(self) -> bool {
        match self {
            Self::Healthy | Self::Lagging | Self::Suspect => true,
            Self::Unknown | Self::Down => false,
        }
    }
}

/// A node's circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breaker {
    /// Work goes there.
    Closed,
    /// Work goes elsewhere, if it can.
    Open,
    /// The same, while the monitor probes whether it may be closed.
    HalfOpen,
}

impl Breaker {
    /// The word that the console uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half open",
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
    /// It stands in the router's own zone: it comes before those that do not.
    pub near: bool,
}

/// How far a replica has replayed, as its last good sample showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The replica's replay position.
    pub lsn: Lsn,
    /// Bytes between the primary's newest known insert position and `lsn`.
    pub lag_bytes: u64,
    /// The newest primary sample that the replica has replayed; `None` while
    /// it has proven none of them.
    pub proven: Option<Proof>,
}

/// A sample of a primary that a replica has replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The sample's number.
    pub number: SampleNumber,
    /// When it was begun.
    pub begun: Moment,
}

/// One life of a shard's primary, by a name that no other has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineageId(u128);

impl LineageId {
    /// The lineage with this name.
    pub const fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// The name.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Which server process answers at a node: its connections end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// `system_identifier`; `None` where it may not be read.
    pub system: Option<u64>,
    /// The server's start, in microseconds of its own clock.
    pub started_us: i64,
}

impl Incarnation {
    /// True if both can be the same server process.
    pub fn agrees_with(self, other: Self) -> bool {
        let systems =
            self.system.is_none() || other.system.is_none() || self.system == other.system;
        systems && self.started_us == other.started_us
    }
}

/// Where a shard's writes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// To this node.
    Node(NodeId),
    /// Nowhere: several nodes say that they are the primary, and nobody who
    /// may has named one.
    Several,
    /// Nowhere: who says that it is the primary is not, by those who know.
    Unconfirmed,
    /// Nowhere yet: the last one is a replica now, and no other node has become
    /// the primary.
    Absent,
}

impl Writer {
    /// The node, if there is one.
    pub const fn node(self) -> Option<NodeId> {
        match self {
            Self::Node(node) => Some(node),
            Self::Several | Self::Unconfirmed | Self::Absent => None,
        }
    }
}

/// What the monitor knows of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// The node as declared.
    pub member: Member,
    /// How it fares.
    pub health: Health,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// The role that it showed itself; `None` before its first answer.
    pub role_seen: Option<Role>,
    /// A replica's progress; `None` for a primary and before the first answer.
    pub replay: Option<Replay>,
    /// The newest sample that a replica had proven before its primary fell
    /// silent; it stands until another life of a primary begins.
    pub kept: Option<Proof>,
    /// A primary's newest insert position; `None` for a replica.
    pub insert_lsn: Option<Lsn>,
    /// When the newest successful sample was begun.
    pub sampled_at: Option<Moment>,
    /// The server process that the newest successful sample came from.
    pub incarnation: Option<Incarnation>,
    /// Counts the changes of what `replay` belongs to: another process, or a
    /// time in which nobody watched.
    pub life: u32,
    /// How much of its weight counts, in parts of [`NodeState::WARM`]: one that
    /// has come back has its caches still to fill.
    pub warmth: u32,
}

impl NodeState {
    /// The warmth at which its whole weight counts.
    pub const WARM: u32 = 16;

    /// A node that nobody has asked yet.
    pub const fn unknown(member: Member) -> Self {
        Self {
            member,
            health: Health::Unknown,
            breaker: Breaker::Closed,
            role_seen: None,
            replay: None,
            kept: None,
            insert_lsn: None,
            sampled_at: None,
            incarnation: None,
            life: 0,
            warmth: Self::WARM,
        }
    }

    /// A replica's lag in time at `now`: everything acknowledged on the
    /// primary that long ago has been replayed. `None` if nothing is proven.
    pub fn lag_ms(&self, now: Moment) -> Option<Millis> {
        self.replay?.proven.map(|proof| now.since(proof.begun))
    }

    /// Its share of the reads, relative to its siblings.
    fn share(&self) -> u64 {
        u64::from(self.member.weight) * u64::from(self.warmth.clamp(1, Self::WARM))
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
    writer: Option<Writer>,
    lineage: Option<LineageId>,
    /// Positions in `Cluster::nodes`.
    nodes: Vec<usize>,
}

impl Cluster {
    /// The snapshot before any sample: every node's health is unknown.
    pub fn unknown(members: impl IntoIterator<Item = Member>) -> Self {
        Self::new(members.into_iter().map(NodeState::unknown).collect())
    }

    /// A snapshot of `nodes`, whose writers are the declared primaries; a node
    /// given twice counts once, first come.
    pub fn new(mut nodes: Vec<NodeState>) -> Self {
        nodes.sort_by_key(|state| state.member.node);
        nodes.dedup_by_key(|state| state.member.node);
        let mut shards: Vec<ShardNodes> = Vec::new();
        for (position, state) in nodes.iter().enumerate() {
            let shard = state.member.shard;
            let at = match shards.binary_search_by_key(&shard, |entry| entry.shard) {
                Ok(at) => at,
                Err(at) => {
                    let entry =
                        ShardNodes { shard, writer: None, lineage: None, nodes: Vec::new() };
                    shards.insert(at, entry);
                    at
                }
            };
            let Some(entry) = shards.get_mut(at) else { continue };
            entry.nodes.push(position);
            if state.member.role == Role::Primary && entry.writer.is_none() {
                entry.writer = Some(Writer::Node(state.member.node));
            }
        }
        Self { nodes, shards }
    }

    /// This snapshot with another writer and lineage of a shard.
    #[must_use]
    pub fn with_writer(
        mut self,
        shard: ShardId,
        writer: Writer,
        lineage: Option<LineageId>,
    ) -> Self {
        if let Some(entry) = self.shards.iter_mut().find(|entry| entry.shard == shard) {
            entry.writer = Some(writer);
            entry.lineage = lineage;
        }
        self
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

    /// Where the writes of `shard` go; `None` if the map has no such shard or
    /// declares no primary for it.
    pub fn writer_of(&self, shard: ShardId) -> Option<Writer> {
        self.entry(shard)?.writer
    }

    /// The node that gets the writes of `shard`.
    pub fn primary_of(&self, shard: ShardId) -> Option<NodeId> {
        self.writer_of(shard)?.node()
    }

    /// True if `shard` has no primary that answers, as far as is known.
    pub fn lacks_primary(&self, shard: ShardId) -> bool {
        let Some(entry) = self.entry(shard) else { return false };
        entry.lineage.is_none()
            && entry.writer.is_some_and(|writer| match writer {
                Writer::Node(node) => self.health(node) == Health::Down,
                Writer::Several | Writer::Unconfirmed | Writer::Absent => true,
            })
    }

    /// The present life of the shard's primary, if it is watched.
    pub fn lineage_of(&self, shard: ShardId) -> Option<LineageId> {
        self.entry(shard)?.lineage
    }

    /// True if a connection to `node` whose server said that it is
    /// `incarnation` leads to the server that is watched, as far as is known.
    pub fn is_watched(&self, node: NodeId, incarnation: Option<Incarnation>) -> bool {
        match (self.node(node).and_then(|state| state.incarnation), incarnation) {
            (Some(watched), Some(asked)) => watched.agrees_with(asked),
            (None, _) | (_, None) => true,
        }
    }

    /// Whether a connection to the replica `node` that was opened at `opened`
    /// certainly leads to the incarnation that the newest sample came from.
    ///
    /// A replica that crashed opens again at an older position before the
    /// monitor notices; only a connection that is older than the newest good
    /// sample is known not to end there. A server that restarts its children
    /// keeps its start time, so that alone would not tell. Every level but
    /// `any` needs this.
    pub fn vouches_for(&self, node: NodeId, opened: Moment) -> bool {
        self.node(node).and_then(|state| state.sampled_at).is_some_and(|at| opened < at)
    }

    fn entry(&self, shard: ShardId) -> Option<&ShardNodes> {
        let at = self.shards.binary_search_by_key(&shard, |entry| entry.shard).ok()?;
        self.shards.get(at)
    }
}
