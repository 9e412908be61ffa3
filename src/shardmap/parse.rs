//! Reads a map from its text: first the shape of each section, then what the
//! sections say together. As many problems as possible are found at once.

use std::collections::BTreeSet;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::document::{Problem, Source, nearest};

use super::build::Builder;
use super::file::File;
use super::map::Map;

impl Map {
    /// The map that `text` describes; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it (at most [`PROBLEMS_MAX`] problems),
    /// in the order of the text. A map with a problem is never used.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let source = Source::new(file, text);
        if text.len() > FILE_BYTES_MAX {
            let reason = format!(
                "the file has {} bytes, more than the {FILE_BYTES_MAX} that a map may have",
                text.len()
            );
            return Err(vec![source.problem(0, reason)]);
        }
        let mut shape = Shape { source, problems: Vec::new() };
        let file = shape.read(text);
        if !shape.problems.is_empty() {
            return Err(sorted(shape.problems));
        }
        Builder::new(source).build(&file).map_err(sorted)
    }
}

/// The JSON Schema of map files, as text.
pub fn schema() -> String {
    let schema = schemars::schema_for!(File);
    // A schema is a JSON value, which always prints.
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

struct Shape<'a> {
    source: Source<'a>,
    problems: Vec<Problem>,
}

impl Shape<'_> {
    fn read(&mut self, text: &str) -> File {
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problems.push(self.source.problem(offset, error.message()));
        }
        let mut file = File::default();
        if self.problems.is_empty() {
            for (key, value) in root.into_inner() {
                self.section(&mut file, &key, value);
            }
        }
        file
    }

    fn section(&mut self, file: &mut File, key: &Spanned<std::borrow::Cow<'_, str>>, value: Entry) {
        match key.get_ref().as_ref() {
            "epoch" => file.epoch = self.one(value),
            "database" => file.database = self.one(value),
            "home" => file.home = self.one(value),
            "consistency" => file.consistency = self.one(value),
            "data" => file.data = self.one(value),
            "keys" => file.keys = self.one(value),
            "reference" => file.reference = self.one(value),
            "shard" => file.shard = self.list("shard", value),
            "keyspace" => file.keyspace = self.list("keyspace", value),
            "table" => file.table = self.list("table", value),
            "key_rule" => file.key_rule = self.list("key_rule", value),
            "single" => file.single = self.list("single", value),
            "reads" => file.reads = self.list("reads", value),
            name => self.refuse(key.span().start, unknown(name, SECTIONS)),
        }
    }

    fn list<T: DeserializeOwned>(&mut self, name: &str, value: Entry) -> Vec<Spanned<T>> {
        let start = value.span().start;
        let DeValue::Array(items) = value.into_inner() else {
            self.refuse(start, format!("{name} must be a list of sections, [[{name}]]"));
            return Vec::new();
        };
        items.into_iter().filter_map(|item| self.one(item)).collect()
    }

    fn one<T: DeserializeOwned>(&mut self, value: Entry) -> Option<Spanned<T>> {
        let start = value.span().start;
        let read = Spanned::<T>::deserialize(ValueDeserializer::from(value));
        read.map_err(|error| {
            let offset = error.span().map_or(start, |span| span.start);
            self.refuse(offset, reworded(error.message()));
        })
        .ok()
    }

    fn refuse(&mut self, offset: usize, reason: String) {
        self.problems.push(self.source.problem(offset, reason));
    }
}

/// A message about an unknown or missing key, in the words of the map.
fn reworded(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match quoted.split_first() {
        Some((name, known)) if message.starts_with("unknown field") => unknown(name, known),
        Some((name, _)) if message.starts_with("missing field") => {
            format!("the key {name} is missing here")
        }
        _ => message.to_owned(),
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("unknown key {name}: did you mean {meant}?"),
        None => format!("unknown key {name}: known here are {}", known.join(", ")),
    }
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    let mut seen = BTreeSet::new();
    problems.retain(|problem| seen.insert(problem.to_string()));
    problems.truncate(PROBLEMS_MAX);
    problems
}

type Entry<'i> = Spanned<DeValue<'i>>;

const SECTIONS: &[&str] = &[
    "epoch",
    "database",
    "home",
    "consistency",
    "data",
    "keys",
    "shard",
    "keyspace",
    "table",
    "key_rule",
    "reference",
    "single",
    "reads",
];
/// Most bytes of a map file.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Most problems that are reported at once.
pub const PROBLEMS_MAX: usize = 100;
