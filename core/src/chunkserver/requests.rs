//! The data port: what clients and other chunkservers ask, who may, and the
//! answer once every server of the chain has done its part.
//!
//! Invariant: nothing is done without a capability for this server in this life,
//! nor after the leader's serve lease ended; a reply `Done` means that it was done
//! here and at every server behind.

use super::ChunkServer;
use super::disks::Issued;
use super::pace::Begun;
use super::parts::{Change, PartError, PartInfo, PartOp, PartResult, PartWrite, Then};
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest};
use crate::hash::Digest;
use crate::ids::{BootId, ChunkVersion, DiskId, LinkId, PartId, RequestId, ServerId};
use crate::limits::{CHUNK_IO_MAX, CHUNK_SIZE, UNIT_SIZE};
use crate::machine::Role;
use crate::marks::Mark;
use crate::planted::{self, Planted};
use crate::time::{Duration, Instant};
use crate::wire::Message;
use crate::wire::capability::{Capability, Right};
use crate::wire::client_chunk::{
    ChunkError, ChunkErrorKind, ChunkReply, ChunkReplyBody, ChunkRequest, ChunkRequestBody,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// For how long after a request repair leaves room for more of them.
const FOREGROUND_LINGER: Duration = Duration::from_millis(500);

/// A read (or a map) that a disk does for somebody.
#[derive(Debug)]
pub(super) struct Reading {
    link: LinkId,
    request: RequestId,
    part: PartId,
    /// The least version that it must have: under a lease a copy is raised by the first
    /// write, and readers go on. `None` for the writer itself.
    version: Option<ChunkVersion>,
    /// When a client waits for it.
    begun: Option<Begun>,
    /// When it began, if another server waits for it.
    sourced: Option<Instant>,
    /// What is read.
    body: DiskRequest,
}

/// A change that somebody asked for, here and down the chain.
#[derive(Debug)]
struct Job {
    link: LinkId,
    request: RequestId,
    capability: Capability,
    part: PartId,
    /// The local half ends with a commit.
    sync: bool,
    /// Its number under the lease, or 0.
    syncs: u32,
    stage: Stage,
    local: Option<Result<(), ChunkErrorKind>>,
    begun: Begun,
    behind: Option<Result<Vec<BootId>, ChunkError>>,
}

/// What the local half is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Writing,
    Committing,
}

/// The changes under way.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    table: BTreeMap<u64, Job>,
    next: u64,
}

impl Jobs {
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.word(self.next).word(self.table.len() as u64);
    }
}

/// Whether a range makes sense.
fn is_within(offset: u32, length: u64) -> bool {
    u64::from(offset) + length <= CHUNK_SIZE
}

/// Whether a request makes sense, its checksums apart.
fn is_valid(request: &ChunkRequest) -> bool {
    match &request.body {
        ChunkRequestBody::Read { offset, length } => {
            let whole = |number: u32| (number as usize).is_multiple_of(UNIT_SIZE);
            let bounded = (1..=CHUNK_IO_MAX).contains(&(*length as usize));
            whole(*offset) && whole(*length) && bounded && is_within(*offset, u64::from(*length))
        }
        ChunkRequestBody::Write {
            offset, drop_from, ..
        } => {
            let length = request.data.len();
            let drop_from = drop_from.is_none_or(|from| is_within(from, 0));
            length <= CHUNK_IO_MAX && is_within(*offset, length as u64) && drop_from
        }
        ChunkRequestBody::Zero { offset, length } => is_within(*offset, u64::from(*length)),
        ChunkRequestBody::Sync | ChunkRequestBody::Map => true,
    }
}

fn needed_right(body: &ChunkRequestBody) -> Right {
    match body {
        ChunkRequestBody::Read { .. } | ChunkRequestBody::Map => Right::Read,
        ChunkRequestBody::Write { .. } | ChunkRequestBody::Zero { .. } | ChunkRequestBody::Sync => {
            Right::Write
        }
    }
}

