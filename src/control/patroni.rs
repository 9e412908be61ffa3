//! Asks a node's Patroni whether the node leads.
//!
//! One GET over HTTP/1.1, of whose answer only the status counts: 200 from the
//! leader, 503 from any other. Everything else, and silence, says nothing.
//! Source: Patroni's manual, "Patroni REST API", health check endpoints.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::monitor::{Board, Rhythm, Target};
use crate::health::Voucher;
use crate::net::clock;

/// Asks for ever whether `target` leads, while it says so itself.
pub(super) async fn vouch(target: Target, url: String, rhythm: Rhythm, board: Arc<Board>) {
    let (node, shard) = (target.member.node, target.member.shard);
    let limit = clock::duration(rhythm.deadline);
    let mut said = Voucher::Silent;
    loop {
        let question = board.watch().question(node);
        let mut wait = SOON;
        if let Some(question) = question {
            let before = board.headline(node, shard);
            let voucher = ask(&url, limit).await;
            board.watch().vouched(question, voucher);
            if voucher != said {
                tracing::info!(node = %target.name, patroni = word(voucher), "patroni");
                said = voucher;
            }
            let after = board.headline(node, shard);
            if after != before {
                board.tell(&target, before, after);
                board.publish();
            }
            if voucher == Voucher::Confirmed {
                wait = INTERVAL;
            }
        } else {
            said = Voucher::Silent;
        }
        tokio::time::sleep(wait).await;
    }
}

const fn word(voucher: Voucher) -> &'static str {
    match voucher {
        Voucher::Silent => "says nothing",
        Voucher::Confirmed => "says that it leads",
        Voucher::Denied => "says that it does not lead",
    }
}

/// What is answered at `url` within `limit`.
async fn ask(url: &str, limit: Duration) -> Voucher {
    let asked = tokio::time::timeout(limit, status(url)).await;
    match asked.ok().flatten() {
        Some(200) => Voucher::Confirmed,
        Some(503) => Voucher::Denied,
        Some(_) | None => Voucher::Silent,
    }
}

/// The status of the answer to a GET of `url`; `None` if there is none.
async fn status(url: &str) -> Option<u16> {
    let rest = url.strip_prefix("http://")?;
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        place.to_owned()
    } else {
        format!("{place}:80")
    };
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {place}\r\nUser-Agent: keyway\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = [0_u8; STATUS_BYTES];
    stream.read_exact(&mut head).await.ok()?;
    status_of(&head)
}

/// The status of an answer that begins so.
fn status_of(head: &[u8; STATUS_BYTES]) -> Option<u16> {
    let text = std::str::from_utf8(head).ok()?;
    let code = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?;
    code.bytes().all(|byte| byte.is_ascii_digit()).then(|| code.parse().ok())?
}

/// Up to the end of the status: `HTTP/1.1 200`.
const STATUS_BYTES: usize = 12;
/// How often a leader that is confirmed is asked again.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often any other is.
const SOON: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What `ask` makes of a server that answers so, and the request it got.
    async fn asked(answer: &'static [u8]) -> (Voucher, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            // The asker may have heard enough.
            let _ = stream.write_all(answer).await;
            String::from_utf8(request[..read].to_vec()).unwrap()
        });
        let url = format!("http://{address}/primary");
        let voucher = ask(&url, Duration::from_secs(30)).await;
        (voucher, server.await.unwrap())
    }

    #[test]
    fn only_two_hundred_confirms_and_only_five_hundred_and_three_denies() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let leader =
                b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6\r\n\r\n{\"state\": \"running\", \
                           \"role\": \"primary\"}";
            let (voucher, request) = asked(leader).await;
            assert_eq!(voucher, Voucher::Confirmed);
            assert!(request.starts_with("GET /primary HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
            assert!(request.ends_with("\r\n\r\n"), "{request}");
            let replica = b"HTTP/1.0 503 Service Unavailable\r\n\r\n{\"role\": \"replica\"}";
            assert_eq!(asked(replica).await.0, Voucher::Denied);
            for nonsense in [
                b"HTTP/1.1 404 Not Found\r\n\r\n".as_slice(),
                b"HTTP/1.1 500 Oh\r\n\r\n",
                b"HTTP/1.1 +20 OK\r\n\r\n",
                b"SSH-2.0-OpenSSH_9.2\r\n",
                b"HTTP/1.1 20",
                b"",
            ] {
                assert_eq!(asked(nonsense).await.0, Voucher::Silent, "{nonsense:?}");
            }
            let nobody = ask("http://127.0.0.1:1/primary", Duration::from_secs(30)).await;
            assert_eq!(nobody, Voucher::Silent);
        });
    }
}
