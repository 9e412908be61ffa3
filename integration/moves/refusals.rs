//! What `plan` refuses, each with the statement that cures it: after the cure
//! the same plan no longer refuses.

use keyway::control::mover::checks::{Finding, Sizes, Weight};
use keyway::control::mover::submit::{Wanted, plan};
use keyway::local::{NodeName, Stop, Version};
use keyway::mover::Subject;
use keyway::shardmap::Map;
use keyway::types::ShardId;

use crate::routed::runtime;
use crate::world::World;

/// Where a case's cure is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cured {
    OnBoth,
    On(u16),
    /// The cure is advice in words; these statements follow it, on the target.
    By(&'static str),
    /// There is none.
    Never,
}

struct Case {
    /// What both shards get.
    both: &'static str,
    /// What only one gets.
    one: (u16, &'static str),
    /// Part of the refusal.
    says: &'static str,
    cured: Cured,
    /// The type of the keyspace's keys.
    key: &'static str,
}

/// Each has a table `x` with the key `k`.
const CASES: &[Case] = &[
    Case {
        both: "",
        one: (2, "CREATE TABLE x (k bigint PRIMARY KEY)"),
        says: "public.x is not on the source",
        cured: Cured::Never,
        key: "int8",
    },
    Case {
        both: "",
        one: (1, "CREATE TABLE x (k bigint PRIMARY KEY)"),
        says: "public.x is not on the target",
        cured: Cured::By("CREATE TABLE x (k bigint PRIMARY KEY)"),
        key: "int8",
    },
    Case {
        both: "CREATE UNLOGGED TABLE x (k bigint PRIMARY KEY)",
        one: (1, ""),
        says: "is no logged table",
        cured: Cured::OnBoth,
        key: "int8",
    },
    Case {
        both: "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE TABLE x (k mood PRIMARY KEY)",
        one: (1, ""),
        says: "has an enum's or a domain's type",
        cured: Cured::OnBoth,
        key: "text",
    },
    Case {
        both: "CREATE DOMAIN number AS bigint; CREATE TABLE x (k number PRIMARY KEY)",
        one: (1, ""),
        says: "has an enum's or a domain's type",
        cured: Cured::OnBoth,
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint GENERATED ALWAYS AS (a * 2) STORED, a bigint, PRIMARY KEY (k))",
        one: (1, ""),
        says: "is a generated column",
        cured: Cured::OnBoth,
        key: "int8",
    },
    Case {
        both: "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', \
               deterministic = false); CREATE TABLE x (k text COLLATE loose PRIMARY KEY)",
        one: (1, ""),
        says: "a collation in which different texts are equal",
        cured: Cured::OnBoth,
        key: "text",
    },
    Case {
        both: "CREATE TABLE x (id bigint PRIMARY KEY, k bigint NOT NULL)",
        one: (1, ""),
        says: "is not part of its replica identity",
        cured: Cured::OnBoth,
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY)",
        one: (2, "ALTER TABLE x ENABLE ROW LEVEL SECURITY"),
        says: "row level security on the target",
        cured: Cured::On(2),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger \
               LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        one: (1, "CREATE TRIGGER \"~~z\" BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()"),
        says: "on the source the triggers ~~z",
        cured: Cured::On(1),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger \
               LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        one: (
            2,
            "CREATE TRIGGER often BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION f(); \
             ALTER TABLE x ENABLE ALWAYS TRIGGER often",
        ),
        says: "on the target the triggers often",
        cured: Cured::On(2),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY); CREATE TABLE y () INHERITS (x)",
        one: (1, ""),
        says: "has children by inheritance",
        cured: Cured::OnBoth,
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY)",
        one: (1, "ALTER TABLE x ADD note text"),
        says: "has other columns on the target",
        cured: Cured::By("ALTER TABLE x ADD note text"),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY)",
        one: (1, "CREATE TABLE y (k bigint REFERENCES x)"),
        says: "y_k_fkey of public.y refers to public.x",
        cured: Cured::On(1),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint PRIMARY KEY)",
        one: (2, "INSERT INTO x SELECT generate_series(1, 1000)"),
        says: "the target has rows in public.x",
        cured: Cured::On(2),
        key: "int8",
    },
    Case {
        both: "CREATE TABLE x (k bigint, id bigint, PRIMARY KEY (k, id))",
        one: (1, "CREATE SEQUENCE own; ALTER TABLE x ALTER id SET DEFAULT nextval('own')"),
        says: "the sequence \"public\".\"own\", which the moved tables use, is not on the target",
        cured: Cured::On(2),
        key: "int8",
    },
];

