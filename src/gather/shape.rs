//! The columns of a gathered read: the same on every source, those that only
//! carry sort keys at the end.

use crate::protocol::backend::{Field, RowDescription};
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::tag::backend as tag;
use crate::route::CopyOut;
use crate::types::Format;

use super::copy::{self, Written};
use super::key::{self, BadValue, KeyKind};
use super::{Collation, GatherError, Plan, SortKey};

/// The result formats of a client's Bind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Formats {
    /// All columns as text.
    #[default]
    Text,
    /// All columns in this format.
    All(Format),
    /// One for each column.
    Each(Box<[Format]>),
}

impl Formats {
    fn of(&self, index: usize) -> Format {
        match self {
            Self::Text => Format::Text,
            Self::All(format) => *format,
            Self::Each(formats) => formats.get(index).copied().unwrap_or(Format::Text),
        }
    }
}

/// The columns that all sources agree on.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// The first source's RowDescription body.
    description: Box<[u8]>,
    visible: usize,
    kinds: Vec<KeyKind>,
    /// Columns behind the sort keys.
    witnesses: usize,
}

impl Shape {
    /// The shape of all of `bodies`, which are RowDescriptions.
    pub(super) fn agreed(
        bodies: &mut dyn Iterator<Item = &[u8]>,
        plan: &Plan,
    ) -> Result<Self, GatherError> {
        let first = bodies.next().unwrap_or_default();
        let fields = fields(first)?;
        for other in bodies {
            compare(&fields, &self::fields(other)?)?;
        }
        let witnessed = |key: &&SortKey| key.collation == Collation::Witnessed;
        let witnesses = plan.keys.iter().filter(witnessed).count();
        let hidden = plan.keys.len() + witnesses;
        let visible = fields.len().checked_sub(hidden).ok_or(GatherError::Malformed)?;
        let (shown, hidden) = fields.split_at_checked(visible).ok_or(GatherError::Malformed)?;
        if let Formats::Each(formats) = &plan.formats
            && formats.len() != visible
        {
            return Err(GatherError::Formats { given: formats.len(), columns: visible });
        }
        let mut kinds = Vec::with_capacity(hidden.len());
        for (key, field) in plan.keys.iter().zip(hidden) {
            if let Some(name) = &key.input
                && shown.iter().any(|field| field.name == name.as_bytes())
            {
                return Err(GatherError::OrderOfName { name: name.clone() });
            }
            let kind = KeyKind::of(field.type_oid)
                .ok_or(GatherError::OrderOfType { oid: field.type_oid })?;
            kinds.push(kind);
        }
        Ok(Self { description: first.into(), visible, kinds, witnesses })
    }

    /// RowDescription for the client.
    pub(super) fn write_description(&self, formats: &Formats, out: &mut Vec<u8>) {
        let start = open_frame(tag::ROW_DESCRIPTION, out);
        out.extend_from_slice(&u16::try_from(self.visible).unwrap_or(u16::MAX).to_be_bytes());
        let fields = fields(&self.description).unwrap_or_default();
        for (index, field) in fields.iter().take(self.visible).enumerate() {
            out.extend_from_slice(field.name);
            out.push(0);
            out.extend_from_slice(&field.table.number().to_be_bytes());
            out.extend_from_slice(&field.attribute.to_be_bytes());
            out.extend_from_slice(&field.type_oid.number().to_be_bytes());
            out.extend_from_slice(&field.type_len.to_be_bytes());
            out.extend_from_slice(&field.type_modifier.to_be_bytes());
            out.extend_from_slice(&code(formats.of(index)));
        }
        close_frame(out, start);
    }

    /// The formats of the sources' Bind: the client's, and binary for the sort
    /// keys.
    pub(super) fn write_formats(&self, formats: &Formats, out: &mut Vec<u8>) {
        let count = self.columns();
        out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        for index in 0..self.visible {
            out.extend_from_slice(&code(formats.of(index)));
        }
        for _ in self.visible..count {
            out.extend_from_slice(&code(Format::Binary));
        }
    }

    fn columns(&self) -> usize {
        self.visible + self.kinds.len() + self.witnesses
    }

