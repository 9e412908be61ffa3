//! Queries: WITH, set operations, SELECT's clauses.

use crate::sql::tree::{
    Body, Cte, Expr, ExprKind, From, Group, Item, Query, Select, SetOperation, TableRef,
};

use super::cursor::{Read, Reader, construct, too_deep};
use super::expr::made;

impl Reader<'_> {
    /// A whole statement.
    pub(super) fn statement(&mut self) -> Read<Query> {
        self.query()
    }

    /// A query, or a write.
    pub(super) fn query(&mut self) -> Read<Query> {
        let (with, recursive) = self.with()?;
        let writes = ["insert", "update", "delete", "merge"];
        if self.any_word(&writes) {
            let body = self.write()?;
            return Ok(Query { with, recursive, body, tail: Vec::new(), bounded: false });
        }
        let body = self.body(0)?;
        let (tail, bounded) = self.tail()?;
        Ok(Query { with, recursive, body, tail, bounded })
    }

    fn with(&mut self) -> Read<(Vec<Cte>, bool)> {
        let mut list = Vec::new();
        if !self.eat_word("with") {
            return Ok((list, false));
        }
        let recursive = self.eat_word("recursive");
        loop {
            let name = self.name()?;
            let columns = if self.punct("(") { self.name_list()? } else { Vec::new() };
            self.expect_word("as")?;
            self.eat_word("not");
            self.eat_word("materialized");
            let query = self.query_in_parens()?;
            let mut columns = columns;
            if self.any_word(&["search", "cycle"]) {
                // Adds columns to the result: what the star means is open.
                self.search_and_cycle()?;
                columns.clear();
            }
            list.push(Cte { name, columns, query });
            if !self.eat_punct(",") {
                return Ok((list, recursive));
            }
        }
    }

    fn search_and_cycle(&mut self) -> Read<()> {
        if self.eat_word("search") {
            if !self.eat_any(&["depth", "breadth"]) {
                return Err(self.unexpected());
            }
            self.expect_word("first")?;
            self.expect_word("by")?;
            self.names()?;
            self.expect_word("set")?;
            self.name()?;
        }
        if self.eat_word("cycle") {
            self.names()?;
            self.expect_word("set")?;
            self.name()?;
            if self.eat_word("to") {
                self.operand()?;
                self.expect_word("default")?;
                self.operand()?;
            }
            self.expect_word("using")?;
            self.name()?;
        }
        Ok(())
    }

    fn names(&mut self) -> Read<()> {
        self.name()?;
        while self.eat_punct(",") {
            self.name()?;
        }
        Ok(())
    }

    /// Operands and set operations that bind at least as tightly as `min`.
    fn body(&mut self, min: u8) -> Read<Body> {
        let mut left = self.one()?;
        let mut count = 0;
        loop {
            let strength = if self.word("intersect") {
                1
            } else if self.any_word(&["union", "except"]) {
                0
            } else {
                return Ok(left);
            };
            if strength < min {
                return Ok(left);
            }
            count += 1;
            if count > OPERATIONS_MAX {
                return Err(too_deep());
            }
            self.at += 1;
            self.eat_any(&["all", "distinct"]);
            let right = self.deeper(|reader| reader.body(strength + 1))?;
            left = Body::Set(Box::new(SetOperation { left, right }));
        }
    }

    fn one(&mut self) -> Read<Body> {
        if self.punct("(") {
            let query = self.query_in_parens()?;
            return Ok(Body::Nested(Box::new(query)));
        }
        if self.word("values") {
            return self.values().map(Body::Values);
        }
        if self.word("table") {
            return self.table_command();
        }
        self.expect_word("select")?;
        self.select().map(|select| Body::Select(Box::new(select)))
    }

    fn values(&mut self) -> Read<Vec<Vec<Expr>>> {
        self.expect_word("values")?;
        let mut rows = Vec::new();
        loop {
            self.expect_punct("(")?;
            rows.push(self.expr_list()?);
            self.expect_punct(")")?;
            if !self.eat_punct(",") {
                return Ok(rows);
            }
        }
    }

    /// `TABLE name` is `SELECT * FROM name`.
    fn table_command(&mut self) -> Read<Body> {
        self.expect_word("table")?;
        let table: TableRef = self.table_name()?;
        let star = made(ExprKind::Star(Vec::new(), None))?;
        let items = vec![Item { expr: star, alias: None }];
        Ok(Body::Select(Box::new(Select {
            distinct_on: Vec::new(),
            items,
            from: vec![From::Table(table)],
            filter: None,
            filter_at: (0, 0),
            group: None,
            having: None,
            windows: Vec::new(),
        })))
    }

    fn select(&mut self) -> Read<Select> {
        let mut distinct_on = Vec::new();
        if self.eat_words(&["distinct", "on"]) {
            self.expect_punct("(")?;
            distinct_on = self.expr_list()?;
            self.expect_punct(")")?;
        } else {
            self.eat_any(&["all", "distinct"]);
        }
        let none = self.is_done() || self.punct(")") || self.any_word(AFTER_ITEMS);
        let items = if none { Vec::new() } else { self.items()? };
        if self.word("into") {
            return construct("SELECT INTO");
        }
        let from = if self.eat_word("from") { self.relation_list()? } else { Vec::new() };
        let filtered = self.eat_word("where");
        let start = self.at;
        let filter = if filtered { Some(self.expr()?) } else { None };
        let filter_at = (start, self.at);
        let group = if self.eat_words(&["group", "by"]) { Some(self.group()?) } else { None };
        let having = if self.eat_word("having") { Some(self.expr()?) } else { None };
        let mut windows = Vec::new();
        if self.eat_word("window") {
            loop {
                self.name()?;
                self.expect_word("as")?;
                windows.extend(self.window()?);
                if !self.eat_punct(",") {
                    break;
                }
            }
        }
        Ok(Select { distinct_on, items, from, filter, filter_at, group, having, windows })
    }

    /// A select list, or RETURNING's.
    pub(super) fn items(&mut self) -> Read<Vec<Item>> {
        let mut list = Vec::new();
        loop {
            let span = self.t.token_span(self.at);
            let expr = if self.eat_operator("*") {
                made(ExprKind::Star(Vec::new(), Some(span)))?
            } else {
                self.expr()?
            };
            let alias = if self.eat_word("as") || self.at_bare_label() {
                Some(self.label()?)
            } else {
                None
            };
            list.push(Item { expr, alias });
            if !self.eat_punct(",") {
                return Ok(list);
            }
        }
    }

    fn group(&mut self) -> Read<Group> {
        self.eat_any(&["all", "distinct"]);
        let mut group = Group { list: Vec::new(), plain: true };
        loop {
            self.group_item(&mut group)?;
            if !self.eat_punct(",") {
                return Ok(group);
            }
        }
    }

    fn group_item(&mut self, group: &mut Group) -> Read<()> {
        let sets = self.words(&["grouping", "sets"]);
        let cube = self.any_word(&["cube", "rollup"]) && self.t.is_punct(self.at + 1, "(");
        if !sets && !cube {
            let expr = self.expr()?;
            group.plain &= !matches!(&expr.kind, ExprKind::Row(list) if list.is_empty());
            group.list.push(expr);
            return Ok(());
        }
        group.plain = false;
        self.at += if sets { 2 } else { 1 };
        self.expect_punct("(")?;
        loop {
            self.deeper(|reader| reader.group_item(group))?;
            if !self.eat_punct(",") {
                break;
            }
        }
        self.expect_punct(")")
    }

    /// ORDER BY, LIMIT and row locks; whether rows are cut off.
    fn tail(&mut self) -> Read<(Vec<Expr>, bool)> {
        let mut tail = Vec::new();
        let mut bounded = false;
        loop {
            if self.eat_words(&["order", "by"]) {
                tail.extend(self.sort_list()?);
            } else if self.eat_word("limit") {
                bounded = true;
                if !self.eat_word("all") {
                    tail.push(self.expr()?);
                }
                if self.punct(",") {
                    return construct("LIMIT with a comma");
                }
            } else if self.eat_word("offset") {
                bounded = true;
                tail.push(self.expr()?);
                self.eat_any(&["row", "rows"]);
            } else if self.word("fetch") && self.any_word_at(self.at + 1, &["first", "next"]) {
                bounded = true;
                self.at += 2;
                if !self.any_word(&["row", "rows"]) {
                    tail.push(self.operand()?);
                }
                if !self.eat_any(&["row", "rows"])
                    || !(self.eat_word("only") || self.eat_words(&["with", "ties"]))
                {
                    return Err(self.unexpected());
                }
            } else if self.word("for") {
                // Which rows are locked depends on all of them, too.
                bounded = true;
                self.lock()?;
            } else {
                return Ok((tail, bounded));
            }
        }
    }

    fn lock(&mut self) -> Read<()> {
        self.expect_word("for")?;
        if self.eat_words(&["read", "only"]) {
            return Ok(());
        }
        let known = self.eat_words(&["no", "key", "update"])
            || self.eat_words(&["key", "share"])
            || self.eat_any(&["update", "share"]);
        if !known {
            return Err(self.unexpected());
        }
        if self.eat_word("of") {
            self.qualified()?;
            while self.eat_punct(",") {
                self.qualified()?;
            }
        }
        let _ = self.eat_word("nowait") || self.eat_words(&["skip", "locked"]);
        Ok(())
    }
}

/// Clauses that may follow SELECT without a list.
const AFTER_ITEMS: &[&str] = &[
    "into",
    "from",
    "where",
    "group",
    "having",
    "window",
    "union",
    "intersect",
    "except",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
];
/// Longer chains lean to one side, and are walked by recursion.
const OPERATIONS_MAX: usize = 400;
