//! Statements that the router answers itself: its own (EXPLAIN ROUTE,
//! `keyway.*`), those about names that only it knows (DEALLOCATE, DISCARD ALL),
//! and those of a transaction that has no shard yet.

use std::rc::Rc;

use crate::cluster::Mark;
use crate::protocol::encode::{self, Column};
use crate::route::{ExplainedKey, Route, RouterCommand, Targets, Template, World, explain_in};
use crate::sql::statement::{Facts, Kind, SessionEffect, TxEffect, TxModes};
use crate::types::{Access, SqlState};

use super::effects::{Effect, demands};
use super::feed::Feed;
use super::lazy::Lazy;
use super::refusal::{
    ACTIVE_TRANSACTION, LIMIT_EXCEEDED, NO_SAVEPOINT, NO_TRANSACTION, NOT_SUPPORTED, Refused,
    in_failed_transaction,
};
use super::restore;
use super::simple::missing;
use super::{Step, Tx};

/// A statement of an extended batch that the router answers.
pub(super) struct LocalStatement {
    text: Box<[u8]>,
    template: Rc<Template>,
    everywhere: bool,
}

impl LocalStatement {
    pub(super) fn new(text: Box<[u8]>, template: Rc<Template>) -> Self {
        Self { text, template, everywhere: false }
    }

    pub(super) fn everywhere(text: Box<[u8]>, template: Rc<Template>) -> Self {
        Self { text, template, everywhere: true }
    }

    pub(super) const fn is_everywhere(&self) -> bool {
        self.everywhere
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn template(&self) -> &Template {
        &self.template
    }
}

/// What the router says to one statement.
#[derive(Default)]
struct Answer {
    /// Whole NoticeResponse frames, said first.
    notices: Vec<u8>,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// The RowDescription and the DataRows of rows that are there already.
    described: Vec<u8>,
    raw: Vec<u8>,
    /// `None` is an empty query.
    tag: Option<String>,
}

impl Answer {
    fn tag(tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), ..Self::default() }
    }

    fn warn(mut self, state: SqlState, message: &str) -> Self {
        self.notices.extend_from_slice(&Refused::new(state, message).warning_frame());
        self
    }

    fn describe(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.described);
        if !self.columns.is_empty() {
            describe_columns(self.columns, out);
        }
    }

    fn rows_and_tag(&self, out: &mut Vec<u8>) {
        for row in &self.rows {
            let values = row.iter().map(|value| Some(value.as_bytes()));
            debug_assert!(encode::data_row(out, values).is_ok(), "a short row can be encoded");
        }
        out.extend_from_slice(&self.raw);
        match &self.tag {
            Some(tag) => encode::command_complete(out, tag),
            None => encode::empty_query(out),
        }
    }
}

fn describe_columns(columns: &[&str], out: &mut Vec<u8>) {
    let columns: Vec<Column<'_>> = columns.iter().map(|name| Column::text(name)).collect();
    let described = encode::row_description(out, &columns);
    debug_assert!(described.is_ok(), "a handful of columns can be described");
}

impl Feed<'_, '_> {
    /// True if every statement of the text is the router's to answer.
    pub(super) fn is_local_text(&self, template: &Template) -> bool {
        !template.is_hot()
            && !template.statements().is_empty()
            && template.statements().iter().all(|facts| self.is_local(facts, template))
    }

