//! Finding a batch's shard before any of it is sent.
//!
//! Nothing is consumed and nothing changes: the messages are read again once
//! there is a backend. The first Bind that has a shard decides; a batch that
//! only parses and describes goes to a primary that has the tables, outside
//! the client's transaction.

use std::rc::Rc;

use crate::cluster::Mark;
use crate::protocol::frame::{HEADER_LEN, decode_header};
use crate::protocol::frontend::{Bind, Describe, Parse, Target};
use crate::protocol::tag::frontend as tag;
use crate::route::{Params, Route, RouterCommand, Targets, Template};
use crate::sql::literal::Literals;
use crate::sql::statement::TxEffect;
use crate::types::Access;

use super::extended::USUAL_END;
use super::feed::Feed;
use super::names::Named;
use super::place::{Found, Place};
use super::refusal::Refused;
use super::values::{BoundParams, PrefixParams};
use super::{Phase, Span, Tx, Want};

/// What a batch without a backend needs.
pub(super) enum Ahead {
    /// A backend for its first statement with a shard.
    Need(Want),
    /// The backend that the transaction has, once it has what the first
    /// statement must see.
    Fresh(Want),
    /// More bytes: nothing decides yet.
    More,
    /// Another map or other moves.
    Wait,
    /// No backend: the router answers, or refuses, its next message.
    Local,
    /// No backend yet: the statement asks each shard by itself.
    Spread,
}

/// What a message opens.
enum Opens {
    Batch,
    Nothing,
}

/// Whether a batch that opens with a Bind is here up to its Sync and binds
/// nothing else.
enum Closed {
    Surely,
    Perhaps,
}

/// A Parse of this batch that is not noted yet.
struct Parsed<'i> {
    parse: Parse<'i>,
    template: Rc<Template>,
    /// It is the batch's first message.
    opens: bool,
    /// The planner's count: while it stays, the constants are there.
    planned: u64,
    /// Else here.
    literals: Literals,
}

/// The Parse messages of a batch: one, as a rule, which needs no memory.
#[derive(Default)]
struct AllParsed<'i> {
    first: Option<Parsed<'i>>,
    more: Vec<Parsed<'i>>,
}

impl<'i> AllParsed<'i> {
    fn push(&mut self, one: Parsed<'i>) {
        match self.first {
            None => self.first = Some(one),
            Some(_) => self.more.push(one),
        }
    }

    fn last_mut(&mut self) -> Option<&mut Parsed<'i>> {
        self.more.last_mut().or(self.first.as_mut())
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Parsed<'i>> {
        self.first.iter().chain(&self.more)
    }

    /// The newest of that name.
    fn find(&self, name: &[u8]) -> Option<&Parsed<'i>> {
        self.iter().rev().find(|one| one.parse.name == name)
    }
}

impl Feed<'_, '_> {
    pub(super) fn look_ahead(&mut self) -> Ahead {
        if matches!(self.s.phase, Phase::Skip) {
            return Ahead::Local;
        }
        if self.s.hidden.any() && !self.map().is_sharded() {
            return Ahead::Need(self.home());
        }
        let ahead = match self.look_at_opening_bind() {
            Some((ahead, Closed::Surely)) => return ahead,
            Some((ahead, Closed::Perhaps)) => ahead,
            None => self.look_through(),
        };
        match ahead {
            // Whatever else the batch binds runs on the same backend.
            Ahead::Need(want) if want.access == Access::Read => {
                let opening = usize::from(self.s.pending.begins().is_some());
                self.s.pending.set_begins(None);
                let alone = self.binds() == Some(1 + opening);
                let access = if alone { Access::Read } else { Access::Write };
                Ahead::Need(Want { access, ..want })
            }
            Ahead::Need(_)
            | Ahead::Fresh(_)
            | Ahead::More
            | Ahead::Wait
            | Ahead::Local
            | Ahead::Spread => {
                self.s.pending.set_begins(None);
                ahead
            }
        }
    }

    /// How many statements the batch binds, if it is here up to its Sync.
    pub(super) fn binds(&self) -> Option<usize> {
        let mut at = self.at;
        let mut binds = 0;
        while let Ok(Some(header)) = decode_header(self.input.get(at..).unwrap_or_default()) {
            match header.tag {
                tag::BIND => binds += 1,
                tag::SYNC => return Some(binds),
                tag::PARSE | tag::DESCRIBE | tag::EXECUTE | tag::CLOSE => {}
                // What follows a Flush may be anything.
                _ => return None,
            }
            at = at.saturating_add(header.frame_len());
        }
        None
    }