/// A map whose keyspace has only the table `x`.
fn map_of(world: &World, key: &str) -> Map {
    let list = world.map_text.find("tables = [").unwrap();
    let end = list + world.map_text[list..].find(']').unwrap();
    let text = format!(
        "{}tables = [\"public.x\"{}",
        world.map_text[..list]
            .replace("\"tenant_id\"", "\"k\"")
            .replace("\"int8\"", &format!("\"{key}\"")),
        &world.map_text[end..]
    );
    Map::parse(&text, "map").unwrap()
}

fn planned(world: &World, map: &Map, subject: &Subject) -> Vec<Finding> {
    let keyspace = "tenants".to_owned();
    let wanted = Wanted { keyspace, subject: subject.clone(), target: ShardId::new(2) };
    let planned = runtime().block_on(plan(&world.access(), map, &wanted, Sizes::Estimated));
    planned.unwrap().report.findings
}

fn refusal(findings: &[Finding], says: &str) -> Option<Finding> {
    findings.iter().find(|f| f.weight == Weight::Refuse && f.what.contains(says)).cloned()
}

/// A key of the type that lives on the first shard.
fn tenant_of(map: &Map, key: &str) -> Subject {
    let keyspace = &map.keyspaces()[0];
    let mut scratch = keyway::shardmap::Scratch::default();
    let on_first = |text: &String| {
        let key = keyway::shardmap::Key::from_text(keyspace.key_type(), text, &mut scratch);
        keyspace.owner(&key.unwrap()).number() == 1
    };
    // The enum of a case has these words.
    let texts = if key == "text" { ["a", "b", "c", "d"] } else { ["1", "2", "3", "4"] };
    Subject::Tenant(texts.into_iter().map(str::to_owned).find(on_first).unwrap())
}

