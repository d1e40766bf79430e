//! Which copies a client would rather have: first by what it prefers, in its order, then
//! by how far away they are.
//!
//! Owns the order; leaves to `label` what a place is. A client sends its preferences among
//! its labels, each under the key [`PREFER`], so that a master that knows nothing of them
//! still sees where the client is.

use super::label::{Expression, Labels, distance};

/// The key under which a client sends an expression that it prefers; the first comes first.
/// No server's label.
pub const PREFER: &str = "prefer";

/// Expressions that one client prefers at most; what it sends beyond is passed over.
pub const PREFERENCES_MAX: usize = 16;

/// Bytes of the text of one such expression at most.
pub const PREFERENCE_MAX: usize = 512;

/// Where a client is and what it prefers.
#[derive(Clone, Debug, Default)]
pub struct Nearness {
    place: Labels,
    preferred: Vec<Expression>,
}

impl Nearness {
    /// Of what a client said of itself: what can't be read is passed over, as a client's
    /// own command line has told of it.
    #[must_use]
    pub fn of(said: Labels) -> Self {
        let (preferred, place): (Labels, Labels) =
            said.into_iter().partition(|(key, _)| key == PREFER);
        let short = preferred
            .iter()
            .take(PREFERENCES_MAX)
            .filter(|(_, text)| text.len() <= PREFERENCE_MAX);
        let preferred = short.filter_map(|(_, text)| text.parse().ok()).collect();
        Self { place, preferred }
    }

    /// Smaller is better: which preference a server meets first, and how far it is.
    #[must_use]
    pub fn rank(&self, server: &Labels) -> (usize, u8) {
        let meets = |expression: &Expression| expression.matches(server);
        let met = self.preferred.iter().position(meets);
        let met = met.unwrap_or(self.preferred.len());
        (met, distance(&self.place, server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
        pairs.iter().map(owned).collect()
    }

    fn sorted<'a>(said: &[(&str, &str)], servers: &[(&'a str, Labels)]) -> Vec<&'a str> {
        let nearness = Nearness::of(labels(said));
        let mut order: Vec<_> = servers.iter().collect();
        order.sort_by_key(|(_, place)| nearness.rank(place));
        order.into_iter().map(|(name, _)| *name).collect()
    }

    fn servers() -> Vec<(&'static str, Labels)> {
        vec![
            ("east-hdd", labels(&[("dc", "east"), ("tier", "hdd")])),
            ("east-ssd", labels(&[("dc", "east"), ("tier", "ssd")])),
            ("west-hdd", labels(&[("dc", "west"), ("tier", "hdd")])),
            ("west-ssd", labels(&[("dc", "west"), ("tier", "ssd")])),
        ]
    }

    #[test]
    fn without_preferences_the_nearest_come_first() {
        let order = sorted(&[("dc", "west")], &servers());
        assert_eq!(order, ["west-hdd", "west-ssd", "east-hdd", "east-ssd"]);
    }

    #[test]
    fn preferences_come_before_distance_and_in_order() {
        let said = [("dc", "west"), ("prefer", "tier=ssd")];
        let order = sorted(&said, &servers());
        assert_eq!(order, ["west-ssd", "east-ssd", "west-hdd", "east-hdd"]);
        let said = [
            ("prefer", "dc=east and tier=hdd"),
            ("prefer", "not dc=east"),
        ];
        let order = sorted(&said, &servers());
        assert_eq!(order, ["east-hdd", "west-hdd", "west-ssd", "east-ssd"]);
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let long = format!("dc=east{}", " or dc=east".repeat(60));
        let said = [("dc", "west"), ("prefer", "dc="), ("prefer", long.as_str())];
        let order = sorted(&said, &servers());
        assert_eq!(order, ["west-hdd", "west-ssd", "east-hdd", "east-ssd"]);
        let many = vec![("prefer", "dc=south"); PREFERENCES_MAX];
        let many = [many, vec![("prefer", "dc=west")]].concat();
        let order = sorted(&many, &servers());
        assert_eq!(order, ["east-hdd", "east-ssd", "west-hdd", "west-ssd"]);
    }
}
