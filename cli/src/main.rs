//! The `antler` command: daemons, mounts, and the tools to run a cluster.
//!
//! One module per subcommand; `arguments` and `options` say what can be asked,
//! `layout` and `processes` are about the folder that `up` runs, `session` and
//! `target` about being a client. Called as `mount.antler`, the binary is the
//! helper of mount(8). Exit codes: 0 done, 1 it could not be done, 2 it was asked
//! wrongly, 3 it was, and the answer is no.

mod arguments;
mod check;
mod classes;
mod daemons;
mod down;
mod duty;
mod explain;
mod failure;
mod keygen;
mod layout;
mod level;
mod log;
mod mount;
mod mounts;
mod options;
mod out;
mod parity;
mod patterns;
mod processes;
mod recover;
mod scrub;
mod session;
mod status;
mod stop;
mod target;
mod tools;
mod up;

use arguments::{Arguments, Command, MountHelper};
use clap::Parser;
use failure::Outcome;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let is_helper = Path::new(&called)
        .file_name()
        .is_some_and(|name| name == "mount.antler");
    let done = if is_helper {
        mount::run_helper(&MountHelper::parse()).map(|()| ExitCode::SUCCESS)
    } else {
        run(&Arguments::parse().command)
    };
    done.unwrap_or_else(|failure| {
        eprintln!("antler: {failure}");
        failure.code()
    })
}

fn run(command: &Command) -> Outcome<ExitCode> {
    match command {
        Command::Master(daemon) => return daemons::master(&daemon.config),
        Command::Metalogger(daemon) => return daemons::metalogger(&daemon.config),
        Command::ChunkServer(daemon) => return daemons::chunkserver(&daemon.config),
        Command::Up(arguments) => up::run(arguments),
        Command::Down(arguments) => down::run(arguments),
        Command::Mount(arguments) => mount::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Info(arguments) => tools::info(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Drain(arguments) => duty::drain(arguments),
        Command::Maintenance(arguments) => duty::maintenance(arguments),
        Command::Check(arguments) => return check::run(arguments),
        Command::Scrub(arguments) => return scrub::run(arguments),
        Command::OkToStop(arguments) => return stop::run(arguments),
        Command::SetCopies(arguments) => tools::set_copies(arguments),
        Command::FeatureLevel(arguments) => return level::run(arguments),
        Command::Class(command) => classes::run(command),
        Command::SetClass(arguments) => classes::set_class(arguments),
        Command::GetClass(arguments) => classes::get_class(arguments),
        Command::ClassPatterns(arguments) => patterns::run(arguments),
        Command::Label(arguments) => classes::label(arguments),
        Command::Recover(arguments) => recover::run(arguments),
        Command::Keygen(arguments) => keygen::run(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}
