//! [`ReedSolomon`]: a code of data and parity parts, and [`Decoder`], what makes
//! lost parts of others.
//!
//! Owns shapes, patterns of loss and their matrices. Leaves bytes to `kernel`.
//! **Invariant: of fewer parts than the code has data parts nothing is made.**

use crate::kernel::{Factors, Kernel, ROWS_MAX};
use crate::matrix::Matrix;
use crate::parts::PartSet;

/// The fewest data parts.
pub const DATA_MIN: usize = 2;
/// The most data parts.
pub const DATA_MAX: usize = 32;
/// The most parity parts; the fewest is 1.
pub const PARITY_MAX: usize = 8;
const PARTS_MAX: usize = DATA_MAX + PARITY_MAX;

const _: () = assert!(PARITY_MAX <= ROWS_MAX, "one pass makes every parity part");
const _: () = assert!(PARTS_MAX < 64, "a set of parts has 64 bits");

/// Why there is no code, or no way back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CodeError {
    /// Such a code is not supported.
    #[error(
        "{data}+{parity} parts are not supported: {DATA_MIN} to {DATA_MAX} data, 1 to {PARITY_MAX} parity"
    )]
    Shape {
        /// Data parts asked for.
        data: usize,
        /// Parity parts asked for.
        parity: usize,
    },
    /// Too many parts are lost.
    #[error("{known} parts are left of at least {needed}")]
    Lost {
        /// Parts that are there or known to be zeros.
        known: usize,
        /// Parts that it takes.
        needed: usize,
    },
}

/// A code: how parity parts are made of data parts, and lost parts of others.
///
/// Parts are numbered from 0, data parts first. All slices of one call have one
/// length, any. Nothing is allocated by [`ReedSolomon::encode`],
/// [`ReedSolomon::verify`] and [`Decoder::decode`]; [`ReedSolomon::reconstruct`]
/// allocates when the pattern of loss is not that of the call before.
#[derive(Clone, Debug)]
pub struct ReedSolomon {
    data: usize,
    parity: usize,
    kernel: Kernel,
    matrix: Matrix,
    factors: Factors,
    /// The decoder used last: losses come in long runs of one pattern.
    last: Option<Decoder>,
}

impl ReedSolomon {
    /// A code of `data` ([`DATA_MIN`]..=[`DATA_MAX`]) and `parity`
    /// (1..=[`PARITY_MAX`]) parts, with the fastest kernel.
    ///
    /// # Errors
    /// [`CodeError::Shape`] for other numbers.
    pub fn new(data: usize, parity: usize) -> Result<Self, CodeError> {
        Self::with_kernel(data, parity, Kernel::fastest())
    }

    /// The same with a kernel of choice, for tests and benchmarks.
    ///
    /// # Errors
    /// As [`ReedSolomon::new`].
    pub fn with_kernel(data: usize, parity: usize, kernel: Kernel) -> Result<Self, CodeError> {
        if !(DATA_MIN..=DATA_MAX).contains(&data) || !(1..=PARITY_MAX).contains(&parity) {
            return Err(CodeError::Shape { data, parity });
        }
        let matrix = Matrix::systematic(data, parity);
        Ok(Self {
            data,
            parity,
            kernel,
            factors: Factors::new(&matrix.select(data..data + parity)),
            matrix,
            last: None,
        })
    }

    /// How many data parts.
    #[must_use]
    pub fn data(&self) -> usize {
        self.data
    }

