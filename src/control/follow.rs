//! One node's task: connects, samples in time, connects again.
//!
//! A primary is sampled when somebody waits for it: an acknowledged write
//! that no sample covers, or a new connection; else at the heartbeat. Its
//! replicas are asked right after, and again until they have proven what is
//! waited for. While a shard has no primary all of its nodes are asked every
//! 100 ms.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::monitor::{Board, Rhythm, Target};
use super::sampler::{SampleError, Sampler};
use crate::cluster::{Incarnation, SampleNumber};
use crate::health::{Answer, Geometry, Probe};
use crate::net::clock;
use crate::types::{NodeId, Role};

/// Samples one node for ever, over one connection after the other.
pub(super) async fn follow(given: Target, rhythm: Rhythm, board: Arc<Board>) {
    let (node, shard) = (given.member.node, given.member.shard);
    let mut failures: u32 = 0;
    let mut connection: u64 = 0;
    loop {
        connection += 1;
        let target = given.of_now();
        let ticket = {
            let number = board.marks.begin_sample();
            board.watch().begin(node, number, clock::now())
        };
        match Sampler::connect(&target, connection, clock::duration(rhythm.connect)).await {
            Ok((sampler, geometry)) => {
                failures = 0;
                let mut visit = Visit::new(&target, rhythm, &board, sampler);
                let error = visit.stay(geometry).await;
                note(&target, &board, &error);
                board.watch().disconnected(node);
            }
            Err(error) => {
                board.watch().failed(ticket);
                // The monitor sees it by itself.
                board.marks.strikes.take(node);
                if failures == 0 {
                    note(&target, &board, &error);
                }
            }
        }
        board.publish();
        let headless = board.watch().is_headless(shard);
        let wait = backoff(rhythm, failures);
        tokio::time::sleep(if headless { wait.min(HEADLESS) } else { wait }).await;
        failures = failures.saturating_add(1);
    }
}

/// One connection to one node, for as long as it holds.
struct Visit<'v> {
    target: &'v Target,
    rhythm: Rhythm,
    board: &'v Board,
    sampler: Sampler,
    sampled: watch::Receiver<SampleNumber>,
    /// The sample begun last, and when.
    last: (SampleNumber, Instant),
    /// Samples in a row that did not prove what is waited for.
    in_vain: u32,
    /// Since when replicas lack what the primary has not flushed.
    unflushed_since: Option<Instant>,
    flushed_at: Option<Instant>,
    marker_refused_at: Option<Instant>,
}

impl<'v> Visit<'v> {
    fn new(target: &'v Target, rhythm: Rhythm, board: &'v Board, sampler: Sampler) -> Self {
        Self {
            target,
            rhythm,
            board,
            sampler,
            sampled: board.sampled.subscribe(),
            last: (SampleNumber::NONE, Instant::now()),
            in_vain: 0,
            unflushed_since: None,
            flushed_at: None,
            marker_refused_at: None,
        }
    }

    /// Samples until the connection fails.
    async fn stay(&mut self, geometry: Geometry) -> SampleError {
        let (node, shard) = (self.target.member.node, self.target.member.shard);
        self.board.watch().geometry(node, geometry);
        loop {
            let before = self.board.headline(node, shard);
            if let Err(error) = self.ask().await {
                return error;
            }
            let after = self.board.headline(node, shard);
            if after.lineage != before.lineage {
                self.board.marks.renew(shard);
            }
            if after != before || after.role == Some(Role::Replica) {
                self.board.publish();
            }
            self.board.tell(self.target, before, after);
            if self.leads() {
                self.board.sampled.send_replace(self.last.0);
                self.wait_as_primary().await;
            } else {
                self.wait_as_replica().await;
            }
        }
    }

    fn node(&self) -> NodeId {
        self.target.member.node
    }

    fn leads(&self) -> bool {
        self.board.watch().is_leader(self.node())
    }

    /// One sample, and what follows from the node's role.
    async fn ask(&mut self) -> Result<(), SampleError> {
        let limit = clock::duration(self.rhythm.deadline);
        self.hear_of_strikes();
        self.probe().await;
        let number = self.board.marks.begin_sample();
        let ticket = self.board.watch().begin(self.node(), number, clock::now());
        self.last = (number, Instant::now());
        let answer = match self.sampler.sample(limit).await {
            Ok(answer) => answer,
            Err(error) => {
                self.board.watch().failed(ticket);
                return Err(error);
            }
        };
        self.board.watch().answered(ticket, answer);
        match answer {
            Answer::Primary { identity, .. } => {
                let incarnation =
                    Incarnation { system: identity.system, started_us: identity.started_us };
                self.serve_lineage(limit).await?;
                self.settle_orphans(incarnation, limit).await?;
                self.flush_tail(limit).await
            }
            Answer::Replica { .. } => self.look_for_marker(limit).await,
        }
    }

