//! A part in memory: where its committed blocks are, and what changed since.
//!
//! Owns the shape alone; the store moves parts from state to state. Invariant:
//! a unit that the last commit has in a slot is `locked` there: its bytes are not
//! touched in place before the next commit is durable.

use super::format::{Entry, NO_SLOT, units_of};
use super::geometry::StripeShape;
use crate::ids::{ChunkVersion, Epoch, PartId};
use crate::limits::{UNIT_SIZE, UNITS_PER_BLOCK};
use bytes::Bytes;
use std::collections::BTreeMap;

/// One part of a chunk on this disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub(super) version: ChunkVersion,
    pub(super) epoch: Epoch,
    /// Of what stripe it is a part; set when it is made, `None` for a whole copy.
    pub(super) stripe: Option<StripeShape>,
    /// The blocks of the last commit.
    pub(super) slots: Slots,
    /// The units that they have.
    pub(super) units: Units,
    /// What changed since; `None`: nothing.
    pub(super) dirty: Option<Box<Dirty>>,
    /// A commit of it is under way: it may be read, not changed.
    pub(super) committing: bool,
}

/// What changed in a part since its last commit.
#[derive(Clone, Debug, Default)]
pub(super) struct Dirty {
    /// Version and epoch of the last commit; `None`: there was none.
    pub(super) durable: Option<(ChunkVersion, Epoch)>,
    /// The blocks that changed.
    pub(super) blocks: BTreeMap<u16, Block>,
    /// Bytes kept in memory.
    pub(super) memory: usize,
    /// When content last went straight to a slot, in the disk's count.
    pub(super) stamp: u64,
    /// Nothing changed since the commit: its units are in the journal, and wait
    /// here because the disk had no space for them in their places.
    pub(super) homeless: bool,
}

/// A block as the next commit will have it.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) slot: u32,
    pub(super) present: u16,
    /// Units of the slot that hold committed content.
    pub(super) locked: u16,
    /// Units whose content in the slot is newer than the last commit.
    pub(super) straight: u16,
    pub(super) checksums: [u32; UNITS_PER_BLOCK],
    /// Units whose content is here, in order.
    pub(super) memory: Vec<(u8, Bytes)>,
}

impl Block {
    /// A block without content.
    pub(super) fn empty() -> Self {
        Self {
            slot: NO_SLOT,
            present: 0,
            locked: 0,
            straight: 0,
            checksums: [0; UNITS_PER_BLOCK],
            memory: Vec::new(),
        }
    }

    /// A block as it was committed.
    pub(super) fn committed(slot: u32, entry: &Entry) -> Self {
        Self {
            slot,
            present: entry.present,
            locked: entry.present,
            straight: 0,
            checksums: entry.checksums,
            memory: Vec::new(),
        }
    }

    pub(super) fn has(&self, unit: usize) -> bool {
        self.present >> unit & 1 == 1
    }

    pub(super) fn is_locked(&self, unit: usize) -> bool {
        self.locked >> unit & 1 == 1
    }

    /// The unit's content, if it is in memory.
    pub(super) fn in_memory(&self, unit: usize) -> Option<&Bytes> {
        let at = self.memory.iter().find(|(at, _)| usize::from(*at) == unit);
        at.map(|(_, content)| content)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.len() * UNIT_SIZE
    }

    /// Takes a unit out of wherever it is.
    pub(super) fn clear(&mut self, unit: usize) {
        self.present &= !(1 << unit);
        self.straight &= !(1 << unit);
        self.memory.retain(|(at, _)| usize::from(*at) != unit);
    }

    /// Puts a unit's content into memory.
    pub(super) fn remember(&mut self, unit: usize, content: Bytes, checksum: u32) {
        assert_eq!(content.len(), UNIT_SIZE, "units are whole");
        self.clear(unit);
        self.present |= 1 << unit;
        self.checksums[unit] = checksum;
        let unit = u8::try_from(unit).expect("a block has few units");
        let at = self.memory.partition_point(|(before, _)| *before < unit);
        self.memory.insert(at, (unit, content));
    }

    /// Notes that a unit's content is in the slot, newer than the last commit.
    pub(super) fn note_straight(&mut self, unit: usize, checksum: u32) {
        assert!(
            !self.is_locked(unit),
            "committed content is not touched in place"
        );
        self.clear(unit);
        self.present |= 1 << unit;
        self.straight |= 1 << unit;
        self.checksums[unit] = checksum;
    }

    /// Its line in the slot table.
    pub(super) fn entry(&self, part: PartId, block: u16) -> Entry {
        let mut checksums = [0; UNITS_PER_BLOCK];
        for unit in units_of(self.present) {
            checksums[unit] = self.checksums[unit];
        }
        Entry {
            part,
            block,
            present: self.present,
            checksums,
        }
    }
}

