//! What the mount knows and may answer from: attributes, names (absent ones too),
//! locations of chunks, and which content the kernel's pages show. Bounded, the
//! least recently used goes first. Leaves the question whether it may be used now
//! (the cache lease) to the client.

use super::write::Place;
use crate::attributes::Attributes;
use crate::ids::InodeId;
use crate::namespace::check_name;
use crate::time::Instant;
use crate::wire::client_master::LocatedChunk;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// A bounded map that drops what was not used for longest.
#[derive(Debug)]
struct Recent<K, V> {
    entries: BTreeMap<K, (V, u64)>,
    ticks: BTreeMap<u64, K>,
    tick: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            ticks: BTreeMap::new(),
            tick: 0,
        }
    }
}

impl<K: Ord + Clone, V> Recent<K, V> {
    fn find(&mut self, key: &K) -> Option<&V> {
        let (value, tick) = self.entries.get_mut(key)?;
        let key = self.ticks.remove(tick).expect("an entry has a tick");
        self.tick += 1;
        *tick = self.tick;
        self.ticks.insert(self.tick, key);
        Some(value)
    }

    fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// Takes an entry in. Returns the older one that had to go for it.
    fn insert(&mut self, key: K, value: V, most: usize) -> Option<(K, V)> {
        self.remove(&key);
        self.tick += 1;
        self.ticks.insert(self.tick, key.clone());
        self.entries.insert(key, (value, self.tick));
        if self.entries.len() <= most.max(1) {
            return None;
        }
        let (_, oldest) = self.ticks.pop_first().expect("an entry has a tick");
        let (value, _) = self.entries.remove(&oldest).expect("a tick has an entry");
        Some((oldest, value))
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (value, tick) = self.entries.remove(key)?;
        self.ticks.remove(&tick);
        Some(value)
    }

    fn remove_range(&mut self, range: impl RangeBounds<K>) {
        let keys: Vec<K> = self
            .entries
            .range(range)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.remove(&key);
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.ticks.clear();
    }

    fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Everything cached.
#[derive(Debug, Default)]
pub(super) struct Cache {
    attributes: Recent<InodeId, Attributes>,
    /// `None`: there is no such name.
    dentries: Recent<(InodeId, Vec<u8>), Option<InodeId>>,
    /// Directories of which every name is among `dentries`: any other is absent.
    whole: Recent<InodeId, ()>,
    /// Names that changes of this mount may be changing now, and how many do: nothing is
    /// known of them.
    changing: BTreeMap<(InodeId, Vec<u8>), u32>,
    locations: Recent<Place, LocatedChunk>,
    /// The `change` that the kernel's pages of an inode show.
    pages: Recent<InodeId, u64>,
    /// Until when the kernel may use names and attributes that it was given.
    kernel_until: Instant,
    /// Until then the kernel may show names that are not among `dentries` any more.
    names_lost_until: Instant,
    /// Pushes that came.
    pushes: u64,
    /// The answer that is being taken in was overtaken by a push: what it tells may be
    /// out of date already, and is neither kept nor given to the kernel to keep.
    overtaken: bool,
}

impl Cache {
    pub(super) fn note_push(&mut self) {
        self.pushes += 1;
    }

    pub(super) fn pushes(&self) -> u64 {
        self.pushes
    }

    pub(super) fn set_overtaken(&mut self, overtaken: bool) {
        self.overtaken = overtaken;
    }

    pub(super) fn is_overtaken(&self) -> bool {
        self.overtaken
    }

    pub(super) fn attributes(&mut self, inode: InodeId) -> Option<&Attributes> {
        self.attributes.find(&inode)
    }

    /// Takes attributes in. When they are older than what is known, two answers
    /// crossed: then neither is kept.
    pub(super) fn add_attributes(&mut self, new: Attributes, most: usize) {
        let is_older = |old: &Attributes| {
            let same = old.generation == new.generation;
            same && (new.ctime < old.ctime || new.change < old.change)
        };
        if self.overtaken || self.attributes.peek(&new.inode).is_some_and(is_older) {
            self.attributes.remove(&new.inode);
        } else {
            self.attributes.insert(new.inode, new, most);
        }
    }

    pub(super) fn forget_attributes(&mut self, inode: InodeId) {
        self.attributes.remove(&inode);
    }

    pub(super) fn forget_all_attributes(&mut self) {
        self.attributes.clear();
    }

    /// What a name leads to, `Some(None)` when it is known to be absent.
    pub(super) fn dentry(&mut self, parent: InodeId, name: &[u8]) -> Option<Option<InodeId>> {
        if self.is_changing(parent, name) {
            return None;
        }
        let key = (parent, name.to_vec());
        if let Some(known) = self.dentries.find(&key) {
            return Some(*known);
        }
        // A name that can stand nowhere has an error of its own.
        let is_whole = check_name(name).is_ok() && self.whole.find(&parent).is_some();
        is_whole.then_some(None)
    }

