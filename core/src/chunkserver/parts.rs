//! The table of parts, and for each part that is in use a queue: operations that
//! change a part run one at a time, in the order in which they came.
//!
//! Reads do not queue: the store does each operation but a commit in one step,
//! and a commit changes no content, so a read sees a part before or after a
//! write, never amid it.

use super::ChunkServer;
use super::disks::{Disks, Issued};
use crate::chunk::operation::{CommitAction, DiskError, DiskRequest, StoredPart};
use crate::hash::Digest;
use crate::ids::{ChunkId, ChunkVersion, DiskId, Epoch, PartId};
use crate::limits::COMMIT_INTERVAL;
use crate::planted::{self, Planted};
use crate::time::Instant;
use crate::wire::chunk_master::PartReport;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Parts that are not there and whose fences are remembered.
const FENCED_MAX: usize = 1 << 16;

/// What the server knows of one part.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartInfo {
    pub(super) disk: DiskId,
    /// As the store has it.
    pub(super) version: ChunkVersion,
    /// The newest seen: at least what the store has.
    pub(super) epoch: Epoch,
    /// The store has it (it is not just about to).
    pub(super) made: bool,
    /// A unit was found bad: the masters don't count it any more.
    pub(super) bad: bool,
    /// Nobody writes at this epoch any more: an old copy of it may come back.
    sealed: Option<Epoch>,
    /// The last write that no commit covers.
    written: Option<Instant>,
    /// Where it stands in `Parts::dirty`.
    due: Option<Instant>,
    /// Bytes that no commit covers.
    unsynced: u64,
}

impl PartInfo {
    /// Whether the part is newer than what is written under a lease of this version.
    fn is_beyond(&self, lease: ChunkVersion) -> bool {
        self.version > lease && !self.version.is_synced_under(lease)
    }

    /// Whether a writer of this epoch comes too late: a newer one was seen.
    pub(super) fn fences(&self, epoch: Epoch) -> bool {
        epoch < self.epoch && !planted::is(Planted::SkipFencing)
    }
}

/// A change of one part, before it is known whether it may be done.
#[derive(Debug)]
pub(super) enum PartOp {
    /// A write of a client.
    Write(PartWrite),
    /// Makes the part durable, with at least this version and epoch.
    Commit {
        version: ChunkVersion,
        epoch: Epoch,
        create: bool,
        /// Not if a newer epoch was seen.
        guarded: bool,
    },
    /// Makes what was written durable.
    Keep,
    /// Puts what was received on a disk in place.
    Receive {
        disk: DiskId,
        version: ChunkVersion,
        epoch: Epoch,
        /// How much was received.
        bytes: u64,
    },
    /// Puts what was copied from another disk of the server in place, if nothing changed.
    Switch {
        from: DiskId,
        to: DiskId,
        version: ChunkVersion,
        epoch: Epoch,
        bytes: u64,
    },
    /// Removes the part if its version is at most this, and nobody is making it anew.
    Delete { most: ChunkVersion },
    /// Changes nothing: what was asked for before is over.
    Pass,
}

#[derive(Debug)]
pub(super) struct PartWrite {
    pub(super) version: ChunkVersion,
    pub(super) epoch: Epoch,
    pub(super) change: Change,
}

#[derive(Debug)]
pub(super) enum Change {
    Data {
        drop_from: Option<u32>,
        offset: u32,
        data: Bytes,
        checksums: Vec<u32>,
    },
    Zero {
        offset: u32,
        length: u32,
    },
}

/// Whom the end of a change concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Then {
    /// A request of the data port.
    Job(u64),
    /// A command's part with that number.
    Command(u64, usize),
    /// A replication.
    Replication(u64),
    /// A replication that begins behind what was asked for before: a deletion takes along
    /// what was received for its part.
    Turn(u64),
    /// A move, whose old copy goes.
    Emptied(u64),
    /// Nobody: the server did it by itself.
    Nobody,
    /// Nobody: the part is on another disk, and its queue with it.
    Duplicate,
}

