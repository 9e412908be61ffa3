//! Changing places with another router without a refused connection: the new one
//! asks the old one for its listening sockets over a Unix socket, starts on
//! them, and says that it is ready; only then does the old one stop accepting.
//! No connection waits in a socket that nobody accepts on.
//!
//! Knows nothing of clients: those of the old router stay with it. The sockets
//! of systemd's activation come in here too (sd_listen_fds(3)).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::sync::{mpsc, oneshot};

use crate::engine::{Inherited, Socket};

/// Listening sockets, by what they are for.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// For clients.
    pub(super) clients: Vec<Socket>,
    /// For metrics and health.
    pub(super) pages: Option<TcpListener>,
}

/// The router whose sockets have been taken.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

/// What there is before the router binds anything itself.
#[derive(Debug, Default)]
pub(super) struct Start {
    pub(super) clients: Inherited,
    pub(super) pages: Option<TcpListener>,
    pub(super) predecessor: Option<Predecessor>,
}

impl Start {
    /// The sockets that the service manager passes, else with a path those of
    /// the router that offers its own there.
    ///
    /// # Errors
    /// Sockets of another kind, or a router that answers with something else.
    pub(super) fn find(names: Option<&str>, path: Option<&Path>) -> io::Result<Self> {
        if let Some(sockets) = from_manager(names)? {
            let clients = Inherited::Manager(sockets.clients);
            return Ok(Self { clients, pages: sockets.pages, predecessor: None });
        }
        let Some(path) = path else { return Ok(Self::default()) };
        let Some((sockets, predecessor)) = take(path)? else {
            tracing::info!(path = %path.display(), "no router to take over from: binding the addresses");
            return Ok(Self::default());
        };
        let clients = Inherited::Router(sockets.clients);
        Ok(Self { clients, pages: sockets.pages, predecessor: Some(predecessor) })
    }
}

/// Asks the router that offers its sockets at `path` for them. `None` if none
/// does.
///
/// # Errors
/// A router that answers, but not with sockets.
fn take(path: &Path) -> io::Result<Option<(Sockets, Predecessor)>> {
    let peer = match UnixStream::connect(path) {
        Ok(peer) => peer,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    peer.set_read_timeout(Some(ANSWER_MAX))?;
    let (words, descriptors) = receive(&peer)?;
    let sockets = named(&words, descriptors).ok_or_else(|| invalid("no list of sockets"))?;
    Ok(Some((sockets, Predecessor(peer))))
}

impl Predecessor {
    /// Tells the older router that this one accepts, and waits until the older
    /// one does no more. Returns where it, and those before it, hear of cancel
    /// requests for the clients that they have left; nowhere, if it is of a
    /// version that does not say.
    ///
    /// # Errors
    /// It is gone, or does not answer.
    pub(super) fn ready(mut self) -> io::Result<Vec<PathBuf>> {
        self.0.write_all(READY)?;
        let mut answer = [0; RETIRED.len()];
        self.0.read_exact(&mut answer)?;
        if answer != *RETIRED {
            return Err(invalid("an answer of another kind"));
        }
        let mut rest = String::new();
        let most = u64::try_from(WORDS_MAX).unwrap_or(u64::MAX);
        (&self.0).take(most).read_to_string(&mut rest)?;
        Ok(rest.lines().filter_map(|line| line.strip_prefix(CANCELS)).map(PathBuf::from).collect())
    }
}

/// A router that is ready to take over; told once this one has stopped
/// accepting, with the places where it and those before it hear of cancel
/// requests.
pub(super) type Successor = oneshot::Sender<Vec<PathBuf>>;

/// Offers sockets at `path` to a router of the same user; `sockets` makes the
/// descriptors. The successors come out of the receiver.
///
/// # Errors
/// The path can't be bound.
pub(super) fn offer(
    path: &Path,
    sockets: impl Fn() -> io::Result<Sockets> + Send + Sync + 'static,
) -> io::Result<mpsc::Receiver<Successor>> {
    // Whoever listened there is gone, or has retired.
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let (successors, out) = mpsc::channel(1);
    let sockets = std::sync::Arc::new(sockets);
    tokio::spawn(async move {
        while let Ok((peer, _)) = listener.accept().await {
            let Ok(peer) = peer.into_std() else { continue };
            let (sockets, successors) = (std::sync::Arc::clone(&sockets), successors.clone());
            let done =
                tokio::task::spawn_blocking(move || hand(peer, &*sockets, &successors)).await;
            match done {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no router has taken over; this one serves on");
                }
                Err(_) => return,
            }
        }
    });
    Ok(out)
}

/// Hands the sockets to one router. An error leaves everything as it was.
fn hand(
    mut peer: UnixStream,
    sockets: &dyn Fn() -> io::Result<Sockets>,
    successors: &mpsc::Sender<Successor>,
) -> io::Result<()> {
    peer.set_nonblocking(false)?;
    peer.set_read_timeout(Some(START_MAX))?;
    let asker = sockopt::socket_peercred(&peer)?.uid;
    if asker != rustix::process::geteuid() && !asker.is_root() {
        return Err(invalid("another user asks for the sockets"));
    }
    send(&peer, &sockets()?)?;
    let mut word = [0; READY.len()];
    peer.read_exact(&mut word)?;
    if word != *READY {
        return Err(invalid("a word of another kind"));
    }
    let (told, stopped) = oneshot::channel();
    if successors.blocking_send(told).is_err() {
        return Err(invalid("the router is ending"));
    }
    let Ok(places) = stopped.blocking_recv() else {
        return Err(invalid("the router is ending"));
    };
    let mut answer = RETIRED.to_vec();
    for place in places {
        answer.extend_from_slice(format!("{CANCELS}{}\n", place.display()).as_bytes());
    }
    // It has the sockets; that it hears of this is of no use to anybody here.
    drop(peer.write_all(&answer));
    Ok(())
}

