//! What the kernel waits for: the reply of each request under way, and how the
//! machine's answer is put into it.

use crate::convert::{Root, errno, generation};
use crate::directory::{Buffer, Directories};
use antler_core::attributes::{Attributes, DirectoryEntry};
use antler_core::client::request::FileReply;
use antler_core::errno::Errno;
use antler_core::wire::client_master::FileSystem;
use fuser::{
    FileAttr, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

/// A reply that the kernel waits for.
#[derive(Debug)]
pub(crate) enum Waiting {
    Entry(ReplyEntry),
    Attributes(ReplyAttr),
    Data(ReplyData),
    Empty(ReplyEmpty),
    Written(ReplyWrite),
    /// And whether it was opened for writing.
    Open(ReplyOpen, bool),
    Create(ReplyCreate),
    StatFs(ReplyStatfs),
    /// With the room that the caller has; 0 asks how much is needed.
    Xattr(ReplyXattr, u32),
    Seek(ReplyLseek),
    Directory(Listing<ReplyDirectory>),
    DirectoryPlus(Listing<ReplyDirectoryPlus>),
    /// `antler.copies`, with the room that the caller has.
    Copies(ReplyXattr, u32),
    /// A change of attributes whose caller does not want them.
    Changed(ReplyEmpty),
}

/// A READDIR under way.
#[derive(Debug)]
pub(crate) struct Listing<R> {
    pub(crate) reply: R,
    pub(crate) handle: u64,
    pub(crate) offset: u64,
    pub(crate) directory: INodeNo,
    pub(crate) buffers: Arc<Directories>,
}

impl Waiting {
    /// Gives the kernel its reply.
    pub(crate) fn finish(self, root: Root, result: Result<FileReply, Errno>) {
        match result {
            Ok(reply) => self.succeed(root, reply),
            Err(error) => self.fail(error),
        }
    }

    fn succeed(self, root: Root, answer: FileReply) {
        match (self, answer) {
            (Self::Entry(reply), FileReply::Entry(attributes, valid)) => {
                reply.entry(
                    &valid,
                    &root.attributes(&attributes),
                    generation(&attributes),
                );
            }
            (Self::Entry(reply), FileReply::Absent(valid)) => absent(reply, valid),
            (Self::Attributes(reply), FileReply::Attributes(attributes, valid)) => {
                reply.attr(&valid, &root.attributes(&attributes));
            }
            (Self::Data(reply), FileReply::Bytes(bytes)) => reply.data(&bytes),
            (Self::Empty(reply), FileReply::Done) => reply.ok(),
            (Self::Written(reply), FileReply::Written(count)) => reply.written(count),
            (
                Self::Open(reply, write),
                FileReply::Opened {
                    handle, keep_cache, ..
                },
            ) => {
                let mut flags = open_flags(keep_cache);
                if !write {
                    // There is nothing to write out at its close.
                    flags |= FopenFlags::FOPEN_NOFLUSH;
                }
                reply.opened(FileHandle(handle), flags);
            }
            (
                Self::Create(reply),
                FileReply::Opened {
                    handle,
                    attributes,
                    valid,
                    keep_cache,
                },
            ) => {
                let (entry, generation) = (root.attributes(&attributes), generation(&attributes));
                reply.created(
                    &valid,
                    &entry,
                    generation,
                    FileHandle(handle),
                    open_flags(keep_cache),
                );
            }
            (Self::StatFs(reply), FileReply::FileSystem(told)) => stat_fs(reply, told),
            (Self::Xattr(reply, room), FileReply::Bytes(bytes)) => xattr(reply, room, &bytes),
            (Self::Seek(reply), FileReply::Offset(offset)) => match i64::try_from(offset) {
                Ok(offset) => reply.offset(offset),
                Err(_) => reply.error(errno(Errno::EOVERFLOW)),
            },
            (
                Self::Directory(listing),
                FileReply::Entries {
                    entries,
                    end,
                    valid,
                },
            ) => {
                listing.answer(root, fetched(entries, end), valid);
            }
            (
                Self::DirectoryPlus(listing),
                FileReply::Entries {
                    entries,
                    end,
                    valid,
                },
            ) => {
                listing.answer(root, fetched(entries, end), valid);
            }
            (Self::Copies(reply, room), FileReply::Attributes(attributes, _)) => {
                xattr(reply, room, attributes.copies.to_string().as_bytes());
            }
            (Self::Changed(reply), FileReply::Attributes(..)) => reply.ok(),
            (waiting, answer) => {
                tracing::error!(?waiting, ?answer, "the client answered another question");
                waiting.fail(Errno::EIO);
            }
        }
    }

    fn fail(self, error: Errno) {
        let code = errno(error);
        match self {
            Self::Entry(reply) => reply.error(code),
            Self::Attributes(reply) => reply.error(code),
            Self::Data(reply) => reply.error(code),
            Self::Empty(reply) | Self::Changed(reply) => reply.error(code),
            Self::Written(reply) => reply.error(code),
            Self::Open(reply, _) => reply.error(code),
            Self::Create(reply) => reply.error(code),
            Self::StatFs(reply) => reply.error(code),
            Self::Xattr(reply, _) | Self::Copies(reply, _) => reply.error(code),
            Self::Seek(reply) => reply.error(code),
            Self::Directory(listing) => listing.reply.error(code),
            Self::DirectoryPlus(listing) => listing.reply.error(code),
        }
    }
}

/// A READDIR reply that entries can be added to.
pub(crate) trait Page {
    /// Adds `.` or `..`; true when the page is full.
    fn dot(&mut self, directory: INodeNo, offset: u64, name: &str) -> bool;
    /// Adds an entry; true when the page is full, and then it is not in it.
    fn entry(&mut self, root: Root, entry: &DirectoryEntry, valid: Duration) -> bool;
    /// Sends it.
    fn send(self);
}

impl Page for ReplyDirectory {
    fn dot(&mut self, directory: INodeNo, offset: u64, name: &str) -> bool {
        self.add(directory, offset, fuser::FileType::Directory, name)
    }

    fn entry(&mut self, root: Root, entry: &DirectoryEntry, _: Duration) -> bool {
        let kind = crate::convert::kind(entry.attributes.kind);
        self.add(
            root.kernel(entry.attributes.inode),
            entry.cookie,
            kind,
            OsStr::from_bytes(&entry.name),
        )
    }

    fn send(self) {
        self.ok();
    }
}

impl Page for ReplyDirectoryPlus {
    fn dot(&mut self, directory: INodeNo, offset: u64, name: &str) -> bool {
        // The kernel takes only the name and the type of these two.
        let attributes = nothing(directory, fuser::FileType::Directory);
        self.add(
            directory,
            offset,
            name,
            &Duration::ZERO,
            &attributes,
            Generation(0),
        )
    }

    fn entry(&mut self, root: Root, entry: &DirectoryEntry, valid: Duration) -> bool {
        let attributes: &Attributes = &entry.attributes;
        let name = OsStr::from_bytes(&entry.name);
        let (seen, generation) = (root.attributes(attributes), generation(attributes));
        self.add(
            root.kernel(attributes.inode),
            entry.cookie,
            name,
            &valid,
            &seen,
            generation,
        )
    }

    fn send(self) {
        self.ok();
    }
}

impl<P: Page> Listing<P> {
    /// Fills the page, sends it, and keeps what did not fit.
    pub(crate) fn answer(mut self, root: Root, mut buffer: Buffer, valid: Duration) {
        let mut full = false;
        for (offset, name) in [(1, "."), (2, "..")] {
            full = full || (self.offset < offset && self.reply.dot(self.directory, offset, name));
        }
        while let Some(entry) = buffer.entries.front().filter(|_| !full) {
            full = self.reply.entry(root, entry, valid);
            if !full {
                buffer.next = entry.cookie;
                buffer.entries.pop_front();
            }
        }
        // Kept before the kernel can ask for what follows.
        self.buffers.keep(self.handle, buffer, valid);
        self.reply.send();
    }
}

fn fetched(entries: Vec<DirectoryEntry>, end: bool) -> Buffer {
    Buffer {
        entries: entries.into(),
        end,
        ..Buffer::default()
    }
}

fn absent(reply: ReplyEntry, valid: Duration) {
    if valid.is_zero() {
        return reply.error(errno(Errno::ENOENT));
    }
    // Inode 0 says that the name is not there, and for how long that holds.
    reply.entry(
        &valid,
        &nothing(INodeNo(0), fuser::FileType::RegularFile),
        Generation(0),
    );
}

fn nothing(inode: INodeNo, kind: fuser::FileType) -> FileAttr {
    let epoch = std::time::UNIX_EPOCH;
    FileAttr {
        ino: inode,
        size: 0,
        blocks: 0,
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn open_flags(keep_cache: bool) -> FopenFlags {
    if keep_cache {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}

fn stat_fs(reply: ReplyStatfs, told: FileSystem) {
    const BLOCK: u32 = 4096;
    let blocks = |bytes: u64| bytes / u64::from(BLOCK);
    let (total, free) = (blocks(told.space.total), blocks(told.space.free));
    // Inodes are bounded by memory only: there are always as many again.
    let files = told.inodes.saturating_mul(2).max(1 << 32);
    let name_max = u32::try_from(antler_core::limits::NAME_MAX).expect("small");
    reply.statfs(
        total,
        free,
        free,
        files,
        files - told.inodes,
        BLOCK,
        name_max,
        BLOCK,
    );
}

pub(crate) fn xattr(reply: ReplyXattr, room: u32, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("attributes are small");
    match room {
        0 => reply.size(length),
        _ if length > room => reply.error(errno(Errno::ERANGE)),
        _ => reply.data(bytes),
    }
}
