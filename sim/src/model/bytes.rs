//! What the bytes and the length of one file may be.
//!
//! The file is cut into segments. Each knows the sources that a read may find
//! now, those that a crash of servers may bring back, and the writes that are
//! under way: begun by a mount and not yet committed by its flush or fsync. A
//! write whose fate is unknown (it failed, its mount died) stays possible until
//! something definite covers it.
//!
//! Segments are cut at 4 KiB as well, since after a crash old and new content may
//! alternate at that granularity. Invariant: a read that returns something not
//! allowed here broke a promise; the reverse does not hold.

use super::content::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Old or new content after a crash: at this granularity.
const GRAIN: u64 = 4096;

/// One mount in one life.
pub type MountId = u32;

/// How a mount commits what it wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Commit {
    /// Others see it (close, flush).
    Visible,
    /// It also survives the loss of power (fsync; a change of the metadata).
    Durable,
}

#[derive(Clone, Debug)]
struct UnderWay {
    order: u64,
    mount: MountId,
    source: Source,
    /// After how many changes it was answered as done.
    answered: Option<u64>,
    /// Another mount committed something here since this was begun.
    rivalled: bool,
}

/// What a mount closed last, when nothing else may have come behind it.
#[derive(Clone, Copy, Debug)]
struct Closed {
    order: u64,
    mount: MountId,
    source: Source,
}

#[derive(Clone, Debug)]
struct Segment {
    end: u64,
    now: Vec<Source>,
    after_crash: Vec<Source>,
    under_way: Vec<UnderWay>,
    /// Visible and not durable: a later fsync of the same mount vouches for it.
    closed: Option<Closed>,
}

/// A change of the length that is under way.
#[derive(Clone, Debug)]
struct Truncation {
    order: u64,
    mount: MountId,
    size: u64,
    /// Something was committed or cut meanwhile: which came first is unknown.
    rivalled: bool,
}

/// A write that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Growing {
    mount: MountId,
    /// Up to where it goes.
    end: u64,
    /// The least length that the file was cut to meanwhile.
    limit: u64,
}

/// A read that is under way: what it may return, widened by what happens meanwhile.
#[derive(Clone, Debug)]
struct ReadUnderWay {
    read: u64,
    mount: MountId,
    offset: u64,
    allowed: BTreeMap<u64, (u64, Vec<Source>)>,
    size_low: u64,
    size_high: u64,
}

/// A change that was begun and not yet answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeId(u64);

/// What a read returned against what it might have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrongRead {
    /// The first wrong byte of the file, or its end.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// One file.
#[derive(Clone, Debug)]
pub struct FileBytes {
    segments: BTreeMap<u64, Segment>,
    size_low: u64,
    size_high: u64,
    /// Up to where each mount has answered writes, by their order, as far as no truncation
    /// undid it; only those that reach further than every older one.
    written: BTreeMap<MountId, BTreeMap<u64, u64>>,
    truncations: Vec<Truncation>,
    /// What was written and not committed may be lost.
    doubtful: bool,
    /// Writes not answered yet, by their order.
    growing: BTreeMap<u64, Growing>,
    /// Lengths that the file was given: content may end there for whoever reads what a
    /// writer has not committed, or what a crash left.
    ends: BTreeSet<u64>,
    order: u64,
    /// When a server died last, in the order of changes.
    lost_at: u64,
    reads: Vec<ReadUnderWay>,
}

impl Default for FileBytes {
    fn default() -> Self {
        let whole = Segment {
            end: u64::MAX,
            now: vec![Source::Zero],
            after_crash: vec![Source::Zero],
            under_way: Vec::new(),
            closed: None,
        };
        Self {
            segments: BTreeMap::from([(0, whole)]),
            size_low: 0,
            size_high: 0,
            written: BTreeMap::new(),
            truncations: Vec::new(),
            doubtful: false,
            growing: BTreeMap::new(),
            ends: BTreeSet::new(),
            order: 0,
            lost_at: 0,
            reads: Vec::new(),
        }
    }
}

impl FileBytes {
    /// A mount begins to write.
    pub fn begin_write(
        &mut self,
        mount: MountId,
        source: Source,
        offset: u64,
        length: u64,
    ) -> ChangeId {
        self.size_high = self.size_high.max(offset + length);
        let high = self.size_high;
        for read in &mut self.reads {
            read.size_high = read.size_high.max(high);
        }
        let change = self.begin(mount, source, offset, offset + length);
        self.grow(mount, change, offset + length);
        change
    }

