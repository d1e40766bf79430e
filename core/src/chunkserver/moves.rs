//! Parts that move from one disk of the server to another, because theirs is drained or
//! suspected, or holds more than its share.
//!
//! Owns which parts move, where to (of a drained disk's; `balance` says it of the others) and
//! when, and the switch from one copy to the other;
//! `replicate` makes the new copy, of the old one as of another server's. The switch holds
//! the part's queue: what was made is committed there, the part counts there from then on,
//! and the queue goes on when the old copy is deleted durably. Invariant: at any moment a
//! crash leaves one good copy at least, and two only while they are equal. A change of the
//! part while it is copied ends the move.
//!
//! Who can't delete the old copy (its disk fails, or is full) seals the part: nobody writes
//! at its present epoch any more, so that the old copy can never pass for the new one.

use super::ChunkServer;
use super::disks::CommitItem;
use super::parts::{Looked, PartError, PartResult, Then};
use crate::chunk::operation::{CommitAction, DiskError, StoredPart};
use crate::ids::{DiskId, PartId};
use crate::machine::Level;
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Parts that move off one disk at once.
const MOVES_MAX: usize = 8;
/// The same while clients use this server.
const MOVES_BUSY: usize = 1;
/// Parts that move for balance at once.
const MOVES_EVEN: usize = 4;
/// How many parts of the table are passed over at once to find one on a disk.
const LOOKS_MAX: usize = 4096;
/// How soon the search for parts goes on.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// How soon a disk is looked at again when its last part was passed, when others wait for
/// the disks, or when a move failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How soon the parts of a disk that has more than its share are looked at once more.
const ROUND_PAUSE: Duration = Duration::from_secs(60);

/// The moves of the server.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) walks: BTreeMap<DiskId, Walk>,
    /// Old copies that are about to be deleted, where they are not the part's own.
    leftovers: BTreeSet<(DiskId, PartId)>,
}

/// Why parts leave a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// It is emptied.
    Drained,
    /// It holds more than its share.
    Overfull,
}

/// A walk over the parts of a disk.
#[derive(Debug)]
pub(super) struct Walk {
    pub(super) why: Why,
    next: Bound<PartId>,
    due: Instant,
}

impl Walk {
    pub(super) fn new(why: Why, due: Instant) -> Self {
        let next = Bound::Unbounded;
        Self { why, next, due }
    }
}

impl Moves {
    /// When a disk is looked at next.
    pub(super) fn due(&self) -> Instant {
        let due = self.walks.values().map(|walk| walk.due).min();
        due.unwrap_or(Instant::NEVER)
    }

    /// An old copy is about to be deleted.
    pub(super) fn leave(&mut self, disk: DiskId, part: PartId) {
        self.leftovers.insert((disk, part));
    }

    /// A disk is let go.
    pub(super) fn forget_disk(&mut self, disk: DiskId) {
        self.walks.remove(&disk);
        self.leftovers.retain(|(on, _)| *on != disk);
    }

    /// An old copy is gone, or its disk is.
    pub(super) fn forget_leftover(&mut self, disk: DiskId, part: PartId) {
        self.leftovers.remove(&(disk, part));
    }
}

impl ChunkServer {
    /// Begins, or ends, to empty disks as it is ordered.
    pub(super) fn follow_drains(&mut self) {
        let drained = self.disks.drained();
        let is_emptied = |disk| drained.contains(&disk);
        let stays = |disk, walk: &Walk| is_emptied(disk) == (walk.why == Why::Drained);
        self.moves.walks.retain(|disk, walk| stays(*disk, walk));
        for disk in drained {
            let walk = Walk::new(Why::Drained, self.now);
            self.moves.walks.entry(disk).or_insert(walk);
        }
    }

    /// Looks for parts to move where that is due.
    pub(super) fn tick_moves(&mut self) {
        if self.stopping.is_some() || self.moves.due() > self.now {
            return;
        }
        let walks = self.moves.walks.iter();
        let due = walks.filter(|(_, walk)| walk.due <= self.now);
        let due: Vec<DiskId> = due.map(|(&disk, _)| disk).collect();
        for disk in due {
            let pause = self.move_off(disk);
            let due = pause.map_or(Instant::NEVER, |pause| self.now + pause);
            let walk = self.moves.walks.get_mut(&disk);
            walk.expect("it was just there").due = due;
        }
    }

