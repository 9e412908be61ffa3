//! How much of a thread's memory may be rows that reads bring together.

use std::cell::Cell;
use std::rc::Rc;

/// What all reads of a thread share.
#[derive(Debug)]
pub struct Memory {
    left: Cell<usize>,
    all: usize,
}

impl Memory {
    /// So many bytes.
    pub fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self { left: Cell::new(bytes), all: bytes })
    }

    /// The whole of it.
    pub const fn all(&self) -> usize {
        self.all
    }
}

/// A read's part of it, which it gives back at its end.
#[derive(Debug)]
pub(super) struct Share {
    memory: Rc<Memory>,
    taken: usize,
}

impl Share {
    pub(super) const fn of(memory: Rc<Memory>) -> Self {
        Self { memory, taken: 0 }
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes so many bytes more, if they are there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let Some(left) = self.memory.left.get().checked_sub(bytes) else { return false };
        self.memory.left.set(left);
        self.taken += bytes;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.left.set(self.memory.left.get() + self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_take_comes_back_with_their_end() {
        let memory = Memory::new(10);
        let mut one = Share::of(Rc::clone(&memory));
        let mut other = Share::of(Rc::clone(&memory));
        assert!(one.take(6));
        assert!(!other.take(5));
        assert!(other.take(4));
        drop(one);
        assert!(other.take(6));
        assert!(!other.take(1));
    }
}
