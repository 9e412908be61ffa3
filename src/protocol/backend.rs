//! Views of a backend's messages, borrowed from complete bodies.
//!
//! A backend is a peer like any other: what it sends is checked in full before
//! a view exists, so that iterating over a view can't fail.
//!
//! Source: PostgreSQL manual, "Message Formats".

use std::fmt;

use super::error::{DecodeError, Fault};
use super::read::{Reader, only_text};
use super::startup::{CANCEL_KEY_LEN_MAX, CANCEL_KEY_LEN_MIN, ProtocolVersion};
use crate::types::{Format, Oid, SqlState};

/// Transaction status, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TxStatus {
    /// Outside a transaction.
    Idle,
    /// In a transaction.
    InTransaction,
    /// In a transaction that failed; only its end is accepted.
    Failed,
}

impl TxStatus {
    /// Reads a ReadyForQuery's body.
    ///
    /// # Errors
    /// A body that is not one byte, or a status that the protocol does not
    /// name: what the backend is in can't be known, so it must be closed.
    #[inline]
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        match body {
            [b'I'] => Ok(Self::Idle),
            [b'T'] => Ok(Self::InTransaction),
            [b'E'] => Ok(Self::Failed),
            [_] => Err(DecodeError::new("ReadyForQuery", Fault::UnknownCode)),
            [] => Err(DecodeError::new("ReadyForQuery", Fault::Truncated)),
            [_, _, ..] => Err(DecodeError::new("ReadyForQuery", Fault::TrailingBytes)),
        }
    }

    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// ErrorResponse and NoticeResponse: fields by their code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a>(&'a [u8]);

impl<'a> ErrorFields<'a> {
    /// Reads an ErrorResponse's or a NoticeResponse's body.
    ///
    /// # Errors
    /// A field or the list without its end.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "ErrorResponse");
        while reader.u8()? != 0 {
            reader.text()?;
        }
        reader.end()?;
        Ok(Self(body))
    }

    /// Every field: its code and its text.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.0, "ErrorResponse");
        std::iter::from_fn(move || {
            let code = reader.u8().ok().filter(|code| *code != 0)?;
            Some((code, reader.text().ok()?))
        })
    }

    /// The first field with this code.
    pub fn field(&self, code: u8) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == code).map(|(_, text)| text)
    }

    /// The SQLSTATE; `None` if there is none, or none of the right form.
    pub fn code(&self) -> Option<SqlState> {
        self.field(b'C').and_then(SqlState::from_bytes)
    }

    /// The primary message; empty if there is none.
    pub fn message(&self) -> &'a [u8] {
        self.field(b'M').unwrap_or_default()
    }

    /// The severity, not localised where the server says it; empty if there
    /// is none.
    pub fn severity(&self) -> &'a [u8] {
        self.field(b'V').or_else(|| self.field(b'S')).unwrap_or_default()
    }
}

/// CommandComplete: the command's tag, such as `INSERT 0 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandComplete<'a>(pub &'a [u8]);

impl<'a> CommandComplete<'a> {
    /// Reads a CommandComplete's body.
    ///
    /// # Errors
    /// A body that is not one terminated text.
    #[inline]
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        only_text(body, "CommandComplete").map(Self)
    }
}

/// ParameterStatus: a setting that the backend reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The setting's name.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Reads a ParameterStatus's body.
    ///
    /// # Errors
    /// A body that is not two terminated texts.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "ParameterStatus");
        let name = reader.text()?;
        let value = reader.text()?;
        reader.end()?;
        Ok(Self { name, value })
    }
}

/// BackendKeyData: what a CancelRequest must hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BackendKeyData<'a> {
    /// The backend's process id.
    pub pid: u32,
    /// The secret: 4 bytes in protocol 3.0, 4 to 256 in 3.2.
    pub key: &'a [u8],
}

