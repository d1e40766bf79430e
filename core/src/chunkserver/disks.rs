//! What is under way on each disk: bounded operations, group commit,
//! checkpoints, space, and the end of a disk that failed.
//!
//! Invariant: at most one commit and one checkpoint are under way on a disk, and
//! at most `disk_inflight_max` other operations; the rest waits here.

use super::closing::Closing;
use super::health::Health;
use super::parts::{PartResult, Then};
use super::replicate::Asked;
use super::requests::Reading;
use super::scrub::Scrub;
use super::{ChunkServer, DiskStatuses};
use crate::chunk::operation::{
    CommitAction, DiskCompletion, DiskError, DiskOperation, DiskReply, DiskRequest, OpenedDisk,
    PartCommit, StoredPart,
};
use crate::chunk::rules::DiskRules;
use crate::ids::{DiskId, PartId, Token};
use crate::limits::REPORT_BATCH;
use crate::machine::{Effect, Level};
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use crate::vfs::Space;
use crate::wire::chunk_master::PartReport;
use crate::wire::client_master::DiskStatus;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Parts in one commit.
const COMMIT_PARTS_MAX: usize = 8192;
/// A part with more unsynced bytes is flushed before it joins a commit, so that the
/// small ones do not wait for it.
const BULK: u64 = 256 << 10;
/// An idle disk is asked for its space every so many heartbeats.
const INSPECT_IDLE_TICKS: u32 = 8;

/// A part that waits for, or is in, a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitItem {
    part: PartId,
    action: CommitAction,
    then: Then,
}

/// An operation that was issued, and whom its end concerns.
#[derive(Debug)]
pub(super) enum Issued {
    /// A write; the part is like that when it succeeds.
    Change {
        stored: StoredPart,
        bytes: u64,
        then: Then,
    },
    /// A group commit.
    Commit(Vec<CommitItem>),
    /// Bulk that goes to the medium before its commit, and what replications received
    /// so far.
    Flush {
        items: Vec<CommitItem>,
        received: Vec<u64>,
    },
    Checkpoint,
    Inspect,
    Close,
    /// A read for the data port.
    Read(Reading),
    /// The digest of a command's part.
    Digest {
        command: u64,
        at: usize,
        part: PartId,
    },
    /// A read of a part that moves.
    Source {
        key: u64,
        asked: Asked,
    },
    /// A step of a replication.
    Receive {
        key: u64,
    },
    /// A part that was made of others is read back.
    Verify {
        key: u64,
    },
    /// A piece of a part of which a read failed is read again.
    Recheck {
        part: PartId,
    },
    /// A read that nobody asked for.
    Scrub {
        part: PartId,
    },
}

impl CommitItem {
    pub(super) fn new(part: PartId, action: CommitAction, then: Then) -> Self {
        Self { part, action, then }
    }
}

impl Issued {
    /// Whether it reads a piece, which a disk that is well does in no time.
    fn is_short_read(&self) -> bool {
        matches!(
            self,
            Self::Read(_)
                | Self::Source { .. }
                | Self::Verify { .. }
                | Self::Recheck { .. }
                | Self::Scrub { .. }
        )
    }

    /// Whether it counts against the bound, and waits for its turn.
    fn is_bounded(&self) -> bool {
        !matches!(
            self,
            Self::Commit(_)
                | Self::Flush { .. }
                | Self::Checkpoint
                | Self::Inspect
                | Self::Close
                | Self::Scrub { .. }
        )
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    path: String,
    rules: DiskRules,
    space: Space,
    /// Bytes that were to be written since the space was told.
    written: u64,
    /// Bytes of parts that moved away since then.
    moved: u64,
    pub(super) health: Health,
    copies: u64,
    failed: Option<String>,
    /// The driver could not open it, and knows nothing of it.
    absent: bool,
    closing: Option<Closing>,
    /// Operations that have not ended.
    under_way: usize,
    inflight: usize,
    waiting: VecDeque<(DiskRequest, Issued)>,
    to_commit: Vec<CommitItem>,
    /// Deletions that were put off until the next heartbeat.
    put_off: Vec<CommitItem>,
    committing: bool,
    to_flush: Vec<CommitItem>,
    /// Replications of which some is to be flushed, and their parts.
    received: Vec<(u64, PartId)>,
    flushing: bool,
    checkpointing: bool,
    inspecting: bool,
    /// Something changed since the last inspection.
    stirred: bool,
    quiet_ticks: u32,
}

impl Disk {
    /// Bytes that new parts may take.
    fn room(&self) -> u64 {
        if self.closing.is_some() {
            return 0;
        }
        self.rules.room(self.space, self.written)
    }

