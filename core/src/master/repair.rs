//! Redundancy: how healthy each chunk is, and copies made for those that have too few
//! (P8), most endangered first. What is too many, stale or referred to by nobody goes by
//! `deletion`.
//!
//! Health is kept on every member, so that a new leader starts with it; only the
//! leader acts. Invariant: `classes` tells every chunk that is not at goal.

use super::commands::Purpose;
use super::servers::{Copy, Server};
use super::{Master, Proposal};
use crate::ids::{BootId, ChunkId, ChunkVersion, Epoch, PartId, ServerId};
use crate::limits::{COPIES_MAX, REPAIR_BULK_BYTES, REPORT_BATCH};
use crate::machine::Level;
use crate::marks::Mark;
use crate::namespace::record::RecordBody;
use crate::namespace::{Chunk, LeaseState};
use crate::placement::{self, Candidate, Labels, Policy};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::capability::{Grant, Right};
use crate::wire::chunk_master::{Command, CommandResult};
use crate::wire::client_master::{Health, LocatedCopy};
use std::collections::{BTreeMap, BTreeSet};

/// After this long a chunk that could not be repaired is looked at again.
pub(super) const AGAIN: Duration = Duration::from_secs(1);
/// The same for one whose copies are enough, and may come home.
const HOME_AGAIN: Duration = Duration::from_secs(10);
/// How far apart the looks at chunks are that have no place: a lost site may leave all of
/// them without one, and the leader has other things to do.
const PLACELESS_APART: Duration = Duration::from_micros(200);
/// Chunks that one pump looks at.
const LOOKS_MAX: usize = 256;
/// Chunks without a free server at which a pump ends: behind large ones a small one may
/// still find room.
const REFUSALS_MAX: usize = 16;

/// How far a chunk is from its goal; the order is the order of repair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    /// One copy left of several, or none but on disks that take no writes any more; as
    /// many parts as it takes, and no more.
    Endangered,
    /// A copy lies where a hard term does not permit one.
    Outside,
    /// Fewer than wanted.
    Under,
    /// As many as wanted, some of them on servers that are drained.
    Draining,
    /// As many as wanted and more, or stale ones beside them.
    Surplus,
    /// In copies where its class wants parts, or the other way round.
    Unshaped,
    /// As many as wanted, but not all where soft terms want them.
    Misplaced,
    /// Fewer than wanted only while a server in maintenance is away: it is waited for.
    Awaited,
    /// None: nothing can be done until a server comes back.
    Missing,
}

impl Class {
    /// Whether there is something to do about it.
    fn is_due(self) -> bool {
        !matches!(self, Self::Awaited | Self::Missing)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) source: ServerId,
    pub(super) target: ServerId,
    /// Which part is made; 0: a copy.
    pub(super) part: u8,
    pub(super) version: ChunkVersion,
    pub(super) bulk: bool,
}

/// Where a new copy goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Target {
    At(ServerId),
    /// Everybody who may have it has enough to do.
    Busy,
    Nowhere,
}

/// What came of a chunk that was due for repair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    /// It is being made, or looked at again later.
    Settled,
    /// Every server that could take part has enough to do.
    NoRoom,
}

/// The state of repair.
#[derive(Clone, Debug, Default)]
pub(super) struct Repair {
    begin: Option<Instant>,
    classes: BTreeMap<ChunkId, (Class, bool)>,
    /// Of these, what something can be done for and is not: none that is missing.
    queue: BTreeSet<(Class, ChunkId)>,
    later: BTreeSet<(Instant, ChunkId)>,
    running: BTreeMap<ChunkId, Running>,
    /// What could not be made a moment ago, and until when it is left alone.
    failed: BTreeMap<ChunkId, Instant>,
    /// Servers had no room for what is first in the queue: nothing is looked at until
    /// one may have.
    rests: bool,
    /// When the last of the chunks that have no place is looked at again.
    placeless: Instant,
}

impl Repair {
    /// A reign begins: repair starts at `begin`.
    pub(super) fn begin(&mut self, begin: Instant) {
        self.begin = Some(begin);
        let all = self.classes.iter();
        let due = all.filter(|(_, (class, _))| class.is_due());
        self.queue = due.map(|(chunk, (class, _))| (*class, *chunk)).collect();
    }

