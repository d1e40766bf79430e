//! Makes a failing plan small: fewer faults, programs, steps, nodes, and nothing
//! unusual that the failure does not need. A candidate is taken when it still fails in
//! the same way; which way that is, and how it is run, is the caller's.
//!
//! Lists shrink by delta debugging (Zeller and Hildebrandt 2002, the complements only).
//! Invariant: the plan that comes out failed when it was last run.

use antler_sim::plan::{Plan, Program, Step};
use antler_sim::scenario::LimitsPlan;

/// Tells the first of some candidates that fails as the original does.
pub(crate) trait Oracle {
    /// `None`: none of them does, or there is no time left to find out.
    fn first_failing(&mut self, candidates: &[Plan]) -> Option<usize>;
}

/// The smallest plan that was found.
pub(crate) fn shrink(mut plan: Plan, oracle: &mut dyn Oracle) -> Plan {
    loop {
        let before = size(&plan);
        plan = shrink_list(plan, oracle, |plan| plan.faults.clone(), with_faults);
        plan = shrink_list(plan, oracle, |plan| plan.programs.clone(), with_programs);
        plan = shrink_list(plan, oracle, steps, with_steps);
        plan = simplify(plan, oracle);
        if size(&plan) == before {
            return plan;
        }
    }
}

/// What must get less in each round.
fn size(plan: &Plan) -> (usize, usize, usize, u64) {
    let cluster = &plan.cluster;
    let nodes = cluster.masters + cluster.metaloggers + cluster.chunkservers + cluster.clients;
    (
        plan.faults.len(),
        plan.programs.len(),
        steps(plan).len(),
        nodes,
    )
}

fn with_faults(plan: &Plan, faults: Vec<antler_sim::plan::FaultPlan>) -> Plan {
    Plan {
        faults,
        ..plan.clone()
    }
}

fn with_programs(plan: &Plan, programs: Vec<Program>) -> Plan {
    Plan {
        programs,
        ..plan.clone()
    }
}

/// Every step: of which program, and its place in it.
fn steps(plan: &Plan) -> Vec<(usize, usize)> {
    let programs = plan.programs.iter().enumerate();
    programs
        .flat_map(|(at, program)| (0..program.steps.len()).map(move |step| (at, step)))
        .collect()
}

/// Only these steps. Those that remain come when they came: each thinks for as long as
/// the removed ones before it thought besides.
fn with_steps(plan: &Plan, kept: Vec<(usize, usize)>) -> Plan {
    let mut programs = Vec::new();
    for (at, program) in plan.programs.iter().enumerate() {
        let mut waited = 0;
        let mut steps = Vec::new();
        for (number, step) in program.steps.iter().enumerate() {
            waited += step.think;
            if kept.binary_search(&(at, number)).is_ok() {
                let think = std::mem::take(&mut waited);
                let operation = step.operation.clone();
                steps.push(Step { think, operation });
            }
        }
        if !steps.is_empty() {
            let client = program.client;
            programs.push(Program { client, steps });
        }
    }
    with_programs(plan, programs)
}

/// Shrinks one list of a plan by delta debugging.
fn shrink_list<T: Clone>(
    plan: Plan,
    oracle: &mut dyn Oracle,
    list: impl Fn(&Plan) -> Vec<T>,
    with: impl Fn(&Plan, Vec<T>) -> Plan,
) -> Plan {
    let mut first_failing = |candidates: &[Vec<T>]| {
        let plans = candidates.iter().map(|items| with(&plan, items.clone()));
        oracle.first_failing(&plans.collect::<Vec<_>>())
    };
    let kept = reduce(list(&plan), &mut first_failing);
    with(&plan, kept)
}

