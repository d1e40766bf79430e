//! The trait of files under the storage formats: `net/` implements it on real
//! files, `sim/` in memory with faults. Synchronous and small on purpose.
//!
//! What an implementation promises:
//! - `write_at` and `truncate` may be lost, torn (at 512-byte sectors) or
//!   reordered by a crash until `sync` of that file returned. `sync` makes the
//!   file's bytes and length durable (fdatasync(2) suffices: it syncs a grown
//!   length), and the file's own creation only after `sync_dir`.
//! - `create`, `rename` and `remove` are durable after `sync_dir`, and until
//!   then may be lost or reordered; `rename` is atomic.
//! - After an error of `sync` the state of the file is unknown: the caller
//!   must not accept anything more on it.
//!
//! Names are relative to one disk, `/`-separated, without `..`.

use bytes::BytesMut;
use std::fmt;

/// A handle on an open file of one disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

/// What a file operation can fail with: the medium's kind of error.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VfsError {
    /// No such file.
    #[error("no such file: {0}")]
    NotFound(String),
    /// The file is already there.
    #[error("already there: {0}")]
    Exists(String),
    /// No space left.
    #[error("no space left")]
    Full,
    /// The medium failed: EIO, or anything else that the disk should not say.
    #[error("medium failed: {0}")]
    Io(String),
}

impl VfsError {
    /// Whether the disk itself is at fault (not merely full or asked wrongly).
    #[must_use]
    pub fn is_medium(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

/// The result of a file operation.
pub type VfsResult<T> = Result<T, VfsError>;

/// Space of a disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, minicbor::Encode, minicbor::Decode)]
pub struct Space {
    /// What the disk holds in all.
    #[n(0)]
    pub total: u64,
    /// What is left for us.
    #[n(1)]
    pub free: u64,
}

/// Files of one disk.
pub trait Vfs: fmt::Debug {
    /// Opens an existing file for reading and writing.
    fn open(&mut self, name: &str) -> VfsResult<FileId>;
    /// Creates a file that must not be there; empty. Missing folders are made.
    fn create(&mut self, name: &str) -> VfsResult<FileId>;
    /// Ends the handle. Unsynced bytes stay unsynced.
    fn close(&mut self, file: FileId);
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize>;
    /// Reads as `read_at` does, up to `length` bytes, behind what `buffer` holds. An
    /// implementation may spare the zeros that this one fills its place with first.
    fn read_onto(
        &mut self,
        file: FileId,
        offset: u64,
        length: usize,
        buffer: &mut BytesMut,
    ) -> VfsResult<usize> {
        let before = buffer.len();
        buffer.resize(before + length, 0);
        let read = self.read_at(file, offset, &mut buffer[before..]);
        buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }
    /// Writes all of `data` at `offset`, growing the file (a gap reads as zeros).
    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()>;
    /// Makes the file's bytes and length durable.
    fn sync(&mut self, file: FileId) -> VfsResult<()>;
    /// Makes the entries of `folder` ("" is the top) durable.
    fn sync_dir(&mut self, folder: &str) -> VfsResult<()>;
    /// The file's length in bytes.
    fn len(&mut self, file: FileId) -> VfsResult<u64>;
    /// Sets the length, with zeros when it grows.
    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()>;
    /// Gives the space of a range back; it reads as zeros then, or as before
    /// after a crash. An implementation may do nothing.
    fn discard(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<()>;
    /// Renames, replacing `to`.
    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> VfsResult<()>;
    /// The names in `folder` (files and folders), in any order; empty if there is none.
    fn list(&mut self, folder: &str) -> VfsResult<Vec<String>>;
    /// The disk's space.
    fn space(&mut self) -> VfsResult<Space>;
}
