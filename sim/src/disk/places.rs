//! Faults that concern a place on a disk: where data lies, a write that lands in
//! the wrong one, and a range that can't be used any more.

use super::content::{Data, PAGE, SECTOR};
use super::faults::{BadRange, Failing};
use super::file::Change;
use super::names::FileNumber;
use super::{Disk, SimDisk};
use antler_core::vfs::{VfsError, VfsResult};

/// Pages of a range that goes bad, at most.
const BAD_PAGES: u64 = 32;

impl SimDisk {
    /// A random range with data of the files whose name `chosen` takes can be neither
    /// read nor written from now on; tells where (file name, first byte, end).
    pub fn spoil(&self, now: u64, chosen: impl Fn(&str) -> bool) -> Option<(String, u64, u64)> {
        let mut disk = self.inner();
        disk.settle(now);
        disk.spoil(chosen)
    }

    /// Whether a range of it is bad for good.
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.look().bad.is_some()
    }
}

impl Disk {
    /// A random page with data of a random one of the files that `chosen` takes: the
    /// file's name and number, and the page's.
    pub(super) fn draw_page(
        &mut self,
        chosen: impl Fn(&str) -> bool,
    ) -> Option<(String, FileNumber, u64)> {
        let candidates: Vec<(String, FileNumber)> = self
            .names
            .durable()
            .filter(|(name, number)| {
                chosen(name) && self.file(*number).durable().data_pages().next().is_some()
            })
            .map(|(name, number)| (name.to_owned(), number))
            .collect();
        let count = candidates.len() as u64;
        let (name, number) = candidates.into_iter().nth(self.pick(count)?)?;
        let pages: Vec<u64> = self.file(number).durable().data_pages().collect();
        let page = pages[self.pick(pages.len() as u64)?];
        Some((name, number, page))
    }

    fn spoil(&mut self, chosen: impl Fn(&str) -> bool) -> Option<(String, u64, u64)> {
        let (name, file, page) = self.draw_page(chosen)?;
        let from = page * PAGE;
        let to = from + (1 + self.rng.below(BAD_PAGES)) * PAGE;
        self.bad = Some(BadRange { file, from, to });
        Some((name, from, to))
    }

    /// Fails for a call that touches the bad range.
    pub(super) fn check_range(
        &mut self,
        file: FileNumber,
        offset: u64,
        length: u64,
    ) -> VfsResult<()> {
        match &self.bad {
            Some(bad) if bad.meets(file, offset, length) => {
                self.counts.failed_calls += 1;
                Err(VfsError::Io("EIO on a bad range".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Puts a write of content where other content of its kind lies, if it is to be
    /// misdirected. The file is as long as if the write had gone to its place.
    pub(super) fn misdirects(&mut self, file: FileNumber, offset: u64, data: &[u8]) -> bool {
        if self.faults.misdirects == Failing::Never || !self.is_content(file) {
            return false;
        }
        let Some((_, victim, page)) = self.draw_page(is_content) else {
            return false;
        };
        let sector = self.rng.below(PAGE / SECTOR) * self.rng.below(2);
        let to = page * PAGE + sector * SECTOR;
        let room = self.file(victim).current().len().saturating_sub(to);
        let length = room.min(data.len() as u64);
        let overlaps = victim == file && to < offset + length && offset < to + length;
        if length == 0 || overlaps || !self.faults.misdirects.strikes() {
            return false;
        }
        self.counts.misdirected += 1;
        let end = offset + data.len() as u64;
        if end > self.file(file).current().len() {
            self.change_file(file, Change::Truncate { length: end });
        }
        self.damages.forget(file, offset, end);
        self.damages.note(file, offset, data.to_vec());
        let under = self.bytes_at(victim, to, length);
        self.damages.note(victim, to, under);
        let landed = Data::new(to, &data[..length as usize]);
        self.change_file(victim, Change::Write(landed));
        true
    }

    fn is_content(&self, file: FileNumber) -> bool {
        let mut names = self.names.durable();
        names.any(|(name, number)| number == file && is_content(name))
    }
}

/// Whether a file holds the content of chunks.
pub(crate) fn is_content(name: &str) -> bool {
    name.contains("slots")
}

#[cfg(test)]
mod tests {
    use super::super::{DiskOptions, DiskSpeed};
    use super::*;
    use antler_core::vfs::Vfs;

    fn disk_with(name: &str, pages: u64) -> (SimDisk, antler_core::vfs::FileId) {
        let options = DiskOptions {
            capacity: 1 << 20,
            speed: DiskSpeed::FLASH,
        };
        let mut disk = SimDisk::new(options, 1);
        let file = disk.create(name).unwrap();
        disk.write_at(file, 0, &vec![1; (pages * PAGE) as usize])
            .unwrap();
        disk.sync(file).unwrap();
        disk.sync_dir("").unwrap();
        disk.settle(disk.cursor());
        (disk, file)
    }

    fn pages_of(disk: &mut SimDisk, file: antler_core::vfs::FileId, value: u8) -> usize {
        let mut bytes = vec![0; disk.len(file).unwrap() as usize];
        disk.read_at(file, 0, &mut bytes).unwrap();
        bytes
            .chunks(PAGE as usize)
            .filter(|page| page.contains(&value))
            .count()
    }

    #[test]
    fn a_misdirected_write_damages_another_place_and_leaves_its_own_as_it_was() {
        let (mut disk, file) = disk_with("slots-0", 8);
        disk.set_faults(|faults| faults.misdirects = Failing::Always);
        let end = 8 * PAGE;
        disk.write_at(file, end, &[2; PAGE as usize]).unwrap();
        assert_eq!(disk.counts().misdirected, 1);
        assert!(!disk.is_honest());
        assert_eq!(disk.len(file).unwrap(), end + PAGE);
        let mut landed = [0; PAGE as usize];
        disk.read_at(file, end, &mut landed).unwrap();
        assert_eq!(landed, [0; PAGE as usize]);
        assert!((1..=2).contains(&pages_of(&mut disk, file, 2)));
    }

    #[test]
    fn only_content_is_misdirected() {
        let (mut disk, file) = disk_with("journal-1", 8);
        disk.set_faults(|faults| faults.misdirects = Failing::Always);
        disk.write_at(file, 0, &[2; PAGE as usize]).unwrap();
        assert_eq!(disk.counts().misdirected, 0);
        assert_eq!(pages_of(&mut disk, file, 2), 1);
    }

    #[test]
    fn a_spoiled_range_fails_for_good_and_nothing_else_does() {
        let (mut disk, file) = disk_with("slots-0", 200);
        let (name, from, to) = disk.spoil(disk.cursor(), |_| true).unwrap();
        assert_eq!(name, "slots-0");
        let mut page = [0; PAGE as usize];
        for at in 0..200 {
            let at = at * PAGE;
            let is_bad = from <= at && at < to;
            assert_eq!(disk.read_at(file, at, &mut page).is_err(), is_bad);
            assert_eq!(disk.write_at(file, at, &page).is_err(), is_bad);
        }
        assert!(disk.is_spoiled() && disk.counts().failed_calls > 0);
    }
}
