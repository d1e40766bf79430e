//! Writing along a chain, reading back, and what becomes of it when a server of
//! the chain fails, is fenced, or starts anew.

use crate::cluster::*;
use antler_core::ids::{BootId, ServerId};
use antler_core::limits::{CHAIN_TIMEOUT, HEARTBEAT};
use antler_core::wire::capability::Right;
use antler_core::wire::chunk_master::{Command, CommandResult};
use antler_core::wire::client_chunk::{
    ChunkError, ChunkErrorKind, ChunkReplyBody, ChunkRequestBody,
};
use antler_core::wire::client_master::LocatedCopy;

fn chain(cluster: &Cluster, chunk: u64, version: u64) -> Vec<LocatedCopy> {
    let servers = 0..cluster.nodes.len();
    servers
        .map(|at| cluster.copy(at, chunk, version, Right::Write))
        .collect()
}

#[test]
fn a_write_reaches_every_server_and_names_their_lives() {
    let mut cluster = Cluster::new(3, 1);
    let chain = chain(&cluster, 1, 1);
    let data = pattern(1, 100_000);
    let boots = cluster.write(&chain, 1000, &data, false).unwrap();
    let lives: Vec<BootId> = cluster.nodes.iter().map(|node| node.boot).collect();
    assert_eq!(boots, lives);
    assert_eq!(cluster.sync(&chain).unwrap(), lives);
    for at in 0..3 {
        let copy = cluster.copy(at, 1, 1, Right::Read);
        let got = cluster.read(&copy, 0, 128 << 10).unwrap();
        assert_eq!(got[1000..][..data.len()], data);
        cluster.restart(at, at as u64);
        let copy = cluster.copy(at, 1, 1, Right::Read);
        assert_eq!(cluster.read(&copy, 0, 128 << 10).unwrap(), got);
    }
}

#[test]
fn a_synced_write_survives_a_power_cut_at_every_server() {
    let mut cluster = Cluster::new(2, 2);
    let chain = chain(&cluster, 7, 3);
    cluster.write(&chain, 0, b"synced", true).unwrap();
    cluster.write(&chain, 0, b"forgot", false).unwrap();
    for at in 0..2 {
        cluster.restart(at, 9);
        let copy = cluster.copy(at, 7, 3, Right::Read);
        assert_eq!(cluster.read(&copy, 0, 4096).unwrap()[..6], *b"synced");
    }
}

