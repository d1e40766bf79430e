//! Chunks that lie in the parts of an erasure code: how healthy they are, which part is
//! made next and where, which are too many, and where readers find them.
//!
//! Owns what is decided; `repair` has the queue, `convert` the way into parts and back.
//! Invariants: a part counts only if it is of the conversion that the log knows; two
//! parts of a chunk are never put on one server; a part is deleted only where another of
//! the same number can be reached, and whole copies only where every part can be.

use super::Master;
use super::classes::labels_of;
use super::repair::{Begun, Class, Running, next_copy};
use super::servers::{Copy, Server};
use crate::chunk::stripe::Stripe;
use crate::ids::{ChunkId, ChunkVersion, Epoch, PartId, ServerId};
use crate::machine::Level;
use crate::namespace::Chunk;
use crate::placement::{self, Candidate, Policy, StorageClass};
use crate::time::Duration;
use crate::wire::capability::{Grant, Right};
use crate::wire::chunk_master::Command;
use crate::wire::client_master::LocatedCopy;
use std::collections::{BTreeMap, BTreeSet};

/// After this long a chunk of which a part could not be made is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same for one whose parts are all there, and may come home.
const HOME_AGAIN: Duration = Duration::from_secs(10);

/// A part by its number, and who has it.
type Held = (u8, ServerId);

/// What is to be made: a part, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Part { number: u8, target: ServerId },
    Busy,
    Nothing,
}

fn numbers(parts: &[Held]) -> BTreeSet<u8> {
    parts.iter().map(|(number, _)| *number).collect()
}

fn servers(parts: &[Held]) -> Vec<ServerId> {
    let all: BTreeSet<ServerId> = parts.iter().map(|(_, server)| *server).collect();
    all.into_iter().collect()
}

/// Health.
impl Master {
    /// The good parts on servers that count towards the goal.
    pub(super) fn counting_parts(
        &self,
        id: ChunkId,
        version: ChunkVersion,
        stripe: Stripe,
    ) -> Vec<Held> {
        self.counting_parts_of(id, (version, stripe), |server| self.servers.counts(server))
    }

    /// The good parts on servers that are taken to count.
    fn counting_parts_of(
        &self,
        id: ChunkId,
        (version, stripe): (ChunkVersion, Stripe),
        counts: impl Fn(ServerId) -> bool,
    ) -> Vec<Held> {
        let good = self.servers.parts(id, version, stripe);
        let counting = good.filter(|copy| counts(copy.server));
        counting.map(|copy| (copy.part, copy.server)).collect()
    }

    /// How far a chunk in parts is from its goal, if the parts on some servers count.
    pub(super) fn coded_class(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
        counts: impl Fn(ServerId) -> bool,
    ) -> Option<(Class, bool)> {
        let parts = self.counting_parts_of(id, (chunk.version, stripe), counts);
        let (there, data) = (numbers(&parts).len(), stripe.shape.data());
        if there < data {
            let readable = self.servers.readable_parts(id, chunk.version, stripe);
            let class = match readable.len() < data {
                true => Class::Missing,
                false => Class::Endangered,
            };
            return Some((class, false));
        }
        let class = self.member.state().class(chunk.class);
        let policy = policy_of(&class, chunk.archived, stripe);
        let standing = self.standing(&class, &policy, id, &servers(&parts));
        let stale = |copy: &&Copy| {
            let good = copy.is_of(stripe, chunk.version) && !copy.bad;
            !good && !copy.suspect && self.servers.is_alive(copy.server)
        };
        let restoring = self.conversions.is_running(id);
        let stale = |copy: &Copy| stale(&copy) && !(restoring && copy.part == 0);
        let held = self.servers.held(id);
        let over = parts.len() > there || held.iter().any(|copy| copy.part == 0 && stale(copy));
        let clean = !held.iter().any(stale);
        match there {
            _ if there == data => Some((Class::Endangered, false)),
            _ if standing.outside > 0 => Some((Class::Outside, false)),
            _ if there < stripe.shape.parts() => Some((Class::Under, false)),
            _ if class.coded(chunk.archived, stripe.shape).is_none() => {
                Some((Class::Unshaped, false))
            }
            _ if standing.filled < stripe.shape.parts() => Some((Class::Under, false)),
            _ if standing.draining > 0 => Some((Class::Draining, false)),
            _ if over => Some((Class::Surplus, true)),
            _ if !clean => Some((Class::Surplus, false)),
            _ => standing.misplaced.then_some((Class::Misplaced, false)),
        }
    }

