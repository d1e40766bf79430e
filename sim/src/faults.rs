//! The script of faults: who is hit when a fault strikes, what happens, and how it
//! ends. Keeps the fault atlas: what a fault destroys for good has another good
//! copy, and the masters keep a majority, so that every failure of a run is a bug.

use crate::check::copies::is_part;
use crate::check::leases::Seen;
use crate::disk::{Failing, SimDisk, is_content};
use crate::exchange::Swap;
use crate::network::{Nanos, NodeIndex};
use crate::node::{self, Node, Power};
use crate::plan::{FaultPlan, Plan, When};
use crate::process::{Process, Stimulus};
use crate::scenario::{Action, Trigger, Who};
use crate::world::{Event, Phase, World, leading_state};
use antler_core::ids::{LogPosition, PartId, ServerId};
use antler_core::machine::Role;
use antler_core::namespace::{LeaseState, State};
use antler_core::version::FeatureLevel;
use std::collections::{BTreeMap, BTreeSet};

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;
/// How long what can be undone lasts when the scenario does not say.
pub(crate) const LASTS: Nanos = SECOND;
/// How long a fault that would go beyond the atlas waits for repair, and how often
/// it looks.
const PATIENCE: u64 = 200;
const RETRY: Nanos = 100 * MILLISECOND;

/// What the faults of a run are up to.
pub(crate) struct Script {
    faults: Vec<FaultPlan>,
    states: Vec<FaultState>,
    /// How long a node that was asked to stop stays away, by node.
    stops: Vec<(usize, Nanos)>,
    /// Whether any fault waits for the effects of nodes.
    pub(crate) watches_effects: bool,
    /// How often each fault had to wait, by its number: what would go beyond the atlas.
    waits: BTreeMap<usize, u64>,
    /// Disks that a fault hit and that are to be replaced, by its number: the node, and
    /// which of its disks.
    pub(crate) replaced: BTreeMap<usize, Vec<(usize, usize)>>,
}

/// What became of the faults of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waits {
    /// Faults that had to wait until they destroyed nothing for good.
    pub waited: u64,
    /// How long the longest of them waited.
    pub longest: Nanos,
    /// Faults that waited in vain, and did not strike.
    pub dropped: u64,
}

#[derive(Clone, Debug, Default)]
struct FaultState {
    struck: bool,
    seen: u64,
    tries: u64,
    cause: Option<usize>,
    cut: Vec<(NodeIndex, NodeIndex)>,
    disks: Vec<SimDisk>,
    /// Images to be restored: the node, which of its disks, and its content.
    images: Vec<(usize, usize, SimDisk)>,
    /// Disks that changed places.
    swap: Option<Swap>,
    /// Disks whose configuration was changed: the node, and which of its disks.
    reloaded: Vec<(usize, usize)>,
}

impl Script {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            faults: plan.faults.clone(),
            states: vec![FaultState::default(); plan.faults.len()],
            stops: Vec::new(),
            watches_effects: plan.faults.iter().any(|fault| {
                matches!(
                    fault.when,
                    When::On {
                        trigger: Trigger::Effect,
                        ..
                    }
                )
            }),
            waits: BTreeMap::new(),
            replaced: BTreeMap::new(),
        }
    }

    /// What became of the faults so far.
    pub(crate) fn waits(&self) -> Waits {
        let struck = self.waits.values().filter(|tries| **tries < PATIENCE);
        let (waited, tries) = struck.fold((0, 0), |(count, most), tries| {
            (count + 1, u64::max(most, *tries))
        });
        Waits {
            waited,
            longest: tries * RETRY,
            dropped: self.waits.len() as u64 - waited,
        }
    }

    pub(crate) fn fault(&self, number: usize) -> &FaultPlan {
        &self.faults[number]
    }

    /// A node has a moment that faults wait for, as `waits` tells, with how many of
    /// them to let pass. Those whose moment it is.
    pub(crate) fn note(
        &mut self,
        node: usize,
        waits: impl Fn(Who, When) -> Option<u64>,
    ) -> Vec<usize> {
        let mut due = Vec::new();
        for (number, (fault, state)) in self.faults.iter().zip(&mut self.states).enumerate() {
            let Some(skip) = waits(fault.who, fault.when).filter(|_| !state.struck) else {
                continue;
            };
            state.seen += 1;
            if state.seen > skip {
                state.struck = true;
                state.cause = Some(node);
                due.push(number);
            }
        }
        due
    }

    /// Disks changed places until a fault ends.
    pub(crate) fn keep_swap(&mut self, number: usize, swap: Swap) {
        self.states[number].swap = Some(swap);
    }

    /// A disk's configuration is changed until a fault ends.
    pub(crate) fn note_reload(&mut self, number: usize, place: (usize, usize)) {
        self.states[number].reloaded.push(place);
    }

    /// How long a node that stopped as asked stays away.
    pub(crate) fn stopped_for(&self, index: usize) -> Nanos {
        let found = self.stops.iter().rev().find(|(node, _)| *node == index);
        found.map_or(LASTS, |(_, lasts)| *lasts)
    }
}

