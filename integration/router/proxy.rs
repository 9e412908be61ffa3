//! A wire between router and server on which cancel requests are slow: what
//! happens by chance elsewhere happens here each time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Passes connections on to `target`, cancel requests after `delay`. Returns
/// its port; serves for as long as the process lives.
pub fn slow_cancels(target: u16, delay: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            thread::spawn(move || drop(pass(client, target, delay)));
        }
    });
    port
}

fn pass(mut client: TcpStream, target: u16, delay: Duration) -> std::io::Result<()> {
    let mut head = [0; 8];
    client.read_exact(&mut head)?;
    if head[4..] == 80_877_102_u32.to_be_bytes() {
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
    std::io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Write)
}
