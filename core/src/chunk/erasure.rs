//! The bytes of erasure-coded chunks: parity from data, lost blocks from others.
//!
//! Owns what is computed, row by row, so that a chunk is never in memory as a
//! whole. Leaves to `geometry` what is where, and to the caller to read and write,
//! and to check what it reads: a wrong byte that goes in comes out as wrong ones.

use super::geometry::{Layout, ReadPlan};
use crate::limits::BLOCK_SIZE;
use antler_simd::{CodeError, DATA_MAX, Decoder, PARITY_MAX, PartSet, ReedSolomon};

/// Decoders that are kept. A read that goes on needs one for each lost part, twice
/// where the chunk ends.
const DECODERS_MAX: usize = 2 * PARITY_MAX;
/// Where large memory should begin: copies run slowly a few bytes behind a page.
const PAGE: usize = 4096;

/// Encodes and decodes the rows of one chunk.
#[derive(Clone, Debug)]
pub struct StripeCoder {
    layout: Layout,
    code: ReedSolomon,
    /// Those used last, the newest first.
    decoders: Vec<Decoder>,
}

/// Why a part was not rebuilt, or a chunk not encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StripeError<E> {
    /// Too many parts are lost.
    #[error(transparent)]
    Lost(CodeError),
    /// The caller's own reading or writing failed.
    #[error(transparent)]
    Other(E),
}

impl StripeCoder {
    /// For a chunk of that layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        let shape = layout.shape();
        let code = ReedSolomon::new(shape.data(), shape.parity());
        Self {
            layout,
            code: code.expect("a shape is a supported one"),
            decoders: Vec::new(),
        }
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Makes the parity blocks of a row of its data blocks, as many and as long as
    /// [`Layout::blocks`] says. Parity blocks are as long as the first.
    ///
    /// # Panics
    /// When a block is missing, or is longer or shorter: a bug of the caller.
    pub fn encode_row(&self, row: u32, blocks: &[&[u8]], parity: &mut [&mut [u8]]) {
        let right = self.layout.blocks(row).map(|(_, length)| length);
        assert!(
            right.eq(blocks.iter().map(|block| block.len())),
            "whole blocks"
        );
        // Only the last block can be shorter than the others.
        let length = blocks.first().map_or(0, |block| block.len());
        let short = blocks.last().map_or(0, |block| block.len());
        assert!(
            parity.iter().all(|block| block.len() == length),
            "parity as long"
        );
        let full = blocks.len() - usize::from(short < length);
        self.encode_range(&blocks[..blocks.len()], 0..short, parity);
        self.encode_range(&blocks[..full], short..length, parity);
    }

    fn encode_range(
        &self,
        blocks: &[&[u8]],
        range: std::ops::Range<usize>,
        parity: &mut [&mut [u8]],
    ) {
        if range.is_empty() {
            return;
        }
        let mut data: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        for (piece, block) in data.iter_mut().zip(blocks) {
            *piece = &block[range.clone()];
        }
        let mut into: [&mut [u8]; PARITY_MAX] = Default::default();
        let into = &mut into[..parity.len()];
        for (piece, block) in into.iter_mut().zip(parity) {
            *piece = &mut block[range.clone()];
        }
        self.code.encode(&data[..blocks.len()], into);
    }

