//! madsim as the host of a run: a fresh thread and a runtime per seed, so that
//! clocks and entropy of everything that is linked in are virtual and seeded; the
//! world moves the clock.

use crate::faults::Waits;
use crate::figures::Figures;
use crate::observe::Observed;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::{Outcome, World};
use antler_core::marks::Marks;
use antler_core::planted::Planted;
use madsim::runtime::Runtime;
use madsim::{Config, time};
use std::thread;
use std::time::{Duration, Instant};

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How it ended.
    pub verdict: Verdict,
    /// Which judge complained, or what stood still; the same for failures of one kind.
    pub kind: String,
    /// The rare events that it met.
    pub marks: Marks,
    /// Events that the world carried out.
    pub events: u64,
    /// Simulated nanoseconds.
    pub virtual_nanos: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The digest of every input, and of sampled states.
    pub digest: u64,
    /// Steps that programs carried out.
    pub steps: usize,
    /// What the judges compared.
    pub judged: Judged,
    /// Faults that had to wait, or did not strike.
    pub waits: Waits,
    /// What the run came to, if a scenario tells sites or expects figures.
    pub figures: Option<Figures>,
    /// What was seen, if that was asked for and the run came to an end.
    pub observed: Option<Box<Observed>>,
}

/// How much the judges saw: a run in which they saw nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Bytes of reads.
    pub bytes: u64,
    /// Digests of members.
    pub digests: u64,
    /// Answers about names.
    pub answers: u64,
    /// Requests about names that fit an order.
    pub orders: u64,
    /// Records looked for on disks.
    pub records: u64,
    /// Synced ranges looked for on disks.
    pub ranges: u64,
    /// Versions of reads.
    pub reads: u64,
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// A promise was broken.
    Broken(String),
    /// Something did not end in its time.
    Stuck(String),
    /// Every promise was kept, but the figures are not as the scenario expects.
    Missed(String),
    /// A machine, or the simulator, panicked.
    Panicked(String),
}

impl Verdict {
    /// The exit code of a run that ended so.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Broken(_) | Self::Missed(_) => 2,
            Self::Stuck(_) => 3,
            Self::Panicked(_) => 4,
        }
    }

    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Broken(_) => "BROKEN",
            Self::Stuck(_) => "STUCK",
            Self::Missed(_) => "MISSED",
            Self::Panicked(_) => "PANICKED",
        }
    }

    /// What happened, if it did not pass.
    #[must_use]
    pub fn how(&self) -> Option<&str> {
        match self {
            Self::Passed => None,
            Self::Broken(how) | Self::Stuck(how) | Self::Missed(how) | Self::Panicked(how) => {
                Some(how)
            }
        }
    }
}

/// How to run a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Where to trace.
    pub trace: Trace,
    /// A bug to plant, if this build can.
    pub planted: Option<Planted>,
    /// Whether to collect what a page shows.
    pub observe: bool,
}

/// Runs a plan to its end.
#[must_use]
pub fn run(plan: Plan, options: RunOptions) -> Report {
    let seed = plan.seed;
    let begun = Instant::now();
    let thread = thread::Builder::new().name(format!("seed {seed}"));
    let spawned = thread.spawn(move || {
        plant(options.planted);
        let runtime = Runtime::with_seed_and_config(seed, Config::default());
        runtime.block_on(async {
            drive(
                World::new(plan, options.trace, options.observe),
                options.observe,
            )
        })
    });
    let ended = spawned.expect("a thread can be started").join();
    let mut report = ended.unwrap_or_else(|panic| Report {
        seed,
        verdict: Verdict::Panicked(text_of(panic.as_ref())),
        kind: kind_of_panic(&text_of(panic.as_ref())),
        marks: Marks::default(),
        events: 0,
        virtual_nanos: 0,
        elapsed: Duration::ZERO,
        digest: 0,
        steps: 0,
        judged: Judged::default(),
        waits: Waits::default(),
        figures: None,
        observed: None,
    });
    report.elapsed = begun.elapsed();
    report
}

/// Steps the world until its run is over, moving the host's clock along.
fn drive(mut world: World, observe: bool) -> Report {
    while let Some(next) = world.next_time() {
        if next > world.now {
            time::advance(Duration::from_nanos(next - world.now));
        }
        world.step();
    }
    let kind = match world.outcome() {
        Some(Outcome::Passed) | None => String::new(),
        Some(Outcome::Broken(broken)) => broken.promise.to_owned(),
        Some(Outcome::Stuck(how)) => how.split(':').next().unwrap_or_default().to_owned(),
        Some(Outcome::Missed(_)) => "expected figures".to_owned(),
    };
    let verdict = match world.outcome() {
        Some(Outcome::Passed) => Verdict::Passed,
        Some(Outcome::Broken(broken)) => {
            Verdict::Broken(format!("{}: {}", broken.promise, broken.how))
        }
        Some(Outcome::Stuck(how)) => Verdict::Stuck(how.clone()),
        Some(Outcome::Missed(how)) => Verdict::Missed(how.clone()),
        None => Verdict::Stuck("nothing is due any more".to_owned()),
    };
    let figures = world.figures();
    let observer = world.observer.take().filter(|_| observe);
    Report {
        observed: observer.map(|observer| Box::new(observer.finish(world.now))),
        waits: world.script.waits(),
        figures,
        seed: world.plan.seed,
        verdict,
        kind,
        marks: world.marks,
        events: world.events,
        virtual_nanos: world.now,
        elapsed: Duration::ZERO,
        digest: world.digest(),
        steps: world.completed(),
        judged: world.judged(),
    }
}

#[cfg(feature = "planted-bugs")]
fn plant(bug: Option<Planted>) {
    antler_core::planted::plant(bug);
}

#[cfg(not(feature = "planted-bugs"))]
fn plant(bug: Option<Planted>) {
    assert!(bug.is_none(), "this build has no planted bugs");
}

/// What a panic says first, without its numbers.
fn kind_of_panic(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut kind = String::new();
    for c in line.chars().take(80) {
        match c.is_ascii_digit() {
            true if kind.ends_with('#') => {}
            true => kind.push('#'),
            false => kind.push(c),
        }
    }
    kind
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}
