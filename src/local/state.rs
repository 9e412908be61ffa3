//! The folder of a local cluster: what it holds, who holds it, and what is
//! remembered from one start to the next.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::error::LocalError;
use super::settings::Passwords;

/// What `cluster.json` remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Format of this file.
    pub(crate) format: u32,
    /// Major version of PostgreSQL that made the data.
    pub(crate) major: u32,
    /// Folder of the servers' files: the cluster's own, or one under /var/tmp
    /// where the servers' user can't reach it.
    pub(crate) data_root: PathBuf,
    /// Folder of the Unix sockets; short, because their names are limited.
    pub(crate) socket_dir: PathBuf,
    /// Port for the router's clients, chosen once: free at that time.
    pub(crate) router_port: u16,
    /// Port for the router's metrics and health.
    pub(crate) http_port: u16,
    /// The servers.
    pub(crate) nodes: Vec<NodeState>,
}

/// What is remembered of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    /// Number of its shard, from 1.
    pub(crate) shard: u16,
    /// Zero for the primary, else the replica's number, from 1.
    pub(crate) replica: u16,
    /// Port on 127.0.0.1, kept while it is free.
    pub(crate) port: u16,
    /// Process id while it runs; else the last one.
    pub(crate) pid: Option<u32>,
    /// Whether its data folder was completely made.
    pub(crate) made: bool,
}

impl NodeState {
    /// Its name: `shard1/primary`, `shard1/replica1`.
    pub(crate) fn name(&self) -> String {
        match self.replica {
            0 => format!("shard{}/primary", self.shard),
            n => format!("shard{}/replica{n}", self.shard),
        }
    }

    /// Name of the replication slot that a replica follows with.
    pub(crate) fn slot(&self) -> String {
        format!("keyway_replica{}", self.replica)
    }
}

impl State {
    /// Reads the folder's state; `None` where nothing was made yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, LocalError> {
        let file = dir.join(STATE_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LocalError::path("read", &file)(error)),
        };
        let bad = |reason: String| LocalError::State { file: file.clone(), reason };
        let state: Self = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if state.format != FORMAT {
            return Err(bad(format!("format {} is not {FORMAT}", state.format)));
        }
        Ok(Some(state))
    }

    /// Writes the state, whole or not at all.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), LocalError> {
        let file = dir.join(STATE_FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| LocalError::State { file: file.clone(), reason: e.to_string() })?;
        write_file(&file, &text, 0o644)
    }

    /// A new cluster: where its files go, and its nodes without ports.
    pub(crate) fn plan(
        dir: &Path,
        account: &Account,
        major: u32,
        shards: u16,
        replicas: u16,
    ) -> Self {
        let short = format!("keyway-{:016x}", fingerprint(dir));
        let data_root = if account.reaches(dir) {
            dir.to_path_buf()
        } else {
            Path::new("/var/tmp").join(&short)
        };
        let sockets = data_root.join("sockets");
        let fits = sockets.as_os_str().len() + SOCKET_NAME_LEN < SOCKET_PATH_LEN_MAX;
        let socket_dir = if fits { sockets } else { Path::new("/tmp").join(&short) };
        let nodes = (1..=shards).flat_map(|shard| {
            (0..=replicas).map(move |replica| NodeState {
                shard,
                replica,
                port: 0,
                pid: None,
                made: false,
            })
        });
        Self {
            format: FORMAT,
            major,
            data_root,
            socket_dir,
            router_port: 0,
            http_port: 0,
            nodes: nodes.collect(),
        }
    }

    /// Shards, and replicas of each.
    pub(crate) fn shape(&self) -> (u16, u16) {
        let shards = self.nodes.iter().map(|n| n.shard).max().unwrap_or(0);
        (shards, self.nodes.iter().map(|n| n.replica).max().unwrap_or(0))
    }
}

/// The lock on a folder. Held by its supervisor for as long as it lives; the
/// kernel lets go of it when the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code)] File);

