//! The choice against an oracle that tries everything: on small clusters every set of
//! servers and every way to put it into slots.

use antler_core::chunk::geometry::StripeShape;
use antler_core::ids::ServerId;
use antler_core::placement::class::{Differ, Domain, Force, Term};
use antler_core::placement::label::{Expression, Operation, label};
use antler_core::placement::{
    Candidate, Fill, Labels, Policy, Slot, admits, assign, choose, fill, homecoming, surplus,
    survives,
};
use antler_core::rng::Rng;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The best fill with all of `fixed` and any of `others`: by trying everything.
fn oracle(policy: &Policy, fixed: &[&Labels], others: &[&Labels]) -> Option<Fill> {
    let mut slots: Vec<Option<&Term>> = Vec::new();
    for term in &policy.terms {
        slots.extend((0..term.count).map(|_| Some(term)));
    }
    slots.resize(usize::from(policy.copies), None);
    let must = fixed.iter().map(|one| (*one, true));
    let may = others.iter().map(|one| (*one, false));
    let all: Vec<_> = must.chain(may).collect();
    try_all(policy, &all, &mut slots, &mut Vec::new(), Fill::default())
}

/// Each copy stays out or takes each slot that takes it. A slot taken is removed.
fn try_all<'a>(
    policy: &Policy,
    copies: &[(&'a Labels, bool)],
    slots: &mut Vec<Option<&Term>>,
    there: &mut Vec<&'a Labels>,
    so_far: Fill,
) -> Option<Fill> {
    let Some(((copy, must), rest)) = copies.split_first() else {
        return Some(so_far);
    };
    let mut best = None;
    if !must {
        best = try_all(policy, rest, slots, there, so_far);
    }
    if there.iter().any(|other| share(policy, other, copy)) {
        return best;
    }
    for at in 0..slots.len() {
        let slot = slots[at];
        let Some(gained) = take(slot, copy, so_far) else {
            continue;
        };
        slots.swap_remove(at);
        there.push(copy);
        best = best.max(try_all(policy, rest, slots, there, gained));
        there.pop();
        slots.push(slot);
        let last = slots.len() - 1;
        slots.swap(at, last);
    }
    best
}

fn take(slot: Option<&Term>, copy: &Labels, so_far: Fill) -> Option<Fill> {
    let mut gained = so_far;
    gained.filled += 1;
    if let Some(term) = slot {
        let holds = term.place.matches(copy);
        match term.force {
            Force::Hard if !holds => return None,
            Force::Hard => gained.hard += 1,
            Force::Soft => gained.soft += u8::from(holds),
        }
    }
    Some(gained)
}

fn share(policy: &Policy, left: &Labels, right: &Labels) -> bool {
    let same = |key| label(left, key) == label(right, key);
    match policy.differ {
        Some(Differ {
            domain: Domain::Rack,
            force: Force::Hard,
        }) => same("dc") && same("rack"),
        Some(Differ {
            domain: Domain::Datacentre,
            force: Force::Hard,
        }) => same("dc"),
        Some(Differ {
            domain: Domain::Host,
            force: Force::Hard,
        }) => same("host"),
        _ => false,
    }
}

fn places() -> impl Strategy<Value = Vec<Labels>> {
    let text = |key: &str, value: u8| (key.to_owned(), value.to_string());
    let place = (0..3_u8, 0..3_u8, 0..2_u8, 0..3_u8).prop_map(move |(dc, rack, tier, host)| {
        let mut labels = Labels::new();
        if host > 0 {
            labels.push(text("host", host));
        }
        if dc > 0 {
            labels.push(text("dc", dc));
        }
        if rack > 0 {
            labels.push(text("rack", rack));
        }
        labels.push(text("tier", tier));
        labels
    });
    prop::collection::vec(place, 0..6)
}

fn expression() -> impl Strategy<Value = Expression> {
    let key = prop::sample::select(vec!["dc", "rack", "tier"]);
    let leaf = (key, 0..3_u8).prop_map(|(key, value)| Expression::is(key, &value.to_string()));
    leaf.prop_recursive(2, 6, 2, |inner| {
        let join = |last: Operation| {
            move |(left, right): (Expression, Expression)| {
                let mut operations = left.operations;
                operations.extend(right.operations);
                operations.push(last.clone());
                Expression { operations }
            }
        };
        prop_oneof![
            inner.clone().prop_map(|one| {
                let mut operations = one.operations;
                operations.push(Operation::Not);
                Expression { operations }
            }),
            (inner.clone(), inner.clone()).prop_map(join(Operation::And)),
            (inner.clone(), inner).prop_map(join(Operation::Or)),
        ]
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let force = || prop_oneof![Just(Force::Hard), Just(Force::Soft)];
    let term = (1..3_u8, expression(), force()).prop_map(|(count, place, force)| Term {
        count,
        place,
        force,
    });
    let domains = [
        Domain::Server,
        Domain::Rack,
        Domain::Datacentre,
        Domain::Host,
    ];
    let domain = prop::sample::select(domains.to_vec());
    let differ = (domain, force()).prop_map(|(domain, force)| Differ { domain, force });
    let parts = (
        prop::collection::vec(term, 0..3),
        0..3_u8,
        prop::option::of(differ),
        any::<bool>(),
    );
    parts.prop_map(|(terms, anywhere, differ, coded)| {
        let counted: u8 = terms.iter().map(|term| term.count).sum();
        let copies = (counted + anywhere).max(1);
        Policy {
            copies,
            terms,
            differ,
            stripe: StripeShape::new(copies - 1, 1).ok().filter(|_| coded),
        }
    })
}

fn candidates(places: &[Labels]) -> Vec<Candidate<'_>> {
    let numbered = (0..).zip(places);
    let candidate = |(server, labels)| Candidate {
        server: ServerId(server),
        labels,
        free: 1 << 30,
    };
    numbered.map(candidate).collect()
}

fn at<'a>(places: &'a [Labels], servers: &[ServerId]) -> Vec<&'a Labels> {
    let place = |server: &ServerId| &places[usize::try_from(server.0).expect("small")];
    servers.iter().map(place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// A policy reads as it is shown.
    #[test]
    fn shown_and_read(policy in policy()) {
        prop_assert!(policy.is_sound());
        let shown = policy.to_string();
        let read: Policy = shown.parse().expect("what is shown can be read");
        prop_assert_eq!(read.to_string(), shown);
        prop_assert_eq!(read, policy);
    }

    /// How well copies fill the slots, and whether all have one.
    #[test]
    fn fills_as_the_oracle_does(policy in policy(), places in places()) {
        let all: Vec<&Labels> = places.iter().collect();
        prop_assert_eq!(Some(fill(&policy, &all)), oracle(&policy, &[], &all));
        prop_assert_eq!(admits(&policy, &all), oracle(&policy, &all, &[]).is_some());
    }

    /// From any copies that are there: what is too many goes, the rest fills as well as
    /// before; what is chosen beside it fills as well as anything could, and nothing
    /// lies where the law does not permit it.
    #[test]
    fn chooses_as_well_as_the_oracle(
        policy in policy(), places in places(), split in 0..6_usize, seed in any::<u64>(),
    ) {
        let all = candidates(&places);
        let (holders, others) = all.split_at(split.min(all.len()));
        let gone = surplus(&policy, holders);
        let kept: Vec<ServerId> = holders.iter().map(|one| one.server)
            .filter(|server| !gone.contains(server)).collect();
        let (held, kept) = (at(&places, &holders.iter().map(|one| one.server).collect::<Vec<_>>()), at(&places, &kept));
        prop_assert_eq!(oracle(&policy, &kept, &[]), oracle(&policy, &[], &held));
        let mut rng = Rng::new(seed);
        let chosen = choose(&policy, others, &kept, 9, &mut rng);
        for server in &chosen {
            prop_assert!(policy.permits(&places[usize::try_from(server.0).expect("small")]));
        }
        let free: Vec<&Labels> = others.iter().map(|one| one.labels).collect();
        let best = oracle(&policy, &kept, &free);
        let mut with = kept.clone();
        with.extend(at(&places, &chosen));
        prop_assert_eq!(oracle(&policy, &with, &[]), best);
        prop_assert_eq!(chosen.len() + kept.len(), usize::from(best.expect("kept fits").filled));
    }

    /// The slots that copies are told to fill are a way to put them there, and the best.
    #[test]
    fn assigns_as_the_oracle_does(policy in policy(), places in places()) {
        let all: Vec<&Labels> = places.iter().collect();
        let slots = assign(&policy, &all);
        prop_assert_eq!(slots.is_some(), admits(&policy, &all));
        let mut told = Fill::default();
        let mut taken = vec![0; policy.terms.len() + 1];
        for (slot, labels) in slots.iter().flatten().zip(&all) {
            let at = match *slot {
                Slot::Term(at) | Slot::StandIn(at) => at,
                Slot::Anywhere => policy.terms.len(),
            };
            let gained = take(policy.terms.get(at), labels, told);
            told = gained.expect("a hard slot takes what it is for");
            let holds = policy.terms.get(at).is_some_and(|term| term.place.matches(labels));
            prop_assert_eq!(holds && *slot != Slot::Anywhere, matches!(slot, Slot::Term(_)));
            taken[at] += 1;
        }
        let counts = policy.terms.iter().map(|term| term.count).chain([policy.anywhere()]);
        prop_assert!(taken.iter().zip(counts).all(|(taken, count)| *taken <= count));
        prop_assert_eq!(slots.map(|_| told), oracle(&policy, &all, &[]));
    }

    /// What is survived is what trying every loss tells; with numbers that are there twice
    /// it is no more than that.
    #[test]
    fn survives_as_trying_tells(
        pieces in prop::collection::vec((0..6_u8, 0..5_u8), 0..7), least in 1..5_usize,
    ) {
        let left = |lost: u32| {
            let there = pieces.iter().filter(|(_, domain)| lost >> domain & 1 == 0);
            there.map(|(number, _)| number).collect::<BTreeSet<_>>().len()
        };
        let domains: BTreeSet<u8> = pieces.iter().map(|(_, domain)| *domain).collect();
        let losses = |count: usize| {
            let all = domains.iter().fold(0, |all, domain| all | 1_u32 << domain);
            (0..32_u32).filter(move |lost| lost & !all == 0 && lost.count_ones() as usize == count)
        };
        let holds = |count: &usize| losses(*count).all(|lost| left(lost) >= least);
        let best = (0..=domains.len()).take_while(holds).last();
        let told = survives(&pieces, least);
        prop_assert_eq!(told.is_some(), best.is_some());
        prop_assert!(told <= best, "{:?} and not {:?}", told, best);
        let numbers: BTreeSet<u8> = pieces.iter().map(|(number, _)| *number).collect();
        if numbers.len() == pieces.len() {
            prop_assert_eq!(told, best);
        }
    }

    /// One copy more at a time ends where all at once do.
    #[test]
    fn one_by_one_is_as_good(policy in policy(), places in places(), seed in any::<u64>()) {
        let (mut rng, mut there) = (Rng::new(seed), Vec::new());
        loop {
            let mut left = candidates(&places);
            left.retain(|one| !there.contains(&one.server));
            let next = choose(&policy, &left, &at(&places, &there), 1, &mut rng);
            let Some(server) = next.first() else { break };
            there.push(*server);
        }
        let all: Vec<&Labels> = places.iter().collect();
        prop_assert_eq!(oracle(&policy, &at(&places, &there), &[]), oracle(&policy, &[], &all));
    }

    /// Coming home step by step ends, hurts no law, and where no domain is a law, ends at
    /// the best that there is.
    #[test]
    fn comes_home(policy in policy(), places in places(), seed in any::<u64>(), from in any::<u64>()) {
        let all = candidates(&places);
        // A start that knows nothing of soft terms.
        let mut rng = Rng::new(from);
        let mut hard = policy.clone();
        hard.terms.retain(|term| term.force == Force::Hard);
        let mut there = choose(&hard, &all, &[], 9, &mut rng);
        prop_assume!(there.len() == usize::from(policy.copies));
        let mut rng = Rng::new(seed);
        for _ in 0..=policy.copies {
            let mut others = all.clone();
            others.retain(|one| !there.contains(&one.server));
            let labels = at(&places, &there);
            let before = oracle(&policy, &labels, &[]).expect("it fits");
            let Some(home) = homecoming(&policy, &others, &labels, &mut rng) else { break };
            there.push(home);
            let holders: Vec<_> = all.iter().filter(|one| there.contains(&one.server)).cloned().collect();
            let gone = surplus(&policy, &holders);
            prop_assert_eq!(gone.len(), 1);
            prop_assert!(gone[0] != home);
            there.retain(|server| !gone.contains(server));
            let after = oracle(&policy, &at(&places, &there), &[]).expect("it fits still");
            prop_assert!(after > before);
        }
        let everywhere: Vec<&Labels> = places.iter().collect();
        let is_free = policy.differ.is_none_or(|differ| differ.force != Force::Hard);
        if is_free {
            prop_assert_eq!(oracle(&policy, &at(&places, &there), &[]), oracle(&policy, &[], &everywhere));
        }
    }
}
