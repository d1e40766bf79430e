//! The records of the replicated log and what applying them yields.
//!
//! A record carries everything that a replay needs: the caller, the leader's
//! time, the servers that the leader chose. It is judged when it is applied,
//! alike on every member. Ids (inodes, chunks, sessions) come from counters in
//! the replicated state. Field numbers are never reused (docs/formats.md).

use crate::attributes::{
    AttributeChange, Attributes, Credentials, FallocateMode, FileKind, RenameMode, XattrMode,
};
use crate::chunk::stripe::Stripe;
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, ChunkVersion, Epoch, InodeId, RequestId, ServerId, SessionId};
use crate::placement::{Labels, StorageClass};
use crate::time::Timestamp;
use crate::version::FeatureLevel;
use minicbor::{Decode, Encode};

/// One entry of the metadata log.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Record {
    /// The leader's wall clock when it proposed the record.
    #[n(0)]
    pub time: Timestamp,
    /// What happens.
    #[n(1)]
    pub body: RecordBody,
}

/// What a record does.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum RecordBody {
    /// A request of a client, executed exactly once while its session lives.
    #[n(0)]
    Client(#[n(0)] ClientRecord),
    /// Begins a session. The reply carries its id.
    #[n(1)]
    BeginSession {
        /// Shown to operators: host and mount point.
        #[n(0)]
        name: String,
        /// Drawn by the client, so that a resent request finds its session.
        #[n(1)]
        nonce: u64,
    },
    /// Ends a session: its remembered replies, orphans and leases go (a lease that
    /// it still held becomes broken and is reconciled).
    #[n(2)]
    EndSession {
        /// Whose.
        #[n(0)]
        session: SessionId,
    },
    /// A chunk's copies are durable, equal, and its lease has ended.
    #[n(3)]
    Settled {
        /// Which chunks, each only if its epoch is still this one and it was
        /// closing; others are ignored.
        #[n(0)]
        chunks: Vec<(ChunkId, Epoch)>,
    },
    /// Opens the reconciliation of chunks whose lease broke: raises epoch and
    /// version, so that older writers and copies are fenced.
    #[n(4)]
    Fence {
        /// Which chunks, each only if its epoch is still this one and it has a lease.
        #[n(0)]
        chunks: Vec<(ChunkId, Epoch)>,
    },
    /// Ends a reconciliation: these servers hold equal, durable copies at the
    /// chunk's present version.
    #[n(5)]
    Reconciled {
        /// The chunk.
        #[n(0)]
        chunk: ChunkId,
        /// Ignored unless it is still the chunk's epoch.
        #[n(1)]
        epoch: Epoch,
        /// Who holds it now.
        #[n(2)]
        servers: Vec<ServerId>,
        /// Their content is of no copy that kept the life in which the chunk was written:
        /// what was acknowledged and not synced may be lost.
        #[n(3)]
        #[cbor(default)]
        lossy: bool,
        /// The life of each server in which it made its copy so. Records of before have none.
        #[n(4)]
        #[cbor(default)]
        boots: Vec<BootId>,
    },
    /// The first record of a cluster, or of a recovered one.
    #[n(6)]
    Found {
        /// The secret that capabilities are keyed with.
        #[cbor(n(0), with = "minicbor::bytes")]
        capability_secret: Vec<u8>,
        /// Copies that the root directory asks for.
        #[n(1)]
        copies: u8,
        /// The level that the cluster begins at: the newest that its founder knows.
        #[n(2)]
        #[cbor(default)]
        level: FeatureLevel,
    },
    /// Members of the Raft group change (addresses; the voters themselves are
    /// changed by Raft's own entry).
    #[n(7)]
    Member {
        /// Who, as Raft numbers it.
        #[n(0)]
        member: u64,
        /// Where it listens; empty removes it.
        #[n(1)]
        address: String,
    },
    /// The cluster lives on from a metalogger's log after its masters were lost:
    /// every id counter and the floor of epochs move far ahead, the ids skipped
    /// become a lost range (chunks in it are quarantined), every session ends, and
    /// copies newer than the table may be adopted.
    #[n(8)]
    Recover {
        /// The new life's number, above the old one's.
        #[n(0)]
        incarnation: u64,
    },
    /// Takes over a copy newer than the table, after `Recover` only: the chunk's
    /// version becomes this one (if it is above the table's).
    #[n(9)]
    Adopt {
        /// The chunk, known to the table.
        #[n(0)]
        chunk: ChunkId,
        /// Ignored unless it is still the chunk's epoch.
        #[n(1)]
        epoch: Epoch,
        /// The newest version that a copy has.
        #[n(2)]
        version: ChunkVersion,
    },
    /// The session closed the last handle of these orphans: it keeps them no longer.
    /// (The leader logs it when the client says `Closed`.)
    #[n(10)]
    CloseOrphans {
        /// Whose.
        #[n(0)]
        session: SessionId,
        /// Which.
        #[n(1)]
        inodes: Vec<InodeId>,
    },
    /// A chunkserver is configured with these labels. (The leader logs it of every
    /// server once there is a storage class that is not built in.)
    #[n(11)]
    ServerLabels {
        /// Which.
        #[n(0)]
        server: ServerId,
        /// All of them.
        #[n(1)]
        labels: Labels,
    },
    /// A chunk at rest lies in the parts of an erasure code now, each durable, and
    /// verified, on its server. Ignored when it is not at rest as it was, its class does
    /// not want that code, or the parts lie against its law.
    #[n(12)]
    Converted {
        /// The chunk.
        #[n(0)]
        chunk: ChunkId,
        /// Its epoch when it was converted.
        #[n(1)]
        epoch: Epoch,
        /// Its version, which its parts have.
        #[n(2)]
        version: ChunkVersion,
        /// Which parts.
        #[n(3)]
        stripe: Stripe,
        /// Who has each of them, in order.
        #[n(4)]
        servers: Vec<ServerId>,
    },
    /// A chunk in parts lies in whole copies again: these servers have one, durable, at
    /// the version and epoch that the chunk gets by this. Ignored when it is not as it was.
    #[n(13)]
    Restored {
        /// The chunk.
        #[n(0)]
        chunk: ChunkId,
        /// Its epoch until now.
        #[n(1)]
        epoch: Epoch,
        /// Its version until now.
        #[n(2)]
        version: ChunkVersion,
        /// Of which parts the copies were made.
        #[n(3)]
        stamp: Epoch,
        /// Who has a copy.
        #[n(4)]
        servers: Vec<ServerId>,
    },
    /// Files have been left alone for as long as their class says: its archive policy
    /// holds for them. Those that were not, by the time of the record, are passed over.
    #[n(14)]
    Archived {
        /// Which.
        #[n(0)]
        inodes: Vec<InodeId>,
    },
}

