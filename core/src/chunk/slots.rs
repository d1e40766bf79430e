//! The slots of a disk: which are free, the files that they lie in, and the
//! slot table beside them.
//!
//! Owns allocation and the arithmetic from slots to files. Leaves to the store
//! which part a slot belongs to and when a slot may be freed: here a freed slot
//! is free at once. Invariant: a slot is in at most one of `warm`, `cold`, a
//! part; slots from `next` on were never used.

use super::format::{ENTRY_SIZE, Entry, FormatError};
use crate::limits::{BLOCK_SIZE, UNIT_SIZE};
use crate::vfs::{FileId, Vfs, VfsError, VfsResult};
use bytes::BytesMut;
use std::collections::BTreeMap;

/// How many free runs are looked at for a long one.
const RUNS_TRIED: usize = 32;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Runs of free slots, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extents(BTreeMap<u32, u32>);

impl Extents {
    pub(super) fn insert(&mut self, slot: u32) {
        self.insert_run(slot, 1);
    }

    pub(super) fn insert_run(&mut self, mut start: u32, mut length: u32) {
        if let Some((&before, &run)) = self.0.range(..start).next_back() {
            assert!(before + run <= start, "slot {start} is freed twice");
            if before + run == start {
                (start, length) = (before, length + run);
            }
        }
        if let Some((&after, &run)) = self.0.range(start + 1..).next() {
            assert!(start + length <= after, "slot {after} is freed twice");
            if start + length == after {
                self.0.remove(&after);
                length += run;
            }
        }
        self.0.insert(start, length);
    }

    fn take(&mut self, start: u32, count: u32) {
        let length = self.0.remove(&start).expect("a run begins there");
        assert!(count <= length, "no more is taken than the run has");
        if count < length {
            self.0.insert(start + count, length - count);
        }
    }

    /// The first run of `want` slots among the first few, else the longest of them.
    fn find(&self, want: u32) -> Option<(u32, u32)> {
        let mut best: Option<(u32, u32)> = None;
        for (&start, &length) in self.0.iter().take(RUNS_TRIED) {
            if best.is_none_or(|(_, longest)| length > longest) {
                best = Some((start, length));
            }
            if length >= want {
                break;
            }
        }
        best
    }

    fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.0.iter().map(|(&start, &length)| (start, length))
    }

    pub(super) fn slots(&self) -> u64 {
        self.0.values().map(|&length| u64::from(length)).sum()
    }

    fn contains(&self, slot: u32) -> bool {
        let before = self.0.range(..=slot).next_back();
        before.is_some_and(|(&start, &length)| slot - start < length)
    }
}

#[derive(Clone, Copy, Debug)]
struct SlotFile {
    content: FileId,
    table: FileId,
}

/// The slots of one disk.
#[derive(Debug)]
pub(super) struct SlotSpace {
    per_file: u32,
    files: Vec<SlotFile>,
    /// Free, and the disk still keeps their old content.
    warm: Extents,
    warm_slots: u64,
    /// Free, and given back to the disk.
    cold: Extents,
    next: u32,
    /// Growth beyond this waits until no run of free slots is left.
    soft_end: u32,
    /// Slots that the disk has surely space for.
    budget: u64,
    /// Bytes of the disk that stay free.
    reserve: u64,
}

/// The names of the two files with number `k`.
fn names(k: usize) -> (String, String) {
    (format!("slots-{k}"), format!("units-{k}"))
}

impl SlotSpace {
    /// Opens what is there. `used` tells for every slot below its length whether a
    /// part has it.
    pub(super) fn open<V: Vfs>(
        vfs: &mut V,
        per_file: u32,
        reserve: u64,
        used: &[bool],
    ) -> VfsResult<Self> {
        let next = u32::try_from(used.len()).expect("slots are numbered by 32 bits");
        let total = vfs.space()?.total / BLOCK_SIZE as u64;
        let soft_end = total.saturating_mul(2).saturating_add(u64::from(per_file));
        let mut space = Self {
            per_file,
            files: Vec::new(),
            warm: Extents::default(),
            warm_slots: 0,
            cold: Extents::default(),
            next,
            soft_end: u32::try_from(soft_end).unwrap_or(u32::MAX),
            budget: 0,
            reserve,
        };
        space.open_files(vfs, true)?;
        space.free_unused(used);
        Ok(space)
    }

