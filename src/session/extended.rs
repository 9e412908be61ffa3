//! The extended protocol: batches of Parse, Bind, Describe, Execute and Close,
//! up to Sync.
//!
//! A batch without a backend looks ahead for its shard (`lookahead`); once it
//! has one, every message goes on, with the client's statement names replaced
//! by the backends', and with a Parse ahead of a Bind where this backend does
//! not have the statement yet.

use std::ops::Range;
use std::rc::Rc;

use crate::backend::{Expect, NAME_LEN, OwnPurpose, Report, SentAs, backend_name};
use crate::protocol::encode;
use crate::protocol::frontend::{Bind, Close, Describe, Execute, Parse, Target};
use crate::protocol::tag::frontend as tag;
use crate::route::{Targets, Template};
use crate::sql::statement::{Kind, TxEffect};

use super::answer::LocalStatement;
use super::effects::{PortalEffects, may_follow_failure};
use super::feed::Feed;
use super::lookahead::Ahead;
use super::names::Named;
use super::place::{Found, Place};
use super::refusal::{
    LIMIT_EXCEEDED, NO_CURSOR, NOT_SUPPORTED, PROTOCOL_VIOLATION, Refused, in_failed_transaction,
};
use super::restore::{self, Discard};
use super::statements::Prepared;
use super::values::BoundParams;
use super::{Phase, Step, Tx};

impl Feed<'_, '_> {
    pub(super) fn on_extended(&mut self, kind: u8, body: &[u8], end: usize) -> Option<Step> {
        // Of this message, or of none: it must not outlive the feed after it.
        let found = self.s.pending.take_found();
        if let Some(frame) = self.s.pending.take_refused() {
            self.s.described = None;
            if self.s.scatter.take().is_some() {
                return self.refuse_scatter(frame);
            }
            return self.refuse_in_batch(frame);
        }
        self.follow_map();
        if self.s.everywhere.is_some() {
            return self.continue_everywhere(kind, body, end);
        }
        if self.s.scatter.is_some() {
            if self.drop_outdated_scatter(body) {
                return Some(Step::Again);
            }
            return self.go_on_scattering(end);
        }
        if !self.s.portals.is_empty()
            && let Some(step) = self.on_scatter_message(kind, body, end)
        {
            return step;
        }
        if self.env.backend.is_none() {
            match self.look_ahead() {
                Ahead::Need(want) => return Some(self.ask(want, None)),
                Ahead::More => return self.wait_for_more(),
                Ahead::Wait => return Some(Step::Hold),
                Ahead::Fresh(_) | Ahead::Local | Ahead::Spread => {}
            }
        } else if !self.s.unit_open
            && let Some(step) = self.freshen_batch().or_else(|| self.begin_batch())
        {
            return Some(step);
        }
        if self.s.phase == Phase::Idle {
            self.s.phase = Phase::Batch;
            self.s.failed = false;
        }
        if self.env.backend.as_ref().is_some_and(|(b, _)| b.is_skipping()) && kind != tag::SYNC {
            self.consume(end);
            return None;
        }
        self.note_new_name(kind, body);
        match kind {
            tag::PARSE => self.on_parse(body, end, found),
            tag::BIND => self.on_bind(body, end, found),
            tag::DESCRIBE => self.on_describe(body, end),
            tag::EXECUTE => self.on_execute(body, end),
            tag::CLOSE => self.on_close(body, end),
            tag::FLUSH => self.on_flush(end),
            _ => self.on_sync(body, end),
        }
    }

    /// Brings a backend that was just checked out, or that is held, into the
    /// session's state before the batch's first message.
    pub(super) fn begin_batch(&mut self) -> Option<Step> {
        if let Some(step) = self.prepare_backend() {
            return Some(step);
        }
        let replayable = !self.in_backend_transaction();
        self.begin_unit();
        self.declare_nothing();
        self.fix_map();
        if replayable {
            self.keep_for_replay();
        }
        None
    }

