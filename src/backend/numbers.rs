//! The numbers (OIDs) of own types on a backend whose shard has others than the
//! client knows: what is put in their place, and where they may stand.
//!
//! What a prepared statement's rows are is told when it is described, not when it
//! runs. So where a client asks for binary rows, the session lets the server
//! describe each portal before its Execute, until one of the statement's has
//! shown that nothing in its rows can hold a number. It does not know which
//! numbers a client knows: whoever takes the backend from its pool says so.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::catalog::Translation;
use crate::protocol::backend::TxStatus;
use crate::protocol::frame::{HEADER_LEN, Header};
use crate::protocol::tag::backend as tag;
use crate::types::Oid;

use super::prepared::{IdHasher, StatementId};
use super::relay::Fault;
use super::renumber::{Column, Renumber};
use super::{Backend, Expect};

/// A backend's translation, and what of its replies is walked.
#[derive(Debug)]
pub(super) struct Numbered {
    to: Arc<Translation>,
    /// The columns of the rows that come, if any of them is walked.
    columns: Vec<Column>,
    /// The message under way.
    running: Option<Renumber>,
    /// A portal may be open whose rows are binary and not known to be flat.
    deep_portals: bool,
    /// The statement that the unnamed portal was bound to, if that has a name.
    bound: Option<StatementId>,
    /// Named statements in whose rows no number can stand.
    flat: HashSet<StatementId, BuildHasherDefault<IdHasher>>,
}

impl Numbered {
    const fn new(to: Arc<Translation>) -> Self {
        Self {
            to,
            columns: Vec::new(),
            running: None,
            deep_portals: false,
            bound: None,
            flat: HashSet::with_hasher(BuildHasherDefault::new()),
        }
    }
}

impl Backend {
    /// The client knows types and relations by other numbers than the server
    /// does; by the same, if `None`.
    pub fn set_numbers(&mut self, to: Option<&Arc<Translation>>) {
        match (&mut self.numbers, to) {
            (None, None) => {}
            (Some(numbered), Some(to)) if Arc::ptr_eq(&numbered.to, to) => {}
            (Some(numbered), Some(to)) => {
                numbered.to = Arc::clone(to);
                numbered.flat.clear();
            }
            (None, Some(to)) => self.numbers = Some(Box::new(Numbered::new(Arc::clone(to)))),
            // What has begun is ended as it began.
            (Some(numbered), None) if numbered.running.is_some() => {}
            (Some(_), None) => self.numbers = None,
        }
    }

    /// Whether the client knows other numbers.
    #[inline]
    pub const fn translates(&self) -> bool {
        self.numbers.is_some()
    }

