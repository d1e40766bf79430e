//! The figures that an operator asks for: how available each site was, how soon
//! redundancy was back after each disk that was lost, and at which site the data was.

use super::chart::Chart;
use super::figures::{HIGH, ROW, Table, legend, seconds, short, write_figure};
use crate::figures::{Figures, Loss, SiteFigures, percent};
use crate::network::Nanos;
use crate::observe::Observed;
use std::fmt::Write;

/// The colours of sites, in turn.
const COLORS: [&str; 6] = ["p50", "p99", "full", "p90", "under", "away"];

/// What was played of a year, and how the axes below show it.
pub(super) fn write_year(page: &mut String, seen: &Observed) {
    let Some(year) = &seen.year else { return };
    let left_out = year.stretches.iter().filter(|one| one.played < one.lasts);
    let _ = writeln!(
        page,
        "<h2>The year</h2>\n<p>{year}: of {} of its {} stretches between two events the beginning. \
         The axes below show days of the year, each as wide as it was played; times are of the \
         run.</p>",
        left_out.count(),
        year.stretches.len()
    );
}

pub(super) fn write_available(page: &mut String, seen: &Observed, figures: &Figures) {
    let sites = &figures.sites;
    if sites.is_empty() {
        return;
    }
    let mut chart = Chart::of(seen, ROW * sites.len() as f64);
    for (row, site) in sites.iter().enumerate() {
        draw_site(&mut chart, seen, (row, site), figures.within);
    }
    let rows = sites.iter().map(|site| {
        vec![
            site.name.clone(),
            percent(site.available),
            percent(site.available_played),
            site.answered.to_string(),
            short(site.p99_reads as f64),
            short(site.p99_writes as f64),
        ]
    });
    let table = Table {
        head: &[
            "site",
            "available",
            "in what was played",
            "requests",
            "99 % of reads",
            "99 % of writes",
        ],
        rows: rows.collect(),
    };
    let shares = sites.iter();
    let shares = shares.map(|site| format!("{} {}", site.name, percent(site.available)));
    let text = format!(
        "The share of what programs of each site asked that was answered within {}: {}. Marked is \
         when a request waited for longer.",
        short(figures.within as f64),
        shares.collect::<Vec<_>>().join(", ")
    );
    let svg = chart.finish("available", "Availability of each site", &text);
    write_figure(page, "Availability", &text, &svg, &table);
}

fn draw_site(
    chart: &mut Chart,
    seen: &Observed,
    (row, site): (usize, &SiteFigures),
    within: Nanos,
) {
    let top = ROW * row as f64;
    chart.label(
        top + ROW / 2.0,
        &format!("{} {}", site.name, percent(site.available)),
    );
    let (lane, middle) = ("fill=\"var(--line)\"", top + ROW / 2.0 - 1.0);
    chart.bar((0, seen.ended), middle, 2.0, lane, &site.name);
    let late = seen
        .answers
        .iter()
        .filter(|one| seen.site(one.site) == site.name && (one.failed || one.took > within));
    for (from, to) in joined(late.map(|one| (one.asked, one.asked + one.took))) {
        let what = format!(
            "{}: waited from {} to {}",
            site.name,
            seconds(from),
            seconds(to)
        );
        let fill = "rx=\"2\" fill=\"var(--missing)\"";
        chart.bar((from, to), top + 4.0, ROW - 8.0, fill, &what);
    }
}

/// Spans without those that lie within others.
fn joined(spans: impl Iterator<Item = (Nanos, Nanos)>) -> Vec<(Nanos, Nanos)> {
    let mut spans: Vec<(Nanos, Nanos)> = spans.collect();
    spans.sort_unstable();
    let mut joined: Vec<(Nanos, Nanos)> = Vec::new();
    for (from, to) in spans {
        match joined.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(*end),
            _ => joined.push((from, to)),
        }
    }
    joined
}