    /// A reign ends.
    pub(super) fn end(&mut self) {
        self.begin = None;
        self.rests = false;
        self.running.clear();
        self.failed.clear();
        self.later.clear();
        self.placeless = Instant::default();
    }

    pub(super) fn is_running(&self, chunk: ChunkId) -> bool {
        self.running.contains_key(&chunk)
    }

    /// What is being made of a chunk.
    pub(super) fn making(&self, chunk: ChunkId) -> Option<Running> {
        self.running.get(&chunk).copied()
    }

    /// When repair begins, if there is a reign.
    pub(super) fn begin_at(&self) -> Option<Instant> {
        self.begin
    }

    /// How far a chunk is from its goal, as last assessed.
    pub(super) fn class_of(&self, chunk: ChunkId) -> Option<Class> {
        self.classes.get(&chunk).map(|(class, _)| *class)
    }

    /// Nothing is being made but for these, and nothing waits for servers that are busy.
    /// (What waits for room may get it by what moves.)
    pub(super) fn is_idle_but_for(&self, moving: &BTreeMap<ChunkId, ServerId>) -> bool {
        let mut running = self.running.keys();
        !self.rests && running.all(|chunk| moving.contains_key(chunk))
    }

    /// What was to be done about a chunk failed, and would again.
    pub(super) fn put_aside(&mut self, chunk: ChunkId, now: Instant) {
        self.failed.insert(chunk, now + AGAIN);
    }

    /// Until when a chunk is left alone that could not be repaired.
    pub(super) fn failed_until(&self, chunk: ChunkId) -> Option<Instant> {
        self.failed.get(&chunk).copied()
    }

    /// How many chunks are repaired before one, `most` at most.
    pub(super) fn before(&self, class: Class, chunk: ChunkId, most: usize) -> usize {
        self.queue.range(..(class, chunk)).take(most).count()
    }

    pub(super) fn running(&self) -> u64 {
        self.running.len() as u64
    }

    /// Chunks by health, of `chunks` in all.
    pub(super) fn health(&self, chunks: u64) -> Health {
        let mut health = Health::default();
        let mut not_at_goal = 0;
        for (class, over) in self.classes.values() {
            let count = match class {
                Class::Missing => &mut health.missing,
                Class::Endangered => &mut health.endangered,
                Class::Outside => &mut health.outside,
                Class::Under => &mut health.under_goal,
                Class::Misplaced => &mut health.misplaced,
                Class::Draining => &mut health.draining,
                Class::Awaited => &mut health.awaited,
                Class::Unshaped => &mut health.unshaped,
                Class::Surplus if *over => &mut health.over_goal,
                Class::Surplus => continue,
            };
            *count += 1;
            not_at_goal += 1;
        }
        health.at_goal = chunks.saturating_sub(not_at_goal);
        health
    }

    fn classify(&mut self, chunk: ChunkId, class: Option<(Class, bool)>) {
        let before = self.classes.get(&chunk).copied();
        if before == class {
            return;
        }
        if let Some((class, _)) = before {
            self.queue.remove(&(class, chunk));
        }
        match class {
            Some(class) => {
                self.classes.insert(chunk, class);
                self.enqueue(class.0, chunk);
            }
            None => {
                self.classes.remove(&chunk);
            }
        }
    }

    fn enqueue(&mut self, class: Class, chunk: ChunkId) {
        if class.is_due() {
            self.queue.insert((class, chunk));
        }
    }

    pub(super) fn postpone(&mut self, class: Class, chunk: ChunkId, until: Instant) {
        self.queue.remove(&(class, chunk));
        self.later.insert((until, chunk));
    }

    /// It is under way.
    pub(super) fn unqueue(&mut self, class: Class, chunk: ChunkId) {
        self.queue.remove(&(class, chunk));
    }

    pub(super) fn look_later(&mut self, chunk: ChunkId, when: Instant) {
        self.later.insert((when, chunk));
    }

    /// It has no place: when it is looked at again. Of many each waits for longer.
    fn look_for_place(&mut self, soonest: Instant) -> Instant {
        self.placeless = soonest.max(self.placeless + PLACELESS_APART);
        self.placeless
    }

    /// Something that servers were busy with ended.
    pub(super) fn has_room_again(&mut self) {
        self.rests = false;
    }

