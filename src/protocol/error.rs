//! What can be wrong with a message: its frame, its body, or a part that the
//! router was about to write.
//!
//! None of these holds bytes of the message, so they are safe to log.

use std::fmt;

use crate::types::SqlState;

/// The peer broke the protocol's form.
pub const PROTOCOL_VIOLATION: SqlState = SqlState::new("08P01");
const FEATURE_NOT_SUPPORTED: SqlState = SqlState::new("0A000");
const INVALID_AUTHORIZATION: SqlState = SqlState::new("28000");
const SYNTAX_ERROR: SqlState = SqlState::new("42601");
const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState::new("54000");

/// A header that can't be a message's: the stream is lost, the session closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The length does not even count itself.
    TooShort {
        /// The message's tag.
        tag: u8,
        /// The length as sent.
        length: u32,
    },
    /// The body is longer than what is accepted here.
    TooLong {
        /// The message's tag.
        tag: u8,
        /// The length as sent.
        length: u32,
        /// The longest body accepted.
        body_len_max: u32,
    },
}

impl FrameError {
    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        PROTOCOL_VIOLATION
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { tag, length } => {
                write!(f, "message '{}' has invalid length {length}", tag.escape_ascii())
            }
            Self::TooLong { tag, length, body_len_max } => write!(
                f,
                "message '{}' has length {length}, more than the {body_len_max} bytes allowed here",
                tag.escape_ascii()
            ),
        }
    }
}

impl std::error::Error for FrameError {}

/// How a body differs from its message's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The body ends inside the part.
    Truncated,
    /// Bytes are left after the last part.
    TrailingBytes,
    /// A text has no terminating zero byte.
    MissingNul,
    /// A length or a count is out of its range.
    InvalidLength,
    /// A code has none of the values that the protocol names.
    UnknownCode,
}

/// A body that is not what its tag says. The frame was whole, so the stream
/// is not lost: the sender may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    part: &'static str,
    fault: Fault,
}

impl DecodeError {
    pub(crate) const fn new(part: &'static str, fault: Fault) -> Self {
        Self { part, fault }
    }

    /// The message and its part, as the manual calls them.
    pub const fn part(&self) -> &'static str {
        self.part
    }

    /// What is wrong with the part.
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        PROTOCOL_VIOLATION
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = match self.fault {
            Fault::Truncated => "the message ends inside it",
            Fault::TrailingBytes => "bytes follow its end",
            Fault::MissingNul => "a text is not terminated",
            Fault::InvalidLength => "a length is out of range",
            Fault::UnknownCode => "a code is not known",
        };
        write!(f, "invalid message format: {}: {fault}", self.part)
    }
}

impl std::error::Error for DecodeError {}

/// A first packet that opens no session; the connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupError {
    /// Shorter than a version or longer than the maximum.
    Length {
        /// The length as sent.
        length: u32,
    },
    /// Only major version 3 is spoken.
    Version {
        /// Major version requested.
        major: u16,
        /// Minor version requested.
        minor: u16,
    },
    /// A parameter without its end, or bytes after the last one.
    Layout,
    /// SSLRequest or GSSENCRequest with anything after the code.
    Negotiation,
    /// A cancel key shorter than 4 or longer than 256 bytes.
    CancelKey {
        /// Length of the key sent.
        length: usize,
    },
    /// No user was named.
    MissingUser,
}

impl StartupError {
    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::Version { .. } => FEATURE_NOT_SUPPORTED,
            Self::MissingUser => INVALID_AUTHORIZATION,
            Self::Length { .. } | Self::Layout | Self::Negotiation | Self::CancelKey { .. } => {
                PROTOCOL_VIOLATION
            }
        }
    }

    /// A way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Length { .. } => Some(
                "the port expects PostgreSQL's protocol, not HTTP or TLS without SSLRequest".into(),
            ),
            Self::Version { .. } => Some("use protocol 3.0 or 3.2".into()),
            Self::MissingUser => Some("name a user in the connection string".into()),
            Self::Layout | Self::Negotiation | Self::CancelKey { .. } => None,
        }
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { length } => write!(f, "invalid length of startup packet: {length}"),
            Self::Version { major, minor } => write!(
                f,
                "unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
            ),
            Self::Layout => f.write_str(
                "invalid startup packet layout: expected name and value pairs and a terminator \
                 as last byte",
            ),
            Self::Negotiation => f.write_str("invalid length of encryption request"),
            Self::CancelKey { length } => {
                write!(f, "invalid length of cancel key: {length}, expected 4 to 256 bytes")
            }
            Self::MissingUser => f.write_str("no user name specified in startup packet"),
        }
    }
}

impl std::error::Error for StartupError {}

/// A value of the startup parameter `options` that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    /// Something else than `-c name=value` or `--name=value`.
    Switch {
        /// The word, shortened to 64 characters.
        word: String,
    },
    /// A setting without a value.
    MissingValue {
        /// The setting, shortened to 64 characters.
        name: String,
    },
}

impl OptionsError {
    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        SYNTAX_ERROR
    }

    /// The forms that are read.
    pub fn hint(&self) -> Option<String> {
        Some("write each setting as -c name=value or --name=value".into())
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch { word } => {
                write!(f, "invalid command-line argument in startup options: {word}")
            }
            Self::MissingValue { name } => {
                write!(f, "setting {name} in startup options requires a value")
            }
        }
    }
}

impl std::error::Error for OptionsError {}

/// A part that does not fit its message. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A text that ends at a zero byte on the wire holds one.
    NulByte {
        /// The part.
        part: &'static str,
    },
    /// A part, a count or the whole is longer than its length can say.
    TooLong {
        /// The part.
        part: &'static str,
    },
}

impl EncodeError {
    /// SQLSTATE for the client.
    pub const fn sqlstate(&self) -> SqlState {
        match self {
            Self::NulByte { .. } => PROTOCOL_VIOLATION,
            Self::TooLong { .. } => PROGRAM_LIMIT_EXCEEDED,
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NulByte { part } => write!(f, "{part} contains a zero byte"),
            Self::TooLong { part } => write!(f, "{part} is too long for a message"),
        }
    }
}

impl std::error::Error for EncodeError {}
