//! The same rows in one plain database and, through the router, on three shards.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use keyway::local::Version;
use tokio_postgres::{Client, NoTls};

use super::support::cluster::{Cluster, ClusterOptions};
use super::support::router::{Router, RouterOptions};

/// Both ways to the rows.
pub(crate) struct Both {
    cluster: Cluster,
    router: Router,
    plain_url: String,
}

/// A connection to each.
pub(crate) struct Clients {
    pub(crate) plain: Client,
    pub(crate) router: Client,
}

impl Both {
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Both> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One that no other test sees.
    pub(crate) fn apart() -> Self {
        Self::start()
    }

    fn start() -> Self {
        let options = ClusterOptions { shards: 3, replicas: 0, version: Version::Newest };
        let cluster = Cluster::start(options);
        cluster.superuser_sql(1, "CREATE DATABASE plain OWNER app");
        let url = &cluster.primary(1).url;
        let plain_url = match url.rsplit_once("/app") {
            Some((before, after)) => format!("{before}/plain{after}"),
            None => panic!("no database in {url}"),
        };
        let router = Self::router_before(&cluster);
        let both = Self { cluster, router, plain_url };
        both.run(both.fill());
        both
    }

    fn router_before(cluster: &Cluster) -> Router {
        let tables = RouterOptions::sharded(cluster).with_map(|map| {
            let start = map.find("[[key_rule]]").unwrap();
            format!("{}{MAP_TABLES}", &map[..start])
        });
        // Fewer backends than clients.
        Router::start(
            cluster,
            &tables.with_config(
                "[pool]\nsize_max = 4\n[merge]\narray_rows = 15000\ncursor_bytes = \"16MiB\"",
            ),
        )
    }

    /// Another router before the same shards, whose connections no other test
    /// takes.
    pub(crate) fn own_router(&self) -> Router {
        Self::router_before(&self.cluster)
    }

