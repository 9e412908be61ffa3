//! A session whose keys are being moved to another shard: what waits for the
//! cutover, what runs again after the fence has refused it, and what fails
//! because its transaction is older than the map.
//!
//! Reads stay where the map in force says, without waiting. What may write, or
//! stands in a transaction, waits while its move is held, if nothing of it was
//! sent yet; what has begun goes on to its end. The map of a transaction is the
//! one of its first statement that has a shard; a later statement whose keys
//! have another owner by now fails, whichever shard it would have run on.
//!
//! It does not know how long anything waits: the shell does.

use std::sync::Arc;

use crate::route::{Params, Route, RouteError, Targets, Template};
use crate::shardmap::{Map, MoveId, Phase as MovePhase, Touched};
use crate::sql::literal::Literals;
use crate::types::{Access, Millis, SqlState};

use super::feed::{Feed, refuse_route};
use super::lazy::Lazy;
use super::place::Place;
use super::refusal::Refused;
use super::{Session, Tx};

/// What a session has open on keys that move.
#[derive(Debug)]
pub(super) struct OnMoves {
    /// The moves.
    ids: Vec<MoveId>,
    /// Nothing ran before the running unit in its transaction.
    first: bool,
    /// The transaction that the client had begun before that.
    begun: Option<Lazy>,
}

impl Session {
    /// True while what the session has open may write keys that move.
    #[inline]
    pub const fn is_on_moves(&self) -> bool {
        self.moving.is_some()
    }

    /// The moves whose keys it has something open on.
    pub fn moves_open(&self) -> impl Iterator<Item = MoveId> {
        self.moving.iter().flat_map(|moving| moving.ids.iter().copied())
    }

    /// True if the running unit may be fed again from its begin, should the
    /// fence refuse it: nothing of its transaction ran before.
    pub fn may_start_again(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.first)
    }

    /// Its transaction is over.
    pub fn leave_moves(&mut self) {
        self.moving = None;
    }

    /// The fence has refused the transaction's first unit, which is fed again:
    /// the transaction is as it was before that.
    pub fn start_again(&mut self) {
        self.tx_map = None;
        self.outside = false;
        self.failed = false;
        self.log.clear();
        self.portals.clear();
        self.pending.clear();
        if let Some(begun) = self.moving.take().and_then(|moving| moving.begun) {
            self.tx = Tx::Lazy(Box::new(begun));
        }
    }

    /// True if the unit at the head of the input was given a place and nothing
    /// else was done for it, so that it may be given another.
    pub fn is_placed_only(&self) -> bool {
        self.pending.is_placed()
            && self.members.len() == 0
            && self.scatter.is_none()
            && self.everywhere.is_none()
    }

    /// True if a unit has a place and waits to be sent.
    pub const fn is_placed(&self) -> bool {
        self.pending.is_placed()
    }

    /// The unit at the head of the input looks for its place anew.
    pub fn unplace(&mut self) {
        self.pending.clear();
        self.moving = None;
    }
}

