//! What clients see of a move, against real servers: the engine in this
//! process, fences installed by hand, rows copied by hand in the pause.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: a panic fails it, and it reports"
)]

#[path = "../support/mod.rs"]
mod support;

mod hand;
mod load;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use keyway::engine::Drained;
use keyway::shardmap::Phase;
use tokio::time::{sleep, timeout};

use hand::Hand;
use stage::{Stage, state_of};

#[test]
fn nothing_is_lost_or_refused_while_a_tenant_goes_back_and_forth() {
    let rounds = std::env::var("KEYWAY_MOVES").map_or(6, |count| count.parse().unwrap());
    Stage::run(|stage| async move {
        let hand = Hand::new(&stage, 11).await;
        let load = load::Load::start(&stage);
        for round in 0..rounds {
            sleep(Duration::from_millis(150)).await;
            hand.carry_out(round).await;
        }
        load.stop_and_check(&stage).await;
        hand.remove().await;
        let totals = stage.totals().await;
        println!("{rounds} moves: {} waits, {} refused by a fence", totals.held, totals.fenced);
        assert_eq!(totals.hold_timeouts, 0);
    });
}

#[test]
fn other_tenants_are_never_held() {
    Stage::run(|stage| async move {
        let before = stage.totals().await.held;
        stage.set(&[stage.moving(21, 42, Phase::Held)]).await;
        let client = stage.client().await;
        let bump = "UPDATE counters SET n = n + 1 WHERE tenant_id = $1";
        let statement = client.prepare(bump).await.unwrap();
        for tenant in (1..=40).filter(|tenant| *tenant != 42) {
            client.simple_query(&stage.bump(tenant)).await.unwrap();
            client.execute(&statement, &[&tenant]).await.unwrap();
            client.batch_execute(&format!("BEGIN; {}; COMMIT", stage.bump(tenant))).await.unwrap();
            client.batch_execute("BEGIN").await.unwrap();
            client.execute(&statement, &[&tenant]).await.unwrap();
            client.batch_execute("COMMIT").await.unwrap();
        }
        assert_eq!(stage.totals().await.held, before, "statements of other tenants waited");
        // The moving tenant's reads go on too, and its writes do wait.
        client.query("SELECT n FROM counters WHERE tenant_id = 42", &[]).await.unwrap();
        let write = client.execute(&statement, &[&42_i64]);
        tokio::pin!(write);
        assert!(timeout(Duration::from_millis(100), &mut write).await.is_err());
        assert_eq!(stage.totals().await.held, before + 1);
        stage.set(&[]).await;
        assert_eq!(write.await.unwrap(), 1);
    });
}

#[test]
fn a_wait_that_is_too_long_ends_with_40001_and_the_session_lives_on() {
    Stage::run(|stage| async move {
        stage.set(&[stage.moving(22, 42, Phase::Held)]).await;
        let client = stage.client().await;
        let refused = client.simple_query(&stage.bump(42)).await.unwrap_err();
        assert_eq!(state_of(&refused), "40001");
        client.batch_execute("BEGIN").await.unwrap();
        let read = client.simple_query("SELECT n FROM counters WHERE tenant_id = 42").await;
        assert_eq!(state_of(&read.unwrap_err()), "40001", "it may write later");
        client.batch_execute("ROLLBACK").await.unwrap();
        client.simple_query(&stage.bump(7)).await.unwrap();
        // Who goes away or cancels while it waits leaves nothing behind.
        let token = client.cancel_token();
        let write = client.simple_query("UPDATE counters SET n = n + 1 WHERE tenant_id = 42");
        let cancel = async {
            sleep(Duration::from_millis(100)).await;
            token.cancel_query(tokio_postgres::NoTls).await.unwrap();
        };
        let (written, ()) = tokio::join!(write, cancel);
        assert_eq!(state_of(&written.unwrap_err()), "57014");
        stage.set(&[]).await;
        client.simple_query(&stage.bump(42)).await.unwrap();
    });
}

