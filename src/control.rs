//! The control plane's tasks: what watches nodes and files while the engine
//! serves.
//!
//! They run on a thread of their own, so that a slow node or disk delays no
//! statement. What they find they pass on through the callbacks that the
//! program gives them; they decide nothing that a pure module could.

pub mod catalog;
pub mod doctor;
pub mod files;
mod follow;
pub mod lookup;
pub mod maps;
pub mod monitor;
pub mod mover;
mod patroni;
mod sampler;
mod tls;
pub mod weigh;
