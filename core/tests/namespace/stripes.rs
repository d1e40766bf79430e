//! Chunks in parts: when a record makes them so, what it takes to lease them, and how
//! they come back to copies.

use crate::world::{ROOT, World, image, load, root, servers};
use antler_core::chunk::geometry::StripeShape;
use antler_core::chunk::stripe::Stripe;
use antler_core::errno::Errno;
use antler_core::ids::{ChunkId, Epoch, InodeId, ServerId};
use antler_core::namespace::record::{ClassChange, Mutation, RecordBody, Reply};
use antler_core::namespace::{Change, Chunk};
use antler_core::placement::{Policy, StorageClass};

const STAMP: Epoch = Epoch(77);

fn stripe() -> Stripe {
    let shape = StripeShape::new(2, 1).expect("a good one");
    Stripe::new(shape, 5000, STAMP)
}

fn class(keep: &str) -> StorageClass {
    StorageClass {
        create: Some(Policy::copies(2)),
        keep: keep.parse().expect("it is well written"),
        archive: None,
    }
}

fn order(world: &mut World, change: ClassChange) {
    let told = world.run(&root(), Mutation::ChangeClass(change));
    assert_eq!(told, Ok(Reply::Done));
}

/// A settled file of 5000 bytes whose class wants it in parts; servers 1 and 2 in the
/// west, 3 and 4 in the east.
fn cold(keep: &str) -> (World, InodeId, ChunkId) {
    let mut world = World::new();
    for (server, dc) in [(1, "west"), (2, "west"), (3, "east"), (4, "east")] {
        let labels = vec![("dc".to_owned(), dc.to_owned())];
        let server = ServerId(server);
        world.record(RecordBody::ServerLabels { server, labels });
    }
    let (name, class) = ("cold".to_owned(), class(keep));
    order(&mut world, ClassChange::Create { name, class });
    let file = world.file(ROOT, "f");
    let grant = world.lease(file, 0).expect("servers are offered");
    let done = world.commit(file, &grant, 5000, true);
    done.expect("the lease is held");
    let class = "cold".to_owned();
    let set = Mutation::SetClass { inode: file, class };
    assert!(world.run(&root(), set).is_ok());
    (world, file, grant.chunk)
}

fn chunk(world: &World, id: ChunkId) -> Chunk {
    world.state.chunk(id).expect("the chunk is there")
}

/// A conversion of the chunk as it is.
fn converted(world: &World, id: ChunkId, servers: &[u64]) -> RecordBody {
    let now = chunk(world, id);
    RecordBody::Converted {
        chunk: id,
        epoch: now.epoch,
        version: now.version,
        stripe: stripe(),
        servers: servers.iter().copied().map(ServerId).collect(),
    }
}

fn restored(world: &World, id: ChunkId, servers: &[u64]) -> RecordBody {
    let now = chunk(world, id);
    RecordBody::Restored {
        chunk: id,
        epoch: now.epoch,
        version: now.version,
        stamp: STAMP,
        servers: servers.iter().copied().map(ServerId).collect(),
    }
}

#[test]
fn a_chunk_at_rest_comes_to_lie_in_parts_and_an_image_tells() {
    let (mut world, file, id) = cold("ec(2+1)");
    let record = converted(&world, id, &[1, 2, 3]);
    let applied = world.record(record.clone());
    assert_eq!(applied.changes, [Change::Stripe(id), Change::Inode(file)]);
    assert_eq!(world.state.stripe(id), Some(stripe()));
    assert_eq!(world.record(record).changes, [], "once");
    let loaded = load(&image(&world.state)).expect("undamaged");
    assert_eq!(loaded.stripe(id), Some(stripe()));
    assert_eq!(loaded.digest(), world.state.digest());
}

