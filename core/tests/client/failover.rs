//! Sessions: exactly once over broken links, another leader, the end of a session.

use crate::world::{Target, World, opened, write_request};
use antler_core::attributes::FileKind;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::time::Duration;

fn make(name: &str) -> FileRequest {
    FileRequest::Make {
        parent: InodeId::ROOT,
        name: name.as_bytes().to_vec(),
        kind: FileKind::Directory,
        mode: 0o755,
        device: 0,
        target: Vec::new(),
    }
}

fn is_master(target: Target) -> bool {
    matches!(target, Target::Master(_))
}

#[test]
fn a_change_whose_answer_was_lost_happens_once() {
    for seed in 0..50 {
        let mut world = World::new(seed, 2, 1);
        let mount = world.mount_ready();
        let count = 20;
        let asked: Vec<u64> = (0..count)
            .map(|n| world.request(mount, make(&format!("d{n}"))))
            .collect();
        for _ in 0..4 {
            world.run_for(Duration::from_micros(200 + seed * 10));
            for link in world.links_to(is_master) {
                world.break_link(link);
            }
        }
        for operation in asked {
            let reply = world.wait(mount, operation);
            assert!(matches!(reply, Ok(FileReply::Entry(..))), "{reply:?}");
        }
        let made = world
            .master
            .mutations
            .iter()
            .filter(|kind| **kind == "create");
        assert_eq!(made.count(), count, "seed {seed}");
    }
}

/// A mount asks for a change, and loses its link once the leader has made it.
fn lose_answer(world: &mut World, mount: usize, body: FileRequest) -> u64 {
    let before = world.master.mutations.len();
    let asked = world.request(mount, body);
    world.run_until(|world| world.master.mutations.len() > before);
    let own = |guest: &(usize, _)| guest.0 == mount;
    for link in world.links_to(is_master).into_iter().filter(own) {
        world.break_link(link);
    }
    asked
}

#[test]
fn an_answer_that_came_again_is_not_taken_for_what_is_so_now() {
    for seed in 0..100 {
        let mut world = World::new(seed, 2, 1);
        let (here, there) = (world.mount_ready(), world.mount_ready());
        world.run_for(Duration::from_millis(50));
        let made = lose_answer(&mut world, here, make("d"));
        let (parent, name) = (InodeId::ROOT, b"d".to_vec());
        let removed = world.request(there, FileRequest::Rmdir { parent, name });
        let made = world.wait(here, made);
        assert!(matches!(made, Ok(FileReply::Entry(..))), "{made:?}");
        let removed = world.wait(there, removed);
        assert!(matches!(removed, Ok(FileReply::Done)), "{removed:?}");
        assert!(world.lookup(here, "d").is_none(), "seed {seed}");
        // The other way round: what was removed is made again.
        let (parent, name) = (InodeId::ROOT, b"e".to_vec());
        world.done_or_made(there, make("e"));
        let removed = lose_answer(&mut world, here, FileRequest::Rmdir { parent, name });
        let made = world.request(there, make("e"));
        assert!(world.wait(there, made).is_ok());
        assert!(world.wait(here, removed).is_ok());
        assert!(world.lookup(here, "e").is_some(), "seed {seed}");
    }
}

#[test]
fn a_file_whose_creation_was_answered_late_lives_on_without_a_name() {
    for seed in 0..100 {
        let mut world = World::new(seed, 2, 1);
        let (here, there) = (world.mount_ready(), world.mount_ready());
        world.run_for(Duration::from_millis(50));
        let create = FileRequest::Create {
            parent: InodeId::ROOT,
            name: b"f".to_vec(),
            mode: 0o644,
            exclusive: false,
            truncate: false,
            read: true,
            write: true,
        };
        let asked = lose_answer(&mut world, here, create);
        world.run_for(Duration::from_micros(seed * 20));
        let (parent, name) = (InodeId::ROOT, b"f".to_vec());
        let removed = world.request(there, FileRequest::Unlink { parent, name });
        let file = opened(world.wait(here, asked));
        assert!(world.wait(there, removed).is_ok());
        world.write(here, file, 0, b"still here");
        world.fsync(here, file);
        assert_eq!(&world.read(here, file, 0, 20)[..], b"still here");
    }
}