pub(super) fn write_losses(page: &mut String, seen: &Observed, figures: &Figures) {
    let losses = &figures.losses;
    if losses.is_empty() {
        return;
    }
    let mut chart = Chart::of(seen, HIGH);
    let took = losses.iter().filter_map(|loss| loss.full_after).max();
    let most = took.unwrap_or(0).max(1_000_000_000) as f64;
    for share in [0.0, 0.5, 1.0] {
        chart.level(share, &short(most * share));
    }
    for loss in losses {
        let height = loss.full_after.map_or(most, |took| took as f64) / most * HIGH;
        let color = match loss.full_after {
            Some(_) => "repair",
            None => "missing",
        };
        let fill = format!("fill=\"var(--{color})\"");
        let wide = (loss.at, loss.at + seen.ended / 200);
        chart.bar(wide, HIGH - height, height, &fill, &told(loss));
    }
    let rows = losses.iter().map(|loss| {
        vec![
            seconds(loss.at),
            loss.what.clone(),
            loss.chunks.to_string(),
            loss.full_after
                .map_or_else(|| "never".to_owned(), |took| short(took as f64)),
        ]
    });
    let table = Table {
        head: &["at", "what", "chunks on it", "all copies again after"],
        rows: rows.collect(),
    };
    let chunks: u64 = losses.iter().map(|loss| loss.chunks).sum();
    let text = format!(
        "{} disks were lost with {chunks} copies of chunks on them; how long it took until all of \
         those were made again, {} at most, counted from the last fault that began or ended \
         meanwhile.",
        losses.len(),
        took.map_or_else(|| "never".to_owned(), |took| short(took as f64)),
    );
    let svg = chart.finish("losses", "Time to full redundancy after each loss", &text);
    write_figure(page, "Time to full redundancy", &text, &svg, &table);
}

fn told(loss: &Loss) -> String {
    match loss.full_after {
        Some(took) => format!("{}: full again after {}", loss.what, short(took as f64)),
        None => format!("{}: not full again", loss.what),
    }
}

/// The parts at each site over time.
pub(super) fn write_by_site(page: &mut String, seen: &Observed) {
    let stores = seen.nodes.iter().filter(|node| node.stores);
    let places: Vec<u64> = stores.map(|node| node.site).collect();
    let mut sites = places.clone();
    sites.sort_unstable();
    sites.dedup();
    if sites.len() < 2 {
        return;
    }
    let at_site = |parts: &[Option<u64>], site: u64| -> u64 {
        let own = parts
            .iter()
            .zip(&places)
            .filter(|(_, place)| **place == site);
        own.filter_map(|(parts, _)| *parts).sum()
    };
    let looks = seen.stored.iter();
    let most = looks.flat_map(|(_, parts)| sites.iter().map(|site| at_site(parts, *site)));
    let most = most.max().unwrap_or(0).max(1).next_multiple_of(2) as f64;
    let mut chart = Chart::of(seen, HIGH);
    for share in [0.0, 0.5, 1.0] {
        chart.level(share, &format!("{:.0} parts", most * share));
    }
    let step = seen.stored.len().div_ceil(300).max(1);
    let shown: Vec<&(Nanos, Vec<Option<u64>>)> = seen.stored.iter().step_by(step).collect();
    for (number, site) in sites.iter().enumerate() {
        let points = shown.iter();
        let points = points.map(|(at, parts)| (*at, at_site(parts, *site) as f64 / most));
        chart.steps(&points.collect::<Vec<_>>(), COLORS[number % COLORS.len()]);
    }
    let names: Vec<String> = sites.iter().map(|site| seen.site(*site)).collect();
    let mut head = vec!["at"];
    head.extend(names.iter().map(String::as_str));
    let rows = shown
        .iter()
        .step_by(shown.len().div_ceil(60).max(1))
        .map(|(at, parts)| {
            let counts = sites.iter().map(|site| at_site(parts, *site).to_string());
            std::iter::once(seconds(*at)).chain(counts).collect()
        });
    let table = Table {
        head: &head,
        rows: rows.collect(),
    };
    let colors = COLORS.iter().cycle();
    let entries: Vec<(&str, &str)> = colors
        .zip(&names)
        .map(|(color, name)| (*color, name.as_str()))
        .collect();
    let text = "Parts on the chunkservers of each site that were there; what is on a server that \
                is away does not count.";
    let svg = chart.finish("by-site", "Parts at each site over time", text);
    write_figure(
        page,
        "Where the data was, by site",
        text,
        &(legend(&entries) + &svg),
        &table,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_that_touch_are_one() {
        let spans = [(5, 7), (1, 3), (2, 4), (4, 5), (9, 10)];
        assert_eq!(joined(spans.into_iter()), [(1, 7), (9, 10)]);
    }
}