    /// Keeps the batch's bytes, should a plan turn out stale: possible if it
    /// is here whole and small.
    fn keep_for_replay(&mut self) {
        self.env.replay.clear();
        let rest = self.input.get(self.at..).unwrap_or_default();
        // What the client parses anew can't be stale.
        if let [tag::PARSE, _, _, _, _, 0, ..] = rest {
            return;
        }
        // Without a Describe the client would take the new rows for the old.
        let Some(end) = super::lookahead::described_batch_end(rest, REPLAY_BYTES_MAX) else {
            return;
        };
        if let Some(batch) = rest.get(..end) {
            self.env.replay.extend_from_slice(batch);
        }
        if let Some(backend) = self.backend() {
            backend.allow_replay();
        }
    }

    pub(super) fn wait_for_more(&mut self) -> Option<Step> {
        let held = self.input.len() - self.at;
        if held <= self.s.limits.held_bytes_max {
            return Some(Step::Read);
        }
        let refused = Refused::new(
            LIMIT_EXCEEDED,
            format!("the batch's shard is not known after {} bytes", self.s.limits.held_bytes_max),
        )
        .hint(
            "bind the sharding key as one of the first parameters, or raise limits.held_bytes_max",
        );
        Some(self.break_off(&refused))
    }

    // === messages ===

    fn on_parse(&mut self, body: &[u8], end: usize, found: Option<Found>) -> Option<Step> {
        let Ok(parse) = Parse::decode(body) else { return self.malformed("Parse") };
        if let Some(refused) = self.refuse_parse(&parse) {
            return self.refuse_message(&refused, end);
        }
        let template = match self.still_planned(found) {
            Some(template) => template,
            None => match self.plan(parse.query) {
                Ok(Some(template)) => template,
                Ok(None) => return self.forward_unread(parse.name, end),
                Err(refused) => return self.refuse_message(&refused, end),
            },
        };
        // With the list that it lacks it is another statement, planned as such.
        let spliced = template.rewritten(parse.query);
        let (parse, template) = match &spliced {
            None => (parse, template),
            Some(text) => match self.plan(text) {
                Ok(Some(template)) => (parse.with_query(text), template),
                Ok(None) => return self.forward_unread(parse.name, end),
                Err(refused) => return self.refuse_message(&refused, end),
            },
        };
        let local = self.is_local_text(&template);
        if let Some(refused) = self.refuse_parse_in_failed(&parse, &template, local) {
            self.consume(end);
            return self.refuse_in_batch(refused.frame().into());
        }
        let translated = self.env.backend.as_ref().is_some_and(|(b, _)| b.translates());
        if translated && let Some(refused) = self.refuse_types(&parse) {
            return self.refuse_message(&refused, end);
        }
        // RESET of a setting that the client gave at startup is another
        // statement on a server.
        let written = parse.query;
        let restoring = self.restoring(written, &template, Discard::AsItStands);
        let parse = match &restoring {
            Some(restoring) => parse.with_query(&restoring.sql),
            None => parse,
        };
        let made = (self.map_serial(), template);
        if parse.name.is_empty() {
            let as_it_came = restoring.is_none() && spliced.is_none() && !translated;
            return self.on_unnamed_parse(&parse, made, (local, as_it_came), end);
        }
        let literals = self.env.planner.literals().clone();
        let inner = restoring.is_some().then_some(written);
        let prepared = self.env.registry.intern(&parse, inner, &self.s.settings, made, literals);
        self.s.statements.insert(parse.name, Rc::clone(&prepared));
        self.consume(end);
        let asked =
            !local && self.backend().is_some_and(|backend| !backend.has_prepared(prepared.id));
        if !asked {
            self.say_renamed(PARSE_COMPLETE, parse.name, None);
            return None;
        }
        self.s.renamed.push((parse.name.into(), None));
        self.send_parse(&prepared, Expect::Parse(prepared.id));
        None
    }

