//! The threads that wait for disks.
//!
//! Each disk of a chunkserver has one thread that carries out its operations in
//! order, and three that only sync (a commit, a flush and a checkpoint may run beside
//! each other). A file is synced without holding the store, so reads and writes go on
//! meanwhile. Completions are fed by whichever thread has them, several at once
//! when they come in a row.

use crate::clock;
use crate::disk::{FileTable, FolderError, FolderVfs};
use crate::driver::Driver;
use antler_core::chunk::operation::{
    DiskCompletion, DiskError, DiskOperation, DiskReply, DiskRequest, OpenedDisk,
};
use antler_core::chunk::rules::DiskRules;
use antler_core::chunk::{ChunkStore, Progress, StoreError, StoreOptions, Tuning, Work};
use antler_core::ids::{ClusterId, DiskId, ServerId, Token};
use antler_core::machine::{Input, Machine};
use antler_core::vfs::{FileId, Space, VfsResult};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Completions fed at once, and how long the first may wait for the others.
const BATCH_MAX: usize = 16;
const BATCH_TIME: Duration = Duration::from_micros(200);
/// Threads that sync files of one disk: a commit, a flush and a checkpoint may run
/// beside each other.
const SYNCERS: usize = 3;

/// Why a disk's folder can't be used by this server at all. A medium that merely
/// failed is no reason: the server goes on with its other disks.
#[derive(Debug, thiserror::Error)]
pub enum DiskOpenError {
    /// Another process uses it.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It is somebody else's, or nobody's.
    #[error("{path}: {error}")]
    Store {
        /// The folder.
        path: String,
        /// What is wrong.
        error: StoreError,
    },
}

/// Disks whose machine is not running yet.
#[derive(Debug, Default)]
pub struct Disks {
    opened: Vec<OpenedDisk>,
    stores: BTreeMap<DiskId, (ChunkStore<FolderVfs>, FileTable)>,
}

