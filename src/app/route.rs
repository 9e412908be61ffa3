//! `keyway route`: where a statement would go, offline.

use std::io::Write;
use std::path::Path;

use crate::app::cli::{Exit, RouteArgs};
use crate::app::{catalog, complain};
use crate::route::{Explanation, Param, SearchPath, World, explain_in};
use crate::shardmap::Map;
use crate::types::{Format, Oid};

/// Prints the route of one statement.
pub(super) fn run(args: &RouteArgs) -> Exit {
    let map = match read_map(&args.map) {
        Ok(map) => map,
        Err((exit, reason)) => return complain(exit, reason),
    };
    let catalog = match args.catalog.as_deref().map(catalog::read).transpose() {
        Ok(catalog) => catalog,
        Err((exit, reason)) => return complain(exit, reason),
    };
    let params: Vec<Param<'_>> = args
        .params
        .iter()
        .map(|value| Param {
            value: Some(value.as_bytes()),
            format: Format::Text,
            oid: Oid::new(0),
        })
        .collect();
    let search_path = SearchPath::default();
    let mut world = World::of_map(&map, &search_path);
    world.catalog = catalog.as_ref();
    let explanation = explain_in(&world, args.sql.as_bytes(), Some(&params), None);
    let refused = explanation.refusal.is_some();
    let printed = if args.json {
        serde_json::to_string_pretty(&explanation).unwrap_or_default()
    } else {
        text_of(&explanation)
    };
    // A reader that has left gets nothing more; the exit code stands.
    let _ = writeln!(std::io::stdout(), "{}", printed.trim_end());
    if refused { Exit::Refused } else { Exit::Done }
}

/// The map in a file.
pub(super) fn read_map(path: &Path) -> Result<Map, (Exit, String)> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| (Exit::Failed, format!("{file}: {error}")))?;
    Map::parse(&text, &file).map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (Exit::Refused, all.join("\n"))
    })
}

fn text_of(explanation: &Explanation) -> String {
    if let Some(refusal) = &explanation.refusal {
        let hint = refusal.hint.as_ref().map_or_else(String::new, |h| format!("\nhint:    {h}"));
        return format!("refused: {} ({}){hint}", refusal.message, refusal.sqlstate);
    }
    let mut out = format!(
        "targets: {}\naccess:  {}\nreason:  {}\nreplica: {}",
        explanation.targets,
        explanation.access,
        explanation.reason,
        if explanation.replica_ok { "may serve, if the level of reads allows it" } else { "never" },
    );
    if let Some(sent) = &explanation.sent {
        out.push_str(&format!("\nsent as: {sent}"));
    }
    for line in &explanation.together {
        out.push_str(&format!("\nmade:    {line}"));
    }
    for key in &explanation.keys {
        out.push_str(&format!("\nkey:     {key}"));
    }
    out
}
