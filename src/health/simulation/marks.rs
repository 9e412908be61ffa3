//! Clients, marks and the choice in a seeded world: samples are lost and
//! overtaken, replicas pause and crash, primaries crash, die and are replaced
//! by replicas while another replica still follows the dead one's log.
//!
//! Under the rules no read is stale and no session goes back. Each rule is
//! then broken in the way that looks right, and the same world shows it.

use super::servers::Server;
use super::{SHARD, node, watch};
use crate::cluster::{Cluster, Demand, Health, SampleNumber, Wanted, Word, Writer};
use crate::health::{Answer, Probe, Ticket, Watch};
use crate::types::{Lsn, Moment, Role};

/// The rules, or one of them broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Right,
    /// A slot is marked at the acknowledgement only.
    MarkAtAcknowledgementOnly,
    /// A sample's number is counted when its answer arrives.
    NumberAtTheAnswer,
    /// What a replica has received counts as replayed.
    Received,
    /// The primary's flush position is sampled instead of its insert position.
    Flushed,
    /// A connection of any age uses the proof.
    AnyConnection,
    /// A replica proves itself without having shown the lineage's marker.
    NoMarker,
    /// A write whose connection was lost is forgotten.
    LostIsOver,
    /// A write that changes a second register marks only its own.
    StrayMarksItsSlot,
    /// A read that looks at a second register needs only its own's mark.
    RoamingNeedsItsSlot,
    /// A transaction's replica needs what was acknowledged, not what the session
    /// has seen.
    OpeningForgetsSession,
    /// Whoever has read while a write was sent does not wait for it.
    NobodySettles,
    /// It waits, or uses a replica that has what was acknowledged.
    SettlesByAcknowledged,
}

/// What a write touches, or a read looks at: a register of its own, and
/// perhaps another, of which its text says nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Scope {
    register: usize,
    also: Option<usize>,
}

impl Scope {
    fn registers(self) -> impl Iterator<Item = usize> {
        std::iter::once(self.register).chain(self.also)
    }
}

/// One client: what it does now, and what it has seen.
struct Session {
    seen: [u64; REGISTERS],
    doing: Doing,
    /// Its connection to each node: when it was opened, and to which process.
    connections: [(u64, i64); NODES],
    /// It read while these writes were sent: they are settled first.
    unsettled: Vec<Scope>,
    /// The sample that shows all that it has seen.
    need: SampleNumber,
    /// The read that waits for a replica.
    waits: Option<Scope>,
}

#[derive(Clone, Copy)]
enum Doing {
    Nothing,
    /// A write, with the times at which it is inserted and acknowledged.
    Write {
        scope: Scope,
        insert_at: u64,
        acknowledge_at: u64,
        sync: bool,
        end: Option<(u64, u64)>,
    },
    /// A read that reaches its node at `at`.
    Read {
        scope: Scope,
        at: u64,
        node: usize,
        floor: [u64; REGISTERS],
        from_replica: bool,
    },
}

/// A sample under way.
struct Sample {
    node: usize,
    ticket: Ticket,
    runs_at: u64,
    arrives_at: u64,
    /// What the node said; `None` until it has, or if the answer is lost.
    answer: Option<Answer>,
}

