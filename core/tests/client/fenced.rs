//! Leases that were fenced or recalled behind the holder's back, and files that others
//! cut: what a mount wrote is neither lost nor brought back.

use crate::world::{World, write_request};
use antler_core::attributes::{AttributeChange, FallocateMode};
use antler_core::client::request::FileRequest;
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::namespace::LeaseState;
use antler_core::time::Duration;

/// Every server loses power, and the leader fences what was written there.
fn lose_everything(world: &mut World) {
    for server in [ServerId(1), ServerId(2)] {
        world.power_cycle(server);
    }
    world.master.fence_open();
    world.run_for(Duration::from_millis(50));
}

/// Whether some chunk that is not settled is in such a state.
fn has_lease(world: &World, is_it: impl Fn(&LeaseState) -> bool) -> bool {
    let state = &world.master.state;
    let mut leased = state.leased();
    leased.any(|chunk| is_it(&state.chunk(chunk).expect("it is leased").lease))
}

/// A mount that commits or gives its leases back no sooner than told to.
fn world_with(commit_delay: Duration) -> (World, usize, usize) {
    let mut world = World::new(20, 2, 1);
    let mut config = world.config();
    config.limits.commit_delay = commit_delay;
    config.limits.lease_idle = Duration::from_secs(60);
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let other = world.mount_ready();
    (world, mount, other)
}

fn cut(world: &mut World, mount: usize, inode: InodeId, size: u64) {
    let change = AttributeChange {
        size: Some(size),
        ..AttributeChange::default()
    };
    let reply = world.ask(mount, FileRequest::SetAttributes { inode, change });
    reply.expect("root may cut a file");
}

#[test]
fn a_close_with_a_commit_writes_again_what_a_fenced_lease_held() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.fsync(mount, file);
    world.write(mount, file, 0, &[2; 5000]);
    world.run_for(Duration::from_millis(200));
    lose_everything(&mut world);
    world.close(mount, file);
    let again = (file.0, world.open(other, file.0));
    assert_eq!(world.read(other, again, 0, 5000)[..], [2; 5000]);
}

#[test]
fn a_close_that_only_gives_a_fenced_lease_back_writes_again() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.fsync(mount, file);
    world.write(mount, file, 0, &[2; 5000]);
    world.run_for(Duration::from_millis(500));
    lose_everything(&mut world);
    world.close(mount, file);
    let again = (file.0, world.open(other, file.0));
    assert_eq!(world.read(other, again, 0, 5000)[..], [2; 5000]);
}

#[test]
fn what_grew_under_a_fenced_lease_is_written_again_by_an_fsync() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.run_for(Duration::from_millis(500));
    lose_everything(&mut world);
    world.fsync(mount, file);
    lose_everything(&mut world);
    let again = (file.0, world.open(other, file.0));
    assert_eq!(world.read(other, again, 0, 5000)[..], [1; 5000]);
}

#[test]
fn a_lease_fenced_between_commits_is_noticed_by_the_next() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    let second = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 5000]);
    world.fsync(mount, file);
    world.write(mount, file, 0, &[2; 5000]);
    world.run_for(Duration::from_millis(60));
    lose_everything(&mut world);
    // Another handle keeps the lease: this close commits, and gives nothing back.
    let (inode, handle) = second;
    world.done(mount, FileRequest::Flush { inode, handle });
    let again = (inode, world.open(other, inode));
    assert_eq!(world.read(other, again, 0, 5000)[..], [2; 5000]);
}

#[test]
fn what_others_cut_since_an_unseen_fence_is_not_read_again() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    let (inode, second) = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 9000]);
    let handle = second;
    world.done(mount, FileRequest::Flush { inode, handle });
    // The mount's requests go nowhere, and it is on another link to the leader.
    for server in [ServerId(1), ServerId(2)] {
        world.power_cycle_unseen(server);
    }
    world.master.fence_open();
    world.fail_over(0);
    world.run_for(Duration::from_millis(300));
    cut(&mut world, other, inode, 0);
    cut(&mut world, other, inode, 20_000);
    assert_eq!(world.read(mount, file, 0, 9000)[..], [0; 9000]);
    world.write(mount, file, 5000, &[2; 100]);
    world.fsync(mount, file);
    let again = (inode, world.open(other, inode));
    let read = world.read(other, again, 0, 9000);
    assert_eq!(
        (&read[..5000], &read[5000..5100]),
        (&[0; 5000][..], &[2; 100][..])
    );
    assert!(world.mounts[mount].client.marks().has(Mark::KeptDoubted));
}

