//! Clients' links: hello, heartbeats, opens, pushes, the end of sessions.

use super::sessions::PushOut;
use super::{Guest, Master, Proposal};
use crate::attributes::FileKind;
use crate::ids::{Address, InodeId, LinkId, RequestId, SessionId};
use crate::limits::CACHE_LEASE;
use crate::marks::Mark;
use crate::member::Barrier;
use crate::namespace::record::{ClientRecord, Record, RecordBody, Reply};
use crate::namespace::{Applied, Change, Remembered};
use crate::placement::Labels;
use crate::wire::client_master::{ClientToMaster, MasterToClient, Stale};

/// What a Hello said, kept while its session is being made.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    opens: Vec<InodeId>,
    labels: Labels,
    /// Its creates whose answers it has not seen.
    creating: Vec<RequestId>,
}

/// An `Alive` that is to be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    link: LinkId,
    session: SessionId,
    echo: u64,
}

impl Heartbeat {
    pub(super) fn link(&self) -> LinkId {
        self.link
    }
}

impl Master {
    pub(super) fn on_client(
        &mut self,
        link: LinkId,
        session: Option<SessionId>,
        said: ClientToMaster,
    ) {
        if self.reign.is_none() {
            return self.send_away(link);
        }
        let session = match (session, said) {
            (
                _,
                ClientToMaster::Hello {
                    name,
                    nonce,
                    resume,
                    opens,
                    labels,
                    creating,
                },
            ) => {
                let greeting = Greeting {
                    opens,
                    labels,
                    creating,
                };
                return self.on_hello(link, (name, nonce), resume, greeting);
            }
            // The operator's tools ask without a session.
            (
                session,
                ClientToMaster::Ask {
                    question,
                    credentials,
                    query,
                },
            ) => {
                return self.on_question(link, session, question, credentials, query);
            }
            (None, _) => return self.close(link, "a client must say hello first"),
            (Some(session), said) => (session, said),
        };
        self.on_session_said(link, session.0, session.1);
    }

    fn on_session_said(&mut self, link: LinkId, session: SessionId, said: ClientToMaster) {
        match said {
            ClientToMaster::Mutate {
                request,
                oldest,
                credentials,
                mutation,
            } => {
                self.on_mutate(link, session, (request, oldest), credentials, mutation);
            }
            ClientToMaster::Alive { echo } => self.on_alive(link, session, echo),
            ClientToMaster::PushDone { push } => {
                for ticket in self.sessions.push_done(session, push) {
                    self.on_push_answered(ticket);
                }
            }
            ClientToMaster::Closed { inodes } => self.on_files_closed(session, inodes),
            ClientToMaster::NotHeld { chunk, epoch } => {
                self.on_lease_not_held(session, chunk, epoch)
            }
            ClientToMaster::Goodbye => self.end_session(session),
            ClientToMaster::Hello { .. } | ClientToMaster::Ask { .. } => {}
        }
    }

    fn on_hello(
        &mut self,
        link: LinkId,
        (name, nonce): (String, u64),
        resume: Option<SessionId>,
        greeting: Greeting,
    ) {
        let known = match resume {
            Some(session) if self.member.state().has_session(session) => {
                self.marks.reach(Mark::SessionResumed);
                Some(session)
            }
            Some(_) => return self.tell_client(link, MasterToClient::SessionEnded),
            None => self.member.state().find_session(nonce),
        };
        match known {
            Some(session) => self.welcome(link, session, greeting),
            None => {
                self.questions.greet(link, greeting);
                self.propose(
                    Proposal::Session(link),
                    RecordBody::BeginSession { name, nonce },
                );
            }
        }
    }

    pub(super) fn on_session_begun(&mut self, link: LinkId, applied: &Applied) {
        let greeting = self.questions.greeted(link);
        if let Some(Ok(Reply::Session(session))) = &applied.outcome {
            // Also one that nobody waits for any more: it has to end some time.
            self.sessions.expect(*session, self.now.mono);
            let Some(greeting) = greeting else { return };
            if self.guests.contains_key(&link) {
                self.welcome(link, *session, greeting);
            }
        }
    }

    fn welcome(&mut self, link: LinkId, session: SessionId, greeting: Greeting) {
        self.guests.insert(link, Guest::Client(Some(session)));
        let old = self
            .sessions
            .table
            .get(&session)
            .and_then(|one| one.link)
            .filter(|old| *old != link);
        if let Some(old) = old {
            self.close(old, "the session is on a newer link");
        }
        let mut opens = greeting.opens;
        opens.extend(self.created_unseen(session, &greeting.creating));
        let released = self
            .sessions
            .arrive(session, link, opens, greeting.labels, self.now.mono);
        let members = self.masters();
        let message = MasterToClient::Welcome {
            session,
            term: self.member.term(),
            cache_lease_millis: u32::try_from(CACHE_LEASE.as_millis()).expect("seconds"),
            masters: members,
        };
        self.tell_client(link, message);
        for ticket in released {
            self.on_push_answered(ticket);
        }
        self.settle_reign();
        self.reconcile_orphans(session);
    }

