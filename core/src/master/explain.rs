//! Why a chunk is as it is: what each copy is there for, what the chunk survives, what is
//! under way or waited for.
//!
//! Owns the words. It decides nothing: the slots are those that `placement` finds, health
//! is that of `repair` and `coded`, and what can be read is what `stop` judges by. So what
//! is told here can't differ from what is done. Invariant: an answer tells of a bounded
//! number of chunks.

use super::Master;
use super::coded::policy_of;
use super::repair::Class;
use super::servers::Copy;
use crate::errno::Errno;
use crate::ids::{ChunkId, InodeId, ServerId};
use crate::limits::EXPLAIN_MAX;
use crate::namespace::{Chunk, LeaseState};
use crate::placement::class::{Domain, domain_of};
use crate::placement::label::label;
use crate::placement::reason::unmet;
use crate::placement::{self, Candidate, Labels, Policy, Slot};
use crate::time::Duration;
use crate::wire::client_master::{ChunkInfo, CopyInfo, Explanation, FileInfo, Survival};
use std::collections::{BTreeMap, BTreeSet};

/// Chunks ahead in the queue that are counted.
const AHEAD_MAX: usize = 10_000;

/// A chunk's health in one word.
pub(super) fn health_word(class: Option<(Class, bool)>) -> &'static str {
    match class {
        None | Some((Class::Surplus, false)) => "at goal",
        Some((Class::Missing, _)) => "missing",
        Some((Class::Endangered, _)) => "endangered",
        Some((Class::Outside, _)) => "outside",
        Some((Class::Under, _)) => "under goal",
        Some((Class::Surplus, true)) => "over goal",
        Some((Class::Unshaped, _)) => "to be converted",
        Some((Class::Misplaced, _)) => "misplaced",
        Some((Class::Draining, _)) => "draining",
        Some((Class::Awaited, _)) => "awaited",
    }
}

/// A duration for people, rounded up.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_millis().div_ceil(1000))
}

/// The answer.
impl Master {
    /// Some chunks of a file, explained.
    pub(super) fn explain(&self, inode: InodeId, from: u32) -> Result<FileInfo, Errno> {
        let state = self.member.state();
        let attributes = state.attributes(inode)?;
        let class = state.class_of(inode)?;
        let chunks = state.chunks_of(inode).unwrap_or_default();
        let mut left = chunks.into_iter().filter(|(index, ..)| *index >= from);
        let some: Vec<_> = left.by_ref().take(EXPLAIN_MAX).collect();
        let chunks = some.into_iter().filter_map(|(index, id, valid)| {
            let chunk = state.chunk(id)?;
            Some(self.explain_chunk(index, id, valid, &chunk))
        });
        Ok(FileInfo {
            attributes,
            chunks: chunks.collect(),
            class: state.class_name(class),
            policy: Some(state.class(class).to_string()),
            next: left.next().map(|(index, ..)| index),
            patterns: state.patterns_of(inode),
        })
    }

    fn explain_chunk(&self, index: u32, id: ChunkId, valid: u32, chunk: &Chunk) -> ChunkInfo {
        let mut info = self.chunk_info(index, id, valid, chunk);
        let fills = self.fills(id, chunk);
        for copy in &mut info.copies {
            let held = self.servers.held(id).iter();
            let mut held = held.filter(|held| (held.server, held.part) == (copy.server, copy.part));
            let held = held.next();
            copy.disk = held.and_then(|held| self.disk_path(held));
            // A server that has a stale copy beside a part fills with one of them.
            let counts = matches!(copy.state.as_str(), "current" | "away");
            copy.fills = fills.get(&copy.server).filter(|_| counts).cloned();
        }
        info.copies.extend(self.being_made(id, chunk));
        let class = self.class(id);
        info.explained = Some(Explanation {
            health: health_word(class).to_owned(),
            survives: self.survival(id, chunk),
            pending: self.pending(id, chunk, class.map(|(class, _)| class)),
        });
        info
    }

    fn disk_path(&self, copy: &Copy) -> Option<String> {
        let server = self.servers.get(copy.server)?;
        let disk = server.disks.iter().find(|disk| disk.disk == copy.disk)?;
        Some(disk.path.clone())
    }