    /// Parameter types of a Parse as the server numbers them. One that it does
    /// not have gets a number that no type has.
    pub fn types_here<'t>(&self, raw: &'t [u8]) -> Cow<'t, [u8]> {
        let Some(numbered) = &self.numbers else { return Cow::Borrowed(raw) };
        let (types, rest) = raw.as_chunks::<4>();
        let own = |oid: &[u8; 4]| Oid::new(u32::from_be_bytes(*oid)).is_own();
        if !rest.is_empty() || !types.iter().any(own) {
            return Cow::Borrowed(raw);
        }
        let here = types.iter().flat_map(|oid| {
            let oid = Oid::new(u32::from_be_bytes(*oid));
            numbered.to.type_here(oid).unwrap_or(NOBODYS).number().to_be_bytes()
        });
        Cow::Owned(here.collect())
    }

    /// The first of a Parse's parameter types that the server does not have.
    pub fn missing_type(&self, raw: &[u8]) -> Option<(usize, Oid)> {
        let numbered = self.numbers.as_ref()?;
        let (types, _) = raw.as_chunks::<4>();
        let types = types.iter().map(|oid| Oid::new(u32::from_be_bytes(*oid)));
        types.enumerate().find(|(_, oid)| numbered.to.type_here(*oid).is_none())
    }

    /// A portal is bound whose rows are binary; `statement` if it is the unnamed
    /// one of a named statement.
    pub fn note_binary_portal(&mut self, statement: Option<StatementId>) {
        if let Some(numbered) = &mut self.numbers {
            numbered.bound = statement;
            let flat = statement.is_some_and(|id| numbered.flat.contains(&id));
            numbered.deep_portals |= !flat;
        }
    }

    /// Whether the next Execute has to follow a description of its portal.
    #[inline]
    pub fn wants_columns(&self) -> bool {
        self.numbers.as_ref().is_some_and(|numbered| numbered.deep_portals)
    }

    /// What answers that description, of the unnamed portal or another.
    pub fn columns_expected(&self, portal: &[u8]) -> Expect {
        let bound = self.numbers.as_ref().and_then(|numbered| numbered.bound);
        Expect::OwnColumns(bound.filter(|_| portal.is_empty()))
    }

    /// A named statement may have other rows from now on.
    pub(super) fn forget_rows_of(&mut self, id: StatementId) {
        if let Some(numbered) = &mut self.numbers {
            numbered.flat.remove(&id);
        }
    }

    /// The unit is over, and with its transaction, if that is over too, every
    /// portal.
    #[cold]
    pub(super) fn forget_rows(&mut self) {
        self.forget_columns();
        let over = self.queue.is_empty() && self.status == TxStatus::Idle;
        if let Some(numbered) = self.numbers.as_mut().filter(|_| over) {
            numbered.deep_portals = false;
            numbered.bound = None;
        }
    }

    /// No rows come of what was described last.
    pub(super) fn forget_columns(&mut self) {
        if let Some(numbered) = &mut self.numbers {
            numbered.columns.clear();
        }
    }

    /// Whether numbers may stand in such a message.
    pub(super) fn has_numbers(&self, kind: u8) -> bool {
        let Some(numbered) = &self.numbers else { return false };
        match kind {
            tag::ROW_DESCRIPTION | tag::PARAMETER_DESCRIPTION => true,
            tag::DATA_ROW => !numbered.columns.is_empty(),
            _ => false,
        }
    }

    /// Begins such a message, whose header alone is said; nothing of it is if it
    /// is dropped.
    pub(super) fn begin_numbered(&mut self, header: Header, head: &[u8], out: &mut Vec<u8>) {
        let forward = self.partial.forward;
        let Some(numbered) = &mut self.numbers else { return };
        let to = &numbered.to;
        numbered.running = Some(match header.tag {
            tag::ROW_DESCRIPTION => Renumber::of_description(to),
            tag::PARAMETER_DESCRIPTION => Renumber::of_parameters(to),
            _ => Renumber::of_row(to, std::mem::take(&mut numbered.columns)),
        });
        if header.tag == tag::ROW_DESCRIPTION {
            numbered.columns.clear();
        }
        if forward {
            out.extend_from_slice(head.get(..HEADER_LEN).unwrap_or_default());
        }
    }

    /// Goes on with the message under way: what is there of it goes to `out`.
    /// `None` if there is no such message.
    pub(super) fn pass_numbered(
        &mut self,
        available: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<Result<usize, Fault>> {
        let partial = &mut self.partial;
        let numbered = self.numbers.as_mut()?;
        let running = numbered.running.as_mut()?;
        let whole = available.len() >= partial.left;
        let input = available.get(..partial.left).unwrap_or(available);
        let before = out.len();
        let passed = running.pass(input, out);
        if !partial.forward {
            out.truncate(before);
        }
        let Ok(taken) = passed else { return Some(Err(Fault::Malformed(tag::DATA_ROW))) };
        partial.left -= taken;
        if whole && (partial.left > 0 || !running.is_done()) {
            return Some(Err(Fault::Malformed(tag::DATA_ROW)));
        }
        if partial.left == 0
            && let Some(done) = numbered.running.take()
        {
            self.end_numbered(done);
        }
        Some(Ok(taken))
    }

    /// What a message has told of the rows that follow it.
    fn end_numbered(&mut self, done: Renumber) {
        let described = self.described.take();
        let Some(numbered) = &mut self.numbers else { return };
        let columns = done.into_columns();
        let walked = |column: &Column| numbered.to.is_deep(column.type_oid);
        let deep = columns.iter().any(walked);
        if let Some(id) = described
            && !deep
        {
            if numbered.flat.len() >= FLAT_MAX {
                numbered.flat.clear();
            }
            numbered.flat.insert(id);
        }
        if columns.iter().any(|column| column.binary && walked(column)) {
            numbered.columns = columns;
        }
    }
}

