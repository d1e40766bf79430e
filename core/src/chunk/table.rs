//! The part table: every committed part at a checkpoint, in one file.
//!
//! Owns encoding and checking; the file is drawn in the parent module.
//! Invariant: a table is used whole or not at all.

use super::StoreError;
use super::format::{FORMAT, FormatError, PartHeader, RUN_SIZE, Reader, RecordKind, checked};
use super::journal::{Mark, Position};
use super::part::{Part, Slots, Units};
use crate::ids::PartId;
use crate::limits::BLOCKS_PER_CHUNK;
use crate::vfs::{Vfs, VfsResult};
use std::collections::BTreeMap;

pub(super) const HEADER_SIZE: usize = 64;
const PIECE_HEADER: usize = 16;
const MAGIC: [u8; 8] = *b"ANTTABL1";
const LAST: u32 = 1 << 31;
/// The table says which units blocks have. One that was written before that was done does
/// not; who reads both passes over runs of no blocks.
const UNITS_TOLD: u32 = 1;
/// Bytes of content after which a piece is full; with one more part at most it
/// stays below the bound that a reader accepts.
pub(super) const PIECE_FULL: usize = 64 << 10;
/// Runs of a part, and blocks that lack units, at most.
const LINES_MAX: usize = BLOCKS_PER_CHUNK as usize;
/// Says of a part, in place of the blocks that lack units, that they are not known. A part
/// that has no room for it says so too.
const UNTOLD: (u16, u16, u32) = (0, 0, 0);
const PIECE_MAX: usize = PIECE_FULL + super::format::HEADER_SIZE + LINES_MAX * RUN_SIZE;

pub(super) fn name(sequence: u64) -> String {
    format!("table-{sequence}")
}

/// The number in a table's name.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("table-")?.parse().ok()
}

pub(super) fn encode_header(mark: Mark) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&mark.sequence.to_le_bytes());
    bytes[24..32].copy_from_slice(&mark.position.segment.to_le_bytes());
    bytes[32..36].copy_from_slice(&mark.position.sector.to_le_bytes());
    bytes[36..40].copy_from_slice(&UNITS_TOLD.to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The mark, and whether the units of blocks are told.
fn decode_header(bytes: &[u8]) -> Result<(Mark, bool), FormatError> {
    let mut reader = Reader::new(checked(bytes)?);
    if reader.bytes(8)? != MAGIC {
        return Err(FormatError::Magic);
    }
    let format = reader.u32()?;
    if format != FORMAT {
        return Err(FormatError::Format(format));
    }
    reader.u32()?;
    let mark = Mark {
        sequence: reader.u64()?,
        position: Position {
            segment: reader.u64()?,
            sector: reader.u32()?,
        },
    };
    Ok((mark, reader.u32()? == UNITS_TOLD))
}

/// A piece of a table that is being filled.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Vec<u8>,
    parts: u32,
}

impl Piece {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; PIECE_HEADER],
            parts: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= PIECE_HEADER + PIECE_FULL
    }

    /// Takes a part in as its last commit has it.
    pub(super) fn push(&mut self, id: PartId, part: &Part) {
        let Some((version, epoch)) = part.durable() else {
            return;
        };
        let runs = lines(part);
        let header = PartHeader {
            part: id,
            version,
            epoch,
            count: u32::try_from(runs.len()).expect("at most 1024"),
            kind: RecordKind::Change,
            stripe: part.stripe,
        };
        header.encode(&mut self.bytes);
        for (block, length, slot) in runs {
            self.bytes.extend(block.to_le_bytes());
            self.bytes.extend(length.to_le_bytes());
            self.bytes.extend(slot.to_le_bytes());
        }
        self.parts += 1;
    }

    /// The piece as it is written.
    pub(super) fn finish(mut self, sequence: u64, index: u32, last: bool) -> Vec<u8> {
        let content = u32::try_from(self.bytes.len() - PIECE_HEADER).expect("pieces are small");
        let index = index | if last { LAST } else { 0 };
        self.bytes[..4].copy_from_slice(&content.to_le_bytes());
        self.bytes[4..8].copy_from_slice(&index.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&self.parts.to_le_bytes());
        let checksum = checksum(sequence, &self.bytes[..12], &self.bytes[PIECE_HEADER..]);
        self.bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

fn checksum(sequence: u64, header: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&sequence.to_le_bytes());
    hasher.update(header);
    hasher.update(content);
    hasher.finalize()
}

