//! What is printed of a run, for people and for machines.

use antler_sim::figures::{Figures, Loss, SiteFigures};
use antler_sim::host::{Report, Verdict};
use serde_json::{Value, json};

/// A line for people (more when it failed).
pub(crate) fn line(report: &Report) -> String {
    let seconds = report.elapsed.as_secs_f64().max(1e-9);
    let mut line = format!(
        "seed {}: {} in {:.1}s of simulated time, {:.2}s, {} events ({:.0}/s), {} steps, judged {} \
         KiB of reads, {} answers, {} digests, {} records and {} ranges on disks, digest {:016x}",
        report.seed,
        report.verdict.word(),
        report.virtual_nanos as f64 / 1e9,
        seconds,
        report.events,
        report.events as f64 / seconds,
        report.steps,
        report.judged.bytes >> 10,
        report.judged.answers,
        report.judged.digests,
        report.judged.records,
        report.judged.ranges,
        report.digest,
    );
    let marks: Vec<&str> = report.marks.iter().map(|mark| mark.name()).collect();
    line.push_str(&format!("\n  marks: {}", marks.join(" ")));
    let waits = &report.waits;
    if waits.waited + waits.dropped > 0 {
        line.push_str(&format!(
            "\n  {} faults waited until they destroyed nothing for good, {:.1}s at most; {} waited \
             in vain and did not strike",
            waits.waited,
            waits.longest as f64 / 1e9,
            waits.dropped
        ));
    }
    for told in report.figures.iter().flat_map(Figures::told) {
        line.push_str(&format!("\n  {told}"));
    }
    if let Some(how) = report.verdict.how() {
        line.push_str(&format!("\n  {how}"));
    }
    line
}

/// The same for machines.
pub(crate) fn object(scenario: &str, report: &Report) -> Value {
    let marks: Vec<&str> = report.marks.iter().map(|mark| mark.name()).collect();
    let figures = report.figures.clone().unwrap_or_default();
    let sites: Vec<Value> = figures.sites.iter().map(site_object).collect();
    let losses: Vec<Value> = figures.losses.iter().map(loss_object).collect();
    json!({
        "scenario": scenario,
        "seed": report.seed,
        "verdict": report.verdict.word().to_lowercase(),
        "kind": report.kind,
        "how": report.verdict.how(),
        "exit_code": report.verdict.exit_code(),
        "virtual_seconds": report.virtual_nanos as f64 / 1e9,
        "seconds": report.elapsed.as_secs_f64(),
        "events": report.events,
        "events_per_second": report.events as f64 / report.elapsed.as_secs_f64().max(1e-9),
        "steps": report.steps,
        "bytes_judged": report.judged.bytes,
        "answers_judged": report.judged.answers,
        "orders_judged": report.judged.orders,
        "digests_judged": report.judged.digests,
        "records_judged": report.judged.records,
        "ranges_judged": report.judged.ranges,
        "reads_judged": report.judged.reads,
        "marks": marks,
        "faults_waited": report.waits.waited,
        "faults_waited_seconds_max": report.waits.longest as f64 / 1e9,
        "faults_dropped": report.waits.dropped,
        "sites": sites,
        "losses": losses,
        "digest": format!("{:016x}", report.digest),
    })
}

fn site_object(site: &SiteFigures) -> Value {
    json!({
        "site": site.name,
        "answered": site.answered,
        "available": site.available,
        "available_played": site.available_played,
        "p99_reads_seconds": site.p99_reads as f64 / 1e9,
        "p99_writes_seconds": site.p99_writes as f64 / 1e9,
    })
}

fn loss_object(loss: &Loss) -> Value {
    json!({
        "what": loss.what,
        "chunks": loss.chunks,
        "full_after_seconds": loss.full_after.map(|nanos| nanos as f64 / 1e9),
    })
}

/// The graver of two verdicts' exit codes: a panic, a broken promise, no progress.
pub(crate) fn graver(code: u8, verdict: &Verdict) -> u8 {
    let weight = |code: u8| match code {
        4 => 3,
        2 => 2,
        3 => 1,
        _ => 0,
    };
    let other = verdict.exit_code();
    if weight(other) > weight(code) {
        other
    } else {
        code
    }
}
