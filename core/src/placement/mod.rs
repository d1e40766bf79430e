//! Where copies go and which go first: pure functions of topology, space and
//! a seed. Owns the rules; leaves the carrying out to the master's repair and
//! the bookkeeping to its table of servers.
//!
//! Reading order: `label` (where servers are), `class` (what is wanted), `grammar`
//! (how that is written), `slots` (how well copies meet it), `choose` (which
//! servers come next, which copies are too many), `nearness` (which of them a client gets
//! first), `reason` (why it can't be met), `survival` (what may be lost of what lies
//! somewhere).

pub mod choose;
pub mod class;
pub mod grammar;
pub mod label;
pub mod nearness;
pub mod reason;
pub mod slots;
pub mod survival;

pub use choose::{Candidate, choose, homecoming, replaces, surplus};
pub use class::{Archive, ClassId, Clock, Policy, StorageClass};
pub use label::{Labels, distance};
pub use nearness::Nearness;
pub use slots::{Fill, Slot, admits, assign, fill};
pub use survival::survives;
