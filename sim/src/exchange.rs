//! Disks that are swapped: two nodes of a kind are stopped, each gets a disk of the
//! other's, and later its own again. Owns what must come of it: a node refuses to
//! start on a disk that is another's, and leaves it as it is.

use crate::faults::LASTS;
use crate::network::Nanos;
use crate::node::{self, Node, Power};
use crate::plan::FaultPlan;
use crate::world::{Event, World};
use antler_core::machine::Role;

/// How soon after the swap the nodes are started again.
const PAUSE: Nanos = 50_000_000;

/// Two disks that changed places: of which node, and which of its disks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swap {
    ends: [(usize, usize); 2],
}

impl World {
    /// Stops a node and another of its kind, and swaps a disk of each until the fault
    /// ends. It waits until both run.
    pub(crate) fn swap_disks(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        let first = targets.first().copied().filter(|&one| self.may_swap(one));
        let partners = first.map_or_else(Vec::new, |one| self.partners(one));
        let second = partners.get((fault.pick >> 16) as usize % partners.len().max(1));
        let (Some(one), Some(&other)) = (first, second) else {
            return self.retry(number);
        };
        let end = |index: usize| {
            let count = self.nodes[index].disks.len();
            (index, (fault.pick >> 32) as usize % count)
        };
        let swap = Swap {
            ends: [end(one), end(other)],
        };
        let power_lost = fault.pick >> 48 & 1 == 0;
        self.change_places(swap, power_lost);
        for (index, at) in swap.ends {
            self.nodes[index].strange = Some(at);
            self.schedule(self.now + PAUSE, Event::Restart(index));
        }
        self.script.keep_swap(number, swap);
        let lasts = fault.lasts.unwrap_or(LASTS);
        self.schedule(self.now + lasts, Event::FaultEnd(number));
    }

    /// Each node gets its own disk again, and starts.
    pub(crate) fn swap_back(&mut self, swap: Swap) {
        self.change_places(swap, false);
        for (index, _) in swap.ends {
            self.nodes[index].strange = None;
            self.schedule(self.now + PAUSE, Event::Restart(index));
        }
    }

    fn change_places(&mut self, swap: Swap, power_lost: bool) {
        let [(one, at), (other, there)] = swap.ends;
        for index in [one, other] {
            let power = match self.nodes[index].power {
                Power::Lost => Power::Lost,
                _ if power_lost => Power::Off,
                _ => Power::Idle,
            };
            self.end_process(index, power_lost, power);
        }
        let disk = self.nodes[other].disks[there].clone();
        let disk = std::mem::replace(&mut self.nodes[one].disks[at], disk);
        self.nodes[other].disks[there] = disk;
    }

    fn may_swap(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let are_sound = !node.disks.iter().any(node::is_faulty);
        node.power == Power::Up && node.strange.is_none() && !node.disks.is_empty() && are_sound
    }

    /// Who has disks like a node's.
    fn partners(&self, index: usize) -> Vec<usize> {
        let stores = |node: &Node| node.role == Role::ChunkServer;
        let kind = stores(&self.nodes[index]);
        let all = self.nodes.iter();
        let found = all.filter(|node| node.index.0 != index && stores(node) == kind);
        let found = found.map(|node| node.index.0);
        found.filter(|&other| self.may_swap(other)).collect()
    }

    /// A node was to start with another's disk: it must have refused to, unless it can't
    /// even be read, and touched nothing of it.
    pub(crate) fn judge_strange_start(&mut self, index: usize, at: usize, changes: u64) {
        let node = &mut self.nodes[index];
        let disk = node.disks[at].clone();
        let refused = node.process.is_none() || node::is_faulty(&disk);
        let untouched = disk.durable_changes(disk.cursor().max(self.now)) == changes;
        node.end_process(self.now, false);
        node.power = Power::Idle;
        if !refused || !untouched {
            let what = if refused {
                "touched"
            } else {
                "took for its own"
            };
            let how = format!("{} {what} the disk of another", node.name);
            self.judges
                .judge::<()>("P6: a strange disk is refused", Err(how));
        }
    }
}
