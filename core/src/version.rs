//! Versions: one number for what a binary speaks, writes and understands.
//!
//! A binary of version N speaks the wire's versions 1 to N and knows the feature
//! levels 1 to N. On a link both ends speak the lower of their versions; what may
//! be logged is the level of the replicated state, whatever the binary. So nodes can
//! be replaced one at a time, and taken back as long as the level was not raised.
//!
//! Owns the numbers and their meaning. What came with which version is told where it
//! is: by records (`namespace::level`) and messages (`wire::version`).

use minicbor::{Decode, Encode};
use std::fmt;

/// What a cluster may use, and what a binary knows.
///
/// | level | what came with it |
/// |---|---|
/// | 1 | names, chunks and their leases and losses, sessions, `copies-N`, levels |
/// | 2 | storage classes and labels: policies by label expressions; leases that know up to where an fsync may have vouched |
/// | 3 | erasure codes: classes whose chunks at rest lie in parts; what disks tell of scrubs and drains |
/// | 4 | versions that count the syncs under a lease; scrubs on demand |
/// | 5 | patterns of directories, which choose a class by name; classes that speak of hosts |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(transparent)]
pub struct FeatureLevel(#[n(0)] pub u16);

impl FeatureLevel {
    /// The first one: of a state that says nothing about it.
    pub const FIRST: Self = Self(1);
    /// Storage classes and labels.
    pub const CLASSES: Self = Self(2);
    /// Leases that know up to where an fsync may have vouched.
    pub const SYNCS: Self = Self(2);
    /// Erasure codes.
    pub const CODES: Self = Self(3);
    /// What chunkservers tell of how far their disks are scrubbed.
    pub const SCRUB: Self = Self(3);
    /// Versions that count the syncs under a lease.
    pub const COUNTS: Self = Self(4);
    /// Scrubs that an operator orders.
    pub const ORDERED_SCRUB: Self = Self(4);
    /// Patterns of directories.
    pub const PATTERNS: Self = Self(5);
    /// What chunkservers tell of disks that they suspect.
    pub const SUSPICION: Self = Self(5);
    /// Hosts as failure domains.
    pub const HOSTS: Self = Self(5);
    /// The newest one that this binary knows.
    pub const NEWEST: Self = Self::PATTERNS;
    /// What the binary before this one knew: machines can be built so.
    pub const PREVIOUS: Self = Self(Self::NEWEST.0 - 1);
}

const _: () = assert!(FeatureLevel::PREVIOUS.0 >= FeatureLevel::FIRST.0);

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
