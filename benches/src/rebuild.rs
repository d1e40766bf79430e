//! `rebuild`: one chunkserver is killed under load; when is all redundant again?
//!
//! Owns the story: fill, wait until healthy, load, kill, watch, read everything
//! back. How to kill and how to ask for health are commands of the caller, so
//! the same story is told of any system. Redundancy counts as restored at the
//! first of two looks in a row that find nothing below goal, after a look that
//! found something: right after a kill no master knows of it yet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::bulk::Whole;
use crate::crew;
use crate::failure::{Doing, Failure, Outcome};
use crate::foreground::{Clock, Load, Phase, Seen, Target};
use crate::kernel;
use crate::names::write_new;
use crate::pattern::{Pattern, UNIT};
use crate::plain_copy;
use crate::score::{Look, Rebuild, Run};
use crate::work::make_directory;

/// The size of a large file in bytes.
const LARGE: u64 = 128 << 20;

/// Threads that write the small files.
const FILLERS: u32 = 8;

/// Time between two looks at the health.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Looks closer together than this are not all kept.
const LOOK_KEPT_INTERVAL: f64 = 0.5;

/// Arguments of `rebuild`.
#[derive(Args)]
pub(crate) struct RebuildArgs {
    /// Directory on the file system to be measured, with nothing else on it
    #[arg(long)]
    mount: PathBuf,
    /// Where the result goes
    #[arg(long)]
    json: PathBuf,
    /// What the system is called in the report
    #[arg(long, default_value = "antler")]
    system: String,
    /// Shell command that sends SIGKILL to one chunkserver
    #[arg(long)]
    kill_command: String,
    /// Shell command that prints how many chunks are below goal
    #[arg(long)]
    health_command: String,
    /// Directory for the plain copy, on the disk the chunkservers use
    #[arg(long)]
    copy_dir: PathBuf,
    /// Bytes in large files that the killed server shall hold (K, M, G)
    #[arg(long, default_value = "2G", value_parser = parse_bytes)]
    bytes: u64,
    /// Small files that the killed server shall hold
    #[arg(long, default_value_t = 3000)]
    small_files: u64,
    /// Chunkservers in all
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    servers: u64,
    /// Copies of each chunk
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    copies: u64,
    /// Foreground reads of 4 KiB offered each second
    #[arg(long, default_value_t = 100)]
    reads: u32,
    /// Foreground creates of small files offered each second
    #[arg(long, default_value_t = 50)]
    creates: u32,
    /// Seconds of load before the kill
    #[arg(long, default_value_t = 10)]
    before: u64,
    /// Seconds after which redundancy should have returned
    #[arg(long, default_value_t = 900)]
    patience: u64,
    /// Marks the result as good for a look, not for a claim
    #[arg(long)]
    quick: bool,
}

/// Tells the story and writes what came of it.
pub(crate) fn rebuild(args: &RebuildArgs) -> Outcome<()> {
    let mut run = Run::new(&args.system, args.quick);
    let tree = Tree::fill(args)?;
    eprintln!("filled; waiting until every chunk is at goal");
    wait_healthy(args)?;
    kernel::write_back();
    let (watched, seen) = lose_a_server(args, &tree)?;
    eprintln!(
        "redundant after {:.1} s; reading everything back",
        watched.seconds
    );
    tree.check(&seen.created)?;
    let small = args.small_files + args.share(seen.creates.before.count);
    let copied = plain_copy::measure(&args.copy_dir, args.bytes, small)?;
    run.rebuild = Some(Rebuild {
        lost_bytes: args.bytes + small * UNIT as u64,
        lost_small_files: small,
        seconds: watched.seconds,
        plain_copy_seconds: copied.as_secs_f64(),
        below_goal: watched.looks,
        reads: seen.reads,
        creates: seen.creates,
    });
    run.write(&args.json)
}

impl RebuildArgs {
    /// Of so many on the mount, how many one server holds a copy of.
    fn share(&self, mounted: u64) -> u64 {
        mounted * self.copies / self.servers
    }

    /// How many there must be on the mount for one server to hold `share`.
    fn spread(&self, share: u64) -> u64 {
        (share * self.servers).div_ceil(self.copies)
    }
}

/// What is on the mount before the kill.
struct Tree {
    large: Vec<Target>,
    small: Vec<(PathBuf, u64)>,
    fresh: PathBuf,
}

impl Tree {
    /// Writes so much that each server holds what the killed one shall lose.
    fn fill(args: &RebuildArgs) -> Outcome<Self> {
        let root = args.mount.join(format!("rebuild-{}", std::process::id()));
        make_directory(&root)?;
        let large = (0..args.spread(args.bytes).div_ceil(LARGE)).map(|number| Target {
            path: root.join(format!("large-{number}")),
            number,
            bytes: LARGE,
        });
        let small = (0..args.spread(args.small_files))
            .map(|number| (root.join(format!("small-{number:06}")), number));
        let tree = Self {
            large: large.collect(),
            small: small.collect(),
            fresh: root.join("fresh"),
        };
        make_directory(&tree.fresh)?;
        tree.write()?;
        Ok(tree)
    }

