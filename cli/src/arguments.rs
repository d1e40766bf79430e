//! The command line: what can be said, and the help for it. What it does is in
//! the module named like the subcommand.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of a cluster that `antler up` runs.
pub(crate) const DIR: &str = "./antler-data";

/// A distributed file system that keeps its word.
#[derive(Parser, Debug)]
#[command(name = "antler", version, about, long_about = None, propagate_version = true)]
#[command(after_help = "First steps:  antler up    (then, in another terminal:  antler status)")]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run a cluster of real processes on this machine and mount it
    Up(Up),
    /// Unmount and stop the cluster that `up` started; the data stays
    Down(Down),
    /// Run a master: it keeps names, attributes and where chunks are
    Master(Daemon),
    /// Run a metalogger: a second home for the metadata, for disaster recovery
    Metalogger(Daemon),
    /// Run a chunkserver: it keeps the data
    #[command(name = "chunkserver")]
    ChunkServer(Daemon),
    /// Mount a cluster (or a folder of it)
    Mount(Mount),
    /// Show members, servers, disks, and the health of every chunk
    Status(Status),
    /// Show a file's chunks, their versions, and where each copy is
    Info(Info),
    /// Explain why a file's chunks are as they are: what each copy is there for, what they
    /// survive, what is under way
    Explain(Explain),
    /// Read every copy of every chunk of a file or tree, and say what is wrong: exit code 3
    /// if anything is
    Check(Check),
    /// Have a chunkserver read its disks once, now, to find what is bad: with --wait exit
    /// code 3 if anything is
    Scrub(Scrub),
    /// Ask whether nodes may be stopped: exit code 0 if nothing becomes unavailable or
    /// endangered, 3 if something does
    OkToStop(OkToStop),
    /// Empty a chunkserver so that it can be removed, and show how far that is
    Drain(Drain),
    /// Leave a chunkserver's copies alone while it is away for a while
    Maintenance(Maintenance),
    /// Show the cluster's feature level, and raise it once every node was upgraded: exit
    /// code 3 if somebody holds it back
    FeatureLevel(FeatureLevel),
    /// Set how many copies a file's chunks, or a directory's new files, get
    SetCopies(SetCopies),
    /// Make, change and show storage classes: how many copies, and where
    #[command(subcommand)]
    Class(Class),
    /// Set the storage class of a file, or of a directory for its new files
    SetClass(SetClass),
    /// Show the storage class of a file or directory
    GetClass(GetClass),
    /// Gives files that are created under certain names in a directory a class of their own,
    /// or shows which do
    ClassPatterns(ClassPatterns),
    /// Set, remove and show the labels of a chunkserver
    Label(Label),
    /// Turn a metalogger's folder into a new single master, after all masters were lost
    Recover(Recover),
    /// Make the key of a new cluster
    Keygen(Keygen),
}

/// `antler up`
#[derive(Args, Debug)]
#[command(
    after_help = "Run again, it brings back what is missing. What was chosen at the first \
    run stays; more --chunkservers may be added later."
)]
pub(crate) struct Up {
    /// Where the cluster's folders are, or are made [default: ./antler-data]
    #[arg(long, value_name = "DIR", default_value = DIR, hide_default_value = true)]
    pub(crate) dir: PathBuf,
    /// Where to mount [default: ./mnt, or where it was mounted last]
    #[arg(long, value_name = "PATH")]
    pub(crate) mount: Option<PathBuf>,
    /// Masters; an odd number [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) masters: Option<u16>,
    /// Metaloggers [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=9))]
    pub(crate) metaloggers: Option<u16>,
    /// Chunkservers, of one disk each [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) chunkservers: Option<u16>,
    /// Copies of each chunk, unless a directory says otherwise [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9))]
    pub(crate) copies: Option<u16>,
    /// Return once the mount answers, and leave everything running
    #[arg(long)]
    pub(crate) detach: bool,
}

/// `antler down`
#[derive(Args, Debug)]
pub(crate) struct Down {
    /// The cluster's folder
    #[arg(long, value_name = "DIR", default_value = DIR)]
    pub(crate) dir: PathBuf,
    /// Detach the mount even while processes use it
    #[arg(long)]
    pub(crate) force: bool,
}

