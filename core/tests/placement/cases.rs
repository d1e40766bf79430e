//! Placement as text cases: `QUESTION => ANSWER`, one per line; `==== title` begins
//! with no servers and no policy. `ANTLER_REWRITE=1` writes the present answers into
//! the file, to be read before they are kept.
//!
//! `server N key=value ...` adds a server, `policy ...` reads a policy and shows it,
//! `choose on A B` tells which servers the next copies may go to beside those on A and
//! B (`|` between those that are equally good), `surplus A B C` what goes of them,
//! `home on A B` where a copy may come home to, `permits` who may have one at all.
#![allow(
    clippy::disallowed_methods,
    reason = "the cases are a file, and an environment variable rewrites it"
)]

use antler_core::ids::ServerId;
use antler_core::placement::reason::unmet;
use antler_core::placement::{self, Archive, Candidate, Labels, Policy};
use antler_core::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Seeds that a choice is asked with: every one that is possible shows.
const SEEDS: u64 = 200;

#[test]
fn grammar() {
    run("grammar");
}

#[test]
fn choice() {
    run("choice");
}

fn run(area: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/placement/cases");
    let path = path.join(format!("{area}.txt"));
    let cases = std::fs::read_to_string(&path).expect("the cases are beside this file");
    let answered = answer(&cases);
    if std::env::var("ANTLER_REWRITE").is_ok() {
        std::fs::write(&path, answered).expect("the cases can be written");
        return;
    }
    for (number, (want, have)) in cases.lines().zip(answered.lines()).enumerate() {
        assert_eq!(have, want, "{area}.txt line {}", number + 1);
    }
}

fn answer(cases: &str) -> String {
    let mut place = Place::default();
    let mut answered = String::new();
    for line in cases.lines() {
        if line.starts_with("====") {
            place = Place::default();
        }
        let is_case = !line.is_empty() && !line.starts_with(['=', '#']);
        let asked = line.split(" => ").next().unwrap_or(line).trim_end();
        answered += asked;
        if is_case && let Some(told) = place.case(asked) {
            answered += " => ";
            answered += &told;
        }
        answered.push('\n');
    }
    answered
}

#[derive(Default)]
struct Place {
    servers: BTreeMap<u64, (Labels, u64)>,
    policy: Option<Policy>,
}

