//! Cancel requests: from a client, and to the backend that runs for it.
//!
//! A backend is not given to anyone else before every request to it is
//! through: a late cancel would hit the next client's statement.

use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use crate::backend::CancelKey;
use crate::net::clock;
use crate::protocol::encode;
use crate::types::{Millis, NodeId};

use super::client::{ClientEntry, Running, State};
use super::conn::Conn;
use super::connect;
use super::crew;
use super::handle::Command;
use super::predecessors;
use super::thread::Thread;

impl Thread {
    /// A client's CancelRequest. Whatever it names, the answer is silence.
    pub(super) async fn on_cancel_request(self: &Rc<Self>, pid: u32, key: &[u8]) {
        let asked = if crew::owner_of(pid) == self.index {
            self.cancel_client(pid, key).await
        } else {
            // Another thread's client: the socket stays open until it is through.
            match self.crew.commands_of(pid) {
                Some(owner) => ask_to_cancel(owner, pid, key).await,
                None => Whose::Nobodys,
            }
        };
        if let (Whose::Nobodys, Some(told)) = (asked, &self.options.predecessors) {
            predecessors::pass_on(told, pid, key).await;
        }
    }

    /// The same, for a client of this thread.
    pub(super) async fn cancel_client(self: &Rc<Self>, pid: u32, key: &[u8]) -> Whose {
        let client = self.clients.borrow().get(&pid).cloned();
        let Some(client) = client else { return Whose::Nobodys };
        if !subtle::ConstantTimeEq::ct_eq(&*client.secret, key).unwrap_u8().eq(&1) {
            return Whose::Nobodys;
        }
        self.stats.cancels.set(self.stats.cancels.get() + 1);
        match client.state.get() {
            State::Waiting => client.signal(|signals| signals.cancel_wait = true),
            State::Active => self.cancel_running(&client).await,
            State::Idle | State::InTransaction => {}
        }
        Whose::Ours
    }

    /// Cancels what runs for the client, on every backend that it holds.
    pub(super) async fn cancel_running(self: &Rc<Self>, client: &Rc<ClientEntry>) {
        let running: Vec<Running> = client.running.borrow().iter().cloned().collect();
        client.cancels.set(client.cancels.get() + 1);
        let mut requests = tokio::task::JoinSet::new();
        for one in running {
            let (thread, database) = (Rc::clone(self), client.database);
            requests.spawn_local(async move {
                let through = thread.send_cancel(database, one.node, &one.key).await;
                (through == Through::Unknown).then_some(one.key)
            });
        }
        while let Some(sent) = requests.join_next().await {
            client.late_cancels.borrow_mut().extend(sent.ok().flatten());
        }
        client.cancels.set(client.cancels.get() - 1);
        if client.cancels.get() == 0 {
            let freed = std::mem::take(&mut *client.limbo.borrow_mut());
            for conn in freed {
                self.hand_back(client, conn);
            }
            client.signal(|signals| signals.resume = true);
        }
    }

    /// Gives a client's backend back to its pool, once no cancel request for
    /// the client can reach it any more.
    pub(super) fn hand_back(self: &Rc<Self>, client: &Rc<ClientEntry>, conn: Box<Conn>) {
        if client.cancels.get() > 0 {
            client.limbo.borrow_mut().push(conn);
        } else if client.late_cancels.borrow().iter().any(|key| Rc::ptr_eq(key, &conn.key)) {
            drop(conn);
        } else {
            self.release(conn);
        }
    }

    /// Sends a cancel request and waits until the server has dealt with it.
    pub(super) async fn send_cancel(
        &self,
        database: usize,
        node: NodeId,
        key: &CancelKey,
    ) -> Through {
        let Some(database) = self.databases.get(database) else { return Through::Done };
        let map = database.map();
        let Some(node) = map.node(node) else { return Through::Done };
        let login = database.login(node.shard);
        let attempt = async {
            let mut stream = connect::open(node.host(), node.port(), &login).await?;
            let mut request = Vec::new();
            if encode::cancel_request(&mut request, key.pid, &key.secret).is_ok() {
                stream.write_all(&request).await?;
                // The server closes once the signal is sent.
                let mut nothing = [0; 16];
                while stream.read(&mut nothing).await? > 0 {}
            }
            Ok::<(), connect::ConnectError>(())
        };
        match tokio::time::timeout(clock::duration(CANCEL_WAIT), attempt).await {
            Ok(Ok(())) => Through::Done,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cancel request did not get through");
                Through::Done
            }
            Err(_) => Through::Unknown,
        }
    }
}

/// Has the client's thread cancel what it runs, and waits until that is through.
pub(super) async fn ask_to_cancel(owner: &mpsc::Sender<Command>, pid: u32, key: &[u8]) -> Whose {
    let (done, through) = oneshot::channel();
    match owner.send(Command::Cancel(pid, key.into(), done)).await {
        Ok(()) => through.await.unwrap_or(Whose::Nobodys),
        Err(_) => Whose::Nobodys,
    }
}

/// Whose client a cancel request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This router's; the request is through.
    Ours,
    /// Nobody's here: another router's, or the key is wrong.
    Nobodys,
}

/// Whether a cancel request is out of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    /// The server has dealt with it, or never got it.
    Done,
    /// It may still arrive.
    Unknown,
}

/// Longest wait for a cancel request to be through.
const CANCEL_WAIT: Millis = Millis::new(5_000);
