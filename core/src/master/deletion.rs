//! What goes: copies that are too many or stale, and those of chunks that nobody refers
//! to any more, or that nobody knows.
//!
//! Owns what is doomed and quarantined, in the soft state of a leader; `repair` says of
//! which chunk something is too much. Invariants: a chunk in use is never deleted, and a
//! copy of one only where enough others can be reached.

use super::Master;
use super::classes::labels_of;
use super::commands::Purpose;
use super::repair::{AGAIN, Class};
use super::servers::Copy;
use crate::ids::{ChunkId, ChunkVersion, PartId, ServerId};
use crate::limits::REPORT_BATCH;
use crate::marks::Mark;
use crate::namespace::{ChunkOrigin, LeaseState};
use crate::placement::{self, Candidate, Policy};
use crate::time::Instant;
use crate::wire::chunk_master::Command;
use std::collections::{BTreeMap, BTreeSet};

/// Chunks that are not in the table and have copies.
#[derive(Clone, Debug, Default)]
pub(super) struct Deletions {
    doomed: BTreeMap<ChunkId, Instant>,
    /// The doomed by when they are due.
    executions: BTreeSet<(Instant, ChunkId)>,
    quarantined: BTreeSet<ChunkId>,
}

impl Deletions {
    /// A reign ends.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// The copies of a chunk that is not in the table go at `due`.
    fn doom(&mut self, chunk: ChunkId, due: Instant) {
        self.spare(chunk);
        self.doomed.insert(chunk, due);
        self.executions.insert((due, chunk));
    }

    fn spare(&mut self, chunk: ChunkId) {
        if let Some(due) = self.doomed.remove(&chunk) {
            self.executions.remove(&(due, chunk));
        }
    }

    pub(super) fn quarantined(&self) -> u64 {
        self.quarantined.len() as u64
    }
}

/// Of a chunk in use.
impl Master {
    /// Removes copies that are too many, and stale ones of a chunk that is at goal.
    pub(super) fn trim(&mut self, class: Class, chunk: ChunkId) {
        let again = self.now.mono + AGAIN;
        let failed = self.repair.failed_until(chunk);
        self.repair.postpone(class, chunk, failed.unwrap_or(again));
        if failed.is_some() {
            return;
        }
        let Some(one) = self.member.state().chunk(chunk) else {
            return;
        };
        let busy = self.mutations.is_granting(one.inode, one.index)
            || self.repair.is_running(chunk)
            || self.conversions.is_running(chunk);
        if !matches!(one.lease, LeaseState::Settled) || busy {
            return;
        }
        if let Some(stripe) = one.stripe {
            return self.trim_parts(chunk, &one, stripe);
        }
        let (version, policy) = (
            one.version,
            self.member
                .state()
                .class(one.class)
                .copied(one.archived)
                .clone(),
        );
        let alive: Vec<Copy> = self
            .servers
            .held(chunk)
            .iter()
            .filter(|copy| self.servers.is_alive(copy.server) && !copy.suspect)
            .copied()
            .collect();
        let current: Vec<ServerId> = alive
            .iter()
            .filter(|copy| copy.part == 0 && copy.is_current(version))
            .map(|copy| copy.server)
            .collect();
        // A server that means to be back counts towards the goal, but not here: only
        // what can be reached now makes another copy superfluous.
        let inside = self.servers.inside(&policy, chunk, current.iter().copied());
        let filled = placement::fill(&policy, &labels_of(&inside)).filled;
        if filled < policy.copies {
            return;
        }
        let mut doomed: Vec<(ServerId, ChunkVersion)> = alive
            .iter()
            .filter(|copy| copy.part == 0)
            .filter(|copy| copy.version < version || copy.bad && copy.version == version)
            // Every version below the current one is stale: a writer may have raised the
            // copy since it was last reported.
            .map(|copy| (copy.server, copy.version.max(ChunkVersion(version.0 - 1))))
            .collect();
        let outside = current
            .iter()
            .filter(|server| !inside.iter().any(|one| one.server == **server));
        let mut surplus: Vec<ServerId> = outside.copied().collect();
        surplus.extend(self.too_many(chunk, &policy, inside));
        if !surplus.is_empty() {
            self.marks.reach(Mark::SurplusDeleted);
        }
        doomed.extend(surplus.into_iter().map(|server| (server, version)));
        for part in alive.iter().filter(|copy| copy.part > 0) {
            self.delete_copy(part.server, part.id(chunk), part.version);
        }
        for (server, version) in doomed {
            self.delete_copy(server, PartId::whole(chunk), version);
        }
    }

