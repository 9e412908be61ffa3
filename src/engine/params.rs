//! What a server says of itself at login, and what a client is told.

use crate::backend::{Setting, SettingsSet};

/// Parameters that a backend reported before its first ReadyForQuery.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerParams {
    entries: Vec<(Box<str>, Box<str>)>,
}

impl ServerParams {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.entries.retain(|(n, _)| &**n != name);
        self.entries.push((name.into(), value.into()));
    }

    /// What a client with these startup settings is told: the server's own
    /// values, with the client's where it gave one. A node's own state is not
    /// told, because the node may change.
    pub(super) fn for_client(&self, user: &str, settings: &SettingsSet) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = Vec::with_capacity(self.entries.len() + 2);
        for (name, value) in &self.entries {
            let value = match (&**name, settings.find(&name.to_lowercase())) {
                ("in_hot_standby", _) => "off".to_owned(),
                ("session_authorization", _) => user.to_owned(),
                ("client_encoding", Some(Setting::Flat(text))) => canonical_encoding(text),
                (_, Some(Setting::Flat(text))) => text.to_string(),
                _ => value.to_string(),
            };
            out.push((name.to_string(), value));
        }
        for (name, value) in DEFAULTS {
            if !out.iter().any(|(n, _)| n == name) {
                let value = match settings.find(&name.to_lowercase()) {
                    Some(Setting::Flat(text)) => text.to_string(),
                    Some(Setting::Statement(_)) | None => (*value).to_owned(),
                };
                out.push(((*name).to_owned(), value));
            }
        }
        out
    }
}

/// `utf8`, `UTF-8` and `unicode` are told as Postgres tells them.
fn canonical_encoding(text: &str) -> String {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => "UTF8".to_owned(),
        _ => text.to_ascii_uppercase(),
    }
}

/// Told while no backend has been seen yet. The version is the oldest that the
/// router supports, so that drivers use nothing that it may lack.
const DEFAULTS: &[(&str, &str)] = &[
    ("server_version", "15.0"),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("application_name", ""),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "Etc/UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
];
