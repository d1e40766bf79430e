//! Truncation and punching: operations that no write of the same mount may overtake.
//! Owns their steps and what they cut from the local state.
//!
//! Invariant: while the leader is asked, nothing of the file is under way, so that
//! a `valid` that it lowers is not raised again over stale bytes.

use super::Client;
use super::extents::Content;
use super::file::{After, ChunkWrite, Exclusive, Step, segments, start_of};
use super::locate::Waiter;
use super::request::{FileReply, Handle};
use super::then::Then;
use super::write::Place;
use crate::attributes::{AttributeChange, Credentials, FallocateMode, TimeChange};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::limits::{CHUNK_SIZE, FILE_SIZE_MAX};
use crate::namespace::record::Mutation;
use crate::wire::client_master::{Answer, LocatedChunk};

impl Client {
    /// Sets a file's length, among other things, holding the file alone.
    pub(super) fn truncate(
        &mut self,
        operation: u64,
        credentials: Credentials,
        inode: InodeId,
        change: AttributeChange,
        opened: Option<Handle>,
    ) {
        let what = Exclusive::Truncate {
            operation,
            credentials,
            change,
            opened,
        };
        self.begin_exclusive(inode, what);
    }

    /// fallocate(2). Making holes holds the file alone; promising space does not.
    pub(super) fn fallocate(
        &mut self,
        operation: u64,
        credentials: Credentials,
        (inode, handle): (InodeId, Handle),
        mode: FallocateMode,
        (offset, length): (u64, u64),
    ) {
        if let Err(errno) = self.check_fallocate(inode, handle, offset, length) {
            return self.answer(operation, Err(errno));
        }
        if matches!(mode, FallocateMode::Extend | FallocateMode::Keep) {
            let mutation = Mutation::Fallocate {
                inode,
                mode,
                offset,
                length,
            };
            let then = Then::Allocated {
                inode,
                operation: Some(operation),
                offset,
                length,
                alone: false,
            };
            return self.mutate(&credentials, mutation, then);
        }
        let what = Exclusive::Fallocate {
            operation,
            credentials,
            mode,
            offset,
            length,
            borders: Vec::new(),
        };
        self.begin_exclusive(inode, what);
    }

    fn check_fallocate(
        &self,
        inode: InodeId,
        handle: Handle,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        if !self.handle(handle, inode)?.write {
            return Err(Errno::EBADF);
        }
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        if offset.saturating_add(length) > FILE_SIZE_MAX {
            return Err(Errno::EFBIG);
        }
        Ok(())
    }

    fn begin_exclusive(&mut self, inode: InodeId, what: Exclusive) {
        let file = self.files.entry(inode).or_default();
        if file.exclusive.is_some() {
            file.exclusives.push_back(what);
        } else {
            self.start_exclusive(inode, what);
        }
    }

    fn start_exclusive(&mut self, inode: InodeId, what: Exclusive) {
        let drains = match &what {
            Exclusive::Truncate { change, .. } => {
                change.atime != TimeChange::Keep || change.mtime != TimeChange::Keep
            }
            Exclusive::Fallocate { .. } => true,
        };
        let file = self.files.get_mut(&inode).expect("the caller made it");
        if drains {
            file.exclusive = Some((what, Step::Draining));
            self.commit_file(inode, After::Exclusive);
        } else {
            file.exclusive = Some((what, Step::Quieting));
            self.drive(inode);
        }
    }

    fn set_step(&mut self, inode: InodeId, next: Step) {
        let file = self.files.get_mut(&inode).expect("it is held");
        let (_, step) = file.exclusive.as_mut().expect("it is held");
        *step = next;
    }

    /// What was written before is committed, or the borders are zeroed.
    pub(super) fn on_exclusive_goal(&mut self, inode: InodeId, result: Result<(), Errno>) {
        let file = self.files.get_mut(&inode).expect("it is held");
        if let Err(errno) = result {
            return self.fail_exclusive(inode, errno);
        }
        match file.exclusive.as_mut().expect("it is held") {
            (
                Exclusive::Fallocate {
                    offset,
                    length,
                    borders,
                    ..
                },
                step @ Step::Draining,
            ) => {
                *borders = borders_of(*offset, *length);
                *step = Step::Locating;
                self.locate_border(inode);
            }
            (_, step) => {
                *step = Step::Quieting;
                self.drive(inode);
            }
        }
    }

