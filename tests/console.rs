//! What the console and the operators' pages say, from values alone.
//!
//! `tests/golden/console/*.txt` hold cases, separated by blank lines: comment
//! lines, the text as a client sends it, `----`, and the replies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use keyway::admin::http::Readiness;
use keyway::admin::source::{Intake, MoveView, RouterView, Waiting};
use keyway::admin::task::answer;
use keyway::admin::{
    Action, CatalogView, DatabaseView, Inputs, Outcome, Refusal, Reloaded, SettingRow, Source,
    metrics,
};
use keyway::cluster::{Breaker, Cluster, Health, Member, NodeState, Proof, Replay, SampleNumber};
use keyway::config::Config;
use keyway::engine::console::{ColumnKind, ConsoleReply};
use keyway::engine::snapshot::{
    ClientSnapshot, ClientState, DatabaseSnapshot, EngineSnapshot, Latency, PoolSnapshot,
    ServerSnapshot, ServerState, Totals,
};
use keyway::mover::fleet::RouterRow;
use keyway::mover::{Journal, Pause, Phase, Subject, Subscriptions, Times, Wish};
use keyway::shardmap::{Endpoint, Map};
use keyway::store::moves::Stored;
use keyway::types::{Epoch, Lsn, Millis, Moment, NodeId, Role, SqlState};

const MAP: &str = r#"
epoch = 7
database = "app"
home = "s1"
consistency = "bounded(500ms)"
[[shard]]
number = 1
name = "s1"
dbname = "app_1"
primary = { host = "db1", port = 5432 }
replicas = [{ host = "db1r", port = 5432, zone = "b" }]
[[shard]]
number = 2
name = "s2"
dbname = "app_2"
primary = { host = "/run/s2", port = 5433 }
[[keyspace]]
name = "tenants"
type = "int8"
slots = 16
[keyspace.ranges]
s1 = ["0-3", "8-11"]
s2 = ["4-7", "12-15"]
[keyspace.pins]
"42" = "s1"
[[table]]
name = "tasks"
keyspace = "tenants"
key = "tenant_id"
"#;

/// A router with one sharded and one unsharded database, some clients, and a
/// dead shard.
struct Sample;

impl Source for Sample {
    fn inputs(&self) -> Waiting<'_, Inputs> {
        Box::pin(async { inputs() })
    }

    fn carry_out(&self, action: Action) -> Waiting<'_, Result<Outcome, Refusal>> {
        Box::pin(async move {
            match action {
                Action::Reload => Ok(Outcome::Reloaded(vec![Reloaded {
                    what: "app".to_owned(),
                    epoch: keyway::types::Epoch::new(8).into(),
                    result: "epoch 8 is in force".to_owned(),
                }])),
                Action::Move(order) if order.target == "shard2" => Ok(Outcome::Moving(4)),
                Action::Move(order) => Err(Refusal {
                    state: SqlState::new("55000"),
                    message: format!("the map has no shard {}", order.target),
                    hint: None,
                }),
                Action::Wish(3, wish) => Ok(Outcome::Wished(wish)),
                Action::Wish(id, _) => Err(Refusal {
                    state: SqlState::new("42704"),
                    message: format!("no move has the number {id}"),
                    hint: None,
                }),
                Action::NamePrimary(order) if order.node == "db1:5432" => {
                    assert_eq!(order.shard, "shard1");
                    Ok(Outcome::Named)
                }
                Action::NamePrimary(order) => Err(Refusal {
                    state: SqlState::new("42704"),
                    message: format!("shard {:?} has no node {:?}", order.shard, order.node),
                    hint: None,
                }),
                Action::Kill(2) => Ok(Outcome::Killed),
                Action::Kill(id) => Err(Refusal::no_client(id)),
                Action::Operate(_, Some(name)) | Action::WaitClose(Some(name))
                    if name != "app" && name != "plain" =>
                {
                    Err(Refusal::no_database(Some(&name)))
                }
                Action::Operate(operation, _) => Ok(Outcome::Operated(operation)),
                Action::WaitClose(_) => Ok(Outcome::Closed),
            }
        })
    }
}

