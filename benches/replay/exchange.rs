//! The machines of the hot path fed with recorded bytes: session, planner,
//! backends and pool as the engine drives them, without sockets and runtime.
//!
//! It does not measure; the bench beside it counts instructions, and
//! `tests/alloc_hot_path.rs` counts allocations, over the same walk. The
//! recordings are pgbench's and PostgreSQL 18's own words (`record`).

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use keyway::backend::{Backend, CancelKey, Event, SettingsInterner, SettingsSet};
use keyway::catalog::Catalog;
use keyway::pool::{Handed, Pool, PoolLimits};
use keyway::route::{Planner, PlannerLimits};
use keyway::session::{After, Env, EventEnv, Limits, Session, StatementRegistry, Step, Want};
use keyway::shardmap::{Endpoint, Map};
use keyway::types::{Consistency, Millis, Moment, ShardId};

/// What is replayed: a recording, and the map under which it runs.
pub struct Scenario {
    /// Its name in `benches/gates.toml`.
    pub name: &'static str,
    recorded: &'static str,
    map: Option<&'static str>,
}

/// pgbench's select on one database, and the same by key on two shards, in the
/// three ways in which drivers speak.
pub const SCENARIOS: [Scenario; 6] = [
    Scenario { name: "simple", recorded: include_str!("recorded/simple.txt"), map: None },
    Scenario { name: "extended", recorded: include_str!("recorded/extended.txt"), map: None },
    Scenario { name: "prepared", recorded: include_str!("recorded/prepared.txt"), map: None },
    Scenario {
        name: "sharded-simple",
        recorded: include_str!("recorded/sharded-simple.txt"),
        map: Some(TWO_SHARDS),
    },
    Scenario {
        name: "sharded-extended",
        recorded: include_str!("recorded/sharded-extended.txt"),
        map: Some(TWO_SHARDS),
    },
    Scenario {
        name: "sharded-prepared",
        recorded: include_str!("recorded/sharded-prepared.txt"),
        map: Some(TWO_SHARDS),
    },
];

/// One client, its thread's caches, and a pool of each shard.
pub struct Replay {
    exchanges: Vec<Exchange>,
    session: Session,
    planner: Planner,
    interner: SettingsInterner,
    registry: StatementRegistry,
    map: Arc<Map>,
    catalog: Catalog,
    pools: Vec<Pool<Box<Backend>, ()>>,
    held: Option<(Box<Backend>, ShardId)>,
    to_client: Vec<u8>,
    to_backend: Vec<u8>,
    kept: Vec<u8>,
    events: Vec<Event>,
}

struct Exchange {
    asked: Vec<u8>,
    answered: Vec<u8>,
}

impl Replay {
    /// Everything warm: each query has run on each backend that serves it.
    pub fn warm(scenario: &Scenario) -> Self {
        let map = match scenario.map {
            Some(text) => Map::parse(text, "two shards").unwrap(),
            None => Map::unsharded("app", Endpoint::new("127.0.0.1", 5432), Vec::new()),
        };
        let mut interner = SettingsInterner::default();
        let settings = interner.intern(SettingsSet::default());
        let limits = Limits {
            statement_bytes_max: 1 << 24,
            held_bytes_max: 1 << 20,
            statements_max: 1000,
            settings_bytes_max: 1 << 16,
            merge: None,
        };
        let mut replay = Self {
            exchanges: read(scenario.recorded),
            session: Session::new(limits, "app", Rc::clone(&settings)),
            planner: Planner::new(7, PlannerLimits::default()),
            interner,
            registry: StatementRegistry::default(),
            pools: map.shards().iter().map(|_| pool(&settings)).collect(),
            map: Arc::new(map),
            catalog: Catalog::default(),
            held: None,
            to_client: Vec::new(),
            to_backend: Vec::new(),
            kept: Vec::new(),
            events: Vec::new(),
        };
        let mut exchanges = std::mem::take(&mut replay.exchanges);
        for round in 0..3 {
            for exchange in &mut exchanges {
                if round == 0 || !exchange.only_prepares() {
                    replay.check(exchange);
                }
            }
        }
        exchanges.retain(|exchange| !exchange.only_prepares());
        replay.exchanges = exchanges;
        replay
    }

    /// Runs `count` queries, the recorded ones again and again.
    pub fn run(&mut self, count: usize) {
        let exchanges = std::mem::take(&mut self.exchanges);
        for exchange in exchanges.iter().cycle().take(count) {
            self.to_backend.clear();
            self.ask(&exchange.asked);
            self.to_client.clear();
            self.answer(&exchange.answered);
        }
        self.exchanges = exchanges;
    }

