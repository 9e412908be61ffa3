//! In what two shards' schemas differ, in words for the log and the console.

use std::collections::BTreeSet;

use super::relation::Relation;
use super::shard::{Schema, ShardCatalog};

/// The first differences between two shards' schemas, at most `max`, with the
/// shards by these names. Of relations only those count that `counts` accepts,
/// by schema and name; schemas that `counts` accepts without a name are to be
/// everywhere, with their functions and types.
pub fn differences(
    (left, one): (&str, &ShardCatalog),
    (right, other): (&str, &ShardCatalog),
    max: usize,
    counts: &dyn Fn(&str, Option<&str>) -> bool,
) -> Vec<String> {
    let mut found = Found { left, right, max, counts, list: Vec::new() };
    let names: BTreeSet<&str> =
        one.schemas().chain(other.schemas()).map(|(name, _)| name).collect();
    for name in names {
        match (one.schema(name), other.schema(name)) {
            (Some(a), Some(b)) => found.schema(name, a, b),
            (a, b) if counts(name, None) => {
                found.only(&format!("schema {name}"), a.is_some(), b.is_some());
            }
            _ => {}
        }
    }
    if one.search_paths() != other.search_paths() {
        found.push("search paths that sessions begin with differ".to_owned());
    }
    if one.modes() != other.modes() {
        found.push("modes that transactions begin with differ".to_owned());
    }
    found.list
}

struct Found<'n> {
    left: &'n str,
    right: &'n str,
    max: usize,
    counts: &'n dyn Fn(&str, Option<&str>) -> bool,
    list: Vec<String>,
}

impl Found<'_> {
    fn push(&mut self, difference: String) {
        if self.list.len() < self.max {
            self.list.push(difference);
        }
    }

    fn only(&mut self, what: &str, on_left: bool, on_right: bool) {
        if on_left != on_right {
            let shard = if on_left { self.left } else { self.right };
            self.push(format!("{what} is only on {shard}"));
        }
    }

    fn schema(&mut self, name: &str, one: &Schema, other: &Schema) {
        let whole = (self.counts)(name, None);
        if whole && one.open != other.open {
            self.push(format!("schema {name}: the rights of all roles differ"));
        }
        let relations: BTreeSet<_> = one.relations.keys().chain(other.relations.keys()).collect();
        for relation in relations {
            if !(self.counts)(name, Some(relation)) {
                continue;
            }
            let full = format!("{name}.{relation}");
            match (one.relations.get(relation), other.relations.get(relation)) {
                (Some(a), Some(b)) => self.relation(&full, a, b),
                (Some(a), None) => self.only(&format!("{} {full}", a.kind.word()), true, false),
                (None, Some(b)) => self.only(&format!("{} {full}", b.kind.word()), false, true),
                (None, None) => {}
            }
        }
        if !whole {
            return;
        }
        let functions: BTreeSet<_> = one.functions.keys().chain(other.functions.keys()).collect();
        for function in functions {
            let (a, b) = (one.functions.get(function), other.functions.get(function));
            self.only(&format!("function {name}.{function}"), a.is_some(), b.is_some());
            if a.is_some() && b.is_some() && a != b {
                self.push(format!("function {name}.{function} differs"));
            }
        }
        let enums: BTreeSet<_> = one.enums.keys().chain(other.enums.keys()).collect();
        for one_enum in enums {
            let (a, b) = (one.enums.get(one_enum), other.enums.get(one_enum));
            self.only(&format!("enum {name}.{one_enum}"), a.is_some(), b.is_some());
            if a.is_some() && b.is_some() && a != b {
                self.push(format!("enum {name}.{one_enum}: the labels differ"));
            }
        }
    }

    fn relation(&mut self, name: &str, one: &Relation, other: &Relation) {
        if one == other {
            return;
        }
        let what = format!("{} {name}", one.kind.word());
        if one.kind != other.kind {
            let (left, right) = (one.kind.word(), other.kind.word());
            self.push(format!(
                "{name} is a {left} on {} and a {right} on {}",
                self.left, self.right
            ));
            return;
        }
        let before = self.list.len();
        for column in one.columns.iter().chain(&other.columns) {
            let (a, b) = (one.column(&column.name), other.column(&column.name));
            let full = format!("column {} of {what}", column.name);
            let said = self.list.last().is_some_and(|last| last.starts_with(&full));
            if a == b || said {
                continue;
            }
            self.only(&full, a.is_some(), b.is_some());
            if let (Some(a), Some(b)) = (a, b)
                && std::ptr::eq(a, column)
            {
                let types = (&a.type_name, &b.type_name);
                self.push(if types.0 == types.1 {
                    format!("{full} differs")
                } else {
                    format!(
                        "{full} is {} on {} and {} on {}",
                        types.0, self.left, types.1, self.right
                    )
                });
            }
        }
        if self.list.len() == before {
            let order =
                one.columns.iter().map(|c| &c.name).ne(other.columns.iter().map(|c| &c.name));
            let parts = [
                (order, "the order of its columns differs"),
                (one.keys != other.keys, "its unique keys differ"),
                (one.foreign_keys != other.foreign_keys, "its foreign keys differ"),
                (one.triggers != other.triggers, "its triggers differ"),
                (one.rules != other.rules, "its rules differ"),
                (one.row_security != other.row_security, "its row security differs"),
                (one.view != other.view, "its definition differs"),
                (one.parents != other.parents, "what it is a part of differs"),
                (one.persistence != other.persistence, "its persistence differs"),
            ];
            let part = parts.iter().find(|(differs, _)| *differs);
            self.push(format!("{what}: {}", part.map_or("it differs", |(_, part)| part)));
        }
    }
}
