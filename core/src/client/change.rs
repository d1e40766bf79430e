//! Changes of names and attributes: making, linking, renaming, removing, and what
//! each answer changes in the caches. Leaves lengths to `exclusive`.

use super::Client;
use super::file::{After, File};
use super::request::{ClientRequest, FileReply, FileRequest};
use super::then::Then;
use crate::attributes::{
    AttributeChange, Attributes, Credentials, FileKind, RenameMode, TimeChange,
};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::namespace::absent_xattr;
use crate::namespace::record::Mutation;
use crate::wire::client_master::{Answer, Query};
use bytes::Bytes;

impl Client {
    /// chmod, chown, truncate, utimensat. Times are set on a committed file, so that
    /// no later commit of earlier writes moves them.
    pub(super) fn set_attributes(&mut self, request: ClientRequest, prepared: bool) {
        let FileRequest::SetAttributes { inode, change } = &request.body else {
            unreachable!("dispatched by its kind");
        };
        let (inode, change) = (*inode, change.clone());
        if change.size.is_some() {
            let credentials = request.credentials;
            return self.truncate(request.operation, credentials, inode, change, None);
        }
        let is_dirty = self.files.get(&inode).is_some_and(File::is_dirty);
        if !prepared && is_dirty && sets_times(&change) {
            return self.commit_file(inode, After::Again(Box::new(request)));
        }
        let then = Then::Changed {
            operation: request.operation,
            inode,
        };
        let mutation = Mutation::SetAttributes { inode, change };
        self.mutate(&request.credentials, mutation, then);
    }

    pub(super) fn on_changed(
        &mut self,
        operation: u64,
        inode: InodeId,
        result: Result<Answer, Errno>,
    ) {
        match result {
            Ok(Answer::Entry(attributes)) => {
                self.learn_changed(attributes);
                self.answer_attributes(operation, attributes);
            }
            other => {
                self.cache.forget_attributes(inode);
                self.answer(operation, Err(other.err().unwrap_or(Errno::EIO)));
            }
        }
    }

    /// mknod, mkdir, symlink.
    pub(super) fn make(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        (parent, name): (InodeId, Vec<u8>),
        (kind, mode, device): (FileKind, u32, u64),
        target: Vec<u8>,
    ) {
        let mutation = Mutation::Create {
            parent,
            name: name.clone(),
            kind,
            mode,
            device,
            target,
            exclusive: true,
            write: false,
        };
        let then = Then::Made {
            operation,
            parent,
            name,
        };
        self.mutate(credentials, mutation, then);
    }

    pub(super) fn on_made(
        &mut self,
        operation: u64,
        parent: InodeId,
        name: &[u8],
        result: Result<Answer, Errno>,
    ) {
        self.cache.forget_attributes(parent);
        match result {
            Ok(Answer::Created { attributes, .. } | Answer::Entry(attributes)) => {
                self.learn_entry(parent, name, attributes);
                self.answer_entry(operation, attributes);
                if attributes.kind == FileKind::Regular {
                    // The leader takes every regular file that is made for an open one.
                    self.note_closed(attributes.inode);
                }
            }
            other => {
                self.cache.forget_dentry(parent, name);
                self.answer(operation, Err(other.err().unwrap_or(Errno::EIO)));
            }
        }
    }

    pub(super) fn link(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        inode: InodeId,
        (parent, name): (InodeId, Vec<u8>),
    ) {
        let mutation = Mutation::Link {
            inode,
            parent,
            name: name.clone(),
        };
        let then = Then::Linked {
            operation,
            parent,
            name,
        };
        self.mutate(credentials, mutation, then);
    }

    /// unlink(2) or rmdir(2). The leader hears of closed files first: what nobody has
    /// open needs no orphan.
    pub(super) fn remove(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        (parent, name): (InodeId, Vec<u8>),
        directory: bool,
    ) {
        self.flush_closed();
        let then = Then::Removed {
            operation,
            parent,
            name: name.clone(),
        };
        let mutation = if directory {
            Mutation::Rmdir { parent, name }
        } else {
            Mutation::Unlink { parent, name }
        };
        self.mutate(credentials, mutation, then);
    }

    pub(super) fn on_removed(
        &mut self,
        operation: u64,
        parent: InodeId,
        name: &[u8],
        result: Result<Answer, Errno>,
    ) {
        let removed = match result {
            Ok(_) => self.cache.take_dentry(parent, name),
            Err(_) => self.cache.forget_dentry(parent, name),
        };
        self.cache.forget_attributes(parent);
        self.forget_target(removed);
        if let Some(Some(inode)) = removed {
            self.cache.end_whole(inode);
        }
        if result.is_ok() {
            let most = self.config.limits.dentries_max;
            self.cache.add_dentry(parent, name, None, most);
        }
        self.answer(operation, result.map(|_| FileReply::Done));
    }

    /// The attributes of what a name led to are out of date. When that is not known,
    /// any may be.
    fn forget_target(&mut self, target: Option<Option<InodeId>>) {
        match target {
            Some(Some(inode)) => self.cache.forget_attributes(inode),
            Some(None) => {}
            None => self.cache.forget_all_attributes(),
        }
    }

    /// rename(2). What replaces another file is made durable first, so that a crash
    /// leaves the old content or the new.
    pub(super) fn rename(&mut self, request: ClientRequest, prepared: bool) {
        let FileRequest::Rename {
            parent,
            name,
            new_parent,
            new_name,
            mode,
        } = &request.body
        else {
            unreachable!("dispatched by its kind");
        };
        let (from, to, mode) = (
            (*parent, name.clone()),
            (*new_parent, new_name.clone()),
            *mode,
        );
        if !prepared && self.may_replace(&to, mode) {
            return self.prepare_rename(request, from, to, mode);
        }
        self.flush_closed();
        let mutation = Mutation::Rename {
            parent: from.0,
            name: from.1.clone(),
            new_parent: to.0,
            new_name: to.1.clone(),
            mode,
        };
        let then = Then::Renamed {
            operation: request.operation,
            from,
            to,
            mode,
        };
        self.mutate(&request.credentials, mutation, then);
    }

