//! The IO shell of the data path: threads that drive sessions, backends and
//! pools.

pub mod console;
pub mod snapshot;
