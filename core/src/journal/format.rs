//! The bytes of a log segment.
//!
//! ```text
//! file "log-SSSSSSSSSSSSSSSS" (the sequence number in hex): a header in the first
//! BLOCK bytes, then batches, each from a multiple of BLOCK on; little-endian.
//!
//! header
//! 0   8   magic "ANTLRLOG"
//! 8   4   format version, 1
//! 12  4   zero
//! 16  8   cluster
//! 24  8   member
//! 32  8   sequence number of the segment
//! 40  20  zero
//! 60  4   CRC-32 of the 60 bytes before
//!
//! batch: what one append wrote, with one write and one sync
//! 0   4   magic "BTCH"
//! 4   4   bytes of the body
//! 8   8   sequence number of the segment
//! 16  8   life: how often the log was opened
//! 24  8   number of the batch, counted over the whole log
//! 32  8   link: the two checksums of the batch before (0 for the first)
//! 40  4   records in the body
//! 44  12  zero
//! 56  4   CRC-32 of the body
//! 60  4   CRC-32 of the 60 bytes before
//! 64  ..  the body: records
//!
//! record
//! 0   4   bytes of the data
//! 4   1   kind: 1 entry, 2 hard state, 3 continues, 4 anew, 5 members
//! 5   1   of an entry: Raft's type
//! 6   2   zero
//! 8   8   a position (entry, continues, anew), or the hard state's term
//! 16  8   a term (entry, continues, anew), or the hard state's vote
//! 24  ..  the data: an entry's; the hard state's commit position (8 bytes); for
//!         members two CBOR arrays of numbers, voters and learners
//! ```
//!
//! A batch is known for what it is by sequence, life, number and link together:
//! bytes of an older use of a file differ in the sequence number, bytes that an
//! earlier life left unsynced in the life.

use super::operation::{HardState, LogEntry};
use crate::ids::{ClusterId, LogPosition, MemberId, Term};
use bytes::Bytes;

/// Batches begin at multiples of this, so that a torn write never touches the
/// blocks of a batch that was synced before.
pub(super) const BLOCK: usize = 4096;
pub(super) const VERSION: u32 = 1;
const BATCH_HEADER: usize = 64;
const RECORD_HEADER: usize = 24;
const SEGMENT_MAGIC: &[u8; 8] = b"ANTLRLOG";
const BATCH_MAGIC: &[u8; 4] = b"BTCH";
/// Raft's types of entry that are ever stored.
const ENTRY_KINDS: std::ops::RangeInclusive<u8> = 0..=1;

/// A segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) cluster: ClusterId,
    pub(super) member: MemberId,
    pub(super) sequence: u64,
}

/// What the first block of a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderRead {
    Header(SegmentHeader),
    /// It is ours, of a format that this program does not know.
    Version(u32),
    /// It is nothing, or damaged.
    Nothing,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[..8].copy_from_slice(SEGMENT_MAGIC);
        put_u32(&mut block, 8, VERSION);
        put_u64(&mut block, 16, self.cluster.0);
        put_u64(&mut block, 24, self.member.0);
        put_u64(&mut block, 32, self.sequence);
        let checksum = crc32fast::hash(&block[..60]);
        put_u32(&mut block, 60, checksum);
        block
    }

    pub(super) fn decode(block: &[u8]) -> HeaderRead {
        let Some(block) = block.get(..64) else {
            return HeaderRead::Nothing;
        };
        if block[..8] != *SEGMENT_MAGIC || crc32fast::hash(&block[..60]) != get_u32(block, 60) {
            return HeaderRead::Nothing;
        }
        if get_u32(block, 8) != VERSION {
            return HeaderRead::Version(get_u32(block, 8));
        }
        HeaderRead::Header(Self {
            cluster: ClusterId(get_u64(block, 16)),
            member: MemberId(get_u64(block, 24)),
            sequence: get_u64(block, 32),
        })
    }
}

/// The file of a segment.
pub(super) fn segment_name(sequence: u64) -> String {
    format!("log-{sequence:016x}")
}

/// The sequence number in a file's name, if it is a segment's.
pub(super) fn segment_sequence(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?;
    let well_formed = digits.len() == 16 && digits == digits.to_ascii_lowercase();
    well_formed.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Which batch it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchId {
    pub(super) sequence: u64,
    pub(super) life: u64,
    pub(super) number: u64,
    pub(super) link: u64,
}

/// A checked header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    pub(super) id: BatchId,
    pub(super) body: usize,
    records: u32,
    body_checksum: u32,
    own_checksum: u32,
}

