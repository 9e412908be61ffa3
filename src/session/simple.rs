//! Simple queries: one message, one text of any number of statements, one
//! ReadyForQuery.

use std::rc::Rc;

use crate::backend::{Expect, OwnPurpose, Report, SentAs};
use crate::cluster::Mark;
use crate::protocol::backend::TxStatus;
use crate::protocol::encode;
use crate::protocol::frontend::Query;
use crate::protocol::tag::frontend as tag;
use crate::route::{Route, Targets, Template};
use crate::sql::statement::{Facts, Kind, SessionEffect, TxEffect};
use crate::types::Access;

use super::effects::{Effect, Effects};
use super::feed::Feed;
use super::place::{Everywhere, Place};
use super::read_only::on_replica;
use super::refusal::{
    DUPLICATE_STATEMENT, LIMIT_EXCEEDED, NO_CURSOR, NO_STATEMENT, NOT_SUPPORTED,
    PROTOCOL_VIOLATION, Refused, SYNTAX_ERROR, in_failed_transaction,
};
use super::restore::{Discard, Restoring, restoring};
use super::{Holds, Phase, Span, Step, Stream, Tx, Want};

impl Feed<'_, '_> {
    pub(super) fn on_query(&mut self, body: &[u8], end: usize) -> Option<Step> {
        let Ok(Query(text)) = Query::decode(body) else {
            // In the server's words: a text without its end, or more behind it.
            let what = if body.contains(&0) {
                "invalid message format"
            } else {
                "invalid string in message"
            };
            let refused = Refused::new(PROTOCOL_VIOLATION, what);
            return self.refuse_simple(&refused, end);
        };
        if let Some(frame) = self.s.pending.take_refused() {
            self.s.scatter = None;
            self.consume(end);
            return self.refuse_query(frame);
        }
        self.follow_map();
        if self.s.everywhere.is_some() {
            return self.go_everywhere(text, Some(end));
        }
        if self.s.scatter.is_some() {
            if self.drop_outdated_scatter(body) {
                return Some(Step::Again);
            }
            return self.go_on_scattering(end);
        }
        let again = self.s.pending.take_spread();
        let placed = self.s.pending.is_placed() && !again;
        let template = match self.s.pending.take_template() {
            Some(template) => Some(template),
            None => match self.plan(text) {
                Ok(template) => template,
                Err(refused) => return self.refuse_simple(&refused, end),
            },
        };
        self.s.unnamed.forget();
        let Some(template) = template else { return self.on_unreadable_query(end) };
        if template.is_hot() {
            self.on_plain_query(text, template, placed, end)
        } else {
            self.on_effective_query(text, template, placed, end)
        }
    }

    /// The hot path: one statement that changes neither session nor
    /// transaction.
    fn on_plain_query(
        &mut self,
        text: &[u8],
        template: Rc<Template>,
        placed: bool,
        end: usize,
    ) -> Option<Step> {
        if let Some(refused) = self.refuse_in_failed() {
            return self.refuse_simple(&refused, end);
        }
        if !placed {
            match self.locate_and_place(text, &template) {
                Ok(Place::Here) => {}
                Ok(Place::Need(want)) => return Some(self.ask(want, Some(template))),
                Ok(Place::Fresh(want)) => return Some(self.await_fresh(want, Some(template))),
                Ok(Place::Several(shards)) => {
                    return self.scatter_query(text, template, &shards, end);
                }
                Ok(Place::Wait) => return Some(Step::Hold),
                Ok(Place::Refuse(refused)) | Err(refused) => {
                    return self.refuse_simple(&refused, end);
                }
            }
        }
        if let Some(step) = self.prepare_backend() {
            self.s.pending.keep(template);
            return Some(step);
        }
        self.send_text(text, &template, Report::Nothing, end)
    }

    pub(super) fn locate_and_place(
        &mut self,
        text: &[u8],
        template: &Template,
    ) -> Result<Place, Refused> {
        let route = self.located(text, template)?;
        Ok(self.place(template, &route))
    }

    #[inline]
    fn located(&self, text: &[u8], template: &Template) -> Result<Route, Refused> {
        self.locate(template, text, self.env.planner.literals(), None)
    }

    /// Asks the shell for a backend; the message stays for the next feed.
    pub(super) fn ask(&mut self, want: Want, template: Option<Rc<Template>>) -> Step {
        match template {
            Some(template) => self.s.pending.keep(template),
            None => self.s.pending.place(),
        }
        Step::Checkout(want)
    }

