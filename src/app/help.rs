//! `keyway man` and `keyway completions`: both are made from the definition of
//! the command line, so that they say what it does.

use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use super::cli::{Cli, Exit};
use super::complain;

/// Writes a page for the program and one for each of its commands.
pub(super) fn man(dir: &Path) -> Exit {
    let made = std::fs::create_dir_all(dir);
    match made.and_then(|()| clap_mangen::generate_to(Cli::command(), dir)) {
        Ok(()) => Exit::Done,
        Err(error) => complain(Exit::Failed, format!("{}: {error}", dir.display())),
    }
}

/// Prints the script that completes the program's words.
pub(super) fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "keyway", &mut script);
    // Whoever reads may have left.
    let _ = io::stdout().write_all(&script);
    Exit::Done
}