impl BatchHeader {
    /// The header at the beginning of `bytes`, if one is there and whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..BATCH_HEADER)?;
        let own_checksum = get_u32(bytes, 60);
        if bytes[..4] != *BATCH_MAGIC || crc32fast::hash(&bytes[..60]) != own_checksum {
            return None;
        }
        Some(Self {
            id: BatchId {
                sequence: get_u64(bytes, 8),
                life: get_u64(bytes, 16),
                number: get_u64(bytes, 24),
                link: get_u64(bytes, 32),
            },
            body: get_u32(bytes, 4) as usize,
            records: get_u32(bytes, 40),
            body_checksum: get_u32(bytes, 56),
            own_checksum,
        })
    }

    /// The body behind this header in `bytes`, if it is whole.
    pub(super) fn body<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let body = bytes.get(BATCH_HEADER..)?.get(..self.body)?;
        (crc32fast::hash(body) == self.body_checksum).then_some(body)
    }

    /// What the next batch names as its link.
    pub(super) fn own_link(&self) -> u64 {
        u64::from(self.own_checksum) << 32 | u64::from(self.body_checksum)
    }

    /// Bytes that the batch takes in its segment.
    pub(super) fn extent(&self) -> usize {
        (BATCH_HEADER + self.body).next_multiple_of(BLOCK)
    }

    /// The records of a whole body.
    pub(super) fn records(&self, body: &[u8]) -> Option<Vec<LogRecord>> {
        let mut rest = body;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (record, behind) = LogRecord::decode(rest)?;
            records.push(record);
            rest = behind;
        }
        (records.len() == self.records as usize).then_some(records)
    }
}

/// One record of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LogRecord {
    /// An entry; it cuts off what is at or behind its position.
    Entry(LogEntry),
    /// Replaces the hard state.
    Hard(HardState),
    /// The log's last position and its term, where a segment or a life begins.
    Continues(LogPosition, Term),
    /// The log is empty and goes on behind this position, which an image covers.
    Anew(LogPosition, Term),
    /// The group as it was founded.
    Members(Vec<u64>, Vec<u64>),
}

impl LogRecord {
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let head = bytes.get(..RECORD_HEADER)?;
        let rest = &bytes[RECORD_HEADER..];
        let length = get_u32(head, 0) as usize;
        let (data, behind) = (rest.get(..length)?, rest.get(length..)?);
        let (first, second) = (get_u64(head, 8), get_u64(head, 16));
        let (position, term) = (LogPosition(first), Term(second));
        let record = match head[4] {
            1 => Self::Entry(LogEntry {
                position,
                term,
                kind: Some(head[5]).filter(|kind| ENTRY_KINDS.contains(kind))?,
                data: Bytes::copy_from_slice(data),
            }),
            2 => Self::Hard(HardState {
                term: Term(first),
                vote: second,
                commit: LogPosition(u64::from_le_bytes(data.try_into().ok()?)),
            }),
            3 => Self::Continues(position, term),
            4 => Self::Anew(position, term),
            5 => {
                let (voters, learners) = minicbor::decode(data).ok()?;
                Self::Members(voters, learners)
            }
            _ => return None,
        };
        Some((record, behind))
    }
}

/// Assembles one batch in a buffer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct BatchBuilder {
    bytes: Vec<u8>,
    records: u32,
}

