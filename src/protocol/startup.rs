//! The first packet of a connection, which has a length but no tag.
//!
//! Reads what Postgres reads and refuses what it refuses; values are bytes,
//! because no encoding has been agreed on yet. Which version to speak with a
//! client is decided here; what its parameters mean is not.
//!
//! Source: PostgreSQL manual, "Start-up", "Canceling Requests in Progress",
//! "Protocol Versions", "Message Formats".

use std::fmt;

use super::error::{OptionsError, StartupError};
use super::read::Reader;

/// The longest first packet that is read, its length not counted.
pub const PACKET_LEN_MAX: u32 = 10_000;
/// The shortest cancel key: that of protocol 3.0.
pub const CANCEL_KEY_LEN_MIN: usize = 4;
/// The longest cancel key that protocol 3.2 allows.
pub const CANCEL_KEY_LEN_MAX: usize = 256;

/// Version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// 3 for everything since PostgreSQL 7.4.
    pub major: u16,
    /// 0, or 2 since PostgreSQL 18.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The version that everything speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// The version with long cancel keys; the newest that the router speaks.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version to speak with a client that asks for this one: never newer,
    /// and never 3.1, which was skipped and nobody speaks.
    pub const fn spoken(self) -> Self {
        match self.minor {
            0 | 1 => Self::V3_0,
            _ => Self::V3_2,
        }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a connection may begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Asks for TLS; answered with one byte.
    Ssl,
    /// Asks for GSSAPI encryption; answered with one byte.
    Gss,
    /// Asks to cancel what another connection runs.
    Cancel(Cancel<'a>),
    /// Opens a session.
    Startup(Startup<'a>),
}

/// CancelRequest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cancel<'a> {
    /// The process id that BackendKeyData gave.
    pub pid: u32,
    /// The key that it gave.
    pub key: &'a [u8],
}

impl fmt::Debug for Cancel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel {{ pid: {}, key: redacted }}", self.pid)
    }
}

/// StartupMessage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Startup<'a> {
    /// The version asked for; major is 3.
    pub version: ProtocolVersion,
    params: &'a [u8],
}

impl<'a> Startup<'a> {
    /// Every parameter in the order sent, protocol options included.
    pub fn params(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut reader = Reader::new(self.params, "StartupMessage");
        std::iter::from_fn(move || {
            let name = reader.text().ok()?;
            Some((name, reader.text().ok()?))
        })
    }

    /// The value of `name`; the last one if it was sent twice.
    pub fn param(&self, name: &str) -> Option<&'a [u8]> {
        self.params().filter(|(found, _)| *found == name.as_bytes()).last().map(|(_, v)| v)
    }

    /// The user; never empty.
    pub fn user(&self) -> &'a [u8] {
        self.param("user").unwrap_or_default()
    }

    /// The database: the user's name if none, or an empty one, was sent.
    pub fn database(&self) -> &'a [u8] {
        self.param("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.user())
    }

    /// The protocol options asked for, none of which the router knows.
    pub fn unknown_options(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.params().map(|(name, _)| name).filter(|name| name.starts_with(OPTION_PREFIX))
    }

    /// Whether the client must be told, by NegotiateProtocolVersion, that it
    /// does not get all it asked for.
    pub fn needs_negotiation(&self) -> bool {
        self.version != self.version.spoken() || self.unknown_options().next().is_some()
    }
}

/// Reads the packet at the start of `buf`, and how many bytes it took.
///
/// `None` until it is all there. Bytes after an encryption request must not be
/// read as part of the encrypted stream: the caller checks that there are none.
///
/// # Errors
/// A packet of another form; the connection closes.
pub fn decode(buf: &[u8]) -> Result<Option<(Packet<'_>, usize)>, StartupError> {
    let Some(length) = buf.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
        return Ok(None);
    };
    let consumed = usize::try_from(length).map_err(|_| StartupError::Length { length })?;
    match length.checked_sub(LENGTH_LEN) {
        Some(CODE_LEN..=PACKET_LEN_MAX) => {}
        Some(_) | None => return Err(StartupError::Length { length }),
    }
    let Some(body) = buf.get(4..consumed) else { return Ok(None) };
    let Some((&[a, b, c, d], rest)) = body.split_first_chunk() else {
        return Err(StartupError::Length { length });
    };
    let version =
        ProtocolVersion { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) };
    let packet = match (version.major, version.minor) {
        (CODE_MAJOR, CANCEL_MINOR) => Packet::Cancel(decode_cancel(rest)?),
        (CODE_MAJOR, SSL_MINOR) if rest.is_empty() => Packet::Ssl,
        (CODE_MAJOR, GSS_MINOR) if rest.is_empty() => Packet::Gss,
        (CODE_MAJOR, SSL_MINOR | GSS_MINOR) => return Err(StartupError::Negotiation),
        (3, _) => Packet::Startup(decode_startup(version, rest)?),
        (major, minor) => return Err(StartupError::Version { major, minor }),
    };
    Ok(Some((packet, consumed)))
}