impl Part {
    /// Takes a block over as a commit has it, and returns the slot that it had.
    pub(super) fn place(&mut self, block: u16, slot: u32, present: u16) -> Option<u32> {
        self.units.set(block, present);
        self.slots.set(block, slot)
    }

    /// The slot of the last commit.
    pub(super) fn committed_slot(&self, block: u16) -> Option<u32> {
        self.slots.at(block)
    }

    /// What the last commit has, if there was one.
    pub(super) fn durable(&self) -> Option<(ChunkVersion, Epoch)> {
        match &self.dirty {
            None => Some((self.version, self.epoch)),
            Some(dirty) => dirty.durable,
        }
    }

    /// The changes, begun if there are none.
    pub(super) fn dirty_mut(&mut self) -> &mut Dirty {
        let durable = Some((self.version, self.epoch));
        self.dirty.get_or_insert_with(|| {
            Box::new(Dirty {
                durable,
                ..Dirty::default()
            })
        })
    }

    /// Sets version and epoch, for the next commit.
    pub(super) fn raise(&mut self, version: ChunkVersion, epoch: Epoch) {
        if (self.version, self.epoch) != (version, epoch) {
            self.dirty_mut().homeless = false;
            (self.version, self.epoch) = (version, epoch);
        }
    }

    pub(super) fn changed(&self, block: u16) -> Option<&Block> {
        self.dirty
            .as_ref()
            .and_then(|dirty| dirty.blocks.get(&block))
    }

    /// Whether blocks from one on changed since the commit that has them: it may hold more
    /// than can be seen.
    pub(super) fn has_changed(&self, first: u16) -> bool {
        let dirty = self.dirty.as_ref().filter(|dirty| !dirty.homeless);
        dirty.is_some_and(|dirty| {
            let mut blocks = dirty.blocks.range(first..);
            blocks.any(|(&block, _)| self.committed_slot(block).is_some())
        })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.dirty.as_ref().map_or(0, |dirty| dirty.memory)
    }

    /// The blocks in a range that have content, now or at the last commit.
    pub(super) fn blocks_in(&self, first: u16, end: u16) -> Vec<u16> {
        let mut blocks: Vec<u16> = self.slots.blocks_in(first, end).collect();
        if let Some(dirty) = &self.dirty {
            blocks.extend(dirty.blocks.range(first..end).map(|(&block, _)| block));
            blocks.sort_unstable();
            blocks.dedup();
        }
        blocks
    }

    /// One more than the last block that may have content.
    pub(super) fn end_block(&self) -> u16 {
        let dirty = self
            .dirty
            .as_ref()
            .and_then(|dirty| dirty.blocks.last_key_value());
        let changed = dirty.map_or(0, |(&block, _)| block + 1);
        changed.max(self.slots.end())
    }

    /// Every slot that the part has, committed or not.
    pub(super) fn all_slots(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = self.slots.iter().map(|(_, slot)| slot).collect();
        if let Some(dirty) = &self.dirty {
            let changed = dirty.blocks.values().map(|block| block.slot);
            slots.extend(changed.filter(|&slot| slot != NO_SLOT));
            slots.sort_unstable();
            slots.dedup();
        }
        slots
    }
}

/// The slots of a part's blocks: most files are small, so one is kept inline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Slots {
    #[default]
    None,
    /// Block 0 alone.
    One(u32),
    /// By block.
    Many(Vec<u32>),
}

impl Slots {
    pub(super) fn at(&self, block: u16) -> Option<u32> {
        let slot = match self {
            Self::None => None,
            Self::One(slot) => (block == 0).then_some(*slot),
            Self::Many(slots) => slots.get(usize::from(block)).copied(),
        };
        slot.filter(|&slot| slot != NO_SLOT)
    }

    /// Sets a block's slot and returns the one that it had.
    pub(super) fn set(&mut self, block: u16, slot: u32) -> Option<u32> {
        let before = self.at(block);
        match self {
            Self::None if slot == NO_SLOT => {}
            Self::None | Self::One(_) if block == 0 && slot != NO_SLOT => *self = Self::One(slot),
            Self::One(_) if block == 0 => *self = Self::None,
            Self::One(_) if slot == NO_SLOT => {}
            _ => self.set_many(block, slot),
        }
        before
    }

