//! One move from where its journal stands to its end, or until it is taken
//! away.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::node::{Node, NodeError};
use super::sql::Names;
use super::throttle::{Brake, Burden};
use super::work::{Limits, Work};
use crate::control::monitor::Target;
use crate::mover::{Action, Journal, Machine, Outcome, Phase, Side, Subject, Wish};
use crate::shardmap::{Map, Tls, TlsMode};
use crate::store::moves::{self, Kept, Stored, TableError};
use crate::types::{ShardId, SlotId};

/// A future of the routers' that a move waits for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the routers do for a move.
///
/// Nothing here is needed for the safety of rows but [`Routers::switch`] and
/// [`Routers::old_maps_gone`]: the fence stops writers that were not held. What
/// clients read is right only with [`Routers::settle`].
pub trait Routers: Send + Sync {
    /// Lets the routers use `map` and know how far the move is, and waits until
    /// nothing runs any more that began before they did.
    ///
    /// # Errors
    /// Something still does after the limit, and what it is.
    fn settle<'a>(
        &'a self,
        journal: &'a Journal,
        map: Arc<Map>,
        limit: Duration,
    ) -> Waiting<'a, Result<(), String>>;

    /// Holds new transactions of the tenant, and waits until the open ones have
    /// ended.
    ///
    /// # Errors
    /// They did not within the limit, and who they are; nothing is held then.
    fn hold<'a>(&'a self, journal: &'a Journal, limit: Duration)
    -> Waiting<'a, Result<(), String>>;

    /// Lets go what is held.
    fn release<'a>(&'a self, journal: &'a Journal) -> Waiting<'a, ()>;

    /// Lets every router use `map`, and waits until none uses an older one.
    ///
    /// # Errors
    /// It is not certain yet.
    fn switch(&self, map: Arc<Map>) -> Waiting<'_, Result<(), String>>;

    /// How this runner is called at the home shard, if that matters.
    fn runner(&self) -> Option<String> {
        None
    }

    /// Waits until no router can still use a map older than `map`.
    ///
    /// # Errors
    /// It is not certain yet.
    fn old_maps_gone(&self, map: Arc<Map>) -> Waiting<'_, Result<(), String>>;
}

/// How to reach the shards' primaries now.
#[derive(Clone, Debug)]
pub struct Access {
    /// The name of the database, as clients use it.
    pub database: String,
    /// The shard that has the store.
    pub home: ShardId,
    /// Each shard's primary.
    pub primaries: HashMap<ShardId, Target>,
    /// How each shard's nodes are reached by the other servers.
    pub tls: HashMap<ShardId, Tls>,
}

impl Access {
    fn target(&self, shard: u16) -> Option<Target> {
        self.primaries.get(&ShardId::new(shard)).cloned()
    }

    fn tls(&self, shard: u16) -> TlsMode {
        self.tls.get(&ShardId::new(shard)).map_or(TlsMode::Prefer, |tls| tls.mode)
    }
}

/// Everything that a run needs.
pub struct Run {
    /// How to reach the shards; asked again after a failure.
    pub access: Box<dyn Fn() -> Access + Send + Sync>,
    /// The routers.
    pub routers: Arc<dyn Routers>,
    /// How long and how much.
    pub limits: Limits,
}

