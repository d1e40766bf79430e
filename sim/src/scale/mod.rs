//! Runs at scale: a thousand chunkservers and millions of chunks, a rack lost and
//! rebuilt, judged and measured.
//!
//! Read in this order: [`spec`] (what a file says and a seed draws), `founding` (the
//! state with all chunks), `head` (the real master), `fleet` (the chunkservers as
//! models) with `transfers` and [`content`], `judge`, and `run`, which moves them all.
//!
//! Deliberately not here: the chunkserver's machine, clients and faults of the network,
//! which the other scenarios have; foreground load. Nothing here runs under madsim: no
//! code that is reached reads a clock or draws entropy but from the seed.

mod agenda;
pub mod content;
mod fleet;
mod founding;
mod head;
mod judge;
mod page;
mod report;
mod run;
pub mod spec;
mod transfers;

pub use page::page;
pub use report::{Sample, ScaleReport, Walls};
pub use run::{ScaleOptions, run};
