//! The command `antler-sim`: runs scenarios over seeds and says how it went.
//!
//! Exit codes: 0 passed; 1 bad usage or file, or a mark that the file requires was
//! never reached; 2 a promise was broken; 3 no progress; 4 a machine panicked.

mod jobs;
mod junit;
mod memory;
#[cfg(feature = "planted-bugs")]
mod planted;
mod report;
mod run_options;
mod scaling;
mod shrink;
mod shrinking;
mod suite;
mod swarm;

use clap::{Args, Parser, Subcommand};
use run_options::Bug;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use suite::Seeds;

#[derive(Debug, Parser)]
#[command(
    name = "antler-sim",
    about = "Simulates Antler clusters, faults included, seed by seed"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenario files.
    Run(Run),
    /// Runs fresh seeds of many scenarios until the time is up, and keeps each failure.
    Swarm(swarm::Swarm),
    /// Makes a kept failure small, and writes it as a file that `run` replays.
    Shrink(shrinking::Shrink),
    /// Runs scale scenarios: many servers and chunks, a rack lost and rebuilt.
    Scale(scaling::Scaling),
    /// Prints the plan that a seed draws from a scenario, as JSON.
    Plan {
        /// The scenario.
        file: PathBuf,
        /// The seed.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Plants bugs in the machines and shows that the judges catch each of them.
    #[cfg(feature = "planted-bugs")]
    Planted(planted::Hunt),
}

#[derive(Debug, Args)]
struct Run {
    /// The scenarios, and kept failures or plans (.json), which have one seed each.
    #[arg(required_unless_present = "plan")]
    files: Vec<PathBuf>,
    /// Which seeds: FROM..TO, TO not included.
    #[arg(long, default_value = "0..10", conflicts_with = "seed")]
    seeds: Seeds,
    /// One seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs a plan that was printed by `plan`, instead of scenarios.
    #[arg(long, conflicts_with_all = ["files", "seeds", "seed"])]
    plan: Option<PathBuf>,
    /// Prints a line for every event.
    #[arg(long)]
    trace: bool,
    /// Prints one JSON object for each run, and one for each file.
    #[arg(long)]
    json: bool,
    /// Stops at the first seed that fails.
    #[arg(long)]
    stop: bool,
    /// How many seeds run at once. The output is the same, in the order of the seeds.
    #[arg(long, default_value_t = jobs::cores())]
    jobs: NonZero<usize>,
    /// Writes JUnit XML: a suite for each file, a case for each seed.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Writes a page for each run into this folder.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    bug: Bug,
}

fn main() -> ExitCode {
    memory::keep_freed();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let help = !error.use_stderr();
            error.print().ok();
            return ExitCode::from(u8::from(!help));
        }
    };
    let ended = match arguments.command {
        Command::Run(run) => suite::run(&run),
        Command::Swarm(swarm) => swarm::run(&swarm),
        Command::Shrink(shrink) => shrinking::run(&shrink),
        Command::Scale(scaling) => scaling::run(&scaling),
        Command::Plan { file, seed } => suite::print_plan(&file, seed),
        #[cfg(feature = "planted-bugs")]
        Command::Planted(hunt) => planted::run(&hunt),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("antler-sim: {error}");
            ExitCode::from(1)
        }
    }
}
