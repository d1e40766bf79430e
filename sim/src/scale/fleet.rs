//! The chunkservers as models: they speak the real messages, keep the names of their
//! copies, and make copies that take the time which disks and network give them.
//!
//! What runs here is not the chunkserver's machine: a copy of 64 MiB in pieces of 1 MiB
//! would be hundreds of events, and a rack is a million copies. What it does with a
//! command is what that machine does: sources are tried in turn, a unit that does not
//! verify is told to the master by the server that has it, and the command's end tells
//! of a source that was bad. Invariant: a server holds a copy once, on one disk.

use super::agenda::{Agenda, Event, Step};
use super::content::{Contents, Flip};
use super::founding::{
    boot_of, chunk_id, chunk_of, first_disk, first_servers, server_id, server_of,
};
use super::spec::ScalePlan;
use super::transfers::{Spindle, Transfers};
use crate::network::Nanos;
use antler_core::ids::{
    Address, BootId, ChunkVersion, DiskId, Epoch, Incarnation, PartId, ServerId, Term,
};
use antler_core::limits::{CHAIN_TIMEOUT, REPORT_BATCH, UNIT_SIZE};
use antler_core::vfs::Space;
use antler_core::wire::chunk_master::{
    ChunkToMaster, Command, CommandResult, PartReport, PartState,
};
use antler_core::wire::client_master::{DiskStatus, LocatedCopy};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The version and epoch of a chunk that was written once.
const VERSION: ChunkVersion = ChunkVersion(1 << 20);
const EPOCH: Epoch = Epoch(1 << 20);
/// What a disk takes to make durable what it was given, or to delete it.
const SYNC: Nanos = 10_000_000;

/// What happened to copies, as the judge has to know it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Deed {
    /// A copy is in place, made from a source's.
    Made {
        chunk: u32,
        server: u16,
        source: u16,
        rotten: Option<Flip>,
    },
    /// A copy is gone: deleted, or with its disk.
    Gone {
        chunk: u32,
        server: u16,
        deleted: bool,
    },
    /// A copy was found to be bad by who has it.
    FoundBad { chunk: u32, server: u16 },
    /// A copy in the making came to nothing.
    Failed { chunk: u32 },
}

/// A copy that repair made.
#[derive(Clone, Copy, Debug)]
struct Made {
    disk: u8,
    rotten: Option<Flip>,
}

#[derive(Clone, Copy, Debug)]
struct Disk {
    copies: u64,
    failed: bool,
}

struct Server {
    is_there: bool,
    /// The copies that it began with, in order.
    first: Vec<u32>,
    /// Of those, the ones that are gone.
    gone: BTreeSet<u32>,
    made: BTreeMap<u32, Made>,
    bad: BTreeSet<u32>,
    disks: Vec<Disk>,
    /// Copies in the making that have to do with it.
    jobs: BTreeSet<u64>,
}

/// A copy in the making.
struct Job {
    target: u16,
    command: u64,
    chunk: u32,
    version: ChunkVersion,
    epoch: Epoch,
    disk: u8,
    sources: VecDeque<ServerId>,
    source: Option<u16>,
    attempt: u32,
    flow: Option<u32>,
    /// The source's copy: what of it is not as written, and whether that is met.
    rotten: Option<Flip>,
    will_fail: bool,
    bad_source: Option<ServerId>,
    error: &'static str,
}

/// All servers.
pub(super) struct Fleet {
    plan: ScalePlan,
    contents: Contents,
    /// The servers do not look at checksums: for the proof that the judge does.
    blind: bool,
    servers: Vec<Server>,
    transfers: Transfers,
    jobs: BTreeMap<u64, Job>,
    by_flow: BTreeMap<u32, u64>,
    next_job: u64,
    deeds: Vec<Deed>,
    /// Sources whose copy was read to where it is not as written.
    pub(super) rot_met: u64,
}

