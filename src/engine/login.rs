//! From an accepted socket to a session: whom a balancer passes on, TLS,
//! startup, and what a client is told before its first query. Who it is,
//! `authenticate` finds out.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::{Setting, SettingsSet};
use crate::config::PoolMode;
use crate::gather::CollectLimits;
use crate::net::stream::Stream;
use crate::net::{clock, tls};
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::protocol::frame::{BODY_LEN_MAX_BEFORE_LOGIN, HEADER_LEN, decode_header_within};
use crate::protocol::proxy::{self, Head, Origin};
use crate::protocol::startup::{self, Packet, ProtocolVersion, startup_options};
use crate::protocol::tag::frontend as tag;
use crate::session::{Limits, Refused, Session};
use crate::types::{Millis, SqlState};

use super::client::ClientEntry;
use super::console_session;
use super::doors::Visit;
use super::driver::Driver;
use super::thread::{Database, Thread};

/// A socket on its way to a session.
pub(super) struct Newcomer {
    /// Taken while TLS is being set up, and by the session.
    stream: Option<Stream>,
    buf: Vec<u8>,
    /// `None` on a Unix socket; the client's own behind a balancer.
    pub(super) peer: Option<SocketAddr>,
    pub(super) visit: Visit,
    /// The digest of the certificate that the client has been shown.
    pub(super) end_point: Option<Arc<[u8]>>,
}

/// What the startup message says.
pub(super) struct Hello {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) settings: SettingsSet,
    /// Settings of the router's own.
    own: Vec<(String, String)>,
    application: String,
    version: ProtocolVersion,
    pub(super) replication: Replication,
}

/// Which protocol the client wants to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replication {
    /// The usual one.
    No,
    /// That of a standby, which is of no database.
    Physical,
    /// That of a subscriber, in a database.
    Logical,
}

impl Replication {
    /// The startup parameter that asks for it.
    pub(super) const fn value(self) -> Option<&'static [u8]> {
        match self {
            Self::No => None,
            Self::Physical => Some(b"true"),
            Self::Logical => Some(b"database"),
        }
    }
}

impl Hello {
    pub(super) const fn is_physical_replication(&self) -> bool {
        matches!(self.replication, Replication::Physical)
    }
}

/// Why a socket becomes no session.
pub(super) enum Ended {
    /// Nothing more to say.
    Quiet,
    /// The client is told, then the socket closes.
    Refuse(Refused),
}

impl From<io::Error> for Ended {
    fn from(_: io::Error) -> Self {
        Self::Quiet
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Self::Refuse(refused)
    }
}

/// Serves one accepted socket to its end.
pub(super) async fn serve(thread: Rc<Thread>, stream: Stream, peer: Option<SocketAddr>) {
    let limit = clock::duration(thread.settings.timeouts.login);
    let visit = thread.crew.doors.enter();
    let mut newcomer =
        Newcomer { stream: Some(stream), buf: Vec::new(), peer, visit, end_point: None };
    let result = match tokio::time::timeout(limit, newcomer.log_in(&thread)).await {
        Ok(result) => result,
        Err(_) => Err(Ended::Refuse(Refused::new(
            SqlState::new("57P05"),
            format!("login took longer than {}", thread.settings.timeouts.login),
        ))),
    };
    let hello = match result {
        Ok(hello) => hello,
        Err(ended) => {
            if let Ended::Refuse(refused) = ended {
                thread.stats.logins_refused.set(thread.stats.logins_refused.get() + 1);
                thread.stats.note_refusal(refused.state);
                if refused.state.as_str().starts_with("28") {
                    newcomer.visit.failed(thread.now());
                }
                tracing::info!(
                    address = %newcomer.address(), state = refused.state.as_str(),
                    reason = %refused.message, "login refused"
                );
                newcomer.say_fatal(&refused).await;
            }
            return;
        }
    };
    thread.stats.logins.set(thread.stats.logins.get() + 1);
    newcomer.visit.logged_in();
    newcomer.become_session(&thread, hello).await;
}

