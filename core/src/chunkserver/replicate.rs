//! Making a part equal to another server's: its present units are read from a
//! source, verified, kept beside what is here, and put in place by one commit. Or of
//! others' (`build` says of what): then it is read back before it is told of. Or of the
//! server's own on another disk (`moves` says why).
//!
//! At most `repair_inflight_max` parts at once and WINDOW pieces of each, fewer while
//! clients use this server; the rest of the commands waits. Invariant: until the commit is
//! durable the old part is untouched, and after a failure of one source nothing of it is
//! kept.

mod own;

use super::ChunkServer;
use super::build::{Build, Read};
use super::disks::Issued;
use super::pace::SHARES;
use super::parts::{PartOp, PartResult, Then};
use crate::chunk::map::{ranges, runs};
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest, ReceiveStep};
use crate::chunk::stripe::Stripe;
use crate::ids::{ChunkVersion, DiskId, Epoch, LinkId, PartId, ServerId};
use crate::limits::{CHUNK_IO_MAX, CHUNK_SIZE, UNIT_SIZE};
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use crate::wire::chunk_master::{CommandResult, PartState};
use crate::wire::client_chunk::{ChunkError, ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use crate::wire::client_master::LocatedCopy;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Pieces of one part under way.
const WINDOW: usize = 4;
/// The first piece is read along with the map, so that a small part takes one round
/// trip.
const FIRST_PIECE: u32 = 256 << 10;
/// Bytes after which what was received is flushed; so much more may come meanwhile.
const FLUSH_STEP: u64 = 2 << 20;
/// For how long a replication rests at most between two flushes.
const REST_MAX: Duration = Duration::from_secs(1);
const UNIT: u32 = UNIT_SIZE as u32;
const PIECE: u32 = CHUNK_IO_MAX as u32;

/// What a source was asked, and in which attempt: what belongs to an earlier one
/// is ignored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Map {
        attempt: u32,
    },
    Piece {
        attempt: u32,
        offset: u32,
    },
    /// A read of a build.
    Blocks {
        number: u64,
    },
}

/// What a replication is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    /// A command of the leader.
    Command { link: LinkId, command: u64 },
    /// A move from one disk of the server to another.
    Move {
        from: DiskId,
        to: DiskId,
        /// Bytes of the part, once that is known.
        size: u64,
        /// The part was changed meanwhile.
        spoiled: bool,
    },
}

/// A part in the making: it waits, or is under way.
#[derive(Debug)]
struct Replication {
    purpose: Purpose,
    part: PartId,
    version: ChunkVersion,
    epoch: Epoch,
    sources: VecDeque<LocatedCopy>,
    bad_source: Option<ServerId>,
    last_error: String,
    attempt: u32,
    disk: Option<DiskId>,
    stage: Stage,
    /// Ranges still to ask for, once the map is known.
    wanted: Option<VecDeque<(u32, u32)>>,
    /// Requests to the source that have no answer yet.
    asked: usize,
    /// Steps of the disk that have not ended.
    steps: usize,
    /// Bytes received.
    bytes: u64,
    /// Of these, bytes behind the last flush that began.
    unflushed: u64,
    /// Since when a flush is under way.
    flushing: Option<Instant>,
    resting: bool,
    /// The source's version while it is read.
    seen: Option<ChunkVersion>,
    /// It is made of others' parts, which have that version.
    build: Option<(Box<Build>, ChunkVersion)>,
    /// Of what was made, bytes that were read back.
    found: u64,
}

impl Replication {
    fn is_move(&self) -> bool {
        matches!(self.purpose, Purpose::Move { .. })
    }

    fn is_spoiled(&self) -> bool {
        matches!(self.purpose, Purpose::Move { spoiled: true, .. })
    }

