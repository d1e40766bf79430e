//! A close says nothing of bytes that a server lost before it: acknowledged writes that no
//! sync covers are heard of again, and written again when their copy is not what it was.

use crate::world::{World, write_request};
use antler_core::client::request::FileRequest;
use antler_core::ids::ServerId;
use antler_core::time::Duration;

/// Every server loses power and is back at once: the leader knows nothing of it yet.
fn lose_unnoticed(world: &mut World) {
    for server in [ServerId(1), ServerId(2)] {
        world.power_cycle(server);
    }
}

fn requests(world: &World) -> u64 {
    world.servers.values().map(|server| server.requests).sum()
}

#[test]
fn what_was_lost_before_a_close_is_written_again() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1);
        let (mount, other) = (world.mount_ready(), world.mount_ready());
        let file = world.create(mount, "a");
        world.write(mount, file, 0, &[1; 5000]);
        // Acknowledged and not committed, or committed too.
        world.run_for(Duration::from_millis(100 + 30 * (seed % 4)));
        lose_unnoticed(&mut world);
        world.close(mount, file);
        let again = (file.0, world.open(other, file.0));
        assert_eq!(world.read(other, again, 0, 5000)[..], [1; 5000]);
    }
}

#[test]
fn so_it_is_when_another_handle_keeps_the_lease() {
    let mut world = World::new(50, 2, 1);
    let (mount, other) = (world.mount_ready(), world.mount_ready());
    let file = world.create(mount, "a");
    let second = world.open(mount, file.0);
    world.write(mount, file, 0, &[1; 5000]);
    world.run_for(Duration::from_millis(200));
    lose_unnoticed(&mut world);
    let (inode, handle) = (file.0, second);
    world.done(mount, FileRequest::Flush { inode, handle });
    let again = (inode, world.open(other, inode));
    assert_eq!(world.read(other, again, 0, 5000)[..], [1; 5000]);
}

#[test]
fn a_close_that_writes_asks_nobody_else() {
    let mut world = World::new(51, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    world.close(mount, file);
    assert_eq!(requests(&world), 2, "one write at each copy");
    let synced = world.create(mount, "b");
    world.write(mount, synced, 0, &[1; 4096]);
    world.fsync(mount, synced);
    let before = requests(&world);
    world.close(mount, synced);
    assert_eq!(requests(&world), before, "what is durable is not asked for");
}

#[test]
fn a_close_of_what_was_written_before_asks_once() {
    let mut world = World::new(52, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    world.run_for(Duration::from_millis(100));
    assert_eq!(requests(&world), 2, "it was written");
    world.close(mount, file);
    assert_eq!(requests(&world), 4, "each copy is asked for its life");
    assert_eq!(world.servers[&ServerId(1)].syncs, 0, "and syncs nothing");
}

#[test]
fn what_was_lost_after_a_recall_is_told_by_the_close() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1);
        let (mount, other) = (world.mount_ready(), world.mount_ready());
        let file = world.create(mount, "a");
        let rival = (file.0, world.open(other, file.0));
        world.write(mount, file, 0, &[1; 5000]);
        world.run_for(Duration::from_millis(100));
        world.write(other, rival, 8192, &[2; 4096]);
        let asked = FileRequest::Flush {
            inode: file.0,
            handle: rival.1,
        };
        world.request(other, asked);
        world.run_for(Duration::from_micros(500 + 500 * seed));
        lose_unnoticed(&mut world);
        let (inode, handle) = file;
        let closed = world.ask(mount, FileRequest::Flush { inode, handle });
        let again = (inode, world.open(other, inode));
        let content = world.read(other, again, 0, 5000);
        assert!(
            closed.is_err() || content[..] == [1; 5000],
            "seed {seed}: a good close, and the bytes are gone"
        );
    }
}

#[test]
fn a_close_with_a_write_behind_a_recall_ends() {
    for early in 0..8 {
        for late in 0..8 {
            let mut world = World::new(early * 8 + late, 2, 1);
            world.busy_in = (late % 2 == 0).then_some(3);
            let (mount, other) = (world.mount_ready(), world.mount_ready());
            let file = world.create(mount, "a");
            let rival = (file.0, world.open(other, file.0));
            world.write(mount, file, 0, &[1; 5000]);
            world.run_for(Duration::from_micros(49_000 + early * 250));
            world.request(other, write_request(rival, 0, &[9; 10]));
            world.run_for(Duration::from_micros(late * 250));
            world.request(mount, write_request(file, 5000, &[2; 5000]));
            world.close(mount, file);
            let content = world.read(other, rival, 5000, 5000);
            assert_eq!(content[..], [2; 5000]);
        }
    }
}
