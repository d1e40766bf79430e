//! `antler-witness`: a writer that syncs everything it writes and notes each
//! acknowledgement in a journal outside the file system under test, and a
//! checker that reads all of it back after a crash. Test code.
//!
//! The journal holds `try` before an operation and `ack` after its sync, so the
//! checker knows what must be there, what may be there, and what cannot be.
//!
//! Beside it, a maker of trees of files, and a comparer that reads all of two trees.

mod check;
mod compare;
mod journal;
mod pattern;
mod tree;
mod write;

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(about = "Writes, notes outside what was acknowledged, and checks it after the crash")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write into DIRECTORY/run-RUN until the time is over, an error, or SIGTERM.
    Write {
        directory: PathBuf,
        /// Where acknowledgements are noted: outside the file system under test.
        #[arg(long)]
        journal: PathBuf,
        /// Number of this run; one run's files are not written to by another.
        #[arg(long, default_value_t = 1)]
        run: u64,
        #[arg(long, default_value_t = 2)]
        threads: u64,
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// Size of the largest file, in bytes.
        #[arg(long, default_value_t = 262_144)]
        largest: u64,
        /// An error ends the run without failing it: the crash is part of the test.
        #[arg(long)]
        crash_expected: bool,
    },
    /// Read back everything that the journal of all runs tells.
    Check {
        directory: PathBuf,
        #[arg(long)]
        journal: PathBuf,
        /// What a crash leaves old or new, never mixed, in bytes: divides 4096.
        #[arg(long, default_value_t = pattern::UNIT)]
        granule: usize,
    },
    /// Make a tree of files, small and large, with odd names, modes, times and links.
    Tree {
        /// Must not be there yet.
        directory: PathBuf,
        #[arg(long)]
        files: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Compare two trees: every byte, and all attributes but times of access and change.
    Compare {
        one: PathBuf,
        other: PathBuf,
        #[arg(long, default_value_t = 16)]
        threads: usize,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Write {
            directory,
            journal,
            run,
            threads,
            seconds,
            largest,
            crash_expected,
        } => {
            let plan = write::Plan {
                directory,
                journal,
                run,
                threads,
                time: Duration::from_secs_f64(seconds),
                largest,
            };
            let summary = write::write(&plan);
            println!("{summary}");
            ExitCode::from(u8::from(summary.has_failed() && !crash_expected))
        }
        Command::Check {
            directory,
            journal,
            granule,
        } => match check::check(&directory, &journal, granule) {
            Ok(verdict) => tell(&verdict, verdict.is_good()),
            Err(error) => give_up(&journal, &error),
        },
        Command::Tree {
            directory,
            files,
            seed,
        } => match tree::make(&directory, files, seed) {
            Ok(made) => tell(&made, true),
            Err(error) => give_up(&directory, &error),
        },
        Command::Compare {
            one,
            other,
            threads,
        } => {
            let verdict = compare::compare(&one, &other, threads);
            tell(&verdict, verdict.is_good())
        }
    }
}

fn tell(verdict: &dyn std::fmt::Display, is_good: bool) -> ExitCode {
    println!("{verdict}");
    ExitCode::from(u8::from(!is_good))
}

fn give_up(path: &Path, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("antler-witness: {}: {error}", path.display());
    ExitCode::from(2)
}