    /// Looks the next border up, or goes on when all are.
    fn locate_border(&mut self, inode: InodeId) {
        let file = self.files.get_mut(&inode).expect("it is held");
        let Some((Exclusive::Fallocate { borders, .. }, Step::Locating)) = &file.exclusive else {
            return;
        };
        let Some(&(index, from, to)) = borders.last() else {
            self.set_step(inode, Step::Zeroing);
            self.commit_file(inode, After::Exclusive);
            return;
        };
        let chunk = file.chunks.get(&index);
        if chunk.is_some_and(|chunk| chunk.grant.is_some()) {
            self.zero_border((inode, index), from, to);
        } else {
            self.locate(inode, index, Waiter::Exclusive(inode));
        }
    }

    /// Where a border's chunk is, for a fallocate.
    pub(super) fn on_border_located(
        &mut self,
        inode: InodeId,
        result: Result<LocatedChunk, Errno>,
    ) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        let Some((Exclusive::Fallocate { borders, .. }, Step::Locating)) = &file.exclusive else {
            return;
        };
        let Some(&(index, from, to)) = borders.last() else {
            return;
        };
        match result {
            Err(errno) => self.fail_exclusive(inode, errno),
            Ok(located) if located.chunk.is_some() => {
                self.zero_border((inode, index), from, to);
            }
            Ok(_) => self.pass_border(inode),
        }
    }

    /// Zeroes a part of a chunk under its lease, which tells where its content ends: a
    /// writer that it is recalled from may have more than the master knows of. Where the
    /// part reaches to that end the master lowers `valid` besides.
    fn zero_border(&mut self, place: Place, from: u32, to: u32) {
        self.drop_ahead_of_chunk(place);
        self.overlay(place, from, Content::Zeros(to - from));
        self.pass_border(place.0);
    }

    /// Goes on to the next border.
    fn pass_border(&mut self, inode: InodeId) {
        let file = self.files.get_mut(&inode).expect("it is held");
        if let Some((Exclusive::Fallocate { borders, .. }, _)) = &mut file.exclusive {
            borders.pop();
        }
        self.locate_border(inode);
    }

    /// Asks the leader once nothing of the file is under way.
    pub(super) fn drive_exclusive(&mut self, inode: InodeId) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        let quiet = file.is_quiet();
        let Some((what, step @ Step::Quieting)) = &mut file.exclusive else {
            return;
        };
        if !quiet {
            return;
        }
        *step = Step::Asked;
        let (credentials, mutation, then) = exclusive_call(inode, what);
        self.mutate(&credentials, mutation, then);
    }

    /// The leader's answer to a truncation.
    pub(super) fn on_truncated(
        &mut self,
        inode: InodeId,
        operation: Option<u64>,
        (change, opened): (AttributeChange, Option<Handle>),
        result: Result<Answer, Errno>,
    ) {
        match result {
            Ok(Answer::Entry(attributes)) => {
                self.cut_file(inode, change.size.expect("a truncation has a size"));
                self.learn_changed(attributes);
                match (operation, opened) {
                    (None, None) => {}
                    (None, Some(handle)) => self.close_handle(handle),
                    (Some(operation), None) => self.answer_attributes(operation, attributes),
                    (Some(operation), Some(handle)) => {
                        self.answer_opened(operation, handle, attributes);
                    }
                }
            }
            other => {
                let errno = other.err().unwrap_or(Errno::EIO);
                if let Some(handle) = opened {
                    self.close_handle(handle);
                }
                if let Some(operation) = operation {
                    self.answer(operation, Err(errno));
                }
            }
        }
        self.end_exclusive(inode);
    }

    /// The leader's answer to a fallocate.
    pub(super) fn on_allocated(
        &mut self,
        inode: InodeId,
        operation: Option<u64>,
        (offset, length): (u64, u64),
        alone: bool,
        result: Result<Answer, Errno>,
    ) {
        let result = match result {
            Ok(Answer::Entry(attributes)) => {
                if alone {
                    self.punch_file(inode, offset, length);
                }
                self.learn_changed(attributes);
                Ok(FileReply::Done)
            }
            other => Err(other.err().unwrap_or(Errno::EIO)),
        };
        if let Some(operation) = operation {
            self.answer(operation, result);
        }
        if alone {
            self.end_exclusive(inode);
        }
    }

    /// Drops what a truncation cut: chunks behind the end went with their leases.
    fn cut_file(&mut self, inode: InodeId, size: u64) {
        self.drop_ahead(inode, 0, u64::MAX);
        self.drop_locations(inode);
        let file = self.files.get_mut(&inode).expect("it is held");
        file.written_to = file.written_to.min(size);
        file.acknowledged_to = file.acknowledged_to.min(size);
        let indices: Vec<u32> = file.chunks.keys().copied().collect();
        for index in indices {
            let start = start_of(index);
            if start >= size {
                self.return_chunk((inode, index));
            } else if size - start < CHUNK_SIZE {
                let within = u32::try_from(size - start).expect("within a chunk");
                self.edit((inode, index), |chunk| cut_chunk(chunk, within));
                self.abandon_lease((inode, index));
            }
        }
    }

    /// Drops what a punch removed: whole chunks went, tails were cut.
    fn punch_file(&mut self, inode: InodeId, offset: u64, length: u64) {
        self.drop_ahead(inode, offset, length);
        self.drop_locations(inode);
        let whole = u32::try_from(CHUNK_SIZE).expect("a chunk has 32-bit offsets");
        let file = &self.files[&inode];
        let mut punched = Vec::new();
        for (index, from, to) in segments(offset, length) {
            if file.chunks.range(index..).next().is_none() {
                break;
            }
            punched.push((index, from, to));
        }
        for (index, from, to) in punched {
            if from == 0 && to == whole {
                self.remove_chunk((inode, index));
                continue;
            }
            self.edit((inode, index), |chunk| {
                if chunk.grant.is_some() && to >= chunk.written_end {
                    cut_chunk(chunk, from);
                }
            });
        }
    }

    /// A chunk behind the end of the file: it went with its lease, unless the leader
    /// did not know of content that far. Then it goes with the lease now.
    fn return_chunk(&mut self, place: Place) {
        let grant = self.chunk(place).and_then(|chunk| chunk.grant.clone());
        self.remove_chunk(place);
        if let Some(grant) = grant {
            self.refuse_grant(&grant);
        }
    }

    fn fail_exclusive(&mut self, inode: InodeId, errno: Errno) {
        let file = self.files.get_mut(&inode).expect("it is held");
        let (what, _) = file.exclusive.as_ref().expect("it is held");
        let (operation, opened) = match what {
            Exclusive::Truncate {
                operation, opened, ..
            } => (*operation, *opened),
            Exclusive::Fallocate { operation, .. } => (*operation, None),
        };
        if let Some(handle) = opened {
            self.close_handle(handle);
        }
        self.answer(operation, Err(errno));
        self.end_exclusive(inode);
    }

    /// Lets the next one, or the writes that waited, go on.
    fn end_exclusive(&mut self, inode: InodeId) {
        let file = self.files.get_mut(&inode).expect("it is held");
        file.exclusive = None;
        if let Some(next) = file.exclusives.pop_front() {
            self.start_exclusive(inode, next);
            return;
        }
        for request in std::mem::take(&mut file.parked) {
            self.write(request);
        }
        self.send_due_of(inode);
        self.drive(inode);
    }
}

