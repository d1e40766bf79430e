//! A process around one machine: its runtime, its end, its threads for storage.
//!
//! One thread runs the network and, mostly, the machine. A panic anywhere ends the
//! process: a machine that is in the middle of something must not go on, and
//! half a process is worse than none.

use crate::driver::{Driver, Stopped};
use crate::identity::Registered;
use antler_core::journal::operation::{JournalCompletion, JournalOperation};
use antler_core::journal::{Images, Log};
use antler_core::machine::{Input, Machine, ServerRequest};
use antler_core::vfs::Vfs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long what was sent before the end may take to leave.
const PATIENCE: Duration = Duration::from_secs(2);

/// A runtime of one thread: the caller's, while it waits in `block_on`.
///
/// # Errors
/// What the system says.
pub fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Makes a panic of any thread end the process, after it was told.
pub fn die_of_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        tracing::error!("{panic}");
        std::process::abort();
    }));
}

/// Runs until the machine stops: SIGTERM and SIGINT ask it to, a second one ends
/// the process at once.
pub async fn run<M>(driver: Driver<M>) -> ExitCode
where
    M: Machine<Request = ServerRequest> + Send + 'static,
{
    let signals = tokio::spawn(stop_at_signals(driver.clone()));
    let Stopped { graceful, reason } = driver.stopped(PATIENCE).await;
    signals.abort();
    if graceful {
        tracing::info!("stopped: {reason}");
        return ExitCode::SUCCESS;
    }
    tracing::error!("stopped: {reason}");
    ExitCode::FAILURE
}

async fn stop_at_signals<M>(driver: Driver<M>)
where
    M: Machine<Request = ServerRequest> + Send + 'static,
{
    let mut signals = EndSignals::handle();
    signals.next().await;
    tracing::info!("asked to stop");
    driver.feed(Input::Request(ServerRequest::Shutdown));
    signals.next().await;
    tracing::warn!("asked to stop again: ending at once");
    std::process::exit(1);
}

/// SIGTERM and SIGINT, which do not end the process any more.
#[derive(Debug)]
pub struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// Handles them from now on; called within a runtime.
    ///
    /// # Panics
    /// When the system does not let signals be handled.
    #[must_use]
    pub fn handle() -> Self {
        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be handled"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be handled"),
        }
    }

    /// Resolves at the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What a thread of storage does.
pub trait Worker<O, C>: Send + 'static {
    /// Carries out an operation.
    fn execute(&mut self, operation: O) -> C;
    /// Does a piece of work that can be done before it is asked for; whether there is
    /// more of it. Called while nothing waits.
    fn prepare(&mut self) -> bool {
        false
    }
}

impl<V: Vfs + Send + 'static> Worker<JournalOperation, JournalCompletion> for Log<V> {
    fn execute(&mut self, operation: JournalOperation) -> JournalCompletion {
        Self::execute(self, operation)
    }

    fn prepare(&mut self) -> bool {
        Self::prepare(self)
    }
}

impl<V: Vfs + Send + 'static> Worker<JournalOperation, JournalCompletion> for Images<V> {
    fn execute(&mut self, operation: JournalOperation) -> JournalCompletion {
        Self::execute(self, operation)
    }
}

/// Runs storage operations one after the other on a thread of their own; each
/// completion is fed by that thread.
///
/// # Errors
/// When no thread can be had.
pub fn spawn_storage<O, M>(
    name: &str,
    driver: Driver<M>,
    operations: Receiver<O>,
    mut worker: impl Worker<O, M::Completion>,
) -> io::Result<()>
where
    O: Send + 'static,
    M: Machine + Send + 'static,
{
    let work = move || {
        loop {
            let operation = match operations.try_recv() {
                Ok(operation) => operation,
                Err(_) if worker.prepare() => continue,
                Err(_) => match operations.recv() {
                    Ok(operation) => operation,
                    Err(_) => return,
                },
            };
            let completion = worker.execute(operation);
            driver.feed(Input::Completed(completion));
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}

/// Keeps the newest life of the cluster that the machine learns of, so that the
/// next start refuses an older one.
pub async fn keep_incarnation<M>(driver: Driver<M>, mut registered: Registered, path: PathBuf)
where
    M: Machine + Send + 'static,
{
    let mut known = driver.watch_incarnation();
    loop {
        let newest = known.borrow_and_update().0;
        if newest > registered.incarnation {
            registered.incarnation = newest;
            if let Err(error) = registered.write(&path) {
                tracing::error!("can't note the cluster's new life: {error}");
            }
        }
        if known.changed().await.is_err() {
            return;
        }
    }
}
