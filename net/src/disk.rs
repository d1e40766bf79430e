//! Files of one folder: the [`Vfs`] that the storage formats run on in a daemon.
//!
//! A folder belongs to one process, by a lock on the folder itself (flock(2), gone
//! with the process however it ends). Every name is opened below the folder's own
//! descriptor, so that a folder that was moved away or replaced is not mistaken
//! for it. `sync` is fdatasync(2), `sync_dir` fsyncs the folder and those above it
//! up to the top, since a missing one may just have been made.
//!
//! Several handles may work in one folder ([`FolderVfs::another`]), and files can
//! be synced without the handle that opened them ([`FileTable`]).

use antler_core::vfs::{FileId, Space, Vfs, VfsError, VfsResult};
use rustix::fs::{AtFlags, Dir, FallocateFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a start waits for a process that has the folder.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks again.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It can't be opened.
    #[error("{path}: {error}")]
    Io {
        /// Which folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process works in it.
    #[error("{path}: another process uses this folder")]
    Locked {
        /// Which folder.
        path: PathBuf,
    },
}

/// Files below one folder.
#[derive(Debug)]
pub struct FolderVfs {
    shared: Arc<Shared>,
    files: FileTable,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    folder: OwnedFd,
    next: AtomicU64,
}

/// The open files of a [`FolderVfs`], for whoever syncs them on another thread.
#[derive(Clone, Debug, Default)]
pub struct FileTable(Arc<RwLock<HashMap<FileId, Arc<File>>>>);

impl FolderVfs {
    /// As [`FolderVfs::open`], but waits up to [`LOCK_PATIENCE`] for another process to
    /// let go: one that was ended holds its lock until its last thread is out of the
    /// kernel, which a slow disk may take a while to let it.
    ///
    /// # Errors
    /// When it can't be opened, or another process keeps it.
    pub fn open_patiently(path: &Path) -> Result<Self, FolderError> {
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match Self::open(path) {
                Err(FolderError::Locked { .. }) if Instant::now() < until => {
                    thread::sleep(LOCK_PAUSE);
                }
                opened => return opened,
            }
        }
    }

    /// Opens a folder, which must be there, and locks it for this process.
    ///
    /// # Errors
    /// When it can't be opened, or another process has it.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let failed = |error: Errno| FolderError::Io {
            path: path.to_owned(),
            error: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(FolderError::Locked {
                    path: path.to_owned(),
                });
            }
            Err(error) => return Err(failed(error)),
        }
        let shared = Shared {
            path: path.to_owned(),
            folder,
            next: AtomicU64::new(1),
        };
        Ok(Self::of(Arc::new(shared)))
    }

    fn of(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            files: FileTable::default(),
        }
    }

    /// A second handle on the same folder, under the same lock.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::of(self.shared.clone())
    }

    /// The open files, also those opened later.
    #[must_use]
    pub fn table(&self) -> FileTable {
        self.files.clone()
    }

    /// The folder as it was named when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    fn open_file(&mut self, name: &str, more: OFlags) -> VfsResult<FileId> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        let file = rustix::fs::openat(&self.shared.folder, checked(name), flags, MODE)
            .map_err(|error| failure(error, name))?;
        let id = FileId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.files.insert(id, File::from(file));
        Ok(id)
    }

    fn open_folder(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = if name.is_empty() { "." } else { checked(name) };
        match rustix::fs::openat2(
            &self.shared.folder,
            name,
            flags,
            Mode::empty(),
            ResolveFlags::BENEATH,
        ) {
            Err(Errno::NOSYS) => {
                rustix::fs::openat(&self.shared.folder, name, flags, Mode::empty())
            }
            opened => opened,
        }
    }

    fn make_folders(&self, name: &str) -> VfsResult<()> {
        for (at, _) in name.match_indices('/') {
            match rustix::fs::mkdirat(&self.shared.folder, &name[..at], Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failure(error, name)),
            }
        }
        Ok(())
    }
}

const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// # Panics
/// When a name leads out of the folder: names are made by our own formats.
fn checked(name: &str) -> &str {
    assert!(
        !name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| part != ".."),
        "names stay below the folder"
    );
    name
}

