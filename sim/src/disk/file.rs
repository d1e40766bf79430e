//! One simulated file: what a program reads now, what would survive a power cut,
//! and the changes in between in the order in which they were made.
//!
//! Invariant: unless a sync failed (`ghosts`), the durable version with all
//! pending and staged changes applied is the current version.

use super::content::{Content, Data, SECTOR};
use antler_core::rng::Rng;
use std::rc::Rc;

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write(Data),
    Truncate { length: u64 },
    Discard { offset: u64, length: u64 },
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write(data) => content.write(data),
            Self::Truncate { length } => content.truncate(*length),
            Self::Discard { offset, length } => {
                let end = (offset + length).min(content.len());
                content.zero(*offset, end.saturating_sub(*offset));
            }
        }
    }

    /// Applies what a power cut left of it.
    fn apply_torn(&self, content: &mut Content, rng: &mut Rng) {
        match (self, rng.below(3)) {
            (_, 0) => {}
            (_, 1) | (Self::Truncate { .. } | Self::Discard { .. }, _) => self.apply(content),
            (Self::Write(data), _) => tear(content, data, rng),
        }
    }
}

/// Keeps a random subset of a write's sectors: now one by one, now a prefix, now a
/// suffix, so that both scattered and clean cuts come up.
fn tear(content: &mut Content, data: &Data, rng: &mut Rng) {
    let (offset, end) = (data.offset(), data.offset() + data.len());
    let first = offset / SECTOR;
    let sectors = end.div_ceil(SECTOR) - first;
    let style = rng.below(3);
    let cut = rng.below(sectors + 1);
    for sector in 0..sectors {
        let kept = match style {
            0 => rng.one_in(2),
            1 => sector < cut,
            _ => sector >= cut,
        };
        if kept {
            let from = ((first + sector) * SECTOR).max(offset);
            let to = ((first + sector + 1) * SECTOR).min(end);
            content.write_within(data, from, to);
        }
    }
}

/// A change that no sync has covered yet.
#[derive(Clone, Debug)]
struct Pending {
    sequence: u64,
    change: Change,
}

#[derive(Clone, Debug, Default)]
pub(super) struct File {
    current: Rc<Content>,
    durable: Rc<Content>,
    pending: Vec<Pending>,
    /// The number of the newest change of the current version.
    latest: u64,
    /// A failed sync dropped changes that the current version still shows.
    ghosts: bool,
}

impl File {
    pub(super) fn current(&self) -> &Content {
        &self.current
    }

    pub(super) fn durable(&self) -> &Content {
        &self.durable
    }

    /// What programs see changes at once.
    pub(super) fn change(&mut self, sequence: u64, change: &Change) {
        change.apply(Rc::make_mut(&mut self.current));
        self.latest = sequence;
    }

    /// The change has left the program: from now on a crash may keep it.
    pub(super) fn submit(&mut self, sequence: u64, change: Change) {
        let at = self.covered(sequence);
        self.pending.insert(at, Pending { sequence, change });
    }

    /// How many pending changes a sync up to one covers.
    fn covered(&self, upto: u64) -> usize {
        self.pending.partition_point(|p| p.sequence <= upto)
    }

    /// Bytes of writes up to a change that a sync has to bring to the medium.
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.pending
            .iter()
            .map(|pending| match &pending.change {
                Change::Write(data) => data.len(),
                _ => 0,
            })
            .sum()
    }

    /// A sync that covers every change up to one succeeded.
    pub(super) fn sync(&mut self, upto: u64) {
        let covered = self.covered(upto);
        if covered == 0 {
            return;
        }
        let sharable = self.latest <= upto && !self.ghosts;
        let durable = Rc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..covered) {
            match &pending.change {
                Change::Write(data) if sharable && data.len() >= 2048 => {
                    durable.share(&self.current, data.offset(), data.len());
                }
                change => change.apply(durable),
            }
        }
    }

    /// Everything that left the program reaches the medium.
    pub(super) fn destage(&mut self) {
        if let Some(newest) = self.pending.last().map(|pending| pending.sequence) {
            self.sync(newest);
        }
    }

    /// A sync failed: of each change up to one it is unknown whether it reached the
    /// medium, and no later sync will bring it there (as Linux's page cache does).
    pub(super) fn fail_sync(&mut self, upto: u64, rng: &mut Rng) {
        let covered = self.covered(upto);
        let durable = Rc::make_mut(&mut self.durable);
        for pending in self.pending.drain(..covered) {
            pending.change.apply_torn(durable, rng);
        }
        self.ghosts = true;
    }

    /// The power failed.
    pub(super) fn cut(&mut self, rng: &mut Rng) {
        for pending in std::mem::take(&mut self.pending) {
            pending
                .change
                .apply_torn(Rc::make_mut(&mut self.durable), rng);
        }
        self.current = Rc::clone(&self.durable);
        self.ghosts = false;
    }

    /// The program died; what it had submitted is still in the page cache.
    pub(super) fn forget_unsubmitted(&mut self) {
        let newest = self.pending.last().map_or(0, |p| p.sequence);
        if self.ghosts || self.latest > newest {
            let mut current = Content::clone(&self.durable);
            for pending in &self.pending {
                pending.change.apply(&mut current);
            }
            self.current = Rc::new(current);
            self.ghosts = false;
        }
    }

    /// The file as a power cut that keeps nothing unsynced would leave it.
    pub(super) fn durable_copy(&self) -> Self {
        Self {
            current: Rc::clone(&self.durable),
            durable: Rc::clone(&self.durable),
            ..Self::default()
        }
    }

    /// Everything that left the program reaches the medium, and this with it.
    pub(super) fn put_right(&mut self, data: &Data) {
        self.destage();
        Rc::make_mut(&mut self.durable).write(data);
        Rc::make_mut(&mut self.current).write(data);
    }

    /// The medium changes a bit of a page by itself.
    pub(super) fn rot(&mut self, page: u64, bit: usize) {
        Rc::make_mut(&mut self.durable).flip(page, bit);
        Rc::make_mut(&mut self.current).flip(page, bit);
    }
}
