//! Names and attributes: answered from the cache while its lease lasts, otherwise
//! asked. Owns what the kernel is told about how long it may keep them.
//!
//! Invariant: the kernel never keeps a name or attributes longer than the cache
//! lease lasts, and attributes of a file with uncommitted writes not at all.

use super::Client;
use super::file::{After, File};
use super::request::{ClientRequest, FileReply, FileRequest};
use super::then::Then;
use crate::attributes::{Attributes, Credentials, DirectoryEntry, FileKind};
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::marks::Mark;
use crate::time::Duration;
use crate::wire::client_master::{Answer, AroundDirectory, Query};

impl Client {
    /// Whether the cache may be answered from.
    pub(super) fn may_use_cache(&self) -> bool {
        self.session.lease_left(self.now.mono) > Duration::ZERO
    }

    /// For how long the kernel may keep what it is told now.
    pub(super) fn validity(&mut self) -> Duration {
        if self.cache.is_overtaken() {
            return Duration::ZERO;
        }
        let left = self.session.lease_left(self.now.mono);
        let validity = left.min(self.config.limits.kernel_validity);
        self.cache.note_kernel(self.now.mono + validity);
        validity
    }

    /// As `validity`, for attributes: those of a file being written change without notice.
    fn validity_of(&mut self, inode: InodeId) -> Duration {
        if self.files.get(&inode).is_some_and(File::is_dirty) {
            return Duration::ZERO;
        }
        self.validity()
    }

    /// Attributes from the cache, while they may be used.
    pub(super) fn cached_attributes(&mut self, inode: InodeId) -> Option<Attributes> {
        let found = self.cache.attributes(inode).copied()?;
        if self.may_use_cache() {
            return Some(found);
        }
        self.marks.reach(Mark::CacheLapsed);
        None
    }

    /// Takes attributes from the leader in.
    pub(super) fn learn(&mut self, attributes: Attributes) {
        let most = self.config.limits.attributes_max;
        self.newest_inode = self.newest_inode.max(attributes.inode);
        self.cache.add_attributes(attributes, most);
    }

    /// Takes attributes in that a change of this mount brought about.
    pub(super) fn learn_changed(&mut self, attributes: Attributes) {
        self.cache.keep_pages(&attributes);
        self.learn(attributes);
    }

    /// The length of a file as this mount sees it: what it wrote counts at once.
    pub(super) fn seen_size(&self, attributes: &Attributes) -> u64 {
        let written = self.files.get(&attributes.inode);
        attributes
            .size
            .max(written.map_or(0, |file| file.written_to))
    }

    /// Attributes as this mount sees them.
    pub(super) fn seen(&self, attributes: Attributes) -> Attributes {
        Attributes {
            size: self.seen_size(&attributes),
            ..attributes
        }
    }

    pub(super) fn answer_attributes(&mut self, operation: u64, attributes: Attributes) {
        let validity = self.validity_of(attributes.inode);
        let attributes = self.seen(attributes);
        self.answer(operation, Ok(FileReply::Attributes(attributes, validity)));
    }

    pub(super) fn answer_entry(&mut self, operation: u64, attributes: Attributes) {
        let validity = self.validity_of(attributes.inode);
        let attributes = self.seen(attributes);
        self.answer(operation, Ok(FileReply::Entry(attributes, validity)));
    }

    /// There is no such name. What the kernel is told is remembered by itself, also where
    /// the directory is known whole: a push must find it.
    fn answer_absent(&mut self, operation: u64, parent: InodeId, name: &[u8]) {
        let most = self.config.limits.dentries_max;
        self.cache.add_dentry(parent, name, None, most);
        let validity = self.validity();
        self.answer(operation, Ok(FileReply::Absent(validity)));
    }

    /// Takes in what an answer tells of directories. It is newer than any push that came
    /// before, whatever the answer itself waited for.
    pub(super) fn learn_around(&mut self, around: Vec<AroundDirectory>) {
        for AroundDirectory { attributes, empty } in around {
            self.learn(attributes);
            if empty {
                let most = self.config.limits.attributes_max;
                self.cache.begin_whole(attributes.inode, most);
            }
        }
    }

    /// A name leads to an object.
    pub(super) fn learn_entry(&mut self, parent: InodeId, name: &[u8], attributes: Attributes) {
        let most = self.config.limits.dentries_max;
        let target = Some(attributes.inode);
        self.cache.add_dentry(parent, name, target, most);
        self.learn(attributes);
    }

