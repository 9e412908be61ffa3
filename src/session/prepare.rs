//! PREPARE and EXECUTE as SQL statements: the client's name gives way to the
//! backends', and the statement is prepared where it runs.

use std::rc::Rc;

use crate::backend::{Expect, NAME_LEN, OwnPurpose, Report, StatementId, backend_name};
use crate::protocol::encode;
use crate::route::{Param, Params, Template};
use crate::sql::statement::{Argument, Facts, SessionEffect, Span};
use crate::types::Format;

use super::effects::{Demands, Effect, demands};
use super::feed::Feed;
use super::names::Named;
use super::place::Place;
use super::refusal::{NOT_SUPPORTED, Refused, in_failed_transaction};
use super::restore;
use super::simple::{duplicate, missing, too_many};
use super::statements::Prepared;
use super::values::declared_type;
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
        if rewritten.new_name.is_some() && (self.keeps_settings() || self.is_on_replica()) {
            return self.note_name(rewritten, end);
        }
        if !placed {
            match self.place_prepared(&rewritten.prepared, text, &facts.effect) {
                Ok(Place::Here) => {}
                Ok(Place::Need(want)) => return Some(self.ask(want, Some(template))),
                Ok(Place::Fresh(want)) => return Some(self.await_fresh(want, Some(template))),
                Ok(Place::Several(shards)) => {
                    let refused = match (&*shards, &self.env.backend) {
                        ([one], Some((_, bound))) => self.other_shard(*one, *bound),
                        _ => super::scatter::not_executed(),
                    };
                    return self.refuse_simple(&refused, end);
                }
                Ok(Place::Wait) => return Some(Step::Hold),
                Ok(Place::Refuse(refused)) | Err(refused) => {
                    return self.refuse_simple(&refused, end);
                }
            }
        }
        if let Err(refused) = self.s.admit_hold(rewritten.demand.holds) {
            return self.refuse_simple(&refused, end);
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

    /// PREPARE on a sharded database: where it will run, its EXECUTE tells; the
    /// backend prepares it then.
    fn note_name(&mut self, rewritten: Rewritten, end: usize) -> Option<Step> {
        self.consume(end);
        self.s.pending.clear();
        if let Some(name) = rewritten.new_name {
            self.s.statements.insert(&name, rewritten.prepared);
        }
        encode::command_complete(self.env.to_client, "PREPARE");
        self.say_ready();
        None
    }

    /// Where an EXECUTE runs: where its statement does, with its arguments.
    fn place_prepared(
        &mut self,
        prepared: &Rc<Prepared>,
        text: &[u8],
        effect: &SessionEffect,
    ) -> Result<Place, Refused> {
        if !self.map().is_sharded() && !self.keeps_settings() && !self.is_on_replica() {
            let held = self.env.backend.is_some();
            return Ok(if held { Place::Here } else { Place::Need(self.home()) });
        }
        let SessionEffect::Execute { arguments, .. } = effect else {
            return Err(Refused::new(NOT_SUPPORTED, "not a prepared statement"));
        };
        let named = Named::Shared(Rc::clone(prepared));
        let template = self.template_of(&named)?;
        // On one shard the arguments place nothing.
        let arguments = if self.map().is_sharded() { &**arguments } else { &[] };
        let arguments = Arguments { arguments, types: &prepared.raw_types };
        // A cast may make another value of the same constant.
        let plain = !text.windows(2).any(|pair| pair == b"::");
        let keys_are_known = template
            .key_params()
            .iter()
            .all(|index| plain && arguments.get(usize::from(*index)).is_some());
        if !keys_are_known {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "EXECUTE whose sharding key is not a constant",
            )
            .hint("write the key's argument as a constant, or use the driver's own prepared statements (protocol level)"));
        }
        let route = self.locate_bound(&named, &template, &arguments)?;
        Ok(self.place(&template, &route))
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
        match &facts.effect {
            SessionEffect::Prepare { name, name_span, statement, types } => {
                if self.s.statements.find(name.as_bytes()).is_some() {
                    return Err(duplicate(name));
                }
                if self.s.statements.len() >= self.s.limits.statements_max {
                    return Err(too_many(self.s.limits.statements_max));
                }
                // With the list that it lacks it is another statement.
                let spliced = self.spliced(text, *statement)?;
                let (text, statement) = match &spliced {
                    Some((text, statement)) => (text.as_slice(), *statement),
                    None => (text, *statement),
                };
                let inner = statement.of(text);
                let around = around(text, *name_span);
                let made = match self.plan(inner)? {
                    Some(inner) => (self.map_serial(), inner),
                    None => (self.map_serial(), Rc::clone(template)),
                };
                let keys = made.1.key_params();
                if types.is_some_and(|types| !types_keep_text(types.of(text), keys)) {
                    return Err(Refused::new(
                        NOT_SUPPORTED,
                        "PREPARE with such a parameter type for the sharding key",
                    )
                    .hint("leave the types out, or name int2, int4, int8, text, varchar or uuid"));
                }
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

    /// The text with the column list that its statement lacks, and where the
    /// statement then stands.
    fn spliced(
        &mut self,
        text: &[u8],
        statement: Span,
    ) -> Result<Option<(Vec<u8>, Span)>, Refused> {
        let inner = statement.of(text);
        let planned = self.plan(inner)?;
        let Some(sent) = planned.and_then(|template| template.rewritten(inner)) else {
            return Ok(None);
        };
        let range = statement.range();
        let head = text.get(..range.start).unwrap_or_default();
        let tail = text.get(range.end..).unwrap_or_default();
        let added = u32::try_from(sent.len().saturating_sub(inner.len())).unwrap_or(0);
        let end = statement.end.saturating_add(added);
        Ok(Some(([head, &sent, tail].concat(), Span { start: statement.start, end })))
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

/// An EXECUTE's arguments as a route reads them: constants, in text.
struct Arguments<'a> {
    arguments: &'a [Argument],
    types: &'a [u8],
}

impl Params for Arguments<'_> {
    fn get(&self, index: usize) -> Option<Param<'_>> {
        let value = match self.arguments.get(index)? {
            Argument::Text(text) if is_its_own_text(text) => Some(text.as_bytes()),
            Argument::Null => None,
            Argument::Text(_) | Argument::Param(_) | Argument::Opaque => return None,
        };
        Some(Param { value, format: Format::Text, oid: declared_type(self.types, index) })
    }
}

