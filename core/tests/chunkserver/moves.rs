//! Parts that move from one disk of a server to another.

use crate::cluster::*;
use antler_core::chunk::rules::{Amount, DiskRules};
use antler_core::ids::{ChunkId, ChunkVersion, DiskId, Epoch, PartId};
use antler_core::limits::HEARTBEAT;
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::time::Duration;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{Command, CommandResult};
use antler_core::wire::client_chunk::ChunkErrorKind;

const DRAIN: DiskRules = DiskRules {
    keep_free: None,
    limit: None,
    drain: true,
};

/// A server of two disks, with so many parts of several sizes.
fn filled(parts: u64) -> Cluster {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 1..=parts {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        cluster.write(&[copy], 0, &content(chunk), true).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    cluster
}

fn content(chunk: u64) -> Vec<u8> {
    pattern(chunk, chunk as usize * 40_000)
}

fn check(cluster: &mut Cluster, chunk: u64) {
    let copy = cluster.copy(0, chunk, 1, Right::Read);
    let wanted = content(chunk);
    let mut read = Vec::new();
    while read.len() < wanted.len() {
        let piece = cluster.read(&copy, read.len() as u32, 4096 * 32).unwrap();
        read.extend_from_slice(&piece);
    }
    read.truncate(wanted.len());
    assert!(read == wanted, "chunk {chunk} is what was written");
}

fn both(cluster: &Cluster) -> Vec<u64> {
    let mut all = cluster.chunks_on(0, 1);
    all.extend(cluster.chunks_on(0, 2));
    all.sort_unstable();
    all
}

fn reached(cluster: &Cluster, mark: Mark) -> bool {
    cluster.nodes[0].machine.marks().has(mark)
}

#[test]
fn a_drained_disk_is_emptied_onto_the_other_and_all_can_be_read() {
    let mut cluster = filled(20);
    let before = cluster.chunks_on(0, 1).len() as u64;
    assert!(before > 0);
    cluster.order(0, 1, DRAIN);
    assert_eq!(cluster.disk_status(0, 1).draining, Some(before));
    assert_eq!(cluster.disk_status(0, 2).draining, None);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.chunks_on(0, 1), Vec::<u64>::new());
    assert_eq!(cluster.chunks_on(0, 2), (1..=20).collect::<Vec<_>>());
    assert_eq!(cluster.disk_status(0, 1).draining, Some(0));
    assert_eq!(cluster.disk_status(0, 2).copies, 20);
    (1..=20).for_each(|chunk| check(&mut cluster, chunk));
    assert!(reached(&cluster, Mark::PartMoved));
    // The masters know where each is now.
    cluster.restart(0, 7);
    assert!(
        cluster
            .reported(0)
            .iter()
            .all(|report| report.disk == DiskId(2))
    );
    (1..=20).for_each(|chunk| check(&mut cluster, chunk));
}

#[test]
fn whatever_step_a_crash_hits_each_part_is_there_once_and_whole() {
    for steps in 0..60 {
        let mut cluster = filled(6);
        cluster.hold = true;
        cluster.order(0, 1, DRAIN);
        cluster.pass(Duration::from_millis(5));
        for _ in 0..steps {
            cluster.release_one();
        }
        let marks = cluster.nodes[0].machine.marks();
        cluster.hold = false;
        cluster.forget_held();
        cluster.restart(0, steps);
        cluster.pass(HEARTBEAT * 3);
        let all = both(&cluster);
        assert_eq!(
            all,
            (1..=6).collect::<Vec<_>>(),
            "after {steps} steps: {marks:?}"
        );
        (1..=6).for_each(|chunk| check(&mut cluster, chunk));
    }
}

/// A server with so many parts, amid the copying of those on its disk 1, and which they are.
fn amid_copying(parts: u64) -> (Cluster, Vec<u64>) {
    let mut cluster = filled(parts);
    let moving = cluster.chunks_on(0, 1);
    cluster.hold = true;
    cluster.order(0, 1, DRAIN);
    cluster.pass(Duration::from_millis(5));
    for _ in 0..moving.len() * 2 {
        cluster.release_one();
    }
    (cluster, moving)
}

#[test]
fn a_write_amid_the_copying_ends_the_move_and_is_not_lost() {
    let (mut cluster, moving) = amid_copying(6);
    let mut asked = Vec::new();
    for &chunk in &moving {
        let copy = cluster.copy(0, chunk, 2, Right::Write);
        let body = write_body(0, b"changed", true);
        asked.push(cluster.ask(&[copy], body, b"changed"));
    }
    cluster.release();
    cluster.pass(Duration::from_secs(30));
    for asked in asked {
        cluster.reply(asked).unwrap().result.unwrap();
    }
    assert!(reached(&cluster, Mark::MoveSpoiled) && reached(&cluster, Mark::PartMoved));
    assert_eq!(cluster.chunks_on(0, 1), Vec::<u64>::new());
    for chunk in moving {
        let copy = cluster.copy(0, chunk, 2, Right::Read);
        let wanted = [b"changed".as_slice(), &content(chunk)[7..4096]].concat();
        assert_eq!(cluster.read(&copy, 0, 4096).unwrap(), wanted);
    }
}

