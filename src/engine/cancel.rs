//! Cancel requests: from a client, and to the backend that runs for it.
//!
//! A backend is not given to anyone else before every request to it is
//! through: a late cancel would hit the next client's statement.

use std::rc::Rc;

use crate::net::clock;
use crate::protocol::encode;
use crate::types::Millis;

use super::client::{ClientEntry, Running, State};
use super::connect;
use super::thread::Thread;

impl Thread {
    /// A client's CancelRequest. Whatever it names, the answer is silence.
    pub(super) async fn on_cancel_request(self: &Rc<Self>, pid: u32, key: &[u8]) {
        let client = self.clients.borrow().get(&pid).cloned();
        let Some(client) = client else { return };
        if !subtle::ConstantTimeEq::ct_eq(&*client.secret, key).unwrap_u8().eq(&1) {
            return;
        }
        self.stats.cancels.set(self.stats.cancels.get() + 1);
        match client.state.get() {
            State::Waiting => client.signal(|signals| signals.cancel_wait = true),
            State::Active => self.cancel_running(&client).await,
            State::Idle | State::InTransaction => {}
        }
    }

    /// Cancels what runs for the client, on every backend that it holds.
    pub(super) async fn cancel_running(self: &Rc<Self>, client: &Rc<ClientEntry>) {
        let running: Vec<Running> = client.running.borrow().iter().cloned().collect();
        client.cancels.set(client.cancels.get() + 1);
        let mut requests = tokio::task::JoinSet::new();
        for one in running {
            let (thread, database) = (Rc::clone(self), client.database);
            requests.spawn_local(async move { thread.send_cancel(database, &one).await });
        }
        while requests.join_next().await.is_some() {}
        client.cancels.set(client.cancels.get() - 1);
        if client.cancels.get() == 0 {
            let freed = std::mem::take(&mut *client.limbo.borrow_mut());
            for conn in freed {
                self.release(conn);
            }
        }
    }

    /// Sends a cancel request and waits until the server has dealt with it.
    pub(super) async fn send_cancel(&self, database: usize, running: &Running) {
        let Some(database) = self.databases.get(database) else { return };
        let map = database.map();
        let Some(node) = map.node(running.node) else { return };
        let login = database.login(node.shard);
        let attempt = async {
            let mut stream = connect::open(node.host(), node.port(), &login).await?;
            let mut request = Vec::new();
            if encode::cancel_request(&mut request, running.key.pid, &running.key.secret).is_ok() {
                stream.write_all(&request).await?;
                // The server closes once the signal is sent.
                let mut nothing = [0; 16];
                while stream.read(&mut nothing).await? > 0 {}
            }
            Ok::<(), connect::ConnectError>(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(clock::duration(CANCEL_WAIT), attempt).await {
            tracing::debug!(%error, "cancel request did not get through");
        }
    }
}

/// Longest wait for a cancel request to be through.
const CANCEL_WAIT: Millis = Millis::new(5_000);
