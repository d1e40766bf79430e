//! Once everything has healed (P4, P8, P10): every chunk is settled, has its
//! copies again, they are equal, and no server keeps what nobody refers to.
//!
//! What lies on a disk that failed is out of everybody's reach: it is no copy, and
//! nobody can remove it before the disk is in use again.

use super::disks::{DiskReader, Disks, ServerDisk};
use crate::network::Nanos;
use antler_core::ids::{ChunkId, ChunkVersion, PartId, ServerId};
use antler_core::namespace::LeaseState;
use antler_core::namespace::State;
use antler_core::placement::{self, Fill, Labels, Policy};
use std::collections::BTreeMap;

/// What is still missing, in words; nothing when all is well. `in_use` tells which
/// disks the servers work with.
pub(crate) fn missing(
    now: Nanos,
    state: &State,
    disks: &Disks,
    in_use: &dyn Fn(&ServerDisk) -> bool,
    reader: &mut DiskReader,
) -> Vec<String> {
    let mut missing = Vec::new();
    let mut held: BTreeMap<ChunkId, Vec<Copy>> = BTreeMap::new();
    for disk in disks.servers.iter().filter(|disk| in_use(disk)) {
        let parts = match reader.parts(now, disk) {
            Ok(parts) => parts,
            Err(error) => {
                missing.push(error);
                continue;
            }
        };
        for stored in parts {
            let digest = reader.digest(now, disk, stored.part);
            held.entry(stored.part.chunk).or_default().push(Copy {
                server: disk.server,
                version: stored.version,
                digest: digest.ok(),
                part: stored.part,
            });
        }
    }
    let servers = servers_of(disks, in_use);
    for chunk in state.chunks_from(ChunkId(0), usize::MAX) {
        let copies = held.remove(&chunk).unwrap_or_default();
        missing.extend(judge_chunk(state, chunk, &copies, &servers));
    }
    for (chunk, copies) in held {
        let servers: Vec<ServerId> = copies.iter().map(|copy| copy.server).collect();
        missing.push(format!(
            "{chunk} is referred to by nobody but lies on {servers:?}"
        ));
    }
    missing
}

struct Copy {
    server: ServerId,
    version: ChunkVersion,
    /// `None`: it can't be read.
    digest: Option<u64>,
    part: PartId,
}

fn servers_of(disks: &Disks, in_use: &dyn Fn(&ServerDisk) -> bool) -> Vec<ServerId> {
    let mut servers: Vec<ServerId> = disks
        .servers
        .iter()
        .filter(|disk| in_use(disk))
        .map(|disk| disk.server)
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// How well copies on these servers fill a policy.
fn fill_on(state: &State, policy: &Policy, servers: &[ServerId]) -> Fill {
    let labels: Vec<Labels> = servers.iter().map(|one| labels_of(state, *one)).collect();
    placement::fill(policy, &labels.iter().collect::<Vec<_>>())
}

/// The labels that hold, as far as the log knows them.
fn labels_of(state: &State, server: ServerId) -> Labels {
    let known = state.server_labels(server);
    known.map_or_else(Labels::new, |known| known.over(&known.configured))
}

fn judge_chunk(
    state: &State,
    id: ChunkId,
    copies: &[Copy],
    servers: &[ServerId],
) -> Option<String> {
    let chunk = state.chunk(id)?;
    if chunk.lease != LeaseState::Settled {
        return Some(format!("{id} is not settled: {:?}", chunk.lease));
    }
    let current: Vec<&Copy> = copies
        .iter()
        .filter(|copy| copy.version == chunk.version && copy.part.part == 0)
        .collect();
    let policy = &state.class(chunk.class).keep;
    let best = fill_on(state, policy, servers);
    let wanted = usize::from(best.filled);
    if current.len() < wanted {
        let known: Vec<_> = copies.iter().map(|c| (c.server, c.version)).collect();
        return Some(format!(
            "{id} at {} has {} of {wanted} copies: {known:?}",
            chunk.version,
            current.len()
        ));
    }
    let holders: Vec<ServerId> = current.iter().map(|copy| copy.server).collect();
    if fill_on(state, policy, &holders) != best {
        return Some(format!("{id} on {holders:?} is not as `{policy}` wants it"));
    }
    let outside = holders
        .iter()
        .find(|server| !policy.permits(&labels_of(state, **server)));
    if let Some(server) = outside {
        return Some(format!(
            "{id} is on {server}, where `{policy}` permits no copy"
        ));
    }
    if current
        .iter()
        .any(|copy| copy.digest.is_none() || copy.digest != current[0].digest)
    {
        let digests: Vec<_> = current.iter().map(|c| (c.server, c.digest)).collect();
        return Some(format!("the copies of {id} differ: {digests:?}"));
    }
    let extra = copies.len() - current.len();
    (extra > 0).then(|| format!("{id} still has {extra} stale copies"))
}
