//! Scale scenarios: how large the cluster is, what is lost when, and what must come of
//! it.
//!
//! Owns the form of the file (docs/scenarios.md) and its strict reading; numbers are
//! drawn once per seed, as in other scenarios. Invariant: what was drawn can be built,
//! so that nothing behind this file has to doubt it.

use crate::scenario::{Bytes, Count, ScenarioError, Span, parse_file, read_strictly};
use antler_core::limits::{CHUNK_SIZE, COPIES_MAX, UNIT_SIZE};
use antler_core::rng::Rng;
use serde::Deserialize;
use std::path::Path;

/// Servers, so that one fits into two bytes of the judge's books.
const SERVERS_MAX: u64 = 50_000;
/// Chunks, so that one is named by four bytes.
const CHUNKS_MAX: u64 = 4_000_000_000;
const DISKS_MAX: u64 = 64;

/// A scale scenario as its file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleScenario {
    /// The cluster.
    pub scale: Scale,
    /// What is lost, for good.
    #[serde(default, rename = "loss")]
    pub losses: Vec<Loss>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// How large the cluster is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scale {
    /// Racks that the servers stand in, in turn.
    pub racks: Count,
    /// Chunkservers.
    pub servers: Count,
    /// Disks of each.
    pub disks: Count,
    /// Chunks.
    pub chunks: Count,
    /// Copies of each.
    pub copies: Count,
    /// Bytes of each.
    pub chunk_size: Bytes,
    /// Chunks of each file.
    pub chunks_per_file: Count,
    /// How the copies were spread when the chunks were written.
    pub spread: Spread,
    /// Bytes of a disk.
    pub disk_size: Bytes,
    /// Bytes a second that a disk reads and writes in all.
    pub disk_speed: Bytes,
    /// Bytes a second of a server's network card, in each direction.
    pub network: Bytes,
    /// One way between any two machines.
    pub latency: Span,
    /// Of a million chunks, how many have one copy in which a bit rotted.
    pub rot: Count,
    /// For how long it runs.
    #[serde(rename = "for")]
    pub duration: Span,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            racks: Count::only(10),
            servers: Count::only(50),
            disks: Count::only(12),
            chunks: Count::only(100_000),
            copies: Count::only(3),
            chunk_size: Bytes::only(CHUNK_SIZE),
            chunks_per_file: Count::only(10),
            spread: Spread::Rack,
            disk_size: Bytes::only(8 << 40),
            disk_speed: Bytes::only(150 << 20),
            network: Bytes::only(1200 << 20),
            latency: Span::only(100_000),
            rot: Count::only(0),
            duration: Span::only(3600 * 1_000_000_000),
        }
    }
}

/// How copies were spread when their chunks were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    /// No two in one rack.
    Rack,
    /// No two on one server.
    Server,
}

/// Something that is lost for good: exactly one of `racks`, `servers` and `disks`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// When.
    pub at: Span,
    /// So many whole racks.
    #[serde(default)]
    pub racks: Option<Count>,
    /// So many servers.
    #[serde(default)]
    pub servers: Option<Count>,
    /// So many disks, of servers that live on.
    #[serde(default)]
    pub disks: Option<Count>,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// How soon after the last loss every chunk that has a copy left has all of them.
    pub redundancy: Span,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            redundancy: Span::only(1800 * 1_000_000_000),
        }
    }
}

/// What a seed drew from a scenario.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScalePlan {
    /// The seed.
    pub seed: u64,
    /// Racks, each with at least one server.
    pub racks: u16,
    /// Servers; number `s` stands in rack `s % racks`.
    pub servers: u16,
    /// Disks of each server.
    pub disks: u8,
    /// Chunks, numbered from 0 here and from 1 in the cluster.
    pub chunks: u32,
    /// Copies of each.
    pub copies: usize,
    /// Bytes of each, whole units.
    pub chunk_size: u64,
    /// Chunks of each file but the last.
    pub chunks_per_file: u32,
    /// How the copies were spread.
    pub spread: Spread,
    /// Bytes of a disk.
    pub disk_size: u64,
    /// Bytes a second of a disk.
    pub disk_speed: u64,
    /// Bytes a second of a network card in each direction.
    pub network: u64,
    /// Nanoseconds one way.
    pub latency: u64,
    /// Of a million chunks, how many have a copy in which a bit rotted.
    pub rot: u64,
    /// Nanoseconds that are simulated.
    pub duration: u64,
    /// What is lost, by time.
    pub losses: Vec<PlannedLoss>,
    /// Nanoseconds after the last loss within which redundancy must be back.
    pub redundancy: u64,
}

/// A loss as it was drawn.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PlannedLoss {
    /// When.
    pub at: u64,
    /// Whole servers, by number.
    pub servers: Vec<u16>,
    /// Disks: server and place in it.
    pub disks: Vec<(u16, u8)>,
    /// What it is, in words.
    pub what: String,
}

