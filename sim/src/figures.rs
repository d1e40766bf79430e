//! What a run comes to for an operator: how available each site was, how long its
//! requests took, how soon redundancy was back after each disk that was lost; and whether
//! that is as a scenario expects.
//!
//! Owns these figures and how a year that was not played whole is counted: what was left
//! out of a stretch is taken to be as the last third of what was played of it. Changes
//! nothing in a run, and judges no promise.

use crate::network::Nanos;
use crate::observe::{Answered, Kind, Observed};
use crate::plan::{FiguresPlan, Plan, Stretch};
use crate::world::{Outcome, World};
use hdrhistogram::Histogram;

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each site with mounts.
    pub sites: Vec<SiteFigures>,
    /// Of each disk that was lost, in the order of time.
    pub losses: Vec<Loss>,
    /// What counts as too late for being available.
    pub within: Nanos,
}

/// The figures of a site's mounts.
#[derive(Clone, Debug)]
pub struct SiteFigures {
    /// Its name.
    pub name: String,
    /// Requests that were answered in what was played.
    pub answered: u64,
    /// The share of what was asked that was answered in time, in what was played.
    pub available_played: f64,
    /// The same in the whole year, if one was played.
    pub available: f64,
    /// What 99 % of the reads took at most.
    pub p99_reads: Nanos,
    /// What 99 % of the writes and syncs took at most.
    pub p99_writes: Nanos,
}

/// A disk that was lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// When, in the run.
    pub at: Nanos,
    /// Which, and when in the year.
    pub what: String,
    /// How many chunks had a copy on it.
    pub chunks: u64,
    /// How long it took until each of those had all its copies again, counted from the last
    /// fault that began or ended meanwhile; `None` if that never came about.
    pub full_after: Option<Nanos>,
}

impl Figures {
    /// The figures in words, a line for each site and one for the disks.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let site = |site: &SiteFigures| {
            format!(
                "{}: available {} ({} of what was played), {} requests, 99 % of reads up to {:.1} \
                 ms and of writes up to {:.1} ms",
                site.name,
                percent(site.available),
                percent(site.available_played),
                site.answered,
                site.p99_reads as f64 / 1e6,
                site.p99_writes as f64 / 1e6
            )
        };
        let mut told: Vec<String> = self.sites.iter().map(site).collect();
        let slowest = self.losses.iter().filter_map(|loss| loss.full_after).max();
        if let Some(slowest) = slowest {
            told.push(format!(
                "{} disks were lost; redundancy was full again in {:.1} s at most",
                self.losses.len(),
                slowest as f64 / 1e9
            ));
        }
        told
    }
}

/// What programs asked in a span of time, and what of it was late; both as numbers of
/// requests.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    asked: f64,
    late: f64,
}

impl Asked {
    fn add(&mut self, other: Self, times: f64) {
        self.asked += other.asked * times;
        self.late += other.late * times;
    }

    fn share(self) -> f64 {
        match self.asked > 0.0 {
            true => 1.0 - self.late / self.asked,
            false => 1.0,
        }
    }
}

/// A request that was late stands for as many as its program would have begun while it
/// waited, one every `pace`.
struct Site<'a> {
    answers: Vec<&'a Answered>,
    within: Nanos,
    pace: f64,
}

impl Site<'_> {
    fn is_late(&self, answer: &Answered) -> bool {
        answer.failed || answer.took > self.within
    }

    fn asked(&self, from: Nanos, to: Nanos) -> Asked {
        let mut sum = Asked::default();
        for answer in &self.answers {
            let late = self.is_late(answer);
            if (from..to).contains(&answer.asked) {
                sum.asked += 1.0;
                sum.late += f64::from(u8::from(late));
            }
            if late {
                let begin = (answer.asked + self.within).max(from);
                let end = (answer.asked + answer.took).min(to);
                let kept = end.saturating_sub(begin) as f64 / self.pace;
                sum.add(
                    Asked {
                        asked: kept,
                        late: kept,
                    },
                    1.0,
                );
            }
        }
        sum
    }

    /// A stretch of a year with what was left out of it.
    fn whole(&self, begun: Nanos, stretch: &Stretch) -> Asked {
        let from = begun + stretch.at;
        let to = from + stretch.played;
        let mut sum = self.asked(from, to);
        let third = stretch.played / 3;
        if third > 0 {
            let left_out = (stretch.lasts - stretch.played) as f64 / third as f64;
            sum.add(self.asked(to - third, to), left_out);
        }
        sum
    }
}

