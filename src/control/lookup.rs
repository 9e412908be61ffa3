//! Looks up what the shards store of a user, on behalf of clients that log in.
//!
//! Over connections of its own, as a role of its own, with an empty search
//! path: no client's setting reaches them, and the client's name is a
//! parameter. What the operator's query returns is the password; whether the
//! role may log in, and until when its password is valid, is asked beside it,
//! because queries that only return passwords are what people have.
//!
//! Source: PostgreSQL manual, "pg_roles", "Writing SECURITY DEFINER Functions
//! Safely".

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::monitor::Target;
use super::sampler;
use crate::auth::StoredPassword;
use crate::engine::{Found, LookupFailed, LookupRequest, Validity};
use crate::types::Millis;

/// Where a database's users are looked up.
#[derive(Clone, Debug)]
pub struct Directions {
    /// Returns name and stored password for the name in `$1`.
    pub query: String,
    /// The home shard's nodes, the primary first, as the lookup's role.
    pub home: Vec<Target>,
    /// Primaries of the other shards, by name, if they must store the same.
    pub others: Vec<(String, Target)>,
    /// A lookup that takes longer has failed.
    pub limit: Duration,
}

/// Says where to look now; `None` if the database has no lookup.
pub type Directory = Arc<dyn Fn(&str) -> Option<Directions> + Send + Sync>;

/// Answers requests until there are no more senders.
pub async fn run(mut requests: mpsc::Receiver<LookupRequest>, directory: Directory) {
    let connections = Arc::new(Connections::default());
    let permits = Arc::new(Semaphore::new(LOOKUPS_AT_ONCE_MAX));
    while let Some(request) = requests.recv().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (connections, directory) = (Arc::clone(&connections), Arc::clone(&directory));
        tokio::spawn(async move {
            let _permit = permit;
            let answer = match directory(&request.database) {
                Some(directions) => connections.look_up(&directions, &request).await,
                None => Err(LookupError::Nowhere),
            };
            let answer = answer.map_err(|error| {
                tracing::error!(database = request.database, %error, "users can't be looked up");
                LookupFailed
            });
            // The client may have left.
            drop(request.reply.send(answer));
        });
    }
}

/// One connection to each node, opened when it is needed.
#[derive(Default)]
struct Connections {
    by_node: Mutex<HashMap<(String, u16, String), Place>>,
}

/// The place of a connection, taken while one is being opened.
type Place = Arc<Mutex<Option<Arc<Connection>>>>;

