//! Balance inside the server: parts go from the disk that uses most of its space to one that
//! uses less.
//!
//! Owns which disk holds more than its share, and where its parts go; `moves` moves them. How
//! much of a server's space is used is the leader's balance. Invariant: a move never leaves the
//! new disk fuller than the old one, so moves come to an end.

use super::ChunkServer;
use super::moves::{Walk, Why};
use crate::ids::{DiskId, PartId};

impl ChunkServer {
    /// Begins, or ends, to move parts off the disk that holds more than its share.
    pub(super) fn follow_balance(&mut self) {
        let walks = self.moves.walks.iter();
        let mut under_way = walks.filter(|(_, walk)| walk.why == Why::Overfull);
        let before = under_way.next().map(|(&disk, _)| disk);
        let stays = before.is_some_and(|disk| self.is_overfull(disk));
        if stays {
            return;
        }
        if let Some(disk) = before {
            self.moves.walks.remove(&disk);
        }
        let fullest = self.fullness().max().map(|(_, disk)| disk);
        if let Some(disk) = fullest.filter(|disk| self.is_overfull(*disk)) {
            let walk = Walk::new(Why::Overfull, self.now);
            self.moves.walks.entry(disk).or_insert(walk);
        }
    }

    /// How full the disks are that take part, in thousandths, with what is still to come and
    /// to go.
    fn fullness(&self) -> impl Iterator<Item = (u64, DiskId)> + '_ {
        let fullness = |disk| Some((self.fullness_with(disk, 0)?, disk));
        self.disks.table.keys().copied().filter_map(fullness)
    }

    fn fullness_with(&self, disk: DiskId, change: i64) -> Option<u64> {
        let change = change + self.moving_to(disk) - self.moving_off(disk);
        self.disks.table.get(&disk)?.used_per_mille(change)
    }

    /// Whether another disk is emptier by more than the width.
    fn is_overfull(&self, disk: DiskId) -> bool {
        let Some(full) = self.fullness_with(disk, 0) else {
            return false;
        };
        self.fullness()
            .any(|(other, _)| self.is_emptier(other, full))
    }

    fn is_emptier(&self, per_mille: u64, full: u64) -> bool {
        let width = u64::from(self.config.care.balance) * 10;
        width > 0 && per_mille + width < full
    }

    /// The emptiest disk that a part of an overfull one may go to.
    pub(super) fn emptier_disk(&self, part: PartId, from: DiskId) -> Option<DiskId> {
        let full = self.fullness_with(from, 0)?;
        let emptier = self.fullness().filter(|(other, disk)| {
            let takes = self.disks.table[disk].takes_new();
            takes && self.may_have(*disk, part) && self.is_emptier(*other, full)
        });
        emptier.min().map(|(_, disk)| disk)
    }

    /// Whether a part of so many bytes may go from one disk to another for balance: it must
    /// not turn the two round. Off a disk that is emptied everything goes.
    pub(super) fn may_go(&self, from: DiskId, to: DiskId, bytes: u64) -> bool {
        let walk = self.moves.walks.get(&from);
        if walk.is_none_or(|walk| walk.why == Why::Drained) {
            return true;
        }
        let bytes = i64::try_from(bytes).expect("a part has 64 MiB at most");
        let left = self.fullness_with(from, -bytes);
        let there = self.fullness_with(to, bytes);
        left.zip(there).is_some_and(|(left, there)| there <= left)
    }
}
