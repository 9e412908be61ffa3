//! Tokens: `SHOW keyway.token` and `SET keyway.after`.
//!
//! What a token says and whether it holds is `cluster`'s to tell; the shell is
//! told that one was shown, and from then on reads wait for a later sample. A
//! ROLLBACK does not take that back: it can only make reads fresher.

use crate::cluster::TokenError;

use super::Barrier;
use super::feed::Feed;
use super::refusal::{INVALID_VALUE, NOT_IN_STATE, Refused};

impl Feed<'_, '_> {
    /// Reads see what was acknowledged before the token was made, through
    /// whichever router; without one they see what their level says.
    pub(super) fn set_after(&mut self, token: Option<&str>) -> Result<(), Refused> {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            self.s.after = Some(Barrier::None);
            return Ok(());
        };
        (self.env.token)(Some(token)).map_err(|error| self.refuse_token(error))?;
        self.s.after = Some(Barrier::Now);
        Ok(())
    }

    pub(super) fn show_token(&self) -> Result<String, Refused> {
        (self.env.token)(None).map_err(|error| self.refuse_token(error))
    }

    fn refuse_token(&self, error: TokenError) -> Refused {
        let name = |shard| self.map().shard(shard).map_or("?", |shard| &*shard.name);
        match error {
            TokenError::Unreadable => {
                Refused::new(INVALID_VALUE, "keyway.after is no token of a router")
                    .hint("use what SHOW keyway.token says, or an empty text for none")
            }
            TokenError::Unknown(shard) => Refused::new(
                NOT_IN_STATE,
                format!("the primary of shard {} is not known at this moment", name(shard)),
            )
            .hint("try again; if there are no replicas, no token is needed"),
            TokenError::OtherLife(shard) => Refused::new(
                NOT_IN_STATE,
                format!("the primary of shard {} is another one since, or has restarted", name(shard)),
            )
            .hint(
                "what was acknowledged before may be gone: look on the primary, and take a new token",
            ),
        }
    }
}
