//! Leases: one writer, fences, and how a chunk comes to rest.

use crate::world::{ROOT, World, extent, image, load, root, servers};
use antler_core::errno::Errno;
use antler_core::ids::{BootId, ChunkId, ChunkVersion, Epoch, InodeId, ServerId};
use antler_core::limits::{CHUNK_SIZE, FILE_SIZE_MAX};
use antler_core::namespace::record::{LeaseEnd, LeaseGrant, Mutation, RecordBody, WrittenExtent};
use antler_core::namespace::{Change, Chunk, LeaseState};
use antler_core::version::FeatureLevel;

fn chunk(world: &World, id: ChunkId) -> Chunk {
    world.state.chunk(id).expect("the chunk is there")
}

/// The version of the n-th lease.
fn nth(lease: u64) -> ChunkVersion {
    ChunkVersion(lease << 20)
}

/// The epoch of the n-th lease behind so many fences.
fn fenced(lease: u64, fences: u64) -> Epoch {
    Epoch(nth(lease).0 + fences)
}

/// A file with one chunk of 100 bytes, settled at the first lease's version, and its lease
/// anew.
fn leased(world: &mut World) -> (InodeId, LeaseGrant) {
    let file = world.file(ROOT, "f");
    let first = world.lease(file, 0).expect("servers are offered");
    world
        .commit(file, &first, 100, true)
        .expect("the lease is held");
    let grant = world.lease(file, 0).expect("it is settled");
    (file, grant)
}

#[test]
fn a_grant_raises_version_and_epoch_and_keeps_the_base() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    assert_eq!(
        (grant.version, grant.epoch, grant.valid),
        (nth(2), fenced(2, 0), 100)
    );
    assert_eq!(chunk(&world, grant.chunk).lease.base(), Some(nth(1)));
    let again = world.lease(file, 0).expect("its holder may have it anew");
    assert_eq!((again.version, again.epoch), (nth(3), fenced(3, 0)));
    assert_eq!(chunk(&world, grant.chunk).lease.base(), Some(nth(1)));
    assert_eq!(world.state.leased().collect::<Vec<_>>(), [grant.chunk]);
}

#[test]
fn a_new_chunk_needs_servers_and_an_old_one_waits_for_them() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    assert_eq!(world.lease_on(file, 0, Vec::new()), Err(Errno::ENOSPC));
    let grant = world.lease(file, 0).expect("servers are offered");
    assert_eq!(world.lease_on(file, 0, Vec::new()), Err(Errno::EAGAIN));
    world
        .commit(file, &grant, 1, true)
        .expect("the lease is held");
    assert_eq!(world.lease_on(file, 0, Vec::new()), Err(Errno::EAGAIN));
    let beyond = u32::try_from(FILE_SIZE_MAX / CHUNK_SIZE).expect("an index");
    assert_eq!(world.lease(file, beyond), Err(Errno::EFBIG));
    assert_eq!(world.lease(ROOT, 0), Err(Errno::EISDIR));
    assert_eq!(world.lease(InodeId(99), 0), Err(Errno::ESTALE));
}

#[test]
fn another_session_waits() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    let other = world.begin("other", 8);
    assert_eq!(
        world.as_session(other, |world| world.lease(file, 0)),
        Err(Errno::EAGAIN)
    );
    let stolen = world.as_session(other, |world| world.release(grant.chunk, grant.epoch, true));
    assert_eq!(stolen.changes, [], "only its holder gives it back");
    world.release(grant.chunk, grant.epoch, true);
    world
        .as_session(other, |world| world.lease(file, 0))
        .expect("it is free");
}

#[test]
fn a_regrant_keeps_to_servers_that_have_the_bytes() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    let mut chosen = servers(5);
    chosen[1].1 = BootId(999);
    chosen.reverse();
    let again = world
        .lease_on(file, 0, chosen)
        .expect("some of them are left");
    assert_eq!(
        again.copies,
        [servers(3)[2], servers(3)[0]],
        "in the order chosen, same lives"
    );
    let strangers = vec![(ServerId(8), BootId(8))];
    assert_eq!(
        world.lease_on(file, 0, strangers.clone()),
        Err(Errno::EAGAIN)
    );
    world.release(grant.chunk, again.epoch, true);
    let free = world
        .lease_on(file, 0, strangers.clone())
        .expect("a settled chunk is copied first");
    assert_eq!(free.copies, strangers);
}

