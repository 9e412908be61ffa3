//! Settings of moves: as whom they log in, and how long others may wait.

use crate::types::Millis;

use super::setting::{Bytes, section};

section! {
    /// Moves of tenants and slots between shards.
    MoveSettings in "moves." {
        /// Role that moves log in as at the shards' primaries; the map's role, which the monitor uses too, if absent. docs/moves.md says what it must be allowed to do.
        user: Option<String> = None;
        /// Environment variable that holds its password.
        password_env: Option<String> = None;
        /// File that holds its password.
        password_file: Option<String> = None;
        /// Moves of one database that this router runs at the same time; more wait, or run by another router. One that is paused, or has switched and waits for FINISH MOVE, does not count. With 0 it runs none.
        parallel_max: u32 = 1, 0 => 16;
        /// How long a table's writers may wait for one trigger of a fence, before it is tried again later.
        lock_max: Millis = Millis::new(100), Millis::new(1) => Millis::new(10_000);
        /// How long a cutover waits for the open transactions of what moves, before it is undone and tried again later.
        drain_max: Millis = Millis::new(500), Millis::new(1) => Millis::new(60_000);
        /// How long a cutover waits for the target to apply what the source has committed, before it is undone.
        apply_max: Millis = Millis::new(5_000), Millis::new(10) => Millis::new(60_000);
        /// Longest that a statement waits while a move hands the rows of its keys over; then it fails with 40001. A move that takes longer lets go before.
        hold_max: Millis = Millis::new(5_000), Millis::new(10) => Millis::new(600_000);
        /// A router of a database with shards holds a lease on the home shard and sends nothing to the shards once it has lapsed, so that a move knows when nobody has an older map. This is its length while rows move; without any, `0s`, a router takes no lease, and moves don't wait for it. A router that is gone without a word keeps a move waiting for so long and a quarter more.
        lease: Millis = Millis::new(10_000), Millis::ZERO => Millis::new(600_000);
        /// The lease's length while nothing moves: for so long the shards are served without the home shard, and so long a move waits for a router that ended without a word.
        lease_idle: Millis = Millis::new(300_000), Millis::new(1_000) => Millis::new(86_400_000);
        /// Rows that are deleted at once where a move has ended.
        purge_rows: u32 = 5_000, 1 => 1_000_000;
        /// Rows are not copied or purged while a replica of one of the two shards is further behind than this; 0 for no limit.
        replica_lag_max: Bytes = Bytes::mib(1024), Bytes::new(0) => Bytes::mib(1 << 20);
        /// Rows are not copied or purged while more sessions than this are at work on one of the two primaries; 0 for no limit.
        active_max: u32 = 0, 0 => 100_000;
        /// Rows are not copied while the target's database has more bytes than this; 0 for no limit.
        target_bytes_max: Bytes = Bytes::new(0), Bytes::new(0) => Bytes::mib(1 << 30);
        /// Values by which the sequences of the moved tables are ahead on the new owner.
        sequence_margin: u32 = 1_000, 0 => 1_000_000_000;
    }
}