    /// Something may not be durable, and the new name may be in use.
    fn may_replace(&mut self, to: &(InodeId, Vec<u8>), mode: RenameMode) -> bool {
        let is_clean = self.files.is_empty();
        if is_clean || mode == RenameMode::NoReplace {
            return false;
        }
        let is_absent = self.cache.dentry(to.0, &to.1) == Some(None) && self.may_use_cache();
        !is_absent
    }

    /// Syncs what moves over another name: the source, and both in an exchange.
    fn prepare_rename(
        &mut self,
        request: ClientRequest,
        from: (InodeId, Vec<u8>),
        to: (InodeId, Vec<u8>),
        mode: RenameMode,
    ) {
        let source = self.cache.dentry(from.0, &from.1);
        let target = match mode {
            RenameMode::Exchange => self.cache.dentry(to.0, &to.1),
            _ => Some(None),
        };
        let usable = self.may_use_cache();
        let (Some(source), Some(target), true) = (source, target, usable) else {
            return self.look_before_rename(request, from);
        };
        let moved = [source, target].into_iter().flatten();
        let unsynced = moved.filter(|&inode| self.is_unsynced(inode)).collect();
        self.sync_then_rename(request, unsynced);
    }

    /// Something of the file is not durable and still in this mount's hands. (What it
    /// gave back unsynced, the leader syncs before it renames.)
    fn is_unsynced(&self, inode: InodeId) -> bool {
        self.files.get(&inode).is_some_and(File::is_unsynced)
    }

    fn sync_then_rename(&mut self, request: ClientRequest, mut unsynced: Vec<InodeId>) {
        match unsynced.pop() {
            None => self.rename(request, true),
            Some(last) => {
                for inode in unsynced {
                    self.sync_file(inode, After::Nothing);
                }
                self.sync_file(last, After::Again(Box::new(request)));
            }
        }
    }

    /// The source is not known: it is looked up first.
    fn look_before_rename(&mut self, request: ClientRequest, from: (InodeId, Vec<u8>)) {
        let credentials = request.credentials.clone();
        let query = Query::Lookup {
            parent: from.0,
            name: from.1,
        };
        let request = Box::new(request);
        self.ask(&credentials, query, Then::Again { request });
    }

    /// The source of a rename was looked up.
    pub(super) fn on_rename_source(
        &mut self,
        request: ClientRequest,
        result: Result<Attributes, Errno>,
    ) {
        match result {
            Err(errno) => self.answer(request.operation, Err(errno)),
            Ok(attributes) => {
                let unsynced = Some(attributes.inode).filter(|&inode| self.is_unsynced(inode));
                self.sync_then_rename(request, unsynced.into_iter().collect());
            }
        }
    }

    pub(super) fn on_renamed(
        &mut self,
        operation: u64,
        from: &(InodeId, Vec<u8>),
        to: &(InodeId, Vec<u8>),
        mode: RenameMode,
        result: Result<Answer, Errno>,
    ) {
        let [source, target] = [from, to].map(|(parent, name)| {
            let inode = self.cache.dentry(*parent, name);
            self.forget_target(inode);
            self.cache.forget_attributes(*parent);
            inode
        });
        match (source, target) {
            // Two names of one object stay as they are (rename(2)).
            (Some(Some(source)), Some(target))
                if result.is_ok() && mode != RenameMode::Exchange && target != Some(source) =>
            {
                let most = self.config.limits.dentries_max;
                self.cache.add_dentry(from.0, &from.1, None, most);
                self.cache.add_dentry(to.0, &to.1, Some(source), most);
            }
            _ => {
                for (parent, name) in [from, to] {
                    self.cache.forget_dentry(*parent, name);
                }
            }
        }
        self.answer(operation, result.map(|_| FileReply::Done));
    }

    /// Answers from the cache that there is no such attribute; the kernel asks so before
    /// the first write to each new file.
    pub(super) fn get_xattr(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        (inode, name): (InodeId, Vec<u8>),
    ) {
        match absent_xattr(&name).filter(|_| self.has_no_xattrs(inode)) {
            Some(errno) => self.answer(operation, Err(errno)),
            None => {
                let query = Query::Xattr { inode, name };
                self.ask(credentials, query, Then::Bytes { operation });
            }
        }
    }

    pub(super) fn list_xattrs(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        inode: InodeId,
    ) {
        if self.has_no_xattrs(inode) {
            return self.answer(operation, Ok(FileReply::Bytes(Bytes::new())));
        }
        let query = Query::Xattrs { inode };
        self.ask(credentials, query, Then::Bytes { operation });
    }

    fn has_no_xattrs(&mut self, inode: InodeId) -> bool {
        self.cached_attributes(inode)
            .is_some_and(|known| known.no_xattrs)
    }

    /// An extended attribute was set or removed: the inode's times moved.
    pub(super) fn on_xattr_changed(
        &mut self,
        operation: u64,
        inode: InodeId,
        result: Result<Answer, Errno>,
    ) {
        self.cache.forget_attributes(inode);
        self.answer(operation, result.map(|_| FileReply::Done));
    }
}

fn sets_times(change: &AttributeChange) -> bool {
    change.atime != TimeChange::Keep || change.mtime != TimeChange::Keep
}
