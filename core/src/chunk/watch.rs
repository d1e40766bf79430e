//! A disk as judges follow it: recovered once, then read on from copies of the disk
//! that were taken later.
//!
//! Owns no format: every table, frame and unit is read by the code that recovery
//! runs. What was read before is taken for granted, and what lies behind the
//! journal's last frame is not looked at, so whoever follows a disk lets recovery
//! itself decide before it calls something missing. Invariant: what is read is what
//! [`ChunkStore::open`] on the same copy would read, or recovery refuses the copy.

use super::StoreError;
use super::disk::Disk;
use super::format::{BlockRecord, FormatError, Identity, PartHeader, Reader, RecordKind};
use super::journal::{Journal, Mark};
use super::operation::{DiskError, StoredPart};
use super::part::Part;
use super::recover::{Replay, read_newest_table, rewrite_frame};
use super::slots::SlotSpace;
use super::store::{ChunkStore, StoreOptions, Tuning, stored};
use super::table;
use crate::ids::PartId;
use crate::limits::BLOCK_SIZE;
use crate::vfs::Vfs;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// See the module's doc.
#[derive(Debug)]
pub struct StoreWatch<V> {
    disk: Disk<V>,
    identity: Identity,
    tuning: Tuning,
    replay: Replay,
    /// What the newest table covers, and the journal's end.
    covered: Mark,
    end: Mark,
    frames: Frames,
    /// The parts whose places were written again.
    placed: BTreeSet<PartId>,
    /// All parts as recovery made them, until the disk is read on: what found no space in
    /// its place is in their memory.
    recovered: Option<BTreeMap<PartId, Part>>,
}

/// The frames behind the table, and which of them speak of a part.
#[derive(Debug, Default)]
struct Frames {
    records: Vec<(u64, Vec<u8>)>,
    of: BTreeMap<PartId, Vec<usize>>,
}

impl<V: Vfs + Clone> StoreWatch<V> {
    /// Recovers a disk whole. It writes to `vfs`, which is a copy.
    ///
    /// # Errors
    /// As [`ChunkStore::open`].
    ///
    /// # Panics
    /// When recovery and reading on would come to different parts: a bug.
    pub fn open(mut vfs: V, options: StoreOptions) -> Result<Self, StoreError> {
        let (store, _) = ChunkStore::open(vfs.clone(), options)?;
        let table = read_newest_table(&mut vfs)?;
        let mut watch = Self {
            identity: store.identity,
            tuning: store.disk.tuning,
            replay: Replay::new(table.parts),
            covered: table.mark,
            end: table.mark,
            frames: Frames::default(),
            placed: BTreeSet::new(),
            recovered: None,
            disk: store.disk,
        };
        watch.read_frames(&mut vfs)?;
        let recovered = store
            .parts
            .iter()
            .map(|(id, part)| (stored(*id, part), &part.slots));
        let parts = watch.replay.parts.iter();
        let followed = parts.map(|(id, part)| (stored(*id, part), &part.slots));
        assert!(recovered.eq(followed), "both read the same parts");
        watch.recovered = Some(store.parts);
        Ok(watch)
    }

    /// Goes on from a later copy of the same disk. `None` where only recovery can:
    /// another table holds now.
    ///
    /// # Errors
    /// As [`ChunkStore::open`].
    pub fn follow(mut self, mut vfs: V) -> Result<Option<Self>, StoreError> {
        let names = vfs.list("")?;
        let newest = names.iter().filter_map(|name| table::number(name)).max();
        if newest != Some(self.covered.sequence) {
            return Ok(None);
        }
        self.read_frames(&mut vfs)?;
        let used = self.replay.used_slots();
        let slots = SlotSpace::open(&mut vfs, self.identity.slots_per_file, 0, &used)?;
        self.disk = Disk::new(vfs, slots, self.tuning);
        self.placed.clear();
        self.recovered = None;
        Ok(Some(self))
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = StoredPart> + '_ {
        let parts = self.replay.parts.iter();
        parts.map(|(id, part)| stored(*id, part))
    }