#[test]
fn a_synced_release_settles() {
    let mut world = World::new();
    let (_, grant) = leased(&mut world);
    let stale = world.release(grant.chunk, fenced(1, 0), true);
    assert_eq!(stale.changes, [], "an older epoch means nothing");
    let applied = world.release(grant.chunk, grant.epoch, true);
    let in_life = |&(server, boot): &(ServerId, BootId)| (server, Some(boot));
    let settled = Change::Settled {
        chunk: grant.chunk,
        version: grant.version,
        copies: grant.copies.iter().map(in_life).collect(),
    };
    assert!(applied.changes.contains(&settled));
    assert_eq!(chunk(&world, grant.chunk).lease, LeaseState::Settled);
    assert_eq!(world.state.leased().count(), 0);
}

#[test]
fn an_unsynced_release_closes_and_settles_later() {
    let mut world = World::new();
    let (_, grant) = leased(&mut world);
    world.release(grant.chunk, grant.epoch, false);
    assert!(matches!(
        chunk(&world, grant.chunk).lease,
        LeaseState::Closing { .. }
    ));
    let ignored = world.record(RecordBody::Settled {
        chunks: vec![(grant.chunk, grant.epoch), (ChunkId(77), Epoch(1))],
    });
    assert_eq!(ignored.changes, []);
    let closing = chunk(&world, grant.chunk);
    assert_eq!(closing.version, grant.version.sealed());
    let applied = world.record(RecordBody::Settled {
        chunks: vec![(grant.chunk, closing.epoch)],
    });
    assert!(
        applied
            .changes
            .iter()
            .any(|change| matches!(change, Change::Settled { .. }))
    );
    assert_eq!(chunk(&world, grant.chunk).lease, LeaseState::Settled);
}

/// Gives a lease back with so many syncs of everything under it.
fn release_synced(world: &mut World, grant: &LeaseGrant, syncs: u32) -> Chunk {
    let end = LeaseEnd {
        chunk: grant.chunk,
        epoch: grant.epoch,
        synced: true,
        syncs,
    };
    let released = Mutation::Release { leases: vec![end] };
    world.run(&root(), released).expect("it is held");
    chunk(world, grant.chunk)
}

#[test]
fn a_settled_chunk_counts_the_syncs_under_its_last_lease() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    let settled = release_synced(&mut world, &grant, 3);
    assert_eq!(settled.version, ChunkVersion(nth(2).0 + 3));
    assert_eq!(settled.epoch, fenced(2, 0).along(nth(2), settled.version));
    let next = world.lease(file, 0).expect("it is settled");
    assert_eq!((next.version, next.epoch), (nth(3), fenced(3, 0)));
    assert_eq!(
        chunk(&world, grant.chunk).lease.base(),
        Some(settled.version)
    );
    let most = release_synced(&mut world, &next, u32::MAX);
    assert!(most.version < next.version.sealed(), "{}", most.version);
    world.state.check_invariants(true);
}

#[test]
fn syncs_are_not_counted_before_the_cluster_knows_of_it() {
    let mut world = World::at(FeatureLevel::CODES);
    let (file, grant) = leased(&mut world);
    assert_eq!((grant.version, grant.epoch), (ChunkVersion(2), Epoch(2)));
    let settled = release_synced(&mut world, &grant, 3);
    assert_eq!(
        (settled.version, settled.epoch),
        (grant.version, grant.epoch)
    );
    let again = world.lease(file, 0).expect("it is settled");
    world.release(grant.chunk, again.epoch, false);
    let closing = chunk(&world, grant.chunk);
    assert_eq!(
        (closing.version, closing.epoch),
        (again.version, again.epoch)
    );
    let level = FeatureLevel::NEWEST;
    world
        .run(&root(), Mutation::RaiseLevel { level })
        .expect("root may");
    let next = world.lease(file, 0).expect("closing is no hindrance");
    assert_eq!((next.version, next.epoch), (nth(1), fenced(1, 0)));
    assert_eq!(next.version.raised_since(again.version), None);
}

