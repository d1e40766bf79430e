//! The master: the namespace's keeper and the chunkservers' head.
//!
//! A member of the Raft group (`crate::member`) with what only a master does:
//! it answers clients (`clients`, `mutate`, `query`), keeps their caches coherent
//! (`sessions`), knows the chunkservers (`servers`, `chunkservers`), grants and
//! settles leases (`lease`), repairs (`repair`) and deletes (`deletion`), has chunks at
//! rest lie in parts and back in copies (`convert`, `coded`), and says why all that is as
//! it is (`explain`). Everything here is soft state, made anew by each leader; what must
//! last is a record.
//!
//! This file owns the struct and the routing; each `impl` block beside it owns one
//! concern.

mod balance;
mod capability;
mod chunkservers;
mod classes;
mod clients;
mod coded;
mod commands;
mod convert;
mod crowded;
mod deletion;
mod disks;
mod duty;
mod explain;
mod lease;
mod levels;
mod mutate;
mod query;
mod repair;
mod servers;
mod sessions;
mod status;
mod stop;

use crate::hash::Digest;
use crate::ids::{ChunkId, Epoch, Incarnation, InodeId, LinkId, ServerId, SessionId};
use crate::journal::Recovered;
use crate::journal::operation::{JournalCompletion, JournalOperation};
use crate::limits;
use crate::machine::{Effect, Input, Level, LinkAllocator, Machine, Peer, Role, ServerRequest};
use crate::marks::Marks;
use crate::member::{Member, MemberConfig, MemberEvent, MemberInput};
use crate::namespace::record::{Record, RecordBody};
use crate::namespace::{Change, State};
use crate::rng::Rng;
use crate::time::{Duration, Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::Message;
use crate::wire::client_master::MasterToClient;
use balance::Balance;
use capability::Keyring;
use classes::Classes;
use commands::Commands;
use convert::Conversions;
use deletion::Deletions;
use lease::Leases;
use mutate::Mutations;
use query::Questions;
use repair::Repair;
use servers::Servers;
use sessions::Sessions;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

/// How often a master looks after what no input reminds it of.
const UPKEEP: Duration = Duration::from_millis(100);

/// The settings of a master.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Its place in the group.
    pub member: MemberConfig,
    /// The cluster's name, for `status`.
    pub cluster: String,
    /// Copies that the root directory asks for when the cluster is founded.
    pub copies: u8,
    /// 32 random bytes, used if this master founds the cluster.
    pub capability_secret: Vec<u8>,
    /// For how long deleted chunks stay on disk.
    pub delete_grace: Duration,
    /// For how long a file is left alone before its chunks are converted to parts.
    pub convert_after: Duration,
    /// For how long a server that left gracefully may be away.
    pub restart_grace: Duration,
    /// For how long a leader waits for the reports of servers before it repairs.
    pub repair_delay: Duration,
    /// After how long unheard a session ends.
    pub session_timeout: Duration,
    /// Commands under way at one chunkserver, at most `COMMANDS_INFLIGHT_MAX`.
    pub commands_inflight_max: usize,
    /// Copies being made at once on one chunkserver, as source or target, at most
    /// `REPAIR_INFLIGHT_MAX`.
    pub repair_inflight_max: usize,
    /// Copies move from a server to one of which so much less of the space is used, in
    /// percent of it; 0: they stay where they are.
    pub balance: u8,
}

impl MasterConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(member: MemberConfig, capability_secret: Vec<u8>) -> Self {
        Self {
            member,
            cluster: String::new(),
            copies: 2,
            capability_secret,
            delete_grace: limits::DELETE_GRACE,
            convert_after: limits::CONVERT_AFTER,
            restart_grace: limits::RESTART_GRACE,
            repair_delay: Duration::from_secs(3),
            session_timeout: limits::SESSION_TIMEOUT,
            commands_inflight_max: limits::COMMANDS_INFLIGHT_MAX,
            repair_inflight_max: limits::REPAIR_INFLIGHT_MAX,
            balance: limits::BALANCE_PERCENT,
        }
    }
}

/// Who is on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Guest {
    Member,
    /// A client, with its session once that stands.
    Client(Option<SessionId>),
    /// A chunkserver, with the version that it speaks.
    Server {
        server: ServerId,
        speaks: FeatureLevel,
    },
}