/// How a change ended.
pub(super) type PartResult = Result<Option<StoredPart>, PartError>;

/// Why a change was not made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PartError {
    /// A newer epoch was seen.
    Fenced,
    /// The part has a newer version under the same epoch.
    Version,
    /// It was lost in this life of the server: nobody may make it anew by writing.
    Lost,
    /// The disk's word.
    Disk(DiskError),
}

/// What a look for a disk's next part came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Looked {
    Part(PartId),
    /// None up to this one.
    Passed(PartId),
    /// None at all.
    End,
}

#[derive(Debug, Default)]
struct Queue {
    running: bool,
    waiting: VecDeque<(PartOp, Then)>,
}

/// Every part of the server.
#[derive(Debug, Default)]
pub(super) struct Parts {
    table: BTreeMap<PartId, PartInfo>,
    queues: BTreeMap<PartId, Queue>,
    waiting: usize,
    /// Parts that hold what no commit covers, by when to look at them.
    dirty: BTreeSet<(Instant, PartId)>,
    /// Parts that a failed disk had.
    lost: BTreeSet<PartId>,
    /// Of them those that the disk holds as they were last acknowledged. They are not
    /// written any more, and read as long as that succeeds.
    suspects: BTreeMap<PartId, PartInfo>,
    /// Parts that are about to be deleted: they are reported as no copies, so that no
    /// leader deletes another one for their sake.
    condemned: BTreeSet<PartId>,
    /// Epochs that parts were fenced at which are not there. A later life needs none:
    /// no capability of this one is good then.
    fenced: BTreeMap<PartId, Epoch>,
    /// Parts that a writer made and the masters were not told of yet.
    fresh: BTreeSet<PartId>,
}

impl Parts {
    pub(super) fn at(&self, part: PartId) -> Option<&PartInfo> {
        self.table.get(&part)
    }

    /// The part, if the store has it.
    pub(super) fn made(&self, part: PartId) -> Option<&PartInfo> {
        self.table.get(&part).filter(|info| info.made)
    }

    /// The part, if it can be read: of a failed disk, too.
    pub(super) fn readable(&self, part: PartId) -> Option<&PartInfo> {
        self.made(part).or_else(|| self.suspects.get(&part))
    }

    /// A suspect could not be read, or is not needed any more; true if it was one.
    pub(super) fn drop_suspect(&mut self, part: PartId) -> bool {
        self.suspects.remove(&part).is_some()
    }

    /// Nobody needs a suspect of at most that version any more.
    fn forget_suspect(&mut self, part: PartId, most: ChunkVersion) {
        let known = self.suspects.get(&part);
        if known.is_some_and(|info| info.version <= most) {
            self.drop_suspect(part);
        }
    }

    /// The first part of a range that is on a disk and good, among so many at most.
    pub(super) fn next_on(
        &self,
        disk: DiskId,
        range: (Bound<PartId>, Bound<PartId>),
        most: usize,
    ) -> Looked {
        for (at, (&part, info)) in self.table.range(range).enumerate() {
            if info.disk == disk && info.made && !info.bad {
                return Looked::Part(part);
            }
            if at + 1 == most {
                return Looked::Passed(part);
            }
        }
        Looked::End
    }

    /// The first and the last chunk of which a part is here.
    pub(super) fn bounds(&self) -> (ChunkId, ChunkId) {
        let chunk = |entry: Option<(&PartId, &PartInfo)>| entry.map_or(ChunkId(0), |e| e.0.chunk);
        let (first, last) = (self.table.first_key_value(), self.table.last_key_value());
        (chunk(first), chunk(last))
    }

