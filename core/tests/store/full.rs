//! A disk that is full at bad moments.

use crate::bench::*;
use crate::files::{Files, Shared};
use antler_core::chunk::operation::{CommitAction, DiskError, DiskRequest};
use antler_core::chunk::{ChunkStore, StoreMark, StoreWatch};
use antler_core::limits::UNIT_SIZE;
use antler_core::rng::Rng;

const UNIT: u32 = UNIT_SIZE as u32;

#[test]
fn what_a_commit_embedded_waits_for_space_in_its_place() {
    let shared = Shared::default();
    let files = shared.0.clone();
    let mut store = open(shared).unwrap();
    for chunk in 0..8 {
        write(&mut store, part(chunk), 0, &pattern(chunk, 4096)).unwrap();
    }
    let used = files.borrow().used();
    files.borrow_mut().limit(used);
    let changes: Vec<_> = (0..8)
        .map(|chunk| (part(chunk), CommitAction::Keep))
        .collect();
    commit(&mut store, &changes).unwrap();
    for chunk in 0..8 {
        assert_eq!(
            read(&mut store, part(chunk), 0, UNIT).unwrap(),
            pattern(chunk, 4096)
        );
    }
    store.check_invariants(true);
    let refused = run(&mut store, DiskRequest::Checkpoint).unwrap_err();
    assert_eq!(refused, DiskError::Full);
    // A change over what waits, and one crash without it.
    let mut rng = Rng::new(1);
    let mut after = files.borrow().after_power_cut(&mut rng);
    after.limit(usize::MAX / 4);
    let mut recovered: ChunkStoreOf = open(after).unwrap();
    for chunk in 0..8 {
        assert_eq!(
            read(&mut recovered, part(chunk), 0, UNIT).unwrap(),
            pattern(chunk, 4096)
        );
    }
    write(&mut store, part(3), 100, b"changed").unwrap();
    files.borrow_mut().limit(usize::MAX / 4);
    assert_eq!(
        run(&mut store, DiskRequest::Checkpoint).unwrap_err(),
        DiskError::Full
    );
    keep(&mut store, part(3)).unwrap();
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    let after = files.borrow().after_power_cut(&mut rng);
    let mut store: ChunkStoreOf = open(after).unwrap();
    let mut wanted = pattern(3, 4096);
    wanted[100..107].copy_from_slice(b"changed");
    assert_eq!(read(&mut store, part(3), 0, UNIT).unwrap(), wanted);
    store.check_invariants(true);
}

#[test]
fn a_disk_that_is_full_when_it_is_opened_serves_what_waits_for_space() {
    let shared = Shared::default();
    let files = shared.0.clone();
    let mut store = open(shared).unwrap();
    for chunk in 0..8 {
        write(&mut store, part(chunk), 0, &pattern(chunk, 4096)).unwrap();
    }
    let used = files.borrow().used();
    files.borrow_mut().limit(used);
    for chunk in 0..8 {
        keep(&mut store, part(chunk)).unwrap();
    }
    // Of some the newest content is in a later frame than the rest of the block.
    for chunk in 0..4 {
        write(&mut store, part(chunk), 4096, &pattern(chunk + 50, 4096)).unwrap();
        keep(&mut store, part(chunk)).unwrap();
    }
    let check = |store: &mut ChunkStoreOf| {
        for chunk in 0..8 {
            let got = read(store, part(chunk), 0, 2 * UNIT).unwrap();
            assert_eq!(got[..4096], pattern(chunk, 4096));
            let later = match chunk < 4 {
                true => pattern(chunk + 50, 4096),
                false => vec![0; 4096],
            };
            assert_eq!(got[4096..], later);
        }
        store.check_invariants(true);
    };
    for seed in 0..16 {
        let mut rng = Rng::new(seed);
        let mut after = files.borrow().after_power_cut(&mut rng);
        let used = after.used();
        after.limit(used);
        let mut watch = StoreWatch::open(after.clone(), options()).unwrap();
        for chunk in 0..8 {
            let seen = watch.read(part(chunk), 0, UNIT).unwrap();
            assert_eq!(seen, pattern(chunk, 4096), "as judges read it");
            watch.verify(part(chunk)).unwrap();
        }
        let mut store: ChunkStoreOf = open(after).unwrap();
        check(&mut store);
        assert!(store.take_marks().contains(&StoreMark::DiskFull));
        let refused = run(&mut store, DiskRequest::Checkpoint).unwrap_err();
        assert_eq!(refused, DiskError::Full);
        let mut again = store.into_vfs().after_power_cut(&mut rng);
        again.limit(usize::MAX / 4);
        let mut store: ChunkStoreOf = open(again).unwrap();
        check(&mut store);
        run(&mut store, DiskRequest::Checkpoint).unwrap();
        check(&mut store);
    }
}

type ChunkStoreOf = antler_core::chunk::ChunkStore<Files>;

#[test]
fn a_write_that_finds_no_space_leaves_what_was_there() {
    let shared = Shared::default();
    let files = shared.0.clone();
    let mut store = open(shared).unwrap();
    let old = pattern(1, 256 << 10);
    write(&mut store, part(1), 0, &old).unwrap();
    keep(&mut store, part(1)).unwrap();
    let unsynced = pattern(2, 64 << 10);
    write(&mut store, part(1), 128 << 10, &unsynced).unwrap();
    let mut now = old.clone();
    now[128 << 10..192 << 10].copy_from_slice(&unsynced);
    let used = files.borrow().used();
    files.borrow_mut().limit(used + (64 << 10));
    let big = pattern(3, 256 << 10);
    assert_eq!(
        write(&mut store, part(1), 0, &big).unwrap_err(),
        DiskError::Full
    );
    assert_eq!(read(&mut store, part(1), 0, 256 << 10).unwrap(), now);
    store.check_invariants(true);
    files.borrow_mut().limit(usize::MAX / 4);
    write(&mut store, part(1), 0, &big).unwrap();
    keep(&mut store, part(1)).unwrap();
    assert_eq!(read(&mut store, part(1), 0, 256 << 10).unwrap(), big);
}

#[test]
fn a_small_disk_that_is_full_has_room_to_delete() {
    let mut files = Files::default();
    files.limit(24 << 20);
    let mut options = options();
    options.tuning.reserve = 64 << 20;
    let (mut store, _) = ChunkStore::open(files, options).unwrap();
    let piece = pattern(1, 256 << 10);
    let mut count = 0;
    while write(&mut store, part(count), 0, &piece).is_ok() {
        keep(&mut store, part(count)).unwrap();
        count += 1;
    }
    assert!(count > 16, "most of it is for content: {count} pieces");
    // What is written over and over makes the journal as long as it gets.
    for turn in 0..1000 {
        let small = pattern(turn, 100);
        write(&mut store, part(turn % count), 0, &small).unwrap();
        keep(&mut store, part(turn % count)).unwrap();
        if turn % 50 == 0 {
            run(&mut store, DiskRequest::Checkpoint).unwrap();
        }
    }
    for chunk in 0..8 {
        commit(&mut store, &[(part(chunk), CommitAction::Delete)]).unwrap();
    }
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    write(&mut store, part(count), 0, &piece[..64 << 10]).unwrap();
    keep(&mut store, part(count)).unwrap();
    store.check_invariants(true);
}