/// False for what may be a number that is written otherwise than it is shown:
/// `007` given to a text parameter is `7`, `'007'` is not, and which of the two
/// stood there is not known here.
fn is_its_own_text(text: &str) -> bool {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return true;
    }
    let uuid = text.len() == 36 && text.bytes().filter(|b| *b == b'-').count() == 4;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let integer = (1..=18).contains(&digits.len())
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (!digits.starts_with('0') || text == "0");
    uuid || integer
}

/// True if the parameters at these indexes keep their constants' text under the
/// types that PREPARE lists: `char` pads, `numeric` and floats round.
fn types_keep_text(types: &[u8], indexes: &[u16]) -> bool {
    let Ok(types) = std::str::from_utf8(types) else { return false };
    let inside = types.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let names: Vec<String> =
        inside.unwrap_or(types).split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
    indexes.iter().all(|index| {
        // Fewer types than parameters: the rest is the server's to find.
        names.get(usize::from(*index)).is_none_or(|name| KEEPING_TYPES.contains(&&**name))
    })
}

const KEEPING_TYPES: &[&str] = &[
    "int2",
    "smallint",
    "int4",
    "int",
    "integer",
    "int8",
    "bigint",
    "text",
    "varchar",
    "character varying",
    "uuid",
    "unknown",
];

/// The text before and after a name.
fn around(text: &[u8], name: Span) -> (&[u8], &[u8]) {
    let range = name.range();
    (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_that_a_server_may_show_otherwise_are_no_keys() {
        for text in ["42", "-7", "0", "a'b", "", "true", "6f1c5f7e-9a43-4a52-8f0e-0d7a7a8a1c11"] {
            assert!(is_its_own_text(text), "{text}");
        }
        for text in ["007", "-0", "1e3", "1.0", "0x1F", "+5", ".5", "1_000", "1234567890123456789"]
        {
            assert!(!is_its_own_text(text), "{text}");
        }
    }

    #[test]
    fn types_that_change_a_constant_are_not_taken() {
        assert!(types_keep_text(b"(numeric, text)", &[1]) && types_keep_text(b"( BIGINT )", &[0]));
        assert!(types_keep_text(b"(int8)", &[1]));
        for types in ["(char)", "(numeric)", "(char(3))", "(varchar(3))", "(mine.int8)", "(float8)"]
        {
            assert!(!types_keep_text(types.as_bytes(), &[0]), "{types}");
        }
    }
}