    /// It works, and is not on its way out.
    pub(super) fn works(&self) -> bool {
        self.failed.is_none() && self.closing.is_none()
    }

    /// It works, and nothing speaks against it.
    pub(super) fn is_trusted(&self) -> bool {
        self.works() && self.health.suspected().is_none()
    }

    /// What is there is to move elsewhere: by order, or as it is suspected.
    fn is_emptied(&self) -> bool {
        self.rules.drain || self.health.suspected().is_some()
    }

    /// How much of what may be in use is, in thousandths, with so many bytes more or less;
    /// `None` of a disk that takes no part in balance.
    pub(super) fn used_per_mille(&self, change: i64) -> Option<u64> {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let since = signed(self.written) - signed(self.moved);
        let change = change.saturating_add(since);
        let takes_part = self.works() && !self.is_emptied();
        takes_part.then(|| self.rules.used_per_mille(self.space, change))?
    }

    /// Whether new parts may go there. Without orders even a full disk is tried: what it
    /// told of its space may be over.
    pub(super) fn takes_new(&self) -> bool {
        self.works() && (!self.rules.is_bound() || self.room() > 0)
    }
}

/// The disks of the server.
#[derive(Debug, Default)]
pub(super) struct Disks {
    pub(super) table: BTreeMap<DiskId, Disk>,
    /// Many parts are being put into commits: none begins until all are in.
    held: bool,
    /// Disks that failed in this life: what they held may lack what was acknowledged.
    spent: BTreeSet<DiskId>,
}

impl Disks {
    pub(super) fn statuses(&self, scrub: &Scrub) -> DiskStatuses {
        let statuses = self.table.iter().map(|(&disk, one)| DiskStatus {
            disk,
            path: one.path.clone(),
            space: Space {
                free: one.room(),
                ..one.space
            },
            copies: one.copies,
            failed: one.failed.clone().unwrap_or_default(),
            scrub: scrub.status(disk, one.copies),
            draining: one.is_emptied().then_some(one.copies),
            most: Some(one.rules.most(one.space.total)),
            suspected: one.health.suspected().unwrap_or_default().to_owned(),
        });
        statuses.collect()
    }

    /// The disk with the most room of those that work and may take what is new, and of which
    /// the caller says so too: one that is suspected only where no other has room.
    pub(super) fn with_most_room(&self, may: impl Fn(DiskId) -> bool) -> Option<DiskId> {
        let taking = self.table.iter();
        let taking = taking.filter(|(disk, one)| one.takes_new() && may(**disk));
        let most = taking.max_by_key(|(_, one)| {
            let room = one.room();
            let is_trusted = one.is_trusted();
            (room > 0, is_trusted, room, std::cmp::Reverse(one.copies))
        });
        most.map(|(&disk, _)| disk)
    }

    /// The disks that work.
    pub(super) fn working(&self) -> BTreeSet<DiskId> {
        let working = self.table.iter().filter(|(_, one)| one.works());
        working.map(|(&disk, _)| disk).collect()
    }

    /// Of those the ones that are to be emptied.
    pub(super) fn drained(&self) -> BTreeSet<DiskId> {
        let mut drained = self.working();
        drained.retain(|disk| self.table[disk].is_emptied());
        drained
    }

    /// Has a deletion join a commit at the next heartbeat.
    pub(super) fn put_off(&mut self, disk: DiskId, item: CommitItem) {
        let one = self.table.get_mut(&disk).expect("parts are on disks");
        one.put_off.push(item);
    }

    /// Bytes of a part moved away from a disk.
    pub(super) fn note_moved(&mut self, disk: DiskId, bytes: u64) {
        if let Some(one) = self.table.get_mut(&disk) {
            one.moved += bytes;
            one.stirred = true;
        }
    }

    /// Bytes that new parts on a disk may take.
    pub(super) fn room(&self, disk: DiskId) -> u64 {
        self.table[&disk].room()
    }

