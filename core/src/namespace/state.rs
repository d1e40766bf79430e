//! The replicated state: its tables and counters, and what applying a record
//! tells the caller.
//!
//! Owns the fields and the digest. Each table's meaning is in the file of its
//! noun; records come in through `apply`, questions through `query`, images
//! through `image`. Invariant: the state is a function of the records applied,
//! and so is the digest; a clone is O(1) and never changes.

use super::archive::Archived;
use super::chunks::{Extent, StoredChunk};
use super::class::{ServerLabels, StoredClass};
use super::dentry::Dentry;
use super::digest;
use super::inode::{Inode, Orphan};
use super::name::Name;
use super::pattern::Patterns;
use super::record::{Loss, Outcome};
use super::session::{RememberedReply, Session};
use super::stripes::Coded;
use super::table::{Entity, Table};
use super::xattr::XattrValue;
use crate::chunk::stripe::Stripe;
use crate::ids::{
    BootId, ChunkId, ChunkVersion, Epoch, Incarnation, InodeId, LogPosition, RequestId, ServerId,
    SessionId,
};
use crate::placement::ClassId;
use crate::version::FeatureLevel;
use minicbor::{Decode, Encode};
use std::fmt;

/// The replicated state of the metadata. A clone is O(1); the default is the
/// state before the first record.
///
/// - `apply` takes the records of the log, in order;
/// - the queries (`lookup`, `attributes`, `chunk_at`, ...) ask at any time;
/// - `sections`, `encode_section` and `StateLoader` write and read images;
/// - `digest` and `check_invariants` prove that members agree.
#[derive(Clone, Default)]
pub struct State {
    pub(super) scalars: Scalars,
    pub(super) inodes: Table<InodeId, Inode>,
    pub(super) dentries: Table<(InodeId, u64), Dentry>,
    pub(super) extents: Table<(InodeId, u32), Extent>,
    pub(super) chunks: Table<ChunkId, StoredChunk>,
    /// Of every chunk that is not settled.
    pub(super) leases: Table<ChunkId, LeaseState>,
    pub(super) xattrs: Table<(InodeId, Name), XattrValue>,
    pub(super) sessions: Table<SessionId, Session>,
    pub(super) replies: Table<(SessionId, RequestId), RememberedReply>,
    pub(super) orphans: Table<(InodeId, SessionId), Orphan>,
    pub(super) members: Table<u64, Name>,
    /// Ranges of chunk ids whose history is lost: from the key up to the value.
    pub(super) lost: Table<ChunkId, ChunkId>,
    pub(super) classes: Table<ClassId, StoredClass>,
    pub(super) servers: Table<ServerId, ServerLabels>,
    /// What reconciliations may have lost, of chunks that are there.
    pub(super) losses: Table<ChunkId, Loss>,
    /// Of every chunk that lies in parts, or did when it had its last lease.
    pub(super) stripes: Table<ChunkId, Coded>,
    /// Files that have been left alone.
    pub(super) archived: Table<InodeId, Archived>,
    /// Of every directory that has some.
    pub(super) patterns: Table<InodeId, Patterns>,
    // Derived from the tables above, neither in the digest nor in images:
    /// Sessions by nonce.
    pub(super) nonces: Table<u64, Derived<SessionId>>,
    /// Orphans by session.
    pub(super) kept: Table<(SessionId, InodeId), ()>,
    /// Open leases by session.
    pub(super) held: Table<(SessionId, ChunkId), ()>,
    /// Inodes of each operator's class that has any.
    pub(super) users: Table<ClassId, Derived<u64>>,
}

/// What is not in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct Scalars {
    #[n(0)]
    pub(super) applied: LogPosition,
    #[n(1)]
    pub(super) incarnation: Incarnation,
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) capability_secret: Vec<u8>,
    /// Seeds the hashes of names, for life.
    #[n(3)]
    pub(super) name_seed: u64,
    /// The last numbers given.
    #[n(4)]
    pub(super) last_inode: InodeId,
    #[n(5)]
    pub(super) last_chunk: ChunkId,
    #[n(6)]
    pub(super) last_session: SessionId,
    /// No epoch below is given any more, nor a version.
    #[n(7)]
    pub(super) epoch_floor: Epoch,
    /// Absent from images of the time before there were levels.
    #[n(8)]
    #[cbor(default)]
    pub(super) level: FeatureLevel,
}

impl Scalars {
    /// A hash of everything but the position: entries without records move it.
    fn hash(&self) -> u64 {
        let base = digest::words(
            12,
            &[
                self.incarnation.0,
                digest::bytes(0, &self.capability_secret),
                self.name_seed,
                self.last_inode.0,
                self.last_chunk.0,
                self.last_session.0,
                self.epoch_floor.0,
            ],
        );
        // The first level has the digests of the time before there were levels.
        match self.level {
            FeatureLevel::FIRST => base,
            level => digest::words(19, &[base, u64::from(level.0)]),
        }
    }
}

