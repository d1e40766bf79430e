//! What nobody reads: it is read all the same, and what is bad of it is told.

use crate::cluster::*;
use antler_core::ids::DiskId;
use antler_core::limits::HEARTBEAT;
use antler_core::time::Duration;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult};
use antler_core::wire::client_master::ScrubStatus;

const RATE: u64 = 1 << 20;
const FILL: usize = 96 << 10;

/// A server that scrubs its disks, with parts from 1 on.
fn filled(disks: u64, parts: u64) -> Cluster {
    let mut cluster = Cluster::scrubbed(1, disks, RATE);
    for chunk in 1..=parts {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        cluster
            .write(&[copy], 0, &pattern(chunk, FILL), true)
            .unwrap();
    }
    // The first round of a life begins at once, somewhere among what is there.
    cluster.restart(0, 1);
    cluster
}

/// What the server last told of each disk.
fn told(cluster: &Cluster) -> Vec<ScrubStatus> {
    let mut said = cluster.from_servers.iter().rev();
    let disks = said.find_map(|(_, said)| match said {
        ChunkToMaster::Alive { disks, .. } => Some(disks.clone()),
        _ => None,
    });
    let disks = disks.unwrap().into_iter();
    disks.map(|disk| disk.scrub.expect("it scrubs")).collect()
}

#[test]
fn a_round_reads_everything_once_and_no_faster_than_told() {
    let mut cluster = filled(2, 40);
    let all = 40 * FILL as u64;
    let begun = told(&cluster);
    assert!(begun.iter().all(|scrub| scrub.ended.is_none()), "{begun:?}");
    // Of each part the map counts 64 KiB and the content 96 KiB: on two disks at once.
    let least = Duration::from_millis(40 * 160 * 1000 / 1024 / 2);
    cluster.pass(least / 2 - HEARTBEAT);
    let amid = told(&cluster);
    assert!(amid.iter().all(|scrub| scrub.ended.is_none()), "{amid:?}");
    let read: u64 = amid.iter().map(|scrub| scrub.bytes).sum();
    assert!((all / 4..all * 3 / 4).contains(&read), "{amid:?}");
    cluster.pass(Duration::from_secs(20));
    let after = told(&cluster);
    for scrub in &after {
        assert!(
            scrub.ended.is_some() && scrub.per_mille == 1000,
            "{after:?}"
        );
        assert_eq!((scrub.findings, scrub.rate), (0, RATE));
    }
    let read: u64 = after.iter().map(|scrub| scrub.bytes).sum();
    assert_eq!(read, all);
    assert!(cluster.bad(0).is_empty());
}

#[test]
fn what_rotted_and_nobody_reads_is_found_in_every_round() {
    let mut cluster = filled(1, 20);
    cluster.pass(Duration::from_secs(30));
    assert!(cluster.bad(0).is_empty());
    for chunk in [3, 17] {
        cluster.rot(0, 1, &pattern(chunk, FILL)[FILL - 5000..][..32]);
    }
    cluster.pass(Duration::from_secs(33));
    // After the first the disk is left alone for a while.
    assert_eq!(cluster.bad(0).len(), 1);
    cluster.pass(Duration::from_secs(27));
    let mut bad = cluster.bad(0);
    bad.sort_unstable();
    assert_eq!(bad, [part(3), part(17)]);
    assert_eq!(told(&cluster)[0].findings, 2);
    // It is told once, as long as it stays bad.
    cluster.pass(Duration::from_secs(180));
    assert_eq!(cluster.bad(0).len(), 2);
}

#[test]
fn a_line_of_the_slot_table_that_rotted_is_found() {
    let mut cluster = filled(1, 4);
    let mark = u64::from(crc32fast::hash(&pattern(2, FILL)[4096..8192]));
    let store = cluster.nodes[0].stores.values_mut().next().unwrap();
    let files = store.vfs_mut();
    let names: Vec<String> = files.lengths().into_iter().map(|(name, _)| name).collect();
    let lines = names.iter().filter(|name| name.starts_with("units-"));
    let line = (mark as u32).to_le_bytes();
    let found: Vec<(&String, usize)> = lines
        .filter_map(|name| files.find(name, &line).map(|at| (name, at)))
        .collect();
    let (name, at) = found[0];
    files.rot(name, at, 0x10);
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.bad(0), [part(2)]);
}

