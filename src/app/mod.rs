//! The program: command line, logging, start and shutdown.
//!
//! The only place that knows every module, owns the long-lived threads and
//! turns outcomes into exit codes.

mod access;
mod cancels;
mod catalog;
mod catalogs;
pub mod check;
pub mod cli;
mod doctor;
mod dump;
mod fleet;
mod handover;
mod help;
mod history;
mod holding;
mod import;
pub mod logging;
mod moves;
mod notify;
pub mod passfile;
mod plan;
mod plane;
mod rebalance;
mod renew;
mod replace;
mod route;
mod schema;
pub mod secrets;
mod serve;
mod succession;
pub mod url;

use std::fmt::Display;
use std::io::Write;

use cli::{Cli, Command, Exit};

use crate::local;

/// Does what the command line asks and says how it ended.
pub fn run(cli: Cli) -> Exit {
    match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Route(args) => route::run(&args),
        Command::Catalog(args) => catalog::run(&args),
        Command::Local(args) => Exit::Local(local::run(&args)),
        Command::Plan(args) => plan::plan(&args),
        Command::Apply(args) => plan::apply(&args),
        Command::Rebalance(args) => rebalance::run(&args),
        Command::Rollback(args) => plan::rollback(&args),
        Command::History(args) => history::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Check(args) => check::run(&args.files),
        Command::Import(args) => import::run(&args),
        Command::Man(args) => help::man(&args.dir),
        Command::Completions(args) => help::completions(args.shell),
    }
}

/// Prints one sentence for people on standard error and passes `exit` on.
fn complain(exit: Exit, sentence: impl Display) -> Exit {
    // A closed standard error leaves the exit code as the only answer.
    let _ = writeln!(std::io::stderr(), "keyway: {sentence}");
    exit
}
