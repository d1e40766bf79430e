//! The reference file system that the judges compare with: what names, attributes
//! and bytes may be, told only by what programs asked and were answered.

pub mod bytes;
pub mod content;
pub mod names;
