//! An ordered map in copy-on-write pages: a B+tree whose pages are shared by
//! `Arc`. A clone is O(1); a page is copied only when it is written while a
//! clone still holds it, and nothing is ever moved or resized all at once.
//!
//! Owns the pages and the count of their bytes; leaves what the entries mean to
//! `table`. Invariants: keys ascend strictly; every leaf is equally deep; a page
//! is never empty, except the root of an empty map. A page that becomes sparse
//! joins a neighbour when both fit well into one, so the fill has a lower bound
//! in practice, while a page filled in ascending order stays full.

use std::mem::size_of;
use std::sync::Arc;

/// Most entries of a page.
const PAGE: usize = 64;
/// A page with fewer tries to join a neighbour.
const SPARSE: usize = 16;
/// Most entries of two joined pages, so that they do not split again at once.
const JOINED: usize = 48;
/// Pages grow and shrink by so many entries: a page is hardly larger than its content.
const STEP: usize = 8;
/// Bytes of a page besides its entries: the shared counters, two vectors, and
/// what the allocator keeps for three allocations.
const OVERHEAD: usize = 16 + 56 + 24;
/// Bits of a path that tell a child of one page.
const PATH_BITS: u32 = PAGE.trailing_zeros();

/// An ordered map with O(1) clones.
#[derive(Clone)]
pub(crate) struct Map<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
    bytes: usize,
}

#[derive(Clone)]
enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
}

#[derive(Clone)]
struct Leaf<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
}

/// `keys[i]` is a lower bound of what is under `children[i]`; `keys[0]` counts as
/// the lowest key of all, whatever it is.
#[derive(Clone)]
struct Inner<K, V> {
    keys: Vec<K>,
    children: Vec<Arc<Node<K, V>>>,
}

/// How an entry went into a page.
enum Put<K, V> {
    Replaced(V),
    Added,
    Split(K, Arc<Node<K, V>>),
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self {
            root: Arc::new(Node::empty()),
            len: 0,
            bytes: OVERHEAD,
        }
    }
}

