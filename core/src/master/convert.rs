//! Conversions: a chunk at rest comes to lie in the parts of an erasure code, or in
//! whole copies again.
//!
//! Everything that is to be is made beside what is, each piece durable and read back by
//! its server; only then a record says where the chunk lies, judged when it is applied:
//! it means nothing if the chunk is another one by then. What it was made of counts on
//! until that record, and goes by `repair` behind it. So a crash at any instant leaves
//! the chunk in one form, whole, and maybe pieces of the other that nobody counts.
//!
//! Owns the conversions under way. Invariant: a conversion has a stamp of its own, that
//! no other of the chunk ever had, by which its parts are told from any others.

use super::commands::Purpose;
use super::mutate::{REPAIR_HOLD_MAX, Ready};
use super::repair::{AGAIN, Begun, Class};
use super::servers::Server;
use super::{Master, Proposal};
use crate::chunk::geometry::StripeShape;
use crate::chunk::stripe::Stripe;
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, ChunkVersion, Epoch, PartId, ServerId};
use crate::limits::CONVERSIONS_MAX;
use crate::machine::Level;
use crate::marks::Mark;
use crate::namespace::Chunk;
use crate::namespace::record::RecordBody;
use crate::placement::{self, Policy};
use crate::time::{Duration, Instant};
use crate::wire::chunk_master::{Command, CommandResult};
use crate::wire::client_master::{Answer, LocatedChunk, LocatedCopy};
use std::collections::{BTreeMap, BTreeSet};

/// The most that copies are kept behind a conversion. A learner may be behind the record
/// of it: a cluster that is recovered from that learner's log finds the copies.
const SPARE_MAX: Duration = Duration::from_secs(60);

/// A piece of a conversion that a server makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    chunk: ChunkId,
    /// Of which attempt.
    attempt: u64,
    /// Its place among the targets.
    at: usize,
    bulk: bool,
}

/// Where a conversion leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Goal {
    Parts,
    Copies,
}

#[derive(Clone, Debug)]
enum Step {
    /// Those at these places are not made yet.
    Making(BTreeSet<usize>),
    Logged,
    /// Nothing came of it; begun anew after a pause.
    Failed(Instant),
}

/// A conversion under way.
#[derive(Clone, Debug)]
struct Conversion {
    attempt: u64,
    goal: Goal,
    stripe: Stripe,
    /// The chunk as it was.
    epoch: Epoch,
    version: ChunkVersion,
    /// What the pieces have.
    made_as: (ChunkVersion, Epoch),
    targets: Vec<ServerId>,
    step: Step,
    failed: bool,
}

/// A conversion as operators see it.
pub(super) struct Making {
    /// Into parts of this shape; `None`: into copies.
    pub(super) into: Option<StripeShape>,
    pub(super) pieces: Vec<(u8, ServerId)>,
    /// It failed, and begins anew in a moment.
    pub(super) retries: bool,
}

/// What the leader does about forms.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversions {
    running: BTreeMap<ChunkId, Conversion>,
    attempts: u64,
    /// Until when the copies of chunks are kept that were just converted.
    spared: BTreeMap<ChunkId, Instant>,
}

impl Conversions {
    pub(super) fn is_running(&self, chunk: ChunkId) -> bool {
        self.running.contains_key(&chunk)
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.running.remove(&chunk);
        self.spared.remove(&chunk);
    }

    /// What is being made of a chunk: into which parts it is brought, if so, and each piece
    /// (0: a copy) with its server.
    pub(super) fn making(&self, chunk: ChunkId) -> Option<Making> {
        let one = self.running.get(&chunk)?;
        let shape = one.stripe.shape;
        let number = |at: usize| match one.goal {
            Goal::Parts => shape.part_id(chunk, at).part,
            Goal::Copies => 0,
        };
        let pieces = one.targets.iter().enumerate();
        Some(Making {
            into: (one.goal == Goal::Parts).then_some(shape),
            pieces: pieces.map(|(at, server)| (number(at), *server)).collect(),
            retries: matches!(one.step, Step::Failed(_)),
        })
    }

    /// Whether the copies of a chunk in parts are still kept.
    pub(super) fn spares(&self, chunk: ChunkId, now: Instant) -> bool {
        self.spared.get(&chunk).is_some_and(|until| now < *until)
    }

