//! The metalogger: a member of the masters' group that does not vote. It keeps a
//! second home for the metadata: the log as it grows, images, the state applied.
//!
//! Owns nothing but the routing of inputs to its [`Member`]; sends clients and
//! chunkservers to the leader. When every master is lost, `antler recover` makes a
//! master of its folder.

use crate::hash::Digest;
use crate::ids::{Incarnation, LinkId};
use crate::journal::Recovered;
use crate::journal::operation::{JournalCompletion, JournalOperation};
use crate::machine::{Effect, Input, LinkAllocator, Machine, Peer, Role, ServerRequest};
use crate::marks::Marks;
use crate::member::{Member, MemberConfig, MemberEvent, MemberInput};
use crate::namespace::State;
use crate::time::{Instant, Now};
use crate::version::FeatureLevel;
use crate::wire::Message;
use crate::wire::chunk_master::MasterToChunk;
use crate::wire::client_master::MasterToClient;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;

/// A metalogger: see the module's doc. Drive it by [`Machine`].
pub struct Metalogger {
    member: Member,
    links: LinkAllocator,
    /// Accepted links of members.
    members: BTreeSet<LinkId>,
    effects: VecDeque<Effect<JournalOperation, ()>>,
}

impl fmt::Debug for Metalogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metalogger")
            .field("member", &self.member.id())
            .finish_non_exhaustive()
    }
}

impl Machine for Metalogger {
    type Operation = JournalOperation;
    type Completion = JournalCompletion;
    type Request = ServerRequest;
    type Answer = ();

    fn handle(&mut self, now: Now, input: Input<JournalCompletion, ServerRequest>) {
        debug_assert!(
            self.effects.is_empty(),
            "every effect is drained before the next input"
        );
        match input {
            Input::Accepted { link, peer } => self.on_accepted(now, link, peer),
            Input::Connected { link, peer } => {
                self.feed(now, MemberInput::Connected { link, peer })
            }
            Input::Closed { link, .. } => self.on_closed(now, link),
            Input::Message {
                link,
                message: Message::Peer(message),
            } => {
                self.feed(now, MemberInput::Message { link, message });
            }
            Input::Message { link, message } => self.turn_away(link, &message),
            Input::Completed(completion) => self.feed(now, MemberInput::Completed(completion)),
            Input::Request(ServerRequest::Shutdown) => {
                let reason = "asked to stop".to_owned();
                self.effects.push_back(Effect::Stop {
                    graceful: true,
                    reason,
                });
            }
            Input::Request(ServerRequest::Disks(_)) => {}
            Input::Timeout => self.feed(now, MemberInput::Timeout),
        }
    }

    fn poll_effect(&mut self) -> Option<Effect<JournalOperation, ()>> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.member.poll_timeout()
    }

    fn incarnation(&self) -> Option<Incarnation> {
        Some(self.member.state().incarnation())
    }

    fn speaks(&self) -> FeatureLevel {
        self.member.speaks()
    }

    fn digest(&self, digest: &mut Digest) {
        self.member.digest(digest);
    }

    fn check_invariants(&self, whole: bool) {
        self.member.check_invariants(whole);
        assert!(!self.member.is_leader(), "a metalogger never leads");
    }

    fn marks(&self) -> Marks {
        self.member.marks()
    }
}

impl Metalogger {
    /// A metalogger on what its storage recovered.
    ///
    /// # Panics
    /// When the configuration makes it a voter.
    #[must_use]
    pub fn new(config: MemberConfig, recovered: Recovered, seed: u64, now: Now) -> Self {
        let votes = config
            .members
            .iter()
            .any(|one| one.member == config.member && one.voter);
        assert!(!votes, "a metalogger does not vote");
        let member = Member::new(config, recovered, seed, now);
        let (links, members, effects) = Default::default();
        let mut metalogger = Self {
            member,
            links,
            members,
            effects,
        };
        metalogger.drain();
        metalogger
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

    fn on_accepted(&mut self, now: Now, link: LinkId, peer: Peer) {
        match peer.role {
            Role::Master | Role::Metalogger => {
                self.members.insert(link);
                self.feed(now, MemberInput::Accepted { link, peer });
            }
            Role::Client | Role::ChunkServer => {}
        }
    }

    fn on_closed(&mut self, now: Now, link: LinkId) {
        if self.members.remove(&link) || self.member.owns(link) {
            self.feed(now, MemberInput::Closed { link });
        }
    }

    /// Nobody is served here.
    fn turn_away(&mut self, link: LinkId, said: &Message) {
        let leader = self
            .member
            .leader()
            .and_then(|member| self.member.address(member));
        let message = match said {
            Message::ChunkToMaster(_) => {
                let reason = "a metalogger keeps no table of copies".to_owned();
                Message::MasterToChunk(MasterToChunk::Refused { reason })
            }
            _ => Message::MasterToClient(MasterToClient::NotLeader { leader }),
        };
        self.effects.push_back(Effect::Send { link, message });
        let reason = "a metalogger serves nobody".to_owned();
        self.effects.push_back(Effect::Close { link, reason });
    }

    fn feed(&mut self, now: Now, input: MemberInput) {
        self.member.on_input(now, input, &mut self.links);
        self.drain();
    }

    /// Only effects matter here: nobody proposes, and nobody is told of what is applied.
    fn drain(&mut self) {
        while let Some(event) = self.member.poll_event() {
            if let MemberEvent::Effect(effect) = event {
                self.effects.push_back(effect);
            }
        }
    }
}
