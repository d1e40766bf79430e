//! The log on disk: batches appended to segments that were zeroed before.
//!
//! Owns the segments of a folder: the one that is written, those before it that are
//! still needed, and those ahead that wait, zeroed and durable, so that a steady
//! append is one write and one sync. Leaves the bytes to `format`, the reading to
//! `recover`. Invariant: a batch is written only when the one before it is synced;
//! after any failed write or sync nothing more is accepted.

use super::format::{BLOCK, BatchBuilder, BatchId, SegmentHeader, segment_name};
use super::operation::{
    HardState, JournalCompletion, JournalError, JournalOperation, JournalReply, LogEntry,
};
use super::recover::{Scan, Segment, Tail};
use super::{Founding, OpenError};
use crate::ids::{LogPosition, Term};
use crate::marks::{Mark, Marks};
use crate::planted::{self, Planted};
use crate::vfs::{FileId, Vfs, VfsError, VfsResult};
use std::collections::VecDeque;

/// Segments that wait for use beyond the one that is due next.
const AHEAD_MAX: usize = 3;
/// Bytes zeroed at once.
const ZERO_STEP: u64 = 256 << 10;
/// Bytes zeroed in the next segment for each append, at least.
const ZERO_SHARE: u64 = 64 << 10;
/// Zeros are synced in steps of this, so that no single sync takes long.
const ZERO_SYNC: u64 = 1 << 20;

/// The log of one member.
#[derive(Debug)]
pub struct Log<V> {
    vfs: V,
    founding: Founding,
    builder: BatchBuilder,
    file: FileId,
    tail: Tail,
    hard: HardState,
    /// The group as it was founded, told in every segment.
    members: (Vec<u64>, Vec<u64>),
    /// The last position and its term.
    last: (LogPosition, Term),
    /// The highest position in the segment that is written.
    highest: LogPosition,
    /// Segments before it, oldest first, with the highest position in each.
    before: VecDeque<(u64, LogPosition)>,
    /// Segments that are ready for use, in order.
    ahead: VecDeque<(u64, FileId)>,
    zeroing: Option<Zeroing>,
    poisoned: Option<String>,
    marks: Marks,
}

#[derive(Debug)]
struct Zeroing {
    sequence: u64,
    file: FileId,
    upto: u64,
    synced: u64,
}

/// How recovery left the log.
pub(super) struct End {
    /// Its last position and that one's term.
    pub(super) last: (LogPosition, Term),
    /// It is emptied, and goes on behind this.
    pub(super) anew: Option<(LogPosition, Term)>,
    pub(super) hard: HardState,
}

/// What an append adds.
struct Addition<'a> {
    anew: Option<(LogPosition, Term)>,
    entries: &'a [LogEntry],
    hard: Option<HardState>,
}

impl<V: Vfs> Log<V> {
    /// A log in a folder without one.
    pub(super) fn create(mut vfs: V, founding: &Founding) -> Result<Self, OpenError> {
        let file = make_segment(&mut vfs, founding, 1)?;
        let mut log = Self::begin(vfs, founding, file, Tail::first());
        log.append(&Addition {
            anew: None,
            entries: &[],
            hard: None,
        })?;
        Ok(log)
    }

    /// A log that goes on behind what recovery read.
    pub(super) fn resume(
        vfs: V,
        founding: &Founding,
        scan: &Scan,
        segments: Vec<Segment>,
        end: &End,
    ) -> Result<Self, OpenError> {
        let tail_file = segments
            .iter()
            .find(|segment| segment.sequence == scan.tail.sequence);
        let tail_file = tail_file.expect("the tail was read there");
        let mut tail = scan.tail;
        tail.life += 1;
        let mut log = Self::begin(vfs, founding, tail_file.file, tail);
        log.renew(
            tail_file.bytes(scan.last_batch, tail.offset),
            scan.last_batch,
        )?;
        log.last = end.last;
        log.members = scan.members.clone();
        log.before = scan.used.iter().copied().collect();
        let (_, highest) = log.before.pop_back().expect("the tail's segment was used");
        log.highest = highest;
        if scan.is_torn {
            log.marks.reach(Mark::TornTail);
        }
        log.sort_out(segments)?;
        log.append(&Addition {
            anew: end.anew,
            entries: &[],
            hard: Some(end.hard),
        })?;
        Ok(log)
    }

