//! What the leader knows of the mounted clients, in soft state: their links,
//! when they were heard, what they may have cached, what they have open.
//!
//! Owns cache coherence (P7): who must be told of a change before it is
//! answered, and when an unheard session can't answer from its cache any more.
//! Leaves the sessions themselves (P5) to the replicated state.

use crate::ids::{InodeId, LinkId, SessionId};
use crate::limits::{CACHE_LEASE, DRIFT_PER_MILLE};
use crate::placement::{Labels, Nearness};
use crate::time::{Duration, Instant};
use crate::wire::client_master::Stale;
use std::collections::{BTreeMap, BTreeSet};

/// Interests that one session may have before it is told to drop everything.
const INTERESTS_MAX: usize = 1 << 20;

/// A session as the leader sees it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) link: Option<LinkId>,
    /// When something of it was last heard or answered: its cache may be used for
    /// CACHE_LEASE from then at most.
    pub(super) heard: Instant,
    /// It may have something cached.
    pub(super) caches: bool,
    /// It lapsed: what it cached before may be stale, and pushes were not sent.
    pub(super) must_drop: bool,
    pub(super) nearness: Nearness,
    /// It has said hello to this leader, and what it has open.
    pub(super) arrived: bool,
    pub(super) opens: BTreeSet<InodeId>,
    interests: BTreeSet<InodeId>,
    /// The number of the last push, and those not answered: push -> tickets that wait.
    pushes: u64,
    waiting: BTreeMap<u64, Vec<u64>>,
}

impl Session {
    fn new(now: Instant) -> Self {
        Self {
            link: None,
            heard: now,
            caches: true,
            must_drop: false,
            nearness: Nearness::default(),
            arrived: false,
            opens: BTreeSet::new(),
            interests: BTreeSet::new(),
            pushes: 0,
            waiting: BTreeMap::new(),
        }
    }
}

/// A push to be sent.
#[derive(Debug)]
pub(super) struct PushOut {
    pub(super) link: LinkId,
    pub(super) push: u64,
    pub(super) stale: Vec<Stale>,
}

/// The leader's soft state about sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    pub(super) table: BTreeMap<SessionId, Session>,
    /// Ends of sessions that the log did not take.
    unended: BTreeSet<SessionId>,
    /// Closed orphans that it did not take.
    unclosed: BTreeMap<SessionId, Vec<InodeId>>,
    interested: BTreeMap<InodeId, Vec<SessionId>>,
}

/// For how long after we last heard a session its cache may be in use: the
/// lease, widened by the drift of its clock.
pub(super) fn cache_lease_widened() -> Duration {
    CACHE_LEASE + CACHE_LEASE * DRIFT_PER_MILLE / 1000
}

impl Sessions {
    /// The log did not take the end of a session: to be proposed again.
    pub(super) fn end_again(&mut self, session: SessionId) {
        self.unended.insert(session);
    }

    /// The log did not take it that a session closed orphans: to be proposed again.
    pub(super) fn close_again(&mut self, session: SessionId, inodes: Vec<InodeId>) {
        self.unclosed.entry(session).or_default().extend(inodes);
    }

    pub(super) fn take_unended(&mut self) -> BTreeSet<SessionId> {
        std::mem::take(&mut self.unended)
    }

    pub(super) fn take_unclosed(&mut self) -> BTreeMap<SessionId, Vec<InodeId>> {
        std::mem::take(&mut self.unclosed)
    }

    /// A session that the replicated state has and nobody has been heard of yet.
    pub(super) fn expect(&mut self, session: SessionId, now: Instant) {
        self.table
            .entry(session)
            .or_insert_with(|| Session::new(now));
    }

    /// The session is on a new link; it has dropped its caches.
    pub(super) fn arrive(
        &mut self,
        session: SessionId,
        link: LinkId,
        opens: Vec<InodeId>,
        labels: Labels,
        now: Instant,
    ) -> Vec<u64> {
        let released = self.lapse(session);
        let one = self
            .table
            .entry(session)
            .or_insert_with(|| Session::new(now));
        one.link = Some(link);
        one.heard = now;
        one.must_drop = false;
        one.arrived = true;
        one.opens = opens.into_iter().collect();
        one.nearness = Nearness::of(labels);
        released
    }

    /// Everything that it cached is void. Returns the tickets that waited for it, once
    /// for each push.
    pub(super) fn lapse(&mut self, session: SessionId) -> Vec<u64> {
        let Some(one) = self.table.get_mut(&session) else {
            return Vec::new();
        };
        one.caches = false;
        for inode in std::mem::take(&mut one.interests) {
            if let Some(list) = self.interested.get_mut(&inode) {
                list.retain(|other| *other != session);
                if list.is_empty() {
                    self.interested.remove(&inode);
                }
            }
        }
        std::mem::take(&mut one.waiting)
            .into_values()
            .flatten()
            .collect()
    }

