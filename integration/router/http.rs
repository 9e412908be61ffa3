//! The operators' pages, read as plain text.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::router::Router;
use crate::wire::PATIENCE;

/// Status and body of a page.
pub fn get(router: &Router, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", router.http_port())).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (status, body)
}
