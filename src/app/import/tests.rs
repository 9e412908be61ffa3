//! Files as they stand on machines, and what becomes of them.

use super::ini::{Ini, Piece, pieces};
use super::known::{Fate, SETTINGS};
use super::pgbouncer::{Import, UserList, translate};
use crate::config::{Config, PoolMode};
use crate::shardmap::Map;

const DEBIAN: &str = "\
;; generic settings
[databases]
shop = host=10.0.0.5 port=5433 dbname=shop_prod
reports = host=db2,db3 user=report password='it''s secret' pool_size=5 pool_mode=session
* = host=fallback

[users]
batch = pool_mode=session max_user_connections=3

[pgbouncer]
logfile = /var/log/postgresql/pgbouncer.log
pidfile = /var/run/postgresql/pgbouncer.pid
listen_addr = *
listen_port = 6433
unix_socket_dir = /var/run/postgresql
auth_type = md5
auth_file = /etc/pgbouncer/userlist.txt
auth_user = lookup
auth_query = SELECT usename, passwd FROM pgbouncer.user_lookup($1)
admin_users = postgres, nobody
stats_users = stats
pool_mode = transaction
max_client_conn = 2000
default_pool_size = 25
reserve_pool_size = 5
server_lifetime = 1200
server_idle_timeout = 60.5
query_wait_timeout = 30
idle_transaction_timeout = 0
server_reset_query = DISCARD ALL
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = prefer
client_tls_key_file = /etc/tls/key
client_tls_cert_file = /etc/tls/cert
server_tls_sslmode = verify-ca
server_tls_ca_file = /etc/tls/ca
tcp_keepalive = 1
no_such_setting = 1
";

const USERS: &str = "\
\"postgres\" \"pa\"\"ss\"
; a comment
\"batch\" \"md5d6a35858d61d85e4a82ab1fb044aba9d\"
\"web\" \"SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"
";

fn import(ini: &str, users: &str) -> Import {
    let mut read = Ini::default();
    for piece in pieces(ini) {
        let Piece::Line { text, .. } = piece else { panic!("no include") };
        read.add(text).unwrap();
    }
    translate(&read, &UserList::parse(users).unwrap())
}

fn file<'i>(import: &'i Import, name: &str) -> &'i str {
    let found = import.files.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("{name} is written")).1.expose()
}

fn note<'i>(import: &'i Import, what: &str) -> &'i str {
    let found = import.notes.iter().find(|note| note.what.starts_with(what));
    &found.unwrap_or_else(|| panic!("a note on {what}: {:?}", import.notes)).why
}

#[test]
fn debians_file_becomes_a_configuration_and_maps_that_are_valid() {
    let import = import(DEBIAN, USERS);
    let config = Config::parse(file(&import, "keyway.toml"), "keyway.toml").unwrap();
    assert_eq!(config.server.listen, ["[::]:6433"]);
    assert_eq!(config.server.maps, ["shop.toml", "reports.toml"]);
    let settings = &config.settings;
    assert_eq!((settings.pool.size_max, settings.limits.clients_max), (25, 2000));
    let times =
        [settings.pool.lifetime_max, settings.pool.idle_timeout, settings.pool.checkout_timeout];
    assert_eq!(times.map(|time| time.count()), [1_200_000, 60_500, 30_000]);
    let names: Vec<&str> = config.users.iter().map(|user| &*user.name).collect();
    assert_eq!(names, ["postgres", "batch", "web"]);
    let map = Map::parse(file(&import, "shop.toml"), "shop.toml").unwrap();
    assert_eq!(map.database(), "shop");
    assert_eq!((map.shards()[0].dbname.as_ref(), map.nodes()[0].port()), ("shop_prod", 5433));
    Map::parse(file(&import, "reports.toml"), "reports.toml").unwrap();
    let [reports] = &config.databases[..] else { panic!("{:?}", config.databases) };
    assert_eq!((&*reports.name, reports.pool_mode), ("reports", Some(PoolMode::Session)));
}

#[test]
fn passwords_go_into_files_of_their_own_and_nowhere_else() {
    let import = import(DEBIAN, USERS);
    assert_eq!(file(&import, "report.password"), "it's secret");
    assert_eq!(file(&import, "postgres.password"), "pa\"ss");
    for name in ["keyway.toml", "reports.toml"] {
        assert!(!file(&import, name).contains("secret"), "{name}");
        assert!(!file(&import, name).contains("pa\""), "{name}");
    }
    assert!(!format!("{import:?}").contains("it's secret"));
}

#[test]
fn what_has_no_counterpart_is_named_with_the_reason() {
    let import = import(DEBIAN, USERS);
    for (what, why) in [
        ("reserve_pool_size = 5", "one limit"),
        ("[databases] *", "a map for each"),
        ("[databases] reports: pool_size=5", "same limits"),
        ("[databases] reports: host", "db3"),
        ("[users] batch: max_user_connections", "no limits of their own"),
        ("admin_users: nobody", "not in auth_file"),
        ("server_reset_query", "reset by itself"),
        ("server_tls_sslmode = verify-ca", "verify-full"),
        ("stats_users", "administrators"),
        ("no_such_setting", "no setting of pgbouncer"),
        ("tcp_keepalive", "keepalive"),
    ] {
        assert!(note(&import, what).contains(why), "{what}: {}", note(&import, what));
    }
}

#[test]
fn defaults_that_differ_are_written_out() {
    let import = import("[databases]\nd = host=h\n[pgbouncer]\nlisten_addr = 127.0.0.1\n", "");
    let config = Config::parse(file(&import, "keyway.toml"), "keyway.toml").unwrap();
    assert_eq!(config.settings.pool.mode, PoolMode::Session);
    assert_eq!(config.settings.pool.checkout_timeout.count(), 120_000);
    assert_eq!(config.settings.limits.clients_max, 100);
    assert_eq!(config.server.unix_socket_dir.as_deref(), Some("/tmp"));
}

#[test]
fn every_setting_that_becomes_a_line_names_one_of_ours() {
    let ours: Vec<&str> = Config::table().map(|setting| setting.path).collect();
    for (name, fate) in SETTINGS {
        match fate {
            Fate::Number(path) | Fate::Seconds(path) | Fate::Text(path) => {
                assert!(ours.contains(path), "{name} becomes {path}");
            }
            Fate::Woven | Fate::Needless(_) | Fate::Missing(_) => {}
        }
    }
    assert!(SETTINGS.len() > 90);
}

#[test]
fn file_of_another_form_is_refused_with_its_line() {
    assert!(Ini::default().add("pool_mode = session").is_err());
    let mut ini = Ini::default();
    ini.add("[pgbouncer]").unwrap();
    assert!(ini.add("no setting").is_err());
    assert_eq!(UserList::parse("\"a\" \"b\"\n\nuser password\n").unwrap_err(), 3);
}
