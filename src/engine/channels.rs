//! Notifications over shared connections: for each user of a database one
//! connection to the home shard's primary listens for all of the thread's
//! clients, and hands each what is on its channels.
//!
//! A client gets its notifications between its units and outside transactions,
//! as a server sends them. What waits for it is bounded; where something was or
//! may have been lost it is told.
//!
//! Source: PostgreSQL manual, NOTIFY; "Asynchronous Operations".

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::net::clock;
use crate::protocol::backend::ErrorFields;
use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, decode_header};
use crate::protocol::tag::backend as tag;
use crate::session::Refused;
use crate::types::{Millis, Moment, NodeId, ShardId, SqlState};

use super::client::ClientEntry;
use super::conn::Conn;
use super::connect;
use super::crew::Places;
use super::driver::{Driver, Moved};
use super::thread::{Database, Thread};

/// All shared connections of a thread that listen.
#[derive(Default)]
pub(super) struct Listeners(RefCell<HashMap<Key, Rc<Listener>>>);

/// A database and a user.
type Key = (usize, Rc<str>);

/// One of them.
pub(super) struct Listener {
    channels: RefCell<BTreeMap<Box<str>, Channel>>,
    /// Requests to the server so far.
    requests: Cell<u64>,
    /// Somebody wants something of it.
    called: tokio::sync::Notify,
    /// The process that it is connected to, and since when.
    pub(super) server: Cell<Option<(NodeId, u32, Moment)>>,
}

#[derive(Default)]
struct Channel {
    state: State,
    clients: Vec<Rc<ClientEntry>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// The server is to be told.
    #[default]
    Wanted,
    /// It has been told by the request with this number and has not answered.
    Sent(u64),
    /// It listens.
    Heard,
}

/// A request to the server that it has not answered.
struct Asked {
    number: u64,
    /// The channels of a LISTEN; none of an UNLISTEN.
    channels: Vec<Box<str>>,
}

/// What waits for one client.
#[derive(Default)]
pub(super) struct Mailbox {
    /// The channels that the session listens to.
    heard: RefCell<BTreeSet<Box<str>>>,
    /// Whole frames.
    frames: RefCell<Vec<u8>>,
    /// A COMMIT is under way after which the session listens to more.
    committing: Cell<bool>,
    /// What has come meanwhile of channels that it does not listen to yet: the
    /// server may say so sooner than the COMMIT's reply arrives.
    early: RefCell<Vec<Early>>,
    /// Something is there to deliver.
    full: Cell<bool>,
    /// Something was lost, or may have been.
    gap: Cell<Option<&'static str>>,
    /// Why the channels that were asked for can't be listened to.
    refused: RefCell<Option<Refused>>,
}

/// A notification with its channel.
type Early = (Box<str>, Box<[u8]>);

impl Mailbox {
    fn put(&self, frame: &[u8], limit: usize) {
        let mut frames = self.frames.borrow_mut();
        if frames.len() + frame.len() > limit {
            self.gap.set(Some("notifications were lost: too many waited for this client"));
        } else {
            frames.extend_from_slice(frame);
        }
        self.full.set(true);
    }

    /// The same, of a channel that a COMMIT may bring.
    fn put_early(&self, channel: &str, frame: &[u8], limit: usize) {
        let mut early = self.early.borrow_mut();
        if early.len() < EARLY_MAX && frame.len() <= limit / EARLY_MAX {
            early.push((channel.into(), frame.into()));
        } else {
            self.gap.set(Some("notifications were lost: too many waited for this client"));
        }
    }

    /// The session listens to `channels` from now on.
    fn hear(&self, channels: &BTreeSet<Box<str>>, limit: usize) {
        for (channel, frame) in self.early.take() {
            if channels.contains(&channel) {
                self.put(&frame, limit);
            }
        }
        self.heard.borrow_mut().clone_from(channels);
    }

    fn note_gap(&self) {
        self.gap.set(Some(
            "notifications may have been lost: the connection that listens was interrupted",
        ));
        self.full.set(true);
    }
}

impl Listeners {
    pub(super) fn find(&self, database: usize, user: &Rc<str>) -> Option<Rc<Listener>> {
        self.0.borrow().get(&(database, Rc::clone(user))).cloned()
    }
}

