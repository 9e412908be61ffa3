//! Opening a connection to a backend: socket, TLS, login, parameters.

use std::io;
use std::rc::Rc;

use crate::auth::{
    Borrowed, Cleartext, ClientExchange, ClientPolicy, ClientStep, Credentials, Nonce,
};
use crate::backend::{Backend, CancelKey, Setting};
use crate::cluster::Incarnation;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::protocol::backend::{BackendKeyData, DataRow, ErrorFields, ParameterStatus};
use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, decode_header_within};
use crate::protocol::startup::ProtocolVersion;
use crate::protocol::tag::backend as tag;
use crate::session::{Refused, Writes};
use crate::types::{Millis, Moment, NodeId, Role, Secret, SqlState};

use super::conn::Conn;
use super::crew::Places;
use super::login::Hello;
use super::logins::BackendLogin;
use super::marks::Account;
use super::params::ServerParams;
use super::pools::SharedPool;
use super::thread::{Database, Thread};

/// Why a backend could not be had.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The network, or a server that is not there.
    Io(io::Error),
    /// It took too long.
    Timeout,
    /// The server refused the login.
    Server { state: Option<SqlState>, message: String },
    /// The login could not be carried out.
    Login(String),
    /// The server declined TLS and the map demands it.
    TlsDeclined,
    /// No encryption could be agreed on, or the certificate is not trusted.
    Tls(io::Error),
    /// The server's messages make no sense.
    Protocol(&'static str),
    /// The map no longer has the node.
    Gone,
    /// Another server answers than the monitor watches at this address.
    Stranger,
}

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Server { message, .. } => write!(f, "server refused the login: {message}"),
            Self::Login(reason) => write!(f, "login failed: {reason}"),
            Self::TlsDeclined => f.write_str("server declined TLS, which the map demands"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Protocol(what) => write!(f, "server sent {what}"),
            Self::Gone => f.write_str("node has left the map"),
            Self::Stranger => f.write_str("another server answers than the monitor watches"),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ConnectError {
    /// True if trying again can't help: who waits is told at once.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Server { state, .. } => {
                // Starting up, shutting down and "too many" pass by themselves.
                let state = state.as_ref().map_or("", |s| s.as_str());
                !state.starts_with("57P") && !state.starts_with("53")
            }
            Self::Login(_) | Self::TlsDeclined | Self::Tls(_) | Self::Gone => true,
            Self::Io(_) | Self::Timeout | Self::Protocol(_) | Self::Stranger => false,
        }
    }

    /// True if it speaks against the node: not against the login or the
    /// configuration, and not against a server that has no room for one more.
    pub(super) fn is_of_the_node(&self) -> bool {
        match self {
            Self::Server { state, .. } => {
                state.as_ref().is_some_and(|state| state.as_str().starts_with("57P"))
            }
            Self::Io(_) | Self::Timeout | Self::Protocol(_) => true,
            Self::Login(_) | Self::TlsDeclined | Self::Tls(_) | Self::Gone | Self::Stranger => {
                false
            }
        }
    }

    /// True if the server does not take the password.
    pub(super) fn is_wrong_password(&self) -> bool {
        match self {
            Self::Server { state, .. } => state.is_some_and(|state| state.as_str() == "28P01"),
            Self::Io(_)
            | Self::Timeout
            | Self::Login(_)
            | Self::TlsDeclined
            | Self::Tls(_)
            | Self::Protocol(_)
            | Self::Gone
            | Self::Stranger => false,
        }
    }

    /// What the client is told; no hosts.
    pub(super) fn refused(&self, shard: &str) -> Refused {
        let message = match self {
            Self::Io(error) => format!("shard {shard} can't be reached: {}", error.kind()),
            Self::Timeout => format!("shard {shard} can't be reached: no answer in time"),
            Self::Server { message, .. } => {
                format!("shard {shard} refused the router's login: {message}")
            }
            Self::Login(_) => format!("the router can't log in at shard {shard}"),
            Self::TlsDeclined => format!("shard {shard} declined TLS, which the map demands"),
            Self::Tls(_) => format!("TLS with shard {shard} failed"),
            Self::Protocol(_) => {
                format!("shard {shard} answered with something that is not Postgres")
            }
            Self::Gone => format!("a node of shard {shard} has left the map"),
            Self::Stranger => {
                format!("another server answers for shard {shard} than the router watches")
            }
        };
        let state = match self {
            Self::Server { state: Some(state), .. } => *state,
            _ => CANT_CONNECT,
        };
        Refused::new(state, message)
            .hint("the operator sees the node and the reason in the router's log and in SHOW NODES")
    }
}