    fn address(&self, server: ServerId) -> String {
        let known = self.servers.get(server);
        known.map_or_else(|| server.to_string(), |one| one.address.0.clone())
    }

    /// What is being made, as copies.
    fn being_made(&self, id: ChunkId, chunk: &Chunk) -> Vec<CopyInfo> {
        let repair = self.repair.making(id);
        let repair = repair.map(|running| vec![(running.part, running.target)]);
        let conversion = self.conversions.making(id).map(|making| making.pieces);
        let pieces = repair.or(conversion).unwrap_or_default().into_iter();
        let made = pieces.filter_map(|(part, server)| {
            let one = self.servers.get(server)?;
            Some(CopyInfo {
                server,
                address: one.address.clone(),
                version: chunk.version,
                state: "being made".to_owned(),
                labels: one.labels.clone(),
                part,
                fills: None,
                disk: None,
            })
        });
        made.collect()
    }
}

/// What copies are there for.
impl Master {
    /// For each server whose copy or part counts, what of the policy it fills.
    fn fills(&self, id: ChunkId, chunk: &Chunk) -> BTreeMap<ServerId, String> {
        let (policy, counting) = self.judged(id, chunk);
        let twice = self.parts_twice(id, chunk);
        let once = counting.iter().copied().filter(|one| !twice.contains(one));
        let inside = self.servers.inside(&policy, id, once);
        let gone = placement::surplus(&policy, &inside);
        let kept: Vec<&Candidate<'_>> = inside
            .iter()
            .filter(|one| !gone.contains(&one.server))
            .collect();
        let labels: Vec<&Labels> = kept.iter().map(|one| one.labels).collect();
        let slots = placement::assign(&policy, &labels);
        let slots = slots.expect("what is left of a surplus has slots");
        let mut fills: BTreeMap<ServerId, String> = counting
            .into_iter()
            .map(|server| (server, "outside".to_owned()))
            .collect();
        if chunk.stripe.is_none() && !matches!(chunk.lease, LeaseState::Settled) {
            // While it is written it may be where the other policy of its class wants it.
            fills.retain(|server, _| !self.is_permitted(chunk.class, *server));
        }
        let drained = fills.keys().copied();
        let drained: Vec<ServerId> = drained
            .filter(|server| self.servers.drains(*server, id))
            .collect();
        fills.extend(drained.into_iter().map(|one| (one, "drained".to_owned())));
        let many = gone.into_iter().chain(twice);
        fills.extend(many.map(|server| (server, "surplus".to_owned())));
        let slots = slots.into_iter().map(|slot| slot_text(&policy, slot));
        fills.extend(kept.iter().map(|one| one.server).zip(slots));
        fills
    }

    /// The policy that a chunk's copies are judged by, and the servers of those that count.
    fn judged(&self, id: ChunkId, chunk: &Chunk) -> (Policy, Vec<ServerId>) {
        let class = self.member.state().class(chunk.class);
        let counting: BTreeSet<ServerId> = self.counting(id, chunk).into_iter().collect();
        let counting = counting.into_iter().collect();
        let policy = match (chunk.stripe, &chunk.lease) {
            (Some(stripe), _) => policy_of(&class, chunk.archived, stripe),
            (None, LeaseState::Settled) => class.copied(chunk.archived).clone(),
            (None, _) => class.making().clone(),
        };
        (policy, counting)
    }

    /// Servers with a part that another one has too, and lies better.
    fn parts_twice(&self, id: ChunkId, chunk: &Chunk) -> BTreeSet<ServerId> {
        let Some(stripe) = chunk.stripe else {
            return BTreeSet::new();
        };
        let good = self.servers.parts(id, chunk.version, stripe).copied();
        let good: Vec<Copy> = good
            .filter(|copy| self.servers.counts(copy.server))
            .collect();
        let many = self.parts_too_many(id, chunk, stripe, &good);
        many.into_iter().map(|copy| copy.server).collect()
    }
}

fn slot_text(policy: &Policy, slot: Slot) -> String {
    match slot {
        Slot::Term(at) => policy.terms[at].to_string(),
        Slot::StandIn(at) => format!("in place of {}", policy.terms[at]),
        Slot::Anywhere => "spread".to_owned(),
    }
}

