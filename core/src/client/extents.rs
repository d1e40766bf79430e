//! The bytes of one chunk that this mount wrote and that are not known durable.
//!
//! Owns the map of extents and its sums; leaves leases, pieces and messages to
//! `write`. Invariants: extents never overlap and are never empty; the newest
//! write to a byte wins; `dirty`, `generations` and `totals` agree with the map.

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

/// What an extent holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Written bytes.
    Data(Bytes),
    /// A punched or zeroed range of this many bytes.
    Zeros(u32),
}

impl Content {
    pub(super) fn length(&self) -> u32 {
        match self {
            Self::Data(data) => u32::try_from(data.len()).expect("a chunk has 32-bit offsets"),
            Self::Zeros(length) => *length,
        }
    }

    /// The bytes of memory that it takes.
    fn weight(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Zeros(_) => 0,
        }
    }

    fn slice(&self, from: u32, to: u32) -> Self {
        match self {
            Self::Data(data) => Self::Data(data.slice(from as usize..to as usize)),
            Self::Zeros(_) => Self::Zeros(to - from),
        }
    }
}

/// How far an extent got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// Not sent, or to be sent again.
    Dirty,
    /// In a piece under way.
    Sent,
    /// Acknowledged by every copy.
    Written,
    /// Acknowledged, and a sync that covers it is under way.
    Syncing,
    /// Durable on every copy, but not part of the file before its commit.
    Synced,
}

#[derive(Clone, Debug)]
struct Extent {
    content: Content,
    progress: Progress,
    /// The oldest generation of writes that waits for it.
    generation: u64,
    /// Every copy acknowledged it once, be it to be sent again.
    seen: bool,
}

impl Extent {
    /// What a run has one of: zeros or data, and whether it was acknowledged once.
    fn kind(&self) -> (bool, bool) {
        (matches!(self.content, Content::Zeros(_)), self.seen)
    }

    fn was_acknowledged(&self) -> bool {
        self.seen || self.is_written()
    }

    /// Every copy has acknowledged it, and it is not to be sent again.
    fn is_written(&self) -> bool {
        !matches!(self.progress, Progress::Dirty | Progress::Sent)
    }
}

/// Bytes by progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Totals {
    pub(super) dirty: u64,
    pub(super) sent: u64,
    pub(super) written: u64,
    pub(super) syncing: u64,
    pub(super) synced: u64,
}

impl Totals {
    /// Everything kept.
    pub(super) fn kept(&self) -> u64 {
        self.dirty + self.sent + self.written + self.syncing + self.synced
    }

    /// Takes the change of one map's sums into the sums of many.
    pub(super) fn replace(&mut self, before: Self, after: Self) {
        self.dirty = self.dirty - before.dirty + after.dirty;
        self.sent = self.sent - before.sent + after.sent;
        self.written = self.written - before.written + after.written;
        self.syncing = self.syncing - before.syncing + after.syncing;
        self.synced = self.synced - before.synced + after.synced;
    }

    fn of(&mut self, progress: Progress) -> &mut u64 {
        match progress {
            Progress::Dirty => &mut self.dirty,
            Progress::Sent => &mut self.sent,
            Progress::Written => &mut self.written,
            Progress::Syncing => &mut self.syncing,
            Progress::Synced => &mut self.synced,
        }
    }
}

/// A run of dirty bytes, taken to be sent.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) offset: u32,
    pub(super) content: Content,
    pub(super) generation: u64,
}

/// The extents of one chunk.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtentMap {
    extents: BTreeMap<u32, Extent>,
    /// Where the dirty ones begin.
    dirty: BTreeSet<u32>,
    /// How many dirty extents each generation has.
    generations: BTreeMap<u64, u32>,
    totals: Totals,
}

impl ExtentMap {
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The oldest generation that has dirty bytes.
    pub(super) fn oldest_dirty(&self) -> Option<u64> {
        self.generations.keys().next().copied()
    }

