//! [`ChunkStore`]: one disk's parts, its operations, and their progress.
//!
//! Owns the table of parts and the dispatch. An operation that needs no sync is
//! done at once; a commit or a checkpoint is a [`Work`] that the driver advances,
//! syncing a file whenever it is told to, while other operations go on.

use super::checkpoint::CheckpointWork;
use super::commit::{CommitWork, FlushWork};
use super::disk::Disk;
use super::format::Identity;
use super::geometry::StripeShape;
use super::journal::{Journal, Mark};
use super::operation::{DiskError, DiskReply, DiskRequest, ReceiveStep, StoredPart};
use super::part::{Dirty, Part};
use super::write::Pieces;
use crate::ids::{ChunkVersion, ClusterId, DiskId, Epoch, PartId, ServerId};
use crate::limits::{BLOCKS_PER_CHUNK, CHUNK_SIZE, UNIT_SIZE};
use crate::planted::{self, Planted};
use crate::vfs::{FileId, Space, Vfs, VfsResult};
use std::collections::{BTreeMap, BTreeSet};

/// How a disk is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Whose disk it must be, or becomes.
    pub cluster: ClusterId,
    /// Whose disk it must be, or becomes.
    pub server: ServerId,
    /// Its number if it must be formatted; an existing disk has one.
    pub disk: DiskId,
    /// The folder, for reports.
    pub path: String,
    /// The bounds.
    pub tuning: Tuning,
}

/// The bounds of a store, all in bytes but for slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Of a journal segment, for a disk that is formatted. At least 512 KiB.
    pub segment_size: u32,
    /// Slots in a slot file, for a disk that is formatted.
    pub slots_per_file: u32,
    /// Up to which length a write is kept in memory until the commit.
    pub small_write: usize,
    /// Up to how much of one part small writes are kept.
    pub part_memory: usize,
    /// Up to how much of one part is kept that can't go straight; beyond, blocks
    /// move to fresh slots.
    pub part_memory_locked: usize,
    /// Up to how much is kept in all.
    pub disk_memory: usize,
    /// Up to how much of small writes a commit embeds in the journal.
    pub embed_max: usize,
    /// Of journal after which a checkpoint is due (more if the part table is longer).
    pub checkpoint_bytes: u64,
    /// Bytes of the disk that content leaves free, for the journal and the tables; no more
    /// than a 64th of it, or three segments of the journal and a quarter of it.
    pub reserve: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_size: 16 << 20,
            slots_per_file: 64 << 10,
            small_write: 128 << 10,
            part_memory: 256 << 10,
            part_memory_locked: 2 << 20,
            disk_memory: 64 << 20,
            embed_max: 1 << 20,
            checkpoint_bytes: 64 << 20,
            reserve: 64 << 20,
        }
    }
}

impl Tuning {
    /// Keeps every record within half a frame.
    pub(super) fn fit(mut self, frame_max: usize) -> Self {
        // The header, and of every block its fields and CRCs.
        let fixed = 4096 + BLOCKS_PER_CHUNK as usize * (12 + 64);
        // An embedded unit has a length of 2 bytes before it.
        let room = (frame_max / 2).saturating_sub(fixed) / (UNIT_SIZE + 2) * UNIT_SIZE;
        assert!(room >= 16 * UNIT_SIZE, "a segment holds at least 512 KiB");
        self.part_memory_locked = self.part_memory_locked.min(room);
        self.embed_max = self.embed_max.min(room);
        self
    }
}

/// An operation that is under way.
#[derive(Debug)]
pub struct Work(pub(super) State);

#[derive(Debug)]
pub(super) enum State {
    Done(Result<DiskReply, DiskError>),
    Commit(Box<CommitWork>),
    Flush(Box<FlushWork>),
    Checkpoint(Box<CheckpointWork>),
    Over,
}

/// What an operation needs next.
#[derive(Debug)]
pub enum Progress {
    /// Sync that file, if possible without holding the store, then advance with
    /// the result. Other operations may run meanwhile.
    Sync(FileId),
    /// Advance again; a crash or another operation may fall here.
    More,
    /// It is over.
    Done(Result<DiskReply, DiskError>),
}

