//! The writer: threads that each do the four kinds of operations in turn, sync
//! after each, and note it. Measures how long each took, since the longest one
//! is the pause that a failover costs.

use crate::journal::{self, Entry, Kind};
use crate::pattern::UNIT;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Units in the file that is overwritten in place.
pub(crate) const UNITS: u64 = 64;

/// What to write, where, how long.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The directory under test.
    pub(crate) directory: PathBuf,
    /// Where acknowledgements are noted.
    pub(crate) journal: PathBuf,
    /// Number of this run.
    pub(crate) run: u64,
    /// How many write at once.
    pub(crate) threads: u64,
    /// For how long.
    pub(crate) time: Duration,
    /// Bytes of the largest file.
    pub(crate) largest: u64,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    latencies: Vec<Duration>,
    errors: Vec<String>,
}

impl Summary {
    /// Whether any thread ended with an error.
    pub(crate) fn has_failed(&self) -> bool {
        !self.errors.is_empty()
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        let at = |percent: usize| {
            sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        };
        let milliseconds =
            |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        write!(
            out,
            "acks={} errors={} p50_ms={:.1} p99_ms={:.1} longest_pause_ms={:.0}",
            sorted.len(),
            self.errors.len(),
            milliseconds(at(50)),
            milliseconds(at(99)),
            milliseconds(sorted.last())
        )?;
        self.errors
            .iter()
            .try_for_each(|error| write!(out, "\nerror: {error}"))
    }
}

/// Runs the plan to its end or to the first error of each thread.
pub(crate) fn write(plan: &Plan) -> Summary {
    let end = Instant::now() + plan.time;
    let mut whole = Summary::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| scope.spawn(move || write_thread(plan, thread, end)))
            .collect();
        for thread in threads {
            let part = thread.join().expect("a writer does not panic");
            whole.latencies.extend(part.latencies);
            whole.errors.extend(part.errors);
        }
    });
    whole
}

fn write_thread(plan: &Plan, thread: u64, end: Instant) -> Summary {
    let mut summary = Summary::default();
    let outcome = Writer::new(plan, thread).and_then(|mut writer| {
        while Instant::now() < end {
            let start = Instant::now();
            writer.step()?;
            summary.latencies.push(start.elapsed());
        }
        Ok(())
    });
    if let Err(error) = outcome {
        summary.errors.push(format!("thread {thread}: {error}"));
    }
    summary
}

/// The folder of one thread of one run.
pub(crate) fn folder(directory: &Path, run: u64, thread: u64) -> PathBuf {
    directory
        .join(format!("run-{run}"))
        .join(format!("thread-{thread}"))
}

struct Writer {
    folder: PathBuf,
    handle: File,
    log: File,
    units: File,
    journal: File,
    next: Entry,
    largest: u64,
    steps: u64,
    log_end: u64,
}

impl Writer {
    fn new(plan: &Plan, thread: u64) -> io::Result<Self> {
        let folder = folder(&plan.directory, plan.run, thread);
        fs::create_dir_all(&folder)?;
        let both = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(folder.join(name))
        };
        let (log, units) = (both("log")?, both("units")?);
        units.set_len(UNITS * UNIT as u64)?;
        units.sync_all()?;
        log.sync_all()?;
        let writer = Self {
            handle: File::open(&folder)?,
            log,
            units,
            journal: journal::open(&plan.journal)?,
            next: Entry {
                run: plan.run,
                thread,
                kind: Kind::New,
                number: 0,
                length: 0,
            },
            largest: plan.largest,
            steps: 0,
            log_end: 0,
            folder,
        };
        writer.sync_parents(&plan.directory)?;
        Ok(writer)
    }

    fn sync_parents(&self, top: &Path) -> io::Result<()> {
        let mut at = self.folder.as_path();
        loop {
            File::open(at)?.sync_all()?;
            match at.parent() {
                Some(parent) if at != top => at = parent,
                _ => return Ok(()),
            }
        }
    }

    fn step(&mut self) -> io::Result<()> {
        let round = self.steps / 4;
        self.next.kind = [Kind::New, Kind::Append, Kind::Overwrite, Kind::Replace]
            [usize::try_from(self.steps % 4).expect("below 4")];
        self.next.number = match self.next.kind {
            Kind::Append => self.log_end,
            Kind::New | Kind::Overwrite | Kind::Replace => round,
        };
        self.next.length = match self.next.kind {
            Kind::Overwrite => UNIT as u64,
            Kind::Append => self.next.label().length(self.largest.min(9000)) + 1,
            Kind::New | Kind::Replace => self.next.label().length(self.largest),
        };
        self.steps += 1;
        journal::note(&self.journal, "try", self.next)?;
        self.perform(self.next)?;
        journal::note(&self.journal, "ack", self.next)
    }

    fn perform(&mut self, entry: Entry) -> io::Result<()> {
        let bytes = entry.label().bytes(entry.length);
        match entry.kind {
            Kind::New => {
                self.put(&format!("new-{}", entry.number), &bytes)?;
                self.handle.sync_all()
            }
            Kind::Append => {
                self.log.write_all_at(&bytes, entry.number)?;
                self.log_end = entry.number + entry.length;
                self.log.sync_data()
            }
            Kind::Overwrite => {
                self.units
                    .write_all_at(&bytes, entry.number % UNITS * UNIT as u64)?;
                self.units.sync_data()
            }
            Kind::Replace => {
                self.put("replacement", &bytes)?;
                fs::rename(self.folder.join("replacement"), self.folder.join("current"))?;
                self.handle.sync_all()
            }
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create(self.folder.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}
