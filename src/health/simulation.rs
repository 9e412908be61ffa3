//! A seeded world of one primary and two replicas that crash, lag, fail over
//! and lose their monitor; no published lag may ever be too small.
//!
//! `simulation/marks` adds clients, and the rules that look right.

mod marks;
mod servers;

use super::{Answer, Authority, Identity, NotNamed, Probe, Thresholds, Ticket, Voucher, Watch};
use crate::cluster::{Breaker, Health, Member, SampleNumber, Wanted, Writer};
use crate::types::{Lsn, Millis, Moment, NodeId, Role, ShardId};

const SHARD: ShardId = ShardId::new(1);

fn node(index: u16) -> NodeId {
    NodeId::new(index)
}

fn watch(replicas: u16) -> Watch {
    watch_under(Authority::Nobody, replicas)
}

fn watch_under(authority: Authority, replicas: u16) -> Watch {
    let members = (0..=replicas).map(|index| Member {
        node: node(index),
        shard: SHARD,
        role: if index == 0 { Role::Primary } else { Role::Replica },
        weight: 1,
        near: false,
    });
    Watch::new(members, Thresholds::default(), authority, 7 << 64)
}

/// A sample that has been begun at `ms`; its number counts the milliseconds.
fn begin(watch: &Watch, index: u16, ms: u64) -> Ticket {
    watch.begin(node(index), SampleNumber::new(ms), Moment::from_ms(ms))
}

/// The primary's answer, and its marker where it is due.
fn answer_primary(watch: &mut Watch, ticket: Ticket, insert: u64, identity: Identity) {
    let insert = Lsn::new(insert);
    watch.answered(ticket, Answer::Primary { identity, timeline: 1, insert, flushed: insert });
    if let Some(id) = watch.unmarked(node(0)) {
        watch.marked(node(0), id);
    }
}

/// A replica's answer, which shows the marker first where that is due.
fn answer_replica(watch: &mut Watch, index: u16, ticket: Ticket, replay: u64, identity: Identity) {
    let answer = Answer::Replica { identity, replay: Some(Lsn::new(replay)) };
    watch.answered(ticket, answer);
    if let Some(id) = watch.unshown(node(index)) {
        watch.shown(node(index), id, identity.connection);
        watch.answered(ticket, answer);
    }
}

fn identity(system: u64, started_us: i64, connection: u64) -> Identity {
    Identity { system: Some(system), started_us, connection }
}

fn primary(watch: &mut Watch, ms: u64, insert: u64, identity: Identity) {
    let ticket = begin(watch, 0, ms);
    answer_primary(watch, ticket, insert, identity);
}

fn replica(watch: &mut Watch, ms: u64, replay: u64, identity: Identity) {
    let ticket = begin(watch, 1, ms);
    answer_replica(watch, 1, ticket, replay, identity);
}

fn lag(watch: &Watch, ms: u64) -> Option<u64> {
    let cluster = watch.cluster();
    cluster.node(node(1)).unwrap().lag_ms(Moment::from_ms(ms)).map(Millis::count)
}

const LIFE: Identity = Identity { system: Some(9), started_us: 1, connection: 1 };
const COPY: Identity = Identity { system: Some(9), started_us: 2, connection: 1 };

#[test]
fn lag_is_the_age_of_the_newest_sample_that_was_replayed() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 5_000, LIFE);
    primary(&mut watch, 1_250, 6_000, LIFE);
    replica(&mut watch, 1_251, 5_500, COPY);
    assert_eq!(lag(&watch, 1_300), Some(300));
    assert_eq!(watch.cluster().node(node(1)).unwrap().lag_bytes(), Some(500));
    replica(&mut watch, 1_300, 6_000, COPY);
    assert_eq!(lag(&watch, 1_300), Some(50));
}

