//! Write leases of chunks: asking, failing over to another write set, giving back
//! when idle, closed or recalled. What is owed for those given back unsynced is kept in
//! `unsettled`.
//!
//! Invariant: a lease is given back only when nothing under it is unacknowledged,
//! so that its copies are equal; one that can't be is told as `NotHeld`.

use super::Client;
use super::file::{ChunkWrite, EndCause, File, Goal, Lease, Reach};
use super::then::{Ending, Then};
use super::timers::Timer;
use super::unsettled::Owed;
use super::vouch::is_vouch_awaited;
use super::write::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::{ChunkId, Epoch, InodeId};
use crate::marks::Mark;
use crate::namespace::record::{LeaseEnd, Mutation};
use crate::wire::client_chunk::{ChunkError, ChunkErrorKind};
use crate::wire::client_master::{Answer, ClientToMaster, LeasedChunk};

/// How often the chunk had been fenced when its lease was granted.
pub(super) fn fences(grant: &LeasedChunk) -> u64 {
    grant.epoch.fences(grant.version)
}

impl Client {
    /// Asks for a chunk's lease when something waits for it.
    pub(super) fn want_lease(&mut self, place: Place) {
        if self.timers.is_set(Timer::Chunk(place.0, place.1)) {
            return;
        }
        let Some(file) = self.files.get(&place.0) else {
            return;
        };
        let allowed = file.sends_allowed();
        let Some(chunk) = file.chunks.get(&place.1) else {
            return;
        };
        let needed = chunk.extents.is_dirty() || chunk.sync_wanted || sync_due(file, chunk);
        let needed = needed || is_vouch_awaited(file, chunk);
        if !allowed || chunk.lease != Lease::None || !needed {
            return;
        }
        let failed = chunk.failed.clone();
        self.edit(place, |chunk| {
            chunk.lease = Lease::Asked;
            chunk.asked_end = chunk.committed_end;
        });
        let (inode, index) = place;
        let mutation = Mutation::Lease {
            inode,
            index,
            failed,
        };
        let then = Then::Lease { inode, index };
        self.mutate(&Credentials::default(), mutation, then);
    }

    /// The leader's answer to a `Lease`.
    pub(super) fn on_lease(&mut self, place: Place, result: Result<Answer, Errno>) {
        if self
            .chunk(place)
            .is_none_or(|chunk| chunk.lease != Lease::Asked)
        {
            if let Ok(Answer::Lease(grant)) = result {
                self.refuse_grant(&grant);
            }
            return;
        }
        match result {
            Ok(Answer::Lease(grant)) if is_usable(&grant, place.1) => {
                self.accept_grant(place, *grant);
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EBUSY) => self.postpone_lease(place),
            Err(errno) => self.give_up_chunk(place, errno),
        }
        self.drive(place.0);
    }

    /// Takes a lease into use: one asked for, or one that came with a new file.
    pub(super) fn accept_grant(&mut self, place: Place, grant: LeasedChunk) {
        let now = self.now.mono;
        // A copy that this lease leaves out may be in an older location.
        self.cache.forget_location(place);
        let file = self.files.entry(place.0).or_default();
        let generation = file.generation;
        file.chunks
            .entry(place.1)
            .or_insert_with(|| ChunkWrite::new(now));
        let unsettled = self.unsettled.take(place);
        let link = self.session.resumed();
        let is_lost = self.edit(place, |chunk| {
            let before = unsettled.or_else(|| chunk.owed.take());
            let before = before.filter(|owed| owed.is_of(&grant));
            let newest = yield_to_others(chunk, &grant).map(|newest| newest.behind(before));
            let owed = before.into_iter().chain(newest);
            let is_lost = owed.clone().any(|owed| !owed.is_in(&grant));
            if let Some(owed) = owed.last().filter(|_| !is_lost) {
                chunk.acknowledged.get_or_insert(generation);
                chunk.owed = Some(owed);
            }
            apply_grant(chunk, grant);
            chunk.granted_over = link;
            is_lost
        });
        if is_lost == Some(true) {
            self.fail_writes(place.0, Errno::EIO);
        }
        self.timers.set_once(
            Timer::Idle(place.0, place.1),
            now + self.config.limits.lease_idle,
        );
        self.send_granted(place);
    }

