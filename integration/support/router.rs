//! The router, as built for this test run, before a cluster.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use keyway::local::Guard;
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::Cluster;
use super::{free_port, scratch_dir, wait_for};

/// How the router is started.
#[derive(Clone, Debug, Default)]
pub struct RouterOptions {
    /// Arguments after `serve --listen …`.
    pub args: Vec<String>,
    /// Environment, in addition to the test's own.
    pub env: Vec<(String, String)>,
}

impl RouterOptions {
    /// Serves one shard's database, unsharded, without any file; with its
    /// replicas if `replicas`.
    pub fn unsharded(cluster: &Cluster, shard: u16, replicas: Replicas) -> Self {
        let mut args = vec!["--backend".to_owned(), cluster.primary(shard).url.clone()];
        if replicas == Replicas::Use {
            for replica in &cluster.view().shards[usize::from(shard) - 1].replicas {
                args.extend(["--replica".to_owned(), replica.url.clone()]);
            }
        }
        Self { args, env: Vec::new() }
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
    dir: PathBuf,
    user: String,
    password: String,
    database: String,
    _guard: Guard,
}

impl Router {
    /// Starts the router and waits until it listens.
    pub fn start(cluster: &Cluster, options: &RouterOptions) -> Self {
        let dir = scratch_dir();
        let port = free_port();
        let log = File::create(dir.join("router.log")).unwrap();
        let mut guard = Guard::start().unwrap();
        guard.remove_at_end(&dir).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keyway"))
            .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
            .args(&options.args)
            .envs(options.env.iter().map(|(n, v)| (n, v)))
            // What the router writes by default goes to its own folder.
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        guard.watch(child.id()).unwrap();
        let view = cluster.view();
        let mut router = Self {
            child,
            port,
            dir,
            user: view.user.clone(),
            password: view.password.clone(),
            database: view.database.clone(),
            _guard: guard,
        };
        wait_for("the router to listen", || {
            if let Some(status) = router.child.try_wait().unwrap() {
                panic!("the router ended with {status}:\n{}", router.log());
            }
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        router
    }

    pub fn port(&self) -> u16 {
        self.port
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
    }
}
