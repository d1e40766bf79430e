//! The journal of a disk: frames in pre-zeroed segments, and finding its end.
//!
//! A frame is one group commit. It is written only after the frame before it is
//! durable (the store has at most one commit under way), so a valid frame proves
//! all before it durable: what is missing before a later one is a hole, and the
//! disk is refused. `journal-<n>` is a segment:
//! ```text
//! sector 0: 0 8 "ANTJRNL1"   8 4 format   12 4 zero   16 8 disk id
//!           24 484 zero      508 4 CRC of the 508 bytes before
//! sector 1..: a frame's sectors, one frame after another:
//!   0   4  CRC of the rest of the sector (seeded by the disk id)
//!   4   8  sequence of the frame, from 1 without gaps
//!   12  4  index of the sector in its frame
//!   16 496 content
//! ```
//! The content of a frame: length 4, CRC 4, as many bytes of records, zeros. A
//! frame does not cross segments. Sectors are checksummed one by one because the
//! medium tears at sectors: at the journal's end each is zero, of an older life
//! of a segment that was used before, or of the frame that was torn. Anything
//! else is rot, and the disk is refused: a commit that was lost to rot must not
//! pass for one that was never made.

use super::StoreError;
use super::format::{FORMAT, FormatError, Reader};
use crate::ids::DiskId;
use crate::vfs::{FileId, Vfs, VfsError, VfsResult};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of a sector: what the medium writes whole or not at all.
const SECTOR: usize = 512;
const SECTOR_HEADER: usize = 16;
const SECTOR_CONTENT: usize = SECTOR - SECTOR_HEADER;
const ZEROS: [u8; SECTOR] = [0; SECTOR];
/// Sectors read at once of a journal that is read on.
const READ_ON: usize = 8;
/// Length and CRC before a frame's records.
const FRAME_HEADER: usize = 8;
const MAGIC: [u8; 8] = *b"ANTJRNL1";
/// Segments kept for use again.
const SPARES_MAX: usize = 4;

/// A place in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    /// The number of the segment.
    pub(super) segment: u64,
    /// The sector in it, from 1.
    pub(super) sector: u32,
}

/// The end of what is done: the last frame, and where the next one goes (or in
/// the next segment).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) sequence: u64,
    pub(super) position: Position,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    file: FileId,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal {
    disk: DiskId,
    segment_size: u32,
    /// In order; the last one is being written. Earlier ones wait for a checkpoint.
    segments: VecDeque<Segment>,
    spares: BTreeMap<u64, FileId>,
    next_sector: u32,
    next_sequence: u64,
    torn: bool,
}

fn name(number: u64) -> String {
    format!("journal-{number}")
}

impl Journal {
    /// Makes the first segment, durable but for its name.
    pub(super) fn format<V: Vfs>(vfs: &mut V, disk: DiskId, segment_size: u32) -> VfsResult<Mark> {
        let file = vfs.create(&name(1))?;
        fill(vfs, file, disk, segment_size)?;
        vfs.close(file);
        let position = Position {
            segment: 1,
            sector: 1,
        };
        Ok(Mark {
            sequence: 0,
            position,
        })
    }