impl Disks {
    /// Opens a folder as a disk: formats it if it is empty, recovers it otherwise. One
    /// that can't be read, or is damaged, is taken along as failed.
    ///
    /// # Errors
    /// When it belongs to another process or server.
    pub fn open(
        &mut self,
        (folder, rules): (&Path, DiskRules),
        cluster: ClusterId,
        server: ServerId,
    ) -> Result<(), DiskOpenError> {
        let path = folder.display().to_string();
        let vfs = match FolderVfs::open_patiently(folder) {
            Ok(vfs) => vfs,
            Err(FolderError::Io { error, .. }) => {
                self.fail((path, rules), &error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let table = vfs.table();
        let options = StoreOptions {
            cluster,
            server,
            disk: DiskId(clock::random_id()),
            path: path.clone(),
            tuning: Tuning::default(),
        };
        match ChunkStore::open(vfs, options) {
            Ok((store, mut opened)) => {
                opened.rules = rules;
                tracing::info!("{path}: {}, {} parts", opened.disk, opened.parts.len());
                self.stores.insert(opened.disk, (store, table));
                self.opened.push(opened);
                Ok(())
            }
            Err(error @ (StoreError::Foreign { .. } | StoreError::NoIdentity)) => {
                Err(DiskOpenError::Store { path, error })
            }
            Err(error) => {
                self.fail((path, rules), &error.to_string());
                Ok(())
            }
        }
    }

    fn fail(&mut self, (path, rules): (String, DiskRules), reason: &str) {
        tracing::error!("{path}: can't be used: {reason}");
        self.opened.push(OpenedDisk {
            disk: DiskId(clock::random_id()),
            path,
            space: Space::default(),
            parts: Vec::new(),
            rules,
            failed: Some(reason.to_owned()),
        });
    }

    /// Every disk, for the machine.
    pub fn opened(&mut self) -> Vec<OpenedDisk> {
        std::mem::take(&mut self.opened)
    }

    /// Whether any disk can be used.
    #[must_use]
    pub fn is_any_usable(&self) -> bool {
        !self.stores.is_empty()
    }

    /// Makes queues for the disks, which work them off once the machine runs.
    ///
    /// # Panics
    /// When a disk has a queue already.
    #[must_use]
    pub fn join(self, queues: &DiskQueues) -> Vec<DiskWorker> {
        let mut workers = Vec::new();
        for (disk, (store, files)) in self.stores {
            let (sender, jobs) = channel();
            let before = queues.lock().insert(disk, sender);
            assert!(before.is_none(), "a disk is used once");
            workers.push(DiskWorker {
                disk,
                store,
                files,
                jobs,
            });
        }
        workers
    }
}

/// Where operations are put; clones share it.
#[derive(Clone, Debug, Default)]
pub struct DiskQueues(Arc<Mutex<BTreeMap<DiskId, Sender<DiskOperation>>>>);

impl DiskQueues {
    /// Whether a disk is in use.
    #[must_use]
    pub fn has(&self, disk: DiskId) -> bool {
        self.lock().contains_key(&disk)
    }

    /// Queues an operation for its disk's thread. One that closes the disk is the last.
    ///
    /// # Panics
    /// When the machine names a disk that it was not given as usable.
    pub fn push(&self, operation: DiskOperation) {
        let (disk, closes) = (operation.disk, is_last(&operation));
        let mut queues = self.lock();
        let queue = queues.get(&disk);
        let sent = queue
            .expect("machines use the disks they were given")
            .send(operation);
        assert!(sent.is_ok(), "a disk's thread lives until it is closed");
        if closes {
            queues.remove(&disk);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DiskId, Sender<DiskOperation>>> {
        self.0.lock().expect("a panic ends the process")
    }
}

fn is_last(operation: &DiskOperation) -> bool {
    matches!(operation.body, DiskRequest::Close)
}

/// A disk and the operations that wait for it.
#[derive(Debug)]
pub struct DiskWorker {
    disk: DiskId,
    store: ChunkStore<FolderVfs>,
    files: FileTable,
    jobs: Receiver<DiskOperation>,
}

/// An operation that waits for a file to be synced.
struct Pending {
    token: Token,
    work: Work,
    file: FileId,
}

/// What a disk's threads share.
struct Shared<M: Machine> {
    disk: DiskId,
    store: Mutex<ChunkStore<FolderVfs>>,
    files: FileTable,
    driver: Driver<M>,
    syncs: Syncs,
}

/// Operations that wait for a thread that syncs. One that is put in wakes one thread:
/// a channel behind a lock would have the others wake to wait for the lock.
#[derive(Default)]
struct Syncs {
    queue: Mutex<SyncQueue>,
    more: Condvar,
}

#[derive(Default)]
struct SyncQueue {
    waiting: VecDeque<Pending>,
    /// Nothing more comes.
    closed: bool,
}

impl Syncs {
    fn push(&self, pending: Pending) {
        self.lock().waiting.push_back(pending);
        self.more.notify_one();
    }

    /// The next one; `None` when there is none and nothing more comes.
    fn take(&self) -> Option<Pending> {
        let idle = |queue: &mut SyncQueue| queue.waiting.is_empty() && !queue.closed;
        let queue = self.more.wait_while(self.lock(), idle);
        queue.expect("a panic ends the process").waiting.pop_front()
    }

    fn close(&self) {
        self.lock().closed = true;
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, SyncQueue> {
        self.queue.lock().expect("a panic ends the process")
    }
}

type Ended = Result<DiskReply, DiskError>;

impl DiskWorker {
    /// Starts the disk's threads.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start<M>(self, driver: Driver<M>) -> io::Result<()>
    where
        M: Machine<Completion = DiskCompletion> + Send + 'static,
    {
        let shared = Arc::new(Shared {
            disk: self.disk,
            store: Mutex::new(self.store),
            files: self.files,
            driver,
            syncs: Syncs::default(),
        });
        for number in 0..SYNCERS {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("sync-{number}"))
                .spawn(move || sync_all(&shared))?;
        }
        let jobs = self.jobs;
        thread::Builder::new()
            .name("disk".to_owned())
            .spawn(move || work_off(&shared, &jobs))?;
        Ok(())
    }
}

/// The disk's own thread.
fn work_off<M>(shared: &Shared<M>, jobs: &Receiver<DiskOperation>)
where
    M: Machine<Completion = DiskCompletion> + Send + 'static,
{
    while let Ok(first) = jobs.recv() {
        let began = Instant::now();
        let mut completions = Vec::new();
        let mut next = Some(first);
        while let Some(operation) = next {
            let token = operation.token;
            let mut work = shared.lock().start(operation.body);
            match shared.advance(&mut work, None) {
                Step::Over(result) => completions.push(shared.completion(token, result)),
                Step::Sync(file) => shared.syncs.push(Pending { token, work, file }),
            }
            let goes_on = completions.len() < BATCH_MAX && began.elapsed() < BATCH_TIME;
            next = goes_on.then(|| jobs.try_recv().ok()).flatten();
        }
        shared.driver.feed_all(completions);
    }
    shared.syncs.close();
}

/// A thread that syncs.
fn sync_all<M>(shared: &Shared<M>)
where
    M: Machine<Completion = DiskCompletion> + Send + 'static,
{
    while let Some(pending) = shared.syncs.take() {
        let Pending {
            token,
            mut work,
            mut file,
        } = pending;
        let result = loop {
            let synced = shared.files.sync(file);
            match shared.advance(&mut work, Some(synced)) {
                Step::Over(result) => break result,
                Step::Sync(another) => file = another,
            }
        };
        shared.driver.feed_all([shared.completion(token, result)]);
    }
}

enum Step {
    Over(Ended),
    Sync(FileId),
}

impl<M: Machine<Completion = DiskCompletion>> Shared<M> {
    fn lock(&self) -> MutexGuard<'_, ChunkStore<FolderVfs>> {
        self.store.lock().expect("a panic ends the process")
    }

    /// Moves an operation on until it needs a sync or is over. The store is let go
    /// between its steps, for the other thread's sake.
    fn advance(&self, work: &mut Work, mut synced: Option<VfsResult<()>>) -> Step {
        loop {
            let progress = self.lock().advance(work, synced.take());
            match progress {
                Progress::More => {}
                Progress::Sync(file) => return Step::Sync(file),
                Progress::Done(result) => return Step::Over(result),
            }
        }
    }

    fn completion(&self, token: Token, result: Ended) -> Input<DiskCompletion, M::Request> {
        Input::Completed(DiskCompletion {
            disk: self.disk,
            token,
            result,
        })
    }
}
