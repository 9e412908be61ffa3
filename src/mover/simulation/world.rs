//! Two databases, a store and two routers, as far as moves know them; and the
//! ways in which each could be built wrong.

use std::collections::BTreeSet;

use crate::mover::{Action, End, Journal, Outcome, Phase, Side, Sight};

/// One thing left out or done in the wrong order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Nothing,
    /// Writers look at the state, then lock.
    CheckBeforeLock,
    /// The fence is set without waiting for its way to the disk.
    FenceNotFlushed,
    /// The target is open from the start.
    TargetOpen,
    /// Nobody waits for the marker.
    NoMarker,
    /// The target opens without looking for the marker again.
    OpenBlindly,
    /// The target opens before all routers have the map.
    OpenBeforeAcks,
    /// A word that was overtaken by a later one still counts.
    NoTokens,
    /// After a crash the owner before is opened, whatever the map says.
    UndoAlways,
    /// The rows are purged while the stream still runs, without an origin.
    PurgeIntoStream,
    /// The fences go while a router may still have the old map.
    FencesGoEarly,
    /// Sequences stay behind.
    NoCarry,
    /// The streams send back what came from the other side.
    NoOrigins,
    /// The journal is written whoever wrote it last.
    NoVersions,
}

/// What a transaction changed: its row's number and the counter afterwards.
#[derive(Clone, Copy, Debug)]
enum Change {
    Write { id: u64, counter: u64, came: bool },
    Delete { id: u64 },
    Marker(u64),
}

#[derive(Clone, Debug, Default)]
struct Db {
    rows: BTreeSet<u64>,
    counter: u64,
    sequence: u64,
    /// `None` without a fence.
    open: Option<bool>,
    generation: u64,
    fenced: u64,
    undone: u64,
    /// The other side's marker, as it arrived here.
    marker: u64,
    /// How much of the other's stream is applied here; `None` without a
    /// subscription.
    applied: Option<usize>,
}

/// A writer's transaction.
#[derive(Clone, Copy, Debug)]
struct Writer {
    side: Side,
    step: Step,
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    First,
    Second,
    Third,
    Commit,
}

/// A word to a database that may arrive later than its sender thinks.
#[derive(Clone, Copy, Debug)]
enum Word {
    Fence(Side, u64, u64),
    Open(Side, u64, u64),
    Unfence(Side, u64, u64),
}

pub(super) struct World {
    pub(super) wrong: Wrong,
    random: u64,
    db: [Db; 2],
    /// What survives a crash: each as of its last flush.
    disk: [Db; 2],
    /// What each side has committed, in order.
    stream: [Vec<Change>; 2],
    writers: Vec<Writer>,
    locked: [bool; 2],
    late: Vec<Word>,
    pub(super) journal: Journal,
    pub(super) version: u64,
    pub(super) owner: Side,
    routers: [Side; 2],
    acknowledged: BTreeSet<u64>,
    maybe: BTreeSet<u64>,
    pub(super) violations: Vec<String>,
    /// Faults happen.
    pub(super) rough: bool,
}

const fn at(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Target => 1,
    }
}

impl World {
    pub(super) fn new(seed: u64, wrong: Wrong, journal: Journal) -> Self {
        let mut source = Db { sequence: 3, counter: 3, ..Db::default() };
        source.rows.extend([1, 2, 3]);
        Self {
            wrong,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            disk: [source.clone(), Db::default()],
            db: [source, Db::default()],
            stream: [Vec::new(), Vec::new()],
            writers: Vec::new(),
            locked: [false; 2],
            late: Vec::new(),
            journal,
            version: 0,
            owner: Side::Source,
            routers: [Side::Source; 2],
            acknowledged: [1, 2, 3].into(),
            maybe: BTreeSet::new(),
            violations: Vec::new(),
            rough: true,
        }
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit.max(1)
    }

    fn blame(&mut self, what: String) {
        self.violations.push(what);
    }

    fn flush(&mut self, side: Side) {
        self.disk[at(side)] = self.db[at(side)].clone();
    }

    /// Some of what goes on beside the move: writers, readers, streams, routers
    /// that hear of the map, words that arrive late, crashes of servers.
    pub(super) fn live(&mut self, steps: u64) {
        for _ in 0..steps {
            match self.below(12) {
                0 | 1 => self.begin(),
                2..=6 => self.write(),
                7 | 8 => {
                    for _ in 0..self.below(8) {
                        self.apply();
                    }
                }
                9 => self.read(),
                10 => {
                    let router = usize::from(self.chance(2));
                    self.routers[router] = self.owner;
                }
                _ => self.trouble(),
            }
            if self.db.iter().all(|db| db.open == Some(true)) {
                self.blame("both sides are open".to_owned());
            }
        }
    }