    fn new(purpose: Purpose, part: PartId, (version, epoch): (ChunkVersion, Epoch)) -> Self {
        Self {
            purpose,
            part,
            version,
            epoch,
            sources: VecDeque::new(),
            build: None,
            bad_source: None,
            last_error: "there is no source".to_owned(),
            attempt: 0,
            disk: None,
            stage: Stage::Beginning,
            wanted: None,
            asked: 0,
            steps: 0,
            bytes: 0,
            found: 0,
            unflushed: 0,
            flushing: None,
            resting: false,
            seen: None,
        }
    }
}

/// What a replication is at. Steps of the disk are not ordered among themselves, so
/// each stage but `Reading` waits for those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The disk makes room.
    Beginning,
    /// Pieces come and are stored.
    Reading,
    /// The source failed; what is at the disk must end before the next one's turn.
    Draining,
    /// The commit is under way.
    Finishing,
    /// What was made is read back, up to here so far.
    Verifying(u32),
    /// It failed; what was stored goes.
    Abandoning,
}

/// The replications of the server.
#[derive(Debug, Default)]
pub(super) struct Replications {
    table: BTreeMap<u64, Replication>,
    waiting: VecDeque<u64>,
    running: usize,
    next: u64,
    /// The parts that move, and their replications.
    moving: BTreeMap<PartId, u64>,
    /// Replications that make room for the foreground, by when they go on.
    resting: BTreeSet<(Instant, u64)>,
}

impl Replications {
    /// When the next one has rested.
    pub(super) fn resume_at(&self) -> Instant {
        self.resting.first().map_or(Instant::NEVER, |(at, _)| *at)
    }
}

impl ChunkServer {
    pub(super) fn replicate(
        &mut self,
        link: LinkId,
        command: u64,
        part: PartId,
        (version, epoch): (ChunkVersion, Epoch),
        sources: Vec<LocatedCopy>,
    ) {
        self.begin_replication((link, command), part, (version, epoch), sources, None);
    }

    /// Makes a part, or a copy, of others.
    pub(super) fn build(
        &mut self,
        from: (LinkId, u64),
        part: PartId,
        as_it_gets: (ChunkVersion, Epoch),
        (stripe, version): (Stripe, ChunkVersion),
        sources: Vec<LocatedCopy>,
    ) {
        let Some(build) = Build::new(part, stripe, sources) else {
            return self.fail_command(from.0, from.1, "there is no such part");
        };
        let build = Some((Box::new(build), version));
        self.begin_replication(from, part, as_it_gets, Vec::new(), build);
    }

    fn begin_replication(
        &mut self,
        (link, command): (LinkId, u64),
        part: PartId,
        (version, epoch): (ChunkVersion, Epoch),
        sources: Vec<LocatedCopy>,
        build: Option<(Box<Build>, ChunkVersion)>,
    ) {
        if self.is_being_made(part) {
            self.spoil_move(part);
            return self.fail_command(link, command, "the part is being replicated already");
        }
        let purpose = Purpose::Command { link, command };
        let mut one = Replication::new(purpose, part, (version, epoch));
        (one.sources, one.build) = (sources.into(), build);
        let key = self.add_replication(one);
        self.replications.waiting.push_back(key);
        self.pump_replications();
    }

    fn add_replication(&mut self, one: Replication) -> u64 {
        let key = self.replications.next;
        self.replications.next += 1;
        self.replications.table.insert(key, one);
        key
    }

    /// Whether a part is being made, or waits for it.
    pub(super) fn is_being_made(&self, part: PartId) -> bool {
        self.replications.table.values().any(|one| one.part == part)
    }

    fn pump_replications(&mut self) {
        while self.replications.running < self.parts_at_once() {
            let Some(key) = self.replications.waiting.pop_front() else {
                return;
            };
            self.replications.running += 1;
            self.try_source(key);
        }
    }

    /// Clients used this server a moment ago.
    pub(super) fn is_used(&self) -> bool {
        self.now < self.foreground_until
    }

    /// Of the parts of a share each is one.
    fn parts_at_once(&self) -> usize {
        let most = self.config.limits.repair_inflight_max;
        match self.is_used() {
            true => most.min(self.pace.share() as usize),
            false => most,
        }
    }

