//! The reference for names and attributes: a plain file system in maps, fed with
//! the records of the replicated log, which witnesses the order in which requests
//! took effect.
//!
//! Written from POSIX and the records' own words, not from the namespace that it
//! judges. It knows the superuser only. What depends on chunks (whether a lease
//! is given, whether a commit of written bytes is refused) it takes from the
//! answer that was given; where none was, the file's length is unknown until
//! something sets it.

use antler_core::attributes::{
    AttributeChange, Attributes, FallocateMode, FileKind, RenameMode, TimeChange, XattrMode,
};
use antler_core::errno::Errno;
use antler_core::glob;
use antler_core::ids::{InodeId, RequestId, SessionId};
use antler_core::limits::{NAME_MAX, XATTRS_MAX};
use antler_core::namespace::record::{
    ClassChange, ClassPattern, ClientRecord, Mutation, Record, RecordBody,
};
use antler_core::time::Timestamp;
use antler_core::version::FeatureLevel;
use std::collections::{BTreeMap, BTreeSet};

/// An object of the reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// As stat(2) tells them, but for what the reference does not know.
    pub kind: FileKind,
    /// Permission bits.
    pub mode: u32,
    /// Hard links; of a directory 2 plus its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes, if it is known; a directory's is not asked.
    pub size: Option<u64>,
    /// Copies that it asks for; 0 in a class that is not built in.
    pub copies: u8,
    /// The class that is not built in, by its number here.
    class: Option<u64>,
    /// Of a directory: what files get that are made under such names.
    patterns: Vec<(Vec<u8>, Wanted)>,
    /// Last access, change of content, change of the inode; unknown with the size.
    pub times: Option<[Timestamp; 3]>,
    /// Where a symlink leads.
    pub target: Vec<u8>,
    entries: BTreeMap<Vec<u8>, InodeId>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    parent: InodeId,
}

impl Object {
    /// What an object is to be kept as that is made in this directory under a name.
    fn wanted_for(&self, name: &[u8], kind: FileKind) -> Wanted {
        let mut patterns = self.patterns.iter().filter(|_| kind == FileKind::Regular);
        let found = patterns.find(|(pattern, _)| glob::matches(pattern, name));
        found.map_or((self.copies, self.class), |(_, wanted)| *wanted)
    }

    /// A copy that has no names in it.
    #[must_use]
    pub fn without_entries(&self) -> Self {
        Self {
            target: self.target.clone(),
            entries: BTreeMap::new(),
            xattrs: self.xattrs.clone(),
            patterns: self.patterns.clone(),
            ..*self
        }
    }

    /// The value of an extended attribute.
    #[must_use]
    pub fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        self.xattrs.get(name).map(Vec::as_slice)
    }

    fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    fn changed(&mut self, now: Timestamp) {
        if let Some(times) = &mut self.times {
            times[2] = now;
        }
    }

    fn modified(&mut self, now: Timestamp) {
        if let Some(times) = &mut self.times {
            (times[1], times[2]) = (now, now);
        }
    }

    /// What differs between this and attributes that were told.
    #[must_use]
    pub fn differs(&self, told: &Attributes) -> Option<String> {
        self.compare(told, true)
    }

    /// The same without what a mount knows better while it writes.
    #[must_use]
    pub fn differs_apart_from_content(&self, told: &Attributes) -> Option<String> {
        self.compare(told, false)
    }

    fn compare(&self, told: &Attributes, content: bool) -> Option<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, here: u64, there: u64| {
            if here != there {
                wrong.push(format!("{what} is {there}, not {here}"));
            }
        };
        compare("the mode", self.mode.into(), told.mode.into());
        compare("nlink", self.nlink.into(), told.nlink.into());
        compare("uid", self.uid.into(), told.uid.into());
        compare("gid", self.gid.into(), told.gid.into());
        compare("copies", self.copies.into(), told.copies.into());
        if let Some(size) = self.size.filter(|_| content && !self.is_directory()) {
            compare("the size", size, told.size);
        }
        if told.no_xattrs && !self.xattrs.is_empty() {
            wrong.push("it has extended attributes".to_owned());
        }
        if content
            && let Some(times) = self.times
            && times != [told.atime, told.mtime, told.ctime]
        {
            let there = [told.atime, told.mtime, told.ctime];
            wrong.push(format!("the times are {there:?}, not {times:?}"));
        }
        if self.kind != told.kind {
            wrong.push(format!("it is a {:?}, not a {:?}", told.kind, self.kind));
        }
        (!wrong.is_empty()).then(|| wrong.join(", "))
    }
}

