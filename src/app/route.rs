//! `keyway route`: where a statement would go, offline.

use std::io::Write;

use crate::app::cli::{Exit, RouteArgs};
use crate::app::complain;
use crate::route::{Explanation, Param, explain};
use crate::shardmap::Map;
use crate::types::{Format, Oid};

/// Prints the route of one statement.
pub(super) fn run(args: &RouteArgs) -> Exit {
    if args.catalog.is_some() {
        return complain(Exit::Refused, "--catalog is not supported yet: leave it out");
    }
    let file = args.map.display().to_string();
    let text = match std::fs::read_to_string(&args.map) {
        Ok(text) => text,
        Err(error) => return complain(Exit::Failed, format!("{file}: {error}")),
    };
    let map = match Map::parse(&text, &file) {
        Ok(map) => map,
        Err(problems) => {
            let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
            return complain(Exit::Refused, all.join("\n"));
        }
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
    let explanation = explain(&map, args.sql.as_bytes(), Some(&params));
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
    for key in &explanation.keys {
        out.push_str(&format!("\nkey:     {key}"));
    }
    out
}
