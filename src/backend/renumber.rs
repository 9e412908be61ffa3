//! The walk through one message of a server's in which numbers (OIDs) of the
//! database's own types stand, and give way to those that the client knows.
//!
//! A number takes the place of a number, so no length changes, and what has
//! arrived is passed on: a message is never held, whatever its size. In rows only
//! binary values are walked, and only those whose type can hold a number: arrays,
//! records, and what is made of them. What a base type of an extension writes
//! into its own binary form is that type's affair.
//!
//! Sources: PostgreSQL manual, "Message Formats"; the send functions of arrays,
//! records, ranges and multiranges.

use std::sync::Arc;

use crate::catalog::{Form, Translation};
use crate::types::Oid;

/// A message under way.
#[derive(Debug)]
pub(super) struct Renumber {
    to: Arc<Translation>,
    /// What is still to come, the next last.
    todo: Vec<Todo>,
    /// The columns of a RowDescription as they are learned, or those of the
    /// row that is walked.
    columns: Vec<Column>,
}

/// What a column's values are, in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// The shard's number of its type.
    pub(super) type_oid: Oid,
    /// The values are in binary.
    pub(super) binary: bool,
}

/// The bytes are not what the message should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Clone, Copy, Debug)]
enum Todo {
    /// So many bytes of no concern.
    Skip(usize),
    /// The number of a RowDescription's columns.
    FieldCount,
    /// So many columns of a RowDescription.
    Fields(u16),
    /// A name up to its zero byte, and what follows it.
    Name,
    Field,
    /// The number of a ParameterDescription's types.
    TypeCount,
    Types(u16),
    /// The number of a row's values.
    ValueCount,
    /// A row's values from this column on.
    Values(usize),
    /// A value of this type with its length.
    Value(u32),
    /// A value of this type, of so many bytes.
    Content(u32, usize),
    /// The head of an array of so many bytes, with elements of this type.
    ArrayHead(u32, usize),
    /// So many dimensions, and the product of those before.
    Dimensions(u32, i32, usize),
    /// So many values of this type.
    Elements(u32, usize),
    RecordHead,
    /// So many columns of a record.
    Columns(u32),
    /// What a range has, then bounds of this type.
    RangeHead(u32),
    /// How many ranges of this type there are.
    MultirangeHead(u32),
}

impl Renumber {
    /// Through a RowDescription, whose columns are learned.
    pub(super) fn of_description(to: &Arc<Translation>) -> Self {
        Self { to: Arc::clone(to), todo: vec![Todo::FieldCount], columns: Vec::new() }
    }

    /// Through a ParameterDescription.
    pub(super) fn of_parameters(to: &Arc<Translation>) -> Self {
        Self { to: Arc::clone(to), todo: vec![Todo::TypeCount], columns: Vec::new() }
    }

    /// Through a row of these columns.
    pub(super) fn of_row(to: &Arc<Translation>, columns: Vec<Column>) -> Self {
        Self { to: Arc::clone(to), todo: vec![Todo::ValueCount], columns }
    }

    /// The columns: learned, or given back.
    pub(super) fn into_columns(self) -> Vec<Column> {
        self.columns
    }

    /// Whether the message is through.
    pub(super) const fn is_done(&self) -> bool {
        self.todo.is_empty()
    }