/// What a request comes to.
#[derive(Clone, Debug)]
pub enum Expected {
    /// Done.
    Done,
    /// This object, as it was right behind the request.
    Object(InodeId, Box<Object>),
    /// An error.
    Error(Errno),
    /// The reference can't tell.
    Unknown,
}

/// What a record did to names and objects, for histories.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Names that changed.
    pub names: BTreeSet<(InodeId, Vec<u8>)>,
    /// Objects that changed.
    pub objects: BTreeSet<InodeId>,
}

/// See the module's doc.
#[derive(Clone, Debug, Default)]
pub struct Names {
    objects: BTreeMap<InodeId, Object>,
    last_inode: u64,
    founded: bool,
    /// Its ids are no longer known (a new life of the cluster).
    lost: bool,
    done: BTreeMap<(SessionId, RequestId), Expected>,
    sessions: BTreeMap<SessionId, Session>,
    last_session: u64,
    /// Orphans, and the sessions that keep each.
    keepers: BTreeMap<InodeId, BTreeSet<SessionId>>,
    touched: Touched,
    /// Storage classes that are not built in.
    classes: BTreeMap<String, Class>,
    last_class: u64,
    /// What may be logged.
    level: FeatureLevel,
}

/// What an object is to be kept as: copies, or the number of a class that is not built in.
type Wanted = (u8, Option<u64>);

/// A storage class of the reference.
#[derive(Clone, Copy, Debug)]
struct Class {
    number: u64,
    /// Something of it is hard.
    law: bool,
}

/// A session of the reference.
#[derive(Clone, Copy, Debug)]
struct Session {
    nonce: u64,
    oldest: RequestId,
}

type Judged<T> = Result<T, Errno>;

impl Names {
    /// What a name leads to.
    #[must_use]
    pub fn find(&self, parent: InodeId, name: &[u8]) -> Option<InodeId> {
        self.objects.get(&parent)?.entries.get(name).copied()
    }

    /// An object.
    #[must_use]
    pub fn object(&self, inode: InodeId) -> Option<&Object> {
        self.objects.get(&inode)
    }

    /// The names in a directory.
    pub fn names(&self, directory: InodeId) -> impl Iterator<Item = (&[u8], InodeId)> {
        let entries = self.objects.get(&directory).map(|object| &object.entries);
        entries
            .into_iter()
            .flatten()
            .map(|(name, inode)| (name.as_slice(), *inode))
    }

    /// Whether the reference still knows ids.
    #[must_use]
    pub fn knows(&self) -> bool {
        self.founded && !self.lost
    }

