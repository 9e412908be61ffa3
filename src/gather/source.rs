//! One source of a gathered read: what it has said and nobody has taken yet.

use crate::protocol::frame::{HEADER_LEN, Header, decode_header};
use crate::protocol::tag::backend as tag;

use super::{Failure, GatherError, is_passing, whole_frame};

/// What stands at the head of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole row.
    Row,
    /// Too few bytes.
    Starved,
    /// All its rows have been taken.
    Complete,
}

/// One source's bytes.
#[derive(Debug, Default)]
pub(super) struct Source {
    buffer: Vec<u8>,
    /// Where what is not taken yet starts.
    at: usize,
    /// Body of its RowDescription.
    description: Option<Box<[u8]>>,
    complete: bool,
    /// Length of the row at the head, once it is known to be one.
    row: Option<usize>,
    /// That row's sort key; empty if it is not made yet.
    key: Vec<u8>,
    /// The sort key of the row before.
    before: Vec<u8>,
}

/// Whether a row stands after the one before it, as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    /// It does.
    Right,
    /// It does not: the server sorts in another way than was thought.
    Wrong,
}

impl Source {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.at == self.buffer.len() {
            self.buffer.clear();
            self.at = 0;
        } else if self.at >= self.buffer.len() / 2 {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Throws everything away.
    pub(super) fn forget(&mut self) {
        self.buffer = Vec::new();
        self.at = 0;
        self.row = None;
    }

    pub(super) fn buffered(&self) -> usize {
        self.buffer.len() - self.at
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// True if the frame at the head is there whole.
    pub(super) fn has_frame(&self) -> bool {
        matches!(whole_frame(self.rest()), Ok(Some(_)))
    }

    /// Length of the frame at the head, whether it is there whole or not; zero
    /// if not even its header is.
    pub(super) fn head_len(&self) -> usize {
        decode_header(self.rest()).ok().flatten().map_or(0, Header::frame_len)
    }

    /// The first ErrorResponse among what is there.
    pub(super) fn find_error(&self) -> Option<Box<[u8]>> {
        let mut rest = self.rest();
        while let Ok(Some((kind, len))) = whole_frame(rest) {
            if kind == tag::ERROR_RESPONSE {
                return rest.get(..len).map(Into::into);
            }
            rest = rest.get(len..)?;
        }
        None
    }

    // === shape ===

    pub(super) const fn is_described(&self) -> bool {
        self.description.is_some()
    }

    pub(super) fn description(&self) -> &[u8] {
        self.description.as_deref().unwrap_or_default()
    }

    /// True once its RowDescription is here.
    pub(super) fn describe(&mut self, mut notices: Option<&mut Vec<u8>>) -> Result<bool, Failure> {
        while let Some((kind, len)) = whole_frame(self.rest())? {
            let frame = self.rest().get(..len).unwrap_or_default();
            match kind {
                tag::ROW_DESCRIPTION => {
                    self.description = frame.get(HEADER_LEN..).map(Into::into);
                    self.at += len;
                    return Ok(true);
                }
                tag::ERROR_RESPONSE => return Err(Failure::Server(frame.into())),
                tag::NOTICE_RESPONSE => {
                    if let Some(out) = notices.as_mut() {
                        out.extend_from_slice(frame);
                    }
                }
                _ if is_passing(kind) => {}
                _ => return Err(Failure::Own(GatherError::Malformed)),
            }
            self.at += len;
        }
        Ok(false)
    }

    // === rows ===

    /// What comes next; notices are passed on or dropped on the way.
    pub(super) fn step(&mut self, mut notices: Option<&mut Vec<u8>>) -> Result<Step, Failure> {
        if self.row.is_some() {
            return Ok(Step::Row);
        }
        if self.complete {
            return Ok(Step::Complete);
        }
        while let Some((kind, len)) = whole_frame(self.rest())? {
            let frame = self.rest().get(..len).unwrap_or_default();
            match kind {
                tag::DATA_ROW => {
                    self.row = Some(len);
                    self.key.clear();
                    return Ok(Step::Row);
                }
                tag::COMMAND_COMPLETE | tag::PORTAL_SUSPENDED => {
                    self.at += len;
                    self.complete = true;
                    return Ok(Step::Complete);
                }
                tag::ERROR_RESPONSE => return Err(Failure::Server(frame.into())),
                tag::NOTICE_RESPONSE => {
                    if let Some(out) = notices.as_mut() {
                        out.extend_from_slice(frame);
                    }
                }
                _ if is_passing(kind) => {}
                _ => return Err(Failure::Own(GatherError::Malformed)),
            }
            self.at += len;
        }
        Ok(Step::Starved)
    }

    /// The row at the head, header included.
    pub(super) fn head(&self) -> &[u8] {
        self.row.and_then(|len| self.rest().get(..len)).unwrap_or_default()
    }

    /// The row at the head is done with.
    pub(super) fn pass_head(&mut self) {
        self.at += self.row.take().unwrap_or(0);
        std::mem::swap(&mut self.key, &mut self.before);
        self.key.clear();
    }

    pub(super) const fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Makes the sort key of the row at the head.
    pub(super) fn set_key<E>(
        &mut self,
        make: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Sorted, E> {
        let mut key = std::mem::take(&mut self.key);
        let made = make(self.head(), &mut key);
        self.key = key;
        made.map(|()| if self.key < self.before { Sorted::Wrong } else { Sorted::Right })
    }
}
