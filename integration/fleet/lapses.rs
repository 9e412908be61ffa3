//! A router that can't renew its lease.

use keyway::local::{NodeName, Stop};

use crate::stage::{connect, router, runtime, world};
use crate::support::psql::{Psql, psql};
use crate::support::wait_for;

const HOME: NodeName = NodeName { shard: 1, replica: 0 };

#[test]
fn a_router_without_its_home_shard_sends_nothing_until_that_is_back() {
    let world = world();
    let tenant = world.tenant_on(2, 0);
    let mut router = router(&world, "lease = \"1s\"\nlease_idle = \"1s\"\nhold_max = \"2s\"");
    let count = format!("SELECT count(*) FROM ledger WHERE tenant_id = {tenant}");
    wait_for("a lease", || psql(&router.url(), &count) == Psql::Done("0".to_owned()));
    let runtime = runtime();
    runtime.block_on(async {
        let open = connect(&router.url()).await;
        open.batch_execute(&format!("BEGIN; {count}")).await.unwrap();
        world.cluster.servers().stop_node(HOME, Stop::Kill).unwrap();
        wait_for("the lease to lapse", || match psql(&router.url(), &count) {
            Psql::Done(_) => false,
            Psql::Failed(error) => {
                assert!(error.contains("40001") && error.contains("no lease"), "{error}");
                true
            }
        });
        let error = open.batch_execute(&count).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("57P01"), "{error:?}");
    });
    world.cluster.servers().start_node(HOME).unwrap();
    wait_for("the lease to be back", || psql(&router.url(), &count) == Psql::Done("0".to_owned()));

    // It does not know whether its map is the newest before home says so.
    world.cluster.servers().stop_node(HOME, Stop::Kill).unwrap();
    router.signal(rustix::process::Signal::KILL);
    router.wait_end();
    router.start_again();
    let error = psql(&router.url(), &count).expect_error();
    assert!(error.contains("40001") || error.contains("57P03"), "{error}");
    world.cluster.servers().start_node(HOME).unwrap();
    wait_for("the first lease", || psql(&router.url(), &count) == Psql::Done("0".to_owned()));
}
