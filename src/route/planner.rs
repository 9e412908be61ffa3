//! The plan cache: text → template, without a parse when it was seen before.
//!
//! Two levels: the text itself, for texts without constants and for texts whose
//! template belongs to them alone; then the normal form. Every hit is verified by
//! comparing bytes, since a collision would be a wrong shard. Both levels are
//! bounded in bytes. The planner serves one database; maps with other content
//! have other epochs.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::catalog::{Catalog, Fingerprint};
use crate::shardmap::Map;
use crate::sql::literal::Literals;
use crate::sql::scan::Scanner;
use crate::types::ShardId;

use super::decide::{self, Scope};
use super::error::RouteError;
use super::template::Template;

/// What a statement is planned against.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The map in force for the transaction.
    pub map: &'a Map,
    /// The session's search path.
    pub search_path: &'a SearchPath,
    /// What the shards' schemas hold, as far as it is known.
    pub catalog: Option<&'a Catalog>,
}

impl<'a> World<'a> {
    /// What a text is planned against where no catalog is known.
    pub const fn of_map(map: &'a Map, search_path: &'a SearchPath) -> Self {
        Self { map, search_path, catalog: None }
    }
}

/// The schemas in which a name without one is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    schemas: Box<[Box<str>]>,
    /// The session's temporary tables, which are found before all schemas, and
    /// the shard that each is on.
    temporary: Box<[(Box<str>, ShardId)]>,
    /// Tells paths apart in the cache's key; compared with the path itself.
    hash: u64,
}

impl Default for SearchPath {
    /// Postgres's own: `"$user", public`, with no schema of the user's name.
    fn default() -> Self {
        Self::new(["public"])
    }
}

impl SearchPath {
    /// The path of these schemas, spelled as the catalog does.
    pub fn new<'a>(schemas: impl IntoIterator<Item = &'a str>) -> Self {
        let schemas: Box<[Box<str>]> = schemas.into_iter().map(Into::into).collect();
        let mut hash = 0;
        for schema in &schemas {
            hash = xxh3_64_with_seed(schema.as_bytes(), hash ^ 1);
        }
        Self { schemas, temporary: Box::default(), hash }
    }

    /// The same path for a session with these temporary tables.
    #[must_use]
    pub fn with_temporary(self, tables: &[(Box<str>, ShardId)]) -> Self {
        let plain = Self::new(self.schemas());
        let mut hash = plain.hash;
        for (name, shard) in tables {
            hash = xxh3_64_with_seed(name.as_bytes(), hash ^ u64::from(shard.number()) << 8 ^ 2);
        }
        Self { temporary: tables.into(), hash, ..plain }
    }

    /// The shard of the session's temporary table of this name.
    pub(crate) fn temporary(&self, name: &str) -> Option<ShardId> {
        self.temporary.iter().find(|(known, _)| **known == *name).map(|(_, shard)| *shard)
    }

    pub(crate) fn has_temporary(&self) -> bool {
        !self.temporary.is_empty()
    }

    /// The path that the value of the setting `search_path` denotes for `user`.
    ///
    /// `None` if it is not a list of names. `"$user"` is the user's name.
    pub fn parse(value: &str, user: &str) -> Option<Self> {
        let mut schemas = Vec::new();
        let mut rest = value.trim();
        while !rest.is_empty() {
            let name;
            if let Some(quoted) = rest.strip_prefix('"') {
                let mut out = String::new();
                let mut parts = quoted;
                loop {
                    let end = parts.find('"')?;
                    out.push_str(parts.get(..end)?);
                    parts = parts.get(end + 1..)?;
                    match parts.strip_prefix('"') {
                        Some(more) => {
                            out.push('"');
                            parts = more;
                        }
                        None => break,
                    }
                }
                name = out;
                rest = parts.trim_start();
            } else {
                let end = rest.find(',').unwrap_or(rest.len());
                let word = rest.get(..end)?.trim_end();
                if word.is_empty() || word.contains(char::is_whitespace) {
                    return None;
                }
                name = word.to_ascii_lowercase();
                rest = rest.get(end..)?;
            }
            schemas.push(if name == "$user" { user.to_owned() } else { name });
            rest = match rest.strip_prefix(',') {
                Some(more) if !more.trim().is_empty() => more.trim_start(),
                None if rest.is_empty() => rest,
                _ => return None,
            };
        }
        Some(Self::new(schemas.iter().map(String::as_str)))
    }

    /// Whether names of the server's own types and operators may mean others: a
    /// schema stands before `pg_catalog`.
    pub(crate) fn hides_catalog(&self) -> bool {
        self.schemas.iter().skip(1).any(|schema| **schema == *"pg_catalog")
    }

    /// Tells paths apart.
    pub const fn fingerprint(&self) -> u64 {
        self.hash
    }

    /// The schemas, first one first.
    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.schemas.iter().map(AsRef::as_ref)
    }
}

/// How much a planner keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannerLimits {
    /// Bytes of each of the two caches, texts and templates together.
    pub cache_bytes: usize,
    /// Longer texts are planned each time.
    pub text_bytes_max: usize,
}

impl Default for PlannerLimits {
    fn default() -> Self {
        Self { cache_bytes: 16 * 1024 * 1024, text_bytes_max: 16 * 1024 }
    }
}

/// Plans texts; one for each thread.
#[derive(Debug)]
pub struct Planner {
    seed: u64,
    limits: PlannerLimits,
    scanner: Scanner,
    texts: Cache,
    forms: Cache,
    counts: PlannerCounts,
    planned: u64,
}

/// How often each way was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannerCounts {
    /// Found by the text itself.
    pub text_hits: u64,
    /// Found by the normal form.
    pub form_hits: u64,
    /// Planned anew.
    pub misses: u64,
}

