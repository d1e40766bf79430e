//! A simulated disk: [`Vfs`] in memory with latencies and faults.
//!
//! What may happen where:
//! - a power cut keeps a random subset of the 512-byte sectors of each write that
//!   no sync covered, and a random subset, maybe reordered, of the changes of
//!   names whose folder was not synced ([`SimDisk::cut`]);
//! - the death of a program keeps what it had handed over ([`SimDisk::kill`]);
//! - reads, writes and syncs fail once or for good; a failed sync leaves it open
//!   what of its changes is durable, and no later sync makes up for it;
//! - one range of one file can be neither read nor written any more;
//! - the disk is full, slow, hung, or gone, for good or for a while; a bit of it rots;
//!   a write lands elsewhere; a sync lies; an older image of it takes its place.
//!
//! The calls are synchronous, but each takes simulated time: [`SimDisk::begin`]
//! sets where a series of calls starts, each call moves the cursor on, and
//! [`SimDisk::cursor`] tells when the series ends. What a call does becomes
//! visible at once to the program that made it, but reaches the disk only at its
//! own time ("staged"), so that a crash can fall between any two calls of a
//! series that was executed in one go.

mod content;
mod damage;
mod faults;
mod file;
mod names;
mod places;
mod swap;

pub use faults::{DiskFaults, DiskSpeed, Failing};
pub(crate) use places::is_content;

use antler_core::rng::Rng;
use antler_core::vfs::{FileId, Space, Vfs, VfsError, VfsResult};
use bytes::BytesMut;
use content::{Data, PAGE, SECTOR};
use damage::Damages;
use faults::BadRange;
use file::{Change, File};
use names::{FileNumber, NameChange, Names};
use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

/// How a disk is built.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// Bytes that it holds.
    pub capacity: u64,
    /// How fast it is.
    pub speed: DiskSpeed,
}

/// A handle on a simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<Disk>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

/// A sync that was begun and takes its time.
#[derive(Clone, Copy, Debug)]
pub struct SyncBegun {
    file: FileId,
    upto: u64,
    /// When it ends.
    pub ends: u64,
}

/// Counts what a disk did.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskCounts {
    /// Calls of any kind.
    pub calls: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Calls that failed with EIO.
    pub failed_calls: u64,
    /// Syncs that lied.
    pub lies: u64,
    /// Bits that rotted.
    pub rotted: u64,
    /// Writes that landed elsewhere.
    pub misdirected: u64,
    /// How often an older content took the place of what was there.
    pub restored: u64,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(options: DiskOptions, seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Disk::new(options, Rng::new(seed)))))
    }

    /// The calls from now on start at this time.
    pub fn begin(&self, at: u64) {
        self.inner().cursor = at;
    }

    /// When the calls since `begin` end.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.look().cursor
    }

    /// Lets everything happen that was staged up to this time.
    pub fn settle(&self, now: u64) {
        self.inner().settle(now);
    }

    /// Begins a sync that other calls may overtake; it covers what was written before.
    pub fn begin_sync(&self, file: FileId) -> SyncBegun {
        self.inner().begin_sync(file)
    }

    /// Ends it: the changes that it covers are durable, unless it fails.
    ///
    /// # Errors
    /// As `Vfs::sync`.
    pub fn end_sync(&self, begun: SyncBegun) -> VfsResult<()> {
        self.inner().end_sync(begun)
    }

    /// The power fails at `now`: open handles are gone, and what was not synced is
    /// kept in part.
    pub fn cut(&self, now: u64) {
        self.inner().cut(now);
    }

    /// The program dies at `now`: open handles are gone.
    pub fn kill(&self, now: u64) {
        self.inner().kill(now);
    }

    /// A disk as a power cut that keeps nothing unsynced would leave this one, for
    /// judges. It has no faults and takes no time.
    #[must_use]
    pub fn durable_copy(&self, now: u64) -> Self {
        let mut disk = self.inner();
        disk.settle(now);
        Self(Rc::new(RefCell::new(disk.durable_copy())))
    }

    /// When changes that were made will reach the disk, from `now` on.
    #[must_use]
    pub fn times_to_come(&self, now: u64) -> Vec<u64> {
        let disk = self.look();
        let times = disk.staged.iter().map(|(when, ..)| *when);
        times.filter(|&when| when > now).collect()
    }

    /// Changes the faults.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.inner().faults);
    }

    /// The faults as they are.
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        self.look().faults
    }

    /// Whether everything that it said was durable is, and is as it was written.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        let counts = self.look().counts;
        counts.lies == 0 && counts.rotted == 0 && counts.misdirected == 0
    }

    /// What it did.
    #[must_use]
    pub fn counts(&self) -> DiskCounts {
        self.look().counts
    }

    /// A number that changes whenever something became durable.
    #[must_use]
    pub fn durable_changes(&self, now: u64) -> u64 {
        let mut disk = self.inner();
        disk.settle(now);
        disk.durable_changes
    }

    /// Flips a random bit of a random page with data of the files whose name `chosen`
    /// takes; tells where (file name and byte).
    pub fn rot(&self, now: u64, chosen: impl Fn(&str) -> bool) -> Option<(String, u64)> {
        let mut disk = self.inner();
        disk.settle(now);
        disk.rot(chosen)
    }

    fn inner(&self) -> RefMut<'_, Disk> {
        self.0.borrow_mut()
    }

    fn look(&self) -> Ref<'_, Disk> {
        self.0.borrow()
    }
}

