//! Reads disks as a power cut at this instant would leave them (keeping nothing
//! unsynced), through the same recovery that a restarted process would run.
//!
//! What was recovered once is read on when something became durable since. A look
//! that misses something, and every so many looks, recovers the disk whole.

use crate::disk::SimDisk;
use crate::network::Nanos;
use antler_core::chunk::operation::StoredPart;
use antler_core::chunk::{StoreOptions, StoreWatch};
use antler_core::ids::{LogPosition, PartId, ServerId, Term};
use antler_core::journal::{self, Founding, LogWatch};
use antler_core::limits::UNIT_SIZE;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

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
    /// Whether judges may hold it to its word. What was synced is gone from a disk that
    /// went back in time, as from one that was lost; so it is where a new one took its place
    /// on which its server did not start yet.
    pub(crate) fn is_trusted(&self) -> bool {
        let counts = self.disk.counts();
        let is_as_it_was = counts.restored == 0 && counts.calls > 0;
        self.disk.is_honest() && !self.disk.faults().vanished && is_as_it_was
    }
}

/// Every disk of the cluster.
#[derive(Default)]
pub(crate) struct Disks {
    pub(crate) members: Vec<MemberDisk>,
    pub(crate) servers: Vec<ServerDisk>,
}

/// After so many looks at a disk it is recovered whole again.
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

/// What a chunkserver would recover of a disk.
struct Store {
    /// The disk's count of durable changes when it was read.
    changes: u64,
    watch: StoreWatch<SimDisk>,
    /// How often it was read on since it was recovered whole.
    looks: u32,
    /// The digests of parts that were asked for since it was read.
    digests: BTreeMap<PartId, u64>,
    /// Parts of which all was read and found right.
    verified: BTreeSet<PartId>,
}

/// See the module's doc.
#[derive(Default)]
pub(crate) struct DiskReader {
    logs: BTreeMap<usize, Recovered>,
    stores: BTreeMap<(usize, usize), Store>,
}

impl DiskReader {
    /// How many of the members would find this entry, or an image that covers it, once
    /// at least so many are known to, or all were recovered.
    ///
    /// # Errors
    /// When a disk could not be recovered.
    pub(crate) fn count_entry(
        &mut self,
        now: Nanos,
        members: &[&MemberDisk],
        (position, term): (LogPosition, Term),
        enough: usize,
    ) -> Result<usize, String> {
        let mut without = Vec::new();
        let mut count = 0;
        for member in members {
            match self.log(now, member)?.holds(position, term) {
                true => count += 1,
                false => without.push(member),
            }
        }
        // What was read on may have missed it: recovery itself decides.
        for member in without {
            if count >= enough {
                break;
            }
            let changes = member.disk.durable_changes(now);
            let recovered = recover(now, member, changes)?;
            count += usize::from(recovered.holds(position, term));
            self.logs.insert(member.node, recovered);
        }
        Ok(count)
    }

    /// A member's log, read on or recovered.
    fn log(&mut self, now: Nanos, member: &MemberDisk) -> Result<&Recovered, String> {
        let changes = member.disk.durable_changes(now);
        let known = self.logs.remove(&member.node);
        let known = match known {
            Some(known) if known.changes == changes => Some(known),
            Some(known) if known.looks < WHOLE_EVERY => read_on(now, member, known, changes),
            _ => None,
        };
        let recovered = match known {
            Some(known) => known,
            None => recover(now, member, changes)?,
        };
        self.logs.insert(member.node, recovered);
        Ok(&self.logs[&member.node])
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
            let Some(stored) = self.store(now, disk)?.part(part) else {
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
    ) -> Result<Bytes, String> {
        let unit = UNIT_SIZE as u64;
        let from = offset / unit * unit;
        let to = (offset + length).div_ceil(unit) * unit;
        let store = self.store(now, disk)?;
        let data = store.read(part, from as u32, (to - from) as u32);
        let data = data.map_err(|error| format!("reading {part}: {error}"))?;
        let start = (offset - from) as usize;
        Ok(data.slice(start..start + length as usize))
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
        self.store(now, disk)?;
        let store = self.stores.get_mut(&(disk.node, disk.number));
        let store = store.expect("it was just read");
        if let Some(&known) = store.digests.get(&part) {
            return Ok(known);
        }
        let digest = store.watch.digest(part);
        let digest = digest.map_err(|error| format!("the digest of {part}: {error}"))?;
        store.digests.insert(part, digest);
        Ok(digest)
    }

    /// Reads all of a part.
    ///
    /// # Errors
    /// When the disk could not be recovered, or some of the part is corrupt.
    pub(crate) fn verify(
        &mut self,
        now: Nanos,
        disk: &ServerDisk,
        part: PartId,
    ) -> Result<(), String> {
        self.store(now, disk)?;
        let store = self.stores.get_mut(&(disk.node, disk.number));
        let store = store.expect("it was just read");
        if !store.verified.contains(&part) {
            let read = store.watch.verify(part);
            read.map_err(|error| format!("reading {part}: {error}"))?;
            store.verified.insert(part);
        }
        Ok(())
    }

    /// Forgets what was read on of a server's disks: recovery itself decides.
    pub(crate) fn recover_again<'a>(&mut self, disks: impl Iterator<Item = &'a ServerDisk>) {
        for disk in disks {
            self.stores.remove(&(disk.node, disk.number));
        }
    }

    /// A chunkserver's disk, read on or recovered.
    fn store(&mut self, now: Nanos, disk: &ServerDisk) -> Result<&mut StoreWatch<SimDisk>, String> {
        let changes = disk.disk.durable_changes(now);
        let key = (disk.node, disk.number);
        let known = match self.stores.remove(&key) {
            Some(known) if known.changes == changes => Some(known),
            Some(known) if known.looks < WHOLE_EVERY => follow(now, disk, known, changes),
            _ => None,
        };
        let store = match known {
            Some(known) => known,
            None => Store {
                changes,
                watch: recover_store(now, disk)?,
                looks: 0,
                digests: BTreeMap::new(),
                verified: BTreeSet::new(),
            },
        };
        self.stores.insert(key, store);
        let store = self.stores.get_mut(&key);
        Ok(&mut store.expect("it was just put there").watch)
    }
}

/// Runs a restarted chunkserver's recovery of a disk.
fn recover_store(now: Nanos, disk: &ServerDisk) -> Result<StoreWatch<SimDisk>, String> {
    let copy = disk.disk.durable_copy(now);
    StoreWatch::open(copy, disk.options.clone())
        .map_err(|error| format!("node {} disk {}: {error}", disk.node, disk.number))
}

/// Reads on of a disk that was recovered before; `None` where that does not go.
fn follow(now: Nanos, disk: &ServerDisk, known: Store, changes: u64) -> Option<Store> {
    let watch = known.watch.follow(disk.disk.durable_copy(now)).ok()??;
    Some(Store {
        changes,
        watch,
        looks: known.looks + 1,
        digests: BTreeMap::new(),
        verified: BTreeSet::new(),
    })
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
