//! What clients' connections meet at the nodes, on its way to the monitor.
//!
//! Only failures pass here: a connection that could not be made, or that broke.
//! What they amount to is `health`'s to decide. Off the hot path, and bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::types::NodeId;

/// Failures that the monitor has not heard of, by node.
#[derive(Debug, Default)]
pub struct Strikes(Mutex<BTreeMap<NodeId, u32>>);

impl Strikes {
    /// A connection to `node` could not be made, or broke.
    pub fn note(&self, node: NodeId) {
        let mut strikes = self.strikes();
        let count = strikes.entry(node).or_default();
        *count = count.saturating_add(1).min(COUNT_MAX);
    }

    /// The failures at `node` since this was called last.
    pub fn take(&self, node: NodeId) -> u32 {
        self.strikes().remove(&node).unwrap_or(0)
    }

    fn strikes(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        // Each step leaves the counts whole, so a panic elsewhere did not harm it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More in a row change nothing.
const COUNT_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_heard_of_once() {
        let strikes = Strikes::default();
        let (one, other) = (NodeId::new(1), NodeId::new(2));
        strikes.note(one);
        strikes.note(one);
        strikes.note(other);
        assert_eq!((strikes.take(one), strikes.take(one), strikes.take(other)), (2, 0, 1));
    }
}
