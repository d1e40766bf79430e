//! A commit: many parts made durable with one frame of the journal (or a few).
//!
//! In order: units that may go straight are flushed if there are too many to
//! embed; the slot files that were written straight are synced; the frame is
//! written and synced; then each part takes over its new blocks, its embedded
//! units are written in place, and the slots that it gave up are freed.
//! Invariant: nothing committed is overwritten, and no slot freed, before the
//! frame that says so is durable.

use super::disk::Disk;
use super::format::{ENTRY_SIZE, PartHeader, RecordKind, encode_block};
use super::operation::{CommitAction, DiskError, DiskReply, PartCommit, StoredPart};
use super::part::{Block, Dirty, Part};
use super::store::{ChunkStore, Progress, State, StoreMark, Work, new_part, stored};
use crate::ids::PartId;
use crate::vfs::{FileId, Vfs, VfsError};
use std::collections::BTreeSet;

/// Parts handled in one step.
const STEP: usize = 128;

#[derive(Debug)]
pub(super) struct CommitWork {
    changes: Vec<PartCommit>,
    replies: Vec<Option<StoredPart>>,
    /// Write what may go straight before the frame, instead of embedding it.
    flush: bool,
    /// Slot files to sync before the frame.
    syncs: SlotSyncs,
    stage: Stage,
}

/// Slot files that are synced one after another.
#[derive(Debug, Default)]
struct SlotSyncs {
    left: BTreeSet<FileId>,
    /// The file whose sync was asked for, and the disk's count then.
    begun: Option<(FileId, u64)>,
}

impl SlotSyncs {
    /// Notes the sync that ended, and begins the next one.
    fn next<V: Vfs>(&mut self, disk: &mut Disk<V>) -> Option<FileId> {
        if let Some((file, stamp)) = self.begun.take() {
            disk.note_synced(file, stamp);
        }
        let file = self.left.pop_first()?;
        self.begun = Some((file, disk.stamp()));
        Some(file)
    }
}

/// Bulk content on its way to the medium, ahead of the commit that needs it there.
#[derive(Debug)]
pub(super) struct FlushWork(SlotSyncs);

/// What comes next; numbers count changes.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Prepare { at: usize },
    SyncSlots,
    Frame { from: usize },
    Settle { at: usize, end: usize },
}

impl<V: Vfs> ChunkStore<V> {
    pub(super) fn start_commit(&mut self, changes: Vec<PartCommit>) -> Work {
        assert!(!self.committing, "one commit at a time");
        if let Err(error) = self.disk.check_alive() {
            return Work(State::Done(Err(error)));
        }
        self.committing = true;
        let memory: usize = changes.iter().map(|change| self.memory_of(change)).sum();
        self.set_committing(&changes);
        if changes.len() > 1 {
            self.mark(StoreMark::CommitShared);
        }
        Work(State::Commit(Box::new(CommitWork {
            replies: Vec::with_capacity(changes.len()),
            changes,
            flush: memory > self.disk.tuning.embed_max,
            syncs: SlotSyncs::default(),
            stage: Stage::Prepare { at: 0 },
        })))
    }

    pub(super) fn start_flush(&mut self, parts: &[PartId]) -> Work {
        if let Err(error) = self.disk.check_alive() {
            return Work(State::Done(Err(error)));
        }
        let mut syncs = SlotSyncs::default();
        for id in parts {
            for parts in [&self.parts, &self.receiving] {
                if let Some(dirty) = parts.get(id).and_then(|part| part.dirty.as_ref()) {
                    syncs.left.append(&mut self.disk.unsynced_files(dirty));
                }
            }
        }
        Work(State::Flush(Box::new(FlushWork(syncs))))
    }

    pub(super) fn advance_flush(&mut self, work: &mut FlushWork) -> Progress {
        if let Err(error) = self.disk.check_alive() {
            return Progress::Done(Err(error));
        }
        match work.0.next(&mut self.disk) {
            Some(file) => Progress::Sync(file),
            None => Progress::Done(Ok(DiskReply::Done)),
        }
    }

    fn memory_of(&self, change: &PartCommit) -> usize {
        let part = match change.action {
            CommitAction::Delete => None,
            CommitAction::Receive { .. } => self.receiving.get(&change.part),
            CommitAction::Keep | CommitAction::Raise { .. } => self.parts.get(&change.part),
        };
        part.map_or(0, Part::memory_bytes)
    }