    fn grow(&mut self, mount: MountId, change: ChangeId, end: u64) {
        let limit = self.least_cut();
        self.growing.insert(change.0, Growing { mount, end, limit });
        self.ends.insert(end);
    }

    /// A mount begins to make a range read as zeros, growing the file to a length.
    pub fn begin_zero(
        &mut self,
        mount: MountId,
        offset: u64,
        length: u64,
        grows_to: u64,
    ) -> ChangeId {
        self.size_high = self.size_high.max(grows_to);
        let high = self.size_high;
        for read in &mut self.reads {
            read.size_high = read.size_high.max(high);
        }
        // Where it reaches to the end of what the file holds, that is here from now on.
        self.ends.insert(offset);
        let change = self.begin(mount, Source::Zero, offset, offset + length);
        self.grow(mount, change, grows_to);
        change
    }

    /// A mount begins to set the length.
    pub fn begin_truncate(&mut self, mount: MountId, size: u64) -> ChangeId {
        let rivalled = !self.truncations.is_empty();
        for other in &mut self.truncations {
            other.rivalled = true;
        }
        self.truncations.push(Truncation {
            order: self.order + 1,
            mount,
            size,
            rivalled,
        });
        self.size_low = self.size_low.min(size);
        self.size_high = self.size_high.max(size);
        self.ends.insert(size);
        let growing = self.growing.values_mut().map(|growing| &mut growing.limit);
        let written = self.written.values_mut().flat_map(BTreeMap::values_mut);
        for end in written.chain(growing) {
            *end = (*end).min(size);
        }
        let high = self.size_high;
        for read in &mut self.reads {
            read.size_low = read.size_low.min(size);
            read.size_high = read.size_high.max(high);
        }
        self.begin(mount, Source::Zero, size, u64::MAX)
    }

    fn begin(&mut self, mount: MountId, source: Source, from: u64, to: u64) -> ChangeId {
        self.order += 1;
        let order = self.order;
        self.cut_range(from, to);
        for segment in self.covered(from, to) {
            let mut rivalled = false;
            for other in &mut segment.under_way {
                let unordered = other.mount == mount && other.answered.is_none();
                other.rivalled |= unordered;
                rivalled |= unordered;
            }
            add(&mut segment.after_crash, source);
            segment.under_way.push(UnderWay {
                order,
                mount,
                source,
                answered: None,
                rivalled,
            });
        }
        self.widen(from, to, source);
        ChangeId(order)
    }

    /// A write was answered as done: the mount itself sees it from now on.
    pub fn answer_write(&mut self, mount: MountId, change: ChangeId, end: u64) {
        let growing = self.growing.remove(&change.0);
        let end = growing.map_or(end, |growing| end.min(growing.limit));
        let written = self.written.entry(mount).or_default();
        if written.range(..change.0).all(|(_, older)| *older < end) {
            written.retain(|order, newer| *order < change.0 || *newer > end);
            written.insert(change.0, end);
        }
        for segment in self.segments.values_mut() {
            segment.answer(change.0, self.order);
        }
    }

    /// A range was made zeros, and the file grew: at the master too, so that a
    /// truncation under way may have come before or behind it.
    pub fn answer_zero(&mut self, mount: MountId, change: ChangeId, grows_to: u64) {
        for truncation in &mut self.truncations {
            truncation.rivalled |= grows_to > truncation.size;
        }
        self.answer_write(mount, change, grows_to);
    }

    /// A truncation was answered as done: it is visible and durable.
    pub fn answer_truncate(&mut self, mount: MountId, change: ChangeId, size: u64) {
        let rivalled = self.end_truncation(change);
        if !rivalled && !self.others_write_beyond(mount, change.0, size) {
            (self.size_low, self.size_high) = (size, size);
        }
        for segment in self.segments.values_mut() {
            segment.answer(change.0, self.order);
            segment.commit(|entry| entry.order == change.0, Commit::Durable);
        }
        self.merge();
    }

    /// Whether something else changed the length meanwhile.
    fn end_truncation(&mut self, change: ChangeId) -> bool {
        let at = self.truncations.iter().position(|t| t.order == change.0);
        let at = at.expect("a truncation ends once, after it began");
        self.truncations.swap_remove(at).rivalled
    }