impl World {
    /// The mounts work: faults that wait for a time get theirs.
    pub(crate) fn schedule_faults(&mut self) {
        for number in 0..self.script.faults.len() {
            if let When::At(at) = self.script.faults[number].when {
                self.schedule(self.begun + at, Event::Fault(number));
            }
        }
    }

    /// Something was seen that faults may wait for.
    pub(crate) fn on_seen(&mut self, seen: Seen, cause: usize, peer: Option<usize>) {
        self.on_foreseen(self.now, seen, cause, peer);
    }

    /// Something is seen that will be so at a time not before now.
    pub(crate) fn on_foreseen(
        &mut self,
        when: Nanos,
        seen: Seen,
        cause: usize,
        peer: Option<usize>,
    ) {
        if !matches!(self.phase, Phase::Working { .. }) {
            return;
        }
        let Some(trigger) = trigger_of(seen) else {
            return;
        };
        let cause = match trigger {
            Trigger::RepairBegun => peer,
            _ => Some(cause),
        };
        for number in 0..self.script.faults.len() {
            let When::On { trigger: on, skip } = self.script.faults[number].when else {
                continue;
            };
            let state = &mut self.script.states[number];
            if on != trigger || state.struck {
                continue;
            }
            state.seen += 1;
            if state.seen > skip {
                state.struck = true;
                state.cause = cause;
                self.schedule(when, Event::Fault(number));
            }
        }
    }

    /// A fault strikes, unless everything has healed already.
    pub(crate) fn strike(&mut self, number: usize) {
        if !matches!(self.phase, Phase::Working { .. }) {
            return;
        }
        let fault = self.script.faults[number];
        let cause = self.script.states[number].cause;
        let who = match fault.when {
            When::On {
                trigger: Trigger::Starting | Trigger::Effect,
                ..
            } => Who::Cause,
            _ => fault.who,
        };
        let targets = self.targets(who, fault.pick, cause);
        self.trace
            .line(self.now, "fault", || format!("{fault} hits {targets:?}"));
        self.show_fault(number, &fault, &targets);
        match fault.action {
            Action::Kill => self.crash(&fault, &targets, false),
            Action::PowerCut => self.crash(&fault, &targets, true),
            Action::Stop => self.stop(&fault, &targets),
            Action::Pause => self.pause(&fault, &targets),
            Action::Cut | Action::Clog | Action::Strand => self.separate(number, &fault, &targets),
            Action::Recover => self.recover(number, &fault),
            Action::LoseDatacentre => self.lose_datacentre(number, &fault),
            Action::ReturnOldMasters => self.return_old_masters(),
            Action::RestoreDisk => self.take_image(number, &fault, &targets),
            Action::SwapDisks => self.swap_disks(number, &fault, &targets),
            Action::DrainDisk | Action::LimitDisk | Action::AddDisk | Action::RemoveDisk => {
                self.reload(number, &fault, &targets);
            }
            Action::JumpClock => self.jump_clocks(&fault, &targets),
            Action::DriftClock => self.drift_clocks(&fault, &targets),
            Action::Upgrade => self.replace(&fault, &targets, FeatureLevel::NEWEST),
            Action::Downgrade => self.replace(&fault, &targets, FeatureLevel::PREVIOUS),
            _ => self.harm_disks(number, &fault, &targets),
        }
    }

