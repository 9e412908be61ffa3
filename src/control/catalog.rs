//! Loads the shards' catalogs and keeps them fresh.
//!
//! One task and one connection for each shard's primary, beside the monitor's,
//! which the node's budget counts. A probe once a second says whether anything
//! has changed; only then all of it is read again. A schema change that went
//! through the router asks for it at once. What a catalog means for a route is
//! `route`'s to decide; a shard that can't be asked keeps what was known of it.

mod answer;
mod queries;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::monitor::Target;
use super::sampler;
use crate::catalog::{Numbers, ShardCatalog};
use crate::net::clock;
use crate::types::ShardId;

/// What is known of one shard's catalog.
#[derive(Clone, Debug)]
pub enum Report {
    /// All of it, as it is now, and its types' numbers.
    Loaded(Arc<ShardCatalog>, Arc<Numbers>),
    /// It can't be asked, for this reason.
    Failed(String),
}

/// Takes each report; must not block.
pub type Publish = Arc<dyn Fn(ShardId, Report) + Send + Sync>;

/// The loader's tasks of one database; dropping it ends them and their
/// connections.
#[derive(Debug)]
pub struct Loader {
    _tasks: JoinSet<()>,
}

impl Loader {
    /// Starts following the primaries among `targets` on the current runtime.
    /// `changes` changes when a schema may have.
    pub fn start(targets: Vec<Target>, changes: &watch::Receiver<u64>, publish: &Publish) -> Self {
        let mut tasks = JoinSet::new();
        for target in targets.into_iter().filter(Target::is_primary) {
            tasks.spawn(follow(target, changes.clone(), Arc::clone(publish)));
        }
        Self { _tasks: tasks }
    }
}

/// Reads the catalog of `target` once.
///
/// # Errors
/// The server can't be reached or asked, or its schema is beyond the limits.
pub async fn load(target: &Target) -> Result<ShardCatalog, CatalogError> {
    let mut asker = Asker::connect(target).await?;
    asker.probe().await?;
    Ok(asker.load().await?.0)
}

/// Follows one shard for ever, over one connection after the other.
async fn follow(given: Target, mut changes: watch::Receiver<u64>, publish: Publish) {
    let shard = given.member.shard;
    let mut failures: u32 = 0;
    // What was published stays true over a new connection.
    let mut known = None;
    loop {
        let target = given.of_now();
        let error = match Asker::connect(&target).await {
            Ok(asker) => {
                stay(&target, asker, &mut changes, &mut known, &mut failures, &publish).await
            }
            Err(error) => error,
        };
        if failures == 0 {
            tracing::warn!(node = %target.name, %error, "catalog can't be read");
        }
        publish(shard, Report::Failed(error.to_string()));
        tokio::time::sleep(clock::duration(wait_after(failures))).await;
        failures = failures.saturating_add(1);
    }
}

