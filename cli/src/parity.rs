//! Whether the parts of an erasure code go together. Owns the comparison; leaves reading the
//! parts, and their checksums, to `check`.

use antler_core::chunk::erasure::StripeCoder;
use antler_core::chunk::geometry::Layout;
use antler_core::limits::BLOCK_SIZE;
use std::collections::{BTreeMap, BTreeSet};

/// The bytes of parts, by index; what a part does not store is zeros.
pub(crate) type Parts = BTreeMap<usize, Vec<u8>>;

/// Room for a part of which some ranges are to come.
pub(crate) fn blank(layout: Layout, part: usize) -> Vec<u8> {
    vec![0; layout.part_length(part) as usize]
}

/// Puts what was read of a part in its place. Parts are stored in whole units, so that the
/// last one may reach beyond the part.
pub(crate) fn fill(part: &mut [u8], offset: u32, data: &[u8]) {
    let from = (offset as usize).min(part.len());
    let until = (from + data.len()).min(part.len());
    part[from..until].copy_from_slice(&data[..until - from]);
}

/// The parity parts, by index, that are not what the data parts give. None where a data part
/// is not there: there is nothing to compare with.
pub(crate) fn strays(layout: Layout, parts: &Parts) -> BTreeSet<usize> {
    let shape = layout.shape();
    if (0..shape.data()).any(|part| !parts.contains_key(&part)) {
        return BTreeSet::new();
    }
    let coder = StripeCoder::new(layout);
    let rows = 0..layout.rows();
    rows.flat_map(|row| strays_of(&coder, row, parts)).collect()
}

fn strays_of(coder: &StripeCoder, row: u32, parts: &Parts) -> Vec<usize> {
    let (layout, shape) = (coder.layout(), coder.layout().shape());
    let block = |part: usize| block_of(&parts[&part], row, layout.block_length(part, row));
    let data: Vec<&[u8]> = (0..layout.blocks(row).count()).map(block).collect();
    let mut given = vec![vec![0; data[0].len()]; shape.parity()];
    let mut into: Vec<&mut [u8]> = given.iter_mut().map(Vec::as_mut_slice).collect();
    coder.encode_row(row, &data, &mut into);
    let parity = (shape.data()..).zip(&given);
    let wrong = parity.filter(|(part, given)| parts.contains_key(part) && block(*part) != *given);
    wrong.map(|(part, _)| part).collect()
}

fn block_of(part: &[u8], row: u32, length: usize) -> &[u8] {
    let from = row as usize * BLOCK_SIZE;
    &part[from..from + length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_core::chunk::geometry::StripeShape;

    /// Two rows, of which the last is short.
    fn layout() -> Layout {
        let shape = StripeShape::new(3, 2).expect("a code");
        Layout::new(shape, 4 * BLOCK_SIZE as u64 + 5000)
    }

    fn parts() -> Parts {
        let layout = layout();
        let mut parts: Parts = (0..5).map(|part| (part, blank(layout, part))).collect();
        for part in 0..3 {
            let content = parts.get_mut(&part).expect("it is there");
            for (at, byte) in content.iter_mut().enumerate() {
                *byte = (at * 7 + part * 31) as u8;
            }
        }
        let coder = StripeCoder::new(layout);
        for row in 0..layout.rows() {
            let from = row as usize * BLOCK_SIZE;
            let data: Vec<Vec<u8>> = (0..layout.blocks(row).count())
                .map(|part| block_of(&parts[&part], row, layout.block_length(part, row)).to_vec())
                .collect();
            let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let mut parity = vec![vec![0; data[0].len()]; 2];
            let mut into: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
            coder.encode_row(row, &data, &mut into);
            for (part, block) in (3..).zip(parity) {
                let content = parts.get_mut(&part).expect("it is there");
                content[from..from + block.len()].copy_from_slice(&block);
            }
        }
        parts
    }

    #[test]
    fn parts_that_go_together_are_told_from_those_that_do_not() {
        let right = parts();
        assert!(strays(layout(), &right).is_empty());
        let mut wrong = right.clone();
        wrong.get_mut(&4).expect("it is there")[BLOCK_SIZE + 1] ^= 1;
        assert_eq!(strays(layout(), &wrong), BTreeSet::from([4]));
        let mut wrong = right;
        wrong.get_mut(&1).expect("it is there")[17] ^= 1;
        assert_eq!(strays(layout(), &wrong), BTreeSet::from([3, 4]));
    }

    #[test]
    fn without_all_data_parts_nothing_is_compared() {
        let mut some = parts();
        some.get_mut(&3).expect("it is there")[0] ^= 1;
        some.remove(&1);
        assert!(strays(layout(), &some).is_empty());
        let mut some = parts();
        some.remove(&3);
        assert!(strays(layout(), &some).is_empty());
    }

    #[test]
    fn what_is_stored_beyond_a_part_is_left_out() {
        let mut part = vec![0; 10];
        fill(&mut part, 8, &[1, 2, 3, 4]);
        fill(&mut part, 20, &[9]);
        assert_eq!(part, [0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }
}
