//! A whole local cluster: shards of one primary and its streaming replicas.
//!
//! One value owns the folder's lock, the watchdog and the server processes.
//! Dropped, or gone with its process, it leaves no server behind.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use super::account::Account;
use super::describe::{ClusterView, describe, write_client_files};
use super::error::LocalError;
use super::find::{Installation, Version};
use super::guard::Guard;
use super::node::{Node, Stop, run};
use super::settings::{
    DATABASE, Durability, Follows, NodeSettings, Passwords, REPLICATION_USER, SUPERUSER,
    bootstrap_sql,
};
use super::state::{Lock, NodeState, State, passwords};

/// What to start.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// Number of shards, if it matters; else as the folder has it, or 2.
    pub shards: Option<u16>,
    /// Replicas of each shard, if it matters; else as the folder has it, or 1.
    pub replicas: Option<u16>,
    /// The cluster's folder.
    pub dir: PathBuf,
    /// Folder of PostgreSQL's programs, instead of looking for it.
    pub pg_bin: Option<PathBuf>,
    /// Version of PostgreSQL to look for.
    pub version: Version,
    /// Whether acknowledged writes survive a crash of the machine.
    pub durability: Durability,
    /// First port to try.
    pub first_port: u16,
    /// Settings for every server, which win over ours.
    pub settings: Vec<(String, String)>,
    /// What becomes of the folder at the end.
    pub at_end: AtEnd,
}

/// What becomes of a cluster's folder when the cluster ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtEnd {
    /// It stays, and the next start has its data.
    #[default]
    Keep,
    /// It is removed, with all data.
    Remove,
}

impl LocalOptions {
    /// Two shards with a replica each in `dir`, as `keyway local up` starts.
    pub const fn new(dir: PathBuf) -> Self {
        Self {
            shards: None,
            replicas: None,
            dir,
            pg_bin: None,
            version: Version::Newest,
            durability: Durability::Full,
            first_port: 15_432,
            settings: Vec::new(),
            at_end: AtEnd::Keep,
        }
    }
}

/// One server of a local cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// Number of its shard, from 1.
    pub shard: u16,
    /// Zero for the primary, else the replica's number, from 1.
    pub replica: u16,
}

/// A running cluster. Its servers end when it is dropped.
#[derive(Debug)]
pub struct LocalCluster {
    options: LocalOptions,
    state: State,
    passwords: Passwords,
    installation: Installation,
    nodes: Vec<Node>,
    /// Shards whose primary is another node than at first, and which.
    leaders: BTreeMap<u16, usize>,
    // Last but the lock: it ends what a failed stop left over.
    guard: Guard,
    _lock: Lock,
}

