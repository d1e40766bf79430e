//! Reads disks as a power cut at this instant would leave them (keeping nothing
//! unsynced), through the same recovery that a restarted process would run.
//!
//! Opened images are kept until something becomes durable on their disk.

use crate::disk::SimDisk;
use crate::network::Nanos;
use antler_core::chunk::operation::{DiskError, DiskReply, DiskRequest, StoredPart};
use antler_core::chunk::{ChunkStore, Progress, StoreOptions};
use antler_core::ids::{LogPosition, PartId, ServerId, Term};
use antler_core::journal::{self, Founding, LogWatch};
use antler_core::limits::UNIT_SIZE;
use antler_core::vfs::Vfs;
use std::collections::BTreeMap;

/// A member's disk as it is built in.
pub(crate) struct MemberDisk {
    pub(crate) node: usize,
    pub(crate) voter: bool,
    pub(crate) disk: SimDisk,
    pub(crate) founding: Founding,
}

/// A chunkserver's disk as it is built in.
pub(crate) struct ServerDisk {
    pub(crate) node: usize,
    pub(crate) number: usize,
    pub(crate) server: ServerId,
    pub(crate) disk: SimDisk,
    pub(crate) options: StoreOptions,
}

impl ServerDisk {
    /// Whether judges may hold it to its word.
    pub(crate) fn is_trusted(&self) -> bool {
        self.disk.is_honest() && !self.disk.faults().vanished
    }
}

/// Every disk of the cluster.
#[derive(Default)]
pub(crate) struct Disks {
    pub(crate) members: Vec<MemberDisk>,
    pub(crate) servers: Vec<ServerDisk>,
}

/// After so many looks at a log it is recovered whole again.
const WHOLE_EVERY: u32 = 32;

/// What a member would recover: the newest image, and the log behind it.
struct Recovered {
    /// The disk's count of durable changes when it was read.
    changes: u64,
    image: LogPosition,
    log: Option<LogWatch>,
    /// How often the log was read on since.
    looks: u32,
}

impl Recovered {
    fn holds(&self, position: LogPosition, term: Term) -> bool {
        let logged = self.log.as_ref().and_then(|log| log.term_at(position));
        logged == Some(term) || self.image >= position
    }
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct DiskReader {
    logs: BTreeMap<usize, Recovered>,
    stores: BTreeMap<(usize, usize), (u64, ChunkStore<SimDisk>)>,
}

impl DiskReader {
    /// Whether a member would find this entry, or an image that covers it.
    ///
    /// # Errors
    /// When its disk could not be recovered.
    pub(crate) fn holds_entry(
        &mut self,
        now: Nanos,
        member: &MemberDisk,
        position: LogPosition,
        term: Term,
    ) -> Result<bool, String> {
        let changes = member.disk.durable_changes(now);
        let known = self.logs.remove(&member.node);
        let known = match known {
            Some(known) if known.changes == changes => Some(known),
            Some(known) if known.looks < WHOLE_EVERY => read_on(now, member, known, changes),
            _ => None,
        };
        let recovered = match known {
            Some(known) if known.holds(position, term) => known,
            // What was read on may have missed it: recovery itself decides.
            _ => recover(now, member, changes)?,
        };
        let holds = recovered.holds(position, term);
        self.logs.insert(member.node, recovered);
        Ok(holds)
    }

    /// The parts that a disk would have.
    ///
    /// # Errors
    /// When it could not be recovered.
    pub(crate) fn parts(
        &mut self,
        now: Nanos,
        disk: &ServerDisk,
    ) -> Result<Vec<StoredPart>, String> {
        Ok(self.store(now, disk)?.parts().collect())
    }

    /// The newest of a part on a server's disks, and the disk that has it: a disk that
    /// failed may still hold what was there before.
    ///
    /// # Errors
    /// When a disk could not be recovered.
    pub(crate) fn find_part<'a>(
        &mut self,
        now: Nanos,
        disks: impl Iterator<Item = &'a ServerDisk>,
        part: PartId,
    ) -> Result<Option<(&'a ServerDisk, StoredPart)>, String> {
        let mut newest: Option<(&ServerDisk, StoredPart)> = None;
        for disk in disks {
            let mut parts = self.store(now, disk)?.parts();
            let Some(stored) = parts.find(|stored| stored.part == part) else {
                continue;
            };
            let age = |stored: &StoredPart| (stored.version, stored.epoch);
            if newest.is_none_or(|(_, known)| age(&known) < age(&stored)) {
                newest = Some((disk, stored));
            }
        }
        Ok(newest)
    }

