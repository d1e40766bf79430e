//! Disks that fail, rot or are full.

use crate::cluster::*;
use antler_core::limits::HEARTBEAT;
use antler_core::vfs::Vfs;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::ChunkToMaster;
use antler_core::wire::client_chunk::ChunkErrorKind;

#[test]
fn a_rotten_unit_is_reported_once_and_not_counted_any_more() {
    let mut cluster = Cluster::new(1, 1);
    let data = pattern(1, 16384);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster
        .write(std::slice::from_ref(&copy), 0, &data, true)
        .unwrap();
    cluster.rot(0, 1, &data[5000..][..32]);
    for _ in 0..2 {
        assert_eq!(cluster.read(&copy, 0, 16384), Err(ChunkErrorKind::Corrupt));
    }
    assert_eq!(cluster.bad(0), [part(1)]);
    assert_eq!(cluster.read(&copy, 0, 4096).unwrap(), data[..4096]);
    // A write into the rotten unit must not make it look right.
    let into = cluster.write(std::slice::from_ref(&copy), 5000, b"y", false);
    assert_eq!(into, Err(ChunkErrorKind::Corrupt));
    let over = cluster.write(std::slice::from_ref(&copy), 4096, &data[..4096], false);
    over.unwrap();
    assert_eq!(cluster.read(&copy, 4096, 4096).unwrap(), data[..4096]);
}

/// What the server said last of its only part.
fn is_bad(cluster: &Cluster) -> bool {
    let reports = cluster.from_servers.iter().rev();
    let mut last = reports.filter_map(|(_, said)| match said {
        ChunkToMaster::Gained { parts } | ChunkToMaster::Report { parts, .. } => parts.first(),
        _ => None,
    });
    last.next().expect("it has a part").bad
}

fn fail_reads(cluster: &mut Cluster, fail: bool) {
    for store in cluster.nodes[0].stores.values_mut() {
        store.vfs_mut().fail_reads(fail);
    }
}

#[test]
fn a_part_that_could_not_be_read_for_a_moment_counts_again_once_all_of_it_was() {
    let mut cluster = Cluster::new(1, 1);
    let data = pattern(1, 16384);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let chain = std::slice::from_ref(&copy);
    cluster.write(chain, 0, &data, true).unwrap();
    fail_reads(&mut cluster, true);
    let read = cluster.read(&copy, 0, 16384);
    assert_eq!(read, Err(ChunkErrorKind::Corrupt));
    assert!(is_bad(&cluster));
    cluster.pass(HEARTBEAT * 6);
    assert!(is_bad(&cluster), "it still fails");
    fail_reads(&mut cluster, false);
    cluster.pass(HEARTBEAT * 20);
    assert!(!is_bad(&cluster));
    assert_eq!(cluster.read(&copy, 0, 16384).unwrap(), data);
}

#[test]
fn a_part_that_could_not_be_read_and_is_rotten_stays_bad() {
    let mut cluster = Cluster::new(1, 1);
    let data = pattern(1, 16384);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let chain = std::slice::from_ref(&copy);
    cluster.write(chain, 0, &data, true).unwrap();
    cluster.rot(0, 1, &data[5000..][..32]);
    fail_reads(&mut cluster, true);
    cluster.read(&copy, 0, 4096).unwrap_err();
    fail_reads(&mut cluster, false);
    cluster.pass(HEARTBEAT * 40);
    assert!(is_bad(&cluster));
}

#[test]
fn a_part_that_can_not_be_read_for_minutes_is_given_up() {
    let mut cluster = Cluster::new(1, 1);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let chain = std::slice::from_ref(&copy);
    cluster.write(chain, 0, b"x", true).unwrap();
    fail_reads(&mut cluster, true);
    for _ in 0..3 {
        cluster.read(&copy, 0, 4096).unwrap_err();
        assert!(is_bad(&cluster));
    }
    cluster.pass(HEARTBEAT * 300);
    assert!(is_bad(&cluster), "it was given up");
    fail_reads(&mut cluster, false);
    cluster.pass(HEARTBEAT * 300);
    assert!(is_bad(&cluster));
}

