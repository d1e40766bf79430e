//! Storage classes as the leader carries them out: which labels hold for a server,
//! what of a chunk's copies a class counts, what can't be met.
//!
//! Owns the soft state about labels and changes of classes; the classes themselves are
//! the replicated state's, the choice of servers is `placement`'s. Invariant: where
//! labels matter, a server is used only while the log knows how it is configured.

use super::duty::Duty;
use super::mutate::REPAIR_HOLD_MAX;
use super::{Master, Proposal};
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, InodeId, ServerId};
use crate::limits::REPORT_BATCH;
use crate::machine::Level;
use crate::namespace::Chunk;
use crate::namespace::record::RecordBody;
use crate::placement::class::Force;
use crate::placement::label::is_reserved;
use crate::placement::reason::unmet;
use crate::placement::{self, Candidate, ClassId, Labels, Policy, StorageClass};
use crate::time::{Duration, Instant};
use crate::version::FeatureLevel;
use crate::wire::client_master::{ClassPlan, ClassStatus};
use std::collections::{BTreeMap, BTreeSet};

/// For so long after its start servers find a master, which they look for once in 5 s at
/// least after 3 s of silence.
const YOUNG: Duration = Duration::from_secs(10);
/// Those that it lost come so soon one after the other.
const REGISTRATIONS_SPREAD: Duration = Duration::from_secs(1);
/// The pause between two lines in the log about the same class.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// Chunks that a plan looks at, so that the leader is back soon.
const PLAN_LOOKS_MAX: usize = 1 << 20;

/// What a master keeps about classes.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    /// Servers whose labels are on their way into the log.
    logging: BTreeSet<ServerId>,
    /// A class changed: chunks from here on are to be looked at.
    assess_from: Option<ChunkId>,
    /// Where the look for files to be archived goes on, and whether some are on their way
    /// into the log.
    archive_from: ChunkId,
    archiving: bool,
    /// When it was last told that a class can't be met.
    told: BTreeMap<ClassId, Instant>,
}

impl Classes {
    /// A record about a server's labels was applied, or dropped.
    pub(super) fn logged(&mut self, server: ServerId) {
        self.logging.remove(&server);
    }

    /// A record about files to be archived was applied, or dropped.
    pub(super) fn archived(&mut self) {
        self.archiving = false;
    }

    /// A reign ends.
    pub(super) fn end(&mut self) {
        self.archiving = false;
        self.logging.clear();
        self.told.clear();
    }
}

/// How copies stand to a policy.
pub(super) struct Standing {
    /// Copies that lie where none is permitted.
    pub(super) outside: usize,
    /// Copies on servers that are drained, where one may lie otherwise.
    pub(super) draining: usize,
    /// Slots of the policy that those inside fill, drained or not.
    pub(super) filled: usize,
    /// Slots that are filled without those that are drained.
    pub(super) staying: usize,
    /// A soft term does not hold.
    pub(super) misplaced: bool,
}

/// The labels of some servers.
pub(super) fn labels_of<'a>(servers: &[Candidate<'a>]) -> Vec<&'a Labels> {
    servers.iter().map(|one| one.labels).collect()
}

/// Labels.
impl Master {
    /// A server's labels as they hold now.
    pub(super) fn relabel(&mut self, server: ServerId) {
        let known = self.member.state().server_labels(server);
        let now = self.now.wall;
        if let Some(one) = self.servers.table.get_mut(&server) {
            let none = Labels::new();
            let logged = known.map_or(&none, |known| &known.configured);
            one.logged = *logged == one.configured;
            one.labels = match known {
                Some(known) => known.over(&one.configured),
                None => one.configured.clone(),
            };
            one.labels.retain(|(key, _)| !is_reserved(key));
            one.duty = known.map_or_else(Duty::default, |known| Duty::read(&known.set, now));
        }
    }

    pub(super) fn relabel_all(&mut self) {
        let servers: Vec<ServerId> = self.servers.table.keys().copied().collect();
        for server in servers {
            self.relabel(server);
        }
    }

