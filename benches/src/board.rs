//! The scores of one run while its rounds go by.
//!
//! Owns the order of the workloads (that of their first round) and the sums
//! over rounds. Leaves the workloads themselves to their modules and the
//! written form to `score`.

use hdrhistogram::Histogram;

use crate::crew::{Measured, histogram};
use crate::score::{Latency, Score, median};

/// What a value counts, each second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unit {
    /// Operations.
    Operations,
    /// Millions of bytes.
    Megabytes,
}

/// Rounds and latencies of each workload so far.
#[derive(Default)]
pub(crate) struct Board {
    rows: Vec<Row>,
}

struct Row {
    workload: String,
    threads: u32,
    unit: Unit,
    rounds: Vec<f64>,
    latency: Histogram<u64>,
}

impl Board {
    /// Notes a round counted in operations.
    pub(crate) fn operations(&mut self, workload: &str, threads: u32, measured: &Measured) {
        let rate = measured.rate();
        self.note(workload, threads, Unit::Operations, rate, measured);
    }

    /// Notes a round that moved `bytes`.
    pub(crate) fn bytes(&mut self, workload: &str, threads: u32, bytes: u64, measured: &Measured) {
        let rate = bytes as f64 / 1e6 / measured.elapsed.as_secs_f64();
        self.note(workload, threads, Unit::Megabytes, rate, measured);
    }

    /// The scores, medians taken.
    pub(crate) fn scores(&self) -> Vec<Score> {
        self.rows.iter().map(Row::score).collect()
    }

    fn note(&mut self, workload: &str, threads: u32, unit: Unit, rate: f64, measured: &Measured) {
        eprintln!(
            "  {workload:<26} {threads} thr  {rate:>12.1} {}",
            unit.name()
        );
        let same = |row: &Row| row.workload == workload && row.threads == threads;
        let row = match self.rows.iter().position(same) {
            Some(place) => &mut self.rows[place],
            None => self.add_row(workload, threads, unit),
        };
        row.rounds.push(rate);
        row.latency.add(&measured.latency).expect("equal bounds");
    }

    fn add_row(&mut self, workload: &str, threads: u32, unit: Unit) -> &mut Row {
        self.rows.push(Row {
            workload: workload.into(),
            threads,
            unit,
            rounds: Vec::new(),
            latency: histogram(),
        });
        self.rows.last_mut().expect("just pushed")
    }
}

impl Row {
    fn score(&self) -> Score {
        Score {
            workload: self.workload.clone(),
            threads: self.threads,
            unit: self.unit.name().into(),
            median: median(&self.rounds),
            rounds: self.rounds.clone(),
            latency: Latency::of(&self.latency),
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Operations => "ops/s",
            Self::Megabytes => "MB/s",
        }
    }
}
