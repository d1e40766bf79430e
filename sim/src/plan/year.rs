//! The events of a year, drawn, and the year with its quiet stretches left out.
//!
//! Each thing that can fail does so as a Poisson process of its rate over the real year.
//! What begins or ends divides the year into stretches; of each stretch at most `quiet`
//! is played, from its beginning, and the rest is left out. So events that are close in
//! the year are as close in the run, and what follows an event takes its real time unless
//! the next event comes, which it does sooner than in the year, never later.

use super::{FaultPlan, Plan, SitePlan, When};
use crate::network::Nanos;
use crate::scenario::{Action, Each, Rate, Who, Year};
use antler_core::machine::Role;
use antler_core::rng::Rng;
use serde::{Deserialize, Serialize};

const DAY: Nanos = 86_400_000_000_000;
/// When an empty disk takes the place of one that died, unless it is said.
const REPLACED_AFTER: Nanos = DAY;

/// The year of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct YearPlan {
    /// Its stretches, without gaps.
    pub stretches: Vec<Stretch>,
}

/// From something that begins or ends to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stretch {
    /// When it begins in the run, counted from when the mounts first work.
    pub at: Nanos,
    /// When it begins in the year.
    pub date: Nanos,
    /// How long it is in the year.
    pub lasts: Nanos,
    /// How much of that is played.
    pub played: Nanos,
}

impl YearPlan {
    /// Divides a year at these moments.
    fn divide(days: u64, quiet: Nanos, mut moments: Vec<Nanos>) -> Self {
        let end = days * DAY;
        moments.extend([0, end]);
        moments.retain(|moment| *moment <= end);
        moments.sort_unstable();
        moments.dedup();
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut at = 0;
        for pair in moments.windows(2) {
            let lasts = pair[1] - pair[0];
            let played = lasts.min(quiet);
            stretches.push(Stretch {
                at,
                date: pair[0],
                lasts,
                played,
            });
            at += played;
        }
        Self { stretches }
    }

    /// When a moment of the year is in the run.
    #[must_use]
    pub fn run_time(&self, date: Nanos) -> Nanos {
        let from = self.stretches.partition_point(|one| one.date <= date);
        let one = &self.stretches[from.max(1) - 1];
        one.at + (date - one.date).min(one.played)
    }

    /// When a time of the run is in the year.
    #[must_use]
    pub fn date(&self, at: Nanos) -> Nanos {
        let from = self.stretches.partition_point(|one| one.at <= at);
        let one = &self.stretches[from.max(1) - 1];
        one.date + (at - one.at).min(one.lasts)
    }

    /// How long it is, in the run.
    #[must_use]
    pub fn played(&self) -> Nanos {
        self.stretches.iter().map(|one| one.played).sum()
    }
}

impl std::fmt::Display for YearPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let days: Nanos = self.stretches.iter().map(|one| one.lasts).sum();
        let (days, seconds) = (days as f64 / DAY as f64, self.played() as f64 / 1e9);
        write!(f, "{days:.0} days, of which {seconds:.0}s are played")
    }
}

/// A moment of the year, as it is shown: `day 17, 04:05:09`.
#[must_use]
pub fn shown(date: Nanos) -> String {
    let seconds = date / 1_000_000_000;
    let (day, second) = (seconds / 86_400 + 1, seconds % 86_400);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("day {day}, {hour:02}:{minute:02}:{:02}", second % 60)
}

/// Draws what fails in a year; times are of the year.
pub(super) fn draw_events(
    (year, rates): (&Year, &[Rate]),
    sites: &[SitePlan],
    rng: &mut Rng,
) -> Vec<FaultPlan> {
    let mut events = Vec::new();
    for rate in rates {
        let mut own = rng.fork();
        for target in targets(rate.each(), sites) {
            draw_process(rate, target, year.days * DAY, &mut own, &mut events);
        }
    }
    events
}

/// What an event happens to.
#[derive(Clone, Copy, Debug)]
struct Target {
    who: Who,
    from: Option<Who>,
    /// Which disk of it.
    disk: u64,
    /// Bytes of that.
    size: u64,
}

fn targets(each: Each, sites: &[SitePlan]) -> Vec<Target> {
    let whole = |who| Target {
        who,
        from: None,
        disk: 0,
        size: 0,
    };
    let numbered = |role| {
        let count = sites.iter().map(|site| site.count(role)).sum();
        let all = (1..=count).map(|number| whole(Who::Numbered(role, number)));
        all.collect()
    };
    match each {
        Each::Master => numbered(Role::Master),
        Each::Metalogger => numbered(Role::Metalogger),
        Each::Chunkserver => numbered(Role::ChunkServer),
        Each::Client => numbered(Role::Client),
        Each::Rack => {
            let racks = sites.iter().map(SitePlan::racks_used).sum();
            (1..=racks).map(|rack| whole(Who::Rack(rack))).collect()
        }
        Each::Site => (1..=sites.len() as u64)
            .map(|site| whole(Who::Datacentre(site)))
            .collect(),
        Each::Link => links(sites.len() as u64),
        Each::Disk => disks(sites),
    }
}

fn links(count: u64) -> Vec<Target> {
    let pairs = (1..=count).flat_map(|one| (one + 1..=count).map(move |other| (one, other)));
    let link = |(one, other)| Target {
        who: Who::Datacentre(one),
        from: Some(Who::Datacentre(other)),
        disk: 0,
        size: 0,
    };
    pairs.map(link).collect()
}