    /// Passes what can be passed of `input` on to `out`; how much that was.
    ///
    /// # Errors
    /// A server does not write this.
    pub(super) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(todo) = self.todo.pop() {
            let rest = input.get(at..).unwrap_or_default();
            match self.step(todo, rest, out)? {
                Some(taken) => at += taken,
                None => {
                    self.todo.push(todo);
                    break;
                }
            }
            if self.todo.len() > AHEAD_MAX {
                return Err(Malformed);
            }
        }
        Ok(at)
    }

    /// Does one thing; `None` if more bytes must be there for it.
    fn step(
        &mut self,
        todo: Todo,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Malformed> {
        match todo {
            Todo::Skip(0) => Ok(Some(0)),
            Todo::Skip(len) => Ok(self.skip(len, rest, out)),
            Todo::Name => {
                let Some(len) = rest.iter().position(|byte| *byte == 0) else {
                    if rest.is_empty() {
                        return Ok(None);
                    }
                    self.todo.push(Todo::Name);
                    out.extend_from_slice(rest);
                    return Ok(Some(rest.len()));
                };
                out.extend_from_slice(rest.get(..=len).unwrap_or_default());
                Ok(Some(len + 1))
            }
            Todo::Field => Ok(self.field(rest, out)),
            Todo::FieldCount => Ok(self.count(Todo::Fields, rest, out)),
            Todo::TypeCount => Ok(self.count(Todo::Types, rest, out)),
            Todo::ValueCount => {
                let taken = self.count(|_| Todo::Values(0), rest, out);
                let count = rest.first_chunk().map(|head| u16::from_be_bytes(*head));
                if count.is_some_and(|count| usize::from(count) != self.columns.len()) {
                    return Err(Malformed);
                }
                Ok(taken)
            }
            Todo::Fields(0) | Todo::Types(0) | Todo::Elements(_, 0) | Todo::Columns(0) => {
                Ok(Some(0))
            }
            Todo::Fields(left) => {
                self.todo.extend([Todo::Fields(left - 1), Todo::Field, Todo::Name]);
                Ok(Some(0))
            }
            Todo::Types(left) => {
                let Some(oid) = number(rest) else { return Ok(None) };
                self.todo.push(Todo::Types(left - 1));
                self.say_type(oid, out);
                Ok(Some(4))
            }
            Todo::Values(at) => {
                if let Some(column) = self.columns.get(at) {
                    let walked = column.binary && self.to.is_deep(column.type_oid);
                    let type_oid = if walked { column.type_oid.number() } else { 0 };
                    self.todo.extend([Todo::Values(at + 1), Todo::Value(type_oid)]);
                }
                Ok(Some(0))
            }
            Todo::Value(_)
            | Todo::Content(..)
            | Todo::ArrayHead(..)
            | Todo::Dimensions(..)
            | Todo::Elements(..)
            | Todo::RecordHead
            | Todo::Columns(_)
            | Todo::RangeHead(_)
            | Todo::MultirangeHead(_) => self.step_inside(todo, rest, out),
        }
    }

    /// The same, of what stands in values.
    fn step_inside(
        &mut self,
        todo: Todo,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Malformed> {
        match todo {
            Todo::Value(of) => {
                let Some(len) = number(rest) else { return Ok(None) };
                out.extend_from_slice(&len.to_be_bytes());
                if len != NULL {
                    let len = usize::try_from(len).map_err(|_| Malformed)?;
                    self.todo.push(Todo::Content(of, len));
                }
                Ok(Some(4))
            }
            Todo::Content(of, len) => {
                self.todo.push(self.content(Oid::new(of), len));
                Ok(Some(0))
            }
            Todo::ArrayHead(of, len) => self.array_head(of, len, rest, out),
            Todo::Dimensions(of, 0, count) => {
                self.todo.push(Todo::Elements(of, count));
                Ok(Some(0))
            }
            Todo::Dimensions(of, left, count) => self.dimension((of, left, count), rest, out),
            Todo::Elements(of, left) => {
                let next = [Todo::Elements(of, left.saturating_sub(1)), Todo::Value(of)];
                self.todo.extend(next.into_iter().take(if left == 0 { 0 } else { 2 }));
                Ok(Some(0))
            }
            Todo::RecordHead => {
                let Some(count) = number(rest) else { return Ok(None) };
                self.todo.push(Todo::Columns(count));
                out.extend_from_slice(&count.to_be_bytes());
                Ok(Some(4))
            }
            Todo::Columns(left) => {
                let Some(of) = number(rest) else { return Ok(None) };
                self.todo.extend([Todo::Columns(left.saturating_sub(1)), Todo::Value(of)]);
                self.say_type(of, out);
                Ok(Some(4))
            }
            Todo::RangeHead(of) => {
                let Some(flags) = rest.first() else { return Ok(None) };
                let bounds = [LOWER_ABSENT, UPPER_ABSENT].map(|mask| flags & mask == 0);
                let bounds = bounds.into_iter().filter(|there| *there).count();
                let bounds = if flags & RANGE_EMPTY == 0 { bounds } else { 0 };
                self.todo.push(Todo::Elements(of, bounds));
                out.push(*flags);
                Ok(Some(1))
            }
            Todo::MultirangeHead(of) => {
                let Some(count) = number(rest) else { return Ok(None) };
                let ranges = usize::try_from(count).map_err(|_| Malformed)?;
                self.todo.push(Todo::Elements(of, ranges));
                out.extend_from_slice(&count.to_be_bytes());
                Ok(Some(4))
            }
            Todo::Skip(_)
            | Todo::FieldCount
            | Todo::Fields(_)
            | Todo::Name
            | Todo::Field
            | Todo::TypeCount
            | Todo::Types(_)
            | Todo::ValueCount
            | Todo::Values(_) => Err(Malformed),
        }
    }

    /// What an array of `len` bytes begins with.
    fn array_head(
        &mut self,
        of: u32,
        len: usize,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Malformed> {
        if len < 12 {
            return Err(Malformed);
        }
        let Some(head) = rest.first_chunk::<12>() else { return Ok(None) };
        let (shape, element) = head.split_at(8);
        out.extend_from_slice(shape);
        self.say_type(number(element).ok_or(Malformed)?, out);
        if self.to.is_deep(Oid::new(of)) {
            let dimensions = number(shape).and_then(|count| i32::try_from(count).ok());
            let dimensions = dimensions.ok_or(Malformed)?;
            self.todo.push(Todo::Dimensions(of, dimensions, usize::from(dimensions != 0)));
        } else {
            self.todo.push(Todo::Skip(len - 12));
        }
        Ok(Some(12))
    }

    fn dimension(
        &mut self,
        (of, left, count): (u32, i32, usize),
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Malformed> {
        let Some(dimension) = rest.first_chunk::<8>() else { return Ok(None) };
        let size = number(dimension).and_then(|size| usize::try_from(size).ok());
        let count = size.and_then(|size| count.checked_mul(size)).ok_or(Malformed)?;
        self.todo.push(Todo::Dimensions(of, left - 1, count));
        out.extend_from_slice(dimension);
        Ok(Some(8))
    }

    /// How a value's bytes are walked.
    fn content(&self, of: Oid, len: usize) -> Todo {
        if !self.to.is_deep(of) {
            return Todo::Skip(len);
        }
        match self.to.form(of) {
            Form::Plain => Todo::Skip(len),
            Form::Array(element) => Todo::ArrayHead(element, len),
            Form::Domain(base) => Todo::Content(base, len),
            Form::Range(subtype) => Todo::RangeHead(subtype),
            Form::Multirange(range) => Todo::MultirangeHead(range),
            Form::Record => Todo::RecordHead,
        }
    }

    /// A number of things, which follow.
    fn count(
        &mut self,
        then: impl FnOnce(u16) -> Todo,
        rest: &[u8],
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let head = rest.first_chunk::<2>()?;
        self.todo.push(then(u16::from_be_bytes(*head)));
        out.extend_from_slice(head);
        Some(2)
    }

    fn skip(&mut self, len: usize, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let take = len.min(rest.len());
        if take == 0 {
            return None;
        }
        out.extend_from_slice(rest.get(..take).unwrap_or_default());
        self.todo.push(Todo::Skip(len - take));
        Some(take)
    }

    /// What follows a column's name.
    fn field(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let field = rest.first_chunk::<18>()?;
        let [t0, t1, t2, t3, a0, a1, o0, o1, o2, o3, kept @ .., f0, f1] = *field;
        let table = Oid::new(u32::from_be_bytes([t0, t1, t2, t3]));
        let type_oid = Oid::new(u32::from_be_bytes([o0, o1, o2, o3]));
        out.extend_from_slice(&self.to.relation_there(table).number().to_be_bytes());
        out.extend_from_slice(&[a0, a1]);
        out.extend_from_slice(&self.to.type_there(type_oid).number().to_be_bytes());
        out.extend_from_slice(&kept);
        out.extend_from_slice(&[f0, f1]);
        self.columns.push(Column { type_oid, binary: [f0, f1] == [0, 1] });
        Some(18)
    }

    fn say_type(&self, of: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to.type_there(Oid::new(of)).number().to_be_bytes());
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|head| u32::from_be_bytes(*head))
}

/// The length of a value that is NULL.
const NULL: u32 = u32::MAX;
/// A range's flags, as `rangetypes.h` has them: it is empty; a bound is infinite
/// or NULL.
const RANGE_EMPTY: u8 = 0x01;
const LOWER_ABSENT: u8 = 0x08 | 0x20;
const UPPER_ABSENT: u8 = 0x10 | 0x40;
/// Deepest nesting of values in values that is followed.
const AHEAD_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::catalog::{Numbers, OwnType};

    /// A shard whose types have these numbers: an enum, its array, a table's
    /// row, its array, a range of rows, its multirange, a domain of rows.
    fn numbers(first: u32) -> Numbers {
        let own = |at: u32, name: &str, form| OwnType {
            number: first + at,
            name: ("s".into(), name.into()),
            form,
            relation: if form == Form::Record { first + 50 } else { 0 },
        };
        Numbers::new(&[
            own(0, "mood", Form::Plain),
            own(1, "_mood", Form::Array(first)),
            own(2, "t", Form::Record),
            own(3, "_t", Form::Array(first + 2)),
            own(4, "span", Form::Range(first + 2)),
            own(5, "spans", Form::Multirange(first + 4)),
            own(6, "named", Form::Domain(first + 2)),
        ])
    }

    fn to() -> Arc<Translation> {
        Arc::new(Translation::between(&numbers(20_000), &numbers(30_000)).unwrap())
    }

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// A row of an enum and an integer, by a shard's numbers.
    fn record(first: u32) -> Vec<u8> {
        let of = |oid: u32, value: &[u8]| [words(&[oid]), sized(value)].concat();
        [words(&[3]), of(first, b"sad"), of(23, &[0, 0, 0, 7]), words(&[first + 1, NULL])].concat()
    }

    /// An array of two by two, the last NULL.
    fn array(of: u32, element: &[u8]) -> Vec<u8> {
        let head = words(&[2, 1, of, 2, 1, 2, 1]);
        [head, sized(element), sized(element), sized(element), words(&[NULL])].concat()
    }

    fn range(flags: u8, bounds: &[Vec<u8>]) -> Vec<u8> {
        let bounds: Vec<u8> = bounds.iter().flat_map(|bound| sized(bound)).collect();
        [vec![flags], bounds].concat()
    }

    /// A value for each type that is walked, with its number.
    fn values(first: u32) -> Vec<(u32, Vec<u8>)> {
        let span = range(0x02, &[record(first), record(first)]);
        let anonymous = [words(&[1, first + 3]), sized(&array(first + 2, &record(first)))].concat();
        vec![
            (first, b"sad".to_vec()),
            (first + 1, array(first, b"happy")),
            (first + 2, record(first)),
            (first + 3, array(first + 2, &record(first))),
            (first + 3, words(&[0, 0, first + 2])),
            (first + 4, span.clone()),
            (first + 4, range(0x01, &[])),
            (first + 4, range(0x08, &[record(first)])),
            (first + 5, [words(&[2]), sized(&span), sized(&range(0x18, &[]))].concat()),
            (first + 6, record(first)),
            (2249, anonymous.clone()),
            (2287, array(2249, &anonymous)),
            (23, words(&[20_000])),
        ]
    }

    fn row(first: u32) -> Vec<u8> {
        let values = values(first);
        let count = u16::try_from(values.len() + 1).unwrap().to_be_bytes();
        let sized = values.iter().flat_map(|(_, value)| sized(value));
        // A column in text that looks like a record.
        [count.to_vec(), sized.collect(), self::sized(&record(20_000))].concat()
    }

    fn columns() -> Vec<Column> {
        let binary = values(20_000).into_iter().map(|(oid, _)| (oid, true));
        let all = binary.chain([(20_002, false)]);
        all.map(|(oid, binary)| Column { type_oid: Oid::new(oid), binary }).collect()
    }

    fn description(first: u32) -> Vec<u8> {
        let field = |table: u32, oid: u32, binary: u8| {
            let ends = [&[255_u8, 255, 0, 0, 0, 9, 0, binary][..]].concat();
            [b"a name\0".to_vec(), words(&[table]), vec![0, 3], words(&[oid]), ends].concat()
        };
        let fields =
            [field(first + 50, first, 1), field(1259, 23, 0), field(0, first + 3, 1)].concat();
        [vec![0, 3], fields].concat()
    }

    /// Passes `input` in two pieces; what could not be taken comes again.
    fn pass(mut walk: Renumber, input: &[u8], split: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let taken = walk.pass(input.get(..split).unwrap(), &mut out).unwrap();
        assert!(split - taken < 18, "{taken} of {split} taken");
        let rest = walk.pass(input.get(taken..).unwrap(), &mut out).unwrap();
        assert_eq!(taken + rest, input.len());
        assert!(walk.is_done());
        out
    }

    #[test]
    fn every_number_in_a_row_gives_way_wherever_the_row_is_cut() {
        let input = row(20_000);
        for split in 0..=input.len() {
            let walk = Renumber::of_row(&to(), columns());
            assert_eq!(pass(walk, &input, split), row(30_000), "cut at {split}");
        }
    }

    #[test]
    fn descriptions_name_types_and_tables_as_the_client_knows_them() {
        let input = description(20_000);
        for split in 0..=input.len() {
            let walk = Renumber::of_description(&to());
            assert_eq!(pass(walk, &input, split), description(30_000), "cut at {split}");
        }
        let mut walk = Renumber::of_description(&to());
        walk.pass(&input, &mut Vec::new()).unwrap();
        let column = |oid, binary| Column { type_oid: Oid::new(oid), binary };
        let learned = [column(20_000, true), column(23, false), column(20_003, true)];
        assert_eq!(walk.into_columns(), learned);
        let types = |first: u32| [vec![0, 2], words(&[first + 1, 25])].concat();
        for split in 0..=10 {
            let walk = Renumber::of_parameters(&to());
            assert_eq!(pass(walk, &types(20_000), split), types(30_000), "cut at {split}");
        }
    }

    #[test]
    fn a_row_of_other_columns_is_refused() {
        let mut walk = Renumber::of_row(&to(), vec![]);
        assert_eq!(walk.pass(&row(20_000), &mut Vec::new()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_walked_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            of in 0_usize..13,
        ) {
            let column = columns().into_iter().skip(of).take(1).collect();
            let input = [vec![0, 1], sized(&bytes)].concat();
            for mut walk in [
                Renumber::of_row(&to(), column),
                Renumber::of_description(&to()),
                Renumber::of_parameters(&to()),
            ] {
                let mut out = Vec::new();
                if let Ok(taken) = walk.pass(&input, &mut out) {
                    prop_assert_eq!(taken, out.len());
                }
            }
        }
    }
}
