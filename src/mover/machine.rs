//! The machine: what to do next, given the journal and what came of the action
//! before.
//!
//! A phase's actions run in order; after a crash they run again from the first.
//! The cutover is the exception: there the fences and the map are looked at
//! first, and tell how far it came.

use super::journal::{End, Journal, Phase, Side, Wish};
use super::times::{Part, Pause};

/// Something to do, once. Until its outcome is told nothing else is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write the journal, if nobody else has since it was read.
    Keep(Journal),
    /// Tell this side's database which runner it obeys from now on.
    Seize(Side),
    /// Put up the fence on this side where there is none: open on the source,
    /// closed on the target.
    Guard(Side),
    /// Publish this side's rows, where not yet done.
    Publish(Side),
    /// Let this side subscribe to the other, where not yet done: the target
    /// with a copy, the source from now on.
    Subscribe(Side),
    /// Wait until the target's copy is complete.
    AwaitCopy,
    /// Compare both sides at one point of the stream.
    Verify,
    /// Look at both fences and at the map.
    Inspect,
    /// Look whether streams and tables are still as a cutover needs them. `Waiting`
    /// says that they are, but that the rows must be compared again first.
    Examine(Side),
    /// Let the routers hold the tenant's new transactions and wait until the
    /// open ones have ended.
    Hold,
    /// Fence this side, durably, with the token in the marker that travels
    /// with the rows.
    Fence(Side, u64),
    /// Wait until this side shows the other's marker with the token.
    AwaitMarker(Side, u64),
    /// Carry the sequences to this side, and on old servers turn the stream.
    Settle(Side),
    /// Write, in one step, the journal and the map in which this side owns the
    /// rows.
    Switch(Journal, Side),
    /// Let every router have the new map; wait until no older one is in use.
    Announce,
    /// Open this side, durably, once it shows the marker with the token.
    Open(Side, u64),
    /// Undo what `Settle` did.
    Unsettle(Side),
    /// Open this side again, which has stayed the owner; a fence with the token
    /// that is still on its way comes too late.
    Unfence(Side, u64),
    /// Let the held transactions go.
    Release,
    /// Close both sides: something else has opened one.
    FenceBoth,
    /// End this side's subscription.
    Unsubscribe(Side),
    /// End this side's publication.
    Unpublish(Side),
    /// Delete this side's rows.
    Purge(Side),
    /// Wait until no router can still use the map from before the move.
    AwaitLeases,
    /// Remove this side's fence, and all that is left there.
    Unguard(Side),
    /// Wait for the operator, or a while after a cutover that was undone.
    Rest,
    /// Nothing is left to do, or another runner has the move.
    Leave,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, durably where the action says so.
    Done,
    /// Not yet: nothing has gone wrong, ask again.
    Waiting,
    /// It could not be had in time, and nothing has changed by it.
    Refused,
    /// It may have happened or not.
    Failed,
    /// Another runner has taken the move over.
    Lost,
    /// It can't be done; the operator must know why.
    Impossible(String),
    /// What [`Action::Inspect`] saw.
    Seen(Sight),
    /// A subscription was made or found, with this number.
    Subscribed(u32),
}

/// Both fences and the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Whether the source takes writes.
    pub source_open: bool,
    /// Whether the target takes writes.
    pub target_open: bool,
    /// The owner by the newest map.
    pub owner: Side,
}

impl Sight {
    const fn is_open(self, side: Side) -> bool {
        match side {
            Side::Source => self.source_open,
            Side::Target => self.target_open,
        }
    }
}

/// Runs one move, from its journal.
#[derive(Clone, Debug)]
pub struct Machine {
    journal: Journal,
    step: Step,
    /// Whether the machine waits for the operator, so that an outcome means
    /// no progress.
    resting: bool,
    /// What the cutover under way has taken so far, since writers were held.
    pause: Option<Pause>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Writes the journal with what is to follow.
    Keep(Box<Journal>),
    Seize(Side),
    /// The action with this index of the phase's script.
    At(usize),
    Cut(Cut),
    /// Another runner has the move.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Inspect,
    Examine,
    Hold,
    Fence,
    AwaitMarker,
    Settle,
    Switch,
    Announce,
    Open,
    /// The way back, in its order.
    Unsettle,
    Unfence,
    Release(Then),
    FenceBoth,
}