    /// Whether a change of this mount may be changing the name now: whatever is told of
    /// it may be so before or behind that.
    pub(super) fn is_changing(&self, parent: InodeId, name: &[u8]) -> bool {
        !self.changing.is_empty() && self.changing.contains_key(&(parent, name.to_vec()))
    }

    /// A change of these names is asked for.
    pub(super) fn begin_change(&mut self, names: &[(InodeId, &[u8])]) {
        for (parent, name) in names {
            *self.changing.entry((*parent, name.to_vec())).or_insert(0) += 1;
        }
    }

    /// The change has ended, however.
    pub(super) fn end_change(&mut self, names: &[(InodeId, &[u8])]) {
        for (parent, name) in names {
            let key = (*parent, name.to_vec());
            let count = self.changing.get_mut(&key).expect("a change ends once");
            *count -= 1;
            if *count == 0 {
                self.changing.remove(&key);
            }
        }
    }

    /// The directory has no names but those that are added from now on.
    pub(super) fn begin_whole(&mut self, directory: InodeId, most: usize) {
        self.whole.insert(directory, (), most);
    }

    /// Names of the directory may be there that are not known.
    pub(super) fn end_whole(&mut self, directory: InodeId) {
        self.whole.remove(&directory);
    }

    pub(super) fn add_dentry(
        &mut self,
        parent: InodeId,
        name: &[u8],
        target: Option<InodeId>,
        most: usize,
    ) {
        if self.overtaken || self.is_changing(parent, name) {
            self.forget_dentry(parent, name);
        } else if let Some(((directory, _), lost)) =
            self.dentries.insert((parent, name.to_vec()), target, most)
        {
            self.names_lost_until = self.kernel_until;
            if lost.is_some() {
                self.end_whole(directory);
            }
        }
    }

    pub(super) fn forget_dentry(
        &mut self,
        parent: InodeId,
        name: &[u8],
    ) -> Option<Option<InodeId>> {
        self.names_lost_until = self.kernel_until;
        self.end_whole(parent);
        self.take_dentry(parent, name)
    }

    /// A name goes that the kernel took away itself; the caller says what it stands for
    /// now, or that its directory is not whole any more.
    pub(super) fn take_dentry(&mut self, parent: InodeId, name: &[u8]) -> Option<Option<InodeId>> {
        self.dentries.remove(&(parent, name.to_vec()))
    }

    /// A name changed elsewhere: it goes, and the answer tells whether the kernel may
    /// still show it.
    pub(super) fn drop_dentry(&mut self, parent: InodeId, name: &[u8], now: Instant) -> bool {
        self.end_whole(parent);
        let known = self.dentries.remove(&(parent, name.to_vec())).is_some();
        known || now < self.names_lost_until
    }

    pub(super) fn location(&mut self, place: Place) -> Option<&LocatedChunk> {
        self.locations.find(&place)
    }

    pub(super) fn add_location(&mut self, inode: InodeId, chunk: LocatedChunk, most: usize) {
        self.locations.insert((inode, chunk.index), chunk, most);
    }

    pub(super) fn forget_location(&mut self, place: Place) {
        self.locations.remove(&place);
    }

    pub(super) fn forget_locations(&mut self, inode: InodeId) {
        self.locations.remove_range((inode, 0)..=(inode, u32::MAX));
    }

    /// The kernel's pages show this content from now on.
    pub(super) fn show_pages(&mut self, attributes: &Attributes, most: usize) {
        self.pages.insert(attributes.inode, attributes.change, most);
    }

    /// Whether the kernel's pages show the content that these attributes tell of.
    pub(super) fn has_pages(&mut self, attributes: &Attributes) -> bool {
        self.pages.find(&attributes.inode) == Some(&attributes.change)
    }

    /// This mount changed the content, which its kernel knows. Any other change
    /// between makes its pages stale.
    pub(super) fn keep_pages(&mut self, attributes: &Attributes) {
        let inode = attributes.inode;
        let Some(&before) = self.pages.find(&inode) else {
            return;
        };
        if attributes.change == before + 1 {
            if let Some((shown, _)) = self.pages.entries.get_mut(&inode) {
                *shown = attributes.change;
            }
        } else if attributes.change != before {
            self.pages.remove(&inode);
        }
    }

    pub(super) fn forget_pages(&mut self, inode: InodeId) {
        self.pages.remove(&inode);
    }

    /// The kernel was given a name or attributes to keep until then.
    pub(super) fn note_kernel(&mut self, until: Instant) {
        self.kernel_until = self.kernel_until.max(until);
    }

    pub(super) fn kernel_until(&self) -> Instant {
        self.kernel_until
    }

    pub(super) fn clear(&mut self) {
        self.attributes.clear();
        self.names_lost_until = self.kernel_until;
        self.dentries.clear();
        self.whole.clear();
        self.locations.clear();
        self.pages.clear();
    }

    /// Entries of each kind.
    pub(super) fn sizes(&self) -> [usize; 4] {
        [
            self.attributes.len(),
            self.dentries.len(),
            self.locations.len(),
            self.pages.len(),
        ]
    }
}
