//! Statements that the router answers itself: EXPLAIN ROUTE and the settings
//! whose names begin with `keyway.`.

use crate::sql::session_words;
use crate::sql::statement::{Kind, SessionEffect};
use crate::sql::token::Tokens;

use super::template::RouterCommand;

/// The command that the statement is, if it is one.
pub(crate) fn command(t: &Tokens<'_>, kind: Kind) -> Option<RouterCommand> {
    match kind {
        Kind::ExplainRoute => Some(RouterCommand::ExplainRoute { statement: t.from(2).span() }),
        Kind::Show => {
            let (name, _) = session_words::setting_name(t, 1);
            is_ours(&name).then_some(RouterCommand::ShowKeyway { name })
        }
        Kind::Set => match session_words::set(t).2 {
            SessionEffect::Set { name, value, local, .. } if is_ours(&name) => {
                // A literal without a value would be left out of the list.
                let unread = |i| t.literal(i).is_some_and(|one| one.value(t.text).is_none());
                Some(if (1..t.len()).any(unread) {
                    RouterCommand::UnreadValue
                } else {
                    RouterCommand::SetKeyway { name, value, local }
                })
            }
            _ => None,
        },
        Kind::Reset => {
            let (name, _) = session_words::setting_name(t, 1);
            is_ours(&name).then_some(RouterCommand::SetKeyway { name, value: None, local: false })
        }
        _ => None,
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

const PREFIX: &str = "keyway.";