fn decode_cancel(rest: &[u8]) -> Result<Cancel<'_>, StartupError> {
    let Some((pid, key)) = rest.split_first_chunk() else {
        return Err(StartupError::CancelKey { length: 0 });
    };
    if !(CANCEL_KEY_LEN_MIN..=CANCEL_KEY_LEN_MAX).contains(&key.len()) {
        return Err(StartupError::CancelKey { length: key.len() });
    }
    Ok(Cancel { pid: u32::from_be_bytes(*pid), key })
}

fn decode_startup(version: ProtocolVersion, rest: &[u8]) -> Result<Startup<'_>, StartupError> {
    let mut reader = Reader::new(rest, "StartupMessage");
    loop {
        let left = reader.rest().len();
        let name = reader.text().map_err(|_| StartupError::Layout)?;
        if name.is_empty() {
            reader.end().map_err(|_| StartupError::Layout)?;
            let params = rest.get(..rest.len().saturating_sub(left)).unwrap_or_default();
            let startup = Startup { version, params };
            return if startup.user().is_empty() {
                Err(StartupError::MissingUser)
            } else {
                Ok(startup)
            };
        }
        reader.text().map_err(|_| StartupError::Layout)?;
    }
}

/// Reads the startup parameter `options`: the settings it makes, in order.
///
/// Words are parted by white space, which a backslash before it keeps, and are
/// `-c name=value` or `--name=value`; a hyphen in a name stands for `_`.
///
/// # Errors
/// Any other word, and a setting without a value.
///
/// Source: PostgreSQL manual, "libpq, Parameter Key Words" (options) and
/// "postgres".
pub fn startup_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = split_words(options).into_iter();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next().ok_or(OptionsError::MissingValue { name: shorten(&word) })?
        } else if let Some(setting) = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            setting.to_owned()
        } else {
            return Err(OptionsError::Switch { word: shorten(&word) });
        };
        match setting.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            Some(_) => return Err(OptionsError::Switch { word: shorten(&word) }),
            None => return Err(OptionsError::MissingValue { name: shorten(&setting) }),
        }
    }
    Ok(settings)
}

fn split_words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for c in options.chars() {
        if escaped {
            word.get_or_insert_default().push(c);
            escaped = false;
        } else if c == '\\' {
            word.get_or_insert_default();
            escaped = true;
        } else if matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C') {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
}

fn shorten(word: &str) -> String {
    word.chars().take(64).collect()
}

