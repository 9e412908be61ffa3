//! Resolves references to passwords: environment variables, files, and programs
//! that print them.
//!
//! Errors name the reference, never what it holds; of a program its name alone,
//! because its arguments and what it says may hold a secret too.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::shardmap::SecretRef;
use crate::types::Secret;

/// The environment variables, as they were at the start; and what programs
/// have printed since. Cheap to clone.
#[derive(Clone, Default)]
pub struct Environment {
    variables: Arc<HashMap<String, String>>,
    commands: Arc<Mutex<Commands>>,
}

/// What programs have printed.
struct Commands {
    timeout: Duration,
    printed: HashMap<Vec<String>, Secret>,
}

impl Default for Commands {
    fn default() -> Self {
        Self { timeout: COMMAND_TIMEOUT, printed: HashMap::new() }
    }
}

impl Environment {
    /// The process's own; variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        let variables: HashMap<String, String> = pairs
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { variables: Arc::new(variables), commands: Arc::default() }
    }

    /// These variables.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let variables = Arc::new(pairs.into_iter().map(owned).collect());
        Self { variables, commands: Arc::default() }
    }

    fn commands(&self) -> MutexGuard<'_, Commands> {
        // What was printed is whole or not there.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Programs get this long from here on.
    pub fn set_command_timeout(&self, timeout: Duration) {
        self.commands().timeout = timeout;
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

    /// What `reference` refers to; `None` for the client's own password. Paths
    /// are relative to `folder`, that of the file with the reference.
    ///
    /// Blocks: a program that has printed nothing yet is waited for.
    ///
    /// # Errors
    /// The variable is not set, the file can't be read, or the program fails.
    pub fn resolve(
        &self,
        reference: &SecretRef,
        folder: &Path,
    ) -> Result<Option<Secret>, SecretError> {
        match reference {
            SecretRef::Env(name) => self.secret(name).map(Some),
            SecretRef::File(path) => from_file(&folder.join(path)).map(Some),
            SecretRef::Command(words) => self.printed_by(words, folder).map(Some),
            SecretRef::Inline(secret) => Ok(Some(secret.clone())),
            SecretRef::Client => Ok(None),
        }
    }

    fn printed_by(&self, words: &[String], folder: &Path) -> Result<Secret, SecretError> {
        let mut words = words.to_vec();
        if let Some(program) = words.first_mut()
            && program.contains('/')
        {
            *program = folder.join(&*program).display().to_string();
        }
        if let Some(secret) = self.commands().printed.get(&words) {
            return Ok(secret.clone());
        }
        let timeout = self.commands().timeout;
        let secret = from_command(&words, timeout)?;
        self.commands().printed.insert(words, secret.clone());
        Ok(secret)
    }

    /// Runs all programs again. Blocks. What one has printed before stays in
    /// use if it fails. True if one has printed something else.
    pub fn run_commands_again(&self) -> bool {
        let (known, timeout) = {
            let commands = self.commands();
            (commands.printed.clone(), commands.timeout)
        };
        let mut changed = false;
        for (words, before) in known {
            match from_command(&words, timeout) {
                Ok(secret) if secret == before => {}
                Ok(secret) => {
                    changed = true;
                    self.commands().printed.insert(words, secret);
                }
                Err(error) => tracing::error!(%error, "its last password stays in use"),
            }
        }
        changed
    }
}

/// What a program prints, as the content of a file.
///
/// # Errors
/// It can't be started, fails, takes too long, or prints no password.
fn from_command(words: &[String], timeout: Duration) -> Result<Secret, SecretError> {
    let program = words.first().cloned().unwrap_or_default();
    let failed = |reason: String| SecretError::Command { program: program.clone(), reason };
    let run = || -> Result<Vec<u8>, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(async {
            match tokio::time::timeout(timeout, printed(words)).await {
                Ok(printed) => printed,
                Err(_) => Err(format!("it took longer than {} ms", timeout.as_millis())),
            }
        })
    };
    // A thread of its own: the caller's may belong to a runtime already.
    let printed = std::thread::scope(|scope| scope.spawn(run).join());
    let printed = printed.unwrap_or_else(|_| Err("it could not be run".to_owned()));
    let text = String::from_utf8(printed.map_err(failed)?)
        .map_err(|_| failed("it prints something that is not UTF-8".to_owned()))?;
    password_of(&text).ok_or_else(|| failed("it prints nothing".to_owned()))
}

