//! The stage of a transcript: clients, one backend for each shard, and the lines
//! that say what passes between them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use keyway::backend::{Backend, CancelKey, Event, Failure, Setting, SettingsInterner, SettingsSet};
use keyway::cluster::Mark;
use keyway::route::{Planner, PlannerLimits};
use keyway::session::{
    After, Env, EventEnv, Limits, Lost, Refused, Session, StatementRegistry, Step, Want, Writes,
};
use keyway::shardmap::{Endpoint, Map, MoveId, Moves, Moving, Phase, Portion};
use keyway::types::{Access, Consistency, Millis, ShardId, SqlState};

use crate::words::{self, Speaker};

struct Client {
    session: Session,
    inbuf: Vec<u8>,
    conn: Option<(Backend, ShardId)>,
    replay: Vec<u8>,
    /// A unit that a fence may refuse.
    unit: Vec<u8>,
}

/// One case.
pub(crate) struct Stage {
    map: Arc<Map>,
    serial: u64,
    planner: Planner,
    interner: SettingsInterner,
    registry: StatementRegistry,
    idle: BTreeMap<ShardId, Backend>,
    clients: BTreeMap<String, Client>,
    who: String,
    /// The next checkout fails with this.
    refusal: Option<Refused>,
    out: String,
}

impl Stage {
    /// A stage under this map, with the client `a`.
    pub(crate) fn new(map: &str) -> Self {
        let mut stage = Self {
            map: Arc::new(read(map)),
            serial: 1,
            planner: Planner::new(7, PlannerLimits::default()),
            interner: SettingsInterner::default(),
            registry: StatementRegistry::default(),
            idle: BTreeMap::new(),
            clients: BTreeMap::new(),
            who: String::new(),
            refusal: None,
            out: String::new(),
        };
        stage.switch("a");
        stage
    }

    /// Plays the lines of a case; returns what was seen.
    pub(crate) fn play(mut self, input: &str) -> String {
        let lines: Vec<&str> = input.lines().collect();
        let mut at = 0;
        while at < lines.len() {
            let (mark, _) = lines[at].split_once(' ').unwrap_or((lines[at], ""));
            // Neighbouring lines of a client are one write.
            let count =
                lines[at..].iter().take_while(|l| l.split(' ').next() == Some(mark)).count();
            let count = if [">", "<<"].contains(&mark) { count } else { 1 };
            let group: Vec<&str> = lines[at..at + count]
                .iter()
                .map(|l| l.split_once(' ').map_or("", |(_, r)| r))
                .collect();
            self.one(mark, &group);
            at += count;
        }
        self.out
    }

    fn one(&mut self, mark: &str, group: &[&str]) {
        for line in group {
            writeln!(self.out, "{}", format!("{mark} {line}").trim_end()).unwrap();
        }
        match mark {
            ">" => {
                let bytes: Vec<u8> = group.iter().flat_map(|line| words::client(line)).collect();
                self.client().inbuf.extend(bytes);
                self.feed();
            }
            "<" | "<<" => {
                let bytes: Vec<u8> = group.iter().flat_map(|line| words::server(line)).collect();
                self.hear(&bytes);
            }
            "as" => self.switch(group[0]),
            // The shards' backends are others from now on.
            "fresh" => self.idle.clear(),
            "refuse" => {
                let (code, text) = group[0].split_once(' ').unwrap();
                let state = SqlState::from_bytes(code.as_bytes()).unwrap();
                self.refusal = Some(Refused::new(state, text));
            }
            "lost" => self.lose(),
            "tired" => {
                let refused = keyway::session::waited_too_long(Millis::new(5_000));
                self.client().session.refuse_checkout(refused);
                self.feed();
            }
            "map" => {
                let moves = self.map.all_moves();
                self.map = Arc::new(read(group[0]).with_moves(moves));
                self.serial += 1;
                self.planner.clear();
                self.feed();
            }
            "moves" => {
                self.map = Arc::new((*self.map).clone().with_moves(self.moves(group[0])));
                self.feed();
            }
            other => panic!("{other:?} is no mark of a transcript"),
        }
    }

    fn client(&mut self) -> &mut Client {
        self.clients.get_mut(&self.who).unwrap()
    }

