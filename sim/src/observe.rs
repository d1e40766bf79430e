//! What a report shows of a run: faults, nodes that were away, the health of chunks,
//! latencies, copies that were made, where parts lay. It is collected only when asked
//! for, and changes nothing: the digest of the run is the same.

use crate::network::Nanos;
use crate::node::{Node, Power};
use crate::plan::{FaultPlan, Plan, YearPlan, year};
use crate::scenario::Action;
use crate::world::{Phase, World, leading_state};
use antler_core::chunk::operation::StoredPart;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{ChunkId, PartId};
use antler_core::machine::Role;
use antler_core::namespace::{Chunk, LeaseState, State};
use antler_core::wire::Message;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult, MasterToChunk};
use std::collections::{BTreeMap, BTreeSet};

/// How often the health of chunks is looked at.
const SAMPLE_EVERY: Nanos = 200_000_000;

/// What was seen of a run.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// When each phase began, and its name.
    pub phases: Vec<(Nanos, &'static str)>,
    /// When the mounts first worked.
    pub begun: Nanos,
    /// For how long programs began operations.
    pub duration: Nanos,
    /// The year that was played, if one was; its times count from `begun`.
    pub year: Option<YearPlan>,
    /// The names of the places, from the first on.
    pub sites: Vec<String>,
    /// Faults that struck, in that order.
    pub faults: Vec<SeenFault>,
    /// Every node.
    pub nodes: Vec<SeenNode>,
    /// The health of chunks, as it was looked at.
    pub health: Vec<Health>,
    /// Requests of programs that were answered, in that order.
    pub answers: Vec<Answered>,
    /// Requests that were never answered: their mount died.
    pub unanswered: usize,
    /// When a copy was made from another.
    pub copied: Vec<Nanos>,
    /// When each look at the stores was, and the parts on each chunkserver (in the
    /// order of `nodes`; `None` while it is away).
    pub stored: Vec<(Nanos, Vec<Option<u64>>)>,
    /// When the run ended.
    pub ended: Nanos,
}

/// A fault that struck.
#[derive(Clone, Debug)]
pub struct SeenFault {
    /// What and to whom.
    pub what: String,
    /// Whom it hit.
    pub targets: Vec<String>,
    /// When it struck.
    pub begun: Nanos,
    /// When it ended; the same as `begun` for what has no duration, `None` for good.
    pub ended: Option<Nanos>,
    /// When it was to strike in the year that is played.
    pub date: Option<Nanos>,
    /// If it took copies away for good: what became of that.
    pub loss: Option<SeenLoss>,
}

/// The copies that a lost disk held.
#[derive(Clone, Debug, Default)]
pub struct SeenLoss {
    /// How many chunks had one there.
    pub chunks: u64,
    /// When each of those had all its copies again, or was gone.
    pub full: Option<Nanos>,
    /// Chunks of which that is not so yet.
    lacking: BTreeSet<ChunkId>,
}

/// A node and when it was away.
#[derive(Clone, Debug)]
pub struct SeenNode {
    /// Its name.
    pub name: String,
    /// Its place, from 1.
    pub site: u64,
    /// Whether it is a chunkserver.
    pub stores: bool,
    /// From when to when no process of it ran; without an end, to the run's end.
    pub away: Vec<(Nanos, Option<Nanos>)>,
}

/// How many chunks were how safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// When.
    pub at: Nanos,
    /// No current copy can be reached.
    pub missing: u64,
    /// One copy of several is left.
    pub last: u64,
    /// More than one, but fewer than wanted.
    pub under: u64,
    /// All that are wanted.
    pub full: u64,
    /// A lease is open, or its end is being settled.
    pub written: u64,
}

/// What a request was about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Names and attributes.
    Names,
    /// Reads.
    Reads,
    /// Writes, as the mount takes them.
    Writes,
    /// fsync and close.
    Syncs,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Syncs => "syncs",
        }
    }

    fn of(body: &FileRequest) -> Self {
        match body {
            FileRequest::Read { .. } => Self::Reads,
            FileRequest::Write { .. } | FileRequest::Fallocate { .. } => Self::Writes,
            FileRequest::Fsync { .. } | FileRequest::Flush { .. } | FileRequest::Release { .. } => {
                Self::Syncs
            }
            _ => Self::Names,
        }
    }
}

/// A request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When it was asked.
    pub asked: Nanos,
    /// How long it took.
    pub took: Nanos,
    /// Where the mount is.
    pub site: u64,
    /// What it was about.
    pub kind: Kind,
    /// Whether it failed as only a cluster that is not well fails it.
    pub failed: bool,
}

impl Observed {
    /// The name of a place.
    #[must_use]
    pub fn site(&self, number: u64) -> String {
        let name = self.sites.get((number as usize).wrapping_sub(1));
        name.cloned().unwrap_or_else(|| format!("dc{number}"))
    }

