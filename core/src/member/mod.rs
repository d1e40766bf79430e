//! A member of the masters' group: Raft, the replicated state, and its storage.
//! A master is a member that votes, a metalogger one that does not.
//!
//! Owns consensus (the `raft` crate's `RawNode`, fed through our own codec), the
//! order in which log, state, images and messages move, read barriers, and the
//! links to the other members. Leaves the bytes on disk to `journal`, the meaning
//! of records to `namespace`, clients and chunkservers to `master`.
//!
//! Invariants: nothing that vouches for an entry, a vote or a term is sent before
//! it is durable here; a record is applied once it is durable at a quorum, in log
//! order, on every member alike; a read passes only while nobody else can lead.
//!
//! Reading order: `event` (what goes in and out), this file (the methods of
//! [`Member`]), `drive` (what Raft wants), `receive` (what others say), `keep`
//! (images), then the parts: `persist`, `proposals`, `barrier`, `peers`, `fetch`,
//! `images`, `store`, and the codecs. `recover` stands apart: what is done when
//! every master is lost.

mod barrier;
mod config;
mod drive;
pub mod entry_codec;
mod event;
mod fetch;
mod images;
mod keep;
mod membership;
mod peers;
mod persist;
mod proposals;
pub mod raft_codec;
mod receive;
mod recover;
mod store;

pub use config::{MemberConfig, MemberInfo};
pub use event::{Barrier, MemberChange, MemberEvent, MemberInput};
pub use recover::{Holding, Takeover, TakeoverError};

use crate::hash::Digest;
use crate::ids::{Address, LinkId, LogPosition, MemberId, Term, Token};
use crate::journal::Recovered;
use crate::journal::operation::{HardState, ImageMeta, JournalOperation, LogEntry};
use crate::machine::{Effect, Level, LinkAllocator, Role};
use crate::marks::{Mark, Marks};
use crate::namespace::State;
use crate::namespace::record::{Record, RecordBody};
use crate::time::{Duration, Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::client_master::MemberStatus;
use barrier::Barriers;
use fetch::Fetch;
use images::ImagePlan;
use peers::Peers;
use persist::Persist;
use proposals::Proposals;
use raft::eraftpb::{ConfChangeType, HardState as RaftHardState};
use raft::{RawNode, StateRole};
use raft_codec::{conf_state, entry_kind, make_entry};
use std::collections::VecDeque;
use store::{Store, StoredImage};

/// A member of the group.
///
/// Like a machine, but embedded in one: after any call, drain
/// [`poll_event`](Self::poll_event) to the end, and call
/// [`on_input`](Self::on_input) with `Timeout` at
/// [`poll_timeout`](Self::poll_timeout).
/// - Inputs: `on_input`, for everything whose link it [`owns`](Self::owns), for
///   members that connect, and for every journal completion.
/// - Leading: `propose`, `barrier`, `change_member`, `transfer_away`.
/// - Asking: all the others, at any time.
pub struct Member {
    config: MemberConfig,
    seed: u64,
    raft: RawNode<Store>,
    state: State,
    applied: LogPosition,
    applied_term: Term,
    persist: Persist,
    proposals: Proposals,
    barriers: Barriers,
    lease_used: bool,
    peers: Peers,
    fetch: Option<Fetch>,
    installed: Option<(StoredImage, Box<State>)>,
    images: ImagePlan,
    events: VecDeque<MemberEvent>,
    marks: Marks,
    next_token: u64,
    next_tick: Instant,
    /// No vote and no campaign before: it may have vouched for a leader.
    mute_until: Instant,
    /// The term whose first entry was applied while leading.
    led: Option<Term>,
    standing: Standing,
    /// Changes of standing, for the randomised election timeout.
    changes: u64,
    /// When the log operation under way began.
    log_began: Instant,
    now: Instant,
    stopped: bool,
}

/// Who leads, as last told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standing {
    term: Term,
    role: StateRole,
    leader: Option<MemberId>,
}

