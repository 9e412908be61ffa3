//! Runs the machine against a model of databases, store and routers, and kills
//! it between any two actions, lets its words arrive late and its answers get
//! lost, crashes servers, and lets two runners believe that the move is theirs.
//!
//! A rule that is left out must show: as a lost, doubled or stale row.

mod world;

use self::world::{World, Wrong};
use super::{
    Action, End, Journal, Machine, MovedTable, Outcome, Phase, Side, Subject, Subscriptions, Times,
    Wish,
};

fn journal() -> Journal {
    Journal {
        id: 7,
        keyspace: "k".to_owned(),
        subject: Subject::Tenant("42".to_owned()),
        source: 1,
        target: 2,
        tables: vec![MovedTable {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            column: "tenant_id".to_owned(),
        }],
        pinned: Vec::new(),
        phase: Phase::Guarding,
        generation: 0,
        token: 0,
        tries: 0,
        subscriptions: Subscriptions::default(),
        stopped: None,
        times: Times::default(),
    }
}

/// A process that runs the move; it knows the version that it wrote last.
struct Runner {
    machine: Machine,
    version: u64,
}

impl Runner {
    fn new(world: &World) -> Self {
        Self { machine: Machine::resume(world.journal.clone()), version: world.version }
    }

    /// One action; false once it has left.
    fn step(&mut self, world: &mut World, wish: Wish) -> bool {
        let action = self.machine.action(wish);
        if action == Action::Leave {
            return false;
        }
        let outcome = world.act(self.version, &self.machine.journal().clone(), &action);
        if outcome == Outcome::Done && matches!(action, Action::Keep(_) | Action::Switch(..)) {
            self.version += 1;
        }
        self.machine.on(outcome);
        true
    }
}

/// One move from its beginning to its end; what was wrong.
fn play(seed: u64, wrong: Wrong) -> Vec<String> {
    let mut world = World::new(seed, wrong, journal());
    let mut runners = vec![Runner::new(&world)];
    let cutovers = 1 + world.below(3);
    for round in 0..4000_u64 {
        // In the end no more faults: a move must always come to its end.
        world.rough = round < 1500;
        let steps = world.below(6);
        world.live(steps);
        if world.journal.is_ended() {
            break;
        }
        let wish = wish_of(&world, cutovers);
        if runners.is_empty() || world.rough && world.chance(25) {
            // Killed, or merely believed dead.
            if world.chance(2) {
                runners.clear();
            }
            runners.push(Runner::new(&world));
        }
        let index = world.below(runners.len() as u64) as usize;
        if !runners[index].step(&mut world, wish) {
            runners.remove(index);
        }
        if !world.violations.is_empty() {
            return world.violations;
        }
    }
    match world.journal.phase {
        Phase::Ended(end) => world.judge(end),
        phase => world.violations.push(format!("it never ended: {phase:?}")),
    }
    world.violations
}

/// Cuts over back and forth, then finishes or aborts.
fn wish_of(world: &World, cutovers: u64) -> Wish {
    let over = world.journal.token >= cutovers;
    match world.journal.phase {
        Phase::Standing(Side::Target) if over => Wish::Finish,
        Phase::Standing(Side::Target) => Wish::Reverse,
        Phase::Standing(Side::Source) if over && cutovers.is_multiple_of(2) => Wish::Abort,
        Phase::Guarding
        | Phase::Publishing
        | Phase::Copying
        | Phase::Linking
        | Phase::Verifying
        | Phase::Standing(Side::Source)
        | Phase::Cutting(_)
        | Phase::Unlinking(_)
        | Phase::Purging(_)
        | Phase::Clearing(_)
        | Phase::Ended(End::Moved | End::Aborted) => Wish::Run,
    }
}

#[test]
fn what_a_cutover_took_is_told_by_who_has_held_the_writers_from_its_begin() {
    let mut world = World::new(1, Wrong::Nothing, journal());
    world.rough = false;
    let mut runner = Runner::new(&world);
    let mut run = |world: &mut World, wish, until: fn(&World) -> bool| {
        while !until(world) {
            world.live(2);
            runner.machine.spend(1000);
            assert!(runner.step(world, wish));
        }
        runner.machine.journal().times
    };
    let switched = |world: &World| world.journal.phase == Phase::Standing(Side::Target);
    let times = run(&mut world, Wish::Run, switched);
    let pause = times.pause.unwrap();
    let parts = [pause.drain_us, pause.fence_us, pause.apply_us, pause.switch_us, pause.open_us];
    // What had to be repeated counts each time.
    let least = [1000, 1000, 1000, 3000, 2000];
    assert!(parts.iter().zip(least).all(|(part, least)| *part >= least), "{parts:?}");
    assert_eq!(pause.total_us(), parts.iter().sum::<u64>());
    assert!(times.copy_us >= 2000, "{times:?}");
    // One that takes over in the middle knows no more than what was kept.
    let cutting = |world: &World| world.journal.phase == Phase::Cutting(Side::Target);
    run(&mut world, Wish::Reverse, cutting);
    let mut heir = Runner::new(&world);
    while world.journal.phase != Phase::Standing(Side::Source) {
        world.live(2);
        heir.machine.spend(1000);
        assert!(heir.step(&mut world, Wish::Reverse));
    }
    assert_eq!(heir.machine.journal().times.pause, Some(pause));
}

fn found(wrong: Wrong) -> Option<(u64, String)> {
    (0..SEEDS).find_map(|seed| play(seed, wrong).into_iter().next().map(|what| (seed, what)))
}

#[test]
fn no_row_is_lost_doubled_or_stale_whatever_is_killed() {
    if let Some((seed, what)) = found(Wrong::Nothing) {
        panic!("seed {seed}: {what}");
    }
}

#[test]
fn every_rule_that_is_left_out_is_found_out() {
    let all = [
        Wrong::CheckBeforeLock,
        Wrong::FenceNotFlushed,
        Wrong::TargetOpen,
        Wrong::NoMarker,
        Wrong::OpenBlindly,
        Wrong::OpenBeforeAcks,
        Wrong::NoTokens,
        Wrong::UndoAlways,
        Wrong::PurgeIntoStream,
        Wrong::FencesGoEarly,
        Wrong::NoCarry,
        Wrong::NoOrigins,
        Wrong::NoVersions,
    ];
    let missed: Vec<Wrong> = all.into_iter().filter(|wrong| found(*wrong).is_none()).collect();
    assert!(missed.is_empty(), "the simulation has not noticed {missed:?}");
}

/// Enough for every wrong variant to be found many times over.
const SEEDS: u64 = 1500;
