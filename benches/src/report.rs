//! `report`: what each system did, side by side, with ratios and targets.
//!
//! Owns the table, the targets and the merged JSON. Takes runs as they are: it
//! measures nothing and rounds nothing but what it prints. A pair that was not
//! measured has no ratio.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::score::{Foreground, Latency, Rebuild, Run, Score, write_json};

/// The three systems, by the names `benches/compare` gives them.
const EMPTY: &str = "empty";
const MOOSEFS: &str = "moosefs";
const ANTLER: &str = "antler";

/// What Antler should reach: workload, threads, times MooseFS.
const TARGETS: [(&str, u32, f64); 10] = [
    ("create", 8, 2.0),
    ("create+4KiB+close", 8, 5.0),
    ("stat", 8, 2.0),
    ("open+read+close", 8, 2.0),
    ("sequential write 1MiB", 1, 2.0),
    ("sequential read 1MiB", 1, 2.0),
    ("append 4KiB+fsync", 1, 1.5),
    ("append 4KiB+fsync", 8, 1.5),
    ("overwrite 4KiB+fsync", 1, 1.5),
    ("overwrite 4KiB+fsync", 8, 1.5),
];

/// A rebuild should be this many times as fast as MooseFS's ...
const REBUILD_TIMES: f64 = 4.0;
/// ... or take no longer than a plain copy's time over this.
const REBUILD_OF_COPY: f64 = 0.7;
/// The foreground's p99 may grow this many times while it goes on.
const REBUILD_P99_TIMES: f64 = 3.0;

/// Arguments of `report`.
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// Files that `work` and `rebuild` wrote
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where all of them go in one file, with the ratios
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Prints the table and writes the merged file.
pub(crate) fn report(args: &ReportArgs) -> Outcome<()> {
    let runs: Vec<Run> = args
        .runs
        .iter()
        .map(|path| Run::read(path))
        .collect::<Outcome<_>>()?;
    let merged = Merged::of(runs);
    let table = merged
        .table()
        .map_err(|_| Failure::Wrong("unprintable".into()))?;
    print!("{table}");
    match &args.json {
        Some(path) => write_json(path, &merged),
        None => Ok(()),
    }
}

/// All runs and what follows from them.
#[derive(Serialize)]
struct Merged {
    rows: Vec<Row>,
    rebuild: Option<Verdict>,
    runs: Vec<Run>,
}

/// One workload, all systems.
#[derive(Serialize)]
struct Row {
    workload: String,
    threads: u32,
    unit: String,
    /// Median of each system that did it.
    medians: BTreeMap<String, f64>,
    antler_to_moosefs: Option<f64>,
    antler_to_empty: Option<f64>,
    moosefs_to_empty: Option<f64>,
    /// The ratio to MooseFS that was aimed at.
    target: Option<f64>,
    /// Whether it was reached, where both were measured.
    reached: Option<bool>,
}

/// How Antler's rebuild compares.
#[derive(Serialize)]
struct Verdict {
    /// MooseFS's seconds over Antler's.
    times_moosefs: Option<f64>,
    /// The plain copy's seconds over Antler's.
    of_plain_copy: Option<f64>,
    /// Whether either reaches its target.
    fast_enough: Option<bool>,
    /// The larger growth of p99 of reads and creates.
    p99_times: Option<f64>,
    /// Whether that stays within its target.
    calm_enough: Option<bool>,
}

impl Merged {
    fn of(runs: Vec<Run>) -> Self {
        let mut names: Vec<(String, u32, String)> = Vec::new();
        for score in runs.iter().flat_map(|run| &run.scores) {
            let name = (score.workload.clone(), score.threads, score.unit.clone());
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let rows = names.into_iter().map(|name| Row::of(&runs, name)).collect();
        let rebuild = Verdict::of(&runs);
        Self {
            rows,
            rebuild,
            runs,
        }
    }

    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        self.heading(&mut out)?;
        if !self.rows.is_empty() {
            self.rates(&mut out)?;
            self.latencies(&mut out)?;
        }
        self.rebuilds(&mut out)?;
        Ok(out)
    }

    fn heading(&self, out: &mut String) -> std::fmt::Result {
        if let Some(Run { host, .. }) = self.runs.first() {
            let (processors, kernel) = (host.processors, &host.kernel);
            writeln!(out, "{processors} x {}, Linux {kernel}", host.processor)?;
        }
        for run in &self.runs {
            let caveats = [
                (run.quick, "short run, good for a look only"),
                (!run.verified, "keeps no data, so none was checked"),
                (!run.names_dropped, "kernel's names were not dropped"),
            ];
            for (_, caveat) in caveats.iter().filter(|(holds, _)| *holds) {
                writeln!(out, "{}: {caveat}", run.system)?;
            }
        }
        writeln!(out)
    }

