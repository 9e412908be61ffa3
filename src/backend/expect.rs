//! What a backend owes, and what its replies report.

use crate::protocol::backend::TxStatus;
use crate::types::SqlState;

use super::{RowShape, StatementId};

/// One reply that is owed, in the order in which the requests were sent.
#[derive(Debug)]
pub enum Expect {
    /// A client's simple query: everything is forwarded, until ReadyForQuery.
    Query(Report),
    /// A simple query of the router's own: everything is swallowed.
    OwnQuery(OwnPurpose),
    /// A client's named Parse, sent under the router's name.
    Parse(StatementId),
    /// A client's unnamed Parse.
    ParseUnnamed,
    /// A Parse of the router's own; its reply is swallowed.
    OwnParse(StatementId),
    /// A client's Bind, of this statement if it is a named one.
    Bind(Option<StatementId>),
    /// A client's Describe of either kind.
    Describe,
    /// A client's Describe of this statement, whose shape it remembers.
    DescribeOf(StatementId),
    /// A Describe of this statement by the router itself; its replies are
    /// swallowed.
    OwnDescribe(StatementId),
    /// A Describe by the router itself of the portal that is executed next, the
    /// unnamed one of this statement if it is one's; its reply is swallowed.
    OwnColumns(Option<StatementId>),
    /// A client's Execute.
    Execute(Report),
    /// A client's Close of a portal.
    Close,
    /// A Close of this statement by the router itself; its reply is swallowed.
    OwnClose(StatementId),
    /// A request of the router's own within a batch; the reply with this tag
    /// is swallowed.
    OwnReply(u8),
    /// An Execute of the router's own that prepares this statement by SQL; its
    /// CommandComplete is swallowed.
    OwnPrepare(StatementId),
    /// A client's FunctionCall, until ReadyForQuery.
    FunctionCall,
    /// A client's Sync.
    Sync,
    /// Bytes that the router says when its turn comes.
    Say(Box<[u8]>),
    /// The same, of a message that has changed the session's names: undone if
    /// its turn never comes.
    SayNamed(Box<[u8]>),
    /// A statement of the router's own that must fail; the client sees this
    /// error instead of the server's.
    Refuse(Box<Refusal>),
}

/// An error of the router's own, on its way through a backend's reply queue.
#[derive(Debug)]
pub struct Refusal {
    /// The whole ErrorResponse frame.
    pub frame: Box<[u8]>,
    /// The way in which the failing statement was sent.
    pub simple: SentAs,
}

/// Whether the session wants to hear of a statement's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It does not: the statement changes nothing that it tracks.
    Nothing,
    /// With its command tag.
    Tag,
    /// The same, and the client reads this tag instead of the server's: the
    /// router has sent another statement to the same end.
    TagAs(&'static str),
}

/// The way in which a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentAs {
    /// A Query message: ReadyForQuery follows the error.
    Query,
    /// A message of the client's extended batch: the server skips to Sync.
    Batch,
}

/// Why the router sent a query of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPurpose {
    /// Bring the session's settings, its transaction and what its statement
    /// needs to this backend; the unit waits for it.
    Prelude,
    /// A Sync that ends what was only described; the batch goes on elsewhere.
    Describe,
    /// A Sync that ends a batch of the router's own, which prepares what the
    /// unit executes; the unit waits for it.
    Prepare,
    /// A bare BEGIN, which can't fail; the unit follows at once.
    Begin,
    /// The end of a transaction that the router opened for a read of its own.
    End,
    /// A statement that goes to all shards in turn.
    Everywhere {
        /// Notices of the first shard reach the client, the others repeat them.
        first: bool,
    },
}

/// What the session hears from a walk over reply bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// ReadyForQuery of a client's unit. Until it, a CommandComplete means
    /// nothing: it comes before the commit.
    Ready(TxStatus),
    /// A statement finished; only while tags are reported.
    Complete(Tag),
    /// The server refused something of the client's.
    Error {
        /// `None` if the frame had none that is well formed.
        state: Option<SqlState>,
        /// The server closes the connection after it.
        fatal: bool,
    },
    /// A cached plan no longer fits its table, and nothing was said yet: the
    /// unit can be sent again.
    StalePlan,
    /// The plan of this statement no longer fits its table.
    Retired(StatementId),
    /// The client has been told that the statement's rows have this shape.
    Told(StatementId, RowShape),
    /// The statement, prepared anew, has rows of this shape.
    Shaped(StatementId, RowShape),
    /// A query of the router's own failed; the client's unit behind it failed
    /// or ran without what it needed.
    OwnFailed(OwnPurpose, Box<[u8]>),
    /// A query of the router's own has ended; with its last command tag (and
    /// NUL) if it had one.
    OwnDone(OwnPurpose, Option<Box<[u8]>>),
    /// The server waits for COPY data.
    CopyIn(SentAs),
    /// A setting has another value now; told while the backend is dirty, when
    /// no statement's text says it.
    Parameter(Box<str>, Box<str>),
}

/// The command tags that change a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `COMMIT`
    Commit,
    /// `ROLLBACK`, also as the answer to a COMMIT that failed
    Rollback,
    /// `PREPARE TRANSACTION`
    PrepareTransaction,
    /// Any other.
    Other,
}

impl Tag {
    /// Reads a CommandComplete tag, without its NUL.
    pub fn read(tag: &[u8]) -> Self {
        match tag {
            b"COMMIT" => Self::Commit,
            b"ROLLBACK" => Self::Rollback,
            b"PREPARE TRANSACTION" => Self::PrepareTransaction,
            _ => Self::Other,
        }
    }
}
