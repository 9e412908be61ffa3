//! Kind, access and effects of a statement, by its leading keywords and by the
//! functions it calls; no parser is needed, so none can refuse.
//!
//! It errs on one side: what it doesn't know is a write that may have changed
//! the session. Calls are found by tokens (a name before a parenthesis), so
//! they are found wherever they stand.

use crate::types::Access;

use super::functions::{self, Nature};
use super::lex::TokenKind;
use super::session_words as words;
use super::statement::{Argument, Facts, Kind, SessionEffect, Span, TxEffect};
use super::token::{self, Tokens};

/// What the tokens of one statement tell.
#[derive(Clone, Debug)]
pub(crate) struct Classified {
    pub(crate) facts: Facts,
    /// The most binding nature of all functions it calls.
    pub(crate) nature: Nature,
    /// The statement that an EXPLAIN, DECLARE, PREPARE or COPY ( … ) wraps, as
    /// indexes of tokens.
    pub(crate) inner: Option<(usize, usize)>,
    /// Whether it locks rows.
    pub(crate) locks: bool,
}

/// Classifies one statement.
pub(crate) fn classify(all: &Tokens<'_>) -> Classified {
    classify_with(all, &|_, _| None)
}

/// Classifies one statement, with what `known` says of functions by schema and
/// name: `None` of a schema means whatever the search path finds.
pub(crate) fn classify_with(all: &Tokens<'_>, known: Known<'_>) -> Classified {
    let skip = all.list.iter().take_while(|token| token.kind == token::Kind::Hint).count();
    let tokens = all.from(skip);
    let (kind, tx, effect) = leading(&tokens);
    let calls = calls(&tokens, known);
    let inner = inner(&tokens, kind).map(|(start, end)| (start + skip, end + skip));
    let mut effects = vec![effect];
    let mut nature = Nature::Neutral;
    let runs = !matches!(kind, Kind::Ddl | Kind::Maintenance | Kind::Prepare | Kind::Set);
    if runs {
        for call in &calls {
            nature = stronger(nature, call.nature);
            effects.extend(call.effect.clone());
            if call.nature == Nature::Unknown && call.effect.is_none() {
                effects.push(SessionEffect::Dirty);
            }
        }
        if (0..tokens.len()).any(|i| CLOCK_WORDS.iter().any(|word| tokens.is_word(i, word))) {
            nature = stronger(nature, Nature::Bound);
        }
    }
    let locks = locks_rows(&tokens);
    let access = access(&tokens, kind, nature, locks);
    let facts = Facts { kind, span: tokens.span(), access, tx, effect: SessionEffect::of(effects) };
    Classified { facts, nature, inner, locks }
}

/// The wrapped statement of EXPLAIN, DECLARE, PREPARE and COPY ( … ).
fn inner(tokens: &Tokens<'_>, kind: Kind) -> Option<(usize, usize)> {
    match kind {
        Kind::Explain => Some((words::explained(tokens)?, tokens.len())),
        Kind::ExplainRoute => Some((2, tokens.len())),
        Kind::Declare => {
            let at = (0..tokens.len()).find(|i| tokens.is_word(*i, "for"))?;
            Some((at + 1, tokens.len()))
        }
        Kind::Prepare => {
            let open = tokens.is_punct(2, "(");
            let at = if open { tokens.after_parens(2) } else { 2 };
            tokens.is_word(at, "as").then_some((at + 1, tokens.len()))
        }
        Kind::CopyIn | Kind::CopyOut if tokens.is_punct(1, "(") => {
            Some((2, tokens.after_parens(1).saturating_sub(1)))
        }
        _ => None,
    }
}

