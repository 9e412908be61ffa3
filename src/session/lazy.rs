//! A transaction that has begun and has no shard yet.
//!
//! On a sharded database BEGIN is answered by the router; what the client does
//! to the transaction before its first statement with a shard is kept, and
//! sent ahead of that statement. The server's word comes late, so only what
//! can't fail, or fails the transaction, is kept.

use super::effects::Effect;
use crate::sql::statement::{Isolation, TxModes};

/// What was said before the transaction had a shard.
#[derive(Clone, Debug)]
pub(super) struct Lazy {
    begin: Box<[u8]>,
    /// What BEGIN says of its modes.
    modes: TxModes,
    failed: bool,
    preamble: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    text: Box<[u8]>,
    savepoint: Option<Box<str>>,
    effects: Vec<Effect>,
    /// What SET TRANSACTION says.
    modes: Option<TxModes>,
    /// It sets the transaction's modes in another way.
    sets_modes: bool,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({} bytes)", self.text.len())
    }
}

impl Lazy {
    /// A transaction opened by `begin`, which names these modes.
    pub(super) fn new(begin: &[u8], modes: TxModes) -> Self {
        Self { begin: begin.into(), modes, failed: false, preamble: Vec::new() }
    }

    /// The transaction that AND CHAIN opens: the same modes, nothing said yet.
    pub(super) fn restarted(&self) -> Self {
        Self::new(&self.begin, self.modes)
    }

    /// The isolation that was named last; `None` if it may have been set in
    /// another way.
    pub(super) fn isolation(&self) -> Option<Option<Isolation>> {
        let named = self.preamble.iter().filter_map(|entry| entry.modes?.isolation).next_back();
        let told = self.preamble.iter().all(|entry| !entry.sets_modes);
        told.then(|| named.or(self.modes.isolation))
    }

    /// True if it may have settings of its own.
    pub(super) fn has_settings(&self) -> bool {
        let sets = |entry: &Entry| {
            !entry.text.is_empty() && entry.savepoint.is_none() && entry.modes.is_none()
        };
        self.preamble.iter().any(sets)
    }

    /// True if an error of the router's own has failed it.
    pub(super) const fn is_failed(&self) -> bool {
        self.failed
    }

    /// An error of the router's own fails it.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// True if it is READ COMMITTED as far as BEGIN says: a statement may run
    /// beside it without anyone seeing a difference.
    pub(super) fn is_plain(&self) -> bool {
        self.modes == TxModes::default() && self.has_only_begun()
    }

    /// True if nothing was said since BEGIN that a server has to hear.
    pub(super) fn has_only_begun(&self) -> bool {
        self.preamble.iter().all(|entry| entry.text.is_empty())
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.preamble.iter().map(|e| e.text.len().saturating_add(ENTRY_BYTES));
        self.begin.len() + entries.sum::<usize>()
    }

    /// Its modes, as far as they are told; `None` if nobody can tell, or if its
    /// way there leads through one that a standby refuses.
    pub(super) fn modes(&self) -> Option<TxModes> {
        let told = self.preamble.iter().filter_map(|entry| entry.modes);
        let primary = |modes: &TxModes| {
            modes.read_only == Some(false) || modes.isolation == Some(Isolation::Serializable)
        };
        if self.preamble.iter().any(|entry| entry.sets_modes)
            || told.clone().any(|modes| primary(&modes))
            || primary(&self.modes)
        {
            return None;
        }
        Some(told.fold(self.modes, |modes, later| TxModes {
            isolation: later.isolation.or(modes.isolation),
            read_only: later.read_only.or(modes.read_only),
            deferrable: later.deferrable.or(modes.deferrable),
        }))
    }

    /// Keeps a statement to be sent once there is a shard; an empty one has
    /// effects only.
    pub(super) fn keep(&mut self, text: &[u8], effects: Vec<Effect>) {
        let (savepoint, modes, sets_modes) = (None, None, false);
        self.preamble.push(Entry { text: text.into(), savepoint, effects, modes, sets_modes });
    }

    /// The statement kept last is SET TRANSACTION with these modes.
    pub(super) fn note_modes(&mut self, modes: TxModes) {
        if let Some(last) = self.preamble.last_mut() {
            last.modes = Some(modes);
        }
    }

