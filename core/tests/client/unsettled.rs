//! Files closed unsynced: a later fsync tells whether what was written is durable, wherever
//! its copies are by then, and however many files were closed since.

use crate::world::World;
use antler_core::client::request::{FileRequest, Handle};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::time::Duration;

/// Writes a file and closes it unsynced.
fn written(world: &mut World, mount: usize, name: &str) -> InodeId {
    let file = world.create(mount, name);
    world.write(mount, file, 0, &[1; 5000]);
    world.close(mount, file);
    file.0
}

fn opened(world: &mut World, mount: usize, inode: InodeId) -> (InodeId, Handle) {
    (inode, world.open(mount, inode))
}

fn synced(world: &mut World, mount: usize, inode: InodeId) -> Option<Errno> {
    let (inode, handle) = opened(world, mount, inode);
    let reply = world.ask(mount, FileRequest::Fsync { inode, handle });
    reply.err()
}

fn lose_power(world: &mut World, servers: &[u64]) {
    for &server in servers {
        world.power_cycle(ServerId(server));
    }
}

fn rest(world: &mut World) {
    world.run_for(Duration::from_millis(200));
}

/// A mount that remembers hardly anything that it closed unsynced, in a world so fast
/// that the leader does not settle anything meanwhile.
fn forgetful(seed: u64) -> (World, usize) {
    let mut world = World::new(seed, 2, 1);
    world.delay = (1, 2);
    let mut config = world.config();
    config.limits.unsettled_max = 1;
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    (world, mount)
}

#[test]
fn what_a_copy_kept_is_known_when_no_server_lives_on() {
    let mut world = World::new(30, 2, 1);
    let mount = world.mount_ready();
    let inode = written(&mut world, mount, "a");
    lose_power(&mut world, &[1]);
    rest(&mut world);
    assert_eq!(world.master.state.leased().count(), 0, "it was reconciled");
    lose_power(&mut world, &[1, 2]);
    assert_eq!(synced(&mut world, mount, inode), None);
    let file = opened(&mut world, mount, inode);
    assert_eq!(world.read(mount, file, 0, 5000)[..], [1; 5000]);
}

#[test]
fn what_no_copy_kept_is_told_once_it_was_made_whole() {
    let mut world = World::new(31, 2, 1);
    let mount = world.mount_ready();
    let inode = written(&mut world, mount, "a");
    lose_power(&mut world, &[1, 2]);
    rest(&mut world);
    assert_eq!(synced(&mut world, mount, inode), Some(Errno::EIO));
    assert_eq!(synced(&mut world, mount, inode), None, "it was told");
}

#[test]
fn what_was_durable_is_not_lost_with_what_another_mount_wrote_later() {
    let mut world = World::new(32, 2, 1);
    let (mount, other) = (world.mount_ready(), world.mount_ready());
    let inode = written(&mut world, mount, "a");
    rest(&mut world);
    let file = opened(&mut world, other, inode);
    world.write(other, file, 5000, &[2; 5000]);
    world.close(other, file);
    lose_power(&mut world, &[1, 2]);
    rest(&mut world);
    assert_eq!(synced(&mut world, mount, inode), None);
    assert_eq!(synced(&mut world, other, inode), Some(Errno::EIO));
}

#[test]
fn an_fsync_covers_the_oldest_of_many_that_were_closed() {
    for seed in 33..43 {
        let (mut world, mount) = forgetful(seed);
        let oldest = written(&mut world, mount, "a");
        for name in ["b", "c", "d"] {
            written(&mut world, mount, name);
        }
        let unsettled = world.master.state.leased().count();
        assert_eq!(unsettled, 4, "the leader did not settle them first");
        assert_eq!(synced(&mut world, mount, oldest), None);
        lose_power(&mut world, &[1, 2]);
        rest(&mut world);
        let file = opened(&mut world, mount, oldest);
        assert_eq!(world.read(mount, file, 0, 5000)[..], [1; 5000]);
    }
}

#[test]
fn a_loss_of_the_oldest_of_many_that_were_closed_is_told() {
    let (mut world, mount) = forgetful(43);
    let oldest = written(&mut world, mount, "a");
    lose_power(&mut world, &[1, 2]);
    for name in ["b", "c", "d"] {
        written(&mut world, mount, name);
    }
    rest(&mut world);
    assert_eq!(synced(&mut world, mount, oldest), Some(Errno::EIO));
}

#[test]
fn what_the_leader_has_settled_is_forgotten_without_a_lease() {
    let (mut world, mount) = forgetful(44);
    let leases = |world: &World| {
        let all = world.master.mutations.iter();
        all.filter(|kind| **kind == "lease").count()
    };
    for name in ["a", "b", "c", "d"] {
        written(&mut world, mount, name);
        rest(&mut world);
    }
    let before = leases(&world);
    assert!(
        before <= 1,
        "only what is not settled yet is synced: {before}"
    );
}
