//! What the units on one backend may have written, and when it becomes
//! visible to others: decides which marks must be raised before a unit's
//! bytes are sent.
//!
//! Fails closed: a unit that nobody has declared is a write to anything that
//! may commit. A unit inside an explicit transaction commits nothing, unless
//! it may hold the COMMIT; then it exposes all that the transaction wrote.

use crate::cluster::{Footprint, Mark};

/// Writes of the running unit and of the transaction around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnitWrites {
    /// Everything since the backend was last outside a transaction.
    touched: Footprint,
    declared: bool,
    may_commit: bool,
    /// The unit began outside a transaction.
    alone: bool,
    ended: bool,
}

impl UnitWrites {
    /// A unit begins; `alone` if no transaction is open.
    pub fn begin(&mut self, alone: bool) {
        if alone {
            self.touched = Footprint::EMPTY;
        }
        self.declared = false;
        self.may_commit = false;
        self.alone = alone;
        self.ended = false;
    }

    /// Somebody knows what the unit does, and will say of each write what it
    /// touches.
    pub fn declare(&mut self) {
        self.declared = true;
    }

    /// It writes this.
    pub fn touch(&mut self, mark: Mark) {
        self.touched.add(mark);
    }

    /// It may commit the transaction.
    pub fn may_commit(&mut self) {
        self.may_commit = true;
    }

    /// The server is ready for the next unit.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// True, once, after the unit's end.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// What others may see of it from the moment it is sent; `None` if
    /// nothing.
    pub fn exposed(&self) -> Option<Footprint> {
        if !self.declared {
            let mut all = self.touched;
            all.add(Mark::Shard);
            return Some(all);
        }
        ((self.alone || self.may_commit) && !self.touched.is_empty()).then_some(self.touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::SlotMark;
    use crate::types::SlotId;

    fn slot(number: u32) -> Mark {
        Mark::slot(SlotMark::of(0, SlotId::new(number)))
    }

    #[test]
    fn an_undeclared_unit_is_a_write_to_anything() {
        let mut writes = UnitWrites::default();
        for alone in [true, false] {
            writes.begin(alone);
            assert!(writes.exposed().is_some_and(|all| all.is_wide()));
        }
    }

    #[test]
    fn a_declared_read_exposes_nothing() {
        let mut writes = UnitWrites::default();
        writes.begin(true);
        writes.declare();
        assert_eq!(writes.exposed(), None);
    }

    #[test]
    fn a_transaction_exposes_its_writes_with_the_unit_that_may_commit() {
        let mut writes = UnitWrites::default();
        writes.begin(true);
        writes.declare();
        writes.begin(false);
        writes.declare();
        writes.touch(slot(3));
        assert_eq!(writes.exposed(), None, "nobody sees it yet");
        writes.begin(false);
        writes.declare();
        writes.may_commit();
        let exposed = writes.exposed().unwrap();
        assert!(exposed.slots().len() == 1 && !exposed.is_wide());
        writes.begin(true);
        writes.declare();
        assert_eq!(writes.exposed(), None, "the next transaction begins with nothing");
    }

    #[test]
    fn a_unit_of_its_own_exposes_its_writes_at_once() {
        let mut writes = UnitWrites::default();
        writes.begin(true);
        writes.declare();
        writes.touch(slot(1));
        writes.touch(slot(2));
        assert_eq!(writes.exposed().unwrap().slots().len(), 2);
    }

    #[test]
    fn the_end_is_told_once() {
        let mut writes = UnitWrites::default();
        writes.begin(true);
        assert!(!writes.take_ended());
        writes.end();
        assert!(writes.take_ended() && !writes.take_ended());
    }
}