    /// A row for the client: `frame` without its sort keys.
    pub(super) fn write_row(&self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), BadValue> {
        if self.kinds.is_empty() {
            out.extend_from_slice(frame);
            return Ok(());
        }
        let mut values = Values::of(frame, self.columns())?;
        for _ in 0..self.visible {
            values.next_value()?;
        }
        let start = open_frame(tag::DATA_ROW, out);
        out.extend_from_slice(&u16::try_from(self.visible).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(frame.get(HEADER_LEN + 2..values.at).unwrap_or_default());
        close_frame(out, start);
        Ok(())
    }

    /// The response to a COPY, and its header.
    pub(super) fn write_copy_head(&self, copy: &CopyOut, out: &mut Vec<u8>) {
        let fields = fields(&self.description).unwrap_or_default();
        let names: Vec<&[u8]> = fields.iter().take(self.visible).map(|field| field.name).collect();
        copy::write_head(copy, &names, out);
    }

    /// A row as COPY writes it.
    pub(super) fn write_copied(
        &self,
        copy: &CopyOut,
        frame: &[u8],
        written: Written,
        out: &mut Vec<u8>,
    ) -> Result<(), GatherError> {
        let mut values = Values::of(frame, self.columns()).map_err(|_| GatherError::Malformed)?;
        let mut odd = false;
        let shown = (0..self.visible).map_while(|_| {
            let value = values.next_value();
            odd |= value.is_err();
            value.ok()
        });
        copy::write_row(copy, shown, self.visible, written, out)?;
        if odd { Err(GatherError::Malformed) } else { Ok(()) }
    }

    /// The sort key of a row.
    pub(super) fn write_key(
        &self,
        keys: &[SortKey],
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), GatherError> {
        let malformed = |_| GatherError::Malformed;
        let mut values = Values::of(frame, self.columns()).map_err(malformed)?;
        for _ in 0..self.visible {
            values.next_value().map_err(malformed)?;
        }
        for (kind, key) in self.kinds.iter().zip(keys) {
            let value = values.next_value().map_err(malformed)?;
            key::append(*kind, key.direction, key.nulls, value, out).map_err(malformed)?;
        }
        for (kind, key) in self.kinds.iter().zip(keys) {
            if key.collation == Collation::Witnessed {
                let witness = values.next_value().map_err(malformed)?;
                if *kind == KeyKind::Text && witness != Some(b"b") {
                    return Err(GatherError::OrderOfText);
                }
            }
        }
        Ok(())
    }
}

/// The values of a DataRow frame, one after the other.
struct Values<'a> {
    frame: &'a [u8],
    at: usize,
}

impl<'a> Values<'a> {
    fn of(frame: &'a [u8], count: usize) -> Result<Self, BadValue> {
        let head = frame.get(HEADER_LEN..HEADER_LEN + 2).ok_or(BadValue)?;
        let [a, b] = <[u8; 2]>::try_from(head).map_err(|_| BadValue)?;
        if usize::from(u16::from_be_bytes([a, b])) != count {
            return Err(BadValue);
        }
        Ok(Self { frame, at: HEADER_LEN + 2 })
    }

    fn next_value(&mut self) -> Result<Option<&'a [u8]>, BadValue> {
        let head = self.frame.get(self.at..).and_then(|rest| rest.first_chunk::<4>());
        let len = i32::from_be_bytes(*head.ok_or(BadValue)?);
        self.at += 4;
        if len == -1 {
            return Ok(None);
        }
        let len = usize::try_from(len).map_err(|_| BadValue)?;
        let value = self.frame.get(self.at..self.at.saturating_add(len)).ok_or(BadValue)?;
        self.at += len;
        Ok(Some(value))
    }
}

fn fields(body: &[u8]) -> Result<Vec<Field<'_>>, GatherError> {
    let description = RowDescription::decode(body).map_err(|_| GatherError::Malformed)?;
    Ok(description.iter().collect())
}

/// Names, types and modifiers must be the same; which table a column comes from
/// has its own number on every server.
fn compare(ours: &[Field<'_>], theirs: &[Field<'_>]) -> Result<(), GatherError> {
    let differ = |column: &[u8], what| {
        let column = String::from_utf8_lossy(column).into_owned().into();
        Err(GatherError::ColumnsDiffer { column, what })
    };
    for (a, b) in ours.iter().zip(theirs) {
        if a.name != b.name {
            return differ(a.name, "its name");
        }
        if a.type_oid != b.type_oid {
            return differ(a.name, "its type");
        }
        if a.type_modifier != b.type_modifier {
            return differ(a.name, "the length or precision of its type");
        }
    }
    if ours.len() == theirs.len() { Ok(()) } else { differ(b"*", "the number of columns") }
}

const fn code(format: Format) -> [u8; 2] {
    match format {
        Format::Text => [0, 0],
        Format::Binary => [0, 1],
    }
}

/// Begins a frame; where it starts.
pub(super) fn open_frame(kind: u8, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    start
}

/// Writes the length of the frame that starts at `start`.
pub(super) fn close_frame(out: &mut [u8], start: usize) {
    let len = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start + 1..start + 5) {
        place.copy_from_slice(&len.to_be_bytes());
    }
}
