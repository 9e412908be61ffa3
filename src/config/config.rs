//! The whole configuration: where the router listens, which databases it
//! serves, who may log in, and the settings.

use toml::de::{DeTable, DeValue};

use crate::document::{Problem, Source};
use crate::types::{Consistency, Network, Secret};

use super::auth::{Auth, BackendLogin};
use super::reader::Reader;
use super::setting::{Setting, section, words};
use super::settings::{PoolMode, Settings};

/// A checked configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where the router listens and what it serves.
    pub server: Server,
    /// Encryption of clients' connections.
    pub tls: ClientTls,
    /// Who is asked for what, and where users are looked up.
    pub auth: Auth,
    /// Who may log in.
    pub users: Vec<User>,
    /// What differs for one database.
    pub databases: Vec<Database>,
    /// Everything else.
    pub settings: Settings,
}

section! {
    /// Where the router listens and what it serves.
    Server in "" {
        /// Addresses for clients, as `host:port`; `[::]:6432` for all of IPv6.
        listen: Vec<String> = vec!["127.0.0.1:6432".to_owned()];
        /// Threads that serve clients. A client stays with its thread; pools are shared by
        /// closing a connection on one thread and opening one on another. One thread carries what
        /// one core can; more than there are cores is of no use, and more than one is slower where clients wait for connections.
        threads: u32 = 1, 1 => 32;
        /// Folder of a Unix socket for clients; none if absent.
        unix_socket_dir: Option<String> = None;
        /// Address for metrics and health, as `host:port`; none if absent.
        http_listen: Option<String> = None;
        /// Unix socket on which a router hands its sockets to the one that takes over
        /// (`keyway serve --takeover`); none if absent. Its folder must be the operators' alone.
        handover_socket: Option<String> = None;
        /// How clients are asked for their password. `password` asks for it in the clear on
        /// encrypted connections and Unix sockets, for clients that know nothing better; on
        /// others it is SCRAM all the same. `md5` asks by MD5 where MD5's hash is stored, and by
        /// SCRAM elsewhere. With `auth.hba_file`, its rules decide instead.
        client_auth: ClientAuth = ClientAuth::Scram;
        /// Networks of load balancers, as `10.0.0.0/8`: connections from there begin with the
        /// header of the PROXY protocol, version 2, whose address counts for rules, limits and
        /// the log. Nobody else's headers are read.
        proxy_protocol_from: Vec<String> = Vec::new();
        /// Name of the database that is the operators' console.
        console_database: String = "keyway".to_owned();
        /// Files of shard maps, one for each database.
        maps: Vec<String> = Vec::new();
        /// Instead of maps: URL of one unsharded database, `postgres://user@host:port/name`.
        backend: Option<String> = None;
        /// Folder where the router keeps the maps in force.
        state_dir: String = "state".to_owned();
    }
}

words! {
    /// How clients prove that they know their password.
    ClientAuth {
        /// By SCRAM-SHA-256; the password is never sent.
        #[default]
        Scram = "scram-sha-256",
        /// By sending it, where nobody else can read it.
        Password = "password",
        /// By MD5 where MD5's hash is stored, by SCRAM-SHA-256 elsewhere.
        Md5 = "md5",
    }
}

words! {
    /// Whether clients' connections are encrypted.
    ClientTlsMode {
        /// Never.
        #[default]
        Disable = "disable",
        /// If the client asks for it.
        Allow = "allow",
        /// Always; others are refused.
        Require = "require",
    }
}

section! {
    /// Encryption of clients' connections.
    ClientTls in "tls." {
        /// Whether connections are encrypted.
        mode: ClientTlsMode = ClientTlsMode::Disable;
        /// File with the certificate chain, PEM.
        cert: Option<String> = None;
        /// File with the private key, PEM.
        key: Option<String> = None;
        /// File with the authorities whose certificates clients may show, PEM. Rules of
        /// `auth.hba_file` say who must show one.
        client_ca: Option<String> = None;
        /// File with lists of certificates that their authorities have revoked, PEM (CRLs):
        /// such a certificate ends the handshake. Every authority of `client_ca` that has
        /// signed one must have a list here that has not run out.
        client_crl: Option<String> = None;
    }
}

