//! `keyway doctor`: what should not be on the shards, and taking it away; and
//! the rights that moves need.
//!
//! It says first what it would do, and does it only with `--fix`. It asks the
//! store which moves are not finished: what they have made stays.

use std::collections::BTreeSet;

use super::cli::{DoctorArgs, Exit};
use super::plan::{Failed, Reach, blocking, failed, finish, say};
use super::route::read_map;
use crate::control::doctor::{self, Kind, Leftover, Misplaced};
use crate::control::mover::checks;
use crate::control::mover::node::Node;
use crate::mover::Journal;
use crate::shardmap::Map;
use crate::store::moves;
use crate::types::ShardId;

/// `keyway doctor`.
pub(super) fn run(args: &DoctorArgs) -> Exit {
    finish(blocking(async {
        let file = read_map(&args.file)?;
        let mut visit = Visit::begin(&file, args).await?;
        match &args.grants {
            Some(role) => visit.grants(role, args.on.as_deref()).await,
            None => visit.examine(args.fix).await,
        }
    }))
}

/// The shards, and what is known of the moves.
struct Visit {
    map: Map,
    unfinished: Vec<Journal>,
    shards: Vec<(ShardId, String, Node)>,
}

impl Visit {
    async fn begin(file: &Map, args: &DoctorArgs) -> Result<Self, Failed> {
        let mut reach = Reach::of(file, &args.file, args.user.as_deref())?;
        let client = reach.home.client().await.map_err(failed)?;
        // Rights are asked for before there is a role that may read the store.
        let forbidden = |error: &moves::TableError| args.grants.is_some() && error.is_forbidden();
        let newest = match moves::newest_map(client, file.database()).await {
            Err(error) if error.is_missing() || forbidden(&error) => None,
            other => other.map_err(failed)?,
        };
        let all = match moves::list(client, file.database()).await {
            Err(error) if error.is_missing() || forbidden(&error) => Vec::new(),
            other => other.map_err(failed)?,
        };
        let open = all.into_iter().map(|stored| stored.journal).filter(|one| !one.is_ended());
        let mut shards = Vec::new();
        for shard in file.shards() {
            let target = reach.access.primaries.get(&shard.id).cloned();
            let target = target.ok_or_else(|| failed(format!("{} has no primary", shard.name)))?;
            shards.push((shard.id, shard.name.clone(), Node::new(target)));
        }
        let map = newest.unwrap_or_else(|| file.clone());
        Ok(Self { map, unfinished: open.collect(), shards })
    }

    async fn examine(&mut self, fix: bool) -> Result<Exit, Failed> {
        let left = self.leftovers().await?;
        let misplaced = self.misplaced().await?;
        let (mut objects, mut rows) = (left.len(), misplaced.len());
        for (_, shard, found) in &left {
            say(&format!("{shard}: {found}"));
            let cures = found.cure();
            cures.iter().for_each(|cure| say(&format!("  cure: {cure};")));
        }
        for found in &misplaced {
            say(&self.text_of(found));
        }
        if fix {
            objects -= self.remove(left).await?;
            rows -= self.clean(&misplaced).await?;
        }
        if objects == 0 && rows == 0 {
            say(if fix { "nothing is left" } else { "nothing is wrong" });
            return Ok(Exit::Done);
        }
        if !fix {
            say("keyway doctor --fix does that; rows are removed where their owner has the same");
        }
        Ok(Exit::Refused)
    }

    async fn leftovers(&mut self) -> Result<Vec<(ShardId, String, Leftover)>, Failed> {
        let unfinished: BTreeSet<u32> = self.unfinished.iter().map(|one| one.id).collect();
        let mut all = Vec::new();
        for (id, name, node) in &mut self.shards {
            let found = doctor::leftovers(node, self.map.database(), &unfinished).await;
            let found = found.map_err(|error| failed(format!("{name}: {error}")))?;
            all.extend(found.into_iter().map(|one| (*id, name.clone(), one)));
        }
        // Over all shards: a replication slot comes free when the subscription
        // is gone that is fed by it.
        all.sort_by(|a, b| a.2.cmp(&b.2));
        Ok(all)
    }

    async fn misplaced(&mut self) -> Result<Vec<Misplaced>, Failed> {
        let ids: Vec<ShardId> = self.shards.iter().map(|(id, _, _)| *id).collect();
        let mut all = Vec::new();
        for (on, name, node) in &mut self.shards {
            if self.map.shard(*on).is_none() {
                continue;
            }
            node.rows("SET statement_timeout = 0").await.map_err(failed)?;
            for owner in ids.iter().filter(|owner| *owner != on) {
                let looked = doctor::strangers(&self.map, (*owner, *on), &self.unfinished);
                let tables = match looked {
                    Ok(tables) => tables,
                    Err(why) => {
                        say(&format!("{name}: rows can't be looked for: {why}"));
                        continue;
                    }
                };
                for table in tables {
                    let found = doctor::count(node, table, (*owner, *on)).await;
                    let found = found.map_err(|error| failed(format!("{name}: {error}")))?;
                    all.extend(found);
                }
            }
        }
        Ok(all)
    }

