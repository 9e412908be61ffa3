//! The manual page and the JSON Schema of the configuration, made from the
//! table of settings.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::config::Config;
use super::setting::Setting;

/// The manual page, in Markdown.
pub fn page() -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut section = None;
    for setting in Config::table() {
        let (prefix, name) = split(setting.path);
        if section != Some(prefix) {
            section = Some(prefix);
            let title =
                if prefix.is_empty() { "At the top".to_owned() } else { format!("`[{prefix}]`") };
            let _ = write!(out, "\n## {title}\n");
        }
        describe(&mut out, name, setting);
    }
    out += "\n## `[[user]]`\n\nOne section for each user. Exactly one of `password`, `password_env`, `password_file`, `verifier` and `trust = true`.\n";
    for setting in Config::user_table() {
        describe(&mut out, setting.path, setting);
    }
    out += "\n## `[[database]]`\n\nWhat differs for one database; none is needed.\n";
    for setting in Config::database_table() {
        describe(&mut out, setting.path, setting);
    }
    out
}

/// The JSON Schema of the file, as text.
pub fn schema() -> String {
    let mut sections: Map<String, Value> = Map::new();
    let mut top: Map<String, Value> = Map::new();
    for setting in Config::table() {
        let (prefix, name) = split(setting.path);
        if prefix.is_empty() {
            top.insert(name.to_owned(), described(setting));
            continue;
        }
        let section = sections.entry(prefix).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(name.to_owned(), described(setting));
        }
    }
    for (name, properties) in sections {
        let section =
            json!({ "type": "object", "additionalProperties": false, "properties": properties });
        top.insert(name, section);
    }
    let named = |properties: Map<String, Value>| {
        let item = json!({ "type": "object", "additionalProperties": false, "required": ["name"], "properties": properties });
        json!({ "type": "array", "items": item })
    };
    let described_all = |settings: Vec<&Setting>| -> Map<String, Value> {
        settings.iter().map(|one| (one.path.to_owned(), described(one))).collect()
    };
    top.insert("user".to_owned(), named(described_all(Config::user_table().collect())));
    top.insert("database".to_owned(), named(described_all(Config::database_table().collect())));
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Keyway configuration",
        "type": "object",
        "additionalProperties": false,
        "properties": top,
    });
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or(("", path))
}

fn describe(out: &mut String, name: &str, setting: &Setting) {
    let _ = write!(out, "\n### `{name}`\n\n{}\n\nForm: {}.", text(setting), setting.form);
    let default = (setting.default)();
    if !default.is_empty() && default != "\"\"" {
        let _ = write!(out, " Default: `{default}`.");
    }
    if let Some((least, most)) = (setting.limits)() {
        let _ = write!(out, " Limits: `{least}` to `{most}`.");
    }
    out.push('\n');
}

fn described(setting: &Setting) -> Value {
    let mut schema = (setting.schema)();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".to_owned(), Value::String(text(setting)));
    }
    schema
}

fn text(setting: &Setting) -> String {
    setting.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

const INTRODUCTION: &str = "# Configuration

`keyway serve --config keyway.toml` reads one TOML file. Everything has a
default; an unknown name is an error with its line, column and the nearest
known name. `keyway check keyway.toml` tells without starting anything.
Shard maps are files of their own: see `shard-map.md`.

A time is a number of milliseconds or a text with a unit, such as `\"250ms\"`,
`\"5s\"`, `\"10min\"`, `\"1h\"`; a size a number of bytes or a text such as
`\"64KiB\"`, `\"16MiB\"`.

This page is made from the program's own table of settings.
";