impl Lock {
    /// Takes the lock on `dir` and writes the process id into its file.
    ///
    /// # Errors
    /// `Running` while another process has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, LocalError> {
        let path = dir.join(LOCK_FILE);
        let failed = |error| LocalError::path("open", &path)(error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(LocalError::Running { dir: dir.to_path_buf(), pid: read_pid(&mut file) });
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(LocalError::path("write", &path))?;
        Ok(Self(file))
    }

    /// The process that holds the lock on `dir`; `None` where there is none.
    /// Its number is zero in the instant before it is written.
    pub(crate) fn holder(dir: &Path) -> Option<u32> {
        let mut file = OpenOptions::new().read(true).open(dir.join(LOCK_FILE)).ok()?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => Some(read_pid(&mut file).unwrap_or(0)),
        }
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Reads the folder's passwords, or makes them up.
pub(crate) fn passwords(dir: &Path) -> Result<Passwords, LocalError> {
    Ok(Passwords {
        app: password(&dir.join(APP_PASSWORD_FILE))?,
        superuser: password(&dir.join(SUPERUSER_PASSWORD_FILE))?,
    })
}

fn password(file: &Path) -> Result<String, LocalError> {
    if let Ok(text) = fs::read_to_string(file)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let mut bytes = [0_u8; 12];
    getrandom::fill(&mut bytes).map_err(|error| LocalError::Io {
        doing: "make up a password".to_owned(),
        error: std::io::Error::other(error.to_string()),
    })?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_file(file, &format!("{text}\n"), 0o600)?;
    Ok(text)
}

/// Writes a file through another name, so a reader sees all of it or none.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), LocalError> {
    let part = path.with_extension("part");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(&part).map_err(LocalError::path("write", &part))?;
    file.set_permissions(fs::Permissions::from_mode(mode))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&part, path))
        .map_err(LocalError::path("write", path))
}

/// FNV-1a of a path: the same in every run, which std's hasher does not promise.
fn fingerprint(path: &Path) -> u64 {
    path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Password of the application's login.
pub(crate) const APP_PASSWORD_FILE: &str = "app.password";
/// Password of the superuser, for logins over TCP.
pub(crate) const SUPERUSER_PASSWORD_FILE: &str = "superuser.password";
const STATE_FILE: &str = "cluster.json";
const LOCK_FILE: &str = "lock";
const FORMAT: u32 = 2;
/// The shortest limit on a socket's path among the systems we know, less a NUL.
const SOCKET_PATH_LEN_MAX: usize = 103;
/// Longest name of a socket in its folder: `/.s.PGSQL.65535.lock`.
const SOCKET_NAME_LEN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_on_a_folder_is_refused_with_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(dir.path()), None);
        let first = Lock::take(dir.path()).unwrap();
        assert_eq!(Lock::holder(dir.path()), Some(std::process::id()));
        let refused = Lock::take(dir.path()).unwrap_err();
        assert_eq!(refused.exit_code(), 4);
        assert!(refused.to_string().ends_with(&format!("process {}", std::process::id())));
        drop(first);
        assert_eq!(Lock::holder(dir.path()), None);
        Lock::take(dir.path()).unwrap();
    }

    #[test]
    fn state_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), None);
        let state = State::plan(dir.path(), &Account::for_servers(), 18, 2, 1);
        assert_eq!(state.shape(), (2, 1));
        let names: Vec<_> = state.nodes.iter().map(NodeState::name).collect();
        assert_eq!(
            names,
            ["shard1/primary", "shard1/replica1", "shard2/primary", "shard2/replica1"]
        );
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()).unwrap(), Some(state));
        fs::write(dir.path().join(STATE_FILE), "{}").unwrap();
        assert!(State::read(dir.path()).unwrap_err().hint().is_some());
    }

    #[test]
    fn long_folder_gets_short_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let state = State::plan(&deep, &Account::for_servers(), 18, 1, 0);
        assert!(state.socket_dir.as_os_str().len() < 40, "{:?}", state.socket_dir);
    }

    #[test]
    fn password_is_made_once_and_for_the_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let made = passwords(dir.path()).unwrap();
        assert_eq!(passwords(dir.path()).unwrap(), made);
        assert_ne!(made.app, made.superuser);
        let mode = fs::metadata(dir.path().join(APP_PASSWORD_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