    /// The client's query goes on as it came.
    /// `template` says what it does; nobody knows if it is `None`.
    fn send_query(
        &mut self,
        report: Report,
        template: Option<&Template>,
        end: usize,
    ) -> Option<Step> {
        let mark = self.s.pending.mark();
        self.begin_unit();
        if let Some(template) = template {
            self.declare(template, mark);
        }
        if let Some(backend) = self.backend() {
            backend.push(Expect::Query(report));
        }
        self.s.phase = Phase::Await;
        self.s.statements_seen += 1;
        self.forward(end);
        Some(Step::Await)
    }

    /// The client's query goes on, with what its template adds to it.
    fn send_text(
        &mut self,
        text: &[u8],
        template: &Template,
        report: Report,
        end: usize,
    ) -> Option<Step> {
        let rewritten = template.rewritten(text);
        let checked = || template.checked_copy(text, self.map(), self.s.own.declared());
        let Some(sent) = rewritten.or_else(checked) else {
            if template.is_checked_copy() {
                return self.refuse_simple(&unchecked_copy(), end);
            }
            return self.send_query(report, Some(template), end);
        };
        let step = self.send_query(report, Some(template), self.at);
        self.consume(end);
        let written = self.inject(|out| encode::query(out, &sent));
        debug_assert!(written, "a column list is shorter than any message may be");
        step
    }

    /// Notes what a statement of the running unit writes, before it is sent.
    pub(super) fn declare(&mut self, template: &Template, mark: Mark) {
        // What its names stand for is not known.
        let untracked = self.s.holds.contains(Holds::UNTRACKED);
        let Some(backend) = self.backend() else { return };
        let writes = backend.writes();
        writes.declare();
        if template.access() == Access::Read {
            return;
        }
        let mark = if untracked { Mark::Shard } else { mark };
        for facts in template.statements() {
            if matches!(facts.tx, TxEffect::Commit { .. }) {
                writes.may_commit();
            }
            if may_write(facts) {
                writes.touch(mark);
            }
        }
    }

    /// The running unit has written nothing so far: what is only parsed and
    /// described does not.
    pub(super) fn declare_nothing(&mut self) {
        if let Some(backend) = self.backend() {
            backend.writes().declare();
        }
    }

    /// A Parse with a name can't be read a second time: then the name exists.
    pub(super) fn note_new_name(&mut self, kind: u8, body: &[u8]) {
        if kind == tag::PARSE
            && body.first() != Some(&0)
            && let Some(backend) = self.backend()
        {
            backend.second_try().forbid();
        }
    }

    /// A part of the running unit is not understood.
    pub(super) fn declare_unknown(&mut self) {
        if let Some(backend) = self.backend() {
            backend.writes().touch(Mark::Shard);
            backend.writes().may_commit();
        }
    }

    /// The unit starts on the held backend.
    pub(super) fn begin_unit(&mut self) {
        let outside = self.s.pending.is_outside();
        self.s.pending.clear();
        self.s.outside = outside;
        self.s.unit_open = true;
        self.s.losses = 0;
        self.s.commit_sent = false;
        self.s.failed = false;
        self.s.copy_pending = false;
        self.s.healed_in_batch = false;
        self.s.bound_in_batch = false;
        self.s.unnamed_sent = false;
        let mask = outside.then_some(TxStatus::InTransaction);
        if let Some(backend) = self.backend() {
            backend.begin_unit(mask);
        }
    }

