//! The ends of leases: recalls, settling of what was released unsynced, and the
//! reconciliation of what broke (P4).
//!
//! | lease state | what the leader does |
//! |---|---|
//! | Open | nothing, until somebody else needs it: recall, then fence |
//! | Closing | has every copy synced in batches, then logs `Settled` |
//! | Closing, a copy lost | logs `Fence` |
//! | Broken | logs `Fence` |
//! | Reconciling | fences every reachable copy, takes one that holds all synced bytes, makes the others equal, logs `Reconciled` |
//! | Reconciling, its servers have nothing or are gone for long | takes any other copy of the version that was last synced under, or of a newer one |
//! | Reconciling, nobody has it, nothing was ever synced | makes an empty one, on other servers if those can't have it; a chunk without content goes with `Reconciled` |
//!
//! A new leader finds the same states in the replicated table and goes on: every
//! step may be done twice. Servers of the write set whose copy is at least of the
//! version `base` hold every synced byte, since a sync is acknowledged by all of
//! them; one that still lives the life that the lease names holds the unsynced
//! acknowledged bytes too, and is preferred; when there is none, the log is told that they
//! may be lost.

use super::commands::Purpose;
use super::servers::Hearsay;
use super::{Master, Proposal};
use crate::ids::{BootId, ChunkId, ChunkVersion, Epoch, Incarnation, PartId, ServerId, SessionId};
use crate::limits::REPORT_BATCH;
use crate::machine::Level;
use crate::marks::Mark;
use crate::namespace::LeaseState;
use crate::namespace::record::RecordBody;
use crate::placement;
use crate::time::{Duration, Instant};
use crate::wire::capability::{Grant, Right};
use crate::wire::chunk_master::{Command, CommandResult, PartState};
use crate::wire::client_master::MasterToClient;
use std::collections::{BTreeMap, BTreeSet};

/// How often an unanswered recall is repeated.
const RECALL_AGAIN: Duration = Duration::from_secs(1);
/// After how long an unanswered recall is answered by a fence.
const RECALL_PATIENCE: Duration = Duration::from_secs(8);
/// For how long a reconciliation waits for copies beside one that kept its life.
const FRESH_PATIENCE: Duration = Duration::from_millis(500);
/// For how long it waits for one that kept its life, when only restarted ones answer, or
/// ones that were not written. A machine that stands still for some seconds is no dead one:
/// what programs wrote there, and did not sync, is not to be given up for it.
const STALE_PATIENCE: Duration = Duration::from_secs(15);

/// The pause before a reconciliation of which nothing came begins anew.
const RECONCILE_AGAIN: Duration = Duration::from_secs(1);

/// The pause before copies are asked again of which none would do.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How long released chunks gather before their copies are synced: one sync serves all.
const SYNC_PACE: Duration = Duration::from_millis(50);

/// A closing chunk whose copies are being synced.
#[derive(Clone, Debug)]
struct Closing {
    epoch: Epoch,
    version: ChunkVersion,
    waits: BTreeSet<ServerId>,
}

/// A broken chunk being made whole.
#[derive(Clone, Debug)]
struct Reconcile {
    epoch: Epoch,
    version: ChunkVersion,
    base: ChunkVersion,
    /// A copy of this version has every synced byte, also where the lease did not write.
    synced: Option<ChunkVersion>,
    copies: Vec<(ServerId, BootId)>,
    since: Instant,
    asked: BTreeSet<ServerId>,
    answers: BTreeMap<ServerId, Answer>,
    /// What the copies are made equal to is of none that kept its life.
    lossy: bool,
    step: Step,
}

/// What a server says of its copy.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Has(PartState),
    /// It never had one that was durable.
    Absent,
    /// It lost it, or can't read it: what was there is not known.
    Unknown,
}

#[derive(Clone, Debug)]
enum Step {
    Asking,
    Equalizing {
        waits: BTreeSet<ServerId>,
        good: BTreeMap<ServerId, BootId>,
    },
    Logged,
    /// Nothing came of it; fenced anew after a pause, since a copy may still be doing
    /// what it was told and did not answer.
    Failed(Instant),
}

#[derive(Clone, Copy, Debug)]
struct Recalled {
    epoch: Epoch,
    first: Instant,
    /// When the holder was last asked for it.
    last: Option<Instant>,
}