    pub(super) fn on_labels_changed(&mut self, server: ServerId) {
        self.relabel(server);
        self.touch_all_of(server);
        self.recheck = true;
    }

    /// Once labels matter, the log learns how each server is configured.
    pub(super) fn log_labels(&mut self) {
        if self.reign.is_none() || !self.member.state().has_classes() {
            return;
        }
        let servers = self.servers.table.iter();
        let unknown = servers.filter(|(server, one)| {
            one.is_alive() && !one.logged && !self.classes.logging.contains(server)
        });
        let unknown: Vec<(ServerId, Labels)> = unknown
            .map(|(server, one)| (*server, one.configured.clone()))
            .collect();
        for (server, labels) in unknown {
            self.classes.logging.insert(server);
            let body = RecordBody::ServerLabels { server, labels };
            self.propose(Proposal::Labels(server), body);
        }
    }
}

/// Health.
impl Master {
    /// A class is another one: every chunk of an operator's class is looked at anew,
    /// some at a time.
    pub(super) fn on_class_changed(&mut self) {
        self.classes.assess_from = Some(ChunkId(0));
        self.recheck = true;
        self.log_labels();
    }

    pub(super) fn is_assessing(&self) -> bool {
        self.classes.assess_from.is_some()
    }

    /// Some more of the chunks that are to be looked at.
    pub(super) fn assess_more(&mut self) {
        let Some(from) = self.classes.assess_from else {
            return;
        };
        let state = self.member.state();
        let some = state.chunks_from(from, REPORT_BATCH);
        self.classes.assess_from = some.last().map(|last| last.next());
        for chunk in some {
            let class = state.chunk(chunk).map(|one| one.class);
            if class.is_some_and(|class| class.built_in().is_none()) {
                self.servers.touch(chunk);
            }
        }
        if self.is_assessing() {
            self.upkeep_due = self.now.mono;
        }
    }

    /// How the copies on these servers stand to a policy of a class.
    pub(super) fn standing(
        &self,
        class: &StorageClass,
        policy: &Policy,
        chunk: ChunkId,
        counting: &[ServerId],
    ) -> Standing {
        let drained = |server: &&ServerId| self.servers.drains(**server, chunk);
        let drains = counting.iter().any(|server| drained(&server));
        if policy.is_plain() && !class.has_law() && !drains {
            let filled = counting.len().min(usize::from(policy.copies));
            return Standing {
                outside: 0,
                draining: 0,
                filled,
                staying: filled,
                misplaced: false,
            };
        }
        let inside = self.servers.inside(policy, chunk, counting.iter().copied());
        let fill = placement::fill(policy, &labels_of(&inside));
        let soft = policy.terms.iter().filter(|term| term.force == Force::Soft);
        let soft: u8 = soft.map(|term| term.count).sum();
        let staying = usize::from(fill.filled);
        let (draining, filled) = match drains {
            false => (0, staying),
            true => {
                let all = self.servers.permitted(policy, counting.iter().copied());
                let filled = placement::fill(policy, &labels_of(&all)).filled;
                (all.len() - inside.len(), usize::from(filled))
            }
        };
        Standing {
            outside: counting.len() - inside.len() - draining,
            draining,
            filled,
            staying,
            misplaced: fill.soft < soft,
        }
    }
}

/// Archives.
impl Master {
    /// Looks at some more chunks for files that have been left alone for long enough.
    pub(super) fn look_for_archives(&mut self) {
        let state = self.member.state();
        let wanted = state.classes().any(|(_, _, class)| class.archive.is_some());
        if self.classes.archiving || !wanted {
            return;
        }
        let some = state.chunks_from(self.classes.archive_from, REPORT_BATCH);
        self.classes.archive_from = some.last().map_or(ChunkId(0), |last| last.next());
        let files = some
            .iter()
            .filter_map(|chunk| Some(state.chunk(*chunk)?.inode));
        let files: BTreeSet<InodeId> = files.collect();
        let now = self.now.wall;
        let due = files
            .into_iter()
            .filter(|file| state.is_archive_due(*file, now));
        let inodes: Vec<InodeId> = due.collect();
        if !inodes.is_empty() {
            self.classes.archiving = true;
            self.propose(Proposal::Archived, RecordBody::Archived { inodes });
        }
    }
}

