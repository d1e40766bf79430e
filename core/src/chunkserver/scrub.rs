//! Scrub: every part of every disk is read in turn, so that what is bad is found before
//! somebody needs it.
//!
//! Owns where each disk's walk is and how fast it goes; leaves what is checked to the
//! store's own reading (the lines of the slot table, and the checksum of every unit), and
//! what a bad part means to `disks`: it is told as a bad read of a client is, and the
//! leader has it made anew. An operator may order a round of a disk, also where none is
//! scrubbed otherwise; the order ends with the round, or with this life of the server.
//! Invariant: one read of a disk is under way at most, no more
//! than the rate is read, and no read is added to those that wait for a disk already.

use super::ChunkServer;
use super::disks::Issued;
use super::parts::Looked;
use crate::chunk::map::ranges;
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest};
use crate::hash::Digest;
use crate::ids::{ChunkId, DiskId, PartId};
use crate::limits::UNIT_SIZE;
use crate::marks::Mark;
use crate::rng::Rng;
use crate::time::{Duration, Instant, Now, Timestamp};
use crate::wire::client_master::ScrubStatus;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// What an operation counts for at least: of many small parts, seeks are what it costs.
const COST_LEAST: u64 = 64 << 10;
/// From the beginning of a round to that of the next one, at least.
const ROUND_LEAST: Duration = Duration::from_secs(60);
/// How soon a disk is looked at again that others wait for.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// How long a disk is left alone after something bad was found on it: what fails for a
/// moment must not cost it many parts, nor pass for a disk that can't be read any more.
const FOUND_PAUSE: Duration = Duration::from_secs(5);
/// How many parts of the table are passed over at once to find one on a disk.
const LOOKS_MAX: usize = 4096;
/// The same, how soon it goes on.
const LOOK_PAUSE: Duration = Duration::from_millis(1);

/// The walks over the disks.
#[derive(Debug)]
pub(super) struct Scrub {
    /// Bytes a second of each disk; 0: none.
    rate: u64,
    wall: Timestamp,
    rng: Rng,
    walks: BTreeMap<DiskId, Walk>,
}

/// A walk over one disk, round after round.
#[derive(Debug)]
struct Walk {
    /// Where every round of this life begins, drawn, so that restarts leave no part out
    /// for ever.
    origin: Option<PartId>,
    /// No round is under way: what is told is of the last one.
    over: bool,
    /// The round came to the end of the table, and goes on from its beginning.
    wrapped: bool,
    next: Bound<PartId>,
    /// Bytes a second of the round that an operator ordered.
    ordered: Option<u64>,
    /// The round that is under way is not the ordered one: it begins anew.
    anew: bool,
    /// The part that is being read, and what of it still is to be.
    part: Option<(PartId, VecDeque<(u32, u32)>)>,
    reading: bool,
    due: Instant,
    began: Instant,
    /// Of this round.
    parts: u64,
    bytes: u64,
    /// Since the server started.
    findings: u64,
    ended: Option<Timestamp>,
}

impl Scrub {
    pub(super) fn new(rate: u64, seed: u64) -> Self {
        Self {
            rate,
            wall: Timestamp::default(),
            rng: Rng::new(seed ^ 0x5c2b),
            walks: BTreeMap::new(),
        }
    }

    pub(super) fn add_disk(&mut self, disk: DiskId, now: Instant) {
        if self.rate > 0 {
            self.walks.insert(disk, Walk::new(now));
        }
    }

    /// A round of a disk begins now, of so many bytes a second.
    pub(super) fn order(&mut self, disk: DiskId, rate: u64, now: Instant) {
        let walk = self.walks.entry(disk).or_insert_with(|| Walk::new(now));
        (walk.ordered, walk.anew) = (Some(rate.max(1)), true);
        walk.due = walk.due.min(now);
    }

