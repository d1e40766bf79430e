//! Single operations and their results.

use crate::bench::*;
use crate::files::Files;
use antler_core::chunk::StoreError;
use antler_core::chunk::operation::{
    CommitAction, DiskError, DiskReply, DiskRequest, PartCommit, ReceiveStep, StoredPart,
};
use antler_core::ids::{ChunkVersion, Epoch, ServerId};
use antler_core::limits::{BLOCK_SIZE, UNIT_SIZE};
use antler_core::rng::Rng;
use bytes::Bytes;

const UNIT: u32 = UNIT_SIZE as u32;
const BLOCK: u32 = BLOCK_SIZE as u32;

fn fresh() -> Store {
    open(Files::default()).unwrap()
}

fn reopen(store: Store) -> Store {
    let mut rng = Rng::new(7);
    open(store.into_vfs().after_power_cut(&mut rng)).unwrap()
}

#[test]
fn what_was_written_is_read_synced_or_not() {
    let mut store = fresh();
    for (offset, length) in [(0, 100), (5000, 9000), (BLOCK - 3, 7), (200_000, 300_000)] {
        let data = pattern(u64::from(offset), length);
        write(&mut store, part(1), offset, &data).unwrap();
        let start = offset / UNIT * UNIT;
        let end = (offset + length as u32).next_multiple_of(UNIT);
        let got = read(&mut store, part(1), start, end - start).unwrap();
        assert_eq!(got[(offset - start) as usize..][..length], data);
    }
    store.check_invariants(true);
}

#[test]
fn a_commit_survives_and_what_came_after_it_does_not() {
    let mut store = fresh();
    let (old, new) = (pattern(1, 70_000), pattern(2, 70_000));
    write(&mut store, part(1), 10, &old).unwrap();
    keep(&mut store, part(1)).unwrap();
    write(&mut store, part(1), 10, &new).unwrap();
    write(&mut store, part(2), 0, &new).unwrap();
    let mut store = reopen(store);
    let got = read(&mut store, part(1), 0, 2 * BLOCK).unwrap();
    assert_eq!(got[10..][..70_000], old);
    assert_eq!(got[..10], [0; 10]);
    assert_eq!(read(&mut store, part(2), 0, UNIT), Err(DiskError::NotFound));
    store.check_invariants(true);
}

#[test]
fn a_batch_of_small_parts_takes_few_syncs() {
    let mut store = fresh();
    let data = pattern(3, 4096);
    let mut changes = Vec::new();
    for chunk in 0..200 {
        write(&mut store, part(chunk), 0, &data).unwrap();
        changes.push((part(chunk), CommitAction::Keep));
    }
    let before = store.vfs_mut().syncs;
    commit(&mut store, &changes).unwrap();
    let syncs = store.vfs_mut().syncs - before;
    assert!(syncs <= 200 / 24 + 4, "{syncs} syncs for 200 parts");
    let mut store = reopen(store);
    for chunk in 0..200 {
        assert_eq!(read(&mut store, part(chunk), 0, UNIT).unwrap(), data);
    }
}

/// Writes a byte behind what is dropped, and tells what the store says of it.
fn drop_behind(store: &mut Store, from: u32) -> DiskReply {
    let offset = from + BLOCK;
    let write = DiskRequest::Write {
        part: part(1),
        version: ChunkVersion(2),
        epoch: Epoch(2),
        drop_from: Some(from),
        offset,
        data: Bytes::from_static(b"x"),
        checksums: checksums(offset, b"x"),
    };
    run(store, write).unwrap()
}

#[test]
fn a_write_tells_when_it_drops_what_a_crash_would_bring_back() {
    let written = |length: usize| {
        let mut store = fresh();
        write(&mut store, part(1), 0, &pattern(4, length)).unwrap();
        keep(&mut store, part(1)).unwrap();
        store
    };
    let length = 2 * BLOCK + 5000;
    for from in [0, 100, UNIT, BLOCK, 2 * BLOCK, 2 * BLOCK + UNIT, length - 1] {
        let mut store = written(length as usize);
        let told = drop_behind(&mut store, from);
        assert!(matches!(told, DiskReply::Dropped), "{from}: {told:?}");
        keep(&mut store, part(1)).unwrap();
        let told = drop_behind(&mut store, from + BLOCK + 1);
        assert!(matches!(told, DiskReply::Done), "{from}: {told:?}");
    }
    for from in [length, length + 1, 2 * BLOCK + 2 * UNIT, 3 * BLOCK] {
        let told = drop_behind(&mut written(length as usize), from);
        assert!(matches!(told, DiskReply::Done), "{from}: {told:?}");
    }
}

#[test]
fn a_write_tells_when_what_it_drops_was_zeroed_and_a_crash_would_bring_it_back() {
    for from in [0, 100, BLOCK, BLOCK + 5000, 2 * BLOCK + UNIT] {
        let mut store = fresh();
        write(&mut store, part(1), 0, &pattern(4, 3 * BLOCK_SIZE)).unwrap();
        keep(&mut store, part(1)).unwrap();
        let zero = DiskRequest::Zero {
            part: part(1),
            version: ChunkVersion(2),
            epoch: Epoch(2),
            offset: from,
            length: 3 * BLOCK - from,
        };
        run(&mut store, zero).unwrap();
        let told = drop_behind(&mut store, from);
        assert!(matches!(told, DiskReply::Dropped), "{from}: {told:?}");
    }
}

