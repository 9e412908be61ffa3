//! What a client's statement names stand for, and getting those statements onto
//! the backend that is to run them.

use std::borrow::Cow;
use std::rc::Rc;

use crate::backend::{Expect, NAME_LEN, StatementId, backend_name};
use crate::protocol::encode;
use crate::protocol::frontend::{Parse, Target};
use crate::protocol::tag::backend as reply;
use crate::route::{Param, Params, Route, Targets, Template};
use crate::types::Format;

use super::effects::{is_transaction_end, may_follow_failure};
use super::feed::Feed;
use super::refusal::{NOT_SUPPORTED, Refused, in_failed_transaction};
use super::simple::{duplicate, missing, too_many, unchecked_copy};
use super::statements::{Origin, Prepared};

/// The statement that a Bind or a Describe names.
pub(super) enum Named {
    Shared(Rc<Prepared>),
    Unnamed(StatementId, Rc<Template>),
}

impl Feed<'_, '_> {
    /// What the client calls `name`; `None` if names are the server's own.
    pub(super) fn named(&self, name: &[u8]) -> Result<Option<Named>, Refused> {
        if name.is_empty() {
            let unnamed = &self.s.unnamed;
            if let (Some(id), Some((_, template))) = (unnamed.id, &unnamed.template) {
                return Ok(Some(Named::Unnamed(id, Rc::clone(template))));
            }
        } else if let Some(prepared) = self.s.statements.find(name) {
            return Ok(Some(Named::Shared(Rc::clone(prepared))));
        }
        if self.server_may_know() { Ok(None) } else { Err(missing(name)) }
    }

