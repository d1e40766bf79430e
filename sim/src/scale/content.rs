//! What the copies hold: bytes that are a function of the seed, the chunk and the
//! offset, so that terabytes take no memory and every byte can still be proven.
//!
//! A copy that rotted differs from that by one bit in one unit. Checksums are computed
//! when a unit is read, against that of the content that was written. Invariant: at
//! most one of the copies that a chunk began with rots.

use super::spec::ScalePlan;
use crate::model::content::{Source, WriteId};
use antler_core::hash::mix;
use antler_core::limits::UNIT_SIZE;

/// A bit that is another than was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Flip {
    /// In which unit of the chunk.
    pub unit: u64,
    /// Which bit of the unit.
    pub bit: usize,
}

/// The bytes of every chunk.
#[derive(Clone, Copy, Debug)]
pub struct Contents {
    seed: u64,
    rot: u64,
    units: u64,
    copies: u64,
}

impl Contents {
    /// Of a plan.
    #[must_use]
    pub fn new(plan: &ScalePlan) -> Self {
        Self {
            seed: plan.seed,
            rot: plan.rot,
            units: plan.units(),
            copies: plan.copies as u64,
        }
    }

    /// Which of the copies that a chunk began with rotted, and where.
    #[must_use]
    pub fn rotten(&self, chunk: u32) -> Option<(usize, Flip)> {
        let lot = mix(self.seed ^ 0x0070_7472 ^ (u64::from(chunk) << 24));
        if lot % 1_000_000 >= self.rot {
            return None;
        }
        let lot = mix(lot);
        let flip = Flip {
            unit: (lot >> 8) % self.units,
            bit: (lot >> 40) as usize % (UNIT_SIZE * 8),
        };
        Some(((lot % self.copies) as usize, flip))
    }

    /// A unit of a copy, as its disk gives it.
    pub fn read(&self, chunk: u32, unit: u64, rotten: Option<Flip>, buffer: &mut [u8; UNIT_SIZE]) {
        source(chunk).fill(self.seed, unit * UNIT_SIZE as u64, buffer);
        if let Some(flip) = rotten.filter(|flip| flip.unit == unit) {
            buffer[flip.bit / 8] ^= 1 << (flip.bit % 8);
        }
    }

    /// The checksum that was kept when the unit was written.
    #[must_use]
    pub fn checksum(&self, chunk: u32, unit: u64) -> u32 {
        let mut buffer = [0; UNIT_SIZE];
        self.read(chunk, unit, None, &mut buffer);
        crc32fast::hash(&buffer)
    }

    /// Whether a unit of a copy has the checksum that was kept: what a chunkserver
    /// looks at whenever it reads.
    #[must_use]
    pub fn verifies(&self, chunk: u32, unit: u64, rotten: Option<Flip>) -> bool {
        let mut buffer = [0; UNIT_SIZE];
        self.read(chunk, unit, rotten, &mut buffer);
        crc32fast::hash(&buffer) == self.checksum(chunk, unit)
    }

    /// Whether a unit's bytes are those that were written: what the judge looks at.
    #[must_use]
    pub fn is_written(&self, chunk: u32, unit: u64, bytes: &[u8; UNIT_SIZE]) -> bool {
        source(chunk).matches(self.seed, unit * UNIT_SIZE as u64, bytes)
    }

    /// A unit of a chunk to look at, different for each salt.
    #[must_use]
    pub fn sample(&self, chunk: u32, salt: u64) -> u64 {
        mix(self.seed ^ u64::from(chunk) ^ (salt << 32)) % self.units
    }
}

fn source(chunk: u32) -> Source {
    Source::Write(WriteId(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_seen_where_it_is_and_nowhere_else() {
        let contents = Contents {
            seed: 3,
            rot: 500_000,
            units: 16,
            copies: 3,
        };
        let rotten: Vec<u32> = (0..1000)
            .filter(|&c| contents.rotten(c).is_some())
            .collect();
        assert!((400..600).contains(&rotten.len()), "{}", rotten.len());
        for chunk in rotten.into_iter().take(20) {
            let (_, flip) = contents.rotten(chunk).expect("it is");
            for unit in 0..16 {
                assert_eq!(
                    contents.verifies(chunk, unit, Some(flip)),
                    unit != flip.unit
                );
                let mut bytes = [0; UNIT_SIZE];
                contents.read(chunk, unit, Some(flip), &mut bytes);
                assert_eq!(contents.is_written(chunk, unit, &bytes), unit != flip.unit);
            }
        }
    }
}
