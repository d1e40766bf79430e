//! What one file would lose at a power cut: the pages changed since its last
//! sync with their content before, and the lengths it went through. Owns the
//! rule of which mixtures a cut may leave; leaves names and opening files to
//! `tree`.
//!
//! The file below holds the live content, so reading costs nothing extra. A
//! page that is not in here equals the synced content. A page in here is, per
//! 512-byte sector, either *written* (new or old after a cut), *condemned*
//! (a failed sync dropped it: old for certain, until written again), or
//! untouched (kept because a truncation cut it off).

use crate::rng::Rng;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a disk writes whole or not at all, in bytes.
pub(crate) const SECTOR: usize = 512;
/// The granule of keeping old content, in bytes.
pub(crate) const PAGE: usize = 4096;
const SECTORS: usize = PAGE / SECTOR;
const PAGE_LENGTH: u64 = PAGE as u64;

type Bytes = Box<[u8; PAGE]>;

#[derive(Debug, Default)]
struct Page {
    /// Synced content; nothing means zeros.
    before: Option<Bytes>,
    /// Sectors written since the last sync, one bit each.
    written: u8,
    /// Sectors that a failed sync lost, one bit each.
    condemned: u8,
}

/// The odds of one power cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Odds {
    /// Percent of the unsynced sectors and lengths that survive.
    pub(crate) keep_percent: u64,
}

/// What a power cut did to one file, in sectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// Unsynced sectors that survived.
    pub(crate) kept: u64,
    /// Unsynced sectors that did not.
    pub(crate) lost: u64,
}

/// The unsynced state of one file.
#[derive(Debug)]
pub(crate) struct Unsynced {
    pages: BTreeMap<u64, Page>,
    /// The synced length, then every later one; neighbouring growths are merged.
    lengths: Vec<u64>,
}

impl Unsynced {
    /// A file whose `length` bytes are all synced.
    pub(crate) fn new(length: u64) -> Self {
        Self {
            pages: BTreeMap::new(),
            lengths: vec![length],
        }
    }

    /// Whether a power cut would change nothing.
    pub(crate) fn is_clean(&self) -> bool {
        self.pages.is_empty() && self.lengths.len() == 1
    }

    /// The file's length now, in bytes.
    pub(crate) fn length(&self) -> u64 {
        *self
            .lengths
            .last()
            .expect("the synced length is always there")
    }

    fn synced_length(&self) -> u64 {
        self.lengths[0]
    }

