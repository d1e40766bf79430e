//! The replicated state.

/// The replicated state of the metadata. A clone is O(1).
#[derive(Clone, Debug, Default)]
pub struct State {}
