//! What a pgbouncer's files become: the text of a configuration, maps and
//! password files, and notes on what has no counterpart. Pure; where pgbouncer's
//! default differs from ours, its default is written out.

use std::fmt::Write as _;

use super::ini::{Ini, pairs};
use super::known::{Fate, fate};
use crate::types::Secret;

/// What is to be written, and said.
#[derive(Debug, Default)]
pub(super) struct Import {
    /// Names and texts of files.
    pub(super) files: Vec<(String, Secret)>,
    pub(super) notes: Vec<Note>,
    /// Names of the maps.
    maps: Vec<String>,
    /// Sections of databases that have a mode of their own.
    databases: String,
    /// Names of the users that the configuration has.
    users: Vec<String>,
}

/// Something without a counterpart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The setting as it stands in the file.
    pub(super) what: String,
    /// Why, and what to do.
    pub(super) why: String,
}

/// The users of `auth_file`.
#[derive(Debug, Default)]
pub(super) struct UserList(Vec<(String, Secret)>);

impl UserList {
    /// Reads lines of `"name" "password"`.
    ///
    /// # Errors
    /// The number of a line of another form.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut users = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let pair = quoted_word(line)
                .and_then(|(name, rest)| Some((name, quoted_word(rest.trim_start())?.0)));
            let (name, password) = pair.ok_or(number + 1)?;
            users.push((name, Secret::new(password)));
        }
        Ok(Self(users))
    }

    fn password(&self, user: &str) -> Option<&Secret> {
        self.0.iter().find(|(name, _)| name == user).map(|(_, password)| password)
    }
}

/// A word in double quotes, where two stand for one, and what follows.
fn quoted_word(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut word = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        word += part;
        match after.strip_prefix('"') {
            Some(more) => {
                word.push('"');
                rest = more;
            }
            None => return Some((word, after)),
        }
    }
}

/// What becomes of it all.
pub(super) fn translate(ini: &Ini, users: &UserList) -> Import {
    let mut import = Import::default();
    let mut sections = Sections::default();
    weave(ini, &mut sections, &mut import);
    for (name, value) in ini.section("pgbouncer") {
        plain(name, value, &mut sections, &mut import);
    }
    for (name, value) in ini.section("databases") {
        database(name, value, ini, users, &mut import);
    }
    let mut config = String::from("# Made of a pgbouncer.ini by `keyway import pgbouncer`.\n");
    let maps: Vec<String> = import.maps.iter().map(|name| quoted(name)).collect();
    let _ = writeln!(config, "maps = [{}]", maps.join(", "));
    config += &sections.written();
    config += &std::mem::take(&mut import.databases);
    config += &own_users(ini, users, &mut import);
    import.files.insert(0, ("keyway.toml".to_owned(), Secret::new(config)));
    import
}

/// Lines of the configuration, by section; those without one come first.
#[derive(Debug, Default)]
struct Sections(Vec<(String, String, String)>);

impl Sections {
    fn set(&mut self, path: &str, value: String) {
        let (section, name) = path.split_once('.').unwrap_or(("", path));
        self.0.push((section.to_owned(), name.to_owned(), value));
    }

    fn written(&mut self) -> String {
        self.0.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = String::new();
        let mut current = "";
        for (section, name, value) in &self.0 {
            if section != current {
                let _ = writeln!(out, "\n[{section}]");
                current = section;
            }
            let _ = writeln!(out, "{name} = {value}");
        }
        out
    }
}

impl Import {
    fn note(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.notes.push(Note { what: what.into(), why: why.into() });
    }

    /// A file for a password; its name.
    fn keep(&mut self, name: &str, password: &Secret) -> String {
        let file = format!("{}.password", file_name(name));
        if !self.files.iter().any(|(known, _)| *known == file) {
            self.files.push((file.clone(), password.clone()));
        }
        file
    }
}

/// Settings that become one line, or none.
fn plain(name: &str, value: &str, sections: &mut Sections, import: &mut Import) {
    let line = format!("{name} = {value}");
    match fate(name) {
        None => import.note(line, "no setting of pgbouncer 1.24"),
        Some(_) if value.is_empty() => {}
        Some(Fate::Number(path)) => match value.parse::<u64>() {
            Ok(number) => sections.set(path, number.to_string()),
            Err(_) => import.note(line, format!("{path} takes a whole number")),
        },
        Some(Fate::Seconds(path)) => match millis(value) {
            Some(ms) => sections.set(path, time(ms)),
            None => import.note(line, format!("{path} takes a time")),
        },
        Some(Fate::Text(path)) => sections.set(path, quoted(value)),
        Some(Fate::Woven) => {}
        Some(Fate::Needless(why) | Fate::Missing(why)) => import.note(line, why),
    }
}