    pub(super) fn put_off(&mut self, class: Class, chunk: ChunkId, until: Instant) -> Begun {
        self.postpone(class, chunk, until);
        Begun::Settled
    }
}

impl Master {
    /// The copies of a chunk that count towards its goal.
    pub(super) fn counting(&self, id: ChunkId, chunk: &Chunk) -> Vec<ServerId> {
        self.counting_of(id, chunk, |server| self.servers.counts(server))
    }

    /// The same, if those at rest on some servers count.
    fn counting_of(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        counts: impl Fn(ServerId) -> bool,
    ) -> Vec<ServerId> {
        if let Some(stripe) = chunk.stripe {
            let parts = self.counting_parts(id, chunk.version, stripe);
            return parts.into_iter().map(|(_, server)| server).collect();
        }
        match &chunk.lease {
            LeaseState::Settled => {
                let current = self.servers.current(id, chunk.version);
                current
                    .map(|copy| copy.server)
                    .filter(|server| counts(*server))
                    .collect()
            }
            LeaseState::Open { copies, .. }
            | LeaseState::Closing { copies, .. }
            | LeaseState::Broken { copies, .. }
            | LeaseState::Reconciling { copies, .. } => {
                let same = copies
                    .iter()
                    .filter(|(server, boot)| self.servers.counts_in_life(*server, *boot))
                    .filter(|(server, _)| !self.servers.has_lost(*server, id));
                same.map(|(server, _)| *server).collect()
            }
        }
    }

    /// How far the chunk is from its goal, and whether it has too many current copies.
    pub(super) fn class(&self, id: ChunkId) -> Option<(Class, bool)> {
        let chunk = self.member.state().chunk(id)?;
        let class = self.class_of(id, &chunk, |server| self.servers.counts(server))?;
        match self.is_awaited(id, &chunk, class.0) {
            true => Some((Class::Awaited, false)),
            false => Some(class),
        }
    }

    /// Whether a chunk lacks only what a server in maintenance has that is away. Nothing
    /// is waited for where it can't be read otherwise, or only from disks that failed.
    fn is_awaited(&self, id: ChunkId, chunk: &Chunk, class: Class) -> bool {
        let is_away = |server| self.servers.is_maintained_away(server);
        let short = matches!(class, Class::Endangered | Class::Under);
        let mut held = self.servers.held(id).iter();
        let settled = matches!(chunk.lease, LeaseState::Settled);
        if !short || !settled || !held.any(|copy| is_away(copy.server)) {
            return false;
        }
        let least = chunk.stripe.map_or(1, |stripe| stripe.shape.data());
        let counts = |server| self.servers.counts(server) || is_away(server);
        let then = self.class_of(id, chunk, counts).map(|(class, _)| class);
        let whole = !matches!(
            then,
            Some(Class::Endangered | Class::Under | Class::Outside | Class::Missing)
        );
        whole && self.counting(id, chunk).len() >= least
    }

    /// How far the chunk is from its goal, if what is at rest on some servers counts.
    fn class_of(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        counts: impl Fn(ServerId) -> bool,
    ) -> Option<(Class, bool)> {
        if let Some(stripe) = chunk.stripe {
            return self.coded_class(id, chunk, stripe, counts);
        }
        let counting = self.counting_of(id, chunk, counts);
        let class = self.member.state().class(chunk.class);
        let settled = matches!(chunk.lease, LeaseState::Settled);
        let raw = counting.len();
        let (wanted, standing) = match settled {
            true => (
                class.copied(chunk.archived).copies,
                self.standing(&class, class.copied(chunk.archived), id, &counting),
            ),
            false => (class.making().copies, self.writing(&class, id, &counting)),
        };
        let wanted = usize::from(wanted);
        let most = wanted.max(usize::from(class.copied(chunk.archived).copies));
        let count = raw - standing.outside;
        let converts = self.conversions.is_running(id);
        let stale = |copy: &Copy| {
            let is_good = match copy.part {
                0 => copy.is_current(chunk.version) || copy.suspect,
                _ => converts || copy.suspect,
            };
            !is_good && self.servers.is_alive(copy.server)
        };
        let unclean = settled && self.servers.held(id).iter().any(stale);
        match raw {
            0 if settled && !self.servers.readable(id, chunk.version).is_empty() => {
                Some((Class::Endangered, false))
            }
            0 => Some((Class::Missing, false)),
            1 if wanted > 1 => Some((Class::Endangered, false)),
            _ if standing.outside > 0 => Some((Class::Outside, false)),
            _ if standing.filled < wanted => Some((Class::Under, false)),
            _ if standing.draining > 0 => Some((Class::Draining, false)),
            _ if count > most => Some((Class::Surplus, true)),
            _ if unclean => Some((Class::Surplus, false)),
            _ if settled && class.resting(chunk.archived).stripe.is_some() => {
                Some((Class::Unshaped, false))
            }
            _ => (settled && standing.misplaced).then_some((Class::Misplaced, false)),
        }
    }

