//! Changing a part's content in memory and in slots that hold nothing committed.
//!
//! A change is planned on copies of the touched blocks (`Edit`), then written,
//! then taken over, so that a corrupt unit or a full disk leaves all as it was.
//! Content that the part already has unsynced in a slot is overwritten last, and
//! goes to memory instead should the disk refuse that.

use super::disk::Disk;
use super::format::{NO_SLOT, units_of};
use super::operation::DiskError;
use super::part::{Block, Part};
use crate::ids::PartId;
use crate::limits::{BLOCK_SIZE, BLOCKS_PER_CHUNK, CHUNK_SIZE, UNIT_SIZE, UNITS_PER_BLOCK};
use crate::vfs::{Vfs, VfsError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// A write of whole units to a slot.
#[derive(Debug)]
struct Placed {
    block: u16,
    slot: u32,
    unit: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Of the request's data.
    Range(Range<usize>),
    Unit(Bytes),
}

/// A planned change of one part.
#[derive(Debug, Default)]
pub(super) struct Edit {
    staged: BTreeMap<u16, Block>,
    writes: Vec<Placed>,
    /// Slots that were taken for it.
    taken: Vec<u32>,
    /// Slots taken at once for blocks to come.
    run: Range<u32>,
    /// How many those are at most.
    blocks_left: u32,
    /// Content went to slots.
    wrote: bool,
    /// Committed content goes.
    dropped: bool,
}

/// The data of a write and the CRCs of its pieces.
pub(super) struct Pieces<'d> {
    pub(super) offset: usize,
    pub(super) data: &'d Bytes,
    pub(super) checksums: &'d [u32],
}

/// One piece: a range of the data that lies in one unit.
struct Piece {
    block: u16,
    unit: usize,
    /// Where in the unit.
    within: usize,
    range: Range<usize>,
    checksum: u32,
}

impl Pieces<'_> {
    fn iter(&self) -> impl Iterator<Item = Piece> {
        let mut start = 0;
        self.checksums.iter().map_while(move |&checksum| {
            let at = self.offset + start;
            let within = at % UNIT_SIZE;
            let end = (start + UNIT_SIZE - within).min(self.data.len());
            let range = start..end;
            start = end;
            (!range.is_empty()).then(|| Piece {
                block: block_at(at),
                unit: at / UNIT_SIZE % UNITS_PER_BLOCK,
                within,
                range,
                checksum,
            })
        })
    }

    /// Whether every piece has its CRC, and the right one.
    fn verify(&self) -> bool {
        let end = self.offset + self.data.len();
        let pieces = end.div_ceil(UNIT_SIZE) - self.offset / UNIT_SIZE;
        let right = |piece: Piece| crc32fast::hash(&self.data[piece.range]) == piece.checksum;
        let count = if self.data.is_empty() { 0 } else { pieces };
        self.checksums.len() == count && self.iter().all(right)
    }

    fn covers(&self, block: u16) -> bool {
        let start = usize::from(block) * BLOCK_SIZE;
        self.offset <= start && self.offset + self.data.len() >= start + BLOCK_SIZE
    }

    fn blocks(&self) -> u32 {
        let end = self.offset + self.data.len();
        let blocks = end.div_ceil(BLOCK_SIZE) - self.offset / BLOCK_SIZE;
        u32::try_from(blocks).expect("a chunk has few blocks")
    }
}

fn block_at(offset: usize) -> u16 {
    assert!((offset as u64) < CHUNK_SIZE, "within the chunk");
    u16::try_from(offset / BLOCK_SIZE).expect("a chunk has 1024 blocks")
}

impl<V: Vfs> Disk<V> {
    /// Drops everything from `drop_from` on, then writes. Whether committed content was
    /// dropped. Fails without a change.
    pub(super) fn write(
        &mut self,
        id: PartId,
        part: &mut Part,
        drop_from: Option<u32>,
        pieces: &Pieces<'_>,
    ) -> Result<bool, DiskError> {
        let end = pieces.offset as u64 + pieces.data.len() as u64;
        assert!(end <= CHUNK_SIZE, "a write lies within its chunk");
        if !pieces.verify() {
            return Err(DiskError::Mismatch);
        }
        let mut edit = Edit::default();
        let planned = self.plan_write(id, part, &mut edit, drop_from, pieces);
        let dropped = edit.dropped;
        self.finish_edit(part, edit, planned, pieces.data)?;
        Ok(dropped)
    }