    /// A lease that nobody wants any more goes straight back.
    pub(super) fn refuse_grant(&mut self, grant: &LeasedChunk) {
        let end = LeaseEnd {
            chunk: grant.chunk,
            epoch: grant.epoch,
            synced: false,
            syncs: 0,
        };
        self.releases.push((end, None));
        self.schedule_batch();
    }

    /// No lease now: asked for again after a pause, in the end without naming the
    /// copies that failed, in case all did.
    fn postpone_lease(&mut self, place: Place) {
        let now = self.now.mono;
        let (attempts, since) = self
            .edit(place, |chunk| {
                chunk.lease = Lease::None;
                chunk.attempts += 1;
                if chunk.attempts.is_multiple_of(3) {
                    chunk.failed.clear();
                }
                (chunk.attempts, *chunk.failing_since.get_or_insert(now))
            })
            .expect("the caller found it");
        if self.is_hopeless(since) {
            self.give_up_chunk(place, Errno::EIO);
            return;
        }
        let at = now + self.backoff(attempts);
        self.timers.set(Timer::Chunk(place.0, place.1), at);
    }

    fn is_hopeless(&self, since: crate::time::Instant) -> bool {
        let patience = self.config.retry_for;
        patience.is_some_and(|patience| self.now.mono.since(since) >= patience)
    }

    /// A copy failed: everything not durable is dirty again, and the lease is asked
    /// for anew without that copy.
    pub(super) fn fail_chunk(&mut self, place: Place, error: ChunkError) {
        let now = self.now.mono;
        let chunk = self.chunk(place).expect("the caller found it");
        if !chunk.pieces.is_empty() {
            self.marks.reach(Mark::WriteResent);
        }
        let totals = self.chunk(place).expect("it is there").extents.totals();
        if totals.written + totals.syncing > 0 {
            self.marks.reach(Mark::UnsyncedResent);
        }
        let generation = self.files[&place.0].generation;
        let (attempts, since, is_blamed) = self
            .edit(place, |chunk| {
                restart_writes(chunk, generation);
                let is_blamed = blame(chunk, error);
                chunk.attempts += 1;
                let since = *chunk.failing_since.get_or_insert(now);
                (chunk.attempts, since, is_blamed)
            })
            .expect("it is there");
        if is_blamed {
            self.marks.reach(Mark::CopyBlamed);
        }
        self.unsynced.remove(&place);
        self.drop_ahead_of_chunk(place);
        let file = self.files.get_mut(&place.0).expect("it is there");
        file.close_generation();
        if self.is_hopeless(since) {
            self.give_up_chunk(place, Errno::EIO);
        } else if attempts > 1 {
            let at = now + self.backoff(attempts - 1);
            self.timers.set(Timer::Chunk(place.0, place.1), at);
        } else {
            self.want_lease(place);
        }
        self.abandon_lease(place);
    }

    /// Asks for a lease anew that may not be held any more: what is not durable is written
    /// again under it.
    pub(super) fn renew_lease(&mut self, place: Place) {
        let generation = self.files[&place.0].generation;
        self.edit(place, |chunk| restart_writes(chunk, generation));
        self.unsynced.remove(&place);
        self.drop_ahead_of_chunk(place);
        self.want_lease(place);
        self.abandon_lease(place);
    }

    /// Writes of a chunk are lost for good; whoever waits or asks later is told. A
    /// lease under which something went astray is left for the leader to reconcile. What
    /// earlier leases left unsynced is not lost by that, but not durable either: whoever
    /// waits for it is told, and it stays owed.
    pub(super) fn give_up_chunk(&mut self, place: Place, errno: Errno) {
        let Some(chunk) = self.chunk(place) else {
            return;
        };
        let lost = !chunk.extents.is_empty() || chunk.is_uncommitted;
        let lost = lost || is_awaited(&self.files[&place.0], chunk);
        if chunk.owed.is_some() {
            self.note_unsettled(place);
        }
        self.disown_chunk(place);
        if let Some(file) = self.files.get_mut(&place.0) {
            file.forget_lost_commit();
        }
        if lost {
            self.fail_writes(place.0, errno);
        }
    }