    /// Its template under the map of the transaction.
    pub(super) fn template_of(&mut self, named: &Named) -> Result<Rc<Template>, Refused> {
        let serial = self.map_serial();
        let text: Box<[u8]> = match named {
            Named::Shared(prepared) => match prepared.template(serial) {
                Some(template) => return Ok(template),
                None => prepared.statement().into(),
            },
            Named::Unnamed(_, template) => match &self.s.unnamed.template {
                Some((made, _)) if *made == serial => return Ok(Rc::clone(template)),
                _ => self.s.unnamed.text.as_slice().into(),
            },
        };
        let Some(template) = self.plan(&text)? else {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "the statement can't be read under the session's settings",
            ));
        };
        if template.rewritten(&text).is_some() {
            // The backends would run the text that they have.
            return Err(Refused::new(
                NOT_SUPPORTED,
                "an INSERT that was prepared without a column list before its table was sharded",
            )
            .hint("prepare it again"));
        }
        match named {
            Named::Shared(prepared) => prepared.set_template(serial, Rc::clone(&template)),
            Named::Unnamed(..) => self.s.unnamed.template = Some((serial, Rc::clone(&template))),
        }
        Ok(template)
    }

    /// Where a Bind's statement goes.
    pub(super) fn locate_bound(
        &self,
        named: &Named,
        template: &Template,
        params: &dyn Params,
    ) -> Result<Route, Refused> {
        if template.is_checked_copy() {
            return Err(unchecked_copy());
        }
        let (text, literals) = match named {
            Named::Shared(p) => (p.statement(), &p.literals),
            Named::Unnamed(..) => (&*self.s.unnamed.text, &self.s.unnamed.literals),
        };
        self.locate(template, text, literals, Some(params))
    }

    /// Whether the statement goes to all shards in turn.
    pub(super) fn goes_everywhere(&self, named: &Named, template: &Template) -> bool {
        let none: Vec<Param<'_>> = Vec::new();
        let route = self.locate_bound(named, template, &none);
        route.is_ok_and(|route| route.targets == Targets::AllInTurn)
    }

    pub(super) fn text_of(&self, named: &Named) -> Box<[u8]> {
        match named {
            Named::Shared(prepared) => prepared.statement().into(),
            Named::Unnamed(..) => self.s.unnamed.text.as_slice().into(),
        }
    }

    pub(super) fn types_of<'n>(&'n self, named: &'n Named) -> &'n [u8] {
        match named {
            Named::Shared(prepared) => &prepared.raw_types,
            Named::Unnamed(..) => &self.s.unnamed.raw_types,
        }
    }

    pub(super) fn refuse_parse(&self, parse: &Parse<'_>) -> Option<Refused> {
        if let Some(refused) = self.refuse_in_failed()
            && !is_transaction_end(parse.query)
        {
            return Some(refused);
        }
        // A server looks at its transaction before it looks at the name.
        if self.is_backend_failed() { None } else { self.refuse_name(parse.name) }
    }

    /// In a transaction that has failed on the server.
    pub(super) fn refuse_parse_in_failed(
        &self,
        parse: &Parse<'_>,
        template: &Template,
        local: bool,
    ) -> Option<Refused> {
        if !self.is_backend_failed() {
            return None;
        }
        if (local || !parse.name.is_empty()) && !may_follow_failure(template) {
            // Not asked of the server: it may have the statement already, and
            // would say so of a name that is not the client's.
            return Some(in_failed_transaction());
        }
        // What a failed transaction takes has a name like any other.
        self.refuse_name(parse.name)
    }

    fn refuse_name(&self, name: &[u8]) -> Option<Refused> {
        if name.is_empty() {
            return None;
        }
        if self.s.statements.find(name).is_some() {
            return Some(duplicate(&String::from_utf8_lossy(name)));
        }
        let max = self.s.limits.statements_max;
        (self.s.statements.len() >= max).then(|| too_many(max))
    }

    /// Makes sure that the backend has a named statement.
    pub(super) fn ensure_prepared(&mut self, prepared: &Rc<Prepared>) {
        if self.backend().is_some_and(|backend| backend.has_prepared(prepared.id)) {
            return;
        }
        self.send_own_preparation(prepared);
    }

    /// Prepares a statement where it runs.
    pub(super) fn send_own_preparation(&mut self, prepared: &Prepared) {
        match prepared.origin {
            Origin::Parse => self.send_parse(prepared, Expect::OwnParse(prepared.id)),
            Origin::Sql => self.send_prepare(prepared),
        }
    }

    pub(super) fn send_parse(&mut self, prepared: &Prepared, expect: Expect) {
        self.make_room(prepared.id);
        let mut buffer = [0; NAME_LEN];
        let name = backend_name(prepared.id, &mut buffer);
        let types = match &self.env.backend {
            Some((backend, _)) => backend.types_here(&prepared.raw_types),
            None => Cow::Borrowed(&*prepared.raw_types),
        };
        let sent = self.inject(|out| encode::parse_raw(out, name, &prepared.text, &types));
        debug_assert!(sent, "a Parse that came as a message goes as one");
        if let Some(backend) = self.backend() {
            backend.push(expect);
        }
    }

    /// Runs the PREPARE of a statement that was made by SQL, within a batch and
    /// without touching the unnamed statement and portal.
    fn send_prepare(&mut self, prepared: &Prepared) {
        self.make_room(prepared.id);
        let sent = self.inject(|out| {
            encode::parse(out, OWN_NAME, &prepared.text, &[])?;
            encode::bind(out, OWN_NAME, OWN_NAME, &[], Format::Text)?;
            encode::execute(out, OWN_NAME, 0)?;
            encode::close(out, Target::Portal, OWN_NAME)?;
            encode::close(out, Target::Statement, OWN_NAME)
        });
        debug_assert!(sent, "a PREPARE that came in a message fits one");
        if let Some(backend) = self.backend() {
            backend.push(Expect::OwnReply(reply::PARSE_COMPLETE));
            backend.push(Expect::OwnReply(reply::BIND_COMPLETE));
            backend.push(Expect::OwnPrepare(prepared.id));
            backend.push(Expect::OwnReply(reply::CLOSE_COMPLETE));
            backend.push(Expect::OwnReply(reply::CLOSE_COMPLETE));
        }
    }

    /// Notes that `id` is being prepared, and closes what has to go for it.
    fn make_room(&mut self, id: StatementId) {
        let stale = self.backend().is_some_and(|backend| backend.take_stale(id));
        if stale {
            self.send_close(id);
        }
        if let Some(backend) = self.backend() {
            backend.note_prepared(id);
        }
        while let Some(evicted) = self.backend().and_then(|backend| backend.take_evicted()) {
            self.send_close(evicted);
        }
    }

    fn send_close(&mut self, id: StatementId) {
        let mut buffer = [0; NAME_LEN];
        let name = backend_name(id, &mut buffer);
        self.inject(|out| encode::close(out, Target::Statement, name));
        if let Some(backend) = self.backend() {
            backend.push(Expect::OwnClose(id));
        }
    }

    /// Sends an unnamed Parse.
    pub(super) fn send_unnamed(&mut self, text: &[u8], types: &[u8]) {
        let types = match &self.env.backend {
            Some((backend, _)) => backend.types_here(types),
            None => Cow::Borrowed(types),
        };
        self.inject(|out| encode::parse_raw(out, b"", text, &types));
    }

    /// Makes sure that the backend's unnamed statement is this client's.
    pub(super) fn ensure_unnamed(&mut self, id: StatementId) {
        if self.env.backend.as_ref().is_some_and(|(backend, _)| backend.unnamed() == Some(id)) {
            return;
        }
        let text = std::mem::take(&mut self.s.unnamed.text);
        let types = std::mem::take(&mut self.s.unnamed.raw_types);
        self.send_unnamed(&text, &types);
        self.s.unnamed.text = text;
        self.s.unnamed.raw_types = types;
        if let Some(backend) = self.backend() {
            backend.push(Expect::OwnParse(id));
            backend.set_unnamed(Some(id));
        }
    }
}

/// Name of the router's own statement and portal that run a PREPARE.
const OWN_NAME: &[u8] = b"kw_prepare";
