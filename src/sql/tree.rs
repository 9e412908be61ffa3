//! A statement as a tree: queries, what they read from, and the conditions that
//! decide which rows matter.
//!
//! It keeps what routes depend on. Constants appear by their number only, and
//! an expression whose meaning no route needs is `Other`, with every expression
//! and query inside it: nothing that could hold a table is left out.

use super::statement::Span;

/// A name as the catalog spells it.
pub(crate) type Name = Box<str>;

/// A query or a write, with its common table expressions.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) with: Vec<Cte>,
    pub(crate) recursive: bool,
    pub(crate) body: Body,
    /// ORDER BY, LIMIT and OFFSET.
    pub(crate) tail: Vec<Expr>,
    /// LIMIT, OFFSET, FETCH or a lock: which rows it is about depends on all.
    pub(crate) bounded: bool,
}

/// A common table expression.
#[derive(Debug)]
pub(crate) struct Cte {
    pub(crate) name: Name,
    pub(crate) columns: Vec<Name>,
    pub(crate) query: Query,
}

/// What makes a query's rows.
#[derive(Debug)]
pub(crate) enum Body {
    Select(Box<Select>),
    Values(Vec<Vec<Expr>>),
    Set(Box<SetOperation>),
    /// A query in parentheses.
    Nested(Box<Query>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Merge(Box<Merge>),
}

/// UNION, INTERSECT or EXCEPT.
#[derive(Debug)]
pub(crate) struct SetOperation {
    pub(crate) left: Body,
    pub(crate) right: Body,
}

/// One SELECT, or TABLE.
#[derive(Debug)]
pub(crate) struct Select {
    /// DISTINCT ON: one row of many stays.
    pub(crate) distinct_on: Vec<Expr>,
    pub(crate) items: Vec<Item>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expr>,
    /// The tokens of `filter`.
    pub(crate) filter_at: (usize, usize),
    pub(crate) group: Option<Group>,
    pub(crate) having: Option<Expr>,
    pub(crate) windows: Vec<Expr>,
}

/// GROUP BY.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) list: Vec<Expr>,
    /// Without GROUPING SETS, ROLLUP and CUBE.
    pub(crate) plain: bool,
}

/// An entry of a select list or of RETURNING.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) expr: Expr,
    pub(crate) alias: Option<Name>,
}

/// An entry of FROM.
#[derive(Debug)]
pub(crate) enum From {
    Table(TableRef),
    Derived {
        lateral: bool,
        query: Box<Query>,
        alias: Option<Alias>,
    },
    /// A function or its like.
    Call {
        called: Called,
        args: Vec<Expr>,
        alias: Option<Alias>,
    },
    Join(Box<Join>),
}

/// Which function makes the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// `unnest`, by that name: a column for each of its arrays.
    Unnest,
    Other,
}

/// A table by its name.
#[derive(Debug)]
pub(crate) struct TableRef {
    /// The tokens of the name with ONLY and `*`, without the alias.
    pub(crate) at: (usize, usize),
    pub(crate) schema: Option<Name>,
    pub(crate) name: Name,
    pub(crate) alias: Option<Alias>,
    /// TABLESAMPLE's arguments.
    pub(crate) sample: Vec<Expr>,
}

/// AS name (columns).
#[derive(Debug)]
pub(crate) struct Alias {
    pub(crate) name: Name,
    pub(crate) columns: Vec<Name>,
}

/// A join.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) kind: JoinKind,
    pub(crate) left: From,
    pub(crate) right: From,
    pub(crate) on: On,
}

/// Which side's rows stay without a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// A join's condition.
#[derive(Debug)]
pub(crate) enum On {
    Nothing,
    Natural,
    Using { columns: Vec<Name>, alias: Option<Name> },
    Condition(Expr),
}

