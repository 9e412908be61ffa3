//! The statements that the model server reads: just enough SQL for everything
//! that a session can do to its backend, in texts that the router reads too.

/// A value in a statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Param,
}

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Statement {
    Select(Value),
    DivideByZero,
    Series(usize),
    Table {
        name: String,
        star: bool,
    },
    Insert(String, Value),
    Delete(String),
    Alter(String),
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetConfig {
        name: String,
        value: String,
        local: bool,
    },
    Reset(String),
    ResetAll,
    Show(String),
    DiscardAll,
    /// What the router's own DISCARD ALL does besides settings.
    Discard(&'static str),
    Prepare {
        name: String,
        statement: Box<Statement>,
    },
    Execute {
        name: String,
        argument: Option<String>,
    },
    Deallocate(String),
    DeallocateAll,
    CopyIn(String),
    CopyOut(String),
    Notice(String),
    Do(Vec<Statement>),
}

impl Statement {
    /// The statements that a failed transaction accepts.
    pub(crate) fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::RollbackTo(_))
    }

    /// Number of parameters.
    pub(crate) fn params(&self) -> u16 {
        u16::from(matches!(self, Self::Select(Value::Param) | Self::Insert(_, Value::Param)))
    }
}

/// A text that is no SQL: 42601.
#[derive(Debug)]
pub(crate) struct SyntaxError;

/// The statements of a text.
pub(crate) fn parse(text: &str) -> Result<Vec<Statement>, SyntaxError> {
    let parts = split(text, ';');
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).map(one).collect()
}

/// Splits outside of quotes.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut part, mut quoted, mut dollar) = (Vec::new(), String::new(), false, false);
    let mut previous = ' ';
    for c in text.chars() {
        if c == '$' && previous == '$' && !quoted {
            dollar = !dollar;
        }
        previous = if previous == '$' && c == '$' { ' ' } else { c };
        if c == '\'' && !dollar {
            quoted = !quoted;
        }
        if c == at && !quoted && !dollar {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inside) => inside.replace("''", "'"),
        None => text.to_owned(),
    }
}

fn value(text: &str) -> Value {
    match text.trim() {
        "$1" | "$1::int4" => Value::Param,
        other => Value::Text(unquoted(other)),
    }
}

fn one(text: &str) -> Result<Statement, SyntaxError> {
    use Statement as S;
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let name = |at: usize| words.get(at).map(|w| (*w).to_owned()).ok_or(SyntaxError);
    Ok(match words.as_slice() {
        ["begin"] => S::Begin,
        ["commit"] => S::Commit,
        ["rollback"] => S::Rollback,
        ["rollback", "to", name] => S::RollbackTo((*name).to_owned()),
        ["savepoint", name] => S::Savepoint((*name).to_owned()),
        ["release", name] => S::Release((*name).to_owned()),
        ["discard", "all"] => S::DiscardAll,
        ["discard", "plans" | "temp" | "sequences"] | ["unlisten", "*"] => S::Discard("nothing"),
        ["execute", "'close", "all'"] => S::Discard("portals"),
        ["set", "session", "authorization", "default"] => S::Discard("nothing"),
        ["perform", call] if call.starts_with("pg_catalog.pg_advisory") => S::Discard("nothing"),
        ["reset", "all"] => S::ResetAll,
        ["reset", _] => S::Reset(name(1)?),
        ["show", _] => S::Show(name(1)?),
        ["set", "local", setting, "=", ..] => set(setting, text, true),
        ["set", setting, "to", "default"] => {
            S::Set { name: (*setting).to_owned(), value: None, local: false }
        }
        ["set", setting, "=", ..] => set(setting, text, false),
        ["select", "1/0"] => S::DivideByZero,
        ["select", call, ..] if call.starts_with("generate_series(") => {
            let count = lower.trim_end_matches(')').rsplit(' ').next().unwrap_or_default();
            S::Series(count.parse().map_err(|_| SyntaxError)?)
        }
        ["select" | "perform", call, ..]
            if call.trim_start_matches("pg_catalog.").starts_with("set_config(") =>
        {
            set_config(text)?
        }
        ["select", what @ ("v" | "*"), "from", table] => {
            S::Table { name: (*table).to_owned(), star: *what == "*" }
        }
        ["select", ..] => S::Select(value(text.get(6..).ok_or(SyntaxError)?)),
        ["insert", "into", table, "values", ..] => {
            let inside = lower.split(['(', ')']).nth(1).ok_or(SyntaxError)?;
            S::Insert((*table).to_owned(), value(inside))
        }
        ["delete", "from", table] => S::Delete((*table).to_owned()),
        ["alter", "table", table, ..] => S::Alter((*table).to_owned()),
        ["copy", table, "from", "stdin"] => S::CopyIn((*table).to_owned()),
        ["copy", table, "to", "stdout"] => S::CopyOut((*table).to_owned()),
        ["prepare", _, "as", ..] => {
            let at = lower.find(" as ").ok_or(SyntaxError)?;
            let statement = Box::new(one(text.get(at + 4..).ok_or(SyntaxError)?.trim())?);
            S::Prepare { name: name(1)?, statement }
        }
        ["execute", call] => {
            let (name, argument) = match call.split_once('(') {
                Some((name, rest)) => (name, Some(rest.trim_end_matches(')').to_owned())),
                None => (*call, None),
            };
            S::Execute { name: name.to_owned(), argument }
        }
        ["deallocate", "all"] => S::DeallocateAll,
        ["deallocate", _] => S::Deallocate(name(1)?),
        ["do", ..] => run_block(text)?,
        _ => return Err(SyntaxError),
    })
}

fn set(name: &str, text: &str, local: bool) -> Statement {
    let value = text.split_once('=').map(|(_, value)| unquoted(value));
    Statement::Set { name: name.to_owned(), value, local }
}

fn set_config(text: &str) -> Result<Statement, SyntaxError> {
    let inside = text.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    let arguments = split(inside.ok_or(SyntaxError)?.0, ',');
    let [name, value, local] = arguments.as_slice() else { return Err(SyntaxError) };
    Ok(Statement::SetConfig {
        name: unquoted(name).to_lowercase(),
        value: unquoted(value),
        local: local.trim() == "true",
    })
}

fn run_block(text: &str) -> Result<Statement, SyntaxError> {
    let body = text.get(2..).unwrap_or_default().trim();
    let body = match body.strip_prefix("$$").and_then(|rest| rest.strip_suffix("$$")) {
        Some(inside) => inside.to_owned(),
        None => unquoted(body),
    };
    let body = body.trim();
    let inside = body.get("begin".len()..body.len().saturating_sub("end".len()));
    let mut statements = Vec::new();
    for part in split(inside.ok_or(SyntaxError)?, ';') {
        let part = part.trim();
        if let Some(message) = part.strip_prefix("raise notice ") {
            statements.push(Statement::Notice(unquoted(message)));
        } else if !part.is_empty() {
            statements.push(one(part)?);
        }
    }
    Ok(Statement::Do(statements))
}
