//! Resolves references to passwords: environment variables and files.
//!
//! Errors name the reference, never what it holds.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::shardmap::SecretRef;
use crate::types::Secret;

/// The environment variables, as they were at the start.
#[derive(Clone, Default)]
pub struct Environment {
    variables: HashMap<String, String>,
}

impl Environment {
    /// The process's own; variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self {
            variables: pairs
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        }
    }

    /// These variables.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self { variables: pairs.into_iter().map(owned).collect() }
    }

    /// The variable `name`.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The secret in the variable `name`.
    ///
    /// # Errors
    /// It is not set, or empty.
    pub fn secret(&self, name: &str) -> Result<Secret, SecretError> {
        match self.variable(name) {
            Some(text) if !text.is_empty() => Ok(Secret::new(text.to_owned())),
            _ => Err(SecretError::Variable { name: name.to_owned() }),
        }
    }

    /// What `reference` refers to; `None` for the client's own password.
    ///
    /// # Errors
    /// The variable is not set or the file can't be read.
    pub fn resolve(&self, reference: &SecretRef) -> Result<Option<Secret>, SecretError> {
        match reference {
            SecretRef::Env(name) => self.secret(name).map(Some),
            SecretRef::File(path) => from_file(Path::new(path)).map(Some),
            SecretRef::Inline(secret) => Ok(Some(secret.clone())),
            SecretRef::Client => Ok(None),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} variables)", self.variables.len())
    }
}

/// The secret in the file `path`; a line break at its end does not count.
///
/// # Errors
/// It can't be read, is empty, or is much too long.
pub fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let failed = |error| SecretError::File { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > SECRET_BYTES_MAX {
        return Err(failed(io::Error::other("it is too long for a password")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(failed(io::Error::other("it is empty")));
    }
    Ok(Secret::new(text.to_owned()))
}

/// Why a password can't be had.
#[derive(Debug)]
pub enum SecretError {
    /// An environment variable is not set, or empty.
    Variable {
        /// Its name.
        name: String,
    },
    /// A file can't be read or holds no password.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name } => write!(f, "environment variable {name} is not set"),
            Self::File { path, error } => {
                write!(f, "password file {} can't be used: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for SecretError {}

/// Longest password file; Postgres takes no longer password either.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_line_break_at_the_end_of_a_file_is_no_part_of_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        for (text, password) in [("a b\n", "a b"), ("x\r\n", "x"), ("y", "y"), ("z\n\n", "z\n")] {
            fs::write(&path, text).unwrap();
            assert_eq!(from_file(&path).unwrap().expose(), password);
        }
        fs::write(&path, "\n").unwrap();
        assert!(from_file(&path).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        let environment = Environment::of([("EMPTY", "")]);
        for name in ["EMPTY", "ABSENT"] {
            let error = environment.resolve(&SecretRef::Env(name.to_owned())).unwrap_err();
            assert!(error.to_string().contains(name));
        }
        let error = environment.resolve(&SecretRef::File("/no/such".to_owned())).unwrap_err();
        assert!(error.to_string().contains("/no/such"));
    }

    #[test]
    fn the_environment_is_never_printed() {
        let environment = Environment::of([("PGPASSWORD", "sesame")]);
        assert!(!format!("{environment:?}").contains("sesame"));
    }
}
