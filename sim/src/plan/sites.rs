//! Where the nodes of a run stand: by turns over datacentres, or as sites say.
//!
//! Owns sites as data, and which node stands where. Nodes of a role are numbered through
//! the sites in their order.

use super::{ClusterPlan, Plan};
use crate::network::{LinkSpeed, Nanos, Network};
use crate::scenario::{DiskKind, Link, Scenario, Site, site};
use antler_core::machine::Role;
use antler_core::rng::Rng;
use serde::{Deserialize, Serialize};

/// A site of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SitePlan {
    /// The value of its label `dc`.
    pub name: String,
    /// Voters of the masters' group.
    pub masters: u64,
    /// Learners of it.
    pub metaloggers: u64,
    /// Chunkservers.
    pub chunkservers: u64,
    /// Mounts.
    pub clients: u64,
    /// Racks of its chunkservers.
    pub racks: u64,
    /// Disks of each chunkserver.
    pub disks: u64,
    /// What they are.
    pub disk: DiskKind,
    /// Bytes of one.
    pub disk_size: u64,
    /// Bytes a second, if not as its kind.
    pub disk_speed: Option<u64>,
}

/// What lies between two sites, by their numbers from 1.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct LinkPlan {
    /// Which two.
    pub between: (u64, u64),
    /// One way, if not as usual.
    pub latency: Option<Nanos>,
    /// Bytes a second of an ordered pair of nodes, if not as usual.
    pub bandwidth: Option<u64>,
}

/// Where a node stands, and on what disks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Its datacentre, from 1.
    pub(crate) datacentre: u64,
    /// The datacentre's name.
    pub(crate) name: String,
    /// Its rack, counted through all sites from 1, and its name in the site.
    pub(crate) rack: Option<(u64, String)>,
    pub(crate) disks: u64,
    pub(crate) disk: DiskKind,
    pub(crate) disk_size: u64,
    pub(crate) disk_speed: Option<u64>,
}

impl SitePlan {
    pub(super) fn draw(site: &Site, rng: &mut Rng) -> Self {
        Self {
            name: site.name.clone(),
            masters: site.masters,
            metaloggers: site.metaloggers,
            chunkservers: site.chunkservers,
            clients: site.clients,
            racks: site.racks,
            disks: site.disks,
            disk: site.disk,
            disk_size: site.disk_size.draw(rng),
            disk_speed: site.disk_speed.map(|speed| speed.draw(rng)),
        }
    }

    /// How many nodes of a role it has.
    #[must_use]
    pub fn count(&self, role: Role) -> u64 {
        match role {
            Role::Master => self.masters,
            Role::Metalogger => self.metaloggers,
            Role::ChunkServer => self.chunkservers,
            Role::Client => self.clients,
        }
    }

    fn count_mut(&mut self, role: Role) -> &mut u64 {
        match role {
            Role::Master => &mut self.masters,
            Role::Metalogger => &mut self.metaloggers,
            Role::ChunkServer => &mut self.chunkservers,
            Role::Client => &mut self.clients,
        }
    }

    /// Racks that hold anything.
    pub(super) fn racks_used(&self) -> u64 {
        self.racks.min(self.chunkservers)
    }
}

impl std::fmt::Display for SitePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} with {} masters, {} metaloggers, {} chunkservers in {} racks with {} disks ({:?}), \
             {} clients",
            self.name,
            self.masters,
            self.metaloggers,
            self.chunkservers,
            self.racks_used(),
            self.disks,
            self.disk,
            self.clients
        )
    }
}

impl LinkPlan {
    pub(super) fn draw(link: &Link, sites: &[Site], rng: &mut Rng) -> Self {
        let number = |name: &String| {
            let found = sites.iter().position(|site| site.name == *name);
            found.expect("a link was checked to name sites") as u64 + 1
        };
        Self {
            between: (number(&link.between.0), number(&link.between.1)),
            latency: link.latency.map(|latency| latency.draw(rng)),
            bandwidth: link.bandwidth.map(|bandwidth| bandwidth.draw(rng)),
        }
    }
}

/// The counts of a cluster that is told by its sites.
pub(super) fn sum_up(cluster: ClusterPlan, scenario: &Scenario, sites: &[SitePlan]) -> ClusterPlan {
    let total = |role| sites.iter().map(|site| site.count(role)).sum();
    let storage = scenario.storage.as_ref().and_then(|s| s.policies().ok());
    let copies = storage.map_or(cluster.copies, |policies| u64::from(policies[0].copies));
    ClusterPlan {
        masters: total(Role::Master),
        metaloggers: total(Role::Metalogger),
        chunkservers: total(Role::ChunkServer),
        clients: total(Role::Client),
        disks: sites.iter().map(|site| site.disks).max().unwrap_or(1),
        datacentres: sites.len() as u64,
        disk: sites[0].disk,
        disk_size: sites[0].disk_size,
        copies,
        ..cluster
    }
}

