//! INSERT, UPDATE, DELETE and MERGE.

use crate::sql::tree::{
    Alias, Assignment, Body, Delete, Expr, Insert, Item, Merge, MergeAction, MergeClause, Name,
    TableRef, Update, When,
};

use super::cursor::{Read, Reader, construct};

impl Reader<'_> {
    pub(super) fn write(&mut self) -> Read<Body> {
        if self.eat_word("insert") {
            self.insert().map(|insert| Body::Insert(Box::new(insert)))
        } else if self.eat_word("update") {
            self.update().map(|update| Body::Update(Box::new(update)))
        } else if self.eat_word("delete") {
            self.delete().map(|delete| Body::Delete(Box::new(delete)))
        } else {
            self.expect_word("merge")?;
            self.merge().map(|merge| Body::Merge(Box::new(merge)))
        }
    }

    fn insert(&mut self) -> Read<Insert> {
        self.expect_word("into")?;
        let start = self.at;
        let (schema, name) = self.qualified()?;
        let at = (start, self.at);
        let alias = if self.eat_word("as") {
            Some(Alias { name: self.name()?, columns: Vec::new() })
        } else {
            None
        };
        let table = TableRef { at, schema, name, alias, sample: Vec::new() };
        let list_at = self.t.token_span(self.at).start;
        let columns = if self.punct("(") && !self.is_query(self.at) {
            self.expect_punct("(")?;
            let mut columns = vec![self.target_column()?];
            while self.eat_punct(",") {
                columns.push(self.target_column()?);
            }
            self.expect_punct(")")?;
            Some(columns)
        } else {
            None
        };
        if self.eat_word("overriding") {
            self.at += 1;
            self.expect_word("value")?;
        }
        let source =
            if self.eat_words(&["default", "values"]) { None } else { Some(self.query()?) };
        let mut insert = Insert {
            table,
            columns,
            list_at,
            source,
            update: Vec::new(),
            conflict_on: None,
            conflict: Vec::new(),
            returning: Vec::new(),
        };
        if self.eat_words(&["on", "conflict"]) {
            self.conflict(&mut insert)?;
        }
        insert.returning = self.returning()?;
        Ok(insert)
    }

    fn conflict(&mut self, insert: &mut Insert) -> Read<()> {
        if self.punct("(") {
            let close = self.closing(self.at).ok_or_else(|| self.unexpected())?;
            insert.conflict_on = self.plain_names(close);
            // Columns, expressions, collations, operator classes.
            insert.conflict.extend(self.soup(close)?);
            self.at = close + 1;
            if self.eat_word("where") {
                insert.conflict_on = None;
                insert.conflict.push(self.expr()?);
            }
        } else if self.eat_words(&["on", "constraint"]) {
            self.name()?;
        }
        self.expect_word("do")?;
        if self.eat_word("nothing") {
            return Ok(());
        }
        self.expect_word("update")?;
        self.expect_word("set")?;
        insert.update = self.assignments()?;
        if self.eat_word("where") {
            insert.conflict.push(self.expr()?);
        }
        Ok(())
    }

    /// The names between the parenthesis at hand and the one at `close`, if
    /// nothing else stands there.
    fn plain_names(&self, close: usize) -> Option<Vec<Name>> {
        let mut names = Vec::new();
        let mut at = self.at + 1;
        loop {
            names.push(self.t.name(at)?);
            match at + 1 {
                end if end == close => return Some(names),
                comma if self.t.is_punct(comma, ",") => at = comma + 1,
                _ => return None,
            }
        }
    }

    /// A column that is written; fields and subscripts belong to it.
    fn target_column(&mut self) -> Read<Name> {
        let name = self.name()?;
        loop {
            if self.eat_punct(".") {
                self.label()?;
            } else if self.eat_punct("[") {
                while !self.eat_punct("]") {
                    if !self.eat_punct(":") {
                        self.expr()?;
                    }
                }
            } else {
                return Ok(name);
            }
        }
    }

    fn assignments(&mut self) -> Read<Vec<Assignment>> {
        let mut list = Vec::new();
        loop {
            let mut columns = Vec::new();
            if self.eat_punct("(") {
                columns.push(self.target_column()?);
                while self.eat_punct(",") {
                    columns.push(self.target_column()?);
                }
                self.expect_punct(")")?;
            } else {
                columns.push(self.target_column()?);
            }
            if !self.eat_operator("=") {
                return Err(self.unexpected());
            }
            let value = self.expr()?;
            list.push(Assignment { columns, value });
            if !self.eat_punct(",") {
                return Ok(list);
            }
        }
    }

    /// RETURNING, with the names of the old and new row.
    fn returning(&mut self) -> Read<Vec<Item>> {
        if !self.eat_word("returning") {
            return Ok(Vec::new());
        }
        if self.word("with") && self.t.is_punct(self.at + 1, "(") {
            let close = self.closing(self.at + 1).ok_or_else(|| self.unexpected())?;
            self.at = close + 1;
        }
        self.items()
    }

    /// The table of UPDATE, DELETE or MERGE; SET is no alias.
    fn target(&mut self) -> Read<TableRef> {
        let mut table = self.table_name()?;
        let written = self.eat_word("as");
        if written || (self.at_name() && !self.word("set")) {
            table.alias = Some(Alias { name: self.name()?, columns: Vec::new() });
        }
        Ok(table)
    }

    fn filter(&mut self) -> Read<Option<Expr>> {
        if !self.eat_word("where") {
            return Ok(None);
        }
        if self.words(&["current", "of"]) {
            return construct("WHERE CURRENT OF");
        }
        self.expr().map(Some)
    }

    fn update(&mut self) -> Read<Update> {
        let table = self.target()?;
        self.expect_word("set")?;
        let assignments = self.assignments()?;
        let from = if self.eat_word("from") { self.relation_list()? } else { Vec::new() };
        let filter = self.filter()?;
        let returning = self.returning()?;
        Ok(Update { table, assignments, from, filter, returning })
    }

    fn delete(&mut self) -> Read<Delete> {
        self.expect_word("from")?;
        let table = self.target()?;
        let using = if self.eat_word("using") { self.relation_list()? } else { Vec::new() };
        let filter = self.filter()?;
        let returning = self.returning()?;
        Ok(Delete { table, using, filter, returning })
    }

    fn merge(&mut self) -> Read<Merge> {
        self.expect_word("into")?;
        let table = self.target()?;
        self.expect_word("using")?;
        let source = self.relation()?;
        self.expect_word("on")?;
        let on = self.expr()?;
        let mut clauses = Vec::new();
        while self.eat_word("when") {
            clauses.push(self.merge_clause()?);
        }
        let returning = self.returning()?;
        Ok(Merge { table, source, on, clauses, returning })
    }

    fn merge_clause(&mut self) -> Read<MergeClause> {
        let not = self.eat_word("not");
        self.expect_word("matched")?;
        let by_source = not && self.eat_words(&["by", "source"]);
        let _ = not && !by_source && self.eat_words(&["by", "target"]);
        let when = match (not, by_source) {
            (false, _) => When::Matched,
            (true, true) => When::NotMatchedBySource,
            (true, false) => When::NotMatchedByTarget,
        };
        let condition = if self.eat_word("and") { Some(self.expr()?) } else { None };
        self.expect_word("then")?;
        let action = if self.eat_word("delete") || self.eat_words(&["do", "nothing"]) {
            MergeAction::Plain
        } else if self.eat_word("update") {
            self.expect_word("set")?;
            MergeAction::Update(self.assignments()?)
        } else {
            self.expect_word("insert")?;
            self.merge_insert()?
        };
        Ok(MergeClause { when, condition, action })
    }

    fn merge_insert(&mut self) -> Read<MergeAction> {
        let list_at = self.t.token_span(self.at).start;
        let mut columns = None;
        if self.eat_punct("(") {
            let mut list = vec![self.target_column()?];
            while self.eat_punct(",") {
                list.push(self.target_column()?);
            }
            self.expect_punct(")")?;
            columns = Some(list);
        }
        if self.eat_word("overriding") {
            self.at += 1;
            self.expect_word("value")?;
        }
        if self.eat_words(&["default", "values"]) {
            return Ok(MergeAction::Insert { columns, list_at, values: None });
        }
        self.expect_word("values")?;
        self.expect_punct("(")?;
        let values = self.expr_list()?;
        self.expect_punct(")")?;
        Ok(MergeAction::Insert { columns, list_at, values: Some(values) })
    }
}