/// A rare event in a store, for coverage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreMark {
    /// Recovery found the journal's end behind a torn frame.
    TornTail,
    /// Embedded units were written in place by recovery.
    UnitsReplayed,
    /// A checkpoint was made.
    Checkpointed,
    /// A commit had several parts.
    CommitShared,
    /// A part was replaced by what was received.
    PartReceived,
    /// A wrong checksum was met.
    CorruptUnit,
    /// A sync failed.
    SyncFailed,
    /// There was no space.
    DiskFull,
    /// There was no space for the journal.
    JournalFull,
}

/// The parts of one disk.
///
/// [`ChunkStore::open`] recovers it; then for every request [`ChunkStore::start`],
/// and [`ChunkStore::advance`] until it says `Done`. The rules for what may be
/// under way at once stand at [`DiskRequest`].
#[derive(Debug)]
pub struct ChunkStore<V> {
    pub(super) disk: Disk<V>,
    pub(super) identity: Identity,
    pub(super) journal: Journal,
    pub(super) parts: BTreeMap<PartId, Part>,
    /// What is being received for parts.
    pub(super) receiving: BTreeMap<PartId, Part>,
    /// Parts whose committed units wait for space in their places.
    pub(super) homeless: BTreeSet<PartId>,
    /// Up to where every frame is done, in memory and in place.
    pub(super) applied: Mark,
    /// What the newest table covers, and its length.
    pub(super) covered: Mark,
    pub(super) table_bytes: u64,
    /// Files written in place since the last checkpoint.
    pub(super) touched: BTreeSet<FileId>,
    pub(super) committing: bool,
    pub(super) checkpointing: bool,
    pub(super) marks: Vec<StoreMark>,
}

impl<V: Vfs> ChunkStore<V> {
    /// Begins an operation.
    ///
    /// # Panics
    /// When a request breaks the rules at [`DiskRequest`], or names ranges outside
    /// a chunk: a bug of the machine.
    pub fn start(&mut self, request: DiskRequest) -> Work {
        let result = match request {
            DiskRequest::Commit { changes } => return self.start_commit(changes),
            DiskRequest::Flush { parts } => return self.start_flush(&parts),
            DiskRequest::Checkpoint => return self.start_checkpoint(),
            DiskRequest::Close => return Work(State::Done(Ok(DiskReply::Done))),
            request => self.execute(request),
        };
        self.note_failure(&result);
        Work(State::Done(result))
    }

    /// Moves an operation on. `synced` is the result of the sync that was asked for.
    ///
    /// # Panics
    /// When the operation is over already.
    pub fn advance(&mut self, work: &mut Work, synced: Option<VfsResult<()>>) -> Progress {
        if let Some(Err(error)) = synced
            && !planted::is(Planted::IgnoreSyncError)
        {
            self.mark(StoreMark::SyncFailed);
            let reason = format!("a sync failed: {error}");
            self.disk.failed.get_or_insert(reason);
        }
        let progress = match &mut work.0 {
            State::Done(_) => Progress::More,
            State::Commit(commit) => self.advance_commit(commit),
            State::Flush(flush) => self.advance_flush(flush),
            State::Checkpoint(checkpoint) => self.advance_checkpoint(checkpoint),
            State::Over => panic!("the operation is over"),
        };
        match progress {
            Progress::More if matches!(work.0, State::Done(_)) => {
                let State::Done(result) = std::mem::replace(&mut work.0, State::Over) else {
                    unreachable!("it was just matched");
                };
                Progress::Done(result)
            }
            Progress::Done(result) => {
                self.note_failure(&result);
                work.0 = State::Over;
                Progress::Done(result)
            }
            other => other,
        }
    }

    /// The rare events since the last call.
    pub fn take_marks(&mut self) -> Vec<StoreMark> {
        std::mem::take(&mut self.marks)
    }

    /// Why the disk takes nothing any more.
    pub fn failed(&self) -> Option<&str> {
        self.disk.failed.as_deref()
    }

    /// The disk's number.
    pub fn id(&self) -> DiskId {
        self.identity.disk
    }

