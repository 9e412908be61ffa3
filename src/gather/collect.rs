//! Many shards' rows → array parameters of one statement.
//!
//! A machine: bytes of each source go in; out come the descriptions that the
//! server at the place of the merge gives, then each fragment's rows as one
//! array of its table's row type, in binary. The rows of the first source come
//! first, whenever they arrive, so that the same data make the same statement.
//!
//! It computes nothing, and knows no SQL. What it holds is bounded by
//! [`CollectLimits`].
//!
//! Source: the send and receive functions of PostgreSQL's array and record
//! types.

use std::rc::Rc;

use crate::protocol::backend::{DataRow, ParameterDescription, RowDescription};
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::tag::backend as tag;
use crate::types::Oid;

use super::memory::{Memory, Share};
use super::{Failure, GatherError, is_passing, whole_frame};

/// What a read may bring together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectLimits {
    /// Rows of all fragments.
    pub rows_max: u64,
    /// Bytes of all fragments' values.
    pub bytes_max: usize,
    /// Bytes of a result that is kept.
    pub kept_bytes_max: usize,
}

/// One column of a fragment's table, at the place of the merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Its name.
    pub name: Box<str>,
    type_oid: Oid,
    modifier: i32,
    /// Where its value stands in the fragment's rows; it is NULL if nowhere.
    source: Option<usize>,
}

/// What the server at the place of the merge says of the client's statement.
#[derive(Debug, Default)]
pub struct Told {
    /// The types of its parameters.
    pub params: Vec<Oid>,
    /// The body of its RowDescription.
    pub description: Box<[u8]>,
}

/// Whether rows come before plain lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rowed {
    /// They do.
    With,
    /// Only the lines come.
    Without,
}

/// What the rows become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// For each fragment an array of rows.
    Rows,
    /// For each column an array of values.
    Columns,
}

/// The columns of partial rows, in the server's words.
#[derive(Debug, Default)]
pub struct Types {
    /// The number and the modifier of each one's type.
    pub columns: Vec<(Oid, i32)>,
    /// Each one's type and collation.
    pub words: Vec<(Box<str>, Option<Box<str>>)>,
    whole: bool,
}

/// The rows of fragments on their way together.
#[derive(Debug)]
pub struct Collect {
    sources: Vec<Source>,
    place: usize,
    limits: CollectLimits,
    told: Told,
    tables: Vec<Vec<TableColumn>>,
    fragments: usize,
    layout: Layout,
    /// Descriptions that are to come, and that have come.
    expected: usize,
    described: usize,
    /// Whether the types of partial rows are to come after them.
    asks_types: bool,
    types: Option<Types>,
    rows: u64,
    bytes: usize,
    share: Share,
    /// The last column must be the same in all rows, and what it is.
    uniform: Option<Option<Box<[u8]>>>,
    /// Results of plain lines behind the fragments' rows.
    plans: usize,
}

#[derive(Debug, Default)]
struct Source {
    buffer: Vec<u8>,
    rows: Vec<Rows>,
    /// The fragment that is being read.
    current: usize,
    /// Lines of the results behind the fragments, and which result each is of.
    lines: Vec<(usize, Box<[u8]>)>,
    /// The first ErrorResponse that it sent.
    error: Option<Box<[u8]>>,
}

/// One source's rows of one fragment.
#[derive(Clone, Debug, Default)]
struct Rows {
    count: u32,
    bytes: Vec<u8>,
    /// Values by column, and whether a NULL is among them.
    columns: Vec<(Vec<u8>, bool)>,
    described: bool,
}