    /// A page shows the fault, once: one that waits strikes again and again.
    fn show_fault(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        let Some(observer) = &mut self.observer else {
            return;
        };
        let names = targets.iter().map(|&index| self.nodes[index].name.clone());
        let names: Vec<String> = names.collect();
        let named = |who| match who {
            Who::Datacentre(number) => {
                let mut inside = self.nodes.iter();
                let one = inside.find(|node| node.place.datacentre == number);
                one.map_or_else(|| who.to_string(), |node| node.place.name.clone())
            }
            _ => who.to_string(),
        };
        let mut what = match names.as_slice() {
            [one] => format!("{} {one}", fault.action),
            _ => format!("{} {}", fault.action, named(fault.who)),
        };
        if let Some(from) = fault.from {
            what.push_str(&format!(" from {}", named(from)));
        }
        let ends = fault.replaced.or_else(|| fault.ends());
        observer.struck(self.now, number, what, (names, ends), fault);
    }

    /// A page and the figures show what a lost disk held.
    fn show_loss(&mut self, number: usize, action: Action, (index, at): (usize, usize)) {
        let node = &self.nodes[index];
        if let (Some(observer), Action::LoseDisk) = (&mut self.observer, action) {
            let held = node.parts_on(at).map(|stored| stored.part.chunk);
            observer.lost(number, held.collect());
        }
    }

    /// Which nodes are hit, those that are gone for good left out.
    fn targets(&self, who: Who, pick: u64, cause: Option<usize>) -> Vec<usize> {
        let chosen = |test: &dyn Fn(&Node) -> bool| -> Vec<usize> {
            let found = self
                .nodes
                .iter()
                .filter(|node| node.power != Power::Lost && test(node));
            found.map(|node| node.index.0).collect()
        };
        match who {
            Who::Any(role) => {
                let all = chosen(&|node| node.role == role);
                let at = pick as usize % all.len().max(1);
                all.into_iter().nth(at).into_iter().collect()
            }
            Who::Numbered(role, number) => {
                let all = chosen(&|node| node.role == role);
                all.into_iter()
                    .nth(number as usize - 1)
                    .into_iter()
                    .collect()
            }
            Who::All(role) => chosen(&|node| node.role == role),
            Who::Leader => chosen(&|node| node.leads()),
            Who::Cause => cause
                .filter(|&index| index < self.nodes.len())
                .into_iter()
                .collect(),
            Who::Datacentre(number) => chosen(&|node| node.place.datacentre == number),
            Who::Rack(number) => {
                let stands = |node: &Node| node.place.rack.as_ref().map(|(rack, _)| *rack);
                chosen(&|node| stands(node) == Some(number))
            }
            Who::Servers => chosen(&|node| node.role != Role::Client),
            Who::Everything => chosen(&|_| true),
        }
    }

    fn crash(&mut self, fault: &FaultPlan, targets: &[usize], power_lost: bool) {
        for &index in targets {
            if !matches!(self.nodes[index].power, Power::Up | Power::Starting) {
                continue;
            }
            let power = if power_lost { Power::Off } else { Power::Idle };
            self.end_process(index, power_lost, power);
            let lasts = fault.lasts.unwrap_or(LASTS);
            self.schedule(self.now + lasts, Event::Restart(index));
        }
    }

    fn stop(&mut self, fault: &FaultPlan, targets: &[usize]) {
        for &index in targets {
            self.script
                .stops
                .push((index, fault.lasts.unwrap_or(LASTS)));
            if self.nodes[index].role != Role::Client {
                self.feed(index, Stimulus::Shutdown);
            }
        }
    }

    /// The targets stop, and start again as another version. One that is down starts so.
    fn replace(&mut self, fault: &FaultPlan, targets: &[usize], version: FeatureLevel) {
        for &index in targets {
            self.nodes[index].becomes = Some(version);
            match self.nodes[index].role {
                Role::Client => self.crash(fault, &[index], false),
                _ => self.stop(fault, &[index]),
            }
        }
    }

