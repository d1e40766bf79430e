//! Members on a virtual wire: every link has a delay, every disk takes time, and
//! the script may cut links, stop members and take their power away.
//!
//! What must hold is checked as it happens: a position holds the same records on
//! every member and for ever, a term has one leader, a read that passed its barrier
//! sees everything acknowledged before it was asked. `settle` heals everything and
//! asks for progress and equal states.

use super::disk::Disk;
use super::model::BLOCK;
use antler_core::ids::{
    Address, BootId, ClusterId, Incarnation, LinkId, LogPosition, MemberId, Term,
};
use antler_core::journal::operation::{JournalCompletion, JournalOperation};
use antler_core::journal::{Founding, Images, Log, open};
use antler_core::machine::{Effect, LinkAllocator, Peer, Role};
use antler_core::marks::Marks;
use antler_core::member::{Barrier, Member, MemberConfig, MemberEvent, MemberInfo, MemberInput};
use antler_core::namespace::record::{Record, RecordBody};
use antler_core::rng::Rng;
use antler_core::time::{Instant, Now, Timestamp};
use antler_core::version::FeatureLevel;
use antler_core::wire::Message;
use antler_core::wire::master_peer::PeerMessage;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    pub voters: u64,
    pub learners: u64,
    pub latency: (u64, u64),
    pub disk: (u64, u64),
    pub image_log_bytes: u64,
    pub image_piece_size: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            voters: 3,
            learners: 1,
            latency: (50, 500),
            disk: (100, 2000),
            image_log_bytes: 1 << 20,
            image_piece_size: 1 << 20,
        }
    }
}

#[derive(Debug)]
enum Happening {
    Dial {
        from: u64,
        link: LinkId,
        to: u64,
    },
    Message {
        to: u64,
        boot: u64,
        link: LinkId,
        message: PeerMessage,
    },
    Closed {
        to: u64,
        boot: u64,
        link: LinkId,
    },
    Disk {
        of: u64,
        boot: u64,
        image: bool,
    },
}

/// One end of a connection.
type End = (u64, LinkId);

struct Life {
    member: Member,
    log: Log<Disk>,
    images: Images<Disk>,
    links: LinkAllocator,
    log_queue: VecDeque<JournalOperation>,
    image_queue: VecDeque<JournalOperation>,
    /// How many records of which position it applied last.
    applied: (LogPosition, usize),
    stopped: Option<String>,
}

struct Node {
    disk: Disk,
    boot: u64,
    life: Option<Life>,
    paused_until: u64,
    disk_hangs: bool,
}

/// Members, links and time (microseconds).
pub struct Group {
    pub shape: Shape,
    pub rng: Rng,
    pub now: u64,
    nodes: BTreeMap<u64, Node>,
    queue: BTreeMap<(u64, u64), Happening>,
    next: u64,
    connections: BTreeMap<End, End>,
    cuts: BTreeSet<(u64, u64)>,
    /// When the last message on a link arrives: a link is a queue.
    arrivals: BTreeMap<End, u64>,
    /// Members that are built as an older version.
    pub speaks: BTreeMap<u64, FeatureLevel>,
    /// Every record ever applied anywhere.
    history: BTreeMap<LogPosition, Vec<Record>>,
    leaders: BTreeMap<Term, u64>,
    tickets: u64,
    pub acknowledged: LogPosition,
    pub acknowledged_count: u64,
    pub dropped: u64,
    reads: BTreeMap<(u64, u64), (LogPosition, u64)>,
    pub reads_passed: u64,
    pub marks: Marks,
    /// The longest wait from a proposal to its acknowledgement.
    asked_at: BTreeMap<u64, u64>,
    pub installed: u64,
    pub leaderships: u64,
}

