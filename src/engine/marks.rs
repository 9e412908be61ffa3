//! The marks of a database: one word for each slot and two for each shard, in
//! memory that all threads share; and the count of the monitor's samples.
//!
//! What the words mean is `cluster`'s. Reads cost two loads, writes a few
//! exchanges of words that nobody else is likely to hold; nothing here waits,
//! but for the list of writes whose outcome is not known.
//! Indexes wrap: shards and slots that share a word wait for each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::cluster::{
    Demand, Footprint, Incarnation, Mark, SampleNumber, SlotMark, SlotMarks, Word,
};
use crate::types::{Moment, ShardId};

use super::strikes::Strikes;

/// Marks of one database.
#[derive(Debug)]
pub struct Marks {
    /// Samples that have begun, of all shards.
    started: AtomicU64,
    slots: Box<[AtomicU64]>,
    /// Raised by writes that may touch anything; needed by every read.
    wide: Box<[AtomicU64]>,
    /// Raised by every write; needed by reads that may touch anything.
    all: Box<[AtomicU64]>,
    /// By shard, what a replica must have proven whatever may be missing from it,
    /// and since when, in milliseconds: rows have come to the shard, or gone
    /// from it, by a move.
    moved: Box<[AtomicU64]>,
    moved_ms: Box<[AtomicU64]>,
    /// Somebody wants to see a sample with this number, or a later one.
    asked: AtomicU64,
    /// The monitor sleeps until the next heartbeat.
    asleep: AtomicBool,
    wake: Notify,
    orphans: Mutex<Vec<Orphan>>,
    /// Failures of clients' connections.
    pub strikes: Strikes,
}

/// A write whose connection was lost before its acknowledgement: it may commit
/// after that, so it stays in flight until its server process is gone.
#[derive(Clone, Copy, Debug)]
pub struct Orphan {
    /// The shard.
    pub shard: ShardId,
    /// The server process.
    pub pid: u32,
    /// The server, as it said at the login.
    pub incarnation: Option<Incarnation>,
    footprint: Footprint,
}

