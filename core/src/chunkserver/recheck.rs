//! Parts of which a read failed: whether they can be read again after a while.
//!
//! Owns when such a part is read whole once more; that it does not count as a copy
//! meanwhile is `parts`' business. A unit with a wrong checksum is lost and stays so, but a
//! read that failed may have failed for a moment only (a cable, a controller that was being
//! reset), and then the part may be the last one of its chunk.
//!
//! Invariant: whatever counts again was read from its first unit to its last, and every
//! checksum was right.

use super::ChunkServer;
use super::disks::Issued;
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest};
use crate::ids::{DiskId, PartId};
use crate::limits::{CHUNK_IO_MAX, CHUNK_SIZE};
use crate::machine::Level;
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// How long a part is left alone behind the first failed read; twice as long behind each
/// further one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is tried: for about two minutes in all. Each failure also counts towards
/// those that end the disk.
const TRIES: u32 = 6;

/// How much is read at once.
const PIECE: u32 = CHUNK_IO_MAX as u32;

#[derive(Debug)]
struct Recheck {
    disk: DiskId,
    due: Instant,
    failures: u32,
    /// Up to where the part was read, while it is.
    read: Option<u32>,
}

/// The parts that are to be read again.
#[derive(Debug, Default)]
pub(super) struct Rechecks {
    table: BTreeMap<PartId, Recheck>,
}

impl Rechecks {
    /// Gives a part up: it is gone, made anew, or really bad.
    pub(super) fn forget(&mut self, part: PartId) {
        self.table.remove(&part);
    }
}

impl ChunkServer {
    /// A read of a unit failed, the medium's fault and not the content's.
    pub(super) fn on_unreadable(&mut self, disk: DiskId, part: PartId, unit: u32) {
        if !self.parts.note_bad(part) {
            return;
        }
        self.log(Level::Warn, format!("unit {unit} of {part} can't be read"));
        self.say_gained(self.parts.report(part).into_iter().collect());
        let recheck = Recheck {
            disk,
            due: self.now + PATIENCE,
            failures: 1,
            read: None,
        };
        self.rechecks.table.insert(part, recheck);
    }

    /// Begins to read what is due.
    pub(super) fn tick_rechecks(&mut self) {
        let now = self.now;
        let due = self.rechecks.table.iter_mut();
        let due = due.filter(|(_, one)| one.read.is_none() && one.due <= now);
        let begun: Vec<PartId> = due
            .map(|(&part, one)| {
                one.read = Some(0);
                part
            })
            .collect();
        begun.into_iter().for_each(|part| self.read_again(part));
    }

    fn read_again(&mut self, part: PartId) {
        let Some(one) = self.rechecks.table.get(&part) else {
            return;
        };
        let (disk, offset) = (one.disk, one.read.expect("it is being read"));
        let length = PIECE.min(CHUNK_SIZE as u32 - offset);
        let request = DiskRequest::Read {
            part,
            offset,
            length,
        };
        self.operate(disk, request, Issued::Recheck { part });
    }

    /// A piece of a part was read again, or was not.
    pub(super) fn on_rechecked(
        &mut self,
        disk: DiskId,
        part: PartId,
        result: Result<DiskReply, DiskError>,
    ) {
        let one = self.rechecks.table.get_mut(&part);
        let Some(one) = one.filter(|one| one.disk == disk) else {
            return;
        };
        let Some(read) = &mut one.read else {
            return;
        };
        match result {
            Ok(_) if *read + PIECE < CHUNK_SIZE as u32 => {
                *read += PIECE;
                self.read_again(part);
            }
            Ok(_) => self.count_again(part),
            Err(DiskError::Unreadable { .. }) if one.failures < TRIES => {
                one.due = self.now + PATIENCE * (1 << one.failures);
                one.failures += 1;
                one.read = None;
            }
            Err(error) => {
                self.rechecks.forget(part);
                self.log(Level::Warn, format!("{part} stays bad: {error}"));
            }
        }
    }

    fn count_again(&mut self, part: PartId) {
        self.rechecks.forget(part);
        if self.parts.note_readable(part) {
            self.marks.reach(Mark::ReadableAgain);
            self.log(Level::Info, format!("{part} can be read again"));
            self.say_gained(self.parts.report(part).into_iter().collect());
        }
    }
}
