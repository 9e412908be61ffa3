//! Maps, users and certificates are read again, and what is wrong with them
//! changes nothing.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::setup::{cluster, options, router};
use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::wire::Wire;

#[test]
fn map_replaced_by_rename_takes_effect_and_open_transactions_keep_theirs() {
    let router = router(cluster(), "");
    let mut old = Wire::open(router.port(), "t1");
    let mut new = Wire::open(router.port(), "t1");
    old.query("BEGIN").unwrap();
    let first = old.value("SHOW port");
    new.value("SELECT 1");
    // The database is on another server now.
    replace(&router.map_file(), |map| map.replace(&port_of(1), &port_of(2)));
    wait_for("the new map", || epoch(&router) == "2");
    assert_eq!(new.value("SHOW port"), cluster().primary(2).port.to_string());
    assert_eq!(old.value("SHOW port"), first);
    old.query("COMMIT").unwrap();
    assert_eq!(old.value("SHOW port"), cluster().primary(2).port.to_string());
}

#[test]
fn sharded_transaction_keeps_its_map() {
    let options = RouterOptions::sharded(cluster());
    let options = options.with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let router = Router::start(cluster(), &options);
    let mut client = Wire::open(router.port(), "t1");
    client.query("BEGIN").unwrap();
    client.query("/* keyway: shard=shard1 */ SELECT 1").unwrap();
    let adopt = |map: &str| {
        let map = map.replace("\"public.plans\"", "\"public.notes\"");
        format!("data = \"already-moved\"\n{map}")
    };
    replace(&router.map_file(), adopt);
    wait_for("the new map", || epoch(&router) == "2");
    let mut other = Wire::open(router.port(), "t1");
    assert_eq!(other.value("SELECT count(*) >= 0 FROM notes"), "t");
    let refusal = client.query("SELECT count(*) FROM notes").unwrap_err();
    assert!(refusal.message.contains("notes"), "its map has no such table: {refusal:?}");
    client.query("ROLLBACK").unwrap();
    assert_eq!(client.value("SELECT count(*) >= 0 FROM notes"), "t");
}

#[test]
fn invalid_map_is_refused_with_its_place_and_the_old_one_serves_on() {
    let router = router(cluster(), "");
    let mut client = Wire::open(router.port(), "t1");
    client.query("SELECT 1").unwrap();
    let good = fs::read_to_string(router.map_file()).unwrap();
    let line = 1 + good.lines().position(|line| line.starts_with("number")).unwrap();
    let bad = good.replace("number = 1", "number = \"one\"");
    replace(&router.map_file(), |_| bad.clone());
    let place = format!("map.toml:{line}:10: ");
    wait_for("the watched file to be refused", || router.log().contains(&place));
    client.query("SELECT 1").unwrap();
    let shown = psql(&router.console_url(), "RELOAD").expect();
    assert!(shown.contains("refused: ") && shown.contains(&place), "{shown}");
    router.signal(Signal::HUP);
    wait_for("SIGHUP to be heard", || router.log().matches(&place).count() >= 3);
    assert_eq!(epoch(&router), "1");
    assert_eq!(client.value("SELECT 7"), "7");
    Wire::open(router.port(), "t1").query("SELECT 1").unwrap();
}

