//! A place in a statement's tokens, and what stands there.

use crate::sql::lex::TokenKind;
use crate::sql::literal::LiteralKind;
use crate::sql::token::{Kind, Tokens};
use crate::sql::tree::Name;

use super::ParseError;
use super::words::{self, Category};

pub(super) type Read<T> = Result<T, ParseError>;

/// Reads one statement's tokens in order.
pub(super) struct Reader<'a> {
    pub(super) t: Tokens<'a>,
    /// For each opening parenthesis the index of the one that closes it.
    closing: Vec<u32>,
    pub(super) at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(t: Tokens<'a>) -> Self {
        let mut closing = vec![u32::MAX; t.len()];
        let mut open = Vec::new();
        for (index, i) in (0_u32..).zip(0..t.len()) {
            if t.is_punct(i, "(") {
                open.push(i);
            } else if t.is_punct(i, ")")
                && let Some(place) = open.pop().and_then(|at| closing.get_mut(at))
            {
                *place = index;
            }
        }
        Self { t, closing, at: 0, depth: 0 }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.at >= self.t.len()
    }

    /// Runs `read` one level deeper; too deep is refused, so that no statement
    /// exhausts the stack.
    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth >= DEPTH_MAX {
            return Err(too_deep());
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// The index of the parenthesis that closes the one at `open`.
    pub(super) fn closing(&self, open: usize) -> Option<usize> {
        self.closing.get(open).filter(|at| **at != u32::MAX).map(|at| *at as usize)
    }

    pub(super) fn word(&self, word: &str) -> bool {
        self.t.is_word(self.at, word)
    }

    pub(super) fn any_word(&self, words: &[&str]) -> bool {
        self.any_word_at(self.at, words)
    }

    pub(super) fn any_word_at(&self, at: usize, words: &[&str]) -> bool {
        self.t.kind(at) == Some(Kind::Plain(TokenKind::Word))
            && words.iter().any(|word| self.t.is_word(at, word))
    }

    pub(super) fn words(&self, words: &[&str]) -> bool {
        self.t.are_words(self.at, words)
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_words(&mut self, words: &[&str]) -> bool {
        let found = self.words(words);
        if found {
            self.at += words.len();
        }
        found
    }

    /// Takes one of `words` if it is there.
    pub(super) fn eat_any(&mut self, words: &[&str]) -> bool {
        let found = self.any_word(words);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Read<()> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn punct(&self, punct: &str) -> bool {
        self.t.is_punct(self.at, punct)
    }

    pub(super) fn eat_punct(&mut self, punct: &str) -> bool {
        let found = self.punct(punct);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_punct(&mut self, punct: &str) -> Read<()> {
        if self.eat_punct(punct) { Ok(()) } else { Err(self.unexpected()) }
    }

    pub(super) fn operator(&self) -> Option<&'a [u8]> {
        (self.t.kind(self.at) == Some(Kind::Plain(TokenKind::Operator)))
            .then(|| self.t.bytes(self.at))
    }

    pub(super) fn eat_operator(&mut self, operator: &str) -> bool {
        let found = self.t.is_operator(self.at, operator);
        self.at += usize::from(found);
        found
    }

    /// The number and notation of the constant at `at`.
    pub(super) fn literal_at(&self, at: usize) -> Option<(u32, LiteralKind)> {
        match self.t.kind(at)? {
            Kind::Literal(number, kind) => Some((number, kind)),
            Kind::Plain(_) | Kind::Hint => None,
        }
    }

    /// Whether a string constant stands at `at`.
    pub(super) fn is_string(&self, at: usize) -> bool {
        self.literal_at(at).is_some_and(|(_, kind)| match kind {
            LiteralKind::Plain
            | LiteralKind::Escape
            | LiteralKind::Unicode
            | LiteralKind::Dollar
            | LiteralKind::National => true,
            LiteralKind::Integer
            | LiteralKind::Numeric
            | LiteralKind::Bits
            | LiteralKind::HexBits => false,
        })
    }

    /// The category of the word at `at`; `None` for other tokens. A quoted
    /// name is free.
    pub(super) fn category_at(&self, at: usize) -> Option<Category> {
        match self.t.kind(at)? {
            Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted) => Some(Category::Free),
            Kind::Plain(TokenKind::Word) => Some(words::category(self.t.name(at)?.as_ref())),
            Kind::Plain(TokenKind::Param | TokenKind::Operator | TokenKind::Punct)
            | Kind::Literal(..)
            | Kind::Hint => None,
        }
    }

    /// The name at `at`, whatever word it is.
    fn name_at(&self, at: usize) -> Read<Name> {
        if self.t.kind(at) == Some(Kind::Plain(TokenKind::UnicodeQuoted)) {
            return construct("a name with Unicode escapes");
        }
        self.t.name(at).ok_or_else(|| self.unexpected())
    }

    /// A name of a column, table or alias.
    pub(super) fn name(&mut self) -> Read<Name> {
        match self.category_at(self.at) {
            Some(Category::Free | Category::ColumnName) => {
                let name = self.name_at(self.at)?;
                self.at += 1;
                Ok(name)
            }
            Some(Category::TypeOrFunction | Category::Reserved) | None => Err(self.unexpected()),
        }
    }

    /// Whether a name of a column, table or alias stands here.
    pub(super) fn at_name(&self) -> bool {
        matches!(self.category_at(self.at), Some(Category::Free | Category::ColumnName))
    }

    /// Any word, as after AS or a dot.
    pub(super) fn label(&mut self) -> Read<Name> {
        let name = self.name_at(self.at)?;
        self.at += 1;
        Ok(name)
    }

    /// Whether an output column may be named here without AS.
    pub(super) fn at_bare_label(&self) -> bool {
        match self.t.kind(self.at) {
            Some(Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted)) => true,
            Some(Kind::Plain(TokenKind::Word)) => {
                self.t.name(self.at).is_some_and(|word| words::is_bare_label(&word))
            }
            _ => false,
        }
    }

    /// `(name, …)`.
    pub(super) fn name_list(&mut self) -> Read<Vec<Name>> {
        self.expect_punct("(")?;
        let mut names = vec![self.name()?];
        while self.eat_punct(",") {
            names.push(self.name()?);
        }
        self.expect_punct(")")?;
        Ok(names)
    }

    /// A table's name, perhaps with its schema.
    pub(super) fn qualified(&mut self) -> Read<(Option<Name>, Name)> {
        let first = self.name()?;
        if !self.eat_punct(".") {
            return Ok((None, first));
        }
        let second = self.label()?;
        if self.punct(".") {
            return construct("a table name with a database");
        }
        Ok((Some(first), second))
    }

    /// Whether the parenthesis at `open` holds a query, not an expression or a
    /// join.
    pub(super) fn is_query(&self, open: usize) -> bool {
        let mut open = open;
        loop {
            if !self.t.is_punct(open, "(") {
                return false;
            }
            let next = open + 1;
            if self.any_word_at(next, &["select", "with", "table"])
                || (self.t.is_word(next, "values") && self.t.is_punct(next + 1, "("))
            {
                return true;
            }
            // `((select …) …)` is a query if nothing follows inside, or what
            // only follows queries.
            let Some(inner) = self.closing(next).filter(|_| self.t.is_punct(next, "(")) else {
                return false;
            };
            let alone = self.closing(open) == Some(inner + 1);
            if !alone && !self.any_word_at(inner + 1, QUERIES_GO_ON) {
                return false;
            }
            open = next;
        }
    }

    pub(super) fn unexpected(&self) -> ParseError {
        if self.is_done() {
            return ParseError::Unread("unexpected end of the statement".into());
        }
        if self.literal_at(self.at).is_some() {
            return ParseError::Unread("unexpected constant".into());
        }
        let found = String::from_utf8_lossy(self.t.bytes(self.at));
        let found: String = found.chars().take(SHOWN_CHARS_MAX).collect();
        ParseError::Unread(format!("unexpected {found}").into())
    }
}

pub(super) fn construct<T>(what: &str) -> Read<T> {
    Err(ParseError::Construct(what.into()))
}

pub(super) fn too_deep() -> ParseError {
    ParseError::Construct("an expression or query so deeply nested".into())
}

/// Levels of expressions and queries that may lie in each other.
const DEPTH_MAX: usize = 300;
/// Words that follow a query in parentheses that is part of another one.
const QUERIES_GO_ON: &[&str] =
    &["union", "intersect", "except", "order", "limit", "offset", "fetch", "for"];
/// More of a token is not shown.
const SHOWN_CHARS_MAX: usize = 32;
