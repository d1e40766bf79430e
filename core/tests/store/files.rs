//! Files in memory for the tests of stores: they lose, tear and reorder what was
//! not synced when they crash, run out of space, fail on demand, and rot.
//!
//! Invariant: what `sync` and `sync_dir` covered survives every crash.

use antler_core::rng::Rng;
use antler_core::vfs::{FileId, Space, Vfs, VfsError, VfsResult};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    Truncate(usize),
    Discard { offset: usize, length: usize },
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    live: Vec<u8>,
    unsynced: Vec<Unsynced>,
    pages: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

type Names = BTreeMap<String, usize>;

/// Files that a store uses and a test can reach meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Shared(pub Rc<RefCell<Files>>);

/// A disk's files in memory.
#[derive(Clone, Debug)]
pub struct Files {
    files: Vec<File>,
    durable_names: Names,
    names: Names,
    renamings: Vec<Renaming>,
    handles: Vec<Option<usize>>,
    /// Calls that may still change something; then everything fails.
    calls_left: Option<u64>,
    /// Changing calls made.
    pub calls: u64,
    /// Syncs made.
    pub syncs: u64,
    pages_max: usize,
    fail_syncs: bool,
    fail_reads: bool,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            durable_names: Names::new(),
            names: Names::new(),
            renamings: Vec::new(),
            handles: Vec::new(),
            calls_left: None,
            calls: 0,
            syncs: 0,
            pages_max: usize::MAX / PAGE / 2,
            fail_syncs: false,
            fail_reads: false,
        }
    }
}

#[allow(dead_code, reason = "each test of the store uses some of the faults")]
impl Files {
    /// Lets `calls` changing calls succeed, then none any more.
    pub fn crash_after(&mut self, calls: u64) {
        self.calls_left = Some(calls);
    }

    /// Lets no crash come any more.
    pub fn spare(&mut self) {
        self.calls_left = None;
    }

    /// Whether the crash has come.
    pub fn crashed(&self) -> bool {
        self.calls_left == Some(0)
    }

    /// Bytes that files take.
    pub fn used(&self) -> usize {
        self.pages() * PAGE
    }

    /// Bounds the disk.
    pub fn limit(&mut self, bytes: usize) {
        self.pages_max = bytes / PAGE;
    }

    /// Lets every sync fail from now on.
    pub fn fail_syncs(&mut self) {
        self.fail_syncs = true;
    }

    /// Lets every read fail, until it is told to let them succeed.
    pub fn fail_reads(&mut self, fail: bool) {
        self.fail_reads = fail;
    }

    /// The bytes of a file.
    pub fn content(&self, name: &str) -> &[u8] {
        &self.files[self.names[name]].live
    }

    /// Replaces a range of a file at rest by zeros.
    pub fn wipe(&mut self, name: &str, range: std::ops::Range<usize>) {
        let file = &mut self.files[self.names[name]];
        file.live[range.clone()].fill(0);
        file.durable[range].fill(0);
    }

