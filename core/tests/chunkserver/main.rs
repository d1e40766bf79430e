//! Chunkservers over a virtual wire, with real stores on files in memory: the
//! data port, the chain, fencing, the leader's commands, failing disks.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs, unreachable_pub)]

#[path = "../store/files.rs"]
#[allow(dead_code)]
mod files;

mod cluster;

mod care;
mod chain;
mod closing;
mod command;
mod disk;
mod moves;
mod registration;
mod rules;
mod scrub;