    /// Runs one test's statements; nothing here takes as long as this.
    pub(crate) fn run(&self, test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(400), test).await.expect("it ends in time");
        });
    }

    pub(crate) fn superuser_sql(&self, shard: u16, sql: &str) -> String {
        self.cluster.superuser_sql(shard, sql)
    }

    /// Each shard's connection string, and its first and last slot.
    pub(crate) fn shards(&self) -> Vec<(String, (u32, u32))> {
        let shards = &self.cluster.view().shards;
        shards.iter().map(|shard| (shard.primary.url.clone(), shard.slots)).collect()
    }

    pub(crate) fn plain_url(&self) -> String {
        self.plain_url.clone()
    }

    pub(crate) fn router_url(&self) -> String {
        self.router.url()
    }

    pub(crate) async fn clients(&self) -> Clients {
        Clients { plain: connect(&self.plain_url).await, router: connect(&self.router.url()).await }
    }

    async fn fill(&self) {
        let clients = self.clients().await;
        clients.plain.batch_execute(SCHEMA).await.unwrap();
        for shard in &self.cluster.view().shards {
            connect(&shard.primary.url).await.batch_execute(SCHEMA).await.unwrap();
        }
        let mut statements = Vec::new();
        for tenant in 1..=40 {
            statements.push(format!(
                "INSERT INTO accounts (tenant_id, name, region) VALUES ({tenant}, {}, {})",
                word(tenant),
                region(tenant)
            ));
            for id in 1..=(tenant * 7 % 12) {
                statements.push(event(tenant, id));
            }
            for id in 1..=(tenant * 5 % 7) {
                statements.push(format!(
                    "INSERT INTO items (tenant_id, id, event_id, price) VALUES ({tenant}, {id}, {}, {})",
                    id * 2 % 9,
                    if id % 4 == 0 { "NULL".to_owned() } else { format!("{}.{}0", id * tenant % 50, id) }
                ));
            }
        }
        for tenant in 1..=40_usize {
            let mood = ["sad", "ok", "happy"][tenant % 3];
            statements
                .push(format!("INSERT INTO moods (tenant_id, m) VALUES ({tenant}, '{mood}')"));
        }
        for statement in &statements {
            clients.plain.batch_execute(statement).await.unwrap();
            clients.router.batch_execute(statement).await.unwrap();
        }
        // The router has noticed the tables of every shard.
        for _ in 0..300 {
            let asks = ["SELECT count(*) FROM events, moods", "SELECT name FROM accounts, regions"];
            let first = clients.router.simple_query(asks[0]).await.is_ok();
            if first && clients.router.simple_query(asks[1]).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("{} rows went in", statements.len());
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// A row with NULLs, ties, special values and every type that can be merged.
fn event(tenant: i64, id: i64) -> String {
    let mix = tenant * 31 + id * 17;
    let pick = |choices: &[&str], salt: i64| {
        choices[usize::try_from((mix + salt).rem_euclid(i64::try_from(choices.len()).unwrap()))
            .unwrap()]
        .to_owned()
    };
    let n = pick(&["NULL", "-5", "0", "3", "3", "17", "-2147483647", "2147483647"], 0);
    let big = pick(&["NULL", "-1", "0", "9223372036854775807", "-9223372036854775808", "42"], 1);
    let num = pick(
        &[
            "NULL",
            "0",
            "0.00",
            "1.5",
            "1.50",
            "-1.5",
            "'NaN'",
            "1e20",
            "-0.0001",
            "'Infinity'",
            "'-Infinity'",
        ],
        2,
    );
    let f8 =
        pick(&["NULL", "'NaN'", "0", "'-0'", "1e-300", "-2.5", "'Infinity'", "'-Infinity'"], 3);
    let f4 = pick(&["NULL", "'NaN'", "0.1", "-0.1", "3.25"], 4);
    let b = pick(&["NULL", "true", "false"], 5);
    let d = pick(
        &["NULL", "'2024-02-29'", "'1999-12-31'", "'infinity'", "'-infinity'", "'0044-03-15 BC'"],
        6,
    );
    let ts = pick(
        &[
            "NULL",
            "'2024-01-01 00:00:00.000001'",
            "'2024-01-01'",
            "'infinity'",
            "'1990-05-05 12:00'",
        ],
        7,
    );
    let tz = pick(
        &["NULL", "'2024-01-01 00:00+02'", "'2023-12-31 22:00+00'", "'2025-06-01 10:00+05:30'"],
        8,
    );
    let iv =
        pick(&["NULL", "'1 month'", "'30 days'", "'-1 day'", "'720 hours'", "'2 years 3 mons'"], 9);
    let u = pick(
        &[
            "NULL",
            "'00000000-0000-0000-0000-000000000001'",
            "'ffffffff-0000-0000-0000-000000000000'",
            "'7fffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
        10,
    );
    let by = pick(&["NULL", "'\\x00'", "'\\x0000'", "'\\x'", "'\\xff'", "'\\x00ff'"], 11);
    let t = pick(&["NULL", "''", "'a'", "'A'", "'ä'", "'ab'", "'a b'", "'Z'", "'a-b'"], 12);
    format!(
        "INSERT INTO events (tenant_id, id, n, big, num, f8, f4, b, d, ts, tz, iv, u, by, t, c) VALUES \
         ({tenant}, {id}, {n}, {big}, {num}, {f8}, {f4}, {b}, {d}, {ts}, {tz}, {iv}, {u}, {by}, {t}, {t})"
    )
}

fn word(tenant: i64) -> String {
    let words = ["anna", "Berta", "cäsar", "dora", "Emil", "anna"];
    format!("'{}'", words[usize::try_from(tenant % 6).unwrap()])
}

fn region(tenant: i64) -> &'static str {
    ["'eu'", "'us'", "NULL"][usize::try_from(tenant % 3).unwrap()]
}

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE regions (code text PRIMARY KEY, title text NOT NULL);
INSERT INTO regions VALUES ('eu', 'Europe'), ('us', 'States'), ('as', 'Asia');
CREATE TABLE accounts (tenant_id bigint PRIMARY KEY, name text NOT NULL, region text);
CREATE TABLE events (
    tenant_id bigint NOT NULL, id bigint NOT NULL,
    n int, big bigint, num numeric, f8 float8, f4 float4, b boolean, d date, ts timestamp,
    tz timestamptz, iv interval, u uuid, by bytea, t text, c text COLLATE \"C\",
    j jsonb DEFAULT '{\"a\": [1, 2]}', arr int[] DEFAULT '{3,1,2}',
    PRIMARY KEY (tenant_id, id));
CREATE TABLE moods (tenant_id bigint PRIMARY KEY, m mood);
CREATE TABLE items (
    tenant_id bigint NOT NULL, id bigint NOT NULL, event_id bigint, price numeric(8, 2),
    PRIMARY KEY (tenant_id, id));
";

const MAP_TABLES: &str = r#"[[key_rule]]
keyspace = "tenants"
column = "tenant_id"
tables = ["public.accounts", "public.events", "public.items", "public.moods"]

[[key_rule]]
keyspace = "tenants"
column = "o_orderkey"
tables = ["public.orders"]

[[key_rule]]
keyspace = "tenants"
column = "l_orderkey"
tables = ["public.lineitem"]

[reference]
tables = [
  "public.regions", "public.region", "public.nation", "public.supplier", "public.part",
  "public.partsupp", "public.customer",
]
"#;
