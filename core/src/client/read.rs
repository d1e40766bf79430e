//! Reads of the mount: cut into parts, each from memory, from what was read ahead,
//! or fetched; with everything on top that this mount wrote and that the copies may
//! not have had when they were asked.

use super::Client;
use super::extents::Content;
use super::fetch::Reader;
use super::file::{After, ChunkWrite, Lease, Reach, segments, start_of};
use super::request::{ClientRequest, FileReply, FileRequest, Handle};
use super::then::Then;
use super::write::Place;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::{ChunkId, Epoch, InodeId};
use crate::limits::{CHUNK_SIZE, UNIT_SIZE};
use crate::marks::Mark;
use crate::wire::client_master::Query;
use bytes::Bytes;

/// Where the bytes of a part come from.
#[derive(Clone, Debug)]
enum Source {
    /// Not known yet.
    Awaited,
    /// These, and zeros behind them.
    Data(Bytes),
}

/// A part of a read that one source serves.
#[derive(Debug)]
struct Part {
    /// Where in the read.
    at: usize,
    length: usize,
    /// Where in its chunk.
    from: u32,
    source: Source,
}

/// A read under way.
#[derive(Debug)]
pub(super) struct Read {
    operation: u64,
    inode: InodeId,
    handle: Handle,
    offset: u64,
    length: usize,
    parts: Vec<Part>,
    awaited: usize,
    /// What was written and perhaps not at the copies when they were asked, and what
    /// whole parts are served of, by place in the read.
    overlay: Vec<(usize, Content)>,
    /// The leases in its range that were held when it began.
    held: Vec<(u32, Epoch)>,
}

impl Client {
    /// A read of the mount. The length of the file must be known first.
    pub(super) fn read(&mut self, request: ClientRequest) {
        let FileRequest::Read {
            inode,
            handle,
            offset,
            length,
        } = request.body
        else {
            unreachable!("dispatched by its kind");
        };
        match self.handle(handle, inode) {
            Err(errno) => return self.answer(request.operation, Err(errno)),
            Ok(open) if !open.read => {
                return self.answer(request.operation, Err(Errno::EBADF));
            }
            Ok(_) => {}
        }
        let range = (offset, u64::from(length));
        let Some(request) = self.await_commit(request, inode, range) else {
            return;
        };
        match self.cached_attributes(inode) {
            Some(attributes) => {
                let size = self.seen_size(&attributes);
                self.read_now(request.operation, inode, handle, range, size);
            }
            None => {
                let credentials = request.credentials.clone();
                let request = Box::new(request);
                let then = Then::Again { request };
                self.ask(&credentials, Query::Attributes { inode }, then);
            }
        }
    }

    /// A read whose file's attributes were asked for.
    pub(super) fn read_sized(
        &mut self,
        request: ClientRequest,
        inode: InodeId,
        handle: Handle,
        range: (u64, u64),
        size: u64,
    ) {
        // A lease may have begun to go back since.
        if let Some(request) = self.await_commit(request, inode, range) {
            self.read_now(request.operation, inode, handle, range, size);
        }
    }

    /// Has a read wait for a commit, if it must; otherwise it comes back.
    fn await_commit(
        &mut self,
        request: ClientRequest,
        inode: InodeId,
        range: (u64, u64),
    ) -> Option<ClientRequest> {
        if let Some(generation) = self.unanswered_commit(inode, range) {
            self.marks.reach(Mark::CommitAwaited);
            let again = After::Again(Box::new(request));
            self.add_goal(inode, generation, Reach::Committed, again);
            return None;
        }
        let Some(generation) = self.doubted_lease(inode, range) else {
            return Some(request);
        };
        self.marks.reach(Mark::KeptDoubted);
        let again = After::Again(Box::new(request));
        self.add_goal(inode, generation, Reach::GivenBack, again);
        None
    }

    /// Up to which generation writes must be out before a range can be read: something kept
    /// of it is part of the file, and its lease may have ended, so that others may have cut
    /// or overwritten it since. The next grant tells, and what they undid is not kept. So
    /// it is after a failure, or another link to the leader, who may have fenced the lease
    /// meanwhile; and while the leader wants it back, who fences it when that takes long.
    fn doubted_lease(&mut self, inode: InodeId, (offset, length): (u64, u64)) -> Option<u64> {
        let link = self.session.resumed();
        let file = self.files.get(&inode)?;
        let chunks = segments(offset, length);
        let chunks = chunks.filter_map(|(index, from, to)| {
            let chunk = file.chunks.get(&index)?;
            let to = to.min(chunk.committed_end);
            let kept = from < to && chunk.extents.has_acknowledged(from, to);
            (kept && chunk.is_doubted(link)).then_some(index)
        });
        let doubted: Vec<u32> = chunks.collect();
        if doubted.is_empty() {
            return None;
        }
        let unconfirmed = |index: &&u32| file.chunks[index].is_unconfirmed(link);
        let unconfirmed: Vec<u32> = doubted.iter().filter(unconfirmed).copied().collect();
        for index in unconfirmed {
            self.renew_lease((inode, index));
        }
        let file = self.files.get_mut(&inode).expect("it was there");
        let until = file.close_generation();
        let waits = !file.is_reached(until, Reach::GivenBack);
        waits.then_some(until)
    }

