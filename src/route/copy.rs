//! COPY of a table. COPY FROM into a sharded table runs where its key is declared,
//! by the session or by a comment; the router does not read the rows, so the
//! server is asked to: the text that is sent has a condition which fails for a row
//! with another key, and the whole COPY with it.
//!
//! Source: PostgreSQL manual, "COPY" (WHERE), and "Conditional Expressions": a CASE
//! whose branch depends on a column is not evaluated before there is a row.

use crate::catalog::RelationKind;
use crate::shardmap::{KeyspaceId, Map, Table};
use crate::sql::classify::Classified;
use crate::sql::statement::Kind;
use crate::sql::token::{self, Token, Tokens};

use super::asides::Asides;
use super::decide::{self, Goal, table_name};
use super::declared::Declared;
use super::error::RouteError;
use super::place::{self, Named, Open};
use super::planner::World;
use super::resolve;
use super::splice::quoted;
use super::template::{Hint, Keyed, Reason, Targets};

/// The condition that a COPY into a sharded table gets.
#[derive(Debug)]
pub(crate) struct CopyCheck {
    keyspace: KeyspaceId,
    columns: Vec<Box<str>>,
    /// The byte where the client's own condition starts.
    own: Option<u32>,
    /// The byte where the statement ends.
    end: u32,
}

impl CopyCheck {
    /// The same by tokens of the whole text.
    fn anchored(self, tokens: &[Token]) -> Option<AnchoredCheck> {
        let at = |start: u32| tokens.iter().position(|token| token.start == start);
        let own = match self.own {
            Some(start) => Some(at(start)?),
            None => None,
        };
        let last = tokens.iter().position(|token| token.end == self.end)?;
        Some(AnchoredCheck { keyspace: self.keyspace, columns: self.columns, own, last })
    }
}

/// The check of a text with these tokens.
pub(super) fn anchored(
    check: Option<CopyCheck>,
    tokens: &[Token],
) -> Result<Option<Box<AnchoredCheck>>, RouteError> {
    let Some(check) = check else { return Ok(None) };
    let anchored = check.anchored(tokens);
    let anchored = anchored
        .ok_or_else(|| RouteError::unsupported("this form of COPY", "leave comments out"))?;
    Ok(Some(Box::new(anchored)))
}

/// The condition, and between which tokens of the text it stands.
#[derive(Debug)]
pub(crate) struct AnchoredCheck {
    keyspace: KeyspaceId,
    columns: Vec<Box<str>>,
    own: Option<usize>,
    last: usize,
}

impl AnchoredCheck {
    /// The text that is sent for the key that is declared; `None` if there is none.
    pub(crate) fn apply(
        &self,
        text: &[u8],
        hint: Option<&Hint>,
        declared: Option<&Declared>,
        map: &Map,
    ) -> Option<Vec<u8>> {
        let key = self.key(hint, declared, map).ok()??;
        let tokens = token::tokens(text).ok()?;
        let end = tokens.get(self.last)?.end as usize;
        let (head, tail) = text.split_at_checked(end)?;
        let mut out = Vec::with_capacity(text.len() + 256);
        match self.own {
            None => {
                out.extend_from_slice(head);
                out.extend_from_slice(b" WHERE ");
            }
            Some(own) => {
                let start = tokens.get(own)?.start as usize;
                out.extend_from_slice(head.get(..start)?);
                out.push(b'(');
                out.extend_from_slice(head.get(start..)?);
                out.extend_from_slice(b") AND ");
            }
        }
        let equals = |column: &str, key: &str| {
            format!("{} OPERATOR(pg_catalog.=) '{}'", quoted(column), key.replace('\'', "''"))
        };
        let pairs = self.columns.iter().zip(&key);
        let equal: Vec<String> = pairs.map(|(column, key)| equals(column, key)).collect();
        let shown: Vec<String> = self.columns.iter().map(|column| quoted(column)).collect();
        let check = format!(
            "CASE WHEN {} THEN true ELSE \
             pg_catalog.concat('a row with another sharding key: ', {})::pg_catalog.bool END",
            equal.join(" AND "),
            shown.join(", ', ', ")
        );
        out.extend_from_slice(check.as_bytes());
        out.extend_from_slice(tail);
        Some(out)
    }

    /// The columns of the key that all rows must have.
    pub(crate) fn key(
        &self,
        hint: Option<&Hint>,
        declared: Option<&Declared>,
        map: &Map,
    ) -> Result<Option<Vec<String>>, RouteError> {
        let Some(keyspace) = map.keyspace(self.keyspace) else { return Ok(None) };
        let text = match (hint, declared) {
            (Some(Hint::Key(text)), _) => Some(&**text),
            (Some(Hint::Shard), _) => None,
            (None, Some(declared)) => declared.key_of(keyspace, map)?,
            (None, None) => None,
        };
        Ok(text.map(|text| keyspace.columns_from_text(text)).transpose()?)
    }
}