    /// A disk failed: there is nothing to heal on it.
    pub(super) fn drop_disk(&mut self, disk: DiskId) {
        self.walks.remove(&disk);
    }

    /// Takes note of the wall clock, for timestamps.
    pub(super) fn note(&mut self, now: Now) {
        self.wall = now.wall;
    }

    /// When the next read is due.
    pub(super) fn due(&self) -> Instant {
        let waiting = self.walks.values().filter(|walk| !walk.reading);
        waiting.map(|walk| walk.due).min().unwrap_or(Instant::NEVER)
    }

    /// How far a disk is, which holds so many parts.
    pub(super) fn status(&self, disk: DiskId, copies: u64) -> Option<ScrubStatus> {
        let walk = self.walks.get(&disk)?;
        let parts = walk.parts.min(copies);
        Some(ScrubStatus {
            rate: walk.ordered.unwrap_or(self.rate),
            bytes: walk.bytes,
            per_mille: u32::try_from(parts * 1000 / copies.max(1)).expect("at most 1000"),
            findings: walk.findings,
            ended: walk.ended,
        })
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        for walk in self.walks.values() {
            digest.word(walk.bytes).word(walk.findings);
        }
    }

    fn walk(&mut self, disk: DiskId) -> &mut Walk {
        self.walks.get_mut(&disk).expect("the disk is walked over")
    }

