//! Marks: what a write leaves behind, so that a read knows which samples of
//! the primary a replica must have replayed.
//!
//! Arithmetic only; the words themselves belong to the shell. A write marks
//! its slot twice: when it is sent (one more is in flight) and when it is
//! acknowledged (the slot needs a sample that had not begun yet, and one less
//! is in flight). Order comes from the samples' numbers, never from a clock.

use std::num::NonZeroU64;

use crate::types::SlotId;

/// The number of a sample of a primary, counted from 1 in the order in which
/// the samples of a database's shards began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleNumber(u64);

impl SampleNumber {
    /// Before the first sample.
    pub const NONE: Self = Self(0);

    /// The sample with this count.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// The count.
    pub const fn count(self) -> u64 {
        self.0
    }

    /// The sample that begins after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The word of a slot, by its index. Slots may share one: then each waits for
/// the other's writes too, which is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotMark(u16);

impl SlotMark {
    /// How many words there are.
    pub const COUNT: usize = 1 << BITS;

    /// The word of `slot` in a keyspace; `spread` is the same in every map that
    /// has the keyspace, so that a write under one map concerns the reads under
    /// the next.
    pub const fn of(spread: u32, slot: SlotId) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "masked to 14 bits")]
        let index = (spread.wrapping_add(slot.number()) as usize & (Self::COUNT - 1)) as u16;
        Self(index)
    }

    /// Position of the word.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What of a shard a statement reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Rows of these slots, provably nothing else.
    Slots(SlotMarks),
    /// Any of its rows: a read needs every mark of the shard, a write raises
    /// the mark that every read needs.
    Shard,
}

impl Mark {
    /// Rows of one slot, provably nothing else.
    pub const fn slot(slot: SlotMark) -> Self {
        Self::Slots(SlotMarks::one(slot))
    }

    /// What two statements touch together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Slots(one), Self::Slots(other)) => {
                one.with(other).map_or(Self::Shard, Self::Slots)
            }
            (Self::Shard, _) | (_, Self::Shard) => Self::Shard,
        }
    }

    /// What both may touch; `None` if nothing.
    pub fn shared_with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Shard, mark) | (mark, Self::Shard) => Some(mark),
            (Self::Slots(one), Self::Slots(other)) => {
                let both = one.iter().filter(|slot| other.iter().any(|own| own == *slot));
                both.map(Self::slot).reduce(Self::with)
            }
        }
    }
}

/// The words of one slot or a few: their number in the high byte, then the
/// words, the least lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotMarks(NonZeroU64);

impl SlotMarks {
    /// How many there may be.
    pub const MAX: u32 = 4;

    /// One.
    #[allow(clippy::cast_lossless, reason = "no other way in a constant function")]
    pub const fn one(slot: SlotMark) -> Self {
        match NonZeroU64::new(ONE_SLOT | slot.0 as u64) {
            Some(bits) => Self(bits),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The word, if there is only one.
    #[inline]
    pub const fn only(self) -> Option<SlotMark> {
        if self.0.get() >> COUNT_AT == 1 { Some(self.at(0)) } else { None }
    }

    /// The words, each once.
    pub fn iter(self) -> impl Iterator<Item = SlotMark> {
        (0..u32::try_from(self.0.get() >> COUNT_AT).unwrap_or(0)).map(move |place| self.at(place))
    }

    /// These and `other`; `None` if they are too many.
    fn with(self, other: Self) -> Option<Self> {
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        let (mut bits, mut count) = (0, 0);
        loop {
            let least = match (ours.peek(), theirs.peek()) {
                (Some(one), Some(other)) => *one.min(other),
                (Some(rest), None) | (None, Some(rest)) => *rest,
                (None, None) => break,
            };
            ours.next_if_eq(&least);
            theirs.next_if_eq(&least);
            if count == Self::MAX {
                return None;
            }
            bits |= u64::from(least.0) << (BITS * count);
            count += 1;
        }
        NonZeroU64::new(u64::from(count) << COUNT_AT | bits).map(Self)
    }

    const fn at(self, place: u32) -> SlotMark {
        #[allow(clippy::cast_possible_truncation, reason = "masked to 14 bits")]
        let index = (self.0.get() >> (BITS * place) & (SlotMark::COUNT as u64 - 1)) as u16;
        SlotMark(index)
    }
}

/// One mark: how many writes are in flight, and which sample the acknowledged
/// ones need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The word that was stored as `bits`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word as it is stored.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A replica must have replayed this sample.
    pub const fn need(self) -> SampleNumber {
        SampleNumber(self.0 & NEED_MAX)
    }

    /// Writes that were sent and not acknowledged.
    pub const fn in_flight(self) -> u64 {
        self.0 >> NEED_BITS
    }

    /// After a write was sent. A count that is full stays so for ever: the
    /// slot is then read on the primary.
    #[must_use]
    pub const fn sent(self) -> Self {
        if self.in_flight() == IN_FLIGHT_FULL { self } else { Self(self.0 + ONE) }
    }

    /// After the acknowledgement of a write that was sent; `started` is the
    /// newest sample that has begun.
    #[must_use]
    pub const fn acknowledged(self, started: SampleNumber) -> Self {
        let raised = self.raised(started);
        match raised.in_flight() {
            0 | IN_FLIGHT_FULL => raised,
            _ => Self(raised.0 - ONE),
        }
    }

    /// With a need that only a sample after `started` satisfies.
    #[must_use]
    pub const fn raised(self, started: SampleNumber) -> Self {
        let need = if started.0 >= NEED_MAX { NEED_MAX } else { started.0 + 1 };
        if need > self.0 & NEED_MAX { Self(self.0 & !NEED_MAX | need) } else { self }
    }
}

/// What a read of a mark has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// A write is in flight: only the primary is never behind itself.
    InFlight,
    /// A replica that has replayed this sample.
    Proof(SampleNumber),
}