/// Someone who may log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// How the user proves to be that.
    pub login: Login,
    /// Databases that the user may connect to; empty means all.
    pub databases: Vec<String>,
    /// Whether the user may use the console.
    pub admin: Admin,
    /// The pool mode, where it is not that of `pool.mode`.
    pub pool_mode: Option<PoolMode>,
    /// How fresh its reads must be, over the configured level and the maps'.
    pub consistency: Option<Consistency>,
    /// Whether the user may say where statements run.
    pub hints: Hints,
    /// As whom the router logs in at backends, where it is not as
    /// `auth.backend_login` says.
    pub backend_login: Option<BackendLogin>,
}

/// Whether a user may say where statements run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hints {
    /// May.
    Allow,
    /// May not.
    Refuse,
}

/// Whether a user may use the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// May.
    Allow,
    /// May not.
    Refuse,
}

/// How a user proves to be who they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By nothing.
    Trust,
    /// By this password.
    Password(Secret),
    /// By the password in this environment variable.
    PasswordEnv(String),
    /// By the password in this file.
    PasswordFile(String),
    /// By the password that this program prints.
    PasswordCommand(Vec<String>),
    /// By the password of which this is the stored form.
    Verifier(Secret),
}

section! {
    /// One user, as the file says it.
    UserSection in "" {
        /// The name.
        name: String = String::new();
        /// The password. Prefer one of the four below.
        password: Option<Secret> = None;
        /// Environment variable that holds the password.
        password_env: Option<String> = None;
        /// File that holds the password.
        password_file: Option<String> = None;
        /// Program that prints the password, with its arguments; see `secrets.command_timeout`.
        password_command: Vec<String> = Vec::new();
        /// The password as Postgres stores it in `pg_authid`: a SCRAM-SHA-256 verifier, or MD5's
        /// hash.
        verifier: Option<Secret> = None;
        /// `true` lets the user in without a password. Only for development.
        trust: bool = false;
        /// Databases that the user may connect to; all if absent.
        databases: Vec<String> = Vec::new();
        /// Whether the user may use the console.
        admin: bool = false;
        /// `transaction`, `session` or `statement`; that of the database if absent, or else `pool.mode`.
        pool_mode: Option<String> = None;
        /// How fresh the user's reads must be, as `reads.consistency`; as there or in the map if absent.
        consistency: Option<String> = None;
        /// Whether the user may say where statements run, by comments (`/* keyway: shard=… */`) or by `SET keyway.key` and `keyway.shard`.
        hints: bool = true;
        /// `shard` or `own`: see `auth.backend_login`, which counts if absent.
        backend_login: Option<String> = None;
    }
}

section! {
    /// What differs for one database, as the file says it.
    DatabaseSection in "" {
        /// The database that a map serves.
        name: String = String::new();
        /// `transaction`, `session` or `statement`; as `pool.mode` if absent. A user's own mode comes first.
        pool_mode: Option<String> = None;
    }
}

/// What differs for one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name, as its map has it.
    pub name: String,
    /// The pool mode, where it is not that of `pool.mode`.
    pub pool_mode: Option<PoolMode>,
}