    /// When a time of the run is in the year, as it is shown, if one was played.
    #[must_use]
    pub fn date(&self, at: Nanos) -> Option<String> {
        let year = self.year.as_ref()?;
        Some(year::shown(year.date(at.saturating_sub(self.begun))))
    }
}

/// Collects what is seen.
pub(crate) struct Observer {
    seen: Observed,
    /// Requests under way: when asked, the mount's place, and what.
    under_way: BTreeMap<u64, (Nanos, u64, Kind)>,
    /// Commands to copy that are under way: connection and number.
    copying: BTreeSet<(usize, u64)>,
    /// Where the faults of the plan that are under way stand among those seen.
    open: BTreeMap<usize, usize>,
    next: Nanos,
}

impl Observer {
    pub(crate) fn new(nodes: &[Node], plan: &Plan) -> Self {
        let mut sites: Vec<(u64, String)> = nodes
            .iter()
            .map(|node| (node.place.datacentre, node.place.name.clone()))
            .collect();
        sites.sort_unstable();
        sites.dedup();
        let nodes = nodes.iter().map(|node| SeenNode {
            name: node.name.clone(),
            site: node.place.datacentre,
            stores: node.role == Role::ChunkServer,
            away: Vec::new(),
        });
        let seen = Observed {
            nodes: nodes.collect(),
            duration: plan.duration,
            year: plan.year.clone(),
            sites: sites.into_iter().map(|(_, name)| name).collect(),
            ..Observed::default()
        };
        Self {
            seen,
            under_way: BTreeMap::new(),
            copying: BTreeSet::new(),
            open: BTreeMap::new(),
            next: 0,
        }
    }

    pub(crate) fn asked(&mut self, now: Nanos, operation: u64, site: u64, body: &FileRequest) {
        let request = (now, site, Kind::of(body));
        self.under_way.insert(operation, request);
    }

    pub(crate) fn begun(&mut self, now: Nanos) {
        self.seen.begun = now;
    }

    pub(crate) fn seen(&self) -> &Observed {
        &self.seen
    }

    pub(crate) fn answered(
        &mut self,
        now: Nanos,
        operation: u64,
        result: &Result<FileReply, Errno>,
    ) {
        if let Some((asked, site, kind)) = self.under_way.remove(&operation) {
            let took = now - asked;
            self.seen.answers.push(Answered {
                asked,
                took,
                site,
                kind,
                failed: matches!(result, Err(Errno::EIO | Errno::ENOSPC)),
            });
        }
    }

