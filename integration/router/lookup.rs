//! Users who are not configured: looked up on the home shard, and passed
//! through to backends by their own proof.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use crate::setup::{cluster, unsharded_map};
use crate::support::cluster::Cluster;
use crate::support::psql::{Psql, psql};
use crate::support::router::{Router, RouterOptions};
use crate::support::wait_for;
use crate::wire::{connect, frame, read, refusal, startup};

/// The role that looks up, and users in every state, on both shards.
fn roles() -> &'static Cluster {
    static MADE: OnceLock<()> = OnceLock::new();
    let cluster = cluster();
    MADE.get_or_init(|| {
        let mut sql = String::new();
        for (role, more) in [
            ("lookup", "LOGIN"),
            ("alice", "LOGIN"),
            ("expired", "LOGIN VALID UNTIL '2020-01-01'"),
            ("never", "LOGIN VALID UNTIL '-infinity'"),
            ("always", "LOGIN VALID UNTIL 'infinity'"),
            ("locked", "NOLOGIN"),
        ] {
            writeln!(sql, "CREATE ROLE q_{role} PASSWORD 'p-{role}' {more};").unwrap();
        }
        sql.push_str(
            "CREATE ROLE q_without LOGIN;
             SET password_encryption = 'md5';
             CREATE ROLE q_old LOGIN PASSWORD 'p-old';
             GRANT SELECT ON pg_catalog.pg_authid TO q_lookup;
             CREATE TABLE comments (tenant_id bigint NOT NULL);
             GRANT SELECT ON comments TO PUBLIC;
             CREATE SCHEMA hostile; GRANT USAGE ON SCHEMA hostile TO PUBLIC;
             CREATE TABLE hostile.pg_authid AS
                 SELECT rolname, rolpassword FROM pg_catalog.pg_authid;
             GRANT SELECT ON hostile.pg_authid TO PUBLIC;
             CREATE FUNCTION hostile.stored(text) RETURNS TABLE (name text, stored text)
                 LANGUAGE sql SECURITY DEFINER SET search_path = ''
                 AS 'SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
                     WHERE rolname = $1';",
        );
        cluster.superuser_sql(1, &sql);
        cluster.superuser_sql(2, &sql);
        same_password(cluster, "q_alice");
    });
    cluster
}

/// Stores the role's password on the second shard as on the first.
fn same_password(cluster: &Cluster, role: &str) {
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let stored = cluster.superuser_sql(1, &sql).trim().to_owned();
    cluster.superuser_sql(2, &format!("ALTER ROLE {role} PASSWORD '{stored}'"));
}

const LOOKUP: &str = "auth.query_user = \"q_lookup\"\nauth.query_password = \"p-lookup\"\n\
     timeouts.login = \"60s\"\ntimeouts.connect = \"30s\"";

/// A router that logs in at the first shard as its users do.
fn passing_through(config: &str) -> Router {
    let cluster = roles();
    let map = unsharded_map(cluster, 1)
        .lines()
        .filter(|line| !line.starts_with("user") && !line.starts_with("password"))
        .fold(String::new(), |map, line| map + line + "\n");
    let options = RouterOptions { map: Some(map), ..RouterOptions::default() };
    Router::start(cluster, &options.with_config(&format!("{LOOKUP}\n{config}")))
}

fn run(router: &Router, role: &str, password: &str) -> Result<String, String> {
    let sql = "SELECT current_user || ' ' || session_user";
    match psql(&router.url_for(role, password, "app"), sql) {
        Psql::Done(out) => Ok(out),
        Psql::Failed(error) => Err(error),
    }
}

#[test]
fn role_of_the_home_shard_logs_in_and_is_itself_on_the_backend() {
    // With two threads each of them hears of both users.
    let router = passing_through("threads = 2");
    for role in ["q_alice", "q_always", "q_alice", "q_always"] {
        let password = role.replace("q_", "p-");
        assert_eq!(run(&router, role, &password), Ok(format!("{role} {role}")));
        let error = run(&router, role, "wrong").unwrap_err();
        let says = format!("password authentication failed for user \"{role}\"");
        assert!(error.contains(&says), "{error}");
    }
    // MD5's hash opens MD5's doors.
    let error = run(&router, "q_old", "p-old").unwrap_err();
    assert!(error.contains("password authentication failed"), "SCRAM is asked for: {error}");
}

