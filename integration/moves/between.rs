//! A wire in front of each shard that can be cut for the streams of moves, and
//! only for them: everybody comes by the address of the map, and the logins of
//! streams have names of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::routed::runtime;

/// How the streams fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// Connections are closed, and new ones too.
    Cut,
    /// Nothing comes through, and nobody is told.
    Silent,
}

/// The wire in front of one shard.
#[derive(Clone)]
pub(crate) struct Between {
    pub(crate) port: u16,
    state: Arc<AtomicU8>,
}

impl Between {
    /// Listens, for as long as the process lives, and passes on to `port`.
    pub(crate) fn start(port: u16) -> Self {
        let state = Arc::new(AtomicU8::new(Link::Up as u8));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = Self { port: listener.local_addr().unwrap().port(), state: Arc::clone(&state) };
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let Ok((client, _)) = listener.accept().await else { continue };
                    tokio::spawn(pass(client, port, Arc::clone(&state)));
                }
            });
        });
        own
    }

    pub(crate) fn set(&self, link: Link) {
        self.state.store(link as u8, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, port: u16, state: Arc<AtomicU8>) {
    // The first message says who it is; nobody asks for TLS here.
    let mut head = vec![0_u8; 4];
    if client.read_exact(&mut head).await.is_err() {
        return;
    }
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    head.resize(length.clamp(4, 10_000), 0);
    if client.read_exact(&mut head[4..]).await.is_err() {
        return;
    }
    let is_stream = head.windows(8).any(|part| part == b"user\0kw_");
    let state = is_stream.then_some(state);
    if let Some(state) = &state
        && stopped(state).await
    {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    if server.write_all(&head).await.is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, state.clone()) => {}
        () = copy(from_server, to_client, state) => {}
    }
}

/// Copies until an end, or until the link is cut.
async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: Option<Arc<AtomicU8>>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match &state {
            None => from.read(&mut buffer).await,
            Some(state) => {
                if stopped(state).await {
                    return;
                }
                match tokio::time::timeout(LOOK, from.read(&mut buffer)).await {
                    Ok(read) => read,
                    Err(_) => continue,
                }
            }
        };
        let Ok(count @ 1..) = read else { return };
        if let Some(state) = &state
            && stopped(state).await
        {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Waits while it is silent; true if it is cut.
async fn stopped(state: &AtomicU8) -> bool {
    loop {
        let now = state.load(Ordering::SeqCst);
        if now != Link::Silent as u8 {
            return now == Link::Cut as u8;
        }
        tokio::time::sleep(LOOK).await;
    }
}

const LOOK: Duration = Duration::from_millis(20);
