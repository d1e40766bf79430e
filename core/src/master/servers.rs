//! What every member knows of the chunkservers, in soft state: who lives, what
//! each holds, and for each chunk how healthy that makes it.
//!
//! Owns the table of copies, and of parts of erasure codes; leaves deciding what to do
//! about it to `repair`, `lease` and `commands`. Invariant: `copies` and each server's
//! `chunks` tell the same, from both ends.

use super::duty::Duty;
use crate::chunk::stripe::Stripe;
use crate::ids::{Address, BootId, ChunkId, ChunkVersion, DiskId, Epoch, LinkId, PartId, ServerId};
use crate::limits::{DRIFT_PER_MILLE, REPAIR_BULK_MAX, SERVE_LEASE};
use crate::placement::{Candidate, Labels, Policy};
use crate::planted::{self, Planted};
use crate::time::Instant;
use crate::version::FeatureLevel;
use crate::wire::chunk_master::PartReport;
use crate::wire::client_master::DiskStatus;
use std::collections::{BTreeMap, BTreeSet};

/// A chunkserver.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its link, while it is up.
    pub(super) link: Option<LinkId>,
    /// Its newest life.
    pub(super) boot: BootId,
    pub(super) address: Address,
    /// The newest version that it spoke on its newest link.
    pub(super) speaks: FeatureLevel,
    /// As it is configured.
    pub(super) configured: Labels,
    /// As they hold: an operator may have set some over those. None that is reserved.
    pub(super) labels: Labels,
    /// What was ordered of it.
    pub(super) duty: Duty,
    /// The log knows how it is configured: a law may rely on its labels.
    pub(super) logged: bool,
    pub(super) disks: Vec<DiskStatus>,
    /// Disks of it that are to be emptied, which it can't do itself.
    pub(super) evacuated: BTreeSet<DiskId>,
    pub(super) heard: Instant,
    /// What its newest `Alive` carried: it learns up to when it was heard.
    pub(super) alive_sent: u64,
    /// Its report is complete: it may be used.
    pub(super) registered: bool,
    /// The life of its last complete report.
    pub(super) reported: Option<BootId>,
    /// It said that it means to be back; cleared when it is, or when its grace ends.
    pub(super) leaving: Option<Instant>,
    /// The chunks that it holds a copy or a part of, of whatever version.
    pub(super) chunks: BTreeSet<ChunkId>,
    /// A report under way.
    pub(super) incoming: Vec<PartReport>,
    /// Copies being made from and to it.
    pub(super) repairs: Load,
}

/// How much repair a server takes part in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Load {
    /// Large chunks among them.
    bulk: usize,
    copies: usize,
}

impl Load {
    pub(super) fn add(&mut self, bulk: bool) {
        self.copies += 1;
        self.bulk += usize::from(bulk);
    }

    /// A copy ended that may have begun before the server came anew.
    pub(super) fn remove(&mut self, bulk: bool) {
        self.copies = self.copies.saturating_sub(1);
        self.bulk = self.bulk.saturating_sub(usize::from(bulk));
    }

    /// Whether one more fits below so many.
    pub(super) fn has_room(&self, bulk: bool, most: usize) -> bool {
        self.copies < most && (!bulk || self.bulk < REPAIR_BULK_MAX)
    }
}

impl Server {
    /// It can be asked now.
    pub(super) fn is_alive(&self) -> bool {
        self.link.is_some() && self.registered
    }

    /// It has a disk that takes writes, for all that is known.
    pub(super) fn takes_writes(&self) -> bool {
        self.disks.is_empty() || self.disks.iter().any(is_working)
    }

    /// How much of the space that may be in use is, in thousandths; `None` when it has none that counts.
    pub(super) fn used_per_mille(&self) -> Option<u64> {
        let disks = self.disks.iter();
        let counted = disks.filter(|disk| is_working(disk) && disk.draining.is_none());
        let (mut total, mut free) = (0u128, 0u128);
        for disk in counted {
            let most = disk.most.unwrap_or(disk.space.total);
            total += u128::from(most);
            free += u128::from(disk.space.free.min(most));
        }
        let used = ((total - free) * 1000).checked_div(total)?;
        Some(u64::try_from(used).expect("at most a thousand"))
    }

    /// Mounts may get content from it, for all that is known. Its serve lease counts from
    /// before it was last heard, and by its own clock.
    fn may_serve(&self, now: Instant) -> bool {
        let widened = SERVE_LEASE + SERVE_LEASE * DRIFT_PER_MILLE / 1000;
        now.since(self.heard) <= widened
    }