    fn begin(vfs: V, founding: &Founding, file: FileId, tail: Tail) -> Self {
        Self {
            vfs,
            founding: founding.clone(),
            builder: BatchBuilder::default(),
            file,
            tail,
            hard: HardState::default(),
            members: (founding.voters.clone(), founding.learners.clone()),
            last: (LogPosition(0), Term(0)),
            highest: LogPosition(0),
            before: VecDeque::new(),
            ahead: VecDeque::new(),
            zeroing: None,
            poisoned: None,
            marks: Marks::default(),
        }
    }

    /// Writes the last batch again, and its segment's header. Its sync may have failed
    /// in the life before: then it can be read until the power fails, but no sync of
    /// anything behind it would bring it to the medium.
    fn renew(&mut self, last: &[u8], offset: u64) -> VfsResult<()> {
        self.vfs.write_at(self.file, offset, last)?;
        write_header(&mut self.vfs, &self.founding, self.tail.sequence, self.file)?;
        self.vfs.sync_dir("")
    }

    /// Executes `Append`, `Shorten` or `Restart`.
    ///
    /// # Panics
    /// On an operation on images.
    pub fn execute(&mut self, operation: JournalOperation) -> JournalCompletion {
        let token = operation.token();
        let result = match &self.poisoned {
            Some(reason) => Err(JournalError::Medium(reason.clone())),
            None => self.perform(operation),
        };
        JournalCompletion { token, result }
    }

    /// Does a bounded piece of work that would otherwise be paid by an append; call
    /// it while nothing else waits. Whether there is more to do.
    pub fn prepare(&mut self) -> bool {
        if self.poisoned.is_some() || !self.ahead.is_empty() {
            return false;
        }
        let done = self.zero(ZERO_STEP);
        self.note_zeroing(done) && self.ahead.is_empty()
    }

    /// The rare events met.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// The marks so far, for the member; counted anew from here.
    pub(super) fn take_marks(&mut self) -> Marks {
        std::mem::take(&mut self.marks)
    }

    fn perform(&mut self, operation: JournalOperation) -> Result<JournalReply, JournalError> {
        let done = match operation {
            JournalOperation::Append { entries, hard, .. } => self.append(&Addition {
                anew: None,
                entries: &entries,
                hard,
            }),
            JournalOperation::Restart {
                position,
                term,
                hard,
                ..
            } => self.append(&Addition {
                anew: Some((position, term)),
                entries: &[],
                hard: Some(hard),
            }),
            JournalOperation::Shorten { upto, .. } => self.shorten(upto),
            other => panic!("{other:?} is for the images"),
        };
        match done {
            Ok(()) => Ok(JournalReply::Done),
            Err(error) => {
                if error == VfsError::Full {
                    self.marks.reach(Mark::LogFull);
                }
                Err(self.poison(&error))
            }
        }
    }

    fn poison(&mut self, error: &VfsError) -> JournalError {
        let reason = format!("the log: {error}");
        self.poisoned = Some(reason.clone());
        JournalError::Medium(reason)
    }

    fn append(&mut self, addition: &Addition<'_>) -> VfsResult<()> {
        let extent = self.extent(addition);
        let is_begun = self.tail.offset > BLOCK as u64;
        if is_begun && self.tail.offset + extent > self.founding.segment_size {
            self.roll()?;
        }
        self.note(addition);
        let id = BatchId {
            sequence: self.tail.sequence,
            life: self.tail.life,
            number: self.tail.number + 1,
            link: self.tail.link,
        };
        let (bytes, header) = self.builder.finish(id);
        self.vfs.write_at(self.file, self.tail.offset, bytes)?;
        sync(&mut self.vfs, self.file)?;
        self.tail.offset += bytes.len() as u64;
        self.tail.number += 1;
        self.tail.link = header.own_link();
        if self.ahead.is_empty() {
            let done = self.zero(ZERO_SHARE.max(2 * extent));
            self.note_zeroing(done);
        }
        match self.poisoned {
            None => Ok(()),
            Some(ref reason) => Err(VfsError::Io(reason.clone())),
        }
    }

