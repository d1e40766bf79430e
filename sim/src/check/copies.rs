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
    let servers = count_servers(disks, in_use);
    for chunk in state.chunks_from(ChunkId(0), usize::MAX) {
        let copies = held.remove(&chunk).unwrap_or_default();
        missing.extend(judge_chunk(state, chunk, &copies, servers));
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

fn count_servers(disks: &Disks, in_use: &dyn Fn(&ServerDisk) -> bool) -> usize {
    let mut servers: Vec<ServerId> = disks
        .servers
        .iter()
        .filter(|disk| in_use(disk))
        .map(|disk| disk.server)
        .collect();
    servers.sort_unstable();
    servers.dedup();
    servers.len()
}

fn judge_chunk(state: &State, id: ChunkId, copies: &[Copy], servers: usize) -> Option<String> {
    let chunk = state.chunk(id)?;
    if chunk.lease != LeaseState::Settled {
        return Some(format!("{id} is not settled: {:?}", chunk.lease));
    }
    let current: Vec<&Copy> = copies
        .iter()
        .filter(|copy| copy.version == chunk.version && copy.part.part == 0)
        .collect();
    let wanted = usize::from(chunk.copies).min(servers);
    if current.len() < wanted {
        let known: Vec<_> = copies.iter().map(|c| (c.server, c.version)).collect();
        return Some(format!(
            "{id} at {} has {} of {wanted} copies: {known:?}",
            chunk.version,
            current.len()
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
