//! The parts of a statement that decide its route: the tables of each query
//! level, the equalities that hold at each level, and the rows it inserts.
//!
//! It is made from the normal form, so a constant appears by its number only.

/// A statement's tables and equalities.
#[derive(Debug, Default)]
pub(crate) struct Shape {
    pub(crate) levels: Vec<Level>,
    pub(crate) inserts: Vec<Insert>,
}

/// One SELECT, UPDATE, DELETE or INSERT: a list of relations with conditions.
#[derive(Debug, Default)]
pub(crate) struct Level {
    /// The level whose relations it can also name.
    pub(crate) parent: Option<usize>,
    pub(crate) relations: Vec<Relation>,
    pub(crate) equalities: Vec<Equality>,
    /// Columns merged by USING, once for each join.
    pub(crate) merged: Vec<Box<str>>,
    /// Columns may be merged that aren't named.
    pub(crate) natural: bool,
}

/// Something rows come from, or go to.
#[derive(Debug)]
pub(crate) struct Relation {
    pub(crate) kind: RelationKind,
    /// The name that columns are qualified with.
    pub(crate) alias: Option<Box<str>>,
    /// An alias gives the columns other names.
    pub(crate) renamed: bool,
    pub(crate) target: Target,
}

/// What a relation is.
#[derive(Debug)]
pub(crate) enum RelationKind {
    /// A table or view, by the name as written.
    Table { schema: Option<Box<str>>, name: Box<str> },
    /// A subquery, a CTE or a function.
    Other,
}

/// Whether a relation is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Read,
    Written { assigned: Vec<Box<str>> },
}

/// `left = right`, true of every row that matters of the relations in `restricts`.
#[derive(Debug)]
pub(crate) struct Equality {
    pub(crate) left: Side,
    pub(crate) right: Side,
    /// Indexes of relations of the level, from and to.
    pub(crate) restricts: (usize, usize),
}

/// A side of an equality.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    Column(Column),
    Value(Value),
}

/// A column as written.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Schema and table, or table, or nothing.
    pub(crate) qualifier: Vec<Box<str>>,
    pub(crate) name: Box<str>,
    /// For a column merged by USING: the side it belongs to.
    pub(crate) within: Option<(usize, usize)>,
}

/// A constant or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) place: Place,
    pub(crate) minus: bool,
    /// The type it is cast to, in lower case.
    pub(crate) cast: Option<Box<str>>,
}

/// Where a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Literal(u32),
    Param(u16),
    Null,
}

/// The rows of an INSERT.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) level: usize,
    /// The columns named; `None` if the list is left out.
    pub(crate) columns: Option<Vec<Box<str>>>,
    pub(crate) rows: Rows,
}

/// Where an INSERT's rows come from.
#[derive(Debug)]
pub(crate) enum Rows {
    /// VALUES; a cell that is no constant or parameter is `None`.
    Values(Vec<Vec<Option<Value>>>),
    /// A query.
    Query,
    /// DEFAULT VALUES.
    Default,
}