    /// A Parse of the unnamed statement, which is answered here or sent: as it
    /// came, if the text and the types are the client's.
    fn on_unnamed_parse(
        &mut self,
        parse: &Parse<'_>,
        made: (u64, Rc<Template>),
        (local, as_it_came): (bool, bool),
        end: usize,
    ) -> Option<Step> {
        let id = self.env.registry.number();
        self.s.unnamed.replace(id, parse, made, self.env.planner.literals());
        if local || self.env.backend.is_none() {
            self.consume(end);
            self.say(PARSE_COMPLETE);
            return None;
        }
        if as_it_came {
            self.forward(end);
        } else {
            self.consume(end);
            self.send_unnamed(parse.query, parse.raw_types());
        }
        if let Some(backend) = self.backend() {
            backend.push(Expect::ParseUnnamed);
            backend.set_unnamed(Some(id));
        }
        self.s.unnamed_sent = true;
        None
    }

    /// The template that looking ahead found, if map and planner are where they
    /// were.
    fn still_planned(&self, found: Option<Found>) -> Option<Rc<Template>> {
        match found {
            Some(Found::Parse { serial, planned, template })
                if serial == self.map_serial() && planned == self.env.planner.planned() =>
            {
                Some(template)
            }
            Some(Found::Parse { .. } | Found::Bind { .. }) | None => None,
        }
    }

    /// A text that can't be read, on an unsharded database.
    fn forward_unread(&mut self, name: &[u8], end: usize) -> Option<Step> {
        if let Err(refused) = self.s.admit_hold(super::Holds::UNTRACKED) {
            return self.refuse_message(&refused, end);
        }
        self.hold_and_mark(super::Holds::UNTRACKED, true);
        self.declare_unknown();
        self.forward(end);
        if name.is_empty() {
            self.s.unnamed.forget();
        }
        if let Some(backend) = self.backend() {
            backend.push(Expect::ParseUnnamed);
            if name.is_empty() {
                backend.set_unnamed(None);
            }
        }
        None
    }

    fn on_bind(&mut self, body: &[u8], end: usize, found: Option<Found>) -> Option<Step> {
        if let Some(Found::Bind { serial, prepared, name, shard, writes }) = found
            && serial == self.map_serial()
            && self.env.backend.as_ref().is_some_and(|(_, held)| *held == shard)
        {
            self.s.bound_in_batch = true;
            if let (Some(mark), Some(backend)) = (writes, self.backend()) {
                backend.writes().touch(mark);
            }
            if !self.s.portals.is_empty() {
                let portal = body.get(..name.start.saturating_sub(1)).unwrap_or_default();
                self.s.portals.remove(portal);
            }
            return self.send_renamed(&prepared, body, name, end);
        }
        let Ok(bind) = Bind::decode(body) else { return self.malformed("Bind") };
        self.s.bound_in_batch = true;
        let named = match self.named(bind.statement()) {
            Ok(Some(named)) => named,
            // Prepared while nothing could be read: it is the server's name.
            Ok(None) => {
                self.declare_unknown();
                return self.forward_bind(body, end);
            }
            Err(refused) => return self.refuse_message(&refused, end),
        };
        let template = match self.template_of(&named) {
            Ok(template) => template,
            Err(refused) => return self.refuse_message(&refused, end),
        };
        if self.is_local_text(&template) {
            if self.is_backend_failed() && !may_follow_failure(&template) {
                return self.refuse_message(&in_failed_transaction(), end);
            }
            if let Err(refused) = self.check_fetched(&bind, &template) {
                return self.refuse_message(&refused, end);
            }
            if bind.count() > 0 {
                let refused = Refused::new(
                    PROTOCOL_VIOLATION,
                    format!(
                        "bind message supplies {} parameters, but prepared statement \"{}\" requires 0",
                        bind.count(),
                        String::from_utf8_lossy(bind.statement()),
                    ),
                );
                return self.refuse_message(&refused, end);
            }
            self.consume(end);
            let local = LocalStatement::new(self.text_of(&named), template);
            let portal = PortalEffects { local: Some(Rc::new(local)), ..PortalEffects::default() };
            self.s.portals.insert(bind.portal().into(), portal);
            self.say(BIND_COMPLETE);
            return None;
        }
        if let Err(refused) = self.check_bind(&bind, &named, &template) {
            return self.refuse_message(&refused, end);
        }
        if self.env.backend.is_none() {
            // Goes to many shards: its Execute will.
            self.consume(end);
            self.say(BIND_COMPLETE);
            return None;
        }
        self.send_bind(&bind, named, end)
    }

