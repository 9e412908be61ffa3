//! The journal of a move that has not begun: what moves, from where, with
//! which tables.

use crate::shardmap::{Key, KeyError, Keyspace, Map, Scratch, Table};
use crate::types::{ShardId, SlotId};

use super::journal::{Journal, MovedTable, Phase, Subject, Subscriptions};

/// Why a move can't begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginError {
    /// The map has no such keyspace.
    Keyspace(String),
    /// The map has no such shard.
    Shard(String),
    /// It is no key of the keyspace.
    Key(KeyError),
    /// The keyspace has no such slots, or the first is behind the last.
    Slots(u32, u32),
    /// The slots have several owners.
    Owners(u32, u32),
    /// The rows are there already.
    Itself(String),
    /// No table of the map belongs to the keyspace.
    NoTables(String),
}

impl std::fmt::Display for BeginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keyspace(name) => write!(f, "the map has no keyspace {name}"),
            Self::Shard(name) => write!(f, "the map has no shard {name}"),
            Self::Key(error) => error.fmt(f),
            Self::Slots(first, last) => write!(f, "the keyspace has no slots {first}-{last}"),
            Self::Owners(first, last) => {
                write!(f, "slots {first}-{last} have several owners: move the parts one by one")
            }
            Self::Itself(name) => write!(f, "the rows are on {name} already"),
            Self::NoTables(name) => write!(f, "no table of the map belongs to keyspace {name}"),
        }
    }
}

impl std::error::Error for BeginError {}

impl Journal {
    /// The journal of the move of `subject` in `keyspace` to `target`, by the
    /// map in force. The store gives it its number.
    ///
    /// # Errors
    /// The map has nothing of the kind, or nothing would move.
    pub fn begin(
        map: &Map,
        keyspace: &str,
        subject: Subject,
        target: ShardId,
    ) -> Result<Self, BeginError> {
        let found = map
            .keyspace_named(keyspace)
            .ok_or_else(|| BeginError::Keyspace(keyspace.to_owned()))?;
        let to = map.shard(target).ok_or_else(|| BeginError::Shard(target.number().to_string()))?;
        let (subject, source, pinned) = place(found, subject)?;
        if source == target {
            return Err(BeginError::Itself(to.name.clone()));
        }
        let tables: Vec<MovedTable> = map
            .tables()
            .filter_map(|(schema, name, place)| match place {
                Table::Sharded { keyspace, column } if keyspace == found.id() => Some(MovedTable {
                    schema: schema.to_owned(),
                    name: name.to_owned(),
                    column: column.to_owned(),
                }),
                Table::Sharded { .. } | Table::Reference | Table::Single(_) => None,
            })
            .collect();
        if tables.is_empty() {
            return Err(BeginError::NoTables(keyspace.to_owned()));
        }
        Ok(Self {
            id: 0,
            keyspace: keyspace.to_owned(),
            subject,
            source: source.number(),
            target: target.number(),
            tables,
            pinned,
            phase: Phase::Guarding,
            generation: 0,
            token: 0,
            tries: 0,
            subscriptions: Subscriptions::default(),
            stopped: None,
        })
    }

    /// Whether rows of `other` could be rows of this move too.
    pub fn overlaps(&self, other: &Self, map: &Map) -> bool {
        if self.keyspace != other.keyspace {
            return false;
        }
        let Some(keyspace) = map.keyspace_named(&self.keyspace) else { return true };
        let range = |journal: &Self| match &journal.subject {
            Subject::Slots { first, last } => Some((*first, *last)),
            Subject::Tenant(text) => {
                let mut scratch = Scratch::default();
                let key = Key::from_text(keyspace.key_type(), text, &mut scratch).ok()?;
                let slot = keyspace.slot_of(&key).number();
                Some((slot, slot))
            }
        };
        match (&self.subject, &other.subject) {
            (Subject::Tenant(one), Subject::Tenant(two)) => one == two,
            (Subject::Slots { .. } | Subject::Tenant(_), _) => match (range(self), range(other)) {
                (Some((a, b)), Some((c, d))) => a <= d && c <= b,
                (None, _) | (_, None) => true,
            },
        }
    }
}

/// The subject in its canonical form, where it is now, and the tenants that
/// don't move with it.
fn place(
    keyspace: &Keyspace,
    subject: Subject,
) -> Result<(Subject, ShardId, Vec<String>), BeginError> {
    match subject {
        Subject::Tenant(text) => {
            let mut scratch = Scratch::default();
            let key = Key::from_text(keyspace.key_type(), &text, &mut scratch)
                .map_err(BeginError::Key)?;
            Ok((Subject::Tenant(key.to_string()), keyspace.owner(&key), Vec::new()))
        }
        Subject::Slots { first, last } => {
            if first > last || last >= keyspace.slots() {
                return Err(BeginError::Slots(first, last));
            }
            let mut owners = (first..=last).map(|slot| keyspace.slot_owner(SlotId::new(slot)));
            let source = owners.next().flatten().ok_or(BeginError::Slots(first, last))?;
            if owners.any(|owner| owner != Some(source)) {
                return Err(BeginError::Owners(first, last));
            }
            let inside = |key: &Key<'_>| {
                let slot = keyspace.slot_of(key).number();
                first <= slot && slot <= last
            };
            let pinned = keyspace
                .pins()
                .filter(|(key, _)| inside(key))
                .map(|(key, _)| key.to_string())
                .collect();
            Ok((subject, source, pinned))
        }
    }
}
