//! What a server does about its disks of itself: parts are spread over them evenly, and a disk
//! that is slow or fails now and then is emptied before it is dead.

use crate::cluster::*;
use antler_core::chunk::rules::{Amount, DiskRules};
use antler_core::chunkserver::DiskCare;
use antler_core::ids::DiskId;
use antler_core::limits::HEARTBEAT;
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::time::Duration;
use antler_core::wire::capability::Right;
use antler_core::wire::client_chunk::ChunkRequestBody;

const SLOW: Duration = Duration::from_secs(1);
const READ: ChunkRequestBody = ChunkRequestBody::Read {
    offset: 0,
    length: 4096,
};

fn content(chunk: u64, blocks: usize) -> Vec<u8> {
    pattern(chunk, blocks * 65_536)
}

/// A disk of so many MiB, by order.
fn of_size(mebibytes: u64) -> DiskRules {
    DiskRules {
        limit: Some(Amount::Bytes(mebibytes << 20)),
        ..DiskRules::default()
    }
}

/// A server of two disks with so many parts of so many blocks, all on its disk 1.
fn lopsided(care: DiskCare, parts: u64, blocks: usize) -> Cluster {
    let mut cluster = Cluster::caring(1, 2, care);
    cluster.order(0, 2, of_size(0));
    for chunk in 1..=parts {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        let data = content(chunk, blocks);
        cluster.write(&[copy], 0, &data, true).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.chunks_on(0, 1).len() as u64, parts);
    cluster
}

fn check(cluster: &mut Cluster, chunk: u64, blocks: usize) {
    let copy = cluster.copy(0, chunk, 1, Right::Read);
    let wanted = content(chunk, blocks);
    let read = cluster.read(&copy, 0, wanted.len() as u32).unwrap();
    assert!(read == wanted, "chunk {chunk} is what was written");
}

fn used_percent(cluster: &Cluster, disk: u64) -> u64 {
    let status = cluster.disk_status(0, disk);
    let most = status.most.unwrap();
    (most - status.space.free) * 100 / most
}

fn reached(cluster: &Cluster, mark: Mark) -> bool {
    cluster.nodes[0].machine.marks().has(mark)
}

#[test]
fn parts_go_from_the_fuller_disk_to_the_emptier_one_until_both_have_their_share() {
    let mut cluster = lopsided(DiskCare::default(), 24, 8);
    for disk in 1..=2 {
        cluster.order(0, disk, of_size(20));
    }
    cluster.pass(Duration::from_secs(60));
    let (full, empty) = (used_percent(&cluster, 1), used_percent(&cluster, 2));
    assert!(full <= empty + 12 && empty <= full, "{full} and {empty}");
    assert!(reached(&cluster, Mark::DisksEvened));
    assert_eq!(cluster.disk_status(0, 1).draining, None, "by no order");
    // There it ends.
    let there = cluster.chunks_on(0, 2);
    assert!(there.len() > 6, "{there:?}");
    cluster.pass(Duration::from_secs(200));
    assert_eq!(cluster.chunks_on(0, 2), there);
    (1..=24).for_each(|chunk| check(&mut cluster, chunk, 8));
}

#[test]
fn a_part_that_would_only_turn_the_two_disks_round_stays() {
    let mut cluster = lopsided(DiskCare::default(), 1, 16);
    let before = cluster.chunks_on(0, 1);
    for disk in 1..=2 {
        cluster.order(0, disk, of_size(4));
    }
    cluster.pass(Duration::from_secs(200));
    assert!(used_percent(&cluster, 1) > used_percent(&cluster, 2) + 10);
    assert_eq!(cluster.chunks_on(0, 1), before);
    check(&mut cluster, 1, 16);
}

#[test]
fn nothing_moves_for_balance_where_that_is_off() {
    let care = DiskCare {
        balance: 0,
        ..DiskCare::default()
    };
    let mut cluster = lopsided(care, 24, 8);
    for disk in 1..=2 {
        cluster.order(0, disk, of_size(20));
    }
    cluster.pass(Duration::from_secs(100));
    assert_eq!(cluster.chunks_on(0, 2), Vec::<u64>::new());
}

/// Has the parts of some disks read for a while, each read taking so long.
fn read_slowly(cluster: &mut Cluster, disks: &[u64], each: Duration, rounds: usize) {
    for _ in 0..rounds {
        cluster.hold = true;
        for &disk in disks {
            for chunk in cluster.chunks_on(0, disk).into_iter().take(4) {
                let copy = cluster.copy(0, chunk, 1, Right::Read);
                cluster.ask(&[copy], READ, &[]);
            }
        }
        cluster.pass(each);
        cluster.release();
    }
}

/// A server of two disks with parts on both.
fn spread() -> Cluster {
    spread_over(2)
}

