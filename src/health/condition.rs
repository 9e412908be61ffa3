//! How a node fares, with hysteresis: unknown, healthy, lagging, suspect or
//! down; and the circuit breaker that decides between healthy and suspect.
//!
//! Knows no roles and no positions. It hears what the monitor's samples and the
//! clients' own connections met, and how far the node is behind.
//! - One sample that fails, or several connections of clients that fail soon
//!   after each other, open the breaker: the node is *suspect*, and what can
//!   do without it does.
//! - After a wait that doubles each time the breaker is half open: the monitor
//!   knocks with a connection of its own, as a client would. Several such
//!   probes close it, one that fails opens it again. No client is a probe.
//! - Several failures in a row, and the node is *down*.
//! - A node that is merely far behind is *lagging*, until it is half as far.
//!
//! What a busy server refuses is no failure: that would move its load to those
//! that are left, and so on to the last.

use crate::cluster::{Breaker, Health};
use crate::types::{Millis, Moment};

/// When a condition changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures in a row until a node counts as down; at least 1.
    pub down_after: u32,
    /// Answers in a row until one that was down or suspect is healthy; at
    /// least 1.
    pub up_after: u32,
    /// Failures of clients' connections within `strike_window` that open the
    /// breaker.
    pub strikes_max: u32,
    /// How long such a failure counts.
    pub strike_window: Millis,
    /// How long the breaker stays open the first time.
    pub open_min: Millis,
    /// The longest that it stays open.
    pub open_max: Millis,
    /// A breaker that was closed for so long begins with `open_min` again.
    pub forget_after: Millis,
    /// A replica that is further behind than this is lagging.
    pub lagging_after: Millis,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            down_after: 3,
            up_after: 2,
            strikes_max: 3,
            strike_window: Millis::new(10_000),
            open_min: Millis::new(1_000),
            open_max: Millis::new(30_000),
            forget_after: Millis::new(60_000),
            lagging_after: Millis::new(10_000),
        }
    }
}

/// Over what a sample came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A connection that was just opened.
    FreshConnection,
    /// One that has answered before.
    StandingConnection,
}

/// One node's condition, and what argues against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    state: State,
    /// Failures of clients' connections, counted since the first of them.
    strikes: (u32, Moment),
    /// How often the breaker has opened without a long time in between.
    trips: u32,
    /// When it closed last.
    closed_at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown { failures: u32 },
    Closed { lagging: bool },
    Open { until: Moment, failures: u32 },
    HalfOpen { failures: u32, successes: u32 },
    Down { successes: u32 },
}

impl Condition {
    /// Nothing known.
    pub const UNKNOWN: Self = Self {
        state: State::Unknown { failures: 0 },
        strikes: (0, Moment::START),
        trips: 0,
        closed_at: Moment::START,
    };

    /// The node's state in a word.
    pub const fn health(&self) -> Health {
        match self.state {
            State::Unknown { .. } => Health::Unknown,
            State::Closed { lagging: false } => Health::Healthy,
            State::Closed { lagging: true } => Health::Lagging,
            State::Open { .. } | State::HalfOpen { .. } => Health::Suspect,
            State::Down { .. } => Health::Down,
        }
    }

    /// The breaker.
    pub const fn breaker(&self) -> Breaker {
        match self.state {
            State::Unknown { .. } | State::Closed { .. } => Breaker::Closed,
            State::HalfOpen { .. } => Breaker::HalfOpen,
            State::Open { .. } | State::Down { .. } => Breaker::Open,
        }
    }

    /// True if the monitor should knock with a connection of its own now.
    pub fn wants_probe(&self, now: Moment) -> bool {
        match self.state {
            State::Open { until, .. } => now >= until,
            State::HalfOpen { .. } => true,
            State::Unknown { .. } | State::Closed { .. } | State::Down { .. } => false,
        }
    }

    /// After a sample, or a probe, that was answered. The first answer ever is
    /// enough for a node to be healthy.
    pub fn answered(&mut self, now: Moment, over: Over, limits: &Thresholds) {
        let enough = |successes: u32| successes.saturating_add(1) >= limits.up_after;
        match (self.state, over) {
            (State::Unknown { .. }, _) => self.close(now),
            (State::Closed { .. }, _) => {}
            (State::Open { until, .. }, Over::FreshConnection) if now >= until => {
                if enough(0) {
                    self.close(now);
                } else {
                    self.state = State::HalfOpen { failures: 0, successes: 1 };
                }
            }
            (State::Open { .. }, _) => {}
            (State::HalfOpen { successes, .. }, Over::FreshConnection) => {
                if enough(successes) {
                    self.close(now);
                } else {
                    let successes = successes.saturating_add(1);
                    self.state = State::HalfOpen { failures: 0, successes };
                }
            }
            // A connection that stands says nothing of new ones.
            (State::HalfOpen { .. }, Over::StandingConnection) => {}
            (State::Down { successes }, _) => {
                if enough(successes) {
                    self.close(now);
                } else {
                    self.state = State::Down { successes: successes.saturating_add(1) };
                }
            }
        }
    }