/// The smallest list found that still fails.
fn reduce<T: Clone>(
    mut kept: Vec<T>,
    first_failing: &mut dyn FnMut(&[Vec<T>]) -> Option<usize>,
) -> Vec<T> {
    if kept.is_empty() || first_failing(&[Vec::new()]).is_some() {
        return Vec::new();
    }
    let mut parts = 2;
    while kept.len() >= 2 {
        let candidates = without_each(&kept, parts);
        match first_failing(&candidates) {
            Some(at) => {
                kept = candidates.into_iter().nth(at).expect("it is one of them");
                parts = (parts - 1).max(2);
            }
            None if parts >= kept.len() => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    kept
}

/// The list without each of so many parts of it.
fn without_each<T: Clone>(items: &[T], parts: usize) -> Vec<Vec<T>> {
    let parts = parts.min(items.len());
    let bound = |part: usize| items.len() * part / parts;
    (0..parts)
        .map(|part| [&items[..bound(part)], &items[bound(part + 1)..]].concat())
        .collect()
}

/// Takes one simplification after the other until none is taken any more.
fn simplify(mut plan: Plan, oracle: &mut dyn Oracle) -> Plan {
    loop {
        let candidates = simpler(&plan);
        match oracle.first_failing(&candidates) {
            Some(at) => plan = candidates.into_iter().nth(at).expect("it is one of them"),
            None => return plan,
        }
    }
}

/// Sets how many of something a cluster has.
type SetCount = fn(&mut Plan, u64);

/// Simpler plans, the boldest first. Each is smaller by some count that grows nowhere
/// else, so that simplifying ends.
fn simpler(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    plans.extend(used_clients_only(plan));
    let cluster = &plan.cluster;
    let least = cluster.copies.max(1);
    // Sites stay, however few nodes are left in them.
    let by_turns = match plan.sites.is_empty() {
        true => cluster.datacentres,
        false => 1,
    };
    let counts: [(u64, u64, SetCount); 6] = [
        (cluster.metaloggers, 0, |plan, n| {
            plan.cluster.metaloggers = n
        }),
        (cluster.masters, 1, |plan, n| plan.cluster.masters = n),
        (cluster.chunkservers, least, |plan, n| {
            plan.cluster.chunkservers = n
        }),
        (cluster.disks, 1, |plan, n| plan.cluster.disks = n),
        (by_turns, 1, |plan, n| plan.cluster.datacentres = n),
        (cluster.copies, 1, |plan, n| plan.cluster.copies = n),
    ];
    for (now, least, set) in counts {
        for less in fewer(now, least) {
            plans.push(changed(plan, |plan| {
                set(plan, less);
                plan.fit_sites();
            }));
        }
    }
    plans.extend(usual_limits(plan));
    plans.extend(plainer(plan));
    plans
}

/// The least, the half, and one less.
fn fewer(now: u64, least: u64) -> Vec<u64> {
    let mut fewer = vec![least, least.midpoint(now), now.saturating_sub(1)];
    fewer.retain(|&count| least <= count && count < now);
    fewer.dedup();
    fewer
}

fn changed(plan: &Plan, change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan.clone();
    change(&mut plan);
    plan
}

/// Without the mounts that have no program; the others are numbered anew.
fn used_clients_only(plan: &Plan) -> Option<Plan> {
    let mut used: Vec<u64> = plan.programs.iter().map(|program| program.client).collect();
    used.sort_unstable();
    used.dedup();
    let count = used.len().max(1) as u64;
    if count >= plan.cluster.clients || !plan.sites.is_empty() {
        return None;
    }
    Some(changed(plan, |plan| {
        plan.cluster.clients = count;
        for program in &mut plan.programs {
            let place = used.binary_search(&program.client);
            program.client = place.expect("it is used") as u64;
        }
    }))
}

/// With the usual limits, or with one of them as usual.
fn usual_limits(plan: &Plan) -> Vec<Plan> {
    let unusual = plan.limits.unusual();
    let mut plans = Vec::new();
    if unusual.len() > 1 {
        plans.push(changed(plan, |plan| plan.limits = LimitsPlan::default()));
    }
    for (name, _) in unusual {
        plans.push(changed(plan, |plan| {
            plan.limits = plan.limits.with_usual(name)
        }));
    }
    plans
}

/// With a network and clocks that are as they should be, and half as long.
fn plainer(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    if plan.network.jitter > 0 {
        plans.push(changed(plan, |plan| plan.network.jitter = 0));
    }
    if plan.network.retransmits > 0 {
        plans.push(changed(plan, |plan| plan.network.retransmits = 0));
    }
    if plan.cluster.drift {
        plans.push(changed(plan, |plan| plan.cluster.drift = false));
    }
    if plan.duration > 1_000_000_000 {
        plans.push(changed(plan, |plan| plan.duration /= 2));
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;
    use antler_sim::scenario;

    /// Fails as long as some things are in a plan.
    struct Needs<F>(F, usize);

    impl<F: Fn(&Plan) -> bool> Oracle for Needs<F> {
        fn first_failing(&mut self, candidates: &[Plan]) -> Option<usize> {
            self.1 += candidates.len();
            candidates.iter().position(&self.0)
        }
    }

    fn plan() -> Plan {
        let text = "# shows\n[cluster]\nclients = 3\nchunkservers = 6\nmetaloggers = 2\n\
                    [limits]\nrepairs = 1\nlocate = 3\n[workload]\nactors = 2\n\
                    [[fault]]\ndo = \"kill\"\nwho = \"leader\"\nat = \"1s\"\ntimes = 9\nevery = \"1s\"\n\
                    [[fault]]\ndo = \"pause\"\nwho = \"chunkserver\"\nat = \"1s\"\n";
        Plan::draw(&scenario::parse("s.toml", text).unwrap(), 3)
    }

    #[test]
    fn a_list_is_reduced_to_what_is_needed() {
        for needed in [vec![], vec![0], vec![99], vec![3, 57], vec![10, 11, 98]] {
            let mut tries = 0;
            let all: Vec<u32> = (0..100).collect();
            let kept = reduce(all, &mut |candidates| {
                tries += candidates.len();
                let fails = |items: &Vec<u32>| needed.iter().all(|item| items.contains(item));
                candidates.iter().position(fails)
            });
            assert_eq!(kept, needed);
            assert!(tries < 200, "{tries} tries");
        }
    }

    #[test]
    fn a_plan_keeps_only_what_its_failure_needs() {
        let needed = plan().programs[3].steps[20].clone();
        let same =
            |step: &Step| format!("{:?}", step.operation) == format!("{:?}", needed.operation);
        let fails = |plan: &Plan| {
            let mut steps = plan.programs.iter().flat_map(|program| &program.steps);
            steps.any(same)
                && plan
                    .faults
                    .iter()
                    .any(|fault| fault.pick == plan.faults[0].pick)
                && plan.limits.repairs == 1
                && plan.cluster.chunkservers >= 4
        };
        let mut oracle = Needs(fails, 0);
        let small = shrink(plan(), &mut oracle);
        assert!(oracle.0(&small), "it still fails");
        assert_eq!((small.faults.len(), small.programs.len()), (1, 1));
        assert_eq!(small.programs[0].steps.len(), 1);
        let cluster = small.cluster;
        assert_eq!(
            (cluster.clients, cluster.masters, cluster.metaloggers),
            (1, 1, 0)
        );
        assert_eq!((cluster.chunkservers, cluster.copies), (4, 1));
        assert_eq!(small.limits.unusual(), [("repairs", 1)]);
        assert_eq!(small.programs[0].client, 0);
    }

    #[test]
    fn steps_that_remain_come_when_they_came() {
        let plan = plan();
        let steps = &plan.programs[1].steps;
        let until: u64 = steps[..=7].iter().map(|step| step.think).sum();
        let small = with_steps(&plan, vec![(1, 7)]);
        assert_eq!(small.programs.len(), 1);
        assert_eq!(small.programs[0].steps[0].think, until);
    }

    #[test]
    fn without_time_nothing_changes() {
        let mut oracle = Needs(|_: &Plan| false, 0);
        let same = shrink(plan(), &mut oracle);
        assert_eq!(size(&same), size(&plan()));
    }
}