    fn set_many(&mut self, block: u16, slot: u32) {
        let mut slots = match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(first) => vec![first],
            Self::Many(slots) => slots,
        };
        if slots.len() <= usize::from(block) {
            slots.resize(usize::from(block) + 1, NO_SLOT);
        }
        slots[usize::from(block)] = slot;
        let length = slots
            .iter()
            .rposition(|&slot| slot != NO_SLOT)
            .map_or(0, |last| last + 1);
        slots.truncate(length);
        *self = match slots.as_slice() {
            [] => Self::None,
            [first] => Self::One(*first),
            _ => Self::Many(slots),
        };
    }

    /// Blocks with their slots, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u32)> {
        let slots = match self {
            Self::None => &[],
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Many(slots) => slots.as_slice(),
        };
        (0u16..)
            .zip(slots.iter().copied())
            .filter(|(_, slot)| *slot != NO_SLOT)
    }

    fn blocks_in(&self, first: u16, end: u16) -> impl Iterator<Item = u16> {
        let within = move |block: &u16| (first..end).contains(block);
        self.iter().map(|(block, _)| block).filter(within)
    }

    /// One more than the last block.
    pub(super) fn end(&self) -> u16 {
        match self {
            Self::None => 0,
            Self::One(_) => 1,
            Self::Many(slots) => u16::try_from(slots.len()).expect("a chunk has 1024 blocks"),
        }
    }
}

/// Which units the committed blocks of a part have, so that a line of the slot table of
/// before can be told from the last one. Most blocks have them all, and most files are
/// small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Units {
    /// All of every block.
    #[default]
    All,
    /// All but of block 0, which is named with those that it has.
    First((u16, u16)),
    /// All but of these blocks, in order.
    Some(Vec<(u16, u16)>),
    /// Nobody told: the part is as a table has it that does not say.
    Untold,
}

impl Units {
    /// Sets the units of a block; none for one that is not there.
    pub(super) fn set(&mut self, block: u16, present: u16) {
        let is_partial = present != 0 && present != u16::MAX;
        match self {
            Self::Untold => {}
            Self::All | Self::First(_) if block == 0 && is_partial => {
                *self = Self::First((0, present))
            }
            Self::First(_) if block == 0 => *self = Self::All,
            Self::All | Self::First(_) if !is_partial => {}
            _ => self.set_some(block, Some(present).filter(|_| is_partial)),
        }
    }

    fn set_some(&mut self, block: u16, present: Option<u16>) {
        let mut blocks = match std::mem::take(self) {
            Self::First(first) => vec![first],
            Self::Some(blocks) => blocks,
            Self::All | Self::Untold => Vec::new(),
        };
        let place = blocks.binary_search_by_key(&block, |(block, _)| *block);
        match (place, present) {
            (Ok(at), Some(present)) => blocks[at].1 = present,
            (Ok(at), None) => {
                blocks.remove(at);
            }
            (Err(at), Some(present)) => blocks.insert(at, (block, present)),
            (Err(_), None) => {}
        }
        *self = match blocks.as_slice() {
            [] => Self::All,
            [first @ (0, _)] => Self::First(*first),
            _ => Self::Some(blocks),
        };
    }

    /// Whether these may be the units of a block that is there.
    pub(super) fn admits(&self, block: u16, present: u16) -> bool {
        let partial = self.partial();
        let place = partial.binary_search_by_key(&block, |(block, _)| *block);
        let known = place.map_or(u16::MAX, |at| partial[at].1);
        *self == Self::Untold || known == present
    }

    /// The blocks that lack some, in order, with those that they have.
    pub(super) fn partial(&self) -> &[(u16, u16)] {
        match self {
            Self::All | Self::Untold => &[],
            Self::First(first) => std::slice::from_ref(first),
            Self::Some(blocks) => blocks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_keep_what_was_set() {
        let mut units = Units::All;
        assert!(units.admits(0, u16::MAX) && !units.admits(0, 1));
        units.set(0, 1);
        assert_eq!(units, Units::First((0, 1)));
        units.set(7, 3);
        units.set(3, u16::MAX);
        assert_eq!(units, Units::Some(vec![(0, 1), (7, 3)]));
        assert!(units.admits(7, 3) && units.admits(3, u16::MAX) && !units.admits(0, 3));
        units.set(7, 0);
        assert_eq!(units, Units::First((0, 1)));
        units.set(0, u16::MAX);
        assert_eq!(units, Units::All);
        units = Units::Untold;
        units.set(0, 1);
        assert!(units.admits(0, 7), "what is not known can't be wrong");
    }

    #[test]
    fn slots_keep_what_was_set() {
        let mut slots = Slots::None;
        assert_eq!(slots.set(0, 7), None);
        assert_eq!(slots, Slots::One(7));
        assert_eq!(slots.set(3, 9), None);
        assert_eq!(slots.set(0, 8), Some(7));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(0, 8), (3, 9)]);
        assert_eq!((slots.at(1), slots.at(3), slots.end()), (None, Some(9), 4));
        assert_eq!(slots.set(3, NO_SLOT), Some(9));
        assert_eq!(slots, Slots::One(8));
        assert_eq!(slots.set(5, NO_SLOT), None);
        assert_eq!(slots.set(0, NO_SLOT), Some(8));
        assert_eq!(slots, Slots::None);
        slots.set(2, 1);
        assert_eq!(slots.set(0, 4), None);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(0, 4), (2, 1)]);
    }
}
