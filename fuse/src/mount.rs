//! Mounting, and the desk between the kernel's threads and the client machine,
//! where replies wait for their answers.
//!
//! Whoever has an answer puts it into its reply: the FUSE thread that asked, if
//! the machine answers from a cache, or the thread that brought it.

use crate::attach::attach;
use crate::convert::Root;
use crate::filesystem::Translator;
use crate::notices::{Notice, Notices};
use crate::waiting::Waiting;
use antler_core::attributes::Credentials;
use antler_core::client::request::{ClientAnswer, ClientRequest, FileRequest};
use antler_core::ids::InodeId;
use antler_net::driver::Delivery;
use fuser::{BackgroundSession, MountOption};
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Gives a request to the client machine. It may be answered before this returns.
pub type Feed = Box<dyn Fn(ClientRequest) + Send + Sync>;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Where.
    pub mountpoint: PathBuf,
    /// The source that the mount table shows, `MASTER[,MASTER...]:/SUBPATH`.
    pub source: String,
    /// Mount options of the kernel: `ro`, `nosuid`, `noexec`, ...
    pub options: Vec<MountOption>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
    /// What the attribute `antler.cluster` tells the operator's tools: how to reach
    /// the cluster.
    pub cluster: String,
}

/// The number that separates the operations of this desk from those of anybody else
/// who feeds the same machine: its operations are odd.
const STRIDE: u64 = 2;

/// Where replies wait for the machine's answers.
pub struct Desk {
    pub(crate) root: Root,
    feed: Arc<Feed>,
    next: Arc<AtomicU64>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    notices: Arc<Notices>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk for a mount of the directory `root`, whose requests go to `feed`.
    #[must_use]
    pub fn new(root: InodeId, feed: Feed) -> Arc<Self> {
        let feed = Arc::new(feed);
        let next = Arc::new(AtomicU64::new(1));
        let done = {
            let (feed, next) = (feed.clone(), next.clone());
            move |ticket| feed(unanswered(&next, FileRequest::Invalidated { ticket }))
        };
        Arc::new(Self {
            root: Root(root),
            feed,
            next,
            waiting: Mutex::default(),
            notices: Notices::new(Box::new(done)),
        })
    }

    /// Mounts; the kernel's requests are served from now on.
    ///
    /// # Errors
    /// When the kernel or fusermount3 refuses.
    pub fn mount(self: &Arc<Self>, settings: &MountSettings) -> io::Result<Mounted> {
        let make = || Translator::new(self.clone(), settings.cluster.clone());
        let session = attach(settings, make)?;
        let device = File::from(session.as_fd().try_clone_to_owned()?);
        let notifier = session.notifier();
        let background = session.spawn()?;
        self.notices.start(&notifier, &device, self.root)?;
        Ok(Mounted {
            background,
            notices: self.notices.clone(),
        })
    }

    /// Takes an answer of the machine to one of this desk's operations, on any thread.
    pub fn deliver(&self, answer: ClientAnswer, delivery: &Delivery) {
        match answer {
            ClientAnswer::Ready => {}
            ClientAnswer::Done { operation, result } => {
                let waiting = self.lock().remove(&operation);
                if let Some(waiting) = waiting {
                    waiting.finish(self.root, result);
                }
            }
            ClientAnswer::InvalidateEntry {
                ticket,
                parent,
                name,
            } => {
                let notice = Notice::Entry { parent, name };
                self.notices.push(ticket, delivery.mark(), notice);
            }
            ClientAnswer::InvalidateInode { ticket, inode } => {
                let notice = Notice::Inode { inode };
                self.notices.push(ticket, delivery.mark(), notice);
            }
        }
    }

    /// Asks the machine; the answer finds `waiting`.
    pub(crate) fn ask(&self, credentials: Credentials, body: FileRequest, waiting: Waiting) {
        let operation = self.next.fetch_add(STRIDE, Ordering::Relaxed);
        self.lock().insert(operation, waiting);
        (self.feed)(ClientRequest {
            operation,
            credentials,
            body,
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().expect("no holder panics")
    }
}

fn unanswered(next: &AtomicU64, body: FileRequest) -> ClientRequest {
    ClientRequest {
        operation: next.fetch_add(STRIDE, Ordering::Relaxed),
        credentials: Credentials::default(),
        body,
    }
}

/// A mount that is up.
#[derive(Debug)]
pub struct Mounted {
    background: BackgroundSession,
    notices: Arc<Notices>,
}

impl Mounted {
    /// Waits until it is unmounted.
    ///
    /// # Errors
    /// When the kernel's device failed.
    pub fn join(self) -> io::Result<()> {
        let ended = self.background.join();
        self.notices.end();
        ended
    }
}