#[test]
fn change_of_ownership_is_kept_back_across_restarts() {
    let options = RouterOptions::sharded(cluster());
    let options = options.with_config("[[user]]\nname = \"t1\"\ntrust = true");
    let mut router = Router::start(cluster(), &options);
    let route = |router: &Router| {
        let sql = "EXPLAIN ROUTE SELECT * FROM tenants WHERE tenant_id = 1";
        // What a read waits for follows the schemas, not the map.
        let said = psql(&router.url(), sql).expect();
        let lines = said.lines().filter(|line| !line.starts_with("marks|"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let before = route(&router);
    let swap = |map: &str| {
        map.replace("shard1 = [", "shard3 = [")
            .replace("shard2 = [", "shard1 = [")
            .replace("shard3 = [", "shard2 = [")
    };
    replace(&router.map_file(), swap);
    wait_for("the file to be kept back", || map_line(&router, 1).contains("kept back: "));
    assert!(map_line(&router, 1).contains("keyway plan"), "{}", map_line(&router, 1));
    assert_eq!(route(&router), before);
    for signal in [Signal::TERM, Signal::KILL] {
        router.signal(signal);
        router.wait_end();
        router.start_again();
        assert_eq!(route(&router), before, "the map in force is what counts");
        assert!(map_line(&router, 1).contains("kept back: "));
    }
    // The operator's word makes it so, and that survives too.
    replace(&router.map_file(), |map| format!("data = \"already-moved\"\n{map}"));
    wait_for("the new map", || map_line(&router, 1).ends_with("|in force"));
    let after = route(&router);
    assert_ne!(after, before);
    router.signal(Signal::TERM);
    router.wait_end();
    router.start_again();
    assert_eq!(route(&router), after);
}

#[test]
fn users_come_and_go_with_a_reload() {
    let router = router(cluster(), "");
    let mut known = Wire::open(router.port(), "t1");
    known.query("SELECT 1").unwrap();
    let config = router.config_file();
    let with_user = fs::read_to_string(&config).unwrap().replace("name = \"t1\"", "name = \"new\"");
    fs::write(&config, &with_user).unwrap();
    router.signal(Signal::HUP);
    let params = [("user", "new"), ("database", "app")];
    let newcomer = || Wire::try_open(router.port(), &params, 0);
    wait_for("the reload", || router.log().contains("users, rules and certificate are in force"));
    newcomer().unwrap().query("SELECT 1").unwrap();
    known.query("SELECT 1").expect("who is connected stays");
    // A bad file changes nothing, and says where it is bad.
    fs::write(&config, format!("pool.size_max = \"many\"\n{with_user}")).unwrap();
    let shown = psql(&router.console_url(), "RELOAD").expect();
    assert!(shown.contains("(configuration)||refused: "), "{shown}");
    assert!(shown.contains("keyway.toml:1:"), "{shown}");
    newcomer().unwrap();
    // What can't change while it runs is named.
    fs::write(&config, format!("pool.size_max = 7\n{with_user}")).unwrap();
    let shown = psql(&router.console_url(), "RELOAD").expect();
    assert!(shown.contains("needs a restart: pool.size_max"), "{shown}");
}

#[test]
fn password_file_of_a_shard_is_read_again() {
    cluster().superuser_sql(1, "CREATE ROLE rotating LOGIN PASSWORD 'first'");
    let dir = crate::support::scratch_dir();
    let file = dir.join("secret");
    fs::write(&file, "first\n").unwrap();
    let options = options(cluster(), "pool.lifetime_max = \"200ms\"").with_map(|map| {
        let password = format!("{:?}", cluster().view().password_file);
        map.replace("\"app\"\npassword", "\"rotating\"\npassword")
            .replace(&password, &format!("{file:?}"))
    });
    let router = Router::start(cluster(), &options);
    let mut client = Wire::open(router.port(), "t1");
    assert_eq!(client.value("SELECT current_user"), "rotating");
    cluster().superuser_sql(1, "ALTER ROLE rotating PASSWORD 'second'");
    wait_for("new logins to fail", || {
        client.query("SELECT 1").is_err_and(|refusal| refusal.code == "28P01")
    });
    fs::write(&file, "second\n").unwrap();
    router.signal(Signal::HUP);
    wait_for("new logins to succeed", || client.query("SELECT 1").is_ok());
    assert!(!router.log().contains("second"), "no secret is logged");
    fs::remove_dir_all(dir).unwrap();
}

/// Replaces a file as deployment tools do.
fn replace(file: &Path, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(file).unwrap();
    let beside = file.with_extension("new");
    fs::write(&beside, change(&text)).unwrap();
    fs::rename(beside, file).unwrap();
}

fn port_of(shard: u16) -> String {
    format!("port = {} ", cluster().primary(shard).port)
}

fn epoch(router: &Router) -> String {
    map_line(router, 1).split('|').nth(1).unwrap().to_owned()
}

/// Line `line` of SHOW MAP, from 1.
fn map_line(router: &Router, line: usize) -> String {
    match psql(&router.console_url(), "SHOW MAP") {
        Psql::Done(shown) => shown.lines().nth(line - 1).unwrap().to_owned(),
        Psql::Failed(error) => panic!("{error}"),
    }
}
