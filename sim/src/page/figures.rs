//! The figures of a page: faults and nodes that were away, the health of chunks,
//! latencies of each site, copies made, and where parts lay; each with a sentence that
//! says what it shows, and a table of the same numbers.

use super::chart::{Chart, escaped};
use super::sites;
use crate::figures::{Figures, histogram};
use crate::network::Nanos;
use crate::observe::{Answered, Health, Kind, Observed};
use crate::plan::year;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Height of a row, and of a chart that has none.
pub(super) const ROW: f64 = 20.0;
pub(super) const HIGH: f64 = 160.0;
/// Faults that are drawn; all are in the table.
const ROWS_MAX: usize = 40;
/// How many steps of time latencies and copies are put into.
const BUCKETS: u64 = 40;

/// A table: its head, and its rows. Numbers are recognised and put to the right.
pub(crate) struct Table<'a> {
    pub(crate) head: &'a [&'a str],
    pub(crate) rows: Vec<Vec<String>>,
}

pub(super) fn write(page: &mut String, seen: &Observed, figures: &Figures) {
    sites::write_year(page, seen);
    write_faults(page, seen);
    write_nodes(page, seen);
    write_health(page, seen);
    sites::write_losses(page, seen, figures);
    sites::write_available(page, seen, figures);
    write_latencies(page, seen);
    write_copies(page, seen);
    sites::write_by_site(page, seen);
    write_places(page, seen);
}

pub(super) fn seconds(at: Nanos) -> String {
    format!("{:.2} s", at as f64 / 1e9)
}