    /// Bytes free on the disk with most of them. One that is being emptied counts as all but
    /// full: what finds no other place is better there than nowhere.
    pub(super) fn free(&self) -> u64 {
        let free = |disk: &DiskStatus| match self.evacuated.contains(&disk.disk) {
            true => disk.space.free.min(1),
            false => disk.space.free,
        };
        let working = self.disks.iter().filter(|disk| is_working(disk));
        working.map(free).max().unwrap_or(0)
    }
}

pub(super) fn is_working(disk: &DiskStatus) -> bool {
    disk.failed.is_empty()
}

/// A copy somewhere, or a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Copy {
    pub(super) server: ServerId,
    /// 0 for a whole copy; a part of an erasure code numbers from 1.
    pub(super) part: u8,
    pub(super) version: ChunkVersion,
    /// Of a part: which conversion made it.
    pub(super) epoch: Epoch,
    pub(super) disk: DiskId,
    /// It was found damaged, or may be about to be deleted: it counts for nothing.
    pub(super) bad: bool,
    /// Its disk failed and is only read: it counts for nothing, but it is read when
    /// there is no other.
    pub(super) suspect: bool,
}

impl Copy {
    /// Its name, of a chunk.
    pub(super) fn id(&self, chunk: ChunkId) -> PartId {
        let part = self.part;
        PartId { chunk, part }
    }

    /// Whether it is a good copy of that version.
    pub(super) fn is_current(&self, version: ChunkVersion) -> bool {
        let planted = planted::is(Planted::CountStaleCopy) && self.version < version;
        (self.version == version || planted) && !self.bad && !self.suspect
    }

    /// Whether it is a part of the stripe at that version, good or not.
    pub(super) fn is_of(&self, stripe: Stripe, version: ChunkVersion) -> bool {
        let number = usize::from(self.part);
        let is_part = (1..=stripe.shape.parts()).contains(&number);
        is_part && (self.epoch, self.version) == (stripe.stamp, version)
    }

    /// Whether it is of that version on a disk that takes no writes any more.
    pub(super) fn is_suspect(&self, version: ChunkVersion) -> bool {
        self.version == version && !self.bad && self.suspect
    }
}

/// What a record tells of a server's copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hearsay {
    /// The least version that it had when the record was proposed.
    pub(super) version: ChunkVersion,
    /// The life of the server in which it had that, as far as the record tells.
    pub(super) boot: Option<BootId>,
}

/// The soft state about chunkservers.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    pub(super) table: BTreeMap<ServerId, Server>,
    copies: BTreeMap<ChunkId, Vec<Copy>>,
    /// What servers said they lost since they registered. A record may be applied
    /// later that tells of the copy as it was before.
    lost: BTreeSet<(ChunkId, ServerId)>,
    /// Copies of which only the log tells: either their servers are about to tell of them,
    /// or they went since. They count for nothing.
    hearsay: BTreeMap<(ChunkId, ServerId), Hearsay>,
    /// Copies and parts of chunks in use that servers were told to delete and may still
    /// serve: they are not in `copies` any more.
    going: BTreeSet<(PartId, ServerId)>,
    /// Chunks whose health may have changed since `take_touched`, some more than once.
    touched: Vec<ChunkId>,
}

impl Servers {
    pub(super) fn get(&self, server: ServerId) -> Option<&Server> {
        self.table.get(&server)
    }

    pub(super) fn is_alive(&self, server: ServerId) -> bool {
        self.table.get(&server).is_some_and(Server::is_alive)
    }

    /// Whether anybody can be asked now who has a disk that takes writes, be it a full one.
    pub(super) fn any_works(&self) -> bool {
        self.working().next().is_some()
    }

    /// The same, of those that are not drained.
    pub(super) fn any_takes_new(&self) -> bool {
        self.working().any(|one| !one.duty.draining)
    }

    fn working(&self) -> impl Iterator<Item = &Server> {
        let alive = self.table.values().filter(|one| one.is_alive());
        alive.filter(|one| one.disks.iter().any(is_working))
    }

    /// Whether somebody who can't be asked now had room when he last could.
    pub(super) fn is_room_away(&self) -> bool {
        let mut away = self.table.values().filter(|one| !one.is_alive());
        away.any(|one| one.free() > 0)
    }

    /// Whether `server` lives the life `boot`.
    pub(super) fn lives(&self, server: ServerId, boot: BootId) -> bool {
        self.table
            .get(&server)
            .is_some_and(|one| one.is_alive() && one.boot == boot)
    }