/// The client has left.
fn leave(thread: &Thread, entry: &ClientEntry) {
    tracing::debug!(client = entry.id, statements = entry.statements.get(), "client left");
    let stats = &thread.stats;
    stats.statements.set(stats.statements.get() + entry.statements.get());
    thread.unregister(entry.id);
}

impl Newcomer {
    /// What the log and the console call the client's address.
    fn address(&self) -> String {
        self.peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string())
    }

    async fn log_in(&mut self, thread: &Rc<Thread>) -> Result<Hello, Ended> {
        self.hear_balancer(thread).await?;
        let limits = &thread.settings.limits;
        if thread.crew.doors.logging_in() > limits.logins_at_once_max {
            let message = format!("{} clients are logging in", limits.logins_at_once_max);
            return Err(refuse("53300", message)
                .hint("the limit is limits.logins_at_once_max")
                .into());
        }
        self.hear_direct_tls(thread).await?;
        let mut hello = self.startup(thread).await?;
        // Not before: a cancel request comes from where its client does.
        if let Some(peer) = self.peer {
            self.visit.admit(peer.ip(), limits, thread.now())?;
        }
        if let [only] = &thread.databases[..]
            && hello.is_physical_replication()
        {
            // Its tools name no database.
            hello.database.clone_from(&only.name);
        }
        self.authenticate(thread, &hello).await?;
        let users = thread.users();
        let user = users.by_name.get(&hello.user);
        let allowed = user.is_none_or(|user| {
            user.databases.as_ref().is_none_or(|names| names.contains(&hello.database))
        });
        let console = hello.database == thread.options.console_database;
        if console && !user.is_some_and(|user| user.admin) {
            return Err(refuse("42501", "the console is for administrators")
                .hint("set admin = true for the user in the configuration")
                .into());
        }
        if !console && thread.database_named(&hello.database).is_none() {
            return Err(refuse("3D000", format!("database \"{}\" does not exist", hello.database))
                .hint("the router serves the databases of its shard maps")
                .into());
        }
        if !console && !allowed {
            return Err(refuse(
                "42501",
                format!("permission denied for database \"{}\"", hello.database),
            )
            .into());
        }
        if thread.database_named(&hello.database).is_some_and(|d| d.gate.is_disabled()) {
            let message =
                format!("database \"{}\" is not currently accepting connections", hello.database);
            return Err(refuse("55000", message)
                .hint("an operator has disabled it; ENABLE on the console lets clients in")
                .into());
        }
        refuse_dump(thread, &hello)?;
        if thread.draining.get() {
            return Err(refuse("57P03", "the router is shutting down").into());
        }
        let most = usize::try_from(thread.settings.limits.clients_max).unwrap_or(usize::MAX);
        if thread.crew.clients() >= most {
            return Err(refuse("53300", format!("too many clients: {most} are connected"))
                .hint("raise limits.clients_max, or let applications share connections")
                .into());
        }
        Ok(hello)
    }

    /// The header of a load balancer, where connections come from one: it must
    /// be there, because without it anybody could write it.
    async fn hear_balancer(&mut self, thread: &Rc<Thread>) -> Result<(), Ended> {
        let Some(peer) = self.peer else { return Ok(()) };
        if !thread.options.proxies.iter().any(|network| network.contains(peer.ip())) {
            return Ok(());
        }
        let stream = self.stream()?;
        let mut head = [0; proxy::HEAD_LEN];
        stream.read_exact(&mut head).await?;
        let decoded = Head::decode(head);
        let mut rest = vec![0; decoded.map_or(0, |head| head.rest_len)];
        stream.read_exact(&mut rest).await?;
        match decoded.and_then(|head| head.origin(&rest)) {
            Some(Origin::Client(address, port)) => self.peer = Some(SocketAddr::new(address, port)),
            Some(Origin::Balancer) => {}
            None => {
                tracing::warn!(
                    %peer, "no header of the PROXY protocol, version 2, from proxy_protocol_from"
                );
                return Err(Ended::Quiet);
            }
        }
        Ok(())
    }

    /// A handshake without a request for it, which needs the protocol's name:
    /// a client of another protocol may have been led here.
    async fn hear_direct_tls(&mut self, thread: &Rc<Thread>) -> Result<(), Ended> {
        let access = thread.access();
        let Some(config) = &access.tls else { return Ok(()) };
        let stream = self.stream()?;
        if !matches!(stream, Stream::Tcp(_)) || stream.first_byte().await? != Some(HANDSHAKE) {
            return Ok(());
        }
        let plain = self.stream.take().ok_or(Ended::Quiet)?;
        let stream = plain.accept_tls(Arc::clone(&config.config)).await?;
        if stream.agreed_protocol() != Some(tls::ALPN) {
            return Err(Ended::Quiet);
        }
        self.stream = Some(stream);
        self.end_point.clone_from(&config.end_point);
        Ok(())
    }

    /// Packets before authentication: TLS, cancel requests, the startup.
    async fn startup(&mut self, thread: &Rc<Thread>) -> Result<Hello, Ended> {
        let mut asked = (self.stream()?.is_tls(), false);
        loop {
            let encrypted = self.stream()?.is_private();
            let decoded = match startup::decode(&self.buf) {
                Ok(decoded) => decoded,
                // Whatever a cancel request says, the answer is silence.
                Err(_) if self.buf.get(4..8) == Some(CANCEL_CODE) => return Err(Ended::Quiet),
                Err(e) => return Err(refuse_with(e.sqlstate(), e.to_string(), e.hint()).into()),
            };
            let Some((packet, consumed)) = decoded else {
                self.read().await?;
                continue;
            };
            match packet {
                Packet::Ssl if !asked.0 => {
                    asked.0 = true;
                    self.on_ssl_request(thread, consumed).await?;
                }
                Packet::Gss if !asked.1 => {
                    asked.1 = true;
                    self.buf.drain(..consumed);
                    self.stream()?.write_all(b"N").await?;
                }
                Packet::Ssl | Packet::Gss => {
                    return Err(refuse("08P01", "encryption was requested twice").into());
                }
                Packet::Cancel(cancel) => {
                    let (pid, key) = (cancel.pid, cancel.key.to_vec());
                    thread.on_cancel_request(pid, &key).await;
                    return Err(Ended::Quiet);
                }
                Packet::Startup(startup) => {
                    if thread.options.tls_required && !encrypted {
                        return Err(refuse(
                            "28000",
                            "the router accepts only encrypted connections",
                        )
                        .hint("connect with sslmode=require or stronger")
                        .into());
                    }
                    let hello = read_hello(&startup)?;
                    let mut out = Vec::new();
                    if startup.needs_negotiation() {
                        let unknown: Vec<&[u8]> = startup.unknown_options().collect();
                        encode::negotiate_protocol_version(
                            &mut out,
                            startup.version.spoken(),
                            &unknown,
                        )
                        .map_err(|e| refuse("08P01", e.to_string()))?;
                    }
                    self.buf.drain(..consumed);
                    if !out.is_empty() {
                        self.stream()?.write_all(&out).await?;
                    }
                    return Ok(hello);
                }
            }
        }
    }

    async fn on_ssl_request(&mut self, thread: &Rc<Thread>, consumed: usize) -> Result<(), Ended> {
        self.buf.drain(..consumed);
        let tcp = matches!(self.stream, Some(Stream::Tcp(_)));
        let access = thread.access();
        let Some(config) = access.tls.as_ref().filter(|_| tcp) else {
            self.stream()?.write_all(b"N").await?;
            if !self.buf.is_empty() {
                return Err(refuse("08P01", "received data behind an SSL request").into());
            }
            return Ok(());
        };
        if !self.buf.is_empty() {
            // Sent before the handshake: not the client's words, or not only.
            return Err(refuse("08P01", "received unencrypted data after an SSL request").into());
        }
        self.stream()?.write_all(b"S").await?;
        let plain = self.stream.take().ok_or(Ended::Quiet)?;
        self.stream = Some(plain.accept_tls(Arc::clone(&config.config)).await?);
        self.end_point.clone_from(&config.end_point);
        Ok(())
    }

    pub(super) async fn password_message(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            let header = decode_header_within(&self.buf, BODY_LEN_MAX_BEFORE_LOGIN)
                .map_err(|e| refuse_with(e.sqlstate(), e.to_string(), None))?;
            if let Some(header) = header {
                if header.tag != tag::PASSWORD {
                    return Err(refuse("08P01", "expected a password message").into());
                }
                if self.buf.len() >= header.frame_len() {
                    let frame: Vec<u8> = self.buf.drain(..header.frame_len()).collect();
                    return Ok(frame.get(HEADER_LEN..).unwrap_or_default().to_vec());
                }
            }
            self.read().await?;
        }
    }

    pub(super) fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    async fn read(&mut self) -> Result<(), Ended> {
        let mut chunk = [0; 4096];
        let read = self.stream()?.read(&mut chunk).await?;
        if read == 0 {
            return Err(Ended::Quiet);
        }
        self.buf.extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(())
    }

    async fn say_fatal(&mut self, refused: &Refused) {
        let frame = refused.fatal_frame();
        let Some(mut stream) = self.stream.take() else { return };
        // Whether it arrives is the client's affair.
        let saying = async {
            drop(stream.write_all(&frame).await);
            stream.close().await;
        };
        drop(tokio::time::timeout(clock::duration(FAREWELL), saying).await);
    }

    // === the session ===

    async fn become_session(mut self, thread: &Rc<Thread>, hello: Hello) {
        let console = hello.database == thread.options.console_database;
        let index = thread.database_named(&hello.database).map_or(usize::MAX, |d| d.index);
        let secret: Box<[u8]> = if hello.version.spoken() == ProtocolVersion::V3_0 {
            Box::new(thread.random_bytes::<4>())
        } else {
            Box::new(thread.random_bytes::<32>())
        };
        let user: Rc<str> = hello.user.as_str().into();
        let entry = thread.register(|id| {
            ClientEntry::new(
                id,
                secret,
                Rc::clone(&user),
                index,
                self.address(),
                hello.application.clone(),
                clock::now(),
            )
        });
        tracing::debug!(
            client = entry.id, user = %hello.user, database = %hello.database,
            address = %self.address(), application = %hello.application,
            tls = self.stream.as_ref().is_some_and(Stream::is_tls), "client logged in"
        );
        if console {
            let buf = std::mem::take(&mut self.buf);
            let served = match self.stream() {
                Ok(stream) => console_session::serve(thread, stream, &entry, buf).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::debug!(client = entry.id, %error, "console connection ended");
            }
            leave(thread, &entry);
            return;
        }
        if hello.replication != Replication::No {
            self.replicate(thread, &hello, &entry).await;
            leave(thread, &entry);
            return;
        }
        let Ok((driver, visit)) = self.greet(thread, &hello, &entry).await else {
            leave(thread, &entry);
            return;
        };
        // A task of its own: that of the login is several times as large. And
        // boxed: a future has room for each variable that it is moved through.
        let driver = Box::new(driver);
        let owner = Rc::clone(thread);
        thread.spawn(async move {
            driver.run().await;
            leave(&owner, &entry);
            drop(visit);
        });
    }

    /// Passes a client through that wants to replicate.
    async fn replicate(&mut self, thread: &Rc<Thread>, hello: &Hello, entry: &Rc<ClientEntry>) {
        let Some(database) = thread.database_named(&hello.database).cloned() else { return };
        match thread.open_raw(&database, hello).await {
            Ok(backend) => {
                let Some(stream) = self.stream.take() else { return };
                backend.serve(stream, std::mem::take(&mut self.buf), hello, entry).await;
            }
            Err(refused) => {
                thread.stats.note_refusal(refused.state);
                tracing::info!(
                    client = entry.id, address = %self.address(), user = %hello.user,
                    reason = %refused.message, "replication refused"
                );
                self.say_fatal(&refused).await;
            }
        }
    }

    async fn greet(
        mut self,
        thread: &Rc<Thread>,
        hello: &Hello,
        entry: &Rc<ClientEntry>,
    ) -> Result<(Driver, Visit), ()> {
        let Some(database) = thread.database_named(&hello.database).cloned() else {
            return Err(());
        };
        let startup = thread.interner.borrow_mut().intern(hello.settings.clone());
        let told = match self.learn_params(thread, &database, hello, entry).await {
            Ok(told) => told,
            Err(refused) => {
                thread.stats.note_refusal(refused.state);
                tracing::info!(
                    client = entry.id, address = %self.address(), user = %hello.user,
                    reason = %refused.message, "settings refused"
                );
                self.say_fatal(&refused).await;
                return Err(());
            }
        };
        let mut session = Session::new(limits(thread), &hello.user, startup)
            .with_memory(Rc::clone(&thread.gathered))
            .with_holders(thread.crew.holders(
                database.index,
                &hello.user,
                thread.settings.pool.holders_max,
            ));
        if thread.users().by_name.get(&hello.user).is_some_and(|user| user.hints_forbidden) {
            session.forbid_placement();
        }
        let map = database.map();
        let begun =
            hello.own.iter().try_for_each(|(name, value)| session.begin_with(name, value, &map));
        if let Err(refused) = begun {
            thread.stats.note_refusal(refused.state);
            self.say_fatal(&refused).await;
            return Err(());
        }
        let mut out = Vec::new();
        for (name, value) in told {
            if encode::parameter_status(&mut out, name.as_bytes(), value.as_bytes()).is_err() {
                return Err(());
            }
        }
        encode::backend_key_data(&mut out, entry.id, &entry.secret).map_err(|_| ())?;
        encode::ready_for_query(&mut out, TxStatus::Idle);
        let mut stream = self.stream.take().ok_or(())?;
        stream.write_all(&out).await.map_err(|_| ())?;
        let own_level = thread.users().by_name.get(&hello.user).and_then(|user| user.consistency);
        match thread.mode_of(&hello.user, &database.name) {
            PoolMode::Session => session.hold_for_life(),
            PoolMode::Statement => session.take_turns_by_statement(),
            PoolMode::Transaction => {}
        }
        let consistency =
            own_level.or(database.map().consistency()).unwrap_or(thread.settings.reads.consistency);
        let driver = Driver::new(thread, &database, entry, stream, session, consistency, self.buf);
        Ok((driver, self.visit))
    }

    /// What the server says of itself, with the client's settings applied to
    /// it: a setting that it refuses fails the login, as it does on Postgres.
    /// With no server to ask, the client gets in all the same.
    async fn learn_params(
        &self,
        thread: &Rc<Thread>,
        database: &Rc<Database>,
        hello: &Hello,
        entry: &Rc<ClientEntry>,
    ) -> Result<Vec<(String, String)>, Refused> {
        let plain = hello.settings.iter().all(|(name, value)| match (name, value) {
            ("application_name", _) => true,
            ("client_encoding", Setting::Flat(text)) => {
                matches!(text.to_ascii_lowercase().as_str(), "utf8" | "utf-8" | "unicode")
            }
            _ => false,
        });
        let mut known = database.params();
        let mut changed = Vec::new();
        if known.is_none() || !plain {
            let asked = thread.ask_home(database, &entry.user, &hello.settings, !plain).await;
            match asked {
                Ok(reported) => changed = reported,
                Err(super::ask::Refusal::Server(refused)) => return Err(refused),
                Err(super::ask::Refusal::Unreachable) => {}
            }
            known = database.params();
        }
        let params = known.unwrap_or_default();
        let mut told = params.for_client(&hello.user, &hello.settings);
        for (name, value) in changed {
            match told.iter_mut().find(|(n, _)| *n == name) {
                Some(pair) => pair.1 = value,
                None => told.push((name, value)),
            }
        }
        Ok(told)
    }
}

