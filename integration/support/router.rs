//! The router, as built for this test run, before a cluster.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use keyway::local::Guard;
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::Cluster;
use super::{free_port, scratch_dir, wait_for};

/// How the router is started.
#[derive(Clone, Debug, Default)]
pub struct RouterOptions {
    /// Text of the shard map; without it the router gets no files, and `args`
    /// say what it serves.
    pub map: Option<String>,
    /// Maps of further databases.
    pub more_maps: Vec<String>,
    /// With a map: lines of the configuration, such as `pool.size_max = 2`.
    pub config: String,
    /// Arguments after `serve --listen …`.
    pub args: Vec<String>,
    /// Environment, in addition to the test's own.
    pub env: Vec<(String, String)>,
}

impl RouterOptions {
    /// Serves the cluster's own map: all shards, with the sample's tables. The
    /// application's user is an administrator. Reads go to any replica; say
    /// `with_map` to change that.
    pub fn sharded(cluster: &Cluster) -> Self {
        let map = fs::read_to_string(&cluster.view().map).unwrap();
        Self { map: Some(map), ..Self::default() }
    }

    /// Serves one shard's database, unsharded, without any file; with its
    /// replicas if `replicas`.
    pub fn unsharded(cluster: &Cluster, shard: u16, replicas: Replicas) -> Self {
        let mut args = vec!["--backend".to_owned(), cluster.primary(shard).url.clone()];
        if replicas == Replicas::Use {
            for replica in &cluster.view().shards[usize::from(shard) - 1].replicas {
                args.extend(["--replica".to_owned(), replica.url.clone()]);
            }
        }
        Self { args, ..Self::default() }
    }

    /// These options with the map changed.
    pub fn with_map(mut self, change: impl FnOnce(&str) -> String) -> Self {
        self.map = self.map.map(|map| change(&map));
        self
    }

    /// These options with lines added to the configuration.
    pub fn with_config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }
}

/// Whether the router is told of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicas {
    Use,
    Ignore,
}

/// A running router, killed when it is dropped or the process ends.
pub struct Router {
    child: Child,
    port: u16,
    http_port: u16,
    dir: PathBuf,
    user: String,
    password: String,
    database: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    guard: Guard,
}

impl Router {
    /// Starts the router and waits until it listens.
    pub fn start(cluster: &Cluster, options: &RouterOptions) -> Self {
        Self::start_as(cluster, options, &[&program()])
    }

    /// The same with a limit of open files.
    pub fn start_with_open_files(cluster: &Cluster, options: &RouterOptions, max: u32) -> Self {
        let limited = format!("ulimit -n {max}; exec \"$0\" \"$@\"");
        Self::start_as(cluster, options, &["sh", "-c", &limited, &program()])
    }

    fn start_as(cluster: &Cluster, options: &RouterOptions, program: &[&str]) -> Self {
        let dir = scratch_dir();
        let port = free_port();
        let log = File::create(dir.join("router.log")).unwrap();
        let mut guard = Guard::start().unwrap();
        guard.remove_at_end(&dir).unwrap();
        let http_port = free_port();
        let files = write_files(cluster, options, &dir, http_port);
        let mut args: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
        args.extend(["serve".to_owned(), "--listen".to_owned(), format!("127.0.0.1:{port}")]);
        args.extend(files);
        args.extend(options.args.iter().cloned());
        // All of a run's routers with several threads: see scripts/soak.
        if let Ok(threads) = std::env::var("KEYWAY_TEST_THREADS") {
            args.extend(["--threads".to_owned(), threads]);
        }
        let child = spawn(&args, &options.env, &dir, &log);
        guard.watch(child.id()).unwrap();
        let view = cluster.view();
        let mut router = Self {
            child,
            port,
            http_port,
            dir,
            user: view.user.clone(),
            password: view.password.clone(),
            database: view.database.clone(),
            args,
            env: options.env.clone(),
            guard,
        };
        router.wait_listening();
        router
    }

    /// Starts it again, after its end, as it was started first. The log goes
    /// on.
    pub fn start_again(&mut self) {
        let log = File::options().append(true).open(self.dir.join("router.log")).unwrap();
        // Its number may be another's by now, which the guard must not end.
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.guard.forget(self.child.id()).unwrap();
        self.child = spawn(&self.args, &self.env, &self.dir, &log);
        self.guard.watch(self.child.id()).unwrap();
        self.wait_listening();
    }

    fn wait_listening(&mut self) {
        wait_for("the router to listen", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the router ended with {status}:\n{}", self.log());
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Port for metrics and health, where there is a map.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The configuration that it was started with.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("keyway.toml")
    }

    /// Folder of its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The map file that it was started with.
    pub fn map_file(&self) -> PathBuf {
        self.dir.join("map.toml")
    }

    /// Connection string of the console.
    pub fn console_url(&self) -> String {
        self.url_for(&self.user, &self.password, "keyway")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connection string of the application.
    pub fn url(&self) -> String {
        self.url_for(&self.user, &self.password, &self.database)
    }

    pub fn url_for(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Everything that it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("router.log")).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    /// Stops it where it stands, until it gets a signal to go on. Other threads
    /// run on until the one that takes the signal has run.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_for("the router to stand still", || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            tasks.flatten().all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
            })
        });
    }

    /// Waits for its end and returns its exit code.
    pub fn wait_end(&mut self) -> Option<i32> {
        let mut code = None;
        wait_for("the router to end", || match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        code
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the router's log:\n{}", self.log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.guard.forget(self.child.id());
    }
}

/// The router as built for this test run, or the one that `KEYWAY_BIN` names:
/// a release build for measuring, or one that stays while others are built.
fn program() -> String {
    std::env::var("KEYWAY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_keyway").to_owned())
}

fn spawn(args: &[String], env: &[(String, String)], dir: &Path, log: &File) -> Child {
    Command::new(&args[0])
        .args(&args[1..])
        .envs(env.iter().map(|(n, v)| (n, v)))
        // What the router writes by default goes to its own folder.
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log.try_clone().unwrap())
        .spawn()
        .unwrap()
}

/// Writes map and configuration, and returns the arguments that name them.
fn write_files(
    cluster: &Cluster,
    options: &RouterOptions,
    dir: &Path,
    http_port: u16,
) -> Vec<String> {
    let Some(map) = &options.map else { return Vec::new() };
    let view = cluster.view();
    fs::write(dir.join("map.toml"), map).unwrap();
    let mut files = vec![dir.join("map.toml")];
    for (number, map) in options.more_maps.iter().enumerate() {
        let file = dir.join(format!("map-{number}.toml"));
        fs::write(&file, map).unwrap();
        files.push(file);
    }
    let config = format!(
        "maps = {:?}\nstate_dir = {:?}\nhttp_listen = \"127.0.0.1:{http_port}\"\n{}\n\
         [[user]]\nname = {:?}\npassword_file = {:?}\nadmin = true\n",
        files,
        dir.join("state"),
        options.config,
        view.user,
        view.password_file,
    );
    let file = dir.join("keyway.toml");
    fs::write(&file, config).unwrap();
    vec!["--config".to_owned(), file.display().to_string()]
}
