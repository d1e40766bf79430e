//! The contract that every role keeps: one input, then every effect drained.
//!
//! ```text
//! machine.handle(now, input);                       // exactly one input ...
//! while let Some(effect) = machine.poll_effect() {  // ... then drain, in order
//!     driver.perform(effect);
//! }
//! driver.wake_at(machine.poll_timeout());           // then Input::Timeout
//! ```
//!
//! Effects are imperatives, inputs are facts in the past. An [`Effect::Operate`]
//! comes back as exactly one [`Input::Completed`], success or failure. A machine
//! holds no clock, thread, socket or file; time and randomness come from
//! outside, so the same inputs give the same effects in the simulator and in
//! the daemon. A driver must not reorder effects on one link, nor drop one.

use crate::chunk::operation::DiskChange;
use crate::hash::Digest;
use crate::ids::{Address, BootId, Incarnation, LinkId, MemberId, ServerId};
use crate::marks::Marks;
use crate::time::{Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::Message;
use std::fmt::Debug;

/// A role: a state machine without I/O.
pub trait Machine {
    /// What the driver does with storage for it.
    type Operation: Debug;
    /// How that ended.
    type Completion: Debug;
    /// What is asked of it locally (by the mount, by a signal).
    type Request: Debug;
    /// What it tells locally.
    type Answer: Debug;

    /// Takes exactly one input. Every effect must be drained before the next.
    fn handle(&mut self, now: Now, input: Input<Self::Completion, Self::Request>);
    /// The next effect, in order.
    fn poll_effect(&mut self) -> Option<Effect<Self::Operation, Self::Answer>>;
    /// When it wants [`Input::Timeout`]; the driver calls no earlier, and may be late.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The newest life of the cluster that it knows, once it knows one: the driver
    /// says it in the first exchange of every link from then on, and keeps it durably
    /// for the machine's next start.
    fn incarnation(&self) -> Option<Incarnation> {
        None
    }
    /// The version that it was built as: the driver says it in the first exchange of
    /// every link, and sends nothing that the other end of a link can't read.
    fn speaks(&self) -> FeatureLevel {
        FeatureLevel::NEWEST
    }
    /// Takes the state's digest in, for the proof of determinism.
    fn digest(&self, digest: &mut Digest);
    /// Asserts what must hold between inputs; `whole` also what is dear to check.
    fn check_invariants(&self, whole: bool);
    /// The rare events that it has met since it was made.
    fn marks(&self) -> Marks {
        Marks::default()
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input<C, R> {
    /// Somebody connected, and proved the cluster's key. The driver chose the link
    /// (an even number).
    Accepted {
        /// The new link.
        link: LinkId,
        /// Who it is.
        peer: Peer,
    },
    /// A link that the machine asked for is up.
    Connected {
        /// Which.
        link: LinkId,
        /// Who is there.
        peer: Peer,
    },
    /// A link is down, or could not be made. Said once for every link that was
    /// accepted or asked for, unless the machine closed it itself.
    Closed {
        /// Which.
        link: LinkId,
        /// Why, for the log.
        reason: String,
    },
    /// A message came on an open link.
    Message {
        /// On which.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// A storage operation ended.
    Completed(C),
    /// Something is asked locally.
    Request(R),
    /// The time that `poll_timeout` named has come.
    Timeout,
}

/// What is to be done.
#[derive(Debug)]
pub enum Effect<O, A> {
    /// Open a link. The machine chose its number (odd, never used before).
    Connect {
        /// The new link.
        link: LinkId,
        /// To where.
        address: Address,
        /// The role that must answer there.
        role: Role,
    },
    /// Send on an open link, in order. On a link that just closed it is dropped:
    /// the machine learns by `Closed`.
    Send {
        /// On which.
        link: LinkId,
        /// What.
        message: Message,
    },
    /// End a link; no `Closed` follows.
    Close {
        /// Which.
        link: LinkId,
        /// Why, for the log.
        reason: String,
    },
    /// A storage operation.
    Operate(O),
    /// Tell locally.
    Answer(A),
    /// Log a line for the operator.
    Log {
        /// How important.
        level: Level,
        /// What.
        text: String,
    },
    /// The role can't go on (its medium failed, or it was asked to stop): end the
    /// process after the effects before this one.
    Stop {
        /// Whether that is as asked.
        graceful: bool,
        /// Why.
        reason: String,
    },
}

/// The weight of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Needs somebody.
    Error,
    /// Somebody may want to know soon.
    Warn,
    /// The story.
    Info,
}

/// What a process is.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Role {
    /// A voter of the masters' group.
    #[n(0)]
    Master,
    /// A learner of it.
    #[n(1)]
    Metalogger,
    /// Keeps copies.
    #[n(2)]
    ChunkServer,
    /// Mounts, and the operator's tools.
    #[n(3)]
    Client,
}

/// Who is at the other end of a link, as the first exchange proved it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Its number: the member's or the server's; 0 for a client.
    pub id: u64,
    /// Its life.
    pub boot: BootId,
    /// The newest life of the cluster that it knows.
    pub incarnation: Incarnation,
    /// The newest version that it speaks, and so the newest feature level that it knows.
    pub speaks: FeatureLevel,
}

impl Peer {
    /// The member at the other end, if it is one.
    #[must_use]
    pub fn member(&self) -> Option<MemberId> {
        matches!(self.role, Role::Master | Role::Metalogger).then_some(MemberId(self.id))
    }

    /// The chunkserver at the other end, if it is one.
    #[must_use]
    pub fn server(&self) -> Option<ServerId> {
        (self.role == Role::ChunkServer).then_some(ServerId(self.id))
    }
}

/// What is asked of a daemon locally.
#[derive(Clone, Debug)]
pub enum ServerRequest {
    /// Stop gracefully (SIGTERM).
    Shutdown,
    /// Its disks, or what is ordered of them, changed (SIGHUP). Only chunkservers have any.
    Disks(Vec<DiskChange>),
}

/// Numbers the links that a machine opens: odd, each used once.
#[derive(Clone, Debug, Default)]
pub struct LinkAllocator(u64);

impl LinkAllocator {
    /// A number never given before.
    pub fn allocate(&mut self) -> LinkId {
        let link = LinkId(self.0 * 2 + 1);
        self.0 += 1;
        link
    }
}
