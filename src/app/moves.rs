//! Moves, as the router runs them: one task for each database looks into the
//! store on its home shard, takes over the maps that moves have made, and runs
//! the moves that nobody else runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::fleet::token_of;
use super::holding::{OwnEngine, Telling};
use super::plane::Plane;
use crate::admin::source::{MoveOrder, MoveView};
use crate::admin::{Outcome, Refusal};
use crate::config::MoveSettings;
use crate::control::mover::node::Node;
use crate::control::mover::submit::{self, SubmitError, Wanted};
use crate::control::mover::{Access, Limits, Run, run};
use crate::mover::queue::{Candidate, Turn, turns};
use crate::mover::{Phase, Wish};
use crate::net::clock;
use crate::shardmap::{Map, SecretRef};
use crate::store::moves::{self, Stored, TableError};
use crate::types::{Millis, Secret, SqlState};

/// The moves of all databases, as they were when last looked at.
#[derive(Debug, Default)]
pub(super) struct Movers {
    seen: Mutex<BTreeMap<String, Vec<Stored>>>,
    /// What the engine is told of them.
    pub(super) telling: Telling,
}

impl Movers {
    /// What the console shows.
    pub(super) fn views(&self) -> Vec<MoveView> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let view = |(database, stored): (&String, &Stored)| MoveView {
            database: database.clone(),
            stored: stored.clone(),
        };
        seen.iter().flat_map(|(name, all)| all.iter().map(move |one| view((name, one)))).collect()
    }

    /// Whether a move of `database` has not ended.
    pub(super) fn any(&self, database: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |all: &Vec<Stored>| all.iter().any(|stored| !stored.journal.is_ended());
        seen.get(database).is_some_and(open)
    }

    fn put(&self, database: &str, all: Vec<Stored>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(database.to_owned(), all);
    }
}

impl Plane {
    /// Starts following the moves of every database that has shards.
    pub(super) fn start_movers(self: &Arc<Self>) {
        for (index, (map, _)) in self.maps().into_iter().enumerate() {
            // One that is unsharded now may get shards by a reload.
            if map.is_sharded() || self.has_file(index) {
                tokio::spawn(follow(Arc::clone(self), index));
            }
        }
    }

    /// How moves reach the primaries of a database.
    pub(super) fn mover_access(&self, map: &Map) -> Access {
        let own = self.mover_login();
        let mut primaries = HashMap::new();
        for mut target in self.targets(map) {
            // Of now: after a failover it is not the one that the map declares.
            if self.takes_writes(map, &target) {
                if let Some((user, password)) = &own {
                    target.user.clone_from(user);
                    target.password.clone_from(password);
                }
                primaries.insert(target.member.shard, target);
            }
        }
        Access {
            database: map.database().to_owned(),
            home: map.home(),
            primaries,
            tls: map.shards().iter().map(|shard| (shard.id, shard.tls.clone())).collect(),
        }
    }

    fn mover_login(&self) -> Option<(String, Option<Secret>)> {
        let settings = &self.config.settings.moves;
        let user = settings.user.clone()?;
        let reference = match (&settings.password_env, &settings.password_file) {
            (Some(name), _) => SecretRef::Env(name.clone()),
            (None, Some(path)) => SecretRef::File(path.clone()),
            (None, None) => SecretRef::Client,
        };
        match self.environment().resolve(&reference, self.config_folder()) {
            Ok(password) => Some((user, password)),
            Err(error) => {
                tracing::error!(%error, "moves.user has no password");
                Some((user, None))
            }
        }
    }

    /// Which database an operator means.
    fn database_meant(&self, name: Option<&str>) -> Result<Arc<Map>, Refusal> {
        let maps = self.maps();
        let mut meant = maps.into_iter().filter(|(map, _)| match name {
            Some(name) => map.database() == name,
            None => map.is_sharded(),
        });
        match (meant.next(), meant.next()) {
            (Some((map, _)), None) => Ok(map),
            (None, _) => Err(Refusal::no_database(name)),
            (Some(_), Some(_)) => Err(refused("several databases have shards: say IN <database>")),
        }
    }

    /// Takes in a move that an operator asks for.
    pub(super) async fn submit_move(&self, order: MoveOrder) -> Result<Outcome, Refusal> {
        let served = self.database_meant(order.database.as_deref())?;
        let access = self.mover_access(&served);
        let mut home = home_of(&access)?;
        let failed = |error: SubmitError| refused(&error.to_string());
        let keyspace = match (&order.keyspace, served.keyspaces()) {
            (Some(name), _) => name.clone(),
            (None, [only]) => only.name().to_owned(),
            (None, _) => return Err(refused("the map has several keyspaces: say OF <keyspace>")),
        };
        let target = served
            .shard_named(&order.target)
            .ok_or_else(|| refused(&format!("the map has no shard {}", order.target)))?
            .id;
        let wanted = Wanted { keyspace, subject: order.subject, target };
        // What is no move leaves no trace, not even the map in the store.
        wanted.begin(&served).map_err(|error| failed(error.into()))?;
        let map = submit::map_in_force(&mut home, &served).await.map_err(failed)?;
        let id = submit::submit(&mut home, &access, &map, &wanted).await.map_err(failed)?;
        Ok(Outcome::Moving(id))
    }

