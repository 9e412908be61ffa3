//! A backend whose client is gone, or has left more on it than may be passed
//! on: what runs is cancelled, what is open is rolled back, what can't be
//! undone is discarded. A backend that does not come clean is closed.

use std::rc::Rc;

use crate::backend::{Event, Expect, OwnPurpose, Refusal, SentAs, SettingsSet};
use crate::net::clock;
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::types::Millis;

use super::cancel::Through;
use super::client::ClientEntry;
use super::conn::Conn;
use super::driver::CANCEL_AGAIN;
use super::thread::Thread;

/// How the client left its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftBehind {
    /// Between units.
    Nothing,
    /// An extended batch without its Sync.
    OpenBatch,
    /// In the middle of a message that was being passed: hopeless.
    HalfMessage,
}

impl Thread {
    /// Cleans `conn` in a task of its own, then gives it back.
    /// `client` is who had it.
    pub(super) fn clean_up(
        self: &Rc<Self>,
        client: Option<&Rc<ClientEntry>>,
        conn: Box<Conn>,
        left: LeftBehind,
        reset: bool,
    ) {
        let client = client.cloned();
        let thread = Rc::clone(self);
        self.spawn(async move {
            let database = conn.pool.database();
            let (node, key) = (conn.pool.node(), Rc::clone(&conn.key));
            let mut conn = conn;
            if left == LeftBehind::HalfMessage || !conn.out.is_empty() {
                thread.send_cancel(database, node, &key).await;
                return;
            }
            if !conn.machine.is_settled() || left == LeftBehind::OpenBatch {
                thread.send_cancel(database, node, &key).await;
            }
            let limit = clock::duration(CLEANUP_WAIT);
            let cleaning = async {
                let mut cleaned = std::pin::pin!(clean(&thread, &mut conn, left, reset));
                loop {
                    tokio::select! {
                        // Cancel-safe: it is polled on, not dropped.
                        cleaned = &mut cleaned => return cleaned,
                        () = tokio::time::sleep(clock::duration(CANCEL_AGAIN)) => {}
                    }
                    // A server that has not begun the statement ignores a cancel
                    // request. Nothing goes on before this one is through.
                    if thread.send_cancel(database, node, &key).await == Through::Unknown {
                        return None;
                    }
                }
            };
            let cleaned = tokio::time::timeout(limit, cleaning).await;
            if matches!(cleaned, Ok(Some(()))) {
                match &client {
                    Some(client) => thread.hand_back(client, conn),
                    None => thread.release(conn),
                }
            }
        });
    }
}

async fn clean(thread: &Rc<Thread>, conn: &mut Conn, left: LeftBehind, reset: bool) -> Option<()> {
    let mut request = Vec::new();
    if conn.machine.is_copying_in() {
        encode::copy_fail(&mut request, b"client is gone").ok()?;
        conn.machine.end_copy_in();
    }
    if left == LeftBehind::OpenBatch {
        // What the batch has done is not committed by a Sync that its client
        // never sent.
        encode::parse(&mut request, b"", MUST_FAIL, &[]).ok()?;
        let refusal = Refusal { frame: Box::default(), simple: SentAs::Batch };
        conn.machine.push(Expect::Refuse(Box::new(refusal)));
        encode::sync(&mut request);
        conn.machine.push(Expect::Sync);
    }
    conn.stream.write_all(&request).await.ok()?;
    settle(conn).await?;
    if conn.machine.status() != TxStatus::Idle {
        run(conn, b"ROLLBACK").await?;
    }
    if conn.machine.is_dirty() || reset {
        run(conn, b"DISCARD ALL").await?;
        // A function may have made a temporary schema, which nothing undoes: it
        // would stay in sight of whoever comes next.
        if run(conn, HAS_TEMPORARY_SCHEMA).await?.as_deref() != Some(b"SELECT 0\0") {
            return None;
        }
        let defaults = thread.interner.borrow_mut().intern(SettingsSet::default());
        conn.machine.reset_done(defaults);
    }
    (conn.machine.status() == TxStatus::Idle).then_some(())
}

/// Runs a statement of ours: its command tag. `None` if it failed.
async fn run(conn: &mut Conn, sql: &[u8]) -> Option<Option<Box<[u8]>>> {
    let mut request = Vec::new();
    encode::query(&mut request, sql).ok()?;
    conn.machine.begin_unit(None);
    conn.machine.push(Expect::OwnQuery(OwnPurpose::Prelude));
    conn.stream.write_all(&request).await.ok()?;
    settle(conn).await
}

/// Reads replies until none is owed; nobody sees them. The last command tag of
/// ours.
async fn settle(conn: &mut Conn) -> Option<Option<Box<[u8]>>> {
    let mut chunk = vec![0; 16 * 1024];
    let mut nobody = Vec::new();
    let mut events = Vec::new();
    let mut failed = false;
    let mut last = None;
    while !conn.machine.is_settled() {
        let read = conn.stream.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        conn.carry.extend_from_slice(chunk.get(..read)?);
        let relayed = conn.machine.relay(&conn.carry, &mut nobody, &mut events).ok()?;
        conn.carry.drain(..relayed.consumed);
        conn.settle();
        nobody.clear();
        for event in &mut events {
            if let Event::OwnDone(_, tag) = event {
                last = tag.take();
            }
        }
        failed |= events.iter().any(|event| matches!(event, Event::OwnFailed(..)));
        if events.iter().any(|event| matches!(event, Event::Error { fatal: true, .. })) {
            return None;
        }
        let copies = events.iter().find_map(|event| match event {
            Event::CopyIn(sent_as) => Some(*sent_as),
            _ => None,
        });
        if let Some(sent_as) = copies {
            let mut request = Vec::new();
            encode::copy_fail(&mut request, b"client is gone").ok()?;
            conn.machine.end_copy_in();
            if sent_as == SentAs::Batch {
                // The Sync that was sent ahead has been swallowed.
                encode::sync(&mut request);
                conn.machine.push(Expect::Sync);
            }
            conn.stream.write_all(&request).await.ok()?;
        }
        events.clear();
    }
    (!failed).then_some(last)
}

/// One row if the session has a temporary schema.
const HAS_TEMPORARY_SCHEMA: &[u8] =
    b"SELECT FROM (SELECT pg_catalog.pg_my_temp_schema()) AS s (o) WHERE o OPERATOR(pg_catalog.<>) 0";
/// No server reads this.
const MUST_FAIL: &[u8] = b"keyway: the client is gone";
/// Longest that a backend may take to come clean.
const CLEANUP_WAIT: Millis = Millis::new(10_000);