#[test]
fn a_closing_chunk_may_be_leased_on_its_write_set() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    world.release(grant.chunk, grant.epoch, false);
    let other = world.begin("other", 8);
    let next = world.as_session(other, |world| world.lease_on(file, 0, servers(2)));
    let next = next.expect("closing is no hindrance");
    assert_eq!((next.version, next.copies), (nth(3), servers(2)));
    assert_eq!(chunk(&world, grant.chunk).lease.base(), Some(nth(1)));
    let late = world.record(RecordBody::Settled {
        chunks: vec![(grant.chunk, grant.epoch)],
    });
    assert_eq!(late.changes, [], "it is open again");
}

#[test]
fn a_chunk_without_content_goes_with_its_lease() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    for synced in [true, false] {
        let grant = world.lease(file, 0).expect("servers are offered");
        let applied = world.release(grant.chunk, grant.epoch, synced);
        assert!(applied.changes.contains(&Change::ChunkGone(grant.chunk)));
        assert_eq!(world.state.chunk_at(file, 0), Ok(None));
    }
    let grant = world.lease(file, 3).expect("servers are offered");
    let session = world.session;
    let applied = world.record(RecordBody::EndSession { session });
    assert!(applied.changes.contains(&Change::ChunkGone(grant.chunk)));
}

#[test]
fn a_lease_whose_session_ended_is_fenced_and_reconciled() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    let session = world.session;
    world.record(RecordBody::EndSession { session });
    world.session = world.begin("other", 8);
    assert!(matches!(
        chunk(&world, grant.chunk).lease,
        LeaseState::Broken { .. }
    ));
    assert_eq!(world.lease(file, 0), Err(Errno::EAGAIN));

    let early = RecordBody::Reconciled {
        chunk: grant.chunk,
        epoch: grant.epoch,
        servers: vec![ServerId(1)],
        lossy: true,
        boots: vec![],
    };
    assert_eq!(world.record(early).changes, [], "fenced first");
    let fence = |epoch| RecordBody::Fence {
        chunks: vec![(grant.chunk, epoch)],
    };
    assert_eq!(world.record(fence(fenced(1, 0))).changes, []);
    world.record(fence(grant.epoch));
    let now = chunk(&world, grant.chunk);
    assert_eq!((now.version, now.epoch), (nth(3), fenced(3, 1)));
    assert_eq!(now.lease.base(), Some(nth(1)));
    assert_eq!(world.lease(file, 0), Err(Errno::EAGAIN));
    world.record(fence(now.epoch));
    assert_eq!(
        chunk(&world, grant.chunk).epoch,
        fenced(4, 2),
        "a new leader fences anew"
    );

    let reconciled = |epoch| RecordBody::Reconciled {
        chunk: grant.chunk,
        epoch,
        servers: vec![ServerId(2)],
        lossy: false,
        boots: vec![],
    };
    assert_eq!(world.record(reconciled(fenced(3, 0))).changes, []);
    let settled = Change::Settled {
        chunk: grant.chunk,
        version: nth(4),
        copies: vec![(ServerId(2), None)],
    };
    assert!(
        world
            .record(reconciled(fenced(4, 2)))
            .changes
            .contains(&settled)
    );
    world.lease(file, 0).expect("it is at rest");
}

/// A session writes at the next version and loses that in a reconciliation, or not.
fn reconcile(world: &mut World, file: InodeId, lossy: bool) -> LeaseGrant {
    let grant = world.lease(file, 0).expect("it is settled");
    let chunk = grant.chunk;
    world.record(RecordBody::Fence {
        chunks: vec![(chunk, grant.epoch)],
    });
    world.record(RecordBody::Reconciled {
        chunk,
        epoch: world.state.chunk(chunk).expect("it is there").epoch,
        servers: vec![ServerId(1)],
        lossy,
        boots: vec![],
    });
    grant
}

