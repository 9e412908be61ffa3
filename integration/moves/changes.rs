//! What changes under a move: its tables, its replication slots, the servers.

use std::sync::Arc;
use std::time::Duration;

use keyway::local::{Installation, NodeName, Stop, Version};
use keyway::mover::{End, Phase, Side, Subject, Wish};

use crate::support::psql::psql;
use crate::support::wait_for;
use crate::whole::fill;
use crate::world::{SWITCHED, Watched, World};

const READY: Phase = Phase::Standing(Side::Source);

/// Waits until the move has stopped, and says why.
async fn stopped(world: &World, id: u32) -> String {
    for _ in 0..1200 {
        if let Ok(stored) = world.try_stored(id).await
            && let Some(why) = stored.journal.stopped
        {
            return why;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for a stop: {:?}", world.try_stored(id).await);
}

/// A move that has been there and back, so that nothing happens until it is
/// told to go on.
async fn there_and_back(world: &World, id: u32) {
    world.until(id, SWITCHED).await;
    world.wish(id, Wish::Reverse).await;
    world.until(id, READY).await;
}

#[tokio::test]
async fn a_table_that_changes_in_mid_move_stops_it_until_that_is_undone() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant, 50);
    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let driver = world.drive(id, &routers);
    there_and_back(&world, id).await;

    for (shard, wish, change, undo) in [
        (1, Wish::Run, "ALTER TABLE ledger ADD extra int", "ALTER TABLE ledger DROP extra"),
        (
            2,
            Wish::Run,
            "CREATE TABLE events_far PARTITION OF events FOR VALUES FROM ('2040-01-01') TO ('2050-01-01')",
            "DROP TABLE events_far",
        ),
        (
            1,
            Wish::Run,
            "ALTER TABLE counters DISABLE TRIGGER USER",
            "ALTER TABLE counters ENABLE TRIGGER USER",
        ),
    ] {
        world.cluster.sql(shard, change);
        world.wish(id, wish).await;
        let table =
            change.split_whitespace().find(|word| ["ledger", "events", "counters"].contains(word));
        let quoted = format!("\"{}\"", table.unwrap());
        // What it stopped for before is told until it has looked again.
        let mut why = stopped(&world, id).await;
        for _ in 0..1200 {
            if why.contains(&quoted) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            why = stopped(&world, id).await;
        }
        assert!(why.contains(&quoted), "{change}: {why}");
        assert!(why.contains("have changed since the move began"), "{why}");
        assert_eq!(*routers.held.lock().unwrap(), 2, "nobody waited for it");
        world.cluster.sql(shard, undo);
    }
    // An index is the application's own affair.
    world.cluster.sql(1, "CREATE INDEX ON ledger (note)");
    world.wish(id, Wish::Run).await;
    world.until(id, SWITCHED).await;

    let off = format!("ALTER TABLE ledger DISABLE TRIGGER \"~keyway_{id}_u\"");
    world.cluster.sql(2, &off);
    world.wish(id, Wish::Reverse).await;
    let why = stopped(&world, id).await;
    assert!(why.contains("ledger"), "{why}");
    world.wish(id, Wish::Finish).await;
    world.until(id, Phase::Ended(End::Moved)).await;
    driver.await.unwrap();
    world.nothing_left().await;
}

/// A stream whose log is gone can't be gone on with; the move says so and can
/// be given up.
async fn lost(version: Version) {
    let world = World::start(version);
    let routers = Arc::new(Watched::default());
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant, 50);
    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let driver = world.drive(id, &routers);
    there_and_back(&world, id).await;
    let name = world.cluster.superuser_sql(2, "SELECT subname FROM pg_subscription");
    world.cluster.superuser_sql(2, &format!("ALTER SUBSCRIPTION {name} DISABLE"));
    world.cluster.superuser_sql(1, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
    world.cluster.superuser_sql(1, "SELECT pg_reload_conf()");
    let state = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{name}'");
    wait_for("the replication slot to be lost", || {
        let more =
            format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, 2000, 1)");
        world.cluster.sql(1, &more);
        world.cluster.superuser_sql(1, "SELECT pg_switch_wal()");
        world.cluster.superuser_sql(1, "CHECKPOINT");
        world.cluster.superuser_sql(1, &state) == "lost"
    });
    world.wish(id, Wish::Run).await;
    let why = stopped(&world, id).await;
    assert!(why.contains("max_slot_wal_keep_size"), "{why}");
    world.wish(id, Wish::Abort).await;
    world.until(id, Phase::Ended(End::Aborted)).await;
    driver.await.unwrap();
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
    assert_eq!(world.cluster.sql(2, &count), "0");
    world.nothing_left().await;
}

