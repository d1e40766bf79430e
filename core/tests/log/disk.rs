//! A disk in memory that keeps the promises of `Vfs` and no more.
//!
//! Until a file is synced, a crash keeps any sectors of its writes (512 bytes each,
//! in any order) and loses the others; until the folder is synced, it keeps any of
//! the creations, renames and removals. `fail_after` ends the disk in the middle of
//! whatever uses it: from then on every call fails, until `crash` starts it again
//! with what it kept.

use antler_core::rng::Rng;
use antler_core::vfs::{FileId, Space, Vfs, VfsError, VfsResult};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Debug)]
enum Naming {
    Set(String, u64),
    Rename(String, String, u64),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
struct Inner {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<Naming>,
    open: BTreeMap<FileId, u64>,
    next: u64,
    calls: u64,
    fail_at: Option<u64>,
    syncs_to_fail: Option<u64>,
    space: Option<usize>,
    syncs: u64,
    writes: u64,
}

/// A handle on a disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Rc<RefCell<Inner>>);

impl Disk {
    /// From this many calls on, every call fails.
    pub fn fail_after(&self, calls: u64) {
        let mut inner = self.0.borrow_mut();
        inner.fail_at = Some(inner.calls + calls);
    }

    /// The sync that comes after this many others fails, once. As in Linux's page
    /// cache, what it was to make durable can still be read, and no later sync of the
    /// file brings it to the medium.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.0.borrow_mut().syncs_to_fail = Some(syncs);
    }

    /// Bytes that all files together may have.
    pub fn limit(&self, bytes: Option<usize>) {
        self.0.borrow_mut().space = bytes;
    }

    pub fn has_failed(&self) -> bool {
        let inner = self.0.borrow();
        inner.fail_at.is_some_and(|at| inner.calls >= at)
    }

    /// Writes and syncs so far.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.0.borrow();
        (inner.writes, inner.syncs)
    }

    /// The power goes, and comes back.
    pub fn crash(&self, rng: &mut Rng) {
        let mut inner = self.0.borrow_mut();
        let keep = [0, 20, 50, 90, 100][rng.below(5) as usize];
        let mut kept = |percent: u64| rng.below(100) < percent;
        for naming in std::mem::take(&mut inner.unsynced_names) {
            if kept(keep) {
                apply_naming(&mut inner.durable_names, &naming);
            }
        }
        inner.names = inner.durable_names.clone();
        for file in inner.files.values_mut() {
            for change in std::mem::take(&mut file.unsynced) {
                keep_some(&mut file.durable, &change, &mut || kept(keep));
            }
            file.current = file.durable.clone();
        }
        let Inner { files, names, .. } = &mut *inner;
        files.retain(|id, _| names.values().any(|named| named == id));
        inner.open.clear();
        inner.fail_at = None;
        inner.syncs_to_fail = None;
    }

    pub fn names(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// Changes a file behind everybody's back.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.0.borrow_mut();
        let id = inner.names[name];
        let file = inner.files.get_mut(&id).expect("named files are there");
        change(&mut file.current);
        file.durable = file.current.clone();
    }

    pub fn delete(&self, name: &str) {
        let mut inner = self.0.borrow_mut();
        inner.names.remove(name).expect("it is there");
        inner.durable_names.remove(name);
    }
}

fn apply_naming(names: &mut BTreeMap<String, u64>, naming: &Naming) {
    match naming {
        Naming::Set(name, id) => {
            names.insert(name.clone(), *id);
        }
        Naming::Rename(from, to, id) => {
            if names.get(from) == Some(id) {
                names.remove(from);
            }
            names.insert(to.clone(), *id);
        }
        Naming::Remove(name) => {
            names.remove(name);
        }
    }
}

