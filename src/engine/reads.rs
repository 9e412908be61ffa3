//! Which node serves a unit, and what a client's reads have shown it so far.
//!
//! What qualifies a replica is `cluster`'s to decide, from the marks and from
//! what the monitor published. Here is the way round: a connection that may
//! have ended at another server than the sampled one, a pool that is full, a
//! wait for a replica; whatever does not fit ends at the primary.

use crate::backend::Failure;
use crate::cluster::{Choice, Demand, Mark, Passed, ReadReason, SampleNumber, Wanted, Writer};
use crate::config::Writers;
use crate::net::clock;
use crate::protocol::backend::TxStatus;
use crate::session::{Barrier, Refused, Want, Writes};
use crate::types::{Access, Consistency, Millis, Moment, NodeId, Role, ShardId, SqlState};

use super::conn::{Conn, Vouched};
use super::driver::Driver;
use super::parked::{Parked, WaitsFor};
use super::pools::SharedPool;
use super::thread::Database;

/// What a client's reads remember.
#[derive(Default)]
pub(super) struct Reads {
    /// What was asked for at the checkout under way.
    want: Option<Want>,
    /// The database's revision at that time.
    revision: u64,
    /// The node whose pool is waited for.
    waits_at: Option<NodeId>,
    /// A wait for a replica, or for a write in flight.
    pub(super) parked: Option<Parked>,
    /// The sample that another replica than the last must have proven for the
    /// session to see no less than it has seen (level `session`).
    pub(super) need: SampleNumber,
    /// The sample that reads of every level need, since the client has shown a
    /// token.
    pub(super) after: SampleNumber,
    /// The replica that showed the session something last, and its life.
    last: Option<(NodeId, u32)>,
    pub(super) running: Option<Running>,
    /// The other parts of a read over several shards.
    parts: Vec<Running>,
    /// Reads ended while writes to what they read were in flight: the session may
    /// have seen a write before the primary shows it (level `slot`).
    pub(super) unsettled: Vec<(ShardId, Mark)>,
    /// How long the read at hand may wait for them.
    pub(super) settles_until: Option<Moment>,
    /// The client's bytes of the read that runs on a replica.
    unit: Vec<u8>,
    /// A replica has failed the unit, which is fed again.
    pub(super) again: Option<Failure>,
    /// The running unit looks like a read and writes.
    pub(super) writes: bool,
}

/// The read that runs on a replica.
#[derive(Clone, Copy)]
pub(super) struct Running {
    node: NodeId,
    life: u32,
    shard: ShardId,
    pub(super) mark: Mark,
    /// The level that it is read at.
    pub(super) level: Consistency,
}

impl Reads {
    /// The client's unit has ended on `conn`: what the session has seen by it.
    pub(super) fn note_end(&mut self, conn: &Conn, database: &Database) {
        self.begin_anew(database);
        let goes_on = conn.machine.status() != TxStatus::Idle;
        let running = if goes_on { self.running } else { self.running.take() };
        let Some(running) = running.filter(|_| conn.writes == Writes::Impossible) else {
            self.last = None;
            return;
        };
        self.last = Some((running.node, running.life));
        self.note_shown(running, database);
    }

    /// The same for a read over several shards.
    pub(super) fn note_gathered(&mut self, database: &Database) {
        self.begin_anew(database);
        self.last = None;
        let mut parts = std::mem::take(&mut self.parts);
        parts.extend(self.running.take());
        for part in parts.drain(..) {
            self.note_shown(part, database);
        }
        self.parts = parts;
    }

    /// The client has shown a token, or takes it back. It was made before, so
    /// that a sample which has not begun covers what it stands for.
    pub(super) fn note_barrier(&mut self, barrier: Barrier, database: &Database) {
        match barrier {
            Barrier::None => self.after = SampleNumber::NONE,
            Barrier::Now => {
                self.after = database.marks.started().next();
                self.need = self.after;
                self.last = None;
                database.marks.ask_for_sample();
            }
        }
    }