#[test]
fn drop_from_and_zero_leave_zeros() {
    let mut store = fresh();
    let data = pattern(4, 3 * BLOCK_SIZE);
    write(&mut store, part(1), 0, &data).unwrap();
    keep(&mut store, part(1)).unwrap();
    let zero = DiskRequest::Zero {
        part: part(1),
        version: ChunkVersion(2),
        epoch: Epoch(2),
        offset: 100,
        length: BLOCK + 9000,
    };
    run(&mut store, zero).unwrap();
    let drop = DiskRequest::Write {
        part: part(1),
        version: ChunkVersion(2),
        epoch: Epoch(2),
        drop_from: Some(2 * BLOCK + 5000),
        offset: 3 * BLOCK - 1,
        data: Bytes::from_static(b"x"),
        checksums: checksums(3 * BLOCK - 1, b"x"),
    };
    run(&mut store, drop).unwrap();
    let mut wanted = data.clone();
    wanted[100..][..BLOCK_SIZE + 9000].fill(0);
    wanted[2 * BLOCK_SIZE + 5000..].fill(0);
    *wanted.last_mut().unwrap() = b'x';
    for _ in 0..2 {
        assert_eq!(read(&mut store, part(1), 0, 3 * BLOCK).unwrap(), wanted);
        keep(&mut store, part(1)).unwrap();
        store.check_invariants(true);
        store = reopen(store);
    }
    let map = run(&mut store, DiskRequest::Map { part: part(1) }).unwrap();
    let DiskReply::Map {
        present, version, ..
    } = map
    else {
        panic!("not a map")
    };
    assert_eq!(version, ChunkVersion(2));
    assert_eq!(present, [1, 0, 0b1111_1100, 0xff, 0b11, 0x80]);
}

#[test]
fn data_that_came_damaged_changes_nothing() {
    let mut store = fresh();
    write(&mut store, part(1), 0, b"good").unwrap();
    let mut request = write_request(part(1), 2, 0, b"evil");
    if let DiskRequest::Write { checksums, .. } = &mut request {
        checksums[0] ^= 1;
    }
    assert_eq!(run(&mut store, request).unwrap_err(), DiskError::Mismatch);
    assert_eq!(read(&mut store, part(1), 0, UNIT).unwrap()[..4], *b"good");
}

#[test]
fn a_part_is_received_beside_the_old_one_and_replaces_it() {
    let mut store = fresh();
    let (old, new) = (
        pattern(5, 3 * BLOCK_SIZE),
        pattern(6, 100_000 / UNIT_SIZE * UNIT_SIZE),
    );
    write(&mut store, part(1), 0, &old).unwrap();
    keep(&mut store, part(1)).unwrap();
    receive(&mut store, part(1), ReceiveStep::Begin { stripe: None }).unwrap();
    let piece = ReceiveStep::Piece {
        offset: BLOCK - UNIT,
        data: Bytes::copy_from_slice(&new),
        checksums: checksums(BLOCK - UNIT, &new),
    };
    receive(&mut store, part(1), piece).unwrap();
    assert_eq!(read(&mut store, part(1), 0, 3 * BLOCK).unwrap(), old);
    let action = CommitAction::Receive {
        version: ChunkVersion(9),
        epoch: Epoch(8),
    };
    let parts = commit(&mut store, &[(part(1), action)]).unwrap();
    let stored = StoredPart {
        part: part(1),
        version: ChunkVersion(9),
        epoch: Epoch(8),
    };
    assert_eq!(parts, [Some(stored)]);
    let mut wanted = vec![0; 3 * BLOCK_SIZE];
    wanted[BLOCK_SIZE - UNIT_SIZE..][..new.len()].copy_from_slice(&new);
    for _ in 0..2 {
        assert_eq!(read(&mut store, part(1), 0, 3 * BLOCK).unwrap(), wanted);
        assert_eq!(store.parts().collect::<Vec<_>>(), [stored]);
        store.check_invariants(true);
        store = reopen(store);
    }
}

#[test]
fn a_part_is_received_while_a_writer_has_the_old_one_committed() {
    let mut store = fresh();
    let (old, new) = (pattern(5, BLOCK_SIZE), pattern(6, UNIT_SIZE));
    write(&mut store, part(1), 0, &old).unwrap();
    receive(&mut store, part(1), ReceiveStep::Begin { stripe: None }).unwrap();
    let raise = CommitAction::Raise {
        version: ChunkVersion(2),
        epoch: Epoch(2),
        create: false,
    };
    let changes = vec![PartCommit {
        part: part(1),
        action: raise,
    }];
    let mut commit_of_writer = store.start(DiskRequest::Commit { changes });
    let piece = ReceiveStep::Piece {
        offset: 0,
        data: Bytes::copy_from_slice(&new),
        checksums: checksums(0, &new),
    };
    receive(&mut store, part(1), piece).unwrap();
    finish(&mut store, &mut commit_of_writer).unwrap();
    assert_eq!(read(&mut store, part(1), 0, BLOCK).unwrap(), old);
    let action = CommitAction::Receive {
        version: ChunkVersion(9),
        epoch: Epoch(8),
    };
    commit(&mut store, &[(part(1), action)]).unwrap();
    assert_eq!(read(&mut store, part(1), 0, UNIT).unwrap(), new);
    store.check_invariants(true);
}

