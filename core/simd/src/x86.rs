//! The kernels of x86-64: `pshufb` looks up 16 (SSSE3) or 32 (AVX2) products of
//! half a byte at once.
//!
//! Owns all `unsafe` of the crate. The argument for it, in two parts:
//! - [`Ssse3`] and [`Avx2`] exist only as what `detect` returned, so a function
//!   that is compiled for a feature runs only where the processor has it.
//! - Loads and stores are unaligned ones, of whole vectors that end at most at
//!   `length`, and `multiply` asserts that no slice is shorter.
//!
//! The inputs are read once, side by side, whatever the number of rows: the sums
//! of all rows stay in registers. Two vectors at a time make up a cache line (AVX2),
//! so that slices which fall into the same lines of the cache, as pages of equal
//! offsets do, don't push each other out half read. Taking the inputs in smaller
//! pieces or groups has been tried and gained nothing.

use crate::field::Nibbles;
use crate::kernel::Factors;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_setzero_si128,
    _mm_shuffle_epi8, _mm_srli_epi64, _mm_storeu_si128, _mm_xor_si128, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256, _mm256_xor_si256,
};

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $feature:tt, $vector:ty, $broadcast:ident,
     $load:ident, $store:ident, $set:ident, $zero:ident,
     $and:ident, $xor:ident, $shift:ident, $shuffle:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $name(());

        impl $name {
            /// A value if the processor has the feature.
            pub(crate) fn detect() -> Option<Self> {
                std::arch::is_x86_feature_detected!($feature).then_some(Self(()))
            }

            /// Sums up products for whole vectors. Returns where it stopped.
            pub(crate) fn multiply(
                self,
                factors: &Factors,
                inputs: &[&[u8]],
                outputs: &mut [&mut [u8]],
            ) -> usize {
                // Sums and halves must fit 16 registers.
                match factors.rows() {
                    1 => Self::rows::<1, 4>(factors, inputs, outputs),
                    2 => Self::rows::<2, 2>(factors, inputs, outputs),
                    3 => Self::rows::<3, 2>(factors, inputs, outputs),
                    4 => Self::rows::<4, 2>(factors, inputs, outputs),
                    5 => Self::rows::<5, 1>(factors, inputs, outputs),
                    6 => Self::rows::<6, 1>(factors, inputs, outputs),
                    7 => Self::rows::<7, 1>(factors, inputs, outputs),
                    8 => Self::rows::<8, 1>(factors, inputs, outputs),
                    rows => unreachable!("{rows} rows"),
                }
            }

            fn rows<const R: usize, const W: usize>(
                factors: &Factors,
                inputs: &[&[u8]],
                outputs: &mut [&mut [u8]],
            ) -> usize {
                let (columns, _) = factors.nibbles().as_chunks::<R>();
                let columns = &columns[..inputs.len()];
                let outputs: &mut [&mut [u8]; R] = outputs.try_into().expect("a row each");
                let length = outputs[0].len() / size_of::<[$vector; W]>() * size_of::<[$vector; W]>();
                let fits = |slice: &[u8]| slice.len() >= length;
                assert!(inputs.iter().all(|input| fits(input)), "no slice is shorter");
                assert!(outputs.iter().all(|output| fits(output)), "no slice is shorter");
                // SAFETY: a value of this type proves the feature, and only `multiply`
                // of such a value comes here. Every slice has at least `length` bytes.
                unsafe { Self::vectors::<R, W>(columns, inputs, outputs, length) }
                length
            }

            /// # Safety
            /// The processor has the feature; every slice has at least `length`
            /// bytes, a multiple of W vectors.
            #[target_feature(enable = $feature)]
            unsafe fn vectors<const R: usize, const W: usize>(
                columns: &[[Nibbles; R]],
                inputs: &[&[u8]],
                outputs: &mut [&mut [u8]; R],
                length: usize,
            ) {
                let half = $set(15);
                for at in (0..length).step_by(size_of::<[$vector; W]>()) {
                    let mut sums = [[$zero(); W]; R];
                    for (input, column) in inputs.iter().zip(columns) {
                        let mut low = [$zero(); W];
                        let mut high = [$zero(); W];
                        for w in 0..W {
                            // SAFETY: `at` and the W vectors from there on are within
                            // `length`, and so within the input.
                            let bytes = unsafe {
                                $load(input.as_ptr().add(at).cast::<$vector>().add(w))
                            };
                            low[w] = $and(bytes, half);
                            high[w] = $and($shift::<4>(bytes), half);
                        }
                        for (sum, nibbles) in sums.iter_mut().zip(column) {
                            let (lows, highs) = ($broadcast(&nibbles.low), $broadcast(&nibbles.high));
                            for w in 0..W {
                                let product = $xor($shuffle(lows, low[w]), $shuffle(highs, high[w]));
                                sum[w] = $xor(sum[w], product);
                            }
                        }
                    }
                    for (output, sum) in outputs.iter_mut().zip(&sums) {
                        for w in 0..W {
                            // SAFETY: as above, within the output.
                            unsafe {
                                $store(output.as_mut_ptr().add(at).cast::<$vector>().add(w), sum[w]);
                            }
                        }
                    }
                }
            }
        }
    };
}

#[target_feature(enable = "ssse3")]
fn table_128(table: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes, loaded without alignment.
    unsafe { _mm_loadu_si128(table.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn table_256(table: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes, loaded without alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

kernel!(
    /// The proof that the processor has SSSE3.
    Ssse3, "ssse3", __m128i, table_128, _mm_loadu_si128, _mm_storeu_si128, _mm_set1_epi8,
    _mm_setzero_si128, _mm_and_si128, _mm_xor_si128, _mm_srli_epi64, _mm_shuffle_epi8
);
kernel!(
    /// The proof that the processor has AVX2.
    Avx2, "avx2", __m256i, table_256, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_and_si256, _mm256_xor_si256, _mm256_srli_epi64, _mm256_shuffle_epi8
);