impl Member {
    /// A member that goes on from what its storage recovered. `seed` makes its
    /// election timeouts.
    ///
    /// # Panics
    /// When the configuration contradicts itself, or the storage recovered what
    /// `journal::open` never returns.
    #[must_use]
    pub fn new(config: MemberConfig, recovered: Recovered, seed: u64, now: Now) -> Self {
        config.assert_valid();
        let Recovered {
            hard,
            entries,
            meta,
            state,
            marks,
        } = recovered;
        let store = recovered_store(&meta, hard, entries);
        let raft = RawNode::new(&raft_config(&config, meta.position), store, &silent())
            .expect("the configuration was checked");
        let mut member = Self {
            seed,
            raft,
            state,
            applied: meta.position,
            applied_term: meta.term,
            persist: Persist::new(hard),
            proposals: Proposals::default(),
            barriers: Barriers::new(config.lease_duration()),
            lease_used: false,
            peers: Peers::new(config.member, &config.members),
            fetch: None,
            installed: None,
            images: ImagePlan::new(config.image_log_bytes, meta.position),
            events: VecDeque::new(),
            marks,
            next_token: 1,
            next_tick: now.mono + config.tick,
            mute_until: now.mono + config.election_timeout(),
            led: None,
            standing: Standing {
                term: hard.term,
                role: StateRole::Follower,
                leader: None,
            },
            changes: 0,
            log_began: now.mono,
            now: now.mono,
            stopped: false,
            config,
        };
        if !member.knows_level() {
            return member;
        }
        member.learn_addresses();
        member.refresh_timeout();
        member.settle();
        member.campaign_alone();
        member
    }

    /// Takes one input.
    pub fn on_input(&mut self, now: Now, input: MemberInput, links: &mut LinkAllocator) {
        if self.stopped {
            return;
        }
        self.now = now.mono;
        match input {
            MemberInput::Accepted { link, peer } => self.on_accepted(link, &peer),
            MemberInput::Connected { link, peer } => self.on_connected(link, &peer),
            MemberInput::Closed { link } => self.on_closed(link),
            MemberInput::Message { link, message } => self.on_message(link, message),
            MemberInput::Completed(completion) => self.on_completed(completion),
            MemberInput::Timeout => self.on_timeout(),
        }
        self.settle();
        self.connect(links);
    }

    /// Proposes a record; `Applied` or `Dropped` follows with its ticket. Records
    /// proposed while an append is under way share one log entry; when
    /// `uncommitted_bytes_max` of them wait, the next is dropped at once.
    pub fn propose(&mut self, now: Now, ticket: u64, record: Record) {
        self.now = now.mono;
        if self.stopped
            || !self.may_propose()
            || self.proposals.is_full(self.config.uncommitted_bytes_max)
        {
            self.drop_tickets(vec![ticket]);
            return;
        }
        self.proposals.push(Some(ticket), record);
        self.settle();
    }

    /// Whether a read of the state may be answered now, as the newest one.
    pub fn barrier(&mut self, now: Now, ticket: u64) -> Barrier {
        self.now = now.mono;
        if self.stopped || !self.is_leader() {
            return Barrier::NotLeader;
        }
        let answer = if self.led != Some(self.term()) {
            self.barriers.wait(ticket);
            Barrier::Wait
        } else if self.is_alone() {
            Barrier::Pass
        } else {
            self.lease_used = true;
            self.barriers.ask(now.mono, ticket)
        };
        if answer == Barrier::Wait {
            self.marks.reach(Mark::BarrierWaited);
        }
        self.settle();
        answer
    }

    /// Changes the group by one member; a leader's, one change at a time. True when
    /// it was proposed: it holds once it is applied (see [`Self::voters`]).
    pub fn change_member(&mut self, now: Now, change: MemberChange) -> bool {
        self.now = now.mono;
        if self.stopped || !self.may_propose() || self.raft.raft.has_pending_conf() {
            return false;
        }
        let (kind, member, address) = match change {
            MemberChange::Learner { member, address } => {
                (ConfChangeType::AddLearnerNode, member, address)
            }
            MemberChange::Voter { member, address } => (ConfChangeType::AddNode, member, address),
            MemberChange::Remove { member } => {
                (ConfChangeType::RemoveNode, member, Address::default())
            }
        };
        let body = RecordBody::Member {
            member: member.0,
            address: address.0,
        };
        let time = now.wall;
        self.proposals.push(None, Record { time, body });
        self.pump(usize::MAX);
        let change = membership::change(kind, member.0);
        let proposed = self.raft.propose_conf_change(Vec::new(), change).is_ok();
        self.settle();
        proposed
    }