/// One shard's catalog, and trouble with the other's.
fn known() -> CatalogView {
    let text = r#"{"format": 1, "catalogs": [{"shards": [1], "catalog": {"schemas": {"public":
        {"relations": {"t": {"kind": "table"}, "v": {"kind": "sequence"}}}}}}]}"#;
    CatalogView {
        catalog: keyway::catalog::parse(text).unwrap(),
        failures: [(keyway::types::ShardId::new(2), "no answer within 5000 ms".to_owned())].into(),
        warnings: vec!["table public.t is only on s1".to_owned()],
    }
}

/// A move that has stopped.
fn moves() -> Vec<MoveView> {
    let journal = Journal {
        id: 3,
        keyspace: "tenants".to_owned(),
        subject: Subject::Tenant("42".to_owned()),
        source: 1,
        target: 2,
        tables: Vec::new(),
        pinned: Vec::new(),
        phase: Phase::Verifying,
        generation: 1,
        token: 0,
        tries: 0,
        subscriptions: Subscriptions::default(),
        stopped: Some("public.tasks differs".to_owned()),
        times: Times {
            copy_us: 1_500_000,
            pause: Some(Pause {
                drain_us: 5_000,
                fence_us: 12_000,
                apply_us: 8_250,
                switch_us: 6_000,
                open_us: 1_999,
            }),
        },
    };
    let progress = "5 of 5 tables copied".to_owned();
    let stored = Stored { journal, version: 5, wish: Wish::Pause, progress, age_s: 12 };
    vec![MoveView { database: "app".to_owned(), stored }]
}

fn routers() -> Vec<RouterView> {
    let router = |name: &str, epoch, own, lapsed| RouterView {
        database: "app".to_owned(),
        row: RouterRow {
            id: name.to_owned(),
            name: name.to_owned(),
            epoch: Epoch::new(epoch),
            lease: Millis::new(3_000),
            beat: 7,
            settled: Vec::new(),
            quiet_s: 1,
        },
        own,
        lapsed,
    };
    vec![router("r1:6432 pid 10", 3, true, false), router("r2:6432 pid 11", 2, false, true)]
}

fn inputs() -> Inputs {
    let app = Arc::new(Map::parse(MAP, "map").unwrap());
    let plain = Map::unsharded("plain", Endpoint::new("db9", 5432), Vec::new());
    let settings = Config::parse(
        "backend = \"postgres://u:hunter2@h:5/d?sslmode=disable&sslpassword=hunter2\"\n\
         [pool]\nsize_max = 10\n[[user]]\nname = \"a\"\npassword = \"hunter2\"\nadmin = true\n",
        "config",
    )
    .unwrap();
    Inputs {
        engine: engine(),
        databases: vec![
            DatabaseView {
                cluster: Arc::new(cluster(&app)),
                map: app,
                kept_back: Some("slots 0-3 of tenants move from s1 to s2".to_owned()),
                catalog: known(),
            },
            DatabaseView {
                cluster: Arc::new(Cluster::unknown(members(&plain))),
                map: Arc::new(plain),
                kept_back: None,
                catalog: CatalogView::default(),
            },
        ],
        settings: SettingRow::of(&settings),
        moves: moves(),
        routers: routers(),
        now: Moment::from_ms(10_000),
        intake: Intake::Open,
    }
}

fn members(map: &Map) -> Vec<Member> {
    map.nodes()
        .iter()
        .map(|node| Member {
            node: node.id,
            shard: node.shard,
            role: node.role,
            weight: u32::from(node.endpoint.weight),
            near: false,
        })
        .collect()
}

fn cluster(map: &Map) -> Cluster {
    let [primary, replica, dead] = members(map).try_into().unwrap();
    Cluster::new(vec![
        NodeState {
            health: Health::Healthy,
            role_seen: Some(Role::Primary),
            insert_lsn: Some(Lsn::new(0x1_0000_1000)),
            sampled_at: Some(Moment::from_ms(9_990)),
            ..NodeState::unknown(primary)
        },
        NodeState {
            health: Health::Suspect,
            breaker: Breaker::HalfOpen,
            role_seen: Some(Role::Replica),
            replay: Some(Replay {
                lsn: Lsn::new(0x1_0000_0000),
                lag_bytes: 0x1000,
                proven: Some(Proof { number: SampleNumber::new(5), begun: Moment::from_ms(9_880) }),
            }),
            sampled_at: Some(Moment::from_ms(9_990)),
            ..NodeState::unknown(replica)
        },
        NodeState { health: Health::Down, ..NodeState::unknown(dead) },
    ])
}

