//! Which users a certificate's name may be.
//!
//! Source: PostgreSQL manual, "User Name Maps".

use super::fields::{self, Item};
use crate::document::{Problem, Source};

/// A file of maps of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameMaps(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    map: String,
    name: String,
    /// `None` is every user.
    user: Option<String>,
}

impl NameMaps {
    /// The maps of a file's text; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong or not supported, in the order of the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, Vec<Problem>> {
        let source = Source::new(file, text);
        let mut problems = Vec::new();
        let mut entries = Vec::new();
        for line in fields::lines(text, &source, &mut problems) {
            let at = line.fields.first().map_or(0, |field| field.at);
            let singles: Vec<&Item> = line.fields.iter().filter_map(|f| f.single()).collect();
            let [map, name, user] = &singles[..] else {
                let reason = "a line has three words: map, name in the certificate, user";
                problems.push(source.problem(at, reason));
                continue;
            };
            let beyond = |item: &Item| !item.quoted && item.text.starts_with(['/', '+']);
            if beyond(name) || beyond(user) {
                let reason = "regular expressions and groups are not supported: name each user";
                problems.push(source.problem(at, reason));
                continue;
            }
            entries.push(Entry {
                map: map.text.clone(),
                name: name.text.clone(),
                user: (!user.is("all")).then(|| user.text.clone()),
            });
        }
        if problems.is_empty() { Ok(Self(entries)) } else { Err(problems) }
    }

    /// True if there is a map of this name.
    pub fn has(&self, map: &str) -> bool {
        self.0.iter().any(|entry| entry.map == map)
    }

    /// True if `map` lets the owner of a certificate with `name` be `user`;
    /// without a map, if the two are the same.
    pub fn allow(&self, map: Option<&str>, name: &str, user: &str) -> bool {
        let Some(map) = map else { return name == user };
        self.0.iter().any(|entry| {
            entry.map == map
                && entry.name == name
                && entry.user.as_deref().is_none_or(|allowed| allowed == user)
        })
    }
}
