//! The leader's commands.

use crate::cluster::*;
use antler_core::chunk::geometry::StripeShape;
use antler_core::chunk::stripe::Stripe;
use antler_core::ids::{ChunkVersion, DiskId, Epoch, ServerId, Term};
use antler_core::limits::{BLOCK_SIZE, UNIT_SIZE};
use antler_core::machine::{Input, ServerRequest};
use antler_core::time::Duration;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{ChunkToMaster, Command, CommandResult, PartState};
use antler_core::wire::client_chunk::ChunkErrorKind;

fn states(result: CommandResult) -> Vec<Option<PartState>> {
    match result {
        CommandResult::Parts(states) => states,
        CommandResult::Failed { reason, .. } => panic!("it failed: {reason}"),
    }
}

fn replicate(cluster: &Cluster, chunk: u64, version: u64, sources: &[usize]) -> Command {
    let sources = sources
        .iter()
        .map(|&at| cluster.copy(at, chunk, version, Right::Read));
    Command::Replicate {
        part: part(chunk),
        version: ChunkVersion(version),
        epoch: Epoch(version + 1),
        sources: sources.collect(),
    }
}

#[test]
fn parts_of_a_lease_that_ended_are_made_durable() {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 0..20 {
        let copy = cluster.copy(0, chunk, 4, Right::Write);
        cluster
            .write(&[copy], 0, &pattern(chunk, 5000), false)
            .unwrap();
    }
    let newer = cluster.copy(0, 3, 9, Right::Write);
    cluster.write(&[newer], 0, b"newer", false).unwrap();
    let parts = (0..21).map(|chunk| (part(chunk), ChunkVersion(4), Epoch(4)));
    let command = Command::SyncParts {
        parts: parts.collect(),
    };
    let states = states(cluster.command(0, command));
    cluster.restart(0, 2);
    for (chunk, state) in states.into_iter().enumerate() {
        let chunk = chunk as u64;
        match chunk {
            20 => assert_eq!(state, None),
            // Its epoch is newer: the command is of the past.
            3 => assert_eq!(state.unwrap().version, ChunkVersion(9)),
            _ => {
                assert_eq!(state.unwrap().version, ChunkVersion(4));
                let copy = cluster.copy(0, chunk, 4, Right::Read);
                assert_eq!(
                    cluster.read(&copy, 0, 8192).unwrap()[..5000],
                    pattern(chunk, 5000)
                );
            }
        }
    }
}

#[test]
fn a_version_is_raised_durably() {
    let mut cluster = Cluster::new(1, 1);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[copy], 0, b"x", false).unwrap();
    let command = Command::SetVersion {
        part: part(1),
        epoch: Epoch(5),
        version: ChunkVersion(6),
    };
    let state = states(cluster.command(0, command))[0].unwrap();
    assert_eq!((state.version.0, state.epoch.0), (6, 5));
    cluster.restart(0, 1);
    let reports = cluster.reported(0);
    assert_eq!((reports[0].version.0, reports[0].epoch.0), (6, 5));
}

#[test]
fn parts_are_deleted_up_to_a_version() {
    let mut cluster = Cluster::new(1, 1);
    for chunk in [1, 2] {
        let copy = cluster.copy(0, chunk, chunk * 10, Right::Write);
        cluster.write(&[copy], 0, b"x", true).unwrap();
    }
    let command = Command::Delete {
        parts: vec![(part(1), ChunkVersion(15)), (part(2), ChunkVersion(15))],
    };
    assert_eq!(states(cluster.command(0, command)), []);
    assert_eq!(cluster.lost(0), [part(1)], "every member hears what went");
    assert!(
        cluster.gained(0).contains(&(part(2), ChunkVersion(20))),
        "and what is still there"
    );
    cluster.restart(0, 1);
    let reports = cluster.reported(0);
    assert_eq!(
        reports.iter().map(|report| report.part).collect::<Vec<_>>(),
        [part(2)]
    );
}

#[test]
fn a_deleted_part_is_not_made_anew_by_a_writer_of_an_older_epoch() {
    let mut cluster = Cluster::new(1, 1);
    let old = [cluster.copy(0, 1, 3, Right::Write)];
    let new = [cluster.copy(0, 1, 7, Right::Write)];
    cluster.write(&old, 0, b"x", false).unwrap();
    cluster.write(&new, 0, b"x", false).unwrap();
    let command = Command::Delete {
        parts: vec![(part(1), ChunkVersion(9))],
    };
    assert_eq!(states(cluster.command(0, command)), []);
    let refused = cluster.write(&old, 0, b"y", false).unwrap_err();
    assert_eq!(refused, ChunkErrorKind::Fenced);
    cluster.write(&new, 0, b"z", false).unwrap();
}