    fn send_bind(&mut self, bind: &Bind<'_>, named: Named, end: usize) -> Option<Step> {
        match named {
            Named::Shared(prepared) => {
                self.send_renamed(&prepared, bind.body(), bind.statement_span(), end)
            }
            Named::Unnamed(id, _) => {
                self.ensure_unnamed(id);
                self.forward_bind(bind.body(), end);
                self.pass_usual_end()
            }
        }
    }

    /// A Bind's `body` with the backends' name instead of the client's at `name`.
    fn send_renamed(
        &mut self,
        prepared: &Rc<Prepared>,
        body: &[u8],
        name: Range<usize>,
        end: usize,
    ) -> Option<Step> {
        if let Some(step) = self.prepare_for_bind(prepared) {
            return Some(step);
        }
        self.consume(end);
        let mut buffer = [0; NAME_LEN];
        let own = backend_name(prepared.id, &mut buffer);
        if !self.inject(|out| encode::bind_body_renamed(out, body, name, own)) {
            return self.malformed("Bind");
        }
        if let Some(backend) = self.backend() {
            backend.push(Expect::Bind(Some(prepared.id)));
            if backend.translates() {
                self.note_bound(body, Some(prepared.id));
            }
        }
        self.pass_usual_end()
    }

    /// What nearly every driver sends after a Bind, in one comparison: the
    /// messages one by one would do the same.
    fn pass_usual_end(&mut self) -> Option<Step> {
        let rest = self.input.get(self.at..)?;
        if !rest.starts_with(USUAL_END) || !self.s.portals.is_empty() || self.s.copy_pending {
            return None;
        }
        let end = self.at + USUAL_END.len();
        let backend = self.backend()?;
        if backend.wants_columns() {
            return None;
        }
        backend.push(Expect::Describe);
        backend.push(Expect::Execute(Report::Nothing));
        backend.push(Expect::Sync);
        self.s.statements_seen += 1;
        self.s.phase = Phase::Await;
        self.forward(end);
        Some(Step::Await)
    }

    fn forward_bind(&mut self, body: &[u8], end: usize) -> Option<Step> {
        self.forward(end);
        if let Some(backend) = self.backend() {
            backend.push(Expect::Bind(None));
            if backend.translates() {
                self.note_bound(body, None);
            }
        }
        None
    }

    /// Checks that the statement belongs where the batch runs, and notes what
    /// its execution will do.
    fn check_bind(
        &mut self,
        bind: &Bind<'_>,
        named: &Named,
        template: &Rc<Template>,
    ) -> Result<(), Refused> {
        if let Some(refused) = self.refuse_in_failed() {
            return Err(refused);
        }
        let route =
            self.locate_bound(named, template, &BoundParams::new(bind, self.types_of(named)))?;
        if let Targets::Several(several) = route.targets {
            return self.bind_scatter(bind, named, template, several.shards);
        }
        if route.targets == Targets::AllInTurn {
            if self.env.backend.is_some() {
                return Err(Refused::new(
                    NOT_SUPPORTED,
                    "a statement for all shards must stand alone in its batch",
                ));
            }
            let local = LocalStatement::everywhere(self.text_of(named), Rc::clone(template));
            let portal = PortalEffects { local: Some(Rc::new(local)), ..PortalEffects::default() };
            self.s.portals.insert(bind.portal().into(), portal);
            return Ok(());
        }
        if self.env.backend.as_ref().is_some_and(|(backend, _)| backend.is_replica()) {
            self.check_on_replica(template)?;
        }
        if self.map().is_sharded() {
            match self.place(template, &route) {
                Place::Here | Place::Fresh(_) => {}
                Place::Refuse(refused) => return Err(refused),
                Place::Several(shards) => {
                    return self.bind_scatter(bind, named, template, shards);
                }
                Place::Need(_) | Place::Wait => {
                    return Err(Refused::new(
                        NOT_SUPPORTED,
                        "statement found no shard in its batch",
                    ));
                }
            }
        }
        self.declare(template, route.mark);
        if template.is_hot() {
            if !self.s.portals.is_empty() {
                self.s.portals.remove(bind.portal());
            }
            return Ok(());
        }
        self.check_cursor_name(template)?;
        let text = self.text_of(named);
        let mut portal = PortalEffects::default();
        for facts in template.statements() {
            self.s.commit_sent |= matches!(facts.tx, TxEffect::Commit { .. });
            self.s.healed_in_batch |= facts.kind != Kind::Empty && may_follow_failure(template);
            self.s.note_in_transaction(facts);
            let demand = self.demands_here(facts, &text, Some(bind))?;
            self.s.admit_hold(demand.holds)?;
            self.hold_and_mark(demand.holds, demand.dirty);
            self.note_temporary(template);
            portal.effects.extend(demand.effects);
            portal.spoken = restore::replacement(facts, &self.s.startup).map(|(_, tag)| tag);
            portal.copy_in |= demand.copy_in;
        }
        self.s.portals.insert(bind.portal().into(), portal);
        Ok(())
    }

