//! The walk over a client's messages.
//!
//! A message that needs a backend which the session does not hold stays
//! unconsumed: the shell checks one out and feeds the same bytes again.
//! Messages that go on unchanged stay one run of the input.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::{Backend, Expect, OwnPurpose, Refusal, SentAs};
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, Header, decode_header};
use crate::protocol::tag::frontend as tag;
use crate::route::{RouteError, Template, World};
use crate::shardmap::Map;
use crate::sql::statement::{Facts, Kind};

use super::effects::Situation;
use super::refusal::{LIMIT_EXCEEDED, NOT_SUPPORTED, PROTOCOL_VIOLATION, Refused};
use super::turns::{Turn, refuse_unread};
use super::{Env, Fed, Holds, Phase, Session, Step, Stream, Tx};

/// One call of [`Session::feed`].
pub(super) struct Feed<'f, 'e> {
    pub(super) s: &'f mut Session,
    pub(super) env: &'f mut Env<'e>,
    pub(super) input: &'f [u8],
    /// Where the next message starts.
    pub(super) at: usize,
    run: usize,
}

impl Session {
    /// Reads what came from the client, as far as it can be acted on.
    /// `input` starts where the last call stopped consuming.
    pub fn feed(&mut self, input: &[u8], env: &mut Env<'_>) -> Fed {
        let mut feed = Feed { s: self, env, input, at: 0, run: 0 };
        let sharded = feed.map().is_sharded();
        feed.s.kept.note_sharded(sharded);
        if feed.env.catalog.translates() {
            feed.note_numbers();
        }
        let step = feed.walk();
        let direct: Range<usize> = feed.run.min(feed.at)..feed.at;
        Fed { consumed: feed.at, direct, step }
    }
}