/// What the leader does about the ends of leases.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    recalls: BTreeMap<ChunkId, Recalled>,
    closing: BTreeMap<ChunkId, Closing>,
    /// Closing chunks whose servers have not all registered with this leader yet.
    deferred: BTreeSet<ChunkId>,
    outbox: BTreeMap<ServerId, Vec<(PartId, ChunkVersion, Epoch)>>,
    syncing: BTreeSet<ServerId>,
    /// When what gathered is sent.
    due: Option<Instant>,
    synced: Vec<(ChunkId, Epoch)>,
    logging: bool,
    fencing: BTreeMap<ChunkId, Epoch>,
    reconciling: BTreeMap<ChunkId, Reconcile>,
    /// Of those, the ones of which a copy was absent: nothing of them was ever synced. That
    /// stays so however often they are fenced anew, and whatever becomes of the copy.
    never_synced: BTreeSet<ChunkId>,
}

impl Leases {
    /// When the next syncs are to be sent.
    pub(super) fn sync_due(&self) -> Instant {
        self.due.unwrap_or(Instant::NEVER)
    }

    /// Somebody waits: what gathered is sent at once.
    pub(super) fn hurry(&mut self) {
        self.due = self.due.map(|_| Instant::default());
    }

    pub(super) fn settling_done(&mut self) {
        self.logging = false;
    }

    /// What was to be logged as settled was not: it is logged anew.
    pub(super) fn settling_dropped(&mut self, chunks: Vec<(ChunkId, Epoch)>) {
        self.logging = false;
        self.synced.extend(chunks);
    }

    /// A fence of that epoch is on its way into the log.
    pub(super) fn is_fencing(&self, chunk: ChunkId, epoch: Epoch) -> bool {
        self.fencing.get(&chunk) == Some(&epoch)
    }

    /// A record about the chunk's lease did not reach the log: it is looked at again.
    pub(super) fn look_again(&mut self, chunk: ChunkId) {
        self.fencing.remove(&chunk);
        self.deferred.insert(chunk);
    }

    pub(super) fn reconciled(&mut self, chunk: ChunkId) {
        self.reconciling.remove(&chunk);
    }

    pub(super) fn forget(&mut self, chunk: ChunkId) {
        self.recalls.remove(&chunk);
        self.closing.remove(&chunk);
        self.deferred.remove(&chunk);
        self.fencing.remove(&chunk);
        self.reconciling.remove(&chunk);
    }
}

impl Master {
    /// A chunk's lease state is another one now.
    pub(super) fn on_lease_changed(&mut self, chunk: ChunkId) {
        self.servers.touch(chunk);
        if self.reign.is_none() {
            return;
        }
        let Some(one) = self.member.state().chunk(chunk) else {
            self.leases.never_synced.remove(&chunk);
            return self.leases.forget(chunk);
        };
        let (epoch, version, lease) = (one.epoch, one.version, one.lease);
        if !matches!(lease, LeaseState::Reconciling { .. }) {
            self.leases.never_synced.remove(&chunk);
        }
        self.leases.forget(chunk);
        self.recheck = true;
        match lease {
            LeaseState::Settled | LeaseState::Open { .. } => {}
            LeaseState::Closing { copies, .. } => self.settle(chunk, (epoch, version), &copies),
            LeaseState::Broken { .. } => self.fence(chunk, epoch),
            LeaseState::Reconciling {
                base,
                copies,
                synced,
            } => self.reconcile(chunk, (epoch, version), (base, synced), copies),
        }
    }

    /// A new leader goes on with what it finds.
    pub(super) fn resume_leases(&mut self) {
        let leased: Vec<ChunkId> = self.member.state().leased().collect();
        for chunk in leased {
            let one = self.member.state().chunk(chunk);
            match one.map(|one| (one.lease, one.epoch)) {
                // Copies may still be doing what the leader before had them do.
                Some((LeaseState::Reconciling { .. }, epoch)) => self.fence(chunk, epoch),
                _ => self.on_lease_changed(chunk),
            }
        }
    }

    /// Asks the holder for a lease that somebody else needs. True when nobody else holds it.
    pub(super) fn recall_from_others(&mut self, session: SessionId, chunk: ChunkId) -> bool {
        let Some(one) = self.member.state().chunk(chunk) else {
            return true;
        };
        let LeaseState::Open {
            session: holder, ..
        } = one.lease
        else {
            return true;
        };
        if holder == session {
            return true;
        }
        self.recall(chunk, one.epoch, one.inode, holder);
        false
    }