    fn begin_anew(&mut self, database: &Database) {
        self.need = database.marks.started().next();
        self.writes = false;
        self.unit.clear();
        self.unit.shrink_to(UNIT_KEPT_MAX);
    }

    /// What was acknowledged meanwhile every later read sees; what is in flight
    /// the primary may show later than the replica did.
    fn note_shown(&mut self, running: Running, database: &Database) {
        let Running { shard, mark, level, .. } = running;
        if level == Consistency::Slot
            && database.marks.demand(shard, mark) == Demand::InFlight
            && !self.unsettled.contains(&(shard, mark))
        {
            self.settles_until = None;
            self.unsettled.push((shard, mark));
        }
    }

    /// What the checkout under way asks for.
    pub(super) const fn wanted_now(&self) -> Option<Want> {
        self.want
    }

    /// True if the last checkout was asked for at `revision`.
    pub(super) const fn is_of_revision(&self, revision: u64) -> bool {
        self.revision == revision
    }

    /// True while a read waits for a replica or a write.
    pub(super) const fn is_parked(&self) -> bool {
        self.parked.is_some()
    }
}

impl Database {
    /// The node that the shard's writes go to: the map's while nothing is known,
    /// none while there is not one that has them.
    pub(super) fn primary_of(&self, shard: ShardId) -> Option<NodeId> {
        match self.with_cluster(|cluster| cluster.writer_of(shard)) {
            Some(Writer::Node(node)) => Some(node),
            Some(Writer::Several | Writer::Unconfirmed | Writer::Absent) => None,
            None => self.with_map(|map, _| map.shard(shard).map(|shard| shard.primary)),
        }
    }

    /// What a read at `level` wants; `need` is the session's own, and `after`
    /// what a token asks for.
    pub(super) fn wanted(
        &self,
        shard: ShardId,
        level: Consistency,
        mark: Mark,
        need: SampleNumber,
        after: SampleNumber,
    ) -> Wanted {
        let moved = || self.marks.rows_moved(shard);
        match level {
            Consistency::Primary => Wanted::Primary,
            Consistency::Session => Wanted::Marks(Demand::Proof(need.max(after).max(moved()))),
            // Its marks were raised with the map.
            Consistency::Slot => Wanted::Marks(match self.marks.demand(shard, mark) {
                Demand::InFlight => Demand::InFlight,
                Demand::Proof(need) => Demand::Proof(need.max(after)),
            }),
            Consistency::Bounded(_) | Consistency::Any if after > SampleNumber::NONE => {
                Wanted::Marks(Demand::Proof(after.max(moved())))
            }
            Consistency::Bounded(lag) => match moved() {
                SampleNumber::NONE => Wanted::Within { lag, now: clock::now() },
                moved => self.within_and_moved(shard, lag, moved),
            },
            Consistency::Any => match moved() {
                SampleNumber::NONE => Wanted::Any,
                moved => Wanted::Marks(Demand::Proof(moved)),
            },
        }
    }

    /// What a read wants that may miss what the last `lag` has brought, but not a
    /// move of rows: the later of the two, which covers the other.
    #[cold]
    fn within_and_moved(&self, shard: ShardId, lag: Millis, moved: SampleNumber) -> Wanted {
        let now = clock::now();
        let ago = now.since(self.marks.rows_moved_at(shard)).count();
        if ago <= lag.count() {
            Wanted::Marks(Demand::Proof(moved))
        } else if ago <= lag.count().saturating_add(CLOCKS_APART_MS) {
            Wanted::Primary
        } else {
            Wanted::Within { lag, now }
        }
    }

    /// The node of a read and the reason, in words, for EXPLAIN ROUTE.
    pub(super) fn explain_read(&self, shard: ShardId, wanted: Wanted) -> String {
        self.with_cluster(|cluster| {
            let choice = cluster.choose(shard, wanted, 0);
            let reason = choice.reason().to_string();
            let nearest = cluster.nearest_lag(shard, clock::now());
            match (choice.reason(), nearest) {
                (ReadReason::NoneFit(_), Some(lag)) => {
                    format!("{reason}; the nearest is {lag} behind")
                }
                _ => reason,
            }
        })
    }
}

