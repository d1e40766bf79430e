//! The loss of a whole datacentre, for good: every node of it is gone with its disks.
//! Keeps the fault atlas for it: every chunk has a good copy elsewhere, and either a
//! majority of the masters is elsewhere, or a metalogger that knows everything that was
//! acknowledged and becomes the new master.

use crate::faults::LASTS;
use crate::node::{self, Node, Power};
use crate::plan::FaultPlan;
use crate::scenario::Who;
use crate::world::{Event, World};
use antler_core::ids::ServerId;
use antler_core::machine::Role;

impl World {
    /// Loses a datacentre, once what was in it can be lost. Mounts of it start anew on
    /// machines of another one.
    pub(crate) fn lose_datacentre(&mut self, number: usize, fault: &FaultPlan) {
        let Who::Datacentre(site) = fault.who else {
            unreachable!("a fault was checked to name a datacentre");
        };
        let Some(refuge) = self.refuge(site) else {
            return;
        };
        let heir = match self.has_quorum_outside(site) {
            true => None,
            false => match self.heir(|node| node.place.datacentre != site) {
                Some(heir) => Some(heir),
                None => return self.retry(number),
            },
        };
        if !self.copies_outlast(site) {
            return self.retry(number);
        }
        for index in 0..self.nodes.len() {
            if self.nodes[index].place.datacentre == site {
                self.lose_node(index, refuge, fault);
            }
        }
        if let Some(heir) = heir {
            self.hand_down(heir, fault);
        }
    }

    /// Another datacentre that has a chunkserver.
    fn refuge(&self, site: u64) -> Option<u64> {
        let mut nodes = self.nodes.iter();
        let found = nodes.find(|node| {
            node.role == Role::ChunkServer
                && node.place.datacentre != site
                && node.power != Power::Lost
        });
        found.map(|node| node.place.datacentre)
    }

    /// Whether a majority of the masters is elsewhere and keeps its disks.
    fn has_quorum_outside(&self, site: u64) -> bool {
        let masters = || {
            let all = self.nodes.iter();
            all.filter(|node| node.role == Role::Master && !node.retired)
        };
        let stays = |node: &&Node| {
            let is_whole = node.power != Power::Lost && !node.disks.iter().any(node::is_faulty);
            node.place.datacentre != site && is_whole
        };
        masters().filter(stays).count() * 2 > masters().count()
    }

    fn copies_outlast(&self, site: u64) -> bool {
        let inside = self
            .nodes
            .iter()
            .filter(|node| node.place.datacentre == site);
        let servers = inside.filter(|node| node.role == Role::ChunkServer);
        let servers: Vec<ServerId> = servers.map(|node| ServerId(node.id)).collect();
        self.copies_elsewhere(&servers, false)
    }

    fn lose_node(&mut self, index: usize, refuge: u64, fault: &FaultPlan) {
        if self.nodes[index].role == Role::Client {
            self.end_process(index, true, Power::Off);
            let mut nodes = self.nodes.iter();
            let there = nodes.find(|node| node.place.datacentre == refuge);
            let there = there.map(|node| node.place.clone());
            self.nodes[index].place = there.expect("the refuge has a chunkserver");
            self.network.move_node(self.nodes[index].index, refuge);
            let pause = fault.lasts.unwrap_or(LASTS);
            return self.schedule(self.now + pause, Event::Restart(index));
        }
        self.end_process(index, true, Power::Lost);
        for disk in &self.nodes[index].disks {
            disk.set_faults(|faults| faults.vanished = true);
        }
        if self.nodes[index].role == Role::ChunkServer {
            self.judges.bytes.lose_disk();
        }
    }
}