    /// Puts a write on top of what is there.
    pub(super) fn overlay(&mut self, offset: u32, content: Content, generation: u64) {
        let length = content.length();
        assert!(length > 0, "an extent is never empty");
        self.split(offset);
        self.split(offset + length);
        let generation = self
            .dirty
            .range(offset..offset + length)
            .map(|start| self.extents[start].generation)
            .fold(generation, u64::min);
        self.remove_range(offset, offset + length);
        let progress = Progress::Dirty;
        self.insert(
            offset,
            Extent {
                content,
                progress,
                generation,
                seen: false,
            },
        );
    }

    /// Drops what lies in a range.
    pub(super) fn cut(&mut self, from: u32, to: u32) {
        self.split(from);
        self.split(to);
        self.remove_range(from, to);
    }

    fn remove_range(&mut self, from: u32, to: u32) {
        let starts: Vec<u32> = self.extents.range(from..to).map(|(&at, _)| at).collect();
        for start in starts {
            self.remove(start);
        }
    }

    /// Cuts the extent that spans `at` in two.
    fn split(&mut self, at: u32) {
        let Some((&start, extent)) = self.extents.range(..at).next_back() else {
            return;
        };
        let length = extent.content.length();
        if start + length <= at {
            return;
        }
        let extent = self.remove(start);
        let second = Extent {
            content: extent.content.slice(at - start, length),
            ..extent
        };
        let first = Extent {
            content: extent.content.slice(0, at - start),
            ..extent
        };
        self.insert(start, first);
        self.insert(at, second);
    }

    fn insert(&mut self, start: u32, extent: Extent) {
        *self.totals.of(extent.progress) += extent.content.weight();
        if extent.progress == Progress::Dirty {
            self.dirty.insert(start);
            *self.generations.entry(extent.generation).or_insert(0) += 1;
        }
        let before = self.extents.insert(start, extent);
        assert!(before.is_none(), "the place was made free");
    }

    fn remove(&mut self, start: u32) -> Extent {
        let extent = self.extents.remove(&start).expect("the caller found it");
        *self.totals.of(extent.progress) -= extent.content.weight();
        if extent.progress == Progress::Dirty {
            self.dirty.remove(&start);
            let count = self
                .generations
                .get_mut(&extent.generation)
                .expect("a dirty extent is counted");
            *count -= 1;
            if *count == 0 {
                self.generations.remove(&extent.generation);
            }
        }
        extent
    }

