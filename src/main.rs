//! The `keyway` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    ExitCode::from(keyway::app::run(keyway::app::cli::Cli::parse()).code())
}
