//! What a statement around a query makes of the query's rows: EXPLAIN shows
//! how they come to be, COPY … TO STDOUT writes them down, DECLARE keeps them.
//!
//! It reads the words before and behind the query; the query itself is
//! `scatter`'s. What it does not know is refused by name, as over several shards
//! no server reads these words.
//!
//! Sources: PostgreSQL manual, "EXPLAIN" and "COPY".

use crate::sql::classify;
use crate::sql::statement::Kind;
use crate::sql::token::{self, Tokens};

use super::cursor::DeclaredCursor;
use super::error::RouteError;
use super::scatter::several_shards;

/// A statement around a query over several shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrapping {
    /// EXPLAIN.
    Explain(Explain),
    /// COPY … TO STDOUT.
    Copy(CopyOut),
    /// DECLARE … CURSOR FOR.
    Declare(DeclaredCursor),
}

/// EXPLAIN, whose words stand before each part that a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// From EXPLAIN up to the query.
    pub head: Box<[u8]>,
    /// ANALYZE: the query is run.
    pub runs: bool,
}

/// How COPY … TO STDOUT writes rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOut {
    /// FORMAT.
    pub format: CopyFormat,
    /// HEADER: the columns' names come first.
    pub header: bool,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL.
    pub null: Box<str>,
}

/// The format of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// The server's own.
    Text,
    /// Comma separated values.
    Csv {
        /// QUOTE.
        quote: u8,
        /// ESCAPE.
        escape: u8,
        /// FORCE_QUOTE *: every value that is not NULL is quoted.
        force: bool,
    },
    /// The values' binary form.
    Binary,
}

/// The query in `text`, which is one statement of `kind`, and what stands
/// around it; `None` if nothing does.
///
/// # Errors
/// Words that several servers can't obey together, by name.
pub(crate) fn unwrap(text: &[u8], kind: Kind) -> Result<Option<(Wrapping, Vec<u8>)>, RouteError> {
    if !matches!(kind, Kind::Explain | Kind::CopyOut | Kind::Declare) {
        return Ok(None);
    }
    let list = token::tokens(text)?;
    let statements = token::statements(text, &list);
    let statement = statements.first().ok_or(RouteError::SeveralShards)?;
    let list = statement.without_hints();
    let t = Tokens { text, list: &list };
    let whole = classify::classify(&t);
    let inner = whole.inner.map(|(start, end)| (start, t.slice(start, end)));
    let query = |t: &Tokens<'_>| t.span().of(text).to_vec();
    match (kind, inner) {
        (Kind::Explain, Some((start, inner))) => {
            let head = text.get(t.span().start as usize..inner.span().start as usize);
            let runs = check_explain(&t.slice(0, start))?;
            let explain = Explain { head: head.unwrap_or_default().into(), runs };
            Ok(Some((Wrapping::Explain(explain), query(&inner))))
        }
        (Kind::Declare, Some((start, inner))) => {
            let declared = DeclaredCursor::read(&t.slice(0, start))?;
            Ok(Some((Wrapping::Declare(declared), query(&inner))))
        }
        (Kind::CopyOut, inner) => {
            let copy = copy_out(&t)?;
            Ok(Some((Wrapping::Copy(copy), inner.map(|(_, t)| query(&t)).unwrap_or_default())))
        }
        _ => Err(RouteError::SeveralShards),
    }
}

/// Whether EXPLAIN with these words runs the query.
fn check_explain(t: &Tokens<'_>) -> Result<bool, RouteError> {
    let mut runs = (1..t.len()).any(|i| {
        ["analyze", "analyse"].iter().any(|word| t.is_word(i, word)) && !t.is_punct(1, "(")
    });
    if !t.is_punct(1, "(") {
        return Ok(runs);
    }
    let end = t.after_parens(1).saturating_sub(1);
    let mut at = 2;
    while at < end {
        let next = (at..end).find(|i| t.is_punct(*i, ",")).unwrap_or(end);
        let name = t.name(at).unwrap_or_default();
        let value = (at + 1 < next).then(|| word(t, at + 1)).flatten();
        match &*name {
            "format" if value.as_deref() != Some("text") => {
                let format = value.unwrap_or_default().to_uppercase();
                return Err(several_shards(
                    &format!("EXPLAIN (FORMAT {format})"),
                    "leave FORMAT out: the shards' plans are shown as text",
                ));
            }
            "generic_plan" => {
                return Err(several_shards(
                    "EXPLAIN (GENERIC_PLAN)",
                    "give the parameters' values in a driver's prepared statement",
                ));
            }
            "analyze" | "analyse" => runs = is_on(value.as_deref()).unwrap_or(true),
            _ => {}
        }
        at = next + 1;
    }
    Ok(runs)
}

/// A word, a number or a constant.
fn word(t: &Tokens<'_>, at: usize) -> Option<String> {
    if let Some(name) = t.name(at) {
        return Some(name.to_lowercase());
    }
    t.literal(at)?.value(t.text).map(|value| value.to_lowercase())
}

/// The value of an option that is on or off; on if there is none.
fn is_on(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "on" | "1") => Some(true),
        Some("false" | "off" | "0") => Some(false),
        Some(_) => None,
    }
}

