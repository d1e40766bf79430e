//! The page of a run, in a real browser where there is one (Debian's chromium): it draws
//! what it should, inside its bounds, legible in light and dark, and asks nobody for
//! anything.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Much goes wrong, at two places, and copies are made.
const BUSY: &str = r#"# Shows what a page shows.
[cluster]
datacentres = 2
chunkservers = 4
clients = 2
[workload]
profile = "data"
for = "6s"
[[fault]]
do = "lose-disk"
who = "chunkserver-1"
at = "1s"
[[fault]]
do = "power-cut"
who = "leader"
at = "2s"
for = "1s"
[[fault]]
do = "cut"
who = "chunkserver-3"
at = "3s"
for = "500ms"
"#;

/// A year at two sites and a third, of which little is played.
const YEAR: &str = r#"# Shows what a page shows of a year.
[[site]]
name = "west"
masters = 1
chunkservers = 3
disks = 2
clients = 1
[[site]]
name = "east"
masters = 1
chunkservers = 3
racks = 3
clients = 1
[[site]]
name = "third"
masters = 1
[[link]]
between = ["west", "third"]
latency = "3ms"
[storage]
keep = "1 in dc=west, 1 in dc=east"
create = "2 in dc=west or dc=east"
[workload]
profile = "documents"
actors = 1
files = 5
[year]
quiet = "6s"
[[rate]]
do = "lose-disk"
per_year = "60%"
replaced_after = "12h"
[[rate]]
do = "cut"
who = "link"
per_year = 0.5
for = "1h"
[[rate]]
do = "power-cut"
who = "site"
per_year = 0.5
for = "1h"
[expect]
available = "50%"
full_redundancy = "1min"
residency = "dc=west or dc=east"
"#;

/// Looks at the page from within and leaves what is wrong in the title.
const PROBE: &str = r#"<script>
addEventListener("load", () => {
  const wrong = [];
  const texts = document.querySelectorAll("svg text");
  if (document.querySelectorAll("svg").length < 6) wrong.push("too few figures");
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("wider than the window");
  for (const svg of document.querySelectorAll("svg")) {
    const box = svg.viewBox.baseVal;
    for (const part of svg.querySelectorAll("rect, text, line, polyline, polygon, circle")) {
      const b = part.getBBox();
      if (b.x < -1 || b.y < -1 || b.x + b.width > box.width + 1 || b.y + b.height > box.height + 1)
        wrong.push("outside: " + part.outerHTML.slice(0, 120));
    }
    const shown = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBBox()]);
    for (let i = 0; i < shown.length; i++) for (let j = i + 1; j < shown.length; j++) {
      const [a, b] = [shown[i][1], shown[j][1]];
      const across = Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x);
      const down = Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y);
      if (across > 1 && down > 3) wrong.push("overlap: " + shown[i][0] + " / " + shown[j][0]);
    }
    if (!svg.querySelector("title").textContent || !svg.querySelector("desc").textContent)
      wrong.push("no text alternative");
  }
  const luminance = c => {
    const [r, g, b] = c.match(/[\d.]+/g).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const contrast = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const paper = getComputedStyle(document.querySelector("figure")).backgroundColor;
  for (const text of texts) {
    const ratio = contrast(getComputedStyle(text).fill, paper);
    if (ratio < 4.5) { wrong.push("contrast " + ratio.toFixed(1)); break; }
  }
  for (const part of document.querySelectorAll("p, dt, dd, figcaption, .verdict")) {
    const ratio = contrast(getComputedStyle(part).color, paper);
    if (ratio < 4.5) { wrong.push("contrast " + ratio.toFixed(1) + " of " + part.textContent.slice(0, 20)); break; }
  }
  for (const entry of performance.getEntriesByType("resource")) wrong.push("asks for " + entry.name);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.title = "looked at " + (dark ? "dark" : "light") + ": " + (wrong.join("; ") || "all well");
});
</script>"#;

fn folder() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// Runs a scenario and reads its page.
fn page(folder: &Path, name: &str, text: &str) -> String {
    let scenario = folder.join(format!("{name}.toml"));
    std::fs::write(&scenario, text).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_antler-sim"))
        .args(["run", scenario.to_str().unwrap(), "--seed", "1", "--report"])
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        run.status.success() && run.stderr.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr)
    );
    std::fs::read_to_string(folder.join(format!("{name}-1.html"))).unwrap()
}

