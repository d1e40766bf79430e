//! Once everything has healed (P4, P8, P10): every chunk is settled, has its
//! copies again, they are equal, and no server keeps what nobody refers to. A chunk that
//! its class wants in parts lies in all of them, and each goes with the others.
//!
//! What lies on a disk that failed is out of everybody's reach: it is no copy, and
//! nobody can remove it before the disk is in use again.

use super::disks::{DiskReader, Disks, ServerDisk};
use crate::network::Nanos;
use antler_core::chunk::erasure::StripeCoder;
use antler_core::chunk::operation::StoredPart;
use antler_core::chunk::stripe::Stripe;
use antler_core::ids::{ChunkId, ChunkVersion, ServerId};
use antler_core::limits::BLOCK_SIZE;
use antler_core::namespace::LeaseState;
use antler_core::namespace::State;
use antler_core::placement::label::{DRAIN, label};
use antler_core::placement::{self, Fill, Labels, Policy};
use std::collections::{BTreeMap, BTreeSet};

/// What is still missing, in words; nothing when all is well. `in_use` tells which
/// disks the servers work with; `converts` that every mount could read a chunk in parts,
/// so that nothing waits for one that can't; `scrubs` that the servers read what nobody
/// reads, so that no copy is left with a bad unit.
pub(crate) fn missing(
    now: Nanos,
    state: &State,
    (disks, converts, scrubs): (&Disks, bool, bool),
    in_use: &dyn Fn(&ServerDisk) -> bool,
    reader: &mut DiskReader,
) -> Vec<String> {
    let mut missing = Vec::new();
    let mut held: BTreeMap<ChunkId, Vec<Copy<'_>>> = BTreeMap::new();
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
            if scrubs && let Err(error) = reader.verify(now, disk, stored.part) {
                missing.push(format!("{} was not scrubbed: {error}", disk.server));
            }
            held.entry(stored.part.chunk).or_default().push(Copy {
                server: disk.server,
                stored,
                digest: digest.ok(),
                disk,
            });
        }
    }
    let servers = servers_of(disks, in_use);
    for id in state.chunks_from(ChunkId(0), usize::MAX) {
        let copies = held.remove(&id).unwrap_or_default();
        let stripe = state.stripe(id);
        let form = judge_form(state, id, &servers).filter(|_| converts);
        let lacks = form.or_else(|| match stripe {
            None => judge_chunk(state, id, &copies, &servers),
            Some(stripe) => judge_parts(state, (id, stripe), &copies, &servers)
                .or_else(|| judge_code((id, stripe), &copies, now, reader)),
        });
        missing.extend(lacks);
    }
    for (chunk, copies) in held {
        let servers: Vec<ServerId> = copies.iter().map(|copy| copy.server).collect();
        missing.push(format!(
            "{chunk} is referred to by nobody but lies on {servers:?}"
        ));
    }
    missing
}

struct Copy<'d> {
    server: ServerId,
    stored: StoredPart,
    /// `None`: it can't be read.
    digest: Option<u64>,
    disk: &'d ServerDisk,
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

/// Whether an operator has a server emptied.
fn is_drained(state: &State, server: ServerId) -> bool {
    let known = state.server_labels(server);
    known.is_some_and(|known| label(&known.set, DRAIN).is_some())
}

/// How well copies fill a policy that lie only where one may be placed.
fn best_on(state: &State, policy: &Policy, servers: &[ServerId]) -> Fill {
    let kept = servers.iter().copied();
    let kept: Vec<ServerId> = kept.filter(|one| !is_drained(state, *one)).collect();
    fill_on(state, policy, &kept)
}

/// What lies on a drained server although the others have room for all of it.
fn judge_drain(
    state: &State,
    (id, policy, best): (ChunkId, &Policy, Fill),
    holders: &[ServerId],
) -> Option<String> {
    let mut drained = holders.iter().filter(|one| is_drained(state, **one));
    let server = drained.next().filter(|_| best.filled == policy.copies)?;
    Some(format!("{id} is on {server}, which is to be empty"))
}

/// How well copies on these servers fill a policy.
pub(crate) fn fill_on(state: &State, policy: &Policy, servers: &[ServerId]) -> Fill {
    let labels: Vec<Labels> = servers.iter().map(|one| labels_of(state, *one)).collect();
    placement::fill(policy, &labels.iter().collect::<Vec<_>>())
}

/// The labels that hold, as far as the log knows them.
fn labels_of(state: &State, server: ServerId) -> Labels {
    let known = state.server_labels(server);
    known.map_or_else(Labels::new, |known| known.over(&known.configured))
}

/// Whether a chunk lies in parts or in copies, as its class wants it and the servers
/// allow.
fn judge_form(state: &State, id: ChunkId, servers: &[ServerId]) -> Option<String> {
    let chunk = state.chunk(id)?;
    let class = state.class(chunk.class);
    let policy = class.resting(chunk.archived);
    let shape = chunk.stripe.map(|stripe| stripe.shape);
    let can_be = match policy.stripe {
        Some(_) => best_on(state, policy, servers).filled == policy.copies,
        None => true,
    };
    let is_right = shape == policy.stripe || !can_be && shape.is_none();
    (!is_right).then(|| format!("{id} lies in {shape:?}, and `{policy}` is wanted"))
}