    /// A batch that opens with a Bind, as with a prepared statement: as a rule
    /// it decides at once. `None` if it does not.
    #[inline]
    fn look_at_opening_bind(&mut self) -> Option<(Ahead, Closed)> {
        let rest = self.input.get(self.at..)?;
        let header = decode_header(rest).ok()?.filter(|header| header.tag == tag::BIND)?;
        let (message, behind) = rest.split_at_checked(header.frame_len())?;
        let body = message.get(HEADER_LEN..)?;
        let Ok(bind) = Bind::decode(body) else { return Some((Ahead::Local, Closed::Surely)) };
        let closed = if behind.starts_with(USUAL_END) { Closed::Surely } else { Closed::Perhaps };
        self.look_at_named(&bind, Opens::Batch).map(|ahead| (ahead, closed))
    }

    /// Apart from the way above, which is the hot one and needs none of this
    /// memory.
    #[inline(never)]
    fn look_through(&mut self) -> Ahead {
        let input = self.input;
        let mut at = self.at;
        let mut parsed = AllParsed::default();
        // Something is a server's to judge; something else than the statement
        // that the batch is about is described.
        let (mut describes, mut asks) = (false, false);
        loop {
            let rest = input.get(at..).unwrap_or_default();
            let Ok(Some(header)) = decode_header(rest) else { return Ahead::More };
            let body_at = at + HEADER_LEN;
            let end = body_at.saturating_add(header.body_len);
            let Some(body) = input.get(body_at..end) else {
                return self.look_at_partial(header.tag, input.get(body_at..), &parsed);
            };
            let found = match header.tag {
                tag::PARSE => {
                    self.keep_literals(&mut parsed);
                    match self.read_parse(body, at == self.at) {
                        None => Some(Ahead::Local),
                        Some(one) => {
                            let known = !one.parse.name.is_empty()
                                && self.env.registry.is_taken(&one.parse, &self.s.settings);
                            describes |= !known && !self.is_local_text(&one.template);
                            parsed.push(one);
                            None
                        }
                    }
                }
                tag::BIND => match Bind::decode(body) {
                    Ok(bind) => self.look_at_bind(&bind, &mut parsed),
                    Err(_) => Some(Ahead::Local),
                },
                tag::DESCRIBE => {
                    self.keep_literals(&mut parsed);
                    if self.describes_statement(body) {
                        describes = true;
                        let name = body.get(1..body.len().saturating_sub(1));
                        asks |= !self.is_only(name, &parsed);
                    }
                    None
                }
                tag::SYNC | tag::FLUSH | tag::QUERY | tag::FUNCTION_CALL | tag::TERMINATE => {
                    Some(if describes { self.describing(&parsed) } else { Ahead::Local })
                }
                _ => self.sets_keyway(header.tag, body).then_some(Ahead::Local),
            };
            match found {
                // Its shards judge the one statement that is parsed.
                Some(Ahead::Spread) if !asks && self.binds_all_of(body, &parsed) => {
                    return Ahead::Spread;
                }
                // What was parsed before is still a server's to judge.
                Some(Ahead::Local | Ahead::Spread) if describes => return self.describing(&parsed),
                Some(found) => return found,
                None => {}
            }
            at = end;
        }
    }

    /// True if a Bind's `body` binds the only statement of `parsed` that is for
    /// servers.
    fn binds_all_of(&self, body: &[u8], parsed: &AllParsed<'_>) -> bool {
        let Ok(bind) = Bind::decode(body) else { return false };
        self.is_only(Some(bind.statement()), parsed)
    }

    /// True if no statement of another name is for servers to judge.
    fn is_only(&self, name: Option<&[u8]>, parsed: &AllParsed<'_>) -> bool {
        let mut for_servers = parsed.iter().filter(|one| !self.is_local_text(&one.template));
        for_servers.next().is_none_or(|one| Some(one.parse.name) == name)
            && for_servers.next().is_none()
    }

