//! One thread's share in a node: the node's budget of connections, who goes
//! short of it, and the connections that are on their way out.
//!
//! A connection counts until its server process is gone: the router says
//! goodbye, waits for the server to close, and only then gives the permit
//! back. So the server never sees more connections than the budget has.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::net::clock;
use crate::net::stream::Stream;
use crate::pool::{Ledger, Permit};
use crate::protocol::encode;
use crate::types::Millis;

use super::crew::Places;
use super::thread::Thread;

/// A node, as the pools of this thread share it.
pub(super) struct NodeShare {
    ledger: Arc<Ledger>,
    /// Connections whose server process has not gone yet.
    closing: Cell<usize>,
    /// A pool wants a connection and found the budget spent.
    short: Cell<bool>,
    /// The next connection that comes free makes way for another thread's.
    owes: Cell<bool>,
    undertaker: Rc<Undertaker>,
}

/// Whether a connection that is closed says goodbye first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It stands between messages.
    Say,
    /// In the middle of something.
    Omit,
}

/// Closes the connections of a thread.
#[derive(Default)]
pub(super) struct Undertaker {
    graves: RefCell<Vec<Grave>>,
    called: tokio::sync::Notify,
}

struct Grave {
    stream: Stream,
    places: Option<Places>,
    farewell: Farewell,
    share: Rc<NodeShare>,
}

impl NodeShare {
    pub(super) fn new(ledger: Arc<Ledger>, undertaker: Rc<Undertaker>) -> Rc<Self> {
        let (short, owes) = (Cell::new(false), Cell::new(false));
        Rc::new(Self { ledger, closing: Cell::new(0), short, owes, undertaker })
    }

    /// A permit, if one is left; if none is, somebody goes short.
    pub(super) fn take(&self) -> Option<Permit> {
        let permit = self.ledger.take();
        if permit.is_none() {
            self.short.set(true);
        }
        permit
    }

    /// The node's budget, as all threads share it.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Connections whose permit is about to come back.
    pub(super) fn closing(&self) -> usize {
        self.closing.get()
    }

    /// True if a pool wants a connection that the budget does not have.
    pub(super) fn is_short(&self) -> bool {
        self.short.get()
    }

    /// Nobody goes short until somebody says so again.
    pub(super) fn forget_shortage(&self) {
        self.short.set(false);
    }

    /// True if this thread has more of the node than its part.
    pub(super) fn owes(&self) -> bool {
        self.owes.get()
    }

    pub(super) fn set_owes(&self, owes: bool) {
        self.owes.set(owes);
    }

    /// Closes a connection that has left its pool.
    pub(super) fn bury(
        self: &Rc<Self>,
        stream: Stream,
        places: Option<Places>,
        farewell: Farewell,
    ) {
        self.closing.set(self.closing.get() + 1);
        let grave = Grave { stream, places, farewell, share: Rc::clone(self) };
        self.undertaker.graves.borrow_mut().push(grave);
        self.undertaker.called.notify_one();
    }
}

impl Undertaker {
    /// Serves for as long as the thread lives.
    pub(super) async fn serve(thread: Rc<Thread>) {
        let undertaker = thread.undertaker();
        loop {
            undertaker.called.notified().await;
            let graves = std::mem::take(&mut *undertaker.graves.borrow_mut());
            for grave in graves {
                let thread_of_grave = Rc::clone(&thread);
                thread.spawn(async move { grave.fill(&thread_of_grave).await });
            }
        }
    }
}

impl Grave {
    async fn fill(self, thread: &Rc<Thread>) {
        let Self { mut stream, places, farewell, share } = self;
        let parting = async {
            if farewell == Farewell::Say {
                let mut goodbye = Vec::new();
                encode::terminate(&mut goodbye);
                drop(stream.write_all(&goodbye).await);
            }
            stream.close().await;
        };
        // A server that does not close in time is not waited for: its own
        // limits count from here on.
        drop(tokio::time::timeout(clock::duration(CLOSE_WAIT), parting).await);
        let wanted_elsewhere = places.is_some_and(|places| places.give_back(thread.index));
        share.closing.set(share.closing.get().saturating_sub(1));
        thread.share_out(&share);
        if wanted_elsewhere {
            thread.crew.nudge_others(thread.index);
        }
    }
}

/// Longest wait for a server to close a connection.
const CLOSE_WAIT: Millis = Millis::new(10_000);
