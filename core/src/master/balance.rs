//! Balance: copies and parts go from full servers to emptier ones, where the policies of
//! their classes may have them as well.
//!
//! Owns what is under way for that, in the soft state of a leader. What moves is first made
//! at the emptier server, by the command of a repair; then it is one too many, and
//! `deletion` asks here where it was to go from. Repair comes first: nothing begins while
//! something is repaired. Invariants: a policy stays filled as it was; a move goes to a
//! server that is emptier by more than the width, so moves come to an end.

use super::Master;
use super::coded::policy_of;
use super::repair::Class;
use super::servers::Server;
use crate::ids::{ChunkId, ServerId};
use crate::limits::BALANCE_INFLIGHT_MAX;
use crate::marks::Mark;
use crate::namespace::{Chunk, LeaseState};
use crate::placement::{self, Labels, Policy};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// How often something may begin.
const PACE: Duration = Duration::from_secs(1);
/// Chunks that are looked at then: of a law's there may be many that can't go.
const LOOKS_MAX: usize = 256;

/// What moves.
#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    due: Instant,
    /// Up to where a server's chunks were looked at.
    looked: BTreeMap<ServerId, ChunkId>,
    /// From where chunks go, until they went.
    leaving: BTreeMap<ChunkId, ServerId>,
}

impl Balance {
    /// A reign ends.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// From where a chunk goes.
    pub(super) fn leaves(&self, chunk: ChunkId) -> Option<ServerId> {
        self.leaving.get(&chunk).copied()
    }

    /// Chunks that are moving.
    pub(super) fn moving(&self) -> u64 {
        self.leaving.len() as u64
    }
}

/// How full a server is, in thousandths.
#[derive(Clone, Copy, Debug)]
struct Fullness {
    per_mille: u64,
    server: ServerId,
}

impl Master {
    /// Begins what there is to move, of the fullest servers first.
    pub(super) fn pump_balance(&mut self) {
        let now = self.now.mono;
        if self.config.balance == 0 || now < self.balance.due {
            return;
        }
        self.balance.due = now + PACE;
        self.forget_moved();
        if !self.is_repair_idle() {
            return;
        }
        let all = self.fullness();
        let mut looks = LOOKS_MAX;
        for full in &all {
            // Of many servers most have enough to do: they cost nothing more.
            if !self.has_balance_room(full.server) {
                continue;
            }
            let emptier = self.emptier(&all, *full);
            if emptier.is_empty() || looks == 0 {
                break;
            }
            self.move_from(full.server, &emptier, &mut looks);
        }
    }

    /// Chunks that went, or that something else is wrong with.
    fn forget_moved(&mut self) {
        let repair = &self.repair;
        self.balance
            .leaving
            .retain(|chunk, _| repair.is_running(*chunk) || repair.is_surplus(*chunk));
    }

    /// Nothing is repaired.
    fn is_repair_idle(&self) -> bool {
        let begin = self.repair.begin_at();
        begin.is_some_and(|begin| begin <= self.now.mono)
            && !self.is_assessing()
            && self.repair.is_idle_but_for(&self.balance.leaving)
    }

    /// The servers that take part, fullest first.
    fn fullness(&self) -> Vec<Fullness> {
        let servers = self.servers.table.iter();
        let apt = servers
            .filter(|(_, one)| one.is_alive() && !one.duty.draining && !one.duty.is_maintained());
        let all = apt.filter_map(|(server, one)| {
            let per_mille = one.used_per_mille()?;
            let server = *server;
            Some(Fullness { per_mille, server })
        });
        let mut all: Vec<Fullness> = all.collect();
        all.sort_by_key(|one| (std::cmp::Reverse(one.per_mille), one.server));
        all
    }

    /// Servers to which something of a full one may go, emptiest first.
    fn emptier(&self, all: &[Fullness], full: Fullness) -> Vec<ServerId> {
        let width = u64::from(self.config.balance) * 10;
        let apt = all
            .iter()
            .rev()
            .take_while(|one| one.per_mille + width < full.per_mille);
        apt.map(|one| one.server).collect()
    }

