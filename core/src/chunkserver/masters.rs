//! Links to the members of the masters' group: registering with each, telling
//! them what comes and goes, and the serve lease that the leader gives.
//!
//! Invariant: the lease counts from when the `Alive` was sent that the leader
//! heard, so that it ends here no later than the leader thinks.

use super::{ChunkServer, ChunkServerConfig};
use crate::hash::Digest;
use crate::ids::{Address, Incarnation, LinkId, PartId, Term};
use crate::limits::{HEARTBEAT, REPORT_BATCH, SERVE_LEASE, SERVER_TIMEOUT};
use crate::machine::{Level, Role};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::Message;
use crate::wire::chunk_master::{CapabilityKey, ChunkToMaster, MasterToChunk, PartReport};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// One member.
#[derive(Debug)]
struct Member {
    address: Address,
    state: LinkState,
    retry: Duration,
}

#[derive(Debug)]
enum LinkState {
    Down { retry_at: Instant },
    Connecting { link: LinkId },
    Up(Up),
}

/// A link that is up.
#[derive(Debug)]
struct Up {
    link: LinkId,
    heard_at: Instant,
}

/// What is known of the masters.
#[derive(Debug)]
pub(super) struct Masters {
    members: Vec<Member>,
    term: Term,
    incarnation: Incarnation,
    keys: Vec<CapabilityKey>,
    serve_until: Instant,
    rng: Rng,
}

impl Masters {
    pub(super) fn new(config: &ChunkServerConfig, seed: u64) -> Self {
        let member = |address: &Address| Member {
            address: address.clone(),
            state: LinkState::Down {
                retry_at: Instant(0),
            },
            retry: RETRY_FIRST,
        };
        Self {
            members: config.masters.iter().map(member).collect(),
            term: Term(0),
            incarnation: config.incarnation,
            keys: Vec::new(),
            serve_until: Instant(0),
            rng: Rng::new(seed),
        }
    }

    pub(super) fn has(&self, link: LinkId) -> bool {
        self.members
            .iter()
            .any(|member| member.link() == Some(link))
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn keys(&self) -> &[CapabilityKey] {
        &self.keys
    }

    /// Whether the leader's lease lets the server serve.
    pub(super) fn may_serve(&self, now: Instant) -> bool {
        now < self.serve_until
    }

    fn member_mut(&mut self, link: LinkId) -> &mut Member {
        let mut members = self.members.iter_mut();
        let member = members.find(|member| member.link() == Some(link));
        member.expect("the link is a member's")
    }

    fn up_links(&self) -> Vec<LinkId> {
        let up = |member: &Member| match &member.state {
            LinkState::Up(up) => Some(up.link),
            _ => None,
        };
        self.members.iter().filter_map(up).collect()
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest
            .word(self.term.0)
            .word(self.incarnation.0)
            .word(self.serve_until.0);
    }
}

impl Member {
    fn link(&self) -> Option<LinkId> {
        match &self.state {
            LinkState::Down { .. } => None,
            LinkState::Connecting { link } => Some(*link),
            LinkState::Up(up) => Some(up.link),
        }
    }
}

impl ChunkServer {
    fn tell_member(&mut self, link: LinkId, message: ChunkToMaster) {
        self.send(link, Message::ChunkToMaster(message));
    }

    fn tell_members(&mut self, message: &ChunkToMaster) {
        for link in self.masters.up_links() {
            self.tell_member(link, message.clone());
        }
    }

    pub(super) fn say_gained(&mut self, parts: Vec<PartReport>) {
        self.tell_members(&ChunkToMaster::Gained { parts });
    }

    /// Tells the members of parts that writers made: a chunk that is deleted before
    /// its lease ends well is known to them by nothing else.
    pub(super) fn say_fresh(&mut self) {
        for parts in self.parts.take_fresh().chunks(REPORT_BATCH) {
            self.say_gained(parts.to_vec());
        }
    }

    pub(super) fn say_lost(&mut self, parts: Vec<PartId>) {
        self.tell_members(&ChunkToMaster::Lost { parts });
    }

    pub(super) fn say_leaving(&mut self) {
        self.tell_members(&ChunkToMaster::Leaving);
    }

    /// Answers a command on the link that it came on, if that is still up.
    pub(super) fn answer_member(&mut self, link: LinkId, message: ChunkToMaster) {
        if self.masters.up_links().contains(&link) {
            self.tell_member(link, message);
        }
    }

    /// Registers on a link that just came up: who it is, then every part.
    pub(super) fn on_master_up(&mut self, link: LinkId) {
        let now = self.now;
        self.masters.member_mut(link).state = LinkState::Up(Up {
            link,
            heard_at: now,
        });
        let register = ChunkToMaster::Register {
            server: self.config.server,
            boot: self.config.boot,
            address: self.config.address.clone(),
            labels: self.config.labels.clone(),
            disks: self.disk_statuses(),
            incarnation: self.masters.incarnation,
        };
        self.tell_member(link, register);
        self.tell_lost(link);
        let reports: Vec<PartReport> = self.parts.reports().collect();
        let mut batches: Vec<&[PartReport]> = reports.chunks(REPORT_BATCH).collect();
        if batches.is_empty() {
            batches.push(&[]);
        }
        let last = batches.len() - 1;
        for (at, batch) in batches.into_iter().enumerate() {
            let report = ChunkToMaster::Report {
                parts: batch.to_vec(),
                last: at == last,
            };
            self.tell_member(link, report);
        }
        self.say_alive(&[link]);
        if self.stopping.is_some() {
            self.tell_member(link, ChunkToMaster::Leaving);
        }
    }

