//! The form of pgbouncer's configuration: sections of `name = value`, comments
//! after `;` and `#` at a line's begin, `%include FILE`; and connection strings
//! as values. Knows no setting.
//!
//! Source: pgbouncer's manual, "pgbouncer.ini".

/// What the file says, section by section, in its order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ini {
    /// Section, name, value; the last of a name counts.
    entries: Vec<(String, String, String)>,
    section: String,
}

/// A line, or another file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// A line with something on it.
    Line { number: usize, text: &'t str },
    /// A file to be read here.
    Include(&'t str),
}

/// The lines of a file that say something.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with([';', '#'])).map(
        |(number, line)| match line.strip_prefix("%include") {
            Some(file) => Piece::Include(file.trim()),
            None => Piece::Line { number, text: line },
        },
    )
}

impl Ini {
    /// Takes a line in.
    pub(super) fn add(&mut self, line: &str) -> Result<(), &'static str> {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section.trim().clone_into(&mut self.section);
            return Ok(());
        }
        let (name, value) = line.split_once('=').ok_or("neither a section nor name = value")?;
        if self.section.is_empty() {
            return Err("a setting before the first section");
        }
        let name = name.trim().trim_matches('"').to_owned();
        self.entries.retain(|(section, known, _)| *section != self.section || *known != name);
        self.entries.push((self.section.clone(), name, value.trim().to_owned()));
        Ok(())
    }

    /// Takes the settings of an included file in; the section stays.
    pub(super) fn absorb(&mut self, other: Self) {
        for (section, name, value) in other.entries {
            self.entries.retain(|(s, n, _)| *s != section || *n != name);
            self.entries.push((section, name, value));
        }
    }

    /// The value of a setting, if it is given and not empty.
    pub(super) fn value(&self, section: &str, name: &str) -> Option<&str> {
        let mut found = self.section(section).filter(|(known, _)| *known == name);
        found.next().map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    /// The settings of a section.
    pub(super) fn section<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.entries.iter().filter(move |(section, _, _)| section == name);
        all.map(|(_, name, value)| (&**name, &**value))
    }
}

/// The pairs of a connection string: `host=… password='it''s'`. `None` if it is
/// none.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('\'') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                let (value, left) = after.split_at(end);
                (value.to_owned(), left)
            }
        };
        out.push((name.trim().to_owned(), value));
        rest = left.trim_start();
    }
    Some(out)
}

/// The text up to the closing quote, where two stand for one, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value += part;
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}