    /// Hands the reign over to the voter that is best informed, before a graceful
    /// stop. False when there is none; otherwise `Follows` comes, or an election
    /// timeout passes without it.
    pub fn transfer_away(&mut self, now: Now) -> bool {
        self.now = now.mono;
        let begun = !self.stopped && self.is_leader() && self.hand_over();
        self.settle();
        begun
    }

    /// The next event; drain to the end after every call.
    pub fn poll_event(&mut self) -> Option<MemberEvent> {
        self.events.pop_front()
    }

    /// When it wants `Timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let retry = self.peers.next_retry().unwrap_or(Instant::NEVER);
        Some(self.next_tick.min(retry))
    }

    /// Whether a link is one between members: its inputs belong here.
    #[must_use]
    pub fn owns(&self, link: LinkId) -> bool {
        self.peers.knows(link)
    }

    /// The replicated state, as far as it is applied here.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The last position applied (records and Raft's own entries).
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// Up to where the log is known to be committed.
    #[must_use]
    pub fn committed(&self) -> LogPosition {
        LogPosition(self.raft.raft.raft_log.committed)
    }

    /// The first position of which its log still has, or will have, the entry: what lies
    /// before is in an image.
    #[must_use]
    pub fn log_begin(&self) -> LogPosition {
        LogPosition(self.raft.raft.raft_log.first_index())
    }

    /// Whether this member leads. Before `Leads`, entries of earlier terms may be
    /// committed and not yet applied.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// The newest term that it knows of.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raft.raft.term)
    }

    /// Who leads, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let leader = self.raft.raft.leader_id;
        (leader != raft::INVALID_ID).then_some(MemberId(leader))
    }

    /// Which member this is.
    #[must_use]
    pub fn id(&self) -> MemberId {
        self.config.member
    }

    /// Where a member listens.
    #[must_use]
    pub fn address(&self, member: MemberId) -> Option<Address> {
        self.peers.address(member).cloned()
    }

    /// The members that vote, as of the last change applied.
    #[must_use]
    pub fn voters(&self) -> Vec<MemberId> {
        in_order(&self.raft.store().conf().voters)
    }

    /// The members that do not, as of the last change applied.
    #[must_use]
    pub fn learners(&self) -> Vec<MemberId> {
        in_order(&self.raft.store().conf().learners)
    }

    /// The version that it is built as.
    #[must_use]
    pub fn speaks(&self) -> FeatureLevel {
        self.config.speaks
    }

    /// Every member of the group, and the newest version that it speaks, as far as a
    /// link to it is up.
    #[must_use]
    pub fn versions(&self) -> Vec<(MemberId, Option<FeatureLevel>)> {
        let version = |member: MemberId| match member == self.config.member {
            true => Some(self.config.speaks),
            false => self.peers.speaks(member),
        };
        let members = self.voters().into_iter().chain(self.learners());
        members.map(|member| (member, version(member))).collect()
    }

    /// The group for operators; who is alive and how far is known to the leader only.
    #[must_use]
    pub fn statuses(&self) -> Vec<MemberStatus> {
        let voters = self.voters().into_iter().map(|member| (member, true));
        let learners = self.learners().into_iter().map(|member| (member, false));
        let mut members: Vec<(MemberId, bool)> = voters.chain(learners).collect();
        members.sort_unstable();
        members
            .into_iter()
            .map(|(member, voter)| self.status(member, voter))
            .collect()
    }

    /// The rare events met.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// Takes the member's digest in.
    pub fn digest(&self, digest: &mut Digest) {
        let raft = &self.raft.raft;
        digest
            .word(raft.term)
            .word(raft.vote)
            .word(raft.state as u64)
            .word(raft.leader_id);
        digest
            .word(raft.raft_log.committed)
            .word(raft.raft_log.last_index());
        digest.word(self.applied.0).word(self.state.digest());
        digest
            .word(self.next_token)
            .word(self.mute_until.0)
            .word(self.next_tick.0);
    }

    /// Asserts what must hold between calls.
    pub fn check_invariants(&self, whole: bool) {
        let log = &self.raft.raft.raft_log;
        assert!(
            self.applied.0 <= log.committed,
            "only what is committed is applied"
        );
        assert!(
            self.state.applied() <= self.applied,
            "the state holds nothing that is not"
        );
        assert!(
            self.persist.durable_term() <= self.term(),
            "no term is durable that was never reached"
        );
        assert!(
            self.led.is_none() || self.is_leader(),
            "only a leader has begun its term"
        );
        self.state.check_invariants(whole);
    }

    fn status(&self, member: MemberId, voter: bool) -> MemberStatus {
        let own = member == self.config.member;
        let leads = self.leader() == Some(member);
        let role = match (voter, leads) {
            (false, _) => "metalogger",
            (true, true) => "leader",
            (true, false) => "follower",
        };
        let progress = self
            .raft
            .raft
            .prs()
            .get(member.0)
            .filter(|_| self.is_leader());
        MemberStatus {
            member: member.0,
            address: self.address(member).unwrap_or_default(),
            role: role.to_owned(),
            alive: own || self.peers.is_heard(self.now, member, self.patience()),
            matched: LogPosition(progress.map_or(0, |progress| progress.matched)),
        }
    }

    /// After how much silence something is asked again.
    fn patience(&self) -> Duration {
        self.config.election_timeout() * 2
    }

    /// Whether no other member votes.
    fn is_alone(&self) -> bool {
        self.raft.raft.prs().is_singleton() && self.raft.raft.promotable()
    }

    fn may_propose(&self) -> bool {
        self.is_leader() && self.raft.raft.lead_transferee.is_none()
    }

    /// A group of one needs no election timeout to pass, and nobody to ask.
    fn campaign_alone(&mut self) {
        if self.is_alone() && !self.is_leader() {
            self.raft.campaign().expect("a voter may campaign");
            self.settle();
        }
    }

    fn heir(&self) -> Option<u64> {
        let raft = &self.raft.raft;
        let others = raft.prs().iter().filter(|(id, progress)| {
            **id != raft.id && progress.recent_active && raft.prs().conf().voters().contains(**id)
        });
        others
            .max_by_key(|(id, progress)| (progress.matched, **id))
            .map(|(id, _)| *id)
    }

    fn on_timeout(&mut self) {
        if self.now < self.next_tick {
            return;
        }
        // Never two ticks for one span of time: a member that slept must hear what
        // was said meanwhile before it counts silence.
        self.next_tick = self.now + self.config.tick;
        if !self.is_held_back() {
            self.raft.tick();
        }
        self.campaign_alone();
        self.watch_disk();
        self.watch_images();
    }

    /// A leader whose log hangs commits with the others' help, but applies nothing
    /// and answers nobody: another one leads better.
    fn watch_disk(&mut self) {
        let hangs = self.persist.is_flying() && self.now.since(self.log_began) >= self.patience();
        if hangs && self.may_propose() && self.hand_over() {
            self.log(Level::Warn, "the log hangs: handing over".to_owned());
        }
    }

    fn hand_over(&mut self) -> bool {
        let Some(heir) = self.heir() else {
            return false;
        };
        self.barriers.hand_over();
        self.raft.transfer_leader(heir);
        true
    }

    /// Whether a tick now would make it campaign while it may not.
    fn is_held_back(&self) -> bool {
        let raft = &self.raft.raft;
        let would_campaign = raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        !self.is_leader() && !self.is_alone() && would_campaign && self.now < self.mute_until
    }

    fn connect(&mut self, links: &mut LinkAllocator) {
        while let Some(connection) = self.peers.poll_connection(self.now) {
            let link = links.allocate();
            self.peers.begin(connection.member, link);
            self.effect(Effect::Connect {
                link,
                address: connection.address,
                role: connection.role,
            });
        }
    }

    /// The addresses that records name hold before the configured ones.
    fn learn_addresses(&mut self) {
        let known: Vec<(MemberId, Address)> = self
            .state
            .members()
            .map(|(member, address)| (MemberId(member), Address::from(address)))
            .collect();
        for (member, address) in known {
            self.learn_address(member, address);
        }
    }

    fn learn_address(&mut self, member: MemberId, address: Address) {
        let stale = if address.0.is_empty() {
            self.peers.remove(member)
        } else {
            let votes = self.raft.store().conf().voters.contains(&member.0);
            let role = if votes {
                Role::Master
            } else {
                Role::Metalogger
            };
            self.peers.set(member, address, role)
        };
        if let Some(link) = stale {
            let reason = format!("{member} moved or left");
            self.effect(Effect::Close { link, reason });
        }
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    fn effect(&mut self, effect: Effect<JournalOperation, ()>) {
        self.events.push_back(MemberEvent::Effect(effect));
    }

    fn log(&mut self, level: Level, text: String) {
        self.effect(Effect::Log { level, text });
    }

    fn drop_tickets(&mut self, tickets: Vec<u64>) {
        if !tickets.is_empty() {
            self.marks.reach(Mark::ProposalDropped);
        }
        self.events.extend(
            tickets
                .into_iter()
                .map(|ticket| MemberEvent::Dropped { ticket }),
        );
    }

    /// Whether it knows the feature level of its state. One that does not ends: it
    /// could only guess what else the state and the log behind say.
    fn knows_level(&mut self) -> bool {
        let (level, known) = (self.state.feature_level(), self.config.speaks);
        if level > known {
            self.marks.reach(Mark::LevelUnknown);
            self.fail(format!(
                "the cluster is at feature level {level} and this version knows levels up to \
                 {known}: {} needs the newer version again, nothing on its disk was changed",
                self.config.member
            ));
        }
        level <= known
    }

    /// Nothing that is not durable will be: the medium failed, or the state is not
    /// understood.
    fn fail(&mut self, reason: String) {
        self.stopped = true;
        self.effect(Effect::Stop {
            graceful: false,
            reason,
        });
    }
}