    /// Every part, as it is now (committed or not).
    pub fn parts(&self) -> impl Iterator<Item = StoredPart> {
        self.parts.iter().map(|(&id, part)| stored(id, part))
    }

    /// Of what stripe a part is; `None` for a whole copy, and if it is not there.
    pub fn stripe(&self, part: PartId) -> Option<StripeShape> {
        self.parts.get(&part)?.stripe
    }

    /// The files, back.
    pub fn into_vfs(self) -> V {
        self.disk.vfs
    }

    /// The files, for a driver that syncs one without holding the store.
    pub fn vfs_mut(&mut self) -> &mut V {
        &mut self.disk.vfs
    }

    fn execute(&mut self, request: DiskRequest) -> Result<DiskReply, DiskError> {
        // What is on a failed disk may still be read: every unit's checksum tells.
        if !matches!(request, DiskRequest::Read { .. } | DiskRequest::Map { .. }) {
            self.disk.check_alive()?;
        }
        match request {
            DiskRequest::Read {
                part,
                offset,
                length,
            } => self.read(part, offset, length),
            DiskRequest::Write {
                part,
                version,
                epoch,
                drop_from,
                offset,
                data,
                checksums,
            } => self.change(part, version, epoch, |disk, target| {
                let pieces = Pieces {
                    offset: offset as usize,
                    data: &data,
                    checksums: &checksums,
                };
                let dropped = disk.write(part, target, drop_from, &pieces)?;
                Ok(match dropped {
                    true => DiskReply::Dropped,
                    false => DiskReply::Done,
                })
            }),
            DiskRequest::Zero {
                part,
                version,
                epoch,
                offset,
                length,
            } => self.change(part, version, epoch, |disk, target| {
                disk.zero(part, target, offset as usize, length as usize)?;
                Ok(DiskReply::Done)
            }),
            DiskRequest::Receive { part, step } => self.receive(part, step),
            DiskRequest::Digest { part } => self.digest(part),
            DiskRequest::Map { part } => self.map(part),
            DiskRequest::Inspect => self.inspect(),
            DiskRequest::Commit { .. }
            | DiskRequest::Flush { .. }
            | DiskRequest::Checkpoint
            | DiskRequest::Close => {
                unreachable!("those do not come here")
            }
        }
    }

    /// Changes a part, making it if it is not there; a failure leaves all as it was.
    fn change(
        &mut self,
        id: PartId,
        version: ChunkVersion,
        epoch: Epoch,
        change: impl FnOnce(&mut Disk<V>, &mut Part) -> Result<DiskReply, DiskError>,
    ) -> Result<DiskReply, DiskError> {
        match self.parts.get_mut(&id) {
            Some(part) => {
                let done = change(&mut self.disk, part)?;
                part.raise(version, epoch);
                Ok(done)
            }
            None => {
                let mut part = new_part(version, epoch);
                let done = change(&mut self.disk, &mut part)?;
                self.parts.insert(id, part);
                Ok(done)
            }
        }
    }

    fn read(&mut self, id: PartId, offset: u32, length: u32) -> Result<DiskReply, DiskError> {
        let part = self.parts.get(&id).ok_or(DiskError::NotFound)?;
        let units = self.disk.read(id, part, offset as usize, length as usize)?;
        Ok(DiskReply::Read {
            data: units.data,
            checksums: units.checksums,
            present: units.present,
            version: part.version,
        })
    }

    fn digest(&mut self, id: PartId) -> Result<DiskReply, DiskError> {
        let part = self.parts.get(&id).ok_or(DiskError::NotFound)?;
        let digest = self.disk.digest(id, part)?;
        Ok(DiskReply::Digest(stored(id, part), digest))
    }

    fn map(&mut self, id: PartId) -> Result<DiskReply, DiskError> {
        let part = self.parts.get(&id).ok_or(DiskError::NotFound)?;
        let present = self.disk.map(id, part)?;
        Ok(DiskReply::Map {
            present,
            version: part.version,
            stripe: part.stripe,
        })
    }

