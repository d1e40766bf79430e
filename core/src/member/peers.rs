//! The links between members: each member sends on the one link that it opened
//! itself to each other member, and receives on those that others opened.
//!
//! Owns addresses, links and the back-off of reconnecting. Leaves what is said to
//! the others of this folder. Invariant: at most one link of ours to a member,
//! and a message is taken only from a link whose other end proved to be a member.

use super::config::MemberInfo;
use crate::ids::{Address, LinkId, MemberId};
use crate::machine::{Peer, Role};
use crate::time::{Duration, Instant};
use crate::version::FeatureLevel;
use std::collections::BTreeMap;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Remote {
    address: Address,
    role: Role,
    link: Option<LinkId>,
    is_up: bool,
    /// What the other end of the link speaks.
    speaks: FeatureLevel,
    back_off: Duration,
    retry_at: Instant,
    heard_at: Option<Instant>,
}

/// A link to be opened.
#[derive(Debug, PartialEq)]
pub(super) struct Connection {
    pub(super) member: MemberId,
    pub(super) address: Address,
    pub(super) role: Role,
}

/// The other members.
#[derive(Debug)]
pub(super) struct Peers {
    own: MemberId,
    own_address: Address,
    remotes: BTreeMap<MemberId, Remote>,
    outbound: BTreeMap<LinkId, MemberId>,
    inbound: BTreeMap<LinkId, MemberId>,
}

