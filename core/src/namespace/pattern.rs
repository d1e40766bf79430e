//! Patterns of a directory: files that are created there under certain names get another class
//! than the directory's own.
//!
//! Owns the table of them, and which class a name gets. A new directory gets the patterns of
//! the one that it is made in, as it gets its class. A file keeps the class that it was created
//! with, whatever it is called later. Invariants: only directories have patterns, their classes
//! are there, and each pattern counts as a user of its class.

use super::apply::Step;
use super::class::Counting;
use super::digest;
use super::name::Name;
use super::record::{ClassPattern, Outcome};
use super::state::State;
use super::table::Entity;
use crate::attributes::FileKind;
use crate::errno::Errno;
use crate::glob;
use crate::ids::InodeId;
use crate::limits::NAME_MAX;
use crate::placement::ClassId;
use minicbor::{Decode, Encode};

/// Patterns of one directory at most.
const PATTERNS_MAX: usize = 64;

/// One pattern as it is kept.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct StoredPattern {
    #[n(0)]
    glob: Name,
    #[n(1)]
    class: ClassId,
}

/// The patterns of a directory, in their order.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Patterns(#[n(0)] Box<[StoredPattern]>);

impl Patterns {
    /// Bounds that a decoded one must keep.
    pub(crate) fn is_sound(&self) -> bool {
        let is_right = |one: &StoredPattern| is_glob(one.glob.bytes());
        (1..=PATTERNS_MAX).contains(&self.0.len()) && self.0.iter().all(is_right)
    }

    pub(crate) fn classes(&self) -> impl Iterator<Item = ClassId> + '_ {
        self.0.iter().map(|one| one.class)
    }
}

impl Entity<InodeId> for Patterns {
    fn hash(&self, inode: &InodeId) -> u64 {
        let base = digest::words(23, &[inode.0, self.0.len() as u64]);
        self.0.iter().fold(base, |hash, one| {
            let glob = digest::bytes(23, one.glob.bytes());
            digest::words(hash, &[glob, u64::from(one.class.0)])
        })
    }

    fn heap(&self, _: &InodeId) -> usize {
        let globs = self.0.iter().map(|one| one.glob.heap());
        size_of_val::<[StoredPattern]>(&self.0) + globs.sum::<usize>()
    }
}

fn is_glob(glob: &[u8]) -> bool {
    (1..=NAME_MAX).contains(&glob.len()) && glob::is_pattern(glob)
}

/// What can be asked.
impl State {
    /// The class that an object gets that is made in a directory under a name: of a file by the
    /// first pattern that stands for it; else the directory's own.
    ///
    /// # Errors
    /// ESTALE when the directory is gone.
    pub fn class_for(
        &self,
        parent: InodeId,
        name: &[u8],
        kind: FileKind,
    ) -> Result<ClassId, Errno> {
        let own = self.class_of(parent)?;
        Ok(self.class_by_name(parent, name, kind).unwrap_or(own))
    }

    /// The class of the first pattern of a directory that stands for a file's name.
    pub(crate) fn class_by_name(
        &self,
        parent: InodeId,
        name: &[u8],
        kind: FileKind,
    ) -> Option<ClassId> {
        if self.patterns.len() == 0 || kind != FileKind::Regular {
            return None;
        }
        let mut all = self.patterns.get(&parent)?.0.iter();
        let found = all.find(|one| glob::matches(one.glob.bytes(), name))?;
        Some(found.class)
    }

    /// The patterns of a directory.
    #[must_use]
    pub fn patterns_of(&self, inode: InodeId) -> Vec<ClassPattern> {
        let patterns = self.patterns.get(&inode).into_iter();
        let all = patterns.flat_map(|patterns| patterns.0.iter());
        let told = all.map(|one| ClassPattern {
            glob: one.glob.bytes().to_vec(),
            class: self.class_name(one.class),
        });
        told.collect()
    }
}

/// What records change.
impl State {
    /// `Mutation::SetPatterns`.
    pub(crate) fn set_patterns(
        &mut self,
        step: &mut Step<'_>,
        inode: InodeId,
        patterns: &[ClassPattern],
    ) -> Outcome {
        if !step.who.is_root() {
            return Err(Errno::EPERM);
        }
        if !self.inode(inode)?.is_directory() {
            return Err(Errno::ENOTDIR);
        }
        let is_wrong = |one: &ClassPattern| !is_glob(&one.glob);
        if patterns.len() > PATTERNS_MAX || patterns.iter().any(is_wrong) {
            return Err(Errno::EINVAL);
        }
        let stored = patterns.iter().map(|one| {
            let class = self.find_class(&one.class).ok_or(Errno::ENOENT)?;
            let glob = Name::new(&one.glob);
            Ok(StoredPattern { glob, class })
        });
        let stored = stored.collect::<Result<Box<[StoredPattern]>, Errno>>()?;
        self.put_patterns(inode, Patterns(stored));
        let now = step.now;
        self.change_inode(step, inode, |directory| directory.ctime = now);
        self.entry(inode)
    }

    /// A new directory gets the patterns of the one that it is made in.
    pub(crate) fn inherit_patterns(&mut self, parent: InodeId, directory: InodeId) {
        if let Some(patterns) = self.patterns.get(&parent).cloned() {
            self.put_patterns(directory, patterns);
        }
    }

    /// Takes the patterns of an object away that goes, if it has any.
    pub(crate) fn drop_patterns(&mut self, inode: InodeId) {
        let gone = self.patterns.remove(&inode);
        for class in gone.iter().flat_map(Patterns::classes) {
            self.count_user(class, Counting::Down);
        }
    }

    fn put_patterns(&mut self, inode: InodeId, patterns: Patterns) {
        for class in patterns.classes() {
            self.count_user(class, Counting::Up);
        }
        self.drop_patterns(inode);
        if !patterns.0.is_empty() {
            self.patterns.insert(inode, patterns);
        }
    }
}