impl ChunkServer {
    pub(super) fn on_request(&mut self, link: LinkId, request: ChunkRequest) {
        if let Err(kind) = self.admit(&request) {
            return self.refuse(link, request.request, kind);
        }
        // What another chunkserver reads is for a copy; what it writes, for a client.
        if self.is_client(link) || needed_right(&request.body) == Right::Write {
            self.foreground_until = self.now + FOREGROUND_LINGER;
        }
        match request.body {
            ChunkRequestBody::Read { offset, length } => {
                let part = request.capability.part;
                let body = DiskRequest::Read {
                    part,
                    offset,
                    length,
                };
                self.read_part(link, &request, body);
            }
            ChunkRequestBody::Map => {
                let part = request.capability.part;
                self.read_part(link, &request, DiskRequest::Map { part });
            }
            _ => self.start_job(link, request),
        }
    }

    fn is_client(&self, link: LinkId) -> bool {
        self.accepted.get(&link) == Some(&Role::Client)
    }

    /// Whether a request may be done.
    fn admit(&mut self, request: &ChunkRequest) -> Result<(), ChunkErrorKind> {
        let capability = &request.capability;
        if !self.masters.may_serve(self.now) {
            self.marks.reach(Mark::ServeLeaseLapsed);
            return Err(ChunkErrorKind::Busy);
        }
        let (server, boot) = (self.config.server, self.config.boot);
        if !capability.verify(self.masters.keys(), server, boot) {
            self.marks.reach(Mark::CapabilityRefused);
            return Err(ChunkErrorKind::Refused);
        }
        if !is_valid(request) {
            return Err(ChunkErrorKind::Invalid);
        }
        if needed_right(&request.body) == Right::Write && capability.right != Right::Write {
            return Err(ChunkErrorKind::Refused);
        }
        if self.stopping.is_some() || self.is_full() {
            self.marks.reach(Mark::RequestPutOff);
            return Err(ChunkErrorKind::Busy);
        }
        self.admit_to_part(request)
    }

    fn is_full(&self) -> bool {
        let waiting = self.parts.waiting() + self.sourcing.waiting();
        self.issued.len() + waiting + self.jobs.table.len() >= self.config.limits.queue_max
    }

    fn admit_to_part(&mut self, request: &ChunkRequest) -> Result<(), ChunkErrorKind> {
        let Capability {
            part,
            version,
            epoch,
            right,
            ..
        } = request.capability;
        let known = self.parts.at(part);
        if right == Right::Write && known.is_some_and(|info| info.fences(epoch)) {
            self.marks.reach(Mark::FenceRefused);
            return Err(ChunkErrorKind::Fenced);
        }
        if needed_right(&request.body) == Right::Write {
            self.parts.see_epoch(part, epoch);
            return Ok(());
        }
        match self.find_readable(part)? {
            info if right == Right::Read && info.version < version => Err(ChunkErrorKind::Version),
            _ => Ok(()),
        }
    }

    /// What a part is like that may be read.
    fn find_readable(&mut self, part: PartId) -> Result<PartInfo, ChunkErrorKind> {
        match self.parts.readable(part).copied() {
            None if self.parts.was_lost(part) => {
                self.marks.reach(Mark::LostPartAsked);
                Err(ChunkErrorKind::Medium)
            }
            None => Err(ChunkErrorKind::NotFound),
            Some(info) if self.disks.is_closing(info.disk) => Err(ChunkErrorKind::Medium),
            Some(info) => Ok(info),
        }
    }

    fn read_part(&mut self, link: LinkId, request: &ChunkRequest, body: DiskRequest) {
        let of_client = self.is_client(link);
        let capability = &request.capability;
        let part = capability.part;
        let disk = self.parts.readable(part);
        let disk = disk.expect("it was admitted").disk;
        let reading = Reading {
            link,
            request: request.request,
            part,
            version: (capability.right == Right::Read).then_some(capability.version),
            begun: of_client.then(|| self.begin_foreground()),
            sourced: None,
            body: body.clone(),
        };
        match of_client {
            true => self.operate(disk, body, Issued::Read(reading)),
            false => self.source(reading),
        }
    }

    /// Begins what another server reads. It may have waited, and is admitted once more.
    pub(super) fn begin_sourced(&mut self, mut reading: Reading) {
        reading.sourced = Some(self.now);
        let found = match self.masters.may_serve(self.now) {
            true => self.find_readable(reading.part),
            false => Err(ChunkErrorKind::Busy),
        };
        match found {
            Ok(info) => {
                let body = reading.body.clone();
                self.operate(info.disk, body, Issued::Read(reading));
            }
            Err(kind) => {
                self.sourcing.end_one();
                self.refuse(reading.link, reading.request, kind);
            }
        }
    }

