//! What operators see and may do: the console's commands, the metrics, and
//! whether the router lives and is ready.
//!
//! It reads snapshots and asks for actions through [`Source`]; it opens no
//! connection to a node and holds no state of the router's.

pub mod command;
pub mod console;
mod databases;
pub mod http;
pub mod metrics;
pub mod source;
pub mod task;

pub use source::{
    Action, CatalogView, DatabaseView, Inputs, Outcome, Refusal, Reloaded, SettingRow, Source,
};
