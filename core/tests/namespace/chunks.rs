//! The content of files: holes, commits, truncation, fallocate. Bytes that were
//! cut off never show again, whatever comes after.

use crate::world::{ROOT, World, alice, extent, root, servers};
use antler_core::attributes::{Credentials, FallocateMode, FileKind};
use antler_core::errno::Errno;
use antler_core::ids::{ChunkId, InodeId};
use antler_core::limits::{CHUNK_SIZE, FILE_SIZE_MAX};
use antler_core::namespace::record::{Mutation, Reply, WrittenExtent};
use antler_core::namespace::{Change, LeaseState};
use antler_core::placement::ClassId;

const CHUNK: u32 = CHUNK_SIZE as u32;

/// Writes a chunk up to `valid` and lets it settle.
fn write(world: &mut World, file: InodeId, index: u32, valid: u32) -> ChunkId {
    let grant = world.lease(file, index).expect("servers are offered");
    world
        .commit(file, &grant, valid, true)
        .expect("the lease is held");
    grant.chunk
}

fn layout(world: &World, file: InodeId) -> Vec<(u32, u32)> {
    let chunks = world.state.chunks_of(file).expect("a file");
    chunks
        .into_iter()
        .map(|(index, _, valid)| (index, valid))
        .collect()
}

fn file_of(world: &mut World, chunks: &[(u32, u32)]) -> InodeId {
    let file = world.file(ROOT, "f");
    for &(index, valid) in chunks {
        write(world, file, index, valid);
    }
    file
}

#[test]
fn a_file_is_mostly_holes() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(7, 100), (2, CHUNK), (0, 5000)]);
    assert_eq!(layout(&world, file), [(0, 5000), (2, CHUNK), (7, 100)]);
    assert_eq!(world.state.chunk_at(file, 1), Ok(None));
    let attributes = world.state.attributes(file).expect("it is there");
    assert_eq!(attributes.size, 7 * CHUNK_SIZE + 100);
    assert_eq!(attributes.allocated, 8192 + CHUNK_SIZE + 4096);
}

#[test]
fn a_shorter_file_loses_what_is_behind_for_good() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(0, CHUNK), (1, CHUNK), (2, 500)]);
    world
        .truncate(&root(), file, CHUNK_SIZE + 1000)
        .expect("root may");
    assert_eq!(layout(&world, file), [(0, CHUNK), (1, 1000)]);
    world
        .truncate(&root(), file, 3 * CHUNK_SIZE)
        .expect("root may");
    assert_eq!(
        layout(&world, file),
        [(0, CHUNK), (1, 1000)],
        "the rest reads as zeros"
    );
    world.truncate(&root(), file, CHUNK_SIZE).expect("root may");
    assert_eq!(layout(&world, file), [(0, CHUNK)]);
    world.truncate(&root(), file, 0).expect("root may");
    assert_eq!(layout(&world, file), []);
    assert_eq!(world.state.counts().chunks, 0);
    assert_eq!(
        world.truncate(&root(), file, FILE_SIZE_MAX + 1),
        Err(Errno::EFBIG)
    );
    world
        .truncate(&root(), file, FILE_SIZE_MAX)
        .expect("the largest file");
}

#[test]
fn a_commit_makes_nothing_valid_behind_the_length() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let grant = world.lease(file, 0).expect("servers are offered");
    let commit = Mutation::CommitWrite {
        inode: file,
        size: 10,
        extents: vec![extent(&grant, 4096)],
        release: Vec::new(),
        unchanged: false,
    };
    world.run(&root(), commit).expect("the lease is held");
    assert_eq!(layout(&world, file), [(0, 10)]);
    assert_eq!(world.state.attributes(file).expect("it is there").size, 10);
}

#[test]
fn a_commit_is_refused_whole() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(0, 100), (1, 100)]);
    let before = world.state.attributes(file);
    let first = world.lease(file, 0).expect("servers are offered");
    let second = world
        .state
        .chunk_at(file, 1)
        .expect("a file")
        .expect("it is there")
        .0;
    let mut commit = |extents: Vec<WrittenExtent>, size| {
        let (inode, release) = (file, Vec::new());
        world.run(
            &root(),
            Mutation::CommitWrite {
                inode,
                size,
                extents,
                release,
                unchanged: false,
            },
        )
    };
    let good = extent(&first, 5000);
    let place = |index, chunk, valid| WrittenExtent {
        index,
        chunk,
        valid,
        fences: 0,
        synced: false,
    };
    assert_eq!(
        commit(vec![good, place(1, first.chunk, 10)], 0),
        Err(Errno::ESTALE)
    );
    assert_eq!(
        commit(vec![good, place(9, first.chunk, 10)], 0),
        Err(Errno::ESTALE)
    );
    assert_eq!(
        commit(vec![good, place(1, second, 101)], 0),
        Err(Errno::ESTALE),
        "no lease"
    );
    assert_eq!(
        commit(vec![good, place(1, second, 0)], 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        commit(vec![good, place(1, second, CHUNK + 1)], 0),
        Err(Errno::EINVAL)
    );
    assert_eq!(commit(vec![good], FILE_SIZE_MAX + 1), Err(Errno::EFBIG));
    assert_eq!(world.state.attributes(file), before);
    assert_eq!(layout(&world, file), [(0, 100), (1, 100)]);
}