#[test]
fn an_older_terms_commands_are_ignored() {
    let mut cluster = Cluster::new(1, 1);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[copy], 0, b"x", true).unwrap();
    cluster.term = Term(3);
    let command = Command::Delete {
        parts: vec![(part(1), ChunkVersion(9))],
    };
    let command = cluster.send_command(0, command);
    assert_eq!(cluster.command_result(0, command), None);
    let copy = cluster.copy(0, 1, 1, Right::Read);
    assert_eq!(cluster.read(&copy, 0, 4096).unwrap()[..1], *b"x");
}

#[test]
fn a_part_is_replicated_sparse_and_large() {
    let mut cluster = Cluster::new(2, 2);
    let writer = cluster.copy(0, 1, 1, Right::Write);
    let chain = std::slice::from_ref(&writer);
    for (offset, length) in [
        (0, 5),
        (300_000, 1 << 20),
        (9 << 20, 100_000),
        (63 << 20, 1 << 20),
    ] {
        cluster
            .write(chain, offset, &pattern(u64::from(offset), length), false)
            .unwrap();
    }
    cluster.sync(chain).unwrap();
    let command = replicate(&cluster, 1, 1, &[0]);
    let state = states(cluster.command(1, command))[0].unwrap();
    assert_eq!((state.version.0, state.epoch.0), (1, 2));
    let gained = cluster.from_servers.iter().any(|(at, message)| {
        matches!(message, ChunkToMaster::Gained { parts } if *at == 1 && parts[0].part == part(1))
    });
    assert!(gained, "the other members learn of it");
    let digest = |cluster: &mut Cluster, at| {
        let fence = Command::Fence {
            part: part(1),
            epoch: Epoch(3),
        };
        states(cluster.command(at, fence))[0].unwrap().digest
    };
    assert_eq!(digest(&mut cluster, 0), digest(&mut cluster, 1));
    cluster.restart(1, 4);
    let copy = cluster.copy(1, 1, 1, Right::Read);
    let got = cluster.read(&copy, 63 << 20, 1 << 20).unwrap();
    assert_eq!(got, pattern(63 << 20, 1 << 20));
    assert_eq!(
        cluster.read(&copy, 4 << 20, 1 << 20).unwrap(),
        vec![0; 1 << 20]
    );
}

#[test]
fn a_replication_replaces_what_was_there() {
    let mut cluster = Cluster::new(2, 1);
    let right = cluster.copy(0, 1, 5, Right::Write);
    cluster.write(&[right], 0, b"right", true).unwrap();
    let wrong = cluster.copy(1, 1, 2, Right::Write);
    cluster.write(&[wrong], 100_000, b"wrong", true).unwrap();
    let command = replicate(&cluster, 1, 5, &[0]);
    states(cluster.command(1, command));
    let copy = cluster.copy(1, 1, 5, Right::Read);
    let mut wanted = vec![0; 128 << 10];
    wanted[..5].copy_from_slice(b"right");
    assert_eq!(cluster.read(&copy, 0, 128 << 10).unwrap(), wanted);
}

#[test]
fn a_bad_source_is_named_and_the_next_one_used() {
    let mut cluster = Cluster::new(3, 1);
    let data = pattern(8, 2 << 20);
    for at in [0, 1] {
        let copy = cluster.copy(at, 1, 1, Right::Write);
        let (first, second) = data.split_at(1 << 20);
        cluster
            .write(std::slice::from_ref(&copy), 0, first, false)
            .unwrap();
        cluster.write(&[copy], 1 << 20, second, true).unwrap();
    }
    cluster.rot(0, 1, &data[(1 << 20) + 5000..][..32]);
    let command = replicate(&cluster, 1, 1, &[0]);
    let CommandResult::Failed { bad_source, .. } = cluster.command(2, command) else {
        panic!("a copy was made from rot")
    };
    assert_eq!(bad_source, Some(ServerId(1)));
    assert_eq!(cluster.bad(0), [part(1)], "the source says so too");
    let command = replicate(&cluster, 1, 1, &[0, 1]);
    states(cluster.command(2, command));
    let copy = cluster.copy(2, 1, 1, Right::Read);
    assert_eq!(
        cluster.read(&copy, 1 << 20, 1 << 20).unwrap(),
        data[1 << 20..]
    );
}

