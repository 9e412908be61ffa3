//! Which backends a session keeps between its transactions.
//!
//! Without shards the one backend stays with the session. With shards each
//! backend that something holds is set aside by the shell and comes back when
//! its shard is wanted, so that the session may work on others meanwhile.

use crate::route::SearchPath;
use crate::types::ShardId;

use super::refusal::{NOT_SUPPORTED, Refused};
use super::{Holds, Session};

/// Holds by shard, of a sharded database.
#[derive(Debug, Default)]
pub(super) struct Kept {
    sharded: bool,
    shards: Vec<(ShardId, Holds)>,
    /// Temporary tables that it has made, and where.
    temporary: Vec<(Box<str>, ShardId)>,
}

impl Kept {
    /// Something holds the backend of `shard`.
    pub(super) fn add(&mut self, shard: ShardId, holds: Holds) {
        match self.shards.iter_mut().find(|(kept, _)| *kept == shard) {
            Some((_, all)) => all.add(holds),
            None => self.shards.push((shard, holds)),
        }
    }

    /// Nothing holds any more.
    pub(super) fn clear(&mut self) {
        self.shards.clear();
        self.temporary.clear();
    }

    /// True if there is, or has been, a temporary table.
    pub(super) fn has_temporary(&self) -> bool {
        !self.temporary.is_empty()
    }

    pub(super) const fn note_sharded(&mut self, sharded: bool) {
        self.sharded = sharded;
    }

    /// True if held backends are set aside.
    pub(super) const fn is_sharded(&self) -> bool {
        self.sharded
    }

    /// True if something holds the backend of `shard`.
    pub(super) fn contains(&self, shard: ShardId) -> bool {
        self.shards.iter().any(|(kept, _)| *kept == shard)
    }

    /// The shard that has the session's cursors WITH HOLD.
    ///
    /// # Errors
    /// They are on several: nobody knows which one is meant.
    pub(super) fn shard_of_cursors(&self) -> Result<Option<ShardId>, Refused> {
        let mut shards = self.shards.iter().filter(|(_, holds)| holds.contains(Holds::CURSOR));
        match (shards.next(), shards.next()) {
            (Some(_), Some(_)) => Err(Refused::new(
                NOT_SUPPORTED,
                "cursors WITH HOLD are on several shards, and this statement does not say which",
            )
            .hint("close them with DISCARD ALL, or use cursors of a transaction")),
            (one, _) => Ok(one.map(|(shard, _)| *shard)),
        }
    }
}

impl Session {
    /// True if the backend of `shard` stays with the session when it is released.
    pub fn keeps(&self, shard: ShardId) -> bool {
        self.kept.is_sharded() && (self.holds.contains(Holds::SESSION) || self.kept.contains(shard))
    }
}

impl Session {
    /// Names without a schema are looked up by `path` from now on, after the
    /// session's temporary tables.
    pub(super) fn look_up_by(&mut self, path: SearchPath) {
        self.search_path = if self.kept.has_temporary() {
            path.with_temporary(&self.kept.temporary)
        } else {
            path
        };
    }

    /// The statement that is sent to `shard` makes these temporary tables. They
    /// are known from here to the end of everything that the session keeps: one
    /// that is gone before is nowhere else.
    pub(super) fn note_temporary(&mut self, names: &[Box<str>], shard: ShardId) {
        if names.is_empty() {
            return;
        }
        for name in names {
            if !self.kept.temporary.iter().any(|(known, _)| known == name) {
                self.kept.temporary.push((name.clone(), shard));
            }
        }
        let path = std::mem::take(&mut self.search_path);
        self.look_up_by(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_where_they_are_alone() {
        let mut kept = Kept::default();
        let [a, b] = [1, 2].map(ShardId::new);
        kept.add(a, Holds::ADVISORY);
        assert_eq!(kept.shard_of_cursors().unwrap(), None);
        kept.add(b, Holds::CURSOR);
        assert_eq!(kept.shard_of_cursors().unwrap(), Some(b));
        kept.add(a, Holds::CURSOR);
        assert_eq!(kept.shard_of_cursors().unwrap_err().state, NOT_SUPPORTED);
        kept.clear();
        assert!(!kept.contains(a));
    }
}