/// Something that a call did and that has not reached the disk yet.
#[derive(Debug)]
enum Staged {
    Change(FileNumber, Change),
    Sync(FileNumber, u64),
    FailedSync(FileNumber, u64),
    Name(NameChange),
    SyncFolder(String, u64),
}

#[derive(Debug)]
struct Disk {
    options: DiskOptions,
    rng: Rng,
    files: BTreeMap<FileNumber, File>,
    names: Names,
    handles: BTreeMap<FileId, FileNumber>,
    /// In order of their time: (when, sequence, what).
    staged: VecDeque<(u64, u64, Staged)>,
    sequence: u64,
    cursor: u64,
    /// Where the last read of the medium ended, to tell a seek.
    head: (FileNumber, u64),
    /// No call ends before.
    hung_until: u64,
    next_handle: u64,
    next_file: FileNumber,
    used: u64,
    faults: DiskFaults,
    bad: Option<BadRange>,
    damages: Damages,
    counts: DiskCounts,
    durable_changes: u64,
}

impl Disk {
    fn new(options: DiskOptions, rng: Rng) -> Self {
        Self {
            options,
            rng,
            files: BTreeMap::new(),
            names: Names::default(),
            handles: BTreeMap::new(),
            staged: VecDeque::new(),
            sequence: 0,
            cursor: 0,
            head: (0, 0),
            hung_until: 0,
            next_handle: 1,
            next_file: 1,
            used: 0,
            faults: DiskFaults::default(),
            bad: None,
            damages: Damages::default(),
            counts: DiskCounts::default(),
            durable_changes: 0,
        }
    }

    /// Time passes for a call.
    fn spend(&mut self, nanos: u64) {
        self.counts.calls += 1;
        self.cursor = self.hung_until.max(self.cursor + nanos * self.faults.slow);
    }

    /// A duration that varies by a half to either side.
    fn jitter(&mut self, nanos: u64) -> u64 {
        nanos / 2 + self.rng.below(nanos + 1)
    }

    fn check_present(&self) -> VfsResult<()> {
        match self.faults.vanished {
            true => Err(VfsError::Io("the disk is gone".to_owned())),
            false => Ok(()),
        }
    }

    fn number(&self, file: FileId) -> VfsResult<FileNumber> {
        let gone = || VfsError::Io("the handle was closed".to_owned());
        self.handles.get(&file).copied().ok_or_else(gone)
    }

    fn file(&self, number: FileNumber) -> &File {
        self.files
            .get(&number)
            .expect("a handle or name keeps its file")
    }

