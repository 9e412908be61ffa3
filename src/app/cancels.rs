//! Where a router that another one has taken over from hears of cancel requests
//! for the clients that it still has: a Unix socket beside the one that handed
//! over its sockets, for the router's own user. What comes in is a CancelRequest
//! as clients send it; the connection closes when it is through.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::engine::Handle;
use crate::protocol::startup::{self, Packet};

/// The socket's file, which goes with this.
#[derive(Debug)]
pub(super) struct CancelDoor(PathBuf);

impl CancelDoor {
    /// Opens it beside `handover`; within a runtime.
    ///
    /// # Errors
    /// The path can't be bound.
    pub(super) fn open(handover: &Path, handle: Handle) -> io::Result<Self> {
        let mut path = handover.as_os_str().to_owned();
        path.push(format!(".cancels-{}", std::process::id()));
        // For a program with another working directory.
        let path = std::path::absolute(path)?;
        // One of a process that had this number before.
        drop(std::fs::remove_file(&path));
        let listener = UnixListener::bind(&path)?;
        let door = Self(path);
        std::fs::set_permissions(&door.0, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                let handle = handle.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) =
                        tokio::time::timeout(REQUEST_MAX, hear(peer, &handle)).await
                    {
                        tracing::debug!(%error, "what was passed on is no cancel request");
                    }
                });
            }
        });
        Ok(door)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CancelDoor {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Hears one request, and does what it asks.
async fn hear(mut peer: UnixStream, handle: &Handle) -> io::Result<()> {
    let asker = sockopt::socket_peercred(&peer)?.uid;
    if asker != rustix::process::geteuid() && !asker.is_root() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user asks"));
    }
    let mut bytes = Vec::new();
    loop {
        match startup::decode(&bytes) {
            Ok(Some((Packet::Cancel(cancel), _))) => {
                handle.cancel(cancel.pid, cancel.key).await;
                return Ok(());
            }
            Ok(None) => {}
            Ok(Some((Packet::Ssl | Packet::Gss | Packet::Startup(_), _))) | Err(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "another packet"));
            }
        }
        let mut some = [0; 512];
        let count = peer.read(&mut some).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(some.get(..count).unwrap_or_default());
    }
}

/// Longest life of a request.
const REQUEST_MAX: Duration = Duration::from_secs(15);
