//! Disks that are suspected before they are dead: reads of theirs take very long, or fail now
//! and then.
//!
//! Owns the measure and the verdict. What follows is that of an order to drain: the server
//! moves what is there to its other disks (`moves`), or the leader to other servers. A
//! suspected disk still takes what is new where there is no other. Only reads are measured:
//! a sync may take as long as it has to write. Invariant: a verdict stands for the life of the
//! server; it is never passed on a disk while another one that is still trusted is as slow,
//! since then it is not the disk.

use super::ChunkServer;
use crate::ids::{DiskId, Token};
use crate::machine::Level;
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// For how long reads are counted before they are judged.
const WINDOW: Duration = Duration::from_secs(20);
/// Fewer reads in a window say nothing.
const READS_LEAST: u32 = 8;
/// After so many windows in a row in which half of the reads were slow a disk is suspected.
const WINDOWS: u32 = 3;

/// What the reads of a disk were like of late.
#[derive(Debug)]
pub(super) struct Health {
    /// Reads under way, and since when.
    begun: BTreeMap<Token, Instant>,
    /// Of the window: when it ends, reads that ended in it, and how many of those took long.
    until: Instant,
    reads: u32,
    slow: u32,
    /// Windows in a row that were slow.
    slow_windows: u32,
    /// Reads that failed in this life.
    errors: u32,
    suspected: Option<String>,
}

impl Health {
    /// Of a disk that nothing is known of.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: BTreeMap::new(),
            until: now + WINDOW,
            reads: 0,
            slow: 0,
            slow_windows: 0,
            errors: 0,
            suspected: None,
        }
    }

    /// Why it is suspected, if it is.
    pub(super) fn suspected(&self) -> Option<&str> {
        self.suspected.as_deref()
    }

    /// A read begins.
    pub(super) fn begin(&mut self, token: Token, now: Instant) {
        self.begun.insert(token, now);
    }

    /// An operation ended, perhaps a read.
    pub(super) fn end(&mut self, token: Token, now: Instant, bound: Duration) {
        if let Some(begun) = self.begun.remove(&token) {
            let is_slow = now.since(begun) > bound;
            self.reads = self.reads.saturating_add(1);
            self.slow = self.slow.saturating_add(u32::from(is_slow));
        }
    }

    /// Ends the window if it is over. Reads that are still under way count if they have taken
    /// too long already.
    fn close_window(&mut self, now: Instant, bound: Duration) {
        if now < self.until {
            return;
        }
        let hung = self
            .begun
            .values()
            .filter(|begun| now.since(**begun) > bound);
        let hung = u32::try_from(hung.count()).unwrap_or(u32::MAX);
        let (reads, slow) = (
            self.reads.saturating_add(hung),
            self.slow.saturating_add(hung),
        );
        if reads >= READS_LEAST {
            self.slow_windows = match slow >= reads.div_ceil(2) {
                true => self.slow_windows + 1,
                false => 0,
            };
        }
        (self.until, self.reads, self.slow) = (now + WINDOW, 0, 0);
    }
}

impl ChunkServer {
    /// Ends what windows are over, and suspects the disk that alone was slow for long.
    pub(super) fn judge_disks(&mut self) {
        let bound = self.config.care.slow;
        if bound == Duration::ZERO {
            return;
        }
        let trusted = self
            .disks
            .table
            .iter_mut()
            .filter(|(_, one)| one.is_trusted());
        let mut slow = Vec::new();
        for (disk, one) in trusted {
            one.health.close_window(self.now, bound);
            if one.health.slow_windows > 0 {
                slow.push((*disk, one.health.slow_windows));
            }
        }
        if let [(disk, windows)] = slow[..]
            && windows >= WINDOWS
        {
            let millis = bound.as_millis();
            self.suspect(disk, format!("half of its reads take over {millis} ms"));
        }
    }

    /// A read of a disk failed.
    pub(super) fn note_read_error(&mut self, disk: DiskId) {
        let most = self.config.care.read_errors;
        let one = self.disks.table.get_mut(&disk);
        let health = &mut one.expect("operations are on disks").health;
        health.errors = health.errors.saturating_add(1);
        let errors = health.errors;
        if most > 0 && errors >= most {
            self.suspect(disk, format!("{errors} reads of it failed"));
        }
    }

    fn suspect(&mut self, disk: DiskId, why: String) {
        let one = self.disks.table.get_mut(&disk).expect("it is there");
        if !one.is_trusted() {
            return;
        }
        one.health.suspected = Some(why.clone());
        self.marks.reach(Mark::DiskSuspected);
        let path = self.disks.path(disk);
        let text = format!("{disk} at {path} is suspected, and what is there moves away: {why}");
        self.log(Level::Warn, text);
        self.follow_drains();
        self.say_disks();
    }
}