    /// What clients' connections have met at this node since the last sample.
    fn hear_of_strikes(&self) {
        let count = self.board.marks.strikes.take(self.node());
        if count > 0 {
            let mut watch = self.board.watch();
            (0..count).for_each(|_| watch.struck(self.node(), clock::now()));
        }
    }

    /// Knocks at a suspect node as a client would: this connection stands, and
    /// says nothing of new ones.
    async fn probe(&self) {
        if !self.board.watch().wants_probe(self.node(), clock::now()) {
            return;
        }
        let limit = clock::duration(self.rhythm.deadline.min(self.rhythm.connect));
        let outcome = match Sampler::knock(self.target, limit).await {
            Ok(()) => Probe::Answered,
            Err(_) => Probe::Failed,
        };
        self.board.watch().probed(self.node(), clock::now(), outcome);
    }

    /// Writes the lineage's marker, if it has none yet.
    async fn serve_lineage(&mut self, limit: Duration) -> Result<(), SampleError> {
        let Some(id) = self.board.watch().unmarked(self.node()) else { return Ok(()) };
        if self.marker_refused_at.is_some_and(|at| at.elapsed() < MARKER_RETRY) {
            return Ok(());
        }
        match self.sampler.write_marker(id, limit).await {
            Ok(()) => {
                self.board.watch().marked(self.node(), id);
                Ok(())
            }
            Err(error) if error.is_refusal() => {
                if self.marker_refused_at.is_none() {
                    tracing::warn!(
                        node = %self.target.name, %error,
                        "the monitor can't write its marker: only reads at level any use replicas; \
                         grant it CREATE on the database, or INSERT, DELETE and SELECT on keyway.lineage"
                    );
                }
                self.marker_refused_at = Some(Instant::now());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Asks a replica for the marker of its shard's lineage until it shows it.
    async fn look_for_marker(&mut self, limit: Duration) -> Result<(), SampleError> {
        let Some(id) = self.board.watch().unshown(self.node()) else { return Ok(()) };
        match self.sampler.shows_marker(id, limit).await {
            Ok(true) => {
                self.board.watch().shown(self.node(), id, self.sampler.connection());
                // The next sample is the first that can prove anything.
                self.board.marks.ask_for_sample();
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) if error.is_refusal() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes whose connection was lost are over when their process is gone,
    /// or when it ran on a server that is not this one.
    async fn settle_orphans(
        &mut self,
        here: Incarnation,
        limit: Duration,
    ) -> Result<(), SampleError> {
        if !self.board.marks.has_orphans() || !self.leads() {
            return Ok(());
        }
        let shard = self.target.member.shard;
        let elsewhere = |incarnation: Option<Incarnation>| {
            incarnation.is_some_and(|there| !there.agrees_with(here))
        };
        let orphans = self.board.marks.orphans_of(shard);
        let pids: Vec<u32> =
            orphans.iter().filter(|o| !elsewhere(o.incarnation)).map(|o| o.pid).collect();
        let alive =
            if pids.is_empty() { Vec::new() } else { self.sampler.alive(&pids, limit).await? };
        self.board.marks.settle_orphans(shard, |orphan| {
            elsewhere(orphan.incarnation)
                || (pids.contains(&orphan.pid) && !alive.contains(&orphan.pid))
        });
        Ok(())
    }

    /// An open transaction keeps its records in the primary's memory for many
    /// seconds; if reads wait for what stands behind them, they are flushed.
    async fn flush_tail(&mut self, limit: Duration) -> Result<(), SampleError> {
        let shard = self.target.member.shard;
        let waits = self.board.watch().has_unflushed_tail(shard)
            && self.board.marks.newest_need(shard) > SampleNumber::NONE
            && self.leads();
        if !waits {
            self.unflushed_since = None;
            return Ok(());
        }
        let since = *self.unflushed_since.get_or_insert_with(Instant::now);
        let rested = self.flushed_at.is_none_or(|at| at.elapsed() >= FLUSH_GAP);
        if since.elapsed() < UNFLUSHED_WAIT || !rested {
            return Ok(());
        }
        self.flushed_at = Some(Instant::now());
        self.unflushed_since = None;
        match self.sampler.flush(limit).await {
            Err(error) if !error.is_refusal() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    // === waits ===

    /// Until somebody waits for a sample, or the heartbeat is due.
    async fn wait_as_primary(&mut self) {
        let shard = self.target.member.shard;
        let (number, begun) = self.last;
        let marks = &self.board.marks;
        let wanted = || marks.wanted_sample(shard) > number || marks.has_orphans();
        let mut heartbeat = begun + clock::duration(self.rhythm.interval);
        if self.unflushed_since.is_some() {
            heartbeat = heartbeat.min(begun + UNFLUSHED_WAIT / 2);
        }
        tokio::time::sleep_until(begun + GAP).await;
        // While writes come one after the other they need wake nobody.
        while !wanted() {
            let now = Instant::now();
            if now >= heartbeat {
                return;
            }
            if now.duration_since(begun) < AWAKE {
                tokio::time::sleep(GAP).await;
            } else {
                let roused = marks.roused(wanted);
                // Cancel-safe: the loop looks again.
                let _ = tokio::time::timeout_at(heartbeat, roused).await;
            }
        }
    }

    /// Until the primary has been sampled, or once more if what is waited for
    /// is not proven yet.
    ///
    /// Any primary of the map wakes all its replicas; one sample too many
    /// costs less than a channel for each shard.
    async fn wait_as_replica(&mut self) {
        let shard = self.target.member.shard;
        let interval = clock::duration(self.rhythm.interval);
        let (headless, proven) = {
            let watch = self.board.watch();
            (watch.is_headless(shard), watch.proven(self.node()))
        };
        let newest = *self.sampled.borrow_and_update();
        let wanted = self.board.marks.wanted_sample(shard);
        if !headless && newest >= wanted && proven < Some(wanted.min(newest)) {
            // The primary was sampled after the write, and this replica has
            // not replayed as far.
            self.in_vain = self.in_vain.saturating_add(1);
            let wait = GAP * 2_u32.saturating_pow(self.in_vain.saturating_sub(IN_VAIN_FREE).min(4));
            // Cancel-safe: a change that was not seen stays one.
            let _ = tokio::time::timeout(wait, self.sampled.changed()).await;
            tokio::time::sleep_until(self.last.1 + GAP).await;
            return;
        }
        self.in_vain = 0;
        let limit = if headless { HEADLESS.min(interval) } else { interval + interval / 2 };
        // The sender lives as long as the tasks: an error can't come.
        let woken = tokio::time::timeout(limit, self.sampled.changed()).await.is_ok();
        if woken {
            tokio::time::sleep(REPLAY_TIME).await;
        }
        self.sampled.mark_unchanged();
    }
}

fn note(target: &Target, board: &Board, error: &SampleError) {
    let health = board.watch().health(target.member.node);
    tracing::warn!(node = %target.name, health = health.as_str(), %error, "node does not answer");
}

/// Wait before connection attempt `failures` + 1: doubled each time, and up to
/// a quarter shorter, so that the routers of a fleet don't knock together.
fn backoff(rhythm: Rhythm, failures: u32) -> Duration {
    let (min, max) = (rhythm.reconnect_min.count(), rhythm.reconnect_max.count());
    let wait = min.saturating_mul(1_u64.checked_shl(failures.min(32)).unwrap_or(u64::MAX)).min(max);
    let mut dice = [0_u8; 1];
    // Without randomness the wait is only less spread.
    let _ = getrandom::fill(&mut dice);
    let [dice] = dice;
    Duration::from_millis(wait - wait / 4 * u64::from(dice) / 255)
}

/// Least time between two samples of a node.
const GAP: Duration = Duration::from_millis(2);
/// How long after a sample the primary's task looks for writes by itself.
const AWAKE: Duration = Duration::from_millis(20);
/// Samples of a replica in the shortest rhythm before they become rarer.
const IN_VAIN_FREE: u32 = 8;
/// What a replica usually needs to replay what the primary just wrote.
const REPLAY_TIME: Duration = Duration::from_millis(1);
/// Rhythm of a shard that has no primary.
const HEADLESS: Duration = Duration::from_millis(100);
/// How long reads wait for records in the primary's memory before a flush.
const UNFLUSHED_WAIT: Duration = Duration::from_millis(200);
/// Least time between two flushes.
const FLUSH_GAP: Duration = Duration::from_secs(1);
/// How long a refused marker waits for its privilege.
const MARKER_RETRY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Consistency, Millis};

    #[test]
    fn waits_double_and_have_a_limit() {
        let reconnect = (Millis::new(100), Millis::new(10_000));
        let rhythm = Rhythm::for_reads(Consistency::Any, Millis::new(1), reconnect);
        for (failures, least, most) in [(0, 75, 100), (1, 150, 200), (40, 7_500, 10_000)] {
            let wait = u64::try_from(backoff(rhythm, failures).as_millis()).unwrap();
            assert!((least..=most).contains(&wait), "{failures}: {wait}");
        }
    }
}