fn leading(t: &Tokens<'_>) -> (Kind, TxEffect, SessionEffect) {
    let mut start = 0;
    while t.is_punct(start, "(") {
        start += 1;
    }
    let first = t.name(start).unwrap_or_default();
    let plain = |kind| (kind, TxEffect::None, SessionEffect::None);
    let session = |kind, effect| (kind, TxEffect::None, effect);
    match &*first {
        "select" if words::select_into(t) => {
            let temp = (0..t.len()).any(|i| {
                t.is_word(i, "into")
                    && (t.is_word(i + 1, "temp")
                        || t.is_word(i + 1, "temporary")
                        || words::names_temp_schema(t, i + 1))
            });
            session(Kind::Ddl, if temp { SessionEffect::TempTable } else { SessionEffect::None })
        }
        "select" | "values" | "table" | "with" => plain(Kind::Select),
        "insert" => plain(Kind::Insert),
        "update" => plain(Kind::Update),
        "delete" => plain(Kind::Delete),
        "merge" => plain(Kind::Merge),
        "copy" => {
            let to = words::copies_out(t);
            plain(if to { Kind::CopyOut } else { Kind::CopyIn })
        }
        "explain" if t.is_word(1, "route") && t.len() > 2 => plain(Kind::ExplainRoute),
        "explain" => plain(Kind::Explain),
        "show" => plain(Kind::Show),
        "begin" | "start" | "commit" | "end" | "rollback" | "abort" | "savepoint" | "release" => {
            (Kind::Transaction, words::transaction(t), SessionEffect::None)
        }
        "prepare" if t.is_word(1, "transaction") => {
            (Kind::Transaction, TxEffect::PrepareTransaction, SessionEffect::None)
        }
        "set" => words::set(t),
        "reset" => words::reset(t),
        "discard" => session(Kind::Discard, words::discard(t)),
        "prepare" => session(Kind::Prepare, words::prepare(t)),
        "execute" => session(Kind::Execute, words::execute(t)),
        "deallocate" => session(Kind::Deallocate, words::deallocate(t)),
        "declare" => session(Kind::Declare, words::declare(t)),
        "close" => {
            let name = if t.is_word(1, "all") { None } else { t.name(1) };
            session(Kind::Cursor, SessionEffect::CloseCursor { name })
        }
        "fetch" | "move" => plain(Kind::Cursor),
        "listen" | "unlisten" => session(Kind::Listen, words::listen(t)),
        "notify" => plain(Kind::Notify),
        "lock" => plain(Kind::Lock),
        "truncate" => plain(Kind::Truncate),
        "create" => session(Kind::Ddl, words::create(t)),
        "alter" | "drop" | "grant" | "revoke" | "comment" | "security" | "import" | "reassign" => {
            plain(Kind::Ddl)
        }
        "vacuum" | "analyze" | "analyse" | "reindex" | "cluster" | "refresh" | "checkpoint" => {
            plain(Kind::Maintenance)
        }
        "call" => session(Kind::Call, SessionEffect::Dirty),
        "do" => session(Kind::Do, SessionEffect::Dirty),
        _ => session(Kind::Unknown, SessionEffect::Dirty),
    }
}

fn access(t: &Tokens<'_>, kind: Kind, nature: Nature, locks: bool) -> Access {
    let reads = match kind {
        Kind::Show | Kind::ExplainRoute | Kind::Empty => true,
        Kind::Select | Kind::CopyOut | Kind::Declare => {
            let any =
                |words: &[&str]| (0..t.len()).any(|i| words.iter().any(|word| t.is_word(i, word)));
            let runs_program = kind == Kind::CopyOut && any(&["program"]);
            let pure = matches!(nature, Nature::Neutral | Nature::Bound);
            pure && !locks && !runs_program && !any(WRITE_WORDS)
        }
        Kind::Explain => {
            let analyze = ["analyze", "analyse"];
            let before = words::explained(t).unwrap_or(t.len());
            let runs = (1..before).any(|i| analyze.iter().any(|word| t.is_word(i, word)));
            let inner = t.from(before);
            let inner_kind = leading(&inner).0;
            (!runs && nature != Nature::Unknown)
                || (inner_kind == Kind::Select
                    && access(&inner, inner_kind, nature, locks) == Access::Read)
        }
        _ => false,
    };
    if reads { Access::Read } else { Access::Write }
}

/// FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE.
fn locks_rows(t: &Tokens<'_>) -> bool {
    (0..t.len()).any(|i| {
        t.is_word(i, "for")
            && (["update", "share"].iter().any(|word| t.is_word(i + 1, word))
                || t.are_words(i + 1, &["no", "key"])
                || t.are_words(i + 1, &["key", "share"]))
    })
}

/// Whether a name before a parenthesis is the table of a COPY, or a word of its
/// own behind the query.
fn is_word_of_copy(t: &Tokens<'_>, at: usize, before: Option<usize>) -> bool {
    let target = ["stdout", "stdin"].iter().any(|word| t.is_word(at, word));
    before == Some(0)
        || t.is_word(at, "force_quote")
        || (target && before.is_some_and(|b| t.is_word(b, "to") || t.is_word(b, "from")))
}

/// One function call.
struct Call {
    nature: Nature,
    effect: Option<SessionEffect>,
}

/// What is known of functions that are not the server's own.
pub(crate) type Known<'k> = &'k dyn Fn(Option<&str>, &str) -> Option<Nature>;

fn calls(t: &Tokens<'_>, known: Known<'_>) -> Vec<Call> {
    let mut found = Vec::new();
    for open in 1..t.len() {
        let at = open - 1;
        if !t.is_punct(open, "(") {
            continue;
        }
        let quoted = match t.kind(at) {
            Some(token::Kind::Plain(TokenKind::Word)) => false,
            Some(token::Kind::Plain(TokenKind::Quoted | TokenKind::UnicodeQuoted)) => true,
            _ => continue,
        };
        let name = t.name(at).unwrap_or_default();
        let qualified = at >= 2 && t.is_punct(at - 1, ".");
        let before = if qualified { at.checked_sub(3) } else { at.checked_sub(1) };
        // EXPLAIN ( … ), VACUUM ( … ): a statement begins with no function.
        if at == 0 || (!quoted && !qualified && is_syntax(t, &name, at)) {
            continue;
        }
        if before.is_some_and(|b| {
            NAMES_FOLLOW.iter().any(|word| t.is_word(b, word)) || t.is_punct(b, ")")
        }) {
            continue;
        }
        if !quoted && t.is_word(0, "copy") && is_word_of_copy(t, at, before) {
            continue;
        }
        let system = !qualified || matches!(t.name(at - 2).as_deref(), Some("pg_catalog"));
        let schema = qualified.then(|| t.name(at - 2).unwrap_or_default());
        found.push(match schema.as_deref() {
            Some("information_schema") if name.starts_with("_pg_") => {
                Call { nature: Nature::Neutral, effect: None }
            }
            _ if system => {
                let effect = session_call(t, &name, open);
                let own = functions::nature(&name);
                // A user's function of the same name may be meant.
                let other = if qualified { None } else { known(None, &name) };
                let nature = match (own, other) {
                    _ if matches!(effect, Some(SessionEffect::SetConfig { .. })) => Nature::Loose,
                    _ if effect.is_some() => Nature::Primary,
                    (own, None) => own,
                    (Nature::Unknown, Some(other)) => other,
                    (own, Some(other)) => stronger(own, other),
                };
                Call { nature, effect }
            }
            schema => {
                Call { nature: known(schema, &name).unwrap_or(Nature::Unknown), effect: None }
            }
        });
    }
    found
}

/// Whether the word at `at` is part of the grammar rather than a function.
fn is_syntax(t: &Tokens<'_>, name: &str, at: usize) -> bool {
    if functions::is_reserved(name) || (name == "conflict" && is_conflict_target(t, at)) {
        return true;
    }
    if matches!(name, "rollup" | "cube") && is_in_group_by(t, at) {
        return true;
    }
    // The other words may be functions where an expression begins.
    functions::is_syntax(name)
        && (t.is_punct(at - 1, ")")
            || (t.name(at - 1).is_some()
                && !EXPRESSIONS_FOLLOW.iter().any(|w| t.is_word(at - 1, w))))
}

