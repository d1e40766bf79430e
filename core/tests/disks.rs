//! Single disks that their servers can't empty themselves, as a leader sees to them; the
//! chunkservers are played by the test.

mod bench;

use antler_core::ids::{DiskId, InodeId};
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::vfs::Space;
use antler_core::wire::chunk_master::ChunkToMaster;
use antler_core::wire::client_master::DiskStatus;
use bench::cluster::{Cluster, servers_of};

/// A disk with much room.
fn disk(number: u64) -> DiskStatus {
    let space = Space {
        total: 1 << 40,
        free: 1 << 40,
    };
    DiskStatus {
        disk: DiskId(number),
        space,
        ..DiskStatus::default()
    }
}

/// One that is to be emptied and has so many copies.
fn drained(number: u64, left: u64) -> DiskStatus {
    let mut disk = disk(number);
    (disk.draining, disk.space.free) = (Some(left), 0);
    disk
}

fn suspected(number: u64, left: u64) -> DiskStatus {
    let mut disk = disk(number);
    (disk.draining, disk.suspected) = (Some(left), "it is slow".to_owned());
    disk
}

fn tell(cluster: &mut Cluster, server: u64, disks: Vec<DiskStatus>) {
    let (load, sent) = (0, 1);
    let alive = ChunkToMaster::Alive { disks, load, sent };
    cluster.bench.tell(cluster.servers[&server], alive);
}

/// A cluster with some files, and how many of them lie on each server.
fn filled() -> (Cluster, Vec<u64>) {
    let mut cluster = Cluster::new();
    let files: Vec<_> = (0..12).map(|n| cluster.write(&format!("f{n}"))).collect();
    let on = |server| files.iter().filter(|(.., on)| on.contains(&server)).count() as u64;
    let counts: Vec<u64> = (0..=4).map(on).collect();
    assert!(counts[1] > 0 && counts[3] > 0, "{counts:?}");
    (cluster, counts)
}

#[test]
fn an_only_disk_that_is_drained_is_emptied_onto_other_servers() {
    let (mut cluster, on) = filled();
    tell(&mut cluster, 1, vec![drained(0, on[1])]);
    assert_eq!(cluster.status().health.draining, on[1]);
    assert_eq!(cluster.status().health.endangered, 0);
    cluster.pass(30);
    assert_eq!(cluster.made.len() as u64, on[1], "one copy each, elsewhere");
    assert!(cluster.made.iter().all(|(server, _)| *server != 1));
    assert_eq!(cluster.gone.len() as u64, on[1]);
    assert!(cluster.gone.iter().all(|(server, _)| *server == 1));
    assert_eq!(cluster.status().health.at_goal, 12);
    assert!(cluster.bench.master.marks().has(Mark::DiskEvacuated));
    // The order ends: it takes what is new again.
    tell(&mut cluster, 1, vec![disk(0)]);
    let late = (0..12).map(|n| cluster.create(&format!("late{n}")).1);
    let late: Vec<_> = late.collect();
    assert!(late.iter().any(|lease| servers_of(lease).contains(&1)));
}

#[test]
fn what_a_server_can_move_to_its_other_disk_is_left_to_it() {
    let (mut cluster, on) = filled();
    tell(&mut cluster, 1, vec![drained(0, on[1]), disk(5)]);
    cluster.pass(20);
    assert_eq!((cluster.made.len(), cluster.gone.len()), (0, 0));
    assert_eq!(cluster.status().health.at_goal, 12);
    // Until there is no room, and then to the end, though some comes.
    let mut full = disk(5);
    full.space.free = 0;
    tell(&mut cluster, 1, vec![drained(0, on[1]), full]);
    tell(&mut cluster, 1, vec![drained(0, on[1]), disk(5)]);
    cluster.pass(30);
    assert_eq!(cluster.gone.len() as u64, on[1]);
}

#[test]
fn of_disks_that_are_only_suspected_one_is_emptied_and_the_others_take_what_is_new() {
    let (mut cluster, on) = filled();
    for server in [1, 3, 2, 4] {
        tell(
            &mut cluster,
            server,
            vec![suspected(0, on[server as usize])],
        );
    }
    cluster.pass(30);
    assert!(cluster.gone.iter().all(|(server, _)| *server == 1));
    assert_eq!(cluster.gone.len() as u64, on[1]);
    tell(&mut cluster, 1, vec![suspected(0, 0)]);
    cluster.pass(30);
    assert_eq!(cluster.gone.len() as u64, on[1], "nor any later");
    assert_eq!(cluster.status().health.at_goal, 12);
    // What is new goes there only where nothing else is left for it.
    let late = (0..12).map(|n| cluster.create(&format!("late{n}")).1);
    assert!(
        !late
            .collect::<Vec<_>>()
            .iter()
            .any(|lease| servers_of(lease).contains(&1))
    );
    cluster.class("west", "2 in dc=west");
    cluster.set_class(InodeId::ROOT, "west");
    let (_, lease) = cluster.create("here");
    assert_eq!(servers_of(&lease), [1, 2]);
}

#[test]
fn a_disk_that_fails_while_it_is_emptied_is_a_failed_one() {
    let (mut cluster, on) = filled();
    tell(&mut cluster, 1, vec![drained(0, on[1])]);
    assert_eq!(cluster.status().health.draining, on[1]);
    let mut failed = drained(0, 0);
    failed.failed = "it answers nothing".to_owned();
    tell(&mut cluster, 1, vec![failed]);
    assert_eq!(cluster.status().health.draining, 0);
}
