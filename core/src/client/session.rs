//! The session with the leader: finding it among the masters, Hello and resuming,
//! heartbeats, the cache lease, failover. Leaves what is asked over it to `calls`.
//!
//! Invariant: one link at most; nothing but Hello is sent on it before Welcome;
//! before Hello everything cached, by us or by the kernel, is dropped or lapsed.

use super::Client;
use super::timers::Timer;
use crate::ids::{Address, InodeId, LinkId, SessionId};
use crate::machine::{Effect, Level, Role};
use crate::marks::Mark;
use crate::time::{Duration, Instant};
use crate::version::FeatureLevel;
use crate::wire::Message;
use crate::wire::client_master::{ClientToMaster, MasterToClient};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// No link; one will be tried.
    Down,
    /// A link was asked for.
    Connecting,
    /// The link is up; the kernel's cache must lapse before Hello.
    Lapsing,
    /// Hello was sent.
    Greeting,
    /// Welcomed.
    Standing,
}

/// The session with the masters.
#[derive(Debug)]
pub(super) struct Session {
    stage: Stage,
    link: Option<LinkId>,
    id: Option<SessionId>,
    /// Sessions that ended before this one.
    ended: u64,
    /// How often a leader was found anew for a session that was there.
    resumed: u64,
    masters: Vec<Address>,
    next_master: usize,
    /// Who is said to lead.
    hint: Option<Address>,
    /// Whom the link goes to.
    address: Address,
    /// The version that is spoken on the link.
    version: FeatureLevel,
    /// Links tried since the last Welcome.
    attempts: u32,
    lease: Duration,
    lease_until: Instant,
    heard: Instant,
    was_ready: bool,
}

impl Session {
    pub(super) fn new(masters: Vec<Address>) -> Self {
        assert!(!masters.is_empty(), "a client knows a master");
        Self {
            stage: Stage::Down,
            link: None,
            id: None,
            ended: 0,
            resumed: 0,
            masters,
            next_master: 0,
            hint: None,
            address: Address::default(),
            version: FeatureLevel::FIRST,
            attempts: 0,
            lease: Duration::ZERO,
            lease_until: Instant(0),
            heard: Instant(0),
            was_ready: false,
        }
    }

    /// Which link to a leader this is, of those of a session.
    pub(super) fn resumed(&self) -> u64 {
        self.resumed
    }

    pub(super) fn is_standing(&self) -> bool {
        self.stage == Stage::Standing
    }

    pub(super) fn is_link(&self, link: LinkId) -> bool {
        self.link == Some(link)
    }

    pub(super) fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// The version that the link to the master speaks.
    pub(super) fn version(&self) -> FeatureLevel {
        self.version
    }

    /// How long the cache may still be used.
    pub(super) fn lease_left(&self, now: Instant) -> Duration {
        if self.is_standing() {
            self.lease_until.since(now)
        } else {
            Duration::ZERO
        }
    }

    fn next_address(&mut self) -> Address {
        if let Some(leader) = self.hint.take() {
            return leader;
        }
        let address = self.masters[self.next_master % self.masters.len()].clone();
        self.next_master += 1;
        address
    }
}

impl Client {
    /// Sends on the master's link, if there is one: what must arrive is sent again
    /// on the next.
    pub(super) fn tell_master(&mut self, message: ClientToMaster) {
        if let Some(link) = self.session.link {
            self.effects.push_back(Effect::Send {
                link,
                message: Message::ClientToMaster(message),
            });
        }
    }

    /// Tries the next master.
    pub(super) fn on_reconnect_due(&mut self) {
        if self.session.stage != Stage::Down || self.is_over() {
            return;
        }
        let link = self.links.allocate();
        let address = self.session.next_address();
        self.session.address = address.clone();
        self.session.link = Some(link);
        self.session.stage = Stage::Connecting;
        let role = Role::Master;
        self.effects.push_back(Effect::Connect {
            link,
            address,
            role,
        });
        let late = self.now.mono + self.config.limits.master_timeout;
        self.timers.set(Timer::Master, late);
    }

    pub(super) fn on_master_connected(&mut self, version: FeatureLevel) {
        self.session.version = version;
        self.session.stage = Stage::Lapsing;
        let lapse = self.cache.kernel_until();
        if lapse > self.now.mono {
            self.timers.cancel(Timer::Master);
            self.timers.set(Timer::Greet, lapse);
        } else {
            self.greet();
        }
    }

    /// Drops every cached entry, then says Hello.
    pub(super) fn greet(&mut self) {
        if self.session.stage != Stage::Lapsing {
            return;
        }
        self.forget_everything();
        // What answers to changes sent before tell may have changed unheard.
        self.cache.note_push();
        self.invalidate_open_files();
        self.closed.clear();
        let opens = self.open_inodes();
        self.tell_master(ClientToMaster::Hello {
            name: self.config.name.clone(),
            nonce: self.config.nonce.wrapping_add(self.session.ended),
            resume: self.session.id,
            opens,
            labels: self.config.labels.clone(),
            creating: self.calls.creating(),
        });
        self.session.stage = Stage::Greeting;
        let late = self.now.mono + self.config.limits.master_timeout;
        self.timers.set(Timer::Master, late);
    }

