//! All nodes under watch: samples in, cluster snapshot out.

use std::collections::BTreeMap;

use super::authority::{Claim, settle};
use super::{Authority, Condition, Geometry, Life, Lineage, Over, Thresholds, Voucher};
use crate::cluster::{
    Cluster, Health, Incarnation, LineageId, Member, NodeState, Proof, Replay, SampleNumber, Writer,
};
use crate::types::{Lsn, Millis, Moment, NodeId, Role, ShardId};

/// A sample that has been begun; hand it back with the answer.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    node: NodeId,
    proof: Proof,
}

/// Which server, and which life of it, answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `system_identifier`; `None` where the monitor may not read it.
    pub system: Option<u64>,
    /// The server's start, in microseconds of its own clock.
    pub started_us: i64,
    /// Which of the monitor's connections to this node, counted.
    pub connection: u64,
}

/// What a node said about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is not in recovery.
    Primary {
        /// Which server this is.
        identity: Identity,
        /// Its timeline.
        timeline: u32,
        /// `pg_current_wal_insert_lsn()`.
        insert: Lsn,
        /// `pg_current_wal_flush_lsn()`.
        flushed: Lsn,
    },
    /// It is in recovery.
    Replica {
        /// Which server this is.
        identity: Identity,
        /// `pg_last_wal_replay_lsn()`; `None` before it has replayed anything.
        replay: Option<Lsn>,
    },
}

/// A question to the Patroni of a node that shows itself as a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    node: NodeId,
    life: u32,
}

/// Everything that the monitor remembers.
#[derive(Clone, Debug)]
pub struct Watch {
    thresholds: Thresholds,
    authority: Authority,
    nodes: BTreeMap<NodeId, Watched>,
    shards: BTreeMap<ShardId, Watching>,
    /// Names of lineages: a number that no other watch has, and a count.
    names: u128,
}

#[derive(Clone, Debug)]
struct Watched {
    state: NodeState,
    condition: Condition,
    identity: Option<Identity>,
    /// When the present identity was first seen.
    since: Moment,
    /// When it came back from where it served nothing.
    back: Moment,
    voucher: Voucher,
    geometry: Geometry,
    /// The lineage whose marker this incarnation has shown.
    shown: Option<LineageId>,
}

/// A shard's primary, as far as it is known.
#[derive(Clone, Debug)]
struct Watching {
    declared: Option<NodeId>,
    /// Who an operator named last.
    named: Option<NodeId>,
    writer: Option<Writer>,
    lineage: Option<Lineage>,
}

impl Watch {
    /// Watches `members`, of which nothing is known yet. `names` is a random
    /// number: lineages are named after it.
    pub fn new(
        members: impl IntoIterator<Item = Member>,
        thresholds: Thresholds,
        authority: Authority,
        names: u128,
    ) -> Self {
        let mut watch =
            Self { thresholds, authority, nodes: BTreeMap::new(), shards: BTreeMap::new(), names };
        for member in members {
            let shard = watch.shards.entry(member.shard).or_insert(Watching {
                declared: None,
                named: None,
                writer: None,
                lineage: None,
            });
            if member.role == Role::Primary && shard.declared.is_none() {
                shard.declared = Some(member.node);
                shard.writer = Some(Writer::Node(member.node));
            }
            watch.nodes.insert(
                member.node,
                Watched {
                    state: NodeState::unknown(member),
                    condition: Condition::UNKNOWN,
                    identity: None,
                    since: Moment::START,
                    back: Moment::START,
                    voucher: Voucher::Silent,
                    geometry: Geometry::default(),
                    shown: None,
                },
            );
        }
        watch
    }

    /// The node's WAL geometry, once the monitor has asked for it.
    pub fn geometry(&mut self, node: NodeId, geometry: Geometry) {
        if let Some(watched) = self.nodes.get_mut(&node) {
            watched.geometry = geometry;
        }
    }