/// A duration with a unit that suits it.
pub(super) fn short(nanos: f64) -> String {
    match nanos {
        n if n < 1e6 => format!("{:.0} µs", n / 1e3),
        n if n < 1e9 => format!("{:.1} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

pub(crate) fn write_figure(
    page: &mut String,
    title: &str,
    text: &str,
    inside: &str,
    table: &Table<'_>,
) {
    let (title, text) = (escaped(title), escaped(text));
    let _ = writeln!(
        page,
        "<h2>{title}</h2>\n<figure>\n<figcaption>{text}</figcaption>\n{inside}"
    );
    if !table.rows.is_empty() {
        page.push_str(
            "<details><summary>The same as a table</summary>\n<div class=\"scroll\"><table>\n",
        );
        write_row(page, "th", table.head.iter().copied());
        for row in &table.rows {
            write_row(page, "td", row.iter().map(String::as_str));
        }
        page.push_str("</table></div></details>\n");
    }
    page.push_str("</figure>\n");
}

fn write_row<'a>(page: &mut String, tag: &str, cells: impl Iterator<Item = &'a str>) {
    page.push_str("<tr>");
    for cell in cells {
        let number = cell.starts_with(|c: char| c.is_ascii_digit());
        let class = if number { " class=\"n\"" } else { "" };
        let _ = write!(page, "<{tag}{class}>{}</{tag}>", escaped(cell));
    }
    page.push_str("</tr>\n");
}

pub(crate) fn legend(entries: &[(&str, &str)]) -> String {
    let mut legend = "<ul class=\"legend\">".to_owned();
    for (color, name) in entries {
        let _ = write!(
            legend,
            "<li><span style=\"background:var(--{color})\"></span>{}</li>",
            escaped(name)
        );
    }
    legend.push_str("</ul>\n");
    legend
}

fn write_faults(page: &mut String, seen: &Observed) {
    let count = seen.faults.len();
    if count == 0 {
        page.push_str("<h2>Faults</h2>\n<p>Nothing was broken on purpose.</p>\n");
        return;
    }
    let shown = &seen.faults[..count.min(ROWS_MAX)];
    let mut chart = Chart::of(seen, ROW * shown.len() as f64);
    for (at, fault) in shown.iter().enumerate() {
        let top = ROW * at as f64;
        chart.label(top + ROW / 2.0, &fault.what);
        let until = fault.ended.unwrap_or(seen.ended);
        let date = fault
            .date
            .map_or_else(String::new, |date| year::shown(date) + ": ");
        let what = format!("{date}{} hits {}", fault.what, fault.targets.join(", "));
        let fill = "rx=\"2\" fill=\"var(--fault)\"";
        chart.bar((fault.begun, until), top + 4.0, ROW - 8.0, fill, &what);
    }
    let rows = seen.faults.iter().map(|fault| {
        vec![
            fault.date.map_or_else(String::new, year::shown),
            seconds(fault.begun),
            fault.ended.map_or_else(|| "for good".to_owned(), seconds),
            fault.what.clone(),
            fault.targets.join(", "),
        ]
    });
    let table = Table {
        head: &["date", "from", "to", "what", "hit"],
        rows: rows.collect(),
    };
    let first = &seen.faults[0];
    let text = format!(
        "{count} faults struck, the first ({}) at {}.",
        first.what,
        seconds(first.begun)
    );
    let svg = chart.finish("faults", "Faults over time", &text);
    write_figure(page, "Faults", &text, &svg, &table);
}

fn write_nodes(page: &mut String, seen: &Observed) {
    let mut chart = Chart::of(seen, ROW * seen.nodes.len() as f64);
    let mut rows = Vec::new();
    let mut longest: Option<(Nanos, &str)> = None;
    for (at, node) in seen.nodes.iter().enumerate() {
        let top = ROW * at as f64;
        chart.label(
            top + ROW / 2.0,
            &format!("{} ({})", node.name, seen.site(node.site)),
        );
        let lane = "fill=\"var(--line)\"";
        chart.bar(
            (0, seen.ended),
            top + ROW / 2.0 - 1.0,
            2.0,
            lane,
            &node.name,
        );
        for (from, to) in &node.away {
            let until = to.unwrap_or(seen.ended);
            let what = format!(
                "{} away from {} to {}",
                node.name,
                seconds(*from),
                seconds(until)
            );
            let fill = "rx=\"2\" fill=\"var(--away)\"";
            chart.bar((*from, until), top + 4.0, ROW - 8.0, fill, &what);
            longest = longest.max(Some((until - from, &node.name)));
            let to = to.map_or("the end".to_owned(), seconds);
            rows.push(vec![node.name.clone(), seconds(*from), to]);
        }
    }
    let text = match longest {
        Some((nanos, name)) => format!(
            "When no process of a node ran, {} times in all; {name} was away longest, for {}.",
            rows.len(),
            seconds(nanos)
        ),
        None => "Every node ran all the time.".to_owned(),
    };
    let svg = chart.finish("nodes", "Nodes that were away", &text);
    let table = Table {
        head: &["node", "from", "to"],
        rows,
    };
    write_figure(page, "Nodes", &text, &svg, &table);
}

/// The classes of health from the worst up: colour, name, and how many.
type Class = (&'static str, &'static str, fn(&Health) -> u64);
const CLASSES: [Class; 5] = [
    ("missing", "no copy in reach", |health| health.missing),
    ("last", "one copy left of several", |health| health.last),
    ("under", "some copies missing", |health| health.under),
    ("written", "being written or settled", |health| {
        health.written
    }),
    ("full", "all copies", |health| health.full),
];

fn write_health(page: &mut String, seen: &Observed) {
    let total = |health: &Health| CLASSES.iter().map(|(.., count)| count(health)).sum::<u64>();
    let most = seen.health.iter().map(total).max().unwrap_or(0).max(1);
    // The mark in the middle is a whole number too.
    let top = most.next_multiple_of(2) as f64;
    let mut chart = Chart::of(seen, HIGH);
    let mut below = vec![0; seen.health.len()];
    for (color, _, count) in CLASSES {
        let points = seen.health.iter().zip(&mut below).map(|(health, below)| {
            let low = *below;
            *below += count(health);
            (health.at, low as f64 / top, *below as f64 / top)
        });
        let points: Vec<_> = points.collect();
        if points.iter().any(|(_, low, high)| high > low) {
            chart.area(&points, color);
        }
    }
    for share in [0.0, 0.5, 1.0] {
        chart.level(share, &format!("{:.0} chunks", top * share));
    }
    for fault in seen.faults.iter().filter(|fault| fault.loss.is_some()) {
        chart.mark(fault.begun, &fault.what);
    }
    let worst = |count: fn(&Health) -> u64| seen.health.iter().map(count).max().unwrap_or(0);
    let text = format!(
        "Up to {most} chunks; at the worst moments {} had no copy in reach, {} one copy left of \
         several, {} some copies missing. At the end {} had all.{}",
        worst(|health| health.missing),
        worst(|health| health.last),
        worst(|health| health.under),
        seen.health.last().map_or(0, |health| health.full),
        match seen.faults.iter().any(|fault| fault.loss.is_some()) {
            true => " A line marks each disk that was lost.",
            false => "",
        }
    );
    let rows = seen
        .health
        .iter()
        .step_by(seen.health.len().div_ceil(60).max(1))
        .map(|health| {
            let counts = CLASSES.iter().map(|(.., count)| count(health).to_string());
            std::iter::once(seconds(health.at)).chain(counts).collect()
        });
    let mut head = vec!["at"];
    head.extend(CLASSES.iter().map(|(_, name, _)| *name));
    let table = Table {
        head: &head,
        rows: rows.collect(),
    };
    let legend = legend(&CLASSES.map(|(color, name, _)| (color, name)));
    let svg = chart.finish("health", "Chunks by redundancy over time", &text);
    write_figure(
        page,
        "Chunks by redundancy",
        &text,
        &(legend + &svg),
        &table,
    );
}

/// The percentiles that are drawn: colour, name, and which.
const PERCENTILES: [(&str, &str, f64); 3] = [
    ("p50", "median", 50.0),
    ("p90", "90 %", 90.0),
    ("p99", "99 %", 99.0),
];

fn write_latencies(page: &mut String, seen: &Observed) {
    let mut sites: BTreeMap<u64, Vec<&Answered>> = BTreeMap::new();
    for answer in &seen.answers {
        sites.entry(answer.site).or_default().push(answer);
    }
    for (site, answers) in sites {
        write_latency(page, seen, site, &answers);
    }
}

fn write_latency(page: &mut String, seen: &Observed, site: u64, answers: &[&Answered]) {
    let step = (seen.ended / BUCKETS).max(1);
    let mut buckets: BTreeMap<u64, Vec<&Answered>> = BTreeMap::new();
    for answer in answers {
        buckets.entry(answer.asked / step).or_default().push(answer);
    }
    let buckets: Vec<(Nanos, Histogram<u64>)> = buckets
        .into_iter()
        .map(|(at, answers)| (at * step + step / 2, histogram(answers.into_iter())))
        .collect();
    let all = histogram(answers.iter().copied());
    let mut chart = Chart::of(seen, HIGH);
    let scale = Scale::of(&all);
    for decade in scale.decades() {
        chart.level(scale.share(decade), &short(decade));
    }
    for (color, _, percentile) in PERCENTILES {
        let points = buckets.iter().map(|(at, histogram)| {
            let nanos = histogram.value_at_percentile(percentile);
            (*at, scale.share(nanos as f64))
        });
        chart.line(&points.collect::<Vec<_>>(), color);
    }
    let text = format!(
        "How long {} requests of the mounts in {} took, by when they were asked: half of \
         them up to {}, 99 % up to {}, the longest {}{}.",
        answers.len(),
        seen.site(site),
        short(all.value_at_percentile(50.0) as f64),
        short(all.value_at_percentile(99.0) as f64),
        short(all.max() as f64),
        match seen.unanswered {
            0 => String::new(),
            count => format!("; of all sites {count} were never answered, as their mounts died"),
        }
    );
    let legend = legend(&PERCENTILES.map(|(color, name, _)| (color, name)));
    let title = format!("Latency in {}", seen.site(site));
    let svg = chart.finish(&format!("latency-{site}"), &title, &text);
    let table = latency_table(answers);
    write_figure(page, &title, &text, &(legend + &svg), &table);
}

fn latency_table(answers: &[&Answered]) -> Table<'static> {
    let kinds = [Kind::Names, Kind::Reads, Kind::Writes, Kind::Syncs];
    let rows = kinds.into_iter().filter_map(|kind| {
        let own = answers.iter().filter(|answer| answer.kind == kind);
        let histogram = histogram(own.copied());
        if histogram.is_empty() {
            return None;
        }
        let at = |percentile| short(histogram.value_at_percentile(percentile) as f64);
        Some(vec![
            kind.name().to_owned(),
            histogram.len().to_string(),
            at(50.0),
            at(90.0),
            at(99.0),
            short(histogram.max() as f64),
        ])
    });
    Table {
        head: &["requests", "how many", "median", "90 %", "99 %", "longest"],
        rows: rows.collect(),
    }
}

/// A logarithmic scale from one power of ten to another.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(histogram: &Histogram<u64>) -> Self {
        let power = |nanos: u64| (nanos.max(1) as f64).log10();
        let low = power(histogram.min().max(1000)).floor() as i32;
        let high = power(histogram.max().max(1000)).ceil() as i32;
        Self {
            low,
            high: high.max(low + 1),
        }
    }

    fn share(&self, nanos: f64) -> f64 {
        (nanos.max(1.0).log10() - f64::from(self.low)) / f64::from(self.high - self.low)
    }

    fn decades(&self) -> Vec<f64> {
        (self.low..=self.high)
            .map(|power| 10f64.powi(power))
            .collect()
    }
}