#[test]
fn roles_that_may_not_log_in_do_not_also_with_the_right_password() {
    let router = passing_through("");
    for role in ["q_expired", "q_never", "q_without"] {
        let error = run(&router, role, &role.replace("q_", "p-")).unwrap_err();
        let says = format!("password authentication failed for user \"{role}\"");
        assert!(error.contains(&says), "{error}");
    }
    let error = run(&router, "q_locked", "p-locked").unwrap_err();
    assert!(error.contains("role \"q_locked\" is not permitted to log in"), "{error}");
    // A stranger does not learn that.
    let error = run(&router, "q_locked", "wrong").unwrap_err();
    assert!(error.contains("password authentication failed"), "{error}");
}

/// The password's end and the role's lock count also while the answer is kept.
#[test]
fn kept_answer_ends_with_the_password_and_a_wrong_one_asks_anew() {
    let router = passing_through("auth.query_cache_time = \"1h\"");
    let cluster = roles();
    cluster.superuser_sql(
        1,
        "CREATE ROLE q_brief LOGIN PASSWORD 'p-brief';
         DO $$ BEGIN EXECUTE format('ALTER ROLE q_brief VALID UNTIL %L', now() + interval '2 s'); \
         END $$",
    );
    assert!(run(&router, "q_brief", "p-brief").is_ok());
    wait_for("the password's end", || run(&router, "q_brief", "p-brief").is_err());
    let error = run(&router, "q_brief", "p-brief").unwrap_err();
    assert!(error.contains("password authentication failed"), "{error}");
    // A new password is taken after the first failure with it.
    cluster.superuser_sql(1, "CREATE ROLE q_changed LOGIN PASSWORD 'p-first'");
    assert!(run(&router, "q_changed", "p-first").is_ok());
    cluster.superuser_sql(1, "ALTER ROLE q_changed PASSWORD 'p-second'");
    wait_for("the new password", || run(&router, "q_changed", "p-second").is_ok());
    assert!(run(&router, "q_changed", "p-first").is_err());
    // So is a role that did not exist when it was asked for.
    assert!(run(&router, "q_late", "p-late").is_err());
    cluster.superuser_sql(1, "CREATE ROLE q_late LOGIN PASSWORD 'p-late'");
    wait_for("the new role", || run(&router, "q_late", "p-late").is_ok());
}

