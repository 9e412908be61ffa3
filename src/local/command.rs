//! `keyway local`: carries out what was asked on the command line.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::cli::{DirArgs, DownArgs, LocalArgs, LocalCommand, PsqlArgs, StatusArgs, UpArgs};
use super::cluster::{AtEnd, LocalCluster, LocalOptions};
use super::describe::{ClusterView, describe, text};
use super::error::LocalError;
use super::find::{Installation, Version};
use super::settings::{DATABASE, Durability};
use super::state::{Lock, State, passwords};

/// Runs `keyway local` and returns the exit code.
pub fn run(args: &LocalArgs) -> u8 {
    let done = match &args.command {
        LocalCommand::Up(up) if up.detach => detach(up),
        LocalCommand::Up(up) => supervise(up),
        LocalCommand::Status(args) => status(args),
        LocalCommand::Psql(args) => psql(args),
        LocalCommand::Down(args) => down(args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            error.exit_code()
        }
    }
}

/// Starts the servers and stays until a signal ends it.
fn supervise(args: &UpArgs) -> Result<u8, LocalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LocalError::io("start the runtime"))?;
    if args.background {
        // It fails only for the leader of a group, which has left already.
        let _ = rustix::process::setsid();
    }
    runtime.block_on(async {
        // Listened to before anything starts, so that a Ctrl-C during the start
        // ends it in order too.
        let listen = |kind| signal(kind).map_err(LocalError::io("listen to signals"));
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut cluster = LocalCluster::start(options(args), &mut |line| note(line))?;
        announce(args, &cluster.view())?;
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
                () = tokio::time::sleep(WATCH) => revive(&mut cluster)?,
            }
        }
        note("ending the servers");
        let ready = cluster.view().dir.join(READY_FILE);
        drop(cluster);
        // Left behind, it names a process that is gone.
        let _ = fs::remove_file(ready);
        Ok(0)
    })
}

/// Starts servers again that ended by themselves. What a killed server left
/// may stand in the way for a moment, so a failed start is tried again.
fn revive(cluster: &mut LocalCluster) -> Result<(), LocalError> {
    for (name, how) in cluster.ended()? {
        note(&format!("{how}; starting it again"));
        let mut tries = 1;
        while let Err(error) = cluster.start_node(name) {
            if tries == REVIVALS_MAX {
                return Err(error);
            }
            note(&format!("{error}; trying again"));
            tries += 1;
            thread::sleep(WATCH);
        }
    }
    Ok(())
}

fn announce(args: &UpArgs, view: &ClusterView) -> Result<(), LocalError> {
    let ready = view.dir.join(READY_FILE);
    fs::write(&ready, format!("{}\n", std::process::id()))
        .map_err(LocalError::path("write", &ready))?;
    if args.background {
        note("ready");
        return Ok(());
    }
    show(view, args.json)?;
    if !args.json {
        say("ready; Ctrl-C ends the servers, their data stays\n")?;
    }
    Ok(())
}

/// Starts the supervisor in the background, and waits until it is ready.
fn detach(args: &UpArgs) -> Result<u8, LocalError> {
    let dir = &args.dir.dir;
    fs::create_dir_all(dir).map_err(LocalError::path("make", dir))?;
    if let Some(pid) = Lock::holder(dir) {
        return Err(LocalError::Running { dir: dir.clone(), pid: (pid != 0).then_some(pid) });
    }
    let path = dir.join("supervisor.log");
    let log = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
    let log = log.map_err(LocalError::path("open", &path))?;
    let program = std::env::current_exe().map_err(LocalError::io("find this program"))?;
    let mut child = Command::new(program)
        .args(background_arguments(args))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(LocalError::io("start the supervisor"))?;
    let mut shown = 0;
    let mut relay = || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let fresh = log.get(shown..).unwrap_or("");
        let whole = fresh.rfind('\n').map_or(0, |at| at + 1);
        shown += whole;
        // A terminal that is gone doesn't stop the start.
        let _ = io::stderr().write_all(fresh.get(..whole).unwrap_or("").as_bytes());
    };
    let ready = dir.join(READY_FILE);
    let pid = format!("{}\n", child.id());
    loop {
        relay();
        if fs::read_to_string(&ready).is_ok_and(|text| text == pid) {
            break;
        }
        if let Some(status) = child.try_wait().map_err(LocalError::io("wait for the start"))? {
            relay();
            // It has said why.
            return Ok(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(3));
        }
        thread::sleep(POLL);
    }
    show(&view(dir)?, args.json)?;
    if !args.json {
        say(&format!("ready; `keyway local down --dir {}` ends the servers\n", dir.display()))?;
    }
    Ok(0)
}

fn status(args: &StatusArgs) -> Result<u8, LocalError> {
    running(&args.dir)?;
    show(&view(&args.dir.dir)?, args.json)?;
    Ok(0)
}

