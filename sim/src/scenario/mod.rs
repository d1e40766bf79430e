//! Scenario files: a cluster, its network, a workload, faults, and what to expect.
//!
//! Owns the format (docs/scenarios.md) and its strict reading: whatever is not
//! known is an error with its line and a hint. Drawing concrete numbers and
//! targets for a seed is the plan's.

pub mod draw;
pub mod expect;
pub mod limits;
pub mod site;
pub mod who;
mod whole;
pub mod year;

pub use draw::{Bytes, Choice, Count, Draw, Range, Span};
pub use expect::{Errors, Expect, MarkName};
pub use limits::{Limits, LimitsPlan};
pub use site::{Link, Site};
pub use who::Who;
pub use year::{Each, Rate, Storage, Year};

use antler_core::glob;
use antler_core::machine::Role;
use antler_core::placement::{Archive, Policy};
use antler_core::version::FeatureLevel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

const SECOND: u64 = 1_000_000_000;

/// A scenario as its file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the cluster is made of.
    #[serde(default)]
    pub cluster: Cluster,
    /// Its places, told one by one instead of as counts of the cluster.
    #[serde(default, rename = "site")]
    pub sites: Vec<Site>,
    /// How its parts are connected.
    #[serde(default)]
    pub network: NetworkOptions,
    /// What lies between two sites, where that differs.
    #[serde(default, rename = "link")]
    pub links: Vec<Link>,
    /// How its files are kept from the beginning.
    #[serde(default)]
    pub storage: Option<Storage>,
    /// The bounds of the machines.
    #[serde(default)]
    pub limits: Limits,
    /// What the clients do.
    #[serde(default)]
    pub workload: Workload,
    /// What an operator does.
    #[serde(default, rename = "operator")]
    pub operator: Vec<Order>,
    /// What goes wrong.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
    /// The time that `rates` are drawn over.
    #[serde(default)]
    pub year: Option<Year>,
    /// How often what fails.
    #[serde(default, rename = "rate")]
    pub rates: Vec<Rate>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// What the cluster is made of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// Voters of the masters' group.
    pub masters: Count,
    /// Learners of it.
    pub metaloggers: Count,
    /// Chunkservers.
    pub chunkservers: Count,
    /// Disks of each chunkserver.
    pub disks: Count,
    /// Mounts.
    pub clients: Count,
    /// Copies that the root directory asks for.
    pub copies: Count,
    /// Places; every role is spread over them in turn.
    pub datacentres: Count,
    /// The place where all masters are instead; 0: they are spread too.
    pub masters_in: u64,
    /// What the disks are: one, or several of which one is drawn.
    pub disk: Choice<DiskKind>,
    /// Bytes of a chunkserver's disk.
    pub disk_size: Bytes,
    /// Clocks run up to 2 % fast or slow.
    pub drift: bool,
    /// As which version every node begins.
    pub version: Build,
    /// Members write an image after this many bytes of log.
    pub image_every: Bytes,
    /// Bytes a second at which chunkservers read each disk to find what is bad; 0: none.
    /// Then no copy with a bad unit may be left in the end.
    pub scrub: Bytes,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            masters: Count::only(3),
            metaloggers: Count::only(1),
            chunkservers: Count::only(4),
            disks: Count::only(1),
            clients: Count::only(2),
            copies: Count::only(2),
            datacentres: Count::only(1),
            masters_in: 0,
            disk: Choice::only(DiskKind::Flash),
            disk_size: Bytes::only(1 << 30),
            drift: true,
            version: Build::Newest,
            image_every: Bytes::between(8 << 10, 256 << 10),
            scrub: Bytes::only(0),
        }
    }
}

/// A kind of disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// 0.3 ms a sync.
    Flash,
    /// 8 ms a seek or a sync.
    Rotating,
}

/// As which version a node is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Build {
    /// This binary's.
    #[default]
    Newest,
    /// The one before: it speaks, writes and understands no more than that one did.
    Previous,
}

impl Build {
    /// What it knows.
    #[must_use]
    pub fn level(self) -> FeatureLevel {
        match self {
            Self::Newest => FeatureLevel::NEWEST,
            Self::Previous => FeatureLevel::PREVIOUS,
        }
    }
}

/// How the parts are connected.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkOptions {
    /// One way within a datacentre.
    pub latency: Span,
    /// One way between datacentres.
    pub between: Span,
    /// Added at random to each message.
    pub jitter: Span,
    /// Bytes a second of each ordered pair of nodes.
    pub bandwidth: Bytes,
    /// In a thousand messages, how many are delayed by a retransmission (0.2 s).
    pub retransmits: Count,
}