#[test]
fn an_idle_server_has_no_growing_lag() {
    let mut watch = watch(1);
    for round in 0..400 {
        primary(&mut watch, round * 250, 7_000, LIFE);
        replica(&mut watch, round * 250 + 1, 7_000, COPY);
        assert_eq!(lag(&watch, round * 250 + 1), Some(1));
    }
}

#[test]
fn a_restarted_replica_has_proven_nothing_until_it_shows_its_position_again() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    replica(&mut watch, 1_250, 4_500, identity(9, 77, 2));
    assert_eq!(lag(&watch, 1_250), None, "it opened at an older position");
}

#[test]
fn a_new_life_of_the_primary_drops_every_proof() {
    for other in [identity(9, 5, 1), identity(9, 1, 2), identity(8, 1, 1)] {
        let mut watch = watch(1);
        primary(&mut watch, 1_000, 6_000, LIFE);
        replica(&mut watch, 1_001, 6_000, COPY);
        primary(&mut watch, 1_250, 6_500, other);
        assert_eq!(lag(&watch, 1_250), None, "{other:?}");
    }
}

#[test]
fn a_falling_position_drops_every_proof() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    primary(&mut watch, 1_250, 5_900, LIFE);
    assert_eq!(lag(&watch, 1_250), None);
}

#[test]
fn a_replica_of_another_system_proves_nothing() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 9_000, identity(123, 2, 1));
    assert_eq!(lag(&watch, 1_001), None);
}

#[test]
fn losing_the_primarys_monitor_connection_drops_every_proof() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    watch.disconnected(node(0));
    assert_eq!(lag(&watch, 1_002), None);
    replica(&mut watch, 1_003, 6_000, COPY);
    assert_eq!(lag(&watch, 1_003), None);
}

#[test]
fn a_replica_that_stops_answering_goes_down_and_serves_nothing() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    for round in 0..3 {
        let ticket = begin(&watch, 1, 1_250 + round);
        watch.failed(ticket);
    }
    let cluster = watch.cluster();
    assert_eq!(cluster.health(node(1)), Health::Down);
    assert_eq!(cluster.choose(SHARD, Wanted::Any, 0).node(), None);
}

#[test]
fn a_replica_that_has_not_shown_the_marker_proves_nothing() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    let ticket = begin(&watch, 1, 1_001);
    let replay = Some(Lsn::new(9_000));
    watch.answered(ticket, Answer::Replica { identity: COPY, replay });
    assert_eq!(lag(&watch, 1_001), None, "the replica of a dead primary may be far ahead");
    let marker = watch.unshown(node(1)).unwrap();
    watch.shown(node(1), marker, COPY.connection + 1);
    watch.answered(ticket, Answer::Replica { identity: COPY, replay });
    assert_eq!(lag(&watch, 1_001), None, "another connection showed it");
}

#[test]
fn a_node_that_is_promoted_gets_the_writes_once_the_old_primary_is_silent() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    watch.disconnected(node(0));
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(0))), "silence is no promotion");
    let (insert, flushed) = (Lsn::new(6_100), Lsn::new(6_100));
    let ticket = begin(&watch, 1, 1_100);
    watch.answered(ticket, Answer::Primary { identity: COPY, timeline: 2, insert, flushed });
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
    assert!(watch.unmarked(node(1)).is_some(), "its lineage has begun");
    assert_eq!(watch.unmarked(node(0)), None);
}

/// A primary, and a replica that was promoted beside it.
fn two_primaries(authority: Authority) -> Watch {
    let mut watch = watch_under(authority, 1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    let (insert, flushed) = (Lsn::new(6_100), Lsn::new(6_100));
    let ticket = begin(&watch, 1, 1_100);
    watch.answered(ticket, Answer::Primary { identity: COPY, timeline: 2, insert, flushed });
    watch
}

#[test]
fn two_primaries_get_no_writes_until_one_is_gone() {
    let mut watch = two_primaries(Authority::Nobody);
    assert_eq!(watch.writer(SHARD), Some(Writer::Several));
    assert!(watch.is_headless(SHARD));
    watch.disconnected(node(0));
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
}

#[test]
fn of_two_primaries_the_map_may_name_the_right_one() {
    let mut watch = two_primaries(Authority::Map);
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(0))));
    primary(&mut watch, 1_200, 6_200, LIFE);
    assert!(watch.is_leader(node(0)));
}