    /// What the creates of a session brought whose answers it has not seen: it will have
    /// that open as soon as it gets them again. A create that is not applied yet is noted
    /// when it is.
    fn created_unseen(&self, session: SessionId, creating: &[RequestId]) -> Vec<InodeId> {
        let state = self.member.state();
        let made = |request: &RequestId| match state.remembered(session, *request) {
            Remembered::Reply(Ok(Reply::Created { attributes, .. }))
                if attributes.kind == FileKind::Regular =>
            {
                Some(attributes.inode)
            }
            _ => None,
        };
        creating.iter().filter_map(made).collect()
    }

    /// Notes that somebody keeps a file whose last name a record removed.
    pub(super) fn note_orphans(&mut self, record: &Record) {
        let RecordBody::Client(ClientRecord { choice, .. }) = &record.body else {
            return;
        };
        let state = self.member.state();
        let mut kept = choice.open_by.iter();
        if kept.any(|(inode, session)| state.is_orphan_of(*inode, *session)) {
            self.marks.reach(Mark::OrphanKept);
        }
    }

    /// A file may be closed between the choice of who keeps it as an orphan and the
    /// record: nobody will close it again.
    pub(super) fn close_late_orphans(&mut self, record: &Record) {
        let RecordBody::Client(ClientRecord { choice, .. }) = &record.body else {
            return;
        };
        for (inode, session) in &choice.open_by {
            let one = self.sessions.table.get(session);
            let closed = one.is_some_and(|one| one.arrived && !one.opens.contains(inode));
            if closed && self.member.state().is_orphan_of(*inode, *session) {
                self.close_orphans(*session, vec![*inode]);
            }
        }
    }

    /// Orphans that the session keeps and does not have open were closed while
    /// nobody heard it.
    fn reconcile_orphans(&mut self, session: SessionId) {
        let Some(one) = self.sessions.table.get(&session) else {
            return;
        };
        let kept = self.member.state().orphans_of(session);
        let closed: Vec<InodeId> = kept.filter(|inode| !one.opens.contains(inode)).collect();
        self.close_orphans(session, closed);
    }

    fn close_orphans(&mut self, session: SessionId, inodes: Vec<InodeId>) {
        if !inodes.is_empty() {
            self.propose(
                Proposal::CloseOrphans(session, inodes.clone()),
                RecordBody::CloseOrphans { session, inodes },
            );
        }
    }

    /// Records about sessions that the log took none of are proposed again.
    pub(super) fn propose_dropped(&mut self) {
        for session in self.sessions.take_unended() {
            if self.member.state().has_session(session) {
                self.end_session(session);
            }
        }
        for (session, inodes) in self.sessions.take_unclosed() {
            let kept = |inode: &InodeId| self.member.state().is_orphan_of(*inode, session);
            let inodes = inodes.into_iter().filter(kept).collect();
            self.close_orphans(session, inodes);
        }
    }

    fn on_files_closed(&mut self, session: SessionId, inodes: Vec<InodeId>) {
        let Some(one) = self.sessions.table.get_mut(&session) else {
            return;
        };
        for inode in &inodes {
            one.opens.remove(inode);
        }
        let state = self.member.state();
        let orphans = inodes
            .into_iter()
            .filter(|inode| state.is_orphan_of(*inode, session))
            .collect();
        self.close_orphans(session, orphans);
    }

