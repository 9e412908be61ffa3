//! Where a unit runs: on the backend that the session holds, or on one that it
//! needs first; and what is remembered between the two.

use std::ops::Range;
use std::rc::Rc;

use crate::backend::Backend;
use crate::cluster::Mark;
use crate::protocol::backend::TxStatus;
use crate::route::{Reason, Route, Targets, Template};
use crate::sql::statement::{Kind, TxModes};
use crate::types::{Access, ShardId};

use super::feed::Feed;
use super::lazy::Lazy;
use super::refusal::{NOT_SUPPORTED, Refused};
use super::statements::Prepared;
use super::{Span, Tx, Want};

/// What one feed leaves for the next, which begins with the same bytes.
#[derive(Default)]
pub(super) struct Pending {
    template: Option<Rc<Template>>,
    outside: bool,
    refused: Option<Box<[u8]>>,
    /// The unit's place is decided; its backend is being got ready.
    placed: bool,
    /// The backend is for the transaction of a read over several shards, which
    /// is placed anew.
    spread: bool,
    /// What is known of the batch's first message.
    found: Option<Found>,
    /// What of the shard the placed unit touches; nobody knows if `None`.
    mark: Option<Mark>,
    /// The replica of the transaction has what the unit must see.
    fresh: bool,
    /// A statement of the batch ends the transaction.
    ended: bool,
    /// The modes of a BEGIN that stands in the batch before the statement that
    /// is looked at.
    begins: Option<TxModes>,
}

/// What looking ahead for a batch's shard found out of its first message, which
/// is the first that the next feed sees. Both belong to the map with a serial.
pub(super) enum Found {
    /// A Parse; its constants are the planner's while that has `planned` no more.
    Parse { serial: u64, planned: u64, template: Rc<Template> },
    /// A well-formed Bind of a plain statement, where in its body the name
    /// stands, and the shard that its values name.
    Bind {
        serial: u64,
        prepared: Rc<Prepared>,
        name: Range<usize>,
        shard: ShardId,
        /// What it writes; nothing if `None`.
        writes: Option<Mark>,
    },
}

impl Pending {
    pub(super) fn refuse(&mut self, refused: Refused) {
        self.refused = Some(refused.frame().into());
    }

    pub(super) fn refuse_frame(&mut self, frame: Box<[u8]>) {
        self.refused = Some(frame);
    }

    pub(super) const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    #[inline]
    pub(super) fn take_refused(&mut self) -> Option<Box<[u8]>> {
        let refused = self.refused.take()?;
        self.clear();
        Some(refused)
    }

    pub(super) fn keep(&mut self, template: Rc<Template>) {
        self.template = Some(template);
        self.placed = true;
    }

    pub(super) fn keep_found(&mut self, found: Found) {
        self.found = Some(found);
    }

    pub(super) fn take_found(&mut self) -> Option<Found> {
        self.found.take()
    }

    pub(super) fn place(&mut self) {
        self.placed = true;
    }

    pub(super) const fn spread(&mut self) {
        self.spread = true;
    }

    /// True once, of a unit that is placed anew.
    pub(super) fn take_spread(&mut self) -> bool {
        let spread = std::mem::take(&mut self.spread);
        if spread {
            self.clear();
        }
        spread
    }

    pub(super) const fn is_placed(&self) -> bool {
        self.placed
    }

    pub(super) fn take_template(&mut self) -> Option<Rc<Template>> {
        self.template.take()
    }

    pub(super) const fn set_outside(&mut self, outside: bool) {
        self.outside = outside;
    }

    pub(super) const fn is_outside(&self) -> bool {
        self.outside
    }

    pub(super) const fn touch(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark.unwrap_or(Mark::Shard)
    }

    pub(super) const fn note_fresh(&mut self) {
        self.fresh = true;
    }

    pub(super) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) const fn note_ended(&mut self) {
        self.ended = true;
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) const fn set_begins(&mut self, modes: Option<TxModes>) {
        self.begins = modes;
    }

    pub(super) const fn begins(&self) -> Option<TxModes> {
        self.begins
    }

    pub(super) fn clear(&mut self) {
        self.template = None;
        self.mark = None;
        self.fresh = false;
        self.ended = false;
        self.begins = None;
        self.outside = false;
        self.placed = false;
        self.spread = false;
        self.found = None;
    }
}

/// A statement that goes to every shard, one after the other.
pub(super) struct Everywhere {
    pub(super) shards: Vec<(ShardId, Box<str>)>,
    pub(super) next: usize,
    pub(super) tag: Option<Box<[u8]>>,
    pub(super) failed: Option<Box<[u8]>>,
}

/// Where a unit runs.
pub(super) enum Place {
    /// On the backend that the session holds.
    Here,
    /// The same, once this replica has what it must see.
    Fresh(Want),
    /// On a backend that it does not hold yet.
    Need(Want),
    /// On several shards at once.
    Several(Box<[ShardId]>),
    /// Nowhere yet: its keys are about to belong to another shard.
    Wait,
    /// Nowhere.
    Refuse(Refused),
}