#[test]
fn a_drain_waits_for_what_is_open_and_names_who_is_in_the_way() {
    Stage::run(|stage| async move {
        let short = Duration::from_millis(100);
        stage.set(&[stage.moving(23, 42, Phase::Watched)]).await;
        let (mut writer, other) = (stage.client().await, stage.client().await);
        let open = writer.transaction().await.unwrap();
        open.batch_execute(&stage.bump(42)).await.unwrap();
        other.batch_execute("BEGIN").await.unwrap();
        other.batch_execute(&stage.bump(7)).await.unwrap();
        stage.set(&[stage.moving(23, 42, Phase::Held)]).await;
        let Drained::Blocked(blockers) = stage.drained(23, short).await else {
            panic!("a transaction is open on the tenant");
        };
        let ask = "SELECT pg_backend_pid() FROM counters WHERE tenant_id = 42";
        let pid: i32 = open.query_one(ask, &[]).await.unwrap().get(0);
        let [blocker] = &blockers[..] else { panic!("{blockers:?}") };
        assert_eq!(blocker.backend_pids, [u32::try_from(pid).unwrap()]);
        assert_eq!(blocker.user, stage.user());
        // It goes on, as long as it needs.
        open.batch_execute(&stage.bump(42)).await.unwrap();
        let drained = stage.drained(23, Duration::from_secs(20));
        let commit = async {
            sleep(short).await;
            open.commit().await.unwrap();
        };
        let (drained, ()) = tokio::join!(drained, commit);
        assert_eq!(drained, Drained::Clear);
        // A client that leaves is in nobody's way.
        stage.set(&[stage.moving(23, 42, Phase::Watched)]).await;
        writer.batch_execute("BEGIN").await.unwrap();
        writer.batch_execute(&stage.bump(42)).await.unwrap();
        stage.set(&[stage.moving(23, 42, Phase::Held)]).await;
        assert_ne!(stage.drained(23, short).await, Drained::Clear);
        drop(writer);
        assert_eq!(stage.drained(23, Duration::from_secs(20)).await, Drained::Clear);
        stage.set(&[]).await;
    });
}

#[test]
fn what_a_fence_refuses_runs_again_or_fails_with_40001() {
    Stage::run(|stage| async move {
        let hand = Hand::new(&stage, 24).await;
        stage.set(&[stage.moving(24, 42, Phase::Watched)]).await;
        let client = stage.client().await;
        let statement =
            client.prepare("UPDATE counters SET n = n + 1 WHERE tenant_id = $1").await.unwrap();
        // A transaction that has run something fails; so does a second statement.
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute(&stage.bump(42)).await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        client.query("SELECT n FROM counters WHERE tenant_id = 42", &[]).await.unwrap();
        let before = stage.totals().await.fenced;
        hand.fence().await;
        let late = client.batch_execute(&stage.bump(42)).await.unwrap_err();
        assert_eq!(state_of(&late), "40001");
        client.batch_execute("ROLLBACK").await.unwrap();
        // What stands first waits for the other map, though this router was
        // never told to hold it.
        let simple = stage.client().await;
        let bump = stage.bump(42);
        let alone = simple.simple_query(&bump);
        let begun = async {
            // All three are let in at once and want one row: under REPEATABLE READ
            // the server itself would fail one of them.
            client.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED").await.unwrap();
            client.execute(&statement, &[&42_i64]).await.unwrap();
            client.batch_execute("COMMIT").await.unwrap();
        };
        let whole = stage.client().await;
        let text = format!("BEGIN; {bump}; {bump}; COMMIT");
        let whole = whole.batch_execute(&text);
        let unfence = async {
            sleep(Duration::from_millis(300)).await;
            hand.unfence().await;
        };
        let (alone, (), whole, ()) = tokio::join!(alone, begun, whole, unfence);
        alone.unwrap();
        whole.unwrap();
        assert!(stage.totals().await.fenced >= before + 3, "all three were refused and ran again");
        stage.set(&[]).await;
        hand.remove().await;
        assert_eq!(stage.count(2, 42).await, Some(4));
    });
}

