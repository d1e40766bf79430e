//! What the mount knows of a file that is open or has something unwritten: its
//! handles, the write state of its chunks, who waits for what. Owns the types and
//! the questions about them; leaves every step to `write`, `lease`, `goal`,
//! `commit` and `exclusive`.
//!
//! Writes are numbered in generations: a goal closes a generation, and waits for
//! everything up to it, not for what is written meanwhile.

use super::extents::{Content, ExtentMap, Progress};
use super::request::{ClientRequest, Handle};
use super::then::Ending;
use super::unsettled::Owed;
use crate::attributes::{AttributeChange, Credentials, FallocateMode};
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, ServerId};
use crate::limits::CHUNK_SIZE;
use crate::time::Instant;
use crate::wire::client_master::LeasedChunk;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A piece of a chunk on its way to the copies.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) content: Content,
    pub(super) generation: u64,
    /// It syncs what was acknowledged before along with itself.
    pub(super) sync: bool,
    /// A sync was sent behind it and is under way.
    pub(super) followed: bool,
    /// It carries this `drop_from`.
    pub(super) drop_from: Option<u32>,
    /// It changes no length and no `valid`.
    pub(super) overwrites: bool,
    /// The file's generation when it was sent first.
    pub(super) sent_in: u64,
    /// Tries that met a busy server.
    pub(super) attempts: u32,
}

/// A sync of a chunk under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncing {
    /// The oldest generation of acknowledged writes that it covers. It also covers the
    /// pieces that it follows, once they are acknowledged before it.
    pub(super) oldest: Option<u64>,
}

/// Whether the mount may write a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lease {
    /// Not held.
    None,
    /// Asked for.
    Asked,
    /// Held under the grant.
    Held,
    /// Being given back.
    Ending,
}

/// Why a lease is to end once its writes are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EndCause {
    /// Nobody wrote for a while: it is synced first.
    Idle,
    /// The last writer closes the file, and waits to hear of it.
    Closed,
    /// The last writer is gone, and no close waits.
    Left,
    /// The leader wants it back.
    Recalled,
}

/// The write state of one chunk of a file.
#[derive(Debug)]
pub(super) struct ChunkWrite {
    pub(super) extents: ExtentMap,
    /// Under way, by offset; never two that overlap.
    pub(super) pieces: BTreeMap<u32, Piece>,
    pub(super) lease: Lease,
    /// The newest grant; kept after a failure for reading and comparing.
    pub(super) grant: Option<LeasedChunk>,
    /// Over which link to a leader it came, as `Session::resumed` numbers them.
    pub(super) granted_over: u64,
    /// The last grant of the lease that a stale commit gave up.
    pub(super) given_up: Option<LeasedChunk>,
    /// Numbers the grants: replies under an older one are not heard.
    pub(super) tenure: u64,
    /// Something was sent under this tenure.
    pub(super) is_written: bool,
    /// Something was acknowledged under this tenure, so the copies have its version.
    pub(super) is_acknowledged: bool,
    /// Everything acknowledged under this tenure was synced (and something was).
    pub(super) is_synced: bool,
    /// The oldest generation acknowledged and covered by no sync.
    pub(super) acknowledged: Option<u64>,
    /// A sync is under way.
    pub(super) syncing: Option<Syncing>,
    /// How many syncs were sent under this tenure; 0 where they are not counted.
    pub(super) syncs: u32,
    /// The number of the last one that was answered.
    pub(super) synced: u32,
    /// Under which tenure a sync was sent last: a commit must tell the leader before
    /// anybody is told that something is durable.
    pub(super) synced_in: Option<u64>,
    /// In which generation the newest request was sent that all copies answered in the
    /// lives that the lease names.
    pub(super) vouched: u64,
    /// In which generation they were last asked for their lives alone, and did not answer yet.
    pub(super) vouching: Option<u64>,
    /// A sync is wanted whatever the goals say.
    pub(super) sync_wanted: bool,
    /// How far the chunk holds acknowledged content.
    pub(super) written_end: u32,
    /// How far the master knows it to.
    pub(super) committed_end: u32,
    /// Which chunk was last granted, and holds what was acknowledged and is kept.
    pub(super) home: Option<ChunkId>,
    /// What `committed_end` was when the lease was asked for. (The answer of a later commit
    /// may come before that of the lease, which then tells less.)
    pub(super) asked_end: u32,
    /// Written since the last commit was sent.
    pub(super) is_uncommitted: bool,
    /// The next write drops everything from here on first.
    pub(super) drop_from: Option<u32>,
    /// Some copies may have what others do not, until it is written again.
    pub(super) is_resent: bool,
    /// Some of that was cut before it was written again: the copies differ behind the end
    /// until a write has them drop it, or the leader makes them equal.
    pub(super) has_strayed: bool,
    /// What earlier leases left unsynced and the next sync covers.
    pub(super) owed: Option<Owed>,
    /// Some due extent waits for an overlapping piece.
    pub(super) is_blocked: bool,
    /// Copies that failed, for the next `Lease`.
    pub(super) failed: Vec<(ServerId, BootId)>,
    /// Whose word was doubted last.
    pub(super) doubted: Option<ServerId>,
    /// Failures since something was acknowledged.
    pub(super) attempts: u32,
    /// When they began.
    pub(super) failing_since: Option<Instant>,
    /// It is to end, once everything up to this generation is acknowledged.
    pub(super) ending: Option<(EndCause, u64)>,
    pub(super) last_write: Instant,
}

