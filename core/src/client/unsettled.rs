//! What was acknowledged under leases that were given back before it was synced: the
//! mount keeps the bytes no longer, and must be able to tell whether they are durable.
//! Leaves the syncs themselves to `goal`.
//!
//! Invariant: a chunk is forgotten only when a sync of this mount covers it, when the
//! leader says that it is durable, or with the session.

use super::Client;
use super::file::{After, ChunkWrite, EndCause};
use super::then::Then;
use super::write::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::{ChunkId, ChunkVersion, InodeId};
use crate::limits::REPORT_BATCH;
use crate::wire::client_master::{Answer, LeasedChunk, Query};
use std::collections::{BTreeMap, BTreeSet};

/// Acknowledged writes under a lease that was given back before they were synced: a sync
/// counts only where they still are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owed {
    chunk: ChunkId,
    /// The version of the last lease under which something was written.
    version: ChunkVersion,
    /// The leader called the lease back, or the last writer went without a close: none vouched
    /// for what was written, and one that comes yet can't without a sync.
    is_unvouched: bool,
}

impl Owed {
    /// What a chunk leaves unsynced when its lease ends now.
    fn left_by(chunk: &ChunkWrite) -> Option<Self> {
        let grant = chunk.grant.as_ref()?;
        let written = Self::under(grant, chunk).behind(chunk.owed);
        chunk.is_written.then_some(written).or(chunk.owed)
    }

    /// What was acknowledged under a lease of a chunk.
    pub(super) fn under(lease: &LeasedChunk, chunk: &ChunkWrite) -> Self {
        Self {
            chunk: lease.chunk,
            version: lease.version,
            is_unvouched: chunk.leaves_unvouched(),
        }
    }

    /// The same, with what earlier leases left: no close vouched for that either, if it was so.
    pub(super) fn behind(mut self, before: Option<Self>) -> Self {
        self.is_unvouched |= before.is_some_and(|owed| owed.is_unvouched);
        self
    }

    /// The chunk is still the one that was written. Another one is at its place once a
    /// truncation cut it, and then nothing is owed any more.
    pub(super) fn is_of(&self, grant: &LeasedChunk) -> bool {
        self.chunk == grant.chunk
    }

    /// The writes acknowledged under the old lease are in the new one's copies.
    pub(super) fn is_in(&self, grant: &LeasedChunk) -> bool {
        !grant.lost.is_some_and(|loss| loss.covers(self.version))
    }
}

/// The chunks of closed files that the leader may not have synced yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    chunks: BTreeMap<Place, (u64, Owed)>,
    /// The same by age.
    order: BTreeMap<u64, Place>,
    next: u64,
    /// The leader was asked which it has synced.
    is_asked: bool,
    /// After an answer that left too many: how many there are to be before it is asked again.
    rests_to: usize,
}

impl Unsettled {
    fn note(&mut self, place: Place, owed: Owed) {
        self.take(place);
        self.chunks.insert(place, (self.next, owed));
        self.order.insert(self.next, place);
        self.next += 1;
    }

    /// What is owed of a chunk is the caller's to see to now.
    pub(super) fn take(&mut self, place: Place) -> Option<Owed> {
        let (number, owed) = self.chunks.remove(&place)?;
        self.order.remove(&number);
        Some(owed)
    }

    /// The chunks of a file that are owed a sync.
    pub(super) fn of(&self, inode: InodeId) -> Vec<u32> {
        self.chunks
            .range((inode, 0)..=(inode, u32::MAX))
            .map(|((_, index), _)| *index)
            .collect()
    }

    /// Something of a file went back to the leader before it was closed.
    pub(super) fn has_unvouched(&self, inode: InodeId) -> bool {
        let of_file = self.chunks.range((inode, 0)..=(inode, u32::MAX));
        of_file.into_iter().any(|(_, (_, owed))| owed.is_unvouched)
    }

    fn oldest(&self, count: usize) -> impl Iterator<Item = (Place, Owed)> {
        let places = self.order.values().take(count);
        places.map(|place| (*place, self.chunks[place].1))
    }

    /// How many there are beyond a bound.
    fn excess(&self, most: usize) -> usize {
        self.chunks.len().saturating_sub(most.max(1))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Client {
    /// A lease ends with something that is acknowledged and not synced. When too much of
    /// that is remembered the leader is asked what of it needs no remembering.
    pub(super) fn note_unsettled(&mut self, place: Place) {
        let Some(owed) = self.chunk(place).and_then(Owed::left_by) else {
            return;
        };
        self.unsettled.note(place, owed);
        let most = self.config.limits.unsettled_max;
        let most = most.max(self.unsettled.rests_to);
        if self.unsettled.is_asked || self.unsettled.excess(most) == 0 {
            return;
        }
        self.unsettled.is_asked = true;
        let asked: Vec<(Place, Owed)> = self.unsettled.oldest(REPORT_BATCH).collect();
        let chunks = asked.iter().map(|(_, owed)| (owed.chunk, owed.version));
        let query = Query::Unsettled {
            chunks: chunks.collect(),
        };
        let then = Then::Unsettled { asked };
        self.ask(&Credentials::default(), query, then);
    }

    /// The leader's word about the oldest: what it has synced is forgotten. What is too
    /// many then this mount syncs, however long that takes: to forget it would be to
    /// answer an fsync of what is not durable.
    pub(super) fn on_unsettled(
        &mut self,
        asked: Vec<(Place, Owed)>,
        result: Result<Answer, Errno>,
    ) {
        self.unsettled.is_asked = false;
        if let Ok(Answer::Unsettled(left)) = result {
            let left: BTreeSet<ChunkId> = left.into_iter().collect();
            for (place, owed) in asked {
                let known = self.unsettled.chunks.get(&place);
                let is_it = known.is_some_and(|(_, known)| *known == owed);
                if is_it && !left.contains(&owed.chunk) {
                    self.unsettled.take(place);
                }
            }
        }
        let most = self.config.limits.unsettled_max;
        let excess = self.unsettled.excess(most);
        self.unsettled.rests_to = self.unsettled.chunks.len() + most / 8;
        if excess == 0 {
            self.unsettled.rests_to = 0;
        }
        let oldest = self.unsettled.oldest(excess.min(REPORT_BATCH));
        let inodes: BTreeSet<InodeId> = oldest.map(|((inode, _), _)| inode).collect();
        for inode in inodes {
            self.settle_file(inode);
        }
    }

    /// Syncs what is owed of a file that nobody waits for, and gives its leases back.
    fn settle_file(&mut self, inode: InodeId) {
        let file = self.files.get(&inode);
        if file.is_some_and(|file| file.sync_goal().is_some()) {
            return;
        }
        let has_writers = file.is_some_and(|file| file.writers > 0);
        self.sync_file(inode, After::Nothing);
        if has_writers {
            return;
        }
        if let Some(file) = self.files.get_mut(&inode) {
            let until = file.close_generation();
            self.end_all_soon(inode, EndCause::Closed, until);
            self.drive(inode);
        }
    }
}
