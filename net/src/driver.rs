//! The one loop that every role runs in: wait, feed exactly one input, drain the
//! effects, carry them out.
//!
//! The machine stands behind one lock, and whoever has an input feeds it: the
//! runtime's thread with what came from the network, a disk's thread with what
//! it finished, a FUSE thread with what the kernel asks. Nothing blocks under that lock. What an
//! effect asks for is queued under it, so that the order on each link and to each
//! disk is the machine's; it is carried out after the lock is let go: sockets are
//! written and answers delivered by the thread that fed the input.

use crate::clock;
use crate::complaints::Complaints;
use crate::connection;
use crate::identity::{Identity, Says};
use crate::link::Link;
use antler_core::ids::{Address, Incarnation, LinkId};
use antler_core::machine::{Effect, Input, Level, Machine, Role};
use antler_core::time::Instant;
use antler_core::version::FeatureLevel;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

/// Takes the storage operations of a machine; their completions are fed back.
/// Called in order and under the machine's lock: it must only queue.
pub type Storage<O> = Box<dyn Fn(O) + Send + Sync>;

/// Takes the answers of one drain, outside of the machine's lock.
pub type Answers<A> = Box<dyn Fn(Vec<A>, Delivery) + Send + Sync>;

/// What the driver needs beside the machine.
pub struct Parts<M: Machine> {
    /// The machine.
    pub machine: M,
    /// Who the process is.
    pub identity: Identity,
    /// The newest life of the cluster that was known at the start.
    pub incarnation: Incarnation,
    /// Where storage operations go.
    pub storage: Storage<M::Operation>,
    /// Where answers go.
    pub answers: Answers<M::Answer>,
    /// Where connections are served.
    pub runtime: Handle,
}

impl<M: Machine> fmt::Debug for Parts<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// Why a machine stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// As asked, not by a failure.
    pub graceful: bool,
    /// Why.
    pub reason: String,
}

/// A machine in the real world; clones share it.
pub struct Driver<M: Machine>(Arc<Inner<M>>);

impl<M: Machine> Clone for Driver<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Machine> fmt::Debug for Driver<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

struct Inner<M: Machine> {
    core: Mutex<Core<M>>,
    identity: Identity,
    incarnation: watch::Sender<Incarnation>,
    speaks: FeatureLevel,
    storage: Storage<M::Operation>,
    answers: Answers<M::Answer>,
    runtime: Handle,
    /// The machine wants to be woken earlier than it was going to be.
    earlier: Notify,
    stopped: watch::Sender<Option<Stopped>>,
    deliveries: Arc<Deliveries>,
    complaints: Complaints,
    accepted: AtomicU64,
}

/// What the lock protects.
struct Core<M: Machine> {
    machine: M,
    links: HashMap<LinkId, Arc<Link>>,
    /// What the timer sleeps until.
    armed: Instant,
    is_stopped: bool,
}

/// What one drain leaves to be done without the lock.
struct Aftermath<A> {
    touched: Vec<Arc<Link>>,
    connects: Vec<(Arc<Link>, Address, Role)>,
    answers: Vec<A>,
    logs: Vec<(Level, String)>,
    /// Links whose queue overflowed: the machine is told before the drain ends.
    overflown: VecDeque<LinkId>,
    stopped: Option<Stopped>,
}

impl<A> Default for Aftermath<A> {
    fn default() -> Self {
        Self {
            touched: Vec::new(),
            connects: Vec::new(),
            answers: Vec::new(),
            logs: Vec::new(),
            overflown: VecDeque::new(),
            stopped: None,
        }
    }
}

