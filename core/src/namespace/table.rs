//! A table of the replicated state: a copy-on-write map that keeps its digest
//! and its bytes of memory while it changes.
//!
//! Owns the bookkeeping; what an entity is, how it hashes and what it keeps on
//! the heap, the entity says. Invariant: the digest is the XOR of the hashes of
//! the entries that are in the table now.

use super::pages::{Iter, Map, Run};

/// What a table keeps.
pub(crate) trait Entity<K>: Clone {
    /// A hash of key and value.
    fn hash(&self, key: &K) -> u64;
    /// Bytes outside of the pages.
    fn heap(&self, key: &K) -> usize {
        let _ = key;
        0
    }
}

/// For tables that are sets or derived from others: they do not count in the digest.
impl<K> Entity<K> for () {
    fn hash(&self, _: &K) -> u64 {
        0
    }
}

/// A map of entities.
#[derive(Clone)]
pub(crate) struct Table<K, V> {
    map: Map<K, V>,
    digest: u64,
    heap: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            map: Map::default(),
            digest: 0,
            heap: 0,
        }
    }
}

impl<K: Ord + Clone, V: Entity<K>> Table<K, V> {
    /// The entity of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key)
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.map.get(key).is_some()
    }

    /// Puts an entity in; returns the one that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.digest ^= value.hash(&key);
        self.heap += value.heap(&key);
        let old = self.map.insert(key.clone(), value);
        if let Some(old) = &old {
            self.forget(&key, old);
        }
        old
    }

    /// Puts in an entity whose key must be new.
    ///
    /// # Panics
    /// When the key is there already: the caller judged wrongly.
    pub(crate) fn add(&mut self, key: K, value: V) {
        assert!(self.insert(key, value).is_none(), "a new key is new");
    }

    /// Takes an entity out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.map.remove(key)?;
        self.forget(key, &old);
        Some(old)
    }

    /// Changes the entity of a key that must be there.
    ///
    /// # Panics
    /// When the key is not there: the caller judged wrongly.
    pub(crate) fn update<R>(&mut self, key: &K, change: impl FnOnce(&mut V) -> R) -> R {
        let value = self.map.get_mut(key).expect("what is changed was found");
        let (digest, heap) = (value.hash(key), value.heap(key));
        let result = change(value);
        self.digest ^= digest ^ value.hash(key);
        self.heap = self.heap + value.heap(key) - heap;
        result
    }

    /// The first entity at or behind a key.
    pub(crate) fn first_from(&self, key: &K) -> Option<(&K, &V)> {
        self.map.first_from(key)
    }

    /// The entities at or behind a key, in order.
    pub(crate) fn range(&self, from: &K) -> Iter<'_, K, V> {
        self.map.range(from)
    }

    /// Every entity, in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.map.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.map.bytes() + self.heap
    }

    /// The digest of what is in the table.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Names the runs of an image (see `Map::parts`).
    pub(crate) fn parts(&self) -> Vec<u64> {
        self.map.parts()
    }

    /// The entities of one run.
    pub(crate) fn part(&self, path: u64) -> Iter<'_, K, V> {
        self.map.part(path)
    }

    /// Joins runs, given in order; `None` when their keys do not ascend.
    pub(crate) fn from_runs(runs: Vec<TableRun<K, V>>) -> Option<Self> {
        let digest = runs.iter().fold(0, |digest, run| digest ^ run.digest);
        let heap = runs.iter().map(|run| run.heap).sum();
        let map = Map::from_runs(runs.into_iter().map(|run| run.run).collect())?;
        Some(Self { map, digest, heap })
    }

    /// Asserts that the pages and what is kept of them agree.
    pub(crate) fn check(&self) {
        self.map.check_shape();
        let digest = self
            .iter()
            .fold(0, |sum, (key, value)| sum ^ value.hash(key));
        assert_eq!(digest, self.digest, "the digest is of what is there");
        let heap: usize = self.iter().map(|(key, value)| value.heap(key)).sum();
        assert_eq!(heap, self.heap, "bytes on the heap are counted");
    }

    fn forget(&mut self, key: &K, old: &V) {
        self.digest ^= old.hash(key);
        self.heap -= old.heap(key);
    }
}

/// Entities in order, hashed, from which a table is made.
pub(crate) struct TableRun<K, V> {
    run: Run<K, V>,
    digest: u64,
    heap: usize,
}

impl<K: Ord + Clone, V: Entity<K>> TableRun<K, V> {
    /// Makes a run; `None` when the keys do not ascend.
    pub(crate) fn new(entries: Vec<(K, V)>) -> Option<Self> {
        let digest = (entries.iter()).fold(0, |digest, (key, value)| digest ^ value.hash(key));
        let heap = entries.iter().map(|(key, value)| value.heap(key)).sum();
        let run = Run::new(entries)?;
        Some(Self { run, digest, heap })
    }

    /// How many entities there are.
    pub(crate) fn len(&self) -> usize {
        self.run.len()
    }
}
