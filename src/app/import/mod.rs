//! `keyway import pgbouncer`: reads the files of a pgbouncer and writes a
//! configuration, a map for each database and files for the passwords; says of
//! each setting that has no counterpart why. Reads and writes files; what a
//! setting becomes is `pgbouncer`'s to say, how the file is read `ini`'s.

mod ini;
mod known;
mod pgbouncer;
#[cfg(test)]
mod tests;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::cli::{Exit, ImportArgs, ImportFrom};
use super::complain;
use ini::Ini;
use pgbouncer::{Import, UserList};

/// Does what `keyway import` asks.
pub(super) fn run(args: &ImportArgs) -> Exit {
    let ImportFrom::Pgbouncer { file, out } = &args.from;
    let ini = match read(file, 0) {
        Ok(ini) => ini,
        Err((exit, reason)) => return complain(exit, reason),
    };
    let users = match ini.value("pgbouncer", "auth_file") {
        None => UserList::default(),
        Some(name) => {
            let path = beside(file, name);
            match fs::read_to_string(&path).map_err(|error| error.to_string()) {
                Ok(text) => match UserList::parse(&text) {
                    Ok(users) => users,
                    Err(line) => {
                        let reason = format!("{}:{line}: no user and password", path.display());
                        return complain(Exit::Refused, reason);
                    }
                },
                Err(error) => {
                    return complain(Exit::Failed, format!("{}: {error}", path.display()));
                }
            }
        }
    };
    let import = pgbouncer::translate(&ini, &users);
    match write(&import, out) {
        Ok(()) => {}
        Err(error) => return complain(Exit::Failed, error),
    }
    report(&import, out);
    Exit::Done
}

/// Reads a file and those that it includes.
fn read(path: &Path, depth: usize) -> Result<Ini, (Exit, String)> {
    let name = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| (Exit::Failed, format!("{name}: {error}")))?;
    if depth > INCLUDES_MAX {
        return Err((Exit::Refused, format!("{name}: files include each other")));
    }
    let mut ini = Ini::default();
    for piece in ini::pieces(&text) {
        match piece {
            ini::Piece::Include(other) => {
                ini.absorb(read(&beside(path, other), depth + 1)?);
            }
            ini::Piece::Line { number, text } => ini
                .add(text)
                .map_err(|reason| (Exit::Refused, format!("{name}:{number}: {reason}")))?,
        }
    }
    Ok(ini)
}

fn beside(file: &Path, other: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(other)
}

/// Writes what came of it; replaces no file.
fn write(import: &Import, out: &Path) -> Result<(), String> {
    let of = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(out).map_err(|error| of(out, &error))?;
    for (name, text) in &import.files {
        let path = out.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // Passwords are for their owner only.
        options.mode(if name.ends_with(".password") { 0o600 } else { 0o644 });
        let mut file = options.open(&path).map_err(|error| of(&path, &error))?;
        file.write_all(text.expose().as_bytes()).map_err(|error| of(&path, &error))?;
    }
    Ok(())
}

/// Says what was written and what could not be.
fn report(import: &Import, out: &Path) {
    let mut text = String::new();
    for (name, _) in &import.files {
        text += &format!("wrote {}\n", out.join(name).display());
    }
    if !import.notes.is_empty() {
        text += "\nWithout a counterpart, or to be looked at:\n";
    }
    for note in &import.notes {
        text += &format!("  {}: {}\n", note.what, note.why);
    }
    // A closed output leaves the files as the only answer.
    let _ = io::stdout().write_all(text.as_bytes());
}

/// How deep files may include each other, as in pgbouncer.
const INCLUDES_MAX: usize = 10;
