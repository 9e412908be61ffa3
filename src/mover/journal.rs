//! What is written down of a move: enough to go on from any crash.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::times::Times;

/// One of the two shards of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where the rows were when the move began.
    Source,
    /// Where they shall be.
    Target,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// Which rows of a keyspace move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Those of one tenant: its key as the map writes it.
    Tenant(String),
    /// Those of consecutive slots, without the tenants that are pinned.
    Slots {
        /// The first slot.
        first: u32,
        /// The last, included.
        last: u32,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(key) => write!(f, "tenant {key}"),
            Self::Slots { first, last } => write!(f, "slots {first}-{last}"),
        }
    }
}

/// A table that takes part, with its key column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MovedTable {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
    /// The column of the key.
    pub column: String,
}

impl fmt::Display for MovedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// How a move ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The target has the rows, the source no longer.
    Moved,
    /// The source has the rows as before, the target none.
    Aborted,
}

impl End {
    /// The side that keeps the rows.
    pub const fn keeper(self) -> Side {
        match self {
            Self::Moved => Side::Target,
            Self::Aborted => Side::Source,
        }
    }
}

/// How far a move is. What a phase has to do may be partly done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Both sides get their fences, the target's closed.
    Guarding,
    /// The source publishes the rows.
    Publishing,
    /// The target subscribes and copies.
    Copying,
    /// The stream back is prepared.
    Linking,
    /// Both sides are compared at one point of the stream.
    Verifying,
    /// Both sides have the rows; the named one owns them and takes writes.
    Standing(Side),
    /// Ownership passes from the named side to the other.
    Cutting(Side),
    /// The streams end.
    Unlinking(End),
    /// The rows of the side that has lost them are deleted.
    Purging(End),
    /// The fences are removed.
    Clearing(End),
    /// Nothing is left to do.
    Ended(End),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guarding => "guarding",
            Self::Publishing => "publishing",
            Self::Copying => "copying",
            Self::Linking => "linking",
            Self::Verifying => "verifying",
            Self::Standing(Side::Source) => "ready",
            Self::Standing(Side::Target) => "switched",
            Self::Cutting(Side::Source) => "cutting",
            Self::Cutting(Side::Target) => "going back",
            Self::Unlinking(End::Moved) => "finishing",
            Self::Unlinking(End::Aborted) => "aborting",
            Self::Purging(_) => "purging",
            Self::Clearing(_) => "clearing",
            Self::Ended(End::Moved) => "done",
            Self::Ended(End::Aborted) => "aborted",
        })
    }
}

/// What the operator wants of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// Go on until the target owns the rows.
    #[default]
    Run,
    /// Stay where it is.
    Pause,
    /// Give up and leave nothing behind; only while the source owns the rows.
    Abort,
    /// Let the source own the rows again.
    Reverse,
    /// Purge the source; there is no way back then.
    Finish,
}

impl Wish {
    /// The word that the store and the console use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Pause => "pause",
            Self::Abort => "abort",
            Self::Reverse => "reverse",
            Self::Finish => "finish",
        }
    }

    /// The wish that `word` stands for.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Run, Self::Pause, Self::Abort, Self::Reverse, Self::Finish]
            .into_iter()
            .find(|wish| wish.word() == word)
    }
}

/// The numbers that the servers gave our subscriptions: their helpers' names
/// are made of them, and must be found after the subscription is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscriptions {
    /// On the target, from the source.
    pub forward: Option<u32>,
    /// On the source, from the target.
    pub back: Option<u32>,
}

/// A move as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// The move's number.
    pub id: u32,
    /// The keyspace, by name.
    pub keyspace: String,
    /// Which of its rows.
    pub subject: Subject,
    /// The shard they come from, by its permanent number.
    pub source: u16,
    /// The shard they go to.
    pub target: u16,
    /// The tables, as the map had them when the move began.
    pub tables: Vec<MovedTable>,
    /// The tenants of the slots that don't move because they are pinned.
    pub pinned: Vec<String>,
    /// How far it is.
    pub phase: Phase,
    /// Counts the runners that took the move over: an older one's words no
    /// longer count, neither here nor in the databases.
    pub generation: u64,
    /// Counts the cutovers that were begun.
    pub token: u64,
    /// Cutovers in a row that were undone.
    pub tries: u32,
    /// What was made.
    pub subscriptions: Subscriptions,
    /// Why the move has stopped, until the operator says to go on.
    pub stopped: Option<String>,
    /// How long its steps took.
    #[serde(default)]
    pub times: Times,
}

impl Journal {
    /// The side that owns the rows by the last map that was written, as far as
    /// the journal alone can tell; `None` while ownership passes.
    pub const fn owner(&self) -> Option<Side> {
        match self.phase {
            Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying => Some(Side::Source),
            Phase::Standing(side) => Some(side),
            Phase::Cutting(_) => None,
            Phase::Unlinking(end)
            | Phase::Purging(end)
            | Phase::Clearing(end)
            | Phase::Ended(end) => Some(end.keeper()),
        }
    }

    /// The number of the shard on `side`.
    pub const fn shard(&self, side: Side) -> u16 {
        match side {
            Side::Source => self.source,
            Side::Target => self.target,
        }
    }

    /// Whether nothing is left to do.
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether `wish` can be had in this phase; else why not.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn admits(&self, wish: Wish) -> Result<(), &'static str> {
        let over = match self.phase {
            Phase::Unlinking(_) | Phase::Purging(_) | Phase::Clearing(_) | Phase::Ended(_) => true,
            Phase::Guarding
            | Phase::Publishing
            | Phase::Copying
            | Phase::Linking
            | Phase::Verifying
            | Phase::Standing(_)
            | Phase::Cutting(_) => false,
        };
        match wish {
            Wish::Run if !over || self.stopped.is_some() => Ok(()),
            _ if over => Err("the move has ended or is ending"),
            Wish::Run | Wish::Pause => Ok(()),
            Wish::Abort if self.owner() == Some(Side::Source) => Ok(()),
            Wish::Abort => Err("the target owns the rows: REVERSE MOVE comes first"),
            Wish::Reverse | Wish::Finish if self.phase == Phase::Standing(Side::Target) => Ok(()),
            Wish::Reverse | Wish::Finish => Err("the target does not own the rows yet"),
        }
    }
}
