//! When the client wants to be woken, and what for. One instant per purpose:
//! setting it again moves it.

use crate::ids::{InodeId, LinkId};
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A reason to wake up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Timer {
    /// Tell the leader that the client lives, and see whether it still answers.
    Heartbeat,
    /// The link to a master did not come up, or was not welcomed.
    Master,
    /// Try the next master.
    Reconnect,
    /// The kernel's cache has lapsed: a new session link may say Hello.
    Greet,
    /// Ask again what was answered EAGAIN.
    Retry(u64),
    /// A call got nowhere for too long.
    GiveUp(u64),
    /// The link to a chunkserver did not come up, or its oldest request is late.
    Server(LinkId),
    /// A chunk's lease is asked for again, or its pieces are sent again.
    Chunk(InodeId, u32),
    /// A busy piece is sent again.
    Piece(InodeId, u32, u32),
    /// Written bytes of a file waited long enough.
    WriteDelay(InodeId),
    /// Acknowledged writes of a file waited long enough for their commit.
    CommitDelay(InodeId),
    /// A lease that nobody used for a while goes back.
    Idle(InodeId, u32),
    /// A read goes to another copy too.
    Hedge(u64),
    /// A read tries every copy anew.
    Fetch(u64),
    /// A seek tries every copy anew.
    Seek(u64),
    /// A goal got nowhere for too long.
    Goal(InodeId, u64),
    /// A blocked write got nowhere for too long.
    Blocked,
    /// Closed inodes and unused leases are told to the leader.
    Batch,
    /// The end of the mount takes too long.
    Shutdown,
    /// The kernel's names have lapsed by themselves.
    Push(u64),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, Timer)>,
    at: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.at.insert(timer, at);
        self.queue.insert((at, timer));
    }

    /// Sets a timer unless it is set already.
    pub(super) fn set_once(&mut self, timer: Timer, at: Instant) {
        if !self.at.contains_key(&timer) {
            self.set(timer, at);
        }
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.at.remove(&timer) {
            self.queue.remove(&(at, timer));
        }
    }

    pub(super) fn is_set(&self, timer: Timer) -> bool {
        self.at.contains_key(&timer)
    }

    /// The next instant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }

    /// Takes one timer that is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    pub(super) fn count(&self) -> usize {
        self.queue.len()
    }
}