    /// How many chunks at rest are being converted.
    fn at_rest(&self) -> usize {
        let making = |one: &&Conversion| !matches!(one.step, Step::Failed(_));
        self.running.values().filter(making).count()
    }
}

/// Into parts.
impl Master {
    /// Begins to convert a chunk at rest that its class wants in parts, if it was left
    /// alone for long enough.
    pub(super) fn start_conversion(&mut self, id: ChunkId, chunk: &Chunk, bulk: bool) -> Begun {
        let again = self.now.mono + AGAIN;
        let class = Class::Unshaped;
        let state = self.member.state();
        let policy = state.class(chunk.class).resting(chunk.archived).clone();
        let valid = match state.chunk_at(chunk.inode, chunk.index) {
            Ok(Some((at, valid))) if at == id && valid > 0 => valid,
            _ => return self.repair.put_off(class, id, again),
        };
        let wait = self.left_alone_in(chunk);
        let leasing = self.mutations.is_granting(chunk.inode, chunk.index);
        let Some(shape) = policy.stripe.filter(|_| wait == Duration::ZERO && !leasing) else {
            return self
                .repair
                .put_off(class, id, self.now.mono + wait.max(AGAIN));
        };
        if !self.partless.is_empty() {
            // A client is there that could not read it.
            return self.repair.put_off(class, id, again);
        }
        if self.conversions.at_rest() >= CONVERSIONS_MAX {
            return Begun::NoRoom;
        }
        let sources = self.sources(id, chunk.version);
        let targets = self.choose_places(&policy, Some(bulk));
        if sources.is_empty() || !self.meets(&policy, &targets) {
            return self.repair.put_off(class, id, again);
        }
        let sources = self.with_rights(id, chunk.version, &sources);
        let stripe = Stripe::new(shape, valid, self.next_stamp());
        let made_as = (chunk.version, stripe.stamp);
        let numbers = (0..shape.parts()).map(|part| shape.part_id(id, part));
        let pieces = numbers.zip(targets).collect();
        self.repair.unqueue(class, id);
        self.begin_conversion(
            (id, chunk),
            (Goal::Parts, stripe, made_as),
            pieces,
            &sources,
        );
        Begun::Settled
    }

    /// How much longer the file of a chunk is left alone.
    pub(super) fn left_alone_in(&self, chunk: &Chunk) -> Duration {
        let changed = self.member.state().attributes(chunk.inode);
        let changed = changed.map_or(self.now.wall, |file| file.ctime);
        let idle = self.now.wall.since(changed);
        self.config.convert_after.saturating_sub(idle)
    }

    /// A number above that of every conversion before: a term has one leader.
    fn next_stamp(&mut self) -> Epoch {
        let term = self.member.term().0;
        self.conversions.attempts += 1;
        assert!(term < 1 << 32, "terms are few");
        Epoch(term << 32 | self.conversions.attempts & u64::from(u32::MAX))
    }

    /// Servers for the pieces of a policy, those with room for repair alone if `bulk`
    /// tells how much of it this is.
    fn choose_places(&mut self, policy: &Policy, bulk: Option<bool>) -> Vec<ServerId> {
        let most = self.config.repair_inflight_max;
        let has_room = |one: &Server| bulk.is_none_or(|bulk| one.repairs.has_room(bulk, most));
        let free = self
            .servers
            .candidates_with(policy, &BTreeSet::new(), has_room);
        let count = usize::from(policy.copies);
        placement::choose(policy, &free, &[], count, &mut self.rng)
    }

    fn begin_conversion(
        &mut self,
        (id, chunk): (ChunkId, &Chunk),
        (goal, stripe, made_as): (Goal, Stripe, (ChunkVersion, Epoch)),
        pieces: Vec<(PartId, ServerId)>,
        sources: &[LocatedCopy],
    ) {
        self.conversions.attempts += 1;
        let attempt = self.conversions.attempts;
        let conversion = Conversion {
            attempt,
            goal,
            stripe,
            epoch: chunk.epoch,
            version: chunk.version,
            made_as,
            targets: pieces.iter().map(|(_, server)| *server).collect(),
            step: Step::Making((0..pieces.len()).collect()),
            failed: false,
        };
        self.conversions.running.insert(id, conversion);
        self.servers.touch(id);
        let bulk = self.is_bulk(id, chunk);
        for (at, (part, server)) in pieces.into_iter().enumerate() {
            if let Some(one) = self.servers.table.get_mut(&server) {
                one.repairs.add(bulk);
            }
            let command = Command::Build {
                part,
                version: made_as.0,
                epoch: made_as.1,
                stripe,
                from: chunk.version,
                sources: sources.to_vec(),
            };
            let made = Made {
                chunk: id,
                attempt,
                at,
                bulk,
            };
            self.command(server, Purpose::Convert(made), command);
        }
    }
}