#[test]
fn a_replication_without_a_source_fails_and_leaves_all_as_it_was() {
    let mut cluster = Cluster::new(2, 1);
    let copy = cluster.copy(1, 1, 1, Right::Write);
    cluster.write(&[copy], 0, b"old", true).unwrap();
    for version in [1, 2] {
        let command = replicate(&cluster, 1, version, &[0]);
        let CommandResult::Failed { bad_source, .. } = cluster.command(1, command) else {
            panic!("a copy was made from nothing")
        };
        assert_eq!(bad_source, None);
    }
    let copy = cluster.copy(1, 1, 1, Right::Read);
    assert_eq!(cluster.read(&copy, 0, 4096).unwrap()[..3], *b"old");
}

#[test]
fn a_newer_part_is_not_replaced() {
    let mut cluster = Cluster::new(2, 1);
    let source = cluster.copy(0, 1, 3, Right::Write);
    cluster.write(&[source], 0, b"old", true).unwrap();
    let newer = cluster.copy(1, 1, 9, Right::Write);
    cluster.write(&[newer], 0, b"new", true).unwrap();
    let command = replicate(&cluster, 1, 3, &[0]);
    assert!(matches!(
        cluster.command(1, command),
        CommandResult::Failed { .. }
    ));
    let copy = cluster.copy(1, 1, 9, Right::Read);
    assert_eq!(cluster.read(&copy, 0, 4096).unwrap()[..3], *b"new");
}

#[test]
fn many_replications_wait_for_their_turn() {
    let mut cluster = Cluster::new(2, 1);
    for chunk in 0..40 {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        cluster
            .write(&[copy], 0, &pattern(chunk, 3000), true)
            .unwrap();
    }
    cluster.hold = true;
    let commands: Vec<u64> = (0..40)
        .map(|chunk| {
            let command = replicate(&cluster, chunk, 1, &[0]);
            cluster.send_command(1, command)
        })
        .collect();
    cluster.release();
    for command in commands {
        states(cluster.command_result(1, command).unwrap());
    }
    for chunk in 0..40 {
        let copy = cluster.copy(1, chunk, 1, Right::Read);
        assert_eq!(
            cluster.read(&copy, 0, 4096).unwrap()[..3000],
            pattern(chunk, 3000)
        );
    }
}

#[test]
fn copies_are_read_off_a_server_that_clients_use_a_few_at_once_but_wait_for_no_longer_than_that() {
    let mut cluster = Cluster::new(2, 1);
    let chunks = 0..24;
    for chunk in chunks.clone() {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        let data = pattern(chunk, 3000);
        cluster.write(&[copy], 0, &data, true).unwrap();
    }
    let order_all = |cluster: &mut Cluster| -> Vec<u64> {
        let all = chunks.clone().map(|chunk| {
            let command = replicate(cluster, chunk, 1, &[0]);
            cluster.send_command(1, command)
        });
        all.collect()
    };
    // The writes were a moment ago.
    (cluster.hold, cluster.hold_only) = (true, Some(0));
    let commands = order_all(&mut cluster);
    let at_once = cluster.held_reads();
    assert!((1..=4).contains(&at_once), "{at_once} of 48");
    cluster.pass(Duration::from_millis(700));
    assert!(cluster.held_reads() >= 40, "nobody waits for long");
    cluster.release();
    cluster.pass(Duration::from_secs(2));
    for (chunk, command) in chunks.clone().zip(commands) {
        states(cluster.command_result(1, command).unwrap());
        let copy = cluster.copy(1, chunk, 1, Right::Read);
        let got = cluster.read(&copy, 0, 4096).unwrap();
        assert_eq!(got[..3000], pattern(chunk, 3000));
    }
    // Where nobody else waits for the server it reads as much as it is asked to.
    let mut cluster = Cluster::new(2, 1);
    for chunk in chunks.clone() {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        let data = pattern(chunk, 3000);
        cluster.write(&[copy], 0, &data, true).unwrap();
    }
    cluster.pass(Duration::from_secs(2));
    (cluster.hold, cluster.hold_only) = (true, Some(0));
    order_all(&mut cluster);
    assert!(cluster.held_reads() >= 40, "{}", cluster.held_reads());
    cluster.release();
}

