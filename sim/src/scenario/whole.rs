//! What no section of a scenario can tell by itself: impossible topologies, sections
//! that say the same thing twice, expectations that contradict what is asked for.
//!
//! Owns these checks and where in the file each is told.

use super::expect::Residency;
use super::{Action, Each, Link, Scenario, Site, line_of};
use antler_core::placement::{Labels, Policy, fill, reason};

/// A line, and what is wrong there.
type Wrong = (usize, String);

/// Events of a year at most: each is played for up to `quiet`.
const EVENTS_MAX: f64 = 2000.0;

/// # Errors
/// The first thing that is impossible, with its line.
pub(super) fn check(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    for (number, site) in scenario.sites.iter().enumerate() {
        let line = line_of(text, "[[site]]", number);
        site.check().map_err(|how| (line, how))?;
    }
    if !scenario.sites.is_empty() {
        check_sites(text, scenario)?;
    }
    check_links(text, scenario)?;
    check_storage(text, scenario)?;
    check_year(text, scenario)?;
    check_expectations(text, scenario)
}

/// The line of a key in a section.
fn line_of_key(text: &str, head: &str, key: &str) -> Option<usize> {
    let lines = text.lines().enumerate();
    let mut own = lines.skip_while(|(_, line)| line.trim() != head).skip(1);
    let found = own
        .by_ref()
        .take_while(|(_, line)| !line.trim_start().starts_with('['))
        .find(|(_, line)| line.split('=').next().map(str::trim) == Some(key));
    found.map(|(line, _)| line + 1)
}