    pub(super) fn add(&mut self, disk: DiskId, stored: StoredPart) -> bool {
        let info = PartInfo {
            disk,
            version: stored.version,
            epoch: stored.epoch,
            made: true,
            bad: false,
            sealed: None,
            written: None,
            due: None,
            unsynced: 0,
        };
        match self.table.contains_key(&stored.part) {
            true => false,
            false => self.table.insert(stored.part, info).is_none(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queues.is_empty() || !self.dirty.is_empty()
    }

    pub(super) fn was_lost(&self, part: PartId) -> bool {
        self.lost.contains(&part)
    }

    /// What went with disks in this life.
    pub(super) fn lost(&self) -> impl Iterator<Item = PartId> {
        self.lost.iter().copied()
    }

    /// Takes a part over from another disk.
    pub(super) fn replace(&mut self, disk: DiskId, stored: StoredPart) {
        self.table.remove(&stored.part);
        assert!(self.add(disk, stored), "it was just removed");
    }

    /// Whether a part is there, good, and nothing of it is under way or not durable.
    pub(super) fn is_at_rest(&self, part: PartId) -> bool {
        !self.queues.contains_key(&part) && self.is_as_committed(part)
    }

    /// Whether a part is there, good, and as its last commit has it.
    pub(super) fn is_as_committed(&self, part: PartId) -> bool {
        let good = |info: &PartInfo| !info.bad && info.written.is_none();
        self.made(part).is_some_and(good) && !self.condemned.contains(&part)
    }

    /// From now on a part is on another disk; false if it is not on the one that it was on.
    pub(super) fn relocate(&mut self, part: PartId, from: DiskId, to: DiskId) -> bool {
        match self.table.get_mut(&part).filter(|info| info.disk == from) {
            Some(info) => {
                // What was copied was read and verified, all of it.
                (info.disk, info.bad) = (to, false);
                true
            }
            None => false,
        }
    }

    /// A part that went with a disk is back with it. Writers that it missed since had
    /// that epoch.
    pub(super) fn take_back(&mut self, part: PartId) {
        let fenced = self.fenced.remove(&part).unwrap_or_default();
        self.see_epoch(part, fenced);
        if self.lost.remove(&part) {
            self.seal(part);
        }
    }

    /// The parts that a disk holds.
    pub(super) fn on_disk(&self, disk: DiskId) -> Vec<PartId> {
        let on_disk = self.table.iter().filter(|(_, info)| info.disk == disk);
        on_disk.map(|(&part, _)| part).collect()
    }

    /// The parts on a disk that hold what no commit covers: they are about to be committed.
    pub(super) fn take_dirty_on(&mut self, disk: DiskId) -> Vec<PartId> {
        let dirty: Vec<PartId> = self.dirty_on(disk).collect();
        for part in &dirty {
            self.set_due(*part, None);
        }
        dirty
    }

    fn dirty_on(&self, disk: DiskId) -> impl Iterator<Item = PartId> {
        let dirty = self.dirty.iter().map(|(_, part)| *part);
        dirty.filter(move |part| self.table[part].disk == disk)
    }

    /// Whether a change of a part on a disk is under way, or no commit covers one.
    pub(super) fn is_any_changing_on(&self, disk: DiskId) -> bool {
        let is_on = |part| self.table.get(part).is_some_and(|info| info.disk == disk);
        self.queues.keys().any(is_on) || self.dirty_on(disk).next().is_some()
    }

    /// What could only be read of a disk can't be any more.
    pub(super) fn forget_suspects_on(&mut self, disk: DiskId) -> Vec<PartId> {
        let suspects = self.suspects.iter();
        let gone = suspects.filter(|(_, info)| info.disk == disk);
        let gone: Vec<PartId> = gone.map(|(&part, _)| part).collect();
        self.suspects.retain(|_, info| info.disk != disk);
        gone
    }

    /// Takes in what was lost with a failed disk and had just been copied: nothing of it
    /// is lost, but its old copy may come back.
    pub(super) fn adopt(&mut self, disk: DiskId, stored: StoredPart) {
        self.lost.remove(&stored.part);
        self.suspects.remove(&stored.part);
        assert!(
            self.add(disk, stored),
            "its queue kept others from making it"
        );
        self.seal(stored.part);
    }

    /// Has nobody write a part at its present epoch any more.
    pub(super) fn seal(&mut self, part: PartId) {
        if let Some(info) = self.table.get_mut(&part) {
            info.sealed = Some(info.epoch);
        }
    }

    /// What the masters are told.
    pub(super) fn reports(&self) -> impl Iterator<Item = PartReport> {
        let made = self.table.iter().filter(|(_, info)| info.made);
        made.map(|(&part, info)| self.report_of(part, info))
            .chain(self.suspects.keys().filter_map(|part| self.suspect(*part)))
    }

    /// What the masters are told of a part that can only be read.
    pub(super) fn suspect(&self, part: PartId) -> Option<PartReport> {
        let info = self.suspects.get(&part)?;
        Some(PartReport {
            suspect: true,
            ..self.report_of(part, info)
        })
    }

    pub(super) fn report(&self, part: PartId) -> Option<PartReport> {
        self.made(part).map(|info| self.report_of(part, info))
    }

    fn report_of(&self, part: PartId, info: &PartInfo) -> PartReport {
        PartReport {
            part,
            version: info.version,
            epoch: info.epoch,
            disk: info.disk,
            bad: info.bad || self.condemned.contains(&part),
            suspect: false,
        }
    }

    /// A part is about to be deleted, or was, or is not any more.
    pub(super) fn condemn(&mut self, part: PartId, condemned: bool) {
        match condemned {
            true => self.condemned.insert(part),
            false => self.condemned.remove(&part),
        };
    }

    /// What was made since the masters were last told.
    pub(super) fn take_fresh(&mut self) -> Vec<PartReport> {
        let fresh = std::mem::take(&mut self.fresh);
        fresh
            .into_iter()
            .filter_map(|part| self.report(part))
            .collect()
    }

    /// Notes that a writer of that epoch was seen.
    pub(super) fn see_epoch(&mut self, part: PartId, epoch: Epoch) {
        if let Some(info) = self.table.get_mut(&part) {
            info.epoch = info.epoch.max(epoch);
        }
    }

    /// Refuses who is older from now on, be the part there or not.
    pub(super) fn fence(&mut self, part: PartId, epoch: Epoch) {
        self.see_epoch(part, epoch);
        if !self.table.contains_key(&part) {
            if self.fenced.len() >= FENCED_MAX {
                // The oldest chunk's writers are the longest gone.
                self.fenced.pop_first();
            }
            let known = self.fenced.entry(part).or_default();
            *known = epoch.max(*known);
        }
    }

    /// Whether a part that is not there was fenced at a newer epoch.
    fn is_fenced(&self, part: PartId, epoch: Epoch) -> bool {
        self.fenced.get(&part).is_some_and(|fenced| epoch < *fenced)
    }

    /// Notes a bad unit; true if it is the part's first.
    pub(super) fn note_bad(&mut self, part: PartId) -> bool {
        let info = self.table.get_mut(&part);
        info.is_some_and(|info| !std::mem::replace(&mut info.bad, true))
    }

    /// The parts of which a unit was found bad.
    pub(super) fn bad(&self) -> impl Iterator<Item = PartId> + '_ {
        let bad = self.table.iter().filter(|(_, info)| info.bad);
        bad.map(|(part, _)| *part)
    }

    /// Notes that all of a part could be read after all; true if it counted as bad.
    pub(super) fn note_readable(&mut self, part: PartId) -> bool {
        let info = self.table.get_mut(&part);
        info.is_some_and(|info| std::mem::replace(&mut info.bad, false))
    }

    fn note_written(&mut self, part: PartId, now: Instant, bytes: u64) {
        if let Some(info) = self.table.get_mut(&part) {
            info.written = Some(now);
            info.unsynced += bytes;
            if info.due.is_none() {
                self.set_due(part, Some(now + COMMIT_INTERVAL));
            }
        }
    }

    /// Sets when to look whether the part must be committed.
    fn set_due(&mut self, part: PartId, due: Option<Instant>) {
        let Some(info) = self.table.get_mut(&part) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut info.due, due) {
            self.dirty.remove(&(before, part));
        }
        if let Some(due) = due {
            self.dirty.insert((due, part));
        }
    }

