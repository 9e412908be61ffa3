//! Reads settings out of a parsed TOML document and collects every problem.
//!
//! Each path that is asked for counts as known; what nobody asked for is
//! reported at the end, with the known name that is nearest.

use std::collections::BTreeSet;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::document::{Problem, Source, nearest};

use super::setting::Value;

/// A document being read.
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    root: &'a DeTable<'a>,
    /// Put before paths in messages, for an item of a list like `user`.
    scope: String,
    known: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(source: Source<'a>, root: &'a DeTable<'a>) -> Self {
        Self { source, root, scope: String::new(), known: BTreeSet::new(), problems: Vec::new() }
    }

    /// A reader of one item of the list `name`.
    pub(crate) fn item(&self, name: &str, table: &'a DeTable<'a>) -> Self {
        Self { scope: format!("{name}."), ..Self::new(self.source, table) }
    }

    /// Reads the setting at `path` into `place`, which stays as it is when
    /// the setting is absent or wrong. `beyond` returns the limits if the
    /// value lies outside them.
    pub(crate) fn setting<V: Value>(
        &mut self,
        path: &str,
        place: &mut V,
        beyond: impl Fn(&V) -> Option<(String, String)>,
    ) {
        let Some(found) = self.find(path) else { return };
        let Some(value) = V::read(found.get_ref()) else {
            let kind = found.get_ref().type_str();
            let reason = if kind == "string" || kind == "integer" {
                format!("{}{path} must be {}", self.scope, V::FORM)
            } else {
                format!("{}{path} must be {}, not of type {kind}", self.scope, V::FORM)
            };
            self.refuse(found.span().start, reason);
            return;
        };
        match beyond(&value) {
            Some((least, most)) => {
                let reason = format!(
                    "{}{path} is {}, outside its limits of {least} to {most}",
                    self.scope,
                    value.written()
                );
                self.refuse(found.span().start, reason);
            }
            None => *place = value,
        }
    }

    /// What stands at `path`, a name or a section and a name.
    pub(crate) fn find(&mut self, path: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.insert(path.to_owned());
        match path.split_once('.') {
            None => self.root.get(path),
            Some((section, name)) => self.root.get(section)?.get_ref().as_table()?.get(name),
        }
    }

    /// Byte position of the document or item as a whole is not known, so a
    /// problem with no better place is put where `path` stands, or at 0.
    pub(crate) fn offset_of(&mut self, path: &str) -> usize {
        self.find(path).map_or(0, |found| found.span().start)
    }

    /// Notes a problem at byte `offset`.
    pub(crate) fn refuse(&mut self, offset: usize, reason: impl Into<String>) {
        self.problems.push(self.source.problem(offset, reason));
    }

    /// All problems, with one for each name that no one asked for.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        let root = self.root;
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            if self.known.contains(name) {
                continue;
            }
            let prefix = format!("{name}.");
            if !self.known.iter().any(|path| path.starts_with(&prefix)) {
                let names: BTreeSet<&str> =
                    self.known.iter().map(|path| first_part(path)).collect();
                let reason = self.unknown(name, "", names);
                self.refuse(key.span().start, reason);
                continue;
            }
            let Some(section) = value.get_ref().as_table() else {
                self.refuse(value.span().start, format!("{name} must be a section, [{name}]"));
                continue;
            };
            for inner in section.keys() {
                let path = format!("{prefix}{}", inner.get_ref());
                if !self.known.contains(&path) {
                    let names = self.known.iter().filter_map(|path| path.strip_prefix(&prefix));
                    let reason = self.unknown(inner.get_ref(), &prefix, names.collect());
                    self.refuse(inner.span().start, reason);
                }
            }
        }
        self.problems
    }

    fn unknown(&self, name: &str, prefix: &str, names: BTreeSet<&str>) -> String {
        let scope = &self.scope;
        match nearest(name, names) {
            Some(meant) => {
                format!(
                    "unknown setting {scope}{prefix}{name}: did you mean {scope}{prefix}{meant}?"
                )
            }
            None => format!("unknown setting {scope}{prefix}{name}"),
        }
    }
}

fn first_part(path: &str) -> &str {
    path.split_once('.').map_or(path, |(section, _)| section)
}
