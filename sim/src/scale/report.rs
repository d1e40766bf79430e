//! What came of a scale run, for people and for machines.

use super::judge::{Times, deviation};
use super::spec::ScalePlan;
use crate::host::Verdict;
use crate::network::Nanos;
use antler_core::marks::Marks;
use serde_json::{Value, json};

/// The cluster at one time, by the judge's books.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When.
    pub at: Nanos,
    /// Chunks without a good copy.
    pub missing: u64,
    /// Chunks with one of several.
    pub one_left: u64,
    /// Chunks with more than one, and fewer than wanted.
    pub under: u64,
    /// Copies made so far.
    pub made: u64,
    /// Copies in the making.
    pub running: u64,
}

/// Seconds of this machine's time, and bytes of its memory: what no digest has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walls {
    /// To apply the records that founded the cluster.
    pub applied: f64,
    /// To write the image and recover the master from it.
    pub recovered: f64,
    /// To fill the servers and the judge's books.
    pub books: f64,
    /// Of the first reports, until the master had taken them in.
    pub reports: f64,
    /// From the first event to the last.
    pub played: f64,
    /// All of it.
    pub whole: f64,
    /// What the master's machine worked, heartbeats apart.
    pub busy: f64,
    /// Its longest input.
    pub longest: f64,
    /// Bytes of the replicated state's tables.
    pub state_bytes: u64,
    /// The most memory so far when the cluster was founded.
    pub founded_rss: u64,
    /// The most memory of the whole run.
    pub peak_rss: u64,
}

/// How a scale run went.
#[derive(Clone, Debug)]
pub struct ScaleReport {
    /// What was played.
    pub plan: ScalePlan,
    /// How it ended.
    pub verdict: Verdict,
    /// Simulated nanoseconds.
    pub virtual_nanos: Nanos,
    /// The digest of what reached the master, and of what it was in the end.
    pub digest: u64,
    /// Events besides heartbeats.
    pub events: u64,
    /// Heartbeats that the master took.
    pub beats: u64,
    /// Servers that were sent away and came again.
    pub relinked: u64,
    /// The longest time that a server that was there did not hear the leader.
    pub unheard_max: Nanos,
    /// Chunks that the master had to repair at once, at most, as it was looked at.
    pub queue_max: u64,
    /// Copies made on each server that is left.
    pub made_on: Vec<u32>,
    /// Copies read from each.
    pub read_from: Vec<u32>,
    /// When the last chunk had all copies again.
    pub whole_at: Option<Nanos>,
    /// Chunks without a good copy.
    pub lost: u64,
    /// Chunks that lacked copies at once, at most.
    pub lacking_max: u64,
    /// Copies that were made.
    pub made: u64,
    /// Copies that were deleted by command.
    pub deleted: u64,
    /// Copies in the making that came to nothing.
    pub failed: u64,
    /// Copies that were found bad when they were read.
    pub found_bad: u64,
    /// Reads that met a unit that had rotted.
    pub rot_met: u64,
    /// Units of new copies that the judge compared.
    pub units: u64,
    /// New copies in a rack that had one of the chunk.
    pub crowded: u64,
    /// Starts at which more endangered chunks waited, and the order was judged.
    pub orders: u64,
    /// Copies that one server took part in at once, at most.
    pub load_max: u16,
    /// How long chunks lacked copies, in milliseconds.
    pub lacked: Times,
    /// How long chunks had one copy left, in milliseconds.
    pub endangered: Times,
    /// The rare events that the master met.
    pub marks: Marks,
    /// The cluster over time.
    pub samples: Vec<Sample>,
    /// What it cost.
    pub walls: Walls,
}

impl ScaleReport {
    /// From the first loss until redundancy was back, in seconds.
    #[must_use]
    pub fn rebuild_seconds(&self) -> Option<f64> {
        let first = self.plan.losses.first()?.at;
        let whole = self.whole_at?.checked_sub(first)?;
        Some(whole as f64 / 1e9)
    }

    /// Megabytes a second that were copied meanwhile.
    #[must_use]
    pub fn rebuild_rate(&self) -> Option<f64> {
        let bytes = self.made as f64 * self.plan.chunk_size as f64;
        Some(bytes / 1e6 / self.rebuild_seconds()?.max(1e-9))
    }

