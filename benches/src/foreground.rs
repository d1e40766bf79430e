//! The load that goes on while redundancy is lost and rebuilt.
//!
//! Reads of 4 KiB at random places and creates of small files come due at a
//! fixed rate, whether or not the ones before are done, and each latency counts
//! from when the operation was due. So a pause is felt by all that fell due in
//! it, both systems carry the same load, and neither gains by answering slowly.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::crew::{histogram, record};
use crate::failure::{Doing, Failure, Outcome};
use crate::kernel;
use crate::names::write_new;
use crate::pattern::{Pattern, UNIT, scramble};
use crate::score::{self, Latency};

/// Threads that read, and that create.
const READERS: u32 = 4;
const CREATORS: u32 = 2;

/// Where in the story an operation falls due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// All servers are up.
    Before,
    /// From the kill to full redundancy.
    During,
    /// The load ends.
    After,
}

/// The phase, for the load's threads to see.
pub(crate) struct Clock(AtomicU8);

impl Clock {
    /// A clock that stands before the kill.
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(Phase::Before as u8))
    }

    /// Moves on; phases never go back.
    pub(crate) fn advance(&self, phase: Phase) {
        let before = self.0.swap(phase as u8, Ordering::SeqCst);
        assert!(before <= phase as u8, "phases go forward");
    }

    fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Before,
            1 => Phase::During,
            _ => Phase::After,
        }
    }
}

/// A large file that the readers read from.
pub(crate) struct Target {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its number in the stamps.
    pub(crate) number: u64,
    /// Its length in bytes.
    pub(crate) bytes: u64,
}

/// What to read, where to create, and how often.
pub(crate) struct Load<'a> {
    /// Files to read from, each written once in generation 1.
    pub(crate) targets: &'a [Target],
    /// A directory for new files.
    pub(crate) directory: &'a Path,
    /// Reads that fall due in a second, over all readers.
    pub(crate) reads: u32,
    /// Creates that fall due in a second, over all creators.
    pub(crate) creates: u32,
}

/// What the load saw.
pub(crate) struct Seen {
    /// Of the reads.
    pub(crate) reads: score::Foreground,
    /// Of the creates.
    pub(crate) creates: score::Foreground,
    /// Files whose creation succeeded, with their numbers in the stamps.
    pub(crate) created: Vec<(PathBuf, u64)>,
}

impl Load<'_> {
    /// Keeps the load up until the clock stands at [`Phase::After`].
    pub(crate) fn carry(&self, clock: &Clock) -> Outcome<Seen> {
        thread::scope(|scope| {
            let reader = |index| scope.spawn(move || self.reader(index, clock));
            let creator = |index| scope.spawn(move || self.creator(index, clock));
            let readers: Vec<_> = (0..READERS).map(reader).collect();
            let creators: Vec<_> = (0..CREATORS).map(creator).collect();
            let mut reads = Tally::default();
            for thread in readers {
                reads.add(thread.join().expect("a reader does not panic")?);
            }
            let (mut creates, mut created) = (Tally::default(), Vec::new());
            for thread in creators {
                let (tally, files) = thread.join().expect("a creator does not panic")?;
                creates.add(tally);
                created.extend(files);
            }
            Ok(Seen {
                reads: reads.summary(self.reads),
                creates: creates.summary(self.creates),
                created,
            })
        })
    }

    fn reader(&self, index: u32, clock: &Clock) -> Outcome<Tally> {
        let open = |target: &Target| {
            let file = File::open(&target.path).doing(|| "opening a file to read".into())?;
            kernel::expect_random_reads(&file)?;
            Ok(file)
        };
        let files: Vec<File> = self.targets.iter().map(open).collect::<Outcome<_>>()?;
        let pattern = Pattern::new(1);
        let mut buffer = [0; UNIT];
        let mut tally = Tally::default();
        for due in schedule(self.reads, index, READERS, clock) {
            let draw = scramble(u64::from(index) << 32 | due.tick);
            let chosen = (draw % files.len() as u64) as usize;
            let target = &self.targets[chosen];
            let place = (draw >> 20) % (target.bytes / UNIT as u64) * UNIT as u64;
            let read = files[chosen].read_exact_at(&mut buffer, place);
            let read = tally.note(&due, read.doing(|| format!("reading at {place}")));
            if read && !pattern.matches(&buffer, target.number, place, 1) {
                let what = format!("{}: other bytes at {place}", target.path.display());
                return Err(Failure::Wrong(what));
            }
            kernel::forget_pages_soon(&files[chosen]);
        }
        Ok(tally)
    }

    fn creator(&self, index: u32, clock: &Clock) -> Outcome<(Tally, Vec<(PathBuf, u64)>)> {
        let mut pattern = Pattern::new(1);
        let mut tally = Tally::default();
        let mut created = Vec::new();
        for due in schedule(self.creates, index, CREATORS, clock) {
            let path = self.directory.join(format!("new-{index}-{:06}", due.tick));
            let number = u64::from(index) << 32 | due.tick;
            let bytes = pattern.stamped(number, 0, 1);
            if tally.note(&due, write_new(&path, bytes)) {
                created.push((path, number));
            }
        }
        Ok((tally, created))
    }
}

/// One operation's turn.
struct Due {
    tick: u64,
    at: Instant,
    phase: Phase,
}

/// Turns of one of `threads` threads that share `rate` a second. Each waits
/// until it is due; the last is before the clock says so.
fn schedule(rate: u32, index: u32, threads: u32, clock: &Clock) -> impl Iterator<Item = Due> {
    let begin = Instant::now();
    let interval = f64::from(threads) / f64::from(rate.max(1));
    let turn = move |tick: u64| {
        let seconds = interval * (tick as f64 + f64::from(index) / f64::from(threads));
        let at = begin + Duration::from_secs_f64(seconds);
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let phase = clock.phase();
        (phase != Phase::After).then_some(Due { tick, at, phase })
    };
    (0..).map_while(turn)
}

/// Latencies and failures of one kind of operation.
struct Tally {
    before: Histogram<u64>,
    during: Histogram<u64>,
    failed: u64,
    first_failure: Option<String>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            before: histogram(),
            during: histogram(),
            failed: 0,
            first_failure: None,
        }
    }
}

impl Tally {
    /// Notes how an operation ended; says whether well. A failed one counts in
    /// the latency too, for as long as its caller had to wait.
    fn note(&mut self, due: &Due, outcome: Outcome<()>) -> bool {
        let latency = due.at.elapsed();
        match due.phase {
            Phase::Before => record(&mut self.before, latency),
            Phase::During | Phase::After => record(&mut self.during, latency),
        }
        let Err(failure) = outcome else {
            return true;
        };
        self.failed += 1;
        self.first_failure
            .get_or_insert_with(|| failure.to_string());
        false
    }

    fn add(&mut self, other: Self) {
        self.before.add(&other.before).expect("equal bounds");
        self.during.add(&other.during).expect("equal bounds");
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn summary(&self, offered: u32) -> score::Foreground {
        score::Foreground {
            offered,
            before: Latency::of(&self.before),
            during: Latency::of(&self.during),
            failed: self.failed,
            first_failure: self.first_failure.clone(),
        }
    }
}
