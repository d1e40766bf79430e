//! Write-back: takes writes, gathers them, sends them in pieces under leases, and
//! hears the copies. Leaves granting to `lease`, durability to `goal` and `commit`.
//!
//! Invariants: two pieces under way never overlap; the piece that drops a chunk's
//! stale end is under way alone; a byte leaves memory only once it is durable, its
//! lease was given back, or its loss was told.

use super::Client;
use super::extents::{Content, Progress, Run};
use super::file::{ChunkWrite, EndCause, File, Lease, Piece, segments, start_of};
use super::request::{ClientRequest, FileReply, FileRequest};
use super::servers::{ChunkOutcome, ChunkThen};
use super::timers::Timer;
use crate::errno::Errno;
use crate::ids::{BootId, InodeId};
use crate::limits::{FILE_SIZE_MAX, UNIT_SIZE};
use crate::marks::Mark;
use crate::wire::client_chunk::{ChunkError, ChunkErrorKind, ChunkReplyBody, ChunkRequestBody};
use crate::wire::client_master::LeasedChunk;
use bytes::Bytes;

/// From how many requests under way to chunkservers fewer of them count for more than
/// the time that one takes.
const SYNC_ALONG_FROM: usize = 3;

/// A chunk of a file by its place.
pub(super) type Place = (InodeId, u32);

impl Client {
    /// A write of the mount: taken at once while there is room.
    pub(super) fn write(&mut self, request: ClientRequest) {
        match self.check_write(&request) {
            Err(errno) => self.answer(request.operation, Err(errno)),
            Ok(0) => self.answer(request.operation, Ok(FileReply::Written(0))),
            Ok(length) => {
                let FileRequest::Write { inode, .. } = request.body else {
                    unreachable!("dispatched by its kind");
                };
                let file = self.files.get_mut(&inode).expect("a handle has a file");
                if file.exclusive.is_some() {
                    file.parked.push_back(request);
                } else if !self.blocked.is_empty() || !self.has_write_room(length) {
                    self.block_write(request);
                } else {
                    self.take_write(request);
                }
            }
        }
    }

    fn check_write(&self, request: &ClientRequest) -> Result<u64, Errno> {
        let FileRequest::Write {
            inode,
            handle,
            offset,
            data,
        } = &request.body
        else {
            unreachable!("dispatched by its kind");
        };
        let open = self.handle(*handle, *inode)?;
        if !open.write {
            return Err(Errno::EBADF);
        }
        let length = data.len() as u64;
        if offset.saturating_add(length) > FILE_SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        Ok(length)
    }

    fn has_write_room(&self, length: u64) -> bool {
        let limits = &self.config.limits;
        let unwritten = self.totals.dirty + self.totals.sent;
        let kept = self.totals.kept();
        (unwritten == 0 || unwritten + length <= limits.write_window_bytes)
            && (kept == 0 || kept + length <= limits.unsynced_bytes_max)
    }

    fn block_write(&mut self, request: ClientRequest) {
        self.marks.reach(Mark::WriteBlocked);
        if let Some(patience) = self.config.retry_for {
            self.timers
                .set_once(Timer::Blocked, self.now.mono + patience);
        }
        self.blocked.push_back((self.now.mono, request));
        self.press();
    }

    /// Takes blocked writes while there is room; otherwise makes room.
    pub(super) fn unblock_writes(&mut self) {
        while let Some((_, request)) = self.blocked.front() {
            let FileRequest::Write { inode, data, .. } = &request.body else {
                unreachable!("only writes are blocked");
            };
            let is_exclusive = self
                .files
                .get(inode)
                .is_some_and(|file| file.exclusive.is_some());
            if !is_exclusive && !self.has_write_room(data.len() as u64) {
                self.press();
                return;
            }
            let (_, request) = self.blocked.pop_front().expect("it was there");
            self.retake_write(request, is_exclusive);
        }
    }

    fn retake_write(&mut self, request: ClientRequest, is_exclusive: bool) {
        if let Err(errno) = self.check_write(&request) {
            self.answer(request.operation, Err(errno));
        } else if is_exclusive {
            self.write(request);
        } else {
            self.take_write(request);
        }
    }

    /// Blocked writes that got nowhere for as long as the mount said fail.
    pub(super) fn on_blocked_due(&mut self) {
        let Some(patience) = self.config.retry_for else {
            return;
        };
        while let Some((since, _)) = self.blocked.front() {
            if self.now.mono.since(*since) < patience {
                self.timers.set(Timer::Blocked, *since + patience);
                return;
            }
            let (_, request) = self.blocked.pop_front().expect("it was there");
            self.answer(request.operation, Err(Errno::EIO));
        }
    }

