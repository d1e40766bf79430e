//! What the kernel is told to forget, on threads of its own.
//!
//! To drop a name, the kernel locks the directory, and waits for whoever changes
//! it. If that one waits for the master, and the master for our word that the
//! name is dropped, both would wait until a lease ends. So a name that can't be
//! dropped within [`STUCK_AFTER`] is dropped with all others, by a new epoch of the
//! connection (FUSE_NOTIFY_INC_EPOCH, Linux 6.16), which takes no lock: the kernel
//! then asks again for every name that it meets. Older kernels wait.
//!
//! Nothing is dropped before the answers that came earlier have reached the
//! kernel, or it could learn a name after it was told to forget it.

use crate::convert::Root;
use antler_core::ids::InodeId;
use antler_net::driver::DeliveryMark;
use fuser::Notifier;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that tell the kernel; one of them may wait for a lock.
const WORKERS: usize = 3;
/// After how long a name that can't be dropped is dropped with all others.
const STUCK_AFTER: Duration = Duration::from_millis(30);
/// `enum fuse_notify_code` of fuse(4).
const FUSE_NOTIFY_INC_EPOCH: i32 = 8;

/// Says that what a ticket stands for was forgotten.
pub(crate) type Done = Box<dyn Fn(u64) + Send + Sync>;

/// What the kernel must forget.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A name in a directory.
    Entry { parent: InodeId, name: Vec<u8> },
    /// Attributes and pages.
    Inode { inode: InodeId },
}

/// The queue of notices, and those under way.
pub(crate) struct Notices {
    state: Mutex<State>,
    changed: Condvar,
    done: Done,
}

#[derive(Default)]
struct State {
    next: u64,
    waiting: VecDeque<Job>,
    /// Entry notices that a worker is at, with their tickets.
    names: BTreeMap<u64, (Instant, u64)>,
    is_over: bool,
}

#[derive(Debug)]
struct Job {
    ticket: u64,
    since: Instant,
    mark: DeliveryMark,
    notice: Notice,
}

/// The kernel's ear.
struct Kernel {
    notifier: Notifier,
    device: File,
    root: Root,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").finish_non_exhaustive()
    }
}

impl Notices {
    pub(crate) fn new(done: Done) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            done,
        })
    }

    /// Tells the kernel soon, after everything before `mark` was delivered.
    pub(crate) fn push(&self, ticket: u64, mark: DeliveryMark, notice: Notice) {
        self.lock().waiting.push_back(Job {
            ticket,
            since: Instant::now(),
            mark,
            notice,
        });
        self.changed.notify_all();
    }

    /// Starts the threads. `device` is the kernel's device of the mount.
    pub(crate) fn start(
        self: &Arc<Self>,
        notifier: &Notifier,
        device: &File,
        root: Root,
    ) -> io::Result<()> {
        for number in 0..=WORKERS {
            let kernel = Kernel {
                notifier: notifier.clone(),
                device: device.try_clone()?,
                root,
            };
            let notices = self.clone();
            thread::Builder::new()
                .name(format!("antler-notice-{number}"))
                .spawn(move || match number {
                    0 => notices.watch(&kernel),
                    _ => notices.work(&kernel),
                })?;
        }
        Ok(())
    }

    /// Ends the threads: the kernel has nothing to forget any more.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a panic ends the process")
    }

    fn work(&self, kernel: &Kernel) {
        while let Some((number, job)) = self.next() {
            job.mark.wait();
            kernel.tell(&job.notice);
            let is_name = matches!(job.notice, Notice::Entry { .. });
            // A name that was stuck has been answered for by the watch.
            if !is_name || self.lock().names.remove(&number).is_some() {
                (self.done)(job.ticket);
            }
        }
    }

    fn next(&self) -> Option<(u64, Job)> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                let number = state.next;
                state.next += 1;
                if matches!(job.notice, Notice::Entry { .. }) {
                    state.names.insert(number, (job.since, job.ticket));
                    self.changed.notify_all();
                }
                return Some((number, job));
            }
            state = self.changed.wait(state).expect("a panic ends the process");
        }
    }

    /// Looks for names that can't be dropped.
    fn watch(&self, kernel: &Kernel) {
        while let Some((names, jobs)) = self.stuck() {
            for job in &jobs {
                job.mark.wait();
            }
            if let Err(error) = kernel.begin_epoch() {
                tracing::debug!("names are dropped one by one: {error}");
                // Too old a kernel: give them back, and let the workers wait.
                self.lock().waiting.extend(jobs);
                return;
            }
            let mut state = self.lock();
            let answered: Vec<u64> = names
                .iter()
                .filter_map(|number| state.names.remove(number))
                .map(|(_, ticket)| ticket)
                .chain(jobs.iter().map(|job| job.ticket))
                .collect();
            drop(state);
            for ticket in answered {
                (self.done)(ticket);
            }
        }
    }

    /// Waits for names that are stuck, or wait behind such; `None` at the end.
    fn stuck(&self) -> Option<(Vec<u64>, Vec<Job>)> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            let is_old = |since: &Instant| since.elapsed() >= STUCK_AFTER;
            let names: Vec<u64> = state
                .names
                .iter()
                .filter(|(_, (since, _))| is_old(since))
                .map(|(number, _)| *number)
                .collect();
            if !names.is_empty() {
                let (jobs, rest) = std::mem::take(&mut state.waiting)
                    .into_iter()
                    .partition(|job| matches!(job.notice, Notice::Entry { .. }));
                let jobs: VecDeque<Job> = jobs;
                state.waiting = rest;
                return Some((names, jobs.into()));
            }
            state = if state.names.is_empty() {
                self.changed.wait(state).expect("a panic ends the process")
            } else {
                let waited = self.changed.wait_timeout(state, STUCK_AFTER);
                waited.expect("a panic ends the process").0
            };
        }
    }
}

impl Kernel {
    /// ENOENT says that the kernel knows nothing of it; after any other failure the
    /// mount is going away. Either way there is nothing left to forget.
    fn tell(&self, notice: &Notice) {
        let _ = match notice {
            Notice::Entry { parent, name } => self
                .notifier
                .inval_entry(self.root.kernel(*parent), OsStr::from_bytes(name)),
            Notice::Inode { inode } => self.notifier.inval_inode(self.root.kernel(*inode), 0, 0),
        };
    }

    /// `struct fuse_out_header` with a notification's code where errors stand.
    fn begin_epoch(&self) -> io::Result<()> {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&16_u32.to_ne_bytes());
        header[4..8].copy_from_slice(&FUSE_NOTIFY_INC_EPOCH.to_ne_bytes());
        (&self.device).write_all(&header)
    }
}
