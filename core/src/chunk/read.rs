//! Reading a part: whole units, verified, in as few file reads as they allow.
//!
//! Invariant: what is returned had the right CRC a moment ago; absent units are
//! zeros and say so.

use super::disk::{Disk, corrupt};
use super::format::{Entry, FormatError, NO_SLOT, units_of};
use super::operation::DiskError;
use super::part::{Block, Part};
use crate::hash::Digest;
use crate::ids::PartId;
use crate::limits::{BLOCK_SIZE, CHUNK_SIZE, UNIT_SIZE, UNITS_PER_BLOCK};
use crate::vfs::Vfs;
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// Reads from a page cache are several times slower into memory that lies a few
/// bytes behind a page's start, where large allocations do.
const PAGE: usize = 4096;

/// What absent units read as, up to the length of the usual reads. Never written to.
static ABSENT: Zeros = Zeros([0; 1 << 20]);

#[repr(align(4096))]
struct Zeros([u8; 1 << 20]);

const _: () = assert!(align_of::<Zeros>() == PAGE, "as a buffer is aligned");

/// Verified units.
#[derive(Debug)]
pub(super) struct Units {
    pub(super) data: Bytes,
    pub(super) checksums: Vec<u32>,
    pub(super) present: Vec<u8>,
}

/// A block as it reads now.
enum View<'p> {
    Changed(&'p Block),
    Committed(u32, Entry),
    Absent,
}

impl View<'_> {
    fn slot(&self) -> u32 {
        match self {
            Self::Changed(block) => block.slot,
            Self::Committed(slot, _) => *slot,
            Self::Absent => NO_SLOT,
        }
    }

    fn present(&self) -> u16 {
        match self {
            Self::Changed(block) => block.present,
            Self::Committed(_, entry) => entry.present,
            Self::Absent => 0,
        }
    }

    fn checksum(&self, unit: usize) -> u32 {
        match self {
            Self::Changed(block) => block.checksums[unit],
            Self::Committed(_, entry) => entry.checksums[unit],
            Self::Absent => unreachable!("an absent block has no units"),
        }
    }

    fn in_memory(&self, unit: usize) -> Option<&Bytes> {
        match self {
            Self::Changed(block) => block.in_memory(unit),
            _ => None,
        }
    }
}

/// Units that lie one after another both in the part and in a file.
struct Run {
    block: u16,
    slot: u32,
    unit: usize,
    /// Where in the buffer.
    target: Range<usize>,
}

impl<V: Vfs> Disk<V> {
    /// Reads a range of whole units.
    pub(super) fn read(
        &mut self,
        id: PartId,
        part: &Part,
        offset: usize,
        length: usize,
    ) -> Result<Units, DiskError> {
        let end = offset + length;
        assert!(end as u64 <= CHUNK_SIZE, "a read lies within its chunk");
        assert!(
            offset.is_multiple_of(UNIT_SIZE) && length.is_multiple_of(UNIT_SIZE),
            "whole units"
        );
        let blocks = offset / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE);
        let views = self.views(id, part, block_range(blocks))?;
        let units = Window {
            views: &views,
            offset,
            length,
        };
        let runs = units.runs(|slot, following| self.slots.adjoins(slot, following));
        let data = match units.is_absent() && length <= ABSENT.0.len() {
            true => Bytes::from_static(&ABSENT.0[..length]),
            false => {
                let mut buffer = aligned(length);
                for run in runs {
                    buffer.resize(run.target.start, 0);
                    let place = (run.slot, run.unit);
                    self.read_slot(run.block, place, run.target.len(), &mut buffer)?;
                }
                buffer.resize(length, 0);
                units.copy_memory(&mut buffer);
                buffer.freeze()
            }
        };
        let checksums = units.verify(&data, self.zero_checksum())?;
        Ok(Units {
            present: units.present_bits(),
            data,
            checksums,
        })
    }

    /// How each block of a range reads now; entries of consecutive slots at once.
    fn views<'p>(
        &mut self,
        id: PartId,
        part: &'p Part,
        blocks: Range<u16>,
    ) -> Result<Vec<View<'p>>, DiskError> {
        let mut views = Vec::with_capacity(blocks.len());
        let mut block = blocks.start;
        while block < blocks.end {
            if let Some(changed) = part.changed(block) {
                views.push(View::Changed(changed));
                block += 1;
                continue;
            }
            let Some(slot) = part.committed_slot(block) else {
                views.push(View::Absent);
                block += 1;
                continue;
            };
            let mut entries =
                vec![Err(FormatError::Short); self.consecutive(part, slot, block..blocks.end)];
            self.entries(id, part, (block, slot), &mut entries)?;
            for (slot, entry) in (slot..).zip(&entries) {
                let entry = entry.expect("a bad entry is an error above");
                views.push(View::Committed(slot, entry));
                block += 1;
            }
        }
        Ok(views)
    }

    /// How many unchanged blocks from the first on lie in consecutive slots.
    fn consecutive(&self, part: &Part, slot: u32, blocks: Range<u16>) -> usize {
        let mut last = slot;
        let follows = |block: &u16| {
            let next = part
                .committed_slot(*block)
                .filter(|_| part.changed(*block).is_none());
            let adjoins = next.is_some_and(|next| self.slots.adjoins(last, next));
            last += 1;
            adjoins
        };
        1 + (blocks.start + 1..blocks.end).take_while(follows).count()
    }

    /// The present units, one bit each, up to the last block that has any.
    pub(super) fn map(&mut self, id: PartId, part: &Part) -> Result<Vec<u8>, DiskError> {
        let views = self.views(id, part, 0..part.end_block())?;
        let bits = views.iter().flat_map(|view| view.present().to_le_bytes());
        let mut bits: Vec<u8> = bits.collect();
        while bits.ends_with(&[0, 0]) {
            bits.truncate(bits.len() - 2);
        }
        Ok(bits)
    }

    /// A digest of which units are present and of their CRCs.
    pub(super) fn digest(&mut self, id: PartId, part: &Part) -> Result<u64, DiskError> {
        let views = self.views(id, part, 0..part.end_block())?;
        let mut digest = Digest::default();
        for (block, view) in views.iter().enumerate() {
            for unit in units_of(view.present()) {
                let number = (block * UNITS_PER_BLOCK + unit) as u64;
                digest.word(number << 32 | u64::from(view.checksum(unit)));
            }
        }
        Ok(digest.finish())
    }
}

