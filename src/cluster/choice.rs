//! Which node serves a read, and the reason in words.
//!
//! Doubt goes to the primary: a replica whose health, role or progress is not
//! known takes no read. Allocates nothing and asks no clock; runs once per
//! read.

use std::fmt;

use super::{Cluster, Demand, Health, NodeState, SampleNumber, Writer};
use crate::types::{Millis, Moment, NodeId, Role, ShardId};

/// What a read wants of the node that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The primary.
    Primary,
    /// A replica that meets the demand of the read's marks.
    Marks(Demand),
    /// A replica that misses at most `lag` at `now`.
    Within {
        /// Most that may be missing.
        lag: Millis,
        /// The present.
        now: Moment,
    },
    /// A replica that answers.
    Any,
    /// While the shard has no primary: a replica that misses at most `lag` at
    /// `now` of what the last one had written.
    WithoutPrimary {
        /// Most that may be missing.
        lag: Millis,
        /// The present.
        now: Moment,
    },
}

impl Wanted {
    /// Why a replica serves that meets this.
    pub const fn met(self) -> ReadReason {
        match self {
            Self::Primary => ReadReason::ConsistencyPrimary,
            Self::Marks(_) => ReadReason::Proven,
            Self::Within { .. } => ReadReason::WithinBound,
            Self::Any => ReadReason::AnyReplica,
            Self::WithoutPrimary { .. } => ReadReason::PrimaryDown,
        }
    }
}

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

    /// The replica that showed the session what it has seen: it shows no less.
    pub const fn same_replica(node: NodeId) -> Self {
        Self { node: Some(node), reason: ReadReason::Proven }
    }
}

/// Why a read goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadReason {
    /// The configuration wants the primary.
    ConsistencyPrimary,
    /// A write to what is read is in flight.
    WriteInFlight,
    /// The shard has no replica that takes reads.
    NoReplica,
    /// No replica qualified; the count of each cause.
    NoneFit(Passed),
    /// The replica qualified, but no connection to it that is older than the
    /// sample which says so.
    NewConnection,
    /// The replica could not run it.
    TriedAgain,
    /// A replica has replayed every write that the read must see.
    Proven,
    /// A replica misses no more than is allowed.
    WithinBound,
    /// A replica answers; no more was asked.
    AnyReplica,
    /// There is no primary, and a replica misses no more than is allowed then.
    PrimaryDown,
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
            Self::WriteInFlight => "write_in_flight",
            Self::NoReplica => "no_replica",
            Self::NoneFit(_) => "no_replica_fits",
            Self::NewConnection => "new_connection",
            Self::TriedAgain => "tried_again",
            Self::Proven => "proven",
            Self::WithinBound => "within_bound",
            Self::AnyReplica => "any",
            Self::PrimaryDown => "primary_down",
        }
    }
}

impl ReadReason {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// Its place in a list of counters.
    pub const fn index(&self) -> usize {
        match self {
            Self::ConsistencyPrimary => 0,
            Self::WriteInFlight => 1,
            Self::NoReplica => 2,
            Self::NoneFit(_) => 3,
            Self::NewConnection => 4,
            Self::Proven => 5,
            Self::WithinBound => 6,
            Self::AnyReplica => 7,
            Self::TriedAgain => 8,
            Self::PrimaryDown => 9,
        }
    }

    /// The labels of all, in the order of their places.
    pub fn labels() -> impl Iterator<Item = &'static str> {
        [
            Self::ConsistencyPrimary,
            Self::WriteInFlight,
            Self::NoReplica,
            Self::NoneFit(Passed { unknown: 0, down: 0, not_a_replica: 0, too_far: 0 }),
            Self::NewConnection,
            Self::Proven,
            Self::WithinBound,
            Self::AnyReplica,
            Self::TriedAgain,
            Self::PrimaryDown,
        ]
        .iter()
        .map(Self::label)
    }
}

