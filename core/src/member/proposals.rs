//! Records on their way into the log: grouped while an append is under way, then
//! proposed as one entry, then waiting to be applied.
//!
//! Owns the tickets of whoever waits. Invariant: a ticket is answered once, by the
//! record's application or by being dropped.

use super::entry_codec::Group;
use crate::namespace::record::Record;
use std::collections::VecDeque;

/// A record and who waits for it.
pub(super) type Waiting = (Option<u64>, Record);

#[derive(Debug)]
struct Proposed {
    position: u64,
    term: u64,
    records: Vec<Waiting>,
}

/// Proposals of one reign.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    groups: VecDeque<Group>,
    /// Bytes of the groups.
    queued: usize,
    proposed: VecDeque<Proposed>,
}

impl Proposals {
    /// Adds a record to the group that is proposed next.
    pub(super) fn push(&mut self, ticket: Option<u64>, record: Record) {
        if self.groups.back().is_none_or(Group::is_full) {
            self.groups.push_back(Group::default());
        }
        let group = self
            .groups
            .back_mut()
            .expect("one was added if none was there");
        let before = group.size();
        group.push(ticket, record);
        self.queued += group.size() - before;
    }

    /// The next group to propose.
    pub(super) fn poll_group(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.queued -= group.size();
        Some(group)
    }

    /// Whether no more may wait: `most` bytes do.
    pub(super) fn is_full(&self, most: u64) -> bool {
        self.queued as u64 >= most
    }

    /// A group became the entry at `position`.
    pub(super) fn on_proposed(&mut self, position: u64, term: u64, records: Vec<Waiting>) {
        let before = self.proposed.back().map_or(0, |last| last.position);
        assert!(before < position, "entries are proposed upwards");
        self.proposed.push_back(Proposed {
            position,
            term,
            records,
        });
    }

    /// The records of the entry that is applied now, if they were proposed here.
    pub(super) fn take(&mut self, position: u64, term: u64) -> Option<Vec<Waiting>> {
        let is_it = |front: &Proposed| front.position == position && front.term == term;
        let found = self.proposed.front().is_some_and(is_it);
        if !found {
            return None;
        }
        self.proposed.pop_front().map(|proposed| proposed.records)
    }

    /// Forgets everything: who waited.
    pub(super) fn drop_all(&mut self) -> Vec<u64> {
        self.queued = 0;
        let proposed = self
            .proposed
            .drain(..)
            .flat_map(|proposed| proposed.records);
        let queued = self.groups.drain(..).flat_map(|group| group.into_parts().1);
        proposed
            .chain(queued)
            .filter_map(|(ticket, _)| ticket)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::namespace::record::RecordBody;
    use crate::time::Timestamp;

    fn record() -> Record {
        Record {
            time: Timestamp::default(),
            body: RecordBody::EndSession {
                session: SessionId(1),
            },
        }
    }

    #[test]
    fn every_ticket_is_answered_once() {
        let mut proposals = Proposals::default();
        for ticket in 0..3 {
            proposals.push(Some(ticket), record());
        }
        let (_, records) = proposals.poll_group().expect("one group").into_parts();
        proposals.on_proposed(7, 2, records);
        proposals.push(Some(3), record());
        proposals.push(None, record());
        assert!(proposals.take(6, 2).is_none());
        assert!(proposals.take(7, 1).is_none());
        let taken = proposals.take(7, 2).expect("proposed here");
        assert_eq!(taken.len(), 3);
        assert_eq!(proposals.drop_all(), [3]);
        assert_eq!(proposals.drop_all(), [] as [u64; 0]);
    }
}