    fn file_mut(&mut self, number: FileNumber) -> &mut File {
        self.files
            .get_mut(&number)
            .expect("a handle or name keeps its file")
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Stages something for the cursor's time.
    fn stage(&mut self, sequence: u64, what: Staged) {
        let when = self.cursor;
        let behind = self
            .staged
            .iter()
            .rev()
            .take_while(|(t, ..)| *t > when)
            .count();
        let at = self.staged.len() - behind;
        self.staged.insert(at, (when, sequence, what));
    }

    fn settle(&mut self, now: u64) {
        while self.staged.front().is_some_and(|(when, ..)| *when <= now) {
            let (_, sequence, what) = self.staged.pop_front().expect("the front was just seen");
            self.carry_out(sequence, what);
        }
    }

    fn carry_out(&mut self, sequence: u64, what: Staged) {
        match what {
            Staged::Change(number, change) => {
                if let Some(file) = self.files.get_mut(&number) {
                    file.submit(sequence, change);
                }
            }
            Staged::Sync(number, upto) => {
                if let Some(file) = self.files.get_mut(&number) {
                    file.sync(upto);
                    self.durable_changes += 1;
                }
            }
            Staged::FailedSync(number, upto) => {
                if let Some(file) = self.files.get_mut(&number) {
                    file.fail_sync(upto, &mut self.rng);
                    self.durable_changes += 1;
                }
            }
            Staged::Name(change) => self.names.submit(sequence, change),
            Staged::SyncFolder(folder, upto) => {
                self.names.sync(&folder, upto);
                self.durable_changes += 1;
                self.collect();
            }
        }
    }

    /// Drops the files that no name and no handle can reach any more.
    fn collect(&mut self) {
        let staged = |number: FileNumber| {
            self.staged.iter().any(|(_, _, what)| match what {
                Staged::Name(
                    NameChange::Create { file, .. }
                    | NameChange::Rename { file, .. }
                    | NameChange::Remove { file, .. },
                ) => *file == number,
                _ => false,
            })
        };
        let dead: Vec<FileNumber> = self
            .files
            .keys()
            .copied()
            .filter(|&n| !self.names.mention(n) && !self.handles.values().any(|&h| h == n))
            .filter(|&n| !staged(n))
            .collect();
        for number in dead {
            self.files.remove(&number);
        }
        self.used = self.files.values().map(|file| file.current().pages()).sum();
    }

    fn begin_sync(&mut self, file: FileId) -> SyncBegun {
        let upto = self.sequence;
        let before = self.cursor;
        let dirty = self
            .number(file)
            .map_or(0, |number| self.file(number).dirty_bytes());
        let nanos = self.sync_cost(dirty);
        self.spend(nanos);
        let alone = std::mem::replace(&mut self.cursor, before);
        let covered = self.staged.back().map_or(0, |(when, ..)| *when);
        SyncBegun {
            file,
            upto,
            ends: alone.max(covered),
        }
    }

    fn sync_cost(&mut self, dirty: u64) -> u64 {
        let speed = self.options.speed;
        self.jitter(speed.sync) + dirty.div_ceil(PAGE) * speed.write_page
    }

    /// Ends a sync at the cursor's time, which must be its end.
    fn end_sync(&mut self, begun: SyncBegun) -> VfsResult<()> {
        self.cursor = begun.ends;
        self.check_present()?;
        let number = self.number(begun.file)?;
        if self.faults.sync.strikes() {
            self.counts.failed_calls += 1;
            self.stage(begun.upto, Staged::FailedSync(number, begun.upto));
            return Err(VfsError::Io("EIO on sync".to_owned()));
        }
        if self.faults.lies.strikes() {
            self.counts.lies += 1;
            return Ok(());
        }
        self.counts.syncs += 1;
        self.stage(begun.upto, Staged::Sync(number, begun.upto));
        Ok(())
    }

    fn cut(&mut self, now: u64) {
        self.settle(now);
        self.staged.clear();
        self.handles.clear();
        self.names.cut(&mut self.rng);
        for file in self.files.values_mut() {
            file.cut(&mut self.rng);
        }
        self.durable_changes += 1;
        self.collect();
    }

    fn kill(&mut self, now: u64) {
        self.settle(now);
        self.staged.clear();
        self.handles.clear();
        self.names.forget_unsubmitted();
        for file in self.files.values_mut() {
            file.forget_unsubmitted();
        }
        self.collect();
    }

    fn durable_copy(&self) -> Self {
        let copied = self.names.durable().map(|(_, number)| number);
        let speed = DiskSpeed {
            seek: 0,
            read_page: 0,
            call: 0,
            sync: 0,
            write_page: 0,
        };
        Self {
            files: copied.map(|n| (n, self.file(n).durable_copy())).collect(),
            names: self.names.durable_copy(),
            next_file: self.next_file,
            used: self.used,
            ..Self::new(
                DiskOptions {
                    speed,
                    ..self.options
                },
                Rng::new(0),
            )
        }
    }

    fn rot(&mut self, chosen: impl Fn(&str) -> bool) -> Option<(String, u64)> {
        let (name, number, page) = self.draw_page(chosen)?;
        let bit = self.rng.below(PAGE * 8) as usize;
        let at = page * PAGE + bit as u64 / 8;
        let right = self.bytes_at(number, at, 1);
        self.damages.note(number, at, right);
        self.file_mut(number).rot(page, bit);
        self.counts.rotted += 1;
        self.durable_changes += 1;
        Some((name, at))
    }

    fn pick(&mut self, count: u64) -> Option<usize> {
        (count > 0).then(|| self.rng.below(count) as usize)
    }

    fn open_handle(&mut self, number: FileNumber) -> FileId {
        let handle = FileId(self.next_handle);
        self.next_handle += 1;
        self.handles.insert(handle, number);
        handle
    }

    fn change_names(&mut self, change: NameChange) {
        self.spend(self.options.speed.call);
        let sequence = self.next_sequence();
        self.names.change(&change);
        self.stage(sequence, Staged::Name(change));
    }

    fn change_file(&mut self, number: FileNumber, change: Change) {
        let sequence = self.next_sequence();
        let before = self.file(number).current().pages();
        self.file_mut(number).change(sequence, &change);
        let after = self.file(number).current().pages();
        self.used = self.used + after - before;
        self.stage(sequence, Staged::Change(number, change));
    }

    /// Time passes for a read; from which file, if it does not fail.
    fn begin_read(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<FileNumber> {
        self.check_present()?;
        let number = self.number(file)?;
        let speed = self.options.speed;
        let seek = match self.head == (number, offset) {
            true => 0,
            false => speed.seek,
        };
        let nanos = self.jitter(seek) + length.div_ceil(PAGE) * speed.read_page;
        self.spend(nanos);
        self.head = (number, offset + length);
        if self.faults.read.strikes() {
            self.counts.failed_calls += 1;
            return Err(VfsError::Io("EIO on read".to_owned()));
        }
        self.check_range(number, offset, length)?;
        Ok(number)
    }

    fn write(&mut self, number: FileNumber, offset: u64, data: &[u8]) -> VfsResult<()> {
        let growth = self
            .file(number)
            .current()
            .growth(offset, data.len() as u64);
        let room = (self.options.capacity / PAGE).saturating_sub(self.used);
        if growth > 0 && (self.faults.full || growth > room) {
            return Err(VfsError::Full);
        }
        self.check_range(number, offset, data.len() as u64)?;
        if self.misdirects(number, offset, data) {
            return Ok(());
        }
        let failed = self.faults.write.strikes();
        self.counts.failed_calls += u64::from(failed);
        let kept = match failed {
            true => whole_sectors(offset, self.rng.below(data.len() as u64 + 1)) as usize,
            false => data.len(),
        };
        if kept > 0 {
            self.damages.forget(number, offset, offset + kept as u64);
            let data = Data::new(offset, &data[..kept]);
            self.change_file(number, Change::Write(data));
        }
        match failed {
            true => Err(VfsError::Io("EIO on write".to_owned())),
            false => Ok(()),
        }
    }
}

/// How much of a write that fails after `length` bytes is in the file: a medium tears
/// at sectors.
fn whole_sectors(offset: u64, length: u64) -> u64 {
    let end = (offset + length) / SECTOR * SECTOR;
    end.saturating_sub(offset)
}

impl Vfs for SimDisk {
    fn open(&mut self, name: &str) -> VfsResult<FileId> {
        let mut disk = self.inner();
        disk.check_present()?;
        let nanos = disk.options.speed.call;
        disk.spend(nanos);
        match disk.names.find(name) {
            Some(number) => Ok(disk.open_handle(number)),
            None => Err(VfsError::NotFound(name.to_owned())),
        }
    }

    fn create(&mut self, name: &str) -> VfsResult<FileId> {
        let mut disk = self.inner();
        disk.check_present()?;
        if disk.names.find(name).is_some() {
            return Err(VfsError::Exists(name.to_owned()));
        }
        if disk.faults.full {
            return Err(VfsError::Full);
        }
        let file = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(file, File::default());
        disk.change_names(NameChange::Create {
            name: name.to_owned(),
            file,
        });
        Ok(disk.open_handle(file))
    }

    fn close(&mut self, file: FileId) {
        self.inner().handles.remove(&file);
    }

    fn read_at(&mut self, file: FileId, offset: u64, buffer: &mut [u8]) -> VfsResult<usize> {
        let mut disk = self.inner();
        let number = disk.begin_read(file, offset, buffer.len() as u64)?;
        Ok(disk.file(number).current().read(offset, buffer))
    }

    fn read_onto(
        &mut self,
        file: FileId,
        offset: u64,
        length: usize,
        buffer: &mut BytesMut,
    ) -> VfsResult<usize> {
        let length = length as u64;
        let mut disk = self.inner();
        let number = disk.begin_read(file, offset, length)?;
        Ok(disk
            .file(number)
            .current()
            .read_onto(offset, length, buffer))
    }

    fn write_at(&mut self, file: FileId, offset: u64, data: &[u8]) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let number = disk.number(file)?;
        let nanos = disk.options.speed.call * (1 + data.len() as u64 / (64 << 10));
        disk.spend(nanos);
        disk.write(number, offset, data)
    }

    fn sync(&mut self, file: FileId) -> VfsResult<()> {
        let mut disk = self.inner();
        let begun = disk.begin_sync(file);
        disk.end_sync(begun)
    }

    fn sync_dir(&mut self, folder: &str) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let nanos = disk.sync_cost(0);
        disk.spend(nanos);
        if disk.faults.sync.strikes() {
            disk.counts.failed_calls += 1;
            return Err(VfsError::Io("EIO on sync of a folder".to_owned()));
        }
        let upto = disk.sequence;
        disk.stage(upto, Staged::SyncFolder(folder.to_owned(), upto));
        Ok(())
    }

