"""PostgreSQL's own regression tests, as PostgreSQL's own parser reads them.

Usage: extract.py FOLDER OUTPUT. Reads every .sql file below FOLDER, splits it as
psql would, keeps what the parser accepts, and writes one JSON object a line:
the statement, its kind, and the tables and conditions that decide routes. The
conditions are derived from the server's tree here, independently of the router.
"""

import json
import pathlib
import re
import sys

from pglast import ast, parse_sql
from pglast.enums import A_Expr_Kind, BoolExprType, SubLinkType


def statements(text):
    """Splits a psql script; leaves out meta-commands and COPY's data."""
    found, start, i, depth = [], 0, 0, 0
    n = len(text)

    def line_end(at):
        end = text.find("\n", at)
        return n if end < 0 else end

    while i < n:
        c = text[i]
        if c == "-" and text.startswith("--", i):
            i = line_end(i)
        elif c == "/" and text.startswith("/*", i):
            level, i = 1, i + 2
            while i < n and level:
                if text.startswith("/*", i):
                    level, i = level + 1, i + 2
                elif text.startswith("*/", i):
                    level, i = level - 1, i + 2
                else:
                    i += 1
        elif c == "'":
            escapes = i > 0 and text[i - 1] in "eE" and (i < 2 or not (text[i - 2].isalnum() or text[i - 2] == "_"))
            i += 1
            while i < n:
                if escapes and text[i] == "\\":
                    i += 2
                elif text[i] == "'":
                    i += 1
                    break
                else:
                    i += 1
        elif c == '"':
            end = text.find('"', i + 1)
            i = n if end < 0 else end + 1
        elif c == "$" and (m := re.match(r"\$([A-Za-z_\x80-\uffff][\w]*)?\$", text[i:])) and not (
            i > 0 and (text[i - 1].isalnum() or text[i - 1] in "_$")
        ):
            end = text.find(m.group(0), i + len(m.group(0)))
            i = n if end < 0 else end + len(m.group(0))
        elif c == "\\":
            # A meta-command ends what came before it.
            found.append(text[start:i])
            i = line_end(i)
            start = i
        elif c == "(":
            depth, i = depth + 1, i + 1
        elif c == ")":
            depth, i = max(0, depth - 1), i + 1
        elif c == ";" and depth == 0:
            one = text[start:i]
            if re.search(r"\bbegin\s+atomic\b", one, re.I) and not re.search(r"\bend\s*$", one, re.I):
                i += 1
                continue
            found.append(one)
            i += 1
            start = i
            if re.search(r"^\s*(--[^\n]*\n\s*)*copy\b[^;]*\bfrom\s+stdin\b", one, re.I):
                end = text.find("\n\\.", i)
                i = start = n if end < 0 else line_end(end + 1)
        else:
            i += 1
    found.append(text[start:])
    return [one.strip() for one in found if one.strip()]


COMPARISONS = {"=", "<", "<=", ">", ">="}
TURNED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def name_of(op):
    return op[0].sval if len(op) == 1 else None


def column(node):
    if not isinstance(node, ast.ColumnRef):
        return None
    if any(not isinstance(field, ast.String) for field in node.fields):
        return None
    return ".".join(field.sval for field in node.fields)


def type_word(name):
    parts = [part.sval for part in name.names]
    word = parts[-1] if len(parts) == 1 or parts[:-1] == ["pg_catalog"] else ""
    if name.pct_type:
        word = ""
    return word, bool(name.typmods), bool(name.arrayBounds)


def value(node):
    """(text, minus, cast) of a constant or parameter."""
    if isinstance(node, ast.A_Const):
        if node.isnull:
            return ("null", False, "")
        val = node.val
        if isinstance(val, ast.Integer):
            return (str(abs(val.ival)), val.ival < 0, "")
        if isinstance(val, ast.Float):
            text = val.fval
            return (text.lstrip("-"), text.startswith("-"), "")
        if isinstance(val, ast.String):
            return ("'" + val.sval + "'", False, "")
        if isinstance(val, ast.BitString):
            return ("?", False, "")
        return None
    if isinstance(node, ast.ParamRef):
        return (f"${node.number}", False, "")
    if isinstance(node, ast.A_Expr) and node.kind == A_Expr_Kind.AEXPR_OP and node.lexpr is None:
        if name_of(node.name) != "-":
            return None
        inner = value(node.rexpr)
        if inner is None or inner[1] or inner[0][0] in "$n":
            return None
        return (inner[0], True, inner[2])
    if isinstance(node, ast.TypeCast):
        inner = value(node.arg)
        word, modified, array = type_word(node.typeName)
        if inner is None or inner[2] or not word or modified:
            return None
        return (inner[0], inner[1], "::" + word + ("[]" if array else ""))
    return None


def shown(v):
    return ("-" if v[1] else "") + v[0] + v[2]


UNKNOWN = None


def equal(left, right):
    if isinstance(left, ast.RowExpr) and isinstance(right, ast.RowExpr):
        if len(left.args) != len(right.args):
            return UNKNOWN
        return conjunction([equal(a, b) for a, b in zip(left.args, right.args)])
    a, b = column(left), column(right)
    if a and b:
        return "=".join(sorted([a, b]))
    if a and (v := value(right)):
        return f"{a} in {{{shown(v)}}}"
    if b and (v := value(left)):
        return f"{b} in {{{shown(v)}}}"
    return UNKNOWN


def conjunction(parts):
    known = [part for part in parts if part]
    return "(" + " & ".join(sorted(known)) + ")"