/// How copies that are written stand: made by one policy of their class or kept by the
/// other, they only have to be where one of them permits.
impl Master {
    pub(super) fn writing(
        &self,
        class: &StorageClass,
        chunk: ChunkId,
        counting: &[ServerId],
    ) -> Standing {
        let labels = counting
            .iter()
            .filter_map(|server| self.servers.get(*server));
        let inside = labels.filter(|one| class.permits(&one.labels)).count();
        let drained = counting
            .iter()
            .filter(|server| self.servers.drains(**server, chunk));
        Standing {
            outside: counting.len() - inside,
            draining: drained.count(),
            filled: inside,
            staying: inside,
            misplaced: false,
        }
    }
}

/// What can't be met.
impl Master {
    /// Whether a class lets a copy lie on a server.
    pub(super) fn is_permitted(&self, class: ClassId, server: ServerId) -> bool {
        let class = self.member.state().class(class);
        let known = self.servers.get(server);
        !class.has_law() || known.is_some_and(|one| one.logged && class.permits(&one.labels))
    }

    /// Whether the law of an object's class can't be met by these copies for a new
    /// chunk, and servers that could change that may still come. What has waited long
    /// enough is told why, in the log.
    pub(super) fn awaits_servers(
        &mut self,
        class: Option<ClassId>,
        copies: &[(ServerId, BootId)],
        since: Instant,
    ) -> bool {
        let state = self.member.state();
        let Some(class) = class else {
            return false;
        };
        if state.keeps_law(class, copies) {
            return false;
        }
        let waits = !self.knows_servers() || self.now.mono.since(since) < REPAIR_HOLD_MAX;
        if !waits {
            self.tell_unmet(class);
        }
        waits
    }

    /// Whether these are fewer copies than a class wants, and servers are
    /// just registering with this process, which began lately: those that lost one master
    /// come one soon after the other. What is written to fewer copies than could be had is
    /// lost with fewer servers.
    pub(super) fn awaits_registrations(
        &self,
        class: Option<ClassId>,
        copies: &[(ServerId, BootId)],
    ) -> bool {
        let now = self.now.mono;
        let is_young = now.since(self.started) < YOUNG;
        if !is_young || now.since(self.registered_at) >= REGISTRATIONS_SPREAD {
            return false;
        }
        let state = self.member.state();
        class.is_some_and(|class| copies.len() < usize::from(state.class(class).making().copies))
    }

    /// Whether it is too early to say that there is no room for a new chunk. Servers that
    /// are away, those whose every disk has failed, and those that are drained say nothing
    /// of that: somebody who works has to be full, and those who had room, or may have, have
    /// to be given time to come back.
    pub(super) fn awaits_room(&self, since: Instant) -> bool {
        let is_early = !self.knows_servers() || self.now.mono.since(since) < REPAIR_HOLD_MAX;
        let is_to_come = !self.servers.any_takes_new() || self.servers.is_room_away();
        !self.servers.any_works() || (is_early && is_to_come)
    }

    /// Whether no server that is there may have a copy of a chunk.
    pub(super) fn lacks_place(&mut self, chunk: ChunkId) -> bool {
        let state = self.member.state();
        let Some(one) = state
            .chunk(chunk)
            .filter(|one| state.class(one.class).has_law())
        else {
            return false;
        };
        let known = self.knows_servers();
        let mut servers = self.servers.table.iter().filter(|(_, one)| one.is_alive());
        let lacks = known && !servers.any(|(server, _)| self.is_permitted(one.class, *server));
        if lacks {
            self.tell_unmet(one.class);
        }
        lacks
    }

