//! A disk that is followed reads as a recovery of the same copy does, whatever was
//! written, committed, removed and checkpointed between two looks.

use crate::bench::*;
use crate::files::Files;
use antler_core::chunk::StoreWatch;
use antler_core::chunk::operation::{CommitAction, DiskRequest};
use antler_core::limits::BLOCK_SIZE;
use antler_core::rng::Rng;

const PARTS: u64 = 6;
const REACH: u64 = 5 * BLOCK_SIZE as u64;

/// A random change of a random part, committed.
fn change(store: &mut Store, rng: &mut Rng) {
    let id = part(rng.below(PARTS));
    let length = match rng.below(3) {
        0 => rng.between(1, 200),
        1 => rng.between(4000, 20_000),
        _ => rng.between(1, REACH / 2),
    };
    let offset = rng.below(REACH - length) as u32;
    let data = pattern(rng.word(), length as usize);
    write(store, id, offset, &data).unwrap();
    keep(store, id).unwrap();
    if rng.one_in(12) {
        commit(store, &[(id, CommitAction::Delete)]).unwrap();
    }
}

/// A copy as a power cut leaves it.
fn copy(store: &mut Store, rng: &mut Rng) -> Files {
    store.vfs_mut().after_power_cut(rng)
}

#[test]
fn following_a_disk_and_recovering_it_read_the_same() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut store = open(Files::default()).unwrap();
        change(&mut store, &mut rng);
        let mut watch = StoreWatch::open(copy(&mut store, &mut rng), options()).unwrap();
        let mut followed = 0;
        for _ in 0..30 {
            for _ in 0..rng.between(1, 4) {
                change(&mut store, &mut rng);
            }
            if rng.one_in(10) {
                run(&mut store, DiskRequest::Checkpoint).unwrap();
            }
            let files = copy(&mut store, &mut rng);
            let read_on = watch.follow(files.clone()).unwrap();
            followed += u32::from(read_on.is_some());
            watch = match read_on {
                Some(watch) => watch,
                None => StoreWatch::open(files.clone(), options()).unwrap(),
            };
            compare(&mut watch, open(files).unwrap());
        }
        assert!(followed > 10, "most looks follow: {followed}");
    }
}

fn compare(watch: &mut StoreWatch<Files>, mut recovered: Store) {
    let parts: Vec<_> = recovered.parts().collect();
    assert_eq!(watch.parts().collect::<Vec<_>>(), parts);
    for stored in parts {
        let length = REACH.next_multiple_of(BLOCK_SIZE as u64) as u32;
        let expected = read(&mut recovered, stored.part, 0, length).unwrap();
        assert!(watch.read(stored.part, 0, length).unwrap() == expected);
        assert_eq!(watch.part(stored.part), Some(stored));
    }
}
