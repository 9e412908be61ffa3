//! The shards that take part in a session's transaction or unit: those whose
//! backends it holds. One is the common case and costs no allocation.

use crate::types::ShardId;

/// A set of shards, in the order in which they joined.
#[derive(Debug, Default)]
pub(super) struct Members {
    first: Option<ShardId>,
    rest: Vec<ShardId>,
}

impl Members {
    /// Adds one that is not there yet.
    pub(super) fn join(&mut self, shard: ShardId) {
        debug_assert!(!self.contains(shard), "a shard joins once");
        match self.first {
            None => self.first = Some(shard),
            Some(_) => self.rest.push(shard),
        }
    }

    /// Takes one out.
    #[inline]
    pub(super) fn leave(&mut self, shard: ShardId) {
        if self.first == Some(shard) && self.rest.is_empty() {
            self.first = None;
        } else {
            self.leave_several(shard);
        }
    }

    fn leave_several(&mut self, shard: ShardId) {
        if self.first == Some(shard) {
            self.first = if self.rest.is_empty() { None } else { Some(self.rest.remove(0)) };
        } else {
            self.rest.retain(|member| *member != shard);
        }
    }

    /// True if the shard takes part.
    pub(super) fn contains(&self, shard: ShardId) -> bool {
        self.first == Some(shard) || self.rest.contains(&shard)
    }

    /// How many take part.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_are_there_once() {
        let [a, b, c] = [1, 2, 3].map(ShardId::new);
        let mut members = Members::default();
        for shard in [a, b, c] {
            members.join(shard);
        }
        members.leave(a);
        assert_eq!((members.len(), members.first), (2, Some(b)));
        assert!(!members.contains(a) && members.contains(c));
        members.leave(c);
        members.leave(b);
        members.leave(b);
        assert_eq!(members.len(), 0);
    }
}