impl<'a> BackendKeyData<'a> {
    /// Reads a BackendKeyData's body.
    ///
    /// # Errors
    /// A body without a process id, or a key outside 4 to 256 bytes.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "BackendKeyData");
        let pid = reader.u32()?;
        let key = reader.rest();
        if !(CANCEL_KEY_LEN_MIN..=CANCEL_KEY_LEN_MAX).contains(&key.len()) {
            return Err(reader.fault(Fault::InvalidLength));
        }
        Ok(Self { pid, key })
    }
}

impl fmt::Debug for BackendKeyData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackendKeyData {{ pid: {}, key: redacted }}", self.pid)
    }
}

/// The Authentication messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// The client is in.
    Ok,
    /// Wants the password as it is.
    Cleartext,
    /// Wants the password's MD5 digest.
    Md5 {
        /// What the digest is salted with.
        salt: [u8; 4],
    },
    /// Wants one of these mechanisms.
    Sasl {
        /// The server's mechanisms.
        mechanisms: Mechanisms<'a>,
    },
    /// The mechanism's next challenge.
    SaslContinue(&'a [u8]),
    /// The mechanism's outcome.
    SaslFinal(&'a [u8]),
    /// A method that the router does not speak, by its code.
    Other(u32),
}

impl<'a> Authentication<'a> {
    /// Reads an Authentication message's body.
    ///
    /// # Errors
    /// A body of another form than its code says.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "Authentication");
        match reader.u32()? {
            0 => reader.end().map(|()| Self::Ok),
            3 => reader.end().map(|()| Self::Cleartext),
            5 => {
                let salt = reader.array()?;
                reader.end().map(|()| Self::Md5 { salt })
            }
            10 => {
                let list = reader.rest();
                while !reader.text()?.is_empty() {}
                reader.end().map(|()| Self::Sasl { mechanisms: Mechanisms(list) })
            }
            11 => Ok(Self::SaslContinue(reader.rest())),
            12 => Ok(Self::SaslFinal(reader.rest())),
            code => Ok(Self::Other(code)),
        }
    }
}

/// The names of SASL mechanisms that a server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanisms<'a>(&'a [u8]);

impl<'a> Mechanisms<'a> {
    /// Every name, in the server's order of preference.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.0.split(|byte| *byte == 0).take_while(|name| !name.is_empty())
    }

    /// Whether `name` is among them.
    pub fn offers(&self, name: &str) -> bool {
        self.iter().any(|found| found == name.as_bytes())
    }
}

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The column's name.
    pub name: &'a [u8],
    /// The table it comes from; zero if none.
    pub table: Oid,
    /// Its number in that table; zero if none.
    pub attribute: i16,
    /// Its type.
    pub type_oid: Oid,
    /// The type's length; negative if it varies.
    pub type_len: i16,
    /// The type's modifier; -1 if none.
    pub type_modifier: i32,
    /// Format of the values; text in the answer to Describe of a statement.
    pub format: Format,
}

impl<'a> Field<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.text()?,
            table: Oid::new(reader.u32()?),
            attribute: reader.i16()?,
            type_oid: Oid::new(reader.u32()?),
            type_len: reader.i16()?,
            type_modifier: reader.i32()?,
            format: read_format(reader)?,
        })
    }
}

fn read_format(reader: &mut Reader<'_>) -> Result<Format, DecodeError> {
    match reader.u16()? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        _ => Err(reader.fault(Fault::UnknownCode)),
    }
}

/// RowDescription: the columns of the rows that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDescription<'a> {
    count: u16,
    fields: &'a [u8],
}

impl<'a> RowDescription<'a> {
    /// Reads a RowDescription's body.
    ///
    /// # Errors
    /// A body of another form, or an unknown format.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "RowDescription");
        let count = reader.u16()?;
        let fields = reader.rest();
        for _ in 0..count {
            Field::read(&mut reader)?;
        }
        reader.end()?;
        Ok(Self { count, fields })
    }

    /// Number of columns.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Every column in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let mut reader = Reader::new(self.fields, "RowDescription");
        (0..self.count).map_while(move |_| Field::read(&mut reader).ok())
    }
}

/// DataRow: one row's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataRow<'a> {
    count: u16,
    values: &'a [u8],
}

