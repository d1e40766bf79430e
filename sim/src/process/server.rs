//! A chunkserver: its machine over the real chunk stores on simulated disks.
//!
//! Each disk serves one file call after the other. An operation is advanced step
//! by step at the times that its calls take, so that operations on other parts,
//! and crashes, fall between the steps; a sync runs beside other calls.

use super::{Act, Moment, Other, Stimulus, Witness, drive, input, witness_of};
use crate::disk::{SimDisk, SyncBegun};
use crate::network::Nanos;
use antler_core::chunk::operation::{
    DiskCompletion, DiskError, DiskOperation, DiskReply, DiskRequest,
};
use antler_core::chunk::{ChunkStore, Progress, StoreMark, Work};
use antler_core::chunkserver::ChunkServer;
use antler_core::ids::{DiskId, Token};
use antler_core::machine::{Input, Machine, ServerRequest};
use antler_core::marks::{Mark, Marks};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct ServerProcess {
    pub(crate) machine: ChunkServer,
    storage: Storage,
}

/// One disk with its store; `None` if it could not be opened.
pub(crate) struct StoreRunner {
    pub(crate) id: DiskId,
    pub(crate) disk: SimDisk,
    pub(crate) store: Option<ChunkStore<SimDisk>>,
    busy: Nanos,
}

impl StoreRunner {
    pub(crate) fn new(id: DiskId, disk: SimDisk, store: Option<ChunkStore<SimDisk>>) -> Self {
        Self {
            id,
            disk,
            store,
            busy: 0,
        }
    }
}

struct Storage {
    runners: Vec<StoreRunner>,
    under_way: BTreeMap<u64, Running>,
    /// The runners whose disks the machine was told to have failed.
    failed: BTreeSet<usize>,
    next: u64,
}

struct Running {
    runner: usize,
    token: Token,
    work: Option<Work>,
    state: State,
    /// The disk is let go when it ends.
    closes: bool,
}

enum State {
    /// Its next step is due.
    Stepping,
    Syncing(SyncBegun),
    Over(Result<DiskReply, DiskError>),
}

impl ServerProcess {
    pub(crate) fn new(machine: ChunkServer, runners: Vec<StoreRunner>) -> Self {
        Self {
            machine,
            storage: Storage {
                runners,
                under_way: BTreeMap::new(),
                failed: BTreeSet::new(),
                next: 0,
            },
        }
    }

    pub(crate) fn runners(&self) -> &[StoreRunner] {
        &self.storage.runners
    }

    /// A disk is there from now on, in the place of one that was closed or behind all.
    pub(crate) fn put_runner(&mut self, at: usize, runner: StoreRunner) {
        match self.storage.runners.get_mut(at) {
            Some(place) => {
                assert!(place.store.is_none(), "a disk is opened once");
                *place = runner;
            }
            None => self.storage.runners.push(runner),
        }
    }

    pub(super) fn handle(&mut self, at: Moment, stimulus: Stimulus, acts: &mut Vec<Act>) {
        let input = match stimulus {
            Stimulus::Due(number) => self.storage.step(at.world, number, acts),
            Stimulus::Disks(changes) => Some(Input::Request(ServerRequest::Disks(changes))),
            other => input(other, || Some(ServerRequest::Shutdown)),
        };
        let Some(input) = input else { return };
        let storage = &mut self.storage;
        drive(&mut self.machine, at.local, input, acts, |other, acts| {
            if let Other::Operate(operation) = other {
                acts.extend(witness_of(&operation).map(Act::Witness));
                storage.start(at.world, operation, acts);
            }
        });
    }

    pub(super) fn marks(&mut self) -> Marks {
        let mut marks = self.machine.marks();
        for runner in &mut self.storage.runners {
            if let Some(store) = &mut runner.store {
                for mark in store.take_marks() {
                    marks.reach(mark_of(mark));
                }
            }
        }
        marks
    }
}

