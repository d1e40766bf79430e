//! What operators see: the cluster, and one file's chunks and copies.

use super::Master;
use super::servers::Copy;
use crate::errno::Errno;
use crate::ids::{ChunkId, InodeId, ServerId};
use crate::namespace::{Chunk, LeaseState};
use crate::wire::client_master::{
    ChunkInfo, CopyInfo, FileInfo, Health, ServerStatus, SessionStatus, Status,
};

impl Master {
    /// How many chunks are how healthy, as this member sees it, and how many copies are
    /// being made. Takes time for each chunk that is not at its goal.
    #[must_use]
    pub fn health(&self) -> (Health, u64) {
        let chunks = self.member.state().counts().chunks;
        (self.repair.health(chunks), self.repair.running())
    }

    pub(super) fn status(&self) -> Status {
        let state = self.member.state();
        let counts = state.counts();
        let health = self.repair.health(counts.chunks);
        Status {
            cluster: format!("{} {}", self.config.cluster, self.life()),
            members: self.member.statuses(),
            servers: self
                .servers
                .table
                .keys()
                .map(|server| self.server_status(*server))
                .collect(),
            health,
            repairs_running: self.repair.running(),
            repairs_waiting: (health.endangered + health.under_goal)
                .saturating_sub(self.repair.running()),
            inodes: counts.inodes,
            metadata_bytes: state.memory(),
            sessions: self.session_statuses(),
            quarantined: self.deletions.quarantined(),
            leased: state.leased().count() as u64,
            applied: state.applied(),
            classes: self.class_statuses(),
            level: self.level_status(),
            balancing: self.balance.moving(),
        }
    }

    fn server_status(&self, server: ServerId) -> ServerStatus {
        let one = self
            .servers
            .get(server)
            .expect("the caller iterates the table");
        ServerStatus {
            server,
            address: one.address.clone(),
            alive: one.is_alive(),
            labels: one.labels.clone(),
            disks: one.disks.clone(),
            copies: one.chunks.len() as u64,
            draining: self.left_to_drain(server),
            maintenance: one.duty.seconds_left(self.now.wall),
        }
    }

    fn session_statuses(&self) -> Vec<SessionStatus> {
        let alive = |session| {
            self.sessions
                .table
                .get(&session)
                .is_some_and(|one| one.link.is_some())
        };
        let all = self.member.state().sessions();
        all.map(|(session, name)| SessionStatus {
            session,
            name: name.to_owned(),
            alive: alive(session),
        })
        .collect()
    }

    /// A file's chunks; explained, some of them from an index on.
    ///
    /// # Errors
    /// ESTALE when it is gone.
    pub(super) fn info(&self, inode: InodeId, explain: Option<u32>) -> Result<FileInfo, Errno> {
        if let Some(from) = explain {
            return self.explain(inode, from);
        }
        let state = self.member.state();
        let attributes = state.attributes(inode)?;
        let chunks = state.chunks_of(inode).unwrap_or_default();
        let chunks = chunks.into_iter().filter_map(|(index, id, valid)| {
            let chunk = state.chunk(id)?;
            Some(self.chunk_info(index, id, valid, &chunk))
        });
        Ok(FileInfo {
            attributes,
            chunks: chunks.collect(),
            class: state.class_name(state.class_of(inode)?),
            policy: None,
            next: None,
            patterns: state.patterns_of(inode),
        })
    }

    pub(super) fn chunk_info(
        &self,
        index: u32,
        id: ChunkId,
        valid: u32,
        chunk: &Chunk,
    ) -> ChunkInfo {
        let mut copies: Vec<CopyInfo> = self
            .servers
            .held(id)
            .iter()
            .filter_map(|copy| self.copy_info(copy, chunk))
            .collect();
        copies.extend(self.leased_copies(id, chunk));
        ChunkInfo {
            index,
            chunk: id,
            version: chunk.version,
            epoch: chunk.epoch,
            valid,
            lease: lease_name(&chunk.lease).to_owned(),
            wanted: match chunk.stripe {
                Some(stripe) => u8::try_from(stripe.shape.parts()).expect("parts are few"),
                None => {
                    self.member
                        .state()
                        .class(chunk.class)
                        .copied(chunk.archived)
                        .copies
                }
            },
            copies,
            stripe: chunk.stripe,
            explained: None,
        }
    }

    fn copy_info(&self, copy: &Copy, chunk: &Chunk) -> Option<CopyInfo> {
        let server = self.servers.get(copy.server)?;
        let in_lease = write_set(&chunk.lease)
            .iter()
            .find(|(other, _)| *other == copy.server);
        let state = match (server.is_alive(), in_lease) {
            (false, _) => "away",
            (true, _) if copy.bad => "bad",
            (true, _) if copy.suspect => "suspect",
            (true, Some((_, boot))) if *boot == server.boot => "current",
            (true, Some(_)) => "doubtful",
            (true, None) if copy.part > 0 => match chunk.stripe {
                Some(stripe) if copy.is_of(stripe, chunk.version) => "current",
                _ => "stale",
            },
            (true, None) if copy.version == chunk.version && chunk.stripe.is_none() => "current",
            (true, None) => "stale",
        };
        Some(CopyInfo {
            server: copy.server,
            address: server.address.clone(),
            version: copy.version,
            state: state.to_owned(),
            labels: server.labels.clone(),
            part: copy.part,
            fills: None,
            disk: None,
        })
    }

    /// Copies of the write set that have not been reported yet.
    fn leased_copies(&self, id: ChunkId, chunk: &Chunk) -> Vec<CopyInfo> {
        let known = self.servers.held(id);
        let unknown = write_set(&chunk.lease)
            .iter()
            .filter(|(server, _)| !known.iter().any(|c| c.part == 0 && c.server == *server));
        let fresh = unknown.filter_map(|(server, boot)| {
            let one = self.servers.get(*server)?;
            let state = if self.servers.lives(*server, *boot) {
                "current"
            } else {
                "away"
            };
            Some(CopyInfo {
                server: *server,
                address: one.address.clone(),
                version: chunk.version,
                state: state.to_owned(),
                labels: one.labels.clone(),
                part: 0,
                fills: None,
                disk: None,
            })
        });
        fresh.collect()
    }
}

pub(super) fn write_set(lease: &LeaseState) -> &[(ServerId, crate::ids::BootId)] {
    match lease {
        LeaseState::Settled => &[],
        LeaseState::Open { copies, .. }
        | LeaseState::Closing { copies, .. }
        | LeaseState::Broken { copies, .. }
        | LeaseState::Reconciling { copies, .. } => copies,
    }
}

fn lease_name(lease: &LeaseState) -> &'static str {
    match lease {
        LeaseState::Settled => "settled",
        LeaseState::Open { .. } => "open",
        LeaseState::Closing { .. } => "closing",
        LeaseState::Broken { .. } => "broken",
        LeaseState::Reconciling { .. } => "reconciling",
    }
}