    /// Whether a chunk with copies outside has as many inside as it wants.
    pub(super) fn has_come_in(&self, chunk: ChunkId) -> bool {
        let Some(one) = self.member.state().chunk(chunk) else {
            return false;
        };
        if let Some(stripe) = one.stripe {
            return self.have_parts_come_in(chunk, &one, stripe);
        }
        let class = self.member.state().class(one.class);
        let counting = self.counting(chunk, &one);
        let copied = class.copied(one.archived);
        let standing = self.standing(&class, copied, chunk, &counting);
        matches!(one.lease, LeaseState::Settled) && standing.staying >= usize::from(copied.copies)
    }

    /// Brings the health of everything that was touched up to date.
    pub(super) fn assess_touched(&mut self) {
        for chunk in self.servers.take_touched() {
            let class = self.class(chunk);
            self.repair.classify(chunk, class);
            match class {
                Some((Class::Surplus, false)) => self.marks.reach(Mark::StaleCopyRefused),
                Some((Class::Awaited, _)) => self.marks.reach(Mark::MaintenanceAwaited),
                _ => {}
            }
            self.look_for_newer(chunk);
        }
    }

    pub(super) fn assess_everything(&mut self) {
        self.repair.classes.clear();
        self.repair.queue.clear();
        let mut from = ChunkId(0);
        loop {
            let some = self.member.state().chunks_from(from, REPORT_BATCH);
            let Some(last) = some.last() else { break };
            from = last.next();
            for chunk in some {
                self.servers.touch(chunk);
            }
        }
        self.assess_touched();
    }

    /// After a recovery copies may be newer than the table: they are taken over.
    fn look_for_newer(&mut self, chunk: ChunkId) {
        if self.reign.is_none() || self.life().0 == 0 {
            return;
        }
        let Some(one) = self.member.state().chunk(chunk) else {
            return;
        };
        // The copies that a chunk in parts is getting are ahead of it.
        if self.conversions.is_running(chunk) {
            return;
        }
        let newest = self
            .servers
            .copies(chunk)
            .filter(|copy| !copy.bad)
            .map(|copy| copy.version)
            .max();
        let (epoch, settled) = (one.epoch, matches!(one.lease, LeaseState::Settled));
        if let Some(version) = newest.filter(|newest| settled && *newest > one.version) {
            self.propose(
                Proposal::Adopt,
                RecordBody::Adopt {
                    chunk,
                    epoch,
                    version,
                },
            );
        }
    }

    /// Starts what repair has room for.
    pub(super) fn pump_repair(&mut self) {
        let begun = self
            .repair
            .begin
            .is_some_and(|begin| self.now.mono >= begin);
        if self.repair.rests || !begun {
            return;
        }
        let due = self.repair.queue.iter().take(LOOKS_MAX);
        let next: Vec<(Class, ChunkId)> = due.copied().collect();
        let mut refused = 0;
        for (class, chunk) in next {
            let trims = match class {
                Class::Surplus => true,
                Class::Outside | Class::Draining => self.has_come_in(chunk),
                _ => false,
            };
            if trims {
                if class == Class::Draining {
                    self.note_drained(chunk);
                }
                self.trim(class, chunk);
            } else if self.start_repair(class, chunk) == Begun::NoRoom {
                refused += 1;
            }
            if refused == REFUSALS_MAX {
                break;
            }
        }
        self.repair.rests = refused > 0;
    }