    fn window(&self) -> usize {
        let share = self.pace.share() as usize;
        let whole = SHARES as usize;
        match self.is_used() {
            true => (WINDOW * share * share / (whole * whole)).max(1),
            false => WINDOW,
        }
    }

    /// Whether a step of a replication is at a disk.
    pub(super) fn is_repairing(&self) -> bool {
        let works = |one: &Replication| one.steps > 0 || one.flushing.is_some();
        self.sourcing.is_reading() || self.replications.table.values().any(works)
    }

    /// For how long a replication leaves the disk to others behind a flush that took so long.
    pub(super) fn rest_after(&self, flush: Duration) -> Duration {
        let share = self.pace.share();
        (flush * (SHARES - share) / share).min(REST_MAX)
    }

    fn replication(&mut self, key: u64) -> &mut Replication {
        self.replications
            .table
            .get_mut(&key)
            .expect("it is under way")
    }

    /// Begins with the next source, or gives up.
    fn try_source(&mut self, key: u64) {
        let part = self.replication(key).part;
        let there = self.parts.at(part).map(|info| info.disk);
        let disk = match there {
            Some(disk) => Some(disk).filter(|disk| !self.disks.is_closing(*disk)),
            None => self.disk_for(part),
        };
        let one = self.replication(key);
        if one.attempt > 0 && !one.sources.is_empty() {
            self.marks.reach(Mark::SourceReplaced);
        }
        let one = self.replication(key);
        one.attempt += 1;
        (one.wanted, one.asked) = (None, 0);
        (one.bytes, one.unflushed, one.seen) = (0, 0, None);
        one.stage = Stage::Beginning;
        if disk.is_none() {
            one.last_error = "no disk takes what is new".to_owned();
        }
        // A build goes on without a source that failed; it begins once.
        let may_begin = match one.build {
            Some(_) => one.attempt == 1,
            None => !one.sources.is_empty(),
        };
        match disk.filter(|_| may_begin) {
            Some(disk) => {
                one.disk = Some(disk);
                self.change(part, PartOp::Pass, Then::Turn(key));
            }
            None => self.abandon(key),
        }
    }

    /// What was asked for of the part before is over.
    pub(super) fn on_turn(&mut self, key: u64) {
        let one = self.replication(key);
        if let Purpose::Move { .. } = one.purpose {
            return self.read_own(key);
        }
        let stripe = one.build.as_ref().and_then(|(build, _)| build.stripe());
        self.receive(key, ReceiveStep::Begin { stripe });
    }

    /// Whether a part is being made by a replication that has begun.
    pub(super) fn is_receiving(&self, part: PartId) -> bool {
        let mut all = self.replications.table.values();
        all.any(|one| one.part == part && one.attempt > 0 && !one.is_move())
    }

    /// Has the disk do a step.
    fn receive(&mut self, key: u64, step: ReceiveStep) {
        self.note_repair();
        let one = self.replication(key);
        one.steps += 1;
        let (part, disk) = (one.part, one.disk.expect("a disk was chosen"));
        let request = DiskRequest::Receive { part, step };
        self.operate(disk, request, Issued::Receive { key });
    }

    /// A step of the disk ended.
    pub(super) fn on_receive_step(
        &mut self,
        disk: DiskId,
        key: u64,
        result: Result<DiskReply, DiskError>,
    ) {
        self.note_repair();
        let one = self.replication(key);
        one.steps -= 1;
        let (part, stage) = (one.part, one.stage);
        match result {
            Err(DiskError::Mismatch) if stage == Stage::Reading && one.build.is_none() => {
                return self.source_failed(key, "its data came damaged", true);
            }
            Err(error) if matches!(stage, Stage::Beginning | Stage::Reading) => {
                self.on_disk_error(disk, part, &error);
                self.replication(key).last_error = error.to_string();
                return self.abandon(key);
            }
            _ => {}
        }
        match stage {
            Stage::Beginning => self.ask_first(key),
            Stage::Reading => self.go_on(key),
            Stage::Draining => self.next_when_drained(key),
            Stage::Abandoning => self.abandon(key),
            Stage::Finishing | Stage::Verifying(_) => {
                unreachable!("a commit begins when all steps ended")
            }
        }
    }