    /// Opens the journal and gives every frame behind `from` to `apply`, in order.
    pub(super) fn open<V: Vfs>(
        vfs: &mut V,
        disk: DiskId,
        segment_size: u32,
        from: Mark,
        apply: impl FnMut(&mut V, u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut journal = Self {
            disk,
            segment_size,
            segments: VecDeque::new(),
            spares: BTreeMap::new(),
            next_sector: from.position.sector,
            next_sequence: from.sequence + 1,
            torn: false,
        };
        journal.find_segments(vfs, from.position.segment)?;
        journal.walk(vfs, from, apply, true)?;
        Ok(journal)
    }

    /// Gives every frame from `from` on to `apply` once more.
    pub(super) fn replay<V: Vfs>(
        &mut self,
        vfs: &mut V,
        from: Mark,
        apply: impl FnMut(&mut V, u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let end = self.next_sequence;
        self.walk(vfs, from, apply, false)?;
        assert_eq!(
            self.next_sequence, end,
            "the journal does not change while it is read"
        );
        Ok(())
    }

    /// Gives the frames behind `from` to `apply`, in order, and tells the new end. What
    /// lies before them is taken for granted, and what lies behind the last one is not
    /// looked at: for judges, who let recovery decide about both.
    pub(super) fn read_on<V: Vfs>(
        vfs: &mut V,
        shape: (DiskId, u32),
        from: Mark,
        mut apply: impl FnMut(u64, Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<Mark, StoreError> {
        let mut end = from;
        for number in from.position.segment.. {
            let file = match vfs.open(&name(number)) {
                Err(VfsError::NotFound(_)) => break,
                other => other?,
            };
            let segment = Segment { number, file };
            let is_known = number == from.position.segment;
            let sector = if is_known { from.position.sector } else { 1 };
            let mut at = Mark {
                sequence: end.sequence,
                position: Position {
                    segment: number,
                    sector,
                },
            };
            if is_known || is_whole(vfs, segment, shape)? {
                read_segment_on(vfs, segment, shape, &mut at, &mut apply)?;
            }
            vfs.close(file);
            if at.sequence > end.sequence {
                end = at;
            } else if !is_known {
                break;
            }
        }
        Ok(end)
    }

    fn find_segments<V: Vfs>(&mut self, vfs: &mut V, first: u64) -> Result<(), StoreError> {
        let names = vfs.list("")?;
        let numbers = names
            .iter()
            .filter_map(|name| name.strip_prefix("journal-"));
        let mut numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        numbers.sort_unstable();
        for number in numbers {
            let file = vfs.open(&name(number))?;
            match number < first {
                true => drop(self.spares.insert(number, file)),
                false => self.segments.push_back(Segment { number, file }),
            }
        }
        match self.segments.front() {
            Some(segment) if segment.number == first => Ok(()),
            _ => Err(StoreError::damaged(name(first), "it is missing")),
        }
    }

    /// Reads frames until there are no more; with `recover`, checks that none can
    /// be missing behind the last one and makes that the end.
    fn walk<V: Vfs>(
        &mut self,
        vfs: &mut V,
        from: Mark,
        mut apply: impl FnMut(&mut V, u64, &[u8]) -> Result<(), StoreError>,
        recover: bool,
    ) -> Result<(), StoreError> {
        let (mut expected, mut sector) = (from.sequence + 1, from.position.sector as usize);
        let mut end = from.position;
        let mut tails = Vec::new();
        for segment in self.segments.clone() {
            let image = Image::read(vfs, segment, self)?;
            if segment.number == from.position.segment && !image.is_whole {
                return Err(StoreError::damaged(
                    name(segment.number),
                    FormatError::Short,
                ));
            }
            while let Some(frame) = image.frame(sector, expected) {
                apply(vfs, expected, &frame.records)?;
                (expected, sector) = (expected + 1, sector + frame.sectors);
                tails.clear();
                end.segment = segment.number;
                end.sector = u32::try_from(sector).expect("segments are small");
            }
            if recover {
                tails.push((image, sector));
            }
            sector = 1;
        }
        self.next_sequence = expected;
        match recover {
            true => self.end_at(vfs, end, &tails),
            false => Ok(()),
        }
    }

    /// Makes `end` the end. Segments behind it wait to be used; what a torn frame
    /// left is overwritten, so that it can't pass for a part of the next one.
    fn end_at<V: Vfs>(
        &mut self,
        vfs: &mut V,
        end: Position,
        tails: &[(Image, usize)],
    ) -> Result<(), StoreError> {
        for (image, sector) in tails {
            let torn = image.check_tail(*sector, self.next_sequence)?;
            for &sector in &torn {
                vfs.write_at(image.segment.file, (sector * SECTOR) as u64, &[0; SECTOR])?;
            }
            if !torn.is_empty() {
                vfs.sync(image.segment.file)?;
                self.torn = true;
            }
            if image.segment.number > end.segment {
                self.segments
                    .retain(|segment| segment.number != image.segment.number);
                self.keep_or_remove(vfs, image)?;
            }
        }
        self.next_sector = end.sector;
        // A frame may be whole but not durable yet (the process died, not the
        // machine): it counts from now on, so it must be.
        let last = self.segments.back().expect("the end is in a segment");
        vfs.sync(last.file)?;
        Ok(())
    }

    /// A segment behind the end was begun but not used: it is kept if it is whole.
    fn keep_or_remove<V: Vfs>(&mut self, vfs: &mut V, image: &Image) -> VfsResult<()> {
        let Segment { number, file } = image.segment;
        if image.is_whole {
            self.spares.insert(number, file);
            return Ok(());
        }
        vfs.close(file);
        vfs.remove(&name(number))
    }

    /// The end of what was written.
    pub(super) fn mark(&self) -> Mark {
        let segment = self
            .segments
            .back()
            .expect("there is always a segment")
            .number;
        Mark {
            sequence: self.next_sequence - 1,
            position: Position {
                segment,
                sector: self.next_sector,
            },
        }
    }

    /// Whether recovery met a torn frame.
    pub(super) fn was_torn(&self) -> bool {
        self.torn
    }

    /// Bytes written behind `mark`.
    pub(super) fn bytes_behind(&self, mark: Mark) -> u64 {
        let now = self.mark().position;
        let segments = (now.segment - mark.position.segment) * u64::from(self.segment_size);
        (segments + u64::from(now.sector) * SECTOR as u64)
            .saturating_sub(u64::from(mark.position.sector) * SECTOR as u64)
    }

    /// The most bytes of records that a frame takes.
    pub(super) fn frame_max(&self) -> usize {
        let sectors = self.segment_size as usize / SECTOR - 1;
        sectors * SECTOR_CONTENT - FRAME_HEADER
    }

    /// Writes the next frame. Durable after a sync of the file that is returned;
    /// the next one may be written only then.
    pub(super) fn append<V: Vfs>(&mut self, vfs: &mut V, records: &[u8]) -> VfsResult<FileId> {
        assert!(records.len() <= self.frame_max(), "a frame fits a segment");
        let sequence = self.next_sequence;
        let bytes = encode_frame(self.disk, sequence, records);
        let left = self.segment_size as usize - self.next_sector as usize * SECTOR;
        if bytes.len() > left {
            self.roll(vfs)?;
        }
        let file = self
            .segments
            .back()
            .expect("there is always a segment")
            .file;
        vfs.write_at(file, u64::from(self.next_sector) * SECTOR as u64, &bytes)?;
        self.next_sector += u32::try_from(bytes.len() / SECTOR).expect("segments are small");
        self.next_sequence += 1;
        Ok(file)
    }

    /// Begins the next segment.
    fn roll<V: Vfs>(&mut self, vfs: &mut V) -> VfsResult<()> {
        let number = self.mark().position.segment + 1;
        let file = match self.spares.remove(&number) {
            Some(file) => file,
            None => self.reuse_or_create(vfs, number)?,
        };
        self.segments.push_back(Segment { number, file });
        self.next_sector = 1;
        Ok(())
    }

    fn reuse_or_create<V: Vfs>(&mut self, vfs: &mut V, number: u64) -> VfsResult<FileId> {
        let file = match self.spares.pop_first() {
            Some((old, file)) => {
                vfs.rename(&name(old), &name(number))?;
                file
            }
            None => create(vfs, self.disk, number, self.segment_size)?,
        };
        vfs.sync_dir("")?;
        Ok(file)
    }

    /// Forgets the segments that lie wholly before `mark`.
    pub(super) fn trim<V: Vfs>(&mut self, vfs: &mut V, mark: Mark) -> VfsResult<()> {
        while self.segments.len() > 1 && self.segments[0].number < mark.position.segment {
            let segment = self.segments.pop_front().expect("there are several");
            if self.spares.len() < SPARES_MAX {
                self.spares.insert(segment.number, segment.file);
            } else {
                vfs.close(segment.file);
                vfs.remove(&name(segment.number))?;
            }
        }
        Ok(())
    }
}

/// Whether a segment has its header and its length.
fn is_whole<V: Vfs>(
    vfs: &mut V,
    segment: Segment,
    (disk, segment_size): (DiskId, u32),
) -> VfsResult<bool> {
    let mut header = [0; SECTOR];
    vfs.read_at(segment.file, 0, &mut header)?;
    let length = vfs.len(segment.file)?;
    Ok(header == segment_header(disk) && length >= u64::from(segment_size))
}

/// Takes in the frames of one segment from a mark on, and moves the mark behind them.
fn read_segment_on<V: Vfs>(
    vfs: &mut V,
    segment: Segment,
    shape: (DiskId, u32),
    at: &mut Mark,
    apply: &mut impl FnMut(u64, Vec<u8>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let sectors = shape.1 as usize / SECTOR;
    while (at.position.sector as usize) < sectors {
        let sector = at.position.sector as usize;
        let image = Image::read_piece(vfs, segment, shape, sector)?;
        let Some(frame) = image.frame(sector, at.sequence + 1) else {
            break;
        };
        at.sequence += 1;
        at.position.sector += u32::try_from(frame.sectors).expect("segments are small");
        apply(at.sequence, frame.records)?;
    }
    Ok(())
}

/// Makes a segment; a failure leaves none.
fn create<V: Vfs>(vfs: &mut V, disk: DiskId, number: u64, size: u32) -> VfsResult<FileId> {
    let file = vfs.create(&name(number))?;
    if let Err(error) = fill(vfs, file, disk, size) {
        vfs.close(file);
        vfs.remove(&name(number))?;
        return Err(error);
    }
    Ok(file)
}

/// Fills a segment with its header and zeros, durably.
fn fill<V: Vfs>(vfs: &mut V, file: FileId, disk: DiskId, size: u32) -> VfsResult<()> {
    let mut piece = vec![0; 256 << 10];
    let mut offset = 0;
    while offset < size as usize {
        let count = piece.len().min(size as usize - offset);
        if offset == 0 {
            piece[..SECTOR].copy_from_slice(&segment_header(disk));
        }
        vfs.write_at(file, offset as u64, &piece[..count])?;
        piece[..SECTOR].fill(0);
        offset += count;
    }
    vfs.sync(file)
}

fn segment_header(disk: DiskId) -> [u8; SECTOR] {
    let mut header = [0; SECTOR];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..24].copy_from_slice(&disk.0.to_le_bytes());
    let checksum = crc32fast::hash(&header[..SECTOR - 4]);
    header[SECTOR - 4..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn sector_checksum(disk: DiskId, rest: &[u8]) -> u32 {
    let seed = u32::try_from(disk.0 & 0xffff_ffff).expect("32 bits");
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(rest);
    hasher.finalize()
}

fn encode_frame(disk: DiskId, sequence: u64, records: &[u8]) -> Vec<u8> {
    let content = FRAME_HEADER + records.len();
    let sectors = content.div_ceil(SECTOR_CONTENT);
    let mut bytes = vec![0; sectors * SECTOR];
    let length = u32::try_from(records.len()).expect("a frame fits a segment");
    bytes[SECTOR_HEADER..SECTOR_HEADER + 4].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32fast::hash(records).to_le_bytes();
    bytes[SECTOR_HEADER + 4..SECTOR_HEADER + 8].copy_from_slice(&checksum);
    let mut rest = records;
    for (index, sector) in (0u32..).zip(bytes.chunks_exact_mut(SECTOR)) {
        let at = if index == 0 {
            SECTOR_HEADER + FRAME_HEADER
        } else {
            SECTOR_HEADER
        };
        let (piece, more) = rest.split_at(rest.len().min(SECTOR - at));
        sector[at..at + piece.len()].copy_from_slice(piece);
        rest = more;
        sector[4..12].copy_from_slice(&sequence.to_le_bytes());
        sector[12..16].copy_from_slice(&index.to_le_bytes());
        let checksum = sector_checksum(disk, &sector[4..]);
        sector[..4].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// What a sector of a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sector {
    Zero,
    Of { sequence: u64, index: u32 },
    Bad,
}

fn classify(disk: DiskId, sector: &[u8]) -> Sector {
    if sector == ZEROS {
        return Sector::Zero;
    }
    let mut reader = Reader::new(sector);
    let mut fields = || Ok::<_, FormatError>((reader.u32()?, reader.u64()?, reader.u32()?));
    let (checksum, sequence, index) = fields().expect("a sector has its header");
    match checksum == sector_checksum(disk, &sector[4..]) {
        true => Sector::Of { sequence, index },
        false => Sector::Bad,
    }
}

struct Frame {
    records: Vec<u8>,
    sectors: usize,
}

/// A segment in memory, or a piece of it.
struct Image {
    segment: Segment,
    disk: DiskId,
    /// The sector that its bytes begin at.
    from: usize,
    /// Sectors of the whole segment.
    sectors: usize,
    bytes: Vec<u8>,
    is_whole: bool,
}

impl Image {
    fn read<V: Vfs>(vfs: &mut V, segment: Segment, journal: &Journal) -> Result<Self, StoreError> {
        let mut bytes = vec![0; journal.segment_size as usize];
        let got = vfs.read_at(segment.file, 0, &mut bytes)?;
        let header = segment_header(journal.disk);
        let image = Self {
            segment,
            disk: journal.disk,
            from: 0,
            sectors: bytes.len() / SECTOR,
            is_whole: got == bytes.len() && bytes[..SECTOR] == header,
            bytes,
        };
        let is_blank = image.bytes[..SECTOR].iter().all(|byte| *byte == 0);
        match is_blank || image.bytes[..SECTOR] == header {
            true => Ok(image),
            false => Err(StoreError::damaged(
                name(segment.number),
                FormatError::Magic,
            )),
        }
    }

    /// Reads a piece of a whole segment: some sectors from one on, or more if the frame
    /// that begins there is longer.
    fn read_piece<V: Vfs>(
        vfs: &mut V,
        segment: Segment,
        (disk, segment_size): (DiskId, u32),
        from: usize,
    ) -> VfsResult<Self> {
        let mut image = Self {
            segment,
            disk,
            from,
            sectors: segment_size as usize / SECTOR,
            bytes: Vec::new(),
            is_whole: true,
        };
        image.load(vfs, READ_ON)?;
        let frame = image.extent(from).map_or(0, |(sectors, ..)| sectors);
        if frame > READ_ON {
            image.load(vfs, frame)?;
        }
        Ok(image)
    }

    /// Reads up to so many sectors in all.
    fn load<V: Vfs>(&mut self, vfs: &mut V, sectors: usize) -> VfsResult<()> {
        let (before, at) = (self.bytes.len(), self.from * SECTOR + self.bytes.len());
        let sectors = sectors.min(self.sectors - self.from);
        self.bytes.resize(sectors * SECTOR, 0);
        vfs.read_at(self.segment.file, at as u64, &mut self.bytes[before..])?;
        Ok(())
    }

    fn sector(&self, sector: usize) -> Option<&[u8]> {
        let at = (sector - self.from) * SECTOR;
        self.bytes.get(at..at + SECTOR)
    }

    /// How many sectors, bytes of records, and which CRC the frame that begins at a
    /// sector says that it has, if it fits.
    fn extent(&self, sector: usize) -> Option<(usize, usize, u32)> {
        let first = self.sector(sector).filter(|_| self.is_whole)?;
        let mut reader = Reader::new(&first[SECTOR_HEADER..]);
        let (length, checksum) = (reader.u32().ok()? as usize, reader.u32().ok()?);
        let sectors = (FRAME_HEADER + length).div_ceil(SECTOR_CONTENT);
        (sectors <= self.sectors - sector).then_some((sectors, length, checksum))
    }

    /// The frame that begins at a sector, if it is the one expected and whole.
    fn frame(&self, sector: usize, expected: u64) -> Option<Frame> {
        let (sectors, length, checksum) = self.extent(sector)?;
        let mut records = Vec::with_capacity(sectors * SECTOR_CONTENT);
        for index in 0..sectors {
            let bytes = self.sector(sector + index)?;
            let tag = Sector::Of {
                sequence: expected,
                index: u32::try_from(index).ok()?,
            };
            if classify(self.disk, bytes) != tag {
                return None;
            }
            let header = if index == 0 { FRAME_HEADER } else { 0 };
            records.extend_from_slice(&bytes[SECTOR_HEADER + header..]);
        }
        records.truncate(length);
        (crc32fast::hash(&records) == checksum).then_some(Frame { records, sectors })
    }

    /// Checks that nothing from `sector` on tells of a frame that is missing.
    /// Returns the sectors of a torn frame.
    fn check_tail(&self, sector: usize, expected: u64) -> Result<Vec<usize>, StoreError> {
        let mut torn = Vec::new();
        assert_eq!(self.from, 0, "the whole segment is checked");
        for sector in sector..self.sectors {
            match classify(
                self.disk,
                &self.bytes[sector * SECTOR..(sector + 1) * SECTOR],
            ) {
                Sector::Zero => {}
                Sector::Of { sequence, .. } if sequence < expected => {}
                Sector::Of { sequence, .. } if sequence == expected => torn.push(sector),
                Sector::Of { .. } => {
                    let what = format!("frame {expected} is missing before a later one");
                    return Err(StoreError::damaged(name(self.segment.number), what));
                }
                Sector::Bad => {
                    let what = format!("sector {sector} is damaged");
                    return Err(StoreError::damaged(name(self.segment.number), what));
                }
            }
        }
        Ok(torn)
    }
}