    fn text_of(&self, found: &Misplaced) -> String {
        let Misplaced { table, on, owner, rows, keys, .. } = found;
        format!(
            "{}: {rows} rows of {table} belong to {}, with keys like {}",
            self.name(*on),
            self.name(*owner),
            keys.join(", ")
        )
    }

    fn name(&self, id: ShardId) -> &str {
        self.shards.iter().find(|(one, _, _)| *one == id).map_or("?", |(_, name, _)| name)
    }

    /// Takes leftovers away; returns how many.
    async fn remove(&mut self, all: Vec<(ShardId, String, Leftover)>) -> Result<usize, Failed> {
        let mut removed = 0;
        for (id, shard, found) in all {
            let Some((_, _, node)) = self.shards.iter_mut().find(|(one, _, _)| *one == id) else {
                continue;
            };
            let mut done = Ok(());
            for cure in found.cure() {
                done = match node.rows(&cure).await {
                    Ok(_) => Ok(()),
                    // A walsender that has just lost its subscription takes a moment.
                    Err(_) if found.kind == Kind::Slot => {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                        node.rows(&cure).await.map(|_| ())
                    }
                    Err(error) => Err(error),
                };
                if done.is_err() {
                    break;
                }
            }
            match done {
                Ok(()) => removed += 1,
                Err(error) => say(&format!("{shard}: {found} still: {error}")),
            }
        }
        Ok(removed)
    }

    /// Removes copies of rows; returns how many tables have none left.
    async fn clean(&mut self, all: &[Misplaced]) -> Result<usize, Failed> {
        let mut cleaned = 0;
        for found in all {
            let mut node = self.take(found.on)?;
            let mut owner = self.take(found.owner)?;
            owner.2.rows("SET statement_timeout = 0").await.map_err(failed)?;
            let removed = doctor::remove_copies(found, &mut node.2, &mut owner.2).await;
            let name = node.1.clone();
            self.shards.extend([node, owner]);
            let removed = removed.map_err(|error| failed(format!("{name}: {error}")))?;
            say(&format!("{name}: {removed} copies of {} removed", found.table));
            if removed == found.rows {
                cleaned += 1;
            } else {
                say(&format!(
                    "{name}: the other {} are on no other shard as they are here: look at them; \
                     nobody reads them through the router",
                    found.rows.saturating_sub(removed)
                ));
            }
        }
        Ok(cleaned)
    }

    fn take(&mut self, id: ShardId) -> Result<(ShardId, String, Node), Failed> {
        let at = self.shards.iter().position(|(one, _, _)| *one == id);
        at.map(|at| self.shards.swap_remove(at)).ok_or_else(|| failed("a shard is missing"))
    }

    /// Says what makes `role` one that moves can log in as, on each shard or on
    /// `only` one.
    async fn grants(&mut self, role: &str, only: Option<&str>) -> Result<Exit, Failed> {
        let mut all = BTreeSet::new();
        for (_, _, node) in &mut self.shards {
            all.extend(owners(node, &self.map).await.map_err(failed)?);
        }
        let is_meant = |name: &str| only.is_none_or(|only| only == name);
        if !self.shards.iter().any(|(_, name, _)| is_meant(name)) {
            return Err((Exit::Refused, format!("the file has no shard {}", only.unwrap_or("?"))));
        }
        for (id, name, node) in &mut self.shards {
            if !is_meant(name) {
                continue;
            }
            let version = node.version().await.map_err(failed)?;
            let shard = self.map.shard(*id);
            let dbname = shard.map_or_else(|| node.target().dbname.clone(), |s| s.dbname.clone());
            let mut owners = owners(node, &self.map).await.map_err(failed)?;
            if owners.is_empty() {
                // The tables are not there yet, and will be theirs.
                owners.extend(all.iter().cloned());
            }
            say(&format!("-- {name}, in the database {dbname}"));
            for statement in checks::rights(role, &dbname, version, &owners) {
                say(&format!("{statement};"));
            }
        }
        Ok(Exit::Done)
    }
}

/// The roles that own the tables which can move.
async fn owners(
    node: &mut Node,
    map: &Map,
) -> Result<Vec<String>, crate::control::mover::node::NodeError> {
    let tables: Vec<String> = map
        .tables()
        .filter(|(_, _, place)| matches!(place, crate::shardmap::Table::Sharded { .. }))
        .map(|(schema, name, _)| {
            let part = crate::control::mover::sql::literal;
            format!("({}, {})", part(schema), part(name))
        })
        .collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT DISTINCT tableowner::text FROM pg_catalog.pg_tables \
         WHERE (schemaname::text, tablename::text) IN ({}) ORDER BY 1",
        tables.join(", ")
    );
    Ok(node.rows(&sql).await?.into_iter().flatten().flatten().collect())
}
