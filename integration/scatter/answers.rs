//! Asks both, and compares what they say.

use std::collections::BTreeMap;

use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::both::{Both, Clients};
use super::{generated, orm, statements};

/// How the rows of a read may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// In order: ORDER BY leaves no ties.
    Ordered,
    /// As a set with repetitions.
    Unordered,
}

/// A read, and what is expected of the router.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) sql: String,
    pub(crate) rows: Rows,
}

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Report {
    equal: usize,
    failed_alike: usize,
    /// By the router's words: how often, and one of the statements.
    refused: BTreeMap<String, (usize, String)>,
    wrong: Vec<String>,
}

impl Report {
    fn refuse(&mut self, message: String, sql: &str) {
        self.refused.entry(message).or_insert_with(|| (0, sql.to_owned())).0 += 1;
    }

    pub(crate) fn finish(self, name: &str) -> (usize, usize) {
        let refused: usize = self.refused.values().map(|(count, _)| count).sum();
        println!(
            "{name}: {} equal, {} failed alike, {refused} refused, {} wrong",
            self.equal,
            self.failed_alike,
            self.wrong.len()
        );
        for (message, (count, sql)) in &self.refused {
            println!("  {count:5} {message}: {sql}");
        }
        assert!(self.wrong.is_empty(), "wrong answers:\n{}", self.wrong.join("\n"));
        (self.equal, refused)
    }
}

/// A value as it crossed the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Columns and rows.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Raw>>,
}

impl Table {
    fn sorted(mut self, rows: Rows) -> Self {
        if rows == Rows::Unordered {
            self.rows.sort();
        }
        self
    }
}

async fn simple(client: &Client, sql: &str) -> Result<Table, Error> {
    let mut table = Table { columns: Vec::new(), rows: Vec::new() };
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::Row(row) => table.rows.push(
                (0..row.len()).map(|i| Raw(row.get(i).map(|v| v.as_bytes().to_vec()))).collect(),
            ),
            SimpleQueryMessage::RowDescription(columns) => {
                table.columns = columns.iter().map(|c| c.name().to_owned()).collect();
            }
            SimpleQueryMessage::CommandComplete(count) => {
                table.columns.push(format!("tag {count}"));
            }
            _ => {}
        }
    }
    Ok(table)
}

async fn extended(
    client: &Client,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Table, Error> {
    let statement = client.prepare(sql).await?;
    let columns = statement
        .columns()
        .iter()
        // Types of the database's own have other numbers in another database.
        .map(|c| format!("{} {}", c.name(), c.type_().oid().min(16_384)))
        .collect();
    let rows = client.query(&statement, params).await?;
    let rows = rows.iter().map(|row| (0..row.len()).map(|i| row.get(i)).collect()).collect();
    Ok(Table { columns, rows })
}

/// The SQLSTATE and the message.
pub(crate) fn shown(error: &Error) -> (String, String) {
    match error.as_db_error() {
        Some(db) => (db.code().code().to_owned(), db.message().to_owned()),
        None => ("-----".to_owned(), error.to_string()),
    }
}

fn note(
    report: &mut Report,
    what: &str,
    read: &Read,
    plain: Result<Table, Error>,
    router: Result<Table, Error>,
) {
    match (plain, router) {
        (Ok(plain), Ok(router)) => {
            let (plain, router) = (plain.sorted(read.rows), router.sorted(read.rows));
            if plain == router {
                report.equal += 1;
            } else {
                report
                    .wrong
                    .push(format!("{what}: {}\n  {plain:.500?}\n  {router:.500?}", read.sql));
            }
        }
        (Err(plain), Err(router)) => {
            let (plain, router) = (shown(&plain), shown(&router));
            if plain == router {
                println!("failed alike: {} {}: {}", plain.0, plain.1, read.sql);
                report.failed_alike += 1;
            } else if router.0 == "0A000" {
                report.refuse(router.1, &read.sql);
            } else {
                report.wrong.push(format!("{what}: {}\n  {plain:?}\n  {router:?}", read.sql));
            }
        }
        (Ok(_), Err(error)) => {
            let (state, message) = shown(&error);
            if state == "0A000" {
                report.refuse(message, &read.sql);
            } else {
                report.wrong.push(format!("{what}: {}\n  {state} {message}", read.sql));
            }
        }
        (Err(error), Ok(_)) => report.wrong.push(format!(
            "{what}: {}\n  one server refuses it: {:?}",
            read.sql,
            shown(&error)
        )),
    }
}

/// Asks both in both protocols.
pub(crate) async fn compare(clients: &Clients, report: &mut Report, read: &Read) {
    let sql = &read.sql;
    let (a, b) = (simple(&clients.plain, sql).await, simple(&clients.router, sql).await);
    note(report, "simple", read, a, b);
    let a = extended(&clients.plain, sql, &[]).await;
    let b = extended(&clients.router, sql, &[]).await;
    note(report, "extended", read, a, b);
}

pub(crate) async fn hand_written(both: &Both) {
    let clients = both.clients().await;
    let mut report = Report::default();
    let mut refused = Report::default();
    for (sql, rows) in statements::ANSWERED.iter().chain(orm::STATEMENTS) {
        let read = Read { sql: (*sql).to_owned(), rows: *rows };
        compare(&clients, &mut report, &read).await;
    }
    for (sql, rows, params) in statements::with_params() {
        let read = Read { sql: sql.to_owned(), rows };
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|p| &**p).collect();
        let a = extended(&clients.plain, sql, &params).await;
        let b = extended(&clients.router, sql, &params).await;
        note(&mut report, "bound", &read, a, b);
    }
    for (sql, construct) in statements::REFUSED {
        match simple(&clients.router, sql).await {
            Ok(rows) => refused.wrong.push(format!("answered: {sql}\n  {rows:?}")),
            Err(error) => {
                let (state, message) = shown(&error);
                if state != "0A000" || !message.contains(construct) {
                    refused.wrong.push(format!("{sql}\n  {state} {message}"));
                }
                refused.refuse(message, sql);
            }
        }
    }
    let (equal, not_answered) = report.finish("by hand");
    assert_eq!(not_answered, 0, "all of these are to be answered");
    assert!(equal > 100, "{equal} statements are few");
    refused.finish("to be refused");
}

pub(crate) async fn generated(both: &Both) {
    let clients = both.clients().await;
    let mut report = Report::default();
    let seed = std::env::var("KEYWAY_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_124);
    let count = std::env::var("KEYWAY_READS").ok().and_then(|s| s.parse().ok()).unwrap_or(600);
    let mut dice = generated::Dice::new(seed);
    for number in 0..count {
        let read = generated::read(&mut dice);
        if number % 2 == 0 {
            let a = simple(&clients.plain, &read.sql).await;
            let b = simple(&clients.router, &read.sql).await;
            note(&mut report, "simple", &read, a, b);
        } else {
            let a = extended(&clients.plain, &read.sql, &[]).await;
            let b = extended(&clients.router, &read.sql, &[]).await;
            note(&mut report, "extended", &read, a, b);
        }
    }
    println!("seed {seed}");
    let (equal, refused) = report.finish("generated");
    assert!(refused * 100 <= (equal + refused) * 3, "{refused} of {count} were not answered");
}