/// What no type has as its number.
const NOBODYS: Oid = Oid::new(u32::MAX);
/// Statements known to be flat before all are forgotten.
const FLAT_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::backend::{CancelKey, Event, Report, SettingsSet};
    use crate::catalog::{Form, Numbers, OwnType};
    use crate::protocol::encode::{self, Column as Told, row_description};
    use crate::types::Format;

    fn backend() -> Backend {
        let key = CancelKey { pid: 1, secret: Box::default() };
        let mut backend = Backend::new(key, 10, Rc::new(SettingsSet::default()));
        backend.set_numbers(Some(&to()));
        backend
    }

    fn to() -> Arc<Translation> {
        let of = |first: u32| {
            let own = |at: u32, name: &str, form| OwnType {
                number: first + at,
                name: ("s".into(), name.into()),
                form,
                relation: 0,
            };
            Numbers::new(&[own(0, "mood", Form::Plain), own(1, "_mood", Form::Array(first))])
        };
        Arc::new(Translation::between(&of(20_000), &of(30_000)).unwrap())
    }

    fn described(oid: u32, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        let column = Told { name: "m", oid: Oid::new(oid), len: -1, format };
        row_description(&mut out, &[column]).unwrap();
        out
    }

    fn row(oid: u32) -> Vec<u8> {
        let array = [1, 0, oid, 0, 1].map(u32::to_be_bytes).concat();
        [&[b'D', 0, 0, 0, 30, 0, 1, 0, 0, 0, 20][..], &array].concat()
    }

    /// What the client hears of `input`, in pieces of `size`.
    fn heard(backend: &mut Backend, input: &[u8], size: usize) -> Vec<u8> {
        let (mut out, mut carry) = (Vec::new(), Vec::new());
        let mut events: Vec<Event> = Vec::new();
        for piece in input.chunks(size) {
            carry.extend_from_slice(piece);
            let relayed = backend.relay(&carry, &mut out, &mut events).unwrap();
            out.extend_from_slice(carry.get(relayed.direct).unwrap());
            carry.drain(..relayed.consumed);
        }
        assert!(carry.is_empty(), "{carry:?}");
        out
    }

    fn executed(backend: &mut Backend, id: Option<StatementId>, size: usize) -> Vec<u8> {
        backend.push(Expect::Bind(id));
        backend.note_binary_portal(id);
        let asks = backend.wants_columns();
        if asks {
            backend.push(backend.columns_expected(b""));
        }
        backend.push(Expect::Execute(Report::Nothing));
        backend.push(Expect::Sync);
        let description = if asks { described(20_001, Format::Binary) } else { Vec::new() };
        let mut end = Vec::new();
        encode::command_complete(&mut end, "SELECT 2");
        encode::ready_for_query(&mut end, TxStatus::Idle);
        let rows = [row(20_000), row(20_000)].concat();
        let input = [&[b'2', 0, 0, 0, 4][..], &description, &rows, &end].concat();
        let said = heard(backend, &input, size);
        let rows = [row(30_000), row(30_000)].concat();
        assert_eq!(said, [&[b'2', 0, 0, 0, 4][..], &rows, &end].concat(), "in pieces of {size}");
        said
    }

    #[test]
    fn binary_rows_are_walked_by_what_their_portal_is_described_as() {
        for size in 1..80 {
            let mut backend = backend();
            executed(&mut backend, Some(StatementId::new(7)), size);
            assert!(!backend.wants_columns(), "the portal is gone");
            executed(&mut backend, Some(StatementId::new(7)), size);
        }
    }

    #[test]
    fn rows_of_a_query_are_walked_if_they_are_binary() {
        for (format, number) in [(Format::Text, 20_000), (Format::Binary, 30_000)] {
            let mut backend = backend();
            backend.push(Expect::Query(Report::Nothing));
            let mut end = Vec::new();
            encode::ready_for_query(&mut end, TxStatus::Idle);
            let input = [described(20_001, format), row(20_000), end.clone()].concat();
            let expected = [described(30_001, format), row(number), end].concat();
            assert_eq!(heard(&mut backend, &input, 7), expected);
        }
    }

    #[test]
    fn a_statement_without_numbers_in_its_rows_is_described_once() {
        let (mut backend, id) = (backend(), Some(StatementId::new(7)));
        backend.push(Expect::Bind(id));
        backend.note_binary_portal(id);
        backend.push(backend.columns_expected(b""));
        backend.push(Expect::Execute(Report::Nothing));
        backend.push(Expect::Sync);
        let mut end = Vec::new();
        encode::command_complete(&mut end, "SELECT 0");
        encode::ready_for_query(&mut end, TxStatus::Idle);
        let bound = [b'2', 0, 0, 0, 4].to_vec();
        let input = [bound.clone(), described(20_000, Format::Binary), end.clone()].concat();
        assert_eq!(heard(&mut backend, &input, 5), [bound, end].concat());
        backend.note_binary_portal(id);
        assert!(!backend.wants_columns());
        backend.note_binary_portal(None);
        assert!(backend.wants_columns(), "of another nothing is known");
        let mut renewed = self::backend();
        renewed.note_prepared(StatementId::new(7));
        renewed.note_binary_portal(id);
        assert!(renewed.wants_columns(), "prepared anew it may have other rows");
    }

    #[test]
    fn parameter_types_are_the_servers() {
        let backend = backend();
        let raw = |oids: &[u32]| oids.iter().flat_map(|o| o.to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(&*backend.types_here(&raw(&[23, 0])), raw(&[23, 0]));
        assert_eq!(&*backend.types_here(&raw(&[23, 30_001])), raw(&[23, 20_001]));
        assert_eq!(backend.missing_type(&raw(&[30_000, 23])), None);
        assert_eq!(backend.missing_type(&raw(&[23, 20_000])), Some((1, Oid::new(20_000))));
        assert_eq!(&*backend.types_here(&raw(&[20_000])), raw(&[u32::MAX]));
    }
}