    /// `name setting=value…`: this client speaks from now on.
    fn switch(&mut self, line: &str) {
        let mut words = line.split(' ');
        let name = words.next().unwrap().to_owned();
        let mut startup = SettingsSet::default();
        let mut own = Vec::new();
        let mut by_statement = false;
        for word in words {
            let (name, value) = word.split_once('=').unwrap();
            if name == "turn" {
                by_statement = value == "statement";
            } else if name.starts_with("keyway.") {
                own.push((name, value));
            } else {
                startup.set(name, Setting::Flat(value.into()));
            }
        }
        let limits = Limits {
            statement_bytes_max: 1 << 16,
            held_bytes_max: 1 << 16,
            statements_max: 3,
            settings_bytes_max: 1 << 10,
            merge: None,
        };
        let startup = self.interner.intern(startup);
        self.who.clone_from(&name);
        let map = Arc::clone(&self.map);
        self.clients.entry(name).or_insert_with(|| {
            let mut session = Session::new(limits, "app", startup);
            if by_statement {
                session.take_turns_by_statement();
            }
            for (name, value) in own {
                assert!(session.begin_with(name, value, &map).is_ok(), "{name} = {value}");
            }
            Client { session, inbuf: Vec::new(), conn: None, replay: Vec::new(), unit: Vec::new() }
        });
    }

    /// `PHASE TENANT SOURCE TARGET`, or nothing.
    fn moves(&self, line: &str) -> Moves {
        let words: Vec<&str> = line.split(' ').collect();
        let [phase, tenant, source, target] = words[..] else { return Moves::default() };
        let shard = |name| self.map.shard_named(name).unwrap().id;
        Moves::new(vec![Moving {
            id: MoveId::new(7),
            keyspace: self.map.keyspaces()[0].name().to_owned(),
            portion: Portion::Tenant(tenant.to_owned()),
            source: shard(source),
            target: shard(target),
            phase: match phase {
                "watched" => Phase::Watched,
                "held" => Phase::Held,
                "switched" => Phase::Switched,
                other => panic!("{other:?} is no phase"),
            },
        }])
        .unwrap()
    }

    fn feed(&mut self) {
        loop {
            let map = Arc::clone(&self.map);
            let client = self.clients.get_mut(&self.who).unwrap();
            if client.session.is_awaiting() || client.inbuf.is_empty() {
                return;
            }
            let (mut to_client, mut to_backend) = (Vec::new(), Vec::new());
            let catalog = keyway::catalog::Catalog::default();
            let mut env = Env {
                planner: &mut self.planner,
                interner: &mut self.interner,
                registry: &mut self.registry,
                map: &map,
                map_serial: self.serial,
                catalog: &catalog,
                catalog_serial: 1,
                consistency: Consistency::Primary,
                choose: &|_, _, _| "primary".to_owned(),
                token: &|_| Ok("keyway1".to_owned()),
                backend: client.conn.as_mut().map(|(backend, shard)| (backend, *shard)),
                to_client: &mut to_client,
                to_backend: &mut to_backend,
                replay: &mut client.replay,
            };
            let fed = client.session.feed(&client.inbuf, &mut env);
            to_backend.extend_from_slice(&client.inbuf[fed.direct.clone()]);
            let consumed = client.inbuf.drain(..fed.consumed);
            if client.session.may_start_again()
                && let Some((backend, _)) = &mut client.conn
            {
                client.unit.extend(consumed);
                backend.second_try().allow_past_fence();
            } else {
                drop(consumed);
                client.unit.clear();
            }
            self.show("  to backend: ", &to_backend, Speaker::Client);
            self.show("  to client: ", &to_client, Speaker::Server);
            match fed.step {
                Step::Checkout(want) => {
                    let name = self.name(want.shard);
                    let access = match want.access {
                        Access::Read => "read",
                        Access::Write => "write",
                    };
                    writeln!(self.out, "  checkout {name} ({access})").unwrap();
                    match self.refusal.take() {
                        Some(refused) => self.client().session.refuse_checkout(refused),
                        None => self.attach(want.shard, want.access),
                    }
                }
                Step::Fresh(want) => self.show_wait(want),
                Step::Listen => {
                    let asked = self.client().session.asked_channels().join(", ");
                    writeln!(self.out, "  listen to {asked}").unwrap();
                    self.client().session.note_listening();
                }
                Step::Close => {
                    writeln!(self.out, "  close").unwrap();
                    return;
                }
                Step::Gather | Step::Again => {
                    unreachable!("integration/scatter has reads of several shards")
                }
                Step::Hold => return self.out.push_str("  hold\n"),
                Step::Read | Step::Await => return self.rest(),
            }
        }
    }

    /// What a transaction's replica must have.
    fn show_wait(&mut self, want: Want) {
        let name = self.name(want.shard);
        let what = match want.mark {
            Mark::Slots(slots) if slots.only().is_some() => "its slot",
            Mark::Slots(_) => "its slots",
            Mark::Shard => "the whole shard",
        };
        writeln!(self.out, "  fresh {name} ({what})").unwrap();
    }

    /// The client has nothing to be fed.
    fn rest(&mut self) {
        self.show_channels();
        let client = self.clients.get(&self.who).unwrap();
        if client.conn.as_ref().is_some_and(|(backend, _)| client.session.may_release(backend)) {
            self.detach();
        }
    }

