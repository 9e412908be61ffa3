//! What the thread tells of itself.

use std::rc::Rc;

use crate::cluster::ReadReason;
use crate::route::PlannerCounts;

use super::client::{Running, RunningKind, State};
use super::pools::SharedPool;
use super::share::NodeShare;
use super::snapshot::{
    ClientSnapshot, ClientState, DatabaseSnapshot, EngineSnapshot, Latency, PoolSnapshot,
    ServerSnapshot, ServerState, Totals,
};
use super::thread::{Database, Thread};

impl Thread {
    pub(super) fn snapshot(&self) -> EngineSnapshot {
        let pools = self.pools.borrow();
        let pooled = pools.iter().flat_map(|pool| self.server_snapshots(pool));
        let mut snapshot = EngineSnapshot {
            pools: pools.iter().map(|pool| self.pool_snapshot(pool)).collect(),
            clients: self.client_snapshots(),
            servers: pooled.chain(self.replication_snapshots()).collect(),
            databases: Vec::new(),
            totals: self.totals(),
        };
        for database in &self.databases {
            let map = database.map();
            snapshot.databases.push(DatabaseSnapshot {
                name: database.name.clone(),
                epoch: map.epoch(),
                sharded: map.is_sharded(),
                paused: database.gate.is_paused(),
                suspended: database.gate.is_suspended(),
                disabled: database.gate.is_disabled(),
                servers_closing: self.closing(database),
            });
        }
        snapshot.totals.checkouts = snapshot.pools.iter().map(|pool| pool.checkouts).sum();
        snapshot
    }

    fn database_name(&self, index: usize) -> String {
        self.databases
            .get(index)
            .map_or_else(|| self.options.console_database.clone(), |d| d.name.clone())
    }

    fn pool_snapshot(&self, pool: &SharedPool) -> PoolSnapshot {
        let now = self.now();
        pool.with(|machine| PoolSnapshot {
            database: self.database_name(pool.database()),
            user: pool.user().to_string(),
            node: pool.node(),
            address: pool.address().to_owned(),
            role: pool.role(),
            clients_active: count(machine.lent()),
            clients_waiting: count(machine.waiting()),
            servers_active: count(machine.lent()),
            servers_idle: count(machine.idle()),
            servers_connecting: count(machine.attempts()),
            size_max: count(machine.size_max()),
            oldest_wait_ms: machine.oldest_wait(now).count(),
            checkouts: machine.counts().checkouts,
            checkout_wait_ms_total: machine.counts().wait_ms_total,
            mode: self.mode_of(pool.user(), &self.database_name(pool.database())).name(),
        })
    }

    fn server_snapshots(&self, pool: &SharedPool) -> Vec<ServerSnapshot> {
        let now = self.now();
        let server = |state, pid, client| ServerSnapshot {
            node: pool.node(),
            address: pool.address().to_owned(),
            user: pool.user().to_string(),
            database: self.database_name(pool.database()),
            state,
            backend_pid: pid,
            client,
            age_s: 0,
            idle_s: 0,
            uses: 0,
            prepared: 0,
            client_address: None,
            close_needed: false,
        };
        let mut out: Vec<ServerSnapshot> = pool.with(|machine| {
            machine
                .idle_backends()
                .map(|(conn, since)| ServerSnapshot {
                    age_s: now.since(conn.born).count() / 1000,
                    idle_s: now.since(since).count() / 1000,
                    uses: conn.uses,
                    prepared: count(conn.machine.prepared_len()),
                    ..server(ServerState::Idle, conn.key.pid, None)
                })
                .collect()
        });
        let connecting = pool.with(crate::pool::Pool::attempts);
        out.extend((0..connecting).map(|_| server(ServerState::Connecting, 0, None)));
        for client in self.clients.borrow().values() {
            if client.database != pool.database() || client.user != *pool.user() {
                continue;
            }
            let running = client.running.borrow();
            let lent = |one: &&Running| one.kind == RunningKind::Lent && one.node == pool.node();
            out.extend(running.iter().filter(lent).map(|one| ServerSnapshot {
                age_s: now.since(one.born).count() / 1000,
                uses: one.uses,
                prepared: count(one.prepared),
                client_address: Some((client.address.clone(), client.application.borrow().clone())),
                close_needed: pool.is_outdated(one.generation),
                ..server(ServerState::Active, one.key.pid, Some(u64::from(client.id)))
            }));
        }
        if let Some(listener) = self.listeners.find(pool.database(), pool.user())
            && let Some((node, pid, born)) = listener.server.get()
            && node == pool.node()
        {
            out.push(ServerSnapshot {
                age_s: now.since(born).count() / 1000,
                ..server(ServerState::Listening, pid, None)
            });
        }
        out
    }