struct World {
    rules: Rules,
    rng: u64,
    now: u64,
    servers: Vec<Server>,
    watch: Watch,
    cluster: Cluster,
    started: u64,
    words: [Word; REGISTERS],
    /// Raised by writes that stray.
    wide: Word,
    /// Raised by all.
    all: Word,
    samples: Vec<Sample>,
    sessions: Vec<Session>,
    acknowledged: [u64; REGISTERS],
    /// Writes whose connection was lost, and when they commit.
    orphans: Vec<(Scope, Option<u64>)>,
    /// Writes that go on without their client, and when they are inserted and
    /// seen.
    ghosts: Vec<(Scope, u64, u64)>,
    /// Values that were written; none is written twice.
    values: u64,
    replica_reads: u64,
    stale: u64,
    backward: u64,
    /// Reads that no replica served although one could.
    banned: u64,
    /// Reads that were sent to a replica that was suspect.
    suspects: u64,
    /// Reads on replicas while writes to what they read were in flight.
    in_flight_reads: u64,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let watch = watch(2);
        let cluster = watch.cluster();
        let session = || Session {
            seen: [0; REGISTERS],
            doing: Doing::Nothing,
            connections: [(0, 1); NODES],
            unsettled: Vec::new(),
            need: SampleNumber::NONE,
            waits: None,
        };
        Self {
            rules,
            rng: seed | 1,
            now: 10,
            servers: (0..NODES).map(|index| Server::new(index == 0)).collect(),
            watch,
            cluster,
            started: 0,
            words: [Word::default(); REGISTERS],
            wide: Word::default(),
            all: Word::default(),
            samples: Vec::new(),
            sessions: (0..6).map(|_| session()).collect(),
            acknowledged: [0; REGISTERS],
            orphans: Vec::new(),
            ghosts: Vec::new(),
            values: 0,
            replica_reads: 0,
            stale: 0,
            backward: 0,
            banned: 0,
            suspects: 0,
            in_flight_reads: 0,
        }
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng >> 11) % sides
    }

    fn step(&mut self) {
        self.now += 1;
        self.move_logs();
        self.misfortune();
        self.haunt();
        self.monitor();
        for index in 0..self.sessions.len() {
            self.act(index);
        }
    }

    // === servers ===

    fn move_logs(&mut self) {
        for index in 0..NODES {
            let bytes = self.dice(4) * 40;
            if self.servers[index].is_primary {
                // Flushed in bursts, as asynchronous commits are.
                if self.servers[index].alive && self.dice(12) == 0 {
                    self.servers[index].flushed = self.servers[index].insert;
                }
                continue;
            }
            let source = &self.servers[self.servers[index].upstream];
            let sent = (source.alive && source.is_primary && !self.servers[index].cut)
                .then(|| source.read_log(self.servers[index].received, bytes));
            let server = &mut self.servers[index];
            if let Some(sent) = sent {
                server.receive(sent);
            }
            if !server.paused {
                let room = server.received - server.replayed;
                server.replayed += room.min(bytes);
            }
        }
    }

    fn haunt(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.ghosts.iter().filter(|ghost| ghost.1 == now).copied().collect();
        self.ghosts.retain(|ghost| ghost.1 > now);
        for (scope, _, visible_at) in due {
            if let Some(primary) = self.primary() {
                self.values += 1;
                self.servers[primary].commit(scope.registers(), self.values, 40, visible_at);
            }
        }
    }

    fn misfortune(&mut self) {
        match self.dice(1_500) {
            0..=5 => {
                let index = self.index(NODES);
                if !self.servers[index].is_primary {
                    self.servers[index].paused ^= true;
                }
            }
            20..=23 => {
                let index = self.index(NODES);
                self.servers[index].cut ^= true;
            }
            6..=8 => {
                let index = self.index(NODES);
                if !self.servers[index].is_primary && self.servers[index].alive {
                    let back = self.dice(2_000);
                    self.crash(index, back);
                }
            }
            9 => {
                if let Some(primary) = self.primary() {
                    self.crash(primary, 0);
                }
            }
            10 | 11 => self.fail_over(),
            12..=14 => self.rejoin(),
            _ => {}
        }
    }

    fn index(&mut self, below: usize) -> usize {
        usize::try_from(self.dice(u64::try_from(below).unwrap())).unwrap()
    }

    fn primary(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.alive && server.is_primary)
    }

    /// The process ends and comes back; the monitor may notice late.
    fn crash(&mut self, index: usize, back: u64) {
        let was_primary = self.servers[index].is_primary;
        self.servers[index].crash(back);
        if was_primary {
            self.end_writes();
            self.forget_what_is_gone(index);
        }
        if was_primary || self.dice(2) == 0 {
            self.notice(index);
        }
    }

    fn notice(&mut self, index: usize) {
        self.samples.retain(|sample| sample.node != index);
        self.watch.disconnected(node(u16::try_from(index).unwrap()));
        self.cluster = self.watch.cluster();
    }

    /// The primary is gone and a replica takes its place; the other one still
    /// has the dead one's log, and more of it perhaps.
    fn fail_over(&mut self) {
        let Some(old) = self.primary() else { return };
        let followers = (0..NODES).filter(|index| {
            *index != old && self.servers[*index].alive && self.servers[*index].upstream == old
        });
        // The one that has received least: the worst choice that can be made.
        let Some(new) = followers.min_by_key(|index| self.servers[*index].received) else {
            return;
        };
        self.servers[old].alive = false;
        self.notice(old);
        self.end_writes();
        self.servers[new].promote();
        self.forget_what_is_gone(new);
    }

    /// A node that is dead, or follows a dead one, becomes a replica of the
    /// primary.
    fn rejoin(&mut self) {
        let Some(primary) = self.primary() else { return };
        let source = self.servers[primary].clone();
        for index in 0..NODES {
            let server = &self.servers[index];
            let lost = !server.alive || (!server.is_primary && server.upstream != primary);
            if index != primary && lost {
                self.servers[index].copy_from(primary, &source);
                // Who followed it finds nothing there that it could follow.
                for other in (0..NODES).filter(|other| *other != index) {
                    if self.servers[other].upstream == index {
                        self.servers[other].upstream = other;
                    }
                }
                self.notice(index);
                return;
            }
        }
    }

    /// Acknowledged writes that the primary lacks are gone for everybody.
    fn forget_what_is_gone(&mut self, primary: usize) {
        for register in 0..REGISTERS {
            let left = self.servers[primary].value(register, u64::MAX);
            self.acknowledged[register] = self.acknowledged[register].min(left);
            for session in &mut self.sessions {
                session.seen[register] = session.seen[register].min(left);
            }
        }
        // A read under way may still show what is gone: it is not judged.
        for session in &mut self.sessions {
            if let Doing::Read { .. } = session.doing {
                session.doing = Doing::Nothing;
            }
        }
    }

    /// The connections of all writes are lost with the primary.
    fn end_writes(&mut self) {
        self.ghosts.clear();
        for orphan in &mut self.orphans {
            orphan.1 = None;
        }
        for index in 0..self.sessions.len() {
            if let Doing::Write { scope, .. } = self.sessions[index].doing {
                self.sessions[index].doing = Doing::Nothing;
                self.lose(scope, None);
            }
        }
    }

    // === marks ===

    fn lose(&mut self, scope: Scope, commits_at: Option<u64>) {
        match self.rules {
            Rules::LostIsOver => self.settle(scope),
            _ => self.orphans.push((scope, commits_at)),
        }
    }

    fn marks_wide(&self, scope: Scope) -> bool {
        scope.also.is_some() && self.rules != Rules::StrayMarksItsSlot
    }

    fn change(&mut self, scope: Scope, to: impl Fn(Word) -> Word) {
        if self.marks_wide(scope) {
            self.wide = to(self.wide);
        } else {
            self.words[scope.register] = to(self.words[scope.register]);
        }
        self.all = to(self.all);
    }

    fn settle(&mut self, scope: Scope) {
        let started = SampleNumber::new(self.started);
        let rules = self.rules;
        self.change(scope, |word| match rules {
            Rules::MarkAtAcknowledgementOnly => word.raised(started),
            _ => word.acknowledged(started),
        });
    }

    fn demand(&self, scope: Scope) -> Demand {
        if scope.also.is_some() && self.rules != Rules::RoamingNeedsItsSlot {
            Demand::of(self.all, Word::default())
        } else {
            Demand::of(self.words[scope.register], self.wide)
        }
    }

    /// The sample that shows what was acknowledged.
    fn need(&self, scope: Scope) -> SampleNumber {
        match scope.also {
            Some(_) => self.all.need(),
            None => self.words[scope.register].need().max(self.wide.need()),
        }
    }

    // === the monitor ===

    fn monitor(&mut self) {
        self.strike_and_probe();
        if self.dice(4) == 0 {
            let index = self.index(NODES);
            if self.samples.iter().filter(|sample| sample.node == index).count() < 2 {
                self.begin_sample(index);
            }
        }
        for at in 0..self.samples.len() {
            if self.samples[at].runs_at == self.now {
                self.samples[at].answer = self.ask(self.samples[at].node);
            }
        }
        let now = self.now;
        let (arrived, under_way) =
            std::mem::take(&mut self.samples).into_iter().partition(|s| s.arrives_at <= now);
        self.samples = under_way;
        let arrived: Vec<Sample> = arrived;
        for sample in arrived {
            self.take(&sample);
        }
    }

    /// Clients' connections break now and then, several at a time, and the
    /// monitor knocks where a breaker wants it.
    fn strike_and_probe(&mut self) {
        let struck = self.dice(200) == 0;
        let index = self.index(NODES);
        let name = node(u16::try_from(index).unwrap());
        let now = Moment::from_ms(self.now);
        if struck {
            (0..3).for_each(|_| self.watch.struck(name, now));
            self.cluster = self.watch.cluster();
        } else if self.watch.wants_probe(name, now) {
            let answers = self.servers[index].alive && self.dice(10) != 0;
            let outcome = if answers { Probe::Answered } else { Probe::Failed };
            self.watch.probed(name, now, outcome);
            self.cluster = self.watch.cluster();
        }
    }

    fn begin_sample(&mut self, index: usize) {
        self.started += 1;
        let runs_at = self.now + 1 + self.dice(6);
        let slowest = if self.dice(8) == 0 { 60 } else { 6 };
        let arrives_at = runs_at + 1 + self.dice(slowest);
        let ticket = self.watch.begin(
            node(u16::try_from(index).unwrap()),
            SampleNumber::new(self.started),
            Moment::from_ms(self.now),
        );
        self.samples.push(Sample { node: index, ticket, runs_at, arrives_at, answer: None });
    }

    fn ask(&mut self, index: usize) -> Option<Answer> {
        let lost = self.dice(20) == 0;
        let server = &self.servers[index];
        if !server.alive || lost {
            return None;
        }
        let flushed = Lsn::new(server.flushed);
        Some(if server.is_primary {
            let insert = match self.rules {
                Rules::Flushed => flushed,
                _ => Lsn::new(server.insert),
            };
            let (identity, timeline) = (server.identity, server.timeline);
            Answer::Primary { identity, timeline, insert, flushed }
        } else {
            let replay = match self.rules {
                Rules::Received => server.received,
                _ => server.replayed,
            };
            Answer::Replica { identity: server.identity, replay: Some(Lsn::new(replay)) }
        })
    }

    fn take(&mut self, sample: &Sample) {
        let name = node(u16::try_from(sample.node).unwrap());
        let Some(answer) = sample.answer else {
            self.watch.failed(sample.ticket);
            self.cluster = self.watch.cluster();
            return;
        };
        let mut ticket = sample.ticket;
        if self.rules == Rules::NumberAtTheAnswer {
            self.started += 1;
            let number = SampleNumber::new(self.started);
            ticket = self.watch.begin(name, number, Moment::from_ms(self.now));
        }
        self.watch.answered(ticket, answer);
        let server = &self.servers[sample.node];
        if let Some(id) = self.watch.unmarked(name) {
            self.watch.marked(name, id);
        }
        if let Some(id) = self.watch.unshown(name) {
            // The marker is in the log of the primary that leads, and of those
            // that follow it.
            let follows = self.primary() == Some(server.upstream)
                && self.watch.is_leader(node(u16::try_from(server.upstream).unwrap()));
            if follows || self.rules == Rules::NoMarker {
                self.watch.shown(name, id, server.identity.connection);
            }
        }
        if self.watch.is_leader(name) {
            // A lost write's process is not there any more, or its commit is
            // through.
            let now = self.now;
            let (over, open): (Vec<_>, Vec<_>) = std::mem::take(&mut self.orphans)
                .into_iter()
                .partition(|(_, commits_at)| commits_at.is_none_or(|at| at < now));
            self.orphans = open;
            for (scope, _) in over {
                self.settle(scope);
            }
        }
        self.cluster = self.watch.cluster();
    }

    // === clients ===

    fn act(&mut self, index: usize) {
        match self.sessions[index].doing {
            Doing::Nothing => {
                if let Some(scope) = self.sessions[index].waits.take() {
                    self.begin_read(index, scope, true);
                } else if self.dice(3) == 0 {
                    self.begin(index);
                }
            }
            Doing::Write { .. } => self.go_on_writing(index),
            Doing::Read { scope, at, node, floor, from_replica } => {
                if at == self.now {
                    self.finish_read(index, scope, node, &floor, from_replica);
                }
            }
        }
    }

    fn begin(&mut self, index: usize) {
        let register = self.index(REGISTERS);
        let also = (self.dice(6) == 0).then(|| (register + 1) % REGISTERS);
        let scope = Scope { register, also };
        if self.dice(9) == 0 {
            if self.writer().is_none() {
                return;
            }
            if self.rules != Rules::MarkAtAcknowledgementOnly {
                self.change(scope, Word::sent);
            }
            let insert_at = self.now + 1 + self.dice(12);
            let acknowledge_at = insert_at + 1 + self.dice(25);
            let sync = self.dice(2) == 0;
            self.sessions[index].doing =
                Doing::Write { scope, insert_at, acknowledge_at, sync, end: None };
            return;
        }
        let opens = scope.also.is_some() && self.dice(2) == 0;
        self.begin_read(index, scope, opens);
    }

    /// `opens`: a transaction, whose replica is waited for.
    fn begin_read(&mut self, index: usize, scope: Scope, opens: bool) {
        let mut demand = self.demand(scope);
        let unsettled = self.is_unsettled(index, scope);
        if demand == Demand::InFlight && (opens || unsettled) {
            // All that was acknowledged, and all that the session has seen.
            let forgets = match self.rules {
                Rules::OpeningForgetsSession => !unsettled,
                Rules::SettlesByAcknowledged => unsettled,
                _ => false,
            };
            let need = self.need(scope);
            let seen = self.sessions[index].need;
            demand = Demand::Proof(if forgets { need } else { need.max(seen) });
        }
        let tie = self.dice(97);
        let floor = self.acknowledged;
        let at = self.now + 1 + self.dice(3);
        let replica = self.cluster.choose(SHARD, Wanted::Marks(demand), tie).node();
        if replica.is_none() && self.could_serve(demand) {
            self.banned += 1;
        }
        self.suspects +=
            u64::from(replica.is_some_and(|node| self.cluster.health(node) == Health::Suspect));
        if let Some(replica) = replica.filter(|node| self.connects(index, node.index())) {
            let (node, from_replica) = (replica.index(), true);
            self.in_flight_reads += u64::from(self.demand(scope) == Demand::InFlight);
            self.sessions[index].doing = Doing::Read { scope, at, node, floor, from_replica };
        } else if unsettled || (opens && self.dice(40) > 0) {
            self.sessions[index].waits = Some(scope);
        } else if let Some(node) = self.writer() {
            let from_replica = false;
            self.sessions[index].doing = Doing::Read { scope, at, node, floor, from_replica };
        }
    }

    /// True if a write is in flight that the session may have seen on a replica
    /// and that a read of `scope` may look at.
    fn is_unsettled(&self, index: usize, scope: Scope) -> bool {
        self.rules != Rules::NobodySettles
            && self.sessions[index].unsettled.iter().any(|seen| {
                let both = match (seen.also, scope.also) {
                    (_, Some(_)) => Some(*seen),
                    (Some(_), None) => Some(scope),
                    (None, None) => (seen.register == scope.register).then_some(scope),
                };
                both.is_some_and(|scope| self.demand(scope) == Demand::InFlight)
            })
    }

    /// True if a replica that answers has proven enough.
    fn could_serve(&self, demand: Demand) -> bool {
        let Demand::Proof(need) = demand else { return false };
        self.cluster.nodes().iter().any(|state| {
            state.health.may_serve()
                && self.cluster.primary_of(SHARD) != Some(state.member.node)
                && state.role_seen == Some(Role::Replica)
                && state.replay.and_then(|replay| replay.proven).is_some_and(|p| p.number >= need)
        })
    }

    /// The primary that the router writes to, if it is one and lives.
    fn writer(&self) -> Option<usize> {
        match self.cluster.writer_of(SHARD)? {
            Writer::Node(node) => {
                let server = self.servers.get(node.index())?;
                (server.alive && server.is_primary).then_some(node.index())
            }
            Writer::Several | Writer::Unconfirmed | Writer::Absent => None,
        }
    }

    /// True if the session's connection to a replica may be used; a dead one
    /// is opened anew, now and then an old one too.
    fn connects(&mut self, index: usize, replica: usize) -> bool {
        let process = self.servers[replica].identity.started_us;
        if !self.servers[replica].alive {
            return false;
        }
        if self.sessions[index].connections[replica].1 != process || self.dice(50) == 0 {
            self.sessions[index].connections[replica] = (self.now, process);
        }
        let (opened, _) = self.sessions[index].connections[replica];
        self.rules == Rules::AnyConnection
            || self
                .cluster
                .vouches_for(node(u16::try_from(replica).unwrap()), Moment::from_ms(opened))
    }

    fn go_on_writing(&mut self, index: usize) {
        let Doing::Write { scope, insert_at, acknowledge_at, sync, end } =
            self.sessions[index].doing
        else {
            return;
        };
        let Some(primary) = self.writer() else {
            self.sessions[index].doing = Doing::Nothing;
            self.lose(scope, None);
            return;
        };
        if self.now == insert_at {
            self.values += 1;
            let value = self.values;
            let size = 1 + self.dice(60);
            // In between others on the primary don't see it, replicas may.
            let visible_at = acknowledge_at - self.dice(acknowledge_at - insert_at);
            let end = self.servers[primary].commit(scope.registers(), value, size, visible_at);
            self.sessions[index].doing =
                Doing::Write { scope, insert_at, acknowledge_at, sync, end: Some((end, value)) };
        }
        // The client's connection breaks; the server goes on.
        if self.now < acknowledge_at && self.dice(60) == 0 {
            self.sessions[index].doing = Doing::Nothing;
            if end.is_none() {
                self.ghosts.push((scope, insert_at, acknowledge_at));
            }
            self.lose(scope, Some(acknowledge_at));
            return;
        }
        if self.now >= acknowledge_at
            && let Some((end, value)) = end
        {
            if sync {
                self.servers[primary].flushed = self.servers[primary].flushed.max(end);
            }
            self.settle(scope);
            for register in scope.registers() {
                self.acknowledged[register] = self.acknowledged[register].max(value);
                let seen = &mut self.sessions[index].seen[register];
                *seen = value.max(*seen);
            }
            self.sessions[index].doing = Doing::Nothing;
            self.sessions[index].need = SampleNumber::new(self.started).next();
        }
    }

    fn finish_read(
        &mut self,
        index: usize,
        scope: Scope,
        from: usize,
        floor: &[u64; REGISTERS],
        from_replica: bool,
    ) {
        self.sessions[index].doing = Doing::Nothing;
        let server = &self.servers[from];
        let (_, process) = self.sessions[index].connections[from];
        let right_role = server.is_primary != from_replica;
        if !server.alive || !right_role || (from_replica && process != server.identity.started_us) {
            // Its connection is gone: an error, not an answer.
            return;
        }
        self.replica_reads += u64::from(from_replica);
        for register in scope.registers() {
            let value = self.servers[from].value(register, self.now);
            let seen = &mut self.sessions[index].seen[register];
            if value < floor[register] {
                self.stale += 1;
            } else if value < *seen {
                self.backward += 1;
            }
            *seen = value.max(*seen);
        }
        let session = &mut self.sessions[index];
        session.need = SampleNumber::new(self.started).next();
        let mut unsettled = std::mem::take(&mut session.unsettled);
        if from_replica {
            unsettled.push(scope);
        }
        unsettled.retain(|scope| self.demand(*scope) == Demand::InFlight);
        self.sessions[index].unsettled = unsettled;
    }
}