    /// Whether a write is under way that may lengthen the file again.
    fn others_write_beyond(&self, mount: MountId, upto: u64, size: u64) -> bool {
        // One of the same mount that is not answered may come behind it too.
        let growing = self.growing.values().any(|growing| growing.end > size);
        growing
            || self.segments.range(..).any(|(_, segment)| {
                segment.end > size
                    && segment.under_way.iter().any(|entry| {
                        entry.source != Source::Zero && (entry.mount != mount || entry.order > upto)
                    })
            })
    }

    /// The number of the newest change begun: what a flush that begins now covers.
    #[must_use]
    pub fn newest_change(&self) -> ChangeId {
        ChangeId(self.order)
    }

    /// A flush or fsync of a mount begins.
    pub fn begin_commit(&mut self) -> ChangeId {
        self.order += 1;
        ChangeId(self.order)
    }

    /// A flush or fsync of a mount is answered as done. It says nothing of writes that were
    /// not answered when it began, nor, unless it is durable, what became of the others when a
    /// server died before it was answered: it may have been done by then.
    pub fn commit(&mut self, mount: MountId, upto: ChangeId, how: Commit) {
        let covered = |entry: &UnderWay| {
            entry.mount == mount && entry.answered.is_some_and(|changes| changes < upto.0)
        };
        let written = self
            .segments
            .values()
            .filter(|s| s.under_way.iter().any(covered));
        let end = written.map(|segment| segment.end).max().unwrap_or(0);
        let written = self.written.get(&mount);
        let own = written.and_then(|written| written.range(..=upto.0).map(|(_, end)| *end).max());
        let own = own.unwrap_or(0).min(end.max(self.size_low));
        self.size_low = self.size_low.max(own.min(self.least_cut()));
        for truncation in &mut self.truncations {
            truncation.rivalled |= end > truncation.size;
        }
        let is_lossy = how == Commit::Visible && self.lost_at >= upto.0;
        for segment in self.segments.values_mut() {
            let is_covered = segment.under_way.iter().any(covered);
            segment.commit(covered, how);
            if is_covered && is_lossy {
                segment.lose();
            }
            if how == Commit::Durable {
                segment.vouch(mount, upto);
            }
        }
        self.merge();
    }

    /// The least length that the file is being cut to.
    fn least_cut(&self) -> u64 {
        let sizes = self.truncations.iter().map(|truncation| truncation.size);
        sizes.min().unwrap_or(u64::MAX)
    }

    /// A change failed, or a flush or fsync that covers it did: its fate is unknown.
    pub fn fail(&mut self, change: ChangeId) {
        self.growing.remove(&change.0);
        self.give_up(|entry| entry.order == change.0);
    }

    /// A truncation failed.
    pub fn fail_truncate(&mut self, change: ChangeId) {
        self.end_truncation(change);
        self.fail(change);
    }

    /// A flush or fsync failed: the fate of all that the mount wrote before it began is
    /// unknown. What it wrote since then may be lost with it, as a handle is told once; or it
    /// is still to be sent, and comes behind what others write meanwhile.
    pub fn fail_commit(&mut self, mount: MountId, upto: ChangeId) {
        self.written.remove(&mount);
        self.disclaim(mount);
        self.give_up(|entry| entry.mount == mount && entry.order <= upto.0);
        for segment in self.segments.values_mut() {
            let own = segment.under_way.iter_mut().filter(|e| e.mount == mount);
            own.for_each(|entry| entry.rivalled = true);
        }
    }

    /// A mount died: the fate of all that it had not committed is unknown.
    pub fn lose_mount(&mut self, mount: MountId) {
        self.truncations.retain(|t| t.mount != mount);
        self.growing.retain(|_, growing| growing.mount != mount);
        self.written.remove(&mount);
        self.disclaim(mount);
        self.give_up(|entry| entry.mount == mount);
    }

    /// A mount was told of a loss, or is no more: its later fsyncs say nothing of what it
    /// closed before.
    fn disclaim(&mut self, mount: MountId) {
        for segment in self.segments.values_mut() {
            segment.closed = segment.closed.filter(|closed| closed.mount != mount);
        }
    }