#[test]
fn a_record_about_what_the_chunk_was_means_nothing() {
    let (mut world, file, id) = cold("ec(2+1)");
    let stale = converted(&world, id, &[1, 2, 3]);
    let grant = world.lease(file, 0).expect("it is settled");
    assert_eq!(world.record(stale).changes, []);
    assert_eq!(
        world.record(converted(&world, id, &[1, 2, 3])).changes,
        [],
        "leased"
    );
    world.release(grant.chunk, grant.epoch, true);
    for servers in [&[1, 2][..], &[1, 2, 2], &[1, 2, 3, 4]] {
        let record = converted(&world, id, servers);
        assert_eq!(world.record(record).changes, [], "{servers:?}");
    }
    let mut other = converted(&world, id, &[1, 2, 3]);
    if let RecordBody::Converted { stripe, .. } = &mut other {
        stripe.shape = StripeShape::new(3, 1).expect("a good one");
    }
    assert_eq!(
        world.record(other).changes,
        [],
        "its class wants another code"
    );
    assert_eq!(world.state.stripe(id), None);
}

#[test]
fn parts_against_the_law_are_refused_when_the_record_is_applied() {
    let (mut world, _, id) = cold("ec(2+1), 2 in dc=west, 1 in dc=east");
    let record = converted(&world, id, &[1, 3, 4]);
    assert_eq!(world.record(record).changes, []);
    let record = converted(&world, id, &[1, 2, 4]);
    assert_ne!(world.record(record).changes, []);
}

#[test]
fn nobody_gets_a_lease_of_parts_and_the_first_one_behind_them_is_told_to_readers() {
    let (mut world, file, id) = cold("ec(2+1)");
    world.record(converted(&world, id, &[1, 2, 3]));
    assert_eq!(world.lease(file, 0), Err(Errno::EAGAIN));
    let before = chunk(&world, id);
    let wrong = RecordBody::Restored {
        chunk: id,
        epoch: before.epoch,
        version: before.version,
        stamp: Epoch(78),
        servers: vec![ServerId(1)],
    };
    assert_eq!(world.record(wrong).changes, [], "of other parts");
    assert_eq!(
        world.record(restored(&world, id, &[])).changes,
        [],
        "nobody has it"
    );
    let applied = world.record(restored(&world, id, &[1, 2]));
    let version = before.version.of_next_lease();
    let copies = vec![(ServerId(1), None), (ServerId(2), None)];
    let settled = Change::Settled {
        chunk: id,
        version,
        copies,
    };
    assert_eq!(
        applied.changes,
        [Change::Stripe(id), Change::Inode(file), settled]
    );
    let after = chunk(&world, id);
    assert_eq!((after.version, after.stripe), (version, None));
    let fences = |one: &Chunk| one.epoch.fences(one.version);
    assert_eq!(fences(&after), fences(&before), "writers were not fenced");
    let loaded = load(&image(&world.state)).expect("undamaged");
    assert_eq!(loaded.digest(), world.state.digest());
    let lease = Mutation::Lease {
        inode: file,
        index: 0,
        failed: Vec::new(),
    };
    world.choice.copies = servers(2);
    let told = world.apply(&root(), lease.clone()).changes;
    assert!(told.contains(&Change::Inode(file)), "{told:?}");
    let told = world.apply(&root(), lease).changes;
    assert!(!told.contains(&Change::Inode(file)), "once: {told:?}");
}

#[test]
fn a_cut_leaves_the_parts_and_a_cut_to_nothing_takes_the_chunk() {
    let (mut world, file, id) = cold("ec(2+1)");
    world.record(converted(&world, id, &[1, 2, 3]));
    assert!(world.truncate(&root(), file, 10).is_ok());
    assert_eq!(
        world.state.stripe(id),
        Some(stripe()),
        "laid out as they were"
    );
    assert!(world.truncate(&root(), file, 0).is_ok());
    assert_eq!(
        (world.state.chunk(id), world.state.stripe(id)),
        (None, None)
    );
    assert_eq!(world.state.striped(), 0);
}

#[test]
fn a_class_that_would_write_parts_is_refused() {
    let mut world = World::new();
    let keep: Policy = "ec(2+1)".parse().expect("it is well written");
    for create in [None, Some(keep.clone())] {
        let (name, keep) = ("cold".to_owned(), keep.clone());
        let class = StorageClass {
            create,
            keep,
            archive: None,
        };
        let change = ClassChange::Create { name, class };
        let told = world.run(&root(), Mutation::ChangeClass(change));
        assert_eq!(told, Err(Errno::EINVAL));
    }
}
