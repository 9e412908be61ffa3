//! A move gives way to what the servers have to bear.

use std::sync::Arc;
use std::time::Duration;

use keyway::control::mover::{Limits, run};
use keyway::local::Version;
use keyway::mover::{End, Phase, Subject, Wish};

use crate::support::psql::{Psql, psql};
use crate::whole::fill;
use crate::world::{SWITCHED, Watched, World};

/// Waits until the store shows that the move waits for `what`.
async fn waits_for(world: &World, id: u32, what: &str) {
    for _ in 0..1200 {
        if let Ok(stored) = world.try_stored(id).await
            && stored.progress.contains(what)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what:?}: {:?}", world.try_stored(id).await);
}

/// Sessions at work on the source.
struct Busy(Vec<std::thread::JoinHandle<Psql>>);

impl Busy {
    fn start(world: &World) -> Self {
        let one = |_| {
            let url = world.cluster.primary(1).url.clone();
            std::thread::spawn(move || psql(&url, "SELECT pg_sleep(300)"))
        };
        Self((0..4).map(one).collect())
    }

    fn end(self, world: &World) {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE query LIKE '%sleep(300)' AND pid <> pg_backend_pid()";
        world.cluster.superuser_sql(1, end);
        for thread in self.0 {
            assert!(matches!(thread.join().unwrap(), Psql::Failed(_)));
        }
    }
}

#[tokio::test]
async fn nothing_is_copied_or_purged_while_the_servers_bear_too_much_and_it_says_so() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant, 50);
    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let rows = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");

    let tight = |limits: Limits| {
        let mut given = world.runner(&routers);
        given.limits = limits;
        tokio::spawn(async move { run(id, &given).await.is_ok() })
    };
    let driver = tight(Limits { target_bytes: 1, ..Limits::default() });
    waits_for(&world, id, "moves.target_bytes_max: 1").await;
    assert_eq!(world.try_stored(id).await.unwrap().journal.phase, Phase::Copying);
    assert_eq!(world.cluster.sql(2, &rows), "0");
    driver.abort();

    let busy = Busy::start(&world);
    let driver = tight(Limits { active: 3, ..Limits::default() });
    waits_for(&world, id, "moves.active_max: 3").await;
    assert_eq!(world.cluster.sql(2, &rows), "0");
    busy.end(&world);
    world.until(id, SWITCHED).await;
    driver.abort();

    // The size of the target keeps nothing at its source.
    let busy = Busy::start(&world);
    let driver = tight(Limits { active: 3, target_bytes: 1, ..Limits::default() });
    world.wish(id, Wish::Finish).await;
    waits_for(&world, id, "moves.active_max: 3").await;
    assert_eq!(world.cluster.sql(1, &rows), "50");
    busy.end(&world);
    world.until(id, Phase::Ended(End::Moved)).await;
    assert!(driver.await.unwrap());
    world.nothing_left().await;
}

#[tokio::test]
async fn the_brake_holds_rows_of_a_stream_up_and_nobody_elses() {
    let world = World::start(Version::Newest);
    let routers = Arc::new(Watched::default());
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(2, 0));
    let id = world.submit(Subject::Tenant(tenant.to_string()), 2).await;
    let driver = world.drive(id, &routers);
    world.until_guarded(id).await;
    world.wish(id, Wish::Abort).await;
    world.until(id, Phase::Ended(End::Aborted)).await;
    driver.await.unwrap();
    world.nothing_left().await;

    // As the fences of a move stand, without its runner.
    let journal = world.try_stored(id).await.unwrap().journal;
    let mut target = world.node(2);
    let brake = keyway::control::mover::sql::make_brake(id);
    target.rows(&brake).await.unwrap();
    for table in &journal.tables {
        let trigger = keyway::control::mover::sql::make_brake_trigger(id, table);
        target.rows(&trigger).await.unwrap();
    }
    let stream = |sql: &str| {
        let url = &world.cluster.primary(2).superuser_url;
        let limit = "SET session_replication_role = replica; SET statement_timeout = '700ms'";
        psql(url, &format!("{limit}; {sql}"))
    };
    let insert = |tenant: i64| format!("INSERT INTO accounts VALUES ({tenant}, 'a')");
    let event = format!("INSERT INTO events (tenant_id, at) VALUES ({tenant}, '2010-01-01')");
    target.rows(&keyway::control::mover::sql::set_brake(id, true)).await.unwrap();
    for sql in [&insert(tenant), &event] {
        let held = stream(sql).expect_error();
        assert!(held.contains("57014"), "{sql}: {held}");
    }
    world.cluster.sql(2, &insert(other));
    target.rows(&keyway::control::mover::sql::set_brake(id, false)).await.unwrap();
    for sql in [&insert(tenant), &event] {
        stream(sql).expect();
    }
}