    /// Opens or makes the files of all slots. `may_be_short`: a slot table that is there
    /// may lack its end if the disk is full. A power cut took the zeros there, and no
    /// line of it is missed.
    fn open_files<V: Vfs>(&mut self, vfs: &mut V, may_be_short: bool) -> VfsResult<()> {
        while self.files.len() < self.next.div_ceil(self.per_file) as usize {
            self.add_file(vfs, may_be_short)?;
        }
        Ok(())
    }

    /// Free slots of a disk that was just opened may hold old content.
    fn free_unused(&mut self, used: &[bool]) {
        let mut slot = 0;
        for run in used.chunk_by(|left, right| left == right) {
            let length = u32::try_from(run.len()).expect("slots are numbered by 32 bits");
            if !run[0] {
                self.warm.insert_run(slot, length);
                self.warm_slots += u64::from(length);
            }
            slot += length;
        }
    }

    /// Opens or makes the next pair of files. The slot table is filled with zeros,
    /// so that a commit finds its space taken.
    fn add_file<V: Vfs>(&mut self, vfs: &mut V, may_be_short: bool) -> VfsResult<()> {
        let (content, table) = names(self.files.len());
        let content = open_or_create(vfs, &content)?;
        let table = open_or_create(vfs, &table)?;
        match self.fill_table(vfs, table) {
            Err(VfsError::Full) if may_be_short => {}
            other => other?,
        }
        vfs.sync_dir("")?;
        self.files.push(SlotFile { content, table });
        Ok(())
    }

    fn fill_table<V: Vfs>(&self, vfs: &mut V, table: FileId) -> VfsResult<()> {
        let wanted = u64::from(self.per_file) * ENTRY_SIZE as u64;
        let mut length = vfs.len(table)?;
        while length < wanted {
            let count = (wanted - length).min(ZEROS.len() as u64);
            let count = usize::try_from(count).expect("at most the buffer");
            vfs.write_at(table, length, &ZEROS[..count])?;
            length += count as u64;
        }
        Ok(())
    }

    /// A run of at most `want` slots of one file. Fails with `Full` when the disk
    /// has no space for them.
    pub(super) fn allocate<V: Vfs>(&mut self, vfs: &mut V, want: u32) -> VfsResult<(u32, u32)> {
        assert!(want > 0, "something is wanted");
        self.refill(vfs, u64::from(want))?;
        if self.budget == 0 {
            return Err(VfsError::Full);
        }
        let want = want.min(u32::try_from(self.budget).unwrap_or(u32::MAX));
        let (start, length) = self.take_run(vfs, want)?;
        self.budget -= u64::from(length);
        Ok((start, length))
    }

    fn take_run<V: Vfs>(&mut self, vfs: &mut V, want: u32) -> VfsResult<(u32, u32)> {
        let warm = self.warm.find(want);
        let cold = self.cold.find(want);
        let enough =
            |run: &Option<(u32, u32)>| run.is_some_and(|(_, length)| length >= want.div_ceil(4));
        let may_grow = self.next < self.soft_end;
        if let Some((start, length)) = warm.filter(|_| enough(&warm) || !may_grow) {
            let count = self.cut(start, length.min(want));
            self.warm.take(start, count);
            self.warm_slots -= u64::from(count);
            return Ok((start, count));
        }
        if let Some((start, length)) = cold.filter(|_| enough(&cold) || !may_grow) {
            let count = self.cut(start, length.min(want));
            self.cold.take(start, count);
            return Ok((start, count));
        }
        self.grow(vfs, want)
    }