    /// Asks the holder of a lease to give it back; fences it when that takes too long.
    fn recall(
        &mut self,
        chunk: ChunkId,
        epoch: Epoch,
        inode: crate::ids::InodeId,
        holder: SessionId,
    ) {
        let now = self.now.mono;
        let known = self.leases.recalls.get(&chunk).copied();
        let known = known.filter(|recall| recall.epoch == epoch);
        let first = known.map_or(now, |recall| recall.first);
        if now.since(first) > RECALL_PATIENCE {
            return self.fence(chunk, epoch);
        }
        let last = known.and_then(|recall| recall.last);
        if last.is_some_and(|last| now.since(last) < RECALL_AGAIN) {
            return;
        }
        let is_untold = self.mutations.is_untold(chunk, epoch);
        let last = (!is_untold).then_some(now);
        let recall = Recalled { epoch, first, last };
        self.leases.recalls.insert(chunk, recall);
        if is_untold {
            // Its holder would say that it has none, lose it, and ask again: two who want
            // to write could go on like that for good.
            return self.marks.reach(Mark::RecallPutOff);
        }
        self.marks.reach(Mark::LeaseRecalled);
        if let Some(link) = self.sessions.table.get(&holder).and_then(|one| one.link) {
            self.tell_client(
                link,
                MasterToClient::Recall {
                    leases: vec![(inode, chunk, epoch)],
                },
            );
        }
    }

    /// Recalls a lease for repair's sake.
    pub(super) fn recall_for_repair(&mut self, chunk: ChunkId) {
        let Some(one) = self.member.state().chunk(chunk) else {
            return;
        };
        if let LeaseState::Open { session, .. } = one.lease {
            self.marks.reach(Mark::RepairRecalled);
            self.recall(chunk, one.epoch, one.inode, session);
        }
    }

    pub(super) fn on_lease_not_held(&mut self, session: SessionId, chunk: ChunkId, epoch: Epoch) {
        let Some(one) = self.member.state().chunk(chunk) else {
            return;
        };
        let held =
            matches!(one.lease, LeaseState::Open { session: holder, .. } if holder == session);
        if held && one.epoch == epoch {
            self.fence(chunk, epoch);
        }
    }

    /// Copies that a new or renewed lease of an existing chunk may write to; `None`
    /// when it must wait.
    pub(super) fn writable_copies(
        &mut self,
        session: SessionId,
        chunk: ChunkId,
        failed: &[(ServerId, BootId)],
    ) -> Option<Vec<(ServerId, BootId)>> {
        let one = self.member.state().chunk(chunk)?;
        let epoch = one.epoch;
        let mut all: Vec<(ServerId, BootId)> = match &one.lease {
            LeaseState::Settled => {
                let current = self.servers.current(chunk, one.version);
                let named = current
                    .filter_map(|copy| Some((copy.server, self.servers.get(copy.server)?.boot)));
                named
                    .filter(|(server, _)| self.servers.is_alive(*server))
                    .collect()
            }
            LeaseState::Open { copies, .. } | LeaseState::Closing { copies, .. } => copies
                .iter()
                .copied()
                .filter(|(server, boot)| self.servers.lives(*server, *boot))
                .filter(|(server, _)| !self.servers.has_lost(*server, chunk))
                // One that never got the part says nothing of it, and can't take it any more.
                .filter(|(server, _)| self.servers.takes_writes(*server))
                .collect(),
            LeaseState::Broken { .. } | LeaseState::Reconciling { .. } => return None,
        };
        all.retain(|(server, _)| self.is_permitted(one.class, *server));
        self.leave_drained_out(chunk, &one, &mut all);
        let was_leased = !matches!(one.lease, LeaseState::Settled);
        let is_own =
            matches!(one.lease, LeaseState::Open { session: holder, .. } if holder == session);
        let mut good: Vec<_> = all
            .iter()
            .copied()
            .filter(|copy| !failed.contains(copy))
            .collect();
        if good.is_empty() {
            good = all;
        }
        if good.is_empty() && was_leased && self.knows_servers() {
            self.fence(chunk, epoch);
        }
        if is_own && !good.is_empty() {
            self.marks.reach(Mark::LeaseRegranted);
        }
        self.near_first(session, &mut good);
        (!good.is_empty()).then_some(good)
    }

    /// The servers had time to register with this leader.
    pub(super) fn knows_servers(&self) -> bool {
        self.reign
            .is_some_and(|reign| self.now.mono.since(reign.since) >= self.config.repair_delay)
    }