/// A client's request in the log.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClientRecord {
    /// Who asks.
    #[n(0)]
    pub session: SessionId,
    /// Which request of the session.
    #[n(1)]
    pub request: RequestId,
    /// The oldest request that the client has not seen answered: older replies may go.
    #[n(2)]
    pub oldest: RequestId,
    /// On whose behalf.
    #[n(3)]
    pub credentials: Credentials,
    /// What is asked.
    #[n(4)]
    pub mutation: Mutation,
    /// What the leader chose for it.
    #[n(5)]
    pub choice: Choice,
}

/// The leader's choices for a request, made from soft state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct Choice {
    /// For `Create` with `write` and for `Lease`: the copies to write to, in chain
    /// order. Empty when the leader had no server to offer: then a chunk that must
    /// be allocated is ENOSPC for `Lease`, and `Create` gives no chunk.
    #[n(0)]
    pub copies: Vec<(ServerId, BootId)>,
    /// For whatever may unlink a last name: the sessions that have an affected
    /// inode open, so that it becomes an orphan: `(inode, session)`.
    #[n(1)]
    pub open_by: Vec<(InodeId, SessionId)>,
}

/// What a client may ask to change. The caller's permissions are checked at apply.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Mutation {
    /// Makes an object. Reply: `Created`.
    #[n(0)]
    Create {
        /// The directory.
        #[n(0)]
        parent: InodeId,
        /// The name in it.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// What to make.
        #[n(2)]
        kind: FileKind,
        /// Permission bits, umask applied.
        #[n(3)]
        mode: u32,
        /// Device number of a device node.
        #[n(4)]
        device: u64,
        /// A symlink's target.
        #[cbor(n(5), with = "minicbor::bytes")]
        target: Vec<u8>,
        /// An existing name is EEXIST; otherwise (regular files, O_CREAT without
        /// O_EXCL) the existing object is the reply.
        #[n(6)]
        exclusive: bool,
        /// The creator opens the file for writing: it gets the lease of a first
        /// chunk if the leader chose copies.
        #[n(7)]
        write: bool,
    },
    /// link(2). Reply: `Entry`.
    #[n(1)]
    Link {
        /// What to name.
        #[n(0)]
        inode: InodeId,
        /// In which directory.
        #[n(1)]
        parent: InodeId,
        /// By which name.
        #[cbor(n(2), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// unlink(2). Reply: `Done`.
    #[n(2)]
    Unlink {
        /// The directory.
        #[n(0)]
        parent: InodeId,
        /// The name to remove.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// rmdir(2). Reply: `Done`.
    #[n(3)]
    Rmdir {
        /// The directory.
        #[n(0)]
        parent: InodeId,
        /// The name to remove.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// renameat2(2). Reply: `Done`.
    #[n(4)]
    Rename {
        /// From which directory.
        #[n(0)]
        parent: InodeId,
        /// Which name.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// Into which directory.
        #[n(2)]
        new_parent: InodeId,
        /// By which name.
        #[cbor(n(3), with = "minicbor::bytes")]
        new_name: Vec<u8>,
        /// What may be there.
        #[n(4)]
        mode: RenameMode,
    },
    /// chmod, chown, truncate, utimensat. Reply: `Entry`.
    #[n(5)]
    SetAttributes {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// Which.
        #[n(1)]
        change: AttributeChange,
    },
    /// setxattr(2). Reply: `Done`.
    #[n(6)]
    SetXattr {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// `user.`, `trusted.` (root) or `security.`, then the rest.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// Its value.
        #[cbor(n(2), with = "minicbor::bytes")]
        value: Vec<u8>,
        /// Which state it must be in.
        #[n(3)]
        mode: XattrMode,
    },
    /// removexattr(2). Reply: `Done`.
    #[n(7)]
    RemoveXattr {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// Which.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
    },
    /// Sets how many copies new chunks of a file, or new files of a directory, get;
    /// existing chunks of the file follow by repair. Reply: `Entry`.
    #[n(8)]
    SetCopies {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// 1..=COPIES_MAX.
        #[n(1)]
        copies: u8,
    },
    /// Makes written data part of the file: the length grows to at least `size`,
    /// mtime and ctime become the record's time, `change` counts up. Reply: `Entry`.
    /// ESTALE if a named chunk is no longer at that place of the file, or was fenced
    /// since it was written, or a lease that is to end is not held any more: what was
    /// acknowledged may be lost, and is to be written again. Then nothing changes.
    #[n(9)]
    CommitWrite {
        /// The file.
        #[n(0)]
        inode: InodeId,
        /// Its length is at least this now.
        #[n(1)]
        size: u64,
        /// Per chunk written, how far it holds real content.
        #[n(2)]
        extents: Vec<WrittenExtent>,
        /// Leases that end with this.
        #[n(3)]
        release: Vec<LeaseEnd>,
        /// Nothing was written since the last one: it tells of syncs, and changes neither
        /// times nor content.
        #[n(4)]
        #[cbor(default)]
        unchanged: bool,
    },
    /// Grants or renews the write lease of one chunk of a file, allocating the chunk
    /// when it is not there. The leader has recalled another session's lease before
    /// it proposes this; at apply another session's open lease is EAGAIN.
    /// Reply: `Lease`.
    #[n(10)]
    Lease {
        /// The file.
        #[n(0)]
        inode: InodeId,
        /// Which chunk of it.
        #[n(1)]
        index: u32,
        /// Copies that failed the writer, not to be chosen now (leader's use only).
        #[n(2)]
        failed: Vec<(ServerId, BootId)>,
    },
    /// Ends leases. Reply: `Released`.
    #[n(11)]
    Release {
        /// Which.
        #[n(0)]
        leases: Vec<LeaseEnd>,
    },
    /// fallocate(2): the master's part. Whole chunks inside a punched or zeroed range
    /// go, a chunk whose tail is in it gets a smaller `valid`; the client zeroes the
    /// rest under leases, first. Reply: `Entry`.
    #[n(12)]
    Fallocate {
        /// The file.
        #[n(0)]
        inode: InodeId,
        /// What to do.
        #[n(1)]
        mode: FallocateMode,
        /// From.
        #[n(2)]
        offset: u64,
        /// How far.
        #[n(3)]
        length: u64,
    },
    /// The session gives orphans up: it closed the last handle. Reply: `Done`.
    #[n(13)]
    CloseOrphans {
        /// Which.
        #[n(0)]
        inodes: Vec<InodeId>,
    },
    /// Sets the storage class of a file, whose chunks follow by repair, or of a
    /// directory, whose new files get it. From and to a class that is not built in the
    /// superuser's alone; else the owner's. Reply: `Entry`.
    #[n(14)]
    SetClass {
        /// Of what.
        #[n(0)]
        inode: InodeId,
        /// The class's name; ENOENT when there is none of it.
        #[n(1)]
        class: String,
    },
    /// Changes a storage class: the superuser's. Reply: `Done`.
    #[n(15)]
    ChangeClass(#[n(0)] ClassChange),
    /// Sets a label of a chunkserver over the configured one, or removes it again: the
    /// superuser's. Reply: `Done`.
    #[n(16)]
    SetLabel {
        /// Of which server.
        #[n(0)]
        server: ServerId,
        /// Which label.
        #[n(1)]
        key: String,
        /// Its value; without one the configured label holds again.
        #[n(2)]
        value: Option<String>,
    },
    /// Sets the patterns of a directory, all of them: the superuser's. ENOENT when there is no
    /// class of a name, EINVAL when a glob is not well formed. Reply: `Entry`.
    #[n(18)]
    SetPatterns {
        /// Of which.
        #[n(0)]
        inode: InodeId,
        /// In their order: the first that stands for a name counts.
        #[n(1)]
        patterns: Vec<ClassPattern>,
    },
    /// Raises the cluster's feature level: the superuser's. A level that was reached
    /// already changes nothing. Reply: `Done`.
    #[n(17)]
    RaiseLevel {
        /// To which.
        #[n(0)]
        level: FeatureLevel,
    },
}

/// Files that are created in a directory under such names get a class of their own.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClassPattern {
    /// The names, as in `glob`; 1 to 255 bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub glob: Vec<u8>,
    /// The class's name.
    #[n(1)]
    pub class: String,
}

/// A change of a storage class.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum ClassChange {
    /// EEXIST when the name is taken, ENOSPC when there are too many.
    #[n(0)]
    Create {
        /// Its name.
        #[n(0)]
        name: String,
        /// What it is.
        #[n(1)]
        class: StorageClass,
    },
    /// Its files follow. ENOENT when there is none.
    #[n(1)]
    Modify {
        /// Its name.
        #[n(0)]
        name: String,
        /// What it becomes.
        #[n(1)]
        class: StorageClass,
    },
    /// Its files stay in it.
    #[n(2)]
    Rename {
        /// Its name.
        #[n(0)]
        name: String,
        /// What it is called then.
        #[n(1)]
        new_name: String,
    },
    /// EBUSY while something is of it.
    #[n(3)]
    Delete {
        /// Its name.
        #[n(0)]
        name: String,
    },
}

impl Mutation {
    /// The names that it may change, with their directories.
    #[must_use]
    pub fn names(&self) -> Vec<(InodeId, &[u8])> {
        match self {
            Self::Create { parent, name, .. }
            | Self::Link { parent, name, .. }
            | Self::Unlink { parent, name }
            | Self::Rmdir { parent, name } => vec![(*parent, name)],
            Self::Rename {
                parent,
                name,
                new_parent,
                new_name,
                ..
            } => vec![(*parent, name), (*new_parent, new_name)],
            _ => Vec::new(),
        }
    }
}

/// How far a chunk holds real content after a write: bytes beyond `valid` read as
/// zeros whatever the copies say, so that truncated bytes never reappear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct WrittenExtent {
    /// Which chunk of the file.
    #[n(0)]
    pub index: u32,
    /// The chunk that was written.
    #[n(1)]
    pub chunk: ChunkId,
    /// Its `valid` becomes at least this, 1..=CHUNK_SIZE.
    #[n(2)]
    pub valid: u32,
    /// How often it had been fenced when its lease was granted.
    #[n(3)]
    pub fences: u64,
    /// A sync was sent under the lease: an fsync may be answered behind this.
    #[n(4)]
    #[cbor(default)]
    pub synced: bool,
}