    /// Of servers that may all have a copy, those that are too many: first the one that it
    /// was to move away from, if the others are as good without it.
    fn too_many(
        &self,
        chunk: ChunkId,
        policy: &Policy,
        mut inside: Vec<Candidate<'_>>,
    ) -> Vec<ServerId> {
        let leaves = self.balance.leaves(chunk);
        let at = inside.iter().position(|one| Some(one.server) == leaves);
        let Some(at) = at else {
            return placement::surplus(policy, &inside);
        };
        let before = placement::fill(policy, &labels_of(&inside));
        let left = inside.remove(at);
        if placement::fill(policy, &labels_of(&inside)) < before {
            inside.push(left);
            return placement::surplus(policy, &inside);
        }
        let mut gone = vec![left.server];
        gone.extend(placement::surplus(policy, &inside));
        gone
    }

    pub(super) fn delete_copy(&mut self, server: ServerId, id: PartId, version: ChunkVersion) {
        let copy = self.servers.part(server, id).copied();
        self.servers.condemn_copy(server, id);
        let parts = vec![(id, version)];
        let purpose = Purpose::Delete(copy.map(|copy| (id.chunk, copy)).into_iter().collect());
        self.command(server, purpose, Command::Delete { parts });
    }

    pub(super) fn on_delete_ended(&mut self, copies: Vec<(ChunkId, Copy)>, failed: bool) {
        for (chunk, copy) in &copies {
            self.servers.end_going(copy.server, copy.id(*chunk));
        }
        if failed {
            self.on_delete_failed(copies);
        }
    }

    /// Copies were to be deleted, and nobody knows whether they were. Of a server that
    /// is there they count for nothing, as it may do it yet; one that comes back tells.
    fn on_delete_failed(&mut self, copies: Vec<(ChunkId, Copy)>) {
        for (chunk, copy) in copies {
            if self.servers.part(copy.server, copy.id(chunk)).is_none() {
                let bad = copy.bad || self.servers.is_alive(copy.server);
                self.servers.set_copy(chunk, Copy { bad, ..copy });
                self.judge_unknown(&[chunk]);
            }
        }
    }
}

/// Of chunks that are not.
impl Master {
    /// Nobody refers to the chunk any more: its copies go after the grace period.
    pub(super) fn on_chunk_gone(&mut self, chunk: ChunkId) {
        self.servers.touch(chunk);
        self.servers.forget_chunk(chunk);
        self.leases.forget(chunk);
        self.conversions.forget(chunk);
        // Who leads later judges by what was reported to it.
        if self.reign.is_some() {
            let due = self.now.mono + self.config.delete_grace;
            self.deletions.doom(chunk, due);
        }
    }

    /// Copies of chunks that the table does not know were deleted, or are quarantined.
    pub(super) fn judge_unknown(&mut self, chunks: &[ChunkId]) {
        if self.reign.is_none() {
            return;
        }
        let due = self.now.mono + self.config.delete_grace;
        for chunk in chunks {
            match self.member.state().chunk_is_lost_range(*chunk) {
                ChunkOrigin::Known => {}
                ChunkOrigin::Deleted => {
                    if !self.deletions.doomed.contains_key(chunk) {
                        self.deletions.doom(*chunk, due);
                    }
                }
                ChunkOrigin::Unknown => {
                    self.marks.reach(Mark::ChunkQuarantined);
                    self.deletions.quarantined.insert(*chunk);
                }
            }
        }
    }

    /// A new leader judges everything that was reported to it before.
    pub(super) fn judge_all(&mut self) {
        let known: Vec<ChunkId> = self.servers.known_chunks().collect();
        self.judge_unknown(&known);
    }

    pub(super) fn release_quarantine(&mut self) {
        let now = self.now.mono;
        for chunk in std::mem::take(&mut self.deletions.quarantined) {
            // A number beyond the allocation mark may have been given since.
            if self.member.state().chunk(chunk).is_none() {
                self.deletions.doom(chunk, now);
            }
        }
    }

    pub(super) fn delete_doomed(&mut self) {
        let now = self.now.mono;
        let due = self
            .deletions
            .executions
            .iter()
            .take_while(|(due, _)| *due <= now)
            .take(REPORT_BATCH);
        let due: Vec<ChunkId> = due.map(|(_, chunk)| *chunk).collect();
        let mut condemned: BTreeMap<ServerId, Vec<(ChunkId, Copy)>> = BTreeMap::new();
        for chunk in due {
            self.deletions.spare(chunk);
            assert!(
                self.member.state().chunk(chunk).is_none(),
                "a chunk in use is never deleted"
            );
            let holders = self.servers.held(chunk).iter().copied();
            let alive: Vec<Copy> = holders
                .filter(|copy| self.servers.is_alive(copy.server))
                .collect();
            for copy in alive {
                self.servers.drop_copy(copy.server, copy.id(chunk));
                let of_server = condemned.entry(copy.server).or_default();
                of_server.push((chunk, copy));
            }
        }
        for (server, copies) in condemned {
            self.marks.reach(Mark::ChunkDeleted);
            let parts = copies.iter();
            let parts = parts.map(|(chunk, copy)| (copy.id(*chunk), ChunkVersion(u64::MAX)));
            let parts = parts.collect();
            self.command(server, Purpose::Delete(copies), Command::Delete { parts });
        }
    }
}
