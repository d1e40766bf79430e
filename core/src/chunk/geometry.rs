//! How an erasure-coded chunk lies in its parts: numbers, and nothing that reads
//! or writes. Leaves the bytes to `erasure`, the disk to the store.
//!
//! A chunk's blocks of 64 KiB lie in rows over k data parts, and m parity parts
//! have a block in every row: block i is in data part i mod k, at row i div k.
//! Here k = 4, m = 2, and the chunk ends within block 9:
//! ```text
//! index         0      1      2      3      4      5
//! PartId.part   1      2      3      4      5      6
//!            ┌──────┬──────┬──────┬──────┬──────┬──────┐
//! row 0      │ b 0  │ b 1  │ b 2  │ b 3  │ p 0  │ q 0  │
//!            ├──────┼──────┼──────┼──────┼──────┼──────┤
//! row 1      │ b 4  │ b 5  │ b 6  │ b 7  │ p 1  │ q 1  │
//!            ├──────┼──────┼──────┴──────┼──────┼──────┤
//! row 2      │ b 8  │ b 9 ·             │ p 2  │ q 2  │   · where `valid` ends
//!            └──────┴────┘             └──────┴──────┘
//! ```
//! - A part is kept like any copy: row r is its block r, at byte r * 65536, with
//!   the same units, CRCs and header; what it is stands in the header, so that it
//!   can be checked without the others. Its version is the chunk's; its epoch is the
//!   stamp of the conversion that made it: parts of one version and stamp go together,
//!   and the log says of each chunk which they are, and where the chunk ended then. Units
//!   of zeros are not kept.
//! - Data parts end where the chunk does. What is missing of a row counts as zeros
//!   and is not kept. A parity block is as long as the longest block of its row,
//!   the first, so a parity part is as long as data part 0.
//! - A parity byte is the sum, over the data parts, of their bytes at the same
//!   place, each times a cell of the code's matrix (`antler-simd` says which), in
//!   GF(2^8) with the polynomial x^8+x^4+x^3+x^2+1.
//!
//! **Invariant: every byte of a chunk has one place, and of a row any n blocks give
//! all, n being the number of its data blocks that are not missing.**

use crate::ids::{ChunkId, PartId};
use crate::limits::{BLOCK_SIZE, CHUNK_SIZE, PARTS_MAX, UNIT_SIZE};
pub use antler_simd::PartSet;
use antler_simd::{CodeError, DATA_MAX, DATA_MIN, PARITY_MAX};
use minicbor::decode::Error;
use minicbor::{Decode, Decoder, Encode, Encoder};
use std::fmt;
use std::ops::Range;

const BLOCK: u32 = BLOCK_SIZE as u32;

/// How many data and parity parts a chunk has. Parts are indexed from 0, data
/// parts first; in a [`PartId`] they number from 1, because 0 is a whole copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StripeShape {
    data: u8,
    parity: u8,
}

impl StripeShape {
    /// `data` (2 to 32) and `parity` (1 to 8) parts.
    ///
    /// # Errors
    /// [`CodeError::Shape`] for other numbers.
    pub fn new(data: u8, parity: u8) -> Result<Self, CodeError> {
        let (k, m) = (usize::from(data), usize::from(parity));
        match (DATA_MIN..=DATA_MAX).contains(&k) && (1..=PARITY_MAX).contains(&m) {
            true => Ok(Self { data, parity }),
            false => Err(CodeError::Shape { data: k, parity: m }),
        }
    }

    /// How many data parts.
    #[must_use]
    pub fn data(self) -> usize {
        usize::from(self.data)
    }

    /// How many parity parts: so many losses are survived.
    #[must_use]
    pub fn parity(self) -> usize {
        usize::from(self.parity)
    }

    /// How many parts.
    #[must_use]
    pub fn parts(self) -> usize {
        self.data() + self.parity()
    }

    /// The set of all parts.
    #[must_use]
    pub fn all(self) -> PartSet {
        PartSet::first(self.parts())
    }