    /// Writers wait: everything dirty is sent, and what is kept gets synced.
    fn press(&mut self) {
        if std::mem::replace(&mut self.is_pressed, true) {
            return;
        }
        for inode in std::mem::take(&mut self.dirty_files) {
            if let Some(file) = self.files.get_mut(&inode) {
                file.close_generation();
                self.send_due_of(inode);
            }
        }
        if self.is_kept_full() {
            self.sync_kept();
        }
    }

    /// A write waits because too much is kept.
    pub(super) fn is_kept_full(&self) -> bool {
        let Some((_, request)) = self.blocked.front() else {
            return false;
        };
        let FileRequest::Write { data, .. } = &request.body else {
            unreachable!("only writes are blocked");
        };
        self.totals.kept() + data.len() as u64 > self.config.limits.unsynced_bytes_max
    }

    fn take_write(&mut self, request: ClientRequest) {
        let FileRequest::Write {
            inode,
            offset,
            data,
            ..
        } = request.body
        else {
            unreachable!("dispatched by its kind");
        };
        self.is_pressed = false;
        let length = data.len() as u64;
        let file = self.files.get_mut(&inode).expect("a handle has a file");
        file.written_to = file.written_to.max(offset + length);
        self.drop_ahead(inode, offset, length);
        let mut taken = 0;
        for (index, from, to) in segments(offset, length) {
            let part = (to - from) as usize;
            let content = Content::Data(data.slice(taken..taken + part));
            taken += part;
            self.overlay((inode, index), from, content);
            self.want_lease((inode, index));
            self.send_full((inode, index), from, to);
        }
        self.dirty_files.insert(inode);
        let at = self.now.mono + self.config.limits.write_delay;
        self.timers.set_once(Timer::WriteDelay(inode), at);
        let written = u32::try_from(length).expect("a request is bounded");
        self.answer(request.operation, Ok(FileReply::Written(written)));
    }

    /// Puts new content on top of a chunk; a lease on its way back is wanted again.
    pub(super) fn overlay(&mut self, place: Place, offset: u32, content: Content) {
        let now = self.now.mono;
        let file = self.files.get_mut(&place.0).expect("a write has a file");
        let generation = file.generation;
        file.chunks
            .entry(place.1)
            .or_insert_with(|| ChunkWrite::new(now));
        self.reclaim(place);
        self.edit(place, |chunk| {
            chunk.extents.overlay(offset, content, generation);
            chunk.last_write = now;
            if matches!(
                chunk.ending,
                Some((EndCause::Idle | EndCause::Closed | EndCause::Left, _))
            ) {
                chunk.ending = None;
            }
        });
    }

    /// Changes a chunk's write state and keeps the sums of the mount right.
    pub(super) fn edit<R>(
        &mut self,
        place: Place,
        change: impl FnOnce(&mut ChunkWrite) -> R,
    ) -> Option<R> {
        let file = self.files.get_mut(&place.0)?;
        let chunk = file.chunks.get_mut(&place.1)?;
        let before = chunk.extents.totals();
        let result = change(chunk);
        let after = chunk.extents.totals();
        self.totals.replace(before, after);
        Some(result)
    }

    pub(super) fn chunk(&self, place: Place) -> Option<&ChunkWrite> {
        self.files.get(&place.0)?.chunks.get(&place.1)
    }

    /// Written bytes waited long enough for neighbours.
    pub(super) fn on_write_delay_due(&mut self, inode: InodeId) {
        if let Some(file) = self.files.get_mut(&inode) {
            file.close_generation();
            self.send_due_of(inode);
        }
    }

    /// Sends whatever is due in every chunk of a file.
    pub(super) fn send_due_of(&mut self, inode: InodeId) {
        let Some(file) = self.files.get(&inode) else {
            return;
        };
        let dirty = |chunk: &ChunkWrite| chunk.extents.is_dirty();
        let indices: Vec<u32> = file
            .chunks
            .iter()
            .filter(|(_, chunk)| dirty(chunk))
            .map(|(&index, _)| index)
            .collect();
        for index in indices {
            self.want_lease((inode, index));
            self.send_due((inode, index));
        }
    }

    fn may_send(&self, place: Place) -> bool {
        let Some(file) = self.files.get(&place.0) else {
            return false;
        };
        let dropping = |chunk: &ChunkWrite| chunk.pieces.values().any(|p| p.drop_from.is_some());
        file.sends_allowed()
            && file
                .chunks
                .get(&place.1)
                .is_some_and(|chunk| chunk.lease == Lease::Held && !dropping(chunk))
    }