    fn on_describe(&mut self, body: &[u8], end: usize) -> Option<Step> {
        let Ok(describe) = Describe::decode(body) else { return self.malformed("Describe") };
        if describe.kind == Target::Portal {
            if let Some(local) = self.s.portals.get(describe.name).and_then(|p| p.local.clone()) {
                self.consume(end);
                let frame = self.describe_local(&local);
                self.say(&frame);
                return None;
            }
            return self.forward_expecting(Expect::Describe, describe.name, end);
        }
        let named = match self.named(describe.name) {
            Ok(Some(named)) => named,
            Ok(None) => return self.forward_expecting(Expect::Describe, describe.name, end),
            Err(refused) => return self.refuse_message(&refused, end),
        };
        let template = match self.template_of(&named) {
            Ok(template) => template,
            Err(refused) => return self.refuse_message(&refused, end),
        };
        if self.is_local_text(&template) {
            self.consume(end);
            let local = LocalStatement::new(self.text_of(&named), template);
            let mut frame = NO_PARAMETERS.to_vec();
            frame.extend_from_slice(&self.describe_local(&local));
            self.say(&frame);
            return None;
        }
        if self.env.backend.is_none() && !self.goes_everywhere(&named, &template) {
            let refused = Refused::new(
                NOT_SUPPORTED,
                "describing a read over several shards in the batch that executes it is not supported yet",
            )
            .hint("describe the portal instead, or send a Sync after Describe");
            return self.refuse_message(&refused, end);
        }
        if self.env.backend.is_none() {
            self.consume(end);
            let mut frame = NO_PARAMETERS.to_vec();
            encode::no_data(&mut frame);
            self.say(&frame);
            return None;
        }
        match named {
            Named::Shared(prepared) => {
                self.ensure_prepared(&prepared);
                self.consume(end);
                let mut buffer = [0; NAME_LEN];
                let name = backend_name(prepared.id, &mut buffer);
                self.inject(|out| encode::describe(out, Target::Statement, name));
                if let Some(backend) = self.backend() {
                    backend.push(Expect::DescribeOf(prepared.id));
                }
                None
            }
            Named::Unnamed(id, _) => {
                self.ensure_unnamed(id);
                self.forward_expecting(Expect::Describe, b"", end)
            }
        }
    }

    fn forward_expecting(&mut self, expect: Expect, portal: &[u8], end: usize) -> Option<Step> {
        if self.env.backend.is_none() {
            let name = String::from_utf8_lossy(portal);
            let refused = Refused::new(NO_CURSOR, format!("portal \"{name}\" does not exist"));
            return self.refuse_message(&refused, end);
        }
        self.forward(end);
        if let Some(backend) = self.backend() {
            backend.push(expect);
        }
        None
    }

