//! The chunk store on files in memory: what it does, what survives a crash at
//! any moment, and what becomes of rot.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs, unreachable_pub)]

mod bench;
#[allow(dead_code)]
mod files;

mod basics;
mod crash;
mod full;
mod rot;
mod stripes;
mod watch;
