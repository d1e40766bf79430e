//! Options that several commands share.

use antler_core::planted::Planted;
use clap::Args;

/// A bug that is planted in the machines, in a build that can.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Bug {
    /// Plants this bug.
    #[cfg(feature = "planted-bugs")]
    #[arg(long = "bug", value_parser = crate::planted::bug_of)]
    bug: Option<Planted>,
}

impl Bug {
    /// Which bug, if any.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn planted(self) -> Option<Planted> {
        self.bug
    }

    /// Which bug: none, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[allow(clippy::unused_self, reason = "the other build asks it")]
    pub(crate) fn planted(self) -> Option<Planted> {
        None
    }
}