    /// Begins a sample of `node`; `number` was counted, and this called,
    /// before the request is sent.
    pub fn begin(&self, node: NodeId, number: SampleNumber, now: Moment) -> Ticket {
        Ticket { node, proof: Proof { number, begun: now } }
    }

    /// Takes a node's answer.
    pub fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(watched) = self.nodes.get_mut(&ticket.node) else { return };
        let now = ticket.proof.begun;
        watched.state.sampled_at = Some(now);
        let shard = watched.state.member.shard;
        match answer {
            Answer::Primary { identity, timeline, insert, flushed } => {
                let over = watched.identify(identity, now);
                watched.condition.answered(now, over, &self.thresholds);
                watched.condition.leads();
                watched.publish_condition();
                watched.show_role(Role::Primary);
                // A promoted replica has forked: what it replayed proves nothing.
                watched.drop_proof();
                let insert = watched.geometry.normalise(insert);
                let flushed = watched.geometry.normalise(flushed);
                watched.state.insert_lsn = Some(insert);
                self.settle_writer(shard);
                let life = Life { leader: ticket.node, identity, timeline };
                self.advance(shard, life, ticket.proof, (insert, flushed));
            }
            Answer::Replica { identity, replay } => {
                let over = watched.identify(identity, now);
                let served = watched.state.health.may_serve();
                watched.condition.answered(now, over, &self.thresholds);
                watched.publish_condition();
                watched.warm_up(served, now);
                watched.show_role(Role::Replica);
                watched.state.insert_lsn = None;
                self.settle_writer(shard);
                self.prove(ticket.node, replay);
                self.judge_lag(ticket.node, now);
            }
        }
    }

    /// Takes note that `ticket` got no answer in time, or an error.
    pub fn failed(&mut self, ticket: Ticket) {
        let Some(watched) = self.nodes.get_mut(&ticket.node) else { return };
        watched.condition.failed(ticket.proof.begun, &self.thresholds);
        watched.publish_condition();
        if watched.state.health == Health::Down {
            watched.drop_proof();
            watched.state.insert_lsn = None;
        }
    }

    // === the breaker ===

    /// A client's connection to `node` could not be made, or broke.
    pub fn struck(&mut self, node: NodeId, now: Moment) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        watched.condition.struck(now, &self.thresholds);
        watched.publish_condition();
    }

    /// True if the monitor should knock at `node` with a connection of its own
    /// now.
    pub fn wants_probe(&self, node: NodeId, now: Moment) -> bool {
        self.nodes.get(&node).is_some_and(|watched| watched.condition.wants_probe(now))
    }

    /// What came of that.
    pub fn probed(&mut self, node: NodeId, now: Moment, outcome: Probe) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        match outcome {
            Probe::Answered => {
                watched.condition.answered(now, Over::FreshConnection, &self.thresholds);
            }
            Probe::Failed => watched.condition.failed(now, &self.thresholds),
        }
        watched.publish_condition();
    }

    // === the authority ===

    /// What to ask the Patroni of `node`: whether it leads, as it says.
    pub fn question(&self, node: NodeId) -> Option<Question> {
        let watched = self.nodes.get(&node)?;
        let claims = watched.state.role_seen == Some(Role::Primary);
        (claims && self.authority == Authority::Patroni)
            .then_some(Question { node, life: watched.state.life })
    }

    /// The Patroni has answered, or has not.
    pub fn vouched(&mut self, question: Question, voucher: Voucher) {
        let Some(watched) = self.nodes.get_mut(&question.node) else { return };
        let same =
            watched.state.life == question.life && watched.state.role_seen == Some(Role::Primary);
        if same && watched.voucher != voucher {
            watched.voucher = voucher;
            let shard = watched.state.member.shard;
            self.settle_writer(shard);
        }
    }

    /// An operator names `node` as the primary of its shard, should several
    /// nodes say that they are.
    ///
    /// # Errors
    /// Another authority than the console decides, or there is no such node.
    pub fn name(&mut self, node: NodeId) -> Result<(), NotNamed> {
        if self.authority != Authority::Console {
            return Err(NotNamed::OtherAuthority);
        }
        let shard = self.nodes.get(&node).map(|watched| watched.state.member.shard);
        let watching = shard.and_then(|shard| self.shards.get_mut(&shard));
        watching.ok_or(NotNamed::NoSuchNode)?.named = Some(node);
        if let Some(shard) = shard {
            self.settle_writer(shard);
        }
        Ok(())
    }

    /// Takes note that the monitor's connection to `node` is gone: a primary
    /// may come back as another life, a replica at an older position, and
    /// either in the other role.
    pub fn disconnected(&mut self, node: NodeId) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        watched.identity = None;
        watched.state.incarnation = None;
        watched.state.role_seen = None;
        watched.state.life = watched.state.life.wrapping_add(1);
        watched.state.kept = None;
        watched.shown = None;
        watched.voucher = Voucher::Silent;
        watched.drop_proof();
        let shard = watched.state.member.shard;
        if self.lineage(shard).is_some_and(|lineage| lineage.leader() == node) {
            self.end_life(shard);
        }
        self.settle_writer(shard);
    }

    // === markers ===

    /// The marker that `node` should write: it leads a lineage that has
    /// replicas and no marker yet.
    pub fn unmarked(&self, node: NodeId) -> Option<LineageId> {
        let shard = self.nodes.get(&node)?.state.member.shard;
        let lineage = self.lineage(shard).filter(|lineage| lineage.leader() == node)?;
        let replicated = self
            .nodes
            .values()
            .any(|other| other.state.member.shard == shard && other.state.member.node != node);
        (replicated && !lineage.is_marked()).then(|| lineage.id())
    }

    /// `node` has this marker on disk.
    pub fn marked(&mut self, node: NodeId, id: LineageId) {
        let Some(shard) = self.nodes.get(&node).map(|w| w.state.member.shard) else { return };
        let lineage = self.shards.get_mut(&shard).and_then(|s| s.lineage.as_mut());
        if let Some(lineage) = lineage.filter(|l| l.leader() == node && l.id() == id) {
            lineage.mark();
        }
    }

    /// The marker that the replica `node` still has to show.
    pub fn unshown(&self, node: NodeId) -> Option<LineageId> {
        let watched = self.nodes.get(&node)?;
        let lineage = self.lineage(watched.state.member.shard)?;
        let asked = lineage.is_marked()
            && lineage.leader() != node
            && watched.state.role_seen == Some(Role::Replica)
            && watched.shown != Some(lineage.id());
        asked.then(|| lineage.id())
    }

    /// The replica `node` has shown this marker over the monitor's connection
    /// number `connection`.
    pub fn shown(&mut self, node: NodeId, id: LineageId, connection: u64) {
        if let Some(watched) = self.nodes.get_mut(&node)
            && watched.identity.is_some_and(|identity| identity.connection == connection)
        {
            watched.shown = Some(id);
        }
    }

    // === what is known ===

    /// The present verdict on `node`; `Unknown` if it is not watched.
    pub fn health(&self, node: NodeId) -> Health {
        self.nodes.get(&node).map_or(Health::Unknown, |watched| watched.condition.health())
    }

    /// The role that `node` showed last over the present connection.
    pub fn role_seen(&self, node: NodeId) -> Option<Role> {
        self.nodes.get(&node)?.state.role_seen
    }

    /// True if `node` leads its shard's lineage.
    pub fn is_leader(&self, node: NodeId) -> bool {
        let shard = self.nodes.get(&node).map(|watched| watched.state.member.shard);
        shard.and_then(|shard| self.lineage(shard)).is_some_and(|lineage| lineage.leader() == node)
    }

    /// True if no node of `shard` is known to be a primary at this moment.
    pub fn is_headless(&self, shard: ShardId) -> bool {
        self.lineage(shard).is_none()
    }

    /// What `node` has proven.
    pub fn proven(&self, node: NodeId) -> Option<SampleNumber> {
        Some(self.nodes.get(&node)?.state.replay?.proven?.number)
    }

    /// True if the newest sample of `shard`'s primary stands past what it has
    /// flushed, which keeps every replica from proving it.
    pub fn has_unflushed_tail(&self, shard: ShardId) -> bool {
        self.lineage(shard).is_some_and(Lineage::has_unflushed_tail)
    }

    /// Where `shard`'s writes go.
    pub fn writer(&self, shard: ShardId) -> Option<Writer> {
        self.shards.get(&shard)?.writer
    }

    /// The present life of `shard`'s primary.
    pub fn lineage_id(&self, shard: ShardId) -> Option<LineageId> {
        self.lineage(shard).map(Lineage::id)
    }

    /// The snapshot as things stand.
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(self.nodes.values().map(|watched| watched.state).collect());
        for (shard, watching) in &self.shards {
            if let Some(writer) = watching.writer {
                let lineage = watching.lineage.as_ref().map(Lineage::id);
                cluster = cluster.with_writer(*shard, writer, lineage);
            }
        }
        cluster
    }

    fn lineage(&self, shard: ShardId) -> Option<&Lineage> {
        self.shards.get(&shard)?.lineage.as_ref()
    }

    // === judgement ===

    /// Where writes go, now that a node has shown a role or has fallen silent.
    /// Silence changes nothing: the last known writer stays it until another
    /// node shows itself as the primary, or it shows itself as a replica.
    fn settle_writer(&mut self, shard: ShardId) {
        let here = |watched: &&Watched| watched.state.member.shard == shard;
        let claims: Vec<Claim> = self
            .nodes
            .values()
            .filter(here)
            .filter(|watched| {
                watched.state.role_seen == Some(Role::Primary)
                    && watched.state.health != Health::Down
            })
            .map(|w| Claim { node: w.state.member.node, voucher: w.voucher })
            .collect();
        let Some(watching) = self.shards.get_mut(&shard) else { return };
        let named = match self.authority {
            Authority::Nobody | Authority::Patroni => None,
            Authority::Map => watching.declared,
            Authority::Console => watching.named,
        };
        let serves_as_replica = |node: &NodeId| {
            self.nodes.get(node).is_some_and(|w| w.state.role_seen == Some(Role::Replica))
        };
        let writer = settle(&claims, named).or(match watching.writer {
            Some(Writer::Several | Writer::Unconfirmed) => watching.declared.map(Writer::Node),
            other => other,
        });
        // Where there is no other node, what is asked can only be meant for it.
        let alone = self.nodes.values().filter(here).nth(1).is_none();
        let writer = match writer {
            Some(Writer::Node(node)) if !alone && serves_as_replica(&node) => Some(Writer::Absent),
            other => other,
        };
        watching.writer = writer;
        let leads = watching
            .lineage
            .as_ref()
            .is_none_or(|lineage| writer == Some(Writer::Node(lineage.leader())));
        if !leads {
            self.end_life(shard);
        }
    }

    fn advance(&mut self, shard: ShardId, life: Life, proof: Proof, (insert, flushed): (Lsn, Lsn)) {
        let Some(watching) = self.shards.get_mut(&shard) else { return };
        if watching.writer != Some(Writer::Node(life.leader)) {
            return;
        }
        if let Some(lineage) = watching.lineage.as_mut().filter(|lineage| lineage.is_of(&life))
            && lineage.record(proof, insert, flushed).is_ok()
        {
            return;
        }
        self.end_life(shard);
        // What was proven of the life before may be gone in this one.
        for watched in self.nodes.values_mut().filter(|w| w.state.member.shard == shard) {
            watched.state.kept = None;
        }
        self.names = self.names.wrapping_add(1);
        let mut lineage = Lineage::new(LineageId::new(self.names), life);
        // Without samples the position can't have fallen.
        let recorded = lineage.record(proof, insert, flushed);
        debug_assert!(recorded.is_ok(), "the first sample of a lineage is kept");
        if let Some(watching) = self.shards.get_mut(&shard) {
            watching.lineage = Some(lineage);
        }
    }

    /// Ends the life of `shard`'s primary: nothing that was proven holds.
    fn end_life(&mut self, shard: ShardId) {
        if let Some(watching) = self.shards.get_mut(&shard) {
            watching.lineage = None;
        }
        for watched in self.nodes.values_mut().filter(|w| w.state.member.shard == shard) {
            watched.drop_proof();
            watched.shown = None;
        }
    }

    fn prove(&mut self, node: NodeId, replay: Option<Lsn>) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        let Some(replay) = replay else {
            watched.state.replay = None;
            return;
        };
        let lineage = self.shards.get(&watched.state.member.shard).and_then(|s| s.lineage.as_ref());
        // Positions compare only with those of the lineage that it follows.
        let kin = lineage.filter(|lineage| {
            watched.shown == Some(lineage.id()) && lineage.is_kin(watched.identity)
        });
        let standing = kin.map(|lineage| lineage.standing(replay, watched.geometry));
        let before = watched.state.replay.and_then(|replay| replay.proven);
        let proven = later(standing.and_then(|standing| standing.proof), before);
        watched.state.replay = Some(Replay {
            lsn: replay,
            lag_bytes: standing.map_or(0, |standing| standing.lag_bytes),
            proven,
        });
        watched.state.kept = proven.or(watched.state.kept);
    }

    /// How far the replica is behind: what has proven nothing is so since
    /// there was something to prove.
    fn judge_lag(&mut self, node: NodeId, now: Moment) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        let lineage = self.shards.get(&watched.state.member.shard).and_then(|s| s.lineage.as_ref());
        let Some(begun) = lineage.and_then(Lineage::begun) else { return };
        let proven = watched.state.replay.and_then(|replay| replay.proven);
        let since = proven.map_or(begun.max(watched.since), |proof| proof.begun);
        watched.condition.trails(now.since(since), &self.thresholds);
        watched.publish_condition();
    }
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The node let the monitor in and answered.
    Answered,
    /// It did not.
    Failed,
}