    /// Bytes of a part. Absent ones are zeros.
    ///
    /// # Errors
    /// When the disk could not be recovered or says no.
    pub(crate) fn read(
        &mut self,
        now: Nanos,
        disk: &ServerDisk,
        part: PartId,
        offset: u64,
        length: u64,
    ) -> Result<Vec<u8>, String> {
        let unit = UNIT_SIZE as u64;
        let from = offset / unit * unit;
        let to = (offset + length).div_ceil(unit) * unit;
        let request = DiskRequest::Read {
            part,
            offset: from as u32,
            length: (to - from) as u32,
        };
        match execute(self.store(now, disk)?, request) {
            Ok(DiskReply::Read { data, .. }) => {
                let start = (offset - from) as usize;
                Ok(data[start..start + length as usize].to_vec())
            }
            other => Err(format!("reading {part}: {other:?}")),
        }
    }

    /// The digest of a part's content.
    ///
    /// # Errors
    /// When the disk could not be recovered or says no.
    pub(crate) fn digest(
        &mut self,
        now: Nanos,
        disk: &ServerDisk,
        part: PartId,
    ) -> Result<u64, String> {
        match execute(self.store(now, disk)?, DiskRequest::Digest { part }) {
            Ok(DiskReply::Digest(_, digest)) => Ok(digest),
            other => Err(format!("the digest of {part}: {other:?}")),
        }
    }

    fn store(&mut self, now: Nanos, disk: &ServerDisk) -> Result<&mut ChunkStore<SimDisk>, String> {
        let changes = disk.disk.durable_changes(now);
        let key = (disk.node, disk.number);
        if self.stores.get(&key).is_none_or(|(at, _)| *at != changes) {
            let copy = disk.disk.durable_copy(now);
            let (store, _) = ChunkStore::open(copy, disk.options.clone())
                .map_err(|error| format!("node {} disk {}: {error}", disk.node, disk.number))?;
            self.stores.insert(key, (changes, store));
        }
        Ok(&mut self.stores.get_mut(&key).expect("it was just opened").1)
    }
}

/// Runs a restarted member's recovery.
fn recover(now: Nanos, member: &MemberDisk, changes: u64) -> Result<Recovered, String> {
    let copy = member.disk.durable_copy(now);
    let fail = |error| format!("node {} would not recover: {error}", member.node);
    let opened = journal::open(copy.clone(), copy, &member.founding);
    let (_, _, recovered) = opened.map_err(fail)?;
    let image = recovered.meta.position;
    // Recovery wrote to its copy.
    let mut copy = member.disk.durable_copy(now);
    let log = LogWatch::read(&mut copy, &member.founding, image).map_err(fail)?;
    let term_of = |position| log.as_ref().and_then(|log| log.term_at(position));
    let lost = recovered
        .entries
        .iter()
        .find(|entry| term_of(entry.position) != Some(entry.term));
    match lost {
        Some(entry) => Err(format!(
            "node {} recovers {}, which its log has not",
            member.node, entry.position
        )),
        None => Ok(Recovered {
            changes,
            image,
            log,
            looks: 0,
        }),
    }
}

/// Reads on in a log that was recovered before; `None` where that does not go.
fn read_on(now: Nanos, member: &MemberDisk, known: Recovered, changes: u64) -> Option<Recovered> {
    let mut copy = member.disk.durable_copy(now);
    let log = known.log?.read_on(&mut copy).ok()?;
    Some(Recovered {
        changes,
        image: known.image,
        log: Some(log),
        looks: known.looks + 1,
    })
}

fn execute(store: &mut ChunkStore<SimDisk>, request: DiskRequest) -> Result<DiskReply, DiskError> {
    let mut work = store.start(request);
    let mut synced = None;
    loop {
        match store.advance(&mut work, synced.take()) {
            Progress::Sync(file) => synced = Some(store.vfs_mut().sync(file)),
            Progress::More => {}
            Progress::Done(result) => return result,
        }
    }
}