    fn set_committing(&mut self, changes: &[PartCommit]) {
        for change in changes {
            for part in self.concerned(change) {
                assert!(!part.committing, "a part is in a commit once");
                part.committing = true;
            }
        }
    }

    /// The part that is to change and, unless the commit leaves it alone, what is being
    /// received for it: that grows on while a writer's part is committed.
    fn concerned(&mut self, change: &PartCommit) -> impl Iterator<Item = &mut Part> {
        let is_received = match change.action {
            CommitAction::Keep | CommitAction::Raise { .. } => false,
            CommitAction::Receive { .. } | CommitAction::Delete => true,
        };
        let received = self.receiving.get_mut(&change.part);
        let received = received.filter(|_| is_received);
        self.parts.get_mut(&change.part).into_iter().chain(received)
    }

    pub(super) fn advance_commit(&mut self, work: &mut CommitWork) -> Progress {
        let step = self
            .disk
            .check_alive()
            .and_then(|()| self.step_commit(work));
        match step {
            Ok(Progress::Done(result)) => {
                self.committing = false;
                Progress::Done(result)
            }
            Ok(progress) => progress,
            Err(error) => {
                self.committing = false;
                let left = &work.changes[work.replies.len()..];
                self.set_committing_off(left);
                Progress::Done(Err(error))
            }
        }
    }

    fn set_committing_off(&mut self, changes: &[PartCommit]) {
        for change in changes {
            for part in self.concerned(change) {
                part.committing = false;
            }
        }
    }

    fn step_commit(&mut self, work: &mut CommitWork) -> Result<Progress, DiskError> {
        match work.stage {
            Stage::Prepare { at } => {
                let end = (at + STEP).min(work.changes.len());
                for at in at..end {
                    let change = work.changes[at];
                    self.prepare(&change, work)?;
                }
                work.stage = match end == work.changes.len() {
                    true => Stage::SyncSlots,
                    false => Stage::Prepare { at: end },
                };
                Ok(Progress::More)
            }
            Stage::SyncSlots => match work.syncs.next(&mut self.disk) {
                Some(file) => Ok(Progress::Sync(file)),
                None => {
                    work.stage = Stage::Frame { from: 0 };
                    Ok(Progress::More)
                }
            },
            Stage::Frame { from } => self.write_frame(work, from),
            Stage::Settle { at, end } => Ok(self.settle_step(work, at, end)?),
        }
    }

    /// Flushes a part if that is due, and notes which slot files it needs synced.
    fn prepare(&mut self, change: &PartCommit, work: &mut CommitWork) -> Result<(), DiskError> {
        let part = match change.action {
            CommitAction::Delete => None,
            CommitAction::Receive { .. } => self.receiving.get_mut(&change.part),
            CommitAction::Keep | CommitAction::Raise { .. } => self.parts.get_mut(&change.part),
        };
        let Some(dirty) = part.and_then(|part| part.dirty.as_mut()) else {
            return Ok(());
        };
        if work.flush {
            for state in dirty.blocks.values_mut() {
                let before = state.memory_bytes();
                let flushed = self.disk.flush_block(state);
                let gone = before - state.memory_bytes();
                dirty.memory -= gone;
                self.disk.memory -= gone;
                if gone > 0 {
                    dirty.stamp = self.disk.next_stamp();
                }
                flushed?;
            }
        }
        work.syncs.left.append(&mut self.disk.unsynced_files(dirty));
        Ok(())
    }

    /// Writes as many changes from `from` on as a frame takes.
    fn write_frame(&mut self, work: &mut CommitWork, from: usize) -> Result<Progress, DiskError> {
        let mut records = Vec::new();
        let mut end = from;
        // Every record is at most half a frame: `Tuning::fit`.
        let full = self.journal.frame_max() / 2;
        while end < work.changes.len() && records.len() < full {
            let change = work.changes[end];
            self.encode(&change, &mut records);
            end += 1;
        }
        work.stage = Stage::Settle { at: from, end };
        if records.is_empty() {
            return Ok(Progress::More);
        }
        let file = self.journal.append(&mut self.disk.vfs, &records);
        if file == Err(VfsError::Full) {
            self.mark(StoreMark::JournalFull);
        }
        file.map(Progress::Sync)
            .map_err(|error| self.disk.fault(error))
    }

