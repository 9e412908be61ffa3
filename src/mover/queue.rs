//! Which moves of a database get a runner now: all that only stand and wait for
//! the operator, and of the others as many as may run at once, the oldest first.

use super::journal::{Journal, Phase, Side, Wish};

/// A move that may need a runner.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its journal.
    pub journal: &'a Journal,
    /// What the operator wants of it.
    pub wish: Wish,
    /// It has a runner here.
    pub runs: bool,
}

/// What follows for one that has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It gets one.
    Run,
    /// It waits for these.
    Wait(Vec<u32>),
}

/// Says of each unfinished move without a runner, in the order of `all`, whether
/// it gets one while at most `most` may work at once.
pub fn turns(all: &[Candidate<'_>], most: usize) -> Vec<(u32, Turn)> {
    let open = || all.iter().filter(|one| !one.journal.is_ended());
    let mut working: Vec<u32> =
        open().filter(|one| one.runs && !one.rests()).map(|one| one.journal.id).collect();
    let mut turns = Vec::new();
    for one in open().filter(|one| !one.runs) {
        let id = one.journal.id;
        if one.rests() && most > 0 {
            turns.push((id, Turn::Run));
        } else if working.len() < most {
            working.push(id);
            turns.push((id, Turn::Run));
        } else {
            turns.push((id, Turn::Wait(working.clone())));
        }
    }
    turns
}

impl Candidate<'_> {
    /// Whether it stands where the operator wants it to, and has nothing to do.
    fn rests(&self) -> bool {
        let Journal { phase, stopped, .. } = self.journal;
        stopped.is_some()
            || match (phase, self.wish) {
                (Phase::Standing(_), Wish::Pause)
                | (Phase::Standing(Side::Target), Wish::Run)
                | (Phase::Standing(Side::Source), Wish::Reverse) => true,
                (Phase::Cutting(_), _) => false,
                (_, Wish::Pause) => true,
                (_, Wish::Run | Wish::Abort | Wish::Reverse | Wish::Finish) => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mover::{End, Subject};
    use crate::shardmap::Map;
    use crate::types::ShardId;

    fn journal(id: u32, phase: Phase) -> Journal {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 1\nranges = { a = [\"0\"] }\n\
            [[key_rule]]\nkeyspace = \"k\"\ncolumn = \"t\"\ntables = [\"public.x\"]\n";
        let map = Map::parse(text, "map").unwrap();
        let begun = Journal::begin(&map, "k", Subject::Tenant("1".to_owned()), ShardId::new(2));
        Journal { id, phase, ..begun.unwrap() }
    }

    fn check(moves: &[(Phase, Wish, bool)], most: usize, expected: &[(u32, Turn)]) {
        let journals: Vec<Journal> =
            (1..).zip(moves).map(|(id, (phase, _, _))| journal(id, *phase)).collect();
        let all: Vec<Candidate<'_>> = journals
            .iter()
            .zip(moves)
            .map(|(journal, (_, wish, runs))| Candidate { journal, wish: *wish, runs: *runs })
            .collect();
        assert_eq!(turns(&all, most), expected, "{moves:?}");
    }

    #[test]
    fn who_works_counts_and_who_stands_does_not() {
        let copying = (Phase::Copying, Wish::Run, true);
        let new = (Phase::Guarding, Wish::Run, false);
        let switched = (Phase::Standing(Side::Target), Wish::Run, true);
        let ended = (Phase::Ended(End::Moved), Wish::Finish, false);
        check(&[copying, new], 1, &[(2, Turn::Wait(vec![1]))]);
        check(&[copying, new], 2, &[(2, Turn::Run)]);
        check(&[switched, ended, new, new], 1, &[(3, Turn::Run), (4, Turn::Wait(vec![3]))]);
        let finishing = (Phase::Standing(Side::Target), Wish::Finish, true);
        check(&[finishing, new], 1, &[(2, Turn::Wait(vec![1]))]);
        let paused = (Phase::Copying, Wish::Pause, true);
        check(&[paused, new], 1, &[(2, Turn::Run)]);
        let cutting = (Phase::Cutting(Side::Source), Wish::Pause, true);
        check(&[cutting, new], 1, &[(2, Turn::Wait(vec![1]))]);
        let standing = (Phase::Standing(Side::Target), Wish::Run, false);
        check(&[copying, standing], 1, &[(2, Turn::Run)]);
        check(&[new, standing], 0, &[(1, Turn::Wait(vec![])), (2, Turn::Wait(vec![]))]);
    }
}
