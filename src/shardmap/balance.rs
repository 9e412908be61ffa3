//! Which slots to give to other shards so that all shards bear about as much.
//!
//! From the shard that bears most to the one that bears least, as long as that
//! helps: so nothing moves twice, and what moves is what one has too much and
//! the other too little of. Runs of neighbouring slots go together, because
//! each run is one move. The same weights give the same answer. What a weight
//! is, rows or bytes or work, is the caller's to know; tenants that are pinned
//! stay, and weigh on their shard.

use std::collections::BTreeMap;

use crate::types::{ShardId, SlotId};

/// A slot that may go to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The keyspace's position in the map.
    pub keyspace: usize,
    /// The slot.
    pub slot: SlotId,
    /// Who owns it.
    pub owner: ShardId,
    /// How much it weighs.
    pub weight: u64,
}

/// Neighbouring slots that change their shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The keyspace's position in the map.
    pub keyspace: usize,
    /// The first slot.
    pub first: SlotId,
    /// The last, included.
    pub last: SlotId,
    /// Who owns them.
    pub from: ShardId,
    /// Who shall.
    pub to: ShardId,
    /// How much they weigh together.
    pub weight: u64,
}

/// What the shards bear, and may bear.
#[derive(Clone, Debug)]
pub struct Balance {
    pieces: Vec<Piece>,
    /// What each shard bears now, and after the hops so far.
    loads: BTreeMap<ShardId, u64>,
    /// Shards that shall own nothing.
    emptied: Vec<ShardId>,
}

impl Balance {
    /// The shards with what they bear beside `pieces`, which belong to them.
    /// Those of `emptied` shall have no piece in the end.
    pub fn new(fixed: BTreeMap<ShardId, u64>, mut pieces: Vec<Piece>, emptied: &[ShardId]) -> Self {
        pieces.sort_by_key(|piece| (piece.keyspace, piece.slot));
        let mut loads = fixed;
        for piece in &pieces {
            let load = loads.entry(piece.owner).or_default();
            *load = load.saturating_add(piece.weight);
        }
        Self { pieces, loads, emptied: emptied.to_vec() }
    }

    /// What each shard bears.
    pub const fn loads(&self) -> &BTreeMap<ShardId, u64> {
        &self.loads
    }

    /// Moves slots until no shard bears more or less than the mean by more than
    /// `tolerance` hundredths of it, or nothing helps; returns what has moved.
    pub fn level(&mut self, tolerance: u64) -> Vec<Hop> {
        let mut hops = self.empty();
        while let Some(hop) = self.next_hop(tolerance) {
            self.take(hop);
            hops.push(hop);
        }
        joined(hops)
    }

    /// Gives the slots of shards that shall have none to those with least.
    fn empty(&mut self) -> Vec<Hop> {
        let mut hops = Vec::new();
        for shard in self.emptied.clone() {
            while let Some(first) = self.pieces.iter().position(|piece| piece.owner == shard) {
                let Some((to, load)) = self.receivers().next() else { return hops };
                let left = self.loads.get(&shard).copied().unwrap_or(0);
                let mean = self.mean().max(load.saturating_add(1));
                let room = mean.saturating_sub(load).min(left.max(1));
                let last = self.run_from(first, room);
                let Some(hop) = self.hop(first, last, to) else { return hops };
                self.take(hop);
                hops.push(hop);
            }
        }
        hops
    }

    /// The last piece of the run that begins at `first` and weighs at most
    /// `room`; `first` itself in any case.
    fn run_from(&self, first: usize, room: u64) -> usize {
        let Some(begin) = self.pieces.get(first) else { return first };
        let (mut last, mut weight) = (first, begin.weight);
        for (index, piece) in self.pieces.iter().enumerate().skip(first.saturating_add(1)) {
            let neighbours =
                self.pieces.get(last).is_some_and(|before| are_neighbours(before, piece));
            weight = weight.saturating_add(piece.weight);
            if !neighbours || weight > room {
                break;
            }
            last = index;
        }
        last
    }

    /// Shards that may get slots, those with least first.
    fn receivers(&self) -> impl Iterator<Item = (ShardId, u64)> {
        let mut all: Vec<(ShardId, u64)> = self
            .loads
            .iter()
            .map(|(shard, load)| (*shard, *load))
            .filter(|(shard, _)| !self.emptied.contains(shard))
            .collect();
        all.sort_by_key(|(shard, load)| (*load, *shard));
        all.into_iter()
    }

    fn mean(&self) -> u64 {
        let count = u64::try_from(self.receivers().count()).unwrap_or(u64::MAX);
        let sum = self.loads.values().fold(0_u64, |sum, load| sum.saturating_add(*load));
        sum.checked_div(count).unwrap_or(0)
    }

