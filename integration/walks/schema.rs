//! Tables that a shard lacks are made, with what they need.

use std::process::Command;

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::router::{Router, RouterOptions};

/// Tables of every kind, in a schema of their own, with what they need.
const TABLES: &str = "
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('good', 'bad');
CREATE DOMAIN shop.cents AS int CHECK (VALUE >= 0);
CREATE FUNCTION shop.half(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
--
-- Name: looks like a heading; Type: TABLE; Schema: x; Owner: y
--
BEGIN RETURN n / 2; END $$;
CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.halved := shop.half(new.price); RETURN new; END $$;
CREATE SEQUENCE shop.numbers;
CREATE TABLE shop.sizes (code text PRIMARY KEY, title text NOT NULL);
INSERT INTO shop.sizes SELECT 'c' || g, repeat('it''s; ', g) FROM generate_series(1, 1200) g;
CREATE TABLE shop.\"Orders\" (
    tenant_id bigint NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY,
    number bigint NOT NULL DEFAULT nextval('shop.numbers'), price shop.cents NOT NULL, halved int,
    mood shop.mood NOT NULL DEFAULT 'good', size text NOT NULL REFERENCES shop.sizes,
    PRIMARY KEY (tenant_id, id), UNIQUE (tenant_id, number));
CREATE INDEX \"by Mood\" ON shop.\"Orders\" (tenant_id, mood);
CREATE INDEX ON shop.\"Orders\" (shop.half(price)) WHERE price > 10;
COMMENT ON INDEX shop.\"by Mood\" IS 'for the list';
COMMENT ON COLUMN shop.\"Orders\".price IS 'without tax';
CREATE TRIGGER note BEFORE INSERT ON shop.\"Orders\" FOR EACH ROW EXECUTE FUNCTION shop.note();
CREATE TABLE shop.events (
    tenant_id bigint NOT NULL, id bigserial, at date NOT NULL, what text,
    PRIMARY KEY (tenant_id, id, at)) PARTITION BY RANGE (at);
CREATE TABLE shop.events_old PARTITION OF shop.events FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE shop.events_new PARTITION OF shop.events FOR VALUES FROM ('2020-01-01') TO ('2040-01-01');
CREATE INDEX ON shop.events (tenant_id, what);
CREATE VIEW shop.dear AS SELECT * FROM shop.\"Orders\" WHERE price > 100;
CREATE TABLE shop.settings (name text PRIMARY KEY);
CREATE VIEW shop.shown AS SELECT * FROM shop.settings;
";

