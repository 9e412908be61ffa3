//! A router that stands still while a move goes by, and wakes up.

use std::time::Duration;

use rustix::process::Signal;

use crate::stage::{
    LEASES, Speaker, console, epochs, fill, router, rows, runtime, wait_state, world,
};

fn insert(tenant: i64, writer: i32) -> String {
    format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, {writer}, 1)")
}

#[test]
fn a_router_that_was_stopped_writes_nothing_to_the_old_owner() {
    let world = world();
    let (tenant, other) = (world.tenant_on(1, 0), world.tenant_on(1, 1));
    fill(&world, 1, tenant);
    fill(&world, 1, other);
    let (runner, stopped) = (router(&world, LEASES), router(&world, LEASES));
    // Nobody waits for this one: only the fence is in its way.
    let unleased = router(&world, "lease = \"0s\"\nparallel_max = 0");
    epochs(&runner, 2);
    console(&runner, &format!("MOVE TENANT {tenant} TO shard2")).expect();
    wait_state(&runner, "switched");
    console(&runner, "REVERSE MOVE 1").expect();
    wait_state(&runner, "ready");

    // A client that has a connection to the old owner, and one that has none.
    let [idle, open, fenced] = [&stopped, &stopped, &unleased].map(|r| Speaker::new(r.url()));
    open.say(&format!("BEGIN; SELECT count(*) FROM ledger WHERE tenant_id = {other}"));
    open.hear().unwrap();
    for router in [&stopped, &unleased] {
        router.freeze();
    }
    idle.say(&insert(tenant, 1));
    open.say(&insert(tenant, 2));
    fenced.say(&insert(tenant, 3));
    console(&runner, "RESUME MOVE 1").expect();
    wait_state(&runner, "switched");
    for router in [&stopped, &unleased] {
        router.signal(Signal::CONT);
    }
    idle.hear().unwrap();
    let state = open.hear().unwrap_err();
    assert!(state == "40001" || state == "57P01", "{state}");
    let done = fenced.hear();
    println!("without a lease: {done:?}");
    let written = if done.is_ok() { 2 } else { 1 };
    assert_eq!(rows(&world, 2, tenant), written.to_string());
    // The source follows the target: nothing else was written there.
    open.say("ROLLBACK");
    let _its_connection_may_be_closed = open.hear();

    // The same until nothing is left of the move, the fence included.
    console(&runner, "REVERSE MOVE 1").expect();
    wait_state(&runner, "ready");
    assert_eq!(rows(&world, 1, tenant), written.to_string());
    drop(unleased);
    stopped.freeze();
    idle.say(&insert(tenant, 4));
    console(&runner, "RESUME MOVE 1").expect();
    wait_state(&runner, "switched");
    console(&runner, "FINISH MOVE 1").expect();
    wait_state(&runner, "done");
    assert_eq!(rows(&world, 1, tenant), "0");
    stopped.signal(Signal::CONT);
    idle.hear().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(rows(&world, 1, tenant), "0", "the old owner, without a fence");
    assert_eq!(rows(&world, 2, tenant), (written + 1).to_string());
    runtime().block_on(world.nothing_left());
}
