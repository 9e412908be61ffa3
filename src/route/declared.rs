//! What a session has declared with SET keyway.key and SET keyway.shard: the
//! place of statements whose own text leaves it open.
//!
//! It never overrules what a statement says itself: a statement with another key
//! is refused. Nor does it stand in for the key of a row that is inserted. A
//! comment in the statement comes first. Names, not numbers, are kept: the map
//! may change while the session lasts.

use crate::cluster::{Mark, SlotMark};
use crate::shardmap::{Keyspace, KeyspaceId, Map, Rank, Scratch, Touched};
use crate::types::ShardId;

use super::error::RouteError;
use super::locate::{self, Values};
use super::template::{Keyed, Reason, Route, Targets};

/// The declared shard, and the declared key of each keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    shard: Option<Box<str>>,
    /// By the keyspace's name; without one, of the map's only keyspace.
    keys: Vec<(Option<Box<str>>, Box<str>)>,
}

impl Declared {
    /// True if nothing is declared.
    pub const fn is_empty(&self) -> bool {
        self.shard.is_none() && self.keys.is_empty()
    }

    /// Declares a shard; `None` takes it back.
    pub fn set_shard(&mut self, name: Option<&str>) {
        self.shard = name.map(Into::into);
    }

    /// The declared shard's name.
    pub fn shard(&self) -> Option<&str> {
        self.shard.as_deref()
    }

    /// Declares the key of a keyspace, or of the only one; `None` takes it back.
    pub fn set_key(&mut self, keyspace: Option<&str>, key: Option<&str>) {
        self.keys.retain(|(name, _)| name.as_deref() != keyspace);
        if let Some(key) = key {
            self.keys.push((keyspace.map(Into::into), key.into()));
        }
    }

    /// The key declared under that name.
    pub fn key(&self, keyspace: Option<&str>) -> Option<&str> {
        self.keys.iter().find(|(name, _)| name.as_deref() == keyspace).map(|(_, key)| &**key)
    }