    fn start_repair(&mut self, class: Class, chunk: ChunkId) -> Begun {
        if self.repair.is_running(chunk) || self.conversions.is_running(chunk) {
            return Begun::Settled;
        }
        let one = self
            .member
            .state()
            .chunk(chunk)
            .expect("what is classified is in the table");
        if let Some(until) = self.repair.failed.get(&chunk).copied() {
            return self.repair.put_off(class, chunk, until);
        }
        let bulk = self.is_bulk(chunk, &one);
        let later = match class {
            Class::Misplaced | Class::Draining => self.now.mono + HOME_AGAIN,
            _ => self.now.mono + AGAIN,
        };
        match one.lease {
            LeaseState::Settled => {}
            LeaseState::Open { .. } => {
                self.repair.postpone(class, chunk, later);
                self.recall_for_repair(chunk);
                return Begun::Settled;
            }
            _ => return self.repair.put_off(class, chunk, later),
        }
        if let Some(stripe) = one.stripe {
            return self.repair_parts(class, chunk, &one, stripe);
        }
        if class == Class::Unshaped {
            return self.start_conversion(chunk, &one, bulk);
        }
        let sources = self.sources(chunk, one.version);
        let Some(source) = sources.first().map(|(server, _)| *server) else {
            return self.repair.put_off(class, chunk, later);
        };
        if !self.has_repair_room(source, bulk) {
            return Begun::NoRoom;
        }
        match self.target(chunk, one.version, bulk) {
            Target::At(target) => {
                self.replicate(class, chunk, &one, &sources, target);
                Begun::Settled
            }
            Target::Busy => Begun::NoRoom,
            Target::Nowhere => {
                let later = self.repair.look_for_place(later);
                self.repair.put_off(class, chunk, later)
            }
        }
    }

    /// Makes a copy of a chunk at rest.
    fn replicate(
        &mut self,
        class: Class,
        id: ChunkId,
        chunk: &Chunk,
        sources: &[(ServerId, BootId)],
        target: ServerId,
    ) {
        let version = chunk.version;
        let running = Running {
            source: sources[0].0,
            target,
            part: 0,
            version,
            bulk: self.is_bulk(id, chunk),
        };
        let command = Command::Replicate {
            part: PartId::whole(id),
            version,
            epoch: chunk.epoch,
            sources: self.with_rights(id, version, sources),
        };
        self.begin_repair(class, id, running, command);
    }

    /// Makes a copy that takes another one's place. False when nobody has room for it.
    pub(super) fn move_copy(&mut self, id: ChunkId, chunk: &Chunk, to: ServerId) -> bool {
        let sources = self.sources(id, chunk.version);
        let bulk = self.is_bulk(id, chunk);
        let source = sources.first().map(|(server, _)| *server);
        if !source.is_some_and(|source| self.has_repair_room(source, bulk)) {
            return false;
        }
        self.replicate(Class::Surplus, id, chunk, &sources, to);
        true
    }

    pub(super) fn begin_repair(
        &mut self,
        class: Class,
        chunk: ChunkId,
        running: Running,
        command: Command,
    ) {
        self.repair.queue.remove(&(class, chunk));
        self.repair.running.insert(chunk, running);
        for server in [running.source, running.target] {
            let one = self.servers.table.get_mut(&server);
            one.expect("it was just chosen").repairs.add(running.bulk);
        }
        self.command(running.target, Purpose::Repair(chunk), command);
    }

    /// Whether a chunk holds so much that its copy is bound by bandwidth.
    pub(super) fn is_bulk(&self, id: ChunkId, chunk: &Chunk) -> bool {
        let place = self.member.state().chunk_at(chunk.inode, chunk.index);
        match place {
            Ok(Some((at, valid))) if at == id => valid > REPAIR_BULK_BYTES,
            _ => true,
        }
    }

    pub(super) fn has_repair_room(&self, server: ServerId, bulk: bool) -> bool {
        let one = self.servers.get(server);
        one.is_some_and(|one| one.repairs.has_room(bulk, self.config.repair_inflight_max))
    }