impl Feed<'_, '_> {
    /// Decides where a statement with this route runs.
    pub(super) fn place(&mut self, template: &Template, route: &Route) -> Place {
        self.s.pending.touch(route.mark);
        if !route.touched.is_none()
            && let Some(place) = self.place_on_moves(template, route)
        {
            return place;
        }
        let map = self.map();
        let home = map.home();
        let bound = self.env.backend.as_ref().map(|(backend, shard)| (is_busy(backend), *shard));
        let (shard, movable) = match &route.targets {
            Targets::Shard(shard) => (*shard, false),
            // How things stand with the transaction, or a table of the session's
            // own, its shard knows.
            Targets::Home if matches!(route.reason, Reason::Temporary | Reason::Session) => {
                (bound.map_or(home, |(_, shard)| shard), false)
            }
            Targets::Home => (home, false),
            Targets::AnyShard if route.reason == Reason::Cursor => {
                match self.s.kept.shard_of_cursors() {
                    Ok(Some(shard)) if self.env.backend.is_none() => (shard, false),
                    Ok(_) => (home, true),
                    Err(refused) if self.env.backend.is_none() => return Place::Refuse(refused),
                    Err(_) => (home, true),
                }
            }
            Targets::HomeOutside | Targets::AnyShard => (home, true),
            Targets::Several(several) => return Place::Several(several.shards.clone()),
            Targets::AllInTurn | Targets::Router(_) => {
                return Place::Refuse(
                    Refused::new(
                        NOT_SUPPORTED,
                        "this statement can't be part of a longer query string or batch here",
                    )
                    .hint("send it alone"),
                );
            }
        };
        if let Some(bound) = bound {
            return self.place_beside(template, route, (shard, movable), bound);
        }
        let lazy = match &self.s.tx {
            Tx::Lazy(lazy) => Some(lazy),
            Tx::Backend => None,
        };
        // DISCARD means the transaction that it stands in.
        let discards = || template.statements().iter().any(|facts| facts.kind == Kind::Discard);
        // Without a table or a relation of the catalog nothing shows of a
        // transaction's snapshot, whatever its modes are.
        let blind = route.reason == Reason::NoTable;
        let beside = |lazy: &Lazy| lazy.is_plain() || (blind && lazy.has_only_begun());
        let outside = movable && lazy.is_some_and(|lazy| beside(lazy)) && !discards();
        self.s.pending.set_outside(outside);
        let opens = lazy.is_some() && !outside || self.s.pending.begins().is_some();
        let (replica, mark, span) = if opens {
            // Whatever else it reads, it must be there.
            (self.opens_on_replica(template), Mark::Shard, Span::Transaction)
        } else {
            let apart = template.replica_ok() && !self.s.serializable && self.lets_go();
            (apart, route.mark, Span::Unit)
        };
        let access = if replica { Access::Read } else { Access::Write };
        let consistency = template.level(self.s.own.consistency());
        Place::Need(Want { shard, access, consistency, mark, span })
    }

    /// Where a statement for `shard`, or for any if it is movable, runs while
    /// the session holds a backend of another, or of the same.
    fn place_beside(
        &mut self,
        template: &Template,
        route: &Route,
        (shard, movable): (ShardId, bool),
        (busy, bound): (bool, ShardId),
    ) -> Place {
        if movable && shard != bound && self.asks_home(template) {
            return Place::Several([shard].into());
        }
        if movable || shard == bound {
            if self.is_on_replica() {
                let consistency = template.level(self.s.own.consistency());
                let (access, mark, span) = (Access::Read, route.mark, Span::Unit);
                let want = Want { shard: bound, access, consistency, mark, span };
                return self.place_on_replica(template, want);
            }
            return Place::Here;
        }
        let keyed = matches!(route.targets, Targets::Shard(_));
        if keyed && busy && reads_only(template) && self.in_backend_transaction() {
            return Place::Several([shard].into());
        }
        // What it holds, its transaction, or an earlier message of this batch
        // has bound it.
        Place::Refuse(self.other_shard(shard, bound))
    }

    pub(super) fn other_shard(&self, wanted: ShardId, bound: ShardId) -> Refused {
        let name = |id| self.map().shard(id).map_or("?", |shard| &*shard.name);
        let mut refused = Refused::new(
            NOT_SUPPORTED,
            format!(
                "statement belongs to shard {}, but the transaction runs on shard {}",
                name(wanted),
                name(bound)
            ),
        );
        refused.hint = Some(
            "statements of one transaction or one batch must stay on one shard; commit first, or send it in a batch of its own".to_owned(),
        );
        refused
    }
}

/// True for a query that only reads: any shard may join a transaction for it.
fn reads_only(template: &Template) -> bool {
    let plain = |facts: &crate::sql::statement::Facts| {
        facts.is_plain() && facts.kind == Kind::Select && facts.access == Access::Read
    };
    matches!(template.statements(), [one] if plain(one)) && template.access() == Access::Read
}

/// True if a transaction or an unfinished unit is on it.
fn is_busy(backend: &Backend) -> bool {
    backend.status() != TxStatus::Idle || backend.owed() > 0
}
