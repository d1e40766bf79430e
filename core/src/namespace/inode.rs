//! Inodes as the table keeps them, and their life from making to freeing.
//!
//! Owns the compact form, times, links and orphans. Names are `dentry`'s,
//! content is `chunks`'. Invariants: an inode number is given once (64 bits do
//! not run out, so the generation stays FIRST_GENERATION); an inode without
//! links is there only while a session keeps it as an orphan.

use super::apply::Step;
use super::chunks::CHUNKS_MAX;
use super::class::Counting;
use super::digest;
use super::name::{Name, heap_of};
use super::state::State;
use super::table::Entity;
use crate::attributes::{Attributes, FileKind};
use crate::errno::Errno;
use crate::ids::{ChunkId, Generation, InodeId, SessionId};
use crate::limits::UNIT_SIZE;
use crate::namespace::record::{Choice, Reply};
use crate::namespace::state::Change;
use crate::placement::ClassId;
use crate::time::Timestamp;
use minicbor::{Decode, Encode};

/// The generation of every inode: numbers are never used again.
const FIRST_GENERATION: Generation = Generation(1);
/// What a directory's entries count for in its size, and the least size.
const ENTRY_SIZE: u64 = 32;
const DIRECTORY_SIZE_MIN: u64 = 4096;

/// A point of wall time in one word: 34 bits of seconds from 1901-12-13 to
/// 2446-05-10 (what ext4 can store; times outside become the nearest), 30 bits
/// of nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Moment(#[n(0)] u64);

const EARLIEST: i64 = -(1 << 31);
const LATEST: i64 = EARLIEST + (1 << 34) - 1;

impl From<Timestamp> for Moment {
    fn from(time: Timestamp) -> Self {
        let seconds = time.seconds.clamp(EARLIEST, LATEST) - EARLIEST;
        let nanos = u64::from(time.nanos.min(999_999_999));
        Self(seconds.unsigned_abs() << 30 | nanos)
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        let (seconds, nanos) = (moment.0 >> 30, moment.0 & ((1 << 30) - 1));
        Self {
            seconds: i64::try_from(seconds).expect("34 bits") + EARLIEST,
            nanos: u32::try_from(nanos).expect("30 bits"),
        }
    }
}

/// An inode.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Inode {
    /// Bytes of a file or of a symlink's target; entries of a directory.
    #[n(0)]
    pub(crate) size: u64,
    /// Counts the changes of content.
    #[n(1)]
    pub(crate) change: u64,
    /// The directory; of anything else the directory of one of its names, as far
    /// as known (for repair and audit).
    #[n(2)]
    pub(crate) parent: InodeId,
    #[n(3)]
    pub(crate) atime: Moment,
    #[n(4)]
    pub(crate) mtime: Moment,
    #[n(5)]
    pub(crate) ctime: Moment,
    #[n(6)]
    pub(crate) nlink: u32,
    #[n(7)]
    pub(crate) uid: u32,
    #[n(8)]
    pub(crate) gid: u32,
    /// Permission bits, 0..=0o7777.
    #[n(9)]
    pub(crate) mode: u16,
    #[n(10)]
    pub(crate) kind: FileKind,
    /// The class of its chunks, or of files made in it.
    #[n(11)]
    pub(crate) class: ClassId,
    #[n(12)]
    pub(crate) content: Content,
}

const _: () = assert!(size_of::<Inode>() <= 80, "memory per file is mostly this");

/// What an inode holds besides attributes.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) enum Content {
    /// A directory, a FIFO, a socket, a file of holes.
    #[n(0)]
    Nothing,
    /// A file whose only chunk is the first.
    #[n(1)]
    One {
        #[n(0)]
        chunk: ChunkId,
        #[n(1)]
        valid: u32,
    },
    /// A file whose chunks are in the table of extents.
    #[n(2)]
    Many {
        /// Bytes that they hold at most.
        #[n(0)]
        allocated: u64,
        /// How many there are, at least one.
        #[n(1)]
        chunks: u32,
    },
    /// A device node.
    #[n(3)]
    Device(#[n(0)] u64),
    /// A symlink.
    #[n(4)]
    Target(#[n(0)] Box<Name>),
}

impl Inode {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.kind == FileKind::Regular
    }

    /// Bytes that the chunks hold at most.
    pub(crate) fn allocated(&self) -> u64 {
        match self.content {
            Content::One { valid, .. } => allocated(valid),
            Content::Many { allocated, .. } => allocated,
            _ => 0,
        }
    }

    /// What stat(2) tells.
    pub(super) fn attributes(&self, inode: InodeId, no_xattrs: bool) -> Attributes {
        Attributes {
            inode,
            generation: FIRST_GENERATION,
            kind: self.kind,
            mode: u32::from(self.mode),
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            device: match self.content {
                Content::Device(device) => device,
                _ => 0,
            },
            size: match self.kind {
                FileKind::Directory => (self.size * ENTRY_SIZE).max(DIRECTORY_SIZE_MIN),
                _ => self.size,
            },
            allocated: self.allocated(),
            atime: self.atime.into(),
            mtime: self.mtime.into(),
            ctime: self.ctime.into(),
            change: self.change,
            copies: self.class.built_in().unwrap_or(0),
            no_xattrs,
        }
    }

    /// The content changed now.
    pub(crate) fn modified(&mut self, now: Moment) {
        (self.mtime, self.ctime) = (now, now);
        self.change += 1;
    }
}