impl Peers {
    pub(super) fn new(own: MemberId, members: &[MemberInfo]) -> Self {
        let mut peers = Self {
            own,
            own_address: Address::default(),
            remotes: BTreeMap::new(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
        };
        for info in members {
            let role = if info.voter {
                Role::Master
            } else {
                Role::Metalogger
            };
            peers.set(info.member, info.address.clone(), role);
        }
        peers
    }

    /// Learns a member, or its new address; returns a link that is of no use now.
    pub(super) fn set(&mut self, member: MemberId, address: Address, role: Role) -> Option<LinkId> {
        if member == self.own {
            self.own_address = address;
            return None;
        }
        let known = self.remotes.get(&member);
        if known.is_some_and(|known| known.address == address && known.role == role) {
            return None;
        }
        let stale = self.remove(member);
        let remote = Remote {
            address,
            role,
            link: None,
            is_up: false,
            speaks: FeatureLevel::FIRST,
            back_off: BACK_OFF_MIN,
            retry_at: Instant(0),
            heard_at: None,
        };
        self.remotes.insert(member, remote);
        stale
    }

    /// Forgets a member; returns the link to it.
    pub(super) fn remove(&mut self, member: MemberId) -> Option<LinkId> {
        let link = self.remotes.remove(&member)?.link?;
        self.outbound
            .remove(&link)
            .expect("every link of ours is known by its number");
        Some(link)
    }

    /// The first member that a link should be opened to now.
    pub(super) fn poll_connection(&self, now: Instant) -> Option<Connection> {
        let due = |remote: &Remote| remote.link.is_none() && remote.retry_at <= now;
        let (member, remote) = self.remotes.iter().find(|(_, remote)| due(remote))?;
        Some(Connection {
            member: *member,
            address: remote.address.clone(),
            role: remote.role,
        })
    }

    /// A link to a member is being opened.
    pub(super) fn begin(&mut self, member: MemberId, link: LinkId) {
        let remote = self
            .remotes
            .get_mut(&member)
            .expect("asked for by `poll_connection`");
        assert!(
            remote.link.replace(link).is_none(),
            "one link of ours to a member"
        );
        assert!(
            self.outbound.insert(link, member).is_none(),
            "a link's number is used once"
        );
    }

    /// A link of ours is up. False when somebody else is at its end: close it.
    pub(super) fn on_connected(&mut self, now: Instant, link: LinkId, peer: &Peer) -> bool {
        let Some(&member) = self.outbound.get(&link) else {
            return true;
        };
        if peer.member() != Some(member) {
            self.on_closed(now, link);
            return false;
        }
        let remote = self
            .remotes
            .get_mut(&member)
            .expect("links lead to known members");
        remote.is_up = true;
        remote.speaks = peer.speaks;
        remote.back_off = BACK_OFF_MIN;
        true
    }

    /// Another member connected: it lives, so it is worth trying at once.
    pub(super) fn on_accepted(&mut self, link: LinkId, member: MemberId) {
        self.inbound.insert(link, member);
        if let Some(remote) = self.remotes.get_mut(&member) {
            remote.retry_at = Instant(0);
            remote.back_off = BACK_OFF_MIN;
        }
    }

    /// A link is down: to whom, if it was ours.
    pub(super) fn on_closed(&mut self, now: Instant, link: LinkId) -> Option<MemberId> {
        self.inbound.remove(&link);
        let member = self.outbound.remove(&link)?;
        let remote = self
            .remotes
            .get_mut(&member)
            .expect("links lead to known members");
        (remote.link, remote.is_up) = (None, false);
        remote.retry_at = now + remote.back_off;
        remote.back_off = (remote.back_off * 2).min(BACK_OFF_MAX);
        Some(member)
    }

    /// Who is at the other end of a link that another member opened.
    pub(super) fn sender(&mut self, now: Instant, link: LinkId) -> Option<MemberId> {
        let member = *self.inbound.get(&link)?;
        if let Some(remote) = self.remotes.get_mut(&member) {
            remote.heard_at = Some(now);
        }
        Some(member)
    }

    /// The link to send on, if it is up.
    pub(super) fn link(&self, member: MemberId) -> Option<LinkId> {
        self.remotes
            .get(&member)
            .filter(|remote| remote.is_up)?
            .link
    }

    /// What a member speaks, while the link to it is up.
    pub(super) fn speaks(&self, member: MemberId) -> Option<FeatureLevel> {
        let remote = self.remotes.get(&member).filter(|remote| remote.is_up)?;
        Some(remote.speaks)
    }

    /// Whether the link is one between members: ours, or one that another opened.
    pub(super) fn knows(&self, link: LinkId) -> bool {
        self.outbound.contains_key(&link) || self.inbound.contains_key(&link)
    }

    pub(super) fn address(&self, member: MemberId) -> Option<&Address> {
        if member == self.own {
            return Some(&self.own_address);
        }
        self.remotes.get(&member).map(|remote| &remote.address)
    }

    /// Whether a member was heard within `span`.
    pub(super) fn is_heard(&self, now: Instant, member: MemberId, span: Duration) -> bool {
        let heard = self.remotes.get(&member).and_then(|remote| remote.heard_at);
        heard.is_some_and(|heard| now.since(heard) < span)
    }

    /// When a link should be tried next.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let idle = self.remotes.values().filter(|remote| remote.link.is_none());
        idle.map(|remote| remote.retry_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{BootId, Incarnation};

    fn peers() -> Peers {
        let info = |member: u64| MemberInfo {
            member: MemberId(member),
            address: Address(format!("host{member}:1")),
            voter: member < 3,
        };
        Peers::new(MemberId(1), &[info(1), info(2), info(3)])
    }

    fn peer(id: u64) -> Peer {
        Peer {
            role: Role::Master,
            id,
            boot: BootId(1),
            incarnation: Incarnation(1),
            speaks: FeatureLevel::NEWEST,
        }
    }

    #[test]
    fn one_link_is_opened_to_each_other_member() {
        let mut peers = peers();
        for link in [1, 3] {
            let connection = peers.poll_connection(Instant(0)).expect("one is due");
            peers.begin(connection.member, LinkId(link));
        }
        assert_eq!(peers.poll_connection(Instant(0)), None);
        assert!(peers.on_connected(Instant(0), LinkId(1), &peer(2)));
        assert_eq!(peers.link(MemberId(2)), Some(LinkId(1)));
        assert_eq!(peers.link(MemberId(3)), None);
    }

    #[test]
    fn a_stranger_at_the_end_of_a_link_is_refused() {
        let mut peers = peers();
        peers.begin(MemberId(2), LinkId(1));
        assert!(!peers.on_connected(Instant(0), LinkId(1), &peer(3)));
        assert_eq!(peers.link(MemberId(2)), None);
        assert!(!peers.knows(LinkId(1)));
    }

    #[test]
    fn retries_back_off_until_the_other_shows_up() {
        let mut peers = peers();
        peers.remove(MemberId(3));
        let mut now = Instant(0);
        for link in 0..10 {
            peers.begin(MemberId(2), LinkId(link * 2 + 1));
            peers.on_closed(now, LinkId(link * 2 + 1));
            now = peers.next_retry().expect("it is tried again");
        }
        peers.begin(MemberId(2), LinkId(101));
        peers.on_closed(now, LinkId(101));
        assert_eq!(peers.next_retry(), Some(now + BACK_OFF_MAX));
        peers.on_accepted(LinkId(2), MemberId(2));
        assert!(peers.poll_connection(now).is_some());
    }
}