impl fmt::Display for ReadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsistencyPrimary => f.write_str("primary: consistency is primary"),
            Self::NoReplica => f.write_str("primary: the shard has no replica for reads"),
            Self::NoneFit(passed) => write!(f, "primary: no replica fits ({passed})"),
            Self::WriteInFlight => f.write_str("primary: write in flight"),
            Self::NewConnection => f.write_str("primary: the replica's connection is too new"),
            Self::TriedAgain => f.write_str("primary: the replica could not run it"),
            Self::Proven => f.write_str("replica: proven"),
            Self::WithinBound => f.write_str("replica: within the bound"),
            Self::AnyReplica => f.write_str("replica: any will do"),
            Self::PrimaryDown => f.write_str("replica: the shard has no primary"),
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
    /// As [`Cluster::choose_by`], of nodes that are all equally busy.
    pub fn choose(&self, shard: ShardId, wanted: Wanted, tie: u64) -> Choice {
        self.choose_by(shard, wanted, tie, &|_| 0)
    }

    /// The replica that serves a read of `shard`, or the primary, and why.
    /// Those of the router's zone come first; `tie`, any number, spreads reads
    /// over equals by weight. Of two that it draws, the one with less to do by
    /// `load` serves.
    pub fn choose_by(
        &self,
        shard: ShardId,
        wanted: Wanted,
        tie: u64,
        load: &dyn Fn(NodeId) -> u64,
    ) -> Choice {
        let asked = match wanted {
            Wanted::Primary => return primary(ReadReason::ConsistencyPrimary),
            Wanted::Marks(Demand::InFlight) => return primary(ReadReason::WriteInFlight),
            Wanted::Marks(Demand::Proof(need)) => Asked::Proof(need),
            Wanted::Within { lag, now } => Asked::Within { lag, now },
            Wanted::Any => Asked::Nothing,
            Wanted::WithoutPrimary { lag, now } => Asked::Kept { lag, now },
        };
        let mut passed = Passed::default();
        let mut any = false;
        for state in self.replicas_of(shard) {
            any = true;
            match fitness(state, asked) {
                Fitness::Fit | Fitness::Spare => {}
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
        // What is not well serves if nothing else can: the last is never banned.
        let node = [Fitness::Fit, Fitness::Spare]
            .into_iter()
            .find_map(|fitness| self.share_out(shard, asked, fitness, tie, load));
        match node {
            Some(node) => Choice { node: Some(node), reason: asked.met() },
            None => primary(ReadReason::NoneFit(passed)),
        }
    }

    /// One of the replicas that are so fit, by weight and load; those of the
    /// router's own zone first.
    fn share_out(
        &self,
        shard: ShardId,
        asked: Asked,
        fit: Fitness,
        tie: u64,
        load: &dyn Fn(NodeId) -> u64,
    ) -> Option<NodeId> {
        let candidates = || self.replicas_of(shard).filter(|state| fitness(state, asked) == fit);
        let weight = |near: bool| -> u64 {
            let those = candidates().filter(|state| state.member.near == near);
            those.map(NodeState::share).sum()
        };
        let near = weight(true) > 0;
        let sum = weight(near);
        let draw = |mut mark: u64| {
            candidates().filter(|state| state.member.near == near).find_map(|state| {
                let found = mark < state.share();
                mark = mark.saturating_sub(state.share());
                found.then_some((state.member.node, state.share()))
            })
        };
        let (one, share) = draw(tie.checked_rem(sum)?)?;
        if share == sum {
            return Some(one);
        }
        // The other half of the number draws the second.
        let (other, _) = draw(tie.rotate_left(32).checked_rem(sum)?)?;
        Some(if load(other) < load(one) { other } else { one })
    }

    /// True if `node` may serve a read that wants this.
    pub fn is_fit(&self, node: NodeId, wanted: Wanted) -> bool {
        let asked = match wanted {
            Wanted::Primary | Wanted::Marks(Demand::InFlight) => return false,
            Wanted::Marks(Demand::Proof(need)) => Asked::Proof(need),
            Wanted::Within { lag, now } => Asked::Within { lag, now },
            Wanted::Any => Asked::Nothing,
            Wanted::WithoutPrimary { lag, now } => Asked::Kept { lag, now },
        };
        self.node(node).is_some_and(|state| fitness(state, asked).is_enough())
    }

    /// True if the replica `node` of `shard` still lives the life in which it
    /// served before: what it showed then it shows now.
    pub fn lives_on(&self, shard: ShardId, node: NodeId, life: u32) -> bool {
        self.node(node).is_some_and(|state| {
            state.life == life
                && state.member.shard == shard
                && fitness(state, Asked::Nothing).is_enough()
        })
    }

    /// How far the nearest replica of `shard` is behind at `now`, if any has
    /// proven anything.
    pub fn nearest_lag(&self, shard: ShardId, now: Moment) -> Option<Millis> {
        self.replicas_of(shard).filter_map(|state| state.lag_ms(now)).min()
    }

    /// The nodes of `shard` that may take reads beside its writer.
    fn replicas_of(&self, shard: ShardId) -> impl Iterator<Item = &NodeState> {
        let entry = self.entry(shard);
        let writer = entry.and_then(|entry| entry.writer);
        entry
            .into_iter()
            .flat_map(|entry| &entry.nodes)
            .filter_map(|position| self.nodes.get(*position))
            .filter(move |state| {
                state.member.weight > 0 && writer != Some(Writer::Node(state.member.node))
            })
    }
}

/// What a replica has to show.
#[derive(Clone, Copy)]
enum Asked {
    Proof(SampleNumber),
    Within { lag: Millis, now: Moment },
    Kept { lag: Millis, now: Moment },
    Nothing,
}

impl Asked {
    const fn met(self) -> ReadReason {
        match self {
            Self::Proof(_) => ReadReason::Proven,
            Self::Within { .. } => ReadReason::WithinBound,
            Self::Nothing => ReadReason::AnyReplica,
            Self::Kept { .. } => ReadReason::PrimaryDown,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Fit,
    /// It would do, and is not well: others come first.
    Spare,
    Unknown,
    Down,
    NotAReplica,
    TooFar,
}

fn fitness(state: &NodeState, asked: Asked) -> Fitness {
    match (state.health, state.role_seen) {
        (Health::Down, _) => return Fitness::Down,
        (Health::Unknown, _) | (Health::Healthy | Health::Lagging | Health::Suspect, None) => {
            return Fitness::Unknown;
        }
        // Its data has forked from the primary's.
        (Health::Healthy | Health::Lagging | Health::Suspect, Some(Role::Primary)) => {
            return Fitness::NotAReplica;
        }
        (Health::Healthy | Health::Lagging | Health::Suspect, Some(Role::Replica)) => {}
    }
    let enough = match asked {
        Asked::Nothing => true,
        Asked::Proof(need) => {
            // A need of nothing is one sample: before the first nothing is
            // known of the writes of another time, or of another router.
            let proof = state.replay.and_then(|replay| replay.proven);
            proof.is_some_and(|proof| proof.number >= need)
        }
        Asked::Within { lag, now } => state.lag_ms(now).is_some_and(|missed| missed <= lag),
        Asked::Kept { lag, now } => state.kept.is_some_and(|proof| now.since(proof.begun) <= lag),
    };
    let well = match (state.health, asked) {
        (Health::Healthy, _)
        | (Health::Lagging, Asked::Proof(_) | Asked::Within { .. } | Asked::Kept { .. }) => true,
        // Who asks for nothing shall not get the worst.
        (Health::Lagging, Asked::Nothing) => false,
        (Health::Suspect | Health::Unknown | Health::Down, _) => false,
    };
    match (enough, well) {
        (true, true) => Fitness::Fit,
        (true, false) => Fitness::Spare,
        (false, _) => Fitness::TooFar,
    }
}

impl Fitness {
    const fn is_enough(self) -> bool {
        match self {
            Self::Fit | Self::Spare => true,
            Self::Unknown | Self::Down | Self::NotAReplica | Self::TooFar => false,
        }
    }
}

const fn primary(reason: ReadReason) -> Choice {
    Choice { node: None, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Member, Proof, Replay};
    use crate::types::Lsn;

    const SHARD: ShardId = ShardId::new(7);
    const NOW: Moment = Moment::from_ms(10_000);

    fn member(node: u16, role: Role, weight: u32) -> Member {
        Member { node: NodeId::new(node), shard: SHARD, role, weight, near: false }
    }

    fn replica(node: u16, lag_ms: Option<u64>) -> NodeState {
        NodeState {
            health: Health::Healthy,
            role_seen: Some(Role::Replica),
            replay: Some(Replay {
                lsn: Lsn::new(90),
                lag_bytes: 10,
                proven: lag_ms.map(|ms| Proof {
                    number: SampleNumber::new(1_000 - ms),
                    begun: Moment::from_ms(10_000 - ms),
                }),
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

    fn bounded(ms: u64) -> Wanted {
        Wanted::Within { lag: Millis::new(ms), now: NOW }
    }

    fn proof(number: u64) -> Wanted {
        Wanted::Marks(Demand::Proof(SampleNumber::new(number)))
    }

    fn node(cluster: &Cluster, wanted: Wanted, tie: u64) -> Option<NodeId> {
        cluster.choose(SHARD, wanted, tie).node()
    }

    #[test]
    fn a_replica_serves_what_it_has_proven_and_nothing_in_flight() {
        let cluster = cluster(vec![replica(1, Some(10))]);
        assert_eq!(node(&cluster, proof(990), 0), Some(NodeId::new(1)));
        assert_eq!(node(&cluster, proof(991), 0), None);
        let choice = cluster.choose(SHARD, Wanted::Marks(Demand::InFlight), 0);
        assert_eq!((choice.node(), choice.reason()), (None, ReadReason::WriteInFlight));
        assert!(cluster.is_fit(NodeId::new(1), proof(990)));
        assert!(!cluster.is_fit(NodeId::new(1), proof(991)));
        assert!(!cluster.is_fit(NodeId::new(0), proof(1)));
    }

    #[test]
    fn a_replica_without_proof_serves_no_mark_however_old() {
        let cluster = cluster(vec![replica(1, None)]);
        assert_eq!(node(&cluster, proof(0), 0), None);
    }

    #[test]
    fn after_a_promotion_the_new_writer_takes_no_replica_reads_and_the_old_may() {
        let mut demoted = replica(0, Some(5));
        demoted.member.role = Role::Primary;
        let mut promoted = replica(1, None);
        promoted.role_seen = Some(Role::Primary);
        let cluster = Cluster::new(vec![demoted, promoted]).with_writer(
            SHARD,
            Writer::Node(NodeId::new(1)),
            None,
        );
        assert_eq!(cluster.primary_of(SHARD), Some(NodeId::new(1)));
        assert_eq!(node(&cluster, Wanted::Any, 0), Some(NodeId::new(0)));
        let several = cluster.with_writer(SHARD, Writer::Several, None);
        assert_eq!(several.primary_of(SHARD), None);
        assert_eq!(several.writer_of(SHARD), Some(Writer::Several));
    }

    #[test]
    fn the_routers_own_zone_comes_first_as_long_as_it_has_a_fit_replica() {
        let mut near = replica(2, Some(50));
        near.member.near = true;
        let cluster = cluster(vec![replica(1, Some(5)), near, replica(3, Some(5))]);
        for tie in 0..10 {
            assert_eq!(node(&cluster, bounded(60), tie), Some(NodeId::new(2)));
            assert_ne!(node(&cluster, bounded(10), tie), Some(NodeId::new(2)));
            assert!(node(&cluster, bounded(10), tie).is_some());
        }
    }

    #[test]
    fn before_any_sample_reads_go_to_the_primary() {
        let cluster = Cluster::unknown([member(0, Role::Primary, 1), member(1, Role::Replica, 1)]);
        let choice = cluster.choose(SHARD, Wanted::Any, 0);
        assert_eq!(choice.node(), None);
        assert_eq!(choice.reason().to_string(), "primary: no replica fits (1 not yet known)");
        assert_eq!(cluster.primary_of(SHARD), Some(NodeId::new(0)));
    }

    #[test]
    fn primary_consistency_never_uses_a_replica() {
        let cluster = cluster(vec![replica(1, Some(0))]);
        for tie in 0..5 {
            assert_eq!(node(&cluster, Wanted::Primary, tie), None);
        }
    }

    #[test]
    fn a_replica_without_proof_serves_any_but_not_bounded() {
        let cluster = cluster(vec![replica(1, None)]);
        assert_eq!(
            node(&cluster, Wanted::Any, 3),
            Some(NodeId::new(1)),
            "any asks for health only"
        );
        assert_eq!(node(&cluster, bounded(60_000), 3), None);
    }

    #[test]
    fn the_bound_is_held_against_the_present_not_the_publication() {
        let cluster = cluster(vec![replica(1, Some(80))]);
        assert_eq!(node(&cluster, bounded(80), 0), Some(NodeId::new(1)));
        let later = NOW.after(Millis::new(1));
        let wanted = Wanted::Within { lag: Millis::new(80), now: later };
        assert_eq!(node(&cluster, wanted, 0), None);
    }

    #[test]
    fn a_promoted_replica_serves_no_reads() {
        let mut forked = replica(1, Some(0));
        forked.role_seen = Some(Role::Primary);
        let cluster = cluster(vec![forked]);
        let choice = cluster.choose(SHARD, Wanted::Any, 0);
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
        let count = |replica: u16| {
            (0..640)
                .filter(|tie| node(&cluster, Wanted::Any, *tie) == Some(NodeId::new(replica)))
                .count()
        };
        assert_eq!((count(1), count(2), count(3)), (480, 160, 0));
    }

    #[test]
    fn a_suspect_replica_serves_only_what_no_other_can() {
        let mut suspect = replica(1, Some(0));
        suspect.health = Health::Suspect;
        let both = cluster(vec![suspect, replica(2, Some(50))]);
        for tie in 0..10 {
            assert_eq!(node(&both, bounded(60), tie), Some(NodeId::new(2)));
            assert_eq!(node(&both, Wanted::Any, tie), Some(NodeId::new(2)));
            // The other one is too far behind.
            assert_eq!(node(&both, bounded(10), tie), Some(NodeId::new(1)));
        }
        let last = cluster(vec![suspect]);
        assert_eq!(node(&last, Wanted::Any, 5), Some(NodeId::new(1)), "the last is not banned");
        assert!(last.is_fit(NodeId::new(1), bounded(10)));
        let mut down = suspect;
        down.health = Health::Down;
        assert_eq!(node(&cluster(vec![down]), Wanted::Any, 5), None);
    }

    #[test]
    fn a_lagging_replica_serves_level_any_last_and_what_it_has_proven() {
        let mut lagging = replica(1, Some(500));
        lagging.health = Health::Lagging;
        let both = cluster(vec![lagging, replica(2, None)]);
        for tie in 0..10 {
            assert_eq!(node(&both, Wanted::Any, tie), Some(NodeId::new(2)));
        }
        assert_eq!(node(&both, proof(500), 0), Some(NodeId::new(1)));
        assert_eq!(node(&cluster(vec![lagging]), Wanted::Any, 3), Some(NodeId::new(1)));
    }

    #[test]
    fn of_two_that_are_drawn_the_one_with_less_to_do_serves() {
        let cluster = cluster((1..=4).map(|node| replica(node, Some(0))).collect());
        let load = |node: NodeId| if node == NodeId::new(1) { 900 } else { 100 };
        let mut served = [0; 5];
        let mut tie = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..4_000 {
            tie ^= tie << 13;
            tie ^= tie >> 7;
            tie ^= tie << 17;
            let node = cluster.choose_by(SHARD, Wanted::Any, tie, &load).node().unwrap();
            served[node.index()] += 1;
        }
        // It serves when it is drawn twice: one read in sixteen, and stays known.
        assert!((150..400).contains(&served[1]), "{served:?}");
        assert!(served[2..].iter().all(|count| *count > 1_000), "{served:?}");
    }

    #[test]
    fn the_only_one_that_fits_serves_however_busy_it_is() {
        let cluster = cluster(vec![replica(1, Some(0)), replica(2, None)]);
        for tie in 0..50 {
            let choice = cluster.choose_by(SHARD, proof(3), tie, &|_| u64::MAX);
            assert_eq!(choice.node(), Some(NodeId::new(1)));
        }
    }

    #[test]
    fn one_that_has_come_back_gets_its_share_by_and_by() {
        let count = |warmth: u32| {
            let mut cold = replica(2, Some(0));
            cold.warmth = warmth;
            let cluster = cluster(vec![replica(1, Some(0)), cold]);
            let served = |tie: &u64| node(&cluster, Wanted::Any, *tie) == Some(NodeId::new(2));
            (0..1_632).filter(served).count()
        };
        assert_eq!((count(0), count(1), count(16)), (96, 96, 816));
        assert!((500..600).contains(&count(8)), "{}", count(8));
        let mut cold = replica(1, Some(0));
        cold.warmth = 0;
        assert!(node(&cluster(vec![cold]), Wanted::Any, 7).is_some(), "alone it serves all");
    }

    #[test]
    fn a_shard_with_no_replica_or_an_unknown_shard_reads_on_the_primary() {
        let cluster = cluster(Vec::new());
        let reason = |shard| cluster.choose(shard, Wanted::Any, 0).reason();
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
