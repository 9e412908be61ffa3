//! Which routers may still send statements by an older map.
//!
//! Each router holds a lease: a row on the home shard that it renews, with the
//! epoch that its clients' statements go by. It counts the lease from before
//! it asked for it, and sends nothing once it has lapsed. Whoever waits for
//! older maps to be gone counts a row's age from when the answer that showed it
//! was read, and adds a margin. So the clock that ends a lease at its holder
//! has always begun earlier than the one that ends it for others, and no clock
//! is compared with another machine's: only how fast they go must be alike.
//!
//! A lease that was over is given again only with the newest map; that is the
//! store's to decide, together with the write. It does not know how rows are
//! read, or what a router does without a lease.
//!
//! Source: hazards 98 and 109 of `docs/hazards.md`.

use std::collections::BTreeMap;

use crate::types::{Epoch, Millis, Moment};

/// One router's row, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRow {
    /// Names the process.
    pub id: String,
    /// Names it for people.
    pub name: String,
    /// The map that its clients' statements go by.
    pub epoch: Epoch,
    /// How long its lease is.
    pub lease: Millis,
    /// Grows with every renewal.
    pub beat: i64,
    /// Phases of moves for which nothing older runs there any more.
    pub settled: Vec<String>,
    /// Seconds since the renewal, by the home server's clock: for people.
    pub quiet_s: i64,
}

/// The routers of one database, as one of them sees them.
#[derive(Clone, Debug, Default)]
pub struct Fleet(BTreeMap<String, Known>);

/// A row, and since when it has been as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The row.
    pub row: RouterRow,
    /// When it was read first in this form.
    pub since: Moment,
}

impl Known {
    /// Whether its router can't send anything any more by this lease.
    pub fn has_lapsed(&self, now: Moment) -> bool {
        now.since(self.since) > self.row.lease.plus(margin(self.row.lease))
    }
}

impl Fleet {
    /// Takes in all rows, whose answer was read `now`.
    pub fn look(&mut self, rows: Vec<RouterRow>, now: Moment) {
        let mut before = std::mem::take(&mut self.0);
        for row in rows {
            let since = match before.remove(&row.id) {
                Some(known) if known.row.beat == row.beat => known.since,
                Some(_) | None => now,
            };
            self.0.insert(row.id.clone(), Known { row, since });
        }
    }

    /// All of them, those too whose lease has lapsed.
    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.0.values()
    }

    /// Those that may still send by a map older than `epoch`.
    pub fn behind(&self, epoch: Epoch, now: Moment) -> Vec<&RouterRow> {
        self.live(now).filter(|row| row.epoch < epoch).collect()
    }

    /// Those where something may still run that knows less than the map of
    /// `epoch`, or does not know of the phase that `token` names.
    pub fn unsettled(&self, token: &str, epoch: Epoch, now: Moment) -> Vec<&RouterRow> {
        let settled = |row: &RouterRow| row.settled.iter().any(|one| one == token);
        self.live(now).filter(|row| row.epoch < epoch || !settled(row)).collect()
    }

    /// Those for which clients should not be held: they would not be through
    /// with a new map soon. They have an older one now, or a lease longer than
    /// `soon`, or have been quiet for most of theirs.
    pub fn doubtful(&self, epoch: Epoch, soon: Millis, now: Moment) -> Vec<&RouterRow> {
        let quiet = |known: &Known| {
            let age = now.since(known.since).count();
            age.saturating_mul(4) > known.row.lease.count().saturating_mul(3)
        };
        self.0
            .values()
            .filter(|known| !known.has_lapsed(now))
            .filter(|known| known.row.epoch < epoch || known.row.lease > soon || quiet(known))
            .map(|known| &known.row)
            .collect()
    }

    /// Rows that can be deleted: nobody sends by them.
    pub fn lapsed(&self, now: Moment) -> Vec<&RouterRow> {
        self.0.values().filter(|known| known.has_lapsed(now)).map(|known| &known.row).collect()
    }

    fn live(&self, now: Moment) -> impl Iterator<Item = &RouterRow> {
        self.0.values().filter(move |known| !known.has_lapsed(now)).map(|known| &known.row)
    }
}

/// A router's own lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    until: Moment,
    asked: Moment,
    length: Millis,
}

impl Tenure {
    /// Nothing was ever granted.
    pub const NONE: Self =
        Self { until: Moment::START, asked: Moment::START, length: Millis::ZERO };