    /// Logs the fence of a lease, once. One that others followed is over already: the log
    /// would refuse it, and the last of those may be settling.
    pub(super) fn fence(&mut self, chunk: ChunkId, epoch: Epoch) {
        let now = self.member.state().chunk(chunk).map(|one| one.epoch);
        if self.leases.fencing.get(&chunk) == Some(&epoch) || now.is_some_and(|now| now > epoch) {
            return;
        }
        self.leases.closing.remove(&chunk);
        self.leases.fencing.insert(chunk, epoch);
        self.marks.reach(Mark::LeaseFenced);
        self.propose(
            Proposal::Fence(chunk),
            RecordBody::Fence {
                chunks: vec![(chunk, epoch)],
            },
        );
    }

    // Settling.

    fn settle(
        &mut self,
        chunk: ChunkId,
        (epoch, version): (Epoch, ChunkVersion),
        copies: &[(ServerId, BootId)],
    ) {
        let whole = copies
            .iter()
            .all(|(server, boot)| self.servers.lives(*server, *boot));
        if !whole {
            self.marks.reach(Mark::CopyDoubted);
            if self.knows_servers() {
                return self.fence(chunk, epoch);
            }
            self.leases.deferred.insert(chunk);
            return;
        }
        let waits: BTreeSet<ServerId> = copies.iter().map(|(server, _)| *server).collect();
        for server in &waits {
            self.leases.outbox.entry(*server).or_default().push((
                PartId::whole(chunk),
                version,
                epoch,
            ));
        }
        self.marks.reach(Mark::LeaseClosed);
        self.leases.closing.insert(
            chunk,
            Closing {
                epoch,
                version,
                waits,
            },
        );
        self.leases.due.get_or_insert(self.now.mono + SYNC_PACE);
    }

    /// Sends each server what gathered for it while it synced, and logs what is synced.
    pub(super) fn pump_settling(&mut self) {
        if self.leases.due.is_some_and(|due| due <= self.now.mono) {
            self.leases.due = None;
            let idle = self
                .leases
                .outbox
                .keys()
                .filter(|server| !self.leases.syncing.contains(server));
            let idle: Vec<ServerId> = idle.copied().collect();
            for server in idle {
                self.send_syncs(server);
            }
        }
        if !self.leases.logging && !self.leases.synced.is_empty() {
            self.leases.logging = true;
            let most = self.leases.synced.len().min(REPORT_BATCH);
            let chunks = self.leases.synced.drain(..most).collect();
            let chunks: Vec<(ChunkId, Epoch)> = chunks;
            self.propose(
                Proposal::Settled(chunks.clone()),
                RecordBody::Settled { chunks },
            );
        }
    }

    fn send_syncs(&mut self, server: ServerId) {
        let mut parts = self.leases.outbox.remove(&server).unwrap_or_default();
        let rest = parts.split_off(parts.len().min(REPORT_BATCH));
        if !rest.is_empty() {
            self.leases.outbox.insert(server, rest);
            self.leases.due.get_or_insert(self.now.mono + SYNC_PACE);
        }
        // What was fenced or leased again meanwhile need not be synced.
        parts.retain(|(part, _, epoch)| {
            self.leases
                .closing
                .get(&part.chunk)
                .is_some_and(|closing| closing.epoch == *epoch)
        });
        if parts.is_empty() {
            return;
        }
        self.leases.syncing.insert(server);
        let named = parts.iter().map(|(part, _, epoch)| (part.chunk, *epoch));
        let chunks = named.collect();
        self.command(
            server,
            Purpose::Settle(chunks),
            Command::SyncParts { parts },
        );
    }

    pub(super) fn on_synced(
        &mut self,
        server: ServerId,
        chunks: &[(ChunkId, Epoch)],
        result: CommandResult,
    ) {
        self.leases.syncing.remove(&server);
        if self.leases.outbox.contains_key(&server) {
            self.leases.due.get_or_insert(self.now.mono + SYNC_PACE);
        }
        let states = match result {
            CommandResult::Parts(states) if states.len() == chunks.len() => states,
            _ => vec![None; chunks.len()],
        };
        for ((chunk, epoch), state) in chunks.iter().zip(states) {
            self.on_part_synced(server, (*chunk, *epoch), state);
        }
    }

