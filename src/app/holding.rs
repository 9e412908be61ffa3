//! What this router's engine is told of moves, and what a move asks of it: to
//! hold the tenant's writers, to take the new map, to say when nothing old runs
//! any more.
//!
//! It does not know why a move does that, nor how the engine holds anybody.
//! Clients of other routers are not held: their routers show when they are
//! through with a map ([`super::fleet`]).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::fleet::{Wanted, token_of};
use super::plane::Plane;
use crate::control::mover::{Routers, Waiting};
use crate::engine::{Blocker, Drained};
use crate::mover::{Journal, Told};
use crate::net::clock;
use crate::shardmap::{Map, MoveId, Moves};

/// What the engine was told, by the index of the database. One at a time tells
/// it, so that nothing old overtakes what is newer.
#[derive(Debug, Default)]
pub(super) struct Telling(tokio::sync::Mutex<HashMap<usize, Database>>);

#[derive(Debug, Default)]
struct Database {
    told: Told,
    /// What the engine has; `None` if it may not have all of it.
    moves: Option<Moves>,
}

impl Plane {
    /// Takes in what has `changed` with the moves of a database, and a map that
    /// one of them has made. Once this returns, whatever begins goes by both.
    pub(super) async fn tell(
        self: &Arc<Self>,
        index: usize,
        newest: Option<Arc<Map>>,
        changed: impl FnOnce(&mut Told),
    ) -> Result<(), String> {
        let mut all = self.moves.telling.0.lock().await;
        let database = all.entry(index).or_default();
        changed(&mut database.told);
        let in_force = self.map_of(index).ok_or("no such database")?;
        let newest = newest.filter(|newest| newest.epoch() > in_force.epoch());
        // The moves go first: a new owner that is not open yet must be held by
        // the time that the map names it.
        let map = newest.as_ref().unwrap_or(&in_force);
        let moves = database.told.moves(map).ok_or("too many moves are under way")?;
        if database.moves.as_ref() != Some(&moves) {
            database.moves = None;
            let set = self.handle().set_moves(map.database(), moves.clone());
            set.await.map_err(|error| error.to_string())?;
            database.moves = Some(moves);
        }
        match newest {
            Some(newest) => self.take_over(index, newest).await,
            None => Ok(()),
        }
    }
}

/// This router and the others of its database, as a move sees them.
pub(super) struct OwnEngine {
    pub(super) plane: Arc<Plane>,
    pub(super) index: usize,
}

impl OwnEngine {
    async fn drained(&self, id: u32, limit: Duration) -> Result<Drained, String> {
        let map = self.plane.map_of(self.index).ok_or("no such database")?;
        let drained = self.plane.handle().drained(map.database(), MoveId::new(id), limit);
        drained.await.map_err(|error| error.to_string())
    }

    async fn all_have(&self, map: Arc<Map>) -> Result<(), String> {
        let epoch = map.epoch();
        self.plane.tell(self.index, Some(map), |_| ()).await?;
        self.plane.await_routers(self.index, &Wanted::Epoch(epoch), ROUTERS_WAIT).await
    }

    async fn hold_and_drain(&self, journal: &Journal, limit: Duration) -> Result<(), String> {
        let map = self.plane.map_of(self.index).ok_or("no such database")?;
        let ready = Wanted::Ready(map.epoch());
        self.plane.await_routers(self.index, &ready, limit).await?;
        self.plane.tell(self.index, None, |told| told.hold(journal)).await?;
        match self.drained(journal.id, limit).await? {
            Drained::Clear => Ok(()),
            Drained::Blocked(blockers) => Err(names(blockers.iter(), limit)),
        }
    }

    /// Nothing of this router's runs any more that began before `map` and the
    /// phase of `journal` were told.
    pub(super) async fn settled(
        &self,
        journal: &Journal,
        map: Arc<Map>,
        limit: Duration,
    ) -> Result<(), String> {
        self.plane.tell(self.index, Some(map), |told| told.meet(journal)).await?;
        let since = clock::now();
        loop {
            // What has begun since may go on: it knows.
            let age = clock::now().since(since);
            let Drained::Blocked(mut blockers) = self.drained(journal.id, LOOK).await? else {
                return Ok(());
            };
            blockers.retain(|blocker| blocker.open_ms >= age.count());
            if blockers.is_empty() {
                return Ok(());
            }
            if clock::duration(age) >= limit {
                return Err(names(blockers.iter(), limit));
            }
        }
    }
}

impl Routers for OwnEngine {
    fn settle<'a>(
        &'a self,
        journal: &'a Journal,
        map: Arc<Map>,
        limit: Duration,
    ) -> Waiting<'a, Result<(), String>> {
        Box::pin(async move {
            let others = Wanted::Settled(token_of(journal), map.epoch());
            self.settled(journal, map, limit).await?;
            self.plane.await_routers(self.index, &others, limit).await
        })
    }

    fn hold<'a>(
        &'a self,
        journal: &'a Journal,
        limit: Duration,
    ) -> Waiting<'a, Result<(), String>> {
        Box::pin(async move {
            let held = self.hold_and_drain(journal, limit).await;
            if held.is_err() {
                self.release(journal).await;
            }
            held
        })
    }

    fn release<'a>(&'a self, journal: &'a Journal) -> Waiting<'a, ()> {
        Box::pin(async move {
            let told = self.plane.tell(self.index, None, |told| told.release(journal));
            if let Err(error) = told.await {
                tracing::error!(id = journal.id, %error, "what a move holds is not let go");
            }
        })
    }

    fn switch(&self, map: Arc<Map>) -> Waiting<'_, Result<(), String>> {
        Box::pin(self.all_have(map))
    }

    fn runner(&self) -> Option<String> {
        self.plane.runner_name()
    }

    fn old_maps_gone(&self, map: Arc<Map>) -> Waiting<'_, Result<(), String>> {
        Box::pin(self.all_have(map))
    }
}

/// Who is in the way, for the operator.
fn names<'a>(blockers: impl ExactSizeIterator<Item = &'a Blocker>, limit: Duration) -> String {
    let count = blockers.len();
    let mut text = format!("did not end within {} ms:", limit.as_millis());
    for blocker in blockers.take(NAMED_MAX) {
        let Blocker { client, user, address, application_name, backend_pids, open_ms, .. } =
            blocker;
        // Writing to a String never fails.
        let _ = write!(
            text,
            " client {client} ({user} at {address}, {application_name:?}, \
             servers {backend_pids:?}, open for {open_ms} ms)"
        );
    }
    if count > NAMED_MAX {
        let _ = write!(text, " and {} more", count - NAMED_MAX);
    }
    text
}

/// How long to wait between two looks at what is old.
const LOOK: Duration = Duration::from_millis(20);
/// How long a move waits for the other routers before it says who they are.
const ROUTERS_WAIT: Duration = Duration::from_secs(1);
/// Clients that are named.
const NAMED_MAX: usize = 5;