    /// Runs one query and holds what both sides get against the recording.
    fn check(&mut self, exchange: &mut Exchange) {
        self.to_backend.clear();
        let direct = self.ask(&exchange.asked);
        self.to_backend.extend_from_slice(&exchange.asked[direct]);
        // The recording has no answers to what the router prepares by itself.
        let own = parses(&self.to_backend) - parses(&exchange.asked);
        let answered = [PARSE_COMPLETE.repeat(own), exchange.answered.clone()].concat();
        self.to_client.clear();
        let direct = self.answer(&answered);
        self.to_client.extend_from_slice(&answered[direct]);
        assert_eq!(self.to_client, exchange.answered, "the client sees the server's words");
    }

    /// The client's bytes, up to where they are a backend's.
    fn ask(&mut self, asked: &[u8]) -> Range<usize> {
        let mut consumed = 0;
        loop {
            let (step, taken, direct) = self.feed(&asked[consumed..]);
            let direct = consumed + direct.start..consumed + direct.end;
            consumed += taken;
            match step {
                Step::Checkout(want) => self.check_out(want),
                Step::Read
                | Step::Await
                | Step::Hold
                | Step::Fresh(_)
                | Step::Listen
                | Step::Gather
                | Step::Again
                | Step::Close => {
                    assert_eq!(consumed, asked.len(), "the whole message is taken");
                    return direct;
                }
            }
        }
    }

    /// The server's bytes, up to where the backend is free again.
    fn answer(&mut self, answered: &[u8]) -> Range<usize> {
        let (backend, shard) = self.held.as_mut().expect("the query has a backend");
        let relayed = backend.relay(answered, &mut self.to_client, &mut self.events).unwrap();
        assert_eq!(relayed.consumed, answered.len(), "the whole reply is taken");
        let shard = *shard;
        let after = self.session.on_events(
            &mut self.events,
            EventEnv {
                backend,
                shard,
                interner: &mut self.interner,
                registry: &mut self.registry,
                to_backend: &mut self.to_backend,
            },
        );
        assert_eq!(after, After::Release, "a query outside a transaction frees its backend");
        if let Some((backend, _)) = self.held.take() {
            self.session.leave(shard);
            let handed = self.pools[place(shard)].release(NOW, None, backend);
            assert!(matches!(handed, Handed::Kept));
        }
        relayed.direct
    }

    fn feed(&mut self, input: &[u8]) -> (Step, usize, Range<usize>) {
        let mut env = Env {
            planner: &mut self.planner,
            interner: &mut self.interner,
            registry: &mut self.registry,
            map: &self.map,
            map_serial: 1,
            catalog: &self.catalog,
            catalog_serial: 1,
            consistency: Consistency::Primary,
            choose: &|_, _, _| String::new(),
            token: &|_| Ok(String::new()),
            backend: self.held.as_mut().map(|(backend, shard)| (&mut **backend, *shard)),
            to_client: &mut self.to_client,
            to_backend: &mut self.to_backend,
            replay: &mut self.kept,
        };
        let fed = self.session.feed(input, &mut env);
        (fed.step, fed.consumed, fed.direct)
    }

    fn check_out(&mut self, want: Want) {
        let backend = self.pools[place(want.shard)].take_idle().expect("a backend is free");
        self.session.join(want.shard);
        self.held = Some((backend, want.shard));
    }
}

impl Exchange {
    /// It makes a named statement, which can be done but once.
    fn only_prepares(&self) -> bool {
        self.asked[0] == b'P' && self.asked[5] != 0
    }
}

fn pool(settings: &Rc<SettingsSet>) -> Pool<Box<Backend>, ()> {
    let mut pool = Pool::new(PoolLimits {
        size_max: 1,
        size_min_idle: 0,
        idle_timeout: Millis::ZERO,
        reconnect_min: Millis::ZERO,
        reconnect_max: Millis::ZERO,
    });
    let key = CancelKey { pid: 1, secret: Box::from([0; 4]) };
    pool.connecting();
    let handed = pool.connected(NOW, None, Box::new(Backend::new(key, 200, Rc::clone(settings))));
    assert!(matches!(handed, Handed::Kept));
    pool
}

/// Shards are numbered from 1.
fn place(shard: ShardId) -> usize {
    usize::from(shard.number()) - 1
}

fn read(recorded: &str) -> Vec<Exchange> {
    let bytes = |line: &str, mark| {
        let digits = line.strip_prefix(mark).expect("a line is marked with its direction");
        let pairs = digits.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        pairs.map(byte).collect::<Vec<_>>()
    };
    let lines: Vec<_> = recorded.lines().collect();
    let pairs = lines.chunks(2);
    pairs
        .map(|pair| Exchange { asked: bytes(pair[0], "> "), answered: bytes(pair[1], "< ") })
        .collect()
}

fn parses(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [kind, a, b, c, d, ..] = *bytes {
        count += usize::from(kind == b'P');
        bytes = &bytes[1 + u32::from_be_bytes([a, b, c, d]) as usize..];
    }
    count
}

const PARSE_COMPLETE: &[u8] = &[b'1', 0, 0, 0, 4];
const NOW: Moment = Moment::START;
const TWO_SHARDS: &str = include_str!("two-shards.toml");
