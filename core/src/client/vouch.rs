//! What a close says of writes that were acknowledged before it and not synced: that the
//! copies still live the lives in which they acknowledged them. Owns the question; leaves
//! what follows when one does not to `lease`.
//!
//! Invariant: a close is answered as done only if each copy of what it covers was heard, in
//! the life that the lease names, with a request sent after the close began, or synced it.
//! A write of the close itself is such a request, so that a small file costs no other.

use super::Client;
use super::file::{ChunkWrite, EndCause, File, Goal, Lease, Reach};
use super::servers::{ChunkOutcome, ChunkThen};
use super::timers::Timer;
use super::write::{Place, nonsense, split_chain, stranger};
use crate::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use bytes::Bytes;

/// Changes nothing, and is answered as a write is: by every copy, with its life.
const NOTHING: ChunkRequestBody = ChunkRequestBody::Zero {
    offset: 0,
    length: 0,
};

impl ChunkWrite {
    /// Something up to a generation was acknowledged, and nothing sent after that generation
    /// tells yet whether the copies still have it.
    pub(super) fn is_unvouched(&self, generation: u64) -> bool {
        let is_covered = self
            .acknowledged_unsynced()
            .is_some_and(|oldest| oldest <= generation);
        let is_asked = match self.lease {
            Lease::Held => true,
            // A copy failed, or a commit was stale: the next lease tells whether others have
            // it, and what became of what earlier leases left.
            Lease::None | Lease::Asked => self.grant.is_some() || self.owed.is_some(),
            Lease::Ending => false,
        };
        is_covered && self.vouched <= generation && is_asked
    }

    /// The copies were heard: a request answered that was sent in a generation.
    pub(super) fn vouch(&mut self, sent: u64) {
        self.vouched = self.vouched.max(sent);
    }

    /// Whether something on its way, or still to be sent, will tell.
    fn is_vouching(&self, generation: u64) -> bool {
        let mut pieces = self.pieces.values();
        let asked = self.vouching.is_some_and(|sent| sent > generation);
        // A recalled lease takes nothing that was written since.
        let last = match self.ending {
            Some((EndCause::Recalled, until)) => until.min(generation),
            _ => generation,
        };
        let dirty = self.extents.oldest_dirty();
        asked
            || pieces.any(|piece| piece.sent_in > generation)
            || dirty.is_some_and(|oldest| oldest <= last)
    }
}

/// The newest close that waits to hear of a chunk's copies.
fn unvouched(file: &File, chunk: &ChunkWrite) -> Option<u64> {
    let closes =
        |goal: &&Goal| goal.reach == Reach::GivenBack && chunk.is_unvouched(goal.generation);
    let goals = file.goals.iter().filter(closes);
    goals.map(|goal| goal.generation).max()
}

/// A close waits to hear of a chunk's copies.
pub(super) fn is_vouch_awaited(file: &File, chunk: &ChunkWrite) -> bool {
    unvouched(file, chunk).is_some()
}

impl Client {
    /// Asks the copies of a chunk for their lives, when a close waits for that.
    pub(super) fn maybe_vouch(&mut self, place: Place) {
        let Some(file) = self.files.get(&place.0) else {
            return;
        };
        let Some(chunk) = file.chunks.get(&place.1) else {
            return;
        };
        let Some(generation) = unvouched(file, chunk) else {
            return;
        };
        let resting = self.timers.is_set(Timer::Chunk(place.0, place.1));
        let is_busy = resting || chunk.lease != Lease::Held || chunk.syncing.is_some();
        if is_busy || chunk.is_vouching(generation) {
            return;
        }
        let sent = file.generation;
        let (head, chain) = split_chain(chunk.held().expect("a lease is held"));
        let then = ChunkThen::Vouch {
            inode: place.0,
            index: place.1,
            tenure: chunk.tenure,
            sent,
        };
        self.edit(place, |chunk| chunk.vouching = Some(sent));
        self.ask_chunk(&head, chain, NOTHING, Bytes::new(), then);
    }

    /// The copies told their lives, or one did not.
    pub(super) fn on_vouch_outcome(
        &mut self,
        place: Place,
        (tenure, sent): (u64, u64),
        outcome: ChunkOutcome,
    ) {
        let Some(chunk) = self.chunk(place) else {
            return;
        };
        if chunk.tenure != tenure {
            return;
        }
        let grant = chunk.grant.as_ref().expect("a tenure has a grant");
        let result = match outcome {
            Ok((ChunkReplyBody::Done { boots }, _)) => stranger(grant, &boots).map_or(Ok(()), Err),
            Ok(_) => Err(nonsense(chunk)),
            Err(error) => Err(error),
        };
        self.edit(place, |chunk| {
            chunk.vouching = chunk.vouching.filter(|newest| *newest != sent);
        });
        match result {
            Ok(()) => {
                self.edit(place, |chunk| {
                    chunk.vouch(sent);
                    chunk.end_failure();
                });
            }
            Err(error) if error.kind == ChunkErrorKind::Busy => self.rest_vouch(place),
            Err(error) => self.fail_chunk(place, error),
        }
        self.drive(place.0);
    }

    fn rest_vouch(&mut self, place: Place) {
        let attempts = self.edit(place, |chunk| {
            chunk.attempts += 1;
            chunk.attempts
        });
        let at = self.now.mono + self.backoff(attempts.expect("the caller found it"));
        self.timers.set(Timer::Chunk(place.0, place.1), at);
    }
}