    /// Whether `key` could be declared for the keyspace.
    ///
    /// # Errors
    /// The map has no such keyspace, or several where none is named; the key is
    /// not of its type.
    pub fn check_key(map: &Map, keyspace: Option<&str>, key: &str) -> Result<(), RouteError> {
        if !map.is_sharded() {
            return Ok(());
        }
        let found = match (keyspace, map.keyspaces()) {
            (Some(name), all) => all.iter().find(|one| one.name().eq_ignore_ascii_case(name)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let found = found.ok_or_else(|| bad(keyspace.map_or(UNNAMED, |_| NO_KEYSPACE)))?;
        found.key_from_text(key, &mut Scratch::default())?;
        Ok(())
    }

    /// Whether the shard could be declared.
    ///
    /// # Errors
    /// The map has none of that name.
    pub fn check_shard(map: &Map, name: &str) -> Result<(), RouteError> {
        if map.is_sharded() { shard_named(map, name).map(|_| ()) } else { Ok(()) }
    }

    /// The key declared for `keyspace`.
    pub(super) fn key_of(
        &self,
        keyspace: &Keyspace,
        map: &Map,
    ) -> Result<Option<&str>, RouteError> {
        let named = self.keys.iter().find(|(name, _)| {
            name.as_deref().is_some_and(|name| keyspace.name().eq_ignore_ascii_case(name))
        });
        match (named, self.key(None)) {
            (Some((_, key)), _) => Ok(Some(key)),
            (None, Some(key)) if map.keyspaces().len() == 1 => Ok(Some(key)),
            (None, Some(_)) => Err(bad(UNNAMED)),
            (None, None) => Ok(None),
        }
    }

    /// The moves that what it names is part of.
    fn touched(&self, map: &Map, shard: ShardId) -> Touched {
        if !map.has_moves() {
            return Touched::NONE;
        }
        let mut touched = Touched::NONE;
        let mut any = false;
        for keyspace in map.keyspaces() {
            let Ok(Some(text)) = self.key_of(keyspace, map) else { continue };
            let mut scratch = Scratch::default();
            if let Ok(key) = keyspace.key_from_text(text, &mut scratch) {
                any = true;
                touched = touched.with(map.touched(keyspace, &key, keyspace.slot_of(&key)));
            }
        }
        // A shard alone: any of its keys.
        if any { touched } else { map.touched_on(shard) }
    }

    /// The shard of the declared tenant that is a schema.
    fn tenants_shard(&self, map: &Map) -> Result<Option<ShardId>, RouteError> {
        for keyspace in map.keyspaces().iter().filter(|keyspace| keyspace.is_of_schemas()) {
            if let Some(key) = self.key_of(keyspace, map)? {
                return owner(keyspace, key).map(Some);
            }
        }
        Ok(None)
    }

    /// The one shard that all of it names, if it names one.
    fn only_shard(&self, map: &Map) -> Result<Option<ShardId>, RouteError> {
        let mut found = self.shard().map(|name| shard_named(map, name)).transpose()?;
        for keyspace in map.keyspaces() {
            if let Some(key) = self.key_of(keyspace, map)? {
                let owner = owner(keyspace, key)?;
                if found.replace(owner).is_some_and(|other| other != owner) {
                    return Err(bad(APART));
                }
            }
        }
        Ok(found)
    }
}

/// Where a statement goes that names no sharded table. `None`: where it would
/// without the declaration.
///
/// # Errors
/// The declaration fits no shard of the map, or several.
pub(crate) fn without_key(
    targets: &Targets,
    reason: Reason,
    map: &Map,
    declared: &Declared,
) -> Result<Option<Route>, RouteError> {
    let open = match (reason, targets) {
        (Reason::NoTable | Reason::Temporary | Reason::Session, Targets::Home) => {
            declared.only_shard(map)?
        }
        // Any shard has them: no matter if the declaration names several.
        (Reason::Reference, Targets::AnyShard | Targets::Home) => {
            declared.only_shard(map).unwrap_or_default()
        }
        // The catalogs of a tenant that is a schema are where that is.
        (Reason::Catalog | Reason::Schemas, Targets::Home | Targets::HomeOutside) => {
            declared.tenants_shard(map)?
        }
        _ => None,
    };
    Ok(open.map(|shard| Route {
        targets: Targets::Shard(shard),
        reason: Reason::Declared,
        mark: Mark::Shard,
        touched: declared.touched(map, shard),
    }))
}

/// Where a statement with sharded tables goes. `None`: the declaration is about
/// other keyspaces.
///
/// # Errors
/// The statement names another key or shard, or leaves more open than the
/// declaration says.
pub(crate) fn route(
    keyed: &Keyed,
    values: Values<'_>,
    map: &Map,
    declared: &Declared,
) -> Result<Option<Route>, RouteError> {
    let Some(shard) = declared_shard(keyed, map, declared)? else { return Ok(None) };
    if keyed.single.is_some_and(|single| single != shard) {
        return Err(bad(OTHER));
    }
    let mut mark = None;
    let mut same = true;
    let mut touched = declared.touched(map, shard);
    for source in &keyed.sources {
        let keyspace = map.keyspace(source.keyspace).ok_or(RouteError::SeveralShards)?;
        let mut scratch = Scratch::default();
        let wanted = match declared.key_of(keyspace, map)? {
            Some(text) => Some(keyspace.key_from_text(text, &mut scratch)?),
            None => None,
        };
        locate::each_key(source, values, &mut |key| {
            let (owner, slot) = keyspace.place(&key);
            touched = touched.with(map.touched(keyspace, &key, slot));
            same &= owner == shard && wanted.is_none_or(|wanted| wanted == key);
            let own = Mark::slot(SlotMark::of(keyspace.spread(), slot));
            mark = Some(mark.map_or(own, |other: Mark| other.with(own)));
        })?;
    }
    for interval in &keyed.intervals {
        let keyspace = map.keyspace(interval.keyspace).ok_or(RouteError::SeveralShards)?;
        let Some((low, high)) = locate::ends(interval, values)? else { continue };
        same &= match declared.key_of(keyspace, map)? {
            Some(text) => {
                let mut scratch = Scratch::default();
                let rank = Rank::of(&keyspace.key_from_text(text, &mut scratch)?);
                low.is_none_or(|low| rank >= Some(low))
                    && high.is_none_or(|high| rank <= Some(high))
            }
            None => keyspace.owners_between(low, high).contains(&shard),
        };
    }
    if !same {
        return Err(bad(OTHER));
    }
    let open = keyed.open.is_some() || !keyed.intervals.is_empty();
    let mark = if open || keyed.single.is_some() { None } else { mark };
    let reason = if open || keyed.sources.is_empty() { Reason::Declared } else { Reason::Key };
    let (targets, mark) = (Targets::Shard(shard), mark.unwrap_or(Mark::Shard));
    Ok(Some(Route { targets, reason, mark, touched }))
}

/// The shard that the declaration gives to the statement.
fn declared_shard(
    keyed: &Keyed,
    map: &Map,
    declared: &Declared,
) -> Result<Option<ShardId>, RouteError> {
    let named = declared.shard().map(|name| shard_named(map, name)).transpose()?;
    let mut found = named;
    let mut all = true;
    let mut any = false;
    for id in keyspaces(keyed) {
        let keyspace = map.keyspace(id).ok_or(RouteError::SeveralShards)?;
        any = true;
        match declared.key_of(keyspace, map)? {
            Some(key) => {
                let owner = owner(keyspace, key)?;
                if found.replace(owner).is_some_and(|other| other != owner) {
                    return Err(bad(APART));
                }
            }
            None => all &= keyed.open.as_ref().is_none_or(|open| !open.keyspaces.contains(&id)),
        }
    }
    if !any {
        // A procedure or a block: it has no table that would tell.
        return declared.only_shard(map);
    }
    match (&keyed.open, found) {
        (Some(open), Some(_)) if !all && named.is_none() => Err(open.why.clone()),
        (_, found) => Ok(found),
    }
}

fn keyspaces(keyed: &Keyed) -> impl Iterator<Item = KeyspaceId> {
    let open = keyed.open.iter().flat_map(|open| open.keyspaces.iter().copied());
    let intervals = keyed.intervals.iter().map(|interval| interval.keyspace);
    keyed.sources.iter().map(|source| source.keyspace).chain(open).chain(intervals)
}

fn owner(keyspace: &Keyspace, key: &str) -> Result<ShardId, RouteError> {
    let mut scratch = Scratch::default();
    Ok(keyspace.owner(&keyspace.key_from_text(key, &mut scratch)?))
}

fn shard_named(map: &Map, name: &str) -> Result<ShardId, RouteError> {
    map.shard_named(name)
        .map(|shard| shard.id)
        .ok_or_else(|| bad(&format!("there is no shard called {name}")))
}

fn bad(reason: &str) -> RouteError {
    RouteError::Undeclared { reason: reason.into() }
}

const OTHER: &str = "the statement itself names another key or shard";
const APART: &str = "the session's keys and shard lie apart";
const UNNAMED: &str = "the map does not have one keyspace only: name it, keyway.key.KEYSPACE";
const NO_KEYSPACE: &str = "the map has no keyspace of that name";
