//! [`Kernel`]: sums of products of slices, in the fastest way that there is here.
//!
//! Owns the choice of the way, the portable way and the ends of slices that are
//! no whole vector. Leaves the vector instructions to `x86`.
//! **Invariant: every kernel writes the same bytes.**

use crate::field::{Nibbles, REDUCTION};
use crate::matrix::Matrix;
#[cfg(target_arch = "x86_64")]
use crate::x86;

/// Rows that one pass over the inputs makes; a code has no more parity parts.
pub(crate) const ROWS_MAX: usize = 8;

/// A way to multiply slices by elements of the field and sum them up.
///
/// There is a value only for what this processor can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kernel(Way);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Ssse3(x86::Ssse3),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
}

impl Kernel {
    /// Every kernel for this processor, fastest first. The last is the portable one.
    pub fn available() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let vector = [
            x86::Avx2::detect().map(Way::Avx2),
            x86::Ssse3::detect().map(Way::Ssse3),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let vector: [Option<Way>; 0] = [];
        let ways = vector.into_iter().flatten().chain([Way::Portable]);
        ways.map(Self)
    }

    /// The fastest kernel for this processor.
    #[must_use]
    pub fn fastest() -> Self {
        Self::available()
            .next()
            .expect("the portable one is always there")
    }

    /// What it is made of, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Way::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3(_) => "ssse3",
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(_) => "avx2",
        }
    }

    /// Makes each output the sum of the inputs, each multiplied by its factor for
    /// that output. Inputs may be fewer than `factors` has columns.
    pub(crate) fn multiply(self, factors: &Factors, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) {
        assert_eq!(outputs.len(), factors.rows, "an output for each row");
        assert!(inputs.len() <= factors.columns(), "a column for each input");
        let Some(length) = outputs.first().map(|output| output.len()) else {
            return;
        };
        let equal = |slice: &[u8]| slice.len() == length;
        assert!(
            inputs.iter().all(|input| equal(input)),
            "slices of one length"
        );
        assert!(
            outputs.iter().all(|output| equal(output)),
            "slices of one length"
        );
        let done = match self.0 {
            Way::Portable => portable(factors, inputs, outputs),
            #[cfg(target_arch = "x86_64")]
            Way::Ssse3(ssse3) => ssse3.multiply(factors, inputs, outputs),
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(avx2) => avx2.multiply(factors, inputs, outputs),
        };
        bytes(factors, inputs, outputs, done);
    }
}

/// What each input is multiplied by for each output, in the forms that kernels use.
/// Column by column, the rows of a column side by side.
#[derive(Clone, Debug)]
pub(crate) struct Factors {
    rows: usize,
    plain: Vec<u8>,
    nibbles: Vec<Nibbles>,
}

impl Factors {
    /// From a matrix of at most [`ROWS_MAX`] rows.
    pub(crate) fn new(matrix: &Matrix) -> Self {
        let rows = matrix.rows();
        assert!((1..=ROWS_MAX).contains(&rows), "{rows} rows");
        let cells =
            (0..matrix.columns()).flat_map(|column| (0..rows).map(move |row| (row, column)));
        let plain: Vec<u8> = cells.map(|(row, column)| matrix.row(row)[column]).collect();
        Self {
            rows,
            nibbles: plain.iter().copied().map(Nibbles::of).collect(),
            plain,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn nibbles(&self) -> &[Nibbles] {
        &self.nibbles
    }

    fn columns(&self) -> usize {
        self.plain.len() / self.rows
    }
}

/// The rest of the slices from `from` on, byte by byte.
fn bytes(factors: &Factors, inputs: &[&[u8]], outputs: &mut [&mut [u8]], from: usize) {
    for (row, output) in outputs.iter_mut().enumerate() {
        let column = |at: usize| factors.nibbles[at * factors.rows + row];
        for (at, byte) in output.iter_mut().enumerate().skip(from) {
            let products = inputs
                .iter()
                .enumerate()
                .map(|(c, input)| column(c).product(input[at]));
            *byte = products.fold(0, |sum, product| sum ^ product);
        }
    }
}

/// Words that the portable way takes at once; a compiler makes vectors of them.
const WORDS: usize = 4;
const STEP: usize = WORDS * 8;
type Lanes = [u64; WORDS];

fn portable(factors: &Factors, inputs: &[&[u8]], outputs: &mut [&mut [u8]]) -> usize {
    let whole = outputs[0].len() / STEP * STEP;
    for at in (0..whole).step_by(STEP) {
        let mut sums = [[0; WORDS]; ROWS_MAX];
        let sums = &mut sums[..factors.rows];
        for (input, column) in inputs.iter().zip(factors.plain.chunks_exact(factors.rows)) {
            add_products(sums, column, load(&input[at..at + STEP]));
        }
        for (output, sum) in outputs.iter_mut().zip(sums) {
            store(&mut output[at..at + STEP], sum);
        }
    }
    whole
}

/// Adds to each sum the product of its factor and `lanes`: the sum of `lanes`
/// times 1, 2, 4, ... for the bits that the factor has.
fn add_products(sums: &mut [Lanes], factors: &[u8], mut lanes: Lanes) {
    for bit in 0..8 {
        for (sum, factor) in sums.iter_mut().zip(factors) {
            let mask = u64::from(factor >> bit & 1).wrapping_neg();
            for (sum, lane) in sum.iter_mut().zip(lanes) {
                *sum ^= lane & mask;
            }
        }
        lanes = lanes.map(double);
    }
}

/// Twice each of the eight elements in a word.
fn double(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let carries = word & (ONES << 7);
    // 0xff in every byte that had its highest bit set.
    let mask = (carries << 1).wrapping_sub(carries >> 7);
    ((word & !(ONES << 7)) << 1) ^ (mask & (ONES * REDUCTION as u64))
}

fn load(bytes: &[u8]) -> Lanes {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

fn store(bytes: &mut [u8], lanes: &Lanes) {
    let (words, _) = bytes.as_chunks_mut::<8>();
    for (word, lane) in words.iter_mut().zip(lanes) {
        *word = lane.to_le_bytes();
    }
}
