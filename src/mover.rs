//! A tenant's or some slots' move from one shard to another, as a machine with
//! a journal.
//!
//! The machine says one action after the other and hears what came of each; it
//! knows no SQL, no clock and no connection. Every action can be repeated, so
//! whoever finds the journal goes on where it stands. What the databases must
//! do for each action is `control::mover`'s.
//!
//! Never are both sides open for writes: the source is fenced, durably, before
//! the map names the target, and the target opens only when every router has
//! the map and everything that the source has committed has arrived.
//! [`fleet`] says when no router has an older map. docs/moves.md has the rules; the simulation shows which of them lose rows
//! when they are left out.

mod begin;
pub mod fleet;
mod journal;
mod machine;
pub mod queue;
#[cfg(test)]
mod simulation;
mod times;
mod told;

pub use self::begin::BeginError;
pub use self::journal::{End, Journal, MovedTable, Phase, Side, Subject, Subscriptions, Wish};
pub use self::machine::{Action, Machine, Outcome, Sight};
pub use self::times::{Pause, Times};
pub use self::told::Told;