    pub(super) fn set_rules(&mut self, disk: DiskId, rules: DiskRules) {
        if let Some(one) = self.table.get_mut(&disk) {
            one.rules = rules;
        }
    }

    /// Nothing new goes to a disk from now on; false if that is so already, or it is gone.
    pub(super) fn begin_closing(&mut self, disk: DiskId, until: Instant) -> bool {
        let Some(one) = self.table.get_mut(&disk) else {
            return false;
        };
        one.put_off.clear();
        let before = one.closing.get_or_insert(Closing::Finishing(until));
        *before == Closing::Finishing(until)
    }

    pub(super) fn is_closing(&self, disk: DiskId) -> bool {
        let one = self.table.get(&disk);
        one.is_some_and(|one| one.closing.is_some())
    }

    /// The disks on which something may be under way that are to be closed, and until when
    /// that is waited for.
    pub(super) fn finishing(&self) -> Vec<(DiskId, Instant)> {
        let finishing = |(&disk, one): (&DiskId, &Disk)| match one.closing {
            Some(Closing::Finishing(until)) => Some((disk, until)),
            _ => None,
        };
        self.table.iter().filter_map(finishing).collect()
    }

    pub(super) fn has_failed(&self, disk: DiskId) -> bool {
        self.table[&disk].failed.is_some()
    }

    /// Whether nothing is under way on a disk, nor waits for it.
    pub(super) fn is_idle(&self, disk: DiskId) -> bool {
        let one = &self.table[&disk];
        let waits = [
            one.waiting.is_empty(),
            one.to_commit.is_empty(),
            one.to_flush.is_empty(),
            one.received.is_empty(),
        ];
        one.under_way == 0 && waits.into_iter().all(|none| none)
    }

    pub(super) fn path(&self, disk: DiskId) -> &str {
        &self.table[&disk].path
    }

    /// Notes that a disk is being closed, and that its parts are gone; false if the driver does not know it.
    pub(super) fn note_closing(&mut self, disk: DiskId) -> bool {
        let one = self.table.get_mut(&disk).expect("it is there");
        (one.closing, one.copies) = (Some(Closing::Closing), 0);
        !one.absent
    }

    pub(super) fn remove(&mut self, disk: DiskId) {
        let removed = self.table.remove(&disk);
        assert!(removed.is_some(), "a disk is closed once");
    }

    /// Whether operations wait for a disk.
    pub(super) fn is_crowded(&self, disk: DiskId) -> bool {
        !self.table[&disk].waiting.is_empty()
    }

    /// Whether a disk can't tell what it has.
    pub(super) fn any_failed(&self) -> bool {
        self.table.values().any(|one| one.failed.is_some())
    }

    pub(super) fn count_copy(&mut self, disk: DiskId, change: i64) {
        let one = self.table.get_mut(&disk).expect("copies are on disks");
        let copies = one.copies.checked_add_signed(change);
        one.copies = copies.expect("copies are counted up before down");
    }

    pub(super) fn has_work(&self, issued: &BTreeMap<Token, Issued>) -> bool {
        let working = |one: &Disk| {
            !one.waiting.is_empty() || !one.to_commit.is_empty() || !one.to_flush.is_empty()
        };
        // Nothing is lost when those end with the process.
        let harmless = |issued: &Issued| {
            matches!(
                issued,
                Issued::Inspect
                    | Issued::Close
                    | Issued::Checkpoint
                    | Issued::Source { .. }
                    | Issued::Receive { .. }
                    | Issued::Verify { .. }
                    | Issued::Read(_)
                    | Issued::Scrub { .. }
                    | Issued::Recheck { .. }
            )
        };
        self.table.values().any(working) || issued.values().any(|issued| !harmless(issued))
    }

    pub(super) fn check_copies(&self, counted: &BTreeMap<DiskId, u64>) {
        for (disk, one) in self.table.iter().filter(|(_, one)| one.failed.is_none()) {
            let copies = counted.get(disk).copied().unwrap_or(0);
            assert_eq!(one.copies, copies, "copies on {disk} are counted");
        }
    }