/// Where the cutover leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Switched,
    Undone,
}

impl Machine {
    /// Takes the move over. Whoever had it before is shut out by the next
    /// generation, in the store first and then in both databases.
    pub fn resume(journal: Journal) -> Self {
        let mut next = journal.clone();
        next.generation = next.generation.saturating_add(1);
        Self { journal, step: Step::Keep(Box::new(next)), resting: false, pause: None }
    }

    /// The journal as it was last written, but for its times, which go on.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What to do next.
    pub fn action(&mut self, wish: Wish) -> Action {
        self.heed(wish);
        let action = match &self.step {
            Step::Keep(journal) => Action::Keep((**journal).clone()),
            Step::Seize(side) => Action::Seize(*side),
            Step::Lost => Action::Leave,
            Step::At(_) | Step::Cut(_) if self.journal.stopped.is_some() => Action::Rest,
            Step::At(_) if self.is_paused(wish) => Action::Rest,
            Step::At(index) => match (self.script().get(*index), self.journal.phase) {
                (Some(action), _) => action.clone(),
                (None, Phase::Standing(_)) => Action::Rest,
                (None, _) => Action::Leave,
            },
            Step::Cut(cut) => self.cut_action(*cut),
        };
        self.resting = action == Action::Rest;
        action
    }

    /// Before the cutover a move may stand still; what ends it never does.
    const fn is_paused(&self, wish: Wish) -> bool {
        let may = match self.journal.phase {
            Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying => true,
            Phase::Standing(_)
            | Phase::Cutting(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_)
            | Phase::Ended(_) => false,
        };
        match wish {
            Wish::Pause => may,
            Wish::Run | Wish::Abort | Wish::Reverse | Wish::Finish => false,
        }
    }

    /// Takes in how long the action took whose outcome comes next.
    pub const fn spend(&mut self, took_us: u64) {
        let Step::Cut(cut) = &self.step else {
            if matches!(self.journal.phase, Phase::Copying) {
                let times = &mut self.journal.times;
                times.copy_us = times.copy_us.saturating_add(took_us);
            }
            return;
        };
        let part = match cut {
            Cut::Hold => {
                // A new one: before it nobody was held.
                self.pause = Some(Pause::NONE);
                Part::Drain
            }
            Cut::Fence => Part::Fence,
            Cut::AwaitMarker => Part::Apply,
            Cut::Settle | Cut::Switch | Cut::Announce => Part::Switch,
            Cut::Open | Cut::Release(_) => Part::Open,
            Cut::Inspect | Cut::Examine | Cut::Unsettle | Cut::Unfence | Cut::FenceBoth => return,
        };
        if let Some(pause) = &mut self.pause {
            pause.spend(part, took_us);
        }
    }