    /// For how long a read of so many bytes of a disk is all that may be read.
    fn worth(&self, disk: DiskId, bytes: u64) -> Duration {
        let ordered = self.walks.get(&disk).and_then(|walk| walk.ordered);
        let rate = u128::from(ordered.unwrap_or(self.rate).max(1));
        let nanos = u128::from(bytes.max(COST_LEAST)) * 1_000_000_000 / rate;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Walk {
    fn new(now: Instant) -> Self {
        Self {
            origin: None,
            over: true,
            wrapped: false,
            next: Bound::Unbounded,
            ordered: None,
            anew: false,
            part: None,
            reading: false,
            due: now,
            began: now,
            parts: 0,
            bytes: 0,
            findings: 0,
            ended: None,
        }
    }

    fn begin_round(&mut self, origin: PartId, now: Instant) {
        self.origin = Some(origin);
        self.next = Bound::Included(origin);
        (self.over, self.wrapped, self.anew) = (false, false, false);
        self.part = None;
        self.began = now;
        (self.parts, self.bytes) = (0, 0);
    }

    /// Up to where the round goes in this half of the table.
    fn end(&self) -> Bound<PartId> {
        match (self.wrapped, self.origin) {
            (true, Some(origin)) => Bound::Excluded(origin),
            _ => Bound::Unbounded,
        }
    }

    /// Takes the next range of the part; a part of which none is left is done.
    fn next_range(&mut self) -> Option<(PartId, u32, u32)> {
        let (part, ranges) = self.part.as_mut()?;
        match ranges.pop_front() {
            Some((offset, length)) => Some((*part, offset, length)),
            None => {
                self.part = None;
                self.parts += 1;
                None
            }
        }
    }
}

impl ChunkServer {
    /// Goes on where a read is due.
    pub(super) fn tick_scrub(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        let walks = self.scrub.walks.iter();
        let due = walks.filter(|(_, walk)| !walk.reading && walk.due <= self.now);
        let due: Vec<DiskId> = due.map(|(&disk, _)| disk).collect();
        for disk in due {
            self.scrub_on(disk);
        }
    }

    /// Reads the next piece of a disk, or looks for the next part.
    fn scrub_on(&mut self, disk: DiskId) {
        let now = self.now;
        if self.disks.is_crowded(disk) {
            self.scrub.walk(disk).due = now + BUSY_PAUSE;
            return;
        }
        let walk = self.scrub.walk(disk);
        let next = if walk.anew { None } else { walk.next_range() };
        match next {
            Some((part, offset, length)) => {
                let request = DiskRequest::Read {
                    part,
                    offset,
                    length,
                };
                self.scrub_read(disk, part, request, u64::from(length));
            }
            None => self.scrub_next_part(disk),
        }
    }

    fn scrub_read(&mut self, disk: DiskId, part: PartId, request: DiskRequest, bytes: u64) {
        let due = self.now + self.scrub.worth(disk, bytes);
        let walk = self.scrub.walk(disk);
        (walk.reading, walk.due) = (true, due);
        self.operate_apart(disk, request, Issued::Scrub { part });
    }

    fn scrub_next_part(&mut self, disk: DiskId) {
        let now = self.now;
        let walk = self.scrub.walk(disk);
        if walk.over || walk.anew {
            let known = self.scrub.walk(disk).origin;
            let origin = known.unwrap_or_else(|| self.draw_origin());
            self.scrub.walk(disk).begin_round(origin, now);
        }
        let walk = self.scrub.walk(disk);
        let range = (walk.next, walk.end());
        match self.parts.next_on(disk, range, LOOKS_MAX) {
            Looked::Part(part) => {
                walk.next = Bound::Excluded(part);
                walk.part = Some((part, VecDeque::new()));
                self.scrub_read(disk, part, DiskRequest::Map { part }, 0);
            }
            Looked::Passed(part) => {
                walk.next = Bound::Excluded(part);
                walk.due = now + LOOK_PAUSE;
            }
            Looked::End if !walk.wrapped => {
                (walk.wrapped, walk.next) = (true, Bound::Unbounded);
                walk.due = now + LOOK_PAUSE;
            }
            Looked::End => self.end_round(disk),
        }
    }

    /// A part, or where one might be, somewhere among those that are there.
    fn draw_origin(&mut self) -> PartId {
        let (first, last) = self.parts.bounds();
        let chunk = self.scrub.rng.between(first.0, last.0);
        PartId::whole(ChunkId(chunk))
    }

    fn end_round(&mut self, disk: DiskId) {
        let (now, wall, is_idle) = (self.now, self.scrub.wall, self.scrub.rate == 0);
        let walk = self.scrub.walk(disk);
        if walk.parts > 0 {
            self.marks.reach(Mark::ScrubRoundEnded);
        }
        (walk.over, walk.ended) = (true, Some(wall));
        walk.due = now.max(walk.began + ROUND_LEAST);
        if walk.ordered.take().is_some() && is_idle {
            walk.due = Instant::NEVER;
        }
    }

    /// A read of a scrub ended.
    pub(super) fn on_scrubbed(
        &mut self,
        disk: DiskId,
        part: PartId,
        result: Result<DiskReply, DiskError>,
    ) {
        let is_found = matches!(
            result,
            Err(DiskError::Corrupt { .. } | DiskError::Unreadable { .. })
        );
        // The disk may have failed by this very read.
        if let Some(walk) = self.scrub.walks.get_mut(&disk) {
            walk.reading = false;
            walk.note(&result);
            if is_found {
                walk.findings += 1;
                walk.due = walk.due.max(self.now + FOUND_PAUSE);
                self.marks.reach(Mark::ScrubFound);
            }
        }
        if let Err(error) = result {
            self.on_disk_error(disk, part, &error);
        }
    }
}

impl Walk {
    fn note(&mut self, result: &Result<DiskReply, DiskError>) {
        match result {
            Ok(DiskReply::Map { present, .. }) => {
                let part = self.part.as_mut().expect("it is being read");
                part.1 = ranges(present, 0).into();
            }
            Ok(DiskReply::Read { present, .. }) => {
                let units = present.iter().map(|bits| u64::from(bits.count_ones()));
                self.bytes += units.sum::<u64>() * UNIT_SIZE as u64;
            }
            Ok(other) => panic!("a read was answered by {other:?}"),
            // It is bad, or gone: either way there is no more of it to check.
            Err(_) => {
                self.part = None;
                self.parts += 1;
            }
        }
    }
}
