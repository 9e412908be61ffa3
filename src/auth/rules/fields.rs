//! Lines, fields and items of PostgreSQL's files of rules: white space parts
//! fields, commas part the items of one, quotes take words their meaning.

use crate::document::{Problem, Source};

/// One item of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) text: String,
    /// In quotes: a name and nothing else.
    pub(super) quoted: bool,
}

impl Item {
    /// True if it is this keyword.
    pub(super) fn is(&self, word: &str) -> bool {
        !self.quoted && self.text == word
    }
}

/// One field, with at least one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) items: Vec<Item>,
    /// Where it begins in the text, in bytes.
    pub(super) at: usize,
}

impl Field {
    /// Its only item; `None` if there are more.
    pub(super) fn single(&self) -> Option<&Item> {
        match &self.items[..] {
            [item] => Some(item),
            _ => None,
        }
    }
}

/// One line that says something.
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: usize,
    pub(super) fields: Vec<Field>,
}

/// The lines of `text`. A backslash at its end joins a line with the next.
pub(super) fn lines(text: &str, source: &Source<'_>, problems: &mut Vec<Problem>) -> Vec<Line> {
    let mut out: Vec<Line> = Vec::new();
    let mut joined = false;
    let mut at = 0;
    for (index, whole) in text.split_inclusive('\n').enumerate() {
        let start = at;
        at += whole.len();
        let line = whole.trim_end_matches(['\n', '\r']);
        let continued = line.strip_suffix('\\');
        let fields = match fields(continued.unwrap_or(line), start) {
            Ok(fields) => fields,
            Err(at) => {
                problems.push(source.problem(at, "a quote is opened and not closed"));
                Vec::new()
            }
        };
        match out.last_mut().filter(|_| joined) {
            Some(last) => last.fields.extend(fields),
            None => out.push(Line { number: index + 1, fields }),
        }
        joined = continued.is_some();
    }
    out.retain(|line| !line.fields.is_empty());
    out
}

/// The fields of a line that begins at byte `start`.
///
/// # Errors
/// Where a quote is that is not closed.
fn fields(line: &str, start: usize) -> Result<Vec<Field>, usize> {
    let mut out: Vec<Field> = Vec::new();
    let mut chars = line.char_indices().peekable();
    // After a comma the next item belongs to the same field.
    let mut comma = false;
    while let Some(&(at, c)) = chars.peek() {
        if c == '#' {
            break;
        }
        if c.is_whitespace() || c == ',' {
            comma |= c == ',';
            chars.next();
            continue;
        }
        let mut item = Item { text: String::new(), quoted: false };
        let mut open = None;
        while let Some(&(at, c)) = chars.peek() {
            let ends = c.is_whitespace() || c == ',' || c == '#';
            if ends && open.is_none() {
                break;
            }
            chars.next();
            match (c, open) {
                ('"', None) => {
                    open = Some(at);
                    item.quoted |= item.text.is_empty();
                }
                ('"', Some(_)) if chars.next_if(|(_, next)| *next == '"').is_some() => {
                    item.text.push('"');
                }
                ('"', Some(_)) => open = None,
                (other, _) => item.text.push(other),
            }
        }
        if let Some(at) = open {
            return Err(start + at);
        }
        match out.last_mut().filter(|_| comma) {
            Some(last) => last.items.push(item),
            None => out.push(Field { items: vec![item], at: start + at }),
        }
        comma = false;
    }
    Ok(out)
}
