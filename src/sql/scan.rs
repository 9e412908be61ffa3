//! The normal form of a text: what stays the same when only constants change.
//!
//! Constants become one byte that tells their notation, comments and blanks
//! become one space, hints stay; everything else is copied. So LIMIT, `$n`, the
//! length of a list, the case of identifiers, signs, casts, booleans and NULL
//! all keep texts apart, and a plan made from a normal form can't depend on a
//! constant's value. A warm scan does not allocate.

use super::lex::{self, Sink, TEXT_BYTES_MAX, TokenKind};
use super::literal::{Literal, LiteralKind, Literals};

pub use super::lex::{ScanError, Unterminated};

/// Reads texts into buffers that it keeps.
#[derive(Debug, Default)]
pub struct Scanner {
    normal: Vec<u8>,
    literals: Literals,
}

impl Scanner {
    /// A scanner with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `text`; afterwards [`Scanner::normal`] and [`Scanner::literals`]
    /// describe it.
    ///
    /// # Errors
    /// The text has no tokens; the buffers are then meaningless.
    pub fn scan(&mut self, text: &[u8]) -> Result<(), ScanError> {
        self.normal.clear();
        self.literals.clear();
        if self.normal.capacity() > KEPT_BYTES {
            self.normal.shrink_to(KEPT_BYTES);
            self.literals.shrink_to(KEPT_LITERALS);
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(ScanError::TooLong);
        }
        if !text.is_ascii()
            && let Err(error) = std::str::from_utf8(text)
        {
            return Err(ScanError::NotUtf8 { at: error.valid_up_to() });
        }
        self.normal.reserve(text.len() + 1);
        let mut sink =
            Normal { text, run: 0, normal: &mut self.normal, literals: &mut self.literals };
        lex::lex(text, &mut sink)?;
        sink.copy_run(text.len());
        Ok(())
    }

    /// Forgets the text scanned last.
    pub(crate) fn forget(&mut self) {
        self.normal.clear();
        self.literals.clear();
    }

    /// The normal form of the text scanned last.
    pub fn normal(&self) -> &[u8] {
        &self.normal
    }

    /// The constants of the text scanned last.
    pub const fn literals(&self) -> &Literals {
        &self.literals
    }
}

/// Builds the normal form; `run` is where the bytes not yet copied begin.
struct Normal<'a> {
    text: &'a [u8],
    run: usize,
    normal: &'a mut Vec<u8>,
    literals: &'a mut Literals,
}

impl Normal<'_> {
    fn copy_run(&mut self, end: usize) {
        if let Some(run) = self.text.get(self.run..end) {
            self.normal.extend_from_slice(run);
        }
        self.run = end;
    }
}

impl Sink for Normal<'_> {
    const HEARS_TOKENS: bool = false;

    #[inline]
    fn token(&mut self, _kind: TokenKind, _start: usize, _end: usize) {}

    #[inline]
    fn literal(&mut self, kind: LiteralKind, start: usize, end: usize) {
        self.copy_run(start);
        self.run = end;
        self.normal.push(kind as u8);
        // The text's length was checked to fit.
        self.literals.push(Literal { start: start as u32, end: end as u32, kind });
    }

    #[inline]
    fn blank(&mut self, start: usize, end: usize) {
        let one_space = end - start == 1 && self.text.get(start) == Some(&b' ');
        // Right after a fold the space is there already.
        if one_space && (self.run < start || self.normal.last() != Some(&b' ')) {
            return;
        }
        self.copy_run(start);
        self.run = end;
        if self.normal.last().is_some_and(|last| *last != b' ') {
            self.normal.push(b' ');
        }
    }

    fn hint(&mut self, start: usize, end: usize) {
        self.copy_run(start);
        self.copy_run(end);
    }
}

