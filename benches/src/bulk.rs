//! One large file: written and read in order, then here and there.
//!
//! Writes count to the end of the final fsync. Before each read the kernel's
//! pages of the file are dropped, so the mounted file system answers. Random
//! offsets visit each 4 KiB unit at most once in a round.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;

use crate::crew::{self, Measured};
use crate::failure::{Doing, Failure, Outcome};
use crate::kernel;
use crate::pattern::{Pattern, UNIT, shuffled};
use crate::work::{Bench, THREADS};

/// The size of a sequential write or read.
pub(crate) const STRIDE: usize = 1 << 20;

/// One random write in this many is read back.
const SAMPLE: usize = 4;

/// The generation of the sequential write; random ones come after.
const FIRST: u64 = 1;

/// Every workload on a large file once.
pub(crate) fn round(bench: &mut Bench, round: u32) -> Outcome<()> {
    let path = bench.root.join(format!("large-{round}"));
    let number = u64::from(round);
    let whole = Whole {
        path: &path,
        number,
        bytes: bench.scale.large_file,
    };
    bench
        .board
        .bytes("sequential write 1MiB", 1, whole.bytes, &whole.write()?);
    bench.board.bytes(
        "sequential read 1MiB",
        1,
        whole.bytes,
        &whole.read(bench.verify)?,
    );
    for threads in THREADS {
        random_reads(bench, &whole, threads)?;
    }
    for threads in THREADS {
        random_writes(bench, &whole, threads)?;
    }
    fs::remove_file(&path).doing(|| format!("removing {}", path.display()))
}

/// A large file, whole: its first generation.
pub(crate) struct Whole<'a> {
    /// Where it is.
    pub(crate) path: &'a Path,
    /// Its number in the stamps.
    pub(crate) number: u64,
    /// Its length, in whole MiB.
    pub(crate) bytes: u64,
}

impl Whole<'_> {
    /// Writes the file in order and syncs it.
    pub(crate) fn write(&self) -> Outcome<Measured> {
        crew::run(1, |worker| {
            let file = File::create(self.path).doing(|| self.doing("creating"))?;
            let mut pattern = Pattern::new(STRIDE / UNIT);
            for offset in self.strides() {
                let bytes = pattern.stamped(self.number, offset, FIRST);
                worker.time(|| {
                    file.write_all_at(bytes, offset)
                        .doing(|| self.doing("writing"))
                })?;
            }
            worker.time(|| file.sync_all().doing(|| self.doing("syncing")))
        })
    }

    /// Reads the file in order, from the file system and not from the kernel.
    pub(crate) fn read(&self, verify: bool) -> Outcome<Measured> {
        let file = self.open_forgotten()?;
        crew::run(1, |worker| {
            let pattern = Pattern::new(STRIDE / UNIT);
            let mut buffer = vec![0; STRIDE];
            for offset in self.strides() {
                worker.time(|| {
                    file.read_exact_at(&mut buffer, offset)
                        .doing(|| self.doing("reading"))
                })?;
                if verify && !pattern.matches_cheaply(&buffer, self.number, offset, FIRST) {
                    return Err(self.wrong(offset));
                }
            }
            Ok(())
        })
    }

    fn open_forgotten(&self) -> Outcome<File> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.path);
        let file = file.doing(|| self.doing("opening"))?;
        kernel::forget_pages(&file)?;
        Ok(file)
    }

    fn strides(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.bytes).step_by(STRIDE)
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} {}", self.path.display())
    }

    fn wrong(&self, offset: u64) -> Failure {
        let path = self.path.display();
        Failure::Wrong(format!("{path}: other bytes at {offset} than were written"))
    }
}

fn random_reads(bench: &mut Bench, whole: &Whole<'_>, threads: u32) -> Outcome<()> {
    let file = whole.open_forgotten()?;
    kernel::expect_random_reads(&file)?;
    let places = places(whole, bench.scale.random, u64::from(threads));
    let verify = bench.verify;
    let read = crew::run(threads, |worker| {
        let pattern = Pattern::new(1);
        let mut buffer = [0; UNIT];
        for &place in share(&places, worker.index, threads) {
            worker.time(|| {
                file.read_exact_at(&mut buffer, place)
                    .doing(|| whole.doing("reading"))
            })?;
            if verify && !pattern.matches(&buffer, whole.number, place, FIRST) {
                return Err(whole.wrong(place));
            }
        }
        Ok(())
    })?;
    bench.board.operations("random read 4KiB", threads, &read);
    Ok(())
}

fn random_writes(bench: &mut Bench, whole: &Whole<'_>, threads: u32) -> Outcome<()> {
    let file = whole.open_forgotten()?;
    let generation = FIRST + u64::from(threads);
    let places = places(whole, bench.scale.random, generation << 32);
    let written = write_and_sync(&file, whole, &places, threads, generation)?;
    bench
        .board
        .operations("random write 4KiB", threads, &written);
    if bench.verify {
        check_writes(&file, whole, &places, generation)?;
    }
    Ok(())
}

/// The threads write their shares; when all are done, one syncs, and that
/// counts too.
fn write_and_sync(
    file: &File,
    whole: &Whole<'_>,
    places: &[u64],
    threads: u32,
    generation: u64,
) -> Outcome<Measured> {
    let written = Barrier::new(threads as usize);
    crew::run(threads, |worker| {
        let mut pattern = Pattern::new(1);
        let mut outcome = Ok(());
        for &place in share(places, worker.index, threads) {
            let bytes = pattern.stamped(whole.number, place, generation);
            let write = || {
                file.write_all_at(bytes, place)
                    .doing(|| whole.doing("writing"))
            };
            outcome = worker.time(write);
            if outcome.is_err() {
                break;
            }
        }
        if written.wait().is_leader() && outcome.is_ok() {
            file.sync_all().doing(|| whole.doing("syncing"))?;
        }
        outcome
    })
}

fn check_writes(file: &File, whole: &Whole<'_>, places: &[u64], generation: u64) -> Outcome<()> {
    kernel::forget_pages(file)?;
    let pattern = Pattern::new(1);
    let mut buffer = [0; UNIT];
    for &place in places.iter().step_by(SAMPLE) {
        file.read_exact_at(&mut buffer, place)
            .doing(|| whole.doing("reading"))?;
        if !pattern.matches(&buffer, whole.number, place, generation) {
            return Err(whole.wrong(place));
        }
    }
    Ok(())
}

/// `count` different offsets of units in the file, in no order.
fn places(whole: &Whole<'_>, count: u32, seed: u64) -> Vec<u64> {
    let units = whole.bytes / UNIT as u64;
    let mut places = shuffled(units, seed);
    places.truncate(count as usize);
    places.iter().map(|unit| unit * UNIT as u64).collect()
}

/// One thread's part of the places.
fn share(places: &[u64], thread: u32, threads: u32) -> impl Iterator<Item = &u64> {
    places
        .iter()
        .skip(thread as usize)
        .step_by(threads as usize)
}