    /// Where a part is that is not on a disk any more.
    fn moved_from(&self, disk: DiskId, part: PartId) -> Option<DiskId> {
        let now_on = self.parts.made(part).map(|info| info.disk);
        now_on.filter(|now_on| *now_on != disk)
    }

    pub(super) fn on_read(
        &mut self,
        disk: DiskId,
        reading: Reading,
        result: Result<DiskReply, DiskError>,
    ) {
        let is_gone = matches!(result, Err(DiskError::NotFound));
        if let Some(to) = self.moved_from(disk, reading.part).filter(|_| is_gone) {
            let request = reading.body.clone();
            return self.operate(to, request, Issued::Read(reading));
        }
        if let Some(begun) = reading.begun {
            self.end_foreground(begun);
        }
        if let Some(began) = reading.sourced {
            self.end_sourcing(began);
        }
        let reply = match result {
            Ok(DiskReply::Read {
                data,
                checksums,
                present,
                version,
            }) => {
                let body = ChunkReplyBody::Read {
                    checksums,
                    present,
                    version,
                };
                Ok((version, body, data))
            }
            Ok(DiskReply::Map {
                present, version, ..
            }) => Ok((version, ChunkReplyBody::Map { present }, Bytes::new())),
            Ok(other) => panic!("a read was answered by {other:?}"),
            Err(error) => {
                self.on_disk_error(disk, reading.part, &error);
                Err(kind_of(&error))
            }
        };
        match reply {
            Ok((version, body, data)) if reading.version.is_none_or(|wanted| wanted <= version) => {
                self.reply(reading.link, reading.request, Ok(body), data);
            }
            Ok(_) => self.refuse(reading.link, reading.request, ChunkErrorKind::Version),
            Err(kind) => self.refuse(reading.link, reading.request, kind),
        }
    }

    /// Starts a change here and passes it on at once.
    fn start_job(&mut self, link: LinkId, request: ChunkRequest) {
        let key = self.jobs.next;
        self.jobs.next += 1;
        let part = request.capability.part;
        let job = Job {
            link,
            request: request.request,
            capability: request.capability.clone(),
            part,
            sync: matches!(
                request.body,
                ChunkRequestBody::Sync | ChunkRequestBody::Write { sync: true, .. }
            ),
            syncs: request.syncs,
            stage: Stage::Writing,
            local: None,
            begun: self.begin_foreground(),
            behind: request.chain.is_empty().then(|| Ok(Vec::new())),
        };
        self.jobs.table.insert(key, job);
        if !request.chain.is_empty() {
            self.forward(key, &request);
        }
        self.start_local(key, part, request);
    }

    fn start_local(&mut self, key: u64, part: PartId, request: ChunkRequest) {
        let (version, epoch) = (request.capability.version, request.capability.epoch);
        let change = match request.body {
            ChunkRequestBody::Write {
                offset,
                checksums,
                drop_from,
                ..
            } => Change::Data {
                drop_from,
                offset,
                data: request.data,
                checksums,
            },
            ChunkRequestBody::Zero { offset, length } => Change::Zero { offset, length },
            ChunkRequestBody::Sync => return self.commit_job(key),
            ChunkRequestBody::Read { .. } | ChunkRequestBody::Map => {
                unreachable!("those are no jobs")
            }
        };
        let write = PartWrite {
            version,
            epoch,
            change,
        };
        self.change(part, PartOp::Write(write), Then::Job(key));
    }

    /// The part of a job is committed, with what its capability says.
    fn commit_job(&mut self, key: u64) {
        let job = self.jobs.table.get_mut(&key).expect("the job is under way");
        let after_write = job.stage == Stage::Writing && job.sync && job.local.is_some();
        job.stage = Stage::Committing;
        job.local = None;
        let part = job.part;
        let op = PartOp::Commit {
            version: job.capability.version.after_syncs(job.syncs),
            epoch: job.capability.epoch,
            create: !after_write,
            guarded: true,
        };
        if planted::is(Planted::AcknowledgeBeforeSync) {
            return self.end_local(key, Ok(()));
        }
        match after_write {
            true => self.change_next(part, op, Then::Job(key)),
            false => self.change(part, op, Then::Job(key)),
        }
    }