/// Whether the word at `at` is an entry of GROUP BY, also within GROUPING SETS:
/// there ROLLUP and CUBE are no functions.
fn is_in_group_by(t: &Tokens<'_>, at: usize) -> bool {
    let mut depth = 0_usize;
    for i in (0..at).rev() {
        if t.is_punct(i, ")") {
            depth += 1;
        } else if t.is_punct(i, "(") {
            match depth.checked_sub(1) {
                Some(less) => depth = less,
                // The entry stands in parentheses of its own.
                None if i > 0 && t.is_word(i - 1, "sets") => {}
                None => return false,
            }
        } else if depth == 0 && t.is_word(i, "by") {
            return i > 0 && t.is_word(i - 1, "group");
        } else if depth == 0 && CLAUSES.iter().any(|word| t.is_word(i, word)) {
            return false;
        }
    }
    false
}

/// Whether `ON CONFLICT (…) DO` begins before the word at `at`, and no join's
/// condition.
fn is_conflict_target(t: &Tokens<'_>, at: usize) -> bool {
    let mut depth = 0_usize;
    for i in at + 1..t.len() {
        if t.is_punct(i, "(") {
            depth += 1;
        } else if t.is_punct(i, ")") {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                return t.is_word(at.saturating_sub(1), "on") && t.is_word(i + 1, "do");
            }
        }
    }
    false
}

/// The effect of a built-in function on the session.
fn session_call(t: &Tokens<'_>, name: &str, open: usize) -> Option<SessionEffect> {
    match name {
        "set_config" => Some(set_config(t, open)),
        "currval" | "lastval" => Some(SessionEffect::CurrVal),
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => Some(SessionEffect::SessionAdvisoryLock),
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" => {
            Some(SessionEffect::AdvisoryUnlock { all: false })
        }
        "pg_advisory_unlock_all" => Some(SessionEffect::AdvisoryUnlock { all: true }),
        _ => None,
    }
}

fn set_config(t: &Tokens<'_>, open: usize) -> SessionEffect {
    let close = t.after_parens(open);
    let inside = t.slice(open + 1, close.saturating_sub(1));
    let mut arguments = words::arguments(&inside).into_iter();
    let mut next = || arguments.next().unwrap_or(Argument::Opaque);
    SessionEffect::SetConfig { name: next(), value: next(), is_local: next() }
}

fn stronger(one: Nature, other: Nature) -> Nature {
    let rank = |nature| match nature {
        Nature::Neutral => 0,
        Nature::Bound => 1,
        Nature::Loose => 2,
        Nature::Primary => 3,
        Nature::Unknown => 4,
    };
    if rank(other) > rank(one) { other } else { one }
}

/// A text without tokens that matter.
pub(crate) const fn empty() -> Facts {
    Facts {
        kind: Kind::Empty,
        span: Span { start: 0, end: 0 },
        access: Access::Read,
        tx: TxEffect::None,
        effect: SessionEffect::None,
    }
}

/// Any of them in a query means that it may write.
const WRITE_WORDS: &[&str] = &["insert", "update", "delete", "merge", "into"];
/// Calls without parentheses that read the transaction's clock.
const CLOCK_WORDS: &[&str] =
    &["current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"];
