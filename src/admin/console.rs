//! What each `SHOW` answers, in pgbouncer's words where it has them.
//!
//! Lists and numbers only; what is behind them is in the inputs. No value of a
//! statement and no password can appear, because no input holds one.

use super::command::{ACTIONS, TOPICS, Topic};
use super::databases;
use super::source::{Inputs, MoveView, Outcome, RouterView};
use crate::engine::Operation;
use crate::engine::console::{ColumnKind, ConsoleColumn, ConsoleReply};
use crate::engine::snapshot::ServerState;

/// A result being built: columns with their kinds, rows as they come.
pub(super) struct Grid {
    columns: Vec<ConsoleColumn>,
    rows: Vec<Vec<Option<String>>>,
}

/// One value of a row.
pub(super) enum Cell {
    Text(String),
    Count(u64),
    Null,
}

impl Grid {
    /// A result with these columns; a name that starts with `#` is a column
    /// of numbers, without the mark.
    pub(super) fn new(names: &[&'static str]) -> Self {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => ConsoleColumn { name, kind: ColumnKind::Integer },
            None => ConsoleColumn { name, kind: ColumnKind::Text },
        };
        Self { columns: names.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let row: Vec<_> = cells.into_iter().map(Cell::written).collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a row has a value for every column");
        self.rows.push(row);
    }

    pub(super) fn reply(self, tag: &'static str) -> ConsoleReply {
        ConsoleReply::Rows { columns: self.columns, rows: self.rows, tag }
    }
}

impl Cell {
    fn written(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Count(count) => Some(count.to_string()),
            Self::Null => None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The answer to `SHOW topic`.
pub fn show(topic: Topic, inputs: &Inputs) -> ConsoleReply {
    grid(topic, inputs).reply("SHOW")
}

/// The answer to `SHOW topic number`: the rows that have the number where the
/// topic says whose they are.
pub fn find(topic: Topic, number: u64, inputs: &Inputs) -> ConsoleReply {
    let mut grid = grid(topic, inputs);
    let key = if topic == Topic::Servers { "remote_pid" } else { "id" };
    let at = grid.columns.iter().position(|column| column.name == key);
    let number = Some(number.to_string());
    grid.rows.retain(|row| at.is_some_and(|at| row.get(at) == Some(&number)));
    grid.reply("SHOW")
}

fn grid(topic: Topic, inputs: &Inputs) -> Grid {
    match topic {
        Topic::Pools => pools(inputs),
        Topic::Clients => clients(inputs),
        Topic::Servers => servers(inputs),
        Topic::Holds => holds(inputs),
        Topic::Databases => databases::databases(inputs),
        Topic::Nodes => databases::nodes(inputs),
        Topic::Map => databases::maps(inputs),
        Topic::Catalog => databases::catalogs(inputs),
        Topic::Moves => moves(inputs),
        Topic::Epochs => epochs(inputs),
        Topic::Stats => stats(inputs),
        Topic::Lists => lists(inputs),
        Topic::State => databases::state(inputs),
        Topic::Config => config(inputs),
        Topic::Version => version(),
        Topic::Help => help(),
    }
}

/// The answer to an action that was carried out.
pub fn done(outcome: Outcome) -> ConsoleReply {
    match outcome {
        Outcome::Moving(id) => {
            let mut grid = Grid::new(&["#move"]);
            grid.row([u64::from(id).into()]);
            grid.reply("MOVE")
        }
        Outcome::Wished(_) => ConsoleReply::Complete { tag: "MOVE" },
        Outcome::Named => ConsoleReply::Complete { tag: "SET" },
        Outcome::Killed => ConsoleReply::Complete { tag: "KILL" },
        Outcome::Closed => ConsoleReply::Complete { tag: "WAIT_CLOSE" },
        Outcome::Operated(operation) => ConsoleReply::Complete {
            tag: match operation {
                Operation::Pause => "PAUSE",
                Operation::Resume => "RESUME",
                Operation::Suspend => "SUSPEND",
                Operation::Reconnect => "RECONNECT",
                Operation::Kill => "KILL",
                Operation::Disable => "DISABLE",
                Operation::Enable => "ENABLE",
            },
        },
        Outcome::Reloaded(databases) => {
            let mut grid = Grid::new(&["database", "#epoch", "result"]);
            for one in databases {
                let epoch = one.epoch.map(|epoch| epoch.number());
                grid.row([one.what.into(), epoch.into(), one.result.into()]);
            }
            grid.reply("RELOAD")
        }
    }
}

fn pools(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "database",
        "user",
        "node",
        "role",
        "#cl_active",
        "#cl_waiting",
        "#sv_active",
        "#sv_idle",
        "#sv_login",
        "#pool_size",
        "#maxwait_ms",
        "#checkouts",
        "#wait_ms_total",
        "pool_mode",
    ]);
    for pool in &inputs.engine.pools {
        grid.row([
            pool.database.as_str().into(),
            pool.user.as_str().into(),
            pool.address.as_str().into(),
            pool.role.as_str().into(),
            pool.clients_active.into(),
            pool.clients_waiting.into(),
            pool.servers_active.into(),
            pool.servers_idle.into(),
            pool.servers_connecting.into(),
            pool.size_max.into(),
            pool.oldest_wait_ms.into(),
            pool.checkouts.into(),
            pool.checkout_wait_ms_total.into(),
            pool.mode.into(),
        ]);
    }
    grid
}

fn clients(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "#id",
        "user",
        "database",
        "state",
        "addr",
        "#connected_s",
        "#statements",
        "application_name",
        "holds",
        "node",
        "remote_pid",
        "#move_waits",
    ]);
    for client in &inputs.engine.clients {
        grid.row([
            client.id.into(),
            client.user.as_str().into(),
            client.database.as_str().into(),
            client.state.as_str().into(),
            client.address.as_str().into(),
            client.connected_s.into(),
            client.statements.into(),
            client.application_name.as_str().into(),
            client.holds.as_str().into(),
            client.node.map(|node| inputs.address_of(&client.database, node)).into(),
            pids(&client.backend_pids).into(),
            client.move_waits.into(),
        ]);
    }
    grid
}

