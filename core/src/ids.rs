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
    /// reconciled, so that a copy that missed writes is behind.
    ChunkVersion, "v");
id!(
    /// Numbers the leases of a chunk and fences older writers. A grant raises it by
    /// one, a fence by two: how far it is ahead of the version counts the fences.
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

impl Epoch {
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
