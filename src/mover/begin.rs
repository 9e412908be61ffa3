//! The journal of a move that has not begun: what moves, from where, with
//! which tables.

use crate::shardmap::{Key, KeyError, Keyspace, Map, Scratch, Table};
use crate::types::{ShardId, SlotId};

use super::journal::{Journal, MovedTable, Phase, Side, Subject, Subscriptions};
use super::times::Times;

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
    /// Its tenants are schemas, which are not moved row by row.
    Schemas(String),
    /// Its keys have several columns.
    Composite(String),
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
            Self::Schemas(name) => write!(
                f,
                "a tenant of keyspace {name} is a schema, which can't be moved row by row: copy it \
                 with pg_dump --schema while nobody writes to it, then let the map say where it is \
                 with data = \"already-moved\""
            ),
            Self::Composite(name) => write!(
                f,
                "the keys of keyspace {name} have several columns, and their rows can't be moved \
                 yet: copy them while nobody writes to them, then let the map say where they are \
                 with data = \"already-moved\""
            ),
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
        if found.is_of_schemas() {
            return Err(BeginError::Schemas(keyspace.to_owned()));
        }
        if found.is_composite() {
            return Err(BeginError::Composite(keyspace.to_owned()));
        }
        let (subject, source, pinned) = place(found, subject)?;
        if source == target {
            return Err(BeginError::Itself(to.name.clone()));
        }
        let tables: Vec<MovedTable> = map
            .tables()
            .filter_map(|(schema, name, place)| match place {
                Table::Sharded { keyspace, column, .. } if keyspace == found.id() => {
                    Some(MovedTable {
                        schema: schema.to_owned(),
                        name: name.to_owned(),
                        column: column.to_owned(),
                    })
                }
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
            times: Times::default(),
        })
    }

    /// The side that owns the rows by `map`; `None` if neither does.
    pub fn owner_in(&self, map: &Map) -> Option<Side> {
        let keyspace = map.keyspace_named(&self.keyspace)?;
        let shard = match &self.subject {
            Subject::Tenant(text) => {
                let mut scratch = Scratch::default();
                keyspace.owner(&keyspace.key_from_text(text, &mut scratch).ok()?)
            }
            Subject::Slots { first, .. } => keyspace.slot_owner(SlotId::new(*first))?,
        };
        [Side::Source, Side::Target].into_iter().find(|side| self.shard(*side) == shard.number())
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
                let key = keyspace.key_from_text(text, &mut scratch).ok()?;
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
            let key = keyspace.key_from_text(&text, &mut scratch).map_err(BeginError::Key)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"int8\"\nslots = 4\n\
            ranges = { a = [\"0-2\"], b = [\"3\"] }\npins = { \"42\" = \"b\" }\n\
            [[key_rule]]\nkeyspace = \"k\"\ncolumn = \"t\"\ntables = [\"public.x\"]\n";
        Map::parse(text, "map").unwrap()
    }

    fn begin(subject: Subject, target: u16) -> Result<Journal, BeginError> {
        Journal::begin(&map(), "k", subject, ShardId::new(target))
    }

    #[test]
    fn a_tenant_that_is_a_schema_is_not_moved_by_rows() {
        let text = "epoch = 7\ndatabase = \"app\"\nhome = \"a\"\n\
            [[shard]]\nnumber = 1\nname = \"a\"\nprimary = { host = \"h1\" }\n\
            [[shard]]\nnumber = 2\nname = \"b\"\nprimary = { host = \"h2\" }\n\
            [[keyspace]]\nname = \"k\"\ntype = \"text\"\nslots = 2\n\
            ranges = { a = [\"0\"], b = [\"1\"] }\nschemas = [\"t_*\"]\n";
        let map = Map::parse(text, "map").unwrap();
        let subject = Subject::Slots { first: 0, last: 0 };
        let refused = Journal::begin(&map, "k", subject, ShardId::new(2)).unwrap_err();
        assert_eq!(refused, BeginError::Schemas("k".to_owned()));
        assert!(refused.to_string().contains("pg_dump --schema"));
    }

    #[test]
    fn a_move_to_itself_and_of_what_is_not_there_is_refused() {
        let tenant = |text: &str| Subject::Tenant(text.to_owned());
        assert_eq!(begin(tenant("42"), 2), Err(BeginError::Itself("b".to_owned())));
        assert!(matches!(begin(tenant("x"), 1), Err(BeginError::Key(_))));
        assert!(matches!(begin(tenant("42"), 9), Err(BeginError::Shard(_))));
        let slots = |first, last| Subject::Slots { first, last };
        assert_eq!(begin(slots(0, 4), 2), Err(BeginError::Slots(0, 4)));
        assert_eq!(begin(slots(2, 1), 2), Err(BeginError::Slots(2, 1)));
        assert_eq!(begin(slots(2, 3), 1), Err(BeginError::Owners(2, 3)));
        assert_eq!(begin(slots(0, 2), 1), Err(BeginError::Itself("a".to_owned())));
    }

    #[test]
    fn slots_leave_their_pinned_tenants_out_and_overlap_with_the_others() {
        let map = map();
        let all = begin(Subject::Slots { first: 0, last: 2 }, 2).unwrap();
        let slot = map.keyspace_named("k").unwrap().slot_of(&Key::Int(42)).number();
        assert_eq!(all.pinned, if slot < 3 { vec!["42".to_owned()] } else { Vec::new() });
        let free = (1..)
            .find(|id| map.keyspace_named("k").unwrap().slot_of(&Key::Int(*id)).number() == 0)
            .unwrap();
        let one = begin(Subject::Tenant(free.to_string()), 2).unwrap();
        assert!(one.overlaps(&all, &map) && all.overlaps(&one, &map) && one.overlaps(&one, &map));
        let part = begin(Subject::Slots { first: 1, last: 2 }, 2).unwrap();
        assert!(!one.overlaps(&part, &map) && part.overlaps(&all, &map));
    }
}
