//! Files that have been left alone for as long as their class says: what holds for their
//! chunks is its archive policy, until somebody writes to them.
//!
//! Owns the table of them. The leader looks which are due; whether they are is judged when
//! its record is applied. Invariant: a file in the table is there, and its class has an
//! archive policy or had one when it was put there.

use super::apply::Step;
use super::digest;
use super::inode::Inode;
use super::state::{Change, State};
use super::table::Entity;
use crate::ids::{ChunkId, InodeId};
use crate::placement::Clock;
use crate::time::{Duration, Timestamp};
use minicbor::{Decode, Encode};

/// A file is archived.
#[derive(Clone, Copy, Debug, Encode, Decode)]
pub(crate) struct Archived;

impl Entity<InodeId> for Archived {
    fn hash(&self, inode: &InodeId) -> u64 {
        digest::words(22, &[inode.0])
    }
}

impl State {
    /// Whether the archive policy of its class holds for a file.
    #[must_use]
    pub fn is_archived(&self, inode: InodeId) -> bool {
        self.archived.len() > 0 && self.archived.has(&inode)
    }

    /// Whether a file has been left alone for so long that it is to be archived.
    #[must_use]
    pub fn is_archive_due(&self, inode: InodeId, now: Timestamp) -> bool {
        let file = self.inodes.get(&inode);
        let file = file.filter(|file| file.is_regular() && !self.archived.has(&inode));
        file.is_some_and(|file| self.is_left_alone(file, now))
    }

    fn is_left_alone(&self, file: &Inode, now: Timestamp) -> bool {
        let class = self.class(file.class);
        let Some(archive) = &class.archive else {
            return false;
        };
        let since: Timestamp = match archive.by {
            Clock::Mtime => file.mtime.into(),
            Clock::Ctime => file.ctime.into(),
            Clock::Atime => file.atime.into(),
        };
        file.size >= archive.above && now.since(since) >= Duration::from_secs(archive.after)
    }

    /// `RecordBody::Archived`: files that are not due are passed over.
    pub(crate) fn archive(&mut self, step: &mut Step<'_>, inodes: &[InodeId]) {
        for &inode in inodes {
            if self.is_archive_due(inode, step.now.into()) {
                self.archived.insert(inode, Archived);
                self.tell_chunks(step, inode);
            }
        }
    }

    /// A file is about to be written, or is of another class: what holds for any holds
    /// for it.
    pub(crate) fn unarchive(&mut self, step: &mut Step<'_>, inode: InodeId) {
        if self.is_archived(inode) {
            self.archived.remove(&inode);
            self.tell_chunks(step, inode);
        }
    }

    fn tell_chunks(&self, step: &mut Step<'_>, inode: InodeId) {
        let chunks = self.extents_of(inode).map(|(_, extent)| extent.chunk);
        for chunk in chunks.collect::<Vec<ChunkId>>() {
            step.changed(Change::Copies(chunk));
        }
    }
}
