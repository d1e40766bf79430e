//! Files: create, write, read, close, and how few round trips they take.

use crate::world::World;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::ids::InodeId;

#[test]
fn what_is_written_is_read_again_here_and_elsewhere() {
    let mut world = World::new(1, 3, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let file = world.create(here, "a");
    world.write(here, file, 0, b"hello");
    world.write(here, file, 100_000, b"far");
    assert_eq!(world.attributes(here, file.0).size, 100_003);
    assert_eq!(&world.read(here, file, 99_998, 100)[..], b"\0\0far");
    world.close(here, file);
    let found = world.lookup(there, "a").expect("it was made");
    assert_eq!(found.size, 100_003);
    let handle = world.open(there, found.inode);
    assert_eq!(
        &world.read(there, (found.inode, handle), 0, 7)[..],
        b"hello\0\0"
    );
    assert_eq!(
        &world.read(there, (found.inode, handle), 100_000, 10)[..],
        b"far"
    );
}

#[test]
fn a_small_file_takes_three_round_trips() {
    let mut world = World::new(2, 2, 1);
    world.delay = (500, 500);
    let mount = world.mount_ready();
    let warm = world.create(mount, "warm");
    world.write(mount, warm, 0, b"x");
    world.close(mount, warm);
    let before = world.now;
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[7; 4096]);
    world.close(mount, file);
    let trips = (world.now - before) as f64 / 1e6;
    assert!(trips <= 3.0, "{trips} round trips of 1 ms");
}

#[test]
fn a_file_open_and_unlinked_is_still_read_and_gone_after() {
    let mut world = World::new(3, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, b"kept");
    world.done(
        mount,
        FileRequest::Unlink {
            parent: InodeId::ROOT,
            name: b"a".to_vec(),
        },
    );
    assert!(world.lookup(mount, "a").is_none());
    assert_eq!(&world.read(mount, file, 0, 10)[..], b"kept");
    world.close(mount, file);
    world.run_for(std::time::Duration::from_secs(1));
    assert!(world.master.state.attributes(file.0).is_err());
}

#[test]
fn an_unmount_leaves_everything_durable_and_settled() {
    let mut world = World::new(4, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[5; 10_000]);
    let reply = world.ask(mount, FileRequest::Shutdown);
    assert!(matches!(reply, Ok(FileReply::Done)), "{reply:?}");
    for server in world.servers.values() {
        for part in server.parts.values() {
            assert_eq!(part.durable.as_ref(), Some(&part.live));
        }
    }
    world.run_for(std::time::Duration::from_millis(100));
    assert_eq!(world.master.state.leased().count(), 0);
}

#[test]
fn a_file_is_truncated_and_written_again_and_again() {
    let mut world = World::new(5, 4, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, b"first");
    world.close(mount, file);
    for number in 0..20_u8 {
        // The chunk that was written before goes, and another one takes its place, on
        // other servers.
        for server in world.servers.values_mut() {
            server.hangs = (server.id.0 <= 2) == (number % 2 == 0);
        }
        let body = FileRequest::Open {
            inode: file.0,
            read: false,
            write: true,
            truncate: true,
        };
        let Ok(FileReply::Opened { handle, .. }) = world.ask(mount, body) else {
            panic!("it opens");
        };
        world.write(mount, (file.0, handle), 0, &[number; 100]);
        world.close(mount, (file.0, handle));
        let handle = world.open(mount, file.0);
        let read = world.read(mount, (file.0, handle), 0, 200);
        assert_eq!(&read[..], [number; 100]);
        world.close(mount, (file.0, handle));
    }
}
