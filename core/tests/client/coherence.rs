//! Caches: what may be answered without the leader, for how long, and what a push
//! waits for.

use crate::world::{Target, World, read_request};
use antler_core::attributes::{AttributeChange, FileKind, RenameMode, XattrMode};
use antler_core::client::request::{ClientAnswer, FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::time::Duration;

fn look(name: &str) -> FileRequest {
    FileRequest::Lookup {
        parent: InodeId::ROOT,
        name: name.as_bytes().to_vec(),
    }
}

fn look_in(parent: InodeId, name: &str) -> FileRequest {
    FileRequest::Lookup {
        parent,
        name: name.as_bytes().to_vec(),
    }
}

fn make_in(parent: InodeId, name: &str, kind: FileKind) -> FileRequest {
    FileRequest::Make {
        parent,
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        device: 0,
        target: Vec::new(),
    }
}

fn is_absent(answer: &Result<FileReply, Errno>) -> bool {
    matches!(answer, Ok(FileReply::Absent(_)))
}

/// A new directory of one mount.
fn directory(world: &mut World, mount: usize) -> InodeId {
    match world.ask(mount, make_in(InodeId::ROOT, "d", FileKind::Directory)) {
        Ok(FileReply::Entry(attributes, _)) => attributes.inode,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn chmod(inode: InodeId, mode: u32) -> FileRequest {
    let change = AttributeChange {
        mode: Some(mode),
        ..AttributeChange::default()
    };
    FileRequest::SetAttributes { inode, change }
}

#[test]
fn a_known_name_is_answered_at_once_while_the_lease_lasts() {
    let mut world = World::new(1, 2, 1);
    let mount = world.mount_ready();
    world.create(mount, "a");
    assert!(world.lookup(mount, "b").is_none());
    world.attributes(mount, InodeId::ROOT);
    assert!(world.lookup(mount, "a").is_some());
    let now = world.now;
    assert!(world.lookup(mount, "a").is_some());
    assert!(world.lookup(mount, "b").is_none());
    assert_eq!(world.now, now, "nobody was asked");
}

#[test]
fn in_a_directory_that_was_made_here_nobody_is_asked_for_absent_names() {
    let mut world = World::new(11, 2, 1);
    let mount = world.mount_ready();
    let parent = directory(&mut world, mount);
    let now = world.now;
    assert!(is_absent(&world.ask(mount, look_in(parent, "a"))));
    assert_eq!(world.now, now, "nobody was asked");
    world.done_or_made(mount, make_in(parent, "a", FileKind::Fifo));
    world.done_or_made(mount, make_in(parent, "b", FileKind::Fifo));
    let rename = FileRequest::Rename {
        parent,
        name: b"b".to_vec(),
        new_parent: parent,
        new_name: b"c".to_vec(),
        mode: RenameMode::Replace,
    };
    world.done(mount, rename);
    let unlink = FileRequest::Unlink {
        parent,
        name: b"a".to_vec(),
    };
    world.done(mount, unlink);
    let now = world.now;
    for name in ["a", "b", "d"] {
        assert!(
            is_absent(&world.ask(mount, look_in(parent, name))),
            "{name}"
        );
    }
    world.attributes(mount, parent);
    assert_eq!(world.now, now, "nobody was asked");
    assert!(!is_absent(&world.ask(mount, look_in(parent, "c"))));
    let too_long = world.ask(mount, look_in(parent, &"n".repeat(256)));
    assert_eq!(too_long.err(), Some(Errno::ENAMETOOLONG));
}

fn set_xattr(inode: InodeId, name: &[u8]) -> FileRequest {
    FileRequest::SetXattr {
        inode,
        name: name.to_vec(),
        value: b"value".to_vec(),
        mode: XattrMode::Any,
    }
}

fn get_xattr(inode: InodeId, name: &[u8]) -> FileRequest {
    let name = name.to_vec();
    FileRequest::GetXattr { inode, name }
}

#[test]
fn nobody_is_asked_for_attributes_that_a_new_file_lacks() {
    let mut world = World::new(13, 2, 1);
    let mount = world.mount_ready();
    let (inode, _) = world.create(mount, "a");
    let now = world.now;
    let capability = world.ask(mount, get_xattr(inode, b"security.capability"));
    assert_eq!(capability.err(), Some(Errno::ENODATA));
    let unknown = world.ask(mount, get_xattr(inode, b"system.posix_acl_access"));
    assert_eq!(unknown.err(), Some(Errno::EOPNOTSUPP));
    let listed = world.ask(mount, FileRequest::ListXattrs { inode });
    assert!(matches!(listed, Ok(FileReply::Bytes(names)) if names.is_empty()));
    assert_eq!(world.now, now, "nobody was asked");
}

#[test]
fn an_attribute_that_another_mount_sets_is_seen_where_there_was_none() {
    let mut world = World::new(14, 2, 1);
    let (here, there) = (world.mount_ready(), world.mount_ready());
    let (inode, _) = world.create(here, "a");
    let (capability, own) = (b"security.capability", b"security.own");
    let none = world.ask(here, get_xattr(inode, capability));
    assert_eq!(none.err(), Some(Errno::ENODATA));
    world.done(there, set_xattr(inode, capability));
    world.done(here, set_xattr(inode, own));
    for name in [&capability[..], own] {
        let found = world.ask(here, get_xattr(inode, name));
        assert!(matches!(found, Ok(FileReply::Bytes(value)) if &value[..] == b"value"));
    }
    let listed = world.ask(here, FileRequest::ListXattrs { inode });
    assert!(matches!(listed, Ok(FileReply::Bytes(names)) if names.len() == 33));
}

#[test]
fn a_name_that_another_mount_makes_is_seen_in_a_directory_that_was_known_whole() {
    let mut world = World::new(12, 2, 1);
    let (here, there) = (world.mount_ready(), world.mount_ready());
    let parent = directory(&mut world, here);
    assert!(is_absent(&world.ask(here, look_in(parent, "a"))));
    world.done_or_made(there, make_in(parent, "b", FileKind::Fifo));
    assert!(!is_absent(&world.ask(here, look_in(parent, "b"))));
    world.done_or_made(there, make_in(parent, "a", FileKind::Fifo));
    assert!(!is_absent(&world.ask(here, look_in(parent, "a"))));
    assert!(is_absent(&world.ask(here, look_in(parent, "c"))));
}

#[test]
fn a_name_under_change_is_not_answered_from_what_was_known_before() {
    let mut world = World::new(13, 2, 1);
    let (here, there) = (world.mount_ready(), world.mount_ready());
    let parent = directory(&mut world, here);
    // The other mount has it cached, and its kernel does not let go.
    assert!(is_absent(&world.ask(there, look_in(parent, "a"))));
    world.kernel_hangs = true;
    let asked = world.request(here, make_in(parent, "a", FileKind::Fifo));
    world.run_for(Duration::from_millis(20));
    // It is there for whoever asks, so for this mount too.
    assert!(!is_absent(&world.ask(here, look_in(parent, "a"))));
    world.release_kernel();
    assert!(world.wait(here, asked).is_ok());
}

#[test]
fn what_is_told_of_a_name_under_change_hides_no_attributes_that_the_change_made_stale() {
    let mut world = World::new(14, 2, 1);
    let (here, there) = (world.mount_ready(), world.mount_ready());
    let (inode, _) = world.create(here, "a");
    let link = FileRequest::Link {
        inode,
        parent: InodeId::ROOT,
        name: b"b".to_vec(),
    };
    world.done_or_made(here, link);
    assert_eq!(world.attributes(here, inode).nlink, 2);
    // The other mount has the name cached, and its kernel does not let go for a while.
    assert!(world.lookup(there, "b").is_some());
    world.kernel_hangs = true;
    let unlink = FileRequest::Unlink {
        parent: InodeId::ROOT,
        name: b"b".to_vec(),
    };
    let asked = world.request(here, unlink);
    world.run_for(Duration::from_millis(20));
    assert!(
        is_absent(&world.ask(here, look("b"))),
        "it is done, not answered"
    );
    world.release_kernel();
    assert!(world.wait(here, asked).is_ok());
    assert_eq!(world.attributes(here, inode).nlink, 1);
}

#[test]
fn validity_never_outlives_the_cache_lease() {
    let mut world = World::new(2, 2, 1);
    world.master.cache_lease_millis = 700;
    let mount = world.mount_ready();
    world.create(mount, "a");
    world.run_for(Duration::from_millis(1200));
    world.master.deaf = true;
    world.run_for(Duration::from_millis(400));
    match world.ask(mount, look("a")) {
        Ok(FileReply::Entry(_, validity)) => {
            assert!(validity <= Duration::from_millis(700), "{validity:?}");
        }
        other => panic!("{other:?}"),
    }
    world.run_for(Duration::from_millis(700));
    match world.ask(mount, look("a")) {
        Ok(FileReply::Entry(_, validity)) => assert_eq!(validity, Duration::ZERO),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lapsed_cache_is_not_answered_from() {
    let mut world = World::new(3, 2, 1);
    let mount = world.mount_ready();
    let (inode, _) = world.create(mount, "a");
    world.attributes(mount, inode);
    world.down = vec![0];
    for link in world.links_to(|target| matches!(target, Target::Master(_))) {
        world.break_link(link);
    }
    world.run_for(Duration::from_secs(3));
    let asked = world.request(mount, FileRequest::GetAttributes { inode });
    world.run_for(Duration::from_secs(5));
    assert!(!world.mounts[mount].answers.contains_key(&asked));
    world.down.clear();
    assert!(world.wait(mount, asked).is_ok());
}

#[test]
fn a_change_elsewhere_is_pushed_before_it_is_answered() {
    let mut world = World::new(4, 2, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let (inode, _) = world.create(here, "a");
    let before = world.attributes(there, inode);
    assert_eq!(before.mode, 0o644);
    world.kernel_hangs = true;
    let asked = world.request(here, chmod(inode, 0o600));
    world.run_for(Duration::from_millis(900));
    let told = |answer: &ClientAnswer| matches!(answer, ClientAnswer::InvalidateInode { inode: named, .. } if *named == inode);
    assert!(world.mounts[there].invalidated.iter().any(told));
    assert!(
        !world.mounts[here].answers.contains_key(&asked),
        "the other kernel has not dropped it"
    );
    world.release_kernel();
    assert!(world.wait(here, asked).is_ok());
    assert_eq!(world.attributes(there, inode).mode, 0o600);
}

#[test]
fn a_name_in_a_kernel_that_can_not_drop_it_delays_no_longer_than_it_lasts() {
    let mut world = World::new(5, 2, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    assert!(world.lookup(there, "a").is_none());
    world.kernel_hangs = true;
    let before = world.now;
    let asked = world.request(
        here,
        FileRequest::Create {
            parent: InodeId::ROOT,
            name: b"a".to_vec(),
            mode: 0o644,
            exclusive: true,
            truncate: false,
            read: true,
            write: true,
        },
    );
    world.run_for(Duration::from_millis(20));
    let inodes: Vec<u64> = world.mounts[there]
        .invalidated
        .iter()
        .filter_map(|answer| match answer {
            ClientAnswer::InvalidateInode { ticket, .. } => Some(*ticket),
            _ => None,
        })
        .collect();
    for ticket in inodes {
        world.request(there, FileRequest::Invalidated { ticket });
    }
    assert!(world.wait(here, asked).is_ok());
    let waited = world.now - before;
    assert!(
        waited > 500_000_000 && waited < 1_200_000_000,
        "{waited} ns"
    );
}

#[test]
fn what_a_mount_wrote_and_closed_is_seen_by_an_open_elsewhere() {
    let mut world = World::new(6, 3, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let file = world.create(here, "a");
    let other = (file.0, world.open(there, file.0));
    for round in 1..20_u8 {
        let length = usize::from(round) * 1000;
        world.write(here, file, 0, &vec![round; length]);
        world.done(
            here,
            FileRequest::Flush {
                inode: file.0,
                handle: file.1,
            },
        );
        assert_eq!(
            world.read(there, other, 0, 100_000)[..],
            vec![round; length]
        );
    }
}

#[test]
fn what_is_read_before_an_overwrite_lands_is_not_kept_over_its_close() {
    let mut world = World::new(15, 2, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let (inode, handle) = world.create(here, "a");
    let other = (inode, world.open(there, inode));
    let flush = FileRequest::Flush { inode, handle };
    world.write(here, (inode, handle), 0, &[1; 8192]);
    world.done(here, FileRequest::Fsync { inode, handle });
    assert_eq!(world.read(there, other, 0, 8192)[..], [1; 8192]);
    world.write_delay = Duration::from_millis(100);
    world.write(here, (inode, handle), 0, &[2; 8192]);
    let asked = world.request(here, flush);
    world.run_for(Duration::from_millis(50));
    assert!(!world.mounts[here].answers.contains_key(&asked));
    // A sequential reader, for whom more is kept than it asked for.
    for at in [0, 2048, 4096] {
        assert_eq!(world.read(there, other, at, 2048)[..], [1; 2048]);
    }
    assert!(world.wait(here, asked).is_ok());
    assert_eq!(world.read(there, other, 6144, 2048)[..], [2; 2048]);
}

#[test]
fn two_writers_of_one_chunk_take_turns() {
    let mut world = World::new(7, 3, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let file = world.create(here, "a");
    world.write(here, file, 0, &[1; 8192]);
    let other = (file.0, world.open(there, file.0));
    world.write(there, other, 8192, &[2; 8192]);
    world.write(here, file, 16384, &[3; 8192]);
    world.fsync(there, other);
    world.fsync(here, file);
    for (mount, file) in [(here, file), (there, other)] {
        let data = world.read(mount, file, 0, 30_000);
        assert_eq!(data.len(), 24_576);
        for (place, byte) in [(0, 1), (8192, 2), (16384, 3)] {
            assert_eq!(data[place..place + 8192], [byte; 8192], "mount {mount}");
        }
    }
}

#[test]
fn own_bytes_are_read_between_the_end_of_their_lease_and_the_answer_of_their_commit() {
    let mut world = World::new(16, 2, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let (inode, handle) = world.create(there, "a");
    world.write(there, (inode, handle), 0, &[1; 8192]);
    world.close(there, (inode, handle));
    let other = (inode, world.open(there, inode));
    let file = (inode, world.open(here, inode));
    // A seek under the lease finds the chunk as it was before.
    world.write(here, file, 0, &[1; 100]);
    let (inode, handle) = file;
    let seek = FileRequest::Seek {
        inode,
        offset: 0,
        data: true,
    };
    assert!(world.ask(here, seek).is_ok());
    world.write(here, file, 8192, &[2; 4096]);
    world.kernel_hangs = true;
    let synced = world.request(here, FileRequest::Fsync { inode, handle });
    world.run_for(Duration::from_millis(20));
    world.write(there, other, 0, &[3; 100]);
    world.run_for(Duration::from_millis(20));
    assert!(!world.mounts[here].answers.contains_key(&synced));
    let asked = world.request(here, read_request(file, 8192, 4096));
    world.run_for(Duration::from_millis(20));
    world.release_kernel();
    match world.wait(here, asked) {
        Ok(FileReply::Bytes(data)) => assert_eq!(data[..], [2; 4096]),
        other => panic!("a read is answered: {other:?}"),
    }
    assert!(world.wait(here, synced).is_ok());
}

#[test]
fn pages_are_kept_over_own_writes_and_dropped_after_others() {
    let mut world = World::new(8, 2, 1);
    let here = world.mount_ready();
    let there = world.mount_ready();
    let file = world.create(here, "a");
    world.write(here, file, 0, b"one");
    world.close(here, file);
    let open = FileRequest::Open {
        inode: file.0,
        read: true,
        write: true,
        truncate: false,
    };
    let keeps = |reply| match reply {
        Ok(FileReply::Opened { keep_cache, .. }) => keep_cache,
        other => panic!("{other:?}"),
    };
    assert!(keeps(world.ask(here, open.clone())));
    let other = (file.0, world.open(there, file.0));
    world.write(there, other, 0, b"two");
    world.close(there, other);
    assert!(!keeps(world.ask(here, open.clone())));
    assert!(keeps(world.ask(here, open)));
}

/// The mount that gives its lease back for a cut is told of the cut before its own answer
/// comes: from then on it must not read what the copies still have behind it.
#[test]
fn a_read_amid_the_end_of_a_lease_sees_what_another_mount_cut() {
    for seed in 0..10 {
        let mut world = World::new(seed, 2, 1);
        let (here, there) = (world.mount_ready(), world.mount_ready());
        let file = world.create(here, "a");
        world.write(here, file, 0, &[1; 4096]);
        world.attributes(here, file.0);
        world.write(here, file, 4096, &[1; 4096]);
        world.lookup(there, "a").expect("it is there");
        // So that the end of the lease is answered late.
        (world.kernel_hangs, world.only_hangs) = (true, Some(there));
        let change = AttributeChange {
            size: Some(100),
            ..AttributeChange::default()
        };
        let inode = file.0;
        let cut = world.request(there, FileRequest::SetAttributes { inode, change });
        world.run_until(|world| world.mounts[there].answers.contains_key(&cut));
        world.write(here, file, 9000, &[2]);
        let reading = world.request(here, read_request(file, 0, 9001));
        world.run_for(Duration::from_millis(20));
        world.release_kernel();
        let read = match world.wait(here, reading) {
            Ok(FileReply::Bytes(read)) => read,
            other => panic!("a read is answered: {other:?}"),
        };
        assert_eq!(read[..100], [1; 100], "seed {seed}");
        assert!(read[100..9000].iter().all(|byte| *byte == 0), "seed {seed}");
        assert_eq!(read[9000], 2, "seed {seed}");
    }
}
