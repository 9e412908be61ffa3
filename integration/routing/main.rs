//! Routes are proven right by a server: what goes to one shard says there what it
//! says on the whole, and slots and tokens are the server's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic fails the test")]

mod generate;
mod scan;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;

use generate::Keys;
use keyway::route::explain;
use keyway::shardmap::{Map, Scratch};
use support::cluster::{Cluster, ClusterOptions};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const TENANTS: [i64; 5] = [42, 43, -5, 7, 11];
const TABLES: [&str; 3] = ["users", "tasks", "comments"];

#[test]
fn routed_statements_say_on_their_shard_what_they_say_on_the_whole() {
    let path = "tests/golden/route/maps/two.toml";
    let text = std::fs::read_to_string(path).unwrap();
    compare_all(&Map::parse(&text, path).unwrap(), Keys::Column);
}

#[test]
fn so_they_do_where_a_key_has_several_columns() {
    let mut text = std::fs::read_to_string("tests/golden/route/maps/two.toml").unwrap();
    for (before, after) in [
        ("type = \"int8\"\n", "types = [\"int8\", \"int4\"]\n"),
        ("pins = { \"42\" = \"s1\", \"43\" = \"s2\", \"-5\" = \"s2\" }\n", ""),
        ("key = \"id\"\n", "columns = [\"id\", \"part\"]\n"),
        ("key = '\"Tenant\"'\n", "columns = ['\"Tenant\"', \"id\"]\n"),
        ("column = \"tenant_id\"\n", "columns = [\"tenant_id\", \"id\"]\n"),
    ] {
        assert!(text.contains(before), "{before}");
        text = text.replacen(before, after, 1);
    }
    compare_all(&Map::parse(&text, "rows").unwrap(), Keys::Row);
}

#[allow(clippy::print_stdout, reason = "a test's seed and counts")]
fn compare_all(map: &Map, keys: Keys) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    let count: usize =
        std::env::var("STATEMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(match keys {
            Keys::Column => 4000,
            Keys::Row => 2000,
        });
    println!("SEED={seed}");
    let cluster = cluster();
    run(async {
        let client = connect(&cluster.primary(1).url).await;
        client.batch_execute(&schema(map)).await.unwrap();
        let mut dice = generate::Dice::new(seed);
        let (mut routed, mut writes, mut refused, mut invalid) = (0, 0, 0, 0);
        let mut several = 0;
        for _ in 0..count {
            let statement = generate::statement(&mut dice, keys);
            let route = explain(map, statement.as_bytes(), None);
            let shard = match (&route.refusal, &*route.shards) {
                (None, [shard]) => shard.clone(),
                // No row matters: any shard will do.
                (None, []) => "s2".to_owned(),
                // A read of several shards; integration/scatter has those.
                (None, _) => {
                    several += 1;
                    continue;
                }
                (Some(refusal), _) => {
                    assert!(
                        !refusal.message.contains("could not be read"),
                        "{}: {statement}",
                        refusal.message
                    );
                    refused += 1;
                    continue;
                }
            };
            let writing = route.access == "write";
            match compare(&client, &statement, &shard, writing).await {
                Compared::Equal if writing => writes += 1,
                Compared::Equal => routed += 1,
                Compared::Invalid(error) => {
                    assert!(!error.contains("syntax error"), "{error}: {statement}");
                    invalid += 1;
                }
                Compared::Different { whole, part } => panic!(
                    "SEED={seed}: {statement}\ngoes to {shard}: {}\nwhole: {whole}\nshard: {part}",
                    route.reason
                ),
            }
        }
        println!(
            "{routed} reads, {writes} writes equal; {several} on several shards, {refused} refused, {invalid} invalid"
        );
        // A row is named by fewer of the conditions than a column.
        let part = if keys == Keys::Row { 12 } else { 6 };
        assert!(routed >= count / part, "only {routed} reads of {count} had one shard");
        assert!(writes >= count / 40, "only {writes} writes of {count} had one shard");
    });
}

enum Compared {
    Equal,
    /// The server refuses it.
    Invalid(String),
    Different {
        whole: String,
        part: String,
    },
}

/// Runs the statement on the whole and on one shard's rows.
async fn compare(client: &Client, statement: &str, shard: &str, writing: bool) -> Compared {
    let whole = match attempt(client, statement, "whole", writing).await {
        Ok(whole) => whole,
        Err(error) => return Compared::Invalid(error),
    };
    let part = attempt(client, statement, shard, writing).await;
    let part = part.unwrap_or_else(|error| error);
    if whole == part { Compared::Equal } else { Compared::Different { whole, part } }
}

/// The statement's rows in an order of their own and, of a write, all tables
/// afterwards.
async fn attempt(
    client: &Client,
    statement: &str,
    schema: &str,
    writing: bool,
) -> Result<String, String> {
    client
        .batch_execute(&format!("begin; set local search_path = {schema}, common"))
        .await
        .unwrap();
    let mut result = rows(client, statement).await;
    if writing && let Ok(shown) = &mut result {
        for table in TABLES {
            let sources: &[&str] = if schema == "whole" { &["whole"] } else { &["s1", "s2"] };
            let union: Vec<String> =
                sources.iter().map(|one| format!("select * from {one}.{table}")).collect();
            let left = rows(client, &union.join(" union all ")).await.unwrap();
            write!(shown, "\n{table}: {left}").unwrap();
        }
    }
    client.batch_execute("rollback").await.unwrap();
    result
}

async fn rows(client: &Client, statement: &str) -> Result<String, String> {
    let messages = client.simple_query(statement).await.map_err(|error| {
        error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
    })?;
    let mut shown: Vec<String> = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::Row(row) => {
                let cells: Vec<&str> =
                    (0..row.len()).map(|i| row.get(i).unwrap_or("null")).collect();
                shown.push(cells.join(","));
            }
            SimpleQueryMessage::CommandComplete(count) => shown.push(format!("~{count}")),
            _ => {}
        }
    }
    shown.sort();
    Ok(shown.join(" "))
}

/// A schema with all rows, one for each shard with its own, and one with what
/// every shard has.
fn schema(map: &Map) -> String {
    let mut sql = String::from("create schema common;");
    sql += "create table common.plans (id int, name text, tenant_id int);";
    sql += "insert into common.plans values (1, 'a', 42), (2, 'b', 43), (3, null, null);";
    for schema in ["whole", "s1", "s2"] {
        write!(sql, "create schema {schema};").unwrap();
        for table in TABLES {
            write!(
                sql,
                "create table {schema}.{table} (tenant_id int8 not null, id int, name text,
                 primary key (tenant_id, id));"
            )
            .unwrap();
        }
    }
    let keyspace = &map.keyspaces()[0];
    let mut dice = generate::Dice::new(7);
    for table in TABLES {
        for tenant in TENANTS {
            for id in 1..=4 {
                let key = match keyspace.is_composite() {
                    true => format!("({tenant},{id})"),
                    false => tenant.to_string(),
                };
                let mut scratch = Scratch::default();
                let owner = keyspace.owner(&keyspace.key_from_text(&key, &mut scratch).unwrap());
                let shard = &map.shard(owner).unwrap().name;
                if dice.one_in(3) {
                    continue;
                }
                let name = dice.pick(&["'a'", "'b'", "null"]);
                for schema in ["whole", shard] {
                    write!(sql, "insert into {schema}.{table} values ({tenant}, {id}, {name});")
                        .unwrap();
                }
            }
        }
    }
    sql
}

fn cluster() -> Cluster {
    Cluster::start(ClusterOptions { shards: 1, replicas: 0, ..Default::default() })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
