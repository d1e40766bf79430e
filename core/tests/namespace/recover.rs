//! A cluster that lives on after the end of its log was lost.

use crate::world::{ROOT, World};
use antler_core::errno::Errno;
use antler_core::ids::{ChunkId, ChunkVersion, Epoch, Incarnation, InodeId};
use antler_core::namespace::record::RecordBody;
use antler_core::namespace::{Change, ChunkOrigin, LeaseState};
use antler_core::version::FeatureLevel;

#[test]
fn nothing_lost_is_given_again_and_nothing_lost_counts_as_deleted() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let gone = world.lease(file, 1).expect("servers are offered");
    world.release(gone.chunk, gone.epoch, true);
    let kept = world.lease(file, 0).expect("servers are offered");
    world
        .commit(file, &kept, 10, true)
        .expect("the lease is held");
    let origin = |world: &World, chunk| world.state.chunk_is_lost_range(chunk);
    let never_given = ChunkId(kept.chunk.0 + 1);
    assert_eq!(origin(&world, gone.chunk), ChunkOrigin::Deleted);
    assert_eq!(origin(&world, never_given), ChunkOrigin::Unknown);

    world.record(RecordBody::Recover { incarnation: 2 });
    assert_eq!(world.state.incarnation(), Incarnation(2));
    assert_eq!(origin(&world, gone.chunk), ChunkOrigin::Deleted);
    assert_eq!(origin(&world, kept.chunk), ChunkOrigin::Known);
    assert_eq!(origin(&world, never_given), ChunkOrigin::Unknown);

    let session = world.session;
    world.session = world.begin("new", 9);
    assert!(
        world.session.0 > session.0 + 1000,
        "no session number comes again"
    );
    let new = world.lease(file, 1).expect("servers are offered");
    assert!(new.chunk.0 > never_given.0 + 1_000_000);
    assert_eq!(
        origin(&world, ChunkId(new.chunk.0 - 1)),
        ChunkOrigin::Unknown,
        "the lost range"
    );
    assert!(world.file(ROOT, "g") > InodeId(file.0 + 1_000_000));
    let again = world.lease(file, 0).expect("servers are offered");
    assert!(again.epoch > Epoch(1_000_000) && again.version > ChunkVersion(1_000_000));
}

#[test]
fn sessions_end_and_what_they_wrote_is_kept_for_reconciliation() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let grant = world.lease(file, 0).expect("servers are offered");
    let (session, before) = (world.session, world.state.incarnation());
    assert_eq!(
        world
            .record(RecordBody::Recover {
                incarnation: before.0
            })
            .changes,
        []
    );
    let applied = world.record(RecordBody::Recover { incarnation: 5 });
    assert!(applied.changes.contains(&Change::SessionEnded(session)));
    let chunk = world
        .state
        .chunk(grant.chunk)
        .expect("its commit may be what was lost");
    assert!(matches!(chunk.lease, LeaseState::Broken { .. }));
}

#[test]
fn a_newer_copy_is_adopted_in_a_later_life_only() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    let grant = world.lease(file, 0).expect("servers are offered");
    world
        .commit(file, &grant, 10, true)
        .expect("the lease is held");
    let adopt = |epoch, version: u64| RecordBody::Adopt {
        chunk: grant.chunk,
        epoch,
        version: ChunkVersion(version << 20),
    };
    let version = |world: &World| world.state.chunk(grant.chunk).expect("it is there").version;
    world.record(adopt(grant.epoch, 9));
    assert_eq!(
        version(&world),
        ChunkVersion(1 << 20),
        "this life has lost nothing"
    );
    world.record(RecordBody::Recover { incarnation: 2 });
    world.record(adopt(Epoch(7), 9));
    assert_eq!(version(&world), ChunkVersion(1 << 20), "another epoch");
    world.record(adopt(grant.epoch, 9));
    assert_eq!(version(&world), ChunkVersion(9 << 20));
    world.record(adopt(grant.epoch, 4));
    assert_eq!(version(&world), ChunkVersion(9 << 20), "never back");
}

#[test]
fn a_cluster_is_founded_once() {
    let mut world = World::new();
    let digest = world.state.digest();
    let applied = world.record(RecordBody::Found {
        capability_secret: b"another".to_vec(),
        copies: 3,
        level: FeatureLevel::NEWEST,
    });
    assert_eq!((applied.changes, applied.outcome), (Vec::new(), None));
    assert_eq!(world.state.digest(), digest);
    assert_eq!(world.state.capability_secret(), b"secret");
    assert_eq!(world.state.attributes(ROOT).expect("the root").copies, 2);
    assert_eq!(world.state.attributes(InodeId(99)), Err(Errno::ESTALE));
}

#[test]
fn members_come_and_go() {
    let mut world = World::new();
    let set = |world: &mut World, member, address: &str| {
        let address = address.to_owned();
        world.record(RecordBody::Member { member, address });
    };
    set(&mut world, 2, "b:1");
    set(&mut world, 1, "a:1");
    set(&mut world, 2, "b:2");
    assert_eq!(
        world.state.members().collect::<Vec<_>>(),
        [(1, "a:1"), (2, "b:2")]
    );
    set(&mut world, 1, "");
    assert_eq!(world.state.members().collect::<Vec<_>>(), [(2, "b:2")]);
}
