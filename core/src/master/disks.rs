//! Single disks that are to be emptied and that their servers can't empty themselves, as their
//! other disks have no room, or as there are none: what is there is made on other servers.
//!
//! Owns which disks those are, in soft state that every member keeps; a copy there is one of a
//! drained server to `repair`. A server that can empties its disk alone, without the network.
//! Invariant: of the disks that are only suspected one at most is emptied, until an operator
//! dealt with it: when much is slow at once it is not the disks.

use super::Master;
use super::crowded::ROOM_LEAST;
use super::servers::is_working;
use crate::ids::{ChunkId, DiskId, ServerId};
use crate::machine::Level;
use crate::marks::Mark;
use crate::wire::client_master::DiskStatus;
use std::collections::BTreeSet;

impl Master {
    /// A server tells what its disks are like.
    pub(super) fn note_disks(&mut self, server: ServerId, disks: Vec<DiskStatus>) {
        let Some(one) = self.servers.get(server) else {
            return;
        };
        let before = one.evacuated.clone();
        let mut now = BTreeSet::new();
        for disk in disks.iter().filter(|disk| is_working(disk)) {
            let goes_on = before.contains(&disk.disk) && disk.draining.is_some();
            let begins = |disk: &DiskStatus| {
                let is_left = disk.draining.is_some_and(|left| left > 0);
                is_left && !has_room_beside(&disks, disk.disk) && self.may_begin(disk)
            };
            if goes_on || begins(disk) {
                now.insert(disk.disk);
            }
        }
        let one = self.servers.table.get_mut(&server);
        let one = one.expect("it was just seen");
        one.disks = disks;
        one.evacuated.clone_from(&now);
        if before == now {
            return;
        }
        for disk in now.difference(&before) {
            let text = format!("{disk} of {server} is emptied onto other servers");
            self.log(Level::Info, text);
        }
        self.touch_all_of(server);
    }

    /// Whether a disk may be emptied: one that is only suspected if no other one is.
    fn may_begin(&self, disk: &DiskStatus) -> bool {
        let is_taken = |other: &&DiskStatus| !other.suspected.is_empty();
        let mut others = self.servers.table.values().flat_map(|one| {
            let evacuated = |disk: &&DiskStatus| one.evacuated.contains(&disk.disk);
            one.disks.iter().filter(evacuated)
        });
        disk.suspected.is_empty() || !others.any(|other| is_taken(&other))
    }

    /// A chunk has what it wants without those that drain.
    pub(super) fn note_drained(&mut self, chunk: ChunkId) {
        self.marks.reach(Mark::CopyDrained);
        let held = self.servers.held(chunk).iter();
        let mut servers = held.filter_map(|copy| Some((copy, self.servers.get(copy.server)?)));
        if servers.any(|(copy, one)| one.evacuated.contains(&copy.disk)) {
            self.marks.reach(Mark::DiskEvacuated);
        }
    }
}

/// Whether another disk of the server has room for what is on one.
fn has_room_beside(disks: &[DiskStatus], but: DiskId) -> bool {
    disks.iter().any(|disk| {
        let stays = disk.disk != but && is_working(disk) && disk.draining.is_none();
        stays && disk.space.free >= ROOM_LEAST
    })
}
