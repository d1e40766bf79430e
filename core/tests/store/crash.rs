//! Random work on a few parts, crashes at any call to the files, and after each
//! recovery every part is exactly as at its last commit, or as at the one that
//! was under way. Between crashes everything reads as it was written.

use crate::bench::*;
use crate::files::{Files, Shared};
use antler_core::chunk::geometry::StripeShape;
use antler_core::chunk::operation::{
    CommitAction, DiskError, DiskReply, DiskRequest, PartCommit, ReceiveStep,
};
use antler_core::chunk::{ChunkStore, Progress, StoreMark, Work};
use antler_core::ids::{ChunkId, ChunkVersion, Epoch, PartId};
use antler_core::limits::UNIT_SIZE;
use antler_core::rng::Rng;
use antler_core::vfs::{FileId, Vfs};
use bytes::Bytes;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const PARTS: u64 = 5;
/// Parts are worked on up to here: six blocks.
const EXTENT: usize = 6 << 16;

/// Some are whole copies, some parts of stripes.
fn name(chunk: u64) -> PartId {
    match chunk {
        1 | 3 => PartId {
            chunk: ChunkId(chunk),
            part: 2,
        },
        _ => part(chunk),
    }
}

/// What a part is like: its units, each of UNIT_SIZE bytes.
#[derive(Clone, PartialEq, Eq, Default)]
struct Content {
    version: u64,
    epoch: u64,
    stripe: Option<StripeShape>,
    units: BTreeMap<usize, Rc<Vec<u8>>>,
}

impl Content {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let mut start = 0;
        while start < data.len() {
            let at = offset + start;
            let end = data.len().min(start + UNIT_SIZE - at % UNIT_SIZE);
            let unit = self.units.entry(at / UNIT_SIZE);
            let unit = unit.or_insert_with(|| Rc::new(vec![0; UNIT_SIZE]));
            let content = &mut Rc::make_mut(unit)[at % UNIT_SIZE..];
            content[..end - start].copy_from_slice(&data[start..end]);
            start = end;
        }
    }

    fn zero(&mut self, from: usize, to: usize) {
        self.units
            .retain(|unit, _| !(from <= unit * UNIT_SIZE && (unit + 1) * UNIT_SIZE <= to));
        for (unit, content) in &mut self.units {
            let start = unit * UNIT_SIZE;
            let (from, to) = (from.max(start), to.min(start + UNIT_SIZE));
            if from < to {
                Rc::make_mut(content)[from - start..to - start].fill(0);
            }
        }
    }

    fn bytes(&self, from: usize, to: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for unit in from / UNIT_SIZE..to / UNIT_SIZE {
            match self.units.get(&unit) {
                Some(content) => bytes.extend_from_slice(content),
                None => bytes.resize(bytes.len() + UNIT_SIZE, 0),
            }
        }
        bytes
    }

    fn present(&self) -> Vec<u8> {
        let blocks = self
            .units
            .last_key_value()
            .map_or(0, |(unit, _)| unit / 16 + 1);
        let mut bits = vec![0; blocks * 2];
        for unit in self.units.keys() {
            bits[unit / 8] |= 1 << (unit % 8);
        }
        bits
    }
}

/// What must be readable now, and what after a crash.
#[derive(Default)]
struct Model {
    now: BTreeMap<PartId, Content>,
    durable: BTreeMap<PartId, Content>,
    received: BTreeMap<PartId, Content>,
    /// A commit that is under way: what each part will be.
    target: BTreeMap<PartId, Option<Content>>,
}

