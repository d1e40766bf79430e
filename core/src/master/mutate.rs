//! Mutations on their way: from the request over what must come first (a settled
//! reign, recalled leases, synced sources of renames) to the record, then to the
//! pushes that must come before the answer (P7), then the answer.
//!
//! Owns the requests under way of every session; the replies of those done are
//! the replicated state's (P5). Invariant: a request has one ticket.

use super::clients::stale_of;
use super::{Master, Proposal};
use crate::attributes::{Attributes, Credentials, FallocateMode, FileKind};
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, Epoch, InodeId, LinkId, RequestId, ServerId, SessionId};
use crate::limits::{CHUNK_SIZE, SESSION_WINDOW};
use crate::machine::{Effect, Level};
use crate::marks::Mark;
use crate::namespace::record::{
    Choice, ClientRecord, LeaseEnd, LeaseGrant, Mutation, Outcome, Record, RecordBody, Reply,
};
use crate::namespace::{Applied, Change, LeaseState, Remembered, State};
use crate::placement::{self, ClassId};
use crate::time::{Duration, Instant};
use crate::wire::client_master::{Answer, AroundDirectory, LeasedChunk, MasterToClient, Stale};
use std::collections::{BTreeMap, BTreeSet};

/// For how long a request waits for what must come first before the client is told
/// to ask again.
const HOLD_MAX: Duration = Duration::from_secs(10);
/// For how long a lease waits for a copy that is being made.
pub(super) const REPAIR_HOLD_MAX: Duration = Duration::from_secs(2);

/// A request under way.
#[derive(Clone, Debug)]
struct Pending {
    link: LinkId,
    session: SessionId,
    request: RequestId,
    oldest: RequestId,
    credentials: Credentials,
    mutation: Mutation,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Something must come first.
    Held,
    /// In the log.
    Proposed,
    /// Applied; this many caches have not dropped what it changed.
    Pushing {
        outcome: Box<Outcome>,
        waits: usize,
        /// What its names stood for behind it.
        named: Vec<Named>,
    },
}

impl Stage {
    /// The lease that is granted, and not told of.
    fn granted(&self) -> Option<(ChunkId, Epoch)> {
        match self {
            Self::Pushing { outcome, .. } => match &**outcome {
                Ok(
                    Reply::Lease(grant)
                    | Reply::Created {
                        lease: Some(grant), ..
                    },
                ) => Some((grant.chunk, grant.epoch)),
                _ => None,
            },
            Self::Held | Self::Proposed => None,
        }
    }
}

/// The mutations under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Mutations {
    pending: BTreeMap<u64, Pending>,
    by_request: BTreeMap<(SessionId, RequestId), u64>,
    held: BTreeSet<u64>,
    /// Leases in the log and not applied: their copies are chosen, and must stay.
    granting: BTreeSet<(InodeId, u32, u64)>,
    /// Leases that were granted and whose holders are to be told, behind pushes.
    untold: BTreeSet<(ChunkId, Epoch)>,
    /// What records in the log and not applied do to names.
    flights: BTreeMap<u64, Flight>,
    naming: BTreeMap<(InodeId, Vec<u8>), u32>,
    removing: BTreeMap<InodeId, u32>,
}

/// A name and what it stands for.
type Named = ((InodeId, Vec<u8>), Option<InodeId>);

/// The names that a record in the log may change, and the object that it may take
/// the last name from. Who has that open was chosen when it was proposed: until it
/// is applied nobody else opens it, and no name changes under another choice.
#[derive(Clone, Debug, Default)]
struct Flight {
    names: Vec<(InodeId, Vec<u8>)>,
    removes: Option<InodeId>,
}

impl Mutations {
    /// A record did not reach the log: it is looked at again.
    pub(super) fn hold_again(&mut self, ticket: u64) {
        if let Some(pending) = self.pending.get_mut(&ticket) {
            pending.stage = Stage::Held;
            self.held.insert(ticket);
            self.end_granting(ticket);
            self.land(ticket);
        }
    }

