//! A checkpoint: what the journal holds goes to its places, so that the journal
//! can be shortened. In small steps; commits go on meanwhile.
//!
//! In order: the files written in place are synced, all parts are written into a
//! new table, the table is synced and renamed, the journal is trimmed, free slots
//! are given back. Invariant: a frame is forgotten only when everything that it
//! said is durable elsewhere.

use super::journal::Mark;
use super::operation::{DiskError, DiskReply};
use super::store::{ChunkStore, Progress, State, StoreMark, Work};
use super::table::{self, Piece};
use crate::ids::PartId;
use crate::vfs::{FileId, Vfs, VfsError, VfsResult};
use std::collections::BTreeSet;
use std::ops::Bound;

/// The table before it is durable.
pub(super) const UNFINISHED: &str = "unfinished-table";
/// Runs of slots given back in one step.
const GIVE_BACK_STEP: usize = 64;

#[derive(Debug)]
pub(super) struct CheckpointWork {
    /// What the table will cover.
    mark: Mark,
    /// Files that were written in place before `mark`.
    touched: BTreeSet<FileId>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    SyncPlaces { left: BTreeSet<FileId> },
    Write(Writing),
    SyncTable(Writing),
    GiveBack,
}

/// A table that is being written.
#[derive(Debug)]
struct Writing {
    file: FileId,
    offset: u64,
    index: u32,
    /// The last part that was written.
    after: Option<PartId>,
}

impl<V: Vfs> ChunkStore<V> {
    pub(super) fn start_checkpoint(&mut self) -> Work {
        assert!(!self.checkpointing, "one checkpoint at a time");
        if let Err(error) = self
            .disk
            .check_alive()
            .and_then(|()| self.settle_homeless())
        {
            return Work(State::Done(Err(error)));
        }
        self.checkpointing = true;
        let touched = std::mem::take(&mut self.touched);
        Work(State::Checkpoint(Box::new(CheckpointWork {
            mark: self.applied,
            stage: match self.applied == self.covered {
                true => Stage::GiveBack,
                false => Stage::SyncPlaces {
                    left: touched.clone(),
                },
            },
            touched,
        })))
    }

    /// Tries once more to write committed units in place that found no space.
    fn settle_homeless(&mut self) -> Result<(), DiskError> {
        for id in std::mem::take(&mut self.homeless) {
            let part = self.parts.get_mut(&id).expect("a homeless part is there");
            let settled = match part.dirty.take() {
                Some(dirty) if dirty.homeless && !part.committing => vec![(id, dirty)],
                other => {
                    part.dirty = other;
                    self.homeless.insert(id);
                    Vec::new()
                }
            };
            self.settle(settled)?;
        }
        match self.homeless.is_empty() {
            true => Ok(()),
            false => Err(DiskError::Full),
        }
    }

    pub(super) fn advance_checkpoint(&mut self, work: &mut CheckpointWork) -> Progress {
        let step = self
            .disk
            .check_alive()
            .and_then(|()| self.step_checkpoint(work));
        match step {
            Ok(Progress::Done(result)) => {
                self.checkpointing = false;
                Progress::Done(result)
            }
            Ok(progress) => progress,
            Err(error) => {
                self.checkpointing = false;
                self.touched.append(&mut work.touched);
                Progress::Done(Err(error))
            }
        }
    }

    fn step_checkpoint(&mut self, work: &mut CheckpointWork) -> Result<Progress, DiskError> {
        match &mut work.stage {
            Stage::SyncPlaces { left } => match left.pop_first() {
                Some(file) => Ok(Progress::Sync(file)),
                None => {
                    let begun = self.begin_table(work.mark);
                    work.stage = Stage::Write(begun.map_err(|error| self.disk.fault(error))?);
                    Ok(Progress::More)
                }
            },
            Stage::Write(writing) => match self.write_piece(work.mark, writing) {
                Ok(false) => Ok(Progress::More),
                Ok(true) => {
                    let file = writing.file;
                    let stage = std::mem::replace(&mut work.stage, Stage::GiveBack);
                    if let Stage::Write(writing) = stage {
                        work.stage = Stage::SyncTable(writing);
                    }
                    Ok(Progress::Sync(file))
                }
                Err(error) => {
                    let file = writing.file;
                    self.drop_table(file)
                        .map_err(|error| self.disk.fault(error))?;
                    Err(self.disk.fault(error))
                }
            },
            Stage::SyncTable(writing) => {
                let (file, bytes) = (writing.file, writing.offset);
                let switched = self.switch_table(work.mark, file);
                switched.map_err(|error| self.disk.fault(error))?;
                self.table_bytes = bytes;
                self.mark(StoreMark::Checkpointed);
                work.stage = Stage::GiveBack;
                Ok(Progress::More)
            }
            Stage::GiveBack => self.give_back(),
        }
    }

    fn begin_table(&mut self, mark: Mark) -> VfsResult<Writing> {
        let vfs = &mut self.disk.vfs;
        let file = vfs.create(UNFINISHED)?;
        let header = table::encode_header(mark);
        if let Err(error) = vfs.write_at(file, 0, &header) {
            self.drop_table(file)?;
            return Err(error);
        }
        Ok(Writing {
            file,
            offset: header.len() as u64,
            index: 0,
            after: None,
        })
    }

    fn drop_table(&mut self, file: FileId) -> VfsResult<()> {
        self.disk.vfs.close(file);
        self.disk.vfs.remove(UNFINISHED)
    }

    /// Writes the next piece; true after the last one.
    fn write_piece(&mut self, mark: Mark, writing: &mut Writing) -> Result<bool, VfsError> {
        let start = writing.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut piece = Piece::new();
        let mut parts = self.parts.range((start, Bound::Unbounded));
        let mut last = true;
        for (&id, part) in parts.by_ref() {
            piece.push(id, part);
            writing.after = Some(id);
            if piece.is_full() {
                last = false;
                break;
            }
        }
        let bytes = piece.finish(mark.sequence, writing.index, last);
        self.disk
            .vfs
            .write_at(writing.file, writing.offset, &bytes)?;
        writing.offset += bytes.len() as u64;
        writing.index += 1;
        Ok(last)
    }

    /// The table is durable: it replaces the one before, and the journal is trimmed.
    fn switch_table(&mut self, mark: Mark, file: FileId) -> VfsResult<()> {
        let vfs = &mut self.disk.vfs;
        vfs.close(file);
        vfs.rename(UNFINISHED, &table::name(mark.sequence))?;
        vfs.sync_dir("")?;
        vfs.remove(&table::name(self.covered.sequence))?;
        self.journal.trim(vfs, mark)?;
        self.covered = mark;
        Ok(())
    }

    fn give_back(&mut self) -> Result<Progress, DiskError> {
        for _ in 0..GIVE_BACK_STEP {
            let given = self.disk.slots.give_back_run(&mut self.disk.vfs);
            if !given.map_err(|error| self.disk.fault(error))? {
                return Ok(Progress::Done(Ok(DiskReply::Done)));
            }
        }
        Ok(Progress::More)
    }
}
