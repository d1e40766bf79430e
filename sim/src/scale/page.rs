//! The page about a scale run: the same HTML as of other runs, with the health of
//! chunks over time, the rate of the rebuild, and all figures as text.

use super::report::{Sample, ScaleReport};
use crate::host::Verdict;
use crate::network::Nanos;
use crate::page::chart::{Chart, escaped};
use crate::page::figures::{Table, legend, write_figure};
use crate::page::{CLOSING, opening};
use std::fmt::Write;

const HIGH: f64 = 160.0;
/// Around the rebuild so much of its length is drawn.
const MARGIN: f64 = 0.1;

/// A color, and which chunks it stands for.
type Band = (&'static str, fn(&Sample) -> u64);

/// The page's text.
#[must_use]
pub fn page(scenario: &str, report: &ScaleReport) -> String {
    let (name, word) = (escaped(scenario), report.verdict.word());
    let seed = report.plan.seed;
    let mut page = opening(&format!("{name}, seed {seed}: {word}"));
    let class = match report.verdict {
        Verdict::Passed => "passed",
        _ => "failed",
    };
    let _ = writeln!(
        page,
        "<h1>{name}, seed {seed}</h1>\n<p class=\"verdict {class}\">{word}</p>\n<h2>What was \
         played</h2>\n<pre>{}</pre>\n<h2>What came of it</h2>\n<pre>{}</pre>",
        escaped(&report.plan.summary()),
        escaped(&report.lines())
    );
    write_health(&mut page, report);
    write_rate(&mut page, report);
    page.push_str(CLOSING);
    page
}

/// The part of a run that is drawn: from the first loss until everything was whole,
/// as time since the first loss, with some room behind.
fn drawn(report: &ScaleReport) -> (Nanos, Nanos) {
    let first = report.plan.losses.first().map_or(0, |loss| loss.at);
    let whole = report.whole_at.unwrap_or(report.virtual_nanos);
    let length = whole.saturating_sub(first).max(10_000_000_000);
    let end = (length as f64 * (1.0 + MARGIN)) as Nanos;
    (first, end.min(report.virtual_nanos.saturating_sub(first)))
}

fn samples(report: &ScaleReport) -> Vec<(Nanos, Sample)> {
    let (first, length) = drawn(report);
    let inside = report.samples.iter();
    inside
        .filter(|sample| sample.at >= first && sample.at - first <= length)
        .map(|sample| (sample.at - first, *sample))
        .collect()
}

fn write_health(page: &mut String, report: &ScaleReport) {
    let seen = samples(report);
    let (_, length) = drawn(report);
    let most = report.lacking_max + report.lost;
    let share = |count: u64| count as f64 / most.max(1) as f64;
    let mut chart = Chart::new(length, HIGH, &[]);
    let bands: [Band; 3] = [
        ("missing", |one| one.missing),
        ("last", |one| one.one_left),
        ("under", |one| one.under),
    ];
    let mut below = vec![0; seen.len()];
    for (color, count) in bands {
        let points = seen.iter().zip(&mut below).map(|((at, one), below)| {
            let low = *below;
            *below += count(one);
            (*at, share(low), share(*below))
        });
        let points: Vec<(Nanos, f64, f64)> = points.collect();
        chart.area(&points, color);
    }
    chart.level(0.0, "0");
    chart.level(1.0, &most.to_string());
    let text = format!(
        "Chunks that lack copies, by the time since the first loss: at most {most} at once."
    );
    let names = legend(&[
        ("missing", "no copy left"),
        ("last", "one copy left"),
        ("under", "more, but fewer than wanted"),
    ]);
    let rows = seen.iter().map(|(at, one)| {
        let counts = [one.missing, one.one_left, one.under].map(|count| count.to_string());
        let mut row = vec![format!("{:.0} s", *at as f64 / 1e9)];
        row.extend(counts);
        row
    });
    let table = Table {
        head: &["since the loss", "none left", "one left", "more"],
        rows: rows.collect(),
    };
    let svg = chart.finish("health", "Chunks that lack copies", &text);
    write_figure(page, "Health", &text, &format!("{names}{svg}"), &table);
}

fn write_rate(page: &mut String, report: &ScaleReport) {
    let seen = samples(report);
    let (_, length) = drawn(report);
    let rates: Vec<(Nanos, f64, u64)> = seen
        .windows(2)
        .filter(|pair| pair[1].0 > pair[0].0)
        .map(|pair| {
            let made = (pair[1].1.made - pair[0].1.made) as f64;
            let bytes = made * report.plan.chunk_size as f64 / 1e6;
            let seconds = (pair[1].0 - pair[0].0) as f64 / 1e9;
            (pair[1].0, bytes / seconds, pair[1].1.running)
        })
        .collect();
    let most = rates.iter().map(|(_, rate, _)| *rate).fold(1.0, f64::max);
    let mut chart = Chart::new(length, HIGH, &[]);
    chart.level(0.0, "0");
    chart.level(1.0, &format!("{most:.0} MB/s"));
    let points = rates.iter().map(|(at, rate, _)| (*at, rate / most));
    let points: Vec<(Nanos, f64)> = points.collect();
    chart.line(&points, "repair");
    let text = format!(
        "Megabytes a second that repair copied, by the time since the first loss: at most \
         {most:.0}."
    );
    let rows = rates.iter().map(|(at, rate, running)| {
        vec![
            format!("{:.0} s", *at as f64 / 1e9),
            format!("{rate:.0}"),
            running.to_string(),
        ]
    });
    let table = Table {
        head: &["since the loss", "MB/s", "copies in the making"],
        rows: rows.collect(),
    };
    let svg = chart.finish("rate", "The rebuild's rate", &text);
    write_figure(page, "Rebuild", &text, &svg, &table);
}