fn world(seed: u64, rules: Rules) -> World {
    let mut world = World::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), rules);
    (0..6_000).for_each(|_| world.step());
    world
}

#[test]
fn no_read_is_stale_and_no_session_goes_back_whatever_happens() {
    let (mut replica_reads, mut suspects, mut in_flight) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let world = world(seed, Rules::Right);
        assert_eq!((world.stale, world.backward), (0, 0), "seed {seed}");
        assert_eq!(world.banned, 0, "seed {seed}: the last that can serve is never banned");
        suspects += world.suspects;
        in_flight += world.in_flight_reads;
        replica_reads += world.replica_reads;
    }
    assert!(replica_reads > 2_000, "replicas serve something: {replica_reads}");
    assert!(suspects > 50, "suspects serve what no other can: {suspects}");
    assert!(in_flight > 50, "the session's proof suffices: {in_flight}");
}

#[test]
fn each_rule_is_needed() {
    for rules in [
        Rules::NumberAtTheAnswer,
        Rules::Received,
        Rules::Flushed,
        Rules::AnyConnection,
        Rules::NoMarker,
        Rules::StrayMarksItsSlot,
        Rules::RoamingNeedsItsSlot,
    ] {
        let seen = (1..=SEEDS).any(|seed| world(seed, rules).stale > 0);
        assert!(seen, "{rules:?} violates nothing in this world");
    }
    for rules in [
        Rules::MarkAtAcknowledgementOnly,
        Rules::LostIsOver,
        Rules::OpeningForgetsSession,
        Rules::NobodySettles,
        Rules::SettlesByAcknowledged,
    ] {
        let seen = (1..=SEEDS).any(|seed| {
            let world = world(seed, rules);
            assert_eq!(world.stale, 0, "{rules:?}: own writes are seen");
            world.backward > 0
        });
        assert!(seen, "{rules:?}: sessions go back");
    }
}

const SEEDS: u64 = 40;
const REGISTERS: usize = 3;
const NODES: usize = 3;
