//! `antler-sim shrink`: reads a kept failure, makes its plan small while the same judge
//! complains, and writes a file that `run` replays.

use crate::run_options::Bug;
use crate::shrink::{self, Oracle};
use crate::suite::{self, SuiteError};
use crate::{jobs, report};
use antler_sim::host::{self, Report, RunOptions, Verdict};
use antler_sim::plan::Plan;
use antler_sim::recording::{self, Found, Recording};
use clap::Args;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is shrunk, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Shrink {
    /// The failure: a file that `swarm` kept, or a plan.
    failure: PathBuf,
    /// Where the small plan goes [default: scenarios/regressions/NAME.json]
    #[arg(long)]
    out: Option<PathBuf>,
    /// What the file says first: why it fails, if that is known.
    #[arg(long)]
    cause: Option<String>,
    /// For how long it is tried; what is small by then is written.
    #[arg(long, default_value = "10m", value_parser = suite::duration_of)]
    time: Duration,
    /// How many candidates run at once; the outcome is the same.
    #[arg(long, default_value_t = jobs::cores())]
    jobs: NonZero<usize>,
    #[command(flatten)]
    bug: Bug,
}

/// `shrink`: 0 when a small plan was written that fails as the original did.
pub(crate) fn run(command: &Shrink) -> Result<u8, SuiteError> {
    let recording = recording::load(&command.failure)
        .map_err(|error| SuiteError::File(command.failure.display().to_string(), error))?;
    let out = command
        .out
        .clone()
        .unwrap_or_else(|| default_out(&command.failure));
    let first = run_plan(command, recording.plan.clone());
    let wanted = key_of(&first);
    if first.verdict == Verdict::Passed {
        let how = "it passes, so there is nothing to shrink".to_owned();
        return Err(SuiteError::File(command.failure.display().to_string(), how));
    }
    println!("{}", report::line(&first));
    let mut trials = Trials {
        command,
        wanted,
        until: Instant::now() + command.time,
        runs: 0,
        late: false,
    };
    let plan = shrink::shrink(recording.plan.clone(), &mut trials);
    let last = run_plan(command, plan.clone());
    assert_eq!(key_of(&last), trials.wanted, "a run repeats itself");
    print_outcome(&trials, &recording.plan, &plan);
    write(command, &out, recording.found.as_ref(), plan, &last)?;
    Ok(0)
}

/// The file's own name among the regressions.
fn default_out(failure: &Path) -> PathBuf {
    let name = failure.file_stem().unwrap_or_default();
    let folder = Path::new("scenarios/regressions");
    folder.join(name).with_extension("json")
}

fn run_plan(command: &Shrink, plan: Plan) -> Report {
    let options = RunOptions {
        planted: command.bug.planted(),
        ..RunOptions::default()
    };
    host::run(plan, options)
}

/// What a smaller plan must fail with too.
fn key_of(report: &Report) -> (&'static str, String) {
    (report.verdict.word(), report.kind.clone())
}

struct Trials<'a> {
    command: &'a Shrink,
    wanted: (&'static str, String),
    until: Instant,
    runs: u64,
    late: bool,
}

impl Oracle for Trials<'_> {
    fn first_failing(&mut self, candidates: &[Plan]) -> Option<usize> {
        let run_one = |number: u64| {
            if Instant::now() >= self.until {
                return None;
            }
            let at = usize::try_from(number).expect("it is one of a list's places");
            Some(key_of(&run_plan(self.command, candidates[at].clone())))
        };
        let (mut found, mut runs, mut late) = (None, 0, false);
        let count = candidates.len() as u64;
        jobs::in_order(self.command.jobs, 0..count, run_one, |ended| {
            late |= ended.is_none();
            if ended.is_some_and(|key| key == self.wanted) {
                found = Some(runs);
            }
            runs += 1;
            match found.is_some() || late {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.runs += runs as u64;
        self.late |= late;
        found
    }
}

fn print_outcome(trials: &Trials<'_>, before: &Plan, after: &Plan) {
    let counts = |plan: &Plan| {
        let steps: usize = plan
            .programs
            .iter()
            .map(|program| program.steps.len())
            .sum();
        let cluster = &plan.cluster;
        let nodes = cluster.masters + cluster.metaloggers + cluster.chunkservers + cluster.clients;
        (plan.faults.len(), plan.programs.len(), steps, nodes)
    };
    let (before, after) = (counts(before), counts(after));
    println!(
        "{} faults, {} programs, {} steps, {} nodes became {} faults, {} programs, {} steps, {} \
         nodes in {} runs{}",
        before.0,
        before.1,
        before.2,
        before.3,
        after.0,
        after.1,
        after.2,
        after.3,
        trials.runs,
        if trials.late { "; the time was up" } else { "" },
    );
}

fn write(
    command: &Shrink,
    out: &Path,
    found: Option<&Found>,
    plan: Plan,
    last: &Report,
) -> Result<(), SuiteError> {
    let scenario = found.map_or("", |found| &found.scenario);
    let mut told = Found::of(scenario, last).expect("it fails");
    if let Some(found) = found {
        told.seed = found.seed;
        told.cause.clone_from(&found.cause);
    }
    if let Some(cause) = &command.cause {
        told.cause.clone_from(cause);
    }
    let recording = Recording {
        found: Some(told),
        plan,
    };
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).map_err(|error| suite::io(folder, &error))?;
    }
    std::fs::write(out, recording.text()).map_err(|error| suite::io(out, &error))?;
    println!(
        "written to {}; replay it with: antler-sim run {0} --trace",
        out.display()
    );
    Ok(())
}