fn servers(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "node",
        "user",
        "database",
        "state",
        "#remote_pid",
        "#client",
        "#age_s",
        "#idle_s",
        "#uses",
        "#prepared_statements",
        "client_addr",
        "application_name",
        "close_needed",
    ]);
    for server in &inputs.engine.servers {
        grid.row([
            server.address.as_str().into(),
            server.user.as_str().into(),
            server.database.as_str().into(),
            server.state.as_str().into(),
            u64::from(server.backend_pid).into(),
            server.client.into(),
            server.age_s.into(),
            server.idle_s.into(),
            server.uses.into(),
            server.prepared.into(),
            server.client_address.as_ref().map(|(address, _)| address.as_str()).into(),
            server.client_address.as_ref().map(|(_, name)| name.as_str()).into(),
            if server.close_needed { "yes" } else { "no" }.into(),
        ]);
    }
    grid
}

/// One row for each connection that a client keeps.
fn holds(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "#client",
        "user",
        "database",
        "holds",
        "#held_s",
        "state",
        "addr",
        "node",
        "#remote_pid",
    ]);
    for client in inputs.engine.clients.iter().filter(|client| client.held_s.is_some()) {
        for (node, pid) in client.backend_nodes.iter().zip(&client.backend_pids) {
            grid.row([
                client.id.into(),
                client.user.as_str().into(),
                client.database.as_str().into(),
                client.holds.as_str().into(),
                client.held_s.into(),
                client.state.as_str().into(),
                client.address.as_str().into(),
                inputs.address_of(&client.database, *node).into(),
                u64::from(*pid).into(),
            ]);
        }
    }
    grid
}

/// Processes at nodes, as one value; a client has more than one only while it
/// works on several shards.
fn pids(pids: &[u32]) -> Option<String> {
    let list: Vec<String> = pids.iter().map(u32::to_string).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

fn lists(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&["list", "#items"]);
    let engine = &inputs.engine;
    let servers = |state| engine.servers.iter().filter(|server| server.state == state).count();
    let used = servers(ServerState::Active) + servers(ServerState::Replication);
    let clients = engine.clients.len();
    let users: std::collections::BTreeSet<&str> =
        engine.pools.iter().map(|pool| pool.user.as_str()).collect();
    let free = engine.totals.clients_max.saturating_sub(engine.totals.clients_now);
    for (list, items) in [
        ("databases", databases::count(inputs.databases.len())),
        ("users", databases::count(users.len())),
        ("pools", databases::count(engine.pools.len())),
        ("free_clients", free),
        ("used_clients", databases::count(clients)),
        ("free_servers", databases::count(servers(ServerState::Idle))),
        ("used_servers", databases::count(used)),
        ("login_servers", databases::count(servers(ServerState::Connecting))),
    ] {
        grid.row([list.into(), items.into()]);
    }
    grid
}