impl Driver {
    /// True if the session has a backend now; else it waits, or was refused
    /// and is to be fed again.
    pub(super) fn bring_backend(&mut self, want: Want) -> bool {
        self.bring_seeing(want, None)
    }

    /// The same for a read that has waited for a replica to prove `sight`.
    pub(super) fn bring_seeing(&mut self, want: Want, sight: Option<SampleNumber>) -> bool {
        self.reads.want = Some(want);
        self.reads.revision = self.database.revision();
        let kept = !self.held.aside.is_empty();
        if !kept && self.is_held_up(want) {
            return false;
        }
        let part = self.reads.running.take().filter(|_| self.held.current.is_some());
        match part {
            Some(part) => self.reads.parts.push(part),
            None if self.held.current.is_none() => self.reads.parts.clear(),
            None => {}
        }
        if kept && self.attach_aside(want.shard) {
            self.reads.again = None;
            self.reads.unit.clear();
            self.thread.stats.note_unit_on_primary();
            return true;
        }
        self.reads.unit.clear();
        if self.reads.again.is_some() && self.settles_first(want) {
            return false;
        }
        if let Some(failure) = self.reads.again.take() {
            self.reads.writes = failure == Failure::Writes;
            self.thread.stats.note_read(ReadReason::TriedAgain);
            return self.bring_primary(want);
        }
        let level = self.level(want);
        if want.access == Access::Write || level == Consistency::Primary {
            self.thread.stats.note_unit_on_primary();
            return self.bring_primary(want);
        }
        let wanted = self.wanted(want, level);
        let choice = self.choose(want, level, wanted);
        match choice.node() {
            Some(node) => self.bring_replica(want, level, wanted, node, choice.reason()),
            None => self.bring_otherwise(want, level, choice.reason(), sight),
        }
    }

    /// No replica has what the marks ask for: one that has proven all that the
    /// session may see serves, or is waited for; else the primary serves.
    #[inline(never)]
    fn bring_otherwise(
        &mut self,
        want: Want,
        level: Consistency,
        reason: ReadReason,
        sight: Option<SampleNumber>,
    ) -> bool {
        let sight = self.sight(want, level, reason, sight);
        if let Some(sight) = sight {
            let wanted = Wanted::Marks(Demand::Proof(sight));
            let choice = self.choose(want, level, wanted);
            if let Some(node) = choice.node() {
                return self.bring_replica(want, level, wanted, node, choice.reason());
            }
        }
        if self.settles_first(want) {
            return false;
        }
        if let Some(wait) = self.replica_wait(want, reason) {
            self.park_for(want, wait, WaitsFor::Replica, sight);
            return false;
        }
        self.thread.stats.note_read(reason);
        self.bring_primary(want)
    }

    pub(super) fn level(&self, want: Want) -> Consistency {
        let level = want.consistency.unwrap_or(self.consistency);
        kept(level, self.thread.settings.reads.writers)
    }

    pub(super) fn wanted(&self, want: Want, level: Consistency) -> Wanted {
        let Reads { need, after, .. } = self.reads;
        self.database.wanted(want.shard, level, want.mark, need, after)
    }

