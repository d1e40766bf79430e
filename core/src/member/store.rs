//! What Raft reads: the entries since a recent image, the membership, and which
//! image a member that fell behind would get.
//!
//! Owns the log in memory; its durable twin is `journal::Log`, kept by
//! `super::persist`. Invariant: the entries follow each other without a gap from
//! `first` on, and `before_term` is the term of the position before `first`.

use super::raft_codec::make_snapshot;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;

/// What an entry costs beside its data when a message is filled.
const ENTRY_OVERHEAD: u64 = 32;

/// An image that can be sent.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct StoredImage {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) conf: ConfState,
}

/// Raft's storage.
#[derive(Debug)]
pub(super) struct Store {
    hard: HardState,
    conf: ConfState,
    first: u64,
    before_term: u64,
    entries: VecDeque<Entry>,
    image: Option<StoredImage>,
}

impl Store {
    /// The log behind position `index` of `term`, where `conf` was the membership.
    pub(super) fn new(index: u64, term: u64, conf: ConfState, hard: HardState) -> Self {
        Self {
            hard,
            conf,
            first: index + 1,
            before_term: term,
            entries: VecDeque::new(),
            image: None,
        }
    }

    /// Adds entries, cutting off what is at or behind the first one's position.
    pub(super) fn append(&mut self, entries: &[Entry]) -> bool {
        let Some(from) = entries.first().map(|entry| entry.index) else {
            return false;
        };
        assert!(
            (self.first..=self.last() + 1).contains(&from),
            "entries follow the log without a gap, and never rewrite what an image covers"
        );
        let cut = from <= self.last();
        self.entries.truncate(offset(from - self.first));
        self.entries.extend(entries.iter().cloned());
        cut
    }

    /// Forgets everything up to `index`.
    pub(super) fn shorten(&mut self, index: u64) {
        while self.first <= index {
            let entry = self
                .entries
                .pop_front()
                .expect("only what is there is forgotten");
            self.first += 1;
            self.before_term = entry.term;
        }
    }

    /// Goes on behind an image, with an empty log.
    pub(super) fn restart(&mut self, image: StoredImage) {
        self.entries.clear();
        self.first = image.index + 1;
        self.before_term = image.term;
        self.conf = image.conf.clone();
        self.image = Some(image);
    }

    pub(super) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(super) fn set_conf(&mut self, conf: ConfState) {
        self.conf = conf;
    }

    pub(super) fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// The newest image, durable by now.
    pub(super) fn set_image(&mut self, image: StoredImage) {
        assert!(
            image.index + 1 >= self.first,
            "the log reaches back to every image offered"
        );
        self.image = Some(image);
    }

    pub(super) fn last(&self) -> u64 {
        self.first - 1 + self.entries.len() as u64
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        self.entries.get(offset(index.checked_sub(self.first)?))
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "Raft asks for what it was given");
        let most = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += entry.data.len() as u64 + ENTRY_OVERHEAD;
            first || size <= most
        };
        let wanted = self
            .entries
            .range(offset(low - self.first)..offset(high - self.first));
        Ok(wanted.take_while(fits).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index + 1 == self.first {
            return Ok(self.before_term);
        }
        if index < self.first {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.at(index);
        entry
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let usable = self
            .image
            .as_ref()
            .filter(|image| image.index >= request_index);
        let image = usable.ok_or(raft::Error::Store(
            StorageError::SnapshotTemporarilyUnavailable,
        ))?;
        Ok(make_snapshot(image.index, image.term, image.conf.clone()))
    }
}

fn offset(distance: u64) -> usize {
    usize::try_from(distance).expect("a log in memory is counted in memory's words")
}

#[cfg(test)]
mod tests {
    use super::super::raft_codec::{conf_state, make_entry};
    use super::*;
    use bytes::Bytes;
    use raft::eraftpb::EntryType;

    fn entry(index: u64, term: u64) -> Entry {
        make_entry(
            EntryType::EntryNormal,
            term,
            index,
            Bytes::from(vec![7; 100]),
        )
    }

    fn store() -> Store {
        let mut store = Store::new(10, 2, conf_state(&[1], &[]), HardState::default());
        store.append(&[entry(11, 2), entry(12, 3), entry(13, 3)]);
        store
    }

    #[test]
    fn terms_reach_back_to_the_position_before_the_first() {
        let store = store();
        assert_eq!(store.term(10).ok(), Some(2));
        assert_eq!(store.term(13).ok(), Some(3));
        assert!(store.term(9).is_err() && store.term(14).is_err());
    }

    #[test]
    fn a_conflict_cuts_the_tail() {
        let mut store = store();
        assert!(store.append(&[entry(12, 4)]));
        assert_eq!(store.last(), 12);
        assert_eq!(store.term(12).ok(), Some(4));
        assert!(!store.append(&[entry(13, 4)]));
    }

    #[test]
    fn a_shortened_log_remembers_the_term_before_it() {
        let mut store = store();
        store.shorten(12);
        assert_eq!(store.first_index().ok(), Some(13));
        assert_eq!(store.term(12).ok(), Some(3));
        assert_eq!(store.last(), 13);
    }

    #[test]
    fn a_limit_yields_at_least_one_entry() {
        let store = store();
        let context = || GetEntriesContext::empty(false);
        let count = |most: u64| {
            store
                .entries(11, 14, most, context())
                .map(|them| them.len())
                .ok()
        };
        assert_eq!(count(0), Some(1));
        assert_eq!(count(2 * (100 + ENTRY_OVERHEAD)), Some(2));
        assert_eq!(count(u64::MAX), Some(3));
    }
}
