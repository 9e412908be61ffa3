//! What planning a statement finds out besides where it goes.

use crate::sql::classify::Classified;
use crate::sql::functions::Nature;
use crate::sql::parse;
use crate::sql::shape::{self, RelationKind};
use crate::sql::statement::Kind;
use crate::sql::token::Tokens;
use crate::types::{Access, Consistency};

use super::copy::CopyCheck;
use super::place::Placed;
use super::planner::World;
use super::resolve::{self, Demand};
use super::splice::List;
use super::template::Keyed;

/// Of all statements of a text.
#[derive(Debug, Default)]
pub(crate) struct Asides {
    /// Column lists to be put into the text.
    pub(crate) lists: Vec<List>,
    /// The condition that a COPY gets.
    pub(crate) copy: Option<CopyCheck>,
    /// Something that no replica can read is read.
    pub(crate) primary: bool,
    /// The level that comments name.
    pub(crate) hinted: Option<Consistency>,
    /// The strictest level of the tables.
    pub(crate) level: Option<Consistency>,
    /// The keys of a statement that no key places.
    pub(crate) marked: Option<Box<Keyed>>,
    /// The statement at hand reads a view that may do anything.
    volatile: bool,
    /// Rows may be written that no key of the statement tells.
    strays: bool,
    /// Rows may be read that no key of the statement tells.
    roams: bool,
    /// How many statements were looked at so closely.
    looked_at: usize,
}

impl Asides {
    /// Notes what the tables of a statement ask for; the statement as it then
    /// is.
    pub(crate) fn note(&mut self, placed: &Placed, one: &Classified) -> Classified {
        self.add(placed.demand);
        let mut noted = one.clone();
        self.amend(&mut noted);
        self.looked_at += 1;
        self.strays |= !placed.stays || noted.nature == Nature::Unknown;
        self.roams |= !placed.apart || noted.nature == Nature::Unknown;
        noted
    }

    /// Notes what a query of an unsharded database asks for, also inside EXPLAIN,
    /// DECLARE and COPY. A statement that can't be read is the server's affair.
    pub(crate) fn note_unsharded(&mut self, t: &Tokens<'_>, one: &Classified, world: &World<'_>) {
        let query = match (one.facts.kind, one.inner) {
            (Kind::Select, _) => *t,
            (Kind::Explain | Kind::Declare | Kind::CopyOut, Some((start, end))) => {
                t.slice(start, end)
            }
            _ => return,
        };
        let Ok(shape) = parse::parse(&query).and_then(|tree| shape::shape(&tree)) else { return };
        for relation in shape.levels.iter().flat_map(|level| &level.relations) {
            if let RelationKind::Table { schema, name } = &relation.kind {
                self.add(resolve::demand(schema.as_deref(), name, world));
            }
        }
    }

    fn add(&mut self, demand: Demand) {
        self.level = stricter(self.level, demand.level);
        self.primary |= demand.primary;
        self.volatile |= demand.volatile;
    }

    /// A view calls what the text does not show.
    pub(crate) fn amend(&self, one: &mut Classified) {
        if self.volatile {
            one.facts.access = Access::Write;
            one.nature = Nature::Unknown;
        }
    }

    /// The statement at hand is done with.
    pub(crate) fn next(&mut self, one: &mut Classified) {
        self.amend(one);
        self.volatile = false;
    }

    /// Whether every one of `statements` was seen to write no rows but those of
    /// its keys.
    pub(crate) const fn stays(&self, statements: usize) -> bool {
        !self.strays && self.looked_at == statements
    }

    /// Whether every one of `statements` was seen to read no rows but those of
    /// its keys.
    pub(crate) const fn reads_stay(&self, statements: usize) -> bool {
        !self.roams && self.looked_at == statements
    }
}

/// The level that promises more, if either names one.
pub(crate) fn stricter(
    one: Option<Consistency>,
    other: Option<Consistency>,
) -> Option<Consistency> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.stricter(other)),
        (one, other) => one.or(other),
    }
}