    /// Forgets a chunk under whose lease something may have gone astray.
    pub(super) fn disown_chunk(&mut self, place: Place) {
        self.disclaim_lease(place);
        self.remove_chunk(place);
    }

    fn disclaim_lease(&mut self, place: Place) {
        let grant = self.chunk(place).and_then(|chunk| chunk.grant.as_ref());
        if let Some(grant) = grant.filter(|_| self.session.is_standing()) {
            let (chunk, epoch) = (grant.chunk, grant.epoch);
            self.tell_master(ClientToMaster::NotHeld { chunk, epoch });
        }
    }

    /// A lease under which a copy failed is asked for anew to write again what it held. When
    /// there is nothing any more to write again, as the file was cut, nobody asks: the leader
    /// is told, who would take it for held. What is to be committed is committed first.
    pub(super) fn abandon_lease(&mut self, place: Place) {
        let Some(file) = self.files.get(&place.0) else {
            return;
        };
        let Some(chunk) = file.chunks.get(&place.1) else {
            return;
        };
        let is_failed = chunk.lease == Lease::None && chunk.grant.is_some();
        let is_needed = chunk.extents.is_dirty()
            || chunk.sync_wanted
            || is_awaited(file, chunk)
            || is_vouch_awaited(file, chunk);
        if !is_failed || is_needed {
            return;
        }
        if chunk.is_uncommitted {
            // Others' caches may hold what it overwrote: the commit is not left out.
            let file = self.files.get_mut(&place.0).expect("it was there");
            file.commit_wanted = true;
        } else {
            // What was written under this lease was kept, and is cut: none of it is owed.
            self.edit(place, |chunk| chunk.is_written = false);
            self.leave_to_leader(place);
        }
    }

    /// A lease under which the copies may have come to differ ends: the leader makes them
    /// equal.
    fn leave_to_leader(&mut self, place: Place) {
        self.note_unsettled(place);
        let is_dirty = |chunk: &ChunkWrite| chunk.extents.is_dirty();
        if !self.chunk(place).is_some_and(is_dirty) {
            return self.disown_chunk(place);
        }
        // What was written since goes under the next lease.
        self.disclaim_lease(place);
        self.unsynced.remove(&place);
        self.edit(place, end_tenure);
        self.want_lease(place);
    }