    /// Tells a member what was here in this life and is not taken any more: a report that
    /// does not name it says only that it may never have been.
    fn tell_lost(&mut self, link: LinkId) {
        let lost: Vec<PartId> = self.parts.lost().collect();
        for batch in lost.chunks(REPORT_BATCH) {
            let parts = batch.to_vec();
            self.tell_member(link, ChunkToMaster::Lost { parts });
        }
    }

    /// Tells the members at once what the disks are like.
    pub(super) fn say_disks(&mut self) {
        self.say_alive(&self.masters.up_links());
    }

    fn say_alive(&mut self, links: &[LinkId]) {
        let (disks, load) = (self.disk_statuses(), self.load());
        for &link in links {
            let alive = ChunkToMaster::Alive {
                disks: disks.clone(),
                load,
                // 0 would mean that none was heard.
                sent: self.now.0.max(1),
            };
            self.tell_member(link, alive);
        }
    }

    pub(super) fn on_master_down(&mut self, link: LinkId, reason: &str) {
        let now = self.now;
        let jitter = self.masters.rng.between(75, 125);
        let member = self.masters.member_mut(link);
        let was_up = matches!(member.state, LinkState::Up(_));
        let wait = Duration::from_millis(
            u64::try_from(member.retry.as_millis()).expect("seconds at most") * jitter / 100,
        );
        member.state = LinkState::Down {
            retry_at: now + wait,
        };
        member.retry = (member.retry * 2).min(RETRY_MOST);
        let address = member.address.clone();
        if was_up {
            self.log(
                Level::Warn,
                format!("the link to master {address} broke: {reason}"),
            );
        }
    }

    fn drop_master(&mut self, link: LinkId, reason: &str) {
        self.close(link, reason);
        self.on_master_down(link, reason);
    }

    pub(super) fn on_master(&mut self, link: LinkId, message: MasterToChunk) {
        match message {
            MasterToChunk::Heard {
                term,
                leader,
                incarnation,
                keys,
                heard,
            } => {
                if self.on_heard(link, term, incarnation) && leader {
                    self.on_leader_heard(keys, heard);
                }
            }
            MasterToChunk::Refused { reason } => {
                self.log(
                    Level::Error,
                    format!("a master refused this server: {reason}"),
                );
                self.masters.member_mut(link).retry = RETRY_MOST;
                self.drop_master(link, "refused");
            }
            MasterToChunk::Command {
                command,
                term,
                body,
            } => {
                if term >= self.masters.term {
                    self.masters.term = term;
                    self.on_command(link, command, body);
                }
            }
        }
    }

    /// Notes what a member says; false if it is of the past, or can't tell yet: one that has
    /// just begun knows of no life of the cluster before it has read its log again.
    fn on_heard(&mut self, link: LinkId, term: Term, incarnation: Incarnation) -> bool {
        let is_of_now = incarnation >= self.masters.incarnation;
        if !is_of_now && incarnation > Incarnation::default() {
            self.drop_master(link, "it is of an older life of the cluster");
            return false;
        }
        let now = self.now;
        let masters = &mut self.masters;
        masters.incarnation = masters.incarnation.max(incarnation);
        let member = masters.member_mut(link);
        member.retry = RETRY_FIRST;
        if let LinkState::Up(up) = &mut member.state {
            up.heard_at = now;
        }
        let is_current = is_of_now && term >= masters.term;
        if is_of_now {
            masters.term = masters.term.max(term);
        }
        is_current
    }

    fn on_leader_heard(&mut self, keys: Vec<CapabilityKey>, heard: u64) {
        let now = self.now;
        let masters = &mut self.masters;
        masters.keys = keys;
        if heard > 0 {
            // A clock that the leader made up must not lend us time.
            let until = Instant(heard).min(now) + SERVE_LEASE;
            masters.serve_until = masters.serve_until.max(until);
        }
    }

    /// Connects, says `Alive`, and gives up on links where nobody answers.
    pub(super) fn tick_masters(&mut self) {
        let now = self.now;
        let mut silent = Vec::new();
        let mut alive = Vec::new();
        let mut wanted = Vec::new();
        for (at, member) in self.masters.members.iter_mut().enumerate() {
            match &mut member.state {
                LinkState::Down { retry_at } if *retry_at <= now => wanted.push(at),
                LinkState::Down { .. } | LinkState::Connecting { .. } => {}
                LinkState::Up(up) if now.since(up.heard_at) > SERVER_TIMEOUT => {
                    silent.push(up.link);
                }
                LinkState::Up(up) => alive.push(up.link),
            }
        }
        for link in silent {
            self.drop_master(link, "it did not answer");
        }
        for at in wanted {
            let address = self.masters.members[at].address.clone();
            let link = self.connect(address, Role::Master);
            self.masters.members[at].state = LinkState::Connecting { link };
        }
        self.say_alive(&alive);
    }
}

const _: () = assert!(
    HEARTBEAT.as_millis() * 3 < SERVE_LEASE.as_millis(),
    "three heartbeats may be lost"
);