/// Back into copies.
impl Master {
    /// A lease of a chunk in parts is wanted: it waits until the chunk lies in copies.
    pub(super) fn restore_for_lease(
        &mut self,
        id: ChunkId,
        stripe: Stripe,
        since: Instant,
    ) -> Ready {
        if self.conversions.is_running(id) || self.repair.is_running(id) {
            return Ready::Hold;
        }
        let Some(chunk) = self.member.state().chunk(id) else {
            return Ready::Hold;
        };
        let class = chunk.class;
        let policy = self.member.state().class(class).making().clone();
        let targets = self.choose_places(&policy, None);
        let is_early = !self.knows_servers() || self.now.mono.since(since) < REPAIR_HOLD_MAX;
        if targets.len() < usize::from(policy.copies) && is_early {
            // Others may be about to come: what is in parts is not brought to fewer copies.
            return Ready::Hold;
        }
        let boot = |server: &ServerId| Some((*server, self.servers.get(*server)?.boot));
        let copies: Vec<(ServerId, BootId)> = targets.iter().filter_map(boot).collect();
        if !self.member.state().keeps_law(class, &copies) {
            return match self.awaits_servers(Some(chunk.class), &copies, since) {
                true => Ready::Hold,
                false => Ready::Refuse(Errno::ENOSPC),
            };
        }
        self.start_restore(id, &chunk, stripe, targets);
        Ready::Hold
    }

    /// Chunks in parts were asked for by a client that does not know of parts: it is told
    /// of none (`wire::version`) and asks again until they lie in copies.
    pub(super) fn restore_for_readers(&mut self, answer: &Answer) {
        let asked: Vec<&LocatedChunk> = match answer {
            Answer::Located(chunks) => chunks.iter().collect(),
            Answer::Opened {
                first: Some(first), ..
            } => vec![&**first],
            _ => Vec::new(),
        };
        for (chunk, stripe) in asked.iter().filter_map(|one| one.chunk.zip(one.stripe)) {
            self.marks.reach(Mark::PartlessServed);
            self.restore_for_lease(chunk, stripe, Instant::default());
        }
    }

    /// A chunk at rest lies in parts that its class does not want.
    pub(super) fn restore_at_rest(
        &mut self,
        class: Class,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
    ) -> Begun {
        if self.conversions.at_rest() >= CONVERSIONS_MAX {
            return Begun::NoRoom;
        }
        let bulk = self.is_bulk(id, chunk);
        let policy = self
            .member
            .state()
            .class(chunk.class)
            .copied(chunk.archived)
            .clone();
        let targets = self.choose_places(&policy, Some(bulk));
        let meets = self.meets(&policy, &targets);
        if !meets || !self.start_restore(id, chunk, stripe, targets) {
            return self.repair.put_off(class, id, self.now.mono + AGAIN);
        }
        self.repair.unqueue(class, id);
        Begun::Settled
    }

    /// Has servers make whole copies of the parts. False when that can't be now.
    fn start_restore(
        &mut self,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
        targets: Vec<ServerId>,
    ) -> bool {
        let sources = self.part_sources(id, chunk.version, stripe);
        let Some(made_as) = self.member.state().raised(id) else {
            return false;
        };
        if sources.len() < stripe.shape.data() || targets.is_empty() {
            return false;
        }
        let pieces = targets
            .into_iter()
            .map(|server| (PartId::whole(id), server))
            .collect();
        self.begin_conversion(
            (id, chunk),
            (Goal::Copies, stripe, made_as),
            pieces,
            &sources,
        );
        true
    }
}