/// Runs the move `id` until it has ended or another runner has it. True if it
/// has ended.
///
/// Cancel-safe: a later run goes on from the journal.
///
/// # Errors
/// The store can't be asked, or there is no such move, or its shards are not
/// in the map. The move stands where it was.
pub async fn run(id: u32, given: &Run) -> Result<bool, RunError> {
    let access = (given.access)();
    let home = access
        .primaries
        .get(&access.home)
        .cloned()
        .ok_or_else(|| RunError::Shard(access.home.number()))?;
    let mut home = Node::new(home);
    if !lease(&mut home, id, given.routers.as_ref()).await? {
        return Ok(false);
    }
    let Some(stored) = moves::load(home.client().await?, id).await? else {
        return Err(RunError::NoMove(id));
    };
    if stored.journal.is_ended() {
        return Ok(true);
    }
    let mut runner = Runner::new(given, access, home, stored)?;
    let mut pause = PAUSE_MIN;
    loop {
        let wish = runner.wish().await?;
        let action = runner.machine.action(wish);
        tracing::debug!(id, ?action, "move");
        if action == Action::Leave {
            runner.say().await;
            return Ok(runner.machine.journal().is_ended());
        }
        let outcome = runner.act(&action).await;
        let repeats = matches!(outcome, Outcome::Waiting | Outcome::Refused | Outcome::Failed);
        if let Outcome::Failed | Outcome::Refused | Outcome::Impossible(_) = &outcome {
            // The same trouble, again and again, is said once.
            let note = runner.work.note.clone();
            let said = std::mem::replace(&mut runner.warned, note.clone());
            if said == note {
                tracing::debug!(id, ?action, %note, "move");
            } else {
                tracing::warn!(id, phase = %runner.machine.journal().phase, ?action, %note, "move");
            }
        }
        let failed = outcome == Outcome::Failed;
        runner.spend();
        let was = runner.machine.journal().phase;
        runner.machine.on(outcome);
        runner.say_pause(was);
        runner.say().await;
        if repeats && action != Action::Rest {
            tokio::time::sleep(pause).await;
            let most = if action == Action::AwaitCopy { COPY_PAUSE_MAX } else { PAUSE_MAX };
            pause = (pause * 2).min(most);
        } else {
            pause = PAUSE_MIN;
        }
        if failed {
            runner.find_again(given);
        }
    }
}

/// Takes the move for the connection to home, which is called as the routers
/// say, so that others can tell whose it is.
async fn lease(home: &mut Node, id: u32, routers: &dyn Routers) -> Result<bool, RunError> {
    let client = home.client().await?;
    if let Some(name) = routers.runner() {
        let sql = "SELECT pg_catalog.set_config('application_name', $1, false)";
        client.execute(sql, &[&name]).await.map_err(TableError::from)?;
    }
    Ok(moves::lease(client, id).await?)
}

struct Runner<'a> {
    machine: Machine,
    work: Work,
    home: Node,
    version: i64,
    database: String,
    routers: &'a dyn Routers,
    said: String,
    warned: String,
    /// The connection that holds the lease.
    leased: u64,
    /// The map in force, by the store.
    map: Arc<Map>,
    /// The phase for which the routers have settled.
    settled: Option<Phase>,
    /// Counts the rests.
    rests: u32,
    /// Up to when the machine was told what took how long.
    lap: Instant,
}

impl<'a> Runner<'a> {
    fn new(given: &'a Run, access: Access, home: Node, stored: Stored) -> Result<Self, RunError> {
        let journal = stored.journal;
        let node = |shard: u16| access.target(shard).map(Node::new).ok_or(RunError::Shard(shard));
        let work = Work {
            names: Names::new(&access.database, journal.id),
            source: node(journal.source)?,
            target: node(journal.target)?,
            tls: [access.tls(journal.target), access.tls(journal.source)],
            limits: given.limits,
            note: String::new(),
            copying: None,
            making: None,
            index_failed: String::new(),
        };
        Ok(Self {
            machine: Machine::resume(journal),
            work,
            leased: home.connections(),
            home,
            version: stored.version,
            routers: given.routers.as_ref(),
            said: String::new(),
            warned: String::new(),
            // Replaced before it is used.
            map: Arc::new(Map::unsharded(
                &access.database,
                crate::shardmap::Endpoint::new("", 0),
                Vec::new(),
            )),
            database: access.database,
            settled: None,
            rests: 0,
            lap: Instant::now(),
        })
    }

    /// Where the shards are may have changed.
    fn find_again(&mut self, given: &Run) {
        let access = (given.access)();
        let journal = self.machine.journal();
        if let (Some(source), Some(target)) =
            (access.target(journal.source), access.target(journal.target))
        {
            self.work.source = Node::new(source);
            self.work.target = Node::new(target);
        }
    }

    /// What the operator wants; asked only where it can matter, because in the
    /// cutover clients wait.
    async fn wish(&mut self) -> Result<Wish, RunError> {
        if let Phase::Cutting(_) = self.machine.journal().phase
            && self.machine.journal().stopped.is_none()
        {
            return Ok(Wish::Run);
        }
        let id = self.machine.journal().id;
        let client = self.home.client().await?;
        let stored = moves::load(client, id).await?.ok_or(RunError::NoMove(id))?;
        if self.leased != self.home.connections() {
            // The lease went with its connection.
            if !lease(&mut self.home, id, self.routers).await? {
                return Err(RunError::Overtaken);
            }
            self.leased = self.home.connections();
        }
        Ok(stored.wish)
    }

