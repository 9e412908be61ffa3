//! A token that a client carries from one router to another: what was
//! acknowledged before it was made is seen by reads after it was shown.
//!
//! It names the present life of each primary. That is all it has to say: who
//! shows it does so later than it was made, so the next sample of the primary
//! covers everything that it stands for. In another life of a primary it says
//! nothing: what was acknowledged in the last one may be gone.

use std::fmt::Write as _;

use super::{Cluster, Incarnation};
use crate::types::ShardId;

/// Why a token can't be made, or says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is no token.
    Unreadable,
    /// The life of this shard's primary is not known at the moment.
    Unknown(ShardId),
    /// This shard's primary has begun another life since.
    OtherLife(ShardId),
}

impl Cluster {
    /// A token for what has been acknowledged up to now.
    ///
    /// # Errors
    /// A primary is not known at the moment.
    pub fn token(&self) -> Result<String, TokenError> {
        let mut token = PREFIX.to_owned();
        for shard in self.shards() {
            let life = self.life_of(shard).ok_or(TokenError::Unknown(shard))?;
            let system = life.system.unwrap_or_default();
            // A string never fails to grow.
            let _ = write!(token, ":{}-{system:x}-{:x}", shard.number(), life.started_us);
        }
        Ok(token)
    }

    /// Whether `token` was made in the present lives of its shards' primaries.
    ///
    /// # Errors
    /// It was not, or that can't be told.
    pub fn check_token(&self, token: &str) -> Result<(), TokenError> {
        let rest = token.strip_prefix(PREFIX).ok_or(TokenError::Unreadable)?;
        for part in rest.split(':').skip(1) {
            let mut words = part.splitn(3, '-');
            let mut next = || words.next().ok_or(TokenError::Unreadable);
            let shard = next()?.parse().map_err(|_| TokenError::Unreadable)?;
            let system = u64::from_str_radix(next()?, 16).map_err(|_| TokenError::Unreadable)?;
            let started_us =
                i64::from_str_radix(next()?, 16).map_err(|_| TokenError::Unreadable)?;
            let shard = ShardId::new(shard);
            let system = (system != 0).then_some(system);
            let life = self.life_of(shard).ok_or(TokenError::Unknown(shard))?;
            if !life.agrees_with(Incarnation { system, started_us }) {
                return Err(TokenError::OtherLife(shard));
            }
        }
        Ok(())
    }

    fn life_of(&self, shard: ShardId) -> Option<Incarnation> {
        self.lineage_of(shard)?;
        self.node(self.primary_of(shard)?)?.incarnation
    }
}

/// Names the form of what follows.
const PREFIX: &str = "keyway1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{LineageId, Member, NodeState, Writer};
    use crate::types::{NodeId, Role};

    fn cluster(started_us: Option<i64>) -> Cluster {
        let shard = ShardId::new(7);
        let node = NodeId::new(0);
        let member = Member { node, shard, role: Role::Primary, weight: 1, near: false };
        let incarnation = started_us.map(|started_us| Incarnation { system: Some(9), started_us });
        let state = NodeState { incarnation, ..NodeState::unknown(member) };
        let lineage = started_us.map(|_| LineageId::new(1));
        Cluster::new(vec![state]).with_writer(shard, Writer::Node(NodeId::new(0)), lineage)
    }

    #[test]
    fn a_token_holds_in_the_life_in_which_it_was_made() {
        let token = cluster(Some(1_000)).token().unwrap();
        assert_eq!(token, "keyway1:7-9-3e8");
        let shard = ShardId::new(7);
        assert_eq!(cluster(Some(1_000)).check_token(&token), Ok(()));
        assert_eq!(cluster(Some(1_001)).check_token(&token), Err(TokenError::OtherLife(shard)));
        assert_eq!(cluster(None).check_token(&token), Err(TokenError::Unknown(shard)));
        assert_eq!(cluster(None).token(), Err(TokenError::Unknown(shard)));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "keyway", "keyway1:", "keyway1:x-1-1", "keyway1:7-9", "0/3000028"] {
            let refused = cluster(Some(1)).check_token(text);
            assert_eq!(refused, Err(TokenError::Unreadable), "{text}");
        }
    }
}
