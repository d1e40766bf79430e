//! What a chunkserver asks of one disk, and what comes back. The same
//! [`crate::chunk`] store executes it in the daemon and in the simulator.

use super::geometry::StripeShape;
use super::rules::DiskRules;
use crate::ids::{ChunkVersion, DiskId, Epoch, PartId, Token};
use crate::vfs::Space;
use bytes::Bytes;

/// An operation on one disk.
#[derive(Debug)]
pub struct DiskOperation {
    /// On which disk.
    pub disk: DiskId,
    /// Returned with the completion.
    pub token: Token,
    /// What.
    pub body: DiskRequest,
}

/// How it ended.
#[derive(Debug)]
pub struct DiskCompletion {
    /// On which disk.
    pub disk: DiskId,
    /// Which operation.
    pub token: Token,
    /// The result.
    pub result: Result<DiskReply, DiskError>,
}

/// What a disk can be asked. The machine keeps these rules:
/// - operations that change one part are serialised. Reads may run beside them:
///   everything but `Commit`, `Flush` and `Checkpoint` is done in one step, and
///   those change no content;
/// - a part of a stripe is made by `Receive`, which alone says of what stripe it is;
/// - at most one `Commit`, one `Flush` and one `Checkpoint` are under way on a
///   disk, and they may run beside each other.
#[derive(Clone, Debug)]
pub enum DiskRequest {
    /// Whole units of a part.
    Read {
        /// Which part.
        part: PartId,
        /// From where, a multiple of UNIT_SIZE.
        offset: u32,
        /// How much, a multiple of UNIT_SIZE.
        length: u32,
    },
    /// Changes a part in memory and in the page cache; durable after `Commit`.
    Write {
        /// Which part.
        part: PartId,
        /// The version and epoch that it has from now on (durable with the next
        /// commit). A part that is not there is made.
        version: ChunkVersion,
        /// The epoch of the writer.
        epoch: Epoch,
        /// Drop everything from this byte on, first.
        drop_from: Option<u32>,
        /// Where the data goes, any alignment.
        offset: u32,
        /// The data.
        data: Bytes,
        /// CRC-32 of each piece of the data, cut at unit boundaries of the chunk.
        /// The store verifies them before it changes anything.
        checksums: Vec<u32>,
    },
    /// Makes a range read as zeros; durable after `Commit`.
    Zero {
        /// Which part.
        part: PartId,
        /// As in `Write`.
        version: ChunkVersion,
        /// As in `Write`.
        epoch: Epoch,
        /// From where.
        offset: u32,
        /// How much.
        length: u32,
    },
    /// Makes changes of parts durable, all with one group commit.
    Commit {
        /// Which, each part at most once.
        changes: Vec<PartCommit>,
    },
    /// Syncs what parts have written in bulk (or received), so that a `Commit` of them
    /// need not: commits of others go on meanwhile. Durable it is only after that.
    Flush {
        /// Which.
        parts: Vec<PartId>,
    },
    /// Prepares a part's content from another server's, piece by piece beside what
    /// is there; `Commit` with [`CommitAction::Receive`] puts it in place. A crash
    /// before that leaves what was there before.
    Receive {
        /// Which part.
        part: PartId,
        /// What.
        step: ReceiveStep,
    },
    /// The digest of a part's content.
    Digest {
        /// Which part.
        part: PartId,
    },
    /// The present units of a part.
    Map {
        /// Which part.
        part: PartId,
    },
    /// Moves what is in the journal to its places and shortens the journal.
    Checkpoint,
    /// Tells the disk's space and whether a checkpoint is due.
    Inspect,
    /// Lets the disk go: the last thing that is asked of it.
    Close,
}

impl DiskRequest {
    /// Bytes that it brings to the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Write { data, .. }
            | Self::Receive {
                step: ReceiveStep::Piece { data, .. },
                ..
            } => data.len() as u64,
            _ => 0,
        }
    }
}

/// One part of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartCommit {
    /// Which.
    pub part: PartId,
    /// What.
    pub action: CommitAction,
}

