//! Chunks on a disk: [`ChunkStore`], the code that keeps a chunkserver's parts on
//! the files of one disk and brings them back after any crash.
//!
//! The store owns formats, recovery and space. It leaves to the chunkserver
//! (`crate::chunkserver`) who may do what and when, and to drivers the waiting.
//! **Invariant: after a crash every part is exactly as at its last commit, or at
//! a later one that was under way; of what was written since, nothing is seen.**
//!
//! Of an erasure-coded chunk `geometry` says which bytes are where and `erasure`
//! computes them; the store keeps one part of it as it keeps a whole copy.
//!
//! # How
//! Content lies in *slots* of 64 KiB in a few big sparse files (`slots`); the
//! *journal* of group commits (`journal`) is the only truth about which slot is
//! which block of which part, which units it has and what their CRCs are.
//!
//! - A bulk write takes fresh slots, or units of a slot that hold no committed
//!   content, and goes there *straight*. A small write, and one to a unit that
//!   holds committed content, stays in memory.
//! - A *commit* syncs the slot files that it wrote straight to, then writes one
//!   journal frame with the new slots, present bits and CRCs of every part in it,
//!   and the units from memory embedded. One sync makes all of it durable. Only
//!   then the embedded units are written in place, and the slots that it freed
//!   are free.
//! - A *checkpoint* syncs what was written in place, writes all parts into
//!   `table-<n>`, and shortens the journal to what came after frame n. Commits go
//!   on meanwhile: the table may hold later changes, and recovery does every frame
//!   behind n again. Records say what is, not what changes, so that is harmless.
//! - *Recovery* reads the newest table, then the frames behind it, and writes the
//!   slot table (`units-<k>`) and the embedded units of those frames in place
//!   again, unless a later frame replaced them.
//!
//! A table: the header, then pieces, the last one marked; `table-<n>` is written
//! under another name and renamed when durable.
//! ```text
//! 0   8  "ANTTABL1"            32  4  sector of the next frame
//! 8   4  format, 1             36  4  1: which units blocks have is told
//! 12  4  zero                  40  20 zero
//! 16  8  sequence n            60  4  CRC of the 60 bytes before
//! 24  8  segment of the next frame
//! piece: 0 4 bytes of content  4 4 index, top bit: the last  8 4 parts  12 4 CRC
//!        of the 12 bytes before and the content (seeded by n); content: parts
//! ```
//! The other files are drawn in `format` and `journal`.
//!
//! # What is assumed of the medium
//! Sectors of 512 bytes are written whole or not at all; a sync that succeeds
//! makes durable; a sync that fails makes the disk failed for good. Rot is
//! found: in content and slot table by the CRCs when a unit is read (`Corrupt`),
//! in identity, table and journal when the disk is opened, which is then refused.

pub mod erasure;
pub mod geometry;
pub mod map;
pub mod operation;
pub mod rules;
pub mod stripe;

mod checkpoint;
mod commit;
mod disk;
mod format;
mod journal;
mod part;
mod read;
mod recover;
#[cfg(test)]
pub(crate) mod sample;
mod slots;
mod store;
mod table;
mod watch;
mod write;

pub use antler_simd::{CodeError, PartSet};
pub use store::{ChunkStore, Progress, StoreMark, StoreOptions, Tuning, Work};
pub use watch::StoreWatch;

use crate::vfs::VfsError;
use std::fmt;

/// Why a disk can't be opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk belongs to another cluster or server; nothing was touched.
    #[error("the disk belongs to {owner}, not to {expected}")]
    Foreign {
        /// Whose it is.
        owner: String,
        /// Whose it should be.
        expected: String,
    },
    /// There are chunks but no identity: nothing was touched.
    #[error("the folder holds chunks but no identity (file `disk`)")]
    NoIdentity,
    /// A file is not what it was when it was made durable.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The files can't be used.
    #[error(transparent)]
    Vfs(#[from] VfsError),
}

impl StoreError {
    fn damaged(file: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self::Damaged {
            file: file.to_string(),
            what: what.to_string(),
        }
    }
}
