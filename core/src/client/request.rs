//! What a mount asks of the client machine, and what it is answered: the kernel's
//! requests in our words. `fuse/` translates; the simulator's workload asks the same.

use crate::attributes::FileKind;
use crate::attributes::{
    AttributeChange, Attributes, Credentials, DirectoryEntry, FallocateMode, RenameMode, XattrMode,
};
use crate::errno::Errno;
use crate::ids::{InodeId, ServerId};
use crate::namespace::record::{ClassChange, ClassPattern};
use crate::time::Duration;
use crate::version::FeatureLevel;
use crate::wire::client_chunk::{ChunkError, ChunkReplyBody};
use crate::wire::client_master::{Answer, FileSystem, LocatedCopy, Query};
use bytes::Bytes;

/// An open file or directory of this mount.
pub type Handle = u64;

/// A request of the mount.
#[derive(Clone, Debug)]
pub struct ClientRequest {
    /// Returned with the answer; unique among the unanswered.
    pub operation: u64,
    /// On whose behalf.
    pub credentials: Credentials,
    /// What.
    pub body: FileRequest,
}

/// What the machine tells the mount.
#[derive(Clone, Debug)]
pub enum ClientAnswer {
    /// The session stands: the mount may be used. Said once.
    Ready,
    /// The end of a request.
    Done {
        /// Which.
        operation: u64,
        /// How it went.
        result: Result<FileReply, Errno>,
    },
    /// The kernel must forget a name (also that it is not there). The driver says
    /// `FileRequest::Invalidated` when it did.
    InvalidateEntry {
        /// Returned by `Invalidated`.
        ticket: u64,
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// The kernel must forget attributes and pages of an inode.
    InvalidateInode {
        /// Returned by `Invalidated`.
        ticket: u64,
        /// Which.
        inode: InodeId,
    },
}

/// The kernel's requests (fuse(4)), in our words.
#[derive(Clone, Debug)]
pub enum FileRequest {
    /// A name in a directory. `Entry`; ENOENT (with `absent_for` in `Absent`).
    Lookup {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// `Attributes`.
    GetAttributes {
        /// Of what.
        inode: InodeId,
    },
    /// `Attributes`.
    SetAttributes {
        /// Of what.
        inode: InodeId,
        /// Which.
        change: AttributeChange,
    },
    /// `Bytes`.
    ReadLink {
        /// The symlink.
        inode: InodeId,
    },
    /// mknod, mkdir, symlink. `Entry`.
    Make {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
        /// What.
        kind: FileKind,
        /// Permission bits, umask applied.
        mode: u32,
        /// Device number.
        device: u64,
        /// A symlink's target.
        target: Vec<u8>,
    },
    /// open(2) with O_CREAT for a regular file. `Opened` with an entry.
    Create {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
        /// Permission bits, umask applied.
        mode: u32,
        /// O_EXCL.
        exclusive: bool,
        /// O_TRUNC.
        truncate: bool,
        /// For reading.
        read: bool,
        /// For writing.
        write: bool,
    },
    /// `Done`.
    Unlink {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// `Done`.
    Rmdir {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// `Done`.
    Rename {
        /// From which directory.
        parent: InodeId,
        /// Which name.
        name: Vec<u8>,
        /// Into which directory.
        new_parent: InodeId,
        /// By which name.
        new_name: Vec<u8>,
        /// What may be there.
        mode: RenameMode,
    },
    /// `Entry`.
    Link {
        /// What.
        inode: InodeId,
        /// In which directory.
        parent: InodeId,
        /// By which name.
        name: Vec<u8>,
    },
    /// `Opened`.
    Open {
        /// Which.
        inode: InodeId,
        /// For reading.
        read: bool,
        /// For writing.
        write: bool,
        /// O_TRUNC.
        truncate: bool,
    },
    /// `Bytes`, shorter only at the end of the file.
    Read {
        /// Which.
        inode: InodeId,
        /// Through which handle.
        handle: Handle,
        /// From where.
        offset: u64,
        /// How much.
        length: u32,
    },
    /// `Written`.
    Write {
        /// Which.
        inode: InodeId,
        /// Through which handle.
        handle: Handle,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// close(2) of one descriptor: written data goes to the copies and the length to
    /// the master; earlier write errors are told here. `Done`.
    Flush {
        /// Which.
        inode: InodeId,
        /// Through which handle.
        handle: Handle,
    },
    /// The last descriptor of the handle is closed. `Done`.
    Release {
        /// Which.
        inode: InodeId,
        /// Which handle.
        handle: Handle,
    },
    /// fsync(2), fdatasync(2); of a directory it is durable already. `Done`.
    Fsync {
        /// Which.
        inode: InodeId,
        /// Through which handle.
        handle: Handle,
    },
    /// Names from a cookie on, with `.` and `..` left to the caller. `Entries`.
    ReadDirectory {
        /// The directory.
        inode: InodeId,
        /// 0 from the start.
        cookie: u64,
        /// How many at most.
        most: u32,
    },
    /// `FileSystem`.
    StatFs,
    /// `Done`.
    SetXattr {
        /// Of what.
        inode: InodeId,
        /// Which.
        name: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// Which state it must be in.
        mode: XattrMode,
    },
    /// `Bytes`.
    GetXattr {
        /// Of what.
        inode: InodeId,
        /// Which.
        name: Vec<u8>,
    },
    /// `Bytes`.
    ListXattrs {
        /// Of what.
        inode: InodeId,
    },
    /// `Done`.
    RemoveXattr {
        /// Of what.
        inode: InodeId,
        /// Which.
        name: Vec<u8>,
    },
    /// `Done`.
    Fallocate {
        /// Which.
        inode: InodeId,
        /// Through which handle.
        handle: Handle,
        /// What to do.
        mode: FallocateMode,
        /// From where.
        offset: u64,
        /// How far.
        length: u64,
    },
    /// SEEK_DATA (`data`) or SEEK_HOLE. `Offset`.
    Seek {
        /// Which.
        inode: InodeId,
        /// From where.
        offset: u64,
        /// Data, or a hole.
        data: bool,
    },
    /// The operator's tools: asked of the leader as it is. `Told`.
    Ask(Query),
    /// The operator's tools: asks one copy, or part, for a range of whole units, as it is
    /// there; without a range for which units it has. `Copy`.
    ReadCopy {
        /// Whom.
        copy: Box<LocatedCopy>,
        /// From where, and how much.
        range: Option<(u32, u32)>,
    },
    /// The operator's tools: sets the number of copies. `Attributes`.
    SetCopies {
        /// Of what.
        inode: InodeId,
        /// How many.
        copies: u8,
    },
    /// The operator's tools: sets the storage class. `Done`.
    SetClass {
        /// Of what.
        inode: InodeId,
        /// The class's name.
        class: String,
    },
    /// The operator's tools: sets the patterns of a directory. `Done`.
    SetPatterns {
        /// Of which.
        inode: InodeId,
        /// All of them.
        patterns: Vec<ClassPattern>,
    },
    /// The operator's tools: changes a storage class. `Told`.
    ChangeClass(ClassChange),
    /// The operator's tools: sets a label of a chunkserver, or removes it. `Told`.
    SetLabel {
        /// Of which server.
        server: ServerId,
        /// Which label.
        key: String,
        /// Its value.
        value: Option<String>,
    },
    /// The operator's tools: raises the cluster's feature level. `Told`.
    RaiseLevel {
        /// To which.
        level: FeatureLevel,
    },
    /// The driver carried out an invalidation. Not answered.
    Invalidated {
        /// Which.
        ticket: u64,
    },
    /// The mount ends: write everything out, sync, end the session. `Done`.
    Shutdown,
}

/// The good answers to the mount.
#[derive(Clone, Debug)]
pub enum FileReply {
    /// Nothing more to say.
    Done,
    /// An object that a name leads to, and for how long the kernel may keep name and
    /// attributes.
    Entry(Attributes, Duration),
    /// There is no such name, and for how long the kernel may keep that.
    Absent(Duration),
    /// Attributes and for how long the kernel may keep them.
    Attributes(Attributes, Duration),
    /// A target, data, an attribute, names of attributes.
    Bytes(Bytes),
    /// Bytes written (always all).
    Written(u32),
    /// An open file.
    Opened {
        /// The handle.
        handle: Handle,
        /// The object.
        attributes: Attributes,
        /// For how long the kernel may keep the name and attributes.
        valid: Duration,
        /// The kernel's pages of it are still current.
        keep_cache: bool,
    },
    /// Names, and whether there are no more behind them.
    Entries {
        /// In the order of their cookies.
        entries: Vec<DirectoryEntry>,
        /// The directory ends here.
        end: bool,
        /// For how long the kernel may keep the attributes.
        valid: Duration,
    },
    /// statfs(2).
    FileSystem(FileSystem),
    /// An offset.
    Offset(u64),
    /// The leader's answer.
    Told(Box<Answer>),
    /// What a copy answered. Whose data it is, its reader checks.
    Copy(Result<(ChunkReplyBody, Bytes), ChunkError>),
}
