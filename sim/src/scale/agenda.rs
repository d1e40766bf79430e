//! What is to happen, in order: the heap of events of a scale run.

use crate::network::Nanos;
use antler_core::ids::Term;
use antler_core::wire::chunk_master::{ChunkToMaster, Command};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Something that happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A server connects to the master and registers.
    Join(u16),
    /// A server reports the copies from this one on.
    Report(u16, usize),
    /// What a server said reaches the master.
    Said(u16, Box<ChunkToMaster>),
    /// A command reaches a server.
    Command(u16, Box<(u64, Term, Command)>),
    /// A transfer ends, unless its pace changed since.
    Arrived { flow: u32, pace: u32 },
    /// A copy in the making goes on, unless it went on otherwise.
    GoOn { job: u64, attempt: u32, step: Step },
    /// An operation of the master's disk ends.
    Stored(u64),
    /// The planned loss of this number.
    Loss(usize),
    /// Something is looked at for the report.
    Sample,
}

/// How a copy in the making goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The next source is asked.
    Ask,
    /// What was received is durable.
    Durable,
}

struct Entry {
    at: Nanos,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: the heap gives that first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// The heap; events of one time happen in the order in which they were put in.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Entry>,
    next: u64,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Nanos, event: Event) {
        let number = self.next;
        self.next += 1;
        self.heap.push(Entry { at, number, event });
    }

    /// When the next one is due.
    pub(super) fn next_time(&self) -> Nanos {
        self.heap.peek().map_or(Nanos::MAX, |entry| entry.at)
    }

    pub(super) fn pop(&mut self) -> Option<(Nanos, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
