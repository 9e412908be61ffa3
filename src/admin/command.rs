//! Reads the console's small language: a few commands in pgbouncer's words.

use crate::document::nearest;
use crate::sql::literal::LiteralKind;
use crate::sql::token::{Tokens, statements, tokens};
use crate::types::SqlState;

use super::source::{Action, MoveOrder, PrimaryOrder, Refusal};
use crate::engine::Operation;
use crate::mover::{Subject, Wish};

/// One statement of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show something.
    Show(Topic),
    /// Show the one of a list that has this number: a client's, or that of a
    /// connection's process.
    Find(Topic, u64),
    /// Change something.
    Act(Action),
}

/// What `SHOW` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "TOPICS describes each")]
pub enum Topic {
    Pools,
    Clients,
    Servers,
    Holds,
    Databases,
    Nodes,
    Map,
    Catalog,
    Moves,
    Epochs,
    Stats,
    Lists,
    State,
    Config,
    Version,
    Help,
}

/// The commands in `text`, in order; empty if it holds none.
///
/// # Errors
/// Any part of `text` is no command. Nothing of it should then be done, as a
/// server does nothing of a query that it can't parse.
pub fn read(text: &str) -> Result<Vec<Command>, Refusal> {
    let list = tokens(text.as_bytes()).map_err(|error| Refusal {
        state: error.sqlstate(),
        message: error.to_string(),
        hint: None,
    })?;
    let found = statements(text.as_bytes(), &list);
    if found.len() > COMMANDS_MAX {
        return Err(Refusal {
            state: SqlState::new("54000"),
            message: format!("the text has {} commands, more than {COMMANDS_MAX}", found.len()),
            hint: Some("send them one by one".to_owned()),
        });
    }
    found.iter().map(command).collect()
}

/// Each topic with its word and what it shows.
pub const TOPICS: &[(Topic, &str, &str)] = &[
    (Topic::Pools, "POOLS", "connections and waiting clients by database, user and node"),
    (
        Topic::Clients,
        "CLIENTS",
        "connected clients and what they are doing; CLIENTS <id> one of them",
    ),
    (Topic::Servers, "SERVERS", "connections to the nodes; SERVERS <pid> whose process that is"),
    (Topic::Holds, "HOLDS", "clients that keep connections beyond their transactions, and why"),
    (Topic::Databases, "DATABASES", "databases that are served"),
    (Topic::Nodes, "NODES", "nodes with their health, role and lag"),
    (Topic::Map, "MAP", "the shard maps in force, and why a file is not"),
    (Topic::Catalog, "CATALOG", "what is known of the shards' schemas, and what does not fit"),
    (Topic::Moves, "MOVES", "moves of tenants and slots, and how far they are"),
    (Topic::Epochs, "EPOCHS", "the routers of a database, and the map that each goes by"),
    (Topic::Stats, "STATS", "counters since the start"),
    (Topic::Lists, "LISTS", "how many databases, pools, clients and connections there are"),
    (Topic::State, "STATE", "what operators hold up"),
    (Topic::Config, "CONFIG", "settings in force"),
    (Topic::Version, "VERSION", "the router's version"),
    (Topic::Help, "HELP", "this list"),
];

/// The commands that change something, and what they do.
pub const ACTIONS: &[(&str, &str)] = &[
    ("RELOAD", "reads the configuration and the maps again; what is invalid is refused"),
    (
        "PAUSE [db]",
        "lets units under way finish, holds new ones up, closes all connections; answers when they are closed",
    ),
    ("RESUME [db]", "ends PAUSE, SUSPEND and KILL"),
    ("SUSPEND [db]", "begins no new unit, also within transactions; answers when none runs"),
    ("RECONNECT [db]", "closes the connections that are open now as they come free"),
    ("WAIT_CLOSE [db]", "answers when those connections are closed"),
    (
        "KILL [db]",
        "disconnects all clients and closes all connections; new clients wait until RESUME",
    ),
    (
        "KILL <client id>",
        "disconnects a client; its transaction is rolled back. KILL_CLIENT does the same",
    ),
    (
        "MOVE TENANT <key> TO <shard> [OF <keyspace>] [IN db]",
        "moves a tenant's rows to another shard while clients go on",
    ),
    ("MOVE SLOTS <a>-<b> TO <shard> [OF <keyspace>] [IN db]", "moves the rows of slots likewise"),
    ("PAUSE|RESUME MOVE <n>", "lets a move stand where it is, or go on"),
    ("ABORT MOVE <n>", "gives a move up and leaves nothing of it behind"),
    ("REVERSE MOVE <n>", "gives the rows back to the source, with what was written since"),
    ("FINISH MOVE <n>", "deletes the rows on the source; there is no way back then"),
    (
        "SET PRIMARY <shard> '<host:port>' [IN db]",
        "names the node that gets the writes should several be primaries; needs nodes.authority = \"console\"",
    ),
    ("DISABLE db", "lets nobody new log in"),
    ("ENABLE db", "ends DISABLE"),
];