/// What the buffers keep after an unusually long text.
const KEPT_BYTES: usize = 64 * 1024;
const KEPT_LITERALS: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The normal form with constants shown by notation.
    fn shown(text: &str) -> String {
        let mut scanner = Scanner::new();
        match scanner.scan(text.as_bytes()) {
            Err(error) => error.to_string(),
            Ok(()) => {
                let mut out = String::new();
                for c in String::from_utf8(scanner.normal().to_vec()).unwrap().chars() {
                    match c {
                        '\u{1}' => out.push_str("⟨int⟩"),
                        '\u{2}' => out.push_str("⟨num⟩"),
                        '\u{3}' => out.push_str("⟨str⟩"),
                        '\u{4}' => out.push_str("⟨E⟩"),
                        '\u{5}' => out.push_str("⟨B⟩"),
                        '\u{6}' => out.push_str("⟨X⟩"),
                        '\u{7}' => out.push_str("⟨U⟩"),
                        '\u{8}' => out.push_str("⟨N⟩"),
                        '\u{e}' => out.push_str("⟨$⟩"),
                        other => out.push(other),
                    }
                }
                out
            }
        }
    }

    #[track_caller]
    fn check(text: &str, normal: &str) {
        assert_eq!(shown(text), normal, "{text}");
    }

    #[test]
    fn constants_become_their_notation() {
        check("select 1, -2, 'x'", "select ⟨int⟩, -⟨int⟩, ⟨str⟩");
        check("e'\\'' b'1' x'f' u&'a' n'a' $$a$$", "⟨E⟩ ⟨B⟩ ⟨X⟩ ⟨U⟩ ⟨N⟩ ⟨$⟩");
        check(
            "1.5 .5 5. 1e5 1.e-5 0x1F 1_000 0b1 0o7",
            "⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩ ⟨num⟩",
        );
        check("a='x'::text", "a=⟨str⟩::text");
        check("name'x'", "name⟨str⟩");
    }

    #[test]
    fn what_matters_keeps_texts_apart() {
        for (one, other) in [
            ("select a from t", "select a from t limit 1"),
            ("k = $1", "k = $2"),
            ("k in (1)", "k in (1, 2)"),
            ("\"K\" = 1", "\"k\" = 1"),
            ("k = true", "k = false"),
            ("k = null", "k = 1"),
            ("k = 1", "k = -1"),
            ("k = 1", "k = 1::int"),
            ("k = '1'", "k = 1"),
            ("k = '1'", "k = E'1'"),
            ("k = '1'", "k = N'1'"),
            ("/* keyway: primary */ k", "/* other: primary */ k"),
        ] {
            assert_ne!(shown(one), shown(other), "{one} / {other}");
        }
    }

    #[test]
    fn comments_and_blanks_fold() {
        check("select\n\t1 -- c\n + /* a /* b */ c */ 2", "select ⟨int⟩ + ⟨int⟩");
        check("a+-- x\nb", "a+ b");
        check("a */* x */ b", "a * b");
        check("'a' -- c\n 'b'", "⟨str⟩");
        check("'a' 'b'", "⟨str⟩ ⟨str⟩");
        check("'a' /* c */\n 'b'", "⟨str⟩ ⟨str⟩");
        check("/* keyway: shard=1 */ select 1", "/* keyway: shard=1 */ select ⟨int⟩");
    }

    #[test]
    fn operators_and_names_are_copied() {
        check("a->>'x' ?| b @> $1::jsonb", "a->>⟨str⟩ ?| b @> $1::jsonb");
        check("\"a\"\"b 'c'\" u&\"x\" tabelle_ä a$1", "\"a\"\"b 'c'\" u&\"x\" tabelle_ä a$1");
        check("a[1:2]", "a[⟨int⟩:⟨int⟩]");
        check("1..2", "⟨int⟩..⟨int⟩");
    }

    /// The same sink, hearing every token.
    struct Hearing<'a>(Normal<'a>);

    impl Sink for Hearing<'_> {
        const HEARS_TOKENS: bool = true;

        fn token(&mut self, kind: TokenKind, start: usize, end: usize) {
            self.0.token(kind, start, end);
        }

        fn literal(&mut self, kind: LiteralKind, start: usize, end: usize) {
            self.0.literal(kind, start, end);
        }

        fn blank(&mut self, start: usize, end: usize) {
            self.0.blank(start, end);
        }

        fn hint(&mut self, start: usize, end: usize) {
            self.0.hint(start, end);
        }
    }

    /// What the scanner makes of a text whose tokens are all heard.
    fn scan_hearing(text: &[u8]) -> Result<(Vec<u8>, Vec<Literal>), ScanError> {
        let (mut normal, mut literals) = (Vec::new(), Literals::default());
        let mut sink =
            Hearing(Normal { text, run: 0, normal: &mut normal, literals: &mut literals });
        lex::lex(text, &mut sink)?;
        sink.0.copy_run(text.len());
        Ok((normal, literals.as_slice().to_vec()))
    }

    fn scan_passing(text: &[u8]) -> Result<(Vec<u8>, Vec<Literal>), ScanError> {
        let mut scanner = Scanner::new();
        scanner.scan(text)?;
        Ok((scanner.normal().to_vec(), scanner.literals().as_slice().to_vec()))
    }

    #[test]
    fn what_no_server_reads_is_an_error() {
        check("'a", "unterminated quoted string that starts at byte 0");
        check("\"a", "unterminated quoted identifier that starts at byte 0");
        check("/* /* */", "unterminated /* comment that starts at byte 0");
        check("$a$ b $b$", "unterminated dollar-quoted string that starts at byte 0");
        check("123abc", "trailing junk after a number or parameter at byte 0");
        check("1e", "trailing junk after a number or parameter at byte 0");
        check("0x", "trailing junk after a number or parameter at byte 0");
        check("$1a", "trailing junk after a number or parameter at byte 0");
        check("a \u{1} b", "syntax error at byte 2");
        check("{", "syntax error at byte 0");
        let mut scanner = Scanner::new();
        assert_eq!(scanner.scan(b"select \xff"), Err(ScanError::NotUtf8 { at: 7 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Scanner::new().scan(&text);
        }

        #[test]
        fn passing_over_tokens_changes_nothing(parts in prop::collection::vec(prop_oneof![
            Just("select"), Just("e"), Just("u&"), Just("U"), Just("&"), Just("'a'"), Just("'"),
            Just("\""), Just("\"q\""), Just(" "), Just("  "), Just("\t"), Just("--c\n"), Just("-"),
            Just("/"), Just("/*x*/"), Just("/*keyway: a*/"), Just("*"), Just("+"), Just("."),
            Just(".."), Just("5"), Just("0x1"), Just("$1"), Just("$$"), Just("$a"), Just("a$"),
            Just(":"), Just("::"), Just("("), Just(","), Just("@"), Just("é"), Just("_"), Just("1e3"),
            Just("{")
        ], 0..24)) {
            let text = parts.concat();
            prop_assert_eq!(scan_passing(text.as_bytes()), scan_hearing(text.as_bytes()));
        }

        #[test]
        fn sql_like_texts_reassemble(parts in prop::collection::vec(prop_oneof![
            Just("select "), Just("'a''b'"), Just("E'\\''"), Just("$x$ ' $x$"), Just(" 42 "),
            Just("1.5"), Just("\"Q\""), Just("--c\n"), Just("/*/**/*/"), Just("+"), Just("-"),
            Just("*"), Just("/"), Just("$1"), Just("k="), Just("\n"), Just("'"), Just("("),
            Just(")"), Just("::int"), Just("é"), Just("e"), Just("u&"), Just(".")
        ], 0..30)) {
            let text = parts.concat();
            let mut scanner = Scanner::new();
            if scanner.scan(text.as_bytes()).is_ok() {
                let literals = scanner.literals().as_slice().to_vec();
                let normal = scanner.normal().to_vec();
                // Each constant is one byte of the normal form, in order.
                let mut quoted = false;
                let marks: Vec<u8> = normal.iter().copied().filter(|byte| {
                    quoted ^= *byte == b'"';
                    !quoted && (*byte < 9 || *byte == 14)
                }).collect();
                let kinds: Vec<u8> = literals.iter().map(|literal| literal.kind as u8).collect();
                prop_assert_eq!(marks, kinds);
                // Putting the constants back gives a text with the same normal form.
                let mut rebuilt = Vec::new();
                let mut next = literals.iter();
                let mut quoted = false;
                for byte in &normal {
                    quoted ^= *byte == b'"';
                    if !quoted && (*byte < 9 || *byte == 14) {
                        rebuilt.extend_from_slice(next.next().unwrap().written(text.as_bytes()));
                    } else {
                        rebuilt.push(*byte);
                    }
                }
                scanner.scan(&rebuilt).unwrap();
                prop_assert_eq!(scanner.normal(), &normal[..]);
            }
        }
    }
}
