//! The harness against mounted file systems: it scores one that works, and
//! refuses a score to one that loses data.
//!
//! Mounts the empty file system, so it needs /dev/fuse; what it mounts it
//! unmounts, even when it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const BENCH: &str = env!("CARGO_BIN_EXE_antler-bench");

/// The empty file system, mounted for as long as this lives.
struct Mounted {
    mount: PathBuf,
    server: Child,
    _directory: TempDir,
}

impl Mounted {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let mount = directory.path().to_owned();
        let server = Command::new(BENCH).arg("emptyfs").arg(&mount).spawn();
        let mut mounted = Self {
            server: server.expect("the harness starts"),
            mount,
            _directory: directory,
        };
        mounted.wait();
        mounted
    }

    fn wait(&mut self) {
        for _ in 0..100 {
            let mounts = fs::read_to_string("/proc/mounts").expect("the kernel's mounts");
            if mounts.contains(&format!("empty {} ", self.mount.display())) {
                return;
            }
            let ended = self.server.try_wait().expect("our child");
            assert!(ended.is_none(), "the empty file system ended: {ended:?}");
            thread::sleep(Duration::from_millis(50));
        }
        panic!("the empty file system is not mounted after 5 s");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("fusermount3")
            .arg("-u")
            .arg(&self.mount)
            .status();
        if !unmounted.is_ok_and(|status| status.success()) {
            let _left = Command::new("umount").arg("-l").arg(&self.mount).status();
            let _gone = self.server.kill();
        }
        let _ended = self.server.wait();
    }
}

fn work(mount: &Path, json: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(BENCH);
    command.args(["work", "--quick", "--mount"]).arg(mount);
    command.arg("--json").arg(json).args(more);
    command.output().expect("the harness starts")
}

fn scores(json: &Path) -> Vec<(String, f64)> {
    let text = fs::read_to_string(json).expect("the scores are written");
    let run: Value = serde_json::from_str(&text).expect("the scores are JSON");
    let score = |score: &Value| {
        let name = score["workload"].as_str().expect("a name");
        (name.to_owned(), score["median"].as_f64().expect("a number"))
    };
    let scores = run["scores"].as_array().expect("a list");
    scores.iter().map(score).collect()
}

#[test]
fn a_file_system_that_loses_data_gets_no_score() {
    let empty = Mounted::new();
    let out = TempDir::new().expect("a temporary directory");
    for kind in ["names", "bulk", "synced"] {
        let json = out.path().join(kind);
        let output = work(&empty.mount, &json, &["--only", kind]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{kind} scored: {said}");
        assert!(said.contains("wrong answer"), "{kind}: {said}");
        assert!(!json.exists(), "{kind} left scores");
    }
}

#[test]
fn the_ceiling_is_scored_in_every_workload_and_left_clean() {
    let empty = Mounted::new();
    let out = TempDir::new().expect("a temporary directory");
    let json = out.path().join("empty.json");
    let output = work(&empty.mount, &json, &["--discards", "--system", "empty"]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let scores = scores(&json);
    assert_eq!(scores.len(), 22, "{scores:?}");
    assert!(scores.iter().all(|(_, rate)| *rate > 0.0), "{scores:?}");
    let left = fs::read_dir(&empty.mount)
        .expect("the mount answers")
        .count();
    assert_eq!(left, 0, "the workloads leave nothing behind");
}

#[test]
fn a_plain_directory_is_scored_with_its_data_checked_and_reported() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    let json = directory.path().join("plain.json");
    let output = work(
        directory.path(),
        &json,
        &["--only", "names", "--system", "plain"],
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = Command::new(BENCH).arg("report").arg(&json).output();
    let table = String::from_utf8(report.expect("the harness starts").stdout);
    let table = table.expect("the table is text");
    for (workload, _) in scores(&json) {
        assert!(table.contains(&workload), "{workload} is not in\n{table}");
    }
}

/// Runs the story of a lost server on a plain directory, with scripts in place
/// of a cluster: the health command runs `health` each time it is asked.
fn lose_a_server(directory: &Path, health: &str) -> Output {
    let mut command = Command::new(BENCH);
    command.current_dir(directory);
    command.args([
        "rebuild",
        "--mount",
        ".",
        "--json",
        "out.json",
        "--copy-dir",
        "copy",
    ]);
    command.args([
        "--bytes",
        "1M",
        "--small-files",
        "20",
        "--before",
        "1",
        "--patience",
        "5",
    ]);
    command.args(["--kill-command", "echo 2 >lost", "--health-command", health]);
    command.output().expect("the harness starts")
}

#[test]
fn a_rebuild_is_timed_from_the_kill_until_nothing_is_below_goal() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    // Says 2, then 1, then 0 from then on, once the server is lost.
    let health = "n=$(cat lost 2>/dev/null || echo 0); echo $n; \
                  if [ $n -gt 0 ]; then sleep 0.3; echo $((n - 1)) >lost; fi";
    let output = lose_a_server(directory.path(), health);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(directory.path().join("out.json")).expect("a result");
    let run: Value = serde_json::from_str(&text).expect("the result is JSON");
    let rebuild = &run["rebuild"];
    let seconds = rebuild["seconds"].as_f64().expect("a number");
    assert!((0.6..4.0).contains(&seconds), "{seconds}");
    for load in ["reads", "creates"] {
        for phase in ["before", "during"] {
            let count = rebuild[load][phase]["count"].as_u64().expect("a number");
            assert!(count > 0, "{load} {phase}: {text}");
        }
        assert_eq!(rebuild[load]["failed"], 0, "{text}");
    }
    assert!(
        !directory.path().join("copy").exists(),
        "the plain copy is removed"
    );
}

#[test]
fn redundancy_that_does_not_return_is_no_result() {
    let directory = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on disk");
    let output = lose_a_server(directory.path(), "cat lost 2>/dev/null || echo 0");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("2 chunks are still below goal"), "{said}");
    assert!(!directory.path().join("out.json").exists());
}