fn write_copies(page: &mut String, seen: &Observed) {
    if seen.copied.is_empty() {
        page.push_str("<h2>Repair</h2>\n<p>No copy had to be made.</p>\n");
        return;
    }
    let step = (seen.ended / BUCKETS).max(1);
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for at in &seen.copied {
        *counts.entry(at / step).or_default() += 1;
    }
    let rate = |count: u64| count as f64 * 1e9 / step as f64;
    let most = counts.values().copied().map(rate).fold(0.0, f64::max);
    let mut chart = Chart::of(seen, HIGH / 2.0);
    for share in [0.0, 1.0] {
        chart.level(share, &format!("{:.1} a second", most * share));
    }
    let mut rows = Vec::new();
    for (at, count) in &counts {
        let height = rate(*count) / most * HIGH / 2.0;
        let what = format!("{count} copies from {}", seconds(at * step));
        let fill = "fill=\"var(--repair)\"";
        let span = (at * step, (at + 1) * step - step / 8);
        chart.bar(span, HIGH / 2.0 - height, height, fill, &what);
        rows.push(vec![
            seconds(at * step),
            count.to_string(),
            format!("{:.1}", rate(*count)),
        ]);
    }
    let text = format!(
        "{} copies were made from others, the last at {}; at most {most:.1} a second.",
        seen.copied.len(),
        seconds(seen.copied.last().copied().unwrap_or(0)),
    );
    let svg = chart.finish("repair", "Copies made over time", &text);
    let table = Table {
        head: &["from", "copies", "a second"],
        rows,
    };
    write_figure(page, "Repair", &text, &svg, &table);
}