/// Reads a scale scenario's file.
///
/// # Errors
/// When it can't be read, says something that is not known or makes no sense.
pub fn load(path: &Path) -> Result<ScaleScenario, ScenarioError> {
    parse_file(path, parse)
}

/// Reads a scale scenario.
///
/// # Errors
/// When it says something that is not known or makes no sense.
pub fn parse(path: &str, text: &str) -> Result<ScaleScenario, ScenarioError> {
    let scenario: ScaleScenario = read_strictly(path, text)?;
    scenario.check().map_err(|message| ScenarioError {
        path: path.to_owned(),
        line: 1,
        message,
    })?;
    Ok(scenario)
}

/// Whether a file's text is a scale scenario's: `run` and `swarm` play the others.
#[must_use]
pub fn is_scale(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "[scale]")
}

impl ScaleScenario {
    fn check(&self) -> Result<(), String> {
        let one = &self.scale;
        bounded("racks", &one.racks, 1, SERVERS_MAX)?;
        bounded("servers", &one.servers, one.racks.range.high, SERVERS_MAX)?;
        bounded("disks", &one.disks, 1, DISKS_MAX)?;
        bounded("chunks", &one.chunks, 1, CHUNKS_MAX)?;
        bounded("copies", &one.copies, 1, u64::from(COPIES_MAX))?;
        bounded("chunks_per_file", &one.chunks_per_file, 1, 100_000)?;
        bounded("rot", &one.rot, 0, 1_000_000)?;
        bounded("chunk_size", &one.chunk_size, UNIT_SIZE as u64, CHUNK_SIZE)?;
        bounded("disk_speed", &one.disk_speed, 1 << 20, 1 << 40)?;
        bounded("network", &one.network, 1 << 20, 1 << 40)?;
        bounded("latency", &one.latency, 1_000, 1_000_000_000)?;
        bounded("for", &one.duration, 30_000_000_000, 1 << 52)?;
        let places = match one.spread {
            Spread::Rack => &one.racks,
            Spread::Server => &one.servers,
        };
        if places.range.low <= one.copies.range.high {
            return Err("there are not more places to spread copies over than copies".to_owned());
        }
        self.losses.iter().try_for_each(|loss| loss.check(self))
    }
}

impl Loss {
    fn check(&self, whole: &ScaleScenario) -> Result<(), String> {
        let said = [self.racks, self.servers, self.disks];
        if said.iter().flatten().count() != 1 {
            return Err("a loss is of `racks`, of `servers` or of `disks`".to_owned());
        }
        if self.at.range.high >= whole.scale.duration.range.low {
            return Err("a loss comes before the end".to_owned());
        }
        Ok(())
    }
}

fn bounded<U>(
    name: &str,
    value: &crate::scenario::Draw<U>,
    low: u64,
    high: u64,
) -> Result<(), String> {
    let range = value.range;
    match range.low >= low && range.high <= high {
        true => Ok(()),
        false => Err(format!("`{name}` is from {low} to {high}")),
    }
}

impl ScalePlan {
    /// Draws what a seed plays.
    ///
    /// # Errors
    /// When what was drawn does not fit together.
    pub fn draw(scenario: &ScaleScenario, seed: u64) -> Result<Self, String> {
        let mut rng = Rng::new(seed);
        let one = &scenario.scale;
        let chunk_size = one.chunk_size.range.draw(&mut rng) / UNIT_SIZE as u64;
        let mut plan = Self {
            seed,
            racks: one.racks.range.draw(&mut rng) as u16,
            servers: one.servers.range.draw(&mut rng) as u16,
            disks: one.disks.range.draw(&mut rng) as u8,
            chunks: one.chunks.range.draw(&mut rng) as u32,
            copies: one.copies.range.draw(&mut rng) as usize,
            chunk_size: chunk_size * UNIT_SIZE as u64,
            chunks_per_file: one.chunks_per_file.range.draw(&mut rng) as u32,
            spread: one.spread,
            disk_size: one.disk_size.range.draw(&mut rng),
            disk_speed: one.disk_speed.range.draw(&mut rng),
            network: one.network.range.draw(&mut rng),
            latency: one.latency.range.draw(&mut rng),
            rot: one.rot.range.draw(&mut rng),
            duration: one.duration.range.draw(&mut rng),
            losses: Vec::new(),
            redundancy: scenario.expect.redundancy.range.draw(&mut rng),
        };
        plan.fits()?;
        plan.draw_losses(&scenario.losses, &mut rng)?;
        Ok(plan)
    }

    /// Whether there is room for the copies, twice over.
    fn fits(&self) -> Result<(), String> {
        let bytes = u128::from(self.chunks) * self.copies as u128 * u128::from(self.chunk_size);
        let disks = u128::from(self.servers) * u128::from(self.disks);
        match bytes * 2 <= disks * u128::from(self.disk_size) {
            true => Ok(()),
            false => Err("the disks have no room for the copies and half as many again".to_owned()),
        }
    }