#[test]
fn of_two_primaries_an_operator_may_name_the_right_one() {
    let mut watch = two_primaries(Authority::Console);
    assert_eq!(watch.writer(SHARD), Some(Writer::Several));
    assert_eq!(watch.name(node(7)), Err(NotNamed::NoSuchNode));
    assert_eq!(watch.name(node(1)), Ok(()));
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
    assert_eq!(watch.name(node(0)), Ok(()), "the last word counts");
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(0))));
    let mut other = two_primaries(Authority::Map);
    assert_eq!(other.name(node(1)), Err(NotNamed::OtherAuthority));
}

#[test]
fn of_two_primaries_the_one_leads_whose_patroni_says_so() {
    let mut watch = two_primaries(Authority::Patroni);
    let [old, new] = [0, 1].map(|index| watch.question(node(index)).unwrap());
    assert_eq!(watch.writer(SHARD), Some(Writer::Several), "both Patronis are silent");
    watch.vouched(new, Voucher::Confirmed);
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
    watch.vouched(old, Voucher::Confirmed);
    assert_eq!(watch.writer(SHARD), Some(Writer::Several), "both can't be right");
    watch.vouched(old, Voucher::Denied);
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
    watch.disconnected(node(1));
    assert_eq!(watch.writer(SHARD), Some(Writer::Unconfirmed), "the old one is none, alone too");
    assert!(watch.cluster().lacks_primary(SHARD));
}

#[test]
fn what_a_patroni_said_of_another_life_counts_no_more() {
    let mut watch = two_primaries(Authority::Patroni);
    let question = watch.question(node(0)).unwrap();
    watch.disconnected(node(0));
    watch.disconnected(node(1));
    primary(&mut watch, 1_200, 6_300, identity(9, 5, 2));
    watch.vouched(question, Voucher::Denied);
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(0))));
    replica(&mut watch, 1_300, 6_300, identity(9, 6, 2));
    assert_eq!(watch.question(node(1)), None, "who serves as a replica is not asked");
}

#[test]
fn a_primary_that_serves_as_a_replica_gets_no_writes_before_another_is_there() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    watch.disconnected(node(0));
    let ticket = begin(&watch, 0, 1_100);
    let (identity, replay) = (identity(9, 3, 2), Some(Lsn::new(6_000)));
    watch.answered(ticket, Answer::Replica { identity, replay });
    assert_eq!(watch.writer(SHARD), Some(Writer::Absent));
    assert!(watch.is_headless(SHARD));
    let (insert, flushed) = (Lsn::new(6_100), Lsn::new(6_100));
    let ticket = begin(&watch, 1, 1_200);
    watch.answered(ticket, Answer::Primary { identity: COPY, timeline: 2, insert, flushed });
    assert_eq!(watch.writer(SHARD), Some(Writer::Node(node(1))));
    let cluster = watch.cluster();
    assert_eq!(cluster.choose(SHARD, Wanted::Any, 0).node(), Some(node(0)), "it serves reads");
}