    fn ask_first(&mut self, key: u64) {
        let one = self.replication(key);
        one.stage = Stage::Reading;
        if one.build.is_some() || one.is_move() {
            return self.go_on(key);
        }
        one.asked += 1;
        let attempt = one.attempt;
        let source = one.sources.front().cloned().expect("it was chosen");
        self.ask_source(&source, key, Asked::Map { attempt }, ChunkRequestBody::Map);
        self.ask_piece(key, 0, FIRST_PIECE);
    }

    fn ask_piece(&mut self, key: u64, offset: u32, length: u32) {
        let one = self.replication(key);
        one.asked += 1;
        let attempt = one.attempt;
        if let Purpose::Move { from, .. } = one.purpose {
            let part = one.part;
            let request = DiskRequest::Read {
                part,
                offset,
                length,
            };
            let asked = Asked::Piece { attempt, offset };
            return self.operate(from, request, Issued::Source { key, asked });
        }
        let source = one.sources.front().cloned().expect("it is being read");
        let asked = Asked::Piece { attempt, offset };
        self.ask_source(
            &source,
            key,
            asked,
            ChunkRequestBody::Read { offset, length },
        );
    }

    /// A source answered.
    pub(super) fn on_source(
        &mut self,
        key: u64,
        asked: Asked,
        result: Result<ChunkReplyBody, ChunkError>,
        data: Bytes,
    ) {
        let attempt = match asked {
            Asked::Map { attempt } | Asked::Piece { attempt, .. } => attempt,
            Asked::Blocks { number } => return self.on_blocks(key, number, result, &data),
        };
        let is_current = |one: &Replication| one.attempt == attempt && one.stage == Stage::Reading;
        let one = self.replications.table.get_mut(&key);
        let Some(one) = one.filter(|one| is_current(one)) else {
            return;
        };
        one.asked -= 1;
        match (asked, result) {
            (Asked::Map { .. }, Ok(ChunkReplyBody::Map { present })) => {
                one.wanted = Some(ranges(&present, FIRST_PIECE).into());
                self.go_on(key);
            }
            (
                Asked::Piece { offset, .. },
                Ok(ChunkReplyBody::Read {
                    checksums,
                    present,
                    version,
                }),
            ) => {
                // Somebody writes it: pieces of two versions make no copy of either.
                if *one.seen.get_or_insert(version) != version {
                    return self.source_failed(key, "it changed meanwhile", false);
                }
                self.take_piece(key, offset, &data, &checksums, &present);
            }
            (_, Ok(_)) => self.source_failed(key, "its reply makes no sense", true),
            (_, Err(error)) => {
                let bad = error.kind == ChunkErrorKind::Corrupt;
                self.source_failed(key, &format!("{:?}", error.kind), bad);
            }
        }
    }

    /// Hands the present units of a piece to the disk, run by run.
    fn take_piece(
        &mut self,
        key: u64,
        offset: u32,
        data: &Bytes,
        checksums: &[u32],
        present: &[u8],
    ) {
        let units = data.len() / UNIT_SIZE;
        let fits = checksums.len() == units && present.len() == units.div_ceil(8);
        let end = u64::from(offset) + data.len() as u64;
        if !fits || !data.len().is_multiple_of(UNIT_SIZE) || end > CHUNK_SIZE {
            return self.source_failed(key, "its reply makes no sense", true);
        }
        let one = self.replication(key);
        one.bytes += data.len() as u64;
        one.unflushed += data.len() as u64;
        for (first, end) in runs(present, units) {
            let step = ReceiveStep::Piece {
                offset: offset + u32::try_from(first).expect("a piece is short") * UNIT,
                data: data.slice(first * UNIT_SIZE..end * UNIT_SIZE),
                checksums: checksums[first..end].to_vec(),
            };
            self.receive(key, step);
        }
        self.go_on(key);
    }