    pub(super) fn remove(&mut self, session: SessionId) -> Vec<u64> {
        let released = self.lapse(session);
        self.table.remove(&session);
        released
    }

    /// The session may have `inode` cached from now on.
    pub(super) fn cache(&mut self, session: SessionId, inode: InodeId) {
        let Some(one) = self.table.get_mut(&session) else {
            return;
        };
        one.caches = true;
        if one.interests.insert(inode) {
            self.interested.entry(inode).or_default().push(session);
        }
    }

    /// Whether anybody may have something of an inode cached.
    pub(super) fn is_cached(&self, inode: InodeId) -> bool {
        self.interested.contains_key(&inode)
    }

    /// Whether it has so many interests that it should drop them all.
    pub(super) fn is_overfull(&self, session: SessionId) -> bool {
        self.table
            .get(&session)
            .is_some_and(|one| one.interests.len() > INTERESTS_MAX)
    }

    /// Notes pushes of `stale` things to every session but `author` that may have them
    /// cached; `ticket` waits for each. Returns who must be told what.
    pub(super) fn push(
        &mut self,
        author: Option<SessionId>,
        stale: &[(InodeId, Stale)],
        ticket: Option<u64>,
    ) -> (Vec<PushOut>, usize) {
        let mut per_session: BTreeMap<SessionId, Vec<Stale>> = BTreeMap::new();
        for (inode, what) in stale {
            for session in self.interested.get(inode).into_iter().flatten() {
                if Some(*session) != author {
                    per_session.entry(*session).or_default().push(what.clone());
                }
            }
        }
        let waits = per_session.len();
        let out = per_session
            .into_iter()
            .filter_map(|(session, stale)| self.note(session, stale, ticket));
        (out.collect(), waits)
    }

    /// Notes one push; nothing is sent while the session has no link (it lapses, or
    /// comes back with empty caches).
    pub(super) fn note(
        &mut self,
        session: SessionId,
        stale: Vec<Stale>,
        ticket: Option<u64>,
    ) -> Option<PushOut> {
        let one = self.table.get_mut(&session)?;
        one.pushes += 1;
        one.waiting.insert(one.pushes, ticket.into_iter().collect());
        let push = one.pushes;
        one.link.map(|link| PushOut { link, push, stale })
    }

    /// A push was carried out: the tickets that waited for it.
    pub(super) fn push_done(&mut self, session: SessionId, push: u64) -> Vec<u64> {
        let one = self.table.get_mut(&session);
        one.and_then(|one| one.waiting.remove(&push))
            .unwrap_or_default()
    }

    /// Sessions that can't be using their caches any more, but were.
    pub(super) fn lapsed(&self, now: Instant) -> Vec<SessionId> {
        let over = |one: &Session| now.since(one.heard) > cache_lease_widened();
        self.table
            .iter()
            .filter(|(_, one)| one.caches && over(one))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Nothing was heard of a session since it asked something, and for so long that it may
    /// be dead.
    pub(super) fn is_silent(&self, session: SessionId, asked: Instant, now: Instant) -> bool {
        let one = self.table.get(&session);
        one.is_some_and(|one| now.since(one.heard.max(asked)) > cache_lease_widened())
    }

    /// Whether a session has told of an open inode and not closed it.
    pub(super) fn has_open(&self, session: SessionId, inode: InodeId) -> bool {
        let one = self.table.get(&session);
        one.is_some_and(|one| one.opens.contains(&inode))
    }

    /// `Create` opens what it makes; a plain mknod does too, until the client says
    /// `Closed` or another hello.
    pub(super) fn note_open(&mut self, session: SessionId, inode: InodeId) {
        if let Some(one) = self.table.get_mut(&session) {
            one.opens.insert(inode);
        }
    }

    /// The sessions that have an inode open, or may have: one that has not said hello to
    /// this leader yet gives up what it does not have open when it does.
    pub(super) fn openers(&self, inode: InodeId) -> impl Iterator<Item = SessionId> + '_ {
        self.table
            .iter()
            .filter(move |(_, one)| !one.arrived || one.opens.contains(&inode))
            .map(|(id, _)| *id)
    }

    pub(super) fn check_invariants(&self) {
        for (inode, list) in &self.interested {
            for session in list {
                let knows = self
                    .table
                    .get(session)
                    .is_some_and(|one| one.interests.contains(inode));
                assert!(knows, "{session} is interested in {inode}, and knows it");
            }
        }
    }
}
