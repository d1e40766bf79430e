//! What may be lost of what lies somewhere, so that enough of it is left.
//!
//! Owns the counting alone: which pieces can be read is the master's to say, and
//! whether losses come one by one or together is nobody's. Invariant: what is told is
//! never more than is true.

use std::collections::BTreeMap;

/// How many domains may be lost at once, whichever they are, so that pieces of `least`
/// different numbers are left. Each piece has its number and the domain it lies in.
/// `None` when there are not so many now. Of a number that is there more than once only
/// one piece is counted, so that for such a set it may be more than is told.
#[must_use]
pub fn survives<D: Ord + Clone>(pieces: &[(u8, D)], least: usize) -> Option<usize> {
    let mut crowds = crowds(pieces);
    crowds.sort_unstable_by(|left, right| right.cmp(left));
    let mut left: usize = crowds.iter().sum();
    if left < least {
        return None;
    }
    let mut lost = 0;
    for crowd in crowds {
        left -= crowd;
        if left < least {
            break;
        }
        lost += 1;
    }
    Some(lost)
}

/// How many pieces lie in each domain, each number counted once: where fewest are.
fn crowds<D: Ord + Clone>(pieces: &[(u8, D)]) -> Vec<usize> {
    let mut holders: BTreeMap<u8, Vec<&D>> = BTreeMap::new();
    for (number, domain) in pieces {
        holders.entry(*number).or_default().push(domain);
    }
    let mut crowds: BTreeMap<&D, usize> = BTreeMap::new();
    let mut order: Vec<Vec<&D>> = holders.into_values().collect();
    order.sort_by_key(Vec::len);
    for domains in order {
        let emptiest = domains
            .into_iter()
            .min_by_key(|domain| crowds.get(domain).copied().unwrap_or(0));
        *crowds
            .entry(emptiest.expect("every number has a piece"))
            .or_default() += 1;
    }
    crowds.into_values().collect()
}