    /// Asks for more, or finishes.
    fn go_on(&mut self, key: u64) {
        self.flush_some(key);
        if self.replication(key).build.is_some() {
            return self.go_on_building(key);
        }
        if self.replication(key).is_spoiled() {
            self.marks.reach(Mark::MoveSpoiled);
            return self.give_move_up(key, "it is being changed");
        }
        let window = self.window();
        loop {
            let one = self.replication(key);
            let is_ahead = one.flushing.is_some() && one.unflushed >= FLUSH_STEP;
            let Some(wanted) = one.wanted.as_mut() else {
                return;
            };
            if one.asked + one.steps >= window || is_ahead || one.resting {
                return;
            }
            let Some((offset, length)) = wanted.pop_front() else {
                break;
            };
            self.ask_piece(key, offset, length);
        }
        let one = self.replication(key);
        if one.asked + one.steps > 0 {
            return;
        }
        self.finish_replication(key);
    }

    /// Puts what was received in place.
    fn finish_replication(&mut self, key: u64) {
        let one = self.replication(key);
        one.stage = Stage::Finishing;
        let (part, version, epoch, bytes) = (one.part, one.version, one.epoch, one.bytes);
        let op = match one.purpose {
            Purpose::Move { from, to, .. } => PartOp::Switch {
                from,
                to,
                version,
                epoch,
                bytes,
            },
            Purpose::Command { .. } => PartOp::Receive {
                disk: one.disk.expect("it is under way"),
                version,
                epoch,
                bytes,
            },
        };
        self.change(part, op, Then::Replication(key));
    }

    /// Brings what was stored to the medium, step by step: a single sync of all of it
    /// would be long, and the syncs that others wait for would queue up behind.
    fn flush_some(&mut self, key: u64) {
        let now = self.now;
        let one = self.replication(key);
        if one.flushing.is_some() || one.resting || one.unflushed < FLUSH_STEP {
            return;
        }
        (one.flushing, one.unflushed) = (Some(now), 0);
        let (part, disk) = (one.part, one.disk.expect("it is under way"));
        self.flush_received(disk, key, part);
    }

    /// A flush ended. If it failed, so does the disk, and the next step tells. While
    /// others wait for this server, the disk is theirs for a while.
    pub(super) fn on_received_flushed(&mut self, key: u64) {
        self.note_repair();
        let (now, is_used) = (self.now, self.is_used());
        let Some(one) = self.replications.table.get_mut(&key) else {
            return;
        };
        let began = one.flushing.take().expect("its flush was under way");
        if is_used {
            one.resting = true;
            self.marks.reach(Mark::ReplicationRested);
            let rest = self.rest_after(now.since(began));
            self.replications.resting.insert((now + rest, key));
        } else {
            self.go_on_reading(key);
        }
    }

    /// Goes on with replications that have rested.
    pub(super) fn resume_replications(&mut self) {
        while self.replications.resume_at() <= self.now {
            let (_, key) = self.replications.resting.pop_first().expect("it is due");
            if let Some(one) = self.replications.table.get_mut(&key) {
                one.resting = false;
                self.go_on_reading(key);
            }
        }
    }

    fn go_on_reading(&mut self, key: u64) {
        if self.replication(key).stage == Stage::Reading {
            self.go_on(key);
        }
    }

    fn source_failed(&mut self, key: u64, reason: &str, bad: bool) {
        let one = self.replication(key);
        let source = one.sources.pop_front().expect("it was being read");
        one.last_error = format!("{}: {reason}", source.server);
        if bad {
            one.bad_source = Some(source.server);
        }
        one.stage = Stage::Draining;
        self.next_when_drained(key);
    }

    fn next_when_drained(&mut self, key: u64) {
        if self.replication(key).steps == 0 {
            self.try_source(key);
        }
    }

