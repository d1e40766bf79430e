//! The parts of a chart: a time axis, rows, lines, areas, and the text beside them, as
//! SVG. Of a run it knows its time alone.
//!
//! Invariant: everything lies within the view box, and what is text is escaped.

use crate::network::Nanos;
use crate::observe::Observed;
use crate::plan::YearPlan;
use std::fmt::Write;

const SECOND: Nanos = 1_000_000_000;

/// The width of every chart, and of the labels at its left.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 200.0;
const RIGHT: f64 = 16.0;
/// Room above for the names of phases, and below for the axis.
const TOP: f64 = 20.0;
const BOTTOM: f64 = 31.0;
/// Characters of a label that fit at the left.
const LABEL: usize = 28;

/// A text between tags or in an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A chart over the time of a run.
pub(crate) struct Chart {
    end: Nanos,
    height: f64,
    body: String,
    /// When each phase begins, and its name.
    phases: Vec<(Nanos, &'static str)>,
    /// What the axis shows: times, and their names.
    ticks: Vec<(Nanos, String)>,
}

impl Chart {
    /// An empty chart whose inside is so high.
    pub(crate) fn new(end: Nanos, height: f64, phases: &[(Nanos, &'static str)]) -> Self {
        Self {
            end: end.max(1),
            height,
            body: String::new(),
            phases: phases.to_vec(),
            ticks: ticks(end)
                .into_iter()
                .map(|second| (second * SECOND, format!("{second} s")))
                .collect(),
        }
    }

    /// An empty chart over the time of a run; of a year its axis shows the days.
    pub(super) fn of(seen: &Observed, height: f64) -> Self {
        let mut chart = Self::new(seen.ended, height, &seen.phases);
        if let Some(year) = &seen.year {
            chart.ticks = chart.days(year, seen.begun);
        }
        chart
    }

    /// The days of a year, as many as there is room for.
    fn days(&self, year: &YearPlan, begun: Nanos) -> Vec<(Nanos, String)> {
        const DAY: Nanos = 86_400 * SECOND;
        /// The least between two names.
        const APART: f64 = 62.0;
        let end = year
            .stretches
            .last()
            .map_or(0, |last| last.date + last.lasts);
        let mut ticks: Vec<(Nanos, String)> = Vec::new();
        let mut last = f64::MIN;
        for day in 0..end / DAY {
            let at = begun + year.run_time(day * DAY);
            let x = self.x(at);
            if x >= last + APART && x < WIDTH - RIGHT - APART / 2.0 {
                ticks.push((at, format!("day {}", day + 1)));
                last = x;
            }
        }
        ticks
    }

    /// A line from top to bottom at a time.
    pub(super) fn mark(&mut self, at: Nanos, what: &str) {
        let (x, top, bottom) = (self.x(at), TOP, TOP + self.height);
        let what = escaped(what);
        let _ = writeln!(
            self.body,
            "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\">\
             <title>{what}</title></line>"
        );
    }

    /// A line that goes on level from each point (time, share of the height) to the next.
    pub(super) fn steps(&mut self, points: &[(Nanos, f64)], color: &str) {
        let mut shown = Vec::new();
        for (at, (from, share)) in points.iter().enumerate() {
            let until = points.get(at + 1).map_or(self.end, |(next, _)| *next);
            for when in [*from, until] {
                shown.push(format!("{:.1},{:.1}", self.x(when), self.y(*share)));
            }
        }
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--{color})\" stroke-width=\"2\"/>",
            shown.join(" ")
        );
    }

    /// Where a time is.
    pub(crate) fn x(&self, at: Nanos) -> f64 {
        let share = at.min(self.end) as f64 / self.end as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// Where a height is, 0 at the bottom and 1 at the top.
    pub(crate) fn y(&self, share: f64) -> f64 {
        TOP + (1.0 - share.clamp(0.0, 1.0)) * self.height
    }

    /// A label at the left of a row, cut if it is long; the whole is its tooltip.
    pub(crate) fn label(&mut self, top: f64, text: &str) {
        let shown: String = match text.chars().count() > LABEL {
            true => text.chars().take(LABEL - 1).chain(['…']).collect(),
            false => text.to_owned(),
        };
        let (x, y) = (LEFT - 8.0, TOP + top);
        let (shown, whole) = (escaped(&shown), escaped(text));
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" dominant-baseline=\"central\">{shown}\
             <title>{whole}</title></text>"
        );
    }

    /// A bar from a time to another, at least two units wide so that it can be seen.
    pub(crate) fn bar(
        &mut self,
        (from, to): (Nanos, Nanos),
        top: f64,
        height: f64,
        fill: &str,
        what: &str,
    ) {
        let x = self.x(from).min(WIDTH - RIGHT - 2.0);
        let width = (self.x(to) - x).max(2.0);
        let (y, what) = (TOP + top, escaped(what));
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" {fill}>\
             <title>{what}</title></rect>"
        );
    }