    /// A chunk with too few copies gets a new one before its next lease, if that can
    /// begin now or as soon as its last lease is settled: one that is written without
    /// pause would never get it. True when it can.
    pub(super) fn repair_before_lease(&mut self, chunk: ChunkId) -> bool {
        let has_begun = self
            .repair
            .begin
            .is_some_and(|begin| begin <= self.now.mono);
        let Some((class, _)) = self.class(chunk) else {
            return false;
        };
        let wants = match class {
            Class::Endangered | Class::Under => true,
            Class::Draining => !self.has_come_in(chunk),
            _ => false,
        };
        if !wants {
            return false;
        }
        let Some(one) = self.member.state().chunk(chunk).filter(|_| has_begun) else {
            return false;
        };
        match one.lease {
            LeaseState::Settled => {
                self.start_repair(class, chunk);
            }
            LeaseState::Closing { .. } => {
                let holders = self.counting(chunk, &one).into_iter().collect();
                self.leases.hurry();
                let class = self.member.state().class(one.class);
                let policy = class.copied(one.archived);
                let candidates = self.servers.candidates(policy, &holders);
                let fits = |to: &Candidate<'_>| to.free > 0 && policy.permits(to.labels);
                return candidates.iter().any(fits);
            }
            _ => {}
        }
        let is_running = self.repair.is_running(chunk);
        if is_running {
            self.marks.reach(Mark::RepairedFirst);
        }
        is_running
    }

