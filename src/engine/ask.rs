//! A question to the home shard on behalf of a client that logs in.

use std::rc::Rc;

use crate::backend::{Event, Expect, OwnPurpose, SettingsSet};
use crate::net::clock;
use crate::protocol::backend::{ErrorFields, ParameterStatus};
use crate::protocol::encode;
use crate::protocol::frame::{HEADER_LEN, decode};
use crate::protocol::tag::backend as tag;
use crate::session::Refused;
use crate::types::{Millis, SqlState};

use super::conn::Conn;
use super::thread::{Database, Thread};

/// Why there is no answer.
pub(super) enum Refusal {
    /// The server refuses the client's settings.
    Server(Refused),
    /// There is no server to ask.
    Unreachable,
}

/// Parameters that changed, as the server reported them.
type Reported = Vec<(String, String)>;

impl Thread {
    /// Makes sure that a home backend has said what it is; with `apply`, that
    /// it takes these settings.
    pub(super) async fn ask_home(
        self: &Rc<Self>,
        database: &Rc<Database>,
        user: &Rc<str>,
        settings: &SettingsSet,
        apply: bool,
    ) -> Result<Reported, Refusal> {
        if database.gate.is_paused() {
            return Err(Refusal::Unreachable);
        }
        let limit = clock::duration(ASK_WAIT);
        let attempt = async {
            let (home, declared) = database
                .with_map(|map, _| (map.home(), map.shard(map.home()).map(|shard| shard.primary)));
            // What it says of itself the declared one may say while nobody knows
            // which one is the primary.
            let pool = database
                .primary_of(home)
                .or(declared)
                .and_then(|node| self.pool(database, user, node))
                .ok_or(Refusal::Unreachable)?;
            let mut conn = match self.checkout(database, &pool) {
                Ok(conn) => conn,
                Err(waiting) => {
                    waiting.outcome().await.map_err(|refused| match refused.state.as_str() {
                        "08001" => Refusal::Unreachable,
                        // The server knows better who may log in.
                        _ => Refusal::Server(refused),
                    })?
                }
            };
            let answer =
                if apply { try_settings(self, &mut conn, settings).await } else { Ok(Vec::new()) };
            match &answer {
                Ok(_) => self.release(conn),
                Err(_) => self.clean_up(None, conn, super::cleanup::LeftBehind::Nothing, true),
            }
            answer
        };
        match tokio::time::timeout(limit, attempt).await {
            Ok(answer) => answer,
            Err(_) => Err(Refusal::Unreachable),
        }
    }
}

/// Brings the settings to the backend and hears what it makes of them.
async fn try_settings(
    thread: &Rc<Thread>,
    conn: &mut Conn,
    settings: &SettingsSet,
) -> Result<Reported, Refusal> {
    let wanted = thread.interner.borrow_mut().intern(settings.clone());
    let mut sql = String::new();
    wanted.transition(conn.machine.settings(), &mut sql);
    if sql.is_empty() {
        sql.push_str("SELECT 1");
    }
    let mut request = Vec::new();
    encode::query(&mut request, sql.as_bytes()).map_err(|_| Refusal::Unreachable)?;
    conn.machine.begin_unit(None);
    conn.machine.push(Expect::OwnQuery(OwnPurpose::Prelude));
    conn.stream.write_all(&request).await.map_err(|_| Refusal::Unreachable)?;
    let (mut raw, mut events, mut chunk) = (Vec::new(), Vec::new(), vec![0; 8 * 1024]);
    while !conn.machine.is_settled() {
        let read = conn.stream.read(&mut chunk).await.map_err(|_| Refusal::Unreachable)?;
        if read == 0 {
            return Err(Refusal::Unreachable);
        }
        let bytes = chunk.get(..read).unwrap_or_default();
        raw.extend_from_slice(bytes);
        conn.carry.extend_from_slice(bytes);
        let relayed = conn
            .machine
            .relay(&conn.carry, &mut Vec::new(), &mut events)
            .map_err(|_| Refusal::Unreachable)?;
        conn.carry.drain(..relayed.consumed);
        if raw.len() > ANSWER_MAX {
            return Err(Refusal::Unreachable);
        }
    }
    for event in &events {
        if let Event::OwnFailed(_, frame) = event {
            return Err(Refusal::Server(refused_by_server(frame)));
        }
    }
    conn.machine.set_settings(wanted);
    Ok(reported(&raw))
}

fn refused_by_server(frame: &[u8]) -> Refused {
    let body = frame.get(HEADER_LEN..).unwrap_or_default();
    match ErrorFields::decode(body) {
        Ok(fields) => Refused::new(
            fields.code().unwrap_or(SqlState::new("22023")),
            String::from_utf8_lossy(fields.message()).into_owned(),
        ),
        Err(_) => Refused::new(SqlState::new("22023"), "the server refuses a startup setting"),
    }
}

/// The ParameterStatus messages among the replies.
fn reported(raw: &[u8]) -> Reported {
    let mut out = Vec::new();
    let mut rest = raw;
    while let Ok(Some(frame)) = decode(rest) {
        if frame.tag == tag::PARAMETER_STATUS
            && let Ok(parameter) = ParameterStatus::decode(frame.body)
        {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            out.push((text(parameter.name), text(parameter.value)));
        }
        rest = rest.get(frame.bytes.len()..).unwrap_or_default();
    }
    out
}

/// Longest that a login waits for the home shard.
const ASK_WAIT: Millis = Millis::new(4_000);
/// Longest answer to a change of settings, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