fn keep_some(bytes: &mut Vec<u8>, change: &Change, kept: &mut dyn FnMut() -> bool) {
    match change {
        Change::Truncate(length) => {
            if kept() {
                bytes.resize(*length, 0);
            }
        }
        Change::Write(offset, data) => {
            let mut at = 0;
            while at < data.len() {
                let sector_end = (offset + at) / SECTOR * SECTOR + SECTOR;
                let end = data.len().min(sector_end - offset);
                if kept() {
                    put(bytes, offset + at, &data[at..end]);
                }
                at = end;
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl Inner {
    fn call(&mut self) -> VfsResult<()> {
        self.calls += 1;
        match self.fail_at {
            Some(at) if self.calls > at => Err(VfsError::Io("the power is off".to_owned())),
            _ => Ok(()),
        }
    }

    fn file(&mut self, file: FileId) -> VfsResult<&mut File> {
        let id = self.open.get(&file).copied();
        let id = id.ok_or_else(|| VfsError::Io(format!("{file:?} is not open")))?;
        Ok(self.files.get_mut(&id).expect("open files are there"))
    }

    fn handle(&mut self, id: u64) -> FileId {
        self.next += 1;
        let handle = FileId(self.next);
        self.open.insert(handle, id);
        handle
    }

    fn lookup(&self, name: &str) -> VfsResult<u64> {
        let id = self.names.get(name).copied();
        id.ok_or_else(|| VfsError::NotFound(name.to_owned()))
    }

    fn used(&self) -> usize {
        self.names
            .values()
            .map(|id| self.files[id].current.len())
            .sum()
    }

    fn name(&mut self, naming: Naming) {
        apply_naming(&mut self.names, &naming);
        self.unsynced_names.push(naming);
    }
}

impl Vfs for Disk {
    fn open(&mut self, name: &str) -> VfsResult<FileId> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        let id = inner.lookup(name)?;
        Ok(inner.handle(id))
    }

    fn create(&mut self, name: &str) -> VfsResult<FileId> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        if inner.names.contains_key(name) {
            return Err(VfsError::Exists(name.to_owned()));
        }
        inner.next += 1;
        let id = inner.next;
        inner.files.insert(id, File::default());
        inner.name(Naming::Set(name.to_owned(), id));
        Ok(inner.handle(id))
    }

    fn close(&mut self, file: FileId) {
        let known = self.0.borrow_mut().open.remove(&file);
        assert!(known.is_some(), "a handle is closed once");
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        let bytes = &inner.file(file)?.current;
        let from = bytes.len().min(offset as usize);
        let length = buffer.len().min(bytes.len() - from);
        buffer[..length].copy_from_slice(&bytes[from..from + length]);
        Ok(length)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        inner.writes += 1;
        let (used, space) = (inner.used(), inner.space);
        let file = inner.file(file)?;
        let growth = (offset as usize + data.len()).saturating_sub(file.current.len());
        if space.is_some_and(|space| used + growth > space) {
            return Err(VfsError::Full);
        }
        put(&mut file.current, offset as usize, data);
        file.unsynced
            .push(Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> VfsResult<()> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        inner.syncs += 1;
        if let Some(left) = inner.syncs_to_fail {
            inner.syncs_to_fail = left.checked_sub(1);
            if left == 0 {
                inner.file(file)?.unsynced.clear();
                return Err(VfsError::Io("a sync failed".to_owned()));
            }
        }
        let file = inner.file(file)?;
        for change in std::mem::take(&mut file.unsynced) {
            keep_some(&mut file.durable, &change, &mut || true);
        }
        Ok(())
    }

    fn sync_dir(&mut self, folder: &str) -> VfsResult<()> {
        assert_eq!(folder, "", "one folder is used");
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        inner.durable_names = inner.names.clone();
        inner.unsynced_names.clear();
        Ok(())
    }

    fn len(&mut self, file: FileId) -> VfsResult<u64> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        Ok(inner.file(file)?.current.len() as u64)
    }

    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        let file = inner.file(file)?;
        file.current.resize(length as usize, 0);
        file.unsynced.push(Change::Truncate(length as usize));
        Ok(())
    }

    fn discard(&mut self, _file: FileId, _offset: u64, _length: u64) -> VfsResult<()> {
        self.0.borrow_mut().call()
    }

    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        let id = inner.lookup(from)?;
        inner.name(Naming::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> VfsResult<()> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        inner.lookup(name)?;
        inner.name(Naming::Remove(name.to_owned()));
        Ok(())
    }

    fn list(&mut self, _folder: &str) -> VfsResult<Vec<String>> {
        let mut inner = self.0.borrow_mut();
        inner.call()?;
        Ok(inner.names.keys().cloned().collect())
    }

    fn space(&mut self) -> VfsResult<Space> {
        let inner = self.0.borrow();
        let total = inner.space.unwrap_or(1 << 40) as u64;
        Ok(Space {
            total,
            free: total.saturating_sub(inner.used() as u64),
        })
    }
}