impl Thread {
    /// The connection that listens for a user, made on first use.
    fn listener(self: &Rc<Self>, database: &Rc<Database>, user: &Rc<str>) -> Rc<Listener> {
        if let Some(listener) = self.listeners.find(database.index, user) {
            return listener;
        }
        let listener = Rc::new(Listener {
            channels: RefCell::default(),
            requests: Cell::new(0),
            called: tokio::sync::Notify::new(),
            server: Cell::new(None),
        });
        let key = (database.index, Rc::clone(user));
        self.listeners.0.borrow_mut().insert(key.clone(), Rc::clone(&listener));
        let (thread, database, user) = (Rc::clone(self), Rc::clone(database), Rc::clone(user));
        let served = Rc::clone(&listener);
        self.spawn(async move {
            served.serve(&thread, &database, &user).await;
            thread.listeners.0.borrow_mut().remove(&key);
        });
        listener
    }
}

impl Listener {
    /// Listens for `client`; true if the server does already.
    fn subscribe(&self, client: &Rc<ClientEntry>, asked: &[Box<str>]) -> bool {
        let mut channels = self.channels.borrow_mut();
        let mut heard = true;
        for name in asked {
            let channel = channels.entry(name.clone()).or_default();
            if !channel.clients.iter().any(|other| Rc::ptr_eq(other, client)) {
                channel.clients.push(Rc::clone(client));
            }
            heard &= channel.state == State::Heard;
        }
        drop(channels);
        self.called.notify_one();
        heard
    }

    fn hears(&self, asked: &[Box<str>]) -> bool {
        let channels = self.channels.borrow();
        asked.iter().all(|name| channels.get(name).is_some_and(|c| c.state == State::Heard))
    }

    /// `client` needs these channels only.
    fn keep(&self, client: &Rc<ClientEntry>, wanted: &BTreeSet<Box<str>>) {
        for (name, channel) in &mut *self.channels.borrow_mut() {
            if !wanted.contains(name) {
                channel.clients.retain(|other| !Rc::ptr_eq(other, client));
            }
        }
        self.called.notify_one();
    }

