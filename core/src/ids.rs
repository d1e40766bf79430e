//! The numbers that name things, one newtype each.
//!
//! Owns identity and its printed form; arithmetic that belongs to a number
//! lives on its type. Leaves meaning to the modules that hand them out.

use minicbor::{Decode, Encode};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] pub u64);

        impl $name {
            /// The number after this one.
            ///
            /// # Panics
            /// When the number space is used up, which is a bug: it lasts for ages.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64-bit numbers do not run out"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A file system object. 1 is the root directory.
    InodeId, "i");
id!(
    /// Counts the reuse of an inode number (NFS file handles need it).
    Generation, "g");
id!(
    /// A fixed range of a file: 64 MiB of content with copies on chunkservers.
    ChunkId, "c");
id!(
    /// Numbers the content of a chunk: raised whenever a lease is granted or
    /// reconciled, so that a copy that missed writes is behind. Where syncs are counted
    /// (`FeatureLevel::COUNTS`) it counts them too: a lease is granted a multiple of 2^20,
    /// and its n-th sync makes the copies durable with the n-th number behind that, so
    /// that a copy that lost a sync is behind as well.
    ChunkVersion, "v");
id!(
    /// Numbers the leases of a chunk and fences older writers. Whatever raises the version
    /// raises it by as much, a fence by one more: how far it is ahead counts the fences.
    Epoch, "e");
id!(
    /// A chunkserver, for life; drawn at random when it is first started.
    ServerId, "s");
id!(
    /// A disk (one data folder) of a chunkserver; drawn at random when it is formatted.
    DiskId, "d");
id!(
    /// One life of a process between start and crash; drawn at random at start.
    BootId, "b");
id!(
    /// A mounted client.
    SessionId, "n");
id!(
    /// Numbers the requests of one session or of one link, from 1.
    RequestId, "r");
id!(
    /// A place in the replicated log, from 1.
    LogPosition, "p");
id!(
    /// Numbers a master's reign.
    Term, "t");
id!(
    /// A member of the Raft group: a master (voter) or a metalogger (learner). Never 0.
    MemberId, "m");
id!(
    /// Names a cluster for life.
    ClusterId, "cluster-");
id!(
    /// Counts the lives of a cluster: raised by `antler recover` after the loss of a quorum.
    Incarnation, "life-");
id!(
    /// One connection, as its own end sees it. The machine numbers the links that
    /// it opens with odd numbers, the driver those that it accepts with even ones.
    LinkId, "l");
id!(
    /// Ties an effect that finishes later to its one completion input.
    Token, "#");

/// The bits of a version that count the syncs under a lease.
const SYNC_BITS: u32 = 20;
/// How many numbers there are for them; the last one is kept for what is sealed.
const SYNCS: u64 = 1 << SYNC_BITS;

impl ChunkVersion {
    /// The version that the next lease is granted where syncs are counted: beyond all that
    /// the leases before it can have given to copies.
    ///
    /// # Panics
    /// As `next`.
    #[must_use]
    pub fn of_next_lease(self) -> Self {
        self.sealed().next()
    }

    /// Whether the syncs of a lease granted with this version can be counted.
    #[must_use]
    pub fn counts_syncs(self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(SYNCS)
    }

    /// The version of what the n-th sync of a lease made durable. None follows the last but
    /// one that there is a number for.
    #[must_use]
    pub fn after_syncs(self, syncs: u32) -> Self {
        match self.counts_syncs() {
            true => Self(self.0 + u64::from(syncs).min(SYNCS - 2)),
            false => self,
        }
    }

    /// The version of copies that hold all that was written under a lease.
    #[must_use]
    pub fn sealed(self) -> Self {
        Self(self.0 | (SYNCS - 1))
    }

    /// Whether copies get this version by syncs under a lease of that one.
    #[must_use]
    pub fn is_synced_under(self, lease: Self) -> bool {
        lease.counts_syncs() && self >= lease && self.sealed() == lease.sealed()
    }

    /// How many leases and fences came between two grants, the later one included; `None`
    /// where that is not known, as syncs are counted only since.
    #[must_use]
    pub fn raised_since(self, granted: Self) -> Option<u64> {
        let raised = self.0.saturating_sub(granted.0);
        match (granted.counts_syncs(), self.counts_syncs()) {
            (true, true) => Some(raised / SYNCS),
            (_, false) => Some(raised),
            (false, true) => None,
        }
    }
}

impl Epoch {
    /// The epoch of a chunk whose version is raised.
    #[must_use]
    pub fn along(self, from: ChunkVersion, to: ChunkVersion) -> Self {
        Self(self.0 + to.0.saturating_sub(from.0))
    }

    /// How often a chunk of this epoch and version was fenced in its life.
    #[must_use]
    pub fn fences(self, version: ChunkVersion) -> u64 {
        self.0.saturating_sub(version.0)
    }
}

impl InodeId {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// One server's share of a chunk, the key of everything on a chunkserver.
///
/// `part` 0 is a whole copy; erasure-coded parts number from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PartId {
    /// The chunk that the part belongs to.
    #[n(0)]
    pub chunk: ChunkId,
    /// 0 for a whole copy, 1.. for the parts of an erasure code.
    #[n(1)]
    pub part: u8,
}

impl PartId {
    /// The whole copy of `chunk`.
    #[must_use]
    pub fn whole(chunk: ChunkId) -> Self {
        Self { chunk, part: 0 }
    }
}

impl fmt::Display for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part {
            0 => write!(f, "{}", self.chunk),
            part => write!(f, "{}.{part}", self.chunk),
        }
    }
}

impl fmt::Debug for PartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a daemon listens, as others reach it: `host:port`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Address(#[n(0)] pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Address {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often a lease syncs, its versions lie between its own and the next one's,
        /// in order, and those of others are not taken for them.
        #[test]
        fn versions_of_a_lease_lie_before_the_next_one(
            before in 0..u64::MAX >> 1, few in 0..u32::MAX, more in 0..u32::MAX,
        ) {
            let lease = ChunkVersion(before).of_next_lease();
            let next = lease.of_next_lease();
            prop_assert!(lease.counts_syncs() && lease.0 > before);
            let (few, more) = (few.min(more), few.max(more));
            let (one, other) = (lease.after_syncs(few), lease.after_syncs(more));
            prop_assert!(lease <= one && one <= other && other < lease.sealed());
            prop_assert!(lease.sealed() < next);
            prop_assert!(few >= more || one < other || u64::from(few) >= SYNCS - 2);
            for synced in [one, other, lease.sealed()] {
                prop_assert!(synced.is_synced_under(lease) && !synced.is_synced_under(next));
                prop_assert_eq!(synced.of_next_lease(), next);
            }
            prop_assert!(!next.is_synced_under(lease));
            prop_assert_eq!(next.raised_since(lease), Some(1));
            prop_assert_eq!(next.of_next_lease().raised_since(lease), Some(2));
        }
    }

    #[test]
    fn of_versions_from_before_syncs_were_counted_less_is_known() {
        let (old, newer) = (ChunkVersion(5), ChunkVersion(8));
        assert_eq!(newer.raised_since(old), Some(3));
        assert_eq!(newer.of_next_lease().raised_since(old), None);
        assert_eq!(old.after_syncs(3), old);
        assert!(!newer.is_synced_under(old));
    }
}