    fn on_execute(&mut self, body: &[u8], end: usize) -> Option<Step> {
        let Ok(execute) = Execute::decode(body) else { return self.malformed("Execute") };
        let portal = if self.s.portals.is_empty() {
            None
        } else {
            self.s.portals.get(execute.portal).cloned()
        };
        let Some(portal) = portal else {
            self.s.statements_seen += 1;
            self.ask_portals_columns(execute.portal);
            return self.forward_expecting(Expect::Execute(Report::Nothing), execute.portal, end);
        };
        if let Some(local) = portal.local {
            if local.is_everywhere() {
                if let Err(refused) = self.start_everywhere() {
                    return self.refuse_message(&refused, end);
                }
                return self.go_everywhere(local.text(), None);
            }
            if let Some(step) = self.listen_in_batch(&local, end) {
                return step;
            }
            self.consume(end);
            return match self.execute_local(&local) {
                Ok(frame) => {
                    self.say(&frame);
                    None
                }
                Err(refused) => self.refuse_in_batch(refused.frame().into()),
            };
        }
        self.s.copy_pending = portal.copy_in;
        let report = portal.spoken.map_or(Report::Tag, Report::TagAs);
        self.s.effects.push_back(portal.effects);
        self.s.statements_seen += 1;
        self.ask_portals_columns(execute.portal);
        self.forward_expecting(Expect::Execute(report), execute.portal, end)
    }

    /// The Execute that set out to run everywhere is fed again.
    fn continue_everywhere(&mut self, kind: u8, body: &[u8], end: usize) -> Option<Step> {
        let local = Execute::decode(body)
            .ok()
            .filter(|_| kind == tag::EXECUTE)
            .and_then(|execute| self.s.portals.get(execute.portal)?.local.clone());
        let Some(local) = local else {
            self.s.everywhere = None;
            return self.malformed("Execute");
        };
        let done = self
            .s
            .everywhere
            .as_ref()
            .is_some_and(|e| e.failed.is_some() || e.next >= e.shards.len());
        if done {
            self.consume(end);
        }
        self.go_everywhere(local.text(), None)
    }

    fn on_close(&mut self, body: &[u8], end: usize) -> Option<Step> {
        let Ok(close) = Close::decode(body) else { return self.malformed("Close") };
        if close.kind == Target::Statement {
            // The name is the client's; the backends' statement stays for
            // whoever has the same text.
            let before = self.s.statements.take(close.name);
            if close.name.is_empty() {
                self.s.unnamed.forget();
            } else if before.is_none() && self.server_may_know() && self.env.backend.is_some() {
                return self.forward_expecting(Expect::Close, close.name, end);
            }
            self.consume(end);
            match before {
                Some(before) => self.say_renamed(CLOSE_COMPLETE, close.name, Some(before)),
                None => self.say(CLOSE_COMPLETE),
            }
            return None;
        }
        let removed = self.s.portals.remove(close.name);
        let local = removed.is_some_and(|p| p.local.is_some() || p.scatter.is_some());
        if local || self.env.backend.is_none() {
            self.consume(end);
            self.say(CLOSE_COMPLETE);
            return None;
        }
        self.forward_expecting(Expect::Close, close.name, end)
    }

    fn on_flush(&mut self, end: usize) -> Option<Step> {
        if self.env.backend.is_none() {
            self.consume(end);
            return None;
        }
        let free = !self.in_backend_transaction();
        if free && self.only_describes() && self.map().is_sharded() {
            // The batch's shard is still open: what was described so far ends
            // here, and its Bind may go elsewhere.
            self.consume(end);
            self.inject(|out| {
                encode::sync(out);
                Ok::<(), ()>(())
            });
            if let Some(backend) = self.backend() {
                backend.push(Expect::OwnQuery(OwnPurpose::Describe));
            }
            self.s.phase = Phase::Own;
            self.s.resume = Phase::Batch;
            return Some(Step::Await);
        }
        self.forward(end);
        None
    }