#[test]
fn an_overwrite_does_not_lengthen_what_another_mount_cut_since() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 10_000]);
    world.fsync(mount, file);
    world.write(mount, file, 5000, &[2; 5000]);
    world.fsync(mount, file);
    cut(&mut world, other, file.0, 100);
    assert_eq!(world.attributes(mount, file.0).size, 100);
    world.write(mount, file, 0, &[3; 50]);
    world.close(mount, file);
    assert_eq!(world.attributes(other, file.0).size, 100);
}

#[test]
fn a_mount_that_writes_on_sees_the_cut_of_another() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 10_000]);
    // The next write is taken before the commit is answered: the file stays dirty.
    let (inode, handle) = file;
    let sync = world.request(mount, FileRequest::Fsync { inode, handle });
    world.run_for(Duration::from_millis(1));
    world.request(mount, write_request(file, 0, &[2; 50]));
    world.wait(mount, sync).expect("servers are there");
    cut(&mut world, other, file.0, 100);
    assert_eq!(world.attributes(mount, file.0).size, 100);
}

#[test]
fn an_fsync_with_a_write_behind_a_recall_ends() {
    for early in 0..8 {
        for late in 0..8 {
            let mut world = World::new(early * 8 + late, 2, 1);
            let (mount, other) = (world.mount_ready(), world.mount_ready());
            let file = world.create(mount, "a");
            let rival = (file.0, world.open(other, file.0));
            world.write(mount, file, 0, &[1; 5000]);
            world.run_for(Duration::from_micros(49_000 + early * 250));
            world.request(other, write_request(rival, 0, &[9; 10]));
            world.run_for(Duration::from_micros(late * 250));
            world.request(mount, write_request(file, 5000, &[2; 5000]));
            world.fsync(mount, file);
        }
    }
}

#[test]
fn what_was_closed_before_a_fence_is_not_written_again_over_what_another_closed_since() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    let (inode, handle) = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 5000]);
    world.done(mount, FileRequest::Flush { inode, handle });
    world.master.fence_open();
    world.run_for(Duration::from_millis(50));
    let again = (inode, world.open(other, inode));
    world.write(other, again, 1000, &[2; 5000]);
    world.close(other, again);
    world.write(mount, file, 10_000, &[3; 1000]);
    world.fsync(mount, file);
    let again = (inode, world.open(other, inode));
    let found = world.read(other, again, 0, 11_000);
    assert_eq!(found[..1000], [1; 1000]);
    assert_eq!(found[1000..6000], [2; 5000]);
    assert_eq!(found[10_000..], [3; 1000]);
}

#[test]
fn a_stale_commit_writes_nothing_again_over_what_another_closed_since() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    let (inode, handle) = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 5000]);
    world.done(mount, FileRequest::Flush { inode, handle });
    world.write(mount, file, 10_000, &[3; 1000]);
    world.run_for(Duration::from_millis(200));
    world.master.fence_open();
    world.run_for(Duration::from_millis(50));
    let again = (inode, world.open(other, inode));
    world.write(other, again, 1000, &[2; 5000]);
    world.close(other, again);
    // Its lease was fenced: the commit is stale, and the other mount's lease comes between.
    world.done(mount, FileRequest::Flush { inode, handle });
    let again = (inode, world.open(other, inode));
    let found = world.read(other, again, 0, 11_000);
    assert_eq!(found[..1000], [1; 1000]);
    assert_eq!(found[1000..6000], [2; 5000]);
    assert_eq!(found[10_000..], [3; 1000]);
}

