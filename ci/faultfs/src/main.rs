//! `antler-faultfs`: a pass-through FUSE layer over a directory that, at a
//! simulated power cut, forgets what was not synced, and that fails or delays
//! operations on demand. Test code: the daemons' data folders lie on it while
//! they are killed.
//!
//! What a cut may do: each unsynced 512-byte sector is kept or lost on its own,
//! lengths and changes of names too; what fsync(2) or fdatasync(2) of the file
//! (bytes and length) and fsync(2) of the directory (its names) covered stays.
//! Modes, owners and times are durable at once. A synced new file keeps its
//! name even without a sync of its directory, as on ext4, unless
//! `--strict-dirs` asks for POSIX to the letter.
//!
//! What it is not: hard links, extended attributes and RENAME_EXCHANGE are
//! refused; if the layer itself dies, the backing directory holds the live
//! content and nothing is forgotten.

mod control;
mod filesystem;
mod names;
mod pages;
mod rng;
mod rules;
mod signals;
mod tree;

use crate::filesystem::{FaultFilesystem, Layer};
use crate::tree::{Settings, Tree};
use clap::{Parser, Subcommand};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Parser)]
#[command(about = "A pass-through FUSE layer that forgets what was not synced")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount BACKING at MOUNTPOINT and serve until SIGTERM or an unmount. SIGUSR1 forgets.
    Mount {
        backing: PathBuf,
        mountpoint: PathBuf,
        /// Listen here for commands.
        #[arg(long)]
        control: Option<PathBuf>,
        /// Seed of the first cut; each later one adds 1.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A new file's name waits for a sync of its directory.
        #[arg(long)]
        strict_dirs: bool,
        /// Never forget files whose path ends so (repeatable).
        #[arg(long = "exempt", value_name = "SUFFIX")]
        exempt: Vec<String>,
        /// Threads that answer the kernel.
        #[arg(long, default_value_t = 4)]
        threads: usize,
    },
    /// Send one command to the control socket of a running layer.
    #[command(after_help = control::COMMANDS)]
    Control { socket: PathBuf, words: Vec<String> },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Mount {
            backing,
            mountpoint,
            control,
            seed,
            strict_dirs,
            exempt,
            threads,
        } => {
            let settings = Settings {
                backing,
                seed,
                strict_directories: strict_dirs,
                exempt_suffixes: exempt,
            };
            mount(settings, &mountpoint, control, threads).map_err(|error| error.to_string())
        }
        Command::Control { socket, words } => {
            control::ask(&socket, &words.join(" ")).map(|answer| println!("{answer}"))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antler-faultfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn mount(
    mut settings: Settings,
    mountpoint: &std::path::Path,
    control: Option<PathBuf>,
    threads: usize,
) -> io::Result<()> {
    settings.backing = settings.backing.canonicalize()?;
    rustix::process::umask(rustix::fs::Mode::empty());
    raise_file_limit()?;
    let signals = signals::Signals::block()?;
    let seed = settings.seed;
    let layer = Arc::new(Layer::new(Tree::new(settings)?, seed));
    let session = fuser::spawn_mount(
        FaultFilesystem::new(Arc::clone(&layer)),
        mountpoint,
        &options(threads),
    )?;
    if let Some(path) = control {
        control::serve(Arc::clone(&layer), &path)?;
    }
    eprintln!("mounted on {}, first seed {seed}", mountpoint.display());
    let for_signals = Arc::clone(&layer);
    let target = mountpoint.to_owned();
    std::thread::spawn(move || signals.answer(&for_signals, &target));
    session.join()?;
    layer.close()
}

fn options(threads: usize) -> fuser::Config {
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        fuser::MountOption::FSName("antler-faultfs".into()),
        fuser::MountOption::DefaultPermissions,
    ];
    if rustix::process::geteuid().is_root() {
        config
            .mount_options
            .extend([fuser::MountOption::Dev, fuser::MountOption::Suid]);
        config.acl = fuser::SessionACL::All;
    }
    config.n_threads = Some(threads);
    config.clone_fd = true;
    config
}

/// Each open file of the daemons above costs one of ours.
fn raise_file_limit() -> io::Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