impl Planner {
    /// An empty planner; `seed` should be hard to guess.
    pub fn new(seed: u64, limits: PlannerLimits) -> Self {
        Self {
            seed,
            limits,
            scanner: Scanner::new(),
            texts: Cache::new(limits.cache_bytes),
            forms: Cache::new(limits.cache_bytes),
            counts: PlannerCounts::default(),
            planned: 0,
        }
    }

    /// The template of `text`, which holds no NUL. Warm, it does not allocate.
    ///
    /// # Errors
    /// The text has no route whatever its values are. Nothing may be sent.
    pub fn plan(&mut self, text: &[u8], world: &World<'_>) -> Result<Rc<Template>, RouteError> {
        self.planned += 1;
        let schema = world.catalog.map_or(Fingerprint::default(), Catalog::fingerprint);
        let scope = Scope { epoch: world.map.epoch(), path: world.search_path.hash, schema };
        let cacheable = text.len() <= self.limits.text_bytes_max;
        let seed = self.seed ^ scope.path ^ scope.epoch.number().rotate_left(32);
        let text_hash = if cacheable { xxh3_64_with_seed(text, seed) } else { 0 };
        if cacheable && let Some(template) = self.texts.get(text_hash, text, scope) {
            self.scanner.forget();
            self.counts.text_hits += 1;
            return Ok(template);
        }
        if let Err(error) = self.scanner.scan(text) {
            if world.map.is_sharded() {
                return Err(error.into());
            }
            return Ok(Rc::new(decide::opaque(text, world)));
        }
        let form_hash = if cacheable { xxh3_64_with_seed(self.scanner.normal(), seed) } else { 0 };
        if cacheable && let Some(template) = self.forms.get(form_hash, self.scanner.normal(), scope)
        {
            self.counts.form_hits += 1;
            return Ok(template);
        }
        self.counts.misses += 1;
        let template = Rc::new(decide::decide(text, self.scanner.literals(), world)?);
        if cacheable {
            if template.own.is_some() || self.scanner.literals().is_empty() {
                self.texts.put(text_hash, text, scope, &template);
            } else {
                self.forms.put(form_hash, self.scanner.normal(), scope, &template);
            }
        }
        Ok(template)
    }

    /// The constants of the text planned last; empty if its template has its
    /// own or needs none.
    pub const fn literals(&self) -> &Literals {
        self.scanner.literals()
    }

    /// How many texts were planned so far. While the number stays, so do the
    /// [`Planner::literals`].
    pub const fn planned(&self) -> u64 {
        self.planned
    }

    /// Counts since the planner was made.
    pub const fn counts(&self) -> PlannerCounts {
        self.counts
    }

    /// Drops every cached plan.
    pub fn clear(&mut self) {
        self.texts = Cache::new(self.limits.cache_bytes);
        self.forms = Cache::new(self.limits.cache_bytes);
    }
}

/// One level: two generations, so that what is used survives.
#[derive(Debug)]
struct Cache {
    young: Generation,
    old: Generation,
    /// Bytes at which the young generation becomes the old one.
    half_bytes: usize,
}

type Generation = (HashMap<u64, Entry, BuildHasherDefault<Identity>>, usize);

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    scope: Scope,
    template: Rc<Template>,
}

impl Entry {
    fn is(&self, bytes: &[u8], scope: Scope) -> bool {
        self.scope == scope && *self.bytes == *bytes
    }

    fn weight(&self) -> usize {
        self.bytes.len() + ENTRY_BYTES + self.template.weight()
    }
}

impl Cache {
    fn new(bytes_max: usize) -> Self {
        Self { young: Generation::default(), old: Generation::default(), half_bytes: bytes_max / 2 }
    }

    fn get(&mut self, hash: u64, bytes: &[u8], scope: Scope) -> Option<Rc<Template>> {
        if let Some(entry) = self.young.0.get(&hash) {
            return entry.is(bytes, scope).then(|| Rc::clone(&entry.template));
        }
        if !self.old.0.get(&hash)?.is(bytes, scope) {
            return None;
        }
        let entry = self.old.0.remove(&hash)?;
        let template = Rc::clone(&entry.template);
        self.insert(hash, entry);
        Some(template)
    }

    fn put(&mut self, hash: u64, bytes: &[u8], scope: Scope, template: &Rc<Template>) {
        let entry = Entry { bytes: bytes.into(), scope, template: Rc::clone(template) };
        if entry.weight() <= self.half_bytes {
            self.insert(hash, entry);
        }
    }

    fn insert(&mut self, hash: u64, entry: Entry) {
        let weight = entry.weight();
        if self.young.1 + weight > self.half_bytes {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.1 += weight;
        if let Some(gone) = self.young.0.insert(hash, entry) {
            self.young.1 = self.young.1.saturating_sub(gone.weight());
        }
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A fair guess of an entry's own size and its share of the table.
const ENTRY_BYTES: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_paths_read_as_the_server_reads_them() {
        let path = |value| {
            SearchPath::parse(value, "ann")
                .map(|path| path.schemas().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(path("\"$user\", public"), Some(vec!["ann".into(), "public".into()]));
        assert_eq!(path("Tenant_A,\"B\"\"c\""), Some(vec!["tenant_a".into(), "B\"c".into()]));
        assert_eq!(path(""), Some(vec![]));
        assert_eq!(path("a b"), None);
        assert_eq!(path("a,"), None);
        assert_eq!(path("\"a"), None);
    }

    #[test]
    fn schema_before_the_catalog_hides_it() {
        let hides = |value| SearchPath::parse(value, "ann").unwrap().hides_catalog();
        assert!(hides("a, pg_catalog"));
        assert!(!hides("pg_catalog, a"));
        assert!(!hides("a, b"));
    }
}
