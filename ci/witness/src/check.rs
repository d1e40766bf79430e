//! The checker: reads back what the journal tells and names every difference
//! from what must be (acknowledged) or may be (tried). What was not
//! acknowledged may be there, not, or old or new in granules (of 4 KiB, unless
//! the file system promises less); nothing else.

use crate::journal::{self, Entry, Kind};
use crate::pattern::UNIT;
use crate::write::{UNITS, folder};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Files that are read at once.
const READERS: usize = 8;

/// The outcome.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What a crash leaves old or new, never mixed, in bytes.
    granule: usize,
    acknowledged: u64,
    unanswered: u64,
    bytes: u64,
    wrong: Vec<String>,
}

impl Verdict {
    /// Whether everything promised is there, and nothing impossible.
    pub(crate) fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.wrong.iter().take(20) {
            writeln!(out, "WRONG: {line}")?;
        }
        let Self {
            acknowledged,
            unanswered,
            bytes,
            wrong,
            ..
        } = self;
        write!(
            out,
            "checked acknowledged={acknowledged} unanswered={unanswered} bytes={bytes} wrong={}",
            wrong.len()
        )
    }
}

/// Reads back everything in `journal` from `directory`.
pub(crate) fn check(directory: &Path, journal: &Path, granule: usize) -> io::Result<Verdict> {
    let mut verdict = Verdict {
        granule,
        ..Verdict::default()
    };
    let mut threads: BTreeMap<(u64, u64, Kind), Vec<(Entry, bool)>> = BTreeMap::new();
    for (entry, acknowledged) in journal::read(journal)? {
        *(if acknowledged {
            &mut verdict.acknowledged
        } else {
            &mut verdict.unanswered
        }) += 1;
        threads
            .entry((entry.run, entry.thread, entry.kind))
            .or_default()
            .push((entry, acknowledged));
    }
    for ((run, thread, kind), entries) in threads {
        let folder = folder(directory, run, thread);
        match kind {
            Kind::New => verdict.new_files(&folder, &entries),
            Kind::Append => verdict.log(&folder, &entries),
            Kind::Overwrite => verdict.units(&folder, &entries),
            Kind::Replace => verdict.current(&folder, &entries),
        }
    }
    Ok(verdict)
}

/// Whether `found`, which starts at offset `first` of its file, holds `expected`
/// granule by granule, each whole or zeros.
fn is_torn_copy(found: &[u8], expected: &[u8], first: usize, granule: usize) -> bool {
    let mut at = 0;
    while at < found.len() {
        let end = found.len().min(at + granule - (first + at) % granule);
        let unit = &found[at..end];
        if unit.iter().any(|&byte| byte != 0) && expected.get(at..end) != Some(unit) {
            return false;
        }
        at = end;
    }
    true
}