    fn trouble(&mut self) {
        if !self.late.is_empty() && self.chance(2) {
            let index = self.below(self.late.len() as u64) as usize;
            let word = self.late.swap_remove(index);
            self.hear(word);
        }
        if self.rough && self.chance(6) {
            let side = if self.chance(2) { Side::Source } else { Side::Target };
            self.crash(side);
        }
    }

    fn crash(&mut self, side: Side) {
        // What was not flushed is gone; open transactions too.
        self.db[at(side)] = self.disk[at(side)].clone();
        self.writers.retain(|writer| writer.side != side);
        self.locked[at(side)] = false;
    }

    fn begin(&mut self) {
        if self.writers.len() < 4 {
            let router = usize::from(self.chance(2));
            let side = self.routers[router];
            self.writers.push(Writer { side, step: Step::First, id: 0 });
        }
    }

    /// One step of one writer. The counter's row is locked by who has written
    /// it, until he commits.
    fn write(&mut self) {
        if self.writers.is_empty() {
            return;
        }
        let index = self.below(self.writers.len() as u64) as usize;
        let mut writer = self.writers[index];
        let side = writer.side;
        let fenced = self.db[at(side)].open.is_some();
        let lock_first = self.wrong != Wrong::CheckBeforeLock;
        let refused = match writer.step {
            Step::First | Step::Second if fenced => {
                if lock_first == (writer.step == Step::First) {
                    self.locked[at(side)]
                } else {
                    self.db[at(side)].open != Some(true)
                }
            }
            Step::First | Step::Second | Step::Third | Step::Commit => false,
        };
        if refused {
            self.writers.remove(index);
            return;
        }
        writer.step = match writer.step {
            Step::First => Step::Second,
            Step::Second => Step::Third,
            Step::Third => {
                let busy = |w: &Writer| w.side == side && w.step == Step::Commit;
                if self.writers.iter().any(busy) {
                    return;
                }
                self.db[at(side)].sequence += 1;
                writer.id = self.db[at(side)].sequence;
                Step::Commit
            }
            Step::Commit => {
                self.writers.remove(index);
                self.commit(side, writer.id);
                return;
            }
        };
        self.writers[index] = writer;
    }

    fn commit(&mut self, side: Side, id: u64) {
        let db = &mut self.db[at(side)];
        if !db.rows.insert(id) {
            self.blame(format!("row {id} was there before it was written"));
            return;
        }
        db.counter += 1;
        let counter = db.counter;
        self.stream[at(side)].push(Change::Write { id, counter, came: false });
        self.flush(side);
        if self.rough && self.chance(10) {
            // The answer was lost: the client knows nothing.
            self.maybe.insert(id);
        } else {
            self.acknowledged.insert(id);
        }
    }

    /// One side applies one transaction of the other's stream, without a flush.
    fn apply(&mut self) {
        let side = if self.chance(2) { Side::Source } else { Side::Target };
        let Some(applied) = self.db[at(side)].applied else { return };
        let Some(change) = self.stream[at(side.other())].get(applied).copied() else { return };
        let forwards = self.wrong == Wrong::NoOrigins;
        let db = &mut self.db[at(side)];
        db.applied = Some(applied + 1);
        match change {
            Change::Write { id, counter, came } => {
                if came && !forwards {
                    return;
                }
                let doubled = !db.rows.insert(id);
                db.counter = counter;
                self.stream[at(side)].push(Change::Write { id, counter, came: true });
                if doubled {
                    self.blame(format!("row {id} arrived twice"));
                }
            }
            Change::Delete { id } => drop(db.rows.remove(&id)),
            Change::Marker(token) => db.marker = token,
        }
    }

    fn read(&mut self) {
        let router = usize::from(self.chance(2));
        let side = self.routers[router];
        // The owner's rows are all visible to whoever asks it; another side
        // that is open may have acknowledged more.
        let other = &self.db[at(side.other())];
        if self.owner != side && other.open == Some(true) {
            let missing = self.acknowledged.iter().any(|id| !self.db[at(side)].rows.contains(id));
            if missing {
                self.blame(format!("router {router} read from {side:?} what is old"));
            }
        }
    }

    // === what the runner asks for ===

    /// Tables and streams are no part of the model: what they say is chance.
    fn examine(&mut self, from: Side) -> Outcome {
        match (self.rough, self.below(8), from) {
            (true, 0, _) => Outcome::Failed,
            (true, 1, _) => Outcome::Impossible("a table has changed".to_owned()),
            (true, 2, Side::Source) => Outcome::Waiting,
            _ => Outcome::Done,
        }
    }

    fn obeyed(&self, side: Side, generation: u64) -> bool {
        self.db[at(side)].generation == generation
    }