impl<K, V> Map<K, V> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the pages take, those shared with clones included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every entry, in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        Iter::first(&self.root)
    }

    /// Names runs of at most PAGE * PAGE entries that together are the map, in order.
    pub(crate) fn parts(&self) -> Vec<u64> {
        let mut paths = Vec::new();
        if self.len > 0 {
            self.root.parts(0, &mut paths);
        }
        paths
    }

    /// The entries of one of `parts`; none for another path.
    pub(crate) fn part(&self, path: u64) -> Iter<'_, K, V> {
        let levels = self.root.height().saturating_sub(1);
        let mut node = &self.root;
        for level in (0..levels).rev() {
            let digit = path >> (level as u32 * PATH_BITS) & (PAGE as u64 - 1);
            match &**node {
                Node::Inner(inner) if (digit as usize) < inner.children.len() => {
                    node = &inner.children[digit as usize];
                }
                _ => return Iter::none(),
            }
        }
        Iter::first(node)
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.slot(key)],
                Node::Leaf(leaf) => {
                    let at = leaf.keys.binary_search(key).ok()?;
                    return Some(&leaf.values[at]);
                }
            }
        }
    }

    /// The value of a key, to be changed: copies the shared pages above it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let mut node = Arc::make_mut(&mut self.root);
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.slot(key);
                    node = Arc::make_mut(&mut inner.children[at]);
                }
                Node::Leaf(leaf) => {
                    let at = leaf.keys.binary_search(key).ok()?;
                    return Some(&mut leaf.values[at]);
                }
            }
        }
    }

    /// The first entry at or behind a key.
    pub(crate) fn first_from(&self, key: &K) -> Option<(&K, &V)> {
        let mut node = &*self.root;
        let mut right: Option<&Node<K, V>> = None;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.slot(key);
                    right = inner.children.get(at + 1).map(|next| &**next).or(right);
                    node = &inner.children[at];
                }
                Node::Leaf(leaf) => {
                    let at = leaf.keys.partition_point(|have| have < key);
                    return leaf.entry(at).or_else(|| right.and_then(Node::first));
                }
            }
        }
    }

    /// The entries at or behind a key, in order.
    pub(crate) fn range(&self, from: &K) -> Iter<'_, K, V> {
        let mut above = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.slot(from);
                    above.push((inner, at + 1));
                    node = &inner.children[at];
                }
                Node::Leaf(leaf) => {
                    let at = leaf.keys.partition_point(|have| have < from);
                    let leaf = Some((leaf, at));
                    return Iter { above, leaf };
                }
            }
        }
    }

    /// Puts an entry in; returns the value that the key had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let added = match put(&mut self.root, key, value, &mut self.bytes) {
            Put::Replaced(old) => return Some(old),
            Put::Added => None,
            Put::Split(key, right) => Some((key, right)),
        };
        self.len += 1;
        if let Some((key, right)) = added {
            self.grow_root(key, right);
        }
        None
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let value = take(&mut self.root, key, &mut self.bytes)?;
        self.len -= 1;
        while let Node::Inner(inner) = &*self.root {
            if inner.children.len() > 1 {
                break;
            }
            self.bytes -= self.root.bytes();
            let only = inner.children.first().cloned();
            self.root = only.unwrap_or_else(|| {
                self.bytes += OVERHEAD;
                Arc::new(Node::empty())
            });
        }
        Some(value)
    }

    fn grow_root(&mut self, key: K, right: Arc<Node<K, V>>) {
        let left = self.root.clone();
        let lowest = left.lowest().clone();
        self.root = Arc::new(Node::Inner(Inner {
            keys: vec![lowest, key],
            children: vec![left, right],
        }));
        self.bytes += self.root.bytes();
    }

    /// Joins runs, given in order, into one map. `None` when keys do not ascend.
    pub(crate) fn from_runs(runs: Vec<Run<K, V>>) -> Option<Self> {
        let len = runs.iter().map(|run| run.len).sum();
        let mut level: Vec<_> = runs.into_iter().flat_map(|run| run.leaves).collect();
        let ascend = |pair: &[Arc<Node<K, V>>]| pair[0].highest() < Some(pair[1].lowest());
        if !level.windows(2).all(ascend) {
            return None;
        }
        let mut bytes: usize = level.iter().map(|leaf| leaf.bytes()).sum();
        while level.len() > 1 {
            level = level.chunks(PAGE).map(Node::above).collect();
            bytes += level.iter().map(|node| node.bytes()).sum::<usize>();
        }
        Some(match level.pop() {
            Some(root) => Self { root, len, bytes },
            None => Self::default(),
        })
    }

    /// Asserts the shape of the whole tree.
    pub(crate) fn check_shape(&self) {
        let mut bytes = 0;
        self.root.check(self.root.height(), &mut bytes);
        assert_eq!(bytes, self.bytes, "the bytes of pages are counted");
        assert_eq!(self.iter().count(), self.len, "entries are counted");
        let mut last = None;
        for (key, _) in self.iter() {
            assert!(last < Some(key), "keys ascend strictly");
            assert!(self.get(key).is_some(), "every key is found");
            last = Some(key);
        }
    }
}

/// Entries in order as full pages, from which a map is made without inserting.
pub(crate) struct Run<K, V> {
    leaves: Vec<Arc<Node<K, V>>>,
    len: usize,
}