/// An entry of a derived table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Derived<T>(pub(crate) T);

impl<K, T: Clone> Entity<K> for Derived<T> {
    fn hash(&self, _: &K) -> u64 {
        0
    }
}

impl Entity<u64> for Name {
    fn hash(&self, member: &u64) -> u64 {
        digest::words(8, &[*member, digest::bytes(0, self.bytes())])
    }

    fn heap(&self, _: &u64) -> usize {
        Self::heap(self)
    }
}

impl Entity<Self> for ChunkId {
    fn hash(&self, from: &Self) -> u64 {
        digest::words(9, &[from.0, self.0])
    }
}

/// A chunk as the state knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The file that it belongs to.
    pub inode: InodeId,
    /// Which chunk of the file it is.
    pub index: u32,
    /// Its present version; 0 before its first lease.
    pub version: ChunkVersion,
    /// The newest epoch of its leases.
    pub epoch: Epoch,
    /// Files that refer to it (snapshots will share chunks).
    pub references: u32,
    /// What is wanted of its copies.
    pub class: ClassId,
    /// Who may write it, and what of it is not yet known durable and equal.
    pub lease: LeaseState,
    /// In which parts it lies; `None`: in copies.
    pub stripe: Option<Stripe>,
    /// Its file is archived.
    pub archived: bool,
}

/// A server in one life of it.
pub type WriteSet = Vec<(ServerId, BootId)>;

/// Where a chunk stands between writing and rest.
///
/// `base` is the last version at which every copy was known durable and equal.
/// `synced` is the newest version under which an fsync may have been answered since, or
/// `base`: a mount tells of its syncs in a commit before it answers. A copy of it or a newer
/// one has every synced byte, whether the lease wrote to it or not. Not known of leases that
/// were granted below the level that it came with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum LeaseState {
    /// Its copies are equal and durable at the chunk's version.
    #[n(0)]
    #[default]
    Settled,
    /// A session may write it.
    #[n(1)]
    Open {
        /// Whose lease.
        #[n(0)]
        session: SessionId,
        /// See above.
        #[n(1)]
        base: ChunkVersion,
        /// Who is written to, in chain order.
        #[n(2)]
        copies: WriteSet,
        /// See above.
        #[n(3)]
        synced: Option<ChunkVersion>,
    },
    /// Given back without a sync: the leader has the copies synced.
    #[n(2)]
    Closing {
        /// See above.
        #[n(0)]
        base: ChunkVersion,
        /// Who was written to.
        #[n(1)]
        copies: WriteSet,
        /// See above.
        #[n(2)]
        synced: Option<ChunkVersion>,
    },
    /// Its session ended: the copies may differ.
    #[n(3)]
    Broken {
        /// See above.
        #[n(0)]
        base: ChunkVersion,
        /// Who was written to.
        #[n(1)]
        copies: WriteSet,
        /// See above.
        #[n(2)]
        synced: Option<ChunkVersion>,
    },
    /// Fenced, and being made equal.
    #[n(4)]
    Reconciling {
        /// See above.
        #[n(0)]
        base: ChunkVersion,
        /// Who was written to.
        #[n(1)]
        copies: WriteSet,
        /// See above.
        #[n(2)]
        synced: Option<ChunkVersion>,
    },
}

impl LeaseState {
    /// Its name, for operators.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Open { .. } => "open",
            Self::Closing { .. } => "closing",
            Self::Broken { .. } => "broken",
            Self::Reconciling { .. } => "reconciling",
        }
    }

    /// The servers that were written to; none when settled.
    #[must_use]
    pub fn copies(&self) -> &[(ServerId, BootId)] {
        match self {
            Self::Settled => &[],
            Self::Open { copies, .. }
            | Self::Closing { copies, .. }
            | Self::Broken { copies, .. }
            | Self::Reconciling { copies, .. } => copies,
        }
    }

    /// The last version known durable and equal; none when that is the present one.
    #[must_use]
    pub fn base(&self) -> Option<ChunkVersion> {
        match self {
            Self::Settled => None,
            Self::Open { base, .. }
            | Self::Closing { base, .. }
            | Self::Broken { base, .. }
            | Self::Reconciling { base, .. } => Some(*base),
        }
    }

    /// The newest version under which an fsync may have been answered; none where that is
    /// not known.
    #[must_use]
    pub fn synced(&self) -> Option<ChunkVersion> {
        match self {
            Self::Settled => None,
            Self::Open { synced, .. }
            | Self::Closing { synced, .. }
            | Self::Broken { synced, .. }
            | Self::Reconciling { synced, .. } => *synced,
        }
    }

    /// An fsync may be answered under a version.
    pub(crate) fn note_sync(&mut self, version: ChunkVersion) {
        if let Some(synced) = self.synced_mut() {
            *synced = synced.map(|before| before.max(version));
        }
    }

    /// The same, of which nobody knows what was synced under it.
    pub(crate) fn without_syncs(mut self) -> Self {
        if let Some(synced) = self.synced_mut() {
            *synced = None;
        }
        self
    }

    fn synced_mut(&mut self) -> Option<&mut Option<ChunkVersion>> {
        match self {
            Self::Settled => None,
            Self::Open { synced, .. }
            | Self::Closing { synced, .. }
            | Self::Broken { synced, .. }
            | Self::Reconciling { synced, .. } => Some(synced),
        }
    }

    /// The session that holds the lease.
    #[must_use]
    pub fn holder(&self) -> Option<SessionId> {
        match self {
            Self::Open { session, .. } => Some(*session),
            _ => None,
        }
    }
}