    /// Serves for as long as anybody listens.
    async fn serve(&self, thread: &Rc<Thread>, database: &Rc<Database>, user: &Rc<str>) {
        let mut wait = RECONNECT_MIN;
        while !self.channels.borrow().is_empty() {
            if !database.gate.is_paused() {
                match connect(thread, database, user).await {
                    Ok(mut conn) => {
                        wait = RECONNECT_MIN;
                        self.server.set(Some((conn.pool.node(), conn.key.pid, conn.born)));
                        self.listen(thread, database, &mut conn).await;
                        self.server.set(None);
                        self.interrupted();
                    }
                    Err(refused) => self.refuse(&refused),
                }
            }
            self.forget_abandoned();
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.called.notified() => tokio::time::sleep(RECONNECT_MIN).await,
            }
            wait = (wait * 2).min(RECONNECT_MAX);
        }
    }

    /// Listens over `conn` until it is lost, or is to be given up.
    async fn listen(&self, thread: &Rc<Thread>, database: &Rc<Database>, conn: &mut Conn) {
        let mut under_way: VecDeque<Asked> = VecDeque::new();
        let mut failed = None;
        let mut lonely_since = clock::now();
        let (mut buf, mut chunk) = (Vec::new(), vec![0; CHUNK]);
        loop {
            let Ok(()) = self.tell(conn, &mut under_way).await else { return };
            if !self.channels.borrow().is_empty() {
                lonely_since = clock::now();
            }
            let lonely = clock::now().since(lonely_since) >= LINGER;
            if lonely || !is_current(database, conn) {
                return;
            }
            tokio::select! {
                read = conn.stream.read(&mut chunk) => match read {
                    Ok(read) if read > 0 => {
                        buf.extend_from_slice(chunk.get(..read).unwrap_or_default());
                    }
                    Ok(_) | Err(_) => return,
                },
                () = self.called.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            let mut at = 0;
            while let Ok(Some(header)) = decode_header(buf.get(at..).unwrap_or_default()) {
                let end = at + header.frame_len();
                let Some(frame) = buf.get(at..end) else { break };
                match header.tag {
                    tag::NOTIFICATION_RESPONSE => self.deliver(thread, frame),
                    tag::ERROR_RESPONSE => failed = Some(refusal_of(frame)),
                    tag::READY_FOR_QUERY => {
                        if let Some(asked) = under_way.pop_front() {
                            self.answered(&asked, failed.take());
                        }
                    }
                    _ => {}
                }
                at = end;
            }
            if decode_header(buf.get(at..).unwrap_or_default()).is_err() || buf.len() > FRAME_MAX {
                return;
            }
            buf.drain(..at);
        }
    }

    /// Sends LISTEN for what is wanted, and UNLISTEN for what nobody wants any
    /// more.
    async fn tell(&self, conn: &mut Conn, under_way: &mut VecDeque<Asked>) -> std::io::Result<()> {
        self.requests.set(self.requests.get() + 1);
        let mut request = Vec::new();
        let mut asked = Vec::new();
        let mut dropped = Vec::new();
        for (name, channel) in &mut *self.channels.borrow_mut() {
            if channel.clients.is_empty() {
                dropped.push(name.clone());
            } else if channel.state == State::Wanted {
                channel.state = State::Sent(self.requests.get());
                asked.push(name.clone());
            }
        }
        for name in &dropped {
            self.channels.borrow_mut().remove(name);
        }
        for (word, names) in [("LISTEN", &asked), ("UNLISTEN", &dropped)] {
            if names.is_empty() {
                continue;
            }
            let sql: Vec<String> = names
                .iter()
                .map(|name| format!("{word} \"{}\"", name.replace('"', "\"\"")))
                .collect();
            encode::query(&mut request, sql.join(";").as_bytes()).map_err(std::io::Error::other)?;
            let channels = if word == "LISTEN" { names.clone() } else { Vec::new() };
            under_way.push_back(Asked { number: self.requests.get(), channels });
        }
        if request.is_empty() {
            return Ok(());
        }
        conn.stream.write_all(&request).await
    }

    /// The server has answered a LISTEN of these channels.
    fn answered(&self, asked: &Asked, failed: Option<Refused>) {
        if let Some(refused) = failed {
            return self.refuse(&refused);
        }
        let mut channels = self.channels.borrow_mut();
        let sent = State::Sent(asked.number);
        for name in &asked.channels {
            // Given up and wanted again meanwhile: it is asked for again.
            if let Some(channel) = channels.get_mut(name).filter(|c| c.state == sent) {
                channel.state = State::Heard;
                for client in &channel.clients {
                    client.signal(|signals| signals.heard = true);
                }
            }
        }
    }

    /// Whoever waits for a channel is told why there is none.
    fn refuse(&self, refused: &Refused) {
        for channel in self.channels.borrow_mut().values_mut() {
            if channel.state == State::Heard {
                continue;
            }
            channel.state = State::Wanted;
            for client in &channel.clients {
                let mailbox = client.mailbox();
                *mailbox.refused.borrow_mut() = Some(refused.clone());
                client.signal(|signals| signals.heard = true);
            }
        }
    }

    /// The connection is gone: all who listened are told, and it is tried again.
    fn interrupted(&self) {
        for channel in self.channels.borrow_mut().values_mut() {
            if channel.state == State::Heard {
                for client in &channel.clients {
                    client.mailbox().note_gap();
                    client.wake();
                }
            }
            channel.state = State::Wanted;
        }
    }

    fn forget_abandoned(&self) {
        self.channels.borrow_mut().retain(|_, channel| !channel.clients.is_empty());
    }

    /// Puts a notification into the mailboxes of those who listen.
    fn deliver(&self, thread: &Thread, frame: &[u8]) {
        let body = frame.get(HEADER_LEN + 4..).unwrap_or_default();
        let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
        let Ok(name) = std::str::from_utf8(name) else { return };
        let limit = thread.settings.limits.held_bytes_max.count();
        if let Some(channel) = self.channels.borrow().get(name) {
            for client in &channel.clients {
                let mailbox = client.mailbox();
                if mailbox.heard.borrow().contains(name) {
                    mailbox.put(frame, limit);
                    client.wake();
                } else if mailbox.committing.get() {
                    mailbox.put_early(name, frame, limit);
                }
            }
        }
    }
}

/// A connection to the home shard's primary, out of its pool: it counts in the
/// node's budget and not in the pool's size, which is for statements.
async fn connect(
    thread: &Rc<Thread>,
    database: &Rc<Database>,
    user: &Rc<str>,
) -> Result<Box<Conn>, Refused> {
    let gone = || Refused::new(CANT_CONNECT, "the home shard can't be reached to listen");
    let node = database.primary_of(home_shard(database)).ok_or_else(gone)?;
    let pool = thread.pool(database, user, node).ok_or_else(gone)?;
    if let Some(places) = pool.take_places() {
        let made = connect::connect(thread, database, &pool, places.outside_pool()).await;
        let shard = database.shard_name(home_shard(database));
        return made.map_err(|error| error.refused(&shard));
    }
    let mut conn = match thread.checkout(database, &pool) {
        Ok(conn) => conn,
        Err(waiting) => {
            let limit = clock::duration(thread.settings.pool.checkout_timeout);
            match tokio::time::timeout(limit, waiting.outcome()).await {
                Ok(outcome) => outcome?,
                Err(_) => {
                    return Err(waiting.last_error().unwrap_or_else(|| {
                        Refused::new(TOO_MANY, "no connection came free to listen with")
                            .hint("raise pool.size_max, shorten transactions, or retry later")
                    }));
                }
            }
        }
    };
    if conn.counted {
        conn.counted = false;
        conn.places = conn.places.take().map(Places::outside_pool);
        pool.closed();
        thread.open_connections(database, &pool);
    }
    Ok(conn)
}

