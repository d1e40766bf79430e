//! One self-contained page about one run, for people: HTML with inline SVG, no script
//! and nothing from the network, legible in light and dark, with every figure as text
//! too.
//!
//! Owns what is shown and in which order; `figures` and `sites` draw, `chart` knows SVG.

pub(crate) mod chart;
pub(crate) mod figures;
mod sites;

use crate::host::{Report, Verdict};
use chart::escaped;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// What a page is about besides the report.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The scenario's file.
    pub scenario: &'a str,
    /// The options that the seed drew.
    pub options: &'a str,
    /// The command that repeats the run.
    pub repeat: &'a str,
}

/// The page's text. A run that was not observed has no figures.
#[must_use]
pub fn page(about: About<'_>, report: &Report) -> String {
    let (scenario, word) = (escaped(about.scenario), report.verdict.word());
    let mut page = opening(&format!("{scenario}, seed {}: {word}", report.seed));
    write_head(&mut page, &about, report);
    match &report.observed {
        Some(seen) => {
            let own = report.figures.clone().unwrap_or_default();
            figures::write(&mut page, seen, &own);
        }
        None => {
            page.push_str("<p class=\"soft\">The run broke down: there is nothing to draw.</p>\n")
        }
    }
    page.push_str(CLOSING);
    page
}

/// A page up to where its content begins; the title is escaped.
pub(crate) fn opening(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main>\n"
    )
}

/// What ends a page.
pub(crate) const CLOSING: &str = "</main>\n</body>\n</html>\n";

fn write_head(page: &mut String, about: &About<'_>, report: &Report) {
    let class = match report.verdict {
        Verdict::Passed => "passed",
        _ => "failed",
    };
    let _ = writeln!(
        page,
        "<h1>{}, seed {}</h1>\n<p class=\"verdict {class}\">{}</p>",
        escaped(about.scenario),
        report.seed,
        match report.verdict.how() {
            Some(_) => format!("{}: {}", report.verdict.word(), escaped(&report.kind)),
            None => report.verdict.word().to_owned(),
        }
    );
    if let Some(how) = report.verdict.how() {
        let _ = writeln!(page, "<pre>{}</pre>", escaped(how));
    }
    let marks: Vec<&str> = report.marks.iter().map(|mark| mark.name()).collect();
    let (seconds, elapsed) = (
        report.virtual_nanos as f64 / 1e9,
        report.elapsed.as_secs_f64(),
    );
    let facts = [
        (
            "simulated",
            format!("{seconds:.1} s, {} events", report.events),
        ),
        ("took", format!("{elapsed:.2} s")),
        ("programs did", format!("{} steps", report.steps)),
        ("faults that waited", waits(report)),
        ("digest", format!("{:016x}", report.digest)),
        ("marks reached", marks.join(", ")),
        ("repeat with", about.repeat.to_owned()),
    ];
    page.push_str("<dl>\n");
    for (name, value) in facts {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    let _ = writeln!(
        page,
        "</dl>\n<h2>Options drawn</h2>\n<pre>{}</pre>",
        escaped(about.options)
    );
}

/// What became of faults that would have destroyed something for good.
fn waits(report: &Report) -> String {
    let waits = &report.waits;
    match waits.waited + waits.dropped {
        0 => "none".to_owned(),
        _ => format!(
            "{}, up to {:.1} s, until they destroyed nothing for good; {} in vain, which did not \
             strike",
            waits.waited,
            waits.longest as f64 / 1e9,
            waits.dropped
        ),
    }
}
