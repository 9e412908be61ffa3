//! Two routers and one move; then one of them is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::stage::{
    LEASES, console, epochs, fill, router, rows, runtime, wait_state, world, writer,
};
use crate::support::psql::psql;
use crate::support::wait_for;

#[test]
fn both_routers_go_by_the_new_map_and_one_that_was_killed_begins_with_it() {
    let world = world();
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant);
    let (one, mut other) = (router(&world, LEASES), router(&world, LEASES));
    let before = epochs(&one, 2);
    assert!(before.iter().all(|(_, epoch)| epoch == "1"), "{before:?}");
    let stop = Arc::new(AtomicBool::new(false));
    let writers = [(&one, 1), (&one, 2), (&other, 3), (&other, 4)]
        .map(|(router, number)| writer(router.url(), tenant, number, &stop));
    console(&one, &format!("MOVE TENANT {tenant} TO shard2")).expect();
    wait_state(&one, "switched");
    // Whoever had the old map would have kept the move from opening the target.
    // What is shown is as old as the last renewal.
    for router in [&one, &other] {
        wait_for(&format!("epoch 2 at both: {:?}", epochs(router, 2)), || {
            epochs(router, 2).iter().all(|(_, epoch)| epoch == "2")
        });
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for writer in writers {
        let (written, errors) = writer.join().unwrap();
        assert!(errors.is_empty(), "a client has seen {errors:?}");
        total += written;
    }
    assert_eq!(rows(&world, 2, tenant), total.to_string());

    other.signal(Signal::KILL);
    other.wait_end();
    let killed = Instant::now();
    console(&one, "FINISH MOVE 1").expect();
    wait_state(&one, "done");
    let waited = killed.elapsed();
    println!("done {} ms after the other router was killed", waited.as_millis());
    assert_eq!(epochs(&one, 1).len(), 1, "it is forgotten");
    assert_eq!(rows(&world, 1, tenant), "0");
    runtime().block_on(world.nothing_left());

    // It begins with the map that it wrote down last, or an older one, and
    // serves by neither.
    std::fs::remove_dir_all(other.dir().join("state")).unwrap();
    other.start_again();
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant} AND writer < 1000");
    assert_eq!(psql(&other.url(), &count).expect(), total.to_string());
    let insert = format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, 9, 1)");
    psql(&other.url(), &insert).expect();
    assert_eq!(rows(&world, 1, tenant), "0", "the old owner");
    wait_for("epoch 2 at both", || epochs(&one, 2).iter().all(|(_, epoch)| epoch == "2"));
}