    /// Where dirty extents begin, of generations before `due`, from `from` on.
    pub(super) fn due_starts(&self, from: u32, due: u64) -> impl Iterator<Item = u32> + '_ {
        self.dirty
            .range(from..)
            .copied()
            .filter(move |start| self.extents[start].generation < due)
    }

    /// The first dirty extent in a range.
    pub(super) fn first_dirty(&self, from: u32, to: u32) -> Option<u32> {
        self.dirty.range(from..to).next().copied()
    }

    /// The end of the dirty bytes of one kind that begin at `start` without a gap,
    /// at most `limit`.
    pub(super) fn dirty_end(&self, start: u32, limit: u32) -> u32 {
        let kind = self.extents[&start].kind();
        let mut end = start;
        for (&at, extent) in self.extents.range(start..limit) {
            let same = extent.kind() == kind;
            if at != end || extent.progress != Progress::Dirty || !same {
                break;
            }
            end = at + extent.content.length();
        }
        end.min(limit)
    }

    /// Takes the dirty bytes `start..end` (one kind, without a gap) as one run and
    /// marks them sent.
    pub(super) fn take(&mut self, start: u32, end: u32) -> Run {
        self.split(start);
        self.split(end);
        let starts: Vec<u32> = self.extents.range(start..end).map(|(&at, _)| at).collect();
        let taken: Vec<Extent> = starts.into_iter().map(|at| self.remove(at)).collect();
        let generation = taken
            .iter()
            .map(|extent| extent.generation)
            .min()
            .expect("a run has a member");
        let seen = taken.iter().all(|extent| extent.seen);
        let content = join(taken, end - start);
        self.insert(
            start,
            Extent {
                content: content.clone(),
                progress: Progress::Sent,
                generation,
                seen,
            },
        );
        Run {
            offset: start,
            content,
            generation,
        }
    }

    /// Moves what is at `from` in a range to `to`.
    pub(super) fn advance(&mut self, start: u32, end: u32, from: Progress, to: Progress) {
        let starts: Vec<u32> = self
            .extents
            .range(start..end)
            .filter(|(_, extent)| extent.progress == from)
            .map(|(&at, _)| at)
            .collect();
        for at in starts {
            let extent = self.remove(at);
            self.insert(
                at,
                Extent {
                    progress: to,
                    ..extent
                },
            );
        }
    }

    /// Moves everything at `from` to `to`.
    pub(super) fn advance_all(&mut self, from: Progress, to: Progress) {
        self.advance(0, u32::MAX, from, to);
    }

    /// Drops everything at `progress` that ends at or before `limit`.
    pub(super) fn drop_up_to(&mut self, limit: u32, progress: Progress) {
        let starts: Vec<u32> = self
            .extents
            .range(..limit)
            .filter(|(at, extent)| {
                extent.progress == progress && *at + extent.content.length() <= limit
            })
            .map(|(&at, _)| at)
            .collect();
        for at in starts {
            self.remove(at);
        }
    }

    /// Makes everything dirty again, as of `generation`.
    pub(super) fn dirty_all(&mut self, generation: u64) {
        for (at, extent) in std::mem::take(self).extents {
            self.insert(
                at,
                Extent {
                    progress: Progress::Dirty,
                    generation,
                    seen: extent.was_acknowledged(),
                    content: extent.content,
                },
            );
        }
    }

    /// Drops what lies in a range and was acknowledged once.
    pub(super) fn cut_acknowledged(&mut self, from: u32, to: u32) {
        self.split(from);
        self.split(to);
        let seen = self.extents.range(from..to);
        let seen = seen.filter(|(_, extent)| extent.was_acknowledged());
        let starts: Vec<u32> = seen.map(|(&at, _)| at).collect();
        for start in starts {
            self.remove(start);
        }
    }

    /// Drops what begins before `to` and was acknowledged once, and tells its oldest generation.
    pub(super) fn yield_acknowledged(&mut self, to: u32) -> Option<u64> {
        self.split(to);
        let seen = self.extents.range(..to);
        let seen = seen.filter(|(_, extent)| extent.was_acknowledged());
        let oldest = seen.map(|(_, extent)| extent.generation).min();
        self.cut_acknowledged(0, to);
        oldest
    }

    /// Everything kept in a range, in order.
    pub(super) fn slices(&self, from: u32, to: u32) -> Vec<(u32, Content)> {
        self.slices_of(from, to, |_| true)
    }

    /// What is not acknowledged by every copy in a range, in order.
    pub(super) fn unwritten_slices(&self, from: u32, to: u32) -> Vec<(u32, Content)> {
        self.slices_of(from, to, |extent| !extent.is_written())
    }

    fn slices_of(
        &self,
        from: u32,
        to: u32,
        wanted: impl Fn(&Extent) -> bool,
    ) -> Vec<(u32, Content)> {
        let mut slices = Vec::new();
        for (at, extent) in self.within(from, to) {
            let end = at + extent.content.length();
            if wanted(extent) {
                let (low, high) = (from.max(at), to.min(end));
                slices.push((low, extent.content.slice(low - at, high - at)));
            }
        }
        slices
    }

    /// Where the last dirty extent ends.
    pub(super) fn dirty_to(&self) -> Option<u32> {
        let last = self.dirty.last()?;
        Some(last + self.extents[last].content.length())
    }

    /// Something in a range is not acknowledged by every copy.
    pub(super) fn has_unwritten(&self, from: u32, to: u32) -> bool {
        let mut all = self.within(from, to);
        all.any(|(_, extent)| !extent.is_written())
    }

    /// Something in a range was acknowledged by every copy once.
    pub(super) fn has_acknowledged(&self, from: u32, to: u32) -> bool {
        let mut all = self.within(from, to);
        all.any(|(_, extent)| extent.was_acknowledged())
    }

    /// What lies in a range, be it in part, by where it begins.
    fn within(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, &Extent)> {
        let first = self.extents.range(..=from).next_back();
        let first = first.map_or(from, |(&at, _)| at);
        let all = self.extents.range(first..to).map(|(&at, one)| (at, one));
        all.filter(move |(at, extent)| at + extent.content.length() > from)
    }

    /// Asserts the invariant stated above.
    pub(super) fn check(&self) {
        let mut end = 0;
        let mut totals = Totals::default();
        let mut dirty = BTreeSet::new();
        let mut generations = BTreeMap::new();
        for (&at, extent) in &self.extents {
            assert!(at >= end, "extents do not overlap");
            end = at + extent.content.length();
            *totals.of(extent.progress) += extent.content.weight();
            if extent.progress == Progress::Dirty {
                dirty.insert(at);
                *generations.entry(extent.generation).or_insert(0) += 1;
            }
        }
        assert_eq!(totals, self.totals);
        assert_eq!(dirty, self.dirty);
        assert_eq!(generations, self.generations);
    }
}