    /// A server died: what was visible but not durable may be old or new again.
    pub fn lose_server(&mut self) {
        self.order += 1;
        self.lost_at = self.order;
        let mut widened = Vec::new();
        for (&start, segment) in &mut self.segments {
            let end = segment.end;
            let back = segment.lose().into_iter();
            widened.extend(back.map(|source| (start, end, source)));
        }
        for (start, end, source) in widened {
            self.widen(start, end, source);
        }
    }

    fn give_up(&mut self, chosen: impl Fn(&UnderWay) -> bool) {
        for segment in self.segments.values_mut() {
            let (now, under_way) = (&mut segment.now, &mut segment.under_way);
            let before = under_way.len();
            under_way.retain(|entry| {
                let lost = chosen(entry);
                if lost {
                    add(now, entry.source);
                }
                !lost
            });
            let some_lost = under_way.len() < before;
            under_way.iter_mut().for_each(|e| e.rivalled |= some_lost);
            segment.closed = segment.closed.filter(|_| !some_lost);
        }
        self.merge();
    }

    /// What mounts wrote and did not commit may be lost from now on, before they are told.
    pub fn doubt(&mut self) {
        let was_doubtful = std::mem::replace(&mut self.doubtful, true);
        for segment in self.segments.values_mut() {
            segment.closed = None;
        }
        if !was_doubtful {
            self.doubt_reads();
        }
    }

    /// What is being read need not be what its mount wrote any more.
    fn doubt_reads(&mut self) {
        for read in &mut self.reads {
            read.size_low = read.size_low.min(self.size_low);
            for (&start, segment) in &self.segments {
                for source in segment.readable(read.mount, false) {
                    read.widen(start, segment.end, source);
                }
            }
        }
    }

    /// A mount begins to read.
    pub fn begin_read(&mut self, read: u64, mount: MountId, offset: u64, length: u64) {
        let end = offset + length;
        let mut allowed = BTreeMap::new();
        for (&start, segment) in self.overlapping(offset, end) {
            let range = (start.max(offset), segment.end.min(end));
            allowed.insert(range.0, (range.1, segment.readable(mount, !self.doubtful)));
        }
        let written = self.own_end(mount);
        self.reads.push(ReadUnderWay {
            read,
            mount,
            offset,
            allowed,
            size_low: self.size_low.max(written),
            size_high: self.size_high,
        });
    }

    /// A read failed or its mount died.
    pub fn forget_read(&mut self, read: u64) {
        self.reads.retain(|r| r.read != read);
    }

    /// Judges what a read returned. `length` is what it asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn end_read(
        &mut self,
        read: u64,
        seed: u64,
        length: u64,
        bytes: &[u8],
    ) -> Result<(), WrongRead> {
        let at = self.reads.iter().position(|r| r.read == read);
        let read = self
            .reads
            .swap_remove(at.expect("a read ends once, after it began"));
        read.judge_length(length, bytes.len() as u64)?;
        read.judge_bytes(seed, bytes)
    }

    /// The least and most that the length may be, as this mount sees it.
    #[must_use]
    pub fn size(&self, mount: MountId) -> (u64, u64) {
        (self.size_low.max(self.own_end(mount)), self.size_high)
    }

    /// Up to where a mount sees what it wrote itself.
    fn own_end(&self, mount: MountId) -> u64 {
        let written = self.written.get(&mount).filter(|_| !self.doubtful);
        let ends = written.into_iter().flat_map(BTreeMap::values);
        ends.copied().max().unwrap_or(0)
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.truncations.is_empty() && self.segments.values().all(|s| s.under_way.is_empty())
    }

    /// The ranges whose content after a loss of power is one certain write.
    pub fn durable_ranges(&self) -> impl Iterator<Item = (u64, u64, Source)> + '_ {
        self.segments.iter().filter_map(|(&start, segment)| {
            match (segment.after_crash.as_slice(), segment.under_way.is_empty()) {
                ([source], true) => Some((start, segment.end, *source)),
                _ => None,
            }
        })
    }

    fn overlapping(&self, from: u64, to: u64) -> impl Iterator<Item = (&u64, &Segment)> {
        let first = self
            .segments
            .range(..=from)
            .next_back()
            .map_or(0, |(&start, _)| start);
        self.segments
            .range(first..)
            .take_while(move |(start, _)| **start < to)
    }

    fn covered(&mut self, from: u64, to: u64) -> impl Iterator<Item = &mut Segment> {
        self.segments
            .range_mut(from..)
            .take_while(move |(start, _)| **start < to)
            .map(|(_, s)| s)
    }

    /// Makes `from` and `to` boundaries, and the grain in between where it is finite.
    fn cut_range(&mut self, from: u64, to: u64) {
        self.cut_at(from);
        if to < u64::MAX {
            self.cut_at(to);
            let first = (from / GRAIN + 1) * GRAIN;
            for at in (first..to).step_by(GRAIN as usize) {
                self.cut_at(at);
            }
        }
    }

    fn cut_at(&mut self, at: u64) {
        let (&start, segment) = self
            .segments
            .range_mut(..=at)
            .next_back()
            .expect("0 is always there");
        if start < at {
            let behind = segment.clone();
            segment.end = at;
            self.segments.insert(at, behind);
        }
    }

    /// Joins neighbours that are alike and certain. What is uncertain stays apart: one
    /// write may have ended where the other segment begins, and each reads as what it is.
    /// So does what content may end between.
    fn merge(&mut self) {
        let mut merged: Vec<(u64, Segment)> = Vec::with_capacity(self.segments.len());
        for (start, segment) in std::mem::take(&mut self.segments) {
            match merged.last_mut() {
                Some((_, last)) if last.joins(&segment) && !self.ends.contains(&start) => {
                    last.end = segment.end;
                }
                _ => merged.push((start, segment)),
            }
        }
        self.segments = merged.into_iter().collect();
    }

    fn widen(&mut self, from: u64, to: u64, source: Source) {
        for read in &mut self.reads {
            read.widen(from, to, source);
        }
    }
}

