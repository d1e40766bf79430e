//! Sites: where an operator's machines are, with what disks, and the links between them.
//!
//! Owns `[[site]]` and `[[link]]`, and what is impossible about a site by itself; how
//! sites and policies fit together is checked in `whole`.

use super::{Bytes, DiskKind, Span};
use antler_core::placement::{Labels, label};
use serde::Deserialize;

/// A datacentre and what stands in it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What it is called: the label `dc=NAME` of everything in it.
    pub name: String,
    /// Voters of the masters' group.
    #[serde(default)]
    pub masters: u64,
    /// Learners of it.
    #[serde(default)]
    pub metaloggers: u64,
    /// Chunkservers.
    #[serde(default)]
    pub chunkservers: u64,
    /// Mounts.
    #[serde(default)]
    pub clients: u64,
    /// Racks, over which its chunkservers are spread in turn (`rack=r1`, ...).
    #[serde(default = "one")]
    pub racks: u64,
    /// Disks of each chunkserver.
    #[serde(default = "one")]
    pub disks: u64,
    /// What its disks are.
    #[serde(default = "flash")]
    pub disk: DiskKind,
    /// Bytes of a chunkserver's disk.
    #[serde(default = "gibibyte")]
    pub disk_size: Bytes,
    /// Bytes a second that a chunkserver's disk reads or writes; as its kind without it.
    #[serde(default)]
    pub disk_speed: Option<Bytes>,
}

fn one() -> u64 {
    1
}

fn flash() -> DiskKind {
    DiskKind::Flash
}

fn gibibyte() -> Bytes {
    Bytes::only(1 << 30)
}

/// What lies between two sites, where it is not as `[network]` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Which two.
    pub between: (String, String),
    /// One way.
    #[serde(default)]
    pub latency: Option<Span>,
    /// Bytes a second of each ordered pair of nodes.
    #[serde(default)]
    pub bandwidth: Option<Bytes>,
}

impl Site {
    /// # Errors
    /// When there can be no such site.
    pub(super) fn check(&self) -> Result<(), String> {
        if !label::is_label(&self.name) {
            return Err(format!(
                "{:?} can't be a label: a site's `name` is 1 to 64 of a-z A-Z 0-9 . _ -",
                self.name
            ));
        }
        if self.disks == 0 {
            return Err("a chunkserver has at least one disk".to_owned());
        }
        if self.racks == 0 || self.racks > self.chunkservers.max(1) {
            return Err(format!(
                "{} racks for {} chunkservers: each rack needs one",
                self.racks, self.chunkservers
            ));
        }
        Ok(())
    }

    /// The labels of each of its chunkservers.
    pub(super) fn labels(&self) -> impl Iterator<Item = Labels> + '_ {
        (0..self.chunkservers).map(|number| {
            vec![
                ("dc".to_owned(), self.name.clone()),
                ("rack".to_owned(), rack_label(number, self.racks)),
            ]
        })
    }
}

/// The rack of a site's chunkserver, counted from 0.
#[must_use]
pub fn rack_label(number: u64, racks: u64) -> String {
    format!("r{}", number % racks + 1)
}