impl ChunkWrite {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            extents: ExtentMap::default(),
            pieces: BTreeMap::new(),
            lease: Lease::None,
            grant: None,
            granted_over: 0,
            given_up: None,
            tenure: 0,
            is_written: false,
            is_acknowledged: false,
            is_synced: false,
            acknowledged: None,
            syncing: None,
            syncs: 0,
            synced: 0,
            synced_in: None,
            vouched: 0,
            vouching: None,
            sync_wanted: false,
            written_end: 0,
            committed_end: 0,
            home: None,
            asked_end: 0,
            is_uncommitted: false,
            drop_from: None,
            is_resent: false,
            has_strayed: false,
            owed: None,
            is_blocked: false,
            failed: Vec::new(),
            doubted: None,
            attempts: 0,
            failing_since: None,
            ending: None,
            last_write: now,
        }
    }

    /// The oldest generation not acknowledged by every copy.
    pub(super) fn oldest_unwritten(&self) -> Option<u64> {
        let pieces = self.pieces.values().map(|piece| piece.generation);
        pieces.chain(self.extents.oldest_dirty()).min()
    }

    /// Where the last write ends that is on its way and may lengthen the file.
    pub(super) fn growing_end(&self) -> Option<u32> {
        let grows = |(_, piece): &(&u32, &Piece)| !piece.overwrites;
        let mut pieces = self.pieces.iter().rev().filter(grows);
        let piece = pieces.next();
        let sent = piece.map(|(start, piece)| start + piece.content.length());
        sent.max(self.extents.dirty_to())
    }

    /// The oldest generation not durable on every copy.
    pub(super) fn oldest_unsynced(&self) -> Option<u64> {
        let written = self.oldest_unwritten();
        self.acknowledged_unsynced()
            .into_iter()
            .chain(written)
            .min()
    }

    /// The oldest generation acknowledged and not known durable.
    pub(super) fn acknowledged_unsynced(&self) -> Option<u64> {
        let syncing = self.syncing.and_then(|sync| sync.oldest);
        self.acknowledged.into_iter().chain(syncing).min()
    }

    /// Everything that was written is on its way to copies that exist, so that a sync
    /// sent now reaches each of them behind it.
    pub(super) fn may_follow(&self) -> bool {
        let on_its_way = |piece: &Piece| piece.attempts == 0 && !piece.sync;
        self.is_acknowledged
            && !self.pieces.is_empty()
            && self.pieces.values().all(on_its_way)
            && !self.extents.is_dirty()
    }

    /// A sync is sent, for what is acknowledged. True when it is the first one of the tenure,
    /// which a commit must tell of.
    pub(super) fn begin_sync(&mut self) -> bool {
        self.extents
            .advance_all(Progress::Written, Progress::Syncing);
        let oldest = self.acknowledged.take();
        self.syncing = Some(Syncing { oldest });
        self.synced_in.replace(self.tenure) != Some(self.tenure)
    }

    /// The number of a sync that is sent now. One that is sent again has another one: the
    /// copies may have more by then than those that took it before.
    pub(super) fn count_sync(&mut self) -> u32 {
        let counts = self.grant.as_ref().is_some_and(|grant| grant.counts);
        self.syncs = self.syncs.saturating_add(u32::from(counts));
        self.syncs
    }

    /// A commit would tell of a sync of the only copy, and nobody knows yet whether that
    /// succeeds: should it fail, no copy of the version would be left that the log told of,
    /// though others may have all that was ever answered as durable.
    pub(super) fn awaits_lone_sync(&self) -> bool {
        let is_lone = self.held().is_some_and(|grant| grant.copies.len() == 1);
        let is_told_of = self.is_uncommitted && self.synced_in == Some(self.tenure);
        is_lone && is_told_of && self.syncing.is_some()
    }

    /// How far it is known to hold content.
    pub(super) fn known_end(&self) -> u32 {
        self.written_end.max(self.committed_end)
    }

    /// No sync is under way any more.
    pub(super) fn end_sync(&mut self) {
        for piece in self.pieces.values_mut() {
            piece.followed = false;
        }
        self.syncing = None;
    }

    /// The piece under way that overlaps a range, if there is one.
    pub(super) fn overlapping(&self, from: u32, to: u32) -> Option<u32> {
        let (&start, piece) = self.pieces.range(..to).next_back()?;
        (start + piece.content.length() > from).then_some(start)
    }

    /// Nothing of it is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let lease = matches!(self.lease, Lease::None | Lease::Held);
        self.pieces.is_empty() && self.syncing.is_none() && lease
    }

    /// Nothing is left to be sent or acknowledged.
    pub(super) fn is_written_out(&self) -> bool {
        !self.extents.is_dirty() && self.pieces.is_empty()
    }

    /// Everything acknowledged before the sync that just succeeded is durable; what a
    /// commit must still make part of the file is kept until then.
    pub(super) fn on_synced(&mut self) {
        self.extents
            .advance_all(Progress::Syncing, Progress::Synced);
        self.extents
            .drop_up_to(self.committed_end, Progress::Synced);
        self.end_sync();
        self.is_acknowledged = true;
        // No other sync is under way, so it is the last one that was sent.
        self.synced = self.syncs;
        self.is_synced = self.acknowledged.is_none();
        self.owed = None;
        self.end_failure();
    }

    /// A copy set answered well. As long as something is left to write the pauses
    /// between attempts stay: the next piece may be the one that fails again.
    pub(super) fn end_failure(&mut self) {
        if self.is_written_out() {
            self.attempts = 0;
            self.is_resent = false;
        }
        self.failing_since = None;
        self.doubted = None;
    }

    /// Its lease is to be given back with writes up to a generation that are not known
    /// to be durable, and the leader has not taken it yet.
    pub(super) fn is_ending(&self, generation: u64) -> bool {
        let due = self.ending.is_some_and(|(_, until)| until <= generation);
        let held = matches!(self.lease, Lease::Held | Lease::Ending);
        let unsynced = !self.is_synced || self.acknowledged.is_some();
        due && held && self.is_written && unsynced
    }

    /// Its lease goes back, and no close vouches for what was written.
    pub(super) fn leaves_unvouched(&self) -> bool {
        matches!(self.ending, Some((EndCause::Recalled | EndCause::Left, _)))
    }

    /// The master knows the chunk to hold content up to `end`.
    pub(super) fn on_committed(&mut self, end: u32) {
        self.committed_end = self.committed_end.max(end);
        self.extents
            .drop_up_to(self.committed_end, Progress::Synced);
    }

    /// Its lease was granted over an earlier link to a leader: it may have been fenced since.
    pub(super) fn is_unconfirmed(&self, link: u64) -> bool {
        self.lease == Lease::Held && self.granted_over != link
    }

    /// Others may have got its lease.
    pub(super) fn is_doubted(&self, link: u64) -> bool {
        let recalled = matches!(self.ending, Some((EndCause::Recalled, _)));
        match self.lease {
            Lease::None | Lease::Asked => self.grant.is_some() || self.given_up.is_some(),
            Lease::Held => recalled || self.is_unconfirmed(link),
            Lease::Ending => false,
        }
    }

    /// The grant, while it may be written and read under.
    pub(super) fn held(&self) -> Option<&LeasedChunk> {
        self.grant
            .as_ref()
            .filter(|_| matches!(self.lease, Lease::Held | Lease::Ending))
    }

    /// Asserts what must hold between inputs.
    pub(super) fn check(&self) {
        self.extents.check();
        let mut end = 0;
        for (&start, piece) in &self.pieces {
            assert!(start >= end, "pieces under way never overlap");
            end = start + piece.content.length();
        }
        if let Some(piece) = self.pieces.values().find(|piece| piece.drop_from.is_some()) {
            let data = |piece: &&Piece| matches!(piece.content, Content::Data(_));
            let others = self.pieces.values().filter(data).count();
            assert!(others == 1, "{piece:?} drops the chunk's end alone");
        }
        let followed = self.pieces.values().any(|piece| piece.followed);
        assert!(
            !followed || self.syncing.is_some(),
            "what is followed is followed by a sync"
        );
        assert!(
            self.grant.is_some() || self.pieces.is_empty(),
            "pieces go under a lease"
        );
    }

    pub(super) fn chunk(&self) -> Option<ChunkId> {
        self.grant.as_ref().map(|grant| grant.chunk)
    }
}

