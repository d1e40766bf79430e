//! What lies under the parts of a store: files, slots, memory, and the content
//! of single blocks.
//!
//! Owns reading and verifying units and the mapping of file errors to a disk's.
//! Invariant: content leaves here only after its CRC was found right.

use super::format::{Entry, FormatError, NO_SLOT, units_of};
use super::operation::DiskError;
use super::part::{Block, Dirty, Part};
use super::slots::SlotSpace;
use super::store::Tuning;
use crate::ids::PartId;
use crate::limits::{UNIT_SIZE, UNITS_PER_BLOCK};
use crate::vfs::{FileId, Vfs, VfsError};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

/// After so many errors of reading, a disk counts as failed.
const READ_ERRORS_MAX: u32 = 16;

#[derive(Debug)]
pub(super) struct Disk<V> {
    pub(super) vfs: V,
    pub(super) slots: SlotSpace,
    pub(super) tuning: Tuning,
    /// Bytes of unsynced content in memory.
    pub(super) memory: usize,
    /// Why the disk takes nothing any more.
    pub(super) failed: Option<String>,
    read_errors: u32,
    /// Counts the changes that wrote straight to slots.
    stamp: u64,
    /// For each slot file the count when its last sync began.
    synced: BTreeMap<FileId, u64>,
    zero_unit: Bytes,
    zero_checksum: u32,
}

impl<V: Vfs> Disk<V> {
    pub(super) fn new(vfs: V, slots: SlotSpace, tuning: Tuning) -> Self {
        let zero_unit = Bytes::from_static(&[0; UNIT_SIZE]);
        Self {
            vfs,
            slots,
            tuning,
            memory: 0,
            failed: None,
            read_errors: 0,
            stamp: 0,
            synced: BTreeMap::new(),
            zero_checksum: crc32fast::hash(&zero_unit),
            zero_unit,
        }
    }

    /// The count for a change that just wrote straight to slots.
    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// The count now, to be told to `note_synced` when a sync that begins now ended.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Notes that a slot file was synced, from its state at `stamp` on.
    pub(super) fn note_synced(&mut self, file: FileId, stamp: u64) {
        let synced = self.synced.entry(file).or_default();
        *synced = stamp.max(*synced);
    }

    /// The slot files where changes hold content that is not synced yet.
    pub(super) fn unsynced_files(&self, dirty: &Dirty) -> BTreeSet<FileId> {
        let straight = dirty.blocks.values().filter(|state| state.straight != 0);
        let files = straight.map(|state| self.slots.content_file(state.slot));
        let is_synced = |file: &FileId| self.synced.get(file).is_some_and(|at| *at >= dirty.stamp);
        files.filter(|file| !is_synced(file)).collect()
    }

    /// The CRC of a unit of zeros.
    pub(super) fn zero_checksum(&self) -> u32 {
        self.zero_checksum
    }

    /// What a failed change or sync means: full, or the end of the disk.
    pub(super) fn fault(&mut self, error: VfsError) -> DiskError {
        if error == VfsError::Full {
            return DiskError::Full;
        }
        let reason = error.to_string();
        self.failed.get_or_insert_with(|| reason.clone());
        DiskError::Medium(reason)
    }

    /// What a failed read means: nothing of those units, now; too many end the disk.
    fn read_fault(&mut self, error: VfsError, unit: u32) -> DiskError {
        self.read_errors += 1;
        if self.read_errors >= READ_ERRORS_MAX {
            return self.fault(error);
        }
        DiskError::Unreadable { unit }
    }

    pub(super) fn check_alive(&self) -> Result<(), DiskError> {
        match &self.failed {
            None => Ok(()),
            Some(reason) => Err(DiskError::Medium(reason.clone())),
        }
    }