fn engine() -> EngineSnapshot {
    let pool = |user: &str, node: u16, address: &str, waiting| PoolSnapshot {
        database: "app".to_owned(),
        user: user.to_owned(),
        node: NodeId::new(node),
        address: address.to_owned(),
        role: if node == 1 { Role::Replica } else { Role::Primary },
        clients_active: 1,
        clients_waiting: waiting,
        servers_active: 1,
        servers_idle: 2,
        servers_connecting: 0,
        size_max: 20,
        oldest_wait_ms: waiting * 15,
        checkouts: 100,
        checkout_wait_ms_total: 30,
        mode: "transaction",
    };
    let mut latency = Latency::default();
    [90, 100, 110, 900, 5_000].into_iter().for_each(|us| latency.record(us));
    EngineSnapshot {
        pools: vec![
            pool("alice", 0, "db1:5432", 2),
            pool("bob", 0, "db1:5432", 0),
            pool("alice", 1, "db1r:5432", 0),
        ],
        clients: clients(),
        servers: vec![ServerSnapshot {
            node: NodeId::new(0),
            address: "db1:5432".to_owned(),
            user: "alice".to_owned(),
            database: "app".to_owned(),
            state: ServerState::Active,
            backend_pid: 4711,
            client: Some(2),
            age_s: 60,
            idle_s: 0,
            uses: 9,
            prepared: 3,
            client_address: Some(("10.0.0.9:50123".to_owned(), "web \"1\"".to_owned())),
            close_needed: true,
        }],
        databases: vec![DatabaseSnapshot {
            name: "app".to_owned(),
            epoch: keyway::types::Epoch::new(7),
            sharded: true,
            paused: true,
            suspended: false,
            disabled: false,
            servers_closing: 0,
        }],
        totals: Totals {
            statements: 5,
            transactions: 4,
            errors_router: BTreeMap::from([("0A".to_owned(), 2), ("ZZ".to_owned(), 1)]),
            errors_server: BTreeMap::from([("23".to_owned(), 1)]),
            reads: BTreeMap::from([("replica", 3), ("no_replica", 1)]),
            clients_now: 2,
            clients_max: 10_000,
            latency,
            ..Totals::default()
        },
    }
}

fn clients() -> Vec<ClientSnapshot> {
    vec![
        ClientSnapshot {
            id: 2,
            user: "alice".to_owned(),
            database: "app".to_owned(),
            address: "10.0.0.9:50123".to_owned(),
            state: ClientState::Transaction,
            connected_s: 61,
            statements: 12,
            application_name: "web \"1\"".to_owned(),
            holds: "transaction".to_owned(),
            node: Some(NodeId::new(0)),
            backend_pids: vec![4711],
            ..ClientSnapshot::default()
        },
        ClientSnapshot {
            id: 5,
            database: "app".to_owned(),
            user: "bob".to_owned(),
            address: "unix".to_owned(),
            state: ClientState::Idle,
            holds: "temp table, advisory lock".to_owned(),
            held_s: Some(90),
            node: Some(NodeId::new(2)),
            backend_pids: vec![4712, 4713],
            backend_nodes: vec![NodeId::new(2), NodeId::new(0)],
            ..ClientSnapshot::default()
        },
        ClientSnapshot { id: 3, address: "unix".to_owned(), ..ClientSnapshot::default() },
    ]
}

fn run(text: &str) -> Vec<ConsoleReply> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(answer(text, &Sample))
}

