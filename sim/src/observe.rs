//! What a report shows of a run: faults, nodes that were away, the health of chunks,
//! latencies, copies that were made, where parts lay. It is collected only when asked
//! for, and changes nothing: the digest of the run is the same.

use crate::network::Nanos;
use crate::node::{Node, Power};
use crate::world::{Phase, World, leading_state};
use antler_core::client::request::FileRequest;
use antler_core::ids::{ChunkId, PartId};
use antler_core::machine::Role;
use antler_core::namespace::{LeaseState, State};
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
    pub(crate) fn new(nodes: &[Node]) -> Self {
        let nodes = nodes.iter().map(|node| SeenNode {
            name: node.name.clone(),
            site: node.datacentre,
            stores: node.role == Role::ChunkServer,
            away: Vec::new(),
        });
        let seen = Observed {
            nodes: nodes.collect(),
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

    pub(crate) fn answered(&mut self, now: Nanos, operation: u64) {
        if let Some((asked, site, kind)) = self.under_way.remove(&operation) {
            let took = now - asked;
            self.seen.answers.push(Answered {
                asked,
                took,
                site,
                kind,
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
    ) {
        let fault = SeenFault {
            what,
            targets,
            begun: now,
            ended: lasts.map(|lasts| now + lasts),
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
            let count = node.stored_parts().count() as u64;
            (node.power == Power::Up).then_some(count)
        });
        observer.seen.stored.push((now, parts.collect()));
        if let Some(state) = leading_state(&self.nodes) {
            let health = health_of(now, state, &self.nodes);
            observer.seen.health.push(health);
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

fn health_of(at: Nanos, state: &State, nodes: &[Node]) -> Health {
    let mut copies: BTreeMap<PartId, u64> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.role == Role::ChunkServer) {
        if node.power != Power::Up || node.paused_until > at {
            continue;
        }
        for stored in node.stored_parts() {
            let chunk = state.chunk(stored.part.chunk);
            if chunk.is_some_and(|chunk| chunk.version == stored.version) {
                *copies.entry(stored.part).or_default() += 1;
            }
        }
    }
    let mut health = Health {
        at,
        ..Health::default()
    };
    for id in state.chunks_from(ChunkId(0), usize::MAX) {
        // Before its first lease a chunk has no copies, and needs none.
        let Some(chunk) = state.chunk(id).filter(|chunk| chunk.version.0 > 0) else {
            continue;
        };
        let count = copies.get(&PartId::whole(id)).copied().unwrap_or(0);
        let wanted = u64::from(state.class(chunk.class).keep.copies);
        let class = match count {
            _ if chunk.lease != LeaseState::Settled => &mut health.written,
            0 => &mut health.missing,
            count if count >= wanted => &mut health.full,
            1 => &mut health.last,
            _ => &mut health.under,
        };
        *class += 1;
    }
    health
}
