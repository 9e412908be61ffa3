//! A text as a list of tokens, split into statements: the cold reader's view.
//!
//! It knows no keyword but those that decide where a statement ends.

use super::lex::{self, ScanError, Sink, TokenKind};
use super::literal::{Literal, LiteralKind};
use super::statement::Span;

/// One token of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain(TokenKind),
    /// The constant with this index.
    Literal(u32, LiteralKind),
    Hint,
}

/// A run of tokens with the text they stand in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    pub(crate) text: &'a [u8],
    pub(crate) list: &'a [Token],
}

/// Lists the tokens of `text`.
///
/// # Errors
/// As the scanner.
pub(crate) fn tokens(text: &[u8]) -> Result<Vec<Token>, ScanError> {
    let mut list = List { tokens: Vec::new(), literals: 0 };
    lex::lex(text, &mut list)?;
    Ok(list.tokens)
}

/// Splits tokens into statements: at semicolons outside parentheses and outside
/// the body of an SQL function. Empty statements are left out.
pub(crate) fn statements<'a>(text: &'a [u8], list: &'a [Token]) -> Vec<Tokens<'a>> {
    let all = Tokens { text, list };
    let mut found = Vec::new();
    let (mut start, mut depth, mut atomic) = (0, 0_usize, 0_usize);
    for i in 0..list.len() {
        if all.is_punct(i, "(") {
            depth += 1;
        } else if all.is_punct(i, ")") {
            depth = depth.saturating_sub(1);
        } else if (all.is_word(i, "begin") && all.is_word(i + 1, "atomic"))
            || (atomic > 0 && all.is_word(i, "case"))
        {
            atomic += 1;
        } else if atomic > 0 && all.is_word(i, "end") {
            atomic -= 1;
        } else if all.is_punct(i, ";") && depth == 0 && atomic == 0 {
            found.push(all.slice(start, i));
            start = i + 1;
        }
    }
    found.push(all.slice(start, list.len()));
    found.retain(|statement| statement.list.iter().any(|token| token.kind != Kind::Hint));
    found
}

impl<'a> Tokens<'a> {
    pub(crate) const fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> Self {
        Self { text: self.text, list: self.list.get(start..end).unwrap_or_default() }
    }

    pub(crate) fn from(&self, start: usize) -> Self {
        self.slice(start, self.list.len())
    }

    /// The tokens that the server sees.
    pub(crate) fn without_hints(&self) -> Vec<Token> {
        self.list.iter().filter(|token| token.kind != Kind::Hint).copied().collect()
    }

    /// The bytes of token `i`; empty past the end.
    pub(crate) fn bytes(&self, i: usize) -> &'a [u8] {
        self.list
            .get(i)
            .and_then(|token| self.text.get(token.start as usize..token.end as usize))
            .unwrap_or_default()
    }

    pub(crate) fn kind(&self, i: usize) -> Option<Kind> {
        self.list.get(i).map(|token| token.kind)
    }

    /// Whether token `i` is the keyword `word`, in whatever case.
    pub(crate) fn is_word(&self, i: usize, word: &str) -> bool {
        self.kind(i) == Some(Kind::Plain(TokenKind::Word))
            && self.bytes(i).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether the tokens from `i` are these keywords.
    pub(crate) fn are_words(&self, i: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.is_word(i + n, word))
    }

    pub(crate) fn is_punct(&self, i: usize, punct: &str) -> bool {
        self.kind(i) == Some(Kind::Plain(TokenKind::Punct)) && self.bytes(i) == punct.as_bytes()
    }

    pub(crate) fn is_operator(&self, i: usize, operator: &str) -> bool {
        self.kind(i) == Some(Kind::Plain(TokenKind::Operator))
            && self.bytes(i) == operator.as_bytes()
    }

    /// The name that token `i` spells: a word folded, a quoted one decoded.
    pub(crate) fn name(&self, i: usize) -> Option<Box<str>> {
        let text = std::str::from_utf8(self.bytes(i)).ok()?;
        match self.kind(i)? {
            Kind::Plain(TokenKind::Word) => Some(cut(text.to_ascii_lowercase())),
            Kind::Plain(TokenKind::Quoted) => {
                Some(cut(text.get(1..text.len().checked_sub(1)?)?.replace("\"\"", "\"")))
            }
            _ => None,
        }
    }

    /// The index of the parameter at token `i`, from zero.
    pub(crate) fn param(&self, i: usize) -> Option<u16> {
        if self.kind(i) != Some(Kind::Plain(TokenKind::Param)) {
            return None;
        }
        let digits = std::str::from_utf8(self.bytes(i).get(1..)?).ok()?;
        digits.parse::<u16>().ok()?.checked_sub(1)
    }

    /// The constant at token `i`.
    pub(crate) fn literal(&self, i: usize) -> Option<Literal> {
        let token = self.list.get(i)?;
        match token.kind {
            Kind::Literal(_, kind) => Some(Literal { start: token.start, end: token.end, kind }),
            Kind::Plain(_) | Kind::Hint => None,
        }
    }

    /// The bytes from the first token to the last.
    pub(crate) fn span(&self) -> Span {
        match (self.list.first(), self.list.last()) {
            (Some(first), Some(last)) => Span { start: first.start, end: last.end },
            _ => Span::default(),
        }
    }

    /// The bytes of token `i`.
    pub(crate) fn token_span(&self, i: usize) -> Span {
        self.slice(i, i + 1).span()
    }

    /// One past the parenthesis that closes the one at `open`.
    pub(crate) fn after_parens(&self, open: usize) -> usize {
        let mut depth = 0_usize;
        for i in open..self.len() {
            if self.is_punct(i, "(") {
                depth += 1;
            } else if self.is_punct(i, ")") {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
        }
        self.len()
    }
}

/// A name as long as the server keeps it.
fn cut(mut name: String) -> Box<str> {
    if name.len() > NAME_BYTES_MAX {
        let mut end = NAME_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name.into()
}

struct List {
    tokens: Vec<Token>,
    literals: u32,
}

impl List {
    fn push(&mut self, kind: Kind, start: usize, end: usize) {
        // The text's length was checked to fit.
        self.tokens.push(Token { kind, start: start as u32, end: end as u32 });
    }
}

impl Sink for List {
    const HEARS_TOKENS: bool = true;

    fn token(&mut self, kind: TokenKind, start: usize, end: usize) {
        self.push(Kind::Plain(kind), start, end);
    }

    fn literal(&mut self, kind: LiteralKind, start: usize, end: usize) {
        self.push(Kind::Literal(self.literals, kind), start, end);
        self.literals += 1;
    }

    fn blank(&mut self, _start: usize, _end: usize) {}

    fn hint(&mut self, start: usize, end: usize) {
        self.push(Kind::Hint, start, end);
    }
}

/// Longer names are cut by the server.
const NAME_BYTES_MAX: usize = 63;
