//! SIGHUP to a chunkserver: its configuration is read again, and its disks become what it
//! says.
//!
//! Owns the comparison of what is used with what is written, and the opening of disks that
//! are new; what it means that a disk comes or goes is the machine's. Invariant: a file with
//! a mistake changes nothing.

use antler_core::chunk::operation::DiskChange;
use antler_core::chunkserver::ChunkServer;
use antler_core::ids::{DiskId, ServerId};
use antler_core::machine::{Input, ServerRequest};
use antler_net::config::{ChunkServerSettings, DiskSettings};
use antler_net::driver::Driver;
use antler_net::storage::{DiskQueues, Disks};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::signal::unix::Signal;

/// What it takes to read a chunkserver's configuration again.
pub(super) struct Reloader {
    pub(super) path: PathBuf,
    /// What holds.
    pub(super) settings: ChunkServerSettings,
    pub(super) server: ServerId,
    /// The disks by their folders.
    pub(super) ids: BTreeMap<String, DiskId>,
    pub(super) queues: DiskQueues,
    pub(super) driver: Driver<ChunkServer>,
}

impl Reloader {
    /// Reads the configuration again at every signal.
    pub(super) async fn run(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            self.reload().await;
        }
    }

    async fn reload(&mut self) {
        let new = match ChunkServerSettings::load(&self.path) {
            Ok(new) => new,
            Err(mistakes) => {
                tracing::error!("nothing was changed, the configuration has mistakes:\n{mistakes}");
                return;
            }
        };
        for key in unchangeable(&self.settings, &new) {
            tracing::warn!("`{key}` changes with the next start only: it stays as it was");
        }
        let mut changes = self.changes(&new.disks);
        let is_known = |disk: &&DiskSettings| self.ids.contains_key(&named(&disk.folder));
        let added: Vec<DiskSettings> = new
            .disks
            .iter()
            .filter(|disk| !is_known(disk))
            .cloned()
            .collect();
        for disk in added {
            changes.extend(self.add(disk).await);
        }
        let kept = new.disks.into_iter();
        let kept = kept.filter(|disk| self.ids.contains_key(&named(&disk.folder)));
        self.settings.disks = kept.collect();
        tracing::info!(
            "the configuration was read again: {} changes",
            changes.len()
        );
        let request = ServerRequest::Disks(changes);
        self.driver.feed(Input::Request(request));
    }

    /// What is ordered otherwise than before, and what was taken out.
    fn changes(&mut self, new: &[DiskSettings]) -> Vec<DiskChange> {
        let mut changes = Vec::new();
        for old in &self.settings.disks {
            let Some(&disk) = self.ids.get(&named(&old.folder)) else {
                continue;
            };
            match new.iter().find(|one| one.folder == old.folder) {
                Some(one) if one.rules == old.rules => {}
                Some(one) => changes.push(DiskChange::Rules(disk, one.rules)),
                None => {
                    tracing::info!("{} was taken out: {disk} is let go", old.folder.display());
                    self.ids.remove(&named(&old.folder));
                    changes.push(DiskChange::Remove(disk));
                }
            }
        }
        changes
    }

    /// Opens a disk that is new, beside everything else: its recovery may take long.
    async fn add(&mut self, disk: DiskSettings) -> Option<DiskChange> {
        let (cluster, server) = (self.settings.credential.cluster, self.server);
        let name = named(&disk.folder);
        let opening = tokio::task::spawn_blocking(move || {
            let mut disks = Disks::default();
            let opened = disks.open((&disk.folder, disk.rules), cluster, server);
            opened.map(|()| disks)
        });
        let mut disks = match opening.await.expect("a panic ends the process") {
            Ok(disks) => disks,
            Err(error) => {
                tracing::error!("a disk is not used: {error}");
                return None;
            }
        };
        let opened = disks.opened().pop().expect("one was opened");
        if self.queues.has(opened.disk) {
            tracing::error!("{name} is not used: {} is in use already", opened.disk);
            return None;
        }
        for worker in disks.join(&self.queues) {
            if let Err(error) = worker.start(self.driver.clone()) {
                tracing::error!("{name} is not used: there is no thread for it: {error}");
                return None;
            }
        }
        self.ids.insert(name, opened.disk);
        Some(DiskChange::Add(opened))
    }
}

/// As disks are named to the machine.
fn named(folder: &Path) -> String {
    folder.display().to_string()
}

/// What is written otherwise than it holds and can't be changed while it runs.
fn unchangeable(old: &ChunkServerSettings, new: &ChunkServerSettings) -> Vec<&'static str> {
    let same = [
        ("listen", old.listen == new.listen),
        ("address", old.address == new.address),
        ("key", old.credential == new.credential),
        ("data", old.data == new.data),
        ("masters", old.masters == new.masters),
        ("labels", old.labels == new.labels),
        ("scrub", old.scrub == new.scrub),
        (
            "repair_slowdown",
            old.repair_slowdown == new.repair_slowdown,
        ),
        (
            "disk_balance, suspect_slow or suspect_errors",
            old.care == new.care,
        ),
        ("log", old.log == new.log),
    ];
    let changed = same.into_iter().filter(|(_, is_same)| !is_same);
    changed.map(|(key, _)| key).collect()
}