impl<'a> DataRow<'a> {
    /// Reads a DataRow's body.
    ///
    /// # Errors
    /// A body of another form, or a value longer than what is left of it.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "DataRow");
        let count = reader.u16()?;
        let values = reader.rest();
        for _ in 0..count {
            reader.value()?;
        }
        reader.end()?;
        Ok(Self { count, values })
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Every value in order, `None` for NULL.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut reader = Reader::new(self.values, "DataRow");
        (0..self.count).map_while(move |_| reader.value().ok())
    }
}

/// ParameterDescription: the types of a statement's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterDescription<'a>(&'a [u8]);

impl<'a> ParameterDescription<'a> {
    /// Reads a ParameterDescription's body.
    ///
    /// # Errors
    /// A body of another form.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "ParameterDescription");
        let count = reader.u16()?;
        let types = reader.numbers(count, 4)?;
        reader.end()?;
        Ok(Self(types))
    }

    /// Every type in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Oid> + use<'a> {
        self.0.as_chunks::<4>().0.iter().map(|oid| Oid::new(u32::from_be_bytes(*oid)))
    }
}

/// NotificationResponse: what NOTIFY sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// Process id of the backend that notified.
    pub pid: u32,
    /// The channel's name.
    pub channel: &'a [u8],
    /// The payload; may be empty.
    pub payload: &'a [u8],
}

impl<'a> Notification<'a> {
    /// Reads a NotificationResponse's body.
    ///
    /// # Errors
    /// A body of another form.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "NotificationResponse");
        let pid = reader.u32()?;
        let channel = reader.text()?;
        let payload = reader.text()?;
        reader.end()?;
        Ok(Self { pid, channel, payload })
    }
}

/// CopyInResponse, CopyOutResponse and CopyBothResponse: how the data comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyResponse {
    /// Format of the whole.
    pub format: Format,
    /// Number of columns.
    pub columns: u16,
}

impl CopyResponse {
    /// Reads the body of any of the three.
    ///
    /// # Errors
    /// A body of another form, or an unknown format.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "CopyResponse");
        let format = match reader.u8()? {
            0 => Format::Text,
            1 => Format::Binary,
            _ => return Err(reader.fault(Fault::UnknownCode)),
        };
        let columns = reader.u16()?;
        for _ in 0..columns {
            read_format(&mut reader)?;
        }
        reader.end()?;
        Ok(Self { format, columns })
    }
}