    fn remove(&mut self, part: PartId) -> Option<PartInfo> {
        self.set_due(part, None);
        self.table.remove(&part)
    }

    /// Parts that were not written for a while; the others are looked at again later.
    fn take_idle(&mut self, now: Instant) -> Vec<PartId> {
        let mut idle = Vec::new();
        while let Some(&(_, part)) = self.dirty.first().filter(|(at, _)| *at <= now) {
            self.set_due(part, None);
            let written = self.table.get(&part).and_then(|info| info.written);
            let due = written.expect("what is due was written") + COMMIT_INTERVAL;
            match due <= now {
                true => idle.push(part),
                false => self.set_due(part, Some(due)),
            }
        }
        idle
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest
            .word(self.table.len() as u64)
            .word(self.waiting as u64);
        for (part, info) in &self.table {
            digest
                .word(part.chunk.0)
                .word(info.version.0)
                .word(info.epoch.0);
        }
    }

    pub(super) fn check_invariants(&self, disks: &Disks, whole: bool) {
        let waiting: usize = self.queues.values().map(|queue| queue.waiting.len()).sum();
        assert_eq!(waiting, self.waiting, "what waits is counted");
        if !whole {
            return;
        }
        let mut copies: BTreeMap<DiskId, u64> = BTreeMap::new();
        for (part, info) in &self.table {
            *copies.entry(info.disk).or_default() += u64::from(info.made);
            let queued = self.queues.contains_key(part);
            assert!(info.made || queued, "{part} is there or about to be");
        }
        disks.check_copies(&copies);
    }
}