fn command(statement: &Tokens<'_>) -> Result<Command, Refusal> {
    let word = statement.name(0).unwrap_or_default();
    match &*word {
        "show" => {
            let topic = topic(&statement.name(1).unwrap_or_default())?;
            if matches!(topic, Topic::Clients | Topic::Servers)
                && let Some(number) = number(statement, 2)
            {
                ends_after(statement, 3)?;
                return Ok(Command::Find(topic, number));
            }
            ends_after(statement, 2)?;
            Ok(Command::Show(topic))
        }
        "reload" => {
            ends_after(statement, 1)?;
            Ok(Command::Act(Action::Reload))
        }
        "kill" if statement.literal(1).is_none() => on_database(statement, Operation::Kill),
        "kill" | "kill_client" => {
            let id = number(statement, 1)
                .ok_or_else(|| syntax("KILL needs a client's number", "SHOW CLIENTS lists them"))?;
            ends_after(statement, 2)?;
            Ok(Command::Act(Action::Kill(id)))
        }
        "move" => order(statement),
        "set" if statement.name(1).as_deref() == Some("primary") => primary(statement),
        "pause" | "resume" | "abort" | "reverse" | "finish"
            if statement.name(1).as_deref() == Some("move") =>
        {
            wish(statement, &word)
        }
        "pause" => on_database(statement, Operation::Pause),
        "resume" => on_database(statement, Operation::Resume),
        "suspend" => on_database(statement, Operation::Suspend),
        "reconnect" => on_database(statement, Operation::Reconnect),
        "wait_close" => Ok(Command::Act(Action::WaitClose(database(statement)?))),
        "disable" | "enable" => {
            let operation =
                if &*word == "disable" { Operation::Disable } else { Operation::Enable };
            if statement.len() < 2 {
                let word = word.to_ascii_uppercase();
                return Err(syntax(
                    &format!("{word} needs a database's name"),
                    "SHOW DATABASES lists them",
                ));
            }
            on_database(statement, operation)
        }
        _ => Err(unknown(statement, &word)),
    }
}

/// `… MOVE 3`.
fn wish(statement: &Tokens<'_>, word: &str) -> Result<Command, Refusal> {
    let id = number(statement, 2).and_then(|id| u32::try_from(id).ok());
    let id = id.ok_or_else(|| {
        let word = word.to_ascii_uppercase();
        syntax(&format!("{word} MOVE needs a move's number"), "SHOW MOVES lists them")
    })?;
    ends_after(statement, 3)?;
    let wish = Wish::of(if word == "resume" { "run" } else { word });
    Ok(Command::Act(Action::Wish(id, wish.unwrap_or_default())))
}

/// `MOVE TENANT 42 TO s2 OF keyspace IN database`.
fn order(statement: &Tokens<'_>) -> Result<Command, Refusal> {
    let usage = || {
        syntax(
            "MOVE needs to be told what and where to",
            "MOVE TENANT 42 TO shard2, or MOVE SLOTS 0-63 TO shard2",
        )
    };
    let text = |i: usize| value(statement, i);
    let (subject, mut at) = match statement.name(1).as_deref() {
        Some("tenant") => (Subject::Tenant(text(2).ok_or_else(usage)?), 3),
        Some("slots") => {
            let slot = |i| number(statement, i).and_then(|n| u32::try_from(n).ok());
            let first = slot(2).ok_or_else(usage)?;
            // `0-63` reads as two numbers with a sign between them.
            match (statement.bytes(3), slot(4)) {
                (b"-", Some(last)) => (Subject::Slots { first, last }, 5),
                _ => (Subject::Slots { first, last: first }, 3),
            }
        }
        _ => return Err(usage()),
    };
    let (mut target, mut keyspace, mut database) = (None, None, None);
    while at < statement.len() {
        let slot = match statement.name(at).as_deref() {
            Some("to") => &mut target,
            Some("of") => &mut keyspace,
            Some("in") => &mut database,
            _ => return Err(usage()),
        };
        *slot = Some(text(at + 1).ok_or_else(usage)?);
        at += 2;
    }
    let target = target.ok_or_else(usage)?;
    Ok(Command::Act(Action::Move(MoveOrder { subject, keyspace, target, database })))
}

/// `SET PRIMARY s1 'db1:5432' IN database`.
fn primary(statement: &Tokens<'_>) -> Result<Command, Refusal> {
    let usage = || {
        syntax(
            "SET PRIMARY needs to be told a shard and a node",
            "SET PRIMARY shard1 'db1.example:5432'; SHOW NODES lists them",
        )
    };
    let shard = value(statement, 2).ok_or_else(usage)?;
    let node = value(statement, 3).ok_or_else(usage)?;
    let database = match (statement.len(), statement.name(4).as_deref()) {
        (4, _) => None,
        (6, Some("in")) => Some(value(statement, 5).ok_or_else(usage)?),
        _ => return Err(usage()),
    };
    Ok(Command::Act(Action::NamePrimary(PrimaryOrder { shard, node, database })))
}