impl Default for NetworkOptions {
    fn default() -> Self {
        Self {
            latency: Span::only(100_000),
            between: Span::only(10_000_000),
            jitter: Span::between(0, 100_000),
            bandwidth: Bytes::only(1 << 30),
            retransmits: Count::between(0, 2),
        }
    }
}

/// What the clients do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// For how long operations are begun.
    #[serde(rename = "for")]
    pub duration: Span,
    /// Programs on each mount.
    pub actors: Count,
    /// Names that the programs share (each has names of its own besides).
    pub shared: Count,
    /// What they mostly do: one, or several of which one is drawn.
    pub profile: Choice<Profile>,
    /// Between two operations of a program.
    pub think: Span,
    /// Bytes of one write at most.
    pub write_max: Bytes,
    /// Bytes of a file at most.
    pub file_max: Bytes,
    /// `documents`: how many each mount keeps.
    pub files: Count,
    /// `documents`: bytes of one.
    pub size: Bytes,
    /// `documents`: of a hundred operations, how many only read.
    pub reads: Count,
    /// `documents`: of a hundred that write, how many sync.
    pub synced: Count,
    /// `documents`: operations that each mount begins in a minute.
    pub rate: Count,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            duration: Span::only(10 * SECOND),
            actors: Count::between(1, 3),
            shared: Count::between(1, 6),
            profile: Choice::only(Profile::Mixed),
            think: Span::between(0, 60_000_000),
            write_max: Bytes::between(100, 200 << 10),
            file_max: Bytes::between(64 << 10, 1 << 20),
            files: Count::only(40),
            size: Bytes::between(1 << 10, 128 << 10),
            reads: Count::only(80),
            synced: Count::only(50),
            rate: Count::only(60),
        }
    }
}

/// What programs mostly do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Some of everything.
    Mixed,
    /// Names and attributes.
    Names,
    /// Writes, reads, and a sync now and then.
    Data,
    /// A sync after every write.
    Synced,
    /// Everything on names that all programs share.
    Contended,
    /// Files that are unlinked as soon as they are open, and used on.
    Orphans,
    /// An office: documents are made whole, read whole, changed a little, removed.
    Documents,
}