#[test]
fn what_a_session_keeps_outlasts_a_fence_that_refuses_its_write() {
    Stage::run(|stage| async move {
        let hand = Hand::new(&stage, 28).await;
        stage.set(&[stage.moving(28, 42, Phase::Watched)]).await;
        let lock = |word: &str| format!("SELECT {word}(99) FROM counters WHERE tenant_id = 42");
        let client = stage.client().await;
        client.query_one(&lock("pg_advisory_lock"), &[]).await.unwrap();
        let bump = stage.bump(42);
        hand.fence().await;
        for write in [bump.clone(), format!("BEGIN; {bump}; COMMIT")] {
            let refused = client.simple_query(&write).await.unwrap_err();
            assert_eq!(state_of(&refused), "40001");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        hand.unfence().await;
        client.simple_query(&bump).await.unwrap();
        // Nobody else has it, and it is where it was.
        let other = stage.client().await;
        let taken = other.query_one(&lock("pg_try_advisory_lock"), &[]).await.unwrap();
        assert!(!taken.get::<_, bool>(0), "the session's lock is lost");
        let given = client.query_one(&lock("pg_advisory_unlock"), &[]).await.unwrap();
        assert!(given.get::<_, bool>(0), "the session's lock is lost");
        stage.set(&[]).await;
        hand.remove().await;
        let source = stage::owner_of(&stage.map(), 42);
        assert_eq!(stage.count(source, 42).await, Some(1));
    });
}

#[test]
fn transactions_from_before_the_switch_fail_at_the_moved_keys_only() {
    Stage::run(|stage| async move {
        let hand = Hand::new(&stage, 25).await;
        let mut clients = Vec::new();
        for (isolation, first) in [
            ("READ COMMITTED", stage.tenant_on(1)),
            ("REPEATABLE READ", stage.tenant_on(1)),
            ("SERIALIZABLE", stage.tenant_on(2)),
        ] {
            let client = stage.client().await;
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}")).await.unwrap();
            let read = format!("SELECT n FROM counters WHERE tenant_id = {first}");
            client.simple_query(&read).await.unwrap();
            clients.push((client, first));
        }
        // One has begun and touched nothing: it follows the new map.
        let idle = stage.client().await;
        idle.batch_execute("BEGIN").await.unwrap();
        let prepared = stage.client().await;
        let statement =
            prepared.prepare("SELECT n FROM counters WHERE tenant_id = $1").await.unwrap();
        prepared.query(&statement, &[&42_i64]).await.unwrap();
        hand.carry_out(0).await;
        idle.batch_execute(&stage.bump(42)).await.unwrap();
        idle.batch_execute("COMMIT").await.unwrap();
        let row = prepared.query_one(&statement, &[&42_i64]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        for (client, first) in &clients {
            client.simple_query(&stage.bump(*first)).await.unwrap();
            let moved = client.simple_query("SELECT n FROM counters WHERE tenant_id = 42").await;
            assert_eq!(state_of(&moved.unwrap_err()), "40001");
            client.batch_execute("ROLLBACK").await.unwrap();
            client.simple_query("SELECT n FROM counters WHERE tenant_id = 42").await.unwrap();
        }
        hand.remove().await;
        assert_eq!((stage.count(1, 42).await, stage.count(2, 42).await), (Some(1), None));
    });
}

#[test]
fn a_read_of_several_shards_never_counts_a_moving_row_twice() {
    Stage::run(|stage| async move {
        let client = stage.client().await;
        let all = "SELECT tenant_id FROM counters ORDER BY tenant_id";
        let rows = client.query(all, &[]).await.unwrap().len();
        assert_eq!(rows, stage::TENANTS.count());
        let stranger = 3 - stage::owner_of(&stage.map(), 42);
        let copy = "INSERT INTO counters (tenant_id, n) VALUES (42, 1)";
        stage.set(&[stage.moving(27, 42, Phase::Watched)]).await;
        stage.superuser(stranger, copy).await;
        for phase in [Phase::Watched, Phase::Held, Phase::Switched] {
            stage.set(&[stage.moving(27, 42, phase)]).await;
            assert_eq!(client.query(all, &[]).await.unwrap().len(), rows, "{phase:?}");
            client.query("SELECT n FROM counters WHERE tenant_id = 42", &[]).await.unwrap();
        }
        // The new owner is in the map, and may not have all rows yet.
        let source = stage::owner_of(&stage.map(), 42);
        stage.set(&[stage.moving_from(27, 42, source, Phase::Held)]).await;
        stage.give(42, stranger).await;
        let read = client.query(all, &[]);
        tokio::pin!(read);
        assert!(timeout(Duration::from_millis(100), &mut read).await.is_err(), "it waits");
        stage.set(&[stage.moving_from(27, 42, source, Phase::Switched)]).await;
        assert_eq!(read.await.unwrap().len(), rows);
        stage.give(42, source).await;
        stage.superuser(stranger, "DELETE FROM counters WHERE tenant_id = 42").await;
        stage.set(&[]).await;
        assert_eq!(client.query(all, &[]).await.unwrap().len(), rows);
    });
}

#[test]
fn pipelined_writes_wait_in_order() {
    Stage::run(|stage| async move {
        let client = Arc::new(stage.client().await);
        let statement = client
            .prepare("UPDATE counters SET n = n * 2 + $2 WHERE tenant_id = $1 RETURNING n")
            .await
            .unwrap();
        stage.set(&[stage.moving(26, 42, Phase::Held)]).await;
        let numbers = [3_i64, 5, 7];
        let all = numbers.map(|number| {
            let (client, statement) = (Arc::clone(&client), statement.clone());
            async move { client.query_one(&statement, &[&42_i64, &number]).await.unwrap().get(0) }
        });
        let release = async {
            sleep(Duration::from_millis(100)).await;
            stage.set(&[]).await;
        };
        let [a, b, c] = all;
        let (a, b, c, ()): (i64, i64, i64, ()) = tokio::join!(a, b, c, release);
        assert_eq!([a, b, c], [3, 11, 29]);
    });
}
