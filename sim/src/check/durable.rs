//! What was promised durable is durable, at the moment of the promise (P1, P2): a
//! mutation's record lies in the logs of a quorum, the bytes of an fsync on every
//! copy, the file's length with the master.

use super::copies::is_part;
use super::disks::{DiskReader, Disks, MemberDisk, ServerDisk};
use super::members::MembersJudge;
use crate::model::bytes::FileBytes;
use crate::model::content::Source;
use crate::network::Nanos;
use crate::workload::FileKey;
use antler_core::chunk::erasure::StripeCoder;
use antler_core::chunk::geometry::PartSet;
use antler_core::chunk::stripe::Stripe;
use antler_core::ids::{ChunkId, LogPosition, PartId, RequestId, ServerId, SessionId};
use antler_core::limits::CHUNK_SIZE;
use antler_core::namespace::State;
use antler_core::namespace::record::{Record, RecordBody};
use antler_core::rng::Rng;
use std::collections::BTreeMap;

/// See the module's doc.
pub(crate) struct DurableJudge {
    rng: Rng,
    /// Looks at one in so many acknowledgements.
    sampling: u64,
    positions: BTreeMap<(SessionId, RequestId), LogPosition>,
    /// Records looked for on disks, and byte ranges.
    pub(crate) records: u64,
    pub(crate) ranges: u64,
}

impl DurableJudge {
    pub(crate) fn new(seed: u64, sampling: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            sampling,
            positions: BTreeMap::new(),
            records: 0,
            ranges: 0,
        }
    }

    /// A record was committed at a position.
    pub(crate) fn on_record(&mut self, position: LogPosition, record: &Record) {
        if let RecordBody::Client(client) = &record.body {
            let key = (client.session, client.request);
            self.positions.entry(key).or_insert(position);
        }
    }

    /// A master answers a mutation.
    ///
    /// # Errors
    /// When its record is not durable at a quorum.
    pub(crate) fn on_mutation_answered(
        &mut self,
        now: Nanos,
        key: (SessionId, RequestId),
        done: bool,
        members: &MembersJudge,
        disks: &Disks,
        reader: &mut DiskReader,
    ) -> Result<(), String> {
        let Some(&position) = self.positions.get(&key) else {
            return match done {
                true => Err(format!(
                    "{} of {} was answered but is not in the log",
                    key.1, key.0
                )),
                // Refused before it was logged.
                false => Ok(()),
            };
        };
        if !self.rng.one_in(self.sampling) {
            return Ok(());
        }
        self.records += 1;
        let Some(term) = members.term_of(position) else {
            return Ok(());
        };
        let voters = disks.members.iter().filter(|member| member.voter);
        let is_trusted =
            |member: &&MemberDisk| member.disk.is_honest() && !member.disk.faults().vanished;
        let (trusted, others): (Vec<_>, Vec<_>) = voters.partition(is_trusted);
        let count = trusted.len() + others.len();
        let enough = (count / 2 + 1).saturating_sub(others.len());
        let holding = reader.count_entry(now, &trusted, (position, term), enough)? + others.len();
        match holding * 2 > count {
            true => Ok(()),
            false => Err(format!(
                "{} of {} was answered, but its record at {position} is durable at {holding} of \
                 {count} masters",
                key.1, key.0
            )),
        }
    }

    /// A fsync was answered as done.
    ///
    /// # Errors
    /// When something of the file is not durable.
    pub(crate) fn on_synced(
        &mut self,
        key: FileKey,
        file: &FileBytes,
        seed: u64,
        look: &mut Look<'_>,
    ) -> Result<(), String> {
        if !self.rng.one_in(self.sampling) {
            return Ok(());
        }
        let attributes = match look.state.attributes(key.0) {
            Ok(attributes) if attributes.generation == key.1 => attributes,
            _ => return Ok(()),
        };
        for (from, to, source) in file.durable_ranges() {
            if source == Source::Zero {
                continue;
            }
            if to > attributes.size {
                return Err(format!(
                    "{} was synced up to {to} bytes, but its length is {} at the master",
                    key.0, attributes.size
                ));
            }
            let mut at = from;
            while at < to {
                let end = to.min((at / CHUNK_SIZE + 1) * CHUNK_SIZE);
                self.ranges += 1;
                let range = Range::new(key, at..end, source, seed);
                range.check(look)?;
                at = end;
            }
        }
        Ok(())
    }
}