    /// Sends the pieces that a write made full.
    fn send_full(&mut self, place: Place, from: u32, to: u32) {
        let piece = self.config.limits.piece_bytes;
        let mut border = (from / piece + 1) * piece;
        while border <= to {
            if !self.may_send(place) {
                return;
            }
            let chunk = self.chunk(place).expect("it may be sent");
            let recalled = matches!(chunk.ending, Some((EndCause::Recalled, _)));
            let first = chunk.extents.first_dirty(border - piece, border);
            if let Some(first) = first
                && !recalled
                && chunk.extents.dirty_end(first, border) == border
            {
                self.send_run(place, first, border);
            }
            border += piece;
        }
    }

    /// Sends every dirty byte that is due, in pieces cut at piece borders.
    pub(super) fn send_due(&mut self, place: Place) {
        if !self.may_send(place) {
            return;
        }
        let file = &self.files[&place.0];
        let chunk = &file.chunks[&place.1];
        let due = match chunk.ending {
            Some((EndCause::Recalled, until)) => (until + 1).min(file.due),
            _ => file.due,
        };
        let starts: Vec<u32> = chunk.extents.due_starts(0, due).collect();
        self.edit(place, |chunk| chunk.is_blocked = false);
        let piece = self.config.limits.piece_bytes;
        let mut sent_to = 0;
        for start in starts {
            let mut at = start.max(sent_to);
            let chunk = self.chunk(place).expect("it is being sent");
            if chunk.extents.first_dirty(at, at + 1) != Some(at) {
                continue;
            }
            loop {
                let border = (at / piece + 1) * piece;
                let chunk = self.chunk(place).expect("it is being sent");
                let end = chunk.extents.dirty_end(at, border);
                self.send_run(place, at, end);
                sent_to = end;
                let chunk = self.chunk(place).expect("it is being sent");
                let more = chunk.extents.first_dirty(end, end + 1) == Some(end);
                if !more || end != border || !self.may_send(place) {
                    break;
                }
                at = end;
            }
            if !self.may_send(place) {
                return;
            }
        }
    }

    /// Sends one run as a piece, unless an overlapping piece is under way: then it
    /// waits for that one.
    fn send_run(&mut self, place: Place, start: u32, end: u32) {
        let file = &self.files[&place.0];
        let sent_in = file.generation;
        let chunk = &file.chunks[&place.1];
        let along = file.sync_goal().filter(|_| self.syncs_along(chunk));
        if chunk.overlapping(start, end).is_some() {
            self.edit(place, |chunk| chunk.is_blocked = true);
            return;
        }
        let run = self
            .edit(place, |chunk| chunk.extents.take(start, end))
            .expect("it is being sent");
        let Some(run) = self.clip_zeros(place, run) else {
            return;
        };
        self.edit(place, |chunk| add_piece(chunk, run, along, sent_in));
        self.transmit_piece(place, start);
    }

    /// A write that syncs along costs a request less, but its commit has to wait for the
    /// copies' disks: that is better when many are under way. A sync that follows needs a
    /// copy that exists.
    fn syncs_along(&self, chunk: &ChunkWrite) -> bool {
        !chunk.is_acknowledged || self.servers.under_way() >= SYNC_ALONG_FROM
    }

    /// What lies behind the chunk's content needs no zeroing: it reads as zeros, and
    /// the next write drops it. Such a run is done at once.
    fn clip_zeros(&mut self, place: Place, run: Run) -> Option<Run> {
        let Content::Zeros(length) = run.content else {
            return Some(run);
        };
        let chunk = self.chunk(place).expect("it is being sent");
        let content_end = chunk.drop_from.unwrap_or(u32::MAX);
        let end = run.offset + length;
        if end <= content_end {
            return Some(run);
        }
        let keep = content_end.max(run.offset);
        self.edit(place, |chunk| chunk.extents.cut(keep, end));
        (keep > run.offset).then_some(Run {
            content: Content::Zeros(keep - run.offset),
            ..run
        })
    }

    /// Sends a piece, for the first time or again after a busy answer.
    pub(super) fn transmit_piece(&mut self, place: Place, start: u32) {
        let piece = self.chunk(place).and_then(|one| one.pieces.get(&start));
        let syncs = match piece {
            Some(piece) if piece.sync => self.edit(place, ChunkWrite::count_sync),
            _ => Some(0),
        };
        let (Some(chunk), Some(syncs)) = (self.chunk(place), syncs) else {
            return;
        };
        let (Some(piece), Some(grant)) = (chunk.pieces.get(&start), chunk.held()) else {
            return;
        };
        let (body, data) = piece_request(start, piece);
        let (head, chain) = split_chain(grant);
        let then = ChunkThen::Piece {
            inode: place.0,
            index: place.1,
            start,
            tenure: chunk.tenure,
        };
        self.ask_counting(&head, chain, (body, syncs), data, then);
    }

