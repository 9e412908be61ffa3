//! A result that is kept, to be given row by row: what a cursor, or a portal
//! that is executed in parts, has of several shards.
//!
//! It holds the rows as they go to the client, within a limit of its own and
//! within what all reads may hold.

use std::rc::Rc;

use crate::protocol::tag::backend as tag;

use super::memory::{Memory, Share};
use super::{Failure, GatherError, whole_frame};

/// The rows of one result.
#[derive(Debug)]
pub struct Kept {
    /// RowDescription.
    description: Vec<u8>,
    rows: Vec<u8>,
    /// Where each row ends.
    ends: Vec<usize>,
    /// The next row to be given.
    next: usize,
    bytes_max: usize,
    share: Share,
}

impl Kept {
    /// A result that has no rows yet.
    pub fn new(bytes_max: usize, memory: Rc<Memory>) -> Self {
        Self {
            description: Vec::new(),
            rows: Vec::new(),
            ends: Vec::new(),
            next: 0,
            bytes_max,
            share: Share::of(memory),
        }
    }

    /// Takes in the rows of `said`, which is whole frames; what is none goes to
    /// `out`.
    ///
    /// # Errors
    /// It is too much to be kept.
    pub fn take_in(&mut self, said: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut rest = said;
        while let Some((kind, len)) = whole_frame(rest)? {
            let (frame, behind) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            if kind == tag::DATA_ROW {
                self.keep(frame)?;
            } else {
                out.extend_from_slice(frame);
            }
            rest = behind;
        }
        Ok(())
    }

    fn keep(&mut self, frame: &[u8]) -> Result<(), Failure> {
        let bytes = frame.len() + size_of::<usize>();
        let whole = self.rows.len() + self.ends.len() * size_of::<usize>() + bytes;
        if whole > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(Failure::Own(GatherError::KeptTooMuch { bytes_max }));
        }
        if !self.share.take(bytes) {
            let bytes_max = self.share.memory().all();
            return Err(Failure::Own(GatherError::OutOfMemory { bytes_max }));
        }
        self.rows.extend_from_slice(frame);
        self.ends.push(self.rows.len());
        Ok(())
    }

    /// Sets the shape of the rows: a whole RowDescription.
    pub fn describe(&mut self, description: Vec<u8>) {
        self.description = description;
    }

    /// RowDescription.
    pub fn description(&self) -> &[u8] {
        &self.description
    }

    /// Gives the next rows, at most `max`; how many.
    pub fn give(&mut self, max: Option<u64>, out: &mut Vec<u8>) -> u64 {
        let start = self.place(self.next);
        let given = self.skip(max);
        let end = self.place(self.next);
        out.extend_from_slice(self.rows.get(start..end).unwrap_or_default());
        given
    }

    /// Passes the next rows over, at most `max`; how many.
    pub fn skip(&mut self, max: Option<u64>) -> u64 {
        let left = self.ends.len().saturating_sub(self.next);
        let max = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(left);
        let given = left.min(max);
        self.next += given;
        u64::try_from(given).unwrap_or(u64::MAX)
    }

    /// Where the row at `index` begins.
    fn place(&self, index: usize) -> usize {
        index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::encode;

    fn row(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode::data_row(&mut out, std::iter::once(Some(text.as_bytes()))).unwrap();
        out
    }

    #[test]
    fn rows_are_given_in_order_and_once() {
        let mut kept = Kept::new(1000, Memory::new(1000));
        let mut notice = vec![b'N', 0, 0, 0, 5, 0];
        let said = [row("a"), notice.clone(), row("bc"), row("")].concat();
        let mut out = Vec::new();
        kept.take_in(&said, &mut out).unwrap();
        assert_eq!(out, notice);
        assert_eq!(kept.give(Some(0), &mut out), 0);
        assert_eq!(kept.give(Some(1), &mut out), 1);
        notice.extend(row("a"));
        assert_eq!(out, notice);
        assert_eq!(kept.skip(Some(1)), 1);
        out.clear();
        assert_eq!(kept.give(None, &mut out), 1);
        assert_eq!(out, row(""));
        assert_eq!(kept.give(None, &mut out), 0);
    }

    #[test]
    fn too_much_is_a_failure_and_gives_the_memory_back() {
        let memory = Memory::new(40);
        let mut kept = Kept::new(30, Rc::clone(&memory));
        kept.take_in(&row("a"), &mut Vec::new()).unwrap();
        let full = kept.take_in(&row("b"), &mut Vec::new()).unwrap_err();
        assert_eq!(full, Failure::Own(GatherError::KeptTooMuch { bytes_max: 30 }));
        let mut other = Kept::new(100, Rc::clone(&memory));
        let full = other.take_in(&row("a long text, too long"), &mut Vec::new()).unwrap_err();
        assert_eq!(full, Failure::Own(GatherError::OutOfMemory { bytes_max: 40 }));
        drop(kept);
        other.take_in(&row("a long text"), &mut Vec::new()).unwrap();
    }
}