/// Reads the words behind the query or table.
fn copy_out(t: &Tokens<'_>) -> Result<CopyOut, RouteError> {
    let odd = |what: &str| {
        several_shards(
            &format!("COPY with {what}"),
            "copy from each shard, or fix the sharding key",
        )
    };
    let mut at = if t.is_punct(1, "(") { t.after_parens(1) } else { destination(t) };
    if !(t.is_word(at, "to") && (t.is_word(at + 1, "stdout") || t.is_word(at + 1, "stdin"))) {
        return Err(several_shards(
            "COPY to a file or program of a server",
            "copy TO STDOUT: psql has \\copy",
        ));
    }
    at += 2;
    at += usize::from(t.is_word(at, "with"));
    let mut options = Options::default();
    if t.is_punct(at, "(") {
        let end = t.after_parens(at).saturating_sub(1);
        at += 1;
        while at < end {
            at = options.listed(t, at, end).ok_or_else(|| odd(&shown(t, at)))? + 1;
        }
        at = end + 1;
    }
    while at < t.len() {
        at = options.bare(t, at).ok_or_else(|| odd(&shown(t, at)))?;
    }
    options.made().ok_or_else(|| odd("these options together"))
}

/// One past a table's name and columns.
fn destination(t: &Tokens<'_>) -> usize {
    let mut at = 1 + usize::from(t.is_word(1, "binary"));
    at += if t.is_punct(at + 1, ".") { 3 } else { 1 };
    if t.is_punct(at, "(") { t.after_parens(at) } else { at }
}

fn shown(t: &Tokens<'_>, at: usize) -> String {
    String::from_utf8_lossy(t.bytes(at)).chars().take(32).collect::<String>().to_uppercase()
}

#[derive(Default)]
struct Options {
    format: Option<String>,
    header: Option<bool>,
    delimiter: Option<String>,
    null: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    force: bool,
}

impl Options {
    /// An option in parentheses, up to the comma behind it.
    fn listed(&mut self, t: &Tokens<'_>, at: usize, end: usize) -> Option<usize> {
        let next = (at..end).find(|i| t.is_punct(*i, ",")).unwrap_or(end);
        let has_value = next == at + 2;
        let name = t.name(at)?;
        match &*name {
            "format" if has_value => set(&mut self.format, word(t, at + 1)?)?,
            "header" if has_value || next == at + 1 => {
                let value = has_value.then(|| word(t, at + 1)).flatten();
                set(&mut self.header, is_on(value.as_deref())?)?;
            }
            "force_quote" if has_value && t.is_operator(at + 1, "*") => self.force = true,
            _ if has_value => self.text(&name, t, at + 1)?,
            _ => return None,
        }
        Some(next)
    }

    /// An option of the older grammar, without parentheses.
    fn bare(&mut self, t: &Tokens<'_>, at: usize) -> Option<usize> {
        let name = t.name(at)?;
        match &*name {
            "csv" | "binary" => set(&mut self.format, name.to_string())?,
            "header" => set(&mut self.header, true)?,
            "force" if t.is_word(at + 1, "quote") && t.is_operator(at + 2, "*") => {
                self.force = true;
                return Some(at + 3);
            }
            _ => {
                let value = at + 1 + usize::from(t.is_word(at + 1, "as"));
                self.text(&name, t, value)?;
                return Some(value + 1);
            }
        }
        Some(at + 1)
    }

    fn text(&mut self, name: &str, t: &Tokens<'_>, at: usize) -> Option<()> {
        let value = t.literal(at)?.value(t.text)?.into_owned();
        match name {
            "delimiter" => set(&mut self.delimiter, value),
            "null" => set(&mut self.null, value),
            "quote" => set(&mut self.quote, value),
            "escape" => set(&mut self.escape, value),
            _ => None,
        }
    }

    /// What they say, if a server would take them.
    fn made(self) -> Option<CopyOut> {
        let byte = |given: Option<String>, usual: u8| match given {
            None => Some(usual),
            Some(text) => match *text.as_bytes() {
                [byte] if !b"\r\n\0".contains(&byte) => Some(byte),
                _ => None,
            },
        };
        let format = match self.format.as_deref() {
            None | Some("text") if self.quote.is_none() && self.escape.is_none() && !self.force => {
                CopyFormat::Text
            }
            Some("csv") => {
                let quote = byte(self.quote, b'"')?;
                CopyFormat::Csv { quote, escape: byte(self.escape, quote)?, force: self.force }
            }
            Some("binary") => {
                let others = self.header == Some(true)
                    || self.delimiter.is_some()
                    || self.null.is_some()
                    || self.quote.is_some()
                    || self.escape.is_some()
                    || self.force;
                return (!others).then(|| CopyOut {
                    format: CopyFormat::Binary,
                    header: false,
                    delimiter: 0,
                    null: Box::default(),
                });
            }
            _ => return None,
        };
        let (usual, null) = match format {
            CopyFormat::Text | CopyFormat::Binary => (b'\t', "\\N"),
            CopyFormat::Csv { .. } => (b',', ""),
        };
        let delimiter = byte(self.delimiter, usual)?;
        let null: Box<str> = self.null.map_or_else(|| null.into(), Into::into);
        let clashes = match format {
            CopyFormat::Csv { quote, .. } => delimiter == quote || null.as_bytes().contains(&quote),
            CopyFormat::Text | CopyFormat::Binary => RESERVED.contains(&delimiter),
        };
        let broken = null.bytes().any(|byte| byte == delimiter || b"\r\n".contains(&byte));
        let header = self.header.unwrap_or(false);
        (!clashes && !broken).then_some(CopyOut { format, header, delimiter, null })
    }
}