#[test]
fn what_was_valid_before_may_be_committed_without_a_lease() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(0, 5000)]);
    let (chunk, _) = world
        .state
        .chunk_at(file, 0)
        .expect("a file")
        .expect("it is there");
    let commit = Mutation::CommitWrite {
        inode: file,
        size: 0,
        extents: vec![WrittenExtent {
            index: 0,
            chunk,
            valid: 5000,
            fences: 0,
            synced: false,
        }],
        release: Vec::new(),
        unchanged: false,
    };
    world.run(&root(), commit).expect("it raises nothing");
    let attributes = world.state.attributes(file).expect("it is there");
    assert_eq!((attributes.size, attributes.mtime), (5000, world.now()));
}

#[test]
fn each_change_of_content_counts() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(0, 5000)]);
    let mut last = world.state.attributes(file).expect("it is there").change;
    let mut counts = |world: &World, what: &str| {
        let now = world.state.attributes(file).expect("it is there").change;
        assert!(now > last, "{what}");
        last = now;
    };
    write(&mut world, file, 0, 5000);
    counts(&world, "a commit");
    world.truncate(&root(), file, 10).expect("root may");
    counts(&world, "a truncation");
    world
        .fallocate(file, FallocateMode::Punch, 0, 4)
        .expect("it is a file");
    counts(&world, "a hole");
}

/// A mode, from where, how much; the size then, the chunks then.
type Fallocation = (FallocateMode, u64, u64, u64, &'static [(u32, u32)]);

#[test]
fn fallocate_extends_punches_and_zeroes() {
    use FallocateMode::{Extend, Keep, Punch, Zero, ZeroKeep};
    let whole = u64::from(CHUNK);
    let cases: &[Fallocation] = &[
        (
            Extend,
            0,
            whole,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK), (2, 500)],
        ),
        (
            Extend,
            0,
            5 * whole,
            5 * whole,
            &[(0, CHUNK), (1, CHUNK), (2, 500)],
        ),
        (
            Keep,
            0,
            5 * whole,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK), (2, 500)],
        ),
        (Punch, 0, whole, 2 * whole + 500, &[(1, CHUNK), (2, 500)]),
        (
            Punch,
            1,
            whole - 1,
            2 * whole + 500,
            &[(0, 1), (1, CHUNK), (2, 500)],
        ),
        (
            Punch,
            1,
            5,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK), (2, 500)],
        ),
        (Punch, 10, 3 * whole, 2 * whole + 500, &[(0, 10)]),
        (
            Punch,
            whole - 1,
            whole + 2,
            2 * whole + 500,
            &[(0, CHUNK - 1), (2, 500)],
        ),
        (
            Punch,
            2 * whole,
            500,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK)],
        ),
        (
            Punch,
            2 * whole + 100,
            400,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK), (2, 100)],
        ),
        (
            Punch,
            2 * whole + 600,
            400,
            2 * whole + 500,
            &[(0, CHUNK), (1, CHUNK), (2, 500)],
        ),
        (Zero, whole, 3 * whole, 4 * whole, &[(0, CHUNK)]),
        (ZeroKeep, whole, 3 * whole, 2 * whole + 500, &[(0, CHUNK)]),
    ];
    for &(mode, from, length, size, chunks) in cases {
        let mut world = World::new();
        let file = file_of(&mut world, &[(0, CHUNK), (1, CHUNK), (2, 500)]);
        world
            .fallocate(file, mode, from, length)
            .expect("it is a file");
        let have = world.state.attributes(file).expect("it is there").size;
        assert_eq!(
            (have, &layout(&world, file)[..]),
            (size, chunks),
            "{mode:?} {from} {length}"
        );
    }
}

#[test]
fn fallocate_refuses_what_makes_no_sense() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let pipe = world
        .make(&root(), ROOT, "p", FileKind::Fifo, 0o600)
        .expect("root may");
    let mode = FallocateMode::Extend;
    assert_eq!(world.fallocate(file, mode, 0, 0), Err(Errno::EINVAL));
    assert_eq!(
        world.fallocate(file, mode, FILE_SIZE_MAX, 1),
        Err(Errno::EFBIG)
    );
    assert_eq!(
        world.fallocate(file, mode, u64::MAX, u64::MAX),
        Err(Errno::EFBIG)
    );
    assert_eq!(world.fallocate(pipe, mode, 0, 1), Err(Errno::ENODEV));
    assert_eq!(world.fallocate(ROOT, mode, 0, 1), Err(Errno::ENODEV));
    assert_eq!(world.fallocate(InodeId(99), mode, 0, 1), Err(Errno::ESTALE));
    world
        .fallocate(file, mode, FILE_SIZE_MAX - 1, 1)
        .expect("the last byte");
}

