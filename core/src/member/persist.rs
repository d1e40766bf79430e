//! What Raft wants durable, in order, and the messages that wait for it.
//!
//! Owns the queue of Raft's `Ready`s that are not yet on disk: at most one log
//! operation is under way, and everything that queued up meanwhile shares the
//! next append (group commit). Invariant: a message that vouches for an entry, a
//! vote or a term leaves only after the append that holds it completed.

use crate::ids::{LogPosition, Term, Token};
use crate::journal::operation::{HardState, JournalOperation, LogEntry};
use crate::limits::LOG_BATCH_MAX;
use raft::eraftpb::{Entry, Message};
use std::collections::VecDeque;

/// One `Ready` of Raft.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Raft's number of it.
    pub(super) number: u64,
    /// To append.
    pub(super) entries: Vec<Entry>,
    /// To store along.
    pub(super) hard: Option<HardState>,
    /// Whether the hard state must be durable (not merely a new commit position).
    pub(super) must_sync: bool,
    /// The log begins anew behind this image.
    pub(super) restart: Option<(LogPosition, Term)>,
    /// What waits for it.
    pub(super) messages: Vec<Message>,
}

impl Pending {
    fn needs_disk(&self) -> bool {
        self.must_sync || !self.entries.is_empty() || self.restart.is_some()
    }

    fn size(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len()).sum()
    }
}

/// What became durable.
#[derive(Debug, Default)]
pub(super) struct Persisted {
    /// Every `Ready` up to this number.
    pub(super) number: u64,
    /// The position of an image that the log begins behind now.
    pub(super) restarted: Option<LogPosition>,
    /// To be sent now.
    pub(super) messages: Vec<Message>,
}

#[derive(Debug)]
struct Flight {
    token: Token,
    term: Option<Term>,
    persisted: Option<Persisted>,
}

/// The queue to the log.
#[derive(Debug)]
pub(super) struct Persist {
    queue: VecDeque<Pending>,
    flight: Option<Flight>,
    hard: HardState,
    durable_term: Term,
    shorten: Option<LogPosition>,
}

impl Persist {
    /// Goes on from what is durable.
    pub(super) fn new(hard: HardState) -> Self {
        Self {
            queue: VecDeque::new(),
            flight: None,
            hard,
            durable_term: hard.term,
            shorten: None,
        }
    }

    /// The newest term that a crash would not forget.
    pub(super) fn durable_term(&self) -> Term {
        self.durable_term
    }

    /// Whether an append would have to wait.
    pub(super) fn is_busy(&self) -> bool {
        self.flight.is_some() || self.queue.iter().any(Pending::needs_disk)
    }

    /// Whether an operation is under way.
    pub(super) fn is_flying(&self) -> bool {
        self.flight.is_some()
    }

    /// Queues a `Ready`.
    pub(super) fn push(&mut self, pending: Pending) {
        let newest = self.queue.back().map_or(0, |last| last.number);
        assert!(pending.number > newest, "Raft numbers its wishes upwards");
        self.queue.push_back(pending);
    }

    /// Forgets the log on disk up to a position, when nothing else waits.
    pub(super) fn shorten(&mut self, upto: LogPosition) {
        self.shorten = self.shorten.max(Some(upto));
    }

    /// What is durable without any work: nothing before it waits.
    pub(super) fn poll_idle(&mut self) -> Option<Persisted> {
        if self.flight.is_some() || self.queue.front()?.needs_disk() {
            return None;
        }
        let pending = self.queue.pop_front()?;
        self.note(&pending);
        Some(Persisted {
            number: pending.number,
            restarted: None,
            messages: pending.messages,
        })
    }

    /// The next operation, if the log is idle and there is something to do.
    pub(super) fn poll_operation(&mut self, token: Token) -> Option<JournalOperation> {
        if self.flight.is_some() {
            return None;
        }
        match self.queue.front() {
            Some(first) if first.restart.is_some() => Some(self.begin_restart(token)),
            Some(_) => Some(self.begin_append(token)),
            None => self.begin_shorten(token),
        }
    }

    /// An operation ended well: what that makes durable; `None` if it is not ours,
    /// or made nothing so.
    pub(super) fn on_done(&mut self, token: Token) -> Option<Persisted> {
        let flight = self.flight.take_if(|flight| flight.token == token)?;
        self.durable_term = self.durable_term.max(flight.term.unwrap_or_default());
        flight.persisted
    }

    /// Whether this operation is the one under way.
    pub(super) fn owns(&self, token: Token) -> bool {
        self.flight
            .as_ref()
            .is_some_and(|flight| flight.token == token)
    }

    /// What the operation under way will have made durable, taken before it has:
    /// only the planted bug asks.
    pub(super) fn take_early(&mut self) -> Option<Persisted> {
        let flight = self.flight.as_mut()?;
        self.durable_term = self.durable_term.max(flight.term.unwrap_or_default());
        flight.persisted.take()
    }

    fn note(&mut self, pending: &Pending) {
        if let Some(hard) = pending.hard {
            self.hard = hard;
        }
    }

