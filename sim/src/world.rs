//! The world of one run: an event heap with its own time, the nodes, the network
//! between them, the programs, the script of faults, and the judges.
//!
//! Everything happens at an event, in the order of time and then of scheduling, so
//! a seed gives one run. Phases: the cluster comes up, programs work while faults
//! strike, everything heals, the programs finish, every mount reads everything,
//! and redundancy comes back.

mod phases;

use crate::audit::Auditor;
use crate::check::disks::Disks;
use crate::check::leases::{Route, Seen};
use crate::check::{Broken, Judges};
use crate::faults::Script;
use crate::host::Judged;
use crate::model::bytes::MountId;
use crate::moments::is_effect;
use crate::network::{Delivered, Delivery, Door, Nanos, Network, NetworkEvent, NodeIndex};
use crate::node::{self, Node, Power};
use crate::observe::Observer;
use crate::plan::{Plan, StoragePlan};
use crate::process::{Act, Process, Stimulus, Witness};
use crate::trace::Trace;
use crate::workload::{Asked, Next, Runner};
use antler_core::client::request::{ClientAnswer, ClientRequest, FileReply};
use antler_core::errno::Errno;
use antler_core::hash::Digest;
use antler_core::ids::{InodeId, LinkId, ServerId};
use antler_core::machine::Role;
use antler_core::marks::Marks;
use antler_core::namespace::State;
use antler_core::rng::Rng;
use antler_core::time::Instant;
use antler_core::version::FeatureLevel;
use antler_core::wire::{HEADER_SIZE, Header, Message};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

const MILLISECOND: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;
/// How often the phases are looked after.
const TICK: Nanos = 50 * MILLISECOND;
/// How soon a healthy cluster must answer its mounts.
const START_MAX: Nanos = 60 * SECOND;
/// One in so many messages is encoded and decoded, to prove that it survives.
const CODEC_SAMPLING: u64 = 16;
/// A process of this age is known to the leader with its version.
const LEVEL_KNOWN_AFTER: Nanos = 5 * SECOND;
/// After so many inputs of a node its digest is taken and its cheap invariants are
/// checked, and after so many of these the dear ones.
const DIGEST_EVERY: u64 = 32;
const WHOLE_EVERY: u64 = 64;

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Every judge is content.
    Passed,
    /// A promise was broken.
    Broken(Broken),
    /// Something did not end in its time.
    Stuck(String),
    /// The figures are not as expected.
    Missed(String),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    Network(OrderedNetworkEvent),
    /// Something of a node's storage, in one of its lives.
    Due(usize, u32, u64),
    Wake(usize, u32),
    Started(usize, u32),
    Restart(usize),
    Resume(usize),
    Fault(usize),
    FaultEnd(usize),
    /// Empty disks take the place of those that a fault hit.
    Replace(usize),
    Think(usize),
    Tick,
}

/// A network event in an order of no meaning, for the heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OrderedNetworkEvent(pub(crate) NetworkEvent);

impl PartialOrd for OrderedNetworkEvent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedNetworkEvent {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        // The sequence number before it is unique: this is never asked.
        std::cmp::Ordering::Equal
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Starting,
    Working { until: Nanos },
    Finishing { deadline: Nanos },
    Auditing { deadline: Nanos },
    Settling { deadline: Nanos, next_look: Nanos },
}

/// Who waits for an answer of a mount.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Program(usize),
    Auditor(usize),
}

/// See the module's doc.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Nanos,
    /// When the mounts first worked: times of faults count from here.
    pub(crate) begun: Nanos,
    pub(crate) phase: Phase,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Disks,
    pub(crate) network: Network,
    pub(crate) judges: Judges,
    pub(crate) script: Script,
    pub(crate) trace: Trace,
    pub(crate) marks: Marks,
    pub(crate) events: u64,
    pub(crate) rng: Rng,
    /// Collects what a page shows, if one is wanted.
    pub(crate) observer: Option<Observer>,
    /// When an operator looks after failed disks next.
    pub(crate) attended: Nanos,
    heap: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    sequence: u64,
    runners: Vec<Runner>,
    auditors: Vec<Auditor>,
    /// Files of which the audits may differ.
    left_behind: BTreeSet<InodeId>,
    requests: BTreeMap<u64, (Asker, MountId)>,
    asks: VecDeque<(usize, u32, Box<ClientRequest>)>,
    next_operation: u64,
    /// By client: its mount's present life, and whether it is ready.
    mounts: Vec<(MountId, bool)>,
    /// The highest feature level that a member reached; 0 before the cluster was founded.
    level: FeatureLevel,
    next_mount: MountId,
    digest: Digest,
    inputs: u64,
    /// Empty between inputs: kept for its capacity.
    acts: Vec<Act>,
    outcome: Option<Outcome>,
}