    /// A mark on the scale at the left, with a line across.
    pub(crate) fn level(&mut self, share: f64, text: &str) {
        let (y, x, right) = (self.y(share), LEFT - 8.0, WIDTH - RIGHT);
        let text = escaped(text);
        let _ = writeln!(
            self.body,
            "<line class=\"grid\" x1=\"{LEFT:.1}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" \
             dominant-baseline=\"central\">{text}</text>"
        );
    }

    /// A line through points (time, share of the height).
    pub(crate) fn line(&mut self, points: &[(Nanos, f64)], color: &str) {
        let shown = points
            .iter()
            .map(|(at, share)| (self.x(*at), self.y(*share)));
        let shown: Vec<String> = shown.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"var(--{color})\" stroke-width=\"2\" \
             stroke-linejoin=\"round\"/>",
            shown.join(" ")
        );
        for (at, share) in points {
            let (x, y) = (self.x(*at), self.y(*share));
            let _ = writeln!(
                self.body,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"var(--{color})\"/>"
            );
        }
    }

    /// An area between two heights at each time, as steps.
    pub(crate) fn area(&mut self, points: &[(Nanos, f64, f64)], color: &str) {
        let mut upper = Vec::new();
        let mut lower = Vec::new();
        for (at, (from, low, high)) in points.iter().enumerate() {
            let until = points.get(at + 1).map_or(self.end, |(next, ..)| *next);
            for when in [*from, until] {
                upper.push(format!("{:.1},{:.1}", self.x(when), self.y(*high)));
                lower.push(format!("{:.1},{:.1}", self.x(when), self.y(*low)));
            }
        }
        lower.reverse();
        upper.extend(lower);
        let _ = writeln!(
            self.body,
            "<polygon points=\"{}\" fill=\"var(--{color})\" shape-rendering=\"crispEdges\"/>",
            upper.join(" ")
        );
    }

    /// The whole chart. `name` must be unique in the page; `title` and `text` are what
    /// it is called and says for those who do not see it.
    pub(crate) fn finish(self, name: &str, title: &str, text: &str) -> String {
        let height = TOP + self.height + BOTTOM;
        let (title, text) = (escaped(title), escaped(text));
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-labelledby=\"{name}-t {name}-d\">\n\
             <title id=\"{name}-t\">{title}</title><desc id=\"{name}-d\">{text}</desc>\n"
        );
        self.write_axis(&mut svg);
        svg.push_str(&self.body);
        self.write_phases(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn write_axis(&self, svg: &mut String) {
        let (top, bottom) = (TOP, TOP + self.height);
        for (at, name) in &self.ticks {
            let x = self.x(*at);
            let y = bottom + 21.0;
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>\
                 <text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>"
            );
        }
    }

    /// Where phases begin, with the names of those that are long enough to hold one.
    fn write_phases(&self, svg: &mut String) {
        let (top, bottom) = (TOP, TOP + self.height);
        for (number, (at, name)) in self.phases.iter().enumerate() {
            let x = self.x(*at);
            let next = self.phases.get(number + 1);
            let until = next.map_or(WIDTH - RIGHT, |(next, _)| self.x(*next));
            let _ = writeln!(
                svg,
                "<line class=\"phase\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\"/>"
            );
            // Letters are at most so wide.
            if x + 6.0 + name.len() as f64 * 7.5 <= until {
                let (x, y) = (x + 3.0, TOP - 7.0);
                let _ = writeln!(
                    svg,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\">{name}</text>"
                );
            }
        }
    }
}

/// Seconds at which the axis has marks: at most a dozen.
fn ticks(end: Nanos) -> Vec<u64> {
    let seconds = end / 1_000_000_000;
    let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
    let step = steps
        .into_iter()
        .find(|step| seconds / step <= 12)
        .unwrap_or(7200);
    // The last mark's text must not stick out at the right.
    (0..=seconds / step)
        .map(|at| at * step)
        .filter(|at| at * 1_000_000_000 < end / 100 * 99)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_few_and_within() {
        for seconds in [0, 1, 12, 13, 188, 400, 5000] {
            let ticks = ticks(seconds * 1_000_000_000 + 500_000_000);
            assert!(!ticks.is_empty() && ticks.len() <= 13, "{ticks:?}");
        }
    }

    #[test]
    fn everything_lies_within_the_chart() {
        let mut chart = Chart::new(10, 100.0, &[(0, "a"), (9, "a phase at the end")]);
        chart.bar((9, 50), 0.0, 5.0, "", "too <long>");
        let svg = chart.finish("c", "A & B", "text");
        assert!(svg.contains("A &amp; B") && svg.contains("too &lt;long&gt;"));
        assert!(!svg.contains("a phase at the end<"), "{svg}");
    }
}