/// What comes of them.
impl Master {
    /// A server made a piece, or did not.
    pub(super) fn on_made(&mut self, server: ServerId, made: Made, result: CommandResult) {
        if let Some(one) = self.servers.table.get_mut(&server) {
            one.repairs.remove(made.bulk);
        }
        self.repair.has_room_again();
        let one = self.conversions.running.get_mut(&made.chunk);
        let Some(one) = one.filter(|one| one.attempt == made.attempt) else {
            return;
        };
        let Step::Making(left) = &mut one.step else {
            return;
        };
        left.remove(&made.at);
        let all = left.is_empty();
        let done = matches!(&result, CommandResult::Parts(states)
            if matches!(states[..], [Some(state)] if (state.version, state.epoch) == one.made_as));
        one.failed |= !done;
        let failed = one.failed;
        if let CommandResult::Failed { reason, bad_source } = result {
            self.on_repair_failed(server, made.chunk, &reason, bad_source);
        }
        match (all, failed) {
            (true, true) => self.fail_conversion(made.chunk),
            (true, false) => self.log_conversion(made.chunk),
            (false, _) => {}
        }
    }

    fn log_conversion(&mut self, chunk: ChunkId) {
        let one = self.conversions.running.get_mut(&chunk);
        let one = one.expect("the caller looked");
        one.step = Step::Logged;
        let (epoch, version) = (one.epoch, one.version);
        let (stripe, servers) = (one.stripe, one.targets.clone());
        let body = match one.goal {
            Goal::Parts => RecordBody::Converted {
                chunk,
                epoch,
                version,
                stripe,
                servers,
            },
            Goal::Copies => RecordBody::Restored {
                chunk,
                epoch,
                version,
                stamp: stripe.stamp,
                servers,
            },
        };
        self.propose(Proposal::Converted(chunk), body);
    }

    /// The record was applied, whatever it meant.
    pub(super) fn on_conversion_logged(&mut self, chunk: ChunkId) {
        let Some(one) = self.conversions.running.remove(&chunk) else {
            return;
        };
        let now = self.member.state().stripe(chunk);
        let lies_in_it = now == Some(one.stripe);
        match (one.goal, lies_in_it) {
            (Goal::Parts, true) => {
                self.marks.reach(Mark::ChunkConverted);
                let until = self.now.mono + self.config.delete_grace.min(SPARE_MAX);
                self.conversions.spared.insert(chunk, until);
            }
            (Goal::Copies, false) => self.marks.reach(Mark::ChunkRestored),
            _ => self.marks.reach(Mark::ConversionFailed),
        }
        self.servers.touch(chunk);
        self.repair.look_later(chunk, self.now.mono);
        self.recheck = true;
    }

    /// Nothing comes of a conversion: it may begin anew after a pause.
    pub(super) fn fail_conversion(&mut self, chunk: ChunkId) {
        if let Some(one) = self.conversions.running.get_mut(&chunk) {
            one.step = Step::Failed(self.now.mono + AGAIN);
            self.marks.reach(Mark::ConversionFailed);
            let text = format!("{chunk} could not be converted; trying again");
            self.log(Level::Warn, text);
        }
    }

    /// A chunk changed: a conversion of what it was is of no use.
    pub(super) fn check_conversion(&mut self, chunk: ChunkId) {
        let Some(one) = self.conversions.running.get(&chunk) else {
            return;
        };
        let now = self.member.state().chunk(chunk);
        let same = now.is_some_and(|now| (now.epoch, now.version) == (one.epoch, one.version));
        if !same && !matches!(one.step, Step::Logged) {
            self.marks.reach(Mark::ConversionFailed);
            self.end_conversion(chunk);
        }
    }

    fn end_conversion(&mut self, chunk: ChunkId) {
        self.conversions.running.remove(&chunk);
        self.servers.touch(chunk);
        self.repair.look_later(chunk, self.now.mono);
        self.recheck = true;
    }

    pub(super) fn watch_conversions(&mut self) {
        let now = self.now.mono;
        let over = |(_, one): &(&ChunkId, &Conversion)| matches!(one.step, Step::Failed(until) if until <= now);
        let over = self.conversions.running.iter().filter(over);
        let over: Vec<ChunkId> = over.map(|(chunk, _)| *chunk).collect();
        for chunk in over {
            self.end_conversion(chunk);
        }
        self.conversions.spared.retain(|_, until| now < *until);
    }

    /// The reign is over.
    pub(super) fn end_conversions(&mut self) {
        let running = std::mem::take(&mut self.conversions).running;
        for chunk in running.into_keys() {
            self.servers.touch(chunk);
        }
    }
}