    /// Answered behind a read barrier only: a leader that was deposed and does not know
    /// it must not prolong the use of a cache that the next one believes lapsed.
    fn on_alive(&mut self, link: LinkId, session: SessionId, echo: u64) {
        if let Some(one) = self.sessions.table.get_mut(&session) {
            one.heard = self.now.mono;
        }
        if self.questions.are_full() {
            return;
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let beat = Heartbeat {
            link,
            session,
            echo,
        };
        match self.member.barrier(self.now, ticket) {
            Barrier::Pass => self.answer_alive(beat),
            Barrier::Wait => self.questions.beat(ticket, beat),
            Barrier::NotLeader => self.send_away(link),
        }
    }

    pub(super) fn answer_alive(&mut self, beat: Heartbeat) {
        let Heartbeat {
            link,
            session,
            echo,
        } = beat;
        if self.guests.get(&link) != Some(&Guest::Client(Some(session))) {
            return;
        }
        let lapsed = self
            .sessions
            .table
            .get(&session)
            .is_some_and(|one| one.must_drop);
        if lapsed || self.sessions.is_overfull(session) {
            self.drop_caches(session);
        }
        self.tell_client(link, MasterToClient::AliveToo { echo });
    }

    /// Pushes that were not sent while the session had lapsed can't be made up for:
    /// it must drop everything before it may use its cache again.
    fn drop_caches(&mut self, session: SessionId) {
        for ticket in self.sessions.lapse(session) {
            self.on_push_answered(ticket);
        }
        if let Some(one) = self.sessions.table.get_mut(&session) {
            one.caches = true;
            one.must_drop = false;
        }
        if let Some(push) = self.sessions.note(session, vec![Stale::All], None) {
            self.send_push(push);
        }
    }

    pub(super) fn on_client_gone(&mut self, link: LinkId, session: Option<SessionId>) {
        self.questions.drop_link(link);
        self.drop_held(link);
        let Some(one) = session.and_then(|id| self.sessions.table.get_mut(&id)) else {
            return;
        };
        if one.link == Some(link) {
            one.link = None;
        }
    }

    fn masters(&self) -> Vec<Address> {
        self.member
            .voters()
            .into_iter()
            .filter_map(|member| self.member.address(member))
            .collect()
    }

    /// Tells a client whom to ask instead.
    pub(super) fn send_away(&mut self, link: LinkId) {
        let leader = self
            .member
            .leader()
            .and_then(|member| self.member.address(member));
        self.tell_client(link, MasterToClient::NotLeader { leader });
        self.close(link, "not the leader");
    }

    pub(super) fn expire_sessions(&mut self) {
        for session in self.sessions.lapsed(self.now.mono) {
            self.marks.reach(Mark::CacheLapsed);
            if let Some(one) = self.sessions.table.get_mut(&session) {
                one.must_drop = true;
            }
            for ticket in self.sessions.lapse(session) {
                self.on_push_answered(ticket);
            }
        }
        let since = self.reign.expect("only a leader expires sessions").since;
        let (now, limit) = (self.now.mono, self.config.session_timeout);
        let dead = self.sessions.table.iter();
        let dead = dead.filter(|(_, one)| now.since(one.heard.max(since)) > limit);
        let dead: Vec<SessionId> = dead.map(|(id, _)| *id).collect();
        for session in dead {
            self.marks.reach(Mark::SessionExpired);
            self.end_session(session);
        }
        self.settle_reign();
    }

    fn end_session(&mut self, session: SessionId) {
        // Asked for once: until it is applied the session can't time out again.
        if let Some(one) = self.sessions.table.get_mut(&session) {
            one.heard = self.now.mono;
        }
        self.propose(
            Proposal::EndSession(session),
            RecordBody::EndSession { session },
        );
    }

    pub(super) fn on_session_ended(&mut self, session: SessionId) {
        if self.reign.is_none() {
            return;
        }
        let link = self.sessions.table.get(&session).and_then(|one| one.link);
        for ticket in self.sessions.remove(session) {
            self.on_push_answered(ticket);
        }
        if let Some(link) = link {
            self.tell_client(link, MasterToClient::SessionEnded);
            self.close(link, "the session has ended");
        }
    }

    /// A new leader answers no change before every session has dropped its caches
    /// (by a new hello) or can't be using them any more.
    pub(super) fn settle_reign(&mut self) {
        let Some(reign) = self.reign else { return };
        if reign.settled {
            return;
        }
        let unsure = |one: &super::sessions::Session| one.link.is_none() && one.caches;
        if !self.sessions.table.values().any(unsure) {
            self.reign = Some(super::Reign {
                settled: true,
                ..reign
            });
            self.recheck = true;
        }
    }

    pub(super) fn send_push(&mut self, push: PushOut) {
        let PushOut { link, push, stale } = push;
        self.marks.reach(Mark::StalePushed);
        self.tell_client(link, MasterToClient::Push { push, stale });
    }

    /// Pushes changes that no client waits for.
    pub(super) fn push_unowned(&mut self, changes: &[Change]) {
        if self.reign.is_some() {
            let stale = stale_of(changes);
            let (pushes, _) = self.sessions.push(None, &stale, None);
            for push in pushes {
                self.send_push(push);
            }
        }
    }
}

/// What a record's changes make stale, by the inode under which interest is kept.
pub(super) fn stale_of(changes: &[Change]) -> Vec<(InodeId, Stale)> {
    let mut stale = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            Change::Inode(inode) => stale.push((*inode, Stale::Inode(*inode))),
            Change::Dentry { parent, name } => {
                stale.push((
                    *parent,
                    Stale::Dentry {
                        parent: *parent,
                        name: name.clone(),
                    },
                ));
            }
            _ => {}
        }
    }
    stale
}