    /// A copy that has seen a newer epoch tells what it is like, and was not synced:
    /// only its word about this very lease counts.
    fn on_part_synced(
        &mut self,
        server: ServerId,
        (chunk, epoch): (ChunkId, Epoch),
        state: Option<PartState>,
    ) {
        let closing = self.leases.closing.get_mut(&chunk);
        let Some(closing) = closing.filter(|closing| closing.epoch == epoch) else {
            return;
        };
        let version = closing.version;
        if state.is_none_or(|state| (state.version, state.epoch) != (version, epoch)) {
            return self.fence(chunk, epoch);
        }
        closing.waits.remove(&server);
        if closing.waits.is_empty() {
            self.leases.closing.remove(&chunk);
            self.leases.synced.push((chunk, epoch));
        }
    }

    /// Copies are durable and equal: every member learns from the log who holds them. The
    /// leader had their servers' word just now; whoever else reads this reads of the past,
    /// and the servers may have told since that they have them no more. One that came back
    /// since told what it has: a disk that was put back to an older state has less.
    pub(super) fn on_settled(
        &mut self,
        chunk: ChunkId,
        version: ChunkVersion,
        copies: &[(ServerId, Option<BootId>)],
    ) {
        let leads = self.reign.is_some();
        for &(server, boot) in copies {
            let heard = Hearsay { version, boot };
            match leads {
                true if !self.servers.is_of_now(server, heard) => {}
                true => self.servers.raise_copy(server, chunk, version),
                false => self.servers.hear_of_copy(server, chunk, heard),
            }
        }
        if leads {
            self.leases.forget(chunk);
            self.recheck = true;
        }
    }

    // Reconciling.

    fn reconcile(
        &mut self,
        chunk: ChunkId,
        (epoch, version): (Epoch, ChunkVersion),
        (base, synced): (ChunkVersion, Option<ChunkVersion>),
        copies: Vec<(ServerId, BootId)>,
    ) {
        let one = Reconcile {
            epoch,
            version,
            base,
            synced,
            copies: copies.clone(),
            since: self.now.mono,
            asked: BTreeSet::new(),
            answers: BTreeMap::new(),
            lossy: false,
            step: Step::Asking,
        };
        self.leases.reconciling.insert(chunk, one);
        for (server, _) in copies {
            self.ask_copy(chunk, server);
        }
    }

    /// Fences one copy and asks what it is like.
    fn ask_copy(&mut self, chunk: ChunkId, server: ServerId) {
        if !self.servers.is_alive(server) {
            return;
        }
        let Some(one) = self.leases.reconciling.get_mut(&chunk) else {
            return;
        };
        let wanted = matches!(one.step, Step::Asking) && one.is_written(server);
        if wanted {
            self.fence_copy(chunk, server);
        }
    }

    /// False if it was asked already.
    fn fence_copy(&mut self, chunk: ChunkId, server: ServerId) -> bool {
        let one = self.leases.reconciling.get_mut(&chunk);
        let one = one.expect("the caller looked");
        let is_new = one.asked.insert(server);
        if is_new {
            let command = Command::Fence {
                part: PartId::whole(chunk),
                epoch: one.epoch,
            };
            self.command(server, Purpose::Fence(chunk), command);
        }
        is_new
    }

    /// Asks copies that the lease did not write, but that have every synced byte: true when
    /// there are some that were not asked yet.
    fn ask_others(&mut self, chunk: ChunkId) -> bool {
        let one = &self.leases.reconciling[&chunk];
        let Some(synced) = one.synced else {
            return false;
        };
        let class = self
            .member
            .state()
            .chunk(chunk)
            .expect("it is reconciled")
            .class;
        let known = self.servers.copies(chunk);
        let whole = known.filter(|copy| copy.version >= synced && !copy.bad);
        let others = whole.map(|copy| copy.server);
        let others = others.filter(|server| !one.is_written(*server));
        let others: Vec<ServerId> = others
            .filter(|server| self.servers.is_alive(*server) && self.is_permitted(class, *server))
            .collect();
        let mut is_new = false;
        for server in others {
            is_new |= self.fence_copy(chunk, server);
        }
        if is_new {
            self.marks.reach(Mark::UnwrittenCopyTaken);
        }
        is_new
    }

    pub(super) fn on_fenced(&mut self, server: ServerId, chunk: ChunkId, result: CommandResult) {
        let Some(one) = self.leases.reconciling.get_mut(&chunk) else {
            return;
        };
        match result {
            CommandResult::Parts(states) if states.len() == 1 => {
                let answer = states[0].map_or(Answer::Absent, Answer::Has);
                one.answers.insert(server, answer);
            }
            // It answered, though not with what its part is like.
            _ if self.servers.is_alive(server) => {
                one.answers.insert(server, Answer::Unknown);
            }
            _ => {
                one.asked.remove(&server);
            }
        }
        self.decide(chunk);
    }