/// What an internal proposal was for.
#[derive(Clone, Debug)]
enum Proposal {
    /// A client's mutation: its key is in `mutations`.
    Mutation,
    /// A session for the client on this link.
    Session(LinkId),
    /// Ends a session.
    EndSession(SessionId),
    /// A batch of settled chunks.
    Settled(Vec<(ChunkId, Epoch)>),
    /// A fence of a chunk.
    Fence(ChunkId),
    /// The outcome of a chunk's reconciliation.
    Reconciled(ChunkId),
    /// A chunk lies in parts, or in copies again.
    Converted(ChunkId),
    /// Orphans of a session that it closed.
    CloseOrphans(SessionId, Vec<InodeId>),
    /// The first record.
    Found,
    /// A newer copy is taken over.
    Adopt,
    /// The labels of a server.
    Labels(ServerId),
    /// Files that are archived.
    Archived,
}

/// A reign: set while this master leads and its first entry is applied.
#[derive(Clone, Copy, Debug)]
struct Reign {
    since: Instant,
    /// Every session was heard, or its cache has lapsed: changes may be answered.
    settled: bool,
}

/// The master: see the module's doc. Drive it by [`Machine`].
pub struct Master {
    config: MasterConfig,
    member: Member,
    rng: Rng,
    now: Now,
    effects: VecDeque<Effect<JournalOperation, ()>>,
    links: LinkAllocator,
    guests: BTreeMap<LinkId, Guest>,
    /// Links of clients that do not know of chunks in parts.
    partless: BTreeSet<LinkId>,
    next_ticket: u64,
    proposals: BTreeMap<u64, Proposal>,
    reign: Option<Reign>,
    keys: Keyring,
    sessions: Sessions,
    mutations: Mutations,
    questions: Questions,
    servers: Servers,
    commands: Commands,
    leases: Leases,
    repair: Repair,
    balance: Balance,
    deletions: Deletions,
    conversions: Conversions,
    classes: Classes,
    /// When this process began: it knew no servers then.
    started: Instant,
    /// When a server registered last.
    registered_at: Instant,
    upkeep_due: Instant,
    /// Something happened that held requests may wait for.
    recheck: bool,
    stopping: bool,
    marks: Marks,
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Master")
            .field("member", &self.member.id())
            .field("reign", &self.reign)
            .finish_non_exhaustive()
    }
}

impl Machine for Master {
    type Operation = JournalOperation;
    type Completion = JournalCompletion;
    type Request = ServerRequest;
    type Answer = ();

    fn handle(&mut self, now: Now, input: Input<JournalCompletion, ServerRequest>) {
        debug_assert!(
            self.effects.is_empty(),
            "every effect is drained before the next input"
        );
        self.now = now;
        match input {
            Input::Accepted { link, peer } => self.on_accepted(link, &peer),
            Input::Connected { link, peer } => {
                self.feed_member(MemberInput::Connected { link, peer })
            }
            Input::Closed { link, reason } => self.on_closed(link, reason),
            Input::Message { link, message } => self.on_message(link, message),
            Input::Completed(completion) => self.feed_member(MemberInput::Completed(completion)),
            Input::Request(ServerRequest::Shutdown) => self.on_shutdown(),
            Input::Request(ServerRequest::Disks(_)) => {}
            Input::Timeout => self.feed_member(MemberInput::Timeout),
        }
        self.settle_down();
    }

    fn poll_effect(&mut self) -> Option<Effect<JournalOperation, ()>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let member = self.member.poll_timeout().unwrap_or(Instant::NEVER);
        Some(member.min(self.upkeep_due).min(self.leases.sync_due()))
    }

    fn incarnation(&self) -> Option<Incarnation> {
        Some(self.member.state().incarnation())
    }

    fn marks(&self) -> Marks {
        let mut marks = self.marks;
        marks.merge(self.member.marks());
        marks
    }

    fn speaks(&self) -> FeatureLevel {
        self.member.speaks()
    }

    fn digest(&self, digest: &mut Digest) {
        self.member.digest(digest);
        digest.word(self.next_ticket);
        digest.word(self.guests.len() as u64);
    }

    fn check_invariants(&self, whole: bool) {
        self.member.check_invariants(whole);
        self.mutations.check_invariants();
        if whole {
            self.servers.check_invariants();
            self.sessions.check_invariants();
            self.check_health();
        }
    }
}

