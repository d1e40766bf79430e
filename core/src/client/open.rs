//! Open files: handles, opening at the leader, creating, closing. An open always
//! asks the leader; the last close is told to it in batches.

use super::Client;
use super::ahead::Ahead;
use super::file::{EndCause, File};
use super::request::{FileReply, Handle};
use super::then::{OpenFlags, Then};
use crate::attributes::{AttributeChange, Attributes, Credentials, FileKind};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::namespace::record::Mutation;
use crate::wire::client_master::{Answer, ClientToMaster, LeasedChunk, Query};
use std::collections::BTreeSet;

/// An open file of the mount.
#[derive(Debug)]
pub(super) struct OpenHandle {
    pub(super) inode: InodeId,
    pub(super) read: bool,
    pub(super) write: bool,
    /// Losses of the file that this handle was told of.
    pub(super) failures: u64,
    pub(super) ahead: Ahead,
}

impl Client {
    /// A handle of this inode.
    pub(super) fn handle(&self, handle: Handle, inode: InodeId) -> Result<&OpenHandle, Errno> {
        self.handles
            .get(&handle)
            .filter(|open| open.inode == inode)
            .ok_or(Errno::EBADF)
    }

    /// open(2) of an existing file.
    pub(super) fn open(
        &mut self,
        operation: u64,
        credentials: Credentials,
        inode: InodeId,
        flags: OpenFlags,
    ) {
        let file = self.files.entry(inode).or_default();
        file.opening += 1;
        self.closed.remove(&inode);
        let query = Query::Open {
            inode,
            read: flags.read,
            write: flags.write,
        };
        let then = Then::Opened {
            operation,
            inode,
            credentials: credentials.clone(),
            flags,
        };
        self.ask(&credentials, query, then);
    }

    pub(super) fn on_opened(
        &mut self,
        operation: u64,
        inode: InodeId,
        (credentials, flags): (Credentials, OpenFlags),
        result: Result<Answer, Errno>,
    ) {
        match result {
            Ok(Answer::Opened { attributes, first }) => {
                self.learn(attributes);
                if let Some(first) = first {
                    let most = self.config.limits.locations_max;
                    self.cache.add_location(inode, *first, most);
                }
                let handle = self.add_handle(inode, flags);
                self.end_opening(inode);
                self.finish_open(operation, credentials, handle, attributes, flags);
            }
            other => {
                self.end_opening(inode);
                self.answer(operation, Err(other.err().unwrap_or(Errno::EIO)));
            }
        }
    }

    /// An open was answered. If it failed, the leader may have noted it all the same.
    fn end_opening(&mut self, inode: InodeId) {
        let file = self.files.get_mut(&inode).expect("an open has a file");
        file.opening -= 1;
        self.note_closed(inode);
        self.tidy(inode);
    }

    /// Truncates what was opened, if asked for, and answers.
    fn finish_open(
        &mut self,
        operation: u64,
        credentials: Credentials,
        handle: Handle,
        attributes: Attributes,
        flags: OpenFlags,
    ) {
        if !flags.truncate {
            return self.answer_opened(operation, handle, attributes);
        }
        let change = AttributeChange {
            size: Some(0),
            by_handle: true,
            ..AttributeChange::default()
        };
        let inode = attributes.inode;
        self.truncate(operation, credentials, inode, change, Some(handle));
    }

    pub(super) fn answer_opened(&mut self, operation: u64, handle: Handle, attributes: Attributes) {
        let keep_cache = self.cache.has_pages(&attributes);
        let most = self.config.limits.attributes_max;
        self.cache.show_pages(&attributes, most);
        let dirty = self
            .files
            .get(&attributes.inode)
            .is_some_and(File::is_dirty);
        let valid = if dirty {
            crate::time::Duration::ZERO
        } else {
            self.validity()
        };
        let attributes = self.seen(attributes);
        let reply = FileReply::Opened {
            handle,
            attributes,
            valid,
            keep_cache,
        };
        self.answer(operation, Ok(reply));
    }

    fn add_handle(&mut self, inode: InodeId, flags: OpenFlags) -> Handle {
        let handle = self.next_handle;
        self.next_handle += 1;
        let file = self.files.entry(inode).or_default();
        self.closed.remove(&inode);
        if let Some(errno) = self.untold.remove(&inode) {
            file.failures += 1;
            file.failure = Some(errno);
        }
        file.handles += 1;
        file.writers += u32::from(flags.write);
        let open = OpenHandle {
            inode,
            read: flags.read,
            write: flags.write,
            failures: file.failures_told,
            ahead: Ahead::default(),
        };
        self.handles.insert(handle, open);
        handle
    }