#[test]
fn a_failed_disk_loses_its_parts_but_for_reading_and_no_writer_makes_them_anew() {
    let mut cluster = Cluster::new(1, 2);
    let copies: Vec<_> = (0..10)
        .map(|chunk| cluster.copy(0, chunk, 1, Right::Write))
        .collect();
    for copy in &copies {
        cluster
            .write(std::slice::from_ref(copy), 0, b"x", true)
            .unwrap();
    }
    let failing = *cluster.nodes[0].stores.keys().next().unwrap();
    let store = cluster.nodes[0].stores.get_mut(&failing).unwrap();
    let there: Vec<_> = store.parts().map(|stored| stored.part).collect();
    assert!(!there.is_empty() && there.len() < 10, "{there:?}");
    store.vfs_mut().fail_syncs();
    let failed_part = there[0];
    let first = failed_part.chunk.0 as usize;
    let failed = cluster.write(&copies[first..=first], 0, b"y", true);
    assert_eq!(failed, Err(ChunkErrorKind::Medium));
    assert_eq!(cluster.lost(0), there);
    for copy in &copies {
        let expected = match there.contains(&copy.capability.part) {
            true => Err(ChunkErrorKind::Medium),
            false => Ok(vec![cluster.nodes[0].boot]),
        };
        let chain = std::slice::from_ref(copy);
        assert_eq!(cluster.write(chain, 0, b"z", true), expected);
        assert_eq!(cluster.sync(chain), expected);
        // All that was acknowledged is on the disk; but of the part that was written to
        // when it failed nobody knows.
        let readable = copy.capability.part != failed_part;
        assert_eq!(cluster.read(copy, 0, 4096).is_ok(), readable);
    }
    let others: Vec<_> = there.iter().filter(|part| **part != failed_part).collect();
    let suspects = cluster.suspects(0);
    assert_eq!(suspects.iter().collect::<Vec<_>>(), others);
    let new = cluster.copy(0, 99, 1, Right::Write);
    cluster.write(&[new], 0, b"new", true).unwrap();
    cluster.pass(HEARTBEAT);
    let alive = cluster
        .from_servers
        .iter()
        .rev()
        .find_map(|(_, said)| match said {
            ChunkToMaster::Alive { disks, .. } => Some(disks.clone()),
            _ => None,
        });
    for disk in alive.unwrap() {
        assert_eq!(disk.failed.is_empty(), disk.disk != failing, "{disk:?}");
    }
}

#[test]
fn a_full_disk_says_so_and_what_is_there_stays() {
    let mut cluster = Cluster::new(1, 1);
    for store in cluster.nodes[0].stores.values_mut() {
        store.vfs_mut().limit(8 << 20);
    }
    let data = pattern(3, 1 << 20);
    let mut stored = 0;
    loop {
        let copy = cluster.copy(0, stored, 1, Right::Write);
        match cluster.write(&[copy], 0, &data, true) {
            Ok(_) => stored += 1,
            Err(kind) => break assert_eq!(kind, ChunkErrorKind::Full),
        }
    }
    assert!(stored > 3, "{stored}");
    cluster.restart(0, 1);
    for chunk in 0..stored {
        let copy = cluster.copy(0, chunk, 1, Right::Read);
        assert_eq!(cluster.read(&copy, 0, 1 << 20).unwrap(), data);
    }
}

#[test]
fn checkpoints_are_made_when_they_are_due() {
    let mut cluster = Cluster::new(1, 1);
    for round in 0..6000u64 {
        let copy = cluster.copy(0, round % 50, 1, Right::Write);
        cluster
            .write(&[copy], 0, &pattern(round, 20_000), true)
            .unwrap();
        if round % 500 == 0 {
            cluster.pass(HEARTBEAT);
        }
    }
    cluster.pass(HEARTBEAT * 2);
    let (_, store) = cluster.nodes[0].stores.iter_mut().next().unwrap();
    let names = store.vfs_mut().list("").unwrap();
    let tables: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("table-"))
        .collect();
    assert_eq!(tables.len(), 1);
    assert_ne!(tables[0], "table-0");
    cluster.restart(0, 8);
    for chunk in 0..50 {
        let copy = cluster.copy(0, chunk, 1, Right::Read);
        let wanted = pattern(5950 + chunk, 20_000);
        assert_eq!(cluster.read(&copy, 0, 20_480).unwrap()[..20_000], wanted);
    }
}