/// What applying one record did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// What to answer: for client records and for `BeginSession`.
    pub outcome: Option<Outcome>,
    /// Whom to answer: for client records.
    pub session: Option<(SessionId, RequestId)>,
    /// What is different now. The same thing may be named twice.
    pub changes: Vec<Change>,
}

/// Something that a record changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The attributes, content or existence of an inode.
    Inode(InodeId),
    /// A name in a directory: what it names, or whether it is there.
    Dentry {
        /// The directory.
        parent: InodeId,
        /// The name.
        name: Vec<u8>,
    },
    /// A chunk was made.
    ChunkMade(ChunkId),
    /// Nobody refers to a chunk any more.
    ChunkGone(ChunkId),
    /// A chunk's lease state, epoch or version changed.
    Lease(ChunkId),
    /// More may have been synced under a chunk's lease, or nobody knows any more what was.
    Synced(ChunkId),
    /// A chunk is of another class.
    Copies(ChunkId),
    /// A chunk came to lie in parts, or in copies again.
    Stripe(ChunkId),
    /// A class was made, changed or removed: what its chunks want is another thing.
    Class(ClassId),
    /// A server's labels are others.
    Labels(ServerId),
    /// The cluster's feature level was raised to this.
    Level(FeatureLevel),
    /// These servers hold the chunk at this version now, equal and durable.
    Settled {
        /// The chunk.
        chunk: ChunkId,
        /// Its version.
        version: ChunkVersion,
        /// Who holds it, and the life in which it was written and synced, as far as the
        /// record tells.
        copies: Vec<(ServerId, Option<BootId>)>,
    },
    /// A session is over.
    SessionEnded(SessionId),
}

impl State {
    /// A digest of everything that was applied, O(1) to read: equal on every member
    /// that applied the same records.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let base = digest::words(
            13,
            &[
                self.scalars.hash(),
                self.inodes.digest(),
                self.dentries.digest(),
                self.extents.digest(),
                self.chunks.digest(),
                self.leases.digest(),
                self.xattrs.digest(),
                self.sessions.digest(),
                self.replies.digest(),
                self.orphans.digest(),
                self.members.digest(),
                self.lost.digest(),
            ],
        );
        // Tables that came later count once they hold something, so that older digests
        // stay what they were.
        let classes = match self.classes.len() + self.servers.len() {
            0 => base,
            _ => digest::words(16, &[base, self.classes.digest(), self.servers.digest()]),
        };
        let losses = match self.losses.len() {
            0 => classes,
            _ => digest::words(18, &[classes, self.losses.digest()]),
        };
        let codes = match self.stripes.len() + self.archived.len() {
            0 => losses,
            _ => {
                let late = [losses, self.stripes.digest(), self.archived.digest()];
                digest::words(21, &late)
            }
        };
        match self.patterns.len() {
            0 => codes,
            _ => digest::words(24, &[codes, self.patterns.digest()]),
        }
    }

    /// Bytes of memory that the tables take, pages shared with clones included.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let bytes = self.inodes.bytes()
            + self.dentries.bytes()
            + self.extents.bytes()
            + self.chunks.bytes()
            + self.leases.bytes()
            + self.xattrs.bytes()
            + self.sessions.bytes()
            + self.replies.bytes()
            + self.orphans.bytes()
            + self.members.bytes()
            + self.lost.bytes()
            + self.nonces.bytes()
            + self.kept.bytes()
            + self.held.bytes()
            + self.classes.bytes()
            + self.servers.bytes()
            + self.losses.bytes()
            + self.stripes.bytes()
            + self.archived.bytes()
            + self.patterns.bytes()
            + self.users.bytes();
        bytes as u64
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("applied", &self.scalars.applied)
            .field("inodes", &self.inodes.len())
            .field("chunks", &self.chunks.len())
            .field("digest", &format_args!("{:016x}", self.digest()))
            .finish()
    }
}