    /// After a sample, a probe or a connection attempt of the monitor's that
    /// failed or came too late.
    pub fn failed(&mut self, now: Moment, limits: &Thresholds) {
        let failures = match self.state {
            State::Unknown { failures } | State::Open { failures, .. } => failures,
            State::HalfOpen { failures, .. } => failures,
            State::Closed { .. } => 0,
            State::Down { .. } => {
                self.state = State::Down { successes: 0 };
                return;
            }
        };
        let failures = failures.saturating_add(1);
        if failures >= limits.down_after {
            self.state = State::Down { successes: 0 };
            return;
        }
        self.state = match self.state {
            State::Unknown { .. } => State::Unknown { failures },
            State::Open { until, .. } if now < until => State::Open { until, failures },
            // The monitor connects anew at once: its connection is the probe.
            State::Closed { .. } => State::HalfOpen { failures, successes: 0 },
            State::Open { .. } | State::HalfOpen { .. } => {
                State::Open { until: self.trip(now, limits), failures }
            }
            State::Down { .. } => State::Down { successes: 0 },
        };
    }

    /// A connection of a client to the node could not be made, or broke.
    pub fn struck(&mut self, now: Moment, limits: &Thresholds) {
        let (count, since) = self.strikes;
        self.strikes = if count == 0 || now.since(since) > limits.strike_window {
            (1, now)
        } else {
            (count.saturating_add(1), since)
        };
        match self.state {
            State::Closed { .. } if self.strikes.0 >= limits.strikes_max => {
                self.state = State::Open { until: self.trip(now, limits), failures: 0 };
            }
            // It is not well yet, whatever the probes say.
            State::HalfOpen { failures, .. } => {
                self.state = State::Open { until: self.trip(now, limits), failures };
            }
            State::Closed { .. }
            | State::Unknown { .. }
            | State::Open { .. }
            | State::Down { .. } => {}
        }
    }

    /// The node misses so much of its primary's log.
    pub fn trails(&mut self, lag: Millis, limits: &Thresholds) {
        let State::Closed { lagging } = self.state else { return };
        let bound =
            if lagging { limits.lagging_after.count() / 2 } else { limits.lagging_after.count() };
        self.state = State::Closed { lagging: lag.count() > bound };
    }

    /// It takes no part in what lags any more.
    pub fn leads(&mut self) {
        if let State::Closed { .. } = self.state {
            self.state = State::Closed { lagging: false };
        }
    }

    fn close(&mut self, now: Moment) {
        self.state = State::Closed { lagging: false };
        self.strikes = (0, now);
        self.closed_at = now;
    }