/// The figures of a run that was observed.
#[must_use]
pub fn figures(plan: &Plan, seen: &Observed) -> Figures {
    let end = seen.begun + seen.duration;
    let within = plan.figures.within;
    let sites = (1..=seen.sites.len() as u64).filter_map(|number| {
        let own = seen
            .answers
            .iter()
            .filter(|answer| answer.site == number && (seen.begun..end).contains(&answer.asked));
        let answers: Vec<&Answered> = own.collect();
        let programs = programs_of(plan, number).max(1);
        (!answers.is_empty()).then(|| {
            let pace = seen.duration as f64 * programs as f64 / answers.len() as f64;
            let site = Site {
                answers,
                within,
                pace,
            };
            site_figures(seen, number, &site)
        })
    });
    Figures {
        sites: sites.collect(),
        losses: losses(seen),
        within,
    }
}

fn programs_of(plan: &Plan, site: u64) -> usize {
    use antler_core::machine::Role;
    let place = |client: u64| plan.place(Role::Client, client + 1).datacentre;
    let programs = plan.programs.iter();
    programs.filter(|one| place(one.client) == site).count()
}

fn site_figures(seen: &Observed, number: u64, site: &Site<'_>) -> SiteFigures {
    let played = site.asked(seen.begun, seen.begun + seen.duration);
    let mut whole = Asked::default();
    for stretch in seen.year.iter().flat_map(|year| &year.stretches) {
        whole.add(site.whole(seen.begun, stretch), 1.0);
    }
    let p99 = |kinds: &[Kind]| {
        let own = site.answers.iter().filter(|one| kinds.contains(&one.kind));
        histogram(own.copied()).value_at_percentile(99.0)
    };
    SiteFigures {
        name: seen.site(number),
        answered: site.answers.len() as u64,
        available_played: played.share(),
        available: match seen.year {
            Some(_) => whole.share(),
            None => played.share(),
        },
        p99_reads: p99(&[Kind::Reads]),
        p99_writes: p99(&[Kind::Writes, Kind::Syncs]),
    }
}

/// How long requests took, to two digits.
pub(crate) fn histogram<'a>(answers: impl Iterator<Item = &'a Answered>) -> Histogram<u64> {
    let mut histogram = Histogram::new(2).expect("two digits can be kept");
    for answer in answers {
        let recorded = histogram.record(answer.took.max(1));
        recorded.expect("it grows to any duration");
    }
    histogram
}

fn losses(seen: &Observed) -> Vec<Loss> {
    let lost = seen.faults.iter().filter_map(|fault| {
        let loss = fault.loss.as_ref()?;
        Some(Loss {
            at: fault.begun,
            what: match fault.date {
                Some(date) => format!("{}, {}", crate::plan::year::shown(date), fault.what),
                None => fault.what.clone(),
            },
            chunks: loss.chunks,
            full_after: loss.full.map(|full| undisturbed(seen, fault.begun, full)),
        })
    });
    lost.collect()
}

/// How long of a time nothing went wrong and nothing that was wrong ended: from the last
/// such moment on.
fn undisturbed(seen: &Observed, from: Nanos, to: Nanos) -> Nanos {
    let moments = seen.faults.iter().flat_map(|fault| {
        let ends = fault.ended.filter(|_| fault.loss.is_none());
        std::iter::once(fault.begun).chain(ends)
    });
    let last = moments.filter(|moment| (from..to).contains(moment)).max();
    to - last.unwrap_or(from)
}