impl Fleet {
    pub(super) fn new(plan: &ScalePlan, blind: bool) -> Self {
        let new_server = || Server {
            is_there: true,
            first: Vec::new(),
            gone: BTreeSet::new(),
            made: BTreeMap::new(),
            bad: BTreeSet::new(),
            disks: vec![
                Disk {
                    copies: 0,
                    failed: false
                };
                usize::from(plan.disks)
            ],
            jobs: BTreeSet::new(),
        };
        let mut fleet = Self {
            contents: Contents::new(plan),
            blind,
            servers: (0..plan.servers).map(|_| new_server()).collect(),
            transfers: Transfers::new(plan.servers, plan.disks, plan.disk_speed, plan.network),
            jobs: BTreeMap::new(),
            by_flow: BTreeMap::new(),
            next_job: 0,
            deeds: Vec::new(),
            rot_met: 0,
            plan: plan.clone(),
        };
        fleet.fill();
        fleet
    }

    /// Puts the first copies in place.
    fn fill(&mut self) {
        let mut holders = Vec::new();
        for chunk in 0..self.plan.chunks {
            first_servers(&self.plan, chunk, &mut holders);
            for &server in &holders {
                let disk = first_disk(&self.plan, chunk, server);
                let one = &mut self.servers[usize::from(server)];
                one.first.push(chunk);
                one.disks[usize::from(disk)].copies += 1;
            }
        }
        for server in &mut self.servers {
            server.first.shrink_to_fit();
        }
    }

    pub(super) fn is_there(&self, server: u16) -> bool {
        self.servers[usize::from(server)].is_there
    }

    pub(super) fn boot(&self, server: u16) -> BootId {
        boot_of(server, self.plan.seed)
    }

    pub(super) fn under_way(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn take_deeds(&mut self) -> Vec<Deed> {
        std::mem::take(&mut self.deeds)
    }

    /// Announces the ends of transfers that were begun or changed their pace.
    pub(super) fn announce(&mut self, agenda: &mut Agenda) {
        for (at, flow, pace) in self.transfers.take_due() {
            agenda.put(at, Event::Arrived { flow, pace });
        }
    }

    pub(super) fn digest(&self, digest: &mut antler_core::hash::Digest) {
        self.transfers.digest(digest);
        digest.word(self.jobs.len() as u64).word(self.next_job);
        for server in &self.servers {
            digest
                .word(server.made.len() as u64)
                .word(server.gone.len() as u64);
        }
    }
}

/// What a server says of itself.
impl Fleet {
    pub(super) fn disk_statuses(&self, server: u16) -> Vec<DiskStatus> {
        let disks = self.servers[usize::from(server)].disks.iter();
        let status = |(place, disk): (usize, &Disk)| {
            let used = disk.copies * self.plan.chunk_size;
            DiskStatus {
                disk: disk_id(server, place as u8),
                path: String::new(),
                space: Space {
                    total: self.plan.disk_size,
                    free: self.plan.disk_size.saturating_sub(used),
                },
                copies: disk.copies,
                failed: match disk.failed {
                    true => "it does not answer".to_owned(),
                    false => String::new(),
                },
                draining: None,
                most: None,
                suspected: String::new(),
                scrub: None,
            }
        };
        disks.enumerate().map(status).collect()
    }

    pub(super) fn register(&self, server: u16) -> ChunkToMaster {
        ChunkToMaster::Register {
            server: server_id(server),
            boot: self.boot(server),
            address: Address(format!("chunkserver-{}:9420", server + 1)),
            labels: vec![("rack".to_owned(), format!("r{}", self.plan.rack_of(server)))],
            disks: self.disk_statuses(server),
            incarnation: Incarnation(0),
        }
    }

