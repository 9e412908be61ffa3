//! The operators' pages: `/metrics`, `/live` and `/ready`, on a port of their
//! own and without a login. They show no statement and no password.
//!
//! `/live` fails if the engine gives no snapshot in time. `/ready` fails while
//! no shard of any database can take writes, and while the router drains: one
//! dead shard out of two is no reason to take the router out of service, but
//! the body names it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::metrics;
use super::source::{Inputs, Intake, Source};
use crate::cluster::Health;

type Shared = Arc<dyn Source>;

/// Serves the pages until the future is dropped.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/live", get(live_page))
        .route("/ready", get(ready_page))
        .with_state(source);
    axum::serve(listener, pages).await
}

/// What `/ready` says, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether clients should be sent here.
    pub ready: bool,
    /// Why not; absent if they should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// Shards whose primary does not answer or was not asked yet, as
    /// `database/shard`.
    pub shards_down: Vec<String>,
    /// Replicas that don't answer, as `database/shard/host:port`.
    pub replicas_down: Vec<String>,
}

impl Readiness {
    /// What `inputs` amount to.
    pub fn of(inputs: &Inputs) -> Self {
        let (mut shards_down, mut replicas_down) = (Vec::new(), Vec::new());
        let mut serving = 0_usize;
        for view in &inputs.databases {
            for shard in view.map.shards() {
                // Who takes the writes now, whatever the map says.
                let writer = view.cluster.primary_of(shard.id);
                if writer.is_some_and(|node| view.cluster.health(node).may_serve()) {
                    serving += 1;
                } else {
                    shards_down.push(format!("{}/{}", view.name(), shard.name));
                }
                for node in std::iter::once(&shard.primary).chain(&shard.replicas) {
                    let is_down = view.cluster.health(*node) == Health::Down;
                    if is_down && Some(*node) != writer {
                        let address = view.address_of(*node);
                        replicas_down.push(format!("{}/{}/{address}", view.name(), shard.name));
                    }
                }
            }
        }
        let reason = match inputs.intake {
            Intake::Draining => Some("the router is shutting down"),
            Intake::Open if serving == 0 => Some("no shard's primary answers"),
            Intake::Open => None,
        };
        Self { ready: reason.is_none(), reason, shards_down, replicas_down }
    }
}

async fn metrics_page(State(source): State<Shared>) -> Response {
    match fresh(source.as_ref(), SNAPSHOT_WAIT).await {
        Ok(inputs) => {
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(inputs)).into_response()
        }
        Err(stuck) => stuck.into_response(),
    }
}

async fn live_page(State(source): State<Shared>) -> Response {
    match fresh(source.as_ref(), SNAPSHOT_WAIT).await {
        Ok(_) => (StatusCode::OK, "live\n").into_response(),
        Err(stuck) => stuck.into_response(),
    }
}

async fn ready_page(State(source): State<Shared>) -> Response {
    let readiness = match fresh(source.as_ref(), SNAPSHOT_WAIT).await {
        Ok(inputs) => Readiness::of(&inputs),
        Err(stuck) => return stuck.into_response(),
    };
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(&readiness).unwrap_or_default() + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A snapshot, or what to answer if there is none within `wait`.
async fn fresh(source: &dyn Source, wait: Duration) -> Result<Inputs, (StatusCode, &'static str)> {
    let stuck = (StatusCode::SERVICE_UNAVAILABLE, "the engine gave no snapshot in time\n");
    timeout(wait, source.inputs()).await.map_err(|_| stuck)
}

/// A thread that does not answer for so long is stuck.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::admin::source::{Action, Outcome, Refusal, Waiting};
    use crate::engine::snapshot::EngineSnapshot;
    use crate::types::Moment;

    /// A router without databases, whose engine answers or does not.
    struct Bare {
        stuck: AtomicBool,
    }

    impl Source for Bare {
        fn inputs(&self) -> Waiting<'_, Inputs> {
            if self.stuck.load(Ordering::Relaxed) {
                return Box::pin(std::future::pending());
            }
            let inputs = Inputs {
                engine: EngineSnapshot::default(),
                databases: Vec::new(),
                settings: Vec::new(),
                moves: Vec::new(),
                routers: Vec::new(),
                now: Moment::START,
                intake: Intake::Open,
            };
            Box::pin(std::future::ready(inputs))
        }

        fn carry_out(&self, _action: Action) -> Waiting<'_, Result<Outcome, Refusal>> {
            Box::pin(std::future::ready(Ok(Outcome::Killed)))
        }
    }

    async fn fetch(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn pages_say_whether_the_router_lives_and_is_ready() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let source = Arc::new(Bare { stuck: AtomicBool::new(false) });
            let pages = tokio::spawn(serve(listener, source.clone()));
            let page = fetch(address, "/metrics").await;
            assert!(page.starts_with("HTTP/1.1 200"), "{page}");
            assert!(page.contains(metrics::CONTENT_TYPE) && page.ends_with("# EOF\n"), "{page}");
            assert!(fetch(address, "/live").await.starts_with("HTTP/1.1 200"));
            let page = fetch(address, "/ready").await;
            assert!(page.starts_with("HTTP/1.1 503"), "{page}");
            assert!(page.contains(r#""reason":"no shard's primary answers""#), "{page}");
            assert!(fetch(address, "/other").await.starts_with("HTTP/1.1 404"));
            source.stuck.store(true, Ordering::Relaxed);
            let refused = fresh(source.as_ref(), Duration::ZERO).await;
            assert_eq!(refused.map(|_| ()).unwrap_err().0, StatusCode::SERVICE_UNAVAILABLE);
            pages.abort();
        });
    }
}