fn stats(inputs: &Inputs) -> Grid {
    let totals = &inputs.engine.totals;
    let mut grid = Grid::new(&["name", "#value"]);
    for (name, count) in [
        ("total_xact_count", totals.transactions),
        ("total_query_count", totals.statements),
        ("total_received", totals.bytes_in),
        ("total_sent", totals.bytes_out),
        ("total_query_time", totals.latency.sum_us),
        ("total_checkouts", totals.checkouts),
        ("checkout_timeouts", totals.checkout_timeouts),
        ("passed_on", totals.passed_on),
        ("nudges", totals.nudges),
        ("held", totals.held),
        ("hold_timeouts", totals.hold_timeouts),
        ("fenced", totals.fenced),
        ("map_swaps", totals.map_swaps),
        ("map_swap_us_total", totals.map_swap_us_sum),
        ("map_swap_us_max", totals.map_swap_us_max),
        ("plan_hits", totals.plan_hits),
        ("plan_misses", totals.plan_misses),
        ("cancels", totals.cancels),
        ("logins_ok", totals.logins_ok),
        ("logins_failed", totals.logins_failed),
        ("clients", totals.clients_now),
        ("clients_max", totals.clients_max),
    ] {
        grid.row([name.into(), count.into()]);
    }
    for share in [50, 95, 99] {
        let name = format!("query_time_p{share}_at_most_us");
        grid.row([name.into(), totals.latency.percentile_us(share).into()]);
    }
    for (reason, count) in &totals.reads {
        grid.row([format!("reads_{reason}").into(), (*count).into()]);
    }
    for (origin, errors) in [("router", &totals.errors_router), ("server", &totals.errors_server)] {
        for (class, count) in errors {
            grid.row([format!("errors_{origin}_{class}").into(), (*count).into()]);
        }
    }
    grid
}

fn moves(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "database",
        "#move",
        "what",
        "keyspace",
        "#source",
        "#target",
        "state",
        "wish",
        "#age_s",
        "progress",
        "stopped",
        "#copied_ms",
        "paused",
    ]);
    for MoveView { database, stored } in &inputs.moves {
        let journal = &stored.journal;
        grid.row([
            database.as_str().into(),
            u64::from(journal.id).into(),
            journal.subject.to_string().into(),
            journal.keyspace.as_str().into(),
            u64::from(journal.source).into(),
            u64::from(journal.target).into(),
            journal.phase.to_string().into(),
            stored.wish.word().into(),
            u64::try_from(stored.age_s).unwrap_or(0).into(),
            stored.progress.as_str().into(),
            journal.stopped.clone().into(),
            (journal.times.copy_us > 0).then_some(journal.times.copy_us / 1000).into(),
            journal.times.pause.map(|pause| pause.to_string()).into(),
        ]);
    }
    grid
}

fn epochs(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&[
        "database",
        "router",
        "#epoch",
        "#in_force",
        "lease",
        "#lease_ms",
        "#seen_s",
        "this",
    ]);
    for RouterView { database, row, own, lapsed } in &inputs.routers {
        let served = inputs.databases.iter().find(|view| view.name() == database);
        grid.row([
            database.as_str().into(),
            row.name.as_str().into(),
            row.epoch.number().into(),
            served.map(|view| view.map.epoch().number()).into(),
            if *lapsed { "lapsed" } else { "held" }.into(),
            row.lease.count().into(),
            u64::try_from(row.quiet_s).unwrap_or(0).into(),
            if *own { "yes" } else { "no" }.into(),
        ]);
    }
    grid
}

fn config(inputs: &Inputs) -> Grid {
    let mut grid = Grid::new(&["key", "value", "default"]);
    for setting in &inputs.settings {
        grid.row([
            setting.key.into(),
            setting.value.as_str().into(),
            setting.default.as_str().into(),
        ]);
    }
    grid
}

fn version() -> Grid {
    let mut grid = Grid::new(&["version"]);
    grid.row([format!("Keyway {VERSION}").into()]);
    grid
}

fn help() -> Grid {
    let mut grid = Grid::new(&["command", "description"]);
    for (_, name, about) in TOPICS {
        grid.row([format!("SHOW {name}").into(), (*about).into()]);
    }
    for (name, about) in ACTIONS {
        grid.row([(*name).into(), (*about).into()]);
    }
    grid
}

/// The router's version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
