//! Sessions that are passed through as they are: replication, whose messages
//! no session of ours understands.
//!
//! The client has a backend of its own on the primary, for as long as both
//! stay. It counts in the node's budget, and in no pool.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::net::clock;
use crate::net::stream::Stream;
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::session::Refused;
use crate::types::NodeId;

use super::client::{ClientEntry, Running, RunningKind, State};
use super::connect::{self, Raw};
use super::crew::Places;
use super::login::{Hello, refuse};
use super::share::{Farewell, NodeShare};
use super::thread::{Database, Thread};

/// A backend for one client.
pub(super) struct Backend {
    raw: Raw,
    database: Rc<Database>,
    /// How often the database's connections had been told to close.
    generation: u64,
    node: NodeId,
    share: Rc<NodeShare>,
    places: Places,
}

impl Thread {
    /// A backend for a client that wants to replicate.
    ///
    /// # Errors
    /// The database has shards or is paused, or the primary can't be had.
    pub(super) async fn open_raw(
        self: &Rc<Self>,
        database: &Rc<Database>,
        hello: &Hello,
    ) -> Result<Backend, Refused> {
        let map = database.map();
        if map.is_sharded() {
            let message = format!(
                "database \"{}\" has shards and can't be replicated as one",
                hello.database
            );
            return Err(refuse("0A000", message)
                .hint("replicate from each shard: connect to its server itself"));
        }
        refuse_while_paused(database)?;
        let generation = database.gate.generation();
        let home = map.home();
        let node = database.primary_of(home);
        let entry = node.and_then(|node| map.node(node));
        let (Some(node), Some(entry)) = (node, entry) else {
            return Err(refuse("57P03", "it is not known which server is the primary"));
        };
        let share = self.node_share(entry.endpoint.to_string());
        let Some(permit) = share.take() else {
            return Err(refuse("53300", "the primary has no connection left for replication")
                .hint("raise pool.connections_per_node_max"));
        };
        let places = Places::new((permit, std::sync::Arc::clone(share.ledger())), None);
        let limit = clock::duration(self.settings.timeouts.connect);
        let connecting = connect::raw(self, database, node, hello);
        let made = match tokio::time::timeout(limit, connecting).await {
            Ok(made) => made,
            Err(_) => Err(connect::ConnectError::Timeout),
        };
        match made {
            Ok(raw) => {
                if let Err(refused) = refuse_while_paused(database) {
                    share.bury(raw.stream, Some(places), Farewell::Say);
                    return Err(refused);
                }
                let database = Rc::clone(database);
                Ok(Backend { raw, database, generation, node, share, places })
            }
            Err(error) => {
                tracing::warn!(database = %database.name, %error, "no backend for replication");
                Err(error.refused(&database.shard_name(home)))
            }
        }
    }
}

impl Backend {
    /// Passes everything on, until one side ends or the client is to leave.
    pub(super) async fn serve(
        self,
        mut client: Stream,
        early: Vec<u8>,
        hello: &Hello,
        entry: &Rc<ClientEntry>,
    ) {
        let Self { mut raw, database, generation, node, share, places } = self;
        entry.running.borrow_mut().note(Running {
            node,
            key: Rc::new(raw.key.clone()),
            born: clock::now(),
            uses: 1,
            prepared: 0,
            generation,
            kind: RunningKind::Replication,
        });
        let told = raw.params.for_client(&hello.user, &hello.settings);
        let mut out = Vec::new();
        for (name, value) in told {
            // A value that can't be said is left out.
            let _left_out = encode::parameter_status(&mut out, name.as_bytes(), value.as_bytes());
        }
        if encode::backend_key_data(&mut out, entry.id, &entry.secret).is_ok() {
            encode::ready_for_query(&mut out, TxStatus::Idle);
            out.append(&mut raw.rest);
            let mut up = Pipe::new(early);
            let mut down = Pipe::new(out);
            let passed = std::future::poll_fn(|cx| {
                entry.keep_waker(cx.waker());
                let signals = entry.signals.get();
                if signals.kill || signals.stop {
                    return Poll::Ready(Ok(()));
                }
                if database.gate.is_suspended() {
                    entry.state.set(State::Idle);
                    return Poll::Pending;
                }
                entry.state.set(State::Active);
                up.pass(cx, &mut client, &mut raw.stream)?;
                down.pass(cx, &mut raw.stream, &mut client)?;
                if up.ended || down.ended { Poll::Ready(Ok(())) } else { Poll::Pending }
            });
            let passed: io::Result<()> = passed.await;
            if let Err(error) = passed {
                tracing::debug!(client = entry.id, %error, "replication ended");
            }
        }
        share.bury(raw.stream, Some(places), Farewell::Omit);
        let closing = client.close();
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), closing).await);
    }
}

/// A copy of the server is not told to wait: it comes again by itself.
fn refuse_while_paused(database: &Database) -> Result<(), Refused> {
    if !database.gate.is_paused() {
        return Ok(());
    }
    let message = format!("database \"{}\" is paused", database.name);
    Err(refuse("57P03", message).hint("connect again once an operator has resumed it"))
}

/// One direction.
struct Pipe {
    buf: Vec<u8>,
    /// What of it is not written yet.
    rest: std::ops::Range<usize>,
    unflushed: bool,
    ended: bool,
}

impl Pipe {
    /// A direction in which these bytes go first.
    fn new(mut first: Vec<u8>) -> Self {
        let rest = 0..first.len();
        first.resize(first.len().max(PIPE_BYTES), 0);
        Self { buf: first, rest, unflushed: true, ended: false }
    }

    /// Passes on what can be passed on now; both sides wake the task.
    fn pass(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> io::Result<()> {
        for _ in 0..TURNS {
            while let Some(bytes) = self.buf.get(self.rest.clone()).filter(|rest| !rest.is_empty())
            {
                match to.poll_write(cx, bytes)? {
                    Poll::Ready(written) => self.rest.start += written,
                    Poll::Pending => return Ok(()),
                }
            }
            if self.unflushed {
                match to.poll_flush(cx)? {
                    Poll::Ready(()) => self.unflushed = false,
                    Poll::Pending => return Ok(()),
                }
            }
            match from.poll_read(cx, &mut self.buf)? {
                Poll::Ready(0) => {
                    self.ended = true;
                    return Ok(());
                }
                Poll::Ready(read) => {
                    self.rest = 0..read;
                    self.unflushed = true;
                }
                Poll::Pending => return Ok(()),
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        Ok(())
    }
}

/// What one read takes.
const PIPE_BYTES: usize = 32 * 1024;
/// Reads of one direction in a turn.
const TURNS: usize = 4;
