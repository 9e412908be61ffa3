//! A wire between router and server on which some things are slow: what
//! happens by chance elsewhere happens here each time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// What is passed on late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    Cancels,
    /// Statements with the word `held-back`, and what comes after them.
    HeldBack,
}

/// Passes connections on to `target`, what is slow after `delay`. Returns its
/// port; serves for as long as the process lives.
pub fn slow(what: Slow, target: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            thread::spawn(move || drop(pass(client, what, target, delay)));
        }
    });
    port
}

fn pass(mut client: TcpStream, what: Slow, target: u16, delay: Duration) -> std::io::Result<()> {
    let mut head = [0; 8];
    client.read_exact(&mut head)?;
    if what == Slow::Cancels && head[4..] == 80_877_102_u32.to_be_bytes() {
        thread::sleep(delay);
    }
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    server.write_all(&head)?;
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        drop(std::io::copy(&mut from_server, &mut to_client));
        drop(to_client.shutdown(Shutdown::Both));
    });
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = client.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        let marked = chunk[..read].windows(9).any(|window| window == b"held-back");
        if what == Slow::HeldBack && marked {
            thread::sleep(delay);
        }
        server.write_all(&chunk[..read])?;
    }
    server.shutdown(Shutdown::Write)
}
