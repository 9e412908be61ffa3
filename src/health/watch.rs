//! All nodes under watch: samples in, cluster snapshot out.

use std::collections::BTreeMap;

use super::{Geometry, Proof, SampleNumber, Thresholds, Timeline, Verdict};
use crate::cluster::{Cluster, Health, Member, NodeState, Replay};
use crate::types::{Lsn, Moment, NodeId, Role, ShardId};

/// A sample that has been begun; hand it back with the answer.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    node: NodeId,
    begun: Moment,
    number: Option<SampleNumber>,
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
    },
    /// It is in recovery.
    Replica {
        /// Which server this is.
        identity: Identity,
        /// `pg_last_wal_replay_lsn()`; `None` before it has replayed anything.
        replay: Option<Lsn>,
    },
}

/// Everything that the monitor remembers.
#[derive(Clone, Debug)]
pub struct Watch {
    thresholds: Thresholds,
    nodes: BTreeMap<NodeId, Watched>,
    shards: BTreeMap<ShardId, Lineage>,
}

#[derive(Clone, Debug)]
struct Watched {
    state: NodeState,
    verdict: Verdict,
    identity: Option<Identity>,
    proof: Option<Proof>,
    geometry: Geometry,
}

/// One life of a shard's primary and its samples.
#[derive(Clone, Debug, Default)]
struct Lineage {
    life: Option<(Identity, u32)>,
    timeline: Timeline,
}

impl Watch {
    /// Watches `members`, of which nothing is known yet.
    pub fn new(members: impl IntoIterator<Item = Member>, thresholds: Thresholds) -> Self {
        let mut watch = Self { thresholds, nodes: BTreeMap::new(), shards: BTreeMap::new() };
        for member in members {
            watch.shards.entry(member.shard).or_default();
            watch.nodes.insert(
                member.node,
                Watched {
                    state: NodeState::unknown(member),
                    verdict: Verdict::UNKNOWN,
                    identity: None,
                    proof: None,
                    geometry: Geometry::default(),
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

    /// Begins a sample of `node`; call before the request is sent.
    pub fn begin(&mut self, node: NodeId, now: Moment) -> Ticket {
        let lineage = self
            .nodes
            .get(&node)
            .filter(|watched| watched.state.member.role == Role::Primary)
            .and_then(|watched| self.shards.get_mut(&watched.state.member.shard));
        Ticket { node, begun: now, number: lineage.map(|lineage| lineage.timeline.begin()) }
    }

    /// Takes a node's answer.
    pub fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(watched) = self.nodes.get_mut(&ticket.node) else { return };
        watched.verdict = watched.verdict.after_success(self.thresholds);
        watched.state.health = watched.verdict.health();
        watched.state.sampled_at = Some(ticket.begun);
        match answer {
            Answer::Primary { identity, timeline, insert } => {
                watched.state.role_seen = Some(Role::Primary);
                // A promoted replica has forked: what it replayed proves nothing.
                watched.drop_proof();
                let insert = watched.geometry.normalise(insert);
                watched.state.insert_lsn = Some(insert);
                watched.identity = Some(identity);
                let shard = watched.state.member.shard;
                if let Some(number) = ticket.number {
                    self.advance(shard, (identity, timeline), number, ticket.begun, insert);
                }
            }
            Answer::Replica { identity, replay } => {
                if watched.identity != Some(identity) {
                    watched.drop_proof();
                }
                watched.state.role_seen = Some(Role::Replica);
                watched.state.insert_lsn = None;
                watched.identity = Some(identity);
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
    /// may come back as another life, a replica at an older position.
    pub fn disconnected(&mut self, node: NodeId) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        watched.identity = None;
        watched.drop_proof();
        let member = watched.state.member;
        if member.role == Role::Primary {
            self.end_life(member.shard);
        }
    }

    /// The present verdict on `node`; `Unknown` if it is not watched.
    pub fn health(&self, node: NodeId) -> Health {
        self.nodes.get(&node).map_or(Health::Unknown, |watched| watched.verdict.health())
    }

    /// The snapshot as things stand.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.nodes.values().map(|watched| watched.state).collect())
    }

    fn advance(
        &mut self,
        shard: ShardId,
        life: (Identity, u32),
        number: SampleNumber,
        begun: Moment,
        insert: Lsn,
    ) {
        let Some(lineage) = self.shards.get_mut(&shard) else { return };
        let same = lineage.life == Some(life);
        if same && lineage.timeline.record(number, begun, insert).is_ok() {
            return;
        }
        self.end_life(shard);
        if let Some(lineage) = self.shards.get_mut(&shard) {
            lineage.life = Some(life);
            // The timeline is empty, so the position can't have fallen.
            let _ = lineage.timeline.record(number, begun, insert);
        }
    }

    /// Ends the life of `shard`'s primary: nothing that was proven holds.
    fn end_life(&mut self, shard: ShardId) {
        if let Some(lineage) = self.shards.get_mut(&shard) {
            lineage.life = None;
            lineage.timeline.forget();
        }
        for watched in self.nodes.values_mut().filter(|w| w.state.member.shard == shard) {
            watched.drop_proof();
        }
    }

    fn prove(&mut self, node: NodeId, replay: Option<Lsn>) {
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        let Some(replay) = replay else {
            watched.state.replay = None;
            return;
        };
        let replay = watched.geometry.normalise(replay);
        let lineage = self.shards.get(&watched.state.member.shard);
        let kin = lineage.filter(|lineage| {
            let theirs = lineage.life.and_then(|(identity, _)| identity.system);
            let ours = watched.identity.and_then(|identity| identity.system);
            // Positions of different systems don't compare.
            lineage.life.is_some() && (theirs.is_none() || ours.is_none() || theirs == ours)
        });
        let proof = kin.and_then(|lineage| lineage.timeline.proven_by(replay));
        watched.proof = later(proof, watched.proof);
        let newest = kin.and_then(|lineage| lineage.timeline.newest());
        watched.state.replay = Some(Replay {
            lsn: replay,
            lag_bytes: newest.map_or(0, |leader| replay.lag_behind(leader)),
            proven_at: watched.proof.map(|proof| proof.begun),
        });
    }
}

impl Watched {
    fn drop_proof(&mut self) {
        self.proof = None;
        self.state.replay = None;
    }
}

/// The later of two proofs of one incarnation.
fn later(one: Option<Proof>, other: Option<Proof>) -> Option<Proof> {
    one.into_iter().chain(other).max_by_key(|proof| proof.number)
}
