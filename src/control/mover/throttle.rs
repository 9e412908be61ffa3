//! When a move must not go on for now, and how its copy is held up.
//!
//! Postgres copies as fast as it can. The brake is a trigger on the target's
//! tables that fires for rows which a stream brings, and waits while a
//! sequence says so: the copy stands where it is, and goes on from there. What
//! the servers bear is the operator's to say, by the settings `moves.*_max`.
//!
//! Source: PostgreSQL manual, "Logical Replication", "ALTER TABLE … ENABLE
//! REPLICA TRIGGER"; hazard 112 of `docs/hazards.md`.

use super::node::NodeError;
use super::sql;
use super::work::Work;
use crate::mover::{Journal, Side};

impl Work {
    /// Why nothing should be copied or purged now; `None` if it may.
    pub(super) async fn pressure(
        &mut self,
        burden: Burden,
    ) -> Result<Option<String>, (Side, NodeError)> {
        let limits = self.limits;
        if limits.replica_lag == 0 && limits.active == 0 && limits.target_bytes == 0 {
            return Ok(None);
        }
        for side in [Side::Source, Side::Target] {
            let node = self.node(side);
            let rows = node.rows(sql::PRESSURE).await.map_err(|error| (side, error))?;
            let row = rows.into_iter().next().unwrap_or_default();
            let number = |i: usize| {
                let text = row.get(i).cloned().flatten();
                text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
            };
            let (lag, active, bytes) = (number(0), number(1), number(2));
            let name = &node.target().name;
            if limits.replica_lag > 0 && lag > limits.replica_lag {
                return Ok(Some(format!(
                    "{name}: a replica is {lag} bytes behind (moves.replica_lag_max: {})",
                    limits.replica_lag
                )));
            }
            if limits.active > 0 && active > u64::from(limits.active) {
                return Ok(Some(format!(
                    "{name}: {active} sessions are at work (moves.active_max: {})",
                    limits.active
                )));
            }
            let grows = side == Side::Target && burden == Burden::Copy;
            if grows && limits.target_bytes > 0 && bytes > limits.target_bytes {
                return Ok(Some(format!(
                    "{name}: its database has {bytes} bytes (moves.target_bytes_max: {})",
                    limits.target_bytes
                )));
            }
        }
        Ok(None)
    }

    /// Holds the copy up, or lets it go on.
    pub(super) async fn brake(&mut self, journal: &Journal, on: Brake) -> Result<(), NodeError> {
        self.target.rows(&sql::set_brake(journal.id, on == Brake::On)).await.map(|_| ())
    }
}

/// What the servers would have to bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burden {
    Copy,
    Purge,
}

/// Whether the copy waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Brake {
    On,
    Off,
}
