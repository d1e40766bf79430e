//! What must come of a run: `[expect]`.
//!
//! Owns its format and what is impossible about a figure by itself; what contradicts the
//! rest of a scenario is found in `whole`, and whether it came about is judged in
//! `check::figures`.

use super::{SECOND, Span, nearest};
use antler_core::marks::Mark;
use antler_core::placement::label::Expression;
use serde::{Deserialize, Serialize};

/// What must come of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Programs may see EIO and its like.
    pub errors: Errors,
    /// How soon after everything healed all operations have ended.
    pub finish: Span,
    /// How soon after that every chunk has its copies again.
    pub redundancy: Span,
    /// How much of what programs of each site ask is answered `within`.
    pub available: Option<Share>,
    /// What takes longer counts as not available.
    pub within: Span,
    /// How soon after a disk was lost every chunk has its copies again.
    pub full_redundancy: Option<Span>,
    /// What 99 % of the reads of each site take at most, and 99 % of its writes with
    /// their syncs.
    pub p99: Option<Span>,
    /// How much more of its space the fullest chunkserver uses at the end than the emptiest.
    pub balanced: Option<Share>,
    /// Where copies may lie, whatever the policies say.
    pub residency: Option<Residency>,
    /// That nothing is lost: always judged, and said for those who read the scenario.
    pub no_loss: Option<bool>,
    /// Marks that at least one seed of a run of 50 or more must reach.
    pub marks: Vec<MarkName>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            errors: Errors::None,
            finish: Span::only(180 * SECOND),
            redundancy: Span::only(180 * SECOND),
            available: None,
            within: Span::only(5 * SECOND),
            full_redundancy: None,
            p99: None,
            balanced: None,
            residency: None,
            no_loss: None,
            marks: Vec::new(),
        }
    }
}

/// Which errors programs may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errors {
    /// None but those that POSIX foresees for what was asked.
    None,
    /// ENOSPC too.
    Space,
    /// Any.
    Any,
}

/// A coverage mark by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct MarkName(pub Mark);

impl TryFrom<String> for MarkName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = Mark::ALL.iter().map(|mark| mark.name());
        let found = Mark::ALL.iter().find(|mark| mark.name() == name);
        found.map(|&mark| Self(mark)).ok_or_else(|| {
            let near =
                nearest(&name, names).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
            format!("there is no mark `{name}`{near}")
        })
    }
}

/// A share of all, in millionths; written as `"99.9%"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Share(pub u64);

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = text.strip_suffix('%').map(str::trim);
        let number = number.and_then(|number| number.parse::<f64>().ok());
        match number {
            Some(percent) if percent > 0.0 && percent <= 100.0 => {
                Ok(Self((percent * 10_000.0).round() as u64))
            }
            _ => Err(format!(
                "{text:?} is not a share of all like \"99.9%\", at most \"100%\""
            )),
        }
    }
}

/// Where copies may lie.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub enum Residency {
    /// Where the classes permit it.
    Always,
    /// Where this holds too.
    Within(Expression),
}

impl TryFrom<String> for Residency {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "always" => Ok(Self::Always),
            place => place.parse().map(Self::Within).map_err(|mistake| {
                format!("{text:?} is neither \"always\" nor a place like \"dc=west\": {mistake}")
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_places_are_read_strictly() {
        let share = |text: &str| Share::try_from(text.to_owned());
        assert_eq!(share("99.95%"), Ok(Share(999_500)));
        assert_eq!(share("100%"), Ok(Share(1_000_000)));
        for wrong in ["99.9", "101%", "0%", "all"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        let residency = |text: &str| Residency::try_from(text.to_owned());
        assert_eq!(residency("always"), Ok(Residency::Always));
        assert!(matches!(
            residency("dc=west or dc=east"),
            Ok(Residency::Within(_))
        ));
        assert!(residency("west").is_err_and(|error| error.contains("dc=west")));
    }
}
