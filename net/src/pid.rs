//! The pid file of a daemon: its number for people and scripts, and a lock
//! (flock(2), gone with the process however it ends) that says whether it lives.
//! The lock, never the number alone, decides whether a daemon runs.

use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the lock is tried for: somebody may just be looking whether it is held.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a pid file can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// The system says no.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It runs already.
    #[error("{path}: it runs already, as process {pid}")]
    Running {
        /// Which file.
        path: PathBuf,
        /// The process.
        pid: u32,
    },
}

/// A held pid file; removed when it is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    _locked: File,
}

impl PidFile {
    /// Takes the file for this process.
    ///
    /// # Errors
    /// When another process holds it.
    pub fn take(path: &Path) -> Result<Self, PidError> {
        Self::take_within(path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => PidError::Running {
                path: path.to_owned(),
                pid: number(path).unwrap_or(0),
            },
            _ => PidError::Io {
                path: path.to_owned(),
                error,
            },
        })
    }

    fn take_within(path: &Path) -> io::Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            match Self::try_take(path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                done => return done,
            }
        }
    }

    fn try_take(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let is_current = std::fs::metadata(path)
            .is_ok_and(|there| file.metadata().is_ok_and(|own| own.ino() == there.ino()));
        if !is_current {
            // It was removed by its last owner after we had opened it.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self {
            path: path.to_owned(),
            _locked: file,
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The process that holds a pid file; `None` when nobody does, or one that is ending: it may
/// hold the lock until the last of its threads is gone, which `take` waits for.
#[must_use]
pub fn running(path: &Path) -> Option<u32> {
    let file = File::open(path).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => number(path).filter(|pid| !is_ending(*pid)),
        _ => None,
    }
}

/// Whether a process is a zombie already (proc_pid_stat(5)).
fn is_ending(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name is in parentheses and may have some itself.
    let state = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest.trim_start());
    state.starts_with(['Z', 'X'])
}

fn number(path: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(path).ok()?.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_held_by_one_and_freed_at_the_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        assert_eq!(running(&path), None);
        let held = PidFile::take(&path).expect("free");
        assert_eq!(running(&path), Some(std::process::id()));
        let second = PidFile::take(&path);
        assert!(matches!(second, Err(PidError::Running { pid, .. }) if pid == std::process::id()));
        drop(held);
        assert_eq!(running(&path), None);
        PidFile::take(&path).expect("free again");
    }

    #[test]
    fn who_is_killed_and_still_holds_the_lock_does_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        let _held = PidFile::take(&path).expect("free");
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("there is sleep(1)");
        std::fs::write(&path, format!("{}\n", child.id())).expect("it is ours");
        assert_eq!(running(&path), Some(child.id()));
        child.kill().expect("it is ours");
        while !is_ending(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(running(&path), None);
        child.wait().expect("it was not waited for");
    }

    #[test]
    fn a_number_without_a_lock_is_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pid");
        std::fs::write(&path, "1\n").expect("written");
        assert_eq!(running(&path), None);
        PidFile::take(&path).expect("nobody holds it");
    }
}
