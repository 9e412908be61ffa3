//! FROM: relations, joins, and which relations a join's condition restricts.

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, TableAlias, TableFactor, TableWithJoins,
};

use super::{ParseError, Walk, construct, folded, parts};
use crate::sql::shape::{Column, Equality, Relation, RelationKind, Side, Target};

impl Walk {
    pub(super) fn table_with_joins(
        &mut self,
        item: &TableWithJoins,
        level: usize,
    ) -> Result<(), ParseError> {
        let start = self.relations(level).len();
        self.factor(&item.relation, level)?;
        for join in &item.joins {
            self.join(join, level, start)?;
        }
        Ok(())
    }

    /// Joins `join` to the relations from `start` on.
    fn join(&mut self, join: &Join, level: usize, start: usize) -> Result<(), ParseError> {
        let middle = self.relations(level).len();
        self.factor(&join.relation, level)?;
        let end = self.relations(level).len();
        // The side whose unmatched rows stay is not restricted by the condition.
        let (restricts, constraint) = match &join.join_operator {
            JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => {
                ((start, end), on)
            }
            JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => ((middle, end), on),
            JoinOperator::Right(on) | JoinOperator::RightOuter(on) => ((start, middle), on),
            JoinOperator::FullOuter(on) => ((0, 0), on),
            _ => return construct("a join of another database"),
        };
        if join.global {
            return construct("a join of another database");
        }
        match constraint {
            JoinConstraint::None => Ok(()),
            JoinConstraint::Natural => {
                self.shape.levels[level].natural = true;
                Ok(())
            }
            JoinConstraint::On(on) => {
                self.expr(on, Some(level))?;
                self.conjuncts(on, level, restricts);
                Ok(())
            }
            JoinConstraint::Using(columns) => {
                let sides = (start, middle, end);
                self.using(columns, level, restricts, sides)
            }
            JoinConstraint::UsingAlias(..) => construct("JOIN … USING … AS"),
        }
    }

    fn using(
        &mut self,
        columns: &[ObjectName],
        level: usize,
        restricts: (usize, usize),
        (start, middle, end): (usize, usize, usize),
    ) -> Result<(), ParseError> {
        for column in columns {
            let name = parts(column)?.pop().unwrap_or_default();
            let side = |within| {
                let within = Some(within);
                Side::Column(Column { qualifier: Vec::new(), name: name.clone(), within })
            };
            let (left, right) = (side((start, middle)), side((middle, end)));
            let level = &mut self.shape.levels[level];
            level.equalities.push(Equality { left, right, restricts });
            level.merged.push(name);
        }
        Ok(())
    }

    fn factor(&mut self, factor: &TableFactor, level: usize) -> Result<(), ParseError> {
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                if !is_plain_table(factor) {
                    return construct("a table with clauses of another database");
                }
                let parts = parts(name)?;
                let (mut kind, last) = table_kind(&parts)?;
                if let Some(args) = args {
                    if args.settings.is_some() {
                        return construct("a clause of another database");
                    }
                    self.function_args(&args.args, Some(level))?;
                    kind = RelationKind::Other;
                } else if parts.len() == 1 && self.ctes.contains(&last) {
                    kind = RelationKind::Other;
                }
                let alias = if matches!(kind, RelationKind::Other) && alias.is_none() {
                    (Some(last), false)
                } else {
                    names(alias.as_ref())
                };
                self.push(level, kind, alias);
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                let outer = self.shape.levels[level].parent;
                self.query(subquery, if *lateral { Some(level) } else { outer })?;
                self.push(level, RelationKind::Other, names(alias.as_ref()));
            }
            TableFactor::Function { args, alias, .. } => {
                self.function_args(args, Some(level))?;
                self.push(level, RelationKind::Other, names(alias.as_ref()));
            }
            TableFactor::UNNEST { alias, array_exprs, with_offset: false, .. } => {
                self.exprs(array_exprs, Some(level))?;
                self.push(level, RelationKind::Other, names(alias.as_ref()));
            }
            TableFactor::TableFunction { expr, alias } => {
                self.expr(expr, Some(level))?;
                self.push(level, RelationKind::Other, names(alias.as_ref()));
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.table_with_joins(table_with_joins, level)?;
            }
            TableFactor::NestedJoin { .. } => return construct("a join with an alias"),
            _ => return construct("this kind of table in FROM"),
        }
        Ok(())
    }

    /// The table that an UPDATE or DELETE writes; never a CTE.
    pub(super) fn target(&mut self, factor: &TableFactor, level: usize) -> Result<(), ParseError> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            return construct("a write to something that is no table");
        };
        if !is_plain_table(factor) {
            return construct("a table with clauses of another database");
        }
        let (kind, _) = table_kind(&parts(name)?)?;
        let (alias, renamed) = names(alias.as_ref());
        let target = Target::Written { assigned: Vec::new() };
        self.relations(level).push(Relation { kind, alias, renamed, target });
        Ok(())
    }

    fn push(&mut self, level: usize, kind: RelationKind, names: (Option<Box<str>>, bool)) {
        let (alias, renamed) = names;
        self.relations(level).push(Relation { kind, alias, renamed, target: Target::Read });
    }
}

fn is_plain_table(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table {
            with_hints, version, partitions, json_path, index_directives, ..
        } => {
            with_hints.is_empty()
                && version.is_none()
                && partitions.is_empty()
                && json_path.is_none()
                && index_directives.is_empty()
        }
        _ => false,
    }
}

/// The alias, and whether it renames columns.
fn names(alias: Option<&TableAlias>) -> (Option<Box<str>>, bool) {
    alias.map_or((None, false), |alias| (Some(folded(&alias.name)), !alias.columns.is_empty()))
}

/// The table that a name denotes, and its last part.
pub(super) fn table_kind(parts: &[Box<str>]) -> Result<(RelationKind, Box<str>), ParseError> {
    let (schema, name) = match parts {
        [name] => (None, name),
        [schema, name] => (Some(schema.clone()), name),
        _ => return construct("a table name with a database"),
    };
    Ok((RelationKind::Table { schema, name: name.clone() }, name.clone()))
}
