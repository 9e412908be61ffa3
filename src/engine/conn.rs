//! One connection to a backend: its machine, its socket, and what of either
//! direction is not through yet.

use std::rc::Rc;

use crate::backend::{Backend, CancelKey};
use crate::net::stream::Stream;
use crate::pool::Permit;
use crate::session::Writes;
use crate::types::{Moment, ShardId};

use super::pools::SharedPool;

/// A connection to a backend.
pub(super) struct Conn {
    pub(super) machine: Backend,
    pub(super) stream: Stream,
    /// Head of a reply frame that has to be seen whole.
    pub(super) carry: Vec<u8>,
    /// Requests that the socket has not taken yet.
    pub(super) out: Vec<u8>,
    /// The running unit's bytes, to send it again.
    pub(super) replay: Vec<u8>,
    pub(super) key: Rc<CancelKey>,
    pub(super) pool: SharedPool,
    pub(super) shard: ShardId,
    pub(super) writes: Writes,
    pub(super) born: Moment,
    pub(super) uses: u64,
    /// What the server reported at its start.
    pub(super) params: Rc<super::params::ServerParams>,
    /// The pool counts it until it is dropped.
    pub(super) counted: bool,
    pub(super) _permit: Permit,
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.counted {
            self.pool.closed();
        }
    }
}
