//! The statements about transactions and sessions, read by their words.

use super::lex::TokenKind;
use super::literal::LiteralKind;
use super::statement::{Argument, Isolation, Kind, SessionEffect, TxEffect, TxModes};
use super::token::{self, Tokens};

/// BEGIN to ROLLBACK.
pub(crate) fn transaction(t: &Tokens<'_>) -> TxEffect {
    let mut at = 1;
    let noise = |i: usize| t.is_word(i, "transaction") || t.is_word(i, "work");
    let first = t.name(0).unwrap_or_default();
    if matches!(&*first, "commit" | "rollback") && t.is_word(1, "prepared") {
        return if &*first == "commit" {
            TxEffect::CommitPrepared
        } else {
            TxEffect::RollbackPrepared
        };
    }
    match &*first {
        "savepoint" => return TxEffect::Savepoint { name: t.name(1).unwrap_or_default() },
        "release" => {
            at += usize::from(t.is_word(1, "savepoint"));
            return TxEffect::Release { name: t.name(at).unwrap_or_default() };
        }
        _ => {}
    }
    at += usize::from(noise(1));
    if &*first == "rollback" && t.is_word(at, "to") {
        at += 1 + usize::from(t.is_word(at + 1, "savepoint"));
        return TxEffect::RollbackTo { name: t.name(at).unwrap_or_default() };
    }
    let chain = t.are_words(at, &["and", "chain"]);
    match &*first {
        "begin" | "start" => TxEffect::Begin(modes(t, at)),
        "commit" | "end" => TxEffect::Commit { chain },
        _ => TxEffect::Rollback { chain },
    }
}

fn modes(t: &Tokens<'_>, from: usize) -> TxModes {
    let mut modes = TxModes::default();
    for i in from..t.len() {
        if t.are_words(i, &["isolation", "level"]) {
            modes.isolation = if t.is_word(i + 2, "serializable") {
                Some(Isolation::Serializable)
            } else if t.is_word(i + 2, "repeatable") {
                Some(Isolation::RepeatableRead)
            } else if t.is_word(i + 3, "uncommitted") {
                Some(Isolation::ReadUncommitted)
            } else {
                Some(Isolation::ReadCommitted)
            };
        } else if t.are_words(i, &["read", "only"]) {
            modes.read_only = Some(true);
        } else if t.are_words(i, &["read", "write"]) {
            modes.read_only = Some(false);
        } else if t.is_word(i, "deferrable") {
            modes.deferrable = Some(i == 0 || !t.is_word(i - 1, "not"));
        }
    }
    modes
}

/// SET in all its forms.
pub(crate) fn set(t: &Tokens<'_>) -> (Kind, TxEffect, SessionEffect) {
    let whole = t.span();
    let transaction = |tx| (Kind::Transaction, tx, SessionEffect::None);
    if t.is_word(1, "transaction") {
        let snapshot = t.is_word(2, "snapshot");
        return transaction(TxEffect::SetTransaction { modes: modes(t, 2), snapshot });
    }
    if t.is_word(1, "constraints") {
        return transaction(TxEffect::SetConstraints);
    }
    let setting = |name: &str, value, local| {
        let effect = SessionEffect::Set { name: name.into(), value, local, span: whole };
        (Kind::Set, TxEffect::None, effect)
    };
    if t.are_words(1, &["session", "characteristics"]) {
        let modes = modes(t, 2);
        let mut effects = Vec::new();
        let named = [
            ("default_transaction_isolation", modes.isolation.map(isolation_word)),
            ("default_transaction_read_only", modes.read_only.map(on_off)),
            ("default_transaction_deferrable", modes.deferrable.map(on_off)),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                let value = Some(value.into());
                let name = name.into();
                effects.push(SessionEffect::Set { name, value, local: false, span: whole });
            }
        }
        return (Kind::Set, TxEffect::None, SessionEffect::of(effects));
    }
    let local = t.is_word(1, "local");
    // `SET SESSION AUTHORIZATION` and `SET session TO x` both begin so.
    let scoped = local || (t.is_word(1, "session") && !is_assignment(t, 2));
    let at = if scoped { 2 } else { 1 };
    if t.are_words(at, &["session", "authorization"]) {
        return setting("session_authorization", value_word(t, at + 2), local);
    }
    if t.is_word(1, "session") && t.is_word(2, "authorization") {
        return setting("session_authorization", value_word(t, 3), false);
    }
    if t.are_words(at, &["time", "zone"]) {
        return setting("timezone", value_word(t, at + 2), local);
    }
    if t.are_words(at, &["xml", "option"]) {
        return setting("xmloption", value_word(t, at + 2), local);
    }
    if !is_assignment(t, at + 1) {
        for (word, name) in
            [("role", "role"), ("names", "client_encoding"), ("schema", "search_path")]
        {
            if t.is_word(at, word) {
                return setting(name, value_word(t, at + 1), local);
            }
        }
    }
    let (name, after) = setting_name(t, at);
    let value = if is_assignment(t, after) { value_list(t, after + 1, &name) } else { None };
    if !is_assignment(t, after) {
        return (Kind::Set, TxEffect::None, SessionEffect::Dirty);
    }
    setting(&name, value, local)
}