fn disks(sites: &[SitePlan]) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut server = 0;
    for site in sites {
        for _ in 0..site.chunkservers {
            server += 1;
            targets.extend((0..site.disks).map(|disk| Target {
                who: Who::Numbered(Role::ChunkServer, server),
                from: None,
                disk,
                size: site.disk_size,
            }));
        }
    }
    targets
}

/// One thing's failures in a year. While it is away it can't fail again.
fn draw_process(
    rate: &Rate,
    target: Target,
    end: Nanos,
    rng: &mut Rng,
    events: &mut Vec<FaultPlan>,
) {
    let per_year = match (rate.per_year, rate.per_tb_year) {
        (Some(often), _) => often.0,
        (None, Some(often)) => often.0 * target.size as f64 / 1e12,
        (None, None) => unreachable!("a rate was checked to say how often"),
    };
    let mean = 365.0 * DAY as f64 / per_year;
    let is_disk = rate.each() == Each::Disk;
    let mut at = 0;
    loop {
        let gap = gap(mean, rng);
        if gap >= (end - at) as f64 {
            return;
        }
        at += gap as Nanos;
        let lasts = rate.duration.map(|lasts| lasts.draw(rng));
        let replaced = rate.replaced_after.map(|after| after.draw(rng));
        let replaced = is_disk.then_some(replaced.unwrap_or(REPLACED_AFTER));
        events.push(FaultPlan {
            who: target.who,
            from: target.from,
            lasts,
            replaced,
            date: Some(at),
            pick: match is_disk {
                true => target.disk,
                false => rng.word(),
            },
            ..FaultPlan::of(rate.action, When::At(at))
        });
        at = (at + lasts.or(replaced).unwrap_or(0)).min(end);
    }
}

/// An exponentially distributed time with this mean.
fn gap(mean: f64, rng: &mut Rng) -> f64 {
    const PARTS: u64 = 1 << 53;
    let share = (rng.below(PARTS) + 1) as f64 / PARTS as f64;
    -share.ln() * mean
}

/// Puts the events of a year, and the faults and orders that the scenario dates itself,
/// into the run. The faults come out in the order of time.
pub(super) fn compress(
    year: (u64, Nanos),
    faults: &mut [FaultPlan],
    orders: &mut [Nanos],
) -> YearPlan {
    let mut moments = orders.to_vec();
    for fault in faults.iter_mut() {
        let When::At(at) = fault.when else { continue };
        fault.date = Some(at);
        moments.push(at);
        moments.extend(fault.lasts.map(|lasts| at + lasts));
        moments.extend(fault.replaced.map(|replaced| at + replaced));
    }
    let plan = YearPlan::divide(year.0, year.1, moments);
    for fault in faults.iter_mut() {
        let When::At(date) = fault.when else { continue };
        let at = plan.run_time(date);
        let until = |lasts: Nanos| plan.run_time(date + lasts) - at;
        fault.when = When::At(at);
        fault.lasts = fault.lasts.map(until);
        fault.replaced = fault.replaced.map(until);
    }
    faults.sort_by_key(|fault| fault.date);
    for order in orders {
        *order = plan.run_time(*order);
    }
    plan
}

impl Plan {
    /// When a time of the run is in the year, if it plays one.
    #[must_use]
    pub fn date(&self, since_begun: Nanos) -> Option<Nanos> {
        self.year.as_ref().map(|year| year.date(since_begun))
    }
}

impl FaultPlan {
    /// A fault of which nothing else is said.
    fn of(action: Action, when: When) -> Self {
        Self {
            when,
            action,
            who: Who::Everything,
            from: None,
            one_way: false,
            lasts: None,
            factor: 1,
            by: 0,
            once: false,
            hasty: false,
            pick: 0,
            date: None,
            replaced: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn quiet_stretches_are_left_out_and_close_moments_stay_close() {
        let (first, second) = (10 * DAY, 10 * DAY + 3 * SECOND);
        let year = YearPlan::divide(20, 20 * SECOND, vec![second, first]);
        assert_eq!(year.run_time(first), 20 * SECOND);
        assert_eq!(year.run_time(second), 23 * SECOND);
        assert_eq!(year.run_time(second + DAY), 43 * SECOND);
        assert_eq!(year.played(), 43 * SECOND);
        assert_eq!(year.date(20 * SECOND), first);
        assert_eq!(year.date(25 * SECOND), second + 2 * SECOND);
        assert_eq!(shown(second + 3_661 * SECOND), "day 11, 01:01:04");
    }

    #[test]
    fn as_many_fail_in_a_year_as_their_rate_says() {
        let mut rng = Rng::new(5);
        let text = "do = \"kill\"\nwho = \"chunkserver\"\nper_year = 3\nfor = \"1h\"\n";
        let rate: Rate = toml::from_str(text).expect("valid");
        let mut events = Vec::new();
        let target = Target {
            who: Who::Servers,
            from: None,
            disk: 0,
            size: 0,
        };
        for _ in 0..1000 {
            draw_process(&rate, target, 365 * DAY, &mut rng, &mut events);
        }
        // 3000 expected; the standard deviation is 55.
        assert!((2780..3220).contains(&events.len()), "{}", events.len());
        assert!(events.iter().all(|event| event.date < Some(365 * DAY)));
    }
}