    /// `most`: operations that one disk may have under way.
    pub(super) fn check_invariants(&self, issued: &BTreeMap<Token, Issued>, most: usize) {
        let bounded = issued.values().filter(|issued| issued.is_bounded()).count();
        let inflight: usize = self.table.values().map(|one| one.inflight).sum();
        assert_eq!(bounded, inflight, "operations under way are counted");
        for one in self.table.values() {
            assert!(one.inflight <= most, "operations on a disk are bounded");
            let idle = one.inflight < most;
            assert!(
                !idle || one.waiting.is_empty(),
                "nothing waits for an idle disk"
            );
        }
    }
}

impl ChunkServer {
    pub(super) fn add_disk(&mut self, opened: OpenedDisk) {
        let OpenedDisk {
            disk,
            path,
            space,
            parts,
            rules,
            failed,
        } = opened;
        if let Some(reason) = &failed {
            self.log(
                Level::Error,
                format!("{disk} at {path} can't be used: {reason}"),
            );
        }
        let one = Disk {
            path,
            rules,
            space,
            written: 0,
            moved: 0,
            health: Health::new(self.now),
            copies: 0,
            absent: failed.is_some(),
            failed,
            closing: None,
            under_way: 0,
            inflight: 0,
            waiting: VecDeque::new(),
            to_commit: Vec::new(),
            put_off: Vec::new(),
            committing: false,
            to_flush: Vec::new(),
            received: Vec::new(),
            flushing: false,
            checkpointing: false,
            inspecting: false,
            stirred: true,
            quiet_ticks: 0,
        };
        if self.disks.table.contains_key(&disk) {
            // An operator copied a folder; its content may be older.
            let text = format!("{disk} at {} is there already: it is not used", one.path);
            return self.log(Level::Error, text);
        }
        if self.disks.spent.contains(&disk) {
            let text = format!(
                "{disk} at {} failed since this server started: start the server again to use it",
                one.path
            );
            self.log(Level::Error, text);
            self.disks.table.insert(disk, one);
            return self.let_go(disk);
        }
        if one.failed.is_none() {
            self.scrub.add_disk(disk, self.now);
        }
        self.disks.table.insert(disk, one);
        for stored in parts {
            self.add_part(disk, stored);
        }
    }

    /// Of a part that is on two disks (an operator copied a folder, or a failed disk
    /// came back) the newer one counts, the other goes.
    fn add_part(&mut self, disk: DiskId, stored: StoredPart) {
        if self.parts.add(disk, stored) {
            self.parts.take_back(stored.part);
            return self.disks.count_copy(disk, 1);
        }
        let info = self.parts.at(stored.part).expect("it is on another disk");
        let ages = [(info.version, info.epoch), (stored.version, stored.epoch)];
        let leaves = |disk: DiskId| self.disks.table[&disk].is_emptied();
        let older = match ages[0] == ages[1] {
            true => leaves(info.disk) && !leaves(disk),
            false => ages[0] < ages[1],
        };
        self.marks.reach(Mark::PartFoundTwice);
        let loser = if older { info.disk } else { disk };
        self.log(
            Level::Warn,
            format!(
                "{} is on {disk} and on {}; that on {loser} goes",
                stored.part, info.disk
            ),
        );
        if older {
            self.disks.count_copy(loser, -1);
            self.parts.replace(disk, stored);
            self.disks.count_copy(disk, 1);
        }
        self.delete_leftover(loser, stored.part);
    }

    /// Issues an operation, now or when the disk has room.
    pub(super) fn operate(&mut self, disk: DiskId, request: DiskRequest, issued: Issued) {
        let one = self.disks.table.get_mut(&disk).expect("parts are on disks");
        one.stirred = true;
        one.written += request.bytes();
        if issued.is_bounded() {
            if one.inflight >= self.config.limits.disk_inflight_max {
                one.waiting.push_back((request, issued));
                return;
            }
            one.inflight += 1;
        }
        self.issue(disk, request, issued);
    }

    /// Issues an operation that is counted nowhere and changes nothing.
    pub(super) fn operate_apart(&mut self, disk: DiskId, request: DiskRequest, issued: Issued) {
        assert!(!issued.is_bounded(), "it does not wait for its turn");
        self.issue(disk, request, issued);
    }