/// What is not as expected, in words; nothing when all is.
#[must_use]
pub fn missed(expected: &FiguresPlan, figures: &Figures) -> Vec<String> {
    let mut missed = Vec::new();
    for site in &figures.sites {
        let name = &site.name;
        if let Some(least) = expected.available
            && site.available * 1e6 < least as f64
        {
            missed.push(format!(
                "{name} was available for {} of what its programs asked, less than {}",
                percent(site.available),
                percent(least as f64 / 1e6)
            ));
        }
        let kinds = [("reads", site.p99_reads), ("writes", site.p99_writes)];
        for (kind, took) in kinds {
            if let Some(most) = expected.p99.filter(|most| took > *most) {
                missed.push(format!(
                    "99 % of the {kind} of {name} took up to {:.1} ms, more than {:.1} ms",
                    took as f64 / 1e6,
                    most as f64 / 1e6
                ));
            }
        }
    }
    if let Some(most) = expected.full_redundancy {
        missed.extend(figures.losses.iter().filter_map(|loss| late(loss, most)));
    }
    missed
}

fn late(loss: &Loss, most: Nanos) -> Option<String> {
    let most_seconds = most as f64 / 1e9;
    match loss.full_after {
        Some(took) if took <= most => None,
        Some(took) => Some(format!(
            "after {} redundancy was full again in {:.1} s, later than {most_seconds:.1} s",
            loss.what,
            took as f64 / 1e9
        )),
        None => Some(format!(
            "after {} redundancy was not full again before the end, as it should be in \
             {most_seconds:.1} s",
            loss.what
        )),
    }
}

/// A share with as many digits as an operator counts nines.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.4} %", share * 100.0)
}

impl World {
    /// The figures of the run so far, if anybody wants them.
    pub(crate) fn figures(&self) -> Option<Figures> {
        let observer = self.observer.as_ref()?;
        Some(figures(&self.plan, observer.seen()))
    }

    /// How a run ends in which every promise was kept.
    pub(crate) fn judge_figures(&self) -> Outcome {
        let expected = &self.plan.figures;
        if !expected.are_judged() {
            return Outcome::Passed;
        }
        let figures = self.figures().unwrap_or_default();
        let missed = missed(expected, &figures);
        match missed.is_empty() {
            true => Outcome::Passed,
            false => Outcome::Missed(missed.join("\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn answer(asked: Nanos, took: Nanos) -> Answered {
        Answered {
            asked,
            took,
            site: 1,
            kind: Kind::Reads,
            failed: false,
        }
    }

    #[test]
    fn one_request_that_hangs_stands_for_all_that_its_program_would_have_asked() {
        let mut answers: Vec<Answered> = (0..10).map(|at| answer(at * SECOND, 1)).collect();
        answers.push(answer(10 * SECOND, 20 * SECOND));
        let site = Site {
            answers: answers.iter().collect(),
            within: SECOND,
            pace: SECOND as f64,
        };
        let sum = site.asked(0, 30 * SECOND);
        assert_eq!((sum.asked, sum.late), (30.0, 20.0));
        // While it hangs nothing else is asked, and nothing is available.
        let hanging = site.asked(20 * SECOND, 25 * SECOND);
        assert_eq!((hanging.asked, hanging.share()), (5.0, 0.0));
    }

    #[test]
    fn what_is_left_out_is_as_the_last_third_before_it() {
        let answers: Vec<Answered> = (0..30).map(|at| answer(at * SECOND, 1)).collect();
        let mut late = answers.clone();
        late[3].took = 2 * SECOND;
        let site = |answers: &'static [Answered]| Site {
            answers: answers.iter().collect(),
            within: SECOND,
            pace: SECOND as f64,
        };
        let stretch = Stretch {
            at: 0,
            date: 0,
            lasts: 1030 * SECOND,
            played: 30 * SECOND,
        };
        let good = site(answers.leak()).whole(0, &stretch);
        assert_eq!((good.asked, good.late), (1030.0, 0.0));
        let once = site(late.leak()).whole(0, &stretch);
        assert!((once.late - 2.0).abs() < 1e-9, "{once:?}");
        assert!((once.asked - 1031.0).abs() < 1e-9, "{once:?}");
    }
}