/// A name, a number or a string.
fn value(statement: &Tokens<'_>, i: usize) -> Option<String> {
    if let Some(name) = statement.name(i) {
        return Some(name.into());
    }
    let literal = statement.literal(i)?;
    let text = std::str::from_utf8(statement.bytes(i)).ok()?;
    match literal.kind {
        LiteralKind::Integer => Some(text.to_owned()),
        _ => {
            let inner = text.strip_prefix('\'')?.strip_suffix('\'')?;
            Some(inner.replace("''", "'"))
        }
    }
}

fn on_database(statement: &Tokens<'_>, operation: Operation) -> Result<Command, Refusal> {
    Ok(Command::Act(Action::Operate(operation, database(statement)?)))
}

/// The database that a command names; `None` if it names none.
fn database(statement: &Tokens<'_>) -> Result<Option<String>, Refusal> {
    if statement.len() < 2 {
        return Ok(None);
    }
    let name = statement.name(1).ok_or_else(|| {
        let said = shown(statement.bytes(1));
        syntax(&format!("{said:?} is no database's name"), "SHOW DATABASES lists them")
    })?;
    ends_after(statement, 2)?;
    Ok(Some(name.into()))
}

fn topic(word: &str) -> Result<Topic, Refusal> {
    if let Some((topic, ..)) = TOPICS.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(word)) {
        return Ok(*topic);
    }
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        return Err(Refusal {
            state: SYNTAX,
            message: format!("the console has no {word:?} to show"),
            hint: Some((*instead).to_owned()),
        });
    }
    let names = TOPICS.iter().map(|(_, name, _)| *name);
    let hint = match nearest(&word.to_ascii_uppercase(), names.clone()) {
        Some(meant) if !word.is_empty() => format!("did you mean SHOW {meant}?"),
        _ => format!("SHOW can show {}", names.collect::<Vec<_>>().join(", ")),
    };
    let message = if word.is_empty() {
        "SHOW needs to be told what".to_owned()
    } else {
        format!("the console has no {word:?} to show")
    };
    Err(Refusal { state: SYNTAX, message, hint: Some(hint) })
}

fn number(statement: &Tokens<'_>, i: usize) -> Option<u64> {
    let literal = statement.literal(i)?;
    match literal.kind {
        LiteralKind::Integer => std::str::from_utf8(statement.bytes(i)).ok()?.parse().ok(),
        _ => None,
    }
}

fn ends_after(statement: &Tokens<'_>, count: usize) -> Result<(), Refusal> {
    if statement.len() == count {
        return Ok(());
    }
    let rest = shown(statement.bytes(count));
    Err(syntax(
        &format!("nothing may follow the command, but {rest:?} does"),
        "SHOW HELP lists the commands",
    ))
}

/// Statements that drivers send by themselves get a hint of their own.
fn unknown(statement: &Tokens<'_>, word: &str) -> Refusal {
    let word = if word.is_empty() { shown(statement.bytes(0)) } else { shown(word.as_bytes()) };
    let hint = match word.as_str() {
        "begin" | "start" | "commit" | "rollback" => {
            "the console has no transactions: turn the driver's autocommit on"
        }
        _ => "the console is no database; SHOW HELP lists its commands",
    };
    Refusal {
        state: SYNTAX,
        message: format!("the console has no command {word:?}"),
        hint: Some(hint.to_owned()),
    }
}

fn syntax(message: &str, hint: &str) -> Refusal {
    Refusal { state: SYNTAX, message: message.to_owned(), hint: Some(hint.to_owned()) }
}

/// The beginning of what a client wrote, for an error.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(SHOWN_CHARS_MAX).collect()
}

/// What pgbouncer's console shows and this one does not, and what to look at.
const ELSEWHERE: &[(&str, &str)] = &[
    ("USERS", "users are in the configuration; SHOW POOLS has those who have connections"),
    ("FDS", "sockets are not handed over by the console"),
    ("SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections"),
    ("ACTIVE_SOCKETS", "SHOW CLIENTS and SHOW SERVERS list the connections"),
    ("TOTALS", "SHOW STATS has them"),
    ("STATS_TOTALS", "SHOW STATS has them"),
    ("STATS_AVERAGES", "SHOW STATS has the counters, and the metrics page their rates"),
    ("MEM", "the metrics page and the system know"),
    ("DNS_HOSTS", "SHOW NODES lists the nodes"),
    ("DNS_ZONES", "SHOW NODES lists the nodes"),
    ("PEERS", "routers know nothing of each other"),
    ("PEER_POOLS", "routers know nothing of each other"),
];
const SYNTAX: SqlState = SqlState::new("42601");
/// Most commands in one text.
const COMMANDS_MAX: usize = 32;
/// An error repeats at most so much of what it is about.
const SHOWN_CHARS_MAX: usize = 40;
