//! What a router is told of the moves: which are under way, whose keys are held
//! for a cutover, and on which side rows stand that their shard doesn't own.
//!
//! It goes by the journals as they were read, by the map that shall be in
//! force, and by what this router's own runners have begun since. Journals may
//! be older than that; a hold is never ended by one that is.
//!
//! Source: hazards 98, 99 and 101 of `docs/hazards.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::shardmap::{Map, MoveId, Moves, Moving, Phase as MovingPhase, Portion};
use crate::types::{ShardId, SlotId};

use super::journal::{Journal, Phase, Side, Subject};

/// The moves of one database, as its router tells them to its clients' threads.
#[derive(Clone, Debug, Default)]
pub struct Told {
    journals: Vec<Journal>,
    /// The side that each held move leaves.
    held: BTreeMap<u32, Side>,
    /// The last cutover of each move whose end is known.
    over: BTreeMap<u32, u64>,
    ended: BTreeSet<u32>,
}

impl Told {
    /// The store holds these, of all moves.
    pub fn look(&mut self, journals: impl Iterator<Item = Journal>) {
        self.journals = journals.collect();
    }

    /// A runner is here with this journal.
    pub fn meet(&mut self, journal: &Journal) {
        match self.journals.iter_mut().find(|known| known.id == journal.id) {
            Some(known) => known.clone_from(journal),
            None => self.journals.push(journal.clone()),
        }
    }

    /// A cutover begins: what would write waits.
    pub fn hold(&mut self, journal: &Journal) {
        self.meet(journal);
        if let Phase::Cutting(from) = journal.phase {
            self.held.insert(journal.id, from);
        }
    }

    /// The cutover is over, or has come to nothing.
    pub fn release(&mut self, journal: &Journal) {
        self.meet(journal);
        self.held.remove(&journal.id);
        self.over.insert(journal.id, journal.token);
    }

    /// The move's runner is gone, and did not say how far it came.
    pub fn abandon(&mut self, id: u32) {
        self.held.remove(&id);
    }

    /// Nothing is left of the move.
    pub fn end(&mut self, id: u32) {
        self.held.remove(&id);
        self.ended.insert(id);
    }

    /// What is under way while `map` is in force; `None` if that is more than
    /// a router tells apart.
    pub fn moves(&self, map: &Map) -> Option<Moves> {
        Moves::new(self.journals.iter().filter_map(|journal| self.moving(journal, map)).collect())
    }

    fn moving(&self, journal: &Journal, map: &Map) -> Option<Moving> {
        if !self.is_under_way(journal) {
            return None;
        }
        let owner = journal.owner_in(map)?;
        let (from, phase) = match (self.held_from(journal, owner), owner) {
            (Some(from), _) => (from, MovingPhase::Held),
            (None, Side::Source) => (Side::Source, MovingPhase::Watched),
            (None, Side::Target) => (Side::Source, MovingPhase::Switched),
        };
        let shard = |side: Side| ShardId::new(journal.shard(side));
        Some(Moving {
            id: MoveId::new(journal.id),
            keyspace: journal.keyspace.clone(),
            portion: match &journal.subject {
                Subject::Tenant(key) => Portion::Tenant(key.clone()),
                Subject::Slots { first, last } => {
                    Portion::Slots { first: SlotId::new(*first), last: SlotId::new(*last) }
                }
            },
            source: shard(from),
            target: shard(from.other()),
            phase,
        })
    }

    /// Before its fences stand, nothing was copied and nothing is refused.
    fn is_under_way(&self, journal: &Journal) -> bool {
        match journal.phase {
            Phase::Guarding | Phase::Ended(_) => false,
            Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Cutting(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_) => !self.ended.contains(&journal.id),
        }
    }