    pub(crate) fn sent(&mut self, now: Nanos, connection: usize, message: &Message) {
        match message {
            Message::MasterToChunk(MasterToChunk::Command {
                command,
                body: Command::Replicate { .. },
                ..
            }) => {
                self.copying.insert((connection, *command));
            }
            Message::ChunkToMaster(ChunkToMaster::CommandDone { command, result }) => {
                let copied = self.copying.remove(&(connection, *command));
                if copied
                    && matches!(result, CommandResult::Parts(parts) if parts.iter().all(Option::is_some))
                {
                    self.seen.copied.push(now);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn went(&mut self, now: Nanos, index: usize) {
        let away = &mut self.seen.nodes[index].away;
        if away.last().is_none_or(|(_, back)| back.is_some()) {
            away.push((now, None));
        }
    }

    pub(crate) fn came(&mut self, now: Nanos, index: usize) {
        if let Some((_, back @ None)) = self.seen.nodes[index].away.last_mut() {
            *back = Some(now);
        }
    }

    pub(crate) fn struck(
        &mut self,
        now: Nanos,
        number: usize,
        what: String,
        (targets, lasts): (Vec<String>, Option<Nanos>),
        plan: &FaultPlan,
    ) {
        let fault = SeenFault {
            what,
            targets,
            begun: now,
            ended: lasts.map(|lasts| now + lasts),
            date: plan.date,
            loss: (plan.action == Action::LoseDisk).then(SeenLoss::default),
        };
        match self.open.get(&number) {
            // It had to wait until it was harmless.
            Some(&at) => self.seen.faults[at] = fault,
            None => {
                self.open.insert(number, self.seen.faults.len());
                self.seen.faults.push(fault);
            }
        }
    }

    /// A disk that held copies of these chunks is lost by a fault that struck just now.
    pub(crate) fn lost(&mut self, number: usize, chunks: BTreeSet<ChunkId>) {
        let at = self.open.get(&number);
        let fault = at.and_then(|&at| self.seen.faults.get_mut(at));
        if let Some(loss) = fault.and_then(|fault| fault.loss.as_mut()) {
            loss.chunks = chunks.len() as u64;
            loss.lacking = chunks;
        }
    }

    /// The copies of chunks as they are now: some that were lost may be back.
    fn look_after_losses(&mut self, now: Nanos, copies: &Copies, state: &State) {
        let faults = self.seen.faults.iter_mut();
        for loss in faults.filter_map(|fault| fault.loss.as_mut()) {
            if loss.full.is_none() {
                loss.lacking.retain(|chunk| lacks(*chunk, copies, state));
                loss.full = loss.lacking.is_empty().then_some(now);
            }
        }
    }

    pub(crate) fn ended(&mut self, now: Nanos, number: usize) {
        if let Some(at) = self.open.remove(&number) {
            self.seen.faults[at].ended = Some(now);
        }
    }

    pub(crate) fn finish(mut self, now: Nanos) -> Observed {
        self.seen.ended = now;
        self.seen.faults.sort_by_key(|fault| fault.begun);
        self.seen.unanswered = self.under_way.len();
        self.seen
    }
}

impl World {
    /// Looks at the cluster every so often.
    pub(crate) fn observe(&mut self) {
        let now = self.now;
        let phase = name_of(self.phase);
        let Some(observer) = &mut self.observer else {
            return;
        };
        if observer
            .seen
            .phases
            .last()
            .is_none_or(|(_, last)| *last != phase)
        {
            observer.seen.phases.push((now, phase));
        }
        if now < observer.next {
            return;
        }
        observer.next = now + SAMPLE_EVERY;
        let servers = self
            .nodes
            .iter()
            .filter(|node| node.role == Role::ChunkServer);
        let parts = servers.map(|node| {
            let count = parts_of(node).count() as u64;
            (node.power == Power::Up).then_some(count)
        });
        observer.seen.stored.push((now, parts.collect()));
        if let Some(state) = leading_state(&self.nodes) {
            let copies = copies_on(now, state, &self.nodes);
            observer.look_after_losses(now, &copies, state);
            observer.seen.health.push(health_of(now, state, &copies));
        }
    }
}

fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Working { .. } => "working",
        Phase::Finishing { .. } => "finishing",
        Phase::Auditing { .. } => "reading all",
        Phase::Settling { .. } => "settling",
    }
}

/// How many current copies of parts can be reached.
type Copies = BTreeMap<PartId, u64>;

/// Whether a chunk is there and is not at rest with all its copies.
fn lacks(id: ChunkId, copies: &Copies, state: &State) -> bool {
    let Some(chunk) = state.chunk(id) else {
        return false;
    };
    let (count, wanted, _) = count_of(id, &chunk, copies, state);
    chunk.lease != LeaseState::Settled || count < wanted
}

/// How many copies of a chunk can be reached, or different parts; how many are wanted, and
/// how many it takes to read it.
fn count_of(id: ChunkId, chunk: &Chunk, copies: &Copies, state: &State) -> (u64, u64, u64) {
    let has = |part: PartId| copies.get(&part).copied().unwrap_or(0);
    match chunk.stripe {
        None => {
            let wanted = state.class(chunk.class).copied(chunk.archived).copies;
            (has(PartId::whole(id)), u64::from(wanted), 1)
        }
        Some(stripe) => {
            let parts = 0..stripe.shape.parts();
            let there = parts.filter(|part| has(stripe.shape.part_id(id, *part)) > 0);
            let shape = stripe.shape;
            (
                there.count() as u64,
                shape.parts() as u64,
                shape.data() as u64,
            )
        }
    }
}

/// What a chunkserver holds on the disks that are there: it may not have noticed yet that
/// one is dead.
fn parts_of(node: &Node) -> impl Iterator<Item = StoredPart> + '_ {
    let there = |number: &usize| !node.disks[*number].faults().vanished;
    let disks = (0..node.disks.len()).filter(there);
    disks.flat_map(|number| node.parts_on(number))
}

fn copies_on(at: Nanos, state: &State, nodes: &[Node]) -> Copies {
    let mut copies = Copies::new();
    for node in nodes.iter().filter(|node| node.role == Role::ChunkServer) {
        if node.power != Power::Up || node.paused_until > at {
            continue;
        }
        for stored in parts_of(node) {
            let chunk = state.chunk(stored.part.chunk);
            let is_current = |chunk: &Chunk| {
                let stamp = chunk.stripe.map(|stripe| stripe.stamp);
                let is_of = stored.part.part == 0 || stamp == Some(stored.epoch);
                is_of && chunk.version == stored.version
            };
            if chunk.as_ref().is_some_and(is_current) {
                *copies.entry(stored.part).or_default() += 1;
            }
        }
    }
    copies
}

fn health_of(at: Nanos, state: &State, copies: &Copies) -> Health {
    let mut health = Health {
        at,
        ..Health::default()
    };
    for id in state.chunks_from(ChunkId(0), usize::MAX) {
        // Before its first lease a chunk has no copies, and needs none.
        let Some(chunk) = state.chunk(id).filter(|chunk| chunk.version.0 > 0) else {
            continue;
        };
        let (count, wanted, least) = count_of(id, &chunk, copies, state);
        let class = match count {
            _ if chunk.lease != LeaseState::Settled => &mut health.written,
            count if count < least => &mut health.missing,
            count if count >= wanted => &mut health.full,
            count if count == least => &mut health.last,
            _ => &mut health.under,
        };
        *class += 1;
    }
    health
}