    /// An operator puts the newest version back where an older one is of no use, as the
    /// cluster's feature level is above it.
    fn replace_outdated(&mut self) {
        let members = self.nodes.iter().filter_map(|node| match &node.process {
            Some(Process::Member(process)) => Some(process.machine.member().state()),
            _ => None,
        });
        let level = members.map(State::feature_level).max().unwrap_or_default();
        let outdated = |node: &&Node| {
            let version = node.becomes.unwrap_or(node.version);
            version < level && !matches!(node.role, Role::Client)
        };
        let outdated = self.nodes.iter().filter(outdated);
        let outdated: Vec<usize> = outdated.map(|node| node.index.0).collect();
        for index in outdated {
            self.nodes[index].becomes = Some(FeatureLevel::NEWEST);
            if matches!(self.nodes[index].power, Power::Up | Power::Starting) {
                self.end_process(index, false, Power::Idle);
            }
        }
    }

    fn pause(&mut self, fault: &FaultPlan, targets: &[usize]) {
        let until = self.now + fault.lasts.unwrap_or(LASTS);
        for &index in targets {
            let node = &mut self.nodes[index];
            node.paused_until = node.paused_until.max(until);
            self.schedule(until, Event::Resume(index));
        }
    }

    /// Cuts or clogs the targets off from others, or strands what they have on its way,
    /// in one direction or both.
    fn separate(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        let others = match fault.from {
            Some(from) => self.targets(from, fault.pick >> 8, None),
            None => (0..self.nodes.len()).collect(),
        };
        let until = self.now + fault.lasts.unwrap_or(LASTS);
        for &target in targets {
            for &other in others.iter().filter(|other| !targets.contains(other)) {
                let (a, b) = (NodeIndex(target), NodeIndex(other));
                let pairs = if fault.one_way {
                    vec![(a, b)]
                } else {
                    vec![(a, b), (b, a)]
                };
                for (from, to) in pairs {
                    match fault.action {
                        Action::Clog => self.network.clog(from, to, until),
                        Action::Strand => self.network.strand(self.now, from, to, until - self.now),
                        _ => {
                            self.network.cut(from, to);
                            self.script.states[number].cut.push((from, to));
                        }
                    }
                }
            }
        }
        self.take_network();
        if let Some(lasts) = fault.lasts {
            self.schedule(self.now + lasts, Event::FaultEnd(number));
        }
    }

    /// All masters are lost, and a metalogger's folder becomes a new master's. It waits
    /// until the metalogger has everything that was acknowledged, so that nothing of it
    /// may be missing afterwards.
    fn recover(&mut self, number: usize, fault: &FaultPlan) {
        match self.heir(|_| true) {
            Some(heir) => self.hand_down(heir, fault),
            None => self.retry(number),
        }
    }

    /// A metalogger that has everything that was acknowledged.
    pub(crate) fn heir(&self, may: impl Fn(&Node) -> bool) -> Option<usize> {
        let known = self.judges.members.last_applied();
        let heir = self.nodes.iter().find(|node| {
            let is_up = node.role == Role::Metalogger && node.power == Power::Up;
            is_up && node.has_logged(known) && may(node)
        });
        heir.map(|node| node.index.0)
    }

    /// The masters that there were are gone, and the heir takes their place.
    pub(crate) fn hand_down(&mut self, heir: usize, fault: &FaultPlan) {
        for index in 0..self.nodes.len() {
            match self.nodes[index].role {
                Role::ChunkServer if self.nodes[index].power == Power::Lost => {}
                Role::Master => {
                    self.end_process(index, true, Power::Lost);
                    self.nodes[index].retired = true;
                }
                _ => self.end_process(index, index != heir, Power::Idle),
            }
        }
        match self.nodes[heir].take_over(self.now) {
            Ok(last) => self.begin_new_life(heir, last, fault),
            Err(how) => {
                self.judges.judge::<()>("a metalogger takes over", Err(how));
            }
        }
    }

