//! From a text to its template: what each statement is, which tables it uses,
//! and whether one shard provably holds all rows it can touch.

use crate::sql::classify::{self, Classified};
use crate::sql::functions::Nature;
use crate::sql::literal::Literals;
use crate::sql::statement::{Facts, Kind, SessionEffect, Span, TxEffect};
use crate::sql::token;
use crate::types::{Access, Epoch};

use super::error::RouteError;
use super::planner::World;
use super::template::{OwnText, Plan, Reason, Targets, Template};

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
    literals: &Literals,
    world: &World<'_>,
) -> Result<Template, RouteError> {
    let list = token::tokens(text)?;
    let statements = token::statements(text, &list);
    let classified: Vec<Classified> = statements.iter().map(classify::classify).collect();
    let plan = if world.map.is_sharded() {
        return Err(RouteError::unsupported("this statement", ""));
    } else {
        Plan::Fixed { targets: Targets::Home, reason: Reason::Unsharded }
    };
    let replica_ok = !classified.is_empty()
        && classified.iter().all(|one| {
            one.facts.kind == Kind::Select
                && one.facts.is_plain()
                && one.facts.access == Access::Read
                && matches!(one.nature, Nature::Neutral | Nature::Bound)
        });
    let mut facts: Vec<Facts> = classified.into_iter().map(|one| one.facts).collect();
    if facts.is_empty() {
        facts.push(classify::empty());
    }
    let access = facts.iter().map(|one| one.access).max().unwrap_or(Access::Read);
    let own = (!is_portable(&facts) && !literals.is_empty())
        .then(|| OwnText { text: text.into(), literals: literals.clone() });
    Ok(Template {
        epoch: world.map.epoch(),
        statements: facts.into(),
        plan,
        access,
        replica_ok,
        key_params: Box::default(),
        own,
    })
}

/// Whether the facts hold nothing of the text itself, so that they serve every
/// text of the same normal form.
fn is_portable(facts: &[Facts]) -> bool {
    let [one] = facts else { return false };
    one.tx == TxEffect::None
        && one.effect.each().iter().all(|effect| {
            matches!(
                effect,
                SessionEffect::Dirty
                    | SessionEffect::CurrVal
                    | SessionEffect::SessionAdvisoryLock
                    | SessionEffect::AdvisoryUnlock { .. }
                    | SessionEffect::TempTable
                    | SessionEffect::HoldCursor { .. }
            )
        })
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
