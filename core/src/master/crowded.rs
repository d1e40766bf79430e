//! Leases of which every copy failed its writer, as when their disks are full: where other
//! servers have room the chunk goes there, and where nobody has the writer is told.
//!
//! Leaves the end of such a lease to `lease`, new copies to `repair` and `balance`, and room
//! for chunks that are still to be made to `classes`.

use super::Master;
use super::mutate::{REPAIR_HOLD_MAX, Ready};
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, ServerId};
use crate::limits::CHUNK_IO_MAX;
use crate::marks::Mark;
use crate::namespace::{Chunk, LeaseState};
use crate::time::Instant;
use std::collections::BTreeSet;

/// Who has less free than a few writes may take is full: what he told is of a moment ago.
pub(super) const ROOM_LEAST: u64 = 4 * CHUNK_IO_MAX as u64;

impl Master {
    /// What comes of a lease that could only be granted on copies that all failed its
    /// writer; `None`: it is granted on them all the same, as when they are not full, and
    /// what failed is the way there.
    pub(super) fn look_failed(
        &mut self,
        id: ChunkId,
        copies: &[(ServerId, BootId)],
        since: Instant,
    ) -> Option<Ready> {
        let chunk = self.member.state().chunk(id)?;
        let free = |(server, _): &(ServerId, BootId)| {
            let known = self.servers.get(*server);
            known.map_or(0, super::servers::Server::free)
        };
        if copies.iter().any(|copy| free(copy) >= ROOM_LEAST) {
            return None;
        }
        let roomier = self.roomier(&chunk, copies);
        if roomier.is_empty() {
            return Some(self.look_full(since));
        }
        match chunk.lease {
            LeaseState::Open { .. } => {
                self.marks.reach(Mark::CrowdedFenced);
                self.fence(id, chunk.epoch);
                Some(Ready::Hold)
            }
            LeaseState::Settled => {
                let from = copies.first()?.0;
                self.try_to_move(id, from, &roomier).then_some(Ready::Hold)
            }
            _ => None,
        }
    }

    /// Nobody else has room.
    fn look_full(&self, since: Instant) -> Ready {
        let is_early = self.now.mono.since(since) < REPAIR_HOLD_MAX;
        match is_early || self.awaits_room(since) {
            true => Ready::Hold,
            false => Ready::Refuse(Errno::ENOSPC),
        }
    }

    /// Other servers that may have a copy and have room, the roomiest first.
    fn roomier(&self, chunk: &Chunk, copies: &[(ServerId, BootId)]) -> Vec<ServerId> {
        let state = self.member.state();
        let class = state.class(chunk.class);
        let policy = class.copied(chunk.archived);
        let holders: BTreeSet<ServerId> = copies.iter().map(|(server, _)| *server).collect();
        let all = self.servers.candidates(policy, &holders).into_iter();
        let apt = all.filter(|one| one.free >= ROOM_LEAST && policy.permits(one.labels));
        let mut apt: Vec<(u64, ServerId)> = apt.map(|one| (one.free, one.server)).collect();
        apt.sort_unstable();
        apt.into_iter().rev().map(|(_, server)| server).collect()
    }
}