struct World {
    rng: Rng,
    files: Rc<RefCell<Files>>,
    store: ChunkStore<Shared>,
    model: Model,
    commit: Option<(Work, Vec<PartCommit>)>,
    checkpoint: Option<Work>,
    marks: BTreeSet<&'static str>,
    stamp: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let shared = Shared::default();
        Self {
            rng: Rng::new(seed),
            files: shared.0.clone(),
            store: open(shared).unwrap(),
            model: Model::default(),
            commit: None,
            checkpoint: None,
            marks: BTreeSet::new(),
            stamp: 0,
        }
    }

    fn part(&mut self) -> PartId {
        name(self.rng.below(PARTS))
    }

    fn is_committing(&self, part: PartId) -> bool {
        let commit = self.commit.as_ref();
        commit.is_some_and(|(_, changes)| changes.iter().any(|change| change.part == part))
    }

    /// Does one random thing; false when the files have crashed.
    fn act(&mut self) -> bool {
        match self.rng.below(100) {
            0..=34 => self.write(),
            35..=41 => self.zero(),
            42..=49 => self.receive(),
            50..=57 => self.begin_commit(),
            58 => self.begin_checkpoint(),
            59 => self.flush(),
            60..=84 => self.step(),
            _ => self.read(),
        }
        if self.store.failed().is_none() {
            self.store.check_invariants(self.rng.one_in(10));
        }
        for mark in self.store.take_marks() {
            self.marks.insert(mark_name(mark));
        }
        !self.files.borrow().crashed()
    }

    fn range(&mut self) -> (usize, usize) {
        let length = match self.rng.below(6) {
            0 => self.rng.between(1, 200),
            1 => UNIT_SIZE as u64 * self.rng.between(1, 3),
            2 => self.rng.between(1, 20_000),
            3 => 65_536,
            4 => 65_536 * self.rng.between(1, 3),
            _ => self.rng.between(1, 150_000),
        } as usize;
        let length = length.min(EXTENT);
        let align = [1, 512, UNIT_SIZE as u64, 65_536][self.rng.below(4) as usize];
        let offset = self.rng.below((EXTENT - length) as u64 / align + 1) * align;
        (offset as usize, length)
    }

    fn write(&mut self) {
        let part = self.part();
        if self.is_committing(part) {
            return;
        }
        let (offset, length) = self.range();
        let drop_from = self
            .rng
            .one_in(8)
            .then(|| self.rng.below(EXTENT as u64) as usize);
        self.stamp += 1;
        let data = pattern(self.stamp, length);
        let (version, epoch) = self.stamp_of(part);
        let request = DiskRequest::Write {
            part,
            version: ChunkVersion(version),
            epoch: Epoch(epoch),
            drop_from: drop_from.map(|from| from as u32),
            offset: offset as u32,
            checksums: checksums(offset as u32, &data),
            data: Bytes::from(data.clone()),
        };
        if self.change(request) {
            let content = self.model.now.entry(part).or_default();
            if let Some(from) = drop_from {
                content.zero(from, usize::MAX);
            }
            content.write(offset, &data);
            (content.version, content.epoch) = (version, epoch);
        }
    }

    /// The version and epoch of the next change: the same for a while.
    fn stamp_of(&mut self, part: PartId) -> (u64, u64) {
        let now = self.model.now.get(&part);
        let (version, epoch) = now.map_or((1, 1), |content| (content.version, content.epoch));
        let more = u64::from(self.rng.one_in(10));
        (version + more, epoch + more)
    }

    fn change(&mut self, request: DiskRequest) -> bool {
        let outcome = run(&mut self.store, request);
        self.changed(outcome)
    }

    /// Whether a change was made; a full disk refuses, a crashed one fails.
    fn changed(&mut self, outcome: Outcome) -> bool {
        match outcome {
            Ok(_) => true,
            Err(DiskError::Full) => false,
            Err(DiskError::Medium(_)) if self.files.borrow().crashed() => false,
            Err(error) => panic!("a change failed: {error:?}"),
        }
    }

    fn zero(&mut self) {
        let part = self.part();
        if self.is_committing(part) {
            return;
        }
        let (offset, length) = self.range();
        let (version, epoch) = self.stamp_of(part);
        let request = DiskRequest::Zero {
            part,
            version: ChunkVersion(version),
            epoch: Epoch(epoch),
            offset: offset as u32,
            length: length as u32,
        };
        if self.change(request) {
            let content = self.model.now.entry(part).or_default();
            content.zero(offset, offset + length);
            (content.version, content.epoch) = (version, epoch);
        }
    }

    fn receive(&mut self) {
        let part = self.part();
        if self.is_committing(part) {
            return;
        }
        if !self.model.received.contains_key(&part) || self.rng.one_in(6) {
            let shape = [(2, 1), (4, 2)][self.rng.below(2) as usize];
            let shape = StripeShape::new(shape.0, shape.1).unwrap();
            let stripe = (part.part > 0).then_some(shape);
            let step = ReceiveStep::Begin { stripe };
            if self.change(DiskRequest::Receive { part, step }) {
                let content = Content {
                    stripe,
                    ..Content::default()
                };
                self.model.received.insert(part, content);
            }
            return;
        }
        if self.rng.one_in(12) {
            if self.change(DiskRequest::Receive {
                part,
                step: ReceiveStep::Abandon,
            }) {
                self.model.received.remove(&part);
            }
            return;
        }
        let (offset, length) = self.range();
        let offset = offset / UNIT_SIZE * UNIT_SIZE;
        let length = length.next_multiple_of(UNIT_SIZE);
        self.stamp += 1;
        let data = pattern(self.stamp, length);
        let step = ReceiveStep::Piece {
            offset: offset as u32,
            checksums: checksums(offset as u32, &data),
            data: Bytes::from(data.clone()),
        };
        if self.change(DiskRequest::Receive { part, step }) {
            let content = self.model.received.get_mut(&part).unwrap();
            content.write(offset, &data);
        }
    }

    fn begin_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        let mut changes = Vec::new();
        for chunk in 0..PARTS {
            if self.rng.one_in(2) {
                let part = name(chunk);
                let action = self.action(part);
                self.model.target.insert(part, self.target(part, action));
                changes.push(PartCommit { part, action });
            }
        }
        let request = DiskRequest::Commit {
            changes: changes.clone(),
        };
        let work = self.store.start(request);
        self.commit = Some((work, changes));
    }

    fn action(&mut self, part: PartId) -> CommitAction {
        let (version, epoch) = self.stamp_of(part);
        let (version, epoch) = (ChunkVersion(version), Epoch(epoch));
        match self.rng.below(10) {
            0 => CommitAction::Delete,
            1..=3 => CommitAction::Raise {
                version,
                epoch,
                create: self.rng.one_in(2),
            },
            4 => CommitAction::Receive { version, epoch },
            _ => CommitAction::Keep,
        }
    }

    fn target(&self, part: PartId, action: CommitAction) -> Option<Content> {
        let now = self.model.now.get(&part).cloned();
        match action {
            CommitAction::Keep => now,
            CommitAction::Raise {
                version,
                epoch,
                create,
            } => now
                .or_else(|| create.then(Content::default))
                .map(|content| Content {
                    version: version.0,
                    epoch: epoch.0,
                    ..content
                }),
            CommitAction::Receive { version, epoch } => {
                let received = self.model.received.get(&part).cloned();
                Some(Content {
                    version: version.0,
                    epoch: epoch.0,
                    ..received.unwrap_or_default()
                })
            }
            CommitAction::Delete => None,
        }
    }

    fn flush(&mut self) {
        let parts = vec![self.part(), self.part()];
        self.change(DiskRequest::Flush { parts });
    }

    fn begin_checkpoint(&mut self) {
        if self.checkpoint.is_none() {
            self.checkpoint = Some(self.store.start(DiskRequest::Checkpoint));
        }
    }

    /// Moves one of the works on by a few steps.
    fn step(&mut self) {
        for _ in 0..self.rng.between(1, 6) {
            match self.rng.one_in(2) {
                true => self.step_commit(),
                false => self.step_checkpoint(),
            }
        }
    }

    fn step_checkpoint(&mut self) {
        if let Some(mut work) = self.checkpoint.take() {
            match self.advance_once(&mut work) {
                Some(result) => drop(self.changed(result)),
                None => self.checkpoint = Some(work),
            }
        }
    }

    fn step_commit(&mut self) {
        let Some((mut work, changes)) = self.commit.take() else {
            return;
        };
        let Some(result) = self.advance_once(&mut work) else {
            self.commit = Some((work, changes));
            return;
        };
        match result {
            Ok(DiskReply::Committed(states)) => {
                assert_eq!(states.len(), changes.len());
                for (change, state) in changes.iter().zip(states) {
                    let target = self.model.target.remove(&change.part).unwrap();
                    let seen = state.map(|stored| (stored.version.0, stored.epoch.0));
                    let wanted = target
                        .as_ref()
                        .map(|content| (content.version, content.epoch));
                    assert_eq!(seen, wanted, "{change:?}");
                    self.settle(change, target);
                }
            }
            Err(DiskError::Full) => self.settle_refused(&changes),
            other => drop(self.changed(other)),
        }
    }

    fn settle(&mut self, change: &PartCommit, target: Option<Content>) {
        let part = change.part;
        if matches!(
            change.action,
            CommitAction::Receive { .. } | CommitAction::Delete
        ) {
            self.model.received.remove(&part);
        }
        match target {
            Some(content) => {
                self.model.durable.insert(part, content.clone());
                self.model.now.insert(part, content);
            }
            None => {
                self.model.durable.remove(&part);
                self.model.now.remove(&part);
            }
        }
    }

    /// Of a commit that found the disk full, each part is done or not: it is
    /// committed once more, with room.
    fn settle_refused(&mut self, changes: &[PartCommit]) {
        self.files.borrow_mut().limit(usize::MAX / 4);
        for change in changes {
            if self.files.borrow().crashed() {
                // What is left is done or not, as it was before.
                return;
            }
            let part = change.part;
            let actual = self.actual(part);
            self.model.target.insert(part, actual.clone());
            let abandon = ReceiveStep::Abandon;
            self.change(DiskRequest::Receive {
                part,
                step: abandon,
            });
            self.model.received.remove(&part);
            self.model.now.remove(&part);
            self.model
                .now
                .extend(actual.clone().map(|content| (part, content)));
            let action = match actual {
                Some(_) => CommitAction::Keep,
                None => CommitAction::Delete,
            };
            if commit(&mut self.store, &[(part, action)]).is_ok() {
                self.model.target.remove(&part);
                self.settle(&PartCommit { part, action }, actual);
            }
        }
    }

    fn advance_once(&mut self, work: &mut Work) -> Option<Outcome> {
        match self.store.advance(work, None) {
            Progress::More => None,
            Progress::Done(result) => Some(result),
            Progress::Sync(file) => self.sync_on(work, file),
        }
    }

    fn sync_on(&mut self, work: &mut Work, mut file: FileId) -> Option<Outcome> {
        loop {
            let synced = self.store.vfs_mut().sync(file);
            match self.store.advance(work, Some(synced)) {
                Progress::Done(result) => return Some(result),
                Progress::More => return None,
                Progress::Sync(again) => file = again,
            }
        }
    }

    /// A part as the store has it.
    fn actual(&mut self, part: PartId) -> Option<Content> {
        let stored = self.store.parts().find(|stored| stored.part == part)?;
        let map = run(&mut self.store, DiskRequest::Map { part }).unwrap();
        let DiskReply::Map {
            present, version, ..
        } = map
        else {
            panic!("not a map")
        };
        assert_eq!(version, stored.version);
        let bytes = read(&mut self.store, part, 0, EXTENT as u32).unwrap();
        let units = (0..present.len() * 8).filter(|unit| present[unit / 8] >> (unit % 8) & 1 == 1);
        let units = units.map(|unit| {
            let content = bytes[unit * UNIT_SIZE..][..UNIT_SIZE].to_vec();
            (unit, Rc::new(content))
        });
        Some(Content {
            version: stored.version.0,
            epoch: stored.epoch.0,
            stripe: self.store.stripe(part),
            units: units.collect(),
        })
    }

    fn read(&mut self) {
        let part = self.part();
        let from = self.rng.below((EXTENT / UNIT_SIZE) as u64) as usize;
        let to = self
            .rng
            .between(from as u64 + 1, (EXTENT / UNIT_SIZE) as u64) as usize;
        let (from, to) = (from * UNIT_SIZE, to * UNIT_SIZE);
        let got = read(&mut self.store, part, from as u32, (to - from) as u32);
        match (got, self.model.now.get(&part)) {
            (Ok(data), Some(content)) => {
                assert!(
                    data == content.bytes(from, to),
                    "{part} reads as it was written"
                );
            }
            (Err(DiskError::NotFound), None) => {}
            (Err(DiskError::Medium(_)), _) if self.files.borrow().crashed() => {}
            // A part that a commit makes or removes is there from its frame on.
            (_, _) if self.is_committing(part) => {}
            (got, wanted) => panic!("{part}: {got:?} but it is there: {}", wanted.is_some()),
        }
        if self.rng.one_in(4)
            && let Ok(DiskReply::Map { present, .. }) =
                run(&mut self.store, DiskRequest::Map { part })
            && !self.is_committing(part)
        {
            assert_eq!(present, self.model.now[&part].present(), "{part}");
        }
    }

    /// The power fails, or the process dies; maybe again while it recovers.
    fn crash(&mut self) {
        let kill = self.rng.one_in(5);
        self.commit = None;
        self.checkpoint = None;
        self.model.received.clear();
        let mut files = self.files.borrow().clone();
        loop {
            files = match kill {
                true => files.after_kill(),
                false => files.after_power_cut(&mut self.rng),
            };
            files.limit(usize::MAX / 4);
            if self.rng.one_in(2) {
                files.crash_after(self.rng.below(60) + 1);
            }
            let shared = Shared(Rc::new(RefCell::new(files.clone())));
            match open(shared.clone()) {
                Ok(store) if !shared.0.borrow().crashed() => {
                    self.store = store;
                    self.files = shared.0;
                    self.files.borrow_mut().spare();
                    break;
                }
                Err(error) if !shared.0.borrow().crashed() => panic!("recovery failed: {error}"),
                _ => files = shared.0.borrow().clone(),
            }
        }
        self.check_recovered();
    }

    fn check_recovered(&mut self) {
        self.store.check_invariants(true);
        let target = std::mem::take(&mut self.model.target);
        self.model.now.clear();
        for chunk in 0..PARTS {
            let part = name(chunk);
            let actual = self.actual(part);
            let before = self.model.durable.remove(&part);
            let allowed = before == actual || target.get(&part).is_some_and(|next| *next == actual);
            if !allowed {
                let tell = |content: &Option<Content>| match content {
                    Some(content) => {
                        let Content {
                            version, stripe, ..
                        } = content;
                        format!("v{version} {stripe:?} {:x?}", content.present())
                    }
                    None => "nothing".to_owned(),
                };
                panic!(
                    "{part} is {} but was {}, and was to be {:?}",
                    tell(&actual),
                    tell(&before),
                    target.get(&part).map(tell),
                );
            }
            if let Some(content) = actual {
                self.model.durable.insert(part, content.clone());
                self.model.now.insert(part, content);
            }
        }
    }
}