/// Names that exist, that don't, and that can't.
#[test]
fn unknown_users_look_like_known_ones_and_never_become_the_lookups_own() {
    let router = passing_through("");
    let long = "x".repeat(64);
    let mut seen = Vec::new();
    for (user, database) in [
        ("q_alice", "app"),
        ("q_nobody", "app"),
        ("q_without", "app"),
        ("q_alice", "nodb"),
        ("q_nobody", "nodb"),
        ("x' OR '1'='1", "app"),
        (&long, "app"),
    ] {
        let mut socket = connect(router.port()).unwrap();
        socket.write_all(&startup(&[("user", user), ("database", database)], 0)).unwrap();
        let asked = read(&mut socket).unwrap();
        let first = b"n,,n=,r=0123456789abcdefghijklmn";
        let length = u32::try_from(first.len()).unwrap().to_be_bytes();
        let initial = [&b"SCRAM-SHA-256\0"[..], &length, first].concat();
        socket.write_all(&frame(b'p', &initial)).unwrap();
        let challenge = read(&mut socket).unwrap();
        let text = String::from_utf8_lossy(&challenge.body[4..]).into_owned();
        let mut parts = text.split(',').map(str::to_owned);
        let [nonce, salt, iterations] = [(); 3].map(|()| parts.next().unwrap());
        let last = format!("c=biws,{nonce},p={}", "A".repeat(43) + "=");
        socket.write_all(&frame(b'p', last.as_bytes())).unwrap();
        let mut refused = refusal(&read(&mut socket).unwrap().body);
        refused.message = refused.message.replace(user, "…");
        seen.push((asked, nonce.len(), salt.len(), iterations, refused));
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
    // Not even with the password of the role that asked.
    for (user, password) in [("q_nobody", "p-lookup"), ("q_without", "p-lookup")] {
        assert!(
            run(&router, user, password).unwrap_err().contains("password authentication failed")
        );
    }
}

#[test]
fn lookup_that_fails_lets_nobody_in() {
    let cluster = roles();
    let wrong = LOOKUP.replace("p-lookup", "p-wrong");
    let options = RouterOptions { map: Some(unsharded_map(cluster, 1)), ..Default::default() };
    let router = Router::start(cluster, &options.clone().with_config(&wrong));
    for (user, password) in
        [("q_alice", "p-alice"), ("q_nobody", "p-lookup"), ("q_lookup", "p-lookup")]
    {
        let error = run(&router, user, password).unwrap_err();
        assert!(error.contains("users can't be looked up at the moment"), "{error}");
    }
    assert!(router.log().contains("28P01: password authentication failed"), "{}", router.log());
    // Configured users need no lookup.
    psql(&router.url(), "SELECT 1").expect();
    // Queries that don't fit are told apart in the log, and let nobody in.
    for (query, reason) in [
        (
            "SELECT rolname FROM pg_catalog.pg_authid WHERE rolname = $1",
            "must take the user's name",
        ),
        ("SELECT $1::text, rolpassword FROM pg_catalog.pg_authid", "must take the user's name"),
        (
            "SELECT 'q_lookup', rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1",
            "must take",
        ),
        ("SELECT $1::text, 'p-plain'::text", "not a stored one"),
        ("SELECT name, stored FROM stored($1)", "names need their schema"),
    ] {
        let config = format!("{LOOKUP}\nauth.query = \"{query}\"");
        let router = Router::start(cluster, &options.clone().with_config(&config));
        let error = run(&router, "q_alice", "p-alice").unwrap_err();
        assert!(error.contains("can't be looked up"), "{query}: {error}");
        assert!(router.log().contains(reason), "{query}: {}", router.log());
        assert!(!router.log().contains("p-plain"), "{}", router.log());
    }
}

/// A search path that comes with the client, or with the lookup's own role,
/// reaches neither the lookup nor its operators.
#[test]
fn no_search_path_reaches_the_lookup() {
    let cluster = roles();
    cluster.superuser_sql(
        1,
        "ALTER ROLE q_lookup SET search_path = hostile, pg_catalog;
         UPDATE hostile.pg_authid SET rolpassword =
             (SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = 'q_lookup')",
    );
    let function = "auth.query = \"SELECT name, stored FROM hostile.stored($1)\"";
    for config in ["", function] {
        let router = passing_through(config);
        let login = |password: &str| {
            let url = router.url_for("q_alice", password, "app");
            let url = format!("{url}&options=-csearch_path%3Dhostile%2Cpg_catalog");
            psql(&url, "SELECT current_user")
        };
        assert_eq!(login("p-alice").expect(), "q_alice");
        assert!(login("p-lookup").expect_error().contains("password authentication failed"));
    }
    cluster.superuser_sql(1, "ALTER ROLE q_lookup RESET search_path");
}

// === on shards ===

fn sharded(config: &str) -> Router {
    let cluster = roles();
    let options = RouterOptions::sharded(cluster).with_map(|map| {
        map.lines()
            .filter(|line| !line.starts_with("user") && !line.starts_with("password"))
            .fold(String::new(), |map, line| map + line + "\n")
    });
    Router::start(cluster, &options.with_config(&format!("{LOOKUP}\n{config}")))
}

#[test]
fn stored_password_must_be_the_same_on_all_shards() {
    let router = sharded("");
    let url = router.url_for("q_alice", "p-alice", "app");
    for tenant in 1..=8 {
        let sql = format!("SELECT count(*) FROM comments WHERE tenant_id = {tenant}");
        assert_eq!(psql(&url, &sql).expect(), "0");
    }
    assert_eq!(psql(&url, "SELECT tenant_id FROM comments").expect(), "", "both shards");
    // The same password, stored with another salt.
    let error = psql(&router.url_for("q_always", "p-always", "app"), "SELECT 1").expect_error();
    assert!(error.contains("FATAL:  shard "), "{error}");
    assert!(error.contains("does not store the password of \"q_always\""), "{error}");
    assert!(error.contains("HINT:  copy rolpassword"), "{error}");
    let error = psql(&router.url_for("q_always", "wrong", "app"), "SELECT 1").expect_error();
    assert!(
        error.contains("password authentication failed"),
        "only who knows the password is told: {error}"
    );
    let log = router.log();
    for secret in ["p-alice", "p-always", "p-lookup", "SCRAM-SHA-256$"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn many_logins_at_once_are_one_question() {
    let cluster = roles();
    cluster.superuser_sql(
        1,
        "CREATE SEQUENCE hostile.asked;
         CREATE FUNCTION hostile.counted(text) RETURNS TABLE (name text, stored text)
             LANGUAGE sql SECURITY DEFINER SET search_path = ''
             AS 'SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
                 WHERE rolname = $1 AND nextval(''hostile.asked'') > 0';",
    );
    let config = "auth.query_cache_time = \"1h\"\n\
         auth.query = \"SELECT name, stored FROM hostile.counted($1)\"";
    let router = passing_through(config);
    let url = router.url_for("q_alice", "p-alice", "app");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let url = url.clone();
            std::thread::spawn(move || psql(&url, "SELECT 1").expect())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "1");
    }
    assert_eq!(cluster.superuser_sql(1, "SELECT last_value FROM hostile.asked").trim(), "1");
}
