//! Clients, backends and the pool between them, moved one random step at a
//! time: the shell of the machines without sockets.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use keyway::backend::{Backend, CancelKey, Event, Setting, SettingsInterner, SettingsSet};
use keyway::pool::{Handed, Pool, PoolLimits, Ticket};
use keyway::protocol::backend::TxStatus;
use keyway::route::{Planner, PlannerLimits};
use keyway::session::{After, Env, EventEnv, Limits, Session, StatementRegistry, Step};
use keyway::shardmap::{Endpoint, Map};
use keyway::types::{Consistency, Millis, Moment, ShardId};

use crate::random::Random;
use crate::script::Script;
use crate::server::{Server, Tables};

/// A connection to a server process.
struct Conn {
    machine: Backend,
    server: Server,
    to_server: Vec<u8>,
    from_server: Vec<u8>,
    /// Replies that the machine has not taken.
    carry: Vec<u8>,
    shard: ShardId,
}

struct Client {
    session: Session,
    /// What it has yet to say.
    unsaid: Vec<u8>,
    /// What it has said and the session has not taken.
    inbuf: Vec<u8>,
    seen: Vec<u8>,
    conn: Option<Box<Conn>>,
    replay: Vec<u8>,
    waiting: Option<Ticket>,
    gone: bool,
    vanished: bool,
    startup: &'static [(&'static str, &'static str)],
}

pub(crate) struct World<'r> {
    random: &'r mut Random,
    planner: Planner,
    interner: SettingsInterner,
    registry: StatementRegistry,
    map: Arc<Map>,
    pool: Pool<Box<Conn>, usize>,
    tables: Rc<RefCell<Tables>>,
    clients: Vec<Client>,
    mover: usize,
}

impl<'r> World<'r> {
    pub(crate) fn new(random: &'r mut Random, backends: usize, scripts: &[Script]) -> Self {
        let mut interner = SettingsInterner::default();
        let map = Map::unsharded("app", Endpoint::new("127.0.0.1", 5432), Vec::new());
        let clients = scripts
            .iter()
            .map(|script| client(script, STARTUPS[random.below(STARTUPS.len())], &mut interner))
            .collect();
        let mut world = Self {
            random,
            planner: Planner::new(7, PlannerLimits::default()),
            interner,
            registry: StatementRegistry::default(),
            map: Arc::new(map),
            pool: Pool::new(PoolLimits {
                size_max: backends,
                size_min_idle: 0,
                idle_timeout: Millis::ZERO,
                reconnect_min: Millis::ZERO,
                reconnect_max: Millis::ZERO,
            }),
            tables: Rc::default(),
            clients,
            mover: 0,
        };
        for _ in 0..backends {
            world.connect();
        }
        world
    }

    pub(crate) fn seen(&self, client: usize) -> &[u8] {
        &self.clients[client].seen
    }

    /// The client that moved last.
    pub(crate) fn mover(&self) -> usize {
        self.mover
    }