impl Marks {
    /// Marks that no write has raised.
    pub fn new() -> Arc<Self> {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            started: AtomicU64::new(0),
            slots: words(SlotMark::COUNT),
            wide: words(SHARD_WORDS),
            all: words(SHARD_WORDS),
            moved: words(SHARD_WORDS),
            moved_ms: words(SHARD_WORDS),
            asked: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            wake: Notify::new(),
            orphans: Mutex::new(Vec::new()),
            strikes: Strikes::default(),
        })
    }

    // === samples ===

    /// Numbers a sample; called before its request is sent.
    pub fn begin_sample(&self) -> SampleNumber {
        SampleNumber::new(self.started.fetch_add(1, Ordering::SeqCst).saturating_add(1))
    }

    /// The newest sample that has begun.
    pub fn started(&self) -> SampleNumber {
        SampleNumber::new(self.started.load(Ordering::SeqCst))
    }

    /// Asks for a sample that has not begun, as a new connection does: what it
    /// leads to is known only then.
    pub fn ask_for_sample(&self) {
        self.asked.fetch_max(self.started().next().count(), Ordering::SeqCst);
        self.rouse();
    }

    /// The sample of `shard`'s primary that somebody waits for.
    pub fn wanted_sample(&self, shard: ShardId) -> SampleNumber {
        self.newest_need(shard).max(SampleNumber::new(self.asked.load(Ordering::SeqCst)))
    }

    // === reads ===

    /// What a read of `mark` on `shard` needs.
    pub fn demand(&self, shard: ShardId, mark: Mark) -> Demand {
        match mark {
            Mark::Slots(slots) => match slots.only() {
                Some(slot) => Demand::of(load(self.slot(slot)), load(self.wide_of(shard))),
                None => self.demand_of_several(shard, slots),
            },
            Mark::Shard => Demand::of(load(self.all_of(shard)), Word::default()),
        }
    }

    /// The sample that shows every write to `mark` of `shard` that has been
    /// acknowledged, whatever is in flight.
    pub fn need(&self, shard: ShardId, mark: Mark) -> SampleNumber {
        match mark {
            Mark::Slots(slots) => {
                let wide = load(self.wide_of(shard)).need();
                slots.iter().fold(wide, |need, slot| need.max(load(self.slot(slot)).need()))
            }
            Mark::Shard => self.newest_need(shard),
        }
    }

    #[inline(never)]
    fn demand_of_several(&self, shard: ShardId, slots: SlotMarks) -> Demand {
        let wide = Demand::of(load(self.wide_of(shard)), Word::default());
        slots.iter().fold(wide, |demand, slot| demand.with(load(self.slot(slot))))
    }

    /// The newest sample that an acknowledged write to `shard` needs.
    pub fn newest_need(&self, shard: ShardId) -> SampleNumber {
        load(self.all_of(shard)).need()
    }

    // === writes ===

    /// A write is about to be sent.
    pub fn sent(&self, shard: ShardId, footprint: &Footprint) {
        for slot in footprint.slots() {
            change(self.slot(*slot), Word::sent);
        }
        if footprint.is_wide() {
            change(self.wide_of(shard), Word::sent);
        }
        change(self.all_of(shard), Word::sent);
    }

    /// A write that was sent is acknowledged, or can't happen any more.
    pub fn acknowledged(&self, shard: ShardId, footprint: &Footprint) {
        let started = self.started();
        for slot in footprint.slots() {
            change(self.slot(*slot), |word| word.acknowledged(started));
        }
        if footprint.is_wide() {
            change(self.wide_of(shard), |word| word.acknowledged(started));
        }
        change(self.all_of(shard), |word| word.acknowledged(started));
        self.rouse();
    }

    /// What was proven of `shard` so far holds no more: every read of it needs
    /// a sample that has not begun.
    pub fn renew(&self, shard: ShardId) {
        let started = self.started();
        change(self.wide_of(shard), |word| word.raised(started));
        change(self.all_of(shard), |word| word.raised(started));
        self.rouse();
    }

    /// Rows have come to `shard` or gone from it with their slots: a replica that
    /// has not replayed that would say of a tenant that it has no rows, or show
    /// them twice, which no staleness excuses.
    pub fn move_rows(&self, shard: ShardId, now: Moment) {
        let index = usize::from(shard.number()) % SHARD_WORDS;
        if let (Some(number), Some(ms)) = (self.moved.get(index), self.moved_ms.get(index)) {
            ms.fetch_max(now.ms(), Ordering::SeqCst);
            number.fetch_max(self.started().next().count(), Ordering::SeqCst);
        }
        self.renew(shard);
    }

    /// What every read of a replica of `shard` needs for that; none if nothing
    /// has moved since the start.
    pub fn rows_moved(&self, shard: ShardId) -> SampleNumber {
        let index = usize::from(shard.number()) % SHARD_WORDS;
        let number = self.moved.get(index).map_or(0, |word| word.load(Ordering::SeqCst));
        SampleNumber::new(number)
    }

    /// When that was.
    pub fn rows_moved_at(&self, shard: ShardId) -> Moment {
        let index = usize::from(shard.number()) % SHARD_WORDS;
        Moment::from_ms(self.moved_ms.get(index).map_or(0, |word| word.load(Ordering::SeqCst)))
    }

    // === the monitor's sleep ===

    /// Wakes the monitor if it sleeps. While it is awake this is one load.
    pub fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.notify_waiters();
        }
    }

    /// Waits until something was acknowledged. The caller looks for what it
    /// may have missed between its last look and this call.
    ///
    /// Cancel-safe: who stops waiting has missed nothing that it could not see.
    pub async fn roused(&self, anything_new: impl Fn() -> bool) {
        let notified = self.wake.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        self.asleep.store(true, Ordering::SeqCst);
        if anything_new() {
            return;
        }
        notified.await;
    }

    // === unknown outcomes ===

    /// The connection of a write that was sent is gone.
    pub fn orphan(&self, orphan: Orphan) {
        self.orphans().push(orphan);
        self.rouse();
    }

    /// True if there are such writes.
    pub fn has_orphans(&self) -> bool {
        !self.orphans().is_empty()
    }

    /// Writes to `shard` whose outcome is not known.
    pub fn orphans_of(&self, shard: ShardId) -> Vec<Orphan> {
        self.orphans().iter().filter(|orphan| orphan.shard == shard).copied().collect()
    }

    /// Settles the writes to `shard` of which `is_over` says that they can't
    /// commit any more.
    pub fn settle_orphans(&self, shard: ShardId, is_over: impl Fn(&Orphan) -> bool) {
        let mut over = Vec::new();
        self.orphans().retain(|orphan| {
            let done = orphan.shard == shard && is_over(orphan);
            if done {
                over.push(*orphan);
            }
            !done
        });
        for orphan in over {
            self.acknowledged(orphan.shard, &orphan.footprint);
        }
    }

    fn orphans(&self) -> MutexGuard<'_, Vec<Orphan>> {
        // Each step leaves the list whole, so a panic elsewhere did not harm it.
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, slot: SlotMark) -> Option<&AtomicU64> {
        self.slots.get(slot.index())
    }

    fn wide_of(&self, shard: ShardId) -> Option<&AtomicU64> {
        self.wide.get(usize::from(shard.number()) % SHARD_WORDS)
    }

    fn all_of(&self, shard: ShardId) -> Option<&AtomicU64> {
        self.all.get(usize::from(shard.number()) % SHARD_WORDS)
    }
}