    /// Encodes what a change makes durable; nothing if nothing changes.
    fn encode(&mut self, change: &PartCommit, records: &mut Vec<u8>) {
        let id = change.part;
        match change.action {
            CommitAction::Keep => {}
            CommitAction::Raise {
                version,
                epoch,
                create,
            } => {
                if create {
                    self.parts.entry(id).or_insert_with(|| Part {
                        committing: true,
                        ..new_part(version, epoch)
                    });
                }
                if let Some(part) = self.parts.get_mut(&id) {
                    part.raise(version, epoch);
                }
            }
            CommitAction::Receive { version, epoch } => {
                let part = self.receiving.entry(id).or_insert_with(|| Part {
                    committing: true,
                    ..new_part(version, epoch)
                });
                (part.version, part.epoch) = (version, epoch);
                encode_part(id, part, RecordKind::Replace, records);
                return;
            }
            CommitAction::Delete => {
                let part = self.parts.get(&id).filter(|part| part.durable().is_some());
                if let Some(part) = part {
                    header(id, part, 0, RecordKind::Gone).encode(records);
                }
                return;
            }
        }
        if let Some(part) = self.parts.get(&id) {
            encode_part(id, part, RecordKind::Change, records);
        }
    }

    /// Takes over the next few changes of a frame that is durable.
    fn settle_step(
        &mut self,
        work: &mut CommitWork,
        at: usize,
        end: usize,
    ) -> Result<Progress, DiskError> {
        let stop = (at + STEP).min(end);
        let mut settled = Vec::new();
        for change in &work.changes[at..stop] {
            let reply = self.switch(change, &mut settled);
            work.replies.push(reply);
        }
        self.settle(settled)?;
        if stop < end {
            work.stage = Stage::Settle { at: stop, end };
            return Ok(Progress::More);
        }
        self.applied = self.journal.mark();
        if end < work.changes.len() {
            work.stage = Stage::Frame { from: end };
            return Ok(Progress::More);
        }
        let replies = std::mem::take(&mut work.replies);
        Ok(Progress::Done(Ok(DiskReply::Committed(replies))))
    }

    /// Makes the committed state the part's; its changed blocks go to `settled`.
    fn switch(
        &mut self,
        change: &PartCommit,
        settled: &mut Vec<(PartId, Box<Dirty>)>,
    ) -> Option<StoredPart> {
        let id = change.part;
        match change.action {
            CommitAction::Keep | CommitAction::Raise { .. } => {}
            CommitAction::Receive { .. } => {
                let received = self.receiving.remove(&id).expect("it was encoded");
                self.mark(StoreMark::PartReceived);
                self.remove(id);
                self.parts.insert(id, received);
            }
            CommitAction::Delete => {
                self.remove(id);
                if let Some(part) = self.receiving.get_mut(&id) {
                    part.committing = false;
                }
                self.abandon(id);
                return None;
            }
        }
        let part = self.parts.get_mut(&id)?;
        part.committing = false;
        if let Some(mut dirty) = part.dirty.take() {
            let freed = take_blocks(part, &mut dirty);
            freed
                .into_iter()
                .for_each(|slot| self.disk.slots.free(slot));
            self.homeless.remove(&id);
            settled.push((id, dirty));
        }
        Some(stored(id, part))
    }

    fn remove(&mut self, id: PartId) {
        self.homeless.remove(&id);
        if let Some(mut part) = self.parts.remove(&id) {
            part.committing = false;
            self.forget(&part);
        }
    }

    /// Writes committed units and their lines of the slot table in place. What the
    /// disk has no space for stays in memory.
    pub(super) fn settle(&mut self, settled: Vec<(PartId, Box<Dirty>)>) -> Result<(), DiskError> {
        let mut entries = Vec::new();
        let mut full = Vec::new();
        for (at, (id, dirty)) in settled.iter().enumerate() {
            match self.write_dirty(*id, dirty, &mut entries) {
                Err(VfsError::Full) => full.push(at),
                other => other.map_err(|error| self.disk.fault(error))?,
            }
        }
        let all_full = match self.write_entries(entries) {
            Err(VfsError::Full) => true,
            other => {
                other.map_err(|error| self.disk.fault(error))?;
                false
            }
        };
        for (at, (id, dirty)) in settled.into_iter().enumerate() {
            match all_full || full.contains(&at) {
                true => self.keep_homeless(id, dirty),
                false => self.disk.memory -= dirty.memory,
            }
        }
        Ok(())
    }

