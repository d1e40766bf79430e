//! A master or a metalogger: its machine over the real log and image code on a
//! simulated disk. Log operations and image operations run beside each other,
//! each in its own order.

use super::{Act, Moment, Other, Stimulus, Witness, drive, input};
use crate::disk::SimDisk;
use crate::network::Nanos;
use antler_core::hash::Digest;
use antler_core::ids::Incarnation;
use antler_core::journal::operation::{JournalCompletion, JournalOperation};
use antler_core::journal::{Images, Log};
use antler_core::machine::{Effect, Input, Machine, ServerRequest};
use antler_core::marks::Marks;
use antler_core::master::Master;
use antler_core::member::Member;
use antler_core::metalogger::Metalogger;
use antler_core::time::{Instant, Now};
use std::collections::BTreeMap;

/// Bytes of a sector: what a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Either role of a member.
#[allow(
    clippy::large_enum_variant,
    reason = "there are a handful, each boxed by its process"
)]
pub(crate) enum MemberMachine {
    Master(Master),
    Metalogger(Metalogger),
}

impl MemberMachine {
    pub(crate) fn member(&self) -> &Member {
        match self {
            Self::Master(master) => master.member(),
            Self::Metalogger(metalogger) => metalogger.member(),
        }
    }

    /// Whether it leads and answers.
    pub(crate) fn is_leading(&self) -> bool {
        matches!(self, Self::Master(master) if master.is_leading())
    }
}

impl Machine for MemberMachine {
    type Operation = JournalOperation;
    type Completion = JournalCompletion;
    type Request = ServerRequest;
    type Answer = ();

    fn handle(&mut self, now: Now, input: Input<JournalCompletion, ServerRequest>) {
        match self {
            Self::Master(machine) => machine.handle(now, input),
            Self::Metalogger(machine) => machine.handle(now, input),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<JournalOperation, ()>> {
        match self {
            Self::Master(machine) => machine.poll_effect(),
            Self::Metalogger(machine) => machine.poll_effect(),
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Master(machine) => machine.poll_timeout(),
            Self::Metalogger(machine) => machine.poll_timeout(),
        }
    }

    fn incarnation(&self) -> Option<Incarnation> {
        match self {
            Self::Master(machine) => machine.incarnation(),
            Self::Metalogger(machine) => machine.incarnation(),
        }
    }

    fn digest(&self, digest: &mut Digest) {
        match self {
            Self::Master(machine) => machine.digest(digest),
            Self::Metalogger(machine) => machine.digest(digest),
        }
    }

    fn check_invariants(&self, whole: bool) {
        match self {
            Self::Master(machine) => machine.check_invariants(whole),
            Self::Metalogger(machine) => machine.check_invariants(whole),
        }
    }

    fn marks(&self) -> Marks {
        match self {
            Self::Master(machine) => machine.marks(),
            Self::Metalogger(machine) => machine.marks(),
        }
    }
}

pub(crate) struct MemberProcess {
    pub(crate) machine: MemberMachine,
    storage: Storage,
    recovered: Marks,
}

/// The member's disk and what is under way on it.
struct Storage {
    log: Log<SimDisk>,
    images: Images<SimDisk>,
    disk: SimDisk,
    log_busy: Nanos,
    images_busy: Nanos,
    under_way: BTreeMap<u64, JournalCompletion>,
    next: u64,
}

impl MemberProcess {
    pub(crate) fn new(
        machine: MemberMachine,
        log: Log<SimDisk>,
        images: Images<SimDisk>,
        disk: SimDisk,
        recovered: Marks,
    ) -> Self {
        let storage = Storage {
            log,
            images,
            disk,
            log_busy: 0,
            images_busy: 0,
            under_way: BTreeMap::new(),
            next: 0,
        };
        Self {
            machine,
            storage,
            recovered,
        }
    }

    pub(super) fn handle(&mut self, at: Moment, stimulus: Stimulus, acts: &mut Vec<Act>) {
        let input = match stimulus {
            Stimulus::Due(number) => self.storage.finish(number, at.world),
            other => input(other, || Some(ServerRequest::Shutdown)),
        };
        let Some(input) = input else { return };
        let storage = &mut self.storage;
        drive(&mut self.machine, at.local, input, acts, |other, acts| {
            if let Other::Operate(operation) = other {
                storage.execute(at.world, operation, acts);
            }
        });
    }

    pub(super) fn marks(&self) -> Marks {
        let mut marks = self.machine.marks();
        marks.merge(self.storage.log.marks());
        marks.merge(self.storage.images.marks());
        marks.merge(self.recovered);
        marks
    }
}

impl Storage {
    /// Executes an operation in one go; what it does reaches the disk call by call.
    fn execute(&mut self, now: Nanos, operation: JournalOperation, acts: &mut Vec<Act>) {
        match &operation {
            JournalOperation::Append { entries, .. } => {
                acts.push(Act::Witness(Witness::Appending(entries.clone())));
            }
            JournalOperation::Restart { .. } => acts.push(Act::Witness(Witness::Restarting)),
            _ => {}
        }
        self.disk.settle(now);
        let is_long = batch_bytes(&operation) > SECTOR;
        let completion = if operation.is_image() {
            self.disk.begin(now.max(self.images_busy));
            let completion = self.images.execute(operation);
            self.images_busy = self.disk.cursor();
            completion
        } else {
            self.disk.begin(now.max(self.log_busy));
            let completion = self.log.execute(operation);
            let begun = now.max(self.log_busy);
            self.log_busy = self.disk.cursor();
            if is_long {
                let amid = begun.midpoint(self.log_busy);
                acts.push(Act::Witness(Witness::LogSync(amid)));
            }
            completion
        };
        acts.push(Act::Later(self.disk.cursor(), self.next));
        self.under_way.insert(self.next, completion);
        self.next += 1;
    }

    fn finish(
        &mut self,
        number: u64,
        now: Nanos,
    ) -> Option<Input<JournalCompletion, ServerRequest>> {
        let completion = self.under_way.remove(&number)?;
        if self.under_way.is_empty() && self.log_busy <= now {
            self.disk.begin(now);
            self.log.prepare();
            self.log_busy = self.disk.cursor();
        }
        Some(Input::Completed(completion))
    }
}

/// About how many bytes a batch takes in the log: see the format of a segment.
fn batch_bytes(operation: &JournalOperation) -> usize {
    let JournalOperation::Append { entries, .. } = operation else {
        return 0;
    };
    let records = entries.iter().map(|entry| 24 + entry.data.len());
    64 + records.sum::<usize>()
}
