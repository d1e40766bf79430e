//! The mount table: which Antler mount a path is on, who uses one, and unmounting.

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The type that the mount table shows.
const TYPE: &str = "fuse.antler";

/// An entry of the mount table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mounted {
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
}

impl Mounted {
    pub(crate) fn is_antler(&self) -> bool {
        self.kind == TYPE
    }
}

/// What is mounted exactly at `path`, topmost.
pub(crate) fn at(path: &Path) -> io::Result<Option<Mounted>> {
    let all = table()?;
    Ok(all.into_iter().rfind(|mounted| mounted.point == path))
}

fn table() -> io::Result<Vec<Mounted>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - type source options`
fn parse(line: &[u8]) -> Option<Mounted> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = words.iter().position(|word| *word == b"-")?;
    Some(Mounted {
        point: PathBuf::from(std::ffi::OsString::from_vec(unescape(words.get(4)?))),
        kind: String::from_utf8_lossy(words.get(dash + 1)?).into_owned(),
    })
}

/// Spaces and the like stand as `\040` in the table.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = word;
    while let [first, behind @ ..] = rest {
        let octal = (*first == b'\\' && behind.len() >= 3)
            .then(|| std::str::from_utf8(&behind[..3]).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &behind[3..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

/// Unmounts `path`; with `lazy` it goes from the tree at once and ends with its last user.
///
/// # Errors
/// `ResourceBusy` when it is used, or what the system says.
pub(crate) fn unmount(path: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy {
        UnmountFlags::DETACH
    } else {
        UnmountFlags::empty()
    };
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => fusermount(path, lazy),
        Err(error) => Err(error.into()),
    }
}

/// Users who are not root let the helper of libfuse do it.
fn fusermount(path: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg(path);
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if told.contains("busy") {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    Err(io::Error::other(told.trim().to_owned()))
}

/// Processes that work in or hold open something below `path`: `number (name)`.
/// Looks at names alone, so that a mount that hangs does not hang the caller.
pub(crate) fn users(path: &Path) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter(|process| process.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|process| uses(&process.path(), path))
        .map(|process| {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            format!(
                "{} ({})",
                process.file_name().to_string_lossy(),
                name.trim()
            )
        })
        .collect()
}

fn uses(process: &Path, path: &Path) -> bool {
    let leads_there = |link: &Path| fs::read_link(link).is_ok_and(|to| to.starts_with(path));
    let open = fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    leads_there(&process.join("cwd"))
        || leads_there(&process.join("root"))
        || leads_there(&process.join("exe"))
        || open.into_iter().any(|file| leads_there(&file.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = b"36 35 0:52 / /a\\040b/c rw,noatime shared:1 - fuse.antler m1:5:/ rw,x";
        let mounted = parse(line).expect("whole");
        assert_eq!(mounted.point, Path::new("/a b/c"));
        assert!(mounted.is_antler());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn the_root_is_mounted_and_used() {
        assert!(at(Path::new("/")).expect("read").is_some());
        let own = std::process::id().to_string();
        let cwd = std::env::current_dir().expect("there");
        assert!(users(&cwd).iter().any(|user| user.starts_with(&own)));
    }
}