async fn printed(words: &[String]) -> Result<Vec<u8>, String> {
    let (program, args) = words.split_first().ok_or("no program is named")?;
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It may hold what must not be logged.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut bounded = stdout.take(SECRET_BYTES_MAX + 1);
        bounded.read_to_end(&mut out).await.map_err(|error| error.to_string())?;
    }
    if u64::try_from(out.len()).is_ok_and(|length| length > SECRET_BYTES_MAX) {
        return Err("what it prints is too long for a password".to_owned());
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() { Ok(out) } else { Err(format!("it ended with {status}")) }
}

/// The password in a text; a line break at its end does not count.
fn password_of(text: &str) -> Option<Secret> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
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
    password_of(&text).ok_or_else(|| failed(io::Error::other("it is empty")))
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
    /// A program prints no password.
    Command {
        /// Its name.
        program: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name } => write!(f, "environment variable {name} is not set"),
            Self::File { path, error } => {
                write!(f, "password file {} can't be used: {error}", path.display())
            }
            Self::Command { program, reason } => {
                write!(f, "password command {program} has failed: {reason}")
            }
        }
    }
}

impl std::error::Error for SecretError {}

/// How long programs get unless the configuration says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
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
            let reference = SecretRef::Env(name.to_owned());
            let error = environment.resolve(&reference, Path::new("")).unwrap_err();
            assert!(error.to_string().contains(name));
        }
        let reference = SecretRef::File("such".to_owned());
        let error = environment.resolve(&reference, Path::new("/no")).unwrap_err();
        assert!(error.to_string().contains("/no/such"));
    }

    fn command(words: &[&str]) -> SecretRef {
        SecretRef::Command(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_program_runs_once_until_it_is_run_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p"), "one\n").unwrap();
        let environment = Environment::default();
        let file = folder.path().join("p").display().to_string();
        let reference = command(&["cat", &file]);
        let read = || environment.resolve(&reference, Path::new("")).unwrap().unwrap();
        assert_eq!(read().expose(), "one");
        fs::write(folder.path().join("p"), "two\n").unwrap();
        assert_eq!(read().expose(), "one", "it is not run at each login");
        assert!(environment.run_commands_again());
        assert_eq!(read().expose(), "two");
        assert!(!environment.run_commands_again());
        fs::remove_file(folder.path().join("p")).unwrap();
        assert!(!environment.run_commands_again());
        assert_eq!(read().expose(), "two", "a program that fails takes nothing away");
    }

    #[test]
    fn a_program_that_fails_says_no_secret() {
        let environment = Environment::default();
        environment.set_command_timeout(Duration::from_millis(200));
        for (words, reason) in [
            (&["sh", "-c", "echo hush >&2; echo hush; exit 3"][..], "status: 3"),
            (&["sh", "-c", "echo hush; exec sleep 60"], "longer than 200 ms"),
            (&["sh", "-c", "exit 0 # hush"], "prints nothing"),
            (&["sh", "-c", "yes hush"], "too long"),
            (&["/no/such", "hush"], "No such file"),
        ] {
            let error = environment.resolve(&command(words), Path::new("")).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(reason), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_file_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("p"), "of-file").unwrap();
        fs::write(folder.path().join("print"), "#!/bin/sh\necho of-program\n").unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder.path().join("print"), mode).unwrap();
        let environment = Environment::default();
        let read = |reference| environment.resolve(&reference, folder.path()).unwrap().unwrap();
        assert_eq!(read(SecretRef::File("p".to_owned())).expose(), "of-file");
        assert_eq!(read(command(&["./print"])).expose(), "of-program");
    }

    #[test]
    fn the_environment_is_never_printed() {
        let environment = Environment::of([("PGPASSWORD", "sesame")]);
        assert!(!format!("{environment:?}").contains("sesame"));
    }
}