    fn rates(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<24}{:>4} {:<6}{:>10}{:>10}{:>10}{:>10}{:>10}  target",
            "workload", "thr", "unit", EMPTY, MOOSEFS, ANTLER, "/moosefs", "/empty"
        )?;
        self.rows.iter().try_for_each(|row| row.line(out))?;
        writeln!(out)
    }

    fn latencies(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{:<24}{:>4} {:<9}{:>12}{:>12}{:>12}",
            "latency, microseconds", "thr", "system", "p50", "p99", "max"
        )?;
        for row in &self.rows {
            for system in [EMPTY, MOOSEFS, ANTLER] {
                if let Some(score) = find(&self.runs, system, &row.workload, row.threads) {
                    latency_line(out, system, score)?;
                }
            }
        }
        writeln!(out)
    }

    fn rebuilds(&self, out: &mut String) -> std::fmt::Result {
        for run in &self.runs {
            if let Some(rebuild) = &run.rebuild {
                rebuild_lines(out, &run.system, rebuild)?;
            }
        }
        self.rebuild
            .as_ref()
            .map_or(Ok(()), |verdict| verdict.lines(out))
    }
}

impl Row {
    fn of(runs: &[Run], (workload, threads, unit): (String, u32, String)) -> Self {
        let median = |system| find(runs, system, &workload, threads).map(|score| score.median);
        let (empty, moosefs, antler) = (median(EMPTY), median(MOOSEFS), median(ANTLER));
        let antler_to_moosefs = ratio(antler, moosefs);
        let target = TARGETS
            .iter()
            .find(|(name, thr, _)| *name == workload && *thr == threads);
        let target = target.map(|(_, _, times)| *times);
        let reached = antler_to_moosefs
            .zip(target)
            .map(|(times, target)| times >= target);
        let systems = runs.iter().map(|run| run.system.as_str());
        let medians = systems.filter_map(|name| Some((name.to_owned(), median(name)?)));
        Self {
            medians: medians.collect(),
            antler_to_moosefs,
            antler_to_empty: ratio(antler, empty),
            moosefs_to_empty: ratio(moosefs, empty),
            target,
            reached,
            workload,
            threads,
            unit,
        }
    }

    fn line(&self, out: &mut String) -> std::fmt::Result {
        let rate = |system| shown(self.medians.get(system).copied(), 0);
        let target = self.target.map_or_else(String::new, |times| {
            let reached = self
                .reached
                .map_or("", |reached| if reached { " ok" } else { " missed" });
            format!(">= {times}{reached}")
        });
        writeln!(
            out,
            "{:<24}{:>4} {:<6}{:>10}{:>10}{:>10}{:>10}{:>10}  {target}",
            self.workload,
            self.threads,
            self.unit,
            rate(EMPTY),
            rate(MOOSEFS),
            rate(ANTLER),
            shown(self.antler_to_moosefs, 2),
            shown(self.antler_to_empty, 2),
        )
    }
}

impl Verdict {
    fn of(runs: &[Run]) -> Option<Self> {
        let rebuild = |system| {
            let of_system = runs.iter().filter(|run| run.system == system);
            of_system.filter_map(|run| run.rebuild.as_ref()).next_back()
        };
        let antler: Option<&Rebuild> = rebuild(ANTLER);
        let antler = antler?;
        let times_moosefs = rebuild(MOOSEFS).map(|moosefs| moosefs.seconds / antler.seconds);
        let of_plain_copy = antler.plain_copy_seconds / antler.seconds;
        let p99_times = p99_growth(&antler.reads).max(p99_growth(&antler.creates));
        let fast = times_moosefs.is_some_and(|times| times >= REBUILD_TIMES);
        Some(Self {
            times_moosefs,
            of_plain_copy: Some(of_plain_copy),
            fast_enough: Some(fast || of_plain_copy >= REBUILD_OF_COPY),
            p99_times: Some(p99_times),
            calm_enough: Some(p99_times <= REBUILD_P99_TIMES),
        })
    }

    fn lines(&self, out: &mut String) -> std::fmt::Result {
        let said = |reached| {
            if reached == Some(true) {
                "ok"
            } else {
                "missed"
            }
        };
        writeln!(
            out,
            "antler's rebuild: {} times as fast as moosefs's, {} of a plain copy's speed \
             (target: {REBUILD_TIMES} or {REBUILD_OF_COPY}): {}",
            shown(self.times_moosefs, 2),
            shown(self.of_plain_copy, 2),
            said(self.fast_enough)
        )?;
        writeln!(
            out,
            "antler's foreground p99: {} times that of before (target: at most \
             {REBUILD_P99_TIMES}): {}",
            shown(self.p99_times, 2),
            said(self.calm_enough)
        )
    }
}

fn find<'a>(runs: &'a [Run], system: &str, workload: &str, threads: u32) -> Option<&'a Score> {
    let mut scores = runs
        .iter()
        .filter(|run| run.system == system)
        .flat_map(|run| &run.scores);
    scores.rfind(|score| score.workload == workload && score.threads == threads)
}

