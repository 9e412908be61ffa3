//! From a text to its template: what each statement is, which tables it uses,
//! and whether one shard provably holds all rows it can touch.

use crate::sql::literal::Literals;
use crate::sql::statement::{Facts, Kind, SessionEffect, Span, TxEffect};
use crate::types::{Access, Epoch};

use super::error::RouteError;
use super::planner::World;
use super::template::{Plan, Reason, Targets, Template};

/// What a plan was made against, besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) epoch: Epoch,
    pub(crate) path: u64,
}

/// The template of `text`.
///
/// # Errors
/// It has no route whatever its values are.
pub(crate) fn decide(
    text: &[u8],
    _literals: &Literals,
    world: &World<'_>,
) -> Result<Template, RouteError> {
    if world.map.is_sharded() {
        return Err(RouteError::unsupported("this statement", ""));
    }
    Ok(opaque(text, world))
}

/// The template of a text that has no tokens, for an unsharded database: the
/// server will say what is wrong with it.
pub(crate) fn opaque(text: &[u8], world: &World<'_>) -> Template {
    Template {
        epoch: world.map.epoch(),
        statements: Box::new([Facts {
            kind: Kind::Unknown,
            span: Span { start: 0, end: u32::try_from(text.len()).unwrap_or(u32::MAX) },
            access: Access::Write,
            tx: TxEffect::None,
            effect: SessionEffect::Dirty,
        }]),
        plan: Plan::Fixed { targets: Targets::Home, reason: Reason::Unsharded },
        access: Access::Write,
        replica_ok: false,
        key_params: Box::default(),
        own: None,
    }
}