    pub(crate) fn startup(&self, client: usize) -> &'static [(&'static str, &'static str)] {
        self.clients[client].startup
    }

    pub(crate) fn has_vanished(&self, client: usize) -> bool {
        self.clients[client].vanished
    }

    /// Moves until nothing is left to do.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let movable: Vec<usize> =
                (0..self.clients.len()).filter(|at| self.can_move(*at)).collect();
            if movable.is_empty() {
                let stuck: Vec<usize> =
                    (0..self.clients.len()).filter(|at| !self.clients[*at].gone).collect();
                return if stuck.is_empty() {
                    Ok(())
                } else {
                    self.mover = stuck[0];
                    Err(format!("clients {stuck:?} wait for what never comes"))
                };
            }
            let at = movable[self.random.below(movable.len())];
            self.mover = at;
            self.step(at)?;
        }
        Err("no end in sight".to_owned())
    }

    fn can_move(&self, at: usize) -> bool {
        let client = &self.clients[at];
        let wire = client
            .conn
            .as_ref()
            .is_some_and(|conn| !conn.to_server.is_empty() || !conn.from_server.is_empty());
        !client.gone && (!client.unsaid.is_empty() || wire)
    }

    fn step(&mut self, at: usize) -> Result<(), String> {
        if self.random.chance(400) {
            return self.vanish(at);
        }
        match self.random.below(3) {
            0 => self.say(at),
            1 => self.serve(at),
            _ => self.hear(at),
        }
    }

    /// The client says some more.
    fn say(&mut self, at: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        if client.unsaid.is_empty() {
            return Ok(());
        }
        let some = some(self.random, client.unsaid.len());
        client.inbuf.extend(client.unsaid.drain(..some));
        self.feed(at)
    }

    /// The server reads some more of what was sent, and answers.
    fn serve(&mut self, at: usize) -> Result<(), String> {
        if let Some(conn) = &mut self.clients[at].conn
            && !conn.to_server.is_empty()
        {
            let some = some(self.random, conn.to_server.len());
            let bytes: Vec<u8> = conn.to_server.drain(..some).collect();
            conn.server.receive(&bytes);
            conn.from_server.append(&mut conn.server.out);
        }
        Ok(())
    }

    /// Some more of the answers arrive.
    fn hear(&mut self, at: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        let Some(conn) = &mut client.conn else { return Ok(()) };
        if conn.from_server.is_empty() {
            return Ok(());
        }
        let some = some(self.random, conn.from_server.len());
        conn.carry.extend(conn.from_server.drain(..some));
        let mut events: Vec<Event> = Vec::new();
        let relayed = conn
            .machine
            .relay(&conn.carry, &mut client.seen, &mut events)
            .map_err(|fault| fault.to_string())?;
        client.seen.extend_from_slice(&conn.carry[relayed.direct]);
        conn.carry.drain(..relayed.consumed);
        if events.is_empty() && !conn.machine.is_settled() {
            return Ok(());
        }
        let after = client.session.on_events(
            &mut events,
            EventEnv {
                shard: conn.shard,
                backend: &mut conn.machine,
                interner: &mut self.interner,
                registry: &mut self.registry,
                to_backend: &mut conn.to_server,
            },
        );
        match after {
            After::Keep => {}
            After::Release => self.detach(at)?,
            After::Replay => {
                let mut bytes = std::mem::take(&mut client.replay);
                bytes.append(&mut client.inbuf);
                client.inbuf = bytes;
            }
            After::Close => return Err("the server hung up".to_owned()),
        }
        self.feed(at)
    }

    /// The session takes what it can.
    fn feed(&mut self, at: usize) -> Result<(), String> {
        loop {
            let client = &mut self.clients[at];
            if client.gone
                || client.inbuf.is_empty()
                || client.waiting.is_some()
                || client.session.is_awaiting()
            {
                return Ok(());
            }
            let mut to_backend = Vec::new();
            let catalog = keyway::catalog::Catalog::default();
            let mut env = Env {
                planner: &mut self.planner,
                interner: &mut self.interner,
                registry: &mut self.registry,
                map: &self.map,
                map_serial: 1,
                catalog: &catalog,
                catalog_serial: 1,
                consistency: Consistency::Primary,
                choose: &|_, _, _| String::new(),
                token: &|_| Ok("keyway1".to_owned()),
                backend: client.conn.as_mut().map(|conn| (&mut conn.machine, conn.shard)),
                to_client: &mut client.seen,
                to_backend: &mut to_backend,
                replay: &mut client.replay,
            };
            let fed = client.session.feed(&client.inbuf, &mut env);
            if let Some(conn) = &mut client.conn {
                conn.to_server.append(&mut to_backend);
                conn.to_server.extend_from_slice(&client.inbuf[fed.direct.clone()]);
            }
            client.inbuf.drain(..fed.consumed);
            match fed.step {
                Step::Checkout(want) => match self.pool.take_idle() {
                    Some(conn) => self.attach(at, conn),
                    None => {
                        debug_assert_eq!(want.shard, ShardId::new(1), "there is one shard");
                        self.clients[at].waiting = Some(self.pool.wait(NOW, at));
                    }
                },
                Step::Listen => self.clients[at].session.note_listening(),
                Step::Close => return self.part(at),
                Step::Gather | Step::Again => unreachable!("there is one shard"),
                Step::Hold => unreachable!("nothing moves"),
                Step::Fresh(_) => unreachable!("there is no replica"),
                Step::Read | Step::Await => {
                    let client = &self.clients[at];
                    let unused = client
                        .conn
                        .as_ref()
                        .is_some_and(|conn| client.session.may_release(&conn.machine));
                    return if unused { self.detach(at) } else { Ok(()) };
                }
            }
        }
    }

    fn attach(&mut self, at: usize, conn: Box<Conn>) {
        let client = &mut self.clients[at];
        client.session.join(conn.shard);
        client.conn = Some(conn);
        client.waiting = None;
    }

    fn detach(&mut self, at: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        let Some(mut conn) = client.conn.take() else { return Ok(()) };
        client.session.leave(conn.shard);
        if conn.machine.is_dirty() {
            self.discard(&mut conn);
        }
        self.release(conn)
    }

    /// What the engine's clean-up does with a backend that holds nothing.
    fn discard(&mut self, conn: &mut Conn) {
        let mut query = Vec::new();
        crate::server::frame(&mut query, b'Q', b"discard all\0");
        conn.server.receive(&query);
        conn.server.out.clear();
        let defaults = self.interner.intern(SettingsSet::default());
        conn.machine.reset_done(defaults);
    }

    fn release(&mut self, mut conn: Box<Conn>) -> Result<(), String> {
        // COPY data behind a failed COPY may still be on its way; nobody
        // answers it.
        let late = std::mem::take(&mut conn.to_server);
        conn.server.receive(&late);
        conn.from_server.append(&mut conn.server.out);
        check_clean(&conn)?;
        match self.pool.release(NOW, None, conn) {
            Handed::To(at, conn) => {
                self.attach(at, conn);
                self.feed(at)
            }
            Handed::Kept => Ok(()),
            Handed::Close(_) => Err("the pool closes what is young".to_owned()),
        }
    }

    /// The client said goodbye.
    fn part(&mut self, at: usize) -> Result<(), String> {
        let client = &mut self.clients[at];
        client.gone = true;
        let Some(mut conn) = client.conn.take() else { return Ok(()) };
        let whole = !client.session.is_batch_open() && !client.session.is_mid_message();
        let clean = conn.machine.is_clean() && client.session.holds().is_empty();
        if clean && whole {
            return self.release(conn);
        }
        if whole && conn.machine.is_settled() && conn.machine.status() == TxStatus::Idle {
            self.discard(&mut conn);
            return self.release(conn);
        }
        conn.server.hang_up();
        self.pool.closed();
        self.connect().map_or(Ok(()), |(at, conn)| {
            self.attach(at, conn);
            self.feed(at)
        })
    }

    /// The client is gone without a word.
    fn vanish(&mut self, at: usize) -> Result<(), String> {
        self.clients[at].vanished = true;
        if let Some(ticket) = self.clients[at].waiting.take() {
            self.pool.leave(ticket);
        }
        self.part(at)
    }

    fn connect(&mut self) -> Option<(usize, Box<Conn>)> {
        let defaults = self.interner.intern(SettingsSet::default());
        let key = CancelKey { pid: 1, secret: Box::from([0; 4]) };
        let conn = Conn {
            machine: Backend::new(key, PREPARED_MAX, defaults),
            server: Server::new(&self.tables, &[]),
            to_server: Vec::new(),
            from_server: Vec::new(),
            carry: Vec::new(),
            shard: ShardId::new(1),
        };
        self.pool.connecting();
        match self.pool.connected(NOW, None, Box::new(conn)) {
            Handed::To(at, conn) => Some((at, conn)),
            Handed::Kept | Handed::Close(_) => None,
        }
    }
}