fn home_shard(database: &Database) -> ShardId {
    database.with_map(|map, _| map.home())
}

fn is_current(database: &Database, conn: &Conn) -> bool {
    !database.gate.is_paused()
        && !conn.pool.is_outdated(conn.generation)
        && database.primary_of(home_shard(database)) == Some(conn.pool.node())
}

fn refusal_of(frame: &[u8]) -> Refused {
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    match ErrorFields::decode(body) {
        Ok(fields) => Refused::new(
            fields.code().unwrap_or(CANT_CONNECT),
            String::from_utf8_lossy(fields.message()).into_owned(),
        ),
        Err(_) => Refused::new(CANT_CONNECT, "the home shard can't listen"),
    }
}

impl Driver {
    /// Has the channels that the session asks for listened to; true if they are.
    pub(super) fn begin_listening(&mut self) -> bool {
        let listener = self.thread.listener(&self.database, &self.entry.user);
        let mailbox = self.entry.mailbox();
        mailbox.refused.borrow_mut().take();
        if listener.subscribe(&self.entry, self.session.asked_channels()) {
            self.session.note_listening();
            return true;
        }
        self.listening = Some(clock::now());
        false
    }

    /// The listener has news for a session that waits.
    pub(super) fn on_heard(&mut self) {
        if self.listening.is_none() {
            return;
        }
        let refused = self.entry.mailbox().refused.borrow_mut().take();
        let asked = self.session.asked_channels();
        let heard = self
            .thread
            .listeners
            .find(self.database.index, &self.entry.user)
            .is_some_and(|listener| listener.hears(asked));
        match refused {
            _ if heard => self.session.note_listening(),
            Some(refused) => self.session.refuse_checkout(refused),
            None => return,
        }
        self.listening = None;
        self.refed_by_signal();
    }

    /// Follows what the session listens to.
    #[inline]
    pub(super) fn follow_channels(&mut self) {
        let committing = self.session.is_committing_channels();
        if let Some(mailbox) = self.entry.mailbox_if_any()
            && mailbox.committing.replace(committing)
            && !committing
            && !self.session.has_changed_channels()
        {
            // It was in vain.
            mailbox.early.borrow_mut().clear();
        }
        if let Some(channels) = self.session.take_changed_channels() {
            let limit = self.thread.settings.limits.held_bytes_max.count();
            self.entry.mailbox().hear(channels, limit);
            if let Some(listener) =
                self.thread.listeners.find(self.database.index, &self.entry.user)
            {
                listener.keep(&self.entry, channels);
            }
        }
    }

    /// Gives the client what waits for it, if it is between its units and in no
    /// transaction.
    pub(super) fn deliver_mail(&mut self) -> Moved {
        let Some(mailbox) = self.entry.mailbox_if_any() else { return Moved::Nothing };
        let ready = mailbox.full.get()
            && !self.closing
            && self.out.is_empty()
            && self.session.is_between_units()
            && !self.is_waiting()
            && !self.session.in_transaction(self.held.machine());
        if !ready {
            return Moved::Nothing;
        }
        mailbox.full.set(false);
        self.out.append(&mut mailbox.frames.borrow_mut());
        if let Some(message) = mailbox.gap.take() {
            let notice = Refused::new(WARNING, message)
                .hint("look for what the notifications would have told");
            self.out.extend_from_slice(&notice.warning_frame());
        }
        Moved::Something
    }

    /// The client leaves: nobody listens for it any more.
    pub(super) fn stop_listening(&self) {
        if self.entry.mailbox_if_any().is_some()
            && let Some(listener) =
                self.thread.listeners.find(self.database.index, &self.entry.user)
        {
            listener.keep(&self.entry, &BTreeSet::new());
        }
    }
}

/// `sqlclient_unable_to_establish_sqlconnection`
const CANT_CONNECT: SqlState = SqlState::new("08001");
const TOO_MANY: SqlState = SqlState::new("53300");
const WARNING: SqlState = SqlState::new("01000");
const CHUNK: usize = 16 * 1024;
/// Longest frame that the server may send, in bytes; a payload is shorter than
/// 8,000.
const FRAME_MAX: usize = 256 * 1024;
/// How often a connection that listens looks whether it is still the right one.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long the connection stays when nobody listens any more.
const LINGER: Millis = Millis::new(10_000);
/// Waits after a connection was lost or could not be made.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(2);
/// Notifications that wait for a COMMIT which brings their channels.
const EARLY_MAX: usize = 64;
