//! Reading the log back after a crash: where it ends, and whether that can be.
//!
//! Owns the distinction between a torn tail and a hole. One append is one batch,
//! and a batch is begun only when the one before it is synced. So a crash leaves at
//! most the last batch torn; where any trace of a *later* batch is found behind a
//! damaged one, synced bytes were lost, and the log is refused. A later trace is a
//! whole header that names this segment, a life not before the last batch's, and a
//! number beyond the one that is missing.
//!
//! Segments that an image covers may be gone, or damaged: the log is then read from
//! the first segment on that continues behind something the image covers.

use super::format::{
    BLOCK, BatchHeader, HeaderRead, LogRecord, SegmentHeader, segment_name, segment_sequence,
};
use super::operation::{HardState, LogEntry};
use super::{Founding, OpenError};
use crate::ids::{LogPosition, Term};
use crate::vfs::{FileId, Vfs, VfsError};

/// A segment's file as it was found.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) sequence: u64,
    pub(super) name: String,
    pub(super) file: FileId,
    pub(super) length: u64,
    /// Its header is whole and names this sequence number.
    pub(super) is_ours: bool,
    /// What was read of it, from this offset on.
    from: usize,
    bytes: Vec<u8>,
}

impl Segment {
    /// What was read from one offset up to another.
    pub(super) fn bytes(&self, from: u64, upto: u64) -> &[u8] {
        &self.bytes[as_index(from)..as_index(upto)]
    }
}

/// What was read.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) hard: HardState,
    /// The position before the first entry, and its term.
    pub(super) base: (LogPosition, Term),
    pub(super) entries: Vec<LogEntry>,
    /// The group as it was founded.
    pub(super) members: (Vec<u64>, Vec<u64>),
    /// Which segment the log ends in, and where the next batch goes.
    pub(super) tail: Tail,
    /// Where the last batch begins in the tail's segment.
    pub(super) last_batch: u64,
    /// The segments before the tail's and itself, with the highest position in each.
    pub(super) used: Vec<(u64, LogPosition)>,
    pub(super) is_torn: bool,
}

/// The end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tail {
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) life: u64,
    pub(super) number: u64,
    pub(super) link: u64,
}

impl Scan {
    /// The last position and its term.
    pub(super) fn last(&self) -> (LogPosition, Term) {
        let last = self.entries.last();
        last.map_or(self.base, |entry| (entry.position, entry.term))
    }

    /// The term of a position, if the log knows it.
    pub(super) fn term_at(&self, position: LogPosition) -> Option<Term> {
        let distance = position.0.checked_sub(self.base.0.0)?;
        match distance.checked_sub(1) {
            None => Some(self.base.1),
            Some(at) => self.entries.get(as_index(at)).map(|entry| entry.term),
        }
    }

    /// Takes out the entries behind a position, which the log reaches.
    pub(super) fn entries_behind(&mut self, position: LogPosition) -> Vec<LogEntry> {
        let covered = as_index(position.0 - self.base.0.0);
        self.entries.split_off(covered)
    }

    /// The file that it was read from first.
    pub(super) fn first_file(&self) -> String {
        segment_name(self.used.first().map_or(0, |(sequence, _)| *sequence))
    }
}

/// Opens every segment of the folder, in order.
pub(super) fn list_segments<V: Vfs>(
    vfs: &mut V,
    founding: &Founding,
) -> Result<Vec<Segment>, OpenError> {
    let mut sequences: Vec<u64> = vfs
        .list("")?
        .iter()
        .filter_map(|name| segment_sequence(name))
        .collect();
    sequences.sort_unstable();
    sequences
        .into_iter()
        .map(|sequence| open_segment(vfs, founding, sequence))
        .collect()
}

fn open_segment<V: Vfs>(
    vfs: &mut V,
    founding: &Founding,
    sequence: u64,
) -> Result<Segment, OpenError> {
    let name = segment_name(sequence);
    let file = vfs.open(&name)?;
    let length = vfs.len(file)?;
    let mut block = [0; BLOCK];
    let read = vfs.read_at(file, 0, &mut block)?;
    let is_ours = match SegmentHeader::decode(&block[..read]) {
        HeaderRead::Nothing => false,
        HeaderRead::Version(version) => {
            return Err(OpenError::Version {
                file: name,
                version,
            });
        }
        HeaderRead::Header(header) => {
            if (header.cluster, header.member) != (founding.cluster, founding.member) {
                return Err(OpenError::Foreign {
                    file: name,
                    cluster: header.cluster,
                    member: header.member,
                });
            }
            header.sequence == sequence
        }
    };
    Ok(Segment {
        sequence,
        name,
        file,
        length,
        is_ours,
        from: 0,
        bytes: Vec::new(),
    })
}

