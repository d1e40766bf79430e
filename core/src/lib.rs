//! Antler's state machines and formats, without I/O.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod chunk;
pub mod client;
pub mod errno;
pub mod hash;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod machine;
pub mod marks;
pub mod master;
pub mod member;
pub mod namespace;
pub mod placement;
pub mod planted;
pub mod rng;
pub mod time;
pub mod vfs;
pub mod wire;