impl Demand {
    /// The demand of a read that needs both words.
    pub const fn of(one: Word, other: Word) -> Self {
        if one.in_flight() | other.in_flight() > 0 {
            return Self::InFlight;
        }
        let (a, b) = (one.need().0, other.need().0);
        Self::Proof(SampleNumber(if a > b { a } else { b }))
    }

    /// The demand of a read that needs a further word.
    #[must_use]
    pub fn with(self, word: Word) -> Self {
        match self {
            Self::InFlight => Self::InFlight,
            Self::Proof(need) => match Self::of(word, Word::default()) {
                Self::InFlight => Self::InFlight,
                Self::Proof(other) => Self::Proof(need.max(other)),
            },
        }
    }
}

/// What the units of one transaction have touched on one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    slots: [SlotMark; SLOTS_MAX],
    len: u8,
    shard: bool,
}

impl Footprint {
    /// Nothing.
    pub const EMPTY: Self = Self { slots: [SlotMark(0); SLOTS_MAX], len: 0, shard: false };

    /// Adds a mark. What does not fit any more counts as the whole shard.
    pub fn add(&mut self, mark: Mark) {
        match mark {
            Mark::Slots(slots) => slots.iter().for_each(|slot| self.add_slot(slot)),
            Mark::Shard => self.shard = true,
        }
    }