impl Segment {
    /// Older writes of the mount stay possible: another mount may have found them in
    /// the copies, and finds them there until this one is committed.
    fn answer(&mut self, order: u64, changes: u64) {
        if let Some(entry) = self.under_way.iter_mut().find(|e| e.order == order) {
            entry.answered = Some(changes);
        }
    }

    /// Commits the newest chosen entry and drops the older chosen ones.
    fn commit(&mut self, chosen: impl Fn(&UnderWay) -> bool, how: Commit) {
        let Some(at) = self.under_way.iter().rposition(&chosen) else {
            return;
        };
        let unordered: Vec<Source> = self
            .under_way
            .iter()
            .filter(|e| chosen(e) && e.rivalled)
            .map(|e| e.source)
            .collect();
        let winner = self.under_way[at].clone();
        self.under_way.retain(|entry| !chosen(entry));
        for other in &mut self.under_way {
            other.rivalled |= other.mount != winner.mount || other.order < winner.order;
        }
        settle(&mut self.now, &winner, &unordered);
        let is_certain = how == Commit::Visible && !winner.rivalled && unordered.is_empty();
        self.closed = is_certain.then_some(Closed {
            order: winner.order,
            mount: winner.mount,
            source: winner.source,
        });
        match how {
            Commit::Durable => settle(&mut self.after_crash, &winner, &unordered),
            Commit::Visible => {
                add(&mut self.after_crash, winner.source);
            }
        }
        for entry in &self.under_way {
            add(&mut self.after_crash, entry.source);
        }
    }

    /// An fsync of a mount that began after a change was begun was answered as done: what
    /// the mount closed before that is durable, too, or the fsync had told of its loss.
    fn vouch(&mut self, mount: MountId, upto: ChangeId) {
        let covered = |closed: &Closed| closed.mount == mount && closed.order <= upto.0;
        let Some(closed) = self.closed.filter(covered) else {
            return;
        };
        self.closed = None;
        self.now = vec![closed.source];
        self.after_crash = vec![closed.source];
        for entry in &self.under_way {
            add(&mut self.after_crash, entry.source);
        }
    }

    /// What was not durable may be as it was before. Returns what may be there again.
    fn lose(&mut self) -> Vec<Source> {
        let (now, after_crash) = (&mut self.now, &self.after_crash);
        let back = after_crash.iter().copied();
        back.filter(|source| add(now, *source)).collect()
    }

