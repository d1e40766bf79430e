//! What a file system object is seen as: kinds, attributes, credentials, and
//! changes of attributes. Shared by the wire, the namespace and the client.

use crate::ids::{Generation, InodeId};
use crate::time::Timestamp;
use minicbor::{Decode, Encode};

/// The type of a file system object (`S_IFMT` of stat(2)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum FileKind {
    /// Regular file.
    #[n(0)]
    Regular,
    /// Directory.
    #[n(1)]
    Directory,
    /// Symbolic link.
    #[n(2)]
    Symlink,
    /// FIFO.
    #[n(3)]
    Fifo,
    /// UNIX-domain socket.
    #[n(4)]
    Socket,
    /// Character device.
    #[n(5)]
    CharDevice,
    /// Block device.
    #[n(6)]
    BlockDevice,
}

/// What stat(2) tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Attributes {
    /// The inode's number.
    #[n(0)]
    pub inode: InodeId,
    /// The reuse count of the number.
    #[n(1)]
    pub generation: Generation,
    /// Its type.
    #[n(2)]
    pub kind: FileKind,
    /// Permission bits, 0..=0o7777.
    #[n(3)]
    pub mode: u32,
    /// Hard links; of a directory 2 plus its subdirectories.
    #[n(4)]
    pub nlink: u32,
    /// Owner.
    #[n(5)]
    pub uid: u32,
    /// Group.
    #[n(6)]
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it.
    #[n(7)]
    pub device: u64,
    /// Bytes; a directory's is its number of entries times 32, at least 4096.
    #[n(8)]
    pub size: u64,
    /// Bytes that its chunks hold at most (st_blocks times 512).
    #[n(9)]
    pub allocated: u64,
    /// Last access, as set by utimensat(2); reads do not move it.
    #[n(10)]
    pub atime: Timestamp,
    /// Last change of content.
    #[n(11)]
    pub mtime: Timestamp,
    /// Last change of the inode.
    #[n(12)]
    pub ctime: Timestamp,
    /// Counts the changes of the content: equal means that cached data is current.
    #[n(13)]
    pub change: u64,
    /// Copies that chunks of this file get (for a directory: what new files inherit).
    #[n(14)]
    pub copies: u8,
    /// It has no extended attribute: none need be asked for. Unset where it is not known.
    #[n(15)]
    #[cbor(default)]
    pub no_xattrs: bool,
}

/// Who asks: the caller's identity as the kernel tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Credentials {
    /// Effective user.
    #[n(0)]
    pub uid: u32,
    /// Effective group.
    #[n(1)]
    pub gid: u32,
    /// Supplementary groups.
    #[n(2)]
    pub groups: Vec<u32>,
}

impl Credentials {
    /// Whether the caller is the superuser.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the caller is in `gid`.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// A time to set: none, the leader's present, or a given one (utimensat(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum TimeChange {
    /// Leave it (UTIME_OMIT).
    #[n(0)]
    #[default]
    Keep,
    /// The record's time (UTIME_NOW).
    #[n(1)]
    Now,
    /// This time.
    #[n(2)]
    Set(#[n(0)] Timestamp),
}

/// What SETATTR changes; `None` leaves a thing as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct AttributeChange {
    /// Permission bits.
    #[n(0)]
    pub mode: Option<u32>,
    /// Owner.
    #[n(1)]
    pub uid: Option<u32>,
    /// Group.
    #[n(2)]
    pub gid: Option<u32>,
    /// Length in bytes (truncate(2), ftruncate(2)).
    #[n(3)]
    pub size: Option<u64>,
    /// Last access.
    #[n(4)]
    pub atime: TimeChange,
    /// Last change.
    #[n(5)]
    pub mtime: TimeChange,
    /// The caller holds the file open for writing (ftruncate(2)), so that the
    /// permission to change the size was checked when it was opened.
    #[n(6)]
    pub by_handle: bool,
}

/// Which of two names a rename may meet (renameat2(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum RenameMode {
    /// Replace what is there.
    #[n(0)]
    #[default]
    Replace,
    /// Fail with EEXIST (RENAME_NOREPLACE).
    #[n(1)]
    NoReplace,
    /// Swap the two (RENAME_EXCHANGE).
    #[n(2)]
    Exchange,
}

/// Which state an attribute must be in to be set (setxattr(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum XattrMode {
    /// Any.
    #[n(0)]
    #[default]
    Any,
    /// Not there (XATTR_CREATE).
    #[n(1)]
    Create,
    /// There (XATTR_REPLACE).
    #[n(2)]
    Replace,
}

/// What fallocate(2) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum FallocateMode {
    /// Extend the file over the range.
    #[n(0)]
    Extend,
    /// Promise the range without a change of size (FALLOC_FL_KEEP_SIZE).
    #[n(1)]
    Keep,
    /// Make a hole (FALLOC_FL_PUNCH_HOLE, which keeps the size).
    #[n(2)]
    Punch,
    /// Zero the range, extending the file (FALLOC_FL_ZERO_RANGE).
    #[n(3)]
    Zero,
    /// Zero the range without a change of size.
    #[n(4)]
    ZeroKeep,
}

/// One name in a directory, as READDIR returns it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DirectoryEntry {
    /// The name's bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Where reading goes on after this entry: its stored 63-bit key.
    #[n(1)]
    pub cookie: u64,
    /// What it names.
    #[n(2)]
    pub attributes: Attributes,
}