    fn on_effective_query(
        &mut self,
        text: &[u8],
        template: Rc<Template>,
        placed: bool,
        end: usize,
    ) -> Option<Step> {
        let statements = template.statements();
        if !placed && statements.iter().all(|facts| self.is_local(facts, &template)) {
            return self.listen_and_answer(text, &template, end);
        }
        if let Some(refused) = self.refuse_in_failed() {
            return self.refuse_simple(&refused, end);
        }
        if let [facts] = statements {
            match &facts.effect {
                SessionEffect::Execute { name, .. }
                    if self.s.statements.find(name.as_bytes()).is_none()
                        && self.server_may_know()
                        && self.env.backend.is_some() => {}
                SessionEffect::Prepare { .. } | SessionEffect::Execute { .. } => {
                    let facts = facts.clone();
                    return self.on_sql_prepared(text, template, &facts, placed, end);
                }
                _ => {}
            }
        }
        if !placed {
            match self.place_effective(text, &template) {
                Ok(Place::Here) => {}
                Ok(Place::Need(want)) => return Some(self.ask(want, Some(template))),
                Ok(Place::Fresh(want)) => return Some(self.await_fresh(want, Some(template))),
                Ok(Place::Several(shards)) => {
                    return match template.is_wrapping() {
                        true => self.scatter_query(text, template, &shards, end),
                        false => self.refuse_simple(&super::scatter::not_alone(), end),
                    };
                }
                Ok(Place::Wait) => return Some(Step::Hold),
                Ok(Place::Refuse(refused)) | Err(refused) => {
                    return self.refuse_simple(&refused, end);
                }
            }
            if self.s.everywhere.is_some() {
                return self.go_everywhere(text, Some(end));
            }
        }
        let demanded =
            self.check_cursor_name(&template).and_then(|()| self.demanded(statements, text));
        let (mut effects, holds, dirty) = match demanded {
            Ok(demanded) => demanded,
            Err(refused) => return self.refuse_simple(&refused, end),
        };
        // Before the transaction's BEGIN is sent, which is not answered yet.
        let discard = self.discard();
        if let Some(step) = self.prepare_backend() {
            self.s.pending.keep(template);
            return Some(step);
        }
        let restoring = self.restoring(text, &template, discard);
        if let (Some(_), [one]) = (&restoring, effects.as_mut_slice()) {
            for effect in one.iter_mut().filter(|effect| matches!(effect, Effect::Discarded)) {
                *effect = Effect::DiscardedTo(discard);
            }
        }
        self.hold_and_mark(holds, dirty);
        self.note_temporary(&template);
        self.s.effects.extend(effects);
        self.fix_map();
        let commits = statements.iter().any(|f| matches!(f.tx, TxEffect::Commit { .. }));
        let sent = match restoring {
            None => self.send_text(text, &template, Report::Tag, end),
            Some(restoring) => self.send_restoring(restoring, end),
        };
        self.s.commit_sent = commits;
        sent
    }

    /// What the statements of a text ask of the session, and what holds its
    /// backend from then on.
    fn demanded(
        &mut self,
        statements: &[Facts],
        text: &[u8],
    ) -> Result<(Vec<Effects>, Holds, bool), Refused> {
        let mut effects: Vec<Effects> = Vec::with_capacity(statements.len());
        let (mut holds, mut dirty) = (Holds::default(), false);
        for facts in statements {
            self.s.note_in_transaction(facts);
            let demand = self.demands_here(facts, text, None)?;
            effects.push(demand.effects);
            holds.add(demand.holds);
            dirty |= demand.dirty;
        }
        self.s.admit_hold(holds)?;
        Ok((effects, holds, dirty))
    }

    /// The client's text as a server has to read it, if that differs: RESET
    /// goes back to the client's own startup.
    pub(super) fn restoring(
        &self,
        text: &[u8],
        template: &Template,
        discard: Discard,
    ) -> Option<Restoring> {
        if template.is_hot() {
            return None;
        }
        restoring(text, template.statements(), &self.s.startup, discard)
    }

    /// How much a DISCARD ALL has to undo here.
    fn discard(&self) -> Discard {
        if self.in_backend_transaction() || matches!(self.s.tx, Tx::Lazy(_)) {
            Discard::AsItStands
        } else if self.s.holds.is_empty() {
            Discard::Settings
        } else {
            Discard::Everything
        }
    }

    fn send_restoring(&mut self, restoring: Restoring, end: usize) -> Option<Step> {
        self.begin_unit();
        if let Some(backend) = self.backend() {
            backend.speak_tags(restoring.tags);
            backend.push(Expect::Query(Report::Tag));
        }
        self.s.phase = Phase::Await;
        self.s.statements_seen += 1;
        self.consume(end);
        let sent = self.inject(|out| encode::query(out, &restoring.sql));
        debug_assert!(sent, "startup settings are bounded");
        Some(Step::Await)
    }

    /// Like [`Feed::locate_and_place`], and starts what goes everywhere.
    fn place_effective(&mut self, text: &[u8], template: &Template) -> Result<Place, Refused> {
        let route = self.located(text, template)?;
        if route.targets == Targets::AllInTurn {
            self.start_everywhere()?;
            return Ok(Place::Here);
        }
        Ok(self.place(template, &route))
    }

    // === everywhere ===