/// A daemon.
#[derive(Args, Debug)]
#[command(after_help = "SIGTERM stops it gracefully. It logs to its standard error.")]
pub(crate) struct Daemon {
    /// Its configuration, a TOML file; checked whole before anything starts
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// `antler mount`
#[derive(Args, Debug)]
#[command(after_help = crate::options::HELP)]
pub(crate) struct Mount {
    /// The masters and the folder: HOST:PORT[,HOST:PORT...]:/SUBPATH
    #[arg(value_name = "MASTER[,MASTER...]:/SUBPATH")]
    pub(crate) source: String,
    /// Where to mount it
    pub(crate) mountpoint: PathBuf,
    /// Mount options, separated by commas
    #[arg(short, value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Stay in the foreground, and log to standard error
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// The process in the background: tells its parent on standard output when it mounted.
    #[arg(long, hide = true)]
    pub(crate) background_process: bool,
}

/// `mount.antler`, as mount(8) calls it.
#[derive(Parser, Debug)]
#[command(
    name = "mount.antler",
    version,
    about = "Mount an Antler cluster; called by mount(8)"
)]
#[command(after_help = crate::options::HELP)]
pub(crate) struct MountHelper {
    /// The masters and the folder: HOST:PORT[,HOST:PORT...]:/SUBPATH
    pub(crate) source: String,
    /// Where to mount it
    pub(crate) mountpoint: PathBuf,
    /// Mount options, separated by commas
    #[arg(short, value_name = "OPTIONS")]
    pub(crate) options: Vec<String>,
    /// Pass over unknown options
    #[arg(short)]
    pub(crate) sloppy: bool,
    /// Check everything, but do not mount
    #[arg(short)]
    pub(crate) fake: bool,
    /// Read-only
    #[arg(short)]
    pub(crate) read_only: bool,
    /// Read and write
    #[arg(short = 'w')]
    pub(crate) writable: bool,
    /// Say more
    #[arg(short)]
    pub(crate) verbose: bool,
    /// Do not write to /etc/mtab (nobody does)
    #[arg(short)]
    pub(crate) no_mtab: bool,
    /// The type of file system
    #[arg(short, value_name = "TYPE")]
    pub(crate) type_: Option<String>,
}

/// Which cluster is meant.
#[derive(Args, Debug)]
pub(crate) struct Target {
    /// The folder of a cluster that `antler up` runs
    #[arg(long, value_name = "DIR", conflicts_with = "master")]
    pub(crate) dir: Option<PathBuf>,
    /// The masters: HOST:PORT[,HOST:PORT...]
    #[arg(long, value_name = "MASTER")]
    pub(crate) master: Option<String>,
    /// The cluster's key, for --master
    #[arg(long, value_name = "FILE", default_value = crate::options::KEY)]
    pub(crate) key: PathBuf,
}

/// `antler status`
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// A path on a mounted cluster [default: the cluster of ./antler-data]
    pub(crate) path: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler info`
#[derive(Args, Debug)]
pub(crate) struct Info {
    /// A path on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler explain`
