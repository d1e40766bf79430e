//! Buffers of directory handles: the client machine is asked for many names at a
//! time, the kernel takes as many as fit its page.
//!
//! Offsets: 0 the start, 1 after `.`, 2 after `..`, then each entry's cookie.

use antler_core::attributes::DirectoryEntry;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Names that one question asks for.
pub(crate) const FETCH: u32 = 1000;

/// What was fetched for one handle and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// The offset that the kernel will ask for next.
    pub(crate) next: u64,
    pub(crate) entries: VecDeque<DirectoryEntry>,
    pub(crate) end: bool,
    pub(crate) until: Option<Instant>,
}

/// The buffers of all open directories.
#[derive(Debug, Default)]
pub(crate) struct Directories {
    buffers: Mutex<HashMap<u64, Buffer>>,
}

impl Directories {
    /// What is buffered for the kernel's `offset`, if that goes on where it stood and the
    /// attributes may still be shown.
    pub(crate) fn take(&self, handle: u64, offset: u64) -> Option<(Buffer, Duration)> {
        let buffer = self.lock().remove(&handle)?;
        let left = buffer.until?.saturating_duration_since(Instant::now());
        let goes_on = buffer.next == offset && offset > 2 && !left.is_zero();
        (goes_on && (buffer.end || !buffer.entries.is_empty())).then_some((buffer, left))
    }

    /// Keeps what the kernel had no room for.
    pub(crate) fn keep(&self, handle: u64, mut buffer: Buffer, valid: Duration) {
        buffer.until = Some(Instant::now() + valid);
        self.lock().insert(handle, buffer);
    }

    pub(crate) fn close(&self, handle: u64) {
        self.lock().remove(&handle);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Buffer>> {
        self.buffers.lock().expect("no holder panics")
    }
}

/// The cookie that an offset of the kernel stands for.
pub(crate) fn cookie(offset: u64) -> u64 {
    if offset <= 2 { 0 } else { offset }
}