impl Feed<'_, '_> {
    fn walk(&mut self) -> Step {
        loop {
            if self.s.stream.left > 0 && !self.pass_stream() {
                return Step::Read;
            }
            if self.s.is_awaiting() {
                return Step::Await;
            }
            let rest = self.input.get(self.at..).unwrap_or_default();
            let header = match decode_header(rest) {
                Ok(Some(header)) => header,
                Ok(None) => return Step::Read,
                Err(error) => {
                    return self.break_off(&Refused::new(error.sqlstate(), error.to_string()));
                }
            };
            let end = self.at.saturating_add(HEADER_LEN).saturating_add(header.body_len);
            let step = match self.input.get(self.at + HEADER_LEN..end) {
                Some(body) => self.on_message(header.tag, body, end),
                None => self.on_partial(header),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Passes a bulk message's bytes; true once it is through.
    fn pass_stream(&mut self) -> bool {
        let available = self.input.len() - self.at;
        let take = self.s.stream.left.min(available);
        self.s.stream.left -= take;
        let end = self.at + take;
        if self.s.stream.discard {
            self.consume(end);
        } else {
            self.forward(end);
        }
        self.s.stream.left == 0
    }

    fn on_message(&mut self, kind: u8, body: &[u8], end: usize) -> Option<Step> {
        match self.s.phase {
            Phase::CopySimple | Phase::CopyBatch => return self.on_copy_message(kind, end),
            Phase::Skip | Phase::SkipBound => return self.on_skipped(kind, body, end),
            Phase::Idle
            | Phase::Batch
            | Phase::Await
            | Phase::Own
            | Phase::Gather
            | Phase::Settle => {}
        }
        if let Some(step) = self.settle_first(kind, body) {
            return Some(step);
        }
        match kind {
            tag::QUERY => self.on_query(body, end),
            tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::FLUSH
            | tag::SYNC => self.on_extended(kind, body, end),
            tag::FUNCTION_CALL => self.on_function_call(end),
            // What is left of a COPY that the server has already ended.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {
                self.consume(end);
                None
            }
            tag::TERMINATE => {
                self.consume(end);
                Some(Step::Close)
            }
            other => Some(self.break_off(&Refused::new(
                PROTOCOL_VIOLATION,
                format!("invalid frontend message type {other}"),
            ))),
        }
    }

    /// Waits for the replies that decide what this message means: a simple
    /// query within a batch is ignored if the batch has failed, and so is COPY
    /// data if the COPY has; a setting of the router's is undone with what ran
    /// before it.
    #[inline(always)]
    fn settle_first(&mut self, kind: u8, body: &[u8]) -> Option<Step> {
        if self.s.phase == Phase::Batch && self.s.unit_open {
            self.settle_in_batch(kind, body)
        } else {
            None
        }
    }

    fn settle_in_batch(&mut self, kind: u8, body: &[u8]) -> Option<Step> {
        let depends = match kind {
            tag::EXECUTE => self.sets_keyway(kind, body),
            tag::PARSE | tag::BIND => {
                self.s.effects.iter().flatten().any(super::effects::Effect::moves_path)
            }
            tag::QUERY | tag::FUNCTION_CALL => true,
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => self.s.copy_pending,
            // Whoever says goodbye is answered first.
            tag::TERMINATE => true,
            _ => false,
        };
        (depends && self.owes()).then(|| self.settle())
    }

    /// True if the backend owes a reply.
    fn owes(&self) -> bool {
        self.env.backend.as_ref().is_some_and(|(backend, _)| !backend.owes_nothing())
    }

    /// Waits for all that is owed.
    pub(super) fn settle(&mut self) -> Step {
        self.inject(|out| {
            encode::flush(out);
            Ok::<(), ()>(())
        });
        self.s.phase = Phase::Settle;
        Step::Await
    }

    fn on_copy_message(&mut self, kind: u8, end: usize) -> Option<Step> {
        let simple = matches!(self.s.phase, Phase::CopySimple);
        match kind {
            tag::COPY_DATA => self.forward(end),
            tag::COPY_DONE | tag::COPY_FAIL => {
                self.forward(end);
                self.end_copy(simple);
            }
            // A copying server would swallow them.
            tag::FLUSH | tag::SYNC => self.consume(end),
            tag::TERMINATE => {
                self.consume(end);
                return Some(Step::Close);
            }
            _ => {
                let sent = self.inject(|out| {
                    encode::copy_fail(out, b"unexpected message during COPY from stdin")
                });
                debug_assert!(sent, "a short message can be encoded");
                self.end_copy(simple);
            }
        }
        None
    }

    fn end_copy(&mut self, simple: bool) {
        if let Some(backend) = self.backend() {
            backend.end_copy_in();
        }
        self.s.phase = if simple { Phase::Await } else { Phase::Batch };
    }

    /// After an error everything up to Sync is ignored.
    fn on_skipped(&mut self, kind: u8, body: &[u8], end: usize) -> Option<Step> {
        match kind {
            tag::SYNC if self.s.phase == Phase::SkipBound => {
                self.s.phase = Phase::Batch;
                self.on_extended(kind, body, end)
            }
            tag::SYNC => {
                self.s.phase = Phase::Batch;
                self.on_sync(body, end)
            }
            tag::TERMINATE => {
                if self.s.phase == Phase::SkipBound && self.owes() {
                    return Some(self.settle());
                }
                self.consume(end);
                Some(Step::Close)
            }
            _ => {
                self.consume(end);
                None
            }
        }
    }

    /// A message that is not here whole.
    fn on_partial(&mut self, header: Header) -> Option<Step> {
        if !is_known(header.tag) {
            return Some(self.break_off(&Refused::new(
                PROTOCOL_VIOLATION,
                format!("invalid frontend message type {}", header.tag),
            )));
        }
        let whole = header.frame_len();
        let copying = matches!(self.s.phase, Phase::CopySimple | Phase::CopyBatch);
        if let Some(step) = self.settle_first(header.tag, b"") {
            return Some(step);
        }
        if header.tag == tag::COPY_DATA {
            self.s.stream = Stream { left: whole, discard: !copying };
            return None;
        }
        if matches!(self.s.phase, Phase::Skip | Phase::SkipBound) && header.tag != tag::SYNC {
            self.s.stream = Stream { left: whole, discard: true };
            return None;
        }
        let limit = match header.tag {
            tag::QUERY | tag::PARSE => self.s.limits.statement_bytes_max,
            tag::BIND => return self.on_partial_bind(header),
            tag::FUNCTION_CALL => self.s.limits.held_bytes_max,
            _ => SMALL_MESSAGE_MAX,
        };
        if header.body_len <= limit {
            return Some(Step::Read);
        }
        let by_statement = self.s.turn == Turn::Statement;
        if header.tag == tag::QUERY && !self.map().is_sharded() && !by_statement {
            return self.stream_query(whole);
        }
        let refused = Refused::new(
            LIMIT_EXCEEDED,
            format!(
                "message of {} bytes is longer than the limit of {limit} bytes",
                header.body_len
            ),
        )
        .hint("send large values as parameters or with COPY, or raise limits.statement_bytes_max");
        match header.tag {
            tag::QUERY => {
                self.s.stream = Stream { left: whole, discard: true };
                self.refuse_query(refused.frame().into())
            }
            tag::PARSE => {
                self.s.stream = Stream { left: whole, discard: true };
                self.refuse_in_batch(refused.frame().into())
            }
            _ => Some(self.break_off(&refused)),
        }
    }

    /// Where the message at hand ends.
    pub(super) fn message_end(&self) -> usize {
        let rest = self.input.get(self.at..).unwrap_or_default();
        let whole = decode_header(rest).ok().flatten().map_or(rest.len(), Header::frame_len);
        self.at.saturating_add(whole).min(self.input.len())
    }

    // === bytes ===

    /// The input up to `end` goes to the backend as it is.
    pub(super) fn forward(&mut self, end: usize) {
        self.at = end;
    }

    /// The input up to `end` is done with and goes nowhere.
    pub(super) fn consume(&mut self, end: usize) {
        self.flush_run();
        self.at = end;
        self.run = end;
    }

    fn flush_run(&mut self) {
        if let Some(run) = self.input.get(self.run..self.at) {
            self.env.to_backend.extend_from_slice(run);
        }
        self.run = self.at;
    }

    /// Appends a message of ours for the backend. False if it can't be
    /// encoded, which leaves nothing behind.
    pub(super) fn inject<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> bool {
        self.flush_run();
        let before = self.env.to_backend.len();
        let written = write(self.env.to_backend).is_ok();
        if !written {
            self.env.to_backend.truncate(before);
        }
        written
    }

    // === facts ===

    /// The backend that the session holds.
    pub(super) fn backend(&mut self) -> Option<&mut Backend> {
        self.env.backend.as_mut().map(|(backend, _)| &mut **backend)
    }

    /// The map of the transaction, or the one in force.
    pub(super) fn map(&self) -> &Map {
        match &self.s.tx_map {
            Some((map, _)) => map,
            None => self.env.map,
        }
    }

    /// The same, to keep.
    pub(super) fn shared_map(&self) -> Arc<Map> {
        Arc::clone(self.s.tx_map.as_ref().map_or(self.env.map, |(map, _)| map))
    }

    pub(super) fn map_serial(&self) -> u64 {
        let map = self.s.tx_map.as_ref().map_or(self.env.map_serial, |(_, serial)| *serial);
        // A template belongs to a map and a catalog; the catalog is always the
        // newest, also within a transaction.
        // Names are looked up anew under another path, by servers too.
        map ^ self.env.catalog_serial.rotate_left(32) ^ self.s.search_path.fingerprint()
    }

    /// True if the backend is in a transaction.
    pub(super) fn in_backend_transaction(&self) -> bool {
        self.env.backend.as_ref().is_some_and(|(b, _)| b.status() != TxStatus::Idle)
    }

    /// True if the backend is in a transaction that has failed, as far as one
    /// can know before the batch at hand is answered.
    pub(super) fn is_backend_failed(&self) -> bool {
        !(self.s.unit_open && self.s.healed_in_batch)
            && self.env.backend.as_ref().is_some_and(|(b, _)| b.status() == TxStatus::Failed)
    }

    pub(super) fn situation(&self) -> Situation {
        Situation {
            sharded: self.map().is_sharded(),
            in_transaction: self.in_backend_transaction() || matches!(self.s.tx, Tx::Lazy(_)),
            // With shards it may be another backend than the one of before.
            held: !self.s.holds.is_empty() && !self.map().is_sharded(),
            turn: self.s.turn,
            temporary: self.s.kept.has_temporary(),
        }
    }

    /// The status that a ReadyForQuery of ours tells.
    pub(super) fn status(&self) -> TxStatus {
        match &self.s.tx {
            Tx::Lazy(lazy) if lazy.is_failed() => TxStatus::Failed,
            Tx::Lazy(_) => TxStatus::InTransaction,
            Tx::Backend => {
                self.env.backend.as_ref().map_or(TxStatus::Idle, |(backend, _)| backend.status())
            }
        }
    }

    pub(super) fn say_ready(&mut self) {
        let status = self.status();
        encode::ready_for_query(self.env.to_client, status);
    }

    /// Reads `text`. `Ok(None)`: the client's settings make it unreadable, and
    /// the database is not sharded.
    pub(super) fn plan(&mut self, text: &[u8]) -> Result<Option<Rc<Template>>, Refused> {
        if self.s.hidden.hides(text) {
            return match (self.map().is_sharded(), self.s.turn) {
                (true, _) => Err(hidden()),
                (false, Turn::Statement) => Err(refuse_unread()),
                (false, Turn::Transaction) => Ok(None),
            };
        }
        self.note_default_path();
        let map = match &self.s.tx_map {
            Some((map, _)) => map,
            None => self.env.map,
        };
        let mut world = World::of_map(map, &self.s.search_path);
        world.catalog = Some(self.env.catalog);
        let template = self.env.planner.plan(text, &world).map_err(|error| refuse_route(&error))?;
        if self.s.turn == Turn::Statement {
            Turn::admit(&template)?;
        }
        if template.is_placed_by_comment() {
            self.s.may_place()?;
        }
        // A text that can be read may still have parameters that can't.
        if self.s.hidden.any()
            && self.map().is_sharded()
            && !template.statements().iter().all(is_about_the_session)
        {
            return Err(hidden());
        }
        Ok(Some(template))
    }

    /// True if a name that the session does not know may be one that the
    /// held backend knows: it came in a text that was not read.
    pub(super) fn server_may_know(&self) -> bool {
        self.s.hidden.any() && !self.map().is_sharded() || self.s.holds.contains(Holds::UNTRACKED)
    }

    // === ends ===

    /// The client can't be understood any more.
    pub(super) fn break_off(&mut self, refused: &Refused) -> Step {
        self.s.refusals.push(refused.state);
        self.env.to_client.extend_from_slice(&refused.fatal_frame());
        Step::Close
    }

    /// Makes the transaction fail, if the router alone knows of it.
    pub(super) fn fail_lazy(&mut self) {
        if let Tx::Lazy(lazy) = &mut self.s.tx {
            lazy.fail();
        }
    }

    /// Sends a statement that must fail and whose error the client sees as
    /// `frame`: the backend's transaction fails with the session's.
    pub(super) fn send_refusal(&mut self, frame: Box<[u8]>, sent_as: SentAs) {
        let sent = self.inject(|out| match sent_as {
            SentAs::Query => encode::query(out, MUST_FAIL),
            SentAs::Batch => encode::parse(out, b"kw_refused", MUST_FAIL, &[]),
        });
        debug_assert!(sent, "a short message can be encoded");
        if let Some(backend) = self.backend() {
            backend.push(Expect::Refuse(Box::new(Refusal { frame, simple: sent_as })));
        }
    }

    /// Brings the held backend to the session's settings and into its
    /// transaction, ahead of the unit that begins. `Some`: that has to be
    /// answered first.
    #[inline]
    pub(super) fn prepare_backend(&mut self) -> Option<Step> {
        let (backend, _) = self.env.backend.as_ref()?;
        let like_session = Rc::ptr_eq(backend.settings(), &self.s.settings)
            && (matches!(self.s.tx, Tx::Backend) || self.s.pending.is_outside());
        if like_session || backend.status() != TxStatus::Idle {
            return None;
        }
        self.change_backend()
    }

    #[cold]
    fn change_backend(&mut self) -> Option<Step> {
        let wanted = Rc::clone(&self.s.settings);
        let outside = self.s.pending.is_outside();
        let (backend, _) = self.env.backend.as_mut()?;
        if !Rc::ptr_eq(backend.settings(), &wanted) {
            let mut sql = String::new();
            wanted.transition(backend.settings(), &mut sql);
            if !sql.is_empty() {
                // Alone: in one query with BEGIN it would be undone by the
                // client's ROLLBACK.
                return Some(self.send_prelude(sql.as_bytes()));
            }
            backend.set_settings(wanted);
        }
        if let (Tx::Lazy(lazy), false) = (&self.s.tx, outside) {
            if lazy.can_not_fail() {
                self.open_lazily();
            } else {
                let mut sql = Vec::new();
                lazy.write_sql(&mut sql);
                return Some(self.send_prelude(&sql));
            }
        }
        None
    }

    fn send_prelude(&mut self, sql: &[u8]) -> Step {
        self.s.resume = self.s.phase;
        self.s.phase = Phase::Own;
        self.send_own(sql, OwnPurpose::Prelude);
        Step::Await
    }

    /// Sends BEGIN ahead of the first statement, which need not wait for it.
    fn open_lazily(&mut self) {
        let mut begin = Vec::new();
        if let Tx::Lazy(lazy) = &self.s.tx {
            lazy.write_sql(&mut begin);
        }
        self.send_own(&begin, OwnPurpose::Begin);
        if let Tx::Lazy(lazy) = std::mem::replace(&mut self.s.tx, Tx::Backend) {
            self.s.note_opened(&lazy);
            for effect in lazy.into_effects() {
                self.s.log.push(effect);
            }
        }
    }

    pub(super) fn send_own(&mut self, sql: &[u8], purpose: OwnPurpose) {
        if self.inject(|out| encode::query(out, sql))
            && let Some(backend) = self.backend()
        {
            backend.push(Expect::OwnQuery(purpose));
        }
    }

    /// Notes the temporary tables that a statement makes on the held backend.
    pub(super) fn note_temporary(&mut self, template: &Template) {
        if let Some((_, shard)) = &self.env.backend {
            self.s.note_temporary(template.temporary(), *shard);
        }
    }

    /// Notes what a statement asks for before it is sent.
    pub(super) fn hold_and_mark(&mut self, holds: Holds, dirty: bool) {
        self.s.holds.add(holds);
        if let Some((_, shard)) = &self.env.backend
            && !holds.is_empty()
        {
            self.s.kept.add(*shard, holds);
        }
        if let Some(backend) = self.backend() {
            if dirty {
                backend.mark_dirty();
            }
            if holds.contains(Holds::TEMP) {
                backend.spoil();
            }
        }
    }

    /// Fixes the map for the transaction that this unit may open.
    pub(super) fn fix_map(&mut self) {
        if self.s.tx_map.is_none() {
            self.s.tx_map = Some((Arc::clone(self.env.map), self.env.map_serial));
        }
    }
}

/// True for statements that read no key, so that a session can be brought back
/// to settings under which keys can be read.
fn is_about_the_session(facts: &Facts) -> bool {
    matches!(
        facts.kind,
        Kind::Set | Kind::Reset | Kind::Show | Kind::Discard | Kind::Transaction | Kind::Empty
    )
}

/// The refusal of a text that hides its keys.
fn hidden() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "a sharded database reads keys from the statement's text, which these settings hide",
    )
    .hint("SET client_encoding = 'UTF8', and standard_conforming_strings = on")
}

/// A routing error in the client's words.
pub(super) fn refuse_route(error: &RouteError) -> Refused {
    let mut refused = Refused::new(error.sqlstate(), error.to_string());
    refused.hint = error.hint();
    refused
}

/// False for bytes that open no message of a client's.
const fn is_known(kind: u8) -> bool {
    matches!(
        kind,
        tag::QUERY
            | tag::PARSE
            | tag::BIND
            | tag::DESCRIBE
            | tag::EXECUTE
            | tag::CLOSE
            | tag::FLUSH
            | tag::SYNC
            | tag::FUNCTION_CALL
            | tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_FAIL
            | tag::TERMINATE
    )
}

/// No server reads this.
pub(super) const MUST_FAIL: &[u8] = b"keyway: refused by the router";
/// Messages that are neither statements nor values are never longer.
const SMALL_MESSAGE_MAX: usize = 64 * 1024;