fn ratio(of: Option<f64>, to: Option<f64>) -> Option<f64> {
    of.zip(to).map(|(of, to)| of / to)
}

fn p99_growth(load: &Foreground) -> f64 {
    load.during.p99 / load.before.p99
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

fn latency_line(out: &mut String, system: &str, score: &Score) -> std::fmt::Result {
    let Latency { p50, p99, max, .. } = score.latency;
    writeln!(
        out,
        "{:<24}{:>4} {system:<9}{p50:>12.1}{p99:>12.1}{max:>12.1}",
        score.workload, score.threads
    )
}

fn rebuild_lines(out: &mut String, system: &str, rebuild: &Rebuild) -> std::fmt::Result {
    let megabytes = rebuild.lost_bytes as f64 / 1e6;
    let worst = rebuild.below_goal.iter().map(|look| look.below_goal).max();
    writeln!(
        out,
        "{system}: about {megabytes:.0} MB and {} small files lost, {} chunks below goal; \
         redundant after {:.1} s ({:.0} MB/s), plain copy {:.1} s",
        rebuild.lost_small_files,
        worst.unwrap_or(0),
        rebuild.seconds,
        megabytes / rebuild.seconds,
        rebuild.plain_copy_seconds
    )?;
    for (name, load) in [("reads", &rebuild.reads), ("creates", &rebuild.creates)] {
        for (phase, latency) in [("before", &load.before), ("during", &load.during)] {
            writeln!(
                out,
                "  {name:<8}{phase:<7} p50 {:>10.1}  p99 {:>10.1}  max {:>12.1} us ({} of {}/s)",
                latency.p50, latency.p99, latency.max, latency.count, load.offered
            )?;
        }
        if let Some(first) = &load.first_failure {
            writeln!(out, "  {name} that failed: {}, first: {first}", load.failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crew::histogram;

    fn run(system: &str, workload: &str, threads: u32, median: f64) -> Run {
        let mut run = Run::new(system, false);
        run.scores.push(Score {
            workload: workload.into(),
            threads,
            unit: "ops/s".into(),
            median,
            rounds: vec![median],
            latency: Latency::of(&histogram()),
        });
        run
    }

    fn rebuild(system: &str, seconds: f64, plain: f64, during: f64) -> Run {
        let latency = |p99| Latency {
            p99,
            ..Latency::of(&histogram())
        };
        let load = Foreground {
            offered: 100,
            before: latency(100.0),
            during: latency(during),
            failed: 0,
            first_failure: None,
        };
        let mut run = Run::new(system, false);
        run.rebuild = Some(Rebuild {
            lost_bytes: 1 << 30,
            lost_small_files: 10,
            seconds,
            plain_copy_seconds: plain,
            below_goal: Vec::new(),
            reads: load.clone(),
            creates: load,
        });
        run
    }

    #[test]
    fn a_target_is_reached_or_missed_only_where_both_were_measured() {
        let merged = Merged::of(vec![
            run("moosefs", "create", 8, 100.0),
            run("antler", "create", 8, 199.0),
        ]);
        assert_eq!(merged.rows[0].antler_to_moosefs, Some(1.99));
        assert_eq!(merged.rows[0].reached, Some(false));
        assert!(
            merged
                .table()
                .expect("a string takes all")
                .contains("missed")
        );

        let alone = Merged::of(vec![run("antler", "create", 8, 199.0)]);
        assert_eq!(alone.rows[0].reached, None);
        assert!(
            !alone
                .table()
                .expect("a string takes all")
                .contains("missed")
        );
    }

    #[test]
    fn every_target_names_a_workload_by_its_real_name() {
        let sources = [
            include_str!("names.rs"),
            include_str!("bulk.rs"),
            include_str!("synced.rs"),
        ];
        for (workload, _, _) in TARGETS {
            let quoted = format!("\"{workload}\"");
            assert!(
                sources.iter().any(|source| source.contains(&quoted)),
                "{workload}"
            );
        }
    }

    #[test]
    fn a_rebuild_may_be_fast_in_either_way() {
        let fast = |runs: &[Run]| Verdict::of(runs).expect("antler is there").fast_enough;
        let moosefs = rebuild("moosefs", 40.0, 5.0, 100.0);
        assert_eq!(
            fast(&[moosefs.clone(), rebuild("antler", 10.0, 5.0, 100.0)]),
            Some(true)
        );
        assert_eq!(
            fast(&[moosefs.clone(), rebuild("antler", 11.0, 5.0, 100.0)]),
            Some(false)
        );
        assert_eq!(
            fast(&[moosefs, rebuild("antler", 11.0, 8.0, 100.0)]),
            Some(true)
        );
    }

    #[test]
    fn a_restless_foreground_is_named() {
        let verdict = Verdict::of(&[rebuild("antler", 1.0, 1.0, 301.0)]).expect("antler is there");
        assert_eq!(verdict.calm_enough, Some(false));
    }
}
