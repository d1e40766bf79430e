//! The faults of the simulated disk, each against what the trait of files promises.

use super::*;
use proptest::prelude::*;

const OPTIONS: DiskOptions = DiskOptions {
    capacity: 64 << 20,
    speed: DiskSpeed::FLASH,
};

fn disk(seed: u64) -> SimDisk {
    SimDisk::new(OPTIONS, seed)
}

/// Makes a durable file of 8 sectors of ones.
fn with_file(disk: &mut SimDisk) -> FileId {
    let file = disk.create("f").expect("new");
    disk.write_at(file, 0, &[1; 4096]).expect("room");
    disk.sync(file).expect("healthy");
    disk.sync_dir("").expect("healthy");
    file
}

fn read(disk: &mut SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(name).expect("there");
    let mut buffer = vec![0; 1 << 16];
    let length = disk.read_at(file, 0, &mut buffer).expect("healthy");
    buffer.truncate(length);
    buffer
}

#[test]
fn a_power_cut_tears_unsynced_writes_at_sectors() {
    let mut mixed = 0;
    for seed in 0..200 {
        let mut disk = disk(seed);
        let file = with_file(&mut disk);
        disk.write_at(file, 0, &[2; 4096]).expect("room");
        disk.cut(disk.cursor());
        let after = read(&mut disk, "f");
        assert_eq!(after.len(), 4096);
        let sectors: Vec<&[u8]> = after.chunks(512).collect();
        assert!(sectors.iter().all(|s| *s == [1; 512] || *s == [2; 512]));
        let new = sectors.iter().filter(|s| s[0] == 2).count();
        mixed += usize::from(new > 0 && new < 8);
    }
    assert!(mixed > 20, "torn writes come up: {mixed} of 200");
}

#[test]
fn what_was_synced_survives_and_what_was_not_yet_executed_does_not() {
    let mut disk = disk(3);
    disk.begin(1_000_000);
    let file = with_file(&mut disk);
    let synced = disk.cursor();
    disk.write_at(file, 0, &[2; 4096]).expect("room");
    disk.sync(file).expect("healthy");
    disk.cut(synced);
    assert_eq!(
        read(&mut disk, "f"),
        [1; 4096],
        "the second series lay in the future"
    );
}

#[test]
fn a_crash_before_the_first_call_ended_leaves_nothing() {
    let mut disk = disk(3);
    disk.begin(1_000_000);
    with_file(&mut disk);
    disk.cut(1_000_000);
    assert!(matches!(disk.open("f"), Err(VfsError::NotFound(_))));
}

#[test]
fn the_death_of_the_program_keeps_the_page_cache() {
    let mut disk = disk(1);
    let file = with_file(&mut disk);
    disk.write_at(file, 0, &[2; 4096]).expect("room");
    let written = disk.cursor();
    disk.write_at(file, 0, &[3; 4096]).expect("room");
    disk.kill(written);
    assert_eq!(read(&mut disk, "f"), [2; 4096]);
    disk.cut(written);
    assert_ne!(read(&mut disk, "f")[0], 3);
}

#[test]
fn a_rename_is_atomic_and_durable_only_after_the_folder() {
    let mut outcomes = [0, 0];
    for seed in 0..40 {
        let mut disk = disk(seed);
        let old = disk.create("a/image").expect("new");
        disk.write_at(old, 0, b"old").expect("room");
        disk.sync(old).expect("healthy");
        let new = disk.create("a/image.new").expect("new");
        disk.write_at(new, 0, b"new").expect("room");
        disk.sync(new).expect("healthy");
        disk.sync_dir("a").expect("healthy");
        disk.rename("a/image.new", "a/image").expect("there");
        disk.cut(disk.cursor());
        let content = read(&mut disk, "a/image");
        let names = disk.list("a").expect("healthy");
        match content.as_slice() {
            b"old" => assert_eq!(names, ["image", "image.new"]),
            _ => assert_eq!(names, ["image"]),
        }
        outcomes[usize::from(content == b"new")] += 1;
    }
    assert!(
        outcomes[0] > 5 && outcomes[1] > 5,
        "both come up: {outcomes:?}"
    );
}

#[test]
fn no_later_sync_makes_up_for_a_failed_one() {
    let mut lost = 0;
    for seed in 0..40 {
        let mut disk = disk(seed);
        let file = with_file(&mut disk);
        disk.write_at(file, 0, &[2; 4096]).expect("room");
        disk.set_faults(|faults| faults.sync = Failing::Once);
        assert!(disk.sync(file).expect_err("it fails").is_medium());
        assert_eq!(
            read(&mut disk, "f"),
            [2; 4096],
            "the page cache still shows it"
        );
        disk.sync(file).expect("healthy again");
        disk.cut(disk.cursor());
        lost += usize::from(read(&mut disk, "f").contains(&1));
    }
    assert!(lost > 10, "{lost} of 40 lost something");
}

#[test]
fn a_sync_under_way_covers_only_what_was_before_it() {
    let mut disk = disk(5);
    let file = with_file(&mut disk);
    disk.write_at(file, 0, &[2; 512]).expect("room");
    let begun = disk.begin_sync(file);
    disk.write_at(file, 512, &[3; 512]).expect("room");
    disk.end_sync(begun).expect("healthy");
    let mut durable = disk.durable_copy(begun.ends);
    let content = read(&mut durable, "f");
    assert_eq!((content[0], content[512]), (2, 1));
    assert_eq!(read(&mut disk, "f")[512], 3, "the copy is apart");
}