/// The programs, before their first steps.
fn runners(plan: &Plan, nodes: &[Node]) -> Vec<Runner> {
    let servers = nodes.iter().filter(|node| node.role == Role::ChunkServer);
    let servers: Vec<ServerId> = servers.map(|node| ServerId(node.id)).collect();
    let storage = plan.storage.as_ref().map(StoragePlan::program);
    let programs = plan.programs.iter().chain(&storage);
    programs
        .map(|program| Runner::new(program, &servers))
        .collect()
}

impl World {
    pub(crate) fn new(plan: Plan, trace: Trace, observe: bool) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let nodes = node::build(&plan, &mut rng);
        let places: Vec<u64> = nodes.iter().map(|node| node.place.datacentre).collect();
        let mut world = Self {
            now: 0,
            begun: 0,
            phase: Phase::Starting,
            disks: node::all_disks(&nodes),
            network: plan.network(&places, rng.word()),
            judges: Judges::new(&plan),
            script: Script::new(&plan),
            marks: Marks::default(),
            events: 0,
            heap: BinaryHeap::new(),
            sequence: 0,
            runners: runners(&plan, &nodes),
            auditors: Vec::new(),
            left_behind: BTreeSet::new(),
            requests: BTreeMap::new(),
            asks: VecDeque::new(),
            next_operation: 1,
            mounts: vec![(0, false); plan.cluster.clients as usize],
            level: FeatureLevel(0),
            next_mount: 1,
            digest: Digest::default(),
            inputs: 0,
            acts: Vec::new(),
            outcome: None,
            attended: Nanos::MAX,
            observer: (observe || plan.has_figures()).then(|| Observer::new(&nodes, &plan)),
            rng,
            nodes,
            trace,
            plan,
        };
        for index in 0..world.nodes.len() {
            world.start(index);
        }
        world.schedule(TICK, Event::Tick);
        world
    }

    /// Takes the next event. `None` once the run is over, otherwise how far time moves.
    pub(crate) fn next_time(&self) -> Option<Nanos> {
        match self.outcome {
            Some(_) => None,
            None => self.heap.peek().map(|Reverse((when, ..))| *when),
        }
    }

    /// Carries the next event out.
    pub(crate) fn step(&mut self) {
        let Some(Reverse((when, _, event))) = self.heap.pop() else {
            return;
        };
        self.now = when;
        self.events += 1;
        self.handle(event);
        self.hand_asks();
        if self.outcome.is_none()
            && let Some(broken) = self.judges.broken()
        {
            self.outcome = Some(Outcome::Broken(broken.clone()));
        }
    }

    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The digest of the whole run so far.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// How much the judges saw.
    pub(crate) fn judged(&self) -> Judged {
        Judged {
            bytes: self.judges.bytes.compared,
            digests: self.judges.members.compared,
            answers: self.judges.names.compared,
            orders: self.judges.linear.judged,
            records: self.judges.durable.records,
            ranges: self.judges.durable.ranges,
            reads: self.judges.leases.judged,
        }
    }

    /// The steps that programs carried out.
    pub(crate) fn completed(&self) -> usize {
        self.runners.iter().map(Runner::completed).sum()
    }

    pub(crate) fn schedule(&mut self, when: Nanos, event: Event) {
        self.sequence += 1;
        self.heap
            .push(Reverse((when.max(self.now), self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Network(OrderedNetworkEvent(event)) => self.on_network(event),
            Event::Due(index, life, number) => {
                if self.nodes[index].life == life {
                    self.feed(index, Stimulus::Due(number));
                }
            }
            Event::Wake(index, life) => self.on_wake(index, life),
            Event::Started(index, life) => self.on_started(index, life),
            Event::Restart(index) => self.restart(index),
            Event::Resume(index) => self.resume(index),
            Event::Fault(number) => self.strike(number),
            Event::FaultEnd(number) => self.end_fault(number),
            Event::Replace(number) => self.replace_disks(number),
            Event::Think(program) => self.on_thought(program),
            Event::Tick => {
                self.tick();
                self.observe();
                self.schedule(self.now + TICK, Event::Tick);
            }
        }
    }

    // Nodes.

    /// Begins a new life of a node's process.
    pub(crate) fn start(&mut self, index: usize) {
        let strange = self.nodes[index].strange;
        let strange = strange.map(|at| (at, self.nodes[index].disks[at].durable_changes(self.now)));
        let started = self.nodes[index].start(self.now, &self.plan);
        if let Some((at, changes)) = strange {
            self.trace_refusal(index, started.err());
            return self.judge_strange_start(index, at, changes);
        }
        let started = match started {
            Ok(started) => started,
            Err(reason) => {
                self.on_start_failed(index, &reason);
                return;
            }
        };
        let retired = self.nodes[index].retired;
        if let Some((entries, applied)) = &started.recovered
            && !retired
        {
            self.judges.members.on_started(index, entries, *applied);
        }
        let life = self.nodes[index].life;
        self.trace.line(self.now, &self.nodes[index].name, || {
            format!("starts (life {life})")
        });
        self.schedule(started.ready, Event::Started(index, life));
        self.on_starting(index, started.ready);
    }

    fn trace_refusal(&mut self, index: usize, reason: Option<String>) {
        let node = &self.nodes[index];
        self.trace.line(self.now, &node.name, || {
            format!("can't start: {}", reason.unwrap_or_default())
        });
    }

    fn on_start_failed(&mut self, index: usize, reason: &str) {
        self.trace_refusal(index, Some(reason.to_owned()));
        let node = &mut self.nodes[index];
        node.power = Power::Idle;
        if !node.disks.iter().any(node::is_faulty) {
            let how = format!("{} can't start: {reason}", node.name);
            self.judges
                .judge::<()>("recovery after any crash", Err(how));
        }
    }

    fn on_started(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if node.life != life || node.power != Power::Starting {
            return;
        }
        node.power = Power::Up;
        // A clock that was changed meanwhile may have set one that came too early.
        node.wake = Nanos::MAX;
        if let Some(observer) = &mut self.observer {
            observer.came(self.now, index);
        }
        if node.role == Role::Client {
            let client = node.id as usize;
            self.mounts[client] = (self.next_mount, false);
            self.next_mount += 1;
        }
        self.feed(index, Stimulus::Timeout);
    }

    fn restart(&mut self, index: usize) {
        if matches!(self.nodes[index].power, Power::Off | Power::Idle) {
            self.start(index);
        }
    }

    fn resume(&mut self, index: usize) {
        if self.nodes[index].paused_until > self.now {
            return;
        }
        for stimulus in std::mem::take(&mut self.nodes[index].held) {
            self.feed(index, stimulus);
        }
        let life = self.nodes[index].life;
        self.nodes[index].wake = self.now;
        self.on_wake(index, life);
    }

    /// Ends a node's process, and tells everybody whom it concerns.
    pub(crate) fn end_process(&mut self, index: usize, power_lost: bool, power: Power) {
        self.collect_marks(index);
        let node = &mut self.nodes[index];
        let ran = matches!(node.power, Power::Up | Power::Starting);
        node.end_process(self.now, power_lost);
        node.power = power;
        if !ran {
            return;
        }
        self.trace.line(self.now, &node.name, || {
            format!("ends (power lost: {power_lost})")
        });
        if let Some(observer) = &mut self.observer {
            observer.went(self.now, index);
        }
        let (role, client) = (node.role, node.id as usize);
        self.network
            .end_process(self.now, NodeIndex(index), power_lost);
        self.take_network();
        match role {
            Role::ChunkServer => {
                self.judges.bytes.lose_server();
                self.judges.leases.lose_server(index);
            }
            Role::Client => self.lose_mount(client),
            Role::Master | Role::Metalogger => {}
        }
    }

    fn lose_mount(&mut self, client: usize) {
        let (mount, _) = self.mounts[client];
        self.mounts[client].1 = false;
        self.requests.retain(|_, (_, of)| *of != mount);
        self.judges.bytes.lose_mount(mount);
        let found = self.judges.linear.lose_mount(mount);
        self.judges.judge("names in one order", found);
        for runner in &mut self.runners {
            if runner.client == client {
                runner.lose_mount();
            }
        }
        if let Some(auditor) = self.auditors.get_mut(client) {
            *auditor = Auditor::new();
        }
    }

    fn on_wake(&mut self, index: usize, life: u32) {
        let node = &mut self.nodes[index];
        if node.life != life || node.wake != self.now || node.power != Power::Up {
            return;
        }
        node.wake = Nanos::MAX;
        let due = node.process.as_ref().and_then(Process::poll_timeout);
        match due {
            Some(due) if due <= node.moment(self.now).local.mono => {
                self.feed(index, Stimulus::Timeout);
            }
            Some(due) => self.wake_at(index, due),
            None => {}
        }
    }

    /// A node's clock was changed: when its timeout falls is reckoned anew.
    pub(crate) fn wake_anew(&mut self, index: usize) {
        self.nodes[index].wake = Nanos::MAX;
        let process = self.nodes[index].process.as_ref();
        if let Some(due) = process.and_then(Process::poll_timeout) {
            self.wake_at(index, due);
        }
    }

    fn wake_at(&mut self, index: usize, due: Instant) {
        let node = &mut self.nodes[index];
        let when = node.world_time(due).max(self.now);
        if when < node.wake {
            node.wake = when;
            let life = node.life;
            self.schedule(when, Event::Wake(index, life));
        }
    }

    /// Hands a stimulus to a node's process and carries out what it does.
    pub(crate) fn feed(&mut self, index: usize, stimulus: Stimulus) {
        let node = &mut self.nodes[index];
        if node.power != Power::Up {
            return;
        }
        if node.paused_until > self.now {
            node.held.push(stimulus);
            return;
        }
        self.trace.stimulus(self.now, &node.name, &stimulus);
        if let Stimulus::Message(link, message) = &stimulus {
            let connection = self.network.connection(node.index, *link);
            self.judges.on_delivered(connection, message);
        }
        self.digest
            .word(self.now)
            .word(index as u64)
            .word(kind_of(&stimulus));
        let moment = node.moment(self.now);
        let mut acts = std::mem::take(&mut self.acts);
        let process = node
            .process
            .as_mut()
            .expect("a node that is up has its process");
        process.handle(moment, stimulus, &mut acts);
        self.after_input(index);
        let mut left = acts.iter().filter(|act| is_effect(act)).count();
        for act in acts.drain(..) {
            left -= usize::from(is_effect(&act));
            let is_between = is_effect(&act) && left > 0;
            self.perform(index, act);
            if is_between && self.ends_between_effects(index) {
                break;
            }
        }
        self.acts = acts;
        self.judge_level(index);
        self.take_network();
        let due = self.nodes[index]
            .process
            .as_ref()
            .and_then(Process::poll_timeout);
        if let Some(due) = due {
            self.wake_at(index, due);
        }
    }

    fn after_input(&mut self, index: usize) {
        self.inputs += 1;
        let node = &self.nodes[index];
        let process = node.process.as_ref().expect("it just handled an input");
        if self.inputs.is_multiple_of(DIGEST_EVERY) {
            process.digest(&mut self.digest);
            process.check_invariants(self.inputs.is_multiple_of(DIGEST_EVERY * WHOLE_EVERY));
        }
        if let Process::Member(member) = process
            && !node.retired
        {
            self.judges.on_member(index, member.machine.member());
        }
        self.nodes[index].note_incarnation();
    }

    /// A process that meets a feature level that it does not know ends; and no level is
    /// raised that somebody does not know.
    fn judge_level(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(Process::Member(process)) = &node.process else {
            return;
        };
        let level = process.machine.member().state().feature_level();
        if level > node.version {
            let how = format!("{} goes on at a level that it does not know", node.name);
            self.judges
                .judge::<()>("no guess at a newer state", Err(how));
        }
        if level > self.level && process.machine.member().state().is_founded() {
            let is_raised = self.level > FeatureLevel(0);
            self.level = level;
            let unheeded = self.nodes.iter().find(|node| {
                let long = node.since + LEVEL_KNOWN_AFTER < self.now;
                let counts = node.role != Role::Client && !node.retired && long;
                counts && node.power == Power::Up && node.version < level
            });
            if let Some(node) = unheeded.filter(|_| is_raised) {
                let how = format!(
                    "level {level} is reached, which {} does not know",
                    node.name
                );
                self.judges
                    .judge::<()>("a raise waits for everybody", Err(how));
            }
        }
    }

    // What processes do.

    fn perform(&mut self, index: usize, act: Act) {
        self.trace.act(self.now, &self.nodes[index].name, &act);
        let from = NodeIndex(index);
        match act {
            Act::Connect(link, address, role) => {
                let to = self.nodes.iter().find(|node| {
                    node.address == address && node.role == role && node.power != Power::Lost
                });
                let to = to.map(|node| node.index);
                self.network.connect(self.now, from, link, to);
            }
            Act::Send(link, message) => self.send(index, link, message),
            Act::Close(link) => self.network.close(self.now, from, link),
            Act::Log(..) => {}
            Act::Stop { graceful, reason } => self.on_stop(index, graceful, &reason),
            Act::Later(when, number) => {
                let life = self.nodes[index].life;
                self.schedule(when, Event::Due(index, life, number));
            }
            Act::Answer(answer) => self.on_client_answer(index, answer),
            Act::Witness(witness) => self.on_witness(index, witness),
        }
    }

    fn on_witness(&mut self, index: usize, witness: Witness) {
        match witness {
            Witness::Appending(_) | Witness::Restarting if self.nodes[index].retired => {}
            Witness::Appending(entries) => self.judges.members.on_appending(index, entries),
            Witness::Restarting => self.judges.members.on_restarting(index),
            Witness::LogSync(when) => self.on_foreseen(when, Seen::LogSync, index, None),
            Witness::DiskSync(when) => self.on_foreseen(when, Seen::DiskSync, index, None),
            Witness::DiskFailed => self.on_disk_failed(index),
            Witness::Writing(part, epoch) => {
                let found = self.judges.leases.on_writing(index, part, epoch);
                self.judges.judge("P4: fencing", found);
            }
        }
    }

    fn on_stop(&mut self, index: usize, graceful: bool, reason: &str) {
        let node = &self.nodes[index];
        let excused = node.disks.iter().any(node::is_faulty) || node.is_outdated();
        if !graceful && !excused {
            let how = format!("{} stopped though nothing is wrong: {reason}", node.name);
            self.judges.judge::<()>("no false alarm", Err(how));
        }
        self.end_process(index, false, Power::Idle);
        let pause = match graceful {
            true => self.script.stopped_for(index),
            false => 2 * SECOND,
        };
        self.schedule(self.now + pause, Event::Restart(index));
    }

    fn send(&mut self, index: usize, link: LinkId, message: Message) {
        let from = NodeIndex(index);
        let Some(connection) = self.network.connection(from, link) else {
            return;
        };
        let role = self.nodes[index].role;
        let route = Route {
            from: index,
            role,
            mount: match role {
                Role::Client => self.mounts[self.nodes[index].id as usize].0,
                _ => 0,
            },
            connection,
        };
        let version = self.nodes[index].link_version(link);
        if message.since() > version {
            let how = format!("{message:?} is sent on a link of version {version}");
            self.judges.judge::<()>("nothing unknown is sent", Err(how));
        }
        let mut message = message;
        message.lower(version);
        self.prove_codec(&message);
        if let Some(observer) = &mut self.observer {
            observer.sent(self.now, connection, &message);
        }
        let seen = self
            .judges
            .on_message(self.now, route, &message, &self.disks);
        if seen != Seen::Nothing {
            let peer = self.network.peer(from, link);
            self.on_seen(seen, index, peer.map(|node| node.0));
        }
        self.spare_only_copy(from, link, &message);
        self.network.send(self.now, from, link, message);
    }

    /// Every so often a message is pushed through its encoding.
    fn prove_codec(&mut self, message: &Message) {
        let data = message.data();
        self.digest.word(data.len() as u64);
        if !self.rng.one_in(CODEC_SAMPLING) {
            return;
        }
        let (frame, data) = message.encode();
        self.digest.bytes(&frame);
        let header: &[u8; HEADER_SIZE] = frame[..HEADER_SIZE].try_into().expect("a whole header");
        let decoded = Header::decode(header)
            .and_then(|header| Message::decode(header, &frame[HEADER_SIZE..], data));
        if decoded.as_ref() != Ok(message) {
            let how = format!("{message:?} was decoded as {decoded:?}");
            self.judges.judge::<()>("the wire's encoding", Err(how));
        }
    }

    pub(crate) fn take_network(&mut self) {
        while let Some((when, event)) = self.network.next_due() {
            self.schedule(when, Event::Network(OrderedNetworkEvent(event)));
        }
    }

    fn on_network(&mut self, event: NetworkEvent) {
        let (nodes, now) = (&self.nodes, self.now);
        let door = |index: NodeIndex| match nodes[index.0].power {
            Power::Up if nodes[index.0].paused_until > now => Door::Silent,
            Power::Up => Door::Open,
            Power::Idle | Power::Starting => Door::Refused,
            Power::Off | Power::Lost => Door::Silent,
        };
        let delivered = self.network.handle(self.now, event, door);
        self.take_network();
        let Some(Delivered {
            node,
            link,
            peer,
            what,
        }) = delivered
        else {
            return;
        };
        let peer = self.nodes[peer.0].peer();
        if let Delivery::Accepted | Delivery::Connected = &what {
            self.nodes[node.0].note_link(link, &peer);
        }
        let stimulus = match what {
            Delivery::Accepted => Stimulus::Accepted(link, peer),
            Delivery::Connected => Stimulus::Connected(link, peer),
            Delivery::Message(message) => Stimulus::Message(link, message),
            Delivery::Closed(reason) => Stimulus::Closed(link, reason),
        };
        self.feed(node.0, stimulus);
    }

    // Programs.

    fn on_client_answer(&mut self, index: usize, answer: ClientAnswer) {
        match answer {
            ClientAnswer::Ready => {
                let client = self.nodes[index].id as usize;
                self.mounts[client].1 = true;
                if self.phase != Phase::Starting {
                    self.wake_programs(client);
                }
            }
            ClientAnswer::Done { operation, result } => self.on_answered(operation, &result),
            ClientAnswer::InvalidateEntry { ticket, .. }
            | ClientAnswer::InvalidateInode { ticket, .. } => {
                // The simulated kernel caches nothing.
                let body = antler_core::client::request::FileRequest::Invalidated { ticket };
                self.ask_mount(index, 0, body);
            }
        }
    }

    fn ask_mount(
        &mut self,
        index: usize,
        operation: u64,
        body: antler_core::client::request::FileRequest,
    ) {
        let request = ClientRequest {
            operation,
            credentials: antler_core::attributes::Credentials::default(),
            body,
        };
        let life = self.nodes[index].life;
        self.asks.push_back((index, life, Box::new(request)));
    }

    /// Hands what was asked meanwhile to the mounts: a machine must have been drained
    /// before its next input.
    fn hand_asks(&mut self) {
        while let Some((index, life, request)) = self.asks.pop_front() {
            if self.nodes[index].life == life {
                self.feed(index, Stimulus::Ask(request));
            }
        }
    }

    fn on_answered(&mut self, operation: u64, result: &Result<FileReply, Errno>) {
        let Some((asker, _)) = self.requests.remove(&operation) else {
            let how = format!("an answer to {operation}, which nobody asked");
            self.judges.judge::<()>("P5: exactly once", Err(how));
            return;
        };
        if let Some(observer) = &mut self.observer {
            observer.answered(self.now, operation, result);
        }
        let found = self.judges.names.on_answered(operation, result);
        self.judges.judge("P7: names as they are", found);
        let found = self.judges.linear.on_answered(operation, result);
        self.judges.judge("names in one order", found);
        let found = self.judges.bytes.on_answer(operation, result);
        let synced = self.judges.judge("reads and errors", found).flatten();
        if let Some(synced) = synced {
            if let Some(state) = leading_state(&self.nodes) {
                self.judges.on_synced(self.now, synced, state, &self.disks);
            }
            self.on_seen(Seen::FsyncAnswered, self.nodes.len(), None);
        }
        match asker {
            Asker::Program(program) => {
                let next = self.runners[program].on_answer(result);
                self.go_on(program, next);
            }
            Asker::Auditor(client) => {
                self.auditors[client].on_answer(result);
                self.audit_on(client);
            }
        }
    }

    fn go_on(&mut self, program: usize, next: Next) {
        match next {
            Next::Ask(asked) => self.ask(Asker::Program(program), asked),
            Next::Think(nanos) => self.schedule(self.now + nanos, Event::Think(program)),
            Next::Done => {}
        }
    }

    fn ask(&mut self, asker: Asker, mut asked: Asked) {
        let client = match asker {
            Asker::Program(program) => self.runners[program].client,
            Asker::Auditor(client) => client,
        };
        let operation = self.next_operation;
        self.next_operation += 1;
        let (mount, _) = self.mounts[client];
        self.judges.bytes.on_asked(operation, mount, &mut asked);
        self.judges.names.on_asked(operation, &asked.body);
        self.judges.linear.on_asked(operation, mount, &asked.body);
        self.requests.insert(operation, (asker, mount));
        let index = self.client_node(client);
        if let Some(observer) = &mut self.observer {
            let site = self.nodes[index].place.datacentre;
            observer.asked(self.now, operation, site, &asked.body);
        }
        self.ask_mount(index, operation, asked.body);
    }

    fn client_node(&self, client: usize) -> usize {
        let found = self
            .nodes
            .iter()
            .position(|node| node.role == Role::Client && node.id == client as u64);
        found.expect("every client has a node")
    }

    fn on_thought(&mut self, program: usize) {
        let runner = &mut self.runners[program];
        if runner.waiting || !self.mounts[runner.client].1 {
            return;
        }
        let next = runner.begin(self.now);
        self.go_on(program, next);
    }

    /// A mount is ready: its programs go on.
    fn wake_programs(&mut self, client: usize) {
        for program in 0..self.runners.len() {
            let runner = &self.runners[program];
            if runner.client == client && !runner.waiting {
                self.schedule(self.now, Event::Think(program));
            }
        }
        if client < self.auditors.len() {
            self.audit_on(client);
        }
    }

    fn audit_on(&mut self, client: usize) {
        if let Next::Ask(asked) = self.auditors[client].ask() {
            self.ask(Asker::Auditor(client), asked);
        }
    }

    fn stuck(&mut self, how: String) {
        self.outcome = Some(Outcome::Stuck(how));
    }

    fn collect_marks(&mut self, index: usize) {
        if let Some(process) = &mut self.nodes[index].process {
            self.marks.merge(process.marks());
        }
    }
}

/// The state of the master that was elected last, if it leads. One that has not yet
/// applied what its log held by then knows less than was settled.
pub(crate) fn leading_state(nodes: &[Node]) -> Option<&State> {
    nodes
        .iter()
        .filter_map(|node| match &node.process {
            Some(Process::Member(member)) if node.power == Power::Up => Some(&member.machine),
            _ => None,
        })
        .filter(|machine| machine.member().is_leader())
        .max_by_key(|machine| machine.member().term())
        .filter(|machine| machine.is_leading())
        .map(|machine| machine.member().state())
}

fn kind_of(stimulus: &Stimulus) -> u64 {
    match stimulus {
        Stimulus::Accepted(link, _) => 1 << 32 | link.0,
        Stimulus::Connected(link, _) => 2 << 32 | link.0,
        Stimulus::Closed(link, _) => 3 << 32 | link.0,
        Stimulus::Message(link, message) => 4 << 32 | link.0 ^ kind_of_message(message) << 24,
        Stimulus::Timeout => 5 << 32,
        Stimulus::Shutdown => 6 << 32,
        Stimulus::Ask(request) => 7 << 32 | request.operation,
        Stimulus::Due(number) => 8 << 32 | number,
        Stimulus::Disks(changes) => 9 << 32 | changes.len() as u64,
    }
}

fn kind_of_message(message: &Message) -> u64 {
    match message {
        Message::ClientToMaster(_) => 1,
        Message::MasterToClient(_) => 2,
        Message::ChunkRequest(_) => 3,
        Message::ChunkReply(_) => 4,
        Message::ChunkToMaster(_) => 5,
        Message::MasterToChunk(_) => 6,
        Message::Peer(_) => 7,
    }
}
