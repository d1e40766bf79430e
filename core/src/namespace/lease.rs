//! Leases: who may write a chunk, and how it comes to rest again.
//!
//! Owns every transition of `LeaseState` in one match, and the two indexes that
//! follow from it (chunks that are not settled, open leases by session).
//! Invariants: a chunk has at most one holder; each grant and each fence raises
//! epoch and version, so that older writers and copies are behind; `base` is kept
//! until the copies are known equal again.

use super::apply::Step;
use super::chunks::Extent;
use super::digest;
use super::record::{LeaseEnd, LeaseGrant, Loss, Outcome, Reply};
use super::state::{Change, LeaseState, State, WriteSet};
use super::table::Entity;
use crate::errno::Errno;
use crate::ids::{BootId, ChunkId, ChunkVersion, Epoch, InodeId, ServerId, SessionId};
use crate::version::FeatureLevel;

/// What happens to a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    /// A session asks for it.
    Grant(SessionId),
    /// A session gives it back, synced at every copy or not.
    Release(SessionId, bool),
    /// Its session ended, or somebody else cut the chunk.
    Break,
    /// The copies of a closing chunk were synced.
    Settle,
    /// The leader fences whoever may still write.
    Fence,
    /// The copies were made equal.
    Reconcile,
}

/// The state after an event, and whether it raises epoch and version; `None` where
/// the event means nothing. `chosen` is the leader's write set for a grant: what
/// holds bytes that were not synced is only written on where it has them, so a
/// grant of an unsettled chunk keeps to its write set.
fn next(
    lease: &LeaseState,
    version: ChunkVersion,
    event: Event,
    chosen: &WriteSet,
) -> Option<(LeaseState, bool)> {
    use LeaseState::{Broken, Closing, Open, Reconciling, Settled};
    let (base, synced) = match lease {
        Settled => (version, Some(version)),
        unsettled => (unsettled.base()?, unsettled.synced()),
    };
    let copies = lease.copies().to_vec();
    let open = |session, copies: WriteSet| {
        let granted = Open {
            session,
            base,
            copies,
            synced,
        };
        (!granted.copies().is_empty()).then_some((granted, true))
    };
    let within = |old: &WriteSet| {
        let kept = chosen.iter().filter(|copy| old.contains(copy));
        kept.copied().collect()
    };
    let closing = |copies| Closing {
        base,
        copies,
        synced,
    };
    let broken = |copies| Broken {
        base,
        copies,
        synced,
    };
    let fenced = |copies| Reconciling {
        base,
        copies,
        synced,
    };
    match (lease, event) {
        (Settled, Event::Grant(session)) => open(session, chosen.clone()),
        (Open { session, .. }, Event::Grant(asking)) if *session == asking => {
            open(asking, within(&copies))
        }
        (Closing { .. }, Event::Grant(session)) => open(session, within(&copies)),
        (Open { session, .. }, Event::Release(giving, is_synced)) if *session == giving => {
            Some((if is_synced { Settled } else { closing(copies) }, false))
        }
        (Open { .. }, Event::Break) => Some((broken(copies), false)),
        (Closing { .. }, Event::Settle) => Some((Settled, false)),
        (Open { .. } | Closing { .. } | Broken { .. } | Reconciling { .. }, Event::Fence) => {
            Some((fenced(copies), true))
        }
        (Reconciling { .. }, Event::Reconcile) => Some((Settled, false)),
        _ => None,
    }
}

impl Entity<ChunkId> for LeaseState {
    fn hash(&self, key: &ChunkId) -> u64 {
        let (tag, session) = match self {
            Self::Settled => (0, 0),
            Self::Open { session, .. } => (1, session.0),
            Self::Closing { .. } => (2, 0),
            Self::Broken { .. } => (3, 0),
            Self::Reconciling { .. } => (4, 0),
        };
        let base = self.base().unwrap_or_default();
        let mut hash = digest::words(5, &[key.0, tag, session, base.0]);
        for (server, boot) in self.copies() {
            hash = digest::words(hash, &[server.0, boot.0]);
        }
        // A state of before knows nothing of it, and has the same digest.
        match self.synced() {
            Some(synced) => digest::words(hash, &[synced.0]),
            None => hash,
        }
    }