    /// The files as a power cut leaves them: of every unsynced write some sectors.
    pub fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let mut after = Self {
            pages_max: self.pages_max,
            ..Self::default()
        };
        let mut names = self.durable_names.clone();
        for renaming in &self.renamings {
            if rng.one_in(2) {
                apply_renaming(&mut names, renaming);
            }
        }
        for (name, file) in names {
            after.durable_names.insert(name.clone(), after.files.len());
            after.names.insert(name, after.files.len());
            after.files.push(self.files[file].after_power_cut(rng));
        }
        after
    }

    /// The files as the death of the process alone leaves them.
    pub fn after_kill(&self) -> Self {
        let mut after = self.clone();
        after.calls_left = None;
        after.handles.clear();
        after
    }

    /// Every file with its length.
    pub fn lengths(&self) -> Vec<(String, usize)> {
        let lengths = self.names.iter();
        lengths
            .map(|(name, &file)| (name.clone(), self.files[file].live.len()))
            .collect()
    }

    /// Where a file holds `content`.
    pub fn find(&self, name: &str, content: &[u8]) -> Option<usize> {
        let live = &self.files[self.names[name]].live;
        live.windows(content.len())
            .position(|window| window == content)
    }

    /// Flips bits of one byte, in a file at rest.
    pub fn rot(&mut self, name: &str, offset: usize, bits: u8) {
        let file = &mut self.files[self.names[name]];
        file.live[offset] ^= bits;
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= bits;
        }
    }

    fn pages(&self) -> usize {
        self.files.iter().map(|file| file.pages.len()).sum()
    }

    fn change(&mut self) -> VfsResult<()> {
        if let Some(left) = &mut self.calls_left {
            if *left == 0 {
                return Err(VfsError::Io("crashed".to_owned()));
            }
            *left -= 1;
            if *left == 0 {
                return Err(VfsError::Io("crashed".to_owned()));
            }
        }
        self.calls += 1;
        Ok(())
    }

    fn file(&mut self, file: FileId) -> &mut File {
        let handle = self.handles[file.0 as usize].expect("the handle is open");
        &mut self.files[handle]
    }

    fn handle(&mut self, file: usize) -> FileId {
        self.handles.push(Some(file));
        FileId(self.handles.len() as u64 - 1)
    }
}

fn apply_renaming(names: &mut Names, renaming: &Renaming) {
    match renaming {
        Renaming::Create(name, file) => drop(names.insert(name.clone(), *file)),
        Renaming::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Renaming::Remove(name) => drop(names.remove(name)),
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

impl File {
    fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match change {
                Unsynced::Write { offset, data } => tear(&mut bytes, *offset, data, rng),
                Unsynced::Truncate(length) if rng.one_in(2) => bytes.resize(*length, 0),
                Unsynced::Discard { offset, length } if rng.one_in(2) => {
                    let end = (offset + length).min(bytes.len());
                    bytes[(*offset).min(end)..end].fill(0);
                }
                _ => {}
            }
        }
        let pages = (0..bytes.len().div_ceil(PAGE)).collect();
        Self {
            durable: bytes.clone(),
            live: bytes,
            unsynced: Vec::new(),
            pages,
        }
    }
}

fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], rng: &mut Rng) {
    let odds = rng.below(4);
    let mut start = 0;
    while start < data.len() {
        let end = data.len().min(start + SECTOR - (offset + start) % SECTOR);
        let keep = match odds {
            0 => false,
            1 => true,
            2 => rng.one_in(2),
            _ => !rng.one_in(8),
        };
        if keep {
            put(bytes, offset + start, &data[start..end]);
        }
        start = end;
    }
}

impl Vfs for Files {
    fn open(&mut self, name: &str) -> VfsResult<FileId> {
        match self.names.get(name) {
            Some(&file) => Ok(self.handle(file)),
            None => Err(VfsError::NotFound(name.to_owned())),
        }
    }

    fn create(&mut self, name: &str) -> VfsResult<FileId> {
        self.change()?;
        if self.names.contains_key(name) {
            return Err(VfsError::Exists(name.to_owned()));
        }
        self.files.push(File::default());
        let file = self.files.len() - 1;
        self.names.insert(name.to_owned(), file);
        self.renamings.push(Renaming::Create(name.to_owned(), file));
        Ok(self.handle(file))
    }