    /// The copies answered a piece, or the link broke.
    pub(super) fn on_piece_outcome(
        &mut self,
        place: Place,
        start: u32,
        tenure: u64,
        outcome: ChunkOutcome,
    ) {
        let Some(chunk) = self.chunk(place) else {
            return;
        };
        if chunk.tenure != tenure || !chunk.pieces.contains_key(&start) {
            return;
        }
        match outcome {
            Ok((ChunkReplyBody::Done { boots }, _)) => {
                let grant = chunk.grant.as_ref().expect("a tenure has a grant");
                match stranger(grant, &boots) {
                    None => self.on_piece_written(place, start),
                    Some(error) => self.fail_chunk(place, error),
                }
            }
            Ok(_) => self.fail_chunk(place, nonsense(chunk)),
            Err(error) if error.kind == ChunkErrorKind::Busy => self.rest_piece(place, start),
            Err(error) => self.fail_chunk(place, error),
        }
        self.drive(place.0);
    }

    fn rest_piece(&mut self, place: Place, start: u32) {
        self.marks.reach(Mark::WritePutOff);
        let attempts = self
            .edit(place, |chunk| {
                let piece = chunk.pieces.get_mut(&start).expect("the caller found it");
                piece.attempts += 1;
                // It is sent again behind the sync, if one is under way.
                piece.followed = false;
                piece.attempts
            })
            .expect("the caller found it");
        let at = self.now.mono + self.backoff(attempts);
        self.timers.set(Timer::Piece(place.0, place.1, start), at);
    }

    /// Every copy has a piece.
    fn on_piece_written(&mut self, place: Place, start: u32) {
        let (piece, unblocked) = self
            .edit(place, |chunk| {
                let piece = chunk.pieces.remove(&start).expect("the caller found it");
                finish_piece(chunk, start, &piece);
                chunk.has_strayed &= piece.drop_from.is_none();
                let unblocked = chunk.is_blocked || piece.drop_from.is_some();
                (piece, unblocked)
            })
            .expect("the caller found it");
        let file = self.files.get_mut(&place.0).expect("the caller found it");
        if matches!(piece.content, Content::Data(_)) {
            // An overwrite changes no length: one told later may be cut by then.
            if !piece.overwrites {
                let end = start_of(place.1) + u64::from(start + piece.content.length());
                file.acknowledged_to = file.acknowledged_to.max(end);
            }
            file.is_changed = true;
            note_uncommitted(file, place.1, piece.generation);
            let at = self.now.mono + self.config.limits.commit_delay;
            self.timers.set_once(Timer::CommitDelay(place.0), at);
        }
        self.watch_idle(place);
        if !piece.sync && !piece.followed {
            self.note_unsynced(place);
        }
        if unblocked {
            self.send_due(place);
            self.send_rest(place);
        }
    }

    /// Full pieces that waited for the first write under the lease.
    fn send_rest(&mut self, place: Place) {
        let piece = self.config.limits.piece_bytes;
        while self.may_send(place) {
            let chunk = self.chunk(place).expect("it may be sent");
            let Some((first, border)) = next_full(chunk, piece) else {
                return;
            };
            self.send_run(place, first, border);
        }
    }

    /// What a lease that was just granted allows: everything due, and full pieces.
    pub(super) fn send_granted(&mut self, place: Place) {
        self.send_due(place);
        self.send_rest(place);
    }
}

/// The first dirty run that fills a piece to its border and overlaps nothing under way.
fn next_full(chunk: &ChunkWrite, piece: u32) -> Option<(u32, u32)> {
    if matches!(chunk.ending, Some((EndCause::Recalled, _))) {
        return None;
    }
    let mut at = 0;
    while let Some(first) = chunk.extents.first_dirty(at, u32::MAX) {
        let border = (first / piece + 1) * piece;
        let end = chunk.extents.dirty_end(first, border);
        if end == border && chunk.overlapping(first, border).is_none() {
            return Some((first, border));
        }
        at = end;
    }
    None
}

/// Counts a write, or the first sync of a lease, that the next commit must tell of.
pub(super) fn note_uncommitted(file: &mut File, index: u32, generation: u64) {
    let oldest = file.uncommitted.unwrap_or(generation);
    file.uncommitted = Some(oldest.min(generation));
    if let Some(chunk) = file.chunks.get_mut(&index) {
        chunk.is_uncommitted = true;
    }
}

