//! How well copies fill the slots of a policy: an exact answer, by a small table
//! over how many slots of each kind are taken.
//!
//! Owns the matching of copies with slots. A hard slot takes only copies of its
//! term, a soft one and one without a term take any; where a domain is not to be
//! shared by law, only one copy of each domain counts. Invariant: `Fill` is the
//! best of all ways to put the copies into slots.

use super::class::{Domain, Force, Policy, Term, domain_of};
use super::label::Labels;
use std::collections::BTreeMap;

/// How well slots are filled; the order is the order of preference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Fill {
    /// Slots with a copy.
    pub filled: u8,
    /// Hard ones among them.
    pub hard: u8,
    /// Soft ones whose copy is where the term wants it.
    pub soft: u8,
}

/// Which terms hold at a place: bit `n` for term `n`.
type Mask = u64;

const _: () = assert!(
    crate::limits::PARTS_MAX as u32 <= Mask::BITS,
    "a policy has as many terms as parts at most"
);

/// How well these copies fill the slots of a policy, if the best of them do.
#[must_use]
pub fn fill(policy: &Policy, copies: &[&Labels]) -> Fill {
    if policy.is_plain() {
        let filled = copies.len().min(usize::from(policy.copies));
        let filled = u8::try_from(filled).expect("at most the copies of a policy");
        return Fill {
            filled,
            ..Fill::default()
        };
    }
    best_fill(policy, &[], copies).expect("nothing is fixed")
}

/// Whether each of these copies has a slot of its own: all of them may be there at once.
#[must_use]
pub fn admits(policy: &Policy, copies: &[&Labels]) -> bool {
    best_fill(policy, copies, &[]).is_some()
}

/// What of a policy a copy is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// A term that holds where it is, by its place in the policy.
    Term(usize),
    /// A soft term that does not: there was no better place for it.
    StandIn(usize),
    /// No term: it is one of those that may be anywhere.
    Anywhere,
}

/// The slot of each of these copies, in one of the ways that fill the policy as well as
/// [`fill`] says; `None` when they do not all have slots.
#[must_use]
pub fn assign(policy: &Policy, copies: &[&Labels]) -> Option<Vec<Slot>> {
    if let Some(domain) = policy.hard_domain() {
        domains(policy, domain, copies, &[])?;
    }
    let masks: Vec<Mask> = copies.iter().map(|labels| mask(policy, labels)).collect();
    let mut tables = vec![Slots::new(policy)];
    for &mask in &masks {
        let mut next = tables.last().expect("the first is there").clone();
        next.put(mask, true);
        tables.push(next);
    }
    let (_, mut state) = tables.last().expect("the first is there").best_state()?;
    let mut slots = Vec::with_capacity(masks.len());
    for (at, &mask) in masks.iter().enumerate().rev() {
        let (slot, before) = tables[at].taken_last(state, tables[at + 1].reached[state], mask);
        slots.push(slot);
        state = before;
    }
    slots.reverse();
    Some(slots)
}

/// The best fill with all of `fixed` and whichever of `others`; `None` when the fixed
/// ones do not all have slots.
#[must_use]
pub(crate) fn best_fill(policy: &Policy, fixed: &[&Labels], others: &[&Labels]) -> Option<Fill> {
    let mut table = Slots::new(policy);
    for &labels in fixed {
        table.put(mask(policy, labels), true);
    }
    let (mut groups, domain) = (BTreeMap::new(), policy.hard_domain());
    match domain {
        None => {
            for &labels in others {
                *groups.entry(mask(policy, labels)).or_insert(0_usize) += 1;
            }
        }
        Some(domain) => {
            let free = domains(policy, domain, fixed, others)?;
            for mask in free {
                *groups.entry(mask).or_insert(0) += 1;
            }
        }
    }
    for (mask, count) in groups {
        for _ in 0..count.min(usize::from(policy.copies)) {
            table.put(mask, false);
        }
    }
    table.best()
}

/// For each domain that no fixed copy is in, the terms that hold somewhere in it;
/// `None` when two fixed ones share one.
fn domains(
    policy: &Policy,
    domain: Domain,
    fixed: &[&Labels],
    others: &[&Labels],
) -> Option<Vec<Mask>> {
    let mut free: BTreeMap<_, Mask> = BTreeMap::new();
    for &labels in others {
        *free.entry(domain_of(labels, domain)).or_insert(0) |= mask(policy, labels);
    }
    let mut taken = Vec::new();
    for &labels in fixed {
        let at = domain_of(labels, domain);
        if taken.contains(&at) {
            return None;
        }
        free.remove(&at);
        taken.push(at);
    }
    Some(free.into_values().collect())
}

