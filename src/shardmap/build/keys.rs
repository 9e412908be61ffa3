//! The types of a keyspace's key, and the columns of its tables that hold it: one,
//! or several that together are the key.
//!
//! A key of several columns has the slot that servers compute of a row, so only
//! the hashes that they have take it; single keys of it are not placed by name.

use toml::Spanned;

use crate::shardmap::file::KeyspaceEntry;
use crate::shardmap::hash::Hash;
use crate::shardmap::key::KeyType;
use crate::shardmap::keyspace::Keyspace;
use crate::shardmap::map::Placement;
use crate::shardmap::name::identifier;

use super::{Builder, no_such};

/// How a table's entry names its key.
pub(super) struct KeyNames<'e> {
    /// The word of the file for one column.
    word: &'static str,
    one: Option<&'e Spanned<String>>,
    several: Option<&'e Spanned<Vec<Spanned<String>>>>,
}

impl<'e> KeyNames<'e> {
    pub(super) const fn new(
        word: &'static str,
        one: Option<&'e Spanned<String>>,
        several: Option<&'e Spanned<Vec<Spanned<String>>>>,
    ) -> Self {
        Self { word, one, several }
    }
}

impl Builder<'_> {
    /// The type of the first column of a key, and those of the others.
    pub(super) fn key_types(
        &mut self,
        at: usize,
        entry: &KeyspaceEntry,
    ) -> Option<(KeyType, Box<[KeyType]>)> {
        let several = match (&entry.key_type, &entry.types) {
            (Some(one), None) => return Some((self.key_type(one)?, Box::default())),
            (None, Some(several)) => several,
            (None, None) => {
                self.refuse(at, "the key type is missing here");
                return None;
            }
            (Some(_), Some(several)) => {
                let reason = "types stands in place of type: keep one of them";
                self.refuse(several.span().start, reason);
                return None;
            }
        };
        if !(2..=COLUMNS_MAX).contains(&several.get_ref().len()) {
            let reason = format!("types lists from 2 to {COLUMNS_MAX} types; one is type = …");
            self.refuse(several.span().start, reason);
            return None;
        }
        let mut types = Vec::new();
        for one in several.get_ref() {
            types.push(self.key_type(one)?);
        }
        let first = *types.first()?;
        Some((first, types.into_iter().skip(1).collect()))
    }

    fn key_type(&mut self, found: &Spanned<String>) -> Option<KeyType> {
        let known = KeyType::ALL;
        let key_type = known.into_iter().find(|known| known.name() == found.get_ref());
        if key_type.is_none() {
            let names = known.map(KeyType::name).join(", ");
            let reason = format!("{} is no type of key: one of {names}", found.get_ref());
            self.refuse(found.span().start, reason);
        }
        key_type
    }

    /// What a keyspace whose key has several columns can't have.
    pub(super) fn check_composite(&mut self, hash: Hash, at: usize, entry: &KeyspaceEntry) {
        if !hash.takes_rows() {
            let at = entry.hash.as_ref().map_or(at, |found| found.span().start);
            let reason = format!(
                "a key of several columns has hash = \"postgres\" or \"partition\", not \"{}\"",
                hash.name()
            );
            self.refuse(at, reason);
        }
        if let Some((tenant, _)) = entry.pins.first_key_value() {
            let reason = "tenants of a keyspace with types can't be pinned: place their slots";
            self.refuse(tenant.span().start, reason);
        }
        if let Some(schemas) = &entry.schemas {
            let reason = "a schema's name is the key: a keyspace of schemas has type = \"text\"";
            self.refuse(schemas.span().start, reason);
        }
    }

    /// The placement of a table whose entry stands at `at`.
    pub(super) fn sharded(
        &mut self,
        keyspace: &Spanned<String>,
        at: usize,
        key: KeyNames<'_>,
    ) -> Option<Placement> {
        let wanted = keyspace.get_ref();
        let found = self.keyspaces.iter().find(|known| known.name == *wanted);
        if found.is_some_and(Keyspace::is_of_schemas) {
            let reason = format!(
                "keyspace {wanted} is of schemas: its tables are those in its schemas, and have no key column"
            );
            self.refuse(keyspace.span().start, reason);
            return None;
        }
        let found = found.map(|found| (found.id(), found.key_types().count()));
        if found.is_none() && !self.broken.contains(wanted) {
            let names = self.keyspaces.iter().map(|keyspace| keyspace.name.as_str());
            let reason = no_such("keyspace", wanted, names);
            self.refuse(keyspace.span().start, reason);
        }
        let mut columns = self.columns(at, &key)?.into_iter();
        let (column, rest) = (columns.next()?, columns.collect::<Vec<_>>());
        let (keyspace, types) = found?;
        if types != rest.len() + 1 {
            let at =
                key.several.map_or_else(|| key.one.map_or(at, start), |found| found.span().start);
            let reason = format!(
                "keyspace {wanted} has keys of {types} column{}, and this names {}",
                if types == 1 { "" } else { "s" },
                rest.len() + 1
            );
            self.refuse(at, reason);
            return None;
        }
        Some(Placement::Sharded { keyspace, column, rest })
    }

    /// The names of a key's columns, at least one.
    fn columns(&mut self, at: usize, key: &KeyNames<'_>) -> Option<Vec<String>> {
        let named = match (key.one, key.several) {
            (Some(one), None) => std::slice::from_ref(one),
            (None, Some(several)) => several.get_ref(),
            (None, None) => {
                self.refuse(at, format!("the key {} is missing here", key.word));
                return None;
            }
            (Some(_), Some(several)) => {
                let reason = format!("columns stands in place of {}: keep one of them", key.word);
                self.refuse(several.span().start, reason);
                return None;
            }
        };
        let mut columns: Vec<String> = Vec::new();
        for name in named {
            let column = identifier(name.get_ref())
                .map_err(|reason| self.refuse(start(name), reason))
                .ok()?;
            if columns.contains(&column) {
                self.refuse(start(name), format!("the column {} is named twice", name.get_ref()));
                return None;
            }
            columns.push(column);
        }
        if columns.is_empty() {
            self.refuse(at, "columns is empty");
        }
        Some(columns)
    }
}

fn start(name: &Spanned<String>) -> usize {
    name.span().start
}

/// Most columns of a key.
const COLUMNS_MAX: usize = 8;