impl Group {
    pub fn new(shape: Shape, seed: u64) -> Self {
        let mut group = Self {
            rng: Rng::new(seed),
            now: 1_000_000,
            nodes: BTreeMap::new(),
            queue: BTreeMap::new(),
            next: 0,
            connections: BTreeMap::new(),
            cuts: BTreeSet::new(),
            arrivals: BTreeMap::new(),
            speaks: BTreeMap::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            tickets: 0,
            acknowledged: LogPosition(0),
            acknowledged_count: 0,
            dropped: 0,
            reads: BTreeMap::new(),
            reads_passed: 0,
            marks: Marks::default(),
            asked_at: BTreeMap::new(),
            installed: 0,
            leaderships: 0,
            shape,
        };
        for id in group.ids() {
            let node = Node {
                disk: Disk::default(),
                boot: 0,
                life: None,
                paused_until: 0,
                disk_hangs: false,
            };
            group.nodes.insert(id, node);
        }
        for id in group.ids() {
            group.start(id);
        }
        group
    }

    fn nanos_per_micro(&self, id: u64) -> u64 {
        [980, 1000, 1020][(id % 3) as usize]
    }

    pub fn ids(&self) -> Vec<u64> {
        (1..=self.shape.voters + self.shape.learners).collect()
    }

    /// The time on a member's clock: clocks drift apart by up to 4 percent.
    fn instant(&self, id: u64) -> Now {
        let mono = Instant(self.now * self.nanos_per_micro(id));
        Now {
            mono,
            wall: Timestamp {
                seconds: (self.now / 1_000_000) as i64,
                nanos: 0,
            },
        }
    }

    pub fn config(&self, id: u64) -> MemberConfig {
        let info = |member: u64| MemberInfo {
            member: MemberId(member),
            address: Address(format!("{member}")),
            voter: member <= self.shape.voters,
        };
        let mut config =
            MemberConfig::new(MemberId(id), self.ids().into_iter().map(info).collect());
        config.image_log_bytes = self.shape.image_log_bytes;
        config.image_piece_size = self.shape.image_piece_size;
        config.speaks = self.version(id);
        config
    }

    fn version(&self, id: u64) -> FeatureLevel {
        let known = self.speaks.get(&id);
        known.copied().unwrap_or(FeatureLevel::NEWEST)
    }

    /// Why a member ended by itself.
    pub fn stopped(&self, id: u64) -> Option<&str> {
        let life = self.nodes[&id].life.as_ref()?;
        life.stopped.as_deref()
    }

    pub fn founding(&self, id: u64) -> Founding {
        Founding {
            segment_size: 8 * BLOCK,
            ..Founding::new(
                ClusterId(7),
                MemberId(id),
                (1..=self.shape.voters).collect(),
                (self.shape.voters + 1..=self.shape.voters + self.shape.learners).collect(),
            )
        }
    }

    pub fn start(&mut self, id: u64) {
        let (founding, config, now) = (self.founding(id), self.config(id), self.instant(id));
        let seed = self.rng.word();
        let node = self.nodes.get_mut(&id).expect("it is a member");
        assert!(node.life.is_none(), "it runs already");
        node.boot += 1;
        let opened = open(node.disk.clone(), node.disk.clone(), &founding);
        let (log, images, recovered) =
            opened.unwrap_or_else(|error| panic!("member {id} does not open: {error}"));
        let applied = (recovered.meta.position, 0);
        node.life = Some(Life {
            member: Member::new(config, recovered, seed, now),
            log,
            images,
            links: LinkAllocator::default(),
            log_queue: VecDeque::new(),
            image_queue: VecDeque::new(),
            applied,
            stopped: None,
        });
        self.drain(id);
    }

    pub fn is_up(&self, id: u64) -> bool {
        self.nodes[&id].life.is_some()
    }

    /// The power goes, perhaps in the middle of what its disk was doing.
    pub fn crash(&mut self, id: u64) {
        let calls = self.rng.below(8);
        let torn = self.rng.one_in(2);
        let node = self.nodes.get_mut(&id).expect("it is a member");
        let Some(mut life) = node.life.take() else {
            return;
        };
        if torn {
            node.disk.fail_after(calls);
            if let Some(operation) = life.log_queue.pop_front() {
                life.log.execute(operation);
            }
            if let Some(operation) = life.image_queue.pop_front() {
                life.images.execute(operation);
            }
        }
        self.marks.merge(life.member.marks());
        self.marks.merge(life.log.marks());
        let mut rng = self.rng.fork();
        self.nodes[&id].disk.crash(&mut rng);
        self.reads.retain(|(of, _), _| *of != id);
        let ends: Vec<End> = self
            .connections
            .keys()
            .copied()
            .filter(|(of, _)| *of == id)
            .collect();
        for end in ends {
            self.hang_up(end);
        }
    }