#[test]
fn a_deleted_part_stays_deleted_and_its_space_comes_back() {
    let mut files = Files::default();
    files.limit(20 << 20);
    let mut store = open(files).unwrap();
    let data = pattern(7, 4 << 20);
    for _ in 0..8 {
        for chunk in 1..3 {
            for offset in (0..data.len()).step_by(1 << 20) {
                write(
                    &mut store,
                    part(chunk),
                    offset as u32,
                    &data[offset..][..1 << 20],
                )
                .unwrap();
            }
        }
        let both = [1, 2].map(|chunk| (part(chunk), CommitAction::Keep));
        commit(&mut store, &both).unwrap();
        let both = [1, 2].map(|chunk| (part(chunk), CommitAction::Delete));
        assert_eq!(commit(&mut store, &both).unwrap(), [None, None]);
        store = reopen(store);
        assert_eq!(store.parts().count(), 0);
        store.check_invariants(true);
    }
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let mut files = Files::default();
    files.limit(12 << 20);
    let mut store = open(files).unwrap();
    let mut written = 0;
    let full = loop {
        let data = pattern(written, 1 << 20);
        match write(&mut store, part(written), 0, &data) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, DiskError::Full);
    assert!(written > 5, "{written}");
    store.check_invariants(true);
    assert_eq!(
        read(&mut store, part(written), 0, UNIT),
        Err(DiskError::NotFound)
    );
    let changes: Vec<_> = (0..written)
        .map(|chunk| (part(chunk), CommitAction::Keep))
        .collect();
    commit(&mut store, &changes).unwrap();
    commit(&mut store, &[(part(0), CommitAction::Delete)]).unwrap();
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    let data = pattern(99, 1 << 20);
    write(&mut store, part(99), 0, &data).unwrap();
    keep(&mut store, part(99)).unwrap();
    let mut store = reopen(store);
    assert_eq!(read(&mut store, part(99), 0, 1 << 20).unwrap(), data);
    assert_eq!(
        read(&mut store, part(1), 0, 1 << 20).unwrap(),
        pattern(1, 1 << 20)
    );
}

#[test]
fn after_a_failed_sync_nothing_is_accepted() {
    let mut store = fresh();
    write(&mut store, part(1), 0, b"a").unwrap();
    store.vfs_mut().fail_syncs();
    let failed = keep(&mut store, part(1)).unwrap_err();
    assert!(matches!(failed, DiskError::Medium(_)), "{failed:?}");
    let refused = write(&mut store, part(2), 0, b"b").unwrap_err();
    assert!(matches!(refused, DiskError::Medium(_)));
    // What it holds may still be read.
    assert_eq!(read(&mut store, part(1), 0, UNIT).unwrap()[0], b'a');
    assert!(matches!(
        keep(&mut store, part(1)),
        Err(DiskError::Medium(_))
    ));
    assert!(store.failed().is_some());
}

#[test]
fn another_servers_disk_is_refused_untouched() {
    let mut store = fresh();
    write(&mut store, part(1), 0, b"mine").unwrap();
    keep(&mut store, part(1)).unwrap();
    let files = store.into_vfs().after_kill();
    let mut other = options();
    other.server = ServerId(99);
    let calls = files.calls;
    let refused = antler_core::chunk::ChunkStore::open(files.clone(), other).unwrap_err();
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
    assert_eq!(files.calls, calls);
    let mut store = open(files).unwrap();
    assert_eq!(read(&mut store, part(1), 0, UNIT).unwrap()[..4], *b"mine");
}

#[test]
fn checkpoints_shorten_the_journal() {
    let mut store = fresh();
    for round in 0..60 {
        let data = pattern(round, 30_000);
        write(&mut store, part(round % 5), 0, &data).unwrap();
        keep(&mut store, part(round % 5)).unwrap();
        let inspected = run(&mut store, DiskRequest::Inspect).unwrap();
        let DiskReply::Inspected { checkpoint_due, .. } = inspected else {
            panic!("not an inspection")
        };
        if checkpoint_due {
            run(&mut store, DiskRequest::Checkpoint).unwrap();
            store.check_invariants(true);
        }
    }
    let mut store = reopen(store);
    for chunk in 0..5 {
        let data = pattern(55 + chunk, 30_000);
        assert_eq!(
            read(&mut store, part(chunk), 0, 32 << 10).unwrap()[..30_000],
            data
        );
    }
    let names = store.into_vfs().lengths();
    let segments = names
        .iter()
        .filter(|(name, _)| name.starts_with("journal-"))
        .count();
    assert!(segments <= 4, "{names:?}");
}
