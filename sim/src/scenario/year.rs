//! A year of operation: how long it is, how much of it is played, and how often what
//! fails in it.
//!
//! Owns `[year]`, `[[rate]]` and `[storage]`. Drawing the events and leaving the quiet
//! stretches out is the plan's.

use super::{Action, Span};
use antler_core::placement::Policy;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// The time that the failures of a run are drawn over.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Year {
    /// How long it is.
    #[serde(default = "usual_days")]
    pub days: u64,
    /// How much of a stretch in which nothing happens is played.
    #[serde(default = "usual_quiet")]
    pub quiet: Span,
}

/// Days of a year at most.
const DAYS_MAX: u64 = 3660;

fn usual_days() -> u64 {
    365
}

fn usual_quiet() -> Span {
    Span::only(45 * super::SECOND)
}

impl Year {
    /// # Errors
    /// When it has no length.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.days == 0 || self.days > DAYS_MAX {
            return Err(format!("`days` is from 1 to {DAYS_MAX}"));
        }
        if self.quiet.range.low < super::SECOND {
            return Err("`quiet` is at least 1s: nothing could heal in less".to_owned());
        }
        Ok(())
    }
}

/// How the files of a cluster are kept, from the beginning.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// The policy of everything.
    pub keep: String,
    /// Of what is being written, if that differs.
    #[serde(default)]
    pub create: Option<String>,
}

impl Storage {
    /// # Errors
    /// When a policy is not written as one.
    pub fn policies(&self) -> Result<Vec<Policy>, String> {
        let texts = std::iter::once(&self.keep).chain(&self.create);
        let read = |text: &String| {
            let policy = text.parse();
            policy.map_err(|mistake| format!("{text:?}: {mistake}"))
        };
        texts.map(read).collect()
    }
}

/// How often something fails.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// What happens.
    #[serde(rename = "do")]
    pub action: Action,
    /// To each of what (each disk, of faults of disks).
    #[serde(default)]
    pub who: Option<Each>,
    /// How often in a year it happens to each.
    #[serde(default)]
    pub per_year: Option<Often>,
    /// `rot`: how often in a year to each 10^12 bytes of disks.
    #[serde(default)]
    pub per_tb_year: Option<Often>,
    /// How long it lasts.
    #[serde(default, rename = "for")]
    pub duration: Option<Span>,
    /// `lose-disk`, `rot`: when an empty disk takes its place.
    #[serde(default)]
    pub replaced_after: Option<Span>,
}

/// To each of what something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Each {
    /// A disk of a chunkserver.
    Disk,
    /// A master.
    Master,
    /// A metalogger.
    Metalogger,
    /// A chunkserver.
    Chunkserver,
    /// A mount's machine.
    Client,
    /// The chunkservers of a rack.
    Rack,
    /// Everything in a site.
    Site,
    /// What connects two sites.
    Link,
}

/// Events of a Poisson process, in a year.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Often(pub f64);

impl Often {
    /// Reads `3`, `0.5` or `4%`: so many in a hundred meet it within a year.
    fn of(text: &str) -> Option<Self> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let rate = match text.strip_suffix('%') {
            Some(share) => {
                let share = number(share).filter(|share| (0.0..100.0).contains(share))?;
                -(1.0 - share / 100.0).ln()
            }
            None => number(text)?,
        };
        (rate > 0.0).then_some(Self(rate))
    }
}

impl<'de> Deserialize<'de> for Often {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OftenVisitor)
    }
}

struct OftenVisitor;

impl Visitor<'_> for OftenVisitor {
    type Value = Often;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("how often in a year: 3, 0.5, or \"4%\" of them")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Often, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Often, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Often, E> {
        Often::of(text).ok_or_else(|| {
            E::custom(format!(
                "{text:?} is not how often in a year: 3, 0.5, or \"4%\" of them (less than 100%)"
            ))
        })
    }
}

impl Rate {
    /// To each of what it happens.
    ///
    /// # Panics
    /// When it was not checked.
    #[must_use]
    pub fn each(&self) -> Each {
        match (self.action, self.who) {
            (Action::LoseDisk | Action::Rot, _) => Each::Disk,
            (_, who) => who.expect("a rate was checked to say to whom"),
        }
    }

    /// # Errors
    /// When it makes no sense by itself.
    pub(super) fn check(&self) -> Result<(), String> {
        self.check_how_often()?;
        let of_disks = matches!(self.action, Action::LoseDisk | Action::Rot);
        match (self.action, self.who) {
            (Action::LoseDisk | Action::Rot, None | Some(Each::Disk)) => {}
            (Action::LoseDisk | Action::Rot, _) => {
                return Err(format!("`{}` happens to each `disk`", self.action));
            }
            (_, None) => {
                return Err(
                    "a rate says to each of what (`who`): master, metalogger, chunkserver, \
                            client, rack, site or link"
                        .to_owned(),
                );
            }
            (Action::Cut, Some(Each::Disk)) | (_, Some(Each::Disk)) => {
                return Err(format!("`{}` does not happen to a disk", self.action));
            }
            (Action::Cut | Action::Clog, _) => {}
            (_, Some(Each::Link)) => {
                return Err(format!(
                    "`{}` does not happen to a link: `cut` does",
                    self.action
                ));
            }
            (Action::Kill | Action::PowerCut | Action::Stop | Action::Pause, _) => {}
            (other, _) => {
                return Err(format!(
                    "there is no rate of `{other}`: there are lose-disk, rot, power-cut, kill, \
                     stop, pause, cut, clog"
                ));
            }
        }
        if !of_disks && self.duration.is_none() {
            return Err(format!(
                "a rate of `{}` says how long it lasts: `for`",
                self.action
            ));
        }
        if of_disks && self.duration.is_some() {
            return Err(
                "a disk does not come back: say `replaced_after` instead of `for`".to_owned(),
            );
        }
        if !of_disks && self.replaced_after.is_some() {
            return Err("`replaced_after` is for `lose-disk` and `rot`".to_owned());
        }
        Ok(())
    }

    fn check_how_often(&self) -> Result<(), String> {
        match (self.per_year, self.per_tb_year) {
            (None, None) => Err("a rate says how often: `per_year`".to_owned()),
            (Some(_), Some(_)) => Err("a rate has `per_year` or `per_tb_year`".to_owned()),
            (None, Some(_)) if self.action != Action::Rot => {
                Err("`per_tb_year` is for `rot`: say `per_year`".to_owned())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_in_a_year_becomes_a_rate() {
        let percent = Often::of("4%").expect("valid").0;
        assert!((percent - 0.040_822).abs() < 1e-6, "{percent}");
        assert_eq!(Often::of("0.5"), Some(Often(0.5)));
        for wrong in ["100%", "0", "-1", "often", "inf", "%"] {
            assert_eq!(Often::of(wrong), None, "{wrong}");
        }
    }
}