#[test]
fn a_graceful_stop_leaves_everything_durable() {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 0..30 {
        let copy = cluster.copy(0, chunk, 1, Right::Write);
        cluster.write(&[copy], 0, b"not synced", false).unwrap();
    }
    cluster.hold = true;
    cluster.input(0, Input::Request(ServerRequest::Shutdown));
    assert_eq!(cluster.nodes[0].stopped, None);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    let refused = cluster.write(&[copy], 0, b"late", false);
    assert_eq!(refused, Err(ChunkErrorKind::Busy));
    cluster.release();
    assert_eq!(cluster.nodes[0].stopped, Some(true));
    let left = cluster
        .from_servers
        .iter()
        .any(|(_, said)| *said == ChunkToMaster::Leaving);
    assert!(left, "the masters know that it means to be back");
    cluster.restart(0, 6);
    assert_eq!(cluster.reported(0).len(), 30);
    let disks: std::collections::BTreeSet<DiskId> = cluster
        .reported(0)
        .iter()
        .map(|report| report.disk)
        .collect();
    assert_eq!(disks.len(), 2, "parts are spread over the disks");
}

#[test]
fn a_part_that_is_not_there_is_fenced_too() {
    let mut cluster = Cluster::new(1, 1);
    let fence = Command::Fence {
        part: part(1),
        epoch: Epoch(5),
    };
    assert_eq!(states(cluster.command(0, fence)), [None]);
    let late = cluster.copy(0, 1, 4, Right::Write);
    let refused = cluster.write(&[late], 0, b"late", false);
    assert_eq!(refused, Err(ChunkErrorKind::Fenced));
    let copy = cluster.copy(0, 1, 5, Right::Write);
    cluster.write(&[copy], 0, b"new", true).unwrap();
}

#[test]
fn a_part_that_was_lost_or_is_bad_is_not_said_to_be_absent() {
    let mut cluster = Cluster::new(1, 1);
    let data = pattern(3, 8192);
    let copy = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[copy], 0, &data, true).unwrap();
    cluster.rot(0, 1, &data[100..][..32]);
    let fence = Command::Fence {
        part: part(1),
        epoch: Epoch(5),
    };
    let store = cluster.nodes[0].stores.values_mut().next().unwrap();
    store.vfs_mut().fail_syncs();
    let failed = cluster.command(0, fence.clone());
    assert!(matches!(failed, CommandResult::Failed { .. }), "{failed:?}");
    let lost = cluster.command(0, fence);
    assert!(matches!(lost, CommandResult::Failed { .. }), "{lost:?}");
}

/// A copy is built of a copy, its gaps left out.
fn build(cluster: &Cluster, version: u64, units: u32) -> Command {
    let shape = StripeShape::new(2, 1).unwrap();
    Command::Build {
        part: part(1),
        version: ChunkVersion(version),
        epoch: Epoch(version),
        stripe: Stripe::new(shape, units * UNIT_SIZE as u32, Epoch(9)),
        from: ChunkVersion(1),
        sources: vec![cluster.copy(0, 1, 1, Right::Read)],
    }
}

/// The copy that is built has more blocks than are kept in memory, and gaps between, so
/// that several steps of the disk are under way when one fails.
#[test]
fn a_build_whose_disk_fails_amid_it_leaves_nothing_that_looks_whole() {
    let mut cluster = Cluster::new(2, 2);
    let source = cluster.copy(0, 1, 1, Right::Write);
    let data = pattern(1, BLOCK_SIZE);
    for run in 0..16 {
        let chain = std::slice::from_ref(&source);
        cluster.write(chain, run << 17, &data, false).unwrap();
    }
    let command = build(&cluster, 2, 496);
    let made = states(cluster.command(1, command));
    assert_eq!(made[0].unwrap().version, ChunkVersion(2));
    let copy = cluster.copy(1, 1, 2, Right::Read);
    assert_eq!(
        cluster.read(&copy, 3 << 17, data.len() as u32).unwrap(),
        data
    );

    let stores = &mut cluster.nodes[1].stores;
    let mut holders = stores.values_mut();
    let holder = holders.find(|store| store.parts().next().is_some());
    holder.unwrap().vfs_mut().crash_after(1);
    let command = build(&cluster, 3, 496);
    let result = cluster.command(1, command);
    assert!(matches!(result, CommandResult::Failed { .. }), "{result:?}");
    let newest = cluster.copy(1, 1, 3, Right::Read);
    cluster.read(&newest, 0, 4096).expect_err("it was not made");
}
