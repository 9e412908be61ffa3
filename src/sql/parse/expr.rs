//! Expressions: every subquery in them is found, and equalities joined by AND
//! are taken down.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, CeilFloorKind, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArguments, InTarget, JsonPathElem, Subscript,
    UnaryOperator, Value as Constant, WindowFrameBound, WindowSpec, WindowType,
};

use super::{ParseError, Walk, construct, folded};
use crate::sql::shape::{Column, Equality, Place, Side, Value};

impl Walk {
    pub(super) fn exprs(&mut self, list: &[Expr], level: Option<usize>) -> Result<(), ParseError> {
        list.iter().try_for_each(|expr| self.expr(expr, level))
    }

    /// Walks `expr` for subqueries.
    pub(super) fn expr(&mut self, expr: &Expr, level: Option<usize>) -> Result<(), ParseError> {
        match expr {
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => Ok(()),
            Expr::IsFalse(e)
            | Expr::IsNotFalse(e)
            | Expr::IsTrue(e)
            | Expr::IsNotTrue(e)
            | Expr::IsNull(e)
            | Expr::IsNotNull(e)
            | Expr::IsUnknown(e)
            | Expr::IsNotUnknown(e)
            | Expr::Nested(e)
            | Expr::IsJson { expr: e, .. }
            | Expr::IsNormalized { expr: e, .. }
            | Expr::UnaryOp { expr: e, .. }
            | Expr::Cast { expr: e, .. }
            | Expr::Extract { expr: e, .. }
            | Expr::Collate { expr: e, .. }
            | Expr::Named { expr: e, .. }
            | Expr::Prefixed { value: e, .. } => self.expr(e, level),
            Expr::Ceil { expr: e, field } | Expr::Floor { expr: e, field } => match field {
                CeilFloorKind::DateTimeField(_) | CeilFloorKind::Scale(_) => self.expr(e, level),
            },
            Expr::Interval(interval) => self.expr(&interval.value, level),
            Expr::IsDistinctFrom(a, b)
            | Expr::IsNotDistinctFrom(a, b)
            | Expr::Position { expr: a, r#in: b }
            | Expr::AtTimeZone { timestamp: a, time_zone: b }
            | Expr::BinaryOp { left: a, right: b, .. }
            | Expr::AnyOp { left: a, right: b, .. }
            | Expr::AllOp { left: a, right: b, .. } => {
                self.expr(a, level)?;
                self.expr(b, level)
            }
            Expr::Like { expr: a, pattern: b, escape_char: c, any: false, .. }
            | Expr::ILike { expr: a, pattern: b, escape_char: c, any: false, .. }
            | Expr::SimilarTo { expr: a, pattern: b, escape_char: c, .. } => {
                self.expr(a, level)?;
                self.expr(b, level)?;
                self.optional(c.as_deref(), level)
            }
            Expr::Between { expr: a, low: b, high: c, .. } => {
                self.expr(a, level)?;
                self.expr(b, level)?;
                self.expr(c, level)
            }
            Expr::Exists { subquery, .. } | Expr::Subquery(subquery) => {
                self.query(subquery, level).map(drop)
            }
            Expr::In { expr: a, target, global: false, .. } => {
                self.expr(a, level)?;
                match target {
                    InTarget::List(list) => self.exprs(list, level),
                    InTarget::Subquery(query) => self.query(query, level).map(drop),
                    _ => construct("IN with a clause of another database"),
                }
            }
            Expr::Tuple(list) => self.exprs(list, level),
            Expr::Array(array) => self.exprs(&array.elem, level),
            Expr::GroupingSets(sets) | Expr::Cube(sets) | Expr::Rollup(sets) => {
                sets.iter().try_for_each(|set| self.exprs(set, level))
            }
            Expr::Function(function) => self.function(function, level),
            _ => self.rare(expr, level),
        }
    }

    fn rare(&mut self, expr: &Expr, level: Option<usize>) -> Result<(), ParseError> {
        match expr {
            Expr::Case { operand, conditions, else_result, .. } => {
                self.optional(operand.as_deref(), level)?;
                for when in conditions {
                    self.expr(&when.condition, level)?;
                    self.expr(&when.result, level)?;
                }
                self.optional(else_result.as_deref(), level)
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                self.expr(expr, level)?;
                self.optional(substring_from.as_deref(), level)?;
                self.optional(substring_for.as_deref(), level)
            }
            Expr::Trim { trim_what, expr, trim_characters, .. } => {
                self.expr(expr, level)?;
                self.optional(trim_what.as_deref(), level)?;
                self.exprs(trim_characters.as_deref().unwrap_or_default(), level)
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                self.expr(expr, level)?;
                self.expr(overlay_what, level)?;
                self.expr(overlay_from, level)?;
                self.optional(overlay_for.as_deref(), level)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                self.expr(root, level)?;
                access_chain.iter().try_for_each(|access| match access {
                    AccessExpr::Dot(expr) => self.expr(expr, level),
                    AccessExpr::Subscript(Subscript::Index { index }) => self.expr(index, level),
                    AccessExpr::Subscript(Subscript::Slice {
                        lower_bound,
                        upper_bound,
                        stride,
                    }) => {
                        self.optional(lower_bound.as_ref(), level)?;
                        self.optional(upper_bound.as_ref(), level)?;
                        self.optional(stride.as_ref(), level)
                    }
                })
            }
            Expr::JsonAccess { value, path } => {
                self.expr(value, level)?;
                path.path.iter().try_for_each(|element| match element {
                    JsonPathElem::Dot { .. } => Ok(()),
                    JsonPathElem::Bracket { key } | JsonPathElem::ColonBracket { key } => {
                        self.expr(key, level)
                    }
                })
            }
            _ => construct("this kind of expression"),
        }
    }

    fn optional(&mut self, expr: Option<&Expr>, level: Option<usize>) -> Result<(), ParseError> {
        expr.map_or(Ok(()), |expr| self.expr(expr, level))
    }

    fn function(&mut self, function: &Function, level: Option<usize>) -> Result<(), ParseError> {
        for arguments in [&function.parameters, &function.args] {
            match arguments {
                FunctionArguments::None => {}
                FunctionArguments::Subquery(query) => self.query(query, level).map(drop)?,
                FunctionArguments::List(list) => {
                    self.function_args(&list.args, level)?;
                    for clause in &list.clauses {
                        match clause {
                            FunctionArgumentClause::OrderBy(order) => {
                                self.order_list(order, level)?;
                            }
                            FunctionArgumentClause::JsonNullClause(_)
                            | FunctionArgumentClause::JsonReturningClause(_) => {}
                            _ => return construct("a function's clause of another database"),
                        }
                    }
                }
            }
        }
        self.order_list(&function.within_group, level)?;
        self.optional(function.filter.as_deref(), level)?;
        match &function.over {
            Some(WindowType::WindowSpec(spec)) => self.window(spec, level),
            Some(WindowType::NamedWindow(_)) | None => Ok(()),
        }
    }

    pub(super) fn function_args(
        &mut self,
        args: &[FunctionArg],
        level: Option<usize>,
    ) -> Result<(), ParseError> {
        for arg in args {
            let arg = match arg {
                FunctionArg::Named { arg, .. } | FunctionArg::Unnamed(arg) => arg,
                FunctionArg::ExprNamed { name, arg, .. } => {
                    self.expr(name, level)?;
                    arg
                }
            };
            match arg {
                FunctionArgExpr::Expr(expr) => self.expr(expr, level)?,
                FunctionArgExpr::QualifiedWildcard(_) | FunctionArgExpr::Wildcard => {}
                FunctionArgExpr::WildcardWithOptions(_) => {
                    return construct("a function's clause of another database");
                }
            }
        }
        Ok(())
    }

    pub(super) fn window(
        &mut self,
        spec: &WindowSpec,
        level: Option<usize>,
    ) -> Result<(), ParseError> {
        self.exprs(&spec.partition_by, level)?;
        self.order_list(&spec.order_by, level)?;
        if let Some(frame) = &spec.window_frame {
            for bound in [Some(&frame.start_bound), frame.end_bound.as_ref()].into_iter().flatten()
            {
                match bound {
                    WindowFrameBound::CurrentRow => {}
                    WindowFrameBound::Preceding(expr) | WindowFrameBound::Following(expr) => {
                        self.optional(expr.as_deref(), level)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes down the equalities that `expr` is an AND of.
    pub(super) fn conjuncts(&mut self, expr: &Expr, level: usize, restricts: (usize, usize)) {
        match expr {
            Expr::Nested(inner) => self.conjuncts(inner, level, restricts),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                self.conjuncts(left, level, restricts);
                self.conjuncts(right, level, restricts);
            }
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                self.equality(left, right, level, restricts);
            }
            Expr::In { expr, target: InTarget::List(list), negated: false, .. } => {
                if let [only] = &**list {
                    self.equality(expr, only, level, restricts);
                }
            }
            _ => {}
        }
    }

    fn equality(&mut self, left: &Expr, right: &Expr, level: usize, restricts: (usize, usize)) {
        if let (Some(left), Some(right)) = (side_of(left), side_of(right)) {
            self.shape.levels[level].equalities.push(Equality { left, right, restricts });
        }
    }
}

fn side_of(expr: &Expr) -> Option<Side> {
    match expr {
        Expr::Nested(inner) => side_of(inner),
        Expr::Identifier(name) => {
            let column = Column { qualifier: Vec::new(), name: folded(name), within: None };
            Some(Side::Column(column))
        }
        Expr::CompoundIdentifier(parts) => {
            let (name, qualifier) = parts.split_last()?;
            let qualifier = qualifier.iter().map(folded).collect();
            Some(Side::Column(Column { qualifier, name: folded(name), within: None }))
        }
        other => value(other).map(Side::Value),
    }
}

/// The constant or parameter that `expr` is, with its sign and cast.
pub(super) fn value(expr: &Expr) -> Option<Value> {
    let bare = |place| Some(Value { place, minus: false, cast: None });
    match expr {
        Expr::Nested(inner) => value(inner),
        Expr::Value(constant) => match &constant.value {
            Constant::Null => bare(Place::Null),
            constant => bare(place(constant)?),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            let inner = value(expr)?;
            let number = matches!(inner.place, Place::Literal(_));
            (number && !inner.minus).then_some(Value { minus: true, ..inner })
        }
        Expr::Cast {
            kind: CastKind::Cast | CastKind::DoubleColon,
            expr,
            data_type,
            format: None,
        } => {
            let inner = value(expr)?;
            let cast = Some(type_word(data_type)?);
            inner.cast.is_none().then_some(Value { cast, ..inner })
        }
        Expr::TypedString(typed) => {
            let cast = Some(type_word(&typed.data_type)?);
            Some(Value { place: place(&typed.value.value)?, minus: false, cast })
        }
        _ => None,
    }
}

/// Which constant of the text this one numbers.
fn place(constant: &Constant) -> Option<Place> {
    match constant {
        Constant::Number(digits, false) => {
            let number = digits.split('.').next()?;
            Some(Place::Literal(number.parse().ok()?))
        }
        Constant::SingleQuotedString(number) => Some(Place::Literal(number.parse().ok()?)),
        Constant::Placeholder(name) => {
            let number: u16 = name.strip_prefix('$')?.parse().ok()?;
            Some(Place::Param(number.checked_sub(1)?))
        }
        _ => None,
    }
}

fn type_word(data_type: &DataType) -> Option<Box<str>> {
    let word = data_type.to_string().to_ascii_lowercase();
    (word.len() <= 32).then(|| word.into())
}
