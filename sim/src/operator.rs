//! What an operator does once everything has healed: he starts servers again that gave up
//! a disk. Leaves what he orders meanwhile (classes, labels) to the plan's programs.
//!
//! He waits until redundancy is back without those disks, so that none is needed for it;
//! only where they alone may hold what was written he does not wait for ever.

use crate::network::Nanos;
use crate::node::{Node, Power};
use crate::process::Process;
use crate::world::{Event, Phase, World, leading_state};
use antler_core::ids::ChunkId;
use antler_core::namespace::State;

/// For how long after the healing, and then after each look, nobody looks.
pub(crate) const LOOKS_EVERY: Nanos = 60_000_000_000;

impl World {
    /// Restarts the servers that gave up a disk, once redundancy is back without it: what it
    /// brings with it must be dealt with too. Whether there were any.
    pub(crate) fn return_failed_disks(&mut self) -> bool {
        let failed = self.nodes.iter_mut().filter_map(|node| {
            let may = node.may_take_back();
            may.then_some(node.index.0)
        });
        let failed: Vec<usize> = failed.collect();
        self.start_again(&failed);
        !failed.is_empty()
    }

    /// Looks after chunks that nobody can tell of but servers that gave up a disk amid
    /// writes: `antler status` shows those disks as FAILED.
    pub(crate) fn attend(&mut self) {
        let is_healed = !matches!(self.phase, Phase::Starting | Phase::Working { .. });
        if !is_healed || self.now < self.attended {
            return;
        }
        self.attended = self.now + LOOKS_EVERY;
        let Some(state) = leading_state(&self.nodes) else {
            return;
        };
        let waited_for = waited_for(state, &self.nodes);
        self.start_again(&waited_for);
    }

    fn start_again(&mut self, nodes: &[usize]) {
        for &index in nodes {
            self.trace
                .line(self.now, "operator", || format!("starts {index} again"));
            self.end_process(index, false, Power::Idle);
            self.schedule(self.now, Event::Restart(index));
        }
    }
}

/// The servers with a failed disk, of chunks whose writers have no others.
fn waited_for(state: &State, nodes: &[Node]) -> Vec<usize> {
    let mut found = Vec::new();
    for id in state.chunks_from(ChunkId(0), usize::MAX) {
        let chunk = state.chunk(id).expect("it was just listed");
        let copies = chunk.lease.copies().iter();
        let holders = copies.map(|(server, _)| nodes.iter().find(|node| node.id == server.0));
        let holders: Vec<&Node> = holders.flatten().filter(|node| has_process(node)).collect();
        if !holders.is_empty() && holders.iter().all(|node| gave_up_any(node)) {
            found.extend(holders.iter().map(|node| node.index.0));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn has_process(node: &Node) -> bool {
    node.power == Power::Up && matches!(node.process, Some(Process::Server(_)))
}

/// It uses a disk no more that can be used again.
fn gave_up_any(node: &Node) -> bool {
    let mut disks = 0..node.disks.len();
    disks.any(|number| node.gave_up(number) && !node.disks[number].faults().vanished)
}