fn failure(error: Errno, name: &str) -> VfsError {
    match error {
        Errno::NOENT => VfsError::NotFound(name.to_owned()),
        Errno::EXIST => VfsError::Exists(name.to_owned()),
        Errno::NOSPC | Errno::DQUOT => VfsError::Full,
        other => VfsError::Io(format!("{name}: {other}")),
    }
}

fn io_failure(error: &io::Error) -> VfsError {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOSPC | Errno::DQUOT) => VfsError::Full,
        _ => VfsError::Io(error.to_string()),
    }
}

impl FileTable {
    /// An open file.
    ///
    /// # Panics
    /// When it is not open, which is a bug of whoever names it.
    #[must_use]
    pub fn file(&self, id: FileId) -> Arc<File> {
        let files = self.0.read().expect("a panic ends the process");
        files.get(&id).expect("the file is open").clone()
    }

    /// Makes a file's bytes and length durable.
    ///
    /// # Errors
    /// The medium's.
    pub fn sync(&self, id: FileId) -> VfsResult<()> {
        sync(&self.file(id))
    }

    fn insert(&self, id: FileId, file: File) {
        let mut files = self.0.write().expect("a panic ends the process");
        let before = files.insert(id, Arc::new(file));
        assert!(before.is_none(), "handles are numbered anew");
    }

    fn remove(&self, id: FileId) {
        let mut files = self.0.write().expect("a panic ends the process");
        assert!(files.remove(&id).is_some(), "a file is closed once");
    }
}

fn sync(file: &File) -> VfsResult<()> {
    loop {
        match file.sync_data() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done.map_err(|error| io_failure(&error)),
        }
    }
}

impl Vfs for FolderVfs {
    fn open(&mut self, name: &str) -> VfsResult<FileId> {
        self.open_file(name, OFlags::empty())
    }

    fn create(&mut self, name: &str) -> VfsResult<FileId> {
        self.make_folders(checked(name))?;
        self.open_file(name, OFlags::CREATE | OFlags::EXCL)
    }

