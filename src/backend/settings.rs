//! Session settings as a value: what a client has set, and how a backend gets
//! from one client's settings to another's.
//!
//! It does not know which statement sets what; `sql` reads that.

use std::collections::HashSet;
use std::rc::Rc;

/// How a setting is brought to a backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// A value from the startup message or `set_config`, in the flat form that
    /// `set_config` takes.
    Flat(Box<str>),
    /// The client's own SET statement, verbatim.
    Statement(Box<str>),
}

/// Settings that differ from the server's defaults, in the order of setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SettingsSet {
    entries: Vec<(Box<str>, Setting)>,
}

impl SettingsSet {
    /// True if nothing differs from the defaults.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of `name` (lower case), if set.
    pub fn find(&self, name: &str) -> Option<&Setting> {
        self.entries.iter().find(|(n, _)| &**n == name).map(|(_, value)| value)
    }

    /// Sets `name`; the newest setting stands last.
    pub fn set(&mut self, name: &str, value: Setting) {
        self.entries.retain(|(n, _)| &**n != name);
        self.entries.push((name.into(), value));
    }

    /// Takes `name` back to the default.
    pub fn reset(&mut self, name: &str) {
        self.entries.retain(|(n, _)| &**n != name);
    }

    /// Names and values, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.entries.iter().map(|(name, value)| (&**name, value))
    }

    /// Bytes that the names and values take.
    pub fn bytes(&self) -> usize {
        self.entries
            .iter()
            .map(|(name, value)| {
                name.len()
                    + match value {
                        Setting::Flat(text) | Setting::Statement(text) => text.len(),
                    }
            })
            .sum()
    }

    /// Appends the statements that turn a backend with `from` into one with
    /// `self`; nothing if they are equal.
    pub fn transition(&self, from: &Self, sql: &mut String) {
        for (name, _) in from.iter() {
            if self.find(name).is_none() {
                sql.push_str("RESET ");
                push_name(name, sql);
                sql.push(';');
            }
        }
        for (name, value) in self.iter() {
            if from.find(name) == Some(value) {
                continue;
            }
            match value {
                Setting::Flat(text) => {
                    sql.push_str("SELECT pg_catalog.set_config(");
                    sql.push_str(&quoted(name));
                    sql.push(',');
                    sql.push_str(&quoted(text));
                    sql.push_str(",false);");
                }
                Setting::Statement(text) => {
                    sql.push_str(text);
                    // A line comment at the end would swallow the semicolon.
                    sql.push_str("\n;");
                }
            }
        }
    }
}

/// Appends `name` so that RESET reads it: parts between dots, quoted where
/// they are not plain.
fn push_name(name: &str, sql: &mut String) {
    for (i, part) in name.split('.').enumerate() {
        if i > 0 {
            sql.push('.');
        }
        let plain = part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if plain {
            sql.push_str(part);
        } else {
            sql.push('"');
            sql.push_str(&part.replace('"', "\"\""));
            sql.push('"');
        }
    }
}

/// `text` as a literal that means the same whatever
/// `standard_conforming_strings` says.
pub fn quoted(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Makes equal sets the same allocation, so that "does this backend fit this
/// session" is a comparison of two pointers.
#[derive(Debug, Default)]
pub struct SettingsInterner {
    sets: HashSet<Rc<SettingsSet>>,
}

impl SettingsInterner {
    /// The shared value equal to `set`.
    pub fn intern(&mut self, set: SettingsSet) -> Rc<SettingsSet> {
        if let Some(shared) = self.sets.get(&set) {
            return Rc::clone(shared);
        }
        if self.sets.len() >= SETS_MAX {
            self.sets.retain(|shared| Rc::strong_count(shared) > 1);
        }
        let shared = Rc::new(set);
        self.sets.insert(Rc::clone(&shared));
        shared
    }
}

/// Sets kept before the unused are thrown out.
const SETS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, Setting)]) -> SettingsSet {
        let mut out = SettingsSet::default();
        for (name, value) in pairs {
            out.set(name, value.clone());
        }
        out
    }

    #[test]
    fn transition_resets_what_the_next_session_has_not_set() {
        let a = set(&[("search_path", Setting::Statement("SET search_path TO a, b".into()))]);
        let b = set(&[("timezone", Setting::Flat("UTC".into()))]);
        let mut sql = String::new();
        b.transition(&a, &mut sql);
        assert_eq!(sql, "RESET search_path;SELECT pg_catalog.set_config('timezone','UTC',false);");
        sql.clear();
        a.transition(&a, &mut sql);
        assert_eq!(sql, "");
    }

    #[test]
    fn values_can_not_leave_their_literal() {
        let a = set(&[("application_name", Setting::Flat("o'x\\'; drop table t;--".into()))]);
        let mut sql = String::new();
        a.transition(&SettingsSet::default(), &mut sql);
        assert_eq!(
            sql,
            "SELECT pg_catalog.set_config('application_name', E'o''x\\\\''; drop table t;--',false);"
        );
        sql.clear();
        SettingsSet::default()
            .transition(&set(&[("a b.c\"d", Setting::Flat("".into()))]), &mut sql);
        assert_eq!(sql, "RESET \"a b\".\"c\"\"d\";");
    }

    #[test]
    fn equal_sets_are_one_allocation() {
        let mut interner = SettingsInterner::default();
        let a = interner.intern(set(&[("role", Setting::Flat("x".into()))]));
        let b = interner.intern(set(&[("role", Setting::Flat("x".into()))]));
        assert!(Rc::ptr_eq(&a, &b));
    }
}
