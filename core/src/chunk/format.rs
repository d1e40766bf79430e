//! The bytes of a chunkserver's disk, field by field, and nothing else: what
//! they mean together is told in the parent module. All numbers are little
//! endian; every structure carries a CRC-32 (IEEE) of its own.
//!
//! `disk`, the identity, 64 bytes, written once under another name and renamed:
//! ```text
//! 0   8  "ANTDISK1"            32  8  disk id
//! 8   4  format, 1             40  4  slots in a slot file
//! 12  4  bytes of a segment    44  16 zero
//! 16  8  cluster id            60  4  CRC of the 60 bytes before
//! 24  8  server id
//! ```
//! `slots-<k>`: slots of 64 KiB, sparse. Nothing but content.
//!
//! `units-<k>`, the slot table: for each slot of `slots-<k>` 128 bytes, so that
//! none crosses a 512-byte sector:
//! ```text
//! 0   4  slot                  16  2  block
//! 4   1  part                  18  2  present units, one bit each
//! 5   3  zero                  20 64  CRC of each unit (0 where absent)
//! 8   8  chunk                 84 40  zero (per-unit trailers, later)
//!                             124  4  CRC of the 124 bytes before
//! ```
//! A part's header, 56 bytes, in the part table and in the journal:
//! ```text
//! 0   8  chunk                 24  8  key id (0: not encrypted)
//! 8   1  part                  32  8  version
//! 9   1  trailer algorithm (0) 40  8  epoch
//! 10  2  trailer bytes a unit  48  4  count: blocks, or runs of blocks
//! 12  4  index in the file     52  1  kind (journal), else 0
//! 16  8  inode (0: not known)  53  2  data and parity parts of its stripe, 1 each
//!                              55  1  zero
//! ```
//! A whole copy is part 0 and has 0+0 there. A part of a stripe numbers from 1, data
//! parts first, so the header alone says what it is; `geometry` draws its content.
//!
//! In the part table runs of 8 bytes follow: block 2, blocks 2, first slot 4. A run of 0
//! blocks says, in place of a slot, which units the block has; blocks of which none does
//! have all. If it says none at all, or there is no room for one more (1024), it is not known
//! which units the part's blocks have. So a line of the slot table that was written
//! elsewhere, and left its forerunner, is found.
//! In the journal blocks follow:
//! ```text
//! 0   2  block
//! 2   2  present units
//! 4   4  slot, 0xffffffff if no unit is present
//! 8   2  embedded units: their content follows, to be written in place
//! 10  2  straight units: new content that was in the slot before this record
//! 12 ..  CRC of each present unit, 4 each
//! ..  .. each embedded unit: length 2, bytes (zeros up to 4096 follow)
//! ```

use super::geometry::StripeShape;
use crate::ids::{ChunkId, ChunkVersion, ClusterId, DiskId, Epoch, PartId, ServerId};
use crate::limits::{BLOCKS_PER_CHUNK, UNIT_SIZE, UNITS_PER_BLOCK};

/// The version of everything drawn here.
pub(super) const FORMAT: u32 = 1;
/// No slot.
pub(super) const NO_SLOT: u32 = u32::MAX;
/// Bytes of the identity.
pub(super) const IDENTITY_SIZE: usize = 64;
/// Bytes of a slot's entry in the slot table.
pub(super) const ENTRY_SIZE: usize = 128;
/// Bytes of a part's header.
pub(super) const HEADER_SIZE: usize = 56;
/// Bytes of a run of blocks in the part table.
pub(super) const RUN_SIZE: usize = 8;

const IDENTITY_MAGIC: [u8; 8] = *b"ANTDISK1";

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum FormatError {
    /// They end too early.
    #[error("it ends too early")]
    Short,
    /// A checksum is wrong.
    #[error("a checksum is wrong")]
    Checksum,
    /// It is something else.
    #[error("it is not what it should be")]
    Magic,
    /// It has a format that this version does not know.
    #[error("its format {0} is not known")]
    Format(u32),
    /// A field is out of its range, or a reserved one is in use.
    #[error("its field `{0}` is out of range")]
    Field(&'static str),
}

/// Reads numbers from bytes, every length checked.
pub(super) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'b [u8], FormatError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(FormatError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn zeros(&mut self, count: usize) -> Result<(), FormatError> {
        match self.bytes(count)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(FormatError::Field("reserved")),
        }
    }
}

/// Splits off a CRC at the end and checks it.
pub(super) fn checked(bytes: &[u8]) -> Result<&[u8], FormatError> {
    let split = bytes.len().checked_sub(4).ok_or(FormatError::Short)?;
    let (body, stored) = bytes.split_at(split);
    match crc32fast::hash(body).to_le_bytes() == stored {
        true => Ok(body),
        false => Err(FormatError::Checksum),
    }
}