    fn issue(&mut self, disk: DiskId, body: DiskRequest, issued: Issued) {
        let token = self.next_token;
        self.next_token = token.next();
        let one = self.disks.table.get_mut(&disk);
        let one = one.expect("operations are on disks");
        one.under_way += 1;
        let measures = self.config.care.slow > Duration::ZERO;
        if measures && issued.is_short_read() {
            one.health.begin(token, self.now);
        }
        self.issued.insert(token, issued);
        self.effects
            .push_back(Effect::Operate(DiskOperation { disk, token, body }));
    }

    /// Puts a part into the next group commit of its disk; with much that is unsynced
    /// by way of a flush.
    pub(super) fn commit(
        &mut self,
        disk: DiskId,
        part: PartId,
        action: CommitAction,
        then: Then,
        unsynced: u64,
    ) -> Option<PartResult> {
        let one = self.disks.table.get_mut(&disk).expect("parts are on disks");
        let item = CommitItem { part, action, then };
        if unsynced > BULK {
            one.to_flush.push(item);
            self.pump_flush(disk);
        } else {
            one.to_commit.push(item);
            self.pump_commit(disk);
        }
        None
    }

    fn pump_flush(&mut self, disk: DiskId) {
        let one = self.disks.table.get_mut(&disk).expect("parts are on disks");
        if one.flushing || one.to_flush.is_empty() && one.received.is_empty() {
            return;
        }
        one.flushing = true;
        let items = std::mem::take(&mut one.to_flush);
        let (received, some): (Vec<u64>, Vec<PartId>) =
            std::mem::take(&mut one.received).into_iter().unzip();
        let parts = items.iter().map(|item| item.part).chain(some).collect();
        let issued = Issued::Flush { items, received };
        self.operate(disk, DiskRequest::Flush { parts }, issued);
    }

    /// Has what a replication received so far brought to the medium, so that no single
    /// sync gets much to do.
    pub(super) fn flush_received(&mut self, disk: DiskId, key: u64, part: PartId) {
        let one = self.disks.table.get_mut(&disk).expect("parts are on disks");
        one.received.push((key, part));
        self.pump_flush(disk);
    }

    fn on_flushed(
        &mut self,
        disk: DiskId,
        (items, received): (Vec<CommitItem>, Vec<u64>),
        result: Result<DiskReply, DiskError>,
    ) {
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("flushes are on disks");
        one.flushing = false;
        for key in received {
            self.on_received_flushed(key);
        }
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("flushes are on disks");
        match result {
            Ok(_) => one.to_commit.extend(items),
            Err(error) => {
                for item in items {
                    let error = Err(error.clone());
                    self.on_committed(disk, item.part, item.action, item.then, error);
                }
            }
        }
        self.pump_flush(disk);
        self.pump_commit(disk);
    }

    /// No commit begins until `release_commits`, so that what comes meanwhile shares
    /// one.
    pub(super) fn hold_commits(&mut self) {
        assert!(!std::mem::replace(&mut self.disks.held, true), "held once");
    }

    pub(super) fn release_commits(&mut self) {
        self.disks.held = false;
        let disks: Vec<DiskId> = self.disks.table.keys().copied().collect();
        disks.into_iter().for_each(|disk| self.pump_commit(disk));
    }

    /// Starts a commit of all that wait, unless one is under way.
    fn pump_commit(&mut self, disk: DiskId) {
        let one = self.disks.table.get_mut(&disk).expect("parts are on disks");
        if self.disks.held || one.committing || one.to_commit.is_empty() {
            return;
        }
        one.committing = true;
        let count = one.to_commit.len().min(COMMIT_PARTS_MAX);
        let items: Vec<CommitItem> = one.to_commit.drain(..count).collect();
        let change = |item: &CommitItem| PartCommit {
            part: item.part,
            action: item.action,
        };
        let changes = items.iter().map(change).collect();
        self.operate(disk, DiskRequest::Commit { changes }, Issued::Commit(items));
    }

