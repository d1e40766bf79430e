//! Erasure-coded chunks in memory: every byte has its place, any losses up to the
//! number of parity parts leave all readable, and more are told as loss.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs, unreachable_pub)]

use antler_core::chunk::erasure::{StripeCoder, StripeError, encode_chunk, rebuild_part};
use antler_core::chunk::geometry::{Layout, StripeShape};
use antler_core::chunk::{CodeError, PartSet};
use antler_core::limits::{BLOCK_SIZE, CHUNK_SIZE, UNIT_SIZE};
use antler_core::rng::Rng;
use proptest::prelude::*;
use proptest::sample::subsequence;
use std::convert::Infallible;

const BLOCK: u32 = BLOCK_SIZE as u32;

/// Bytes that differ from place to place.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let words = std::iter::repeat_with(move || rng.word().to_le_bytes());
    words.flatten().take(length).collect()
}

/// The parts of a chunk, each as long as it should be.
fn encode(layout: Layout, chunk: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new(); layout.shape().parts()];
    let read = |block: u32, into: &mut [u8]| -> Result<(), Infallible> {
        into.copy_from_slice(&chunk[(block * BLOCK) as usize..][..into.len()]);
        Ok(())
    };
    encode_chunk(layout, read, |part, row, block| {
        assert_eq!(
            parts[part].len(),
            (row * BLOCK) as usize,
            "rows come in order"
        );
        parts[part].extend_from_slice(block);
        Ok(())
    })
    .unwrap();
    parts
}

/// A range of a part as a store reads it: zeros behind its end.
fn read(part: &[u8], range: &std::ops::Range<u32>) -> Vec<u8> {
    let (start, end) = (range.start as usize, range.end as usize);
    assert!(start.is_multiple_of(UNIT_SIZE) && end.is_multiple_of(UNIT_SIZE));
    let mut bytes = part[start..end.min(part.len())].to_vec();
    bytes.resize(end - start, 0);
    bytes
}

fn read_range(
    layout: Layout,
    parts: &[Vec<u8>],
    range: std::ops::Range<u32>,
    present: PartSet,
) -> Result<Vec<u8>, CodeError> {
    let plan = layout.plan(range, present)?;
    let mut found = Vec::new();
    for wanted in &plan.reads {
        assert!(present.contains(wanted.part), "what is lost can't be read");
        found.push(read(&parts[wanted.part], &wanted.range));
    }
    let found: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
    let mut into = vec![0xa5; plan.range.len()];
    StripeCoder::new(layout).assemble(&plan, &found, &mut into);
    Ok(into)
}

fn rebuild(
    layout: Layout,
    parts: &[Vec<u8>],
    lost: usize,
    present: PartSet,
) -> Result<Vec<u8>, StripeError<Infallible>> {
    let mut made = Vec::new();
    let read = |part: usize, row: u32, into: &mut [u8]| {
        assert!(present.contains(part), "what is lost can't be read");
        into.copy_from_slice(&parts[part][(row * BLOCK) as usize..][..into.len()]);
        Ok(())
    };
    rebuild_part(layout, lost, present, read, |row, block| {
        assert_eq!(made.len(), (row * BLOCK) as usize, "rows come in order");
        made.extend_from_slice(block);
        Ok(())
    })?;
    Ok(made)
}

/// What each parity byte must be, by the code's definition and no code of ours: the
/// parity of whole data parts, filled up with zeros.
fn parity_of_whole_parts(layout: Layout, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let shape = layout.shape();
    let code = reed_solomon_erasure::galois_8::ReedSolomon::new(shape.data(), shape.parity());
    let length = parts[0].len();
    if length == 0 {
        // The other code takes no empty parts; of nothing the parity is nothing.
        return vec![Vec::new(); shape.parity()];
    }
    let mut whole = parts.to_vec();
    whole.iter_mut().for_each(|part| part.resize(length, 0));
    code.unwrap().encode(&mut whole).unwrap();
    whole.split_off(shape.data())
}

