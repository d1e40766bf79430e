//! Runs scenarios over seeds: options first, a verdict per seed, then the marks.

use crate::{Run, jobs, report};
use antler_core::marks::{Mark, Marks};
use antler_sim::Trace;
use antler_sim::host::{self, Report, RunOptions, Verdict};
use antler_sim::plan::Plan;
use antler_sim::scenario::{self, Scenario, ScenarioError};
use serde_json::json;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A run of fewer seeds need not reach every mark.
const SEEDS_FOR_MARKS: u64 = 50;

/// Seeds from a number up to another.
#[derive(Clone, Debug)]
pub(crate) struct Seeds {
    from: u64,
    to: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once("..");
        let read = parts.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
        match read {
            Some((from, to)) if from < to => Ok(Self { from, to }),
            Some(_) => Err(format!("{text} holds no seed")),
            None => Err(format!("{text} is not like 0..200")),
        }
    }
}

/// Why nothing could be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuiteError {
    /// A scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A plan is wrong.
    #[error("{0}: {1}")]
    Plan(String, String),
}

/// `run`: the exit code.
pub(crate) fn run(run: &Run) -> Result<u8, SuiteError> {
    if let Some(path) = &run.plan {
        let plan = load_plan(path)?;
        let path = path.display().to_string();
        let ran = run_plan(run, plan);
        ran.print(run.json, &path);
        return Ok(ran.report.verdict.exit_code());
    }
    let scenarios = load_all(&run.files)?;
    let mut code = 0;
    for (path, scenario) in &scenarios {
        let ended = run_scenario(run, path, scenario);
        code = if ended == 1 && code == 0 {
            1
        } else {
            heavier(code, ended)
        };
    }
    Ok(code)
}

/// `plan`: prints it.
pub(crate) fn print_plan(path: &Path, seed: u64) -> Result<u8, SuiteError> {
    let plan = Plan::draw(&scenario::load(path)?, seed);
    let text = serde_json::to_string_pretty(&plan).expect("a plan is plain data");
    println!("{text}");
    Ok(0)
}

pub(crate) fn load_all(paths: &[PathBuf]) -> Result<Vec<(String, Scenario)>, SuiteError> {
    let load = |path: &PathBuf| Ok((path.display().to_string(), scenario::load(path)?));
    paths.iter().map(load).collect()
}

fn load_plan(path: &Path) -> Result<Plan, SuiteError> {
    let fail = |error: String| SuiteError::Plan(path.display().to_string(), error);
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| fail(error.to_string()))
}

fn heavier(code: u8, other: u8) -> u8 {
    let verdict = match other {
        4 => Verdict::Panicked(String::new()),
        2 => Verdict::Broken(String::new()),
        3 => Verdict::Stuck(String::new()),
        _ => Verdict::Passed,
    };
    report::graver(code, &verdict)
}

fn run_scenario(run: &Run, path: &str, scenario: &Scenario) -> u8 {
    let seeds = match run.seed {
        Some(seed) => seed..seed + 1,
        None => run.seeds.from..run.seeds.to,
    };
    let count = seeds.end - seeds.start;
    let mut suite = Totals::default();
    let draw_and_run = |seed| run_plan(run, Plan::draw(scenario, seed));
    jobs::in_order(jobs_of(run), seeds, draw_and_run, |ran| {
        ran.print(run.json, path);
        suite.add(&ran.report);
        match run.stop && ran.report.verdict != Verdict::Passed {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let required = scenario.expect.marks.iter().map(|name| name.0);
    let missing: Vec<Mark> = required.filter(|&mark| !suite.marks.has(mark)).collect();
    suite.print(run.json, path, &missing);
    let unproven = count >= SEEDS_FOR_MARKS && !missing.is_empty();
    match suite.code {
        0 => u8::from(unproven),
        code => code,
    }
}

/// Traces of several runs would be mixed.
fn jobs_of(run: &Run) -> NonZero<usize> {
    match run.trace {
        true => NonZero::<usize>::MIN,
        false => run.jobs,
    }
}

/// A run that is over.
struct Ran {
    /// The options that it drew; printed already when it was traced.
    options: Option<String>,
    report: Report,
}

fn run_plan(run: &Run, plan: Plan) -> Ran {
    let mut options = Some(plan.summary());
    if run.trace {
        println!("{}", options.take().unwrap_or_default());
    }
    let how = RunOptions {
        trace: if run.trace { Trace::On } else { Trace::Off },
        planted: None,
    };
    let report = host::run(plan, how);
    Ran { options, report }
}

impl Ran {
    fn print(&self, as_json: bool, path: &str) {
        if as_json {
            println!("{}", report::object(path, &self.report));
            return;
        }
        if let Some(options) = &self.options {
            println!("{path} {options}");
        }
        println!("{}", report::line(&self.report));
    }
}

/// What the seeds of one scenario came to.
#[derive(Default)]
struct Totals {
    code: u8,
    runs: u64,
    failed: Vec<u64>,
    events: u64,
    seconds: f64,
    virtual_seconds: f64,
    marks: Marks,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.code = report::graver(self.code, &report.verdict);
        if report.verdict != Verdict::Passed {
            self.failed.push(report.seed);
        }
        self.events += report.events;
        self.seconds += report.elapsed.as_secs_f64();
        self.virtual_seconds += report.virtual_nanos as f64 / 1e9;
        self.marks.merge(report.marks);
    }

    fn print(&self, as_json: bool, path: &str, missing: &[Mark]) {
        let names = |marks: &mut dyn Iterator<Item = Mark>| -> Vec<&'static str> {
            marks.map(Mark::name).collect()
        };
        let (reached, missing) = (
            names(&mut self.marks.iter()),
            names(&mut missing.iter().copied()),
        );
        let speed = self.events as f64 / self.seconds.max(1e-9);
        if as_json {
            let summary = json!({
                "scenario": path,
                "runs": self.runs,
                "failed_seeds": self.failed,
                "marks": reached,
                "missing_marks": missing,
                "events_per_second": speed,
                "virtual_seconds": self.virtual_seconds,
            });
            println!("{summary}");
            return;
        }
        println!(
            "{path}: {} of {} seeds passed, {:.0} s of simulated time, {speed:.0} events/s; marks \
             reached: {}",
            self.runs - self.failed.len() as u64,
            self.runs,
            self.virtual_seconds,
            reached.join(" ")
        );
        if !missing.is_empty() {
            println!("  required marks not reached: {}", missing.join(" "));
        }
        for seed in &self.failed {
            println!("  repeat: antler-sim run {path} --seed {seed} --trace");
        }
    }
}