    /// Takes in what came of the action.
    pub fn on(&mut self, outcome: Outcome) {
        match (&self.step, outcome) {
            (_, Outcome::Lost) => self.step = Step::Lost,
            (Step::Lost, _) => {}
            (Step::At(0), Outcome::Done) if self.resting => {
                // Only after a rest may an undone cutover be tried again.
                if let Phase::Standing(_) = self.journal.phase {
                    self.step = Step::At(1);
                }
            }
            (Step::At(_) | Step::Cut(_), _) if self.resting => {}
            (Step::Keep(next), Outcome::Done) => {
                let next = (**next).clone();
                self.kept(next);
            }
            (Step::Seize(Side::Source), Outcome::Done) => self.step = Step::Seize(Side::Target),
            (Step::Seize(Side::Target), Outcome::Done) => self.step = self.first_step(),
            (Step::Cut(cut), outcome) => self.on_cut(*cut, outcome),
            (Step::At(index), Outcome::Done) => {
                let next = index.saturating_add(1);
                self.step = Step::At(next);
                if next >= self.script().len() {
                    self.keep_phase(self.following());
                }
            }
            (Step::At(_), Outcome::Subscribed(number)) => self.subscribed(number),
            (Step::At(_) | Step::Seize(_) | Step::Keep(_), Outcome::Impossible(why)) => {
                self.stop(why);
            }
            // What can be repeated is repeated.
            (
                Step::At(_) | Step::Keep(_) | Step::Seize(_),
                Outcome::Waiting
                | Outcome::Refused
                | Outcome::Failed
                | Outcome::Subscribed(_)
                | Outcome::Seen(_),
            ) => {}
        }
    }

    fn kept(&mut self, next: Journal) {
        let claimed = next.generation != self.journal.generation;
        let begun = matches!(next.phase, Phase::Cutting(_)) && next.phase != self.journal.phase;
        self.journal = next;
        self.step = if self.journal.is_ended() {
            Step::At(0)
        } else if claimed {
            Step::Seize(Side::Source)
        } else if begun {
            Step::Cut(Cut::Examine)
        } else {
            self.first_step()
        };
    }

    /// Lets a wish change what is next, where it may.
    fn heed(&mut self, wish: Wish) {
        if !matches!(self.step, Step::At(_) | Step::Cut(Cut::Inspect)) {
            return;
        }
        if self.journal.stopped.is_some() && wish == Wish::Run {
            let mut next = self.journal.clone();
            next.stopped = None;
            self.step = Step::Keep(Box::new(next));
            return;
        }
        let goal = match (self.journal.phase, wish) {
            (
                Phase::Guarding
                | Phase::Publishing
                | Phase::Copying
                | Phase::Linking
                | Phase::Verifying
                | Phase::Standing(Side::Source),
                Wish::Abort,
            ) => Phase::Unlinking(End::Aborted),
            (Phase::Standing(Side::Source), Wish::Run) if self.journal.stopped.is_none() => {
                Phase::Cutting(Side::Source)
            }
            (Phase::Standing(Side::Target), Wish::Reverse) => Phase::Cutting(Side::Target),
            (Phase::Standing(Side::Target), Wish::Finish) => Phase::Unlinking(End::Moved),
            (
                Phase::Guarding
                | Phase::Publishing
                | Phase::Copying
                | Phase::Linking
                | Phase::Verifying
                | Phase::Standing(_)
                | Phase::Cutting(_)
                | Phase::Unlinking(_)
                | Phase::Purging(_)
                | Phase::Clearing(_)
                | Phase::Ended(_),
                _,
            ) => return,
        };
        // After an undone cutover a while must pass first.
        let resting = self.step == Step::At(0) && self.journal.tries > 0;
        if matches!(goal, Phase::Cutting(_)) && resting {
            return;
        }
        self.keep_phase(goal);
    }

    fn keep_phase(&mut self, phase: Phase) {
        let mut next = self.journal.clone();
        if let Phase::Cutting(_) = phase {
            next.token = next.token.saturating_add(1);
        }
        next.phase = phase;
        next.stopped = None;
        self.step = Step::Keep(Box::new(next));
    }

    fn stop(&mut self, why: String) {
        let mut next = self.journal.clone();
        next.stopped = Some(why);
        self.step = Step::Keep(Box::new(next));
    }

    fn subscribed(&mut self, number: u32) {
        let mut next = self.journal.clone();
        match self.journal.phase {
            Phase::Copying => next.subscriptions.forward = Some(number),
            Phase::Linking
            | Phase::Guarding
            | Phase::Publishing
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Cutting(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_)
            | Phase::Ended(_) => next.subscriptions.back = Some(number),
        }
        if next == self.journal {
            self.on(Outcome::Done);
        } else {
            // The phase begins again and finds the subscription.
            self.step = Step::Keep(Box::new(next));
        }
    }

