//! What the router says to a client itself.

use super::{Writer, bare, message};
use crate::protocol::backend::TxStatus;
use crate::protocol::error::EncodeError;
use crate::protocol::startup::{CANCEL_KEY_LEN_MAX, CANCEL_KEY_LEN_MIN, ProtocolVersion};
use crate::protocol::tag::backend as tag;
use crate::types::{Format, Oid, SqlState};

/// An error or a notice of the router's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorReport<'a> {
    /// `ERROR`, `FATAL`, `WARNING`, …
    pub severity: &'a str,
    /// The SQLSTATE.
    pub state: SqlState,
    /// The primary message.
    pub message: &'a str,
    /// More about it.
    pub detail: Option<&'a str>,
    /// A way out.
    pub hint: Option<&'a str>,
    /// Character in the statement, counted from one.
    pub position: Option<u32>,
    /// The server's function that would say it: drivers know a few errors by it,
    /// as texts are translated.
    pub routine: Option<&'a str>,
}

impl<'a> ErrorReport<'a> {
    /// A report that fails the statement, with no more than a message.
    pub const fn error(state: SqlState, message: &'a str) -> Self {
        Self::of("ERROR", state, message)
    }

    /// A report that ends the session, with no more than a message.
    pub const fn fatal(state: SqlState, message: &'a str) -> Self {
        Self::of("FATAL", state, message)
    }

    const fn of(severity: &'a str, state: SqlState, message: &'a str) -> Self {
        Self { severity, state, message, detail: None, hint: None, position: None, routine: None }
    }

    /// The report with a way out, if there is one.
    #[must_use]
    pub const fn with_hint(mut self, hint: Option<&'a str>) -> Self {
        self.hint = hint;
        self
    }
}

/// ErrorResponse. Texts are cut after 8 KiB each, and zero bytes left out, so
/// that an error can always be said.
pub fn error_response(out: &mut Vec<u8>, report: &ErrorReport<'_>) {
    write_report(out, tag::ERROR_RESPONSE, report);
}

/// NoticeResponse; bounded like [`error_response`].
pub fn notice_response(out: &mut Vec<u8>, report: &ErrorReport<'_>) {
    write_report(out, tag::NOTICE_RESPONSE, report);
}

fn write_report(out: &mut Vec<u8>, tag: u8, report: &ErrorReport<'_>) {
    let position = report.position.map(|at| at.to_string());
    let fields = [
        (b'S', Some(report.severity)),
        (b'V', Some(report.severity)),
        (b'C', Some(report.state.as_str())),
        (b'M', Some(report.message)),
        (b'D', report.detail),
        (b'H', report.hint),
        (b'P', position.as_deref()),
        (b'R', report.routine),
    ];
    bounded(out, tag, |w| {
        for (code, text) in fields {
            if let Some(text) = text {
                w.raw(&[code]);
                bounded_text(w, text);
            }
        }
        w.raw(&[0]);
    });
}

/// Writes a message whose parts are bounded far below what a message holds.
fn bounded(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Writer<'_>)) {
    let written = message(out, tag, |w| {
        body(w);
        Ok(())
    });
    debug_assert!(written.is_ok(), "bounded parts fit a message");
}

fn bounded_text(w: &mut Writer<'_>, text: &str) {
    let mut left = TEXT_LEN_MAX;
    for c in text.chars().filter(|c| *c != '\0') {
        let mut bytes = [0; 4];
        let encoded = c.encode_utf8(&mut bytes).as_bytes();
        match left.checked_sub(encoded.len()) {
            Some(rest) => left = rest,
            None => break,
        }
        w.raw(encoded);
    }
    w.raw(&[0]);
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: TxStatus) {
    out.extend_from_slice(&[tag::READY_FOR_QUERY, 0, 0, 0, 5, status.code()]);
}

/// CommandComplete with a tag of the router's own; bounded like
/// [`error_response`].
pub fn command_complete(out: &mut Vec<u8>, command: &str) {
    bounded(out, tag::COMMAND_COMPLETE, |w| bounded_text(w, command));
}

/// EmptyQueryResponse.
pub fn empty_query(out: &mut Vec<u8>) {
    bare(out, tag::EMPTY_QUERY_RESPONSE);
}

/// ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    bare(out, tag::PARSE_COMPLETE);
}

/// BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    bare(out, tag::BIND_COMPLETE);
}

/// CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    bare(out, tag::CLOSE_COMPLETE);
}

/// NoData.
pub fn no_data(out: &mut Vec<u8>) {
    bare(out, tag::NO_DATA);
}

/// PortalSuspended.
pub fn portal_suspended(out: &mut Vec<u8>) {
    bare(out, tag::PORTAL_SUSPENDED);
}

/// ParameterStatus.
///
/// # Errors
/// A zero byte in either.
pub fn parameter_status(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::PARAMETER_STATUS, |w| {
        w.text("setting", name)?;
        w.text("value", value)
    })
}

/// BackendKeyData. Protocol 3.0 wants a key of exactly 4 bytes.
///
/// # Errors
/// A key outside 4 to 256 bytes.
pub fn backend_key_data(out: &mut Vec<u8>, pid: u32, key: &[u8]) -> Result<(), EncodeError> {
    if !(CANCEL_KEY_LEN_MIN..=CANCEL_KEY_LEN_MAX).contains(&key.len()) {
        return Err(EncodeError::TooLong { part: "cancel key" });
    }
    message(out, tag::BACKEND_KEY_DATA, |w| {
        w.u32(pid);
        w.raw(key);
        Ok(())
    })
}

/// A column of rows that the router makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    /// The column's name.
    pub name: &'a str,
    /// Its type.
    pub oid: Oid,
    /// The type's length; negative if it varies.
    pub len: i16,
    /// Format of the values.
    pub format: Format,
}

impl<'a> Column<'a> {
    /// A column of type text.
    pub const fn text(name: &'a str) -> Self {
        Self { name, oid: Oid::new(25), len: -1, format: Format::Text }
    }

    /// A column of type int8, its values in text form.
    pub const fn int8(name: &'a str) -> Self {
        Self { name, oid: Oid::new(20), len: 8, format: Format::Text }
    }
}

/// RowDescription of columns that belong to no table.
///
/// # Errors
/// A zero byte in a name, or more than 65,535 columns.
pub fn row_description(out: &mut Vec<u8>, columns: &[Column<'_>]) -> Result<(), EncodeError> {
    message(out, tag::ROW_DESCRIPTION, |w| {
        w.count("columns", columns.len())?;
        for column in columns {
            w.text("column name", column.name.as_bytes())?;
            w.u32(0);
            w.u16(0);
            w.u32(column.oid.number());
            w.raw(&column.len.to_be_bytes());
            w.i32(-1);
            w.u16(match column.format {
                Format::Text => 0,
                Format::Binary => 1,
            });
        }
        Ok(())
    })
}

/// DataRow, `None` for NULL.
///
/// # Errors
/// More than 65,535 values, or a row too long for a message.
pub fn data_row<'a>(
    out: &mut Vec<u8>,
    values: impl IntoIterator<Item = Option<&'a [u8]>>,
) -> Result<(), EncodeError> {
    message(out, tag::DATA_ROW, |w| {
        let place = w.out.len();
        w.u16(0);
        let mut count = 0_u16;
        for value in values {
            count = count.checked_add(1).ok_or(EncodeError::TooLong { part: "row" })?;
            w.value("column value", value)?;
        }
        if let Some(written) = w.out.get_mut(place..).and_then(|rest| rest.first_chunk_mut()) {
            *written = count.to_be_bytes();
        }
        Ok(())
    })
}

/// ParameterDescription.
///
/// # Errors
/// More than 65,535 types.
pub fn parameter_description(out: &mut Vec<u8>, types: &[Oid]) -> Result<(), EncodeError> {
    message(out, tag::PARAMETER_DESCRIPTION, |w| {
        w.count("parameter types", types.len())?;
        types.iter().for_each(|oid| w.u32(oid.number()));
        Ok(())
    })
}

/// CopyInResponse, every column in the format of the whole.
pub fn copy_in_response(out: &mut Vec<u8>, format: Format, columns: u16) {
    copy_response(out, tag::COPY_IN_RESPONSE, format, columns);
}

/// CopyOutResponse, every column in the format of the whole.
pub fn copy_out_response(out: &mut Vec<u8>, format: Format, columns: u16) {
    copy_response(out, tag::COPY_OUT_RESPONSE, format, columns);
}