    /// The report from the copy at a place on, and where the next one begins.
    pub(super) fn report(&self, server: u16, from: usize) -> (ChunkToMaster, usize) {
        let one = &self.servers[usize::from(server)];
        let first = one.first.iter().filter(|chunk| !one.gone.contains(chunk));
        let all = first.chain(one.made.keys()).skip(from).take(REPORT_BATCH);
        let parts: Vec<PartReport> = all.map(|chunk| self.part(server, *chunk)).collect();
        let held = one.first.len() - one.gone.len() + one.made.len();
        let next = from + parts.len();
        let last = next == held;
        (ChunkToMaster::Report { parts, last }, next)
    }

    fn part(&self, server: u16, chunk: u32) -> PartReport {
        let one = &self.servers[usize::from(server)];
        let disk = self.disk_of(server, chunk).expect("it is held");
        PartReport {
            part: PartId::whole(chunk_id(chunk)),
            version: VERSION,
            epoch: EPOCH,
            disk: disk_id(server, disk),
            bad: one.bad.contains(&chunk),
            suspect: false,
        }
    }

    /// The disk with a server's copy of a chunk, if it has one.
    fn disk_of(&self, server: u16, chunk: u32) -> Option<u8> {
        let one = &self.servers[usize::from(server)];
        if let Some(made) = one.made.get(&chunk) {
            return Some(made.disk);
        }
        let is_first = one.first.binary_search(&chunk).is_ok() && !one.gone.contains(&chunk);
        is_first.then(|| first_disk(&self.plan, chunk, server))
    }

    /// What of a server's copy is not as it was written.
    fn rotten(&self, server: u16, chunk: u32) -> Option<Flip> {
        let one = &self.servers[usize::from(server)];
        if let Some(made) = one.made.get(&chunk) {
            return made.rotten;
        }
        let (place, flip) = self.contents.rotten(chunk)?;
        let mut holders = Vec::new();
        first_servers(&self.plan, chunk, &mut holders);
        (holders[place] == server).then_some(flip)
    }
}

/// What is lost.
impl Fleet {
    /// A server is gone for good, with what it held and did.
    pub(super) fn lose_server(&mut self, now: Nanos, server: u16, agenda: &mut Agenda) {
        let one = &mut self.servers[usize::from(server)];
        one.is_there = false;
        (one.first, one.gone) = (Vec::new(), BTreeSet::new());
        (one.made, one.bad) = (BTreeMap::new(), BTreeSet::new());
        for job in std::mem::take(&mut one.jobs) {
            if self.jobs[&job].target == server {
                self.stop_flow(now, job);
                self.forget_job(job);
            } else if self.jobs[&job].flow.is_some() {
                // Who reads from it hears nothing any more.
                self.stop_flow(now, job);
                let wait = CHAIN_TIMEOUT.as_nanos() as u64;
                self.go_on_later(now + wait, job, Step::Ask, agenda);
                self.job(job).error = "its source does not answer";
            }
        }
        self.announce(agenda);
    }

    /// A disk is gone for good; its server tells of every copy that went with it.
    pub(super) fn lose_disk(&mut self, now: Nanos, (server, disk): (u16, u8), agenda: &mut Agenda) {
        let on_it = |chunk: &u32| self.disk_of(server, *chunk) == Some(disk);
        let one = &self.servers[usize::from(server)];
        let first = one.first.iter().filter(|chunk| !one.gone.contains(chunk));
        let all = first.chain(one.made.keys()).copied();
        let gone: Vec<u32> = all.filter(on_it).collect();
        for &chunk in &gone {
            self.remove(server, chunk, false);
        }
        let one = &mut self.servers[usize::from(server)];
        one.disks[usize::from(disk)].failed = true;
        let jobs: Vec<u64> = one.jobs.iter().copied().collect();
        for some in gone.chunks(REPORT_BATCH) {
            let parts = some.iter().map(|chunk| PartId::whole(chunk_id(*chunk)));
            let lost = ChunkToMaster::Lost {
                parts: parts.collect(),
            };
            self.say(now, server, lost, agenda);
        }
        for job in jobs {
            self.on_job_disk_lost(now, job, (server, disk), agenda);
        }
        self.announce(agenda);
    }

