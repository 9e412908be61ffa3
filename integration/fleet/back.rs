//! Which maps were in force, and going back to one of them.

use std::process::Output;

use keyway::shardmap::Map;

use crate::stage::{
    LEASES, console, doctor, fill, keyway, router, rows, runtime, wait_state, world,
};
use crate::support::psql::psql;
use crate::world::World;

fn as_mover(world: &World, command: &str, args: &[&str]) -> String {
    let args: Vec<&str> = ["--user", "keyway_mover"].iter().chain(args).copied().collect();
    let Output { status, stdout, stderr } = keyway(world, command, &args, "sesame");
    let (out, error) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command}: {out}{error}");
    out.into_owned()
}

#[test]
fn owners_are_rolled_back_by_moves_and_the_history_says_who_and_why() {
    let world = world();
    let tenant = world.tenant_on(1, 0);
    fill(&world, 1, tenant);
    let router = router(&world, LEASES);
    let insert = |seq: u32| {
        let sql =
            format!("INSERT INTO ledger (tenant_id, writer, seq) VALUES ({tenant}, 1, {seq})");
        psql(&router.url(), &sql).expect();
    };
    console(&router, &format!("MOVE TENANT {tenant} TO shard2")).expect();
    wait_state(&router, "switched");
    insert(1);

    // The move is not finished: it goes back, with what was written since.
    let said = as_mover(&world, "rollback", &[]);
    assert!(said.contains("owners as in epoch 1") && said.contains("move 1 goes back"), "{said}");
    wait_state(&router, "ready");
    insert(2);
    assert_eq!(rows(&world, 1, tenant), "2");
    console(&router, "RESUME MOVE 1").expect();
    wait_state(&router, "switched");
    console(&router, "FINISH MOVE 1").expect();
    wait_state(&router, "done");
    assert_eq!(rows(&world, 1, tenant), "0");

    // It is finished: it takes another move.
    let said = as_mover(&world, "rollback", &["1", "--finish"]);
    assert!(
        said.contains(&format!("move tenant {tenant} of tenants from shard2 to shard1")),
        "{said}"
    );
    insert(3);
    assert_eq!((rows(&world, 1, tenant), rows(&world, 2, tenant)), ("3".into(), "0".into()));

    let history = as_mover(&world, "history", &[]);
    println!("{history}");
    assert!(history.contains("epoch 1 at ") && history.contains("by keyway_mover"), "{history}");
    assert!(history.contains(&format!("move 1: tenant {tenant} to shard 2")), "{history}");
    assert!(
        history.contains(&format!("tenant {tenant} of tenants moves from shard2 to shard1")),
        "{history}"
    );
    let first = Map::parse(&as_mover(&world, "history", &["--print", "1"]), "printed").unwrap();
    assert!(first.same_ownership(&world.map));
    let unknown = keyway(&world, "history", &["--user", "keyway_mover", "--print", "99"], "sesame");
    assert_eq!(unknown.status.code(), Some(1));

    runtime().block_on(world.nothing_left());
    let healthy = doctor(&world, &[]);
    let said = String::from_utf8_lossy(&healthy.stdout);
    assert!(healthy.status.success() && said.contains("nothing is wrong"), "{said}");
}
