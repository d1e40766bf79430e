//! docs/scenarios.md against the reader of scenarios: every key that it lists is
//! taken, and every default that it tells is the default.
#![allow(clippy::unwrap_used)]

use antler_sim::scenario::{self, Scenario};
use std::path::Path;

const DOCUMENT: &str = include_str!("../../docs/scenarios.md");

/// The rows of the table in a section of the document, cut into cells.
fn rows(section: &str) -> Vec<Vec<String>> {
    let heading = format!("### `{section}`");
    let (_, behind) = DOCUMENT.split_once(&heading).unwrap();
    let own = behind.split("\n##").next().unwrap();
    let rows = own.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// Reads a scenario of this text.
fn read(name: &str, text: &str) -> Scenario {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(
        &path,
        format!("# Shows that documents tell the truth.\n{text}"),
    )
    .unwrap();
    scenario::load(&path).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

#[test]
fn every_key_is_read_and_has_the_default_that_is_told() {
    let defaults = format!("{:?}", read("defaults", ""));
    for section in ["cluster", "network", "limits", "workload", "expect"] {
        let rows = rows(&format!("[{section}]"));
        assert!(rows.len() >= 4, "{section} has too few keys: {rows:?}");
        for row in rows {
            let value = row[2].trim_matches('`');
            for key in row[1].split(", ").map(|key| key.trim_matches('`')) {
                let text = format!("[{section}]\n{key} = {value}\n");
                let found = read(&format!("{section}-{key}"), &text);
                assert_eq!(format!("{found:?}"), defaults, "{text}");
            }
        }
    }
}

#[test]
fn every_fault_is_read() {
    let rows = rows("[[fault]]");
    let from = rows
        .iter()
        .position(|row| row[1].contains("`kill`"))
        .unwrap();
    let mut count = 0;
    for row in &rows[from..] {
        for action in row[1].split(", ").map(|action| action.trim_matches('`')) {
            let by = match action {
                "jump-clock" => "by = \"1min\"\n",
                _ => "",
            };
            let who = match action {
                "lose-datacentre" => "datacentre-1",
                _ => "chunkserver",
            };
            let text = format!(
                "[[fault]]\ndo = \"{action}\"\nwho = \"{who}\"\nat = \"1s\"\nfor = \"1s\"\n{by}"
            );
            assert_eq!(read(&format!("fault-{action}"), &text).faults.len(), 1);
            count += 1;
        }
    }
    assert_eq!(count, 32);
}

#[test]
fn every_optional_key_is_read() {
    let sites = "[[site]]\nname = \"west\"\nmasters = 1\nchunkservers = 2\nclients = 1\n[[site]]\n\
                 name = \"east\"\nchunkservers = 2\n[storage]\nkeep = \"2 in dc=west\"\n";
    let cases = [
        ("[workload] documents", "[workload]\n"),
        ("[year]", "[year]\n"),
        ("[expect] figures", "[expect]\n"),
    ];
    for (section, head) in cases {
        let rows = rows(section);
        assert!(rows.len() >= 2, "{section} has too few keys: {rows:?}");
        for row in rows {
            let (key, value) = (row[1].trim_matches('`'), row[2].trim_matches('`'));
            let text = format!("{sites}{head}{key} = {value}\n");
            read(&format!("optional-{}", key), &text);
        }
    }
    // Each key of a site, at once, with what the table says.
    let text: String = rows("[[site]]")
        .iter()
        .map(|row| {
            format!(
                "{} = {}\n",
                row[1].trim_matches('`'),
                row[2].trim_matches('`')
            )
        })
        .collect();
    let site = format!("[[site]]\n{text}");
    assert_eq!(read("site", &site).sites.len(), 1, "{site}");
}

#[test]
fn every_rate_is_read() {
    let rows = rows("[[rate]]");
    let kinds = rows.iter().filter(|row| row[2].starts_with("each"));
    let mut count = 0;
    for row in kinds {
        for action in row[1].split(", ").map(|action| action.trim_matches('`')) {
            let of_disk = row[2].contains("disk");
            let rest = match of_disk {
                true => "replaced_after = \"1d\"",
                false => "who = \"site\"\nfor = \"1h\"",
            };
            let text = format!(
                "[[site]]\nname = \"west\"\nmasters = 1\nchunkservers = 2\nclients = 1\n[year]\n\
                 [[rate]]\ndo = \"{action}\"\nper_year = 1\n{rest}\n"
            );
            assert_eq!(read(&format!("rate-{action}"), &text).rates.len(), 1);
            count += 1;
        }
    }
    assert_eq!(count, 8);
}