    fn grow<V: Vfs>(&mut self, vfs: &mut V, want: u32) -> VfsResult<(u32, u32)> {
        let start = self.next;
        let count = self.cut(start, want);
        self.next = start
            .checked_add(count)
            .filter(|&end| end < u32::MAX)
            .ok_or(VfsError::Full)?;
        if let Err(error) = self.open_files(vfs, false) {
            self.next = start;
            return Err(error);
        }
        Ok((start, count))
    }

    /// Keeps a run within one file.
    fn cut(&self, start: u32, length: u32) -> u32 {
        length.min(self.per_file - start % self.per_file)
    }

    /// Asks the disk for its space when the budget ran out.
    fn refill<V: Vfs>(&mut self, vfs: &mut V, want: u64) -> VfsResult<()> {
        if self.budget < want {
            self.refresh(vfs)?;
        }
        Ok(())
    }

    /// Asks the disk for its space, and tells it: warm slots count as free.
    pub(super) fn refresh<V: Vfs>(&mut self, vfs: &mut V) -> VfsResult<crate::vfs::Space> {
        let mut space = vfs.space()?;
        let warm = self.warm_slots * BLOCK_SIZE as u64;
        space.free = space.free.saturating_sub(self.reserve);
        self.budget = space.free / BLOCK_SIZE as u64;
        // Warm slots hold space of their own, but their holes may not: they are
        // given back before they count against a disk that is nearly full.
        if self.budget == 0 && self.warm_slots > 0 {
            self.give_back(vfs)?;
            let again = vfs.space()?.free.saturating_sub(self.reserve);
            self.budget = again / BLOCK_SIZE as u64;
            space.free = again;
            return Ok(space);
        }
        space.free = space.free.saturating_add(warm).min(space.total);
        Ok(space)
    }

    /// Frees a slot: nothing durable refers to it any more.
    pub(super) fn free(&mut self, slot: u32) {
        assert!(slot < self.next, "slot {slot} was never given out");
        self.warm.insert(slot);
        self.warm_slots += 1;
    }

    /// How many free slots still take space.
    pub(super) fn warm_slots(&self) -> u64 {
        self.warm_slots
    }

    /// Gives the space of free slots back to the disk.
    pub(super) fn give_back<V: Vfs>(&mut self, vfs: &mut V) -> VfsResult<()> {
        while self.give_back_run(vfs)? {}
        Ok(())
    }

    /// Gives back one run of free slots; false when there was none.
    pub(super) fn give_back_run<V: Vfs>(&mut self, vfs: &mut V) -> VfsResult<bool> {
        let Some((start, length)) = self.warm.runs().next() else {
            return Ok(false);
        };
        let count = self.cut(start, length);
        let (file, offset) = self.content_at(start, 0);
        vfs.discard(file, offset, u64::from(count) * BLOCK_SIZE as u64)?;
        self.warm.take(start, count);
        self.warm_slots -= u64::from(count);
        self.cold.insert_run(start, count);
        Ok(true)
    }

    fn content_at(&self, slot: u32, unit: usize) -> (FileId, u64) {
        let file = self.files[(slot / self.per_file) as usize];
        let within = u64::from(slot % self.per_file) * BLOCK_SIZE as u64;
        (file.content, within + (unit * UNIT_SIZE) as u64)
    }

    /// The file that a slot's content is in.
    pub(super) fn content_file(&self, slot: u32) -> FileId {
        self.content_at(slot, 0).0
    }

    /// The file that a slot's line of the slot table is in.
    pub(super) fn table_file(&self, slot: u32) -> FileId {
        self.entry_at(slot).0
    }

    /// Every file of content and of the slot table.
    pub(super) fn files(&self) -> Vec<FileId> {
        let pairs = self.files.iter();
        pairs.flat_map(|file| [file.content, file.table]).collect()
    }