fn is_assignment(t: &Tokens<'_>, at: usize) -> bool {
    t.is_word(at, "to") || t.is_operator(at, "=")
}

/// A name that may hold dots, in lower case, and the token after it.
pub(crate) fn setting_name(t: &Tokens<'_>, from: usize) -> (Box<str>, usize) {
    let mut name = t.name(from).unwrap_or_default().to_lowercase();
    let mut at = from + 1;
    while t.is_punct(at, ".") {
        name.push('.');
        name.push_str(&t.name(at + 1).unwrap_or_default().to_lowercase());
        at += 2;
    }
    (name.into(), at)
}

/// One value; `None` for DEFAULT and LOCAL, which stand for the default, and
/// for NONE of roles as `none`.
fn value_word(t: &Tokens<'_>, at: usize) -> Option<Box<str>> {
    if t.is_word(at, "default") || (t.is_word(at, "local") && at + 1 == t.len()) {
        return None;
    }
    element(t, at).map(|(value, _)| value)
}

/// The value at `at` and whether it was written as a string or quoted name.
fn element(t: &Tokens<'_>, at: usize) -> Option<(Box<str>, bool)> {
    if let Some(literal) = t.literal(at) {
        let quoted = !matches!(literal.kind, LiteralKind::Integer | LiteralKind::Numeric);
        return Some((literal.value(t.text)?.as_ref().into(), quoted));
    }
    let quoted = t.kind(at) == Some(token::Kind::Plain(TokenKind::Quoted));
    t.name(at).map(|name| (name, quoted))
}

fn value_list(t: &Tokens<'_>, from: usize, name: &str) -> Option<Box<str>> {
    if t.is_word(from, "default") && from + 1 == t.len() {
        return None;
    }
    let mut out = String::new();
    let mut at = from;
    while at < t.len() {
        if t.is_operator(at, "-") || t.is_operator(at, "+") {
            out.push_str(if t.is_operator(at, "-") { "-" } else { "" });
        } else if t.is_punct(at, ",") {
            out.push_str(", ");
        } else {
            let Some((value, _)) = element(t, at) else { break };
            if name == "search_path" && !is_plain_name(&value) {
                out.push('"');
                out.push_str(&value.replace('"', "\"\""));
                out.push('"');
            } else {
                out.push_str(&value);
            }
        }
        at += 1;
    }
    Some(out.into())
}

fn is_plain_name(name: &str) -> bool {
    name.bytes().enumerate().all(|(i, byte)| {
        byte.is_ascii_lowercase() || byte == b'_' || (i > 0 && byte.is_ascii_digit())
    }) && !name.is_empty()
}

