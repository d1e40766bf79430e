//! Rot: a flipped bit anywhere in any file is either told (the disk is refused,
//! or a read says which unit is bad) or has no effect.

use crate::bench::*;
use crate::files::{Files, Shared};
use antler_core::chunk::operation::{CommitAction, DiskError, DiskRequest, StoredPart};
use antler_core::chunk::{ChunkStore, StoreError};
use antler_core::ids::{ChunkVersion, Epoch};
use antler_core::rng::Rng;
use std::collections::BTreeMap;

const EXTENT: u32 = 5 << 16;

type Contents = BTreeMap<StoredPart, Vec<u8>>;

/// A disk with all that a disk can have: a table, frames behind it, embedded units,
/// straight blocks, freed slots, a journal used before.
fn disk() -> Files {
    let shared = Shared::default();
    let mut store = open(shared.clone()).unwrap();
    let mut rng = Rng::new(11);
    for round in 0..80 {
        let chunk = rng.below(6);
        let length = [100, 5000, 70_000, 140_000][rng.below(4) as usize];
        let offset = rng.below(u64::from(EXTENT) - length) as u32;
        write(
            &mut store,
            part(chunk),
            offset,
            &pattern(round, length as usize),
        )
        .unwrap();
        let action = match round == 41 {
            true => CommitAction::Delete,
            false => CommitAction::Keep,
        };
        commit(&mut store, &[(part(chunk), action)]).unwrap();
        if [30, 60].contains(&round) {
            run(&mut store, DiskRequest::Checkpoint).unwrap();
        }
    }
    drop(store);
    shared.0.take().after_power_cut(&mut rng)
}

fn contents(store: &mut ChunkStore<Files>) -> Contents {
    let parts: Vec<StoredPart> = store.parts().collect();
    let read = |stored: StoredPart| {
        (
            stored,
            read(store, stored.part, 0, EXTENT).unwrap().to_vec(),
        )
    };
    parts.into_iter().map(read).collect()
}

/// What came of a flip.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy, Debug)]
enum Effect {
    None,
    Refused,
    Corrupt,
}

fn effect_of(files: Files, wanted: &Contents) -> Effect {
    let mut store = match open(files) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. }) => return Effect::Refused,
        Err(other) => panic!("rot is damage: {other}"),
    };
    let mut effect = Effect::None;
    let parts: Vec<StoredPart> = store.parts().collect();
    assert!(
        parts.iter().eq(wanted.keys()),
        "every part is there as it was"
    );
    for (stored, content) in wanted {
        for unit in 0..EXTENT / 4096 {
            match read(&mut store, stored.part, unit * 4096, 4096) {
                Ok(data) => assert_eq!(data, content[unit as usize * 4096..][..4096]),
                Err(DiskError::Corrupt { .. }) => effect = Effect::Corrupt,
                Err(other) => panic!("rot is corruption: {other:?}"),
            }
        }
    }
    effect
}

#[test]
fn every_flipped_bit_is_told_or_harmless() {
    let mut files = disk();
    let wanted = contents(&mut open(files.clone()).unwrap());
    assert!(wanted.len() >= 5);
    // What recovery writes in place anew is not at rest.
    files = {
        let shared = Shared(std::rc::Rc::new(std::cell::RefCell::new(files)));
        drop(open(shared.clone()).unwrap());
        shared.0.take().after_kill()
    };
    let mut rng = Rng::new(5);
    let mut effects: BTreeMap<(String, Effect), u32> = BTreeMap::new();
    for (name, length) in files.lengths() {
        let kind: String = name.chars().take_while(|letter| *letter != '-').collect();
        for offset in offsets(&files, &name, length, &mut rng) {
            let mut rotten = files.clone();
            rotten.rot(&name, offset, 1 << rng.below(8));
            *effects
                .entry((kind.clone(), effect_of(rotten, &wanted)))
                .or_default() += 1;
        }
    }
    println!("{effects:?}");
    let met = |kind: &str, effect| effects.contains_key(&(kind.to_owned(), effect));
    assert!(met("disk", Effect::Refused) && !met("disk", Effect::None));
    assert!(met("table", Effect::Refused) && !met("table", Effect::None));
    assert!(met("journal", Effect::Refused));
    assert!(met("units", Effect::Corrupt));
    assert!(met("slots", Effect::Corrupt));
}