    /// Chooses the copy that the others are made equal to, when enough is known.
    fn decide(&mut self, chunk: ChunkId) {
        let patient = !self.knows_servers();
        let Some(one) = self.leases.reconciling.get(&chunk) else {
            return;
        };
        if !matches!(one.step, Step::Asking) {
            return;
        }
        let heard = |(server, _): &(ServerId, BootId)| one.answers.contains_key(server);
        let all = one.copies.iter().all(heard);
        let waited = self.now.mono.since(one.since);
        let source = best_copy(one);
        let enough = match source {
            Some((_, true)) => all || (waited >= FRESH_PATIENCE && !patient),
            Some((_, false)) => all || (waited >= STALE_PATIENCE && !patient),
            None => all || (waited >= STALE_PATIENCE && !patient),
        };
        // What was synced is on every copy: one that has nothing proves that nothing was.
        // So does the log when it knows of no content, as an fsync is answered behind that.
        let is_absent = |answer: &Answer| matches!(answer, Answer::Absent);
        let is_first = one.base == ChunkVersion(0);
        if is_first && one.answers.values().any(is_absent) {
            self.leases.never_synced.insert(chunk);
        }
        let proven = self.leases.never_synced.contains(&chunk)
            || self.is_uncommitted(chunk)
            || self.is_lost_unsynced(chunk, one);
        let never_synced = is_first && proven;
        let is_gone = waited >= self.config.repair_delay && !patient;
        let has_none = |(server, _): &(ServerId, BootId)| match one.answers.get(server) {
            // It could not say, and has no disk that is gone: a full one is not for good.
            Some(Answer::Unknown) => {
                self.servers.has_failed_disk(*server) || self.servers.has_lost(*server, chunk)
            }
            Some(Answer::Has(_) | Answer::Absent) => true,
            None => is_gone && !self.servers.is_alive(*server),
        };
        let is_hopeless = one.copies.iter().all(has_none);
        match source {
            Some((source, kept)) if enough => self.equalize(chunk, source, kept),
            None if enough && never_synced => self.make_empty(chunk),
            None if is_hopeless && self.ask_others(chunk) => {}
            None if all => self.ask_all_later(chunk),
            _ => {}
        }
    }

    /// Whether no fsync vouched for anything in the chunk, and each server that it was written
    /// on tells that it went with a disk.
    fn is_lost_unsynced(&self, chunk: ChunkId, one: &Reconcile) -> bool {
        let is_lost = |(server, _): &(ServerId, BootId)| {
            self.servers.is_alive(*server) && self.servers.has_lost(*server, chunk)
        };
        one.synced == Some(one.base) && one.copies.iter().all(is_lost)
    }

    /// Whether no content of the chunk was ever made part of its file. (The log of a
    /// recovered cluster may have lost that it was.)
    fn is_uncommitted(&self, chunk: ChunkId) -> bool {
        let state = self.member.state();
        let place = state.chunk(chunk).map(|one| (one.inode, one.index));
        let there = place.map(|(inode, index)| state.chunk_at(inode, index));
        let is_empty = matches!(there, Some(Ok(Some((at, 0)))) if at == chunk);
        is_empty && self.life() <= Incarnation(1)
    }

    /// No copy will do as they are now: a disk may come back, or a read succeed. So they are
    /// asked again after a pause.
    fn ask_all_later(&mut self, chunk: ChunkId) {
        let now = self.now.mono;
        let one = self.leases.reconciling.get_mut(&chunk);
        if let Some(one) = one.filter(|one| now.since(one.since) >= ASK_AGAIN) {
            one.since = now;
            one.asked.clear();
            one.answers.clear();
        }
    }

    /// Makes the copies equal to one. What can't be read now and may hold what that one
    /// lacks is left as it is: once overwritten, it would be taken for what it was before
    /// if the reconciliation had to begin anew.
    fn equalize(&mut self, chunk: ChunkId, source: ServerId, kept: bool) {
        let one = self
            .leases
            .reconciling
            .get_mut(&chunk)
            .expect("the caller looked");
        let (epoch, version, part) = (one.epoch, one.version, PartId::whole(chunk));
        let Answer::Has(model) = one.answers[&source] else {
            panic!("the source has a copy");
        };
        let mut answers = std::mem::take(&mut one.answers);
        answers.retain(|_, answer| kept || !matches!(answer, Answer::Unknown));
        one.lossy = !kept;
        let waits = answers.keys().copied().collect();
        one.step = Step::Equalizing {
            waits,
            good: BTreeMap::new(),
        };
        let grant = Grant {
            part,
            version: model.version,
            epoch,
            right: Right::Read,
        };
        let sources: Vec<_> = self
            .located(source, model.boot, grant)
            .into_iter()
            .collect();
        for (server, state) in answers {
            let equal = matches!(state, Answer::Has(state) if state.digest == model.digest);
            let command = match equal {
                true => Command::SetVersion {
                    part,
                    epoch,
                    version,
                },
                false => Command::Replicate {
                    part,
                    version,
                    epoch,
                    sources: sources.clone(),
                },
            };
            self.command(server, Purpose::Equalize(chunk), command);
        }
    }

