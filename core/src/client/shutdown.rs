//! The end of a mount: everything is written out, synced and given back, then the
//! session ends. Given up when it takes too long, so that an unmount ends.

use super::Client;
use super::file::{After, EndCause, File};
use super::request::FileReply;
use super::timers::Timer;
use crate::errno::Errno;
use crate::ids::InodeId;
use crate::time::Duration;
use crate::wire::client_master::ClientToMaster;

/// How long an unmount waits when the mount sets no limit of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far the end of the mount got.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    /// Asked by this operation.
    operation: Option<u64>,
    is_over: bool,
}

impl Shutdown {
    pub(super) fn is_begun(&self) -> bool {
        self.operation.is_some() || self.is_over
    }
}

impl Client {
    pub(super) fn is_ending(&self) -> bool {
        self.shutdown.is_begun()
    }

    pub(super) fn is_over(&self) -> bool {
        self.shutdown.is_over
    }

    pub(super) fn begin_shutdown(&mut self, operation: u64) {
        if self.is_ending() {
            return self.answer(operation, Err(Errno::EBUSY));
        }
        self.shutdown.operation = Some(operation);
        for (_, request) in std::mem::take(&mut self.blocked) {
            self.answer(request.operation, Err(Errno::EIO));
        }
        let patience = self.config.retry_for.unwrap_or(PATIENCE);
        self.timers.set(Timer::Shutdown, self.now.mono + patience);
        let inodes: Vec<InodeId> = self.files.keys().copied().collect();
        for inode in inodes {
            let Some(file) = self.files.get_mut(&inode) else {
                continue;
            };
            let until = file.close_generation();
            self.end_all_soon(inode, EndCause::Closed, until);
            self.sync_file(inode, After::Nothing);
        }
    }

    /// Ends the session once nothing is left to be written or given back.
    pub(super) fn drive_shutdown(&mut self) {
        let Some(operation) = self.shutdown.operation else {
            return;
        };
        if !self.releases.is_empty() {
            self.flush_batch();
        }
        let is_clean = |file: &File| file.chunks.is_empty() && !file.is_dirty();
        if self.files.values().all(is_clean) {
            self.end_shutdown(operation, Ok(FileReply::Done));
        }
    }

    /// The end takes too long.
    pub(super) fn on_shutdown_due(&mut self) {
        if let Some(operation) = self.shutdown.operation {
            self.end_shutdown(operation, Err(Errno::EIO));
        }
    }

    fn end_shutdown(&mut self, operation: u64, result: Result<FileReply, Errno>) {
        self.shutdown.operation = None;
        self.shutdown.is_over = true;
        self.timers.cancel(Timer::Shutdown);
        self.tell_master(ClientToMaster::Goodbye);
        self.answer(operation, result);
    }
}
