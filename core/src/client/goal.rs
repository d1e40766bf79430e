//! Flush, fsync, and everything else that waits until writes got so far; and the
//! upkeep of a file after each event. Leaves sending to `write`, leases to `lease`.
//!
//! Invariant: a goal is told only when nothing of its generations is dirty, under
//! way, uncommitted, under a lease that may have been fenced, on a copy that may have lost
//! it since, or (for a synced one) not durable; or when it was lost, with the error.

use super::Client;
use super::extents::Progress;
use super::file::{After, ChunkWrite, EndCause, File, Goal, Lease, Reach};
use super::lease::{sync_due, sync_follows};
use super::request::{FileReply, Handle};
use super::servers::{ChunkOutcome, ChunkThen};
use super::timers::Timer;
use super::write::{Place, nonsense, note_uncommitted, split_chain, stranger};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::marks::Mark;
use crate::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use bytes::Bytes;

impl Client {
    /// close(2) of one descriptor. Leases go back when it is the only writer's.
    pub(super) fn flush(&mut self, operation: u64, inode: InodeId, handle: Handle) {
        let open = match self.handle(handle, inode) {
            Err(errno) => return self.answer(operation, Err(errno)),
            Ok(open) => open,
        };
        if !open.write {
            return self.answer(operation, Ok(FileReply::Done));
        }
        let file = self.files.get_mut(&inode).expect("a handle has a file");
        let until = file.close_generation();
        let is_last = file.writers == 1;
        if is_last {
            self.end_all_soon(inode, EndCause::Closed, until);
        }
        let after = After::Tell { operation, handle };
        if !self.was_left_unvouched(inode) {
            return self.add_goal(inode, until, Reach::GivenBack, after);
        }
        self.sync_file(inode, after);
        if is_last {
            self.end_all_soon(inode, EndCause::Closed, until);
        }
    }

    /// Something written to a file went back to the leader, or is on its way there, before
    /// a close that vouches for it: the bytes are kept no longer, and only a sync finds out
    /// whether the copies still have them.
    fn was_left_unvouched(&self, inode: InodeId) -> bool {
        let leaving = |chunk: &ChunkWrite| chunk.lease == Lease::Ending && chunk.leaves_unvouched();
        let mut chunks = self.files[&inode].chunks.values();
        chunks.any(leaving) || self.unsettled.has_unvouched(inode)
    }

    /// fsync(2): what any handle of the mount wrote to the file before is durable,
    /// and its length, when this is answered.
    pub(super) fn fsync(&mut self, operation: u64, inode: InodeId, handle: Handle) {
        // A directory needs nothing: its changes were durable when they were answered.
        if !self.handles.contains_key(&handle) && !self.files.contains_key(&inode) {
            return self.answer(operation, Ok(FileReply::Done));
        }
        if let Err(errno) = self.handle(handle, inode) {
            return self.answer(operation, Err(errno));
        }
        self.sync_file(inode, After::Tell { operation, handle });
    }

    /// Makes a file durable, what was closed unsynced before included.
    pub(super) fn sync_file(&mut self, inode: InodeId, after: After) {
        let now = self.now.mono;
        let owed = self.unsettled.of(inode);
        self.reclaim_all(inode);
        let file = self.files.entry(inode).or_default();
        let until = file.close_generation();
        for index in owed {
            let chunk = file
                .chunks
                .entry(index)
                .or_insert_with(|| ChunkWrite::new(now));
            if chunk.lease != Lease::Held {
                chunk.acknowledged = Some(chunk.acknowledged.unwrap_or(until).min(until));
            }
        }
        self.add_goal(inode, until, Reach::Synced, after);
    }

    /// Writes a file out and commits it, then does what follows.
    pub(super) fn commit_file(&mut self, inode: InodeId, after: After) {
        let file = self.files.entry(inode).or_default();
        let until = file.close_generation();
        self.add_goal(inode, until, Reach::Committed, after);
    }

    pub(super) fn add_goal(&mut self, inode: InodeId, generation: u64, reach: Reach, after: After) {
        let id = self.next_goal;
        self.next_goal += 1;
        let file = self.files.get_mut(&inode).expect("the caller made it");
        let is_reached = file.is_reached(generation, reach);
        file.goals.push(Goal {
            id,
            generation,
            reach,
            after,
        });
        if let Some(patience) = self.config.retry_for.filter(|_| !is_reached) {
            self.timers
                .set(Timer::Goal(inode, id), self.now.mono + patience);
        }
        if !is_reached {
            self.send_due_of(inode);
        }
        self.drive(inode);
    }