    pub(super) fn choose(&self, want: Want, level: Consistency, wanted: Wanted) -> Choice {
        let tie = self.thread.random();
        self.database.with_cluster(|cluster| {
            let moved = self.database.marks.rows_moved(want.shard);
            if level == Consistency::Session
                && let Some((node, life)) = self.reads.last
                && cluster.lives_on(want.shard, node, life)
                && (moved == SampleNumber::NONE
                    || cluster.is_fit(node, Wanted::Marks(Demand::Proof(moved))))
            {
                return Choice::same_replica(node);
            }
            let load = |node: NodeId| self.database.loads.weigh(node);
            let choice = cluster.choose_by(want.shard, wanted, tie, &load);
            let allowed = self.thread.settings.reads.read_only_when_primary_down;
            if choice.node().is_some()
                || allowed == Millis::ZERO
                || !cluster.lacks_primary(want.shard)
            {
                return choice;
            }
            let wanted = Wanted::WithoutPrimary { lag: allowed, now: clock::now() };
            let instead = cluster.choose(want.shard, wanted, tie);
            if instead.node().is_some() { instead } else { choice }
        })
    }

    /// True if the replica `node` may serve this although it has not proven
    /// enough: there is no primary.
    fn is_fit_without_primary(&self, want: Want, node: NodeId) -> bool {
        let allowed = self.thread.settings.reads.read_only_when_primary_down;
        let wanted = Wanted::WithoutPrimary { lag: allowed, now: clock::now() };
        allowed > Millis::ZERO
            && self.database.with_cluster(|cluster| {
                cluster.lacks_primary(want.shard) && cluster.is_fit(node, wanted)
            })
    }

    /// A connection to the replica `node`, or to the primary if there is none
    /// that may serve.
    fn bring_replica(
        &mut self,
        want: Want,
        level: Consistency,
        wanted: Wanted,
        node: NodeId,
        reason: ReadReason,
    ) -> bool {
        let Some(pool) = self.pool_of(node) else {
            return self.bring_primary(want);
        };
        match self.thread.checkout(&self.database, &pool) {
            Ok(mut conn) => {
                if self.may_serve(&mut conn, wanted) {
                    self.thread.stats.note_read(reason);
                    self.start_read(want, level, &conn);
                    self.attach(conn);
                    return true;
                }
                self.thread.release(conn);
                self.database.marks.ask_for_sample();
                self.on_too_new(want, reason)
            }
            // A full pool is waited for: its connections are old enough. A new
            // connection is of use only after the next sample.
            Err(waiting) if wanted == Wanted::Any || pool.is_full() => {
                self.reads.waits_at = Some(node);
                self.waiting = Some(waiting);
                false
            }
            Err(waiting) => {
                waiting.leave(&self.thread);
                self.on_too_new(want, reason)
            }
        }
    }

    /// No connection to the replica is old enough: the primary serves, or, if
    /// there is none, the replica after its next sample.
    fn on_too_new(&mut self, want: Want, reason: ReadReason) -> bool {
        if reason == ReadReason::PrimaryDown {
            self.park(want, self.thread.settings.pool.checkout_timeout, WaitsFor::Replica);
            return false;
        }
        if self.settles_first(want) {
            return false;
        }
        self.thread.stats.note_read(NEW_CONNECTION);
        self.bring_primary(want)
    }

    /// Whether a connection to a replica leads to the server whose samples
    /// qualified it. What was found stands as long as the view of the nodes.
    #[inline]
    fn may_serve(&self, conn: &mut Conn, wanted: Wanted) -> bool {
        (conn.vouched.surely && conn.vouched.view == self.database.view())
            || self.vouch(conn)
            || wanted == Wanted::Any
    }

    #[inline(never)]
    fn vouch(&self, conn: &mut Conn) -> bool {
        let node = conn.pool.node();
        conn.vouched = self.database.with_cluster(|cluster| Vouched {
            view: self.database.view(),
            life: cluster.node(node).map_or(0, |state| state.life),
            surely: conn.incarnation.is_some()
                && cluster.vouches_for(node, conn.born)
                && cluster.is_watched(node, conn.incarnation),
        });
        conn.vouched.surely
    }

    /// `conn` has been looked at in the present view of the nodes.
    #[inline]
    fn start_read(&mut self, want: Want, level: Consistency, conn: &Conn) {
        let (node, life) = (conn.pool.node(), conn.vouched.life);
        let (shard, mark) = (want.shard, want.mark);
        self.reads.running = Some(Running { node, life, shard, mark, level });
    }