#[tokio::test]
async fn a_lost_replication_slot_stops_the_move_with_the_reason() {
    lost(Version::Newest).await;
}

#[tokio::test]
async fn a_lost_replication_slot_stops_the_move_with_the_reason_on_15() {
    lost(Version::Major(15)).await;
}

/// Waits until the replica has the move's replication slot. The worker that keeps
/// slots in step sleeps for up to 30 s.
async fn slot_is_kept(on_replica: &impl Fn(&str) -> String) {
    let sql = "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'kw%' \
               AND synced AND NOT temporary AND invalidation_reason IS NULL";
    for _ in 0..480 {
        if on_replica(sql) == "1" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("the replica does not keep the replication slot");
}

/// The source fails over while a move is under way. Where replicas keep its
/// replication slots, it goes on from the new primary, and compares again; else
/// it stops, and can be given up.
async fn failover(version: Version) {
    let major = Installation::find(version, None).unwrap().major();
    let keeps = major >= 17;
    let settings: &[(&str, &str)] = if keeps {
        &[("sync_replication_slots", "on"), ("hot_standby_feedback", "on")]
    } else {
        &[]
    };
    let world = World::start_with(version, 1, settings);
    let routers = Arc::new(Watched::default());
    let tenant = world.tenant_on(2, 0);
    fill(&world, 2, tenant, 50);
    let replica = NodeName { shard: 2, replica: 1 };
    let on_replica = |sql: &str| world.cluster.servers().superuser_sql(replica, sql).unwrap();
    if keeps {
        let primary = world.cluster.primary(2);
        let slot = world.cluster.superuser_sql(2, "SELECT slot_name FROM pg_replication_slots");
        let waits = format!("ALTER SYSTEM SET synchronized_standby_slots = '{slot}'");
        world.cluster.superuser_sql(2, &waits);
        world.cluster.superuser_sql(2, "SELECT pg_reload_conf()");
        let follows = primary.superuser_url.replace('\'', "''");
        on_replica(&format!("ALTER SYSTEM SET primary_conninfo = '{follows}'"));
        on_replica("SELECT pg_reload_conf()");
    }
    let id = world.submit(Subject::Tenant(tenant.to_string()), 1).await;
    let driver = world.drive(id, &routers);
    there_and_back(&world, id).await;
    let more = |writer: i32| {
        format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, 1)")
    };
    world.cluster.sql(2, &more(2000));
    if keeps {
        slot_is_kept(&on_replica).await;
    }
    let written = world.cluster.superuser_sql(2, "SELECT pg_current_wal_insert_lsn()");
    wait_for("the replica to catch up", || {
        on_replica(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t"
    });
    world.cluster.servers().stop_node(NodeName { shard: 2, replica: 0 }, Stop::Kill).unwrap();
    on_replica("SELECT pg_promote()");
    world.follow_promotion(2);
    psql(&world.cluster.replica(2, 1).url, &more(2001)).expect();

    world.wish(id, Wish::Run).await;
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
    if keeps {
        world.until(id, SWITCHED).await;
        assert_eq!(world.cluster.sql(1, &count), "52");
        world.wish(id, Wish::Finish).await;
        world.until(id, Phase::Ended(End::Moved)).await;
        assert_eq!(on_replica(&count), "0");
    } else {
        let why = stopped(&world, id).await;
        assert!(why.contains("the new one has no replication slot of the move"), "{why}");
        world.wish(id, Wish::Abort).await;
        world.until(id, Phase::Ended(End::Aborted)).await;
        assert_eq!(world.cluster.sql(1, &count), "0");
        assert_eq!(on_replica(&count), "52");
    }
    driver.await.unwrap();
    world.nothing_left().await;
}

#[tokio::test]
async fn a_move_goes_on_after_its_source_has_failed_over_if_the_replica_keeps_its_slots() {
    failover(Version::Newest).await;
}

#[tokio::test]
async fn a_move_stops_when_its_source_has_failed_over_without_its_slots_and_can_be_given_up() {
    failover(Version::Major(15)).await;
}