    /// Counts a loss that the file's handles are to be told of.
    pub(super) fn fail_writes(&mut self, inode: InodeId, errno: Errno) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.failures += 1;
            file.failure = Some(errno);
            file.forget_known_ends();
            self.log(
                crate::machine::Level::Error,
                format!("writes to {inode} are lost: {errno}"),
            );
        }
    }

    /// Forgets a chunk's write state.
    pub(super) fn remove_chunk(&mut self, place: Place) {
        self.edit(place, |chunk| chunk.extents.cut(0, u32::MAX));
        self.unsynced.remove(&place);
        for timer in [
            Timer::Chunk(place.0, place.1),
            Timer::Idle(place.0, place.1),
        ] {
            self.timers.cancel(timer);
        }
        if let Some(file) = self.files.get_mut(&place.0) {
            file.chunks.remove(&place.1);
        }
    }

    /// The pause of a chunk is over.
    pub(super) fn on_chunk_due(&mut self, place: Place) {
        self.want_lease(place);
        self.drive(place.0);
    }

    /// Notes that a chunk was used; its lease goes back when that ceases.
    pub(super) fn watch_idle(&mut self, place: Place) {
        let now = self.now.mono;
        self.edit(place, |chunk| chunk.last_write = now);
        self.timers.set_once(
            Timer::Idle(place.0, place.1),
            now + self.config.limits.lease_idle,
        );
    }

    pub(super) fn on_idle_due(&mut self, place: Place) {
        let idle_at = match self.chunk(place) {
            Some(chunk) if chunk.lease == Lease::Held => {
                chunk.last_write + self.config.limits.lease_idle
            }
            _ => return,
        };
        if idle_at > self.now.mono {
            self.timers.set(Timer::Idle(place.0, place.1), idle_at);
            return;
        }
        self.end_soon(place, EndCause::Idle, u64::MAX);
        self.drive(place.0);
    }

    /// A lease is to end once everything up to `until` is acknowledged.
    pub(super) fn end_soon(&mut self, place: Place, cause: EndCause, until: u64) {
        self.edit(place, |chunk| match chunk.ending {
            Some((EndCause::Recalled, _)) => {}
            _ => chunk.ending = Some((cause, until)),
        });
        if let Some(file) = self.files.get_mut(&place.0) {
            file.has_endings = true;
        }
    }

    /// Every lease of a file is to end: its last writer closes it.
    pub(super) fn end_all_soon(&mut self, inode: InodeId, cause: EndCause, until: u64) {
        let indices: Vec<u32> = match self.files.get(&inode) {
            Some(file) => file.chunks.keys().copied().collect(),
            None => return,
        };
        for index in indices {
            self.end_soon((inode, index), cause, until);
        }
    }

    /// The leader wants leases back.
    pub(super) fn on_recall(&mut self, leases: Vec<(InodeId, ChunkId, Epoch)>) {
        for (inode, chunk, epoch) in leases {
            match self.find_lease(inode, chunk) {
                None => self.tell_master(ClientToMaster::NotHeld { chunk, epoch }),
                Some(index) => self.recall((inode, index)),
            }
        }
        self.flush_batch();
    }

    fn find_lease(&self, inode: InodeId, id: ChunkId) -> Option<u32> {
        let file = self.files.get(&inode)?;
        let holds = |chunk: &ChunkWrite| {
            chunk.chunk() == Some(id) && (chunk.lease != Lease::None || !chunk.extents.is_empty())
        };
        file.chunks
            .iter()
            .find(|(_, chunk)| holds(chunk))
            .map(|(&index, _)| index)
    }

    fn recall(&mut self, place: Place) {
        let file = self.files.get_mut(&place.0).expect("a lease has a file");
        let until = file.close_generation();
        self.edit(place, |chunk| {
            chunk.ending = Some((EndCause::Recalled, until));
        });
        let file = self.files.get_mut(&place.0).expect("a lease has a file");
        file.has_endings = true;
        self.send_due_of(place.0);
        self.drive(place.0);
    }

    /// Gives back the leases that are ready and need no commit, and of which none is under
    /// way: should that fail, the chunk has no content for the leader, and would go with
    /// its lease.
    pub(super) fn release_ready(&mut self, inode: InodeId) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        let mut ready = Vec::new();
        let mut strayed = Vec::new();
        for (&index, chunk) in &file.chunks {
            let commit = file.commit.as_ref();
            let is_committing = commit.is_some_and(|commit| commit.names(index, chunk));
            if is_ready(file, chunk) && !chunk.is_uncommitted && !is_committing {
                match chunk.has_strayed {
                    true => strayed.push(index),
                    false => ready.push(index),
                }
            }
        }
        for index in strayed {
            self.leave_to_leader((inode, index));
        }
        for index in ready {
            let (end, ending) = self.begin_ending((inode, index));
            let urgent = self.is_end_awaited((inode, index));
            self.releases.push((end, Some(ending)));
            if urgent {
                self.flush_batch();
            } else {
                self.schedule_batch();
            }
        }
    }

    /// The leader waits for a lease's end, or a close does.
    fn is_end_awaited(&self, place: Place) -> bool {
        let Some(chunk) = self.chunk(place) else {
            return false;
        };
        let recalled = matches!(chunk.ending, Some((EndCause::Recalled, _)));
        let mut goals = self.files[&place.0].goals.iter();
        let closes =
            |goal: &Goal| goal.reach == Reach::GivenBack && chunk.is_ending(goal.generation);
        recalled || goals.any(closes)
    }

    /// Marks a lease as being given back.
    pub(super) fn begin_ending(&mut self, place: Place) -> (LeaseEnd, Ending) {
        self.edit(place, |chunk| {
            chunk.lease = Lease::Ending;
            let grant = chunk.grant.as_ref().expect("a lease has a grant");
            let is_last = chunk.synced == chunk.syncs;
            let synced = chunk.is_synced && chunk.acknowledged.is_none() && is_last;
            let end = LeaseEnd {
                chunk: grant.chunk,
                epoch: grant.epoch,
                synced,
                syncs: chunk.synced,
            };
            let ending = Ending {
                inode: place.0,
                index: place.1,
                chunk: grant.chunk,
                synced,
            };
            (end, ending)
        })
        .expect("the caller found it")
    }

    /// The leader's answer to leases given back.
    pub(super) fn on_released(&mut self, endings: Vec<Ending>, result: Result<Answer, Errno>) {
        let void = match result {
            Ok(Answer::Released { void }) => void,
            _ => Vec::new(),
        };
        for ending in endings {
            if void.contains(&ending.chunk) {
                self.on_lease_void(ending);
            } else {
                self.on_lease_ended(ending);
            }
            self.drive(ending.inode);
        }
    }

    /// The commit that a lease was to end with changed nothing: it is still to end.
    pub(super) fn resume_ending(&mut self, ending: Ending) {
        self.edit((ending.inode, ending.index), |chunk| {
            if chunk.lease == Lease::Ending {
                chunk.lease = Lease::Held;
            }
        });
    }

    /// A lease had been fenced when it was given back: what was acknowledged under it
    /// and is still kept is written again, under another.
    fn on_lease_void(&mut self, ending: Ending) {
        let place = (ending.inode, ending.index);
        let is_kept = |chunk: &ChunkWrite| !chunk.extents.is_empty() || chunk.owed.is_some();
        let Some(chunk) = self.chunk(place).filter(|chunk| is_kept(chunk)) else {
            return self.on_lease_ended(ending);
        };
        if chunk.lease != Lease::Ending {
            return;
        }
        self.marks.reach(Mark::UnsyncedResent);
        self.unsynced.remove(&place);
        let generation = self.files[&place.0].generation;
        self.edit(place, |chunk| restart_writes(chunk, generation));
        self.drop_ahead_of_chunk(place);
        let file = self.files.get_mut(&place.0).expect("it has a chunk");
        file.close_generation();
        self.want_lease(place);
    }

    /// A lease is given back: what was acknowledged under it is the leader's to sync
    /// now, unless somebody still waits for that.
    pub(super) fn on_lease_ended(&mut self, ending: Ending) {
        let place = (ending.inode, ending.index);
        let Some(chunk) = self.chunk(place) else {
            return;
        };
        if chunk.lease != Lease::Ending {
            return;
        }
        let file = &self.files[&place.0];
        let owed = chunk.acknowledged.filter(|_| is_awaited(file, chunk));
        if !ending.synced {
            self.note_unsettled(place);
        }
        self.unsynced.remove(&place);
        let is_needed = self
            .edit(place, |chunk| {
                end_tenure(chunk);
                chunk.acknowledged = owed;
                chunk.extents.is_dirty() || owed.is_some()
            })
            .expect("it is there");
        if is_needed {
            self.want_lease(place);
        } else {
            self.remove_chunk(place);
        }
    }

    /// Takes a lease back into use whose release was not sent yet.
    pub(super) fn reclaim(&mut self, place: Place) {
        if self
            .chunk(place)
            .is_none_or(|chunk| chunk.lease != Lease::Ending)
        {
            return;
        }
        let is_it = |ending: &Ending| (ending.inode, ending.index) == place;
        let gathered = self
            .releases
            .iter()
            .position(|(_, ending)| ending.as_ref().is_some_and(is_it));
        if let Some(gathered) = gathered {
            self.marks.reach(Mark::LeaseReclaimed);
            self.releases.swap_remove(gathered);
            self.edit(place, |chunk| {
                chunk.lease = Lease::Held;
                chunk.ending = None;
            });
            self.watch_idle(place);
        }
    }

    /// Takes every such lease of a file back.
    pub(super) fn reclaim_all(&mut self, inode: InodeId) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        let ending = |chunk: &ChunkWrite| chunk.lease == Lease::Ending;
        let indices: Vec<u32> = file
            .chunks
            .iter()
            .filter(|(_, chunk)| ending(chunk))
            .map(|(&index, _)| index)
            .collect();
        for index in indices {
            self.reclaim((inode, index));
        }
    }

    /// Gathers closed inodes and releases for a moment.
    pub(super) fn schedule_batch(&mut self) {
        let at = self.now.mono + self.config.limits.batch_delay;
        self.timers.set_once(Timer::Batch, at);
    }

    /// Tells the leader what was gathered.
    pub(super) fn flush_batch(&mut self) {
        self.timers.cancel(Timer::Batch);
        self.flush_closed();
        if self.releases.is_empty() {
            return;
        }
        let (ends, endings): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.releases).into_iter().unzip();
        let leases = endings.into_iter().flatten().collect();
        let mutation = Mutation::Release { leases: ends };
        let then = Then::Released { leases };
        self.mutate(&Credentials::default(), mutation, then);
    }
}