    fn begin_restart(&mut self, token: Token) -> JournalOperation {
        let pending = self.queue.pop_front().expect("the caller saw it");
        self.note(&pending);
        let (position, term) = pending.restart.expect("the caller saw it");
        let hard = self.hard;
        let persisted = Persisted {
            number: pending.number,
            restarted: Some(position),
            messages: pending.messages,
        };
        self.fly(token, Some(hard.term), Some(persisted));
        JournalOperation::Restart {
            token,
            position,
            term,
            hard,
        }
    }

    fn begin_append(&mut self, token: Token) -> JournalOperation {
        let mut entries = Vec::new();
        let mut persisted = Persisted::default();
        let (mut size, mut hard) = (0, None);
        while let Some(next) = self.queue.front() {
            if next.restart.is_some() || (size > 0 && size + next.size() > LOG_BATCH_MAX) {
                break;
            }
            let next = self.queue.pop_front().expect("it is there");
            self.note(&next);
            size += next.size();
            hard = next.hard.or(hard);
            merge(&mut entries, next.entries);
            persisted.number = next.number;
            persisted.messages.extend(next.messages);
        }
        self.fly(token, hard.map(|hard| hard.term), Some(persisted));
        let entries = entries.into_iter().map(log_entry).collect();
        JournalOperation::Append {
            token,
            entries,
            hard,
        }
    }

    fn begin_shorten(&mut self, token: Token) -> Option<JournalOperation> {
        let upto = self.shorten.take()?;
        self.fly(token, None, None);
        Some(JournalOperation::Shorten { token, upto })
    }

    fn fly(&mut self, token: Token, term: Option<Term>, persisted: Option<Persisted>) {
        let flight = Flight {
            token,
            term,
            persisted,
        };
        assert!(
            self.flight.replace(flight).is_none(),
            "one log operation at a time"
        );
    }
}

/// Adds entries behind others, replacing what is at or behind their first position.
fn merge(entries: &mut Vec<Entry>, more: Vec<Entry>) {
    if let Some(first) = more.first() {
        entries.retain(|entry| entry.index < first.index);
    }
    entries.extend(more);
}

fn log_entry(entry: Entry) -> LogEntry {
    LogEntry {
        position: LogPosition(entry.index),
        term: Term(entry.term),
        kind: super::raft_codec::entry_kind_number(entry.get_entry_type()),
        data: entry.data,
    }
}

#[cfg(test)]
mod tests {
    use super::super::raft_codec::make_entry;
    use super::*;
    use bytes::Bytes;
    use raft::eraftpb::EntryType;

    fn pending(number: u64, positions: &[(u64, u64)]) -> Pending {
        let entry = |&(index, term)| make_entry(EntryType::EntryNormal, term, index, Bytes::new());
        Pending {
            number,
            entries: positions.iter().map(entry).collect(),
            messages: vec![Message::default()],
            ..Pending::default()
        }
    }

    fn positions(operation: Option<JournalOperation>) -> Vec<(u64, u64)> {
        let Some(JournalOperation::Append { entries, .. }) = operation else {
            panic!("an append, not {operation:?}");
        };
        entries
            .iter()
            .map(|entry| (entry.position.0, entry.term.0))
            .collect()
    }

    #[test]
    fn what_queued_up_shares_an_append_and_its_messages_wait() {
        let mut persist = Persist::new(HardState::default());
        persist.push(pending(1, &[(1, 1)]));
        assert_eq!(positions(persist.poll_operation(Token(1))), [(1, 1)]);
        persist.push(pending(2, &[(2, 1), (3, 1)]));
        persist.push(pending(3, &[(3, 2)]));
        persist.push(pending(4, &[]));
        assert!(persist.poll_operation(Token(2)).is_none());
        assert!(persist.poll_idle().is_none());
        assert_eq!(persist.on_done(Token(1)).map(|done| done.number), Some(1));
        assert_eq!(
            positions(persist.poll_operation(Token(2))),
            [(2, 1), (3, 2)]
        );
        let done = persist
            .on_done(Token(2))
            .expect("it made something durable");
        assert_eq!((done.number, done.messages.len()), (4, 3));
    }

    #[test]
    fn a_commit_position_alone_needs_no_disk() {
        let mut persist = Persist::new(HardState::default());
        let commit = HardState {
            commit: LogPosition(3),
            ..HardState::default()
        };
        persist.push(Pending {
            hard: Some(commit),
            ..pending(1, &[])
        });
        assert_eq!(persist.poll_idle().map(|done| done.number), Some(1));
        assert!(persist.poll_operation(Token(1)).is_none());
    }

    #[test]
    fn a_term_counts_as_durable_only_when_it_is() {
        let mut persist = Persist::new(HardState::default());
        let hard = HardState {
            term: Term(2),
            ..HardState::default()
        };
        persist.push(Pending {
            hard: Some(hard),
            must_sync: true,
            ..pending(1, &[])
        });
        assert!(persist.poll_operation(Token(1)).is_some());
        assert_eq!(persist.durable_term(), Term(0));
        persist.on_done(Token(1));
        assert_eq!(persist.durable_term(), Term(2));
    }
}
