//! Chunks and the map from a file's ranges to them.
//!
//! Owns the chunk table and the extents of files; leases are in `lease`.
//! Invariants: every chunk is at exactly one place of one file; `valid` never
//! reaches beyond the file's length, and only a commit under a lease raises it:
//! bytes that were cut off stay zeros for whoever reads that range later.

use super::apply::Step;
use super::digest;
use super::inode::{Content, Inode, allocated};
use super::record::{Outcome, WrittenExtent};
use super::state::{Change, Chunk, LeaseState, State};
use super::table::Entity;
use crate::attributes::FallocateMode;
use crate::errno::Errno;
use crate::ids::{ChunkId, ChunkVersion, Epoch, InodeId, SessionId};
use crate::limits::{CHUNK_SIZE, FILE_SIZE_MAX};
use crate::placement::ClassId;
use minicbor::{Decode, Encode};
use std::ops::Range;

/// Chunks of the largest file.
pub(crate) const CHUNKS_MAX: u32 = (FILE_SIZE_MAX / CHUNK_SIZE) as u32;
const CHUNK: u32 = CHUNK_SIZE as u32;

const _: () = assert!(
    FILE_SIZE_MAX.is_multiple_of(CHUNK_SIZE) && FILE_SIZE_MAX / CHUNK_SIZE <= 1 << 31,
    "an index of a chunk is 32 bits"
);

/// What a file has at one index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) struct Extent {
    #[n(0)]
    pub(crate) chunk: ChunkId,
    /// Bytes from here on read as zeros.
    #[n(1)]
    pub(crate) valid: u32,
}

impl Entity<(InodeId, u32)> for Extent {
    fn hash(&self, (inode, index): &(InodeId, u32)) -> u64 {
        let place = [
            inode.0,
            u64::from(*index),
            self.chunk.0,
            u64::from(self.valid),
        ];
        digest::words(3, &place)
    }
}

/// A chunk as the table keeps it: its lease stands apart, as most have none.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct StoredChunk {
    #[n(0)]
    pub(crate) inode: InodeId,
    #[n(1)]
    pub(crate) version: ChunkVersion,
    #[n(2)]
    pub(crate) epoch: Epoch,
    #[n(3)]
    pub(crate) index: u32,
    #[n(4)]
    pub(crate) references: u32,
    #[n(5)]
    pub(crate) class: ClassId,
}

impl Entity<ChunkId> for StoredChunk {
    fn hash(&self, key: &ChunkId) -> u64 {
        let small = u64::from(self.references) << 8 | u64::from(self.class.0);
        let place = [key.0, self.inode.0, u64::from(self.index)];
        let [key, inode, index] = place;
        digest::words(4, &[key, inode, index, self.version.0, self.epoch.0, small])
    }
}

/// Where a chunk begins in its file.
fn start_of(index: u32) -> u64 {
    u64::from(index) * CHUNK_SIZE
}

impl State {
    /// A chunk with its lease.
    #[must_use]
    pub fn chunk(&self, chunk: ChunkId) -> Option<Chunk> {
        let stored = self.chunks.get(&chunk)?;
        Some(Chunk {
            inode: stored.inode,
            index: stored.index,
            version: stored.version,
            epoch: stored.epoch,
            references: stored.references,
            class: stored.class,
            lease: self.leases.get(&chunk).cloned().unwrap_or_default(),
            stripe: self.stripe(chunk),
            archived: self.is_archived(stored.inode),
        })
    }

    /// What a file has at an index.
    pub(crate) fn extent(&self, file: &Inode, inode: InodeId, index: u32) -> Option<Extent> {
        match file.content {
            Content::One { chunk, valid } if index == 0 => Some(Extent { chunk, valid }),
            Content::Many { .. } => self.extents.get(&(inode, index)).copied(),
            _ => None,
        }
    }