    /// Its disk is new: everything it knew is gone.
    pub fn wipe(&mut self, id: u64) {
        assert!(!self.is_up(id), "stop it first");
        self.nodes.get_mut(&id).expect("it is a member").disk = Disk::default();
    }

    /// It does nothing for a while, then catches up with what it missed.
    pub fn pause(&mut self, id: u64, micros: u64) {
        self.nodes
            .get_mut(&id)
            .expect("it is a member")
            .paused_until = self.now + micros;
    }

    /// Its disk answers nothing until it is told to again.
    pub fn hang_disk(&mut self, id: u64, hangs: bool) {
        self.nodes.get_mut(&id).expect("a member").disk_hangs = hangs;
    }

    /// Nothing passes between two members.
    pub fn cut(&mut self, a: u64, b: u64) {
        self.cuts.insert((a.min(b), a.max(b)));
        let between = |from: &End, to: &End| (from.0, to.0) == (a, b) || (from.0, to.0) == (b, a);
        let ends: Vec<End> = self
            .connections
            .iter()
            .filter(|(from, to)| between(from, to))
            .map(|(from, _)| *from)
            .collect();
        for end in ends {
            self.hang_up(end);
        }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    fn is_cut(&self, a: u64, b: u64) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    /// A connection breaks; both ends notice, sooner or later.
    fn hang_up(&mut self, end: End) {
        let Some(other) = self.connections.remove(&end) else {
            return;
        };
        self.connections.remove(&other);
        for (to, link) in [end, other] {
            let boot = self.nodes[&to].boot;
            let delay = self.rng.between(100, 300_000);
            // What is still on its way is lost with the link.
            self.queue.retain(|_, what| !matches!(what, Happening::Message { to: of, link: on, .. } if (*of, *on) == (to, link)));
            self.schedule(delay, Happening::Closed { to, boot, link });
        }
    }

    fn schedule(&mut self, delay: u64, what: Happening) {
        self.next += 1;
        self.queue.insert((self.now + delay, self.next), what);
    }

    /// The member that thinks it leads in the highest term.
    pub fn leader(&self) -> Option<u64> {
        let leads = |(id, node): (&u64, &Node)| {
            let member = &node.life.as_ref()?.member;
            member.is_leader().then(|| (member.term(), *id))
        };
        self.nodes.iter().filter_map(leads).max().map(|(_, id)| id)
    }

    pub fn member(&self, id: u64) -> &Member {
        &self.nodes[&id].life.as_ref().expect("it runs").member
    }

    pub fn disk(&self, id: u64) -> Disk {
        self.nodes[&id].disk.clone()
    }

    /// Proposes a record of about `bytes` at a member.
    pub fn propose(&mut self, id: u64, bytes: usize) -> u64 {
        let body = RecordBody::BeginSession {
            name: "x".repeat(bytes),
            nonce: self.tickets + 1,
        };
        self.propose_body(id, body)
    }

    pub fn propose_body(&mut self, id: u64, body: RecordBody) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        let record = Record {
            time: Timestamp::default(),
            body,
        };
        let now = self.instant(id);
        self.asked_at.insert(ticket, self.now);
        if let Some(life) = self.life(id) {
            life.member.propose(now, ticket, record);
            self.drain(id);
        }
        ticket
    }

    /// Asks a member for a fresh read.
    pub fn read(&mut self, id: u64) -> Option<Barrier> {
        self.tickets += 1;
        let ticket = self.tickets;
        let (now, wanted) = (self.instant(id), self.acknowledged);
        let answer = self.life(id)?.member.barrier(now, ticket);
        match answer {
            Barrier::Pass => self.check_read(id, wanted),
            Barrier::Wait => {
                self.reads.insert((id, ticket), (wanted, self.now));
            }
            Barrier::NotLeader => {}
        }
        self.drain(id);
        Some(answer)
    }

