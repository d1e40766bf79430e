//! The code against the crate reed-solomon-erasure, whose field and matrix are the
//! format, byte for byte and with every kernel that this processor has.
#![allow(clippy::unwrap_used)]

use antler_simd::{CodeError, DATA_MAX, DATA_MIN, Kernel, PARITY_MAX, PartSet, ReedSolomon};
use proptest::prelude::*;
use proptest::sample::subsequence;
use reed_solomon_erasure::galois_8;

/// Bytes that differ from place to place.
fn pattern(mut seed: u64, length: usize) -> Vec<u8> {
    let word = move || {
        seed = seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (seed >> 33) as u8
    };
    std::iter::repeat_with(word).take(length).collect()
}

/// Parts of one length, each of them off alignment by a number of its own.
struct Parts {
    memory: Vec<Vec<u8>>,
    skew: usize,
    length: usize,
}

impl Parts {
    fn new(seed: u64, count: usize, length: usize, skew: usize) -> Self {
        let room = |part: u64| pattern(seed ^ part << 40, length + 64);
        let memory = (0..count as u64).map(room).collect();
        Self {
            memory,
            skew,
            length,
        }
    }

    fn range(&self, part: usize) -> std::ops::Range<usize> {
        let start = (self.skew * (part + 1) + part) % 64;
        start..start + self.length
    }

    fn get(&self, part: usize) -> &[u8] {
        &self.memory[part][self.range(part)]
    }

    fn all(&self) -> Vec<&[u8]> {
        (0..self.memory.len()).map(|part| self.get(part)).collect()
    }

    fn all_mut(&mut self) -> Vec<&mut [u8]> {
        let ranges: Vec<_> = (0..self.memory.len())
            .map(|part| self.range(part))
            .collect();
        let parts = self.memory.iter_mut().zip(ranges);
        parts.map(|(part, range)| &mut part[range]).collect()
    }

    /// What lies around the parts, which nobody may touch.
    fn around(&self) -> Vec<Vec<u8>> {
        let around = |part: usize| {
            let (range, memory) = (self.range(part), &self.memory[part]);
            [&memory[..range.start], &memory[range.end..]].concat()
        };
        (0..self.memory.len()).map(around).collect()
    }
}

/// All parts of a code as the other crate makes them.
fn reference(data: usize, parity: usize, parts: &Parts) -> Vec<Vec<u8>> {
    let code = galois_8::ReedSolomon::new(data, parity).unwrap();
    let mut all: Vec<Vec<u8>> = parts.all().into_iter().map(<[u8]>::to_vec).collect();
    all.resize(data + parity, vec![0; parts.length]);
    // The other crate takes no empty parts.
    if parts.length > 0 {
        code.encode(&mut all).unwrap();
    }
    all
}

fn check_encode(data: usize, parity: usize, length: usize, skew: usize, seed: u64) {
    let from = Parts::new(seed, data, length, skew);
    let wanted = reference(data, parity, &from);
    for kernel in Kernel::available() {
        let code = ReedSolomon::with_kernel(data, parity, kernel).unwrap();
        let mut into = Parts::new(!seed, parity, length, skew + 5);
        let around = into.around();
        code.encode(&from.all(), &mut into.all_mut());
        assert_eq!(
            into.all(),
            wanted[data..],
            "{data}+{parity} of {length} by {kernel:?}"
        );
        assert_eq!(into.around(), around, "{kernel:?} wrote beside its outputs");
        assert!(code.verify(&from.all(), &into.all()));
        if length > 0 {
            let (part, at) = (seed as usize % parity, seed as usize % length);
            into.all_mut()[part][at] ^= 1 << (seed % 8);
            assert!(
                !code.verify(&from.all(), &into.all()),
                "a flipped bit is seen"
            );
        }
    }
}

#[test]
fn every_shape_encodes_the_same_bytes() {
    for data in DATA_MIN..=DATA_MAX {
        for parity in 1..=PARITY_MAX {
            check_encode(
                data,
                parity,
                1 + data * 13 % 300,
                data + parity,
                data as u64,
            );
        }
    }
}

#[test]
fn every_short_length_encodes_the_same_bytes() {
    for length in 0..=300 {
        check_encode(3, 1 + length % PARITY_MAX, length, length, length as u64);
    }
}

#[test]
fn the_portable_kernel_is_there_and_the_fastest_is_first() {
    let names: Vec<&str> = Kernel::available().map(Kernel::name).collect();
    assert_eq!(names.last(), Some(&"portable"));
    assert_eq!(Kernel::fastest().name(), names[0]);
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
    ] {
        assert_eq!(names.contains(&name), there, "{name}");
    }
}

#[test]
fn shapes_out_of_bounds_are_refused() {
    for (data, parity) in [(0, 1), (1, 1), (33, 1), (2, 0), (2, 9), (usize::MAX, 2)] {
        let refused = ReedSolomon::new(data, parity).unwrap_err();
        assert_eq!(refused, CodeError::Shape { data, parity });
    }
}

#[test]
fn the_bytes_are_these() {
    // They lie on disks: whatever changes, these do not.
    let code = ReedSolomon::new(4, 2).unwrap();
    let data: [&[u8]; 4] = [b"antler", b"chunks", b"blocks", b"parity"];
    let (mut p, mut q) = ([0; 6], [0; 6]);
    code.encode(&data, &mut [&mut p, &mut q]);
    assert_eq!((p, q), (EXPECTED[0], EXPECTED[1]));
}

