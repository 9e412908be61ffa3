//! Routers, their rows and somebody who waits, with delays and stops between
//! any two steps: once older maps are said to be gone, nobody sends by one.
//!
//! Each process has a clock of its own, up to a tenth faster or slower than
//! time, and begun whenever. It does not model the crash of the home server:
//! rows are as durable as the maps.

use super::{Fleet, RouterRow, Tenure, margin};
use crate::types::{Epoch, Millis, Moment};

/// One thing done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The lease counts from when the answer came.
    FromTheAnswer,
    /// Whoever waits allows for nothing.
    NoMargin,
    /// A lease is given whatever the map.
    AnyEpoch,
    /// Whoever waits does not let renewals under way come to their end.
    NoLock,
    /// A shorter lease is asked for while the longer one is still counted on.
    LongerOne,
}

/// Small numbers that look random, the same for one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }
}

#[derive(Clone, Copy)]
struct Clock {
    offset: u64,
    per_mille: u64,
}

impl Clock {
    fn at(self, time: u64) -> Moment {
        Moment::from_ms(self.offset + time * self.per_mille / 1000)
    }
}

/// What a router waits for.
#[derive(Clone, Copy)]
enum Asking {
    Nothing,
    /// Its renewal has not been looked at; the newest epoch it saw, if it has.
    Sent {
        begun: Option<u64>,
    },
    /// Its answer is on its way.
    Answered {
        granted: bool,
    },
}

struct Router {
    clock: Clock,
    epoch: u64,
    own: Tenure,
    asking: Asking,
    beat: i64,
    /// Nothing happens in it before.
    asleep_until: u64,
}

struct World {
    time: u64,
    newest: u64,
    routers: Vec<Router>,
    rows: Vec<RouterRow>,
    watcher: Fleet,
    watching: Clock,
    /// The epoch before which nobody may send.
    gone: u64,
    wrong: Wrong,
    dice: Dice,
}

impl World {
    fn new(seed: u64, wrong: Wrong) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut clock = || Clock { offset: dice.below(100_000), per_mille: 900 + dice.below(201) };
        let router = |clock| Router {
            clock,
            epoch: 1,
            own: Tenure::NONE,
            asking: Asking::Nothing,
            beat: 0,
            asleep_until: 0,
        };
        let routers = vec![router(clock()), router(clock()), router(clock())];
        let watching = clock();
        Self {
            time: 0,
            newest: 1,
            routers,
            rows: Vec::new(),
            watcher: Fleet::default(),
            watching,
            gone: 1,
            wrong,
            dice,
        }
    }

    /// Runs for a while; false if somebody sent by a map that was said to be
    /// gone.
    fn run(&mut self) -> bool {
        for _ in 0..6_000 {
            self.time += self.dice.below(60);
            if self.dice.below(400) == 0 && self.gone == self.newest {
                self.newest += 1;
            }
            if self.dice.below(12) == 0 {
                self.watch();
            }
            let at = usize::try_from(self.dice.below(3)).unwrap();
            if self.routers[at].asleep_until <= self.time && !self.step(at) {
                return false;
            }
        }
        true
    }

    fn step(&mut self, at: usize) -> bool {
        let (newest, time) = (self.newest, self.time);
        let router = &mut self.routers[at];
        let now = router.clock.at(time);
        // It sends whenever it thinks that it may.
        if now < router.own.until() && router.epoch < self.gone {
            return false;
        }
        match self.dice.below(12) {
            0 => router.epoch = newest,
            1 => router.asleep_until = time + self.dice.below(9_000),
            2..=5 => match router.asking {
                Asking::Nothing => {
                    let length = if self.dice.below(4) == 0 { LONG } else { SHORT };
                    if self.wrong == Wrong::LongerOne {
                        let until = router.own.until();
                        router.own.ask(length, now);
                        router.own.until = router.own.until.max(until);
                    } else {
                        router.own.ask(length, now);
                    }
                    router.beat += 1;
                    router.asking = Asking::Sent { begun: None };
                }
                Asking::Answered { granted } => {
                    if granted {
                        if self.wrong == Wrong::FromTheAnswer {
                            router.own.asked = now;
                        }
                        router.own.grant();
                    }
                    router.asking = Asking::Nothing;
                }
                Asking::Sent { .. } => {}
            },
            _ => self.serve(at),
        }
        true
    }

    /// The home server goes on with a router's renewal: it looks for the newest
    /// map, and commits some time later.
    fn serve(&mut self, at: usize) {
        let router = &mut self.routers[at];
        match router.asking {
            Asking::Sent { begun: None } => {
                router.asking = Asking::Sent { begun: Some(self.newest) };
            }
            Asking::Sent { begun: Some(seen) } => {
                let granted = router.epoch >= seen || self.wrong == Wrong::AnyEpoch;
                if granted {
                    let row = RouterRow {
                        id: at.to_string(),
                        name: String::new(),
                        epoch: Epoch::new(router.epoch),
                        lease: router.own.length,
                        beat: router.beat,
                        settled: Vec::new(),
                        quiet_s: 0,
                    };
                    self.rows.retain(|known| known.id != row.id);
                    self.rows.push(row);
                }
                router.asking = Asking::Answered { granted };
            }
            Asking::Nothing | Asking::Answered { .. } => {}
        }
    }

    /// Somebody looks at the rows after the newest map was written.
    fn watch(&mut self) {
        if self.wrong != Wrong::NoLock {
            for at in 0..self.routers.len() {
                if let Asking::Sent { begun: Some(_) } = self.routers[at].asking {
                    self.serve(at);
                }
            }
        }
        let rows = self.rows.clone();
        self.time += self.dice.below(20);
        let now = self.watching.at(self.time);
        self.watcher.look(rows, now);
        let now = if self.wrong == Wrong::NoMargin { now.after(margin(LONG)) } else { now };
        if self.watcher.behind(Epoch::new(self.newest), now).is_empty() {
            self.gone = self.newest;
        }
        for row in self.watcher.lapsed(now) {
            self.rows.retain(|known| known.id != row.id || known.beat != row.beat);
        }
    }
}

const SHORT: Millis = Millis::new(1_000);
const LONG: Millis = Millis::new(4_000);
const SEEDS: u64 = 300;

fn failing(wrong: Wrong) -> Vec<u64> {
    (1..=SEEDS).filter(|seed| !World::new(*seed, wrong).run()).collect()
}

#[test]
fn nobody_sends_by_a_map_that_is_said_to_be_gone() {
    assert_eq!(failing(Wrong::Nothing), [0_u64; 0], "seeds");
}

#[test]
fn each_rule_left_out_is_found() {
    for wrong in
        [Wrong::FromTheAnswer, Wrong::NoMargin, Wrong::AnyEpoch, Wrong::NoLock, Wrong::LongerOne]
    {
        assert!(!failing(wrong).is_empty(), "{wrong:?} was not found in {SEEDS} runs");
    }
}
