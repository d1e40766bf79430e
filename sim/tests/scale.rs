//! Scale runs, small: a rack lost and rebuilt, with the same digest twice; and what the
//! judge must not let pass.

use antler_sim::host::Verdict;
use antler_sim::scale::spec::{self, ScalePlan};
use antler_sim::scale::{self, ScaleOptions, ScaleReport};

const SMALL: &str = "# A rack and a server are lost.\n\
    [scale]\nracks = 5\nservers = 20\ndisks = 3\nchunks = 3000\nrot = 100_000\n\
    disk_size = \"400GiB\"\nfor = \"10min\"\n\
    [[loss]]\nat = \"20s\"\nracks = 1\n\
    [[loss]]\nat = \"24s\"\nservers = 1\n\
    [[loss]]\nat = \"30s\"\ndisks = 1\n";

fn plan(text: &str) -> ScalePlan {
    let scenario = spec::parse("small.toml", text).expect("valid");
    ScalePlan::draw(&scenario, 3).expect("it fits")
}

fn play(text: &str, blind: bool) -> ScaleReport {
    scale::run(&plan(text), ScaleOptions { blind })
}

#[test]
fn a_rack_is_rebuilt_and_rot_is_found_on_the_way() {
    let report = play(SMALL, false);
    assert_eq!(report.verdict, Verdict::Passed, "{}", report.lines());
    assert!(
        report.made > 1500 && report.lacking_max > 1000,
        "{}",
        report.lines()
    );
    assert!(report.found_bad > 20 && report.units > report.made);
    assert!(
        report.orders > 0,
        "some were endangered: {}",
        report.lines()
    );
    assert!(report.endangered.max() < report.lacked.max());
    assert_eq!(report.relinked, 0);
    let again = play(SMALL, false);
    assert_eq!((report.digest, report.made), (again.digest, again.made));
    let page = scale::page("small.toml", &report);
    assert!(page.contains("<svg") && page.ends_with("</html>\n"));
    assert_eq!(report.object("small.toml")["verdict"], "passed");
}

#[test]
fn a_copy_made_from_a_rotten_one_is_noticed() {
    let report = play(SMALL, true);
    let Verdict::Broken(how) = &report.verdict else {
        panic!("servers that check nothing copy rot: {}", report.lines());
    };
    assert!(how.starts_with("bytes: "), "{how}");
}

#[test]
fn a_rebuild_that_is_too_slow_is_no_progress() {
    let slow = format!("{SMALL}[expect]\nredundancy = \"1s\"\n");
    let report = play(&slow, false);
    let Verdict::Stuck(how) = &report.verdict else {
        panic!("a second is too short: {}", report.lines());
    };
    assert!(how.starts_with("redundancy: "), "{how}");
}

#[test]
fn chunks_with_all_copies_in_a_lost_rack_are_told_as_lost() {
    let text = "# All copies may be in one rack.\n[scale]\nracks = 2\nservers = 20\n\
        copies = 2\nchunks = 2000\nspread = \"server\"\nfor = \"5min\"\n\
        [[loss]]\nat = \"20s\"\nracks = 1\n";
    let report = play(text, false);
    assert_eq!(report.verdict, Verdict::Passed, "{}", report.lines());
    assert!(report.lost > 300, "{}", report.lines());
    assert_eq!(report.endangered.len(), report.lacked.len());
}
