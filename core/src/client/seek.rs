//! SEEK_DATA and SEEK_HOLE: chunk by chunk, a hole of the file or the map of its
//! present units. The file is written out and committed first.

use super::Client;
use super::file::{After, File, locate, start_of};
use super::locate::Waiter;
use super::request::{ClientRequest, FileReply, FileRequest};
use super::servers::{ChunkOutcome, ChunkThen};
use super::then::Then;
use super::timers::Timer;
use crate::errno::Errno;
use crate::ids::{InodeId, ServerId};
use crate::limits::{CHUNK_SIZE, UNIT_SIZE};
use crate::time::Instant;
use crate::wire::client_chunk::{ChunkReplyBody, ChunkRequestBody};
use crate::wire::client_master::{LocatedChunk, LocatedCopy, Query};
use bytes::Bytes;

/// A seek under way.
#[derive(Debug)]
pub(super) struct Seek {
    operation: u64,
    inode: InodeId,
    /// Looks for data, or for a hole.
    data: bool,
    /// Everything before was looked at.
    at: u64,
    size: u64,
    valid: u32,
    /// Copies of the chunk at hand that were not asked yet, best last.
    copies: Vec<LocatedCopy>,
    /// The leader told of them, and has not said since that it is otherwise.
    is_told: bool,
    rounds: u32,
    since: Instant,
}

/// Bytes of the map of a whole chunk.
const MAP_BYTES: usize = (CHUNK_SIZE / UNIT_SIZE as u64 / 8) as usize;

impl Client {
    /// A seek in a file with unwritten bytes: they are written out and committed first.
    pub(super) fn begin_seek(&mut self, request: ClientRequest, prepared: bool) {
        let FileRequest::Seek {
            inode,
            offset,
            data,
        } = request.body
        else {
            unreachable!("dispatched by its kind");
        };
        if !prepared && self.files.get(&inode).is_some_and(File::is_dirty) {
            return self.commit_file(inode, After::Again(Box::new(request)));
        }
        match self.cached_attributes(inode) {
            Some(attributes) => {
                let size = self.seen_size(&attributes);
                self.seek(request.operation, inode, (offset, data), size);
            }
            None => {
                let credentials = request.credentials.clone();
                let request = Box::new(request);
                let then = Then::Again { request };
                self.ask(&credentials, Query::Attributes { inode }, then);
            }
        }
    }

    /// A seek in a clean file whose length is known.
    pub(super) fn seek(
        &mut self,
        operation: u64,
        inode: InodeId,
        (offset, data): (u64, bool),
        size: u64,
    ) {
        if offset >= size {
            return self.answer(operation, Err(Errno::ENXIO));
        }
        let id = self.next_seek;
        self.next_seek += 1;
        let seek = Seek {
            operation,
            inode,
            data,
            at: offset,
            size,
            valid: 0,
            copies: Vec::new(),
            is_told: false,
            rounds: 0,
            since: self.now.mono,
        };
        self.seeks.insert(id, seek);
        self.seek_on(id);
    }

    /// Goes on at `at`: the end of the file is a hole, and no data.
    fn seek_on(&mut self, id: u64) {
        let seek = &self.seeks[&id];
        if seek.at >= seek.size {
            let found = if seek.data {
                Err(Errno::ENXIO)
            } else {
                Ok(seek.size)
            };
            return self.end_seek(id, found);
        }
        let (index, _) = locate(seek.at);
        let place = (seek.inode, index);
        if let Some(located) = self.cached_location(place) {
            self.on_seek_located(id, Ok(located));
        } else {
            self.locate(place.0, index, Waiter::Seek(id));
        }
    }

    /// The pause after no copy answered is over.
    pub(super) fn on_seek_due(&mut self, id: u64) {
        if let Some(seek) = self.seeks.get(&id) {
            self.cache.forget_location((seek.inode, locate(seek.at).0));
            self.seek_on(id);
        }
    }

    pub(super) fn on_seek_located(&mut self, id: u64, result: Result<LocatedChunk, Errno>) {
        let Some(seek) = self.seeks.get_mut(&id) else {
            return;
        };
        let mut located = match result {
            Err(errno) => return self.end_seek(id, Err(errno)),
            Ok(located) => located,
        };
        let (index, within) = locate(seek.at);
        if located.chunk.is_none() || within >= located.valid {
            return self.pass_hole(id, index);
        }
        located.copies.reverse();
        seek.valid = located.valid;
        if located.stripe.is_some() {
            // Which units a chunk in parts lacks nobody knows: all of it counts as content.
            return self.look_at_map(id, &vec![u8::MAX; MAP_BYTES]);
        }
        seek.copies = located.copies;
        seek.is_told = true;
        self.ask_map(id);
    }