    /// To be called before `offset..offset + length` of `file` is overwritten.
    /// A page written before may, by chance, count as written back in between,
    /// as a kernel does it: then its middle content may be what a cut leaves.
    pub(crate) fn before_write(
        &mut self,
        file: &File,
        offset: u64,
        length: u64,
        rng: &mut Rng,
    ) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let end = offset + length;
        for index in offset / PAGE_LENGTH..=(end - 1) / PAGE_LENGTH {
            let touched = sectors(index, offset, end);
            if self
                .pages
                .get(&index)
                .is_some_and(|page| page.written & touched != 0)
                && rng.percent(15)
            {
                self.write_back(file, index)?;
            }
            let page = self.capture(file, index)?;
            page.written |= touched;
            page.condemned &= !touched;
        }
        Ok(())
    }

    /// To be called after a write or an allocation ended at `end`.
    pub(crate) fn after_write(&mut self, end: u64) {
        if end > self.length() {
            self.push_length(end);
        }
    }

    /// To be called before `file` is truncated, up or down, to `length`.
    pub(crate) fn before_truncate(&mut self, file: &File, length: u64) -> io::Result<()> {
        let kept = self.length().min(self.synced_length());
        if length < kept {
            self.capture_data(file, length, kept)?;
        }
        self.push_length(length);
        Ok(())
    }

    /// To be called before `offset..offset + length` of `file` is made zeros.
    pub(crate) fn before_discard(
        &mut self,
        file: &File,
        offset: u64,
        length: u64,
        rng: &mut Rng,
    ) -> io::Result<()> {
        let end = offset.saturating_add(length).min(self.length());
        let mut at = offset;
        while let Some((start, stop)) = next_data(file, at, end)? {
            self.before_write(file, start.max(at), stop.min(end) - start.max(at), rng)?;
            at = stop;
        }
        Ok(())
    }

    /// A sync of `file` succeeded: everything but what an earlier one lost is safe.
    pub(crate) fn synced(&mut self, file: &File) -> io::Result<()> {
        let dirty: Vec<u64> = self
            .pages
            .iter()
            .filter(|(_, page)| page.condemned != 0)
            .map(|(&index, _)| index)
            .collect();
        for index in dirty {
            self.write_back(file, index)?;
        }
        self.pages.retain(|_, page| {
            page.written = 0;
            page.condemned != 0
        });
        self.lengths = vec![self.length()];
        Ok(())
    }

    /// A sync failed: as on Linux, what was to be written counts as clean from
    /// now on and never reaches the disk unless it is written again.
    pub(crate) fn sync_failed(&mut self) {
        for page in self.pages.values_mut() {
            page.condemned |= page.written;
            page.written = 0;
        }
    }

    /// The power fails: turns `file` into one of the contents that its disk may
    /// hold, and counts all of it as synced.
    pub(crate) fn forget(&mut self, file: &File, rng: &mut Rng, odds: Odds) -> io::Result<Losses> {
        let (length, floor) = self.choose_length(rng, odds);
        let mut losses = Losses::default();
        for (index, page) in std::mem::take(&mut self.pages) {
            let start = index * PAGE_LENGTH;
            if start < length {
                file.write_all_at(
                    &page.survivor(file, start, floor, rng, odds, &mut losses)?[..],
                    start,
                )?;
            }
        }
        file.set_len(length)?;
        self.lengths = vec![length];
        Ok(losses)
    }

    /// The length after the cut, and the lowest length that took effect before
    /// it: synced bytes past that one were cut off.
    fn choose_length(&self, rng: &mut Rng, odds: Odds) -> (u64, u64) {
        let mut kept = 0;
        while kept + 1 < self.lengths.len() && rng.percent(odds.keep_percent) {
            kept += 1;
        }
        let floor = *self.lengths[..=kept]
            .iter()
            .min()
            .expect("the range holds the synced length");
        let length = self.lengths[kept];
        match self.lengths.get(kept + 1) {
            Some(&next) if next > length && odds.keep_percent > 0 && rng.percent(50) => {
                (length + rng.below(next - length), floor)
            }
            _ => (length, floor),
        }
    }

    fn push_length(&mut self, length: u64) {
        let known = self.lengths.len();
        if known >= 2
            && self.lengths[known - 2] <= self.lengths[known - 1]
            && self.lengths[known - 1] <= length
        {
            self.lengths.pop();
        }
        self.lengths.push(length);
    }

    /// Keeps the synced content of page `index`, unless that was done already.
    fn capture(&mut self, file: &File, index: u64) -> io::Result<&mut Page> {
        let synced = self.synced_length();
        match self.pages.entry(index) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let start = index * PAGE_LENGTH;
                let before = if start < synced {
                    Some(read_page(file, start)?)
                } else {
                    None
                };
                Ok(entry.insert(Page {
                    before,
                    ..Page::default()
                }))
            }
        }
    }

    fn capture_data(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while let Some((start, stop)) = next_data(file, at, to)? {
            for index in start.max(at) / PAGE_LENGTH..=(stop.min(to) - 1) / PAGE_LENGTH {
                self.capture(file, index)?;
            }
            at = stop;
        }
        Ok(())
    }

    /// The written sectors of page `index` reach the disk.
    fn write_back(&mut self, file: &File, index: u64) -> io::Result<()> {
        let page = self
            .pages
            .get_mut(&index)
            .expect("the caller found the page");
        let live = read_page(file, index * PAGE_LENGTH)?;
        let before = page.before.get_or_insert_with(|| Box::new([0; PAGE]));
        for sector in (0..SECTORS).filter(|sector| page.written & (1 << sector) != 0) {
            before[range(sector)].copy_from_slice(&live[range(sector)]);
        }
        page.written = 0;
        Ok(())
    }
}

