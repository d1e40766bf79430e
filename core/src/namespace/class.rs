//! Storage classes, the labels of servers, and what both allow: in the replicated
//! state, so that a copy against a law is refused when its record is applied,
//! whatever the leader knew when it chose.
//!
//! Owns the tables of classes and of labels; the policies are `placement`'s.
//! Invariants: every inode's class is there, its chunks are of the same; a lease
//! names no server that the class of its chunk does not permit when it is granted.
//! A file has one class, whatever names it has.

use super::apply::Step;
use super::digest;
use super::inode::Inode;
use super::name::Name;
use super::record::{ClassChange, Outcome, Reply};
use super::state::{Change, Derived, State};
use super::table::Entity;
use crate::attributes::FileKind;
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, InodeId, ServerId};
use crate::limits::COPIES_MAX;
use crate::placement::class::{self, Force, is_class_name};
use crate::placement::label::{LABELS_MAX, is_label};
use crate::placement::{ClassId, Labels, Policy, StorageClass, admits, fill};
use minicbor::{Decode, Encode};
use std::borrow::Cow;

/// Classes that are not built in.
pub const CLASSES_MAX: usize = (u8::MAX - ClassId::FIRST.0) as usize + 1;

/// An operator's class.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct StoredClass {
    #[n(0)]
    name: Name,
    #[n(1)]
    class: Box<StorageClass>,
}

impl StoredClass {
    fn name(&self) -> &str {
        std::str::from_utf8(self.name.bytes()).expect("a class's name is text")
    }

    /// Bounds that a decoded one must keep.
    pub(crate) fn is_sound(&self) -> bool {
        std::str::from_utf8(self.name.bytes()).is_ok_and(is_class_name) && self.class.is_sound()
    }
}

impl Entity<ClassId> for StoredClass {
    fn hash(&self, key: &ClassId) -> u64 {
        // The text stays what it is when a later version's encoding has more fields.
        let text = digest::bytes(14, self.class.to_string().as_bytes());
        let name = digest::bytes(14, self.name.bytes());
        digest::words(14, &[u64::from(key.0), name, text])
    }

    fn heap(&self, _: &ClassId) -> usize {
        let archive = self.class.archive.as_ref().map(|archive| &archive.policy);
        let policies = [Some(&self.class.keep), self.class.create.as_ref(), archive];
        let policies = policies.into_iter().flatten().map(Policy::heap);
        self.name.heap() + size_of::<StorageClass>() + policies.sum::<usize>()
    }
}

/// The labels of a chunkserver as the log knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct ServerLabels {
    /// As it is configured.
    #[n(0)]
    pub configured: Labels,
    /// Set by an operator over those.
    #[n(1)]
    pub set: Labels,
}

impl ServerLabels {
    /// The labels that hold, of a server that is configured with `configured`.
    #[must_use]
    pub fn over(&self, configured: &Labels) -> Labels {
        let others = configured.iter();
        let others = others.filter(|(key, _)| !self.set.iter().any(|(set, _)| set == key));
        self.set.iter().chain(others).cloned().collect()
    }

    /// Bounds that a decoded one must keep.
    pub(crate) fn is_sound(&self) -> bool {
        are_labels(&self.configured) && are_labels(&self.set)
    }
}

impl Entity<ServerId> for ServerLabels {
    fn hash(&self, key: &ServerId) -> u64 {
        let mut hash = digest::words(15, &[key.0, self.configured.len() as u64]);
        for (key, value) in self.configured.iter().chain(&self.set) {
            let pair = [key, value].map(|text| digest::bytes(15, text.as_bytes()));
            hash = digest::words(hash, &pair);
        }
        hash
    }

    fn heap(&self, _: &ServerId) -> usize {
        let all = self.configured.iter().chain(&self.set);
        all.map(|(key, value)| size_of::<(String, String)>() + key.len() + value.len())
            .sum()
    }
}

fn are_labels(labels: &Labels) -> bool {
    labels.len() <= LABELS_MAX
        && labels
            .iter()
            .all(|(key, value)| is_label(key) && is_label(value))
}

