//! The simulator of Antler clusters.
#![forbid(unsafe_code)]

pub mod disk;
pub mod model;
pub mod network;
pub mod plan;
pub mod scenario;