    /// An upper bound of what a batch takes.
    fn extent(&self, addition: &Addition<'_>) -> u64 {
        let data: usize = addition.entries.iter().map(|entry| entry.data.len()).sum();
        let members = 9 * (self.members.0.len() + self.members.1.len() + 2);
        let records = addition.entries.len() + 4;
        BatchBuilder::extent(data + members + 8, records) as u64
    }

    /// Puts the batch together and takes in what it says.
    fn note(&mut self, addition: &Addition<'_>) {
        self.builder.begin();
        let opens_segment = self.tail.offset == BLOCK as u64;
        if opens_segment {
            self.builder.continues(self.last.0, self.last.1);
            self.builder.members(&self.members.0, &self.members.1);
        }
        if let Some((position, term)) = addition.anew {
            self.builder.anew(position, term);
            self.last = (position, term);
            self.highest = self.highest.max(position);
        }
        for entry in addition.entries {
            assert!(
                entry.position <= self.last.0.next(),
                "the log has no gap at {}",
                entry.position
            );
            self.builder.entry(entry);
            self.last = (entry.position, entry.term);
            self.highest = self.highest.max(entry.position);
        }
        if let Some(hard) = addition.hard {
            self.hard = hard;
        }
        if opens_segment || addition.hard.is_some() {
            self.builder.hard(&self.hard);
        }
    }

    /// Goes on in the next segment.
    fn roll(&mut self) -> VfsResult<()> {
        while self.ahead.is_empty() {
            self.zero(ZERO_STEP)?;
        }
        let (sequence, file) = self.ahead.pop_front().expect("one is ready");
        assert_eq!(
            sequence,
            self.tail.sequence + 1,
            "segments follow each other"
        );
        self.vfs.close(self.file);
        self.before.push_back((self.tail.sequence, self.highest));
        self.file = file;
        self.tail.sequence = sequence;
        self.tail.offset = BLOCK as u64;
        self.highest = self.last.0;
        self.marks.reach(Mark::SegmentRolled);
        Ok(())
    }

    /// Forgets segments that hold nothing behind `upto`.
    fn shorten(&mut self, upto: LogPosition) -> VfsResult<()> {
        while let Some(&(sequence, highest)) = self.before.front() {
            if highest > upto {
                break;
            }
            // One after the other, durably: recovery meets no gap between segments.
            if self.ahead.len() < AHEAD_MAX && self.zeroing.is_none() {
                self.recycle(sequence)?;
            } else {
                self.vfs.remove(&segment_name(sequence))?;
                self.vfs.sync_dir("")?;
            }
            self.before.pop_front();
        }
        Ok(())
    }

    /// Uses an old segment again: its bytes are there already, and its batches name
    /// another sequence number.
    fn recycle(&mut self, sequence: u64) -> VfsResult<()> {
        let next = self.next_sequence();
        let name = segment_name(next);
        self.vfs.rename(&segment_name(sequence), &name)?;
        self.vfs.sync_dir("")?;
        let file = self.vfs.open(&name)?;
        write_header(&mut self.vfs, &self.founding, next, file)?;
        self.ahead.push_back((next, file));
        Ok(())
    }

    fn next_sequence(&self) -> u64 {
        self.ahead.back().map_or(self.tail.sequence, |last| last.0) + 1
    }

    /// Zeroes some of the segment that is due next; with the last of it, makes it
    /// ready for use.
    fn zero(&mut self, most: u64) -> VfsResult<()> {
        if self.zeroing.is_none() {
            let sequence = self.next_sequence();
            let file = self.vfs.create(&segment_name(sequence))?;
            self.zeroing = Some(Zeroing {
                sequence,
                file,
                upto: 0,
                synced: 0,
            });
        }
        let zeroing = self.zeroing.as_mut().expect("it was begun if it was not");
        let size = self.founding.segment_size;
        let step = most.min(size - zeroing.upto);
        write_zeros(&mut self.vfs, zeroing.file, zeroing.upto, step)?;
        zeroing.upto += step;
        if zeroing.upto - zeroing.synced >= ZERO_SYNC {
            sync(&mut self.vfs, zeroing.file)?;
            zeroing.synced = zeroing.upto;
        }
        if zeroing.upto == size {
            self.finish_zeroing()?;
        }
        Ok(())
    }

