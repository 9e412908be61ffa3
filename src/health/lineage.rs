//! One life of a shard's primary: its samples, and which of them a replay
//! position proves.
//!
//! The only place where WAL positions are compared. A crash re-uses positions
//! on the same timeline, and two servers that were promoted apart have the
//! same positions of different data; so a lineage ends whenever its primary's
//! identity changes, and a replica takes part only after it has shown the
//! marker that was written at the lineage's begin.

use std::collections::VecDeque;

use super::Geometry;
use crate::cluster::{LineageId, Proof};
use crate::types::{Lsn, Moment, NodeId};

use super::watch::Identity;

/// Samples of one life of a primary.
///
/// Keeps at most `SAMPLES_MAX`; older ones thin out, so that a replica that
/// is far behind still proves some sample, with a coarser age.
#[derive(Clone, Debug)]
pub struct Lineage {
    id: LineageId,
    leader: NodeId,
    identity: Identity,
    timeline: u32,
    marked: bool,
    /// When its first sample began.
    begun: Option<Moment>,
    /// By number; positions never fall.
    samples: VecDeque<(Proof, Lsn)>,
    /// Where the newest sample's WAL is on disk, if it was asked for.
    flushed: Option<Lsn>,
}

/// Which primary a lineage is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The node.
    pub leader: NodeId,
    /// The server there.
    pub identity: Identity,
    /// Its timeline.
    pub timeline: u32,
}

/// What a replica's position means in a lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The newest sample that it has replayed.
    pub proof: Option<Proof>,
    /// Bytes between it and the newest sample.
    pub lag_bytes: u64,
}

impl Lineage {
    /// A lineage that begins now.
    pub fn new(id: LineageId, life: Life) -> Self {
        Self {
            id,
            leader: life.leader,
            identity: life.identity,
            timeline: life.timeline,
            marked: false,
            begun: None,
            samples: VecDeque::new(),
            flushed: None,
        }
    }

    /// Its name, and the marker that its replicas show.
    pub const fn id(&self) -> LineageId {
        self.id
    }

    /// The primary whose life it is.
    pub const fn leader(&self) -> NodeId {
        self.leader
    }

    /// True if `life` is the one that the lineage is of.
    pub fn is_of(&self, life: &Life) -> bool {
        self.leader == life.leader
            && self.identity == life.identity
            && self.timeline == life.timeline
    }

    /// True if a server with this identity can be a copy of its primary.
    pub fn is_kin(&self, identity: Option<Identity>) -> bool {
        let ours = self.identity.system;
        let theirs = identity.and_then(|identity| identity.system);
        ours.is_none() || theirs.is_none() || ours == theirs
    }

    /// When its first sample began.
    pub const fn begun(&self) -> Option<Moment> {
        self.begun
    }

    /// True once the primary has its marker on disk.
    pub const fn is_marked(&self) -> bool {
        self.marked
    }

    /// The primary has its marker on disk.
    pub fn mark(&mut self) {
        self.marked = true;
    }

    /// Keeps a sample's answer.
    ///
    /// # Errors
    /// The position is below an earlier one: this is another life of the
    /// primary, and nothing that was proven holds.
    pub fn record(&mut self, proof: Proof, insert: Lsn, flushed: Lsn) -> Result<(), WentBack> {
        if let Some((newest, lsn)) = self.samples.back() {
            // An answer that was overtaken says less than the newer one.
            if proof.number <= newest.number {
                return Ok(());
            }
            if insert.bytes() < lsn.bytes() {
                return Err(WentBack);
            }
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.thin();
        }
        self.begun = self.begun.or(Some(proof.begun));
        self.samples.push_back((proof, insert));
        self.flushed = Some(flushed);
        Ok(())
    }

    /// What the replay position `replay` proves.
    pub fn standing(&self, replay: Lsn, geometry: Geometry) -> Standing {
        let replay = geometry.normalise(replay);
        let past = self.samples.partition_point(|(_, lsn)| lsn.bytes() <= replay.bytes());
        let proof = past.checked_sub(1).and_then(|at| self.samples.get(at));
        let newest = self.samples.back().map_or(0, |(_, lsn)| lsn.bytes());
        Standing {
            proof: proof.map(|(proof, _)| *proof),
            lag_bytes: newest.saturating_sub(replay.bytes()),
        }
    }

