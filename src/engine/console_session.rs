//! A client of the operators' console: simple queries, answered by the control
//! plane.

use std::io;
use std::rc::Rc;
use std::task::Poll;

use crate::net::stream::Stream;
use crate::protocol::backend::TxStatus;
use crate::protocol::encode::{self, Column};
use crate::protocol::frame::{HEADER_LEN, decode_header_within};
use crate::protocol::frontend::Query;
use crate::protocol::tag::frontend as tag;
use crate::session::Refused;
use crate::types::SqlState;

use super::client::{ClientEntry, State};
use super::console::{ConsoleReply, ConsoleRequest};
use super::thread::Thread;

/// Serves the console until the client leaves.
pub(super) async fn serve(
    thread: &Rc<Thread>,
    stream: &mut Stream,
    entry: &Rc<ClientEntry>,
    mut buf: Vec<u8>,
) -> io::Result<()> {
    let mut out = Vec::new();
    for (name, value) in [
        ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/keyway")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ] {
        encode::parameter_status(&mut out, name.as_bytes(), value.as_bytes())
            .map_err(io::Error::other)?;
    }
    encode::backend_key_data(&mut out, entry.id, &entry.secret).map_err(io::Error::other)?;
    encode::ready_for_query(&mut out, TxStatus::Idle);
    stream.write_all(&out).await?;
    let mut chunk = vec![0; 4096];
    loop {
        let header = decode_header_within(&buf, MESSAGE_MAX).map_err(io::Error::other)?;
        let Some(header) = header.filter(|header| buf.len() >= header.frame_len()) else {
            let read = match hear(stream, entry, &mut chunk).await? {
                Heard::Nothing => return Ok(()),
                Heard::Goodbye(reason) => {
                    let refused = Refused::new(SqlState::new("57P01"), reason);
                    return stream.write_all(&refused.fatal_frame()).await;
                }
                Heard::Bytes(read) => read,
            };
            buf.extend_from_slice(chunk.get(..read).unwrap_or_default());
            continue;
        };
        let frame: Vec<u8> = buf.drain(..header.frame_len()).collect();
        let body = frame.get(HEADER_LEN..).unwrap_or_default();
        let mut out = Vec::new();
        match header.tag {
            tag::QUERY => answer(thread, entry, body, &mut out).await,
            tag::TERMINATE => return Ok(()),
            tag::SYNC => encode::ready_for_query(&mut out, TxStatus::Idle),
            tag::PARSE => {
                let refused = Refused::new(
                    SqlState::new("0A000"),
                    "the console speaks the simple query protocol only",
                )
                .hint("use psql, or a driver's simple query mode");
                out.extend_from_slice(&refused.frame());
            }
            _ => {}
        }
        stream.write_all(&out).await?;
    }
}

/// What comes next on a console connection.
enum Heard {
    /// So many bytes of the client's.
    Bytes(usize),
    /// The client has left.
    Nothing,
    /// The client is to leave.
    Goodbye(&'static str),
}

/// Waits for the client, and for what others ask of its connection.
async fn hear(stream: &mut Stream, entry: &Rc<ClientEntry>, chunk: &mut [u8]) -> io::Result<Heard> {
    std::future::poll_fn(|cx| {
        entry.keep_waker(cx.waker());
        let signals = entry.signals.take();
        if signals.kill {
            let reason = "terminating connection due to administrator command";
            return Poll::Ready(Ok(Heard::Goodbye(reason)));
        }
        if signals.drain || signals.stop {
            let reason = "terminating connection: the router is shutting down";
            return Poll::Ready(Ok(Heard::Goodbye(reason)));
        }
        stream.poll_read(cx, chunk).map_ok(|read| match read {
            0 => Heard::Nothing,
            read => Heard::Bytes(read),
        })
    })
    .await
}

async fn answer(thread: &Rc<Thread>, entry: &Rc<ClientEntry>, body: &[u8], out: &mut Vec<u8>) {
    let text = Query::decode(body).ok().and_then(|q| std::str::from_utf8(q.0).ok());
    let replies = match text {
        None => vec![failed("08P01", "malformed query")],
        Some(text) => {
            entry.state.set(State::Waiting);
            let replies = ask(thread, entry, text).await;
            entry.state.set(State::Idle);
            replies
        }
    };
    for reply in &replies {
        write(reply, out);
    }
    encode::ready_for_query(out, TxStatus::Idle);
}

async fn ask(thread: &Rc<Thread>, entry: &Rc<ClientEntry>, text: &str) -> Vec<ConsoleReply> {
    let Some(console) = &thread.options.console else {
        return vec![failed("57P03", "the console is not running")];
    };
    let (reply, answer) = tokio::sync::oneshot::channel();
    let request = ConsoleRequest { text: text.to_owned(), reply };
    if console.send(request).await.is_err() {
        return vec![failed("57P03", "the console is shutting down")];
    }
    tokio::select! {
        answer = answer => {
            answer.unwrap_or_else(|_| vec![failed("57P03", "the console is shutting down")])
        }
        // What the command has begun stays begun: a pause lasts until RESUME.
        () = given_up(entry) => vec![failed("57014", "canceling command due to user request")],
    }
}

/// Waits until somebody asks for the end of the command that runs. What else is
/// asked of the connection is kept for when it is over.
async fn given_up(entry: &Rc<ClientEntry>) {
    std::future::poll_fn(|cx| {
        entry.keep_waker(cx.waker());
        let mut signals = entry.signals.get();
        let cancelled = std::mem::take(&mut signals.cancel_wait);
        entry.signals.set(signals);
        if cancelled || signals.kill || signals.stop { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn failed(state: &str, message: &str) -> ConsoleReply {
    ConsoleReply::Error { state: SqlState::new(state), message: message.to_owned(), hint: None }
}

fn write(reply: &ConsoleReply, out: &mut Vec<u8>) {
    match reply {
        ConsoleReply::Rows { columns, rows, tag } => {
            let described: Vec<Column<'_>> = columns
                .iter()
                .map(|column| match column.kind {
                    super::console::ColumnKind::Text => Column::text(column.name),
                    super::console::ColumnKind::Integer => Column::int8(column.name),
                })
                .collect();
            if encode::row_description(out, &described).is_err() {
                return;
            }
            for row in rows {
                let values = row.iter().map(|value| value.as_deref().map(str::as_bytes));
                if encode::data_row(out, values).is_err() {
                    return;
                }
            }
            encode::command_complete(out, tag);
        }
        ConsoleReply::Complete { tag } => encode::command_complete(out, tag),
        ConsoleReply::Empty => encode::empty_query(out),
        ConsoleReply::Error { state, message, hint } => {
            let mut refused = Refused::new(*state, message.clone());
            refused.hint.clone_from(hint);
            out.extend_from_slice(&refused.frame());
        }
    }
}

/// Longest message to the console, in bytes.
const MESSAGE_MAX: u32 = 64 * 1024;
