//! The parts of a statement that decide its route: the relations of each query
//! level, the conditions that their rows must meet, what each subquery hands
//! out, and the rows that are inserted.
//!
//! It is made from a tree without constants' values, so it serves every text of
//! the same normal form. It knows no catalog: names stay as written, and a star
//! stays a star.

mod build;
mod conditions;

use super::statement::Span;
use super::tree::{Comparison, Name};

pub(crate) use self::build::shape;

/// A statement's levels, subqueries and inserted rows.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) levels: Vec<Level>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) inserts: Vec<Insert>,
}

/// One SELECT, UPDATE, DELETE, INSERT or MERGE.
#[derive(Debug, Default)]
pub(crate) struct Level {
    /// The level whose relations it can also name.
    pub(crate) parent: Option<usize>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) conditions: Vec<Condition>,
    /// The tokens of WHERE's condition.
    pub(crate) filter_at: (usize, usize),
    /// Columns merged by USING, once for each join.
    pub(crate) merged: Vec<Name>,
    /// Columns may be merged that aren't named.
    pub(crate) natural: bool,
}

/// Something rows come from, or go to.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) kind: RelationKind,
    /// The tokens of a table's name.
    pub(crate) at: (usize, usize),
    /// The name that columns are qualified with.
    pub(crate) alias: Option<Name>,
    /// Names that an alias gives to the first columns.
    pub(crate) columns: Vec<Name>,
    /// Its columns may all be NULL: an outer join adds such rows.
    pub(crate) nullable: bool,
    /// No name reaches it: it stands for the query of an IN.
    pub(crate) hidden: bool,
    pub(crate) target: Target,
}

/// What a relation is.
#[derive(Debug)]
pub(crate) enum RelationKind {
    /// A table or view, by the name as written.
    Table { schema: Option<Name>, name: Name },
    /// A subquery or a common table expression: index of its output.
    Derived(usize),
    /// `unnest` of arrays: index of its output.
    Unnested(usize),
    /// A function, or a recursive reference.
    Other,
}

/// Whether a relation is written.
#[derive(Debug)]
pub(crate) enum Target {
    Read,
    /// By INSERT, UPDATE, DELETE or MERGE; with the columns it assigns.
    Written {
        assigned: Vec<Assigned>,
    },
}

/// A column that an UPDATE changes.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) column: Name,
    /// It gets the value of the same column of the row to be inserted, or its own.
    pub(crate) from: Option<Column>,
}

/// What all rows that matter of the relations in `restricts` meet.
#[derive(Debug)]
pub(crate) struct Condition {
    pub(crate) test: Test,
    /// Indexes of relations of the level, from and to.
    pub(crate) restricts: (usize, usize),
}

/// A test of rows; other tests than these are left out of AND, and make an OR
/// say nothing.
#[derive(Debug)]
pub(crate) enum Test {
    Equal(Column, Column),
    /// The column equals one of the values.
    Among(Column, Vec<Value>),
    /// The column equals an element of the array.
    AmongArray(Column, Value),
    /// The column lies on this side of the value.
    Compare(Column, Comparison, Value),
    All(Vec<Test>),
    Any(Vec<Test>),
    /// Nothing is known.
    Unknown,
}

/// A column as written, or by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Named {
        /// Schema and table, or table, or nothing.
        qualifier: Vec<Name>,
        name: Name,
        /// For a column merged by USING: the relations of its side.
        within: Option<(usize, usize)>,
    },
    /// The column at this position of a relation of the level.
    At { relation: usize, position: usize },
}

/// A constant or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) place: Place,
    pub(crate) minus: bool,
    pub(crate) cast: Cast,
}

/// The type that a value is cast to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    None,
    /// A type of the catalog, without modifiers.
    To(Name),
    /// An array of such a type.
    ToArray(Name),
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Literal(u32),
    Param(u16),
    Null,
}

/// What a query hands out, branch by branch of its set operations.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) branches: Vec<Branch>,
    /// Names that its columns are given, first ones first.
    pub(crate) columns: Vec<Name>,
    /// Which rows come may depend on rows that a filter would take away.
    pub(crate) opaque: bool,
    /// How many relations stand for it.
    pub(crate) references: usize,
}

/// One SELECT, VALUES or RETURNING of a query.
#[derive(Debug)]
pub(crate) enum Branch {
    Rows {
        level: usize,
        items: Vec<Item>,
        /// GROUP BY's columns; a filter on any other column changes groups.
        group: Option<Vec<Column>>,
        /// LIMIT, DISTINCT ON, windows, grouping sets, writes.
        opaque: bool,
    },
    /// A cell that is no constant or parameter is `None`.
    Values(Vec<Vec<Option<Value>>>),
    /// A row for each element; an array that is no constant or parameter is
    /// `None`.
    Unnested(Vec<Option<Elements>>),
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elements {
    /// Those in one constant or parameter.
    Within(Value),
    /// One by one.
    Each(Vec<Value>),
}

/// A column, or several, of a branch.
#[derive(Debug)]
pub(crate) enum Item {
    /// All columns, or those of one relation; and where in the text it stands,
    /// if it does.
    Star { qualifier: Vec<Name>, span: Option<Span> },
    /// A column, by its own name or another.
    Column { column: Column, name: Name },
    /// A constant or parameter.
    Value { value: Value, name: Option<Name> },
    /// Anything else.
    Other { name: Option<Name> },
}

/// Rows that are inserted into the table of a level.
#[derive(Debug)]
pub(crate) struct Insert {
    /// The level whose first relation is the table.
    pub(crate) level: usize,
    /// The columns named; `None` if the list is left out.
    pub(crate) columns: Option<Vec<Name>>,
    /// The byte of the text in front of which the list would stand, if it can
    /// be put there.
    pub(crate) list_at: Option<u32>,
    pub(crate) rows: Rows,
    pub(crate) conflict: Conflict,
}

/// What an INSERT does with rows that are there already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Leaves them, or fails.
    Leaves,
    /// Updates the row that has the same values in these columns.
    Updates(Vec<Name>),
    /// Updates a row that is found otherwise.
    UpdatesSome,
}

/// Where an INSERT's rows come from.
#[derive(Debug)]
pub(crate) enum Rows {
    /// VALUES; a cell that is no constant or parameter is `None`.
    Values(Vec<Vec<Option<Value>>>),
    /// A query: index of its output.
    Query(usize),
    /// MERGE: one row of columns and values, for rows of the level.
    Row(Vec<Item>),
    /// DEFAULT VALUES.
    Default,
}