/// A grant names copies, for the chunk that was asked for.
fn is_usable(grant: &LeasedChunk, index: u32) -> bool {
    grant.index == index && !grant.copies.is_empty()
}

/// Somebody waits for what was acknowledged in the chunk to be durable, and everything
/// else that he waits for is written too, or can't be before a recalled lease ended.
pub(super) fn sync_due(file: &File, chunk: &ChunkWrite) -> bool {
    let Some(acknowledged) = chunk.acknowledged else {
        return false;
    };
    let held_back =
        |oldest: &u64| matches!(chunk.ending, Some((EndCause::Recalled, until)) if *oldest > until);
    let unwritten = chunk.oldest_unwritten().filter(|oldest| !held_back(oldest));
    let unwritten = unwritten.unwrap_or(u64::MAX);
    file.goals
        .iter()
        .filter(|goal| goal.reach == Reach::Synced)
        .any(|goal| goal.generation >= acknowledged && goal.generation < unwritten)
}

/// Somebody waits for everything that was written in the chunk to be durable, and all of
/// it is on its way: a sync may be sent behind it.
pub(super) fn sync_follows(file: &File, chunk: &ChunkWrite) -> bool {
    let newest = chunk.pieces.values().map(|piece| piece.generation).max();
    chunk.may_follow() && newest.is_some_and(|newest| file.sync_goal() >= Some(newest))
}

