//! The changes of names that no sync of a directory has made durable yet, in
//! order, and what a power cut may make of them. Pure: `tree` moves the files.
//!
//! A change is one atomic step. A sync of a directory makes durable all
//! changes that touch it, and with each change the earlier ones it depends on
//! (those that share a node or a place with it). After a cut any subset of the
//! others, or any prefix, may have happened. A node has one place at most:
//! there are no hard links.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

/// Names a file or a directory while the layer runs, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct NodeId(pub(crate) u64);

/// The directory at the top of the mount.
pub(crate) const ROOT: NodeId = NodeId(1);

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Place {
    /// The directory.
    pub(crate) directory: NodeId,
    /// The name in it.
    pub(crate) name: OsString,
}

/// One change of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A node of any kind appeared.
    Created { node: NodeId, at: Place },
    /// A node's name went.
    Removed { node: NodeId, at: Place },
    /// A node moved, over another one perhaps.
    Moved {
        node: NodeId,
        from: Place,
        to: Place,
        replaced: Option<NodeId>,
    },
}

impl Change {
    fn places(&self) -> impl Iterator<Item = &Place> {
        match self {
            Self::Created { at, .. } | Self::Removed { at, .. } => [Some(at), None],
            Self::Moved { from, to, .. } => [Some(from), Some(to)],
        }
        .into_iter()
        .flatten()
    }

    /// The nodes whose names change.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        match self {
            Self::Created { node, .. } | Self::Removed { node, .. } => [Some(*node), None],
            Self::Moved { node, replaced, .. } => [Some(*node), *replaced],
        }
        .into_iter()
        .flatten()
    }

    fn touches(&self, directory: NodeId) -> bool {
        self.places().any(|place| place.directory == directory)
    }

    /// Each place and what it held before.
    fn before(&self) -> impl Iterator<Item = (&Place, Option<NodeId>)> {
        match self {
            Self::Created { at, .. } => [Some((at, None)), None],
            Self::Removed { node, at } => [Some((at, Some(*node))), None],
            Self::Moved {
                node,
                from,
                to,
                replaced,
            } => [Some((from, Some(*node))), Some((to, *replaced))],
        }
        .into_iter()
        .flatten()
    }
}

/// How a cut chooses among the changes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// Percent of the changes that survive.
    pub(crate) keep_percent: u64,
    /// Whether nothing survives after the first loss, as on a journaling file
    /// system; where it falls is then drawn evenly, unless all or nothing stays.
    pub(crate) in_order: bool,
}

impl Choice {
    /// How many of `changes` survive, if they survive in order.
    fn prefix(&self, rng: &mut Rng, changes: u64) -> Option<u64> {
        self.in_order.then(|| match self.keep_percent {
            0 => 0,
            100.. => changes,
            _ => rng.below(changes + 1),
        })
    }
}

/// What a cut left of the names.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Each place that a change touched, and what is there now.
    pub(crate) places: BTreeMap<Place, Option<NodeId>>,
    /// Changes that survived.
    pub(crate) kept: u64,
    /// Changes that did not.
    pub(crate) lost: u64,
}

/// The changes not yet durable.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    changes: BTreeMap<u64, Change>,
    next: u64,
    /// How many pending changes name a node.
    mentions: BTreeMap<NodeId, u64>,
}

impl Pending {
    /// Notes a change that has just happened.
    pub(crate) fn push(&mut self, change: Change) {
        for node in change.nodes() {
            *self.mentions.entry(node).or_default() += 1;
        }
        self.changes.insert(self.next, change);
        self.next += 1;
    }

    /// Whether a cut may still bring `node` back or take it away.
    pub(crate) fn mentions(&self, node: NodeId) -> bool {
        self.mentions.contains_key(&node)
    }

    /// How many changes are pending.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// `directory` was synced. Returns the nodes whose changes are durable now.
    pub(crate) fn sync_directory(&mut self, directory: NodeId) -> BTreeSet<NodeId> {
        self.commit(|change| change.touches(directory))
    }

    /// The changes that gave `node` its name become durable.
    pub(crate) fn sync_node(&mut self, node: NodeId) -> BTreeSet<NodeId> {
        if !self.mentions(node) {
            return BTreeSet::new();
        }
        self.commit(|change| change.nodes().any(|named| named == node))
    }

    fn commit(&mut self, chosen: impl Fn(&Change) -> bool) -> BTreeSet<NodeId> {
        let (mut nodes, mut places) = (BTreeSet::new(), BTreeSet::new());
        let mut durable = Vec::new();
        for (&at, change) in self.changes.iter().rev() {
            let depended_on = change.nodes().any(|node| nodes.contains(&node))
                || change.places().any(|place| places.contains(place));
            if depended_on || chosen(change) {
                nodes.extend(change.nodes());
                places.extend(change.places().cloned());
                durable.push(at);
            }
        }
        for at in durable {
            self.settle(at);
        }
        nodes
    }

    fn settle(&mut self, at: u64) {
        let change = self.changes.remove(&at).expect("the caller found it");
        for node in change.nodes() {
            let count = self
                .mentions
                .get_mut(&node)
                .expect("counted when the change came");
            *count -= 1;
            if *count == 0 {
                self.mentions.remove(&node);
            }
        }
    }