    pub(super) fn on_sync(&mut self, body: &[u8], end: usize) -> Option<Step> {
        if self.env.backend.is_none() {
            if !body.is_empty() {
                return self.on_malformed_sync(end);
            }
            self.consume(end);
            self.s.phase = Phase::Idle;
            self.end_local_batch();
            self.say_ready();
            return None;
        }
        self.forward(end);
        self.await_sync()
    }

    fn await_sync(&mut self) -> Option<Step> {
        if let Some(backend) = self.backend() {
            backend.push(Expect::Sync);
        }
        self.s.phase = Phase::Await;
        Some(Step::Await)
    }

    /// A Sync with a body ends a batch without a backend, and fails it.
    fn on_malformed_sync(&mut self, end: usize) -> Option<Step> {
        let refused = Refused::new(PROTOCOL_VIOLATION, "invalid message format");
        self.consume(end);
        self.fail_lazy();
        self.env.to_client.extend_from_slice(&refused.frame());
        self.s.phase = Phase::Idle;
        self.end_local_batch();
        self.say_ready();
        None
    }

    /// A batch that the router answered alone is over.
    fn end_local_batch(&mut self) {
        self.s.pending.clear();
        if matches!(self.s.tx, Tx::Backend) {
            if self.s.failed {
                self.s.log.clear();
                self.s.refresh_own();
            } else {
                self.s.apply_log_without_backend(self.env.interner);
            }
            self.s.portals.clear();
            self.s.tx_map = None;
        }
    }

    // === saying and refusing ===

    /// Says `frame` when its turn comes.
    pub(super) fn say(&mut self, frame: &[u8]) {
        if let Some((backend, _)) = &mut self.env.backend
            && !backend.owes_nothing()
        {
            backend.push(Expect::Say(frame.into()));
            return;
        }
        self.env.to_client.extend_from_slice(frame);
    }

    /// The same of a message that has changed what `name` means; `before` is
    /// what it meant.
    fn say_renamed(&mut self, frame: &[u8], name: &[u8], before: Option<Rc<Prepared>>) {
        if let Some((backend, _)) = &mut self.env.backend
            && !backend.owes_nothing()
        {
            backend.push(Expect::SayNamed(frame.into()));
            self.s.renamed.push((name.into(), before));
            return;
        }
        self.env.to_client.extend_from_slice(frame);
    }

    pub(super) fn malformed(&mut self, what: &str) -> Option<Step> {
        let refused = Refused::new(PROTOCOL_VIOLATION, format!("malformed {what} message"));
        let end = self.message_end();
        self.refuse_message(&refused, end)
    }

    pub(super) fn refuse_message(&mut self, refused: &Refused, end: usize) -> Option<Step> {
        self.consume(end);
        let frame = self.refusal_frame(refused);
        self.refuse_in_batch(frame)
    }

    /// The batch fails with `frame`; what was sent of it is undone by making
    /// the backend's implicit transaction fail before its Sync.
    pub(super) fn refuse_in_batch(&mut self, frame: Box<[u8]>) -> Option<Step> {
        self.s.note_refusal(&frame);
        self.s.pending.clear();
        self.s.failed = true;
        if self.env.backend.is_some() {
            if !self.s.unit_open {
                self.begin_unit();
                self.declare_nothing();
            }
            self.send_refusal(frame, SentAs::Batch);
            self.s.phase = Phase::SkipBound;
            return None;
        }
        self.fail_lazy();
        self.env.to_client.extend_from_slice(&frame);
        self.s.phase = Phase::Skip;
        None
    }
}

/// Describe of the unnamed portal, Execute of all its rows, Sync.
pub(super) const USUAL_END: &[u8] = b"D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
const PARSE_COMPLETE: &[u8] = &[b'1', 0, 0, 0, 4];
const BIND_COMPLETE: &[u8] = &[b'2', 0, 0, 0, 4];
const CLOSE_COMPLETE: &[u8] = &[b'3', 0, 0, 0, 4];
const NO_PARAMETERS: &[u8] = &[b't', 0, 0, 0, 6, 0, 0];
/// Batches larger than this are not kept to be sent again.
const REPLAY_BYTES_MAX: usize = 16 * 1024;