    fn on_job_disk_lost(
        &mut self,
        now: Nanos,
        job: u64,
        (server, disk): (u16, u8),
        agenda: &mut Agenda,
    ) {
        let one = &self.jobs[&job];
        let (target, chunk) = (one.target, one.chunk);
        if target == server && one.disk == disk {
            self.stop_flow(now, job);
            self.job(job).error = "its disk failed";
            self.give_up(now, job, agenda);
        } else if one.source == Some(server)
            && one.flow.is_some()
            && self.disk_of(server, chunk).is_none()
        {
            self.stop_flow(now, job);
            self.go_on_later(now + self.plan.latency, job, Step::Ask, agenda);
        }
    }

    fn remove(&mut self, server: u16, chunk: u32, deleted: bool) -> bool {
        let Some(disk) = self.disk_of(server, chunk) else {
            return false;
        };
        let one = &mut self.servers[usize::from(server)];
        one.disks[usize::from(disk)].copies -= 1;
        one.bad.remove(&chunk);
        if one.made.remove(&chunk).is_none() {
            one.gone.insert(chunk);
        }
        self.deeds.push(Deed::Gone {
            chunk,
            server,
            deleted,
        });
        true
    }
}

/// What the leader has a server do.
impl Fleet {
    /// Carries a command out.
    ///
    /// # Errors
    /// When it is one that nothing in this cluster asks for: nobody writes here.
    pub(super) fn command(
        &mut self,
        now: Nanos,
        server: u16,
        (command, body): (u64, Command),
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        if !self.is_there(server) {
            return Ok(());
        }
        match body {
            Command::Replicate {
                part,
                version,
                epoch,
                sources,
            } => self.replicate(
                now,
                server,
                command,
                (part, version, epoch),
                sources,
                agenda,
            ),
            Command::Delete { parts } => {
                self.delete(now, server, command, &parts, agenda);
                Ok(())
            }
            other => Err(format!(
                "server {} was sent {other:?}, and no chunk was written",
                server + 1
            )),
        }
    }

    fn delete(
        &mut self,
        now: Nanos,
        server: u16,
        command: u64,
        parts: &[(PartId, ChunkVersion)],
        agenda: &mut Agenda,
    ) {
        let mut gone = Vec::new();
        let mut left = Vec::new();
        for (part, version) in parts {
            let Some(chunk) = chunk_of(part.chunk, &self.plan) else {
                continue;
            };
            if *version >= VERSION && self.remove(server, chunk, true) {
                gone.push(*part);
            } else if self.disk_of(server, chunk).is_some() {
                left.push(self.part(server, chunk));
            }
        }
        let at = now + SYNC;
        if !gone.is_empty() {
            self.say(at, server, ChunkToMaster::Lost { parts: gone }, agenda);
        }
        if !left.is_empty() {
            self.say(at, server, ChunkToMaster::Gained { parts: left }, agenda);
        }
        let result = CommandResult::Parts(Vec::new());
        self.say(
            at,
            server,
            ChunkToMaster::CommandDone { command, result },
            agenda,
        );
    }

    fn replicate(
        &mut self,
        now: Nanos,
        server: u16,
        command: u64,
        (part, version, epoch): (PartId, ChunkVersion, Epoch),
        sources: Vec<LocatedCopy>,
        agenda: &mut Agenda,
    ) -> Result<(), String> {
        let chunk = chunk_of(part.chunk, &self.plan);
        let chunk = chunk.ok_or_else(|| format!("{} was never made", part.chunk))?;
        if (version, epoch) != (VERSION, EPOCH) {
            return Err(format!("{part} was never at {version}, {epoch}"));
        }
        let disk = self
            .disk_of(server, chunk)
            .or_else(|| self.emptiest(server));
        let job = Job {
            target: server,
            command,
            chunk,
            version,
            epoch,
            disk: disk.unwrap_or_default(),
            sources: sources.iter().map(|source| source.server).collect(),
            source: None,
            attempt: 0,
            flow: None,
            rotten: None,
            will_fail: false,
            bad_source: None,
            error: "there is no source",
        };
        let number = self.next_job;
        self.next_job += 1;
        self.servers[usize::from(server)].jobs.insert(number);
        self.jobs.insert(number, job);
        match disk {
            Some(_) => self.try_source(now, number, agenda),
            None => {
                self.job(number).error = "no disk works";
                self.give_up(now, number, agenda);
            }
        }
        self.announce(agenda);
        Ok(())
    }