    /// Up to which generation a commit must be answered before a range can be read: its
    /// lease was given back meanwhile, or is with it, so that only the leader can tell what
    /// the range holds, and may not know of the commit yet.
    fn unanswered_commit(&self, inode: InodeId, (offset, length): (u64, u64)) -> Option<u64> {
        let commit = self.files.get(&inode)?.commit.as_ref()?;
        let is_gone = |index: u32, id: ChunkId| {
            let kept = self.chunk((inode, index));
            let kept = kept.filter(|chunk| chunk.lease != Lease::Ending);
            kept.and_then(ChunkWrite::chunk) != Some(id)
        };
        let is_read = |index: u32| {
            let start = start_of(index);
            start < offset + length && offset < start + CHUNK_SIZE
        };
        let gone = commit
            .chunks
            .iter()
            .any(|&(index, id, _)| is_read(index) && is_gone(index, id));
        commit.generation.filter(|_| gone)
    }

    /// A read of a file whose length is known, and of which no commit is awaited.
    fn read_now(
        &mut self,
        operation: u64,
        inode: InodeId,
        handle: Handle,
        (offset, length): (u64, u64),
        size: u64,
    ) {
        let length = length.min(size.saturating_sub(offset));
        if length == 0 {
            return self.answer(operation, Ok(FileReply::Bytes(Bytes::new())));
        }
        self.read_ahead(inode, handle, (offset, length), size);
        let id = self.next_read;
        self.next_read += 1;
        let read = Read {
            operation,
            inode,
            handle,
            offset,
            length: usize::try_from(length).expect("a request is bounded"),
            parts: Vec::new(),
            awaited: 0,
            overlay: self.placed(inode, (offset, length), Self::unwritten_in),
            held: self.held_in(inode, (offset, length)),
        };
        self.reads.insert(id, read);
        let fetches = self.plan_parts(id, handle);
        for fetch in fetches {
            self.start_fetch(fetch);
        }
        self.finish_read(id);
    }

    /// Cuts a read into parts; returns the fetches to be started.
    fn plan_parts(&mut self, id: u64, handle: Handle) -> Vec<u64> {
        let read = &self.reads[&id];
        let (inode, offset, length) = (read.inode, read.offset, read.length as u64);
        let piece = self.config.limits.piece_bytes;
        let mut fetches = Vec::new();
        for (index, from, to) in segments(offset, length) {
            let mut start = from;
            while start < to {
                let end = to.min((start / piece + 1) * piece);
                fetches.extend(self.plan_part(id, handle, (inode, index), (start, end)));
                start = end;
            }
        }
        fetches
    }

    fn plan_part(
        &mut self,
        id: u64,
        handle: Handle,
        place: Place,
        (from, to): (u32, u32),
    ) -> Option<u64> {
        let read = &self.reads[&id];
        let at = start_of(place.1) + u64::from(from) - read.offset;
        let number = read.parts.len();
        let kept = self.kept_in(place, from, to);
        let reader = Reader::Part {
            read: id,
            part: number,
        };
        let (source, fetch) = if covers(&kept, from, to) {
            let read = self.reads.get_mut(&id).expect("it is being planned");
            let place = |in_chunk: u32| in_read(at + u64::from(in_chunk - from));
            let placed = kept.into_iter();
            let placed = placed.map(|(in_chunk, content)| (place(in_chunk), content));
            read.overlay.extend(placed);
            (Source::Data(Bytes::new()), None)
        } else if let Some(data) = self.data_ahead(handle, place, (from, to)) {
            (Source::Data(data), None)
        } else if self.join_ahead(handle, place, from, reader) {
            (Source::Awaited, None)
        } else {
            let unit = u32::try_from(UNIT_SIZE).expect("a unit is small");
            let start = from / unit * unit;
            let length = to.next_multiple_of(unit) - start;
            let fetch = self.fetch(place, start, length, reader);
            (Source::Awaited, Some(fetch))
        };
        let read = self.reads.get_mut(&id).expect("it is being planned");
        if matches!(source, Source::Awaited) {
            read.awaited += 1;
        }
        read.parts.push(Part {
            at: in_read(at),
            length: (to - from) as usize,
            from,
            source,
        });
        fetch
    }

    /// A part's range was fetched, or could not be.
    pub(super) fn on_part_fetched(
        &mut self,
        id: u64,
        part: usize,
        offset: u32,
        result: Result<Bytes, Errno>,
    ) {
        let Some(read) = self.reads.get_mut(&id) else {
            return;
        };
        match result {
            Err(errno) => {
                let operation = read.operation;
                self.reads.remove(&id);
                self.answer(operation, Err(errno));
            }
            Ok(data) => {
                let part = &mut read.parts[part];
                part.source = Source::Data(within(&data, part.from - offset, part.length));
                read.awaited -= 1;
                self.finish_read(id);
            }
        }
    }

