//! The chunkserver: keeps copies of chunks on its disks, serves the data port,
//! and does what the leader of the masters says.
//!
//! [`ChunkServer`] owns what may be done and in which order; how bytes lie on a
//! disk is `crate::chunk`'s. By module: `masters` links, registration, the serve
//! lease; `requests` the data port and the chain; `peers` links to other
//! chunkservers; `closing` disks that come and go; `parts` the table of parts and one queue for each; `disks` what
//! is under way on each disk, group commit, checkpoints; `commands` the leader's
//! commands; `replicate` making a part equal to another server's; `scrub` reading what
//! nobody reads; `moves` parts that move to another disk of the server; `recheck` reading again what could not be read for a moment.
//!
//! Invariants: a writer whose epoch is behind the newest seen changes nothing; an
//! acknowledged sync is durable here and at every server behind it in the chain;
//! nothing is served without a valid capability or after the serve lease ended; a
//! part that was lost in this life is not made anew by a writer.

mod balance;
mod build;
mod closing;
mod commands;
mod disks;
mod health;
mod masters;
mod moves;
mod pace;
mod parts;
mod peers;
mod recheck;
mod replicate;
mod requests;
mod scrub;
mod sourcing;

use crate::chunk::operation::{DiskCompletion, DiskOperation, OpenedDisk};
use crate::hash::Digest;
use crate::ids::{Address, BootId, Incarnation, LinkId, PartId, ServerId, Token};
use crate::limits::{self, HEARTBEAT};
use crate::machine::{Effect, Input, Level, LinkAllocator, Machine, Peer, Role, ServerRequest};
use crate::marks::Marks;
use crate::time::{Duration, Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::Message;
use commands::Commands;
use disks::{Disks, Issued};
use masters::Masters;
use moves::Moves;
use pace::Pace;
use parts::Parts;
use peers::Peers;
use recheck::Rechecks;
use replicate::Replications;
use requests::Jobs;
use scrub::Scrub;
use sourcing::Sourcing;
use std::collections::{BTreeMap, VecDeque};

/// For how long a graceful stop waits for the disks.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How a chunkserver is set up.
#[derive(Clone, Debug)]
pub struct ChunkServerConfig {
    /// Who it is.
    pub server: ServerId,
    /// Its life, drawn at this start.
    pub boot: BootId,
    /// Where its data port is, as others reach it.
    pub address: Address,
    /// Where it stands and what it is.
    pub labels: Vec<(String, String)>,
    /// Every member of the masters' group that it registers with.
    pub masters: Vec<Address>,
    /// The newest life of the cluster that it knows.
    pub incarnation: Incarnation,
    /// The bounds.
    pub limits: Limits,
    /// How fast each disk is read to find what is bad, in bytes a second; 0: not at all.
    pub scrub: u64,
    /// How much longer clients' operations may take beside repair than without, in percent
    /// of their 99th percentile: 200 is twice as long. At least 100.
    pub repair_slowdown: u32,
    /// What it does about its disks of itself.
    pub care: DiskCare,
    /// The version that it is built as.
    pub speaks: FeatureLevel,
}

/// What a chunkserver does about its disks of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskCare {
    /// Parts move to another disk that uses less of its space by more than so many percent; 0:
    /// none do.
    pub balance: u32,
    /// A disk half of whose reads take longer than that, for a minute, is suspected; zero: none
    /// is for being slow.
    pub slow: Duration,
    /// A disk of which so many reads failed is suspected; 0: none is for that.
    pub read_errors: u32,
}

impl Default for DiskCare {
    fn default() -> Self {
        Self {
            balance: limits::BALANCE_PERCENT.into(),
            slow: Duration::from_secs(1),
            read_errors: 4,
        }
    }
}

/// A chunkserver's bounds: those of `limits.rs`, which a simulation makes tiny, so that
/// full queues are met. None may be more than its constant, or 0.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations that wait; a request beyond is answered `Busy`.
    pub queue_max: usize,
    /// Operations under way on one disk.
    pub disk_inflight_max: usize,
    /// Parts that are made from another server's at once.
    pub repair_inflight_max: usize,
    /// Operations of either kind by which it is judged how much repair may take.
    pub repair_samples: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_max: limits::CHUNKSERVER_QUEUE_MAX,
            disk_inflight_max: limits::DISK_INFLIGHT_MAX,
            repair_inflight_max: limits::REPAIR_INFLIGHT_MAX,
            repair_samples: limits::REPAIR_SAMPLES,
        }
    }
}