    /// A goal got nowhere for as long as the mount said.
    pub(super) fn on_goal_due(&mut self, inode: InodeId, id: u64) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        if let Some(place) = file.goals.iter().position(|goal| goal.id == id) {
            let goal = file.goals.remove(place);
            self.finish_goal(inode, goal, Err(Errno::EIO));
            self.drive(inode);
        }
    }

    /// The upkeep of a file: starts whatever its state calls for and tells whoever
    /// waited. May be called at any time.
    pub(super) fn drive(&mut self, inode: InodeId) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        let is_waited_for = !file.goals.is_empty() || file.exclusive.is_some();
        if is_waited_for || file.has_endings || file.commit_wanted {
            self.drive_chunks(inode);
            self.maybe_commit(inode);
            self.release_ready(inode);
            self.finish_goals(inode);
            self.drive_exclusive(inode);
        }
        self.tidy(inode);
    }

    fn drive_chunks(&mut self, inode: InodeId) {
        let file = self.files.get_mut(&inode).expect("the caller found it");
        file.has_endings = file.chunks.values().any(|chunk| chunk.ending.is_some());
        let wanting = |chunk: &&ChunkWrite| match chunk.lease {
            Lease::Held => {
                let is_sent = chunk.acknowledged.is_some() || chunk.may_follow();
                is_sent && chunk.syncing.is_none()
            }
            Lease::None => true,
            _ => false,
        };
        let indices: Vec<u32> = file
            .chunks
            .iter()
            .filter(|(_, chunk)| wanting(chunk))
            .map(|(&index, _)| index)
            .collect();
        for index in indices {
            self.want_lease((inode, index));
            self.maybe_sync((inode, index));
            self.maybe_vouch((inode, index));
        }
    }

    /// Syncs a chunk's copies when somebody waits for it or its lease is to end idle.
    fn maybe_sync(&mut self, place: Place) {
        let Some(file) = self.files.get(&place.0) else {
            return;
        };
        let Some(chunk) = file.chunks.get(&place.1) else {
            return;
        };
        let idle = matches!(chunk.ending, Some((EndCause::Idle, _))) && chunk.is_written_out();
        let follows = sync_follows(file, chunk);
        let wanted = chunk.sync_wanted || idle || sync_due(file, chunk) || follows;
        let resting = self.timers.is_set(Timer::Chunk(place.0, place.1));
        let able = chunk.lease == Lease::Held
            && chunk.syncing.is_none()
            && (chunk.acknowledged.is_some() || follows)
            && file.sends_allowed();
        if wanted && able && !resting {
            if follows {
                self.marks.reach(Mark::SyncFollowed);
            }
            self.send_sync(place, follows);
        }
    }

    /// A sync that follows covers what is under way, too, if that succeeds.
    fn send_sync(&mut self, place: Place, follows: bool) {
        self.unsynced.remove(&place);
        let (head, chain, (tenure, syncs), untold) = self
            .edit(place, |chunk| {
                let pieces = chunk.pieces.values().map(|piece| piece.generation);
                let oldest = chunk.acknowledged.into_iter().chain(pieces).min();
                let (is_first, syncs) = (chunk.begin_sync(), chunk.count_sync());
                for piece in chunk.pieces.values_mut() {
                    piece.followed = follows;
                }
                chunk.sync_wanted = false;
                let grant = chunk.held().expect("the caller checked");
                let (head, chain) = split_chain(grant);
                let untold = oldest.filter(|_| is_first && chunk.known_end() > 0);
                (head, chain, (chunk.tenure, syncs), untold)
            })
            .expect("the caller found it");
        if let (Some(generation), Some(file)) = (untold, self.files.get_mut(&place.0)) {
            note_uncommitted(file, place.1, generation);
        }
        let then = ChunkThen::Sync {
            inode: place.0,
            index: place.1,
            tenure,
        };
        let body = (ChunkRequestBody::Sync, syncs);
        self.ask_counting(&head, chain, body, Bytes::new(), then);
    }

    /// The copies are durable, or one is not.
    pub(super) fn on_sync_outcome(&mut self, place: Place, tenure: u64, outcome: ChunkOutcome) {
        let Some(chunk) = self.chunk(place) else {
            return;
        };
        if chunk.tenure != tenure || chunk.syncing.is_none() {
            return;
        }
        match outcome {
            Ok((ChunkReplyBody::Done { boots }, _)) => {
                let grant = chunk.grant.as_ref().expect("a tenure has a grant");
                match stranger(grant, &boots) {
                    None => self.on_synced(place),
                    Some(error) => self.fail_chunk(place, error),
                }
            }
            Ok(_) => self.fail_chunk(place, nonsense(chunk)),
            Err(error) if error.kind == ChunkErrorKind::Busy => self.rest_sync(place),
            Err(error) => self.fail_chunk(place, error),
        }
        self.drive(place.0);
    }

    fn on_synced(&mut self, place: Place) {
        self.edit(place, ChunkWrite::on_synced);
        let half = self.config.limits.unsynced_bytes_max / 2;
        if self.totals.synced >= half || self.is_kept_full() {
            let file = self.files.get_mut(&place.0).expect("the caller found it");
            file.commit_wanted |= file.uncommitted.is_some();
        }
    }

    fn rest_sync(&mut self, place: Place) {
        self.marks.reach(Mark::SyncPutOff);
        let attempts = self
            .edit(place, |chunk| {
                chunk
                    .extents
                    .advance_all(Progress::Syncing, Progress::Written);
                chunk.acknowledged = chunk.acknowledged_unsynced();
                chunk.end_sync();
                chunk.sync_wanted = true;
                chunk.attempts += 1;
                chunk.attempts
            })
            .expect("the caller found it");
        let at = self.now.mono + self.backoff(attempts);
        self.timers.set(Timer::Chunk(place.0, place.1), at);
    }

    /// Acknowledged bytes are kept for a resend; at half the bound they are synced.
    pub(super) fn note_unsynced(&mut self, place: Place) {
        self.unsynced.insert(place);
        let half = self.config.limits.unsynced_bytes_max / 2;
        if self.totals.written >= half || self.is_kept_full() {
            self.sync_kept();
        }
    }

    /// Starts syncs until less than half the bound is kept without one.
    pub(super) fn sync_kept(&mut self) {
        self.marks.reach(Mark::UnsyncedFull);
        let half = self.config.limits.unsynced_bytes_max / 2;
        let places: Vec<Place> = self.unsynced.iter().copied().collect();
        for place in places {
            if self.totals.written < half && !self.is_kept_full() {
                return;
            }
            self.edit(place, |chunk| chunk.sync_wanted = true);
            self.maybe_sync(place);
            if let Some(file) = self.files.get_mut(&place.0) {
                file.commit_wanted |= file.uncommitted.is_some();
            }
            self.maybe_commit(place.0);
        }
    }

    fn finish_goals(&mut self, inode: InodeId) {
        loop {
            let Some(file) = self.files.get_mut(&inode) else {
                return;
            };
            let reached = |goal: &Goal| file.is_reached(goal.generation, goal.reach);
            let Some(place) = file.goals.iter().position(reached) else {
                return;
            };
            let goal = file.goals.remove(place);
            self.finish_goal(inode, goal, Ok(()));
        }
    }

    fn finish_goal(&mut self, inode: InodeId, goal: Goal, result: Result<(), Errno>) {
        self.timers.cancel(Timer::Goal(inode, goal.id));
        match goal.after {
            After::Tell { operation, handle } => {
                let result = result.and_then(|()| self.take_failure(inode, handle));
                self.answer(operation, result.map(|()| FileReply::Done));
            }
            After::Again(request) => match result {
                Ok(()) => self.perform(*request, true),
                Err(errno) => self.answer(request.operation, Err(errno)),
            },
            After::Exclusive => self.on_exclusive_goal(inode, result),
            After::Nothing => {}
        }
    }

    /// The error of writes that were lost since this handle was last told, or before
    /// it was opened if nobody was told of them yet.
    fn take_failure(&mut self, inode: InodeId, handle: Handle) -> Result<(), Errno> {
        let Some(file) = self.files.get_mut(&inode) else {
            return Ok(());
        };
        let Some(open) = self.handles.get_mut(&handle) else {
            return Ok(());
        };
        file.failures_told = file.failures;
        if std::mem::replace(&mut open.failures, file.failures) == file.failures {
            return Ok(());
        }
        self.marks.reach(Mark::LossTold);
        Err(file.failure.unwrap_or(Errno::EIO))
    }

    /// Writes were lost behind the last handle's back: whoever opens the file next is told.
    fn note_untold(&mut self, inode: InodeId, errno: Errno) {
        self.marks.reach(Mark::LossKept);
        if self.untold.len() >= self.config.limits.unsettled_max.max(1) {
            self.untold.pop_first();
        }
        self.untold.insert(inode, errno);
    }

    /// Forgets a file that nobody needs; of a clean one, that it was written: the
    /// leader knows its length.
    pub(super) fn tidy(&mut self, inode: InodeId) {
        if let Some(file) = self.files.get_mut(&inode)
            && file.written_to > 0
            && !file.is_dirty()
        {
            file.written_to = 0;
        }
        if !self.files.get(&inode).is_some_and(File::is_idle) {
            return;
        }
        let file = self.files.remove(&inode).expect("it was just found");
        if let Some(errno) = file.failure.filter(|_| file.failures_told < file.failures) {
            self.note_untold(inode, errno);
        }
        self.dirty_files.remove(&inode);
        self.timers.cancel(Timer::WriteDelay(inode));
        self.timers.cancel(Timer::CommitDelay(inode));
    }
}