#[test]
fn parts_that_come_and_go_meanwhile_disturb_no_round() {
    let mut cluster = filled(1, 30);
    for chunk in 1..=30u64 {
        cluster.pass(Duration::from_millis(170));
        let new = cluster.copy(0, 100 + chunk, 1, Right::Write);
        cluster.write(&[new], 0, b"new", true).unwrap();
        let parts = vec![(part(chunk), antler_core::ids::ChunkVersion(1))];
        cluster.command(0, Command::Delete { parts });
    }
    cluster.pass(Duration::from_secs(120));
    let scrub = told(&cluster)[0];
    assert!(scrub.ended.is_some() && scrub.findings == 0, "{scrub:?}");
    assert!(cluster.bad(0).is_empty());
}

#[test]
fn a_failed_disk_is_left_alone() {
    let mut cluster = filled(1, 10);
    let store = cluster.nodes[0].stores.values_mut().next().unwrap();
    store.vfs_mut().fail_syncs();
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[copy], 0, b"x", true).unwrap_err();
    cluster.pass(HEARTBEAT * 2);
    let said = cluster.from_servers.iter().rev();
    let disks = said.filter_map(|(_, said)| match said {
        ChunkToMaster::Alive { disks, .. } => Some(disks),
        _ => None,
    });
    assert!(disks.take(1).flatten().all(|disk| disk.scrub.is_none()));
}

#[test]
fn a_round_that_is_ordered_begins_at_once_and_is_the_only_one() {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 1..=20 {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        cluster
            .write(&[copy], 0, &pattern(chunk, FILL), true)
            .unwrap();
    }
    let named = DiskId(2);
    let there = cluster.chunks_on(0, 2);
    assert!(there.len() > 2, "both disks have some");
    let order = |disk| Command::Scrub { disk, rate: RATE };
    let none = cluster.command(0, order(Some(DiskId(77))));
    assert!(matches!(none, CommandResult::Failed { .. }), "{none:?}");
    for chunk in &there[..2] {
        cluster.rot(0, 1, &pattern(*chunk, FILL)[FILL - 5000..][..32]);
    }
    // What is known to be bad is not read again.
    for left in [0, 2] {
        let done = cluster.command(0, order(Some(named)));
        assert_eq!(done, CommandResult::Parts(Vec::new()));
        cluster.pass(Duration::from_secs(60));
        let scrub = cluster.disk_status(0, 2).scrub.expect("it was scrubbed");
        assert!(scrub.ended.is_some(), "{scrub:?}");
        assert_eq!((scrub.findings, scrub.rate), (2, 0), "{scrub:?}");
        let read = (there.len() as u32 - left) * 1000 / there.len() as u32;
        assert_eq!(scrub.per_mille, read, "a round of its own");
        assert_eq!(cluster.disk_status(0, 1).scrub, None, "nobody ordered that");
        assert_eq!(cluster.bad(0).len(), 2);
    }
    let before = cluster.disk_status(0, 2).scrub;
    cluster.pass(Duration::from_secs(300));
    assert_eq!(cluster.disk_status(0, 2).scrub, before, "the order is over");
}

#[test]
fn an_order_amid_a_round_begins_it_anew_at_the_rate_ordered() {
    let mut cluster = filled(1, 60);
    cluster.pass(Duration::from_secs(3));
    assert!(told(&cluster)[0].ended.is_none(), "it takes nine seconds");
    let rate = 8 * RATE;
    cluster.command(0, Command::Scrub { disk: None, rate });
    cluster.pass(HEARTBEAT);
    let amid = told(&cluster)[0];
    assert_eq!((amid.rate, amid.ended), (rate, None));
    cluster.pass(Duration::from_millis(1500));
    let after = told(&cluster)[0];
    assert!(after.ended.is_some(), "{after:?}");
    assert_eq!(after.bytes, 60 * FILL as u64, "from its beginning");
    assert_eq!(after.rate, RATE, "as before");
}