/// Whose disk it is and how it is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) cluster: ClusterId,
    pub(super) server: ServerId,
    pub(super) disk: DiskId,
    pub(super) slots_per_file: u32,
    pub(super) segment_size: u32,
}

impl Identity {
    pub(super) fn encode(&self) -> [u8; IDENTITY_SIZE] {
        let mut bytes = [0; IDENTITY_SIZE];
        bytes[..8].copy_from_slice(&IDENTITY_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.segment_size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.server.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.disk.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.slots_per_file.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(checked(bytes)?);
        if reader.bytes(8)? != IDENTITY_MAGIC {
            return Err(FormatError::Magic);
        }
        let format = reader.u32()?;
        if format != FORMAT {
            return Err(FormatError::Format(format));
        }
        let segment_size = reader.u32()?;
        let identity = Self {
            segment_size,
            cluster: ClusterId(reader.u64()?),
            server: ServerId(reader.u64()?),
            disk: DiskId(reader.u64()?),
            slots_per_file: reader.u32()?,
        };
        reader.zeros(16)?;
        identity.check()
    }

    fn check(self) -> Result<Self, FormatError> {
        if self.slots_per_file == 0 {
            return Err(FormatError::Field("slots in a file"));
        }
        if !self.segment_size.is_multiple_of(512) || self.segment_size < 4096 {
            return Err(FormatError::Field("bytes of a segment"));
        }
        Ok(self)
    }
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) part: PartId,
    pub(super) block: u16,
    pub(super) present: u16,
    pub(super) checksums: [u32; UNITS_PER_BLOCK],
}

impl Entry {
    pub(super) fn encode(&self, slot: u32, bytes: &mut [u8; ENTRY_SIZE]) {
        bytes.fill(0);
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        bytes[4] = self.part.part;
        bytes[8..16].copy_from_slice(&self.part.chunk.0.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.block.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.present.to_le_bytes());
        for unit in units_of(self.present) {
            let at = 20 + unit * 4;
            bytes[at..at + 4].copy_from_slice(&self.checksums[unit].to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..124]);
        bytes[124..].copy_from_slice(&checksum.to_le_bytes());
    }

    pub(super) fn decode(slot: u32, bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::new(checked(bytes)?);
        if reader.u32()? != slot {
            return Err(FormatError::Field("slot"));
        }
        let part = reader.u8()?;
        reader.zeros(3)?;
        let chunk = ChunkId(reader.u64()?);
        let (block, present) = (reader.u16()?, reader.u16()?);
        let mut checksums = [0; UNITS_PER_BLOCK];
        for checksum in &mut checksums {
            *checksum = reader.u32()?;
        }
        reader.zeros(40)?;
        let part = PartId { chunk, part };
        Ok(Self {
            part,
            block,
            present,
            checksums,
        })
    }
}

/// The units whose bits are set, in order.
pub(super) fn units_of(bits: u16) -> impl Iterator<Item = usize> {
    (0..UNITS_PER_BLOCK).filter(move |unit| bits >> unit & 1 == 1)
}

/// What a journal record does with a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RecordKind {
    /// Its blocks come to what was there before.
    Change,
    /// What was there before goes first.
    Replace,
    /// The part goes.
    Gone,
}

/// The header of a part in the part table and in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PartHeader {
    pub(super) part: PartId,
    pub(super) version: ChunkVersion,
    pub(super) epoch: Epoch,
    pub(super) count: u32,
    pub(super) kind: RecordKind,
    /// Of what stripe it is a part; `None` for a whole copy.
    pub(super) stripe: Option<StripeShape>,
}

impl PartHeader {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.extend(self.part.chunk.0.to_le_bytes());
        into.push(self.part.part);
        into.extend([0; 23]);
        into.extend(self.version.0.to_le_bytes());
        into.extend(self.epoch.0.to_le_bytes());
        into.extend(self.count.to_le_bytes());
        into.push(match self.kind {
            RecordKind::Change => 0,
            RecordKind::Replace => 1,
            RecordKind::Gone => 2,
        });
        let parts = |shape: StripeShape| [shape.data() as u8, shape.parity() as u8];
        into.extend(self.stripe.map_or([0, 0], parts));
        into.push(0);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, FormatError> {
        let chunk = ChunkId(reader.u64()?);
        let part = reader.u8()?;
        reader.zeros(23)?;
        let (version, epoch) = (ChunkVersion(reader.u64()?), Epoch(reader.u64()?));
        let count = reader.u32()?;
        if count > BLOCKS_PER_CHUNK {
            return Err(FormatError::Field("count"));
        }
        let kind = match reader.u8()? {
            0 => RecordKind::Change,
            1 => RecordKind::Replace,
            2 => RecordKind::Gone,
            _ => return Err(FormatError::Field("kind")),
        };
        let stripe = (reader.u8()?, reader.u8()?);
        reader.zeros(1)?;
        let part = PartId { chunk, part };
        Ok(Self {
            part,
            version,
            epoch,
            count,
            kind,
            stripe: decode_stripe(part, stripe)?,
        })
    }
}