    fn len(&mut self, file: FileId) -> VfsResult<u64> {
        let disk = self.inner();
        disk.check_present()?;
        let number = disk.number(file)?;
        Ok(disk.file(number).current().len())
    }

    fn truncate(&mut self, file: FileId, length: u64) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let number = disk.number(file)?;
        let nanos = disk.options.speed.call;
        disk.spend(nanos);
        disk.damages.forget(number, length, u64::MAX);
        disk.change_file(number, Change::Truncate { length });
        Ok(())
    }

    fn discard(&mut self, file: FileId, offset: u64, length: u64) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let number = disk.number(file)?;
        let nanos = disk.options.speed.call;
        disk.spend(nanos);
        disk.damages.forget(number, offset, offset + length);
        disk.change_file(number, Change::Discard { offset, length });
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let Some(file) = disk.names.find(from) else {
            return Err(VfsError::NotFound(from.to_owned()));
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        disk.change_names(NameChange::Rename { from, to, file });
        Ok(())
    }

    fn remove(&mut self, name: &str) -> VfsResult<()> {
        let mut disk = self.inner();
        disk.check_present()?;
        let Some(file) = disk.names.find(name) else {
            return Err(VfsError::NotFound(name.to_owned()));
        };
        disk.change_names(NameChange::Remove {
            name: name.to_owned(),
            file,
        });
        Ok(())
    }

    fn list(&mut self, folder: &str) -> VfsResult<Vec<String>> {
        let disk = self.inner();
        disk.check_present()?;
        Ok(disk.names.list(folder))
    }

    fn space(&mut self) -> VfsResult<Space> {
        let disk = self.inner();
        disk.check_present()?;
        let total = disk.options.capacity;
        let free = match disk.faults.full {
            true => 0,
            false => total.saturating_sub(disk.used * PAGE),
        };
        Ok(Space { total, free })
    }
}

#[cfg(test)]
mod tests;