    /// Whether every part lies inside somewhere.
    pub(super) fn have_parts_come_in(&self, id: ChunkId, chunk: &Chunk, stripe: Stripe) -> bool {
        let class = self.member.state().class(chunk.class);
        let policy = policy_of(&class, chunk.archived, stripe);
        let parts = self.counting_parts(id, chunk.version, stripe);
        let inside = |(_, server): &Held| {
            let known = self.servers.get(*server);
            known.is_some_and(|one| policy.permits(&one.labels))
                && !self.servers.drains(*server, id)
        };
        let inside: Vec<Held> = parts.into_iter().filter(inside).collect();
        let is_wanted = class.coded(chunk.archived, stripe.shape).is_some();
        is_wanted && numbers(&inside).len() == stripe.shape.parts()
    }
}

/// Repair.
impl Master {
    /// Makes the next part that is missing, or lies where it should not.
    pub(super) fn repair_parts(
        &mut self,
        class: Class,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
    ) -> Begun {
        let later = self.now.mono
            + match class {
                Class::Misplaced | Class::Draining => HOME_AGAIN,
                _ => AGAIN,
            };
        let wanted = self.member.state().class(chunk.class);
        if wanted.coded(chunk.archived, stripe.shape).is_none() {
            // Another form is wanted: it is not mended in this one.
            drop(wanted);
            return self.restore_at_rest(class, id, chunk, stripe);
        }
        let policy = policy_of(&wanted, chunk.archived, stripe);
        drop(wanted);
        let readable = self.servers.readable_parts(id, chunk.version, stripe);
        if readable.len() < stripe.shape.data() {
            return self.repair.put_off(class, id, later);
        }
        let bulk = self.is_bulk(id, chunk);
        match self.next_part((id, chunk.version, stripe), &policy, bulk) {
            Next::Busy => Begun::NoRoom,
            Next::Nothing => {
                self.make_room(id, chunk, stripe);
                self.repair.put_off(class, id, later)
            }
            Next::Part { number, target } => {
                let source = readable[0].server;
                self.build_part(class, (id, chunk, stripe), number, (source, target));
                Begun::Settled
            }
        }
    }

    fn build_part(
        &mut self,
        class: Class,
        (id, chunk, stripe): (ChunkId, &Chunk, Stripe),
        number: u8,
        (source, target): (ServerId, ServerId),
    ) {
        let version = chunk.version;
        let running = Running {
            source,
            target,
            part: number,
            version,
            bulk: self.is_bulk(id, chunk),
        };
        let command = Command::Build {
            part: PartId {
                chunk: id,
                part: number,
            },
            version,
            epoch: stripe.stamp,
            stripe,
            from: version,
            sources: self.part_sources(id, version, stripe),
        };
        self.begin_repair(class, id, running, command);
    }

    /// Makes the part that one server has at another one. False when it has none.
    pub(super) fn move_part(
        &mut self,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
        (from, to): (ServerId, ServerId),
    ) -> bool {
        let parts = self.counting_parts(id, chunk.version, stripe);
        let own = parts.iter().find(|(_, server)| *server == from);
        let Some((number, _)) = own.copied() else {
            return false;
        };
        self.build_part(Class::Surplus, (id, chunk, stripe), number, (from, to));
        true
    }

