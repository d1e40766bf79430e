//! What came with which version of the wire, and what a message is to an end that
//! does not know all of it.
//!
//! The frame and the first exchange are the same in every version. A field that is
//! not known is skipped by its reader; a variant that is not known is a fault of the
//! peer. So a field may be sent to anybody and is left out all the same, so that an
//! old link carries what it always did; a variant must not be sent at all: machines
//! ask [`Message::since`] before.

use super::chunk_master::{ChunkToMaster, Command, MasterToChunk};
use super::client_master::{
    Answer, ClientToMaster, DiskStatus, LocatedChunk, MasterToClient, Query, Status,
};
use super::{Message, WireError};
use crate::version::FeatureLevel;

impl Query {
    /// The version that it came with.
    #[must_use]
    pub fn since(&self) -> FeatureLevel {
        match self {
            Self::PlanClass { class, .. } if class.has_hosts() => FeatureLevel::HOSTS,
            Self::PlanClass { class, .. } if class.has_codes() => FeatureLevel::CODES,
            Self::PlanClass { .. } => FeatureLevel::CLASSES,
            Self::Scrub { .. } => FeatureLevel::ORDERED_SCRUB,
            _ => FeatureLevel::FIRST,
        }
    }
}

impl Message {
    /// The version that its variants came with: no link of a lower one carries it.
    #[must_use]
    pub fn since(&self) -> FeatureLevel {
        match self {
            Self::ClientToMaster(ClientToMaster::Mutate { mutation, .. }) => mutation.since(),
            Self::ClientToMaster(ClientToMaster::Ask { query, .. }) => query.since(),
            Self::MasterToClient(MasterToClient::Answer {
                result: Ok(Answer::Plan(_)),
                ..
            }) => FeatureLevel::CLASSES,
            Self::MasterToChunk(MasterToChunk::Command {
                body: Command::Build { .. },
                ..
            }) => FeatureLevel::CODES,
            Self::MasterToChunk(MasterToChunk::Command {
                body: Command::Scrub { .. },
                ..
            }) => FeatureLevel::ORDERED_SCRUB,
            _ => FeatureLevel::FIRST,
        }
    }

    /// Refuses what a reader of `version` would not know, as that reader did.
    ///
    /// # Errors
    /// When something of it came with a later version.
    pub fn demand_version(&self, version: FeatureLevel) -> Result<(), WireError> {
        match self.since() {
            since if since > version => Err(WireError::Version { since, version }),
            _ => Ok(()),
        }
    }

    /// Leaves out the fields that came with a version above `version`.
    pub fn lower(&mut self, version: FeatureLevel) {
        let answer = match self {
            Self::MasterToClient(MasterToClient::Answer {
                result: Ok(answer), ..
            }) => answer,
            Self::ChunkToMaster(
                ChunkToMaster::Register { disks, .. } | ChunkToMaster::Alive { disks, .. },
            ) => return lower_disks(disks, version),
            _ => return,
        };
        if let Answer::Status(status) = answer {
            let servers = status.servers.iter_mut();
            servers.for_each(|server| lower_disks(&mut server.disks, version));
            if version < FeatureLevel::HOSTS {
                status.classes.retain(|one| !one.class.has_hosts());
            }
        }
        if version < FeatureLevel::CODES {
            leave_codes_out(answer);
        }
        if version < FeatureLevel::CLASSES {
            match answer {
                Answer::Status(status) => leave_classes_out(status),
                Answer::Info(info) => info.class.clear(),
                _ => {}
            }
        }
    }
}

/// Who does not know of parts would take them for copies: it is told of none, and asks
/// again as if nobody could be read from, while the leader brings them back to copies.
fn leave_codes_out(answer: &mut Answer) {
    let hide = |chunk: &mut LocatedChunk| {
        if chunk.stripe.take().is_some() {
            chunk.copies.clear();
        }
    };
    match answer {
        Answer::Located(chunks) => chunks.iter_mut().for_each(hide),
        Answer::Opened {
            first: Some(first), ..
        } => hide(first),
        Answer::Status(status) => {
            status.classes.retain(|one| !one.class.has_codes());
            status.health.unshaped = 0;
        }
        Answer::Info(info) => {
            for chunk in &mut info.chunks {
                chunk.stripe = None;
                chunk.copies.retain(|copy| copy.part == 0);
            }
        }
        _ => {}
    }
}

/// How far disks are scrubbed, that they are being emptied, and that they are suspected.
fn lower_disks(disks: &mut [DiskStatus], version: FeatureLevel) {
    for disk in disks {
        if version < FeatureLevel::SCRUB {
            (disk.scrub, disk.draining) = (None, None);
        }
        if version < FeatureLevel::SUSPICION {
            disk.suspected.clear();
        }
    }
}

fn leave_classes_out(status: &mut Status) {
    status.classes.clear();
    status.health.outside = 0;
    status.health.misplaced = 0;
}