/// Which way a count goes.
#[derive(Clone, Copy)]
pub(crate) enum Counting {
    Up,
    Down,
}

/// What can be asked.
impl State {
    /// What a class says.
    ///
    /// # Panics
    /// When there is no such class: an inode's is always there.
    #[must_use]
    pub fn class(&self, class: ClassId) -> Cow<'_, StorageClass> {
        match class.built_in() {
            Some(copies) => Cow::Owned(StorageClass {
                create: None,
                keep: Policy::copies(copies),
                archive: None,
            }),
            None => {
                let stored = self.classes.get(&class);
                Cow::Borrowed(&stored.expect("a class in use is there").class)
            }
        }
    }

    /// The name of a class.
    #[must_use]
    pub fn class_name(&self, class: ClassId) -> String {
        match self.classes.get(&class) {
            Some(stored) => stored.name().to_owned(),
            None => class.to_string(),
        }
    }

    /// The class of a name.
    #[must_use]
    pub fn find_class(&self, name: &str) -> Option<ClassId> {
        let mut classes = self.classes.iter();
        let found = classes.find(|(_, stored)| stored.name() == name);
        found
            .map(|(class, _)| *class)
            .or_else(|| class::built_in(name))
    }

    /// The classes that are not built in: number, name, what it says.
    pub fn classes(&self) -> impl Iterator<Item = (ClassId, &str, &StorageClass)> {
        let all = self.classes.iter();
        all.map(|(class, stored)| (*class, stored.name(), &*stored.class))
    }

    /// Whether there is a class that is not built in: then labels matter.
    #[must_use]
    pub fn has_classes(&self) -> bool {
        self.classes.len() > 0
    }

    /// The class of an inode.
    ///
    /// # Errors
    /// ESTALE when it is gone.
    pub fn class_of(&self, inode: InodeId) -> Result<ClassId, Errno> {
        Ok(self.inode(inode)?.class)
    }

    /// Inodes, and patterns of directories, of a class that is not built in.
    #[must_use]
    pub fn class_users(&self, class: ClassId) -> u64 {
        self.users.get(&class).map_or(0, |Derived(count)| *count)
    }

    /// The labels of a server as the log knows them.
    #[must_use]
    pub fn server_labels(&self, server: ServerId) -> Option<&ServerLabels> {
        self.servers.get(&server)
    }

    /// The labels that hold for a server, as far as the log knows them.
    pub(crate) fn labels(&self, server: ServerId) -> Labels {
        let known = self.servers.get(&server);
        known.map_or_else(Labels::new, |known| known.over(&known.configured))
    }

    pub(crate) fn has_class(&self, class: ClassId) -> bool {
        match class.built_in() {
            Some(copies) => (1..=COPIES_MAX).contains(&copies),
            None => self.classes.has(&class),
        }
    }

    /// Whether copies of a new chunk keep the law of its class: together, and enough
    /// for every hard term.
    #[must_use]
    pub fn keeps_law(&self, class: ClassId, copies: &[(ServerId, BootId)]) -> bool {
        let class = self.class(class);
        let policy = class.making();
        if !policy.has_law() {
            return true;
        }
        let labels: Vec<Labels> = copies.iter().map(|(one, _)| self.labels(*one)).collect();
        let labels: Vec<&Labels> = labels.iter().collect();
        admits(policy, &labels) && meets_law(policy, &labels)
    }
}

/// Whether these copies are enough for everything that is hard about a policy.
#[must_use]
pub(crate) fn meets_law(policy: &Policy, copies: &[&Labels]) -> bool {
    let hard = policy.terms.iter().filter(|term| term.force == Force::Hard);
    let hard: u8 = hard.map(|term| term.count).sum();
    let filled = fill(policy, copies);
    filled.hard == hard && (policy.hard_domain().is_none() || filled.filled == policy.copies)
}

/// What records change.
impl State {
    /// `Mutation::SetClass`.
    pub(crate) fn set_class(&mut self, step: &mut Step<'_>, inode: InodeId, name: &str) -> Outcome {
        self.inode(inode)?.demand_owner(step.who)?;
        let class = self.find_class(name).ok_or(Errno::ENOENT)?;
        self.reclass(step, inode, class)
    }