#[test]
fn every_refusal_of_a_table_names_its_cure_and_the_cure_helps() {
    let world = World::start(Version::Newest);
    let runtime = runtime();
    let mut shards = [world.node(1), world.node(2)];
    // Not every build has collations in which different texts are equal.
    let probe = "CREATE COLLATION public.probe (provider = icu, locale = 'und')";
    let icu = runtime.block_on(shards[0].rows(probe)).is_ok();
    let mut on = |shard: u16, sql: &str| {
        let node = &mut shards[usize::from(shard) - 1];
        let sql = format!("SET search_path = public; {sql}");
        runtime.block_on(node.rows(&sql)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    };
    let is_built = |case: &&Case| !case.both.contains("icu") || icu;
    for case in CASES.iter().filter(is_built) {
        for shard in [1, 2] {
            on(shard, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
            on(shard, case.both);
        }
        on(case.one.0, case.one.1);
        let map = map_of(&world, case.key);
        let subject = tenant_of(&map, case.key);
        let findings = planned(&world, &map, &subject);
        let found = refusal(&findings, case.says);
        let found = found.unwrap_or_else(|| panic!("{}: {findings:?}", case.says));
        // As it is pasted from the plan.
        let cure = || found.cure.clone().unwrap_or_else(|| panic!("{found:?} has no cure"));
        match case.cured {
            Cured::OnBoth => {
                on(1, &cure());
                on(2, &cure());
            }
            Cured::On(shard) => on(shard, &cure()),
            Cured::By(sql) => {
                assert!(cure().starts_with("-- "), "{found:?}");
                on(2, sql);
            }
            Cured::Never => {
                assert_eq!(found.cure, None);
                continue;
            }
        }
        let after = planned(&world, &map, &subject);
        let refusals: Vec<_> = after.iter().filter(|f| f.weight == Weight::Refuse).collect();
        assert!(refusals.is_empty(), "{} after {}: {refusals:?}", case.says, cure());
    }
}

#[test]
fn servers_that_lack_what_a_move_takes_are_refused_until_they_are_cured() {
    let world = World::start_with(
        Version::Newest,
        0,
        &[
            ("wal_level", "replica"),
            ("max_replication_slots", "2"),
            ("max_wal_senders", "2"),
            ("max_logical_replication_workers", "2"),
            ("max_worker_processes", "3"),
        ],
    );
    let subject = Subject::Tenant(world.tenant_on(1, 0).to_string());
    let findings = planned(&world, &world.map, &subject);
    for side in ["the source", "the target"] {
        for lacks in [
            "wal_level = replica",
            "free of max_replication_slots",
            "free of max_wal_senders",
            "free of max_logical_replication_workers",
            "free of max_worker_processes",
        ] {
            let both = |f: &&Finding| f.what.contains(side) && f.what.contains(lacks);
            let found = findings.iter().find(both);
            let cure =
                found.unwrap_or_else(|| panic!("{side}, {lacks}: {findings:?}")).cure.clone();
            let shard = if side == "the source" { 1 } else { 2 };
            world.cluster.superuser_sql(shard, &cure.unwrap());
        }
    }
    for shard in [1, 2] {
        let name = NodeName { shard, replica: 0 };
        world.cluster.servers().stop_node(name, Stop::Fast).unwrap();
        world.cluster.servers().start_node(name).unwrap();
    }
    let after = planned(&world, &world.map, &subject);
    assert!(after.iter().all(|f| f.weight == Weight::Note), "{after:?}");

    // What only an operator can judge is a note.
    world.cluster.superuser_sql(1, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    world.cluster.superuser_sql(1, "SELECT pg_reload_conf()");
    let tenant = world.tenant_on(1, 0);
    world.cluster.sql(
        1,
        &format!(
            "INSERT INTO accounts VALUES ({tenant}, 'a'); INSERT INTO counters (tenant_id, writer, n, body) \
             SELECT {tenant}, g, 1, repeat('x', 1000) FROM generate_series(1, 3000) g; ANALYZE counters"
        ),
    );
    world
        .cluster
        .sql(1, "BEGIN; INSERT INTO accounts VALUES (99999, 'p'); PREPARE TRANSACTION 'p'");
    let notes = planned(&world, &world.map, &subject);
    for note in ["max_slot_wal_keep_size", "1 prepared transactions"] {
        let is_note = |f: &Finding| f.weight == Weight::Note && f.what.contains(note);
        assert!(notes.iter().any(is_note), "{note}: {notes:?}");
    }
    world.cluster.sql(1, "ROLLBACK PREPARED 'p'");
    slots_that_no_server_can_tell(&world);
    one_server(&world);
}

fn slots_that_no_server_can_tell(world: &World) {
    let slots = Subject::Slots { first: 0, last: 9 };
    let text = world.map_text.replace("slots = 4096", "slots = 4096\nhash = \"xxh3\"");
    let map = Map::parse(&text, "map").unwrap();
    let found = planned(world, &map, &slots);
    assert!(refusal(&found, "move its tenants one by one").is_some(), "{found:?}");
}

fn one_server(world: &World) {
    let mut access = world.access();
    let source = access.primaries[&ShardId::new(1)].clone();
    access.primaries.insert(ShardId::new(2), source);
    let subject = Subject::Tenant(world.tenant_on(1, 0).to_string());
    let wanted = Wanted { keyspace: "tenants".to_owned(), subject, target: ShardId::new(2) };
    let planned = runtime().block_on(plan(&access, &world.map, &wanted, Sizes::Estimated));
    let findings = planned.unwrap().report.findings;
    assert!(refusal(&findings, "databases of one server").is_some(), "{findings:?}");
}

#[test]
fn a_role_without_rights_is_refused_with_what_to_grant() {
    let world = World::start(Version::Newest);
    let subject = Subject::Tenant(world.tenant_on(1, 0).to_string());
    for shard in [1, 2] {
        world
            .cluster
            .superuser_sql(shard, "CREATE ROLE weak LOGIN PASSWORD 'weak' IN ROLE pg_monitor");
    }
    let mut access = world.access();
    for target in access.primaries.values_mut() {
        target.user = "weak".to_owned();
        target.password = Some(keyway::types::Secret::new("weak".to_owned()));
    }
    let wanted = Wanted { keyspace: "tenants".to_owned(), subject, target: ShardId::new(2) };
    let look = || {
        let planned = runtime().block_on(plan(&access, &world.map, &wanted, Sizes::Estimated));
        planned.unwrap().report.findings
    };
    let findings = look();
    let mut cures = Vec::new();
    for says in [
        "weak may not create subscriptions",
        "weak may not create logins",
        "weak may not purge rows",
        "weak may not create publications",
        "\"weak\" is no member of \"app\", who owns public.ledger",
    ] {
        let found = refusal(&findings, says).unwrap_or_else(|| panic!("{says}: {findings:?}"));
        cures.push(found.cure.unwrap());
    }
    if runtime().block_on(world.node(1).version()).unwrap() < 16 {
        // Only a superuser can subscribe there.
        return;
    }
    for cure in cures {
        for shard in [1, 2] {
            world.cluster.superuser_sql(shard, &cure);
        }
    }
    let after = look();
    assert!(after.iter().all(|f| f.weight == Weight::Note), "{after:?}");
}
