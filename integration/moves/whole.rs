//! Whole moves under load, from the first step to the last.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use keyway::local::Version;
use keyway::mover::{End, Phase, Subject, Wish};

use crate::world::{SWITCHED, UNSETTLED, Watched, World};
use crate::writers::Writers;

/// Fills a tenant on a shard.
pub(crate) fn fill(world: &World, shard: u16, tenant: i64, rows: u32) {
    world.cluster.sql(shard, &filling(tenant, rows));
}

/// What fills a tenant, in one transaction.
pub(crate) fn filling(tenant: i64, rows: u32) -> String {
    format!(
        "INSERT INTO accounts VALUES ({tenant}, 'a'); \
         INSERT INTO ledger (tenant_id, writer, seq, note) \
         SELECT {tenant}, 1000, g, repeat('x', g % 50) FROM generate_series(1, {rows}) g; \
         INSERT INTO counters VALUES ({tenant}, 1000, 1, 1.50, repeat('long ', 20000), '{{\"a\": 1}}'); \
         INSERT INTO events (tenant_id, at, what) SELECT {tenant}, \
         '2019-12-01'::date + g % 60, 'x' FROM generate_series(1, {rows}) g"
    )
}

/// Fails if a tenant has rows on a shard, or none.
fn rows_are(world: &World, shard: u16, tenant: i64, there: bool) {
    for table in ["accounts", "ledger", "counters", "events"] {
        let count = format!("SELECT count(*) > 0 FROM {table} WHERE tenant_id = {tenant}");
        let expected = if there { "t" } else { "f" };
        assert_eq!(world.cluster.sql(shard, &count), expected, "{table} on shard {shard}");
    }
}

/// A tenant moves, goes back, moves again and stays; another one's writers
/// notice nothing.
async fn back_and_forth(version: Version) {
    let world = World::start(version);
    let routers = Arc::new(Watched::default());
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(1, 1));
    fill(&world, 1, tenant, 2000);
    fill(&world, 1, other, 100);
    let writers = Writers::start(&world.cluster, tenant, 6);
    let others = Writers::start(&world.cluster, other, 2);

    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let driver = world.drive(id, &routers);
    world.swing(id, 2).await;
    world.wish(id, Wish::Finish).await;
    world.until(id, Phase::Ended(End::Moved)).await;
    driver.await.unwrap();

    let written = writers.check(&world.cluster, 2).await;
    assert!(written > 100, "the writers have written: {written}");
    others.check(&world.cluster, 1).await;
    rows_are(&world, 1, tenant, false);
    rows_are(&world, 2, tenant, true);
    rows_are(&world, 1, other, true);
    world.nothing_left().await;
}

#[tokio::test]
async fn tenant_moves_under_load_goes_back_and_moves_again() {
    back_and_forth(Version::Newest).await;
}

#[tokio::test]
async fn tenant_moves_under_load_goes_back_and_moves_again_on_15() {
    back_and_forth(Version::Major(15)).await;
}

#[tokio::test]
async fn slots_move_without_their_pinned_tenants_and_an_abort_leaves_nothing() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(2, 0));
    fill(&world, 1, tenant, 500);
    fill(&world, 2, other, 100);
    let writers = Writers::start(&world.cluster, tenant, 3);
    let id = world.submit(Subject::Slots { first: 0, last: 2047 }, 2).await;
    let driver = world.drive(id, &routers);
    world.until_guarded(id).await;
    world.wish(id, Wish::Abort).await;
    world.until(id, Phase::Ended(End::Aborted)).await;
    driver.await.unwrap();
    world.nothing_left().await;
    rows_are(&world, 2, tenant, false);

    let id = world.submit(Subject::Slots { first: 0, last: 2047 }, 2).await;
    let driver = world.drive(id, &routers);
    world.swing(id, 1).await;
    world.wish(id, Wish::Finish).await;
    world.until(id, Phase::Ended(End::Moved)).await;
    driver.await.unwrap();
    writers.check(&world.cluster, 2).await;
    rows_are(&world, 1, tenant, false);
    rows_are(&world, 2, other, true);
    world.nothing_left().await;
}

#[tokio::test]
async fn nothing_is_copied_or_purged_before_the_routers_have_settled() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant, 50);
    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let unsettled = async |phase| {
        routers.unsettled.store(true, Ordering::Relaxed);
        if phase != Phase::Copying {
            world.wish(id, Wish::Finish).await;
        }
        world.until(id, phase).await;
        while world.try_stored(id).await.unwrap().progress != UNSETTLED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    routers.unsettled.store(true, Ordering::Relaxed);
    let driver = world.drive(id, &routers);
    unsettled(Phase::Copying).await;
    rows_are(&world, 2, tenant, false);
    assert_eq!(world.cluster.superuser_sql(2, "SELECT count(*) FROM pg_subscription"), "0");
    routers.unsettled.store(false, Ordering::Relaxed);
    world.until(id, SWITCHED).await;

    unsettled(Phase::Purging(End::Moved)).await;
    rows_are(&world, 1, tenant, true);
    routers.unsettled.store(false, Ordering::Relaxed);
    world.until(id, Phase::Ended(End::Moved)).await;
    driver.await.unwrap();
    rows_are(&world, 1, tenant, false);
    rows_are(&world, 2, tenant, true);
    world.nothing_left().await;
}