/// A released backend owes nothing, and is what its machine says that it is.
fn check_clean(conn: &Conn) -> Result<(), String> {
    if let Some(problem) = conn.server.unclean() {
        return Err(format!("a backend was passed on: {problem}"));
    }
    if !conn.to_server.is_empty() || !conn.from_server.is_empty() || !conn.carry.is_empty() {
        return Err("a backend was passed on with bytes in flight".to_owned());
    }
    if conn.machine.prepared_len() > conn.server.names().len() {
        return Err("a backend lacks statements that its machine counts on".to_owned());
    }
    let changed: Vec<String> = conn.server.changed().into_keys().collect();
    let mut known: Vec<String> =
        conn.machine.settings().iter().map(|(name, _)| name.to_owned()).collect();
    known.sort();
    if let Some(name) = changed.iter().find(|name| !known.contains(name)) {
        return Err(format!("a backend was passed on with {name} set, which nobody knows"));
    }
    Ok(())
}

/// Some of `count`, at least one; often all.
fn some(random: &mut Random, count: usize) -> usize {
    if random.chance(2) { count } else { 1 + random.below(count) }
}

fn client(
    script: &Script,
    startup: &'static [(&'static str, &'static str)],
    interner: &mut SettingsInterner,
) -> Client {
    let mut settings = SettingsSet::default();
    for (name, value) in startup {
        settings.set(name, Setting::Flat((*value).into()));
    }
    let limits = Limits {
        statement_bytes_max: 1 << 16,
        held_bytes_max: 1 << 16,
        statements_max: 1000,
        settings_bytes_max: 1 << 16,
        merge: None,
    };
    Client {
        session: Session::new(limits, "app", interner.intern(settings)),
        unsaid: script.bytes.clone(),
        inbuf: Vec::new(),
        seen: Vec::new(),
        conn: None,
        replay: Vec::new(),
        waiting: None,
        gone: false,
        vanished: false,
        startup,
    }
}

const NOW: Moment = Moment::START;
const STEPS_MAX: usize = 200_000;
/// Few, so that names are pushed out.
const PREPARED_MAX: usize = 3;
/// What clients give at startup.
const STARTUPS: &[&[(&str, &str)]] = &[
    &[],
    &[],
    &[("timezone", "Asia/Tokyo")],
    &[("application_name", "it's"), ("work_mem", "8MB")],
];
