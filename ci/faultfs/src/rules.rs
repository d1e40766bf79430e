//! Faults asked for by hand: an errno, or a delay, for the operations on the
//! paths that match. Owns the small language of the control socket's rules;
//! `filesystem` asks before each operation.
//!
//! `eio OPERATION PATTERN`, `enospc OPERATION PATTERN`, `delay MILLISECONDS
//! OPERATION PATTERN`, each with `percent=N` and `times=N` if wanted. A pattern
//! is a part of the path below the mount (`*` matches every path). The kernel
//! asks again for a page whose read failed: `times=1` on a read shows nothing.

use crate::rng::Rng;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What can be made to fail or wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Read,
    Write,
    Sync,
    Open,
    Create,
    Rename,
    Remove,
    Truncate,
    List,
}

const OPERATIONS: [(&str, Operation); 9] = [
    ("read", Operation::Read),
    ("write", Operation::Write),
    ("sync", Operation::Sync),
    ("open", Operation::Open),
    ("create", Operation::Create),
    ("rename", Operation::Rename),
    ("remove", Operation::Remove),
    ("truncate", Operation::Truncate),
    ("list", Operation::List),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Fail(i32),
    Delay(Duration),
    Lie,
}

/// How an operation goes on after the rules had their say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// As if there were no rules.
    Proceed,
    /// It fails with this errno.
    Fail(i32),
    /// It says that it succeeded, and did nothing.
    Lie,
}

/// One rule of the control socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rule {
    fault: Fault,
    /// None: every operation.
    operation: Option<Operation>,
    pattern: String,
    percent: u64,
    /// How often it may still strike; None: without end.
    times: Option<u64>,
}

impl Rule {
    /// Reads one line; the error says what is allowed.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let fault = match words.next() {
            Some("eio") => Fault::Fail(libc::EIO),
            Some("enospc") => Fault::Fail(libc::ENOSPC),
            Some("delay") => Fault::Delay(parse_delay(words.next())?),
            Some("lie") => Fault::Lie,
            other => {
                return Err(format!(
                    "a rule starts with eio, enospc, delay or lie, not {other:?}"
                ));
            }
        };
        let operation = parse_operation(words.next())?;
        if fault == Fault::Lie && operation != Some(Operation::Sync) {
            return Err("only a sync can lie".into());
        }
        let pattern = words
            .next()
            .ok_or("a rule names a part of a path, or *")?
            .to_owned();
        let mut rule = Self {
            fault,
            operation,
            pattern,
            percent: 100,
            times: None,
        };
        for word in words {
            rule.set(word)?;
        }
        Ok(rule)
    }

    fn set(&mut self, word: &str) -> Result<(), String> {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("expected percent=N or times=N, not {word}"))?;
        let number: u64 = value.parse().map_err(|_| format!("not a number: {word}"))?;
        match key {
            "percent" if number <= 100 => self.percent = number,
            "times" => self.times = Some(number),
            _ => return Err(format!("expected percent=0..100 or times=N, not {word}")),
        }
        Ok(())
    }

    fn matches(&self, operation: Operation, path: &Path) -> bool {
        self.operation.is_none_or(|mine| mine == operation)
            && (self.pattern == "*" || path.to_string_lossy().contains(&self.pattern))
            && self.times != Some(0)
    }
}

fn parse_delay(word: Option<&str>) -> Result<Duration, String> {
    let word = word.ok_or("delay needs milliseconds")?;
    let number = word.strip_suffix("ms").unwrap_or(word);
    number
        .parse()
        .map(Duration::from_millis)
        .map_err(|_| format!("not milliseconds: {word}"))
}

fn parse_operation(word: Option<&str>) -> Result<Option<Operation>, String> {
    let names = || OPERATIONS.map(|(name, _)| name).join(", ");
    let word = word.ok_or_else(|| format!("a rule names an operation: any, {}", names()))?;
    if word == "any" {
        return Ok(None);
    }
    let found = OPERATIONS.iter().find(|(name, _)| *name == word);
    found
        .map(|(_, operation)| Some(*operation))
        .ok_or_else(|| format!("unknown operation {word}; there are any, {}", names()))
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Spares the common case, without rules, the lock and the path.
    any: AtomicBool,
    list: Mutex<(Vec<Rule>, Rng)>,
}

