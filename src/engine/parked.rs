//! Waits of a read that has no backend yet: for a replica that has proven
//! enough, for the end of a write that the session may have seen, for a primary.
//!
//! What qualifies a replica is `cluster`'s to decide, and where a read goes that
//! need not wait is `reads`'. A wait ends at its limit, and then at the primary.

use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use crate::cluster::{Demand, Mark, Passed, ReadReason, SampleNumber, Wanted, Writer};
use crate::net::clock;
use crate::session::{Refused, Span, Want};
use crate::types::{Consistency, Millis, Moment, SqlState};

use super::driver::{Driver, Moved};

/// A read that waits.
#[derive(Clone, Copy)]
pub(super) struct Parked {
    want: Want,
    until: Moment,
    for_what: WaitsFor,
    /// The sample whose proof makes a replica fit, whatever is in flight.
    sight: Option<SampleNumber>,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// The end of a write that the session may have seen.
    Write,
    /// A replica that has proven enough.
    Replica,
    /// A primary: there is none.
    Primary,
    /// The replica of the running transaction has proven enough.
    Fresh,
}

impl Driver {
    /// What a read at `level` wants, also one that has waited for a connection.
    pub(super) fn wanted_at_length(&self, want: Want, level: Consistency) -> Wanted {
        match self.wanted(want, level) {
            Wanted::Marks(Demand::InFlight) if self.sees_by_session(want, level) => {
                Wanted::Marks(Demand::Proof(self.all_seen(want)))
            }
            wanted => wanted,
        }
    }

    /// The sample whose proof lets a replica serve a read that no replica's
    /// marks allow; `known` if it has waited for one. `None`: no other than the
    /// marks say.
    ///
    /// Of a transaction nobody knows what it reads, and on a busy shard something
    /// is always in flight. What is in flight nobody was told of; the session may
    /// have seen it all the same, by reads that have ended.
    pub(super) fn sight(
        &self,
        want: Want,
        level: Consistency,
        reason: ReadReason,
        known: Option<SampleNumber>,
    ) -> Option<SampleNumber> {
        if known.is_some() {
            return known;
        }
        if level != Consistency::Slot {
            return None;
        }
        if reason == ReadReason::WriteInFlight {
            return self.sees_by_session(want, level).then(|| self.all_seen(want));
        }
        // All that the session can have seen is acknowledged.
        (want.span == Span::Transaction).then(|| self.acknowledged(want))
    }

    fn sees_by_session(&self, want: Want, level: Consistency) -> bool {
        level == Consistency::Slot && (want.span == Span::Transaction || self.is_unsettled(want))
    }

    /// The sample that shows what was acknowledged to what is read.
    fn acknowledged(&self, want: Want) -> SampleNumber {
        self.database.marks.need(want.shard, want.mark).max(self.reads.after)
    }

    /// The sample that also shows whatever the session has seen.
    fn all_seen(&self, want: Want) -> SampleNumber {
        self.acknowledged(want).max(self.reads.need)
    }

    /// True if a write is in flight that the session may have seen on a replica
    /// before the primary shows it, and that this read may look at.
    fn is_unsettled(&self, want: Want) -> bool {
        let marks = &self.database.marks;
        self.reads.unsettled.iter().any(|(shard, seen)| {
            let both = || Mark::shared_with(*seen, want.mark);
            *shard == want.shard
                && both().is_some_and(|mark| marks.demand(*shard, mark) == Demand::InFlight)
        })
    }

    /// True if a read that can't be had from a replica now waits, before the
    /// primary serves it, for a write that the session may have seen.
    pub(super) fn settles_first(&mut self, want: Want) -> bool {
        if self.reads.unsettled.is_empty() {
            return false;
        }
        let marks = &self.database.marks;
        self.reads
            .unsettled
            .retain(|(shard, mark)| marks.demand(*shard, *mark) == Demand::InFlight);
        if self.level(want) != Consistency::Slot || !self.is_unsettled(want) {
            self.reads.settles_until = None;
            return false;
        }
        let now = clock::now();
        let until = *self.reads.settles_until.get_or_insert(now.after(SETTLE_WAIT));
        if now >= until {
            self.forget_unsettled();
            return false;
        }
        // What a replica has failed the primary runs.
        let sight = self.reads.again.is_none().then(|| self.all_seen(want));
        self.park_until(Parked { want, until, for_what: WaitsFor::Write, sight });
        true
    }

    fn forget_unsettled(&mut self) {
        self.reads.unsettled.clear();
        self.reads.settles_until = None;
    }