impl Config {
    /// The configuration that `text` describes; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let source = Source::new(file, text);
        if text.len() > FILE_BYTES_MAX {
            let reason = format!("the file has more than {FILE_BYTES_MAX} bytes");
            return Err(vec![source.problem(0, reason)]);
        }
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut problems: Vec<Problem> = errors
            .iter()
            .map(|e| source.problem(e.span().map_or(0, |span| span.start), e.message()))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut reader = Reader::new(source, root.get_ref());
        let server = Server::read_from(&mut reader);
        let tls = ClientTls::read_from(&mut reader);
        let auth = Auth::read_from(&mut reader);
        let settings = Settings::read_from(&mut reader);
        let users = users(&mut reader, &mut problems);
        let databases = databases(&mut reader, &mut problems);
        check(&mut reader, &server, &tls);
        auth.check(&mut reader);
        problems.extend(reader.finish());
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.is_empty() {
            Ok(Self { server, tls, auth, users, databases, settings })
        } else {
            Err(problems)
        }
    }

    /// Every setting of the file, in the order of the manual page; the ones of
    /// a `[[user]]` and a `[[database]]` are in [`Config::user_table`] and
    /// [`Config::database_table`].
    pub fn table() -> impl Iterator<Item = &'static Setting> {
        let tables = [Server::TABLE, ClientTls::TABLE, Auth::TABLE];
        tables.into_iter().flatten().chain(Settings::table())
    }

    /// Every row of [`Config::table`] with its value, as one would write it;
    /// the password in a URL is left out.
    pub fn values(&self) -> Vec<(&'static Setting, String)> {
        let mut server = self.server.clone();
        server.backend = server.backend.as_deref().map(without_password);
        let parts =
            [server.written(), self.tls.written(), self.auth.written(), self.settings.written()];
        let values = parts.concat();
        Self::table().zip(values).collect()
    }

    /// The settings of one `[[database]]`.
    pub fn database_table() -> impl Iterator<Item = &'static Setting> {
        DatabaseSection::TABLE.iter()
    }

    /// The settings of one `[[user]]`.
    pub fn user_table() -> impl Iterator<Item = &'static Setting> {
        UserSection::TABLE.iter()
    }
}

/// `url` with everything that may be a password replaced.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "...".to_owned() };
    let (place, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
    // The last @ ends the name and password, which may hold one themselves.
    let place = match place.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:...@{host}"),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    let hide = |part: &str| match part.split_once('=') {
        Some((name, _)) if name.to_ascii_lowercase().contains("password") => format!("{name}=..."),
        Some(_) | None => part.to_owned(),
    };
    let query = query.map_or_else(String::new, |query| {
        let parts: Vec<String> = query.split('&').map(hide).collect();
        format!("?{}", parts.join("&"))
    });
    format!("{scheme}://{place}{query}")
}

fn check(reader: &mut Reader<'_>, server: &Server, tls: &ClientTls) {
    for (path, addresses) in
        [("listen", server.listen.as_slice()), ("http_listen", server.http_listen.as_slice())]
    {
        for address in addresses.iter().filter(|address| !is_address(address)) {
            let at = reader.offset_of(path);
            reader.refuse(at, format!("{path}: {address:?} is not host:port"));
        }
    }
    if server.backend.is_some() && !server.maps.is_empty() {
        let at = reader.offset_of("backend");
        reader.refuse(at, "backend and maps are both given: keep one");
    }
    for text in server.proxy_protocol_from.iter().filter(|text| Network::parse(text).is_none()) {
        let at = reader.offset_of("proxy_protocol_from");
        reader.refuse(at, format!("proxy_protocol_from: {text:?} is not address/bits"));
    }
    if tls.mode != ClientTlsMode::Disable && (tls.cert.is_none() || tls.key.is_none()) {
        let at = reader.offset_of("tls.mode");
        let reason = format!("tls.mode is {:?}, which needs tls.cert and tls.key", tls.mode.name());
        reader.refuse(at, reason);
    }
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bracketed = host.starts_with('[') && host.ends_with(']');
        !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
    })
}