    /// Whether two slots follow each other in one file.
    pub(super) fn adjoins(&self, slot: u32, following: u32) -> bool {
        slot + 1 == following && !following.is_multiple_of(self.per_file)
    }

    /// Writes content from a unit of a slot on; it may run on into the slots behind
    /// it in the same file.
    pub(super) fn write<V: Vfs>(
        &self,
        vfs: &mut V,
        slot: u32,
        unit: usize,
        data: &[u8],
    ) -> VfsResult<()> {
        let (file, offset) = self.content_at(slot, unit);
        vfs.write_at(file, offset, data)
    }

    /// Reads so many bytes of content behind what `buffer` holds; what the file does not
    /// have any more reads as zeros.
    pub(super) fn read<V: Vfs>(
        &self,
        vfs: &mut V,
        (slot, unit): (u32, usize),
        length: usize,
        buffer: &mut BytesMut,
    ) -> VfsResult<()> {
        let (file, offset) = self.content_at(slot, unit);
        let end = buffer.len() + length;
        vfs.read_onto(file, offset, length, buffer)?;
        buffer.resize(end, 0);
        Ok(())
    }

    /// Reads the entries of `into.len()` slots of one file.
    pub(super) fn read_entries<V: Vfs>(
        &self,
        vfs: &mut V,
        slot: u32,
        into: &mut [Result<Entry, FormatError>],
    ) -> VfsResult<()> {
        let mut bytes = vec![0; into.len() * ENTRY_SIZE];
        let (file, offset) = self.entry_at(slot);
        vfs.read_at(file, offset, &mut bytes)?;
        for ((slot, entry), bytes) in (slot..).zip(into).zip(bytes.chunks_exact(ENTRY_SIZE)) {
            *entry = Entry::decode(slot, bytes);
        }
        Ok(())
    }

    /// Writes entries of consecutive slots of one file, encoded one after another.
    pub(super) fn write_entries<V: Vfs>(
        &self,
        vfs: &mut V,
        slot: u32,
        bytes: &[u8],
    ) -> VfsResult<()> {
        let (file, offset) = self.entry_at(slot);
        vfs.write_at(file, offset, bytes)
    }

    fn entry_at(&self, slot: u32) -> (FileId, u64) {
        let file = self.files[(slot / self.per_file) as usize];
        let within = u64::from(slot % self.per_file) * ENTRY_SIZE as u64;
        (file.table, within)
    }

    /// Asserts that each slot is used or free, not both.
    pub(super) fn check_invariants(&self, used: &[u32]) {
        let free = self.warm.slots() + self.cold.slots();
        assert_eq!(self.warm.slots(), self.warm_slots, "warm slots are counted");
        let all = used.len() as u64 + free;
        assert_eq!(all, u64::from(self.next), "every slot is used or free");
        for &slot in used {
            let is_free = self.warm.contains(slot) || self.cold.contains(slot);
            assert!(!is_free, "slot {slot} is used, so it is not free");
        }
    }
}

/// Opens a file, or makes it.
pub(super) fn open_or_create<V: Vfs>(vfs: &mut V, name: &str) -> VfsResult<FileId> {
    match vfs.open(name) {
        Err(VfsError::NotFound(_)) => vfs.create(name),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_runs_merge_and_split() {
        let mut extents = Extents::default();
        for slot in [5, 3, 4, 9, 0] {
            extents.insert(slot);
        }
        let runs: Vec<_> = extents.runs().collect();
        assert_eq!(runs, [(0, 1), (3, 3), (9, 1)]);
        assert_eq!(extents.find(2), Some((3, 3)));
        assert_eq!(
            extents.find(7),
            Some((3, 3)),
            "the longest when none is enough"
        );
        extents.take(3, 2);
        assert_eq!(extents.runs().collect::<Vec<_>>(), [(0, 1), (5, 1), (9, 1)]);
        assert!(extents.contains(5) && !extents.contains(4));
        assert_eq!(extents.slots(), 3);
    }
}