    /// A few lines for people.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut lines = vec![format!(
            "seed {}: {} in {:.0} s of simulated time, {:.1} s, {} events and {} heartbeats, \
             digest {:016x}",
            self.plan.seed,
            self.verdict.word(),
            self.virtual_nanos as f64 / 1e9,
            self.walls.whole,
            self.events,
            self.beats,
            self.digest
        )];
        lines.extend(self.verdict.how().map(|how| format!("  {how}")));
        lines.push(self.rebuild_line());
        lines.push(format!(
            "  judged: {} units of new copies, {} orders of repair; {} copies found rotten in {} \
             reads; {} chunks lost",
            self.units, self.orders, self.found_bad, self.rot_met, self.lost
        ));
        lines.push(self.spread_line());
        lines.push(self.cost_line());
        lines.join("\n")
    }

    fn rebuild_line(&self) -> String {
        let rebuilt = match (self.rebuild_seconds(), self.rebuild_rate()) {
            (Some(seconds), Some(rate)) => format!("whole after {seconds:.1} s, {rate:.0} MB/s"),
            _ => "nothing to rebuild".to_owned(),
        };
        format!(
            "  rebuild: {rebuilt}; {} copies made, {} failed, {} deleted; up to {} chunks lacked \
             copies, for {}; one copy left for {}",
            self.made,
            self.failed,
            self.deleted,
            self.lacking_max,
            quantiles(&self.lacked),
            quantiles(&self.endangered)
        )
    }

    fn spread_line(&self) -> String {
        let spread = |counts: &[u32]| {
            let (least, most) = (counts.iter().min(), counts.iter().max());
            format!(
                "{}..{} (deviation {:.0} %)",
                least.copied().unwrap_or_default(),
                most.copied().unwrap_or_default(),
                deviation(counts)
            )
        };
        format!(
            "  spread: {} copies made on a server, {} read from one, at most {} at once; {} in a \
             rack that had one; the master's queue held up to {}",
            spread(&self.made_on),
            spread(&self.read_from),
            self.load_max,
            self.crowded,
            self.queue_max
        )
    }

    fn cost_line(&self) -> String {
        let walls = &self.walls;
        format!(
            "  cost: {:.1} s to apply the records, {:.1} s to write and recover the image, {:.1} s \
             for the books, {:.1} s of reports, {:.1} s in all to play; the master worked {:.1} s \
             besides heartbeats, {:.0} ms at its longest input; state {} MiB, memory {} MiB when \
             founded, {} MiB at most",
            walls.applied,
            walls.recovered,
            walls.books,
            walls.reports,
            walls.played,
            walls.busy,
            walls.longest * 1e3,
            walls.state_bytes >> 20,
            walls.founded_rss >> 20,
            walls.peak_rss >> 20
        )
    }

    /// The same for machines.
    #[must_use]
    pub fn object(&self, scenario: &str) -> Value {
        let walls = &self.walls;
        let times = |times: &Times| {
            json!({
                "chunks": times.len(),
                "p50": times.value_at_quantile(0.5) as f64 / 1e3,
                "p99": times.value_at_quantile(0.99) as f64 / 1e3,
                "max": times.max() as f64 / 1e3,
            })
        };
        let marks: Vec<&str> = self.marks.iter().map(|mark| mark.name()).collect();
        json!({
            "scenario": scenario,
            "seed": self.plan.seed,
            "verdict": self.verdict.word().to_lowercase(),
            "how": self.verdict.how(),
            "exit_code": self.verdict.exit_code(),
            "servers": self.plan.servers,
            "chunks": self.plan.chunks,
            "virtual_seconds": self.virtual_nanos as f64 / 1e9,
            "seconds": walls.whole,
            "events": self.events,
            "heartbeats": self.beats,
            "rebuild_seconds": self.rebuild_seconds(),
            "rebuild_mb_per_second": self.rebuild_rate(),
            "copies_made": self.made,
            "copies_failed": self.failed,
            "copies_deleted": self.deleted,
            "chunks_lost": self.lost,
            "chunks_lacking_max": self.lacking_max,
            "lacked_seconds": times(&self.lacked),
            "one_left_seconds": times(&self.endangered),
            "found_rotten": self.found_bad,
            "units_judged": self.units,
            "orders_judged": self.orders,
            "crowded": self.crowded,
            "made_on_deviation": deviation(&self.made_on),
            "read_from_deviation": deviation(&self.read_from),
            "copies_at_once_max": self.load_max,
            "queue_max": self.queue_max,
            "relinked": self.relinked,
            "unheard_max_seconds": self.unheard_max as f64 / 1e9,
            "apply_seconds": walls.applied,
            "recover_seconds": walls.recovered,
            "report_seconds": walls.reports,
            "play_seconds": walls.played,
            "master_seconds": walls.busy,
            "master_longest_seconds": walls.longest,
            "state_bytes": walls.state_bytes,
            "founded_rss_bytes": walls.founded_rss,
            "peak_rss_bytes": walls.peak_rss,
            "marks": marks,
            "digest": format!("{:016x}", self.digest),
        })
    }
}

fn quantiles(times: &Times) -> String {
    if times.is_empty() {
        return "no time".to_owned();
    }
    let at = |share| times.value_at_quantile(share) as f64 / 1e3;
    format!(
        "{:.1}, {:.1} and {:.1} s (p50, p99, max)",
        at(0.5),
        at(0.99),
        times.max() as f64 / 1e3
    )
}

/// The most memory that this process had so far, in bytes; 0 where that is not told.
pub(super) fn resident_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0u64) << 10
}