    /// Where a phase is begun, or gone on with after a crash.
    const fn first_step(&self) -> Step {
        match self.journal.phase {
            Phase::Cutting(_) => Step::Cut(Cut::Inspect),
            Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_)
            | Phase::Ended(_) => Step::At(0),
        }
    }

    /// The phase after this one's script.
    const fn following(&self) -> Phase {
        match self.journal.phase {
            Phase::Guarding => Phase::Publishing,
            Phase::Publishing => Phase::Copying,
            Phase::Copying => Phase::Linking,
            Phase::Linking => Phase::Verifying,
            Phase::Verifying => Phase::Standing(Side::Source),
            Phase::Unlinking(end) => Phase::Purging(end),
            Phase::Purging(end) => Phase::Clearing(end),
            Phase::Clearing(end) => Phase::Ended(end),
            same @ (Phase::Standing(_) | Phase::Cutting(_) | Phase::Ended(_)) => same,
        }
    }

    fn script(&self) -> Vec<Action> {
        let both = |act: fn(Side) -> Action| [Side::Target, Side::Source].map(act).to_vec();
        match self.journal.phase {
            // The target first: it must be closed before anything can arrive.
            Phase::Guarding => both(Action::Guard),
            Phase::Publishing => vec![Action::Publish(Side::Source)],
            Phase::Copying => vec![Action::Subscribe(Side::Target), Action::AwaitCopy],
            Phase::Linking => {
                vec![Action::Publish(Side::Target), Action::Subscribe(Side::Source)]
            }
            Phase::Verifying => vec![Action::Verify],
            // What is deleted on one side must not reach the other: the
            // streams end first.
            Phase::Unlinking(_) => [both(Action::Unsubscribe), both(Action::Unpublish)].concat(),
            Phase::Purging(end) => vec![Action::Purge(end.keeper().other())],
            // Without its fence the source would take a late router's write.
            Phase::Clearing(_) => [vec![Action::AwaitLeases], both(Action::Unguard)].concat(),
            Phase::Standing(_) | Phase::Cutting(_) | Phase::Ended(_) => Vec::new(),
        }
    }
}

/// The cutover.
impl Machine {
    const fn from(&self) -> Side {
        match self.journal.phase {
            Phase::Cutting(from) => from,
            Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Unlinking(_)
            | Phase::Purging(_)
            | Phase::Clearing(_)
            | Phase::Ended(_) => Side::Source,
        }
    }

    fn cut_action(&self, cut: Cut) -> Action {
        let (from, token) = (self.from(), self.journal.token);
        let to = from.other();
        match cut {
            Cut::Inspect => Action::Inspect,
            Cut::Examine => Action::Examine(from),
            Cut::Hold => Action::Hold,
            Cut::Fence => Action::Fence(from, token),
            Cut::AwaitMarker => Action::AwaitMarker(to, token),
            Cut::Settle => Action::Settle(to),
            Cut::Switch => Action::Switch(self.journal.clone(), to),
            Cut::Announce => Action::Announce,
            Cut::Open => Action::Open(to, token),
            Cut::Unsettle => Action::Unsettle(to),
            Cut::Unfence => Action::Unfence(from, token),
            Cut::Release(_) => Action::Release,
            Cut::FenceBoth => Action::FenceBoth,
        }
    }