    /// Held by a runner here, or because the map is written and nobody has said
    /// yet that the new owner is open: it may still lack rows then.
    fn held_from(&self, journal: &Journal, owner: Side) -> Option<Side> {
        let held = self.held.get(&journal.id).copied();
        let is_over = self.over.get(&journal.id).is_some_and(|token| *token >= journal.token);
        held.or(match journal.phase {
            Phase::Cutting(from) if owner == from.other() && !is_over => Some(from),
            Phase::Cutting(_)
            | Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_)
            | Phase::Ended(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::End;

    fn map() -> Map {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 1\nranges = { a = [\"0\"] }\n\
            [[key_rule]]\nkeyspace = \"k\"\ncolumn = \"t\"\ntables = [\"public.x\"]\n";
        Map::parse(text, "map").unwrap()
    }

    fn switched() -> Map {
        let key = "42";
        map().with_tenant_on("k", key, ShardId::new(2)).unwrap()
    }

    fn journal(phase: Phase) -> Journal {
        let subject = Subject::Tenant("42".to_owned());
        let begun = Journal::begin(&map(), "k", subject, ShardId::new(2)).unwrap();
        Journal { id: 9, phase, token: 3, ..begun }
    }

    /// Phase and stranger.
    fn seen(told: &Told, map: &Map) -> Option<(MovingPhase, u16)> {
        let moves = told.moves(map).unwrap();
        let one = moves.iter().next();
        one.map(|moving| (moving.phase, moving.stranger().number()))
    }

    fn told(phase: Phase) -> Told {
        let mut told = Told::default();
        told.look([journal(phase)].into_iter());
        told
    }

    #[test]
    fn a_move_is_told_from_its_fences_until_nothing_is_left() {
        let before = map();
        assert_eq!(seen(&told(Phase::Guarding), &before), None);
        for phase in [Phase::Publishing, Phase::Copying, Phase::Standing(Side::Source)] {
            assert_eq!(seen(&told(phase), &before), Some((MovingPhase::Watched, 2)));
        }
        // Until the target is purged it has rows that it does not own.
        let aborted = told(Phase::Purging(End::Aborted));
        assert_eq!(seen(&aborted, &before), Some((MovingPhase::Watched, 2)));
        let moved = told(Phase::Standing(Side::Target));
        assert_eq!(seen(&moved, &switched()), Some((MovingPhase::Switched, 1)));
        assert_eq!(seen(&told(Phase::Ended(End::Moved)), &switched()), None);
        let mut late = told(Phase::Clearing(End::Moved));
        late.end(9);
        assert_eq!(seen(&late, &switched()), None, "the look was older than the end");
    }

    #[test]
    fn a_hold_lasts_over_the_new_map_and_older_looks_until_it_is_released() {
        let cutting = journal(Phase::Cutting(Side::Source));
        let mut told = told(Phase::Standing(Side::Source));
        told.hold(&cutting);
        assert_eq!(seen(&told, &map()), Some((MovingPhase::Held, 2)));
        told.look([journal(Phase::Standing(Side::Source))].into_iter());
        assert_eq!(seen(&told, &map()).map(|seen| seen.0), Some(MovingPhase::Held));
        assert_eq!(seen(&told, &switched()).map(|seen| seen.0), Some(MovingPhase::Held));
        told.release(&cutting);
        assert_eq!(seen(&told, &switched()), Some((MovingPhase::Switched, 1)));
        told.look([cutting].into_iter());
        assert_eq!(seen(&told, &switched()), Some((MovingPhase::Switched, 1)));
    }

    #[test]
    fn going_back_is_held_from_the_other_side() {
        let mut told = told(Phase::Standing(Side::Target));
        let back = journal(Phase::Cutting(Side::Target));
        told.hold(&back);
        assert_eq!(seen(&told, &switched()), Some((MovingPhase::Held, 1)));
        told.release(&back);
        assert_eq!(seen(&told, &map()), Some((MovingPhase::Watched, 2)));
    }

    #[test]
    fn an_owner_that_nobody_has_seen_open_is_held_and_an_abandoned_old_one_is_not() {
        let mut told = told(Phase::Standing(Side::Source));
        told.hold(&journal(Phase::Cutting(Side::Source)));
        told.abandon(9);
        assert_eq!(seen(&told, &map()), Some((MovingPhase::Watched, 2)));
        assert_eq!(seen(&told, &switched()).map(|seen| seen.0), Some(MovingPhase::Held));
    }
}