/// Parts of chunks that a range covers without covering the chunk.
fn borders_of(offset: u64, length: u64) -> Vec<(u32, u32, u32)> {
    let whole = u32::try_from(CHUNK_SIZE).expect("a chunk has 32-bit offsets");
    let (first, _) = super::file::locate(offset);
    let (last, _) = super::file::locate(offset + length - 1);
    let mut borders = Vec::new();
    for index in [first, last] {
        let start = start_of(index);
        let from = u32::try_from(offset.max(start) - start).expect("within a chunk");
        let end = (offset + length).min(start + CHUNK_SIZE);
        let to = u32::try_from(end - start).expect("within a chunk");
        let border = (index, from, to);
        if (from, to) != (0, whole) && !borders.contains(&border) {
            borders.push(border);
        }
    }
    borders
}

/// What the leader is asked for an exclusive operation.
fn exclusive_call(inode: InodeId, what: &Exclusive) -> (Credentials, Mutation, Then) {
    match what {
        Exclusive::Truncate {
            operation,
            credentials,
            change,
            opened,
        } => {
            let mutation = Mutation::SetAttributes {
                inode,
                change: change.clone(),
            };
            let then = Then::Truncated {
                inode,
                operation: Some(*operation),
                change: change.clone(),
                opened: *opened,
            };
            (credentials.clone(), mutation, then)
        }
        Exclusive::Fallocate {
            operation,
            credentials,
            mode,
            offset,
            length,
            ..
        } => {
            let mutation = Mutation::Fallocate {
                inode,
                mode: *mode,
                offset: *offset,
                length: *length,
            };
            let then = Then::Allocated {
                inode,
                operation: Some(*operation),
                offset: *offset,
                length: *length,
                alone: true,
            };
            (credentials.clone(), mutation, then)
        }
    }
}

/// Content from `within` on is gone: the next write drops it at the copies first.
fn cut_chunk(chunk: &mut ChunkWrite, within: u32) {
    chunk.extents.cut(within, u32::MAX);
    chunk.has_strayed |= chunk.is_resent;
    chunk.written_end = chunk.written_end.min(within);
    chunk.committed_end = chunk.committed_end.min(within);
    if chunk.grant.is_some() {
        let before = chunk.drop_from.unwrap_or(within);
        chunk.drop_from = Some(before.min(within));
    }
}