    /// How long a read waits for a replica, if it does.
    pub(super) fn replica_wait(&self, want: Want, reason: ReadReason) -> Option<Millis> {
        let reads = &self.thread.settings.reads;
        let behind = matches!(reason, ReadReason::NoneFit(passed) if passed.too_far > 0);
        let wait = match want.span {
            Span::Unit => reads.replica_wait,
            Span::Transaction => reads.transaction_wait.max(reads.replica_wait),
        };
        let waits = match want.span {
            Span::Unit => matches!(reason, ReadReason::NoneFit(_)),
            Span::Transaction => behind || reason == ReadReason::WriteInFlight,
        };
        (waits && wait > Millis::ZERO).then_some(wait)
    }

    pub(super) fn park(&mut self, want: Want, wait: Millis, for_what: WaitsFor) {
        self.park_for(want, wait, for_what, None);
    }

    pub(super) fn park_for(
        &mut self,
        want: Want,
        wait: Millis,
        for_what: WaitsFor,
        sight: Option<SampleNumber>,
    ) {
        self.park_until(Parked { want, until: clock::now().after(wait), for_what, sight });
    }

    fn park_until(&mut self, parked: Parked) {
        if parked.sight.is_some() || self.level(parked.want) == Consistency::Session {
            // What the session has seen wakes nobody by itself.
            self.database.marks.ask_for_sample();
        }
        self.reads.parked = Some(parked);
        let entry = Rc::clone(&self.entry);
        entry.parked.set(true);
        self.thread.spawn(async move {
            while entry.parked.get() {
                tokio::time::sleep(LOOK_AGAIN).await;
                entry.wake();
            }
        });
    }

    /// Looks whether what is waited for has come.
    pub(super) fn poll_parked(&mut self, cx: &mut Context<'_>) -> Moved {
        let Some(parked) = self.reads.parked else { return Moved::Nothing };
        let late = clock::now() >= parked.until;
        if !late && !self.has_come(parked) {
            return Moved::Nothing;
        }
        self.take_parked();
        if self.looks_again() {
            self.feed_kept(cx);
            return Moved::Something;
        }
        let want = parked.want;
        let has_backend = match parked.for_what {
            WaitsFor::Replica if late => {
                if self.settles_first(want) {
                    return Moved::Something;
                }
                self.thread.stats.note_read(ReadReason::NoneFit(Passed::default()));
                self.bring_primary(want)
            }
            WaitsFor::Primary if late => {
                self.refuse_without_primary(want);
                true
            }
            WaitsFor::Primary => self.bring_primary(want),
            WaitsFor::Write | WaitsFor::Replica => {
                if late {
                    self.forget_unsettled();
                }
                self.bring_seeing(want, parked.sight)
            }
            WaitsFor::Fresh => {
                self.end_wait_for_fresh(want);
                true
            }
        };
        if has_backend {
            self.feed_kept(cx);
        }
        Moved::Something
    }

    fn has_come(&self, parked: Parked) -> bool {
        let Parked { want, for_what, sight, .. } = parked;
        let level = self.level(want);
        let seen = || {
            sight.is_some_and(|sight| {
                let wanted = Wanted::Marks(Demand::Proof(sight));
                self.choose(want, level, wanted).node().is_some()
            })
        };
        match for_what {
            WaitsFor::Write => !self.is_unsettled(want) || seen(),
            WaitsFor::Fresh => self.is_fresh(want),
            WaitsFor::Replica => {
                let reason = self.choose(want, level, self.wanted(want, level)).reason();
                let waits = matches!(reason, ReadReason::NoneFit(_))
                    || (reason == ReadReason::WriteInFlight && want.span == Span::Transaction);
                !waits || seen()
            }
            WaitsFor::Primary => self
                .database
                .with_cluster(|cluster| cluster.writer_of(want.shard) != Some(Writer::Absent)),
        }
    }

    fn refuse_without_primary(&mut self, want: Want) {
        let name = self.database.shard_name(want.shard);
        let wait = self.thread.settings.pool.checkout_timeout;
        let refused =
            Refused::new(CANNOT_CONNECT_NOW, format!("shard {name} has had no primary for {wait}"))
                .hint(
                    "its nodes are replicas: promote one, then run it again; SHOW NODES lists them",
                );
        self.session.refuse_checkout(refused);
    }

    fn take_parked(&mut self) -> bool {
        self.entry.parked.set(false);
        self.reads.parked.take().is_some()
    }

    /// Gives a wait up; true if there was one.
    pub(super) fn unpark(&mut self) -> bool {
        self.reads.settles_until = None;
        self.take_parked()
    }
}

/// `cannot_connect_now`
const CANNOT_CONNECT_NOW: SqlState = SqlState::new("57P03");
/// Longest wait for a write that the session may have seen.
const SETTLE_WAIT: Millis = Millis::new(100);
/// How often a waiting read looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