    fn next_hop(&self, tolerance: u64) -> Option<Hop> {
        let mean = self.mean();
        let slack = (u128::from(mean) * u128::from(tolerance)) / 100;
        let slack = u64::try_from(slack).unwrap_or(u64::MAX);
        let all: Vec<(ShardId, u64)> = self.receivers().collect();
        let high = mean.saturating_add(slack);
        let low = mean.saturating_sub(slack);
        for (from, most) in all.iter().rev() {
            for (to, least) in &all {
                if most <= least || (*most <= high && *least >= low) {
                    break;
                }
                // More would only change who has too much.
                let gap = most - least;
                let wanted = most.saturating_sub(mean).min(mean.saturating_sub(*least));
                // Always less than the gap, so that each hop leaves less of it.
                let hop = self.best(*from, *to, wanted, gap);
                if hop.is_some() {
                    return hop;
                }
            }
        }
        None
    }

    /// The run of `from` that weighs most without weighing more than `wanted`;
    /// else the lightest slot that weighs less than `gap`.
    fn best(&self, from: ShardId, to: ShardId, wanted: u64, gap: u64) -> Option<Hop> {
        let mut best: Option<(u64, usize, usize)> = None;
        let mut light: Option<(u64, usize)> = None;
        let own = |piece: &&Piece| piece.owner == from;
        let mut begin = 0;
        let mut weight = 0_u64;
        for (end, piece) in self.pieces.iter().enumerate() {
            let before = end.checked_sub(1).and_then(|before| self.pieces.get(before));
            if !before.is_some_and(|before| are_neighbours(before, piece)) {
                (begin, weight) = (end, 0);
            }
            if !own(&piece) {
                continue;
            }
            if piece.weight > 0 && light.is_none_or(|(least, _)| piece.weight < least) {
                light = Some((piece.weight, end));
            }
            weight = weight.saturating_add(piece.weight);
            while weight > wanted && begin <= end {
                let gone = self.pieces.get(begin).map_or(0, |piece| piece.weight);
                weight = weight.saturating_sub(gone);
                begin = begin.saturating_add(1);
            }
            if weight > 0 && begin <= end && best.is_none_or(|(most, ..)| weight > most) {
                best = Some((weight, begin, end));
            }
        }
        match (best, light) {
            (Some((_, begin, end)), _) => self.hop(begin, end, to),
            (None, Some((weight, at))) if weight < gap => self.hop(at, at, to),
            (None, _) => None,
        }
    }

    fn hop(&self, begin: usize, end: usize, to: ShardId) -> Option<Hop> {
        let all = self.pieces.get(begin..=end)?;
        let (first, last) = (all.first()?, all.last()?);
        Some(Hop {
            keyspace: first.keyspace,
            first: first.slot,
            last: last.slot,
            from: first.owner,
            to,
            weight: all.iter().fold(0, |sum, piece| sum.saturating_add(piece.weight)),
        })
    }

    fn take(&mut self, hop: Hop) {
        for piece in &mut self.pieces {
            let inside = hop.first <= piece.slot && piece.slot <= hop.last;
            if piece.keyspace == hop.keyspace && inside {
                piece.owner = hop.to;
            }
        }
        let from = self.loads.entry(hop.from).or_default();
        *from = from.saturating_sub(hop.weight);
        let to = self.loads.entry(hop.to).or_default();
        *to = to.saturating_add(hop.weight);
    }
}

/// Whether two pieces of one shard can go in one move.
fn are_neighbours(before: &Piece, piece: &Piece) -> bool {
    before.keyspace == piece.keyspace
        && before.owner == piece.owner
        && before.slot.number().checked_add(1) == Some(piece.slot.number())
}