    /// Backends of clients that replicate, which belong to no pool.
    fn replication_snapshots(&self) -> Vec<ServerSnapshot> {
        let now = self.now();
        let mut out = Vec::new();
        for client in self.clients.borrow().values() {
            let Some(database) = self.databases.get(client.database) else { continue };
            let running = client.running.borrow();
            let own = running.iter().filter(|one| one.kind == RunningKind::Replication);
            out.extend(own.map(|one| ServerSnapshot {
                node: one.node,
                address: database.with_map(|map, _| {
                    map.node(one.node).map_or_else(String::new, |node| node.endpoint.to_string())
                }),
                user: client.user.to_string(),
                database: database.name.clone(),
                state: ServerState::Replication,
                backend_pid: one.key.pid,
                client: Some(u64::from(client.id)),
                age_s: now.since(one.born).count() / 1000,
                idle_s: 0,
                uses: one.uses,
                prepared: count(one.prepared),
                client_address: Some((client.address.clone(), client.application.borrow().clone())),
                close_needed: one.generation != database.gate.generation(),
            }));
        }
        out
    }

    /// Connections to a database's nodes that are on their way out.
    fn closing(&self, database: &Database) -> u64 {
        let mut nodes: Vec<Rc<NodeShare>> = self.shares_of(database);
        for pool in self.pools.borrow().iter().filter(|pool| pool.database() == database.index) {
            let share = pool.node_share();
            if !nodes.iter().any(|node| Rc::ptr_eq(node, share)) {
                nodes.push(Rc::clone(share));
            }
        }
        nodes.iter().map(|node| count(node.closing())).sum()
    }

    fn client_snapshots(&self) -> Vec<ClientSnapshot> {
        let now = self.now();
        let clients = self.clients.borrow();
        let mut out: Vec<ClientSnapshot> = clients
            .values()
            .map(|client| ClientSnapshot {
                id: u64::from(client.id),
                user: client.user.to_string(),
                database: self.database_name(client.database),
                address: client.address.clone(),
                state: match client.state.get() {
                    State::Idle => ClientState::Idle,
                    State::Waiting => ClientState::Waiting,
                    State::Active => ClientState::Active,
                    State::InTransaction => ClientState::Transaction,
                },
                connected_s: now.since(client.since).count() / 1000,
                statements: client.statements.get(),
                application_name: client.application.borrow().clone(),
                holds: client.holds.get().words(),
                held_s: client.keeps_since.get().map(|since| now.since(since).count() / 1000),
                node: client.running.borrow().iter().next().map(|running| running.node),
                backend_pids: client.running.borrow().iter().map(|one| one.key.pid).collect(),
                backend_nodes: client.running.borrow().iter().map(|one| one.node).collect(),
                move_waits: client.move_waits.get(),
            })
            .collect();
        out.sort_by_key(|client| client.id);
        out
    }

    fn totals(&self) -> Totals {
        let stats = &self.stats;
        let mut latency = Latency::default();
        for (bucket, cell) in latency.buckets.iter_mut().zip(&stats.latency_us) {
            *bucket = cell.get();
        }
        latency.sum_us = stats.latency_us_sum.get();
        let [errors_server, errors_router] = stats.errors();
        let plans: Vec<PlannerCounts> =
            self.databases.iter().map(|database| database.planner.borrow().counts()).collect();
        let statements = self.clients.borrow().values().map(|c| c.statements.get()).sum::<u64>();
        Totals {
            statements: statements + stats.statements.get(),
            transactions: stats.transactions.get(),
            errors_router,
            errors_server,
            plan_hits: plans.iter().map(|counts| counts.text_hits + counts.form_hits).sum(),
            plan_misses: plans.iter().map(|counts| counts.misses).sum(),
            bytes_in: stats.bytes_in.get(),
            bytes_out: stats.bytes_out.get(),
            reads: ReadReason::labels()
                .zip(&stats.reads)
                .map(|(label, cell)| (label, cell.get()))
                .chain([("not_for_replicas", stats.units_on_primaries.get())])
                .collect(),
            held: stats.held.get(),
            hold_timeouts: stats.hold_timeouts.get(),
            fenced: stats.fenced.get(),
            map_swaps: stats.map_swaps.get(),
            map_swap_us_sum: stats.map_swap_us_sum.get(),
            map_swap_us_max: stats.map_swap_us_max.get(),
            checkout_timeouts: stats.checkout_timeouts.get(),
            passed_on: stats.passed_on.get(),
            nudges: stats.nudges.get(),
            cancels: stats.cancels.get(),
            logins_ok: stats.logins.get(),
            logins_failed: stats.logins_refused.get(),
            clients_now: count(self.clients.borrow().len()),
            clients_max: u64::from(self.settings.limits.clients_max),
            latency,
            ..Totals::default()
        }
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