const LENGTH_LEN: u32 = 4;
const CODE_LEN: u32 = 4;
/// Codes that stand where the version is begin with this.
pub(super) const CODE_MAJOR: u16 = 1234;
pub(super) const CANCEL_MINOR: u16 = 5678;
pub(super) const SSL_MINOR: u16 = 5679;
pub(super) const GSS_MINOR: u16 = 5680;
const OPTION_PREFIX: &[u8] = b"_pq_.";

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: [u8; 4], rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(8 + rest.len()).unwrap();
        [&length.to_be_bytes()[..], &code, rest].concat()
    }

    fn startup(minor: u16, rest: &[u8]) -> Vec<u8> {
        let [a, b] = minor.to_be_bytes();
        packet([0, 3, a, b], rest)
    }

    fn decode_one(bytes: &[u8]) -> Result<Startup<'_>, StartupError> {
        match decode(bytes)? {
            Some((Packet::Startup(startup), _)) => Ok(startup),
            other => panic!("not a startup: {other:?}"),
        }
    }

    #[test]
    fn startup_gives_its_parameters_last_wins() {
        let bytes = startup(0, b"user\0a\0database\0d\0user\0b\0\0");
        let found = decode_one(&bytes).unwrap();
        assert_eq!((found.user(), found.database()), (&b"b"[..], &b"d"[..]));
        assert_eq!(found.params().count(), 3);
    }

    #[test]
    fn database_is_the_users_unless_given() {
        assert_eq!(decode_one(&startup(0, b"user\0a\0\0")).unwrap().database(), b"a");
        let empty = startup(0, b"user\0a\0database\0\0\0");
        assert_eq!(decode_one(&empty).unwrap().database(), b"a");
    }

    #[test]
    fn startup_without_user_is_refused() {
        for rest in [&b"\0"[..], b"database\0d\0\0", b"user\0\0\0"] {
            let error = decode(&startup(0, rest)).unwrap_err();
            assert_eq!(error, StartupError::MissingUser);
            assert_eq!(error.sqlstate().as_str(), "28000");
        }
    }

    #[test]
    fn startup_of_another_layout_is_refused() {
        for rest in [&b""[..], b"user", b"user\0a", b"user\0a\0", b"user\0a\0\0x", b"user\0a\0\0\0"]
        {
            assert_eq!(decode(&startup(0, rest)), Err(StartupError::Layout), "{rest:?}");
        }
    }

    #[test]
    fn packet_waits_until_it_is_all_there() {
        let bytes = startup(0, b"user\0a\0\0");
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None), "cut at {end}");
        }
        let more = [&bytes[..], b"p"].concat();
        assert_eq!(decode(&more).unwrap().unwrap().1, bytes.len());
    }

    #[test]
    fn length_is_bounded_before_anything_is_buffered() {
        assert!(decode(&[0, 0, 0, 7]).is_err());
        assert!(decode(&[0, 0, 0, 0]).is_err());
        assert_eq!(decode(&10_004_u32.to_be_bytes()), Ok(None));
        assert!(decode(&10_005_u32.to_be_bytes()).is_err());
        assert!(decode(b"GET / HTTP/1.1").unwrap_err().hint().is_some());
        assert!(decode(b"\x16\x03\x01\x02\0").is_err());
    }

    #[test]
    fn encryption_requests_are_read_exactly() {
        assert_eq!(decode(&packet([4, 210, 22, 47], b"")), Ok(Some((Packet::Ssl, 8))));
        assert_eq!(decode(&packet([4, 210, 22, 48], b"")), Ok(Some((Packet::Gss, 8))));
        assert!(decode(&packet([4, 210, 22, 47], b"x")).is_err());
    }

    #[test]
    fn cancel_reads_short_and_long_keys() {
        for len in [4, 32, 256] {
            let rest = [vec![0, 0, 0, 9], vec![1; len]].concat();
            let bytes = packet([4, 210, 22, 46], &rest);
            let expected = Packet::Cancel(Cancel { pid: 9, key: &rest[4..] });
            assert_eq!(decode(&bytes), Ok(Some((expected, bytes.len()))));
        }
        for len in [0, 3, 257] {
            let rest = [vec![0, 0, 0, 9], vec![1; len]].concat();
            let error = decode(&packet([4, 210, 22, 46], &rest)).unwrap_err();
            assert_eq!(error, StartupError::CancelKey { length: len });
        }
        assert!(decode(&packet([4, 210, 22, 46], b"\0")).is_err());
    }

    #[test]
    fn newer_minor_versions_are_negotiated_down() {
        for (asked, spoken, told) in
            [(0, 0, false), (1, 0, true), (2, 2, false), (3, 2, true), (9999, 2, true)]
        {
            let bytes = startup(asked, b"user\0a\0\0");
            let found = decode_one(&bytes).unwrap();
            assert_eq!(found.version.spoken(), ProtocolVersion { major: 3, minor: spoken });
            assert_eq!(found.needs_negotiation(), told, "3.{asked}");
        }
    }

    #[test]
    fn unknown_protocol_options_are_named_to_the_client() {
        let bytes = startup(2, b"user\0a\0_pq_.command\0on\0_pq_x\0y\0\0");
        let found = decode_one(&bytes).unwrap();
        assert!(found.needs_negotiation());
        assert_eq!(found.unknown_options().collect::<Vec<_>>(), [b"_pq_.command"]);
    }

    #[test]
    fn other_major_versions_are_refused() {
        for code in [[0, 2, 0, 0], [0, 4, 0, 0], [4, 210, 0, 1], [0, 0, 0, 0]] {
            let error = decode(&packet(code, b"user\0a\0\0")).unwrap_err();
            assert_eq!(error.sqlstate().as_str(), "0A000");
        }
    }

    #[test]
    fn options_are_read_as_postgres_reads_them() {
        let settings = startup_options(
            "-c a=1 --search-path=x,\\ y\t-cb=2 --c=d=e -c geqo=  --esc=back\\\\slash",
        );
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            settings,
            Ok(vec![
                pair("a", "1"),
                pair("search_path", "x, y"),
                pair("b", "2"),
                pair("c", "d=e"),
                pair("geqo", ""),
                pair("esc", "back\\slash"),
            ])
        );
        assert_eq!(startup_options("  "), Ok(vec![]));
    }

    #[test]
    fn options_of_another_form_are_refused() {
        for options in ["-d 5", "x", "-c", "-c a", "--a", "--", "--=1", "-"] {
            assert!(startup_options(options).is_err(), "{options:?}");
        }
    }
}
