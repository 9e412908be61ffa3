//! Values of a Bind: as a route reads them, and in messages that are longer
//! than what is held back.

use crate::backend::{Expect, NAME_LEN, backend_name};
use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, Header};
use crate::protocol::frontend::{Bind, BindPrefix};
use crate::route::{Param, Params};
use crate::types::{Format, Oid};

use super::feed::Feed;
use super::lookahead::Ahead;
use super::names::Named;
use super::place::Place;
use super::refusal::{LIMIT_EXCEEDED, Refused};
use super::simple::missing;
use super::{Phase, Step, Stream};

impl Feed<'_, '_> {
    /// A Bind that is not here whole: its values are passed as they come, once
    /// those that decide its shard are here.
    pub(super) fn on_partial_bind(&mut self, header: Header) -> Option<Step> {
        if header.body_len <= self.s.limits.held_bytes_max {
            return Some(Step::Read);
        }
        let whole = header.frame_len();
        let start = self.at + HEADER_LEN;
        let prefix = self.input.get(start..).unwrap_or_default();
        if let Some(frame) = self.s.pending.take_refused() {
            self.s.stream = Stream { left: whole, discard: true };
            return self.refuse_in_batch(frame);
        }
        if self.env.backend.is_none() {
            match self.look_ahead() {
                Ahead::Need(want) => return Some(self.ask(want, None)),
                Ahead::More => return self.wait_for_more(),
                Ahead::Wait => return Some(Step::Hold),
                Ahead::Fresh(_) | Ahead::Local | Ahead::Spread => {
                    let refused = Refused::new(
                        LIMIT_EXCEEDED,
                        format!(
                            "message of {} bytes is too long for this statement",
                            header.body_len
                        ),
                    );
                    self.s.stream = Stream { left: whole, discard: true };
                    return self.refuse_in_batch(refused.frame().into());
                }
            }
        } else if !self.s.unit_open
            && let Some(step) = self.freshen_batch().or_else(|| self.begin_batch())
        {
            return Some(step);
        }
        if self.s.phase == Phase::Idle {
            self.s.phase = Phase::Batch;
        }
        self.stream_bind(header, prefix)
    }

    fn stream_bind(&mut self, header: Header, prefix: &[u8]) -> Option<Step> {
        self.s.bound_in_batch = true;
        let whole = header.frame_len();
        let bind = match Bind::decode_prefix(prefix) {
            Ok(Some(bind)) => bind,
            Ok(None) => return Some(Step::Read),
            Err(_) => return self.malformed("Bind"),
        };
        let checked = self.check_prefix(&bind);
        let named = match checked {
            Ok(Some(named)) => named,
            Ok(None) => return self.wait_for_more(),
            Err(refused) => {
                self.s.stream = Stream { left: whole, discard: true };
                return self.refuse_in_batch(refused.frame().into());
            }
        };
        match named {
            Named::Shared(prepared) => {
                self.ensure_prepared(&prepared);
                let mut buffer = [0; NAME_LEN];
                let name = backend_name(prepared.id, &mut buffer);
                // The head of the message is written anew, the rest follows.
                self.consume(self.input.len());
                if !self
                    .inject(|out| encode::bind_prefix_renamed(out, &bind, header.body_len, name))
                {
                    return self.malformed("Bind");
                }
                if let Some(backend) = self.backend() {
                    backend.push(Expect::Bind(Some(prepared.id)));
                    // What it says of formats stands at its end.
                    backend.note_binary_portal(None);
                }
                self.s.stream =
                    Stream { left: header.body_len.saturating_sub(prefix.len()), discard: false };
            }
            Named::Unnamed(id, _) => {
                self.ensure_unnamed(id);
                if let Some(backend) = self.backend() {
                    backend.push(Expect::Bind(None));
                    backend.note_binary_portal(None);
                }
                self.s.stream = Stream { left: whole, discard: false };
            }
        }
        None
    }

    fn check_prefix(&mut self, bind: &BindPrefix<'_>) -> Result<Option<Named>, Refused> {
        let Some(named) = self.named(bind.statement())? else {
            return Err(missing(bind.statement()));
        };
        let template = self.template_of(&named)?;
        if self.map().is_sharded() {
            if template.key_params().iter().any(|i| usize::from(*i) >= bind.complete()) {
                return Ok(None);
            }
            let params = PrefixParams { bind, types: self.types_of(&named) };
            let route = self.locate_bound(&named, &template, &params)?;
            if let Place::Refuse(refused) = self.place(&template, &route) {
                return Err(refused);
            }
        }
        self.s.portals.remove(bind.portal());
        Ok(Some(named))
    }
}

/// A Bind's values as a route reads them.
pub(super) struct BoundParams<'a> {
    bind: &'a Bind<'a>,
    types: &'a [u8],
}

impl<'a> BoundParams<'a> {
    pub(super) fn new(bind: &'a Bind<'a>, types: &'a [u8]) -> Self {
        Self { bind, types }
    }
}

impl Params for BoundParams<'_> {
    fn get(&self, index: usize) -> Option<Param<'_>> {
        let value = self.bind.param(index)?;
        let format = self.bind.format_of(index)?;
        Some(Param { value, format, oid: declared_type(self.types, index) })
    }
}

/// The same of a Bind that has not arrived whole.
pub(super) struct PrefixParams<'a> {
    pub(super) bind: &'a BindPrefix<'a>,
    pub(super) types: &'a [u8],
}

impl Params for PrefixParams<'_> {
    fn get(&self, index: usize) -> Option<Param<'_>> {
        let value = self.bind.param(index)?;
        let format: Format = self.bind.format_of(index)?;
        Some(Param { value, format, oid: declared_type(self.types, index) })
    }
}

/// The type that Parse declared for a parameter; zero if it did not.
pub(super) fn declared_type(types: &[u8], index: usize) -> Oid {
    let number = index
        .checked_mul(4)
        .and_then(|at| types.get(at..at.checked_add(4)?))
        .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    Oid::new(number.map_or(0, u32::from_be_bytes))
}
