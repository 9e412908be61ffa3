//! What the router says to a backend.

use std::ops::Range;

use super::{Writer, bare, counted, length_of, message};
use crate::protocol::error::EncodeError;
use crate::protocol::frame::HEADER_LEN;
use crate::protocol::frontend::{Bind, BindPrefix, Parse, Target};
use crate::protocol::startup::{
    CANCEL_KEY_LEN_MAX, CANCEL_KEY_LEN_MIN, CANCEL_MINOR, CODE_MAJOR, GSS_MINOR, SSL_MINOR,
};
use crate::protocol::tag::frontend as tag;
use crate::types::{Format, Oid};

/// Query.
///
/// # Errors
/// A zero byte in `text`.
pub fn query(out: &mut Vec<u8>, text: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::QUERY, |w| w.text("query", text))
}

/// Parse of `text` as the statement `name`, which is unnamed if empty.
///
/// # Errors
/// A zero byte in a text, or more than 65,535 types.
pub fn parse(
    out: &mut Vec<u8>,
    name: &[u8],
    text: &[u8],
    types: &[Oid],
) -> Result<(), EncodeError> {
    message(out, tag::PARSE, |w| {
        w.text("statement name", name)?;
        w.text("query", text)?;
        w.count("parameter types", types.len())?;
        types.iter().for_each(|oid| w.u32(oid.number()));
        Ok(())
    })
}

/// The client's own Parse under another statement name.
///
/// # Errors
/// A zero byte in `name`, or a message that becomes too long.
pub fn parse_renamed(out: &mut Vec<u8>, parse: &Parse<'_>, name: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::PARSE, |w| {
        w.text("statement name", name)?;
        w.raw(parse.query);
        w.raw(&[0]);
        w.count("parameter types", parse.param_types().len())?;
        w.raw(parse.raw_types());
        Ok(())
    })
}

/// Parse with the parameter types as another Parse carried them.
///
/// # Errors
/// A zero byte in `name` or `text`, types that are not whole, or a message
/// that becomes too long.
pub fn parse_raw(
    out: &mut Vec<u8>,
    name: &[u8],
    text: &[u8],
    raw_types: &[u8],
) -> Result<(), EncodeError> {
    message(out, tag::PARSE, |w| {
        w.text("statement name", name)?;
        w.text("query", text)?;
        let (types, rest) = raw_types.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(EncodeError::TooLong { part: "parameter types" });
        }
        w.count("parameter types", types.len())?;
        w.raw(raw_types);
        Ok(())
    })
}

/// Bind of `values` to `statement`, with all of them and all results in one
/// format each.
///
/// # Errors
/// A zero byte in a name, more than 65,535 values, or values too long.
pub fn bind(
    out: &mut Vec<u8>,
    portal: &[u8],
    statement: &[u8],
    values: &[(Format, Option<&[u8]>)],
    results: Format,
) -> Result<(), EncodeError> {
    message(out, tag::BIND, |w| {
        w.text("portal name", portal)?;
        w.text("statement name", statement)?;
        w.count("parameters", values.len())?;
        values.iter().for_each(|(format, _)| w.u16(format_code(*format)));
        w.count("parameters", values.len())?;
        for (_, value) in values {
            w.value("parameter", *value)?;
        }
        w.u16(1);
        w.u16(format_code(results));
        Ok(())
    })
}

/// The client's own Bind for another statement; every other byte is copied.
///
/// # Errors
/// A zero byte in `statement`, or a message that becomes too long.
pub fn bind_renamed(
    out: &mut Vec<u8>,
    bind: &Bind<'_>,
    statement: &[u8],
) -> Result<(), EncodeError> {
    if statement.contains(&0) {
        return Err(EncodeError::NulByte { part: "statement name" });
    }
    bind_body_renamed(out, bind.body(), bind.statement_span(), statement)
}

/// The same from the body of a Bind that was decoded before, in which the
/// statement's name stands at `span`, for one of the router's own names: it has
/// no zero byte.
///
/// # Errors
/// A message that becomes too long.
pub fn bind_body_renamed(
    out: &mut Vec<u8>,
    body: &[u8],
    span: Range<usize>,
    statement: &[u8],
) -> Result<(), EncodeError> {
    debug_assert!(!statement.contains(&0), "the router's own names hold no zero byte");
    let renamed_len = body
        .len()
        .checked_sub(span.len())
        .and_then(|len| len.checked_add(statement.len()))
        .ok_or(EncodeError::TooLong { part: "message" })?;
    let [a, b, c, d] = length_of(renamed_len)?;
    out.reserve(renamed_len.saturating_add(HEADER_LEN));
    let mut w = Writer { out };
    w.raw(&[tag::BIND, a, b, c, d]);
    w.raw(body.get(..span.start).unwrap_or_default());
    w.raw(statement);
    w.raw(body.get(span.end..).unwrap_or_default());
    Ok(())
}

