//! Read-ahead of sequential readers: whole pieces of a file kept per handle, within
//! a budget for the mount. Dropped behind the reader, when the handle closes, when
//! the file changes, and when the cache may not be used.

use super::Client;
use super::fetch::Reader;
use super::file::{locate, start_of};
use super::read::{piece_of, within};
use super::request::Handle;
use super::write::Place;
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::limits::CHUNK_SIZE;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A piece that was or is being read ahead.
#[derive(Debug)]
struct Piece {
    length: u32,
    fetch: u64,
    /// Once it came.
    data: Option<Bytes>,
}

/// What a handle reads ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where a sequential reader would go on.
    next: u64,
    /// Reads in a row that did.
    streak: u32,
    /// By offset in the file.
    pieces: BTreeMap<u64, Piece>,
    /// When it was used last, in the mount's order of uses.
    tick: u64,
}

impl Ahead {
    /// Takes a read in: how far to read ahead of its end, at most `most` bytes.
    fn observe(&mut self, offset: u64, length: u64, most: u64) -> u64 {
        // Reads of one stream may arrive a little out of order.
        let slack = 4 * length.max(128 << 10);
        if offset.abs_diff(self.next) <= slack && self.next > 0 {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = u32::from(offset == 0);
            self.next = 0;
        }
        self.next = self.next.max(offset + length);
        match self.streak {
            0 | 1 => 0,
            streak => (length << streak.min(16)).min(most),
        }
    }
}

impl Client {
    /// A read came: drops what lies behind it and fetches what a sequential reader
    /// will want next.
    pub(super) fn read_ahead(
        &mut self,
        inode: InodeId,
        handle: Handle,
        (offset, length): (u64, u64),
        size: u64,
    ) {
        let most = self.config.limits.read_ahead_bytes;
        let Some(open) = self.handles.get_mut(&handle) else {
            return;
        };
        let distance = open.ahead.observe(offset, length, most);
        let has_pieces = !open.ahead.pieces.is_empty();
        if has_pieces && (distance == 0 || !self.may_use_cache()) {
            self.drop_ahead_of(handle);
        }
        if distance == 0 || !self.may_use_cache() {
            return;
        }
        self.drop_behind(handle, offset.saturating_sub(length.max(1 << 20)));
        self.touch_ahead(inode, handle);
        let end = size.min(offset + length + distance);
        let mut at = offset;
        while at < end {
            let (index, within) = locate(at);
            let (from, to) = piece_of(within, self.config.limits.piece_bytes);
            let stop = start_of(index) + u64::from(to);
            self.fetch_ahead(handle, (inode, index), (from, to), size);
            at = stop;
        }
    }

    fn fetch_ahead(&mut self, handle: Handle, place: Place, (from, to): (u32, u32), size: u64) {
        let at = start_of(place.1) + u64::from(from);
        let open = self.handles.get(&handle).expect("the caller found it");
        let unwritten = self
            .chunk(place)
            .is_some_and(|chunk| chunk.extents.has_unwritten(from, to));
        if open.ahead.pieces.contains_key(&at) || unwritten || at >= size {
            return;
        }
        let length = to - from;
        if !self.has_ahead_room(handle, u64::from(length)) {
            return;
        }
        let reader = Reader::Ahead { handle, at };
        let fetch = self.fetch(place, from, length, reader);
        let piece = Piece {
            length,
            fetch,
            data: None,
        };
        let open = self.handles.get_mut(&handle).expect("the caller found it");
        open.ahead.pieces.insert(at, piece);
        self.ahead_bytes += u64::from(length);
        self.start_fetch(fetch);
    }

    /// Makes room by dropping what was used least recently.
    fn has_ahead_room(&mut self, handle: Handle, length: u64) -> bool {
        let most = self.config.limits.read_cache_bytes;
        while self.ahead_bytes + length > most {
            let oldest = self.ahead_ticks.values().next().copied();
            match oldest {
                Some(oldest) if oldest != handle => self.drop_ahead_of(oldest),
                _ => return false,
            }
        }
        true
    }

    fn touch_ahead(&mut self, inode: InodeId, handle: Handle) {
        let open = self.handles.get_mut(&handle).expect("the caller found it");
        self.ahead_ticks.remove(&open.ahead.tick);
        self.ahead_tick += 1;
        open.ahead.tick = self.ahead_tick;
        self.ahead_ticks.insert(self.ahead_tick, handle);
        if let Some(file) = self.files.get_mut(&inode) {
            file.readers.insert(handle);
        }
    }

