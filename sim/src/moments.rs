//! Faults that strike a node at a moment of its own: amid its recovery, between any
//! two of its file calls, or between two effects of one input. Whom such a fault
//! names says whose moments count, and the one whose moment it is is hit.

use crate::network::Nanos;
use crate::node::{Node, Power};
use crate::plan::When;
use crate::process::Act;
use crate::scenario::{Trigger, Who};
use crate::world::{Event, Phase, World};
use antler_core::machine::Role;

impl World {
    /// A node began to recover, and would be ready then.
    pub(crate) fn on_starting(&mut self, index: usize, ready: Nanos) {
        if self.nodes[index].disks.is_empty() {
            return;
        }
        for number in self.due_faults(Trigger::Starting, index) {
            let pick = self.script.fault(number).pick;
            let when = self.amid_start(index, ready, pick);
            self.schedule(when, Event::Fault(number));
        }
    }

    /// A moment of a recovery: behind one of the changes that it makes, or at any time
    /// of it.
    fn amid_start(&self, index: usize, ready: Nanos, pick: u64) -> Nanos {
        let disks = self.nodes[index].disks.iter();
        let changes = disks.flat_map(|disk| disk.times_to_come(self.now));
        let changes: Vec<Nanos> = changes.collect();
        let any = self.now + (pick >> 8) % (ready - self.now).max(1);
        match pick & 3 {
            0 => any,
            _ if changes.is_empty() => any,
            _ => changes[(pick >> 8) as usize % changes.len()],
        }
    }

    /// A node carried an effect out and has others of the same input left. Whether it
    /// gets no further.
    pub(crate) fn ends_between_effects(&mut self, index: usize) -> bool {
        if !self.script.watches_effects {
            return false;
        }
        for number in self.due_faults(Trigger::Effect, index) {
            self.strike(number);
        }
        self.nodes[index].power != Power::Up
    }

    /// The faults that waited for this moment of a node. They are hit by it alone.
    fn due_faults(&mut self, trigger: Trigger, index: usize) -> Vec<usize> {
        if !matches!(self.phase, Phase::Working { .. }) {
            return Vec::new();
        }
        let node = &self.nodes[index];
        let waits = |who: Who, when: When| match when {
            When::On { trigger: on, skip } if on == trigger && concerns(who, node) => Some(skip),
            _ => None,
        };
        self.script.note(index, waits)
    }
}

/// Whether a node is one of those named.
fn concerns(who: Who, node: &Node) -> bool {
    match who {
        Who::Any(role) | Who::All(role) => node.role == role,
        Who::Numbered(role, number) => node.is_numbered(role, number),
        Who::Leader => node.leads(),
        Who::Datacentre(number) => node.place.datacentre == number,
        Who::Rack(number) => node
            .place
            .rack
            .as_ref()
            .is_some_and(|(rack, _)| *rack == number),
        Who::Cause | Who::Servers => node.role != Role::Client,
        Who::Everything => true,
    }
}

/// Whether others, or a disk, can tell that an act was done.
pub(crate) fn is_effect(act: &Act) -> bool {
    !matches!(act, Act::Log(..) | Act::Witness(_))
}
