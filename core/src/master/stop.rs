//! Whether chunkservers may be stopped: what of the chunks on them is nowhere else.
//!
//! Owns the answer, of which nothing is kept; leaves asking on, chunk by chunk, to the
//! tool. Invariant: an answer looks at a bounded number of chunks, so that the leader is
//! back soon whatever the servers hold.

use super::Master;
use crate::ids::{ChunkId, InodeId, ServerId};
use crate::limits::STOP_LOOKS_MAX;
use crate::namespace::{Chunk, LeaseState};
use crate::wire::client_master::StopPlan;
use std::collections::BTreeSet;

/// Files that are named at most.
const EXAMPLES_MAX: usize = 8;

/// The first of many chunks, and the last of those if there are more.
fn some_of(mut all: impl Iterator<Item = ChunkId>) -> (BTreeSet<ChunkId>, Option<ChunkId>) {
    let some: BTreeSet<ChunkId> = all.by_ref().take(STOP_LOOKS_MAX).collect();
    let end = some.last().copied().filter(|_| all.next().is_some());
    (some, end)
}

/// What stopping does to one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// Nothing that matters: it stays at its goal, or there was nothing to lose.
    None,
    UnderGoal,
    Endangered,
    Unavailable,
}

impl Master {
    /// What would come of the chunks on some servers, from one chunk on.
    pub(super) fn stop_plan(&self, servers: &[ServerId], from: ChunkId) -> StopPlan {
        let servers: BTreeSet<ServerId> = servers.iter().copied().collect();
        let (chunks, next) = self.chunks_on(&servers, from);
        let mut plan = StopPlan {
            next,
            ..StopPlan::default()
        };
        for chunk in chunks {
            self.look_at_stop(&mut plan, &servers, chunk);
        }
        plan
    }

    /// The next chunks with copies on one of the servers, and where to go on.
    fn chunks_on(
        &self,
        servers: &BTreeSet<ServerId>,
        from: ChunkId,
    ) -> (BTreeSet<ChunkId>, Option<ChunkId>) {
        // A copy that is being written may not have been reported yet.
        let leased = self.member.state().leased().filter(|chunk| *chunk >= from);
        let (mut chunks, mut last) = some_of(leased);
        for server in servers.iter().filter_map(|id| self.servers.get(*id)) {
            let (some, end) = some_of(server.chunks.range(from..).copied());
            chunks.extend(some);
            last = last.into_iter().chain(end).min();
        }
        // Of what lies behind, another server's share was not looked at.
        if let Some(last) = last {
            chunks.split_off(&last.next());
        }
        (chunks, last.map(ChunkId::next))
    }

    /// What stopping the servers does to a chunk, and whose it is.
    fn stop_effect(&self, servers: &BTreeSet<ServerId>, id: ChunkId) -> Option<(Effect, InodeId)> {
        let chunk = self.member.state().chunk(id)?;
        let there = self.within_reach(id, &chunk);
        let left = there.iter().filter(|one| !servers.contains(one)).count();
        let held = self.servers.held(id);
        let has_copy = |server: &ServerId| held.iter().any(|copy| copy.server == *server);
        if left == there.len() && !servers.iter().any(has_copy) {
            return None;
        }
        let wanted = match chunk.stripe {
            Some(stripe) => stripe.shape.parts(),
            None => usize::from(
                self.member
                    .state()
                    .class(chunk.class)
                    .copied(chunk.archived)
                    .copies,
            ),
        };
        // So many are what the chunk can be read of.
        let least = chunk.stripe.map_or(1, |stripe| stripe.shape.data());
        let effect = match left {
            _ if left == there.len() => Effect::None,
            _ if left < least => Effect::Unavailable,
            _ if left == least && wanted > least && there.len() > least => Effect::Endangered,
            _ if left < wanted => Effect::UnderGoal,
            _ => Effect::None,
        };
        Some((effect, chunk.inode))
    }

    /// Servers from which a chunk can be read, or written, now.
    pub(super) fn within_reach(&self, id: ChunkId, chunk: &Chunk) -> Vec<ServerId> {
        if let Some(stripe) = chunk.stripe {
            let parts = self.servers.readable_parts(id, chunk.version, stripe);
            return parts.into_iter().map(|copy| copy.server).collect();
        }
        if matches!(chunk.lease, LeaseState::Settled) {
            let readable = self.servers.readable(id, chunk.version);
            return readable.into_iter().map(|copy| copy.server).collect();
        }
        let counting = self.counting(id, chunk).into_iter();
        counting.filter(|one| self.servers.is_alive(*one)).collect()
    }

    fn look_at_stop(&self, plan: &mut StopPlan, servers: &BTreeSet<ServerId>, id: ChunkId) {
        let Some((effect, inode)) = self.stop_effect(servers, id) else {
            return;
        };
        plan.chunks += 1;
        match effect {
            Effect::None => return,
            Effect::UnderGoal => return plan.under_goal += 1,
            Effect::Endangered => plan.endangered += 1,
            Effect::Unavailable => plan.unavailable += 1,
        }
        if plan.examples.len() < EXAMPLES_MAX && !plan.examples.contains(&inode) {
            plan.examples.push(inode);
        }
    }
}
