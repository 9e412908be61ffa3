//! One server process: its files, its start, and its end.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::account::Account;
use super::error::LocalError;
use super::find::Installation;
use super::settings::{NodeSettings, SUPERUSER, hba_conf, server_conf};
use super::state::write_file;

/// How a server is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Ends its clients' sessions, takes a checkpoint.
    Fast,
    /// Ends at once; the next start recovers from the log.
    Immediate,
    /// `kill -9`, as a crash would.
    Kill,
}

/// A server's place on disk, and its process while it runs.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    home: PathBuf,
    installation: Installation,
    account: Account,
    child: Option<Child>,
}

impl Node {
    /// A node whose files stand in `home`. Nothing is touched yet.
    pub(crate) fn new(
        name: String,
        home: PathBuf,
        installation: Installation,
        account: Account,
    ) -> Self {
        Self { name, home, installation, account, child: None }
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// The file that its log goes to.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.home.join("server.log")
    }

    /// Process id while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Makes an empty database cluster.
    pub(crate) fn init(&self) -> Result<(), LocalError> {
        self.clear()?;
        let mut command = self.command("initdb");
        command.arg("--pgdata").arg(self.data()).args([
            "--username",
            SUPERUSER,
            "--encoding=UTF8",
            "--auth=scram-sha-256",
            "--auth-local=trust",
            "--no-sync",
            "--no-instructions",
        ]);
        // The same order and letters on every machine, where there is a choice.
        match self.installation.major() {
            0..17 => command.arg("--locale=C.UTF-8"),
            _ => command.args([
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            ]),
        };
        run("initdb", &mut command)?;
        Ok(())
    }

    /// Copies the primary that listens in `socket_dir` on `port`, and makes the
    /// replication slot to follow it with.
    pub(crate) fn copy_primary(
        &self,
        socket_dir: &Path,
        port: u16,
        user: &str,
        slot: &str,
    ) -> Result<(), LocalError> {
        self.clear()?;
        let mut command = self.command("pg_basebackup");
        command.arg("--pgdata").arg(self.data()).arg("--host").arg(socket_dir);
        command.args(["--port", &port.to_string(), "--username", user, "--slot", slot]);
        command.args(["--create-slot", "--wal-method=stream", "--checkpoint=fast"]);
        command.args(["--no-sync", "--no-password"]);
        run("pg_basebackup", &mut command)?;
        // Instead of --write-recovery-conf, which would fix the primary's port
        // of this day in a file that wins over ours.
        let signal = self.data().join("standby.signal");
        write_file(&signal, "", 0o600)?;
        self.account.own(&signal)
    }

    /// Writes the server's configuration; one that runs takes it over when it
    /// is told to.
    pub(crate) fn configure(&self, settings: &NodeSettings<'_>) -> Result<PathBuf, LocalError> {
        self.account.make_private_dir(&self.home)?;
        let conf = self.home.join("server.conf");
        for (path, text) in [
            (conf.as_path(), server_conf(settings)),
            (settings.hba_file, hba_conf()),
            (settings.ident_file, String::new()),
        ] {
            write_file(path, &text, 0o600)?;
            self.account.own(path)?;
        }
        Ok(conf)
    }

    /// Starts the server and returns at once.
    pub(crate) fn start(&mut self, settings: &NodeSettings<'_>) -> Result<u32, LocalError> {
        self.end_leftover();
        let conf = self.configure(settings)?;
        let path = self.log_file();
        if fs::metadata(&path).is_ok_and(|m| m.len() > LOG_LEN_MAX) {
            fs::rename(&path, path.with_extension("log.old"))
                .map_err(LocalError::path("rename", &path))?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(LocalError::path("open", &path))?;
        self.account.own(&path)?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        command.arg("-c").arg(format!("config_file={}", conf.display()));
        // In a group of its own: the terminal's Ctrl-C is the supervisor's to
        // carry out, in order.
        let child = command
            .stdout(log.0)
            .stderr(log.1)
            .process_group(0)
            .spawn()
            .map_err(LocalError::io(format!("start the server of {}", self.name)))?;
        let pid = child.id();
        self.child = Some(child);
        Ok(pid)
    }

    /// Waits until the server takes connections.
    pub(crate) fn wait_ready(&mut self) -> Result<(), LocalError> {
        for _ in 0..READY_POLLS_MAX {
            if self.status_line().is_some_and(|s| s == "ready") {
                return Ok(());
            }
            if self.exited()?.is_some() {
                return Err(self.failure("ended at its start"));
            }
            thread::sleep(POLL);
        }
        Err(self.failure("did not become ready in time"))
    }

    /// How the server ended, if it did; it is reaped by `forget`.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>, LocalError> {
        match &mut self.child {
            None => Ok(None),
            Some(child) => {
                child.try_wait().map_err(LocalError::io(format!("wait for {}", self.name)))
            }
        }
    }