fn spread_over(disks: u64) -> Cluster {
    let mut cluster = Cluster::new(1, disks);
    for chunk in 1..=disks * 8 {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        let data = content(chunk, 1);
        cluster.write(&[copy], 0, &data, true).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    for disk in 1..=disks {
        assert!(cluster.chunks_on(0, disk).len() >= 4);
    }
    cluster
}

#[test]
fn a_disk_that_is_slow_for_long_is_suspected_and_emptied() {
    let mut cluster = spread();
    read_slowly(&mut cluster, &[1], SLOW * 2, 20);
    assert_eq!(cluster.disk_status(0, 1).suspected, "", "not so soon");
    read_slowly(&mut cluster, &[1], SLOW * 2, 20);
    let told = cluster.disk_status(0, 1);
    assert!(told.suspected.contains("1000 ms"), "{told:?}");
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.chunks_on(0, 1), Vec::<u64>::new());
    assert_eq!(cluster.disk_status(0, 1).draining, Some(0));
    assert!(reached(&cluster, Mark::DiskSuspected));
    (1..=16).for_each(|chunk| check(&mut cluster, chunk, 1));
    // What is new goes elsewhere, though most room is there.
    let copy = cluster.copy(0, 17, 1, Right::Write);
    cluster.write(&[copy], 0, &content(17, 1), true).unwrap();
    assert!(cluster.chunks_on(0, 2).contains(&17));
    assert_eq!(cluster.disk_status(0, 2).suspected, "");
    // Where that has no room, rather there than nowhere.
    cluster.order(0, 2, of_size(0));
    let copy = cluster.copy(0, 18, 1, Right::Write);
    cluster.write(&[copy], 0, &content(18, 1), true).unwrap();
    assert_eq!(cluster.chunks_on(0, 1), [18]);
}

#[test]
fn no_disk_is_suspected_that_is_as_slow_as_another_or_slow_for_a_moment() {
    let mut cluster = spread();
    read_slowly(&mut cluster, &[1, 2], SLOW * 2, 80);
    for disk in 1..=2 {
        assert_eq!(cluster.disk_status(0, disk).suspected, "");
    }
    let mut cluster = spread();
    for _ in 0..4 {
        read_slowly(&mut cluster, &[1], SLOW * 2, 20);
        read_slowly(&mut cluster, &[1], SLOW / 2, 60);
    }
    assert_eq!(cluster.disk_status(0, 1).suspected, "");
}

#[test]
fn a_disk_that_was_suspected_before_keeps_no_other_from_it() {
    let mut cluster = spread_over(3);
    for disk in 1..=2 {
        read_slowly(&mut cluster, &[disk], SLOW * 2, 45);
        cluster.pass(Duration::from_secs(30));
        assert_ne!(cluster.disk_status(0, disk).suspected, "", "disk {disk}");
    }
    assert_eq!(cluster.chunks_on(0, 3).len(), 24);
}

#[test]
fn a_disk_that_answers_nothing_at_all_is_suspected() {
    let mut cluster = spread();
    cluster.hold = true;
    for chunk in cluster.chunks_on(0, 1) {
        let copy = cluster.copy(0, chunk, 1, Right::Read);
        for _ in 0..2 {
            cluster.ask(std::slice::from_ref(&copy), READ, &[]);
        }
    }
    cluster.pass(Duration::from_secs(100));
    assert_ne!(cluster.disk_status(0, 1).suspected, "");
    cluster.release();
}

#[test]
fn a_disk_of_which_some_reads_failed_is_suspected_and_emptied() {
    let mut cluster = spread();
    let chunks = cluster.chunks_on(0, 1);
    let fail = |cluster: &mut Cluster, fail| {
        let store = cluster.nodes[0].stores.get_mut(&DiskId(1)).unwrap();
        store.vfs_mut().fail_reads(fail);
    };
    fail(&mut cluster, true);
    for &chunk in chunks.iter().take(3) {
        let copy = cluster.copy(0, chunk, 1, Right::Read);
        assert!(cluster.read(&copy, 0, 4096).is_err());
    }
    fail(&mut cluster, false);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.disk_status(0, 1).suspected, "", "three are few");
    fail(&mut cluster, true);
    let copy = cluster.copy(0, chunks[3], 1, Right::Read);
    assert!(cluster.read(&copy, 0, 4096).is_err());
    fail(&mut cluster, false);
    cluster.pass(Duration::from_secs(60));
    let told = cluster.disk_status(0, 1);
    assert_eq!(told.suspected, "4 reads of it failed");
    assert_eq!(told.draining, Some(0));
    assert_eq!(cluster.chunks_on(0, 2).len(), 16);
    (1..=16).for_each(|chunk| check(&mut cluster, chunk, 1));
}