/// How far writes are to get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Acknowledged by every copy, and part of the file.
    Committed,
    /// Also, the copies still have what is not synced, and leases that are to end are given
    /// back: none was fenced meanwhile, with which what was acknowledged may have been lost.
    GivenBack,
    /// Committed and durable on every copy.
    Synced,
}

/// Someone waits until everything up to a generation got so far.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) id: u64,
    pub(super) generation: u64,
    pub(super) reach: Reach,
    pub(super) after: After,
}

/// What follows when a goal is reached.
#[derive(Debug)]
pub(super) enum After {
    /// Tell a flush or an fsync, with the errors of its handle.
    Tell { operation: u64, handle: Handle },
    /// Do this request now.
    Again(Box<ClientRequest>),
    /// The next step of the exclusive operation.
    Exclusive,
    /// Nobody waits.
    Nothing,
}

/// What a commit under way covers.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) generation: Option<u64>,
    /// Chunks with how far they were said to hold content.
    pub(super) chunks: Vec<(u32, ChunkId, u32)>,
    pub(super) endings: Vec<Ending>,
    /// It changes the file's times.
    pub(super) is_change: bool,
}

impl Commit {
    /// Whether it says something of a chunk.
    pub(super) fn names(&self, index: u32, chunk: &ChunkWrite) -> bool {
        let mut named = self.chunks.iter();
        named.any(|&(at, id, _)| at == index && chunk.chunk() == Some(id))
    }
}

