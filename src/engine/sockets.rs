//! Listening sockets that another process has bound: an older router that hands
//! them over, or the service manager. Says what they are; how they come here is
//! the program's business.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

/// A socket that clients connect to.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and where its file is.
    Unix(UnixListener, PathBuf),
}

impl Socket {
    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn duplicate(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener, path) => {
                listener.try_clone().map(|listener| Self::Unix(listener, path.clone()))
            }
        }
    }
}

/// Sockets that are there when the engine starts.
#[derive(Debug, Default)]
pub enum Inherited {
    /// None: all are bound.
    #[default]
    Nothing,
    /// An older router's. Those of the configuration are used, the rest is
    /// bound, and what is not configured is closed.
    Router(Vec<Socket>),
    /// The service manager's, instead of those of the configuration.
    Manager(Vec<Socket>),
}

impl Inherited {
    /// Takes the TCP socket that is bound to `address`.
    pub(super) fn take_tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let Self::Router(sockets) = self else { return None };
        let at = sockets.iter().position(|socket| match socket {
            Socket::Tcp(listener) => listener.local_addr().is_ok_and(|bound| bound == address),
            Socket::Unix(..) => false,
        })?;
        match sockets.swap_remove(at) {
            Socket::Tcp(listener) => Some(listener),
            Socket::Unix(..) => None,
        }
    }

    /// Takes the Unix socket at `path`.
    pub(super) fn take_unix(&mut self, path: &std::path::Path) -> Option<UnixListener> {
        let Self::Router(sockets) = self else { return None };
        let at = sockets.iter().position(|socket| match socket {
            Socket::Unix(_, bound) => bound == path,
            Socket::Tcp(_) => false,
        })?;
        match sockets.swap_remove(at) {
            Socket::Unix(listener, _) => Some(listener),
            Socket::Tcp(_) => None,
        }
    }
}