    /// Nothing was ever durable, and nobody has anything: the chunk is empty. Who can't
    /// tell is left out.
    fn make_empty(&mut self, chunk: ChunkId) {
        let one = self
            .leases
            .reconciling
            .get_mut(&chunk)
            .expect("the caller looked");
        let (epoch, version) = (one.epoch, one.version);
        let absent = one.answers.iter();
        let absent = absent.filter(|(_, answer)| matches!(answer, Answer::Absent));
        let mut servers: BTreeSet<ServerId> = absent.map(|(server, _)| *server).collect();
        one.lossy = true;
        if servers.is_empty() && self.is_uncommitted(chunk) {
            // Without content the chunk goes: nobody need have it.
            return self.log_reconciled(chunk, epoch, BTreeMap::new());
        }
        if servers.is_empty() {
            servers = self.places_elsewhere(chunk);
        }
        if servers.is_empty() {
            return self.ask_all_later(chunk);
        }
        let one = self.leases.reconciling.get_mut(&chunk);
        let one = one.expect("the caller looked");
        one.step = Step::Equalizing {
            waits: servers.clone(),
            good: BTreeMap::new(),
        };
        for server in servers {
            let command = Command::SetVersion {
                part: PartId::whole(chunk),
                epoch,
                version,
            };
            self.command(server, Purpose::Equalize(chunk), command);
        }
    }

    /// Servers for a chunk that none of its own can have any more.
    fn places_elsewhere(&mut self, chunk: ChunkId) -> BTreeSet<ServerId> {
        let one = &self.leases.reconciling[&chunk];
        let except = one.copies.iter().map(|(server, _)| *server).collect();
        let state = self.member.state();
        let class = state.chunk(chunk).expect("it is reconciled").class;
        let class = state.class(class);
        let policy = class.making();
        let candidates = self.servers.candidates(policy, &except);
        let most = usize::from(policy.copies);
        let chosen = placement::choose(policy, &candidates, &[], most, &mut self.rng);
        chosen.into_iter().collect()
    }

    pub(super) fn on_equalized(
        &mut self,
        server: ServerId,
        chunk: ChunkId,
        result: &CommandResult,
    ) {
        let Some(one) = self.leases.reconciling.get_mut(&chunk) else {
            return;
        };
        let Step::Equalizing { waits, good } = &mut one.step else {
            return;
        };
        let version = one.version;
        let wanted = (version, one.epoch);
        let state = match result {
            CommandResult::Parts(states) if states.len() == 1 => states[0],
            _ => None,
        };
        let done = state.filter(|state| (state.version, state.epoch) == wanted);
        let was_waited_for = waits.remove(&server);
        if let Some(state) = done.filter(|_| was_waited_for) {
            good.insert(server, state.boot);
        }
        if !waits.is_empty() {
            return;
        }
        let (epoch, copies) = (one.epoch, std::mem::take(good));
        if copies.is_empty() {
            one.step = Step::Failed(self.now.mono);
            let text = format!("{chunk} could not be made whole yet; trying again");
            return self.log(Level::Warn, text);
        }
        self.log_reconciled(chunk, epoch, copies);
    }

    fn log_reconciled(&mut self, chunk: ChunkId, epoch: Epoch, copies: BTreeMap<ServerId, BootId>) {
        let one = self.leases.reconciling.get_mut(&chunk);
        let one = one.expect("the caller looked");
        one.step = Step::Logged;
        let lossy = one.lossy;
        self.marks.reach(Mark::LeaseReconciled);
        if lossy {
            self.marks.reach(Mark::LeaseLossy);
        }
        self.propose(
            Proposal::Reconciled(chunk),
            RecordBody::Reconciled {
                chunk,
                epoch,
                servers: copies.keys().copied().collect(),
                lossy,
                boots: copies.into_values().collect(),
            },
        );
    }