/// What a commit does with a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitAction {
    /// Makes it durable as it is.
    Keep,
    /// Sets version and epoch along.
    Raise {
        /// The version that it gets.
        version: ChunkVersion,
        /// The epoch that it gets.
        epoch: Epoch,
        /// Make it (empty) if it is not there.
        create: bool,
    },
    /// Replaces it by what was received (by an empty part if nothing was).
    Receive {
        /// The version that it gets.
        version: ChunkVersion,
        /// The epoch that it gets.
        epoch: Epoch,
    },
    /// Removes it, and what was received for it.
    Delete,
}

/// A step of preparing a part's content.
#[derive(Clone, Debug)]
pub enum ReceiveStep {
    /// Begin with nothing (an earlier unfinished one is dropped).
    Begin {
        /// Of what stripe the part is: the only way to make one that knows. `None`
        /// for a whole copy.
        stripe: Option<StripeShape>,
    },
    /// Present units at an offset (a multiple of UNIT_SIZE), whole units.
    Piece {
        /// Where.
        offset: u32,
        /// The units.
        data: Bytes,
        /// CRC-32 of each unit. The store verifies them.
        checksums: Vec<u32>,
    },
    /// Drop what was received.
    Abandon,
}

/// The good replies of a disk.
#[derive(Clone, Debug)]
pub enum DiskReply {
    /// Nothing more to say.
    Done,
    /// The write is done, and content was dropped for it that a crash brings back before the
    /// next commit of the part.
    Dropped,
    /// Verified content.
    Read {
        /// Every unit asked for, absent ones as zeros.
        data: Bytes,
        /// CRC-32 of each unit.
        checksums: Vec<u32>,
        /// One bit a unit, least significant first.
        present: Vec<u8>,
        /// The part's version.
        version: ChunkVersion,
    },
    /// For each part of a `Commit`, in order, what it is like; `None` if it is not there.
    Committed(Vec<Option<StoredPart>>),
    /// A content digest.
    Digest(StoredPart, u64),
    /// Present units, one bit a unit, least significant first, up to the last
    /// block that has any.
    Map {
        /// The bits.
        present: Vec<u8>,
        /// The part's version.
        version: ChunkVersion,
        /// Of what stripe it is; `None` for a whole copy.
        stripe: Option<StripeShape>,
    },
    /// The disk's state.
    Inspected {
        /// Its space; what can be given back counts as free.
        space: Space,
        /// The journal has grown enough for a checkpoint.
        checkpoint_due: bool,
    },
}

/// What is known of a part without reading it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoredPart {
    /// Which.
    pub part: PartId,
    /// Its version.
    pub version: ChunkVersion,
    /// The newest epoch seen.
    pub epoch: Epoch,
}

/// Why a disk did not do it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no such part.
    #[error("no such part")]
    NotFound,
    /// A unit's checksum is wrong.
    #[error("unit {unit} has a wrong checksum")]
    Corrupt {
        /// Which unit of the part.
        unit: u32,
    },
    /// A unit could not be read; nothing is known of its content.
    #[error("unit {unit} can't be read")]
    Unreadable {
        /// Which unit of the part.
        unit: u32,
    },
    /// The data does not match the checksums that came with it; nothing changed.
    #[error("data came damaged")]
    Mismatch,
    /// No space; nothing changed (of a commit of many parts, some may be durable).
    #[error("the disk is full")]
    Full,
    /// The disk failed; nothing more is accepted on it but reads.
    #[error("the disk failed: {0}")]
    Medium(String),
}

/// A change of a chunkserver's disks while it runs.
#[derive(Clone, Debug)]
pub enum DiskChange {
    /// From now on that is ordered of a disk.
    Rules(DiskId, DiskRules),
    /// A disk was opened and recovered, and is there from now on.
    Add(OpenedDisk),
    /// A disk is to be let go: the machine asks for `Close` when nothing is under way on it.
    Remove(DiskId),
}

/// A disk as the chunkserver starts on it: opened, recovered, its parts listed.
#[derive(Clone, Debug)]
pub struct OpenedDisk {
    /// Which.
    pub disk: DiskId,
    /// The folder as configured.
    pub path: String,
    /// Its space.
    pub space: Space,
    /// What it holds.
    pub parts: Vec<StoredPart>,
    /// What is ordered of it.
    pub rules: DiskRules,
    /// Why it can't be used; then it has no parts.
    pub failed: Option<String>,
}