/// What a table says of a part: the runs of its blocks, then the blocks that lack units,
/// if there is room for all of that.
fn lines(part: &Part) -> Vec<(u16, u16, u32)> {
    let mut lines = runs(&part.slots);
    let partial = part.units.partial().iter();
    let partial = partial.map(|(block, present)| (*block, 0, u32::from(*present)));
    let is_told = part.units != Units::Untold && lines.len() + partial.len() <= LINES_MAX;
    match is_told {
        true => lines.extend(partial),
        false if lines.len() < LINES_MAX => lines.push(UNTOLD),
        false => {}
    }
    lines
}

/// Runs of consecutive blocks in consecutive slots.
fn runs(slots: &Slots) -> Vec<(u16, u16, u32)> {
    let mut runs: Vec<(u16, u16, u32)> = Vec::new();
    for (block, slot) in slots.iter() {
        match runs.last_mut() {
            Some((first, length, start))
                if *first + *length == block && *start + u32::from(*length) == slot =>
            {
                *length += 1;
            }
            _ => runs.push((block, 1, slot)),
        }
    }
    runs
}

/// A table as it was read.
pub(super) struct Table {
    pub(super) mark: Mark,
    pub(super) parts: BTreeMap<PartId, Part>,
    pub(super) bytes: u64,
}

/// Reads a table whole.
pub(super) fn read<V: Vfs>(vfs: &mut V, file_name: &str) -> Result<Table, StoreError> {
    let file = vfs.open(file_name)?;
    let bytes = vfs.len(file)?;
    let parts = read_pieces(vfs, file, bytes)?;
    vfs.close(file);
    let (mark, parts) = parts.map_err(|error| StoreError::damaged(file_name, error))?;
    if name(mark.sequence) != file_name {
        return Err(StoreError::damaged(
            file_name,
            FormatError::Field("sequence"),
        ));
    }
    Ok(Table { mark, parts, bytes })
}

type Content = Result<(Mark, BTreeMap<PartId, Part>), FormatError>;

fn read_pieces<V: Vfs>(vfs: &mut V, file: crate::vfs::FileId, bytes: u64) -> VfsResult<Content> {
    let mut header = [0; HEADER_SIZE];
    vfs.read_at(file, 0, &mut header)?;
    let (mark, is_told) = match decode_header(&header) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let mut parts = BTreeMap::new();
    let mut offset = HEADER_SIZE as u64;
    let mut buffer = vec![0; PIECE_HEADER + PIECE_MAX];
    for index in 0.. {
        let got = vfs.read_at(file, offset, &mut buffer)?;
        match read_piece(&buffer[..got], mark.sequence, index, &mut parts) {
            Err(error) => return Ok(Err(error)),
            Ok((length, last)) => {
                offset += length as u64;
                if last {
                    break;
                }
            }
        }
    }
    if !is_told {
        parts
            .values_mut()
            .for_each(|part: &mut Part| part.units = Units::Untold);
    }
    Ok(match offset == bytes {
        true => Ok((mark, parts)),
        false => Err(FormatError::Field("length")),
    })
}