    /// The statement kept last may set the transaction's modes otherwise.
    pub(super) fn note_unknown_modes(&mut self) {
        if let Some(last) = self.preamble.last_mut() {
            last.sets_modes = true;
        }
    }

    /// Keeps SAVEPOINT `name`.
    pub(super) fn savepoint(&mut self, name: &str, text: &[u8]) {
        self.keep(text, vec![Effect::Savepoint(name.into())]);
        if let Some(last) = self.preamble.last_mut() {
            last.savepoint = Some(name.into());
        }
    }

    /// ROLLBACK TO `name`: true if there is such a savepoint. It heals a
    /// failure that came after.
    pub(super) fn rollback_to(&mut self, name: &str) -> bool {
        match self.find(name) {
            Some(at) => {
                self.preamble.truncate(at + 1);
                self.failed = false;
                true
            }
            None => false,
        }
    }

    /// RELEASE `name`: true if there is such a savepoint.
    pub(super) fn release(&mut self, name: &str) -> bool {
        let Some(at) = self.find(name) else { return false };
        let mut index = 0;
        self.preamble.retain(|entry| {
            index += 1;
            index <= at || entry.savepoint.is_none()
        });
        true
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.preamble.iter().rposition(|e| e.savepoint.as_deref() == Some(name))
    }

    /// True if sending BEGIN alone opens it: nothing in it can fail, so the
    /// first statement may follow without waiting.
    pub(super) fn can_not_fail(&self) -> bool {
        self.is_plain()
    }

    /// Appends the statements that open it on a backend.
    pub(super) fn write_sql(&self, sql: &mut Vec<u8>) {
        sql.extend_from_slice(&self.begin);
        for entry in self.preamble.iter().filter(|entry| !entry.text.is_empty()) {
            sql.extend_from_slice(b"\n;");
            sql.extend_from_slice(&entry.text);
        }
    }

    /// What the kept statements do, in order.
    pub(super) fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.preamble.iter().flat_map(|entry| &entry.effects)
    }

    /// What the kept statements did, in order.
    pub(super) fn into_effects(self) -> impl Iterator<Item = Effect> {
        self.preamble.into_iter().flat_map(|entry| entry.effects)
    }
}

/// A fair guess of what an entry takes besides its text.
const ENTRY_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(lazy: &Lazy) -> String {
        let mut out = Vec::new();
        lazy.write_sql(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rollback_to_forgets_what_came_after_and_heals() {
        let mut lazy = Lazy::new(b"BEGIN", TxModes::default());
        lazy.savepoint("a", b"SAVEPOINT a");
        lazy.keep(b"SET LOCAL x = 1", Vec::new());
        lazy.fail();
        assert!(lazy.rollback_to("a"));
        assert!(!lazy.is_failed());
        assert_eq!(sql(&lazy), "BEGIN\n;SAVEPOINT a");
        assert!(!lazy.rollback_to("b"));
    }

    #[test]
    fn modes_add_up_and_rollback_to_takes_them_back() {
        let read_only = |on| TxModes { read_only: Some(on), ..TxModes::default() };
        let mut lazy = Lazy::new(b"BEGIN READ ONLY", read_only(true));
        lazy.savepoint("a", b"SAVEPOINT a");
        lazy.keep(b"SET TRANSACTION READ WRITE", Vec::new());
        lazy.note_modes(read_only(false));
        assert_eq!(lazy.modes(), None, "a standby has no READ WRITE");
        assert!(lazy.rollback_to("a"));
        assert_eq!(lazy.modes(), Some(read_only(true)));
        lazy.keep(b"SET transaction_read_only = off", Vec::new());
        lazy.note_unknown_modes();
        assert_eq!(lazy.modes(), None);
        assert_eq!(lazy.restarted().modes(), Some(read_only(true)));
    }

    #[test]
    fn release_removes_the_savepoint_and_those_inside() {
        let mut lazy = Lazy::new(b"BEGIN", TxModes::default());
        lazy.savepoint("a", b"SAVEPOINT a");
        lazy.keep(b"SET LOCAL x = 1", Vec::new());
        lazy.savepoint("b", b"SAVEPOINT b");
        assert!(lazy.release("a"));
        assert_eq!(sql(&lazy), "BEGIN\n;SET LOCAL x = 1");
        assert!(!lazy.release("b"));
    }
}