#[test]
fn a_grant_tells_what_was_lost_before() {
    let mut world = World::new();
    let (file, first) = leased(&mut world);
    world.release(first.chunk, first.epoch, true);
    let kept = reconcile(&mut world, file, false);
    assert!(world.state.is_settled(kept.chunk, kept.version));
    let lost = reconcile(&mut world, file, true);
    assert!(!world.state.is_settled(lost.chunk, lost.version));
    assert!(world.state.is_settled(kept.chunk, kept.version));
    let copy = load(&image(&world.state)).expect("it was written whole");
    assert_eq!(copy.digest(), world.state.digest());

    let grant = world.lease(file, 0).expect("it is settled");
    let loss = grant.lost.expect("something was lost");
    assert!(loss.covers(lost.version));
    assert!(!loss.covers(kept.version) && !loss.covers(first.version));
    assert!(!loss.covers(grant.version));
    assert!(!world.state.is_settled(grant.chunk, grant.version));
    world.release(grant.chunk, grant.epoch, true);
    assert!(world.state.is_settled(grant.chunk, grant.version));

    reconcile(&mut world, file, true);
    let both = world.lease(file, 0).expect("it is settled").lost;
    let both = both.expect("more was lost");
    assert!(both.covers(lost.version) && both.up_to > loss.up_to);
    world.unlink(&root(), ROOT, "f").expect("it is there");
    world.state.check_invariants(true);
}

/// Tells of a sync under a lease, and of nothing else.
fn tell_of_sync(world: &mut World, file: InodeId, grant: &LeaseGrant) {
    let extents = vec![WrittenExtent {
        synced: true,
        ..extent(grant, 100)
    }];
    let commit = Mutation::CommitWrite {
        inode: file,
        size: 0,
        extents,
        release: Vec::new(),
        unchanged: true,
    };
    world.run(&root(), commit).expect("the lease is held");
}

#[test]
fn a_lease_knows_up_to_where_an_fsync_may_have_vouched() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    let synced = |world: &World| chunk(world, grant.chunk).lease.synced();
    assert_eq!(synced(&world), Some(nth(1)));
    let before = world.state.attributes(file).expect("it is there");
    tell_of_sync(&mut world, file, &grant);
    assert_eq!(synced(&world), Some(grant.version));
    let after = world.state.attributes(file).expect("it is there");
    assert_eq!(after, before, "nothing was written");
    let again = world.lease(file, 0).expect("its holder may have it anew");
    assert_eq!(synced(&world), Some(grant.version), "no sync since");
    let copy = load(&image(&world.state)).expect("it was written whole");
    assert_eq!(copy.digest(), world.state.digest());
    world.record(RecordBody::Fence {
        chunks: vec![(grant.chunk, again.epoch)],
    });
    assert_eq!(synced(&world), Some(grant.version));
    world.record(RecordBody::Recover { incarnation: 5 });
    assert_eq!(synced(&world), None, "the log may have lost its end");
}

#[test]
fn below_its_level_no_lease_knows_of_syncs() {
    let mut world = World::at(FeatureLevel::FIRST);
    let (file, grant) = leased(&mut world);
    tell_of_sync(&mut world, file, &grant);
    assert_eq!(chunk(&world, grant.chunk).lease.synced(), None);
}

#[test]
fn a_fence_takes_an_open_lease_away() {
    let mut world = World::new();
    let (file, grant) = leased(&mut world);
    world.record(RecordBody::Fence {
        chunks: vec![(grant.chunk, grant.epoch)],
    });
    let commit = Mutation::CommitWrite {
        inode: file,
        size: 5000,
        extents: vec![extent(&grant, 5000)],
        release: Vec::new(),
        unchanged: false,
    };
    assert_eq!(world.run(&root(), commit), Err(Errno::ESTALE));
    assert_eq!(world.release(grant.chunk, grant.epoch, true).changes, []);
}

#[test]
fn removing_a_file_ends_its_leases() {
    let mut world = World::new();
    let (_, grant) = leased(&mut world);
    world.unlink(&root(), ROOT, "f").expect("it is there");
    assert_eq!(world.state.chunk(grant.chunk), None);
    assert_eq!(world.state.leased().count(), 0);
    assert_eq!(world.release(grant.chunk, grant.epoch, true).changes, []);
}
