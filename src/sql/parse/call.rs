//! Names in expressions: columns, functions, and the constructs that begin with
//! a word.

use crate::sql::lex::TokenKind;
use crate::sql::statement::Span;
use crate::sql::token::Kind;
use crate::sql::tree::{Call, Expr, ExprKind, Query};

use super::cursor::{Read, Reader};
use super::expr::made;
use super::words::{self, Category};

/// Whether a call's name has a schema.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    Name,
    Qualified,
}

impl Reader<'_> {
    /// An expression that begins with a word.
    pub(super) fn named(&mut self, start: usize) -> Read<Expr> {
        let category = self.category_at(start).ok_or_else(|| self.unexpected())?;
        let is_word = self.t.kind(start) == Some(Kind::Plain(TokenKind::Word));
        let word = if is_word { self.t.name(start).unwrap_or_default() } else { "".into() };
        let opens = self.t.is_punct(start + 1, "(");
        match &*word {
            "null" => {
                self.at += 1;
                return made(ExprKind::Null);
            }
            "true" | "false" | "default" => {
                self.at += 1;
                return made(ExprKind::Other(Vec::new()));
            }
            "case" => return self.case(),
            "cast" | "treat" if opens => return self.cast(),
            "exists" if opens => {
                self.at += 1;
                let query = Box::new(self.query_in_parens()?);
                return made(ExprKind::Query(query));
            }
            "array" => return self.array(),
            "row" if opens => return self.row(),
            "collation" if self.t.is_word(start + 1, "for") => {
                self.at += 2;
                return self.soup_in_parens();
            }
            "current_date" | "current_time" | "current_timestamp" | "localtime"
            | "localtimestamp" | "current_role" | "current_user" | "session_user"
            | "system_user" | "user" | "current_catalog" => {
                self.at += 1;
                if self.punct("(") {
                    self.at = self.closing(self.at).ok_or_else(|| self.unexpected())? + 1;
                }
                return made(ExprKind::Other(Vec::new()));
            }
            "current_schema" if !opens => {
                self.at += 1;
                return made(ExprKind::Other(Vec::new()));
            }
            _ if opens && words::has_own_grammar(&word) => {
                self.at += 1;
                self.soup_in_parens()?;
                return self.call(Bare::Name, Vec::new());
            }
            _ => {}
        }
        if let Some(constant) = self.typed_constant(start, &word)? {
            return Ok(constant);
        }
        match category {
            Category::Reserved => Err(self.unexpected()),
            Category::TypeOrFunction if !opens => Err(self.unexpected()),
            Category::TypeOrFunction | Category::ColumnName | Category::Free => {
                self.column_or_call()
            }
        }
    }

    /// `type 'constant'`.
    fn typed_constant(&mut self, start: usize, word: &str) -> Read<Option<Expr>> {
        // Only a type's own words, dots and modifiers stand before the string.
        let mut end = start;
        while self.category_at(end).is_some()
            || self.t.is_punct(end, ".")
            || self.t.is_punct(end, "(")
        {
            end = if self.t.is_punct(end, "(") {
                self.closing(end).ok_or_else(|| self.unexpected())? + 1
            } else {
                end + 1
            };
        }
        if !self.is_string(end) || end == start {
            return Ok(None);
        }
        let Ok(found) = self.type_name() else {
            self.at = start;
            return Ok(None);
        };
        let Some((number, _)) = self.literal_at(self.at).filter(|_| self.is_string(self.at)) else {
            self.at = start;
            return Ok(None);
        };
        self.at += 1;
        let inner = made(ExprKind::Constant(number))?;
        if word == "interval" {
            self.interval_fields()?;
        }
        made(ExprKind::Cast(Box::new(inner), found)).map(Some)
    }

    fn column_or_call(&mut self) -> Read<Expr> {
        let start = self.t.token_span(self.at).start;
        let mut parts = vec![self.label()?];
        while self.eat_punct(".") {
            if self.eat_operator("*") {
                let end = self.t.token_span(self.at - 1).end;
                return made(ExprKind::Star(parts, Some(Span { start, end })));
            }
            parts.push(self.label()?);
        }
        if self.punct("(") {
            let args = self.arguments()?;
            let bare = if parts.len() == 1 { Bare::Name } else { Bare::Qualified };
            return self.call(bare, args);
        }
        made(ExprKind::Column(parts))
    }

    /// The arguments of a call, parentheses included.
    pub(super) fn arguments(&mut self) -> Read<Vec<Expr>> {
        self.expect_punct("(")?;
        let mut args = Vec::new();
        if self.eat_operator("*") {
            self.expect_punct(")")?;
            return Ok(vec![made(ExprKind::Star(Vec::new(), None))?]);
        }
        if self.eat_punct(")") {
            return Ok(args);
        }
        self.eat_any(&["all", "distinct"]);
        loop {
            self.eat_word("variadic");
            let named = self.category_at(self.at).is_some()
                && (self.t.is_punct(self.at + 1, ":=") || self.t.is_operator(self.at + 1, "=>"));
            if named {
                self.at += 2;
            }
            args.push(self.expr()?);
            if !self.eat_punct(",") {
                break;
            }
        }
        if self.eat_words(&["order", "by"]) {
            args.extend(self.sort_list()?);
        }
        self.expect_punct(")")?;
        Ok(args)
    }

    /// What may follow a call's arguments.
    fn call(&mut self, name: Bare, mut args: Vec<Expr>) -> Read<Expr> {
        if self.is_string(self.at) && name == Bare::Name {
            // `type(modifiers) 'constant'` of a type that only the catalog knows.
            self.at += 1;
            return made(ExprKind::Other(args));
        }
        if self.eat_words(&["within", "group"]) {
            self.expect_punct("(")?;
            self.expect_word("order")?;
            self.expect_word("by")?;
            args.extend(self.sort_list()?);
            self.expect_punct(")")?;
        }
        if self.word("filter") && self.t.is_punct(self.at + 1, "(") {
            self.at += 2;
            self.expect_word("where")?;
            args.push(self.expr()?);
            self.expect_punct(")")?;
        }
        if self.any_word(&["respect", "ignore"]) && self.t.is_word(self.at + 1, "nulls") {
            self.at += 2;
        }
        let window = self.eat_word("over");
        if window {
            if self.punct("(") {
                args.extend(self.window()?);
            } else {
                self.name()?;
            }
        }
        made(ExprKind::Call(Box::new(Call { args, window })))
    }

    /// A window's definition in parentheses.
    pub(super) fn window(&mut self) -> Read<Vec<Expr>> {
        let mut found = Vec::new();
        let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
        self.expect_punct("(")?;
        if self.at_name() && !self.any_word(&["partition", "range", "rows", "groups"]) {
            self.name()?;
        }
        if self.eat_words(&["partition", "by"]) {
            found.extend(self.expr_list()?);
        }
        if self.eat_words(&["order", "by"]) {
            found.extend(self.sort_list()?);
        }
        if self.any_word(&["range", "rows", "groups"]) {
            found.extend(self.soup(close)?);
        }
        self.expect_punct(")")?;
        Ok(found)
    }

    /// ORDER BY's list.
    pub(super) fn sort_list(&mut self) -> Read<Vec<Expr>> {
        let mut list = Vec::new();
        loop {
            list.push(self.expr()?);
            if self.eat_word("using") {
                self.any_operator()?;
            }
            self.eat_any(&["asc", "desc"]);
            if self.eat_word("nulls") && !self.eat_any(&["first", "last"]) {
                return Err(self.unexpected());
            }
            if !self.eat_punct(",") {
                return Ok(list);
            }
        }
    }

    fn case(&mut self) -> Read<Expr> {
        self.expect_word("case")?;
        let mut parts = Vec::new();
        if !self.word("when") {
            parts.push(self.expr()?);
        }
        while self.eat_word("when") {
            parts.push(self.expr()?);
            self.expect_word("then")?;
            parts.push(self.expr()?);
        }
        if self.eat_word("else") {
            parts.push(self.expr()?);
        }
        self.expect_word("end")?;
        made(ExprKind::Other(parts))
    }

    fn cast(&mut self) -> Read<Expr> {
        let cast = self.word("cast");
        self.at += 1;
        self.expect_punct("(")?;
        let inner = self.expr()?;
        self.expect_word("as")?;
        let to = self.type_name()?;
        self.expect_punct(")")?;
        if cast {
            return made(ExprKind::Cast(Box::new(inner), to));
        }
        made(ExprKind::Other(vec![inner]))
    }

    fn array(&mut self) -> Read<Expr> {
        self.expect_word("array")?;
        if self.is_query(self.at) {
            let query = Box::new(self.query_in_parens()?);
            return made(ExprKind::Query(query));
        }
        self.array_list()
    }

    fn array_list(&mut self) -> Read<Expr> {
        self.expect_punct("[")?;
        let mut list = Vec::new();
        if self.eat_punct("]") {
            return made(ExprKind::Array(list));
        }
        loop {
            let one = if self.punct("[") {
                self.deeper(|reader| reader.array_list())?
            } else {
                self.expr()?
            };
            list.push(one);
            if !self.eat_punct(",") {
                break;
            }
        }
        self.expect_punct("]")?;
        made(ExprKind::Array(list))
    }

    fn row(&mut self) -> Read<Expr> {
        self.expect_word("row")?;
        self.expect_punct("(")?;
        let mut list = Vec::new();
        if !self.punct(")") {
            list = self.expr_list()?;
        }
        self.expect_punct(")")?;
        made(ExprKind::Row(list))
    }

    /// Parentheses whose inside has a grammar of its own: only the queries in it
    /// are read.
    fn soup_in_parens(&mut self) -> Read<Expr> {
        let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
        let found = self.soup(close)?;
        self.at = close + 1;
        made(ExprKind::Other(found))
    }

    /// The queries among the tokens up to `end`.
    pub(super) fn soup(&mut self, end: usize) -> Read<Vec<Expr>> {
        let mut found = Vec::new();
        while self.at < end {
            if self.is_query(self.at) {
                let query = Box::new(self.query_in_parens()?);
                found.push(made(ExprKind::Query(query))?);
            } else {
                self.at += 1;
            }
        }
        Ok(found)
    }

    /// `(query)`.
    pub(super) fn query_in_parens(&mut self) -> Read<Query> {
        self.expect_punct("(")?;
        let query = self.deeper(Self::query)?;
        self.expect_punct(")")?;
        Ok(query)
    }
}
