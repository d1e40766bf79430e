//! What other chunkservers read here for the copies that they make: while clients use this
//! server, it is served at the pace of a repair.
//!
//! Owns the reads that wait and when the next one begins; what a share means for copies that
//! are made here is `replicate`'s. Invariant: no read waits for longer than WAIT_MAX, so that
//! nobody takes this server for one that does not answer.

use super::ChunkServer;
use super::pace::SHARES;
use super::requests::Reading;
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// Reads of others at once while clients use this server and repair has all of its share.
const READS_MAX: u32 = 8;
/// How long a read waits at most.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// The reads of others.
#[derive(Debug, Default)]
pub(super) struct Sourcing {
    waiting: VecDeque<(Instant, Reading)>,
    under_way: u32,
    /// Until then the disks are others'.
    rests_until: Instant,
}

impl Sourcing {
    /// When the next one that waits may begin, be it that none under way ends.
    pub(super) fn due(&self, now: Instant) -> Instant {
        let longest = self.waiting.front().map(|(since, _)| *since + WAIT_MAX);
        match longest {
            Some(longest) if self.rests_until > now => longest.min(self.rests_until),
            Some(longest) => longest,
            None => Instant::NEVER,
        }
    }

    /// One that began is over.
    pub(super) fn end_one(&mut self) {
        let left = self.under_way.checked_sub(1);
        self.under_way = left.expect("what ends has begun");
    }

    /// Whether a read of another server is at a disk.
    pub(super) fn is_reading(&self) -> bool {
        self.under_way > 0
    }

    /// Reads that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl ChunkServer {
    /// Another server reads.
    pub(super) fn source(&mut self, reading: Reading) {
        self.sourcing.waiting.push_back((self.now, reading));
        self.pump_sourcing();
    }

    /// Begins the reads that may.
    pub(super) fn pump_sourcing(&mut self) {
        while let Some((since, _)) = self.sourcing.waiting.front() {
            let is_overdue = self.now >= *since + WAIT_MAX;
            if !is_overdue && !self.may_read_one_more() {
                self.marks.reach(Mark::SourcePaced);
                return;
            }
            let (_, reading) = self.sourcing.waiting.pop_front().expect("it was seen");
            self.sourcing.under_way += 1;
            self.note_repair();
            self.begin_sourced(reading);
        }
    }

    fn may_read_one_more(&self) -> bool {
        if !self.is_used() {
            return true;
        }
        let most = (READS_MAX * self.pace.share() / SHARES).max(1);
        self.sourcing.under_way < most && self.now >= self.sourcing.rests_until
    }

    /// A read of another server ended that began then: the disks are others' for a while.
    pub(super) fn end_sourcing(&mut self, began: Instant) {
        self.sourcing.end_one();
        self.note_repair();
        if self.is_used() {
            let rest = self.rest_after(self.now.since(began)).min(WAIT_MAX);
            self.sourcing.rests_until = self.now + rest;
        }
        self.pump_sourcing();
    }
}