    fn write_dirty(
        &mut self,
        id: PartId,
        dirty: &Dirty,
        entries: &mut Vec<(u32, [u8; ENTRY_SIZE])>,
    ) -> Result<(), VfsError> {
        for (&block, state) in dirty.blocks.iter().filter(|(_, state)| state.present != 0) {
            let mut bytes = [0; ENTRY_SIZE];
            state.entry(id, block).encode(state.slot, &mut bytes);
            entries.push((state.slot, bytes));
            self.touched
                .insert(self.disk.slots.content_file(state.slot));
            self.disk.write_in_place(state)?;
        }
        Ok(())
    }

    /// Writes lines of the slot table, neighbours together.
    fn write_entries(&mut self, mut entries: Vec<(u32, [u8; ENTRY_SIZE])>) -> Result<(), VfsError> {
        entries.sort_unstable_by_key(|(slot, _)| *slot);
        let slots = &self.disk.slots;
        let mut bytes = Vec::new();
        for run in entries.chunk_by(|left, right| slots.adjoins(left.0, right.0)) {
            bytes.clear();
            run.iter()
                .for_each(|(_, entry)| bytes.extend_from_slice(entry));
            self.touched.insert(slots.table_file(run[0].0));
            slots.write_entries(&mut self.disk.vfs, run[0].0, &bytes)?;
        }
        Ok(())
    }

    /// Keeps what recovery found no space for in memory: it is in the journal only.
    pub(super) fn shelter(&mut self, id: PartId, block: u16, state: Block) {
        let part = self
            .parts
            .get_mut(&id)
            .expect("a current record has its part");
        let durable = (part.version, part.epoch);
        let dirty = part.dirty.get_or_insert_with(Box::default);
        let bytes = state.memory_bytes();
        dirty.memory += bytes;
        dirty.blocks.insert(block, state);
        (dirty.durable, dirty.homeless) = (Some(durable), true);
        self.disk.memory += bytes;
        self.homeless.insert(id);
        self.mark(StoreMark::DiskFull);
    }

    /// Keeps committed units in memory: they are in the journal only.
    fn keep_homeless(&mut self, id: PartId, mut dirty: Box<Dirty>) {
        let part = self.parts.get_mut(&id).expect("it was just committed");
        for state in dirty.blocks.values_mut() {
            (state.locked, state.straight) = (state.present, 0);
        }
        dirty.durable = Some((part.version, part.epoch));
        dirty.homeless = true;
        part.dirty = Some(dirty);
        self.homeless.insert(id);
        self.mark(StoreMark::DiskFull);
    }
}

fn header(id: PartId, part: &Part, blocks: usize, kind: RecordKind) -> PartHeader {
    PartHeader {
        part: id,
        version: part.version,
        epoch: part.epoch,
        count: u32::try_from(blocks).expect("a chunk has 1024 blocks"),
        kind,
        stripe: part.stripe,
    }
}

fn encode_part(id: PartId, part: &Part, kind: RecordKind, records: &mut Vec<u8>) {
    let Some(dirty) = part.dirty.as_ref().filter(|dirty| !dirty.homeless) else {
        return;
    };
    records.reserve(embedded_bytes(dirty));
    header(id, part, dirty.blocks.len(), kind).encode(records);
    for (&block, state) in &dirty.blocks {
        let memory = state.memory.iter();
        let memory = memory.map(|(unit, content)| (usize::from(*unit), content.as_ref()));
        encode_block(
            records,
            block,
            state.slot,
            state.present,
            state.straight,
            &state.checksums,
            memory,
        );
    }
}

/// Bytes that the units of a change take in memory.
fn embedded_bytes(dirty: &Dirty) -> usize {
    let units = dirty.blocks.values().flat_map(|state| &state.memory);
    units.map(|(_, content)| content.len()).sum()
}

/// Points a part at its committed blocks; returns the slots that it gave up.
fn take_blocks(part: &mut Part, dirty: &mut Dirty) -> Vec<u32> {
    let mut freed = Vec::new();
    for (&block, state) in &dirty.blocks {
        let before = part.place(block, state.slot, state.present);
        freed.extend(before.filter(|&slot| slot != state.slot));
    }
    freed
}