    fn open_inodes(&self) -> Vec<InodeId> {
        let open = |file: &super::file::File| file.handles + file.opening > 0;
        self.files
            .iter()
            .filter(|(_, file)| open(file))
            .map(|(&inode, _)| inode)
            .collect()
    }

    pub(super) fn on_master_message(&mut self, message: MasterToClient) {
        self.session.heard = self.now.mono;
        match message {
            MasterToClient::Welcome {
                session,
                cache_lease_millis,
                masters,
                ..
            } => self.on_welcome(session, cache_lease_millis, masters),
            MasterToClient::NotLeader { leader } => {
                self.session.hint = leader;
                self.drop_master("it does not lead", true);
            }
            MasterToClient::SessionEnded => self.on_session_ended(),
            MasterToClient::Answer {
                mutation,
                id,
                result,
                around,
            } => {
                self.on_answer(mutation, id, result);
                self.learn_around(around);
            }
            MasterToClient::AliveToo { echo } => self.on_alive(Instant(echo)),
            MasterToClient::Push { push, stale } => self.on_push(push, stale),
            MasterToClient::Recall { leases } => self.on_recall(leases),
        }
    }

    fn on_welcome(&mut self, id: SessionId, lease_millis: u32, masters: Vec<Address>) {
        if self.session.stage != Stage::Greeting {
            return;
        }
        if self.session.id.is_some_and(|before| before != id) {
            // A leader that gave another session than the one to resume lost ours.
            self.on_session_ended();
            return;
        }
        let resumed = self.session.id.replace(id).is_some();
        self.session.stage = Stage::Standing;
        self.session.attempts = 0;
        self.session.lease = Duration::from_millis(lease_millis.into());
        self.session.lease_until = Instant(0);
        self.learn_masters(masters);
        self.timers.cancel(Timer::Master);
        if resumed {
            self.session.resumed += 1;
            self.marks.reach(Mark::SessionResumed);
        }
        let master = &self.session.address;
        let text = format!("session {id} stands with {master}");
        self.log(Level::Info, text);
        if !std::mem::replace(&mut self.session.was_ready, true) {
            self.tell(super::request::ClientAnswer::Ready);
        }
        self.on_heartbeat_due();
        self.resend_calls();
    }

    fn learn_masters(&mut self, told: Vec<Address>) {
        let mut masters = told;
        for address in &self.config.masters {
            if !masters.contains(address) {
                masters.push(address.clone());
            }
        }
        self.session.masters = masters;
    }

    fn on_alive(&mut self, sent: Instant) {
        if self.session.is_standing() && sent <= self.now.mono {
            let until = sent + self.session.lease;
            self.session.lease_until = self.session.lease_until.max(until);
        }
    }

    /// Tells the leader that the client lives, or leaves a leader that does not answer.
    pub(super) fn on_heartbeat_due(&mut self) {
        if !self.session.is_standing() {
            return;
        }
        let silence = self.now.mono.since(self.session.heard);
        if silence > self.config.limits.master_timeout {
            self.drop_master("it does not answer", true);
            return;
        }
        let echo = self.now.mono.0;
        self.tell_master(ClientToMaster::Alive { echo });
        let next = self.now.mono + self.config.limits.heartbeat;
        self.timers.set(Timer::Heartbeat, next);
    }

    /// The link to the master is over, or is ended here (`close`).
    pub(super) fn drop_master(&mut self, reason: &str, close: bool) {
        let Some(link) = self.session.link.take() else {
            return;
        };
        if close {
            self.effects.push_back(Effect::Close {
                link,
                reason: reason.to_owned(),
            });
        }
        if self.session.stage == Stage::Standing {
            let text = format!("lost the master {}: {reason}", self.session.address);
            self.log(Level::Warn, text);
        }
        self.session.stage = Stage::Down;
        for timer in [Timer::Master, Timer::Heartbeat, Timer::Greet] {
            self.timers.cancel(timer);
        }
        let pause = self.reconnect_pause();
        self.timers.set(Timer::Reconnect, self.now.mono + pause);
    }

    /// Every master is tried once without a pause, then rounds are spaced out.
    fn reconnect_pause(&mut self) -> Duration {
        self.session.attempts += 1;
        let masters = u32::try_from(self.session.masters.len()).unwrap_or(u32::MAX);
        let (round, place) = (
            self.session.attempts / masters,
            self.session.attempts % masters,
        );
        let known = self.session.hint.is_some() && round == 0;
        if known || place != 0 {
            Duration::ZERO
        } else {
            self.backoff(round)
        }
    }

    /// The session is gone: what was not durable is lost and its writers are told;
    /// then a new one begins, with the same master first.
    fn on_session_ended(&mut self) {
        self.log(
            Level::Error,
            "the session ended: unsynced data is lost".to_owned(),
        );
        self.session.id = None;
        self.session.ended += 1;
        self.session.hint = Some(self.session.address.clone());
        self.drop_master("the session ended", true);
        self.fail_files();
        self.fail_calls();
    }
}