fn read_hello(startup: &startup::Startup<'_>) -> Result<Hello, Refused> {
    let text = |bytes: &[u8], what: &str| {
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| refuse("22021", format!("{what} is not UTF-8")))
    };
    let user = text(startup.user(), "the user's name")?;
    let database = text(startup.database(), "the database's name")?;
    let mut settings = SettingsSet::default();
    let mut application = String::new();
    let mut replication = Replication::No;
    let mut own = Vec::new();
    for (name, value) in startup.params() {
        let name = text(name, "a parameter's name")?.to_lowercase();
        let value = text(value, "a parameter's value")?;
        match name.as_str() {
            "user" | "database" => {}
            "replication" => replication = read_replication(&value)?,
            "options" => {
                let pairs = startup_options(&value)
                    .map_err(|e| refuse_with(e.sqlstate(), e.to_string(), e.hint()))?;
                for (name, value) in pairs {
                    let name = name.to_lowercase();
                    if name.starts_with(OWN_PREFIX) {
                        own.push((name, value));
                    } else {
                        settings.set(&name, Setting::Flat(value.into()));
                    }
                }
            }
            name if name.starts_with("_pq_.") => {}
            _ if name.starts_with(OWN_PREFIX) => own.push((name, value)),
            _ => {
                if name == "application_name" {
                    application.clone_from(&value);
                }
                settings.set(&name, Setting::Flat(value.into()));
            }
        }
    }
    let own_bytes = own.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if settings.bytes() + own_bytes > STARTUP_SETTINGS_MAX {
        return Err(refuse("54000", "too many settings at startup"));
    }
    Ok(Hello { user, database, settings, own, application, version: startup.version, replication })
}

