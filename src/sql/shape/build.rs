//! From a statement's tree to its shape.

use crate::sql::parse::ParseError;
use crate::sql::tree::{
    Alias, Assignment, Body, Called, Cte, Delete, Expr, ExprKind, From, Insert, Item, Join,
    JoinKind, Merge, MergeAction, Name, On, Query, Select, TableRef, Update, When,
};

use super::{
    Assigned, Branch, Column, Condition, Conflict, Level, Output, Relation, RelationKind, Rows,
    Shape, Target, Test, conditions,
};

/// The shape of a statement.
///
/// # Errors
/// A construct whose meaning for routes is not known.
pub(crate) fn shape(query: &Query) -> Result<Shape, ParseError> {
    let mut build = Build { shape: Shape::default(), ctes: Vec::new(), recursions: 0 };
    build.query(query, None)?;
    Ok(build.shape)
}

type Built<T> = Result<T, ParseError>;

struct Build {
    shape: Shape,
    /// Names in sight and their outputs; a recursive reference has none.
    ctes: Vec<(Name, Option<usize>)>,
    /// Recursive references so far.
    recursions: usize,
}

impl Build {
    fn level(&mut self, parent: Option<usize>) -> usize {
        self.shape.levels.push(Level { parent, ..Level::default() });
        self.shape.levels.len() - 1
    }

    fn output(&mut self, output: Output) -> usize {
        self.shape.outputs.push(output);
        self.shape.outputs.len() - 1
    }

    /// A query, as seen from level `parent`; its output.
    fn query(&mut self, query: &Query, parent: Option<usize>) -> Built<usize> {
        let scope = self.ctes.len();
        if query.recursive {
            self.ctes.extend(query.with.iter().map(|cte| (cte.name.clone(), None)));
        }
        for (i, cte) in query.with.iter().enumerate() {
            let made = self.cte(cte, parent)?;
            if query.recursive {
                if let Some(entry) = self.ctes.get_mut(scope + i) {
                    entry.1 = Some(made);
                }
            } else {
                self.ctes.push((cte.name.clone(), Some(made)));
            }
        }
        let mut branches = Vec::new();
        let level = self.body(&query.body, parent, &mut branches)?;
        self.exprs(&query.tail, level.or(parent))?;
        self.ctes.truncate(scope);
        let opaque = query.bounded;
        Ok(self.output(Output { branches, columns: Vec::new(), opaque, references: 1 }))
    }

    fn cte(&mut self, cte: &Cte, parent: Option<usize>) -> Built<usize> {
        let before = self.recursions;
        let made = self.query(&cte.query, parent)?;
        let recursive = self.recursions > before;
        if let Some(output) = self.shape.outputs.get_mut(made) {
            output.columns.clone_from(&cte.columns);
            output.opaque |= recursive;
            output.references = 0;
        }
        Ok(made)
    }