fn mark_name(mark: StoreMark) -> &'static str {
    match mark {
        StoreMark::TornTail => "torn-tail",
        StoreMark::UnitsReplayed => "units-replayed",
        StoreMark::Checkpointed => "checkpointed",
        StoreMark::CommitShared => "commit-shared",
        StoreMark::PartReceived => "part-received",
        StoreMark::CorruptUnit => "corrupt-unit",
        StoreMark::SyncFailed => "sync-failed",
        StoreMark::DiskFull => "disk-full",
        StoreMark::JournalFull => "journal-full",
    }
}

fn live(seed: u64) -> BTreeSet<&'static str> {
    let mut world = World::new(seed);
    for _ in 0..8 {
        let calls = world.rng.between(1, 500);
        world.files.borrow_mut().crash_after(calls);
        if world.rng.one_in(4) {
            let used = world.files.borrow().used();
            let more = world.rng.below(1 << 20) as usize;
            world.files.borrow_mut().limit(used + more);
        }
        for _ in 0..2000 {
            if !world.act() {
                break;
            }
        }
        world.crash();
    }
    world.marks
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's seeds may be chosen")]
fn every_part_is_as_at_a_commit_after_any_crash() {
    let seeds = match std::env::var("ANTLER_SEEDS") {
        Ok(range) => {
            let (first, end) = range.split_once("..").expect("a range like 0..1000");
            first.parse().unwrap()..end.parse().unwrap()
        }
        Err(_) => 0..60,
    };
    let mut marks = BTreeSet::new();
    for seed in seeds {
        println!("seed {seed}");
        marks.extend(live(seed));
    }
    let wanted = [
        "checkpointed",
        "commit-shared",
        "disk-full",
        "part-received",
        "torn-tail",
        "units-replayed",
    ];
    for mark in wanted {
        assert!(marks.contains(mark), "{mark} was not met: {marks:?}");
    }
    assert!(!marks.contains("corrupt-unit"), "a crash is no rot");
}
