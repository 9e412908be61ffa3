//! Accepting sockets.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::net::{TcpListener, UnixListener};

use crate::net::stream::Stream;

use super::sockets::{Inherited, Socket};
use super::thread::Thread;

/// The sockets that the router listens on, bound before it says so.
pub(super) struct Listeners {
    tcp: Vec<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
    path: Option<PathBuf>,
    pub(super) addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Binds all of them but those that are `inherited`.
    pub(super) fn bind(
        tcp: &[SocketAddr],
        unix: Option<&Path>,
        mut inherited: Inherited,
    ) -> io::Result<Self> {
        let mut listeners = Self { tcp: Vec::new(), unix: None, path: None, addresses: Vec::new() };
        if let Inherited::Manager(sockets) = inherited {
            listeners.take_all(sockets)?;
            return Ok(listeners);
        }
        for address in tcp {
            if let Some(listener) = inherited.take_tcp(*address) {
                listeners.addresses.push(*address);
                listeners.tcp.push(listener);
                continue;
            }
            let domain = socket2::Domain::for_address(*address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)?;
            let listener: std::net::TcpListener = socket.into();
            listeners.addresses.push(listener.local_addr()?);
            listeners.tcp.push(listener);
        }
        if let Some(folder) = unix {
            let port = listeners.addresses.first().map_or(5432, SocketAddr::port);
            let path = folder.join(format!(".s.PGSQL.{port}"));
            if let Some(listener) = inherited.take_unix(&path) {
                listeners.unix = Some(listener);
                listeners.path = Some(path);
                return Ok(listeners);
            }
            if std::os::unix::net::UnixStream::connect(&path).is_err() {
                // A file left behind by a router that is gone.
                drop(std::fs::remove_file(&path));
            }
            let listener = std::os::unix::net::UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            listeners.unix = Some(listener);
            listeners.path = Some(path);
        }
        Ok(listeners)
    }

    fn take_all(&mut self, sockets: Vec<Socket>) -> io::Result<()> {
        for socket in sockets {
            match socket {
                Socket::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    self.addresses.push(listener.local_addr()?);
                    self.tcp.push(listener);
                }
                Socket::Unix(listener, _) => {
                    listener.set_nonblocking(true)?;
                    // Its file is the manager's.
                    self.unix = Some(listener);
                }
            }
        }
        Ok(())
    }

    /// Second descriptors of all of them, to hand them over.
    pub(super) fn duplicates(&self) -> io::Result<Vec<Socket>> {
        let tcp = self.tcp.iter().map(|listener| listener.try_clone().map(Socket::Tcp));
        let unix = self.unix.iter().zip(&self.path).map(|(listener, path)| {
            listener.try_clone().map(|listener| Socket::Unix(listener, path.clone()))
        });
        tcp.chain(unix).collect()
    }

    /// Accepts on all of them, until the thread drains or another router has
    /// taken them over.
    pub(super) fn start(mut self, thread: &Rc<Thread>) -> io::Result<()> {
        for listener in self.tcp.drain(..) {
            let listener = TcpListener::from_std(listener)?;
            thread.spawn(accept_tcp(Rc::clone(thread), listener));
        }
        if let Some(listener) = self.unix.take() {
            let listener = UnixListener::from_std(listener)?;
            thread.spawn(accept_unix(Rc::clone(thread), listener, self.path.take()));
        }
        Ok(())
    }
}

async fn accept_tcp(thread: Rc<Thread>, listener: TcpListener) {
    while thread.accepts() {
        let accepted = tokio::select! {
            // Cancel-safe: a connection that was not accepted stays queued.
            accepted = listener.accept() => accepted,
            () = until_drained(&thread) => return,
        };
        match accepted {
            Ok((socket, address)) => {
                let Ok(stream) = Stream::tcp(socket) else { continue };
                thread.admit(stream, Some(address));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

async fn accept_unix(thread: Rc<Thread>, listener: UnixListener, path: Option<PathBuf>) {
    while thread.accepts() {
        let accepted = tokio::select! {
            // Cancel-safe: a connection that was not accepted stays queued.
            accepted = listener.accept() => accepted,
            () = until_drained(&thread) => break,
        };
        match accepted {
            Ok((socket, _)) => {
                thread.admit(Stream::Unix(socket), None);
            }
            Err(error) => pause_after(&error).await,
        }
    }
    // The socket of a router that has retired is another's now.
    if let Some(path) = path.filter(|_| thread.draining.get() && !thread.retired.get()) {
        drop(std::fs::remove_file(path));
    }
}

async fn until_drained(thread: &Thread) {
    thread.drained.notified().await;
}

/// Out of descriptors, most likely: they come back when clients leave.
async fn pause_after(error: &io::Error) {
    tracing::error!(%error, "can't accept a connection");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