#[test]
fn cutting_a_chunk_breaks_the_lease_of_another_session() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let other = world.begin("other", 8);
    let grant = world.as_session(other, |world| {
        let grant = world.lease(file, 0).expect("servers are offered");
        let commit = Mutation::CommitWrite {
            inode: file,
            size: 9000,
            extents: vec![extent(&grant, 9000)],
            release: Vec::new(),
            unchanged: false,
        };
        world.run(&root(), commit).expect("the lease is held");
        grant
    });
    world.truncate(&root(), file, 100).expect("root may");
    let chunk = world.state.chunk(grant.chunk).expect("a part of it stays");
    assert!(matches!(chunk.lease, LeaseState::Broken { .. }));
    let late = world.as_session(other, |world| world.commit(file, &grant, 9000, true));
    assert_eq!(
        late,
        Err(Errno::ESTALE),
        "what was cut off does not come back"
    );
    assert_eq!(layout(&world, file), [(0, 100)]);
}

#[test]
fn a_hole_in_an_own_leased_chunk_keeps_the_lease() {
    let mut world = World::new();
    let file = file_of(&mut world, &[(0, 100)]);
    let grant = world.lease(file, 0).expect("servers are offered");
    world
        .fallocate(file, FallocateMode::Punch, 0, 4096)
        .expect("it is a file");
    assert_eq!(
        layout(&world, file),
        [(0, 0)],
        "bytes written since may lie behind"
    );
    world
        .commit(file, &grant, 9000, true)
        .expect("the lease is still held");
    assert_eq!(layout(&world, file), [(0, 9000)]);
}

#[test]
fn copies_are_inherited_and_changed() {
    let mut world = World::new();
    let folder = world.folder(ROOT, "d");
    let set = |world: &mut World, who: &Credentials, inode, copies| {
        world.apply(who, Mutation::SetCopies { inode, copies })
    };
    for (who, copies, errno) in [
        (alice(), 3, Errno::EPERM),
        (root(), 0, Errno::EINVAL),
        (root(), 10, Errno::EINVAL),
    ] {
        assert_eq!(
            set(&mut world, &who, folder, copies).outcome,
            Some(Err(errno))
        );
    }
    let applied = set(&mut world, &root(), folder, 3);
    assert!(matches!(applied.outcome, Some(Ok(Reply::Entry(_)))));
    let below = world.folder(folder, "e");
    let file = world.file(below, "f");
    let chunk = write(&mut world, file, 0, 10);
    assert_eq!(
        world.state.chunk(chunk).expect("it is there").class,
        ClassId::copies(3)
    );
    let applied = set(&mut world, &root(), file, 1);
    assert!(applied.changes.contains(&Change::Copies(chunk)));
    assert_eq!(
        world.state.chunk(chunk).expect("it is there").class,
        ClassId::copies(1)
    );
    assert_eq!(world.state.attributes(file).expect("it is there").copies, 1);
}

#[test]
fn a_created_file_brings_its_first_lease() {
    let mut world = World::new();
    world.choice.copies = servers(2);
    let create = |name: &str, kind, write| Mutation::Create {
        parent: ROOT,
        name: name.into(),
        kind,
        mode: 0o644,
        device: 0,
        target: Vec::new(),
        exclusive: false,
        write,
    };
    let lease = |outcome| match outcome {
        Ok(Reply::Created { lease, existed, .. }) => (lease, existed),
        other => panic!("created: {other:?}"),
    };
    let (grant, existed) = lease(world.run(&root(), create("f", FileKind::Regular, true)));
    let grant = grant.expect("copies were chosen");
    assert_eq!(
        (grant.valid, grant.version.0, grant.epoch.0, existed),
        (0, 1 << 20, 1 << 20, false)
    );
    let again = world.run(&root(), create("f", FileKind::Regular, true));
    assert_eq!(lease(again), (None, true), "one that was there brings none");
    assert_eq!(
        lease(world.run(&root(), create("g", FileKind::Regular, false))).0,
        None
    );
    assert_eq!(
        lease(world.run(&root(), create("p", FileKind::Fifo, true))).0,
        None
    );
    world.choice.copies.clear();
    assert_eq!(
        lease(world.run(&root(), create("h", FileKind::Regular, true))).0,
        None
    );
}
