//! What is ordered of a disk: how much of it new parts may take.

use crate::cluster::*;
use antler_core::chunk::rules::{Amount, DiskRules};
use antler_core::ids::DiskId;
use antler_core::limits::HEARTBEAT;
use antler_core::vfs::Vfs;
use antler_core::wire::capability::Right;
use antler_core::wire::client_chunk::ChunkErrorKind;

fn write_new(cluster: &mut Cluster, chunk: u64) -> Result<(), ChunkErrorKind> {
    let copy = cluster.copy(0, chunk, 1, Right::Write);
    cluster.write(&[copy], 0, &pattern(chunk, 8192), true)?;
    Ok(())
}

fn free(cluster: &mut Cluster, disk: u64) -> u64 {
    let store = cluster.nodes[0].stores.get_mut(&DiskId(disk));
    store.unwrap().vfs_mut().space().unwrap().free
}

#[test]
fn what_is_new_goes_where_there_is_room_and_what_is_there_grows_on() {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 0..8 {
        write_new(&mut cluster, chunk).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    let (first, second) = (cluster.chunks_on(0, 1), cluster.chunks_on(0, 2));
    assert!(!first.is_empty() && !second.is_empty());
    let keep_free = Some(Amount::Bytes(free(&mut cluster, 1)));
    let rules = DiskRules {
        keep_free,
        ..DiskRules::default()
    };
    cluster.order(0, 1, rules);
    assert_eq!(cluster.disk_status(0, 1).space.free, 0);
    assert!(cluster.disk_status(0, 2).space.free > 0);
    for chunk in 8..16 {
        write_new(&mut cluster, chunk).unwrap();
    }
    assert_eq!(cluster.chunks_on(0, 1), first, "nothing new came");
    let there = cluster.copy(0, first[0], 1, Right::Write);
    cluster.write(&[there], 8192, b"more", true).unwrap();
    // No disk has room any more.
    let limit = Some(Amount::Percent(0));
    cluster.order(0, 2, DiskRules { limit, ..rules });
    assert!(write_new(&mut cluster, 16).is_err());
    cluster.order(0, 1, DiskRules::default());
    write_new(&mut cluster, 17).unwrap();
    assert!(cluster.chunks_on(0, 1).contains(&17));
}

#[test]
fn what_was_written_since_the_disk_told_its_space_counts() {
    let mut cluster = Cluster::new(1, 1);
    cluster.pass(HEARTBEAT * 10);
    let keep_free = Some(Amount::Bytes(free(&mut cluster, 1) - 20_000));
    let rules = DiskRules {
        keep_free,
        ..DiskRules::default()
    };
    cluster.order(0, 1, rules);
    let made = (0..5).filter(|chunk| write_new(&mut cluster, *chunk).is_ok());
    assert_eq!(made.count(), 3, "8192 bytes each");
}