    fn close(&mut self, file: FileId) {
        self.files.remove(file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize> {
        let file = self.files.file(file);
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_failure(&error)),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()> {
        self.files
            .file(file)
            .write_all_at(data, offset)
            .map_err(|error| io_failure(&error))
    }

    fn sync(&mut self, file: FileId) -> VfsResult<()> {
        self.files.sync(file)
    }

    fn sync_dir(&mut self, folder: &str) -> VfsResult<()> {
        let mut name = folder;
        loop {
            let opened = self
                .open_folder(name)
                .map_err(|error| failure(error, name))?;
            rustix::fs::fsync(&opened).map_err(|error| failure(error, name))?;
            if name.is_empty() {
                return Ok(());
            }
            name = name.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }

    fn len(&mut self, file: FileId) -> VfsResult<u64> {
        let metadata = self.files.file(file).metadata();
        metadata
            .map(|metadata| metadata.len())
            .map_err(|error| io_failure(&error))
    }

    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()> {
        self.files
            .file(file)
            .set_len(length)
            .map_err(|error| io_failure(&error))
    }

    fn discard(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&*self.files.file(file), flags, offset, length) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(failure(error, "discard")),
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()> {
        self.make_folders(checked(to))?;
        let folder = &self.shared.folder;
        rustix::fs::renameat(folder, checked(from), folder, to)
            .map_err(|error| failure(error, from))
    }

    fn remove(&mut self, name: &str) -> VfsResult<()> {
        rustix::fs::unlinkat(&self.shared.folder, checked(name), AtFlags::empty())
            .map_err(|error| failure(error, name))
    }

    fn list(&mut self, folder: &str) -> VfsResult<Vec<String>> {
        let opened = match self.open_folder(folder) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            opened => opened.map_err(|error| failure(error, folder))?,
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&opened).map_err(|error| failure(error, folder))? {
            let entry = entry.map_err(|error| failure(error, folder))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    /// Free is what a process without privileges may still use. Folders on one file
    /// system each report the whole of it.
    fn space(&mut self) -> VfsResult<Space> {
        let told =
            rustix::fs::fstatvfs(&self.shared.folder).map_err(|error| failure(error, "statvfs"))?;
        Ok(Space {
            total: told.f_blocks.saturating_mul(told.f_frsize),
            free: told.f_bavail.saturating_mul(told.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, FolderVfs) {
        let folder = tempfile::tempdir().expect("a folder");
        let vfs = FolderVfs::open(folder.path()).expect("opened");
        (folder, vfs)
    }

    #[test]
    fn bytes_come_back_where_they_were_put() {
        let (_folder, mut vfs) = folder();
        let file = vfs.create("slots/0").expect("made");
        vfs.write_at(file, 10_000, b"antler").expect("written");
        vfs.sync(file).expect("synced");
        vfs.sync_dir("slots").expect("synced");
        assert_eq!(vfs.len(file), Ok(10_006));
        vfs.close(file);
        let file = vfs.open("slots/0").expect("there");
        let mut buffer = [7; 12];
        assert_eq!(vfs.read_at(file, 9_998, &mut buffer), Ok(8));
        assert_eq!(&buffer[..8], b"\0\0antler");
        vfs.discard(file, 0, 8192).expect("punched or ignored");
        vfs.truncate(file, 3).expect("cut");
        assert_eq!(vfs.read_at(file, 5, &mut buffer), Ok(0));
    }

    #[test]
    fn names_are_made_renamed_listed_and_removed() {
        let (_folder, mut vfs) = folder();
        assert_eq!(vfs.list("nowhere"), Ok(Vec::new()));
        for name in ["a", "b"] {
            let file = vfs.create(name).expect("made");
            vfs.close(file);
        }
        assert_eq!(vfs.create("a"), Err(VfsError::Exists("a".into())));
        assert_eq!(vfs.open("c"), Err(VfsError::NotFound("c".into())));
        vfs.rename("a", "b").expect("renamed over");
        vfs.rename("b", "deep/er/c").expect("renamed");
        vfs.sync_dir("deep/er").expect("synced");
        assert_eq!(vfs.list(""), Ok(vec!["deep".to_owned()]));
        assert_eq!(vfs.list("deep/er"), Ok(vec!["c".to_owned()]));
        vfs.remove("deep/er/c").expect("removed");
        assert!(matches!(
            vfs.remove("deep/er/c"),
            Err(VfsError::NotFound(_))
        ));
        assert!(vfs.space().expect("told").total > 0);
    }

    #[test]
    fn one_folder_has_one_owner() {
        let (folder, vfs) = folder();
        let second = FolderVfs::open(folder.path());
        assert!(matches!(second, Err(FolderError::Locked { .. })));
        let mut another = vfs.another();
        drop(vfs);
        assert!(FolderVfs::open(folder.path()).is_err(), "still held");
        another.create("x").expect("works on");
        drop(another);
        FolderVfs::open(folder.path()).expect("free again");
    }

    #[test]
    fn a_start_waits_for_a_process_that_is_ending() {
        let (folder, vfs) = folder();
        let ending = thread::spawn(move || {
            thread::sleep(Duration::from_millis(200));
            drop(vfs);
        });
        FolderVfs::open_patiently(folder.path()).expect("free soon");
        ending.join().expect("ended");
    }

    #[test]
    fn a_file_is_synced_without_its_handle() {
        let (_folder, mut vfs) = folder();
        let table = vfs.table();
        let file = vfs.create("x").expect("made");
        let synced = std::thread::spawn(move || table.sync(file)).join();
        assert_eq!(synced.expect("ended"), Ok(()));
    }

    #[test]
    fn a_lost_folder_is_an_error_not_another_folder() {
        let (folder, mut vfs) = folder();
        let away = folder.path().with_extension("away");
        std::fs::rename(folder.path(), &away).expect("moved");
        std::fs::create_dir(folder.path()).expect("replaced");
        let file = vfs.create("x").expect("made in the old folder");
        vfs.close(file);
        assert!(away.join("x").exists() && !folder.path().join("x").exists());
        std::fs::remove_dir_all(&away).expect("removed");
        assert!(vfs.create("y").is_err());
    }
}