/// Settings that hang together, and defaults of pgbouncer's that are not ours.
fn weave(ini: &Ini, sections: &mut Sections, import: &mut Import) {
    let get = |name| ini.value("pgbouncer", name);
    let port = get("listen_port").unwrap_or("6432");
    let addresses: Vec<String> = get("listen_addr")
        .unwrap_or("127.0.0.1")
        .split(',')
        .map(|address| match address.trim() {
            "*" => quoted(&format!("[::]:{port}")),
            "localhost" => quoted(&format!("127.0.0.1:{port}")),
            address if address.contains(':') => quoted(&format!("[{address}]:{port}")),
            address => quoted(&format!("{address}:{port}")),
        })
        .collect();
    sections.set("listen", format!("[{}]", addresses.join(", ")));
    if get("listen_addr").is_none() {
        import.note("listen_addr", "not given: pgbouncer then listens on its Unix socket only, the router on 127.0.0.1 too");
    }
    let folder = get("unix_socket_dir").unwrap_or("/tmp");
    if folder.starts_with('@') {
        import.note(
            format!("unix_socket_dir = {folder}"),
            "the router has no abstract sockets; name a folder",
        );
    } else {
        sections.set("unix_socket_dir", quoted(folder));
    }
    match get("pool_mode").unwrap_or("session") {
        mode @ ("session" | "transaction" | "statement") => {
            sections.set("pool.mode", quoted(mode));
        }
        mode => import.note(format!("pool_mode = {mode}"), "no mode of pgbouncer's"),
    }
    let wait = get("query_wait_timeout").unwrap_or("120");
    match millis(wait) {
        Some(0) => {
            sections.set("pool.checkout_timeout", quoted("1h"));
            import.note(
                "query_wait_timeout = 0",
                "nobody waits for ever: pool.checkout_timeout is its longest, an hour",
            );
        }
        Some(ms) => sections.set("pool.checkout_timeout", time(ms)),
        None => import
            .note(format!("query_wait_timeout = {wait}"), "pool.checkout_timeout takes a time"),
    }
    if get("max_client_conn").is_none() {
        sections.set("limits.clients_max", "100".to_owned());
    }
    match get("max_db_connections") {
        None | Some("0") => {}
        Some(most) => match most.parse::<u32>() {
            Ok(most) if most >= 3 => {
                sections.set("pool.connections_per_node_max", most.to_string());
                import.note(format!("max_db_connections = {most}"), "pool.connections_per_node_max counts the connections of all databases on a node together, the router's own two included");
            }
            Ok(_) | Err(_) => import.note(format!("max_db_connections = {most}"), "pool.connections_per_node_max must be 3 at least, for the router's own connections"),
        },
    }
    tls(ini, sections, import);
    authentication(ini, sections, import);
}

fn tls(ini: &Ini, sections: &mut Sections, import: &mut Import) {
    match ini.value("pgbouncer", "client_tls_sslmode") {
        None | Some("disable") => {}
        Some(mode @ ("allow" | "prefer")) => {
            sections.set("tls.mode", quoted("allow"));
            if mode == "prefer" {
                import.note(
                    "client_tls_sslmode = prefer",
                    "written as allow: the client decides, as with pgbouncer",
                );
            }
        }
        Some("require") => sections.set("tls.mode", quoted("require")),
        Some(mode) => {
            sections.set("tls.mode", quoted("require"));
            import.note(format!("client_tls_sslmode = {mode}"), "TLS is required; that clients show a certificate is asked for by rules of auth.hba_file (clientcert=verify-ca)");
        }
    }
}