    /// Puts a file with its chunks, or a directory, into a class. What is in an
    /// operator's class, or goes into one, is the superuser's to move.
    pub(crate) fn reclass(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        class: ClassId,
    ) -> Outcome {
        let object = self.inode(inode)?;
        if !matches!(object.kind, FileKind::Regular | FileKind::Directory) {
            return Err(Errno::EINVAL);
        }
        let before = object.class;
        let built_in = before.built_in().is_some() && class.built_in().is_some();
        if !built_in && !step.who.is_root() {
            return Err(Errno::EPERM);
        }
        let now = step.now;
        self.change_inode(step, inode, |object| {
            object.class = class;
            object.ctime = now;
        });
        self.unarchive(step, inode);
        self.count_user(before, Counting::Down);
        self.count_user(class, Counting::Up);
        let chunks = self.extents_of(inode).map(|(_, extent)| extent.chunk);
        for chunk in chunks.collect::<Vec<ChunkId>>() {
            self.chunks.update(&chunk, |stored| stored.class = class);
            step.changed(Change::Copies(chunk));
        }
        self.entry(inode)
    }

    /// `Mutation::ChangeClass`.
    pub(crate) fn change_class(&mut self, step: &mut Step<'_>, change: &ClassChange) -> Outcome {
        if !step.who.is_root() {
            return Err(Errno::EPERM);
        }
        let class = match change {
            ClassChange::Create { name, class } => self.create_class(name, class)?,
            ClassChange::Modify { name, class } => self.modify_class(name, class)?,
            ClassChange::Rename { name, new_name } => self.rename_class(name, new_name)?,
            ClassChange::Delete { name } => self.delete_class(name)?,
        };
        step.changed(Change::Class(class));
        Ok(Reply::Done)
    }

    fn create_class(&mut self, name: &str, class: &StorageClass) -> Result<ClassId, Errno> {
        self.demand_free_name(name)?;
        demand_sound(class)?;
        let mut numbers = ClassId::FIRST.0..=u8::MAX;
        let free = numbers.find(|number| !self.classes.has(&ClassId(*number)));
        let id = ClassId(free.ok_or(Errno::ENOSPC)?);
        let (name, class) = (Name::new(name.as_bytes()), Box::new(class.clone()));
        self.classes.add(id, StoredClass { name, class });
        Ok(id)
    }

    fn modify_class(&mut self, name: &str, class: &StorageClass) -> Result<ClassId, Errno> {
        let id = self.operators_class(name)?;
        demand_sound(class)?;
        let class = Box::new(class.clone());
        self.classes.update(&id, |stored| stored.class = class);
        Ok(id)
    }

    fn rename_class(&mut self, name: &str, new_name: &str) -> Result<ClassId, Errno> {
        let id = self.operators_class(name)?;
        self.demand_free_name(new_name)?;
        let name = Name::new(new_name.as_bytes());
        self.classes.update(&id, |stored| stored.name = name);
        Ok(id)
    }

    fn delete_class(&mut self, name: &str) -> Result<ClassId, Errno> {
        let id = self.operators_class(name)?;
        if self.users.has(&id) {
            return Err(Errno::EBUSY);
        }
        let gone = self.classes.remove(&id);
        assert!(gone.is_some(), "a class that was found is there");
        Ok(id)
    }

    /// A class that can be changed: ENOENT when there is none of the name, EPERM when
    /// it is built in.
    fn operators_class(&self, name: &str) -> Result<ClassId, Errno> {
        let id = self.find_class(name).ok_or(Errno::ENOENT)?;
        match id.built_in() {
            Some(_) => Err(Errno::EPERM),
            None => Ok(id),
        }
    }

    fn demand_free_name(&self, name: &str) -> Result<(), Errno> {
        if !is_class_name(name) {
            return Err(Errno::EINVAL);
        }
        match self.find_class(name) {
            Some(_) => Err(Errno::EEXIST),
            None => Ok(()),
        }
    }