    /// The working disk with most space.
    fn emptiest(&self, server: u16) -> Option<u8> {
        let disks = self.servers[usize::from(server)].disks.iter().enumerate();
        let working = disks.filter(|(_, disk)| !disk.failed);
        let least = working.min_by_key(|(_, disk)| disk.copies)?;
        Some(least.0 as u8)
    }

    fn job(&mut self, job: u64) -> &mut Job {
        self.jobs.get_mut(&job).expect("it is under way")
    }

    fn go_on_later(&mut self, at: Nanos, job: u64, step: Step, agenda: &mut Agenda) {
        let one = self.job(job);
        one.attempt += 1;
        let attempt = one.attempt;
        agenda.put(at, Event::GoOn { job, attempt, step });
    }

    /// Reads from the next source, or gives up.
    fn try_source(&mut self, now: Nanos, job: u64, agenda: &mut Agenda) {
        self.leave_source(job);
        let Some(named) = self.job(job).sources.pop_front() else {
            return self.give_up(now, job, agenda);
        };
        let source = server_of(named);
        let (chunk, target) = (self.job(job).chunk, self.job(job).target);
        self.job(job).source = Some(source);
        self.servers[usize::from(source)].jobs.insert(job);
        if !self.is_there(source) {
            self.job(job).error = "its source does not answer";
            let wait = CHAIN_TIMEOUT.as_nanos() as u64;
            return self.go_on_later(now + wait, job, Step::Ask, agenda);
        }
        let Some(disk) = self.disk_of(source, chunk) else {
            self.job(job).error = "its source has no copy";
            return self.go_on_later(now + 2 * self.plan.latency, job, Step::Ask, agenda);
        };
        let rotten = self.rotten(source, chunk);
        let bad = self.first_bad_unit(chunk, rotten);
        let bytes = match bad {
            Some(unit) => (unit + 1) * UNIT_SIZE as u64,
            None => self.plan.chunk_size,
        };
        let from = Spindle {
            server: source,
            disk,
        };
        let one = self.job(job);
        (one.rotten, one.will_fail) = (rotten, bad.is_some());
        let to = Spindle {
            server: target,
            disk: one.disk,
        };
        let flow = self.transfers.begin(now, from, to, bytes);
        self.job(job).flow = Some(flow);
        self.by_flow.insert(flow, job);
    }

    /// The first unit of a source's copy that does not verify, of those that may not:
    /// one that is as written does.
    fn first_bad_unit(&self, chunk: u32, rotten: Option<Flip>) -> Option<u64> {
        let flip = rotten.filter(|_| !self.blind)?;
        (!self.contents.verifies(chunk, flip.unit, rotten)).then_some(flip.unit)
    }

    fn leave_source(&mut self, job: u64) {
        let one = self.job(job);
        let target = one.target;
        let source = one.source.take().filter(|source| *source != target);
        if let Some(source) = source {
            self.servers[usize::from(source)].jobs.remove(&job);
        }
    }

    fn stop_flow(&mut self, now: Nanos, job: u64) {
        if let Some(flow) = self.job(job).flow.take() {
            self.by_flow.remove(&flow);
            self.transfers.end(now, flow);
        }
    }

    /// All bytes of a transfer came, unless its pace changed meanwhile.
    pub(super) fn on_arrived(&mut self, now: Nanos, flow: u32, pace: u32, agenda: &mut Agenda) {
        if !self.transfers.has_ended(flow, pace) {
            return;
        }
        let job = self.by_flow[&flow];
        self.stop_flow(now, job);
        if self.job(job).will_fail {
            self.on_bad_source(now, job, agenda);
        } else {
            self.go_on_later(now + SYNC, job, Step::Durable, agenda);
        }
        self.announce(agenda);
    }

