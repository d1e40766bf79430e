//! `antler-sim swarm`: fresh seeds of many scenarios until the time is up.
//!
//! Owns which seeds come next, across interruptions: a state file tells how far each
//! scenario is, and what all runs came to. Each failure is kept as a file that replays
//! it. Invariant: a seed below a scenario's `next` was judged, and its failure kept.

use crate::run_options::Bug;
use crate::suite::{self, SuiteError};
use crate::{jobs, report};
use antler_core::marks::Mark;
use antler_sim::host::{self, Report, RunOptions, Verdict};
use antler_sim::plan::Plan;
use antler_sim::recording::{Found, Recording};
use antler_sim::scenario::Scenario;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the state is written, and a line printed.
const SAVE_EVERY: Duration = Duration::from_secs(2);
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What is searched, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Swarm {
    /// The scenarios [default: every .toml below scenarios/]
    files: Vec<PathBuf>,
    /// For how long seeds are begun: `90s`, `10m`, `8h`.
    #[arg(long, default_value = "10m", value_parser = suite::duration_of)]
    time: Duration,
    /// How many seeds run at once.
    #[arg(long, default_value_t = jobs::cores())]
    jobs: NonZero<usize>,
    /// Begins at this seed of each scenario, whatever was done before.
    #[arg(long)]
    from: Option<u64>,
    /// At most so many seeds in all.
    #[arg(long)]
    most: Option<u64>,
    /// Stops at the first failure.
    #[arg(long)]
    stop: bool,
    /// Where failures and the state file (swarm.json) are kept.
    #[arg(long, default_value = "swarm-failures")]
    keep: PathBuf,
    /// Prints a JSON object for each failure, and one in the end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    bug: Bug,
}

/// What all runs came to, across invocations.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    scenarios: BTreeMap<String, Progress>,
    totals: Totals,
}

/// How far a scenario is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// The next seed.
    next: u64,
    /// Seeds that failed.
    failed: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Totals {
    runs: u64,
    failures: u64,
    events: u64,
    /// Of wall time, and of threads that ran.
    wall_seconds: f64,
    run_seconds: f64,
    virtual_seconds: f64,
    marks: BTreeSet<String>,
}

/// `swarm`: the exit code, that of the gravest failure.
pub(crate) fn run(swarm: &Swarm) -> Result<u8, SuiteError> {
    let mut files = swarm.files.clone();
    if files.is_empty() {
        files = suite::scenarios_below(Path::new("scenarios"))?;
    }
    let scenarios = suite::load_scenarios(&files)?;
    std::fs::create_dir_all(&swarm.keep).map_err(|error| suite::io(&swarm.keep, &error))?;
    let mut search = Search::begin(swarm, &scenarios)?;
    search.go_on(&scenarios)?;
    search.end();
    Ok(search.code)
}

struct Search<'a> {
    swarm: &'a Swarm,
    state: State,
    /// Of this invocation.
    here: Totals,
    code: u8,
    begun: Instant,
    saved: Instant,
    told: Instant,
    /// Wall seconds of earlier invocations.
    before: f64,
}

impl<'a> Search<'a> {
    fn begin(swarm: &'a Swarm, scenarios: &[(String, Scenario)]) -> Result<Self, SuiteError> {
        let mut state = load(&swarm.keep.join("swarm.json"))?;
        for (path, _) in scenarios {
            let progress = state.scenarios.entry(path.clone()).or_default();
            progress.next = swarm.from.unwrap_or(progress.next);
        }
        let now = Instant::now();
        Ok(Self {
            swarm,
            before: state.totals.wall_seconds,
            state,
            here: Totals::default(),
            code: 0,
            begun: now,
            saved: now,
            told: now,
        })
    }

