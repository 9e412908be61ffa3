//! A client of the wire protocol, small enough that nothing hides behind it.
//!
//! Independent of the router's own codec. Every read has a deadline.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longest wait for anything that a server says.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A message of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// An ErrorResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    pub severity: String,
    pub code: String,
    pub message: String,
    pub hint: String,
    /// The server's function that says it.
    pub routine: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The server says why.
    Refused(Refusal),
    /// The connection ended, or nothing came in time.
    Gone(io::Error),
}

impl Failure {
    #[track_caller]
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Gone(error) => panic!("no error message, but {error}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// What a query brought.
pub type Rows = Vec<Vec<Option<String>>>;

/// A connection after its login.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    pub params: HashMap<String, String>,
    pub pid: u32,
    pub key: Vec<u8>,
    /// NegotiateProtocolVersion's minor version, if it was sent.
    pub negotiated: Option<u32>,
}

impl Wire {
    /// Logs in as a user of whom no password is asked.
    #[track_caller]
    pub fn open(port: u16, user: &str) -> Self {
        match Self::try_open(port, &[("user", user), ("database", "app")], 0) {
            Ok(wire) => wire,
            Err(failure) => panic!("login of {user}: {failure:?}"),
        }
    }

    /// Logs in with these parameters and minor protocol version.
    pub fn try_open(port: u16, params: &[(&str, &str)], minor: u16) -> Result<Self, Failure> {
        let mut socket = connect(port)?;
        socket.write_all(&startup(params, minor))?;
        Self::greeted(socket)
    }

    /// Reads what comes after the startup message.
    pub fn greeted(socket: TcpStream) -> Result<Self, Failure> {
        let mut wire =
            Self { socket, params: HashMap::new(), pid: 0, key: Vec::new(), negotiated: None };
        loop {
            let message = wire.read()?;
            match message.tag {
                b'R' => assert_eq!(message.body, [0, 0, 0, 0], "no password is asked for"),
                b'S' => {
                    let (name, value) = pair(&message.body);
                    wire.params.insert(name, value);
                }
                b'K' => {
                    wire.pid = number(&message.body);
                    wire.key = message.body[4..].to_vec();
                }
                b'v' => wire.negotiated = Some(number(&message.body) & 0xFFFF),
                b'N' => {}
                b'Z' => return Ok(wire),
                b'E' => return Err(Failure::Refused(refusal(&message.body))),
                other => panic!("message {:?} at login", char::from(other)),
            }
        }
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    pub fn read(&mut self) -> io::Result<Message> {
        read(&mut self.socket)
    }

    pub fn send_query(&mut self, sql: &str) {
        self.send(b'Q', &[sql.as_bytes(), &[0]].concat());
    }

    pub fn send(&mut self, tag: u8, body: &[u8]) {
        self.socket.write_all(&frame(tag, body)).unwrap();
    }

    /// The rows of a simple query.
    pub fn query(&mut self, sql: &str) -> Result<Rows, Refusal> {
        self.send_query(sql);
        self.finish()
    }

    /// The one value of a query that must succeed.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        match self.query(sql) {
            Ok(rows) => rows[0][0].clone().unwrap_or_default(),
            Err(refusal) => panic!("{sql}: {refusal:?}"),
        }
    }

    /// True if the router says something within `limit`.
    pub fn answers_within(&self, limit: std::time::Duration) -> bool {
        let before = self.socket.read_timeout().unwrap();
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let heard = self.socket.peek(&mut [0]).is_ok();
        self.socket.set_read_timeout(before).unwrap();
        heard
    }

    /// Reads up to ReadyForQuery, or to a FATAL.
    pub fn finish(&mut self) -> Result<Rows, Refusal> {
        let mut rows = Rows::new();
        let mut refused = None;
        loop {
            let message = match self.read() {
                Ok(message) => message,
                Err(error) => panic!("waiting for ReadyForQuery: {error}; before: {refused:?}"),
            };
            match message.tag {
                b'D' => rows.push(columns(&message.body)),
                b'E' => {
                    let refusal = refusal(&message.body);
                    if refusal.severity == "FATAL" {
                        return Err(refusal);
                    }
                    refused.get_or_insert(refusal);
                }
                b'Z' => return refused.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// The error that the server sends unasked, after which it closes.
    pub fn farewell(&mut self) -> Refusal {
        loop {
            match self.read() {
                Ok(message) if message.tag == b'E' => {
                    let refusal = refusal(&message.body);
                    assert!(self.is_closed(), "the connection is closed after {refusal:?}");
                    return refusal;
                }
                Ok(message) => assert!(matches!(message.tag, b'N' | b'S'), "{message:?}"),
                Err(error) => panic!("a farewell was expected: {error}"),
            }
        }
    }

    /// True if the server closes without another message.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.socket.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// Asks for what this connection runs to be cancelled.
    pub fn cancel(&self, port: u16) {
        cancel(port, self.pid, &self.key);
    }
}

/// Sends a CancelRequest and waits until it has been dealt with.
pub fn cancel(port: u16, pid: u32, key: &[u8]) {
    let mut socket = connect(port).unwrap();
    let body = [&80_877_102_u32.to_be_bytes()[..], &pid.to_be_bytes(), key].concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    socket.write_all(&[&length[..], &body].concat()).unwrap();
    let mut nothing = Vec::new();
    // Whether it ends by an end or by a reset is no matter.
    drop(socket.read_to_end(&mut nothing));
    assert!(nothing.is_empty(), "a cancel request is not answered");
}

pub fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A startup message of protocol 3.
pub fn startup(params: &[(&str, &str)], minor: u16) -> Vec<u8> {
    let mut body = (196_608 + u32::from(minor)).to_be_bytes().to_vec();
    for (name, value) in params {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&length[..], &body].concat()
}

/// An SSLRequest or GSSENCRequest, by its code.
pub fn request(code: u32) -> Vec<u8> {
    [&8_u32.to_be_bytes()[..], &code.to_be_bytes()].concat()
}

pub const SSL: u32 = 80_877_103;
pub const GSS: u32 = 80_877_104;

pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

pub fn read(socket: &mut (impl Read + ?Sized)) -> io::Result<Message> {
    let mut head = [0; 5];
    socket.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
    socket.read_exact(&mut body)?;
    Ok(Message { tag: head[0], body })
}

pub fn refusal(body: &[u8]) -> Refusal {
    let mut refusal = Refusal::default();
    for field in body.split(|byte| *byte == 0).filter(|field| !field.is_empty()) {
        let value = String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            b'V' => refusal.severity = value,
            b'C' => refusal.code = value,
            b'M' => refusal.message = value,
            b'H' => refusal.hint = value,
            b'R' => refusal.routine = value,
            _ => {}
        }
    }
    refusal
}

fn columns(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = &body[2..];
    let mut out = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
        rest = &rest[4..];
        match usize::try_from(length) {
            Ok(length) => {
                out.push(Some(String::from_utf8_lossy(&rest[..length]).into_owned()));
                rest = &rest[length..];
            }
            Err(_) => out.push(None),
        }
    }
    out
}

fn pair(body: &[u8]) -> (String, String) {
    let mut parts = body.split(|byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap()).into_owned();
    (text(), text())
}

fn number(body: &[u8]) -> u32 {
    u32::from_be_bytes([body[0], body[1], body[2], body[3]])
}