/// The goal of COPY of a table.
pub(super) fn goal(
    t: &Tokens<'_>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let (schema, name) = table_name(t, 1)
        .ok_or_else(|| RouteError::unsupported("this form of COPY", "name one table"))?;
    let out = one.facts.kind == Kind::CopyOut;
    match place::named(schema.as_deref(), &name, world)? {
        Named::Listed(Table::Sharded { keyspace, .. }) if out => {
            if let Some(query) = whole_table(t, schema.as_deref(), &name, world)? {
                return spread(query, one, world, asides);
            }
            let why = RouteError::unsupported(
                "COPY of a sharded table",
                "copy a query: COPY (SELECT …) TO …, or SET keyway.key",
            );
            Ok(open(keyspace, why))
        }
        Named::Listed(Table::Sharded { keyspace, column, rest }) => {
            resolve::check_written(schema.as_deref(), &name, world)?;
            let rest = rest.iter().map(|column| column.as_str().into());
            let columns = std::iter::once(column.into()).chain(rest).collect();
            asides.copy = Some(checked(t, keyspace, columns)?);
            let why = RouteError::unsupported(
                "COPY into a sharded table without a declared key",
                "SET keyway.key to the one key of all rows, or insert the rows with INSERT",
            );
            Ok(open(keyspace, why))
        }
        Named::Listed(Table::Reference) if out => {
            Ok(Goal::Fixed(Targets::AnyShard, Reason::Reference))
        }
        Named::Listed(Table::Reference) => Err(RouteError::ReferenceWrite { table: name }),
        Named::Listed(Table::Single(shard)) => {
            Ok(Goal::Fixed(Targets::Shard(shard), Reason::SingleShard))
        }
        Named::System => Ok(Goal::Fixed(Targets::Home, Reason::Catalog)),
    }
}

/// The query whose rows COPY of a table gives, as far as its columns are known.
fn whole_table(
    t: &Tokens<'_>,
    schema: Option<&str>,
    name: &str,
    world: &World<'_>,
) -> Result<Option<Vec<u8>>, RouteError> {
    let Some(known) = resolve::known(world) else { return Ok(None) };
    let Some(found) = resolve::schema_of(schema, name, world, known)? else { return Ok(None) };
    let Some((_, relation)) = known.relation(&found, name).next() else { return Ok(None) };
    if relation.kind != RelationKind::Table {
        return Ok(None);
    }
    let at = if schema.is_some() { 4 } else { 2 };
    let columns: Vec<String> = if t.is_punct(at, "(") {
        (at + 1..t.after_parens(at)).filter_map(|i| t.name(i)).map(|name| quoted(&name)).collect()
    } else {
        let stored = relation.columns.iter().filter(|column| column.generated.is_none());
        stored.map(|column| quoted(&column.name)).collect()
    };
    if columns.is_empty() {
        return Ok(None);
    }
    let (columns, table) = (columns.join(", "), quoted(name));
    Ok(Some(format!("SELECT {columns} FROM ONLY {}.{table}", quoted(&found)).into_bytes()))
}

/// The goal of a COPY that gives the rows of `query`.
fn spread(
    query: Vec<u8>,
    one: &Classified,
    world: &World<'_>,
    asides: &mut Asides,
) -> Result<Goal, RouteError> {
    let list = token::tokens(&query)?;
    let mut goal = decide::query(&Tokens { text: &query, list: &list }, one, world, asides)?;
    if let Goal::Keyed(keyed) = &mut goal
        && let Ok(proven) = &mut keyed.across
    {
        proven.query = Some(query.into());
    }
    Ok(goal)
}

fn open(keyspace: KeyspaceId, why: RouteError) -> Goal {
    let open = Open { shards: Box::default(), keyspaces: Box::new([keyspace]), why };
    Goal::Keyed(Keyed { open: Some(open), ..Keyed::one_shard(Vec::new(), None) })
}

/// Where the condition belongs.
fn checked(
    t: &Tokens<'_>,
    keyspace: KeyspaceId,
    columns: Vec<Box<str>>,
) -> Result<CopyCheck, RouteError> {
    let mut depth = 0_usize;
    let mut own = None;
    let mut from_client = false;
    for i in 0..t.len() {
        if t.is_punct(i, "(") {
            depth += 1;
        } else if t.is_punct(i, ")") {
            // A parenthesis too many would close the one that is put around.
            depth = depth.checked_sub(1).ok_or_else(|| unread(t, i))?;
        } else if depth == 0 && own.is_none() && t.is_word(i, "where") {
            own = Some(t.token_span(i + 1).start);
        } else if depth == 0 && own.is_none() && t.is_word(i, "from") {
            from_client = t.is_word(i + 1, "stdin");
        }
    }
    if depth > 0 || own == Some(0) {
        return Err(unread(t, t.len().saturating_sub(1)));
    }
    if !from_client {
        return Err(RouteError::unsupported(
            "COPY into a sharded table from a file or program of a server",
            "copy from STDIN: psql has \\copy",
        ));
    }
    Ok(CopyCheck { keyspace, columns, own, end: t.span().end })
}

fn unread(t: &Tokens<'_>, at: usize) -> RouteError {
    let near: String = String::from_utf8_lossy(t.bytes(at)).chars().take(32).collect();
    RouteError::Unread { reason: format!("a COPY can't end so, near \"{near}\"").into() }
}