impl BatchBuilder {
    /// Begins a new batch.
    pub(super) fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER, 0);
        self.records = 0;
    }

    pub(super) fn entry(&mut self, entry: &LogEntry) {
        assert!(
            ENTRY_KINDS.contains(&entry.kind),
            "only what recovery reads is written"
        );
        let (first, second) = (entry.position.0, entry.term.0);
        self.record([1, entry.kind], first, second, &entry.data);
    }

    pub(super) fn hard(&mut self, hard: &HardState) {
        let commit = hard.commit.0.to_le_bytes();
        self.record([2, 0], hard.term.0, hard.vote, &commit);
    }

    pub(super) fn continues(&mut self, position: LogPosition, term: Term) {
        self.record([3, 0], position.0, term.0, &[]);
    }

    pub(super) fn anew(&mut self, position: LogPosition, term: Term) {
        self.record([4, 0], position.0, term.0, &[]);
    }

    pub(super) fn members(&mut self, voters: &[u64], learners: &[u64]) {
        let data = minicbor::to_vec((voters, learners)).expect("writing to memory does not fail");
        self.record([5, 0], 0, 0, &data);
    }

    fn record(&mut self, kinds: [u8; 2], first: u64, second: u64, data: &[u8]) {
        let length = u32::try_from(data.len()).expect("an entry is bounded by LOG_BATCH_MAX");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend([kinds[0], kinds[1], 0, 0]);
        self.bytes.extend(first.to_le_bytes());
        self.bytes.extend(second.to_le_bytes());
        self.bytes.extend(data);
        self.records += 1;
    }

    /// Bytes that a batch with this much data and this many records takes.
    pub(super) fn extent(data: usize, records: usize) -> usize {
        (BATCH_HEADER + records * RECORD_HEADER + data).next_multiple_of(BLOCK)
    }

    /// Whole blocks to write, and the header they begin with.
    pub(super) fn finish(&mut self, id: BatchId) -> (&[u8], BatchHeader) {
        let body = self.bytes.len() - BATCH_HEADER;
        let body_checksum = crc32fast::hash(&self.bytes[BATCH_HEADER..]);
        let head = &mut self.bytes;
        head[..4].copy_from_slice(BATCH_MAGIC);
        put_u32(
            head,
            4,
            u32::try_from(body).expect("a batch is far below 4 GiB"),
        );
        put_u64(head, 8, id.sequence);
        put_u64(head, 16, id.life);
        put_u64(head, 24, id.number);
        put_u64(head, 32, id.link);
        put_u32(head, 40, self.records);
        put_u32(head, 56, body_checksum);
        let own_checksum = crc32fast::hash(&head[..60]);
        put_u32(head, 60, own_checksum);
        self.bytes
            .resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        let header = BatchHeader {
            id,
            body,
            records: self.records,
            body_checksum,
            own_checksum,
        };
        (&self.bytes, header)
    }
}

pub(super) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: BatchId = BatchId {
        sequence: 3,
        life: 2,
        number: 9,
        link: 77,
    };

    fn records() -> Vec<LogRecord> {
        vec![
            LogRecord::Continues(LogPosition(8), Term(1)),
            LogRecord::Hard(HardState {
                term: Term(2),
                vote: 1,
                commit: LogPosition(7),
            }),
            LogRecord::Entry(LogEntry {
                position: LogPosition(9),
                term: Term(2),
                kind: 1,
                data: Bytes::from(vec![5; 5000]),
            }),
            LogRecord::Anew(LogPosition(20), Term(2)),
            LogRecord::Members(vec![1, 2, 3], vec![4]),
        ]
    }

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        builder.begin();
        for record in records() {
            match record {
                LogRecord::Entry(entry) => builder.entry(&entry),
                LogRecord::Hard(hard) => builder.hard(&hard),
                LogRecord::Continues(position, term) => builder.continues(position, term),
                LogRecord::Anew(position, term) => builder.anew(position, term),
                LogRecord::Members(voters, learners) => builder.members(&voters, &learners),
            }
        }
        builder.finish(ID).0.to_vec()
    }

    #[test]
    fn a_batch_comes_back() {
        let bytes = batch();
        let header = BatchHeader::decode(&bytes).expect("it is whole");
        assert_eq!((header.id, header.extent()), (ID, bytes.len()));
        let body = header.body(&bytes).expect("it is whole");
        assert_eq!(header.records(body), Some(records()));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let whole = batch();
        let length = BATCH_HEADER + BatchHeader::decode(&whole).expect("whole").body;
        for at in 0..length {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            let body = BatchHeader::decode(&bytes).and_then(|header| {
                let body = header.body(&bytes)?.len();
                Some(body)
            });
            assert_eq!(body, None, "the byte at {at}");
        }
    }

    #[test]
    fn a_header_names_its_segment() {
        let header = SegmentHeader {
            cluster: ClusterId(5),
            member: MemberId(2),
            sequence: 0xabc,
        };
        let block = header.encode();
        assert_eq!(SegmentHeader::decode(&block), HeaderRead::Header(header));
        assert_eq!(segment_sequence(&segment_name(0xabc)), Some(0xabc));
        assert_eq!(segment_sequence("log-1"), None);
        let mut newer = block;
        put_u32(&mut newer, 8, 2);
        let checksum = crc32fast::hash(&newer[..60]);
        put_u32(&mut newer, 60, checksum);
        assert_eq!(SegmentHeader::decode(&newer), HeaderRead::Version(2));
    }
}