#[test]
fn clients_that_lose_their_connections_make_a_node_suspect_until_probes_are_answered() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    (0..3).for_each(|_| watch.struck(node(1), Moment::from_ms(1_010)));
    let breaker = |watch: &Watch| watch.cluster().node(node(1)).unwrap().breaker;
    assert_eq!((watch.health(node(1)), breaker(&watch)), (Health::Suspect, Breaker::Open));
    assert_eq!(watch.cluster().choose(SHARD, Wanted::Any, 0).node(), Some(node(1)), "the last one");
    replica(&mut watch, 2_500, 6_000, COPY);
    assert_eq!(watch.health(node(1)), Health::Suspect, "its old connection says nothing");
    for outcome in [Probe::Answered, Probe::Answered] {
        assert!(watch.wants_probe(node(1), Moment::from_ms(2_600)));
        watch.probed(node(1), Moment::from_ms(2_600), outcome);
    }
    assert_eq!((watch.health(node(1)), breaker(&watch)), (Health::Healthy, Breaker::Closed));
    assert!(lag(&watch, 2_700).is_some(), "what it has proven it has still");
}

#[test]
fn a_replica_that_proves_nothing_is_lagging_after_a_while() {
    let mut watch = watch(1);
    for round in 0..100 {
        primary(&mut watch, 1_000 + round * 250, 6_000 + round, LIFE);
        let ticket = begin(&watch, 1, 1_001 + round * 250);
        let replay = Some(Lsn::new(5_000));
        // It never shows the marker: it follows somebody else.
        watch.answered(ticket, Answer::Replica { identity: COPY, replay });
        let lagging = watch.health(node(1)) == Health::Lagging;
        assert_eq!(lagging, round > 40, "{round}");
    }
    assert!(watch.is_leader(node(0)) && watch.health(node(0)) == Health::Healthy);
}

#[test]
fn without_a_primary_a_replica_keeps_what_it_had_proven_until_another_life_begins() {
    let mut watch = watch(1);
    primary(&mut watch, 1_000, 6_000, LIFE);
    replica(&mut watch, 1_001, 6_000, COPY);
    watch.disconnected(node(0));
    replica(&mut watch, 1_100, 6_000, COPY);
    assert!(!watch.cluster().lacks_primary(SHARD), "the monitor's connection alone says nothing");
    for ms in [1_100, 1_200, 1_300] {
        let ticket = begin(&watch, 0, ms);
        watch.failed(ticket);
    }
    let allowed =
        |lag, ms| Wanted::WithoutPrimary { lag: Millis::new(lag), now: Moment::from_ms(ms) };
    let cluster = watch.cluster();
    assert!(cluster.lacks_primary(SHARD));
    assert_eq!(cluster.choose(SHARD, allowed(1_000, 2_000), 0).node(), Some(node(1)));
    assert_eq!(cluster.choose(SHARD, allowed(999, 2_000), 0).node(), None);
    primary(&mut watch, 2_100, 5_000, identity(9, 5, 2));
    assert_eq!(watch.cluster().choose(SHARD, allowed(9_999, 2_200), 0).node(), None);
}