    pub fn transfer(&mut self, id: u64) -> bool {
        let now = self.instant(id);
        let handed = self
            .life(id)
            .is_some_and(|life| life.member.transfer_away(now));
        self.drain(id);
        handed
    }

    pub fn change(&mut self, id: u64, change: antler_core::member::MemberChange) -> bool {
        let now = self.instant(id);
        let proposed = self
            .life(id)
            .is_some_and(|life| life.member.change_member(now, change));
        self.drain(id);
        proposed
    }

    fn check_read(&mut self, id: u64, wanted: LogPosition) {
        let seen = self.member(id).applied();
        assert!(
            seen >= wanted,
            "member {id} serves {seen}, but {wanted} was acknowledged"
        );
        self.reads_passed += 1;
    }

    fn life(&mut self, id: u64) -> Option<&mut Life> {
        self.nodes.get_mut(&id)?.life.as_mut()
    }

    /// Lets time pass.
    pub fn run(&mut self, micros: u64) {
        let until = self.now + micros;
        while self.step(until) {}
        self.now = until;
    }

    /// The next thing that happens before `until`.
    fn step(&mut self, until: u64) -> bool {
        let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
        let timeout = self.next_timeout();
        let due = queued.into_iter().chain(timeout.map(|(at, _)| at)).min();
        let Some(at) = due.filter(|&at| at <= until) else {
            return false;
        };
        self.now = self.now.max(at);
        match timeout {
            Some((when, id)) if when <= at && queued.is_none_or(|queued| when < queued) => {
                self.input(id, MemberInput::Timeout);
            }
            _ => {
                let (_, what) = self.queue.pop_first().expect("it was seen");
                self.happen(what);
            }
        }
        true
    }

    fn next_timeout(&self) -> Option<(u64, u64)> {
        let wake = |(id, node): (&u64, &Node)| {
            let life = node.life.as_ref()?;
            let at = life
                .member
                .poll_timeout()?
                .0
                .div_ceil(self.nanos_per_micro(*id));
            Some((at.max(node.paused_until).max(self.now), *id))
        };
        self.nodes.iter().filter_map(wake).min()
    }

    fn happen(&mut self, what: Happening) {
        let paused = match &what {
            Happening::Dial { to, .. } => self.nodes[to].paused_until,
            Happening::Message { to, .. } | Happening::Closed { to, .. } => {
                self.nodes[to].paused_until
            }
            Happening::Disk { of, .. } => self.nodes[of].paused_until,
        };
        if let Happening::Disk { of, .. } = &what
            && self.nodes[of].disk_hangs
        {
            return self.schedule(10_000, what);
        }
        if paused > self.now {
            let delay = paused - self.now;
            return self.schedule(delay, what);
        }
        match what {
            Happening::Dial { from, link, to } => self.dial(from, link, to),
            Happening::Message {
                to,
                boot,
                link,
                message,
            } => {
                if self.is_life(to, boot) && self.connections.contains_key(&(to, link)) {
                    self.input(to, MemberInput::Message { link, message });
                }
            }
            Happening::Closed { to, boot, link } => {
                if self.is_life(to, boot) {
                    self.input(to, MemberInput::Closed { link });
                }
            }
            Happening::Disk { of, boot, image } => {
                if self.is_life(of, boot) {
                    self.execute(of, image);
                }
            }
        }
    }

    fn is_life(&self, id: u64, boot: u64) -> bool {
        self.nodes[&id].boot == boot && self.is_up(id)
    }

    fn peer(&self, id: u64) -> Peer {
        let voter = id <= self.shape.voters;
        Peer {
            role: if voter {
                Role::Master
            } else {
                Role::Metalogger
            },
            id,
            boot: BootId(self.nodes[&id].boot),
            incarnation: Incarnation(1),
            speaks: self.version(id),
        }
    }

