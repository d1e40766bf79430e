//! Antler's state machines and formats, without I/O.
//!
//! Every role of the cluster is a struct here that implements
//! [`machine::Machine`]: one input in, effects out, time as an argument. Read in
//! this order:
//!
//! 1. [`machine`], the contract; [`ids`], [`time`], [`limits`], the words it uses.
//! 2. [`wire`], what is said between processes.
//! 3. [`namespace`], the replicated state and the records that change it.
//! 4. [`vfs`], the trait of files; [`journal`] and [`chunk`], the formats on top.
//! 5. [`member`], Raft around the state; [`master`], [`metalogger`],
//!    [`chunkserver`], [`client`], the roles; [`placement`], a pure policy.
//!
//! Deliberately not here: clocks, threads, files, sockets, randomness from outside,
//! and maps with an iteration order of their own (`clippy.toml` refuses them). The
//! drivers are `antler-net` (real) and `antler-sim` (simulated).
//! [`marks`] and [`planted`] serve the simulator and cost production nothing.
#![forbid(unsafe_code)]

pub mod attributes;
pub mod chunk;
pub mod chunkserver;
pub mod client;
pub mod errno;
pub mod glob;
pub mod hash;
pub mod ids;
pub mod journal;
pub mod limits;
pub mod machine;
pub mod marks;
pub mod master;
pub mod member;
pub mod metalogger;
pub mod namespace;
pub mod placement;
pub mod planted;
pub mod rng;
pub mod time;
pub mod version;
pub mod vfs;
pub mod wire;
