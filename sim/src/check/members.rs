//! The members of the masters' group agree: where two have applied the same
//! position, they applied the same entry and have the same digest.

use antler_core::ids::{LogPosition, Term};
use antler_core::journal::operation::LogEntry;
use antler_core::member::Member;
use std::collections::BTreeMap;

/// See the module's doc.
#[derive(Default)]
pub(crate) struct MembersJudge {
    views: BTreeMap<usize, View>,
    committed: BTreeMap<LogPosition, LogEntry>,
    digests: BTreeMap<LogPosition, (u64, usize)>,
    /// The last entry handed to the replay.
    replayed: LogPosition,
    /// Digests compared between two members.
    pub(crate) compared: u64,
}

/// What one member put into its log, and up to where it applied it.
#[derive(Default)]
struct View {
    entries: BTreeMap<LogPosition, LogEntry>,
    applied: LogPosition,
}

impl MembersJudge {
    /// A member extends its log, cutting off what is at or behind the first entry.
    pub(crate) fn on_appending(&mut self, node: usize, entries: Vec<LogEntry>) {
        let view = self.views.entry(node).or_default();
        if let Some(first) = entries.first() {
            view.entries.split_off(&first.position);
        }
        view.entries
            .extend(entries.into_iter().map(|entry| (entry.position, entry)));
    }

    /// A member empties its log behind an image that it installed.
    pub(crate) fn on_restarting(&mut self, node: usize) {
        self.views.entry(node).or_default().entries.clear();
    }

    /// A member starts (again) from what its storage recovered.
    pub(crate) fn on_started(&mut self, node: usize, entries: &[LogEntry], applied: LogPosition) {
        // A new group begins with an image: its positions are in no log.
        if self.views.is_empty() {
            self.replayed = self.replayed.max(applied);
        }
        let entries = entries
            .iter()
            .map(|entry| (entry.position, entry.clone()))
            .collect();
        self.views.insert(node, View { entries, applied });
    }

    /// A member handled an input: judges what it newly applied.
    ///
    /// # Errors
    /// How it differs from another member.
    pub(crate) fn on_progress(&mut self, node: usize, member: &Member) -> Result<(), String> {
        let applied = member.applied();
        let view = self.views.entry(node).or_default();
        if applied <= view.applied {
            return Ok(());
        }
        let from = std::mem::replace(&mut view.applied, applied);
        // An image that it installed covers entries of its old log that were never
        // committed; the log is emptied a moment later.
        let from = from.next().max(member.log_begin());
        let fresh = view
            .entries
            .range(from..)
            .take_while(|(at, _)| **at <= applied);
        for (position, entry) in fresh {
            let known = self
                .committed
                .entry(*position)
                .or_insert_with(|| entry.clone());
            if known != entry {
                return Err(format!(
                    "at {position} one member applied an entry of {}, another one of {}",
                    known.term, entry.term
                ));
            }
        }
        self.compare_digests(node, applied, member.state().digest())
    }

    fn compare_digests(&mut self, node: usize, at: LogPosition, digest: u64) -> Result<(), String> {
        let (known, by) = *self.digests.entry(at).or_insert((digest, node));
        if by != node {
            self.compared += 1;
        }
        while self.digests.len() > 5000 {
            self.digests.pop_first();
        }
        match known == digest {
            true => Ok(()),
            false => Err(format!(
                "at {at} nodes {by} and {node} have different digests"
            )),
        }
    }

    /// The next committed entry in order, for whoever replays the log.
    pub(crate) fn next_committed(&mut self) -> Option<&LogEntry> {
        let next = self.replayed.next();
        let entry = self.committed.get(&next)?;
        self.replayed = next;
        Some(entry)
    }

    /// The last position that any member is known to have applied.
    pub(crate) fn last_applied(&self) -> LogPosition {
        let applied = self.views.values().map(|view| view.applied);
        applied.max().unwrap_or_default()
    }

    /// The term of a committed entry.
    pub(crate) fn term_of(&self, position: LogPosition) -> Option<Term> {
        self.committed.get(&position).map(|entry| entry.term)
    }

    /// All members were lost but one, which lives on as a new group: what lies behind
    /// its log is forgotten.
    pub(crate) fn take_over(&mut self, last: LogPosition) {
        self.committed.split_off(&last.next());
        self.digests.clear();
        self.views.clear();
    }
}
