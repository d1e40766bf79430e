//! The namespace: the replicated state of the metadata.

pub mod record;
mod state;

pub use state::State;
