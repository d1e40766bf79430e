//! Disks that died: what that destroyed, and what an operator does about it in a year: he
//! puts empty ones in their place, each after the time that the plan tells.
//!
//! Invariant: taking a disk out destroys nothing that has no other good copy. One that is
//! dead already holds nothing; one that only rots waits for that.

use crate::network::Nanos;
use crate::node::{self, Power};
use crate::world::{Event, Phase, World};
use antler_core::ids::ServerId;

/// How often he looks whether a disk that still works may go, and how soon the server is
/// started again.
const LOOKS_EVERY: Nanos = 1_000_000_000;

impl World {
    /// A chunkserver's disk answered an error, and takes no writes any more. When that
    /// fault was armed everything on the disk had another copy; what was begun on it since
    /// then need not, and of that what was not synced is gone, as when a server dies.
    pub(crate) fn on_disk_failed(&mut self, index: usize) {
        let node = &self.nodes[index];
        let is_counted = node.disks.iter().any(|disk| disk.faults().vanished);
        if !is_counted && !self.copies_elsewhere(&[ServerId(node.id)], false) {
            self.judges.bytes.lose_server();
        }
    }

    /// Empty disks take the place of those that a fault hit, and their servers start
    /// again. Once everything has healed nothing is replaced any more.
    pub(crate) fn replace_disks(&mut self, number: usize) {
        let due = self.script.replaced.remove(&number).unwrap_or_default();
        if !matches!(self.phase, Phase::Working { .. }) {
            return;
        }
        let fault = *self.script.fault(number);
        for (index, at) in due {
            let dead = self.nodes[index].disks[at].faults().vanished;
            if dead || self.can_lose(index, &fault) {
                self.replace_disk(index, at);
                continue;
            }
            let waiting = self.script.replaced.entry(number).or_default();
            waiting.push((index, at));
            self.schedule(self.now + LOOKS_EVERY, Event::Replace(number));
        }
    }

    fn replace_disk(&mut self, index: usize, at: usize) {
        let node = &self.nodes[index];
        self.trace.line(self.now, &node.name, || {
            format!("gets an empty disk in the place of its disk {at}")
        });
        if matches!(node.power, Power::Up | Power::Starting) {
            self.end_process(index, false, Power::Idle);
            self.schedule(self.now + LOOKS_EVERY, Event::Restart(index));
        }
        self.nodes[index].replace_disk(at);
        self.disks = node::all_disks(&self.nodes);
        // What was read of the old disk must not be taken for the new one's.
        let own = self.disks.servers.iter().filter(|disk| disk.node == index);
        self.judges.reader.recover_again(own);
    }
}
