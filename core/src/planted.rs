//! Bugs that are planted on purpose, so that the simulator's judges can be shown
//! to catch them. Without the feature `planted-bugs` the question is a constant
//! `false` and costs nothing; only antler-sim's test of its judges sets the
//! feature, and the `antler` binary refuses to be built with it.
//!
//! Which bug is planted is kept per thread (a simulated run has a thread of its
//! own), and only while the feature is set: production core has no such state.

/// A bug that can be planted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Planted {
    /// A member answers and votes before its log is synced; a chunkserver
    /// acknowledges a sync that it has not carried out.
    AcknowledgeBeforeSync,
    /// A chunkserver takes writes of an older epoch.
    SkipFencing,
    /// A failed sync counts as done.
    IgnoreSyncError,
    /// The master counts and offers copies whose version is behind.
    CountStaleCopy,
    /// A resent request is executed anew.
    ForgetReply,
}

impl Planted {
    /// Every bug, in order.
    pub const ALL: &'static [Self] = &[
        Self::AcknowledgeBeforeSync,
        Self::SkipFencing,
        Self::IgnoreSyncError,
        Self::CountStaleCopy,
        Self::ForgetReply,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AcknowledgeBeforeSync => "acknowledge-before-sync",
            Self::SkipFencing => "skip-fencing",
            Self::IgnoreSyncError => "ignore-sync-error",
            Self::CountStaleCopy => "count-stale-copy",
            Self::ForgetReply => "forget-reply",
        }
    }
}

/// Whether bugs can be planted in this build.
pub const ENABLED: bool = cfg!(feature = "planted-bugs");

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug, or none, on this thread.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted on this thread.
#[cfg(feature = "planted-bugs")]
#[must_use]
pub fn is(bug: Planted) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
#[must_use]
#[inline(always)]
pub const fn is(_bug: Planted) -> bool {
    false
}
