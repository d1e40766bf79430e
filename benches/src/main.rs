//! `antler-bench`: the same work on any mounted file system, and the table.
//!
//! Owns the command line. `benches/compare` brings the systems up one after
//! the other and calls the subcommands here; docs/benchmarks.md says how to
//! read what comes out. The invariant of all of it: no score without the bytes
//! having been read back and found right, unless the result says so.

mod board;
mod bulk;
mod crew;
mod curves;
mod emptyfs;
mod failure;
mod foreground;
mod health;
mod kernel;
mod names;
mod pattern;
mod plain_copy;
mod rebuild;
mod report;
mod score;
mod synced;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;

/// Benchmarks of mounted file systems.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the workloads in a mounted directory
    Work(work::WorkArgs),
    /// Lose a chunkserver under load and wait until redundancy is back
    Rebuild(rebuild::RebuildArgs),
    /// Mount a file system that keeps no data, as the ceiling
    Emptyfs {
        /// Where to mount it; serves until unmounted
        mount: PathBuf,
    },
    /// Print how many chunks are below goal
    Health(health::HealthArgs),
    /// Print the table of several runs, with ratios
    Report(report::ReportArgs),
    /// Print the table of several rebuilds, and draw how redundancy came back
    Curves(curves::CurvesArgs),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("antler-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Outcome<()> {
    match command {
        Command::Work(args) => work::work(&args),
        Command::Rebuild(args) => rebuild::rebuild(&args),
        Command::Emptyfs { mount } => emptyfs::serve(&mount),
        Command::Health(args) => health::health(&args),
        Command::Report(args) => report::report(&args),
        Command::Curves(args) => curves::curves(&args),
    }
}