    /// The user's pool on a node; the one that was used last is kept at hand.
    fn pool_of(&mut self, node: NodeId) -> Option<SharedPool> {
        if let Some(pool) = self.pool.as_ref().filter(|pool| pool.serves(node)) {
            return Some(pool.clone());
        }
        self.pool = self.thread.pool(&self.database, &self.entry.user, node);
        self.pool.clone()
    }

    /// A connection to the shard's primary.
    pub(super) fn bring_primary(&mut self, want: Want) -> bool {
        let node = match self.database.with_cluster(|cluster| cluster.writer_of(want.shard)) {
            Some(Writer::Node(node)) => Some(node),
            Some(Writer::Several) => {
                let name = self.database.shard_name(want.shard);
                let refused = Refused::new(
                    CANNOT_CONNECT_NOW,
                    format!("several nodes of shard {name} are primaries"),
                )
                .hint(
                    "an operator has to stop all but the right one, or nodes.authority has to \
                     name it; SHOW NODES lists them",
                );
                self.session.refuse_checkout(refused);
                return true;
            }
            Some(Writer::Unconfirmed) => {
                let name = self.database.shard_name(want.shard);
                let refused = Refused::new(
                    CANNOT_CONNECT_NOW,
                    format!("no node of shard {name} is confirmed as its primary"),
                )
                .hint(
                    "its Patroni says that the node which claims to be the primary is not; \
                     SHOW NODES lists them",
                );
                self.session.refuse_checkout(refused);
                return true;
            }
            Some(Writer::Absent) => {
                let wait = self.thread.settings.pool.checkout_timeout;
                self.park(want, wait, WaitsFor::Primary);
                return false;
            }
            None => self.database.with_map(|map, _| map.shard(want.shard).map(|s| s.primary)),
        };
        let Some(node) = node else {
            let name = self.database.shard_name(want.shard);
            self.session.refuse_checkout(Refused::new(
                CANT_CONNECT,
                format!("shard {name} is not in the map any more"),
            ));
            return true;
        };
        let Some(pool) = self.pool_of(node) else {
            self.session
                .refuse_checkout(Refused::new(CANT_CONNECT, "the shard's node has left the map"));
            return true;
        };
        match self.thread.checkout(&self.database, &pool) {
            Ok(conn) => {
                self.attach(conn);
                true
            }
            Err(waiting) => {
                self.reads.waits_at = Some(node);
                self.waiting = Some(waiting);
                false
            }
        }
    }

    /// A connection that was waited for has come: it serves if it still fits,
    /// else the search begins anew. True as for `bring_backend`.
    pub(super) fn attach_waited(&mut self, mut conn: Box<Conn>) -> bool {
        self.reads.waits_at = None;
        if self.looks_again() {
            self.thread.release(conn);
            return true;
        }
        let Some(want) = self.reads.want else {
            self.attach(conn);
            return true;
        };
        let node = conn.pool.node();
        let level = self.level(want);
        let writer = self.database.with_cluster(|cluster| cluster.writer_of(want.shard));
        if writer == Some(Writer::Node(node)) {
            self.attach(conn);
            return true;
        }
        let read = want.access == Access::Read && level != Consistency::Primary;
        let wanted = self.wanted_at_length(want, level);
        let same = self.reads.last.filter(|_| level == Consistency::Session);
        let fits = read
            && self.may_serve(&mut conn, wanted)
            && (self.is_fit_without_primary(want, node)
                || self.database.with_cluster(|cluster| {
                    cluster.is_fit(node, wanted)
                        || same.is_some_and(|(last, life)| {
                            last == node && cluster.lives_on(want.shard, node, life)
                        })
                }));
        if fits {
            self.thread.stats.note_read(wanted.met());
            self.start_read(want, level, &conn);
            self.attach(conn);
            return true;
        }
        self.thread.release(conn);
        if read && self.settles_first(want) {
            return false;
        }
        if read {
            self.thread.stats.note_read(ReadReason::NoneFit(Passed::default()));
        }
        self.bring_primary(want)
    }