/// What recovery found, as Raft reads it.
fn recovered_store(meta: &ImageMeta, hard: HardState, entries: Vec<LogEntry>) -> Store {
    let conf = conf_state(&meta.voters, &meta.learners);
    let mut raft_hard = RaftHardState::default();
    (raft_hard.term, raft_hard.vote) = (hard.term.0, hard.vote);
    raft_hard.commit = hard.commit.0.max(meta.position.0);
    let mut store = Store::new(meta.position.0, meta.term.0, conf.clone(), raft_hard);
    let to_raft = |entry: LogEntry| {
        let kind = entry_kind(entry.kind).expect("recovery checked the kinds");
        make_entry(kind, entry.term.0, entry.position.0, entry.data)
    };
    store.append(&entries.into_iter().map(to_raft).collect::<Vec<_>>());
    if meta.position > LogPosition(0) {
        store.set_image(StoredImage {
            index: meta.position.0,
            term: meta.term.0,
            conf,
        });
    }
    store
}

fn in_order(members: &[u64]) -> Vec<MemberId> {
    let mut members: Vec<MemberId> = members.iter().copied().map(MemberId).collect();
    members.sort_unstable();
    members
}

fn raft_config(config: &MemberConfig, applied: LogPosition) -> raft::Config {
    raft::Config {
        id: config.member.0,
        election_tick: config.election_ticks,
        heartbeat_tick: config.heartbeat_ticks,
        applied: applied.0,
        max_size_per_msg: config.log_batch_max as u64,
        max_inflight_msgs: config.follower_inflight_max,
        check_quorum: true,
        pre_vote: true,
        max_uncommitted_size: config.uncommitted_bytes_max,
        ..raft::Config::default()
    }
}

fn silent() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}