fn authentication(ini: &Ini, sections: &mut Sections, import: &mut Import) {
    let get = |name| ini.value("pgbouncer", name);
    match get("auth_type").unwrap_or("md5") {
        "scram-sha-256" | "trust" => {}
        "md5" => sections.set("client_auth", quoted("md5")),
        "plain" => sections.set("client_auth", quoted("password")),
        "hba" => {
            if get("auth_hba_file").is_none() {
                import.note("auth_type = hba", "needs auth_hba_file");
            }
        }
        "any" => import.note("auth_type = any", "a user is always someone: give the users a [[user]] with trust = true, or a rule of auth.hba_file"),
        "cert" => import.note("auth_type = cert", "write a rule into auth.hba_file: hostssl all all all cert"),
        kind => import.note(format!("auth_type = {kind}"), "there is none of that kind; rules of auth.hba_file have scram-sha-256, md5, password, cert, trust and reject"),
    }
    let Some(user) = get("auth_user") else {
        if get("auth_query").is_some() {
            import.note("auth_query", "of no use without auth_user");
        }
        return;
    };
    sections.set("auth.query_user", quoted(user));
    if let Some(query) = get("auth_query") {
        sections.set("auth.query", quoted(query));
        if !query.contains('.') {
            import.note("auth_query", "runs with an empty search path: names need their schema");
        }
    }
    import.note(
        format!("auth_user = {user}"),
        "give its password: auth.query_password_file, unless it stands in auth_file",
    );
}

/// A database: a map with one shard.
fn database(name: &str, value: &str, ini: &Ini, users: &UserList, import: &mut Import) {
    let at = |key: &str| format!("[databases] {name}: {key}");
    if name == "*" {
        import.note("[databases] *", "there is no database for all names: write a map for each");
        return;
    }
    let Some(pairs) = pairs(value) else {
        import.note(format!("[databases] {name}"), "no connection string");
        return;
    };
    let mut place = Place::default();
    for (key, given) in &pairs {
        match &**key {
            "host" => place.hosts = given.split(',').map(|host| host.trim().to_owned()).collect(),
            "port" => place.port.clone_from(given),
            "dbname" => place.dbname.clone_from(given),
            "user" => place.user = Some(given.clone()),
            "password" => place.password = Some(Secret::new(given.clone())),
            "auth_user" | "auth_query" | "auth_dbname" => import.note(at(key), "users are looked up the same way for all databases: [auth]"),
            "pool_size" | "min_pool_size" | "max_db_connections" => import.note(at(&format!("{key}={given}")), "pools of all databases have the same limits: pool.size_max, pool.connections_per_node_max"),
            "reserve_pool" | "reserve_pool_size" => import.note(at(key), "pools have one limit"),
            "pool_mode" => place.pool_mode = Some(given.clone()),
            "max_db_client_connections" => import.note(at(key), "clients are bounded together, by limits.clients_max"),
            "connect_query" => import.note(at(key), "ALTER ROLE … SET or ALTER DATABASE … SET does what most of these are for"),
            "client_encoding" | "datestyle" | "timezone" | "application_name" => import.note(at(&format!("{key}={given}")), "clients bring their own; ALTER DATABASE … SET makes a default"),
            "load_balance_hosts" => import.note(at(key), "reads go to replicas of the map; writes to its primary"),
            "server_lifetime" | "server_idle_timeout" | "query_wait_timeout" => import.note(at(key), "all databases have the same times"),
            _ => import.note(at(key), "no parameter of pgbouncer 1.24"),
        }
    }
    if let [_, others @ ..] = &place.hosts[..]
        && !others.is_empty()
    {
        import.note(at("host"), format!("the first host became the primary; if the others ({}) are its replicas, add them as replicas", others.join(", ")));
    }
    if let Some(mode) = &place.pool_mode {
        import.databases +=
            &format!("\n[[database]]\nname = {}\npool_mode = {}\n", quoted(name), quoted(mode));
    }
    let map = place.map(name, ini, users, import);
    let file = format!("{}.toml", file_name(name));
    import.maps.push(file.clone());
    import.files.push((file, Secret::new(map)));
}

/// Where a database is.
#[derive(Debug, Default)]
struct Place {
    hosts: Vec<String>,
    port: String,
    dbname: String,
    user: Option<String>,
    password: Option<Secret>,
    pool_mode: Option<String>,
}