/// What it survives.
impl Master {
    fn survival(&self, id: ChunkId, chunk: &Chunk) -> Option<Survival> {
        let mut pieces: Vec<(u8, ServerId)> = Vec::new();
        let least = match chunk.stripe {
            Some(stripe) => {
                let parts = self.servers.readable_parts(id, chunk.version, stripe);
                pieces.extend(parts.iter().map(|copy| (copy.part, copy.server)));
                stripe.shape.data()
            }
            // Any one copy is all of it.
            None => {
                pieces.extend((0..).zip(self.within_reach(id, chunk)));
                1
            }
        };
        let domains = |domain| -> Option<u8> {
            let place = |(number, server): &(u8, ServerId)| {
                let labels = &self.servers.get(*server)?.labels;
                Some((*number, domain_of(labels, domain)))
            };
            let pieces: Vec<_> = pieces.iter().filter_map(place).collect();
            placement::survives(&pieces, least).map(small)
        };
        let labelled = |key| {
            let mut known = pieces.iter().filter_map(|(_, one)| self.servers.get(*one));
            known.any(|one| label(&one.labels, key).is_some())
        };
        Some(Survival {
            servers: small(placement::survives(&pieces, least)?),
            racks: labelled("rack").then(|| domains(Domain::Rack)).flatten(),
            datacentres: labelled("dc")
                .then(|| domains(Domain::Datacentre))
                .flatten(),
        })
    }
}