    pub(super) fn on_completed(&mut self, completion: DiskCompletion) {
        let DiskCompletion {
            disk,
            token,
            result,
        } = completion;
        let issued = self
            .issued
            .remove(&token)
            .expect("a completion answers an operation");
        if matches!(issued, Issued::Close) {
            return self.on_disk_closed(disk);
        }
        let one = self.disks.table.get_mut(&disk);
        let one = one.expect("operations are on disks");
        one.under_way -= 1;
        one.health.end(token, self.now, self.config.care.slow);
        if issued.is_bounded() {
            let one = self
                .disks
                .table
                .get_mut(&disk)
                .expect("operations are on disks");
            one.inflight -= 1;
        }
        if let Err(DiskError::Medium(reason)) = &result {
            self.fail_disk(disk, reason.clone());
        }
        self.on_result(disk, issued, result);
        self.pump_disk(disk);
    }

    fn pump_disk(&mut self, disk: DiskId) {
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("operations are on disks");
        if one.inflight < self.config.limits.disk_inflight_max
            && let Some((request, issued)) = one.waiting.pop_front()
        {
            one.inflight += 1;
            self.issue(disk, request, issued);
        }
    }

    fn on_result(&mut self, disk: DiskId, issued: Issued, result: Result<DiskReply, DiskError>) {
        match issued {
            Issued::Change {
                stored,
                bytes,
                then,
            } => {
                if matches!(result, Ok(DiskReply::Dropped)) {
                    self.sync_along(then);
                }
                self.on_changed(disk, (stored, bytes), then, result.map(drop));
            }
            Issued::Commit(items) => self.on_commit_done(disk, items, result),
            Issued::Flush { items, received } => self.on_flushed(disk, (items, received), result),
            Issued::Checkpoint => self.on_checkpoint_done(disk, &result),
            Issued::Inspect => self.on_inspected(disk, result),
            Issued::Close => unreachable!("its end was told"),
            Issued::Read(reading) => self.on_read(disk, reading, result),
            Issued::Digest { command, at, part } => {
                self.on_digest(disk, command, at, part, result);
            }
            Issued::Source { key, asked } => self.on_own_source(disk, key, asked, result),
            Issued::Receive { key } => self.on_receive_step(disk, key, result),
            Issued::Verify { key } => self.on_verified(key, result),
            Issued::Recheck { part } => self.on_rechecked(disk, part, result),
            Issued::Scrub { part } => self.on_scrubbed(disk, part, result),
        }
    }

    fn on_commit_done(
        &mut self,
        disk: DiskId,
        items: Vec<CommitItem>,
        result: Result<DiskReply, DiskError>,
    ) {
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("commits are on disks");
        one.committing = false;
        let mut states = match result {
            Ok(DiskReply::Committed(states)) => Ok(states.into_iter()),
            Ok(other) => panic!("a commit was answered by {other:?}"),
            Err(error) => Err(error),
        };
        for item in items {
            let result = match &mut states {
                Ok(states) => Ok(states.next().expect("a state for each part")),
                Err(error) => Err(error.clone()),
            };
            match (item.then, result) {
                (Then::Duplicate, Err(DiskError::Full)) => self.disks.put_off(disk, item),
                (Then::Duplicate, _) => self.moves.forget_leftover(disk, item.part),
                (then, result) => self.on_committed(disk, item.part, item.action, then, result),
            }
        }
        self.pump_commit(disk);
    }

    fn on_checkpoint_done(&mut self, disk: DiskId, result: &Result<DiskReply, DiskError>) {
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("checkpoints are on disks");
        one.checkpointing = false;
        if let Err(DiskError::Full) = result {
            self.log(Level::Warn, format!("{disk} has no space for a checkpoint"));
        }
    }

    fn on_inspected(&mut self, disk: DiskId, result: Result<DiskReply, DiskError>) {
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("inspections are of disks");
        one.inspecting = false;
        let Ok(DiskReply::Inspected {
            space,
            checkpoint_due,
        }) = result
        else {
            return;
        };
        (one.space, one.written, one.moved) = (space, 0, 0);
        if checkpoint_due && !one.checkpointing {
            one.checkpointing = true;
            self.operate(disk, DiskRequest::Checkpoint, Issued::Checkpoint);
        }
    }