    /// True if the router answers this statement itself, as things stand.
    pub(super) fn is_local(&self, facts: &Facts, template: &Template) -> bool {
        match facts.kind {
            Kind::ExplainRoute => return true,
            Kind::Empty => return self.env.backend.is_none(),
            Kind::Cursor
                if !self.s.cursors.is_empty()
                    && template.cursor().is_some_and(|name| self.s.cursors.contains(name)) =>
            {
                return true;
            }
            Kind::Set | Kind::Show | Kind::Reset if self.router_command(template).is_some() => {
                return true;
            }
            _ => {}
        }
        match &facts.effect {
            SessionEffect::Deallocate { name, .. } => {
                let known = self.s.statements.find(name.as_bytes()).is_some();
                return template.statements().len() == 1
                    && (known || !self.server_may_know() || self.env.backend.is_none());
            }
            SessionEffect::DeallocateAll | SessionEffect::DiscardSequences => {
                return template.statements().len() == 1;
            }
            SessionEffect::Listen { .. } | SessionEffect::Unlisten { .. } => {
                return self.shares_channels()
                    && template.statements().iter().all(|facts| facts.kind == Kind::Listen);
            }
            SessionEffect::DiscardTemp => {
                return self.env.backend.is_none()
                    && matches!(self.s.tx, Tx::Backend)
                    && !self.s.kept.has_temporary();
            }
            SessionEffect::DiscardAll => {
                // Changed settings are reported as they change back: by a
                // server, which knows their values.
                return self.env.backend.is_none()
                    && matches!(self.s.tx, Tx::Backend)
                    && Rc::ptr_eq(&self.s.settings, &self.s.startup);
            }
            _ => {}
        }
        // Without shards and replicas BEGIN has its backend at once; what is lazy
        // then is a transaction that has lost it.
        let lazy = matches!(self.s.tx, Tx::Lazy(_));
        if self.env.backend.is_some() || !(lazy || self.begins_later()) {
            return false;
        }
        match &facts.tx {
            TxEffect::Begin(_) => true,
            _ if !lazy && !self.map().is_sharded() => false,
            TxEffect::Commit { .. }
            | TxEffect::Rollback { .. }
            | TxEffect::Savepoint { .. }
            | TxEffect::Release { .. }
            | TxEffect::RollbackTo { .. } => true,
            TxEffect::SetTransaction { snapshot, .. } => lazy && !snapshot,
            TxEffect::SetConstraints => lazy,
            TxEffect::PrepareTransaction
            | TxEffect::CommitPrepared
            | TxEffect::RollbackPrepared => false,
            TxEffect::None => {
                lazy && matches!(
                    facts.effect,
                    SessionEffect::Set { .. }
                        | SessionEffect::Reset { .. }
                        | SessionEffect::ResetAll
                ) && self.keeps_settings()
            }
        }
    }

    pub(super) fn router_command(&self, template: &Template) -> Option<RouterCommand> {
        let route =
            template.locate(&[], self.env.planner.literals(), None, self.map(), None).ok()?;
        match route.targets {
            Targets::Router(command) => Some(command),
            Targets::Shard(_)
            | Targets::AnyShard
            | Targets::Home
            | Targets::HomeOutside
            | Targets::AllInTurn
            | Targets::Several(_) => None,
        }
    }

    /// A simple query that the router answers whole.
    pub(super) fn answer_query(
        &mut self,
        text: &[u8],
        template: &Template,
        end: usize,
    ) -> Option<Step> {
        self.consume(end);
        self.s.statements_seen += 1;
        for facts in template.statements() {
            match self.answer(facts, text, template) {
                Ok(answer) => {
                    self.env.to_client.extend_from_slice(&answer.notices);
                    answer.describe(self.env.to_client);
                    answer.rows_and_tag(self.env.to_client);
                }
                Err(refused) => return self.refuse_query(refused.frame().into()),
            }
        }
        self.say_ready();
        None
    }