    /// What was told of a file's copies, or of all, is no longer so.
    pub(super) fn outdate_seeks(&mut self, inode: Option<InodeId>) {
        let seeks = self.seeks.values_mut();
        for seek in seeks.filter(|seek| inode.is_none_or(|inode| seek.inode == inode)) {
            seek.is_told = false;
        }
    }

    /// Whether a seek may ask the copies that it was told of.
    pub(super) fn may_ask_map(&self, id: u64) -> bool {
        self.seeks.get(&id).is_some_and(|seek| seek.is_told) && self.may_use_cache()
    }

    /// From here to the end of the chunk there is no content.
    fn pass_hole(&mut self, id: u64, index: u32) {
        let seek = self.seeks.get_mut(&id).expect("the caller found it");
        if seek.data {
            seek.at = start_of(index) + CHUNK_SIZE;
            self.seek_on(id);
        } else {
            let found = seek.at;
            self.end_seek(id, Ok(found));
        }
    }

    fn ask_map(&mut self, id: u64) {
        let may_ask = self.may_ask_map(id);
        let seek = self.seeks.get_mut(&id).expect("the caller found it");
        let Some(copy) = seek.copies.pop().filter(|_| may_ask) else {
            return self.rest_seek(id);
        };
        let then = ChunkThen::Map {
            seek: id,
            server: copy.server,
        };
        self.ask_chunk(&copy, Vec::new(), ChunkRequestBody::Map, Bytes::new(), then);
    }

    fn rest_seek(&mut self, id: u64) {
        let seek = self.seeks.get_mut(&id).expect("the caller found it");
        seek.rounds += 1;
        let (rounds, since) = (seek.rounds, seek.since);
        let patience = self.config.retry_for;
        if patience.is_some_and(|patience| self.now.mono.since(since) >= patience) {
            return self.end_seek(id, Err(Errno::EIO));
        }
        let at = self.now.mono + self.backoff(rounds);
        self.timers.set(Timer::Seek(id), at);
    }

    /// A copy told which units it has, or failed to.
    pub(super) fn on_map_outcome(&mut self, id: u64, _server: ServerId, outcome: ChunkOutcome) {
        if !self.seeks.contains_key(&id) {
            return;
        }
        let Ok((ChunkReplyBody::Map { present }, _)) = outcome else {
            return self.ask_map(id);
        };
        self.look_at_map(id, &present);
    }

    /// Goes on with the map of the chunk.
    fn look_at_map(&mut self, id: u64, present: &[u8]) {
        let seek = self.seeks.get_mut(&id).expect("the caller found it");
        let (index, within) = locate(seek.at);
        match find_unit(present, within, seek.valid, seek.data) {
            Some(found) => {
                let found = start_of(index) + u64::from(found);
                if found < seek.size || !seek.data {
                    let found = found.min(seek.size);
                    self.end_seek(id, Ok(found));
                } else {
                    self.end_seek(id, Err(Errno::ENXIO));
                }
            }
            None if seek.valid < u32::try_from(CHUNK_SIZE).expect("a chunk has 32-bit offsets") => {
                seek.at = start_of(index) + u64::from(seek.valid);
                self.pass_hole(id, index);
            }
            None => {
                seek.at = start_of(index) + CHUNK_SIZE;
                self.seek_on(id);
            }
        }
    }

    fn end_seek(&mut self, id: u64, result: Result<u64, Errno>) {
        let seek = self.seeks.remove(&id).expect("the caller found it");
        self.timers.cancel(Timer::Seek(id));
        self.answer(seek.operation, result.map(FileReply::Offset));
    }
}

/// The first offset from `from` on, below `valid`, whose unit is present (`data`) or not.
fn find_unit(present: &[u8], from: u32, valid: u32, data: bool) -> Option<u32> {
    let unit = u32::try_from(UNIT_SIZE).expect("a unit is small");
    let has = |number: u32| {
        let byte = present.get(number as usize / 8).copied().unwrap_or(0);
        byte & (1 << (number % 8)) != 0
    };
    (from / unit..valid.div_ceil(unit))
        .find(|&number| has(number) == data)
        .map(|number| from.max(number * unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_from_within_one_and_up_to_the_content_end() {
        let present = [0b0000_0110];
        assert_eq!(find_unit(&present, 0, 20_000, true), Some(4096));
        assert_eq!(find_unit(&present, 5000, 20_000, true), Some(5000));
        assert_eq!(find_unit(&present, 5000, 20_000, false), Some(12_288));
        assert_eq!(find_unit(&present, 12_288, 20_000, true), None);
        assert_eq!(find_unit(&present, 4096, 12_288, false), None);
    }
}