    fn drop_behind(&mut self, handle: Handle, offset: u64) {
        let open = self.handles.get_mut(&handle).expect("the caller found it");
        while let Some(first) = open.ahead.pieces.first_entry() {
            if first.key() + u64::from(first.get().length) > offset {
                return;
            }
            self.ahead_bytes -= u64::from(first.remove().length);
        }
    }

    /// What was read ahead of a range of a file is out of date.
    pub(super) fn drop_ahead(&mut self, inode: InodeId, offset: u64, length: u64) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        if file.readers.is_empty() {
            return;
        }
        let end = offset.saturating_add(length);
        for handle in file.readers.clone() {
            let Some(open) = self.handles.get_mut(&handle) else {
                continue;
            };
            let before: u64 = sum(&open.ahead);
            open.ahead
                .pieces
                .retain(|&at, piece| at >= end || at + u64::from(piece.length) <= offset);
            self.ahead_bytes -= before - sum(&open.ahead);
        }
    }

    /// What was read ahead of a chunk is out of date. So it is when what was acknowledged is to
    /// be written again: the copies lost it, and what was read of them since would be served
    /// once it is durable and kept here no more.
    pub(super) fn drop_ahead_of_chunk(&mut self, (inode, index): Place) {
        self.drop_ahead(inode, start_of(index), CHUNK_SIZE);
    }

    /// Everything that a handle read ahead goes.
    pub(super) fn drop_ahead_of(&mut self, handle: Handle) {
        let Some(open) = self.handles.get_mut(&handle) else {
            return;
        };
        self.ahead_bytes -= sum(&open.ahead);
        open.ahead.pieces.clear();
        self.ahead_ticks.remove(&open.ahead.tick);
        if let Some(file) = self.files.get_mut(&open.inode) {
            file.readers.remove(&handle);
        }
    }

    /// Everything that was read ahead goes.
    pub(super) fn drop_all_ahead(&mut self) {
        let handles: Vec<Handle> = self.ahead_ticks.values().copied().collect();
        for handle in handles {
            self.drop_ahead_of(handle);
        }
    }

    /// What was read ahead of a range within one piece of a chunk.
    pub(super) fn data_ahead(
        &self,
        handle: Handle,
        place: Place,
        (from, to): (u32, u32),
    ) -> Option<Bytes> {
        let (start, piece) = self.piece_ahead(handle, place, from)?;
        let data = piece.data.as_ref()?;
        Some(within(data, from - start, (to - from) as usize))
    }

    /// Waits for a piece that is being read ahead, if there is one.
    pub(super) fn join_ahead(
        &mut self,
        handle: Handle,
        place: Place,
        from: u32,
        reader: Reader,
    ) -> bool {
        let Some((_, piece)) = self.piece_ahead(handle, place, from) else {
            return false;
        };
        let fetch = piece.fetch;
        match self.fetches.get_mut(&fetch) {
            Some(fetch) => {
                fetch.readers.push(reader);
                true
            }
            None => false,
        }
    }

    fn piece_ahead(&self, handle: Handle, place: Place, from: u32) -> Option<(u32, &Piece)> {
        let (start, _) = piece_of(from, self.config.limits.piece_bytes);
        let at = start_of(place.1) + u64::from(start);
        let open = self.handles.get(&handle)?;
        open.ahead.pieces.get(&at).map(|piece| (start, piece))
    }

    pub(super) fn on_ahead_fetched(
        &mut self,
        handle: Handle,
        at: u64,
        fetch: u64,
        result: Result<Bytes, Errno>,
    ) {
        let Some(open) = self.handles.get_mut(&handle) else {
            return;
        };
        let Some(piece) = open.ahead.pieces.get_mut(&at) else {
            return;
        };
        if piece.fetch != fetch {
            return;
        }
        match result {
            Ok(data) => piece.data = Some(data),
            Err(_) => {
                self.ahead_bytes -= u64::from(piece.length);
                open.ahead.pieces.remove(&at);
            }
        }
    }
}

fn sum(ahead: &Ahead) -> u64 {
    ahead
        .pieces
        .values()
        .map(|piece| u64::from(piece.length))
        .sum()
}