/// Reads a piece; returns its length and whether it is the last.
fn read_piece(
    bytes: &[u8],
    sequence: u64,
    index: u32,
    parts: &mut BTreeMap<PartId, Part>,
) -> Result<(usize, bool), FormatError> {
    let mut reader = Reader::new(bytes);
    let header = reader.bytes(12)?;
    let stored = reader.u32()?;
    let mut fields = Reader::new(header);
    let (length, tag, count) = (fields.u32()? as usize, fields.u32()?, fields.u32()?);
    let content = reader.bytes(length)?;
    if checksum(sequence, header, content) != stored {
        return Err(FormatError::Checksum);
    }
    if tag & !LAST != index {
        return Err(FormatError::Field("index"));
    }
    let mut reader = Reader::new(content);
    for _ in 0..count {
        let (id, part) = read_part(&mut reader)?;
        if parts.insert(id, part).is_some() {
            return Err(FormatError::Field("part"));
        }
    }
    match reader.is_empty() {
        true => Ok((PIECE_HEADER + length, tag & LAST != 0)),
        false => Err(FormatError::Field("parts")),
    }
}

fn read_part(reader: &mut Reader<'_>) -> Result<(PartId, Part), FormatError> {
    let header = PartHeader::decode(reader)?;
    let mut part = Part {
        version: header.version,
        epoch: header.epoch,
        stripe: header.stripe,
        ..Part::default()
    };
    let mut is_told = (header.count as usize) < LINES_MAX;
    for _ in 0..header.count {
        let line = (reader.u16()?, reader.u16()?, reader.u32()?);
        match line {
            UNTOLD => part.units = Units::Untold,
            (_, 0, _) => is_told |= read_units(&mut part, line)?,
            _ => read_run(&mut part, line)?,
        }
    }
    if !is_told {
        part.units = Units::Untold;
    }
    Ok((header.part, part))
}

/// Some blocks in consecutive slots.
fn read_run(part: &mut Part, (block, length, slot): (u16, u16, u32)) -> Result<(), FormatError> {
    let end = u32::from(block) + u32::from(length);
    if end > BLOCKS_PER_CHUNK || slot.checked_add(end).is_none() {
        return Err(FormatError::Field("run"));
    }
    for (block, slot) in (block..block + length).zip(slot..) {
        part.slots.set(block, slot);
    }
    Ok(())
}

/// The units of a block that lacks some. It tells that the part's are told.
fn read_units(part: &mut Part, (block, _, present): (u16, u16, u32)) -> Result<bool, FormatError> {
    let present = u16::try_from(present).map_err(|_| FormatError::Field("units"))?;
    if part.slots.at(block).is_none() {
        return Err(FormatError::Field("units"));
    }
    part.units.set(block, present);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChunkId, ChunkVersion};

    fn read_back(part: &Part) -> Part {
        let id = PartId::whole(ChunkId(7));
        let mut piece = Piece::new();
        piece.push(id, part);
        let bytes = piece.finish(3, 0, true);
        let mut parts = BTreeMap::new();
        assert_eq!(
            read_piece(&bytes, 3, 0, &mut parts),
            Ok((bytes.len(), true))
        );
        parts.remove(&id).expect("it was put there")
    }

    /// A part whose blocks lie apart from each other.
    fn scattered(blocks: u16, present: impl Fn(u16) -> u16) -> Part {
        let mut part = Part {
            version: ChunkVersion(1),
            ..Part::default()
        };
        for block in 0..blocks {
            part.place(block, 2 * u32::from(block), present(block));
        }
        part
    }

    #[test]
    fn what_blocks_have_comes_back_as_far_as_there_is_room() {
        let some = |block| if block % 3 == 0 { 5 } else { u16::MAX };
        for blocks in [1, 2, 500, 767] {
            let part = scattered(blocks, some);
            let back = read_back(&part);
            assert_eq!(
                (back.slots, back.units),
                (part.slots, part.units),
                "{blocks}"
            );
        }
        for blocks in [800, 1023, 1024] {
            let part = scattered(blocks, some);
            let back = read_back(&part);
            assert_eq!(
                (back.slots, back.units),
                (part.slots, Units::Untold),
                "{blocks}"
            );
        }
        let part = scattered(900, |_| u16::MAX);
        assert_eq!(read_back(&part).units, Units::All);
        let part = Part {
            units: Units::Untold,
            ..part
        };
        assert_eq!(read_back(&part).units, Units::Untold);
    }
}