/// RESET in all its forms.
pub(crate) fn reset(t: &Tokens<'_>) -> (Kind, TxEffect, SessionEffect) {
    let reset =
        |name: &str| (Kind::Reset, TxEffect::None, SessionEffect::Reset { name: name.into() });
    if t.is_word(1, "all") && t.len() == 2 {
        (Kind::Reset, TxEffect::None, SessionEffect::ResetAll)
    } else if t.are_words(1, &["session", "authorization"]) {
        reset("session_authorization")
    } else if t.are_words(1, &["time", "zone"]) {
        reset("timezone")
    } else if t.are_words(1, &["transaction", "isolation", "level"]) {
        reset("transaction_isolation")
    } else {
        reset(&setting_name(t, 1).0)
    }
}

pub(crate) fn discard(t: &Tokens<'_>) -> SessionEffect {
    if t.is_word(1, "plans") {
        SessionEffect::DiscardPlans
    } else if t.is_word(1, "sequences") {
        SessionEffect::DiscardSequences
    } else if t.is_word(1, "temp") || t.is_word(1, "temporary") {
        SessionEffect::DiscardTemp
    } else {
        SessionEffect::DiscardAll
    }
}

pub(crate) fn prepare(t: &Tokens<'_>) -> SessionEffect {
    let Some(name) = t.name(1) else { return SessionEffect::Dirty };
    let open = t.is_punct(2, "(");
    let at = if open { t.after_parens(2) } else { 2 };
    if !t.is_word(at, "as") {
        return SessionEffect::Dirty;
    }
    SessionEffect::Prepare {
        name,
        name_span: t.token_span(1),
        types: open.then(|| t.slice(2, at).span()),
        statement: t.from(at + 1).span(),
    }
}

pub(crate) fn execute(t: &Tokens<'_>) -> SessionEffect {
    let Some(name) = t.name(1) else { return SessionEffect::Dirty };
    let arguments = if t.is_punct(2, "(") {
        let end = t.after_parens(2);
        arguments(&t.slice(3, end.saturating_sub(1)))
    } else {
        Vec::new()
    };
    SessionEffect::Execute { name, name_span: t.token_span(1), arguments: arguments.into() }
}

pub(crate) fn deallocate(t: &Tokens<'_>) -> SessionEffect {
    let at = 1 + usize::from(t.is_word(1, "prepare") && t.len() > 2);
    match t.name(at) {
        Some(_) if t.is_word(at, "all") => SessionEffect::DeallocateAll,
        Some(name) => SessionEffect::Deallocate { name, name_span: t.token_span(at) },
        None => SessionEffect::Dirty,
    }
}

pub(crate) fn declare(t: &Tokens<'_>) -> SessionEffect {
    let head = (0..t.len()).find(|i| t.is_word(*i, "for")).unwrap_or(t.len());
    if (2..head).any(|i| t.are_words(i, &["with", "hold"])) {
        SessionEffect::HoldCursor { name: t.name(1).unwrap_or_default() }
    } else {
        SessionEffect::None
    }
}

/// The effect of LISTEN and UNLISTEN; what a server would not read may be
/// anything.
pub(crate) fn listen(t: &Tokens<'_>) -> SessionEffect {
    let channel = t.name(1).filter(|name| !name.is_empty());
    match channel {
        _ if t.len() != 2 => SessionEffect::Dirty,
        Some(channel) if t.is_word(0, "listen") => SessionEffect::Listen { channel },
        None if t.is_word(0, "unlisten") && t.is_operator(1, "*") => {
            SessionEffect::Unlisten { channel: None }
        }
        Some(channel) => SessionEffect::Unlisten { channel: Some(channel) },
        None => SessionEffect::Dirty,
    }
}