    /// open(2) with O_CREAT.
    pub(super) fn create(
        &mut self,
        operation: u64,
        credentials: Credentials,
        (parent, name): (InodeId, Vec<u8>),
        (mode, exclusive): (u32, bool),
        flags: OpenFlags,
    ) {
        let mutation = Mutation::Create {
            parent,
            name: name.clone(),
            kind: FileKind::Regular,
            mode,
            device: 0,
            target: Vec::new(),
            exclusive,
            write: flags.write,
        };
        let then = Then::Created {
            operation,
            parent,
            name,
            credentials: credentials.clone(),
            flags,
        };
        self.creating.insert(operation, self.newest_inode);
        self.mutate(&credentials, mutation, then);
    }

    pub(super) fn on_created(
        &mut self,
        operation: u64,
        (parent, name): (InodeId, Vec<u8>),
        (credentials, flags): (Credentials, OpenFlags),
        result: Result<Answer, Errno>,
    ) {
        self.creating.remove(&operation);
        self.cache.forget_attributes(parent);
        match result {
            Ok(Answer::Created {
                attributes,
                existed,
                lease,
            }) => {
                self.learn_entry(parent, &name, attributes);
                if existed {
                    self.open(operation, credentials, attributes.inode, flags);
                } else {
                    let handle = self.add_handle(attributes.inode, flags);
                    self.answer_opened(operation, handle, attributes);
                }
                if let Some(lease) = lease {
                    self.take_created_lease(attributes.inode, *lease);
                }
            }
            other => {
                self.cache.forget_dentry(parent, &name);
                self.answer(operation, Err(other.err().unwrap_or(Errno::EIO)));
            }
        }
    }

    /// The lease of a new file's first chunk came along.
    fn take_created_lease(&mut self, inode: InodeId, lease: LeasedChunk) {
        let place = (inode, lease.index);
        if lease.copies.is_empty() || self.chunk(place).is_some() {
            self.refuse_grant(&lease);
        } else {
            self.accept_grant(place, lease);
        }
    }

    /// A create whose caller was told an error: nobody will use what it brought.
    pub(super) fn on_abandoned(&mut self, result: Result<Answer, Errno>) {
        if let Ok(Answer::Created {
            attributes, lease, ..
        }) = result
        {
            if let Some(lease) = lease {
                self.refuse_grant(&lease);
            }
            self.note_closed(attributes.inode);
        }
    }

    /// The last descriptor of a handle is closed.
    pub(super) fn release(&mut self, operation: u64, inode: InodeId, handle: Handle) {
        if let Err(errno) = self.handle(handle, inode) {
            return self.answer(operation, Err(errno));
        }
        self.close_handle(handle);
        self.answer(operation, Ok(FileReply::Done));
    }

    pub(super) fn close_handle(&mut self, handle: Handle) {
        self.drop_ahead_of(handle);
        let Some(open) = self.handles.remove(&handle) else {
            return;
        };
        let inode = open.inode;
        let file = self.files.get_mut(&inode).expect("a handle has a file");
        file.handles -= 1;
        file.writers -= u32::from(open.write);
        if file.writers == 0 && open.write {
            let until = file.close_generation();
            self.end_all_soon(inode, EndCause::Left, until);
            self.send_due_of(inode);
        }
        self.note_closed(inode);
        self.drive(inode);
    }

    /// An inode may have been closed for good: the leader is told soon.
    pub(super) fn note_closed(&mut self, inode: InodeId) {
        let is_open = |file: &File| file.handles + file.opening > 0;
        if !self.files.get(&inode).is_some_and(is_open) {
            self.closed.insert(inode);
            self.schedule_batch();
        }
    }

    /// Tells the leader of the inodes that nobody has open any more. One that may come
    /// with the answer to a create, since it is newer, was perhaps opened and closed by its
    /// name meanwhile: the leader counts it as open from that answer on.
    pub(super) fn flush_closed(&mut self) {
        if self.closed.is_empty() || !self.session.is_standing() {
            return;
        }
        let oldest = self.creating.values().min();
        let coming = match oldest {
            Some(newest) => self.closed.split_off(&newest.next()),
            None => BTreeSet::new(),
        };
        let closed = std::mem::replace(&mut self.closed, coming);
        if !self.closed.is_empty() {
            self.schedule_batch();
        }
        if !closed.is_empty() {
            let inodes = closed.into_iter().collect();
            self.tell_master(ClientToMaster::Closed { inodes });
        }
    }
}