fn write_places(page: &mut String, seen: &Observed) {
    let servers: Vec<_> = seen.nodes.iter().filter(|node| node.stores).collect();
    let most = seen
        .stored
        .iter()
        .flat_map(|(_, parts)| parts.iter().flatten());
    let most = most.copied().max().unwrap_or(0).max(1);
    let mut chart = Chart::of(seen, ROW * servers.len() as f64);
    let mut rows = Vec::new();
    for (row, server) in servers.iter().enumerate() {
        let top = ROW * row as f64;
        chart.label(
            top + ROW / 2.0,
            &format!("{} ({})", server.name, seen.site(server.site)),
        );
        for (from, until, parts) in runs(seen, row) {
            let share = 0.12 + 0.88 * parts as f64 / most as f64;
            let fill = format!(
                "fill=\"var(--heat)\" fill-opacity=\"{share:.2}\" shape-rendering=\"crispEdges\""
            );
            let what = format!("{}: {parts} parts from {}", server.name, seconds(from));
            chart.bar((from, until), top + 2.0, ROW - 4.0, &fill, &what);
        }
        let last = seen.stored.iter().rev().find_map(|(_, parts)| parts[row]);
        let own = seen.stored.iter().filter_map(|(_, parts)| parts[row]).max();
        rows.push(vec![
            server.name.clone(),
            seen.site(server.site),
            own.unwrap_or(0).to_string(),
            last.unwrap_or(0).to_string(),
        ]);
    }
    let text = format!(
        "Parts on each chunkserver, the more the stronger, at most {most}; blank while it was away."
    );
    let svg = chart.finish("places", "Where the data was over time", &text);
    let table = Table {
        head: &["chunkserver", "place", "parts at most", "at the end"],
        rows,
    };
    write_figure(page, "Where the data was", &text, &svg, &table);
}

/// Spans of time in which a chunkserver held the same number of parts.
fn runs(seen: &Observed, row: usize) -> Vec<(Nanos, Nanos, u64)> {
    let mut runs: Vec<(Nanos, Nanos, u64)> = Vec::new();
    for (at, (from, parts)) in seen.stored.iter().enumerate() {
        let until = seen
            .stored
            .get(at + 1)
            .map_or(seen.ended, |(next, _)| *next);
        let Some(count) = parts[row] else { continue };
        match runs.last_mut() {
            Some((_, end, same)) if *end == *from && *same == count => *end = until,
            _ => runs.push((*from, until, count)),
        }
    }
    runs
}
