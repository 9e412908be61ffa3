//! Names prepared on one connection, at most so many, least recently used out.
//!
//! A statement has one number for the whole thread (text, types and the
//! settings that change its meaning are its identity), and its name on every
//! backend is made of that number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Number of a statement text on this thread; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(u64);

impl StatementId {
    /// The statement with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The name under which a statement is prepared on backends: `kw_` and the
/// number in hexadecimal, written into `buffer`.
pub fn backend_name(id: StatementId, buffer: &mut [u8; NAME_LEN]) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut rest = id.0;
    let mut at = NAME_LEN;
    loop {
        at -= 1;
        let digit = usize::try_from(rest & 15).unwrap_or(0);
        if let (Some(cell), Some(byte)) = (buffer.get_mut(at), DIGITS.get(digit)) {
            *cell = *byte;
        }
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    at -= PREFIX.len();
    if let Some(cells) = buffer.get_mut(at..at + PREFIX.len()) {
        cells.copy_from_slice(PREFIX);
    }
    buffer.get(at..).unwrap_or_default()
}

/// Longest name: the prefix and sixteen digits.
pub const NAME_LEN: usize = PREFIX.len() + 16;
const PREFIX: &[u8] = b"kw_";

/// Which statements a connection has, bounded.
#[derive(Debug)]
pub struct PreparedNames {
    used_at: HashMap<StatementId, u64, BuildHasherDefault<IdHasher>>,
    uses: u64,
    max: usize,
}

impl PreparedNames {
    /// No names; at most `max` (at least one) are kept.
    pub fn new(max: usize) -> Self {
        Self { used_at: HashMap::default(), uses: 0, max: max.max(1) }
    }

    /// True if `id` is prepared here; marks it as used.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.uses += 1;
        match self.used_at.get_mut(&id) {
            Some(at) => {
                *at = self.uses;
                true
            }
            None => false,
        }
    }

    /// Notes that `id` is being prepared. Returns the name to close first, if
    /// the connection is full.
    pub fn insert(&mut self, id: StatementId) -> Option<StatementId> {
        self.uses += 1;
        let full = self.used_at.len() >= self.max && !self.used_at.contains_key(&id);
        let oldest = if full {
            self.used_at.iter().min_by_key(|(_, at)| **at).map(|(oldest, _)| *oldest)
        } else {
            None
        };
        if let Some(oldest) = oldest {
            self.used_at.remove(&oldest);
        }
        self.used_at.insert(id, self.uses);
        oldest
    }

    /// Forgets `id`.
    pub fn remove(&mut self, id: StatementId) {
        self.used_at.remove(&id);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used_at.clear();
    }

    /// How many are prepared.
    pub fn len(&self) -> usize {
        self.used_at.len()
    }

    /// True if none is.
    pub fn is_empty(&self) -> bool {
        self.used_at.is_empty()
    }
}

/// The numbers are our own and dense: one multiplication spreads them.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_the_number_in_hexadecimal() {
        let mut buffer = [0; NAME_LEN];
        assert_eq!(backend_name(StatementId::new(0), &mut buffer), b"kw_0");
        assert_eq!(backend_name(StatementId::new(0x2A7), &mut buffer), b"kw_2a7");
        assert_eq!(backend_name(StatementId::new(u64::MAX), &mut buffer), b"kw_ffffffffffffffff");
    }

    #[test]
    fn the_least_recently_used_name_is_closed_when_full() {
        let mut names = PreparedNames::new(2);
        let [a, b, c] = [1, 2, 3].map(StatementId::new);
        assert_eq!(names.insert(a), None);
        assert_eq!(names.insert(b), None);
        assert!(names.touch(a));
        assert_eq!(names.insert(c), Some(b));
        assert!(names.touch(a) && names.touch(c) && !names.touch(b));
        assert_eq!(names.len(), 2);
    }
}
