//! Where one message ends and the next begins.
//!
//! A frame is a tag byte, a big-endian length that counts itself but not the
//! tag, and the body. Nothing here looks into a body.
//!
//! Source: PostgreSQL manual, "Message Formats".

use super::error::FrameError;

/// Bytes before a body: the tag and the length.
pub const HEADER_LEN: usize = 5;

/// The longest body that PostgreSQL itself accepts or sends.
pub const BODY_LEN_MAX: u32 = 0x3FFF_FFFF;

/// The longest body accepted from a client that has not logged in yet.
pub const BODY_LEN_MAX_BEFORE_LOGIN: u32 = 64 * 1024;

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The message's tag; see [`super::tag`].
    pub tag: u8,
    /// Bytes of body after the header.
    pub body_len: usize,
}

impl Header {
    /// Bytes of the whole frame, header included.
    #[inline]
    pub const fn frame_len(self) -> usize {
        self.body_len.saturating_add(HEADER_LEN)
    }
}

/// A whole message at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message's tag.
    pub tag: u8,
    /// The body.
    pub body: &'a [u8],
    /// The frame as it came, header included.
    pub bytes: &'a [u8],
}

/// Reads one message header.
///
/// `buf` starts at a message boundary. `None` until five bytes are buffered.
///
/// # Errors
/// A length below 4, or a body above [`BODY_LEN_MAX`]. The stream can no
/// longer be framed, so the session must close.
#[inline]
pub fn decode_header(buf: &[u8]) -> Result<Option<Header>, FrameError> {
    decode_header_within(buf, BODY_LEN_MAX)
}

/// Reads one message header whose body may have at most `body_len_max` bytes.
///
/// `None` until five bytes are buffered.
///
/// # Errors
/// As [`decode_header`], with the given maximum.
#[inline]
pub fn decode_header_within(buf: &[u8], body_len_max: u32) -> Result<Option<Header>, FrameError> {
    let Some(&[tag, a, b, c, d]) = buf.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    match length.checked_sub(LENGTH_LEN) {
        Some(body_len) if body_len <= body_len_max => match usize::try_from(body_len) {
            Ok(body_len) => Ok(Some(Header { tag, body_len })),
            Err(_) => Err(FrameError::TooLong { tag, length, body_len_max }),
        },
        Some(_) => Err(FrameError::TooLong { tag, length, body_len_max }),
        None => Err(FrameError::TooShort { tag, length }),
    }
}

/// The message at the start of `buf`; `None` while it is not all there.
///
/// # Errors
/// As [`decode_header`].
#[inline]
pub fn decode(buf: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let Some(header) = decode_header(buf)? else { return Ok(None) };
    let frame = buf.get(..header.frame_len());
    Ok(frame.and_then(|bytes| {
        bytes.get(HEADER_LEN..).map(|body| Frame { tag: header.tag, body, bytes })
    }))
}

/// What the length counts besides the body.
const LENGTH_LEN: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_waits_for_five_bytes() {
        assert_eq!(decode_header(b""), Ok(None));
        assert_eq!(decode_header(b"Q\0\0\0"), Ok(None));
        assert_eq!(decode_header(b"Q\0\0\0\x04"), Ok(Some(Header { tag: b'Q', body_len: 0 })));
    }

    #[test]
    fn length_that_does_not_count_itself_is_refused() {
        assert_eq!(
            decode_header(b"Q\0\0\0\x03"),
            Err(FrameError::TooShort { tag: b'Q', length: 3 })
        );
    }

    #[test]
    fn negative_and_oversized_lengths_are_refused() {
        assert!(decode_header(b"Q\xFF\xFF\xFF\xFF").is_err());
        assert!(decode_header(b"Q\x40\0\0\x04").is_err());
        assert!(decode_header(b"Q\x40\0\0\x03").is_ok());
    }

    #[test]
    fn a_client_that_has_not_logged_in_sends_little() {
        let at_limit = [b'p', 0, 1, 0, 4];
        let above = [b'p', 0, 1, 0, 5];
        assert!(decode_header_within(&at_limit, BODY_LEN_MAX_BEFORE_LOGIN).is_ok());
        let error = decode_header_within(&above, BODY_LEN_MAX_BEFORE_LOGIN).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message 'p' has length 65541, more than the 65536 bytes allowed here"
        );
    }

    #[test]
    fn frame_is_cut_at_its_end() {
        let frame = decode(b"Q\0\0\0\x06ab1\0\0\0\x04").unwrap().unwrap();
        assert_eq!((frame.tag, frame.body), (b'Q', &b"ab"[..]));
        assert_eq!(frame.bytes.len(), 7);
        assert_eq!(decode(b"Q\0\0\0\x06a"), Ok(None));
    }
}