impl ChunkServer {
    /// Queues a change; its end comes to `then`.
    pub(super) fn change(&mut self, part: PartId, op: PartOp, then: Then) {
        self.parts
            .queues
            .entry(part)
            .or_default()
            .waiting
            .push_back((op, then));
        self.parts.waiting += 1;
        self.pump_part(part);
    }

    /// Queues a change before all others that wait for the part.
    pub(super) fn change_next(&mut self, part: PartId, op: PartOp, then: Then) {
        self.parts
            .queues
            .entry(part)
            .or_default()
            .waiting
            .push_front((op, then));
        self.parts.waiting += 1;
        self.pump_part(part);
    }

    /// Starts changes of a part until one is under way.
    fn pump_part(&mut self, part: PartId) {
        while let Some(queue) = self.parts.queues.get_mut(&part) {
            if queue.running {
                return;
            }
            let Some((op, then)) = queue.waiting.pop_front() else {
                self.parts.queues.remove(&part);
                return self.drop_if_unmade(part);
            };
            self.parts.waiting -= 1;
            queue.running = true;
            if let Some(result) = self.begin(part, op, then) {
                let queue = self.parts.queues.get_mut(&part).expect("it was just there");
                queue.running = false;
                self.tell(part, then, result);
            }
        }
    }

    /// A part whose first write failed is not there; what it was fenced at stays.
    fn drop_if_unmade(&mut self, part: PartId) {
        if let Some(info) = self.parts.at(part).copied().filter(|info| !info.made) {
            self.parts.table.remove(&part);
            self.parts.fence(part, info.epoch);
        }
    }