    /// The newest insert position.
    pub fn newest(&self) -> Option<Lsn> {
        self.samples.back().map(|(_, lsn)| *lsn)
    }

    /// True if the newest sample's position was not on disk yet: no replica
    /// can have it.
    pub fn has_unflushed_tail(&self) -> bool {
        match (self.newest(), self.flushed) {
            (Some(insert), Some(flushed)) => flushed.bytes() < insert.bytes(),
            (None, _) | (_, None) => false,
        }
    }

    /// True if `replay` is at or past `position`, both of this lineage.
    pub fn has_reached(&self, replay: Lsn, position: Lsn) -> bool {
        replay.bytes() >= position.bytes()
    }

    /// Drops every second sample of the older half.
    fn thin(&mut self) {
        let half = self.samples.len() / 2;
        let mut position = 0_usize;
        self.samples.retain(|_| {
            let keep = position >= half || position.is_multiple_of(2);
            position += 1;
            keep
        });
    }
}

/// A primary's position fell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack;

/// Most samples kept of one primary.
const SAMPLES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SampleNumber;

    fn lineage() -> Lineage {
        Lineage::new(
            LineageId::new(7),
            Life {
                leader: NodeId::new(0),
                identity: Identity { system: Some(1), started_us: 1, connection: 1 },
                timeline: 1,
            },
        )
    }

    fn proof(number: u64, ms: u64) -> Proof {
        Proof { number: SampleNumber::new(number), begun: Moment::from_ms(ms) }
    }

    fn sampled(positions: &[(u64, u64)]) -> Lineage {
        let mut lineage = lineage();
        for (number, (ms, bytes)) in (1..).zip(positions) {
            let at = Lsn::new(*bytes);
            lineage.record(proof(number, *ms), at, at).unwrap();
        }
        lineage
    }

    fn begun(lineage: &Lineage, replay: u64) -> Option<u64> {
        let standing = lineage.standing(Lsn::new(replay), Geometry::default());
        standing.proof.map(|p| p.begun.ms())
    }

    const PAGE: u64 = 1 << 20;

    #[test]
    fn a_replica_proves_the_newest_sample_that_it_has_replayed() {
        let at = |n: u64| PAGE + n;
        let lineage = sampled(&[(10, at(100)), (20, at(200)), (30, at(200)), (40, at(300))]);
        assert_eq!(begun(&lineage, at(99)), None);
        assert_eq!(begun(&lineage, at(100)), Some(10));
        assert_eq!(begun(&lineage, at(299)), Some(30), "of equal positions the newest counts");
        assert_eq!(begun(&lineage, at(9_999)), Some(40));
    }

    #[test]
    fn a_falling_position_is_another_life() {
        let mut lineage = sampled(&[(10, 100)]);
        let lower = Lsn::new(99);
        assert_eq!(lineage.record(proof(2, 20), lower, lower), Err(WentBack));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_displace_a_newer_one() {
        let mut lineage = lineage();
        lineage.record(proof(2, 20), Lsn::new(PAGE + 50), Lsn::new(PAGE + 50)).unwrap();
        lineage.record(proof(1, 10), Lsn::new(PAGE + 40), Lsn::new(PAGE + 40)).unwrap();
        assert_eq!(begun(&lineage, PAGE + 50), Some(20));
        assert_eq!(begun(&lineage, PAGE + 45), None);
    }

    #[test]
    fn old_samples_thin_out_and_never_exceed_the_limit() {
        let positions: Vec<(u64, u64)> = (1..5_000).map(|n| (n, PAGE + 100 + n)).collect();
        let lineage = sampled(&positions);
        assert!(lineage.samples.len() <= SAMPLES_MAX);
        let old = begun(&lineage, PAGE + 200).unwrap();
        assert!(old <= 100, "a proof is never newer than the replay position");
        assert_eq!(begun(&lineage, PAGE + 100 + 4_990), Some(4_990));
    }

    #[test]
    fn an_unflushed_tail_is_seen() {
        let mut lineage = lineage();
        assert!(!lineage.has_unflushed_tail());
        lineage.record(proof(1, 1), Lsn::new(500), Lsn::new(400)).unwrap();
        assert!(lineage.has_unflushed_tail());
        lineage.record(proof(2, 1), Lsn::new(500), Lsn::new(500)).unwrap();
        assert!(!lineage.has_unflushed_tail());
    }
}
