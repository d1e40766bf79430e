//! How a simulated disk is built and what can go wrong with it.

use super::names::FileNumber;

/// How fast a disk is, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpeed {
    /// Before the first byte of a read that does not go on where the last one ended.
    pub seek: u64,
    /// For 4 KiB read from the medium.
    pub read_page: u64,
    /// For a call that only touches memory, and for 64 KiB of a write into the page cache.
    pub call: u64,
    /// For a sync, besides its bytes.
    pub sync: u64,
    /// For 4 KiB brought to the medium.
    pub write_page: u64,
}

impl DiskSpeed {
    /// A flash disk: 0.3 ms a sync, 80 us a random read, 1 GB/s.
    pub const FLASH: Self = Self {
        seek: 80_000,
        read_page: 4_000,
        call: 4_000,
        sync: 300_000,
        write_page: 4_000,
    };
    /// A rotating disk: 8 ms a seek or sync, 200 MB/s.
    pub const ROTATING: Self = Self {
        seek: 8_000_000,
        read_page: 20_000,
        call: 4_000,
        sync: 8_000_000,
        write_page: 20_000,
    };
}

impl DiskSpeed {
    /// As fast to position and to sync, with so many bytes a second.
    #[must_use]
    pub fn at(self, bytes_per_second: u64) -> Self {
        let page = 4096 * 1_000_000_000 / bytes_per_second.max(1);
        Self {
            read_page: page,
            write_page: page,
            ..self
        }
    }
}

/// How often a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Failing {
    /// Not at all.
    #[default]
    Never,
    /// The next time.
    Once,
    /// From now on.
    Always,
}

impl Failing {
    /// Whether this call fails.
    pub(super) fn strikes(&mut self) -> bool {
        match self {
            Self::Never => false,
            Self::Once => {
                *self = Self::Never;
                true
            }
            Self::Always => true,
        }
    }
}

/// A range of one file where the medium is bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BadRange {
    pub(super) file: FileNumber,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl BadRange {
    /// Whether a call touches it.
    pub(super) fn meets(&self, file: FileNumber, offset: u64, length: u64) -> bool {
        self.file == file && offset < self.to && self.from < offset + length
    }
}

/// What is wrong with a disk now.
#[derive(Clone, Copy, Debug)]
pub struct DiskFaults {
    /// Reads fail with EIO.
    pub read: Failing,
    /// Writes fail with EIO; a random first part of the data may have been written.
    pub write: Failing,
    /// Syncs fail with EIO; of each unsynced change it is unknown whether it survives.
    pub sync: Failing,
    /// Every call fails: the disk was pulled.
    pub vanished: bool,
    /// Nothing can grow any more.
    pub full: bool,
    /// Everything takes this many times as long.
    pub slow: u64,
    /// Syncs answer without having done it.
    pub lies: Failing,
    /// Writes of content land where other content is, and nowhere else.
    pub misdirects: Failing,
}

impl DiskFaults {
    /// Whether a call will fail, be it one that nobody makes before long.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        [self.read, self.write, self.sync]
            .iter()
            .any(|failing| *failing != Failing::Never)
    }

    /// Whether something goes wrong with what is written, and nobody is told.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.lies != Failing::Never || self.misdirects != Failing::Never
    }
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            read: Failing::Never,
            write: Failing::Never,
            sync: Failing::Never,
            vanished: false,
            full: false,
            slow: 1,
            lies: Failing::Never,
            misdirects: Failing::Never,
        }
    }
}