/// Why a node can't be named as a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotNamed {
    /// The console is not the authority.
    OtherAuthority,
    /// The node is not watched.
    NoSuchNode,
}

impl Watched {
    fn publish_condition(&mut self) {
        self.state.health = self.condition.health();
        self.state.breaker = self.condition.breaker();
    }

    /// A replica that has come back gets its share of the reads by and by.
    fn warm_up(&mut self, served: bool, now: Moment) {
        if !served && self.state.health.may_serve() {
            self.back = now;
        }
        let passed = now.since(self.back.max(self.since)).count();
        let steps = passed.saturating_mul(u64::from(NodeState::WARM)) / WARM_UP.count();
        let steps = u32::try_from(steps).unwrap_or(NodeState::WARM);
        self.state.warmth = steps.saturating_add(1).min(NodeState::WARM);
    }

    /// What a Patroni said of it in another role counts no more.
    fn show_role(&mut self, role: Role) {
        if self.state.role_seen != Some(role) {
            self.voucher = Voucher::Silent;
        }
        self.state.role_seen = Some(role);
    }

    /// The server that answers; another one than before has proven nothing.
    fn identify(&mut self, identity: Identity, now: Moment) -> Over {
        let incarnation = Incarnation { system: identity.system, started_us: identity.started_us };
        self.state.incarnation = Some(incarnation);
        if self.identity != Some(identity) {
            self.identity = Some(identity);
            self.since = now;
            self.state.life = self.state.life.wrapping_add(1);
            self.state.kept = None;
            self.shown = None;
            self.voucher = Voucher::Silent;
            self.drop_proof();
            return Over::FreshConnection;
        }
        Over::StandingConnection
    }

    fn drop_proof(&mut self) {
        self.state.replay = None;
    }
}

/// Time in which a replica that has come back gets its whole share.
const WARM_UP: Millis = Millis::new(10_000);

/// The later of two proofs of one incarnation.
fn later(one: Option<Proof>, other: Option<Proof>) -> Option<Proof> {
    one.into_iter().chain(other).max_by_key(|proof| proof.number)
}
