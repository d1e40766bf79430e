//! Disks that come and go while the server runs.
//!
//! Owns how a disk is let go: from then on nothing new of its parts is admitted, what was
//! admitted ends, what no commit covers is committed, and then its parts are lost to this
//! life like those of a disk that failed, and the driver closes it. Leaves opening and
//! recovering to the driver. Invariant: what was acknowledged is durable on a disk that was
//! let go; and nobody writes a part that came back at the epoch at which it went.

use super::ChunkServer;
use super::disks::Issued;
use crate::chunk::operation::{DiskChange, DiskRequest};
use crate::ids::{DiskId, PartId};
use crate::limits::REPORT_BATCH;
use crate::machine::Level;
use crate::marks::Mark;
use crate::time::{Duration, Instant};

/// For how long a disk that is let go may take to end what is under way on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far a disk is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Closing {
    /// What was admitted ends, until then at most.
    Finishing(Instant),
    /// The driver closes it.
    Closing,
}

impl ChunkServer {
    /// Carries out what changed of the disks, and tells the masters at once.
    pub(super) fn change_disks(&mut self, changes: Vec<DiskChange>) {
        for change in changes {
            match change {
                DiskChange::Rules(disk, rules) => self.disks.set_rules(disk, rules),
                DiskChange::Add(opened) => {
                    let (disk, path) = (opened.disk, opened.path.clone());
                    self.marks.reach(Mark::DiskAdded);
                    self.log(Level::Info, format!("{disk} at {path} is there now"));
                    self.add_disk(opened);
                    self.say_parts_on(disk);
                }
                DiskChange::Remove(disk) => self.let_go(disk),
            }
        }
        self.follow_drains();
        self.say_disks();
    }

    fn say_parts_on(&mut self, disk: DiskId) {
        let parts = self.parts.on_disk(disk);
        for batch in parts.chunks(REPORT_BATCH) {
            let reports = batch.iter().filter_map(|part| self.parts.report(*part));
            let reports = reports.collect();
            self.say_gained(reports);
        }
    }

    /// Begins to let a disk go.
    pub(super) fn let_go(&mut self, disk: DiskId) {
        if !self.disks.begin_closing(disk, self.now + PATIENCE) {
            return;
        }
        self.scrub.drop_disk(disk);
        let dirty = self.parts.take_dirty_on(disk);
        self.keep(dirty);
    }

    /// Goes on with the disks that are let go.
    pub(super) fn close_disks(&mut self) {
        for (disk, until) in self.disks.finishing() {
            let is_over = self.now >= until;
            if is_over && !self.disks.has_failed(disk) {
                self.fail_disk(disk, "it did not finish before it was closed".to_owned());
            }
            if self.disks.is_idle(disk) && !self.is_in_use(disk) {
                self.close_disk(disk);
            }
        }
    }

    /// Whether a change of a part on a disk is under way, or a copy is made from or on it.
    fn is_in_use(&self, disk: DiskId) -> bool {
        self.parts.is_any_changing_on(disk) || self.replicates_on(disk)
    }

    /// Nothing is under way on a disk any more.
    fn close_disk(&mut self, disk: DiskId) {
        let mut lost: Vec<PartId> = self.parts.forget_suspects_on(disk);
        lost.extend(self.lose_parts(disk));
        self.parts.forget_suspects_on(disk);
        for batch in lost.chunks(REPORT_BATCH) {
            self.say_lost(batch.to_vec());
        }
        self.moves.forget_disk(disk);
        let path = self.disks.path(disk).to_owned();
        let text = format!(
            "{disk} at {path} is let go, and {} parts with it",
            lost.len()
        );
        self.log(Level::Info, text);
        self.marks.reach(Mark::DiskRemoved);
        if self.disks.note_closing(disk) {
            self.operate_apart(disk, DiskRequest::Close, Issued::Close);
        } else {
            self.on_disk_closed(disk);
        }
    }

    /// The driver closed a disk.
    pub(super) fn on_disk_closed(&mut self, disk: DiskId) {
        self.disks.remove(disk);
        self.say_disks();
    }
}
