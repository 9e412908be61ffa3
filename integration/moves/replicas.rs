//! Reads of replicas that have not replayed a move: whatever staleness they are
//! allowed, they never say that a tenant has no rows, nor count rows twice.

use keyway::local::Version;
use tokio_postgres::{Client, NoTls};

use crate::routed::{Routed, runtime};
use crate::support::psql::psql;
use crate::support::wait_for;
use crate::whole::fill;
use crate::world::World;

const ROWS: u32 = 60;
const LEVELS: [&str; 5] = ["any", "bounded(600000)", "session", "slot", "primary"];

/// What a session at one level sees of the first tenant, and of all together.
struct Sees {
    level: &'static str,
    client: Client,
}

impl Sees {
    async fn open(url: &str, level: &'static str) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        client.batch_execute(&format!("SET keyway.consistency = '{level}'")).await.unwrap();
        Self { level, client }
    }

    async fn tenant(&self, tenant: i64) -> i64 {
        let sql = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn all(&self) -> i64 {
        self.client.query_one("SELECT count(*) FROM ledger", &[]).await.unwrap().get(0)
    }

    /// Nothing is missing, and nothing is there twice.
    async fn check(&self, tenant: i64, when: &str) {
        let rows = i64::from(ROWS);
        assert_eq!(self.tenant(tenant).await, rows, "level {} {when}", self.level);
        assert_eq!(self.all().await, rows * 2, "level {} {when}, of all", self.level);
    }
}

/// Whether a read of the tenant at level `any` would go to a replica now.
fn served_by_replica(url: &str, tenant: i64) -> bool {
    let sql = format!("EXPLAIN ROUTE SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
    let said = psql(url, &sql).expect();
    let node = said.lines().find_map(|line| line.strip_prefix("node|"));
    node.is_some_and(|node| !node.starts_with("primary"))
}

fn on_replica(world: &World, shard: u16, sql: &str) -> String {
    psql(&world.cluster.replica(shard, 1).superuser_url, sql).expect()
}

#[test]
fn replicas_that_have_not_replayed_a_move_show_nothing_of_it_at_any_level() {
    let world = World::start_with(Version::Newest, 1, &[]);
    // Monitor and mover both have tables of their own there.
    world.cluster.sql_everywhere("CREATE SCHEMA keyway; GRANT USAGE ON SCHEMA keyway TO PUBLIC");
    let routed = Routed::before(world, "");
    let world = &routed.world;
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(2, 0));
    fill(world, 1, tenant, ROWS);
    fill(world, 2, other, ROWS);
    world.cluster.wait_replicated();
    let url = routed.router.url();
    let runtime = runtime();
    let sees: Vec<Sees> =
        LEVELS.map(|level| runtime.block_on(Sees::open(&url, level))).into_iter().collect();
    for tenant in [tenant, other] {
        wait_for("reads of a replica", || served_by_replica(&url, tenant));
    }
    // A session that has seen a replica stays with it.
    for tenant in [tenant, other] {
        assert_eq!(runtime.block_on(sees[2].tenant(tenant)), i64::from(ROWS));
    }

    on_replica(world, 2, "SELECT pg_wal_replay_pause()");
    routed.console(&format!("MOVE TENANT {tenant} TO shard2")).expect();
    routed.wait_state("switched");
    for one in &sees {
        runtime.block_on(one.check(tenant, "after the switch"));
    }
    let there = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
    assert_eq!(on_replica(world, 2, &there), "0", "the replica has replayed the move");
    on_replica(world, 2, "SELECT pg_wal_replay_resume()");
    wait_for("reads of the new owner's replica", || served_by_replica(&url, tenant));
    assert_eq!(on_replica(world, 2, &there), ROWS.to_string());
    for one in &sees {
        runtime.block_on(one.check(tenant, "once it is replayed"));
    }

    // The source's replica keeps the rows when they are deleted.
    on_replica(world, 1, "SELECT pg_wal_replay_pause()");
    routed.console("FINISH MOVE 1").expect();
    routed.wait_state("done");
    for one in &sees {
        runtime.block_on(one.check(tenant, "after the purge"));
    }
    assert_eq!(
        on_replica(world, 1, &there),
        ROWS.to_string(),
        "the replica has replayed the purge"
    );
    on_replica(world, 1, "SELECT pg_wal_replay_resume()");
    runtime.block_on(world.nothing_left());
}
