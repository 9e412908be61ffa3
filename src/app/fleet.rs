//! This router as one of several: it keeps a lease on the home shard, and says
//! what the others show there.
//!
//! What the rows mean is [`crate::mover::fleet`]'s; what clients notice of a
//! lease that has lapsed is the engine's.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64;

use super::moves::home_of;
use super::plane::Plane;
use crate::admin::source::RouterView;
use crate::control::mover::node::Node;
use crate::engine::{Lease, Precision};
use crate::mover::fleet::{Fleet, Known, RouterRow, Tenure};
use crate::mover::{Journal, Phase};
use crate::net::clock;
use crate::shardmap::Map;
use crate::store::moves::{self, TableError};
use crate::store::routers::{self, Lease as Given};
use crate::types::{Epoch, Millis};

/// The fleets that this router belongs to, by the index of their database.
#[derive(Debug)]
pub(super) struct Fleets {
    id: String,
    /// Names the processes that this one can see; empty if nothing does.
    processes: String,
    name: String,
    members: Mutex<HashMap<usize, Arc<Member>>>,
}

impl Fleets {
    /// A router that listens at `port`, and is told apart from all others.
    pub(super) fn new(port: Option<u16>) -> Self {
        let (pid, processes) = (std::process::id(), processes());
        let mut dice = [0_u8; 8];
        // Without randomness the process still has a number of its own.
        let _ = getrandom::fill(&mut dice);
        let digits: String = dice.iter().map(|byte| format!("{byte:02x}")).collect();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self {
            id: format!("{processes}/{pid}/{}/{digits}", begin_of(pid).unwrap_or_default()),
            processes,
            name: port.map_or_else(
                || format!("{host} pid {pid}"),
                |port| format!("{host}:{port} pid {pid}"),
            ),
            members: Mutex::default(),
        }
    }

    /// Whether the process behind a row was one of this machine, and has ended:
    /// it sends nothing any more, whatever its lease.
    fn has_ended(&self, row: &RouterRow) -> bool {
        let mut parts = row.id.split('/');
        let (place, pid, begin) = (parts.next(), parts.next(), parts.next());
        let pid = pid.and_then(|pid| pid.parse().ok());
        match (place, pid, begin) {
            (Some(place), Some(pid), Some(begin)) if !place.is_empty() && !begin.is_empty() => {
                place == self.processes && begin_of(pid).as_deref() != Some(begin)
            }
            _ => false,
        }
    }

    /// Names this router for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the console shows.
    pub(super) fn views(&self, names: &[String]) -> Vec<RouterView> {
        let now = clock::now();
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut views = Vec::new();
        for (index, member) in members.iter() {
            let Some(database) = names.get(*index) else { continue };
            let seen = member.seen();
            views.extend(seen.all().map(|known| RouterView {
                database: database.clone(),
                row: known.row.clone(),
                own: known.row.id == self.id,
                lapsed: known.has_lapsed(now),
            }));
        }
        views.sort_by(|a, b| (&a.database, &a.row.name).cmp(&(&b.database, &b.row.name)));
        views
    }
}

/// Names the processes among which a process's number says which it is: those
/// of one boot of one machine and one namespace. Empty where the system does
/// not tell.
fn processes() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let space: String = space.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    if boot.trim().is_empty() || space.is_empty() {
        return String::new();
    }
    format!("{:016x}", xxh3_64(format!("{} {space}", boot.trim()).as_bytes()))
}

/// When a process began, in the system's ticks; `None` if there is none.
fn begin_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything; the state comes first.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // Ended, but not fetched by its parent yet.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

/// This router among those of one database.
#[derive(Debug, Default)]
pub(super) struct Member {
    seen: Mutex<Fleet>,
    settled: Mutex<BTreeSet<String>>,
    settling: Mutex<BTreeSet<String>>,
    /// Rows move: the lease is short.
    moving: AtomicBool,
    /// The row shall be written again.
    pub(super) changed: Notify,
    /// The store shall be looked at.
    pub(super) told: Arc<Notify>,
    own: tokio::sync::Mutex<Own>,
    /// Whoever waits for the others asks over this connection.
    asking: tokio::sync::Mutex<Option<Node>>,
}

/// The router's own row.
#[derive(Debug, Default)]
struct Own {
    home: Option<Node>,
    tenure: Option<Tenure>,
    beat: i64,
    left: bool,
    /// The last answer did not come in time.
    late: bool,
    /// What went wrong last, which is said once.
    trouble: String,
}