    /// Answers a read once every part is there. One whose lease has begun to go back since
    /// may have met copies that do not count yet what was written here, or no longer do:
    /// it begins anew.
    fn finish_read(&mut self, id: u64) {
        if self.reads.get(&id).is_none_or(|read| read.awaited > 0) {
            return;
        }
        let read = self.reads.remove(&id).expect("it was there");
        let held = self.held_in(read.inode, (read.offset, read.length as u64));
        if read.held.iter().any(|lease| !held.contains(lease)) {
            return self.read_again(&read);
        }
        let range = (read.offset, read.length as u64);
        let newest = self.placed(read.inode, range, Self::kept_in);
        let data = assemble(&read, &newest);
        self.answer(read.operation, Ok(FileReply::Bytes(data)));
    }

    fn read_again(&mut self, read: &Read) {
        let body = FileRequest::Read {
            inode: read.inode,
            handle: read.handle,
            offset: read.offset,
            length: u32::try_from(read.length).expect("a request is bounded"),
        };
        self.read(ClientRequest {
            operation: read.operation,
            credentials: Credentials::default(),
            body,
        });
    }

    /// The leases that are held of chunks in a range of a file.
    fn held_in(&self, inode: InodeId, (offset, length): (u64, u64)) -> Vec<(u32, Epoch)> {
        let held = |index: u32| {
            let chunk = self.chunk((inode, index))?;
            let grant = chunk.held().filter(|_| chunk.lease == Lease::Held)?;
            Some((index, grant.epoch))
        };
        let chunks = segments(offset, length);
        chunks.filter_map(|(index, ..)| held(index)).collect()
    }

    /// What is not at every copy of a chunk yet.
    fn unwritten_in(&self, place: Place, from: u32, to: u32) -> Vec<(u32, Content)> {
        let chunk = self.chunk(place);
        chunk.map_or_else(Vec::new, |chunk| chunk.extents.unwritten_slices(from, to))
    }

    /// What is kept of a chunk. Of a lease that is on its way back too: its copies may lose
    /// power before they are synced, and a read waits for the commit that goes with it.
    fn kept_in(&self, place: Place, from: u32, to: u32) -> Vec<(u32, Content)> {
        match self.chunk(place) {
            Some(chunk) => chunk.extents.slices(from, to),
            None => Vec::new(),
        }
    }

    /// Slices of every chunk in a range of a file, by place in the range.
    fn placed(
        &self,
        inode: InodeId,
        (offset, length): (u64, u64),
        slices: impl Fn(&Self, Place, u32, u32) -> Vec<(u32, Content)>,
    ) -> Vec<(usize, Content)> {
        let mut placed = Vec::new();
        for (index, from, to) in segments(offset, length) {
            for (at, content) in slices(self, (inode, index), from, to) {
                let place = start_of(index) + u64::from(at) - offset;
                placed.push((in_read(place), content));
            }
        }
        placed
    }
}

/// A place in a read.
fn in_read(at: u64) -> usize {
    usize::try_from(at).expect("a request is bounded")
}

/// Whether slices in order leave no gap in a range.
fn covers(slices: &[(u32, Content)], from: u32, to: u32) -> bool {
    let mut end = from;
    for (at, content) in slices {
        if *at != end {
            return false;
        }
        end = at + content.length();
    }
    end == to
}

/// A part of fetched data; shorter where the data ends.
pub(super) fn within(data: &Bytes, from: u32, length: usize) -> Bytes {
    let from = (from as usize).min(data.len());
    data.slice(from..(from + length).min(data.len()))
}

/// Puts the parts together, and what was written on top. One whole part is passed on
/// without a copy.
fn assemble(read: &Read, newest: &[(usize, Content)]) -> Bytes {
    let is_plain = read.overlay.is_empty() && newest.is_empty();
    if let ([part], true) = (&read.parts[..], is_plain)
        && let Source::Data(data) = &part.source
        && data.len() == read.length
    {
        return data.clone();
    }
    if let ([(0, Content::Data(data))], true) = (newest, read.parts.len() == 1)
        && data.len() == read.length
    {
        return data.clone();
    }
    let mut buffer = vec![0; read.length];
    for part in &read.parts {
        if let Source::Data(data) = &part.source {
            let length = data.len().min(part.length);
            buffer[part.at..part.at + length].copy_from_slice(&data[..length]);
        }
    }
    for (at, content) in read.overlay.iter().chain(newest) {
        let end = at + content.length() as usize;
        match content {
            Content::Data(data) => buffer[*at..end].copy_from_slice(data),
            Content::Zeros(_) => buffer[*at..end].fill(0),
        }
    }
    Bytes::from(buffer)
}

/// Where the piece that holds an offset of a chunk begins and ends.
pub(super) fn piece_of(offset: u32, piece: u32) -> (u32, u32) {
    let whole = u32::try_from(CHUNK_SIZE).expect("a chunk has 32-bit offsets");
    let start = offset / piece * piece;
    (start, (start + piece).min(whole))
}