    fn heap(&self, _: &ChunkId) -> usize {
        super::name::heap_of(size_of_val(self.copies()))
    }
}

impl Entity<ChunkId> for Loss {
    fn hash(&self, key: &ChunkId) -> u64 {
        digest::words(17, &[key.0, self.after.0, self.up_to.0])
    }
}

impl State {
    /// Puts a lease into its state and keeps the indexes.
    pub(crate) fn set_lease(&mut self, chunk: ChunkId, lease: LeaseState) {
        let holder = lease.holder();
        let old = match lease {
            LeaseState::Settled => self.leases.remove(&chunk),
            lease => self.leases.insert(chunk, lease),
        };
        if let Some(session) = old.and_then(|old| old.holder()) {
            self.held.remove(&(session, chunk));
        }
        if let Some(session) = holder {
            self.held.insert((session, chunk), ());
        }
    }

    /// Carries an event out. Whether it meant anything.
    fn turn(&mut self, step: &mut Step<'_>, chunk: ChunkId, event: Event) -> bool {
        let Some(stored) = self.chunks.get(&chunk) else {
            return false;
        };
        let lease = self.leases.get(&chunk).unwrap_or(&LeaseState::Settled);
        let Some((mut lease, raises)) = next(lease, stored.version, event, &step.choice.copies)
        else {
            return false;
        };
        if raises {
            let fences = u64::from(matches!(event, Event::Fence));
            let raised = self.raised_by(chunk, fences);
            self.set_raised(chunk, raised.expect("it was just found"));
        }
        if let (Event::Release(_, false), LeaseState::Closing { .. }) = (event, &lease) {
            self.seal(chunk);
        }
        if self.feature_level() < FeatureLevel::SYNCS {
            lease = lease.without_syncs();
        }
        self.set_lease(chunk, lease);
        step.changed(Change::Lease(chunk));
        true
    }

    fn set_raised(&mut self, chunk: ChunkId, raised: (ChunkVersion, Epoch)) {
        self.chunks.update(&chunk, |stored| {
            (stored.version, stored.epoch) = raised;
        });
    }

    /// Changes the version that a chunk was granted with, where that counts syncs. Its epoch
    /// goes along: it was fenced as often as before.
    fn set_version(&mut self, chunk: ChunkId, version: impl Fn(ChunkVersion) -> ChunkVersion) {
        let stored = self.chunks.get(&chunk).expect("its lease just changed");
        if self.feature_level() < FeatureLevel::COUNTS || !stored.version.counts_syncs() {
            return;
        }
        let version = version(stored.version);
        let epoch = stored.epoch.along(stored.version, version);
        self.set_raised(chunk, (version, epoch));
    }

    /// The copies of a chunk that was given back unsynced get a version that none can have
    /// that holds less.
    fn seal(&mut self, chunk: ChunkId) {
        self.set_version(chunk, ChunkVersion::sealed);
    }

    /// What the holder syncs may be vouched for from now on.
    pub(crate) fn note_sync(&mut self, step: &mut Step<'_>, chunk: ChunkId) {
        let version = self.chunks.get(&chunk).map(|stored| stored.version);
        let lease = self.leases.get(&chunk).cloned();
        if let (Some(version), Some(mut lease)) = (version, lease) {
            lease.note_sync(version);
            self.set_lease(chunk, lease);
            step.changed(Change::Synced(chunk));
        }
    }

    /// The end of the log may be lost, and with it what was vouched for.
    pub(crate) fn forget_syncs(&mut self, step: &mut Step<'_>) {
        let leased: Vec<ChunkId> = self.leases.iter().map(|(chunk, _)| *chunk).collect();
        for chunk in leased {
            let lease = self.leases.get(&chunk).expect("it was just seen");
            let forgotten = lease.clone().without_syncs();
            self.set_lease(chunk, forgotten);
            step.changed(Change::Synced(chunk));
        }
    }

    /// `Mutation::Lease`.
    pub(crate) fn lease(&mut self, step: &mut Step<'_>, inode: InodeId, index: u32) -> Outcome {
        let file = self.regular(inode)?;
        if index >= super::chunks::CHUNKS_MAX {
            return Err(Errno::EFBIG);
        }
        let grant = match self.extent(file, inode, index) {
            Some(extent) => self.grant(step, extent.chunk, extent),
            None => self.allocate_leased(step, inode, index),
        };
        grant.map(Reply::Lease)
    }

