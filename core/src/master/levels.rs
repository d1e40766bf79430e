//! The feature level as the leader sees it: who knows which, and whether it may be
//! raised or used.
//!
//! Owns the refusals before anything is logged; the level itself and what is judged
//! at apply are the replicated state's. Invariant: no raise is logged while a voter,
//! a learner or a chunkserver that is known does not speak it, for all that is known.

use super::Master;
use super::mutate::Ready;
use crate::errno::Errno;
use crate::ids::{LinkId, MemberId};
use crate::machine::{Level, Peer};
use crate::marks::Mark;
use crate::namespace::record::{Choice, Mutation};
use crate::version::FeatureLevel;
use crate::wire::client_master::{HeldBack, LevelStatus};

impl Master {
    /// What the level says to a mutation; `None`: nothing against it.
    pub(super) fn look_level(&mut self, mutation: &Mutation) -> Option<Ready> {
        if let Mutation::RaiseLevel { level } = mutation {
            return Some(self.look_raise(*level));
        }
        let (since, level) = (mutation.since(), self.member.state().feature_level());
        if since <= level {
            return None;
        }
        let why = format!(
            "refused: it needs feature level {since}, and the cluster is at level {level} until \
             an operator raises it"
        );
        Some(self.refuse_level(Errno::EOPNOTSUPP, why))
    }

    fn look_raise(&mut self, wanted: FeatureLevel) -> Ready {
        let newest = self.member.speaks();
        if wanted > newest {
            let why = format!("feature level {wanted} is not known here, {newest} is the newest");
            return self.refuse_level(Errno::EOPNOTSUPP, why);
        }
        let held_back = self.held_back(wanted);
        if held_back.is_empty() || wanted <= self.member.state().feature_level() {
            return Ready::Go(Choice::default());
        }
        let name = |one: &HeldBack| format!("{} {} at {}", one.role, one.id, one.address);
        let who: Vec<String> = held_back.iter().map(name).collect();
        let why = format!(
            "the feature level stays, level {wanted} is not known to be spoken by {}",
            who.join(", ")
        );
        self.refuse_level(Errno::EBUSY, why)
    }

    fn refuse_level(&mut self, errno: Errno, why: String) -> Ready {
        self.marks.reach(Mark::LevelRefused);
        self.log(Level::Warn, why);
        Ready::Refuse(errno)
    }

    /// For operators.
    pub(super) fn level_status(&self) -> LevelStatus {
        let (level, newest) = (self.member.state().feature_level(), self.member.speaks());
        let held_back = match level < newest {
            true => self.held_back(newest),
            false => Vec::new(),
        };
        LevelStatus {
            level,
            newest,
            held_back,
        }
    }

    /// Everybody who is not known to know a level.
    fn held_back(&self, level: FeatureLevel) -> Vec<HeldBack> {
        let lacks = |knows: &Option<FeatureLevel>| knows.is_none_or(|known| known < level);
        let members = self.member.versions().into_iter();
        let members = members.filter(|(_, knows)| lacks(knows));
        let members = members.map(|(member, knows)| HeldBack {
            role: self.role_of(member).to_owned(),
            id: member.0,
            address: self.member.address(member).unwrap_or_default(),
            knows,
        });
        let servers = self.servers.table.iter();
        let servers = servers.filter(|(_, one)| one.speaks < level);
        let servers = servers.map(|(server, one)| HeldBack {
            role: "chunkserver".to_owned(),
            id: server.0,
            address: one.address.clone(),
            knows: Some(one.speaks),
        });
        members.chain(servers).collect()
    }

    fn role_of(&self, member: MemberId) -> &'static str {
        match self.member.voters().contains(&member) {
            true => "master",
            false => "metalogger",
        }
    }

    /// A server that the leader did not know of may be here, of a version that is of no
    /// use any more: as it registers again it is told so.
    pub(super) fn on_level_raised(&mut self, level: FeatureLevel) {
        let old = self.servers.table.values().filter(|one| one.speaks < level);
        let links: Vec<LinkId> = old.filter_map(|one| one.link).collect();
        for link in links {
            self.close(link, "the cluster's feature level is above its version");
        }
    }

    /// Why a chunkserver of a version may not serve this cluster, if it may not.
    pub(super) fn judge_version(&mut self, speaks: FeatureLevel) -> Option<String> {
        let level = self.member.state().feature_level();
        if speaks >= level {
            return None;
        }
        self.marks.reach(Mark::OldServerRefused);
        Some(format!(
            "the cluster is at feature level {level}, and this server's version knows levels \
             up to {speaks}: it needs the newer version again, nothing on its disks was changed"
        ))
    }

    /// Somebody is at the other end of a link.
    pub(super) fn note_version(&mut self, peer: &Peer) {
        if peer.speaks < self.member.speaks() {
            self.marks.reach(Mark::SpokePrevious);
        }
    }
}
