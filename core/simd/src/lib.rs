//! Reed-Solomon codes over GF(2^8), with the vector instructions that the
//! processor has.
//!
//! Owns the arithmetic: [`ReedSolomon`] makes parity parts of data parts and any
//! lost part of as many others as there are data parts; [`PartSet`] names parts;
//! [`Kernel`] is the way in which bytes are multiplied, chosen at run time. Leaves
//! to `antler-core` what a part is, how long, and where it lies.
//!
//! **The field and the matrix are a format**: bytes on disks depend on them. They
//! are those of the crate reed-solomon-erasure 6 (polynomial x^8+x^4+x^3+x^2+1; a
//! Vandermonde matrix made systematic), and the tests compare with it byte for
//! byte. Every kernel gives the same bytes.
//!
//! This is the only crate of the house with `unsafe`, all of it in `x86`: loads,
//! stores, and calls of functions that are compiled for more than the least
//! processor.
#![deny(unsafe_code)]

mod code;
mod field;
mod kernel;
mod matrix;
mod parts;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector loads and stores; the argument is there")]
mod x86;

pub use code::{CodeError, DATA_MAX, DATA_MIN, Decoder, PARITY_MAX, ReedSolomon};
pub use kernel::Kernel;
pub use parts::PartSet;
