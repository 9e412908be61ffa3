//! The catalogs of all shards at one time.
//!
//! A shard that could not be asked has none: what needs it is then not known,
//! which is something else than not there.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::numbers::Translation;
use super::relation::Relation;
use super::shard::{Fingerprint, Function, ShardCatalog};
use crate::types::ShardId;

/// The catalogs of all shards that were asked, by the shards' numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    shards: Vec<Entry>,
    fingerprint: Fingerprint,
    /// Of the shards whose numbers are not those of the home shard.
    translations: Vec<(ShardId, Arc<Translation>)>,
    /// There are such shards, or were.
    translates: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    shard: ShardId,
    catalog: Arc<ShardCatalog>,
    fingerprint: Fingerprint,
}

impl Catalog {
    /// A catalog of these shards; of two for the same shard the later counts.
    pub fn new(shards: impl IntoIterator<Item = (ShardId, Arc<ShardCatalog>)>) -> Self {
        let mut out = Self::default();
        for (shard, catalog) in shards {
            out = out.with(shard, catalog);
        }
        out
    }

    /// This catalog with what is known of `shard` replaced.
    #[must_use]
    pub fn with(mut self, shard: ShardId, catalog: Arc<ShardCatalog>) -> Self {
        let entry = Entry { shard, fingerprint: catalog.fingerprint(), catalog };
        match self.shards.binary_search_by_key(&shard, |entry| entry.shard) {
            Ok(at) => self.shards[at] = entry,
            Err(at) => self.shards.insert(at, entry),
        }
        self.sealed()
    }

    /// This catalog without the shards that `keep` refuses.
    #[must_use]
    pub fn retain(mut self, keep: impl Fn(ShardId) -> bool) -> Self {
        self.shards.retain(|entry| keep(entry.shard));
        self.sealed()
    }

    /// This catalog with the numbers of the shards where they are not the home
    /// shard's.
    #[must_use]
    pub fn with_translations(mut self, of: Vec<(ShardId, Arc<Translation>)>) -> Self {
        self.translates |= !of.is_empty();
        self.translations = of;
        self
    }

    /// This catalog, in the place of `before`: who goes by the old numbers is
    /// told of the new ones, also if they are the same everywhere.
    #[must_use]
    pub const fn after(mut self, before: &Self) -> Self {
        self.translates |= before.translates;
        self
    }

    /// Whether numbers may have to be translated; if not, none is.
    #[inline]
    pub const fn translates(&self) -> bool {
        self.translates
    }

    /// From the numbers of `shard` to those of the home shard; `None` if they
    /// are the same.
    pub fn translation(&self, shard: ShardId) -> Option<&Arc<Translation>> {
        self.translations.iter().find(|(of, _)| *of == shard).map(|(_, found)| found)
    }

    /// All that there are.
    pub fn translations(&self) -> &[(ShardId, Arc<Translation>)] {
        &self.translations
    }

    fn sealed(mut self) -> Self {
        let mut sum = 0_u128;
        for entry in &self.shards {
            let bytes = [entry.fingerprint.0, sum, u128::from(entry.shard.number())]
                .map(u128::to_le_bytes)
                .concat();
            sum = xxh3_128_with_seed(&bytes, 1);
        }
        self.fingerprint = Fingerprint(sum);
        self
    }

    /// Whether nothing is known.
    pub const fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    /// Whether every one of `shards` is known.
    pub fn covers(&self, mut shards: impl Iterator<Item = ShardId>) -> bool {
        shards.all(|shard| self.shard(shard).is_some())
    }

    /// The fingerprint of all of it: which shards are known, and what of them.
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// What is known of `shard`.
    pub fn shard(&self, shard: ShardId) -> Option<&ShardCatalog> {
        let at = self.shards.binary_search_by_key(&shard, |entry| entry.shard).ok()?;
        self.shards.get(at).map(|entry| &*entry.catalog)
    }

    /// The fingerprint of `shard`.
    pub fn fingerprint_of(&self, shard: ShardId) -> Option<Fingerprint> {
        let at = self.shards.binary_search_by_key(&shard, |entry| entry.shard).ok()?;
        self.shards.get(at).map(|entry| entry.fingerprint)
    }

    /// All known shards, by their numbers.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, &ShardCatalog)> {
        self.shards.iter().map(|entry| (entry.shard, &*entry.catalog))
    }

    pub(super) fn shared(&self) -> impl Iterator<Item = (ShardId, &Arc<ShardCatalog>)> {
        self.shards.iter().map(|entry| (entry.shard, &entry.catalog))
    }

    /// The relation `schema.name` on each known shard that has it.
    pub fn relation<'c>(
        &'c self,
        schema: &str,
        name: &str,
    ) -> impl Iterator<Item = (ShardId, &'c Relation)> {
        self.shards()
            .filter_map(move |(shard, catalog)| Some((shard, catalog.relation(schema, name)?)))
    }

    /// The functions `schema.name` of all known shards.
    pub fn functions<'c>(&'c self, schema: &str, name: &str) -> impl Iterator<Item = &'c Function> {
        self.shards().flat_map(move |(_, catalog)| catalog.functions(schema, name))
    }

    /// Whether transactions of `role` are READ ONLY unless they say otherwise, on
    /// all known shards.
    pub fn begins_read_only(&self, role: &str) -> bool {
        let on = |catalog: &ShardCatalog| catalog.mode(READ_ONLY, role).is_some_and(is_on);
        !self.is_empty() && self.shards().all(|(_, catalog)| on(catalog))
    }

    /// Whether transactions of `role` are SERIALIZABLE unless they say otherwise,
    /// on any known shard.
    pub fn begins_serializable(&self, role: &str) -> bool {
        let mut modes = self.shards().filter_map(|(_, catalog)| catalog.mode(ISOLATION, role));
        modes.any(|isolation| isolation.trim().eq_ignore_ascii_case("serializable"))
    }

    /// The search path that a session of `role` begins with, if all known
    /// shards agree on it.
    pub fn search_path(&self, role: &str) -> Option<&str> {
        let mut paths = self.shards().map(|(_, catalog)| catalog.search_path(role));
        let first = paths.next()??;
        paths.all(|path| path == Some(first)).then_some(first)
    }
}

/// A server's word for true.
fn is_on(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1" | "t" | "y")
}

const READ_ONLY: &str = "default_transaction_read_only";
const ISOLATION: &str = "default_transaction_isolation";
