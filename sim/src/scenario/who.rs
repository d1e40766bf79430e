//! Whom a fault hits, by kind, by number, or by what it is at the moment.

use antler_core::machine::Role;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whom a fault hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// One of a role, drawn each time.
    Any(Role),
    /// One of a role, by its number from 1.
    Numbered(Role, u64),
    /// All of a role.
    All(Role),
    /// The master that leads at the moment.
    Leader,
    /// The chunkserver that caused the event that the fault waited for, or the
    /// server of its chain.
    Cause,
    /// Everyone in a place, from 1.
    Datacentre(u64),
    /// The chunkservers of a rack, counted through all sites from 1.
    Rack(u64),
    /// Everyone but the clients.
    Servers,
    /// Everyone.
    Everything,
}

impl TryFrom<String> for Who {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text).ok_or_else(|| {
            format!(
                "{text:?} names nobody: allowed are master, metalogger, chunkserver, client (any of \
                 them), with a number (master-1) or as a plural (masters), leader, cause, \
                 datacentre-N, rack-N, servers, everything"
            )
        })
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(role) => f.write_str(name(*role)),
            Self::Numbered(role, number) => write!(f, "{}-{number}", name(*role)),
            Self::All(role) => write!(f, "{}s", name(*role)),
            Self::Leader => f.write_str("leader"),
            Self::Cause => f.write_str("cause"),
            Self::Datacentre(number) => write!(f, "datacentre-{number}"),
            Self::Rack(number) => write!(f, "rack-{number}"),
            Self::Servers => f.write_str("servers"),
            Self::Everything => f.write_str("everything"),
        }
    }
}

/// A role as scenarios and traces name it.
#[must_use]
pub fn name(role: Role) -> &'static str {
    match role {
        Role::Master => "master",
        Role::Metalogger => "metalogger",
        Role::ChunkServer => "chunkserver",
        Role::Client => "client",
    }
}

fn parse(text: &str) -> Option<Who> {
    match text {
        "leader" => return Some(Who::Leader),
        "cause" => return Some(Who::Cause),
        "servers" => return Some(Who::Servers),
        "everything" => return Some(Who::Everything),
        _ => {}
    }
    if let Some((name, number)) = text.split_once('-') {
        let number = number.parse().ok().filter(|&n| n > 0)?;
        return match name {
            "datacentre" => Some(Who::Datacentre(number)),
            "rack" => Some(Who::Rack(number)),
            name => Some(Who::Numbered(role(name)?, number)),
        };
    }
    match text.strip_suffix('s') {
        Some(singular) => role(singular).map(Who::All),
        None => role(text).map(Who::Any),
    }
}

fn role(name: &str) -> Option<Role> {
    match name {
        "master" => Some(Role::Master),
        "metalogger" => Some(Role::Metalogger),
        "chunkserver" => Some(Role::ChunkServer),
        "client" => Some(Role::Client),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_can_be_named() {
        assert_eq!(parse("master-2"), Some(Who::Numbered(Role::Master, 2)));
        assert_eq!(parse("chunkservers"), Some(Who::All(Role::ChunkServer)));
        assert_eq!(parse("metalogger"), Some(Who::Any(Role::Metalogger)));
        assert_eq!(parse("datacentre-1"), Some(Who::Datacentre(1)));
        assert_eq!(parse("leader"), Some(Who::Leader));
        for text in [
            "master-2",
            "chunkservers",
            "client",
            "servers",
            "datacentre-1",
            "rack-2",
        ] {
            assert_eq!(parse(text).expect("valid").to_string(), text);
        }
        assert_eq!((parse("boss"), parse("master-0")), (None, None));
    }
}