    fn take_off(&mut self, ticket: u64, flight: Flight) {
        for name in &flight.names {
            *self.naming.entry(name.clone()).or_insert(0) += 1;
        }
        if let Some(inode) = flight.removes {
            *self.removing.entry(inode).or_insert(0) += 1;
        }
        self.flights.insert(ticket, flight);
    }

    /// A record was applied or dropped. True when something may have waited for it.
    fn land(&mut self, ticket: u64) -> bool {
        let Some(flight) = self.flights.remove(&ticket) else {
            return false;
        };
        for name in flight.names {
            count_down(&mut self.naming, name);
        }
        if let Some(inode) = flight.removes {
            count_down(&mut self.removing, inode);
        }
        flight.removes.is_some() || !self.held.is_empty()
    }

    /// Whether a record in the log may change what a name stands for.
    fn is_naming(&self, parent: InodeId, name: &[u8]) -> bool {
        !self.naming.is_empty() && self.naming.contains_key(&(parent, name.to_vec()))
    }

    /// Whether a record in the log may take the last name from an object.
    pub(super) fn is_removing(&self, inode: InodeId) -> bool {
        self.removing.contains_key(&inode)
    }

    /// Whether a lease of that chunk of a file is on its way into the log.
    pub(super) fn is_granting(&self, inode: InodeId, index: u32) -> bool {
        let mut granting = self.granting.range((inode, index, 0)..);
        granting
            .next()
            .is_some_and(|(file, at, _)| (*file, *at) == (inode, index))
    }

    /// Whether a lease of a file's chunk from `first` on is on its way into the log.
    fn is_granting_from(&self, inode: InodeId, first: u32) -> bool {
        let range = (inode, first, 0)..=(inode, u32::MAX, u64::MAX);
        self.granting.range(range).next().is_some()
    }

    fn begin_granting(&mut self, ticket: u64) {
        if let Some(Mutation::Lease { inode, index, .. }) =
            self.pending.get(&ticket).map(|pending| &pending.mutation)
        {
            self.granting.insert((*inode, *index, ticket));
        }
    }

    fn end_granting(&mut self, ticket: u64) {
        if let Some(Mutation::Lease { inode, index, .. }) =
            self.pending.get(&ticket).map(|pending| &pending.mutation)
        {
            self.granting.remove(&(*inode, *index, ticket));
        }
    }

    /// Whether a request is so far ahead of the oldest one under way that no client
    /// that keeps to its window sends it.
    fn is_beyond(&self, session: SessionId, request: RequestId) -> bool {
        let mut own = self.by_request.range((session, RequestId(0))..);
        let first = own.next().map(|(key, _)| *key);
        first.is_some_and(|(whose, first)| {
            whose == session && request.0.saturating_sub(first.0) >= SESSION_WINDOW
        })
    }

    pub(super) fn forget(&mut self, ticket: u64) {
        self.held.remove(&ticket);
        self.end_granting(ticket);
        self.land(ticket);
        if let Some(pending) = self.pending.remove(&ticket) {
            self.by_request.remove(&(pending.session, pending.request));
            if let Some(granted) = pending.stage.granted() {
                self.untold.remove(&granted);
            }
        }
    }

    /// Whether the holder of a lease is to be told that it has it.
    pub(super) fn is_untold(&self, chunk: ChunkId, epoch: Epoch) -> bool {
        self.untold.contains(&(chunk, epoch))
    }

    pub(super) fn check_invariants(&self) {
        assert_eq!(
            self.pending.len(),
            self.by_request.len(),
            "a request has one ticket"
        );
        assert!(
            self.held
                .iter()
                .all(|ticket| self.pending.contains_key(ticket)),
            "what is held is pending"
        );
    }
}

/// What a look at a request found.
pub(super) enum Ready {
    Go(Choice),
    Hold,
    Refuse(Errno),
}