impl Place {
    fn case(&mut self, line: &str) -> Option<String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "server" => {
                self.add(rest);
                None
            }
            "policy" => Some(self.read(rest)),
            "choose" => Some(self.choose(&numbers(rest))),
            "surplus" => Some(self.surplus(&numbers(rest))),
            "home" => Some(self.home(&numbers(rest))),
            "permits" => Some(self.permits()),
            "unmet" => Some(self.unmet()),
            other => panic!("no case is called {other}"),
        }
    }

    fn add(&mut self, rest: &str) {
        let mut words = rest.split_whitespace();
        let number = words.next().expect("a number").parse().expect("a number");
        let (mut labels, mut free) = (Labels::new(), 1 << 30);
        for word in words {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "free" => free = value.parse().expect("bytes"),
                _ => labels.push((key.to_owned(), value.to_owned())),
            }
        }
        self.servers.insert(number, (labels, free));
    }

    fn read(&mut self, text: &str) -> String {
        match text.parse::<Policy>() {
            Ok(policy) => {
                let shown = policy.to_string();
                assert!(policy.is_sound(), "what is read is sound: {shown}");
                assert_eq!(shown.parse().as_ref(), Ok(&policy), "it reads as shown");
                self.policy = Some(policy);
                shown
            }
            Err(mistake) => mistake.to_string(),
        }
    }

    fn policy(&self) -> &Policy {
        self.policy.as_ref().expect("a policy comes first")
    }

    fn labels(&self, servers: &[u64]) -> Vec<&Labels> {
        servers.iter().map(|one| &self.servers[one].0).collect()
    }

    fn candidate(&self, server: u64) -> Candidate<'_> {
        let (labels, free) = &self.servers[&server];
        Candidate {
            server: ServerId(server),
            labels,
            free: *free,
        }
    }

    fn others(&self, present: &[u64]) -> Vec<Candidate<'_>> {
        let others = self.servers.keys().filter(|one| !present.contains(one));
        others.map(|one| self.candidate(*one)).collect()
    }

    fn choose(&self, present: &[u64]) -> String {
        let (others, labels) = (self.others(present), self.labels(present));
        let possible = (0..SEEDS).map(|seed| {
            let mut rng = Rng::new(seed);
            let chosen = placement::choose(self.policy(), &others, &labels, 9, &mut rng);
            let mut chosen: Vec<u64> = chosen.iter().map(|server| server.0).collect();
            chosen.sort_unstable();
            join(&chosen, " ")
        });
        let possible: BTreeSet<String> = possible.collect();
        possible.into_iter().collect::<Vec<_>>().join(" | ")
    }

    fn surplus(&self, holders: &[u64]) -> String {
        let holders: Vec<_> = holders.iter().map(|one| self.candidate(*one)).collect();
        let gone = placement::surplus(self.policy(), &holders);
        let gone: Vec<u64> = gone.iter().map(|server| server.0).collect();
        join(&gone, " ")
    }

    fn home(&self, present: &[u64]) -> String {
        let (others, labels) = (self.others(present), self.labels(present));
        let possible = (0..SEEDS).map(|seed| {
            let mut rng = Rng::new(seed);
            let home = placement::homecoming(self.policy(), &others, &labels, &mut rng);
            home.map_or_else(|| "nowhere".to_owned(), |server| server.0.to_string())
        });
        let possible: BTreeSet<String> = possible.collect();
        possible.into_iter().collect::<Vec<_>>().join(" | ")
    }

    fn permits(&self) -> String {
        let all = self.servers.iter();
        let fit = all.filter(|(_, (labels, _))| self.policy().permits(labels));
        let fit: Vec<u64> = fit.map(|(server, _)| *server).collect();
        join(&fit, " ")
    }

    fn unmet(&self) -> String {
        let servers: Vec<u64> = self.servers.keys().copied().collect();
        let told = unmet(self.policy(), &self.labels(&servers));
        if told.is_empty() {
            "nothing".to_owned()
        } else {
            told.join("; ")
        }
    }
}

fn numbers(words: &str) -> Vec<u64> {
    let words = words.split_whitespace().filter(|word| *word != "on");
    words.map(|word| word.parse().expect("a number")).collect()
}

fn join(numbers: &[u64], between: &str) -> String {
    if numbers.is_empty() {
        return "none".to_owned();
    }
    let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
    texts.join(between)
}

#[test]
fn archives_read_as_they_are_shown_and_mistakes_are_told() {
    for (text, shown) in [
        ("ec(4+2) after 30d", "ec(4+2) after 2592000s by mtime"),
        (
            "copies(2), 1 in dc=west after 12h by atime above 1MiB",
            "copies(2), 1 in dc=west hard after 43200s by atime above 1048576",
        ),
        (
            "copies(1) after 90s by ctime",
            "copies(1) after 90s by ctime",
        ),
    ] {
        let archive: Archive = text.parse().expect("it is well written");
        assert_eq!(archive.to_string(), shown);
        assert_eq!(shown.parse::<Archive>().as_ref(), Ok(&archive));
    }
    for (text, mistake) in [
        ("ec(4+2)", "column 8: `after` is missing"),
        (
            "ec(4+2) after 30",
            "column 15: `30` is not an age as 12h or 30d",
        ),
        (
            "ec(4+2) after 3w",
            "column 15: `3w` is not an age as 12h or 30d",
        ),
        (
            "copies(2) after 1d by btime",
            "column 23: `btime` is not `mtime`, `ctime` or `atime`",
        ),
        (
            "copies(2) after 1d above 1MB",
            "column 26: `1MB` is not a size as 1MiB",
        ),
        (
            "copies(2) after 99999999999999999999d",
            "column 17: `99999999999999999999d` is not an age as 12h or 30d",
        ),
        (
            "copies(2) after 1d for",
            "column 20: `for` makes no sense here",
        ),
    ] {
        let told = text.parse::<Archive>().expect_err("it is wrong");
        assert_eq!(told.to_string(), mistake, "{text}");
    }
}
