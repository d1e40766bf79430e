//! What of which sources a part of an erasure code, or a whole copy, is made of, some
//! rows at a time.
//!
//! Owns the choice of what to read and the computing; `replicate` asks, stores and
//! commits. What it is given was verified. Invariant: what comes out is a function of
//! the chunk's content alone, whichever sources it was made of: units of zeros are not
//! kept, so that two that made the same part hold the same.

use crate::chunk::erasure::StripeCoder;
use crate::chunk::geometry::{Layout, StripeShape};
use crate::chunk::stripe::Stripe;
use crate::ids::{PartId, ServerId};
use crate::limits::{BLOCK_SIZE, CHUNK_IO_MAX, UNIT_SIZE};
use crate::wire::client_master::LocatedCopy;
use antler_simd::{CodeError, PartSet};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// About how much of the chunk is read at once.
const BATCH: usize = 1 << 20;
const BLOCK: u32 = BLOCK_SIZE as u32;
const ZEROS: [u8; UNIT_SIZE] = [0; UNIT_SIZE];

/// A block of a row of parts.
type Block = (u32, usize);

/// A range of one source.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) source: LocatedCopy,
    pub(super) offset: u32,
    pub(super) length: u32,
    /// The blocks in it, in order, with their lengths.
    blocks: Vec<(Block, u32)>,
}

/// A part, or a copy, being made.
#[derive(Debug)]
pub(super) struct Build {
    coder: StripeCoder,
    /// The index of the part that is made; `None`: a whole copy.
    target: Option<usize>,
    /// Whole copies to read from, best first.
    copies: Vec<LocatedCopy>,
    /// Parts to read from, by index.
    parts: BTreeMap<usize, LocatedCopy>,
    /// The first row of this batch.
    row: u32,
    /// What was read of this batch.
    blocks: BTreeMap<Block, Bytes>,
    asked: BTreeMap<u64, Read>,
    next: u64,
}

impl Build {
    /// `None` when what is asked for makes no sense.
    pub(super) fn new(part: PartId, stripe: Stripe, sources: Vec<LocatedCopy>) -> Option<Self> {
        let target = match part.part {
            0 => None,
            _ => Some(stripe.shape.index_of(part)?),
        };
        if !stripe.is_sound() {
            return None;
        }
        let (mut copies, mut parts) = (Vec::new(), BTreeMap::new());
        for source in sources {
            let id = source.capability.part;
            match stripe.shape.index_of(id) {
                _ if id.chunk != part.chunk => {}
                Some(index) => {
                    parts.entry(index).or_insert(source);
                }
                None if id.part == 0 => copies.push(source),
                None => {}
            }
        }
        Some(Self {
            coder: StripeCoder::new(stripe.layout()),
            target,
            copies,
            parts,
            row: 0,
            blocks: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
        })
    }

    /// Of what stripe it is a part.
    pub(super) fn stripe(&self) -> Option<StripeShape> {
        self.target.map(|_| self.layout().shape())
    }

    fn layout(&self) -> Layout {
        self.coder.layout()
    }

    fn data(&self) -> usize {
        self.layout().shape().data()
    }

    /// Bytes of what is made.
    pub(super) fn length(&self) -> u32 {
        match self.target {
            Some(part) => self.layout().part_length(part),
            None => self.layout().valid(),
        }
    }

    /// Whether all of it was made.
    pub(super) fn is_done(&self) -> bool {
        self.row >= self.layout().rows()
    }

    /// Rows of this batch.
    fn rows(&self) -> std::ops::Range<u32> {
        let most = (BATCH / (self.data() * BLOCK_SIZE)).max(1) as u32;
        self.row..(self.row + most).min(self.layout().rows())
    }

    /// Blocks of a row that what is made takes.
    fn needed(&self, row: u32) -> Result<BTreeSet<usize>, CodeError> {
        let there: PartSet = match self.copies.is_empty() {
            true => self.parts.keys().copied().collect(),
            false => PartSet::first(self.data()),
        };
        let wanted: Vec<usize> = match self.target {
            Some(part) => vec![part],
            None => (0..self.data()).collect(),
        };
        let mut needed = BTreeSet::new();
        for part in wanted {
            let length = self.layout().block_length(part, row);
            if length == 0 {
                continue;
            }
            if there.contains(part) {
                needed.insert(part);
            } else if part >= self.data() && !self.copies.is_empty() {
                needed.extend(0..self.data());
            } else {
                let bytes = row * BLOCK..row * BLOCK + length as u32;
                needed.extend(self.layout().sources(&bytes, there)?.iter());
            }
        }
        needed.retain(|&part| self.layout().block_length(part, row) > 0);
        Ok(needed)
    }

