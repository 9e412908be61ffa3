//! A client that waits: tokio-postgres, one connection, and what it was told.

use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, NoTls, Row, SimpleQueryMessage, Statement};

/// One connection.
pub(crate) struct Client {
    runtime: Runtime,
    inner: tokio_postgres::Client,
    notices: Arc<Mutex<Vec<String>>>,
}

/// An error as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: String,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl Client {
    pub(crate) fn connect(url: &str) -> Self {
        Self::try_connect(url).unwrap()
    }

    /// # Errors
    /// The login is refused.
    pub(crate) fn try_connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let notices = Arc::new(Mutex::new(Vec::new()));
        let (inner, mut connection) = runtime.block_on(tokio_postgres::connect(url, NoTls))?;
        let heard = Arc::clone(&notices);
        runtime.spawn(async move {
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    heard.lock().unwrap().push(notice.message().to_owned());
                }
            }
        });
        Ok(Self { runtime, inner, notices })
    }

    /// Runs a query string: rows as psql prints them unaligned, and at the end
    /// of each statement the number of rows.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn text(&self, sql: &str) -> Result<String, Refusal> {
        let messages = self.runtime.block_on(self.inner.simple_query(sql)).map_err(refusal)?;
        let mut lines = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => {
                    let columns: Vec<&str> =
                        (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
                    lines.push(columns.join("|"));
                }
                SimpleQueryMessage::CommandComplete(rows) => lines.push(format!("({rows})")),
                _ => {}
            }
        }
        Ok(lines.join("\n"))
    }

    /// The one value of a query string's only row.
    #[track_caller]
    pub(crate) fn value(&self, sql: &str) -> String {
        let text = self.text(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Runs a query string that must succeed.
    #[track_caller]
    pub(crate) fn run(&self, sql: &str) -> String {
        self.text(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// Runs a query string that must fail.
    #[track_caller]
    pub(crate) fn refused(&self, sql: &str) -> Refusal {
        match self.text(sql) {
            Err(refusal) => refusal,
            Ok(text) => panic!("{sql} succeeded: {text}"),
        }
    }

    /// Prepares and executes with binary parameters.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn query(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Refusal> {
        self.runtime.block_on(self.inner.query(sql, params)).map_err(refusal)
    }

    /// Prepares a statement.
    #[track_caller]
    pub(crate) fn prepare(&self, sql: &str, types: &[Type]) -> Statement {
        self.runtime.block_on(self.inner.prepare_typed(sql, types)).unwrap()
    }

    /// Executes a prepared statement.
    #[track_caller]
    pub(crate) fn execute(
        &self,
        statement: &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Vec<Row> {
        self.runtime.block_on(self.inner.query(statement, params)).unwrap()
    }

    /// What the server said besides, since the last call.
    pub(crate) fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }
}

fn refusal(error: tokio_postgres::Error) -> Refusal {
    match error.as_db_error() {
        Some(error) => Refusal {
            state: error.code().code().to_owned(),
            message: error.message().to_owned(),
            hint: error.hint().unwrap_or_default().to_owned(),
        },
        None => Refusal {
            state: String::new(),
            message: format!("{error}: {:?}", std::error::Error::source(&error)),
            hint: String::new(),
        },
    }
}
