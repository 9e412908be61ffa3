//! Runs moves: takes a journal from the store, does on the two shards what the
//! machine says, and writes down how far it is.
//!
//! Whoever runs this can be killed at any moment; another goes on. What the
//! routers must do is behind [`Routers`]; what the databases are asked is in
//! [`sql`].

pub mod checks;
mod clear;
pub mod later;
mod login;
pub mod node;
mod run;
pub mod sql;
pub mod submit;
mod throttle;
mod verify;
mod watch;
mod work;

pub use self::run::{Access, Routers, Run, Waiting, run};
pub use self::work::Limits;
