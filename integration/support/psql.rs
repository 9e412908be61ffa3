//! psql, as a client to test with and to test.

use std::process::{Command, Stdio};

use keyway::local::{Installation, Version};

/// How a run of psql ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Psql {
    /// Rows: columns separated by `|`, one row a line.
    Done(String),
    /// What it printed on standard error.
    Failed(String),
}

impl Psql {
    /// The rows; fails the test if there was an error.
    #[track_caller]
    pub fn expect(self) -> String {
        match self {
            Self::Done(out) => out,
            Self::Failed(error) => panic!("psql: {error}"),
        }
    }

    /// The error; fails the test if there was none.
    #[track_caller]
    pub fn expect_error(self) -> String {
        match self {
            Self::Failed(error) => error,
            Self::Done(out) => panic!("psql succeeded: {out}"),
        }
    }
}

/// Runs SQL in one psql, each statement by itself, until the first error.
/// Messages carry their SQLSTATE.
pub fn psql(url: &str, sql: &str) -> Psql {
    psql_with(url, &["--command", sql])
}

/// Runs psql with these arguments.
pub fn psql_with(url: &str, args: &[&str]) -> Psql {
    psql_by(command(), url, args)
}

/// Runs this psql with these arguments.
pub fn psql_by(mut psql: Command, url: &str, args: &[&str]) -> Psql {
    let output = psql
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"])
        .args(["--set=ON_ERROR_STOP=1", "--set=VERBOSITY=verbose", "--dbname", url])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("psql runs");
    if output.status.success() {
        Psql::Done(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        Psql::Failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }
}

/// psql of the newest installation.
pub fn command() -> Command {
    let mut command = Installation::find(Version::Newest, None).unwrap().command("psql");
    command.env("PGCONNECT_TIMEOUT", "20");
    command
}