#[test]
fn a_cut_during_a_sync_may_lose_what_it_covers() {
    let mut disk = disk(5);
    let file = with_file(&mut disk);
    disk.write_at(file, 0, &[2; 512]).expect("room");
    let begun = disk.begin_sync(file);
    let mut durable = disk.durable_copy(begun.ends - 1);
    assert_eq!(read(&mut durable, "f")[0], 1);
}

#[test]
fn faults_of_space_and_of_the_medium_are_told() {
    let mut disk = disk(5);
    let file = with_file(&mut disk);
    disk.set_faults(|faults| faults.full = true);
    assert_eq!(disk.write_at(file, 8192, b"x"), Err(VfsError::Full));
    disk.write_at(file, 0, b"x")
        .expect("an overwrite needs no space");
    disk.set_faults(|faults| faults.read = Failing::Once);
    assert!(
        disk.read_at(file, 0, &mut [0])
            .expect_err("it fails")
            .is_medium()
    );
    disk.read_at(file, 0, &mut [0]).expect("once was once");
    disk.set_faults(|faults| faults.vanished = true);
    assert!(disk.sync(file).expect_err("it is gone").is_medium());
    assert!(disk.space().expect_err("it is gone").is_medium());
}

#[test]
fn rot_and_lies_make_a_disk_dishonest() {
    let mut disk = disk(5);
    let file = with_file(&mut disk);
    assert!(disk.is_honest());
    let (name, at) = disk.rot(disk.cursor(), |_| true).expect("there is data");
    assert_eq!(name, "f");
    let content = read(&mut disk, "f");
    assert_ne!(content[at as usize], 1);
    assert_eq!(content.iter().filter(|&&byte| byte != 1).count(), 1);
    assert!(!disk.is_honest());
    let mut liar = super::tests::disk(6);
    let other = with_file(&mut liar);
    liar.set_faults(|faults| faults.lies = Failing::Always);
    liar.write_at(other, 0, &[2; 4096]).expect("room");
    liar.sync(other).expect("so it says");
    assert_eq!(read(&mut liar.durable_copy(liar.cursor()), "f"), [1; 4096]);
    assert!(!liar.is_honest() && file != FileId(0));
}

#[test]
fn space_comes_back_when_a_file_goes() {
    let mut disk = disk(5);
    let before = disk.space().expect("healthy").free;
    let file = disk.create("big").expect("new");
    disk.write_at(file, 0, &vec![0; 1 << 20]).expect("room");
    assert_eq!(before - disk.space().expect("healthy").free, 1 << 20);
    disk.discard(file, 0, 1 << 19).expect("healthy");
    assert_eq!(before - disk.space().expect("healthy").free, 1 << 19);
    disk.close(file);
    disk.remove("big").expect("there");
    disk.sync_dir("").expect("healthy");
    disk.settle(disk.cursor());
    assert_eq!(disk.space().expect("healthy").free, before);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Truncate(u64),
    Discard(u64, u64),
    Sync,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = 0..20_000_u64;
    prop_oneof![
        (offset.clone(), proptest::collection::vec(0..3_u8, 1..9000))
            .prop_map(|(at, data)| Step::Write(at, data)),
        offset.clone().prop_map(Step::Truncate),
        (offset.clone(), offset).prop_map(|(at, length)| Step::Discard(at, length)),
        Just(Step::Sync),
        Just(Step::Kill),
    ]
}

/// Does to a plain vector what a step does to a file.
fn apply(model: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(at, data) => {
            let end = *at as usize + data.len();
            model.resize(model.len().max(end), 0);
            model[*at as usize..end].copy_from_slice(data);
        }
        Step::Truncate(length) => model.resize(*length as usize, 0),
        Step::Discard(at, length) => {
            let from = (*at as usize).min(model.len());
            let to = ((at + length) as usize).min(model.len());
            model[from..to].fill(0);
        }
        Step::Sync | Step::Kill => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_file_reads_as_a_vector_would(steps in proptest::collection::vec(step(), 1..30)) {
        let mut disk = disk(9);
        let mut file = disk.create("f").expect("new");
        disk.sync_dir("").expect("healthy");
        let (mut now, mut synced) = (Vec::new(), Vec::new());
        for step in &steps {
            apply(&mut now, step);
            match step {
                Step::Write(at, data) => disk.write_at(file, *at, data).expect("room"),
                Step::Truncate(length) => disk.truncate(file, *length).expect("healthy"),
                Step::Discard(at, length) => disk.discard(file, *at, *length).expect("healthy"),
                Step::Sync => {
                    disk.sync(file).expect("healthy");
                    synced.clone_from(&now);
                }
                Step::Kill => {
                    disk.kill(disk.cursor());
                    file = disk.open("f").expect("there");
                }
            }
            prop_assert_eq!(&read(&mut disk, "f"), &now);
        }
        prop_assert_eq!(read(&mut disk.durable_copy(disk.cursor()), "f"), synced);
    }
}
