//! The router's configuration: every setting with its unit, limits, default
//! and description, read from one TOML text.
//!
//! It does not open files or resolve passwords: a reference to one stays a
//! reference. `docs/config.md` and `docs/config.schema.json` are made from the
//! same declarations.

mod auth;
#[allow(clippy::module_inception, reason = "the module's main type is its namesake")]
mod config;
mod manual;
mod moves;
mod reader;
mod setting;
mod settings;

pub use self::auth::{Auth, BackendLogin};
pub use self::config::{
    Admin, ClientAuth, ClientTls, ClientTlsMode, Config, Database, Hints, Login, Server, User,
};
pub use self::manual::{page, schema};
pub use self::moves::MoveSettings;
pub use self::setting::{Bytes, Setting, UrlTemplate};
pub use self::settings::{
    Authority, Limits, Log, LogFormat, LogLevel, Nodes, Pool, PoolMode, Reads, Secrets, Settings,
    Timeouts, Writers,
};
pub use crate::document::Problem;
