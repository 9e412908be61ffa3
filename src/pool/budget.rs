//! How many connections the router may have to one node, whoever opens them.
//!
//! One count per node, shared by all pools, threads and the monitor. A permit
//! lives as long as its connection and gives its place back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A node's count.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU32,
    max: u32,
}

/// The right to one connection.
#[derive(Debug)]
pub struct Permit(Arc<Budget>);

impl Budget {
    /// A budget of `max` connections, of which `reserved` belong to the
    /// control plane.
    pub fn new(max: u32, reserved: u32) -> Arc<Self> {
        Arc::new(Self { used: AtomicU32::new(reserved.min(max)), max })
    }

    /// A permit, if one is left.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used < self.max).then_some(used + 1)
            })
            .ok()
            .map(|_| Permit(Arc::clone(self)))
    }

    /// True if no permit is left.
    pub fn is_spent(&self) -> bool {
        self.used() >= self.max
    }

    /// Connections in use, the reserved included.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_never_exceed_the_budget_and_come_back() {
        let budget = Budget::new(3, 1);
        let first = budget.take();
        let second = budget.take();
        assert!(first.is_some() && second.is_some() && budget.take().is_none());
        drop(first);
        assert!(budget.take().is_some());
        drop(second);
        assert_eq!(budget.used(), 1);
    }
}