fn shapes() -> impl Strategy<Value = StripeShape> {
    let any = (2..=32_u8, 1..=8_u8);
    let usual = prop_oneof![Just((4, 2)), Just((8, 2)), Just((8, 3)), Just((2, 1))];
    prop_oneof![any, usual].prop_map(|(data, parity)| StripeShape::new(data, parity).unwrap())
}

/// Lengths about the ends of units, blocks and rows, of up to a few rows.
fn lengths(shape: StripeShape) -> impl Strategy<Value = u64> {
    let row = shape.data() as u64 * BLOCK_SIZE as u64;
    let near = (0..=2 * shape.data() as u64 + 3, 0..=2_u64);
    let near =
        near.prop_map(|(blocks, about)| (blocks * BLOCK_SIZE as u64 + about).saturating_sub(1));
    prop_oneof![0..=row * 5 / 2, near, 0..=10_000_u64]
}

/// A layout, parts of it to lose that parity covers, more than those, and a seed.
fn cases() -> impl Strategy<Value = (Layout, PartSet, PartSet, u64)> {
    shapes().prop_flat_map(|shape| {
        let (all, parity) = ((0..shape.parts()).collect::<Vec<_>>(), shape.parity());
        let set = |parts: Vec<usize>| parts.into_iter().collect::<PartSet>();
        let lost = subsequence(all.clone(), 0..=parity).prop_map(set);
        let more = subsequence(all, parity + 1..=shape.parts()).prop_map(set);
        let layout = lengths(shape).prop_map(move |length| Layout::new(shape, length));
        (layout, lost, more, any::<u64>())
    })
}

#[test]
fn a_chunk_without_content_has_empty_parts() {
    let layout = Layout::new(StripeShape::new(4, 2).unwrap(), 0);
    let parts = encode(layout, &[]);
    assert_eq!(parts, vec![Vec::<u8>::new(); 6]);
    assert_eq!(parts[4..], parity_of_whole_parts(layout, &parts));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_loss_that_parity_covers_restores_everything((layout, lost, more, seed) in cases()) {
        let shape = layout.shape();
        let chunk = pattern(seed, layout.valid() as usize);
        let parts = encode(layout, &chunk);
        for (index, part) in parts.iter().enumerate() {
            prop_assert_eq!(part.len(), layout.part_length(index) as usize);
        }
        prop_assert_eq!(&parts[shape.data()..], parity_of_whole_parts(layout, &parts));
        let present = shape.all().without(lost);
        prop_assert_eq!(read_range(layout, &parts, 0..u32::MAX, present), Ok(chunk.clone()));
        for part in lost.iter() {
            prop_assert_eq!(&rebuild(layout, &parts, part, present).unwrap(), &parts[part]);
        }
        let mut rng = Rng::new(seed);
        for _ in 0..6 {
            let start = rng.below(chunk.len() as u64 + 1) as usize;
            let end = start + rng.below((chunk.len() - start) as u64 + 1) as usize;
            let end = end.min(start + [10, 5000, 300_000, end][rng.below(4) as usize]);
            let range = start as u32..end as u32;
            prop_assert_eq!(read_range(layout, &parts, range, present).unwrap(), &chunk[start..end]);
        }
        check_loss(layout, &chunk, &parts, more)?;
    }

    #[test]
    fn every_byte_has_one_place(
        (shape, length) in shapes().prop_flat_map(|shape| (Just(shape), 0..=CHUNK_SIZE)),
        picks: [u32; 8],
    ) {
        let layout = Layout::new(shape, length);
        let content: u64 = (0..shape.data()).map(|part| u64::from(layout.part_length(part))).sum();
        prop_assert_eq!(content, length);
        for part in 0..shape.parts() {
            let rows = (0..layout.rows()).map(|row| layout.block_length(part, row) as u32);
            prop_assert_eq!(rows.sum::<u32>(), layout.part_length(part));
            prop_assert!(layout.part_length(part) <= layout.part_length(0));
        }
        for pick in picks.iter().filter(|_| length > 0) {
            let offset = pick % length as u32;
            let (part, at) = layout.place(offset);
            let block = offset / BLOCK;
            prop_assert_eq!(part, block as usize % shape.data());
            prop_assert_eq!(at / BLOCK, block / shape.data() as u32);
            prop_assert_eq!(layout.offset_of(part, at), Some(offset));
        }
        let (from, to) = (picks[0] % (CHUNK_SIZE as u32 + 1), picks[1] % (CHUNK_SIZE as u32 + 1));
        let mut next = from;
        for piece in layout.pieces(from..to) {
            prop_assert_eq!(piece.offset, next);
            prop_assert!(piece.range.end <= layout.block_length(piece.part, piece.row));
            let first = piece.row * BLOCK + piece.range.start as u32;
            prop_assert_eq!(layout.place(next), (piece.part, first));
            next += piece.range.len() as u32;
        }
        prop_assert_eq!(next, from.max(to.min(layout.valid())));
    }
}