    /// It asks for a lease of `length` `now`. Should the answer be lost, a
    /// shorter lease may have taken the place of a longer one.
    pub fn ask(&mut self, length: Millis, now: Moment) {
        self.asked = now;
        self.length = length;
        self.until = self.until.min(now.after(length));
    }

    /// What was asked for last is granted.
    pub fn grant(&mut self) {
        self.until = self.asked.after(self.length);
    }

    /// Until when statements may be sent.
    pub const fn until(&self) -> Moment {
        self.until
    }
}

/// What clocks may differ by in the time of a lease, and what passes between
/// the last look at the clock and the sending.
fn margin(lease: Millis) -> Millis {
    Millis::new(lease.count() / MARGIN_SHARE).max(MARGIN_LEAST)
}

/// The margin is the lease's length divided by this.
const MARGIN_SHARE: u64 = 4;
const MARGIN_LEAST: Millis = Millis::new(250);

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, epoch: u64, beat: i64) -> RouterRow {
        RouterRow {
            id: id.to_owned(),
            name: id.to_owned(),
            epoch: Epoch::new(epoch),
            lease: Millis::new(3_000),
            beat,
            settled: Vec::new(),
            quiet_s: 0,
        }
    }

    fn at(ms: u64) -> Moment {
        Moment::from_ms(ms)
    }

    fn names(rows: &[&RouterRow]) -> Vec<String> {
        rows.iter().map(|row| row.id.clone()).collect()
    }

    #[test]
    fn a_router_counts_until_its_row_was_the_same_for_a_lease_and_the_margin() {
        let mut fleet = Fleet::default();
        fleet.look(vec![row("a", 4, 1), row("b", 5, 9)], at(1_000));
        assert_eq!(names(&fleet.behind(Epoch::new(5), at(1_000))), ["a"]);
        fleet.look(vec![row("a", 4, 2), row("b", 5, 9)], at(2_000));
        assert_eq!(names(&fleet.behind(Epoch::new(5), at(5_750))), ["a"]);
        assert_eq!(names(&fleet.lapsed(at(5_750))), ["b"]);
        assert!(fleet.behind(Epoch::new(5), at(5_751)).is_empty());
        fleet.look(vec![row("a", 5, 3)], at(6_000));
        assert!(fleet.behind(Epoch::new(5), at(6_000)).is_empty());
        assert_eq!(names(&fleet.behind(Epoch::new(6), at(6_000))), ["a"]);
    }

    #[test]
    fn who_has_not_settled_is_waited_for_whatever_its_epoch() {
        let mut fleet = Fleet::default();
        let settled = RouterRow { settled: vec!["7:copying".to_owned()], ..row("a", 5, 1) };
        fleet.look(vec![settled, row("b", 5, 1)], at(0));
        assert_eq!(names(&fleet.unsettled("7:copying", Epoch::new(5), at(1))), ["b"]);
        assert_eq!(names(&fleet.unsettled("7:copying", Epoch::new(6), at(1))), ["a", "b"]);
        assert_eq!(names(&fleet.unsettled("7:purging", Epoch::new(5), at(1))), ["a", "b"]);
    }

    #[test]
    fn a_cutover_is_not_begun_for_a_router_that_is_quiet_behind_or_slow() {
        let mut fleet = Fleet::default();
        let long = RouterRow { lease: Millis::new(300_000), ..row("c", 5, 1) };
        fleet.look(vec![row("a", 5, 1), row("b", 4, 1), long], at(0));
        let doubtful = |now| names(&fleet.doubtful(Epoch::new(5), Millis::new(3_000), at(now)));
        assert_eq!(doubtful(0), ["b", "c"]);
        assert_eq!(doubtful(2_251), ["a", "b", "c"]);
        // Who is surely gone stands in nobody's way.
        assert_eq!(doubtful(4_000), ["c"]);
    }

    #[test]
    fn a_lease_counts_from_before_it_was_asked_for() {
        let mut own = Tenure::NONE;
        own.ask(Millis::new(300_000), at(10));
        assert_eq!(own.until(), at(0), "nothing was granted yet");
        own.grant();
        assert_eq!(own.until(), at(300_010));
        own.ask(Millis::new(3_000), at(20_000));
        assert_eq!(own.until(), at(23_000), "the answer may be lost");
        own.grant();
        assert_eq!(own.until(), at(23_000));
        own.ask(Millis::new(300_000), at(21_000));
        assert_eq!(own.until(), at(23_000));
    }
}
