//! What the catalogs promise of a function that the server does not bring.
//!
//! Which of several functions of one name a call means depends on types and on
//! the search path; the most volatile of all that it could be counts. What no
//! catalog knows, or one shard has not been asked for, may do anything.

use crate::catalog::{Function, FunctionKind, Volatility};
use crate::sql::functions::Nature;

use super::planner::World;
use super::resolve;

/// The nature of `schema.name`, or of every function that the search path may
/// find by `name`; `None` if no catalog knows one.
pub(crate) fn nature(schema: Option<&str>, name: &str, world: &World<'_>) -> Option<Nature> {
    let catalog = resolve::known(world)?;
    if !catalog.covers(world.map.shards().iter().map(|shard| shard.id)) {
        return None;
    }
    let worst = |schema: &str| catalog.functions(schema, name).map(of).max_by_key(rank);
    match schema {
        Some(schema) => worst(schema),
        None => world.search_path.schemas().filter_map(worst).max_by_key(rank),
    }
}

fn of(function: &Function) -> Nature {
    match (function.kind, function.volatility) {
        _ if function.touches_session => Nature::Unknown,
        (FunctionKind::Procedure, _) | (_, Volatility::Volatile) => Nature::Unknown,
        (_, Volatility::Stable) => Nature::Bound,
        (_, Volatility::Immutable) => Nature::Neutral,
    }
}

const fn rank(nature: &Nature) -> u8 {
    match nature {
        Nature::Neutral => 0,
        Nature::Bound => 1,
        Nature::Loose => 2,
        Nature::Primary => 3,
        Nature::Unknown => 4,
    }
}