    /// A reconciliation of which nothing came begins anew, with whoever is there.
    fn retry_failed(&mut self, chunk: ChunkId) {
        let Some(one) = self.leases.reconciling.get(&chunk) else {
            return;
        };
        let epoch = one.epoch;
        if matches!(one.step, Step::Failed(since) if self.now.mono.since(since) >= RECONCILE_AGAIN)
        {
            self.fence(chunk, epoch);
        }
    }

    pub(super) fn watch_reconciliations(&mut self) {
        let asking: Vec<ChunkId> = self.leases.reconciling.keys().copied().collect();
        for chunk in asking {
            let copies = self
                .leases
                .reconciling
                .get(&chunk)
                .map(|one| one.copies.clone())
                .unwrap_or_default();
            for (server, _) in copies {
                self.ask_copy(chunk, server);
            }
            self.decide(chunk);
            self.retry_failed(chunk);
        }
        self.retry_deferred();
    }

    fn retry_deferred(&mut self) {
        for chunk in std::mem::take(&mut self.leases.deferred) {
            self.on_lease_changed(chunk);
        }
    }

    /// Leases whose every copy was restarted hold nothing that is not durable: they are
    /// fenced at once, so that the chunk can be read without waiting for its holder,
    /// who may be gone too. A holder that lives asks anew and sends again.
    pub(super) fn fence_restarted(&mut self) {
        let restarted: Vec<(ChunkId, Epoch)> = self
            .member
            .state()
            .leased()
            .filter_map(|id| {
                let chunk = self.member.state().chunk(id)?;
                let LeaseState::Open { copies, .. } = &chunk.lease else {
                    return None;
                };
                let is_back = |&(server, boot): &(ServerId, BootId)| {
                    self.servers.is_alive(server) && !self.servers.lives(server, boot)
                };
                copies.iter().all(is_back).then_some((id, chunk.epoch))
            })
            .collect();
        for (chunk, epoch) in restarted {
            self.marks.reach(Mark::CopyDoubted);
            self.fence(chunk, epoch);
        }
    }

    /// A server has registered: what waited for it goes on.
    pub(super) fn on_server_back(&mut self, server: ServerId) {
        let waiting: Vec<ChunkId> = self.leases.reconciling.keys().copied().collect();
        for chunk in waiting {
            self.ask_copy(chunk, server);
        }
        self.fence_restarted();
        self.retry_deferred();
        self.recheck = true;
    }

    /// A server is lost: what it was to sync is fenced.
    pub(super) fn on_server_lost(&mut self, server: ServerId) {
        self.leases.syncing.remove(&server);
        self.leases.outbox.remove(&server);
        let hit = self
            .leases
            .closing
            .iter()
            .filter(|(_, closing)| closing.waits.contains(&server));
        let hit: Vec<(ChunkId, Epoch)> = hit
            .map(|(chunk, closing)| (*chunk, closing.epoch))
            .collect();
        for (chunk, epoch) in hit {
            self.fence(chunk, epoch);
        }
        self.recheck = true;
    }
}

impl Reconcile {
    /// Whether the lease wrote to the server.
    fn is_written(&self, server: ServerId) -> bool {
        self.boot_of(server).is_some()
    }

    fn boot_of(&self, server: ServerId) -> Option<BootId> {
        let mut copies = self.copies.iter();
        let found = copies.find(|(other, _)| *other == server);
        found.map(|(_, boot)| *boot)
    }

    /// Whether a copy of that version there has every synced byte.
    fn has_every_synced(&self, server: ServerId, version: ChunkVersion) -> bool {
        match self.is_written(server) {
            true => version >= self.base,
            false => self.synced.is_some_and(|synced| version >= synced),
        }
    }
}

/// The best copy to make the others equal to, and whether it kept the life that
/// the lease names.
fn best_copy(one: &Reconcile) -> Option<(ServerId, bool)> {
    let able = one
        .answers
        .iter()
        .filter_map(|(server, answer)| match answer {
            Answer::Has(state) => Some((*server, *state)),
            Answer::Absent | Answer::Unknown => None,
        });
    let able = able.filter(|(server, state)| one.has_every_synced(*server, state.version));
    let ranked = able.map(|(server, state)| {
        let kept = one.boot_of(server) == Some(state.boot);
        ((kept, state.version, state.digest), server)
    });
    ranked.max().map(|((kept, ..), server)| (server, kept))
}