    fn on_cut(&mut self, cut: Cut, outcome: Outcome) {
        let next = match (cut, outcome) {
            (Cut::Inspect, Outcome::Seen(sight)) => self.recover(sight),
            (Cut::Examine, Outcome::Done) => Cut::Hold,
            (Cut::Examine, Outcome::Impossible(why)) => return self.call_off(Some(why)),
            (Cut::Examine, Outcome::Waiting) => return self.call_off(None),
            (Cut::Examine, Outcome::Refused | Outcome::Failed) => Cut::Release(Then::Undone),
            (Cut::Hold, Outcome::Done) => Cut::Fence,
            // Nothing was changed; the next try is some time away.
            (Cut::Hold | Cut::Fence, Outcome::Refused) => Cut::Release(Then::Undone),
            (Cut::Hold, Outcome::Failed | Outcome::Impossible(_)) => Cut::Release(Then::Undone),
            (Cut::Fence, Outcome::Done) => Cut::AwaitMarker,
            (Cut::AwaitMarker, Outcome::Done) => Cut::Settle,
            (Cut::Settle, Outcome::Done) => Cut::Switch,
            // The fence may stand, the map is the old one: take it down.
            (Cut::Fence, Outcome::Failed | Outcome::Impossible(_))
            | (
                Cut::AwaitMarker | Cut::Settle,
                Outcome::Refused | Outcome::Failed | Outcome::Impossible(_),
            ) => Cut::Unsettle,
            // The store says whether the map was written, however often it is
            // asked to: from here on there is no way back but REVERSE.
            (Cut::Switch, Outcome::Done) => Cut::Announce,
            (Cut::Announce, Outcome::Done) => Cut::Open,
            (Cut::Open, Outcome::Done) => Cut::Release(Then::Switched),
            (Cut::Unsettle, Outcome::Done) => Cut::Unfence,
            (Cut::Unfence, Outcome::Done) => Cut::Release(Then::Undone),
            // Held transactions end their waiting by themselves, too.
            (Cut::Release(then), _) => return self.cut_ends(then),
            (Cut::FenceBoth, Outcome::Done) => {
                return self.stop(
                    "a side was open that had to be closed: both are closed now; \
                    compare their rows, then RESUME MOVE goes by the map in force"
                        .to_owned(),
                );
            }
            (
                same @ (Cut::Inspect
                | Cut::Examine
                | Cut::Hold
                | Cut::Fence
                | Cut::AwaitMarker
                | Cut::Settle
                | Cut::Switch
                | Cut::Announce
                | Cut::Open
                | Cut::Unsettle
                | Cut::Unfence
                | Cut::FenceBoth),
                Outcome::Done
                | Outcome::Waiting
                | Outcome::Refused
                | Outcome::Failed
                | Outcome::Lost
                | Outcome::Impossible(_)
                | Outcome::Seen(_)
                | Outcome::Subscribed(_),
            ) => same,
        };
        self.step = Step::Cut(next);
    }

    /// Gives up a cutover that has not begun to hold anybody: what was compared
    /// before no longer tells enough.
    fn call_off(&mut self, why: Option<String>) {
        let from = self.from();
        let mut next = self.journal.clone();
        next.phase = match from {
            Side::Source => Phase::Verifying,
            Side::Target => Phase::Standing(from),
        };
        next.stopped = why;
        self.step = Step::Keep(Box::new(next));
    }

    /// How far a cutover came whose runner is gone.
    fn recover(&self, sight: Sight) -> Cut {
        let from = self.from();
        let to = from.other();
        let switched = sight.owner == to;
        match (switched, sight.is_open(from), sight.is_open(to)) {
            // Not begun, or fenced and no more: the owner goes on as before.
            (false, _, false) => Cut::Unsettle,
            // The map is written: only forward is left.
            (true, false, _) => Cut::Announce,
            // An owner that lost its fence in a failover, or both open.
            (true, true, _) | (false, _, true) => Cut::FenceBoth,
        }
    }

    fn cut_ends(&mut self, then: Then) {
        let from = self.from();
        let mut next = self.journal.clone();
        match then {
            Then::Switched => {
                next.tries = 0;
                next.times.pause = self.pause.take();
                next.phase = Phase::Standing(from.other());
            }
            Then::Undone => {
                next.tries = next.tries.saturating_add(1);
                next.phase = Phase::Standing(from);
            }
        }
        self.step = Step::Keep(Box::new(next));
    }
}
