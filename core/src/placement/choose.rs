//! The pure choice of servers for copies, and of copies that are too many.
//!
//! What a policy demands comes first: its slots are filled as well as they can be
//! (`slots` tells how well). Among choices that are equal in that, copies spread
//! over failure domains, widest first: a datacentre (`dc`) that has fewest of the
//! copies wins, then a rack, then a host, where servers say which is theirs, and no
//! server gets two. Among equals the choice is
//! random by free space, from the caller's generator. Invariant: what is chosen
//! never goes against a hard term, alone or together with what is present.

use super::class::{Domain, Force, Policy, domain_of};
use super::label::{Labels, label};
use super::slots::{best_fill, fill};
use crate::ids::ServerId;
use crate::rng::Rng;

/// A server that may take a copy, or has one.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Which.
    pub server: ServerId,
    /// Where it stands.
    pub labels: &'a Labels,
    /// Bytes free on its best disk.
    pub free: u64,
}

/// Chooses up to `most` servers among `candidates` for new copies of something that
/// `present` servers already hold, each in a slot of the policy: with them it is
/// filled as well as it can be. Fewer are returned when there are no more slots or
/// no more servers that may take one.
///
/// # Panics
/// When what is present does not fit into the policy: see [`surplus`].
#[must_use]
pub fn choose(
    policy: &Policy,
    candidates: &[Candidate<'_>],
    present: &[&Labels],
    most: usize,
    rng: &mut Rng,
) -> Vec<ServerId> {
    let room = usize::from(policy.copies).saturating_sub(present.len());
    let mut taken: Vec<&Labels> = present.to_vec();
    let mut left: Vec<&Candidate<'_>> = candidates.iter().filter(|one| one.free > 0).collect();
    let mut chosen = Vec::new();
    while chosen.len() < most.min(room) && !left.is_empty() {
        let found = match policy.is_plain() {
            true => Some(best(policy, &left, &taken, rng)),
            false => fitting(policy, &left, &taken, rng),
        };
        let Some(at) = found else { break };
        let one = left.swap_remove(at);
        taken.push(one.labels);
        chosen.push(one.server);
    }
    chosen
}

/// The place in `left` of a server that leads to the best fill.
fn fitting(
    policy: &Policy,
    left: &[&Candidate<'_>],
    taken: &[&Labels],
    rng: &mut Rng,
) -> Option<usize> {
    let labels: Vec<&Labels> = left.iter().map(|one| one.labels).collect();
    let target = best_fill(policy, taken, &labels).expect("what is present fits");
    if usize::from(target.filled) == taken.len() {
        return None;
    }
    preferred(policy, left, taken, rng, |one| {
        let mut with = taken.to_vec();
        with.push(one);
        best_fill(policy, &with, &labels_but(&labels, one)) == Some(target)
    })
}

/// All labels but those of one server.
fn labels_but<'a>(labels: &[&'a Labels], one: &Labels) -> Vec<&'a Labels> {
    let mut others = labels.to_vec();
    let at = others.iter().position(|other| std::ptr::eq(*other, one));
    others.swap_remove(at.expect("it is one of them"));
    others
}