/// A lease given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LeaseEnd {
    /// Of which chunk.
    #[n(0)]
    pub chunk: ChunkId,
    /// Under which epoch it was held.
    #[n(1)]
    pub epoch: Epoch,
    /// Every copy acknowledged a sync after the last write: the chunk is settled at
    /// once. Otherwise it is closing, and the leader has the copies synced.
    #[n(2)]
    pub synced: bool,
    /// If so, how often the copies were synced under it, the last time included; 0 where
    /// that was not counted.
    #[n(3)]
    #[cbor(default)]
    pub syncs: u32,
}

/// What a client record answers, remembered for a resent request.
pub type Outcome = Result<Reply, Errno>;

/// The good answers of client records and of sessions.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Reply {
    /// Nothing more to say.
    #[n(0)]
    Done,
    /// The object as it is now.
    #[n(1)]
    Entry(#[n(0)] Attributes),
    /// The object made, or the one that was there.
    #[n(2)]
    Created {
        /// As it is now.
        #[n(0)]
        attributes: Attributes,
        /// It was there before.
        #[n(1)]
        existed: bool,
        /// The lease of its first chunk, if asked for and possible.
        #[n(2)]
        lease: Option<LeaseGrant>,
    },
    /// A write lease.
    #[n(3)]
    Lease(#[n(0)] LeaseGrant),
    /// The session's id.
    #[n(4)]
    Session(#[n(0)] SessionId),
    /// Leases were given back.
    #[n(5)]
    Released {
        /// Chunks that are there and whose lease was not held any more: what was
        /// acknowledged under it and not synced may be lost.
        #[n(0)]
        void: Vec<ChunkId>,
    },
}

/// A write lease as the replicated state knows it (addresses and capabilities are
/// added by the leader).
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct LeaseGrant {
    /// Which chunk of the file.
    #[n(0)]
    pub index: u32,
    /// The chunk.
    #[n(1)]
    pub chunk: ChunkId,
    /// Its version under this lease.
    #[n(2)]
    pub version: ChunkVersion,
    /// The lease's epoch.
    #[n(3)]
    pub epoch: Epoch,
    /// How far the chunk holds real content: the writer zeroes from here before it
    /// writes beyond.
    #[n(4)]
    pub valid: u32,
    /// Its copies, in chain order.
    #[n(5)]
    pub copies: Vec<(ServerId, BootId)>,
    /// What of the chunk may have been lost before.
    #[n(6)]
    pub lost: Option<Loss>,
}

/// Writes to a chunk that may be lost, as they were acknowledged and not synced when no
/// copy was left that had taken them in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Loss {
    /// What was written under this version and those before is durable.
    #[n(0)]
    pub after: ChunkVersion,
    /// The last version under which something may be lost.
    #[n(1)]
    pub up_to: ChunkVersion,
}

impl Loss {
    /// Whether what was acknowledged under a version may be lost.
    #[must_use]
    pub fn covers(&self, version: ChunkVersion) -> bool {
        self.after < version && version <= self.up_to
    }

    /// Both losses, and what lies between them: a chunk keeps one, and may rather be
    /// said to have lost too much.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            after: self.after.min(other.after),
            up_to: self.up_to.max(other.up_to),
        }
    }
}
