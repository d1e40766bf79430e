//! The cluster's feature level: what may be logged. It is in the replicated state,
//! so that apply judges alike on every member, whatever each of them knows beyond.
//!
//! Owns which record came with which level. Invariant: the level never falls, and
//! nothing of a higher one is in the state.

use super::apply::Step;
use super::record::{ClassChange, Mutation, Outcome, RecordBody, Reply};
use super::state::{Change, State};
use crate::errno::Errno;
use crate::version::FeatureLevel;

impl Mutation {
    /// The level that it came with: it is refused below.
    #[must_use]
    pub fn since(&self) -> FeatureLevel {
        match self {
            Self::ChangeClass(
                ClassChange::Create { class, .. } | ClassChange::Modify { class, .. },
            ) if class.has_hosts() => FeatureLevel::HOSTS,
            Self::ChangeClass(
                ClassChange::Create { class, .. } | ClassChange::Modify { class, .. },
            ) if class.has_codes() => FeatureLevel::CODES,
            Self::SetClass { .. } | Self::ChangeClass(_) | Self::SetLabel { .. } => {
                FeatureLevel::CLASSES
            }
            Self::SetPatterns { .. } => FeatureLevel::PATTERNS,
            _ => FeatureLevel::FIRST,
        }
    }
}

impl RecordBody {
    /// The level that it came with: it is refused, or ignored, below.
    #[must_use]
    pub fn since(&self) -> FeatureLevel {
        match self {
            Self::Client(record) => record.mutation.since(),
            Self::ServerLabels { .. } => FeatureLevel::CLASSES,
            Self::Converted { .. } | Self::Restored { .. } | Self::Archived { .. } => {
                FeatureLevel::CODES
            }
            _ => FeatureLevel::FIRST,
        }
    }
}

impl State {
    /// The level that the cluster is at.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.scalars.level
    }

    /// EOPNOTSUPP for what came with a level that the cluster is not at.
    pub(crate) fn demand_level(&self, since: FeatureLevel) -> Result<(), Errno> {
        if since <= self.feature_level() {
            Ok(())
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }

    /// `Mutation::RaiseLevel`: a level that was reached already is no error.
    pub(crate) fn raise_level(&mut self, step: &mut Step<'_>, level: FeatureLevel) -> Outcome {
        if !step.who.is_root() {
            return Err(Errno::EPERM);
        }
        if level > self.feature_level() {
            self.scalars.level = level;
            step.changed(Change::Level(level));
        }
        Ok(Reply::Done)
    }
}