#[test]
fn a_page_tells_everything_as_text_and_needs_nothing_else() {
    let folder = folder().join("text");
    std::fs::create_dir_all(&folder).unwrap();
    let page = page(&folder, "busy", BUSY);
    for word in [
        "busy.toml, seed 1",
        "Options drawn",
        "power-cut master-",
        "Chunks by redundancy",
        "Latency in dc1",
        "Latency in dc2",
        "Where the data was",
        "copies were made from others",
        "prefers-color-scheme: dark",
        "--seed 1 --trace",
    ] {
        assert!(page.contains(word), "{word} is not in the page");
    }
    for foreign in [
        "http://", "https://", "<script", "<link", "<img", "url(", "@import",
    ] {
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
    assert!(page.matches("<desc").count() >= 6);
    // A write that waits for disks takes milliseconds.
    let (_, latency) = page.split_once("Latency in dc1</h2>").unwrap();
    let (caption, _) = latency.split_once("</figcaption>").unwrap();
    assert!(
        caption.contains(" ms") && !caption.contains(" 0 µs"),
        "{caption}"
    );
}

#[test]
fn a_page_of_a_year_tells_what_an_operator_asks() {
    let folder = folder().join("year");
    std::fs::create_dir_all(&folder).unwrap();
    let page = page(&folder, "year", YEAR);
    for word in [
        "365 days, of which",
        ">day 1</text>",
        "<h2>Availability</h2>",
        "answered within 5.00 s: west ",
        "Time to full redundancy",
        "disks were lost with",
        "class=\"mark\"",
        "Where the data was, by site",
        "Latency in east",
        "chunkserver-4 (east)",
        "faults that waited",
    ] {
        assert!(page.contains(word), "{word} is not in the page");
    }
    // Each fault has its date in the year.
    let (_, faults) = page.split_once("<h2>Faults</h2>").unwrap();
    let (table, _) = faults.split_once("</table>").unwrap();
    let rows = table.matches("<tr>").count() - 1;
    assert_eq!(table.matches("<tr><td>day ").count(), rows);
    assert!(rows > 3, "{rows} faults");
}

#[test]
fn a_browser_draws_the_page_in_light_and_dark() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find(|name| {
            Command::new(name)
                .arg("--version")
                .output()
                .is_ok_and(|output| output.status.success())
        })
    else {
        let missing = "there is no chromium here to draw the page";
        assert!(std::env::var_os("NEEDS_BROWSER").is_none(), "{missing}");
        println!("skipped: {missing}");
        return;
    };
    let folder = folder().join("browser");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, scenario) in [("busy", BUSY), ("year", YEAR)] {
        look_at(browser, &folder, &page(&folder, name, scenario));
    }
}

/// Has a browser look at a page, as it is and in the dark, wide and narrow.
fn look_at(browser: &str, folder: &Path, text: &str) {
    // The probe is a script, which the page itself does not allow.
    let policy = "http-equiv=\"Content-Security-Policy\"";
    assert!(text.contains(policy));
    let probed = text
        .replace(policy, "name=\"policy\"")
        .replace("</body>", &format!("{PROBE}</body>"));
    let path = folder.join("probed.html");
    std::fs::write(&path, probed).unwrap();
    for (flag, word) in [
        ("--blink-settings=preferredColorScheme=1", "light"),
        ("--blink-settings=preferredColorScheme=0", "dark"),
    ] {
        for width in ["1100,900", "420,900"] {
            let dumped = Command::new(browser)
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--dump-dom",
                    flag,
                ])
                .arg(format!("--window-size={width}"))
                .arg(format!(
                    "--user-data-dir={}",
                    folder.join("profile").display()
                ))
                .arg(format!("file://{}", path.display()))
                .output()
                .unwrap();
            let dom = String::from_utf8_lossy(&dumped.stdout);
            let (_, rest) = dom.split_once("<title>").expect("a page has a title");
            let (title, _) = rest.split_once("</title>").unwrap();
            assert_eq!(title, format!("looked at {word}: all well"), "at {width}");
        }
    }
}