/// The world as it is, beside what the monitor thinks of it.
struct World {
    rng: u64,
    now: u64,
    /// Insert position at each millisecond of the present lineage's life.
    history: Vec<(u64, u64)>,
    /// The same of the lives before.
    before: Vec<(u64, u64)>,
    insert: u64,
    primary: Identity,
    replay: [u64; 2],
    copies: [Identity; 2],
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: seed | 1,
            now: 1_000,
            history: vec![(1_000, 100_000)],
            before: Vec::new(),
            insert: 100_000,
            primary: LIFE,
            replay: [100_000; 2],
            copies: [COPY; 2],
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) % sides
    }

    /// One millisecond of writes, replay and misfortune.
    fn step(&mut self, watch: &mut Watch) {
        self.now += 1;
        if self.dice(3) == 0 {
            self.insert += 1 + self.dice(500);
        }
        self.history.push((self.now, self.insert));
        for copy in 0..2 {
            let due = self.insert.saturating_sub(self.replay[copy]);
            if due > 0 && self.dice(4) != 0 {
                self.replay[copy] += 1 + self.dice(due.min(400));
            }
        }
        match self.dice(400) {
            0 => self.crash_replica(0, watch),
            1 => self.crash_replica(1, watch),
            2 => self.crash_primary(watch),
            _ => {}
        }
    }

    /// The replica opens again at an older position.
    fn crash_replica(&mut self, copy: usize, watch: &mut Watch) {
        self.replay[copy] -= self.dice(20_000).min(self.replay[copy]);
        self.copies[copy].started_us += 1;
        if self.dice(2) == 0 {
            self.copies[copy].connection += 1;
            watch.disconnected(node(u16::try_from(copy).unwrap() + 1));
        }
    }

    /// The primary loses its unflushed tail; replicas have none of it.
    fn crash_primary(&mut self, watch: &mut Watch) {
        let flushed = self.replay.iter().copied().max().unwrap();
        self.insert = flushed + self.dice(3) * 10;
        self.primary.started_us += 1;
        self.primary.connection += 1;
        let ended = std::mem::replace(&mut self.history, vec![(self.now, self.insert)]);
        self.before.extend(ended);
        watch.disconnected(node(0));
    }

    fn sample(&mut self, watch: &mut Watch) {
        match self.dice(60) {
            0 => {
                let ticket = begin(watch, 0, self.now);
                answer_primary(watch, ticket, self.insert, self.primary);
            }
            side @ (1 | 2) => {
                let copy = usize::try_from(side).unwrap() - 1;
                let index = u16::try_from(side).unwrap();
                let ticket = begin(watch, index, self.now);
                if self.dice(10) == 0 {
                    watch.failed(ticket);
                } else {
                    let (replay, identity) = (self.replay[copy], self.copies[copy]);
                    answer_replica(watch, index, ticket, replay, identity);
                }
            }
            _ => {}
        }
    }

    /// Nothing that was written `lag` ago may be missing on the replica, as
    /// long as the replica's own incarnation is the one that was sampled.
    fn check(&self, watch: &Watch, sampled: &[Identity; 2], seed: u64) {
        let cluster = watch.cluster();
        for (copy, sampled) in sampled.iter().enumerate() {
            if *sampled != self.copies[copy] {
                continue;
            }
            let state = cluster.node(node(u16::try_from(copy).unwrap() + 1)).unwrap();
            if let Some(kept) = state.kept.filter(|_| cluster.lineage_of(SHARD).is_none()) {
                let lives = self.before.iter().chain(&self.history);
                let written = lives.rev().find(|(ms, _)| *ms <= kept.begun.ms());
                let written = written.map_or(0, |(_, at)| *at);
                assert!(self.replay[copy] >= written, "seed {seed}, {} ms: kept", self.now);
            }
            let Some(lag) = state.lag_ms(Moment::from_ms(self.now)) else { continue };
            let then = self.now - lag.count();
            let written =
                self.history.iter().rev().find(|(ms, _)| *ms <= then).map_or(0, |(_, at)| *at);
            assert!(
                self.replay[copy] >= written,
                "seed {seed}, {} ms: lag {lag} but {} < {written}",
                self.now,
                self.replay[copy]
            );
        }
    }
}

#[test]
fn published_lag_is_never_too_small_whatever_crashes() {
    for seed in 1..=40_u64 {
        let mut world = World::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut watch = watch(2);
        let mut proofs = 0_u32;
        let mut sampled = world.copies;
        for _ in 0..4_000 {
            world.step(&mut watch);
            let before = watch.cluster();
            world.sample(&mut watch);
            let after = watch.cluster();
            for (copy, sampled) in sampled.iter_mut().enumerate() {
                let id = node(u16::try_from(copy).unwrap() + 1);
                if before.node(id).unwrap().sampled_at != after.node(id).unwrap().sampled_at {
                    *sampled = world.copies[copy];
                }
            }
            world.check(&watch, &sampled, seed);
            let proven = |index| after.node(node(index)).unwrap().replay.is_some();
            proofs += u32::from(proven(1) && proven(2));
        }
        assert!(proofs > 200, "seed {seed}: the world proves something ({proofs})");
    }
}