impl Page {
    /// What the cut leaves of this page, which starts at `start`.
    fn survivor(
        &self,
        file: &File,
        start: u64,
        floor: u64,
        rng: &mut Rng,
        odds: Odds,
        losses: &mut Losses,
    ) -> io::Result<Bytes> {
        let live = read_page(file, start)?;
        let mut left = self.before.clone().unwrap_or_else(|| Box::new([0; PAGE]));
        if floor < start + PAGE_LENGTH {
            left[usize::try_from(floor.saturating_sub(start)).expect("below a page")..].fill(0);
        }
        for sector in 0..SECTORS {
            if self.written & (1 << sector) != 0 && rng.percent(odds.keep_percent) {
                left[range(sector)].copy_from_slice(&live[range(sector)]);
                losses.kept += 1;
            } else if (self.written | self.condemned) & (1 << sector) != 0 {
                losses.lost += 1;
            }
        }
        Ok(left)
    }
}

fn range(sector: usize) -> std::ops::Range<usize> {
    sector * SECTOR..(sector + 1) * SECTOR
}

/// The sectors of page `index` that `offset..end` touches, one bit each.
fn sectors(index: u64, offset: u64, end: u64) -> u8 {
    let start = index * PAGE_LENGTH;
    let touches = |sector: usize| {
        let first = start + (sector * SECTOR) as u64;
        offset < first + SECTOR as u64 && first < end
    };
    (0..SECTORS)
        .filter(|&sector| touches(sector))
        .fold(0, |bits, sector| bits | 1 << sector)
}