    /// What a read of a mount may find; whether it is certain to see what it wrote.
    fn readable(&self, mount: MountId, certain: bool) -> Vec<Source> {
        let own = self
            .under_way
            .iter()
            .rfind(|e| e.mount == mount && e.answered.is_some() && certain);
        let mut allowed = match own {
            Some(own) if !own.rivalled => vec![own.source],
            _ => self.now.clone(),
        };
        for entry in &self.under_way {
            let superseded = own.is_some_and(|own| {
                entry.mount == mount && entry.order < own.order && !own.rivalled
            });
            if !superseded {
                add(&mut allowed, entry.source);
            }
        }
        allowed
    }

    fn joins(&self, next: &Self) -> bool {
        let plain = self.under_way.is_empty() && next.under_way.is_empty();
        let certain = self.now.len() == 1 && self.after_crash.len() == 1;
        plain && certain && self.now == next.now && self.after_crash == next.after_crash
    }
}

/// The value is certain unless a rival may have come behind it.
fn settle(sources: &mut Vec<Source>, winner: &UnderWay, unordered: &[Source]) {
    if !winner.rivalled {
        sources.clear();
    }
    for &source in unordered {
        add(sources, source);
    }
    add(sources, winner.source);
}

fn add(sources: &mut Vec<Source>, source: Source) -> bool {
    let new = !sources.contains(&source);
    if new {
        sources.push(source);
    }
    new
}

impl ReadUnderWay {
    fn widen(&mut self, from: u64, to: u64, source: Source) {
        let touched: Vec<u64> = self
            .allowed
            .iter()
            .filter(|(start, (end, _))| **start < to && *end > from)
            .map(|(&start, _)| start)
            .collect();
        for start in touched {
            self.split_at(from.max(start));
            self.split_at(to);
            // Where it is changed meanwhile, old and new may alternate here too: what a
            // truncation begins to cut reaches too far to be cut at each grain itself.
            let end = self.allowed[&from.max(start)].0;
            let first = (from.max(start) / GRAIN + 1) * GRAIN;
            for at in (first..end).step_by(GRAIN as usize) {
                self.split_at(at);
            }
        }
        for (start, (end, sources)) in &mut self.allowed {
            if *start >= from && *end <= to {
                add(sources, source);
            }
        }
    }

    fn split_at(&mut self, at: u64) {
        let Some((&start, (end, sources))) = self.allowed.range_mut(..=at).next_back() else {
            return;
        };
        if start < at && at < *end {
            let behind = (*end, sources.clone());
            *end = at;
            self.allowed.insert(at, behind);
        }
    }

    fn judge_length(&self, asked: u64, got: u64) -> Result<(), WrongRead> {
        let end = self.offset + got;
        let wrong = |what| Err(WrongRead { offset: end, what });
        if got > 0 && end > self.size_high {
            return wrong(format!(
                "{got} bytes at {} reach beyond the file's end at most {}",
                self.offset, self.size_high
            ));
        }
        if got < asked && end < self.size_low && self.offset < self.size_low {
            return wrong(format!(
                "the file ends at {end} or before, but is {} bytes at least",
                self.size_low
            ));
        }
        Ok(())
    }

    fn judge_bytes(&self, seed: u64, bytes: &[u8]) -> Result<(), WrongRead> {
        for (&start, (end, sources)) in &self.allowed {
            let from = (start - self.offset) as usize;
            let to = ((*end - self.offset) as usize).min(bytes.len());
            if from >= to {
                continue;
            }
            let piece = &bytes[from..to];
            if !sources
                .iter()
                .any(|source| source.matches(seed, start, piece))
            {
                return Err(wrong_piece(seed, start, piece, sources));
            }
        }
        Ok(())
    }
}

fn wrong_piece(seed: u64, start: u64, piece: &[u8], sources: &[Source]) -> WrongRead {
    let mut expected = vec![0; piece.len()];
    let good = sources.iter().map(|source| {
        source.fill(seed, start, &mut expected);
        expected
            .iter()
            .zip(piece)
            .take_while(|(a, b)| a == b)
            .count()
    });
    let good = good.max().unwrap_or(0);
    let found = match piece[good..].iter().all(|&byte| byte == 0) {
        true => "zeros".to_owned(),
        false => format!("{:02x?}", &piece[good..piece.len().min(good + 8)]),
    };
    WrongRead {
        offset: start + good as u64,
        what: format!(
            "{found} in the range {start}..{}, where only {sources:?} may be",
            start + piece.len() as u64
        ),
    }
}

#[cfg(test)]
mod tests;
