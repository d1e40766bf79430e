//! JUnit XML of a `run`: a suite for each file, a case for each seed. Owns the format
//! and its escaping; what a run came to is the suite's.

use antler_sim::host::{Report, Verdict};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// What is written in the end.
#[derive(Debug, Default)]
pub(crate) struct Junit {
    suites: Vec<Suite>,
}

#[derive(Debug)]
struct Suite {
    name: String,
    cases: Vec<Case>,
}

#[derive(Debug)]
struct Case {
    name: String,
    took: Duration,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    /// `failure`, or `error` where the run itself broke down.
    element: &'static str,
    kind: String,
    message: String,
    text: String,
}

impl Junit {
    /// The cases from now on are those of a file.
    pub(crate) fn begin(&mut self, file: &str) {
        self.suites.push(Suite {
            name: file.to_owned(),
            cases: Vec::new(),
        });
    }

    /// A run ended; `options` are what it drew, `repeat` the command that repeats it.
    pub(crate) fn add(&mut self, report: &Report, options: &str, repeat: &str) {
        let failure = report.verdict.how().map(|how| Failure {
            element: match report.verdict {
                Verdict::Panicked(_) => "error",
                _ => "failure",
            },
            kind: format!("{} {}", report.verdict.word(), report.kind),
            message: how.lines().next().unwrap_or_default().to_owned(),
            text: format!("{how}\n\nrepeat: {repeat}\n\n{options}\n"),
        });
        self.push(Case {
            name: format!("seed {}", report.seed),
            took: report.elapsed,
            failure,
        });
    }

    /// Marks that the file requires were not reached.
    pub(crate) fn add_missing_marks(&mut self, names: &[&str]) {
        let message = format!("never reached: {}", names.join(" "));
        self.push(Case {
            name: "marks".to_owned(),
            took: Duration::ZERO,
            failure: Some(Failure {
                element: "failure",
                kind: "marks".to_owned(),
                text: message.clone(),
                message,
            }),
        });
    }

    fn push(&mut self, case: Case) {
        let suite = self.suites.last_mut().expect("a file was begun");
        suite.cases.push(case);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Why it can't be written.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.text())
    }

    fn text(&self) -> String {
        let all = || self.suites.iter().flat_map(|suite| &suite.cases);
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        let _ = writeln!(text, "<testsuites name=\"antler-sim\"{}>", counts(all()));
        for suite in &self.suites {
            let (name, counts) = (escaped(&suite.name), counts(suite.cases.iter()));
            let _ = writeln!(text, "  <testsuite name=\"{name}\"{counts}>");
            for case in &suite.cases {
                write_case(&mut text, &name, case);
            }
            text.push_str("  </testsuite>\n");
        }
        text.push_str("</testsuites>\n");
        text
    }
}

fn counts<'a>(cases: impl Iterator<Item = &'a Case>) -> String {
    let (mut tests, mut failures, mut errors, mut took) = (0, 0, 0, Duration::ZERO);
    for case in cases {
        tests += 1;
        took += case.took;
        match case.failure.as_ref().map(|failure| failure.element) {
            Some("error") => errors += 1,
            Some(_) => failures += 1,
            None => {}
        }
    }
    let seconds = took.as_secs_f64();
    format!(
        " tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\" time=\"{seconds:.3}\""
    )
}

fn write_case(text: &mut String, class: &str, case: &Case) {
    let (name, seconds) = (escaped(&case.name), case.took.as_secs_f64());
    let _ = write!(
        text,
        "    <testcase classname=\"{class}\" name=\"{name}\" time=\"{seconds:.3}\""
    );
    let Some(failure) = &case.failure else {
        text.push_str("/>\n");
        return;
    };
    let (element, kind) = (failure.element, escaped(&failure.kind));
    let (message, long) = (escaped(&failure.message), escaped(&failure.text));
    let _ = writeln!(
        text,
        ">\n      <{element} type=\"{kind}\" message=\"{message}\">{long}</{element}>\n    </testcase>"
    );
}

/// A text as XML 1.0 allows it, in an attribute or between tags.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_does_not_allow_is_not_written() {
        assert_eq!(
            escaped("a<b> & \"c\"\0\x1b"),
            "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn missing_marks_are_a_failure_of_their_file() {
        let mut junit = Junit::default();
        junit.begin("a.toml");
        junit.add_missing_marks(&["torn-tail"]);
        let text = junit.text();
        assert!(
            text.contains("<testsuite name=\"a.toml\" tests=\"1\" failures=\"1\""),
            "{text}"
        );
        assert!(text.contains("never reached: torn-tail"));
    }
}