impl Master {
    pub(super) fn on_mutate(
        &mut self,
        link: LinkId,
        session: SessionId,
        (request, oldest): (RequestId, RequestId),
        credentials: Credentials,
        mutation: Mutation,
    ) {
        if let Some(ticket) = self.mutations.by_request.get(&(session, request)) {
            let pending = self
                .mutations
                .pending
                .get_mut(ticket)
                .expect("a ticket is of a pending request");
            pending.link = link;
            return;
        }
        let remembered = match self.member.state().remembered(session, request) {
            Remembered::New => None,
            Remembered::Reply(outcome) => Some(outcome.clone()),
            Remembered::NoSession => return self.tell_client(link, MasterToClient::SessionEnded),
            // The state learns how far the client is from records alone: what counts is
            // what this one will tell it.
            Remembered::BeyondWindow if is_within_window(request, oldest) => None,
            Remembered::BeyondWindow => Some(Err(Errno::EAGAIN)),
            Remembered::TooOld => Some(Err(Errno::EINVAL)),
        };
        // An unsettled reign can't know whether the first answer's pushes were carried
        // out: the request waits, and its record yields the remembered reply.
        let settled = self.reign.is_some_and(|reign| reign.settled);
        if let Some(outcome) = remembered.filter(|_| settled) {
            self.marks.reach(Mark::ReplyRepeated);
            let parents = parents_of(&mutation);
            return self.answer_mutation(link, session, request, outcome, parents);
        }
        if self.mutations.is_beyond(session, request) {
            return self.answer_mutation(link, session, request, Err(Errno::EAGAIN), Vec::new());
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (since, stage) = (self.now.mono, Stage::Held);
        let pending = Pending {
            link,
            session,
            request,
            oldest,
            credentials,
            mutation,
            since,
            stage,
        };
        self.mutations.by_request.insert((session, request), ticket);
        self.mutations.pending.insert(ticket, pending);
        self.mutations.held.insert(ticket);
        self.try_pending(ticket);
    }

    /// A link broke: what came over it and still waits is not run. Who lives sends it again;
    /// of who died it would undo, seconds later, what others did meanwhile, or he himself
    /// after he began anew.
    pub(super) fn drop_held(&mut self, link: LinkId) {
        let held = self.mutations.held.iter().copied();
        let gone = held.filter(|ticket| self.mutations.pending[ticket].link == link);
        for ticket in gone.collect::<Vec<u64>>() {
            self.marks.reach(Mark::HeldDropped);
            self.mutations.forget(ticket);
        }
    }

    /// Looks at held requests again: something they may wait for has happened.
    pub(super) fn retry_held(&mut self) {
        let held: Vec<u64> = self.mutations.held.iter().copied().collect();
        for ticket in held {
            self.try_pending(ticket);
        }
    }

    fn try_pending(&mut self, ticket: u64) {
        let Some(pending) = self.mutations.pending.get(&ticket) else {
            return;
        };
        let (session, mutation, since) = (pending.session, pending.mutation.clone(), pending.since);
        let late = self.now.mono.since(since) > HOLD_MAX;
        let silent = self.sessions.is_silent(session, since, self.now.mono);
        match self.look(session, &mutation, since) {
            Ready::Go(choice) if !silent => self.propose_pending(ticket, choice),
            Ready::Go(_) | Ready::Hold if late => self.refuse_pending(ticket, Errno::EAGAIN),
            Ready::Go(_) | Ready::Hold => {}
            Ready::Refuse(errno) => self.refuse_pending(ticket, errno),
        }
    }

    fn propose_pending(&mut self, ticket: u64, choice: Choice) {
        self.mutations.held.remove(&ticket);
        let pending = self
            .mutations
            .pending
            .get_mut(&ticket)
            .expect("it was just looked at");
        pending.stage = Stage::Proposed;
        let flight = flight_of(self.member.state(), &pending.mutation);
        let body = RecordBody::Client(ClientRecord {
            session: pending.session,
            request: pending.request,
            oldest: pending.oldest,
            credentials: pending.credentials.clone(),
            mutation: pending.mutation.clone(),
            choice,
        });
        self.mutations.begin_granting(ticket);
        self.mutations.take_off(ticket, flight);
        self.proposals.insert(ticket, Proposal::Mutation);
        self.member.propose(
            self.now,
            ticket,
            Record {
                time: self.now.wall,
                body,
            },
        );
    }

    /// Answers without a record: the same request may come again.
    fn refuse_pending(&mut self, ticket: u64, errno: Errno) {
        let pending = self
            .mutations
            .pending
            .get(&ticket)
            .expect("it was just looked at");
        let (link, session, request) = (pending.link, pending.session, pending.request);
        self.mutations.forget(ticket);
        self.answer_mutation(link, session, request, Err(errno), Vec::new());
    }

    /// What must come before `mutation`, and what the leader chooses for it.
    fn look(&mut self, session: SessionId, mutation: &Mutation, since: Instant) -> Ready {
        if !self.reign.is_some_and(|reign| reign.settled) || !self.member.state().is_founded() {
            return Ready::Hold;
        }
        if let Some(ready) = self.look_level(mutation) {
            return ready;
        }
        match mutation {
            Mutation::Create {
                kind: FileKind::Regular,
                write: true,
                parent,
                name,
                ..
            } => {
                let state = self.member.state();
                let class = state.class_for(*parent, name, FileKind::Regular).ok();
                let mut copies = self.choose_new(session, class);
                if self.awaits_servers(class, &copies, since) {
                    return Ready::Hold;
                }
                if self.awaits_registrations(class, &copies) {
                    // The name is made at once; the first write asks again.
                    copies.clear();
                }
                Ready::Go(Choice {
                    copies,
                    ..Choice::default()
                })
            }
            Mutation::Lease {
                inode,
                index,
                failed,
            } => self.look_lease(session, (*inode, *index), failed, since),
            Mutation::SetAttributes { inode, change } if change.size.is_some() => {
                self.look_cut(session, *inode, change.size.unwrap_or(0))
            }
            Mutation::Fallocate {
                inode,
                mode,
                offset,
                ..
            } if is_destructive(*mode) => self.look_cut(session, *inode, *offset),
            Mutation::Release { leases } => self.look_release(session, leases, false),
            Mutation::CommitWrite { release, .. } => self.look_release(session, release, true),
            Mutation::Unlink { .. } | Mutation::Rename { .. } if self.is_renaming(mutation) => {
                Ready::Hold
            }
            Mutation::Unlink { parent, name } => Ready::Go(self.open_choice(*parent, name)),
            Mutation::Rename {
                parent,
                name,
                new_parent,
                new_name,
                ..
            } => self.look_rename((*parent, name), (*new_parent, new_name)),
            _ => Ready::Go(Choice::default()),
        }
    }

    /// A lease of which a copy is gone is not taken back unsynced: what was written under
    /// it may be lost, others may just not be known to be gone too, and its holder still
    /// has it. It would be fenced at once in any case: it is first, so that the record
    /// finds it void.
    fn look_release(&mut self, session: SessionId, ends: &[LeaseEnd], commits: bool) -> Ready {
        for end in ends.iter().filter(|end| !end.synced) {
            let state = self.member.state();
            let Some(one) = state.chunk(end.chunk) else {
                continue;
            };
            let place = state.chunk_at(one.inode, one.index);
            let is_empty = matches!(place, Ok(Some((_, 0)))) && !commits;
            let lives = |&(server, boot): &(ServerId, BootId)| self.servers.lives(server, boot);
            let held = one.epoch == end.epoch && one.lease.holder() == Some(session);
            if !held || is_empty || one.lease.copies().iter().all(lives) {
                continue;
            }
            if !self.knows_servers() {
                return Ready::Hold;
            }
            self.fence(end.chunk, end.epoch);
        }
        Ready::Go(Choice::default())
    }

    /// Another session's leases behind a cut are recalled first.
    fn look_cut(&mut self, session: SessionId, inode: InodeId, from: u64) -> Ready {
        let first = u32::try_from(from / CHUNK_SIZE).unwrap_or(u32::MAX);
        if self.mutations.is_granting_from(inode, first) {
            // Its holder is known, and can be asked, once it is applied.
            return Ready::Hold;
        }
        let Ok(chunks) = self.member.state().chunks_of(inode) else {
            return Ready::Go(Choice::default());
        };
        let behind: Vec<ChunkId> = chunks
            .into_iter()
            .filter(|(index, ..)| *index >= first)
            .map(|(_, chunk, _)| chunk)
            .collect();
        let mut clear = true;
        for chunk in behind {
            clear &= self.recall_from_others(session, chunk);
        }
        if clear {
            Ready::Go(Choice::default())
        } else {
            Ready::Hold
        }
    }

    /// A rename over an existing name waits for the source's closed data to be durable (P3).
    fn look_rename(&mut self, from: (InodeId, &[u8]), to: (InodeId, &[u8])) -> Ready {
        let state = self.member.state();
        let choice = self.open_choice(to.0, to.1);
        let replaces = state.unlink_target(to.0, to.1).is_some();
        let source = state.unlink_target(from.0, from.1).map(|(inode, _)| inode);
        let chunks = match source {
            Some(inode) if replaces => state.chunks_of(inode).unwrap_or_default(),
            _ => Vec::new(),
        };
        let unsettled = chunks.iter().any(|(_, chunk, _)| {
            let lease = state.chunk(*chunk).map(|one| one.lease);
            matches!(
                lease,
                Some(
                    LeaseState::Closing { .. }
                        | LeaseState::Broken { .. }
                        | LeaseState::Reconciling { .. }
                )
            )
        });
        if !unsettled {
            return Ready::Go(choice);
        }
        self.leases.hurry();
        Ready::Hold
    }

    /// What a mutation's names stand for is about to change: it is looked at again
    /// when that is known.
    fn is_renaming(&self, mutation: &Mutation) -> bool {
        let mut names = mutation.names().into_iter();
        names.any(|(parent, name)| self.mutations.is_naming(parent, name))
    }

    /// Who has the object open that a name may be taken from.
    fn open_choice(&self, parent: InodeId, name: &[u8]) -> Choice {
        let mut choice = Choice::default();
        if let Some((inode, _)) = self.member.state().unlink_target(parent, name) {
            choice.open_by = self
                .sessions
                .openers(inode)
                .map(|session| (inode, session))
                .collect();
        }
        choice
    }

    fn look_lease(
        &mut self,
        session: SessionId,
        (inode, index): (InodeId, u32),
        failed: &[(ServerId, BootId)],
        since: Instant,
    ) -> Ready {
        let class = self.member.state().class_of(inode).ok();
        let chunk = match self.member.state().chunk_at(inode, index) {
            Err(errno) => return Ready::Refuse(errno),
            Ok(None) => {
                let copies = self.choose_new(session, class);
                let waits_for_room = copies.is_empty() && self.awaits_room(since);
                let waits = waits_for_room || self.awaits_registrations(class, &copies);
                if waits || self.awaits_servers(class, &copies, since) {
                    return Ready::Hold;
                }
                return Ready::Go(Choice {
                    copies,
                    ..Choice::default()
                });
            }
            Ok(Some((chunk, _))) => chunk,
        };
        if let Some(stripe) = self.member.state().stripe(chunk) {
            return self.restore_for_lease(chunk, stripe, since);
        }
        let waits_for_repair = self.now.mono.since(since) < REPAIR_HOLD_MAX
            && (self.is_being_repaired(chunk) || self.repair_before_lease(chunk));
        if waits_for_repair || !self.recall_from_others(session, chunk) {
            return Ready::Hold;
        }
        let copies = self.writable_copies(session, chunk, failed);
        if let Some(copies) = &copies
            && copies.iter().all(|copy| failed.contains(copy))
            && let Some(ready) = self.look_failed(chunk, copies, since)
        {
            return ready;
        }
        match copies {
            Some(copies) if self.awaits_registrations(class, &copies) => Ready::Hold,
            Some(copies) => Ready::Go(Choice {
                copies,
                ..Choice::default()
            }),
            None if self.now.mono.since(since) >= REPAIR_HOLD_MAX && self.lacks_place(chunk) => {
                Ready::Refuse(Errno::ENOSPC)
            }
            None => Ready::Hold,
        }
    }

    /// Its next copy is worth waiting for. (One that only moves is not: it is stale then.)
    fn is_being_repaired(&self, chunk: ChunkId) -> bool {
        self.repair.is_running(chunk) && self.balance.leaves(chunk).is_none()
    }

    /// Servers for a new chunk of a file of a class, nearest first. Of an object that is gone
    /// there is none: any will do, as the record is refused.
    fn choose_new(
        &mut self,
        session: SessionId,
        class: Option<ClassId>,
    ) -> Vec<(ServerId, BootId)> {
        let state = self.member.state();
        let class = state.class(class.unwrap_or_else(|| ClassId::copies(1)));
        let policy = class.making();
        let candidates = self.servers.candidates(policy, &BTreeSet::new());
        let most = usize::from(policy.copies);
        let chosen = placement::choose(policy, &candidates, &[], most, &mut self.rng);
        let copies = chosen
            .into_iter()
            .filter_map(|server| Some((server, self.servers.get(server)?.boot)));
        let mut copies: Vec<(ServerId, BootId)> = copies.collect();
        self.near_first(session, &mut copies);
        copies
    }

    /// Puts the copies first that the session's client prefers, or that are nearest to it.
    pub(super) fn near_first(&self, session: SessionId, copies: &mut [(ServerId, BootId)]) {
        let Some(one) = self.sessions.table.get(&session) else {
            return;
        };
        copies.sort_by_key(|(server, _)| {
            let known = self.servers.get(*server);
            known.map_or((usize::MAX, u8::MAX), |known| {
                one.nearness.rank(&known.labels)
            })
        });
    }

    pub(super) fn on_mutation_applied(&mut self, ticket: u64, applied: Applied) {
        self.mutations.end_granting(ticket);
        self.recheck |= self.mutations.land(ticket);
        let left_out = self.served_beside(&applied.changes);
        let Some(pending) = self.mutations.pending.get_mut(&ticket) else {
            return self.push_unowned(&applied.changes);
        };
        let session = pending.session;
        if let Some(Ok(Reply::Created { attributes, .. })) = &applied.outcome
            && attributes.kind == FileKind::Regular
        {
            // From now on: another session may remove the name before this is answered.
            self.sessions.note_open(session, attributes.inode);
        }
        // Of these directories the author may cache the names that it changed.
        let parents = parents_of(&pending.mutation);
        if applied.outcome == Some(Err(Errno::EXDEV)) {
            let told = "a name was refused: it is of another storage class than its directory, \
                        which has hard terms";
            self.effects.push_back(Effect::Log {
                level: Level::Info,
                text: told.to_owned(),
            });
        }
        let mut stale = stale_of(&applied.changes);
        stale.extend(left_out);
        let (pushes, waits) = self.sessions.push(Some(session), &stale, Some(ticket));
        let outcome = applied.outcome.expect("a client's record has an outcome");
        let outcome = Box::new(outcome);
        let named = match waits {
            0 => Vec::new(),
            _ => names_made(self.member.state(), &pending.mutation, &outcome),
        };
        pending.stage = Stage::Pushing {
            outcome,
            waits,
            named,
        };
        let granted = pending.stage.granted();
        self.mutations.untold.extend(granted);
        for parent in parents {
            self.sessions.cache(session, parent);
        }
        for push in pushes {
            self.send_push(push);
        }
        if waits == 0 {
            self.finish_pending(ticket);
        }
    }

    /// What caches drop before the first write under a lease, as a copy that it leaves out
    /// falls behind, and is served on to mounts that know of it (P6). (The state tells this
    /// where a lease has fewer copies than the one before.)
    fn served_beside(&mut self, changes: &[Change]) -> Vec<(InodeId, Stale)> {
        let (state, now) = (self.member.state(), self.now.mono);
        let chunks = changes.iter().filter_map(|change| match change {
            Change::Lease(id) => Some((*id, state.chunk(*id)?)),
            _ => None,
        });
        let leased = chunks.filter(|(_, one)| matches!(one.lease, LeaseState::Open { .. }));
        let cached = leased.filter(|(_, one)| self.sessions.is_cached(one.inode));
        let beside = cached.filter(|(id, one)| {
            let copies = one.lease.copies();
            self.servers.is_served_beside(*id, copies, now)
        });
        let inodes = beside.map(|(_, one)| one.inode);
        let stale: Vec<(InodeId, Stale)> =
            inodes.map(|inode| (inode, Stale::Inode(inode))).collect();
        if !stale.is_empty() {
            self.marks.reach(Mark::LeftOutPushed);
        }
        stale
    }

    /// One of the caches that a change waited for has dropped it.
    pub(super) fn on_push_answered(&mut self, ticket: u64) {
        let Some(pending) = self.mutations.pending.get_mut(&ticket) else {
            return;
        };
        let Stage::Pushing { waits, .. } = &mut pending.stage else {
            return;
        };
        *waits -= 1;
        if *waits == 0 {
            self.finish_pending(ticket);
        }
    }

    fn finish_pending(&mut self, ticket: u64) {
        let pending = self
            .mutations
            .pending
            .get(&ticket)
            .expect("it was just applied");
        let (link, session, request) = (pending.link, pending.session, pending.request);
        let parents = parents_of(&pending.mutation);
        let Stage::Pushing { outcome, named, .. } = pending.stage.clone() else {
            unreachable!("only what was pushed is finished")
        };
        // Who waits for a lease that is told of now has it recalled behind the answer.
        self.recheck |= pending.stage.granted().is_some() && !self.mutations.held.is_empty();
        self.mutations.forget(ticket);
        self.answer_mutation(link, session, request, *outcome, parents);
        self.push_overtaken(session, named);
    }

    /// Names that changed again before their author was answered: it may cache them from
    /// the answer, and drops them by this push behind it.
    fn push_overtaken(&mut self, session: SessionId, named: Vec<Named>) {
        let state = self.member.state();
        let changed = |((parent, name), inode): &Named| inode_at(state, *parent, name) != *inode;
        let overtaken = named.into_iter().filter(changed);
        let stale: Vec<Stale> = overtaken
            .map(|((parent, name), _)| Stale::Dentry { parent, name })
            .collect();
        if !stale.is_empty()
            && let Some(push) = self.sessions.note(session, stale, None)
        {
            self.send_push(push);
        }
    }

    /// Answers, and notes what the client may cache from the answer.
    fn answer_mutation(
        &mut self,
        link: LinkId,
        session: SessionId,
        id: RequestId,
        outcome: Outcome,
        parents: Vec<InodeId>,
    ) {
        if !self.guests.contains_key(&link) {
            return;
        }
        let result = outcome.and_then(|reply| self.dress(session, reply));
        let around = match &result {
            Ok(answer) => self.around(session, parents, answer),
            Err(_) => Vec::new(),
        };
        self.tell_client(
            link,
            MasterToClient::Answer {
                mutation: true,
                id,
                result,
                around,
            },
        );
    }

    /// The directories in which a mutation changed names, and the one that it made: as
    /// they are now, since whatever changes them later is pushed behind the answer.
    fn around(
        &mut self,
        session: SessionId,
        mut directories: Vec<InodeId>,
        answer: &Answer,
    ) -> Vec<AroundDirectory> {
        if let Answer::Created { attributes, .. } = answer
            && attributes.kind == FileKind::Directory
        {
            directories.push(attributes.inode);
        }
        directories.dedup();
        let told = directories.into_iter().filter_map(|inode| {
            let (attributes, empty) = self.member.state().directory_now(inode)?;
            self.sessions.cache(session, inode);
            Some(AroundDirectory { attributes, empty })
        });
        told.collect()
    }

    /// Attributes as they are now: they may have changed again since the reply was made,
    /// and the push of that came before the answer.
    fn newest(&self, replied: Attributes) -> Attributes {
        let now = self.member.state().attributes(replied.inode);
        now.unwrap_or(replied)
    }

    /// A lease for its holder. Not one that was fenced, or is being, since the reply was
    /// made (the holder may have been asked for it and not known it yet), nor one of
    /// which a copy is unknown here.
    fn granted(&self, session: SessionId, grant: &LeaseGrant) -> Option<LeasedChunk> {
        let one = self.member.state().chunk(grant.chunk)?;
        let holds = one.epoch == grant.epoch && one.lease.holder() == Some(session);
        let is_fenced = self.leases.is_fencing(grant.chunk, grant.epoch);
        let is_good = holds && !is_fenced;
        self.leased_chunk(grant).filter(|_| is_good)
    }

    /// A reply of the replicated state with what the leader adds to it.
    fn dress(&mut self, session: SessionId, reply: Reply) -> Result<Answer, Errno> {
        Ok(match reply {
            Reply::Done | Reply::Session(_) => Answer::Done,
            Reply::Released { void } => Answer::Released { void },
            Reply::Entry(attributes) => {
                let attributes = self.newest(attributes);
                self.sessions.cache(session, attributes.inode);
                Answer::Entry(attributes)
            }
            Reply::Created {
                attributes,
                existed,
                lease,
            } => {
                let attributes = self.newest(attributes);
                self.sessions.cache(session, attributes.inode);
                if attributes.kind == FileKind::Regular {
                    self.sessions.note_open(session, attributes.inode);
                }
                let lease = lease.and_then(|grant| {
                    let told = self.granted(session, &grant);
                    if told.is_none() {
                        // The client will not know that it holds it.
                        self.fence(grant.chunk, grant.epoch);
                    }
                    told.map(Box::new)
                });
                Answer::Created {
                    attributes,
                    existed,
                    lease,
                }
            }
            Reply::Lease(grant) => {
                // Without one the client asks anew.
                Answer::Lease(Box::new(
                    self.granted(session, &grant).ok_or(Errno::EAGAIN)?,
                ))
            }
        })
    }
}

fn is_within_window(request: RequestId, oldest: RequestId) -> bool {
    request.0.saturating_sub(oldest.0) < SESSION_WINDOW
}

fn is_destructive(mode: FallocateMode) -> bool {
    matches!(
        mode,
        FallocateMode::Punch | FallocateMode::Zero | FallocateMode::ZeroKeep
    )
}

/// The directories whose names a mutation may change.
fn parents_of(mutation: &Mutation) -> Vec<InodeId> {
    let names = mutation.names().into_iter();
    names.map(|(parent, _)| parent).collect()
}

fn flight_of(state: &State, mutation: &Mutation) -> Flight {
    let target = match mutation {
        Mutation::Unlink { parent, name } => state.unlink_target(*parent, name),
        Mutation::Rename {
            new_parent,
            new_name,
            ..
        } => state.unlink_target(*new_parent, new_name),
        _ => None,
    };
    let names = mutation.names().into_iter();
    Flight {
        names: names
            .map(|(parent, name)| (parent, name.to_vec()))
            .collect(),
        removes: target.map(|(inode, _)| inode),
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, u32>, key: K) {
    let count = counts.get_mut(&key).expect("it was counted");
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
}

fn inode_at(state: &State, parent: InodeId, name: &[u8]) -> Option<InodeId> {
    state.unlink_target(parent, name).map(|(inode, _)| inode)
}

/// A mutation's names and what it made of them. The state may be behind later records, of
/// the same batch; where the outcome does not tell, it is asked all the same.
fn names_made(state: &State, mutation: &Mutation, outcome: &Outcome) -> Vec<Named> {
    let made = |parent, name: &[u8]| match (mutation, outcome) {
        (Mutation::Unlink { .. } | Mutation::Rmdir { .. }, Ok(_)) => None,
        (Mutation::Create { .. }, Ok(Reply::Created { attributes, .. })) => Some(attributes.inode),
        _ => inode_at(state, parent, name),
    };
    let names = mutation.names().into_iter();
    let named = names.map(|(parent, name)| ((parent, name.to_vec()), made(parent, name)));
    named.collect()
}