/// The first of several keys that a section has.
fn any_of(text: &str, head: &str, keys: &[&'static str]) -> Option<Wrong> {
    let found = keys
        .iter()
        .filter_map(|&key| Some((line_of_key(text, head, key)?, key.to_owned())));
    found.min()
}

fn check_sites(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    let counts = [
        "masters",
        "metaloggers",
        "chunkservers",
        "disks",
        "clients",
        "datacentres",
        "masters_in",
        "disk",
        "disk_size",
    ];
    if let Some((line, key)) = any_of(text, "[cluster]", &counts) {
        let how = format!("`{key}` is told by each `[[site]]`: leave it out here");
        return Err((line, how));
    }
    let sites = &scenario.sites;
    for (number, site) in sites.iter().enumerate() {
        if sites[..number].iter().any(|other| other.name == site.name) {
            let line = line_of(text, "[[site]]", number);
            return Err((line, format!("there are two sites called `{}`", site.name)));
        }
    }
    let first = line_of(text, "[[site]]", 0);
    let total = |count: fn(&Site) -> u64| sites.iter().map(count).sum::<u64>();
    let needed: [(&str, u64); 3] = [
        ("masters", total(|site| site.masters)),
        ("chunkservers", total(|site| site.chunkservers)),
        ("clients", total(|site| site.clients)),
    ];
    match needed.iter().find(|(_, count)| *count == 0) {
        Some((what, _)) => Err((
            first,
            format!("no site has {what}: give one of them `{what} = 1` at least"),
        )),
        None => Ok(()),
    }
}

fn check_links(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    let is_known = |name: &String| scenario.sites.iter().any(|site| site.name == *name);
    for (number, link) in scenario.links.iter().enumerate() {
        let Link { between, .. } = link;
        let line = line_of(text, "[[link]]", number);
        if let Some(unknown) = [&between.0, &between.1].into_iter().find(|n| !is_known(n)) {
            let names: Vec<&str> = scenario
                .sites
                .iter()
                .map(|site| site.name.as_str())
                .collect();
            let how = format!("there is no site `{unknown}`, only: {}", names.join(", "));
            return Err((line, how));
        }
        if between.0 == between.1 {
            let how = "a link is between two sites: `[network] latency` is within one";
            return Err((line, how.to_owned()));
        }
        if link.latency.is_none() && link.bandwidth.is_none() {
            let how = "a link says its `latency`, its `bandwidth`, or both";
            return Err((line, how.to_owned()));
        }
    }
    Ok(())
}

/// The labels of every chunkserver; `None` if the scenario does not tell them.
fn labels(scenario: &Scenario) -> Option<Vec<Labels>> {
    let sites = scenario.sites.iter();
    (!scenario.sites.is_empty()).then(|| sites.flat_map(Site::labels).collect())
}

fn check_storage(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    let Some(storage) = &scenario.storage else {
        let servers: u64 = scenario.sites.iter().map(|site| site.chunkservers).sum();
        let copies = scenario.cluster.copies.range.high;
        return match !scenario.sites.is_empty() && servers < copies {
            true => Err((
                line_of_key(text, "[cluster]", "copies").unwrap_or(1),
                format!("{servers} chunkservers can't hold {copies} copies of a chunk"),
            )),
            false => Ok(()),
        };
    };
    let line = |key| line_of_key(text, "[storage]", key).unwrap_or(1);
    if let Some(line) = line_of_key(text, "[cluster]", "copies") {
        let how = "`[storage] keep` tells the copies: leave `copies` out here";
        return Err((line, how.to_owned()));
    }
    let policies = storage.policies().map_err(|how| (line("keep"), how))?;
    let Some(labels) = labels(scenario) else {
        return Ok(());
    };
    for (policy, key) in policies.iter().zip(["keep", "create"]) {
        let unmet = reason::unmet(policy, &labels.iter().collect::<Vec<_>>());
        if !unmet.is_empty() {
            let how = format!("the sites can't meet `{policy}`: {}", unmet.join("; "));
            return Err((line(key), how));
        }
    }
    Ok(())
}

fn check_year(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    for (number, rate) in scenario.rates.iter().enumerate() {
        let line = line_of(text, "[[rate]]", number);
        rate.check().map_err(|how| (line, how))?;
        if scenario.year.is_none() {
            let how = "a rate is drawn over a year: add `[year]`";
            return Err((line, how.to_owned()));
        }
        let places = scenario.sites.len();
        if matches!(rate.each(), Each::Link) && places < 2 {
            let how = "there are no links: a cluster with links has two `[[site]]` at least";
            return Err((line, how.to_owned()));
        }
        if places == 0 {
            let how = "rates are of what sites have: tell them with `[[site]]`";
            return Err((line, how.to_owned()));
        }
    }
    let Some(year) = scenario.year else {
        return Ok(());
    };
    let head = line_of(text, "[year]", 0);
    year.check().map_err(|how| (head, how))?;
    if let Some(line) = line_of_key(text, "[workload]", "for") {
        let how = "`[year]` tells how long programs work: leave `for` out here";
        return Err((line, how.to_owned()));
    }
    let events = expected_events(scenario, year.days);
    if events > EVENTS_MAX {
        let how =
            format!("about {events:.0} events in all: more than {EVENTS_MAX} can't be played");
        return Err((head, how));
    }
    Ok(())
}

fn expected_events(scenario: &Scenario, days: u64) -> f64 {
    let years = days as f64 / 365.0;
    let rates = scenario.rates.iter();
    let expected = rates.map(|rate| {
        let counts = scenario.sites.iter().map(|site| rate.targets(site));
        let targets: f64 = match rate.each() {
            Each::Link => scenario.links_between() as f64,
            _ => counts.sum::<u64>() as f64,
        };
        let size =
            |site: &Site| rate.targets(site) as f64 * site.disk_size.range.high as f64 / 1e12;
        match (rate.per_year, rate.per_tb_year) {
            (Some(often), _) => often.0 * targets,
            (None, Some(often)) => often.0 * scenario.sites.iter().map(size).sum::<f64>(),
            (None, None) => 0.0,
        }
    });
    expected.sum::<f64>() * years
}

impl Scenario {
    fn links_between(&self) -> usize {
        let places = self.sites.len();
        places * places.saturating_sub(1) / 2
    }
}

impl super::Rate {
    /// How many of what it happens to a site has.
    fn targets(&self, site: &Site) -> u64 {
        match self.each() {
            Each::Disk => site.chunkservers * site.disks,
            Each::Master => site.masters,
            Each::Metalogger => site.metaloggers,
            Each::Chunkserver => site.chunkservers,
            Each::Client => site.clients,
            Each::Rack => match site.chunkservers {
                0 => 0,
                _ => site.racks,
            },
            Each::Site => 1,
            Each::Link => 0,
        }
    }
}

fn check_expectations(text: &str, scenario: &Scenario) -> Result<(), Wrong> {
    let expect = &scenario.expect;
    let line = |key| line_of_key(text, "[expect]", key).unwrap_or(1);
    if expect.no_loss == Some(false) {
        let how = "that nothing is lost is always judged: it can't be left out";
        return Err((line("no_loss"), how.to_owned()));
    }
    if expect.residency.is_some() {
        check_residency(scenario).map_err(|how| (line("residency"), how))?;
    }
    if expect.full_redundancy.is_some() {
        check_spare(scenario).map_err(|how| (line("full_redundancy"), how))?;
    }
    match expect.p99 {
        Some(most) if most.range.low < scenario.network.latency.range.low * 2 => {
            let how = "no answer can come sooner than there and back over `[network] latency`";
            Err((line("p99"), how.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A place that copies may not leave must hold all that are wanted.
fn check_residency(scenario: &Scenario) -> Result<(), String> {
    let storage = scenario.storage.as_ref();
    if storage.is_none() && scenario.operator.is_empty() {
        return Err("nothing says where copies may lie: add `[storage]` with `keep`".to_owned());
    }
    let (Some(Residency::Within(place)), Some(labels)) =
        (&scenario.expect.residency, labels(scenario))
    else {
        return Ok(());
    };
    let outside: Vec<&Labels> = labels.iter().filter(|one| !place.matches(one)).collect();
    let policies = storage.map_or_else(|| Ok(Vec::new()), |storage| storage.policies())?;
    for policy in policies {
        if let Some(labels) = outside.iter().find(|labels| policy.permits(labels)) {
            let shown: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            return Err(format!(
                "`{policy}` permits copies on {}, which is outside: say there where copies may \
                 lie, or leave this out",
                shown.join(",")
            ));
        }
    }
    Ok(())
}

/// A server without its only disk can't be what a full redundancy needs.
fn check_spare(scenario: &Scenario) -> Result<(), String> {
    let loses = scenario
        .rates
        .iter()
        .any(|rate| rate.action == Action::LoseDisk);
    let (true, Some(labels), Some(storage)) = (loses, labels(scenario), &scenario.storage) else {
        return Ok(());
    };
    let policy: Policy = storage.policies()?.swap_remove(0);
    let disks: Vec<u64> = scenario
        .sites
        .iter()
        .flat_map(|site| std::iter::repeat_n(site.disks, site.chunkservers as usize))
        .collect();
    for (without, _) in disks.iter().enumerate().filter(|(_, disks)| **disks == 1) {
        let mut others: Vec<&Labels> = labels.iter().collect();
        others.remove(without);
        if fill(&policy, &others).filled < policy.copies {
            let site = &labels[without][0].1;
            return Err(format!(
                "when chunkserver-{} in {site} loses its only disk, the others can't hold \
                 `{policy}`: add a chunkserver or a disk there",
                without + 1
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    const SITES: &str = "# shows\n[[site]]\nname = \"west\"\nmasters = 2\nchunkservers = 2\n\
                         clients = 1\n[[site]]\nname = \"east\"\nmasters = 1\nchunkservers = 2\n";

    /// What is wrong with the sites and what follows them: the line and the words.
    fn wrong(rest: &str) -> (usize, String) {
        let error = parse("s.toml", &format!("{SITES}{rest}")).expect_err(rest);
        (error.line, error.message)
    }

    #[test]
    fn sites_are_told_once_and_make_a_cluster() {
        parse("s.toml", SITES).expect("valid");
        let cases = [
            ("[cluster]\nmasters = 3\n", 12, "each `[[site]]`"),
            ("[cluster]\ncopies = 5\n", 12, "4 chunkservers can't hold 5"),
            ("[[site]]\nname = \"east\"\n", 11, "two sites called"),
            ("[[site]]\nname = \"no th\"\n", 11, "can't be a label"),
            (
                "[[site]]\nname = \"n\"\nracks = 3\nchunkservers = 2\n",
                11,
                "each rack needs one",
            ),
            (
                "[[site]]\nname = \"n\"\ndisk = \"fast\"\n",
                13,
                "unknown variant",
            ),
            (
                "[[link]]\nbetween = [\"west\", \"north\"]\nlatency = \"1ms\"\n",
                11,
                "only: west, east",
            ),
        ];
        for (rest, line, word) in cases {
            let found = wrong(rest);
            assert!(
                found.0 == line && found.1.contains(word),
                "{rest}: {found:?}"
            );
        }
        let masterless = SITES.replace("masters = 2", "").replace("masters = 1", "");
        let error = parse("s.toml", &masterless).expect_err("no master");
        assert!(
            error.line == 2 && error.message.contains("`masters = 1`"),
            "{error}"
        );
    }

    #[test]
    fn what_the_sites_cannot_hold_is_refused() {
        let cases = [
            (
                "[storage]\nkeep = \"3 in dc=west\"\n",
                12,
                "2 of 3 copies have a place",
            ),
            ("[storage]\nkeep = \"1 in\"\n", 12, "column"),
            (
                "[storage]\nkeep = \"1 in dc=west, 1 in dc=north\"\n",
                12,
                "`1 in dc=north hard`",
            ),
        ];
        for (rest, line, word) in cases {
            let found = wrong(rest);
            assert!(
                found.0 == line && found.1.contains(word),
                "{rest}: {found:?}"
            );
        }
    }

    #[test]
    fn a_year_has_rates_that_say_of_what() {
        let year = "[year]\nquiet = \"20s\"\n";
        let cases = [
            (
                "[[rate]]\ndo = \"lose-disk\"\nper_year = 1\n",
                11,
                "add `[year]`",
            ),
            ("[year]\ndays = 0\n", 11, "`days` is from 1"),
            ("[year]\n[workload]\nfor = \"5s\"\n", 13, "leave `for` out"),
            (
                "[year]\n[[rate]]\ndo = \"power-cut\"\nper_year = 1\n",
                12,
                "to each of what",
            ),
            (
                "[year]\n[[rate]]\ndo = \"power-cut\"\nwho = \"master\"\nper_year = 1\n",
                12,
                "`for`",
            ),
            ("[year]\n[[rate]]\ndo = \"lose-disk\"\n", 12, "`per_year`"),
            (
                "[year]\n[[rate]]\ndo = \"lose-disk\"\nper_year = \"120%\"\n",
                14,
                "less than 100%",
            ),
            (
                "[year]\n[[rate]]\ndo = \"rot\"\nper_year = 9999\n",
                11,
                "can't be played",
            ),
            (
                "[year]\n[[rate]]\ndo = \"fill-disk\"\nwho = \"chunkserver\"\nper_year = 1\n",
                12,
                "no rate",
            ),
        ];
        for (rest, line, word) in cases {
            let found = wrong(rest);
            assert!(
                found.0 == line && found.1.contains(word),
                "{rest}: {found:?}"
            );
        }
        let rate = "[[rate]]\ndo = \"lose-disk\"\nper_year = \"4%\"\nreplaced_after = \"1d\"\n";
        parse("s.toml", &format!("{SITES}{year}{rate}")).expect("valid");
    }

    #[test]
    fn expectations_that_contradict_the_rest_are_refused() {
        let storage = "[storage]\nkeep = \"1 in dc=west, 1 in dc=east\"\n";
        let lost = "[year]\n[[rate]]\ndo = \"lose-disk\"\nper_year = 1\n";
        let within = format!("{storage}[expect]\nresidency = \"dc=west\"\n");
        let spare = "[storage]\nkeep = \"2 in dc=west\"\n";
        let spare = format!("{spare}{lost}[expect]\nfull_redundancy = \"1min\"\n");
        let cases = [
            (within.as_str(), 14, "dc=east,rack=r1, which is outside"),
            (
                spare.as_str(),
                18,
                "chunkserver-1 in west loses its only disk",
            ),
            ("[expect]\nresidency = \"always\"\n", 12, "add `[storage]`"),
            ("[expect]\nno_loss = false\n", 12, "always judged"),
            ("[expect]\navailable = \"101%\"\n", 12, "at most \"100%\""),
            ("[expect]\np99 = \"10us\"\n", 12, "there and back"),
        ];
        for (rest, line, word) in cases {
            let found = wrong(rest);
            assert!(
                found.0 == line && found.1.contains(word),
                "{rest}: {found:?}"
            );
        }
        let always = format!("{storage}[expect]\nresidency = \"always\"\nno_loss = true\n");
        parse("s.toml", &format!("{SITES}{always}")).expect("valid");
    }
}