    /// Every daemon gets the new configuration and starts again. Chunkservers still
    /// have the old masters in theirs.
    fn begin_new_life(&mut self, heir: usize, last: LogPosition, fault: &FaultPlan) {
        self.judges.members.take_over(last);
        self.judges.names.take_over();
        let member = self.nodes[heir].member_info();
        let new = vec![self.nodes[heir].address.clone()];
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            if node.retired {
                continue;
            }
            node.directory.members = vec![member.clone()];
            match node.role {
                Role::ChunkServer => node.directory.masters.extend(new.clone()),
                _ => node.directory.masters.clone_from(&new),
            }
            if node.role == Role::Metalogger {
                // Another metalogger of the old life: it is founded anew by hand.
                node.retired = true;
                node.power = Power::Lost;
                continue;
            }
            let pause = if index == heir {
                0
            } else {
                fault.lasts.unwrap_or(LASTS)
            };
            self.schedule(self.now + pause, Event::Restart(index));
        }
        self.disks = node::all_disks(&self.nodes);
    }

    /// The masters that were lost come back with their old folders.
    fn return_old_masters(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let is_there = node.disks.iter().all(|disk| !disk.faults().vanished);
            if node.retired && node.power == Power::Lost && node.role == Role::Master && is_there {
                node.power = Power::Idle;
                self.schedule(self.now, Event::Restart(index));
            }
        }
    }

    fn harm_disks(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        // What is written while it lasts has no other copy either.
        if fault.action.is_silent() && self.plan.cluster.copies < 2 {
            return;
        }
        for &index in targets {
            let count = self.nodes[index].disks.len();
            if count == 0 {
                continue;
            }
            let is_strange = self.nodes[index].strange.is_some();
            if is_strange || fault.action.destroys() && !self.can_lose(index, fault) {
                self.retry(number);
                return;
            }
            let at = fault.pick as usize % count;
            let disk = self.nodes[index].disks[at].clone();
            let was_there = !disk.faults().vanished;
            self.show_loss(number, fault.action, (index, at));
            let is_stored = self.nodes[index].role == Role::ChunkServer;
            if !self.harm(fault, &disk, is_stored) {
                return self.retry(number);
            }
            if is_stored && was_there && matches!(fault.action, Action::LoseDisk) {
                self.judges.bytes.lose_disk();
            }
            self.script.states[number].disks.push(disk);
            if let Some(replaced) = fault.replaced {
                let replacing = self.script.replaced.entry(number).or_default();
                replacing.push((index, at));
                self.schedule(self.now + replaced, Event::Replace(number));
            }
        }
        if let Some(lasts) = fault.lasts {
            self.schedule(self.now + lasts, Event::FaultEnd(number));
        }
    }

    /// Takes an image of a chunkserver's disk that will be restored when the fault ends.
    /// It waits until no chunk on the disk is being written: of one that is, the image
    /// would hold less than its version promises, and nobody could tell.
    fn take_image(&mut self, number: usize, fault: &FaultPlan, targets: &[usize]) {
        for &index in targets {
            let count = self.nodes[index].disks.len();
            if self.nodes[index].role != Role::ChunkServer || count == 0 {
                continue;
            }
            if !self.is_at_rest(index) {
                return self.retry(number);
            }
            let at = fault.pick as usize % count;
            let image = self.nodes[index].disks[at].durable_copy(self.now);
            self.script.states[number].images.push((index, at, image));
        }
        let lasts = fault.lasts.unwrap_or(LASTS);
        self.schedule(self.now + lasts, Event::FaultEnd(number));
    }

    /// Whether every part that a chunkserver holds is settled.
    fn is_at_rest(&self, index: usize) -> bool {
        let Some(state) = leading_state(&self.nodes) else {
            return false;
        };
        let settled = |part: PartId| {
            let chunk = state.chunk(part.chunk);
            chunk.is_none_or(|chunk| chunk.lease == LeaseState::Settled)
        };
        let node = &self.nodes[index];
        node.power == Power::Up && node.stored_parts().all(|stored| settled(stored.part))
    }

    /// The images that were taken take the place of the disks: their servers lose power,
    /// and come back with what they held. What they held since must be elsewhere too.
    fn restore_images(&mut self, number: usize, images: Vec<(usize, usize, SimDisk)>) {
        if !matches!(self.phase, Phase::Working { .. }) {
            return;
        }
        let fault = self.script.faults[number];
        let may_lose = |(index, ..): &(usize, usize, SimDisk)| {
            self.nodes[*index].strange.is_none() && self.can_lose(*index, &fault)
        };
        if !images.iter().all(may_lose) {
            let state = &mut self.script.states[number];
            state.tries += 1;
            if state.tries < PATIENCE {
                state.images = images;
                self.schedule(self.now + RETRY, Event::FaultEnd(number));
            }
            return;
        }
        for (index, at, image) in images {
            self.end_process(index, true, Power::Off);
            self.nodes[index].disks[at].restore(&image);
            // It went back in time, which nobody can read on.
            let own = self.disks.servers.iter().filter(|disk| disk.node == index);
            self.judges.reader.recover_again(own);
            self.schedule(self.now + LASTS, Event::Restart(index));
        }
    }

    fn jump_clocks(&mut self, fault: &FaultPlan, targets: &[usize]) {
        let by = i64::try_from(fault.by).unwrap_or(i64::MAX);
        let by = if fault.pick & 1 == 0 { by } else { -by };
        for &index in targets {
            self.nodes[index].jump_clock(by);
        }
    }

    fn drift_clocks(&mut self, fault: &FaultPlan, targets: &[usize]) {
        let speeds = node::RATE_MAX - node::RATE_MIN + 1;
        for (at, &index) in targets.iter().enumerate() {
            let drawn = fault.pick.rotate_left(at as u32 * 7) % speeds;
            self.nodes[index].set_clock_rate(self.now, node::RATE_MIN + drawn);
            self.wake_anew(index);
        }
    }

    /// What would go beyond the atlas waits until repair has made it harmless.
    pub(crate) fn retry(&mut self, number: usize) {
        *self.script.waits.entry(number).or_default() += 1;
        let state = &mut self.script.states[number];
        state.tries += 1;
        if state.tries < PATIENCE {
            self.schedule(self.now + RETRY, Event::Fault(number));
        }
    }

    /// Harms a disk; false if there is nothing on it yet that could be.
    fn harm(&mut self, fault: &FaultPlan, disk: &SimDisk, is_stored: bool) -> bool {
        let failing = if fault.once {
            Failing::Once
        } else {
            Failing::Always
        };
        match fault.action {
            Action::LoseDisk => disk.set_faults(|faults| faults.vanished = true),
            Action::VanishDisk => disk.pull(self.now),
            Action::HangDisk => disk.hang(self.now + fault.lasts.unwrap_or(LASTS)),
            Action::FailReads => disk.set_faults(|faults| faults.read = failing),
            Action::FailWrites => disk.set_faults(|faults| faults.write = failing),
            Action::FailSyncs => disk.set_faults(|faults| faults.sync = failing),
            Action::FillDisk => disk.set_faults(|faults| faults.full = true),
            Action::SlowDisk => disk.set_faults(|faults| faults.slow = fault.factor.max(1)),
            Action::LyingSyncs => disk.set_faults(|faults| faults.lies = Failing::Always),
            Action::MisdirectWrites => disk.set_faults(|faults| faults.misdirects = failing),
            Action::FailRange => {
                let any = !is_stored || fault.pick >> 32 & 3 == 0 && self.plan.cluster.copies > 2;
                let spoiled = disk.spoil(self.now, |name| any || is_looked_at(name));
                self.trace
                    .line(self.now, "fault", || format!("spoiled: {spoiled:?}"));
                return spoiled.is_some();
            }
            Action::Rot => {
                let rotted = disk.rot(self.now, is_content);
                self.trace
                    .line(self.now, "fault", || format!("rotted: {rotted:?}"));
            }
            _ => unreachable!("the other faults do not concern disks"),
        }
        true
    }

    /// Whether everything on a node would survive the loss of its disks: a majority
    /// of the masters keeps theirs, every chunk has another copy that counts.
    pub(crate) fn can_lose(&self, index: usize, fault: &FaultPlan) -> bool {
        let node = &self.nodes[index];
        let harmed =
            |node: &Node| node.power == Power::Lost || node.disks.iter().any(node::is_doomed);
        match node.role {
            Role::Master => {
                let masters: Vec<&Node> = self
                    .nodes
                    .iter()
                    .filter(|node| node.role == Role::Master)
                    .collect();
                let lost = masters
                    .iter()
                    .filter(|m| m.index.0 == index || harmed(m))
                    .count();
                lost * 2 < masters.len()
            }
            Role::ChunkServer => {
                let others_rot = matches!(fault.action, Action::Rot | Action::MisdirectWrites)
                    && self.nodes.iter().any(|other| {
                        other.role == Role::ChunkServer && other.index.0 != index && harmed(other)
                    });
                let own = [ServerId(node.id)];
                !others_rot && self.copies_elsewhere(&own, fault.is_hasty())
            }
            Role::Metalogger | Role::Client => true,
        }
    }

    /// Whether every chunk has a copy that counts on none of these servers.
    pub(crate) fn copies_elsewhere(&self, servers: &[ServerId], hasty: bool) -> bool {
        let Some(state) = leading_state(&self.nodes) else {
            return false;
        };
        // What is written from now on needs a server too.
        let mut others = self.nodes.iter();
        others.any(|node| is_healthy_other(node, servers))
            && state
                .chunks_from(antler_core::ids::ChunkId(0), usize::MAX)
                .into_iter()
                .all(|chunk| self.has_other_copy(state, chunk, (servers, hasty)))
    }

    /// Whether a chunk has a current copy on another healthy server that is up; to be
    /// hasty, a settled one may be where it can only be read any more.
    fn has_other_copy(
        &self,
        state: &State,
        id: antler_core::ids::ChunkId,
        (servers, hasty): (&[ServerId], bool),
    ) -> bool {
        let Some(chunk) = state.chunk(id) else {
            return true;
        };
        let mut others = self
            .nodes
            .iter()
            .filter(|node| is_healthy_other(node, servers));
        let holds = |node: &Node| {
            let mut parts = node.stored_parts();
            parts.any(|one| one.part == PartId::whole(id) && one.version == chunk.version)
        };
        let readable =
            |node: &Node| node.power == Power::Up && node.disks.iter().all(node::is_readable);
        if let Some(stripe) = chunk.stripe {
            let mut parts = BTreeSet::new();
            let apart = others.filter(|_| !hasty);
            let hasty = self.nodes.iter().filter(|node| hasty && readable(node));
            for node in apart.chain(hasty) {
                let own = node.stored_parts().filter(|one| one.part.chunk == id);
                let own = own.filter(|one| is_part(one, stripe, chunk.version));
                parts.extend(own.map(|one| one.part));
            }
            return parts.len() >= stripe.shape.data();
        }
        let mut readable = self.nodes.iter().filter(|node| readable(node));
        match &chunk.lease {
            LeaseState::Settled if hasty => readable.any(holds),
            LeaseState::Settled => others.any(holds),
            lease => others.any(|node| {
                lease
                    .copies()
                    .iter()
                    .any(|(server, boot)| server.0 == node.id && *boot == node.boot)
            }),
        }
    }

    /// A fault with a duration ends.
    pub(crate) fn end_fault(&mut self, number: usize) {
        if let Some(observer) = &mut self.observer {
            observer.ended(self.now, number);
        }
        let fault = self.script.faults[number];
        let state = std::mem::take(&mut self.script.states[number]);
        self.script.states[number].struck = true;
        self.trace
            .line(self.now, "fault", || format!("ends: {fault}"));
        for (from, to) in state.cut {
            self.network.heal(self.now, from, to);
        }
        self.take_network();
        for disk in state.disks {
            mend(self.now, &disk, fault.action);
        }
        if let Some(swap) = state.swap {
            self.swap_back(swap);
        }
        if !state.images.is_empty() {
            self.restore_images(number, state.images);
        }
        for place in state.reloaded {
            self.undo_reload(number, place);
        }
    }

    /// Everything that can heal does, and everything that is down starts.
    pub(crate) fn heal(&mut self) {
        self.trace
            .line(self.now, "world", || "everything heals".to_owned());
        self.network.heal_all(self.now);
        self.take_network();
        for number in 0..self.script.faults.len() {
            let action = self.script.faults[number].action;
            for disk in std::mem::take(&mut self.script.states[number].disks) {
                mend(self.now, &disk, action);
            }
            if let Some(swap) = self.script.states[number].swap.take() {
                self.swap_back(swap);
            }
        }
        self.replace_outdated();
        for index in 0..self.nodes.len() {
            if self.nodes[index].paused_until > self.now {
                self.nodes[index].paused_until = self.now;
                self.schedule(self.now, Event::Resume(index));
            }
            if matches!(self.nodes[index].power, Power::Off | Power::Idle) {
                self.schedule(self.now, Event::Restart(index));
            }
        }
    }
}

