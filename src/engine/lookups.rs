//! What is known of users who are not configured: questions to the control
//! plane, and answers that are kept for a while.
//!
//! An answer is kept whether there is such a user or not; that there was none
//! to be had is not. All who ask for one user at the same time share a
//! question.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::{OnceCell, mpsc, oneshot};

use crate::auth::{ITERATIONS_DEFAULT, StoredPassword};
use crate::types::{Millis, Moment};

use super::thread::Thread;

/// Where users are looked up, and what is kept of it.
#[derive(Debug)]
pub struct LookupOptions {
    /// Takes the questions.
    pub requests: mpsc::Sender<LookupRequest>,
    /// How long an answer is used again.
    pub cache_time: Millis,
    /// Most answers that are kept.
    pub entries_max: usize,
}

/// A user to look up.
#[derive(Debug)]
pub struct LookupRequest {
    /// The database that the user asks for.
    pub database: String,
    /// The name.
    pub user: String,
    /// Where the answer goes; `None` if there is no such user.
    pub reply: oneshot::Sender<Result<Option<Found>, LookupFailed>>,
}

/// Nobody could be asked; the log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupFailed;

/// What the home shard knows of a user.
#[derive(Clone, Debug)]
pub struct Found {
    /// The password as it is stored; `None` if there is none.
    pub stored: Option<StoredPassword>,
    /// Until when that is valid.
    pub validity: Validity,
    /// Whether the role may log in.
    pub may_log_in: bool,
    /// The first shard that stores another password, if all were asked.
    pub differs_on: Option<String>,
}

/// Until when a password is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It has no end.
    Endless,
    /// For so long from now on.
    For(Millis),
    /// It has ended.
    Over,
}

/// The answers of one thread.
#[derive(Default)]
pub(super) struct Lookups {
    /// Iterations of the verifier that was found last; zero if none was.
    iterations: Cell<u32>,
    entries: RefCell<HashMap<(usize, String), Rc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    answer: OnceCell<Option<Rc<Found>>>,
    /// When it came.
    since: Cell<Moment>,
    /// When it is too old, or the password no longer valid.
    until: Cell<Option<Moment>>,
}

impl Thread {
    /// Looks `user` up, as far as `database` knows; `None` if there is none.
    ///
    /// # Errors
    /// Nobody could be asked.
    pub(super) async fn look_up(
        &self,
        database: usize,
        user: &str,
    ) -> Result<Option<Rc<Found>>, LookupFailed> {
        // No role has such a name; the server would cut it off.
        if user.len() > ROLE_NAME_MAX {
            return Ok(None);
        }
        let entry = self.lookups.entry(self, database, user);
        let answer = entry.answer.get_or_try_init(async || self.ask(&entry, database, user).await);
        match answer.await {
            Ok(answer) => Ok(answer.clone()),
            Err(failed) => {
                self.lookups.forget(database, user);
                Err(failed)
            }
        }
    }

    async fn ask(
        &self,
        entry: &Entry,
        database: usize,
        user: &str,
    ) -> Result<Option<Rc<Found>>, LookupFailed> {
        let name = self.databases.get(database).map(|database| database.name.clone());
        let (Some(options), Some(database)) = (&self.options.lookups, name) else {
            return Err(LookupFailed);
        };
        let (reply, answer) = oneshot::channel();
        let request = LookupRequest { database, user: user.to_owned(), reply };
        options.requests.send(request).await.map_err(|_| LookupFailed)?;
        let found = answer.await.map_err(|_| LookupFailed)??;
        let now = self.now();
        let kept = options.cache_time;
        let kept = match found.as_ref().map(|found| found.validity) {
            Some(Validity::For(left)) => kept.min(left),
            Some(Validity::Endless | Validity::Over) | None => kept,
        };
        if let Some(StoredPassword::Scram(verifier)) =
            found.as_ref().and_then(|f| f.stored.as_ref())
        {
            self.lookups.iterations.set(verifier.iterations());
        }
        entry.since.set(now);
        entry.until.set(Some(now.after(kept)));
        Ok(found.map(Rc::new))
    }

    /// The password of this user was wrong: it may have been changed since it
    /// was looked up.
    pub(super) fn doubt_lookup(&self, database: usize, user: &str) {
        let entries = self.lookups.entries.borrow();
        let key = (database, user.to_owned());
        // Not at once, or strangers could make each login a lookup.
        let old = entries
            .get(&key)
            .is_some_and(|entry| self.now() >= entry.since.get().after(DOUBT_AFTER));
        drop(entries);
        if old {
            self.lookups.forget(database, user);
        }
    }
}

impl Lookups {
    /// The iterations that verifiers have here: those of users who do not
    /// exist must have as many.
    pub(super) fn usual_iterations(&self) -> u32 {
        match self.iterations.get() {
            0 => ITERATIONS_DEFAULT,
            found => found,
        }
    }

    fn entry(&self, thread: &Thread, database: usize, user: &str) -> Rc<Entry> {
        let now = thread.now();
        let mut entries = self.entries.borrow_mut();
        let key = (database, user.to_owned());
        let fresh = |entry: &Entry| entry.until.get().is_none_or(|until| now < until);
        if let Some(entry) = entries.get(&key).filter(|entry| fresh(entry)) {
            return Rc::clone(entry);
        }
        let most = thread.options.lookups.as_ref().map_or(1, |options| options.entries_max);
        if entries.len() >= most {
            entries.retain(|_, entry| fresh(entry));
            // A quarter at a time, so that room costs little. Whose answer is
            // lost is asked for again.
            let mut surplus = entries.len().saturating_sub(most - most.div_ceil(4));
            entries.retain(|_, _| {
                let lost = surplus > 0;
                surplus = surplus.saturating_sub(1);
                !lost
            });
        }
        let entry = Rc::new(Entry::default());
        entries.insert(key, Rc::clone(&entry));
        entry
    }

    fn forget(&self, database: usize, user: &str) {
        self.entries.borrow_mut().remove(&(database, user.to_owned()));
    }
}

/// Longest name of a role, in bytes.
const ROLE_NAME_MAX: usize = 63;
/// A wrong password is no reason to doubt an answer that is younger.
const DOUBT_AFTER: Millis = Millis::new(1_000);
