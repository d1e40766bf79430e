//! Whether two trees are equal: names, kinds, every byte, modes, owners, times of
//! change of content, targets of symbolic links, and which names are one file.
//!
//! Reads with many threads at once, since far from a master each open waits for it.
//! Invariant: what could not be read counts as a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Read at once, in bytes.
const PIECE: usize = 256 << 10;
/// Differences that are told, at most; all are counted.
const TOLD_MAX: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    names: u64,
    bytes: u64,
    differences: Vec<String>,
}

impl Verdict {
    /// Whether nothing differs, and there was something.
    pub(crate) fn is_good(&self) -> bool {
        self.names > 0 && self.differences.is_empty()
    }

    fn differs(&mut self, path: &Path, what: impl fmt::Display) {
        self.differences.push(format!("{path:?}: {what}"));
    }

    fn add(&mut self, other: Self) {
        self.names += other.names;
        self.bytes += other.bytes;
        self.differences.extend(other.differences);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.differences.len();
        write!(
            out,
            "names={} bytes={} differences={count}",
            self.names, self.bytes
        )?;
        let mut told = self.differences.iter().take(TOLD_MAX);
        told.try_for_each(|difference| write!(out, "\n{difference}"))
    }
}

/// Compares the tree `other` with `one`, with so many `threads`.
pub(crate) fn compare(one: &Path, other: &Path, threads: usize) -> Verdict {
    let mut verdict = Verdict::default();
    let pairs = Pairs {
        one,
        other,
        names: list(one, other, &mut verdict),
        next: AtomicUsize::new(0),
        twins: Mutex::default(),
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| pairs.work()))
            .collect();
        for worker in workers {
            verdict.add(worker.join().expect("a comparer does not panic"));
        }
    });
    verdict.differences.sort();
    verdict
}

/// The names below `one`, relative; those that only one tree has are differences.
fn list(one: &Path, other: &Path, verdict: &mut Verdict) -> Vec<PathBuf> {
    let mut names = vec![PathBuf::new()];
    let mut next = 0;
    while next < names.len() {
        let within = names[next].clone();
        next += 1;
        if !fs::symlink_metadata(one.join(&within)).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        match (children(&one.join(&within)), children(&other.join(&within))) {
            (Ok(mine), Ok(theirs)) => {
                for name in theirs.difference(&mine) {
                    verdict.differs(&within.join(name), "only in the second tree");
                }
                // Names that are only in the first are told when they are compared.
                names.extend(mine.into_iter().map(|name| within.join(name)));
            }
            (mine, theirs) => {
                for error in [mine.err(), theirs.err()].into_iter().flatten() {
                    verdict.differs(&within, error);
                }
            }
        }
    }
    names
}

fn children(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect()
}

struct Pairs<'a> {
    one: &'a Path,
    other: &'a Path,
    names: Vec<PathBuf>,
    next: AtomicUsize,
    /// The second tree's inode of each file of the first that has several names.
    twins: Mutex<BTreeMap<u64, u64>>,
}

impl Pairs<'_> {
    fn work(&self) -> Verdict {
        let mut verdict = Verdict::default();
        while let Some(name) = self.names.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            verdict.names += 1;
            match self.compare(name) {
                Ok(Ok(bytes)) => verdict.bytes += bytes,
                Ok(Err(difference)) => verdict.differs(name, difference),
                Err(error) => verdict.differs(name, error),
            }
        }
        verdict
    }

    /// How many bytes were compared, or what differs.
    fn compare(&self, name: &Path) -> io::Result<Result<u64, String>> {
        let paths = [self.one.join(name), self.other.join(name)];
        let [one, other] = [
            fs::symlink_metadata(&paths[0])?,
            fs::symlink_metadata(&paths[1])?,
        ];
        if let Some(difference) = attributes_differ(&one, &other) {
            return Ok(Err(difference));
        }
        if one.is_symlink() {
            let targets = [fs::read_link(&paths[0])?, fs::read_link(&paths[1])?];
            return Ok(match targets[0] == targets[1] {
                true => Ok(0),
                false => Err(format!("points to {:?}, not {:?}", targets[1], targets[0])),
            });
        }
        if !one.is_file() {
            return Ok(Ok(0));
        }
        if one.nlink() > 1 && !self.is_same_twin(&one, &other) {
            return Ok(Err("is another file than under its other name".into()));
        }
        bytes_differ(&paths)
    }

    fn is_same_twin(&self, one: &Metadata, other: &Metadata) -> bool {
        let (mine, theirs) = (one.ino(), other.ino());
        let mut twins = self.twins.lock().expect("nobody panics with it");
        *twins.entry(mine).or_insert(theirs) == theirs
    }
}