/// The stripe that a part is of, which must have such a part.
fn decode_stripe(part: PartId, stripe: (u8, u8)) -> Result<Option<StripeShape>, FormatError> {
    if stripe == (0, 0) {
        return Ok(None);
    }
    let shape = StripeShape::new(stripe.0, stripe.1).ok();
    let shape = shape.filter(|shape| shape.index_of(part).is_some());
    shape.map(Some).ok_or(FormatError::Field("stripe"))
}

/// A block of a journal record, its embedded content still in the record.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockRecord<'b> {
    pub(super) block: u16,
    pub(super) present: u16,
    pub(super) slot: u32,
    pub(super) embedded: u16,
    pub(super) straight: u16,
    pub(super) checksums: [u32; UNITS_PER_BLOCK],
    content: &'b [u8],
}

impl<'b> BlockRecord<'b> {
    pub(super) fn decode(reader: &mut Reader<'b>) -> Result<Self, FormatError> {
        let (block, present) = (reader.u16()?, reader.u16()?);
        let slot = reader.u32()?;
        let (embedded, straight) = (reader.u16()?, reader.u16()?);
        if u32::from(block) >= BLOCKS_PER_CHUNK {
            return Err(FormatError::Field("block"));
        }
        if (embedded | straight) & !present != 0 || embedded & straight != 0 {
            return Err(FormatError::Field("units"));
        }
        if (slot == NO_SLOT) != (present == 0) {
            return Err(FormatError::Field("slot"));
        }
        let mut checksums = [0; UNITS_PER_BLOCK];
        for unit in units_of(present) {
            checksums[unit] = reader.u32()?;
        }
        let content = Self::skip_content(reader, embedded)?;
        Ok(Self {
            block,
            present,
            slot,
            embedded,
            straight,
            checksums,
            content,
        })
    }

    fn skip_content(reader: &mut Reader<'b>, embedded: u16) -> Result<&'b [u8], FormatError> {
        let whole = reader.0;
        for _ in units_of(embedded) {
            let length = usize::from(reader.u16()?);
            if length > UNIT_SIZE {
                return Err(FormatError::Field("length"));
            }
            reader.bytes(length)?;
        }
        Ok(&whole[..whole.len() - reader.left()])
    }

    /// The embedded units with their content, up to its trailing zeros.
    pub(super) fn embedded_units(&self) -> impl Iterator<Item = (usize, &'b [u8])> {
        let mut reader = Reader::new(self.content);
        units_of(self.embedded).map(move |unit| {
            let length = reader.u16().expect("decode checked the lengths");
            let bytes = reader.bytes(usize::from(length));
            (unit, bytes.expect("decode checked the lengths"))
        })
    }
}

/// Writes a block of a journal record. `content` gives each embedded unit.
pub(super) fn encode_block<'b>(
    into: &mut Vec<u8>,
    block: u16,
    slot: u32,
    present: u16,
    straight: u16,
    checksums: &[u32; UNITS_PER_BLOCK],
    memory: impl Iterator<Item = (usize, &'b [u8])> + Clone,
) {
    let embedded = memory
        .clone()
        .fold(0u16, |bits, (unit, _)| bits | 1 << unit);
    assert!(embedded & straight == 0, "a unit is in one place");
    assert!(
        (embedded | straight) & !present == 0,
        "only present units have content"
    );
    assert!(
        (slot == NO_SLOT) == (present == 0),
        "present units have a slot"
    );
    into.extend(block.to_le_bytes());
    into.extend(present.to_le_bytes());
    into.extend(slot.to_le_bytes());
    into.extend(embedded.to_le_bytes());
    into.extend(straight.to_le_bytes());
    for unit in units_of(present) {
        into.extend(checksums[unit].to_le_bytes());
    }
    for (_, content) in memory {
        let length = trimmed(content);
        into.extend(
            u16::try_from(length)
                .expect("a unit is short")
                .to_le_bytes(),
        );
        into.extend_from_slice(&content[..length]);
    }
}

/// The length of `content` without its trailing zeros.
fn trimmed(content: &[u8]) -> usize {
    let words = content.chunks_exact(16).rev();
    let zeros = words.take_while(|word| **word == [0; 16]).count() * 16;
    let rest = &content[..content.len() - zeros];
    rest.len() - rest.iter().rev().take_while(|byte| **byte == 0).count()
}
