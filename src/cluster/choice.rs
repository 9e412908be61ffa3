//! Which node serves a read, and the reason in words.
//!
//! Doubt goes to the primary: a replica whose health, role or progress is not
//! known takes no read. Allocates nothing; runs once per read.

use std::fmt;

use super::{Cluster, Health, NodeState};
use crate::types::{Consistency, Millis, Moment, NodeId, Role, ShardId};

/// The node for a read and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    node: Option<NodeId>,
    reason: ReadReason,
}

impl Choice {
    /// The replica; `None` means the primary.
    pub const fn node(&self) -> Option<NodeId> {
        self.node
    }

    /// Why it was chosen.
    pub const fn reason(&self) -> ReadReason {
        self.reason
    }
}

/// Why a read goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadReason {
    /// The configuration wants the primary.
    ConsistencyPrimary,
    /// The shard has no replica that takes reads.
    NoReplica,
    /// No replica qualified; the count of each cause.
    NoneFit(Passed),
    /// A replica qualified; its lag in time where it is known.
    Replica {
        /// Lag in time.
        lag: Option<Millis>,
    },
}

/// How many replicas were passed over, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Passed {
    /// Health is unknown.
    pub unknown: u16,
    /// They don't answer.
    pub down: u16,
    /// They are not in recovery: someone promoted them.
    pub not_a_replica: u16,
    /// They have proven nothing yet, or miss more time than allowed.
    pub too_far: u16,
}

impl ReadReason {
    /// The word that labels the metric.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::ConsistencyPrimary => "consistency_primary",
            Self::NoReplica => "no_replica",
            Self::NoneFit(_) => "no_replica_fits",
            Self::Replica { .. } => "replica",
        }
    }
}

impl fmt::Display for ReadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsistencyPrimary => f.write_str("primary: consistency is primary"),
            Self::NoReplica => f.write_str("primary: the shard has no replica for reads"),
            Self::NoneFit(passed) => write!(f, "primary: no replica fits ({passed})"),
            Self::Replica { lag: Some(lag) } => write!(f, "replica: misses at most {lag}"),
            Self::Replica { lag: None } => f.write_str("replica: lag not known yet"),
        }
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = [
            (self.unknown, "not yet known"),
            (self.down, "down"),
            (self.not_a_replica, "not in recovery"),
            (self.too_far, "too far behind"),
        ];
        let mut first = true;
        for (count, cause) in causes.into_iter().filter(|(count, _)| *count > 0) {
            let comma = if first { "" } else { ", " };
            write!(f, "{comma}{count} {cause}")?;
            first = false;
        }
        Ok(())
    }
}

impl Cluster {
    /// As `replica_for`, with the reason.
    pub fn choose(
        &self,
        shard: ShardId,
        consistency: Consistency,
        tie: u64,
        now: Moment,
    ) -> Choice {
        if consistency == Consistency::Primary {
            return primary(ReadReason::ConsistencyPrimary);
        }
        let mut passed = Passed::default();
        let mut any = false;
        let mut weight: u64 = 0;
        for state in self.replicas_of(shard) {
            any = true;
            match fitness(state, consistency, now) {
                Fitness::Fit => weight += u64::from(state.member.weight),
                Fitness::Unknown => passed.unknown = passed.unknown.saturating_add(1),
                Fitness::Down => passed.down = passed.down.saturating_add(1),
                Fitness::NotAReplica => {
                    passed.not_a_replica = passed.not_a_replica.saturating_add(1);
                }
                Fitness::TooFar => passed.too_far = passed.too_far.saturating_add(1),
            }
        }
        if !any {
            return primary(ReadReason::NoReplica);
        }
        let Some(mut mark) = tie.checked_rem(weight) else {
            return primary(ReadReason::NoneFit(passed));
        };
        for state in self.replicas_of(shard) {
            if fitness(state, consistency, now) != Fitness::Fit {
                continue;
            }
            let share = u64::from(state.member.weight);
            if mark < share {
                let reason = ReadReason::Replica { lag: state.lag_ms(now) };
                return Choice { node: Some(state.member.node), reason };
            }
            mark -= share;
        }
        primary(ReadReason::NoneFit(passed))
    }