impl Master {
    /// A master on what its storage recovered.
    #[must_use]
    pub fn new(config: MasterConfig, recovered: Recovered, seed: u64, now: Now) -> Self {
        assert!(
            (1..=limits::COMMANDS_INFLIGHT_MAX).contains(&config.commands_inflight_max)
                && (1..=limits::REPAIR_INFLIGHT_MAX).contains(&config.repair_inflight_max),
            "what a chunkserver does at once is bounded, and not by nothing"
        );
        let mut rng = Rng::new(seed);
        let member = Member::new(config.member.clone(), recovered, rng.word(), now);
        let mut master = Self {
            config,
            member,
            rng,
            now,
            effects: VecDeque::new(),
            links: LinkAllocator::default(),
            guests: BTreeMap::new(),
            partless: BTreeSet::new(),
            next_ticket: 1,
            proposals: BTreeMap::new(),
            reign: None,
            keys: Keyring::default(),
            sessions: Sessions::default(),
            mutations: Mutations::default(),
            questions: Questions::default(),
            servers: Servers::default(),
            commands: Commands::default(),
            leases: Leases::default(),
            repair: Repair::default(),
            balance: Balance::default(),
            deletions: Deletions::default(),
            conversions: Conversions::default(),
            classes: Classes::default(),
            started: now.mono,
            registered_at: now.mono,
            upkeep_due: now.mono,
            recheck: false,
            stopping: false,
            marks: Marks::default(),
        };
        master.assess_everything();
        master.settle_down();
        master
    }

    /// The replicated state, as far as it is applied here.
    #[must_use]
    pub fn state(&self) -> &State {
        self.member.state()
    }

