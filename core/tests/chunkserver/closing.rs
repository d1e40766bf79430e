//! Disks that come and go while the server runs.

use crate::cluster::*;
use crate::files::Files;
use antler_core::chunk::rules::DiskRules;
use antler_core::ids::{ChunkId, ChunkVersion, DiskId, Epoch};
use antler_core::limits::HEARTBEAT;
use antler_core::time::Duration;
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{Command, CommandResult};
use antler_core::wire::client_chunk::ChunkErrorKind;

/// A server of two disks, with so many parts that were synced.
fn filled(parts: u64) -> Cluster {
    let mut cluster = Cluster::new(1, 2);
    for chunk in 1..=parts {
        write(&mut cluster, chunk, 1, true).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    cluster
}

fn write(
    cluster: &mut Cluster,
    chunk: u64,
    version: u64,
    sync: bool,
) -> Result<(), ChunkErrorKind> {
    let copy = cluster.copy(0, chunk, version, Right::Write);
    let data = pattern(chunk * 100 + version, 9000);
    cluster.write(&[copy], 0, &data, sync)?;
    Ok(())
}

fn is_written(cluster: &mut Cluster, chunk: u64, version: u64) -> bool {
    let copy = cluster.copy(0, chunk, version, Right::Read);
    let data = pattern(chunk * 100 + version, 9000);
    let read = cluster.read(&copy, 0, 12288);
    read.is_ok_and(|read| read[..9000] == data)
}

#[test]
fn a_disk_that_comes_takes_what_is_new_and_one_that_was_away_is_back_with_its_parts() {
    let mut cluster = filled(0);
    cluster.add_disk(0, 3, Files::default(), DiskRules::default());
    let full = DiskRules {
        drain: true,
        ..DiskRules::default()
    };
    cluster.order(0, 1, full);
    cluster.order(0, 2, full);
    for chunk in 1..=5 {
        write(&mut cluster, chunk, 1, true).unwrap();
    }
    assert_eq!(cluster.chunks_on(0, 3), [1, 2, 3, 4, 5]);
    let files = cluster.remove_disk(0, 3);
    assert_eq!(cluster.lost(0).len(), 5);
    for chunk in 1..=5 {
        let copy = cluster.copy(0, chunk, 1, Right::Read);
        assert_eq!(cluster.read(&copy, 0, 4096), Err(ChunkErrorKind::Medium));
        let again = write(&mut cluster, chunk, 1, true);
        assert_eq!(again, Err(ChunkErrorKind::Medium), "nobody makes it anew");
    }
    let before = cluster.gained(0).len();
    cluster.add_disk(0, 3, files, DiskRules::default());
    assert_eq!(cluster.gained(0).len(), before + 5);
    for chunk in 1..=5 {
        assert!(is_written(&mut cluster, chunk, 1));
        // Whoever wrote at that epoch went on without it, for all that is known here.
        let missed = write(&mut cluster, chunk, 1, true);
        assert_eq!(missed, Err(ChunkErrorKind::Medium));
        write(&mut cluster, chunk, 2, true).unwrap();
        assert!(is_written(&mut cluster, chunk, 2));
    }
}

#[test]
fn what_was_acknowledged_is_durable_on_a_disk_that_was_let_go() {
    for seed in 0..8 {
        let mut cluster = filled(6);
        for chunk in 1..=6 {
            write(&mut cluster, chunk, 2, false).unwrap();
        }
        let files = cluster.remove_disk(0, 1);
        let files = files.after_power_cut(&mut antler_core::rng::Rng::new(seed));
        cluster.add_disk(0, 1, files, DiskRules::default());
        let back = cluster.chunks_on(0, 1);
        assert!(!back.is_empty());
        for chunk in back {
            assert!(
                is_written(&mut cluster, chunk, 2),
                "chunk {chunk}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_disk_is_let_go_when_what_was_admitted_is_over_and_a_hanging_one_is_given_up() {
    let mut cluster = filled(4);
    let chunk = cluster.chunks_on(0, 1)[0];
    cluster.hold = true;
    let copy = cluster.copy(0, chunk, 2, Right::Write);
    let asked = cluster.ask(&[copy], write_body(0, b"admitted", true), b"admitted");
    cluster.ask_to_remove(0, 1);
    assert!(cluster.is_there(0, 1));
    cluster.release();
    cluster.pass(HEARTBEAT * 2);
    cluster.reply(asked).unwrap().result.unwrap();
    assert!(!cluster.is_there(0, 1));
    // The other one does not answer.
    let chunk = cluster.chunks_on(0, 2)[0];
    cluster.hold = true;
    let copy = cluster.copy(0, chunk, 2, Right::Write);
    cluster.ask(&[copy], write_body(0, b"hangs", true), b"hangs");
    cluster.ask_to_remove(0, 2);
    cluster.pass(Duration::from_secs(40));
    assert!(cluster.is_there(0, 2));
    assert!(!cluster.disk_status(0, 2).failed.is_empty());
    cluster.release();
    cluster.pass(HEARTBEAT * 2);
    assert!(!cluster.is_there(0, 2), "it answered after all");
}

#[test]
fn a_disk_that_failed_is_taken_out_but_comes_back_with_the_next_life_only() {
    let mut cluster = filled(6);
    let there = cluster.chunks_on(0, 1);
    let store = cluster.nodes[0].stores.get_mut(&DiskId(1)).unwrap();
    store.vfs_mut().fail_syncs();
    write(&mut cluster, there[0], 2, true).unwrap_err();
    assert!(!cluster.disk_status(0, 1).failed.is_empty());
    let files = cluster.remove_disk(0, 1);
    let mut rng = antler_core::rng::Rng::new(1);
    let files = files.after_power_cut(&mut rng);
    cluster.add_disk(0, 1, files, DiskRules::default());
    cluster.pass(HEARTBEAT * 2);
    assert!(!cluster.is_there(0, 1));
    let copy = cluster.copy(0, there[0], 1, Right::Read);
    assert_eq!(cluster.read(&copy, 0, 4096), Err(ChunkErrorKind::Medium));
}

#[test]
fn a_part_that_was_fenced_while_its_disk_was_away_stays_fenced() {
    let mut cluster = filled(6);
    let chunk = cluster.chunks_on(0, 1)[0];
    let files = cluster.remove_disk(0, 1);
    cluster.command(
        0,
        antler_core::wire::chunk_master::Command::Fence {
            part: part(chunk),
            epoch: Epoch(5),
        },
    );
    cluster.add_disk(0, 1, files, DiskRules::default());
    let late = write(&mut cluster, chunk, 4, true);
    assert_eq!(late, Err(ChunkErrorKind::Fenced));
    let own = cluster.copy(0, chunk, 1, Right::Read);
    assert_eq!(own.capability.part.chunk, ChunkId(chunk));
    assert!(is_written(&mut cluster, chunk, 1));
}

/// Has the first server make its copy of a chunk anew from the second one's.
fn replicate(cluster: &mut Cluster, chunk: u64) {
    let source = cluster.copy(1, chunk, 1, Right::Read);
    let body = Command::Replicate {
        part: part(chunk),
        version: ChunkVersion(1),
        epoch: Epoch(1),
        sources: vec![source],
    };
    let made = cluster.command(0, body);
    assert!(
        matches!(&made, CommandResult::Parts(states) if states[0].is_some()),
        "{made:?}"
    );
}

#[test]
fn what_is_made_anew_does_not_go_with_an_old_copy_that_came_back() {
    let mut cluster = Cluster::new(2, 2);
    for chunk in 1..=4 {
        let chain = [0, 1].map(|at| cluster.copy(at, chunk, 1, Right::Write));
        let data = pattern(chunk * 100 + 1, 9000);
        cluster.write(&chain, 0, &data, true).unwrap();
    }
    cluster.pass(HEARTBEAT * 2);
    let out = cluster.chunks_on(0, 1);
    let files = cluster.remove_disk(0, 1);
    for chunk in &out {
        replicate(&mut cluster, *chunk);
    }
    cluster.add_disk(0, 1, files, DiskRules::default());
    // The leader finds too many, and then too few, before the old ones are deleted.
    for chunk in &out {
        let parts = vec![(part(*chunk), ChunkVersion(1))];
        cluster.command(0, Command::Delete { parts });
        replicate(&mut cluster, *chunk);
    }
    cluster.pass(HEARTBEAT * 4);
    for seed in [1, 2] {
        for chunk in 1..=4 {
            assert!(is_written(&mut cluster, chunk, 1), "chunk {chunk}");
        }
        cluster.restart(0, seed);
    }
}
