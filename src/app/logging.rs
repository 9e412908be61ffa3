//! The log: lines on standard error, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat};

/// Starts the log; the first call in a process counts.
///
/// Lines of libraries appear from `warn` on, and the line that says where the
/// router listens at every level: scripts wait for it.
pub fn start(log: &Log) {
    let level = log.level.name();
    let filter = EnvFilter::new(format!("warn,keyway={level},{READY}=info"));
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a log is running already, as in tests.
    let _ = match log.format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            builder.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Target of the line that says that the router listens.
pub const READY: &str = "keyway_ready";