    /// The name of the part with that index.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    pub fn part_id(self, chunk: ChunkId, part: usize) -> PartId {
        assert!(part < self.parts(), "{self} has no part {part}");
        let part = u8::try_from(part + 1).expect("parts are few");
        PartId { chunk, part }
    }

    /// The index of that part; `None` for a whole copy, and for a part that this
    /// shape does not have.
    #[must_use]
    pub fn index_of(self, id: PartId) -> Option<usize> {
        let index = usize::from(id.part).checked_sub(1)?;
        (index < self.parts()).then_some(index)
    }
}

impl fmt::Display for StripeShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl fmt::Debug for StripeShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One number: data parts in its high byte, parity parts in its low one.
impl<C> Encode<C> for StripeShape {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(u16::from_be_bytes([self.data, self.parity]))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StripeShape {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Error> {
        let [data, parity] = d.u16()?.to_be_bytes();
        Self::new(data, parity).map_err(|_| Error::message("no such erasure code"))
    }
}

/// Where the bytes of one chunk are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    shape: StripeShape,
    valid: u32,
}

/// A stretch of a chunk that lies in one block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// In which part.
    pub part: usize,
    /// In which of its rows.
    pub row: u32,
    /// Which bytes of the block.
    pub range: Range<usize>,
    /// Where it begins in the chunk.
    pub offset: u32,
}

/// What to read of parts to get a range of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadPlan {
    /// The range of the chunk.
    pub range: Range<u32>,
    /// What to read: at most one range of each part, whole units, by index.
    pub reads: Vec<PartRead>,
    /// The parts that have some of the range and must be made of others.
    pub rebuilt: PartSet,
}

/// A range of one part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartRead {
    /// Which part.
    pub part: usize,
    /// Which of its bytes.
    pub range: Range<u32>,
}

impl Layout {
    /// Of a chunk whose first `valid` bytes count.
    ///
    /// # Panics
    /// When that is more than a chunk.
    #[must_use]
    pub fn new(shape: StripeShape, valid: u64) -> Self {
        assert!(valid <= CHUNK_SIZE, "{valid} bytes are no chunk");
        let valid = u32::try_from(valid).expect("a chunk's offsets have 32 bits");
        Self { shape, valid }
    }

    /// The shape.
    #[must_use]
    pub fn shape(self) -> StripeShape {
        self.shape
    }