/// Registers a run as a piece under way. It syncs along when it is all that somebody
/// waits to see durable, up to the generation `along`, and changes no length; otherwise
/// the sync goes beside the commit.
fn add_piece(chunk: &mut ChunkWrite, run: Run, along: Option<u64>, sent_in: u64) {
    let end = run.offset + run.content.length();
    let is_data = matches!(run.content, Content::Data(_));
    let overwrites = is_data && end <= chunk.committed_end && chunk.drop_from.is_none();
    let alone = chunk.pieces.is_empty() && !chunk.extents.is_dirty() && chunk.syncing.is_none();
    let sync = overwrites && alone && along.is_some_and(|goal| goal >= run.generation);
    if sync {
        chunk.begin_sync();
    }
    let piece = Piece {
        content: run.content,
        generation: run.generation,
        sync,
        followed: false,
        drop_from: chunk.drop_from.filter(|_| is_data),
        overwrites,
        sent_in,
        attempts: 0,
    };
    chunk.is_written = true;
    chunk.pieces.insert(run.offset, piece);
}

/// What an acknowledged piece changes in its chunk.
fn finish_piece(chunk: &mut ChunkWrite, start: u32, piece: &Piece) {
    let end = start + piece.content.length();
    chunk.is_acknowledged = true;
    chunk.vouch(piece.sent_in);
    chunk.end_failure();
    if piece.drop_from.is_some() {
        chunk.drop_from = None;
    }
    if matches!(piece.content, Content::Data(_)) {
        chunk.written_end = chunk.written_end.max(end);
    }
    if piece.sync {
        chunk
            .extents
            .advance(start, end, Progress::Sent, Progress::Syncing);
        chunk.on_synced();
    } else if let Some(sync) = chunk.syncing.as_mut().filter(|_| piece.followed) {
        let oldest = sync.oldest.unwrap_or(piece.generation);
        sync.oldest = Some(oldest.min(piece.generation));
        chunk.is_synced = false;
        chunk
            .extents
            .advance(start, end, Progress::Sent, Progress::Syncing);
    } else {
        chunk
            .extents
            .advance(start, end, Progress::Sent, Progress::Written);
        let oldest = chunk.acknowledged.unwrap_or(piece.generation);
        chunk.acknowledged = Some(oldest.min(piece.generation));
        chunk.is_synced = false;
    }
}

fn piece_request(start: u32, piece: &Piece) -> (ChunkRequestBody, Bytes) {
    match &piece.content {
        Content::Data(data) => {
            let body = ChunkRequestBody::Write {
                offset: start,
                checksums: checksums(start, data),
                drop_from: piece.drop_from,
                sync: piece.sync,
            };
            (body, data.clone())
        }
        Content::Zeros(length) => {
            let body = ChunkRequestBody::Zero {
                offset: start,
                length: *length,
            };
            (body, Bytes::new())
        }
    }
}

/// CRC-32 of each part of the data, cut at the unit borders of the chunk.
pub(super) fn checksums(offset: u32, data: &Bytes) -> Vec<u32> {
    let first = UNIT_SIZE - offset as usize % UNIT_SIZE;
    let (head, rest) = data.split_at(first.min(data.len()));
    std::iter::once(head)
        .filter(|head| !head.is_empty())
        .chain(rest.chunks(UNIT_SIZE))
        .map(crc32fast::hash)
        .collect()
}

/// The first copy, and the rest of the chain.
pub(super) fn split_chain(
    grant: &LeasedChunk,
) -> (
    crate::wire::client_master::LocatedCopy,
    Vec<crate::wire::client_master::LocatedCopy>,
) {
    let (head, chain) = grant.copies.split_first().expect("a grant names copies");
    (head.clone(), chain.to_vec())
}

/// A copy that answered in another life than the lease names: what it acknowledged
/// before is in doubt.
pub(super) fn stranger(grant: &LeasedChunk, boots: &[BootId]) -> Option<ChunkError> {
    let wrong = grant
        .copies
        .iter()
        .enumerate()
        .find(|(place, copy)| boots.get(*place) != Some(&copy.boot));
    wrong.map(|(_, copy)| ChunkError {
        server: copy.server,
        kind: ChunkErrorKind::NotFound,
    })
}

/// The error of a head copy that answers what was not asked.
pub(super) fn nonsense(chunk: &ChunkWrite) -> ChunkError {
    let grant = chunk.grant.as_ref().expect("a tenure has a grant");
    ChunkError {
        server: grant.copies[0].server,
        kind: ChunkErrorKind::Invalid,
    }
}
