//! Plants bugs and shows that the judges catch each of them.
//!
//! A seed counts only when its run without the bug passes: what fails by itself is
//! neither a catch nor a miss. A bug that no seed catches fails the whole command.

use crate::jobs;
use crate::suite::{self, SuiteError};
use antler_core::planted::Planted;
use antler_sim::host::{self, RunOptions, Verdict};
use antler_sim::plan::Plan;
use antler_sim::scenario::Scenario;
use clap::Args;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Which bugs are looked for, where, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Hunt {
    /// The scenarios in which the bugs are looked for, each with every seed.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only this bug (may be given again).
    #[arg(long = "bug", value_parser = bug_of)]
    bugs: Vec<Planted>,
    /// How many seeds of each scenario a bug may take.
    #[arg(long, default_value_t = 500)]
    most: u64,
    /// After so many catches of a bug, the next one is looked for.
    #[arg(long, default_value_t = 3)]
    enough: u64,
    /// How many seeds run at once.
    #[arg(long, default_value_t = jobs::cores())]
    jobs: NonZero<usize>,
}

pub(crate) fn bug_of(name: &str) -> Result<Planted, String> {
    let bug = Planted::ALL.iter().find(|bug| bug.name() == name);
    bug.copied().ok_or_else(|| {
        let names: Vec<_> = Planted::ALL.iter().map(|bug| bug.name()).collect();
        format!("it is none of {}", names.join(", "))
    })
}

/// What became of one seed with a bug in it.
enum Ended {
    /// The judges were content.
    Missed,
    /// The judges complained, and do not without the bug.
    Caught { seed: u64, by: Verdict },
    /// The run fails by itself.
    Unfit,
}

#[derive(Default)]
struct Score {
    caught: u64,
    missed: u64,
    unfit: u64,
    first: Option<String>,
}

/// `planted`: the exit code, 2 when a bug was never caught.
pub(crate) fn run(hunt: &Hunt) -> Result<u8, SuiteError> {
    let scenarios = suite::load_scenarios(&hunt.files)?;
    let bugs = match hunt.bugs.as_slice() {
        [] => Planted::ALL,
        some => some,
    };
    let mut code = 0;
    for &bug in bugs {
        let score = look_for(hunt, bug, &scenarios);
        score.print(bug);
        if score.caught == 0 {
            code = 2;
        }
    }
    Ok(code)
}

fn look_for(hunt: &Hunt, bug: Planted, scenarios: &[(String, Scenario)]) -> Score {
    let mut score = Score::default();
    let count = scenarios.len() as u64;
    let try_one = |number: u64| {
        let at = usize::try_from(number % count).expect("it is one of a list's places");
        let (path, scenario) = &scenarios[at];
        (path, try_seed(bug, scenario, number / count))
    };
    jobs::in_order(hunt.jobs, 0..hunt.most * count, try_one, |(path, ended)| {
        score.add(path, ended);
        match score.caught >= hunt.enough {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    score
}

fn try_seed(bug: Planted, scenario: &Scenario, seed: u64) -> Ended {
    let verdict = |planted| {
        let options = RunOptions {
            planted,
            ..RunOptions::default()
        };
        host::run(Plan::draw(scenario, seed), options).verdict
    };
    match verdict(Some(bug)) {
        Verdict::Passed => Ended::Missed,
        by if verdict(None) == Verdict::Passed => Ended::Caught { seed, by },
        _ => Ended::Unfit,
    }
}

impl Score {
    fn add(&mut self, path: &str, ended: Ended) {
        match ended {
            Ended::Missed => self.missed += 1,
            Ended::Unfit => self.unfit += 1,
            Ended::Caught { seed, by } => {
                self.caught += 1;
                let how = by.how().unwrap_or_default();
                let how = format!("{path} seed {seed}: {how}");
                self.first.get_or_insert(how);
            }
        }
    }

    fn print(&self, bug: Planted) {
        let runs = self.caught + self.missed;
        println!(
            "figure: planted {}: caught in {} of {runs} seeds that pass without it ({} more do not)",
            bug.name(),
            self.caught,
            self.unfit,
        );
        if let Some(how) = &self.first {
            println!("  first in {how}");
        }
    }
}