#[derive(Args, Debug)]
#[command(
    after_help = "A chunk survives the loss of any so many servers, racks or datacentres at once, \
    as its copies lie now and with nothing repaired meanwhile."
)]
pub(crate) struct Explain {
    /// A file; a path on a mount, or with --dir or --master a path in the cluster
    pub(crate) path: PathBuf,
    /// Every file below the directory: chunks by health, and those that are not at goal
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler check`
#[derive(Args, Debug)]
#[command(after_help = "What is found bad is told to the leader, which has it made anew.")]
pub(crate) struct Check {
    /// A path on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler set-copies`
#[derive(Args, Debug)]
#[command(after_help = "Chunks that exist follow by repair; `antler status` shows when they have.")]
pub(crate) struct SetCopies {
    /// How many
    #[arg(value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) copies: u8,
    /// A path on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler class`
#[derive(Subcommand, Debug)]
pub(crate) enum Class {
    /// Make a storage class
    #[command(after_help = POLICY_HELP)]
    Create(ClassWrite),
    /// Change what a storage class says; shows what would move, and does it with --yes
    #[command(after_help = POLICY_HELP)]
    Modify(ClassModify),
    /// Give a storage class another name
    Rename(ClassRename),
    /// Remove a storage class that nothing is of
    Delete(ClassName),
    /// Show the storage classes, and what of them can't be met now
    List(ClassList),
    /// Show one storage class
    Show(ClassName),
}

const POLICY_HELP: &str = "\
A policy is a list, separated by commas:
  copies(N)                  how many copies in all
  N in LABELS [hard|soft]    so many of them where the labels are: `2 in dc=west`,
                             `1 in tier=ssd and not (dc=east or rack=r9) soft`
  differ by server|rack|dc [hard|soft]
                             what two copies must not share
What is not called soft is hard: no copy is ever placed against it, and what can't be
placed is refused (ENOSPC) or reported as a deficit. A soft term gives way, and its
copies come home later.";

/// `antler class create`
#[derive(Args, Debug)]
pub(crate) struct ClassWrite {
    /// Its name
    pub(crate) name: String,
    /// Where copies are kept
    pub(crate) policy: String,
    /// Where new chunks are made, if not there
    #[arg(long, value_name = "POLICY")]
    pub(crate) create: Option<String>,
    /// Where files go that have been left alone: `POLICY after 30d [by mtime] [above 1MiB]`
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) archive: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler class modify`
#[derive(Args, Debug)]
pub(crate) struct ClassModify {
    #[command(flatten)]
    pub(crate) write: ClassWrite,
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `antler class rename`
#[derive(Args, Debug)]
pub(crate) struct ClassRename {
    /// Its name
    pub(crate) name: String,
    /// Its new name
    pub(crate) new_name: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler class delete` and `antler class show`
#[derive(Args, Debug)]
pub(crate) struct ClassName {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler class list`
#[derive(Args, Debug)]
pub(crate) struct ClassList {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler set-class`
#[derive(Args, Debug)]
#[command(after_help = "Chunks that exist follow by repair; `antler status` shows when they have.")]
pub(crate) struct SetClass {
    /// The class; `copies-N` is that of N copies anywhere
    pub(crate) name: String,
    /// A path on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    /// Everything below the directory, too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler get-class`
#[derive(Args, Debug)]
pub(crate) struct GetClass {
    /// A path on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler class-patterns`
#[derive(Args, Debug)]
#[command(
    after_help = "A pattern is one as shells have them: *, ?, [a-z], [!a-z], \\ before a byte; \
                  the first that stands for a name counts. Directories that are made below get \
                  the patterns, too. Files keep the class that they were created with."
)]
pub(crate) struct ClassPatterns {
    /// A directory on a mount; with --dir or --master, a path in the cluster
    pub(crate) path: PathBuf,
    /// The patterns and their classes, all of them, as in '*.tmp=scratch'; none shows them
    #[arg(value_name = "PATTERN=CLASS", conflicts_with = "none")]
    pub(crate) patterns: Vec<OsString>,
    /// Takes them away
    #[arg(long)]
    pub(crate) none: bool,
    /// Every directory below, too
    #[arg(short, long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler label`
#[derive(Args, Debug)]
#[command(
    after_help = "What is set here wins over the server's configuration until it is removed."
)]
pub(crate) struct Label {
    /// The server's address, as `antler status` shows it
    pub(crate) server: String,
    /// KEY=VALUE sets a label, KEY- removes what was set; none shows them
    #[arg(value_name = "KEY=VALUE|KEY-")]
    pub(crate) changes: Vec<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler ok-to-stop`
#[derive(Args, Debug)]
#[command(
    after_help = "It answers for now, and for stopping all of them at the same time. Ask again \
    before each step: copies move, and what was spare may not be any more."
)]
pub(crate) struct OkToStop {
    /// Masters, metaloggers and chunkservers: by address, or as `antler status` names them
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    /// Yes as long as everything stays available, be it with one copy for a while: what a
    /// restart comes to where there are two copies
    #[arg(long)]
    pub(crate) allow_endangered: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler drain`
#[derive(Args, Debug)]
#[command(
    after_help = "Run again, it tells how far it is. What is on the server is read and written as \
    before until it lies elsewhere."
)]
pub(crate) struct Drain {
    /// The server's address, as `antler status` shows it
    pub(crate) server: String,
    /// Use it again
    #[arg(long)]
    pub(crate) end: bool,
    /// Return once nothing is left on it that counts
    #[arg(long, conflicts_with = "end")]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler maintenance`
#[derive(Args, Debug)]
#[command(
    after_help = "Chunks that lack only its copies are not repaired meanwhile, be it that one \
    copy is left; what is written meanwhile, and what loses more, is. `antler ok-to-stop` tells \
    beforehand what its absence comes to."
)]
pub(crate) struct Maintenance {
    /// The server's address, as `antler status` shows it
    pub(crate) server: String,
    /// For how long: a number with s, min, h or d
    #[arg(long = "for", value_name = "TIME", default_value = "30min", value_parser = crate::duty::span)]
    pub(crate) span: u64,
    /// End it now
    #[arg(long, conflicts_with = "span")]
    pub(crate) end: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler scrub`
#[derive(Args, Debug)]
#[command(
    after_help = "What is bad is made anew from another copy, or from the other parts. `antler \
    check PATH` reads the copies of some files instead, wherever they are. A server that is \
    started anew meanwhile forgets the order."
)]
pub(crate) struct Scrub {
    /// The server's address, as `antler status` shows it
    pub(crate) server: String,
    /// Only the disk with this path, as `antler status` shows it
    #[arg(long, value_name = "PATH")]
    pub(crate) disk: Option<String>,
    /// How much of each disk is read a second, at most
    #[arg(long, value_name = "RATE", default_value = "64MiB/s", value_parser = crate::scrub::rate)]
    pub(crate) rate: u64,
    /// Return once all is read, and say what was found
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler feature-level`
#[derive(Args, Debug)]
#[command(
    after_help = "Until it is raised every upgrade can be taken back, node by node. Afterwards \
    a master, metalogger or chunkserver of an older version is of no use any more."
)]
pub(crate) struct FeatureLevel {
    /// Raise it to the newest that the leader knows; done if it is there already
    #[arg(long)]
    pub(crate) raise: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `antler recover`
#[derive(Args, Debug)]
#[command(
    after_help = "Nothing may run on the folders meanwhile. The metalogger's own log is kept \
    aside in its folder; started again, it learns everything anew."
)]
pub(crate) struct Recover {
    /// The metalogger's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// The cluster's folder, in which master-1 is made [default: the folder around --from]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `antler keygen`
#[derive(Args, Debug)]
#[command(after_help = "Give the file to every server and client of the cluster, mode 0600.")]
pub(crate) struct Keygen {
    /// Where to put it (mode 0600); standard output if not given
    pub(crate) file: Option<PathBuf>,
}