fn attributes_differ(one: &Metadata, other: &Metadata) -> Option<String> {
    let is_link = one.is_symlink();
    let pairs = [
        ("mode", u64::from(one.mode()), u64::from(other.mode())),
        ("owner", u64::from(one.uid()), u64::from(other.uid())),
        ("group", u64::from(one.gid()), u64::from(other.gid())),
        ("modified", one.mtime() as u64, other.mtime() as u64),
        (
            "modified at",
            one.mtime_nsec() as u64,
            other.mtime_nsec() as u64,
        ),
    ];
    let sizes = [
        ("size", one.size(), other.size()),
        ("names", one.nlink(), other.nlink()),
    ];
    let of_files = sizes.iter().filter(|_| one.is_file());
    let all = pairs.iter().filter(|_| !is_link).chain(of_files);
    all.copied()
        .find(|(_, mine, theirs)| mine != theirs)
        .map(|(what, mine, theirs)| format!("{what} is {theirs}, not {mine}"))
}

fn bytes_differ(paths: &[PathBuf; 2]) -> io::Result<Result<u64, String>> {
    let [mut one, mut other] = [File::open(&paths[0])?, File::open(&paths[1])?];
    let (mut mine, mut theirs) = (vec![0; PIECE], vec![0; PIECE]);
    let mut compared = 0;
    loop {
        let (left, right) = (fill(&mut one, &mut mine)?, fill(&mut other, &mut theirs)?);
        if mine[..left] != theirs[..right] {
            let same = mine[..left].iter().zip(&theirs[..right]);
            let first = same.take_while(|(mine, theirs)| mine == theirs).count() as u64;
            return Ok(Err(format!("differs at byte {}", compared + first)));
        }
        compared += left as u64;
        if left < PIECE {
            return Ok(Ok(compared));
        }
    }
}

/// Reads until the piece is full or the file ends.
fn fill(file: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    /// A small tree, changed by `change` before it is compared with another like it.
    fn after(change: impl Fn(&Path)) -> Verdict {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        for top in [&one, &other] {
            fs::create_dir_all(top.join("d")).expect("made");
            fs::write(top.join("d/file"), vec![7; PIECE + 100]).expect("made");
            fs::hard_link(top.join("d/file"), top.join("twin")).expect("made");
            symlink("d", top.join("link")).expect("made");
        }
        change(&other);
        for path in ["d/file", "twin", "d", ""] {
            for top in [&one, &other] {
                let Ok(file) = File::open(top.join(path)) else {
                    continue;
                };
                file.set_modified(SystemTime::UNIX_EPOCH).expect("set");
            }
        }
        compare(&one, &other, 3)
    }

    #[test]
    fn equal_trees_are_equal() {
        let verdict = after(|_| ());
        assert!(verdict.is_good(), "{verdict}");
        assert_eq!(
            (verdict.names, verdict.bytes),
            (5, 2 * (PIECE as u64 + 100))
        );
    }

    #[test]
    fn each_difference_is_found() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("differs at byte 262150", |top| {
                let mut bytes = vec![7; PIECE + 100];
                bytes[PIECE + 6] = 8;
                fs::write(top.join("d/file"), bytes).expect("written");
            }),
            ("No such file", |top| {
                fs::remove_file(top.join("link")).expect("removed");
            }),
            ("only in the second", |top| {
                fs::write(top.join("more"), "").expect("made");
            }),
            ("points to", |top| {
                fs::remove_file(top.join("link")).expect("removed");
                symlink("e", top.join("link")).expect("made");
            }),
            ("names is 1, not 2", |top| {
                fs::remove_file(top.join("twin")).expect("removed");
                fs::copy(top.join("d/file"), top.join("twin")).expect("made");
            }),
            ("size is 3", |top| {
                fs::write(top.join("d/file"), "abc").expect("written");
            }),
        ];
        for (wanted, change) in changes {
            let verdict = after(change);
            let told = verdict.to_string();
            assert!(
                !verdict.is_good() && told.contains(wanted),
                "{wanted}: {told}"
            );
        }
    }
}