/// The first server in the order of preference for which `will_do` holds.
fn preferred(
    policy: &Policy,
    left: &[&Candidate<'_>],
    taken: &[&Labels],
    rng: &mut Rng,
    will_do: impl Fn(&Labels) -> bool,
) -> Option<usize> {
    let mut rest: Vec<usize> = (0..left.len()).collect();
    while !rest.is_empty() {
        let some: Vec<&Candidate<'_>> = rest.iter().map(|&at| left[at]).collect();
        let at = rest[best(policy, &some, taken, rng)];
        if will_do(left[at].labels) {
            return Some(at);
        }
        // Nor will any other that is labelled alike.
        rest.retain(|&other| left[other].labels != left[at].labels);
    }
    None
}

/// A server to which one more copy may go so that, when one of `present` goes, more
/// of the soft terms hold than do now. What is present fits into the policy.
#[must_use]
pub fn homecoming(
    policy: &Policy,
    candidates: &[Candidate<'_>],
    present: &[&Labels],
    rng: &mut Rng,
) -> Option<ServerId> {
    let now = fill(policy, present);
    let wanted = policy.terms.iter().filter(|term| term.force == Force::Soft);
    let wanted: u8 = wanted.map(|term| term.count).sum();
    if now.soft == wanted || now.filled < policy.copies {
        return None;
    }
    let left: Vec<&Candidate<'_>> = candidates.iter().filter(|one| one.free > 0).collect();
    let at = preferred(policy, &left, present, rng, |one| {
        policy.permits(one)
            && best_fill(policy, &[one], present).is_some_and(|then| {
                (then.filled, then.hard) == (now.filled, now.hard) && then.soft > now.soft
            })
    })?;
    Some(left[at].server)
}

/// Whether a copy at `new` is as good as one at `old` beside those at `others`: the policy
/// is filled as well, and no more of them share a failure domain.
#[must_use]
pub fn replaces(policy: &Policy, others: &[&Labels], old: &Labels, new: &Labels) -> bool {
    let filled_with = |one| {
        let mut all = others.to_vec();
        all.push(one);
        fill(policy, &all)
    };
    policy.permits(new)
        && filled_with(new) >= filled_with(old)
        && crowding(policy, new, others) <= crowding(policy, old, others)
}

/// The place in `left` of the server that shares least with `taken`.
fn best(policy: &Policy, left: &[&Candidate<'_>], taken: &[&Labels], rng: &mut Rng) -> usize {
    let crowd: Vec<Crowd> = left
        .iter()
        .map(|one| crowding(policy, one.labels, taken))
        .collect();
    let least = crowd.iter().min().expect("somebody is left");
    let equals: Vec<usize> = (0..left.len()).filter(|&at| crowd[at] == *least).collect();
    let total: u128 = equals.iter().map(|&at| u128::from(left[at].free)).sum();
    let bound = u64::try_from(total.min(u128::from(u64::MAX))).expect("cut to 64 bits");
    let mut lot = u128::from(rng.below(bound));
    for &at in &equals {
        let weight = u128::from(left[at].free);
        if lot < weight {
            return at;
        }
        lot -= weight;
    }
    equals[equals.len() - 1]
}

/// How many copies share a wide, a narrow, the narrowest failure domain.
type Crowd = (usize, usize, usize);

/// How many of `taken` share failure domains with `labels`, the widest first.
fn crowding(policy: &Policy, labels: &Labels, taken: &[&Labels]) -> Crowd {
    let share = |key| {
        let mine = label(labels, key);
        taken
            .iter()
            .filter(|other| label(other, key) == mine)
            .count()
    };
    let together = |domain| {
        let mine = domain_of(labels, domain);
        let same = taken
            .iter()
            .filter(|other| domain_of(other, domain) == mine);
        same.count()
    };
    // Servers that say nothing of a host are each on their own.
    let host = match label(labels, "host") {
        Some(_) => share("host"),
        None => 0,
    };
    match policy.differ.map(|differ| differ.domain) {
        None | Some(Domain::Datacentre) => (share("dc"), share("rack"), host),
        Some(Domain::Rack) => (together(Domain::Rack), share("dc"), host),
        Some(Domain::Host) => (host, share("dc"), share("rack")),
        Some(Domain::Server) => (0, 0, host),
    }
}

/// Of servers that hold copies of one chunk, those to take it away from, so that the
/// rest fits into the policy and fills it as well as all of them do: the most crowded
/// first, then the fullest, then the highest number.
#[must_use]
pub fn surplus(policy: &Policy, holders: &[Candidate<'_>]) -> Vec<ServerId> {
    let mut kept: Vec<&Candidate<'_>> = holders.iter().collect();
    let mut gone = Vec::new();
    let target = fill(policy, &labels_of(&kept));
    while kept.len() > usize::from(target.filled) {
        let mut order: Vec<usize> = (0..kept.len()).collect();
        order.sort_by_cached_key(|&at| std::cmp::Reverse(burden(policy, &kept, at)));
        let spare = order.into_iter().find(|&at| {
            let mut rest = labels_of(&kept);
            rest.swap_remove(at);
            fill(policy, &rest) == target
        });
        let spare = spare.expect("what fills no slot can go");
        gone.push(kept.swap_remove(spare).server);
    }
    gone
}

fn labels_of<'a>(servers: &[&Candidate<'a>]) -> Vec<&'a Labels> {
    servers.iter().map(|one| one.labels).collect()
}

fn burden(
    policy: &Policy,
    kept: &[&Candidate<'_>],
    at: usize,
) -> (Crowd, std::cmp::Reverse<u64>, ServerId) {
    let others: Vec<&Labels> = kept
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at)
        .map(|(_, one)| one.labels)
        .collect();
    (
        crowding(policy, kept[at].labels, &others),
        std::cmp::Reverse(kept[at].free),
        kept[at].server,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dc: &str, rack: &str) -> Labels {
        vec![("dc".into(), dc.into()), ("rack".into(), rack.into())]
    }

    #[test]
    fn a_copy_is_replaced_by_one_that_is_as_good() {
        let (west, other) = (place("west", "r1"), place("west", "r2"));
        let (east, north) = (place("east", "r1"), place("north", "r1"));
        let cases: [(&str, &[&Labels], &Labels, &Labels, bool); 8] = [
            ("copies(2)", &[&east], &west, &other, true),
            ("copies(2)", &[&east], &west, &north, true),
            ("copies(2)", &[&east], &west, &east, false),
            ("1 in dc=west, 1 in dc=east", &[&east], &west, &other, true),
            ("1 in dc=west, 1 in dc=east", &[&east], &west, &north, false),
            (
                "1 in dc=west soft, 1 in dc=east",
                &[&east],
                &west,
                &north,
                false,
            ),
            (
                "1 in dc=west soft, 1 in dc=east",
                &[&east],
                &north,
                &west,
                true,
            ),
            ("2 in dc=west", &[&west], &other, &west, false),
        ];
        for (policy, others, old, new, wanted) in cases {
            let policy: Policy = policy.parse().expect("it is well written");
            let found = replaces(&policy, others, old, new);
            assert_eq!(found, wanted, "{policy}: {old:?} by {new:?}");
        }
    }

    #[test]
    fn two_copies_lie_in_two_datacentres() {
        let places = [
            place("west", "r1"),
            place("west", "r2"),
            place("east", "r1"),
            place("east", "r2"),
        ];
        let candidates: Vec<Candidate<'_>> = (0u64..)
            .zip(&places)
            .map(|(n, labels)| Candidate {
                server: ServerId(n),
                labels,
                free: 1 << 30,
            })
            .collect();
        let mut rng = Rng::new(1);
        for _ in 0..200 {
            let chosen = choose(&Policy::copies(2), &candidates, &[], 2, &mut rng);
            let west = chosen.iter().filter(|server| server.0 < 2).count();
            assert_eq!(
                (chosen.len(), west),
                (2, 1),
                "one copy on each side: {chosen:?}"
            );
        }
    }

    #[test]
    fn space_draws_copies_and_a_full_server_gets_none() {
        let nowhere = Labels::new();
        let candidate = |n, free| Candidate {
            server: ServerId(n),
            labels: &nowhere,
            free,
        };
        let candidates = [
            candidate(1, 0),
            candidate(2, 1 << 20),
            candidate(3, 3 << 20),
        ];
        let (one, mut rng) = (Policy::copies(1), Rng::new(2));
        let mut hits = [0; 4];
        for _ in 0..4000 {
            hits[usize::try_from(choose(&one, &candidates, &[], 1, &mut rng)[0].0)
                .expect("small")] += 1;
        }
        assert_eq!(hits[1], 0);
        assert!(
            (2700..3300).contains(&hits[3]),
            "three quarters of the space draw three quarters: {hits:?}"
        );
    }

    #[test]
    fn what_is_too_much_goes_where_it_crowds() {
        let (west, east) = (place("west", "r1"), place("east", "r1"));
        let holder = |n, labels| Candidate {
            server: ServerId(n),
            labels,
            free: 1,
        };
        let holders = [holder(1, &west), holder(2, &west), holder(3, &east)];
        assert_eq!(surplus(&Policy::copies(2), &holders), vec![ServerId(2)]);
    }
}