/// The effect of CREATE.
pub(crate) fn create(t: &Tokens<'_>) -> SessionEffect {
    let mut at = 1;
    if t.are_words(at, &["or", "replace"]) {
        at += 2;
    }
    at += usize::from(t.is_word(at, "local") || t.is_word(at, "global"));
    let temp = t.is_word(at, "temp") || t.is_word(at, "temporary");
    // `pg_temp.t` is a temporary table too, and a function there makes the same
    // schema.
    let named = (1..t.len().min(8)).any(|i| names_temp_schema(t, i));
    if temp || named { SessionEffect::TempTable } else { SessionEffect::None }
}

/// Whether token `i` is the session's temporary schema, by either of its names.
pub(crate) fn names_temp_schema(t: &Tokens<'_>, i: usize) -> bool {
    t.name(i).is_some_and(|name| *name == *"pg_temp" || name.starts_with("pg_temp_"))
}

/// Whether a SELECT makes a table: INTO outside parentheses.
pub(crate) fn select_into(t: &Tokens<'_>) -> bool {
    let mut depth = 0_usize;
    for i in 0..t.len() {
        if t.is_punct(i, "(") {
            depth += 1;
        } else if t.is_punct(i, ")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && t.is_word(i, "into") {
            return true;
        }
    }
    false
}

/// Whether a COPY writes to the client.
pub(crate) fn copies_out(t: &Tokens<'_>) -> bool {
    let mut at = 1;
    if t.is_punct(1, "(") {
        return true;
    }
    while at < t.len() {
        if t.is_punct(at, "(") {
            at = t.after_parens(at);
            continue;
        }
        if t.is_word(at, "to") || t.is_word(at, "from") {
            return t.is_word(at, "to");
        }
        at += 1;
    }
    false
}

/// The first token of the statement that an EXPLAIN explains.
pub(crate) fn explained(t: &Tokens<'_>) -> Option<usize> {
    let mut at = 1;
    if t.is_punct(1, "(") && !t.is_word(2, "select") && !t.is_word(2, "with") {
        at = t.after_parens(1);
    }
    while ["analyze", "analyse", "verbose"].iter().any(|word| t.is_word(at, word)) {
        at += 1;
    }
    (at < t.len()).then_some(at)
}

/// The arguments between parentheses, split at commas.
pub(crate) fn arguments(t: &Tokens<'_>) -> Vec<Argument> {
    let mut found = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    for i in 0..=t.len() {
        if t.is_punct(i, "(") || t.is_punct(i, "[") {
            depth += 1;
        } else if t.is_punct(i, ")") || t.is_punct(i, "]") {
            depth = depth.saturating_sub(1);
        }
        if i == t.len() || (depth == 0 && t.is_punct(i, ",")) {
            if i > start {
                found.push(argument(&t.slice(start, i)));
            }
            start = i + 1;
        }
    }
    found
}

fn argument(t: &Tokens<'_>) -> Argument {
    let minus = t.is_operator(0, "-");
    let at = usize::from(minus);
    // `'x'::text` is the same value; other casts may change it.
    let cast = t.is_punct(at + 1, "::")
        && ["text", "varchar", "bool", "boolean"].iter().any(|name| t.is_word(at + 2, name))
        && at + 3 == t.len();
    if t.len() != at + 1 && !cast {
        return Argument::Opaque;
    }
    if let Some(index) = t.param(at) {
        return if minus { Argument::Opaque } else { Argument::Param(index) };
    }
    if let Some(literal) = t.literal(at) {
        return match literal.value(t.text) {
            Some(value) if minus => Argument::Text(format!("-{value}").into()),
            Some(value) => Argument::Text(value.as_ref().into()),
            None => Argument::Opaque,
        };
    }
    if t.is_word(at, "null") {
        return Argument::Null;
    }
    for word in ["true", "false"] {
        if t.is_word(at, word) {
            return Argument::Text(word.into());
        }
    }
    Argument::Opaque
}

const fn isolation_word(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::ReadUncommitted => "read uncommitted",
        Isolation::ReadCommitted => "read committed",
        Isolation::RepeatableRead => "repeatable read",
        Isolation::Serializable => "serializable",
    }
}

const fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
