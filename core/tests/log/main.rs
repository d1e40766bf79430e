//! The log and the group on it: a disk in memory that loses what was not synced,
//! members on a virtual wire, and what must hold whatever happens.
#![expect(unreachable_pub, reason = "a test binary has no public interface")]

mod crash;
mod damage;
mod disk;
mod group;
mod group_tests;
mod levels;
mod model;
mod takeover;