/// Somebody waits, now or after more writes, for what was acknowledged to be durable.
fn is_awaited(file: &File, chunk: &ChunkWrite) -> bool {
    let goal = file.sync_goal();
    goal.is_some_and(|goal| chunk.acknowledged.is_some_and(|oldest| oldest <= goal))
}

/// A lease that is to end may be given back now.
pub(super) fn is_ready(file: &File, chunk: &ChunkWrite) -> bool {
    let Some((cause, until)) = chunk.ending else {
        return false;
    };
    let unwritten = chunk
        .oldest_unwritten()
        .is_some_and(|oldest| oldest <= until);
    let under_way = !chunk.pieces.is_empty() || chunk.syncing.is_some();
    let awaited = is_awaited(file, chunk) || is_vouch_awaited(file, chunk);
    let unsynced = cause == EndCause::Idle && chunk.acknowledged.is_some();
    chunk.lease == Lease::Held && !unwritten && !under_way && !awaited && !unsynced
}

/// Others may have cut the file since the last grant: what was part of it by then is cut
/// with it, and must not be brought back by writing it again. What was not acknowledged
/// yet comes behind the cut.
fn drop_cut(chunk: &mut ChunkWrite, grant: &LeasedChunk) {
    let is_home = chunk.home == Some(grant.chunk);
    chunk.has_strayed &= is_home;
    let left = if is_home { grant.valid } else { 0 };
    if chunk.home.is_some() && left < chunk.asked_end {
        chunk.extents.cut_acknowledged(left, chunk.asked_end);
    }
    chunk.home = Some(grant.chunk);
}

/// Whether a chunk may have been granted to anybody between two grants of this mount: each
/// raises the version, and so does each fence. (In another life of the cluster versions begin
/// far behind all others, and tell nothing.)
fn was_held_by_others(held: &LeasedChunk, grant: &LeasedChunk) -> bool {
    let raised = grant.version.raised_since(held.version);
    let fenced = fences(grant).checked_sub(fences(held));
    let is_more = |fenced| raised.is_none_or(|raised| raised > fenced + 1);
    held.chunk == grant.chunk && fenced.is_some_and(is_more)
}