    fn dial(&mut self, from: u64, link: LinkId, to: u64) {
        if !self.is_up(from) {
            return;
        }
        if !self.is_up(to) || self.is_cut(from, to) {
            return self.input(from, MemberInput::Closed { link });
        }
        self.next += 1;
        let accepted = LinkId(self.next * 2);
        self.connections.insert((from, link), (to, accepted));
        self.connections.insert((to, accepted), (from, link));
        let (caller, callee) = (self.peer(from), self.peer(to));
        self.input(
            to,
            MemberInput::Accepted {
                link: accepted,
                peer: caller,
            },
        );
        self.input(from, MemberInput::Connected { link, peer: callee });
    }

    fn execute(&mut self, id: u64, image: bool) {
        let Some(life) = self.life(id) else {
            return;
        };
        let queue = if image {
            &mut life.image_queue
        } else {
            &mut life.log_queue
        };
        let Some(operation) = queue.pop_front() else {
            return;
        };
        let completion: JournalCompletion = if image {
            life.images.execute(operation)
        } else {
            life.log.execute(operation)
        };
        let more = if image {
            !life.image_queue.is_empty()
        } else {
            !life.log_queue.is_empty()
        };
        if more {
            self.begin_disk(id, image);
        }
        self.input(id, MemberInput::Completed(completion));
    }

    fn begin_disk(&mut self, of: u64, image: bool) {
        let boot = self.nodes[&of].boot;
        let (low, high) = self.shape.disk;
        let delay = self.rng.between(low, high);
        self.schedule(delay, Happening::Disk { of, boot, image });
    }

    fn input(&mut self, id: u64, input: MemberInput) {
        let now = self.instant(id);
        let Some(life) = self.life(id) else {
            return;
        };
        life.member.on_input(now, input, &mut life.links);
        life.member.check_invariants(false);
        self.drain(id);
    }

    fn drain(&mut self, id: u64) {
        while let Some(event) = self.life(id).and_then(|life| life.member.poll_event()) {
            self.on_event(id, event);
        }
    }

    fn on_event(&mut self, id: u64, event: MemberEvent) {
        match event {
            MemberEvent::Effect(effect) => self.on_effect(id, effect),
            MemberEvent::Applied {
                position,
                ticket,
                record,
                ..
            } => self.on_applied(id, position, ticket, record),
            MemberEvent::ReadReady { ticket } => {
                let read = self.reads.remove(&(id, ticket));
                let (wanted, _) = read.expect("it was asked, and waits once");
                self.check_read(id, wanted);
            }
            MemberEvent::Dropped { ticket } => {
                self.dropped += 1;
                self.reads.remove(&(id, ticket));
                self.asked_at.remove(&ticket);
            }
            MemberEvent::Leads { term } => {
                self.leaderships += 1;
                let before = self.leaders.insert(term, id);
                assert!(
                    before.is_none_or(|it| it == id),
                    "two leaders in {term}: {before:?}, {id}"
                );
            }
            MemberEvent::Follows { .. } => {}
            MemberEvent::Replaced => {
                self.installed += 1;
                let life = self.life(id).expect("it tells");
                life.applied = (life.member.applied(), usize::MAX);
            }
        }
    }

    fn on_effect(&mut self, id: u64, effect: Effect<JournalOperation, ()>) {
        match effect {
            Effect::Connect { link, address, .. } => {
                let to = address.0.parse().expect("addresses are numbers");
                let delay = self.latency();
                self.schedule(delay, Happening::Dial { from: id, link, to });
            }
            Effect::Send { link, message } => self.send(id, link, message),
            Effect::Close { link, .. } => {
                if let Some(other) = self.connections.remove(&(id, link)) {
                    self.connections.remove(&other);
                    let boot = self.nodes[&other.0].boot;
                    let (to, link) = other;
                    self.schedule(100, Happening::Closed { to, boot, link });
                }
            }
            Effect::Operate(operation) => {
                let image = operation.is_image();
                let life = self.life(id).expect("it asks");
                let queue = if image {
                    &mut life.image_queue
                } else {
                    &mut life.log_queue
                };
                queue.push_back(operation);
                if queue.len() == 1 {
                    self.begin_disk(id, image);
                }
            }
            Effect::Log { .. } => {}
            Effect::Stop { reason, .. } => {
                self.life(id).expect("it stops").stopped = Some(reason);
            }
            Effect::Answer(()) => panic!("a member answers nobody"),
        }
    }

