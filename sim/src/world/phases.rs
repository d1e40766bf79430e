//! The phases of a run: what each waits for, what comes behind it, and when it is too late.

use super::{Event, Phase, SECOND, START_MAX, World, leading_state};
use crate::audit::Auditor;
use crate::check::disks::ServerDisk;
use crate::network::Nanos;
use crate::node::Node;
use crate::operator::LOOKS_EVERY;
use crate::workload::Runner;
use antler_core::ids::{InodeId, SessionId};
use antler_core::machine::Role;
use antler_core::namespace::LeaseState;
use antler_core::version::FeatureLevel;
use std::collections::BTreeSet;

impl World {
    pub(super) fn tick(&mut self) {
        self.attend();
        match self.phase {
            Phase::Starting => self.tick_starting(),
            Phase::Working { until } => {
                if self.now >= until {
                    self.heal();
                    for runner in &mut self.runners {
                        runner.winding_down = true;
                    }
                    for client in 0..self.mounts.len() {
                        self.wake_programs(client);
                    }
                    let deadline = self.now + self.plan.finish;
                    self.attended = self.now + LOOKS_EVERY;
                    self.phase = Phase::Finishing { deadline };
                }
            }
            Phase::Finishing { deadline } => self.tick_finishing(deadline),
            Phase::Auditing { deadline } => self.tick_auditing(deadline),
            Phase::Settling {
                deadline,
                next_look,
            } => {
                if self.now >= next_look {
                    self.tick_settling(deadline);
                }
            }
        }
    }

    fn tick_starting(&mut self) {
        let ready = self.mounts.iter().all(|(_, ready)| *ready);
        if ready && self.is_prepared() {
            self.begun = self.now;
            if let Some(observer) = &mut self.observer {
                observer.begun(self.now);
            }
            let until = self.now + self.plan.duration;
            self.phase = Phase::Working { until };
            self.schedule_faults();
            for client in 0..self.mounts.len() {
                self.wake_programs(client);
            }
        } else if self.now > START_MAX {
            self.stuck("the mounts do not come up".to_owned());
        }
    }

    /// Whether everything is kept as it is to be from the beginning: the program that sees
    /// to it runs first, alone.
    fn is_prepared(&mut self) -> bool {
        if self.plan.storage.is_none() {
            return true;
        }
        let last = self.runners.len() - 1;
        let runner = &self.runners[last];
        let (done, waiting) = (runner.is_done(), runner.waiting);
        if !done && !waiting {
            self.schedule(self.now, Event::Think(last));
        }
        done
    }

    fn tick_finishing(&mut self, deadline: Nanos) {
        let ready = self.mounts.iter().all(|(_, ready)| *ready);
        let written = self.nodes.iter().all(Node::is_written_out);
        if ready && written && self.runners.iter().all(Runner::is_done) {
            self.auditors = self.mounts.iter().map(|_| Auditor::new()).collect();
            self.left_behind = self.left_behind();
            self.phase = Phase::Auditing { deadline };
            for client in 0..self.auditors.len() {
                self.audit_on(client);
            }
        } else if self.now > deadline {
            let hanging = self.runners.iter().filter(|runner| !runner.is_done());
            let hanging: Vec<String> = hanging.map(Runner::describe).collect();
            let mounts = format!("mounts ready: {ready}, written out: {written}");
            let unwritten: Vec<String> = self.nodes.iter().flat_map(Node::unwritten).collect();
            let unwritten = match unwritten.is_empty() {
                true => String::new(),
                false => format!("; not written out: {unwritten:?}"),
            };
            self.stuck(format!("{mounts}; programs hang: {hanging:?}{unwritten}"));
        }
    }

    fn tick_auditing(&mut self, deadline: Nanos) {
        if self.auditors.iter().all(Auditor::is_done) {
            self.compare_audits();
            self.phase = Phase::Settling {
                deadline: self.now + self.plan.redundancy,
                next_look: self.now,
            };
        } else if self.now > deadline {
            self.stuck("a mount can't read everything".to_owned());
        }
    }

