//! Cursors over several shards, and portals over them that are executed in
//! parts: the read runs whole, and its rows are kept in the router, to be given
//! as they are asked for. So the cursor is what DECLARE found, as on one server,
//! and no backend waits for the client.
//!
//! They go forward only. Those of a transaction end with it; one WITH HOLD
//! begins outside a transaction and lasts until it is closed.
//!
//! Source: PostgreSQL manual, "DECLARE", "FETCH", "MOVE" and "CLOSE".

use std::collections::HashMap;

use crate::gather::Kept;
use crate::protocol::encode;
use crate::protocol::frontend::Bind;
use crate::route::{DeclaredCursor, Fetch, Template, Wrapping};
use crate::sql::statement::Kind;
use crate::types::{Format, SqlState};

use super::feed::Feed;
use super::refusal::{
    LIMIT_EXCEEDED, NO_CURSOR, NO_TRANSACTION, NOT_SUPPORTED, Refused, in_failed_transaction,
};
use super::scatter::{ScatterPortal, ScatterRead};
use super::{Session, Tx};

/// The session's cursors over several shards, by name.
#[derive(Default)]
pub(super) struct Cursors(HashMap<Box<str>, Cursor>);

struct Cursor {
    kept: Kept,
    /// Its rows are in the binary format.
    binary: bool,
    /// It outlives transactions.
    hold: bool,
    /// A ROLLBACK TO a savepoint came after it, which may have ended it.
    unsure: bool,
}

impl Cursors {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The transaction is over.
    #[inline]
    pub(super) fn end_transaction(&mut self) {
        if !self.0.is_empty() {
            self.end_each();
        }
    }

    /// Out of the way of sessions without cursors, which is nearly all.
    #[cold]
    fn end_each(&mut self) {
        self.0.retain(|_, cursor| cursor.hold);
    }

    /// What stands behind a savepoint is undone.
    pub(super) fn roll_back_to(&mut self) {
        for cursor in self.0.values_mut().filter(|cursor| !cursor.hold) {
            cursor.unsure = true;
        }
    }

    /// CLOSE; of all of them if there is no name.
    pub(super) fn close(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.0.remove(name)),
            None => self.0.clear(),
        }
    }
}

impl ScatterPortal {
    /// The cursor that it declares.
    pub(super) const fn cursor(&self) -> Option<&DeclaredCursor> {
        match &self.wrapping {
            Some(Wrapping::Declare(declared)) => Some(declared),
            Some(Wrapping::Explain(_) | Wrapping::Copy(_)) | None => None,
        }
    }
}

impl ScatterRead {
    /// Takes the rows that were `said` in, if they are kept.
    pub(super) fn keep(&mut self, said: &[u8], out: &mut Vec<u8>) {
        let Some(kept) = &mut self.kept else { return };
        if let Err(failure) = kept.take_in(said, out) {
            self.gather.fail(failure);
        }
    }
}

impl Session {
    /// The rows that are kept of a read are all here: what the client is told.
    pub(super) fn end_kept(&mut self, read: &ScatterRead, mut kept: Kept, out: &mut Vec<u8>) {
        let mut description = Vec::new();
        read.gather.write_description(&mut description);
        kept.describe(description);
        let Some(declared) = read.portal.cursor() else {
            return give_part(&read.portal, kept, read.suspends, read.tells_shape(), out);
        };
        if read.tells_shape() && read.is_extended() {
            encode::no_data(out);
        }
        let cursor = Cursor { kept, binary: declared.binary, hold: declared.hold, unsure: false };
        self.cursors.0.insert(declared.name.clone(), cursor);
        encode::command_complete(out, "DECLARE CURSOR");
    }
}

/// Says the next part of a portal's rows, and keeps the rest.
fn give_part(
    portal: &ScatterPortal,
    mut kept: Kept,
    max: Option<u64>,
    tells_shape: bool,
    out: &mut Vec<u8>,
) {
    if tells_shape {
        out.extend_from_slice(kept.description());
    }
    let given = kept.give(max, out);
    // A server that has given as many as were asked for does not look whether
    // there are more.
    if max.is_some_and(|max| given >= max) {
        encode::portal_suspended(out);
    } else {
        encode::command_complete(out, &format!("SELECT {given}"));
    }
    portal.kept.replace(Some(kept));
}

impl Feed<'_, '_> {
    /// True if rows that an Execute leaves may be asked for later: its portal
    /// lasts as long as the transaction.
    pub(super) fn keeps_rest(&self, name: &[u8], portal: &ScatterPortal, max_rows: i32) -> bool {
        !name.is_empty() && max_rows > 0 && portal.wrapping.is_none() && self.in_transaction()
    }

    fn in_transaction(&self) -> bool {
        matches!(self.s.tx, Tx::Lazy(_)) || self.in_backend_transaction()
    }