    /// Which part is made next, and where: one that nobody has, or one whose place is
    /// not as the policy wants it.
    fn next_part(
        &mut self,
        (id, version, stripe): (ChunkId, ChunkVersion, Stripe),
        policy: &Policy,
        bulk: bool,
    ) -> Next {
        let parts = self.counting_parts(id, version, stripe);
        let there = numbers(&parts);
        let all = 1..=u8::try_from(stripe.shape.parts()).expect("parts are few");
        let missing = all.into_iter().find(|number| !there.contains(number));
        let holders: BTreeSet<ServerId> = self
            .servers
            .held(id)
            .iter()
            // A new part is put in place of a bad one.
            .filter(|copy| copy.part > 0 && copy.is_of(stripe, version) && !copy.bad)
            .map(|copy| copy.server)
            .collect();
        let most = self.config.repair_inflight_max;
        let has_room = |one: &Server| one.repairs.has_room(bulk, most);
        let free = self.servers.candidates_with(policy, &holders, has_room);
        let inside = self.servers.inside(policy, id, servers(&parts).into_iter());
        let gone = placement::surplus(policy, &inside);
        let kept = inside.iter().filter(|one| !gone.contains(&one.server));
        let present: Vec<_> = kept.map(|one| one.labels).collect();
        let Some(target) = next_copy(policy, &free, &present, &mut self.rng) else {
            let all = self.servers.candidates(policy, &holders);
            let more = all.len() > free.len();
            return match more && next_copy(policy, &all, &present, &mut self.rng).is_some() {
                true => Next::Busy,
                false => Next::Nothing,
            };
        };
        let number = missing.or_else(|| self.part_to_move(id, policy, &parts, target));
        match number {
            Some(number) => Next::Part { number, target },
            None => Next::Nothing,
        }
    }

    /// The part that goes to a new place: of a server where it may not stay, or that is
    /// too many once the place is taken.
    fn part_to_move(
        &self,
        id: ChunkId,
        policy: &Policy,
        parts: &[Held],
        target: ServerId,
    ) -> Option<u8> {
        let holders = servers(parts).into_iter().chain([target]);
        let inside = self.servers.inside(policy, id, holders);
        let gone = placement::surplus(policy, &inside);
        let is_inside = |server| inside.iter().any(|one| one.server == server);
        let leaves = |(_, server): &&Held| !is_inside(*server) || gone.contains(server);
        parts.iter().find(leaves).map(|(number, _)| *number)
    }

    /// Parts to read from with the right to do it, the least busy first.
    pub(super) fn part_sources(
        &self,
        id: ChunkId,
        version: ChunkVersion,
        stripe: Stripe,
    ) -> Vec<LocatedCopy> {
        let mut readable = self.servers.readable_parts(id, version, stripe);
        readable.sort_by_key(|copy| self.servers.get(copy.server).map(|one| one.repairs));
        readable
            .iter()
            .filter_map(|copy| self.located_part(id, copy))
            .collect()
    }

    fn located_part(&self, id: ChunkId, copy: &Copy) -> Option<LocatedCopy> {
        let grant = Grant {
            part: copy.id(id),
            version: copy.version,
            epoch: Epoch(0),
            right: Right::Read,
        };
        let boot = self.servers.get(copy.server)?.boot;
        self.located(copy.server, boot, grant)
    }

    /// The parts of a chunk for a reader, by number.
    pub(super) fn located_parts(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
    ) -> Vec<LocatedCopy> {
        let readable = self.servers.readable_parts(id, chunk.version, stripe);
        readable
            .iter()
            .filter_map(|copy| self.located_part(id, copy))
            .collect()
    }

    /// A server's part was found damaged: it does not count any more, unless it is one of
    /// the last that the chunk can be made of.
    pub(super) fn doubt_part(&mut self, server: ServerId, chunk: ChunkId) {
        let state = self.member.state();
        let Some((version, stripe)) = state
            .chunk(chunk)
            .and_then(|one| Some((one.version, one.stripe?)))
        else {
            return;
        };
        let parts = self.servers.readable_parts(chunk, version, stripe);
        let own = parts.iter().find(|copy| copy.server == server).copied();
        let others = parts.iter().filter(|copy| copy.server != server);
        let others: BTreeSet<u8> = others.map(|copy| copy.part).collect();
        if let Some(own) = own.filter(|_| others.len() >= stripe.shape.data()) {
            let id = own.id(chunk);
            let text = format!("{server} holds a bad part {id}: replacing it");
            self.log(Level::Warn, text);
            self.servers.mark_bad(server, id);
        }
    }
}