    /// The header comes last: a segment that has one is whole.
    fn finish_zeroing(&mut self) -> VfsResult<()> {
        let Zeroing { sequence, file, .. } = self.zeroing.take().expect("the caller has it");
        seal_segment(&mut self.vfs, &self.founding, sequence, file)?;
        self.ahead.push_back((sequence, file));
        Ok(())
    }

    /// A full disk is no failure while the present segment has room: the work is
    /// dropped and begun anew. Anything else is.
    fn note_zeroing(&mut self, done: VfsResult<()>) -> bool {
        let failure = match done {
            Ok(()) => return true,
            Err(VfsError::Full) => self.drop_zeroing().err(),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            self.poison(&error);
        }
        false
    }

    fn drop_zeroing(&mut self) -> VfsResult<()> {
        let Some(zeroing) = self.zeroing.take() else {
            return Ok(());
        };
        self.vfs.close(zeroing.file);
        self.vfs.remove(&segment_name(zeroing.sequence))?;
        self.vfs.sync_dir("")
    }

    /// Keeps the segments that are ready for use, removes what an interrupted
    /// preparation, recycling or shortening left behind.
    fn sort_out(&mut self, segments: Vec<Segment>) -> VfsResult<()> {
        for segment in segments {
            let is_kept = self
                .before
                .iter()
                .any(|(known, _)| *known == segment.sequence);
            if segment.sequence == self.tail.sequence {
                continue;
            }
            let is_ready = segment.is_ours
                && segment.sequence == self.next_sequence()
                && segment.length >= self.founding.segment_size
                && self.ahead.len() < AHEAD_MAX;
            if is_ready {
                // As in `renew`: that its header can be read does not make it durable.
                write_header(
                    &mut self.vfs,
                    &self.founding,
                    segment.sequence,
                    segment.file,
                )?;
                self.ahead.push_back((segment.sequence, segment.file));
                continue;
            }
            self.vfs.close(segment.file);
            if !is_kept {
                self.vfs.remove(&segment.name)?;
                self.vfs.sync_dir("")?;
            }
        }
        Ok(())
    }
}

impl Tail {
    /// Where the first batch of all goes.
    fn first() -> Self {
        Self {
            sequence: 1,
            offset: BLOCK as u64,
            life: 1,
            number: 0,
            link: 0,
        }
    }
}

/// A whole segment at once: the first of a folder.
fn make_segment<V: Vfs>(vfs: &mut V, founding: &Founding, sequence: u64) -> VfsResult<FileId> {
    let file = vfs.create(&segment_name(sequence))?;
    write_zeros(vfs, file, 0, founding.segment_size)?;
    seal_segment(vfs, founding, sequence, file)?;
    Ok(file)
}

/// Makes a zeroed segment durable, then its header.
fn seal_segment<V: Vfs>(
    vfs: &mut V,
    founding: &Founding,
    sequence: u64,
    file: FileId,
) -> VfsResult<()> {
    sync(vfs, file)?;
    write_header(vfs, founding, sequence, file)?;
    vfs.sync_dir("")
}

fn write_header<V: Vfs>(
    vfs: &mut V,
    founding: &Founding,
    sequence: u64,
    file: FileId,
) -> VfsResult<()> {
    let header = SegmentHeader {
        cluster: founding.cluster,
        member: founding.member,
        sequence,
    };
    vfs.write_at(file, 0, &header.encode())?;
    sync(vfs, file)
}

fn write_zeros<V: Vfs>(vfs: &mut V, file: FileId, from: u64, length: u64) -> VfsResult<()> {
    let zeros = [0; 64 << 10];
    let mut done = 0;
    while done < length {
        let step = (length - done).min(zeros.len() as u64);
        let piece = &zeros[..usize::try_from(step).expect("at most the array")];
        vfs.write_at(file, from + done, piece)?;
        done += step;
    }
    Ok(())
}

fn sync<V: Vfs>(vfs: &mut V, file: FileId) -> VfsResult<()> {
    match vfs.sync(file) {
        Err(_) if planted::is(Planted::IgnoreSyncError) => Ok(()),
        result => result,
    }
}