fn psql(args: &PsqlArgs) -> Result<u8, LocalError> {
    let dir = &args.dir.dir;
    running(&args.dir)?;
    let view = view(dir)?;
    let shard = view.shards.iter().find(|s| s.number == args.shard);
    let node = shard.and_then(|s| match usize::from(args.replica).checked_sub(1) {
        None => Some(&s.primary),
        Some(index) => s.replicas.get(index),
    });
    let Some(node) = node else {
        return Err(LocalError::Program {
            name: "psql".to_owned(),
            output: format!("there is no shard {} with replica {}", args.shard, args.replica),
        });
    };
    let installation = Installation::find(Version::Major(view.postgres), None);
    let mut command = installation.map_or_else(|_| Command::new("psql"), |i| i.command("psql"));
    command.stdin(Stdio::inherit()).env("PGPASSFILE", &view.passfile);
    let user = if args.superuser { &view.superuser } else { &view.user };
    let port = if args.router { view.router_ports.0 } else { node.port };
    command.args(["-h", &node.host, "-p", &port.to_string(), "-U", user, "-d", DATABASE]);
    command.args(&args.args);
    Err(LocalError::Io { doing: "run psql".to_owned(), error: command.exec() })
}

fn down(args: &DownArgs) -> Result<u8, LocalError> {
    let dir = &args.dir.dir;
    let Some(pid) = Lock::holder(dir) else {
        note(&format!("nothing runs on {}", dir.display()));
        return Ok(0);
    };
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::TERM)
            .map_err(|e| LocalError::io("signal the supervisor")(e.into()))?;
    }
    for _ in 0..DOWN_POLLS_MAX {
        if Lock::holder(dir).is_none() {
            note("the servers have ended; their data stays");
            return Ok(0);
        }
        thread::sleep(POLL);
    }
    Err(LocalError::Program {
        name: "down".to_owned(),
        output: format!("the supervisor, process {pid}, does not end"),
    })
}

fn options(args: &UpArgs) -> LocalOptions {
    LocalOptions {
        shards: args.shards,
        replicas: args.replicas,
        dir: args.dir.dir.clone(),
        pg_bin: args.pg_bin.clone(),
        version: args.pg_version.map_or(Version::Newest, Version::Major),
        durability: if args.fast { Durability::Fast } else { Durability::Full },
        first_port: args.port,
        settings: args.settings.clone(),
        at_end: AtEnd::Keep,
    }
}

/// The arguments that make the background process do what was asked here.
fn background_arguments(args: &UpArgs) -> Vec<OsString> {
    let mut out: Vec<OsString> = ["local", "up", "--background", "--port"].map(Into::into).into();
    out.push(args.port.to_string().into());
    out.extend(["--dir".into(), args.dir.dir.clone().into_os_string()]);
    if let Some(bin) = &args.pg_bin {
        out.extend(["--pg-bin".into(), bin.clone().into_os_string()]);
    }
    let numbers = [
        ("--shards", args.shards.map(u32::from)),
        ("--replicas", args.replicas.map(u32::from)),
        ("--pg-version", args.pg_version),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            out.extend([name.into(), value.to_string().into()]);
        }
    }
    for (name, value) in &args.settings {
        out.extend(["--set".into(), format!("{name}={value}").into()]);
    }
    if args.fast {
        out.push("--fast".into());
    }
    out
}

fn running(dir: &DirArgs) -> Result<u32, LocalError> {
    Lock::holder(&dir.dir).ok_or_else(|| LocalError::NotRunning { dir: dir.dir.clone() })
}

fn view(dir: &Path) -> Result<ClusterView, LocalError> {
    let dir = fs::canonicalize(dir).map_err(LocalError::path("find", dir))?;
    let state = State::read(&dir)?.ok_or_else(|| LocalError::NotRunning { dir: dir.clone() })?;
    Ok(describe(&dir, &state, &passwords(&dir)?))
}

fn show(view: &ClusterView, json: bool) -> Result<(), LocalError> {
    if json {
        let json = serde_json::to_string_pretty(view)
            .map_err(|e| LocalError::io("print")(io::Error::other(e)))?;
        return say(&format!("{json}\n"));
    }
    say(&format!("PostgreSQL {} in {}\n{}", view.postgres, view.dir.display(), text(view)))
}

fn say(text: &str) -> Result<(), LocalError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(LocalError::io("print"))
}

/// Progress goes to standard error, so that output can be piped.
fn note(line: &str) {
    // A terminal that is gone doesn't stop the servers.
    let _ = writeln!(io::stderr(), "{line}");
}

fn complain(error: &LocalError) {
    note(&format!("keyway local: {error}"));
    if let Some(hint) = error.hint() {
        note(&format!("hint: {hint}"));
    }
}

const READY_FILE: &str = "ready";
/// How often the supervisor looks after its servers.
const WATCH: Duration = Duration::from_millis(250);
/// Starts of a server that ended by itself, before all are ended.
const REVIVALS_MAX: u32 = 5;
const POLL: Duration = Duration::from_millis(50);
/// 90 s: more than the longest end of a server.
const DOWN_POLLS_MAX: u32 = 1_800;