impl Collect {
    /// Collects `fragments` fragments of `sources` sources; the one at `place`
    /// describes the statement and the fragments' tables first.
    /// What it holds is a part of `memory`.
    pub fn new(
        sources: usize,
        place: usize,
        fragments: usize,
        limits: CollectLimits,
        memory: Rc<Memory>,
    ) -> Self {
        let source = || Source { rows: vec![Rows::default(); fragments], ..Source::default() };
        Self {
            sources: (0..sources).map(|_| source()).collect(),
            place,
            limits,
            told: Told::default(),
            tables: Vec::new(),
            fragments,
            layout: Layout::Rows,
            expected: fragments + 1,
            described: 0,
            asks_types: false,
            types: None,
            rows: 0,
            bytes: 0,
            share: Share::of(memory),
            uniform: None,
            plans: 0,
        }
    }

    /// The source at the place of the merge.
    pub const fn place(&self) -> usize {
        self.place
    }

    /// Takes what a source said, in pieces of any size.
    ///
    /// # Errors
    /// The read has failed; nothing more need be pushed.
    pub fn push(&mut self, source: usize, bytes: &[u8]) -> Result<(), Failure> {
        let Some(one) = self.sources.get_mut(source) else { return Ok(()) };
        one.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut one.buffer);
        let mut at = 0;
        let mut rest = buffer.as_slice();
        while let Some((kind, len)) = whole_frame(rest)? {
            let frame = rest.get(..len).unwrap_or_default();
            self.frame(source, kind, frame)?;
            at += len;
            rest = buffer.get(at..).unwrap_or_default();
        }
        if let Some(one) = self.sources.get_mut(source) {
            one.buffer.extend_from_slice(rest);
        }
        Ok(())
    }

    fn frame(&mut self, source: usize, kind: u8, frame: &[u8]) -> Result<(), Failure> {
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        match kind {
            tag::ERROR_RESPONSE => {
                // Whether it is the read's or the connection's end, others know.
                if let Some(one) = self.sources.get_mut(source) {
                    one.error.get_or_insert_with(|| frame.into());
                }
                Ok(())
            }
            _ if !self.is_described() => self.describe(kind, body),
            tag::ROW_DESCRIPTION | tag::DATA_ROW if self.plan(source).is_some() => {
                if kind == tag::DATA_ROW { self.line(source, body) } else { Ok(()) }
            }
            tag::ROW_DESCRIPTION => self.check(source, body),
            tag::DATA_ROW => self.row(source, body),
            tag::COMMAND_COMPLETE => {
                if let Some(one) = self.sources.get_mut(source) {
                    one.current += 1;
                }
                Ok(())
            }
            tag::NOTICE_RESPONSE => Ok(()),
            _ if is_passing(kind) => Ok(()),
            _ => Err(Failure::Own(GatherError::Malformed)),
        }
    }

    /// The error that a source has reported.
    pub fn take_error(&mut self, source: usize) -> Option<Box<[u8]>> {
        self.sources.get_mut(source)?.error.take()
    }

    // === what there is ===

    /// Whether the statement and all tables are described.
    pub fn is_described(&self) -> bool {
        let typed = self.types.as_ref().is_some_and(|types| types.whole);
        self.described == self.expected && (!self.asks_types || typed)
    }

    /// The server will tell the columns of partial rows, too.
    pub const fn expect_types(&mut self) {
        self.asks_types = true;
    }

    /// The columns of partial rows.
    pub const fn types(&self) -> Option<&Types> {
        self.types.as_ref()
    }

    /// The last column of partial rows tells how they were sorted.
    pub fn expect_uniform(&mut self) {
        self.uniform = Some(None);
    }

    /// Collects partial rows of these types in place of the fragments.
    pub fn collect_partial(&mut self) {
        let columns = self.types.iter().flat_map(|types| &types.columns).enumerate();
        let table: Vec<TableColumn> = columns
            .map(|(at, (oid, modifier))| TableColumn {
                name: format!("c{}", at + 1).into(),
                type_oid: *oid,
                modifier: *modifier,
                source: Some(at),
            })
            .collect();
        for source in &mut self.sources {
            source.rows = vec![Rows::default()];
            if let Some(rows) = source.rows.first_mut() {
                rows.columns = vec![(Vec::new(), false); table.len()];
            }
        }
        self.tables = vec![table];
        self.fragments = 1;
        self.layout = Layout::Columns;
    }

    /// What the statement is.
    pub const fn told(&self) -> &Told {
        &self.told
    }

    /// The columns of a fragment's table.
    pub fn columns(&self, fragment: usize) -> &[TableColumn] {
        self.tables.get(fragment).map(Vec::as_slice).unwrap_or_default()
    }

    /// Chooses the columns of a fragment that its rows will have, in order.
    pub fn choose(&mut self, fragment: usize, wanted: &[bool]) {
        let mut next = 0;
        for (at, column) in self.tables.get_mut(fragment).into_iter().flatten().enumerate() {
            column.source = wanted.get(at).copied().unwrap_or(false).then(|| {
                next += 1;
                next - 1
            });
        }
    }

    fn describe(&mut self, kind: u8, body: &[u8]) -> Result<(), Failure> {
        let malformed = |_| Failure::Own(GatherError::Malformed);
        if self.described == self.expected {
            return self.describe_types(kind, body);
        }
        match kind {
            tag::PARAMETER_DESCRIPTION if self.described == 0 => {
                let types = ParameterDescription::decode(body).map_err(malformed)?;
                self.told.params = types.iter().collect();
            }
            tag::ROW_DESCRIPTION if self.described == 0 => {
                self.told.description = body.into();
                self.described = 1;
            }
            tag::ROW_DESCRIPTION => {
                self.described += 1;
                let columns = RowDescription::decode(body).map_err(malformed)?;
                let columns: Result<Vec<TableColumn>, Failure> = columns
                    .iter()
                    .map(|field| {
                        let name = std::str::from_utf8(field.name);
                        let name = name.map_err(|_| Failure::Own(GatherError::Malformed))?;
                        let (type_oid, modifier) = (field.type_oid, field.type_modifier);
                        Ok(TableColumn { name: name.into(), type_oid, modifier, source: None })
                    })
                    .collect();
                self.tables.push(columns?);
            }
            tag::NO_DATA => return Err(Failure::Own(GatherError::Malformed)),
            _ => {}
        }
        Ok(())
    }

    fn describe_types(&mut self, kind: u8, body: &[u8]) -> Result<(), Failure> {
        let malformed = |_| Failure::Own(GatherError::Malformed);
        match kind {
            tag::ROW_DESCRIPTION => {
                let fields = RowDescription::decode(body).map_err(malformed)?;
                // A third of them are the columns, the rest says what they are.
                let count = fields.count() / 3;
                let columns = fields.iter().take(count);
                let columns = columns.map(|field| (field.type_oid, field.type_modifier)).collect();
                self.types = Some(Types { columns, ..Types::default() });
            }
            tag::COMMAND_COMPLETE => {
                // Only now does nothing of it come any more.
                self.types.iter_mut().for_each(|types| types.whole = true);
            }
            tag::DATA_ROW => {
                let row = DataRow::decode(body).map_err(malformed)?;
                let Some(types) = &mut self.types else { return Ok(()) };
                let mut words = row.iter().skip(types.columns.len()).map(|value| {
                    value.and_then(|value| std::str::from_utf8(value).ok()).map(Into::into)
                });
                while let (Some(type_name), Some(collation)) = (words.next(), words.next()) {
                    types.words.push((type_name.unwrap_or_default(), collation));
                }
            }
            _ => {}
        }
        Ok(())
    }

    // === rows ===

    /// A fragment's columns on a shard must be those of its table at the place.
    fn check(&mut self, source: usize, body: &[u8]) -> Result<(), Failure> {
        let malformed = |_| Failure::Own(GatherError::Malformed);
        let current = self.sources.get(source).map_or(0, |one| one.current);
        let fields = RowDescription::decode(body).map_err(malformed)?;
        let table = self.tables.get(current).map(Vec::as_slice).unwrap_or_default();
        let chosen = table.iter().filter(|column| column.source.is_some());
        let differs = |name: &str, what| {
            Err(Failure::Own(GatherError::ColumnsDiffer { column: name.into(), what }))
        };
        let mut seen = 0;
        for (field, column) in fields.iter().zip(chosen.clone()) {
            seen += 1;
            let both = field.type_oid.is_own() && column.type_oid.is_own();
            if field.type_oid != column.type_oid && !both {
                return differs(&column.name, "its type");
            }
            if field.type_modifier != column.modifier {
                return differs(&column.name, "the length or precision of its type");
            }
            if LOCAL.contains(&field.type_oid.number()) {
                return Err(Failure::Own(GatherError::LocalType { column: column.name.clone() }));
            }
        }
        if seen != fields.count() || seen != chosen.count() {
            return Err(Failure::Own(GatherError::Malformed));
        }
        let rows = self.sources.get_mut(source).and_then(|one| one.rows.get_mut(current));
        if let Some(rows) = rows {
            rows.described = true;
        }
        Ok(())
    }

    /// One row becomes one element of the array.
    fn row(&mut self, source: usize, body: &[u8]) -> Result<(), Failure> {
        let malformed = || Failure::Own(GatherError::Malformed);
        let Some(one) = self.sources.get_mut(source) else { return Ok(()) };
        let table = self.tables.get(one.current).ok_or_else(malformed)?;
        let rows = one.rows.get_mut(one.current).filter(|rows| rows.described);
        let rows = rows.ok_or_else(malformed)?;
        let mut values = body.get(2..).unwrap_or_default();
        if self.layout == Layout::Columns {
            let mut last: &[u8] = &[];
            for (bytes, nulls) in &mut rows.columns {
                let (value, null, rest) = next_value(values)?;
                last = value;
                bytes.extend_from_slice(value);
                *nulls |= null;
                values = rest;
            }
            rows.count += 1;
            match &mut self.uniform {
                Some(Some(known)) if **known != *last => {
                    return Err(Failure::Own(GatherError::SortedOtherwise));
                }
                Some(known @ None) => *known = Some(last.into()),
                Some(Some(_)) | None => {}
            }
            return self.count(body.len());
        }
        let start = rows.bytes.len();
        rows.bytes.extend_from_slice(&[0; 4]);
        rows.bytes.extend_from_slice(&length(table.len())?);
        for column in table {
            rows.bytes.extend_from_slice(&column.type_oid.number().to_be_bytes());
            if column.source.is_none() {
                rows.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            }
            let (value, _, rest) = next_value(values)?;
            rows.bytes.extend_from_slice(value);
            values = rest;
        }
        let len = length(rows.bytes.len() - start - 4)?;
        if let Some(head) = rows.bytes.get_mut(start..start + 4) {
            head.copy_from_slice(&len);
        }
        rows.count += 1;
        let grown = rows.bytes.len() - start;
        self.count(grown)
    }

    // === plans ===

    /// `count` results of plain lines will come behind the fragments' rows of
    /// every source, or in their place.
    pub fn expect_plans(&mut self, count: usize, rows: Rowed) {
        self.plans = count;
        if rows == Rowed::Without {
            for source in &mut self.sources {
                source.current = self.fragments;
            }
        }
    }

    /// One more will come of the source at the place of the merge.
    pub fn expect_plan_at_place(&mut self) {
        // What the others don't give, they have given.
        self.plans += 1;
        for (at, source) in self.sources.iter_mut().enumerate() {
            source.current += usize::from(at != self.place);
        }
    }

    /// Nothing will be described.
    pub const fn expect_no_description(&mut self) {
        self.described = self.expected;
    }

    /// The lines of a source's result with this number.
    pub fn lines(&self, source: usize, plan: usize) -> impl Iterator<Item = &[u8]> {
        let lines = self.sources.get(source).into_iter().flat_map(|one| &one.lines);
        lines.filter(move |(number, _)| *number == plan).map(|(_, line)| &**line)
    }

    /// The number of the plain result that the source is giving.
    fn plan(&self, source: usize) -> Option<usize> {
        self.sources.get(source)?.current.checked_sub(self.fragments)
    }

    fn line(&mut self, source: usize, body: &[u8]) -> Result<(), Failure> {
        let row = DataRow::decode(body).map_err(|_| Failure::Own(GatherError::Malformed))?;
        let line: Box<[u8]> = row.iter().flatten().next().unwrap_or_default().into();
        let (plan, len) = (self.plan(source).unwrap_or(0), line.len());
        if let Some(one) = self.sources.get_mut(source) {
            one.lines.push((plan, line));
        }
        self.count(len)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.rows += 1;
        self.bytes += bytes;
        if self.rows > self.limits.rows_max || self.bytes > self.limits.bytes_max {
            return Err(Failure::Own(GatherError::TooMuch {
                rows_max: self.limits.rows_max,
                bytes_max: self.limits.bytes_max,
            }));
        }
        if !self.share.take(bytes) {
            let bytes_max = self.share.memory().all();
            return Err(Failure::Own(GatherError::OutOfMemory { bytes_max }));
        }
        Ok(())
    }

    /// Whether every source has given all its rows.
    pub fn is_complete(&self) -> bool {
        self.is_described()
            && self.sources.iter().all(|one| one.current >= self.fragments + self.plans)
    }

    /// How many arrays it makes.
    pub fn arrays(&self) -> usize {
        match self.layout {
            Layout::Rows => self.fragments,
            Layout::Columns => self.columns(0).len(),
        }
    }

    /// Appends an array's binary value.
    pub fn write_array(&self, array: usize, out: &mut Vec<u8>) {
        let fragment = if self.layout == Layout::Rows { array } else { 0 };
        let all = || self.sources.iter().filter_map(|one| one.rows.get(fragment));
        let count: u32 = all().map(|rows| rows.count).sum();
        let (element, nulls) = match self.layout {
            // The server takes any number for a row type that is not its own.
            Layout::Rows => (0, false),
            Layout::Columns => {
                let column = self.columns(0).get(array);
                let nulls = all().any(|rows| rows.columns.get(array).is_some_and(|(_, n)| *n));
                (column.map_or(0, |column| column.type_oid.number()), nulls)
            }
        };
        // Dimensions, whether there are NULLs, and the elements' type.
        for number in [u32::from(count > 0), u32::from(nulls), element] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        if count == 0 {
            return;
        }
        for number in [count, 1] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        for rows in all() {
            match self.layout {
                Layout::Rows => out.extend_from_slice(&rows.bytes),
                Layout::Columns => {
                    let values = rows.columns.get(array).map(|(bytes, _)| &**bytes);
                    out.extend_from_slice(values.unwrap_or_default());
                }
            }
        }
    }
}