const MAP: &str = "
[[keyspace]]
name = \"tenants\"
type = \"int8\"
slots = 64
ranges = { shard1 = [\"0-63\"] }

[[key_rule]]
keyspace = \"tenants\"
column = \"tenant_id\"
tables = [\"shop.\\\"Orders\\\"\", \"shop.events\"]

[reference]
tables = [\"shop.sizes\"]
";

fn keyway(map: &std::path::Path, cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let view = cluster.view();
    let output = Command::new(env!("CARGO_BIN_EXE_keyway"))
        .args(args)
        .args(["--user", &view.superuser])
        .arg(map)
        .env("PGPASSWORD", &view.superuser_password)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    println!("keyway {args:?}: {}", said.concat());
    (output.status.success(), said.concat())
}

/// Both shards look alike, but for what is on one alone.
fn expect_alike(cluster: &Cluster) {
    for facts in [
        "SELECT string_agg(indexrelid::regclass || pg_get_indexdef(indexrelid) || indisvalid, ';' \
         ORDER BY indexrelid::regclass::text) FROM pg_index JOIN pg_class c ON c.oid = indrelid \
         WHERE relnamespace = 'shop'::regnamespace AND relname <> 'settings'",
        "SELECT string_agg(conname || pg_get_constraintdef(c.oid), ';' ORDER BY conname) \
         FROM pg_constraint c WHERE connamespace = 'shop'::regnamespace \
         AND conrelid IS DISTINCT FROM to_regclass('shop.settings')",
        "SELECT string_agg(proname || prosrc, ';' ORDER BY proname) FROM pg_proc \
         WHERE pronamespace = 'shop'::regnamespace",
        "SELECT string_agg(tgname, ';' ORDER BY tgname) FROM pg_trigger \
         WHERE tgrelid = 'shop.\"Orders\"'::regclass AND NOT tgisinternal",
        "SELECT col_description('shop.\"Orders\"'::regclass, 4) || obj_description('shop.\"by Mood\"'::regclass)",
        "SELECT md5(string_agg(s::text, ';' ORDER BY code)) FROM shop.sizes s",
        "SELECT pg_get_viewdef('shop.dear'::regclass)",
    ] {
        assert_eq!(cluster.sql(2, facts), cluster.sql(1, facts), "{facts}");
    }
}

#[test]
fn what_a_shard_lacks_is_made_whole_and_indexes_once_the_rows_are_there() {
    let options = ClusterOptions { shards: 2, replicas: 0, ..ClusterOptions::default() };
    let cluster = Cluster::start_with(options, &[("max_slot_wal_keep_size", "-1")]);
    cluster.sql(1, TABLES);
    cluster.sql(
        1,
        "INSERT INTO shop.\"Orders\" (tenant_id, price, size) \
         SELECT g % 40, g, 'c' || (1 + g % 1000) FROM generate_series(1, 4000) g; \
         INSERT INTO shop.events (tenant_id, at, what) \
         SELECT g % 40, '2019-12-01'::date + g % 60, 'x' FROM generate_series(1, 1000) g",
    );
    let text = std::fs::read_to_string(&cluster.view().map).unwrap();
    let (shards, _) = text.split_once("\n[[keyspace]]").unwrap();
    let map = format!("{shards}{MAP}");
    let view = cluster.view();
    let moves =
        format!("[moves]\nuser = \"{}\"\npassword_env = \"MOVER_PASSWORD\"\n", view.superuser);
    let options = RouterOptions {
        map: Some(map.clone()),
        env: vec![("MOVER_PASSWORD".to_owned(), view.superuser_password.clone())],
        ..RouterOptions::default()
    };
    let router = Router::start(&cluster, &options.with_config(&moves));
    let wanted = router.dir().join("wanted.toml");
    let split = map.replace("shard1 = [\"0-63\"]", "shard1 = [\"0-31\"], shard2 = [\"32-63\"]");
    std::fs::write(&wanted, split).unwrap();
    let in_force = router.dir().join("state/app/map-1.toml");
    crate::support::wait_for("the map in force", || in_force.exists());
    let in_force = in_force.display().to_string();
    let (done, said) = keyway(&wanted, &cluster, &["plan"]);
    assert!(!done && said.contains("name it by --in-force"), "{said}");

    // A table that is there otherwise: nothing is made.
    cluster.sql(2, "CREATE SCHEMA shop; CREATE TABLE shop.events (tenant_id bigint PRIMARY KEY)");
    let (done, said) =
        keyway(&wanted, &cluster, &["apply", "--create-schema", "--in-force", &in_force]);
    assert!(!done && said.contains("shop.events has other columns on the target"), "{said}");
    let tables = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
                  WHERE nspname = 'shop' AND relkind IN ('r', 'p')";
    assert_eq!(cluster.sql(2, tables), "1");
    cluster.sql(2, "DROP TABLE shop.events");

    let (done, said) = keyway(&wanted, &cluster, &["plan", "--in-force", &in_force]);
    assert!(!done && said.contains("apply --create-schema"), "{said}");
    assert!(said.contains("shard2 has no shop.sizes, which is on every shard"), "{said}");
    let make = ["apply", "--create-schema", "--in-force", &in_force];
    let (done, said) =
        keyway(&wanted, &cluster, &[&make[..], &["--pg-dump", "/bin/true"]].concat());
    assert!(!done && said.contains("there is no pg_dump of version"), "{said}");
    let (done, _) = keyway(&wanted, &cluster, &[&make[..], &["--dry-run"]].concat());
    assert!(!done && cluster.sql(2, tables) == "0", "a dry run makes nothing");

    let (done, said) = keyway(&wanted, &cluster, &[&make[..], &["--finish"]].concat());
    assert!(done && said.contains("2 indexes are made once the rows are copied"), "{said}");
    expect_alike(&cluster);
    let absent =
        "SELECT to_regclass('shop.settings') IS NULL AND to_regclass('shop.shown') IS NULL";
    assert_eq!(cluster.sql(2, absent), "t");
    let count = |shard| -> u32 {
        cluster.sql(shard, "SELECT count(*) FROM shop.\"Orders\"").parse().unwrap()
    };
    assert!(count(1) > 0 && count(2) > 0 && count(1) + count(2) == 4000);
    assert_eq!(cluster.superuser_sql(2, "SELECT count(*) FROM keyway.later"), "0");
    let (healthy, said) = keyway(&wanted, &cluster, &["doctor"]);
    assert!(healthy && said.contains("nothing is wrong"), "{said}");
    let (done, said) = keyway(&wanted, &cluster, &["apply", "--create-schema"]);
    assert!(done && said.contains("nothing moves"), "{said}");
}
