//! The command: its exit codes, and what it prints.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A quick cluster that does little for a second.
const QUIET: &str = r#"# Shows what the command does.
[cluster]
masters = 1
metaloggers = 0
chunkservers = 2
clients = 1
[workload]
for = "1s"
actors = 1
"#;

fn antler_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_antler-sim"))
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

fn printed(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn complained(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// A file that is this test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a scenario, QUIET with something added, over two seeds.
fn run(name: &str, added: &str, arguments: &[&str]) -> Output {
    let path = file(name, &format!("{QUIET}{added}"));
    let mut all = vec!["run", path.to_str().unwrap()];
    all.extend(arguments);
    antler_sim(&all)
}

/// The digests that runs printed.
fn digests(output: &Output) -> Vec<&str> {
    let words = printed(output).split("digest ").skip(1);
    words
        .map(|rest| rest.split_whitespace().next().unwrap())
        .collect()
}

#[test]
fn a_run_that_passes_tells_what_it_was_and_how_fast() {
    let output = run("passes.toml", "", &["--seeds", "0..2"]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    let text = printed(&output);
    for word in [
        "seed 0: 1 masters",
        "seed 1: passed",
        "events/s",
        "marks",
        "2 of 2 seeds",
    ] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
}

#[test]
fn a_seed_gives_the_same_digest_alone_traced_and_beside_others() {
    let all = run("digests.toml", "", &["--seeds", "0..4", "--jobs", "3"]);
    let all = digests(&all);
    assert_eq!(all.len(), 4);
    assert_ne!(all[0], all[1]);
    let one = run("digests.toml", "", &["--seed", "2"]);
    assert_eq!(digests(&one), [all[2]]);
    let traced = run("digests.toml", "", &["--seed", "2", "--trace"]);
    assert_eq!(digests(&traced).last(), Some(&all[2]));
    assert!(printed(&traced).lines().count() > 100);
    assert!(printed(&traced).contains("client-1       <- Ask"));
}

#[test]
fn the_output_does_not_depend_on_the_number_of_jobs() {
    let arguments = |jobs| ["--seeds", "0..6", "--json", "--jobs", jobs];
    let strip = |output: &Output| -> Vec<(Value, Value, Value)> {
        let lines = printed(output).lines();
        let runs = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        runs.map(|run| {
            (
                run["seed"].clone(),
                run["digest"].clone(),
                run["verdict"].clone(),
            )
        })
        .collect()
    };
    let one = run("jobs.toml", "", &arguments("1"));
    let many = run("jobs.toml", "", &arguments("4"));
    assert_eq!(strip(&one).len(), 7);
    assert_eq!(strip(&one), strip(&many));
}

#[test]
fn json_is_an_object_for_each_run_and_one_for_the_file() {
    let output = run("json.toml", "", &["--seeds", "3..5", "--json"]);
    let lines: Vec<Value> = printed(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [first, second, file] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!((&first["seed"], &second["seed"]), (&3.into(), &4.into()));
    assert_eq!(first["verdict"], "passed");
    assert_eq!(first["exit_code"], 0);
    assert!(first["events"].as_u64() > Some(100));
    assert_eq!(file["runs"], 2);
    assert!(file["events_per_second"].as_f64() > Some(0.0));
}

#[test]
fn bad_usage_and_bad_files_are_told_with_1() {
    let missing = antler_sim(&["run", "no/such/file.toml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(complained(&missing).contains("no/such/file.toml"));
    let unknown = run("unknown.toml", "[cluster.master]\nx = 1\n", &[]);
    assert_eq!(unknown.status.code(), Some(1));
    let unit = run("unit.toml", "[expect]\nfinish = \"7 parsecs\"\n", &[]);
    assert_eq!(unit.status.code(), Some(1));
    assert!(
        complained(&unit).contains("unit.toml:11: \"7 parsecs\""),
        "{}",
        complained(&unit)
    );
    for arguments in [
        &["--seeds", "5..5"][..],
        &["--seeds", "x"],
        &["--nonsense"],
        &["--jobs", "0"],
    ] {
        let output = run("usage.toml", "", arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}

#[test]
fn a_broken_promise_is_told_with_2() {
    let busy = QUIET.replace("actors = 1", "actors = 2\nprofile = \"data\"");
    let full = r#"
[[fault]]
do = "fill-disk"
who = "chunkservers"
at = "10ms"
for = "2s"
"#;
    let path = file("broken.toml", &format!("{busy}{full}"));
    let output = antler_sim(&["run", path.to_str().unwrap(), "--seeds", "0..20", "--stop"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("failed with ENOSPC"));
    assert!(printed(&output).contains("repeat: antler-sim run"));
}

#[test]
fn no_progress_is_told_with_3() {
    let slow = "[network]\nlatency = \"200ms\"\n[expect]\nfinish = \"1ms\"\n";
    let output = run("stuck.toml", slow, &["--seed", "0"]);
    assert_eq!(output.status.code(), Some(3), "{}", printed(&output));
    assert!(printed(&output).contains("STUCK"));
}

#[test]
fn a_panic_is_told_with_4() {
    let path = file("plan.toml", QUIET);
    let plan = antler_sim(&["plan", path.to_str().unwrap(), "--seed", "1"]);
    assert_eq!(plan.status.code(), Some(0));
    let mut plan: Value = serde_json::from_str(printed(&plan)).unwrap();
    let whole = file("whole.json", &plan.to_string());
    let replayed = antler_sim(&["run", "--plan", whole.to_str().unwrap()]);
    assert_eq!(replayed.status.code(), Some(0), "{}", printed(&replayed));
    // A slot that no program has.
    plan["programs"][0]["steps"][0]["operation"] = serde_json::json!({ "Fsync": { "slot": 99 } });
    let broken = file("broken.json", &plan.to_string());
    let output = antler_sim(&["run", "--plan", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4), "{}", printed(&output));
    assert!(printed(&output).contains("PANICKED"));
}
