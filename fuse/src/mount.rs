//! Mounting, and what stands between the kernel's threads and the client machine:
//! the desk where replies wait, and the thread that tells the kernel what to forget.
//!
//! A notification to the kernel can wait for locks that requests under way hold, so
//! it is never sent by a thread that serves requests.

use crate::convert::Root;
use crate::filesystem::Translator;
use crate::waiting::Waiting;
use antler_core::attributes::Credentials;
use antler_core::client::request::{ClientAnswer, ClientRequest, FileRequest};
use antler_core::ids::InodeId;
use fuser::{BackgroundSession, Config, MountOption, Notifier, Session, SessionACL};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// Gives a request to the client machine. It may be answered before this returns.
pub type Feed = Box<dyn Fn(ClientRequest) + Send + Sync>;

/// How to mount.
#[derive(Clone, Debug)]
pub struct MountSettings {
    /// Where.
    pub mountpoint: PathBuf,
    /// The source that the mount table shows, `MASTER[,MASTER...]:/SUBPATH`.
    pub source: String,
    /// The directory that is mounted.
    pub root: InodeId,
    /// Mount options of the kernel: `ro`, `nosuid`, `noexec`, ...
    pub options: Vec<MountOption>,
    /// Threads that take requests from the kernel.
    pub threads: usize,
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
}

/// The number that separates the operations of this desk from those of anybody else
/// who feeds the same machine: its operations are odd.
const STRIDE: u64 = 2;

/// Where replies wait for the machine's answers.
pub(crate) struct Desk {
    pub(crate) root: Root,
    feed: Feed,
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, Waiting>>,
    notices: Mutex<Sender<Notice>>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// What the kernel must forget.
#[derive(Debug)]
enum Notice {
    Entry {
        ticket: u64,
        parent: InodeId,
        name: Vec<u8>,
    },
    Inode {
        ticket: u64,
        inode: InodeId,
    },
}

impl Desk {
    /// Asks the machine; the answer finds `waiting`.
    pub(crate) fn ask(&self, credentials: Credentials, body: FileRequest, waiting: Waiting) {
        let operation = self.next.fetch_add(STRIDE, Ordering::Relaxed);
        if !matches!(waiting, Waiting::Nobody) {
            self.lock().insert(operation, waiting);
        }
        (self.feed)(ClientRequest {
            operation,
            credentials,
            body,
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().expect("no holder panics")
    }

    fn deliver(&self, answer: ClientAnswer) {
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
                self.notice(Notice::Entry {
                    ticket,
                    parent,
                    name,
                });
            }
            ClientAnswer::InvalidateInode { ticket, inode } => {
                self.notice(Notice::Inode { ticket, inode })
            }
        }
    }

    fn notice(&self, notice: Notice) {
        let sender = self.notices.lock().expect("no holder panics");
        // The receiver ends with the mount; then the kernel has nothing to forget.
        let _ = sender.send(notice);
    }

    fn invalidated(&self, ticket: u64) {
        let operation = self.next.fetch_add(STRIDE, Ordering::Relaxed);
        let body = FileRequest::Invalidated { ticket };
        (self.feed)(ClientRequest {
            operation,
            credentials: Credentials::default(),
            body,
        });
    }
}

/// A mount to be: takes the machine's answers from the beginning, before the kernel
/// asks anything.
#[derive(Debug)]
pub struct Mount {
    desk: Arc<Desk>,
    notices: Receiver<Notice>,
}

impl Mount {
    /// A desk for a mount of `root`, whose requests go to `feed`.
    #[must_use]
    pub fn new(root: InodeId, feed: Feed) -> Self {
        let (sender, notices) = channel();
        let desk = Desk {
            root: Root(root),
            feed,
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            notices: Mutex::new(sender),
        };
        Self {
            desk: Arc::new(desk),
            notices,
        }
    }

    /// Takes an answer of the machine, on any thread.
    pub fn answers(&self) -> impl Fn(ClientAnswer) + Send + Sync + 'static {
        let desk = self.desk.clone();
        move |answer| desk.deliver(answer)
    }

    /// Mounts; the kernel's requests are served from now on.
    ///
    /// # Errors
    /// When the kernel or fusermount3 refuses.
    pub fn mount(self, settings: &MountSettings) -> io::Result<Mounted> {
        let config = config(settings);
        let session = Session::new(
            Translator::new(self.desk.clone()),
            &settings.mountpoint,
            &config,
        )?;
        let background = session.spawn()?;
        let notifier = background.notifier();
        let (desk, notices) = (self.desk, self.notices);
        thread::Builder::new()
            .name("antler-notices".into())
            .spawn(move || tell_kernel(&desk, &notifier, &notices))?;
        Ok(Mounted { background })
    }
}

/// A mount that is up.
#[derive(Debug)]
pub struct Mounted {
    background: BackgroundSession,
}

impl Mounted {
    /// Waits until it is unmounted by somebody else.
    ///
    /// # Errors
    /// When the kernel's device failed.
    pub fn join(self) -> io::Result<()> {
        self.background.join()
    }

    /// Unmounts and waits for the last request.
    ///
    /// # Errors
    /// When it is busy.
    pub fn unmount(self) -> io::Result<()> {
        self.background.umount_and_join()
    }

    /// Whether it was unmounted by somebody else.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.background.guard.is_finished()
    }
}

fn config(settings: &MountSettings) -> Config {
    let mut config = Config::default();
    config.mount_options = settings.options.clone();
    config.mount_options.extend([
        MountOption::FSName(settings.source.clone()),
        MountOption::Subtype("antler".into()),
        MountOption::DefaultPermissions,
    ]);
    config.acl = if settings.allow_other {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(settings.threads.max(1));
    config.clone_fd = true;
    config
}

/// The thread of notices: ends when the mount does.
fn tell_kernel(desk: &Desk, notifier: &Notifier, notices: &Receiver<Notice>) {
    while let Ok(notice) = notices.recv() {
        // ENOENT says that the kernel knows nothing of it; after any other failure the
        // mount is going away. Either way there is nothing left to forget.
        let ticket = match notice {
            Notice::Entry {
                ticket,
                parent,
                name,
            } => {
                let _ = notifier.inval_entry(desk.root.kernel(parent), OsStr::from_bytes(&name));
                ticket
            }
            Notice::Inode { ticket, inode } => {
                let _ = notifier.inval_inode(desk.root.kernel(inode), 0, 0);
                ticket
            }
        };
        desk.invalidated(ticket);
    }
}
