//! RESET means the client's value at startup, which no server knows: the
//! backend was opened for whoever comes. Where the two differ, a statement of
//! the router's own takes the place of the client's, and the client reads the
//! tag that it waits for.
//!
//! Also where settings hide a text from the router's reading.

use std::ops::Range;

use crate::backend::{Setting, SettingsSet, quoted};
use crate::sql::statement::{Facts, SessionEffect, TxEffect};

/// A text in which some statements were replaced.
pub(super) struct Restoring {
    /// The text to send.
    pub(super) sql: Vec<u8>,
    /// For each statement, the tag that the client reads if not the server's.
    pub(super) tags: Vec<Option<&'static str>>,
}

/// How much of a session a DISCARD ALL has to undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    /// Only settings: the backend is nobody's.
    Settings,
    /// Everything: the session holds its backend.
    Everything,
    /// The statement itself is sent: the server is to refuse it.
    AsItStands,
}

/// The text with every RESET of a setting that the client gave at startup
/// replaced; `None` if there is none.
pub(super) fn restoring(
    text: &[u8],
    statements: &[Facts],
    startup: &SettingsSet,
    discard: Discard,
) -> Option<Restoring> {
    let mut out = Restoring { sql: Vec::new(), tags: Vec::new() };
    let mut at = 0;
    let mut found = false;
    for facts in statements {
        let replaced = match (&facts.effect, statements.len()) {
            (SessionEffect::DiscardAll, 1) => discarding(startup, discard),
            _ => replacement(facts, startup),
        };
        out.tags.push(replaced.as_ref().map(|(_, tag)| *tag));
        if let Some((sql, _)) = replaced {
            let Range { start, end } = facts.span.range();
            out.sql.extend_from_slice(text.get(at..start)?);
            out.sql.extend_from_slice(sql.as_bytes());
            at = end;
            found = true;
        }
    }
    out.sql.extend_from_slice(text.get(at..)?);
    found.then_some(out)
}

/// What the client's statement is on a server, with the tag that the client
/// reads; `None` if it is what it says.
pub(super) fn replacement(facts: &Facts, startup: &SettingsSet) -> Option<(String, &'static str)> {
    if !matches!(facts.tx, TxEffect::None) {
        return None;
    }
    match &facts.effect {
        SessionEffect::Reset { name } => {
            Some((set_again(name, startup.find(name)?, Lasting::Session), "RESET"))
        }
        SessionEffect::Set { name, value: None, local, .. } => {
            let lasting = if *local { Lasting::Transaction } else { Lasting::Session };
            Some((set_again(name, startup.find(name)?, lasting), "SET"))
        }
        SessionEffect::ResetAll if !startup.is_empty() => {
            Some((block(&["RESET ALL"], startup), "RESET"))
        }
        _ => None,
    }
}

fn discarding(startup: &SettingsSet, discard: Discard) -> Option<(String, &'static str)> {
    let statements = match discard {
        Discard::Settings => SETTINGS,
        Discard::Everything => EVERYTHING,
        Discard::AsItStands => return None,
    };
    Some((block(statements, startup), "DISCARD ALL"))
}

#[derive(Clone, Copy)]
enum Lasting {
    Session,
    Transaction,
}

fn set_again(name: &str, value: &Setting, lasting: Lasting) -> String {
    let mut body = String::from("BEGIN ");
    push_set(name, value, lasting, &mut body);
    body.push_str("END");
    format!("DO {}", quoted(&body))
}

fn block(statements: &[&str], startup: &SettingsSet) -> String {
    let mut body = String::from("BEGIN ");
    for statement in statements {
        body.push_str(statement);
        body.push(';');
    }
    for (name, value) in startup.iter() {
        push_set(name, value, Lasting::Session, &mut body);
    }
    body.push_str("END");
    format!("DO {}", quoted(&body))
}

fn push_set(name: &str, value: &Setting, lasting: Lasting, body: &mut String) {
    // Values at startup are flat; a statement is never one.
    let (Setting::Flat(text) | Setting::Statement(text)) = value;
    let local = match lasting {
        Lasting::Session => "false",
        Lasting::Transaction => "true",
    };
    let (name, text) = (quoted(name), quoted(text));
    body.push_str(&format!("PERFORM pg_catalog.set_config({name},{text},{local});"));
}

