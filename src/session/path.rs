//! The session's search path: what the client, its transaction, or else the
//! server's own defaults for its role say, and who `"$user"` is in it.
//!
//! It does not know which schemas exist.

use std::rc::Rc;

use crate::backend::{Setting, SettingsSet};
use crate::route::SearchPath;

use super::effects::{Effect, is_role};
use super::events::shown;
use super::feed::Feed;
use super::{PathOf, Session, Tx};

impl Session {
    /// What the settings mean for looking names up.
    pub(super) fn note_path(&mut self, settings: &SettingsSet) {
        self.role = role_of(settings);
        let path = settings.find("search_path").map(shown);
        self.take_path(path.as_deref());
    }

    /// Looks names up by `path`, or by the default of the login's role. A path
    /// that can't be read finds no table at all.
    fn take_path(&mut self, path: Option<&str>) {
        // Whose name "$user" is, the map's login decides where there is one.
        let of_user = path.filter(|path| path.contains("$user"));
        self.user_path = of_user.map(Into::into);
        let fixed = path.is_some() && of_user.is_none();
        self.path_of = if fixed { PathOf::Client } else { PathOf::Catalog(0) };
        let user = self.role.as_deref().unwrap_or(&self.user);
        let path = SearchPath::parse(path.unwrap_or(DEFAULT_SEARCH_PATH), user);
        self.look_up_by(path.unwrap_or_else(|| SearchPath::new([])));
    }

    /// The path and role that the running transaction has set, or the settings'.
    pub(super) fn refresh_path(&mut self) {
        let mut path: Option<Option<String>> = None;
        let mut role: Option<Option<Box<str>>> = None;
        let startup = || self.startup.find("search_path").map(shown);
        let lazy = match &self.tx {
            Tx::Lazy(lazy) => Some(lazy.effects()),
            Tx::Backend => None,
        };
        for effect in lazy.into_iter().flatten().chain(self.log.effects()) {
            match effect {
                Effect::Path(Some(text)) => path = Some(Some(text.to_string())),
                Effect::Role(name) => {
                    role = Some(name.as_deref().and_then(|name| folded(name, false)))
                }
                Effect::Set(name, Setting::Flat(text)) if is_role(name) => {
                    role = Some(folded(text, false));
                }
                Effect::Set(_, Setting::Flat(text)) if effect.moves_path() => {
                    path = Some(Some(text.to_string()));
                }
                // What it sets stands beside it.
                Effect::Set(_, Setting::Statement(_)) => {}
                Effect::Restore(name) | Effect::Reset(name) if is_role(name) => {
                    role = Some(role_of(&self.startup));
                }
                _ if effect.moves_path() => path = Some(startup()),
                _ => {}
            }
        }
        if path.is_none() && role.is_none() {
            if self.path_moved {
                self.path_moved = false;
                let settings = Rc::clone(&self.settings);
                self.note_settings(&settings);
            }
            return;
        }
        self.path_moved = true;
        self.role = role.unwrap_or_else(|| role_of(&self.settings));
        let path = path.unwrap_or_else(|| self.settings.find("search_path").map(shown));
        self.take_path(path.as_deref());
    }
}

impl Feed<'_, '_> {
    /// Without a search path of the client's own, sessions have the one that the
    /// server gives to their role.
    #[inline]
    pub(super) fn note_default_path(&mut self) {
        let serial = self.env.catalog_serial;
        match self.s.path_of {
            PathOf::Catalog(known) if known != serial => self.take_default_path(serial),
            PathOf::Catalog(_) | PathOf::Client => {}
        }
    }

    #[cold]
    fn take_default_path(&mut self, serial: u64) {
        self.s.path_of = PathOf::Catalog(serial);
        let login = self.role();
        let path = match &self.s.user_path {
            Some(path) => path,
            None => self.env.catalog.search_path(login).unwrap_or(DEFAULT_SEARCH_PATH),
        };
        let user = self.s.role.as_deref().unwrap_or(login);
        let path = SearchPath::parse(path, user).unwrap_or_else(|| SearchPath::new([]));
        self.s.look_up_by(path);
    }
}

/// The role that SET ROLE or SET SESSION AUTHORIZATION has made the current one.
fn role_of(settings: &SettingsSet) -> Option<Box<str>> {
    let of = |name: &str| folded(&shown(settings.find(name)?), true);
    of("role").or_else(|| of("session_authorization"))
}

/// The role that a value names; `None` if it is none. `written`: as in the text,
/// with quotes where it is not to be folded.
fn folded(value: &str, written: bool) -> Option<Box<str>> {
    let value = value.trim_matches([' ', ';']);
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let name = match (written, quoted) {
        (true, Some(inner)) => inner.replace("\"\"", "\""),
        (true, None) => value.to_ascii_lowercase(),
        (false, _) => value.to_owned(),
    };
    (name != "none").then(|| name.into())
}

/// Postgres's own default.
const DEFAULT_SEARCH_PATH: &str = "\"$user\", public";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_folded_as_the_server_folds_them() {
        let of = |statement: &str| {
            let mut settings = SettingsSet::default();
            settings.set("role", Setting::Statement(statement.into()));
            role_of(&settings)
        };
        assert_eq!(of("SET ROLE Joe").as_deref(), Some("joe"));
        assert_eq!(of("set role \"Joe\"").as_deref(), Some("Joe"));
        assert_eq!(of("set role to 'Joe';").as_deref(), Some("Joe"));
        assert_eq!(of("SET ROLE none"), None);
        assert_eq!(role_of(&SettingsSet::default()), None);
    }
}