impl Verdict {
    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match fs::read(path) {
            Ok(content) => {
                self.bytes += content.len() as u64;
                Some(content)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.wrong.push(format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// Many at once: far from the masters each open waits for a round trip.
    fn new_files(&mut self, folder: &Path, entries: &[(Entry, bool)]) {
        let granule = self.granule;
        let check_some = |some: &[(Entry, bool)]| {
            let mut part = Self {
                granule,
                ..Self::default()
            };
            for (entry, acknowledged) in some {
                part.new_file(folder, *entry, *acknowledged);
            }
            part
        };
        std::thread::scope(|scope| {
            let share = entries.len().div_ceil(READERS).max(1);
            let readers: Vec<_> = entries
                .chunks(share)
                .map(|some| scope.spawn(move || check_some(some)))
                .collect();
            for reader in readers {
                let part = reader.join().expect("a reader does not panic");
                self.bytes += part.bytes;
                self.wrong.extend(part.wrong);
            }
        });
    }

    fn new_file(&mut self, folder: &Path, entry: Entry, acknowledged: bool) {
        let path = folder.join(format!("new-{}", entry.number));
        let expected = entry.label().bytes(entry.length);
        match self.read(&path) {
            Some(found) if found == expected => {}
            Some(found)
                if !acknowledged
                    && found.len() <= expected.len()
                    && is_torn_copy(&found, &expected, 0, self.granule) => {}
            None if !acknowledged => {}
            other => self.wrong.push(format!(
                "{}: acknowledged={acknowledged}, {}",
                path.display(),
                difference(other.as_deref(), &expected)
            )),
        }
    }

    fn log(&mut self, folder: &Path, entries: &[(Entry, bool)]) {
        let path = folder.join("log");
        let expected: Vec<u8> = entries
            .iter()
            .flat_map(|(entry, _)| entry.label().bytes(entry.length))
            .collect();
        let safe = entries
            .iter()
            .filter(|(_, acknowledged)| *acknowledged)
            .map(|(entry, _)| entry.number + entry.length)
            .max()
            .unwrap_or(0);
        let safe = usize::try_from(safe).expect("a log fits in memory");
        match self.read(&path) {
            Some(found)
                if found.len() >= safe
                    && found[..safe] == expected[..safe]
                    && found.len() <= expected.len()
                    && is_torn_copy(&found[safe..], &expected[safe..], safe, self.granule) => {}
            None if safe == 0 => {}
            other => self.wrong.push(format!(
                "{}: synced up to {safe}, {}",
                path.display(),
                difference(other.as_deref(), &expected)
            )),
        }
    }

    fn units(&mut self, folder: &Path, entries: &[(Entry, bool)]) {
        let path = folder.join("units");
        let Some(found) = self.read(&path) else {
            self.wrong.push(format!("{}: gone", path.display()));
            return;
        };
        for unit in 0..UNITS {
            let at = usize::try_from(unit).expect("small") * UNIT;
            let mine: Vec<_> = entries
                .iter()
                .filter(|(entry, _)| entry.number % UNITS == unit)
                .collect();
            let safe = mine.iter().rposition(|(_, acknowledged)| *acknowledged);
            let content = found.get(at..at + UNIT).unwrap_or_default();
            let mut possible: Vec<_> = mine[safe.unwrap_or(0)..]
                .iter()
                .map(|(entry, _)| entry.label().bytes(entry.length))
                .collect();
            if safe.is_none() {
                possible.push(vec![0; UNIT]);
            }
            let is_one_of_them = |at: usize| {
                possible.iter().any(|bytes| {
                    content.get(at..at + self.granule) == bytes.get(at..at + self.granule)
                })
            };
            if !(0..UNIT).step_by(self.granule).all(is_one_of_them) {
                let number = safe.map(|index| mine[index].0.number);
                self.wrong.push(format!(
                    "{}: unit {unit} is not the acknowledged {number:?} nor a later one",
                    path.display()
                ));
            }
        }
    }

    fn current(&mut self, folder: &Path, entries: &[(Entry, bool)]) {
        let path = folder.join("current");
        let safe = entries.iter().rposition(|(_, acknowledged)| *acknowledged);
        match self.read(&path) {
            None if safe.is_none() => {}
            Some(found)
                if entries[safe.unwrap_or(0)..]
                    .iter()
                    .any(|(entry, _)| entry.label().bytes(entry.length) == found) => {}
            other => {
                let length = other.map(|found| found.len());
                let number = safe.map(|index| entries[index].0);
                self.wrong.push(format!(
                    "{}: length {length:?}, neither {number:?} nor a later one",
                    path.display()
                ));
            }
        }
    }
}

fn difference(found: Option<&[u8]>, expected: &[u8]) -> String {
    let Some(found) = found else {
        return format!("gone; {} bytes expected", expected.len());
    };
    let first = found
        .iter()
        .zip(expected)
        .position(|(found, expected)| found != expected);
    let zeros = found.iter().filter(|&&byte| byte == 0).count();
    format!(
        "length {} of {}, first difference at {first:?}, {zeros} zeros",
        found.len(),
        expected.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::{Plan, write};
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::time::Duration;

    fn written() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (directory, journal) = (folder.path().join("data"), folder.path().join("journal"));
        let time = Duration::from_millis(300);
        let plan = Plan {
            directory: directory.clone(),
            journal: journal.clone(),
            run: 1,
            threads: 2,
            time,
            largest: 50_000,
        };
        fs::create_dir(&directory).unwrap();
        assert!(!write(&plan).has_failed());
        (folder, directory, journal)
    }

    /// Damages a good tree and returns how many wrongs the checker finds.
    fn wrongs_after(damage: impl FnOnce(&Path)) -> usize {
        let (_guard, directory, journal) = written();
        damage(&directory.join("run-1/thread-1"));
        check(&directory, &journal, UNIT).unwrap().wrong.len()
    }

    #[test]
    fn what_was_written_is_found_good() {
        let (_guard, directory, journal) = written();
        let verdict = check(&directory, &journal, UNIT).unwrap();
        assert!(verdict.is_good() && verdict.acknowledged > 8, "{verdict}");
        assert_eq!(verdict.unanswered, 0);
    }

    #[test]
    fn each_kind_of_damage_is_found() {
        assert_eq!(wrongs_after(|_| {}), 0);
        assert_eq!(
            wrongs_after(|folder| fs::remove_file(folder.join("new-0")).unwrap()),
            1
        );
        assert_eq!(
            wrongs_after(|folder| fs::write(folder.join("current"), b"old").unwrap()),
            1
        );
        assert_eq!(
            wrongs_after(|folder| OpenOptions::new()
                .write(true)
                .open(folder.join("log"))
                .unwrap()
                .set_len(0)
                .unwrap()),
            1
        );
        let zero_a_unit = |folder: &Path| {
            let file = OpenOptions::new()
                .write(true)
                .open(folder.join("units"))
                .unwrap();
            file.write_all_at(&[0; 4096], 0).unwrap();
        };
        assert_eq!(wrongs_after(zero_a_unit), 1);
    }

    #[test]
    fn an_unanswered_file_may_be_torn_but_not_garbage() {
        let (_guard, directory, journal) = written();
        let entry = Entry {
            run: 1,
            thread: 0,
            kind: Kind::New,
            number: 999_999,
            length: 10_000,
        };
        crate::journal::note(&crate::journal::open(&journal).unwrap(), "try", entry).unwrap();
        assert!(
            check(&directory, &journal, UNIT).unwrap().is_good(),
            "absent"
        );
        let mut torn = entry.label().bytes(9000);
        torn[4096..8192].fill(0);
        let path = directory.join("run-1/thread-0/new-999999");
        fs::write(&path, &torn).unwrap();
        assert!(
            check(&directory, &journal, UNIT).unwrap().is_good(),
            "torn at a unit"
        );
        torn[5000] = 1;
        fs::File::create(&path).unwrap().write_all(&torn).unwrap();
        assert!(
            !check(&directory, &journal, UNIT).unwrap().is_good(),
            "garbage"
        );
    }
}