/// Bind of the unnamed statement to the unnamed portal, with `values` (formats
/// and parameters) and `results` (result formats) as they stand in the message.
///
/// # Errors
/// A message that becomes too long.
pub fn bind_unnamed(out: &mut Vec<u8>, values: &[u8], results: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::BIND, |w| {
        w.raw(&[0, 0]);
        w.raw(values);
        w.raw(results);
        Ok(())
    })
}

/// The beginning of a Bind whose body has `body_len` bytes, of which `prefix`
/// was read, for another statement. The rest of the body must follow as it is.
///
/// # Errors
/// A zero byte in `statement`, or a message that becomes too long.
pub fn bind_prefix_renamed(
    out: &mut Vec<u8>,
    prefix: &BindPrefix<'_>,
    body_len: usize,
    statement: &[u8],
) -> Result<(), EncodeError> {
    if memchr::memchr(0, statement).is_some() {
        return Err(EncodeError::NulByte { part: "statement name" });
    }
    let renamed_len = body_len
        .checked_sub(prefix.statement().len())
        .and_then(|len| len.checked_add(statement.len()))
        .ok_or(EncodeError::TooLong { part: "message" })?;
    let length = length_of(renamed_len)?;
    let span = prefix.statement_span();
    let mut w = Writer { out };
    w.raw(&[tag::BIND]);
    w.raw(&length);
    w.raw(prefix.prefix().get(..span.start).unwrap_or_default());
    w.raw(statement);
    w.raw(prefix.prefix().get(span.end..).unwrap_or_default());
    Ok(())
}

/// Describe of a statement or a portal.
///
/// # Errors
/// A zero byte in `name`.
pub fn describe(out: &mut Vec<u8>, kind: Target, name: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::DESCRIBE, |w| named(w, kind, name))
}

/// Close of a statement or a portal.
///
/// # Errors
/// A zero byte in `name`.
pub fn close(out: &mut Vec<u8>, kind: Target, name: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::CLOSE, |w| named(w, kind, name))
}

fn named(w: &mut Writer<'_>, kind: Target, name: &[u8]) -> Result<(), EncodeError> {
    w.raw(&[kind.code()]);
    w.text("name", name)
}

/// Execute of `portal`, with no row limit if `max_rows` is zero.
///
/// # Errors
/// A zero byte in `portal`.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], max_rows: i32) -> Result<(), EncodeError> {
    message(out, tag::EXECUTE, |w| {
        w.text("portal name", portal)?;
        w.i32(max_rows);
        Ok(())
    })
}

/// Sync.
pub fn sync(out: &mut Vec<u8>) {
    bare(out, tag::SYNC);
}

/// Flush.
pub fn flush(out: &mut Vec<u8>) {
    bare(out, tag::FLUSH);
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    bare(out, tag::TERMINATE);
}

/// CopyData.
///
/// # Errors
/// More than a message holds.
pub fn copy_data(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::COPY_DATA, |w| {
        w.raw(data);
        Ok(())
    })
}

/// CopyDone.
pub fn copy_done(out: &mut Vec<u8>) {
    bare(out, tag::COPY_DONE);
}

/// CopyFail with its reason.
///
/// # Errors
/// A zero byte in `reason`.
pub fn copy_fail(out: &mut Vec<u8>, reason: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::COPY_FAIL, |w| w.text("reason", reason))
}

/// PasswordMessage: the password, or its MD5 digest.
///
/// # Errors
/// A zero byte in `password`.
pub fn password(out: &mut Vec<u8>, password: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::PASSWORD, |w| w.text("password", password))
}

/// SASLInitialResponse.
///
/// # Errors
/// A zero byte in `mechanism`, or data too long for a message.
pub fn sasl_initial(
    out: &mut Vec<u8>,
    mechanism: &[u8],
    data: Option<&[u8]>,
) -> Result<(), EncodeError> {
    message(out, tag::PASSWORD, |w| {
        w.text("mechanism", mechanism)?;
        w.value("response", data)
    })
}

