//! `keyway history`: the maps that were in force, who put them there, and when.
//! It asks the store on the home shard and changes nothing.

use super::cli::{Exit, HistoryArgs};
use super::plan::{Failed, Reach, blocking, failed, finish, say};
use super::route::read_map;
use crate::shardmap::Map;
use crate::store::moves::{self, Applied};

/// `keyway history`.
pub(super) fn run(args: &HistoryArgs) -> Exit {
    finish(blocking(async {
        let map = read_map(&args.file)?;
        let mut reach = Reach::of(&map, &args.file, args.user.as_deref())?;
        let client = reach.home.client().await.map_err(failed)?;
        let all = match moves::history(client, map.database()).await {
            Err(error) if error.is_missing() => Vec::new(),
            other => other.map_err(failed)?,
        };
        let text = match args.print {
            Some(epoch) => printed(&all, epoch)?,
            None => lines(&all),
        };
        say(text.trim_end());
        Ok(Exit::Done)
    }))
}

fn printed(all: &[Applied], epoch: u64) -> Result<String, Failed> {
    let found = all.iter().find(|applied| applied.map.epoch().number() == epoch);
    let unknown = || (Exit::Refused, format!("the home shard knows no map of epoch {epoch}"));
    found.map(|applied| applied.map.to_toml()).ok_or_else(unknown)
}

fn lines(all: &[Applied]) -> String {
    let mut lines = Vec::new();
    let mut before: Option<&Map> = None;
    for Applied { map, by, at, why } in all {
        lines.push(format!("epoch {} at {at} by {by}: {why}", map.epoch().number()));
        let changes = before.map(|before| before.diff(map)).unwrap_or_default();
        lines.extend(changes.iter().map(|change| format!("  {change}")));
        before = Some(map);
    }
    if lines.is_empty() {
        lines.push("the home shard knows no map".to_owned());
    }
    lines.join("\n")
}