impl<K: Ord + Clone, V: Clone> Run<K, V> {
    /// Makes pages of entries; `None` when their keys do not ascend.
    pub(crate) fn new(entries: Vec<(K, V)>) -> Option<Self> {
        let len = entries.len();
        if !entries.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return None;
        }
        let mut leaves = Vec::with_capacity(len.div_ceil(PAGE));
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let (keys, values) = entries.by_ref().take(PAGE).unzip();
            leaves.push(Arc::new(Node::Leaf(Leaf::fit(keys, values))));
        }
        Some(Self { leaves, len })
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl<K, V> Node<K, V> {
    fn empty() -> Self {
        let (keys, values) = (Vec::new(), Vec::new());
        Self::Leaf(Leaf { keys, values })
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.keys.len(),
            Self::Inner(inner) => inner.keys.len(),
        }
    }

    fn bytes(&self) -> usize {
        let entry = match self {
            Self::Leaf(_) => size_of::<K>() + size_of::<V>(),
            Self::Inner(_) => size_of::<K>() + size_of::<Arc<Self>>(),
        };
        OVERHEAD + self.len().next_multiple_of(STEP) * entry
    }

    /// Levels above the leaves.
    fn height(&self) -> usize {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(inner) => 1 + inner.children[0].height(),
        }
    }

    fn first(&self) -> Option<(&K, &V)> {
        match self {
            Self::Leaf(leaf) => leaf.entry(0),
            Self::Inner(inner) => inner.children[0].first(),
        }
    }

    fn lowest(&self) -> &K {
        let (key, _) = self.first().expect("only the root may be empty");
        key
    }

    fn highest(&self) -> Option<&K> {
        match self {
            Self::Leaf(leaf) => leaf.keys.last(),
            Self::Inner(inner) => inner.children.last().and_then(|last| last.highest()),
        }
    }

    fn parts(&self, path: u64, paths: &mut Vec<u64>) {
        match self {
            Self::Inner(inner) if self.height() > 1 => {
                for (at, child) in inner.children.iter().enumerate() {
                    child.parts(path << PATH_BITS | at as u64, paths);
                }
            }
            _ => paths.push(path),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    fn above(children: &[Arc<Self>]) -> Arc<Self> {
        Arc::new(Self::Inner(Inner {
            keys: children
                .iter()
                .map(|child| child.lowest().clone())
                .collect(),
            children: children.to_vec(),
        }))
    }

    /// Takes in what is behind: `lowest` is a lower bound of it.
    fn append(&mut self, lowest: K, right: Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => left.append(right),
            (Self::Inner(left), Self::Inner(right)) => left.append(lowest, right),
            _ => unreachable!("neighbours are equally deep"),
        }
    }

    fn check(&self, height: usize, bytes: &mut usize) {
        *bytes += self.bytes();
        match self {
            Self::Leaf(leaf) => {
                assert_eq!(height, 0, "every leaf is equally deep");
                assert_eq!(leaf.keys.len(), leaf.values.len(), "a value for each key");
            }
            Self::Inner(inner) => {
                assert_eq!(
                    inner.keys.len(),
                    inner.children.len(),
                    "a key for each child"
                );
                for child in &inner.children {
                    assert!(
                        (1..=PAGE).contains(&child.len()),
                        "no page is empty or too full"
                    );
                    child.check(height - 1, bytes);
                }
            }
        }
    }
}

impl<K, V> Leaf<K, V> {
    fn entry(&self, at: usize) -> Option<(&K, &V)> {
        Some((self.keys.get(at)?, &self.values[at]))
    }
}

impl<K: Ord + Clone, V: Clone> Leaf<K, V> {
    fn fit(mut keys: Vec<K>, mut values: Vec<V>) -> Self {
        fit(&mut keys);
        fit(&mut values);
        Self { keys, values }
    }

    fn put(&mut self, key: K, value: V) -> Put<K, V> {
        match self.keys.binary_search(&key) {
            Ok(at) => Put::Replaced(std::mem::replace(&mut self.values[at], value)),
            Err(at) if self.keys.len() < PAGE => {
                self.add(at, key, value);
                Put::Added
            }
            Err(PAGE) => {
                let right = Self::fit(vec![key.clone()], vec![value]);
                Put::Split(key, Arc::new(Node::Leaf(right)))
            }
            Err(at) => self.split(at, key, value),
        }
    }