    /// The unit at the head of the input has waited; true if it looks for its
    /// place anew, because its keys may belong elsewhere by now.
    pub(super) fn looks_again(&mut self) -> bool {
        if self.reads.is_of_revision(self.database.revision()) || !self.session.is_placed_only() {
            return false;
        }
        self.session.unplace();
        self.leave_moves();
        true
    }

    /// The replica that a read waited for can't be had: the primary serves.
    /// `None` if it was no replica, else true if there is a backend now.
    pub(super) fn fall_back(&mut self) -> Option<bool> {
        let want = self.reads.want?;
        let waited_at = self.reads.waits_at.take()?;
        let writer = self.database.with_cluster(|cluster| cluster.primary_of(want.shard));
        if writer == Some(waited_at) {
            return None;
        }
        if self.settles_first(want) {
            return Some(false);
        }
        self.thread.stats.note_read(ReadReason::NoneFit(Passed::default()));
        Some(self.bring_primary(want))
    }

    /// A shard's writes go to another node: what runs on the old one is cut
    /// off, and who waits for it waits for the new one now. Nothing of a unit
    /// that waits was sent, so nobody notices.
    pub(super) fn on_new_writer(&mut self) {
        self.leave_old_primaries();
        self.wait_for_new_primary();
    }

    /// What was begun on a node that is not the primary any more must not be
    /// committed there. Its outcome may be unknown; the marks know it, too.
    fn leave_old_primaries(&mut self) {
        let mut left: Vec<ShardId> = Vec::new();
        for conn in self.held.iter().filter(|conn| conn.writes == Writes::Possible) {
            let node = conn.pool.node();
            let is_old =
                self.database.with_cluster(|cluster| match cluster.writer_of(conn.shard) {
                    Some(Writer::Node(writer)) => {
                        let seen = cluster.node(writer).and_then(|state| state.role_seen);
                        writer != node && seen == Some(Role::Primary)
                    }
                    Some(Writer::Several | Writer::Unconfirmed) => true,
                    Some(Writer::Absent) | None => false,
                });
            if is_old {
                left.push(conn.shard);
            }
        }
        for shard in left {
            self.cut_off(shard);
        }
        let is_old = |conn: &Conn| {
            let writer = self.database.with_cluster(|cluster| cluster.primary_of(conn.shard));
            conn.writes == Writes::Possible && writer != Some(conn.pool.node())
        };
        // What it keeps there for later is lost.
        if self.held.aside.iter().any(|conn| is_old(conn)) {
            self.say_goodbye("57P01", "terminating connection: its shard has another primary now");
        }
    }

    /// Who waits for a connection to a primary that is none any more, or does
    /// not answer, looks again where its unit may run.
    fn wait_for_new_primary(&mut self) {
        let (Some(want), Some(waits_at)) = (self.reads.want, self.reads.waits_at) else { return };
        let level = self.level(want);
        let to_writer = want.access == Access::Write || level == Consistency::Primary;
        let (is_writer, lacks) = self.database.with_cluster(|cluster| {
            let writer = cluster.writer_of(want.shard);
            (writer == Some(Writer::Node(waits_at)), cluster.lacks_primary(want.shard))
        });
        let stays = if is_writer { to_writer || !lacks } else { self.waits_at_replica(want) };
        if stays {
            return;
        }
        let Some(waiting) = self.waiting.take() else { return };
        waiting.leave(&self.thread);
        self.reads.waits_at = None;
        // Its rows may have moved while it waited.
        let brought = self.looks_again()
            || if to_writer { self.bring_primary(want) } else { self.bring_backend(want) };
        if brought {
            self.refed_by_signal();
        }
    }