    fn receive(&mut self, id: PartId, step: ReceiveStep) -> Result<DiskReply, DiskError> {
        match step {
            ReceiveStep::Begin { stripe } => {
                let fits = stripe.is_none_or(|shape| shape.index_of(id).is_some());
                assert!(fits, "{id} is no part of a stripe of {stripe:?}");
                self.abandon(id);
                let part = Part {
                    stripe,
                    ..new_part(ChunkVersion(0), Epoch(0))
                };
                self.receiving.insert(id, part);
            }
            ReceiveStep::Piece {
                offset,
                data,
                checksums,
            } => {
                let part = self.receiving.get_mut(&id).ok_or(DiskError::NotFound)?;
                let (offset, data) = (offset as usize, &data);
                let whole =
                    offset.is_multiple_of(UNIT_SIZE) && data.len().is_multiple_of(UNIT_SIZE);
                assert!(whole, "whole units are received");
                let pieces = Pieces {
                    offset,
                    data,
                    checksums: &checksums,
                };
                self.disk.write(id, part, None, &pieces)?;
            }
            ReceiveStep::Abandon => self.abandon(id),
        }
        Ok(DiskReply::Done)
    }

    /// Drops what was received for a part.
    pub(super) fn abandon(&mut self, id: PartId) {
        if let Some(part) = self.receiving.remove(&id) {
            self.forget(&part);
        }
    }

    /// Frees all that a part has on disk and in memory.
    pub(super) fn forget(&mut self, part: &Part) {
        assert!(!part.committing, "a part under commit is kept");
        self.disk.memory -= part.memory_bytes();
        for slot in part.all_slots() {
            self.disk.slots.free(slot);
        }
    }

    fn inspect(&mut self) -> Result<DiskReply, DiskError> {
        let space = self.space()?;
        let journal = self.journal.bytes_behind(self.covered);
        let due = journal > self.disk.tuning.checkpoint_bytes.max(self.table_bytes);
        // Slots that were freed are given back by a checkpoint.
        let to_give_back = self.disk.slots.warm_slots() >= 1024;
        Ok(DiskReply::Inspected {
            space,
            checkpoint_due: due || to_give_back,
        })
    }

    pub(super) fn space(&mut self) -> Result<Space, DiskError> {
        let space = self.disk.slots.refresh(&mut self.disk.vfs);
        space.map_err(|error| self.disk.fault(error))
    }

    pub(super) fn mark(&mut self, mark: StoreMark) {
        if !self.marks.contains(&mark) {
            self.marks.push(mark);
        }
    }

    fn note_failure(&mut self, result: &Result<DiskReply, DiskError>) {
        match result {
            Err(DiskError::Corrupt { .. } | DiskError::Unreadable { .. }) => {
                self.mark(StoreMark::CorruptUnit)
            }
            Err(DiskError::Full) => self.mark(StoreMark::DiskFull),
            _ => {}
        }
    }

    /// Asserts what must hold between operations; `whole` also counts every slot.
    pub fn check_invariants(&self, whole: bool) {
        assert!(
            self.covered.sequence <= self.applied.sequence,
            "a table covers what is done"
        );
        if !whole {
            return;
        }
        let all = || self.parts.values().chain(self.receiving.values());
        let memory: usize = all().map(Part::memory_bytes).sum();
        assert_eq!(memory, self.disk.memory, "memory is counted");
        let slots: Vec<u32> = all().flat_map(Part::all_slots).collect();
        let distinct: BTreeSet<u32> = slots.iter().copied().collect();
        assert_eq!(distinct.len(), slots.len(), "a slot has one part");
        self.disk.slots.check_invariants(&slots);
    }
}

/// A part that was never committed.
pub(super) fn new_part(version: ChunkVersion, epoch: Epoch) -> Part {
    Part {
        version,
        epoch,
        dirty: Some(Box::new(Dirty::default())),
        ..Part::default()
    }
}

pub(super) fn stored(id: PartId, part: &Part) -> StoredPart {
    StoredPart {
        part: id,
        version: part.version,
        epoch: part.epoch,
    }
}

const _: () = assert!(
    CHUNK_SIZE <= u32::MAX as u64,
    "offsets in a chunk have 32 bits"
);