    /// Tells the machine what has passed since it was told last.
    fn spend(&mut self) {
        let took = self.lap.elapsed();
        self.lap = Instant::now();
        self.machine.spend(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Says for how long a cutover that has come to its end has held writers.
    fn say_pause(&self, was: Phase) {
        let journal = self.machine.journal();
        if let (Phase::Cutting(_), Phase::Standing(owner)) = (was, journal.phase)
            && let (0, Some(pause)) = (journal.tries, journal.times.pause)
        {
            let shard = journal.shard(owner);
            tracing::info!(id = journal.id, shard, %pause, "the rows have a new owner");
        }
    }

    /// Says how far the move is, if that is news.
    async fn say(&mut self) {
        let cutting = matches!(self.machine.journal().phase, Phase::Cutting(_));
        if self.said == self.work.note || cutting {
            return;
        }
        let note = self.work.note.clone();
        let id = self.machine.journal().id;
        if let Ok(client) = self.home.client().await
            && moves::progress(client, id, &note).await.is_ok()
        {
            self.said = note;
        }
    }

    async fn act(&mut self, action: &Action) -> Outcome {
        let journal = self.machine.journal().clone();
        if let Err(outcome) = self.prepare(action, &journal).await {
            return outcome;
        }
        let map = Arc::clone(&self.map);
        let keyspace = Work::keyspace(&map, &journal);
        let none = || Outcome::Impossible(format!("the map has no keyspace {}", journal.keyspace));
        match action {
            Action::Keep(next) => self.keep(next).await,
            Action::Switch(next, owner) => self.switch(next, *owner).await,
            Action::Seize(side) => self.work.seize(&journal, *side).await,
            Action::Guard(side) => match keyspace {
                Some(keyspace) => self.work.guard(&journal, keyspace, *side).await,
                None => none(),
            },
            Action::Publish(side) => match keyspace {
                Some(keyspace) => self.work.publish(&journal, keyspace, *side).await,
                None => none(),
            },
            Action::Subscribe(side) => self.work.subscribe(&journal, *side).await,
            Action::AwaitCopy => match keyspace {
                Some(keyspace) => self.work.await_copy(&journal, keyspace).await,
                None => none(),
            },
            Action::Verify => match keyspace {
                Some(keyspace) => self.work.verify(&journal, keyspace).await,
                None => none(),
            },
            Action::Inspect => match journal.owner_in(&self.map) {
                Some(owner) => self.work.sight(owner).await,
                None => none(),
            },
            Action::Examine(from) => self.work.examine(&journal, *from).await,
            Action::Hold => self.hold(&journal).await,
            Action::Fence(side, token) => self.work.fence(&journal, *side, *token).await,
            Action::AwaitMarker(side, token) => self.work.await_marker(*side, *token).await,
            Action::Settle(to) => self.work.settle(&journal, *to).await,
            Action::Announce => self.heard(self.routers.switch(map).await),
            Action::Open(side, token) => self.work.open(&journal, *side, *token).await,
            Action::Unsettle(to) => self.work.unsettle(*to).await,
            Action::Unfence(side, token) => self.work.unfence(&journal, *side, *token).await,
            Action::Release => {
                self.routers.release(&journal).await;
                Outcome::Done
            }
            Action::FenceBoth => self.work.fence_both(&journal).await,
            Action::Unsubscribe(side) => self.work.unsubscribe(&journal, *side).await,
            Action::Unpublish(side) => self.work.unpublish(*side).await,
            Action::Purge(side) => match keyspace {
                Some(keyspace) => self.work.purge(&journal, keyspace, *side).await,
                None => none(),
            },
            Action::AwaitLeases => self.heard(self.routers.old_maps_gone(map).await),
            Action::Unguard(side) => self.work.unguard(&journal, *side).await,
            Action::Rest => self.rest(&journal).await,
            Action::Leave => Outcome::Done,
        }
    }

    /// What an action presupposes; the outcome if it can't be had.
    async fn prepare(&mut self, action: &Action, journal: &Journal) -> Result<(), Outcome> {
        if (needs_map(action) || needs_settled(action, journal))
            && let Err(error) = self.read_map().await
        {
            self.work.note = error.to_string();
            return Err(Outcome::Failed);
        }
        if needs_settled(action, journal)
            && let Err(why) = self.settle(journal).await
        {
            self.work.note = why;
            return Err(Outcome::Waiting);
        }
        if needs_settled(action, journal) {
            let burden = match journal.phase {
                Phase::Purging(_) => Burden::Purge,
                _ => Burden::Copy,
            };
            match self.work.pressure(burden).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    self.work.note = format!("waits: {why}");
                    return Err(Outcome::Waiting);
                }
                Err((side, error)) => return Err(self.work.failed(side, &error)),
            }
        }
        if is_watched(action) {
            match self.work.watch(journal).await {
                Ok(None) => {}
                Ok(Some(why)) => return Err(Outcome::Impossible(why)),
                Err((side, error)) => return Err(self.work.failed(side, &error)),
            }
        }
        Ok(())
    }

