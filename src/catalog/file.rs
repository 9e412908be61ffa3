//! The text form of a catalog: JSON, for planning without servers and for
//! tests. Shards with the same schema are written once.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::shard::ShardCatalog;
use super::snapshot::Catalog;
use crate::types::ShardId;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<C> {
    format: u32,
    catalogs: Vec<Group<C>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group<C> {
    /// Numbers of the shards that have this schema.
    shards: Vec<u16>,
    catalog: C,
}

/// Writes `catalog` down.
///
/// # Errors
/// None that plain values can cause.
pub fn print(catalog: &Catalog) -> Result<String, FileError> {
    let mut catalogs: Vec<Group<&ShardCatalog>> = Vec::new();
    for (shard, content) in catalog.shared() {
        let number = shard.number();
        match catalogs.iter_mut().find(|group| *group.catalog == **content) {
            Some(group) => group.shards.push(number),
            None => catalogs.push(Group { shards: vec![number], catalog: content }),
        }
    }
    let file = File { format: FORMAT, catalogs };
    serde_json::to_string_pretty(&file).map_err(|error| FileError(error.to_string()))
}

/// Reads what [`print()`] wrote.
///
/// # Errors
/// Not this format, a word that it doesn't have, or a shard named twice.
pub fn parse(text: &str) -> Result<Catalog, FileError> {
    let file: File<ShardCatalog> =
        serde_json::from_str(text).map_err(|error| FileError(error.to_string()))?;
    if file.format != FORMAT {
        return Err(FileError(format!("format {} is not {FORMAT}", file.format)));
    }
    let mut shards: Vec<(ShardId, Arc<ShardCatalog>)> = Vec::new();
    for group in file.catalogs {
        let content = group.catalog.ordered();
        let shared = Arc::new(content);
        for number in group.shards {
            let shard = ShardId::new(number);
            if shards.iter().any(|(other, _)| *other == shard) {
                return Err(FileError(format!("shard {number} is named twice")));
            }
            shards.push((shard, Arc::clone(&shared)));
        }
    }
    Ok(Catalog::new(shards))
}

/// Why a text is no catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}

const FORMAT: u32 = 1;
