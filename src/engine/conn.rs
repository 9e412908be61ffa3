//! One connection to a backend: its machine, its socket, and what of either
//! direction is not through yet.

use std::rc::Rc;

use crate::backend::{Backend, CancelKey};
use crate::cluster::{Footprint, Incarnation, Mark};
use crate::net::stream::Stream;
use crate::session::Writes;
use crate::types::{Moment, ShardId};

use super::crew::Places;
use super::loads::Lent;
use super::marks::Account;
use super::pools::SharedPool;
use super::share::Farewell;

/// A connection to a backend.
pub(super) struct Conn {
    pub(super) machine: Backend,
    pub(super) stream: Stream,
    /// The runtime will wake the task that holds it when the server has
    /// something to say: asking again would change nothing.
    pub(super) watched: bool,
    /// Head of a reply frame that has to be seen whole.
    pub(super) carry: Vec<u8>,
    /// Requests that the socket has not taken yet.
    pub(super) out: Vec<u8>,
    /// Encryption still holds back some of what the socket was given.
    pub(super) unflushed: bool,
    /// The running unit's bytes, to send it again.
    pub(super) replay: Vec<u8>,
    pub(super) key: Rc<CancelKey>,
    pub(super) pool: SharedPool,
    pub(super) shard: ShardId,
    pub(super) writes: Writes,
    /// When its login was through.
    pub(super) born: Moment,
    /// When it is too old to be lent again.
    pub(super) expires: Option<Moment>,
    /// The server that it leads to, as it said after the login.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) vouched: Vouched,
    pub(super) account: Account,
    /// It leads to a replica and is lent to a client.
    pub(super) lent: Option<Lent>,
    pub(super) uses: u64,
    /// How often its pool had been told to close its connections.
    pub(super) generation: u64,
    /// What the server reported at its start.
    pub(super) params: Rc<super::params::ServerParams>,
    /// The pool counts it until it is dropped.
    pub(super) counted: bool,
    /// Its places in the budgets that it counts in.
    pub(super) places: Option<Places>,
}

/// What was last found of a connection's server, in one view of the nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Vouched {
    /// The view; zero before the first.
    pub(super) view: u64,
    /// The life of the node.
    pub(super) life: u32,
    /// It is the server whose samples count.
    pub(super) surely: bool,
}

impl Conn {
    /// Raises the marks of what the running unit may show to others; called
    /// before its bytes are sent.
    pub(super) fn expose(&mut self) {
        // What runs on a replica writes nothing.
        if self.writes == Writes::Possible
            && let Some(exposed) = self.machine.writes().exposed()
        {
            self.account.expose(&exposed);
        }
    }

    /// The same for a unit that looks like a read, which a replica refused
    /// because it writes.
    pub(super) fn expose_read(&mut self) {
        let mut anything = Footprint::EMPTY;
        anything.add(Mark::Shard);
        self.account.expose(&anything);
    }

    /// Settles the marks of a unit that has ended; true if one has.
    pub(super) fn settle(&mut self) -> bool {
        let ended = self.machine.writes().take_ended();
        if ended {
            self.account.settle();
        }
        ended
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let stream = std::mem::replace(&mut self.stream, Stream::Closed);
        let farewell = if self.machine.is_settled() && self.out.is_empty() && !self.unflushed {
            Farewell::Say
        } else {
            Farewell::Omit
        };
        self.pool.node_share().bury(stream, self.places.take(), farewell);
        if self.counted {
            self.pool.closed();
        }
    }
}