/// Sets what may be set once.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// No delimiters of the text format.
const RESERVED: &[u8] = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(text: &str) -> Result<CopyOut, String> {
        match unwrap(text.as_bytes(), Kind::CopyOut) {
            Ok(Some((Wrapping::Copy(copy), _))) => Ok(copy),
            Ok(other) => panic!("{text}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn query_and_words_around_it_are_parted() {
        let text = b"/* keyway: primary */ EXPLAIN (ANALYZE, costs off) -- x\n SELECT 1 ;";
        let (Wrapping::Explain(explain), query) = unwrap(text, Kind::Explain).unwrap().unwrap()
        else {
            panic!("it is an EXPLAIN");
        };
        assert_eq!(&*explain.head, b"EXPLAIN (ANALYZE, costs off) -- x\n ");
        assert!(explain.runs);
        assert_eq!(query, b"SELECT 1");
        let (_, query) = unwrap(b"COPY (SELECT (1)) TO STDOUT", Kind::CopyOut).unwrap().unwrap();
        assert_eq!(query, b"SELECT (1)");
        assert_eq!(unwrap(b"SELECT 1", Kind::Select), Ok(None));
    }

    #[test]
    fn explain_runs_only_with_analyze() {
        for (text, expected) in [
            ("EXPLAIN SELECT 1", Ok(false)),
            ("EXPLAIN ANALYZE SELECT 1", Ok(true)),
            ("EXPLAIN (ANALYZE off) SELECT 1", Ok(false)),
            ("EXPLAIN (VERBOSE, ANALYZE 1, FORMAT 'text') SELECT 1", Ok(true)),
            ("EXPLAIN (FORMAT JSON) SELECT 1", Err(())),
            ("EXPLAIN (GENERIC_PLAN) SELECT 1", Err(())),
        ] {
            let found = unwrap(text.as_bytes(), Kind::Explain).map(|found| match found {
                Some((Wrapping::Explain(explain), _)) => explain.runs,
                other => panic!("{text}: {other:?}"),
            });
            assert_eq!(found.map_err(|_| ()), expected, "{text}");
        }
    }

    #[test]
    fn options_of_both_grammars_are_read() {
        let csv = CopyFormat::Csv { quote: b'"', escape: b'"', force: false };
        let made = |format, header, delimiter, null: &str| {
            Ok(CopyOut { format, header, delimiter, null: null.into() })
        };
        for (text, expected) in [
            ("COPY (SELECT 1) TO STDOUT", made(CopyFormat::Text, false, b'\t', "\\N")),
            ("COPY t TO STDOUT CSV HEADER", made(csv, true, b',', "")),
            ("COPY s.t (a, b) TO STDOUT (FORMAT csv, HEADER on)", made(csv, true, b',', "")),
            (
                "COPY t TO STDOUT WITH DELIMITER AS '|' NULL ''",
                made(CopyFormat::Text, false, b'|', ""),
            ),
            ("COPY t TO STDOUT WITH (FORMAT binary)", made(CopyFormat::Binary, false, 0, "")),
            (
                "COPY t TO STDOUT (FORMAT csv, QUOTE '''', ESCAPE E'\\\\', FORCE_QUOTE *)",
                made(CopyFormat::Csv { quote: b'\'', escape: b'\\', force: true }, false, b',', ""),
            ),
        ] {
            assert_eq!(copy(text), expected, "{text}");
        }
    }

    #[test]
    fn what_a_server_would_not_take_or_can_not_be_done_is_refused() {
        for text in [
            "COPY t TO '/tmp/x'",
            "COPY t TO PROGRAM 'cat'",
            "COPY t TO STDOUT (ENCODING 'latin1')",
            "COPY t TO STDOUT (FORMAT csv, FORCE_QUOTE (a))",
            "COPY t TO STDOUT (DELIMITER 'ab')",
            "COPY t TO STDOUT (DELIMITER 'a')",
            "COPY t TO STDOUT (NULL 'a\tb')",
            "COPY t TO STDOUT (QUOTE '''')",
            "COPY t TO STDOUT (FORMAT csv, NULL '\"')",
            "COPY t TO STDOUT (FORMAT binary, HEADER)",
            "COPY t TO STDOUT (FORMAT json)",
            "COPY t TO STDOUT (FORMAT csv, FORMAT csv)",
            "COPY t TO STDOUT (HEADER match)",
        ] {
            assert!(copy(text).is_err(), "{text}: {:?}", copy(text));
        }
    }
}