/// An operation that no write may overtake.
#[derive(Debug)]
pub(super) enum Exclusive {
    Truncate {
        operation: u64,
        credentials: Credentials,
        change: AttributeChange,
        /// The handle that O_TRUNC opens.
        opened: Option<Handle>,
    },
    Fallocate {
        operation: u64,
        credentials: Credentials,
        mode: FallocateMode,
        offset: u64,
        length: u64,
        /// Parts of chunks that are still to be looked up and zeroed.
        borders: Vec<(u32, u32, u32)>,
    },
}

/// How far an exclusive operation got. Writes that arrive wait beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// What was written before is written out and committed.
    Draining,
    /// The chunks at the borders are looked up.
    Locating,
    /// Ranges of the borders are being zeroed.
    Zeroing,
    /// What is under way must end; nothing new begins.
    Quieting,
    /// The leader was asked.
    Asked,
}

/// An open file, or one with something unwritten.
#[derive(Debug, Default)]
pub(super) struct File {
    /// Open handles.
    pub(super) handles: u32,
    /// Of them, for writing.
    pub(super) writers: u32,
    /// Opens asked and not answered.
    pub(super) opening: u32,
    /// Something was acknowledged that no commit was sent for yet: the next one changes the
    /// file's times.
    pub(super) is_changed: bool,
    /// Of the writes taken now.
    pub(super) generation: u64,
    /// Generations before this one are to be sent without waiting for neighbours.
    pub(super) due: u64,
    pub(super) chunks: BTreeMap<u32, ChunkWrite>,
    /// The largest end of a write that no answered commit covers.
    pub(super) written_to: u64,
    /// The largest end of an acknowledged write that no commit covers.
    pub(super) acknowledged_to: u64,
    /// The oldest generation acknowledged and in no commit.
    pub(super) uncommitted: Option<u64>,
    pub(super) commit_wanted: bool,
    pub(super) commit: Option<Commit>,
    pub(super) goals: Vec<Goal>,
    /// Some chunk's lease is to end.
    pub(super) has_endings: bool,
    pub(super) exclusive: Option<(Exclusive, Step)>,
    /// Exclusive operations that wait for it.
    pub(super) exclusives: VecDeque<Exclusive>,
    /// Handles that have something read ahead.
    pub(super) readers: BTreeSet<Handle>,
    /// Writes that wait for it.
    pub(super) parked: VecDeque<ClientRequest>,
    /// Counts lost writes; a handle that saw fewer is told.
    pub(super) failures: u64,
    pub(super) failure: Option<Errno>,
    /// How many of them some handle was told of: one opened later is told the rest.
    pub(super) failures_told: u64,
}

impl File {
    /// Closes the generation of writes taken so far.
    pub(super) fn close_generation(&mut self) -> u64 {
        let closed = self.generation;
        self.generation += 1;
        self.due = self.generation;
        closed
    }

    pub(super) fn sends_allowed(&self) -> bool {
        !matches!(self.exclusive, Some((_, Step::Quieting | Step::Asked)))
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.commit.is_none() && self.chunks.values().all(ChunkWrite::is_quiet)
    }

