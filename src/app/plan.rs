//! `keyway plan`, `keyway apply` and `keyway rollback`: what a map would move,
//! and moving it.
//!
//! They ask the shards themselves, and leave the work to the routers: a move is
//! written into the store on the home shard, where a router finds it. Stopping
//! the command stops no move.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::access::logins;
use super::catalog::target_of;
use super::cli::{ApplyArgs, Exit, PlanArgs, RollbackArgs};
use super::complain;
use super::route::read_map;
use super::schema::{self, Lack};
use super::secrets::Environment;
use crate::control::mover::Access;
use crate::control::mover::checks::{Sizes, Weight};
use crate::control::mover::node::Node;
use crate::control::mover::submit::{self, Planned, Wanted};
use crate::mover::{BeginError, End, Journal, Phase, Side, Subject, Wish};
use crate::shardmap::{Change, Map};
use crate::store::moves::{self, Stored};
use crate::types::{Role, ShardId};

/// `keyway plan`.
pub(super) fn plan(args: &PlanArgs) -> Exit {
    finish(blocking(async {
        let whole = Whole::of(args).await?;
        let text = if args.json { whole.json() } else { whole.text() };
        say(&text);
        Ok(whole.exit())
    }))
}

/// `keyway apply`.
pub(super) fn apply(args: &ApplyArgs) -> Exit {
    finish(blocking(async {
        let mut whole = Whole::of(&args.plan).await?;
        if args.create_schema && whole.lacks_tables_only() && !args.dry_run {
            whole.create_schema(args.pg_dump.as_deref()).await?;
            whole = Whole::of(&args.plan).await?;
        }
        say(&whole.text());
        if args.dry_run || whole.exit() != Exit::Done {
            return Ok(whole.exit());
        }
        if args.finish {
            whole.under_way.append(&mut whole.switched);
        }
        if args.plan.in_force.is_none() && whole.is_done() {
            return Ok(Exit::Done);
        }
        whole.submit().await?;
        if whole.is_done() {
            return Ok(Exit::Done);
        }
        whole.follow(args.finish).await
    }))
}

/// `keyway rollback`.
pub(super) fn rollback(args: &RollbackArgs) -> Exit {
    finish(blocking(async {
        let file = read_map(&args.file)?;
        let mut reach = Reach::of(&file, &args.file, args.user.as_deref())?;
        let client = reach.home.client().await.map_err(failed)?;
        let all = moves::history(client, file.database()).await.map_err(failed)?;
        let maps: Vec<Map> = all.into_iter().map(|applied| applied.map).collect();
        let (in_force, wanted) = earlier(&maps, args.epoch).map_err(|why| (Exit::Refused, why))?;
        say(&format!(
            "owners as in epoch {}; epoch {} is in force",
            wanted.epoch().number(),
            in_force.epoch().number()
        ));
        let mut whole = Whole::towards(reach, in_force, &wanted, Sizes::Estimated).await?;
        say(&whole.text());
        if args.dry_run || whole.exit() != Exit::Done {
            return Ok(whole.exit());
        }
        whole.submit().await?;
        whole.follow(args.finish).await
    }))
}

/// The map in force, and the one of `epoch`; without it the newest whose owners
/// are others than now.
fn earlier(maps: &[Map], epoch: Option<u64>) -> Result<(Map, Map), String> {
    let in_force = maps.last().ok_or("the home shard knows no map")?;
    let found = match epoch {
        Some(epoch) => maps.iter().find(|map| map.epoch().number() == epoch),
        None => maps.iter().rev().find(|map| !map.same_ownership(in_force)),
    };
    let wanted = found.ok_or_else(|| match epoch {
        Some(epoch) => format!("the home shard knows no map of epoch {epoch}"),
        None => "no earlier map has other owners".to_owned(),
    })?;
    Ok((in_force.clone(), wanted.clone()))
}

pub(super) type Failed = (Exit, String);