    fn tell_unmet(&mut self, class: ClassId) {
        let now = self.now.mono;
        let last = self.classes.told.get(&class);
        if last.is_some_and(|last| now.since(*last) < TOLD_AGAIN) {
            return;
        }
        self.classes.told.insert(class, now);
        let state = self.member.state();
        let why = self.unmet(state.class(class).making()).join("; ");
        let name = state.class_name(class);
        self.log(
            Level::Warn,
            format!("storage class {name} can't be met, new data of it is refused: {why}"),
        );
    }

    fn unmet(&self, policy: &Policy) -> Vec<String> {
        let candidates = self.servers.candidates(policy, &BTreeSet::new());
        let with_room: Vec<Candidate<'_>> =
            candidates.into_iter().filter(|one| one.free > 0).collect();
        unmet(policy, &labels_of(&with_room))
    }

    pub(super) fn class_statuses(&self) -> Vec<ClassStatus> {
        let state = self.member.state();
        let status = |(id, name, class): (ClassId, &str, &StorageClass)| ClassStatus {
            name: name.to_owned(),
            class: class.clone(),
            users: state.class_users(id),
            unmet: self.unmet_of(class),
        };
        state.classes().map(status).collect()
    }
}

/// What a change would do.
impl Master {
    /// What would move if a class became this.
    ///
    /// # Errors
    /// ENOENT when there is none of the name; EINVAL for a class that makes no sense;
    /// EOPNOTSUPP when the cluster's feature level has no classes.
    pub(super) fn plan(&self, name: &str, class: &StorageClass) -> Result<ClassPlan, Errno> {
        let state = self.member.state();
        state.demand_level(FeatureLevel::CLASSES)?;
        if !class.is_sound() {
            return Err(Errno::EINVAL);
        }
        let mut plan = ClassPlan {
            unmet: self.unmet_of(class),
            ..ClassPlan::default()
        };
        let Some(id) = state.find_class(name) else {
            return Err(Errno::ENOENT);
        };
        let looked = state.chunks_from(ChunkId(0), PLAN_LOOKS_MAX);
        plan.more = looked.len() == PLAN_LOOKS_MAX;
        for chunk in looked {
            if let Some(one) = state.chunk(chunk).filter(|one| one.class == id) {
                self.plan_chunk(&mut plan, class, chunk, &one);
            }
        }
        Ok(plan)
    }

    fn plan_chunk(&self, plan: &mut ClassPlan, class: &StorageClass, id: ChunkId, chunk: &Chunk) {
        let policy = class.resting(chunk.archived);
        let counting = self.counting(id, chunk);
        let standing = self.standing(class, policy, id, &counting);
        let shape = chunk.stripe.map(|stripe| stripe.shape);
        // Of another form everything is made anew.
        let has = match shape == policy.stripe {
            true => standing.filled,
            false => 0,
        };
        let missing = usize::from(policy.copies).saturating_sub(has);
        let extent = self.member.state().chunk_at(chunk.inode, chunk.index);
        let valid = extent.ok().flatten().map_or(0, |(_, valid)| valid);
        let data = policy.stripe.map_or(1, |shape| shape.data() as u64);
        plan.chunks += 1;
        plan.moving += u64::from(missing > 0);
        plan.copies += missing as u64;
        plan.bytes += missing as u64 * u64::from(valid) / data;
        plan.outside += u64::from(standing.outside > 0);
    }

    /// What of a class the servers that are there can't meet.
    fn unmet_of(&self, class: &StorageClass) -> Vec<String> {
        let mut lacking = self.unmet(&class.keep);
        let archive = class.archive.iter().map(|archive| &archive.policy);
        let others = class.create.iter().chain(archive);
        for told in others.flat_map(|policy| self.unmet(policy)) {
            if !lacking.contains(&told) {
                lacking.push(told);
            }
        }
        lacking
    }
}