struct Connection {
    client: Client,
    driver: JoinHandle<()>,
    password: Statement,
    role: Statement,
    /// How it was logged in and what it was asked to prepare.
    user: String,
    secret: Option<crate::types::Secret>,
    query: String,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connections {
    async fn look_up(
        &self,
        directions: &Directions,
        request: &LookupRequest,
    ) -> Result<Option<Found>, LookupError> {
        let mut last = LookupError::Nowhere;
        for target in &directions.home {
            match self.ask(directions, target, &request.user).await {
                Ok(answer) => {
                    let user = &request.user;
                    // Also where there is none: else the time would tell.
                    let differs_on = self.differing(directions, user, answer.as_ref()).await;
                    return answer.map(|answer| answer.into_found(differs_on)).transpose();
                }
                Err(error) if error.is_final() => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The first shard that stores another password than the home shard. One
    /// that can't be asked is passed over: it lets nobody in by mistake, since
    /// it checks the password itself.
    async fn differing(
        &self,
        directions: &Directions,
        user: &str,
        home: Option<&RoleAnswer>,
    ) -> Option<String> {
        for (shard, target) in &directions.others {
            match self.ask(directions, target, user).await {
                Ok(answer) if answer.as_ref().map(|a| &a.stored) == home.map(|a| &a.stored) => {}
                Ok(_) => return Some(shard.clone()),
                Err(error) => {
                    tracing::warn!(shard, %error, "the shard's passwords could not be compared");
                }
            }
        }
        None
    }

    async fn ask(
        &self,
        directions: &Directions,
        target: &Target,
        user: &str,
    ) -> Result<Option<RoleAnswer>, LookupError> {
        let attempt = async {
            let connection = self.connection(directions, target).await?;
            match connection.ask(user).await {
                // The server may have been started again since the last time.
                Err(LookupError::Postgres(_)) if connection.client.is_closed() => {
                    self.connection(directions, target).await?.ask(user).await
                }
                other => other,
            }
        };
        tokio::time::timeout(directions.limit, attempt)
            .await
            .map_err(|_| LookupError::Late(directions.limit))?
    }

    async fn connection(
        &self,
        directions: &Directions,
        target: &Target,
    ) -> Result<Arc<Connection>, LookupError> {
        let key = (target.host.clone(), target.port, target.dbname.clone());
        let place = Arc::clone(self.by_node.lock().await.entry(key).or_default());
        let mut place = place.lock().await;
        let usable = |connection: &Arc<Connection>| {
            !connection.client.is_closed()
                && connection.user == target.user
                && connection.secret == target.password
                && connection.query == directions.query
        };
        if let Some(connection) = place.as_ref().filter(|connection| usable(connection)) {
            return Ok(Arc::clone(connection));
        }
        *place = None;
        let opened = Arc::new(Connection::open(directions, target).await?);
        *place = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Connection {
    async fn open(directions: &Directions, target: &Target) -> Result<Self, LookupError> {
        let (client, driver) = sampler::open(target, "keyway lookup").await?;
        client.batch_execute(OWN_SETTINGS).await?;
        let password = client.prepare(&directions.query).await.map_err(LookupError::Query)?;
        if password.params().len() != 1 || password.columns().len() < 2 {
            return Err(LookupError::Shape);
        }
        let role = client.prepare(ROLE).await?;
        Ok(Self {
            client,
            driver,
            password,
            role,
            user: target.user.clone(),
            secret: target.password.clone(),
            query: directions.query.clone(),
        })
    }

    async fn ask(&self, user: &str) -> Result<Option<RoleAnswer>, LookupError> {
        // In one round trip, whatever the first brings.
        let parameters: [&(dyn ToSql + Sync); 1] = [&user];
        let (rows, role) = tokio::join!(
            self.client.query(&self.password, &parameters),
            self.client.query_opt(&self.role, &parameters),
        );
        let rows = rows.map_err(LookupError::Query)?;
        let row = match &rows[..] {
            [] => return Ok(None),
            [row] => row,
            _ => return Err(LookupError::Shape),
        };
        let name: Option<&str> = row.try_get(0).map_err(|_| LookupError::Shape)?;
        let stored: Option<&str> = row.try_get(1).map_err(|_| LookupError::Shape)?;
        if name != Some(user) {
            return Err(LookupError::Shape);
        }
        let mut answer = RoleAnswer {
            stored: stored.map(str::to_owned),
            may_log_in: true,
            validity: Validity::Endless,
        };
        // A user who is no role is the query's alone to know.
        if let Some(row) = role? {
            answer.may_log_in = row.try_get(0)?;
            let over: bool = row.try_get(1)?;
            let left_ms: Option<i64> = row.try_get(2)?;
            answer.validity = match left_ms.map(u64::try_from) {
                _ if over => Validity::Over,
                Some(Ok(left)) => Validity::For(Millis::new(left)),
                Some(Err(_)) => Validity::Over,
                None => Validity::Endless,
            };
        }
        Ok(Some(answer))
    }
}

/// What a server says of a user.
struct RoleAnswer {
    stored: Option<String>,
    may_log_in: bool,
    validity: Validity,
}

impl RoleAnswer {
    fn into_found(self, differs_on: Option<String>) -> Result<Found, LookupError> {
        let stored = self.stored.as_deref().map(StoredPassword::parse).transpose();
        Ok(Found {
            stored: stored.map_err(|_| LookupError::Stored)?,
            validity: self.validity,
            may_log_in: self.may_log_in,
            differs_on,
        })
    }
}

/// Why a user can't be looked up. No answer of a query is part of it: it might
/// be a password.
#[derive(Debug)]
enum LookupError {
    Nowhere,
    Late(Duration),
    Postgres(tokio_postgres::Error),
    Query(tokio_postgres::Error),
    Shape,
    Stored,
}

impl LookupError {
    /// True if another node would not say anything else.
    fn is_final(&self) -> bool {
        match self {
            Self::Query(error) => error.code().is_some() && !error.is_closed(),
            Self::Shape | Self::Stored => true,
            Self::Nowhere | Self::Late(_) | Self::Postgres(_) => false,
        }
    }
}

impl From<tokio_postgres::Error> for LookupError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("there is no node to ask"),
            Self::Late(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Postgres(error) => write!(f, "{}", Words(error)),
            Self::Query(error) => write!(
                f,
                "auth.query: {} (the search path is empty: names need their schema)",
                Words(error)
            ),
            Self::Shape => f.write_str(
                "auth.query must take the user's name and return at most one row: that name and \
                 the stored password, both text",
            ),
            Self::Stored => f.write_str("auth.query returned a password that is not a stored one"),
        }
    }
}

/// What a server says, with the cause that the library leaves out.
struct Words<'e>(&'e tokio_postgres::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            // Its detail may quote the row.
            Some(error) => write!(f, "{}: {}", error.code().code(), error.message()),
            None => {
                write!(f, "{}", self.0)?;
                let cause = std::error::Error::source(self.0);
                cause.map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
        }
    }
}

/// Nothing that others can make is found by an unqualified name.
const OWN_SETTINGS: &str = "SELECT pg_catalog.set_config('search_path', '', false)";
/// The time left is not asked for where it has no end.
const ROLE: &str = "\
SELECT rolcanlogin, rolvaliduntil IS NOT NULL AND rolvaliduntil <= pg_catalog.clock_timestamp(), \
CASE WHEN pg_catalog.isfinite(rolvaliduntil) THEN \
(extract(epoch FROM rolvaliduntil - pg_catalog.clock_timestamp()) * 1000)::pg_catalog.int8 END \
FROM pg_catalog.pg_roles WHERE rolname = $1";
/// Lookups under way at a time.
const LOOKUPS_AT_ONCE_MAX: usize = 32;
