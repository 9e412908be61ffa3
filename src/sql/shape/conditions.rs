//! Conditions: which tests an expression is an AND of, and which values are
//! constants.

use crate::sql::tree::{Comparison, Expr, ExprKind};

use super::{Cast, Column, Elements, Place, Test, Value};

/// What `expr` being true says.
pub(super) fn test(expr: &Expr) -> Test {
    match &expr.kind {
        ExprKind::And(list) => Test::All(list.iter().map(test).filter(Test::says).collect()),
        ExprKind::Or(list) => alternatives(list.iter().map(test)),
        ExprKind::Compare(Comparison::Equal, left, right) => equal(left, right),
        ExprKind::Compare(comparison, left, right) => compare(*comparison, left, right),
        ExprKind::In(left, list) => among(left, list),
        ExprKind::EqualsAny(left, array) => match (column(left), &array.kind) {
            (Some(_), ExprKind::Array(list)) => among(left, list),
            (Some(column), _) => match value(array) {
                Some(value) => Test::AmongArray(column, value),
                None => array_cast(left, array),
            },
            (None, _) => Test::Unknown,
        },
        ExprKind::Between(left, low, high) => Test::All(vec![
            compare(Comparison::GreaterOrEqual, left, low),
            compare(Comparison::LessOrEqual, left, high),
        ]),
        ExprKind::Column(_)
        | ExprKind::Star(..)
        | ExprKind::Constant(_)
        | ExprKind::Param(_)
        | ExprKind::Null
        | ExprKind::Minus(_)
        | ExprKind::Cast(..)
        | ExprKind::Row(_)
        | ExprKind::Array(_)
        | ExprKind::Call(_)
        | ExprKind::Query(_)
        | ExprKind::InQuery(..)
        | ExprKind::Other(_) => Test::Unknown,
    }
}