    /// Makes the bytes from `at` on of the block that `wanted` has in a row, of the
    /// same bytes of other parts (index, bytes). Those may end where their part's
    /// block does, and count as zeros from there.
    ///
    /// # Errors
    /// [`CodeError::Lost`] when there are too few parts; then `into` holds nothing
    /// of use.
    ///
    /// # Panics
    /// When a part's bytes end too early, or `into` behind the block: a bug of the
    /// caller.
    pub fn rebuild(
        &mut self,
        row: u32,
        at: usize,
        parts: &[(usize, &[u8])],
        wanted: usize,
        into: &mut [u8],
    ) -> Result<(), CodeError> {
        let end = at + into.len();
        assert!(end <= BLOCK_SIZE, "within a block");
        let mut start = at;
        while start < end {
            let stop = self.even_until(row, start).min(end);
            let piece = &mut into[start - at..stop - at];
            let read = |part: usize| {
                let bytes = parts.iter().find(|(index, _)| *index == part);
                let (_, bytes) = bytes.expect("a source is one of them");
                &bytes[start - at..stop - at]
            };
            let present = parts.iter().map(|(part, _)| *part).collect();
            self.decode(row, start, present, wanted, read, piece)?;
            start = stop;
        }
        Ok(())
    }

    /// Up to where the same data blocks of a row have content as at byte `at`.
    fn even_until(&self, row: u32, at: usize) -> usize {
        let lengths =
            (0..self.layout.shape().data()).map(|part| self.layout.block_length(part, row));
        lengths
            .filter(|length| *length > at)
            .min()
            .unwrap_or(BLOCK_SIZE)
    }

    /// Decodes where the same blocks have content all along.
    fn decode<'b>(
        &mut self,
        row: u32,
        at: usize,
        present: PartSet,
        wanted: usize,
        read: impl Fn(usize) -> &'b [u8],
        into: &mut [u8],
    ) -> Result<(), CodeError> {
        let zeros = self.layout.zeros(row, at);
        if zeros.len() == self.layout.shape().data() {
            into.fill(0);
            return Ok(());
        }
        let decoder = self.decoder(present, zeros, [wanted].into_iter().collect())?;
        let mut sources: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        for (source, part) in sources.iter_mut().zip(decoder.sources().iter()) {
            *source = read(part);
        }
        decoder.decode(&sources[..decoder.sources().len()], &mut [into]);
        Ok(())
    }

    fn decoder(
        &mut self,
        present: PartSet,
        zeros: PartSet,
        wanted: PartSet,
    ) -> Result<&Decoder, CodeError> {
        let known = self
            .decoders
            .iter()
            .position(|decoder| decoder.fits(present, zeros, wanted));
        match known {
            Some(at) => self.decoders[..=at].rotate_right(1),
            None => {
                let decoder = self.code.decoder(present, zeros, wanted)?;
                self.decoders.truncate(DECODERS_MAX - 1);
                self.decoders.insert(0, decoder);
            }
        }
        Ok(&self.decoders[0])
    }

    /// Puts a range of the chunk together of what was read as `plan` says, in the
    /// plan's order.
    ///
    /// # Panics
    /// When something was read that the plan does not say, or `into` is not as long
    /// as the plan's range: a bug of the caller.
    pub fn assemble(&mut self, plan: &ReadPlan, read: &[&[u8]], into: &mut [u8]) {
        assert_eq!(read.len(), plan.reads.len(), "what the plan says");
        for (part, bytes) in plan.reads.iter().zip(read) {
            assert_eq!(part.range.len(), bytes.len(), "what the plan says");
        }
        assert_eq!(into.len(), plan.range.len(), "the range");
        // The bytes of a block from `at` on that were read of each part.
        let found = |row: u32, at: usize| {
            let at = row * BLOCK_SIZE as u32 + at as u32;
            let parts = plan.reads.iter().zip(read);
            parts.filter_map(move |(part, bytes)| {
                let skip = at.checked_sub(part.range.start)?;
                Some((part.part, bytes.get(skip as usize..).unwrap_or(&[])))
            })
        };
        for piece in self.layout.pieces(plan.range.clone()) {
            let into = &mut into[(piece.offset - plan.range.start) as usize..][..piece.range.len()];
            let parts = found(piece.row, piece.range.start);
            if plan.rebuilt.contains(piece.part) {
                let parts: Vec<(usize, &[u8])> = parts.collect();
                self.rebuild(piece.row, piece.range.start, &parts, piece.part, into)
                    .expect("a plan reads what suffices");
            } else {
                let mut parts = parts;
                let own = parts.find(|(part, _)| *part == piece.part);
                let (_, bytes) = own.expect("a plan reads what is there");
                into.copy_from_slice(&bytes[..into.len()]);
            }
        }
    }
}