/// Programs that copy a whole database read its schema on the home shard and
/// would take what they find there for all of it.
fn refuse_dump(thread: &Thread, hello: &Hello) -> Result<(), Refused> {
    let sharded = |name: &str| {
        thread.database_named(name).is_some_and(|d| d.with_map(|map, _| map.is_sharded()))
    };
    let dump = DUMPS.contains(&hello.application.as_str());
    if !dump || hello.replication != Replication::No || !sharded(&hello.database) {
        return Ok(());
    }
    let message = format!(
        "database \"{}\" has shards and can't be copied as one by {}",
        hello.database, hello.application
    );
    Err(refuse("0A000", message)
        .hint("dump each shard: connect to its server itself; reference tables are on all of them"))
}

/// The parameter `replication`: a truth, or the word `database`.
fn read_replication(value: &str) -> Result<Replication, Refused> {
    match value.to_ascii_lowercase().as_str() {
        "database" => Ok(Replication::Logical),
        "true" | "on" | "yes" | "1" | "t" | "y" => Ok(Replication::Physical),
        "false" | "off" | "no" | "0" | "f" | "n" => Ok(Replication::No),
        _ => Err(refuse(
            "22023",
            format!("invalid value for parameter \"replication\": \"{value}\""),
        )),
    }
}

