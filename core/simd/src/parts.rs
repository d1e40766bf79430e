//! [`PartSet`]: which of a code's parts are meant.

use std::fmt;

/// A set of the parts of a code, by index from 0: data parts first, then parity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartSet(u64);

impl PartSet {
    /// No part.
    pub const EMPTY: Self = Self(0);

    /// The parts 0 to `count` - 1.
    ///
    /// # Panics
    /// When `count` is 64 or more: no code has so many.
    #[must_use]
    pub fn first(count: usize) -> Self {
        assert!(count < 64, "no code has {count} parts");
        Self((1 << count) - 1)
    }

    /// Adds a part.
    ///
    /// # Panics
    /// When `part` is 64 or more.
    pub fn insert(&mut self, part: usize) {
        assert!(part < 64, "no code has a part {part}");
        self.0 |= 1 << part;
    }

    /// Whether the part is in it.
    #[must_use]
    pub fn contains(self, part: usize) -> bool {
        part < 64 && self.0 >> part & 1 == 1
    }

    /// How many parts are in it.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether no part is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The parts of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The parts of both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The parts that `other` does not have.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The parts, in order.
    pub fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..64).filter(move |&part| self.contains(part))
    }
}

impl FromIterator<usize> for PartSet {
    fn from_iter<I: IntoIterator<Item = usize>>(parts: I) -> Self {
        let mut set = Self::EMPTY;
        parts.into_iter().for_each(|part| set.insert(part));
        set
    }
}

impl fmt::Debug for PartSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sets() {
        let set: PartSet = [3, 0, 40].into_iter().collect();
        assert!(set.iter().eq([0, 3, 40]));
        assert_eq!(set.len(), 3);
        assert!(set.contains(40) && !set.contains(1) && !set.contains(99));
        assert!(set.without(set).is_empty());
        assert!(set.intersection(PartSet::first(4)).iter().eq([0, 3]));
        assert_eq!(set.union(PartSet::EMPTY), set);
        assert_eq!(format!("{set:?}"), "{0, 3, 40}");
    }
}