    fn draw_losses(&mut self, losses: &[Loss], rng: &mut Rng) -> Result<(), String> {
        let mut left: Vec<u16> = (0..self.servers).collect();
        let mut drawn: Vec<(u64, &Loss)> = losses
            .iter()
            .map(|loss| (loss.at.range.draw(rng), loss))
            .collect();
        drawn.sort_by_key(|(at, _)| *at);
        for (at, loss) in drawn {
            let planned = self.draw_loss(at, loss, &mut left, rng)?;
            self.losses.push(planned);
        }
        Ok(())
    }

    fn draw_loss(
        &self,
        at: u64,
        loss: &Loss,
        left: &mut Vec<u16>,
        rng: &mut Rng,
    ) -> Result<PlannedLoss, String> {
        let mut planned = PlannedLoss {
            at,
            servers: Vec::new(),
            disks: Vec::new(),
            what: String::new(),
        };
        let mut pick = |from: &mut Vec<u16>| match from.is_empty() {
            true => Err("more is lost than there is".to_owned()),
            false => Ok(from.swap_remove(rng.below(from.len() as u64) as usize)),
        };
        if let Some(count) = loss.racks {
            let mut racks: Vec<u16> = left.iter().map(|server| server % self.racks).collect();
            racks.sort_unstable();
            racks.dedup();
            for _ in 0..count.range.low {
                let rack = pick(&mut racks)?;
                let inside = left.iter().filter(|server| *server % self.racks == rack);
                planned.servers.extend(inside);
            }
            planned.what = format!("{} racks", count.range.low);
        }
        if let Some(count) = loss.servers {
            for _ in 0..count.range.low {
                planned.servers.push(pick(left)?);
            }
            planned.what = format!("{} servers", count.range.low);
        }
        if let Some(count) = loss.disks {
            let mut hit = left.clone();
            for _ in 0..count.range.low {
                planned.disks.push((pick(&mut hit)?, 0));
            }
            planned.what = format!("{} disks", count.range.low);
        }
        left.retain(|server| !planned.servers.contains(server));
        planned.servers.sort_unstable();
        Ok(planned)
    }

    /// The rack of a server.
    #[must_use]
    pub fn rack_of(&self, server: u16) -> u16 {
        server % self.racks
    }

    /// Units of a chunk.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.chunk_size / UNIT_SIZE as u64
    }

    /// What was drawn, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let losses: Vec<String> = self
            .losses
            .iter()
            .map(|loss| format!("{} at {} s", loss.what, loss.at / 1_000_000_000))
            .collect();
        format!(
            "seed {}: {} servers in {} racks with {} disks each, {} chunks of {} KiB with {} \
             copies, {} of a million with a rotten one, {} s; lost: {}",
            self.seed,
            self.servers,
            self.racks,
            self.disks,
            self.chunks,
            self.chunk_size >> 10,
            self.copies,
            self.rot,
            self.duration / 1_000_000_000,
            match losses.is_empty() {
                true => "nothing".to_owned(),
                false => losses.join(", "),
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_told_with_its_line_and_a_hint() {
        let error = parse("s.toml", "# shows\n[scale]\nserver = 4\n").expect_err("unknown key");
        assert_eq!(error.line, 3);
        assert!(error.message.contains("did you mean `servers`?"), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = [
            "[scale]\n",
            "# shows\n",
            "# shows\n[scale]\nracks = 3\n",
            "# shows\n[scale]\nservers = 5\n",
            "# shows\n[scale]\ncopies = 10\n",
            "# shows\n[scale]\n[[loss]]\nat = \"1s\"\n",
            "# shows\n[scale]\n[[loss]]\nat = \"1s\"\nracks = 1\ndisks = 1\n",
            "# shows\n[scale]\nfor = \"60s\"\n[[loss]]\nat = \"70s\"\nracks = 1\n",
        ];
        for text in refused {
            assert!(parse("s.toml", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let text = "# shows\n[scale]\nservers = \"50..60\"\n[[loss]]\nat = \"100s..200s\"\n\
                    racks = 2\n[[loss]]\nat = \"90s\"\nservers = 3\n";
        let scenario = parse("s.toml", text).expect("valid");
        let plan = ScalePlan::draw(&scenario, 7).expect("it fits");
        assert_eq!(Ok(&plan), ScalePlan::draw(&scenario, 7).as_ref());
        assert_eq!(plan.losses[0].at, 90_000_000_000);
        let racks: std::collections::BTreeSet<u16> = plan.losses[1]
            .servers
            .iter()
            .map(|server| plan.rack_of(*server))
            .collect();
        assert_eq!(racks.len(), 2);
    }
}
