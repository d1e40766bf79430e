//! The part table: every committed part at a checkpoint, in one file.
//!
//! Owns encoding and checking; the file is drawn in the parent module.
//! Invariant: a table is used whole or not at all.

use super::StoreError;
use super::format::{FORMAT, FormatError, PartHeader, RUN_SIZE, Reader, RecordKind, checked};
use super::journal::{Mark, Position};
use super::part::{Part, Slots};
use crate::ids::PartId;
use crate::limits::BLOCKS_PER_CHUNK;
use crate::vfs::{Vfs, VfsResult};
use std::collections::BTreeMap;

pub(super) const HEADER_SIZE: usize = 64;
const PIECE_HEADER: usize = 16;
const MAGIC: [u8; 8] = *b"ANTTABL1";
const LAST: u32 = 1 << 31;
/// Bytes of content after which a piece is full; with one more part at most it
/// stays below the bound that a reader accepts.
pub(super) const PIECE_FULL: usize = 64 << 10;
const PIECE_MAX: usize = PIECE_FULL + super::format::HEADER_SIZE + 1024 * RUN_SIZE;

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
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode_header(bytes: &[u8]) -> Result<Mark, FormatError> {
    let mut reader = Reader::new(checked(bytes)?);
    if reader.bytes(8)? != MAGIC {
        return Err(FormatError::Magic);
    }
    let format = reader.u32()?;
    if format != FORMAT {
        return Err(FormatError::Format(format));
    }
    reader.u32()?;
    Ok(Mark {
        sequence: reader.u64()?,
        position: Position {
            segment: reader.u64()?,
            sector: reader.u32()?,
        },
    })
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
        let runs = runs(&part.slots);
        let header = PartHeader {
            part: id,
            version,
            epoch,
            count: u32::try_from(runs.len()).expect("a chunk has 1024 blocks"),
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
    let mark = match decode_header(&header) {
        Ok(mark) => mark,
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
    let mut slots = Slots::default();
    for _ in 0..header.count {
        let (block, length, slot) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let end = u32::from(block) + u32::from(length);
        if end > BLOCKS_PER_CHUNK || slot.checked_add(end).is_none() {
            return Err(FormatError::Field("run"));
        }
        for (block, slot) in (block..block + length).zip(slot..) {
            slots.set(block, slot);
        }
    }
    let part = Part {
        version: header.version,
        epoch: header.epoch,
        stripe: header.stripe,
        slots,
        ..Part::default()
    };
    Ok((header.part, part))
}