impl Feed<'_, '_> {
    /// True if a newer map, or newer moves, have come into force since the
    /// transaction's map was fixed.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.s.tx_map.as_ref().is_some_and(|(map, _)| !Arc::ptr_eq(map, self.env.map))
    }

    /// A transaction of which nothing was sent to a shard follows the map in
    /// force.
    #[inline]
    pub(super) fn follow_map(&mut self) {
        if self.s.tx_map.is_some() && self.env.backend.is_none() && self.is_behind() {
            self.take_newest_map();
        }
    }

    #[cold]
    fn take_newest_map(&mut self) {
        let bound = !self.s.portals.is_empty()
            || self.s.members.len() > 0
            || self.s.scatter.is_some()
            || self.s.everywhere.is_some();
        if !bound {
            self.s.tx_map = Some((Arc::clone(self.env.map), self.env.map_serial));
        }
    }

    /// Where a statement goes by the transaction's map.
    ///
    /// # Errors
    /// It has no route, or its keys belong elsewhere by the map in force.
    #[inline(always)]
    pub(super) fn locate(
        &self,
        template: &Template,
        text: &[u8],
        literals: &Literals,
        params: Option<&dyn Params>,
    ) -> Result<Route, Refused> {
        let declared = self.s.own.declared();
        let mut route = template
            .locate(text, literals, params, self.map(), declared)
            .map_err(|error| refuse_route(&error))?;
        if self.is_behind() {
            let locate = |map: &Map| template.locate(text, literals, params, map, declared);
            self.compare_with_now(&mut route, locate)?;
        }
        Ok(route)
    }

    /// Compares where a statement of a transaction with an older map goes with
    /// where it would go by the map in force, which `locate` asks.
    ///
    /// # Errors
    /// Its keys belong elsewhere now.
    #[cold]
    fn compare_with_now(
        &self,
        route: &mut Route,
        locate: impl FnOnce(&Map) -> Result<Route, RouteError>,
    ) -> Result<(), Refused> {
        let (then, now) = (self.map(), &**self.env.map);
        if then.epoch() == now.epoch() {
            route.touched = locate(now).map_or(route.touched, |found| found.touched);
            return Ok(());
        }
        let alike = match &route.targets {
            // Their rows are anywhere on these shards.
            Targets::Several(_) => then.same_ownership(now),
            Targets::Shard(_)
            | Targets::AnyShard
            | Targets::Home
            | Targets::HomeOutside
            | Targets::AllInTurn
            | Targets::Router(_) => {
                // Keyspaces are named by their position.
                let same = then.keyspaces().len() == now.keyspaces().len()
                    && then.keyspaces().iter().zip(now.keyspaces()).all(|(a, b)| a.cuts_like(b));
                let found = if same { locate(now).ok() } else { None };
                route.touched = found.as_ref().map_or(Touched::NONE, |found| found.touched);
                match found {
                    Some(found) => found.targets == route.targets,
                    None => then.same_ownership(now),
                }
            }
        };
        if alike { Ok(()) } else { Err(older_than_move()) }
    }

    /// What the moves mean for a statement whose keys are part of them; `None`
    /// if it goes where its route says.
    #[cold]
    pub(super) fn place_on_moves(&mut self, template: &Template, route: &Route) -> Option<Place> {
        let fresh = self.env.backend.is_none() && self.s.members.len() == 0;
        let begun = match &self.s.tx {
            Tx::Lazy(lazy) => Some(lazy),
            Tx::Backend => None,
        };
        let lasts =
            template.access() == Access::Write || begun.is_some() || self.in_backend_transaction();
        let waits = self.env.map.moves_of(route.touched).any(|moving| {
            // Its rows may be read at their new place once that is open.
            let arrives = route.targets == Targets::Shard(moving.target);
            moving.phase == MovePhase::Held && (lasts || arrives)
        });
        if fresh && waits {
            return Some(Place::Wait);
        }
        if lasts {
            let begun = begun.filter(|_| fresh).map(|lazy| (**lazy).clone());
            let ids = self.env.map.moves_of(route.touched).map(|moving| moving.id);
            let moving = self
                .s
                .moving
                .get_or_insert_with(|| Box::new(OnMoves { ids: Vec::new(), first: fresh, begun }));
            for id in ids {
                if !moving.ids.contains(&id) {
                    moving.ids.push(id);
                }
            }
        }
        None
    }
}

impl OnMoves {
    /// A unit of the transaction has ended.
    pub(super) fn note_unit_end(&mut self) {
        self.first = false;
        self.begun = None;
    }
}

/// The transaction began before its keys' rows moved.
fn older_than_move() -> Refused {
    Refused::new(
        SERIALIZATION_FAILURE,
        "could not serialize access: the transaction began before rows of its keys moved to another shard",
    )
    .hint("retry the transaction")
}

/// A statement has waited too long for a move.
pub fn waited_too_long(limit: Millis) -> Refused {
    Refused::new(
        SERIALIZATION_FAILURE,
        format!(
            "rows of the statement's keys are being moved to another shard, for longer than {limit}"
        ),
    )
    .hint("retry the transaction; moves.hold_max bounds the wait")
}

/// `serialization_failure`
const SERIALIZATION_FAILURE: SqlState = SqlState::new("40001");
