//! Expressions, by the server's precedence of operators.
//!
//! Source: PostgreSQL manual, "Operator Precedence".

use crate::sql::lex::TokenKind;
use crate::sql::literal::LiteralKind;
use crate::sql::token::Kind;
use crate::sql::tree::{Comparison, Expr, ExprKind};

use super::cursor::{Read, Reader, too_deep};

/// How tightly an operator binds.
type Strength = u8;

const LOOSEST: Strength = 0;
const OR: Strength = 1;
const AND: Strength = 2;
const NOT: Strength = 3;
const IS: Strength = 4;
const COMPARE: Strength = 5;
const RANGE: Strength = 6;
const OTHER: Strength = 7;
const ADD: Strength = 8;
const MULTIPLY: Strength = 9;
const POWER: Strength = 10;
const AT: Strength = 11;
const COLLATE: Strength = 12;
const SIGN: Strength = 13;

/// Which operators may stand outside parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operators {
    All,
    /// No AND, OR, NOT, BETWEEN, IN, LIKE; of IS only DISTINCT FROM.
    Restricted,
}

impl Reader<'_> {
    pub(super) fn expr(&mut self) -> Read<Expr> {
        self.binary(LOOSEST, Operators::All)
    }

    /// As between BETWEEN and AND, or inside POSITION.
    pub(super) fn restricted(&mut self) -> Read<Expr> {
        self.binary(LOOSEST, Operators::Restricted)
    }

    /// An operand without operators but a sign.
    pub(super) fn operand(&mut self) -> Read<Expr> {
        self.binary(SIGN + 1, Operators::Restricted)
    }

    pub(super) fn expr_list(&mut self) -> Read<Vec<Expr>> {
        let mut list = vec![self.expr()?];
        while self.eat_punct(",") {
            list.push(self.expr()?);
        }
        Ok(list)
    }

    fn binary(&mut self, min: Strength, operators: Operators) -> Read<Expr> {
        self.deeper(|reader| {
            let mut left = reader.prefix(operators)?;
            while let Some(strength) = reader.strength(operators) {
                if strength < min {
                    break;
                }
                left = reader.applied(left, strength, operators)?;
            }
            Ok(left)
        })
    }

    /// How tightly the operator here binds; `None` if there is none.
    fn strength(&self, operators: Operators) -> Option<Strength> {
        let all = operators == Operators::All;
        if let Some(operator) = self.operator() {
            return match operator {
                b"=>" => None,
                b"=" | b"<" | b">" | b"<=" | b">=" | b"<>" | b"!=" => Some(COMPARE),
                b"+" | b"-" => Some(ADD),
                b"*" | b"/" | b"%" => Some(MULTIPLY),
                b"^" => Some(POWER),
                _ => Some(OTHER),
            };
        }
        if self.punct("::") || self.punct("[") {
            return Some(SIGN + 1);
        }
        if self.t.kind(self.at) != Some(Kind::Plain(TokenKind::Word)) {
            return None;
        }
        let next = self.at + 1;
        if self.word("operator") && self.t.is_punct(next, "(") {
            return Some(OTHER);
        }
        if self.word("collate") {
            return Some(COLLATE);
        }
        if self.word("at") && self.any_word_at(next, &["time", "local"]) {
            return Some(AT);
        }
        if self.word("is") {
            let distinct = self.t.is_word(next, "distinct")
                || (self.t.is_word(next, "not") && self.t.is_word(next + 1, "distinct"))
                || self.t.is_word(next, "document")
                || (self.t.is_word(next, "not") && self.t.is_word(next + 1, "document"));
            return (all || distinct).then_some(IS);
        }
        if !all {
            return None;
        }
        if self.word("and") {
            return Some(AND);
        }
        if self.word("or") {
            return Some(OR);
        }
        if self.any_word(&["isnull", "notnull"]) {
            return Some(IS);
        }
        let range = &["between", "in", "like", "ilike", "similar"];
        let negated = self.word("not") && self.any_word_at(next, range);
        // OVERLAPS stands between two rows and binds like IS.
        if self.word("overlaps") && self.t.is_punct(next, "(") {
            return Some(IS);
        }
        (negated || self.any_word(range)).then_some(RANGE)
    }

    /// `left` with the operator here and its right side.
    fn applied(&mut self, left: Expr, strength: Strength, operators: Operators) -> Read<Expr> {
        match strength {
            OR | AND => {
                let or = strength == OR;
                self.at += 1;
                let right = self.binary(strength + 1, Operators::All)?;
                let mut list = match (or, left.kind) {
                    (true, ExprKind::Or(list)) | (false, ExprKind::And(list)) => list,
                    (_, kind) => vec![Expr { kind, ..left }],
                };
                list.push(right);
                made(if or { ExprKind::Or(list) } else { ExprKind::And(list) })
            }
            IS => self.is(left),
            RANGE => self.range(left),
            COLLATE => {
                self.at += 1;
                self.dotted()?;
                made(ExprKind::Other(vec![left]))
            }
            AT => {
                self.at += 1;
                if self.eat_word("local") {
                    return made(ExprKind::Other(vec![left]));
                }
                self.expect_word("time")?;
                self.expect_word("zone")?;
                let zone = self.binary(AT + 1, operators)?;
                made(ExprKind::Other(vec![left, zone]))
            }
            SIGN.. if self.eat_punct("::") => {
                let to = self.type_name()?;
                made(ExprKind::Cast(Box::new(left), to))
            }
            SIGN.. => self.subscript(left),
            _ => self.operation(left, strength, operators),
        }
    }

    /// An operator between two operands, or before ANY and ALL.
    fn operation(&mut self, left: Expr, strength: Strength, operators: Operators) -> Read<Expr> {
        let comparison = match self.operator() {
            Some(b"=") => Some(Comparison::Equal),
            Some(b"<") => Some(Comparison::Less),
            Some(b"<=") => Some(Comparison::LessOrEqual),
            Some(b">") => Some(Comparison::Greater),
            Some(b">=") => Some(Comparison::GreaterOrEqual),
            _ => None,
        };
        self.any_operator()?;
        if self.any_word(&["any", "some", "all"]) && self.t.is_punct(self.at + 1, "(") {
            let any = !self.word("all");
            self.at += 1;
            return self.quantified(left, any && comparison == Some(Comparison::Equal));
        }
        let right = self.binary(strength + 1, operators)?;
        let (left, right) = (Box::new(left), Box::new(right));
        match comparison {
            Some(comparison) => made(ExprKind::Compare(comparison, left, right)),
            None => made(ExprKind::Other(vec![*left, *right])),
        }
    }

    fn quantified(&mut self, left: Expr, equals: bool) -> Read<Expr> {
        if self.is_query(self.at) {
            let query = Box::new(self.query_in_parens()?);
            let left = Box::new(left);
            if equals {
                return made(ExprKind::InQuery(left, query));
            }
            let query = made(ExprKind::Query(query))?;
            return made(ExprKind::Other(vec![*left, query]));
        }
        self.expect_punct("(")?;
        let right = self.expr()?;
        self.expect_punct(")")?;
        if equals {
            return made(ExprKind::EqualsAny(Box::new(left), Box::new(right)));
        }
        made(ExprKind::Other(vec![left, right]))
    }

    /// What follows IS, or ISNULL and NOTNULL.
    fn is(&mut self, left: Expr) -> Read<Expr> {
        if self.eat_word("overlaps") {
            let right = self.binary(IS + 1, Operators::All)?;
            return made(ExprKind::Other(vec![left, right]));
        }
        if self.eat_any(&["isnull", "notnull"]) {
            return made(ExprKind::Other(vec![left]));
        }
        self.expect_word("is")?;
        self.eat_word("not");
        if self.eat_words(&["distinct", "from"]) {
            let right = self.binary(IS + 1, Operators::All)?;
            return made(ExprKind::Other(vec![left, right]));
        }
        if self.eat_word("json") {
            self.eat_any(&["value", "array", "object", "scalar"]);
            if self.eat_any(&["with", "without"]) {
                self.expect_word("unique")?;
                self.eat_word("keys");
            }
            return made(ExprKind::Other(vec![left]));
        }
        self.eat_any(&["nfc", "nfd", "nfkc", "nfkd"]);
        let known = ["null", "true", "false", "unknown", "document", "normalized"];
        if !self.eat_any(&known) {
            return Err(self.unexpected());
        }
        made(ExprKind::Other(vec![left]))
    }

    /// BETWEEN, IN, LIKE and their like.
    fn range(&mut self, left: Expr) -> Read<Expr> {
        let negated = self.eat_word("not");
        if self.eat_word("between") {
            let symmetric = self.eat_word("symmetric");
            self.eat_word("asymmetric");
            let low = self.restricted()?;
            self.expect_word("and")?;
            let high = self.binary(RANGE + 1, Operators::All)?;
            if negated || symmetric {
                return made(ExprKind::Other(vec![left, low, high]));
            }
            let kind = ExprKind::Between(Box::new(left), Box::new(low), Box::new(high));
            return made(kind);
        }
        if self.eat_word("in") {
            return self.among(left, negated);
        }
        if self.eat_word("similar") {
            self.expect_word("to")?;
        } else {
            self.at += 1;
        }
        if self.any_word(&["any", "some", "all"]) && self.t.is_punct(self.at + 1, "(") {
            self.at += 1;
            return self.quantified(left, false);
        }
        let mut parts = vec![left, self.binary(RANGE + 1, Operators::All)?];
        if self.eat_word("escape") {
            parts.push(self.binary(RANGE + 1, Operators::All)?);
        }
        made(ExprKind::Other(parts))
    }

    fn among(&mut self, left: Expr, negated: bool) -> Read<Expr> {
        if self.is_query(self.at) {
            let query = Box::new(self.query_in_parens()?);
            let left = Box::new(left);
            if !negated {
                return made(ExprKind::InQuery(left, query));
            }
            let query = made(ExprKind::Query(query))?;
            return made(ExprKind::Other(vec![*left, query]));
        }
        self.expect_punct("(")?;
        let mut list = self.expr_list()?;
        self.expect_punct(")")?;
        if negated {
            list.push(left);
            return made(ExprKind::Other(list));
        }
        made(ExprKind::In(Box::new(left), list))
    }

    fn prefix(&mut self, operators: Operators) -> Read<Expr> {
        if operators == Operators::All && self.eat_word("not") {
            let inner = self.binary(NOT + 1, operators)?;
            return made(ExprKind::Other(vec![inner]));
        }
        match self.operator() {
            Some(b"-") => {
                self.at += 1;
                let inner = self.binary(SIGN + 1, operators)?;
                made(ExprKind::Minus(Box::new(inner)))
            }
            Some(b"+") => {
                self.at += 1;
                let inner = self.binary(SIGN + 1, operators)?;
                made(ExprKind::Other(vec![inner]))
            }
            Some(b"=" | b"<" | b">" | b"<=" | b">=" | b"<>" | b"!=" | b"*" | b"/" | b"=>") => {
                Err(self.unexpected())
            }
            Some(_) => self.prefixed(operators),
            None if self.word("operator") && self.t.is_punct(self.at + 1, "(") => {
                self.prefixed(operators)
            }
            None => self.primary(),
        }
    }

    fn prefixed(&mut self, operators: Operators) -> Read<Expr> {
        self.any_operator()?;
        let inner = self.binary(OTHER + 1, operators)?;
        made(ExprKind::Other(vec![inner]))
    }

    /// An operator's token, or `OPERATOR(schema.op)`.
    pub(super) fn any_operator(&mut self) -> Read<()> {
        if self.word("operator") && self.t.is_punct(self.at + 1, "(") {
            let close = self.closing(self.at + 1).ok_or_else(|| self.unexpected())?;
            self.at = close + 1;
            return Ok(());
        }
        if self.operator().is_none() {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    /// `[i]` or `[i:j]`.
    fn subscript(&mut self, left: Expr) -> Read<Expr> {
        self.expect_punct("[")?;
        let mut parts = vec![left];
        while !self.eat_punct("]") {
            if !self.eat_punct(":") {
                parts.push(self.expr()?);
            }
        }
        let read = made(ExprKind::Other(parts))?;
        self.fields(read)
    }

    /// `.field` and `.*` after something that is no name.
    fn fields(&mut self, mut read: Expr) -> Read<Expr> {
        while self.eat_punct(".") {
            if !self.eat_operator("*") {
                self.label()?;
            }
            read = made(ExprKind::Other(vec![read]))?;
        }
        Ok(read)
    }

    /// What has no operator: a constant, a name, a call, or parentheses.
    fn primary(&mut self) -> Read<Expr> {
        let start = self.at;
        if let Some((number, kind)) = self.literal_at(start) {
            self.at += 1;
            if kind == LiteralKind::Unicode && self.word("uescape") && self.is_string(self.at + 1) {
                self.at += 2;
            }
            return made(ExprKind::Constant(number));
        }
        if self.t.kind(start) == Some(Kind::Plain(TokenKind::Param)) {
            let index = self.t.param(start).ok_or_else(|| self.unexpected())?;
            self.at += 1;
            let read = made(ExprKind::Param(index))?;
            return self.fields(read);
        }
        if self.punct("(") {
            let read = self.parenthesised(start)?;
            return self.fields(read);
        }
        self.named(start)
    }

    fn parenthesised(&mut self, start: usize) -> Read<Expr> {
        if self.is_query(start) {
            let query = self.query_in_parens()?;
            return made(ExprKind::Query(Box::new(query)));
        }
        self.expect_punct("(")?;
        if self.eat_punct(")") {
            return made(ExprKind::Row(Vec::new()));
        }
        let first = self.expr()?;
        if self.eat_punct(")") {
            // `(a).b` is a field of `a`, not a column of the table `a`.
            return if self.punct(".") { made(ExprKind::Other(vec![first])) } else { Ok(first) };
        }
        let mut list = vec![first];
        while self.eat_punct(",") {
            list.push(self.expr()?);
        }
        self.expect_punct(")")?;
        made(ExprKind::Row(list))
    }
}

/// An expression, unless it would be too deep.
pub(super) fn made(kind: ExprKind) -> Read<Expr> {
    let below = match &kind {
        ExprKind::Column(_)
        | ExprKind::Star(..)
        | ExprKind::Constant(_)
        | ExprKind::Param(_)
        | ExprKind::Null
        | ExprKind::Query(_) => 0,
        ExprKind::Minus(e) | ExprKind::Cast(e, _) | ExprKind::InQuery(e, _) => e.depth,
        ExprKind::Compare(_, a, b) | ExprKind::EqualsAny(a, b) => a.depth.max(b.depth),
        ExprKind::Between(a, b, c) => a.depth.max(b.depth).max(c.depth),
        ExprKind::In(e, list) => e.depth.max(deepest(list)),
        ExprKind::And(list)
        | ExprKind::Or(list)
        | ExprKind::Row(list)
        | ExprKind::Array(list)
        | ExprKind::Other(list) => deepest(list),
        ExprKind::Call(call) => deepest(&call.args),
    };
    if below >= CHAIN_MAX {
        return Err(too_deep());
    }
    Ok(Expr { kind, depth: below + 1 })
}

fn deepest(list: &[Expr]) -> u16 {
    list.iter().map(|expr| expr.depth).max().unwrap_or(0)
}

/// Operators that may follow each other in one expression; the tree of a chain
/// leans to one side, and is walked and dropped by recursion.
const CHAIN_MAX: u16 = 400;