/// When another mount held the lease since, what was acknowledged before and is part of the
/// file came before what that one wrote: to write it again would undo that. It is owed a sync
/// where the copies still have it. (What was never part of the file may come later.)
fn yield_to_others(chunk: &mut ChunkWrite, grant: &LeasedChunk) -> Option<Owed> {
    let held = chunk.grant.as_ref().or(chunk.given_up.as_ref())?;
    if !was_held_by_others(held, grant) {
        return None;
    }
    let owed = Owed::under(held, chunk);
    let oldest = chunk.extents.yield_acknowledged(chunk.committed_end)?;
    chunk.acknowledged = chunk.acknowledged.into_iter().chain([oldest]).min();
    Some(owed)
}

fn apply_grant(chunk: &mut ChunkWrite, grant: LeasedChunk) {
    drop_cut(chunk, &grant);
    // Nobody else can have held it since: what is known of the copies' ends still holds.
    // Otherwise all that counts is what was committed; a kept `drop_from` would make
    // the copies drop what another mount wrote behind it.
    let follows = |held: &LeasedChunk| {
        held.chunk == grant.chunk && grant.version.raised_since(held.version) == Some(1)
    };
    if !chunk.grant.as_ref().is_some_and(follows) {
        chunk.written_end = grant.valid;
        chunk.drop_from = Some(grant.valid);
    }
    chunk.written_end = chunk.written_end.max(grant.valid);
    chunk.committed_end = grant.valid;
    chunk.tenure += 1;
    chunk.is_written = false;
    chunk.is_acknowledged = false;
    chunk.is_synced = false;
    (chunk.vouched, chunk.vouching) = (0, None);
    (chunk.syncs, chunk.synced) = (0, 0);
    chunk.failed.clear();
    chunk.lease = Lease::Held;
    (chunk.grant, chunk.given_up) = (Some(grant), None);
}

/// Everything not durable is to be sent again, on behalf of whoever waits longest: as
/// of a generation, or of an older one that is not durable. What every copy has dropped is
/// not dropped again: it would take with it what they acknowledged since, and others may
/// get to see the copies, or the leader may choose among them, before that is there again.
pub(super) fn restart_writes(chunk: &mut ChunkWrite, generation: u64) {
    let oldest = chunk.oldest_unsynced();
    chunk.is_resent |= !chunk.pieces.is_empty();
    chunk.pieces.clear();
    chunk.acknowledged = chunk.acknowledged_unsynced();
    chunk.syncing = None;
    let oldest = oldest.map_or(generation, |oldest| oldest.min(generation));
    chunk.extents.dirty_all(oldest);
    if chunk.lease != Lease::Asked {
        chunk.lease = Lease::None;
    }
    chunk.tenure += 1;
    chunk.is_blocked = false;
}

/// Whether the next `Lease` names the copy as failed: at once when it is gone or
/// broken, at the second time when its word may only be out of date. True when it
/// newly does.
fn blame(chunk: &mut ChunkWrite, error: ChunkError) -> bool {
    let outdated = matches!(
        error.kind,
        ChunkErrorKind::Refused
            | ChunkErrorKind::Version
            | ChunkErrorKind::Fenced
            | ChunkErrorKind::Invalid
    );
    if outdated && chunk.doubted != Some(error.server) {
        chunk.doubted = Some(error.server);
        return false;
    }
    let copies = chunk.grant.as_ref().map_or(&[][..], |grant| &grant.copies);
    let copy = copies.iter().find(|copy| copy.server == error.server);
    let named = copy.map(|copy| (copy.server, copy.boot));
    let named = named.filter(|named| !chunk.failed.contains(named));
    chunk.failed.extend(named);
    named.is_some()
}

fn end_tenure(chunk: &mut ChunkWrite) {
    chunk
        .extents
        .drop_up_to(u32::MAX, super::extents::Progress::Written);
    chunk
        .extents
        .drop_up_to(u32::MAX, super::extents::Progress::Synced);
    (chunk.is_resent, chunk.has_strayed) = (false, false);
    chunk.owed = None;
    chunk.lease = Lease::None;
    (chunk.grant, chunk.given_up) = (None, None);
    chunk.tenure += 1;
    chunk.acknowledged = None;
    chunk.is_written = false;
    chunk.is_acknowledged = false;
    chunk.is_synced = false;
    chunk.written_end = 0;
    chunk.committed_end = 0;
    chunk.home = None;
    chunk.asked_end = 0;
    chunk.drop_from = None;
    chunk.ending = None;
}