/// Of more losses than there is parity: a byte is right, or its loss is told.
fn check_loss(
    layout: Layout,
    chunk: &[u8],
    parts: &[Vec<u8>],
    lost: PartSet,
) -> Result<(), TestCaseError> {
    let shape = layout.shape();
    let present = shape.all().without(lost);
    let empty = (0..shape.parts()).filter(|&part| layout.part_length(part) == 0);
    let lost_content = lost.without(empty.collect());
    // What a part without content says is known without it.
    let gone = lost_content.len() > shape.parity();
    for part in lost.iter() {
        match rebuild(layout, parts, part, present) {
            Ok(made) => {
                prop_assert!(!gone || layout.part_length(part) == 0);
                prop_assert_eq!(&made, &parts[part]);
            }
            Err(error) => {
                prop_assert!(gone, "{:?} lost of {:?}", lost, layout);
                let told = matches!(error, StripeError::Lost(CodeError::Lost { .. }));
                prop_assert!(told);
            }
        }
    }
    for offset in (0..chunk.len()).step_by(BLOCK_SIZE) {
        let end = chunk.len().min(offset + BLOCK_SIZE);
        let (part, _) = layout.place(offset as u32);
        let content = read_range(layout, parts, offset as u32..end as u32, present);
        match content {
            Ok(content) => prop_assert_eq!(content, &chunk[offset..end]),
            Err(_) => prop_assert!(lost.contains(part) && gone),
        }
    }
    let lost_data = lost_content.intersection(PartSet::first(shape.data()));
    if gone && !lost_data.is_empty() {
        let whole = read_range(layout, parts, 0..u32::MAX, present);
        let told = matches!(whole, Err(CodeError::Lost { .. }));
        prop_assert!(told, "loss is told");
    }
    Ok(())
}

#[test]
fn a_whole_chunk_comes_back() {
    let shape = StripeShape::new(8, 3).unwrap();
    let layout = Layout::new(shape, CHUNK_SIZE);
    let chunk = pattern(5, CHUNK_SIZE as usize);
    let parts = encode(layout, &chunk);
    assert!(
        parts
            .iter()
            .all(|part| part.len() == CHUNK_SIZE as usize / 8)
    );
    let present = shape.all().without([0, 5, 9].into_iter().collect());
    for part in [0, 5, 9] {
        assert!(rebuild(layout, &parts, part, present).unwrap() == parts[part]);
    }
    assert!(read_range(layout, &parts, 0..u32::MAX, present).unwrap() == chunk);
}

#[test]
fn an_error_of_the_callers_own_ends_it() {
    let layout = Layout::new(StripeShape::new(2, 1).unwrap(), 3 * CHUNK_SIZE / 4);
    let mut reads = 0;
    let read = |_: u32, _: &mut [u8]| {
        reads += 1;
        if reads < 4 { Ok(()) } else { Err("it broke") }
    };
    assert_eq!(
        encode_chunk(layout, read, |_, _, _| Ok(())),
        Err("it broke")
    );
    assert_eq!(reads, 4);
    let present = [0, 2].into_iter().collect();
    let ended = rebuild_part(layout, 1, present, |_, _, _| Ok(()), |_, _| Err("full"));
    assert_eq!(ended, Err(StripeError::Other("full")));
}
