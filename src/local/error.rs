//! What can go wrong with local servers, in words that name the way out.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why local servers could not be found, started, reached or ended.
#[derive(Debug)]
pub enum LocalError {
    /// No installation of PostgreSQL that is new enough and runnable.
    NoPostgres {
        /// What was looked at and why it was passed over.
        looked_at: Vec<String>,
    },
    /// Another supervisor holds the folder.
    Running {
        /// The folder.
        dir: PathBuf,
        /// Its process id, where it could be read.
        pid: Option<u32>,
    },
    /// No supervisor runs on the folder.
    NotRunning {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder was made by another major version of PostgreSQL.
    OtherVersion {
        /// The folder.
        dir: PathBuf,
        /// Major version that made it.
        made_by: u32,
        /// Major version asked for now.
        asked: u32,
    },
    /// The folder holds a cluster of another shape.
    OtherShape {
        /// The folder.
        dir: PathBuf,
        /// Shards and replicas a shard, as they are.
        is: (u16, u16),
        /// Shards and replicas a shard, as asked.
        asked: (u16, u16),
    },
    /// A program ended with an error; `output` is the end of what it said.
    Program {
        /// The program's name.
        name: String,
        /// The last lines it printed.
        output: String,
    },
    /// A server ended by itself or did not become ready.
    Server {
        /// The node, as `shard1/primary`.
        node: String,
        /// What happened.
        what: &'static str,
        /// The last lines of its log.
        log: String,
    },
    /// No free TCP port was found.
    NoPort,
    /// The folder's `cluster.json` can't be read.
    State {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused something.
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        error: io::Error,
    },
}

impl LocalError {
    /// Exit code of `keyway local` for this error.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } => 5,
            Self::Running { .. } => 4,
            Self::NoPostgres { .. } => 6,
            Self::OtherVersion { .. } | Self::OtherShape { .. } => 1,
            Self::Program { .. }
            | Self::Server { .. }
            | Self::NoPort
            | Self::State { .. }
            | Self::Io { .. } => 3,
        }
    }

    /// A way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoPostgres { .. } => Some(
                "run scripts/get-postgres, install PostgreSQL 15 or newer, or name its folder with \
                 --pg-bin or KEYWAY_PG_BIN"
                    .to_owned(),
            ),
            Self::Running { dir, .. } => Some(format!(
                "`keyway local status --dir {0}` shows it, `keyway local down --dir {0}` ends it",
                dir.display()
            )),
            Self::NotRunning { dir } => {
                Some(format!("`keyway local up --dir {}` starts it", dir.display()))
            }
            Self::OtherVersion { dir, .. } | Self::OtherShape { dir, .. } => {
                Some(format!("take another --dir, or remove {} to begin afresh", dir.display()))
            }
            Self::State { file, .. } => {
                Some(format!("remove the folder of {} to begin afresh", file.display()))
            }
            Self::Program { .. } | Self::Server { .. } | Self::NoPort | Self::Io { .. } => None,
        }
    }

    /// Makes an `Io` error that says what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }

    /// Makes an `Io` error about `path`.
    pub(crate) fn path(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPostgres { looked_at } if looked_at.is_empty() => {
                write!(f, "no PostgreSQL {VERSION_MIN} or newer found")
            }
            Self::NoPostgres { looked_at } => {
                write!(f, "no usable PostgreSQL {VERSION_MIN} or newer: {}", looked_at.join("; "))
            }
            Self::Running { dir, pid: Some(pid) } => {
                write!(f, "already running on {}, as process {pid}", dir.display())
            }
            Self::Running { dir, pid: None } => {
                write!(f, "already running on {}", dir.display())
            }
            Self::NotRunning { dir } => write!(f, "nothing runs on {}", dir.display()),
            Self::OtherVersion { dir, made_by, asked } => write!(
                f,
                "{} was made by PostgreSQL {made_by}, which can't be opened with {asked}",
                dir.display()
            ),
            Self::OtherShape { dir, is, asked } => write!(
                f,
                "{} holds {} shards with {} replicas each, not {} with {}",
                dir.display(),
                is.0,
                is.1,
                asked.0,
                asked.1
            ),
            Self::Program { name, output } => write!(f, "{name} failed: {}", output.trim_end()),
            Self::Server { node, what, log } => {
                write!(f, "the server of {node} {what}; its log ends with\n{}", log.trim_end())
            }
            Self::NoPort => write!(f, "no free TCP port on 127.0.0.1"),
            Self::State { file, reason } => write!(f, "{}: {reason}", file.display()),
            Self::Io { doing, error } => write!(f, "{doing}: {error}"),
        }
    }
}

impl std::error::Error for LocalError {}

/// Oldest major version of PostgreSQL that is supported.
pub(crate) const VERSION_MIN: u32 = 15;