    /// From now on the reference knows nothing: a new life of the cluster began, whose
    /// ids it can't foresee.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// The cluster's feature level.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        self.level
    }

    /// What a request came to when it took effect.
    #[must_use]
    pub fn expected(&self, session: SessionId, request: RequestId) -> Option<&Expected> {
        self.done.get(&(session, request))
    }

    /// Applies the next record; tells what it touched. `answer` is what the leader
    /// answered to a request, where that decides what the reference can't.
    pub fn apply(
        &mut self,
        record: &Record,
        refused: impl Fn(&ClientRecord) -> Option<bool>,
    ) -> Touched {
        match &record.body {
            RecordBody::Found { copies, level, .. } if !self.founded => {
                self.level = *level;
                self.found(record.time, *copies);
            }
            RecordBody::Client(client) => self.serve(record.time, client, refused(client)),
            RecordBody::Recover { .. } => self.lose(),
            RecordBody::BeginSession { nonce, .. } => self.begin_session(*nonce),
            RecordBody::EndSession { session } => self.end_session(*session),
            RecordBody::CloseOrphans { session, inodes } => self.close_orphans(*session, inodes),
            _ => {}
        }
        std::mem::take(&mut self.touched)
    }

    fn found(&mut self, now: Timestamp, copies: u8) {
        self.founded = true;
        let mut root = blank(FileKind::Directory, 0o755, now);
        root.copies = copies;
        root.parent = InodeId::ROOT;
        self.last_inode = 1;
        self.objects.insert(InodeId::ROOT, root);
        self.touched.objects.insert(InodeId::ROOT);
    }

    fn begin_session(&mut self, nonce: u64) {
        if self.sessions.values().all(|session| session.nonce != nonce) {
            self.last_session += 1;
            let session = Session {
                nonce,
                oldest: RequestId(0),
            };
            self.sessions.insert(SessionId(self.last_session), session);
        }
    }

    fn end_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.done.retain(|(of, _), _| *of != session);
        let kept: Vec<InodeId> = self.keepers.keys().copied().collect();
        self.close_orphans(session, &kept);
    }

    fn close_orphans(&mut self, session: SessionId, inodes: &[InodeId]) {
        for inode in inodes {
            let Some(keepers) = self.keepers.get_mut(inode) else {
                continue;
            };
            keepers.remove(&session);
            if keepers.is_empty() {
                self.keepers.remove(inode);
                self.objects.remove(inode);
                self.touched.objects.insert(*inode);
            }
        }
    }

    fn serve(&mut self, now: Timestamp, record: &ClientRecord, refused: Option<bool>) {
        let key = (record.session, record.request);
        let Some(session) = self.sessions.get_mut(&record.session) else {
            return;
        };
        if self.done.contains_key(&key) || record.request < session.oldest {
            return;
        }
        session.oldest = session.oldest.max(record.oldest.min(record.request));
        let oldest = session.oldest;
        self.done
            .retain(|(of, request), _| *of != record.session || *request >= oldest);
        let mut open_by: BTreeMap<InodeId, BTreeSet<SessionId>> = BTreeMap::new();
        for (inode, session) in &record.choice.open_by {
            if self.sessions.contains_key(session) {
                open_by.entry(*inode).or_default().insert(*session);
            }
        }
        let expected = match self.mutate(now, record, refused) {
            Ok(expected) => expected,
            Err(errno) => Expected::Error(errno),
        };
        self.bury(&mut open_by);
        self.done.insert(key, expected);
    }

    /// Objects that lost their last name go, unless a session keeps them.
    fn bury(&mut self, open_by: &mut BTreeMap<InodeId, BTreeSet<SessionId>>) {
        for inode in self.touched.objects.clone() {
            let nameless = self
                .objects
                .get(&inode)
                .is_some_and(|object| object.nlink == 0);
            if !nameless || self.keepers.contains_key(&inode) {
                continue;
            }
            match open_by.remove(&inode) {
                Some(keepers) => {
                    self.keepers.insert(inode, keepers);
                }
                None => {
                    self.objects.remove(&inode);
                }
            }
        }
    }

    fn mutate(
        &mut self,
        now: Timestamp,
        record: &ClientRecord,
        refused: Option<bool>,
    ) -> Judged<Expected> {
        let is_late = matches!(
            record.mutation,
            Mutation::SetClass { .. } | Mutation::ChangeClass(_) | Mutation::SetLabel { .. }
        );
        if is_late && self.level < FeatureLevel(2) {
            return Err(Errno::EOPNOTSUPP);
        }
        let is_later = match &record.mutation {
            Mutation::ChangeClass(
                ClassChange::Create { class, .. } | ClassChange::Modify { class, .. },
            ) => class.keep.stripe.is_some() || class.archive.is_some(),
            _ => false,
        };
        if is_later && self.level < FeatureLevel(3) {
            return Err(Errno::EOPNOTSUPP);
        }
        let is_latest = matches!(record.mutation, Mutation::SetPatterns { .. });
        if is_latest && self.level < FeatureLevel(5) {
            return Err(Errno::EOPNOTSUPP);
        }
        match &record.mutation {
            Mutation::Create {
                parent,
                name,
                kind,
                mode,
                target,
                exclusive,
                write,
                ..
            } => {
                let refused = *write && *kind == FileKind::Regular && refused.unwrap_or(true);
                let object = (*kind, *mode, &target[..]);
                self.create(now, *parent, name, object, *exclusive, refused)
            }
            Mutation::Link {
                inode,
                parent,
                name,
            } => self.link(now, *inode, *parent, name),
            Mutation::Unlink { parent, name } => self.remove(now, *parent, name, false),
            Mutation::Rmdir { parent, name } => self.remove(now, *parent, name, true),
            Mutation::Rename {
                parent,
                name,
                new_parent,
                new_name,
                mode,
            } => self.rename(now, (*parent, name), (*new_parent, new_name), *mode),
            Mutation::SetAttributes { inode, change } => self.set_attributes(now, *inode, change),
            Mutation::SetXattr {
                inode,
                name,
                value,
                mode,
            } => self.set_xattr(now, *inode, name, value, *mode),
            Mutation::RemoveXattr { inode, name } => {
                let object = self.get_mut(*inode)?;
                object.xattrs.remove(name).ok_or(Errno::ENODATA)?;
                object.changed(now);
                Ok(Expected::Done)
            }
            Mutation::SetCopies { inode, copies } => self.reclass(now, *inode, *copies, None),
            Mutation::SetClass { inode, class } => self.set_class(now, *inode, class),
            Mutation::SetPatterns { inode, patterns } => self.set_patterns(now, *inode, patterns),
            Mutation::ChangeClass(change) => self.change_class(change),
            Mutation::SetLabel { .. } => Ok(Expected::Done),
            Mutation::RaiseLevel { level } => {
                self.level = self.level.max(*level);
                Ok(Expected::Done)
            }
            Mutation::CommitWrite {
                inode, unchanged, ..
            } if *unchanged && self.level >= FeatureLevel::SYNCS => match refused {
                Some(false) => self.told(*inode),
                _ => Ok(Expected::Unknown),
            },
            Mutation::CommitWrite { inode, size, .. } => self.commit(now, *inode, *size, refused),
            Mutation::Fallocate {
                inode,
                mode,
                offset,
                length,
            } => self.fallocate(now, *inode, *mode, offset + length),
            Mutation::Lease { .. } => Ok(Expected::Unknown),
            Mutation::Release { .. } => Ok(Expected::Done),
            Mutation::CloseOrphans { inodes } => {
                self.close_orphans(record.session, inodes);
                Ok(Expected::Done)
            }
        }
    }

    fn get(&self, inode: InodeId) -> Judged<&Object> {
        self.objects.get(&inode).ok_or(Errno::ESTALE)
    }

    fn get_mut(&mut self, inode: InodeId) -> Judged<&mut Object> {
        self.touched.objects.insert(inode);
        self.objects.get_mut(&inode).ok_or(Errno::ESTALE)
    }

    fn told(&self, inode: InodeId) -> Judged<Expected> {
        Ok(Expected::Object(inode, Box::new(self.get(inode)?.clone())))
    }

    /// A directory in which a name is meant.
    fn directory(&self, parent: InodeId, name: &[u8]) -> Judged<&Object> {
        let directory = self.get(parent)?;
        if !directory.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        match name.len() {
            0 => Err(Errno::ENOENT),
            length if length > NAME_MAX => Err(Errno::ENAMETOOLONG),
            _ => Ok(directory),
        }
    }

    fn add_name(&mut self, now: Timestamp, parent: InodeId, name: &[u8], inode: InodeId) {
        self.touched.names.insert((parent, name.to_vec()));
        let directory = self.get_mut(parent).expect("it was just judged");
        directory.entries.insert(name.to_vec(), inode);
        directory.modified(now);
    }

    fn drop_name(&mut self, now: Timestamp, parent: InodeId, name: &[u8]) {
        self.touched.names.insert((parent, name.to_vec()));
        let directory = self.get_mut(parent).expect("it was just judged");
        directory.entries.remove(name);
        directory.modified(now);
    }

    fn create(
        &mut self,
        now: Timestamp,
        parent: InodeId,
        name: &[u8],
        (kind, mode, target): (FileKind, u32, &[u8]),
        exclusive: bool,
        refused: bool,
    ) -> Judged<Expected> {
        let directory = self.directory(parent, name)?;
        if let Some(found) = directory.entries.get(name) {
            return match exclusive || kind != FileKind::Regular {
                true => Err(Errno::EEXIST),
                false => self.told(*found),
            };
        }
        if directory.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let (copies, class) = directory.wanted_for(name, kind);
        let inherited = match kind {
            FileKind::Directory => directory.patterns.clone(),
            _ => Vec::new(),
        };
        if refused && self.has_law(class) {
            // Whether there are servers for it is not the reference's to know.
            return Err(Errno::ENOSPC);
        }
        self.last_inode += 1;
        let inode = InodeId(self.last_inode);
        let mode = if kind == FileKind::Symlink {
            0o777
        } else {
            mode & 0o7777
        };
        let mut object = blank(kind, mode, now);
        object.size = Some(target.len() as u64);
        object.target = target.to_vec();
        (object.copies, object.class) = (copies, class);
        object.patterns = inherited;
        object.parent = parent;
        self.objects.insert(inode, object);
        self.touched.objects.insert(inode);
        self.add_name(now, parent, name, inode);
        if kind == FileKind::Directory {
            self.get_mut(parent).expect("it was just judged").nlink += 1;
        }
        self.told(inode)
    }

    fn link(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        parent: InodeId,
        name: &[u8],
    ) -> Judged<Expected> {
        self.get(inode)?;
        let directory = self.directory(parent, name)?;
        if directory.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if directory.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let object = self.get(inode)?;
        if object.is_directory() {
            return Err(Errno::EPERM);
        }
        if object.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        self.judge_residence(inode, parent, name)?;
        self.add_name(now, parent, name, inode);
        let object = self.get_mut(inode)?;
        object.nlink += 1;
        object.changed(now);
        self.told(inode)
    }

    fn remove(
        &mut self,
        now: Timestamp,
        parent: InodeId,
        name: &[u8],
        rmdir: bool,
    ) -> Judged<Expected> {
        let directory = self.directory(parent, name)?;
        let inode = *directory.entries.get(name).ok_or(Errno::ENOENT)?;
        let victim = self.get(inode)?;
        match (rmdir, victim.is_directory()) {
            (false, true) => return Err(Errno::EISDIR),
            (true, false) => return Err(Errno::ENOTDIR),
            (true, true) if !victim.entries.is_empty() => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        self.drop_name(now, parent, name);
        self.drop_link(now, parent, inode);
        Ok(Expected::Done)
    }

    /// An object lost a name. An orphan stays known: somebody may have it open.
    fn drop_link(&mut self, now: Timestamp, parent: InodeId, inode: InodeId) {
        let object = self.get_mut(inode).expect("it was just judged");
        object.changed(now);
        if object.is_directory() {
            object.nlink = 0;
            self.get_mut(parent).expect("it was just judged").nlink -= 1;
        } else {
            object.nlink -= 1;
        }
    }

    fn rename(
        &mut self,
        now: Timestamp,
        (parent, name): (InodeId, &[u8]),
        (new_parent, new_name): (InodeId, &[u8]),
        mode: RenameMode,
    ) -> Judged<Expected> {
        let from = self.directory(parent, name)?;
        let into = self.directory(new_parent, new_name)?;
        if into.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let moved = *from.entries.get(name).ok_or(Errno::ENOENT)?;
        let target = into.entries.get(new_name).copied();
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        let exchange = mode == RenameMode::Exchange;
        if self.lies_below(new_parent, moved)
            || exchange && target.is_some_and(|target| self.lies_below(parent, target))
        {
            return Err(Errno::EINVAL);
        }
        if target == Some(moved) {
            return Ok(Expected::Done);
        }
        if let Some(target) = target.filter(|_| !exchange) {
            self.judge_replaced(moved, target)?;
        }
        if parent != new_parent {
            self.judge_residence(moved, new_parent, new_name)?;
            if let Some(target) = target.filter(|_| exchange) {
                self.judge_residence(target, parent, name)?;
            }
        }
        match target {
            Some(target) if exchange => self.add_name(now, parent, name, target),
            Some(target) => {
                self.drop_name(now, parent, name);
                self.drop_name(now, new_parent, new_name);
                self.drop_link(now, new_parent, target);
            }
            None => self.drop_name(now, parent, name),
        }
        self.add_name(now, new_parent, new_name, moved);
        self.arrive(now, moved, parent, new_parent);
        if let Some(target) = target.filter(|_| exchange) {
            self.arrive(now, target, new_parent, parent);
        }
        Ok(Expected::Done)
    }

    /// EXDEV where a class with a law is left or entered by a name alone.
    fn judge_residence(&self, inode: InodeId, parent: InodeId, name: &[u8]) -> Judged<()> {
        let (object, directory) = (self.get(inode)?, self.get(parent)?);
        let holds = matches!(object.kind, FileKind::Regular | FileKind::Directory);
        let wanted = directory.wanted_for(name, object.kind);
        let differs = (object.copies, object.class) != wanted;
        match holds && differs && self.has_law(wanted.1) {
            true => Err(Errno::EXDEV),
            false => Ok(()),
        }
    }

    fn has_law(&self, class: Option<u64>) -> bool {
        let mut classes = self.classes.values();
        class.is_some() && classes.any(|known| Some(known.number) == class && known.law)
    }

    fn set_class(&mut self, now: Timestamp, inode: InodeId, name: &str) -> Judged<Expected> {
        self.get(inode)?;
        let (copies, class) = self.find_class(name)?;
        self.reclass(now, inode, copies, class)
    }

    fn find_class(&self, name: &str) -> Judged<Wanted> {
        let built_in = name.strip_prefix("copies-").and_then(|n| n.parse().ok());
        match (self.classes.get(name), built_in) {
            (Some(class), _) => Ok((0, Some(class.number))),
            (None, Some(copies)) => Ok((copies, None)),
            (None, None) => Err(Errno::ENOENT),
        }
    }

    fn set_patterns(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        patterns: &[ClassPattern],
    ) -> Judged<Expected> {
        if self.get(inode)?.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let found = patterns.iter().map(|one| {
            let wanted = self.find_class(&one.class)?;
            Ok((one.glob.clone(), wanted))
        });
        let found = found.collect::<Judged<Vec<_>>>()?;
        let directory = self.get_mut(inode)?;
        directory.patterns = found;
        directory.changed(now);
        self.told(inode)
    }

    fn reclass(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        copies: u8,
        class: Option<u64>,
    ) -> Judged<Expected> {
        let object = self.get_mut(inode)?;
        if !matches!(object.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Errno::EINVAL);
        }
        (object.copies, object.class) = (copies, class);
        object.changed(now);
        self.told(inode)
    }

    fn change_class(&mut self, change: &ClassChange) -> Judged<Expected> {
        match change {
            ClassChange::Create { name, .. } if self.classes.contains_key(name) => {
                return Err(Errno::EEXIST);
            }
            ClassChange::Create { name, class } => {
                self.last_class += 1;
                let (number, law) = (self.last_class, class.has_law());
                self.classes.insert(name.clone(), Class { number, law });
            }
            ClassChange::Modify { name, class } => {
                let known = self.classes.get_mut(name).ok_or(Errno::ENOENT)?;
                known.law = class.has_law();
            }
            ClassChange::Rename { name, new_name } => {
                if self.classes.contains_key(new_name) {
                    return Err(Errno::EEXIST);
                }
                let known = self.classes.remove(name).ok_or(Errno::ENOENT)?;
                self.classes.insert(new_name.clone(), known);
            }
            ClassChange::Delete { name } => {
                let known = *self.classes.get(name).ok_or(Errno::ENOENT)?;
                let mut objects = self.objects.values();
                let own = Some(known.number);
                let names = |object: &Object| object.patterns.iter().any(|one| one.1.1 == own);
                if objects.any(|object| object.class == own || names(object)) {
                    return Err(Errno::EBUSY);
                }
                self.classes.remove(name);
            }
        }
        Ok(Expected::Done)
    }

    fn judge_replaced(&self, moved: InodeId, target: InodeId) -> Judged<()> {
        let (moved, target) = (self.get(moved)?, self.get(target)?);
        match (moved.is_directory(), target.is_directory()) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            _ if !target.entries.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    /// An object has its name in another directory now.
    fn arrive(&mut self, now: Timestamp, inode: InodeId, from: InodeId, to: InodeId) {
        let object = self.get_mut(inode).expect("it was just judged");
        object.parent = to;
        object.changed(now);
        if object.is_directory() {
            self.get_mut(from).expect("it was just judged").nlink -= 1;
            self.get_mut(to).expect("it was just judged").nlink += 1;
        }
    }

    /// Whether `directory` is `above` (a directory) or lies below it.
    fn lies_below(&self, mut directory: InodeId, above: InodeId) -> bool {
        if self
            .objects
            .get(&above)
            .is_none_or(|object| !object.is_directory())
        {
            return false;
        }
        while directory != above && directory != InodeId::ROOT {
            directory = self.objects[&directory].parent;
        }
        directory == above
    }

    fn set_attributes(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        change: &AttributeChange,
    ) -> Judged<Expected> {
        let object = self.get_mut(inode)?;
        if change.size.is_some() {
            match object.kind {
                FileKind::Regular => {}
                FileKind::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
        }
        if change.size.is_some() {
            object.size = change.size;
            object.modified(now);
        }
        object.changed(now);
        object.mode = change.mode.map_or(object.mode, |mode| mode & 0o7777);
        object.uid = change.uid.unwrap_or(object.uid);
        object.gid = change.gid.unwrap_or(object.gid);
        if let Some(times) = &mut object.times {
            times[0] = new_time(times[0], change.atime, now);
            times[1] = new_time(times[1], change.mtime, now);
        }
        self.told(inode)
    }

    fn set_xattr(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Judged<Expected> {
        let object = self.get_mut(inode)?;
        let user = name.starts_with(b"user.");
        if user && !matches!(object.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Errno::EPERM);
        }
        let there = object.xattrs.contains_key(name);
        match mode {
            XattrMode::Create if there => return Err(Errno::EEXIST),
            XattrMode::Replace if !there => return Err(Errno::ENODATA),
            _ if !there && object.xattrs.len() >= XATTRS_MAX => return Err(Errno::ENOSPC),
            _ => {}
        }
        object.xattrs.insert(name.to_vec(), value.to_vec());
        object.changed(now);
        Ok(Expected::Done)
    }

    fn commit(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        size: u64,
        refused: Option<bool>,
    ) -> Judged<Expected> {
        let object = self.get_mut(inode)?;
        match refused {
            Some(true) => Ok(Expected::Unknown),
            Some(false) => {
                object.size = object.size.map(|known| known.max(size));
                object.modified(now);
                self.told(inode)
            }
            None => {
                object.size = None;
                object.times = None;
                Ok(Expected::Unknown)
            }
        }
    }

    fn fallocate(
        &mut self,
        now: Timestamp,
        inode: InodeId,
        mode: FallocateMode,
        end: u64,
    ) -> Judged<Expected> {
        let object = self.get_mut(inode)?;
        if object.kind != FileKind::Regular {
            return Ok(Expected::Unknown);
        }
        if matches!(mode, FallocateMode::Extend | FallocateMode::Zero) {
            object.size = object.size.map(|size| size.max(end));
        }
        object.modified(now);
        self.told(inode)
    }
}

fn new_time(old: Timestamp, change: TimeChange, now: Timestamp) -> Timestamp {
    match change {
        TimeChange::Keep => old,
        TimeChange::Now => now,
        TimeChange::Set(time) => time,
    }
}

fn blank(kind: FileKind, mode: u32, now: Timestamp) -> Object {
    Object {
        kind,
        mode,
        nlink: if kind == FileKind::Directory { 2 } else { 1 },
        uid: 0,
        gid: 0,
        size: Some(0),
        copies: 0,
        class: None,
        patterns: Vec::new(),
        times: Some([now; 3]),
        target: Vec::new(),
        entries: BTreeMap::new(),
        xattrs: BTreeMap::new(),
        parent: InodeId::ROOT,
    }
}