    /// Tells a move what is wanted of it.
    pub(super) async fn wish_of_move(&self, id: u32, wish: Wish) -> Result<Outcome, Refusal> {
        let mut why = None;
        for (map, _) in self.maps() {
            let access = self.mover_access(&map);
            let mut home = home_of(&access)?;
            let asked = async {
                let client = home.client().await.map_err(|error| refused(&error.to_string()))?;
                let failed = |error: TableError| refused(&error.to_string());
                let Some(stored) = moves::load(client, id).await.map_err(failed)? else {
                    return Ok(false);
                };
                stored.journal.admits(wish).map_err(refused)?;
                moves::wish(client, id, wish).await.map_err(failed)?;
                Ok(true)
            };
            match asked.await {
                Ok(true) => return Ok(Outcome::Wished(wish)),
                Ok(false) => {}
                Err(refusal) => why = Some(refusal),
            }
        }
        Err(why.unwrap_or_else(|| Refusal {
            state: SqlState::new("42704"),
            message: format!("no move has the number {id}"),
            hint: Some("SHOW MOVES lists them".to_owned()),
        }))
    }
}

pub(super) fn home_of(access: &Access) -> Result<Node, Refusal> {
    let target = access.primaries.get(&access.home).cloned();
    target.map(Node::new).ok_or_else(|| refused("nobody is known who could log in at home"))
}

fn refused(why: &str) -> Refusal {
    Refusal { state: SqlState::new("55000"), message: why.to_owned(), hint: None }
}

/// Follows the store of one database for ever.
async fn follow(plane: Arc<Plane>, index: usize) {
    let mut running: HashMap<u32, JoinHandle<()>> = HashMap::new();
    let mut home: Option<Node> = None;
    let member = plane.member(index);
    loop {
        // Cancel-safe: a word that was not heard stays one.
        let _ = tokio::time::timeout(LOOK_INTERVAL, member.told.notified()).await;
        let Some(map) = plane.map_of(index) else { return };
        if !map.is_sharded() {
            continue;
        }
        let node = match home.take() {
            Some(node) => Some(node),
            None => plane
                .mover_access(&map)
                .primaries
                .remove(&map.home())
                .map(|target| Node::listening(target, Arc::clone(&member.told))),
        };
        let Some(mut node) = node else { continue };
        match look(&mut node, &map).await {
            Ok((newest, all)) => {
                home = Some(node);
                let journals = all.iter().map(|stored| stored.journal.clone());
                if let Some(newest) = &newest
                    && let Err(error) = plane.reconcile(index, newest).await
                {
                    tracing::warn!(%error, "the map on the home shard is another one");
                }
                let newest = newest.map(Arc::new);
                let told = plane.tell(index, newest.clone(), |told| told.look(journals));
                match (told.await, newest) {
                    (Err(error), _) => {
                        tracing::error!(%error, "the engine does not know of the moves");
                    }
                    (Ok(()), Some(newest)) => settle_for_others(&plane, index, &all, &newest),
                    (Ok(()), None) => {}
                }
                let waiting = start(&plane, index, &all, &mut running);
                if let Some(node) = &mut home
                    && let Err(error) = say_waiting(node, &all, waiting).await
                {
                    tracing::debug!(%error, "moves that wait don't say so");
                }
                plane.moves.put(map.database(), all);
            }
            // Nothing was ever moved here.
            Err(error) if error.is_missing() => home = Some(node),
            Err(error) => tracing::debug!(%error, "the store of moves can't be read"),
        }
    }
}

/// Says to the runners of other routers when nothing runs here any more that is
/// older than their moves' phases.
fn settle_for_others(plane: &Arc<Plane>, index: usize, all: &[Stored], newest: &Arc<Map>) {
    let journals: Vec<_> = all.iter().map(|stored| stored.journal.clone()).collect();
    for journal in plane.member(index).follow(&journals) {
        let own = OwnEngine { plane: Arc::clone(plane), index };
        let newest = Arc::clone(newest);
        tokio::spawn(async move {
            let settled = own.settled(&journal, newest, SETTLE_WAIT).await;
            own.plane.member(own.index).note_settled(&token_of(&journal), settled.is_ok());
        });
    }
}

