//! The settings of the router's own: `keyway.consistency`, `keyway.key`,
//! `keyway.key.KEYSPACE` and `keyway.shard`.
//!
//! No server knows them, so their transactions are kept here, with the same log
//! and savepoints as the servers' settings: a ROLLBACK takes them back, SET LOCAL
//! ends with the transaction. RESET goes back to what the startup message gave.

use std::rc::Rc;

use crate::protocol::frontend::Execute;
use crate::protocol::tag::frontend as tag;
use crate::route::{Declared, RouteError, RouterCommand};
use crate::shardmap::Map;
use crate::types::{Consistency, SqlState};

use super::effects::Effect;
use super::feed::{Feed, refuse_route};
use super::refusal::{INVALID_VALUE, NO_TRANSACTION, Refused, UNDEFINED_OBJECT};
use super::{Phase, Placement, Session, Tx};

/// The router's settings of one session.
#[derive(Default)]
pub(super) struct Own {
    /// As they are within the running transaction.
    now: Values,
    /// As they are outside of it.
    settled: Values,
    startup: Values,
}

#[derive(Clone, Default)]
struct Values {
    consistency: Option<Consistency>,
    declared: Option<Rc<Declared>>,
}

/// One SET or RESET.
#[derive(Clone, Debug)]
pub(super) struct Change {
    what: What,
    /// `None` goes back to the startup's.
    value: Option<Box<str>>,
    local: bool,
}

#[derive(Clone, Debug)]
enum What {
    Consistency,
    Key(Option<Box<str>>),
    Shard,
}

impl What {
    fn named(name: &str) -> Option<Self> {
        match name {
            "keyway.consistency" => Some(Self::Consistency),
            "keyway.key" => Some(Self::Key(None)),
            "keyway.shard" => Some(Self::Shard),
            _ => name.strip_prefix("keyway.key.").map(|name| Self::Key(Some(name.into()))),
        }
    }
}

impl Values {
    fn apply(&mut self, change: &Change, startup: &Self) {
        let Change { what, value, .. } = change;
        match what {
            What::Consistency => {
                let set = value.as_ref().and_then(|text| text.parse().ok());
                self.consistency = if value.is_some() { set } else { startup.consistency };
            }
            What::Key(keyspace) => {
                let keyspace = keyspace.as_deref();
                let first = startup.declared.as_deref().and_then(|one| one.key(keyspace));
                let key = value.as_deref().or(first);
                self.declare(|declared| declared.set_key(keyspace, key));
            }
            What::Shard => {
                let first = startup.declared.as_deref().and_then(Declared::shard);
                let name = value.as_deref().or(first);
                self.declare(|declared| declared.set_shard(name));
            }
        }
    }

    fn declare(&mut self, change: impl FnOnce(&mut Declared)) {
        let mut declared = self.declared.as_deref().cloned().unwrap_or_default();
        change(&mut declared);
        self.declared = (!declared.is_empty()).then(|| Rc::new(declared));
    }

    fn take_in<'e>(
        &mut self,
        effects: impl Iterator<Item = &'e Effect>,
        startup: &Self,
        all: bool,
    ) {
        for effect in effects {
            match effect {
                Effect::Own(change) if all || !change.local => self.apply(change, startup),
                Effect::RestoreAll => self.clone_from(startup),
                _ => {}
            }
        }
    }
}

impl Own {
    pub(super) const fn consistency(&self) -> Option<Consistency> {
        self.now.consistency
    }

    /// What is declared of keys and shards; `None` if nothing is.
    pub(super) fn declared(&self) -> Option<&Declared> {
        self.now.declared.as_deref()
    }

    /// All of them go back to the startup's.
    pub(super) fn forget(&mut self) {
        self.settled = self.startup.clone();
        self.now = self.startup.clone();
    }

    /// A transaction with these effects is done.
    pub(super) fn settle<'e>(&mut self, effects: impl Iterator<Item = &'e Effect>) {
        self.settled.take_in(effects, &self.startup, false);
    }
}

impl Session {
    /// Takes a setting of the startup message, whose name begins with `keyway.`.
    ///
    /// # Errors
    /// It is none of the router's settings, or has no such value.
    pub fn begin_with(&mut self, name: &str, value: &str, map: &Map) -> Result<(), Refused> {
        let change = change(name, Some(value), map)?;
        self.may_declare(&change)?;
        self.own.startup.apply(&change, &Values::default());
        self.own.forget();
        Ok(())
    }

    /// Whether the client may make this change.
    fn may_declare(&self, change: &Change) -> Result<(), Refused> {
        let places = match change.what {
            What::Consistency => false,
            What::Key(_) | What::Shard => change.value.is_some(),
        };
        if places { self.may_place() } else { Ok(()) }
    }

    /// Whether the client may say where a statement runs.
    pub(super) fn may_place(&self) -> Result<(), Refused> {
        match self.placement {
            Placement::Allowed => Ok(()),
            Placement::Forbidden => {
                let message = "permission denied to say where statements run";
                Err(Refused::new(NOT_ALLOWED, message)
                    .hint("hints = true of the user in the configuration gives it"))
            }
        }
    }