/// Something that an operator does: exactly one of `class`, `set`, `label`, `drain`,
/// `maintenance` and `raise` says what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// When.
    pub at: Span,
    /// Makes the storage class of this name, or changes it.
    #[serde(default)]
    pub class: Option<String>,
    /// What the class is kept as.
    #[serde(default)]
    pub keep: Option<String>,
    /// What its chunks are made as.
    #[serde(default)]
    pub create: Option<String>,
    /// What holds for files of the class that have been left alone:
    /// `"ec(4+2) after 30d by mtime above 1MiB"`.
    #[serde(default)]
    pub archive: Option<String>,
    /// Puts `path` into this class.
    #[serde(default)]
    pub set: Option<String>,
    /// Of `set`: `/`, or a directory that programs make.
    #[serde(default)]
    pub path: Option<String>,
    /// Of `set`: only what is made in the directory from then on, under names that this
    /// pattern stands for.
    #[serde(default)]
    pub names: Option<String>,
    /// Sets a label of `server`: `key=value`, or `key-` to remove what was set.
    #[serde(default)]
    pub label: Option<String>,
    /// Has `server` emptied, or does so no more.
    #[serde(default)]
    pub drain: Option<bool>,
    /// Puts `server` into maintenance for so long; `"0s"` ends it.
    #[serde(default)]
    pub maintenance: Option<Span>,
    /// Of `label`, `drain` and `maintenance`: which chunkserver, from 1.
    #[serde(default)]
    pub server: Option<Count>,
    /// Raises the cluster's feature level to the newest, asking again until it is done:
    /// what is ordered later waits for it.
    #[serde(default)]
    pub raise: bool,
    /// In how many of a hundred seeds.
    #[serde(default)]
    pub chance: Option<u64>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    #[serde(rename = "do")]
    pub action: Action,
    /// To whom.
    pub who: Who,
    /// Cut off from whom (`cut` and `clog`; the rest of the world by default).
    #[serde(default)]
    pub from: Option<Who>,
    /// Only messages of `who` to `from` are stopped.
    #[serde(default)]
    pub one_way: bool,
    /// When.
    #[serde(default)]
    pub at: Option<Span>,
    /// At an event instead.
    #[serde(default)]
    pub on: Option<Trigger>,
    /// Let so many of these events pass first.
    #[serde(default)]
    pub skip: Option<Count>,
    /// After how long it ends (a crashed node is restarted, a cut healed). Without it,
    /// what can't be undone lasts for good, and the rest until the workload's end.
    #[serde(default, rename = "for")]
    pub duration: Option<Span>,
    /// How many times.
    #[serde(default)]
    pub times: Option<Count>,
    /// From the beginning of one time to that of the next.
    #[serde(default)]
    pub every: Option<Span>,
    /// In how many of a hundred seeds.
    #[serde(default)]
    pub chance: Option<u64>,
    /// `jump-clock`: how far, at most.
    #[serde(default)]
    pub by: Option<Span>,
    /// `slow-disk`: how many times as long everything takes.
    #[serde(default)]
    pub factor: Option<Count>,
    /// `fail-reads`, `fail-writes`, `fail-syncs`, `misdirect-writes`: only the next call.
    #[serde(default)]
    pub once: bool,
    /// `fail-writes`, `fail-syncs`: does not wait until what the disk can still be read
    /// for has another copy.
    #[serde(default)]
    pub hasty: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The process is killed; what it had written to files stays in the page cache.
    Kill,
    /// The machine loses power: what was not synced is lost, torn or reordered.
    PowerCut,
    /// The process is asked to stop.
    Stop,
    /// The machine does nothing for a while, its clocks run on.
    Pause,
    /// Messages between two sides stop.
    Cut,
    /// Messages between two sides are delayed by up to a second.
    Clog,
    /// Connections break for one side alone: what it had sent still arrives, late.
    Strand,
    /// A disk is pulled for good; the process is restarted on an empty one much later.
    LoseDisk,
    /// Reads fail.
    FailReads,
    /// Writes fail.
    FailWrites,
    /// Syncs fail.
    FailSyncs,
    /// A disk has no space left.
    FillDisk,
    /// A disk is slow.
    SlowDisk,
    /// A chunkserver is told to empty a disk.
    DrainDisk,
    /// A chunkserver is told to place nothing new on a disk.
    LimitDisk,
    /// A chunkserver that runs is given another disk, an empty one.
    AddDisk,
    /// A disk is taken away from a chunkserver that runs.
    RemoveDisk,
    /// No call to a disk ends before the fault does.
    HangDisk,
    /// A disk is pulled, and put in again later: what was not synced is lost in part.
    VanishDisk,
    /// A chunkserver's disk is replaced by an image of it that was taken earlier.
    RestoreDisk,
    /// Two nodes of a kind are stopped and started with a disk of each other's.
    SwapDisks,
    /// The wall clock of a machine jumps forwards or backwards.
    JumpClock,
    /// A machine's clocks run at another speed from now on.
    DriftClock,
    /// A bit of the stored content rots.
    Rot,
    /// Writes of content land at another place of the disk, as if nothing were wrong.
    MisdirectWrites,
    /// One range of one file can be neither read nor written any more.
    FailRange,
    /// Syncs answer without having done it.
    LyingSyncs,
    /// A datacentre is lost for good, with everything in it.
    LoseDatacentre,
    /// All masters' folders are lost, and a metalogger's becomes a new single master.
    Recover,
    /// Masters that were lost in `recover` come back with their old folders.
    ReturnOldMasters,
    /// The process is asked to stop (a mount ends), and this version starts on its disk.
    Upgrade,
    /// The same, and the previous version starts.
    Downgrade,
}

/// An event that a fault waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// A chunkserver acknowledged a write to a client.
    WriteAcknowledged,
    /// A chunkserver passed a write on to the next.
    WriteForwarded,
    /// A program's fsync was answered.
    FsyncAnswered,
    /// A write lease was granted.
    LeaseGranted,
    /// A mutation was answered.
    MutationAnswered,
    /// A chunkserver was told to copy a part.
    RepairBegun,
    /// A member is amid the sync of a batch of its log that spans several sectors.
    LogSync,
    /// A chunkserver's disk is amid a sync.
    DiskSync,
    /// A node is amid the recovery of what its disks hold.
    Starting,
    /// A node carried out an effect and has others of the same input left.
    Effect,
}

/// Why a scenario can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct ScenarioError {
    /// The file.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Reads a scenario's file.
///
/// # Errors
/// When it can't be read or says something that is not known.
pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
    parse_file(path, parse)
}

/// Has a file's text parsed under its name.
pub(crate) fn parse_file<T>(
    path: &Path,
    parse: impl Fn(&str, &str) -> Result<T, ScenarioError>,
) -> Result<T, ScenarioError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ScenarioError {
        path: shown.clone(),
        line: 1,
        message: error.to_string(),
    })?;
    parse(&shown, &text)
}