fn small(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

/// What is pending.
impl Master {
    fn pending(&self, id: ChunkId, chunk: &Chunk, class: Option<Class>) -> Vec<String> {
        let mut told: Vec<String> = self.lease_pending(chunk).into_iter().collect();
        let running = self.running_text(id);
        let is_running = running.is_some();
        told.extend(running);
        if is_running {
            return told;
        }
        told.extend(match class {
            None => None,
            Some(Class::Missing) => Some(self.missing_text(id, chunk)),
            Some(Class::Surplus) => {
                Some("what is too much, or stale, is about to be removed".to_owned())
            }
            Some(Class::Awaited) => Some(self.awaited_text(id)),
            Some(Class::Unshaped) => Some(self.unshaped_text(id, chunk)),
            Some(Class::Outside | Class::Draining) if self.has_come_in(id) => {
                Some("all copies lie where they are to: the others are about to go".to_owned())
            }
            Some(class) => Some(self.repair_text(id, chunk, class)),
        });
        told
    }

    fn lease_pending(&self, chunk: &Chunk) -> Option<String> {
        match &chunk.lease {
            LeaseState::Settled => None,
            LeaseState::Open { session, .. } => {
                let mut all = self.member.state().sessions();
                let name = all.find(|(known, _)| known == session);
                let name = name.map_or("a mount that is gone", |(_, name)| name);
                Some(format!("leased now, to be written, by {name} ({session})"))
            }
            LeaseState::Closing { .. } => {
                Some("given back by its writer: the copies are being synced".to_owned())
            }
            LeaseState::Broken { .. } | LeaseState::Reconciling { .. } => {
                Some("its writer's lease broke: the copies are being made equal".to_owned())
            }
        }
    }

    fn running_text(&self, id: ChunkId) -> Option<String> {
        if let Some(running) = self.repair.making(id) {
            let target = self.address(running.target);
            return Some(match running.part {
                0 => format!(
                    "a copy is being made on {target}, read from {}",
                    self.address(running.source)
                ),
                part => format!("part {part} is being made on {target}"),
            });
        }
        let making = self.conversions.making(id)?;
        let what = match making.into {
            Some(shape) => format!("is being converted into the parts of ec({shape})"),
            None => "is being brought back into whole copies".to_owned(),
        };
        Some(match making.retries {
            true => format!("{what}: an attempt failed, and it begins anew in a moment"),
            false => what,
        })
    }

    /// Who would have to come back.
    fn missing_text(&self, id: ChunkId, chunk: &Chunk) -> String {
        let holds = |copy: &&Copy| match chunk.stripe {
            Some(stripe) => copy.is_of(stripe, chunk.version),
            None => copy.part == 0 && copy.version == chunk.version,
        };
        let held = self.servers.held(id).iter().filter(holds);
        let away = held.filter(|copy| !self.servers.is_alive(copy.server) && !copy.bad);
        let reported: BTreeSet<ServerId> = away.map(|copy| copy.server).collect();
        let leased: BTreeSet<ServerId> = match &chunk.lease {
            LeaseState::Settled => BTreeSet::new(),
            _ => self.leased_to(chunk),
        };
        let away: Vec<String> = reported
            .union(&leased)
            .map(|server| self.address(*server))
            .collect();
        match away.is_empty() {
            true => "no server that the leader knows has it".to_owned(),
            false => format!("waits until these are back: {}", away.join(", ")),
        }
    }

    /// Which maintenance has to end.
    fn awaited_text(&self, id: ChunkId) -> String {
        let held = self.servers.held(id).iter().map(|copy| copy.server);
        let away: BTreeSet<ServerId> = held
            .filter(|server| self.servers.is_maintained_away(*server))
            .collect();
        let told = away.into_iter().map(|server| {
            let duty = self.servers.get(server).map(|one| one.duty);
            let left = duty.and_then(|duty| duty.seconds_left(self.now.wall));
            format!("{} for {} s", self.address(server), left.unwrap_or(0))
        });
        let told: Vec<String> = told.collect();
        format!("waits for what is in maintenance: {}", told.join(", "))
    }

    /// The servers of a write set that can't be asked now.
    fn leased_to(&self, chunk: &Chunk) -> BTreeSet<ServerId> {
        let servers = super::status::write_set(&chunk.lease).iter();
        let servers = servers.map(|(server, _)| *server);
        servers.filter(|one| !self.servers.is_alive(*one)).collect()
    }

    fn unshaped_text(&self, id: ChunkId, chunk: &Chunk) -> String {
        let class = self.member.state().class(chunk.class);
        let policy = class.resting(chunk.archived);
        let form = match policy.stripe {
            Some(shape) => format!("the parts of ec({shape})"),
            None => "whole copies".to_owned(),
        };
        let what = format!("to be converted into {form}");
        let wait = self.left_alone_in(chunk);
        if policy.stripe.is_some() && wait > Duration::ZERO {
            let wait = seconds(wait);
            return format!("{what} in {wait}, if its file is left alone until then");
        }
        if policy.stripe.is_some() && !self.partless.is_empty() {
            return format!("{what} once no mount of a version that can't read parts is there");
        }
        match self.lacking(id, policy, &[]) {
            why if why.is_empty() => format!("{what}: queued"),
            why => format!("{what}: waits for servers with room: {}", why.join("; ")),
        }
    }

    /// When a chunk is repaired, and what it waits for.
    fn repair_text(&self, id: ChunkId, chunk: &Chunk, class: Class) -> String {
        let now = self.now.mono;
        let Some(begin) = self.repair.begin_at() else {
            return "repair waits for a leader".to_owned();
        };
        if begin > now {
            let wait = seconds(begin.since(now));
            return format!("repair begins in {wait}: a new leader waits for servers to report");
        }
        if matches!(chunk.lease, LeaseState::Open { .. }) {
            return "to be repaired once the lease is given back, which is asked for".to_owned();
        }
        let (policy, counting) = self.judged(id, chunk);
        let why = self.lacking(id, &policy, &counting);
        if !why.is_empty() {
            return format!("waits for a server with room: {}", why.join("; "));
        }
        if let Some(until) = self.repair.failed_until(id).filter(|until| *until > now) {
            let wait = seconds(until.since(now));
            return format!("an attempt to repair it failed: tried again in {wait}");
        }
        match self.repair.before(class, id, AHEAD_MAX) {
            0 => "queued for repair, next".to_owned(),
            AHEAD_MAX => format!("queued for repair, behind more than {AHEAD_MAX} chunks"),
            ahead => format!("queued for repair, behind {ahead} chunks"),
        }
    }

    /// What of a policy those who have it, and those with room for it, can't meet.
    fn lacking(&self, id: ChunkId, policy: &Policy, holders: &[ServerId]) -> Vec<String> {
        let except: BTreeSet<ServerId> = holders.iter().copied().collect();
        let inside = self.servers.inside(policy, id, holders.iter().copied());
        let others = self.servers.candidates(policy, &except).into_iter();
        let others = others.filter(|one| one.free > 0);
        let labels: Vec<&Labels> = inside
            .into_iter()
            .chain(others)
            .map(|one| one.labels)
            .collect();
        unmet(policy, &labels)
    }
}