    /// The next part of a portal's rows, if they are kept.
    pub(super) fn execute_kept(
        &self,
        portal: &ScatterPortal,
        max_rows: i32,
        tells_shape: bool,
    ) -> Option<Result<Vec<u8>, Refused>> {
        let kept = portal.kept.take()?;
        if self.is_backend_failed() || self.refuse_in_failed().is_some() {
            return Some(Err(in_failed_transaction()));
        }
        let max = u64::try_from(max_rows).ok().filter(|max| *max > 0);
        let mut out = Vec::new();
        give_part(portal, kept, max, tells_shape, &mut out);
        Some(Ok(out))
    }

    /// Whether a cursor may be declared now.
    ///
    /// # Errors
    /// As a server would say, or what can't be done over several shards.
    pub(super) fn check_declared(&self, declared: &DeclaredCursor) -> Result<(), Refused> {
        if self.s.cursors.contains(&declared.name) {
            return Err(duplicate(&declared.name));
        }
        if self.s.cursors.0.len() >= CURSORS_MAX {
            return Err(Refused::new(
                LIMIT_EXCEEDED,
                format!("a client may have {CURSORS_MAX} cursors over several shards"),
            )
            .hint("close those that are no longer used"));
        }
        match (declared.hold, self.in_transaction()) {
            (false, false) => Err(Refused::new(
                NO_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )),
            (true, true) => Err(Refused::new(
                NOT_SUPPORTED,
                "a cursor WITH HOLD over several shards in a transaction is not supported",
            )
            .hint("declare it before BEGIN, or without HOLD")),
            (false, true) | (true, false) => Ok(()),
        }
    }

    /// Whether a text for one shard means no cursor over several.
    ///
    /// # Errors
    /// It declares one of a name that is taken, or may fetch from one among other
    /// statements.
    pub(super) fn check_cursor_name(&self, template: &Template) -> Result<(), Refused> {
        if self.s.cursors.is_empty() {
            return Ok(());
        }
        let statements = template.statements();
        if statements.len() > 1 && statements.iter().any(|one| one.kind == Kind::Cursor) {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "FETCH or CLOSE among other statements, beside a cursor over several shards, is not supported",
            )
            .hint("send it by itself"));
        }
        match template.cursor() {
            Some(name) if self.s.cursors.contains(name) => Err(duplicate(name)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a FETCH may be bound like this: the rows are there in the cursor's
    /// format.
    ///
    /// # Errors
    /// Another one is asked for.
    pub(super) fn check_fetched(
        &self,
        bind: &Bind<'_>,
        template: &Template,
    ) -> Result<(), Refused> {
        let formats = bind.result_formats();
        let binary = |index| formats.of(index, formats.count()) == Some(Format::Binary);
        let cursor = template.cursor().and_then(|name| self.s.cursors.0.get(name));
        match cursor {
            Some(cursor) if !cursor.binary && (0..formats.count()).any(binary) => {
                Err(Refused::new(
                    NOT_SUPPORTED,
                    "fetching from a cursor over several shards in the binary format is not supported",
                )
                .hint("declare it BINARY, or fetch in the text format"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// RowDescription of a FETCH; nothing of what gives no rows.
    pub(super) fn cursor_description(&self, name: &str, text: &[u8]) -> Vec<u8> {
        match (Fetch::read(text), self.s.cursors.0.get(name)) {
            (Ok(Fetch::Rows { .. }), Some(cursor)) => cursor.kept.description().to_vec(),
            (Ok(Fetch::Rows { .. } | Fetch::Move { .. } | Fetch::Close) | Err(_), _) => Vec::new(),
        }
    }

    /// FETCH, MOVE or CLOSE of a cursor of several shards: rows, and the tag.
    ///
    /// # Errors
    /// It goes backward, or the cursor may be gone.
    pub(super) fn fetch(&mut self, name: &str, text: &[u8]) -> Result<(Vec<u8>, String), Refused> {
        let fetch = Fetch::read(text).map_err(|error| super::feed::refuse_route(&error))?;
        let Some(cursor) = self.s.cursors.0.get_mut(name) else {
            return Err(Refused::new(NO_CURSOR, format!("cursor \"{name}\" does not exist")));
        };
        let mut rows = Vec::new();
        if matches!(fetch, Fetch::Rows { .. } | Fetch::Move { .. }) && cursor.unsure {
            return Err(Refused::new(
                NOT_SUPPORTED,
                "a cursor over several shards after ROLLBACK TO SAVEPOINT is not supported",
            )
            .hint("declare it again"));
        }
        let tag = match fetch {
            Fetch::Rows { max } => format!("FETCH {}", cursor.kept.give(max, &mut rows)),
            Fetch::Move { max } => format!("MOVE {}", cursor.kept.skip(max)),
            Fetch::Close => {
                self.s.cursors.close(Some(name));
                "CLOSE CURSOR".to_owned()
            }
        };
        Ok((rows, tag))
    }
}

fn duplicate(name: &str) -> Refused {
    Refused::new(DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists"))
}

/// Most cursors over several shards that a client has.
const CURSORS_MAX: usize = 100;
/// `duplicate_cursor`
const DUPLICATE_CURSOR: SqlState = SqlState::new("42P03");