/// The sections `[[name]]` of the file, each with where it stands.
fn items<'a>(reader: &mut Reader<'a>, name: &str) -> Vec<(usize, &'a DeTable<'a>)> {
    let Some(found) = reader.find(name) else { return Vec::new() };
    let wrong = format!("{name} must be a list of sections, [[{name}]]");
    let DeValue::Array(items) = found.get_ref() else {
        reader.refuse(found.span().start, wrong);
        return Vec::new();
    };
    let mut tables = Vec::new();
    for item in items.iter() {
        match item.get_ref() {
            DeValue::Table(table) => tables.push((item.span().start, table)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => reader.refuse(item.span().start, wrong.clone()),
        }
    }
    tables
}

fn databases(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Vec<Database> {
    let mut databases: Vec<Database> = Vec::new();
    for (at, table) in items(reader, "database") {
        let mut inner = reader.item("database", table);
        let section = DatabaseSection::read_from(&mut inner);
        let name = section.name;
        if name.is_empty() {
            inner.refuse(at, "the database has no name");
        }
        if databases.iter().any(|database| database.name == name) {
            let at = inner.offset_of("name");
            inner.refuse(at, format!("two databases are called {name}"));
        }
        match pool_mode(section.pool_mode.as_deref(), "database", &name) {
            Ok(pool_mode) => databases.push(Database { name, pool_mode }),
            Err(reason) => inner.refuse(at, reason),
        }
        problems.extend(inner.finish());
    }
    databases
}

fn pool_mode(text: Option<&str>, what: &str, name: &str) -> Result<Option<PoolMode>, String> {
    match text {
        None => Ok(None),
        Some("transaction") => Ok(Some(PoolMode::Transaction)),
        Some("session") => Ok(Some(PoolMode::Session)),
        Some("statement") => Ok(Some(PoolMode::Statement)),
        Some(_) => {
            Err(format!("pool_mode of {what} {name} must be transaction, session or statement"))
        }
    }
}

fn users(reader: &mut Reader<'_>, problems: &mut Vec<Problem>) -> Vec<User> {
    let mut users: Vec<User> = Vec::new();
    for (at, table) in items(reader, "user") {
        let mut inner = reader.item("user", table);
        let section = UserSection::read_from(&mut inner);
        if users.iter().any(|user| user.name == section.name) {
            let at = inner.offset_of("name");
            inner.refuse(at, format!("two users are called {}", section.name));
        }
        match user(section) {
            Ok(user) => users.push(user),
            Err(reason) => inner.refuse(at, reason),
        }
        problems.extend(inner.finish());
    }
    users
}

fn user(section: UserSection) -> Result<User, String> {
    let name = section.name;
    if name.is_empty() {
        return Err("the user has no name".to_owned());
    }
    let logins: Vec<Login> = [
        section.password.map(Login::Password),
        section.password_env.map(Login::PasswordEnv),
        section.password_file.map(Login::PasswordFile),
        (!section.password_command.is_empty())
            .then_some(Login::PasswordCommand(section.password_command)),
        section.verifier.map(Login::Verifier),
        section.trust.then_some(Login::Trust),
    ]
    .into_iter()
    .flatten()
    .collect();
    let Ok([login]) = <[Login; 1]>::try_from(logins) else {
        return Err(format!(
            "user {name} needs exactly one of password, password_env, password_file, password_command, verifier, trust = true"
        ));
    };
    let pool_mode = pool_mode(section.pool_mode.as_deref(), "user", &name)?;
    let consistency = section
        .consistency
        .map(|text| text.parse().map_err(|error| format!("consistency of user {name} is {error}")))
        .transpose()?;
    let backend_login = match section.backend_login.as_deref() {
        None => None,
        Some("shard") => Some(BackendLogin::Shard),
        Some("own") => Some(BackendLogin::Own),
        Some(_) => return Err(format!("backend_login of user {name} must be shard or own")),
    };
    let admin = if section.admin { Admin::Allow } else { Admin::Refuse };
    let hints = if section.hints { Hints::Allow } else { Hints::Refuse };
    Ok(User {
        name,
        login,
        databases: section.databases,
        admin,
        pool_mode,
        consistency,
        hints,
        backend_login,
    })
}

/// Most bytes of a configuration file.
const FILE_BYTES_MAX: usize = 1 << 20;