async fn look(home: &mut Node, map: &Map) -> Result<(Option<Map>, Vec<Stored>), TableError> {
    let client = home.client().await.map_err(|error| TableError::Damaged(error.to_string()))?;
    let newest = moves::newest_map(client, map.database()).await?;
    Ok((newest, moves::list(client, map.database()).await?))
}

/// Starts runners for moves that have none here; returns which moves wait, and
/// for which.
fn start(
    plane: &Arc<Plane>,
    index: usize,
    all: &[Stored],
    running: &mut HashMap<u32, JoinHandle<()>>,
) -> Vec<(u32, Vec<u32>)> {
    running.retain(|_, task| !task.is_finished());
    let most = usize::try_from(plane.config.settings.moves.parallel_max).unwrap_or(1);
    let candidates: Vec<Candidate<'_>> = all
        .iter()
        .map(|stored| Candidate {
            journal: &stored.journal,
            wish: stored.wish,
            runs: running.contains_key(&stored.journal.id),
        })
        .collect();
    let mut waiting = Vec::new();
    for (id, turn) in turns(&candidates, most) {
        match turn {
            Turn::Run => {
                running.insert(id, tokio::spawn(run_one(Arc::clone(plane), index, id)));
            }
            // With none that works here, other routers run what there is.
            Turn::Wait(others) if others.is_empty() => {}
            Turn::Wait(others) => waiting.push((id, others)),
        }
    }
    waiting
}

/// Writes down for which others a move waits that has not begun.
async fn say_waiting(
    home: &mut Node,
    all: &[Stored],
    waiting: Vec<(u32, Vec<u32>)>,
) -> Result<(), TableError> {
    for (id, others) in waiting {
        let found = all.iter().find(|stored| stored.journal.id == id);
        let Some(stored) = found.filter(|stored| stored.journal.phase == Phase::Guarding) else {
            continue;
        };
        let others: Vec<String> = others.iter().map(u32::to_string).collect();
        let text = format!("waits for move {}: moves.parallel_max", others.join(", "));
        if stored.progress != text {
            let client =
                home.client().await.map_err(|error| TableError::Damaged(error.to_string()))?;
            moves::progress(client, id, &text).await?;
        }
    }
    Ok(())
}

async fn run_one(plane: Arc<Plane>, index: usize, id: u32) {
    let routers = Arc::new(OwnEngine { plane: Arc::clone(&plane), index });
    let limits = limits(&plane.config.settings.moves);
    let of = Arc::clone(&plane);
    let access = move || {
        let map = of.map_of(index);
        map.map_or_else(
            || Access {
                database: String::new(),
                home: crate::types::ShardId::new(0),
                primaries: HashMap::new(),
                tls: HashMap::new(),
            },
            |map| of.mover_access(&map),
        )
    };
    let ended = run(id, &Run { access: Box::new(access), routers, limits }).await;
    // Nobody waits for a runner that is gone.
    let told = plane.tell(index, None, |told| match ended {
        Ok(true) => told.end(id),
        Ok(false) | Err(_) => told.abandon(id),
    });
    if let Err(error) = told.await {
        tracing::error!(id, %error, "the engine does not know of the move's end");
    }
    match ended {
        Ok(true) => tracing::info!(id, "move has ended"),
        // Another router runs it; it is asked again later.
        Ok(false) => {
            if let Err(error) = plane.evict_runner(index, id).await {
                tracing::debug!(id, %error, "the move's runner is not known");
            }
            tokio::time::sleep(TAKEN_PAUSE).await;
        }
        Err(error) => {
            tracing::warn!(id, %error, "move stands still");
            tokio::time::sleep(TAKEN_PAUSE).await;
        }
    }
}

fn limits(settings: &MoveSettings) -> Limits {
    let time = |ms: Millis| clock::duration(ms);
    // Who is held is let go before its time is up: the routers' wait, the
    // fence's and the target's are one after the other.
    let hold = time(settings.hold_max);
    Limits {
        trigger_lock: time(settings.lock_max),
        drain: time(settings.drain_max).min(hold / 8),
        apply: time(settings.apply_max).min(hold / 2),
        purge_rows: settings.purge_rows,
        sequence_margin: i64::from(settings.sequence_margin),
        replica_lag: u64::try_from(settings.replica_lag_max.count()).unwrap_or(u64::MAX),
        active: settings.active_max,
        target_bytes: u64::try_from(settings.target_bytes_max.count()).unwrap_or(u64::MAX),
    }
}

/// How often the store is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long what is older than a move's phase is waited for at once.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How long a move that another router runs is left alone.
const TAKEN_PAUSE: Duration = Duration::from_secs(3);
