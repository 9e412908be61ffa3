//! The words of DECLARE, FETCH, MOVE and CLOSE, for cursors over several
//! shards, which no server reads.
//!
//! Source: PostgreSQL manual, "DECLARE" and "FETCH".

use crate::sql::classify::Classified;
use crate::sql::statement::Kind;
use crate::sql::token::{self, Token, Tokens};

use super::error::RouteError;
use super::scatter::several_shards;

/// A cursor as DECLARE makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredCursor {
    /// Its name.
    pub name: Box<str>,
    /// BINARY: its rows are in the binary format.
    pub binary: bool,
    /// WITH HOLD: it outlives the transaction.
    pub hold: bool,
}

/// What is asked of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// The next rows; all that are left if there is no number.
    Rows {
        /// At most so many.
        max: Option<u64>,
    },
    /// The same without giving them.
    Move {
        /// At most so many.
        max: Option<u64>,
    },
    /// Its end.
    Close,
}

impl DeclaredCursor {
    /// Reads what stands before the query.
    ///
    /// # Errors
    /// It can't be done over several shards.
    pub(super) fn read(t: &Tokens<'_>) -> Result<Self, RouteError> {
        let name = t.name(1).ok_or(RouteError::SeveralShards)?;
        let at = (2..t.len()).find(|i| t.is_word(*i, "cursor")).unwrap_or(t.len());
        let has = |word| (2..at).any(|i| t.is_word(i, word));
        if has("scroll") && !has("no") {
            return Err(several_shards("a SCROLL cursor", FORWARD));
        }
        Ok(Self { name, binary: has("binary"), hold: t.are_words(at + 1, &["with", "hold"]) })
    }
}

impl Fetch {
    /// Reads a statement about a cursor.
    ///
    /// # Errors
    /// It goes anywhere but forward.
    pub fn read(text: &[u8]) -> Result<Self, RouteError> {
        let list = token::tokens(text)?;
        let statements = token::statements(text, &list);
        let list = statements.first().ok_or(RouteError::SeveralShards)?.without_hints();
        let t = Tokens { text, list: &list };
        if t.is_word(0, "close") {
            return Ok(Self::Close);
        }
        let mut end = t.len().saturating_sub(1);
        if end > 1 && ["from", "in"].iter().any(|word| t.is_word(end - 1, word)) {
            end -= 1;
        }
        let start = 1 + usize::from(end > 1 && t.is_word(1, "forward"));
        let count = || t.literal(start)?.value(text)?.parse::<u64>().ok();
        let max = match end.saturating_sub(start) {
            0 => Some(1),
            1 if t.is_word(start, "next") && start == 1 => Some(1),
            1 if t.is_word(start, "all") => None,
            1 if let Some(count) = count().filter(|count| *count > 0) => Some(count),
            _ => {
                let construct = "FETCH or MOVE other than forward in a cursor";
                return Err(several_shards(construct, FORWARD));
            }
        };
        Ok(if t.is_word(0, "move") { Self::Move { max } } else { Self::Rows { max } })
    }
}

/// The name of the cursor that the only statement of `text` is about.
pub(super) fn of(text: &[u8], lists: &[Vec<Token>], statements: &[Classified]) -> Option<Box<str>> {
    match (lists, statements) {
        ([list], [one]) => named(&Tokens { text, list }, one.facts.kind),
        _ => None,
    }
}

fn named(t: &Tokens<'_>, kind: Kind) -> Option<Box<str>> {
    let all = t.is_word(0, "close") && t.is_word(1, "all");
    match kind {
        Kind::Cursor if !all => t.name(t.len().checked_sub(1)?),
        Kind::Declare => t.name(1),
        _ => None,
    }
}

const FORWARD: &str = "fetch forward only, or fix the sharding key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_is_read_and_everything_else_refused() {
        for (text, expected) in [
            ("FETCH c", Some(Some(1))),
            ("FETCH NEXT FROM c", Some(Some(1))),
            ("FETCH 100 IN c", Some(Some(100))),
            ("FETCH FORWARD 7 FROM \"C d\";", Some(Some(7))),
            ("FETCH FORWARD c", Some(Some(1))),
            ("FETCH ALL c", Some(None)),
            ("FETCH FORWARD ALL FROM c", Some(None)),
            ("FETCH 0 FROM c", None),
            ("FETCH -1 FROM c", None),
            ("FETCH PRIOR FROM c", None),
            ("FETCH BACKWARD 3 FROM c", None),
            ("FETCH ABSOLUTE 3 FROM c", None),
            ("FETCH LAST FROM c", None),
        ] {
            let expected = expected.map(|max| Fetch::Rows { max });
            assert_eq!(Fetch::read(text.as_bytes()).ok(), expected, "{text}");
            let moved = text.replace("FETCH", "move");
            let is_move = matches!(Fetch::read(moved.as_bytes()), Ok(Fetch::Move { .. }));
            assert_eq!(is_move, expected.is_some(), "{moved}");
        }
        assert_eq!(Fetch::read(b"CLOSE c").ok(), Some(Fetch::Close));
    }

    #[test]
    fn declared_words_are_read() {
        let read = |text: &str| {
            let list = token::tokens(text.as_bytes()).unwrap();
            DeclaredCursor::read(&Tokens { text: text.as_bytes(), list: &list }).ok()
        };
        let cursor = |binary, hold| Some(DeclaredCursor { name: "c".into(), binary, hold });
        assert_eq!(read("DECLARE c CURSOR FOR"), cursor(false, false));
        assert_eq!(read("DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR"), cursor(false, false));
        assert_eq!(read("DECLARE C BINARY INSENSITIVE CURSOR WITH HOLD FOR"), cursor(true, true));
        assert_eq!(read("DECLARE c SCROLL CURSOR FOR"), None);
    }
}