/// INSERT.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(crate) table: TableRef,
    pub(crate) columns: Option<Vec<Name>>,
    /// The byte of the text in front of which a column list would stand.
    pub(crate) list_at: u32,
    /// `None` is DEFAULT VALUES.
    pub(crate) source: Option<Query>,
    /// ON CONFLICT DO UPDATE.
    pub(crate) update: Vec<Assignment>,
    /// The columns of its conflict target, if that is plain columns.
    pub(crate) conflict_on: Option<Vec<Name>>,
    /// Expressions and conditions of ON CONFLICT.
    pub(crate) conflict: Vec<Expr>,
    pub(crate) returning: Vec<Item>,
}

/// UPDATE.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) table: TableRef,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) from: Vec<From>,
    pub(crate) filter: Option<Expr>,
    pub(crate) returning: Vec<Item>,
}

/// DELETE.
#[derive(Debug)]
pub(crate) struct Delete {
    pub(crate) table: TableRef,
    pub(crate) using: Vec<From>,
    pub(crate) filter: Option<Expr>,
    pub(crate) returning: Vec<Item>,
}

/// MERGE.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) table: TableRef,
    pub(crate) source: From,
    pub(crate) on: Expr,
    pub(crate) clauses: Vec<MergeClause>,
    pub(crate) returning: Vec<Item>,
}

/// One WHEN of a MERGE.
#[derive(Debug)]
pub(crate) struct MergeClause {
    pub(crate) when: When,
    pub(crate) condition: Option<Expr>,
    pub(crate) action: MergeAction,
}

/// Which rows a WHEN is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Matched,
    NotMatchedBySource,
    NotMatchedByTarget,
}

/// What a WHEN does.
#[derive(Debug)]
pub(crate) enum MergeAction {
    /// DELETE and DO NOTHING.
    Plain,
    Update(Vec<Assignment>),
    /// `None` is DEFAULT VALUES.
    Insert {
        columns: Option<Vec<Name>>,
        /// The byte of the text in front of which a column list would stand.
        list_at: u32,
        values: Option<Vec<Expr>>,
    },
}

/// `columns = value`.
#[derive(Debug)]
pub(crate) struct Assignment {
    pub(crate) columns: Vec<Name>,
    pub(crate) value: Expr,
}

/// An expression.
#[derive(Debug)]
pub(crate) struct Expr {
    pub(crate) kind: ExprKind,
    /// How deep the tree below it is.
    pub(crate) depth: u16,
}

/// Kinds of expressions.
#[derive(Debug)]
pub(crate) enum ExprKind {
    /// A column, with its qualifiers.
    Column(Vec<Name>),
    /// `*`, with its qualifiers, and where in the text it stands, if it does.
    Star(Vec<Name>, Option<Span>),
    /// The constant with this number.
    Constant(u32),
    /// The parameter with this zero-based index.
    Param(u16),
    Null,
    Minus(Box<Expr>),
    Cast(Box<Expr>, TypeName),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    /// `a IN (list)`.
    In(Box<Expr>, Vec<Expr>),
    /// `a = ANY (array)`.
    EqualsAny(Box<Expr>, Box<Expr>),
    /// `a BETWEEN b AND c`.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    Row(Vec<Expr>),
    Array(Vec<Expr>),
    /// A function with arguments and clauses.
    Call(Box<Call>),
    /// A query as a value, in EXISTS, IN, ANY, ALL or ARRAY.
    Query(Box<Query>),
    /// `a IN (query)` or `a = ANY (query)`.
    InQuery(Box<Expr>, Box<Query>),
    /// Anything else, with all that is inside.
    Other(Vec<Expr>),
}

/// A function call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) args: Vec<Expr>,
    /// OVER: its value depends on other rows.
    pub(crate) window: bool,
}

/// Built-in comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A type by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeName {
    /// The catalog's name of a type that is named without a schema, or in
    /// `pg_catalog`; empty for any other.
    pub(crate) word: Name,
    /// A length, precision or field list.
    pub(crate) modified: bool,
    pub(crate) array: bool,
}