    /// Asks disks for their space, the quiet ones now and then.
    pub(super) fn tick_disks(&mut self) {
        let mut asked = Vec::new();
        for (&disk, one) in &mut self.disks.table {
            one.quiet_ticks += 1;
            let wanted = one.stirred || one.quiet_ticks >= INSPECT_IDLE_TICKS;
            if wanted && one.works() && !one.inspecting {
                one.inspecting = true;
                asked.push(disk);
            }
        }
        for disk in asked {
            self.operate(disk, DiskRequest::Inspect, Issued::Inspect);
            let one = self.disks.table.get_mut(&disk).expect("it was just there");
            (one.stirred, one.quiet_ticks) = (false, 0);
            self.pump_commit(disk);
        }
        self.commit_put_off();
    }

    fn commit_put_off(&mut self) {
        let disks: Vec<DiskId> = self.disks.table.keys().copied().collect();
        for disk in disks {
            let one = self.disks.table.get_mut(&disk).expect("it was just listed");
            if one.failed.is_none() && !one.put_off.is_empty() {
                one.to_commit.append(&mut one.put_off);
                self.pump_commit(disk);
            }
        }
    }

    /// What an operation's error says about the part and the disk.
    pub(super) fn on_disk_error(&mut self, disk: DiskId, part: PartId, error: &DiskError) {
        let unread = matches!(
            error,
            DiskError::Corrupt { .. } | DiskError::Unreadable { .. } | DiskError::Medium(_)
        );
        if unread && self.parts.drop_suspect(part) {
            return self.say_lost(vec![part]);
        }
        match error {
            DiskError::Corrupt { unit } => self.on_corrupt(part, *unit),
            DiskError::Unreadable { unit } => {
                self.note_read_error(disk);
                self.on_unreadable(disk, part, *unit);
            }
            DiskError::Full => {
                self.marks.reach(Mark::DiskFull);
                // The next new part goes elsewhere, if there is a place.
                let one = self
                    .disks
                    .table
                    .get_mut(&disk)
                    .expect("operations are on disks");
                (one.space.free, one.stirred) = (0, true);
            }
            DiskError::Medium(_) | DiskError::NotFound | DiskError::Mismatch => {}
        }
    }

    fn on_corrupt(&mut self, part: PartId, unit: u32) {
        self.marks.reach(Mark::CorruptUnit);
        self.rechecks.forget(part);
        if self.parts.note_bad(part) {
            self.log(
                Level::Warn,
                format!("unit {unit} of {part} has a wrong checksum"),
            );
            self.say_gained(self.parts.report(part).into_iter().collect());
        }
    }

    /// A disk failed: it takes no writes any more, its parts are lost as copies, and what
    /// waits for it is answered.
    pub(super) fn fail_disk(&mut self, disk: DiskId, reason: String) {
        self.disks.spent.insert(disk);
        let one = self
            .disks
            .table
            .get_mut(&disk)
            .expect("operations are on disks");
        if one.failed.is_some() {
            return;
        }
        one.failed = Some(reason.clone());
        self.scrub.drop_disk(disk);
        self.marks.reach(Mark::DiskFailed);
        one.copies = 0;
        // Reads go on.
        let (reads, waiting) = std::mem::take(&mut one.waiting)
            .into_iter()
            .partition(|(_, issued)| matches!(issued, Issued::Read(_)));
        one.waiting = reads;
        one.put_off.clear();
        let waiting: VecDeque<(DiskRequest, Issued)> = waiting;
        let mut to_commit = std::mem::take(&mut one.to_commit);
        to_commit.append(&mut one.to_flush);
        let parts = self.lose_parts(disk);
        self.log(
            Level::Error,
            format!("{disk} failed and {} parts with it: {reason}", parts.len()),
        );
        // The leader puts nothing here any more before it makes new copies of those.
        self.say_disks();
        for batch in parts.chunks(REPORT_BATCH) {
            self.say_lost(batch.to_vec());
        }
        let suspects = parts.iter().filter_map(|part| self.parts.suspect(*part));
        let suspects: Vec<PartReport> = suspects.collect();
        for batch in suspects.chunks(REPORT_BATCH) {
            self.say_gained(batch.to_vec());
        }
        for (_, issued) in waiting {
            self.on_result(disk, issued, Err(DiskError::Medium(reason.clone())));
        }
        for item in to_commit
            .into_iter()
            .filter(|item| item.then != Then::Duplicate)
        {
            let error = Err(DiskError::Medium(reason.clone()));
            self.on_committed(disk, item.part, item.action, item.then, error);
        }
    }
}
