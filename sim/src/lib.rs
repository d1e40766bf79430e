//! The simulator of Antler clusters.
#![forbid(unsafe_code)]

pub mod disk;