fn limits(thread: &Thread) -> Limits {
    let limits = &thread.settings.limits;
    let merge = &thread.settings.merge;
    Limits {
        statement_bytes_max: limits.statement_bytes_max.count(),
        held_bytes_max: limits.held_bytes_max.count(),
        statements_max: usize::try_from(limits.prepared_per_client_max).unwrap_or(usize::MAX),
        settings_bytes_max: SETTINGS_BYTES_MAX,
        merge: merge.enabled.then_some(CollectLimits {
            rows_max: u64::from(merge.array_rows),
            bytes_max: merge.array_bytes.count(),
            kept_bytes_max: merge.cursor_bytes.count(),
        }),
    }
}

pub(super) fn refuse(state: &str, message: impl Into<String>) -> Refused {
    Refused::new(SqlState::new(state), message)
}

pub(super) fn refuse_with(state: SqlState, message: String, hint: Option<String>) -> Refused {
    let mut refused = Refused::new(state, message);
    refused.hint = hint;
    refused
}

/// What programs that copy whole databases call themselves.
const DUMPS: &[&str] = &["pg_dump", "pg_dumpall"];
/// The first byte of a TLS handshake; no length of a packet begins with it.
const HANDSHAKE: u8 = 0x16;
/// The code that opens a CancelRequest: 1234 in the high half, 5678 in the low.
const CANCEL_CODE: &[u8] = &[0x04, 0xD2, 0x16, 0x2E];
/// How long a client has to hear why it is refused.
const FAREWELL: Millis = Millis::new(1_000);
/// How names of the router's own settings begin.
const OWN_PREFIX: &str = "keyway.";
/// Most bytes of settings in a startup message.
const STARTUP_SETTINGS_MAX: usize = 8 * 1024;
/// Most bytes of settings that a session carries from backend to backend.
const SETTINGS_BYTES_MAX: usize = 64 * 1024;
