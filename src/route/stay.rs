//! What a write with a key marks.
//!
//! Only its slot, if everything that it writes provably stays there. A
//! trigger, a rule, a cascade, a column's default or a function may write
//! elsewhere, which a text alone never excludes: without the shards' catalogs
//! a write marks its whole shard.

use crate::cluster::Mark;

/// The mark of a write of which only the text is known.
pub(crate) const fn unproven_write() -> Mark {
    Mark::Shard
}