    fn hear(&mut self, word: Word) -> Outcome {
        let tokens = self.wrong != Wrong::NoTokens;
        match word {
            Word::Fence(side, generation, token) => {
                if self.writers.iter().any(|w| w.side == side && holds(*w, self.wrong)) {
                    return Outcome::Refused;
                }
                if !self.obeyed(side, generation) || tokens && self.db[at(side)].undone >= token {
                    return Outcome::Lost;
                }
                let flushed = self.wrong != Wrong::FenceNotFlushed;
                let db = &mut self.db[at(side)];
                db.fenced = db.fenced.max(token);
                db.open = Some(false);
                self.stream[at(side)].push(Change::Marker(token));
                if flushed {
                    self.flush(side);
                }
                Outcome::Done
            }
            Word::Open(side, generation, token) => {
                if !self.obeyed(side, generation) || tokens && self.db[at(side)].fenced >= token {
                    return Outcome::Lost;
                }
                let blind = matches!(self.wrong, Wrong::OpenBlindly | Wrong::NoMarker);
                if self.db[at(side)].marker != token && !blind {
                    return Outcome::Waiting;
                }
                self.db[at(side)].open = Some(true);
                self.flush(side);
                Outcome::Done
            }
            Word::Unfence(side, generation, token) => {
                if !self.obeyed(side, generation) || tokens && self.db[at(side)].fenced > token {
                    return Outcome::Lost;
                }
                let db = &mut self.db[at(side)];
                db.undone = db.undone.max(token);
                db.open = Some(true);
                self.flush(side);
                Outcome::Done
            }
        }
    }

    /// Says a word; it may be heard at once, later, or its answer get lost.
    fn say(&mut self, word: Word) -> Outcome {
        if !self.rough || !self.chance(6) {
            return self.hear(word);
        }
        if self.chance(2) {
            self.hear(word);
        } else {
            self.late.push(word);
        }
        Outcome::Failed
    }

    fn keep(&mut self, version: u64, next: &Journal, owner: Option<Side>) -> Outcome {
        if self.version != version && self.wrong != Wrong::NoVersions {
            let done = self.version == version + 1 && self.journal == *next;
            return if done { Outcome::Done } else { Outcome::Lost };
        }
        self.version = version + 1;
        self.journal = next.clone();
        if let Some(owner) = owner {
            self.owner = owner;
        }
        if self.rough && self.chance(10) { Outcome::Failed } else { Outcome::Done }
    }

    /// Carries out what a runner with this journal's version asks for.
    pub(super) fn act(&mut self, version: u64, by: &Journal, action: &Action) -> Outcome {
        let generation = by.generation;
        match action {
            Action::Keep(next) => self.keep(version, next, None),
            Action::Switch(next, owner) => self.keep(version, next, Some(*owner)),
            Action::Seize(side) => {
                let db = &mut self.db[at(*side)];
                db.generation = db.generation.max(generation);
                let obeyed = db.generation == generation;
                self.flush(*side);
                if obeyed { Outcome::Done } else { Outcome::Lost }
            }
            Action::Guard(side) => self.guard(*side),
            Action::Subscribe(side) => self.subscribe(*side),
            Action::AwaitCopy | Action::Publish(_) | Action::Unpublish(_) | Action::Verify => {
                Outcome::Done
            }
            Action::Inspect => self.inspect(by.phase),
            Action::Examine(from) => self.examine(*from),
            Action::Hold | Action::Unsettle(_) | Action::Release | Action::Rest => Outcome::Done,
            Action::Fence(side, token) => self.fence(*side, generation, *token),
            Action::AwaitMarker(side, token) => self.await_marker(*side, *token),
            Action::Settle(to) => self.settle(*to),
            Action::Announce => {
                let all = self.routers.iter().all(|side| *side == self.owner);
                if all || self.wrong == Wrong::OpenBeforeAcks {
                    Outcome::Done
                } else {
                    Outcome::Waiting
                }
            }
            Action::AwaitLeases => {
                let lost = self.owner.other();
                // Nor may a transaction be under way that began with an old map.
                let all = self.routers.iter().all(|side| *side == self.owner)
                    && !self.writers.iter().any(|writer| writer.side == lost);
                if all || self.wrong == Wrong::FencesGoEarly {
                    Outcome::Done
                } else {
                    Outcome::Waiting
                }
            }
            Action::Open(side, token) => self.say(Word::Open(*side, generation, *token)),
            Action::Unfence(side, token) => self.say(Word::Unfence(*side, generation, *token)),
            Action::FenceBoth => {
                self.blame("a runner found a side open that had to be closed".to_owned());
                Outcome::Done
            }
            Action::Unsubscribe(side) => {
                if self.wrong != Wrong::PurgeIntoStream {
                    self.db[at(*side)].applied = None;
                    self.flush(*side);
                }
                Outcome::Done
            }
            Action::Purge(side) => self.purge(*side, generation),
            Action::Unguard(side) => self.unguard(*side),
            Action::Leave => Outcome::Done,
        }
    }