    /// `RecordBody::ServerLabels`: ignored when they are none.
    pub(crate) fn configure_labels(
        &mut self,
        step: &mut Step<'_>,
        server: ServerId,
        labels: &Labels,
    ) {
        if !are_labels(labels) {
            return;
        }
        let mut known = self.servers.get(&server).cloned().unwrap_or_default();
        known.configured = labels.clone();
        self.servers.insert(server, known);
        step.changed(Change::Labels(server));
    }

    /// `Mutation::SetLabel`. A server that the log does not know yet may be labelled.
    pub(crate) fn set_label(
        &mut self,
        step: &mut Step<'_>,
        server: ServerId,
        key: &str,
        value: Option<&str>,
    ) -> Outcome {
        if !step.who.is_root() {
            return Err(Errno::EPERM);
        }
        if !is_label(key) || !value.is_none_or(is_label) {
            return Err(Errno::EINVAL);
        }
        let mut known = self.servers.get(&server).cloned().unwrap_or_default();
        known.set.retain(|(set, _)| set != key);
        if let Some(value) = value {
            known.set.push((key.to_owned(), value.to_owned()));
        }
        if known.set.len() > LABELS_MAX {
            return Err(Errno::ENOSPC);
        }
        self.servers.insert(server, known);
        step.changed(Change::Labels(server));
        Ok(Reply::Done)
    }

    /// ENOSPC when these copies of a new chunk do not keep the law of a class.
    pub(crate) fn judge_new_copies(
        &self,
        class: ClassId,
        copies: &[(ServerId, BootId)],
    ) -> Result<(), Errno> {
        if self.keeps_law(class, copies) {
            Ok(())
        } else {
            Err(Errno::ENOSPC)
        }
    }

    /// Whether the class of a chunk has a law. EAGAIN when one of these copies lies
    /// outside of it: the leader chooses anew.
    pub(crate) fn judge_old_copies(
        &self,
        chunk: ChunkId,
        copies: &[(ServerId, BootId)],
    ) -> Result<bool, Errno> {
        let stored = self.chunks.get(&chunk).ok_or(Errno::ESTALE)?;
        let class = self.class(stored.class);
        if !class.has_law() {
            return Ok(false);
        }
        let permitted = |(server, _): &(ServerId, BootId)| class.permits(&self.labels(*server));
        if copies.iter().all(permitted) {
            Ok(true)
        } else {
            Err(Errno::EAGAIN)
        }
    }

    /// EXDEV when an object would get a name in a directory where what is created under it
    /// gets another class, and that has a law: whoever copies it there instead gets it.
    pub(crate) fn judge_residence(
        &self,
        object: &Inode,
        parent: InodeId,
        name: &[u8],
    ) -> Result<(), Errno> {
        let class = self.class_for(parent, name, object.kind)?;
        let holds_data = matches!(object.kind, FileKind::Regular | FileKind::Directory);
        let differs = holds_data && object.class != class;
        if differs && self.class(class).has_law() {
            Err(Errno::EXDEV)
        } else {
            Ok(())
        }
    }

    /// An inode, or a pattern, of the class more or less.
    pub(crate) fn count_user(&mut self, class: ClassId, way: Counting) {
        if class.built_in().is_some() {
            return;
        }
        let count = self.class_users(class);
        match (way, count) {
            (Counting::Up, count) => {
                self.users.insert(class, Derived(count + 1));
            }
            (Counting::Down, 1) => {
                self.users.remove(&class);
            }
            (Counting::Down, count) => {
                let fewer = count.checked_sub(1).expect("who leaves was counted");
                self.users.insert(class, Derived(fewer));
            }
        }
    }

    /// Counts the inodes of every class anew.
    pub(crate) fn count_users(&mut self) {
        let objects = self.inodes.iter().map(|(_, object)| object.class);
        let patterns = self.patterns.iter();
        let patterns = patterns.flat_map(|(_, patterns)| patterns.classes());
        let classes = objects.chain(patterns);
        let classes = classes.filter(|class| class.built_in().is_none());
        let classes: Vec<ClassId> = classes.collect();
        for class in classes {
            self.count_user(class, Counting::Up);
        }
    }
}

fn demand_sound(class: &StorageClass) -> Result<(), Errno> {
    if class.is_sound() {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}