    /// Runs seeds, one of each scenario in turn, until the time is up.
    fn go_on(&mut self, scenarios: &[(String, Scenario)]) -> Result<(), SuiteError> {
        let first: Vec<u64> = scenarios
            .iter()
            .map(|(path, _)| self.state.scenarios[path].next)
            .collect();
        let count = scenarios.len() as u64;
        let place = |number: u64| {
            let at = usize::try_from(number % count).expect("it is one of a list's places");
            (at, first[at] + number / count)
        };
        let planted = self.swarm.bug.planted();
        let run_one = |number: u64| {
            let (at, seed) = place(number);
            let plan = Plan::draw(&scenarios[at].1, seed);
            let options = RunOptions {
                planted,
                ..RunOptions::default()
            };
            (at, plan.clone(), host::run(plan, options))
        };
        let (jobs, most) = (self.swarm.jobs, self.swarm.most.unwrap_or(u64::MAX));
        let mut failed = None;
        jobs::in_order(jobs, 0..most, run_one, |(at, plan, report)| {
            let stop = self.swarm.stop && report.verdict != Verdict::Passed;
            let taken = self.take(&scenarios[at].0, plan, &report);
            failed = taken.err();
            match failed.is_some() || stop || self.begun.elapsed() >= self.swarm.time {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match failed {
            Some(error) => Err(error),
            None => self.save(),
        }
    }

    fn take(&mut self, path: &str, plan: Plan, report: &Report) -> Result<(), SuiteError> {
        if report.verdict != Verdict::Passed {
            self.keep(path, plan, report)?;
        }
        self.code = report::graver(self.code, &report.verdict);
        let progress = self.state.scenarios.entry(path.to_owned()).or_default();
        progress.next = report.seed + 1;
        if report.verdict != Verdict::Passed {
            progress.failed.insert(report.seed);
        }
        self.here.add(report);
        self.state.totals.add(report);
        self.here.wall_seconds = self.begun.elapsed().as_secs_f64();
        self.state.totals.wall_seconds = self.before + self.here.wall_seconds;
        if self.told.elapsed() >= TELL_EVERY && !self.swarm.json {
            self.told = Instant::now();
            println!("{}", self.here.line());
        }
        match self.saved.elapsed() >= SAVE_EVERY || report.verdict != Verdict::Passed {
            true => self.save(),
            false => Ok(()),
        }
    }

    fn keep(&self, path: &str, plan: Plan, report: &Report) -> Result<(), SuiteError> {
        let name = format!("{}-{}.json", suite::stem(path), report.seed);
        let file = self.swarm.keep.join(name);
        let recording = Recording {
            found: Found::of(path, report),
            plan,
        };
        std::fs::write(&file, recording.text()).map_err(|error| suite::io(&file, &error))?;
        let shown = file.display();
        match self.swarm.json {
            true => {
                let mut object = report::object(path, report);
                object["kept"] = shown.to_string().into();
                println!("{object}");
            }
            false => println!(
                "{path} seed {}: {} ({}), kept as {shown}\n  {}",
                report.seed,
                report.verdict.word(),
                report.kind,
                report.verdict.how().unwrap_or_default()
            ),
        }
        Ok(())
    }

    /// Writes the state beside its old self, then in its place.
    fn save(&mut self) -> Result<(), SuiteError> {
        self.saved = Instant::now();
        let path = self.swarm.keep.join("swarm.json");
        let beside = self.swarm.keep.join("swarm.json.new");
        let text = serde_json::to_string_pretty(&self.state).expect("it is plain data");
        std::fs::write(&beside, text + "\n")
            .and_then(|()| std::fs::rename(&beside, &path))
            .map_err(|error| suite::io(&path, &error))
    }

    fn end(&self) {
        if self.swarm.json {
            let object = serde_json::json!({
                "runs": self.here.runs,
                "failures": self.here.failures,
                "exit_code": self.code,
                "seeds_per_minute": self.here.seeds_per_minute(),
                "events_per_second": self.here.events_per_second(),
                "virtual_seconds_per_second": self.here.virtual_per_second(),
                "marks": self.here.marks,
                "missing_marks": self.here.missing(),
                "totals": self.state.totals,
            });
            return println!("{object}");
        }
        println!("{}", self.here.line());
        if self.state.totals.runs > self.here.runs {
            println!("with earlier ones: {}", self.state.totals.line());
        }
        let reached: Vec<&str> = self.here.marks.iter().map(String::as_str).collect();
        println!("marks reached: {}", reached.join(" "));
        println!("marks not reached: {}", self.here.missing().join(" "));
    }
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.failures += u64::from(report.verdict != Verdict::Passed);
        self.events += report.events;
        self.run_seconds += report.elapsed.as_secs_f64();
        self.virtual_seconds += report.virtual_nanos as f64 / 1e9;
        let names = report.marks.iter().map(|mark| mark.name().to_owned());
        self.marks.extend(names);
    }

    fn seeds_per_minute(&self) -> f64 {
        self.runs as f64 * 60.0 / self.wall_seconds.max(1e-9)
    }

    fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall_seconds.max(1e-9)
    }

    fn virtual_per_second(&self) -> f64 {
        self.virtual_seconds / self.wall_seconds.max(1e-9)
    }

    fn missing(&self) -> Vec<&'static str> {
        let names = Mark::ALL.iter().map(|mark| mark.name());
        names.filter(|name| !self.marks.contains(*name)).collect()
    }

    fn line(&self) -> String {
        format!(
            "{} seeds in {:.0} s, {} failed: {:.1} seeds a minute, {:.0} events/s, {:.1} simulated \
             seconds a second",
            self.runs,
            self.wall_seconds,
            self.failures,
            self.seeds_per_minute(),
            self.events_per_second(),
            self.virtual_per_second(),
        )
    }
}

fn load(path: &Path) -> Result<State, SuiteError> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| SuiteError::File(path.display().to_string(), error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
        Err(error) => Err(suite::io(path, &error)),
    }
}