/// Opens a connection for `pool`; `places` are those that it counts in.
pub(super) async fn connect(
    thread: &Rc<Thread>,
    database: &Rc<Database>,
    pool: &SharedPool,
    places: Places,
) -> Result<Box<Conn>, ConnectError> {
    let limit = clock::duration(thread.settings.timeouts.connect);
    match tokio::time::timeout(limit, attempt(thread, database, pool, places)).await {
        Ok(made) => made,
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn attempt(
    thread: &Rc<Thread>,
    database: &Rc<Database>,
    pool: &SharedPool,
    places: Places,
) -> Result<Box<Conn>, ConnectError> {
    let map = database.map();
    let node = map.node(pool.node()).ok_or(ConnectError::Gone)?;
    let shard = map.shard(node.shard).ok_or(ConnectError::Gone)?;
    let login = database.login(shard.id);
    // Of now: what is opened before it is told to close is old.
    let generation = pool.generation();
    let stream = open(node.host(), node.port(), &login).await?;
    let outgoing = outgoing(thread, database, pool.user(), &login);
    let mut params = vec![(b"database".as_slice(), shard.dbname.as_bytes())];
    if map.is_sharded() {
        // Keys are read from text: it must mean the same on every server.
        params.push((b"client_encoding", b"UTF8"));
        params.push((b"standard_conforming_strings", b"on"));
    }
    let mut stream = stream;
    let mut greeting = greet(thread, &mut stream, outgoing, &params).await?;
    let incarnation = greeting.identify(&mut stream, database, pool, shard.replicas.len()).await?;
    let account = Account::new(&database.marks, shard.id, greeting.key.pid, incarnation);
    let defaults = thread.interner.borrow_mut().intern(crate::backend::SettingsSet::default());
    let prepared_max = usize::try_from(thread.settings.pool.prepared_max).unwrap_or(usize::MAX);
    Ok(Box::new(Conn {
        machine: Backend::new(greeting.key.clone(), prepared_max, defaults),
        stream,
        watched: false,
        carry: Vec::new(),
        out: Vec::new(),
        unflushed: false,
        replay: Vec::new(),
        key: Rc::new(greeting.key),
        pool: pool.clone(),
        shard: shard.id,
        writes: match pool.role() {
            Role::Primary => Writes::Possible,
            Role::Replica => Writes::Impossible,
        },
        // Not the coarse clock: it may be older than the login.
        born: clock::now(),
        expires: expires(thread),
        incarnation,
        vouched: super::conn::Vouched::default(),
        account,
        uses: 0,
        generation,
        params: Rc::new(greeting.params),
        counted: false,
        places: Some(places),
        lent: None,
    }))
}

/// Logs in over a new connection, with these parameters beside the user.
async fn greet(
    thread: &Thread,
    stream: &mut Stream,
    outgoing: Outgoing,
    params: &[(&[u8], &[u8])],
) -> Result<Greeting, ConnectError> {
    let Outgoing { user, password, borrowed } = outgoing;
    let mut greeting = Greeting {
        buf: Vec::new(),
        params: ServerParams::default(),
        key: CancelKey { pid: 0, secret: Box::default() },
    };
    let mut hello = Vec::new();
    let all = std::iter::once((b"user".as_slice(), user.as_bytes())).chain(params.iter().copied());
    encode::startup(&mut hello, all, ProtocolVersion::V3_0.minor)
        .map_err(|error| ConnectError::Login(error.to_string()))?;
    stream.write_all(&hello).await?;
    let credentials = Credentials {
        user: user.into_bytes(),
        password: password.map(|p| p.expose().as_bytes().to_vec()),
    };
    let cleartext = if stream.is_private() { Cleartext::Allow } else { Cleartext::Refuse };
    let policy = ClientPolicy { cleartext, iterations_max: ITERATIONS_MAX };
    let exchange = ClientExchange::new(credentials, policy, Nonce::new(thread.random_bytes()))
        .with_borrowed(borrowed);
    greeting.log_in(stream, exchange).await?;
    Ok(greeting)
}

/// A connection that is passed through as it is.
pub(super) struct Raw {
    pub(super) stream: Stream,
    pub(super) params: ServerParams,
    pub(super) key: CancelKey,
    /// What the server has said since.
    pub(super) rest: Vec<u8>,
}

/// Opens a connection with the client's own startup parameters.
pub(super) async fn raw(
    thread: &Rc<Thread>,
    database: &Rc<Database>,
    node: NodeId,
    hello: &Hello,
) -> Result<Raw, ConnectError> {
    let map = database.map();
    let node = map.node(node).ok_or(ConnectError::Gone)?;
    let shard = map.shard(node.shard).ok_or(ConnectError::Gone)?;
    let login = database.login(shard.id);
    let mut stream = open(node.host(), node.port(), &login).await?;
    let outgoing = outgoing(thread, database, &hello.user, &login);
    let mut params = vec![(b"database".as_slice(), shard.dbname.as_bytes())];
    if let Some(value) = hello.replication.value() {
        params.push((b"replication", value));
    }
    for (name, value) in hello.settings.iter() {
        if let Setting::Flat(value) = value {
            params.push((name.as_bytes(), value.as_bytes()));
        }
    }
    let Greeting { buf, params, key } = greet(thread, &mut stream, outgoing, &params).await?;
    Ok(Raw { stream, params, key, rest: buf })
}

/// As whom the router logs in at a backend, and by what.
struct Outgoing {
    user: String,
    password: Option<Secret>,
    borrowed: Option<Borrowed>,
}

/// The map's login, or the client's own: by its password, if that is known,
/// else by what its login has lent.
fn outgoing(thread: &Thread, database: &Database, client: &str, login: &BackendLogin) -> Outgoing {
    let own = || thread.users().by_name.get(client).and_then(|user| user.password.clone());
    match &login.user {
        Some(user) if !thread.logs_in_as_itself(client) => Outgoing {
            user: user.clone(),
            password: login.password.clone().or_else(own),
            borrowed: database.borrowed(client).filter(|_| user == client),
        },
        Some(_) | None => Outgoing {
            user: client.to_owned(),
            password: own(),
            borrowed: database.borrowed(client),
        },
    }
}

/// When a connection made now is too old: at its configured age, less up to a
/// tenth, so that those made together do not end together.
fn expires(thread: &Thread) -> Option<Moment> {
    let lifetime = thread.settings.pool.lifetime_max.count();
    let spread = thread.random() % (lifetime / 10 + 1);
    (lifetime > 0).then(|| thread.now().after(Millis::new(lifetime - spread)))
}

/// A socket to a node, encrypted as the map says.
pub(super) async fn open(
    host: &str,
    port: u16,
    login: &BackendLogin,
) -> Result<Stream, ConnectError> {
    if host.starts_with('/') {
        return Ok(Stream::connect_unix(host, port).await?);
    }
    let mut stream = Stream::connect_tcp(host, port).await?;
    let Some(config) = &login.tls else { return Ok(stream) };
    let mut request = Vec::new();
    encode::ssl_request(&mut request);
    stream.write_all(&request).await?;
    let mut answer = [0];
    // One byte and no more: what follows belongs to the handshake.
    if stream.read(&mut answer).await? == 0 {
        return Err(ConnectError::Protocol("nothing"));
    }
    match answer {
        [b'S'] => {
            let config = std::sync::Arc::clone(config);
            stream.encrypt(host, config).await.map_err(ConnectError::Tls)
        }
        [b'N'] if login.tls_required => Err(ConnectError::TlsDeclined),
        [b'N'] => Ok(stream),
        _ => Err(ConnectError::Protocol("no answer to a TLS request")),
    }
}

/// What a server says before its first ReadyForQuery.
struct Greeting {
    buf: Vec<u8>,
    params: ServerParams,
    key: CancelKey,
}

impl Greeting {
    async fn log_in(
        &mut self,
        stream: &mut Stream,
        mut exchange: ClientExchange,
    ) -> Result<(), ConnectError> {
        loop {
            let (kind, body) = self.message(stream).await?;
            let mut step = match kind {
                tag::AUTHENTICATION => exchange.on_message(&body),
                tag::ERROR_RESPONSE => return Err(server_error(&body)),
                tag::PARAMETER_STATUS => {
                    self.on_parameter(&body)?;
                    continue;
                }
                tag::BACKEND_KEY_DATA => {
                    let key = BackendKeyData::decode(&body)
                        .map_err(|_| ConnectError::Protocol("a bad cancel key"))?;
                    self.key = CancelKey { pid: key.pid, secret: key.key.into() };
                    continue;
                }
                tag::READY_FOR_QUERY => return Ok(()),
                tag::NOTICE_RESPONSE | tag::NEGOTIATE_PROTOCOL_VERSION => continue,
                _ => return Err(ConnectError::Protocol("an unexpected message at login")),
            };
            loop {
                step = match step {
                    ClientStep::Send(bytes) => {
                        stream.write_all(&bytes).await?;
                        break;
                    }
                    ClientStep::Derive(request) => {
                        let salted = tokio::task::spawn_blocking(move || request.derive())
                            .await
                            .map_err(|error| ConnectError::Login(error.to_string()))?;
                        exchange.on_derived(&salted)
                    }
                    ClientStep::Wait | ClientStep::Done => break,
                    ClientStep::Refuse(error) => {
                        return Err(ConnectError::Login(error.to_string()));
                    }
                };
            }
        }
    }

    /// Asks which server this is, where a shard has replicas: what the monitor
    /// proved of one server says nothing of another that a name, a balancer or
    /// a pooler may lead to.
    async fn identify(
        &mut self,
        stream: &mut Stream,
        database: &Database,
        pool: &SharedPool,
        replicas: usize,
    ) -> Result<Option<Incarnation>, ConnectError> {
        if replicas == 0 {
            return Ok(None);
        }
        let mut row = self.ask(stream, WHO_ARE_YOU).await?;
        if row.is_empty() {
            // Some services revoke the function for the system's identifier.
            row = self.ask(stream, SINCE_WHEN).await?;
        }
        let started_us = row.first().and_then(|text| text.parse().ok());
        let system = row.get(1).and_then(|text| text.parse().ok());
        let incarnation = started_us.map(|started_us| Incarnation { system, started_us });
        database.marks.ask_for_sample();
        let watched = database.with_cluster(|cluster| cluster.is_watched(pool.node(), incarnation));
        if watched { Ok(incarnation) } else { Err(ConnectError::Stranger) }
    }

    /// The values of the first row that `sql` returns; none if it fails.
    async fn ask(&mut self, stream: &mut Stream, sql: &[u8]) -> Result<Vec<String>, ConnectError> {
        let mut request = Vec::new();
        encode::query(&mut request, sql).map_err(|e| ConnectError::Login(e.to_string()))?;
        stream.write_all(&request).await?;
        let mut row = Vec::new();
        loop {
            let (kind, body) = self.message(stream).await?;
            match kind {
                tag::DATA_ROW if row.is_empty() => {
                    let data = DataRow::decode(&body)
                        .map_err(|_| ConnectError::Protocol("a bad row at login"))?;
                    row = data
                        .iter()
                        .map(|value| {
                            let text = value.unwrap_or_default();
                            String::from_utf8_lossy(text).into_owned()
                        })
                        .collect();
                }
                tag::READY_FOR_QUERY => return Ok(row),
                _ => {}
            }
        }
    }

    fn on_parameter(&mut self, body: &[u8]) -> Result<(), ConnectError> {
        let parameter =
            ParameterStatus::decode(body).map_err(|_| ConnectError::Protocol("a bad parameter"))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        self.params.set(&text(parameter.name), &text(parameter.value));
        Ok(())
    }

    async fn message(&mut self, stream: &mut Stream) -> Result<(u8, Vec<u8>), ConnectError> {
        let mut chunk = [0; 4096];
        loop {
            let header = decode_header_within(&self.buf, GREETING_MESSAGE_MAX)
                .map_err(|_| ConnectError::Protocol("a message of impossible length at login"))?;
            if let Some(header) = header
                && self.buf.len() >= header.frame_len()
            {
                let frame: Vec<u8> = self.buf.drain(..header.frame_len()).collect();
                return Ok((header.tag, frame.get(HEADER_LEN..).unwrap_or_default().to_vec()));
            }
            let read = stream.read(&mut chunk).await?;
            if read == 0 {
                return Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            self.buf.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}

fn server_error(body: &[u8]) -> ConnectError {
    match ErrorFields::decode(body) {
        Ok(fields) => ConnectError::Server {
            state: fields.code(),
            message: String::from_utf8_lossy(fields.message()).into_owned(),
        },
        Err(_) => ConnectError::Protocol("a bad error message"),
    }
}

const WHO_ARE_YOU: &[u8] = b"\
SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8, system_identifier \
FROM pg_control_system()";
const SINCE_WHEN: &[u8] =
    b"SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";
/// `sqlclient_unable_to_establish_sqlconnection`
const CANT_CONNECT: SqlState = SqlState::new("08001");
/// More would let a backend spend the router's time.
const ITERATIONS_MAX: u32 = 100_000;
/// Longest message before a login is through, in bytes.
const GREETING_MESSAGE_MAX: u32 = 64 * 1024;
