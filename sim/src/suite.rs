//! Runs scenarios over seeds: options first, a verdict per seed, then the marks.

use crate::junit::Junit;
use crate::{Run, jobs, report};
use antler_core::marks::{Mark, Marks};
use antler_sim::Trace;
use antler_sim::host::{self, Report, RunOptions, Verdict};
use antler_sim::page::{self, About};
use antler_sim::plan::Plan;
use antler_sim::recording::{self, Recording};
use antler_sim::scale::spec::is_scale;
use antler_sim::scenario::{self, Scenario, ScenarioError};
use serde_json::json;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

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
    /// A plan or another file is wrong, or can't be written.
    #[error("{0}: {1}")]
    File(String, String),
}

/// A file or folder can't be used.
pub(crate) fn io(path: &Path, error: &std::io::Error) -> SuiteError {
    SuiteError::File(path.display().to_string(), error.to_string())
}

/// What can be run.
enum Source {
    Scenario(Box<Scenario>),
    /// One run, kept.
    Recording(Box<Recording>),
}

impl Source {
    fn draw(&self, seed: u64) -> Plan {
        match self {
            Self::Scenario(scenario) => Plan::draw(scenario, seed),
            Self::Recording(recording) => recording.plan.clone(),
        }
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        let required = match self {
            Self::Scenario(scenario) => scenario.expect.marks.as_slice(),
            Self::Recording(_) => &[],
        };
        required.iter().map(|name| name.0)
    }
}

/// `run`: the exit code.
pub(crate) fn run(run: &Run) -> Result<u8, SuiteError> {
    let mut sources = load_all(&run.files)?;
    if let Some(path) = &run.plan {
        let recording = Source::Recording(Box::new(load_recording(path)?));
        sources.push((path.display().to_string(), recording));
    }
    if let Some(folder) = &run.report {
        std::fs::create_dir_all(folder).map_err(|error| io(folder, &error))?;
    }
    let mut junit = Junit::default();
    let mut code = 0;
    for (path, source) in &sources {
        junit.begin(path);
        let ended = run_source(run, path, source, &mut junit)?;
        code = if ended == 1 && code == 0 {
            1
        } else {
            heavier(code, ended)
        };
    }
    if let Some(path) = &run.junit {
        junit.write(path).map_err(|error| io(path, &error))?;
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

/// Reads scenarios, each with its path as it is shown.
pub(crate) fn load_scenarios(paths: &[PathBuf]) -> Result<Vec<(String, Scenario)>, SuiteError> {
    let load = |path: &PathBuf| Ok((path.display().to_string(), scenario::load(path)?));
    paths.iter().map(load).collect()
}

fn load_all(paths: &[PathBuf]) -> Result<Vec<(String, Source)>, SuiteError> {
    let load = |path: &PathBuf| {
        let source = match path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            true => Source::Recording(Box::new(load_recording(path)?)),
            false => Source::Scenario(Box::new(scenario::load(path)?)),
        };
        Ok((path.display().to_string(), source))
    };
    paths.iter().map(load).collect()
}

fn load_recording(path: &Path) -> Result<Recording, SuiteError> {
    recording::load(path).map_err(|error| SuiteError::File(path.display().to_string(), error))
}

/// Every scenario file below a folder, in order.
pub(crate) fn scenarios_below(folder: &Path) -> Result<Vec<PathBuf>, SuiteError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| io(&folder, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| io(&folder, &error))?.path();
            match path.is_dir() {
                true => folders.push(path),
                false if is_scenario(&path) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(SuiteError::File(
            folder.display().to_string(),
            "there is no scenario below it".to_owned(),
        )),
        false => Ok(found),
    }
}

/// Whether a file is a scenario that `run` plays. (What can't be read is told later.)
fn is_scenario(path: &Path) -> bool {
    let is_toml = path
        .extension()
        .is_some_and(|extension| extension == "toml");
    is_toml && !std::fs::read_to_string(path).is_ok_and(|text| is_scale(&text))
}

/// A path as part of a file's name: `scenarios/disks/rot.toml` is `disks-rot`.
pub(crate) fn stem(path: &str) -> String {
    let path = Path::new(path).with_extension("");
    let parts = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    let parts: Vec<String> = parts.map(std::borrow::Cow::into_owned).collect();
    let behind = parts.iter().rposition(|part| part == "scenarios");
    let own = match behind {
        Some(at) => &parts[at + 1..],
        None => &parts[parts.len().saturating_sub(1)..],
    };
    own.join("-")
}