    fn add(&mut self, at: usize, key: K, value: V) {
        make_room(&mut self.keys);
        make_room(&mut self.values);
        self.keys.insert(at, key);
        self.values.insert(at, value);
    }

    fn split(&mut self, at: usize, key: K, value: V) -> Put<K, V> {
        const HALF: usize = PAGE / 2;
        let (keys, values) = (self.keys.split_off(HALF), self.values.split_off(HALF));
        let mut right = Self { keys, values };
        if at <= HALF {
            self.add(at, key, value);
        } else {
            right.add(at - HALF, key, value);
        }
        fit(&mut self.keys);
        fit(&mut self.values);
        let lowest = right.keys[0].clone();
        Put::Split(lowest, Arc::new(Node::Leaf(right)))
    }

    fn take(&mut self, key: &K) -> Option<V> {
        let at = self.keys.binary_search(key).ok()?;
        self.keys.remove(at);
        let value = self.values.remove(at);
        give_back(&mut self.keys);
        give_back(&mut self.values);
        Some(value)
    }

    fn append(&mut self, right: Self) {
        self.keys.extend(right.keys);
        self.values.extend(right.values);
        fit(&mut self.keys);
        fit(&mut self.values);
    }
}

impl<K: Ord + Clone, V: Clone> Inner<K, V> {
    /// Under which child a key belongs.
    fn slot(&self, key: &K) -> usize {
        self.keys[1..].partition_point(|lowest| lowest <= key)
    }

    fn put(&mut self, key: K, value: V, bytes: &mut usize) -> Put<K, V> {
        let at = self.slot(&key);
        match put(&mut self.children[at], key, value, bytes) {
            Put::Split(lowest, child) => self.adopt(at + 1, lowest, child),
            done => done,
        }
    }

    fn adopt(&mut self, at: usize, lowest: K, child: Arc<Node<K, V>>) -> Put<K, V> {
        if self.keys.len() < PAGE {
            self.add(at, lowest, child);
            return Put::Added;
        }
        // Appending keeps the left page full; anything else splits in halves.
        let cut = if at == PAGE { PAGE } else { PAGE / 2 };
        let (keys, children) = (self.keys.split_off(cut), self.children.split_off(cut));
        let mut right = Self { keys, children };
        if at == PAGE || at > cut {
            right.add(at - cut, lowest, child);
        } else {
            self.add(at, lowest, child);
        }
        fit(&mut self.keys);
        fit(&mut self.children);
        Put::Split(right.keys[0].clone(), Arc::new(Node::Inner(right)))
    }

    fn add(&mut self, at: usize, lowest: K, child: Arc<Node<K, V>>) {
        make_room(&mut self.keys);
        make_room(&mut self.children);
        self.keys.insert(at, lowest);
        self.children.insert(at, child);
    }

    fn take(&mut self, key: &K, bytes: &mut usize) -> Option<V> {
        let at = self.slot(key);
        let value = take(&mut self.children[at], key, bytes)?;
        self.tidy(at, bytes);
        Some(value)
    }

    /// Drops a child that became empty, joins one that became sparse.
    fn tidy(&mut self, at: usize, bytes: &mut usize) {
        let len = self.children[at].len();
        let fits = |other: usize| {
            let other = self.children.get(other).map(|other| other.len());
            other.is_some_and(|other| len + other <= JOINED)
        };
        if len == 0 {
            *bytes -= self.drop_child(at).1.bytes();
        } else if len < SPARSE && fits(at + 1) {
            self.join(at, bytes);
        } else if len < SPARSE && at > 0 && fits(at - 1) {
            self.join(at - 1, bytes);
        }
    }

    fn join(&mut self, at: usize, bytes: &mut usize) {
        let (lowest, right) = self.drop_child(at + 1);
        let left = &mut self.children[at];
        *bytes -= left.bytes() + right.bytes();
        Arc::make_mut(left).append(lowest, Arc::unwrap_or_clone(right));
        *bytes += left.bytes();
    }