    /// A Parse that will succeed here; otherwise the router refuses it.
    fn read_parse<'i>(&mut self, body: &'i [u8], opens: bool) -> Option<Parsed<'i>> {
        let parse = Parse::decode(body).ok()?;
        let template = self.plan(parse.query).ok()??;
        let planned = self.env.planner.planned();
        Some(Parsed { parse, template, opens, planned, literals: Literals::default() })
    }

    fn locate_parsed(
        &self,
        one: &Parsed<'_>,
        literals: &Literals,
        params: Option<&dyn Params>,
    ) -> Result<Route, Refused> {
        self.locate(&one.template, one.parse.query, literals, params)
    }

    /// Something else may be planned now: the newest Parse keeps its constants.
    fn keep_literals(&self, parsed: &mut AllParsed<'_>) {
        if let Some(last) = parsed.last_mut()
            && last.planned == self.env.planner.planned()
        {
            last.literals.clone_from(self.env.planner.literals());
        }
    }

    fn literals_of<'p>(&'p self, one: &'p Parsed<'_>) -> &'p Literals {
        if one.planned == self.env.planner.planned() {
            self.env.planner.literals()
        } else {
            &one.literals
        }
    }

    fn describes_statement(&mut self, body: &[u8]) -> bool {
        let Ok(describe) = Describe::decode(body) else { return false };
        if describe.kind == Target::Portal {
            return false;
        }
        let Ok(Some(named)) = self.named(describe.name) else { return false };
        self.template_of(&named).is_ok_and(|template| !self.is_local_text(&template))
    }

    /// `None` if the batch's shard is still open after this Bind.
    fn look_at_bind(&mut self, bind: &Bind<'_>, parsed: &mut AllParsed<'_>) -> Option<Ahead> {
        let Some(one) = parsed.find(bind.statement()) else {
            self.keep_literals(parsed);
            return self.look_at_named(bind, Opens::Nothing);
        };
        if self.is_local_text(&one.template) {
            let template = Rc::clone(&one.template);
            self.note_begin_ahead(&template);
            return self.sets_own(&template).then_some(Ahead::Local);
        }
        let params = BoundParams::new(bind, one.parse.raw_types());
        let literals = self.literals_of(one);
        let route = self.locate_parsed(one, literals, Some(&params));
        let ahead = self.ahead_of(&one.template, route.ok());
        if let (Ahead::Need(_), Some(first)) = (&ahead, &parsed.first)
            && first.opens
        {
            // The next feed begins with that Parse.
            self.s.pending.keep_found(Found::Parse {
                serial: self.map_serial(),
                planned: first.planned,
                template: Rc::clone(&first.template),
            });
        }
        Some(ahead)
    }

    /// The batch opens a transaction ahead of what it does there.
    fn note_begin_ahead(&mut self, template: &Template) {
        if let ([facts], Tx::Backend) = (template.statements(), &self.s.tx)
            && let TxEffect::Begin(modes) = facts.tx
        {
            self.s.pending.set_begins(Some(modes));
        }
    }

    /// What a batch does behind a SET of the router's is known once that is done.
    fn sets_own(&self, template: &Template) -> bool {
        matches!(self.router_command(template), Some(RouterCommand::SetKeyway { .. }))
    }

    /// A Bind of a statement that the client has prepared before this batch.
    fn look_at_named(&mut self, bind: &Bind<'_>, opens: Opens) -> Option<Ahead> {
        let Ok(Some(named)) = self.named(bind.statement()) else { return Some(Ahead::Local) };
        let Ok(template) = self.template_of(&named) else { return Some(Ahead::Local) };
        if self.is_local_text(&template) {
            self.note_begin_ahead(&template);
            return self.sets_own(&template).then_some(Ahead::Local);
        }
        let params = BoundParams::new(bind, self.types_of(&named));
        let route = self.locate_bound(&named, &template, &params).ok();
        let ahead = self.ahead_of(&template, route);
        if let (Ahead::Need(want), Opens::Batch, Named::Shared(prepared)) = (&ahead, opens, named)
            && template.is_hot()
        {
            // The next feed begins with this Bind.
            let (serial, shard) = (self.map_serial(), want.shard);
            let name = bind.statement_span();
            let writes = (template.access() == Access::Write).then(|| self.s.pending.mark());
            self.s.pending.keep_found(Found::Bind { serial, prepared, name, shard, writes });
        }
        Some(ahead)
    }

    fn ahead_of(&mut self, template: &Template, route: Option<Route>) -> Ahead {
        let Some(route) = route else { return Ahead::Local };
        if self.refuse_in_failed().is_some() {
            return Ahead::Local;
        }
        if matches!(route.targets, Targets::AllInTurn | Targets::Several(_)) {
            return Ahead::Spread;
        }
        match self.place(template, &route) {
            Place::Need(want) => Ahead::Need(want),
            Place::Fresh(want) => Ahead::Fresh(want),
            Place::Wait => Ahead::Wait,
            Place::Here | Place::Several(_) | Place::Refuse(_) => Ahead::Local,
        }
    }

    fn look_at_partial(
        &mut self,
        kind: u8,
        prefix: Option<&[u8]>,
        parsed: &AllParsed<'_>,
    ) -> Ahead {
        let Some(prefix) = prefix.filter(|_| kind == tag::BIND) else { return Ahead::More };
        let Ok(Some(bind)) = Bind::decode_prefix(prefix) else { return Ahead::More };
        if let Some(one) = parsed.find(bind.statement()) {
            if one.template.key_params().iter().any(|i| usize::from(*i) >= bind.complete()) {
                return Ahead::More;
            }
            let params = PrefixParams { bind: &bind, types: one.parse.raw_types() };
            let literals = self.literals_of(one);
            let route = self.locate_parsed(one, literals, Some(&params));
            return match route.map(|route| self.place(&one.template, &route)) {
                Ok(Place::Need(want)) => Ahead::Need(want),
                Ok(Place::Fresh(want)) => Ahead::Fresh(want),
                Ok(Place::Wait) => Ahead::Wait,
                Ok(Place::Here | Place::Several(_) | Place::Refuse(_)) | Err(_) => Ahead::More,
            };
        }
        let Ok(Some(named)) = self.named(bind.statement()) else { return Ahead::More };
        let Ok(template) = self.template_of(&named) else { return Ahead::More };
        if template.key_params().iter().any(|i| usize::from(*i) >= bind.complete()) {
            return Ahead::More;
        }
        let params = PrefixParams { bind: &bind, types: self.types_of(&named) };
        let route = self.locate_bound(&named, &template, &params);
        match route.map(|route| self.place(&template, &route)) {
            Ok(Place::Need(want)) => Ahead::Need(want),
            Ok(Place::Fresh(want)) => Ahead::Fresh(want),
            Ok(Place::Wait) => Ahead::Wait,
            Ok(Place::Here | Place::Several(_) | Place::Refuse(_)) | Err(_) => Ahead::More,
        }
    }

    /// A batch that only parses and describes: any primary that has its table
    /// will do.
    fn describing(&mut self, parsed: &AllParsed<'_>) -> Ahead {
        let mut shard = self.map().home();
        for one in parsed.iter() {
            let literals = self.literals_of(one);
            let route = self.locate_parsed(one, literals, None);
            if let Ok(route) = route {
                match &route.targets {
                    Targets::Shard(only) => shard = *only,
                    Targets::Several(several) => {
                        shard = several.shards.first().copied().unwrap_or(shard);
                    }
                    _ => {}
                }
            }
        }
        self.s.pending.set_outside(matches!(self.s.tx, Tx::Lazy(_)));
        let (mark, span) = (Mark::Shard, Span::Unit);
        Ahead::Need(Want { shard, access: Access::Write, consistency: None, mark, span })
    }

    /// True if the batch at hand has only parsed and described so far.
    pub(super) fn only_describes(&self) -> bool {
        !self.s.bound_in_batch
    }
}

/// Where a batch that is here whole and describes its portal ends: after its
/// Sync. `None` if it is not whole, describes none, or is longer than `max`
/// bytes.
pub(super) fn described_batch_end(input: &[u8], max: usize) -> Option<usize> {
    let mut at = 0;
    let mut described = false;
    while at <= max {
        let header = decode_header(input.get(at..)?).ok()??;
        let end = at.checked_add(header.frame_len())?;
        if end > input.len() || end > max {
            return None;
        }
        if input.get(end..)?.starts_with(USUAL_END) {
            return Some(end + USUAL_END.len()).filter(|end| *end <= max);
        }
        described |= header.tag == tag::DESCRIBE
            && input.get(at + HEADER_LEN) == Some(&Target::Portal.code());
        if header.tag == tag::SYNC {
            return described.then_some(end);
        }
        at = end;
    }
    None
}