    /// The running transaction's changes have changed: the router's settings and
    /// the search path follow.
    pub(super) fn refresh_own(&mut self) {
        let mut now = self.own.settled.clone();
        if let Tx::Lazy(lazy) = &self.tx {
            now.take_in(lazy.effects(), &self.own.startup, true);
        }
        now.take_in(self.log.effects(), &self.own.startup, true);
        self.own.now = now;
        self.refresh_path();
    }

    fn change_own(&mut self, change: Change, transaction: bool) {
        match &mut self.tx {
            Tx::Lazy(lazy) => lazy.keep(b"", vec![Effect::Own(change)]),
            Tx::Backend if transaction => self.log.push(Effect::Own(change)),
            Tx::Backend => self.own.settle(std::iter::once(&Effect::Own(change))),
        }
        self.refresh_own();
    }
}

impl Feed<'_, '_> {
    /// SET or RESET of a setting of the router's. `Some`: it had no effect, as
    /// this warning says.
    pub(super) fn set_keyway(
        &mut self,
        name: &str,
        value: Option<&str>,
        local: bool,
    ) -> Result<Option<(SqlState, &'static str)>, Refused> {
        if name == "keyway.after" {
            return self.set_after(value).map(|()| None);
        }
        let mut change = change(name, value, self.map())?;
        self.s.may_declare(&change)?;
        change.local = local;
        let transaction = self.in_backend_transaction() || matches!(self.s.tx, Tx::Lazy(_));
        if local && !transaction {
            return Ok(Some((NO_TRANSACTION, "SET LOCAL can only be used in transaction blocks")));
        }
        // A batch is one transaction up to its Sync.
        self.s.change_own(change, transaction || self.s.phase != Phase::Idle);
        Ok(None)
    }

    pub(super) fn show_keyway(&self, name: &str) -> Result<String, Refused> {
        let declared = self.s.own.declared();
        let shown = match What::named(name) {
            Some(What::Consistency) => {
                return Ok(self.s.own.consistency().unwrap_or(self.env.consistency).to_string());
            }
            Some(What::Key(keyspace)) => declared.and_then(|one| one.key(keyspace.as_deref())),
            Some(What::Shard) => declared.and_then(Declared::shard),
            None => match name {
                "keyway.token" => return self.show_token(),
                "keyway.epoch" => return Ok(self.map().epoch().number().to_string()),
                "keyway.version" => return Ok(env!("CARGO_PKG_VERSION").to_owned()),
                other => return Err(unknown_setting(other)),
            },
        };
        Ok(shown.unwrap_or_default().to_owned())
    }

    /// Whether the message executes a SET of the router's: what comes after it
    /// can't be routed before.
    pub(super) fn sets_keyway(&self, kind: u8, body: &[u8]) -> bool {
        kind == tag::EXECUTE
            && !self.s.portals.is_empty()
            && Execute::decode(body).is_ok_and(|execute| {
                let portal = self.s.portals.get(execute.portal);
                portal.and_then(|portal| portal.local.as_ref()).is_some_and(|local| {
                    matches!(
                        self.router_command(local.template()),
                        Some(RouterCommand::SetKeyway { .. })
                    )
                })
            })
    }
}

/// Checks a SET or RESET against the map.
fn change(name: &str, value: Option<&str>, map: &Map) -> Result<Change, Refused> {
    let what = What::named(name).ok_or_else(|| unknown_setting(name))?;
    let checked = match (&what, value) {
        (_, None) => Ok(()),
        (What::Consistency, Some(text)) => {
            text.parse::<Consistency>().map(|_| ()).map_err(|error| {
                Refused::new(
                    INVALID_VALUE,
                    format!("invalid value for keyway.consistency: {error}"),
                )
                .hint("use primary, session, slot, any, or bounded(milliseconds)")
            })
        }
        (What::Key(keyspace), Some(key)) => Declared::check_key(map, keyspace.as_deref(), key)
            .map_err(|error| invalid(name, &error)),
        (What::Shard, Some(shard)) => {
            Declared::check_shard(map, shard).map_err(|error| invalid(name, &error))
        }
    };
    checked.map(|()| Change { what, value: value.map(Into::into), local: false })
}

fn invalid(name: &str, error: &RouteError) -> Refused {
    match error {
        RouteError::Undeclared { reason } => {
            Refused::new(INVALID_VALUE, format!("invalid value for {name}: {reason}"))
        }
        other => refuse_route(other),
    }
}

fn unknown_setting(name: &str) -> Refused {
    Refused::new(UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
        .hint("the router knows keyway.consistency, keyway.key, keyway.shard, keyway.after, keyway.token, keyway.epoch and keyway.version")
}

/// `insufficient_privilege`
const NOT_ALLOWED: SqlState = SqlState::new("42501");