impl Storage {
    fn start(&mut self, now: Nanos, operation: DiskOperation, acts: &mut Vec<Act>) {
        let at = self.runners.iter().position(|r| r.id == operation.disk);
        let at = at.expect("a chunkserver asks only its own disks");
        let number = self.next;
        self.next += 1;
        let runner = &mut self.runners[at];
        runner.disk.settle(now);
        runner.disk.begin(now.max(runner.busy));
        let closes = matches!(operation.body, DiskRequest::Close);
        let work = runner
            .store
            .as_mut()
            .map(|store| store.start(operation.body));
        let unusable = DiskError::Medium("the disk could not be opened".to_owned());
        let running = Running {
            runner: at,
            token: operation.token,
            state: match work {
                Some(_) => State::Stepping,
                None => State::Over(Err(unusable)),
            },
            work,
            closes,
        };
        self.under_way.insert(number, running);
        match self.under_way[&number].state {
            State::Over(_) => acts.push(Act::Later(now, number)),
            _ => self.advance(number, None, acts),
        }
    }

    /// Takes the next step at the disk's cursor and says when the one after is due.
    fn advance(
        &mut self,
        number: u64,
        synced: Option<antler_core::vfs::VfsResult<()>>,
        acts: &mut Vec<Act>,
    ) {
        let running = self.under_way.get_mut(&number).expect("it is under way");
        let runner = &mut self.runners[running.runner];
        let store = runner.store.as_mut().expect("an operation runs on a store");
        let work = running
            .work
            .as_mut()
            .expect("a started operation has its work");
        let progress = store.advance(work, synced);
        runner.busy = runner.disk.cursor();
        let due = match progress {
            Progress::Sync(file) => {
                let begun = runner.disk.begin_sync(file);
                let amid = runner.busy.midpoint(begun.ends);
                acts.push(Act::Witness(Witness::DiskSync(amid)));
                running.state = State::Syncing(begun);
                begun.ends
            }
            Progress::More => {
                running.state = State::Stepping;
                runner.busy
            }
            Progress::Done(result) => {
                running.state = State::Over(result);
                runner.busy
            }
        };
        acts.push(Act::Later(due, number));
    }

    /// What is due: the end of a sync, the next step, or the end of all.
    fn step(
        &mut self,
        now: Nanos,
        number: u64,
        acts: &mut Vec<Act>,
    ) -> Option<Input<DiskCompletion, ServerRequest>> {
        let running = self.under_way.get_mut(&number)?;
        let runner = &mut self.runners[running.runner];
        runner.disk.settle(now);
        match std::mem::replace(&mut running.state, State::Stepping) {
            State::Over(result) => {
                let running = self.under_way.remove(&number)?;
                let fails = matches!(result, Err(DiskError::Medium(_)));
                if fails && self.failed.insert(running.runner) {
                    acts.push(Act::Witness(Witness::DiskFailed));
                }
                if running.closes {
                    let runner = &mut self.runners[running.runner];
                    runner.store = None;
                    runner.disk.kill(now);
                    self.failed.remove(&running.runner);
                }
                let disk = self.runners[running.runner].id;
                let token = running.token;
                Some(Input::Completed(DiskCompletion {
                    disk,
                    token,
                    result,
                }))
            }
            State::Stepping => {
                runner.disk.begin(now.max(runner.busy));
                self.advance(number, None, acts);
                None
            }
            State::Syncing(begun) => {
                let synced = runner.disk.end_sync(begun);
                runner.disk.begin(now.max(runner.busy));
                self.advance(number, Some(synced), acts);
                None
            }
        }
    }
}

fn mark_of(mark: StoreMark) -> Mark {
    match mark {
        StoreMark::TornTail => Mark::TornTail,
        StoreMark::UnitsReplayed => Mark::UnitsReplayed,
        StoreMark::Checkpointed => Mark::Checkpointed,
        StoreMark::CommitShared => Mark::CommitShared,
        StoreMark::PartReceived => Mark::PartReceived,
        StoreMark::CorruptUnit => Mark::CorruptUnit,
        StoreMark::SyncFailed => Mark::SyncFailed,
        StoreMark::DiskFull => Mark::DiskFull,
        StoreMark::JournalFull => Mark::JournalFull,
    }
}
