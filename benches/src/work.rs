//! `work`: the same workloads on whatever is mounted at a directory.
//!
//! Owns which workloads there are, how large they are and the order of rounds.
//! Each workload's steps are in `names`, `bulk` and `synced`. Everything
//! happens in one fresh directory of the mount, which is removed at the end.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::board::Board;
use crate::failure::{Doing, Outcome};
use crate::score::Run;
use crate::{bulk, names, synced};

/// Numbers of threads that each workload is done with, where it says nothing else.
pub(crate) const THREADS: [u32; 2] = [1, 8];

/// Arguments of `work`.
#[derive(Args)]
pub(crate) struct WorkArgs {
    /// Directory on the file system to be measured
    #[arg(long)]
    mount: PathBuf,
    /// Where the scores go
    #[arg(long)]
    json: PathBuf,
    /// What the system is called in the report
    #[arg(long, default_value = "antler")]
    system: String,
    /// Less of everything: good for a look, not for a claim
    #[arg(long)]
    quick: bool,
    /// The file system forgets what is written: check lengths, not bytes
    #[arg(long)]
    discards: bool,
    /// Only these workloads
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
}

/// A family of workloads.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Kind {
    /// Create, stat, open, rename, unlink
    Names,
    /// Sequential and random writes and reads of one large file
    Bulk,
    /// Small writes with an fsync each
    Synced,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Rounds, of which the median counts.
    pub(crate) rounds: u32,
    /// Small files in each round, over all threads.
    pub(crate) files: u32,
    /// Bytes of the large file, in whole MiB.
    pub(crate) large_file: u64,
    /// Random reads of 4 KiB in each round, over all threads; and writes.
    pub(crate) random: u32,
    /// Writes with an fsync in each round, over all threads.
    pub(crate) synced: u32,
}

const FULL: Scale = Scale {
    rounds: 3,
    files: 6000,
    large_file: 1 << 30,
    random: 4000,
    synced: 1000,
};

const QUICK: Scale = Scale {
    rounds: 1,
    files: 1000,
    large_file: 256 << 20,
    random: 1000,
    synced: 240,
};

/// What the workloads need to know of each other.
pub(crate) struct Bench {
    /// A fresh directory on the mount.
    pub(crate) root: PathBuf,
    /// How much of everything.
    pub(crate) scale: Scale,
    /// Whether the bytes read back must be those written.
    pub(crate) verify: bool,
    /// Whether every request to drop the kernel's names was granted so far.
    pub(crate) names_dropped: bool,
    /// The scores so far.
    pub(crate) board: Board,
}

/// Runs the workloads and writes the scores.
pub(crate) fn work(args: &WorkArgs) -> Outcome<()> {
    let mut run = Run::new(&args.system, args.quick);
    let mut bench = Bench::prepare(args)?;
    let outcome = bench.rounds(&args.only);
    let cleaned = fs::remove_dir_all(&bench.root);
    outcome?;
    cleaned.doing(|| format!("removing {}", bench.root.display()))?;
    run.verified = bench.verify;
    run.names_dropped = bench.names_dropped;
    run.scores = bench.board.scores();
    run.write(&args.json)
}

impl Bench {
    fn prepare(args: &WorkArgs) -> Outcome<Self> {
        let root = args.mount.join(format!("bench-{}", std::process::id()));
        fs::create_dir(&root).doing(|| format!("creating {}", root.display()))?;
        Ok(Self {
            root,
            scale: if args.quick { QUICK } else { FULL },
            verify: !args.discards,
            names_dropped: true,
            board: Board::default(),
        })
    }

    fn rounds(&mut self, only: &[Kind]) -> Outcome<()> {
        let wanted = |kind| only.is_empty() || only.contains(&kind);
        for round in 0..self.scale.rounds {
            eprintln!("round {} of {}", round + 1, self.scale.rounds);
            if wanted(Kind::Names) {
                names::round(self, round)?;
            }
            if wanted(Kind::Bulk) {
                bulk::round(self, round)?;
            }
            if wanted(Kind::Synced) {
                synced::round(self, round)?;
            }
        }
        Ok(())
    }

    /// A fresh directory under the root.
    pub(crate) fn directory(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.root.join(name);
        make_directory(&path)?;
        Ok(path)
    }
}

/// Creates a directory that must be new.
pub(crate) fn make_directory(path: &Path) -> Outcome<()> {
    fs::create_dir(path).doing(|| format!("creating {}", path.display()))
}
