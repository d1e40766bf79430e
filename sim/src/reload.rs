//! What an operator does to the disks of a chunkserver while it runs: he changes its
//! configuration and has it read again.
//!
//! Owns the configuration of each node's disks and how a change of it reaches the process;
//! leaves when that happens to `faults`. Invariant: what is taken out is needed by nobody: it
//! is empty, or everything on its server has another good copy.

use crate::network::Nanos;
use crate::node::{self, Node, Power};
use crate::plan::FaultPlan;
use crate::process::{Process, Stimulus, StoreRunner};
use crate::scenario::Action;
use crate::world::{Event, World};
use antler_core::chunk::ChunkStore;
use antler_core::chunk::operation::DiskChange;
use antler_core::chunk::rules::{Amount, DiskRules};

/// How soon a disk is tried again that is not closed yet.
const AGAIN: Nanos = 1_000_000_000;

impl World {
    /// An operator changes the disks of chunkservers.
    pub(crate) fn reload(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        for &index in targets {
            let node = &self.nodes[index];
            let is_ready = node.runs_server() && node.strange.is_none();
            let Some(at) = node.disk_to_change(fault) else {
                continue;
            };
            let may = fault.action != Action::RemoveDisk || self.may_remove(index, at, fault);
            if !is_ready || !may {
                return self.retry(number);
            }
            self.trace.line(self.now, "operator", || {
                format!("{} of {index}: disk {at}", fault.action)
            });
            self.change_disk(index, at, fault.action);
            self.script.note_reload(number, (index, at));
        }
        if let Some(lasts) = fault.lasts {
            self.schedule(self.now + lasts, Event::FaultEnd(number));
        }
    }

    fn may_remove(&self, index: usize, at: usize, fault: &FaultPlan) -> bool {
        let is_empty = self.nodes[index].parts_on(at).next().is_none();
        is_empty || fault.hasty && self.can_lose(index, fault)
    }

    fn change_disk(&mut self, index: usize, at: usize, action: Action) {
        let node = &mut self.nodes[index];
        match action {
            Action::DrainDisk => node.rules.entry(at).or_default().drain = true,
            Action::LimitDisk => {
                node.rules.entry(at).or_default().limit = Some(Amount::Bytes(1));
            }
            Action::RemoveDisk => {
                node.out.insert(at);
                let change = DiskChange::Remove(node.disk_id(at));
                return self.feed(index, Stimulus::Disks(vec![change]));
            }
            Action::AddDisk => {
                node.add_disk();
                self.disks = node::all_disks(&self.nodes);
                return self.open_disk(index, at);
            }
            _ => unreachable!("the other faults are no changes of a configuration"),
        }
        self.order(index, at);
    }

    /// Tells a server what is ordered of a disk.
    fn order(&mut self, index: usize, at: usize) {
        let node = &self.nodes[index];
        if node.runs_server() && !node.out.contains(&at) {
            let change = DiskChange::Rules(node.disk_id(at), node.rules_of(at));
            self.feed(index, Stimulus::Disks(vec![change]));
        }
    }

    /// A disk joins a server that runs.
    fn open_disk(&mut self, index: usize, at: usize) {
        let now = self.now;
        if let Some(change) = self.nodes[index].open_late(now, at) {
            self.feed(index, Stimulus::Disks(vec![change]));
        }
    }

    /// A change is taken back.
    pub(crate) fn undo_reload(&mut self, number: usize, (index, at): (usize, usize)) {
        match self.script.fault(number).action {
            Action::RemoveDisk if self.nodes[index].has_open(at) => {
                self.script.note_reload(number, (index, at));
                self.schedule(self.now + AGAIN, Event::FaultEnd(number));
            }
            Action::RemoveDisk => {
                self.nodes[index].out.remove(&at);
                self.open_disk(index, at);
            }
            Action::AddDisk => {}
            _ => {
                self.nodes[index].rules.remove(&at);
                self.order(index, at);
            }
        }
    }
}

impl Node {
    /// Whether a chunkserver runs here that takes orders.
    pub(crate) fn runs_server(&self) -> bool {
        self.power == Power::Up && matches!(self.process, Some(Process::Server(_)))
    }

    /// Which disk a change is of: to be removed, one that is drained, if there is one. `None`
    /// if there is none that can be changed so.
    fn disk_to_change(&self, fault: &FaultPlan) -> Option<usize> {
        let all: Vec<usize> = (0..self.disks.len()).collect();
        let mut used = all.iter().copied().filter(|at| !self.out.contains(at));
        if fault.action == Action::AddDisk {
            return Some(all.len());
        }
        let count = used.clone().count();
        let is_any = fault.action == Action::DrainDisk && fault.hasty;
        if count < if is_any { 1 } else { 2 } {
            return None;
        }
        let drained = used.clone().find(|at| self.rules_of(*at).drain);
        let drained = drained.filter(|_| fault.action == Action::RemoveDisk);
        drained.or_else(|| used.nth(fault.pick as usize % count))
    }

    pub(crate) fn rules_of(&self, at: usize) -> DiskRules {
        self.rules.get(&at).copied().unwrap_or_default()
    }

    /// Whether the process has a disk open.
    fn has_open(&self, at: usize) -> bool {
        match &self.process {
            Some(Process::Server(process)) => process.runners()[at].store.is_some(),
            _ => false,
        }
    }

    /// Opens a disk for the process that runs, if one does: what it is told then.
    fn open_late(&mut self, now: Nanos, at: usize) -> Option<DiskChange> {
        let (disk, options, rules) = (
            self.disks[at].clone(),
            self.store_options(at),
            self.rules_of(at),
        );
        let Some(Process::Server(process)) = &mut self.process else {
            return None;
        };
        disk.settle(now);
        disk.begin(now);
        let (store, mut opened) = ChunkStore::open(disk.clone(), options).ok()?;
        opened.rules = rules;
        let runner = StoreRunner::new(opened.disk, disk, Some(store));
        process.put_runner(at, runner);
        Some(DiskChange::Add(opened))
    }
}