#[test]
fn another_leader_takes_over_without_an_error() {
    let mut world = World::new(7, 2, 3);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, b"before");
    world.fail_over(2);
    world.down = vec![0];
    world.write(mount, file, 6, b" after");
    world.fsync(mount, file);
    assert_eq!(&world.read(mount, file, 0, 20)[..], b"before after");
    assert!(world.mounts[mount].client.marks().has(Mark::SessionResumed));
    world.done(
        mount,
        FileRequest::Unlink {
            parent: InodeId::ROOT,
            name: b"a".to_vec(),
        },
    );
    // The new leader knows what is open: the file lives on.
    assert_eq!(&world.read(mount, file, 0, 6)[..], b"before");
}

#[test]
fn a_session_that_ended_tells_the_loss_once_and_another_begins() {
    let mut world = World::new(8, 2, 1);
    let mount = world.mount_ready();
    let synced = world.create(mount, "synced");
    world.write(mount, synced, 0, b"durable");
    world.fsync(mount, synced);
    let lost = world.create(mount, "lost");
    world.write(mount, lost, 0, b"in memory");
    world.master.end_sessions();
    world.fail_over(0);
    let (inode, handle) = lost;
    let reply = world.ask(mount, FileRequest::Fsync { inode, handle });
    assert_eq!(reply.err(), Some(Errno::EIO));
    world.fsync(mount, lost);
    assert_eq!(&world.read(mount, synced, 0, 20)[..], b"durable");
    world.write(mount, lost, 0, b"again");
    world.fsync(mount, lost);
    assert_eq!(&world.read(mount, lost, 0, 20)[..], b"again");
}

#[test]
fn a_mount_with_a_limit_gives_up_and_one_without_waits() {
    let mut world = World::new(9, 2, 1);
    let mut config = world.config();
    config.retry_for = Some(Duration::from_secs(3));
    let limited = world.mount(config);
    world.run_until(|world| world.mounts[limited].is_ready);
    let patient = world.mount_ready();
    let file = world.create(limited, "a");
    world.write(limited, file, 0, b"x");
    world.down = vec![0];
    for link in world.links_to(is_master) {
        world.break_link(link);
    }
    let waits = world.request(patient, make("p"));
    let fails = world.ask(limited, make("l"));
    assert_eq!(fails.err(), Some(Errno::ETIMEDOUT));
    let (inode, handle) = file;
    let fails = world.ask(limited, FileRequest::Fsync { inode, handle });
    assert_eq!(fails.err(), Some(Errno::EIO));
    assert!(!world.mounts[patient].answers.contains_key(&waits));
    world.down.clear();
    assert!(world.wait(patient, waits).is_ok());
    world.fsync(limited, file);
}

#[test]
fn requests_beyond_the_window_wait_their_turn() {
    let mut world = World::new(10, 2, 1);
    let mut config = world.config();
    config.limits.session_window = 4;
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let asked: Vec<u64> = (0..50)
        .map(|n| world.request(mount, make(&format!("d{n}"))))
        .collect();
    for operation in asked {
        assert!(world.wait(mount, operation).is_ok());
    }
}

#[test]
fn an_open_in_flight_keeps_the_file_open_when_the_last_other_closes() {
    let mut world = World::new(11, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, b"kept");
    world.close(mount, file);
    let asked = world.request(
        mount,
        FileRequest::Open {
            inode: file.0,
            read: true,
            write: false,
            truncate: false,
        },
    );
    world.run_for(Duration::from_millis(60));
    let again = opened(world.wait(mount, asked));
    world.done(
        mount,
        FileRequest::Unlink {
            parent: InodeId::ROOT,
            name: b"a".to_vec(),
        },
    );
    assert_eq!(&world.read(mount, again, 0, 9)[..], b"kept");
}

#[test]
fn writes_wait_for_a_lost_leader_and_arrive() {
    let mut world = World::new(12, 2, 2);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.down = vec![0];
    world.fail_over(1);
    let writes: Vec<u64> = (0..10)
        .map(|n| world.request(mount, write_request(file, n * 4096, &[n as u8 + 1; 4096])))
        .collect();
    for operation in writes {
        assert!(world.wait(mount, operation).is_ok());
    }
    world.close(mount, file);
    let again = (file.0, world.open(mount, file.0));
    assert_eq!(world.read(mount, again, 9 * 4096, 4096)[..], [10; 4096]);
}
