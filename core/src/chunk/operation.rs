//! What a chunkserver asks of one disk, and what comes back. The same
//! [`crate::chunk`] store executes it in the daemon and in the simulator.

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

/// What a disk can be asked. Operations on one part are serialised by the
/// machine; at most one `Sync` or `Checkpoint` is under way on a disk.
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
    /// Changes a part in memory and in the page cache; durable after `Sync`.
    Write {
        /// Which part.
        part: PartId,
        /// The version and epoch that it has from now on (durable with the next
        /// sync). A part that is not there is made.
        version: ChunkVersion,
        /// The epoch of the writer.
        epoch: Epoch,
        /// Drop everything from this byte on, first.
        drop_from: Option<u32>,
        /// Where the data goes, any alignment.
        offset: u32,
        /// The data, its checksums verified.
        data: Bytes,
    },
    /// Makes a range read as zeros; durable after `Sync`.
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
    /// Makes parts durable, all with one group commit. A `raise` sets version and
    /// epoch along; `create` makes a part (empty) that is not there.
    Sync {
        /// Which.
        parts: Vec<SyncPart>,
    },
    /// Removes parts, durably.
    Delete {
        /// Which.
        parts: Vec<PartId>,
    },
    /// Replaces a part's content by another server's, piece by piece under a
    /// temporary identity: `Begin`, then `Piece`s, then `Finish` (durable). A crash
    /// before the end leaves what was there before.
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
}

/// One part of a sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncPart {
    /// Which.
    pub part: PartId,
    /// Set these along.
    pub raise: Option<(ChunkVersion, Epoch)>,
    /// Make it if it is not there.
    pub create: bool,
}

/// A step of replacing a part's content.
#[derive(Clone, Debug)]
pub enum ReceiveStep {
    /// Begin with nothing (an earlier unfinished one is dropped).
    Begin,
    /// Present units at an offset (a multiple of UNIT_SIZE), whole units.
    Piece {
        /// Where.
        offset: u32,
        /// The units.
        data: Bytes,
    },
    /// Durably replace the part, with this version and epoch.
    Finish {
        /// The version.
        version: ChunkVersion,
        /// The epoch.
        epoch: Epoch,
    },
    /// Drop what was received.
    Abandon,
}

/// The good replies of a disk.
#[derive(Clone, Debug)]
pub enum DiskReply {
    /// Nothing more to say.
    Done,
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
    /// For each part of a `Sync`, in order, what it is like; `None` if it is not there.
    Synced(Vec<Option<StoredPart>>),
    /// A content digest.
    Digest(StoredPart, u64),
    /// Present units.
    Map(Vec<u8>),
}

/// What is known of a part without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// No space; nothing changed.
    #[error("the disk is full")]
    Full,
    /// The disk failed; nothing more is accepted on it.
    #[error("the disk failed: {0}")]
    Medium(String),
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
    /// Why it can't be used; then it has no parts.
    pub failed: Option<String>,
}