/// A range of units over the views of its blocks.
struct Window<'v, 'p> {
    views: &'v [View<'p>],
    offset: usize,
    length: usize,
}

impl<'v, 'p> Window<'v, 'p> {
    /// Each unit of the range: its block, its number there, its place in the buffer.
    fn units(&self) -> impl Iterator<Item = (u16, &'v View<'p>, usize, usize)> {
        let first = self.offset / UNIT_SIZE;
        let first_block = first / UNITS_PER_BLOCK;
        (0..self.length / UNIT_SIZE).map(move |at| {
            let number = first + at;
            let block = number / UNITS_PER_BLOCK;
            let view = &self.views[block - first_block];
            let block = u16::try_from(block).expect("a chunk has 1024 blocks");
            (block, view, number % UNITS_PER_BLOCK, at * UNIT_SIZE)
        })
    }

    fn runs(&self, adjoins: impl Fn(u32, u32) -> bool) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut end = (NO_SLOT, 0);
        for (block, view, unit, at) in self.units() {
            if view.present() >> unit & 1 == 0 || view.in_memory(unit).is_some() {
                end = (NO_SLOT, 0);
                continue;
            }
            let slot = view.slot();
            let same = end == (slot, unit);
            let next =
                end.0 != NO_SLOT && end.1 == UNITS_PER_BLOCK && unit == 0 && adjoins(end.0, slot);
            match runs.last_mut() {
                Some(run) if same || next => run.target.end = at + UNIT_SIZE,
                _ => runs.push(Run {
                    block,
                    slot,
                    unit,
                    target: at..at + UNIT_SIZE,
                }),
            }
            end = (slot, unit + 1);
        }
        runs
    }

    /// Whether no unit of the range is there: it reads as zeros.
    fn is_absent(&self) -> bool {
        self.units()
            .all(|(_, view, unit, _)| view.present() >> unit & 1 == 0)
    }

    fn copy_memory(&self, buffer: &mut [u8]) {
        for (_, view, unit, at) in self.units() {
            if let Some(content) = view.in_memory(unit) {
                buffer[at..at + UNIT_SIZE].copy_from_slice(content);
            }
        }
    }

    /// The CRC of every unit, once each present one was found right.
    fn verify(&self, buffer: &[u8], zero: u32) -> Result<Vec<u32>, DiskError> {
        let checked = self.units().map(|(block, view, unit, at)| {
            if view.present() >> unit & 1 == 0 {
                return Ok(zero);
            }
            let checksum = crc32fast::hash(&buffer[at..at + UNIT_SIZE]);
            match checksum == view.checksum(unit) {
                true => Ok(checksum),
                false => Err(corrupt(block, unit)),
            }
        });
        checked.collect()
    }

    fn present_bits(&self) -> Vec<u8> {
        let mut bits = vec![0; (self.length / UNIT_SIZE).div_ceil(8)];
        for (at, (_, view, unit, _)) in self.units().enumerate() {
            let bit = u8::from(view.present() >> unit & 1 == 1);
            bits[at / 8] |= bit << (at % 8);
        }
        bits
    }
}

fn block_range(blocks: Range<usize>) -> Range<u16> {
    let number = |block| u16::try_from(block).expect("a chunk has 1024 blocks");
    number(blocks.start)..number(blocks.end)
}

/// An empty buffer that begins at a page's start.
fn aligned(length: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(length + PAGE);
    let skip = buffer.as_ptr().align_offset(PAGE).min(PAGE);
    buffer.resize(skip, 0);
    buffer.split_off(skip)
}