    fn close(&mut self, file: FileId) {
        let handle = self.handles[file.0 as usize].take();
        handle.expect("a handle is closed once");
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize> {
        if self.fail_reads {
            return Err(VfsError::Io("read".to_owned()));
        }
        let live = &self.file(file).live;
        let start = (offset as usize).min(live.len());
        let count = buffer.len().min(live.len() - start);
        buffer[..count].copy_from_slice(&live[start..start + count]);
        Ok(count)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()> {
        self.change()?;
        let offset = offset as usize;
        let wanted = offset / PAGE..(offset + data.len()).div_ceil(PAGE);
        let used = self.pages();
        let max = self.pages_max;
        let target = self.file(file);
        let new = wanted
            .clone()
            .filter(|page| !target.pages.contains(page))
            .count();
        if new > 0 && used + new > max {
            return Err(VfsError::Full);
        }
        target.pages.extend(wanted);
        put(&mut target.live, offset, data);
        let data = data.to_vec();
        target.unsynced.push(Unsynced::Write { offset, data });
        Ok(())
    }

    fn sync(&mut self, file: FileId) -> VfsResult<()> {
        self.change()?;
        if self.fail_syncs {
            return Err(VfsError::Io("sync".to_owned()));
        }
        self.syncs += 1;
        let file = self.file(file);
        for change in std::mem::take(&mut file.unsynced) {
            match change {
                Unsynced::Write { offset, data } => put(&mut file.durable, offset, &data),
                Unsynced::Truncate(length) => file.durable.resize(length, 0),
                Unsynced::Discard { offset, length } => {
                    let end = (offset + length).min(file.durable.len());
                    file.durable[offset.min(end)..end].fill(0);
                }
            }
        }
        assert!(file.durable == file.live, "a synced file is durable");
        Ok(())
    }

    fn sync_dir(&mut self, _folder: &str) -> VfsResult<()> {
        self.change()?;
        self.renamings.clear();
        self.durable_names = self.names.clone();
        Ok(())
    }

    fn len(&mut self, file: FileId) -> VfsResult<u64> {
        Ok(self.file(file).live.len() as u64)
    }

    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()> {
        self.change()?;
        let file = self.file(file);
        file.live.resize(length as usize, 0);
        file.unsynced.push(Unsynced::Truncate(length as usize));
        Ok(())
    }

    fn discard(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<()> {
        self.change()?;
        let (offset, length) = (offset as usize, length as usize);
        let file = self.file(file);
        let end = (offset + length).min(file.live.len());
        file.live[offset.min(end)..end].fill(0);
        file.pages
            .retain(|page| !(offset..offset + length).contains(&(page * PAGE)));
        file.unsynced.push(Unsynced::Discard { offset, length });
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()> {
        self.change()?;
        let renaming = Renaming::Rename(from.to_owned(), to.to_owned());
        apply_renaming(&mut self.names, &renaming);
        self.renamings.push(renaming);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> VfsResult<()> {
        self.change()?;
        let renaming = Renaming::Remove(name.to_owned());
        apply_renaming(&mut self.names, &renaming);
        self.renamings.push(renaming);
        Ok(())
    }

    fn list(&mut self, _folder: &str) -> VfsResult<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn space(&mut self) -> VfsResult<Space> {
        let (total, used) = (self.pages_max, self.pages());
        Ok(Space {
            total: (total * PAGE) as u64,
            free: (total.saturating_sub(used) * PAGE) as u64,
        })
    }
}

impl Vfs for Shared {
    fn open(&mut self, name: &str) -> VfsResult<FileId> {
        self.0.borrow_mut().open(name)
    }

    fn create(&mut self, name: &str) -> VfsResult<FileId> {
        self.0.borrow_mut().create(name)
    }

    fn close(&mut self, file: FileId) {
        self.0.borrow_mut().close(file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize> {
        self.0.borrow_mut().read_at(file, offset, buffer)
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()> {
        self.0.borrow_mut().write_at(file, offset, data)
    }

    fn sync(&mut self, file: FileId) -> VfsResult<()> {
        self.0.borrow_mut().sync(file)
    }

    fn sync_dir(&mut self, folder: &str) -> VfsResult<()> {
        self.0.borrow_mut().sync_dir(folder)
    }

    fn len(&mut self, file: FileId) -> VfsResult<u64> {
        self.0.borrow_mut().len(file)
    }

    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()> {
        self.0.borrow_mut().truncate(file, length)
    }

    fn discard(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<()> {
        self.0.borrow_mut().discard(file, offset, length)
    }

    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()> {
        self.0.borrow_mut().rename(from, to)
    }

    fn remove(&mut self, name: &str) -> VfsResult<()> {
        self.0.borrow_mut().remove(name)
    }

    fn list(&mut self, folder: &str) -> VfsResult<Vec<String>> {
        self.0.borrow_mut().list(folder)
    }

    fn space(&mut self) -> VfsResult<Space> {
        self.0.borrow_mut().space()
    }
}