/// Sends a line for each socket, with their descriptors beside it.
fn send(peer: &UnixStream, sockets: &Sockets) -> io::Result<()> {
    let mut words = VERSION.to_owned();
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    for socket in &sockets.clients {
        match socket {
            Socket::Tcp(listener) => {
                words.push_str("tcp\n");
                descriptors.push(listener.as_fd());
            }
            Socket::Unix(listener, path) => {
                words.push_str(&format!("unix {}\n", path.display()));
                descriptors.push(listener.as_fd());
            }
        }
    }
    if let Some(pages) = &sockets.pages {
        words.push_str("pages\n");
        descriptors.push(pages.as_fd());
    }
    if words.len() > WORDS_MAX || descriptors.len() > SOCKETS_MAX {
        return Err(invalid("too many sockets"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(peer, &[IoSlice::new(words.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(peer: &UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; WORDS_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got =
        recvmsg(peer, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let words = bytes.get(..got.bytes).unwrap_or_default();
    Ok((String::from_utf8_lossy(words).into_owned(), descriptors))
}

/// The sockets that `words` list; `None` if they are of another version, or
/// more or fewer than the descriptors.
fn named(words: &str, descriptors: Vec<OwnedFd>) -> Option<Sockets> {
    let lines: Vec<&str> = words.strip_prefix(VERSION)?.lines().collect();
    if lines.len() != descriptors.len() {
        return None;
    }
    let mut out = Sockets::default();
    for (line, descriptor) in lines.into_iter().zip(descriptors) {
        match line.split_once(' ') {
            None if line == "tcp" => out.clients.push(Socket::Tcp(descriptor.into())),
            None if line == "pages" => out.pages = Some(descriptor.into()),
            Some(("unix", path)) => {
                out.clients.push(Socket::Unix(descriptor.into(), PathBuf::from(path)));
            }
            None | Some(_) => return None,
        }
    }
    Some(out)
}

/// The sockets that the service manager passes: one that is called `pages` is
/// for metrics and health, all others are for clients. `None` if it passes none.
///
/// # Errors
/// A socket that nobody can connect to as a stream.
fn from_manager(names: Option<&str>) -> io::Result<Option<Sockets>> {
    let mut passed = listenfd::ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    let names: Vec<&str> = names.unwrap_or_default().split(':').collect();
    let mut out = Sockets::default();
    for at in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
            if names.get(at) == Some(&"pages") {
                listener.set_nonblocking(true)?;
                out.pages = Some(listener);
            } else {
                out.clients.push(Socket::Tcp(listener));
            }
        } else if let Some(listener) = passed.take_unix_listener(at)? {
            let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
            out.clients.push(Socket::Unix(listener, path.unwrap_or_default()));
        }
    }
    Ok(Some(out))
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// First line of the list.
const VERSION: &str = "keyway sockets 1\n";
const READY: &[u8; 6] = b"ready\n";
const RETIRED: &[u8; 8] = b"retired\n";
/// Before the path of a socket that hears of cancel requests. An older program
/// reads no further than `retired`.
const CANCELS: &str = "cancels ";
/// Sockets that can be handed over.
const SOCKETS_MAX: usize = 32;
/// Length of the list.
const WORDS_MAX: usize = 8192;
/// How long the new router has from getting the sockets to accepting.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the old router has to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_come_out_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("with a blank");
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let pages = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [tcp.local_addr().unwrap(), pages.local_addr().unwrap()];
        let unix = UnixListener::bind(&path).unwrap();
        let sockets = Sockets {
            clients: vec![Socket::Tcp(tcp), Socket::Unix(unix, path.clone())],
            pages: Some(pages),
        };
        let (one, other) = UnixStream::pair().unwrap();
        send(&one, &sockets).unwrap();
        drop(sockets);
        let (words, descriptors) = receive(&other).unwrap();
        let got = named(&words, descriptors).unwrap();
        let [Socket::Tcp(tcp), Socket::Unix(_, at)] = &got.clients[..] else {
            panic!("{got:?}");
        };
        let pages = got.pages.as_ref().unwrap();
        assert_eq!([tcp.local_addr().unwrap(), pages.local_addr().unwrap()], addresses);
        assert_eq!(*at, path);
        drop(UnixStream::connect(&path).unwrap());
    }

    #[test]
    fn list_of_another_version_or_length_is_refused() {
        let one = || vec![OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())];
        assert!(named("keyway sockets 1\ntcp\n", one()).is_some());
        for words in [
            "keyway sockets 2\ntcp\n",
            "keyway sockets 1\n",
            "keyway sockets 1\ntcp\ntcp\n",
            "keyway sockets 1\nudp\n",
            "",
        ] {
            assert!(named(words, one()).is_none(), "{words:?}");
        }
    }

    #[test]
    fn nobody_is_asked_where_nobody_offers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take(&dir.path().join("none")).unwrap().is_none());
        let left = dir.path().join("left");
        drop(UnixListener::bind(&left).unwrap());
        assert!(take(&left).unwrap().is_none());
    }
}