fn mask(policy: &Policy, labels: &Labels) -> Mask {
    let bit = |(at, term): (usize, &Term)| Mask::from(term.place.matches(labels)) << at;
    policy.terms.iter().enumerate().map(bit).sum()
}

/// Slots of one kind.
#[derive(Clone)]
struct Kind {
    count: usize,
    /// `None`: no term speaks of them.
    force: Option<Force>,
    /// What one more of the kind adds to the number of a state.
    stride: usize,
}

impl Kind {
    /// What a copy that took one of these slots on the way to a state adds to the soft
    /// terms that hold; `None` if it did not: none is taken, or they do not take it.
    fn takes(&self, state: usize, holds: bool) -> Option<u8> {
        let taken = state / self.stride % (self.count + 1);
        if taken == 0 || (self.force == Some(Force::Hard) && !holds) {
            return None;
        }
        Some(u8::from(self.force == Some(Force::Soft) && holds))
    }
}

/// For every state, which is how many slots of each kind are taken, whether it can be
/// reached and with how many soft terms at most.
#[derive(Clone)]
struct Slots {
    kinds: Vec<Kind>,
    reached: Vec<Option<u8>>,
}

impl Slots {
    fn new(policy: &Policy) -> Self {
        let terms = policy.terms.iter();
        let terms = terms.map(|term| (usize::from(term.count), Some(term.force)));
        let mut kinds = Vec::new();
        let mut stride = 1;
        for (count, force) in terms.chain([(usize::from(policy.anywhere()), None)]) {
            kinds.push(Kind {
                count,
                force,
                stride,
            });
            stride *= count + 1;
        }
        let mut reached = vec![None; stride];
        reached[0] = Some(0);
        Self { kinds, reached }
    }

    /// One more copy. Every step leads to a state of a higher number, so that going
    /// down no copy is put twice.
    fn put(&mut self, mask: Mask, must: bool) {
        for state in (0..self.reached.len()).rev() {
            let mut best = self.reached[state].filter(|_| !must);
            for (at, kind) in self.kinds.iter().enumerate() {
                let Some(gain) = kind.takes(state, mask >> at & 1 == 1) else {
                    continue;
                };
                let before = self.reached[state - kind.stride];
                best = best.max(before.map(|soft| soft + gain));
            }
            self.reached[state] = best;
        }
    }

    /// The slot that the last copy took on the way to a state, and the state before: this
    /// is the table without it.
    fn taken_last(&self, state: usize, soft: Option<u8>, mask: Mask) -> (Slot, usize) {
        for (at, kind) in self.kinds.iter().enumerate() {
            let holds = mask >> at & 1 == 1;
            let Some(gain) = kind.takes(state, holds) else {
                continue;
            };
            let before = state - kind.stride;
            if soft.is_some() && self.reached[before].map(|soft| soft + gain) == soft {
                let slot = match kind.force {
                    None => Slot::Anywhere,
                    Some(_) if holds => Slot::Term(at),
                    Some(_) => Slot::StandIn(at),
                };
                return (slot, before);
            }
        }
        panic!("a state that was reached was reached from another one");
    }

    fn best(&self) -> Option<Fill> {
        self.best_state().map(|(fill, _)| fill)
    }

    fn best_state(&self) -> Option<(Fill, usize)> {
        let states = self.reached.iter().enumerate();
        let reached = states.filter_map(|(state, soft)| Some((self.tell(state, (*soft)?), state)));
        reached.max()
    }

    fn tell(&self, state: usize, soft: u8) -> Fill {
        let taken = |kind: &Kind| state / kind.stride % (kind.count + 1);
        let hard = |kind: &&Kind| kind.force == Some(Force::Hard);
        let small = |number: usize| u8::try_from(number).expect("at most the copies of a policy");
        Fill {
            filled: small(self.kinds.iter().map(taken).sum()),
            hard: small(self.kinds.iter().filter(hard).map(taken).sum()),
            soft,
        }
    }
}