    /// How many bytes of the chunk count.
    #[must_use]
    pub fn valid(self) -> u32 {
        self.valid
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(self) -> u32 {
        self.valid.div_ceil(BLOCK * u32::from(self.shape.data))
    }

    /// Bytes of the block that a part has in a row; 0 if it is missing.
    #[must_use]
    pub fn block_length(self, part: usize, row: u32) -> usize {
        assert!(
            part < self.shape.parts(),
            "{} has no part {part}",
            self.shape
        );
        let column = if part < self.shape.data() { part } else { 0 };
        let block = u64::from(row) * u64::from(self.shape.data) + column as u64;
        let left = u64::from(self.valid).saturating_sub(block * u64::from(BLOCK));
        left.min(u64::from(BLOCK)) as usize
    }

    /// Bytes of a part.
    #[must_use]
    pub fn part_length(self, part: usize) -> u32 {
        let Some(last) = self.rows().checked_sub(1) else {
            return 0;
        };
        last * BLOCK + self.block_length(part, last) as u32
    }

    /// The blocks of the chunk that are in a row, first to last, with their lengths.
    pub fn blocks(self, row: u32) -> impl Iterator<Item = (u32, usize)> {
        let lengths = (0..self.shape.data()).map(move |part| self.block_length(part, row));
        let first = row * u32::from(self.shape.data);
        (first..).zip(lengths).filter(|(_, length)| *length > 0)
    }

    /// The data parts that are zeros at byte `at` of their block in a row, because
    /// the chunk ends before.
    #[must_use]
    pub fn zeros(self, row: u32, at: usize) -> PartSet {
        let data = 0..self.shape.data();
        data.filter(|&part| self.block_length(part, row) <= at)
            .collect()
    }

    /// The part and the byte of it where a byte of the chunk is.
    ///
    /// # Panics
    /// When the byte does not count.
    #[must_use]
    pub fn place(self, offset: u32) -> (usize, u32) {
        assert!(offset < self.valid, "byte {offset} of {}", self.valid);
        let (block, within) = (offset / BLOCK, offset % BLOCK);
        let data = u32::from(self.shape.data);
        ((block % data) as usize, block / data * BLOCK + within)
    }

    /// The byte of the chunk that is at a byte of a part; `None` for parity, and
    /// behind the part's end.
    #[must_use]
    pub fn offset_of(self, part: usize, at: u32) -> Option<u32> {
        if part >= self.shape.data() || at >= self.part_length(part) {
            return None;
        }
        let block = at / BLOCK * u32::from(self.shape.data) + part as u32;
        Some(block * BLOCK + at % BLOCK)
    }

    /// The pieces of a range of the chunk, in order; what does not count is left out.
    pub fn pieces(self, range: Range<u32>) -> impl Iterator<Item = Piece> {
        let end = range.end.min(self.valid);
        let mut offset = range.start;
        std::iter::from_fn(move || {
            let left = end.checked_sub(offset).filter(|left| *left > 0)?;
            let (part, at) = self.place(offset);
            let start = at % BLOCK;
            let length = left.min(BLOCK - start);
            let piece = Piece {
                part,
                row: at / BLOCK,
                range: start as usize..(start + length) as usize,
                offset,
            };
            offset += length;
            Some(piece)
        })
    }

    /// What to read of the parts that are there to get `range` of the chunk (what
    /// does not count of it is left out).
    ///
    /// Parts that have some of it are read themselves. For those that are lost as
    /// many others are read as the code has data parts, data parts first, less what
    /// is known to be zeros.
    ///
    /// # Errors
    /// [`CodeError::Lost`] when the range needs a lost part and too few are there
    /// to make it. A range that needs none is read whatever is lost.
    pub fn plan(self, range: Range<u32>, present: PartSet) -> Result<ReadPlan, CodeError> {
        let range = range.start.min(self.valid)..range.end.min(self.valid);
        let mut wanted: Vec<Range<u32>> = vec![0..0; self.shape.parts()];
        for piece in self.pieces(range.clone()) {
            let start = piece.row * BLOCK;
            let bytes = start + piece.range.start as u32..start + piece.range.end as u32;
            wanted[piece.part] = hull(&wanted[piece.part], &bytes);
        }
        let needed = (0..wanted.len()).filter(|&part| !wanted[part].is_empty());
        let rebuilt = needed.collect::<PartSet>().without(present);
        let missing = rebuilt
            .iter()
            .fold(0..0, |all, part| hull(&all, &wanted[part]));
        if !missing.is_empty() {
            for source in self.sources(&missing, present)?.iter() {
                wanted[source] = hull(&wanted[source], &missing);
            }
        }
        let reads = (0..)
            .zip(wanted)
            .filter(|(part, _)| present.contains(*part));
        let reads = reads
            .filter_map(|(part, range)| self.part_read(part, &range))
            .collect();
        Ok(ReadPlan {
            range,
            reads,
            rebuilt,
        })
    }

    /// The parts of which those bytes of any other can be made: the first of those
    /// that are there, as many as it takes.
    ///
    /// # Errors
    /// [`CodeError::Lost`] when they are too few.
    pub(crate) fn sources(
        self,
        bytes: &Range<u32>,
        present: PartSet,
    ) -> Result<PartSet, CodeError> {
        let needed = self.shape.data();
        let sources: PartSet = present.iter().take(needed).collect();
        for row in bytes.start / BLOCK..bytes.end.div_ceil(BLOCK) {
            let first = bytes.start.saturating_sub(row * BLOCK);
            let known = sources.union(self.zeros(row, first as usize)).len();
            if known < needed {
                return Err(CodeError::Lost { known, needed });
            }
        }
        Ok(sources)
    }

    /// The whole units of a range, as far as the part has any.
    fn part_read(self, part: usize, range: &Range<u32>) -> Option<PartRead> {
        const UNIT: u32 = UNIT_SIZE as u32;
        let end = range.end.min(self.part_length(part));
        let range = range.start / UNIT * UNIT..end.next_multiple_of(UNIT);
        (range.start < end).then_some(PartRead { part, range })
    }
}

/// The smallest range that has both.
fn hull(a: &Range<u32>, b: &Range<u32>) -> Range<u32> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

const _: () = assert!(
    CHUNK_SIZE / (DATA_MIN as u64) < CHUNK_SIZE,
    "a part is shorter than a chunk: it fits a copy's place"
);
const _: () = assert!(
    DATA_MAX + PARITY_MAX == PARTS_MAX as usize,
    "a part's number has 8 bits"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(data: u8, parity: u8, valid: u64) -> Layout {
        Layout::new(StripeShape::new(data, parity).expect("supported"), valid)
    }

    #[test]
    fn the_picture_is_right() {
        let layout = layout(4, 2, 9 * 65536 + 100);
        assert_eq!(layout.rows(), 3);
        let lengths: Vec<u32> = (0..6).map(|part| layout.part_length(part)).collect();
        let (two, three) = (2 * 65536, 3 * 65536);
        assert_eq!(lengths, [three, two + 100, two, two, three, three]);
        assert_eq!(layout.place(7 * 65536 + 5), (3, 65536 + 5));
        assert_eq!(layout.offset_of(3, 65536 + 5), Some(7 * 65536 + 5));
        assert_eq!(layout.offset_of(3, two), None);
        assert_eq!(layout.offset_of(4, 0), None);
        assert!(layout.blocks(2).eq([(8, 65536), (9, 100)]));
        assert!(layout.zeros(2, 99).iter().eq([2, 3]));
        assert!(layout.zeros(2, 100).iter().eq([1, 2, 3]));
        let shape = layout.shape();
        assert_eq!(shape.to_string(), "4+2");
        assert_eq!(shape.part_id(ChunkId(7), 5).to_string(), "c7.6");
        assert_eq!(shape.index_of(PartId::whole(ChunkId(7))), None);
        assert_eq!(shape.index_of(shape.part_id(ChunkId(7), 5)), Some(5));
        let seventh = PartId {
            chunk: ChunkId(7),
            part: 7,
        };
        assert_eq!(shape.index_of(seventh), None);
    }

    #[test]
    fn a_read_takes_what_it_needs() {
        let layout = layout(4, 2, 9 * 65536 + 100);
        let all = layout.shape().all();
        let lost = |parts: &[usize]| all.without(parts.iter().copied().collect());
        let read = |part, range| PartRead { part, range };
        let range = 65536 + 5000..2 * 65536 + 10;
        let plan = layout.plan(range.clone(), all).expect("nothing is lost");
        assert_eq!(plan.reads, [read(1, 4096..65536), read(2, 0..4096)]);
        let plan = layout.plan(range.clone(), lost(&[2])).expect("one is lost");
        assert!(plan.rebuilt.iter().eq([2]));
        let first = |part| read(part, 0..4096);
        assert_eq!(
            plan.reads,
            [first(0), read(1, 0..65536), first(3), first(4)]
        );
        let short = 9 * 65536 + 50..u32::MAX;
        let plan = layout.plan(short, lost(&[1, 4])).expect("two are lost");
        // Two of the row's data blocks are missing: two others suffice.
        let third = |part| read(part, 2 * 65536..2 * 65536 + 4096);
        assert_eq!(plan.reads, [third(0), third(5)]);
        let error = layout.plan(range, lost(&[2, 4, 5])).expect_err("too many");
        assert_eq!(
            error,
            CodeError::Lost {
                known: 3,
                needed: 4
            }
        );
        assert!(layout.plan(0..10, lost(&[2, 4, 5])).is_ok());
    }
}