    /// Begins a change; returns its result if it is over already.
    fn begin(&mut self, part: PartId, op: PartOp, then: Then) -> Option<PartResult> {
        if !matches!(op, PartOp::Keep | PartOp::Pass | PartOp::Switch { .. }) {
            self.spoil_move(part);
        }
        match op {
            PartOp::Write(write) => self.begin_write(part, write, then).err().map(Err),
            PartOp::Keep => match self.parts.made(part).copied() {
                Some(info) => self.commit(info.disk, part, CommitAction::Keep, then, info.unsynced),
                None => Some(Ok(None)),
            },
            PartOp::Commit {
                version,
                epoch,
                create,
                guarded,
            } => self.begin_commit(part, version, epoch, create, guarded, then),
            PartOp::Receive {
                disk,
                version,
                epoch,
                bytes,
            } => self.begin_receive(part, (disk, bytes), version, epoch, then),
            PartOp::Switch {
                from,
                to,
                version,
                epoch,
                bytes,
            } => {
                let is_same = |info: &PartInfo| {
                    (info.disk, info.version, info.epoch) == (from, version, epoch)
                };
                let known = self.parts.at(part).filter(|info| is_same(info));
                let is_same = known.is_some() && self.parts.is_as_committed(part);
                if !is_same || self.disks.is_closing(to) {
                    return Some(Err(PartError::Version));
                }
                let action = CommitAction::Receive { version, epoch };
                self.commit(to, part, action, then, bytes)
            }
            PartOp::Pass => Some(Ok(None)),
            PartOp::Delete { .. } if self.is_receiving(part) => Some(Ok(None)),
            PartOp::Delete { most } => match self.parts.made(part) {
                Some(info) if info.version <= most => {
                    let disk = info.disk;
                    self.commit(disk, part, CommitAction::Delete, then, 0)
                }
                Some(_) => Some(Ok(None)),
                None => {
                    self.parts.forget_suspect(part, most);
                    Some(Ok(None))
                }
            },
        }
    }

    fn begin_write(&mut self, part: PartId, write: PartWrite, then: Then) -> Result<(), PartError> {
        let PartWrite {
            version,
            epoch,
            change,
        } = write;
        let disk = self.place_for_writer(part, version, epoch)?;
        let known = self.parts.at(part).map(|info| info.version);
        // What was synced under the lease is not unsynced by what comes after.
        let known = known.filter(|known| known.is_synced_under(version));
        let version = known.unwrap_or(version);
        let mut bytes = 0;
        let request = match change {
            Change::Data {
                drop_from,
                offset,
                data,
                checksums,
            } => {
                bytes = data.len() as u64;
                DiskRequest::Write {
                    part,
                    version,
                    epoch,
                    drop_from,
                    offset,
                    data,
                    checksums,
                }
            }
            Change::Zero { offset, length } => DiskRequest::Zero {
                part,
                version,
                epoch,
                offset,
                length,
            },
        };
        let stored = StoredPart {
            part,
            version,
            epoch,
        };
        let issued = Issued::Change {
            stored,
            bytes,
            then,
        };
        self.operate(disk, request, issued);
        Ok(())
    }

    /// Where a writer's part is, or may be made.
    fn place_for_writer(
        &mut self,
        part: PartId,
        version: ChunkVersion,
        epoch: Epoch,
    ) -> Result<DiskId, PartError> {
        match self.parts.at(part) {
            Some(info) if info.fences(epoch) => Err(PartError::Fenced),
            // With an older epoch nobody gets here but by the planted bug.
            Some(info) if epoch >= info.epoch && info.is_beyond(version) => Err(PartError::Version),
            Some(info) if info.sealed == Some(epoch) => Err(PartError::Lost),
            Some(info) if self.disks.is_closing(info.disk) => Err(PartError::Lost),
            Some(info) => Ok(info.disk),
            None if self.parts.was_lost(part) => Err(PartError::Lost),
            None if self.parts.is_fenced(part, epoch) => Err(PartError::Fenced),
            None => self.place(part, epoch),
        }
    }

    /// Chooses a disk for a part that is not there.
    fn place(&mut self, part: PartId, epoch: Epoch) -> Result<DiskId, PartError> {
        let disk = self.disk_for(part);
        let disk = disk.ok_or(PartError::Disk(DiskError::Full))?;
        self.place_on(part, disk, epoch);
        Ok(disk)
    }

    /// The same for one that is made empty, as the outcome of a lease under which nobody wrote
    /// a thing: the leader can have it elsewhere only when it is somewhere, so it may be where
    /// nothing else is placed.
    fn place_empty(&mut self, part: PartId, epoch: Epoch) -> Result<DiskId, PartError> {
        let mut working = self.disks.working().into_iter();
        let spare = working.find(|disk| self.may_have(*disk, part));
        let disk = self.disk_for(part).or(spare);
        let disk = disk.ok_or(PartError::Disk(DiskError::Full))?;
        self.place_on(part, disk, epoch);
        Ok(disk)
    }