/// The cluster at one moment, as a judge looks at it.
pub(crate) struct Look<'a> {
    pub(crate) now: Nanos,
    /// The leader's state.
    pub(crate) state: &'a State,
    pub(crate) disks: &'a Disks,
    pub(crate) reader: &'a mut DiskReader,
}

/// A synced range within one chunk.
struct Range {
    key: FileKey,
    from: u64,
    to: u64,
    source: Source,
    /// What every copy must hold there.
    expected: Vec<u8>,
}

impl Range {
    fn new(key: FileKey, bytes: std::ops::Range<u64>, source: Source, seed: u64) -> Self {
        let length = usize::try_from(bytes.end - bytes.start).expect("it is within a chunk");
        let mut expected = vec![0; length];
        source.fill(seed, bytes.start, &mut expected);
        Self {
            key,
            from: bytes.start,
            to: bytes.end,
            source,
            expected,
        }
    }

    fn check(&self, look: &mut Look<'_>) -> Result<(), String> {
        let index = (self.from / CHUNK_SIZE) as u32;
        let Ok(Some((chunk, valid))) = look.state.chunk_at(self.key.0, index) else {
            return Err(self.describe("has no chunk at the master"));
        };
        if u64::from(valid) < self.to - u64::from(index) * CHUNK_SIZE {
            return Err(self.describe(&format!("lies beyond the {valid} valid bytes of {chunk}")));
        }
        if let Some(stripe) = look.state.stripe(chunk) {
            return self.check_parts((chunk, stripe), look).or_else(|_| {
                // What was read on may have missed it: recovery itself decides.
                look.reader.recover_again(look.disks.servers.iter());
                self.check_parts((chunk, stripe), look)
            });
        }
        if self.count_copies(chunk, look)? > 0 {
            return Ok(());
        }
        look.reader.recover_again(look.disks.servers.iter());
        match self.count_copies(chunk, look)? {
            0 => Err(self.describe(&format!("is on no copy of {chunk}"))),
            _ => Ok(()),
        }
    }

    /// Of a chunk in parts: whether as many as it takes are durable, and any of them give
    /// the range. Who can't be held to its word may have what is missing.
    fn check_parts(
        &self,
        (chunk, stripe): (ChunkId, Stripe),
        look: &mut Look<'_>,
    ) -> Result<(), String> {
        let version = look.state.chunk(chunk).map(|one| one.version);
        let mut found: BTreeMap<usize, &ServerDisk> = BTreeMap::new();
        for disk in look.disks.servers.iter().filter(|disk| disk.is_trusted()) {
            for stored in look.reader.parts(look.now, disk)? {
                let is_of = stored.part.chunk == chunk
                    && is_part(&stored, stripe, version.unwrap_or_default());
                if is_of && let Some(index) = stripe.shape.index_of(stored.part) {
                    found.insert(index, disk);
                }
            }
        }
        let data = stripe.shape.data();
        if found.len() < data {
            return match look.disks.servers.iter().all(ServerDisk::is_trusted) {
                true => Err(self.describe(&format!("is on {} parts of {chunk}", found.len()))),
                false => Ok(()),
            };
        }
        let all: PartSet = found.keys().copied().collect();
        let last = found.keys().rev().take(data).copied().collect();
        for there in [all, last] {
            self.check_decoded((chunk, stripe), &found, there, look)?;
        }
        Ok(())
    }