impl Rules {
    /// No rule; chances are drawn from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            any: AtomicBool::new(false),
            list: Mutex::new((Vec::new(), Rng::new(seed))),
        }
    }

    /// Adds a rule.
    pub(crate) fn add(&self, rule: Rule) {
        self.list.lock().expect("no holder panics").0.push(rule);
        self.any.store(true, Ordering::Release);
    }

    /// Drops all rules.
    pub(crate) fn clear(&self) {
        self.list.lock().expect("no holder panics").0.clear();
        self.any.store(false, Ordering::Release);
    }

    /// Waits as the rules say, then tells what they say. `path` is asked for only
    /// if there is a rule. To be called without any lock held.
    pub(crate) fn strike<P: AsRef<Path>>(
        &self,
        operation: Operation,
        path: impl FnOnce() -> P,
    ) -> Verdict {
        if !self.any.load(Ordering::Acquire) {
            return Verdict::Proceed;
        }
        let (delay, verdict) = self.draw(operation, path().as_ref());
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        verdict
    }

    fn draw(&self, operation: Operation, path: &Path) -> (Duration, Verdict) {
        let mut guard = self.list.lock().expect("no holder panics");
        let (rules, rng) = &mut *guard;
        let (mut delay, mut verdict) = (Duration::ZERO, Verdict::Proceed);
        for rule in rules
            .iter_mut()
            .filter(|rule| rule.matches(operation, path))
        {
            if !rng.percent(rule.percent) {
                continue;
            }
            rule.times = rule.times.map(|left| left - 1);
            match rule.fault {
                Fault::Fail(errno) => verdict = Verdict::Fail(errno),
                Fault::Lie => verdict = Verdict::Lie,
                Fault::Delay(more) => delay += more,
            }
        }
        (delay, verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strike(rules: &Rules, operation: Operation, path: &str) -> Verdict {
        rules.strike(operation, || path)
    }

    #[test]
    fn a_rule_strikes_its_operation_on_its_paths_as_often_as_it_says() {
        let rules = Rules::new(0);
        rules.add(Rule::parse("eio read chunkserver-2/ times=2").unwrap());
        assert_eq!(
            strike(&rules, Operation::Write, "chunkserver-2/disk-1/x"),
            Verdict::Proceed
        );
        assert_eq!(
            strike(&rules, Operation::Read, "chunkserver-1/disk-1/x"),
            Verdict::Proceed
        );
        assert_eq!(
            strike(&rules, Operation::Read, "chunkserver-2/disk-1/x"),
            Verdict::Fail(libc::EIO)
        );
        assert_eq!(
            strike(&rules, Operation::Read, "chunkserver-2/disk-1/x"),
            Verdict::Fail(libc::EIO)
        );
        assert_eq!(
            strike(&rules, Operation::Read, "chunkserver-2/disk-1/x"),
            Verdict::Proceed
        );
    }

    #[test]
    fn percent_strikes_now_and_then_and_clear_ends_it() {
        let rules = Rules::new(7);
        rules.add(Rule::parse("enospc any * percent=30").unwrap());
        let struck = (0..1000)
            .filter(|_| strike(&rules, Operation::Sync, "x") == Verdict::Fail(libc::ENOSPC))
            .count();
        assert!((200..400).contains(&struck), "{struck}");
        rules.clear();
        assert_eq!(strike(&rules, Operation::Sync, "x"), Verdict::Proceed);
    }

    #[test]
    fn mistakes_are_named() {
        for line in [
            "",
            "eio",
            "eio chew *",
            "eio read",
            "delay x read *",
            "eio read * percent=101",
            "eio read * foo",
        ] {
            assert!(Rule::parse(line).is_err(), "{line}");
        }
        let delay = Rule::parse("delay 50ms sync master-1/").unwrap();
        assert_eq!(delay.fault, Fault::Delay(Duration::from_millis(50)));
    }
}