impl Member {
    fn seen(&self) -> Fleet {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn look(&self, rows: Vec<RouterRow>) -> Fleet {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look(rows, clock::now());
        seen.clone()
    }

    fn settled(&self) -> Vec<String> {
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.iter().cloned().collect()
    }

    /// Nothing runs here any more that is older than what `token` names.
    pub(super) fn note_settled(&self, token: &str, done: bool) {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
        if done {
            let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
            settled.insert(token.to_owned());
            self.changed.notify_one();
        }
    }

    /// Takes in how far the moves are; returns those for which this router
    /// shall say that nothing older runs here any more.
    pub(super) fn follow(&self, journals: &[Journal]) -> Vec<Journal> {
        let open: Vec<&Journal> = journals.iter().filter(|journal| !journal.is_ended()).collect();
        if self.moving.swap(!open.is_empty(), Ordering::Relaxed) == open.is_empty() {
            self.changed.notify_one();
        }
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        settled.retain(|token| open.iter().any(|journal| token_of(journal) == *token));
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let waits =
            |journal: &&&Journal| matches!(journal.phase, Phase::Copying | Phase::Purging(_));
        let wanted = open.iter().filter(waits);
        wanted
            .filter(|journal| {
                let token = token_of(journal);
                !settled.contains(&token) && settling.insert(token)
            })
            .map(|journal| (*journal).clone())
            .collect()
    }
}

/// What a router says it has settled for.
pub(super) fn token_of(journal: &Journal) -> String {
    format!("{}:{}", journal.id, journal.phase)
}

/// Whom a move waits for.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// Nobody has an older map.
    Epoch(Epoch),
    /// Nor does anything run that is older than what this names.
    Settled(String, Epoch),
    /// All would be through with a new map soon.
    Ready(Epoch),
}

impl Plane {
    /// This router among those of the database with this index.
    pub(super) fn member(&self, index: usize) -> Arc<Member> {
        let mut members = self.fleets.members.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(members.entry(index).or_default())
    }

    /// Keeps the lease of every database that has shards.
    pub(super) fn start_leases(self: &Arc<Self>) {
        for index in 0..self.maps().len() {
            tokio::spawn(keep_lease(Arc::clone(self), index));
        }
    }

    /// The router ends: nobody needs to wait for it any more.
    pub(super) async fn leave_fleets(&self) {
        for (index, (map, _)) in self.maps().into_iter().enumerate() {
            let member = self.member(index);
            let mut own = member.own.lock().await;
            own.left = true;
            if own.tenure.is_none() {
                continue;
            }
            let row = self.row(&map, own.beat, Millis::ZERO, &member);
            if let Some(home) = &mut own.home {
                let forget = async {
                    let client = home.client().await.map_err(|error| error.to_string())?;
                    let forgotten = routers::forget(client, map.database(), &row).await;
                    forgotten.map_err(|error| error.to_string())
                };
                // Else it is forgotten when its lease is over.
                let _ = tokio::time::timeout(PARTING, forget).await;
            }
        }
    }