/// Reads a scenario.
///
/// # Errors
/// When it says something that is not known or makes no sense.
pub fn parse(path: &str, text: &str) -> Result<Scenario, ScenarioError> {
    let fail = |line, message: String| ScenarioError {
        path: path.to_owned(),
        line,
        message,
    };
    let scenario: Scenario = read_strictly(path, text)?;
    for (number, fault) in scenario.faults.iter().enumerate() {
        let line = line_of(text, "[[fault]]", number);
        fault.check().map_err(|message| fail(line, message))?;
    }
    for (number, order) in scenario.operator.iter().enumerate() {
        let line = line_of(text, "[[operator]]", number);
        order.check().map_err(|message| fail(line, message))?;
    }
    let counted = scenario.sites.is_empty();
    let parts = [scenario.cluster.check(counted), scenario.limits.check()];
    parts
        .into_iter()
        .collect::<Result<(), String>>()
        .map_err(|message| fail(1, message))?;
    whole::check(text, &scenario).map_err(|(line, message)| fail(line, message))?;
    Ok(scenario)
}

/// Reads a file of either kind of scenario, without a look at what it means.
pub(crate) fn read_strictly<T: DeserializeOwned>(
    path: &str,
    text: &str,
) -> Result<T, ScenarioError> {
    let fail = |line, message: String| ScenarioError {
        path: path.to_owned(),
        line,
        message,
    };
    if !text.starts_with('#') {
        let message = "a scenario opens with a comment that says what it shows";
        return Err(fail(1, message.to_owned()));
    }
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text[..at.min(text.len())].matches('\n').count() + 1;
        fail(line, with_hint(error.message()))
    })
}

impl Cluster {
    /// `counted`: the chunkservers are told here, not by sites.
    fn check(&self, counted: bool) -> Result<(), String> {
        if self.masters.range.low == 0 || self.copies.range.low == 0 {
            return Err("a cluster has at least one master and one copy".to_owned());
        }
        if counted && self.chunkservers.range.low < self.copies.range.high {
            return Err("there are fewer chunkservers than copies".to_owned());
        }
        if self.masters_in > self.datacentres.range.low {
            return Err("`masters_in` is a datacentre that there always is".to_owned());
        }
        Ok(())
    }
}

impl Fault {
    fn check(&self) -> Result<(), String> {
        match (&self.at, &self.on) {
            (None, None) => return Err("a fault says when: `at` or `on`".to_owned()),
            (Some(_), Some(_)) => return Err("a fault has either `at` or `on`".to_owned()),
            _ => {}
        }
        if self.times.is_some() != self.every.is_some() && self.on.is_none() {
            return Err("`times` and `every` come together".to_owned());
        }
        if self.chance.is_some_and(|chance| chance > 100) {
            return Err("`chance` is out of 100".to_owned());
        }
        let ends = matches!(
            self.action,
            Action::LyingSyncs
                | Action::HangDisk
                | Action::VanishDisk
                | Action::RestoreDisk
                | Action::SwapDisks
        );
        if ends && self.duration.is_none() {
            return Err(format!("`{}` needs `for`", self.action));
        }
        let crashes = matches!(self.action, Action::Kill | Action::PowerCut);
        if matches!(self.on, Some(Trigger::Starting | Trigger::Effect)) && !crashes {
            return Err("`starting` and `effect` go with `kill` and `power-cut`".to_owned());
        }
        let names_place = matches!(self.who, Who::Datacentre(_));
        if self.action == Action::LoseDatacentre && !names_place {
            return Err("`lose-datacentre` needs a `datacentre-N`".to_owned());
        }
        let of_servers = matches!(
            self.action,
            Action::DrainDisk | Action::LimitDisk | Action::AddDisk | Action::RemoveDisk
        );
        let names_servers = matches!(
            self.who,
            Who::Any(Role::ChunkServer)
                | Who::Numbered(Role::ChunkServer, _)
                | Who::All(Role::ChunkServer)
        );
        if of_servers && !names_servers {
            return Err(format!("`{}` is of a chunkserver", self.action));
        }
        if self.by.is_some() != (self.action == Action::JumpClock) {
            return Err("`jump-clock` needs `by`, and nothing else has it".to_owned());
        }
        Ok(())
    }
}

