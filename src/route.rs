//! Routing: which shards a text goes to, and why.
//!
//! `planner` caches what `decide` finds out about a text; `template` holds it
//! with the constants left out; `locate` turns the constants of one execution
//! into a shard. What can't be proven to lie on one shard is an error.

mod array;
mod asides;
mod composite;
mod copy;
mod cursor;
mod ddl;
mod decide;
mod declared;
mod direct;
mod error;
mod explain;
mod hints;
mod keycheck;
mod locate;
mod marked;
mod of_session;
mod place;
mod planner;
mod read_only;
mod resolve;
mod router_words;
mod scatter;
mod solve;
mod splice;
mod stars;
mod stays;
mod template;
mod temporary;
mod tenants;
mod volatility;
mod wrapping;

pub use self::cursor::{DeclaredCursor, Fetch};
pub use self::declared::Declared;
pub use self::error::RouteError;
pub use self::explain::{ExplainedKey, Explanation, Refusal, explain, explain_in};
pub use self::keycheck::key_faults;
pub use self::planner::{Planner, PlannerCounts, PlannerLimits, SearchPath, World};
pub use self::read_only::InReadOnly;
pub use self::scatter::{
    Combine, Count, Foreign, Fragment, Merge, OrderKey, Partial, PartialColumn, Scatter, Sorted,
    arrives,
};
pub use self::template::{
    Needs, Param, Params, Reason, Route, RouterCommand, Several, Targets, Template,
};
pub use self::wrapping::{CopyFormat, CopyOut, Explain, Wrapping};