    fn check_decoded(
        &self,
        (chunk, stripe): (ChunkId, Stripe),
        found: &BTreeMap<usize, &ServerDisk>,
        there: PartSet,
        look: &mut Look<'_>,
    ) -> Result<(), String> {
        let from = (self.from % CHUNK_SIZE) as u32;
        let range = from..from + self.expected.len() as u32;
        let plan = stripe.layout().plan(range, there);
        let plan = plan.map_err(|error| self.describe(&error.to_string()))?;
        let mut read = Vec::new();
        for part in &plan.reads {
            let name = stripe.shape.part_id(chunk, part.part);
            let (offset, length) = (u64::from(part.range.start), part.range.len() as u64);
            let disk = found[&part.part];
            read.push(look.reader.read(look.now, disk, name, offset, length)?);
        }
        let read: Vec<&[u8]> = read.iter().map(|bytes| &bytes[..]).collect();
        let mut bytes = vec![0; plan.range.len()];
        StripeCoder::new(stripe.layout()).assemble(&plan, &read, &mut bytes);
        match bytes == self.expected {
            true => Ok(()),
            false => Err(self.describe(&format!("is not what parts {there:?} of {chunk} give"))),
        }
    }

    fn count_copies(&self, chunk: ChunkId, look: &mut Look<'_>) -> Result<usize, String> {
        let mut copies = 0;
        for (server, must) in holders(look.state, chunk, look.disks) {
            copies += usize::from(self.check_copy(chunk, server, must, look)?);
        }
        Ok(copies)
    }

    /// Whether a server's copy counts and holds the range.
    fn check_copy(
        &self,
        chunk: ChunkId,
        server: ServerId,
        must: bool,
        look: &mut Look<'_>,
    ) -> Result<bool, String> {
        let disks = look.disks;
        let own: Vec<&ServerDisk> = disks
            .servers
            .iter()
            .filter(|d| d.server == server)
            .collect();
        if own.iter().any(|disk| !disk.is_trusted()) {
            return Ok(true);
        }
        match self.look_at(chunk, &own, must, look) {
            Ok(counts) => Ok(counts),
            // What was read on may have missed it: recovery itself decides.
            Err(_) => {
                look.reader.recover_again(own.iter().copied());
                self.look_at(chunk, &own, must, look)
            }
        }
    }

    fn look_at(
        &self,
        chunk: ChunkId,
        own: &[&ServerDisk],
        must: bool,
        look: &mut Look<'_>,
    ) -> Result<bool, String> {
        let part = PartId::whole(chunk);
        let found = look.reader.find_part(look.now, own.iter().copied(), part)?;
        let version = look
            .state
            .chunk(chunk)
            .map(|chunk| chunk.version)
            .unwrap_or_default();
        let Some((disk, stored)) = found else {
            return match must {
                true => Err(self.describe(&format!("is not on its server, which has no {chunk}"))),
                false => Ok(false),
            };
        };
        if !must && stored.version != version {
            return Ok(false);
        }
        let offset = self.from % CHUNK_SIZE;
        let bytes = look
            .reader
            .read(look.now, disk, part, offset, self.to - self.from)?;
        match bytes == self.expected {
            true => Ok(true),
            false => {
                let server = disk.server;
                Err(self.describe(&format!("is not durable on {server} ({chunk})")))
            }
        }
    }

    fn describe(&self, what: &str) -> String {
        format!(
            "an fsync was answered, but {:?} at {}..{} of {} of {} {what}",
            self.source, self.from, self.to, self.key.0, self.key.1
        )
    }
}

/// Who holds a chunk: the write set of its lease, all of which must have what was
/// synced; or whoever has it at the present version.
fn holders(state: &State, chunk: ChunkId, disks: &Disks) -> Vec<(ServerId, bool)> {
    let lease = state
        .chunk(chunk)
        .map(|chunk| chunk.lease)
        .unwrap_or_default();
    if !lease.copies().is_empty() {
        return lease
            .copies()
            .iter()
            .map(|(server, _)| (*server, true))
            .collect();
    }
    let mut servers: Vec<_> = disks
        .servers
        .iter()
        .map(|disk| (disk.server, false))
        .collect();
    servers.dedup();
    servers
}