/// One page, with zeros past the end of the file.
fn read_page(file: &File, start: u64) -> io::Result<Bytes> {
    let mut page = Box::new([0; PAGE]);
    let mut filled = 0;
    while filled < PAGE {
        match file.read_at(&mut page[filled..], start + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(page)
}

/// The next range at or after `from` and before `to` that is not a hole.
fn next_data(file: &File, from: u64, to: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    if from >= to {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) if start < to => start,
        Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Odds = Odds { keep_percent: 0 };
    const HALF: Odds = Odds { keep_percent: 50 };
    const ALL: Odds = Odds { keep_percent: 100 };

    struct Model {
        file: File,
        unsynced: Unsynced,
        rng: Rng,
    }

    impl Model {
        fn new(seed: u64, content: &[u8]) -> Self {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(content, 0).unwrap();
            Self {
                file,
                unsynced: Unsynced::new(content.len() as u64),
                rng: Rng::new(seed),
            }
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.unsynced
                .before_write(&self.file, offset, data.len() as u64, &mut self.rng)
                .unwrap();
            self.file.write_all_at(data, offset).unwrap();
            self.unsynced.after_write(offset + data.len() as u64);
        }

        fn truncate(&mut self, length: u64) {
            self.unsynced.before_truncate(&self.file, length).unwrap();
            self.file.set_len(length).unwrap();
        }

        fn forget(&mut self, odds: Odds) -> Vec<u8> {
            self.unsynced
                .forget(&self.file, &mut self.rng, odds)
                .unwrap();
            self.content()
        }

        fn content(&self) -> Vec<u8> {
            let mut content =
                vec![0; usize::try_from(self.file.metadata().unwrap().len()).unwrap()];
            self.file.read_exact_at(&mut content, 0).unwrap();
            content
        }
    }

    #[test]
    fn a_cut_that_keeps_nothing_restores_the_synced_content() {
        let synced: Vec<u8> = (0..20_000_u32).map(|i| (i % 251) as u8).collect();
        let mut model = Model::new(1, &synced);
        model.write(100, &[7; 9000]);
        model.write(19_000, &[8; 30_000]);
        model.truncate(50);
        model.write(400, &[9; 10_000]);
        model.write(500, &[10; 10_000]);
        assert_eq!(model.unsynced.length(), 10_500);
        model.unsynced.sync_failed();
        let left = model.forget(NOTHING);
        // A second write to the same page may have been written back in between.
        assert_eq!(left.len(), synced.len());
        assert_eq!(left[12_288..], synced[12_288..]);
        assert!(model.unsynced.is_clean());
    }

    #[test]
    fn a_cut_that_keeps_all_changes_nothing() {
        let mut model = Model::new(2, &[1; 10_000]);
        model.write(300, &[2; 5000]);
        model.truncate(700);
        model.write(6000, &[3; 600]);
        let live = model.content();
        assert_eq!(model.forget(ALL), live);
    }

    #[test]
    fn synced_bytes_survive_every_cut() {
        for seed in 0..200 {
            let mut model = Model::new(seed, &[]);
            model.write(0, &[1; 9000]);
            model.unsynced.synced(&model.file).unwrap();
            model.write(9000, &[2; 9000]);
            let left = model.forget(HALF);
            assert_eq!(left[..9000], [1; 9000], "seed {seed}");
            assert!(
                left[9000..].iter().all(|&byte| byte == 0 || byte == 2),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn an_overwrite_leaves_each_sector_old_or_new_and_both_happen() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..50 {
            let mut model = Model::new(seed, &[1; 8192]);
            model.write(512, &[2; 4096]);
            let left = model.forget(HALF);
            assert_eq!(
                (left.len(), &left[..512], &left[4608..]),
                (8192, &[1; 512][..], &[1; 3584][..])
            );
            for sector in left[512..4608].chunks(SECTOR) {
                assert!(
                    sector.iter().all(|byte| *byte == sector[0]),
                    "a torn sector, seed {seed}"
                );
                *(if sector[0] == 1 { &mut old } else { &mut new }) += 1;
            }
        }
        assert!(old > 100 && new > 100, "old {old}, new {new}");
    }

    #[test]
    fn a_truncation_is_undone_whole_or_not_at_all() {
        let (mut undone, mut done) = (0, 0);
        for seed in 0..50 {
            let mut model = Model::new(seed, &[5; 20_000]);
            model.truncate(3000);
            let left = model.forget(HALF);
            assert!(left.iter().all(|&byte| byte == 5), "seed {seed}");
            match left.len() {
                20_000 => undone += 1,
                3000 => done += 1,
                other => panic!("length {other}, seed {seed}"),
            }
        }
        assert!(undone > 5 && done > 5);
    }

    #[test]
    fn bytes_cut_off_do_not_come_back_when_the_file_grows_again() {
        for seed in 0..100 {
            let mut model = Model::new(seed, &[5; 20_000]);
            model.truncate(1000);
            model.truncate(20_000);
            let left = model.forget(HALF);
            let tail = &left[1000.min(left.len())..];
            assert!(
                tail.iter().all(|&byte| byte == 0) || tail == [5; 19_000],
                "seed {seed}"
            );
        }
    }

    #[test]
    fn what_a_failed_sync_dropped_is_lost_even_after_a_good_one() {
        let mut model = Model::new(3, &[1; 4096]);
        model.write(0, &[2; 1024]);
        model.unsynced.sync_failed();
        model.write(1024, &[3; 512]);
        model.write(512, &[4; 512]);
        model.unsynced.synced(&model.file).unwrap();
        let left = model.forget(ALL);
        assert_eq!(left[..512], [1; 512], "the failed sync lost it");
        assert_eq!(left[512..1024], [4; 512], "written again and synced");
        assert_eq!(
            left[1024..1536],
            [3; 512],
            "written after the failure and synced"
        );
    }

    #[test]
    fn a_middle_version_can_be_what_a_cut_leaves() {
        let middle = (0..200).filter(|&seed| {
            let mut model = Model::new(seed, &[1; 512]);
            model.write(0, &[2; 512]);
            model.write(0, &[3; 512]);
            model.forget(NOTHING) == [2; 512]
        });
        assert!(middle.count() > 5);
    }

    #[test]
    fn a_discard_reads_as_zeros_or_as_before() {
        for seed in 0..50 {
            let mut model = Model::new(seed, &[6; 16_384]);
            model
                .unsynced
                .before_discard(&model.file, 4096, 8192, &mut model.rng)
                .unwrap();
            model.file.write_all_at(&[0; 8192], 4096).unwrap();
            let left = model.forget(HALF);
            assert_eq!(left.len(), 16_384);
            assert!(
                left[..4096]
                    .iter()
                    .chain(&left[12_288..])
                    .all(|&byte| byte == 6)
            );
            assert!(
                left[4096..12_288]
                    .iter()
                    .all(|&byte| byte == 6 || byte == 0)
            );
        }
    }
}