    /// Looks at some more of a server's chunks, and begins to move what it has room for.
    fn move_from(&mut self, from: ServerId, emptier: &[ServerId], looks: &mut usize) {
        let start = self
            .balance
            .looked
            .get(&from)
            .copied()
            .unwrap_or(ChunkId(0));
        let chunks = &self.servers.table[&from].chunks;
        let some: Vec<ChunkId> = chunks.range(start..).take(*looks).copied().collect();
        let mut next = match some.len() == *looks {
            true => some.last().map_or(ChunkId(0), |last| last.next()),
            false => ChunkId(0),
        };
        for chunk in some {
            if !self.has_balance_room(from) {
                next = chunk;
                break;
            }
            *looks -= 1;
            self.try_to_move(chunk, from, emptier);
        }
        self.balance.looked.insert(from, next);
    }

    fn has_balance_room(&self, server: ServerId) -> bool {
        let known = self.servers.get(server);
        known.is_some_and(|one| self.may_take_part(one))
    }

    fn may_take_part(&self, one: &Server) -> bool {
        let most = BALANCE_INFLIGHT_MAX.min(self.config.repair_inflight_max);
        one.repairs.has_room(true, most)
    }

    /// Begins to move what one server has of a chunk to the first of others that may have it.
    /// False when none may, or the chunk is not at rest.
    pub(super) fn try_to_move(
        &mut self,
        id: ChunkId,
        from: ServerId,
        emptier: &[ServerId],
    ) -> bool {
        let Some(chunk) = self.at_rest(id) else {
            return false;
        };
        let Some(to) = self.place_for(id, &chunk, from, emptier) else {
            return false;
        };
        let begun = match chunk.stripe {
            Some(stripe) => self.move_part(id, &chunk, stripe, (from, to)),
            None => self.move_copy(id, &chunk, to),
        };
        if begun {
            self.marks.reach(Mark::BalanceMoved);
            self.balance.leaving.insert(id, from);
        }
        begun
    }

    /// The chunk, if it is as its class wants it, and nobody is doing anything with it.
    fn at_rest(&self, id: ChunkId) -> Option<Chunk> {
        let chunk = self.member.state().chunk(id)?;
        let is_busy = self.repair.is_running(id)
            || self.conversions.is_running(id)
            || self.repair.failed_until(id).is_some()
            || self.mutations.is_granting(chunk.inode, chunk.index);
        let settled = matches!(chunk.lease, LeaseState::Settled);
        (settled && !is_busy && self.class(id).is_none()).then_some(chunk)
    }

    /// The emptiest server that may have what one server has of a chunk.
    fn place_for(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        from: ServerId,
        emptier: &[ServerId],
    ) -> Option<ServerId> {
        let state = self.member.state();
        let class = state.class(chunk.class);
        let policy = match chunk.stripe {
            Some(stripe) => policy_of(&class, chunk.archived, stripe),
            None => class.copied(chunk.archived).clone(),
        };
        let counting: BTreeSet<ServerId> = self.counting(id, chunk).into_iter().collect();
        let (mut there, old) = (Vec::new(), &self.servers.get(from)?.labels);
        for server in counting.iter().filter(|server| **server != from) {
            there.push(&self.servers.get(*server)?.labels);
        }
        if !counting.contains(&from) {
            return None;
        }
        let fits = |to: &&ServerId| self.may_go(id, chunk, (&policy, &there, old), **to);
        emptier.iter().find(fits).copied()
    }

    fn may_go(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        (policy, there, old): (&Policy, &[&Labels], &Labels),
        to: ServerId,
    ) -> bool {
        let Some(one) = self.servers.get(to) else {
            return false;
        };
        let holds = self.servers.held(id).iter().any(|copy| copy.server == to);
        let is_known = policy.is_plain() || one.logged;
        !holds
            && is_known
            && one.free() > 0
            && self.may_take_part(one)
            && self.is_permitted(chunk.class, to)
            && placement::replaces(policy, there, old, &one.labels)
    }
}

impl super::repair::Repair {
    /// It has more copies than it wants, or ones of no use.
    fn is_surplus(&self, chunk: ChunkId) -> bool {
        matches!(self.class_of(chunk), Some(Class::Surplus))
    }
}
