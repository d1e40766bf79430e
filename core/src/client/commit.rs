//! CommitWrite: acknowledged bytes become part of the file. Owns when it is sent,
//! what it says, and what its answer changes.
//!
//! Invariant: one commit of a file is under way at most; it never says more than
//! every copy acknowledged, so that nothing stale can become readable. Nor is it sent
//! before what it is awaited for is acknowledged, overwrites included: it has the caches of
//! other mounts drop the content, and what they read again meanwhile they would keep.

use super::Client;
use super::file::{ChunkWrite, Commit, File, Goal, Lease, Reach};
use super::lease::{fences, is_ready};
use super::then::Then;
use super::timers::Timer;
use super::vouch::is_vouch_awaited;
use super::write::Place;
use crate::attributes::{Attributes, Credentials};
use crate::errno::Errno;
use crate::ids::{ChunkId, Epoch, InodeId};
use crate::marks::Mark;
use crate::namespace::record::{Mutation, WrittenExtent};
use crate::wire::client_master::{Answer, ClientToMaster};

impl Client {
    /// Sends a commit if somebody waits for one and everything it must cover is there.
    pub(super) fn maybe_commit(&mut self, inode: InodeId) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        if file.commit.is_some() || !file.sends_allowed() || !is_needed(file) {
            return;
        }
        let extents = written_extents(file);
        let ending: Vec<u32> = file
            .chunks
            .iter()
            .filter(|(_, chunk)| is_ready(file, chunk) && !chunk.has_strayed)
            .map(|(&index, _)| index)
            .collect();
        let (release, endings) = ending
            .into_iter()
            .map(|index| self.begin_ending((inode, index)))
            .unzip();
        let file = self.files.get_mut(&inode).expect("it was there");
        for chunk in file.chunks.values_mut() {
            chunk.is_uncommitted = false;
        }
        file.commit_wanted = false;
        // A later commit says nothing of this one's length: it may be cut by then.
        let size = std::mem::take(&mut file.acknowledged_to);
        let unchanged = !std::mem::take(&mut file.is_changed);
        let told = |extent: &WrittenExtent| (extent.index, extent.chunk, extent.valid);
        file.commit = Some(Commit {
            generation: file.uncommitted.take(),
            chunks: extents.iter().map(told).collect(),
            endings,
            is_change: !unchanged,
        });
        self.timers.cancel(Timer::CommitDelay(inode));
        let mutation = Mutation::CommitWrite {
            inode,
            size,
            extents,
            release,
            unchanged,
        };
        self.mutate(&Credentials::default(), mutation, Then::Committed { inode });
    }

    /// Acknowledged writes waited long enough.
    pub(super) fn on_commit_delay_due(&mut self, inode: InodeId) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.commit_wanted = file.uncommitted.is_some();
            self.drive(inode);
        }
    }

    /// The leader's answer to a commit.
    pub(super) fn on_committed(&mut self, inode: InodeId, result: Result<Answer, Errno>) {
        let commit = self
            .files
            .get_mut(&inode)
            .and_then(|file| file.commit.take());
        let Some(commit) = commit else {
            return;
        };
        match result {
            Ok(Answer::Entry(attributes)) => self.on_commit_good(inode, commit, attributes),
            Ok(_) | Err(Errno::ESTALE) => self.on_commit_stale(inode, commit),
            Err(errno) => self.fail_file(inode, errno),
        }
        self.drive(inode);
    }

    fn on_commit_good(&mut self, inode: InodeId, commit: Commit, attributes: Attributes) {
        for (index, id, valid) in commit.chunks {
            self.cache.forget_location((inode, index));
            self.edit((inode, index), |chunk| {
                if chunk.chunk() == Some(id) {
                    chunk.on_committed(valid);
                }
            });
            self.abandon_lease((inode, index));
        }
        for ending in commit.endings {
            self.on_lease_ended(ending);
        }
        if let Some(file) = self.files.get_mut(&inode) {
            file.forget_known_ends();
        }
        self.cache.keep_pages(&attributes);
        self.learn(attributes);
    }

    /// A chunk is no longer at its place, as somebody truncated the file, or its lease
    /// was fenced meanwhile. What is still kept is written again; the rest was cut with
    /// the chunk, or is durable.
    fn on_commit_stale(&mut self, inode: InodeId, commit: Commit) {
        self.marks.reach(Mark::CommitStale);
        let generation = commit
            .generation
            .unwrap_or_else(|| self.files[&inode].generation);
        for (index, _, _) in commit.chunks {
            let left = self.edit((inode, index), |chunk| {
                super::lease::restart_writes(chunk, generation);
                let grant = chunk.grant.take();
                chunk.acknowledged = chunk.acknowledged.filter(|_| chunk.owed.is_some());
                let is_kept = chunk.extents.is_dirty() || chunk.owed.is_some();
                let lease = grant.as_ref().map(|grant| (grant.chunk, grant.epoch));
                chunk.given_up = grant.or_else(|| chunk.given_up.take());
                (is_kept, lease)
            });
            self.drop_ahead_of_chunk((inode, index));
            match left {
                Some((true, _)) => self.want_lease((inode, index)),
                Some((false, lease)) => self.drop_lease((inode, index), lease),
                None => {}
            }
        }
        for ending in commit.endings {
            self.resume_ending(ending);
        }
        let file = self.files.get_mut(&inode).expect("a commit has a file");
        file.is_changed |= commit.is_change;
        // What was acknowledged behind the commit went with its chunk, too.
        file.forget_lost_commit();
        file.close_generation();
        self.cache.forget_attributes(inode);
        self.drop_locations(inode);
    }

    /// A chunk of which nothing is left to be written goes. Its lease may be a good one, as
    /// another chunk of the commit was the stale one: the leader would take it for held.
    fn drop_lease(&mut self, place: Place, lease: Option<(ChunkId, Epoch)>) {
        self.remove_chunk(place);
        if let Some((chunk, epoch)) = lease {
            self.tell_master(ClientToMaster::NotHeld { chunk, epoch });
        }
    }

    /// Everything unwritten of a file is lost.
    pub(super) fn fail_file(&mut self, inode: InodeId, errno: Errno) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        let lost = file.is_unsynced();
        file.commit = None;
        file.uncommitted = None;
        file.commit_wanted = false;
        file.written_to = 0;
        file.acknowledged_to = 0;
        let indices: Vec<u32> = file.chunks.keys().copied().collect();
        for index in indices {
            self.disown_chunk((inode, index));
        }
        if lost {
            self.fail_writes(inode, errno);
        }
        self.cache.forget_attributes(inode);
    }

    /// The session ended: every lease is void, and what was not durable is lost.
    pub(super) fn fail_files(&mut self) {
        self.unsettled.clear();
        self.releases.clear();
        let inodes: Vec<InodeId> = self.files.keys().copied().collect();
        for inode in inodes {
            self.fail_file(inode, Errno::EIO);
            self.drive(inode);
        }
    }
}