    /// What began before a shard gets rows that it does not own, or loses them,
    /// would read them twice, or not at all.
    async fn settle(&mut self, journal: &Journal) -> Result<(), String> {
        if self.settled == Some(journal.phase) {
            return Ok(());
        }
        let (map, limit) = (Arc::clone(&self.map), self.work.limits.drain);
        self.routers.settle(journal, map, limit).await?;
        self.settled = Some(journal.phase);
        Ok(())
    }

    async fn rest(&mut self, journal: &Journal) -> Outcome {
        let tries = journal.tries.min(REST_DOUBLINGS);
        let shift = if tries > 0 { 1_u32.checked_shl(tries).unwrap_or(1) } else { 1 };
        self.rests = self.rests.wrapping_add(1);
        let looks = tries == 0 && journal.stopped.is_none() && self.rests.is_multiple_of(RESTS);
        let looked = match journal.phase {
            // The servers would copy on.
            Phase::Copying if looks => self.work.brake(journal, Brake::On).await,
            Phase::Standing(owner) if looks => self.work.behind(owner).await,
            _ => Ok(()),
        };
        if let Err(error) = looked {
            tracing::debug!(id = journal.id, %error, "move");
        }
        tokio::time::sleep(REST * shift).await;
        Outcome::Done
    }

    fn heard(&mut self, answer: Result<(), String>) -> Outcome {
        match answer {
            Ok(()) => Outcome::Done,
            Err(why) => {
                self.work.note = why;
                Outcome::Waiting
            }
        }
    }

    async fn hold(&mut self, journal: &Journal) -> Outcome {
        // Long work of old servers is done before anybody waits.
        let from = journal_from(journal);
        if let Ok(true) = self.work.turns().await
            && let Err(error) = self.work.advance(from.other()).await
        {
            return self.work.failed(from.other(), &error);
        }
        // The pause must not pay for connections.
        for side in [Side::Source, Side::Target] {
            if let Err(error) = self.work.node(side).rows("SELECT 1").await {
                return self.work.failed(side, &error);
            }
        }
        // From here on writers may wait.
        self.lap = Instant::now();
        match self.routers.hold(journal, self.work.limits.drain).await {
            Ok(()) => Outcome::Done,
            Err(blockers) => {
                self.work.note = blockers;
                Outcome::Refused
            }
        }
    }

    async fn read_map(&mut self) -> Result<(), TableError> {
        let client = self.home.client().await.map_err(table_error)?;
        let newest = moves::newest_map(client, &self.database).await?;
        let newest = newest.ok_or_else(|| TableError::Damaged("it holds no map".to_owned()))?;
        self.map = Arc::new(newest);
        Ok(())
    }

    async fn keep(&mut self, next: &Journal) -> Outcome {
        let kept = match self.home.client().await {
            Ok(client) => moves::keep(client, next, self.version).await,
            Err(error) => Err(table_error(error)),
        };
        self.kept(kept)
    }

