//! `curves`: the table of several rebuilds, and a drawing of how redundancy came back.
//!
//! Owns how that is shown; the figures are `rebuild`'s. The drawing is one SVG file without
//! references, the chunks below goal over the seconds since the loss, each rebuild against
//! its own worst moment, so that layouts of different numbers of chunks compare.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::failure::{Doing, Failure, Outcome};
use crate::score::{Foreground, Rebuild, Run};

/// The drawing's size, and the margins that its axes need, in pixels.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 48.0;

/// Told apart by those who see no red or green, too.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Arguments of `curves`.
#[derive(Args)]
pub(crate) struct CurvesArgs {
    /// Results of `rebuild`
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Where the drawing goes
    #[arg(long)]
    svg: PathBuf,
}

/// Prints the table and draws.
pub(crate) fn curves(args: &CurvesArgs) -> Outcome<()> {
    let mut rebuilds = Vec::new();
    for path in &args.runs {
        let run = Run::read(path)?;
        let none = || Failure::Command(format!("{} has no rebuild", path.display()));
        rebuilds.push((run.system, run.rebuild.ok_or_else(none)?));
    }
    print!("{}", table(&rebuilds));
    let doing = || format!("writing {}", args.svg.display());
    fs::write(&args.svg, drawing(&rebuilds)).doing(doing)
}

/// One line for each rebuild; latencies in milliseconds.
fn table(rebuilds: &[(String, Rebuild)]) -> String {
    let mut out = format!(
        "{:<12}{:>9}{:>8}{:>8}{:>8}  {:>16}  {:>16}{:>8}\n",
        "", "lost MB", "s", "MB/s", "copy s", "reads p99 ms", "creates p99 ms", "failed"
    );
    for (name, one) in rebuilds {
        let megabytes = one.lost_bytes as f64 / 1e6;
        let failed = one.reads.failed + one.creates.failed;
        let line = format!(
            "{name:<12}{megabytes:>9.0}{:>8.1}{:>8.0}{:>8.1}  {:>16}  {:>16}{failed:>8}",
            one.seconds,
            megabytes / one.seconds,
            one.plain_copy_seconds,
            percentiles(&one.reads),
            percentiles(&one.creates),
        );
        out.push_str(&line);
        out.push('\n');
    }
    out
}

fn percentiles(load: &Foreground) -> String {
    let (before, during) = (load.before.p99 / 1e3, load.during.p99 / 1e3);
    format!("{before:.1} > {during:.1}")
}

/// The chunks below goal over time, as steps.
fn drawing(rebuilds: &[(String, Rebuild)]) -> String {
    let last = rebuilds.iter().map(|(_, one)| one.seconds);
    let longest = last.fold(1.0, f64::max);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    axes(&mut svg, longest);
    for (at, (name, one)) in rebuilds.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points = steps(one, longest);
        let (x, y) = (WIDTH - MARGIN - 200.0, MARGIN + 16.0 * at as f64);
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>\n\
             <text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}: {:.1} s</text>",
            escaped(name),
            one.seconds
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String, longest: f64) {
    let (left, bottom, right) = (MARGIN, HEIGHT - MARGIN, WIDTH - MARGIN);
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {MARGIN}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{left}\" y=\"{}\">chunks below goal, of the most that were</text>\n\
         <text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{longest:.0} s</text>\n\
         <text x=\"{left}\" y=\"{}\">the server is killed</text>",
        MARGIN - 12.0,
        bottom + 20.0,
        bottom + 20.0,
    );
}

/// From each look on it is as that look found it.
fn steps(one: &Rebuild, longest: f64) -> String {
    let worst = one.below_goal.iter().map(|look| look.below_goal).max();
    let worst = worst.unwrap_or(0).max(1) as f64;
    let x = |seconds: f64| MARGIN + seconds.min(longest) / longest * (WIDTH - 2.0 * MARGIN);
    let y = |count: u64| HEIGHT - MARGIN - count as f64 / worst * (HEIGHT - 2.0 * MARGIN);
    let mut points = String::new();
    let mut before = y(0);
    for look in &one.below_goal {
        let (at, level) = (x(look.at), y(look.below_goal));
        let _ = write!(points, "{at:.1},{before:.1} {at:.1},{level:.1} ");
        before = level;
    }
    let end = x(one.seconds);
    let _ = write!(points, "{end:.1},{before:.1}");
    points
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{Latency, Look};

    fn load(before: f64, during: f64) -> Foreground {
        let latency = |p99| Latency {
            count: 1,
            mean: p99,
            p50: p99,
            p90: p99,
            p99,
            p999: p99,
            max: p99,
        };
        Foreground {
            offered: 10,
            before: latency(before),
            during: latency(during),
            failed: 0,
            first_failure: None,
        }
    }

    fn rebuilt() -> (String, Rebuild) {
        let look = |at, below_goal| Look { at, below_goal };
        let one = Rebuild {
            lost_bytes: 200_000_000,
            lost_small_files: 3,
            seconds: 10.0,
            plain_copy_seconds: 4.0,
            below_goal: vec![look(0.5, 40), look(5.0, 20), look(10.0, 0)],
            reads: load(2000.0, 4000.0),
            creates: load(5000.0, 9000.0),
        };
        ("a<b".to_owned(), one)
    }

    #[test]
    fn the_table_has_rates_and_percentiles() {
        let table = table(&[rebuilt()]);
        let line = table.lines().nth(1).expect("one rebuild");
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = [
            "a<b", "200", "10.0", "20", "4.0", "2.0", ">", "4.0", "5.0", ">", "9.0", "0",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_drawing_falls_from_the_worst_to_nothing() {
        let svg = drawing(&[rebuilt()]);
        assert!(svg.contains("a&lt;b: 10.0 s"), "{svg}");
        let points = steps(&rebuilt().1, 10.0);
        let at: Vec<(f64, f64)> = points
            .split_whitespace()
            .map(|point| {
                let (x, y) = point.split_once(',').expect("two numbers");
                (x.parse().expect("x"), y.parse().expect("y"))
            })
            .collect();
        assert!(at.is_sorted_by(|a, b| a.0 <= b.0), "{points}");
        assert_eq!(at[1].1, MARGIN, "the worst is at the top");
        assert_eq!(at[at.len() - 1], (WIDTH - MARGIN, HEIGHT - MARGIN));
    }
}