    /// Waits until the other routers are as `wanted`.
    ///
    /// # Errors
    /// It is not certain after `limit`, and because of whom.
    pub(super) async fn await_routers(
        &self,
        index: usize,
        wanted: &Wanted,
        limit: Duration,
    ) -> Result<(), String> {
        let member = self.member(index);
        let map = self.map_of(index).ok_or("no such database")?;
        let begun = clock::now();
        loop {
            let fleet = {
                let mut asking = member.asking.lock().await;
                let mut home = match asking.take() {
                    Some(home) => home,
                    None => home_of(&self.mover_access(&map)).map_err(|refusal| refusal.message)?,
                };
                let client = home.client().await.map_err(|error| error.to_string())?;
                let looked = routers::look(client, map.database()).await;
                let rows = looked.map_err(|error| error.to_string())?;
                *asking = Some(home);
                member.look(rows)
            };
            let now = clock::now();
            let in_the_way = match wanted {
                Wanted::Epoch(epoch) => fleet.behind(*epoch, now),
                Wanted::Settled(token, epoch) => fleet.unsettled(token, *epoch, now),
                Wanted::Ready(epoch) => fleet.doubtful(*epoch, SOON, now),
            };
            let others: Vec<&&RouterRow> = in_the_way
                .iter()
                .filter(|row| row.id != self.fleets.id && !self.fleets.has_ended(row))
                .collect();
            if others.is_empty() {
                return Ok(());
            }
            if clock::duration(now.since(begun)) >= limit {
                let names: Vec<String> = others.iter().map(|row| name_of(row)).collect();
                return Err(format!("routers are not ready: {}", names.join(", ")));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deletes the rows of routers that are gone.
    async fn forget_gone(
        &self,
        client: &tokio_postgres::Client,
        map: &Map,
        fleet: &Fleet,
    ) -> Result<(), TableError> {
        let now = clock::now();
        for known in fleet.all() {
            let (row, lapsed) = (&known.row, known.has_lapsed(now));
            if lapsed || self.fleets.has_ended(row) {
                tracing::warn!(router = row.name, lapsed, "a router is gone: it is forgotten");
                routers::forget(client, map.database(), row).await?;
            }
        }
        Ok(())
    }

    /// Another runner has the move `id`. If that is a router whose lease is
    /// over, its connection is closed: it may stand still for ever.
    pub(super) async fn evict_runner(&self, index: usize, id: u32) -> Result<(), String> {
        let map = self.map_of(index).ok_or("no such database")?;
        self.await_routers(index, &Wanted::Epoch(Epoch::new(0)), Duration::ZERO).await?;
        let seen = self.member(index).seen();
        let now = clock::now();
        let mut home = home_of(&self.mover_access(&map)).map_err(|refusal| refusal.message)?;
        let client = home.client().await.map_err(|error| error.to_string())?;
        let runner = moves::runner(client, id).await.map_err(|error| error.to_string())?;
        let Some((pid, name)) = runner else { return Ok(()) };
        let Some(router) = name.strip_prefix(RUNNER) else { return Ok(()) };
        let live = |known: &Known| {
            known.row.id == router && !known.has_lapsed(now) && !self.fleets.has_ended(&known.row)
        };
        if router == self.fleets.id || seen.all().any(live) {
            return Ok(());
        }
        tracing::warn!(
            id,
            router,
            "the router that ran the move is gone: its connection is closed"
        );
        moves::evict(client, pid).await.map_err(|error| error.to_string())
    }

    /// How this router is called at the home shard while it runs a move.
    pub(super) fn runner_name(&self) -> Option<String> {
        let name = format!("{RUNNER}{}", self.fleets.id);
        let leased = self.config.settings.moves.lease > Millis::ZERO;
        // The server would cut a longer one off, and it would name nobody.
        (leased && name.len() < APPLICATION_NAME_MAX).then_some(name)
    }

    fn row(&self, map: &Map, beat: i64, lease: Millis, member: &Member) -> RouterRow {
        RouterRow {
            id: self.fleets.id.clone(),
            name: self.fleets.name.clone(),
            epoch: map.epoch(),
            lease,
            beat,
            settled: member.settled(),
            quiet_s: 0,
        }
    }
}

fn name_of(row: &RouterRow) -> String {
    let RouterRow { name, epoch, lease, quiet_s, .. } = row;
    format!("{name} (epoch {}, seen {quiet_s} s ago, lease of {lease})", epoch.number())
}

/// Keeps this router's lease for one database, for ever.
async fn keep_lease(plane: Arc<Plane>, index: usize) {
    let member = plane.member(index);
    loop {
        let pause = renew(&plane, index, &member).await;
        // Cancel-safe: a wish that was not heard stays one.
        let _ = tokio::time::timeout(pause, member.changed.notified()).await;
    }
}

/// Renews it once; returns after how long it is to be renewed again.
async fn renew(plane: &Arc<Plane>, index: usize, member: &Member) -> Duration {
    let (Some(map), Some(lease)) = (plane.map_of(index), plane.lease_of(index)) else {
        return AGAIN;
    };
    let settings = &plane.config.settings.moves;
    if !map.is_sharded() || settings.lease == Millis::ZERO {
        lease.waive();
        return UNNEEDED;
    }
    let moving = member.moving.load(Ordering::Relaxed);
    let length = if moving { settings.lease } else { settings.lease_idle.max(settings.lease) };
    let mut own = member.own.lock().await;
    if own.left {
        return UNNEEDED;
    }
    let precision = if moving { Precision::Exact } else { Precision::Coarse };
    // The first one is waited for by all clients, and may have tables to make.
    let limit = match own.tenure {
        Some(_) => clock::duration(length),
        None => FIRST,
    };
    let asked =
        tokio::time::timeout(limit, own.ask(plane, &map, member, (length, &lease, precision)));
    let trouble = match asked.await.unwrap_or(Err(Trouble::Late(limit))) {
        Ok(Given::Granted) => {
            own.trouble.clear();
            own.late = false;
            return clock::duration(settings.lease) / 3;
        }
        Ok(Given::Behind) => {
            // Whoever follows the store brings the newest map, and pokes.
            member.told.notify_one();
            return AGAIN;
        }
        Err(trouble) => trouble,
    };
    // One that is only slow may still be quicker than a new connection.
    if !matches!(trouble, Trouble::Late(_)) || std::mem::replace(&mut own.late, true) {
        own.home = None;
        own.late = false;
    }
    let text = trouble.to_string();
    if own.trouble != text {
        match &trouble {
            Trouble::NoTables(_) | Trouble::NoLogin(_) => tracing::warn!(
                database = map.database(), why = %text,
                "this router takes no lease on the home shard: moves would not know of it"
            ),
            Trouble::Late(_) | Trouble::Failed(_) => tracing::warn!(
                database = map.database(), why = %text, "the lease on the home shard is not renewed"
            ),
        }
        own.trouble = text;
    }
    match trouble {
        // Nothing can ever have been moved by the store.
        Trouble::NoTables(_) | Trouble::NoLogin(_) if own.tenure.is_none() => {
            lease.waive();
            RARELY
        }
        Trouble::NoTables(_) | Trouble::NoLogin(_) | Trouble::Late(_) | Trouble::Failed(_) => AGAIN,
    }
}

impl Own {
    async fn ask(
        &mut self,
        plane: &Plane,
        map: &Map,
        member: &Member,
        (length, lease, precision): (Millis, &Lease, Precision),
    ) -> Result<Given, Trouble> {
        if self.home.is_none() {
            let home = home_of(&plane.mover_access(map));
            self.home = Some(home.map_err(|refusal| Trouble::NoLogin(refusal.message))?);
        }
        let home = self.home.as_mut().ok_or_else(|| Trouble::Failed(String::new()))?;
        let client = home.client().await.map_err(|error| Trouble::Failed(error.to_string()))?;
        if self.tenure.is_none() {
            prepare(client).await?;
        }
        self.beat += 1;
        let row = plane.row(map, self.beat, length, member);
        let now = clock::now();
        let mut tenure = self.tenure.unwrap_or(Tenure::NONE);
        tenure.ask(length, now);
        if self.tenure.is_some() {
            lease.set(tenure.until(), precision);
            self.tenure = Some(tenure);
        }
        let given = routers::renew(client, map, &row).await?;
        if given == Given::Granted {
            // The map that the row names may have been replaced meanwhile, by a
            // newer one only.
            tenure.grant();
            self.tenure = Some(tenure);
            lease.set(tenure.until(), precision);
            let rows = routers::list(client, map.database()).await?;
            let fleet = member.look(rows);
            plane.forget_gone(client, map, &fleet).await?;
        }
        Ok(given)
    }
}

/// Makes the shared tables.
async fn prepare(client: &tokio_postgres::Client) -> Result<(), Trouble> {
    match moves::prepare(client).await {
        Err(error) if error.is_forbidden() => {
            let there = "SELECT pg_catalog.to_regclass('keyway.map_epochs') IS NOT NULL";
            let row = client.query_one(there, &[]).await.map_err(TableError::from)?;
            if row.get::<_, bool>(0) {
                Err(error.into())
            } else {
                Err(Trouble::NoTables(error.to_string()))
            }
        }
        other => Ok(other?),
    }
}

/// Why there is no lease.
enum Trouble {
    /// The role may not make the tables, and nobody has.
    NoTables(String),
    /// Nobody is known who could log in.
    NoLogin(String),
    /// No answer came.
    Late(Duration),
    /// The home shard can't be asked.
    Failed(String),
}

impl From<TableError> for Trouble {
    fn from(error: TableError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoTables(why) | Self::NoLogin(why) | Self::Failed(why) => f.write_str(why),
            Self::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
        }
    }
}

/// A lease that is to be had before anything is sent, if `map` needs one.
pub(super) fn first_lease(map: &Map, lease: Millis) -> Arc<Lease> {
    let needed = map.is_sharded() && lease > Millis::ZERO;
    Arc::new(if needed { Lease::none() } else { Lease::unneeded() })
}

/// What stands before a router's name where it runs a move.
const RUNNER: &str = "keyway mover ";
/// Bytes of a name that a server keeps, and one.
const APPLICATION_NAME_MAX: usize = 64;
/// The longest lease with which a router may be part of a cutover.
const SOON: Millis = Millis::new(60_000);
/// Time between two looks at the other routers while a move waits for them.
const LOOK: Duration = Duration::from_millis(5);
/// How long the first lease is waited for before it is asked for again.
const FIRST: Duration = Duration::from_secs(10);
/// Time before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// The same where it can't succeed until somebody has granted something.
const RARELY: Duration = Duration::from_secs(15);
/// How often it is looked whether a lease is needed by now.
const UNNEEDED: Duration = Duration::from_secs(1);
/// How long the end of the router waits for the home shard.
const PARTING: Duration = Duration::from_secs(1);
