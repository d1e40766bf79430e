//! Pushed invalidations: what changed elsewhere goes out of the mount's caches at
//! once and out of the kernel's by a ticket; the leader hears `PushDone` after both.
//!
//! A name in the kernel lapses by itself within `kernel_validity`, and the kernel may
//! be unable to drop it while it waits for another answer in the same directory: a
//! push does not wait for names longer than that. Pages never lapse and are waited for.

use super::Client;
use super::request::{ClientAnswer, Handle};
use super::timers::Timer;
use crate::ids::InodeId;
use crate::marks::Mark;
use crate::wire::client_master::{ClientToMaster, Stale};
use std::collections::{BTreeMap, BTreeSet};

/// A push that the kernel has not finished.
#[derive(Debug, Default)]
struct Push {
    /// Tickets of names.
    entries: BTreeSet<u64>,
    /// Tickets of inodes.
    inodes: BTreeSet<u64>,
}

/// Pushes of the present link.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    pushes: BTreeMap<u64, Push>,
    /// Which push a ticket is for.
    tickets: BTreeMap<u64, u64>,
    last_ticket: u64,
}

impl Pushes {
    fn ticket(&mut self) -> u64 {
        self.last_ticket += 1;
        self.last_ticket
    }

    pub(super) fn count(&self) -> usize {
        self.pushes.len()
    }
}

impl Client {
    /// The leader says what is no longer so.
    pub(super) fn on_push(&mut self, push: u64, stale: Vec<Stale>) {
        self.marks.reach(Mark::StalePushed);
        self.cache.note_push();
        self.pushes.pushes.insert(push, Push::default());
        for stale in stale {
            match stale {
                Stale::Inode(inode) => {
                    self.forget_inode(inode);
                    self.invalidate_inode(push, inode);
                }
                Stale::Dentry { parent, name } => {
                    // A name that the kernel was never given needs no word to it, which
                    // could only be had after whatever holds the directory's lock.
                    if self.cache.drop_dentry(parent, &name, self.now.mono) {
                        self.invalidate_entry(push, parent, name);
                    }
                }
                Stale::All => {
                    self.cache.clear();
                    self.drop_all_locations();
                    self.drop_all_ahead();
                    for inode in self.files.keys().copied().collect::<Vec<_>>() {
                        self.invalidate_inode(push, inode);
                    }
                }
            }
        }
        let lapse = self.cache.kernel_until().max(self.now.mono);
        self.timers.set(Timer::Push(push), lapse);
        self.finish_push(push);
    }

    fn invalidate_inode(&mut self, push: u64, inode: InodeId) {
        let ticket = self.pushes.ticket();
        self.pushes.tickets.insert(ticket, push);
        if let Some(open) = self.pushes.pushes.get_mut(&push) {
            open.inodes.insert(ticket);
        }
        self.tell(ClientAnswer::InvalidateInode { ticket, inode });
    }

    fn invalidate_entry(&mut self, push: u64, parent: InodeId, name: Vec<u8>) {
        let ticket = self.pushes.ticket();
        self.pushes.tickets.insert(ticket, push);
        if let Some(open) = self.pushes.pushes.get_mut(&push) {
            open.entries.insert(ticket);
        }
        self.tell(ClientAnswer::InvalidateEntry {
            ticket,
            parent,
            name,
        });
    }

    /// The kernel dropped what a ticket named.
    pub(super) fn on_invalidated(&mut self, ticket: u64) {
        let Some(push) = self.pushes.tickets.remove(&ticket) else {
            return;
        };
        if let Some(open) = self.pushes.pushes.get_mut(&push) {
            open.entries.remove(&ticket);
            open.inodes.remove(&ticket);
            self.finish_push(push);
        }
    }

    /// Every name that the kernel was given before the push has lapsed.
    pub(super) fn on_push_lapsed(&mut self, push: u64) {
        if let Some(open) = self.pushes.pushes.get_mut(&push) {
            if !open.entries.is_empty() {
                self.marks.reach(Mark::NameLapsed);
            }
            for ticket in std::mem::take(&mut open.entries) {
                self.pushes.tickets.remove(&ticket);
            }
            self.finish_push(push);
        }
    }

    fn finish_push(&mut self, push: u64) {
        let is_done = |open: &Push| open.entries.is_empty() && open.inodes.is_empty();
        if self.pushes.pushes.get(&push).is_some_and(is_done) {
            self.pushes.pushes.remove(&push);
            self.timers.cancel(Timer::Push(push));
            self.tell_master(ClientToMaster::PushDone { push });
        }
    }

    fn forget_inode(&mut self, inode: InodeId) {
        self.cache.forget_attributes(inode);
        self.drop_locations(inode);
        self.cache.forget_pages(inode);
        self.drop_ahead(inode, 0, u64::MAX);
    }

    /// Nothing cached is known to be so any more, and the pushes of the old link are
    /// nobody's. The kernel's pages of open files are dropped.
    pub(super) fn forget_everything(&mut self) {
        self.cache.clear();
        self.drop_all_locations();
        self.drop_all_ahead();
        for push in std::mem::take(&mut self.pushes.pushes).into_keys() {
            self.timers.cancel(Timer::Push(push));
        }
        self.pushes.tickets.clear();
    }

    /// A new link: the kernel's pages of open files may have missed a push.
    pub(super) fn invalidate_open_files(&mut self) {
        let open: BTreeSet<InodeId> = self.handles.values().map(|open| open.inode).collect();
        for inode in open {
            let ticket = self.pushes.ticket();
            self.tell(ClientAnswer::InvalidateInode { ticket, inode });
        }
    }

    /// A handle of the mount, for the digest.
    pub(super) fn open_handles(&self) -> impl Iterator<Item = (Handle, InodeId)> + '_ {
        self.handles
            .iter()
            .map(|(&handle, open)| (handle, open.inode))
    }
}