impl Test {
    const fn says(&self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// OR: says something only if each alternative does.
fn alternatives(tests: impl Iterator<Item = Test>) -> Test {
    let list: Vec<Test> = tests.collect();
    if list.iter().all(Test::says) { Test::Any(list) } else { Test::Unknown }
}

/// `left = right`, of columns, values or rows of them.
fn equal(left: &Expr, right: &Expr) -> Test {
    if let (ExprKind::Row(left), ExprKind::Row(right)) = (&left.kind, &right.kind) {
        // Rows are equal if each pair is, by the pair's own equality.
        if left.len() != right.len() || left.is_empty() {
            return Test::Unknown;
        }
        let pairs = left.iter().zip(right).map(|(left, right)| equal(left, right));
        return Test::All(pairs.filter(Test::says).collect());
    }
    match (column(left), column(right)) {
        (Some(left), Some(right)) => Test::Equal(left, right),
        (Some(column), None) => {
            value(right).map_or(Test::Unknown, |value| Test::Among(column, vec![value]))
        }
        (None, Some(column)) => {
            value(left).map_or(Test::Unknown, |value| Test::Among(column, vec![value]))
        }
        (None, None) => Test::Unknown,
    }
}

fn among(left: &Expr, list: &[Expr]) -> Test {
    if let Some(column) = column(left) {
        let values: Option<Vec<Value>> = list.iter().map(value).collect();
        return values.map_or(Test::Unknown, |values| Test::Among(column, values));
    }
    alternatives(list.iter().map(|one| equal(left, one)))
}

/// `k = ANY (ARRAY[…]::type[])`: each element is cast.
fn array_cast(left: &Expr, array: &Expr) -> Test {
    match (column(left), cast_elements(array)) {
        (Some(column), Some(values)) => Test::Among(column, values),
        _ => Test::Unknown,
    }
}

/// The elements of `ARRAY[…]::type[]`, each with the cast.
fn cast_elements(array: &Expr) -> Option<Vec<Value>> {
    let ExprKind::Cast(inner, to) = &array.kind else { return None };
    let ExprKind::Array(list) = &inner.kind else { return None };
    if !to.array || to.modified || to.word.is_empty() {
        return None;
    }
    list.iter()
        .map(|one| {
            let value = value(one)?;
            (value.cast == Cast::None).then(|| Value { cast: Cast::To(to.word.clone()), ..value })
        })
        .collect()
}

/// The elements of an array that is a constant, a parameter or a list of such.
pub(super) fn elements(array: &Expr) -> Option<Elements> {
    if let ExprKind::Array(list) = &array.kind {
        return list.iter().map(value).collect::<Option<_>>().map(Elements::Each);
    }
    if let Some(list) = cast_elements(array) {
        return Some(Elements::Each(list));
    }
    let within = value(array)?;
    matches!(within.cast, Cast::None | Cast::ToArray(_)).then_some(Elements::Within(within))
}

fn compare(comparison: Comparison, left: &Expr, right: &Expr) -> Test {
    if let (Some(column), Some(value)) = (column(left), value(right)) {
        return Test::Compare(column, comparison, value);
    }
    if let (Some(value), Some(column)) = (value(left), column(right)) {
        let turned = match comparison {
            Comparison::Equal => Comparison::Equal,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        };
        return Test::Compare(column, turned, value);
    }
    Test::Unknown
}

/// The column that `expr` is.
pub(super) fn column(expr: &Expr) -> Option<Column> {
    let ExprKind::Column(parts) = &expr.kind else { return None };
    let (name, qualifier) = parts.split_last()?;
    Some(Column::Named { qualifier: qualifier.to_vec(), name: name.clone(), within: None })
}

/// Whether a value of the first type is the same one of the second, if that has
/// it at all: drivers write the type that they chose before the one that is meant.
fn keeps_values(before: &Cast, after: &Cast) -> bool {
    let alike = |one: &str, two: &str| one == two || (is_integer(one) && is_integer(two));
    match (before, after) {
        (Cast::To(one), Cast::To(two)) | (Cast::ToArray(one), Cast::ToArray(two)) => {
            alike(one, two)
        }
        (Cast::None | Cast::To(_) | Cast::ToArray(_), _) => false,
    }
}

fn is_integer(word: &str) -> bool {
    matches!(word, "int2" | "int4" | "int8")
}

/// The constant or parameter that `expr` is, with its sign and cast.
pub(super) fn value(expr: &Expr) -> Option<Value> {
    let bare = |place| Some(Value { place, minus: false, cast: Cast::None });
    match &expr.kind {
        ExprKind::Constant(number) => bare(Place::Literal(*number)),
        ExprKind::Param(index) => bare(Place::Param(*index)),
        ExprKind::Null => bare(Place::Null),
        ExprKind::Minus(inner) => {
            let inner = value(inner)?;
            // A minus after a cast negates what the cast made.
            let number = matches!(inner.place, Place::Literal(_)) && !inner.minus;
            number.then_some(Value { minus: true, ..inner })
        }
        ExprKind::Cast(inner, to) => {
            let inner = value(inner)?;
            if to.modified || to.word.is_empty() {
                return None;
            }
            let word = to.word.clone();
            let cast = if to.array { Cast::ToArray(word) } else { Cast::To(word) };
            if inner.cast == Cast::None {
                return Some(Value { cast, ..inner });
            }
            // The first cast says how it is written.
            keeps_values(&inner.cast, &cast).then_some(inner)
        }
        ExprKind::Column(_)
        | ExprKind::Star(..)
        | ExprKind::And(_)
        | ExprKind::Or(_)
        | ExprKind::Compare(..)
        | ExprKind::In(..)
        | ExprKind::EqualsAny(..)
        | ExprKind::Between(..)
        | ExprKind::Row(_)
        | ExprKind::Array(_)
        | ExprKind::Call(_)
        | ExprKind::Query(_)
        | ExprKind::InQuery(..)
        | ExprKind::Other(_) => None,
    }
}