    async fn switch(&mut self, next: &Journal, owner: Side) -> Outcome {
        if let Err(error) = self.read_map().await {
            self.work.note = error.to_string();
            return Outcome::Failed;
        }
        let shard = ShardId::new(next.shard(owner));
        if next.owner_in(&self.map) == Some(owner) {
            // Written before; only the answer was lost.
            let written = match self.home.client().await {
                Ok(client) => moves::written(client, next, self.version).await,
                Err(error) => Err(table_error(error)),
            };
            return self.kept(written);
        }
        let map = match &next.subject {
            Subject::Tenant(key) => self.map.with_tenant_on(&next.keyspace, key, shard),
            Subject::Slots { first, last } => {
                let slots = (SlotId::new(*first), SlotId::new(*last));
                self.map.with_slots_on(&next.keyspace, slots, shard)
            }
        };
        let Some(map) = map else {
            self.work.note = "the map has no place for what moves".to_owned();
            return Outcome::Failed;
        };
        let why = format!("move {}: {} to shard {}", next.id, next.subject, shard.number());
        let kept = match self.home.client().await {
            Ok(client) => moves::switch(client, next, self.version, &map, &why).await,
            Err(error) => Err(table_error(error)),
        };
        self.kept(kept)
    }

    fn kept(&mut self, kept: Result<Kept, TableError>) -> Outcome {
        match kept {
            Ok(Kept::Written) => {
                self.version += 1;
                Outcome::Done
            }
            Ok(Kept::Overtaken) => Outcome::Lost,
            // Another move has switched meanwhile; the next try has its map.
            Ok(Kept::NewerMap) => Outcome::Failed,
            Err(error) => {
                self.work.note = error.to_string();
                self.home.disconnect();
                Outcome::Failed
            }
        }
    }
}

/// Whether an action goes by the map, as it is now.
const fn needs_map(action: &Action) -> bool {
    matches!(
        action,
        Action::Guard(_)
            | Action::Publish(_)
            | Action::Verify
            | Action::Purge(_)
            | Action::Inspect
            | Action::Announce
            | Action::AwaitLeases
    )
}

/// Whether an action lets a shard have rows that it does not own, or takes them
/// away.
const fn needs_settled(action: &Action, journal: &Journal) -> bool {
    match action {
        Action::Subscribe(side) => {
            matches!(journal.phase, Phase::Copying) && matches!(side, Side::Target)
        }
        Action::Purge(_) => true,
        _ => false,
    }
}

/// Whether an action needs tables and streams to be what they were.
const fn is_watched(action: &Action) -> bool {
    matches!(
        action,
        Action::Publish(_)
            | Action::Subscribe(_)
            | Action::AwaitCopy
            | Action::Verify
            | Action::Examine(_)
    )
}

const fn journal_from(journal: &Journal) -> Side {
    match journal.phase {
        Phase::Cutting(from) => from,
        _ => Side::Source,
    }
}

fn table_error(error: NodeError) -> TableError {
    match error {
        NodeError::Postgres(error) => TableError::Postgres(error),
        NodeError::Late(_) | NodeError::Parted | NodeError::NoPassword => {
            TableError::Damaged(error.to_string())
        }
    }
}

/// Why a run has ended before the move.
#[derive(Debug)]
pub enum RunError {
    /// The home shard can't be reached.
    Node(NodeError),
    /// The store can't be read.
    Store(TableError),
    /// There is no move with this number.
    NoMove(u32),
    /// The map in force has no such shard.
    Shard(u16),
    /// Another runner has taken the move over.
    Overtaken,
}

impl From<NodeError> for RunError {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<TableError> for RunError {
    fn from(error: TableError) -> Self {
        Self::Store(error)
    }
}

impl std::fmt::Display for RunError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(error) => write!(f, "home: {error}"),
            Self::Store(error) => write!(f, "home: {error}"),
            Self::NoMove(id) => write!(f, "there is no move {id}"),
            Self::Shard(number) => write!(f, "the map has no shard {number}"),
            Self::Overtaken => f.write_str("another runner has the move"),
        }
    }
}

impl std::error::Error for RunError {}

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A copy is small as often as not.
const COPY_PAUSE_MAX: Duration = Duration::from_millis(250);
/// Every so many rests it is looked at how the move stands.
const RESTS: u32 = 5;
const REST: Duration = Duration::from_millis(200);
/// The rest after an undone cutover doubles so often.
const REST_DOUBLINGS: u32 = 6;