    fn latency(&mut self) -> u64 {
        let (low, high) = self.shape.latency;
        self.rng.between(low, high)
    }

    fn send(&mut self, from: u64, link: LinkId, message: Message) {
        let Some(&(to, on)) = self.connections.get(&(from, link)) else {
            return;
        };
        let Message::Peer(message) = message else {
            panic!("members talk to members");
        };
        let arrival = (self.now + self.latency())
            .max(self.arrivals.get(&(to, on)).copied().unwrap_or_default());
        self.arrivals.insert((to, on), arrival);
        let boot = self.nodes[&to].boot;
        let what = Happening::Message {
            to,
            boot,
            link: on,
            message,
        };
        self.schedule(arrival - self.now, what);
    }

    fn on_applied(&mut self, id: u64, position: LogPosition, ticket: Option<u64>, record: Record) {
        let life = self.life(id).expect("it tells");
        let at = if life.applied.0 == position {
            life.applied.1
        } else {
            0
        };
        assert!(
            position >= life.applied.0,
            "member {id} goes back to {position}"
        );
        life.applied = (position, at + 1);
        let known = self.history.entry(position).or_default();
        match known.get(at) {
            Some(other) => assert_eq!(*other, record, "member {id} has another {position}"),
            None => known.push(record),
        }
        if let Some(ticket) = ticket {
            assert!(
                self.asked_at.remove(&ticket).is_some(),
                "{ticket} is answered once"
            );
            self.acknowledged = self.acknowledged.max(position);
            self.acknowledged_count += 1;
        }
    }

    /// Heals everything and asks for progress: one leader, a new record everywhere,
    /// equal states.
    pub fn settle(&mut self) {
        self.heal();
        for id in self.ids() {
            if !self.is_up(id) {
                self.start(id);
            }
            self.nodes.get_mut(&id).expect("a member").paused_until = 0;
        }
        let before = self.acknowledged_count;
        for _ in 0..300 {
            self.run(100_000);
            if let Some(leader) = self.leader() {
                self.propose(leader, 10);
                self.run(100_000);
            }
            if self.acknowledged_count > before && self.are_equal() {
                return self.check_states();
            }
        }
        let states: Vec<String> = self.ids().into_iter().map(|id| self.describe(id)).collect();
        panic!("no progress:\n{}", states.join("\n"));
    }

    fn describe(&self, id: u64) -> String {
        let member = self.member(id);
        format!(
            "{id}: {} leads {:?} applied {} committed {} stopped {:?}",
            member.term(),
            member.leader(),
            member.applied(),
            member.committed(),
            self.nodes[&id]
                .life
                .as_ref()
                .and_then(|life| life.stopped.clone()),
        )
    }

    fn are_equal(&self) -> bool {
        let applied: BTreeSet<LogPosition> = self
            .ids()
            .into_iter()
            .map(|id| self.member(id).applied())
            .collect();
        applied.len() == 1 && applied.first() >= Some(&self.acknowledged)
    }

    fn check_states(&mut self) {
        let digests: BTreeSet<u64> = self
            .ids()
            .into_iter()
            .map(|id| self.member(id).state().digest())
            .collect();
        assert_eq!(digests.len(), 1, "equal positions, equal states");
        for id in self.ids() {
            let life = self.nodes[&id].life.as_ref().expect("it runs");
            assert_eq!(life.stopped, None);
            life.member.check_invariants(true);
            let (member, log, images) =
                (life.member.marks(), life.log.marks(), life.images.marks());
            self.marks.merge(member);
            self.marks.merge(log);
            self.marks.merge(images);
        }
        let stuck: Vec<_> = self
            .reads
            .iter()
            .filter(|(_, (_, asked))| self.now - asked > 5_000_000)
            .collect();
        assert!(stuck.is_empty(), "reads are answered or dropped: {stuck:?}");
    }
}