/// A backend's account of what it has raised; whatever becomes of the backend,
/// the marks are not forgotten.
#[derive(Debug)]
pub(super) struct Account {
    marks: Arc<Marks>,
    shard: ShardId,
    pid: u32,
    incarnation: Option<Incarnation>,
    raised: Footprint,
}

impl Account {
    pub(super) fn new(
        marks: &Arc<Marks>,
        shard: ShardId,
        pid: u32,
        incarnation: Option<Incarnation>,
    ) -> Self {
        let marks = Arc::clone(marks);
        Self { marks, shard, pid, incarnation, raised: Footprint::EMPTY }
    }

    /// Raises what a unit exposes beyond what is raised already.
    pub(super) fn expose(&mut self, exposed: &Footprint) {
        if self.raised == *exposed {
            return;
        }
        // The old marks come off when the new ones stand: nobody sees a gap.
        let before = std::mem::replace(&mut self.raised, *exposed);
        self.raised.merge(&before);
        self.marks.sent(self.shard, &self.raised);
        if !before.is_empty() {
            self.marks.acknowledged(self.shard, &before);
        }
    }

    /// The unit is over.
    pub(super) fn settle(&mut self) {
        if !self.raised.is_empty() {
            let raised = std::mem::replace(&mut self.raised, Footprint::EMPTY);
            self.marks.acknowledged(self.shard, &raised);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.raised.is_empty() {
            self.marks.orphan(Orphan {
                shard: self.shard,
                pid: self.pid,
                incarnation: self.incarnation,
                footprint: self.raised,
            });
        }
    }
}

fn load(word: Option<&AtomicU64>) -> Word {
    // A word that is missing counts as never free.
    word.map_or(Word::from_bits(u64::MAX), |word| Word::from_bits(word.load(Ordering::SeqCst)))
}

fn change(word: Option<&AtomicU64>, to: impl Fn(Word) -> Word) {
    let Some(word) = word else { return };
    let mut bits = word.load(Ordering::SeqCst);
    loop {
        let new = to(Word::from_bits(bits)).bits();
        match word.compare_exchange_weak(bits, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return,
            Err(now) => bits = now,
        }
    }
}

/// Words for shards.
const SHARD_WORDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SlotId;

    const SHARD: ShardId = ShardId::new(3);

    fn slot(number: u32) -> Mark {
        Mark::slot(SlotMark::of(0, SlotId::new(number)))
    }

    fn footprint(marks: &[Mark]) -> Footprint {
        let mut footprint = Footprint::EMPTY;
        marks.iter().for_each(|mark| footprint.add(*mark));
        footprint
    }

    fn proof(count: u64) -> Demand {
        Demand::Proof(SampleNumber::new(count))
    }