    /// The Raft group as this member sees it.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Whether it leads and answers.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        self.reign.is_some()
    }

    /// After every input: take what the member yields, then the cheap upkeep, until
    /// neither has more to do.
    fn settle_down(&mut self) {
        self.drain_member();
        if self.now.mono >= self.upkeep_due {
            self.upkeep_due = self.now.mono + UPKEEP;
            self.upkeep();
        }
        self.assess_more();
        self.assess_touched();
        while std::mem::take(&mut self.recheck) {
            self.retry_held();
            self.retry_opens();
            self.drain_member();
        }
        if self.reign.is_some() {
            self.pump_settling();
            self.pump_repair();
            self.drain_member();
            self.assess_touched();
        }
    }

    fn upkeep(&mut self) {
        self.expire_servers();
        self.expire_maintenance();
        if self.reign.is_none() {
            return;
        }
        self.log_labels();
        self.look_for_archives();
        if self
            .keys
            .turn(self.member.state().capability_secret(), self.now.mono)
        {
            self.tell_keys();
        }
        self.expire_sessions();
        self.propose_dropped();
        self.expire_commands();
        self.recheck = true;
        self.watch_reconciliations();
        self.delete_doomed();
        self.watch_conversions();
        self.watch_repairs();
        self.pump_balance();
    }

    fn drain_member(&mut self) {
        while let Some(event) = self.member.poll_event() {
            match event {
                MemberEvent::Effect(effect) => self.effects.push_back(effect),
                MemberEvent::Applied {
                    ticket,
                    record,
                    applied,
                    ..
                } => {
                    self.on_changes(&record, &applied.changes);
                    if let Some(ticket) = ticket {
                        self.on_proposal_applied(ticket, applied);
                    } else {
                        self.push_unowned(&applied.changes);
                    }
                }
                MemberEvent::ReadReady { ticket } => self.on_read_ready(ticket),
                MemberEvent::Dropped { ticket } => self.on_dropped(ticket),
                MemberEvent::Leads { term } => self.on_leads(term),
                MemberEvent::Follows { .. } => self.on_follows(),
                MemberEvent::Replaced => self.on_replaced(),
            }
        }
    }

    fn on_leads(&mut self, term: crate::ids::Term) {
        self.log(Level::Info, format!("leads in term {term}"));
        self.reign = Some(Reign {
            since: self.now.mono,
            settled: false,
        });
        if !self.member.state().is_founded() {
            let capability_secret = self.config.capability_secret.clone();
            self.propose(
                Proposal::Found,
                RecordBody::Found {
                    capability_secret,
                    copies: self.config.copies,
                    level: self.config.member.speaks,
                },
            );
        }
        self.keys
            .begin(self.member.state().capability_secret(), term, self.now.mono);
        let sessions: Vec<SessionId> = self.member.state().sessions().map(|(id, _)| id).collect();
        for session in sessions {
            self.sessions.expect(session, self.now.mono);
        }
        self.repair.begin(self.now.mono + self.config.repair_delay);
        self.log_labels();
        self.resume_leases();
        self.fence_restarted();
        self.judge_all();
        self.tell_keys();
    }

    /// The reign is over: all that only a leader knows goes, and clients are sent away.
    fn on_follows(&mut self) {
        let led = self.reign.take().is_some();
        self.sessions = Sessions::default();
        self.mutations = Mutations::default();
        self.questions = Questions::default();
        self.drop_commands();
        self.leases = Leases::default();
        self.repair.end();
        self.balance.end();
        self.deletions.end();
        self.end_conversions();
        self.classes.end();
        self.proposals.clear();
        for server in self.servers.table.values_mut() {
            server.repairs = servers::Load::default();
        }
        if led {
            self.log(Level::Info, "does not lead any more".to_owned());
        }
        let clients: Vec<LinkId> = self.client_links().collect();
        for link in clients {
            self.send_away(link);
        }
    }

    /// The state came whole from another member: what settled meanwhile was not seen,
    /// so every chunkserver reports anew.
    fn on_replaced(&mut self) {
        let links: Vec<LinkId> = self
            .servers
            .table
            .values()
            .filter_map(|one| one.link)
            .collect();
        for link in links {
            self.close(link, "report again: this member's state was replaced");
        }
        self.relabel_all();
        self.assess_everything();
    }

    fn on_accepted(&mut self, link: LinkId, peer: &Peer) {
        self.note_version(peer);
        if peer.role == Role::Client && peer.speaks < FeatureLevel::CODES {
            self.partless.insert(link);
        }
        let guest = match peer.role {
            Role::Master | Role::Metalogger => {
                let peer = peer.clone();
                self.feed_member(MemberInput::Accepted { link, peer });
                Guest::Member
            }
            Role::Client => Guest::Client(None),
            Role::ChunkServer => Guest::Server {
                server: ServerId(peer.id),
                speaks: peer.speaks,
            },
        };
        let before = self.guests.insert(link, guest);
        assert!(before.is_none(), "a driver numbers each link once");
    }

    fn on_closed(&mut self, link: LinkId, reason: String) {
        self.partless.remove(&link);
        match self.guests.remove(&link) {
            Some(Guest::Client(session)) => self.on_client_gone(link, session),
            Some(Guest::Server { server, .. }) => self.on_server_gone(link, server, &reason),
            // The member's own links, accepted or opened.
            Some(Guest::Member) | None => self.feed_member(MemberInput::Closed { link }),
        }
    }

    fn on_message(&mut self, link: LinkId, message: Message) {
        match (self.guests.get(&link).copied(), message) {
            (Some(Guest::Client(session)), Message::ClientToMaster(said)) => {
                self.on_client(link, session, said)
            }
            (Some(Guest::Server { server, speaks }), Message::ChunkToMaster(said)) => {
                self.on_chunkserver(link, (server, speaks), said)
            }
            (Some(Guest::Member) | None, Message::Peer(message)) => {
                self.feed_member(MemberInput::Message { link, message });
            }
            // A peer's fault, or a message behind a link that we closed.
            (Some(_), _) => self.close(link, "a message that its sender may not send"),
            (None, _) => {}
        }
    }

    fn feed_member(&mut self, input: MemberInput) {
        self.member.on_input(self.now, input, &mut self.links);
    }

    fn on_shutdown(&mut self) {
        self.stopping = true;
        self.member.transfer_away(self.now);
        self.drain_member();
        self.effects.push_back(Effect::Stop {
            graceful: true,
            reason: "asked to stop".to_owned(),
        });
    }

    /// Proposes a record of the master's own.
    fn propose(&mut self, proposal: Proposal, body: RecordBody) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.proposals.insert(ticket, proposal);
        self.member.propose(
            self.now,
            ticket,
            Record {
                time: self.now.wall,
                body,
            },
        );
        ticket
    }

    fn on_proposal_applied(&mut self, ticket: u64, applied: crate::namespace::Applied) {
        let Some(proposal) = self.proposals.remove(&ticket) else {
            return self.push_unowned(&applied.changes);
        };
        match proposal {
            Proposal::Mutation => return self.on_mutation_applied(ticket, applied),
            Proposal::Session(link) => self.on_session_begun(link, &applied),
            Proposal::Settled(_) => self.leases.settling_done(),
            Proposal::Reconciled(chunk) => self.leases.reconciled(chunk),
            Proposal::Converted(chunk) => self.on_conversion_logged(chunk),
            Proposal::Found => {
                let term = self.member.term();
                self.keys
                    .begin(self.member.state().capability_secret(), term, self.now.mono);
                self.tell_keys();
            }
            Proposal::EndSession(_)
            | Proposal::Fence(_)
            | Proposal::CloseOrphans(..)
            | Proposal::Adopt => {}
            Proposal::Labels(server) => self.classes.logged(server),
            Proposal::Archived => self.classes.archived(),
        }
        self.push_unowned(&applied.changes);
    }

    /// A proposal or a barrier came to nothing. When leadership was lost, `on_follows`
    /// clears the rest and clients ask the next leader again. A leader whose log takes
    /// no more for now drops some too: those are proposed again at the next look.
    fn on_dropped(&mut self, ticket: u64) {
        let proposal = self.proposals.remove(&ticket);
        let asked = self.questions.forget(ticket);
        if !self.member.is_leader() {
            return self.mutations.forget(ticket);
        }
        match proposal {
            Some(Proposal::Mutation) => self.mutations.hold_again(ticket),
            Some(Proposal::Settled(chunks)) => self.leases.settling_dropped(chunks),
            Some(Proposal::Fence(chunk) | Proposal::Reconciled(chunk)) => {
                self.leases.look_again(chunk);
            }
            Some(Proposal::Session(link)) => self.close(link, "too busy for a new session"),
            Some(Proposal::Archived) => self.classes.archived(),
            Some(Proposal::Converted(chunk)) => self.fail_conversion(chunk),
            Some(Proposal::Labels(server)) => self.classes.logged(server),
            Some(Proposal::EndSession(session)) => self.sessions.end_again(session),
            Some(Proposal::CloseOrphans(session, inodes)) => {
                self.sessions.close_again(session, inodes);
            }
            Some(Proposal::Found | Proposal::Adopt) | None => {}
        }
        if let Some(link) = asked.filter(|link| self.guests.contains_key(link)) {
            self.close(link, "whether this master leads is in doubt");
        }
    }

    /// What an applied record means for the soft state, on every member alike.
    fn on_changes(&mut self, record: &Record, changes: &[Change]) {
        for change in changes {
            match change {
                Change::ChunkMade(chunk) | Change::Copies(chunk) | Change::Stripe(chunk) => {
                    self.servers.touch(*chunk);
                }
                Change::ChunkGone(chunk) => self.on_chunk_gone(*chunk),
                Change::Lease(chunk) => {
                    self.check_conversion(*chunk);
                    self.on_lease_changed(*chunk);
                }
                Change::Settled {
                    chunk,
                    version,
                    copies,
                } => self.on_settled(*chunk, *version, copies),
                Change::SessionEnded(session) => self.on_session_ended(*session),
                Change::Class(_) => self.on_class_changed(),
                Change::Labels(server) => self.on_labels_changed(*server),
                Change::Level(level) => self.on_level_raised(*level),
                Change::Inode(_) | Change::Dentry { .. } | Change::Synced(_) => {}
            }
        }
        self.note_orphans(record);
        if self.reign.is_some() {
            self.close_late_orphans(record);
        }
    }

    fn life(&self) -> Incarnation {
        self.member.state().incarnation()
    }

    fn send(&mut self, link: LinkId, message: Message) {
        self.effects.push_back(Effect::Send { link, message });
    }

    fn tell_client(&mut self, link: LinkId, message: MasterToClient) {
        self.send(link, Message::MasterToClient(message));
    }

    /// Closes a guest's link for a reason that goes to the log.
    fn close(&mut self, link: LinkId, reason: &str) {
        self.effects.push_back(Effect::Close {
            link,
            reason: reason.to_owned(),
        });
        self.partless.remove(&link);
        match self.guests.remove(&link) {
            Some(Guest::Client(session)) => self.on_client_gone(link, session),
            Some(Guest::Server { server, .. }) => self.on_server_gone(link, server, reason),
            Some(Guest::Member) | None => {}
        }
    }

    fn log(&mut self, level: Level, text: String) {
        self.effects.push_back(Effect::Log { level, text });
    }

    fn client_links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.guests
            .iter()
            .filter(|(_, guest)| matches!(guest, Guest::Client(_)))
            .map(|(link, _)| *link)
    }
}