/// Reads the log. `covered` is the position of the image that the state is loaded
/// from. `None` when no batch was ever written.
pub(super) fn scan<V: Vfs>(
    vfs: &mut V,
    segments: &mut [Segment],
    covered: LogPosition,
) -> Result<Option<Scan>, OpenError> {
    let mut refused = None;
    for start in 0..segments.len() {
        match Reader::new(vfs, covered).read(&mut segments[start..]) {
            Ok(Some(scan)) => return Ok(Some(scan)),
            Ok(None) => {}
            Err(OpenError::Medium(error)) => return Err(OpenError::Medium(error)),
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    refused.map_or(Ok(None), Err)
}

struct Reader<'v, V> {
    vfs: &'v mut V,
    covered: LogPosition,
    scan: Option<Scan>,
    /// The highest position in the present segment.
    highest: LogPosition,
}

impl<'v, V: Vfs> Reader<'v, V> {
    fn new(vfs: &'v mut V, covered: LogPosition) -> Self {
        Self {
            vfs,
            covered,
            scan: None,
            highest: LogPosition(0),
        }
    }

    fn read(mut self, segments: &mut [Segment]) -> Result<Option<Scan>, OpenError> {
        let mut end = 0;
        for at in 0..segments.len() {
            load(self.vfs, &mut segments[at])?;
            let follows = at == 0 || segments[at].sequence == segments[at - 1].sequence + 1;
            if !follows || !self.read_segment(&segments[at], BLOCK)? {
                break;
            }
            if at > 0 {
                segments[at - 1].bytes = Vec::new();
            }
            end = at;
        }
        self.check_end(segments, end)?;
        Ok(self.scan)
    }

    /// Takes in the batches of one segment from an offset on; whether there was any.
    fn read_segment(&mut self, segment: &Segment, from: usize) -> Result<bool, OpenError> {
        let mut offset = from;
        while let Some((header, records)) = self.next_batch(segment, offset)? {
            for record in records {
                self.take(record, segment, offset)?;
            }
            let scan = self.scan.as_mut().expect("a batch was taken in");
            scan.last_batch = offset as u64;
            offset += header.extent();
            scan.tail = Tail {
                sequence: segment.sequence,
                offset: offset as u64,
                life: header.id.life,
                number: header.id.number,
                link: header.own_link(),
            };
        }
        let any = offset > from;
        if any && from == BLOCK {
            let scan = self.scan.as_mut().expect("a batch was taken in");
            scan.used.push((segment.sequence, self.highest));
        }
        Ok(any)
    }

    /// The batch at `offset`, if it is whole and follows the last one.
    fn next_batch(
        &mut self,
        segment: &Segment,
        offset: usize,
    ) -> Result<Option<(BatchHeader, Vec<LogRecord>)>, OpenError> {
        let bytes = segment.bytes.get(offset - segment.from..);
        let bytes = bytes.unwrap_or_default();
        let Some(header) = BatchHeader::decode(bytes) else {
            return Ok(None);
        };
        let follows = header.id.sequence == segment.sequence
            && self.scan.as_ref().is_none_or(|scan| {
                header.id.number == scan.tail.number + 1
                    && header.id.life >= scan.tail.life
                    && header.id.link == scan.tail.link
            });
        let Some(body) = header.body(bytes).filter(|_| follows) else {
            return Ok(None);
        };
        // What its checksum vouches for was written so: not torn, but not understood.
        let records = header.records(body);
        let records = records.ok_or_else(|| hole(segment, offset, "a record is not known"))?;
        self.scan.get_or_insert_with(empty_scan);
        Ok(Some((header, records)))
    }

    fn take(
        &mut self,
        record: LogRecord,
        segment: &Segment,
        offset: usize,
    ) -> Result<(), OpenError> {
        let scan = self.scan.as_mut().expect("a batch begins it");
        match record {
            LogRecord::Hard(hard) => scan.hard = hard,
            LogRecord::Members(voters, learners) => scan.members = (voters, learners),
            LogRecord::Anew(position, term) => {
                scan.base = (position, term);
                scan.entries.clear();
                self.highest = self.highest.max(position);
            }
            LogRecord::Continues(position, term) if scan.used.is_empty() && offset == BLOCK => {
                if position > self.covered {
                    return Err(OpenError::Missing {
                        file: segment.name.clone(),
                        from: self.covered.next(),
                        upto: position,
                    });
                }
                scan.base = (position, term);
            }
            LogRecord::Continues(position, _) => {
                if position != scan.last().0 {
                    let reason = "it does not continue where the log before it ends";
                    return Err(hole(segment, offset, reason));
                }
            }
            LogRecord::Entry(entry) => {
                self.highest = self.highest.max(entry.position);
                if !put(scan, self.covered, entry) {
                    return Err(hole(segment, offset, "its entries leave a gap in the log"));
                }
            }
        }
        Ok(())
    }

    /// Nothing that was synced lies behind the end.
    fn check_end(&mut self, segments: &mut [Segment], end: usize) -> Result<(), OpenError> {
        let tail = self.scan.as_ref().map(|scan| scan.tail);
        for segment in &mut segments[end..] {
            load(self.vfs, segment)?;
            let from = match tail {
                Some(tail) if tail.sequence == segment.sequence => as_index(tail.offset),
                _ => BLOCK,
            };
            let last = tail.map_or((0, 0), |tail| (tail.life, tail.number));
            if let Some(offset) = later_trace(segment, from, last) {
                return Err(self.refuse(segments, end, offset));
            }
        }
        if let (Some(scan), Some(segment)) = (&mut self.scan, segments.get(end)) {
            scan.is_torn = is_torn(segment, &scan.tail);
        }
        Ok(())
    }

    fn refuse(&self, segments: &[Segment], end: usize, later: usize) -> OpenError {
        let offset = self
            .scan
            .as_ref()
            .map_or(BLOCK as u64, |scan| scan.tail.offset);
        OpenError::Hole {
            file: segments[end].name.clone(),
            offset,
            reason: format!("a batch is damaged or gone, but a later one is there (at {later})"),
        }
    }
}

/// A log as judges follow it: it is read on from where it was read before, and what
/// was read before is taken for granted. It changes nothing on the disk.
#[derive(Debug)]
pub struct LogWatch {
    founding: Founding,
    covered: LogPosition,
    scan: Scan,
}

impl LogWatch {
    /// Reads a log whole. `covered` is the position of an image in the same folder.
    /// `None` when no batch was ever written.
    ///
    /// # Errors
    /// As `journal::open`.
    pub fn read<V: Vfs>(
        vfs: &mut V,
        founding: &Founding,
        covered: LogPosition,
    ) -> Result<Option<Self>, OpenError> {
        let mut segments = list_segments(vfs, founding)?;
        let scan = scan(vfs, &mut segments, covered)?;
        Ok(scan.map(|scan| Self {
            founding: founding.clone(),
            covered,
            scan,
        }))
    }

    /// Takes in the batches that were written meanwhile.
    ///
    /// # Errors
    /// As `journal::open`.
    pub fn read_on<V: Vfs>(mut self, vfs: &mut V) -> Result<Self, OpenError> {
        let mut from = as_index(self.scan.tail.offset);
        for sequence in self.scan.tail.sequence.. {
            let mut segment = match open_segment(vfs, &self.founding, sequence) {
                Err(OpenError::Medium(VfsError::NotFound(_))) => break,
                other => other?,
            };
            let before = self.scan.tail.number;
            self = self.read_segment_on(vfs, &mut segment, from)?;
            vfs.close(segment.file);
            if self.scan.tail.number == before && from == BLOCK {
                break;
            }
            from = BLOCK;
        }
        Ok(self)
    }

    /// Takes in the batches of one segment from an offset on, reading no more of it than
    /// they take.
    fn read_segment_on<V: Vfs>(
        mut self,
        vfs: &mut V,
        segment: &mut Segment,
        mut from: usize,
    ) -> Result<Self, OpenError> {
        loop {
            load_batch(vfs, segment, from)?;
            let mut reader = Reader::new(vfs, self.covered);
            reader.scan = Some(self.scan);
            let any = reader.read_segment(segment, from)?;
            self.scan = reader.scan.expect("it was just put there");
            if !any {
                return Ok(self);
            }
            from = as_index(self.scan.tail.offset);
        }
    }

    /// The term of the entry at a position, if the log knows it.
    #[must_use]
    pub fn term_at(&self, position: LogPosition) -> Option<Term> {
        self.scan.term_at(position)
    }
}

fn empty_scan() -> Scan {
    Scan {
        hard: HardState::default(),
        base: (LogPosition(0), Term(0)),
        entries: Vec::new(),
        members: (Vec::new(), Vec::new()),
        tail: Tail {
            sequence: 0,
            offset: 0,
            life: 0,
            number: 0,
            link: 0,
        },
        last_batch: 0,
        used: Vec::new(),
        is_torn: false,
    }
}

/// Adds an entry, cutting off what is at or behind its position; false when it
/// leaves a gap.
fn put(scan: &mut Scan, covered: LogPosition, entry: LogEntry) -> bool {
    if entry.position <= scan.base.0 {
        // A conflict reached back before the first segment that is left: what it
        // replaced is gone, and what it brought is covered by the image.
        scan.entries.clear();
        scan.base = (entry.position, entry.term);
        return entry.position <= covered;
    }
    let at = as_index(entry.position.0 - scan.base.0.0 - 1);
    if at > scan.entries.len() {
        return false;
    }
    scan.entries.truncate(at);
    scan.entries.push(entry);
    true
}

fn hole(segment: &Segment, offset: usize, reason: &str) -> OpenError {
    OpenError::Hole {
        file: segment.name.clone(),
        offset: offset as u64,
        reason: reason.to_owned(),
    }
}

/// Where a header lies that can only have been written after the batch that is
/// missing was synced.
fn later_trace(segment: &Segment, from: usize, (life, number): (u64, u64)) -> Option<usize> {
    let is_later = |at: &usize| {
        BatchHeader::decode(&segment.bytes[*at..]).is_some_and(|header| {
            header.id.sequence == segment.sequence
                && header.id.life >= life
                && header.id.number > number + 1
        })
    };
    (from..segment.bytes.len()).step_by(BLOCK).find(is_later)
}

/// Whether a batch was begun at the end of the log and not finished (as far as its
/// header tells).
fn is_torn(segment: &Segment, tail: &Tail) -> bool {
    let from = as_index(tail.offset).min(segment.bytes.len());
    BatchHeader::decode(&segment.bytes[from..]).is_some_and(|header| {
        header.id.sequence == tail.sequence
            && header.id.number == tail.number + 1
            && header.id.life >= tail.life
    })
}

fn load<V: Vfs>(vfs: &mut V, segment: &mut Segment) -> Result<(), VfsError> {
    if segment.bytes.is_empty() {
        load_from(vfs, segment, 0)?;
    }
    Ok(())
}

/// Loads the batch that may lie at an offset: a block, or as much as its header says.
fn load_batch<V: Vfs>(vfs: &mut V, segment: &mut Segment, from: usize) -> Result<(), VfsError> {
    load_piece(vfs, segment, from, BLOCK)?;
    match BatchHeader::decode(&segment.bytes) {
        Some(header) if header.extent() > BLOCK => load_piece(vfs, segment, from, header.extent()),
        _ => Ok(()),
    }
}

fn load_from<V: Vfs>(vfs: &mut V, segment: &mut Segment, from: usize) -> Result<(), VfsError> {
    load_piece(vfs, segment, from, usize::MAX)
}

fn load_piece<V: Vfs>(
    vfs: &mut V,
    segment: &mut Segment,
    from: usize,
    most: usize,
) -> Result<(), VfsError> {
    let left = as_index(segment.length).saturating_sub(from);
    let mut bytes = vec![0; left.min(most)];
    let read = vfs.read_at(segment.file, from as u64, &mut bytes)?;
    bytes.truncate(read);
    (segment.from, segment.bytes) = (from, bytes);
    Ok(())
}

fn as_index(number: u64) -> usize {
    usize::try_from(number).expect("a file in memory is counted in memory's words")
}
