//! The words every layer shares: ids, positions and units as newtypes.
//!
//! Nothing here knows a rule of the router; a value of these types is valid by
//! construction and compares only with its own kind.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

mod network;

pub use self::network::Network;

/// A shard's permanent number, as the map declares it; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u16);

impl ShardId {
    /// The shard with the permanent number `number`.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The permanent number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// One Postgres process, numbered within a map: all nodes of all shards in
/// the order of the file, the primary of a shard before its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NodeId(u16);

impl NodeId {
    /// The node at position `index` of the map.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Position in the map, usable as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A hash bucket of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u32);

impl SlotId {
    /// The slot with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The slot's number, zero-based.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Version of the shard map; only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The epoch's number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A WAL position, in bytes from the start of the log.
///
/// Positions have no order of their own: those of two lives of a primary can't
/// be compared, and only `health::Lineage` knows which belong to one life.
///
/// ```compile_fail
/// use keyway::types::Lsn;
/// let later = Lsn::new(2) > Lsn::new(1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// The position `bytes` after the start of the log.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the log.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    /// Reads Postgres's `XXX/XXX` form.
    ///
    /// # Errors
    /// Anything but two hexadecimal numbers of at most 32 bits.
    fn from_str(text: &str) -> Result<Self, LsnError> {
        let (high, low) = text.split_once('/').ok_or(LsnError)?;
        let half = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| LsnError);
        Ok(Self((u64::from(half(high)?) << 32) | u64::from(half(low)?)))
    }
}

/// A text that is not a WAL position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnError;

impl fmt::Display for LsnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a WAL position (expected hexadecimal XXX/XXX)")
    }
}

impl std::error::Error for LsnError {}

/// A point on the process's own monotonic clock, in milliseconds since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// The moment the process started.
    pub const START: Self = Self(0);

    /// `ms` milliseconds after the process started.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the process started.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// This moment plus `wait`; saturates.
    pub const fn after(self, wait: Millis) -> Self {
        Self(self.0.saturating_add(wait.0))
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `ms` milliseconds.
    pub const fn new(ms: u64) -> Self {
        Self(ms)
    }

    /// The count.
    pub const fn count(self) -> u64 {
        self.0
    }

    /// Both lengths together; saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

/// A five-character SQLSTATE.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// The state written `code`.
    ///
    /// # Panics
    /// At compile time, in the constants that use it, if `code` is not five
    /// upper-case letters or digits.
    pub const fn new(code: &str) -> Self {
        let bytes = code.as_bytes();
        assert!(bytes.len() == 5, "a SQLSTATE has five characters");
        Self([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// The state as it came from a peer; `None` if it is not five bytes of
    /// upper-case ASCII letters and digits.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let code: [u8; 5] = bytes.try_into().ok()?;
        code.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).then_some(Self(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A type's object identifier, as it crosses the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(u32);

impl Oid {
    /// The identifier `number`; zero means "not given".
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether it is a database's own, made after initdb: another database
    /// numbers the same type otherwise (PostgreSQL's `FirstNormalObjectId`).
    pub const fn is_own(self) -> bool {
        self.0 >= 16_384
    }
}

/// Role of a node within its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Takes the shard's writes.
    Primary,
    /// Follows the primary and serves reads.
    Replica,
}

impl Role {
    /// The word that the console and the metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// What a statement may do to the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Proven to read only, with functions known not to write.
    Read,
    /// Writes, locks rows, or is not proven to do neither.
    Write,
}

/// Format of a parameter's or a column's value on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The type's text form.
    Text,
    /// The type's binary (send/receive) form.
    Binary,
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Reads go to the primary.
    #[default]
    Primary,
    /// A read sees its session's own writes, and never less than the session
    /// has seen before.
    Session,
    /// A read sees every write to its slots that this router acknowledged
    /// before, whichever connection made it, and never goes back.
    Slot,
    /// Any healthy replica that trails the primary by at most this.
    Bounded(Millis),
    /// Any healthy replica.
    Any,
}

impl Consistency {
    /// The level that promises more; of two bounds the shorter.
    #[must_use]
    pub const fn stricter(self, other: Self) -> Self {
        let ((mine, my_lag), (theirs, their_lag)) = (self.rank(), other.rank());
        if mine < theirs || (mine == theirs && my_lag <= their_lag) { self } else { other }
    }

    const fn rank(self) -> (u8, u64) {
        match self {
            Self::Primary => (0, 0),
            Self::Slot => (1, 0),
            Self::Session => (2, 0),
            Self::Bounded(lag) => (3, lag.count()),
            Self::Any => (4, 0),
        }
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Session => f.write_str("session"),
            Self::Slot => f.write_str("slot"),
            Self::Bounded(lag) => write!(f, "bounded({}ms)", lag.count()),
            Self::Any => f.write_str("any"),
        }
    }
}

impl FromStr for Consistency {
    type Err = ConsistencyError;

    /// Reads `primary`, `session`, `slot`, `any`, or `bounded(LAG)` with a lag
    /// in milliseconds, a unit (`ms`, `s`) being optional.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, ConsistencyError> {
        match text {
            "primary" => Ok(Self::Primary),
            "session" => Ok(Self::Session),
            "slot" => Ok(Self::Slot),
            "any" => Ok(Self::Any),
            _ => {
                let lag = text.strip_prefix("bounded(").and_then(|rest| rest.strip_suffix(')'));
                let lag = lag.ok_or(ConsistencyError)?.trim();
                let (digits, factor) = if let Some(ms) = lag.strip_suffix("ms") {
                    (ms, 1)
                } else if let Some(seconds) = lag.strip_suffix('s') {
                    (seconds, 1000)
                } else {
                    (lag, 1)
                };
                let count: u64 = digits.trim_end().parse().map_err(|_| ConsistencyError)?;
                let ms = count.checked_mul(factor).ok_or(ConsistencyError)?;
                Ok(Self::Bounded(Millis::new(ms)))
            }
        }
    }
}

/// A text that names no consistency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistencyError;

impl fmt::Display for ConsistencyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a consistency (expected primary, session, slot, any, or bounded(LAG) like bounded(500ms))",
        )
    }
}