    /// Begins as many moves off a disk as may be under way. For how long it rests then;
    /// `None`: until one of them ends.
    fn move_off(&mut self, disk: DiskId) -> Option<Duration> {
        if self.disks.is_crowded(disk) || self.has_repairs_waiting() {
            return Some(PAUSE);
        }
        let why = self.moves.walks[&disk].why;
        let most = match why {
            _ if self.is_used() => MOVES_BUSY,
            Why::Drained => MOVES_MAX,
            Why::Overfull => MOVES_EVEN,
        };
        for _ in 0..MOVES_MAX {
            if self.moves_off(disk) >= most {
                return None;
            }
            let range = (self.moves.walks[&disk].next, Bound::Unbounded);
            match self.parts.next_on(disk, range, LOOKS_MAX) {
                Looked::Part(part) => {
                    self.walk(disk).next = Bound::Excluded(part);
                    self.try_move(part, disk);
                }
                Looked::Passed(part) => {
                    self.walk(disk).next = Bound::Excluded(part);
                    return Some(LOOK_PAUSE);
                }
                Looked::End => {
                    self.walk(disk).next = Bound::Unbounded;
                    return Some(match why {
                        Why::Drained => PAUSE,
                        Why::Overfull => ROUND_PAUSE,
                    });
                }
            }
        }
        Some(LOOK_PAUSE)
    }

    fn walk(&mut self, disk: DiskId) -> &mut Walk {
        let walk = self.moves.walks.get_mut(&disk);
        walk.expect("the disk is being emptied")
    }

    /// The disk with the most room that a part may be made on: none where an old copy of it
    /// is about to be deleted, which would take the new one with it.
    pub(super) fn disk_for(&self, part: PartId) -> Option<DiskId> {
        self.disks.with_most_room(|disk| self.may_have(disk, part))
    }

    /// Whether no old copy of a part is about to be deleted on a disk.
    pub(super) fn may_have(&self, disk: DiskId, part: PartId) -> bool {
        !self.moves.leftovers.contains(&(disk, part))
    }

    /// Begins to move a part if it is at rest and another disk has room.
    fn try_move(&mut self, part: PartId, from: DiskId) {
        let to = match self.moves.walks[&from].why {
            Why::Drained => self.disk_for(part).filter(|to| *to != from),
            Why::Overfull => self.emptier_disk(part, from),
        };
        let Some(to) = to else {
            return;
        };
        if self.is_being_made(part) || !self.parts.is_at_rest(part) {
            return;
        }
        self.begin_move(part, from, to);
    }

    /// A move ended: so many bytes moved, or nothing did.
    pub(super) fn on_move_ended(&mut self, from: DiskId, moved: Option<u64>) {
        let due = match moved {
            Some(_) => self.now,
            None => self.now + PAUSE,
        };
        self.disks.note_moved(from, moved.unwrap_or(0));
        let Some(walk) = self.moves.walks.get_mut(&from) else {
            return;
        };
        walk.due = walk.due.min(due);
        if walk.why == Why::Overfull && moved.is_some() {
            self.marks.reach(Mark::DisksEvened);
        }
    }

    /// What was made on the new disk is durable, or could not be put there: the part's
    /// queue waits.
    pub(super) fn on_switched(
        &mut self,
        (from, to): (DiskId, DiskId),
        stored: Result<Option<StoredPart>, DiskError>,
        part: PartId,
        key: u64,
    ) {
        let then = Then::Replication(key);
        let stored = match stored {
            Ok(stored) => stored.expect("what was received is there"),
            Err(error) => {
                if error == DiskError::Full {
                    self.on_disk_error(to, part, &error);
                }
                return self.finish_change(part, then, Err(PartError::Disk(error)));
            }
        };
        self.marks.reach(Mark::PartMoved);
        if self.parts.relocate(part, from, to) {
            self.rechecks.forget(part);
            self.disks.count_copy(from, -1);
            self.disks.count_copy(to, 1);
            self.commit(from, part, CommitAction::Delete, Then::Emptied(key), 0);
        } else {
            // Its disk failed meanwhile; what it held is here.
            self.marks.reach(Mark::PartSealed);
            self.parts.adopt(to, stored);
            self.disks.count_copy(to, 1);
            self.finish_change(part, then, Ok(Some(stored)));
        }
    }

    /// The old copy is deleted, or can't be.
    pub(super) fn on_emptied(
        &mut self,
        from: DiskId,
        part: PartId,
        key: u64,
        result: Result<Option<StoredPart>, DiskError>,
    ) {
        if let Err(error) = result {
            self.marks.reach(Mark::PartSealed);
            self.parts.seal(part);
            let text = format!("the old copy of {part} on {from} could not be deleted: {error}");
            self.log(Level::Warn, text);
            if error == DiskError::Full {
                self.delete_leftover(from, part);
            }
        }
        let there = self.parts.made(part).copied();
        let stored = there.map(|info| StoredPart {
            part,
            version: info.version,
            epoch: info.epoch,
        });
        let result: PartResult = match stored {
            Some(_) => Ok(stored),
            // The new disk failed in the meantime.
            None => Err(PartError::Lost),
        };
        self.finish_change(part, Then::Replication(key), result);
    }

    /// Deletes a copy that is not the part's own, at the next occasion.
    pub(super) fn delete_leftover(&mut self, disk: DiskId, part: PartId) {
        self.moves.leave(disk, part);
        let item = CommitItem::new(part, CommitAction::Delete, Then::Duplicate);
        self.disks.put_off(disk, item);
    }
}