    /// Sets out to run a statement on every shard.
    pub(super) fn start_everywhere(&mut self) -> Result<(), Refused> {
        if matches!(self.s.tx, Tx::Lazy(_)) || self.in_backend_transaction() {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "a statement for all shards can't run inside a transaction yet",
            )
            .hint("run it outside a transaction; it stops at the first shard that refuses it"));
        }
        let shards = self.map().shards().iter().map(|s| (s.id, s.name.as_str().into())).collect();
        self.s.everywhere = Some(Everywhere { shards, next: 0, tag: None, failed: None });
        Ok(())
    }

    /// The next step of a statement that goes to every shard. `end`: it is a
    /// simple query that ends there.
    pub(super) fn go_everywhere(&mut self, text: &[u8], end: Option<usize>) -> Option<Step> {
        let everywhere = self.s.everywhere.as_ref()?;
        let done = everywhere.next >= everywhere.shards.len();
        if done || everywhere.failed.is_some() {
            let everywhere = self.s.everywhere.take()?;
            return self.end_everywhere(everywhere, end);
        }
        let (shard, _) = everywhere.shards.get(everywhere.next)?;
        let (shard, first) = (*shard, everywhere.next == 0);
        if self.env.backend.is_none() {
            let mark = Mark::Shard;
            let span = Span::Unit;
            let want = Want { shard, access: Access::Write, consistency: None, mark, span };
            return Some(Step::Checkout(want));
        }
        if let Some(step) = self.prepare_backend() {
            return Some(step);
        }
        self.begin_unit();
        self.s.resume = self.s.phase;
        self.s.phase = Phase::Own;
        self.send_own(text, OwnPurpose::Everywhere { first });
        Some(Step::Await)
    }

    fn end_everywhere(&mut self, everywhere: Everywhere, end: Option<usize>) -> Option<Step> {
        if let Some(end) = end {
            self.consume(end);
        }
        match (everywhere.failed, end) {
            (Some(frame), Some(_)) => return self.refuse_query(frame),
            (Some(frame), None) => return self.refuse_in_batch(frame),
            (None, _) => {}
        }
        self.s.statements_seen += 1;
        let tag = everywhere.tag.unwrap_or_default();
        let tag = tag.strip_suffix(&[0]).and_then(|tag| std::str::from_utf8(tag).ok());
        encode::command_complete(self.env.to_client, tag.unwrap_or("OK"));
        if end.is_some() {
            self.say_ready();
        }
        None
    }

    // === refusals ===

    /// 25P02, if an error of the router's own has failed the transaction.
    pub(super) fn refuse_in_failed(&self) -> Option<Refused> {
        match &self.s.tx {
            Tx::Lazy(lazy) if lazy.is_failed() => Some(in_failed_transaction()),
            Tx::Lazy(_) | Tx::Backend => None,
        }
    }

    pub(super) fn refuse_simple(&mut self, refused: &Refused, end: usize) -> Option<Step> {
        self.consume(end);
        let frame = self.refusal_frame(refused);
        self.refuse_query(frame)
    }

    /// What the client reads: in a failed transaction every statement that can
    /// be read is refused for that.
    pub(super) fn refusal_frame(&self, refused: &Refused) -> Box<[u8]> {
        // Of now, not of the last ReadyForQuery: a COMMIT earlier in this batch
        // has ended the failed transaction.
        let failed = self.is_backend_failed();
        // What the server says before it looks at its transaction.
        let earlier =
            [SYNTAX_ERROR, NO_STATEMENT, NO_CURSOR, PROTOCOL_VIOLATION].contains(&refused.state);
        let frame =
            if failed && !earlier { in_failed_transaction().frame() } else { refused.frame() };
        frame.into()
    }

    /// The query at hand is consumed and fails with `frame`, as it would on
    /// Postgres: with the transaction around it.
    pub(super) fn refuse_query(&mut self, frame: Box<[u8]>) -> Option<Step> {
        self.s.note_refusal(&frame);
        self.s.pending.clear();
        self.s.unnamed.forget();
        if self.in_backend_transaction() {
            self.begin_unit();
            self.declare_nothing();
            self.send_refusal(frame, SentAs::Query);
            self.s.phase = Phase::Await;
            return Some(Step::Await);
        }
        self.fail_lazy();
        self.env.to_client.extend_from_slice(&frame);
        self.say_ready();
        None
    }

    // === what can't be read ===

    /// The client's settings hide the text from the router: an unsharded
    /// database gets it as it is, and the backend is reset afterwards.
    fn on_unreadable_query(&mut self, end: usize) -> Option<Step> {
        if self.is_on_replica() {
            return self.refuse_simple(&on_replica("a text that the router can't read"), end);
        }
        if let Err(refused) = self.s.admit_hold(Holds::UNTRACKED) {
            return self.refuse_simple(&refused, end);
        }
        if self.env.backend.is_none() {
            return Some(self.ask(self.home(), None));
        }
        if let Some(step) = self.prepare_backend() {
            return Some(step);
        }
        self.hold_and_mark(Holds::UNTRACKED, true);
        self.send_query(Report::Nothing, None, end)
    }

    /// A query longer than the router reads, on an unsharded database.
    pub(super) fn stream_query(&mut self, whole: usize) -> Option<Step> {
        if let Some(frame) = self.s.pending.take_refused() {
            self.s.stream = Stream { left: whole, discard: true };
            return self.refuse_query(frame);
        }
        if self.is_on_replica() {
            self.s.stream = Stream { left: whole, discard: true };
            let refused = on_replica("a text that the router can't read");
            return self.refuse_query(refused.frame().into());
        }
        if self.env.backend.is_none() {
            return Some(self.ask(self.home(), None));
        }
        if let Some(step) = self.prepare_backend() {
            return Some(step);
        }
        self.hold_and_mark(Holds::default(), true);
        self.begin_unit();
        if let Some(backend) = self.backend() {
            backend.push(Expect::Query(Report::Nothing));
        }
        self.s.statements_seen += 1;
        self.s.stream = Stream { left: whole, discard: false };
        self.s.phase = Phase::Await;
        None
    }

    /// A backend of the home shard's primary.
    pub(super) fn home(&self) -> Want {
        let shard = self.map().home();
        let (mark, span) = (Mark::Shard, Span::Unit);
        Want { shard, access: Access::Write, consistency: None, mark, span }
    }

    pub(super) fn on_function_call(&mut self, end: usize) -> Option<Step> {
        if let Some(frame) = self.s.pending.take_refused() {
            self.consume(end);
            return self.refuse_query(frame);
        }
        if self.map().is_sharded() {
            let refused = Refused::new(
                NOT_SUPPORTED,
                "function calls by protocol message are not supported on a sharded database",
            )
            .hint("call the function with SELECT");
            return self.refuse_simple(&refused, end);
        }
        if self.is_on_replica() {
            return self.refuse_simple(&on_replica("a function call by protocol message"), end);
        }
        if self.env.backend.is_none() {
            return Some(self.ask(self.home(), None));
        }
        if let Some(step) = self.prepare_backend() {
            return Some(step);
        }
        self.hold_and_mark(Holds::default(), true);
        self.begin_unit();
        if let Some(backend) = self.backend() {
            backend.push(Expect::FunctionCall);
        }
        self.s.phase = Phase::Await;
        self.forward(end);
        Some(Step::Await)
    }
}