/// A value with its length, whether it is NULL, and what follows it.
fn next_value(values: &[u8]) -> Result<(&[u8], bool, &[u8]), Failure> {
    let malformed = || Failure::Own(GatherError::Malformed);
    let len = i32::from_be_bytes(*values.first_chunk::<4>().ok_or_else(malformed)?);
    let whole = 4 + usize::try_from(len).unwrap_or(0);
    let (value, rest) = values.split_at_checked(whole).ok_or_else(malformed)?;
    Ok((value, len < 0, rest))
}

fn length(len: usize) -> Result<[u8; 4], Failure> {
    let len = i32::try_from(len).map_err(|_| Failure::Own(GatherError::Malformed))?;
    Ok(len.to_be_bytes())
}

/// Types whose values are numbers that mean something else on every server.
const LOCAL: [u32; 11] = [24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode;

    const LIMITS: CollectLimits = CollectLimits { rows_max: 3, bytes_max: 1000, kept_bytes_max: 0 };

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &len.to_be_bytes(), body].concat()
    }

    fn description(columns: &[(&str, u32)]) -> Vec<u8> {
        let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for (name, oid) in columns {
            body.extend(name.as_bytes());
            body.extend([0; 7]);
            body.extend(oid.to_be_bytes());
            body.extend([0, 4, 255, 255, 255, 255, 0, 0]);
        }
        frame(b'T', &body)
    }

    fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::data_row(&mut out, values.iter().copied()).unwrap();
        out
    }

    /// Two sources; the first describes a statement without parameters and one
    /// table of two columns, of which the second is chosen.
    fn described(memory: &Rc<Memory>) -> Collect {
        let mut collect = Collect::new(2, 0, 1, LIMITS, Rc::clone(memory));
        let said = [
            frame(b'1', b""),
            frame(b't', b"\0\0"),
            description(&[("n", 20)]),
            frame(b'1', b""),
            frame(b't', b"\0\0"),
            description(&[("a", 23), ("mood", 16_400)]),
            frame(b'Z', b"T"),
        ];
        collect.push(0, &said.concat()).unwrap();
        assert!(collect.is_described() && !collect.is_complete());
        collect.choose(0, &[false, true]);
        collect
    }

    fn reply(oid: u32, values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = [frame(b'1', b""), frame(b'2', b""), description(&[("mood", oid)])].concat();
        values.iter().for_each(|value| out.extend(row(&[*value])));
        out.extend(frame(b'C', b"SELECT 1\0"));
        out
    }

    #[test]
    fn rows_become_one_array_in_the_order_of_the_shards() {
        for piece in [1, 3, 1000] {
            let memory = Memory::new(1000);
            let mut collect = described(&memory);
            // The other shard has another number for the type, and is first.
            for (source, said) in
                [(1, reply(16_999, &[Some(b"ok")])), (0, reply(16_400, &[Some(b"sad"), None]))]
            {
                said.chunks(piece).for_each(|bytes| collect.push(source, bytes).unwrap());
            }
            assert!(collect.is_complete());
            let mut array = Vec::new();
            collect.write_array(0, &mut array);
            let int = |n: i32| n.to_be_bytes().to_vec();
            let element = |len: i32, value: &[u8]| {
                let head = [int(24 + len.max(0) - 4), int(2), int(23), int(-1), int(16_400)];
                [head.concat(), int(len), value.to_vec()].concat()
            };
            let expected = [
                [int(1), int(0), int(0), int(3), int(1)].concat(),
                element(3, b"sad"),
                element(-1, b""),
                element(2, b"ok"),
            ];
            assert_eq!(array, expected.concat(), "in pieces of {piece}");
        }
    }

    #[test]
    fn other_columns_and_too_many_rows_are_failures() {
        let memory = Memory::new(1000);
        let failure = |collect: &mut Collect, said: &[u8]| collect.push(1, said).unwrap_err();
        let other = failure(&mut described(&memory), &reply(23, &[]));
        assert!(matches!(other, Failure::Own(GatherError::ColumnsDiffer { .. })), "{other:?}");
        let many = failure(&mut described(&memory), &reply(16_400, &[None; 4]));
        assert!(matches!(many, Failure::Own(GatherError::TooMuch { .. })), "{many:?}");
        let small = Memory::new(30);
        let full = failure(&mut described(&small), &reply(16_400, &[None; 2]));
        assert!(matches!(full, Failure::Own(GatherError::OutOfMemory { .. })), "{full:?}");
    }

    #[test]
    fn error_of_a_shard_waits_until_it_is_known_what_it_ends() {
        let mut collect = described(&Memory::new(1000));
        let error = frame(b'E', b"SERROR\0\0");
        collect.push(1, &error).unwrap();
        assert_eq!(collect.take_error(1).as_deref(), Some(&*error));
        assert_eq!(collect.take_error(0), None);
    }
}