#[test]
fn what_was_cut_from_the_file_does_not_come_back_with_a_power_cut() {
    let mut cluster = Cluster::new(2, 1);
    let before = chain(&cluster, 7, 1);
    cluster
        .write(&before, 0, &pattern(1, 200_000), true)
        .unwrap();
    let after = chain(&cluster, 7, 2);
    let mut body = write_body(150_000, b"grown", false);
    if let ChunkRequestBody::Write { drop_from, .. } = &mut body {
        *drop_from = Some(16_619);
    }
    cluster.request(&after, body, b"grown").unwrap();
    for at in 0..2 {
        cluster.restart(at, 5);
        let copy = cluster.copy(at, 7, 2, Right::Read);
        let found = cluster.read(&copy, 0, 256 << 10).unwrap();
        assert_eq!(found[..16_619], pattern(1, 200_000)[..16_619]);
        assert!(found[16_619..150_000].iter().all(|byte| *byte == 0));
        assert!(found[150_005..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn zeros_go_along_the_chain_and_the_map_tells_them() {
    let mut cluster = Cluster::new(2, 1);
    let chain = chain(&cluster, 1, 1);
    cluster
        .write(&chain, 0, &pattern(2, 64 << 10), false)
        .unwrap();
    let zero = ChunkRequestBody::Zero {
        offset: 4096,
        length: 8192,
    };
    cluster.request(&chain, zero, &[]).unwrap();
    for at in 0..2 {
        let copy = cluster.copy(at, 1, 1, Right::Read);
        let map = cluster
            .request(&[copy], ChunkRequestBody::Map, &[])
            .unwrap();
        let present = vec![0b1111_1001, 0xff];
        assert_eq!(map, ChunkReplyBody::Map { present });
    }
}

#[test]
fn an_unreachable_server_is_named() {
    let mut cluster = Cluster::new(3, 1);
    let chain = chain(&cluster, 1, 1);
    cluster.unreachable = Some(2);
    let body = write_body(0, b"x", false);
    let error = cluster.request(&chain, body, b"x").unwrap_err();
    let wanted = ChunkError {
        server: ServerId(3),
        kind: ChunkErrorKind::Unreachable,
    };
    assert_eq!(error, wanted);
    cluster.unreachable = None;
    cluster.write(&chain, 0, b"x", true).unwrap();
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let mut cluster = Cluster::new(2, 1);
    let chain = chain(&cluster, 1, 1);
    cluster.write(&chain, 0, b"x", false).unwrap();
    cluster.hold = true;
    let asked = cluster.ask(&chain, ChunkRequestBody::Sync, &[]);
    cluster.pass(CHAIN_TIMEOUT / 2);
    assert!(cluster.reply(asked).is_none());
    cluster.pass(CHAIN_TIMEOUT);
    cluster.release();
    let result = cluster.reply(asked).unwrap().result;
    assert_eq!(result.unwrap_err().kind, ChunkErrorKind::Unreachable);
}

#[test]
fn a_link_to_an_earlier_life_that_breaks_is_no_word_of_the_present_one() {
    let mut cluster = Cluster::new(2, 1);
    let before = chain(&cluster, 1, 1);
    cluster.write(&before, 0, b"before", true).unwrap();
    cluster.restart_unseen(1, 4);
    let chain = chain(&cluster, 1, 2);
    let asked = cluster.ask(&chain, write_body(0, b"behind", false), b"behind");
    cluster.pass(CHAIN_TIMEOUT * 2);
    let wanted = ChunkError {
        server: ServerId(2),
        kind: ChunkErrorKind::Busy,
    };
    assert_eq!(cluster.reply(asked).unwrap().result, Err(wanted));
    cluster.write(&chain, 0, b"behind", true).unwrap();
}

#[test]
fn a_fence_stops_older_writers_for_good() {
    let mut cluster = Cluster::new(2, 1);
    let old = chain(&cluster, 1, 1);
    cluster.write(&old, 0, b"before", false).unwrap();
    let fence = Command::Fence {
        part: part(1),
        epoch: antler_core::ids::Epoch(2),
    };
    let CommandResult::Parts(states) = cluster.command(1, fence) else {
        panic!("the fence failed")
    };
    let state = states[0].unwrap();
    assert_eq!((state.epoch.0, state.version.0), (2, 1));
    assert_ne!(state.digest, 0);
    let body = write_body(0, b"after", false);
    let error = cluster.request(&old, body, b"after").unwrap_err();
    let wanted = ChunkError {
        server: ServerId(2),
        kind: ChunkErrorKind::Fenced,
    };
    assert_eq!(error, wanted);
    cluster.restart(1, 3);
    let old = cluster.copy(1, 1, 1, Right::Write);
    assert_eq!(cluster.sync(&[old]), Err(ChunkErrorKind::Fenced));
    let new = cluster.copy(1, 1, 2, Right::Write);
    cluster.write(&[new], 0, b"newer", true).unwrap();
}

#[test]
fn a_fence_holds_against_writes_that_wait() {
    let mut cluster = Cluster::new(1, 1);
    let old = cluster.copy(0, 1, 1, Right::Write);
    cluster
        .write(std::slice::from_ref(&old), 0, b"first", false)
        .unwrap();
    cluster.hold = true;
    let running = cluster.ask(
        std::slice::from_ref(&old),
        write_body(0, b"second", false),
        b"second",
    );
    let waiting = cluster.ask(&[old], write_body(0, b"third!", false), b"third!");
    let fence = Command::Fence {
        part: part(1),
        epoch: antler_core::ids::Epoch(2),
    };
    let command = cluster.send_command(0, fence);
    cluster.release();
    assert!(cluster.reply(running).unwrap().result.is_ok());
    let refused = cluster.reply(waiting).unwrap().result.unwrap_err();
    assert_eq!(refused.kind, ChunkErrorKind::Fenced);
    assert!(cluster.command_result(0, command).is_some());
    let copy = cluster.copy(0, 1, 2, Right::Write);
    assert_eq!(cluster.read(&copy, 0, 4096).unwrap()[..6], *b"second");
}

#[test]
fn capabilities_of_an_earlier_life_are_refused() {
    let mut cluster = Cluster::new(1, 1);
    let write = cluster.copy(0, 1, 1, Right::Write);
    let read = cluster.copy(0, 1, 1, Right::Read);
    cluster
        .write(std::slice::from_ref(&write), 0, b"x", true)
        .unwrap();
    cluster.restart(0, 1);
    assert_eq!(cluster.read(&read, 0, 4096), Err(ChunkErrorKind::Refused));
    assert_eq!(cluster.sync(&[write]), Err(ChunkErrorKind::Refused));
    let read = cluster.copy(0, 1, 1, Right::Read);
    assert_eq!(cluster.read(&read, 0, 4096).unwrap()[..1], *b"x");
}

#[test]
fn a_reader_gets_its_version_or_a_newer_one() {
    let mut cluster = Cluster::new(1, 1);
    let first = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[first], 0, b"old", true).unwrap();
    let second = cluster.copy(0, 1, 2, Right::Write);
    cluster
        .write(std::slice::from_ref(&second), 0, b"new", false)
        .unwrap();
    let reader = cluster.copy(0, 1, 1, Right::Read);
    assert_eq!(cluster.read(&reader, 0, 4096).unwrap()[..3], *b"new");
    let reader = cluster.copy(0, 1, 3, Right::Read);
    assert_eq!(cluster.read(&reader, 0, 4096), Err(ChunkErrorKind::Version));
    assert_eq!(cluster.read(&second, 0, 4096).unwrap()[..3], *b"new");
    let reader = cluster.copy(0, 9, 1, Right::Read);
    assert_eq!(
        cluster.read(&reader, 0, 4096),
        Err(ChunkErrorKind::NotFound)
    );
}

#[test]
fn nonsense_is_refused() {
    let mut cluster = Cluster::new(1, 1);
    let reader = cluster.copy(0, 1, 1, Right::Read);
    assert_eq!(
        cluster.write(&[reader], 0, b"x", false),
        Err(ChunkErrorKind::Refused)
    );
    let writer = cluster.copy(0, 1, 1, Right::Write);
    let mut forged = writer.clone();
    forged.capability.epoch.0 += 1;
    assert_eq!(cluster.sync(&[forged]), Err(ChunkErrorKind::Refused));
    for (offset, length) in [(1, 4096), (0, 100), (0, 2 << 20), (64 << 20, 4096), (0, 0)] {
        let read = cluster.read(&writer, offset, length);
        assert_eq!(read, Err(ChunkErrorKind::Invalid), "{offset} {length}");
    }
    let chain = std::slice::from_ref(&writer);
    let beyond = cluster.write(chain, (64 << 20) - 1, b"xy", false);
    assert_eq!(beyond, Err(ChunkErrorKind::Invalid));
    let body = write_body(0, b"something else", false);
    let damaged = cluster.request(chain, body, b"something ELSE").unwrap_err();
    assert_eq!(damaged.kind, ChunkErrorKind::Invalid);
    assert_eq!(
        cluster.read(&writer, 0, 4096),
        Err(ChunkErrorKind::NotFound)
    );
}

#[test]
fn what_is_written_and_left_alone_is_committed() {
    let mut cluster = Cluster::new(1, 1);
    let writer = cluster.copy(0, 1, 1, Right::Write);
    cluster.write(&[writer], 0, b"left alone", false).unwrap();
    cluster.pass(antler_core::limits::COMMIT_INTERVAL + HEARTBEAT);
    cluster.restart(0, 5);
    let reader = cluster.copy(0, 1, 1, Right::Read);
    assert_eq!(
        cluster.read(&reader, 0, 4096).unwrap()[..10],
        *b"left alone"
    );
}

#[test]
fn syncs_of_many_parts_share_commits() {
    let mut cluster = Cluster::new(1, 1);
    let copies: Vec<_> = (0..300)
        .map(|chunk| cluster.copy(0, chunk, 1, Right::Write))
        .collect();
    let syncs = |cluster: &mut Cluster| {
        let stores = cluster.nodes[0].stores.values_mut();
        stores.map(|store| store.vfs_mut().syncs).sum::<u64>()
    };
    for copy in &copies {
        cluster
            .write(std::slice::from_ref(copy), 0, b"small", false)
            .unwrap();
    }
    let before = syncs(&mut cluster);
    cluster.hold = true;
    let asked: Vec<_> = copies
        .iter()
        .map(|copy| cluster.ask(std::slice::from_ref(copy), ChunkRequestBody::Sync, &[]))
        .collect();
    cluster.release();
    for asked in asked {
        assert!(cluster.reply(asked).unwrap().result.is_ok());
    }
    let used = syncs(&mut cluster) - before;
    assert!(used <= 12, "{used} syncs for 300 parts");
}

/// The version that each server tells of a chunk when it starts anew with what is durable.
fn durable_versions(cluster: &mut Cluster, chunk: u64) -> Vec<u64> {
    let mut found = Vec::new();
    for at in 0..cluster.nodes.len() {
        cluster.restart(at, 3);
        let reports = cluster.reported(at).into_iter();
        let own = reports.filter(|report| report.part == part(chunk));
        found.extend(own.map(|report| report.version.0));
    }
    found
}

#[test]
fn each_counted_sync_of_a_lease_makes_the_copies_newer() {
    let lease = 3 << 20;
    let mut cluster = Cluster::new(2, 1);
    for (syncs, newest) in [(1, 1), (2, 2), (1, 2), (7, 7)] {
        let chain = chain(&cluster, 7, lease);
        cluster.syncs = 0;
        cluster.write(&chain, 0, b"written", false).unwrap();
        cluster.syncs = syncs;
        match syncs % 2 {
            0 => cluster.write(&chain, 4096, b"synced", true).unwrap(),
            _ => cluster.sync(&chain).unwrap(),
        };
        // What comes after a sync is not less for it, though nothing counts it.
        cluster.syncs = 0;
        cluster.write(&chain, 8192, b"more", false).unwrap();
        let wanted = vec![lease + newest; 2];
        assert_eq!(durable_versions(&mut cluster, 7), wanted, "sync {syncs}");
    }
    let before = chain(&cluster, 7, 2 << 20);
    let late = cluster.write(&before, 0, b"late", false);
    assert_eq!(late, Err(ChunkErrorKind::Fenced));
}

#[test]
fn syncs_of_leases_that_have_no_room_for_them_are_not_counted() {
    let mut cluster = Cluster::new(2, 1);
    let chain = chain(&cluster, 7, 5);
    cluster.syncs = 9;
    cluster.write(&chain, 0, b"written", true).unwrap();
    assert_eq!(durable_versions(&mut cluster, 7), [5, 5]);
}