    /// Whether a part that it has not got yet may be written there.
    pub(super) fn takes_writes(&self, server: ServerId) -> bool {
        self.table.get(&server).is_some_and(Server::takes_writes)
    }

    /// Whether it is being emptied.
    pub(super) fn is_draining(&self, server: ServerId) -> bool {
        let one = self.table.get(&server);
        one.is_some_and(|one| one.duty.draining)
    }

    /// Whether what it has of a chunk is to go: it is being emptied, or the disk is, by others.
    pub(super) fn drains(&self, server: ServerId, chunk: ChunkId) -> bool {
        let Some(one) = self.table.get(&server) else {
            return false;
        };
        let goes = |copy: &Copy| copy.server == server && one.evacuated.contains(&copy.disk);
        one.duty.draining || !one.evacuated.is_empty() && self.held(chunk).iter().any(goes)
    }

    /// Whether it is away, and is in maintenance.
    pub(super) fn is_maintained_away(&self, server: ServerId) -> bool {
        let one = self.table.get(&server);
        one.is_some_and(|one| one.duty.is_maintained() && !one.is_alive())
    }

    /// Whether its copies count towards the goal: it lives, or means to be back.
    pub(super) fn counts(&self, server: ServerId) -> bool {
        self.table
            .get(&server)
            .is_some_and(|one| one.is_alive() || one.leaving.is_some())
    }

    /// Whether a copy that a lease names counts towards the goal.
    pub(super) fn counts_in_life(&self, server: ServerId, boot: BootId) -> bool {
        self.counts(server) && self.table.get(&server).is_some_and(|one| one.boot == boot)
    }

    /// Everything that there is of a chunk.
    pub(super) fn held(&self, chunk: ChunkId) -> &[Copy] {
        self.copies.get(&chunk).map_or(&[], Vec::as_slice)
    }

    /// The whole copies of a chunk.
    pub(super) fn copies(&self, chunk: ChunkId) -> impl Iterator<Item = &Copy> {
        self.held(chunk).iter().filter(|copy| copy.part == 0)
    }

    pub(super) fn copy(&self, server: ServerId, chunk: ChunkId) -> Option<&Copy> {
        self.part(server, PartId::whole(chunk))
    }

    /// A server's copy or part of that number.
    pub(super) fn part(&self, server: ServerId, id: PartId) -> Option<&Copy> {
        let held = self.held(id.chunk).iter();
        let mut own = held.filter(|copy| copy.server == server);
        own.find(|copy| copy.part == id.part)
    }

    /// The good parts of a stripe.
    pub(super) fn parts(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        stripe: Stripe,
    ) -> impl Iterator<Item = &Copy> {
        let held = self.held(chunk).iter();
        let own = held.filter(move |copy| copy.is_of(stripe, version));
        own.filter(|copy| !copy.bad && !copy.suspect)
    }

    /// The parts of a stripe to read from, on servers that can be asked, by number: of
    /// disks that take no writes any more only those that nobody else has.
    pub(super) fn readable_parts(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
        stripe: Stripe,
    ) -> Vec<Copy> {
        let held = self.held(chunk).iter().copied();
        let mut all: Vec<Copy> = held
            .filter(|copy| copy.is_of(stripe, version) && !copy.bad)
            .filter(|copy| self.is_alive(copy.server))
            .collect();
        all.sort_by_key(|copy| (copy.part, copy.suspect));
        let good: BTreeSet<u8> = all
            .iter()
            .filter(|copy| !copy.suspect)
            .map(|c| c.part)
            .collect();
        all.retain(|copy| !copy.suspect || !good.contains(&copy.part));
        all
    }

    /// The good copies of that version.
    pub(super) fn current(
        &self,
        chunk: ChunkId,
        version: ChunkVersion,
    ) -> impl Iterator<Item = &Copy> {
        let copies = self.copies(chunk);
        copies.filter(move |copy| copy.is_current(version))
    }

    /// Copies of that version to read from, on servers that can be asked: the good ones
    /// or, when there are none, those on disks that take no writes any more.
    pub(super) fn readable(&self, chunk: ChunkId, version: ChunkVersion) -> Vec<Copy> {
        let alive = |copy: &&Copy| self.is_alive(copy.server);
        let good: Vec<Copy> = self
            .current(chunk, version)
            .filter(alive)
            .copied()
            .collect();
        if !good.is_empty() {
            return good;
        }
        let suspects = self.copies(chunk).filter(alive);
        suspects
            .filter(|copy| copy.is_suspect(version))
            .copied()
            .collect()
    }