    fn add_slot(&mut self, slot: SlotMark) {
        if self.slots().contains(&slot) {
            return;
        }
        match self.slots.get_mut(usize::from(self.len)) {
            Some(place) => {
                *place = slot;
                self.len += 1;
            }
            None => self.shard = true,
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for slot in other.slots() {
            self.add_slot(*slot);
        }
        self.shard |= other.shard;
    }

    /// True if nothing was touched.
    pub const fn is_empty(&self) -> bool {
        self.len == 0 && !self.shard
    }

    /// The slots.
    pub fn slots(&self) -> &[SlotMark] {
        self.slots.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// True if more than its slots may have been touched.
    pub const fn is_wide(&self) -> bool {
        self.shard
    }
}

/// Words for slots: 2^14.
const BITS: u32 = 14;
/// Low bits of a word: the need. 2^44 samples are 1,000 years at 500 a second.
const NEED_BITS: u32 = 44;
const NEED_MAX: u64 = (1 << NEED_BITS) - 1;
const ONE: u64 = 1 << NEED_BITS;
/// The high byte of several words: their number.
const COUNT_AT: u32 = 56;
const ONE_SLOT: u64 = 1 << COUNT_AT;
const IN_FLIGHT_FULL: u64 = u64::MAX >> NEED_BITS;
/// Slots that a footprint tells apart.
const SLOTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn number(count: u64) -> SampleNumber {
        SampleNumber::new(count)
    }

    fn slot_mark(slot: u32) -> Mark {
        Mark::slot(SlotMark::of(0, SlotId::new(slot)))
    }

    fn all_of(slots: &[u32]) -> Mark {
        slots.iter().map(|slot| slot_mark(*slot)).reduce(Mark::with).unwrap()
    }

    #[test]
    fn a_few_slots_are_a_mark_in_any_order_and_more_are_the_whole_shard() {
        assert_eq!(all_of(&[9, 4, 9, 16_383, 4, 0]), all_of(&[0, 4, 9, 16_383]));
        let Mark::Slots(slots) = all_of(&[9, 4, 16_383, 0]) else { panic!("four slots") };
        assert_eq!(slots.iter().map(SlotMark::index).collect::<Vec<_>>(), [0, 4, 9, 16_383]);
        assert_eq!(slots.only(), None);
        assert_eq!(all_of(&[9, 4, 16_383, 0, 5]), Mark::Shard);
        assert_eq!(all_of(&[3]).with(Mark::Shard), Mark::Shard);
        let Mark::Slots(one) = all_of(&[7, 7]) else { panic!("one slot") };
        assert_eq!(one.only(), Some(SlotMark::of(0, SlotId::new(7))));
    }

    #[test]
    fn marks_share_the_slots_that_both_have() {
        assert_eq!(all_of(&[1, 2, 3]).shared_with(all_of(&[3, 4, 2])), Some(all_of(&[2, 3])));
        assert_eq!(all_of(&[1]).shared_with(all_of(&[3, 4])), None);
        assert_eq!(all_of(&[1]).shared_with(Mark::Shard), Some(all_of(&[1])));
        assert_eq!(Mark::Shard.shared_with(all_of(&[1, 2])), Some(all_of(&[1, 2])));
    }

    #[test]
    fn an_acknowledged_write_needs_a_sample_that_had_not_begun() {
        let word = Word::default().sent();
        assert_eq!(word.in_flight(), 1);
        let word = word.acknowledged(number(7));
        assert_eq!((word.in_flight(), word.need()), (0, number(8)));
    }

    #[test]
    fn needs_only_grow_and_counts_are_kept_apart() {
        let word = Word::default().sent().sent().acknowledged(number(9)).acknowledged(number(3));
        assert_eq!((word.in_flight(), word.need()), (0, number(10)));
        let full = Word::default().raised(number(u64::MAX));
        assert_eq!(full.need().count(), NEED_MAX);
        assert_eq!(full.sent().need().count(), NEED_MAX);
    }

    #[test]
    fn a_full_count_keeps_the_slot_on_the_primary_for_ever() {
        let mut word = Word::from_bits(!NEED_MAX);
        for _ in 0..3 {
            word = word.sent().acknowledged(number(1)).acknowledged(number(2));
        }
        assert_eq!(Demand::of(word, Word::default()), Demand::InFlight);
    }

    #[test]
    fn a_read_needs_the_greater_of_its_words_and_nothing_in_flight() {
        let (low, high) = (Word::default().raised(number(3)), Word::default().raised(number(5)));
        assert_eq!(Demand::of(low, high), Demand::Proof(number(6)));
        assert_eq!(Demand::of(low.sent(), high), Demand::InFlight);
        assert_eq!(Demand::of(low, high.sent()), Demand::InFlight);
    }

    #[test]
    fn a_footprint_of_many_slots_is_the_whole_shard() {
        let mut footprint = Footprint::EMPTY;
        assert!(footprint.is_empty());
        for slot in [1, 2, 1, 3, 4, 2] {
            footprint.add(slot_mark(slot));
        }
        assert!(footprint.slots().len() == 4 && !footprint.is_wide());
        footprint.add(slot_mark(5));
        assert!(footprint.is_wide());
        let mut other = Footprint::EMPTY;
        other.merge(&footprint);
        assert!(other.is_wide() && other.slots() == footprint.slots());
    }

    #[test]
    fn the_slots_of_one_keyspace_have_words_of_their_own() {
        let words: std::collections::BTreeSet<_> =
            (0..4096).map(|slot| SlotMark::of(u32::MAX - 7, SlotId::new(slot))).collect();
        assert_eq!(words.len(), 4096);
        assert!(words.iter().all(|word| word.index() < SlotMark::COUNT));
    }
}