    fn place_on(&mut self, part: PartId, disk: DiskId, epoch: Epoch) {
        let info = PartInfo {
            disk,
            version: ChunkVersion(0),
            epoch,
            made: false,
            bad: false,
            sealed: None,
            written: None,
            due: None,
            unsynced: 0,
        };
        let before = self.parts.table.insert(part, info);
        assert!(before.is_none(), "{part} is made once");
        self.parts.fenced.remove(&part);
    }

    fn begin_receive(
        &mut self,
        part: PartId,
        (disk, bytes): (DiskId, u64),
        version: ChunkVersion,
        epoch: Epoch,
        then: Then,
    ) -> Option<PartResult> {
        match self.parts.at(part) {
            None if self.parts.is_fenced(part, epoch) => return Some(Err(PartError::Fenced)),
            None => self.place_on(part, disk, epoch),
            Some(info) if info.version > version || info.epoch > epoch => {
                return Some(Err(PartError::Fenced));
            }
            // A writer made the part elsewhere meanwhile.
            Some(info) if info.disk != disk => return Some(Err(PartError::Version)),
            Some(_) => {}
        }
        self.commit(
            disk,
            part,
            CommitAction::Receive { version, epoch },
            then,
            bytes,
        )
    }

    fn begin_commit(
        &mut self,
        part: PartId,
        version: ChunkVersion,
        epoch: Epoch,
        create: bool,
        guarded: bool,
        then: Then,
    ) -> Option<PartResult> {
        let known = self.parts.at(part).copied();
        let fenced = known.is_some_and(|info| info.fences(epoch));
        if guarded && (fenced || self.parts.is_fenced(part, epoch)) {
            return Some(Err(PartError::Fenced));
        }
        let disk = match known {
            Some(info) if info.made || create => info.disk,
            None if create && self.parts.was_lost(part) => return Some(Err(PartError::Lost)),
            None if create => match self.place_empty(part, epoch) {
                Ok(disk) => disk,
                Err(error) => return Some(Err(error)),
            },
            _ => return Some(Ok(None)),
        };
        self.parts.see_epoch(part, epoch);
        let info = self.parts.at(part).expect("it is placed");
        let action = CommitAction::Raise {
            version: version.max(info.version),
            epoch: info.epoch,
            create,
        };
        let unsynced = info.unsynced;
        self.commit(disk, part, action, then, unsynced)
    }

    /// A write of a part ended at its disk.
    pub(super) fn on_changed(
        &mut self,
        disk: DiskId,
        (stored, bytes): (StoredPart, u64),
        then: Then,
        result: Result<(), DiskError>,
    ) {
        let part = stored.part;
        let outcome = match result {
            Ok(()) => {
                self.note_stored(stored);
                self.parts.note_written(part, self.now, bytes);
                Ok(Some(stored))
            }
            Err(error) => {
                self.on_disk_error(disk, part, &error);
                Err(PartError::Disk(error))
            }
        };
        self.finish_change(part, then, outcome);
    }

    /// A commit that a part was in ended.
    pub(super) fn on_committed(
        &mut self,
        disk: DiskId,
        part: PartId,
        action: CommitAction,
        then: Then,
        result: Result<Option<StoredPart>, DiskError>,
    ) {
        match then {
            Then::Emptied(key) => return self.on_emptied(disk, part, key, result),
            Then::Replication(key) => {
                if let Some(from) = self.moves_from(key) {
                    return self.on_switched((from, disk), result, part, key);
                }
            }
            _ => {}
        }
        match &result {
            Ok(Some(stored)) => {
                self.note_stored(*stored);
                self.note_durable(part, matches!(action, CommitAction::Receive { .. }));
            }
            Ok(None) => self.note_gone(part),
            Err(error) => {
                let error = error.clone();
                self.on_disk_error(disk, part, &error);
                // What was written is still to be made durable.
                if self
                    .parts
                    .at(part)
                    .is_some_and(|info| info.written.is_some())
                {
                    let due = self.now + COMMIT_INTERVAL;
                    self.parts.set_due(part, Some(due));
                }
            }
        }
        self.finish_change(part, then, result.map_err(PartError::Disk));
    }