    /// The source met a unit that does not verify: it tells the master, and the next
    /// source is asked.
    fn on_bad_source(&mut self, now: Nanos, job: u64, agenda: &mut Agenda) {
        self.rot_met += 1;
        let one = self.job(job);
        let (source, chunk) = (one.source.expect("it was read"), one.chunk);
        one.bad_source = Some(server_id(source));
        one.error = "Corrupt";
        if self.servers[usize::from(source)].bad.insert(chunk) {
            self.deeds.push(Deed::FoundBad {
                chunk,
                server: source,
            });
            let parts = vec![self.part(source, chunk)];
            self.say(now, source, ChunkToMaster::Gained { parts }, agenda);
        }
        self.go_on_later(now + self.plan.latency, job, Step::Ask, agenda);
    }

    pub(super) fn go_on(
        &mut self,
        now: Nanos,
        job: u64,
        attempt: u32,
        step: Step,
        agenda: &mut Agenda,
    ) {
        let known = self.jobs.get(&job);
        if known.is_none_or(|known| known.attempt != attempt) {
            return;
        }
        match step {
            Step::Ask => self.try_source(now, job, agenda),
            Step::Durable => self.finish(now, job, agenda),
        }
        self.announce(agenda);
    }

    fn finish(&mut self, now: Nanos, job: u64, agenda: &mut Agenda) {
        let source = self.job(job).source.expect("it was read");
        let one = self.forget_job(job);
        let (server, chunk, disk) = (one.target, one.chunk, one.disk);
        self.remove(server, chunk, false);
        let made = Made {
            disk,
            rotten: one.rotten,
        };
        let holder = &mut self.servers[usize::from(server)];
        holder.made.insert(chunk, made);
        holder.disks[usize::from(disk)].copies += 1;
        self.deeds.push(Deed::Made {
            chunk,
            server,
            source,
            rotten: one.rotten,
        });
        let parts = vec![self.part(server, chunk)];
        self.say(now, server, ChunkToMaster::Gained { parts }, agenda);
        let state = PartState {
            version: one.version,
            epoch: one.epoch,
            digest: 0,
            boot: self.boot(server),
        };
        let done = ChunkToMaster::CommandDone {
            command: one.command,
            result: CommandResult::Parts(vec![Some(state)]),
        };
        self.say(now, server, done, agenda);
    }

    fn give_up(&mut self, now: Nanos, job: u64, agenda: &mut Agenda) {
        let one = self.forget_job(job);
        self.deeds.push(Deed::Failed { chunk: one.chunk });
        let done = ChunkToMaster::CommandDone {
            command: one.command,
            result: CommandResult::Failed {
                reason: one.error.to_owned(),
                bad_source: one.bad_source,
            },
        };
        self.say(now, one.target, done, agenda);
    }

    fn forget_job(&mut self, job: u64) -> Job {
        let one = self.jobs.remove(&job).expect("it is under way");
        assert!(one.flow.is_none(), "what it carried ended before");
        for server in one.source.into_iter().chain([one.target]) {
            self.servers[usize::from(server)].jobs.remove(&job);
        }
        one
    }

    /// Sends to the master.
    fn say(&mut self, at: Nanos, server: u16, message: ChunkToMaster, agenda: &mut Agenda) {
        let said = Event::Said(server, Box::new(message));
        agenda.put(at + self.plan.latency, said);
    }
}

fn disk_id(server: u16, place: u8) -> DiskId {
    DiskId(((u64::from(server) + 1) << 8) | u64::from(place))
}

/// What is unused of a command: its term is the leader's, of whom there is one.
pub(super) fn without_term((command, _, body): (u64, Term, Command)) -> (u64, Command) {
    (command, body)
}