impl Limits {
    /// # Panics
    /// When a bound is 0 or more than its constant.
    fn check(&self) {
        let all = [
            (self.queue_max, limits::CHUNKSERVER_QUEUE_MAX),
            (self.disk_inflight_max, limits::DISK_INFLIGHT_MAX),
            (self.repair_inflight_max, limits::REPAIR_INFLIGHT_MAX),
        ];
        for (bound, most) in all {
            assert!((1..=most).contains(&bound), "a bound of 1..={most}");
        }
        let samples = self.repair_samples;
        assert!(
            (1..=limits::REPAIR_SAMPLES).contains(&samples),
            "{samples} samples"
        );
    }
}

/// A chunkserver. See the module for what it keeps; it is driven as
/// [`crate::machine`] says.
#[derive(Debug)]
pub struct ChunkServer {
    config: ChunkServerConfig,
    now: Instant,
    tick_at: Instant,
    effects: VecDeque<Effect<DiskOperation, ()>>,
    /// What was to be said of the disks as they were opened: the first input brings it
    /// out, as nothing is drained before one.
    opening: VecDeque<Effect<DiskOperation, ()>>,
    links: LinkAllocator,
    /// Links that others opened.
    accepted: BTreeMap<LinkId, Role>,
    /// Until then somebody waits for what this server does: repair makes room.
    foreground_until: Instant,
    masters: Masters,
    peers: Peers,
    parts: Parts,
    disks: Disks,
    jobs: Jobs,
    commands: Commands,
    replications: Replications,
    sourcing: Sourcing,
    pace: Pace,
    moves: Moves,
    rechecks: Rechecks,
    scrub: Scrub,
    issued: BTreeMap<Token, Issued>,
    next_token: Token,
    /// A graceful stop was asked for; it gives up at that instant.
    stopping: Option<Instant>,
    stopped: bool,
    marks: Marks,
}

impl ChunkServer {
    /// A chunkserver on its opened disks.
    #[must_use]
    pub fn new(config: ChunkServerConfig, disks: Vec<OpenedDisk>, seed: u64, now: Now) -> Self {
        config.limits.check();
        let mut server = Self {
            now: now.mono,
            tick_at: now.mono,
            effects: VecDeque::new(),
            opening: VecDeque::new(),
            links: LinkAllocator::default(),
            accepted: BTreeMap::new(),
            foreground_until: Instant(0),
            masters: Masters::new(&config, seed),
            peers: Peers::default(),
            parts: Parts::default(),
            disks: Disks::default(),
            jobs: Jobs::default(),
            commands: Commands::default(),
            replications: Replications::default(),
            sourcing: Sourcing::default(),
            pace: Pace::new(config.repair_slowdown, config.limits.repair_samples),
            moves: Moves::default(),
            rechecks: Rechecks::default(),
            scrub: Scrub::new(config.scrub, seed),
            issued: BTreeMap::new(),
            next_token: Token(0),
            stopping: None,
            stopped: false,
            marks: Marks::default(),
            config,
        };
        for disk in disks {
            server.add_disk(disk);
        }
        server.follow_drains();
        server.opening = std::mem::take(&mut server.effects);
        server
    }

