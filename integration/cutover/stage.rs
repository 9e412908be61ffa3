//! Two servers, the engine before them, and clients.

use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyway::config::{ClientAuth, Settings};
use keyway::engine::snapshot::Totals;
use keyway::engine::{
    Access, BackendLogin, DatabaseOptions, Drained, EngineOptions, Handle, Lease, Marks, User,
    Users, start,
};
use keyway::shardmap::{Map, MoveId, Moves, Moving, Phase, Portion};
use keyway::types::{Epoch, Millis, Secret, ShardId};
use tokio_postgres::{Client, NoTls};

use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::psql::psql;

/// What a test works with; alone, since all tests share the servers.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) handle: Handle,
    map: Mutex<Arc<Map>>,
    logins: HashMap<ShardId, BackendLogin>,
    _alone: std::sync::MutexGuard<'static, ()>,
}

impl Stage {
    /// Runs a test.
    pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Self>) -> F) {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stage = Rc::new(Self::new(alone));
        let handle = stage.handle.clone();
        let local = tokio::task::LocalSet::new();
        let tried = std::panic::AssertUnwindSafe(|| {
            let work = async {
                let limit = tokio::time::timeout(LIMIT, local.run_until(test(stage)));
                limit.await.expect("the test ends in time");
            };
            runtime.block_on(work);
        });
        let done = std::panic::catch_unwind(tried);
        // What a failed test leaves open would be in the next one's way.
        runtime.block_on(handle.stop());
        handle.join();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    }

    fn new(alone: std::sync::MutexGuard<'static, ()>) -> Self {
        let options = ClusterOptions { replicas: 0, ..ClusterOptions::default() };
        static CLUSTER: std::sync::OnceLock<Cluster> = std::sync::OnceLock::new();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(options));
        let map = Map::parse(&map_text(cluster), "map.toml").unwrap();
        for shard in [1, 2] {
            cluster.superuser_sql(shard, "DROP SCHEMA IF EXISTS keyway CASCADE");
            cluster.sql(
                shard,
                "SET client_min_messages = warning; DROP TABLE IF EXISTS counters; \
                 CREATE TABLE counters (tenant_id bigint PRIMARY KEY, n bigint NOT NULL DEFAULT 0)",
            );
        }
        for tenant in TENANTS {
            let insert = format!("INSERT INTO counters (tenant_id) VALUES ({tenant})");
            cluster.sql(owner_of(&map, tenant), &insert);
        }
        let view = cluster.view();
        let login = BackendLogin {
            user: Some(view.user.clone()),
            password: Some(Secret::new(view.password.clone())),
            ..BackendLogin::default()
        };
        let logins: HashMap<ShardId, BackendLogin> =
            map.shards().iter().map(|shard| (shard.id, login.clone())).collect();
        let map = Arc::new(map);
        let database = DatabaseOptions {
            name: view.database.clone(),
            map: Arc::clone(&map),
            logins: logins.clone(),
            lease: Arc::new(Lease::unneeded()),
            marks: Marks::new(),
        };
        let user = User { trust: true, ..User::default() };
        let mut settings = Settings::default();
        settings.moves.hold_max = Millis::new(3_000);
        let access = Access {
            users: Arc::new(Users { by_name: HashMap::from([(view.user.clone(), user)]) }),
            ..Access::default()
        };
        let handle = start(EngineOptions {
            threads: 2,
            inherited: keyway::engine::Inherited::default(),
            proxies: Vec::new(),
            predecessors: None,
            access: Arc::new(access),
            lookups: None,
            refused_logins: None,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            unix_socket_dir: None,
            tls_required: false,
            client_auth: ClientAuth::default(),
            settings: Arc::new(settings),
            databases: vec![database],
            console_database: "keyway".to_owned(),
            console: None,
            schema_changes: None,
            seed: [7; 32],
        })
        .unwrap();
        Self { cluster, handle, map: Mutex::new(map), logins, _alone: alone }
    }

    // === the control plane's part ===

    /// A move of a tenant away from the shard that has it.
    pub(crate) fn moving(&self, id: u32, tenant: i64, phase: Phase) -> Moving {
        let source = owner_of(&self.map(), tenant);
        self.moving_from(id, tenant, source, phase)
    }

    /// The same of a tenant that shard `source` had.
    pub(crate) fn moving_from(&self, id: u32, tenant: i64, source: u16, phase: Phase) -> Moving {
        Moving {
            id: MoveId::new(id),
            keyspace: "tenants".to_owned(),
            portion: Portion::Tenant(tenant.to_string()),
            source: ShardId::new(source),
            target: ShardId::new(3 - source),
            phase,
        }
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.lock().unwrap())
    }

    pub(crate) async fn set(&self, moves: &[Moving]) {
        let moves = Moves::new(moves.to_vec()).unwrap();
        self.handle.set_moves(self.map().database(), moves).await.unwrap();
    }

    pub(crate) async fn drained(&self, id: u32, limit: Duration) -> Drained {
        self.handle.drained(self.map().database(), MoveId::new(id), limit).await.unwrap()
    }

    /// The next epoch, by which shard `shard` owns the tenant.
    pub(crate) async fn give(&self, tenant: i64, shard: u16) {
        let before = self.map();
        let text = map_text(self.cluster);
        let pin = format!("pins = {{ \"{tenant}\" = \"shard{shard}\" }}\n[[table]]");
        let text = text.replacen("[[table]]", &pin, 1);
        let epoch = Epoch::new(before.epoch().number() + 1);
        let map = Arc::new(Map::parse(&text, "map.toml").unwrap().with_epoch(epoch));
        *self.map.lock().unwrap() = Arc::clone(&map);
        self.handle.publish_map(before.database(), map, self.logins.clone()).await.unwrap();
    }

    pub(crate) async fn totals(&self) -> Totals {
        self.handle.snapshot().await.unwrap().totals
    }

    // === clients ===

    pub(crate) fn user(&self) -> String {
        self.cluster.view().user.clone()
    }

    pub(crate) async fn client(&self) -> Client {
        let port = self.handle.local_addrs()[0].port();
        let (user, database) = (self.user(), self.cluster.view().database.clone());
        let url = format!("host=127.0.0.1 port={port} user={user} dbname={database}");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) fn bump(&self, tenant: i64) -> String {
        format!("UPDATE counters SET n = n + 1 WHERE tenant_id = {tenant}")
    }

    /// A tenant that shard `shard` owns, and that never moves.
    pub(crate) fn tenant_on(&self, shard: u16) -> i64 {
        TENANTS.filter(|t| *t != 42).find(|t| owner_of(&self.map(), *t) == shard).unwrap()
    }

    // === the servers ===

    /// The tenant's count on a shard, if it is there.
    pub(crate) async fn count(&self, shard: u16, tenant: i64) -> Option<i64> {
        let sql = format!("SELECT n FROM counters WHERE tenant_id = {tenant}");
        let cluster = self.cluster;
        let work = move || psql(&cluster.primary(shard).url, &sql).expect();
        tokio::task::spawn_blocking(work).await.unwrap().parse().ok()
    }

    /// Runs SQL in one transaction as the superuser, beside the clients.
    pub(crate) async fn superuser(&self, shard: u16, sql: &str) -> String {
        let (cluster, sql) = (self.cluster, sql.to_owned());
        let work = move || cluster.superuser_sql(shard, &sql);
        tokio::task::spawn_blocking(work).await.unwrap()
    }
}

