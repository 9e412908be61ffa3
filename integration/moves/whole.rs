//! Whole moves under load, from the first step to the last.

use std::sync::Arc;

use keyway::local::Version;
use keyway::mover::{End, Phase, Side, Subject, Wish};

use crate::world::{SWITCHED, Watched, World};
use crate::writers::Writers;

/// Fills a tenant on a shard.
pub(crate) fn fill(world: &World, shard: u16, tenant: i64, rows: u32) {
    world.cluster.sql(
        shard,
        &format!(
            "INSERT INTO accounts VALUES ({tenant}, 'a'); \
             INSERT INTO ledger (tenant_id, writer, seq, note) \
             SELECT {tenant}, 1000, g, repeat('x', g % 50) FROM generate_series(1, {rows}) g; \
             INSERT INTO counters VALUES ({tenant}, 1000, 1, 1.50, repeat('long ', 20000), '{{\"a\": 1}}'); \
             INSERT INTO events (tenant_id, at, what) SELECT {tenant}, \
             '2019-12-01'::date + g % 60, 'x' FROM generate_series(1, {rows}) g"
        ),
    );
}

#[tokio::test]
async fn tenant_moves_under_load_goes_back_and_moves_again() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(1, 1));
    fill(&world, 1, tenant, 2000);
    fill(&world, 1, other, 100);
    let writers = Writers::start(&world.cluster, tenant, 6);
    let others = Writers::start(&world.cluster, other, 2);

    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let driver = world.drive(id, &routers);
    world.until(id, SWITCHED).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    world.wish(id, Wish::Reverse).await;
    world.until(id, Phase::Standing(Side::Source)).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    world.wish(id, Wish::Run).await;
    world.until(id, SWITCHED).await;
    world.wish(id, Wish::Finish).await;
    world.until(id, Phase::Ended(End::Moved)).await;
    driver.await.unwrap();

    let written = writers.check(&world.cluster, 2).await;
    assert!(written > 100, "the writers have written: {written}");
    others.check(&world.cluster, 1).await;
    for table in ["accounts", "ledger", "counters", "events"] {
        let count = format!("SELECT count(*) FROM {table} WHERE tenant_id = {tenant}");
        assert_eq!(world.cluster.sql(1, &count), "0", "{table} on the old owner");
        assert_ne!(world.cluster.sql(2, &count), "0", "{table} on the new owner");
    }
    world.nothing_left().await;
}