/// Every byte of small files; of the others the start, and places in all that is
/// not zero.
fn offsets(files: &Files, name: &str, length: usize, rng: &mut Rng) -> Vec<usize> {
    if length <= 1024 {
        return (0..length).collect();
    }
    let content = files.content(name);
    let used: Vec<usize> = (0..length / 512)
        .filter(|sector| {
            content[sector * 512..(sector + 1) * 512]
                .iter()
                .any(|byte| *byte != 0)
        })
        .collect();
    let picks = 300.min(used.len() * 2);
    let mut offsets: Vec<usize> = (0..64).collect();
    for pick in 0..picks {
        let sector = used[pick * used.len() / picks];
        offsets.push(sector * 512 + rng.below(512) as usize);
    }
    offsets
}

#[test]
fn a_missing_frame_before_a_later_one_is_refused() {
    let shared = Shared::default();
    let mut store = open(shared.clone()).unwrap();
    for round in 0..6 {
        write(&mut store, part(round), 0, &pattern(round, 300)).unwrap();
        keep(&mut store, part(round)).unwrap();
    }
    drop(store);
    let files = shared.0.take().after_kill();
    // One sector for each frame, the header before them.
    for frame in 1..6 {
        let mut holed = files.clone();
        holed.wipe("journal-1", frame * 512..(frame + 1) * 512);
        match open(holed) {
            Err(StoreError::Damaged { .. }) => {}
            Ok(_) => panic!("frame {frame} is missing and nobody says so"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_missing_table_or_journal_is_refused() {
    let files = disk();
    for (name, _) in files.lengths() {
        if name.starts_with("table-") || name == "disk" {
            let mut without = files.clone();
            antler_core::vfs::Vfs::remove(&mut without, &name).unwrap();
            assert!(open(without).is_err(), "{name} is needed");
        }
    }
}

/// A part of which one unit more, or one less, is committed the second time, and a table
/// behind each; the last line of the slot table then went elsewhere.
fn with_a_line_of_before(second: DiskRequest) -> Files {
    let shared = Shared::default();
    let mut store = open(shared.clone()).unwrap();
    write(&mut store, part(1), 0, &pattern(1, 8192)).unwrap();
    keep(&mut store, part(1)).unwrap();
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    let before = shared.0.borrow().content("units-0").to_vec();
    run(&mut store, second).unwrap();
    keep(&mut store, part(1)).unwrap();
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    drop(store);
    let mut files = shared.0.take();
    let after = files.content("units-0").to_vec();
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        files.rot("units-0", at, before ^ after);
    }
    files.after_kill()
}

#[test]
fn a_line_of_before_is_told_from_the_last_one() {
    let more = write_request(part(1), 1, 8192, &pattern(2, 4096));
    let less = DiskRequest::Zero {
        part: part(1),
        version: ChunkVersion(1),
        epoch: Epoch(1),
        offset: 4096,
        length: 4096,
    };
    for (second, unit) in [(more, 2), (less, 1)] {
        let mut store = open(with_a_line_of_before(second)).unwrap();
        let found = read(&mut store, part(1), unit * 4096, 4096);
        assert_eq!(found, Err(DiskError::Corrupt { unit: 0 }));
    }
}

/// Makes the table one of before tables told which units blocks have.
fn age_table(files: &mut Files) {
    let names = files.lengths().into_iter().map(|(name, _)| name);
    let name = names.into_iter().find(|name| name.starts_with("table-"));
    let name = name.expect("there is a table");
    let before = files.content(&name)[..64].to_vec();
    let mut after = before.clone();
    after[36..40].fill(0);
    let checksum = crc32fast::hash(&after[..60]);
    after[60..].copy_from_slice(&checksum.to_le_bytes());
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        files.rot(&name, at, before ^ after);
    }
}

#[test]
fn a_table_that_does_not_tell_units_is_read_as_before() {
    let mut files = disk();
    let wanted = contents(&mut open(files.clone()).unwrap());
    age_table(&mut files);
    assert_eq!(contents(&mut open(files).unwrap()), wanted);
    // Nothing says that the unit is missing.
    let mut files = with_a_line_of_before(write_request(part(1), 1, 8192, &pattern(2, 4096)));
    age_table(&mut files);
    let shared = Shared(std::rc::Rc::new(std::cell::RefCell::new(files)));
    let mut store = open(shared.clone()).unwrap();
    let found = read(&mut store, part(1), 8192, 4096).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
    // A part that is not known stays so in the next table, and may be changed.
    write(&mut store, part(1), 12_288, &pattern(3, 4096)).unwrap();
    keep(&mut store, part(1)).unwrap();
    run(&mut store, DiskRequest::Checkpoint).unwrap();
    drop(store);
    let mut store = open(shared.0.take().after_kill()).unwrap();
    assert_eq!(
        read(&mut store, part(1), 12_288, 4096).unwrap(),
        pattern(3, 4096)
    );
}