    /// Whether the server gave up a disk.
    pub(super) fn has_failed_disk(&self, server: ServerId) -> bool {
        let one = self.table.get(&server);
        one.is_some_and(|one| one.disks.iter().any(|disk| !disk.failed.is_empty()))
    }

    /// Whether the server said that it has no good copy.
    pub(super) fn has_lost(&self, server: ServerId, chunk: ChunkId) -> bool {
        self.lost.contains(&(chunk, server))
            || self
                .copy(server, chunk)
                .is_some_and(|copy| copy.bad || copy.suspect)
    }

    /// Whether a mount that was told of it before may still read the chunk elsewhere than on
    /// `copies`. A server that can't be asked serves on for a while; one that lost a copy
    /// with its disk may still read it; one that is just registering may have anything.
    pub(super) fn is_served_beside(
        &self,
        chunk: ChunkId,
        copies: &[(ServerId, BootId)],
        now: Instant,
    ) -> bool {
        let of_chunk = (chunk, ServerId(0))..=(chunk, ServerId(u64::MAX));
        let lost = self.lost.range(of_chunk).map(|(_, one)| *one);
        let whole = PartId::whole(chunk);
        let going = (whole, ServerId(0))..=(whole, ServerId(u64::MAX));
        let going = self.going.range(going).map(|(_, one)| *one);
        let holders = self.copies(chunk).map(|copy| copy.server);
        let holders = holders.chain(lost).chain(going);
        let is_coming = |one: &Server| one.link.is_some() && !one.registered;
        let coming = self.table.iter().filter(|(_, one)| is_coming(one));
        let beside = holders.chain(coming.map(|(server, _)| *server));
        beside
            .filter(|server| !copies.iter().any(|(one, _)| one == server))
            .any(|server| self.get(server).is_some_and(|one| one.may_serve(now)))
    }

    /// A copy or a part is to be deleted: it counts no more.
    pub(super) fn condemn_copy(&mut self, server: ServerId, id: PartId) {
        self.drop_copy(server, id);
        self.going.insert((id, server));
    }

    pub(super) fn is_going(&self, server: ServerId, id: PartId) -> bool {
        self.going.contains(&(id, server))
    }

    /// Whether it was deleted is known, or will not be known any more.
    pub(super) fn end_going(&mut self, server: ServerId, id: PartId) {
        self.going.remove(&(id, server));
    }