    /// The state of a block as it reads now.
    pub(super) fn block(
        &mut self,
        id: PartId,
        part: &Part,
        block: u16,
    ) -> Result<Block, DiskError> {
        if let Some(changed) = part.changed(block) {
            return Ok(changed.clone());
        }
        let Some(slot) = part.committed_slot(block) else {
            return Ok(Block::empty());
        };
        let mut entries = [Err(FormatError::Short)];
        self.entries(id, part, (block, slot), &mut entries)?;
        let entry = entries[0].expect("a bad entry is an error above");
        Ok(Block::committed(slot, &entry))
    }

    /// Reads the entries of consecutive blocks in consecutive slots, and checks that
    /// they are the part's, and of its last commit. One of before may be all that is there,
    /// if its successor was written elsewhere: what it says of units that both have does
    /// not fit their content then, but it may not know of others.
    pub(super) fn entries(
        &mut self,
        id: PartId,
        part: &Part,
        (block, slot): (u16, u32),
        into: &mut [Result<Entry, FormatError>],
    ) -> Result<(), DiskError> {
        let unit = first_unit(block);
        if let Err(error) = self.slots.read_entries(&mut self.vfs, slot, into) {
            return Err(self.read_fault(error, unit));
        }
        for (block, entry) in (block..).zip(into) {
            let fits = |entry: &Entry| {
                let is_own = entry.part == id && entry.block == block;
                is_own && part.units.admits(block, entry.present)
            };
            if !entry.as_ref().is_ok_and(fits) {
                let unit = first_unit(block);
                return Err(DiskError::Corrupt { unit });
            }
        }
        Ok(())
    }

    /// A unit's verified content; zeros if it is not present.
    pub(super) fn unit(
        &mut self,
        block: u16,
        state: &Block,
        unit: usize,
    ) -> Result<Bytes, DiskError> {
        if !state.has(unit) {
            return Ok(self.zero_unit.clone());
        }
        if let Some(content) = state.in_memory(unit) {
            return Ok(content.clone());
        }
        let mut content = BytesMut::with_capacity(UNIT_SIZE);
        self.read_slot(block, (state.slot, unit), UNIT_SIZE, &mut content)?;
        match crc32fast::hash(&content) == state.checksums[unit] {
            true => Ok(content.freeze()),
            false => Err(corrupt(block, unit)),
        }
    }

    /// Reads units of a slot (and of those behind it) as they are, behind what `buffer`
    /// holds.
    pub(super) fn read_slot(
        &mut self,
        block: u16,
        (slot, unit): (u32, usize),
        length: usize,
        buffer: &mut BytesMut,
    ) -> Result<(), DiskError> {
        assert!(slot != NO_SLOT, "present units have a slot");
        let place = (slot, unit);
        let result = self.slots.read(&mut self.vfs, place, length, buffer);
        let at = first_unit(block) + u32::try_from(unit).expect("a block has few units");
        result.map_err(|error| self.read_fault(error, at))
    }

    /// Writes a block's units from memory into their places.
    pub(super) fn write_in_place(&mut self, state: &Block) -> Result<(), VfsError> {
        for (unit, content) in &state.memory {
            let unit = usize::from(*unit);
            self.slots.write(&mut self.vfs, state.slot, unit, content)?;
        }
        Ok(())
    }

    /// Writes the units of a block that may go straight from memory to its slot.
    pub(super) fn flush_block(&mut self, state: &mut Block) -> Result<(), DiskError> {
        for unit in units_of(state.present & !state.locked) {
            let Some(content) = state.in_memory(unit).cloned() else {
                continue;
            };
            let written = self.slots.write(&mut self.vfs, state.slot, unit, &content);
            written.map_err(|error| self.fault(error))?;
            state.note_straight(unit, state.checksums[unit]);
        }
        Ok(())
    }
}

/// The number of a block's first unit in the part.
pub(super) fn first_unit(block: u16) -> u32 {
    u32::from(block) * UNITS_PER_BLOCK as u32
}

/// The fault of a unit whose CRC is wrong.
pub(super) fn corrupt(block: u16, unit: usize) -> DiskError {
    let unit = u32::try_from(unit).expect("a block has few units");
    DiskError::Corrupt {
        unit: first_unit(block) + unit,
    }
}