impl FaultPlan {
    /// How long it lasts at most, for a page; `None` if for good.
    fn ends(&self) -> Option<Nanos> {
        match self.action {
            Action::Rot | Action::JumpClock | Action::DriftClock | Action::ReturnOldMasters => {
                Some(0)
            }
            Action::LoseDisk | Action::Recover | Action::LoseDatacentre | Action::FailRange => None,
            Action::DrainDisk | Action::LimitDisk | Action::RemoveDisk => self.lasts,
            Action::AddDisk => Some(0),
            _ if self.once => Some(0),
            Action::FillDisk
            | Action::SlowDisk
            | Action::FailReads
            | Action::FailWrites
            | Action::FailSyncs
            | Action::MisdirectWrites => self.lasts,
            _ => Some(self.lasts.unwrap_or(LASTS)),
        }
    }
}

impl Action {
    /// Whether it harms what is written from then on, and nobody is told.
    fn is_silent(self) -> bool {
        matches!(self, Self::MisdirectWrites | Self::LyingSyncs)
    }

    /// Whether it may destroy what is stored.
    fn destroys(self) -> bool {
        matches!(
            self,
            Self::LoseDisk
                | Self::FailReads
                | Self::FailWrites
                | Self::FailSyncs
                | Self::LyingSyncs
                | Self::Rot
                | Self::MisdirectWrites
                | Self::FailRange
                | Self::VanishDisk
                | Self::RestoreDisk
        )
    }
}

