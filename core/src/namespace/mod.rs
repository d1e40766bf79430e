//! The namespace: the replicated state of the metadata.
//!
//! Owns what every member of the masters' group agrees on: names, attributes,
//! sessions with their replies, chunks with their leases. A record of the log
//! is judged when it is applied (`apply`), alike on every member. Leaves where
//! the copies are, who listens and what is cached to the master's soft state.
//!
//! Reading order: `record` (what happens), `state` (what there is), `apply`
//! (how one becomes the other), then one file per noun; `pages` and `table`
//! hold it all in memory.

mod apply;
mod archive;
mod chunks;
mod class;
mod dentry;
mod digest;
mod image;
mod inode;
mod invariant;
mod lease;
mod level;
mod name;
mod names;
mod pages;
mod pattern;
mod permission;
mod query;
pub mod record;
mod rename;
mod session;
mod setattr;
mod state;
mod stripes;
mod table;
mod xattr;

pub use class::{CLASSES_MAX, ServerLabels};
pub use dentry::COOKIE_MIN;
pub(crate) use dentry::check_name;
pub use image::{DecodeError, Section, SectionId, StateLoader};
pub use query::{ChunkOrigin, Counts};
pub use session::Remembered;
pub use state::{Applied, Change, Chunk, LeaseState, State, WriteSet};
pub use xattr::absent_xattr;