    fn drop_child(&mut self, at: usize) -> (K, Arc<Node<K, V>>) {
        let dropped = (self.keys.remove(at), self.children.remove(at));
        give_back(&mut self.keys);
        give_back(&mut self.children);
        dropped
    }

    fn append(&mut self, lowest: K, mut right: Self) {
        right.keys[0] = lowest;
        self.keys.extend(right.keys);
        self.children.extend(right.children);
        fit(&mut self.keys);
        fit(&mut self.children);
    }
}

fn put<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: V,
    bytes: &mut usize,
) -> Put<K, V> {
    let node = Arc::make_mut(node);
    let before = node.bytes();
    let done = match node {
        Node::Leaf(leaf) => leaf.put(key, value),
        Node::Inner(inner) => inner.put(key, value, bytes),
    };
    *bytes = *bytes + node.bytes() - before;
    if let Put::Split(_, right) = &done {
        *bytes += right.bytes();
    }
    done
}

fn take<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: &K,
    bytes: &mut usize,
) -> Option<V> {
    let node = Arc::make_mut(node);
    let before = node.bytes();
    let value = match node {
        Node::Leaf(leaf) => leaf.take(key),
        Node::Inner(inner) => inner.take(key, bytes),
    };
    *bytes = *bytes + node.bytes() - before;
    value
}

fn make_room<T>(entries: &mut Vec<T>) {
    if entries.len() == entries.capacity() {
        entries.reserve_exact((entries.len() + 1).next_multiple_of(STEP) - entries.len());
    }
}

fn give_back<T>(entries: &mut Vec<T>) {
    if entries.capacity() - entries.len() > 2 * STEP {
        fit(entries);
    }
}

fn fit<T>(entries: &mut Vec<T>) {
    entries.shrink_to(entries.len().next_multiple_of(STEP));
}