    /// The blocks of this batch that are neither there nor asked for.
    fn lacking(&self) -> Result<Vec<Block>, CodeError> {
        let asked = self.asked.values().flat_map(|read| &read.blocks);
        let asked: BTreeSet<Block> = asked.map(|(block, _)| *block).collect();
        let mut lacking = Vec::new();
        for row in self.rows() {
            let needed = self.needed(row)?.into_iter().map(|part| (row, part));
            lacking.extend(needed.filter(|block| !self.blocks.contains_key(block)));
        }
        lacking.retain(|block| !asked.contains(block));
        Ok(lacking)
    }

    /// What to read next, each with a number of its own.
    ///
    /// # Errors
    /// When there are too few sources left.
    pub(super) fn plan(&mut self) -> Result<Vec<(u64, Read)>, CodeError> {
        let mut places: Vec<(usize, u32, Block)> = Vec::new();
        for (row, part) in self.lacking()? {
            places.push(match self.copies.is_empty() {
                true => (part, row * BLOCK, (row, part)),
                false => (
                    0,
                    (row * self.data() as u32 + part as u32) * BLOCK,
                    (row, part),
                ),
            });
        }
        places.sort_unstable();
        let mut reads: Vec<(usize, Read)> = Vec::new();
        for (from, offset, block) in places {
            let length = self.layout().block_length(block.1, block.0) as u32;
            match reads.last_mut() {
                Some((same, read)) if *same == from && read.goes_on(offset, length) => {
                    read.length += length;
                    read.blocks.push((block, length));
                }
                _ => {
                    let source = match self.copies.first() {
                        Some(copy) => copy.clone(),
                        None => self.parts[&from].clone(),
                    };
                    let blocks = vec![(block, length)];
                    let read = Read {
                        source,
                        offset,
                        length,
                        blocks,
                    };
                    reads.push((from, read));
                }
            }
        }
        let mut numbered = Vec::with_capacity(reads.len());
        for (_, read) in reads {
            self.asked.insert(self.next, read.clone());
            numbered.push((self.next, read));
            self.next += 1;
        }
        Ok(numbered)
    }

    /// A read ended; `None` if it does not matter any more.
    pub(super) fn end_read(&mut self, number: u64) -> Option<Read> {
        self.asked.remove(&number)
    }

    /// What a read brought: as many bytes as it was to.
    pub(super) fn take(&mut self, read: &Read, data: &Bytes) {
        assert_eq!(data.len(), read.length as usize, "what was asked for");
        let mut at = 0;
        for (block, length) in &read.blocks {
            let end = at + *length as usize;
            self.blocks.insert(*block, data.slice(at..end));
            at = end;
        }
    }

    /// A source is of no use: what it was asked for is read elsewhere.
    pub(super) fn lose(&mut self, server: ServerId) {
        self.copies.retain(|copy| copy.server != server);
        self.parts.retain(|_, part| part.server != server);
        self.asked.retain(|_, read| read.source.server != server);
    }

    /// Whether everything of this batch is there.
    pub(super) fn is_ready(&self) -> bool {
        self.asked.is_empty() && self.lacking().is_ok_and(|lacking| lacking.is_empty())
    }

    /// Makes this batch, and goes on to the next: runs of units that are not zeros, with
    /// where they belong.
    ///
    /// # Panics
    /// When it is not ready.
    pub(super) fn make(&mut self) -> Vec<(u32, Bytes)> {
        let mut runs = Vec::new();
        let rows = self.rows();
        for row in rows.clone() {
            let parts = match self.target {
                Some(part) => part..part + 1,
                None => 0..self.data(),
            };
            for part in parts {
                let block = self.block(row, part);
                let offset = match self.target {
                    Some(_) => row * BLOCK,
                    None => (row * self.data() as u32 + part as u32) * BLOCK,
                };
                runs.extend(runs_of(&block).map(|(from, to)| {
                    let start = offset + from as u32;
                    (start, block.slice(from..to))
                }));
            }
        }
        self.row = rows.end;
        self.blocks.clear();
        runs
    }

