//! Takes a move in: checks it, and writes it into the store.

use std::fmt;

use super::checks::{self, Finding, Report, Sizes, Weight};
use super::node::{Node, NodeError};
use super::run::Access;
use crate::mover::{BeginError, Journal, Subject, Wish};
use crate::shardmap::Map;
use crate::store::moves::{self, TableError};
use crate::types::ShardId;

/// A move that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The keyspace.
    pub keyspace: String,
    /// Which of its rows.
    pub subject: Subject,
    /// Where they shall go.
    pub target: ShardId,
}

impl Wanted {
    /// Its journal, as it would begin by this map.
    ///
    /// # Errors
    /// It is no move by this map.
    pub fn begin(&self, map: &Map) -> Result<Journal, BeginError> {
        Journal::begin(map, &self.keyspace, self.subject.clone(), self.target)
    }
}

/// What a wanted move would be.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its journal, as it would begin.
    pub journal: Journal,
    /// What would move, and what stands in its way.
    pub report: Report,
}

/// The map in force by the store, which gets `known`, the one that is served,
/// if that is newer.
///
/// # Errors
/// The home shard can't be asked, or the role may not.
pub async fn map_in_force(home: &mut Node, known: &Map) -> Result<Map, SubmitError> {
    let client = home.client().await?;
    moves::prepare(client).await?;
    let newest = moves::newest_map(client, known.database()).await?;
    match newest {
        Some(newest) if newest.epoch() >= known.epoch() => Ok(newest),
        Some(_) | None => {
            moves::keep_map(client, known, "taken over from a router").await?;
            let newest = moves::newest_map(client, known.database()).await?;
            newest.ok_or_else(|| TableError::Damaged("it holds no map".to_owned()).into())
        }
    }
}

/// Says what a move would be, without beginning it.
///
/// # Errors
/// It can't even be named, or a shard can't be asked.
pub async fn plan(
    access: &Access,
    map: &Map,
    wanted: &Wanted,
    sizes: Sizes,
) -> Result<Planned, SubmitError> {
    let journal = wanted.begin(map)?;
    let node = |shard: u16| {
        let target = access.primaries.get(&ShardId::new(shard)).cloned();
        target.map(Node::new).ok_or_else(|| BeginError::Shard(shard.to_string()))
    };
    let (mut source, mut target) = (node(journal.source)?, node(journal.target)?);
    let keyspace = map
        .keyspace_named(&journal.keyspace)
        .ok_or_else(|| BeginError::Keyspace(journal.keyspace.clone()))?;
    let report = checks::check(&journal, keyspace, &mut source, &mut target, sizes)
        .await
        .map_err(|(_, error)| error)?;
    Ok(Planned { journal, report })
}

/// Checks a move and stores it; whoever runs moves finds it there.
///
/// # Errors
/// It was refused, or a server can't be asked. Nothing moves then.
pub async fn submit(
    home: &mut Node,
    access: &Access,
    map: &Map,
    wanted: &Wanted,
) -> Result<u32, SubmitError> {
    let planned = plan(access, map, wanted, Sizes::Estimated).await?;
    if !planned.report.is_safe() {
        return Err(SubmitError::Refused(planned.report.findings));
    }
    let client = home.client().await?;
    for stored in moves::list(client, map.database()).await? {
        if !stored.journal.is_ended() && stored.journal.overlaps(&planned.journal, map) {
            return Err(SubmitError::Overlaps(stored.journal.id));
        }
    }
    Ok(moves::submit(client, map.database(), &planned.journal, Wish::Run).await?)
}

/// Why a move was not taken in.
#[derive(Debug)]
pub enum SubmitError {
    /// It is no move.
    Begin(BeginError),
    /// Something stands in its way.
    Refused(Vec<Finding>),
    /// This move already has some of the rows.
    Overlaps(u32),
    /// A shard can't be asked.
    Node(NodeError),
    /// The store can't be asked.
    Store(TableError),
}

impl From<BeginError> for SubmitError {
    fn from(error: BeginError) -> Self {
        Self::Begin(error)
    }
}

impl From<NodeError> for SubmitError {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<TableError> for SubmitError {
    fn from(error: TableError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(error) => error.fmt(f),
            Self::Overlaps(id) => write!(f, "move {id} already moves some of these rows"),
            Self::Node(error) => error.fmt(f),
            Self::Store(error) => write!(f, "the store: {error}"),
            Self::Refused(findings) => {
                let refusals: Vec<&str> = findings
                    .iter()
                    .filter(|finding| finding.weight == Weight::Refuse)
                    .map(|finding| finding.what.as_str())
                    .collect();
                f.write_str(&refusals.join("; "))
            }
        }
    }
}

impl std::error::Error for SubmitError {}
