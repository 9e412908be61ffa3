//! Messages as bytes, appended to a buffer that the caller sends.
//!
//! A function writes one whole message, or nothing and an error: what does not
//! fit is never cut. The exceptions are errors and notices of the router's own,
//! which must always reach the client: their texts are bounded instead.
//!
//! Source: PostgreSQL manual, "Message Formats".

mod backend;
mod frontend;

pub use backend::{
    Column, ErrorReport, auth_cleartext, auth_md5, auth_ok, auth_sasl, auth_sasl_continue,
    auth_sasl_final, backend_key_data, bind_complete, close_complete, command_complete,
    copy_in_response, copy_out_response, data_row, empty_query, error_response,
    negotiate_protocol_version, no_data, notice_response, parameter_description, parameter_status,
    parse_complete, portal_suspended, ready_for_query, row_description,
};
pub use frontend::{
    bind, bind_body_renamed, bind_prefix_renamed, bind_renamed, bind_unnamed, cancel_request,
    close, copy_data, copy_done, copy_fail, describe, execute, flush, gss_request, parse,
    parse_raw, parse_renamed, password, query, sasl_initial, sasl_response, ssl_request, startup,
    sync, terminate,
};

use super::error::EncodeError;
use super::frame::BODY_LEN_MAX;

/// The message being written; undone if it turns out not to fit.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn u16(&mut self, number: u16) {
        self.raw(&number.to_be_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.raw(&number.to_be_bytes());
    }

    fn i32(&mut self, number: i32) {
        self.raw(&number.to_be_bytes());
    }

    fn count(&mut self, part: &'static str, count: usize) -> Result<(), EncodeError> {
        self.u16(u16::try_from(count).map_err(|_| EncodeError::TooLong { part })?);
        Ok(())
    }

    fn text(&mut self, part: &'static str, text: &[u8]) -> Result<(), EncodeError> {
        if memchr::memchr(0, text).is_some() {
            return Err(EncodeError::NulByte { part });
        }
        self.raw(text);
        self.out.push(0);
        Ok(())
    }

    fn value(&mut self, part: &'static str, value: Option<&[u8]>) -> Result<(), EncodeError> {
        match value {
            None => self.i32(-1),
            Some(bytes) => {
                let length = i32::try_from(bytes.len());
                self.i32(length.map_err(|_| EncodeError::TooLong { part })?);
                self.raw(bytes);
            }
        }
        Ok(())
    }
}

/// Writes a message without parts.
fn bare(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}

/// Writes a message that `body` fills; takes everything back if it fails.
fn message(
    out: &mut Vec<u8>,
    tag: u8,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(tag);
    let written = counted(out, body);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Writes a length that counts itself, and what it counts.
fn counted(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let written = body(&mut Writer { out }).and_then(|()| {
        let length = length_of(out.len().saturating_sub(start).saturating_sub(4))?;
        if let Some(place) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut()) {
            *place = length;
        }
        Ok(())
    });
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// The length field of a message whose body has `body_len` bytes.
fn length_of(body_len: usize) -> Result<[u8; 4], EncodeError> {
    u32::try_from(body_len)
        .ok()
        .filter(|len| *len <= BODY_LEN_MAX)
        .and_then(|len| len.checked_add(4))
        .map(u32::to_be_bytes)
        .ok_or(EncodeError::TooLong { part: "message" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let mut out = b"before".to_vec();
        assert_eq!(query(&mut out, b"a\0b"), Err(EncodeError::NulByte { part: "query" }));
        let values = vec![None; 70_000];
        assert_eq!(
            data_row(&mut out, values.into_iter()),
            Err(EncodeError::TooLong { part: "row" })
        );
        assert_eq!(out, b"before");
    }

    #[test]
    fn length_counts_itself_and_not_the_tag() {
        let mut out = Vec::new();
        query(&mut out, b"ab").unwrap();
        sync(&mut out);
        assert_eq!(out, b"Q\0\0\0\x07ab\0S\0\0\0\x04");
    }

    #[test]
    fn length_above_the_maximum_is_an_error() {
        assert_eq!(length_of(0x3FFF_FFFF), Ok([0x40, 0, 0, 3]));
        assert!(length_of(0x4000_0000).is_err());
    }
}
