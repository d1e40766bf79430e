//! Where chunks are: a cache of locations, and the questions that fill it. Leaves
//! the use of copies to `fetch` and `seek`.

use super::Client;
use super::then::Then;
use super::write::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::wire::client_master::{Answer, LocatedChunk, Query};

/// Who waits for a location.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiter {
    Fetch(u64),
    Seek(u64),
    /// The exclusive operation of a file.
    Exclusive(InodeId),
}

impl Client {
    /// A location from the cache, while it may be used.
    pub(super) fn cached_location(&mut self, place: Place) -> Option<LocatedChunk> {
        if !self.may_use_cache() {
            return None;
        }
        self.cache.location(place).cloned()
    }

    /// Asks where a chunk is, and the ones behind it.
    pub(super) fn locate(&mut self, inode: InodeId, index: u32, waiter: Waiter) {
        let waiters = self.locating.entry((inode, index)).or_default();
        waiters.push(waiter);
        if waiters.len() > 1 {
            return;
        }
        let count = self.config.limits.locate_count;
        let query = Query::Locate {
            inode,
            index,
            count,
        };
        let then = Then::Located { inode, index };
        self.ask(&Credentials::default(), query, then);
    }

    /// The leader's answer.
    pub(super) fn on_located(&mut self, inode: InodeId, index: u32, result: Result<Answer, Errno>) {
        let waiters = self.locating.remove(&(inode, index)).unwrap_or_default();
        let found = match result {
            Ok(Answer::Located(chunks)) => {
                let found = chunks.iter().find(|chunk| chunk.index == index).cloned();
                let most = self.config.limits.locations_max;
                for chunk in chunks {
                    self.cache.add_location(inode, chunk, most);
                }
                // Past the last chunk of the file there is a hole.
                Ok(found.unwrap_or(LocatedChunk {
                    index,
                    chunk: None,
                    valid: 0,
                    copies: Vec::new(),
                    stripe: None,
                }))
            }
            Ok(_) => Err(Errno::EIO),
            Err(errno) => Err(errno),
        };
        for waiter in waiters {
            match waiter {
                Waiter::Fetch(fetch) => self.on_fetch_located(fetch, found.clone()),
                Waiter::Seek(seek) => self.on_seek_located(seek, found.clone()),
                Waiter::Exclusive(inode) => self.on_border_located(inode, found.clone()),
            }
        }
    }

    /// The locations of a file are no longer known, nor to what is under way.
    pub(super) fn drop_locations(&mut self, inode: InodeId) {
        self.cache.forget_locations(inode);
        self.outdate_fetches(Some(inode));
        self.outdate_seeks(Some(inode));
    }

    /// No location is known any more; the cache is empty already.
    pub(super) fn drop_all_locations(&mut self) {
        self.outdate_fetches(None);
        self.outdate_seeks(None);
    }
}
