//! A new map takes the place of the one in force: from the operator's file, or
//! from the store on the home shard.
//!
//! Where the store is in use, its newest map is the one of all routers. A file
//! is held against that one, and what it changes goes there before it is
//! served, as the next epoch or not at all; so two routers, or a router and a
//! move, never make two maps of one epoch.

use std::sync::Arc;
use std::time::Duration;

use super::access::logins;
use super::moves::home_of;
use super::plane::{Plane, members};
use crate::admin::Reloaded;
use crate::cluster::Cluster;
use crate::control::maps::Settled;
use crate::shardmap::Map;
use crate::store::moves::{self, Kept};
use crate::types::Epoch;

impl Plane {
    /// Serves `map`, which is in the store, from now on.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        index: usize,
        map: Arc<Map>,
    ) -> Result<(), String> {
        let _alone = self.replacing.lock().await;
        let in_force = self.map_of(index).ok_or("no such database")?;
        if in_force.epoch() >= map.epoch() {
            return Ok(());
        }
        self.install(index, &in_force, map).await
    }

    /// Writes `map` down and serves it. One at a time does this.
    async fn install(
        self: &Arc<Self>,
        index: usize,
        before: &Map,
        map: Arc<Map>,
    ) -> Result<(), String> {
        let logins = {
            let databases = self.databases();
            let served = &databases.get(index).ok_or("no such database")?.served;
            let logins = logins(&map, self.environment(), served.folder())?;
            if let Some(file) = &served.file {
                file.take_over(&map).map_err(|error| error.to_string())?;
            }
            logins
        };
        let published = self.handle().publish_map(map.database(), Arc::clone(&map), logins).await;
        published.map_err(|error| error.to_string())?;
        tracing::info!(
            database = map.database(),
            epoch = map.epoch().number(),
            "a map is in force"
        );
        // The same nodes are watched on: what is known of them holds.
        let watched = map.watches_like(before);
        if let Some(database) = self.databases().get_mut(index) {
            database.served.map = Arc::clone(&map);
            if !watched {
                database.cluster = Arc::new(Cluster::unknown(members(&map)));
                database.monitor = None;
            }
        }
        if !watched {
            self.start_monitor(index, &map);
            self.start_catalogs(index, &map);
            self.renew_directions();
        }
        self.member(index).changed.notify_one();
        Ok(())
    }

    /// Reads a map's file again; `None` if there is no such database.
    pub(super) async fn reload_one(self: &Arc<Self>, index: usize) -> Option<Reloaded> {
        let _alone = self.replacing.lock().await;
        let before = self.map_of(index)?;
        let mut reloaded = Reloaded {
            what: before.database().to_owned(),
            epoch: Some(before.epoch()),
            result: "unchanged".to_owned(),
        };
        if self.databases().get(index)?.served.file.is_none() {
            "unchanged: it has no map file".clone_into(&mut reloaded.result);
            return Some(reloaded);
        }
        match self.read_again(index, &before).await {
            Err(error) => {
                tracing::error!(%error, "reload refused; the map in force serves on");
                reloaded.result = format!("refused: {error}");
            }
            Ok(settled) => {
                if let Some(reason) = &settled.kept_back {
                    tracing::warn!(%reason, "the map in force serves on");
                    reloaded.result = format!("kept the map in force: {reason}");
                }
                let epoch = settled.map.epoch();
                if settled.map != *before {
                    let map = Arc::new(settled.map);
                    if let Err(error) = self.install(index, &before, map).await {
                        tracing::error!(%error, "the new map is not served");
                        reloaded.result = format!("refused: {error}");
                        return Some(reloaded);
                    }
                    reloaded.epoch = Some(epoch);
                    if settled.kept_back.is_none() {
                        reloaded.result = format!("epoch {} is in force", epoch.number());
                    }
                }
                if let Some(database) = self.databases().get_mut(index) {
                    database.served.kept_back = settled.kept_back;
                }
            }
        }
        Some(reloaded)
    }

    /// What is to be served by the file, and is in the store by now.
    async fn read_again(&self, index: usize, in_force: &Map) -> Result<Settled, String> {
        let mut before = in_force.clone();
        for _ in 0..TRIES {
            if let Some(newest) = self.newest_map(in_force).await?
                && newest.epoch() > before.epoch()
            {
                before = newest;
            }
            let settled = self.judge_file(index, &before)?;
            if settled.map == before {
                return Ok(settled);
            }
            let after = &settled.map;
            // A move still needs a shard whose rows are not its own any more.
            let stays = before.shards().iter().all(|shard| after.shard(shard.id).is_some());
            if self.moves.any(before.database()) && !(stays && before.same_ownership(after)) {
                return Err("rows are being moved: owners change by moves only, and shards stay \
                            in the map, until all moves have ended (SHOW MOVES)"
                    .to_owned());
            }
            match self.offer(&settled.map).await? {
                Kept::Written => return Ok(settled),
                Kept::Overtaken | Kept::NewerMap => {}
            }
        }
        Err("other routers and moves make new maps all the time".to_owned())
    }

    fn judge_file(&self, index: usize, before: &Map) -> Result<Settled, String> {
        let mut databases = self.databases();
        let served = &mut databases.get_mut(index).ok_or("no such database")?.served;
        let folder = served.folder().to_owned();
        let file = served.file.as_mut().ok_or("it has no map file")?;
        let settled = file.reload(before, |desired| {
            if desired.database() != before.database() {
                return Err("a reload can't rename the database".to_owned());
            }
            logins(desired, self.environment(), &folder).map(|_| ())
        });
        settled.map_err(|error| error.to_string())
    }

    /// Whether the store is what decides about `map`'s database.
    fn has_store(&self, map: &Map) -> bool {
        map.is_sharded() && home_of(&self.mover_access(map)).is_ok()
    }

    /// The store's newest map; `None` if it has none, or there is no store.
    async fn newest_map(&self, of: &Map) -> Result<Option<Map>, String> {
        if !self.has_store(of) {
            return Ok(None);
        }
        let ask = async {
            let mut home = home_of(&self.mover_access(of)).map_err(|refusal| refusal.message)?;
            let client = home.client().await.map_err(|error| error.to_string())?;
            match moves::newest_map(client, of.database()).await {
                Err(error) if error.is_missing() => Ok(None),
                other => other.map_err(|error| error.to_string()),
            }
        };
        within(ask).await
    }

    /// Makes `map` the store's newest, if the store has one.
    async fn offer(&self, map: &Map) -> Result<Kept, String> {
        if self.newest_map(map).await?.is_none() {
            return Ok(Kept::Written);
        }
        let why = format!("reloaded by {}", self.fleets.name());
        within(self.keep_map(map, &why)).await
    }

    async fn keep_map(&self, map: &Map, why: &str) -> Result<Kept, String> {
        let mut home = home_of(&self.mover_access(map)).map_err(|refusal| refusal.message)?;
        let client = home.client().await.map_err(|error| error.to_string())?;
        moves::keep_map(client, map, why).await.map_err(|error| error.to_string())
    }

    /// The store's newest map is not newer than the one that is served here, and
    /// another one: this router was without the store when it took its file
    /// over. If both say who owns what alike, the file's counts; else the
    /// store's, by which rows were moved.
    pub(super) async fn reconcile(&self, index: usize, newest: &Map) -> Result<(), String> {
        let Some(served) = self.map_of(index) else { return Ok(()) };
        if newest.epoch() > served.epoch() || *newest == *served {
            return Ok(());
        }
        let alike = newest.same_ownership(&served);
        let told = served.data_already_moved() && served.epoch() > newest.epoch();
        let (map, why) = if alike || told {
            ((*served).clone(), format!("the file of {}", self.fleets.name()))
        } else {
            let name = self.fleets.name();
            (newest.clone(), format!("{name} had another map of epoch {}", served.epoch().number()))
        };
        let epoch = if served.epoch() > newest.epoch() && (alike || told) {
            served.epoch()
        } else {
            Epoch::new(served.epoch().number().saturating_add(1))
        };
        tracing::warn!(
            database = served.database(),
            epoch = epoch.number(),
            why,
            "the map that is served here is not the one on the home shard: there is a new one"
        );
        within(self.keep_map(&map.with_epoch(epoch), &why)).await.map(|_| ())
    }
}

async fn within<T>(ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let answer = tokio::time::timeout(HOME_WAIT, ask).await;
    let late = || format!("the home shard gave no answer within {} s", HOME_WAIT.as_secs());
    answer.map_err(|_| late())?.map_err(|error| format!("the home shard: {error}"))
}

/// How long a reload waits for the home shard.
const HOME_WAIT: Duration = Duration::from_secs(5);
/// How often a reload begins again because the map has changed meanwhile.
const TRIES: u32 = 5;
