//! How busy the replicas are, as far as one thread's clients show it: reads that
//! run, and how long they take.
//!
//! A preference only, so a node whose number another map gives to another is no
//! harm. The times are those that the statistics take anyway; counting costs no
//! clock and no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::types::NodeId;

/// The nodes of one database.
#[derive(Default)]
pub(super) struct Loads(RefCell<Vec<Rc<Load>>>);

#[derive(Default)]
struct Load {
    running: Cell<u64>,
    /// A moving average of the reads that were timed, in microseconds.
    us: Cell<u64>,
}

/// A connection that is lent to a client; it counts until this is dropped.
pub(super) struct Lent(Rc<Load>);

impl Loads {
    /// A connection to `node` is lent.
    pub(super) fn lend(&self, node: NodeId) -> Lent {
        let load = self.of(node);
        load.running.set(load.running.get() + 1);
        Lent(load)
    }

    /// What is to be waited for at `node`: the more runs there and the longer it
    /// takes, the more.
    pub(super) fn weigh(&self, node: NodeId) -> u64 {
        let loads = self.0.borrow();
        let Some(load) = loads.get(node.index()) else { return 0 };
        (load.running.get() + 1).saturating_mul(load.us.get() + US_MIN)
    }

    fn of(&self, node: NodeId) -> Rc<Load> {
        let mut loads = self.0.borrow_mut();
        if loads.len() <= node.index() {
            loads.resize_with(node.index() + 1, Rc::default);
        }
        loads.get(node.index()).map_or_else(Rc::default, Rc::clone)
    }
}

impl Lent {
    /// A read of the client's took so long.
    pub(super) fn note(&self, us: u64) {
        let before = self.0.us.get();
        let average = if before == 0 { us } else { before - before / PART + us / PART };
        self.0.us.set(average);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
    }
}

/// Times below this are all the same, in microseconds.
const US_MIN: u64 = 200;
/// The part of the average that one time makes.
const PART: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_and_how_long_it_takes_weighs() {
        let loads = Loads::default();
        let [one, other] = [1, 2].map(NodeId::new);
        assert_eq!(loads.weigh(one), loads.weigh(other));
        let lent = loads.lend(one);
        let _idle = loads.lend(other);
        assert_eq!(loads.weigh(one), loads.weigh(other));
        let second = loads.lend(one);
        assert!(loads.weigh(one) > loads.weigh(other));
        drop(second);
        lent.note(5_000);
        assert!(loads.weigh(one) > loads.weigh(other));
        for _ in 0..100 {
            lent.note(0);
        }
        drop(lent);
        assert!(loads.weigh(one) < loads.weigh(other));
    }
}
