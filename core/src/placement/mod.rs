//! Where copies go and which go first: pure functions of topology, space and
//! a seed. Owns the rules; leaves the carrying out to the master's repair and
//! the bookkeeping to its table of servers.

pub mod choose;

pub use choose::{Candidate, choose, distance, surplus};