pub(super) fn finish(ended: Result<Exit, Failed>) -> Exit {
    ended.unwrap_or_else(|(exit, reason)| complain(exit, reason))
}

pub(super) fn blocking(work: impl Future<Output = Result<Exit, Failed>>) -> Result<Exit, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| (Exit::Failed, error.to_string()))?
        .block_on(work)
}

pub(super) fn say(text: &str) {
    // A closed output leaves the exit code as the only answer.
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failed {
    (Exit::Failed, error.to_string())
}

/// How a command reaches the shards.
pub(super) struct Reach {
    pub(super) access: Access,
    pub(super) home: Node,
}

impl Reach {
    /// By the map of the file at `path`, as `user` if that is given.
    pub(super) fn of(map: &Map, path: &Path, user: Option<&str>) -> Result<Self, Failed> {
        let access = access(map, path.parent().unwrap_or(Path::new("")), user)?;
        let home = access.primaries.get(&access.home).cloned();
        let home = Node::new(home.ok_or_else(|| failed("home has no primary"))?);
        Ok(Self { access, home })
    }
}

/// The plan: every move, and what is no move.
struct Whole {
    access: Access,
    in_force: Map,
    home: Node,
    planned: Vec<Planned>,
    /// Moves that are under way already, and do what the file wants.
    under_way: Vec<u32>,
    /// Moves that are not finished, and whose way back is what is wanted.
    back: Vec<u32>,
    /// Moves that have given their rows away and are not finished.
    switched: Vec<u32>,
    /// What the file changes and no move can.
    others: Vec<String>,
    desired: Map,
    /// Tables that shards lack.
    lacks: Vec<Lack>,
}

impl Whole {
    async fn of(args: &PlanArgs) -> Result<Self, Failed> {
        let desired = read_map(&args.file)?;
        let mut reach = Reach::of(&desired, &args.file, args.user.as_deref())?;
        let stored = {
            let client = reach.home.client().await.map_err(failed)?;
            match moves::newest_map(client, desired.database()).await {
                Err(error) if error.is_missing() => None,
                other => other.map_err(failed)?,
            }
        };
        let in_force = match (stored, &args.in_force) {
            (Some(map), _) => map,
            (None, Some(path)) => read_map(path)?,
            (None, None) => {
                return Err((
                    Exit::Refused,
                    "nothing was moved yet, so the home shard does not know the map in force: \
                     name it by --in-force (a router keeps it in its state_dir)"
                        .to_owned(),
                ));
            }
        };
        let sizes = if args.exact { Sizes::Counted } else { Sizes::Estimated };
        Self::towards(reach, in_force, &desired, sizes).await
    }

    /// What makes the owners of `desired` out of those of `in_force`.
    async fn towards(
        reach: Reach,
        in_force: Map,
        desired: &Map,
        sizes: Sizes,
    ) -> Result<Self, Failed> {
        let Reach { access, home } = reach;
        let mut whole = Self {
            access,
            in_force,
            home,
            planned: Vec::new(),
            under_way: Vec::new(),
            back: Vec::new(),
            switched: Vec::new(),
            others: Vec::new(),
            desired: desired.clone(),
            lacks: Vec::new(),
        };
        for change in whole.in_force.diff(desired) {
            whole.add(&change, sizes).await?;
        }
        whole.note_switched().await?;
        let moves = whole.planned.iter().map(|planned| {
            let Journal { source, target, .. } = planned.journal;
            (ShardId::new(target), ShardId::new(source))
        });
        whole.lacks = schema::lacks(&whole.access, (&whole.in_force, desired), moves).await?;
        Ok(whole)
    }

    /// Finds the moves whose rows are where they are wanted, and at their source
    /// too.
    async fn note_switched(&mut self) -> Result<(), Failed> {
        for Stored { journal, .. } in self.stored().await? {
            let wanted = |planned: &Planned| planned.journal.overlaps(&journal, &self.in_force);
            let moved = match journal.phase {
                Phase::Standing(Side::Target)
                | Phase::Unlinking(End::Moved)
                | Phase::Purging(End::Moved)
                | Phase::Clearing(End::Moved) => true,
                Phase::Guarding
                | Phase::Publishing
                | Phase::Copying
                | Phase::Linking
                | Phase::Verifying
                | Phase::Standing(Side::Source)
                | Phase::Cutting(_)
                | Phase::Unlinking(End::Aborted)
                | Phase::Purging(End::Aborted)
                | Phase::Clearing(End::Aborted)
                | Phase::Ended(_) => false,
            };
            if moved && !self.back.contains(&journal.id) && !self.planned.iter().any(wanted) {
                self.switched.push(journal.id);
            }
        }
        Ok(())
    }

    /// Whether nothing is to be followed.
    const fn is_done(&self) -> bool {
        self.planned.is_empty() && self.under_way.is_empty() && self.back.is_empty()
    }

    /// Whether nothing stands in the way but tables that can be made.
    fn lacks_tables_only(&self) -> bool {
        let reports = || self.planned.iter().map(|planned| &planned.report);
        self.others.is_empty()
            && reports().all(|report| report.is_safe() || report.only_lacks_tables())
            && self.lacks.iter().any(Lack::lacks_tables)
    }

    async fn create_schema(&self, pg_dump: Option<&Path>) -> Result<(), Failed> {
        for lack in self.lacks.iter().filter(|lack| lack.lacks_tables()) {
            schema::create(&self.access, &self.desired, lack, pg_dump).await?;
        }
        Ok(())
    }

    /// Reference tables that a shard lacks which gets rows, or has otherwise.
    fn unfit(&self) -> Vec<String> {
        let gets = |lack: &Lack| {
            let number = lack.shard.number();
            self.planned.iter().any(|planned| planned.journal.target == number)
        };
        self.lacks.iter().filter(|lack| gets(lack)).flat_map(Lack::unfit).collect()
    }

    async fn add(&mut self, change: &Change, sizes: Sizes) -> Result<(), Failed> {
        let (keyspace, subject, to) = match change {
            Change::Other(text) => {
                self.others.push(text.clone());
                return Ok(());
            }
            Change::Tenant { keyspace, tenant, to, .. } => {
                (keyspace, Subject::Tenant(tenant.clone()), to)
            }
            Change::Slots { keyspace, first, last, to, .. } => {
                (keyspace, Subject::Slots { first: first.number(), last: last.number() }, to)
            }
        };
        let fixed = self.in_force.keyspace_named(keyspace).and_then(|found| {
            let schemas = found.is_of_schemas().then(|| BeginError::Schemas(keyspace.clone()));
            let composite = || BeginError::Composite(keyspace.clone());
            schemas.or_else(|| found.is_composite().then(composite))
        });
        if let Some(why) = fixed {
            self.others.push(format!("{change}, but {why}"));
            return Ok(());
        }
        let Some(target) = self.in_force.shard_named(to) else {
            self.others.push(format!(
                "{change}, but the map in force has no shard {to}: add the shard without slots \
                 and reload first"
            ));
            return Ok(());
        };
        let target = target.id;
        let same = |journal: &Journal| {
            journal.keyspace == *keyspace && journal.subject == subject && !journal.is_ended()
        };
        if let Some(found) = self.stored().await?.iter().find(|stored| same(&stored.journal)) {
            let Journal { id, phase, .. } = &found.journal;
            if found.journal.target == target.number() {
                self.under_way.push(*id);
                return Ok(());
            }
            if found.journal.source == target.number() && *phase == Phase::Standing(Side::Target) {
                self.back.push(*id);
                return Ok(());
            }
        }
        let wanted = Wanted { keyspace: keyspace.clone(), subject, target };
        let planned = submit::plan(&self.access, &self.in_force, &wanted, sizes).await;
        self.planned.push(planned.map_err(failed)?);
        Ok(())
    }

    async fn stored(&mut self) -> Result<Vec<Stored>, Failed> {
        let client = self.home.client().await.map_err(failed)?;
        match moves::list(client, &self.access.database).await {
            Err(error) if error.is_missing() => Ok(Vec::new()),
            other => other.map_err(failed),
        }
    }

    fn exit(&self) -> Exit {
        let safe = self.planned.iter().all(|planned| planned.report.is_safe());
        if safe && self.others.is_empty() && self.unfit().is_empty() {
            Exit::Done
        } else {
            Exit::Refused
        }
    }

    fn refused(&self) -> Vec<String> {
        [self.others.clone(), self.unfit()].concat()
    }

    fn shard(&self, number: u16) -> String {
        let shard = self.in_force.shard(ShardId::new(number));
        shard.map_or_else(|| number.to_string(), |shard| shard.name.clone())
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for planned in &self.planned {
            let journal = &planned.journal;
            lines.push(format!(
                "move {} of {} from {} to {}",
                journal.subject,
                journal.keyspace,
                self.shard(journal.source),
                self.shard(journal.target)
            ));
            let mut bytes: u64 = 0;
            for share in &planned.report.shares {
                lines
                    .push(format!("  {}: {} rows, {} bytes", share.table, share.rows, share.bytes));
                bytes = bytes.saturating_add(share.bytes);
            }
            if planned.report.is_safe() {
                lines.push(format!("  copying takes about {} s", bytes / COPIED_BYTES_PER_S + 1));
            }
            for finding in &planned.report.findings {
                let word = match finding.weight {
                    Weight::Refuse => "refused",
                    Weight::Note => "note",
                };
                lines.push(format!("  {word}: {}", finding.what));
                lines.extend(finding.cure.iter().map(|cure| format!("    cure: {cure};")));
            }
        }
        lines.extend(self.under_way.iter().map(|id| format!("move {id} is under way")));
        lines.extend(self.back.iter().map(|id| format!("move {id} goes back")));
        lines.extend(self.refused().iter().map(|what| format!("refused: {what}")));
        let new = self.lacks.iter().filter(|lack| self.in_force.shard(lack.shard).is_none());
        for lack in new.filter(|lack| lack.lacks_tables()) {
            lines.push(format!("note: {lack}; keyway apply --create-schema makes them"));
        }
        if lines.is_empty() {
            lines.push("nothing moves".to_owned());
        }
        lines.extend(self.switched.iter().map(|id| {
            format!(
                "move {id} has moved its rows, which are at their source too: apply --finish or \
                 FINISH MOVE {id} deletes them there"
            )
        }));
        lines.join("\n")
    }

    fn json(&self) -> String {
        let planned: Vec<serde_json::Value> = self
            .planned
            .iter()
            .map(|planned| {
                let shares: Vec<_> = planned
                    .report
                    .shares
                    .iter()
                    .map(|share| {
                        serde_json::json!({
                            "table": share.table.to_string(),
                            "rows": share.rows,
                            "bytes": share.bytes,
                        })
                    })
                    .collect();
                let findings: Vec<_> = planned
                    .report
                    .findings
                    .iter()
                    .map(|finding| {
                        serde_json::json!({
                            "refused": finding.weight == Weight::Refuse,
                            "what": finding.what,
                            "cure": finding.cure,
                        })
                    })
                    .collect();
                serde_json::json!({
                    "subject": planned.journal.subject.to_string(),
                    "keyspace": planned.journal.keyspace,
                    "from": self.shard(planned.journal.source),
                    "to": self.shard(planned.journal.target),
                    "tables": shares,
                    "findings": findings,
                })
            })
            .collect();
        serde_json::json!({
            "database": self.access.database,
            "epoch": self.in_force.epoch().number(),
            "moves": planned,
            "under_way": self.under_way,
            "back": self.back,
            "switched": self.switched,
            "refused": self.refused(),
        })
        .to_string()
    }

    async fn submit(&mut self) -> Result<(), Failed> {
        for id in &self.back {
            let client = self.home.client().await.map_err(failed)?;
            moves::wish(client, *id, Wish::Reverse).await.map_err(failed)?;
        }
        let map = submit::map_in_force(&mut self.home, &self.in_force).await.map_err(failed)?;
        for planned in std::mem::take(&mut self.planned) {
            let wanted = Wanted {
                keyspace: planned.journal.keyspace.clone(),
                subject: planned.journal.subject.clone(),
                target: ShardId::new(planned.journal.target),
            };
            let id = submit::submit(&mut self.home, &self.access, &map, &wanted).await;
            self.under_way.push(id.map_err(failed)?);
        }
        Ok(())
    }

    /// Says how far the moves are until all own their rows, or one has stopped.
    async fn follow(&mut self, finish: bool) -> Result<Exit, Failed> {
        let mut said: HashMap<u32, String> = HashMap::new();
        loop {
            let all = self.stored().await?;
            let ours: Vec<&Stored> = all
                .iter()
                .filter(|stored| {
                    let id = stored.journal.id;
                    self.under_way.contains(&id) || self.back.contains(&id)
                })
                .collect();
            let mut waiting = false;
            for stored in &ours {
                let Stored { journal, progress, .. } = stored;
                let line = format!("move {}: {}: {progress}", journal.id, journal.phase);
                if said.get(&journal.id) != Some(&line) {
                    say(&line);
                    said.insert(journal.id, line);
                }
                if let Some(why) = &journal.stopped {
                    return Err((Exit::Failed, format!("move {} has stopped: {why}", journal.id)));
                }
                let (there, last) = if self.back.contains(&journal.id) {
                    (Phase::Standing(Side::Source), Wish::Abort)
                } else {
                    (Phase::Standing(Side::Target), Wish::Finish)
                };
                let there = journal.phase == there;
                if there && finish && stored.wish != last {
                    let client = self.home.client().await.map_err(failed)?;
                    moves::wish(client, journal.id, last).await.map_err(failed)?;
                }
                waiting |= !(journal.is_ended() || there && !finish);
            }
            if !waiting {
                if !finish {
                    say("the rows have moved; FINISH MOVE <n> on the console deletes them at \
                         their source, REVERSE MOVE <n> takes them back");
                }
                return Ok(Exit::Done);
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
    }
}

fn access(map: &Map, folder: &Path, user: Option<&str>) -> Result<Access, Failed> {
    let environment = Environment::of_process();
    let logins = logins(map, &environment, folder).map_err(failed)?;
    let mut primaries = HashMap::new();
    for node in map.nodes().iter().filter(|node| node.role == Role::Primary) {
        let Some(shard) = map.shard(node.shard) else { continue };
        let mut login = logins.get(&shard.id).cloned().unwrap_or_default();
        if user.is_some() || login.user.is_none() {
            login.user = user.or_else(|| environment.variable("PGUSER")).map(str::to_owned);
            login.password = environment.secret("PGPASSWORD").ok();
        }
        if login.user.is_none() {
            return Err((Exit::Refused, format!("shard {}: no user: give --user", shard.name)));
        }
        if login.password.is_none() {
            login.password = environment.secret("PGPASSWORD").ok();
        }
        let target = target_of(map, shard, node, login);
        primaries.insert(shard.id, target);
    }
    Ok(Access {
        database: map.database().to_owned(),
        home: map.home(),
        primaries,
        tls: map.shards().iter().map(|shard| (shard.id, shard.tls.clone())).collect(),
    })
}

/// What a small server copied of rows with two indexes; a guess at the time,
/// no promise.
const COPIED_BYTES_PER_S: u64 = 4_000_000;
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);
