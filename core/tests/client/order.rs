//! What must come before what: times after commits, syncs before renames, seeks
//! after writes.

use crate::world::World;
use antler_core::attributes::{AttributeChange, FallocateMode, RenameMode, TimeChange};
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::limits::CHUNK_SIZE;
use antler_core::time::{Duration, Timestamp};

#[test]
fn times_that_were_set_stay_whatever_was_written_before() {
    let mut world = World::new(1, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, b"content");
    let mtime = Timestamp {
        seconds: 1_000_000,
        nanos: 5,
    };
    let change = AttributeChange {
        mtime: TimeChange::Set(mtime),
        ..AttributeChange::default()
    };
    let inode = file.0;
    let reply = world.ask(mount, FileRequest::SetAttributes { inode, change });
    assert!(reply.is_ok());
    world.close(mount, file);
    world.run_for(Duration::from_secs(3));
    let seen = world.attributes(mount, inode);
    assert_eq!((seen.mtime, seen.size), (mtime, 7));
}

#[test]
fn a_stat_tells_the_times_that_stay() {
    let mut world = World::new(2, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    let made = world.attributes(mount, file.0);
    world.write(mount, file, 0, b"content");
    let written = world.attributes(mount, file.0);
    assert!(written.mtime > made.mtime);
    world.close(mount, file);
    world.run_for(Duration::from_secs(3));
    let closed = world.attributes(mount, file.0);
    assert_eq!((closed.mtime, closed.ctime), (written.mtime, written.ctime));
}

#[test]
fn a_rename_over_a_name_makes_the_content_durable_first() {
    let mut world = World::new(3, 2, 1);
    let mount = world.mount_ready();
    let old = world.create(mount, "a");
    world.write(mount, old, 0, b"old");
    world.fsync(mount, old);
    world.close(mount, old);
    for closes in [false, true] {
        let new = world.create(mount, "b");
        world.write(mount, new, 0, b"new content");
        if closes {
            world.close(mount, new);
        }
        world.done(
            mount,
            FileRequest::Rename {
                parent: InodeId::ROOT,
                name: b"b".to_vec(),
                new_parent: InodeId::ROOT,
                new_name: b"a".to_vec(),
                mode: RenameMode::Replace,
            },
        );
        world.power_cycle(ServerId(1));
        world.power_cycle(ServerId(2));
        let inode = world.lookup(mount, "a").expect("it is there").inode;
        assert_eq!(inode, new.0);
        let again = (inode, world.open(mount, inode));
        assert_eq!(&world.read(mount, again, 0, 20)[..], b"new content");
    }
}

#[test]
fn truncated_bytes_never_reappear() {
    let mut world = World::new(4, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[7; 20_000]);
    world.fsync(mount, file);
    for size in [5000, 15_000] {
        let change = AttributeChange {
            size: Some(size),
            by_handle: true,
            ..AttributeChange::default()
        };
        let inode = file.0;
        let reply = world.ask(mount, FileRequest::SetAttributes { inode, change });
        assert!(reply.is_ok());
    }
    world.write(mount, file, 12_000, &[8; 10]);
    world.fsync(mount, file);
    for mount in [mount, world.mount_ready()] {
        let again = (file.0, world.open(mount, file.0));
        let data = world.read(mount, again, 0, 30_000);
        assert_eq!(data.len(), 15_000);
        assert_eq!(data[..5000], [7; 5000]);
        assert_eq!(data[5000..12_000], [0; 7000]);
        assert_eq!(data[12_000..12_010], [8; 10]);
        assert_eq!(data[12_010..], [0; 2990]);
    }
}

#[test]
fn seeks_find_data_and_holes() {
    let mut world = World::new(5, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 8192, &[1; 4096]);
    world.write(mount, file, 2 * CHUNK_SIZE + 4096, &[2; 100]);
    let far = 2 * CHUNK_SIZE + 4096;
    let mut seek = |offset, data| {
        let inode = file.0;
        match world.ask(
            mount,
            FileRequest::Seek {
                inode,
                offset,
                data,
            },
        ) {
            Ok(FileReply::Offset(found)) => Ok(found),
            Ok(other) => panic!("{other:?}"),
            Err(errno) => Err(errno),
        }
    };
    assert_eq!(seek(0, true), Ok(8192));
    assert_eq!(seek(0, false), Ok(0));
    assert_eq!(seek(9000, true), Ok(9000));
    assert_eq!(seek(9000, false), Ok(12_288));
    assert_eq!(seek(12_288, true), Ok(far));
    assert_eq!(seek(far, false), Ok(far + 100));
    assert_eq!(seek(far + 100, true), Err(Errno::ENXIO));
}

#[test]
fn punching_leaves_zeros_and_the_length() {
    let mut world = World::new(6, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[7; 50_000]);
    let (inode, handle) = file;
    world.done(
        mount,
        FileRequest::Fallocate {
            inode,
            handle,
            mode: FallocateMode::Punch,
            offset: 10_000,
            length: 20_000,
        },
    );
    world.fsync(mount, file);
    world.close(mount, file);
    let other = world.mount_ready();
    let again = (inode, world.open(other, inode));
    let data = world.read(other, again, 0, 60_000);
    assert_eq!(data.len(), 50_000);
    assert_eq!(data[..10_000], [7; 10_000]);
    assert_eq!(data[10_000..30_000], [0; 20_000]);
    assert_eq!(data[30_000..], [7; 20_000]);
}

#[test]
fn an_fsync_does_not_wait_for_what_is_written_meanwhile() {
    let mut world = World::new(7, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    let (inode, handle) = file;
    let synced = world.request(mount, FileRequest::Fsync { inode, handle });
    let mut place = 4096;
    while !world.mounts[mount].answers.contains_key(&synced) {
        assert!(place < 8 << 20, "the fsync starves");
        world.write(mount, file, place, &[2; 4096]);
        place += 4096;
        world.step();
    }
}

#[test]
fn a_file_that_another_mount_cut_grows_only_as_far_as_it_is_written() {
    let mut world = World::new(8, 2, 1);
    let mount = world.mount_ready();
    let other = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 9000]);
    world.fsync(mount, file);
    let change = AttributeChange {
        size: Some(0),
        ..AttributeChange::default()
    };
    let inode = file.0;
    let reply = world.ask(other, FileRequest::SetAttributes { inode, change });
    assert!(reply.is_ok());
    assert_eq!(world.attributes(mount, inode).size, 0);
    world.write(mount, file, 10, &[2; 10]);
    world.fsync(mount, file);
    assert_eq!(world.attributes(other, inode).size, 20);
    let data = world.read(mount, file, 0, 100);
    assert_eq!(data[..], [[0; 10], [2; 10]].concat()[..]);
}