impl Place {
    fn map(&self, name: &str, ini: &Ini, users: &UserList, import: &mut Import) -> String {
        let mut out = format!(
            "# Made of a pgbouncer.ini by `keyway import pgbouncer`.\nepoch = 1\ndatabase = {}\n\n[[shard]]\nnumber = 1\nname = \"main\"\n",
            quoted(name)
        );
        if !self.dbname.is_empty() && self.dbname != name {
            let _ = writeln!(out, "dbname = {}", quoted(&self.dbname));
        }
        if let Some(user) = &self.user {
            let _ = writeln!(out, "user = {}", quoted(user));
            match self.password.as_ref().or_else(|| users.password(user)) {
                Some(password) if is_plain(password) => {
                    let file = import.keep(user, password);
                    let _ = writeln!(out, "password_file = {}", quoted(&file));
                }
                Some(_) | None => import.note(format!("[databases] {name}: user={user}"), "the router needs the password itself to log in as this role: give the shard a password_file"),
            }
        }
        let root = ini.value("pgbouncer", "server_tls_ca_file");
        match ini.value("pgbouncer", "server_tls_sslmode").unwrap_or("prefer") {
            "disable" => out += "tls = \"disable\"\n",
            "require" => out += "tls = \"require\"\n",
            mode @ ("verify-ca" | "verify-full") => {
                out += "tls = \"verify-full\"\n";
                if let Some(root) = root {
                    let _ = writeln!(out, "tls_root_cert = {}", quoted(root));
                }
                if mode == "verify-ca" {
                    import.note(
                        "server_tls_sslmode = verify-ca",
                        "written as verify-full: the host's name must be in the certificate too",
                    );
                }
            }
            _ => {}
        }
        let host = self.hosts.first().map_or("/var/run/postgresql", String::as_str);
        let port = if self.port.is_empty() { "5432" } else { &self.port };
        let _ = writeln!(out, "primary = {{ host = {}, port = {port} }}", quoted(host));
        out
    }
}

/// The users of `auth_file`, the administrators, and the modes of `[users]`.
fn own_users(ini: &Ini, users: &UserList, import: &mut Import) -> String {
    let mut out = String::new();
    let trust = ini.value("pgbouncer", "auth_type") == Some("trust");
    let admins: Vec<&str> = ini
        .value("pgbouncer", "admin_users")
        .map(|names| names.split(',').map(str::trim).collect())
        .unwrap_or_default();
    for (name, password) in &users.0 {
        let _ = writeln!(out, "\n[[user]]\nname = {}", quoted(name));
        if trust {
            out += "trust = true\n";
        } else if password.expose().is_empty() {
            out += "password = \"\"\n";
            import.note(
                format!("user {name}"),
                "has no password in auth_file: nobody can log in as this user until it has one",
            );
        } else if is_plain(password) {
            let file = import.keep(name, password);
            let _ = writeln!(out, "password_file = {}", quoted(&file));
        } else {
            let _ = writeln!(out, "verifier = {}", quoted(password.expose()));
        }
        if admins.contains(&&**name) {
            out += "admin = true\n";
        }
        if let Some(options) = ini.value("users", name) {
            out += &user_options(name, options, import);
        }
        import.users.push(name.clone());
    }
    for admin in admins.iter().filter(|admin| users.password(admin).is_none()) {
        import.note(
            format!("admin_users: {admin}"),
            "is not in auth_file: give the user a [[user]] with admin = true",
        );
    }
    for (name, _) in ini.section("users").filter(|(name, _)| users.password(name).is_none()) {
        import.note(
            format!("[users] {name}"),
            "is not in auth_file: give the user a [[user]] for a mode of its own",
        );
    }
    out
}

fn user_options(name: &str, options: &str, import: &mut Import) -> String {
    let mut out = String::new();
    for (key, value) in pairs(options).unwrap_or_default() {
        match (&*key, &*value) {
            ("pool_mode", _) => {
                let _ = writeln!(out, "pool_mode = {}", quoted(&value));
            }
            _ => import.note(format!("[users] {name}: {key}"), "users have no limits of their own"),
        }
    }
    out
}

/// True if it is a password, not what is stored in place of one.
fn is_plain(password: &Secret) -> bool {
    let text = password.expose();
    let md5 = text.len() == 35 && text.starts_with("md5");
    !md5 && !text.starts_with("SCRAM-SHA-256$")
}

/// Seconds, with a fraction perhaps, as milliseconds.
fn millis(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let thousandths = format!("{part:0<3}");
    let fraction = thousandths.get(..3)?.parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

fn time(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("\"{}s\"", ms / 1000) } else { format!("\"{ms}ms\"") }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A name that is safe as a file's.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    name.chars().map(safe).collect::<String>().trim_start_matches('.').to_owned()
}