    /// The branches of a query's body; its level if it has exactly one.
    fn body(
        &mut self,
        body: &Body,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<Option<usize>> {
        let made = match body {
            Body::Select(select) => self.select(select, parent, branches)?,
            Body::Values(rows) => {
                for row in rows {
                    self.exprs(row, parent)?;
                }
                branches.push(Branch::Values(values(rows)));
                return Ok(None);
            }
            Body::Set(set) => {
                self.body(&set.left, parent, branches)?;
                self.body(&set.right, parent, branches)?;
                return Ok(None);
            }
            Body::Nested(query) => {
                let nested = self.query(query, parent)?;
                let output = self.shape.outputs.get_mut(nested);
                let opaque = output.as_ref().is_some_and(|output| output.opaque);
                let mut inner = output.map(|output| std::mem::take(&mut output.branches));
                for branch in inner.iter_mut().flatten() {
                    if let Branch::Rows { opaque: one, .. } = branch {
                        *one |= opaque;
                    }
                }
                branches.extend(inner.into_iter().flatten());
                return Ok(None);
            }
            Body::Insert(insert) => self.insert(insert, parent, branches)?,
            Body::Update(update) => self.update(update, parent, branches)?,
            Body::Delete(delete) => self.delete(delete, parent, branches)?,
            Body::Merge(merge) => self.merge(merge, parent, branches)?,
        };
        Ok(Some(made))
    }

    fn select(
        &mut self,
        select: &Select,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<usize> {
        let level = self.level(parent);
        let inside = Some(level);
        for item in &select.from {
            self.from(item, level, Rights::Inner)?;
        }
        self.filter(select.filter.as_ref(), level)?;
        self.shape.levels[level].filter_at = select.filter_at;
        self.exprs(&select.distinct_on, inside)?;
        for item in &select.items {
            self.expr(&item.expr, inside)?;
        }
        let mut group = None;
        let mut opaque = !select.distinct_on.is_empty() || !select.windows.is_empty();
        if let Some(by) = &select.group {
            self.exprs(&by.list, inside)?;
            opaque |= !by.plain;
            group = Some(by.list.iter().filter_map(conditions::column).collect());
        }
        if let Some(having) = &select.having {
            self.expr(having, inside)?;
        }
        self.exprs(&select.windows, inside)?;
        opaque |= select.items.iter().any(|item| has_window(&item.expr));
        branches.push(Branch::Rows { level, items: items(&select.items), group, opaque });
        Ok(level)
    }

    fn filter(&mut self, filter: Option<&Expr>, level: usize) -> Built<()> {
        let all = (0, self.relations(level).len());
        filter.map_or(Ok(()), |filter| self.condition(filter, level, all))
    }

    /// Finds the queries in `expr`, a condition of `level`, and takes down what
    /// it says of the relations in `restricts`.
    fn condition(&mut self, expr: &Expr, level: usize, restricts: (usize, usize)) -> Built<()> {
        match &expr.kind {
            ExprKind::And(list) => {
                list.iter().try_for_each(|one| self.condition(one, level, restricts))
            }
            ExprKind::InQuery(left, query) => {
                self.expr(left, Some(level))?;
                let made = self.query(query, Some(level))?;
                self.semi_join(left, made, level, restricts);
                Ok(())
            }
            _ => {
                self.expr(expr, Some(level))?;
                let test = conditions::test(expr);
                self.shape.levels[level].conditions.push(Condition { test, restricts });
                Ok(())
            }
        }
    }

    /// `left IN (query)` joins the level to the query by its columns, and only
    /// rows that meet matter on either side.
    fn semi_join(&mut self, left: &Expr, made: usize, level: usize, restricts: (usize, usize)) {
        let columns = match &left.kind {
            ExprKind::Row(list) => list.iter().map(conditions::column).collect(),
            _ => vec![conditions::column(left)],
        };
        let relation = self.relations(level).len();
        self.push(level, RelationKind::Derived(made), None, Rights::Inner);
        if let Some(last) = self.relations(level).last_mut() {
            last.hidden = true;
        }
        for (position, column) in columns.into_iter().enumerate() {
            let Some(column) = column else { continue };
            for restricts in [restricts, (relation, relation + 1)] {
                let other = Column::At { relation, position };
                let test = Test::Equal(column.clone(), other);
                self.shape.levels[level].conditions.push(Condition { test, restricts });
            }
        }
    }

    fn relations(&mut self, level: usize) -> &mut Vec<Relation> {
        &mut self.shape.levels[level].relations
    }

    fn push(&mut self, level: usize, kind: RelationKind, alias: Option<&Alias>, rights: Rights) {
        let relation = Relation {
            kind,
            at: (0, 0),
            alias: alias.map(|alias| alias.name.clone()),
            columns: alias.map(|alias| alias.columns.clone()).unwrap_or_default(),
            nullable: rights == Rights::Nullable,
            hidden: false,
            target: Target::Read,
        };
        self.relations(level).push(relation);
    }

    fn from(&mut self, item: &From, level: usize, rights: Rights) -> Built<()> {
        match item {
            From::Table(table) => {
                self.exprs(&table.sample, Some(level))?;
                self.table(table, level, rights);
            }
            From::Derived { lateral, query, alias } => {
                let outer = self.shape.levels[level].parent;
                let made = self.query(query, if *lateral { Some(level) } else { outer })?;
                self.push(level, RelationKind::Derived(made), alias.as_ref(), rights);
            }
            From::Call { called, args, alias } => {
                self.exprs(args, Some(level))?;
                match (called, &**args) {
                    (Called::Unnest, [Expr { kind: ExprKind::Call(call), .. }]) => {
                        self.unnested(&call.args, level, alias.as_ref(), rights);
                    }
                    _ => self.push(level, RelationKind::Other, alias.as_ref(), rights),
                }
            }
            From::Join(join) => self.join(join, level, rights)?,
        }
        Ok(())
    }

    /// `unnest` of arrays, whose columns have the alias's names.
    fn unnested(&mut self, arrays: &[Expr], level: usize, alias: Option<&Alias>, rights: Rights) {
        let arrays: Vec<_> = arrays.iter().map(conditions::elements).collect();
        let alone = arrays.len() == 1;
        let branches = vec![Branch::Unnested(arrays)];
        let output = Output { branches, columns: Vec::new(), opaque: true, references: 1 };
        self.shape.outputs.push(output);
        let made = self.shape.outputs.len() - 1;
        self.push(level, RelationKind::Unnested(made), alias, rights);
        if let Some(last) = self.relations(level).last_mut() {
            let own: Name = last.alias.clone().unwrap_or_else(|| "unnest".into());
            // The only column is called as the relation is.
            if alone && last.columns.is_empty() {
                last.columns = vec![own.clone()];
            }
            last.alias = Some(own);
        }
    }

    fn table(&mut self, table: &TableRef, level: usize, rights: Rights) {
        let cte = self.ctes.iter().rev().find(|(name, _)| *name == table.name).cloned();
        let kind = match cte.filter(|_| table.schema.is_none()) {
            Some((_, Some(output))) => {
                if let Some(output) = self.shape.outputs.get_mut(output) {
                    output.references += 1;
                }
                RelationKind::Derived(output)
            }
            Some((_, None)) => {
                self.recursions += 1;
                RelationKind::Other
            }
            None => RelationKind::Table { schema: table.schema.clone(), name: table.name.clone() },
        };
        let by_name = !matches!(kind, RelationKind::Table { .. });
        self.push(level, kind, table.alias.as_ref(), rights);
        if let Some(last) = self.relations(level).last_mut() {
            last.at = table.at;
            if by_name {
                last.alias.get_or_insert_with(|| table.name.clone());
            }
        }
    }

    fn join(&mut self, join: &Join, level: usize, rights: Rights) -> Built<()> {
        let (left, right) = match join.kind {
            JoinKind::Inner => (rights, rights),
            JoinKind::Left => (rights, Rights::Nullable),
            JoinKind::Right => (Rights::Nullable, rights),
            JoinKind::Full => (Rights::Nullable, Rights::Nullable),
        };
        let start = self.relations(level).len();
        self.from(&join.left, level, left)?;
        let middle = self.relations(level).len();
        self.from(&join.right, level, right)?;
        let end = self.relations(level).len();
        // The side whose unmatched rows stay is not restricted by the condition.
        let restricts = match join.kind {
            JoinKind::Inner => (start, end),
            JoinKind::Left => (middle, end),
            JoinKind::Right => (start, middle),
            JoinKind::Full => (0, 0),
        };
        match &join.on {
            On::Nothing => {}
            On::Natural => self.shape.levels[level].natural = true,
            On::Condition(on) => {
                self.condition(on, level, restricts)?;
            }
            On::Using { columns, alias } => {
                for name in columns {
                    let side = |within| Column::Named {
                        qualifier: Vec::new(),
                        name: name.clone(),
                        within: Some(within),
                    };
                    let test = Test::Equal(side((start, middle)), side((middle, end)));
                    let content = &mut self.shape.levels[level];
                    content.conditions.push(Condition { test, restricts });
                    content.merged.push(name.clone());
                }
                if let Some(name) = alias {
                    let alias = Alias { name: name.clone(), columns: Vec::new() };
                    self.push(level, RelationKind::Other, Some(&alias), Rights::Nullable);
                }
            }
        }
        Ok(())
    }

    /// Enters the table that a write changes; never a CTE.
    fn target(&mut self, table: &TableRef, level: usize, assigned: Vec<Assigned>) {
        let kind = RelationKind::Table { schema: table.schema.clone(), name: table.name.clone() };
        self.push(level, kind, table.alias.as_ref(), Rights::Inner);
        if let Some(last) = self.relations(level).last_mut() {
            last.target = Target::Written { assigned };
        }
    }

    fn returning(&mut self, list: &[Item], level: usize, branches: &mut Vec<Branch>) -> Built<()> {
        for item in list {
            self.expr(&item.expr, Some(level))?;
        }
        let items = items(list);
        branches.push(Branch::Rows { level, items, group: None, opaque: true });
        Ok(())
    }

    fn insert(
        &mut self,
        insert: &Insert,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<usize> {
        let level = self.level(parent);
        let rows = match &insert.source {
            None => Rows::Default,
            Some(source) => {
                let made = self.query(source, parent)?;
                match &source.body {
                    Body::Values(list) if source.with.is_empty() && !source.bounded => {
                        Rows::Values(values(list))
                    }
                    _ => Rows::Query(made),
                }
            }
        };
        self.target(&insert.table, level, assigned(&insert.update));
        self.exprs(&insert.conflict, Some(level))?;
        for assignment in &insert.update {
            self.expr(&assignment.value, Some(level))?;
        }
        self.returning(&insert.returning, level, branches)?;
        let columns = insert.columns.clone();
        let list_at = Some(insert.list_at);
        let conflict = match &insert.conflict_on {
            _ if insert.update.is_empty() => Conflict::Leaves,
            Some(columns) => Conflict::Updates(columns.clone()),
            None => Conflict::UpdatesSome,
        };
        self.shape.inserts.push(super::Insert { level, columns, list_at, rows, conflict });
        Ok(level)
    }

    fn update(
        &mut self,
        update: &Update,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<usize> {
        let level = self.level(parent);
        self.target(&update.table, level, assigned(&update.assignments));
        for item in &update.from {
            self.from(item, level, Rights::Inner)?;
        }
        for assignment in &update.assignments {
            self.expr(&assignment.value, Some(level))?;
        }
        self.filter(update.filter.as_ref(), level)?;
        self.returning(&update.returning, level, branches)?;
        Ok(level)
    }

    fn delete(
        &mut self,
        delete: &Delete,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<usize> {
        let level = self.level(parent);
        self.target(&delete.table, level, Vec::new());
        for item in &delete.using {
            self.from(item, level, Rights::Inner)?;
        }
        self.filter(delete.filter.as_ref(), level)?;
        self.returning(&delete.returning, level, branches)?;
        Ok(level)
    }

    /// MERGE is a join of its source to its table; a WHEN NOT MATCHED makes a
    /// side's unmatched rows stay.
    fn merge(
        &mut self,
        merge: &Merge,
        parent: Option<usize>,
        branches: &mut Vec<Branch>,
    ) -> Built<usize> {
        let level = self.level(parent);
        let mut changes = Vec::new();
        for clause in &merge.clauses {
            if let MergeAction::Update(list) = &clause.action {
                changes.extend(assigned(list));
            }
        }
        // No value of a MERGE is the row to be inserted.
        for change in &mut changes {
            change.from = None;
        }
        self.target(&merge.table, level, changes);
        self.from(&merge.source, level, Rights::Inner)?;
        let end = self.relations(level).len();
        let keeps = |when| merge.clauses.iter().any(|clause| clause.when == when);
        let from = if keeps(When::NotMatchedBySource) { 1 } else { 0 };
        let to = if keeps(When::NotMatchedByTarget) { 1 } else { end };
        self.condition(&merge.on, level, (from, to))?;
        for clause in &merge.clauses {
            if let Some(condition) = &clause.condition {
                self.expr(condition, Some(level))?;
            }
            self.merge_action(&clause.action, level)?;
        }
        self.returning(&merge.returning, level, branches)?;
        Ok(level)
    }

    fn merge_action(&mut self, action: &MergeAction, level: usize) -> Built<()> {
        match action {
            MergeAction::Plain => {}
            MergeAction::Update(list) => {
                for assignment in list {
                    self.expr(&assignment.value, Some(level))?;
                }
            }
            MergeAction::Insert { columns, list_at, values } => {
                let rows = match values {
                    None => Rows::Default,
                    Some(values) => {
                        self.exprs(values, Some(level))?;
                        Rows::Row(values.iter().map(|value| item(value, None)).collect())
                    }
                };
                let columns = columns.clone();
                let (list_at, conflict) = (Some(*list_at), Conflict::Leaves);
                self.shape.inserts.push(super::Insert { level, columns, list_at, rows, conflict });
            }
        }
        Ok(())
    }

    fn exprs(&mut self, list: &[Expr], level: Option<usize>) -> Built<()> {
        list.iter().try_for_each(|expr| self.expr(expr, level))
    }

    /// Finds the queries in `expr`.
    fn expr(&mut self, expr: &Expr, level: Option<usize>) -> Built<()> {
        match &expr.kind {
            ExprKind::Column(_)
            | ExprKind::Star(..)
            | ExprKind::Constant(_)
            | ExprKind::Param(_)
            | ExprKind::Null => Ok(()),
            ExprKind::Minus(inner) | ExprKind::Cast(inner, _) => self.expr(inner, level),
            ExprKind::And(list)
            | ExprKind::Or(list)
            | ExprKind::Row(list)
            | ExprKind::Array(list)
            | ExprKind::Other(list) => self.exprs(list, level),
            ExprKind::Compare(_, a, b) | ExprKind::EqualsAny(a, b) => {
                self.expr(a, level)?;
                self.expr(b, level)
            }
            ExprKind::Between(a, b, c) => {
                self.expr(a, level)?;
                self.expr(b, level)?;
                self.expr(c, level)
            }
            ExprKind::In(inner, list) => {
                self.expr(inner, level)?;
                self.exprs(list, level)
            }
            ExprKind::Call(call) => self.exprs(&call.args, level),
            ExprKind::Query(query) => self.query(query, level).map(drop),
            ExprKind::InQuery(inner, query) => {
                self.expr(inner, level)?;
                self.query(query, level).map(drop)
            }
        }
    }
}

/// Whether an outer join may make all columns of a relation NULL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rights {
    Inner,
    Nullable,
}

fn values(rows: &[Vec<Expr>]) -> Vec<Vec<Option<super::Value>>> {
    rows.iter().map(|row| row.iter().map(conditions::value).collect()).collect()
}

fn items(list: &[Item]) -> Vec<super::Item> {
    list.iter().map(|one| item(&one.expr, one.alias.clone())).collect()
}

fn item(expr: &Expr, alias: Option<Name>) -> super::Item {
    if let ExprKind::Star(qualifier, span) = &expr.kind {
        return super::Item::Star { qualifier: qualifier.clone(), span: *span };
    }
    if let Some(column) = conditions::column(expr) {
        let own = match &column {
            Column::Named { name, .. } => name.clone(),
            Column::At { .. } => "".into(),
        };
        return super::Item::Column { column, name: alias.unwrap_or(own) };
    }
    match conditions::value(expr) {
        Some(value) => super::Item::Value { value, name: alias },
        None => super::Item::Other { name: alias },
    }
}

fn assigned(list: &[Assignment]) -> Vec<Assigned> {
    let mut found = Vec::new();
    for assignment in list {
        let values = match &assignment.value.kind {
            ExprKind::Row(values) if values.len() == assignment.columns.len() => Some(values),
            _ => None,
        };
        for (i, column) in assignment.columns.iter().enumerate() {
            let value = match values {
                Some(values) => values.get(i),
                None if assignment.columns.len() == 1 => Some(&assignment.value),
                None => None,
            };
            let from = value.and_then(conditions::column);
            found.push(Assigned { column: column.clone(), from });
        }
    }
    found
}

fn has_window(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Call(call) => call.window || call.args.iter().any(has_window),
        ExprKind::Minus(inner) | ExprKind::Cast(inner, _) | ExprKind::InQuery(inner, _) => {
            has_window(inner)
        }
        ExprKind::And(list)
        | ExprKind::Or(list)
        | ExprKind::Row(list)
        | ExprKind::Array(list)
        | ExprKind::Other(list) => list.iter().any(has_window),
        ExprKind::Compare(_, a, b) | ExprKind::EqualsAny(a, b) => has_window(a) || has_window(b),
        ExprKind::Between(a, b, c) => has_window(a) || has_window(b) || has_window(c),
        ExprKind::In(inner, list) => has_window(inner) || list.iter().any(has_window),
        ExprKind::Column(_)
        | ExprKind::Star(..)
        | ExprKind::Constant(_)
        | ExprKind::Param(_)
        | ExprKind::Null
        | ExprKind::Query(_) => false,
    }
}