#[test]
fn a_part_that_is_deleted_amid_its_move_is_gone_from_both_disks() {
    let (mut cluster, moving) = amid_copying(4);
    let parts = moving
        .iter()
        .map(|chunk| (PartId::whole(ChunkId(*chunk)), ChunkVersion(1)));
    cluster.send_command(
        0,
        Command::Delete {
            parts: parts.collect(),
        },
    );
    cluster.release();
    cluster.pass(Duration::from_secs(10));
    assert!(both(&cluster).iter().all(|chunk| !moving.contains(chunk)));
    cluster.restart(0, 3);
    assert!(both(&cluster).iter().all(|chunk| !moving.contains(chunk)));
}

#[test]
fn an_old_copy_that_can_not_be_deleted_never_passes_for_the_new_one() {
    let mut cluster = filled(6);
    let moving = cluster.chunks_on(0, 1);
    let disk = DiskId(1);
    cluster.hold = true;
    cluster.order(0, 1, DRAIN);
    cluster.pass(Duration::from_millis(5));
    // The disk takes nothing more, but can be read: the first deletion fails.
    let store = cluster.nodes[0].stores.get_mut(&disk).unwrap();
    store.vfs_mut().fail_syncs();
    cluster.release();
    cluster.pass(Duration::from_secs(5));
    assert!(reached(&cluster, Mark::PartSealed));
    let moved: Vec<u64> = cluster.chunks_on(0, 2);
    let sealed = moving.iter().filter(|chunk| moved.contains(chunk));
    let sealed: Vec<u64> = sealed.copied().collect();
    assert!(!sealed.is_empty());
    for &chunk in &sealed {
        check(&mut cluster, chunk);
        let old = cluster.copy(0, chunk, 1, Right::Write);
        let write = cluster.write(&[old], 0, b"lost", true);
        assert_eq!(write, Err(ChunkErrorKind::Medium));
        let new = cluster.copy(0, chunk, 2, Right::Write);
        cluster.write(&[new], 0, b"kept", true).unwrap();
    }
    // The disk comes back with what it had.
    cluster.restart(0, 5);
    cluster.pass(HEARTBEAT * 3);
    for &chunk in &sealed {
        let copy = cluster.copy(0, chunk, 2, Right::Read);
        assert_eq!(&cluster.read(&copy, 0, 4096).unwrap()[..4], b"kept");
        let report = cluster.reported(0);
        let own = report.iter().find(|one| one.part.chunk == ChunkId(chunk));
        assert_eq!(own.unwrap().epoch, Epoch(2));
    }
}

#[test]
fn a_lease_that_nobody_wrote_under_ends_where_nothing_else_is_placed() {
    let mut cluster = Cluster::new(1, 1);
    cluster.order(0, 1, DRAIN);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let refused = cluster.write(&[copy], 0, b"anything", false);
    assert!(refused.is_err(), "nothing new is placed there");
    let made = cluster.command(
        0,
        Command::SetVersion {
            part: part(1),
            epoch: Epoch(2),
            version: ChunkVersion(2),
        },
    );
    let states = match made {
        CommandResult::Parts(states) => states,
        failed => panic!("{failed:?}"),
    };
    assert_eq!(states[0].map(|state| state.version), Some(ChunkVersion(2)));
    assert_eq!(cluster.chunks_on(0, 1), [1]);
}

#[test]
fn nothing_moves_where_there_is_no_room() {
    let mut cluster = filled(8);
    let before = cluster.chunks_on(0, 1);
    let limit = Some(Amount::Bytes(1));
    cluster.order(
        0,
        2,
        DiskRules {
            limit,
            ..DiskRules::default()
        },
    );
    cluster.order(0, 1, DRAIN);
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.chunks_on(0, 1), before);
    let left = before.len() as u64;
    assert_eq!(cluster.disk_status(0, 1).draining, Some(left));
    // Room comes, and the drain goes on by itself; one that is ended moves no more.
    cluster.order(0, 2, DiskRules::default());
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.chunks_on(0, 1), Vec::<u64>::new());
    cluster.order(0, 1, DiskRules::default());
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.chunks_on(0, 2).len(), 8);
}
