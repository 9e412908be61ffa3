//! Names of tables and columns as a map file spells them.
//!
//! Quotes work as in SQL. A capital letter outside quotes is refused, because
//! SQL would fold it and the writer of the file may not have meant that.

/// The schema and table that `text` names; no schema means `None`.
///
/// # Errors
/// The reason why it names none.
pub(crate) fn table_name(text: &str) -> Result<(Option<String>, String), String> {
    let mut parts = identifiers(text)?;
    match (parts.pop(), parts.pop(), parts.pop()) {
        (Some(table), schema, None) => Ok((schema, table)),
        _ => Err(format!("{text:?} has more parts than schema and table")),
    }
}

/// The one identifier that `text` is.
///
/// # Errors
/// The reason why it is none.
pub(crate) fn identifier(text: &str) -> Result<String, String> {
    let mut parts = identifiers(text)?;
    match (parts.pop(), parts.pop()) {
        (Some(name), None) => Ok(name),
        _ => Err(format!("{text:?} is more than one name; quote a name that holds a dot")),
    }
}

/// `parts` as a file spells them.
pub(crate) fn spelled(parts: &[&str]) -> String {
    let quoted = parts.iter().map(|part| {
        if part.starts_with(is_start) && part.chars().all(is_plain) {
            (*part).to_owned()
        } else {
            format!("\"{}\"", part.replace('"', "\"\""))
        }
    });
    quoted.collect::<Vec<_>>().join(".")
}

fn identifiers(text: &str) -> Result<Vec<String>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted(text, inner)?,
            None => plain(text, rest)?,
        };
        if part.is_empty() {
            return Err(format!("{text:?} holds an empty name"));
        }
        if part.len() > NAME_BYTES_MAX {
            return Err(format!(
                "{text:?} holds a name of {} bytes, more than the {NAME_BYTES_MAX} that Postgres keeps",
                part.len()
            ));
        }
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err(format!("{text:?} has text after a quoted name")),
        }
    }
}

fn plain<'a>(whole: &str, rest: &'a str) -> Result<(String, &'a str), String> {
    let (name, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
    if name.chars().any(|c| c.is_ascii_uppercase()) {
        return Err(format!(
            "{whole:?} has a capital letter outside quotes: write it small, as SQL reads it, or quote the name, as \"{name}\""
        ));
    }
    let empty_or_plain =
        name.is_empty() || name.starts_with(is_start) && name.chars().all(is_plain);
    if !empty_or_plain {
        return Err(format!("{whole:?} is not a name; quote a name with other characters"));
    }
    Ok((name.to_owned(), after))
}

fn quoted<'a>(whole: &str, inner: &'a str) -> Result<(String, &'a str), String> {
    let mut name = String::new();
    let mut rest = inner;
    loop {
        let (before, after) = rest
            .split_once('"')
            .ok_or_else(|| format!("{whole:?} has a quote that is not closed"))?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None if name.contains('\0') => return Err(format!("{whole:?} holds a NUL")),
            None => return Ok((name, after)),
        }
    }
}

/// What an unquoted name may start with, capitals aside.
fn is_start(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_' || !c.is_ascii()
}

fn is_plain(c: char) -> bool {
    is_start(c) || c.is_ascii_digit() || c == '$'
}

/// Postgres cuts longer names off.
const NAME_BYTES_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_in_sql() {
        let read = |text| table_name(text).unwrap();
        assert_eq!(read("tasks"), (None, "tasks".to_owned()));
        assert_eq!(read("app.tasks"), (Some("app".to_owned()), "tasks".to_owned()));
        assert_eq!(read("\"App\".\"a.b\"\"c\""), (Some("App".to_owned()), "a.b\"c".to_owned()));
    }

    #[test]
    fn spelled_names_read_back() {
        for parts in [["app", "tasks"], ["App", "a.b\"c"], ["9x", "größe"]] {
            let (schema, table) = table_name(&spelled(&parts)).unwrap();
            assert_eq!([schema.unwrap().as_str(), &table], parts);
        }
    }

    #[test]
    fn doubtful_names_are_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "Tasks", "a b", "\"a", "\"a\"b", "\"\"", "a-b"] {
            assert!(table_name(text).is_err(), "{text}");
        }
        assert!(identifier("a.b").is_err());
        assert!(identifier(&"x".repeat(64)).is_err());
    }
}