    /// Grants the lease of a chunk to the caller. EAGAIN while that may not be.
    pub(crate) fn grant(
        &mut self,
        step: &mut Step<'_>,
        chunk: ChunkId,
        extent: Extent,
    ) -> Result<LeaseGrant, Errno> {
        if self.stripe(chunk).is_some() {
            return Err(Errno::EAGAIN);
        }
        let inode = self.chunks.get(&chunk).map(|stored| stored.inode);
        let law = self.judge_old_copies(chunk, &step.choice.copies)?;
        let before = self.leases.get(&chunk).map(|lease| lease.copies().len());
        if !self.turn(step, chunk, Event::Grant(step.session)) {
            return Err(Errno::EAGAIN);
        }
        self.unarchive(step, inode.expect("what is granted is there"));
        let granted = self
            .chunk(chunk)
            .expect("a chunk of a file is in the table");
        let class = self.class(granted.class);
        let wanted = before.unwrap_or_else(|| usize::from(class.copied(false).copies));
        drop(class);
        let was_coded = self.stripes.remove(&chunk).is_some();
        // By a law there may be more copies than wanted, and those outside left out.
        if law || was_coded || granted.lease.copies().len() < wanted {
            // A copy that is left out falls behind: whoever knows of it drops that
            // before the first write (P6).
            step.changed(Change::Inode(granted.inode));
        }
        Ok(LeaseGrant {
            index: granted.index,
            chunk,
            version: granted.version,
            epoch: granted.epoch,
            valid: extent.valid,
            copies: granted.lease.copies().to_vec(),
            lost: self.losses.get(&chunk).copied(),
        })
    }

    /// Whether everything that was acknowledged under a version of a chunk is durable on
    /// all its copies, or went with the chunk.
    #[must_use]
    pub fn is_settled(&self, chunk: ChunkId, version: ChunkVersion) -> bool {
        let Some(stored) = self.chunks.get(&chunk) else {
            return true;
        };
        let lost = self.losses.get(&chunk);
        let durable = match self.leases.get(&chunk) {
            None => stored.version,
            Some(lease) => lease.base().unwrap_or_default(),
        };
        version <= durable && !lost.is_some_and(|loss| loss.covers(version))
    }

    /// Of leases to be given back, the chunks that are there and not leased so. (What was
    /// written to a chunk that is gone went before the cut that took it.)
    pub(crate) fn void_ends(&self, session: SessionId, ends: &[LeaseEnd]) -> Vec<ChunkId> {
        let is_void = |end: &&LeaseEnd| {
            let stored = self.chunks.get(&end.chunk);
            let held = self.held.has(&(session, end.chunk));
            stored.is_some_and(|stored| stored.epoch != end.epoch || !held)
        };
        ends.iter().filter(is_void).map(|end| end.chunk).collect()
    }

    /// `Mutation::Release`, and the leases that end with a commit.
    pub(crate) fn release(&mut self, step: &mut Step<'_>, ends: &[LeaseEnd]) {
        for end in ends {
            let copies = self.written(end.chunk, end.epoch);
            let event = Event::Release(step.session, end.synced);
            if copies.is_none() || !self.turn(step, end.chunk, event) {
                continue;
            }
            if end.synced {
                self.set_version(end.chunk, |granted| granted.after_syncs(end.syncs));
            }
            self.come_to_rest(step, end.chunk, copies.unwrap_or_default());
        }
    }

    /// `RecordBody::Settled`.
    pub(crate) fn settle(&mut self, step: &mut Step<'_>, chunk: ChunkId, epoch: Epoch) {
        if let Some(copies) = self.written(chunk, epoch)
            && self.turn(step, chunk, Event::Settle)
        {
            self.come_to_rest(step, chunk, copies);
        }
    }

    /// `RecordBody::Fence`.
    pub(crate) fn fence(&mut self, step: &mut Step<'_>, chunk: ChunkId, epoch: Epoch) {
        if self.written(chunk, epoch).is_some() {
            self.turn(step, chunk, Event::Fence);
        }
    }