    /// Drops what was stored, then says that it failed.
    fn abandon(&mut self, key: u64) {
        let one = self.replication(key);
        let begun = std::mem::replace(&mut one.stage, Stage::Abandoning) != Stage::Abandoning;
        if one.steps > 0 {
            // Once more when that ended: the last step must be the one that drops.
            one.stage = if begun { Stage::Draining } else { one.stage };
            one.sources.clear();
            return;
        }
        if begun && one.disk.is_some() {
            return self.receive(key, ReceiveStep::Abandon);
        }
        let one = self.end_replication(key);
        let result = CommandResult::Failed {
            reason: one.last_error,
            bad_source: one.bad_source,
        };
        self.tell_asker(one.purpose, result);
    }

    /// Whom a replication was for learns of its end.
    fn tell_asker(&mut self, purpose: Purpose, result: CommandResult) {
        match purpose {
            Purpose::Command { link, command } => self.end_command(link, command, result),
            Purpose::Move { from, size, .. } => {
                let moved = matches!(result, CommandResult::Parts(_));
                self.on_move_ended(from, moved.then_some(size));
            }
        }
    }

    fn end_replication(&mut self, key: u64) -> Replication {
        let one = self
            .replications
            .table
            .remove(&key)
            .expect("it is under way");
        if one.is_move() {
            self.replications.moving.remove(&one.part);
        } else {
            self.replications.running -= 1;
            self.pump_replications();
        }
        one
    }

    /// The commit that puts the part in place ended.
    pub(super) fn on_received(&mut self, key: u64, result: PartResult) {
        match result {
            Ok(Some(_)) if self.replication(key).build.is_some() => self.verify(key, 0),
            Ok(Some(stored)) => {
                let one = self.end_replication(key);
                self.marks.reach(Mark::PartReceived);
                self.say_gained(self.parts.report(one.part).into_iter().collect());
                let state = PartState {
                    version: stored.version,
                    epoch: stored.epoch,
                    digest: 0,
                    boot: self.config.boot,
                };
                self.tell_asker(one.purpose, CommandResult::Parts(vec![Some(state)]));
            }
            failed => {
                self.replication(key).last_error =
                    format!("it could not be put in place: {failed:?}");
                self.abandon(key);
            }
        }
    }
}

/// Builds.
impl ChunkServer {
    /// Stores what is complete and asks for more; one batch at a time.
    fn go_on_building(&mut self, key: u64) {
        loop {
            let one = self.replication(key);
            let is_ahead = one.flushing.is_some() && one.unflushed >= FLUSH_STEP;
            if one.steps > 0 || is_ahead || one.resting {
                return;
            }
            let (build, _) = one.build.as_mut().expect("it is a build");
            if build.is_done() {
                return self.finish_replication(key);
            }
            match build.plan() {
                Err(error) => {
                    one.last_error = format!("{error}; {}", one.last_error);
                    return self.abandon(key);
                }
                Ok(reads) => reads
                    .into_iter()
                    .for_each(|(number, read)| self.ask_blocks(key, number, &read)),
            }
            let (build, _) = self.replication(key).build.as_mut().expect("it is a build");
            if !build.is_ready() {
                return;
            }
            for (offset, data) in build.make() {
                self.store_made(key, offset, data);
            }
            self.flush_some(key);
        }
    }

    fn ask_blocks(&mut self, key: u64, number: u64, read: &Read) {
        let (offset, length) = (read.offset, read.length);
        let body = ChunkRequestBody::Read { offset, length };
        self.ask_source(&read.source, key, Asked::Blocks { number }, body);
    }

    fn store_made(&mut self, key: u64, offset: u32, data: Bytes) {
        let one = self.replication(key);
        one.bytes += data.len() as u64;
        one.unflushed += data.len() as u64;
        let checksums = data.chunks(UNIT_SIZE).map(crc32fast::hash).collect();
        let step = ReceiveStep::Piece {
            offset,
            data,
            checksums,
        };
        self.receive(key, step);
    }

