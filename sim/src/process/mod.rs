//! One simulated process: a machine and the driver that executes what it asks of
//! storage, with the disk's latencies.
//!
//! The world delivers stimuli and carries out acts; a process knows no other
//! node. The driver keeps the contract of `antler_core::machine`: one input, then
//! every effect drained.

mod client;
mod member;
mod server;

pub(crate) use client::ClientProcess;
pub(crate) use member::{MemberMachine, MemberProcess};
pub(crate) use server::{ServerProcess, StoreRunner};

use crate::network::Nanos;
use antler_core::chunk::operation::{DiskChange, DiskOperation};
use antler_core::client::request::{ClientAnswer, ClientRequest};
use antler_core::hash::Digest;
use antler_core::ids::{Address, Incarnation, LinkId};
use antler_core::journal::operation::LogEntry;
use antler_core::machine::{Effect, Input, Level, Machine, Peer, Role};
use antler_core::marks::Marks;
use antler_core::time::{Instant, Now};
use antler_core::wire::Message;

/// The world's time and the node's own clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) world: Nanos,
    pub(crate) local: Now,
}

/// What happens to a process.
#[derive(Debug)]
pub(crate) enum Stimulus {
    Accepted(LinkId, Peer),
    Connected(LinkId, Peer),
    Closed(LinkId, &'static str),
    Message(LinkId, Message),
    Timeout,
    Shutdown,
    /// A chunkserver's configuration was read again.
    Disks(Vec<DiskChange>),
    Ask(Box<ClientRequest>),
    /// Something of its storage is due.
    Due(u64),
}

/// What a process does.
#[derive(Debug)]
pub(crate) enum Act {
    Connect(LinkId, Address, Role),
    Send(LinkId, Message),
    Close(LinkId),
    Log(Level, String),
    Stop {
        graceful: bool,
        reason: String,
    },
    /// `Stimulus::Due` with this number then.
    Later(Nanos, u64),
    Answer(ClientAnswer),
    /// Something that judges want to know.
    Witness(Witness),
}

/// What judges learn from a process's storage.
#[derive(Debug)]
pub(crate) enum Witness {
    /// A member's log is to be extended (cut off at the first entry's position).
    Appending(Vec<LogEntry>),
    /// A member's log is to be emptied behind an installed image.
    Restarting,
    /// A batch of several sectors in a member's log will be amid its sync then.
    LogSync(Nanos),
    /// A chunkserver's disk will be amid a sync then.
    DiskSync(Nanos),
    /// A chunkserver learns that one of its disks failed.
    DiskFailed,
    /// A chunkserver's disk is to write a part under an epoch.
    Writing(antler_core::ids::PartId, antler_core::ids::Epoch),
}

/// A running process.
pub(crate) enum Process {
    Member(Box<MemberProcess>),
    Server(Box<ServerProcess>),
    Client(Box<ClientProcess>),
}

impl Process {
    pub(crate) fn handle(&mut self, at: Moment, stimulus: Stimulus, acts: &mut Vec<Act>) {
        match self {
            Self::Member(process) => process.handle(at, stimulus, acts),
            Self::Server(process) => process.handle(at, stimulus, acts),
            Self::Client(process) => process.handle(at, stimulus, acts),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Member(process) => process.machine.poll_timeout(),
            Self::Server(process) => process.machine.poll_timeout(),
            Self::Client(process) => process.machine.poll_timeout(),
        }
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Member(process) => process.machine.incarnation(),
            Self::Server(process) => process.machine.incarnation(),
            Self::Client(process) => process.machine.incarnation(),
        }
    }

    pub(crate) fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Member(process) => process.machine.digest(digest),
            Self::Server(process) => process.machine.digest(digest),
            Self::Client(process) => process.machine.digest(digest),
        }
    }

    pub(crate) fn check_invariants(&self, whole: bool) {
        match self {
            Self::Member(process) => process.machine.check_invariants(whole),
            Self::Server(process) => process.machine.check_invariants(whole),
            Self::Client(process) => process.machine.check_invariants(whole),
        }
    }

    pub(crate) fn marks(&mut self) -> Marks {
        match self {
            Self::Member(process) => process.marks(),
            Self::Server(process) => process.marks(),
            Self::Client(process) => process.machine.marks(),
        }
    }
}

/// A stimulus as a machine's input; `None` for what only the driver understands.
fn input<C, R>(stimulus: Stimulus, shutdown: impl FnOnce() -> Option<R>) -> Option<Input<C, R>> {
    Some(match stimulus {
        Stimulus::Accepted(link, peer) => Input::Accepted { link, peer },
        Stimulus::Connected(link, peer) => Input::Connected { link, peer },
        Stimulus::Closed(link, reason) => Input::Closed {
            link,
            reason: reason.to_owned(),
        },
        Stimulus::Message(link, message) => Input::Message { link, message },
        Stimulus::Timeout => Input::Timeout,
        Stimulus::Shutdown => Input::Request(shutdown()?),
        Stimulus::Ask(_) | Stimulus::Due(_) | Stimulus::Disks(_) => return None,
    })
}

/// Feeds one input and drains every effect. Storage operations and answers go to
/// `other`; everything else becomes an act.
fn drive<M: Machine>(
    machine: &mut M,
    now: Now,
    input: Input<M::Completion, M::Request>,
    acts: &mut Vec<Act>,
    mut other: impl FnMut(Other<M::Operation, M::Answer>, &mut Vec<Act>),
) {
    // A machine that was just made may have effects already.
    drain(machine, acts, &mut other);
    machine.handle(now, input);
    drain(machine, acts, &mut other);
}

fn drain<M: Machine>(
    machine: &mut M,
    acts: &mut Vec<Act>,
    other: &mut impl FnMut(Other<M::Operation, M::Answer>, &mut Vec<Act>),
) {
    while let Some(effect) = machine.poll_effect() {
        match effect {
            Effect::Connect {
                link,
                address,
                role,
            } => acts.push(Act::Connect(link, address, role)),
            Effect::Send { link, message } => acts.push(Act::Send(link, message)),
            Effect::Close { link, .. } => acts.push(Act::Close(link)),
            Effect::Log { level, text } => acts.push(Act::Log(level, text)),
            Effect::Stop { graceful, reason } => acts.push(Act::Stop { graceful, reason }),
            Effect::Operate(operation) => other(Other::Operate(operation), acts),
            Effect::Answer(answer) => other(Other::Answer(answer), acts),
        }
    }
}

/// An effect whose type differs between machines.
enum Other<O, A> {
    Operate(O),
    Answer(A),
}

/// What a judge learns from a disk operation before it is executed.
fn witness_of(operation: &DiskOperation) -> Option<Witness> {
    use antler_core::chunk::operation::DiskRequest::{Write, Zero};
    match &operation.body {
        Write { part, epoch, .. } | Zero { part, epoch, .. } => {
            Some(Witness::Writing(*part, *epoch))
        }
        _ => None,
    }
}