    /// The parts that it found damaged, and that nothing took the place of yet.
    pub fn bad_parts(&self) -> impl Iterator<Item = PartId> + '_ {
        self.parts.bad()
    }

    fn send(&mut self, link: LinkId, message: Message) {
        self.effects.push_back(Effect::Send { link, message });
    }

    fn close(&mut self, link: LinkId, reason: impl Into<String>) {
        let reason = reason.into();
        self.effects.push_back(Effect::Close { link, reason });
    }

    fn connect(&mut self, address: Address, role: Role) -> LinkId {
        let link = self.links.allocate();
        self.effects.push_back(Effect::Connect {
            link,
            address,
            role,
        });
        link
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        let text = text.into();
        self.effects.push_back(Effect::Log { level, text });
    }

    fn on_accepted(&mut self, link: LinkId, peer: &Peer) {
        match peer.role {
            Role::Client | Role::ChunkServer => {
                let before = self.accepted.insert(link, peer.role);
                assert!(before.is_none(), "a new link");
            }
            Role::Master | Role::Metalogger => {
                self.close(link, "chunkservers connect to masters, not the other way");
            }
        }
    }

    fn on_connected(&mut self, link: LinkId, peer: &Peer) {
        if self.masters.has(link) {
            self.on_master_up(link);
        } else {
            self.on_peer_up(link, peer);
        }
    }

    fn on_closed(&mut self, link: LinkId, reason: &str) {
        if self.accepted.remove(&link).is_some() {
            return;
        }
        if self.masters.has(link) {
            self.on_master_down(link, reason);
        } else {
            self.on_peer_down(link, reason);
        }
    }

    fn on_message(&mut self, link: LinkId, message: Message) {
        match message {
            Message::ChunkRequest(request) if self.accepted.contains_key(&link) => {
                self.on_request(link, request);
            }
            Message::ChunkReply(reply) => self.on_reply(link, reply),
            Message::MasterToChunk(message) if self.masters.has(link) => {
                self.on_master(link, message);
            }
            _ => self.on_nonsense(link),
        }
    }

    /// A fault of the peer: its link is closed.
    fn on_nonsense(&mut self, link: LinkId) {
        let reason = "a message that a chunkserver does not take on this link";
        self.close(link, reason);
        self.on_closed(link, reason);
    }

    /// What rested long enough, and what is due every heartbeat.
    fn on_timeout(&mut self) {
        self.resume_replications();
        self.pump_sourcing();
        self.tick_scrub();
        self.tick_moves();
        if self.now < self.tick_at {
            return;
        }
        self.tick_at = self.now + HEARTBEAT;
        self.tick_masters();
        self.tick_peers();
        self.tick_disks();
        self.tick_rechecks();
        self.judge_disks();
        self.follow_balance();
        self.say_fresh();
        self.commit_idle();
    }

    fn on_shutdown(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(self.now + STOP_PATIENCE);
            self.say_leaving();
            self.commit_all();
        }
    }

    /// Stops once everything is on the disks.
    fn try_stop(&mut self) {
        let Some(until) = self.stopping.filter(|_| !self.stopped) else {
            return;
        };
        let busy = self.disks.has_work(&self.issued) || self.parts.has_work();
        if busy && self.now < until {
            return;
        }
        self.stopped = true;
        self.effects.push_back(Effect::Stop {
            graceful: !busy,
            reason: match busy {
                true => "the disks did not finish in time".to_owned(),
                false => "asked to stop; everything is on the disks".to_owned(),
            },
        });
    }
}

impl Machine for ChunkServer {
    type Operation = DiskOperation;
    type Completion = DiskCompletion;
    type Request = ServerRequest;
    type Answer = ();

    fn handle(&mut self, now: Now, input: Input<DiskCompletion, ServerRequest>) {
        assert!(
            self.effects.is_empty(),
            "effects are drained before the next input"
        );
        self.now = self.now.max(now.mono);
        self.scrub.note(now);
        self.effects.append(&mut self.opening);
        if self.stopped {
            return;
        }
        match input {
            Input::Accepted { link, peer } => self.on_accepted(link, &peer),
            Input::Connected { link, peer } => self.on_connected(link, &peer),
            Input::Closed { link, reason } => self.on_closed(link, &reason),
            Input::Message { link, message } => self.on_message(link, message),
            Input::Completed(completion) => self.on_completed(completion),
            Input::Request(ServerRequest::Shutdown) => self.on_shutdown(),
            Input::Request(ServerRequest::Disks(changes)) => self.change_disks(changes),
            Input::Timeout => self.on_timeout(),
        }
        self.close_disks();
        self.try_stop();
    }

    fn poll_effect(&mut self) -> Option<Effect<DiskOperation, ()>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let resume = self
            .replications
            .resume_at()
            .min(self.sourcing.due(self.now));
        let next = self.tick_at.min(resume);
        let next = match self.stopping {
            None => next.min(self.scrub.due()).min(self.moves.due()),
            Some(_) => next,
        };
        (!self.stopped).then_some(next)
    }

    fn incarnation(&self) -> Option<Incarnation> {
        Some(self.masters.incarnation())
    }

    fn speaks(&self) -> FeatureLevel {
        self.config.speaks
    }

    fn digest(&self, digest: &mut Digest) {
        digest.word(self.next_token.0).word(self.config.boot.0);
        self.masters.digest(digest);
        self.parts.digest(digest);
        self.jobs.digest(digest);
        self.scrub.digest(digest);
    }

    fn check_invariants(&self, whole: bool) {
        let most = self.config.limits.disk_inflight_max;
        self.disks.check_invariants(&self.issued, most);
        self.parts.check_invariants(&self.disks, whole);
    }

    fn marks(&self) -> Marks {
        self.marks
    }
}

/// A disk, for messages.
type DiskStatuses = Vec<crate::wire::client_master::DiskStatus>;

impl ChunkServer {
    /// Its disks as it tells of them.
    #[must_use]
    pub fn disk_statuses(&self) -> DiskStatuses {
        self.disks.statuses(&self.scrub)
    }

    /// Operations under way and waiting.
    fn load(&self) -> u32 {
        u32::try_from(self.issued.len() + self.parts.waiting()).unwrap_or(u32::MAX)
    }
}