/// Whether all parts of a chunk are there, where they may be, and nothing else.
fn judge_parts(
    state: &State,
    (id, stripe): (ChunkId, Stripe),
    copies: &[Copy<'_>],
    servers: &[ServerId],
) -> Option<String> {
    let chunk = state.chunk(id)?;
    let class = state.class(chunk.class);
    let policy = class.resting(chunk.archived);
    let is_good = |copy: &&Copy<'_>| is_part(&copy.stored, stripe, chunk.version);
    let good: Vec<&Copy<'_>> = copies.iter().filter(is_good).collect();
    let numbers: BTreeSet<u8> = good.iter().map(|copy| copy.stored.part.part).collect();
    // Too few servers have room for fewer parts, and what is beside those is kept.
    let best = best_on(state, policy, servers);
    let wanted = usize::from(best.filled);
    if numbers.len() < wanted {
        let known: Vec<_> = copies.iter().map(|c| (c.server, c.stored)).collect();
        return Some(format!(
            "{id} has the parts {numbers:?} of {stripe:?}: {known:?}"
        ));
    }
    let holders: Vec<ServerId> = good.iter().map(|copy| copy.server).collect();
    if fill_on(state, policy, &holders) < best {
        return Some(format!("{id} on {holders:?} is not as `{policy}` wants it"));
    }
    let outside = holders
        .iter()
        .find(|server| !policy.permits(&labels_of(state, **server)));
    if let Some(server) = outside {
        return Some(format!(
            "{id} has a part on {server}, where `{policy}` permits none"
        ));
    }
    if let Some(told) = judge_drain(state, (id, policy, best), &holders) {
        return Some(told);
    }
    let extra = copies.len() - numbers.len();
    let whole = numbers.len() == stripe.shape.parts();
    (whole && extra > 0).then(|| format!("{id} still has {extra} copies or parts beside"))
}

/// Whether a part is of a stripe.
pub(crate) fn is_part(stored: &StoredPart, stripe: Stripe, version: ChunkVersion) -> bool {
    let is_one = stripe.shape.index_of(stored.part).is_some();
    is_one && (stored.version, stored.epoch) == (version, stripe.stamp)
}

/// Whether the parts of a chunk go together: the parity is that of the data.
fn judge_code(
    (id, stripe): (ChunkId, Stripe),
    copies: &[Copy<'_>],
    now: Nanos,
    reader: &mut DiskReader,
) -> Option<String> {
    let is_there = |part| {
        copies
            .iter()
            .any(|copy| copy.stored.part == stripe.shape.part_id(id, part))
    };
    if !(0..stripe.shape.parts()).all(is_there) {
        return None;
    }
    let layout = stripe.layout();
    let coder = StripeCoder::new(layout);
    let mut read = |part: usize, row: u32| {
        let name = stripe.shape.part_id(id, part);
        let own = copies.iter().find(|copy| copy.stored.part == name);
        let disk = own.expect("all parts are there").disk;
        let length = layout.block_length(part, row) as u64;
        let offset = u64::from(row) * BLOCK_SIZE as u64;
        reader.read(now, disk, name, offset, length)
    };
    for row in 0..layout.rows() {
        let blocks = (0..stripe.shape.parts()).map(|part| read(part, row));
        // What rotted and nobody read since is found by nobody, of copies as of parts.
        let Ok(blocks) = blocks.collect::<Result<Vec<_>, String>>() else {
            continue;
        };
        let (data, parity) = blocks.split_at(stripe.shape.data());
        let data = data.iter().filter(|block| !block.is_empty());
        let data: Vec<&[u8]> = data.map(|block| &block[..]).collect();
        let mut right = vec![vec![0; data[0].len()]; parity.len()];
        let mut into: Vec<&mut [u8]> = right.iter_mut().map(|block| &mut block[..]).collect();
        coder.encode_row(row, &data, &mut into);
        if right.iter().ne(parity) {
            return Some(format!("the parts of {id} do not go together in row {row}"));
        }
    }
    None
}

fn judge_chunk(
    state: &State,
    id: ChunkId,
    copies: &[Copy<'_>],
    servers: &[ServerId],
) -> Option<String> {
    let chunk = state.chunk(id)?;
    if chunk.lease != LeaseState::Settled {
        return Some(format!("{id} is not settled: {:?}", chunk.lease));
    }
    let current: Vec<&Copy<'_>> = copies
        .iter()
        .filter(|copy| copy.stored.version == chunk.version && copy.stored.part.part == 0)
        .collect();
    let class = state.class(chunk.class);
    let policy = class.copied(chunk.archived);
    let best = best_on(state, policy, servers);
    let wanted = usize::from(best.filled);
    if current.len() < wanted {
        let known: Vec<_> = copies.iter().map(|c| (c.server, c.stored)).collect();
        return Some(format!(
            "{id} at {} has {} of {wanted} copies: {known:?}",
            chunk.version,
            current.len()
        ));
    }
    let holders: Vec<ServerId> = current.iter().map(|copy| copy.server).collect();
    if fill_on(state, policy, &holders) < best {
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
    if let Some(told) = judge_drain(state, (id, policy, best), &holders) {
        return Some(told);
    }
    if current
        .iter()
        .any(|copy| copy.digest.is_none() || copy.digest != current[0].digest)
    {
        let digests: Vec<_> = current.iter().map(|c| (c.server, c.digest)).collect();
        return Some(format!("the copies of {id} differ: {digests:?}"));
    }
    // Nothing is thrown away of a chunk that lacks copies, for want of servers too.
    let is_at_goal = best.filled >= policy.copies;
    let extra = copies.len() - current.len();
    (extra > 0 && is_at_goal).then(|| format!("{id} still has {extra} stale copies"))
}