    /// Something written is not committed, or not even acknowledged.
    pub(super) fn is_dirty(&self) -> bool {
        let dirty = |chunk: &ChunkWrite| !chunk.is_written_out();
        self.uncommitted.is_some() || self.commit.is_some() || self.chunks.values().any(dirty)
    }

    /// What is left to be written, in words.
    pub(super) fn left(&self) -> String {
        let (changed, commit) = (self.uncommitted.is_some(), self.commit.is_some());
        let mut text = format!("to be committed {changed}, commit on its way {commit}");
        for (index, chunk) in &self.chunks {
            let (dirty, sent) = (chunk.extents.is_dirty(), chunk.pieces.len());
            let (lease, syncs) = (chunk.lease, chunk.syncing.is_some());
            text.push_str(&format!(
                "; chunk {index} to be sent {dirty}, sent {sent}, syncing {syncs}, lease {lease:?}"
            ));
        }
        text
    }

    /// A sync is on its way: until it is answered nobody knows whether the copies still
    /// have what it covers, or it has to be sent again.
    pub(super) fn is_syncing(&self) -> bool {
        let mut chunks = self.chunks.values();
        chunks.any(|chunk| chunk.syncing.is_some())
    }

    /// Forgets the ends of writes that the leader knows of, or that were lost: what it
    /// knows, another mount may have cut meanwhile.
    pub(super) fn forget_known_ends(&mut self) {
        let growing = |(&index, chunk): (&u32, &ChunkWrite)| {
            Some(start_of(index) + u64::from(chunk.growing_end()?))
        };
        let end = self.chunks.iter().filter_map(growing).max();
        let left = end.unwrap_or(0).max(self.acknowledged_to);
        self.written_to = self.written_to.min(left);
    }

    /// Nothing is left to commit once the chunks that had something are lost.
    pub(super) fn forget_lost_commit(&mut self) {
        if !self.chunks.values().any(|chunk| chunk.is_uncommitted) {
            self.uncommitted = None;
            self.commit_wanted = false;
            self.acknowledged_to = 0;
        }
    }

    /// Something written is not durable.
    pub(super) fn is_unsynced(&self) -> bool {
        self.is_dirty()
            || self
                .chunks
                .values()
                .any(|chunk| chunk.oldest_unsynced().is_some())
    }

    /// Nobody needs it any more.
    pub(super) fn is_idle(&self) -> bool {
        self.handles == 0
            && self.opening == 0
            && self.chunks.is_empty()
            && self.goals.is_empty()
            && self.exclusive.is_none()
            && self.uncommitted.is_none()
            && self.commit.is_none()
    }

    /// Whether everything up to a generation got as far as a goal says.
    pub(super) fn is_reached(&self, generation: u64, reach: Reach) -> bool {
        let behind = |oldest: Option<u64>| oldest.is_some_and(|oldest| oldest <= generation);
        let committing = self.commit.as_ref().and_then(|commit| commit.generation);
        if behind(self.uncommitted) || behind(committing) {
            return false;
        }
        self.chunks.values().all(|chunk| match reach {
            Reach::Committed => !behind(chunk.oldest_unwritten()),
            Reach::GivenBack => {
                let is_open = chunk.is_ending(generation) || chunk.is_unvouched(generation);
                !behind(chunk.oldest_unwritten()) && !is_open
            }
            Reach::Synced => !behind(chunk.oldest_unsynced()),
        })
    }

    /// The newest generation that somebody waits to see durable.
    pub(super) fn sync_goal(&self) -> Option<u64> {
        self.goals
            .iter()
            .filter(|goal| goal.reach == Reach::Synced)
            .map(|goal| goal.generation)
            .max()
    }
}

/// Which chunk of a file holds an offset, and where in it.
pub(super) fn locate(offset: u64) -> (u32, u32) {
    let index = u32::try_from(offset / CHUNK_SIZE).expect("files are bounded");
    let within = u32::try_from(offset % CHUNK_SIZE).expect("a chunk has 32-bit offsets");
    (index, within)
}

/// Where a chunk begins in its file.
pub(super) fn start_of(index: u32) -> u64 {
    u64::from(index) * CHUNK_SIZE
}

/// Cuts a range of a file at chunk borders: `(index, from, to)` within each chunk.
pub(super) fn segments(offset: u64, length: u64) -> impl Iterator<Item = (u32, u32, u32)> {
    let end = offset + length;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (index, from) = locate(at);
        let stop = end.min(start_of(index) + CHUNK_SIZE);
        let to = from + u32::try_from(stop - at).expect("within a chunk");
        at = stop;
        Some((index, from, to))
    })
}