impl<M: Machine + Send + 'static> Driver<M> {
    /// Starts the machine: carries out what it wants from the beginning, and its timer.
    #[must_use]
    pub fn start(parts: Parts<M>) -> Self {
        let speaks = parts.machine.speaks();
        let inner = Inner {
            core: Mutex::new(Core {
                machine: parts.machine,
                links: HashMap::new(),
                armed: Instant::NEVER,
                is_stopped: false,
            }),
            identity: parts.identity,
            incarnation: watch::Sender::new(parts.incarnation),
            speaks,
            storage: parts.storage,
            answers: parts.answers,
            runtime: parts.runtime,
            earlier: Notify::new(),
            stopped: watch::Sender::new(None),
            deliveries: Arc::default(),
            complaints: Complaints::default(),
            accepted: AtomicU64::new(1),
        };
        let driver = Self(Arc::new(inner));
        driver.0.runtime.spawn(driver.clone().keep_time());
        driver.feed_all([]);
        driver
    }

    /// Feeds one input and carries out what follows.
    pub fn feed(&self, input: Input<M::Completion, M::Request>) {
        self.feed_all([input]);
    }

    /// Feeds inputs one after the other under one lock, each drained before the next,
    /// so that what they cause leaves together.
    pub fn feed_all(&self, inputs: impl IntoIterator<Item = Input<M::Completion, M::Request>>) {
        let mut after = Aftermath::default();
        let mut core = self.lock();
        if core.is_stopped {
            return;
        }
        let now = clock::now();
        self.drain(&mut core, &mut after);
        for input in inputs {
            if core.is_stopped {
                break;
            }
            if !core.concerns_nobody(&input) {
                core.machine.handle(now, input);
                self.drain(&mut core, &mut after);
            }
        }
        self.rearm(&mut core);
        let delivery = (!after.answers.is_empty()).then(|| Deliveries::begin(&self.0.deliveries));
        drop(core);
        self.carry_out(after, delivery);
    }

    /// What the machine holds, for reading; nothing else happens meanwhile.
    pub fn inspect<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.lock().machine)
    }

    /// Who the process is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The newest life of the cluster that is known.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *self.0.incarnation.borrow()
    }

    /// What the first exchange of a link says of the machine.
    #[must_use]
    pub fn says(&self) -> Says {
        Says {
            incarnation: self.incarnation(),
            speaks: self.0.speaks,
        }
    }

    /// Tells whenever a newer life of the cluster is known.
    #[must_use]
    pub fn watch_incarnation(&self) -> watch::Receiver<Incarnation> {
        self.0.incarnation.subscribe()
    }

    /// What goes wrong with connections.
    #[must_use]
    pub fn complaints(&self) -> &Complaints {
        &self.0.complaints
    }

    /// Serves a connection that was accepted; resolves when it ended.
    pub async fn accept(&self, stream: tokio::net::TcpStream) {
        connection::accept(self.clone(), stream).await;
    }

    /// Resolves when the machine has stopped and what it sent before is written, or
    /// `patience` for that is over.
    pub async fn stopped(&self, patience: Duration) -> Stopped {
        let mut stopped = self.0.stopped.subscribe();
        let why = stopped
            .wait_for(Option::is_some)
            .await
            .expect("the driver holds the sender")
            .clone()
            .expect("waited for");
        self.flush(patience).await;
        why
    }

    /// Resolves when everything that was sent is written, or `patience` is over.
    pub async fn flush(&self, patience: Duration) {
        let end = tokio::time::Instant::now() + patience;
        while !self.is_idle() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn is_idle(&self) -> bool {
        self.lock().links.values().all(|link| link.is_idle())
    }

    /// A link for an accepted connection, known to nobody until it is announced.
    pub(crate) fn adopt_link(&self) -> Arc<Link> {
        let number = self.0.accepted.fetch_add(1, Ordering::Relaxed) * 2;
        let link = Arc::new(Link::new(LinkId(number)));
        self.lock().links.insert(link.id, link.clone());
        link
    }

    /// A connection ended or could not be made: the machine learns it, unless it
    /// closed the link itself.
    pub(crate) fn on_closed(&self, link: &Arc<Link>, reason: String) {
        self.feed(Input::Closed {
            link: link.id,
            reason,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Core<M>> {
        self.0.core.lock().expect("a panic ends the process")
    }

    fn drain(&self, core: &mut Core<M>, after: &mut Aftermath<M::Answer>) {
        while let Some(effect) = core.machine.poll_effect() {
            self.on_effect(core, after, effect);
        }
        while let Some(link) = after.overflown.pop_front() {
            self.overflow(core, after, link);
        }
    }

    fn on_effect(
        &self,
        core: &mut Core<M>,
        after: &mut Aftermath<M::Answer>,
        effect: Effect<M::Operation, M::Answer>,
    ) {
        match effect {
            Effect::Send { link, message } => {
                let Some(link) = core.links.get(&link) else {
                    return;
                };
                if link.push(message).is_err() {
                    after.overflown.push_back(link.id);
                } else if link.touch() {
                    after.touched.push(link.clone());
                }
            }
            Effect::Answer(answer) => after.answers.push(answer),
            Effect::Operate(operation) => (self.0.storage)(operation),
            Effect::Connect {
                link,
                address,
                role,
            } => {
                let link = Arc::new(Link::new(link));
                let before = core.links.insert(link.id, link.clone());
                assert!(before.is_none(), "a machine numbers its links anew");
                after.connects.push((link, address, role));
            }
            Effect::Close { link, reason } => {
                let Some(link) = core.links.remove(&link) else {
                    return;
                };
                tracing::debug!("closing {}: {reason}", link.id);
                link.close();
                after.touched.push(link);
            }
            Effect::Log { level, text } => after.logs.push((level, text)),
            Effect::Stop { graceful, reason } => {
                core.is_stopped = true;
                after.stopped = Some(Stopped { graceful, reason });
            }
        }
    }

    fn overflow(&self, core: &mut Core<M>, after: &mut Aftermath<M::Answer>, link: LinkId) {
        let Some(link) = core.links.remove(&link) else {
            return;
        };
        let reason = "the other end does not take what is sent".to_owned();
        link.fail(reason.clone());
        let input = Input::Closed {
            link: link.id,
            reason,
        };
        core.machine.handle(clock::now(), input);
        self.drain(core, after);
    }

    fn rearm(&self, core: &mut Core<M>) {
        let wanted = core.machine.poll_timeout().unwrap_or(Instant::NEVER);
        if wanted < core.armed {
            core.armed = wanted;
            self.0.earlier.notify_one();
        }
        if let Some(incarnation) = core.machine.incarnation() {
            self.0.incarnation.send_if_modified(|known| {
                let is_newer = incarnation > *known;
                *known = incarnation.max(*known);
                is_newer
            });
        }
    }

    fn carry_out(&self, after: Aftermath<M::Answer>, delivery: Option<Delivery>) {
        for link in after.touched {
            link.flush();
        }
        if let Some(delivery) = delivery {
            (self.0.answers)(after.answers, delivery);
        }
        for (link, address, role) in after.connects {
            let work = connection::connect(self.clone(), link, address.0, role);
            self.0.runtime.spawn(work);
        }
        for (level, text) in after.logs {
            log(level, &text);
        }
        if let Some(stopped) = after.stopped {
            self.0.stopped.send_replace(Some(stopped));
        }
    }

    /// Wakes the machine when it wants to be woken.
    async fn keep_time(self) {
        loop {
            let Some(deadline) = self.rest() else {
                return;
            };
            let wait = connection::delay_until(deadline);
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    if clock::mono() >= deadline {
                        self.feed(Input::Timeout);
                    }
                }
                () = self.0.earlier.notified() => {}
            }
        }
    }

    /// Arms the timer with what the machine wants now; `None` when it has stopped.
    fn rest(&self) -> Option<Instant> {
        let mut core = self.lock();
        core.armed = core.machine.poll_timeout().unwrap_or(Instant::NEVER);
        (!core.is_stopped).then_some(core.armed)
    }
}

impl<M: Machine> Core<M> {
    /// Whether an input is about a link that the machine has closed already.
    /// The end of a link is told once: it is forgotten here.
    fn concerns_nobody(&mut self, input: &Input<M::Completion, M::Request>) -> bool {
        match input {
            Input::Closed { link, .. } => self.links.remove(link).is_none(),
            Input::Message { link, .. }
            | Input::Connected { link, .. }
            | Input::Accepted { link, .. } => !self.links.contains_key(link),
            Input::Completed(_) | Input::Request(_) | Input::Timeout => false,
        }
    }
}

fn log(level: Level, text: &str) {
    match level {
        Level::Error => tracing::error!("{text}"),
        Level::Warn => tracing::warn!("{text}"),
        Level::Info => tracing::info!("{text}"),
    }
}

/// Answers of one drain on their way. It counts as delivered when it is dropped.
#[derive(Debug)]
pub struct Delivery {
    number: u64,
    all: Arc<Deliveries>,
}

/// Which drains' answers are still on their way. An answer that must not overtake
/// earlier ones (the kernel must not get a name after it was told to forget it)
/// waits for those.
#[derive(Debug, Default)]
struct Deliveries {
    state: Mutex<DeliveryState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DeliveryState {
    next: u64,
    under_way: BTreeSet<u64>,
    waiting: usize,
}

impl Deliveries {
    /// Called under the machine's lock, so that numbers are in the machine's order.
    fn begin(all: &Arc<Self>) -> Delivery {
        let mut state = all.state.lock().expect("a panic ends the process");
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number);
        Delivery {
            number,
            all: all.clone(),
        }
    }
}

impl Delivery {
    /// A mark of this drain that outlives the delivery of its other answers.
    #[must_use]
    pub fn mark(&self) -> DeliveryMark {
        DeliveryMark {
            number: self.number,
            all: self.all.clone(),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut state = self.all.state.lock().expect("a panic ends the process");
        let was_there = state.under_way.remove(&self.number);
        assert!(was_there, "a delivery ends once");
        if state.waiting > 0 {
            self.all.changed.notify_all();
        }
    }
}

/// A place in the order of deliveries.
#[derive(Debug)]
pub struct DeliveryMark {
    number: u64,
    all: Arc<Deliveries>,
}

impl DeliveryMark {
    /// Blocks until the answers of this drain and of every earlier one are delivered.
    pub fn wait(&self) {
        let mut state = self.all.state.lock().expect("a panic ends the process");
        state.waiting += 1;
        while state
            .under_way
            .first()
            .is_some_and(|first| *first <= self.number)
        {
            state = self
                .all
                .changed
                .wait(state)
                .expect("a panic ends the process");
        }
        state.waiting -= 1;
    }
}