    /// True if what is waited for is a replica's connection, which may still serve.
    fn waits_at_replica(&self, want: Want) -> bool {
        let level = self.level(want);
        let read = want.access == Access::Read && level != Consistency::Primary;
        let wanted = self.wanted_at_length(want, level);
        read && self.reads.waits_at.is_some_and(|node| {
            self.database.with_cluster(|cluster| cluster.is_fit(node, wanted))
                || self.is_fit_without_primary(want, node)
        })
    }

    // === a second try ===

    /// Keeps what the client sent of a read that goes to a replica, or of a
    /// transaction's first unit that a fence may refuse.
    /// `said`: something of it was answered at once, and would be twice.
    pub(super) fn keep_for_second_try(&mut self, consumed: &[u8], said: bool) {
        let Some(conn) = &mut self.held.current else { return };
        let primary = conn.writes == Writes::Possible;
        if (primary && !self.session.may_start_again()) || consumed.is_empty() {
            return;
        }
        let max = if primary { FENCED_UNIT_MAX } else { UNIT_MAX };
        let fits = self.reads.unit.len() + consumed.len() <= max;
        // A transaction that fails on what the session keeps there is its own to end.
        let own = primary && self.session.keeps(conn.shard);
        let second = conn.machine.second_try();
        // What is made of several shards' answers is not fed again.
        if said || !fits || own || !self.held.others.is_empty() {
            second.forbid();
            return;
        }
        self.reads.unit.extend_from_slice(consumed);
        if primary {
            second.allow_past_fence();
        } else {
            second.allow();
        }
    }

    /// The unit that a replica failed is fed again, ahead of what waits.
    pub(super) fn try_again(&mut self, failure: Failure) {
        self.feed_unit_again();
        self.reads.again = Some(failure);
    }

    /// The unit that was kept stands at the head of the input again.
    pub(super) fn feed_unit_again(&mut self) {
        let mut bytes = std::mem::take(&mut self.reads.unit);
        bytes.extend_from_slice(&self.inbuf);
        self.inbuf = bytes;
        self.reads.running = None;
    }

    /// A replica's connection is gone: true if its unit is fed again.
    pub(super) fn survives_loss(&mut self, conn: &mut Conn) -> bool {
        let possible = self.held.iter().next().is_none()
            && conn.writes == Writes::Impossible
            && self.session.is_awaiting()
            && !conn.machine.has_answered()
            && conn.machine.second_try().is_possible()
            && !self.reads.unit.is_empty();
        if possible {
            self.session.rewind();
            self.try_again(Failure::Conflict);
        }
        possible
    }

    /// What EXPLAIN ROUTE says of a read by this session needs this.
    pub(super) const fn session_needs(&self) -> (SampleNumber, SampleNumber) {
        (self.reads.need, self.reads.after)
    }
}

/// The level that is kept where `level` is asked for: the marks know nothing of
/// writes that others make.
pub(super) fn kept(level: Consistency, writers: Writers) -> Consistency {
    match (level, writers) {
        (Consistency::Slot, Writers::Elsewhere) => Consistency::Primary,
        (
            Consistency::Primary
            | Consistency::Session
            | Consistency::Slot
            | Consistency::Bounded(_)
            | Consistency::Any,
            Writers::Here | Writers::Elsewhere,
        ) => level,
    }
}

/// Longest unit that is kept to be sent again, in bytes.
const UNIT_MAX: usize = 16 * 1024;
/// The same for one that a fence may refuse.
const FENCED_UNIT_MAX: usize = 1024 * 1024;
/// Capacity that a client keeps for that while it is idle, in bytes.
const UNIT_KEPT_MAX: usize = 1024;
/// A connection that is younger than the newest sample serves no proven read.
const NEW_CONNECTION: ReadReason = ReadReason::NewConnection;
/// By how much two readings of the coarse clock may be out of order.
const CLOCKS_APART_MS: u64 = 200;
/// `cannot_connect_now`
const CANNOT_CONNECT_NOW: SqlState = SqlState::new("57P03");
/// `sqlclient_unable_to_establish_sqlconnection`
const CANT_CONNECT: SqlState = SqlState::new("08001");
