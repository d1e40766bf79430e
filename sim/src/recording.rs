//! A run as a file that replays it: what was found, and the plan. It is what a swarm
//! keeps of a failure, what shrinking makes smaller, and what lies in
//! `scenarios/regressions/`.
//!
//! JSON that opens with the cause and the seed; each fault and each step has a line, so
//! that a person can edit it and a diff shows what changed. A bare plan, as
//! `antler-sim plan` prints it, is read too.

use crate::host::Report;
use crate::plan::{Plan, Program};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;

/// What was found by running a plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Why it failed, in a person's words once that is known.
    pub cause: String,
    /// Of which scenario the plan was drawn.
    pub scenario: String,
    /// From which seed.
    pub seed: u64,
    /// `broken`, `stuck` or `panicked`.
    pub verdict: String,
    /// Which judge complained, or what stood still.
    pub kind: String,
    /// What it said.
    pub how: String,
}

impl Found {
    /// What a report tells; `None` of a run that passed.
    #[must_use]
    pub fn of(scenario: &str, report: &Report) -> Option<Self> {
        let how = report.verdict.how()?;
        Some(Self {
            cause: "not known yet".to_owned(),
            scenario: scenario.to_owned(),
            seed: report.seed,
            verdict: report.verdict.word().to_lowercase(),
            kind: report.kind.clone(),
            how: how.to_owned(),
        })
    }
}

/// A plan, and what it was kept for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recording {
    /// What was found; absent from a plan that was only printed.
    pub found: Option<Found>,
    /// What replays it.
    pub plan: Plan,
}

/// Tells a recording from a bare plan.
#[derive(Deserialize)]
struct Probe {
    plan: Option<IgnoredAny>,
}

/// Reads a recording or a bare plan.
///
/// # Errors
/// When it can't be read, is neither, or describes no cluster, with the line.
pub fn load(path: &Path) -> Result<Recording, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text)
}

/// Reads a recording or a bare plan from its text.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str) -> Result<Recording, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let probe: Probe = serde_json::from_str(text).map_err(wrong)?;
    let recording = match probe.plan {
        Some(_) => serde_json::from_str(text).map_err(wrong)?,
        None => Recording {
            found: None,
            plan: serde_json::from_str(text).map_err(wrong)?,
        },
    };
    recording.plan.check()?;
    Ok(recording)
}

impl Recording {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "{\n".to_owned();
        if let Some(found) = &self.found {
            let found = serde_json::to_string_pretty(found).expect("it is plain data");
            let found = found.replace('\n', "\n  ");
            let _ = writeln!(text, "  \"found\": {found},");
        }
        let _ = writeln!(text, "  \"plan\": {{");
        write_plan(&mut text, &self.plan);
        text.push_str("  }\n}\n");
        text
    }
}

/// The fields of a plan, those that matter most in a failure first.
fn write_plan(text: &mut String, plan: &Plan) {
    let faults = plan.faults.iter().map(json).collect::<Vec<_>>();
    let programs = plan.programs.iter().map(program_text).collect::<Vec<_>>();
    let fields = [
        ("seed", json(&plan.seed)),
        ("cluster", json(&plan.cluster)),
        ("network", json(&plan.network)),
        ("limits", json(&plan.limits)),
        ("duration", json(&plan.duration)),
        ("faults", list(&faults, "    ")),
        ("programs", list(&programs, "    ")),
        ("finish", json(&plan.finish)),
        ("redundancy", json(&plan.redundancy)),
        ("errors", json(&plan.errors)),
    ];
    let count = fields.len();
    for (at, (name, value)) in fields.into_iter().enumerate() {
        let comma = if at + 1 < count { "," } else { "" };
        let _ = writeln!(text, "    \"{name}\": {value}{comma}");
    }
}

fn program_text(program: &Program) -> String {
    let steps: Vec<String> = program.steps.iter().map(json).collect();
    let steps = list(&steps, "      ");
    format!("{{ \"client\": {}, \"steps\": {steps} }}", program.client)
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("a plan is plain data")
}

/// A list with one item a line.
fn list(items: &[String], indent: &str) -> String {
    if items.is_empty() {
        return "[]".to_owned();
    }
    let between = format!(",\n{indent}  ");
    format!("[\n{indent}  {}\n{indent}]", items.join(&between))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    fn recording() -> Recording {
        let text = "# shows\n[[fault]]\ndo = \"kill\"\nwho = \"leader\"\nat = \"1s\"\n";
        let scenario = scenario::parse("s.toml", text).expect("valid");
        let found = Found {
            cause: "a \"quoted\" cause".to_owned(),
            scenario: "s.toml".to_owned(),
            seed: 7,
            verdict: "broken".to_owned(),
            kind: "P2".to_owned(),
            how: "lost".to_owned(),
        };
        Recording {
            found: Some(found),
            plan: Plan::draw(&scenario, 7),
        }
    }

    #[test]
    fn what_is_written_is_read_and_opens_with_cause_and_seed() {
        let recording = recording();
        let text = recording.text();
        let read = parse(&text).expect("what was written");
        assert_eq!(read.found, recording.found);
        assert_eq!(json(&read.plan), json(&recording.plan));
        let opening: Vec<&str> = text.lines().take(5).collect();
        assert!(opening[2].contains("a \\\"quoted\\\" cause"), "{opening:?}");
        assert!(opening[4].contains("\"seed\": 7"), "{opening:?}");
        let bare = parse(&json(&recording.plan)).expect("a bare plan");
        assert_eq!(bare.found, None);
    }

    #[test]
    fn a_plan_without_limits_gets_the_usual_ones_and_one_of_no_cluster_is_refused() {
        let mut value = serde_json::to_value(recording().plan).expect("plain data");
        value.as_object_mut().expect("an object").remove("limits");
        parse(&value.to_string()).expect("written before there were limits");
        value["cluster"]["copies"] = 9.into();
        assert!(parse(&value.to_string()).is_err_and(|error| error.contains("copies")));
        assert!(parse("{ \"seed\": 1 }").is_err_and(|error| error.contains("line 1")));
    }
}