/// Encodes a chunk row by row: reads its blocks in order (number, memory of its
/// length) and writes every block of every part (index of the part, row, bytes).
///
/// # Errors
/// The first one of `read` or `write`.
pub fn encode_chunk<E>(
    layout: Layout,
    mut read: impl FnMut(u32, &mut [u8]) -> Result<(), E>,
    mut write: impl FnMut(usize, u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let coder = StripeCoder::new(layout);
    let data = layout.shape().data();
    let mut memory = Row::new(layout.shape().parts());
    for row in 0..layout.rows() {
        let mut parts = memory.blocks();
        let (blocks, parity) = parts.split_at_mut(data);
        let mut content = Vec::with_capacity(data);
        for ((number, length), block) in layout.blocks(row).zip(blocks) {
            let (block, _) = std::mem::take(block).split_at_mut(length);
            read(number, block)?;
            content.push(&*block);
        }
        let length = content[0].len();
        let mut parity: Vec<&mut [u8]> = parity
            .iter_mut()
            .map(|block| &mut block[..length])
            .collect();
        coder.encode_row(row, &content, &mut parity);
        for (part, block) in (0..).zip(&content) {
            write(part, row, block)?;
        }
        for (part, block) in (data..).zip(&parity) {
            write(part, row, block)?;
        }
    }
    Ok(())
}

/// Makes a lost part row by row, of those `present`: reads blocks of others (index
/// of the part, row, memory of the block's length) and writes its own (row, bytes).
///
/// # Errors
/// [`StripeError::Lost`] when too few are present, before anything of the row is
/// read or written; the first error of `read` or `write`.
///
/// # Panics
/// When the lost part is among those present.
pub fn rebuild_part<E>(
    layout: Layout,
    lost: usize,
    present: PartSet,
    mut read: impl FnMut(usize, u32, &mut [u8]) -> Result<(), E>,
    mut write: impl FnMut(u32, &[u8]) -> Result<(), E>,
) -> Result<(), StripeError<E>> {
    assert!(!present.contains(lost), "a lost part is not present");
    let mut coder = StripeCoder::new(layout);
    let mut memory = Row::new(layout.shape().data() + 1);
    for row in 0..layout.rows() {
        let length = layout.block_length(lost, row);
        if length == 0 {
            break;
        }
        let bytes = row * BLOCK_SIZE as u32..row * BLOCK_SIZE as u32 + length as u32;
        let sources = layout.sources(&bytes, present).map_err(StripeError::Lost)?;
        let mut blocks = memory.blocks();
        let (into, blocks) = blocks.split_first_mut().expect("one for itself");
        let mut parts = Vec::with_capacity(sources.len());
        for (part, block) in sources.iter().zip(blocks) {
            let length = layout.block_length(part, row).min(length);
            if length == 0 {
                continue;
            }
            let (block, _) = std::mem::take(block).split_at_mut(length);
            read(part, row, block).map_err(StripeError::Other)?;
            parts.push((part, &*block));
        }
        let into = &mut into[..length];
        coder
            .rebuild(row, 0, &parts, lost, into)
            .map_err(StripeError::Lost)?;
        write(row, into).map_err(StripeError::Other)?;
    }
    Ok(())
}

/// Memory for blocks, page-aligned.
struct Row {
    memory: Vec<u8>,
    start: usize,
}

impl Row {
    fn new(blocks: usize) -> Self {
        let memory = vec![0; blocks * BLOCK_SIZE + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, start }
    }

    fn blocks(&mut self) -> Vec<&mut [u8]> {
        self.memory[self.start..]
            .chunks_exact_mut(BLOCK_SIZE)
            .collect()
    }
}