/// A name after these, even before a parenthesis, is no function.
const NAMES_FOLLOW: &[&str] = &[
    "into",
    "as",
    "with",
    "recursive",
    "copy",
    "references",
    "table",
    "tablesample",
    "execute",
    "prepare",
];
/// Words with which a clause begins that is no list of groups.
const CLAUSES: &[&str] = &["select", "from", "where", "having", "window", "set", "returning"];
/// An expression may begin after these.
const EXPRESSIONS_FOLLOW: &[&str] = &[
    "select",
    "distinct",
    "all",
    "and",
    "or",
    "not",
    "where",
    "on",
    "when",
    "then",
    "else",
    "case",
    "having",
    "in",
    "like",
    "ilike",
    "to",
    "between",
    "is",
    "returning",
    "limit",
    "offset",
    "from",
    "join",
    "lateral",
    "using",
    "values",
    "filter",
    "cross",
    "symmetric",
    "asymmetric",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statement::{Isolation, TxModes};

    fn facts(text: &str) -> Vec<Facts> {
        let list = token::tokens(text.as_bytes()).unwrap();
        token::statements(text.as_bytes(), &list)
            .iter()
            .map(|statement| classify(statement).facts)
            .collect()
    }

    #[track_caller]
    fn check(text: &str, access: Access, tx: TxEffect, effect: SessionEffect) {
        let facts = facts(text);
        assert_eq!(facts.len(), 1, "{text}");
        assert_eq!(facts[0].access, access, "{text}");
        assert_eq!(facts[0].tx, tx, "{text}");
        assert_eq!(facts[0].effect, effect, "{text}");
    }

    #[test]
    fn reads_are_proven() {
        for text in [
            "select 1",
            "SELECT count(*), lower(a) FROM t WHERE b IN (1, 2)",
            "with x (a) as (select 1) select * from x",
            "(select 1) union (select 2)",
            "values (1), (2)",
            "table t",
            "show all",
            "explain update t set a = 1",
            "explain (analyze, verbose) select 1",
            "copy t to stdout",
            "copy (select 1) to stdout",
        ] {
            check(text, Access::Read, TxEffect::None, SessionEffect::None);
        }
    }

    #[test]
    fn doubt_is_a_write() {
        for text in [
            "select * from t for update",
            "select * from t for no key update",
            "with x as (delete from t returning *) select * from x",
            "select nextval('s')",
            "select random()",
            "explain analyze update t set a = 1",
            "copy t from stdin",
            "notify x",
        ] {
            check(text, Access::Write, TxEffect::None, SessionEffect::None);
        }
        check("select my_function(1)", Access::Write, TxEffect::None, SessionEffect::Dirty);
        check("select s.lower('x')", Access::Write, TxEffect::None, SessionEffect::Dirty);
        check("do $$ begin end $$", Access::Write, TxEffect::None, SessionEffect::Dirty);
        check("gibberish", Access::Write, TxEffect::None, SessionEffect::Dirty);
    }

    #[test]
    fn settings_are_seen() {
        let set = |text: &str, name: &str, value: Option<&str>, local| {
            let span = Span { start: 0, end: u32::try_from(text.len()).unwrap() };
            let effect =
                SessionEffect::Set { name: name.into(), value: value.map(Into::into), local, span };
            check(text, Access::Write, TxEffect::None, effect);
        };
        set("SET Work_Mem = '4MB'", "work_mem", Some("4MB"), false);
        set("set local work_mem to 4096", "work_mem", Some("4096"), true);
        set("set session x.Y to on", "x.y", Some("on"), false);
        set("set search_path to \"A b\", public", "search_path", Some("\"A b\", public"), false);
        set("set search_path = default", "search_path", None, false);
        set("set time zone 'UTC'", "timezone", Some("UTC"), false);
        set("set local time zone local", "timezone", None, true);
        set("set names 'latin1'", "client_encoding", Some("latin1"), false);
        set("set role none", "role", Some("none"), false);
        set("set session authorization bob", "session_authorization", Some("bob"), false);
        set("set schema 'x'", "search_path", Some("x"), false);
        set("set extra_float_digits = -3", "extra_float_digits", Some("-3"), false);
        check(
            "reset Work_mem",
            Access::Write,
            TxEffect::None,
            SessionEffect::Reset { name: "work_mem".into() },
        );
        check("reset all", Access::Write, TxEffect::None, SessionEffect::ResetAll);
        check("discard all", Access::Write, TxEffect::None, SessionEffect::DiscardAll);
        let config = SessionEffect::SetConfig {
            name: Argument::Text("search_path".into()),
            value: Argument::Param(0),
            is_local: Argument::Text("false".into()),
        };
        check(
            "select pg_catalog.set_config('search_path', $1, false)",
            Access::Write,
            TxEffect::None,
            config,
        );
    }

    #[test]
    fn transactions_are_seen() {
        let check = |text, tx| check(text, Access::Write, tx, SessionEffect::None);
        let modes = TxModes {
            isolation: Some(Isolation::RepeatableRead),
            read_only: Some(true),
            deferrable: Some(false),
        };
        check("begin", TxEffect::Begin(TxModes::default()));
        check(
            "start transaction isolation level repeatable read, read only, not deferrable",
            TxEffect::Begin(modes),
        );
        check("commit and chain", TxEffect::Commit { chain: true });
        check("end work and no chain", TxEffect::Commit { chain: false });
        check("abort", TxEffect::Rollback { chain: false });
        check("rollback to savepoint A", TxEffect::RollbackTo { name: "a".into() });
        check("rollback transaction to \"A\"", TxEffect::RollbackTo { name: "A".into() });
        check("release b", TxEffect::Release { name: "b".into() });
        check("savepoint c", TxEffect::Savepoint { name: "c".into() });
        check("prepare transaction 'x'", TxEffect::PrepareTransaction);
        check("commit prepared 'x'", TxEffect::CommitPrepared);
        check("rollback prepared 'x'", TxEffect::RollbackPrepared);
        check("set constraints all deferred", TxEffect::SetConstraints);
    }

    #[test]
    fn statements_end_where_the_server_ends_them() {
        assert_eq!(facts("select 1; ; select 2;").len(), 2);
        assert_eq!(facts("create rule r as on insert to t do (select 1; select 2)").len(), 1);
        let body = "create function f() returns int begin atomic select case when true then 1 end; select 2; end; select 3";
        assert_eq!(facts(body).len(), 2);
        assert_eq!(facts(" ; -- nothing").len(), 0);
    }

    #[test]
    fn several_effects_are_all_seen() {
        let seen = facts("select pg_advisory_unlock_all(); close all; unlisten *; reset all");
        let effects: Vec<_> = seen.iter().map(|facts| facts.effect.clone()).collect();
        assert_eq!(
            effects,
            [
                SessionEffect::AdvisoryUnlock { all: true },
                SessionEffect::CloseCursor { name: None },
                SessionEffect::Unlisten { channel: None },
                SessionEffect::ResetAll,
            ]
        );
        let both = facts("select currval('s'), pg_advisory_lock(1)");
        assert_eq!(both[0].effect.each().len(), 2);
    }

    #[test]
    fn prepared_statements_tell_their_parts() {
        let text = "prepare P (int) as select $1";
        let seen = facts(text);
        let SessionEffect::Prepare { name, name_span, types, statement } = &seen[0].effect else {
            panic!("{seen:?}")
        };
        assert_eq!(&**name, "p");
        assert_eq!(name_span.of(text.as_bytes()), b"P");
        assert_eq!(types.unwrap().of(text.as_bytes()), b"(int)");
        assert_eq!(statement.of(text.as_bytes()), b"select $1");
        let seen = facts("execute p (1, 'a''b', null, -2, lower('x'), $2)");
        let SessionEffect::Execute { arguments, .. } = &seen[0].effect else { panic!("{seen:?}") };
        assert_eq!(
            **arguments,
            [
                Argument::Text("1".into()),
                Argument::Text("a'b".into()),
                Argument::Null,
                Argument::Text("-2".into()),
                Argument::Opaque,
                Argument::Param(1),
            ]
        );
    }
}
