//! The bytes that are written, and whether what is read back are those.
//!
//! Every 4 KiB unit carries which file it belongs to, its place in it and the
//! generation of the write, at its head and again at its tail; between them
//! stands a fixed random text. So an old unit, a unit of another place and a
//! hole are all told apart, and making a unit costs two small stores. Nothing
//! here compresses or repeats, so no file system is paid for noticing.

/// The granule of the pattern, in bytes; the smallest write of any workload.
pub(crate) const UNIT: usize = 4096;

/// One stamp: file, place, generation, each in eight little-endian bytes.
const STAMP: usize = 24;

/// Multiplier and increment of the generator: SplitMix64's.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A buffer of whole units, made once and stamped anew for each write.
#[derive(Clone)]
pub(crate) struct Pattern {
    text: Box<[u8]>,
}

impl Pattern {
    /// A buffer of `units` 4 KiB units.
    pub(crate) fn new(units: usize) -> Self {
        assert!(units > 0, "a pattern holds at least one unit");
        let mut text = vec![0; units * UNIT].into_boxed_slice();
        for (index, word) in text.chunks_exact_mut(8).enumerate() {
            let place = (index % (UNIT / 8)) as u64;
            word.copy_from_slice(&scramble(place).to_le_bytes());
        }
        Self { text }
    }

    /// The buffer as it is to be written at `offset` of `file`, a multiple of
    /// 4096, by the write of this `generation`.
    pub(crate) fn stamped(&mut self, file: u64, offset: u64, generation: u64) -> &[u8] {
        for (index, unit) in self.text.chunks_exact_mut(UNIT).enumerate() {
            let place = offset + (index * UNIT) as u64;
            let stamp = stamp(file, place, generation);
            unit[..STAMP].copy_from_slice(&stamp);
            unit[UNIT - STAMP..].copy_from_slice(&stamp);
        }
        &self.text
    }

    /// Whether every byte read from `offset` is what was written there.
    pub(crate) fn matches(&self, read: &[u8], file: u64, offset: u64, generation: u64) -> bool {
        read.len().is_multiple_of(UNIT)
            && self.stamps_match(read, file, offset, generation)
            && read.chunks_exact(UNIT).all(|unit| self.text_matches(unit))
    }

    /// A check that costs a fraction of the read it follows: both stamps of
    /// every unit, and the whole text of one unit in 256.
    pub(crate) fn matches_cheaply(
        &self,
        read: &[u8],
        file: u64,
        offset: u64,
        generation: u64,
    ) -> bool {
        let sample = (scramble(offset) as usize) % 256;
        read.len().is_multiple_of(UNIT)
            && self.stamps_match(read, file, offset, generation)
            && read
                .chunks_exact(UNIT)
                .skip(sample.min(read.len() / UNIT - 1))
                .step_by(256)
                .all(|unit| self.text_matches(unit))
    }

    fn stamps_match(&self, read: &[u8], file: u64, offset: u64, generation: u64) -> bool {
        read.chunks_exact(UNIT).enumerate().all(|(index, unit)| {
            let stamp = stamp(file, offset + (index * UNIT) as u64, generation);
            unit[..STAMP] == stamp && unit[UNIT - STAMP..] == stamp
        })
    }

    fn text_matches(&self, unit: &[u8]) -> bool {
        let inner = STAMP..UNIT - STAMP;
        unit[inner.clone()] == self.text[inner]
    }
}

/// A walk over `0..count` that visits each number once, in an order without
/// any run a read-ahead could follow.
pub(crate) fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut places: Vec<u64> = (0..count).collect();
    for last in (1..places.len()).rev() {
        let other = scramble(seed.wrapping_add(last as u64)) % (last as u64 + 1);
        places.swap(last, other as usize);
    }
    places
}

/// A random-looking number that is the same for the same `seed`.
pub(crate) fn scramble(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(GOLDEN).wrapping_add(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn stamp(file: u64, place: u64, generation: u64) -> [u8; STAMP] {
    let mut stamp = [0; STAMP];
    stamp[..8].copy_from_slice(&file.to_le_bytes());
    stamp[8..16].copy_from_slice(&place.to_le_bytes());
    stamp[16..].copy_from_slice(&generation.to_le_bytes());
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_matches_and_nothing_else_does() {
        let mut pattern = Pattern::new(4);
        let written = pattern.stamped(7, 8192, 1).to_vec();
        assert!(pattern.matches(&written, 7, 8192, 1));
        assert!(pattern.matches_cheaply(&written, 7, 8192, 1));
        assert!(!pattern.matches(&written, 8, 8192, 1), "another file");
        assert!(!pattern.matches(&written, 7, 4096, 1), "another place");
        assert!(
            !pattern.matches(&written, 7, 8192, 2),
            "an older generation"
        );
        assert!(!pattern.matches(&[0; 4 * UNIT], 7, 8192, 1), "a hole");
        assert!(!pattern.matches(&written[1..], 7, 8192, 1), "a short read");
    }

    #[test]
    fn one_flipped_bit_is_seen_by_the_full_check() {
        let mut pattern = Pattern::new(2);
        let written = pattern.stamped(1, 0, 1).to_vec();
        for place in [0, 100, UNIT - 1, UNIT, 2 * UNIT - 1] {
            let mut rotten = written.clone();
            rotten[place] ^= 1;
            assert!(!pattern.matches(&rotten, 1, 0, 1), "byte {place}");
        }
    }

    #[test]
    fn the_cheap_check_sees_a_single_foreign_unit() {
        let mut pattern = Pattern::new(256);
        let written = pattern.stamped(1, 0, 1).to_vec();
        for unit in [0, 17, 255] {
            let mut mixed = written.clone();
            mixed[unit * UNIT..(unit + 1) * UNIT].fill(0);
            assert!(!pattern.matches_cheaply(&mixed, 1, 0, 1), "unit {unit}");
        }
    }

    #[test]
    fn a_shuffle_visits_each_place_once() {
        let mut places = shuffled(1000, 3);
        assert_ne!(places, (0..1000).collect::<Vec<_>>());
        places.sort_unstable();
        assert_eq!(places, (0..1000).collect::<Vec<_>>());
    }
}