    /// `RecordBody::Reconciled`.
    pub(crate) fn reconcile(
        &mut self,
        step: &mut Step<'_>,
        (chunk, epoch): (ChunkId, Epoch),
        copies: Vec<(ServerId, Option<BootId>)>,
        lossy: bool,
    ) {
        let base = self.leases.get(&chunk).and_then(LeaseState::base);
        if self.written(chunk, epoch).is_some() && self.turn(step, chunk, Event::Reconcile) {
            if lossy {
                self.note_loss(chunk, base.expect("it was not settled"));
            }
            self.come_to_rest(step, chunk, copies);
        }
    }

    /// What was written since `base` and not synced may be lost.
    fn note_loss(&mut self, chunk: ChunkId, base: ChunkVersion) {
        let stored = self.chunks.get(&chunk).expect("its lease just changed");
        let loss = Loss {
            after: base,
            up_to: stored.version,
        };
        let before = self.losses.get(&chunk);
        let both = before.map_or(loss, |before| before.with(loss));
        self.losses.insert(chunk, both);
    }

    /// The servers that a chunk was written to, if this is its epoch.
    fn written(&self, chunk: ChunkId, epoch: Epoch) -> Option<Vec<(ServerId, Option<BootId>)>> {
        let stored = self
            .chunks
            .get(&chunk)
            .filter(|stored| stored.epoch == epoch)?;
        let lease = self.leases.get(&chunk);
        let copies = lease.map(LeaseState::copies).unwrap_or_default();
        debug_assert!(stored.references > 0, "a chunk in the table is referred to");
        let in_life = |&(server, boot): &(ServerId, BootId)| (server, Some(boot));
        Some(copies.iter().map(in_life).collect())
    }

    /// A chunk whose lease was given back or reconciled: without content it goes; a
    /// settled one tells who holds it.
    fn come_to_rest(
        &mut self,
        step: &mut Step<'_>,
        chunk: ChunkId,
        copies: Vec<(ServerId, Option<BootId>)>,
    ) {
        let stored = self.chunks.get(&chunk).expect("its lease just changed");
        let (inode, index, version) = (stored.inode, stored.index, stored.version);
        let extent = self
            .find_extent(inode, index)
            .expect("a chunk is at its place");
        if extent.valid == 0 {
            self.drop_chunk(step, inode, index, chunk);
        } else if !self.leases.has(&chunk) {
            step.changed(Change::Settled {
                chunk,
                version,
                copies,
            });
        }
    }

    /// The lease of a session that ended breaks; what it never synced goes, unless
    /// commits may have been lost (`keep_empty`).
    pub(crate) fn break_lease(&mut self, step: &mut Step<'_>, chunk: ChunkId, keep_empty: bool) {
        let broke = self.turn(step, chunk, Event::Break);
        assert!(broke, "an open lease breaks");
        let stored = self.chunks.get(&chunk).expect("it has a lease");
        let (inode, index) = (stored.inode, stored.index);
        let extent = self
            .find_extent(inode, index)
            .expect("a chunk is at its place");
        if extent.valid == 0 && !keep_empty {
            self.drop_chunk(step, inode, index, chunk);
        }
    }

    /// The lease that another session than the caller holds breaks.
    pub(crate) fn break_foreign_lease(&mut self, step: &mut Step<'_>, chunk: ChunkId) {
        let holder = self.leases.get(&chunk).and_then(LeaseState::holder);
        if holder.is_some_and(|holder| holder != step.session) {
            self.turn(step, chunk, Event::Break);
        }
    }

    /// `RecordBody::Adopt`: only in a later life of the cluster, and only what an
    /// earlier one can have given.
    pub(crate) fn adopt(
        &mut self,
        step: &mut Step<'_>,
        chunk: ChunkId,
        epoch: Epoch,
        version: ChunkVersion,
    ) {
        let known = self.chunks.get(&chunk);
        let newer = known.is_some_and(|known| known.epoch == epoch && known.version < version);
        if newer && version.0 < self.scalars.epoch_floor.0 {
            self.chunks
                .update(&chunk, |stored| stored.version = version);
            // Parts are made of what is durable: a newer copy is one of whole content.
            self.stripes.remove(&chunk);
            step.changed(Change::Lease(chunk));
        }
    }
}