    /// How many parity parts.
    #[must_use]
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// How many parts.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.data + self.parity
    }

    /// Makes the parity parts. Data parts that are missing at the end of `data`
    /// count as zeros.
    ///
    /// # Panics
    /// When there are too many data parts, not all parity parts, or the lengths
    /// differ: a bug of the caller.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert!(data.len() <= self.data, "{} data parts", data.len());
        self.kernel.multiply(&self.factors, data, parity);
    }

    /// Whether the parity parts are those of the data parts. Data parts that are
    /// missing at the end count as zeros.
    ///
    /// # Panics
    /// As [`ReedSolomon::encode`].
    #[must_use]
    pub fn verify(&self, data: &[&[u8]], parity: &[&[u8]]) -> bool {
        const STEP: usize = 1024;
        assert!(data.len() <= self.data, "{} data parts", data.len());
        assert_eq!(parity.len(), self.parity, "every parity part");
        let length = parity[0].len();
        let mut all = data.iter().chain(parity);
        assert!(all.all(|part| part.len() == length), "slices of one length");
        let mut buffers = [[0; STEP]; PARITY_MAX];
        (0..length).step_by(STEP).all(|at| {
            let range = at..length.min(at + STEP);
            let mut pieces: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
            for (piece, part) in pieces.iter_mut().zip(data) {
                *piece = &part[range.clone()];
            }
            let mut made = buffers.each_mut().map(|buffer| &mut buffer[..range.len()]);
            let made = &mut made[..self.parity];
            self.kernel
                .multiply(&self.factors, &pieces[..data.len()], made);
            made.iter()
                .zip(parity)
                .all(|(made, part)| **made == part[range.clone()])
        })
    }

    /// What makes the parts `wanted` of the parts `present`, if those in `zeros`
    /// are known to be nothing but zeros.
    ///
    /// It takes as many parts as the code has data parts, and prefers those in
    /// `zeros`, which need not be read.
    ///
    /// # Errors
    /// [`CodeError::Lost`] when `present` and `zeros` are fewer than that.
    ///
    /// # Panics
    /// When a part is named that the code does not have, more than 8 are wanted,
    /// or none.
    pub fn decoder(
        &self,
        present: PartSet,
        zeros: PartSet,
        wanted: PartSet,
    ) -> Result<Decoder, CodeError> {
        let all = PartSet::first(self.parts());
        let named = present.union(zeros).union(wanted);
        assert!(
            named.without(all).is_empty(),
            "{named:?} of {} parts",
            self.parts()
        );
        let known = zeros.iter().chain(present.without(zeros).iter());
        let known: PartSet = known.take(self.data).collect();
        if known.len() < self.data {
            let (known, needed) = (known.len(), self.data);
            return Err(CodeError::Lost { known, needed });
        }
        Ok(Decoder {
            present,
            zeros,
            wanted,
            sources: known.without(zeros),
            kernel: self.kernel,
            factors: Factors::new(&self.way_back(known, zeros, wanted)),
        })
    }

    /// The matrix that makes `wanted` of those `known` parts that are not `zeros`:
    /// columns of zeros would add nothing.
    fn way_back(&self, known: PartSet, zeros: PartSet, wanted: PartSet) -> Matrix {
        let square = self.matrix.select(known.iter());
        let inverse = square.inverted().expect("any rows can be inverted");
        let columns = (0..).zip(known.iter());
        let read = columns.filter(|(_, part)| !zeros.contains(*part));
        let read: Vec<usize> = read.map(|(column, _)| column).collect();
        let back = self.matrix.select(wanted.iter()).times(&inverse);
        back.select_columns(&read)
    }

    /// Makes the parts `wanted`, in order, `into` slices, of those that are there:
    /// `parts` has an entry for every part of the code. The first that suffice are
    /// read.
    ///
    /// # Errors
    /// [`CodeError::Lost`] when there are fewer than the code has data parts;
    /// nothing is written then.
    ///
    /// # Panics
    /// As [`ReedSolomon::decoder`] and [`Decoder::decode`].
    pub fn reconstruct(
        &mut self,
        parts: &[Option<&[u8]>],
        wanted: PartSet,
        into: &mut [&mut [u8]],
    ) -> Result<(), CodeError> {
        assert_eq!(parts.len(), self.parts(), "an entry for every part");
        let present = (0..parts.len())
            .filter(|&part| parts[part].is_some())
            .collect();
        let decoder = match self.last.take() {
            Some(last) if last.fits(present, PartSet::EMPTY, wanted) => last,
            _ => self.decoder(present, PartSet::EMPTY, wanted)?,
        };
        let decoder = self.last.insert(decoder);
        let mut sources: [&[u8]; DATA_MAX] = [&[]; DATA_MAX];
        let found = decoder.sources().iter().filter_map(|part| parts[part]);
        for (source, part) in sources.iter_mut().zip(found) {
            *source = part;
        }
        decoder.decode(&sources[..self.data], into);
        Ok(())
    }
}

/// What makes certain parts of certain others.
#[derive(Clone, Debug)]
pub struct Decoder {
    present: PartSet,
    zeros: PartSet,
    wanted: PartSet,
    sources: PartSet,
    kernel: Kernel,
    factors: Factors,
}

impl Decoder {
    /// The parts that it reads.
    #[must_use]
    pub fn sources(&self) -> PartSet {
        self.sources
    }

    /// The parts that it makes.
    #[must_use]
    pub fn wanted(&self) -> PartSet {
        self.wanted
    }

    /// Whether it is what [`ReedSolomon::decoder`] would make of these.
    #[must_use]
    pub fn fits(&self, present: PartSet, zeros: PartSet, wanted: PartSet) -> bool {
        (self.present, self.zeros, self.wanted) == (present, zeros, wanted)
    }

    /// Makes the wanted parts, in order, of the sources, in order.
    ///
    /// # Panics
    /// When there are not as many slices as parts or their lengths differ: a bug
    /// of the caller.
    pub fn decode(&self, sources: &[&[u8]], wanted: &mut [&mut [u8]]) {
        assert_eq!(
            sources.len(),
            self.sources.len(),
            "a slice for every source"
        );
        self.kernel.multiply(&self.factors, sources, wanted);
    }
}