/// One content of many, without a copy when it is one already.
fn join(mut extents: Vec<Extent>, length: u32) -> Content {
    if matches!(extents[0].content, Content::Zeros(_)) {
        return Content::Zeros(length);
    }
    if extents.len() == 1 {
        return extents.remove(0).content;
    }
    let mut joined = BytesMut::with_capacity(length as usize);
    for extent in &extents {
        if let Content::Data(data) = &extent.content {
            joined.extend_from_slice(data);
        }
    }
    assert_eq!(
        joined.len(),
        length as usize,
        "a run has one kind and no gap"
    );
    Content::Data(joined.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn data(byte: u8, length: usize) -> Content {
        Content::Data(Bytes::from(vec![byte; length]))
    }

    fn picture(map: &ExtentMap, length: u32) -> Vec<u8> {
        let mut bytes = vec![b'.'; length as usize];
        for (at, content) in map.slices(0, length) {
            for offset in 0..content.length() {
                bytes[(at + offset) as usize] = match &content {
                    Content::Data(data) => data[offset as usize],
                    Content::Zeros(_) => b'0',
                };
            }
        }
        bytes
    }

    #[test]
    fn the_newest_write_wins() {
        let mut map = ExtentMap::default();
        map.overlay(0, data(b'a', 6), 1);
        map.overlay(2, data(b'b', 2), 2);
        map.overlay(5, Content::Zeros(2), 2);
        map.cut(0, 1);
        assert_eq!(picture(&map, 8), b".abba00.");
        map.check();
    }

    #[test]
    fn a_run_joins_dirty_neighbours_up_to_the_limit() {
        let mut map = ExtentMap::default();
        map.overlay(0, data(b'a', 3), 2);
        map.overlay(3, data(b'b', 3), 1);
        assert_eq!(map.dirty_end(0, 5), 5);
        let run = map.take(0, 5);
        assert_eq!((run.offset, run.generation), (0, 1));
        assert_eq!(run.content.length(), 5);
        assert_eq!(map.totals().sent, 5);
        assert_eq!(map.oldest_dirty(), Some(1));
        map.advance(0, 5, Progress::Sent, Progress::Written);
        map.dirty_all(1);
        assert_eq!(picture(&map, 6), b"aaabbb");
        map.check();
    }

    #[test]
    fn random_operations_keep_the_picture_and_the_sums() {
        for seed in 0..50 {
            let mut rng = Rng::new(seed);
            let mut map = ExtentMap::default();
            let mut model = vec![b'.'; 64];
            for step in 0..200_u64 {
                let from = rng.below(60);
                let length = rng.between(1, 63 - from);
                let (start, end) = (from as usize, (from + length) as usize);
                match rng.below(4) {
                    0 | 1 => {
                        let byte = b'a' + (step % 26) as u8;
                        map.overlay(start as u32, data(byte, end - start), step);
                        model[start..end].fill(byte);
                    }
                    2 => {
                        map.cut(start as u32, end as u32);
                        model[start..end].fill(b'.');
                    }
                    _ => {
                        if let Some(first) = map.first_dirty(start as u32, end as u32) {
                            let stop = map.dirty_end(first, end as u32);
                            map.take(first, stop);
                        }
                    }
                }
                map.check();
                assert_eq!(picture(&map, 64), model, "seed {seed} step {step}");
            }
        }
    }
}