    /// A block that was read, or is made of those that were.
    fn block(&mut self, row: u32, part: usize) -> Bytes {
        if let Some(block) = self.blocks.get(&(row, part)) {
            return block.clone();
        }
        let length = self.layout().block_length(part, row);
        let mut block = vec![0; length];
        let read = self.blocks.range((row, 0)..=(row, usize::MAX));
        let read: Vec<(usize, &[u8])> = read.map(|((_, part), data)| (*part, &data[..])).collect();
        let made = match length {
            0 => Ok(()),
            _ => self.coder.rebuild(row, 0, &read, part, &mut block),
        };
        made.expect("a batch that is ready has what it takes");
        Bytes::from(block)
    }
}

impl Read {
    /// Whether a block follows this range, and one request takes both.
    fn goes_on(&self, offset: u32, length: u32) -> bool {
        self.offset + self.length == offset && (self.length + length) as usize <= CHUNK_IO_MAX
    }
}

/// Runs of units that are not zeros, as bytes from and to.
fn runs_of(block: &Bytes) -> impl Iterator<Item = (usize, usize)> + use<> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (number, unit) in block.chunks(UNIT_SIZE).enumerate() {
        let from = number * UNIT_SIZE;
        match runs.last_mut() {
            _ if *unit == ZEROS => {}
            Some((_, end)) if *end == from => *end += UNIT_SIZE,
            _ => runs.push((from, from + UNIT_SIZE)),
        }
    }
    runs.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::sample::{CHUNK, Sample};
    use crate::rng::Rng;

    /// Builds `target` of `sources`; the first read of each of `fail` fails.
    fn build(
        sample: &Sample,
        target: u8,
        sources: &[u8],
        fail: &[u8],
    ) -> Result<Vec<u8>, CodeError> {
        let part = PartId {
            chunk: CHUNK,
            part: target,
        };
        let located = sources.iter().map(|part| Sample::source(*part)).collect();
        let build = Build::new(part, sample.stripe, located);
        let mut build = build.expect("it makes sense");
        let mut made = vec![0; build.length() as usize];
        while !build.is_done() {
            for (number, _) in build.plan()? {
                let Some(read) = build.end_read(number) else {
                    continue;
                };
                let from = read.source.capability.part.part;
                if fail.contains(&from) {
                    build.lose(read.source.server);
                    continue;
                }
                let range = read.offset as usize..(read.offset + read.length) as usize;
                let data = Bytes::copy_from_slice(&sample.content(from)[range]);
                build.take(&read, &data);
            }
            if build.is_ready() {
                for (offset, run) in build.make() {
                    let at = offset as usize;
                    assert!(run.iter().any(|byte| *byte != 0), "zeros are not kept");
                    made[at..at + run.len()].copy_from_slice(&run);
                }
            }
        }
        Ok(made)
    }

    #[test]
    fn every_part_is_made_of_a_copy_and_of_any_others() {
        for sample in Sample::several() {
            let shape = sample.stripe.shape;
            let mut rng = Rng::new(u64::from(sample.stripe.units));
            for target in sample.numbers() {
                let of_copy = build(&sample, target, &[0], &[]).expect("there is a copy");
                assert_eq!(of_copy, sample.content(target), "{shape} {target}");
                let mut others = sample.numbers();
                others.retain(|part| *part != target);
                while others.len() > shape.data() {
                    others.swap_remove(rng.below(others.len() as u64) as usize);
                }
                let of_parts = build(&sample, target, &others, &[]).expect("they suffice");
                assert_eq!(of_parts, sample.content(target), "{shape} {target}");
                let own = build(&sample, target, &[target], &[]);
                assert_eq!(own.expect("itself"), sample.content(target));
            }
        }
    }

    #[test]
    fn a_copy_is_made_of_any_parts_while_sources_fail() {
        for sample in Sample::several() {
            let (shape, all) = (sample.stripe.shape, sample.numbers());
            let made = build(&sample, 0, &all, &[]).expect("all are there");
            assert_eq!(made, sample.whole, "{shape}");
            let made = build(&sample, 0, &all, &all[..shape.parity()]);
            assert_eq!(made.expect("as many as it takes"), sample.whole, "{shape}");
            if sample.stripe.layout().rows() > 1 {
                let made = build(&sample, 0, &all, &all[..=shape.parity()]);
                assert!(made.is_err(), "too few: no data");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sample = Sample::new(4, 2, 64, 1);
        let seventh = PartId {
            chunk: CHUNK,
            part: 7,
        };
        assert!(Build::new(seventh, sample.stripe, Vec::new()).is_none());
        let empty = Stripe {
            units: 0,
            ..sample.stripe
        };
        assert!(Build::new(PartId::whole(CHUNK), empty, Vec::new()).is_none());
        assert!(build(&sample, 1, &[], &[]).is_err(), "no source, no part");
    }
}
