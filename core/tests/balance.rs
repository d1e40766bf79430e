//! What moves from full servers to emptier ones, and what is written that every server of a
//! chunk is too full for; the chunkservers are played by the test.

mod bench;

use antler_core::errno::Errno;
use antler_core::ids::{BootId, InodeId, ServerId};
use antler_core::namespace::LeaseState;
use antler_core::namespace::record::Mutation;
use antler_core::time::Duration;
use antler_core::vfs::Space;
use antler_core::wire::chunk_master::ChunkToMaster;
use antler_core::wire::client_master::{Answer, DiskStatus, LeasedChunk};
use bench::cluster::Cluster;

/// A server tells that so much of a hundred of its space is used.
fn fill(cluster: &mut Cluster, server: u64, percent: u64) {
    fill_of(cluster, server, percent, 100 << 30);
}

fn fill_of(cluster: &mut Cluster, server: u64, percent: u64, total: u64) {
    let free = total / 100 * (100 - percent);
    let disk = DiskStatus {
        space: Space { total, free },
        ..DiskStatus::default()
    };
    let alive = ChunkToMaster::Alive {
        disks: vec![disk],
        load: 0,
        sent: 1,
    };
    cluster.bench.tell(cluster.servers[&server], alive);
}

fn ask_again(cluster: &mut Cluster, inode: InodeId, lease: &LeasedChunk) -> Option<Errno> {
    let failed = lease.copies.iter().map(|copy| (copy.server, copy.boot));
    let failed: Vec<(ServerId, BootId)> = failed.collect();
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed,
    };
    let told = cluster.ask(again);
    assert!(told.is_none(), "it waits first: {told:?}");
    for _ in 0..6 {
        cluster.bench.pass(Duration::from_millis(500));
        cluster.told = None;
        for (server, link) in cluster.servers.clone() {
            let disks = cluster.disks(server);
            let (load, sent) = (0, 1);
            cluster
                .bench
                .tell(link, ChunkToMaster::Alive { disks, load, sent });
        }
        if let Some(Err(errno)) = cluster.told {
            return Some(errno);
        }
    }
    None
}

#[test]
fn what_a_full_server_has_moves_to_an_emptier_one_of_its_datacentre() {
    let mut cluster = Cluster::new();
    let files: Vec<_> = (0..12).map(|n| cluster.write(&format!("f{n}"))).collect();
    let there = files.iter().filter(|(.., on)| on.contains(&1)).count();
    assert!(there > 0, "some of twelve files lie there");
    for server in 2..=4 {
        fill(&mut cluster, server, 10);
    }
    // It has more bytes free than the others all the same.
    fill_of(&mut cluster, 1, 80, 1000 << 30);
    cluster.pass(30);
    assert_eq!(cluster.made.len(), there, "one copy each");
    assert!(cluster.made.iter().all(|(server, _)| *server == 2));
    assert_eq!(cluster.gone.len(), there);
    assert!(cluster.gone.iter().all(|(server, _)| *server == 1));
    let status = cluster.status();
    assert_eq!((status.health.at_goal, status.balancing), (12, 0));
}

#[test]
fn nothing_moves_where_no_term_permits_it_or_the_difference_is_small() {
    let mut cluster = Cluster::new();
    cluster.class("both", "1 in dc=west, 1 in dc=east");
    cluster.set_class(InodeId::ROOT, "both");
    for n in 0..12 {
        cluster.write(&format!("f{n}"));
    }
    fill(&mut cluster, 1, 80);
    fill(&mut cluster, 2, 71);
    fill(&mut cluster, 3, 10);
    fill(&mut cluster, 4, 19);
    cluster.pass(20);
    assert_eq!(cluster.made, []);
    assert_eq!(cluster.status().balancing, 0);
}

#[test]
fn a_lease_does_not_wait_for_a_copy_that_moves() {
    let mut cluster = Cluster::new();
    let files: Vec<_> = (0..12).map(|n| cluster.write(&format!("f{n}"))).collect();
    for (server, percent) in [(1, 80), (2, 10), (3, 10), (4, 10)] {
        fill(&mut cluster, server, percent);
    }
    cluster.bench.pass(Duration::from_millis(1500));
    assert!(cluster.status().balancing > 0);
    for (inode, ..) in files {
        let lease = Mutation::Lease {
            inode,
            index: 0,
            failed: vec![],
        };
        assert!(matches!(cluster.change(lease), Answer::Lease(_)));
    }
}

#[test]
fn a_lease_that_every_copy_is_too_full_for_ends_where_others_have_room() {
    let mut cluster = Cluster::new();
    let (inode, lease) = cluster.create("f");
    for copy in &lease.copies {
        fill(&mut cluster, copy.server.0, 100);
    }
    assert_eq!(ask_again(&mut cluster, inode, &lease), None);
    let chunk = cluster.bench.master.state().chunk(lease.chunk);
    let lease = chunk.expect("it is there").lease;
    assert!(matches!(lease, LeaseState::Reconciling { .. }), "{lease:?}");
}

#[test]
fn a_lease_that_every_copy_failed_is_granted_again_where_they_are_not_full() {
    let mut cluster = Cluster::new();
    let (inode, lease) = cluster.create("f");
    let failed = lease.copies.iter().map(|copy| (copy.server, copy.boot));
    let again = Mutation::Lease {
        inode,
        index: 0,
        failed: failed.collect(),
    };
    assert!(matches!(cluster.change(again), Answer::Lease(_)));
}

#[test]
fn a_writer_is_told_when_nobody_has_room() {
    let mut cluster = Cluster::new();
    let (inode, lease) = cluster.create("f");
    for server in 1..=4 {
        fill(&mut cluster, server, 100);
    }
    assert_eq!(
        ask_again(&mut cluster, inode, &lease),
        Some(Errno::ENOSPC),
        "not before the others had time"
    );
}
