//! Keys that place nothing: on one shard a map may declare them so that a write
//! marks its key's slot alone, and a read waits for its own.
//!
//! What can't be proven is no error here: the statement goes to the one shard
//! there is, and marks, or waits for, all of it. The proofs are those of a sharded
//! database's statements.

use crate::sql::classify::Classified;
use crate::sql::functions::Nature;
use crate::sql::parse;
use crate::sql::shape;
use crate::sql::token::Tokens;

use super::asides::Asides;
use super::decide::{is_about_rows, param_uses};
use super::error::RouteError;
use super::place::{self, Calls, Placed};
use super::planner::World;
use super::template::{Keyed, Spread};

/// Notes the keys of a statement, and what its tables ask for; false if they are
/// not proven, and nothing is noted.
pub(super) fn note(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> bool {
    if !world.map.marks_by_key()
        || !is_about_rows(one.facts.kind)
        || world.search_path.hides_catalog()
    {
        return false;
    }
    let Ok(shape) = parse::parse(t).and_then(|tree| shape::shape(&tree)) else { return false };
    // Who leaves the columns out means those that the server knows.
    let Ok(placed) = place::place(&shape, world, &param_uses(t), calls(one)) else { return false };
    if placed.system || placed.temporary || placed.sources.is_empty() {
        return false;
    }
    asides.note(&placed, one);
    let Placed { sources, intervals, single, open, .. } = placed;
    let (sources, intervals, single) = (sources.into(), intervals.into(), single.first().copied());
    let (spread, hint, across) = (Spread::OneShard, None, Err(RouteError::SeveralShards));
    asides.marked =
        Some(Box::new(Keyed { sources, intervals, single, open, spread, hint, across }));
    true
}

/// Whether the statement's functions are known to have no effect.
pub(super) fn calls(one: &Classified) -> Calls {
    match one.nature {
        Nature::Neutral | Nature::Bound => Calls::Harmless,
        Nature::Loose | Nature::Primary | Nature::Unknown => Calls::Unknown,
    }
}