/// Somebody waits for a commit that can be sent now, the delay is over, or a lease
/// is ready to end and has something to commit.
fn is_needed(file: &File) -> bool {
    if file.chunks.values().any(ChunkWrite::awaits_lone_sync) {
        return false;
    }
    let ready = |chunk: &ChunkWrite| chunk.is_uncommitted && is_ready(file, chunk);
    let ending = file.has_endings && file.chunks.values().any(ready);
    let Some(uncommitted) = file.uncommitted else {
        return ending;
    };
    let unwritten = file
        .chunks
        .values()
        .filter_map(ChunkWrite::oldest_unwritten)
        .min()
        .unwrap_or(u64::MAX);
    // A lease that is to end goes back with the commit, once its copies were heard.
    let unheard = |chunk: &ChunkWrite| chunk.ending.is_some() && is_vouch_awaited(file, chunk);
    let is_early = file.has_endings && file.chunks.values().any(unheard);
    let awaits = |goal: &Goal| {
        let is_due = goal.generation >= uncommitted && goal.generation < unwritten;
        is_due && !(is_early && goal.reach == Reach::GivenBack)
    };
    file.commit_wanted || ending || file.goals.iter().any(awaits)
}

/// What each written chunk is to be said to hold.
fn written_extents(file: &File) -> Vec<WrittenExtent> {
    let told = |(&index, chunk): (&u32, &ChunkWrite)| {
        let is_held = matches!(chunk.lease, Lease::Held | Lease::Asked | Lease::None);
        let chunk_id = chunk.chunk().filter(|_| is_held)?;
        let valid = match chunk.written_end {
            // Nothing but zeros, or what an earlier lease left, was synced.
            0 => chunk.committed_end,
            end => end,
        };
        (chunk.is_uncommitted && valid > 0).then_some(WrittenExtent {
            index,
            chunk: chunk_id,
            valid,
            fences: chunk.grant.as_ref().map_or(0, fences),
            synced: chunk.synced_in == Some(chunk.tenure),
        })
    };
    file.chunks.iter().filter_map(told).collect()
}