    fn plan_write(
        &mut self,
        id: PartId,
        part: &Part,
        edit: &mut Edit,
        drop_from: Option<u32>,
        pieces: &Pieces<'_>,
    ) -> Result<(), DiskError> {
        if let Some(from) = drop_from {
            self.plan_zero(id, part, edit, from as usize..CHUNK_SIZE as usize)?;
            let first = block_at((from as usize).min(CHUNK_SIZE as usize - 1));
            edit.dropped = part.has_changed(first) || self.is_cut(id, part, edit)?;
        }
        let small = self.is_small(part, pieces.data.len());
        edit.blocks_left = pieces.blocks();
        let mut current: Option<(u16, Block)> = None;
        for piece in pieces.iter() {
            let begun = current.as_ref().map(|(block, _)| *block);
            if begun != Some(piece.block) {
                edit.put_back(current.take());
                let covered = pieces.covers(piece.block);
                let state = self.begin_block(id, part, edit, piece.block, covered, small)?;
                current = Some((piece.block, state));
                edit.blocks_left -= 1;
            }
            let (_, state) = current.as_mut().expect("a block was begun");
            self.plan_piece(part, edit, state, pieces, &piece, small)?;
        }
        edit.put_back(current);
        Ok(())
    }

    /// Whether committed blocks lose content by what was staged.
    fn is_cut(&mut self, id: PartId, part: &Part, edit: &Edit) -> Result<bool, DiskError> {
        for (&block, after) in &edit.staged {
            if part.committed_slot(block).is_none() {
                continue;
            }
            if after.present == 0 {
                return Ok(true);
            }
            let before = self.block(id, part, block)?;
            let same = |unit: usize| before.checksums[unit] == after.checksums[unit];
            let kept = (0..UNITS_PER_BLOCK)
                .filter(|unit| after.has(*unit))
                .all(same);
            if before.present != after.present || !kept {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a write of `length` bytes is kept in memory until the commit.
    fn is_small(&self, part: &Part, length: usize) -> bool {
        let tuning = &self.tuning;
        length <= tuning.small_write
            && part.memory_bytes() + length <= tuning.part_memory
            && self.memory + length <= tuning.disk_memory
    }

    /// The block as the edit has it, with a slot. One that is covered need not be
    /// readable, and what goes straight over committed content gets a fresh slot.
    fn begin_block(
        &mut self,
        id: PartId,
        part: &Part,
        edit: &mut Edit,
        block: u16,
        covered: bool,
        small: bool,
    ) -> Result<Block, DiskError> {
        let mut state = match (covered, edit.staged.remove(&block)) {
            (_, Some(state)) => state,
            (true, None) => self.block_to_replace(part, block),
            (false, None) => self.block(id, part, block)?,
        };
        if covered && !small && state.locked != 0 {
            state = Block::empty();
        }
        if state.slot == NO_SLOT {
            state.slot = self.take_slot(edit)?;
        }
        Ok(state)
    }

    /// A block that is about to be overwritten whole.
    fn block_to_replace(&self, part: &Part, block: u16) -> Block {
        if let Some(changed) = part.changed(block) {
            return changed.clone();
        }
        let mut state = Block::empty();
        if let Some(slot) = part.committed_slot(block) {
            // Any unit may hold committed content.
            (state.slot, state.locked) = (slot, u16::MAX);
        }
        state
    }

    fn plan_piece(
        &mut self,
        part: &Part,
        edit: &mut Edit,
        state: &mut Block,
        pieces: &Pieces<'_>,
        piece: &Piece,
        small: bool,
    ) -> Result<(), DiskError> {
        let (unit, whole) = (piece.unit, piece.range.len() == UNIT_SIZE);
        if state.is_locked(unit) && !small && !self.may_remember(part, edit, state) {
            self.relocate(edit, piece.block, state)?;
        }
        let straight = !small && !state.is_locked(unit);
        if whole && straight {
            edit.place(
                piece.block,
                state,
                unit,
                Content::Range(piece.range.clone()),
                piece.checksum,
            );
            return Ok(());
        }
        let (content, checksum) = match whole {
            true => (self.keep(pieces.data, piece), piece.checksum),
            false => self.merge(edit, state, pieces.data, piece)?,
        };
        match straight {
            true => edit.place(piece.block, state, unit, Content::Unit(content), checksum),
            false => state.remember(unit, content, checksum),
        }
        Ok(())
    }

    /// A slice of the data, or a copy where a slice would keep much else alive.
    fn keep(&self, data: &Bytes, piece: &Piece) -> Bytes {
        match data.len() <= self.tuning.small_write {
            true => data.slice(piece.range.clone()),
            false => Bytes::copy_from_slice(&data[piece.range.clone()]),
        }
    }

    /// The whole unit that a piece of it makes with what is there.
    fn merge(
        &mut self,
        edit: &Edit,
        state: &Block,
        data: &Bytes,
        piece: &Piece,
    ) -> Result<(Bytes, u32), DiskError> {
        // What this same edit placed straight is not in its slot yet.
        let base = match edit.placed_in(piece.block, state.slot, piece.unit) {
            Some(Content::Unit(content)) => content,
            Some(Content::Range(range)) => data.slice(range),
            None => self.unit(piece.block, state, piece.unit)?,
        };
        let mut content = base.to_vec();
        content[piece.within..piece.within + piece.range.len()]
            .copy_from_slice(&data[piece.range.clone()]);
        let checksum = crc32fast::hash(&content);
        Ok((content.into(), checksum))
    }

    /// Whether one more unit that can't go straight may be kept in memory.
    fn may_remember(&self, part: &Part, edit: &Edit, state: &Block) -> bool {
        let staged = edit.staged.values().map(Block::memory_bytes).sum::<usize>();
        let more = staged + state.memory_bytes() + UNIT_SIZE;
        part.memory_bytes() + more <= self.tuning.part_memory_locked
            && self.memory + more <= self.tuning.disk_memory
    }

    /// Moves a block to a slot of its own, where every unit may go straight.
    fn relocate(
        &mut self,
        edit: &mut Edit,
        block: u16,
        state: &mut Block,
    ) -> Result<(), DiskError> {
        let slot = self.take_slot(edit)?;
        let mut moved = Block {
            slot,
            ..Block::empty()
        };
        for unit in units_of(state.present) {
            // A unit that this same edit placed straight is not in its slot yet.
            let content = match edit.placed_in(block, state.slot, unit) {
                Some(content) => content,
                None => Content::Unit(self.unit(block, state, unit)?),
            };
            edit.place(block, &mut moved, unit, content, state.checksums[unit]);
        }
        edit.writes
            .retain(|write| write.block != block || write.slot == slot);
        *state = moved;
        Ok(())
    }

    /// Makes a range read as zeros. Fails without a change.
    pub(super) fn zero(
        &mut self,
        id: PartId,
        part: &mut Part,
        offset: usize,
        length: usize,
    ) -> Result<(), DiskError> {
        let mut edit = Edit::default();
        let planned = self.plan_zero(id, part, &mut edit, offset..offset + length);
        self.finish_edit(part, edit, planned, &Bytes::new())
    }

    fn plan_zero(
        &mut self,
        id: PartId,
        part: &Part,
        edit: &mut Edit,
        range: Range<usize>,
    ) -> Result<(), DiskError> {
        let first = u16::try_from(range.start / BLOCK_SIZE).expect("within the chunk");
        let end = u16::try_from(range.end.div_ceil(BLOCK_SIZE)).expect("within the chunk");
        assert!(
            u32::from(end) <= BLOCKS_PER_CHUNK,
            "a range lies within its chunk"
        );
        for block in part.blocks_in(first, end) {
            let start = usize::from(block) * BLOCK_SIZE;
            let from = range.start.max(start) - start;
            let to = range.end.min(start + BLOCK_SIZE) - start;
            let state = match to - from == BLOCK_SIZE {
                true => Block::empty(),
                false => self.zero_in_block(id, part, block, from..to)?,
            };
            edit.staged.insert(block, state);
        }
        Ok(())
    }

    fn zero_in_block(
        &mut self,
        id: PartId,
        part: &Part,
        block: u16,
        range: Range<usize>,
    ) -> Result<Block, DiskError> {
        let mut state = self.block(id, part, block)?;
        for unit in range.start / UNIT_SIZE..range.end.div_ceil(UNIT_SIZE) {
            let start = unit * UNIT_SIZE;
            let from = range.start.max(start) - start;
            let to = range.end.min(start + UNIT_SIZE) - start;
            if !state.has(unit) {
                continue;
            }
            if to - from == UNIT_SIZE {
                state.clear(unit);
                continue;
            }
            let mut content = self.unit(block, &state, unit)?.to_vec();
            content[from..to].fill(0);
            let checksum = crc32fast::hash(&content);
            state.remember(unit, content.into(), checksum);
        }
        Ok(state)
    }

    fn take_slot(&mut self, edit: &mut Edit) -> Result<u32, DiskError> {
        if edit.run.is_empty() {
            let want = edit.blocks_left.max(1);
            let taken = self.slots.allocate(&mut self.vfs, want);
            let (start, length) = taken.map_err(|error| self.fault(error))?;
            edit.run = start..start + length;
        }
        let slot = edit.run.next().expect("a run is not empty");
        edit.taken.push(slot);
        Ok(slot)
    }

    /// Carries out what was planned, or undoes the planning.
    fn finish_edit(
        &mut self,
        part: &mut Part,
        mut edit: Edit,
        planned: Result<(), DiskError>,
        data: &Bytes,
    ) -> Result<(), DiskError> {
        assert!(
            !part.committing,
            "a part is not changed while it is committed"
        );
        let done = planned.and_then(|()| self.carry_out(part, &mut edit, data));
        for slot in edit.run.clone() {
            self.slots.free(slot);
        }
        match done {
            Ok(()) => self.take_over(part, edit),
            Err(error) => {
                edit.taken.iter().for_each(|&slot| self.slots.free(slot));
                return Err(error);
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, part: &Part, edit: &mut Edit, data: &Bytes) -> Result<(), DiskError> {
        let writes = std::mem::take(&mut edit.writes);
        edit.wrote = !writes.is_empty();
        let (last, first): (Vec<Placed>, Vec<Placed>) =
            writes.into_iter().partition(|write| write.overwrites(part));
        let mut rest = first.as_slice();
        while let Some(write) = rest.first() {
            let run = self.contiguous(rest);
            let written = match &write.content {
                Content::Unit(content) => self.put(write, content),
                Content::Range(range) => {
                    let end = rest[run - 1].range_end();
                    self.put(write, &data[range.start..end])
                }
            };
            written.map_err(|error| self.fault(error))?;
            rest = &rest[run..];
        }
        for write in last {
            self.overwrite(edit, write, data)?;
        }
        Ok(())
    }

    /// How many writes from the first on are one range of the data that goes to one
    /// range of a file.
    fn contiguous(&self, writes: &[Placed]) -> usize {
        let follows = |pair: &[Placed]| match (&pair[0].content, &pair[1].content) {
            (Content::Range(left), Content::Range(right)) => {
                left.end == right.start
                    && pair[0].end_unit() == UNITS_PER_BLOCK
                    && pair[1].unit == 0
                    && self.slots.adjoins(pair[0].slot, pair[1].slot)
            }
            _ => false,
        };
        1 + writes.windows(2).take_while(|pair| follows(pair)).count()
    }

    fn put(&mut self, write: &Placed, content: &[u8]) -> Result<(), VfsError> {
        self.slots
            .write(&mut self.vfs, write.slot, write.unit, content)
    }

    /// Overwrites unsynced content; on a full disk the new content stays in memory.
    fn overwrite(&mut self, edit: &mut Edit, write: Placed, data: &Bytes) -> Result<(), DiskError> {
        let content = match &write.content {
            Content::Unit(content) => content.clone(),
            Content::Range(range) => data.slice(range.clone()),
        };
        match self.put(&write, &content) {
            Err(VfsError::Full) => {
                let state = edit
                    .staged
                    .get_mut(&write.block)
                    .expect("its block is staged");
                for (at, piece) in content.chunks(UNIT_SIZE).enumerate() {
                    let unit = write.unit + at;
                    let checksum = state.checksums[unit];
                    state.remember(unit, Bytes::copy_from_slice(piece), checksum);
                }
                Ok(())
            }
            other => other.map_err(|error| self.fault(error)),
        }
    }

    /// Makes the staged blocks the part's.
    fn take_over(&mut self, part: &mut Part, edit: Edit) {
        let mut unused = edit.taken;
        let dirty = part.dirty_mut();
        dirty.homeless = false;
        if edit.wrote {
            dirty.stamp = self.next_stamp();
        }
        let Part {
            slots: committed,
            dirty,
            ..
        } = part;
        let dirty = dirty.as_mut().expect("changes were begun");
        for (block, mut state) in edit.staged {
            let before = dirty.blocks.remove(&block);
            if state.present == 0 {
                state = Block::empty();
            }
            if let Some(before) = before {
                dirty.memory -= before.memory_bytes();
                self.memory -= before.memory_bytes();
                if before.slot != NO_SLOT && Some(before.slot) != committed.at(block) {
                    unused.push(before.slot);
                }
            }
            unused.retain(|&slot| slot != state.slot);
            if state.slot == NO_SLOT && committed.at(block).is_none() {
                continue;
            }
            dirty.memory += state.memory_bytes();
            self.memory += state.memory_bytes();
            dirty.blocks.insert(block, state);
        }
        unused.into_iter().for_each(|slot| self.slots.free(slot));
    }
}

impl Edit {
    fn put_back(&mut self, block: Option<(u16, Block)>) {
        if let Some((block, state)) = block {
            self.staged.insert(block, state);
        }
    }

    /// Plans a write of one unit, joined with the one before if they adjoin.
    fn place(
        &mut self,
        block: u16,
        state: &mut Block,
        unit: usize,
        content: Content,
        checksum: u32,
    ) {
        state.note_straight(unit, checksum);
        let slot = state.slot;
        if let (Some(last), Content::Range(range)) = (self.writes.last_mut(), &content)
            && last.is_before(slot, unit)
            && let Content::Range(before) = &mut last.content
            && before.end == range.start
        {
            before.end = range.end;
            return;
        }
        self.writes.push(Placed {
            block,
            slot,
            unit,
            content,
        });
    }

    /// What this edit is about to write to a unit.
    fn placed_in(&self, block: u16, slot: u32, unit: usize) -> Option<Content> {
        let holds = |write: &&Placed| {
            write.block == block
                && write.slot == slot
                && (write.unit..write.end_unit()).contains(&unit)
        };
        let write = self.writes.iter().rev().find(holds)?;
        Some(match &write.content {
            Content::Unit(content) => Content::Unit(content.clone()),
            Content::Range(range) => {
                let start = range.start + (unit - write.unit) * UNIT_SIZE;
                Content::Range(start..start + UNIT_SIZE)
            }
        })
    }
}

impl Placed {
    fn range_end(&self) -> usize {
        match &self.content {
            Content::Range(range) => range.end,
            Content::Unit(_) => unreachable!("only ranges are joined"),
        }
    }

    fn end_unit(&self) -> usize {
        self.unit
            + match &self.content {
                Content::Range(range) => range.len() / UNIT_SIZE,
                Content::Unit(_) => 1,
            }
    }

    fn is_before(&self, slot: u32, unit: usize) -> bool {
        self.slot == slot && self.end_unit() == unit
    }

    /// Whether it replaces content that the part has there unsynced.
    fn overwrites(&self, part: &Part) -> bool {
        let before = part.changed(self.block);
        let mut units = self.unit..self.end_unit();
        before.is_some_and(|before| {
            before.slot == self.slot && units.any(|unit| before.straight >> unit & 1 == 1)
        })
    }
}