    fn note_stored(&mut self, stored: StoredPart) {
        let Some(info) = self.parts.table.get_mut(&stored.part) else {
            return;
        };
        info.version = stored.version;
        info.epoch = info.epoch.max(stored.epoch);
        if !std::mem::replace(&mut info.made, true) {
            let disk = info.disk;
            self.disks.count_copy(disk, 1);
            self.parts.fresh.insert(stored.part);
        }
    }

    fn note_durable(&mut self, part: PartId, received: bool) {
        self.parts.set_due(part, None);
        if let Some(info) = self.parts.table.get_mut(&part) {
            info.written = None;
            info.unsynced = 0;
            info.bad &= !received;
        }
        if received {
            self.rechecks.forget(part);
            self.parts.lost.remove(&part);
            self.parts.drop_suspect(part);
        }
    }

    /// A part was deleted; what it was fenced at stays, as a writer may still come who
    /// was away when its lease ended.
    fn note_gone(&mut self, part: PartId) {
        self.rechecks.forget(part);
        if let Some(info) = self.parts.remove(part) {
            self.parts.fence(part, info.epoch);
            if info.made {
                self.disks.count_copy(info.disk, -1);
            }
        }
    }

    /// A change is over: its asker learns, and the next one begins.
    pub(super) fn finish_change(&mut self, part: PartId, then: Then, result: PartResult) {
        if let Some(queue) = self.parts.queues.get_mut(&part) {
            queue.running = false;
        }
        self.tell(part, then, result);
        self.pump_part(part);
    }

    fn tell(&mut self, part: PartId, then: Then, result: PartResult) {
        match then {
            Then::Job(job) => self.on_local(job, result),
            Then::Command(command, at) => self.on_command_part(command, at, part, result),
            Then::Replication(key) => self.on_received(key, result),
            Then::Turn(key) => self.on_turn(key),
            Then::Nobody | Then::Duplicate | Then::Emptied(_) => {}
        }
    }

    /// Commits parts that were not written for a while.
    pub(super) fn commit_idle(&mut self) {
        let idle = self.parts.take_idle(self.now);
        self.keep(idle);
    }

    /// Commits everything that no commit covers.
    pub(super) fn commit_all(&mut self) {
        let dirty: Vec<PartId> = self.parts.dirty.iter().map(|(_, part)| *part).collect();
        for part in &dirty {
            self.parts.set_due(*part, None);
        }
        self.keep(dirty);
    }

    /// Makes parts durable, with as few commits as they allow.
    pub(super) fn keep(&mut self, parts: Vec<PartId>) {
        self.hold_commits();
        for part in parts {
            self.change(part, PartOp::Keep, Then::Nobody);
        }
        self.release_commits();
    }

    /// Whether all that was acknowledged of a part is durable, and nothing is under way.
    fn is_clean(&self, part: PartId, info: &PartInfo) -> bool {
        let idle = !self.parts.queues.contains_key(&part) && info.written.is_none();
        info.made && !info.bad && idle && !self.parts.condemned.contains(&part)
    }

    /// All parts of a failed disk are lost; those that it holds whole can still be read.
    pub(super) fn lose_parts(&mut self, disk: DiskId) -> Vec<PartId> {
        let on_disk = self
            .parts
            .table
            .iter()
            .filter(|(_, info)| info.disk == disk);
        let parts: Vec<PartId> = on_disk.map(|(&part, _)| part).collect();
        for part in &parts {
            let info = self.parts.remove(*part).expect("it was just there");
            self.rechecks.forget(*part);
            self.parts.lost.insert(*part);
            if self.is_clean(*part, &info) {
                self.parts.suspects.insert(*part, info);
            }
        }
        parts
    }
}