    /// A source of a build answered.
    fn on_blocks(
        &mut self,
        key: u64,
        number: u64,
        result: Result<ChunkReplyBody, ChunkError>,
        data: &Bytes,
    ) {
        let one = self.replications.table.get_mut(&key);
        let Some(one) = one.filter(|one| one.stage == Stage::Reading) else {
            return;
        };
        let Some((build, from)) = &mut one.build else {
            return;
        };
        let Some(read) = build.end_read(number) else {
            return;
        };
        let failed = match &result {
            Ok(ChunkReplyBody::Read {
                checksums, version, ..
            }) => judge_blocks(&read, (checksums, data), *version == *from),
            Ok(_) => Some(("its reply makes no sense".to_owned(), true)),
            Err(error) => Some((
                format!("{:?}", error.kind),
                error.kind == ChunkErrorKind::Corrupt,
            )),
        };
        if let Some((reason, bad)) = failed {
            let server = read.source.server;
            build.lose(server);
            one.last_error = format!("{server}: {reason}");
            if bad {
                one.bad_source = Some(server);
            }
            self.marks.reach(Mark::BuildReplanned);
        } else {
            build.take(&read, data);
        }
        self.go_on(key);
    }

    /// Reads what was made back from the disk, from an offset on.
    fn verify(&mut self, key: u64, from: u32) {
        let one = self.replication(key);
        one.stage = Stage::Verifying(from);
        let (build, _) = one.build.as_ref().expect("it is a build");
        let left = build.length().saturating_sub(from);
        let (part, disk) = (one.part, one.disk.expect("it was put there"));
        if left == 0 {
            // Units of zeros are not kept, and were not counted.
            return match one.found == one.bytes {
                true => self.end_build(key),
                false => self.fail_build(key, &DiskError::Corrupt { unit: 0 }),
            };
        }
        let request = DiskRequest::Read {
            part,
            offset: from,
            length: left.min(PIECE),
        };
        self.operate(disk, request, Issued::Verify { key });
    }

    /// Some of it was read back.
    pub(super) fn on_verified(&mut self, key: u64, result: Result<DiskReply, DiskError>) {
        let one = self.replication(key);
        let Stage::Verifying(from) = one.stage else {
            unreachable!("it was being read back");
        };
        match result {
            Ok(DiskReply::Read { present, .. }) => {
                let units = present.iter().map(|bits| u64::from(bits.count_ones()));
                one.found += units.sum::<u64>() * UNIT_SIZE as u64;
                self.verify(key, from + PIECE);
            }
            Ok(other) => panic!("a read was answered by {other:?}"),
            Err(error) => self.fail_build(key, &error),
        }
    }

    /// What was made is not there as it was made.
    fn fail_build(&mut self, key: u64, error: &DiskError) {
        let one = self.end_replication(key);
        let disk = one.disk.expect("it was put there");
        self.on_disk_error(disk, one.part, error);
        let result = CommandResult::Failed {
            reason: format!("what was made can't be read back: {error}"),
            bad_source: None,
        };
        self.tell_asker(one.purpose, result);
    }

    fn end_build(&mut self, key: u64) {
        let one = self.end_replication(key);
        self.marks.reach(Mark::PartReceived);
        // A good one: it is there, and of what it was made as.
        let made = self.parts.made(one.part).copied();
        self.say_gained(self.parts.report(one.part).into_iter().collect());
        let state = made.map(|info| PartState {
            version: info.version,
            epoch: info.epoch,
            digest: 0,
            boot: self.config.boot,
        });
        self.tell_asker(one.purpose, CommandResult::Parts(vec![state]));
    }
}

/// What is wrong with what a source of a build answered, and whether the source is bad.
fn judge_blocks(
    read: &Read,
    (checksums, data): (&[u32], &Bytes),
    is_of_version: bool,
) -> Option<(String, bool)> {
    if !is_of_version {
        return Some(("it is of another version".to_owned(), false));
    }
    let units = data.chunks(UNIT_SIZE).map(crc32fast::hash);
    let whole = data.len() == read.length as usize && units.eq(checksums.iter().copied());
    (!whole).then(|| ("its data came damaged".to_owned(), true))
}