    #[test]
    fn a_write_to_a_slot_concerns_its_readers_and_those_of_everything() {
        let marks = Marks::new();
        let one = footprint(&[slot(1)]);
        marks.begin_sample();
        marks.sent(SHARD, &one);
        assert_eq!(marks.demand(SHARD, slot(1)), Demand::InFlight);
        assert_eq!(marks.demand(SHARD, slot(2)), proof(0));
        assert_eq!(marks.demand(SHARD, Mark::Shard), Demand::InFlight);
        assert_eq!(marks.need(SHARD, slot(1)), SampleNumber::NONE);
        marks.begin_sample();
        marks.acknowledged(SHARD, &one);
        assert_eq!(marks.demand(SHARD, slot(1)), proof(3));
        assert_eq!(marks.demand(SHARD, slot(2)), proof(0));
        assert_eq!(marks.demand(SHARD, Mark::Shard), proof(3));
        marks.sent(SHARD, &one);
        assert_eq!(marks.need(SHARD, slot(1)), SampleNumber::new(3));
        assert_eq!(marks.need(SHARD, slot(2)), SampleNumber::NONE);
        marks.acknowledged(SHARD, &one);
        assert_eq!(marks.demand(ShardId::new(4), Mark::Shard), proof(0));
    }

    #[test]
    fn a_read_of_several_slots_needs_the_marks_of_each() {
        let marks = Marks::new();
        let both = slot(1).with(slot(2));
        marks.begin_sample();
        for written in [1, 2, 3] {
            let one = footprint(&[slot(written)]);
            let before = marks.demand(SHARD, both);
            marks.sent(SHARD, &one);
            let concerned = written < 3;
            let now = if concerned { Demand::InFlight } else { before };
            assert_eq!(marks.demand(SHARD, both), now, "{written}");
            marks.begin_sample();
            marks.acknowledged(SHARD, &one);
            let need = if concerned { marks.started().next() } else { marks.need(SHARD, slot(2)) };
            assert_eq!(marks.demand(SHARD, both), Demand::Proof(need), "{written}");
            assert_eq!(marks.need(SHARD, both), need, "{written}");
        }
        marks.sent(SHARD, &footprint(&[both]));
        for own in [slot(1), slot(2), both] {
            assert_eq!(marks.demand(SHARD, own), Demand::InFlight);
        }
        assert_ne!(marks.demand(SHARD, slot(3)), Demand::InFlight);
    }

    #[test]
    fn a_write_to_anything_concerns_every_reader_of_the_shard() {
        let marks = Marks::new();
        let all = footprint(&[Mark::Shard]);
        marks.sent(SHARD, &all);
        for mark in [slot(1), slot(2), Mark::Shard] {
            assert_eq!(marks.demand(SHARD, mark), Demand::InFlight);
        }
        marks.acknowledged(SHARD, &all);
        assert_eq!(marks.demand(SHARD, slot(9)), proof(1));
    }

    #[test]
    fn a_lost_connection_keeps_its_write_in_flight_until_it_is_settled() {
        let marks = Marks::new();
        let mut account = Account::new(&marks, SHARD, 77, None);
        account.expose(&footprint(&[slot(1)]));
        account.expose(&footprint(&[slot(1), slot(2)]));
        drop(account);
        assert_eq!(marks.demand(SHARD, slot(2)), Demand::InFlight);
        assert_eq!(marks.orphans_of(SHARD).len(), 1);
        marks.settle_orphans(SHARD, |orphan| orphan.pid != 77);
        assert_eq!(marks.demand(SHARD, slot(1)), Demand::InFlight);
        marks.settle_orphans(SHARD, |orphan| orphan.pid == 77);
        assert_eq!(marks.demand(SHARD, slot(1)), proof(1));
        assert_eq!(marks.demand(SHARD, Mark::Shard), proof(1));
        assert!(marks.orphans_of(SHARD).is_empty());
    }

    #[test]
    fn a_settled_account_leaves_nothing_in_flight() {
        let marks = Marks::new();
        let mut account = Account::new(&marks, SHARD, 1, None);
        account.expose(&footprint(&[slot(1)]));
        account.expose(&footprint(&[slot(1), Mark::Shard]));
        account.settle();
        drop(account);
        for mark in [slot(1), slot(5), Mark::Shard] {
            assert_eq!(marks.demand(SHARD, mark), proof(1));
        }
    }

    #[test]
    fn renewing_asks_every_read_for_a_sample_that_has_not_begun() {
        let marks = Marks::new();
        marks.begin_sample();
        marks.renew(SHARD);
        assert_eq!(marks.demand(SHARD, slot(4)), proof(2));
        assert_eq!(marks.demand(SHARD, Mark::Shard), proof(2));
        assert_eq!(marks.newest_need(SHARD), SampleNumber::new(2));
    }
}