/// Whether others may see something new once the statement is committed.
/// Those that only steer the transaction or the session's own settings leave
/// nothing to see; COMMIT shows what was written before it.
fn may_write(facts: &Facts) -> bool {
    match facts.kind {
        Kind::Transaction => {
            matches!(facts.tx, TxEffect::CommitPrepared | TxEffect::RollbackPrepared)
        }
        Kind::Set | Kind::Reset | Kind::Deallocate | Kind::Listen | Kind::Discard => {
            facts.tx == TxEffect::None && facts.effect.each().contains(&SessionEffect::Dirty)
        }
        Kind::Select
        | Kind::Insert
        | Kind::Update
        | Kind::Delete
        | Kind::Merge
        | Kind::CopyIn
        | Kind::CopyOut
        | Kind::Explain
        | Kind::ExplainRoute
        | Kind::Show
        | Kind::Prepare
        | Kind::Execute
        | Kind::Declare
        | Kind::Cursor
        | Kind::Notify
        | Kind::Lock
        | Kind::Truncate
        | Kind::Ddl
        | Kind::Maintenance
        | Kind::Call
        | Kind::Do
        | Kind::Empty
        | Kind::Unknown => facts.access == Access::Write,
    }
}

/// A COPY that only a simple query can be.
pub(super) fn unchecked_copy() -> Refused {
    Refused::new(
        NOT_SUPPORTED,
        "COPY into a sharded table by the extended protocol is not supported",
    )
    .hint("send it as a simple query")
}

pub(super) fn duplicate(name: &str) -> Refused {
    Refused::new(DUPLICATE_STATEMENT, format!("prepared statement \"{name}\" already exists"))
}

pub(super) fn missing(name: &[u8]) -> Refused {
    let name = String::from_utf8_lossy(name);
    if name.is_empty() {
        return Refused::new(NO_STATEMENT, "unnamed prepared statement does not exist");
    }
    Refused::new(NO_STATEMENT, format!("prepared statement \"{name}\" does not exist"))
}

pub(super) fn too_many(max: usize) -> Refused {
    Refused::new(LIMIT_EXCEEDED, format!("a client may have {max} prepared statements at most"))
        .hint("deallocate statements that are no longer used, or raise limits.statements_max")
}
