//! A cursor over a message's body, shared by the decoders.

use super::error::{DecodeError, Fault};

/// The bytes not yet read, and the message they belong to.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    part: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8], part: &'static str) -> Self {
        Self { rest: body, part }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn fault(&self, fault: Fault) -> DecodeError {
        DecodeError::new(self.part, fault)
    }

    #[inline]
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.rest.split_at_checked(count).ok_or_else(|| self.fault(Fault::Truncated))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.fault(Fault::Truncated))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// A text up to its zero byte, which is read too.
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a [u8], DecodeError> {
        // Names are empty or short as a rule: a look costs less than a search.
        let near = self.rest.first_chunk().and_then(|bytes| first_zero(*bytes));
        let end = match near {
            Some(end) => end,
            None => memchr::memchr(0, self.rest).ok_or_else(|| self.fault(Fault::MissingNul))?,
        };
        let (text, rest) =
            self.rest.split_at_checked(end).ok_or_else(|| self.fault(Fault::MissingNul))?;
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// A length of -1, which is NULL, or of the bytes that follow it.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, DecodeError> {
        match self.i32()? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => self.bytes(length).map(Some),
                Err(_) => Err(self.fault(Fault::InvalidLength)),
            },
        }
    }

    /// `count` numbers of `size` bytes each, unread.
    pub(super) fn numbers(&mut self, count: u16, size: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(count).checked_mul(size);
        self.bytes(length.ok_or_else(|| self.fault(Fault::InvalidLength))?)
    }

    #[inline]
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.fault(Fault::TrailingBytes)) }
    }
}

/// The place of the first zero among eight bytes.
#[inline]
fn first_zero(bytes: [u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(bytes);
    // Subtracting borrows into a byte's top bit only if it was zero; what a
    // borrow carries further lies above the first one.
    let zeros = word.wrapping_sub(ONES) & !word & (ONES << 7);
    (zeros != 0).then(|| usize::try_from(zeros.trailing_zeros() / 8).unwrap_or(0))
}

/// Whether any byte is zero.
#[inline]
fn has_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let (words, tail) = rest.as_chunks::<8>();
    // Without an early end in a block, which lets it be one comparison.
    let block = |block: &[u8; 32]| block.iter().fold(false, |found, byte| found | (*byte == 0));
    blocks.iter().any(block)
        || words.iter().any(|word| first_zero(*word).is_some())
        || tail.contains(&0)
}

/// A one in each byte.
const ONES: u64 = u64::from_ne_bytes([1; 8]);

/// A body that is one text and its zero byte.
#[inline]
pub(super) fn only_text<'a>(body: &'a [u8], part: &'static str) -> Result<&'a [u8], DecodeError> {
    if let Some((0, text)) = body.split_last()
        && !has_zero(text)
    {
        return Ok(text);
    }
    let mut reader = Reader::new(body, part);
    let text = reader.text()?;
    reader.end()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_is_found_wherever_it_stands() {
        for length in 0..80 {
            let mut bytes = vec![0x80; length];
            assert!(!has_zero(&bytes));
            for place in 0..length {
                bytes[place] = 0;
                assert!(has_zero(&bytes), "{place} of {length}");
                bytes[place] = 1;
            }
        }
        assert_eq!(only_text(b"a\0", "Query").ok(), Some(&b"a"[..]));
        assert!(only_text(b"a\0b\0", "Query").is_err());
        assert!(only_text(b"a", "Query").is_err());
    }

    #[test]
    fn the_first_zero_is_found_wherever_it_stands() {
        assert_eq!(first_zero([1, 128, 255, 1, 128, 255, 1, 1]), None);
        for place in 0..8 {
            let mut bytes = [0; 8];
            bytes.iter_mut().take(place).for_each(|byte| *byte = 1);
            assert_eq!(first_zero(bytes), Some(place));
        }
    }
}