/// Follows over one connection until it fails.
async fn stay(
    target: &Target,
    mut asker: Asker,
    changes: &mut watch::Receiver<u64>,
    known: &mut Option<Arc<ShardCatalog>>,
    failures: &mut u32,
    publish: &Publish,
) -> CatalogError {
    let mut seen = None;
    let mut probes: u32 = 0;
    loop {
        changes.mark_unchanged();
        let started = clock::now();
        let mark = match asker.probe().await {
            Ok(mark) => mark,
            Err(error) => return error,
        };
        let took = clock::now().since(started);
        if seen != Some(mark) || probes >= PROBES_PER_LOAD {
            // The mark is older than what is read now: a change in between
            // shows in the next one.
            match asker.load().await {
                Ok((catalog, numbers)) => {
                    *failures = 0;
                    let loaded = Arc::new(catalog);
                    if known.as_ref() != Some(&loaded) {
                        let print = loaded.fingerprint();
                        tracing::info!(node = %target.name, fingerprint = %print, "catalog");
                    }
                    *known = Some(Arc::clone(&loaded));
                    publish(target.member.shard, Report::Loaded(loaded, Arc::new(numbers)));
                }
                Err(error) => return error,
            }
            seen = Some(mark);
            probes = 0;
        }
        probes += 1;
        let pause = PROBE_INTERVAL_MS.max(took.count().saturating_mul(PROBE_SHARE));
        let pause = Duration::from_millis(pause);
        tokio::select! {
            // Cancel-safe: a change that was not seen stays unseen.
            changed = changes.changed() => if changed.is_err() {
                // Nobody can tell of changes any more; the probes go on.
                tokio::time::sleep(pause).await;
            },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Doubled each time, with a limit.
fn wait_after(failures: u32) -> crate::types::Millis {
    let doubled = 1_u64.checked_shl(failures.min(16)).unwrap_or(u64::MAX);
    crate::types::Millis::new(RETRY_MS.saturating_mul(doubled).min(RETRY_MS_MAX))
}

/// A connection that asks. Dropping it closes it.
struct Asker {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Asker {
    async fn connect(target: &Target) -> Result<Self, CatalogError> {
        let attempt = async {
            let (client, driver) = sampler::open(target, "keyway catalog").await?;
            let asker = Self { client, driver };
            asker.client.simple_query(queries::SETUP).await?;
            Ok(asker)
        };
        within(CONNECT_WAIT, attempt).await
    }

    /// The mark of all that is read.
    async fn probe(&mut self) -> Result<u64, CatalogError> {
        let messages = within(PROBE_WAIT, self.ask(queries::PROBE)).await?;
        answer::mark(&rows(&messages))
    }

    async fn load(&mut self) -> Result<(ShardCatalog, Numbers), CatalogError> {
        let questions = [
            queries::BEGIN,
            queries::SCHEMAS,
            queries::RELATIONS,
            queries::FUNCTIONS,
            queries::ENUMS,
            queries::TYPES,
            queries::PATHS,
            queries::SERVER_PATH,
            queries::MODES,
            queries::SERVER_MODES,
            queries::COMMIT,
        ]
        .join(";\n");
        let messages = within(LOAD_WAIT, self.ask(&questions)).await?;
        answer::catalog(&rows(&messages))
    }

    async fn ask(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, CatalogError> {
        Ok(self.client.simple_query(sql).await?)
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, CatalogError>>,
) -> Result<T, CatalogError> {
    tokio::time::timeout(limit, work).await.map_err(|_| CatalogError::Late(limit))?
}

/// The rows, each as its columns.
fn rows(messages: &[SimpleQueryMessage]) -> Vec<Vec<Option<&str>>> {
    let columns = |row: &tokio_postgres::SimpleQueryRow| row.len();
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..columns(row)).map(|i| row.try_get(i).ok().flatten()).collect())
            }
            _ => None,
        })
        .collect()
}

/// Why there is no catalog.
#[derive(Debug)]
pub enum CatalogError {
    /// Took too long.
    Late(Duration),
    /// The connection or the server failed.
    Postgres(tokio_postgres::Error),
    /// The answer lacks this.
    Answer(String),
    /// The schema has more of something than is read.
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: u64,
        /// How many are read at most.
        max: u64,
    },
}

impl From<tokio_postgres::Error> for CatalogError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Postgres(error) => match error.as_db_error() {
                Some(db) => write!(f, "{} ({})", db.message(), db.code().code()),
                None => error.fmt(f),
            },
            Self::Answer(what) => write!(f, "unexpected answer: {what}"),
            Self::TooLarge { what, count, max } => {
                write!(f, "{count} {what}, more than the limit of {max}")
            }
        }
    }
}

impl std::error::Error for CatalogError {}

/// Time between two probes.
const PROBE_INTERVAL_MS: u64 = 1_000;
/// A probe's own time is at most this part of the time between two.
const PROBE_SHARE: u64 = 100;
/// All is read again after so many probes, whatever they say: settings of the
/// server's configuration leave no mark.
const PROBES_PER_LOAD: u32 = 300;
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const PROBE_WAIT: Duration = Duration::from_secs(10);
const LOAD_WAIT: Duration = Duration::from_secs(60);
const RETRY_MS: u64 = 500;
const RETRY_MS_MAX: u64 = 10_000;
