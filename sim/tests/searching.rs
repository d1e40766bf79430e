//! The commands that search: `swarm`, `shrink`, and what `run` writes for pipelines.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A quick cluster that does little for a second.
const QUIET: &str = r#"# Shows what the commands do.
[cluster]
masters = 1
metaloggers = 0
chunkservers = 2
clients = 1
[workload]
for = "1s"
actors = 1
"#;

/// The same, stuck with each seed: nothing can finish that soon.
const STUCK: &str = r#"# Shows a failure.
[cluster]
masters = 1
metaloggers = 1
chunkservers = 3
clients = 2
[network]
latency = "200ms"
[workload]
for = "2s"
[[fault]]
do = "drift-clock"
who = "everything"
at = "100ms"
times = 5
every = "100ms"
[expect]
finish = "1ms"
"#;

fn antler_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antler-sim"))
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder that is this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_dir_all(&path).ok();
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn state(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("swarm.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_swarm_goes_on_behind_the_seeds_that_were_done() {
    let folder = folder("swarm");
    let (a, b) = (
        file(&folder, "a.toml", QUIET),
        file(&folder, "b.toml", QUIET),
    );
    let keep = folder.to_str().unwrap();
    let swarm = |added: &[&str]| {
        let mut all = vec![
            "swarm", &a, &b, "--keep", keep, "--time", "5m", "--jobs", "2",
        ];
        all.extend(added);
        antler_sim(&all)
    };
    let first = swarm(&["--most", "4"]);
    assert_eq!(first.status.code(), Some(0), "{}", printed(&first));
    for word in [
        "4 seeds in",
        "seeds a minute",
        "events/s",
        "simulated seconds a second",
    ] {
        assert!(
            printed(&first).contains(word),
            "{word}: {}",
            printed(&first)
        );
    }
    assert!(printed(&first).contains("marks not reached: "));
    assert_eq!(state(&folder)["scenarios"][&a]["next"], 2);
    let second = swarm(&["--most", "3"]);
    assert!(
        printed(&second).contains("with earlier ones: 7 seeds"),
        "{}",
        printed(&second)
    );
    let after = state(&folder);
    assert_eq!(
        (
            &after["scenarios"][&a]["next"],
            &after["scenarios"][&b]["next"]
        ),
        (&4.into(), &3.into())
    );
    let third = swarm(&["--most", "2", "--from", "100", "--json"]);
    let last: Value = serde_json::from_str(printed(&third).lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["runs"], &last["totals"]["runs"]),
        (&2.into(), &9.into())
    );
    assert_eq!(state(&folder)["scenarios"][&b]["next"], 101);
    let none = antler_sim(&["swarm", "no/such.toml", "--keep", keep]);
    assert_eq!(none.status.code(), Some(1));
}

#[test]
fn a_failure_is_kept_replayed_and_made_small() {
    let folder = folder("shrink");
    let scenario = file(&folder, "stuck.toml", STUCK);
    let keep = folder.to_str().unwrap();
    let swarm = antler_sim(&[
        "swarm", &scenario, "--keep", keep, "--most", "1", "--from", "3",
    ]);
    assert_eq!(swarm.status.code(), Some(3), "{}", printed(&swarm));
    let kept = folder.join("stuck-3.json");
    let kept = kept.to_str().unwrap();
    let replayed = antler_sim(&["run", kept]);
    assert_eq!(replayed.status.code(), Some(3), "{}", printed(&replayed));
    assert!(printed(&replayed).contains(&format!("repeat: antler-sim run {kept} --trace")));
    let small = |name: &str, jobs: &str| {
        let out = folder.join(name).to_str().unwrap().to_owned();
        let cause = "it has no time";
        let shrunk = antler_sim(&[
            "shrink", kept, "--out", &out, "--cause", cause, "--jobs", jobs,
        ]);
        assert_eq!(shrunk.status.code(), Some(0), "{}", printed(&shrunk));
        std::fs::read_to_string(out).unwrap()
    };
    let text = small("small.json", "2");
    assert_eq!(text, small("again.json", "1"), "it is deterministic");
    let opening: Vec<&str> = text.lines().take(5).collect();
    assert!(opening[2].contains("it has no time") && opening[4].contains("\"seed\": 3"));
    let plan: Value = serde_json::from_str(&text).unwrap();
    let plan = &plan["plan"];
    assert_eq!(plan["faults"].as_array().unwrap().len(), 0);
    assert!(plan["programs"].as_array().unwrap().len() <= 1, "{text}");
    let cluster = &plan["cluster"];
    assert_eq!(
        (&cluster["metaloggers"], &cluster["clients"]),
        (&0.into(), &1.into())
    );
    let replayed = antler_sim(&["run", folder.join("small.json").to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(3));
}

#[test]
fn what_passes_can_not_be_made_small() {
    let folder = folder("passes");
    let scenario = file(&folder, "quiet.toml", QUIET);
    let plan = printed(&antler_sim(&["plan", &scenario]));
    let plan = file(&folder, "plan.json", &plan);
    let shrunk = antler_sim(&["shrink", &plan]);
    assert_eq!(shrunk.status.code(), Some(1));
    let broken = file(&folder, "broken.json", "{ \"plan\": {");
    let shrunk = antler_sim(&["shrink", &broken]);
    assert_eq!(shrunk.status.code(), Some(1));
    let told = String::from_utf8_lossy(&shrunk.stderr).into_owned();
    assert!(
        told.contains("broken.json") && told.contains("line 1"),
        "{told}"
    );
}

/// The tags of an XML text, each checked to be closed by its own.
fn tags(text: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    for part in text.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name = |tag: &str| tag.split_whitespace().next().unwrap().to_owned();
        if tag.starts_with('?') {
            continue;
        }
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "in {text}");
            continue;
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        seen.push(tag.to_owned());
        if !tag.ends_with('/') {
            open.push(name(tag));
        }
    }
    assert!(open.is_empty(), "{open:?} is open");
    seen
}

#[test]
fn junit_has_a_case_for_each_scenario_and_seed() {
    let folder = folder("junit");
    let quiet = file(&folder, "quiet.toml", QUIET);
    let stuck = file(&folder, "stuck.toml", STUCK);
    let junit = folder.join("junit.xml");
    let arguments = [
        "run",
        &quiet,
        &stuck,
        "--seeds",
        "0..2",
        "--junit",
        junit.to_str().unwrap(),
    ];
    let output = antler_sim(&arguments);
    assert_eq!(output.status.code(), Some(3));
    let text = std::fs::read_to_string(&junit).unwrap();
    let tags = tags(&text);
    let of = |name: &str| tags.iter().filter(|tag| tag.starts_with(name)).count();
    assert_eq!(
        (of("testsuite "), of("testcase "), of("failure ")),
        (2, 4, 2)
    );
    assert!(
        tags[0].contains("tests=\"4\" failures=\"2\" errors=\"0\""),
        "{}",
        tags[0]
    );
    let case = format!("classname=\"{quiet}\" name=\"seed 1\"");
    assert!(tags.iter().any(|tag| tag.contains(&case)), "{text}");
    assert!(text.contains(&format!("repeat: antler-sim run {stuck} --seed 0 --trace")));
    let nowhere = antler_sim(&[
        "run",
        &quiet,
        "--seed",
        "0",
        "--junit",
        "/no/such/folder/x.xml",
    ]);
    assert_eq!(nowhere.status.code(), Some(1));
}
