//! Chunks that lie in the parts of an erasure code: which they are, and how they
//! come to lie so and back.
//!
//! Owns the table; the parts themselves are the chunkservers', who has which is soft
//! state. Invariants: a chunk in parts is settled, and nobody gets a lease of it before
//! it lies in whole copies again; one that came back to copies is remembered until its
//! next lease, as readers may know of its parts until then.

use super::apply::Step;
use super::class::meets_law;
use super::digest;
use super::state::{Change, State};
use super::table::Entity;
use crate::chunk::stripe::Stripe;
use crate::ids::{ChunkId, ChunkVersion, Epoch, ServerId};
use crate::placement::{Labels, admits};
use crate::version::FeatureLevel;
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;

/// What is known of a chunk that lies in parts, or did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub(crate) struct Coded {
    #[n(0)]
    pub(crate) stripe: Stripe,
    /// It lies in copies again: this is kept for its next lease, which tells readers.
    #[n(1)]
    pub(crate) left: bool,
}

impl Entity<ChunkId> for Coded {
    fn hash(&self, key: &ChunkId) -> u64 {
        let Stripe {
            shape,
            units,
            stamp,
        } = self.stripe;
        let shape = (shape.data() as u64) << 8 | shape.parity() as u64;
        let small = shape << 1 | u64::from(self.left);
        digest::words(20, &[key.0, small, u64::from(units), stamp.0])
    }
}

/// A chunk as a record about its parts must find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) chunk: ChunkId,
    pub(crate) epoch: Epoch,
    pub(crate) version: ChunkVersion,
}

impl State {
    /// In which parts a chunk lies; `None` when it lies in copies.
    #[must_use]
    pub fn stripe(&self, chunk: ChunkId) -> Option<Stripe> {
        let coded = self.stripes.get(&chunk)?;
        (!coded.left).then_some(coded.stripe)
    }

    /// How many chunks lie in parts, those that did until their next lease included.
    #[must_use]
    pub fn striped(&self) -> u64 {
        self.stripes.len() as u64
    }

    /// The version and the epoch that a chunk gets when something is made of it anew.
    #[must_use]
    pub fn raised(&self, chunk: ChunkId) -> Option<(ChunkVersion, Epoch)> {
        self.raised_by(chunk, 0)
    }

    /// The same, of one that is fenced so many times on the way.
    pub(crate) fn raised_by(&self, chunk: ChunkId, fences: u64) -> Option<(ChunkVersion, Epoch)> {
        let stored = self.chunks.get(&chunk)?;
        let next = match self.feature_level() < FeatureLevel::COUNTS {
            true => stored.version.next(),
            false => stored.version.of_next_lease(),
        };
        let epoch = Epoch(stored.epoch.along(stored.version, next).0 + fences);
        let floor = self.scalars.epoch_floor;
        Some((next.max(ChunkVersion(floor.0)), epoch.max(floor)))
    }

    /// Whether a chunk is settled and as it was when the record was proposed.
    fn is_as(&self, place: Place) -> bool {
        let Place {
            chunk,
            epoch,
            version,
        } = place;
        let stored = self.chunks.get(&chunk);
        let same = stored.is_some_and(|one| (one.epoch, one.version) == (epoch, version));
        same && !self.leases.has(&chunk)
    }

    /// `RecordBody::Converted`: nothing happens when the chunk is another one by now, its
    /// class wants it otherwise, or the parts lie against the law.
    pub(crate) fn convert(
        &mut self,
        step: &mut Step<'_>,
        place: Place,
        stripe: Stripe,
        servers: &[ServerId],
    ) {
        let fits = stripe.is_sound() && self.stripe(place.chunk).is_none();
        if !fits || !self.is_as(place) || !self.judge_parts(place.chunk, stripe, servers) {
            return;
        }
        let coded = Coded {
            stripe,
            left: false,
        };
        self.stripes.insert(place.chunk, coded);
        self.tell_lying(step, place.chunk);
    }

    /// Whether parts on these servers are as the class of the chunk wants them.
    fn judge_parts(&self, chunk: ChunkId, stripe: Stripe, servers: &[ServerId]) -> bool {
        let apart: BTreeSet<ServerId> = servers.iter().copied().collect();
        if apart.len() != stripe.shape.parts() || servers.len() != apart.len() {
            return false;
        }
        let stored = self.chunks.get(&chunk).expect("the caller looked");
        let class = self.class(stored.class);
        let Some(policy) = class.coded(self.is_archived(stored.inode), stripe.shape) else {
            return false;
        };
        let labels: Vec<Labels> = servers.iter().map(|one| self.labels(*one)).collect();
        let labels: Vec<&Labels> = labels.iter().collect();
        !policy.has_law() || admits(policy, &labels) && meets_law(policy, &labels)
    }

    /// `RecordBody::Restored`: the copies have the version that the chunk gets, so that
    /// neither its parts nor older copies count any more.
    pub(crate) fn restore(
        &mut self,
        step: &mut Step<'_>,
        place: Place,
        stamp: Epoch,
        servers: &[ServerId],
    ) {
        let stripe = self.stripe(place.chunk);
        let same = stripe.filter(|stripe| stripe.stamp == stamp);
        let Some(stripe) = same.filter(|_| self.is_as(place) && !servers.is_empty()) else {
            return;
        };
        let raised = self.raised(place.chunk).expect("it was just found");
        self.chunks.update(&place.chunk, |stored| {
            (stored.version, stored.epoch) = raised;
        });
        let coded = Coded { stripe, left: true };
        self.stripes.insert(place.chunk, coded);
        self.tell_lying(step, place.chunk);
        step.changed(Change::Settled {
            chunk: place.chunk,
            version: raised.0,
            copies: servers.iter().map(|server| (*server, None)).collect(),
        });
    }

    fn tell_lying(&self, step: &mut Step<'_>, chunk: ChunkId) {
        let inode = self.chunks.get(&chunk).expect("it was just found").inode;
        step.changed(Change::Stripe(chunk));
        step.changed(Change::Inode(inode));
    }
}