impl LocalCluster {
    /// Starts the servers, making their data first where there is none, and
    /// returns when all take connections. `progress` hears what is being done.
    ///
    /// # Errors
    /// `Running` if another supervisor has the folder; else whatever stood in
    /// the way. No server is left running.
    pub fn start(
        options: LocalOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Self, LocalError> {
        let mut options = options;
        fs::create_dir_all(&options.dir).map_err(LocalError::path("make", &options.dir))?;
        options.dir =
            fs::canonicalize(&options.dir).map_err(LocalError::path("find", &options.dir))?;
        let lock = Lock::take(&options.dir)?;
        let mut guard = Guard::start()?;
        let account = Account::for_servers();
        let (state, installation) = state_and_installation(&options, &account)?;
        progress(&installation.to_string());
        if options.at_end == AtEnd::Remove {
            for dir in [&options.dir, &state.data_root, &state.socket_dir] {
                guard.remove_at_end(dir)?;
            }
        }
        let passwords = passwords(&options.dir)?;
        let nodes = state.nodes.iter().map(|n| {
            let home = state.data_root.join(n.name());
            Node::new(n.name(), home, installation.clone(), account.clone())
        });
        let nodes = nodes.collect();
        let leaders = BTreeMap::new();
        let mut cluster =
            Self { options, state, passwords, installation, nodes, leaders, guard, _lock: lock };
        cluster.prepare_folders(&account)?;
        cluster.choose_ports()?;
        cluster.start_role(Role::Primary, progress)?;
        cluster.start_role(Role::Replica, progress)?;
        cluster.state.write(&cluster.options.dir)?;
        write_client_files(&cluster.view())?;
        Ok(cluster)
    }

    /// Ports, folders and connection strings.
    pub fn view(&self) -> ClusterView {
        describe(&self.options.dir, &self.state, &self.passwords)
    }

    /// The installation that the servers run.
    pub const fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Ends one server, and waits until it is gone.
    ///
    /// # Errors
    /// `NotRunning` if there is no such node.
    pub fn stop_node(&mut self, name: NodeName, stop: Stop) -> Result<(), LocalError> {
        let index = self.index(name)?;
        self.end(index, stop)
    }

    /// Starts a server that was stopped or has ended, and waits until it takes
    /// connections.
    ///
    /// # Errors
    /// `NotRunning` if there is no such node; else what stood in the way.
    pub fn start_node(&mut self, name: NodeName) -> Result<(), LocalError> {
        let index = self.index(name)?;
        self.start_one(index)?;
        if let Err(error) = self.wait_one(index) {
            self.end(index, Stop::Kill)?;
            return Err(error);
        }
        self.state.write(&self.options.dir)
    }

    /// Makes a replica its shard's primary, and waits until it is. The shard's
    /// other nodes stay as they are.
    ///
    /// # Errors
    /// `NotRunning` if there is no such node; else what stood in the way.
    pub fn promote_node(&mut self, name: NodeName) -> Result<(), LocalError> {
        let index = self.index(name)?;
        self.sql(index, SUPERUSER, "SELECT pg_promote(true, 60)")?;
        self.leaders.insert(name.shard, index);
        Ok(())
    }

    /// Lets a running replica follow its shard's primary of now. It must not
    /// be ahead of where that one was promoted.
    ///
    /// # Errors
    /// As `promote_node`.
    pub fn follow_primary(&mut self, name: NodeName) -> Result<(), LocalError> {
        let index = self.index(name)?;
        let Some(state) = self.state.nodes.get(index) else { return Ok(()) };
        let (slot, leader) = (state.slot(), self.primary_of(state)?);
        self.sql(
            leader,
            SUPERUSER,
            &format!(
                "SELECT pg_create_physical_replication_slot('{slot}') \
                 WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
            ),
        )?;
        self.with_settings(index, |node, settings| node.configure(settings).map(|_| ()))?;
        self.sql(index, SUPERUSER, "SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// Makes a node, wherever it was, a replica of its shard's primary of now,
    /// with a new copy of its data, and waits until it takes connections.
    ///
    /// # Errors
    /// As `promote_node`.
    pub fn rejoin_node(&mut self, name: NodeName) -> Result<(), LocalError> {
        let index = self.index(name)?;
        self.end(index, Stop::Immediate)?;
        let (Some(node), Some(state)) = (self.nodes.get(index), self.state.nodes.get(index)) else {
            return Ok(());
        };
        self.copy(node, state, self.primary_of(state)?)?;
        self.start_node(name)
    }

    /// Names of the servers that ended by themselves. They stay down until
    /// `start_node`.
    ///
    /// # Errors
    /// The operating system's, about the processes.
    pub fn ended(&mut self) -> Result<Vec<(NodeName, String)>, LocalError> {
        let mut ended = Vec::new();
        for (node, state) in self.nodes.iter_mut().zip(&self.state.nodes) {
            let (Some(pid), Some(status)) = (node.pid(), node.exited()?) else { continue };
            node.forget();
            self.guard.forget(pid)?;
            let name = NodeName { shard: state.shard, replica: state.replica };
            ended.push((name, format!("{}: {status}", state.name())));
        }
        Ok(ended)
    }

    /// Runs SQL as the superuser on one server, over its Unix socket, and
    /// returns the rows: columns separated by `|`, one row a line.
    ///
    /// # Errors
    /// `Program` with the server's message.
    pub fn superuser_sql(&self, name: NodeName, sql: &str) -> Result<String, LocalError> {
        self.sql(self.index(name)?, DATABASE, sql)
    }

    fn index(&self, name: NodeName) -> Result<usize, LocalError> {
        self.state
            .nodes
            .iter()
            .position(|n| n.shard == name.shard && n.replica == name.replica)
            .ok_or_else(|| LocalError::NotRunning { dir: self.options.dir.clone() })
    }

    fn prepare_folders(&self, account: &Account) -> Result<(), LocalError> {
        // Under /tmp and /var/tmp a stranger may have been there before us.
        for dir in [&self.state.data_root, &self.state.socket_dir] {
            if *dir == self.options.dir {
                continue;
            }
            if dir.exists() && !account.owns(dir) {
                return Err(LocalError::Io {
                    doing: format!("use {}", dir.display()),
                    error: std::io::Error::other("another user owns it"),
                });
            }
            account.make_private_dir(dir)?;
        }
        // The folder of a shard stands between the root's and the node's own.
        for node in &self.state.nodes {
            account.make_private_dir(&self.state.data_root.join(format!("shard{}", node.shard)))?;
        }
        Ok(())
    }

    fn choose_ports(&mut self) -> Result<(), LocalError> {
        // Held until all are chosen, so that none is chosen twice.
        let mut held = Vec::new();
        let mut next = self.options.first_port;
        for node in &mut self.state.nodes {
            let kept = if node.port == 0 { None } else { free(node.port) };
            match kept {
                Some(listener) => held.push(listener),
                None => node.port = next_free(&mut next, &mut held)?,
            }
        }
        // The router may be running while the servers start again, so its ports
        // are not chosen anew.
        let mut next = ROUTER_PORT_FIRST;
        for port in [&mut self.state.router_port, &mut self.state.http_port] {
            if *port == 0 {
                *port = next_free(&mut next, &mut held)?;
            }
        }
        Ok(())
    }

    /// Starts all nodes of one role: making them all at once, then waiting for
    /// each.
    fn start_role(&mut self, role: Role, progress: &mut dyn FnMut(&str)) -> Result<(), LocalError> {
        let chosen: Vec<usize> = (0..self.nodes.len())
            .filter(|i| self.state.nodes.get(*i).is_some_and(|n| role.has(n)))
            .collect();
        self.make_data(&chosen, progress)?;
        for index in &chosen {
            self.start_one(*index)?;
        }
        for index in chosen {
            self.wait_one(index)?;
            let Some(node) = self.state.nodes.get_mut(index) else { continue };
            let fresh = !std::mem::replace(&mut node.made, true);
            progress(&format!("{} is ready on port {}", node.name(), node.port));
            if fresh && role == Role::Primary {
                self.sql(index, SUPERUSER, &bootstrap_sql(&self.passwords))?;
            }
            // From here on its data is worth keeping.
            self.state.write(&self.options.dir)?;
        }
        Ok(())
    }

    fn make_data(
        &self,
        chosen: &[usize],
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), LocalError> {
        let mut jobs = Vec::new();
        for index in chosen {
            let (Some(node), Some(state)) = (self.nodes.get(*index), self.state.nodes.get(*index))
            else {
                continue;
            };
            if !state.made {
                progress(&format!("making {}", state.name()));
                jobs.push((node, state, self.primary_of(state)?));
            }
        }
        thread::scope(|scope| {
            let running: Vec<_> = jobs
                .into_iter()
                .map(|(node, state, primary)| {
                    scope.spawn(move || match state.replica {
                        0 => node.init(),
                        _ => self.copy(node, state, primary),
                    })
                })
                .collect();
            running.into_iter().try_for_each(|job| {
                job.join().unwrap_or_else(|_| {
                    Err(LocalError::Program { name: "a thread".into(), output: String::new() })
                })
            })
        })
    }

    fn copy(&self, node: &Node, state: &NodeState, primary: usize) -> Result<(), LocalError> {
        let slot = state.slot();
        // A copy that broke off may have left its slot.
        self.sql(
            primary,
            SUPERUSER,
            &format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = '{slot}' AND NOT active"
            ),
        )?;
        let port = self.state.nodes.get(primary).map_or(0, |n| n.port);
        node.copy_primary(&self.state.socket_dir, port, REPLICATION_USER, &slot)
    }

    fn primary_of(&self, node: &NodeState) -> Result<usize, LocalError> {
        if let Some(leader) = self.leaders.get(&node.shard) {
            return Ok(*leader);
        }
        self.index(NodeName { shard: node.shard, replica: 0 })
    }

    fn start_one(&mut self, index: usize) -> Result<(), LocalError> {
        let Some(pid) = self.with_settings(index, Node::start)? else { return Ok(()) };
        self.guard.watch(pid)?;
        if let Some(state) = self.state.nodes.get_mut(index) {
            state.pid = Some(pid);
        }
        Ok(())
    }

    /// Does something with a node and its settings of now.
    fn with_settings<R>(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Node, &NodeSettings<'_>) -> Result<R, LocalError>,
    ) -> Result<Option<R>, LocalError> {
        let Some(state) = self.state.nodes.get(index) else { return Ok(None) };
        let name = state.name();
        let home = self.state.data_root.join(&name);
        let primary = self.primary_of(state)?;
        let slot = state.slot();
        let settings = NodeSettings {
            port: state.port,
            socket_dir: &self.state.socket_dir,
            hba_file: &home.join("hba.conf"),
            ident_file: &home.join("ident.conf"),
            name: &name,
            durability: self.options.durability,
            follows: (index != primary).then_some(Follows {
                port: self.state.nodes.get(primary).map_or(0, |n| n.port),
                slot: &slot,
            }),
            extra: &self.options.settings,
        };
        self.nodes.get_mut(index).map(|node| act(node, &settings)).transpose()
    }

    fn wait_one(&mut self, index: usize) -> Result<(), LocalError> {
        self.nodes.get_mut(index).map_or(Ok(()), Node::wait_ready)
    }

    fn end(&mut self, index: usize, stop: Stop) -> Result<(), LocalError> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        let Some(pid) = node.pid() else { return Ok(()) };
        node.signal(stop);
        node.wait_end();
        self.guard.forget(pid)
    }

    fn sql(&self, index: usize, database: &str, sql: &str) -> Result<String, LocalError> {
        let port = self.state.nodes.get(index).map_or(0, |n| n.port);
        let mut command: Command = self.installation.command("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"]);
        command.args(["--set=ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname", database]);
        command.arg("--host").arg(&self.state.socket_dir).args(["--port", &port.to_string()]);
        // One --command a statement, since CREATE DATABASE stands alone.
        for statement in sql.split_inclusive(";\n") {
            command.args(["--command", statement]);
        }
        let output = run("psql", &mut command)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // Primaries first, so that the replicas get the last of the log.
        for role in [Role::Primary, Role::Replica] {
            let chosen = self.nodes.iter_mut().zip(&self.state.nodes);
            let mut chosen: Vec<_> = chosen.filter(|(_, n)| role.has(n)).collect();
            for (node, _) in &chosen {
                node.signal(Stop::Fast);
            }
            for (node, _) in &mut chosen {
                let Some(pid) = node.pid() else { continue };
                node.wait_end();
                // The watchdog is the second line of defence, not the first.
                let _ = self.guard.forget(pid);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Replica,
}

impl Role {
    const fn has(self, node: &NodeState) -> bool {
        matches!((self, node.replica), (Self::Primary, 0) | (Self::Replica, 1..))
    }
}

/// What the folder holds, held against what was asked; or a new plan.
fn state_and_installation(
    options: &LocalOptions,
    account: &Account,
) -> Result<(State, Installation), LocalError> {
    let dir = &options.dir;
    let Some(state) = State::read(dir)? else {
        let installation = Installation::find(options.version, options.pg_bin.as_deref())?;
        let (shards, replicas) = (options.shards.unwrap_or(2), options.replicas.unwrap_or(1));
        let state = State::plan(dir, account, installation.major(), shards, replicas);
        return Ok((state, installation));
    };
    let is = state.shape();
    let asked = (options.shards.unwrap_or(is.0), options.replicas.unwrap_or(is.1));
    if is != asked {
        return Err(LocalError::OtherShape { dir: dir.clone(), is, asked });
    }
    // A newer server can't open the data, so the version is the folder's.
    let version = match options.version {
        Version::Newest => Version::Major(state.major),
        Version::Major(_) => options.version,
    };
    let installation = Installation::find(version, options.pg_bin.as_deref())?;
    if installation.major() != state.major {
        return Err(LocalError::OtherVersion {
            dir: dir.clone(),
            made_by: state.major,
            asked: installation.major(),
        });
    }
    Ok((state, installation))
}

/// The first free port from `next` on; its listener goes to `held`.
fn next_free(next: &mut u16, held: &mut Vec<TcpListener>) -> Result<u16, LocalError> {
    loop {
        let port = *next;
        *next = port.checked_add(1).ok_or(LocalError::NoPort)?;
        if let Some(listener) = free(port) {
            held.push(listener);
            return Ok(port);
        }
    }
}

/// A listener on `port`, if nothing else listens there.
fn free(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// First port to try for the router's clients.
const ROUTER_PORT_FIRST: u16 = 6_432;
