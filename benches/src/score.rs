//! What a run leaves behind: scores, and where and when they were taken.
//!
//! Owns the JSON that `work` and `rebuild` write and `report` reads. Rates are
//! per second, latencies in microseconds, sizes in bytes; a score keeps every
//! round beside the median, so that noise stays visible.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::failure::{Doing, Failure, Outcome};

/// Everything measured on one system by one invocation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    /// `antler`, `moosefs`, `empty`, or what the user called it.
    pub(crate) system: String,
    /// Seconds since 1970 at the start.
    pub(crate) started: u64,
    /// The machine that did it.
    pub(crate) host: Host,
    /// Whether this was the short run: good for a look, not for a claim.
    pub(crate) quick: bool,
    /// Whether the bytes read back were checked.
    pub(crate) verified: bool,
    /// Whether the kernel's names were dropped before they were asked for.
    pub(crate) names_dropped: bool,
    /// One for each workload and number of threads.
    pub(crate) scores: Vec<Score>,
    /// The loss of a server, where that was measured.
    pub(crate) rebuild: Option<Rebuild>,
}

/// The machine.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Host {
    /// Logical processors.
    pub(crate) processors: usize,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Name of the processor, as the kernel tells it.
    pub(crate) processor: String,
}

/// One workload at one number of threads.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Score {
    /// Name of the workload, as in the report.
    pub(crate) workload: String,
    /// Threads that did it.
    pub(crate) threads: u32,
    /// `ops/s` or `MB/s` (a million bytes).
    pub(crate) unit: String,
    /// The median of the rounds.
    pub(crate) median: f64,
    /// Each round in the order run.
    pub(crate) rounds: Vec<f64>,
    /// Of all rounds together.
    pub(crate) latency: Latency,
}

/// Latency of one kind of operation, in microseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    /// Operations counted.
    pub(crate) count: u64,
    /// Arithmetic mean.
    pub(crate) mean: f64,
    /// Half are faster.
    pub(crate) p50: f64,
    /// Nine in ten are faster.
    pub(crate) p90: f64,
    /// All but one in a hundred are faster.
    pub(crate) p99: f64,
    /// All but one in a thousand are faster.
    pub(crate) p999: f64,
    /// The slowest.
    pub(crate) max: f64,
}

/// How redundancy came back after one chunkserver was killed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Rebuild {
    /// Bytes of file data that the killed server held a copy of, about.
    pub(crate) lost_bytes: u64,
    /// Small files that it held a copy of, about.
    pub(crate) lost_small_files: u64,
    /// From the kill to the first of two looks that found nothing below goal.
    pub(crate) seconds: f64,
    /// A plain copy of the same files with fdatasync, in the same run.
    pub(crate) plain_copy_seconds: f64,
    /// Chunks below goal as time went by, a few looks a second.
    pub(crate) below_goal: Vec<Look>,
    /// The foreground's reads of 4 KiB.
    pub(crate) reads: Foreground,
    /// The foreground's creates of 4 KiB files.
    pub(crate) creates: Foreground,
}

/// One look at the cluster's health.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Look {
    /// Seconds since the kill.
    pub(crate) at: f64,
    /// Chunks that are not at their goal.
    pub(crate) below_goal: u64,
}

/// One kind of foreground operation, offered at a fixed rate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Foreground {
    /// Operations offered each second.
    pub(crate) offered: u32,
    /// Latency since each was due, before the kill.
    pub(crate) before: Latency,
    /// Likewise from the kill to full redundancy.
    pub(crate) during: Latency,
    /// Operations that a program saw fail.
    pub(crate) failed: u64,
    /// What the first of those said.
    pub(crate) first_failure: Option<String>,
}

impl Run {
    /// An empty run of `system`, beginning now, on this machine.
    pub(crate) fn new(system: &str, quick: bool) -> Self {
        Self {
            system: system.into(),
            started: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            host: Host::here(),
            quick,
            verified: true,
            names_dropped: true,
            scores: Vec::new(),
            rebuild: None,
        }
    }

    /// Reads what [`Run::write`] wrote.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read(path).doing(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text)
            .map_err(|error| Failure::io(format!("reading {}", path.display()), error.into()))
    }

    /// Writes the run as JSON.
    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        write_json(path, self)
    }
}

/// Writes `value` as readable JSON with a newline at the end.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Outcome<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Failure::io("encoding the results", error.into()))?;
    text.push(b'\n');
    std::fs::write(path, text).doing(|| format!("writing {}", path.display()))
}

impl Host {
    fn here() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let model = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model(&read("/proc/cpuinfo")).unwrap_or_default(),
        }
    }
}

impl Latency {
    /// The summary of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            mean: histogram.mean() / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

/// The middle of `values`, or the mean of the two middles.
pub(crate) fn median(values: &[f64]) -> f64 {
    assert!(!values.is_empty(), "no round, no median");
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crew::{histogram, record};
    use std::time::Duration;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn latencies_are_microseconds() {
        let mut times = histogram();
        for micros in 1..=100 {
            record(&mut times, Duration::from_micros(micros));
        }
        let latency = Latency::of(&times);
        assert_eq!(latency.count, 100);
        assert!((latency.p50 - 50.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99 - 99.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max - 100.0).abs() < 1.0, "{latency:?}");
    }
}
