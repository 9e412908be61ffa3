//! Cancel requests for clients of routers that this one has taken over from:
//! such a router serves them on, and is reached at a Unix socket of its own by
//! nothing else than CancelRequest as clients send it. Which sockets these are
//! the control plane says (`app::succession`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;

use crate::net::clock;
use crate::protocol::encode;
use crate::types::Millis;

/// The sockets of routers that may have clients left; `None` while a takeover
/// is under way.
pub type Predecessors = watch::Receiver<Option<Arc<[PathBuf]>>>;

/// Passes a cancel request on to the routers before this one, and waits until
/// each is done with it: whose client it is for nobody else knows.
pub(super) async fn pass_on(told: &Predecessors, pid: u32, key: &[u8]) {
    let mut request = Vec::new();
    if encode::cancel_request(&mut request, pid, key).is_err() {
        return;
    }
    let mut told = told.clone();
    let all = async {
        let Ok(paths) = told.wait_for(Option::is_some).await.map(|paths| paths.clone()) else {
            return;
        };
        for path in paths.iter().flat_map(|paths| paths.iter()) {
            if let Err(error) = ask(path, &request).await {
                // It has ended, as the last of its clients left.
                tracing::debug!(path = %path.display(), %error, "no router there");
            }
        }
    };
    if tokio::time::timeout(clock::duration(WAIT_MAX), all).await.is_err() {
        tracing::debug!("a cancel request for a client of a router before this one takes too long");
    }
}

async fn ask(path: &Path, request: &[u8]) -> io::Result<()> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(request).await?;
    // It closes once the request is through.
    let mut nothing = [0; 16];
    while stream.read(&mut nothing).await? > 0 {}
    Ok(())
}

/// Longest wait for the routers before this one.
const WAIT_MAX: Millis = Millis::new(15_000);