/// What DISCARD ALL undoes on a backend that nobody holds.
const SETTINGS: &[&str] = &["SET SESSION AUTHORIZATION DEFAULT", "RESET ALL"];
/// What DISCARD ALL does, as the manual lists it.
const EVERYTHING: &[&str] = &[
    "EXECUTE 'CLOSE ALL'",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET ALL",
    "DEALLOCATE ALL",
    "UNLISTEN *",
    "PERFORM pg_catalog.pg_advisory_unlock_all()",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
];

/// Settings that hide some texts from the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hidden {
    /// The client's encoding is not UTF-8.
    pub(super) encoding: bool,
    /// `standard_conforming_strings` is off.
    pub(super) strings: bool,
}

impl Hidden {
    /// True if a text may be hidden.
    pub(super) const fn any(self) -> bool {
        self.encoding || self.strings
    }

    /// True if this one is. Every client encoding writes ASCII as ASCII, and
    /// without a backslash both kinds of string are one.
    pub(super) fn hides(self, text: &[u8]) -> bool {
        (self.encoding && !text.is_ascii()) || (self.strings && text.contains(&b'\\'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::{Kind, Span};
    use crate::types::Access;

    fn startup() -> SettingsSet {
        let mut set = SettingsSet::default();
        set.set("timezone", Setting::Flat("Asia/Tokyo".into()));
        set.set("search_path", Setting::Flat("a, 'b".into()));
        set
    }

    fn facts(text: &str, part: &str, effect: SessionEffect) -> Facts {
        let start = u32::try_from(text.find(part).unwrap()).unwrap();
        let end = start + u32::try_from(part.len()).unwrap();
        Facts {
            kind: Kind::Reset,
            span: Span { start, end },
            access: Access::Write,
            tx: TxEffect::None,
            effect,
        }
    }

    #[track_caller]
    fn check(text: &str, statements: &[Facts], sql: &str, tags: &[Option<&str>]) {
        let found = restoring(text.as_bytes(), statements, &startup(), Discard::Settings).unwrap();
        assert_eq!(String::from_utf8(found.sql).unwrap(), sql);
        assert_eq!(found.tags, tags);
    }

    #[test]
    fn reset_goes_to_the_value_at_startup_and_the_rest_of_the_text_stays() {
        let text = "select 1; reset timezone; show timezone";
        let statements = [
            facts(text, "select 1", SessionEffect::None),
            facts(text, "reset timezone", SessionEffect::Reset { name: "timezone".into() }),
            facts(text, "show timezone", SessionEffect::None),
        ];
        check(
            text,
            &statements,
            "select 1; DO 'BEGIN PERFORM pg_catalog.set_config(''timezone'',''Asia/Tokyo'',false);END'; show timezone",
            &[None, Some("RESET"), None],
        );
    }

    #[test]
    fn values_stay_within_their_literals() {
        let text = "reset search_path";
        let reset = facts(text, text, SessionEffect::Reset { name: "search_path".into() });
        check(
            text,
            &[reset],
            "DO 'BEGIN PERFORM pg_catalog.set_config(''search_path'',''a, ''''b'',false);END'",
            &[Some("RESET")],
        );
    }

    #[test]
    fn what_the_client_did_not_give_at_startup_is_reset_by_the_server() {
        let text = "reset work_mem";
        let reset = facts(text, text, SessionEffect::Reset { name: "work_mem".into() });
        assert!(restoring(text.as_bytes(), &[reset], &startup(), Discard::Settings).is_none());
        let all = facts("reset all", "reset all", SessionEffect::ResetAll);
        let nothing = SettingsSet::default();
        assert!(restoring(b"reset all", &[all], &nothing, Discard::Settings).is_none());
    }

    #[test]
    fn ascii_without_backslashes_is_read_whatever_the_settings_are() {
        let hidden = Hidden { encoding: true, strings: true };
        assert!(!hidden.hides(b"select 'a'"));
        assert!(hidden.hides(b"select 'a\\'"));
        assert!(hidden.hides("select '\u{e4}'".as_bytes()));
        assert!(!Hidden::default().hides("select '\u{e4}\\'".as_bytes()));
    }
}