impl Plan {
    /// Where a node stands, by its number among its role from 1.
    ///
    /// # Panics
    /// When there is no such node.
    pub(crate) fn place(&self, role: Role, number: u64) -> Place {
        if self.sites.is_empty() {
            return self.place_by_turns(role, number);
        }
        let mut rest = number - 1;
        let mut racks = 0;
        for (at, site) in (1..).zip(&self.sites) {
            if rest < site.count(role) {
                let rack = (rest % site.racks, site::rack_label(rest, site.racks));
                return Place {
                    datacentre: at,
                    name: site.name.clone(),
                    rack: (role == Role::ChunkServer).then_some((racks + rack.0 + 1, rack.1)),
                    disks: site.disks,
                    disk: site.disk,
                    disk_size: site.disk_size,
                    disk_speed: site.disk_speed,
                };
            }
            rest -= site.count(role);
            racks += site.racks_used();
        }
        panic!("there is no {role:?} {number} in any site");
    }

    fn place_by_turns(&self, role: Role, number: u64) -> Place {
        let datacentre = self.cluster.datacentre_of(role, number);
        Place {
            datacentre,
            name: format!("dc{datacentre}"),
            rack: None,
            disks: self.cluster.disks,
            disk: self.cluster.disk,
            disk_size: self.cluster.disk_size,
            disk_speed: None,
        }
    }

    /// The network between its nodes.
    pub(crate) fn network(&self, places: &[u64], seed: u64) -> Network {
        let usual = self.network.speed();
        let mut network = Network::new(usual, places, seed);
        for link in &self.links {
            let speed = LinkSpeed {
                latency: link.latency.unwrap_or(usual.between),
                bandwidth: link.bandwidth.unwrap_or(usual.bandwidth),
            };
            network.set_link(link.between, speed);
        }
        network
    }

    /// Whether the counts are those of the sites, as after an edit by hand.
    pub(super) fn fits_sites(&self) -> bool {
        let total = |role| self.sites.iter().map(|site| site.count(role)).sum::<u64>();
        let cluster = &self.cluster;
        let counts = [
            (Role::Master, cluster.masters),
            (Role::Metalogger, cluster.metaloggers),
            (Role::ChunkServer, cluster.chunkservers),
            (Role::Client, cluster.clients),
        ];
        self.sites.is_empty() || counts.iter().all(|(role, count)| total(*role) == *count)
    }

    /// Takes nodes and disks out of the sites until there are no more than the cluster
    /// counts; the nodes of a role go from the site that has most.
    pub fn fit_sites(&mut self) {
        let cluster = self.cluster;
        let counts = [
            (Role::Master, cluster.masters),
            (Role::Metalogger, cluster.metaloggers),
            (Role::ChunkServer, cluster.chunkservers),
            (Role::Client, cluster.clients),
        ];
        for (role, count) in counts {
            while self.sites.iter().map(|site| site.count(role)).sum::<u64>() > count {
                let biggest = self.sites.iter_mut().max_by_key(|site| site.count(role));
                *biggest.expect("sites count something").count_mut(role) -= 1;
            }
        }
        for site in &mut self.sites {
            site.disks = site.disks.min(cluster.disks);
            site.racks = site.racks.min(site.chunkservers.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::parse;

    #[test]
    fn nodes_are_numbered_through_the_sites_and_racks() {
        let text = "# shows\n[[site]]\nname = \"west\"\nmasters = 2\nchunkservers = 3\nracks = 2\n\
                    clients = 1\n[[site]]\nname = \"east\"\nmasters = 1\nchunkservers = 1\n\
                    disks = 2\ndisk = \"rotating\"\n";
        let plan = Plan::draw(&parse("s.toml", text).expect("valid"), 1);
        assert_eq!((plan.cluster.masters, plan.cluster.chunkservers), (3, 4));
        let place = |number| plan.place(Role::ChunkServer, number);
        let rack = |number| place(number).rack.expect("chunkservers stand in racks");
        assert_eq!(rack(1), (1, "r1".to_owned()));
        assert_eq!(rack(2), (2, "r2".to_owned()));
        assert_eq!(rack(3), (1, "r1".to_owned()));
        assert_eq!(rack(4), (3, "r1".to_owned()));
        assert_eq!(
            (place(3).name.as_str(), place(4).name.as_str()),
            ("west", "east")
        );
        assert_eq!((place(4).disks, place(4).disk), (2, DiskKind::Rotating));
        assert_eq!(plan.place(Role::Master, 3).datacentre, 2);
        assert!(plan.fits_sites());
        let mut smaller = plan;
        smaller.cluster.chunkservers = 2;
        assert!(!smaller.fits_sites() && smaller.check().is_err());
        smaller.fit_sites();
        smaller.check().expect("its sites are as small");
    }
}
