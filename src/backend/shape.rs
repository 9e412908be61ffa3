//! The shape of a statement's rows, as far as a server minds its change: names,
//! types and modifiers of the columns. Which table a column comes from, and the
//! format that a client asks for, are no part of it.
//!
//! Source: Postgres answers a changed shape with `cached plan must not change
//! result type`; hazard 37 of `docs/hazards.md`.

use xxhash_rust::xxh3::Xxh3;

use crate::protocol::backend::RowDescription;

/// The server's function that finds a shape changed.
pub const REVALIDATE: &str = "RevalidateCachedQuery";

/// A shape; equal ones are the same but for one chance in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowShape(u64);

impl RowShape {
    /// The shape that a RowDescription's body tells, or that of no rows at all;
    /// `None` if the body can't be read.
    pub fn of(body: Option<&[u8]>) -> Option<Self> {
        let Some(body) = body else { return Some(Self(0)) };
        let mut hash = Xxh3::new();
        for field in RowDescription::decode(body).ok()?.iter() {
            hash.update(field.name);
            hash.update(&[0]);
            // A type of the database's own has another number on each shard.
            let oid = if field.type_oid.is_own() { u32::MAX } else { field.type_oid.number() };
            hash.update(&oid.to_be_bytes());
            hash.update(&field.type_modifier.to_be_bytes());
        }
        Some(Self(hash.digest() | 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode::{Column, row_description};
    use crate::protocol::frame::HEADER_LEN;

    fn shape(columns: &[Column<'_>]) -> RowShape {
        let mut frame = Vec::new();
        row_description(&mut frame, columns).unwrap();
        RowShape::of(frame.get(HEADER_LEN..)).unwrap()
    }

    #[test]
    fn shapes_differ_by_name_type_and_number_of_columns() {
        let (a, b) = (Column::text("a"), Column::text("b"));
        assert_eq!(shape(&[Column::text("a")]), shape(&[Column::text("a")]));
        let others = [shape(&[b]), shape(&[Column::int8("a")]), shape(&[]), RowShape(0)];
        assert!(others.iter().all(|other| *other != shape(&[Column::text("a")])));
        assert_ne!(shape(&[a, Column::text("b")]), shape(&[Column::text("a")]));
        assert_eq!(RowShape::of(Some(&[0, 1])), None);
    }
}