    /// What a file has at an index, if the file is there.
    pub(crate) fn find_extent(&self, inode: InodeId, index: u32) -> Option<Extent> {
        self.extent(self.inodes.get(&inode)?, inode, index)
    }

    /// What a file has, by index.
    pub(crate) fn extents_of(&self, inode: InodeId) -> impl Iterator<Item = (u32, Extent)> + '_ {
        self.extents_from(inode, 0)
    }

    fn extents_from(&self, inode: InodeId, index: u32) -> impl Iterator<Item = (u32, Extent)> + '_ {
        let only = match self.inodes.get(&inode).map(|file| &file.content) {
            Some(&Content::One { chunk, valid }) if index == 0 => {
                Some((0, Extent { chunk, valid }))
            }
            _ => None,
        };
        let many = self.extents.range(&(inode, index));
        let many = many.take_while(move |((file, _), _)| *file == inode);
        only.into_iter()
            .chain(many.map(|((_, index), extent)| (*index, *extent)))
    }

    /// Sets what a file has at an index.
    pub(crate) fn put_extent(&mut self, inode: InodeId, index: u32, extent: Extent) {
        let content = self.inodes.get(&inode).map(|file| file.content.clone());
        match content.expect("a file that was found is there") {
            Content::Nothing | Content::One { .. } if index == 0 => self.put_only(inode, extent),
            Content::One { chunk, valid } => {
                // A second chunk: both go into the table.
                let first = Extent { chunk, valid };
                self.inodes
                    .update(&inode, |file| file.content = Content::Nothing);
                self.put_one_of_many(inode, 0, first);
                self.put_one_of_many(inode, index, extent);
            }
            _ => self.put_one_of_many(inode, index, extent),
        }
    }

    fn put_only(&mut self, inode: InodeId, extent: Extent) {
        let Extent { chunk, valid } = extent;
        self.inodes
            .update(&inode, |file| file.content = Content::One { chunk, valid });
    }

    fn put_one_of_many(&mut self, inode: InodeId, index: u32, extent: Extent) {
        let old = self.extents.insert((inode, index), extent);
        self.inodes.update(&inode, |file| {
            let (had, chunks) = match file.content {
                Content::Many { allocated, chunks } => (allocated, chunks),
                _ => (0, 0),
            };
            let before = old.map_or(0, |old| allocated(old.valid));
            file.content = Content::Many {
                allocated: had + allocated(extent.valid) - before,
                chunks: chunks + u32::from(old.is_none()),
            };
        });
    }

    fn remove_extent(&mut self, inode: InodeId, index: u32) {
        let gone = self.extents.remove(&(inode, index));
        self.inodes.update(&inode, |file| {
            file.content = match (&file.content, gone) {
                (Content::One { .. }, None) => Content::Nothing,
                (Content::Many { chunks: 1, .. }, Some(_)) => Content::Nothing,
                (
                    Content::Many {
                        allocated: had,
                        chunks,
                    },
                    Some(gone),
                ) => Content::Many {
                    allocated: had - allocated(gone.valid),
                    chunks: chunks - 1,
                },
                _ => unreachable!("what is removed from a file is there"),
            };
        });
    }

    /// A new chunk, at version 0 until its first lease.
    pub(crate) fn add_chunk(&mut self, step: &mut Step<'_>, inode: InodeId, index: u32) -> ChunkId {
        let class = self.inodes.get(&inode).map(|file| file.class);
        let class = class.expect("a chunk is made for a file that was found");
        let chunk = self.scalars.last_chunk.next();
        self.scalars.last_chunk = chunk;
        let stored = StoredChunk {
            inode,
            version: ChunkVersion(0),
            epoch: Epoch(0),
            index,
            references: 1,
            class,
        };
        self.chunks.add(chunk, stored);
        step.changed(Change::ChunkMade(chunk));
        step.changed(Change::Inode(inode));
        chunk
    }

    /// Takes a chunk out of its file, whatever its lease.
    pub(crate) fn drop_chunk(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        index: u32,
        chunk: ChunkId,
    ) {
        self.remove_extent(inode, index);
        self.set_lease(chunk, LeaseState::Settled);
        self.losses.remove(&chunk);
        self.stripes.remove(&chunk);
        let gone = self
            .chunks
            .remove(&chunk)
            .expect("a file's chunk is in the table");
        assert_eq!(
            (gone.inode, gone.index),
            (inode, index),
            "a chunk knows its place"
        );
        step.changed(Change::ChunkGone(chunk));
        step.changed(Change::Inode(inode));
    }

    /// Takes the chunks of some indexes out of a file.
    pub(crate) fn drop_chunks_in(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        range: Range<u32>,
    ) {
        let gone = self.extents_from(inode, range.start);
        let gone = gone.take_while(|(index, _)| *index < range.end);
        for (index, extent) in gone.collect::<Vec<_>>() {
            self.drop_chunk(step, inode, index, extent.chunk);
        }
    }

    /// Whatever is behind `valid` in one chunk of a file reads as zeros from now on.
    /// A settled chunk of which nothing is left goes. A lease of another session
    /// breaks: its holder would write on without knowing of the cut.
    fn cut_chunk(&mut self, step: &mut Step<'_>, inode: InodeId, index: u32, valid: u32) {
        let found = self.find_extent(inode, index);
        let Some(extent) = found.filter(|extent| extent.valid > valid) else {
            return;
        };
        if valid == 0 && !self.leases.has(&extent.chunk) {
            return self.drop_chunk(step, inode, index, extent.chunk);
        }
        self.put_extent(inode, index, Extent { valid, ..extent });
        self.break_foreign_lease(step, extent.chunk);
    }

    /// Sets a file's length. What lies behind it is gone for good: also, whatever the
    /// old length, chunks that a writer has a lease on and did not commit yet.
    pub(crate) fn resize(&mut self, step: &mut Step<'_>, inode: InodeId, size: u64) {
        self.unarchive(step, inode);
        let now = step.now;
        let old = self.change_inode(step, inode, |file| {
            file.modified(now);
            std::mem::replace(&mut file.size, size)
        });
        let first = index_of(size.next_multiple_of(CHUNK_SIZE));
        self.drop_chunks_in(step, inode, first..CHUNKS_MAX);
        if size < old {
            let tail = within(size);
            if tail > 0 {
                self.cut_chunk(step, inode, index_of(size), tail);
            }
        }
    }

    /// `Mutation::Fallocate`.
    pub(crate) fn fallocate(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        mode: FallocateMode,
        offset: u64,
        length: u64,
    ) -> Outcome {
        if !self.inode(inode)?.is_regular() {
            return Err(Errno::ENODEV);
        }
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        let end = offset
            .checked_add(length)
            .filter(|&end| end <= FILE_SIZE_MAX);
        let end = end.ok_or(Errno::EFBIG)?;
        self.unarchive(step, inode);
        if matches!(
            mode,
            FallocateMode::Punch | FallocateMode::Zero | FallocateMode::ZeroKeep
        ) {
            self.punch(step, inode, offset, end);
        }
        let (who, now) = (step.who, step.now);
        self.change_inode(step, inode, |file| {
            if matches!(mode, FallocateMode::Extend | FallocateMode::Zero) {
                file.size = file.size.max(end);
            }
            match mode {
                FallocateMode::Keep => file.ctime = now,
                _ => file.modified(now),
            }
            if !who.is_root() {
                file.drop_privileges(who);
            }
        });
        if !who.is_root() {
            self.drop_capability(inode);
        }
        self.entry(inode)
    }

    /// Whole chunks in a range go; a chunk whose content ends in it ends where the
    /// range begins. What is left to zero, the client zeroed.
    fn punch(&mut self, step: &mut Step<'_>, inode: InodeId, from: u64, end: u64) {
        let whole = index_of(from.next_multiple_of(CHUNK_SIZE))..index_of(end);
        self.drop_chunks_in(step, inode, whole);
        for index in [index_of(from), index_of(end - 1)] {
            let found = self.find_extent(inode, index);
            let ends = found.is_some_and(|found| start_of(index) + u64::from(found.valid) <= end);
            if ends {
                let kept = from.saturating_sub(start_of(index)).min(CHUNK_SIZE);
                self.cut_chunk(
                    step,
                    inode,
                    index,
                    u32::try_from(kept).expect("at most a chunk"),
                );
            }
        }
    }

    /// `Mutation::CommitWrite`.
    pub(crate) fn commit_write(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        size: u64,
        extents: &[WrittenExtent],
    ) -> Result<(), Errno> {
        let file = self.regular(inode)?;
        if size > FILE_SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        for written in extents {
            self.judge_extent(step.session, file, inode, written)?;
        }
        let (who, now) = (step.who, step.now);
        let size = self.change_inode(step, inode, |file| {
            file.size = file.size.max(size);
            file.modified(now);
            if !who.is_root() {
                file.drop_privileges(who);
            }
            file.size
        });
        for written in extents {
            self.raise_valid(inode, size, written);
        }
        self.note_syncs(step, extents);
        if !who.is_root() {
            self.drop_capability(inode);
        }
        Ok(())
    }

    /// `Mutation::CommitWrite` of a mount that wrote nothing since the last one.
    pub(crate) fn commit_syncs(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        extents: &[WrittenExtent],
    ) -> Result<(), Errno> {
        let file = self.regular(inode)?;
        for written in extents {
            self.judge_extent(step.session, file, inode, written)?;
        }
        self.note_syncs(step, extents);
        Ok(())
    }

    fn note_syncs(&mut self, step: &mut Step<'_>, extents: &[WrittenExtent]) {
        for written in extents.iter().filter(|written| written.synced) {
            self.note_sync(step, written.chunk);
        }
    }

    /// ESTALE when the chunk is not at that place, was fenced since the lease that it
    /// was written under, or when more of it is to be valid and the session does not
    /// hold its lease: what it wrote may be lost by then.
    fn judge_extent(
        &self,
        session: SessionId,
        file: &Inode,
        inode: InodeId,
        written: &WrittenExtent,
    ) -> Result<(), Errno> {
        if written.valid == 0 || written.valid > CHUNK {
            return Err(Errno::EINVAL);
        }
        let found = self.extent(file, inode, written.index);
        let found = found
            .filter(|extent| extent.chunk == written.chunk)
            .ok_or(Errno::ESTALE)?;
        let stored = self.chunks.get(&found.chunk);
        let stored = stored.expect("a file's chunk is in the table");
        if stored.epoch.fences(stored.version) != written.fences {
            Err(Errno::ESTALE)
        } else if written.valid <= found.valid || self.held.has(&(session, found.chunk)) {
            Ok(())
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// A file's length bounds what is valid of its chunks: nothing behind it must
    /// show when the file grows.
    fn raise_valid(&mut self, inode: InodeId, size: u64, written: &WrittenExtent) {
        let room = size.saturating_sub(start_of(written.index)).min(CHUNK_SIZE);
        let valid = written
            .valid
            .min(u32::try_from(room).expect("at most a chunk"));
        let extent = self.find_extent(inode, written.index);
        let extent = extent.expect("a judged extent is there");
        if valid > extent.valid {
            self.put_extent(inode, written.index, Extent { valid, ..extent });
        }
    }
}

/// Which chunk of a file a byte is in.
fn index_of(offset: u64) -> u32 {
    u32::try_from(offset / CHUNK_SIZE).expect("offsets are at most FILE_SIZE_MAX")
}

/// Where in its chunk a byte is.
fn within(offset: u64) -> u32 {
    u32::try_from(offset % CHUNK_SIZE).expect("less than a chunk")
}