impl FaultPlan {
    /// Whether it leaves what can be read as it is, and need not wait for other copies.
    fn is_hasty(&self) -> bool {
        self.hasty && matches!(self.action, Action::FailWrites | Action::FailSyncs)
    }
}

fn mend(now: Nanos, disk: &SimDisk, action: Action) {
    match action {
        Action::HangDisk => disk.hang(0),
        Action::LyingSyncs => disk.destage(now),
        _ => {}
    }
    disk.set_faults(|faults| match action {
        Action::FailReads => faults.read = Failing::Never,
        Action::FailWrites => faults.write = Failing::Never,
        Action::FailSyncs => faults.sync = Failing::Never,
        Action::FillDisk => faults.full = false,
        Action::SlowDisk => faults.slow = 1,
        Action::VanishDisk => faults.vanished = false,
        Action::LyingSyncs => faults.lies = Failing::Never,
        Action::MisdirectWrites => faults.misdirects = Failing::Never,
        _ => {}
    });
}

/// Whether it is another chunkserver than those, up and with good disks.
fn is_healthy_other(node: &Node, servers: &[ServerId]) -> bool {
    node.role == Role::ChunkServer
        && node.power == Power::Up
        && !servers.contains(&ServerId(node.id))
        && !node.disks.iter().any(node::is_doomed)
}

/// Whether a chunkserver reads a file while it serves. What it reads only when it starts
/// is missed only then, and meanwhile it passes for a good copy of what is written.
fn is_looked_at(name: &str) -> bool {
    is_content(name) || name.contains("units")
}

fn trigger_of(seen: Seen) -> Option<Trigger> {
    Some(match seen {
        Seen::WriteAcknowledged => Trigger::WriteAcknowledged,
        Seen::WriteForwarded => Trigger::WriteForwarded,
        Seen::LeaseGranted => Trigger::LeaseGranted,
        Seen::MutationAnswered => Trigger::MutationAnswered,
        Seen::RepairBegun => Trigger::RepairBegun,
        Seen::FsyncAnswered => Trigger::FsyncAnswered,
        Seen::LogSync => Trigger::LogSync,
        Seen::DiskSync => Trigger::DiskSync,
        Seen::Nothing => return None,
    })
}