    /// What the client listens to, if that has changed.
    fn show_channels(&mut self) {
        let Some(channels) = self.client().session.take_changed_channels() else { return };
        let names: Vec<&str> = channels.iter().map(|name| &**name).collect();
        let listens = format!("  listens to: {}", names.join(", "));
        writeln!(self.out, "{}", listens.trim_end()).unwrap();
    }

    fn hear(&mut self, bytes: &[u8]) {
        let client = self.clients.get_mut(&self.who).unwrap();
        let Some((backend, shard)) = client.conn.as_mut() else {
            writeln!(self.out, "  nobody hears it").unwrap();
            return;
        };
        let (mut to_client, mut to_backend) = (Vec::new(), Vec::new());
        let mut events: Vec<Event> = Vec::new();
        match backend.relay(bytes, &mut to_client, &mut events) {
            Ok(relayed) => to_client.extend_from_slice(&bytes[relayed.direct]),
            Err(fault) => {
                writeln!(self.out, "  fault: {fault}").unwrap();
                return;
            }
        }
        let after = client.session.on_events(
            &mut events,
            EventEnv {
                shard: *shard,
                backend,
                interner: &mut self.interner,
                registry: &mut self.registry,
                to_backend: &mut to_backend,
            },
        );
        if backend.second_try().discards() {
            to_client.clear();
        }
        let failure = (after == After::Replay).then(|| backend.second_try().take()).flatten();
        self.show("  to client: ", &to_client, Speaker::Server);
        self.show("  to backend: ", &to_backend, Speaker::Client);
        self.show_channels();
        match after {
            After::Keep => {}
            After::Release => self.detach(),
            After::Replay if failure == Some(Failure::Fenced) => {
                writeln!(self.out, "  refused by the fence: start again elsewhere").unwrap();
                let client = self.clients.get_mut(&self.who).unwrap();
                let (_, shard) = client.conn.take().unwrap();
                client.session.leave(shard);
                client.session.start_again();
                client.unit.append(&mut client.inbuf);
                client.inbuf = std::mem::take(&mut client.unit);
            }
            After::Replay => {
                writeln!(self.out, "  replay").unwrap();
                let client = self.client();
                let mut bytes = std::mem::take(&mut client.replay);
                bytes.append(&mut client.inbuf);
                client.inbuf = bytes;
            }
            After::Close => {
                writeln!(self.out, "  close").unwrap();
                return;
            }
        }
        self.feed();
    }

    fn lose(&mut self) {
        let client = self.clients.get_mut(&self.who).unwrap();
        let (backend, shard) = client.conn.take().expect("a backend is held");
        client.session.leave(shard);
        let (said, closes) = match client.session.on_lost(shard, &backend, Writes::Possible) {
            Lost::Quiet => (Vec::new(), false),
            Lost::Say(bytes) => (bytes, false),
            Lost::Close(bytes) => (bytes, true),
        };
        self.show("  to client: ", &said, Speaker::Server);
        if closes {
            writeln!(self.out, "  close").unwrap();
            return;
        }
        self.feed();
    }

    fn attach(&mut self, shard: ShardId, access: Access) {
        let mut backend = self.idle.remove(&shard).unwrap_or_else(|| {
            let key = CancelKey { pid: 1, secret: Box::from([0; 4]) };
            Backend::new(key, 2, self.interner.intern(SettingsSet::default()))
        });
        // Whatever may go to a replica does.
        backend.note_replica(access == Access::Read);
        let client = self.client();
        client.session.join(shard);
        client.conn = Some((backend, shard));
    }

    fn detach(&mut self) {
        let Some((mut backend, shard)) = self.client().conn.take() else { return };
        self.client().session.leave(shard);
        let dirty = backend.is_dirty();
        writeln!(self.out, "  release{}", if dirty { " (to be cleaned)" } else { "" }).unwrap();
        if dirty {
            backend.reset_done(self.interner.intern(SettingsSet::default()));
        }
        self.idle.insert(shard, backend);
    }

    fn name(&self, shard: ShardId) -> String {
        self.map.shard(shard).map_or_else(|| "?".to_owned(), |shard| shard.name.to_string())
    }

    fn show(&mut self, before: &str, bytes: &[u8], speaker: Speaker) {
        for line in words::lines(bytes, speaker) {
            writeln!(self.out, "{before}{line}").unwrap();
        }
    }
}

fn read(name: &str) -> Map {
    if name == "replicas" {
        let [primary, replica] =
            ["db1", "db2"].map(|host| Endpoint::new(&format!("{host}.example.com"), 5432));
        return Map::unsharded("app", primary, vec![replica]);
    }
    if name == "unsharded" {
        return Map::unsharded("app", Endpoint::new("db.example.com", 5432), Vec::new());
    }
    let path = format!("tests/golden/route/maps/{name}.toml");
    Map::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap()
}
