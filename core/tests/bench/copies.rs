//! Copies of a chunk that a master under test knows of.

use super::cluster::answer_in;
use super::{Bench, sync_all, write_and_close};
use antler_core::attributes::Credentials;
use antler_core::ids::{ChunkId, ChunkVersion, DiskId, Epoch, LinkId, PartId, RequestId};
use antler_core::time::Duration;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, PartReport};
use antler_core::wire::client_master::{Answer, ClientToMaster, DiskStatus, Query};

/// The version of a chunk that was given back unsynced under its n-th lease; the 0th is that
/// of what was never written.
pub(crate) fn closed_under(lease: u64) -> ChunkVersion {
    match lease {
        0 => ChunkVersion(0),
        _ => ChunkVersion(lease << 20).sealed(),
    }
}

/// What a server reports of a good copy.
pub(crate) fn reported(chunk: ChunkId, version: u64) -> PartReport {
    PartReport {
        part: PartId::whole(chunk),
        version: closed_under(version),
        epoch: Epoch(closed_under(version).0),
        disk: DiskId(0),
        bad: false,
        suspect: false,
    }
}

/// Three servers, and a chunk that settled on two of them: their links, and the chunk.
pub(crate) fn settled_on_two(bench: &mut Bench) -> (Vec<(u64, LinkId)>, ChunkId) {
    let all: Vec<(u64, LinkId)> = (1..=3)
        .map(|server| (server, bench.serve(server)))
        .collect();
    let (link, _) = bench.mount(1);
    write_and_close(bench, link);
    bench.pass(Duration::from_millis(100));
    let mut holders = Vec::new();
    let mut chunks = Vec::new();
    for (server, link) in &all {
        let synced = sync_all(bench, *link, *server);
        if !synced.is_empty() {
            holders.push((*server, *link));
        }
        chunks.extend(synced);
    }
    assert_eq!(holders.len(), 2);
    let spare = all.into_iter().find(|one| !holders.contains(one));
    holders.extend(spare);
    (holders, chunks[0])
}

pub(crate) fn replications(bench: &mut Bench, link: LinkId) -> Vec<(u64, ChunkVersion, Epoch)> {
    let of = |(command, body)| match body {
        Command::Replicate { version, epoch, .. } => Some((command, version, epoch)),
        _ => None,
    };
    bench.commands(link).into_iter().filter_map(of).collect()
}

/// How many copies a mount is told of.
pub(crate) fn locate(bench: &mut Bench, link: LinkId, chunk: ChunkId) -> usize {
    let state = bench.master.state();
    let inode = state.chunk(chunk).expect("it is there").inode;
    let query = Query::Locate {
        inode,
        index: 0,
        count: 1,
    };
    let ask = ClientToMaster::Ask {
        question: RequestId(1),
        credentials: Credentials::default(),
        query,
    };
    match answer_in(bench.say(link, ask)) {
        Some(Ok(Answer::Located(chunks))) => chunks[0].copies.len(),
        other => panic!("nothing located but {other:?}"),
    }
}

pub(crate) fn tell_disk(bench: &mut Bench, link: LinkId, disk: &DiskStatus) {
    let alive = ChunkToMaster::Alive {
        disks: vec![disk.clone()],
        load: 0,
        sent: 1,
    };
    bench.tell(link, alive);
}