    fn write(&self) -> Outcome<()> {
        for target in &self.large {
            eprintln!("  writing {}", target.path.display());
            whole(target).write()?;
        }
        eprintln!("  writing {} small files", self.small.len());
        crew::run(FILLERS, |worker| {
            let mut pattern = Pattern::new(1);
            let share = self.small.iter().skip(worker.index as usize);
            for (path, number) in share.step_by(FILLERS as usize) {
                write_new(path, pattern.stamped(*number, 0, 1))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Reads back all that was there before the kill and all that came during.
    fn check(&self, created: &[(PathBuf, u64)]) -> Outcome<()> {
        for target in &self.large {
            whole(target).read(true)?;
        }
        for (path, number) in self.small.iter().chain(created) {
            check_small(path, *number)?;
        }
        Ok(())
    }
}

fn whole(target: &Target) -> Whole<'_> {
    Whole {
        path: &target.path,
        number: target.number,
        bytes: target.bytes,
    }
}

fn check_small(path: &Path, number: u64) -> Outcome<()> {
    let doing = || format!("reading {}", path.display());
    kernel::forget_pages(&File::open(path).doing(doing)?)?;
    let read = fs::read(path).doing(doing)?;
    match read.len() == UNIT && Pattern::new(1).matches(&read, number, 0, 1) {
        true => Ok(()),
        false => Err(Failure::Wrong(format!("{}: other bytes", path.display()))),
    }
}

/// What the health command said as time went by.
struct Watched {
    seconds: f64,
    looks: Vec<Look>,
}

fn lose_a_server(args: &RebuildArgs, tree: &Tree) -> Outcome<(Watched, Seen)> {
    let clock = Clock::new();
    let load = Load {
        targets: &tree.large,
        directory: &tree.fresh,
        reads: args.reads,
        creates: args.creates,
    };
    thread::scope(|scope| {
        let load = scope.spawn(|| load.carry(&clock));
        let watched = kill_and_watch(args, &clock);
        clock.advance(Phase::After);
        let seen = load.join().expect("the load does not panic")?;
        Ok((watched?, seen))
    })
}

fn kill_and_watch(args: &RebuildArgs, clock: &Clock) -> Outcome<Watched> {
    thread::sleep(Duration::from_secs(args.before));
    clock.advance(Phase::During);
    let killed = Instant::now();
    shell(&args.kill_command)?;
    eprintln!("killed one server");
    watch(killed, Duration::from_secs(args.patience), || look(args))
}

/// Looks until redundancy has gone and come back.
fn watch(
    killed: Instant,
    patience: Duration,
    mut look: impl FnMut() -> Outcome<u64>,
) -> Outcome<Watched> {
    let mut looks: Vec<Look> = Vec::new();
    let (mut lost, mut restored) = (false, None);
    while killed.elapsed() < patience {
        let at = killed.elapsed().as_secs_f64();
        let below_goal = look()?;
        keep(&mut looks, Look { at, below_goal });
        lost |= below_goal > 0;
        restored = match (lost && below_goal == 0, restored) {
            (true, Some(seconds)) => return Ok(Watched { seconds, looks }),
            (true, None) => Some(killed.elapsed().as_secs_f64()),
            (false, _) => None,
        };
        thread::sleep(LOOK_INTERVAL);
    }
    Err(Failure::Late(match looks.last() {
        Some(last) if lost => format!("{} chunks are still below goal", last.below_goal),
        _ => "no chunk was ever below goal".into(),
    }))
}

/// Keeps a look that differs from the last or comes well after it.
fn keep(looks: &mut Vec<Look>, look: Look) {
    let wanted = looks.last().is_none_or(|last| {
        look.at - last.at >= LOOK_KEPT_INTERVAL || (last.below_goal == 0) != (look.below_goal == 0)
    });
    if wanted {
        looks.push(look);
    }
}

fn wait_healthy(args: &RebuildArgs) -> Outcome<()> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(args.patience) {
        if look(args)? == 0 {
            return Ok(());
        }
        thread::sleep(LOOK_INTERVAL);
    }
    Err(Failure::Late(
        "not every chunk came to its goal after the fill".into(),
    ))
}

fn look(args: &RebuildArgs) -> Outcome<u64> {
    let printed = shell(&args.health_command)?;
    let number = printed.trim().parse();
    number.map_err(|_| Failure::Command(format!("`{}` printed {printed:?}", args.health_command)))
}

/// What `command` prints; it must succeed.
fn shell(command: &str) -> Outcome<String> {
    let output = Command::new("sh").args(["-c", command]).output();
    let output = output.doing(|| format!("running `{command}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::Command(format!("`{command}` failed: {said}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes, with an optional K, M or G of 1024.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size"))?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(format!("{text:?} is out of range")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(answers: &[u64]) -> Outcome<Watched> {
        let mut answers = answers.iter().copied();
        let last = || Failure::Command("no more answers".into());
        watch(Instant::now(), Duration::from_secs(60), || {
            answers.next().ok_or_else(last)
        })
    }

    #[test]
    fn a_zero_before_the_loss_is_noticed_does_not_count() {
        assert!(watched(&[0, 0, 0]).is_err());
        let story = watched(&[0, 0, 7, 3, 0, 0]).expect("it heals");
        assert!(story.looks.iter().any(|look| look.below_goal == 7));
    }

    #[test]
    fn one_zero_is_not_enough() {
        assert!(watched(&[5, 0, 5, 0]).is_err());
    }

    #[test]
    fn a_run_that_never_heals_says_what_is_missing() {
        let story = watch(Instant::now(), Duration::from_millis(250), || Ok(4));
        let said = story.err().expect("it never heals").to_string();
        assert!(said.contains("4 chunks"), "{said}");
    }

    #[test]
    fn sizes_take_a_suffix() {
        assert_eq!(parse_bytes("2G"), Ok(2 << 30));
        assert_eq!(parse_bytes("512"), Ok(512));
        for wrong in ["", "G", "-1", "0", "99999999999G", "2T"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
