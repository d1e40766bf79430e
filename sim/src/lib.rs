//! The deterministic simulator of Antler clusters.
//!
//! Read in this order: [`scenario`] (what a file says), [`plan`] (what a seed makes
//! of it), `world` (the event heap), `network`, [`disk`], `node` and `process` (what
//! runs), `workload` (the programs), `faults`, and `check` (the judges) with
//! [`model`]. [`host`] runs one plan under madsim, [`recording`] keeps one as a
//! file, [`observe`] and [`page`] show one to people. [`scale`] stands apart: many
//! servers as models around the real master.
//!
//! Deliberately not here: the machines and the formats, which are core's and are
//! executed as they are; threads and real time, which no run knows.
#![forbid(unsafe_code)]

mod alone;
mod audit;
mod check;
pub mod disk;
mod exchange;
pub mod faults;
pub mod figures;
pub mod host;
pub mod model;
mod moments;
pub mod network;
mod node;
pub mod observe;
mod operator;
pub mod page;
pub mod plan;
mod process;
pub mod recording;
mod reload;
mod replace;
pub mod scale;
pub mod scenario;
mod site;
mod trace;
mod workload;
mod world;

pub use trace::Trace;
