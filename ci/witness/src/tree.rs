//! A tree of files as people have them, made from a seed: empty ones, many small ones,
//! a few large ones, odd names, modes, times to the nanosecond, symbolic and hard links.
//!
//! Owns the making only; what became of the tree elsewhere is judged by `compare`.
//! Invariant: the same seed and number make the same tree.

use crate::pattern::{self, Label};
use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Branches below the top, so that so many programs can copy the tree side by side.
pub(crate) const BRANCHES: u64 = 32;
/// Files of one directory, about.
const DIRECTORY_FILES: u64 = 50;
/// A time that no tree of today can have by accident.
const LONG_AGO: Duration = Duration::from_secs(1_000_000_000);

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) files: u64,
    pub(crate) links: u64,
    pub(crate) bytes: u64,
}

impl std::fmt::Display for Made {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            files,
            links,
            bytes,
        } = self;
        write!(out, "files={files} links={links} bytes={bytes}")
    }
}

/// Makes `files` files, and some links beside them, in the new directory `top`.
pub(crate) fn make(top: &Path, files: u64, seed: u64) -> io::Result<Made> {
    let mut made = Made::default();
    let mut directories = BTreeSet::from([top.to_owned()]);
    fs::create_dir(top)?;
    for number in 0..files {
        let label = Label {
            run: seed,
            thread: 0,
            kind: 9,
            number,
        };
        let directory = directory_of(top, number);
        fs::create_dir_all(&directory)?;
        let path = directory.join(name_of(label));
        let length = length_of(label);
        make_file(&path, label, length)?;
        made.links += make_links(&directory, &path, number)?;
        made.files += 1;
        made.bytes += length;
        let within = directory.ancestors().take_while(|&above| above != top);
        directories.extend(within.map(Path::to_owned));
    }
    for directory in directories {
        File::open(directory)?.set_modified(SystemTime::UNIX_EPOCH + LONG_AGO)?;
    }
    Ok(made)
}

fn directory_of(top: &Path, number: u64) -> PathBuf {
    let (branch, within) = (number % BRANCHES, number / BRANCHES);
    let leaf = within / DIRECTORY_FILES;
    top.join(format!("branch-{branch:02}"))
        .join(format!("{}", leaf % 7))
        .join(format!("leaf {leaf}"))
}

fn name_of(label: Label) -> String {
    let number = label.number;
    match label.draw(1) % 20 {
        0 => format!("with spaces  and 'quotes' {number}"),
        1 => format!("Überweisung-{number}-für-Ærø-日本.txt"),
        2 => format!("{number}-{}", "long".repeat(50)),
        3 => format!(".hidden-{number}"),
        4 => format!("-dash-{number}\n*?[x]"),
        _ => format!("report-{number}.pdf"),
    }
}

/// Mostly up to 64 KiB, the small ones by far the most; one in fifty is empty, one in a
/// hundred has up to 4 MiB.
fn length_of(label: Label) -> u64 {
    let draw = label.draw(2);
    let bits = match draw % 100 {
        0 => 16 + draw / 100 % 6,
        1 | 2 => return 0,
        _ => draw / 100 % 16,
    };
    (1 << bits) + label.draw(3) % (1 << bits)
}

fn make_file(path: &Path, label: Label, length: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&label.bytes(length))?;
    let modes = [0o644, 0o600, 0o444, 0o755, 0o2750, 0o640];
    let mode = modes[usize::try_from(label.draw(4) % 6).expect("below six")];
    let age = Duration::new(
        label.draw(5) % 700_000_000,
        (label.draw(6) % 1_000_000_000) as u32,
    );
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + LONG_AGO + age))?;
    file.set_permissions(Permissions::from_mode(mode))
}

/// A second name for one file in fifty, a symbolic link to another one in fifty; of
/// those, one in four points nowhere.
fn make_links(directory: &Path, path: &Path, number: u64) -> io::Result<u64> {
    let within = number / BRANCHES;
    match within % 50 {
        17 => fs::hard_link(path, directory.join(format!("again-{number}")))?,
        33 => {
            let name = path.file_name().expect("a file has a name");
            let target = match number % 4 {
                0 => Path::new("../nowhere/at all"),
                _ => Path::new(name),
            };
            symlink(target, directory.join(format!("link-{number}")))?;
        }
        _ => return Ok(0),
    }
    Ok(1)
}

impl Label {
    /// A number that follows from the label, another one for each `what`.
    fn draw(self, what: u64) -> u64 {
        pattern::mix(pattern::mix(self.number ^ (self.run << 40)) ^ what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare;

    #[test]
    fn a_seed_makes_one_tree() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, same, other] = ["one", "same", "other"].map(|name| folder.path().join(name));
        let made = make(&one, 2000, 7).expect("made");
        assert_eq!(make(&same, 2000, 7).expect("made"), made);
        make(&other, 2000, 8).expect("made");
        assert!(made.links > 20 && made.bytes > 10 << 20, "{made}");
        let equal = compare::compare(&one, &same, 4);
        assert!(equal.is_good(), "{equal}");
        assert!(!compare::compare(&one, &other, 4).is_good());
    }
}