    fn inspect(&self, phase: Phase) -> Outcome {
        let owner = match (self.wrong, phase) {
            (Wrong::UndoAlways, Phase::Cutting(from)) => from,
            _ => self.owner,
        };
        let open = |side: Side| self.db[at(side)].open == Some(true);
        Outcome::Seen(Sight {
            source_open: open(Side::Source),
            target_open: open(Side::Target) && self.wrong != Wrong::UndoAlways,
            owner,
        })
    }

    fn fence(&mut self, side: Side, generation: u64, token: u64) -> Outcome {
        // The lock is asked for, holders go on, newcomers are refused.
        self.locked[at(side)] = true;
        let steps = self.below(12);
        self.live(steps);
        let outcome = self.say(Word::Fence(side, generation, token));
        self.locked[at(side)] = false;
        outcome
    }

    fn await_marker(&mut self, side: Side, token: u64) -> Outcome {
        if self.db[at(side)].marker == token || self.wrong == Wrong::NoMarker {
            Outcome::Done
        } else if self.chance(8) {
            Outcome::Refused
        } else {
            Outcome::Waiting
        }
    }

    fn settle(&mut self, to: Side) -> Outcome {
        if self.wrong != Wrong::NoCarry {
            let ahead = self.db[at(to.other())].sequence + 1;
            let db = &mut self.db[at(to)];
            db.sequence = db.sequence.max(ahead);
            self.flush(to);
        }
        Outcome::Done
    }

    fn guard(&mut self, side: Side) -> Outcome {
        let open = side == Side::Source || self.wrong == Wrong::TargetOpen;
        let db = &mut self.db[at(side)];
        if db.open.is_none() {
            db.open = Some(open);
        }
        // Writers that were under way when the triggers came have ended.
        self.writers.retain(|writer| writer.side != side);
        self.flush(side);
        Outcome::Done
    }

    fn subscribe(&mut self, side: Side) -> Outcome {
        let other = self.db[at(side.other())].clone();
        let end = self.stream[at(side.other())].len();
        let db = &mut self.db[at(side)];
        if db.applied.is_none() {
            db.applied = Some(end);
            if side == Side::Target {
                db.rows.clone_from(&other.rows);
                db.counter = other.counter;
                db.sequence = db.sequence.max(1);
            }
        }
        self.flush(side);
        Outcome::Subscribed(7)
    }

    fn purge(&mut self, side: Side, generation: u64) -> Outcome {
        if !self.obeyed(side, generation) {
            return Outcome::Lost;
        }
        let gone: Vec<u64> = std::mem::take(&mut self.db[at(side)].rows).into_iter().collect();
        if self.wrong == Wrong::PurgeIntoStream {
            let deletes = gone.into_iter().map(|id| Change::Delete { id });
            self.stream[at(side)].extend(deletes);
        }
        self.flush(side);
        Outcome::Done
    }

    fn unguard(&mut self, side: Side) -> Outcome {
        self.db[at(side)].open = None;
        self.flush(side);
        Outcome::Done
    }

    /// Everything that must be true once the move has ended and all is quiet.
    pub(super) fn judge(&mut self, end: End) {
        let keeper = end.keeper();
        // Whoever is under way ends, whatever is on its way arrives.
        for _ in 0..2000 {
            self.write();
            self.apply();
        }
        let (kept, lost) = (self.db[at(keeper)].clone(), self.db[at(keeper.other())].clone());
        if self.owner != keeper {
            self.blame("the map names the other side".to_owned());
        }
        let missing: Vec<_> = self.acknowledged.difference(&kept.rows).copied().collect();
        if !missing.is_empty() {
            self.blame(format!("acknowledged rows are lost: {missing:?}"));
        }
        let known: BTreeSet<u64> = self.acknowledged.union(&self.maybe).copied().collect();
        if kept.rows.iter().any(|id| !known.contains(id)) {
            self.blame("a row is there that nobody has written".to_owned());
        }
        if kept.counter != kept.rows.len() as u64 {
            self.blame(format!("{} rows were counted as {}", kept.rows.len(), kept.counter));
        }
        if !lost.rows.is_empty() {
            self.blame(format!("{} rows are left on the other side", lost.rows.len()));
        }
    }
}

/// Whether a writer has the shared lock.
fn holds(writer: Writer, wrong: Wrong) -> bool {
    match writer.step {
        Step::First => false,
        Step::Second => wrong != Wrong::CheckBeforeLock,
        Step::Third | Step::Commit => true,
    }
}