/// SASLResponse.
///
/// # Errors
/// Data too long for a message.
pub fn sasl_response(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::PASSWORD, |w| {
        w.raw(data);
        Ok(())
    })
}

/// StartupMessage of protocol 3.`minor`.
///
/// # Errors
/// A zero byte. A parameter without a name would end the list and is left out.
pub fn startup<'a>(
    out: &mut Vec<u8>,
    params: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    minor: u16,
) -> Result<(), EncodeError> {
    counted(out, |w| {
        w.u16(3);
        w.u16(minor);
        for (name, value) in params.into_iter().filter(|(name, _)| !name.is_empty()) {
            w.text("parameter name", name)?;
            w.text("parameter value", value)?;
        }
        w.raw(&[0]);
        Ok(())
    })
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    request(out, SSL_MINOR);
}

/// GSSENCRequest.
pub fn gss_request(out: &mut Vec<u8>) {
    request(out, GSS_MINOR);
}

fn request(out: &mut Vec<u8>, minor: u16) {
    let mut w = Writer { out };
    w.u32(8);
    w.u16(CODE_MAJOR);
    w.u16(minor);
}

/// CancelRequest with the key that BackendKeyData gave.
///
/// # Errors
/// A key outside 4 to 256 bytes.
pub fn cancel_request(out: &mut Vec<u8>, pid: u32, key: &[u8]) -> Result<(), EncodeError> {
    if !(CANCEL_KEY_LEN_MIN..=CANCEL_KEY_LEN_MAX).contains(&key.len()) {
        return Err(EncodeError::TooLong { part: "cancel key" });
    }
    counted(out, |w| {
        w.u16(CODE_MAJOR);
        w.u16(CANCEL_MINOR);
        w.u32(pid);
        w.raw(key);
        Ok(())
    })
}

const fn format_code(format: Format) -> u16 {
    match format {
        Format::Text => 0,
        Format::Binary => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    fn body(out: &[u8]) -> &[u8] {
        let frame = frame::decode(out).unwrap().unwrap();
        assert_eq!(frame.bytes.len(), out.len(), "one whole frame");
        frame.body
    }

    #[test]
    fn renamed_bind_differs_in_the_name_only() {
        let mut original = Vec::new();
        let values = [(Format::Text, Some(&b"7"[..])), (Format::Binary, None)];
        bind(&mut original, b"p", b"theirs", &values, Format::Binary).unwrap();
        let mut expected = Vec::new();
        bind(&mut expected, b"p", b"kw_12", &values, Format::Binary).unwrap();
        let mut renamed = Vec::new();
        let view = Bind::decode(body(&original)).unwrap();
        bind_renamed(&mut renamed, &view, b"kw_12").unwrap();
        assert_eq!(renamed, expected);
    }

    #[test]
    fn renamed_prefix_and_the_rest_are_the_renamed_bind() {
        let mut original = Vec::new();
        let values = [(Format::Text, Some(&b"7"[..])), (Format::Text, Some(&b"long"[..]))];
        bind(&mut original, b"", b"s", &values, Format::Text).unwrap();
        let view = Bind::decode(body(&original)).unwrap();
        let mut expected = Vec::new();
        bind_renamed(&mut expected, &view, b"longer name").unwrap();
        let whole = body(&original);
        for end in 15..=whole.len() {
            let prefix = Bind::decode_prefix(&whole[..end]).unwrap().unwrap();
            let mut out = Vec::new();
            bind_prefix_renamed(&mut out, &prefix, whole.len(), b"longer name").unwrap();
            out.extend_from_slice(&whole[end..]);
            assert_eq!(out, expected, "cut at {end}");
        }
    }

    #[test]
    fn renamed_parse_differs_in_the_name_only() {
        let (mut original, mut expected, mut renamed) = (Vec::new(), Vec::new(), Vec::new());
        parse(&mut original, b"", b"select $1", &[Oid::new(23)]).unwrap();
        parse(&mut expected, b"kw_1", b"select $1", &[Oid::new(23)]).unwrap();
        parse_renamed(&mut renamed, &Parse::decode(body(&original)).unwrap(), b"kw_1").unwrap();
        assert_eq!(renamed, expected);
    }

    #[test]
    fn cancel_key_outside_its_bounds_is_not_sent() {
        let mut out = Vec::new();
        assert!(cancel_request(&mut out, 1, b"abc").is_err());
        assert!(cancel_request(&mut out, 1, &[0; 257]).is_err());
        assert!(out.is_empty());
    }
}