/// NegotiateProtocolVersion: the server speaks less than was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The version that the server will speak.
    pub version: ProtocolVersion,
    options: &'a [u8],
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Reads a NegotiateProtocolVersion's body. The version may be given whole,
    /// as PostgreSQL does, or as a minor version alone, as the manual has it.
    ///
    /// # Errors
    /// A body of another form.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "NegotiateProtocolVersion");
        let [a, b, c, d] = reader.array()?;
        let major = match u16::from_be_bytes([a, b]) {
            0 => 3,
            major => major,
        };
        let version = ProtocolVersion { major, minor: u16::from_be_bytes([c, d]) };
        let count = reader.u32()?;
        let options = reader.rest();
        // Each name takes a byte at least, so a lying count ends at the body's end.
        for _ in 0..count {
            reader.text()?;
        }
        reader.end()?;
        Ok(Self { version, options })
    }

    /// The protocol options that the server does not know.
    pub fn options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.options, "NegotiateProtocolVersion");
        std::iter::from_fn(move || reader.text().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_transaction_status_is_refused() {
        assert_eq!(TxStatus::decode(b"I"), Ok(TxStatus::Idle));
        assert_eq!(TxStatus::decode(b"T"), Ok(TxStatus::InTransaction));
        assert_eq!(TxStatus::decode(b"E"), Ok(TxStatus::Failed));
        assert_eq!(TxStatus::decode(b"X").unwrap_err().fault(), Fault::UnknownCode);
        assert!(TxStatus::decode(b"").is_err());
        assert!(TxStatus::decode(b"II").is_err());
    }

    #[test]
    fn error_gives_its_fields() {
        let body = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0\0";
        let error = ErrorFields::decode(body).unwrap();
        assert_eq!(error.code(), Some(SqlState::new("23505")));
        assert_eq!(error.message(), b"duplicate key");
        assert_eq!(error.severity(), b"ERROR");
        assert_eq!(error.iter().count(), 4);
    }

    #[test]
    fn error_without_sqlstate_is_still_an_error() {
        let error = ErrorFields::decode(b"SFATAL\0C?\0\0").unwrap();
        assert_eq!((error.code(), error.message()), (None, &b""[..]));
        assert_eq!(error.severity(), b"FATAL");
        assert!(ErrorFields::decode(b"").is_err());
        assert!(ErrorFields::decode(b"Mx\0").is_err());
        assert!(ErrorFields::decode(b"\0\0").is_err());
    }

    #[test]
    fn cancel_key_outside_its_bounds_is_refused() {
        let body = |len: usize| [vec![0, 0, 0, 7], vec![9; len]].concat();
        assert!(BackendKeyData::decode(&body(3)).is_err());
        assert_eq!(BackendKeyData::decode(&body(4)).unwrap().pid, 7);
        assert_eq!(BackendKeyData::decode(&body(256)).unwrap().key.len(), 256);
        assert!(BackendKeyData::decode(&body(257)).is_err());
    }

    #[test]
    fn cancel_key_is_not_printed() {
        let data = BackendKeyData { pid: 7, key: b"abcd" };
        assert_eq!(format!("{data:?}"), "BackendKeyData { pid: 7, key: redacted }");
    }

    #[test]
    fn authentication_knows_the_methods_it_speaks() {
        assert_eq!(Authentication::decode(&[0, 0, 0, 0]), Ok(Authentication::Ok));
        assert_eq!(Authentication::decode(&[0, 0, 0, 3]), Ok(Authentication::Cleartext));
        let md5 = Authentication::decode(&[0, 0, 0, 5, 1, 2, 3, 4]);
        assert_eq!(md5, Ok(Authentication::Md5 { salt: [1, 2, 3, 4] }));
        assert!(Authentication::decode(&[0, 0, 0, 5, 1, 2, 3]).is_err());
        assert_eq!(Authentication::decode(&[0, 0, 0, 7]), Ok(Authentication::Other(7)));
        assert!(Authentication::decode(&[0, 0, 0]).is_err());
    }

    #[test]
    fn sasl_offers_its_mechanisms() {
        let body = b"\0\0\0\x0ASCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let Authentication::Sasl { mechanisms } = Authentication::decode(body).unwrap() else {
            panic!("not SASL");
        };
        assert!(mechanisms.offers("SCRAM-SHA-256"));
        assert!(!mechanisms.offers("SCRAM-SHA-1"));
        assert_eq!(mechanisms.iter().count(), 2);
        assert!(Authentication::decode(b"\0\0\0\x0AX\0").is_err());
        assert!(Authentication::decode(b"\0\0\0\x0AX").is_err());
    }

    #[test]
    fn negotiation_reads_whole_and_minor_only_versions() {
        let whole = NegotiateProtocolVersion::decode(b"\0\x03\0\x02\0\0\0\x01_pq_.x\0").unwrap();
        assert_eq!(whole.version, ProtocolVersion { major: 3, minor: 2 });
        assert_eq!(whole.options().collect::<Vec<_>>(), [b"_pq_.x"]);
        let minor = NegotiateProtocolVersion::decode(b"\0\0\0\0\0\0\0\0").unwrap();
        assert_eq!(minor.version, ProtocolVersion { major: 3, minor: 0 });
        assert!(NegotiateProtocolVersion::decode(b"\0\0\0\0\xFF\xFF\xFF\xFF").is_err());
    }

    #[test]
    fn copy_response_counts_its_columns() {
        let copy = CopyResponse::decode(b"\0\0\x02\0\0\0\0").unwrap();
        assert_eq!(copy, CopyResponse { format: Format::Text, columns: 2 });
        assert!(CopyResponse::decode(b"\0\0\x02\0\0").is_err());
        assert!(CopyResponse::decode(b"\x02\0\0").is_err());
    }
}