    /// A write dropped what was durable behind the end of the file. It is acknowledged once
    /// that is durable too: the file may grow over the place by then, and a crash would show
    /// again what was cut.
    pub(super) fn sync_along(&mut self, then: Then) {
        if let Then::Job(key) = then {
            self.marks.reach(Mark::CutSynced);
            let job = self.jobs.table.get_mut(&key).expect("the job is under way");
            job.sync = true;
        }
    }

    /// The local half of a job came to an end, or to its commit.
    pub(super) fn on_local(&mut self, key: u64, result: PartResult) {
        let job = self.jobs.table.get_mut(&key).expect("the job is under way");
        let result = match result {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ChunkErrorKind::Medium),
            Err(error) => Err(kind_of_part(&error)),
        };
        if result.is_ok() && job.sync && job.stage == Stage::Writing {
            job.local = Some(result);
            return self.commit_job(key);
        }
        if result == Err(ChunkErrorKind::Fenced) {
            self.marks.reach(Mark::FenceRefused);
        }
        self.end_local(key, result);
    }

    fn end_local(&mut self, key: u64, result: Result<(), ChunkErrorKind>) {
        let job = self.jobs.table.get_mut(&key).expect("the job is under way");
        job.local = Some(result);
        let begun = job.begun;
        self.end_foreground(begun);
        self.try_end_job(key);
    }

    /// The servers behind have done it, or one of them has not.
    pub(super) fn on_behind(&mut self, key: u64, result: Result<Vec<BootId>, ChunkError>) {
        let job = self.jobs.table.get_mut(&key).expect("the job is under way");
        job.behind = Some(result);
        self.try_end_job(key);
    }

    fn try_end_job(&mut self, key: u64) {
        let job = &self.jobs.table[&key];
        if job.local.is_none() || job.behind.is_none() {
            return;
        }
        let job = self.jobs.table.remove(&key).expect("it was just seen");
        let (local, behind) = (
            job.local.expect("both ended"),
            job.behind.expect("both ended"),
        );
        let result = match (local, behind) {
            (Err(kind), _) => Err(self.own_error(kind)),
            (_, Err(error)) => Err(error),
            (Ok(()), Ok(behind)) => {
                let mut boots = vec![self.config.boot];
                boots.extend(behind);
                Ok(ChunkReplyBody::Done { boots })
            }
        };
        self.reply(job.link, job.request, result, Bytes::new());
    }

    fn own_error(&self, kind: ChunkErrorKind) -> ChunkError {
        let server: ServerId = self.config.server;
        ChunkError { server, kind }
    }

    fn refuse(&mut self, link: LinkId, request: RequestId, kind: ChunkErrorKind) {
        let error = self.own_error(kind);
        self.reply(link, request, Err(error), Bytes::new());
    }

    fn reply(
        &mut self,
        link: LinkId,
        request: RequestId,
        result: Result<ChunkReplyBody, ChunkError>,
        data: Bytes,
    ) {
        // Whoever asked may be gone.
        if self.accepted.contains_key(&link) {
            let reply = ChunkReply {
                request,
                result,
                data,
            };
            self.send(link, Message::ChunkReply(reply));
        }
    }
}

fn kind_of(error: &DiskError) -> ChunkErrorKind {
    match error {
        DiskError::NotFound => ChunkErrorKind::NotFound,
        DiskError::Corrupt { .. } | DiskError::Unreadable { .. } => ChunkErrorKind::Corrupt,
        DiskError::Mismatch => ChunkErrorKind::Invalid,
        DiskError::Full => ChunkErrorKind::Full,
        DiskError::Medium(_) => ChunkErrorKind::Medium,
    }
}

fn kind_of_part(error: &PartError) -> ChunkErrorKind {
    match error {
        PartError::Fenced => ChunkErrorKind::Fenced,
        PartError::Version => ChunkErrorKind::Version,
        PartError::Lost => ChunkErrorKind::Medium,
        PartError::Disk(error) => kind_of(error),
    }
}