def alternatives(parts):
    if any(part is UNKNOWN for part in parts):
        return UNKNOWN
    return "(" + " | ".join(sorted(parts)) + ")"


def among(left, items):
    if c := column(left):
        values = [value(item) for item in items]
        return f"{c} in {{{', '.join(map(shown, values))}}}" if all(values) else UNKNOWN
    return alternatives([equal(left, item) for item in items])


def compare(op, left, right):
    if (c := column(left)) and (v := value(right)):
        return f"{c} {op} {shown(v)}"
    if (c := column(right)) and (v := value(left)):
        return f"{c} {TURNED[op]} {shown(v)}"
    return UNKNOWN


def test(node):
    if isinstance(node, ast.BoolExpr):
        if node.boolop == BoolExprType.AND_EXPR:
            return conjunction([test(arg) for arg in node.args])
        if node.boolop == BoolExprType.OR_EXPR:
            return alternatives([test(arg) for arg in node.args])
        return UNKNOWN
    if not isinstance(node, ast.A_Expr):
        return UNKNOWN
    op = name_of(node.name)
    if node.kind == A_Expr_Kind.AEXPR_OP and node.lexpr is not None:
        if op == "=":
            return equal(node.lexpr, node.rexpr)
        if op in COMPARISONS:
            return compare(op, node.lexpr, node.rexpr)
    if node.kind == A_Expr_Kind.AEXPR_IN and op == "=":
        return among(node.lexpr, node.rexpr)
    if node.kind == A_Expr_Kind.AEXPR_OP_ANY and op == "=":
        c = column(node.lexpr)
        if not c:
            return UNKNOWN
        if isinstance(node.rexpr, ast.A_ArrayExpr):
            return among(node.lexpr, node.rexpr.elements or ())
        if v := value(node.rexpr):
            return f"{c} any {shown(v)}"
        if isinstance(node.rexpr, ast.TypeCast) and isinstance(node.rexpr.arg, ast.A_ArrayExpr):
            word, modified, array = type_word(node.rexpr.typeName)
            values = [value(item) for item in node.rexpr.arg.elements or ()]
            if word and array and not modified and all(v and not v[2] for v in values):
                return f"{c} in {{{', '.join(shown(v) + '::' + word for v in values)}}}"
        return UNKNOWN
    if node.kind == A_Expr_Kind.AEXPR_BETWEEN:
        low, high = node.rexpr
        return conjunction([compare(">=", node.lexpr, low), compare("<=", node.lexpr, high)])
    return UNKNOWN


class Facts:
    """Tables and conditions of a statement, in the order of no matter."""

    def __init__(self):
        self.found = []

    def table(self, rel, ctes, written):
        if not written and rel.schemaname is None and rel.relname in ctes:
            return
        schema = rel.schemaname + "." if rel.schemaname else ""
        self.found.append(("writes " if written else "reads ") + schema + rel.relname)

    def condition(self, node):
        if node is None:
            return
        if isinstance(node, ast.BoolExpr) and node.boolop == BoolExprType.AND_EXPR:
            for arg in node.args:
                self.condition(arg)
            return
        if isinstance(node, ast.SubLink) and node.subLinkType == SubLinkType.ANY_SUBLINK and not node.operName:
            return
        said = test(node)
        if said and said != "()":
            self.found.append("when " + said)

    def walk(self, node, ctes):
        if isinstance(node, (list, tuple)):
            for one in node:
                self.walk(one, ctes)
            return
        if not isinstance(node, ast.Node):
            return
        with_clause = getattr(node, "withClause", None)
        if with_clause is not None:
            names = [cte.ctename for cte in with_clause.ctes]
            if with_clause.recursive:
                ctes = ctes | set(names)
            for cte in with_clause.ctes:
                self.walk(cte.ctequery, ctes)
                ctes = ctes | {cte.ctename}
        if isinstance(node, ast.RangeVar):
            self.table(node, ctes, False)
            return
        if isinstance(node, ast.MultiAssignRef) and node.colno > 1:
            # `(a, b) = (query)` has one query, that each column refers to.
            return
        for field in ("whereClause", "quals"):
            if isinstance(node, (ast.SelectStmt, ast.UpdateStmt, ast.DeleteStmt, ast.JoinExpr)):
                self.condition(getattr(node, field, None))
        if isinstance(node, ast.MergeStmt):
            self.condition(node.joinCondition)
        if isinstance(node, (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)):
            self.table(node.relation, ctes, True)
        for slot in node:
            child = getattr(node, slot)
            written = slot == "relation" and isinstance(
                node, (ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)
            )
            if slot in ("withClause", "lockingClause") or written:
                continue
            if isinstance(child, (ast.Node, list, tuple)):
                self.walk(child, ctes)


ROUTED = (ast.SelectStmt, ast.InsertStmt, ast.UpdateStmt, ast.DeleteStmt, ast.MergeStmt)


def main(folder, output):
    seen = set()
    with open(output, "w", encoding="utf-8") as out:
        for path in sorted(pathlib.Path(folder).rglob("*.sql")):
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            for sql in statements(text):
                try:
                    sql.encode("utf-8")
                    trees = parse_sql(sql)
                except Exception:
                    continue
                if len(trees) != 1 or sql in seen:
                    continue
                seen.add(sql)
                node = trees[0].stmt
                entry = {"file": path.name, "kind": type(node).__name__, "sql": sql}
                if isinstance(node, ROUTED) and getattr(node, "intoClause", None) is None:
                    facts = Facts()
                    facts.walk(node, frozenset())
                    entry["facts"] = sorted(facts.found)
                out.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.setrecursionlimit(20000)
    main(sys.argv[1], sys.argv[2])
