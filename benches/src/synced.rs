//! Small writes, each with its fsync: what a database or a mail server does.
//!
//! Every thread has a file of its own, first grown by appends, then
//! overwritten in no order. One operation is the write and the fsync together.
//! Afterwards the files are read back whole.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::crew::{self, Measured};
use crate::failure::{Doing, Failure, Outcome};
use crate::kernel;
use crate::pattern::{Pattern, UNIT, shuffled};
use crate::work::{Bench, THREADS};

/// Generations of the two passes.
const APPENDED: u64 = 1;
const OVERWRITTEN: u64 = 2;

/// Both passes once, with each number of threads.
pub(crate) fn round(bench: &mut Bench, round: u32) -> Outcome<()> {
    for threads in THREADS {
        let directory = bench.directory(&format!("synced-{round}-{threads}"))?;
        let units = u64::from(bench.scale.synced / threads);
        let appended = pass(&directory, threads, APPENDED, || (0..units).collect())?;
        bench
            .board
            .operations("append 4KiB+fsync", threads, &appended);
        let overwritten = pass(&directory, threads, OVERWRITTEN, || shuffled(units, units))?;
        bench
            .board
            .operations("overwrite 4KiB+fsync", threads, &overwritten);
        if bench.verify {
            check(&directory, threads, units)?;
        }
        fs::remove_dir_all(&directory).doing(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

fn pass<P>(directory: &Path, threads: u32, generation: u64, places: P) -> Outcome<Measured>
where
    P: Fn() -> Vec<u64> + Sync,
{
    let files: Vec<File> = (0..threads)
        .map(|thread| open(&path(directory, thread)))
        .collect::<Outcome<_>>()?;
    crew::run(threads, |worker| {
        let file = &files[worker.index as usize];
        let mut pattern = Pattern::new(1);
        for unit in places() {
            let place = unit * UNIT as u64;
            let bytes = pattern.stamped(u64::from(worker.index), place, generation);
            worker.time(|| write_synced(file, bytes, place))?;
        }
        Ok(())
    })
}

fn write_synced(file: &File, bytes: &[u8], place: u64) -> Outcome<()> {
    let written = file.write_all_at(bytes, place);
    written
        .and_then(|()| file.sync_all())
        .doing(|| format!("writing and syncing at {place}"))
}

fn check(directory: &Path, threads: u32, units: u64) -> Outcome<()> {
    let pattern = Pattern::new(1);
    let mut buffer = [0; UNIT];
    for thread in 0..threads {
        let path = path(directory, thread);
        let file = open(&path)?;
        kernel::forget_pages(&file)?;
        for place in (0..units).map(|unit| unit * UNIT as u64) {
            file.read_exact_at(&mut buffer, place)
                .doing(|| format!("reading {}", path.display()))?;
            if !pattern.matches(&buffer, u64::from(thread), place, OVERWRITTEN) {
                let what = format!("{}: other bytes at {place}", path.display());
                return Err(Failure::Wrong(what));
            }
        }
    }
    Ok(())
}

fn open(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options
        .open(path)
        .doing(|| format!("opening {}", path.display()))
}

fn path(directory: &Path, thread: u32) -> PathBuf {
    directory.join(format!("thread-{thread}"))
}
