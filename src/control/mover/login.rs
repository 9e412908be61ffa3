//! How one server logs in at the other: a role of the move's own, with a
//! password that nobody knows.
//!
//! The publisher only ever sees the password's verifier. The subscriber keeps
//! the password in `pg_subscription`, which only superusers can read, and must
//! not log the statement that brings it there. The role goes when the stream
//! ends.

use std::fmt::Write as _;

use super::node::{Node, NodeError};
use super::sql;
use crate::auth::{ITERATIONS_DEFAULT, Verifier};
use crate::mover::Journal;
use crate::shardmap::TlsMode;

/// Makes the role `name` at the publisher, or gives it a new password, and
/// returns the connection string for the subscriber. Holds a secret.
pub(super) async fn make(
    journal: &Journal,
    publisher: &mut Node,
    name: &str,
    tls: TlsMode,
) -> Result<String, NodeError> {
    let mut random = [0_u8; 40];
    getrandom::fill(&mut random).map_err(|_| NodeError::NoPassword)?;
    let (salt, bytes) = random.split_at(16);
    let mut password = String::new();
    for byte in bytes {
        let _ = write!(password, "{byte:02x}");
    }
    let verifier = Verifier::from_password(password.as_bytes(), salt, ITERATIONS_DEFAULT);
    let verifier = verifier.map_err(|_| NodeError::NoPassword)?.stored();
    let there = publisher
        .number(&format!(
            "SELECT count(*)::text FROM pg_catalog.pg_roles WHERE rolname = {}",
            sql::literal(name)
        ))
        .await?;
    let word = if there > 0 { "ALTER" } else { "CREATE" };
    let role = sql::ident(name);
    let mut statements = vec![format!(
        "{word} ROLE {role} LOGIN REPLICATION PASSWORD {}",
        sql::literal(verifier.expose())
    )];
    statements.extend(rights(journal).iter().map(|right| format!("GRANT {right} TO {role}")));
    publisher.transact(std::time::Duration::from_secs(1), &statements).await?;
    let target = publisher.target();
    let value = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    Ok(format!(
        "host={} port={} dbname={} user={} password={} sslmode={} connect_timeout=10",
        value(&target.host),
        target.port,
        value(&target.dbname),
        value(name),
        value(&password),
        tls
    ))
}

/// What the role may do: read what the stream begins with.
fn rights(journal: &Journal) -> Vec<String> {
    let mut rights =
        vec!["USAGE ON SCHEMA keyway".to_owned(), "SELECT ON keyway.marker".to_owned()];
    for table in &journal.tables {
        rights.push(format!("USAGE ON SCHEMA {}", sql::ident(&table.schema)));
        rights.push(format!("SELECT ON {}", sql::table(table)));
    }
    rights
}

/// Removes the role, if it is there, and all that it may do.
pub(super) async fn remove(
    journal: &Journal,
    publisher: &mut Node,
    name: &str,
) -> Result<(), NodeError> {
    let there = publisher
        .number(&format!(
            "SELECT count(*)::text FROM pg_catalog.pg_roles WHERE rolname = {}",
            sql::literal(name)
        ))
        .await?;
    if there > 0 {
        let role = sql::ident(name);
        let mut statements: Vec<String> =
            rights(journal).iter().map(|right| format!("REVOKE {right} FROM {role}")).collect();
        statements.push(format!("DROP ROLE {role}"));
        publisher.transact(std::time::Duration::from_secs(1), &statements).await?;
    }
    Ok(())
}

/// Keeps the next statements of this session out of the server's log, as far
/// as its role may.
pub(super) async fn keep_quiet(node: &mut Node) -> Result<(), NodeError> {
    for setting in [
        "log_statement = 'none'",
        "log_min_error_statement = 'panic'",
        "log_min_duration_statement = -1",
    ] {
        match node.rows(&format!("SET {setting}")).await {
            Err(error) if error.code() != Some("42501") => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}
