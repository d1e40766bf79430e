//! Small files by the thousand: create, stat, open, rename, unlink.
//!
//! Each thread has its own directory, because the kernel serialises changes of
//! one directory before any file system sees them. Names and attributes that
//! the kernel caches are dropped before they are asked for, so every operation
//! reaches the file system; what its own process caches stays.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::crew::{self, Worker};
use crate::failure::{Doing, Failure, Outcome};
use crate::kernel;
use crate::pattern::{Pattern, UNIT};
use crate::work::{Bench, THREADS, make_directory};

/// The write that these files see; they are written once.
const GENERATION: u64 = 1;

/// One file in this many is looked at again, outside the clock.
const SAMPLE: usize = 50;

/// Every workload on names once, with each number of threads.
pub(crate) fn round(bench: &mut Bench, round: u32) -> Outcome<()> {
    for threads in THREADS {
        let tree = Tree::plant(bench, round, threads)?;
        empty_files(bench, &tree)?;
        full_files(bench, &tree)?;
        tree.clear()?;
    }
    Ok(())
}

/// One directory for each thread, and its share of the files.
struct Tree {
    top: PathBuf,
    threads: u32,
    share: u32,
}

impl Tree {
    fn plant(bench: &Bench, round: u32, threads: u32) -> Outcome<Self> {
        let top = bench.directory(&format!("names-{round}-{threads}"))?;
        let tree = Self {
            top,
            threads,
            share: bench.scale.files / threads,
        };
        for thread in 0..threads {
            make_directory(&tree.directory(thread))?;
        }
        Ok(tree)
    }

    fn directory(&self, thread: u32) -> PathBuf {
        self.top.join(format!("thread-{thread}"))
    }

    fn paths(&self, thread: u32, prefix: &str) -> Vec<PathBuf> {
        let directory = self.directory(thread);
        let path = |file| directory.join(format!("{prefix}-{file:06}"));
        (0..self.share).map(path).collect()
    }

    /// Runs `each` on every file of every thread, against the clock.
    fn against_the_clock<E>(&self, prefix: &str, each: E) -> Outcome<crew::Measured>
    where
        E: Fn(&mut Worker, u64, &Path) -> Outcome<()> + Sync,
    {
        crew::run(self.threads, |worker| {
            let index = worker.index;
            for (file, path) in self.paths(index, prefix).iter().enumerate() {
                each(worker, file_number(index, file), path)?;
            }
            Ok(())
        })
    }

    /// Removes the directories, which must be empty by now.
    fn clear(&self) -> Outcome<()> {
        for thread in 0..self.threads {
            remove_directory(&self.directory(thread))?;
        }
        remove_directory(&self.top)
    }
}

fn empty_files(bench: &mut Bench, tree: &Tree) -> Outcome<()> {
    let created = tree.against_the_clock("empty", |worker, _, path| {
        worker.time(|| create_new(path).map(drop))
    })?;
    bench.board.operations("create", tree.threads, &created);
    for thread in 0..tree.threads {
        for path in tree.paths(thread, "empty") {
            remove(&path)?;
        }
    }
    Ok(())
}

fn full_files(bench: &mut Bench, tree: &Tree) -> Outcome<()> {
    let threads = tree.threads;
    let created = create_full(tree)?;
    bench
        .board
        .operations("create+4KiB+close", threads, &created);

    bench.names_dropped &= kernel::forget_names();
    let asked = tree.against_the_clock("full", stat)?;
    bench.board.operations("stat", threads, &asked);

    bench.names_dropped &= kernel::forget_names();
    let read = read_full(tree, bench.verify)?;
    bench.board.operations("open+read+close", threads, &read);

    let renamed = tree.against_the_clock("full", rename)?;
    bench.board.operations("rename", threads, &renamed);
    check_renamed(tree)?;

    let removed =
        tree.against_the_clock("moved", |worker, _, path| worker.time(|| remove(path)))?;
    bench.board.operations("unlink", threads, &removed);
    Ok(())
}

fn create_full(tree: &Tree) -> Outcome<crew::Measured> {
    crew::run(tree.threads, |worker| {
        let mut pattern = Pattern::new(1);
        for (file, path) in tree.paths(worker.index, "full").iter().enumerate() {
            let number = file_number(worker.index, file);
            let bytes = pattern.stamped(number, 0, GENERATION);
            worker.time(|| write_new(path, bytes))?;
        }
        Ok(())
    })
}

fn read_full(tree: &Tree, verify: bool) -> Outcome<crew::Measured> {
    crew::run(tree.threads, |worker| {
        let pattern = Pattern::new(1);
        let mut buffer = [0; UNIT];
        for (file, path) in tree.paths(worker.index, "full").iter().enumerate() {
            let number = file_number(worker.index, file);
            worker.time(|| read_whole(path, &mut buffer))?;
            if verify && !pattern.matches(&buffer, number, 0, GENERATION) {
                return Err(wrong(path, "other bytes than were written"));
            }
        }
        Ok(())
    })
}

fn stat(worker: &mut Worker, _number: u64, path: &Path) -> Outcome<()> {
    let about = worker
        .time(|| fs::symlink_metadata(path).doing(|| format!("stat of {}", path.display())))?;
    match about.is_file() && about.len() == UNIT as u64 {
        true => Ok(()),
        false => Err(wrong(path, "not a regular file of 4096 bytes")),
    }
}

fn rename(worker: &mut Worker, _number: u64, path: &Path) -> Outcome<()> {
    let target = moved(path);
    worker.time(|| fs::rename(path, &target).doing(|| format!("renaming {}", path.display())))
}

/// The same file's name after the rename.
fn moved(path: &Path) -> PathBuf {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name
        .expect("the names are ours")
        .replacen("full", "moved", 1);
    path.with_file_name(name)
}

fn check_renamed(tree: &Tree) -> Outcome<()> {
    for thread in 0..tree.threads {
        for old in tree.paths(thread, "full").iter().step_by(SAMPLE) {
            let new = moved(old);
            let there = fs::symlink_metadata(&new).is_ok_and(|about| about.len() == UNIT as u64);
            let gone = fs::symlink_metadata(old).is_err_and(|e| e.kind() == ErrorKind::NotFound);
            if !(there && gone) {
                return Err(wrong(&new, "the rename had no effect"));
            }
        }
    }
    Ok(())
}

/// The number in the stamps of one file of one thread.
fn file_number(thread: u32, file: usize) -> u64 {
    u64::from(thread) << 32 | file as u64
}

/// Creates a file that must not be there.
pub(crate) fn create_new(path: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    options
        .open(path)
        .doing(|| format!("creating {}", path.display()))
}

/// Creates, writes and closes a file. Rust drops what close(2) answers; every
/// file is read back later instead.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let mut file = create_new(path)?;
    file.write_all(bytes)
        .doing(|| format!("writing {}", path.display()))
}

fn read_whole(path: &Path, buffer: &mut [u8]) -> Outcome<()> {
    let file = File::open(path).doing(|| format!("opening {}", path.display()))?;
    file.read_exact_at(buffer, 0)
        .doing(|| format!("reading {}", path.display()))
}

fn remove(path: &Path) -> Outcome<()> {
    fs::remove_file(path).doing(|| format!("removing {}", path.display()))
}

fn remove_directory(path: &Path) -> Outcome<()> {
    fs::remove_dir(path).doing(|| format!("removing {}", path.display()))
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::Wrong(format!("{}: {what}", path.display()))
}