/// Replies as lines; values of one row are separated by ` | `.
fn written(replies: &[ConsoleReply]) -> String {
    let mut out = String::new();
    for reply in replies {
        match reply {
            ConsoleReply::Rows { columns, rows, tag } => {
                let names: Vec<String> = columns
                    .iter()
                    .map(|column| match column.kind {
                        ColumnKind::Text => column.name.to_owned(),
                        ColumnKind::Integer => format!("#{}", column.name),
                    })
                    .collect();
                writeln!(out, "{tag}: {}", names.join(" | ")).unwrap();
                for row in rows {
                    assert_eq!(row.len(), columns.len());
                    let values: Vec<&str> =
                        row.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
                    writeln!(out, "  {}", values.join(" | ")).unwrap();
                }
            }
            ConsoleReply::Complete { tag } => writeln!(out, "{tag}").unwrap(),
            ConsoleReply::Empty => out += "(empty)\n",
            ConsoleReply::Error { state, message, hint } => {
                writeln!(out, "ERROR {state}: {message}").unwrap();
                if let Some(hint) = hint {
                    writeln!(out, "HINT: {hint}").unwrap();
                }
            }
        }
    }
    out
}

#[test]
fn console_answers_as_recorded() {
    for entry in fs::read_dir("tests/golden/console").unwrap() {
        let path = entry.unwrap().path();
        let recorded = fs::read_to_string(&path).unwrap();
        let made: Vec<String> = recorded
            .split("\n\n")
            .map(|case| {
                let comments: String = case
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|l| format!("{l}\n"))
                    .collect();
                let input = case.split("\n----").next().unwrap();
                let input: Vec<&str> =
                    input.lines().filter(|line| !line.starts_with('#')).collect();
                let input = input.join("\n");
                format!("{comments}{input}\n----\n{}", written(&run(&input)))
            })
            .collect();
        let made = made.join("\n");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &made).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            made,
            "{}: run with UPDATE_GOLDEN=1",
            path.display()
        );
    }
}

#[test]
fn no_password_is_shown() {
    let shown = written(&run("SHOW CONFIG; SHOW DATABASES; SHOW MAP; SHOW CLIENTS"));
    assert!(shown.contains("backend | \"postgres://u:...@h:5/d?sslmode=disable"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_text_that_is_not_all_commands_does_nothing() {
    let replies = run("RELOAD; KILL 2; nonsense");
    assert!(matches!(replies.as_slice(), [ConsoleReply::Error { .. }]), "{replies:?}");
}

#[test]
fn metrics_page_is_as_recorded() {
    let path = "tests/golden/metrics.txt";
    let page = metrics::page(inputs());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap(), page, "run with UPDATE_GOLDEN=1");
}

#[test]
fn metrics_have_no_series_of_a_users_or_a_peers_making() {
    let page = metrics::page(inputs());
    for word in ["alice", "10.0.0.9", "web", "ZZ"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("class=\"other\""), "an unknown class is counted all the same");
}

#[test]
fn a_label_cannot_be_ended_by_its_value() {
    let mut inputs = inputs();
    let odd = Map::unsharded("a\"b\\c\nd", Endpoint::new("h", 1), Vec::new());
    inputs.databases = vec![DatabaseView {
        cluster: Arc::new(Cluster::unknown(members(&odd))),
        map: Arc::new(odd),
        kept_back: None,
        catalog: CatalogView::default(),
    }];
    let page = metrics::page(inputs);
    assert!(page.contains(r#"keyway_map_epoch{database="a\"b\\c\nd"} 1"#), "{page}");
}

#[test]
fn a_dead_shard_is_named_and_the_router_stays_ready() {
    let readiness = Readiness::of(&inputs());
    assert!(readiness.ready);
    assert_eq!(readiness.shards_down, ["app/s2", "plain/main"]);
}

#[test]
fn a_router_without_any_shard_or_in_shutdown_is_not_ready() {
    let mut draining = inputs();
    draining.intake = Intake::Draining;
    assert_eq!(Readiness::of(&draining).reason, Some("the router is shutting down"));
    let mut alone = inputs();
    alone.databases.remove(0);
    let readiness = Readiness::of(&alone);
    assert_eq!((readiness.ready, readiness.reason), (false, Some("no shard's primary answers")));
}