    /// Until when the breaker, which opens now, stays open.
    fn trip(&mut self, now: Moment, limits: &Thresholds) -> Moment {
        if now.since(self.closed_at) > limits.forget_after {
            self.trips = 0;
        }
        let factor = 1_u64.checked_shl(self.trips).unwrap_or(u64::MAX);
        self.trips = self.trips.saturating_add(1);
        self.strikes = (0, now);
        let wait = limits.open_min.count().saturating_mul(factor).min(limits.open_max.count());
        now.after(Millis::new(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Thresholds = Thresholds {
        down_after: 3,
        up_after: 2,
        strikes_max: 3,
        strike_window: Millis::new(1_000),
        open_min: Millis::new(100),
        open_max: Millis::new(400),
        forget_after: Millis::new(5_000),
        lagging_after: Millis::new(1_000),
    };

    fn letter(condition: &Condition) -> char {
        match condition.health() {
            Health::Unknown => '?',
            Health::Healthy => 'H',
            Health::Lagging => 'L',
            Health::Suspect => 'S',
            Health::Down => 'D',
        }
    }

    /// Plays `script`, one event each 10 ms (`+` an answer, `p` one over a
    /// fresh connection, `-` a failure, `x` a client's connection that broke,
    /// `l` far behind, `m` less so, `n` near, `.` 100 ms of nothing), and
    /// compares the states after each.
    fn check(script: &str, expected: &str) {
        let mut condition = Condition::UNKNOWN;
        let mut ms = 10_000;
        let mut seen = String::new();
        for event in script.chars() {
            ms += 10;
            let now = Moment::from_ms(ms);
            match event {
                '+' => condition.answered(now, Over::StandingConnection, &LIMITS),
                'p' => condition.answered(now, Over::FreshConnection, &LIMITS),
                '-' => condition.failed(now, &LIMITS),
                'x' => condition.struck(now, &LIMITS),
                'l' => condition.trails(Millis::new(1_001), &LIMITS),
                'm' => condition.trails(Millis::new(700), &LIMITS),
                'n' => condition.trails(Millis::new(500), &LIMITS),
                _ => ms += 90,
            }
            seen.push(letter(&condition));
        }
        assert_eq!(seen, expected, "{script}");
    }

    #[test]
    fn the_first_answer_makes_a_node_healthy() {
        check("p", "H");
        check("-p", "?H");
        check("---", "??D");
    }

    #[test]
    fn one_failure_makes_it_suspect_and_three_in_a_row_down() {
        check("p-", "HS");
        check("p-pp", "HSSH");
        check("p---", "HSSD");
    }

    #[test]
    fn it_comes_back_after_several_answers_only() {
        check("p---p-+", "HSSDDDD");
        check("p---p+", "HSSDDH");
        check("p-+++", "HSSSS");
    }

    #[test]
    fn clients_failures_open_the_breaker_if_they_come_together() {
        check("pxx+", "HHHH");
        check("pxxx", "HHHS");
        check("px..........x.x", "HHHHHHHHHHHHHHH");
    }

    #[test]
    fn while_the_breaker_is_open_no_answer_closes_it() {
        check("pxxxpppp", "HHHSSSSS");
        check("pxxx.p+p", "HHHSSSSH");
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_longer() {
        check("pxxx.p-.pp", "HHHSSSSSSS");
        check("pxxx.p-..pp", "HHHSSSSSSSH");
        // And so does a client's connection while it is half open.
        check("pxxx.px.pp", "HHHSSSSSSS");
        check("pxxx.px..pp", "HHHSSSSSSSH");
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_begins_anew_after_a_long_time() {
        let mut condition = Condition::UNKNOWN;
        let mut now = Moment::from_ms(10_000);
        let mut waits = Vec::new();
        for round in 0..6 {
            condition.answered(now, Over::FreshConnection, &LIMITS);
            condition.answered(now, Over::FreshConnection, &LIMITS);
            assert_eq!(condition.health(), Health::Healthy);
            if round == 5 {
                now = now.after(Millis::new(5_001));
            }
            (0..3).for_each(|_| condition.struck(now, &LIMITS));
            let opened = now;
            while !condition.wants_probe(now) {
                assert_eq!(condition.breaker(), Breaker::Open);
                now = now.after(Millis::new(10));
            }
            waits.push(now.since(opened).count());
        }
        assert_eq!(waits, [100, 200, 400, 400, 400, 100]);
    }

    /// Random events, and what must hold of every change they make.
    #[test]
    fn no_sequence_of_events_breaks_the_rules() {
        let mut rng = 0x9E37_79B9_7F4A_7C15_u64;
        let mut dice = |sides: u64| {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            (rng >> 11) % sides
        };
        let mut condition = Condition::UNKNOWN;
        let (mut now, mut opened) = (Moment::from_ms(10_000), Moment::START);
        // Answers over fresh connections, any answers, and failures, in a row.
        let (mut fresh, mut answers, mut failures) = (0, 0, 0);
        let mut changes = 0;
        for _ in 0..200_000 {
            now = now.after(Millis::new(dice(60)));
            let before = condition;
            match dice(10) {
                0..=2 => {
                    condition.answered(now, Over::StandingConnection, &LIMITS);
                    (answers, failures) = (answers + 1, 0);
                }
                3..=5 => {
                    condition.answered(now, Over::FreshConnection, &LIMITS);
                    (fresh, answers, failures) = (fresh + 1, answers + 1, 0);
                }
                6 | 7 => {
                    condition.failed(now, &LIMITS);
                    (fresh, answers, failures) = (0, 0, failures + 1);
                }
                8 => condition.struck(now, &LIMITS),
                _ => condition.trails(Millis::new(dice(2_000)), &LIMITS),
            }
            let (was, is) = (before.health(), condition.health());
            if before.breaker() != Breaker::Open && condition.breaker() == Breaker::Open {
                opened = now;
            }
            changes += u32::from(was != is);
            match (was, is) {
                (Health::Suspect, Health::Healthy) => {
                    assert!(fresh >= 2, "two probes in a row");
                    let first = u64::from(before.trips > 0) * 100;
                    assert!(now.since(opened).count() >= first, "the breaker stays open at first");
                }
                (Health::Suspect, Health::Lagging) => panic!("first it is well"),
                (Health::Down, Health::Healthy) => assert!(answers >= 2),
                (Health::Down, Health::Suspect | Health::Lagging | Health::Unknown) => {
                    panic!("down ends by answers only");
                }
                (_, Health::Down) if was != Health::Down => {
                    assert!(failures >= 1, "by a failure of the monitor's, not of clients'");
                }
                (Health::Healthy | Health::Lagging, Health::Unknown) => panic!("it was known"),
                _ => {}
            }
            assert!(!condition.wants_probe(now) || condition.health() == Health::Suspect);
        }
        assert!(changes > 10_000, "{changes}");
    }

    #[test]
    fn lagging_begins_at_the_limit_and_ends_at_half_of_it() {
        check("pnlmnml", "HHLLHHL");
        // Who answers and lags is no suspect; who is suspect is not asked how far.
        check("pl-lpp", "HLSSSH");
    }
}
