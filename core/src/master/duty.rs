//! What operators ordered of chunkservers: that one is emptied for good (a drain), or that
//! its absence for a while is not made up for (maintenance).
//!
//! The orders are labels with reserved keys (`placement::label`), so that they are in the
//! log and hold for every leader; a leader of an older version takes them for labels and
//! does nothing about them. Owns reading them, and their end by the clock; what they mean
//! for chunks is `repair`'s. Invariant: an order that ends touches every chunk of its
//! server.

use super::Master;
use super::commands::Purpose;
use crate::attributes::Credentials;
use crate::errno::Errno;
use crate::ids::{ChunkId, DiskId, ServerId};
use crate::machine::Level;
use crate::namespace::{Chunk, LeaseState};
use crate::placement::Labels;
use crate::placement::label::{DRAIN, MAINTENANCE, label};
use crate::time::Timestamp;
use crate::version::FeatureLevel;
use crate::wire::chunk_master::Command;

/// What was ordered of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Duty {
    /// No copy is placed there, and those that are there move elsewhere.
    pub(super) draining: bool,
    /// Up to when it may be away, in seconds since 1970, if that is not over.
    until: Option<i64>,
}

impl Duty {
    /// As these labels order it.
    pub(super) fn read(set: &Labels, now: Timestamp) -> Self {
        let until = label(set, MAINTENANCE).and_then(|until| until.parse().ok());
        Self {
            draining: label(set, DRAIN).is_some(),
            until: until.filter(|until| now.seconds < *until),
        }
    }

    /// While it is away its copies are waited for.
    pub(super) fn is_maintained(&self) -> bool {
        self.until.is_some()
    }

    /// For how many seconds more; `None` when it is in no maintenance.
    pub(super) fn seconds_left(&self, now: Timestamp) -> Option<u32> {
        let left = self.until?.saturating_sub(now.seconds).max(0);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }
}

impl Master {
    /// Ends what the clock ends.
    pub(super) fn expire_maintenance(&mut self) {
        let now = self.now.wall.seconds;
        let servers = self.servers.table.iter();
        let over = servers.filter(|(_, one)| one.duty.until.is_some_and(|until| until <= now));
        let over: Vec<ServerId> = over.map(|(server, _)| *server).collect();
        for server in over {
            let one = self.servers.table.get_mut(&server);
            one.expect("it was just seen").duty.until = None;
            self.log(Level::Info, format!("the maintenance of {server} is over"));
            self.touch_all_of(server);
        }
    }

    /// Has a server read its disks, or one of them, once.
    pub(super) fn order_scrub(
        &mut self,
        who: &Credentials,
        server: ServerId,
        disk: Option<DiskId>,
        rate: u64,
    ) -> Result<(), Errno> {
        if !who.is_root() {
            return Err(Errno::EPERM);
        }
        let level = self.member.state().feature_level();
        if level < FeatureLevel::ORDERED_SCRUB {
            return Err(Errno::EOPNOTSUPP);
        }
        let one = self.servers.get(server).ok_or(Errno::ENOENT)?;
        let has = |wanted| one.disks.iter().any(|disk| disk.disk == wanted);
        if disk.is_some_and(|disk| !has(disk)) {
            return Err(Errno::ENOENT);
        }
        if !self.servers.is_alive(server) {
            return Err(Errno::ENXIO);
        }
        self.command(server, Purpose::Scrub, Command::Scrub { disk, rate });
        Ok(())
    }

    /// How many chunks a server that is drained still has, or is written to.
    pub(super) fn left_to_drain(&self, server: ServerId) -> Option<u64> {
        let one = self.servers.get(server).filter(|one| one.duty.draining)?;
        let state = self.member.state();
        let leased = state.leased().filter(|chunk| !one.chunks.contains(chunk));
        let names = |chunk: &Chunk| {
            let mut set = super::status::write_set(&chunk.lease).iter();
            set.any(|(other, _)| *other == server)
        };
        let leased = leased.filter(|chunk| state.chunk(*chunk).is_some_and(|one| names(&one)));
        Some((one.chunks.len() + leased.count()) as u64)
    }

    /// Leaves out the copies on servers that are drained, where the others are enough
    /// without them: what is written no more there can go.
    pub(super) fn leave_drained_out(
        &self,
        id: ChunkId,
        chunk: &Chunk,
        copies: &mut Vec<(ServerId, crate::ids::BootId)>,
    ) {
        let drains = |server: &ServerId| self.servers.drains(*server, id);
        if !copies.iter().any(|(server, _)| drains(server)) {
            return;
        }
        let class = self.member.state().class(chunk.class);
        let policy = class.copied(chunk.archived);
        let all: Vec<ServerId> = copies.iter().map(|(server, _)| *server).collect();
        let standing = self.standing(&class, policy, id, &all);
        let settled = matches!(chunk.lease, LeaseState::Settled);
        if settled && standing.staying >= usize::from(policy.copies) {
            copies.retain(|(server, _)| !drains(server));
        }
    }
}