    /// The power fails: draws which changes happened and forgets them all.
    pub(crate) fn forget(&mut self, rng: &mut Rng, choice: Choice) -> Outcome {
        let mut outcome = Outcome::default();
        let mut places: BTreeMap<Place, Option<NodeId>> = BTreeMap::new();
        for change in self.changes.values() {
            for (place, before) in change.before() {
                places.entry(place.clone()).or_insert(before);
            }
        }
        let mut world = Replay {
            homes: places
                .iter()
                .filter_map(|(place, node)| node.map(|node| (node, place.clone())))
                .collect(),
            places,
        };
        let prefix = choice.prefix(rng, self.changes.len() as u64);
        for change in std::mem::take(&mut self.changes).into_values() {
            let number = outcome.kept + outcome.lost;
            let survives = match prefix {
                Some(length) => number < length,
                None => rng.percent(choice.keep_percent),
            };
            if survives {
                world.apply(change);
                outcome.kept += 1;
            } else {
                outcome.lost += 1;
            }
        }
        self.mentions.clear();
        outcome.places = world.places;
        outcome
    }
}

/// The touched part of the tree while a cut replays the changes it kept.
struct Replay {
    places: BTreeMap<Place, Option<NodeId>>,
    homes: BTreeMap<NodeId, Place>,
}

impl Replay {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Created { node, at } => self.put(node, at),
            Change::Moved { node, to, .. } => self.put(node, to),
            Change::Removed { node, at } => {
                if self.homes.get(&node) == Some(&at) {
                    self.homes.remove(&node);
                    self.places.insert(at, None);
                }
            }
        }
    }

    fn put(&mut self, node: NodeId, at: Place) {
        if let Some(old) = self.homes.remove(&node) {
            self.places.insert(old, None);
        }
        if let Some(Some(displaced)) = self.places.insert(at.clone(), Some(node)) {
            self.homes.remove(&displaced);
        }
        self.homes.insert(node, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: u64, name: &str) -> Place {
        Place {
            directory: NodeId(directory),
            name: name.into(),
        }
    }

    fn created(node: u64, at: Place) -> Change {
        Change::Created {
            node: NodeId(node),
            at,
        }
    }

    fn moved(node: u64, from: Place, to: Place, replaced: Option<u64>) -> Change {
        Change::Moved {
            node: NodeId(node),
            from,
            to,
            replaced: replaced.map(NodeId),
        }
    }

    fn cut(
        pending: &mut Pending,
        seed: u64,
        keep_percent: u64,
        in_order: bool,
    ) -> BTreeMap<Place, Option<NodeId>> {
        pending
            .forget(
                &mut Rng::new(seed),
                Choice {
                    keep_percent,
                    in_order,
                },
            )
            .places
    }

    #[test]
    fn a_cut_that_keeps_nothing_brings_back_what_was_there_first() {
        let mut pending = Pending::default();
        pending.push(Change::Removed {
            node: NodeId(5),
            at: place(1, "a"),
        });
        pending.push(created(6, place(1, "a")));
        pending.push(moved(6, place(1, "a"), place(2, "b"), Some(7)));
        let places = cut(&mut pending, 0, 0, false);
        assert_eq!(places[&place(1, "a")], Some(NodeId(5)));
        assert_eq!(places[&place(2, "b")], Some(NodeId(7)));
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn a_rename_over_a_file_is_whole_or_did_not_happen() {
        for seed in 0..100 {
            let mut pending = Pending::default();
            pending.push(moved(8, place(1, "new"), place(1, "file"), Some(7)));
            let places = cut(&mut pending, seed, 50, false);
            let pair = (places[&place(1, "new")], places[&place(1, "file")]);
            assert!(
                pair == (Some(NodeId(8)), Some(NodeId(7))) || pair == (None, Some(NodeId(8))),
                "seed {seed}: {pair:?}"
            );
        }
    }

    #[test]
    fn a_synced_directory_keeps_its_changes_and_those_they_depend_on() {
        let mut pending = Pending::default();
        pending.push(created(5, place(1, "a")));
        pending.push(created(6, place(1, "other")));
        pending.push(moved(5, place(1, "a"), place(2, "b"), None));
        let durable = pending.sync_directory(NodeId(2));
        assert_eq!(durable, BTreeSet::from([NodeId(5)]));
        assert!(!pending.mentions(NodeId(5)) && pending.mentions(NodeId(6)));
        assert_eq!(
            cut(&mut pending, 1, 0, false),
            BTreeMap::from([(place(1, "other"), None)])
        );
    }

    #[test]
    fn a_node_is_never_in_two_places() {
        for seed in 0..200 {
            let mut pending = Pending::default();
            pending.push(created(5, place(1, "x")));
            pending.push(moved(5, place(1, "x"), place(1, "y"), None));
            pending.push(moved(5, place(1, "y"), place(1, "z"), Some(9)));
            pending.push(Change::Removed {
                node: NodeId(5),
                at: place(1, "z"),
            });
            let places = cut(&mut pending, seed, 50, seed % 2 == 0);
            assert!(
                places
                    .values()
                    .filter(|node| **node == Some(NodeId(5)))
                    .count()
                    <= 1,
                "seed {seed}: {places:?}"
            );
        }
    }

    #[test]
    fn in_order_nothing_survives_after_the_first_loss() {
        for seed in 0..100 {
            let mut pending = Pending::default();
            for node in 10..20 {
                pending.push(created(node, place(1, &node.to_string())));
            }
            let places = cut(&mut pending, seed, 70, true);
            let there: Vec<bool> = places.values().map(Option::is_some).collect();
            assert!(
                there.windows(2).all(|pair| pair[0] || !pair[1]),
                "seed {seed}: {there:?}"
            );
        }
    }
}