#[test]
fn what_was_closed_and_lost_before_another_wrote_is_told_and_not_written_again() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    let (inode, handle) = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 5000]);
    world.done(mount, FileRequest::Flush { inode, handle });
    lose_everything(&mut world);
    let again = (inode, world.open(other, inode));
    world.write(other, again, 1000, &[2; 5000]);
    world.close(other, again);
    world.write(mount, file, 10_000, &[3; 1000]);
    let (inode, handle) = file;
    let told = world.ask(mount, FileRequest::Fsync { inode, handle }).err();
    assert_eq!(told, Some(Errno::EIO), "the first write is lost");
    let again = (inode, world.open(other, inode));
    assert_eq!(world.read(other, again, 1000, 5000)[..], [2; 5000]);
}

#[test]
fn a_fenced_lease_without_content_hides_nothing() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    world.master.fence_open();
    world.run_for(Duration::from_millis(50));
    let again = (file.0, world.open(other, file.0));
    world.write(other, again, 0, &[1; 5000]);
    world.fsync(other, again);
    assert_eq!(world.read(mount, file, 0, 5000)[..], [1; 5000]);
}

#[test]
fn a_lease_that_came_behind_its_recall_hides_nothing() {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let (inode, handle) = world.create(mount, "a");
    world.close(mount, (inode, handle));
    world.run_for(Duration::from_secs(3));
    let file = (inode, world.open(mount, inode));
    let rival = (inode, world.open(other, inode));
    // The answer to the lease waits for the other mount's kernel.
    world.kernel_hangs = true;
    world.write(mount, file, 60_000, &[1; 5000]);
    world.run_for(Duration::from_millis(20));
    world.write(other, rival, 0, &[2; 5000]);
    world.run_for(Duration::from_millis(20));
    let change = AttributeChange {
        size: Some(10_000),
        ..AttributeChange::default()
    };
    let cut = world.request(mount, FileRequest::SetAttributes { inode, change });
    world.run_for(Duration::from_millis(1));
    world.release_kernel();
    world.wait(mount, cut).expect("root may cut a file");
    world.close(other, rival);
    assert_eq!(world.read(mount, file, 0, 5000)[..], [2; 5000]);
}

#[test]
fn a_loss_that_nobody_was_told_of_is_told_to_a_handle_opened_later() {
    let mut world = World::new(21, 2, 1);
    let mount = world.mount_ready();
    world.master.is_full = true;
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.run_for(Duration::from_millis(200));
    let sync = |world: &mut World, (inode, handle)| {
        world.ask(mount, FileRequest::Fsync { inode, handle }).err()
    };
    let second = (file.0, world.open(mount, file.0));
    assert_eq!(sync(&mut world, second), Some(Errno::ENOSPC));
    assert_eq!(sync(&mut world, file), Some(Errno::ENOSPC));
    let third = (file.0, world.open(mount, file.0));
    assert_eq!(sync(&mut world, third), None, "it was told");
}

#[test]
fn a_hole_reaches_what_another_mount_wrote_and_did_not_commit() {
    let (mut world, mount, other) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 1000]);
    world.fsync(mount, file);
    world.write(mount, file, 1000, &[2; 19_000]);
    world.run_for(Duration::from_millis(200));
    let (inode, handle) = (file.0, world.open(other, file.0));
    let hole = FileRequest::Fallocate {
        inode,
        handle,
        mode: FallocateMode::Zero,
        offset: 500,
        length: 2000,
    };
    world.done(other, hole);
    let found = world.read(other, (inode, handle), 0, 20_000);
    assert_eq!(found[..500], [1; 500]);
    assert_eq!(found[500..2500], [0; 2000]);
    assert_eq!(found[2500..], [2; 17_500]);
}

#[test]
fn a_loss_behind_the_last_handle_is_told_to_the_next() {
    let mut world = World::new(22, 2, 1);
    let mount = world.mount_ready();
    world.master.is_full = true;
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    let (inode, handle) = file;
    world.done(mount, FileRequest::Release { inode, handle });
    world.run_for(Duration::from_millis(500));
    assert!(world.mounts[mount].client.is_written_out(), "it is lost");
    let handle = world.open(mount, inode);
    let told = world.ask(mount, FileRequest::Fsync { inode, handle }).err();
    assert_eq!(told, Some(Errno::ENOSPC));
}