    /// Servers to read from in their lives, the least busy first.
    pub(super) fn sources(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> Vec<(ServerId, BootId)> {
        let readable = self.servers.readable(chunk, version);
        if readable.iter().any(|copy| copy.suspect) {
            self.marks.reach(Mark::SuspectRead);
        }
        let alive = readable.into_iter();
        let alive = alive.filter_map(|copy| Some((copy.server, self.servers.get(copy.server)?)));
        let mut alive: Vec<_> = alive.collect();
        alive.sort_by_key(|(_, one)| one.repairs);
        let lives = alive.into_iter().map(|(server, one)| (server, one.boot));
        lives.collect()
    }

    /// Sources with the right to read them.
    pub(super) fn with_rights(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        sources: &[(ServerId, BootId)],
    ) -> Vec<LocatedCopy> {
        let grant = Grant {
            part: PartId::whole(chunk),
            version,
            epoch: Epoch(0),
            right: Right::Read,
        };
        let sources = sources.iter();
        sources
            .filter_map(|(server, boot)| self.located(*server, *boot, grant))
            .collect()
    }

    /// Where a new copy goes: by placement, among servers with room for repair.
    fn target(&mut self, chunk: ChunkId, version: ChunkVersion, bulk: bool) -> Target {
        let holders = self.servers.current(chunk, version);
        let holders: BTreeSet<ServerId> = holders.map(|copy| copy.server).collect();
        let state = self.member.state();
        let one = state.chunk(chunk);
        let policy = match one.filter(|one| one.class.built_in().is_none()) {
            None => Policy::copies(COPIES_MAX),
            Some(one) => state.class(one.class).copied(one.archived).clone(),
        };
        let most = self.config.repair_inflight_max;
        // Most servers have enough to do while much is repaired.
        let has_room = |one: &Server| one.repairs.has_room(bulk, most);
        let free = self.servers.candidates_with(&policy, &holders, has_room);
        let counting = holders
            .iter()
            .copied()
            .filter(|server| self.servers.counts(*server));
        let inside = self.servers.inside(&policy, chunk, counting);
        let gone = match policy.is_plain() {
            true => Vec::new(),
            false => placement::surplus(&policy, &inside),
        };
        let kept = inside.iter().filter(|one| !gone.contains(&one.server));
        let present: Vec<&Labels> = kept.map(|one| one.labels).collect();
        if let Some(server) = next_copy(&policy, &free, &present, &mut self.rng) {
            return Target::At(server);
        }
        let all = self.servers.candidates(&policy, &holders);
        if policy.is_plain() && !all.is_empty() {
            return Target::Busy;
        }
        if free.len() == all.len() {
            return Target::Nowhere;
        }
        // Among those that are busy there may be one, or the policy forbids them all.
        match next_copy(&policy, &all, &present, &mut self.rng) {
            Some(_) => Target::Busy,
            None => Target::Nowhere,
        }
    }

    pub(super) fn on_repaired(&mut self, server: ServerId, chunk: ChunkId, result: CommandResult) {
        let Some(running) = self.repair.running.remove(&chunk) else {
            return;
        };
        self.repair.rests = false;
        for one in [running.source, running.target] {
            if let Some(one) = self.servers.table.get_mut(&one) {
                one.repairs.remove(running.bulk);
            }
        }
        match result {
            CommandResult::Parts(states) => {
                let done = matches!(states[..], [Some(state)] if state.version == running.version);
                if done && running.part == 0 {
                    self.servers.raise_copy(server, chunk, running.version);
                    self.marks.reach(Mark::CopyRepaired);
                } else if done {
                    self.marks.reach(Mark::PartRepaired);
                }
            }
            CommandResult::Failed { reason, bad_source } => {
                self.on_repair_failed(server, chunk, &reason, bad_source)
            }
        }
        self.servers.touch(chunk);
        let due = self.repair.failed.get(&chunk).copied();
        self.repair
            .later
            .insert((due.unwrap_or(self.now.mono), chunk));
        self.recheck = true;
    }

    pub(super) fn on_repair_failed(
        &mut self,
        server: ServerId,
        chunk: ChunkId,
        reason: &str,
        bad_source: Option<ServerId>,
    ) {
        self.log(
            Level::Warn,
            format!("a copy of {chunk} could not be made on {server}: {reason}"),
        );
        let Some(bad) = bad_source else {
            // A full disk, say: another attempt would end as this one did.
            return self.repair.put_aside(chunk, self.now.mono);
        };
        if self.member.state().stripe(chunk).is_some() {
            return self.doubt_part(bad, chunk);
        }
        let version = self.member.state().chunk(chunk).map(|one| one.version);
        let others = self
            .servers
            .copies(chunk)
            .filter(|copy| copy.server != bad)
            .filter(|copy| version.is_some_and(|version| copy.is_current(version)))
            .filter(|copy| self.servers.is_alive(copy.server))
            .count();
        if others > 0 {
            self.servers.mark_bad(bad, PartId::whole(chunk));
        }
    }

    pub(super) fn watch_repairs(&mut self) {
        let now = self.now.mono;
        self.repair.rests = false;
        self.repair.failed.retain(|_, until| *until > now);
        while let Some((due, chunk)) = self.repair.later.first().copied() {
            if due > now {
                break;
            }
            self.repair.later.pop_first();
            if let Some((class, _)) = self.repair.classes.get(&chunk).copied() {
                self.repair.enqueue(class, chunk);
            }
        }
    }

    /// What `classes` tells is what a fresh look tells, but for what is to be looked at
    /// anyway.
    pub(super) fn check_health(&self) {
        if self.is_assessing() {
            return;
        }
        let mut from = ChunkId(0);
        loop {
            let some = self.member.state().chunks_from(from, REPORT_BATCH);
            let Some(last) = some.last() else { break };
            from = last.next();
            for chunk in some
                .into_iter()
                .filter(|one| !self.servers.is_touched(*one))
            {
                assert_eq!(
                    self.repair.classes.get(&chunk).copied(),
                    self.class(chunk),
                    "the health of {chunk}"
                );
            }
        }
        for (class, chunk) in &self.repair.queue {
            assert!(
                self.repair
                    .classes
                    .get(chunk)
                    .is_some_and(|(known, _)| known == class),
                "{chunk} in the queue"
            );
        }
    }
}

/// Where one more copy goes: into a slot that is empty, or nearer to where soft terms
/// want it.
pub(super) fn next_copy(
    policy: &Policy,
    candidates: &[Candidate<'_>],
    present: &[&Labels],
    rng: &mut Rng,
) -> Option<ServerId> {
    let next = placement::choose(policy, candidates, present, 1, rng).pop();
    next.or_else(|| placement::homecoming(policy, candidates, present, rng))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_without_a_place_are_looked_at_soon_and_many_one_after_the_other() {
        let mut repair = Repair::default();
        let soonest = Instant(0) + AGAIN;
        let due: Vec<Instant> = (0..10_000)
            .map(|_| repair.look_for_place(soonest))
            .collect();
        assert_eq!(due[0], soonest);
        assert!(
            due.windows(2)
                .all(|two| two[1].since(two[0]) == PLACELESS_APART)
        );
        let much_later = due[9_999] + AGAIN;
        assert_eq!(repair.look_for_place(much_later), much_later);
    }
}