impl Order {
    fn check(&self) -> Result<(), String> {
        let of_server = [
            self.label.is_some(),
            self.drain.is_some(),
            self.maintenance.is_some(),
        ];
        let of_server = of_server.into_iter().filter(|said| *said).count();
        let said = (&self.class, &self.set, of_server, self.raise);
        let policies = [&self.keep, &self.create].into_iter().flatten();
        for policy in policies {
            policy
                .parse::<Policy>()
                .map_err(|mistake| format!("{policy:?}: {mistake}"))?;
        }
        if let Some(archive) = &self.archive {
            archive
                .parse::<Archive>()
                .map_err(|mistake| format!("{archive:?}: {mistake}"))?;
        }
        if let Some(names) = self.names.as_deref()
            && (self.set.is_none() || !glob::is_pattern(names.as_bytes()))
        {
            return Err(format!("`names` is a pattern, of `set`: not {names:?}"));
        }
        match said {
            (Some(_), None, 0, false) if self.keep.is_some() => Ok(()),
            (None, Some(_), 0, false) if self.path.is_some() => Ok(()),
            (None, None, 1, false) if self.server.is_some() => self
                .label
                .as_deref()
                .map_or(Ok(()), |label| read_label(label).map(|_| ())),
            (None, None, 0, true) => Ok(()),
            _ => Err(
                "an order is `class` with `keep`, `set` with `path`, one of `label`, `drain` and \
                 `maintenance` with `server`, or `raise`"
                    .to_owned(),
            ),
        }
    }
}

/// A change of a label: `key=value`, or `key-`.
///
/// # Errors
/// When it is neither.
pub fn read_label(text: &str) -> Result<(String, Option<String>), String> {
    let change = match text.split_once('=') {
        Some((key, value)) => Some((key, Some(value))),
        None => text.strip_suffix('-').map(|key| (key, None)),
    };
    let (key, value) = change.ok_or_else(|| format!("`{text}` is not `key=value` or `key-`"))?;
    Ok((key.to_owned(), value.map(str::to_owned)))
}

fn line_of(text: &str, head: &str, number: usize) -> usize {
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.trim() == head)
        .nth(number)
        .map_or(1, |(line, _)| line + 1)
}

/// Adds the known name nearest to an unknown one to a message that lists them.
fn with_hint(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = match (message.starts_with("unknown"), quoted.next()) {
        (true, Some(unknown)) => nearest(unknown, quoted),
        _ => None,
    };
    match hint {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// The known name with the least edits from `unknown`, if it is near at all.
fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (edits(unknown, name), name))
        .min()
        .filter(|(edits, name)| *edits <= name.len().div_ceil(2))
        .map(|(_, name)| name)
}

/// The edit distance (Levenshtein 1965).
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}");
        for (at, c) in name.chars().enumerate() {
            if c.is_uppercase() && at > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", c.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_told_with_its_line_and_a_hint() {
        let text = "# shows\n[cluster]\nmasters = 3\nchunkserver = 4\n";
        let error = parse("s.toml", text).expect_err("unknown key");
        assert_eq!(error.line, 4);
        assert!(
            error.message.contains("did you mean `chunkservers`?"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_action_or_mark_is_told_with_a_hint() {
        let text = "# shows\n\n[[fault]]\ndo = \"powercut\"\nwho = \"leader\"\nat = \"1s\"\n";
        let error = parse("s.toml", text).expect_err("unknown action");
        assert_eq!(error.line, 4);
        assert!(
            error.message.contains("did you mean `power-cut`?"),
            "{error}"
        );
        let error = parse("s.toml", "# shows\n[expect]\nmarks = [\"torn-tale\"]\n");
        assert!(
            error
                .expect_err("unknown mark")
                .message
                .contains("`torn-tail`?")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = [
            ("[cluster]\nmasters = 1\n", 1),
            ("# shows\n[cluster]\ncopies = 5\n", 1),
            ("# shows\n[[fault]]\ndo = \"kill\"\nwho = \"leader\"\n", 2),
            (
                "# shows\n[[fault]]\ndo = \"kill\"\nwho = \"boss\"\nat = \"1s\"\n",
                4,
            ),
            ("# shows\n[cluster]\nmasters = \"3..1\"\n", 3),
        ];
        for (text, line) in refused {
            assert_eq!(
                parse("s.toml", text).expect_err("refused").line,
                line,
                "{text}"
            );
        }
    }

    #[test]
    fn an_empty_scenario_has_defaults() {
        let scenario = parse("s.toml", "# shows nothing").expect("valid");
        assert_eq!(scenario.cluster.masters.range, Range::only(3));
        assert!(scenario.faults.is_empty());
        assert_eq!(Action::PowerCut.to_string(), "power-cut");
    }
}