impl std::error::Error for ConsistencyError {}

/// A password or another text that no log, console or error may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_reads_what_postgres_prints() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.bytes(), 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert!("16".parse::<Lsn>().is_err());
        assert!("1/123456789".parse::<Lsn>().is_err());
    }

    #[test]
    fn sqlstate_from_a_peer_is_checked() {
        assert!(SqlState::from_bytes(b"0A000").is_some());
        assert!(SqlState::from_bytes(b"0a000").is_none());
        assert!(SqlState::from_bytes(b"0A00").is_none());
    }

    #[test]
    fn the_stricter_level_promises_more() {
        let bounded = |ms| Consistency::Bounded(Millis::new(ms));
        let ordered = [
            Consistency::Primary,
            Consistency::Slot,
            Consistency::Session,
            bounded(5),
            bounded(9),
            Consistency::Any,
        ];
        for (at, strict) in ordered.iter().enumerate() {
            for loose in &ordered[at..] {
                assert_eq!(strict.stricter(*loose), *strict);
                assert_eq!(loose.stricter(*strict), *strict);
            }
        }
    }

    #[test]
    fn consistency_reads_what_it_prints() {
        for text in ["primary", "session", "slot", "any", "bounded(500ms)"] {
            assert_eq!(text.parse::<Consistency>().unwrap().to_string(), text);
        }
        assert_eq!("bounded(2s)".parse(), Ok(Consistency::Bounded(Millis::new(2000))));
        assert_eq!("bounded(50)".parse(), Ok(Consistency::Bounded(Millis::new(50))));
        for text in ["", "Any", "bounded()", "bounded(-1ms)", "bounded(1m)", "Slot"] {
            assert_eq!(text.parse::<Consistency>(), Err(ConsistencyError), "{text}");
        }
    }

    #[test]
    fn secret_is_never_printed() {
        let secret = Secret::new("hunter2".to_owned());
        assert!(!format!("{secret} {secret:?} {secret:#?}").contains("hunter2"));
        assert_eq!(secret.expose(), "hunter2");
    }
}