    /// The replicas of `shard` that take reads at all.
    fn replicas_of(&self, shard: ShardId) -> impl Iterator<Item = &NodeState> {
        self.entry(shard)
            .into_iter()
            .flat_map(|entry| &entry.replicas)
            .filter_map(|position| self.nodes.get(*position))
            .filter(|state| state.member.weight > 0)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Fit,
    Unknown,
    Down,
    NotAReplica,
    TooFar,
}

fn fitness(state: &NodeState, consistency: Consistency, now: Moment) -> Fitness {
    match (state.health, state.role_seen) {
        (Health::Unknown, _) | (Health::Up, None) => return Fitness::Unknown,
        (Health::Down, _) => return Fitness::Down,
        // Its data has forked from the primary's.
        (Health::Up, Some(Role::Primary)) => return Fitness::NotAReplica,
        (Health::Up, Some(Role::Replica)) => {}
    }
    match consistency {
        Consistency::Primary | Consistency::Any => Fitness::Fit,
        Consistency::Bounded(limit) => match state.lag_ms(now) {
            Some(lag) if lag <= limit => Fitness::Fit,
            Some(_) | None => Fitness::TooFar,
        },
    }
}

const fn primary(reason: ReadReason) -> Choice {
    Choice { node: None, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, Replay};
    use crate::types::Lsn;

    const SHARD: ShardId = ShardId::new(7);
    const NOW: Moment = Moment::from_ms(10_000);

    fn member(node: u16, role: Role, weight: u32) -> Member {
        Member { node: NodeId::new(node), shard: SHARD, role, weight }
    }

    fn replica(node: u16, lag_ms: Option<u64>) -> NodeState {
        NodeState {
            health: Health::Up,
            role_seen: Some(Role::Replica),
            replay: Some(Replay {
                lsn: Lsn::new(90),
                lag_bytes: 10,
                proven_at: lag_ms.map(|ms| Moment::from_ms(10_000 - ms)),
            }),
            sampled_at: Some(Moment::from_ms(9_990)),
            ..NodeState::unknown(member(node, Role::Replica, 1))
        }
    }

    fn cluster(replicas: Vec<NodeState>) -> Cluster {
        let mut nodes = vec![NodeState::unknown(member(0, Role::Primary, 1))];
        nodes.extend(replicas);
        Cluster::new(nodes)
    }

    fn bounded(ms: u64) -> Consistency {
        Consistency::Bounded(Millis::new(ms))
    }

    #[test]
    fn before_any_sample_reads_go_to_the_primary() {
        let cluster = Cluster::unknown([member(0, Role::Primary, 1), member(1, Role::Replica, 1)]);
        let choice = cluster.choose(SHARD, Consistency::Any, 0, NOW);
        assert_eq!(choice.node(), None);
        assert_eq!(choice.reason().to_string(), "primary: no replica fits (1 not yet known)");
        assert_eq!(cluster.primary_of(SHARD), Some(NodeId::new(0)));
    }

    #[test]
    fn primary_consistency_never_uses_a_replica() {
        let cluster = cluster(vec![replica(1, Some(0))]);
        for tie in 0..5 {
            assert_eq!(cluster.replica_for(SHARD, Consistency::Primary, tie, NOW), None);
        }
    }

    #[test]
    fn a_replica_without_proof_serves_any_but_not_bounded() {
        let cluster = cluster(vec![replica(1, None)]);
        assert_eq!(
            cluster.replica_for(SHARD, Consistency::Any, 3, NOW),
            Some(NodeId::new(1)),
            "any asks for health only"
        );
        assert_eq!(cluster.replica_for(SHARD, bounded(60_000), 3, NOW), None);
    }

    #[test]
    fn the_bound_is_held_against_the_present_not_the_publication() {
        let cluster = cluster(vec![replica(1, Some(80))]);
        assert_eq!(cluster.replica_for(SHARD, bounded(80), 0, NOW), Some(NodeId::new(1)));
        let later = NOW.after(Millis::new(1));
        assert_eq!(cluster.replica_for(SHARD, bounded(80), 0, later), None);
    }

    #[test]
    fn a_promoted_replica_serves_no_reads() {
        let mut forked = replica(1, Some(0));
        forked.role_seen = Some(Role::Primary);
        let cluster = cluster(vec![forked]);
        let choice = cluster.choose(SHARD, Consistency::Any, 0, NOW);
        assert_eq!(choice.node(), None);
        assert_eq!(choice.reason().to_string(), "primary: no replica fits (1 not in recovery)");
    }

    #[test]
    fn reads_spread_by_weight_and_skip_weight_zero() {
        let mut heavy = replica(1, Some(0));
        heavy.member.weight = 3;
        let light = replica(2, Some(0));
        let mut off = replica(3, Some(0));
        off.member.weight = 0;
        let cluster = cluster(vec![heavy, light, off]);
        let count = |node: u16| {
            (0..400)
                .filter(|tie| {
                    cluster.replica_for(SHARD, Consistency::Any, *tie, NOW)
                        == Some(NodeId::new(node))
                })
                .count()
        };
        assert_eq!((count(1), count(2), count(3)), (300, 100, 0));
    }

    #[test]
    fn a_shard_with_no_replica_or_an_unknown_shard_reads_on_the_primary() {
        let cluster = cluster(Vec::new());
        let reason = |shard| cluster.choose(shard, Consistency::Any, 0, NOW).reason();
        assert_eq!(reason(SHARD), ReadReason::NoReplica);
        assert_eq!(reason(ShardId::new(99)), ReadReason::NoReplica);
    }

    #[test]
    fn a_connection_younger_than_the_newest_sample_is_not_vouched_for() {
        let cluster = cluster(vec![replica(1, Some(0))]);
        assert!(cluster.vouches_for(NodeId::new(1), Moment::from_ms(9_989)));
        assert!(!cluster.vouches_for(NodeId::new(1), Moment::from_ms(9_990)));
        assert!(!cluster.vouches_for(NodeId::new(0), Moment::START));
    }

    #[test]
    fn nodes_in_any_order_and_twice_make_the_same_snapshot() {
        let a = Cluster::new(vec![replica(2, None), replica(1, None), replica(1, Some(3))]);
        let b = Cluster::new(vec![replica(1, None), replica(2, None)]);
        assert_eq!(a, b);
    }
}
