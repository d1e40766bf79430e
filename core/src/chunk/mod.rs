//! Chunks on a disk.

pub mod operation;