/// The SQLSTATE of an error.
pub(crate) fn state_of(error: &tokio_postgres::Error) -> String {
    error.code().map_or_else(|| format!("{error:?}"), |state| state.code().to_owned())
}

/// The number of the shard that a map gives the tenant to.
pub(crate) fn owner_of(map: &Map, tenant: i64) -> u16 {
    map.keyspaces()[0].owner(&keyway::shardmap::Key::Int(tenant)).number()
}

fn map_text(cluster: &Cluster) -> String {
    let view = cluster.view();
    let shard = |number: u16| {
        format!(
            "[[shard]]\nnumber = {number}\nname = \"shard{number}\"\ndbname = {:?}\nuser = {:?}\n\
             password_env = \"UNUSED\"\ntls = \"disable\"\n\
             primary = {{ host = \"127.0.0.1\", port = {} }}\n",
            view.database,
            view.user,
            cluster.primary(number).port
        )
    };
    format!(
        "epoch = 1\ndatabase = {:?}\nhome = \"shard1\"\n{}{}\
         [[keyspace]]\nname = \"tenants\"\ntype = \"int8\"\nslots = 4096\n\
         ranges = {{ shard1 = [\"0-2047\"], shard2 = [\"2048-4095\"] }}\n\
         [[table]]\nname = \"public.counters\"\nkeyspace = \"tenants\"\nkey = \"tenant_id\"\n",
        view.database,
        shard(1),
        shard(2)
    )
}

/// Longest that a test may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The tenants that have a counter.
pub(crate) const TENANTS: std::ops::RangeInclusive<i64> = 1..=60;
