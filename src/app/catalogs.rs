//! What the control plane knows of a database's catalogs, and its way to the
//! engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::catalog::warnings;
use super::plane::Plane;
use crate::admin::CatalogView;
use crate::catalog::{Catalog, Numbers, Translation};
use crate::control::catalog::{Loader, Report};
use crate::control::monitor::Target;
use crate::shardmap::Map;
use crate::types::{Role, ShardId};

/// The catalogs of one database.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    loader: Option<Loader>,
    catalog: Catalog,
    /// The numbers of each shard's types.
    numbers: BTreeMap<ShardId, Arc<Numbers>>,
    failures: BTreeMap<ShardId, String>,
    warnings: Vec<String>,
}

impl Catalogs {
    /// Takes in a report; what the engine should know, if that has changed.
    fn take(&mut self, shard: ShardId, report: Report, map: &Map) -> Option<Catalog> {
        let (loaded, numbers) = match report {
            Report::Failed(reason) => {
                self.failures.insert(shard, reason);
                return None;
            }
            Report::Loaded(loaded, numbers) => (loaded, numbers),
        };
        self.failures.remove(&shard);
        let renumbered = self.numbers.insert(shard, Arc::clone(&numbers)) != Some(numbers);
        let next = self.catalog.clone().with(shard, loaded);
        let same = next.fingerprint() == self.catalog.fingerprint();
        let translations =
            if renumbered { self.translations(map) } else { next.translations().to_vec() };
        if same && translations == next.translations() {
            return None;
        }
        self.catalog = next.with_translations(translations);
        if !same {
            self.look_closer(map);
        }
        Some(self.catalog.clone())
    }

    /// From each shard's numbers to the home shard's, where they differ.
    fn translations(&self, map: &Map) -> Vec<(ShardId, Arc<Translation>)> {
        let Some(home) = self.numbers.get(&map.home()) else { return Vec::new() };
        let others = self.numbers.iter().filter(|(shard, _)| **shard != map.home());
        let differing =
            others.filter_map(|(shard, own)| Some((*shard, Translation::between(own, home)?)));
        differing.map(|(shard, found)| (shard, Arc::new(found))).collect()
    }

    /// Says what does not fit once all shards are known.
    fn look_closer(&mut self, map: &Map) {
        if !self.catalog.covers(map.shards().iter().map(|shard| shard.id)) {
            return;
        }
        let found = warnings(map, &self.catalog);
        for warning in found.iter().filter(|one| !self.warnings.contains(one)) {
            tracing::warn!(database = map.database(), %warning, "catalog");
        }
        self.warnings = found;
    }

    /// What the console shows.
    pub(super) fn view(&self) -> CatalogView {
        CatalogView {
            catalog: self.catalog.clone(),
            failures: self.failures.clone(),
            warnings: self.warnings.clone(),
        }
    }
}

impl Plane {
    /// Starts following the catalogs of the database with this index.
    pub(super) fn start_catalogs(self: &Arc<Self>, index: usize, map: &Arc<Map>) {
        let plane = Arc::downgrade(self);
        let of = Arc::clone(map);
        let publish: crate::control::catalog::Publish = Arc::new(move |shard, report| {
            let Some(plane) = plane.upgrade() else { return };
            let changed = plane.with_catalogs(index, |catalogs| catalogs.take(shard, report, &of));
            if let Some(catalog) = changed.flatten() {
                plane.tell_engine(of.database(), catalog);
            }
        });
        // The loader before it must end first, or it could still report.
        self.with_catalogs(index, |catalogs| catalogs.loader = None);
        // After a failover another node than the declared one is asked.
        let as_of_now = |mut target: Target| {
            let writes = self.takes_writes(map, &target);
            target.member.role = if writes { Role::Primary } else { Role::Replica };
            target
        };
        let targets = self.targets(map).into_iter().map(as_of_now).collect();
        let loader = Loader::start(targets, &self.schema_changes(), &publish);
        let kept = self.with_catalogs(index, |catalogs| {
            catalogs.loader = Some(loader);
            catalogs.failures.clear();
            let known = catalogs.catalog.clone();
            let kept = known.retain(|shard| map.shard(shard).is_some());
            catalogs.numbers.retain(|shard, _| map.shard(*shard).is_some());
            // Another shard may be home now.
            catalogs.catalog = kept.with_translations(catalogs.translations(map));
            catalogs.look_closer(map);
            catalogs.catalog.clone()
        });
        if let Some(catalog) = kept.filter(|catalog| !catalog.is_empty()) {
            self.tell_engine(map.database(), catalog);
        }
    }

    fn tell_engine(self: &Arc<Self>, database: &str, catalog: Catalog) {
        let (plane, database) = (Arc::clone(self), database.to_owned());
        // In the order in which they came: the tasks of one thread take turns,
        // and so does the engine's queue.
        tokio::spawn(async move { plane.handle().publish_catalog(&database, catalog).await });
    }
}

/// Changes when a schema may have.
pub(super) type SchemaChanges = watch::Receiver<u64>;
