//! What silent faults took from a disk, with the bytes that belong there, so that it can be
//! given back: a bit that rotted, a write that went astray and what it landed on. A range that
//! can't be read is as silent until somebody reads it, and lost nothing.
//!
//! Invariant: nothing is kept of a place that was written since. Undone from the newest
//! on, each one gives back what was there before it.

use super::content::Data;
use super::faults::Failing;
use super::names::FileNumber;
use super::{Disk, SimDisk};

#[derive(Debug)]
struct Damage {
    file: FileNumber,
    offset: u64,
    right: Vec<u8>,
}

impl Damage {
    fn end(&self) -> u64 {
        self.offset + self.right.len() as u64
    }

    /// What is left of it outside of a range.
    fn outside(self, from: u64, to: u64) -> impl Iterator<Item = Self> {
        let cut = |low: u64, high: u64| Self {
            file: self.file,
            offset: low,
            right: self.right[(low - self.offset) as usize..(high - self.offset) as usize].to_vec(),
        };
        let (start, end) = (self.offset, self.end());
        let before = cut(start, from.clamp(start, end));
        let behind = cut(to.clamp(start, end), end);
        [before, behind]
            .into_iter()
            .filter(|damage| !damage.right.is_empty())
    }
}

/// What a disk lacks.
#[derive(Debug, Default)]
pub(super) struct Damages(Vec<Damage>);

impl Damages {
    /// These bytes belong there.
    pub(super) fn note(&mut self, file: FileNumber, offset: u64, right: Vec<u8>) {
        if !right.is_empty() {
            self.0.push(Damage {
                file,
                offset,
                right,
            });
        }
    }

    /// A range has other content now.
    pub(super) fn forget(&mut self, file: FileNumber, from: u64, to: u64) {
        if self.0.is_empty() {
            return;
        }
        let kept = std::mem::take(&mut self.0).into_iter();
        let left = kept.flat_map(|damage| {
            let (from, to) = match damage.file == file {
                true => (from, to),
                false => (damage.end(), damage.end()),
            };
            damage.outside(from, to)
        });
        self.0 = left.collect();
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl SimDisk {
    /// What silent faults took by `now` is there again, and durable; none takes more, and no
    /// range is bad. True if anything was missing.
    pub fn undo_damage(&self, now: u64) -> bool {
        let mut disk = self.inner();
        disk.settle(now);
        disk.faults.misdirects = Failing::Never;
        let damages = std::mem::take(&mut disk.damages.0);
        let was_bad = disk.bad.take().is_some();
        let is_damaged = was_bad || !damages.is_empty();
        for damage in damages.into_iter().rev() {
            disk.put_right(&damage);
        }
        is_damaged
    }
}

impl Disk {
    fn put_right(&mut self, damage: &Damage) {
        let Some(file) = self.files.get_mut(&damage.file) else {
            return;
        };
        let before = file.current().pages();
        file.put_right(&Data::new(damage.offset, &damage.right));
        self.used = self.used + file.current().pages() - before;
        self.durable_changes += 1;
    }

    /// What a program finds in a range now.
    pub(super) fn bytes_at(&self, file: FileNumber, offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        let count = self.file(file).current().read(offset, &mut bytes);
        bytes.truncate(count);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DiskOptions, DiskSpeed};
    use super::*;
    use antler_core::vfs::{FileId, Vfs};

    const PAGES: usize = 8;

    fn disk() -> (SimDisk, FileId) {
        let options = DiskOptions {
            capacity: 1 << 20,
            speed: DiskSpeed::FLASH,
        };
        let mut disk = SimDisk::new(options, 3);
        let file = disk.create("slots").unwrap();
        disk.write_at(file, 0, &vec![1; PAGES * 4096]).unwrap();
        disk.sync(file).unwrap();
        disk.sync_dir("").unwrap();
        disk.settle(disk.cursor());
        (disk, file)
    }

    fn content(disk: &mut SimDisk, file: FileId) -> Vec<u8> {
        let mut bytes = vec![0; PAGES * 4096];
        disk.read_at(file, 0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_rotted_or_went_astray_comes_back_and_survives_a_power_cut() {
        let (mut disk, file) = disk();
        for page in [2, 5, 2] {
            disk.rot(disk.cursor(), |_| true);
            disk.set_faults(|faults| faults.misdirects = Failing::Once);
            disk.write_at(file, page * 4096, &[page as u8; 4096])
                .unwrap();
        }
        let mut wanted = vec![1; PAGES * 4096];
        for page in [2, 5] {
            wanted[page * 4096..(page + 1) * 4096].fill(page as u8);
        }
        assert_ne!(content(&mut disk, file), wanted);
        assert!(disk.undo_damage(disk.cursor()));
        disk.cut(disk.cursor());
        let file = disk.open("slots").unwrap();
        assert_eq!(content(&mut disk, file), wanted);
        assert!(!disk.undo_damage(disk.cursor()), "once is enough");
    }

    #[test]
    fn what_was_written_since_stays() {
        let (mut disk, file) = disk();
        disk.set_faults(|faults| faults.misdirects = Failing::Once);
        disk.write_at(file, 0, &[2; 4096]).unwrap();
        let newer = vec![3; PAGES * 4096];
        disk.write_at(file, 0, &newer).unwrap();
        assert!(!disk.undo_damage(disk.cursor()));
        assert_eq!(content(&mut disk, file), newer);
    }
}
