//! PREPARE and EXECUTE as SQL statements: the client's name gives way to the
//! backends', and the statement is prepared where it runs.

use std::rc::Rc;

use crate::backend::{Expect, NAME_LEN, OwnPurpose, Report, StatementId, backend_name};
use crate::protocol::encode;
use crate::route::Template;
use crate::sql::statement::{Facts, SessionEffect, Span};

use super::effects::{Demands, Effect, demands};
use super::feed::Feed;
use super::names::Named;
use super::refusal::{NOT_SUPPORTED, Refused, in_failed_transaction};
use super::restore;
use super::simple::{duplicate, missing, too_many};
use super::statements::Prepared;
use super::{Phase, Step};

/// A PREPARE or EXECUTE as it goes to the backend.
struct Rewritten {
    prepared: Rc<Prepared>,
    sql: Vec<u8>,
    /// The name comes into being with it.
    new_name: Option<Box<[u8]>>,
    /// What its execution does to the session.
    demand: Demands,
}

impl Feed<'_, '_> {
    /// A PREPARE or EXECUTE that stands alone in its query.
    pub(super) fn on_sql_prepared(
        &mut self,
        text: &[u8],
        template: Rc<Template>,
        facts: &Facts,
        placed: bool,
        end: usize,
    ) -> Option<Step> {
        if self.is_backend_failed() {
            return self.refuse_simple(&in_failed_transaction(), end);
        }
        let rewritten = match self.rewrite_prepared(text, &template, facts) {
            Ok(rewritten) => rewritten,
            Err(refused) => return self.refuse_simple(&refused, end),
        };
        if self.env.backend.is_none() && !placed {
            return Some(self.ask(self.home(), Some(template)));
        }
        if let Some(step) = self.prepare_backend() {
            self.s.pending.keep(template);
            return Some(step);
        }
        let Rewritten { prepared, sql, new_name, demand } = rewritten;
        let here = self.backend().is_some_and(|backend| backend.has_prepared(prepared.id));
        match (&new_name, here) {
            (Some(name), true) => {
                // The backend has it from another client or an earlier time.
                self.consume(end);
                self.s.pending.clear();
                self.s.statements.insert(name, prepared);
                encode::command_complete(self.env.to_client, "PREPARE");
                self.say_ready();
                return None;
            }
            (Some(_), false) if !self.is_stale(prepared.id) => {}
            (_, false) => {
                self.s.pending.keep(template);
                return Some(self.prepare_first(&prepared));
            }
            (None, true) => {}
        }
        let is_new = new_name.is_some();
        let made = new_name.map(|name| Effect::Prepare(name, Rc::clone(&prepared)));
        let effects = demand.effects.into_iter().chain(made).collect();
        self.hold_and_mark(demand.holds, demand.dirty);
        self.begin_unit();
        if let Some(backend) = self.backend() {
            backend.speak_tags([demand.spoken]);
            backend.push(Expect::Query(Report::Tag));
        }
        self.s.executed = (!is_new).then_some(prepared.id);
        self.s.effects.push_back(effects);
        self.s.statements_seen += 1;
        self.s.phase = Phase::Await;
        self.consume(end);
        let sent = self.inject(|out| encode::query(out, &sql));
        debug_assert!(sent, "a rewritten statement is as long as its text and a name");
        Some(Step::Await)
    }

    fn is_stale(&mut self, id: StatementId) -> bool {
        self.backend().is_some_and(|backend| backend.is_stale(id))
    }

    /// Prepares a statement ahead of its EXECUTE, which waits for it.
    fn prepare_first(&mut self, prepared: &Rc<Prepared>) -> Step {
        self.s.resume = self.s.phase;
        self.s.phase = Phase::Own;
        self.ensure_prepared(prepared);
        self.inject(|out| {
            encode::sync(out);
            Ok::<(), ()>(())
        });
        if let Some(backend) = self.backend() {
            backend.push(Expect::OwnQuery(OwnPurpose::Prepare));
        }
        Step::Await
    }

    fn rewrite_prepared(
        &mut self,
        text: &[u8],
        template: &Rc<Template>,
        facts: &Facts,
    ) -> Result<Rewritten, Refused> {
        if self.map().is_sharded() {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "PREPARE and EXECUTE as SQL statements are not supported on a sharded database yet",
            )
            .hint("use the driver's own prepared statements (protocol level), which are"));
        }
        match &facts.effect {
            SessionEffect::Prepare { name, name_span, statement, .. } => {
                if self.s.statements.find(name.as_bytes()).is_some() {
                    return Err(duplicate(name));
                }
                if self.s.statements.len() >= self.s.limits.statements_max {
                    return Err(too_many(self.s.limits.statements_max));
                }
                let inner = statement.of(text);
                let around = around(text, *name_span);
                let made = match self.plan(inner)? {
                    Some(inner) => (self.map_serial(), inner),
                    None => (self.map_serial(), Rc::clone(template)),
                };
                let literals = self.env.planner.literals().clone();
                let settings = &self.s.settings;
                let prepared =
                    self.env.registry.intern_sql(around, inner, settings, made, literals);
                let sql = prepared.text.to_vec();
                let new_name = Some(name.as_bytes().into());
                Ok(Rewritten { prepared, sql, new_name, demand: Demands::default() })
            }
            SessionEffect::Execute { name, name_span, .. } => {
                let Some(prepared) = self.s.statements.find(name.as_bytes()) else {
                    return Err(missing(name.as_bytes()));
                };
                let prepared = Rc::clone(prepared);
                let mut buffer = [0; NAME_LEN];
                let own = backend_name(prepared.id, &mut buffer);
                let (head, tail) = around(text, *name_span);
                let sql = [head, own, tail].concat();
                let demand = self.demands_of(&prepared)?;
                Ok(Rewritten { prepared, sql, new_name: None, demand })
            }
            _ => Err(Refused::new(NOT_SUPPORTED, "not a prepared statement")),
        }
    }

    /// What an EXECUTE does to the session: what its statement does.
    fn demands_of(&mut self, prepared: &Rc<Prepared>) -> Result<Demands, Refused> {
        let template = self.template_of(&Named::Shared(Rc::clone(prepared)))?;
        let [facts] = template.statements() else { return Ok(Demands::default()) };
        let mut demand = demands(facts, prepared.statement(), None, self.situation())?;
        demand.spoken = restore::replacement(facts, &self.s.startup).map(|(_, tag)| tag);
        Ok(demand)
    }
}

/// The text before and after a name.
fn around(text: &[u8], name: Span) -> (&[u8], &[u8]) {
    let range = name.range();
    (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default())
}