    /// RowDescription or NoData of a statement that the router answers.
    pub(super) fn describe_local(&self, local: &LocalStatement) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(name) = local.template.cursor() {
            out = self.cursor_description(name, &local.text);
            if out.is_empty() {
                encode::no_data(&mut out);
            }
            return out;
        }
        let columns = match local.template.statements() {
            [facts] if facts.kind == Kind::ExplainRoute => EXPLAIN_COLUMNS,
            [facts] if facts.kind == Kind::Show => SHOW_COLUMNS,
            _ => &[],
        };
        if columns.is_empty() {
            encode::no_data(&mut out);
        } else {
            describe_columns(columns, &mut out);
        }
        out
    }

    /// Executes a statement of an extended batch that the router answers.
    pub(super) fn execute_local(&mut self, local: &LocalStatement) -> Result<Vec<u8>, Refused> {
        self.s.statements_seen += 1;
        let mut out = Vec::new();
        for facts in local.template.statements() {
            let answer = self.answer(facts, &local.text, &local.template)?;
            out.extend_from_slice(&answer.notices);
            answer.rows_and_tag(&mut out);
        }
        Ok(out)
    }

    fn answer(
        &mut self,
        facts: &Facts,
        text: &[u8],
        template: &Template,
    ) -> Result<Answer, Refused> {
        if let TxEffect::None = facts.tx
            && (self.is_backend_failed() || self.refuse_in_failed().is_some())
            && facts.kind != Kind::Empty
        {
            return Err(in_failed_transaction());
        }
        match &facts.tx {
            TxEffect::None => {}
            TxEffect::Begin(modes) => return self.answer_begin(*modes, facts.span.of(text)),
            TxEffect::Commit { chain } => return Ok(self.answer_end("COMMIT", *chain)),
            TxEffect::Rollback { chain } => return Ok(self.answer_end("ROLLBACK", *chain)),
            TxEffect::Savepoint { name }
            | TxEffect::Release { name }
            | TxEffect::RollbackTo { name } => {
                return self.answer_savepoint(&facts.tx, name, facts.span.of(text));
            }
            TxEffect::SetTransaction { .. } => return self.keep(facts, text, "SET"),
            TxEffect::SetConstraints => return self.keep(facts, text, "SET CONSTRAINTS"),
            TxEffect::PrepareTransaction
            | TxEffect::CommitPrepared
            | TxEffect::RollbackPrepared => {}
        }
        if facts.kind == Kind::Empty {
            return Ok(Answer::default());
        }
        if let (Kind::Cursor, Some(name)) = (facts.kind, template.cursor()) {
            let described = self.cursor_description(name, text);
            let (raw, tag) = self.fetch(name, text)?;
            return Ok(Answer { described, raw, ..Answer::tag(&tag) });
        }
        if let Some(command) = self.router_command(template) {
            return self.answer_command(&command, facts.kind, text);
        }
        match &facts.effect {
            SessionEffect::Deallocate { name, .. } => {
                if self.s.statements.remove(name.as_bytes()) {
                    Ok(Answer::tag("DEALLOCATE"))
                } else {
                    Err(missing(name.as_bytes()))
                }
            }
            SessionEffect::Listen { channel } => {
                self.note_channel(Effect::Listen(channel.clone()));
                Ok(Answer::tag("LISTEN"))
            }
            SessionEffect::Unlisten { channel } => {
                self.note_channel(Effect::Unlisten(channel.clone()));
                Ok(Answer::tag("UNLISTEN"))
            }
            SessionEffect::DeallocateAll => {
                self.s.statements.clear();
                Ok(Answer::tag("DEALLOCATE ALL"))
            }
            SessionEffect::DiscardAll => {
                self.s.forget_everything();
                Ok(Answer::tag("DISCARD ALL"))
            }
            SessionEffect::DiscardTemp => Ok(Answer::tag("DISCARD TEMP")),
            // currval outside a transaction is refused, so there is nothing.
            SessionEffect::DiscardSequences => Ok(Answer::tag("DISCARD SEQUENCES")),
            SessionEffect::Reset { .. } | SessionEffect::ResetAll => {
                self.keep(facts, text, "RESET")
            }
            _ => self.keep(facts, text, "SET"),
        }
    }

    fn answer_begin(&mut self, modes: TxModes, text: &[u8]) -> Result<Answer, Refused> {
        if let Some(refused) = self.refuse_in_failed() {
            return Err(refused);
        }
        if matches!(self.s.tx, Tx::Lazy(_)) {
            return Ok(Answer::tag("BEGIN")
                .warn(ACTIVE_TRANSACTION, "there is already a transaction in progress"));
        }
        self.s.tx = Tx::Lazy(Box::new(Lazy::new(text, modes)));
        self.s.leave_joined();
        self.fix_map();
        Ok(Answer::tag("BEGIN"))
    }

    fn answer_end(&mut self, tag: &str, chain: bool) -> Answer {
        let Tx::Lazy(lazy) = std::mem::replace(&mut self.s.tx, Tx::Backend) else {
            return Answer::tag(tag).warn(NO_TRANSACTION, "there is no transaction in progress");
        };
        let failed = lazy.is_failed();
        let committed = tag == "COMMIT" && !failed;
        let begin = chain.then(|| lazy.restarted());
        if committed {
            for effect in lazy.into_effects() {
                self.s.log.push(effect);
            }
            self.s.apply_log_without_backend(self.env.interner);
        }
        self.s.refresh_own();
        self.s.tx_map = None;
        self.s.cursors.end_transaction();
        self.s.portals.clear();
        self.s.channels.settle();
        if let Some(lazy) = begin {
            self.s.tx = Tx::Lazy(Box::new(lazy));
            self.fix_map();
        }
        Answer::tag(if committed { "COMMIT" } else { "ROLLBACK" })
    }

    fn answer_savepoint(
        &mut self,
        effect: &TxEffect,
        name: &str,
        text: &[u8],
    ) -> Result<Answer, Refused> {
        let failed = self.refuse_in_failed();
        let limit = self.s.limits.held_bytes_max;
        let (word, tag) = match effect {
            TxEffect::Savepoint { .. } => ("SAVEPOINT", "SAVEPOINT"),
            TxEffect::Release { .. } => ("RELEASE SAVEPOINT", "RELEASE"),
            _ => ("ROLLBACK TO SAVEPOINT", "ROLLBACK"),
        };
        let Tx::Lazy(lazy) = &mut self.s.tx else {
            return Err(Refused::new(
                NO_TRANSACTION,
                format!("{word} can only be used in transaction blocks"),
            ));
        };
        let found = match effect {
            TxEffect::RollbackTo { .. } => {
                self.s.cursors.roll_back_to();
                lazy.rollback_to(name)
            }
            _ if failed.is_some() => return failed.map_or_else(|| Ok(Answer::default()), Err),
            TxEffect::Release { .. } => lazy.release(name),
            _ => {
                check_kept(lazy, text, limit)?;
                lazy.savepoint(name, text);
                true
            }
        };
        self.s.refresh_own();
        if found {
            Ok(Answer::tag(tag))
        } else {
            Err(Refused::new(NO_SAVEPOINT, format!("savepoint \"{name}\" does not exist")))
        }
    }

    /// Keeps a statement for the shard that the transaction will have.
    fn keep(&mut self, facts: &Facts, text: &[u8], tag: &str) -> Result<Answer, Refused> {
        let demand = demands(facts, text, None, self.situation())?;
        let limit = self.s.limits.held_bytes_max;
        let statement = match restore::replacement(facts, &self.s.startup) {
            Some((sql, _)) => &sql.into_bytes(),
            None => facts.span.of(text),
        };
        if let Tx::Lazy(lazy) = &mut self.s.tx {
            check_kept(lazy, statement, limit)?;
            lazy.keep(statement, demand.effects);
            self.note_kept_modes(facts);
            self.s.refresh_own();
        }
        Ok(Answer::tag(tag))
    }

    fn answer_command(
        &mut self,
        command: &RouterCommand,
        kind: Kind,
        text: &[u8],
    ) -> Result<Answer, Refused> {
        match command {
            RouterCommand::ExplainRoute { statement } => self.explain(statement.of(text)),
            RouterCommand::SetKeyway { name, value, local } => {
                let warning = self.set_keyway(name, value.as_deref(), *local)?;
                let answer = Answer::tag(if kind == Kind::Reset { "RESET" } else { "SET" });
                Ok(match warning {
                    Some((state, message)) => answer.warn(state, message),
                    None => answer,
                })
            }
            RouterCommand::UnreadValue => Err(Refused::new(
                NOT_SUPPORTED,
                "a setting of the router's can't be read in this form",
            )
            .hint("write its value as a plain quoted string")),
            RouterCommand::ShowKeyway { name } => Ok(Answer {
                columns: SHOW_COLUMNS,
                rows: vec![vec![self.show_keyway(name)?]],
                tag: Some("SHOW".to_owned()),
                ..Answer::default()
            }),
        }
    }

    /// EXPLAIN ROUTE: one row for each fact of the route.
    fn explain(&mut self, statement: &[u8]) -> Result<Answer, Refused> {
        let planned = self.plan(statement)?;
        let Some(template) = planned else {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "the statement can't be read under the session's settings",
            ));
        };
        let route = template
            .locate(statement, self.env.planner.literals(), None, self.map(), self.s.own.declared())
            .map_err(|error| super::feed::refuse_route(&error))?;
        let mut together = Vec::new();
        if matches!(route.targets, Targets::Several(_)) {
            let scatter =
                template.scatter(statement).map_err(|error| super::feed::refuse_route(&error))?;
            together.push(vec!["made".to_owned(), scatter.way().to_owned()]);
            let asked = scatter.sketch().into_iter();
            together.extend(asked.map(|line| vec!["asked".to_owned(), line]));
        }
        let keys = {
            let map = self.shared_map();
            let mut world = World::of_map(&map, &self.s.search_path);
            world.catalog = Some(self.env.catalog);
            explain_in(&world, statement, None, self.s.own.declared()).keys
        };
        let opens = matches!(self.s.tx, Tx::Lazy(_)) && self.opens_on_replica(&template);
        let mut rows = self.explain_rows(&template, &route, &keys, opens);
        rows.extend(together);
        Ok(Answer {
            columns: EXPLAIN_COLUMNS,
            rows,
            tag: Some("EXPLAIN".to_owned()),
            ..Answer::default()
        })
    }

    fn explain_rows(
        &self,
        template: &Template,
        route: &Route,
        keys: &[ExplainedKey],
        opens: bool,
    ) -> Vec<Vec<String>> {
        let map = self.map();
        let name = |id| map.shard(id).map_or("?", |shard| &*shard.name).to_owned();
        let targets = match &route.targets {
            Targets::Shard(shard) => name(*shard),
            Targets::AnyShard => format!("any shard (here {})", name(map.home())),
            Targets::Home | Targets::HomeOutside => format!("{} (home)", name(map.home())),
            Targets::AllInTurn => {
                let all: Vec<_> = map.shards().iter().map(|shard| shard.name.to_string()).collect();
                format!("all shards in turn: {}", all.join(", "))
            }
            Targets::Several(several) => {
                let shards = several.shards.iter().map(|shard| name(*shard));
                format!("{}, at once", shards.collect::<Vec<_>>().join(", "))
            }
            Targets::Router(_) => "the router itself".to_owned(),
        };
        let shard = match &route.targets {
            Targets::Shard(shard) => *shard,
            Targets::AnyShard
            | Targets::Home
            | Targets::HomeOutside
            | Targets::AllInTurn
            | Targets::Several(_)
            | Targets::Router(_) => map.home(),
        };
        let level = template.level(self.s.own.consistency()).unwrap_or(self.env.consistency);
        let writes = template.access() == Access::Write;
        let node = if opens {
            (self.env.choose)(shard, level, Mark::Shard)
        } else if writes {
            "primary: it writes, locks or may do so".to_owned()
        } else if !template.replica_ok() {
            "primary: only reads of the map's tables with known functions go to replicas".to_owned()
        } else if self.is_on_replica() {
            "replica: its read-only transaction runs there".to_owned()
        } else if self.situation().in_transaction {
            "primary: inside a transaction".to_owned()
        } else {
            (self.env.choose)(shard, level, route.mark)
        };
        let access = match template.access() {
            Access::Read => "read",
            Access::Write => "write",
        };
        let marks = match route.mark {
            Mark::Slots(slots) if slots.only().is_some() => "its slot",
            Mark::Slots(_) => "its slots",
            Mark::Shard => "the whole shard",
        };
        let mut facts = vec![("targets", targets), ("reason", route.reason.to_string())];
        facts.extend(keys.iter().map(|key| ("key", key.to_string())));
        facts.extend([
            ("access", access.to_owned()),
            ("marks", marks.to_owned()),
            ("node", node),
            ("epoch", map.epoch().number().to_string()),
        ]);
        facts.into_iter().map(|(what, value)| vec![what.to_owned(), value]).collect()
    }
}

fn check_kept(lazy: &Lazy, text: &[u8], limit: usize) -> Result<(), Refused> {
    if lazy.bytes().saturating_add(text.len()) > limit {
        return Err(Refused::new(
            LIMIT_EXCEEDED,
            format!("a transaction without a shard may keep {limit} bytes of statements"),
        )
        .hint("run a statement with the sharding key earlier in the transaction"));
    }
    Ok(())
}

const EXPLAIN_COLUMNS: &[&str] = &["route", "value"];
const SHOW_COLUMNS: &[&str] = &["value"];