    /// Forgets a process that has ended.
    pub(crate) fn forget(&mut self) {
        self.child = None;
    }

    /// Asks the server to end, and returns at once.
    pub(crate) fn signal(&self, stop: Stop) {
        let signal = match stop {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        };
        if let Some(pid) = self.child.as_ref().and_then(raw_pid) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end of a server that was told to; pushes harder each time
    /// it takes too long.
    pub(crate) fn wait_end(&mut self) {
        for stop in [None, Some(Stop::Immediate), Some(Stop::Kill)] {
            if let Some(stop) = stop {
                self.signal(stop);
            }
            for _ in 0..END_POLLS_MAX {
                match self.child.as_mut().map(Child::try_wait) {
                    None | Some(Ok(Some(_)) | Err(_)) => {
                        self.child = None;
                        return;
                    }
                    Some(Ok(None)) => thread::sleep(POLL),
                }
            }
        }
    }

    /// Says what went wrong, with the end of the log.
    pub(crate) fn failure(&self, what: &'static str) -> LocalError {
        let log = fs::read(self.log_file()).unwrap_or_default();
        LocalError::Server { node: self.name.clone(), what, log: tail(&log) }
    }

    /// Ends a server that an earlier supervisor left on this data folder.
    fn end_leftover(&self) {
        if self.data().join(PID_FILE).exists() {
            let mut command = self.command("pg_ctl");
            command.arg("stop").arg("--pgdata").arg(self.data());
            command.args(["--mode=fast", "--wait", "--silent"]);
            // It fails where the file is a leftover itself, which is the rule.
            let _ = command.output();
        }
    }

    /// Makes the home folder, and removes what a broken start left of the data.
    fn clear(&self) -> Result<(), LocalError> {
        self.account.make_private_dir(&self.home)?;
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(LocalError::path("remove", &self.data())(error))
            }
            _ => Ok(()),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.installation.command(program);
        command.current_dir(&self.home).env("HOME", &self.home).env("LC_ALL", "C");
        self.account.apply(&mut command);
        command
    }

    /// The last line of the server's own status file, if the file is this
    /// process's: `starting`, `standby`, `ready` or `stopping`.
    fn status_line(&self) -> Option<String> {
        let text = fs::read_to_string(self.data().join(PID_FILE)).ok()?;
        let mut lines = text.lines();
        let pid: u32 = lines.next()?.trim().parse().ok()?;
        (Some(pid) == self.pid()).then(|| lines.nth(6).map(|s| s.trim().to_owned()))?
    }
}

/// Runs a program to its end.
///
/// # Errors
/// `Program` with what it printed if it failed.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<Output, LocalError> {
    let output = command.output().map_err(LocalError::io(format!("run {name}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(LocalError::Program { name: name.to_owned(), output: tail(said) })
}

/// The child's number in the form that signals are sent to.
fn raw_pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// The last lines of `bytes`.
fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or(&lines).join("\n")
}

const PID_FILE: &str = "postmaster.pid";
const TAIL_LINES: usize = 12;
/// A log longer than this is put aside at a start.
const LOG_LEN_MAX: u64 = 16 << 20;
const POLL: Duration = Duration::from_millis(20);
/// 60 s: a start may have to recover from the log.
const READY_POLLS_MAX: u32 = 3_000;
/// 20 s for each way of ending.
const END_POLLS_MAX: u32 = 1_000;