fn copy_response(out: &mut Vec<u8>, tag: u8, format: Format, columns: u16) {
    let code: u8 = match format {
        Format::Text => 0,
        Format::Binary => 1,
    };
    bounded(out, tag, |w| {
        w.raw(&[code]);
        w.u16(columns);
        for _ in 0..columns {
            w.u16(u16::from(code));
        }
    });
}

/// AuthenticationOk.
pub fn auth_ok(out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag::AUTHENTICATION, 0, 0, 0, 8, 0, 0, 0, 0]);
}

/// AuthenticationCleartextPassword.
pub fn auth_cleartext(out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag::AUTHENTICATION, 0, 0, 0, 8, 0, 0, 0, 3]);
}

/// AuthenticationMD5Password.
pub fn auth_md5(out: &mut Vec<u8>, salt: [u8; 4]) {
    out.extend_from_slice(&[tag::AUTHENTICATION, 0, 0, 0, 12, 0, 0, 0, 5]);
    out.extend_from_slice(&salt);
}

/// AuthenticationSASL with the mechanisms offered.
///
/// # Errors
/// A zero byte in a name. An empty name would end the list and is left out.
pub fn auth_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) -> Result<(), EncodeError> {
    message(out, tag::AUTHENTICATION, |w| {
        w.u32(10);
        for name in mechanisms.iter().filter(|name| !name.is_empty()) {
            w.text("mechanism", name.as_bytes())?;
        }
        w.raw(&[0]);
        Ok(())
    })
}

/// AuthenticationSASLContinue.
///
/// # Errors
/// Data too long for a message.
pub fn auth_sasl_continue(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    auth_data(out, 11, data)
}

/// AuthenticationSASLFinal.
///
/// # Errors
/// Data too long for a message.
pub fn auth_sasl_final(out: &mut Vec<u8>, data: &[u8]) -> Result<(), EncodeError> {
    auth_data(out, 12, data)
}

fn auth_data(out: &mut Vec<u8>, code: u32, data: &[u8]) -> Result<(), EncodeError> {
    message(out, tag::AUTHENTICATION, |w| {
        w.u32(code);
        w.raw(data);
        Ok(())
    })
}

/// NegotiateProtocolVersion: what will be spoken, and the options that won't.
///
/// The version is sent whole, major and minor, as PostgreSQL does and libpq
/// expects; the manual's words for the field are narrower.
///
/// # Errors
/// A zero byte in an option, or a message that becomes too long.
pub fn negotiate_protocol_version(
    out: &mut Vec<u8>,
    spoken: ProtocolVersion,
    unknown_options: &[&[u8]],
) -> Result<(), EncodeError> {
    message(out, tag::NEGOTIATE_PROTOCOL_VERSION, |w| {
        w.u16(spoken.major);
        w.u16(spoken.minor);
        let count = u32::try_from(unknown_options.len());
        w.u32(count.map_err(|_| EncodeError::TooLong { part: "protocol options" })?);
        unknown_options.iter().try_for_each(|option| w.text("protocol option", option))
    })
}

/// The longest text of an error or a notice, in bytes.
const TEXT_LEN_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::backend::ErrorFields;
    use crate::protocol::frame;

    #[test]
    fn an_error_can_always_be_said() {
        let long = "ä\0".repeat(20_000);
        let mut out = Vec::new();
        let state = SqlState::new("08P01");
        error_response(&mut out, &ErrorReport::fatal(state, &long).with_hint(Some("wait")));
        let frame = frame::decode(&out).unwrap().unwrap();
        let fields = ErrorFields::decode(frame.body).unwrap();
        assert_eq!(fields.message(), "ä".repeat(TEXT_LEN_MAX / 2).as_bytes());
        assert_eq!(fields.field(b'H'), Some(&b"wait"[..]));
        assert_eq!(fields.code(), Some(state));
    }

    #[test]
    fn position_is_a_field() {
        let mut out = Vec::new();
        let report = ErrorReport {
            position: Some(12),
            detail: Some("more"),
            ..ErrorReport::error(SqlState::new("42601"), "no")
        };
        notice_response(&mut out, &report);
        let frame = frame::decode(&out).unwrap().unwrap();
        assert_eq!(frame.tag, tag::NOTICE_RESPONSE);
        let fields = ErrorFields::decode(frame.body).unwrap();
        assert_eq!(fields.field(b'P'), Some(&b"12"[..]));
        assert_eq!(fields.field(b'D'), Some(&b"more"[..]));
    }
}