const EXPECTED: [[u8; 6]; 2] = [[38, 206, 139, 254, 120, 224], [68, 242, 194, 204, 16, 219]];

prop_compose! {
    fn shape()(data in DATA_MIN..=DATA_MAX, parity in 1..=PARITY_MAX) -> (usize, usize) {
        (data, parity)
    }
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![0..200_usize, 1000..5000_usize, Just(4096), Just(8192)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_lengths_and_alignments_encode_the_same_bytes(
        (data, parity) in shape(), length in lengths(), skew in 0..64_usize, seed: u64,
    ) {
        check_encode(data, parity, length, skew, seed);
    }

    #[test]
    fn any_parts_that_suffice_restore_the_others(
        (data, parity, kept) in shape().prop_flat_map(|(data, parity)| {
            let all: Vec<usize> = (0..data + parity).collect();
            (Just(data), Just(parity), subsequence(all, data..data + parity))
        }),
        length in lengths(), skew in 0..64_usize, seed: u64,
    ) {
        let all = reference(data, parity, &Parts::new(seed, data, length, skew));
        let there: PartSet = kept.iter().copied().collect();
        let lost = PartSet::first(data + parity).without(there);
        let parts: Vec<Option<&[u8]>> = (0..data + parity)
            .map(|part| there.contains(part).then(|| all[part].as_slice()))
            .collect();
        for kernel in Kernel::available() {
            let mut code = ReedSolomon::with_kernel(data, parity, kernel).unwrap();
            // All at once, then one by one: another pattern and the same again.
            let some = [lost].into_iter().chain(lost.iter().map(|part| [part].into_iter().collect()));
            for wanted in some.flat_map(|wanted: PartSet| [wanted, wanted]) {
                let mut into = Parts::new(!seed, wanted.len(), length, skew + 3);
                let around = into.around();
                code.reconstruct(&parts, wanted, &mut into.all_mut()).unwrap();
                let right: Vec<&[u8]> = wanted.iter().map(|part| all[part].as_slice()).collect();
                prop_assert_eq!(into.all(), right, "{}+{} {:?} by {:?}", data, parity, wanted, kernel);
                prop_assert_eq!(into.around(), around);
            }
        }
    }

    #[test]
    fn one_loss_more_than_parity_is_an_error_and_nothing_is_written(
        (data, parity, kept) in shape().prop_flat_map(|(data, parity)| {
            let all: Vec<usize> = (0..data + parity).collect();
            (Just(data), Just(parity), subsequence(all, 0..data))
        }),
        seed: u64,
    ) {
        let all = reference(data, parity, &Parts::new(seed, data, 33, 0));
        let there: PartSet = kept.iter().copied().collect();
        let parts: Vec<Option<&[u8]>> = (0..data + parity)
            .map(|part| there.contains(part).then(|| all[part].as_slice()))
            .collect();
        let lost = PartSet::first(data + parity).without(there);
        let mut code = ReedSolomon::new(data, parity).unwrap();
        for part in lost.iter() {
            let mut into = [0xa5; 33];
            let wanted = [part].into_iter().collect();
            let error = code.reconstruct(&parts, wanted, &mut [&mut into]);
            prop_assert_eq!(error, Err(CodeError::Lost { known: there.len(), needed: data }));
            prop_assert_eq!(into, [0xa5; 33]);
        }
    }

    #[test]
    fn parts_known_to_be_zeros_need_not_be_there(
        (data, parity) in shape(), filled in 0..=DATA_MAX, seed: u64, picks: u64,
    ) {
        let filled = filled.min(data);
        let mut from = Parts::new(seed, data, 100, 0);
        from.all_mut()[filled..].iter_mut().for_each(|part| part.fill(0));
        let all = reference(data, parity, &from);
        let code = ReedSolomon::new(data, parity).unwrap();
        let mut short = Parts::new(!seed, parity, 100, 0);
        code.encode(&from.all()[..filled], &mut short.all_mut());
        prop_assert_eq!(short.all(), &all[data..]);

        let zeros = PartSet::first(data).without(PartSet::first(filled));
        let content: Vec<usize> = (0..data + parity).filter(|part| !zeros.contains(*part)).collect();
        // Any `filled` of the parts with content, by a rotation of them.
        let at = picks as usize % content.len();
        let kept: PartSet = content.iter().cycle().skip(at).take(filled).copied().collect();
        let wanted: PartSet = content.into_iter().filter(|part| !kept.contains(*part)).collect();
        let decoder = code.decoder(kept, zeros, wanted).unwrap();
        prop_assert_eq!((decoder.sources(), decoder.wanted()), (kept, wanted));
        let sources: Vec<&[u8]> = kept.iter().map(|part| all[part].as_slice()).collect();
        let mut into = Parts::new(!seed, wanted.len(), 100, 1);
        decoder.decode(&sources, &mut into.all_mut());
        let right: Vec<&[u8]> = wanted.iter().map(|part| all[part].as_slice()).collect();
        prop_assert_eq!(into.all(), right);
        if let Some(one) = kept.iter().next() {
            let fewer = kept.without([one].into_iter().collect());
            prop_assert!(code.decoder(fewer, zeros, wanted).is_err());
        }
    }
}
