//! The primary's insert positions over time, and which of them a replay
//! position proves.

use std::collections::VecDeque;

use crate::types::{Lsn, Moment};

/// The number of a sample, counted from 1 in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleNumber(u64);

impl SampleNumber {
    /// The count.
    pub const fn count(self) -> u64 {
        self.0
    }
}

/// A sample that a replica has replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The sample's number.
    pub number: SampleNumber,
    /// When it was begun.
    pub begun: Moment,
}

/// Samples of one life of a primary.
///
/// Keeps at most `SAMPLES_MAX`; older ones thin out, so that a replica that
/// is far behind still proves some sample, with a coarser age.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    started: u64,
    /// By number; positions never fall.
    samples: VecDeque<(Proof, Lsn)>,
}

impl Timeline {
    /// Numbers a sample; call before the request is sent.
    pub fn begin(&mut self) -> SampleNumber {
        self.started += 1;
        SampleNumber(self.started)
    }

    /// Keeps the answer to sample `number`, begun at `begun`.
    ///
    /// `Err` if the position is below an earlier one: this is another life of
    /// the primary, and nothing that was proven holds.
    pub fn record(
        &mut self,
        number: SampleNumber,
        begun: Moment,
        insert: Lsn,
    ) -> Result<(), WentBack> {
        if let Some((newest, lsn)) = self.samples.back() {
            if insert < *lsn {
                return Err(WentBack);
            }
            if number <= newest.number {
                return Ok(());
            }
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.thin();
        }
        self.samples.push_back((Proof { number, begun }, insert));
        Ok(())
    }

    /// The newest sample at or below `replay`.
    pub fn proven_by(&self, replay: Lsn) -> Option<Proof> {
        let past = self.samples.partition_point(|(_, lsn)| *lsn <= replay);
        let (proof, _) = self.samples.get(past.checked_sub(1)?)?;
        Some(*proof)
    }

    /// The newest insert position.
    pub fn newest(&self) -> Option<Lsn> {
        self.samples.back().map(|(_, lsn)| *lsn)
    }

    /// Forgets all samples; numbers go on, so that old ones prove nothing.
    pub fn forget(&mut self) {
        self.samples.clear();
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

    fn timeline(positions: &[(u64, u64)]) -> Timeline {
        let mut timeline = Timeline::default();
        for (ms, bytes) in positions {
            let number = timeline.begin();
            timeline.record(number, Moment::from_ms(*ms), Lsn::new(*bytes)).unwrap();
        }
        timeline
    }

    #[test]
    fn a_replica_proves_the_newest_sample_that_it_has_replayed() {
        let timeline = timeline(&[(10, 100), (20, 200), (30, 200), (40, 300)]);
        let begun = |replay| timeline.proven_by(Lsn::new(replay)).map(|p| p.begun.ms());
        assert_eq!(begun(99), None);
        assert_eq!(begun(100), Some(10));
        assert_eq!(begun(299), Some(30), "of equal positions the newest counts");
        assert_eq!(begun(u64::MAX), Some(40));
    }

    #[test]
    fn a_falling_position_is_another_life() {
        let mut timeline = timeline(&[(10, 100)]);
        let number = timeline.begin();
        assert_eq!(timeline.record(number, Moment::from_ms(20), Lsn::new(99)), Err(WentBack));
    }

    #[test]
    fn an_answer_that_comes_late_does_not_displace_a_newer_one() {
        let mut timeline = Timeline::default();
        let (first, second) = (timeline.begin(), timeline.begin());
        timeline.record(second, Moment::from_ms(20), Lsn::new(50)).unwrap();
        timeline.record(first, Moment::from_ms(10), Lsn::new(50)).unwrap();
        assert_eq!(timeline.proven_by(Lsn::new(50)).unwrap().number, second);
    }

    #[test]
    fn old_samples_thin_out_and_never_exceed_the_limit() {
        let positions: Vec<(u64, u64)> = (1..5_000).map(|n| (n, n)).collect();
        let timeline = timeline(&positions);
        assert!(timeline.samples.len() <= SAMPLES_MAX);
        let begun = timeline.proven_by(Lsn::new(100)).unwrap().begun.ms();
        assert!(begun <= 100, "a proof is never newer than the replay position");
        let recent = timeline.proven_by(Lsn::new(4_990)).unwrap().begun.ms();
        assert_eq!(recent, 4_990);
    }

    #[test]
    fn numbers_go_on_after_forgetting() {
        let mut timeline = timeline(&[(1, 1), (2, 2)]);
        timeline.forget();
        assert_eq!(timeline.proven_by(Lsn::new(9)), None);
        assert_eq!(timeline.begin().count(), 3);
    }
}
