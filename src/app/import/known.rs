//! pgbouncer's settings, each with what it becomes. The table is the rule; what
//! needs more than a line of the configuration is `pgbouncer`'s work.
//!
//! Source: pgbouncer's manual, "pgbouncer.ini", version 1.24.

/// What a setting of pgbouncer's becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A number under this path.
    Number(&'static str),
    /// Seconds there, a time here. Zero means the same: never.
    Seconds(&'static str),
    /// A text under this path.
    Text(&'static str),
    /// Becomes part of something larger.
    Woven,
    /// Needs no counterpart: what it switches is always so, or never needed.
    Needless(&'static str),
    /// Has none, and whoever relied on it should know.
    Missing(&'static str),
}

/// What becomes of the setting `name`; `None` if pgbouncer has none of that name.
pub(super) fn fate(name: &str) -> Option<Fate> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, fate)| *fate)
}

const FOREGROUND: &str =
    "the router stays in the foreground and logs to standard error; the service manager keeps both";
const STATISTICS: &str = "the pages of http_listen have the figures";
const LOGGED: &str = "log.level decides: logins and ends of clients are on the level debug";
const TCP: &str =
    "the router sets what suits it: no delay, keepalive, and 60 s for unacknowledged data";
const CIPHERS: &str =
    "TLS 1.2 and 1.3 with the ciphers of the library; there are no weak ones to switch off";
const NAMES: &str = "host names are resolved anew for each connection, as the system does it";
const RESET: &str = "a connection is brought to each client's settings and reset by itself; nothing is left to the next client";

/// In the order of the manual.
pub(super) const SETTINGS: &[(&str, Fate)] = &[
    ("logfile", Fate::Needless(FOREGROUND)),
    ("pidfile", Fate::Needless(FOREGROUND)),
    ("listen_addr", Fate::Woven),
    ("listen_port", Fate::Woven),
    ("unix_socket_dir", Fate::Woven),
    ("unix_socket_mode", Fate::Missing("the socket's file has the mode that the umask leaves")),
    ("unix_socket_group", Fate::Missing("give the socket's folder to the group")),
    ("user", Fate::Needless(FOREGROUND)),
    ("pool_mode", Fate::Woven),
    ("max_client_conn", Fate::Number("limits.clients_max")),
    ("default_pool_size", Fate::Number("pool.size_max")),
    ("min_pool_size", Fate::Number("pool.size_min_idle")),
    (
        "reserve_pool_size",
        Fate::Missing(
            "pools have one limit; a pool whose first client has waited longer gets connections of another",
        ),
    ),
    ("reserve_pool_timeout", Fate::Needless("belongs to reserve_pool_size")),
    ("max_db_connections", Fate::Woven),
    (
        "max_user_connections",
        Fate::Missing("a pool belongs to one user, database and node: pool.size_max bounds it"),
    ),
    (
        "max_db_client_connections",
        Fate::Missing("clients are bounded together, by limits.clients_max"),
    ),
    (
        "max_user_client_connections",
        Fate::Missing("clients are bounded together, by limits.clients_max"),
    ),
    (
        "server_round_robin",
        Fate::Missing("the connection used last is used first, so that idle ones can be closed"),
    ),
    (
        "track_extra_parameters",
        Fate::Needless("every setting that a client makes follows it, reported or not"),
    ),
    (
        "ignore_startup_parameters",
        Fate::Needless("startup parameters are applied to the client's session"),
    ),
    ("peer_id", Fate::Missing("cancel requests must reach the router that has the client")),
    ("disable_pqexec", Fate::Missing("simple queries can't be switched off")),
    ("application_name_add_host", Fate::Missing("SHOW CLIENTS has the addresses")),
    ("conffile", Fate::Needless("RELOAD reads the file that the router was started with")),
    ("service_name", Fate::Needless(FOREGROUND)),
    ("job_name", Fate::Needless(FOREGROUND)),
    ("stats_period", Fate::Needless(STATISTICS)),
    ("max_prepared_statements", Fate::Number("pool.prepared_max")),
    (
        "scram_iterations",
        Fate::Needless(
            "a password's verifier is made with 4096 rounds; a stored verifier keeps its own",
        ),
    ),
    ("auth_type", Fate::Woven),
    ("auth_hba_file", Fate::Text("auth.hba_file")),
    ("auth_ident_file", Fate::Text("auth.ident_file")),
    ("auth_file", Fate::Woven),
    ("auth_user", Fate::Woven),
    ("auth_query", Fate::Woven),
    ("auth_dbname", Fate::Text("auth.query_dbname")),
    ("auth_ldap_options", Fate::Missing("there is no LDAP")),
    ("syslog", Fate::Needless(FOREGROUND)),
    ("syslog_ident", Fate::Needless(FOREGROUND)),
    ("syslog_facility", Fate::Needless(FOREGROUND)),
    ("log_connections", Fate::Needless(LOGGED)),
    ("log_disconnections", Fate::Needless(LOGGED)),
    ("log_pooler_errors", Fate::Needless(LOGGED)),
    ("log_stats", Fate::Needless(STATISTICS)),
    ("verbose", Fate::Needless(LOGGED)),
    ("admin_users", Fate::Woven),
    (
        "stats_users",
        Fate::Missing(
            "the console is for administrators; the pages of http_listen show the figures to everybody who reaches them",
        ),
    ),
    ("server_reset_query", Fate::Needless(RESET)),
    ("server_reset_query_always", Fate::Needless(RESET)),
    ("server_check_delay", Fate::Needless("a monitor watches every node")),
    ("server_check_query", Fate::Needless("a monitor watches every node")),
    (
        "server_fast_close",
        Fate::Needless("after a reload a connection is closed once it is given back"),
    ),
    ("server_lifetime", Fate::Seconds("pool.lifetime_max")),
    ("server_idle_timeout", Fate::Seconds("pool.idle_timeout")),
    ("server_connect_timeout", Fate::Seconds("timeouts.connect")),
    (
        "server_login_retry",
        Fate::Needless("attempts are made between pool.reconnect_min and pool.reconnect_max"),
    ),
    ("client_login_timeout", Fate::Seconds("timeouts.login")),
    ("autodb_idle_timeout", Fate::Needless("databases are those of the maps")),
    ("dns_max_ttl", Fate::Needless(NAMES)),
    ("dns_nxdomain_ttl", Fate::Needless(NAMES)),
    ("dns_zone_check_period", Fate::Needless(NAMES)),
    ("resolv_conf", Fate::Missing(NAMES)),
    ("client_tls_sslmode", Fate::Woven),
    ("client_tls_key_file", Fate::Text("tls.key")),
    ("client_tls_cert_file", Fate::Text("tls.cert")),
    ("client_tls_ca_file", Fate::Text("tls.client_ca")),
    ("client_tls_protocols", Fate::Needless(CIPHERS)),
    ("client_tls_ciphers", Fate::Needless(CIPHERS)),
    ("client_tls13_ciphers", Fate::Needless(CIPHERS)),
    ("client_tls_ecdhcurve", Fate::Needless(CIPHERS)),
    ("client_tls_dheparams", Fate::Needless(CIPHERS)),
    ("server_tls_sslmode", Fate::Woven),
    ("server_tls_ca_file", Fate::Woven),
    (
        "server_tls_key_file",
        Fate::Missing("the router shows no certificate to nodes: it logs in by password"),
    ),
    (
        "server_tls_cert_file",
        Fate::Missing("the router shows no certificate to nodes: it logs in by password"),
    ),
    ("server_tls_protocols", Fate::Needless(CIPHERS)),
    ("server_tls_ciphers", Fate::Needless(CIPHERS)),
    ("server_tls13_ciphers", Fate::Needless(CIPHERS)),
    ("query_timeout", Fate::Seconds("timeouts.statement")),
    ("query_wait_timeout", Fate::Woven),
    (
        "cancel_wait_timeout",
        Fate::Needless("a cancel request is sent at once, over a connection of its own"),
    ),
    ("client_idle_timeout", Fate::Seconds("timeouts.client_idle")),
    ("idle_transaction_timeout", Fate::Seconds("timeouts.idle_in_transaction")),
    (
        "transaction_timeout",
        Fate::Missing("set transaction_timeout on the servers, which have it since version 17"),
    ),
    ("suspend_timeout", Fate::Needless("keyway serve --takeover waits for no client")),
    ("pkt_buf", Fate::Needless("an idle client holds no buffer")),
    (
        "max_packet_size",
        Fate::Needless("limits.statement_bytes_max bounds statements; rows have no limit"),
    ),
    ("listen_backlog", Fate::Needless("1024 connections may wait")),
    ("sbuf_loopcnt", Fate::Needless("a client gets 64 KiB a turn")),
    (
        "so_reuseport",
        Fate::Missing(
            "one router uses several cores (`threads`); routers take turns by --takeover",
        ),
    ),
    ("tcp_defer_accept", Fate::Needless(TCP)),
    ("tcp_socket_buffer", Fate::Needless(TCP)),
    ("tcp_keepalive", Fate::Needless(TCP)),
    ("tcp_keepcnt", Fate::Needless(TCP)),
    ("tcp_keepidle", Fate::Needless(TCP)),
    ("tcp_keepintvl", Fate::Needless(TCP)),
    ("tcp_user_timeout", Fate::Needless(TCP)),
];