    fn compare_audits(&mut self) {
        let first = &self.auditors[0];
        let found = self.judges.names.judge_walk(&first.names);
        self.judges.judge("names at the end", found);
        let differing = self.auditors.iter().skip(1).find_map(|other| {
            if other.names != first.names {
                return Some("names".to_owned());
            }
            let differing = first
                .contents
                .iter()
                .find(|((inode, generation), content)| {
                    let found = other.contents.get(&(*inode, *generation));
                    found.is_some_and(|found| found != *content)
                        && !self.left_behind.contains(inode)
                });
            differing.map(|((inode, _), _)| format!("the content of {inode}"))
        });
        if let Some(what) = differing {
            let how = format!("two mounts at rest see different things: {what}");
            self.judges.judge::<()>("P7: close-to-open", Err(how));
        }
    }

    /// Files to which a mount wrote when it died, and of which its lease has not ended yet:
    /// a write that nobody acknowledged may be in one copy and not in another until then,
    /// be that amid the audits.
    fn left_behind(&self) -> BTreeSet<InodeId> {
        let Some(state) = leading_state(&self.nodes) else {
            return BTreeSet::new();
        };
        let lives: Vec<SessionId> = self.nodes.iter().filter_map(Node::session).collect();
        let leased = state.leased().filter_map(|chunk| state.chunk(chunk));
        let left = leased.filter(|chunk| match chunk.lease {
            LeaseState::Open { session, .. } => !lives.contains(&session),
            LeaseState::Broken { .. } | LeaseState::Reconciling { .. } => true,
            LeaseState::Closing { .. } | LeaseState::Settled => false,
        });
        left.map(|chunk| chunk.inode).collect()
    }

    fn tick_settling(&mut self, deadline: Nanos) {
        let missing = match leading_state(&self.nodes) {
            Some(state) => {
                let reader = &mut self.judges.reader;
                let nodes = &self.nodes;
                let in_use = |disk: &ServerDisk| {
                    let node = &nodes[disk.node];
                    let is_used = !node.out.contains(&disk.number) && !node.gave_up(disk.number);
                    !disk.disk.faults().vanished && is_used
                };
                let is_old =
                    |node: &Node| node.role == Role::Client && node.version < FeatureLevel::CODES;
                let converts = !nodes.iter().any(is_old);
                let disks = (&self.disks, converts, self.plan.cluster.scrub > 0);
                let mut missing =
                    crate::check::copies::missing(self.now, state, disks, &in_use, reader);
                missing.extend(nodes.iter().flat_map(known_bad));
                missing.extend(crate::check::drained::left(state, nodes));
                missing.extend(unbalanced(nodes, self.plan.figures.balanced));
                missing
            }
            None => vec!["nobody leads".to_owned()],
        };
        if missing.is_empty() && self.return_failed_disks() {
            let deadline = self.now + self.plan.redundancy;
            let next_look = self.now + SECOND;
            self.phase = Phase::Settling {
                deadline,
                next_look,
            };
        } else if missing.is_empty() {
            for index in 0..self.nodes.len() {
                self.collect_marks(index);
            }
            self.outcome = Some(self.judge_figures());
        } else if self.now > deadline {
            let shown: Vec<&String> = missing.iter().take(5).collect();
            let how = format!("{} things are not well: {shown:#?}", missing.len());
            self.judges.judge::<()>("P8: redundancy returns", Err(how));
        } else {
            let next_look = self.now + SECOND;
            self.phase = Phase::Settling {
                deadline,
                next_look,
            };
        }
    }
}

/// Which chunkservers use too unequal shares of their space, in millionths.
fn unbalanced(nodes: &[Node], most: Option<u64>) -> Option<String> {
    let servers = nodes.iter().filter(|node| node.role == Role::ChunkServer);
    let used = servers.map(|node| (node.used_millionths(), &node.name));
    let used: Vec<_> = used.collect();
    let (least, empty) = used.iter().min()?;
    let (full_of, full) = used.iter().max()?;
    let differ = full_of - least > most?;
    differ
        .then(|| format!("{full} uses {full_of} millionths of its space, and {empty} only {least}"))
}

/// What a chunkserver knows to be damaged, and nobody mended.
fn known_bad(node: &Node) -> Vec<String> {
    let bad = node.bad_parts().into_iter();
    let told = bad.map(|part| format!("{part} on {} is still damaged", node.name));
    told.collect()
}
