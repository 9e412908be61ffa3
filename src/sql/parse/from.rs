//! FROM: tables, functions, subqueries, and which condition belongs to which
//! join.

use crate::sql::tree::{Alias, Called, Expr, From, Join, JoinKind, On, TableRef};

use super::cursor::{Read, Reader, construct};

impl Reader<'_> {
    pub(super) fn relation_list(&mut self) -> Read<Vec<From>> {
        let mut list = vec![self.relation()?];
        while self.eat_punct(",") {
            list.push(self.relation()?);
        }
        Ok(list)
    }

    /// One entry with the joins after it.
    pub(super) fn relation(&mut self) -> Read<From> {
        let mut left = self.factor()?;
        let mut joins = 0;
        while let Some(start) = self.join_start() {
            joins += 1;
            if joins > JOINS_MAX {
                return construct("so long a chain of joins");
            }
            left = self.join(left, start)?;
        }
        Ok(left)
    }

    /// The kind of the join that begins here, and its number of words.
    fn join_start(&self) -> Option<Start> {
        let mut at = self.at;
        let natural = self.t.is_word(at, "natural");
        at += usize::from(natural);
        let cross = !natural && self.t.is_word(at, "cross");
        let kind = [
            ("left", JoinKind::Left),
            ("right", JoinKind::Right),
            ("full", JoinKind::Full),
            ("inner", JoinKind::Inner),
            ("cross", JoinKind::Inner),
        ]
        .into_iter()
        .find(|(word, _)| self.t.is_word(at, word));
        if let Some((_, kind)) = kind {
            at += 1;
            let outer = kind != JoinKind::Inner && self.t.is_word(at, "outer");
            at += usize::from(outer);
        }
        if !self.t.is_word(at, "join") {
            return None;
        }
        let kind = kind.map_or(JoinKind::Inner, |(_, kind)| kind);
        Some(Start { kind, natural, cross, end: at + 1 })
    }

    fn join(&mut self, left: From, start: Start) -> Read<From> {
        self.at = start.end;
        let mut right = self.factor()?;
        let on = if start.natural {
            On::Natural
        } else if start.cross {
            On::Nothing
        } else {
            // `a JOIN b JOIN c ON … ON …`: the inner condition comes first.
            while let Some(next) = self.join_start() {
                right = self.deeper(|reader| reader.join(right, next))?;
            }
            self.on()?
        };
        Ok(From::Join(Box::new(Join { kind: start.kind, left, right, on })))
    }

    fn on(&mut self) -> Read<On> {
        if self.eat_word("on") {
            return Ok(On::Condition(self.expr()?));
        }
        self.expect_word("using")?;
        let columns = self.name_list()?;
        let alias = if self.eat_word("as") { Some(self.name()?) } else { None };
        Ok(On::Using { columns, alias })
    }

    /// An entry without joins.
    fn factor(&mut self) -> Read<From> {
        let lateral = self.eat_word("lateral");
        if self.is_query(self.at) {
            let query = Box::new(self.query_in_parens()?);
            let alias = self.alias()?;
            return Ok(From::Derived { lateral, query, alias });
        }
        if self.punct("(") {
            return self.deeper(Self::joined_in_parens);
        }
        if self.words(&["rows", "from"]) && self.t.is_punct(self.at + 2, "(") {
            self.at += 2;
            let args = self.rows_from()?;
            return self.called(Called::Other, args);
        }
        if self.any_word(&["xmltable", "json_table"]) && self.t.is_punct(self.at + 1, "(") {
            self.at += 1;
            let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
            let args = self.soup(close)?;
            self.at = close + 1;
            return self.called(Called::Other, args);
        }
        if self.is_call() {
            let start = self.at;
            let of_server = self.word("pg_catalog") && self.t.is_punct(start + 1, ".");
            let name = if of_server { start + 2 } else { start };
            let unnests = self.t.is_word(name, "unnest") && self.t.is_punct(name + 1, "(");
            let called = if unnests { Called::Unnest } else { Called::Other };
            let call = self.named(start)?;
            return self.called(called, vec![call]);
        }
        self.table().map(From::Table)
    }

    fn joined_in_parens(&mut self) -> Read<From> {
        self.expect_punct("(")?;
        let inner = self.relation()?;
        self.expect_punct(")")?;
        if self.word("as") || self.at_name() {
            return construct("a join with an alias");
        }
        Ok(inner)
    }

    /// Whether a function's call stands here, not a table.
    fn is_call(&self) -> bool {
        let mut at = self.at;
        if self.any_word(CALLS_WITHOUT_PARENTHESES) || self.word("cast") {
            return true;
        }
        while self.category_at(at).is_some() {
            at += 1;
            if !self.t.is_punct(at, ".") {
                return self.t.is_punct(at, "(") && !self.t.is_word(at - 1, "only");
            }
            at += 1;
        }
        self.t.is_word(self.at, "collation")
    }

    fn rows_from(&mut self) -> Read<Vec<Expr>> {
        self.expect_punct("(")?;
        let mut args = Vec::new();
        loop {
            let start = self.at;
            args.push(self.named(start)?);
            if self.eat_word("as") {
                self.skip_parens()?;
            }
            if !self.eat_punct(",") {
                break;
            }
        }
        self.expect_punct(")")?;
        Ok(args)
    }

    fn skip_parens(&mut self) -> Read<()> {
        let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
        self.at = close + 1;
        Ok(())
    }

    /// What may follow a function in FROM.
    fn called(&mut self, called: Called, args: Vec<Expr>) -> Read<From> {
        self.eat_words(&["with", "ordinality"]);
        let alias = self.alias()?;
        Ok(From::Call { called, args, alias })
    }

    /// An alias with its columns, which may have types.
    pub(super) fn alias(&mut self) -> Read<Option<Alias>> {
        let written = self.eat_word("as");
        if written && self.punct("(") {
            self.skip_parens()?;
            return Ok(None);
        }
        if !written && !self.at_name() {
            return Ok(None);
        }
        let name = self.name()?;
        let mut columns = Vec::new();
        if self.eat_punct("(") {
            loop {
                columns.push(self.name()?);
                // A list of columns with types: all names are given here.
                while !self.punct(",") && !self.punct(")") {
                    match self.closing(self.at) {
                        Some(close) => self.at = close + 1,
                        None if self.is_done() => return Err(self.unexpected()),
                        None => self.at += 1,
                    }
                }
                if !self.eat_punct(",") {
                    break;
                }
            }
            self.expect_punct(")")?;
        }
        Ok(Some(Alias { name, columns }))
    }

    /// A table to read from.
    fn table(&mut self) -> Read<TableRef> {
        let mut table = self.table_name()?;
        table.alias = self.alias()?;
        if self.eat_word("tablesample") {
            self.dotted()?;
            table.sample = self.arguments()?;
            if self.eat_word("repeatable") {
                self.expect_punct("(")?;
                table.sample.push(self.expr()?);
                self.expect_punct(")")?;
            }
        }
        Ok(table)
    }

    /// A name with any number of dots.
    pub(super) fn dotted(&mut self) -> Read<()> {
        self.label()?;
        while self.eat_punct(".") {
            self.label()?;
        }
        Ok(())
    }

    /// `name`, `ONLY name`, `ONLY (name)` or `name *`, without alias.
    pub(super) fn table_name(&mut self) -> Read<TableRef> {
        let start = self.at;
        let only = self.eat_word("only");
        let parens = only && self.eat_punct("(");
        let (schema, name) = self.qualified()?;
        if parens {
            self.expect_punct(")")?;
        }
        self.eat_operator("*");
        Ok(TableRef { at: (start, self.at), schema, name, alias: None, sample: Vec::new() })
    }
}

/// A join that begins.
struct Start {
    kind: JoinKind,
    natural: bool,
    cross: bool,
    end: usize,
}

/// Longer chains lean to one side, and are walked by recursion.
const JOINS_MAX: usize = 400;
/// Values that may stand in FROM like a function.
const CALLS_WITHOUT_PARENTHESES: &[&str] = &[
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "current_role",
    "current_user",
    "session_user",
    "system_user",
    "user",
    "current_catalog",
    "current_schema",
];