    /// One part, if it is there.
    #[must_use]
    pub fn part(&self, id: PartId) -> Option<StoredPart> {
        self.replay.parts.get(&id).map(|part| stored(id, part))
    }

    /// Reads a range of whole units of a part; absent ones are zeros.
    ///
    /// # Errors
    /// When the part is not there, or a unit is corrupt.
    pub fn read(&mut self, id: PartId, offset: u32, length: u32) -> Result<Bytes, DiskError> {
        self.place(id)?;
        let part = part_of(&self.recovered, &self.replay, id)?;
        let units = self.disk.read(id, part, offset as usize, length as usize)?;
        Ok(units.data)
    }

    /// Reads all of a part.
    ///
    /// # Errors
    /// When the part is not there, or a unit is corrupt.
    pub fn verify(&mut self, id: PartId) -> Result<(), DiskError> {
        self.place(id)?;
        let part = part_of(&self.recovered, &self.replay, id)?;
        for block in 0..part.end_block() {
            let offset = usize::from(block) * BLOCK_SIZE;
            self.disk.read(id, part, offset, BLOCK_SIZE)?;
        }
        Ok(())
    }

    /// The digest of a part's content.
    ///
    /// # Errors
    /// When the part is not there, or can't be read.
    pub fn digest(&mut self, id: PartId) -> Result<u64, DiskError> {
        self.place(id)?;
        let part = part_of(&self.recovered, &self.replay, id)?;
        self.disk.digest(id, part)
    }

    fn read_frames(&mut self, vfs: &mut V) -> Result<(), StoreError> {
        let shape = (self.identity.disk, self.identity.segment_size);
        let (replay, frames) = (&mut self.replay, &mut self.frames);
        self.end = Journal::read_on(vfs, shape, self.end, |sequence, records| {
            let damaged = |error| StoreError::damaged(format!("frame {sequence}"), error);
            replay.apply(sequence, &records).map_err(damaged)?;
            frames.add(sequence, records).map_err(damaged)
        })?;
        Ok(())
    }

    /// Writes what the journal says about a part's places there, as recovery does.
    fn place(&mut self, id: PartId) -> Result<(), DiskError> {
        if self.recovered.is_some() || !self.placed.insert(id) {
            return Ok(());
        }
        let numbers = self.frames.of.get(&id).map_or(&[][..], Vec::as_slice);
        for &number in numbers {
            let (sequence, records) = &self.frames.records[number];
            let Disk { vfs, slots, .. } = &mut self.disk;
            let frame = (*sequence, records.as_slice());
            let full = rewrite_frame(vfs, slots, &self.replay, frame, |part| part == id)
                .map_err(|error| self.disk.fault(error))?;
            if !full.is_empty() {
                return Err(DiskError::Full);
            }
        }
        Ok(())
    }
}

/// A part as recovery made it, or as it was read on.
fn part_of<'p>(
    recovered: &'p Option<BTreeMap<PartId, Part>>,
    replay: &'p Replay,
    id: PartId,
) -> Result<&'p Part, DiskError> {
    let parts = recovered.as_ref().unwrap_or(&replay.parts);
    parts.get(&id).ok_or(DiskError::NotFound)
}

impl Frames {
    fn add(&mut self, sequence: u64, records: Vec<u8>) -> Result<(), FormatError> {
        let number = self.records.len();
        let mut reader = Reader::new(&records);
        while !reader.is_empty() {
            let header = PartHeader::decode(&mut reader)?;
            let numbers = self.of.entry(header.part).or_default();
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
            if header.kind != RecordKind::Gone {
                for _ in 0..header.count {
                    BlockRecord::decode(&mut reader)?;
                }
            }
        }
        self.records.push((sequence, records));
        Ok(())
    }
}