    pub(super) fn lookup(
        &mut self,
        operation: u64,
        credentials: &Credentials,
        parent: InodeId,
        name: Vec<u8>,
    ) {
        match self.cached_entry(credentials, parent, &name) {
            Some(Some(attributes)) => self.answer_entry(operation, attributes),
            Some(None) => self.answer_absent(operation, parent, &name),
            None => {
                let query = Query::Lookup {
                    parent,
                    name: name.clone(),
                };
                let then = Then::Lookup {
                    operation,
                    parent,
                    name,
                };
                self.ask(credentials, query, then);
            }
        }
    }

    /// What the cache says of a name, if it may be used and the caller may search the
    /// directory.
    fn cached_entry(
        &mut self,
        credentials: &Credentials,
        parent: InodeId,
        name: &[u8],
    ) -> Option<Option<Attributes>> {
        let target = self.cache.dentry(parent, name)?;
        let directory = self.cached_attributes(parent)?;
        if !may_search(&directory, credentials) {
            return None;
        }
        match target {
            None => Some(None),
            Some(inode) => self.cached_attributes(inode).map(Some),
        }
    }

    pub(super) fn on_looked_up(
        &mut self,
        operation: u64,
        parent: InodeId,
        name: &[u8],
        result: Result<Answer, Errno>,
    ) {
        // Of a name under change the kernel keeps nothing either.
        let changing = self.cache.is_changing(parent, name);
        self.cache.set_overtaken(changing);
        match result {
            Ok(Answer::Entry(attributes)) => {
                self.learn_entry(parent, name, attributes);
                self.answer_entry(operation, attributes);
            }
            Err(Errno::ENOENT) => self.answer_absent(operation, parent, name),
            other => self.answer(operation, Err(other.err().unwrap_or(Errno::EIO))),
        }
        self.cache.set_overtaken(false);
    }

    /// stat(2). A file with uncommitted writes is committed first, so that the times
    /// told now are the ones that stay.
    pub(super) fn get_attributes(&mut self, request: ClientRequest, prepared: bool) {
        let FileRequest::GetAttributes { inode } = request.body else {
            unreachable!("dispatched by its kind");
        };
        if !prepared && self.files.get(&inode).is_some_and(File::is_dirty) {
            return self.commit_file(inode, After::Again(Box::new(request)));
        }
        let operation = request.operation;
        match self.cached_attributes(inode) {
            Some(attributes) => self.answer_attributes(operation, attributes),
            None => {
                let then = Then::Attributes { operation };
                self.ask(&request.credentials, Query::Attributes { inode }, then);
            }
        }
    }

    pub(super) fn on_attributes(&mut self, operation: u64, result: Result<Answer, Errno>) {
        match result {
            Ok(Answer::Entry(attributes)) => {
                self.learn(attributes);
                self.answer_attributes(operation, attributes);
            }
            other => self.answer(operation, Err(other.err().unwrap_or(Errno::EIO))),
        }
    }

    pub(super) fn on_listed(
        &mut self,
        operation: u64,
        inode: InodeId,
        result: Result<Answer, Errno>,
    ) {
        match result {
            Ok(Answer::Entries { entries, end }) => {
                let (entries, valid) = self.learn_entries(inode, entries);
                let reply = FileReply::Entries {
                    entries,
                    end,
                    valid,
                };
                self.answer(operation, Ok(reply));
            }
            other => self.answer(operation, Err(other.err().unwrap_or(Errno::EIO))),
        }
    }

    /// Takes a part of a directory in. The kernel may keep it only if no file in it is
    /// being written and no name under change.
    fn learn_entries(
        &mut self,
        parent: InodeId,
        mut entries: Vec<DirectoryEntry>,
    ) -> (Vec<DirectoryEntry>, Duration) {
        let mut dirty = false;
        for entry in &mut entries {
            self.learn_entry(parent, &entry.name, entry.attributes);
            let file = self.files.get(&entry.attributes.inode);
            dirty |= file.is_some_and(File::is_dirty);
            dirty |= self.cache.is_changing(parent, &entry.name);
            entry.attributes = self.seen(entry.attributes);
        }
        let valid = if dirty {
            Duration::ZERO
        } else {
            self.validity()
        };
        (entries, valid)
    }
}

/// Whether a caller may look names up in a directory (path_resolution(7)).
fn may_search(directory: &Attributes, credentials: &Credentials) -> bool {
    let bit = if credentials.uid == directory.uid {
        0o100
    } else if credentials.in_group(directory.gid) {
        0o010
    } else {
        0o001
    };
    let allowed = credentials.is_root() || directory.mode & bit != 0;
    directory.kind == FileKind::Directory && allowed
}
