//! The bytes of a normal log entry: a batch of records that were proposed
//! together. Owns their encoding and its bounds; who waits for which record is
//! known only to the proposer and never encoded.
//!
//! ```text
//! 0   1   format, 1
//! 1   ..  records, one CBOR item each, at most ENTRY_RECORDS_MAX, to the end
//! ```
//! The entry that a leader begins its term with is empty, without the format byte.

use crate::limits::{ENTRY_RECORDS_MAX, LOG_BATCH_MAX};
use crate::namespace::record::Record;

const FORMAT: u8 = 1;

/// Records that become one entry, and who waits for each.
#[derive(Debug, Default)]
pub(super) struct Group {
    data: Vec<u8>,
    records: Vec<(Option<u64>, Record)>,
}

impl Group {
    /// Whether another record belongs in the next group.
    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= ENTRY_RECORDS_MAX || self.data.len() >= LOG_BATCH_MAX
    }

    /// Adds a record.
    pub(super) fn push(&mut self, ticket: Option<u64>, record: Record) {
        assert!(!self.is_full(), "a full group takes no more");
        if self.data.is_empty() {
            self.data.push(FORMAT);
        }
        minicbor::encode(&record, &mut self.data).expect("writing to memory does not fail");
        self.records.push((ticket, record));
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> usize {
        self.data.len()
    }

    /// How many records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The entry's bytes, and the records with their tickets.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<(Option<u64>, Record)>) {
        (self.data, self.records)
    }
}

/// Why an entry does not decode: it was written by a newer version, or by a bug.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EntryError {
    /// The format byte is unknown.
    #[error("unknown format {0} of an entry")]
    Format(u8),
    /// There are more records than an entry may have.
    #[error("an entry of more than {ENTRY_RECORDS_MAX} records")]
    Records,
    /// A record does not decode.
    #[error("a record does not decode: {0}")]
    Record(String),
}

/// The records of an entry's bytes, in order.
///
/// # Errors
/// When they are not what [`Group`] writes.
pub fn decode_entry(data: &[u8]) -> Result<Vec<Record>, EntryError> {
    let Some((&format, body)) = data.split_first() else {
        return Ok(Vec::new());
    };
    if format != FORMAT {
        return Err(EntryError::Format(format));
    }
    let mut decoder = minicbor::Decoder::new(body);
    let mut records = Vec::new();
    while decoder.position() < body.len() {
        if records.len() == ENTRY_RECORDS_MAX {
            return Err(EntryError::Records);
        }
        let record = decoder.decode();
        records.push(record.map_err(|error| EntryError::Record(error.to_string()))?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::namespace::record::RecordBody;
    use crate::time::Timestamp;

    fn record(session: u64) -> Record {
        Record {
            time: Timestamp::default(),
            body: RecordBody::EndSession {
                session: SessionId(session),
            },
        }
    }

    #[test]
    fn a_group_comes_back_in_order() {
        let mut group = Group::default();
        for session in 0..5 {
            group.push(Some(session), record(session));
        }
        let (data, records) = group.into_parts();
        let wanted: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
        assert_eq!(decode_entry(&data), Ok(wanted));
    }

    #[test]
    fn an_empty_entry_has_no_records() {
        assert_eq!(decode_entry(&[]), Ok(Vec::new()));
    }

    #[test]
    fn strange_bytes_are_refused() {
        assert_eq!(decode_entry(&[9, 1]), Err(EntryError::Format(9)));
        assert!(matches!(
            decode_entry(&[FORMAT, 0xff]),
            Err(EntryError::Record(_))
        ));
        let mut data = vec![FORMAT];
        for _ in 0..=ENTRY_RECORDS_MAX {
            minicbor::encode(record(1), &mut data).expect("memory");
        }
        assert_eq!(decode_entry(&data), Err(EntryError::Records));
    }

    #[test]
    fn a_group_fills_up() {
        let mut group = Group::default();
        while !group.is_full() {
            group.push(None, record(1));
        }
        assert_eq!(group.len(), ENTRY_RECORDS_MAX);
    }
}