/// Bytes that a chunk with so much content takes: whole units.
pub(crate) fn allocated(valid: u32) -> u64 {
    u64::from(valid).next_multiple_of(UNIT_SIZE as u64)
}

impl Entity<InodeId> for Inode {
    fn hash(&self, key: &InodeId) -> u64 {
        let content = match &self.content {
            Content::Nothing => [0, 0, 0],
            Content::One { chunk, valid } => [1, chunk.0, u64::from(*valid)],
            Content::Many { allocated, chunks } => [2, *allocated, u64::from(*chunks)],
            Content::Device(device) => [3, *device, 0],
            Content::Target(target) => [4, digest::bytes(0, target.bytes()), 0],
        };
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let small = u32::from(self.mode) << 16 | (self.kind as u32) << 8 | u32::from(self.class.0);
        let [tag, first, second] = content;
        digest::words(
            1,
            &[
                key.0,
                self.size,
                self.change,
                self.parent.0,
                self.atime.0,
                self.mtime.0,
                self.ctime.0,
                pair(self.nlink, self.uid),
                pair(self.gid, small),
                tag,
                first,
                second,
            ],
        )
    }

    fn heap(&self, _: &InodeId) -> usize {
        match &self.content {
            Content::Target(target) => heap_of(size_of::<Name>()) + target.heap(),
            _ => 0,
        }
    }
}

impl State {
    /// The inode of a number; ESTALE when it is gone.
    pub(crate) fn inode(&self, inode: InodeId) -> Result<&Inode, Errno> {
        self.inodes.get(&inode).ok_or(Errno::ESTALE)
    }

    /// The directory of a number; ENOTDIR when it is something else.
    pub(crate) fn directory(&self, inode: InodeId) -> Result<&Inode, Errno> {
        let directory = self.inode(inode)?;
        directory
            .is_directory()
            .then_some(directory)
            .ok_or(Errno::ENOTDIR)
    }

    /// The regular file of a number; EISDIR or EINVAL when it is something else.
    pub(crate) fn regular(&self, inode: InodeId) -> Result<&Inode, Errno> {
        let file = self.inode(inode)?;
        match file.kind {
            FileKind::Regular => Ok(file),
            FileKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Changes an inode that was found.
    pub(crate) fn change_inode<R>(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        change: impl FnOnce(&mut Inode) -> R,
    ) -> R {
        step.changed(Change::Inode(inode));
        self.inodes.update(&inode, change)
    }

    /// The reply that shows an inode as it is.
    pub(crate) fn entry(&self, inode: InodeId) -> Result<Reply, Errno> {
        Ok(Reply::Entry(self.attributes(inode)?))
    }

    /// One name of an object went. The last one frees it, unless sessions have it
    /// open: then they keep it as an orphan.
    pub(crate) fn drop_link(&mut self, step: &mut Step<'_>, inode: InodeId) {
        let now = step.now;
        let nlink = self.change_inode(step, inode, |object| {
            let last = object.is_directory() || object.nlink == 1;
            object.nlink = if last { 0 } else { object.nlink - 1 };
            object.ctime = now;
            object.nlink
        });
        if nlink == 0 && !self.keep_orphan(step.choice, inode) {
            self.free_inode(step, inode);
        }
    }

    fn keep_orphan(&mut self, choice: &Choice, inode: InodeId) -> bool {
        let mut kept = false;
        for &(open, session) in &choice.open_by {
            if open == inode && self.sessions.has(&session) {
                self.orphans.insert((inode, session), Orphan);
                self.kept.insert((session, inode), ());
                kept = true;
            }
        }
        kept
    }

    /// A session closed the last handles of orphans.
    pub(crate) fn close_orphans(
        &mut self,
        step: &mut Step<'_>,
        session: SessionId,
        inodes: &[InodeId],
    ) {
        for &inode in inodes {
            self.close_orphan(step, session, inode);
        }
    }

    /// A session closed an orphan; ignored if it keeps no such one.
    pub(crate) fn close_orphan(&mut self, step: &mut Step<'_>, session: SessionId, inode: InodeId) {
        if self.kept.remove(&(session, inode)).is_none() {
            return;
        }
        let known = self.orphans.remove(&(inode, session));
        assert!(known.is_some(), "both indexes of orphans agree");
        if !self.is_kept(inode) {
            self.free_inode(step, inode);
        }
    }

    fn is_kept(&self, inode: InodeId) -> bool {
        let next = self.orphans.first_from(&(inode, SessionId(0)));
        next.is_some_and(|((kept, _), _)| *kept == inode)
    }

    fn free_inode(&mut self, step: &mut Step<'_>, inode: InodeId) {
        self.drop_chunks_in(step, inode, 0..CHUNKS_MAX);
        self.drop_xattrs(inode);
        self.archived.remove(&inode);
        self.drop_patterns(inode);
        let gone = self.inodes.remove(&inode).expect("a freed inode was there");
        self.count_user(gone.class, Counting::Down);
        assert_eq!(gone.nlink, 0, "only what has no name is freed");
        step.changed(Change::Inode(inode));
    }
}

/// A session keeps an inode that has no name any more.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct Orphan;

impl Entity<(InodeId, SessionId)> for Orphan {
    fn hash(&self, (inode, session): &(InodeId, SessionId)) -> u64 {
        digest::words(7, &[inode.0, session.0])
    }
}