/// Entries of a map in the order of their keys.
#[derive(Clone)]
pub(crate) struct Iter<'a, K, V> {
    above: Vec<(&'a Inner<K, V>, usize)>,
    leaf: Option<(&'a Leaf<K, V>, usize)>,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn none() -> Self {
        let (above, leaf) = (Vec::new(), None);
        Self { above, leaf }
    }

    fn first(node: &'a Node<K, V>) -> Self {
        let mut iter = Self::none();
        iter.descend(node);
        iter
    }

    fn descend(&mut self, mut node: &'a Node<K, V>) {
        while let Node::Inner(inner) = node {
            self.above.push((inner, 1));
            node = &inner.children[0];
        }
        if let Node::Leaf(leaf) = node {
            self.leaf = Some((leaf, 0));
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (leaf, at) = self.leaf.as_mut()?;
            if let Some(entry) = leaf.entry(*at) {
                *at += 1;
                return Some(entry);
            }
            self.leaf = None;
            while let Some((inner, next)) = self.above.last_mut() {
                if let Some(child) = inner.children.get(*next) {
                    *next += 1;
                    self.descend(child);
                    break;
                }
                self.above.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u32),
        Remove(u16),
        Change(u16, u32),
        /// Many keys in a row, upwards or downwards.
        Fill(u16, u8, bool),
        Clear(u16, u8),
        Clone,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || 0_u16..2000;
        let step = prop_oneof![
            4 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => key().prop_map(Step::Remove),
            2 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Change(key, value)),
            2 => (key(), any::<u8>(), any::<bool>()).prop_map(|(key, n, up)| Step::Fill(key, n, up)),
            2 => (key(), any::<u8>()).prop_map(|(key, n)| Step::Clear(key, n)),
            1 => Just(Step::Clone),
        ];
        prop::collection::vec(step, 1..120)
    }

    fn same(map: &Map<u16, u32>, model: &BTreeMap<u16, u32>) {
        map.check_shape();
        assert!(map.iter().eq(model.iter()));
    }

    fn take_step(step: &Step, map: &mut Map<u16, u32>, model: &mut BTreeMap<u16, u32>) {
        match *step {
            Step::Insert(key, value) => {
                assert_eq!(map.insert(key, value), model.insert(key, value));
            }
            Step::Remove(key) => assert_eq!(map.remove(&key), model.remove(&key)),
            Step::Change(key, value) => {
                let (ours, theirs) = (map.get_mut(&key), model.get_mut(&key));
                assert_eq!(ours.is_some(), theirs.is_some());
                if let (Some(ours), Some(theirs)) = (ours, theirs) {
                    (*ours, *theirs) = (value, value);
                }
            }
            Step::Fill(from, count, up) => {
                for n in 0..u16::from(count) {
                    let key = if up { from + n } else { from + 256 - n };
                    assert_eq!(map.insert(key, 1), model.insert(key, 1));
                }
            }
            Step::Clear(from, count) => {
                for key in from..from + u16::from(count) {
                    assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            Step::Clone => {}
        }
    }

    proptest! {
        #[test]
        fn it_is_an_ordered_map_whose_clones_stay(steps in steps(), probe in 0_u16..2300) {
            let (mut map, mut model) = (Map::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for step in &steps {
                if matches!(step, Step::Clone) {
                    clones.push((map.clone(), model.clone()));
                }
                take_step(step, &mut map, &mut model);
            }
            same(&map, &model);
            for (clone, then) in &clones {
                same(clone, then);
            }
            prop_assert_eq!(map.first_from(&probe), model.range(probe..).next());
            prop_assert!(map.range(&probe).eq(model.range(probe..)));
            let parts = map.parts().into_iter().flat_map(|path| map.part(path));
            prop_assert!(parts.eq(model.iter()));
        }

        #[test]
        fn it_is_made_of_runs(cuts in prop::collection::vec(1_usize..5000, 1..6)) {
            let mut runs = Vec::new();
            let mut next = 0_u32;
            for cut in &cuts {
                let end = next + u32::try_from(*cut).expect("small");
                runs.push(Run::new((next..end).map(|key| (key, key)).collect()).expect("ascending"));
                next = end;
            }
            let mut map = Map::from_runs(runs).expect("ascending");
            map.check_shape();
            prop_assert_eq!(map.len(), next as usize);
            for key in (0..next).step_by(3) {
                prop_assert_eq!(map.remove(&key), Some(key));
            }
            map.check_shape();
        }
    }

    #[test]
    fn runs_that_do_not_ascend_make_no_map() {
        assert!(Run::new(vec![(2, ()), (1, ())]).is_none());
        assert!(Run::new(vec![(1, ()), (1, ())]).is_none());
        let run = |keys: std::ops::Range<u32>| Run::new(keys.map(|key| (key, ())).collect());
        let overlapping = vec![
            run(0..100).expect("ascending"),
            run(99..120).expect("ascending"),
        ];
        assert!(Map::from_runs(overlapping).is_none());
        assert_eq!(
            Map::<u32, ()>::from_runs(Vec::new()).expect("empty").len(),
            0
        );
    }

    #[test]
    fn ascending_keys_fill_their_pages() {
        let mut map = Map::default();
        for key in 0_u64..100_000 {
            map.insert(key, key);
        }
        let per_entry = map.bytes() as f64 / 100_000.0;
        assert!(per_entry < 19.0, "16 bytes take {per_entry}");
    }

    #[test]
    fn an_emptied_map_gives_its_pages_back() {
        let mut map = Map::default();
        for key in 0_u64..50_000 {
            map.insert(key * 7919 % 50_000, key);
        }
        for key in 0_u64..50_000 {
            assert!(map.remove(&(key * 104_729 % 50_000)).is_some());
        }
        assert_eq!((map.len(), map.bytes()), (0, OVERHEAD));
        map.check_shape();
    }
}