/// Reads a duration of an option: `90s`, `10m`, `8h`.
pub(crate) fn duration_of(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let parts = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let read = parts.and_then(|(number, seconds)| Some((number.parse::<u64>().ok()?, seconds)));
    match read {
        Some((number, seconds)) => Ok(Duration::from_secs(number * seconds)),
        None => Err(format!("{text} is not like 90s, 10m or 8h")),
    }
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

fn run_source(run: &Run, path: &str, source: &Source, junit: &mut Junit) -> Result<u8, SuiteError> {
    let seeds = match (source, run.seed) {
        (Source::Recording(recording), _) => recording.plan.seed..recording.plan.seed + 1,
        (_, Some(seed)) => seed..seed + 1,
        _ => run.seeds.from..run.seeds.to,
    };
    let count = seeds.end - seeds.start;
    let mut suite = Totals::default();
    let begun = Instant::now();
    let draw_and_run = |seed| run_plan(run, source.draw(seed));
    let mut unwritten = None;
    jobs::in_order(jobs_of(run), seeds, draw_and_run, |ran| {
        ran.print(run.json, path);
        if let Some(folder) = &run.report
            && let Err(error) = ran.write_page(folder, path)
        {
            unwritten = Some(error);
            return ControlFlow::Break(());
        }
        suite.add(&ran.report);
        junit.add(&ran.report, &ran.drawn, &repeat(path, ran.report.seed));
        match run.stop && ran.report.verdict != Verdict::Passed {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if let Some(error) = unwritten {
        return Err(error);
    }
    let missing: Vec<Mark> = source
        .marks()
        .filter(|&mark| !suite.marks.has(mark))
        .collect();
    suite.wall = begun.elapsed().as_secs_f64();
    suite.print(run.json, path, &missing);
    let unproven = count >= SEEDS_FOR_MARKS && !missing.is_empty();
    if unproven {
        let names: Vec<&str> = missing.iter().map(|mark| mark.name()).collect();
        junit.add_missing_marks(&names);
    }
    Ok(match suite.code {
        0 => u8::from(unproven),
        code => code,
    })
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
    /// The options that it drew.
    drawn: String,
    /// They were printed before it began.
    traced: bool,
    report: Report,
}

fn run_plan(run: &Run, plan: Plan) -> Ran {
    let drawn = plan.summary();
    if run.trace {
        println!("{drawn}");
    }
    let how = RunOptions {
        trace: if run.trace { Trace::On } else { Trace::Off },
        planted: run.bug.planted(),
        observe: run.report.is_some(),
    };
    Ran {
        drawn,
        traced: run.trace,
        report: host::run(plan, how),
    }
}

impl Ran {
    fn print(&self, as_json: bool, path: &str) {
        if as_json {
            println!("{}", report::object(path, &self.report));
            return;
        }
        if !self.traced {
            println!("{path} {}", self.drawn);
        }
        println!("{}", report::line(&self.report));
    }

    fn write_page(&self, folder: &Path, path: &str) -> Result<(), SuiteError> {
        let about = About {
            scenario: path,
            options: &self.drawn,
            repeat: &repeat(path, self.report.seed),
        };
        let name = format!("{}-{}.html", stem(path), self.report.seed);
        let file = folder.join(name);
        let text = page::page(about, &self.report);
        std::fs::write(&file, text).map_err(|error| io(&file, &error))
    }
}

/// The command that repeats a run, event by event.
fn repeat(path: &str, seed: u64) -> String {
    match path.ends_with(".json") {
        true => format!("antler-sim run {path} --trace"),
        false => format!("antler-sim run {path} --seed {seed} --trace"),
    }
}

/// What the seeds of one scenario came to.
#[derive(Default)]
struct Totals {
    code: u8,
    runs: u64,
    failed: Vec<u64>,
    events: u64,
    /// What the runs took, one after the other.
    seconds: f64,
    /// What they took side by side.
    wall: f64,
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
        let wall = self.wall.max(1e-9);
        let seeds_per_minute = self.runs as f64 * 60.0 / wall;
        let virtual_per_second = self.virtual_seconds / wall;
        if as_json {
            let summary = json!({
                "scenario": path,
                "runs": self.runs,
                "failed_seeds": self.failed,
                "marks": reached,
                "missing_marks": missing,
                "events_per_second": speed,
                "virtual_seconds": self.virtual_seconds,
                "seeds_per_minute": seeds_per_minute,
                "virtual_seconds_per_second": virtual_per_second,
            });
            println!("{summary}");
            return;
        }
        println!(
            "{path}: {} of {} seeds passed, {:.0} s of simulated time, {speed:.0} events/s, \
             {seeds_per_minute:.0} seeds a minute, {virtual_per_second:.0} simulated seconds a \
             second; marks reached: {}",
            self.runs - self.failed.len() as u64,
            self.runs,
            self.virtual_seconds,
            reached.join(" ")
        );
        if !missing.is_empty() {
            println!("  required marks not reached: {}", missing.join(" "));
        }
        for seed in &self.failed {
            println!("  repeat: {}", repeat(path, *seed));
        }
    }
}
