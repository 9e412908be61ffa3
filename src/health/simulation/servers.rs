//! The servers of the simulated world: logs that are written, flushed,
//! received and replayed, and that part after a promotion.

use crate::health::Identity;

/// One committed write.
#[derive(Clone, Copy)]
pub(super) struct Commit {
    pub(super) end: u64,
    pub(super) register: usize,
    pub(super) value: u64,
    /// On the primary it is seen from then on.
    pub(super) visible_at: u64,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) alive: bool,
    pub(super) is_primary: bool,
    pub(super) log: Vec<Commit>,
    pub(super) insert: u64,
    pub(super) flushed: u64,
    pub(super) received: u64,
    pub(super) replayed: u64,
    pub(super) paused: bool,
    /// Cut off from its primary.
    pub(super) cut: bool,
    pub(super) upstream: usize,
    pub(super) timeline: u32,
    pub(super) identity: Identity,
}

impl Server {
    pub(super) fn new(is_primary: bool) -> Self {
        Self {
            alive: true,
            is_primary,
            log: Vec::new(),
            insert: START,
            flushed: START,
            received: START,
            replayed: START,
            paused: false,
            cut: false,
            upstream: 0,
            timeline: 1,
            identity: Identity { system: Some(9), started_us: 1, connection: 1 },
        }
    }

    /// What a statement that runs at `now` sees of a register.
    pub(super) fn value(&self, register: usize, now: u64) -> u64 {
        // Values only grow, so the newest that is seen is the greatest.
        let seen = self.log.iter().rev().find(|commit| {
            commit.register == register
                && if self.is_primary {
                    commit.visible_at <= now
                } else {
                    commit.end <= self.replayed
                }
        });
        seen.map_or(0, |commit| commit.value)
    }

    /// A commit record is written; others see it after `delay`.
    pub(super) fn commit(
        &mut self,
        registers: impl Iterator<Item = usize>,
        value: u64,
        size: u64,
        visible_at: u64,
    ) -> u64 {
        self.insert += size;
        let end = self.insert;
        self.log.extend(registers.map(|register| Commit { end, register, value, visible_at }));
        end
    }

    /// Its process ends and starts again; a replica opens `back` bytes before
    /// the place that it had reached, a primary without what was not on disk.
    pub(super) fn crash(&mut self, back: u64) {
        self.identity.started_us += 1;
        self.identity.connection += 1;
        if self.is_primary {
            self.insert = self.flushed;
            let flushed = self.flushed;
            self.log.retain(|commit| commit.end <= flushed);
            for commit in &mut self.log {
                commit.visible_at = 0;
            }
        } else {
            self.replayed = self.replayed.saturating_sub(back).max(START);
        }
    }

    /// Becomes a primary with what it has received.
    pub(super) fn promote(&mut self) {
        self.is_primary = true;
        self.replayed = self.received;
        self.insert = self.received;
        self.flushed = self.received;
        self.timeline += 1;
        let received = self.received;
        self.log.retain(|commit| commit.end <= received);
        for commit in &mut self.log {
            commit.visible_at = 0;
        }
    }

    /// Starts anew as a replica of `upstream`, with a copy of its data.
    pub(super) fn copy_from(&mut self, upstream: usize, source: &Self) {
        let identity = self.identity;
        *self = Self { upstream, is_primary: false, ..source.clone() };
        self.alive = true;
        self.identity = identity;
        self.identity.started_us += 1;
        self.identity.connection += 1;
        self.received = source.flushed;
        self.replayed = source.flushed;
        self.paused = false;
        self.cut = false;
        let received = self.received;
        self.log.retain(|commit| commit.end <= received);
    }

    /// Up to `bytes` of what it has on disk after `from`.
    pub(super) fn read_log(&self, from: u64, bytes: u64) -> (u64, Vec<Commit>) {
        let to = self.flushed.min(from + bytes).max(from);
        let new = self.log.iter().rev().take_while(|commit| commit.end > from);
        let mut new: Vec<Commit> = new.filter(|commit| commit.end <= to).copied().collect();
        new.reverse();
        (to, new)
    }

    /// Receives what its upstream has sent.
    pub(super) fn receive(&mut self, (to, new): (u64, Vec<Commit>)) {
        self.log.extend(new);
        self.received = self.received.max(to);
    }
}

/// Past the page headers of the first pages, which would be rounded away.
pub(super) const START: u64 = 1_000_100;
