//! Statements and queries: levels, CTEs, set operations, INSERT's rows.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, FromTable, GroupByExpr, GroupByWithModifier, Ident,
    Insert, LimitClause, OnConflictAction, OnInsert, OrderBy, OrderByExpr, OrderByKind, Query,
    Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement, TableObject, Update,
    UpdateTableFromKind,
};

use super::{ParseError, Walk, construct, folded, parts};
use crate::sql::shape::{self, Level, Relation, RelationKind, Rows, Target};

impl Walk {
    pub(super) fn statement(
        &mut self,
        statement: &Statement,
        parent: Option<usize>,
    ) -> Result<(), ParseError> {
        match statement {
            Statement::Query(query) => self.query(query, parent).map(drop),
            Statement::Insert(insert) => self.insert(insert, parent),
            Statement::Update(update) => self.update(update, parent),
            Statement::Delete(delete) => self.delete(delete, parent),
            Statement::Merge(_) => construct("MERGE"),
            _ => construct("this statement"),
        }
    }

    fn level(&mut self, parent: Option<usize>) -> usize {
        self.shape.levels.push(Level { parent, ..Level::default() });
        self.shape.levels.len() - 1
    }

    /// A query; the level of its SELECT if it has exactly one.
    pub(super) fn query(
        &mut self,
        query: &Query,
        parent: Option<usize>,
    ) -> Result<Option<usize>, ParseError> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks: _,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty()
        {
            return construct("a clause of another database");
        }
        let scope = self.ctes.len();
        if let Some(with) = with {
            if with.recursive {
                self.ctes.extend(with.cte_tables.iter().map(|cte| folded(&cte.alias.name)));
            }
            for cte in &with.cte_tables {
                if cte.from.is_some() {
                    return construct("a clause of another database");
                }
                self.query(&cte.query, parent)?;
                self.ctes.push(folded(&cte.alias.name));
            }
        }
        let level = self.set_expr(body, parent)?;
        let inside = level.or(parent);
        if let Some(order_by) = order_by {
            self.order_by(order_by, inside)?;
        }
        match limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                self.exprs(limit_by, inside)?;
                if let Some(limit) = limit {
                    self.expr(limit, inside)?;
                }
                if let Some(offset) = offset {
                    self.expr(&offset.value, inside)?;
                }
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                return construct("LIMIT with a comma");
            }
        }
        if let Some(quantity) = fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()) {
            self.expr(quantity, inside)?;
        }
        self.ctes.truncate(scope);
        Ok(level)
    }

    fn order_by(&mut self, order: &OrderBy, level: Option<usize>) -> Result<(), ParseError> {
        match (&order.kind, &order.interpolate) {
            (OrderByKind::Expressions(list), None) => self.order_list(list, level),
            _ => construct("a clause of another database"),
        }
    }

    pub(super) fn order_list(
        &mut self,
        list: &[OrderByExpr],
        level: Option<usize>,
    ) -> Result<(), ParseError> {
        list.iter().try_for_each(|one| self.expr(&one.expr, level))
    }

    fn set_expr(
        &mut self,
        body: &SetExpr,
        parent: Option<usize>,
    ) -> Result<Option<usize>, ParseError> {
        match body {
            SetExpr::Select(select) => self.select(select, parent).map(Some),
            SetExpr::Query(query) => self.query(query, parent),
            SetExpr::SetOperation { left, right, .. } => {
                self.set_expr(left, parent)?;
                self.set_expr(right, parent)?;
                Ok(None)
            }
            SetExpr::Values(values) => {
                for row in &values.rows {
                    self.exprs(&row.content, parent)?;
                }
                Ok(None)
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.statement(statement, parent).map(|()| None),
            SetExpr::Table(table) => {
                let name = folded_or_empty(table.table_name.as_ref());
                let schema = table.schema_name.as_ref().map(folded);
                let level = self.level(parent);
                let kind = if schema.is_none() && self.ctes.contains(&name) {
                    RelationKind::Other
                } else {
                    RelationKind::Table { schema, name }
                };
                let relation = Relation { kind, alias: None, renamed: false, target: Target::Read };
                self.relations(level).push(relation);
                Ok(Some(level))
            }
        }
    }

    pub(super) fn relations(&mut self, level: usize) -> &mut Vec<Relation> {
        &mut self.shape.levels[level].relations
    }

    fn select(&mut self, select: &Select, parent: Option<usize>) -> Result<usize, ParseError> {
        let foreign = select.top.is_some()
            || select.exclude.is_some()
            || select.prewhere.is_some()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.select_modifiers.is_some()
            || !select.optimizer_hints.is_empty()
            || !select.lateral_views.is_empty()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty();
        if foreign {
            return construct("a clause of another database");
        }
        if select.into.is_some() {
            return construct("SELECT INTO");
        }
        let level = self.level(parent);
        let inside = Some(level);
        for item in &select.from {
            self.table_with_joins(item, level)?;
        }
        if let Some(selection) = &select.selection {
            self.expr(selection, inside)?;
            let all = (0, self.relations(level).len());
            self.conjuncts(selection, level, all);
        }
        if let Some(sqlparser::ast::Distinct::On(list)) = &select.distinct {
            self.exprs(list, inside)?;
        }
        self.items(&select.projection, inside)?;
        let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) =
            &select.group_by;
        for modifier in modifiers {
            match modifier {
                GroupByWithModifier::GroupingSets(expr) => self.expr(expr, inside)?,
                _ => return construct("a clause of another database"),
            }
        }
        if let GroupByExpr::Expressions(list, _) = &select.group_by {
            self.exprs(list, inside)?;
        }
        if let Some(having) = &select.having {
            self.expr(having, inside)?;
        }
        for window in &select.named_window {
            match &window.1 {
                sqlparser::ast::NamedWindowExpr::NamedWindow(_) => {}
                sqlparser::ast::NamedWindowExpr::WindowSpec(spec) => self.window(spec, inside)?,
            }
        }
        Ok(level)
    }

    fn items(&mut self, items: &[SelectItem], level: Option<usize>) -> Result<(), ParseError> {
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                    self.expr(expr, level)?;
                }
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(_),
                    _,
                ) => {}
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    self.expr(expr, level)?;
                }
                SelectItem::ExprWithAliases { .. } => {
                    return construct("a clause of another database");
                }
            }
        }
        Ok(())
    }

    fn insert(&mut self, insert: &Insert, parent: Option<usize>) -> Result<(), ParseError> {
        let foreign = insert.or.is_some()
            || insert.ignore
            || insert.overwrite
            || insert.by_name
            || insert.replace_into
            || insert.partitioned.is_some()
            || insert.output.is_some()
            || insert.insert_alias.is_some()
            || !insert.assignments.is_empty()
            || !insert.after_columns.is_empty()
            || !insert.multi_table_into_clauses.is_empty()
            || !insert.multi_table_when_clauses.is_empty();
        let TableObject::TableName(name) = &insert.table else {
            return construct("INSERT into a function");
        };
        if foreign {
            return construct("a clause of another database");
        }
        let level = self.level(parent);
        let alias = insert.table_alias.as_ref().map(|alias| folded(&alias.alias));
        let (kind, _) = super::from::table_kind(&parts(name)?)?;
        let mut assigned = Vec::new();
        let columns = insert
            .columns
            .iter()
            .map(|column| Ok(parts(column)?.pop().unwrap_or_default()))
            .collect::<Result<Vec<_>, ParseError>>()?;
        let rows = match &insert.source {
            None => Rows::Default,
            Some(source) => self.source(source, parent)?,
        };
        match &insert.on {
            None => {}
            Some(OnInsert::OnConflict(conflict)) => {
                if let OnConflictAction::DoUpdate(update) = &conflict.action {
                    self.assignments(&update.assignments, level, &mut assigned)?;
                    if let Some(selection) = &update.selection {
                        self.expr(selection, Some(level))?;
                    }
                }
            }
            Some(_) => return construct("a clause of another database"),
        }
        if let Some(returning) = &insert.returning {
            self.items(returning, Some(level))?;
        }
        let target = Target::Written { assigned };
        self.relations(level).push(Relation { kind, alias, renamed: false, target });
        let columns = (!columns.is_empty()).then_some(columns);
        self.shape.inserts.push(shape::Insert { level, columns, rows });
        Ok(())
    }

    fn source(&mut self, source: &Query, parent: Option<usize>) -> Result<Rows, ParseError> {
        self.query(source, parent)?;
        let plain = source.with.is_none()
            && source.order_by.is_none()
            && source.limit_clause.is_none()
            && source.fetch.is_none();
        match &*source.body {
            SetExpr::Values(values) if plain => {
                let row = |row: &Vec<_>| row.iter().map(super::expr::value).collect();
                Ok(Rows::Values(values.rows.iter().map(|one| row(&one.content)).collect()))
            }
            _ => Ok(Rows::Query),
        }
    }

    fn assignments(
        &mut self,
        list: &[Assignment],
        level: usize,
        assigned: &mut Vec<Box<str>>,
    ) -> Result<(), ParseError> {
        for assignment in list {
            let names = match &assignment.target {
                AssignmentTarget::ColumnName(name) => std::slice::from_ref(name),
                AssignmentTarget::Tuple(names) => names,
            };
            for name in names {
                // `SET key.field = …` would change the column too.
                assigned.extend(parts(name)?);
            }
            self.expr(&assignment.value, Some(level))?;
        }
        Ok(())
    }

    fn update(&mut self, update: &Update, parent: Option<usize>) -> Result<(), ParseError> {
        if update.or.is_some()
            || update.output.is_some()
            || update.limit.is_some()
            || update.on_cluster.is_some()
            || !update.order_by.is_empty()
            || !update.table.joins.is_empty()
        {
            return construct("a clause of another database");
        }
        let level = self.level(parent);
        self.target(&update.table.relation, level)?;
        let mut assigned = Vec::new();
        match &update.from {
            None => {}
            Some(UpdateTableFromKind::AfterSet(list)) => {
                for item in list {
                    self.table_with_joins(item, level)?;
                }
            }
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                return construct("a clause of another database");
            }
        }
        self.assignments(&update.assignments, level, &mut assigned)?;
        if let Some(target) = self.relations(level).first_mut() {
            target.target = Target::Written { assigned };
        }
        self.filter(update.selection.as_ref(), level)?;
        if let Some(returning) = &update.returning {
            self.items(returning, Some(level))?;
        }
        Ok(())
    }

    fn filter(
        &mut self,
        selection: Option<&sqlparser::ast::Expr>,
        level: usize,
    ) -> Result<(), ParseError> {
        if let Some(selection) = selection {
            self.expr(selection, Some(level))?;
            let all = (0, self.relations(level).len());
            self.conjuncts(selection, level, all);
        }
        Ok(())
    }

    fn delete(&mut self, delete: &Delete, parent: Option<usize>) -> Result<(), ParseError> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [target] = &**from else { return construct("DELETE from several tables") };
        if !delete.tables.is_empty()
            || !target.joins.is_empty()
            || delete.limit.is_some()
            || delete.output.is_some()
            || delete.on_cluster.is_some()
            || !delete.order_by.is_empty()
        {
            return construct("a clause of another database");
        }
        let level = self.level(parent);
        self.target(&target.relation, level)?;
        for item in delete.using.iter().flatten() {
            self.table_with_joins(item, level)?;
        }
        self.filter(delete.selection.as_ref(), level)?;
        if let Some(returning) = &delete.returning {
            self.items(returning, Some(level))?;
        }
        Ok(())
    }
}

fn folded_or_empty(name: Option<&Ident>) -> Box<str> {
    name.map(folded).unwrap_or_default()
}
