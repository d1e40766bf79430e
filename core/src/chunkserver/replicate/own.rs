//! Replications whose source is another disk of the server.
//!
//! Owns what they read and when they give up; leaves why parts move and the switch to
//! `moves`, and all that goes as in any replication to its parent.

use super::{Asked, Purpose, Replication, Stage};
use crate::chunk::geometry::StripeShape;
use crate::chunk::map::ranges;
use crate::chunk::operation::{DiskError, DiskReply, DiskRequest, ReceiveStep};
use crate::chunkserver::ChunkServer;
use crate::chunkserver::disks::Issued;
use crate::chunkserver::parts::{PartOp, Then};
use crate::ids::{ChunkVersion, DiskId, Epoch, PartId};
use crate::limits::UNIT_SIZE;

impl ChunkServer {
    /// Begins to copy a part to another disk of the server.
    pub(in crate::chunkserver) fn begin_move(&mut self, part: PartId, from: DiskId, to: DiskId) {
        let purpose = Purpose::Move {
            from,
            to,
            size: 0,
            spoiled: false,
        };
        let mut one = Replication::new(purpose, part, (ChunkVersion(0), Epoch(0)));
        (one.disk, one.attempt) = (Some(to), 1);
        let key = self.add_replication(one);
        let before = self.replications.moving.insert(part, key);
        assert!(before.is_none(), "a part moves once at a time");
        self.change(part, PartOp::Pass, Then::Turn(key));
    }

    /// From which disk a replication moves its part, if it does.
    pub(in crate::chunkserver) fn moves_from(&self, key: u64) -> Option<DiskId> {
        match self.replications.table.get(&key)?.purpose {
            Purpose::Move { from, .. } => Some(from),
            Purpose::Command { .. } => None,
        }
    }

    /// How many parts are being moved off a disk.
    pub(in crate::chunkserver) fn moves_off(&self, disk: DiskId) -> usize {
        let moving = self.replications.moving.values();
        let off = moving.filter(|key| self.moves_from(**key) == Some(disk));
        off.count()
    }

    /// Bytes that are still to leave a disk with the parts that are being moved off it.
    pub(in crate::chunkserver) fn moving_off(&self, disk: DiskId) -> i64 {
        let off = self.replications.moving.values().map(|key| {
            match self.replications.table.get(key).map(|one| one.purpose) {
                Some(Purpose::Move { from, size, .. }) if from == disk => size,
                _ => 0,
            }
        });
        signed(off.sum())
    }

    /// Bytes that are still to come to a disk with the parts that are being moved there.
    pub(in crate::chunkserver) fn moving_to(&self, disk: DiskId) -> i64 {
        let to = self.replications.moving.values().map(|key| {
            let one = self.replications.table.get(key);
            match one.map(|one| (one.purpose, one.bytes)) {
                Some((Purpose::Move { to, size, .. }, bytes)) if to == disk => {
                    size.saturating_sub(bytes)
                }
                _ => 0,
            }
        });
        signed(to.sum())
    }

    /// A part is changed: what was copied of it is of no use.
    pub(in crate::chunkserver) fn spoil_move(&mut self, part: PartId) {
        let key = self.replications.moving.get(&part).copied();
        let one = key.and_then(|key| self.replications.table.get_mut(&key));
        if let Some(Purpose::Move { spoiled, .. }) = one.map(|one| &mut one.purpose) {
            *spoiled = true;
        }
    }

    /// Whether a part is being made on a disk, or of what a disk has.
    pub(in crate::chunkserver) fn replicates_on(&self, disk: DiskId) -> bool {
        let reads = |one: &Replication| match one.purpose {
            Purpose::Move { from, .. } => from == disk,
            Purpose::Command { .. } => false,
        };
        let mut all = self.replications.table.values();
        all.any(|one| one.disk == Some(disk) || reads(one))
    }

    /// Whether commands wait that make copies.
    pub(in crate::chunkserver) fn has_repairs_waiting(&self) -> bool {
        !self.replications.waiting.is_empty()
    }

    /// Asks what there is to copy.
    pub(super) fn read_own(&mut self, key: u64) {
        let one = self.replication(key);
        let (part, attempt) = (one.part, one.attempt);
        let Purpose::Move { from, spoiled, .. } = one.purpose else {
            unreachable!("a move reads its own");
        };
        let known = self.parts.made(part).filter(|info| info.disk == from);
        let known = known.map(|info| (info.version, info.epoch));
        let Some(known) = known.filter(|_| !spoiled && self.parts.is_as_committed(part)) else {
            return self.give_move_up(key, "it is being changed");
        };
        let one = self.replication(key);
        (one.version, one.epoch) = known;
        one.asked += 1;
        let asked = Asked::Map { attempt };
        let request = DiskRequest::Map { part };
        self.operate(from, request, Issued::Source { key, asked });
    }

    /// The disk that a part moves from answered.
    pub(in crate::chunkserver) fn on_own_source(
        &mut self,
        disk: DiskId,
        key: u64,
        asked: Asked,
        result: Result<DiskReply, DiskError>,
    ) {
        let Some(one) = self.replications.table.get_mut(&key) else {
            return;
        };
        one.asked -= 1;
        let part = one.part;
        if !matches!(one.stage, Stage::Beginning | Stage::Reading) {
            return;
        }
        match (asked, result) {
            (
                _,
                Ok(DiskReply::Map {
                    present, stripe, ..
                }),
            ) => self.begin_to_copy(key, &present, stripe),
            (
                Asked::Piece { offset, .. },
                Ok(DiskReply::Read {
                    data,
                    checksums,
                    present,
                    ..
                }),
            ) => self.take_piece(key, offset, &data, &checksums, &present),
            (_, Ok(other)) => panic!("the source of a move answered {other:?}"),
            (_, Err(error)) => {
                // Of a part that went with its disk nobody asked whether it can be read.
                if self.parts.made(part).is_some_and(|info| info.disk == disk) {
                    self.on_disk_error(disk, part, &error);
                }
                self.give_move_up(key, &error.to_string());
            }
        }
    }

    fn begin_to_copy(&mut self, key: u64, present: &[u8], stripe: Option<StripeShape>) {
        let units: u64 = present
            .iter()
            .map(|bits| u64::from(bits.count_ones()))
            .sum();
        let bytes = units * UNIT_SIZE as u64;
        let one = self.replication(key);
        one.wanted = Some(ranges(present, 0).into());
        let Purpose::Move { from, to, .. } = one.purpose else {
            unreachable!("a move copies its own");
        };
        if self.disks.room(to) < bytes {
            return self.give_move_up(key, "there is no room");
        }
        if !self.may_go(from, to, bytes) {
            return self.give_move_up(key, "it is too large to even the disks out");
        }
        if let Purpose::Move { size, .. } = &mut self.replication(key).purpose {
            *size = bytes;
        }
        self.receive(key, ReceiveStep::Begin { stripe });
    }

    pub(super) fn give_move_up(&mut self, key: u64, reason: &str) {
        self.replication(key).last_error = reason.to_owned();
        self.abandon(key);
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).expect("few parts move at once")
}