/// Hops in the order of their slots; those that follow each other as one.
fn joined(mut hops: Vec<Hop>) -> Vec<Hop> {
    hops.sort_by_key(|hop| (hop.keyspace, hop.first));
    let mut out: Vec<Hop> = Vec::new();
    for hop in hops {
        match out.last_mut() {
            Some(last)
                if (last.keyspace, last.from, last.to) == (hop.keyspace, hop.from, hop.to)
                    && last.last.number().checked_add(1) == Some(hop.first.number()) =>
            {
                last.last = hop.last;
                last.weight = last.weight.saturating_add(hop.weight);
            }
            _ => out.push(hop),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(owners: &[(u16, u64)]) -> Vec<Piece> {
        (0..)
            .zip(owners)
            .map(|(slot, (owner, weight))| Piece {
                keyspace: 0,
                slot: SlotId::new(slot),
                owner: ShardId::new(*owner),
                weight: *weight,
            })
            .collect()
    }

    fn fixed(loads: &[u64]) -> BTreeMap<ShardId, u64> {
        (1..).map(ShardId::new).zip(loads.iter().copied()).collect()
    }

    fn shown(hops: &[Hop]) -> Vec<(u32, u32, u16, u64)> {
        hops.iter()
            .map(|hop| (hop.first.number(), hop.last.number(), hop.to.number(), hop.weight))
            .collect()
    }

    #[test]
    fn an_empty_shard_gets_its_part_in_one_run() {
        let all: Vec<(u16, u64)> = (0..100).map(|_| (1, 10)).collect();
        let mut balance = Balance::new(fixed(&[0, 0]), pieces(&all), &[]);
        assert_eq!(shown(&balance.level(5)), [(0, 49, 2, 500)]);
        assert_eq!(balance.level(5), [], "once is enough");
    }

    #[test]
    fn a_pinned_tenant_weighs_on_its_shard() {
        let all = [(1, 10), (1, 10), (2, 10), (2, 10)];
        let mut balance = Balance::new(fixed(&[20, 0]), pieces(&all), &[]);
        assert_eq!(shown(&balance.level(5)), [(0, 0, 2, 10)]);
        assert_eq!(balance.loads()[&ShardId::new(1)], 30);
    }

    #[test]
    fn a_shard_can_be_emptied() {
        let all = [(1, 4), (1, 4), (2, 4), (3, 4), (3, 4), (3, 0)];
        let mut balance = Balance::new(fixed(&[0, 0, 0]), pieces(&all), &[ShardId::new(3)]);
        let hops = balance.level(0);
        assert!(hops.iter().all(|hop| hop.from == ShardId::new(3)), "{hops:?}");
        assert_eq!(balance.loads()[&ShardId::new(3)], 0);
        assert!(balance.pieces.iter().all(|piece| piece.owner != ShardId::new(3)));
    }

    proptest! {
        /// No slot is lost, nobody's load grows beyond what was the greatest,
        /// nothing moves twice, and in the end one slot is the difference.
        #[test]
        fn shards_bear_alike_and_no_slot_is_lost(
            owners in proptest::collection::vec((1_u16..5, 0_u64..1000), 1..300),
            pinned in proptest::collection::vec(0_u64..5000, 4),
            emptied in proptest::option::of(1_u16..5),
        ) {
            let emptied: Vec<ShardId> = emptied.map(ShardId::new).into_iter().collect();
            let mut fixed = fixed(&pinned);
            for shard in &emptied {
                fixed.insert(*shard, 0);
            }
            let before = pieces(&owners);
            let mut balance = Balance::new(fixed.clone(), before.clone(), &emptied);
            let (old, mut again) = (balance.clone(), balance.clone());
            let hops = balance.level(5);
            prop_assert_eq!(&again.level(5), &hops, "the same again");

            let mut owner: BTreeMap<u32, ShardId> =
                before.iter().map(|piece| (piece.slot.number(), piece.owner)).collect();
            let mut moved = 0;
            for hop in &hops {
                moved += hop.weight;
                for slot in hop.first.number()..=hop.last.number() {
                    prop_assert_eq!(owner.insert(slot, hop.to), Some(hop.from), "moves once");
                }
            }
            prop_assert_eq!(owner.len(), before.len());
            for piece in &balance.pieces {
                prop_assert_eq!(owner[&piece.slot.number()], piece.owner);
                prop_assert!(!emptied.contains(&piece.owner));
            }
            let mut loads = fixed.clone();
            for piece in &balance.pieces {
                *loads.entry(piece.owner).or_default() += piece.weight;
            }
            prop_assert_eq!(&loads, balance.loads(), "the loads are those of the pieces");
            if emptied.is_empty() {
                let mean = old.mean();
                let over: u64 = old.loads().values().map(|load| load.saturating_sub(mean)).sum();
                let heaviest = before.iter().map(|piece| piece.weight).max().unwrap_or(0);
                prop_assert!(moved <= over + heaviest * 4, "{moved} moved, {over} were too much");
                prop_assert!(loads.values().max() <= old.loads().values().max());
            }
        }
    }

    #[test]
    fn a_mean_that_is_no_whole_number_is_come_near_to_and_no_more() {
        let all = [(1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1), (2, 1), (2, 1)];
        let mut balance = Balance::new(fixed(&[0, 0, 0]), pieces(&all), &[]);
        balance.level(5);
        let loads: Vec<u64> = balance.loads().values().copied().collect();
        assert!(loads.iter().all(|load| (2..=3).contains(load)), "{loads:?}");
    }

    #[test]
    fn nothing_but_one_slot_is_the_difference() {
        let all: Vec<(u16, u64)> = (0..400).map(|n| (1, 1 + (n * 7919) % 97)).collect();
        let mut balance = Balance::new(fixed(&[0, 0, 0]), pieces(&all), &[]);
        let hops = balance.level(5);
        let loads: Vec<u64> = balance.loads().values().copied().collect();
        let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
        assert!(most - least <= balance.mean() / 10, "{loads:?}");
        assert!(hops.len() <= 4, "{hops:?}");
    }
}