    pub(super) fn known_chunks(&self) -> impl Iterator<Item = ChunkId> + '_ {
        self.copies.keys().copied()
    }

    /// Servers that can take a copy of a policy, without those of `except` and those that
    /// are drained. Where
    /// labels matter, only those whose labels the log knows.
    pub(super) fn candidates(
        &self,
        policy: &Policy,
        except: &BTreeSet<ServerId>,
    ) -> Vec<Candidate<'_>> {
        self.candidates_with(policy, except, |_| true)
    }

    /// The same, of servers for which something holds.
    pub(super) fn candidates_with(
        &self,
        policy: &Policy,
        except: &BTreeSet<ServerId>,
        holds: impl Fn(&Server) -> bool,
    ) -> Vec<Candidate<'_>> {
        let plain = policy.is_plain();
        let usable = self
            .table
            .iter()
            .filter(|(id, one)| holds(one) && one.is_alive() && !except.contains(id))
            .filter(|(_, one)| !one.duty.draining)
            .filter(|(_, one)| plain || one.logged);
        usable
            .map(|(id, one)| Candidate {
                server: *id,
                labels: &one.labels,
                free: one.free(),
            })
            .collect()
    }

    /// Servers as placement sees them, of those that may have a copy of a policy and keep
    /// it: who is drained, or has it on a disk that is, does not.
    pub(super) fn inside(
        &self,
        policy: &Policy,
        chunk: ChunkId,
        servers: impl Iterator<Item = ServerId>,
    ) -> Vec<Candidate<'_>> {
        self.permitted(policy, servers.filter(|one| !self.drains(*one, chunk)))
    }

    /// The same, and those that are drained.
    pub(super) fn permitted(
        &self,
        policy: &Policy,
        servers: impl Iterator<Item = ServerId>,
    ) -> Vec<Candidate<'_>> {
        let known = servers.filter_map(|server| Some((server, self.get(server)?)));
        let permitted = known.filter(|(_, one)| policy.permits(&one.labels));
        permitted
            .map(|(server, one)| Candidate {
                server,
                labels: &one.labels,
                free: one.free(),
            })
            .collect()
    }

    /// A copy is there, or is another than before.
    pub(super) fn set_copy(&mut self, chunk: ChunkId, copy: Copy) {
        let Some(holder) = self.table.get_mut(&copy.server) else {
            return;
        };
        holder.chunks.insert(chunk);
        self.put_copy(chunk, copy);
    }

    /// The chunk's end of `set_copy`.
    fn put_copy(&mut self, chunk: ChunkId, copy: Copy) {
        if copy.part == 0 {
            self.lost.remove(&(chunk, copy.server));
            self.hearsay.remove(&(chunk, copy.server));
        }
        let list = self.copies.entry(chunk).or_default();
        let same = |known: &&mut Copy| (known.server, known.part) == (copy.server, copy.part);
        match list.iter_mut().find(same) {
            Some(known) => *known = copy,
            None => list.push(copy),
        }
        self.touched.push(chunk);
    }

    /// A record or an answer tells that a copy has at least this version. What the
    /// server said of it since stays: that it is bad, or lost.
    pub(super) fn raise_copy(&mut self, server: ServerId, chunk: ChunkId, version: ChunkVersion) {
        if self.lost.contains(&(chunk, server)) {
            return;
        }
        let fresh = Copy {
            server,
            part: 0,
            version,
            epoch: Epoch(0),
            disk: DiskId(0),
            bad: false,
            suspect: false,
        };
        let known = self.copy(server, chunk).copied().unwrap_or(fresh);
        if known.suspect {
            return;
        }
        let version = known.version.max(version);
        self.set_copy(chunk, Copy { version, ..known });
    }

    /// What a record tells of a server is of the life that the server lives, as far as it
    /// told which.
    pub(super) fn is_of_now(&self, server: ServerId, heard: Hearsay) -> bool {
        let now = self.get(server).map(|one| one.boot);
        heard.boot.is_none_or(|boot| now == Some(boot))
    }

    /// A record tells what a copy was like when it was proposed. That may be long ago for who
    /// reads the log late: a copy that the server did not tell of may be gone, and must not be
    /// taken for one that makes another superfluous. Or the server's report of the same life
    /// is still on its way, and older.
    pub(super) fn hear_of_copy(&mut self, server: ServerId, chunk: ChunkId, heard: Hearsay) {
        let is_of_now = self.is_of_now(server, heard);
        if is_of_now && self.lost.contains(&(chunk, server)) {
            return;
        }
        let has_told = is_of_now && self.is_alive(server);
        if is_of_now && self.copy(server, chunk).is_some() {
            self.raise_copy(server, chunk, heard.version);
            if has_told {
                return;
            }
        }
        if !has_told && heard.boot.is_none() {
            return;
        }
        let known = self.hearsay.get(&(chunk, server));
        let is_newer = known.is_none_or(|known| known.version <= heard.version);
        if is_newer {
            self.hearsay.insert((chunk, server), heard);
        }
    }

    /// The version that a copy has at least, by what its server told before in this life and
    /// by the log.
    pub(super) fn least_version(&self, server: ServerId, chunk: ChunkId) -> ChunkVersion {
        let known = self.copy(server, chunk).map(|copy| copy.version);
        known.max(self.heard(server, chunk)).unwrap_or_default()
    }

    /// The version that the log tells of, if it may be newer than what the server reports.
    fn heard(&self, server: ServerId, chunk: ChunkId) -> Option<ChunkVersion> {
        let heard = self.hearsay.get(&(chunk, server))?;
        self.is_of_now(server, *heard).then_some(heard.version)
    }

    /// A copy or a part was found damaged.
    pub(super) fn mark_bad(&mut self, server: ServerId, id: PartId) {
        if let Some(copy) = self.part(server, id).copied() {
            self.set_copy(id.chunk, Copy { bad: true, ..copy });
        }
    }

    /// The server says that it has the part no more. No record tells of parts, so of
    /// copies alone it is remembered.
    pub(super) fn lose_copy(&mut self, server: ServerId, id: PartId) {
        self.drop_copy(server, id);
        if id.part == 0 {
            self.hearsay.remove(&(id.chunk, server));
            self.lost.insert((id.chunk, server));
        }
    }

    /// The chunk is not in the table any more: no record tells of its copies.
    pub(super) fn forget_chunk(&mut self, chunk: ChunkId) {
        let all = (chunk, ServerId(0))..=(chunk, ServerId(u64::MAX));
        let lost = self.lost.range(all.clone()).copied();
        let heard = self.hearsay.range(all).map(|(one, _)| *one);
        let known: Vec<_> = lost.chain(heard).collect();
        for one in known {
            self.lost.remove(&one);
            self.hearsay.remove(&one);
        }
    }

    /// A copy or a part is gone, or must not be counted any more.
    pub(super) fn drop_copy(&mut self, server: ServerId, id: PartId) {
        let chunk = id.chunk;
        if let Some(list) = self.copies.get_mut(&chunk) {
            list.retain(|copy| (copy.server, copy.part) != (server, id.part));
            if list.is_empty() {
                self.copies.remove(&chunk);
            }
        }
        let has_more = self.held(chunk).iter().any(|copy| copy.server == server);
        if let Some(holder) = self.table.get_mut(&server).filter(|_| !has_more) {
            holder.chunks.remove(&chunk);
        }
        self.touched.push(chunk);
    }

    /// A server registers: what it lost it tells anew, before its report.
    pub(super) fn forget_lost(&mut self, server: ServerId) {
        self.lost.retain(|(_, loser)| *loser != server);
    }

    /// A complete report replaces what was known of the server, but for what is known of this
    /// very life of its, in which no copy gets older: the report may have been under way for
    /// longer than what the log told, or an earlier report.
    pub(super) fn replace_copies(&mut self, server: ServerId, parts: Vec<PartReport>) {
        let Some(holder) = self.table.get_mut(&server) else {
            return;
        };
        let new = parts.iter().map(|report| report.part.chunk).collect();
        let old = std::mem::replace(&mut holder.chunks, new);
        let now = Some(holder.boot);
        let same_life = std::mem::replace(&mut holder.reported, now) == now;
        self.hearsay
            .retain(|(_, holder), heard| *holder != server || heard.boot == now);
        let told: BTreeSet<PartId> = parts.iter().map(|report| report.part).collect();
        for report in parts {
            let chunk = report.part.chunk;
            let known = self.part(server, report.part).copied();
            let was_bad = known.is_some_and(|copy| copy.bad && copy.version == report.version);
            let mut copy = copy_of(server, &report);
            copy.bad |= was_bad;
            if copy.part == 0 {
                let told = known.filter(|_| same_life).map(|copy| copy.version);
                let least = told.max(self.heard(server, chunk)).unwrap_or_default();
                copy.version = copy.version.max(least);
            }
            self.put_copy(chunk, copy);
        }
        for chunk in old {
            let own = self.held(chunk).iter().filter(|copy| copy.server == server);
            let own = own.map(|copy| copy.id(chunk));
            let gone: Vec<PartId> = own.filter(|id| !told.contains(id)).collect();
            for id in gone {
                self.drop_copy(server, id);
            }
        }
    }

    /// The health of everything that the server holds may have changed.
    pub(super) fn touch_all_of(&mut self, server: ServerId) {
        if let Some(one) = self.table.get(&server) {
            self.touched.extend(&one.chunks);
        }
    }

    pub(super) fn touch(&mut self, chunk: ChunkId) {
        self.touched.push(chunk);
    }

    pub(super) fn is_touched(&self, chunk: ChunkId) -> bool {
        self.touched.contains(&chunk)
    }

    /// The chunks that were touched, each once, in order.
    pub(super) fn take_touched(&mut self) -> Vec<ChunkId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    pub(super) fn check_invariants(&self) {
        for (server, one) in &self.table {
            for chunk in &one.chunks {
                let held = self.held(*chunk);
                let known = held.iter().any(|copy| copy.server == *server);
                assert!(known, "{server} holds {chunk}, and the chunk knows it");
            }
        }
        for (chunk, list) in &self.copies {
            assert!(!list.is_empty(), "an empty list is removed");
            for copy in list {
                let holds = self
                    .table
                    .get(&copy.server)
                    .is_some_and(|one| one.chunks.contains(chunk));
                assert!(
                    holds,
                    "{chunk} is on {}, and the server knows it",
                    copy.server
                );
            }
        }
    }
}

/// A copy as its server reports it.
pub(super) fn copy_of(server: ServerId, report: &PartReport) -> Copy {
    Copy {
        server,
        part: report.part.part,
        version: report.version,
        epoch: report.epoch,
        disk: report.disk,
        bad: report.bad,
        suspect: report.suspect,
    }
}
