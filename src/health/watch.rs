//! All nodes under watch: samples in, cluster snapshot out.

use std::collections::BTreeMap;

use super::{Geometry, Life, Lineage, Thresholds, Verdict};
use crate::cluster::{
    Cluster, Health, Incarnation, LineageId, Member, NodeState, Proof, Replay, SampleNumber, Writer,
};
use crate::types::{Lsn, Moment, NodeId, Role, ShardId};

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

/// Who says which of two primaries is the right one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// Nobody: writes stop.
    #[default]
    Nobody,
    /// The shard map.
    Map,
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
    verdict: Verdict,
    identity: Option<Identity>,
    geometry: Geometry,
    /// The lineage whose marker this incarnation has shown.
    shown: Option<LineageId>,
}

/// A shard's primary, as far as it is known.
#[derive(Clone, Debug)]
struct Watching {
    declared: Option<NodeId>,
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
                    verdict: Verdict::UNKNOWN,
                    identity: None,
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
        watched.verdict = watched.verdict.after_success(self.thresholds);
        watched.state.health = watched.verdict.health();
        watched.state.sampled_at = Some(ticket.proof.begun);
        let shard = watched.state.member.shard;
        match answer {
            Answer::Primary { identity, timeline, insert, flushed } => {
                watched.identify(identity);
                watched.state.role_seen = Some(Role::Primary);
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
                watched.identify(identity);
                watched.state.role_seen = Some(Role::Replica);
                watched.state.insert_lsn = None;
                self.settle_writer(shard);
                self.prove(ticket.node, replay);
            }
        }
    }

    /// Takes note that `ticket` got no answer in time, or an error.
    pub fn failed(&mut self, ticket: Ticket) {
        let Some(watched) = self.nodes.get_mut(&ticket.node) else { return };
        watched.verdict = watched.verdict.after_failure(self.thresholds);
        watched.state.health = watched.verdict.health();
        if watched.state.health == Health::Down {
            watched.drop_proof();
            watched.state.insert_lsn = None;
        }
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
        watched.shown = None;
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
        self.nodes.get(&node).map_or(Health::Unknown, |watched| watched.verdict.health())
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
    /// node shows itself as the primary.
    fn settle_writer(&mut self, shard: ShardId) {
        let mut primaries = self.nodes.values().filter(|watched| {
            watched.state.member.shard == shard
                && watched.state.role_seen == Some(Role::Primary)
                && watched.state.health != Health::Down
        });
        let first = primaries.next().map(|watched| watched.state.member.node);
        let second = primaries.next().map(|watched| watched.state.member.node);
        let Some(watching) = self.shards.get_mut(&shard) else { return };
        let writer = match (first, second) {
            (None, _) => match watching.writer {
                Some(Writer::Several) => watching.declared.map(Writer::Node),
                other => other,
            },
            (Some(only), None) => Some(Writer::Node(only)),
            (Some(_), Some(_)) => {
                let named = match self.authority {
                    Authority::Nobody => None,
                    Authority::Map => watching.declared,
                };
                let is_one = named.filter(|node| {
                    self.nodes.get(node).is_some_and(|watched| {
                        watched.state.role_seen == Some(Role::Primary)
                            && watched.state.member.shard == shard
                    })
                });
                Some(is_one.map_or(Writer::Several, Writer::Node))
            }
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
        watched.state.replay = Some(Replay {
            lsn: replay,
            lag_bytes: standing.map_or(0, |standing| standing.lag_bytes),
            proven: later(standing.and_then(|standing| standing.proof), before),
        });
    }
}

impl Watched {
    /// The server that answers; another one than before has proven nothing.
    fn identify(&mut self, identity: Identity) {
        let incarnation = Incarnation { system: identity.system, started_us: identity.started_us };
        self.state.incarnation = Some(incarnation);
        if self.identity != Some(identity) {
            self.identity = Some(identity);
            self.state.life = self.state.life.wrapping_add(1);
            self.shown = None;
            self.drop_proof();
        }
    }

    fn drop_proof(&mut self) {
        self.state.replay = None;
    }
}

/// The later of two proofs of one incarnation.
fn later(one: Option<Proof>, other: Option<Proof>) -> Option<Proof> {
    one.into_iter().chain(other).max_by_key(|proof| proof.number)
}
