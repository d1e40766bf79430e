//! The pure choice of servers for copies.
//!
//! Copies spread over failure domains, widest first: a datacentre (`dc`) that
//! has fewest of the copies wins, then a rack, and no server gets two. Among
//! equals the choice is random by free space, from the caller's generator.

use crate::ids::ServerId;
use crate::rng::Rng;

/// Labels of a server or a client, as configured: `(key, value)`.
pub type Labels = Vec<(String, String)>;

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

/// The value of a label.
#[must_use]
pub fn label<'a>(labels: &'a Labels, key: &str) -> Option<&'a str> {
    labels
        .iter()
        .find(|(k, _)| k == key)
        .map(|(_, value)| value.as_str())
}

/// How far two places are apart: 0 the same rack, 1 the same datacentre, 2 else.
/// A place without labels counts as one of its own kind.
#[must_use]
pub fn distance(left: &Labels, right: &Labels) -> u8 {
    let same = |key| label(left, key) == label(right, key);
    match (same("dc"), same("rack")) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

/// Chooses up to `count` servers among `candidates` for new copies of something
/// that `present` servers already hold. Fewer are returned when there are no more.
#[must_use]
pub fn choose(
    candidates: &[Candidate<'_>],
    present: &[&Labels],
    count: usize,
    rng: &mut Rng,
) -> Vec<ServerId> {
    let mut taken: Vec<&Labels> = present.to_vec();
    let mut left: Vec<&Candidate<'_>> = candidates.iter().filter(|one| one.free > 0).collect();
    let mut chosen = Vec::with_capacity(count);
    while chosen.len() < count && !left.is_empty() {
        let at = best(&left, &taken, rng);
        let one = left.swap_remove(at);
        taken.push(one.labels);
        chosen.push(one.server);
    }
    chosen
}

/// The place in `left` of the server that shares least with `taken`.
fn best(left: &[&Candidate<'_>], taken: &[&Labels], rng: &mut Rng) -> usize {
    let crowd = |one: &Candidate<'_>| crowding(one.labels, taken);
    let least = left
        .iter()
        .map(|one| crowd(one))
        .min()
        .expect("somebody is left");
    let equals: Vec<usize> = (0..left.len())
        .filter(|&at| crowd(left[at]) == least)
        .collect();
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

/// How many of `taken` share the datacentre, then the rack, with `labels`.
fn crowding(labels: &Labels, taken: &[&Labels]) -> (usize, usize) {
    let share = |key| {
        let mine = label(labels, key);
        taken
            .iter()
            .filter(|other| label(other, key) == mine)
            .count()
    };
    (share("dc"), share("rack"))
}

/// Of servers that hold copies of one chunk, `extra` ones to take it away from:
/// the most crowded first, then the fullest, then the highest number.
#[must_use]
pub fn surplus(holders: &[Candidate<'_>], extra: usize) -> Vec<ServerId> {
    let mut kept: Vec<&Candidate<'_>> = holders.iter().collect();
    let mut gone = Vec::with_capacity(extra);
    while gone.len() < extra && !kept.is_empty() {
        let worst = (0..kept.len())
            .max_by_key(|&at| burden(&kept, at))
            .expect("somebody is left");
        gone.push(kept.swap_remove(worst).server);
    }
    gone
}

fn burden(
    kept: &[&Candidate<'_>],
    at: usize,
) -> ((usize, usize), std::cmp::Reverse<u64>, ServerId) {
    let others: Vec<&Labels> = kept
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != at)
        .map(|(_, one)| one.labels)
        .collect();
    (
        crowding(kept[at].labels, &others),
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
            let chosen = choose(&candidates, &[], 2, &mut rng);
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
        let mut rng = Rng::new(2);
        let mut hits = [0; 4];
        for _ in 0..4000 {
            hits[usize::try_from(choose(&candidates, &[], 1, &mut rng)[0].0).expect("small")] += 1;
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
        assert_eq!(surplus(&holders, 1), vec![ServerId(2)]);
    }
}