/// What is too much.
impl Master {
    /// Removes what is beside the parts of a chunk, once each of them can be reached: the
    /// copies that it was made of, parts of other conversions, and parts that are there
    /// twice.
    pub(super) fn trim_parts(&mut self, id: ChunkId, chunk: &Chunk, stripe: Stripe) {
        let version = chunk.version;
        let held = self.servers.held(id).iter().copied();
        let alive: Vec<Copy> = held
            .filter(|copy| self.servers.is_alive(copy.server) && !copy.suspect)
            .collect();
        let is_good = |copy: &Copy| copy.is_of(stripe, version) && !copy.bad;
        let good: Vec<Copy> = alive.iter().copied().filter(is_good).collect();
        let parts: Vec<Held> = good.iter().map(|copy| (copy.part, copy.server)).collect();
        if numbers(&parts).len() < stripe.shape.parts() {
            return;
        }
        let spared = self.conversions.spares(id, self.now.mono);
        let mut doomed: Vec<Copy> = alive.into_iter().filter(|copy| !is_good(copy)).collect();
        doomed.retain(|copy| copy.part > 0 || !spared);
        doomed.extend(self.parts_too_many(id, chunk, stripe, &good));
        for copy in doomed {
            let most = match copy.part {
                // A copy below may have been raised since it was last reported.
                0 => copy.version.max(version),
                _ => copy.version,
            };
            self.delete_copy(copy.server, copy.id(id), most);
        }
    }

    /// Of parts that are there twice, those that lie worse.
    pub(super) fn parts_too_many(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        stripe: Stripe,
        good: &[Copy],
    ) -> Vec<Copy> {
        let class = self.member.state().class(chunk.class);
        let policy = policy_of(&class, chunk.archived, stripe);
        let holders: BTreeSet<ServerId> = good.iter().map(|copy| copy.server).collect();
        let inside = self.servers.inside(&policy, id, holders.into_iter());
        let gone = placement::surplus(&policy, &inside);
        let is_inside = |server| {
            inside
                .iter()
                .any(|one: &Candidate<'_>| one.server == server)
        };
        let leaves = self.balance.leaves(id);
        let rank = |copy: &Copy| {
            let stays = leaves != Some(copy.server);
            let server = copy.server;
            (is_inside(server), stays, !gone.contains(&server))
        };
        let mut by_number: BTreeMap<PartId, Vec<Copy>> = BTreeMap::new();
        for copy in good {
            by_number.entry(copy.id(id)).or_default().push(*copy);
        }
        let mut many = Vec::new();
        for mut same in by_number.into_values() {
            same.sort_by_key(|copy| (rank(copy), copy.server));
            same.pop();
            many.extend(same);
        }
        many
    }

    /// A part that nobody has found no server: those go that are there twice, and keep the
    /// servers that have them from taking it.
    fn make_room(&mut self, id: ChunkId, chunk: &Chunk, stripe: Stripe) {
        let good = self.servers.parts(id, chunk.version, stripe).copied();
        let good: Vec<Copy> = good
            .filter(|copy| self.servers.is_alive(copy.server))
            .collect();
        for copy in self.parts_too_many(id, chunk, stripe, &good) {
            self.delete_copy(copy.server, copy.id(id), copy.version);
        }
    }

    /// Whether the parts on these servers would be as a policy wants them.
    pub(super) fn meets(&self, policy: &Policy, chosen: &[ServerId]) -> bool {
        let stays = |server: &ServerId| !self.servers.is_draining(*server);
        let staying = chosen.iter().copied().filter(stays);
        let inside = self.servers.permitted(policy, staying);
        let fill = placement::fill(policy, &labels_of(&inside));
        let hard = policy.terms.iter().filter(|term| term.is_hard());
        let hard: u8 = hard.map(|term| term.count).sum();
        fill.filled == policy.copies && fill.hard == hard
    }
}

/// The policy by which the parts of a chunk are judged: the class's own of that code, or
/// for a code that it does not want that of its chunks at rest, of which only the places
/// count.
pub(super) fn policy_of(class: &StorageClass, archived: bool, stripe: Stripe) -> Policy {
    match class.coded(archived, stripe.shape) {
        Some(policy) => policy.clone(),
        None => class.resting(archived).clone(),
    }
}
