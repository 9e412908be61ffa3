//! The text of a row of values, as servers write and read it: `(eu,42)`.
//!
//! It does not know the values' types. Source: PostgreSQL manual, "Composite
//! Types", "Composite Type Input and Output Syntax".

/// The fields of a row's text; `None` if it is none, or a field is null.
pub(super) fn fields(text: &str) -> Option<Vec<String>> {
    let inside = text.trim_matches(is_blank).strip_prefix('(')?;
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    // Without quotes nothing is null, not an empty text.
    let mut given = false;
    let mut chars = inside.chars().peekable();
    loop {
        let next = chars.next()?;
        match next {
            '\\' => field.push(chars.next()?),
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => {
                quoted = !quoted;
                given = true;
            }
            ',' | ')' if !quoted => {
                if field.is_empty() && !given {
                    return None;
                }
                fields.push(std::mem::take(&mut field));
                given = false;
                if next == ')' {
                    return chars.next().is_none().then_some(fields);
                }
            }
            other => field.push(other),
        }
    }
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_a_server_reads_it() {
        for (text, expected) in [
            ("(eu,42)", Some(&["eu", "42"][..])),
            (" (eu, 42) ", Some(&["eu", " 42"])),
            ("(\"a,b\",c)", Some(&["a,b", "c"])),
            ("(\"say \"\"hi\"\"\",\"\")", Some(&["say \"hi\"", ""])),
            ("(a\\,b,c\\)d)", Some(&["a,b", "c)d"])),
            ("(a\"b\"c,d)", Some(&["abc", "d"])),
            ("(é,語)", Some(&["é", "語"])),
            ("(,a)", None),
            ("(a,)", None),
            ("()", None),
            ("(a,b", None),
            ("(a,b)c", None),
            ("(\"a,b)", None),
            ("(a\\", None),
            ("a,b", None),
            ("", None),
        ] {
            let expected = expected.map(|list| list.iter().map(ToString::to_string).collect());
            assert_eq!(fields(text), expected, "{text}");
        }
    }
}
