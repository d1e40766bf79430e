//! What an operator allows on a disk: how much of it stays free, how much of it may be
//! used at all, and that nothing new goes there.
//!
//! Owns the arithmetic from a disk's space to the room for what is new; leaves to the
//! chunkserver where new parts go. Invariant: parts that are there may grow on, whatever
//! is ordered: an order never makes a write fail that the disk has space for.

use crate::vfs::Space;

/// A share of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many of a hundred of all its bytes.
    Percent(u8),
}

impl Amount {
    /// In bytes, of a disk of so many.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                let bytes = u128::from(total) * u128::from(percent) / 100;
                u64::try_from(bytes).unwrap_or(u64::MAX)
            }
        }
    }
}

/// What is ordered of one disk. The default orders nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskRules {
    /// Nothing new is placed where less than this would stay free.
    pub keep_free: Option<Amount>,
    /// Nothing new is placed where more than this would be in use, by whomever.
    pub limit: Option<Amount>,
    /// Nothing new is placed there, and what is there moves elsewhere.
    pub drain: bool,
}

impl DiskRules {
    /// Whether they order anything.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        *self != Self::default()
    }

    /// Bytes of a disk of so many that may be in use, by whomever, before nothing new is
    /// placed there.
    #[must_use]
    pub fn most(&self, total: u64) -> u64 {
        let kept = self.keep_free.map_or(0, |kept| kept.of(total));
        let limit = self.limit.map_or(u64::MAX, |most| most.of(total));
        total.saturating_sub(kept).min(limit)
    }

    /// How much of what may be in use is, in thousandths, with so many bytes more or less than
    /// when its space was told; `None` of a disk of which nothing may be.
    #[must_use]
    pub fn used_per_mille(&self, space: Space, change: i64) -> Option<u64> {
        let most = self.most(space.total);
        let used = space.total.saturating_sub(space.free);
        let used = used.saturating_add_signed(change).min(most);
        let per_mille = (u128::from(used) * 1000).checked_div(u128::from(most))?;
        Some(u64::try_from(per_mille).expect("at most a thousand"))
    }

    /// Bytes of a disk that new parts may take, with so many written since its space was
    /// told.
    #[must_use]
    pub fn room(&self, space: Space, written: u64) -> u64 {
        if self.drain {
            return 0;
        }
        if !self.is_bound() {
            return space.free;
        }
        let free = space.free.saturating_sub(written);
        let used = space.total.saturating_sub(free);
        self.most(space.total).saturating_sub(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_every_order_leaves() {
        let space = Space {
            total: 1000,
            free: 400,
        };
        let rules = |keep_free, limit| DiskRules {
            keep_free,
            limit,
            drain: false,
        };
        let (percent, bytes) = (Amount::Percent, Amount::Bytes);
        for (rules, written, room) in [
            (rules(None, None), 100, 400),
            (rules(Some(percent(10)), None), 0, 300),
            (rules(Some(percent(10)), None), 50, 250),
            (rules(Some(bytes(500)), None), 0, 0),
            (rules(None, Some(percent(80))), 0, 200),
            (rules(None, Some(percent(80))), 199, 1),
            (rules(None, Some(bytes(600))), 0, 0),
            (rules(None, Some(bytes(100))), 0, 0),
            (rules(Some(percent(30)), Some(percent(100))), 0, 100),
            (rules(None, Some(bytes(u64::MAX))), 0, 400),
        ] {
            assert_eq!(rules.room(space, written), room, "{rules:?} {written}");
        }
        for (rules, most) in [
            (rules(None, None), 1000),
            (rules(Some(percent(10)), None), 900),
            (rules(Some(percent(10)), Some(bytes(950))), 900),
            (rules(Some(bytes(100)), Some(percent(80))), 800),
            (rules(Some(bytes(u64::MAX)), None), 0),
        ] {
            assert_eq!(rules.most(space.total), most, "{rules:?}");
        }
        let half = rules(Some(bytes(200)), None);
        for (change, per_mille) in [(0, 750), (100, 875), (-100, 625), (900, 1000), (-900, 0)] {
            assert_eq!(half.used_per_mille(space, change), Some(per_mille));
        }
        let none = rules(Some(bytes(u64::MAX)), None);
        assert_eq!(none.used_per_mille(space, 0), None);
        let drained = DiskRules {
            drain: true,
            ..DiskRules::default()
        };
        assert_eq!(drained.room(space, 0), 0);
        assert_eq!(Amount::Percent(50).of(u64::MAX), u64::MAX / 2);
    }
}
