//! Maps of present units, one bit each, least significant first, as a store and a server
//! answer them: which ranges are worth reading. Owns the counting; leaves reading to
//! whoever copies, scrubs or checks.

use crate::limits::{CHUNK_IO_MAX, CHUNK_SIZE, UNIT_SIZE};

const UNIT: u32 = UNIT_SIZE as u32;
const PIECE: u32 = CHUNK_IO_MAX as u32;

/// Runs of present units among the first so many: `(first, end)`.
///
/// # Panics
/// When the map tells of fewer units.
#[must_use]
pub fn runs(present: &[u8], units: usize) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for unit in (0..units).filter(|unit| present[unit / 8] >> (unit % 8) & 1 == 1) {
        match runs.last_mut() {
            Some((_, end)) if *end == unit => *end += 1,
            _ => runs.push((unit, unit + 1)),
        }
    }
    runs
}

/// The ranges to read behind `from`, in pieces of CHUNK_IO_MAX: `(offset, length)` from the
/// first present unit of each piece to its last. What the map tells of beyond a chunk is
/// passed over.
#[must_use]
pub fn ranges(present: &[u8], from: u32) -> Vec<(u32, u32)> {
    let units = (present.len() * 8).min(CHUNK_SIZE as usize / UNIT_SIZE);
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for (first, end) in runs(present, units) {
        let number = |unit: usize| u32::try_from(unit).expect("a chunk has 16384 units") * UNIT;
        let (mut start, end) = (number(first).max(from), number(end));
        while start < end {
            let piece_end = (start / PIECE + 1) * PIECE;
            let stop = end.min(piece_end);
            match ranges.last_mut() {
                // What is absent between two runs of a piece is not worth a request.
                Some((before, length)) if *before / PIECE == start / PIECE => {
                    *length = stop - *before;
                }
                _ => ranges.push((start, stop - start)),
            }
            start = stop;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u32 = 256 << 10;

    #[test]
    fn only_what_is_present_is_asked_for_in_pieces() {
        assert_eq!(ranges(&[], 0), []);
        assert_eq!(ranges(&[0b1110], 0), [(UNIT, 3 * UNIT)]);
        assert_eq!(ranges(&[0b1110], 2 * UNIT), [(2 * UNIT, 2 * UNIT)]);
        assert_eq!(ranges(&[0b1110], 4 * UNIT), []);
        assert_eq!(ranges(&[0b1, 0, 0b1], 0), [(0, 17 * UNIT)]);
        let mut present = vec![0; 96];
        present[30] = 0xff;
        present[31] = 0xff;
        present[32] = 0xff;
        present[90] = 1;
        let pieces = [
            (240 * UNIT, 16 * UNIT),
            (256 * UNIT, 8 * UNIT),
            (720 * UNIT, UNIT),
        ];
        assert_eq!(ranges(&present, FIRST), pieces);
    }
}