/// A file that was closed and cut by another mount before its mount noticed that every
/// server had lost what it held; what it wrote behind the close follows.
fn written_around_a_cut(size: u64) -> Vec<u8> {
    let (mut world, mount, other) = world_with(Duration::from_millis(100));
    let file = world.create(mount, "a");
    let (inode, handle) = (file.0, world.open(mount, file.0));
    world.write(mount, file, 0, &[1; 5000]);
    world.done(mount, FileRequest::Flush { inode, handle });
    lose_everything(&mut world);
    cut(&mut world, other, inode, size);
    world.write(mount, file, 3000, &[2; 1000]);
    world.fsync(mount, file);
    let again = (inode, world.open(other, inode));
    world.read(other, again, 0, 5000).to_vec()
}

#[test]
fn what_another_mount_cut_is_not_written_again_with_what_a_fenced_lease_held() {
    for size in [0, 100] {
        let found = written_around_a_cut(size);
        let left = size as usize;
        assert_eq!(found.len(), 4000);
        assert_eq!(found[left..3000], [0; 3000][left..], "cut to {size}");
        assert_eq!(found[3000..], [2; 1000]);
    }
}

#[test]
fn a_lease_of_which_a_copy_failed_is_not_kept_once_all_is_cut_that_it_was_for() {
    let (mut world, mount, _) = world_with(Duration::from_secs(60));
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 100]);
    world.fsync(mount, file);
    world.servers.values_mut().for_each(|one| one.hangs = true);
    world.write(mount, file, 5000, &[2; 5000]);
    world.run_for(Duration::from_millis(200));
    // The cut waits for the write, which fails meanwhile, and leaves nothing of it.
    let (inode, _) = file;
    let change = AttributeChange {
        size: Some(200),
        ..AttributeChange::default()
    };
    let cut = world.request(mount, FileRequest::SetAttributes { inode, change });
    world.run_for(Duration::from_millis(1));
    world.servers.values_mut().for_each(|one| one.hangs = false);
    for server in [ServerId(1), ServerId(2)] {
        world.power_cycle(server);
    }
    world.wait(mount, cut).expect("root may cut a file");
    world.close(mount, file);
    world.run_for(Duration::from_secs(1));
    let is_open = |lease: &LeaseState| matches!(lease, LeaseState::Open { .. });
    assert!(!has_lease(&world, is_open), "nobody holds it");
}

#[test]
fn a_lease_whose_sync_fails_behind_the_cut_of_all_that_it_was_for_is_not_kept() {
    let (mut world, mount, _) = world_with(Duration::from_secs(60));
    let (inode, handle) = world.create(mount, "a");
    world.write(mount, (inode, handle), 0, &[1; 100]);
    world.fsync(mount, (inode, handle));
    world.write(mount, (inode, handle), 5000, &[2; 5000]);
    world.run_for(Duration::from_millis(200));
    cut(&mut world, mount, inode, 200);
    world.servers.values_mut().for_each(|one| one.hangs = true);
    world.run_for(Duration::from_secs(61));
    world.servers.values_mut().for_each(|one| one.hangs = false);
    for server in [ServerId(1), ServerId(2)] {
        world.power_cycle(server);
    }
    world.run_for(Duration::from_secs(10));
    let is_open = |lease: &LeaseState| matches!(lease, LeaseState::Open { .. });
    assert!(!has_lease(&world, is_open), "nobody holds it");
}

#[test]
fn what_the_last_writer_left_without_a_close_and_is_lost_is_told_to_a_later_close() {
    let (mut world, mount, _) = world_with(Duration::from_millis(100));
    let (inode, handle) = world.create(mount, "a");
    world.write(mount, (inode, handle), 0, &[1; 5000]);
    world.done(mount, FileRequest::Release { inode, handle });
    let is_back = |lease: &LeaseState| matches!(lease, LeaseState::Closing { .. });
    world.run_until(|world| has_lease(world, is_back));
    lose_everything(&mut world);
    let handle = world.open(mount, inode);
    let told = world.ask(mount, FileRequest::Flush { inode, handle }).err();
    assert_eq!(told, Some(Errno::EIO), "no close vouched for it");
}
