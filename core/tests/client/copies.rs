//! Copies that are slow, bad, away or restarted, on reading and on writing.

use crate::coherence::chmod;
use crate::world::{Target, World, read_request};
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::machine::Machine;
use antler_core::marks::Mark;
use antler_core::time::Duration;
use antler_core::wire::client_chunk::{ChunkErrorKind, ChunkReplyBody};
use antler_core::wire::client_master::{Answer, Query};

#[test]
fn a_silent_copy_is_hedged_by_the_next() {
    let mut world = World::new(1, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[9; 4096]);
    world.close(mount, file);
    world.run_for(Duration::from_millis(100));
    world.servers.get_mut(&ServerId(1)).expect("there").hangs = true;
    let again = (file.0, world.open(mount, file.0));
    let before = world.now;
    assert_eq!(world.read(mount, again, 0, 4096)[..], [9; 4096]);
    let waited = world.now - before;
    assert!(waited < 250_000_000, "{waited} ns");
    assert!(world.mounts[mount].client.marks().has(Mark::ReadHedged));
}

/// P6: who left the file's copies out says so by a push.
#[test]
fn a_push_amid_a_read_ends_what_it_was_told_of_the_copies() {
    let mut world = World::new(1, 2, 1);
    let (there, here) = (world.mount_ready(), world.mount_ready());
    let file = world.create(there, "a");
    world.write(there, file, 0, &[9; 4096]);
    world.close(there, file);
    world.run_for(Duration::from_millis(100));
    world.servers.get_mut(&ServerId(1)).expect("there").hangs = true;
    let again = (file.0, world.open(here, file.0));
    let reading = world.request(here, read_request(again, 0, 4096));
    world
        .ask(there, chmod(file.0, 0o600))
        .expect("it is root's");
    assert_eq!(world.master.located, 0, "the open told of the copies");
    let read = world.wait(here, reading).expect("the other copy serves");
    let FileReply::Bytes(read) = read else {
        panic!("bytes were asked for, not {read:?}")
    };
    assert_eq!(read[..], [9; 4096]);
    assert_eq!(world.master.located, 1, "they are asked for anew");
}

#[test]
fn a_bad_copy_is_reported_and_another_one_read() {
    let mut world = World::new(2, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[9; 4096]);
    world.close(mount, file);
    world.run_for(Duration::from_millis(100));
    world.servers.get_mut(&ServerId(1)).expect("there").rots = true;
    let again = (file.0, world.open(mount, file.0));
    assert_eq!(world.read(mount, again, 0, 4096)[..], [9; 4096]);
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.master.bad_copies, [ServerId(1)]);
}

#[test]
fn a_tool_reads_each_copy_from_its_own_server() {
    let mut world = World::new(2, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[9; 8192]);
    world.close(mount, file);
    world.run_for(Duration::from_millis(100));
    world.servers.get_mut(&ServerId(1)).expect("there").rots = true;
    let locate = Query::Locate {
        inode: file.0,
        index: 0,
        count: 1,
    };
    let told = world.ask(mount, FileRequest::Ask(locate));
    let Ok(FileReply::Told(told)) = told else {
        panic!("a question is answered by what was told, not {told:?}")
    };
    let Answer::Located(chunks) = *told else {
        panic!("copies are answered by where they are, not {told:?}")
    };
    assert_eq!(chunks[0].copies.len(), 2);
    for copy in &chunks[0].copies {
        let mut read = |range| {
            let copy = Box::new(copy.clone());
            let read = world.ask(mount, FileRequest::ReadCopy { copy, range });
            match read {
                Ok(FileReply::Copy(read)) => read,
                other => panic!("a copy is answered by what it has, not {other:?}"),
            }
        };
        let is_bad = copy.server == ServerId(1);
        match read(None) {
            Ok((ChunkReplyBody::Map { present }, _)) => assert_eq!(present[0], 0b11),
            other => panic!("{other:?}"),
        }
        match read(Some((4096, 4096))) {
            Ok((ChunkReplyBody::Read { checksums, .. }, data)) => {
                assert_eq!(crc32fast::hash(&data) == checksums[0], !is_bad);
                assert!(is_bad || data[..] == [9; 4096]);
            }
            Err(error) => assert!(is_bad && error.kind == ChunkErrorKind::Corrupt),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_write_goes_on_without_a_copy_that_is_gone() {
    let mut world = World::new(3, 3, 1);
    let mut config = world.config();
    config.limits.chunk_timeout = Duration::from_millis(500);
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    world.fsync(mount, file);
    world.servers.get_mut(&ServerId(2)).expect("there").hangs = true;
    world.write(mount, file, 4096, &[2; 4096]);
    world.fsync(mount, file);
    world.servers.get_mut(&ServerId(1)).expect("there").hangs = false;
    assert!(world.mounts[mount].client.marks().has(Mark::WriteResent));
    let data = world.read(mount, file, 0, 8192);
    assert_eq!(data[..4096], [1; 4096]);
    assert_eq!(data[4096..], [2; 4096]);
}

#[test]
fn a_link_to_an_earlier_life_that_breaks_blames_no_copy() {
    let mut world = World::new(13, 3, 1);
    let mut config = world.config();
    config.limits.chunk_timeout = Duration::from_millis(500);
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    world.close(mount, file);
    world.run_for(Duration::from_millis(100));
    let before = world.links_to(|target| matches!(target, Target::Server(_)));
    assert!(!before.is_empty(), "it was written over a link");
    for server in [1, 2, 3].map(ServerId) {
        world.power_cycle_unseen(server);
    }
    let again = (file.0, world.open(mount, file.0));
    world.write(mount, again, 0, &[2; 4096]);
    world.fsync(mount, again);
    let after = world.links_to(|target| matches!(target, Target::Server(_)));
    assert!(
        !after.contains(&before[0]),
        "the half open link was given up"
    );
    assert!(!world.mounts[mount].client.marks().has(Mark::CopyBlamed));
    let parts = world.servers.values().flat_map(|one| one.parts.values());
    let synced = parts.map(|part| part.durable.clone().expect("it is synced"));
    let units: Vec<_> = synced.map(|image| image.units[&0].clone()).collect();
    assert_eq!(units, [[2; 4096], [2; 4096]], "both copies have it");
}

#[test]
fn a_power_cycle_between_acknowledgement_and_fsync_costs_nothing() {
    let mut world = World::new(4, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 100_000]);
    world.run_for(Duration::from_millis(200));
    assert!(world.servers[&ServerId(1)].writes > 0, "it was written");
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    world.fsync(mount, file);
    assert!(world.mounts[mount].client.marks().has(Mark::UnsyncedResent));
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, file, 0, 100_000)[..], [1; 100_000]);
}

/// Appends, with copies that exist, and syncs; what was written must outlive a power cut.
fn append_and_sync(prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(12, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.fsync(mount, file);
    prepare(&mut world);
    world.write(mount, file, 5000, &[2; 5000]);
    world.fsync(mount, file);
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, file, 5000, 5000)[..], [2; 5000]);
    assert!(world.mounts[mount].client.marks().has(Mark::SyncFollowed));
    world
}

#[test]
fn a_sync_is_sent_behind_the_write_that_it_makes_durable() {
    let world = append_and_sync(|_| ());
    assert_eq!(world.servers[&ServerId(1)].syncs, 2, "one for each fsync");
}

#[test]
fn a_sync_covers_nothing_of_a_write_that_was_put_off() {
    for server in [1, 2].map(ServerId) {
        let prepare = |world: &mut World| {
            world
                .servers
                .get_mut(&server)
                .expect("it is there")
                .puts_off = 1;
        };
        let world = append_and_sync(prepare);
        assert!(world.servers[&server].syncs > 2, "once more for the write");
    }
}

#[test]
fn an_fsync_after_a_close_covers_what_was_closed() {
    let mut world = World::new(5, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.close(mount, file);
    let again = (file.0, world.open(mount, file.0));
    world.fsync(mount, again);
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, again, 0, 5000)[..], [1; 5000]);
}

#[test]
fn an_fsync_that_can_not_cover_what_was_closed_says_so() {
    let mut world = World::new(6, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.close(mount, file);
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    let (inode, handle) = (file.0, world.open(mount, file.0));
    let reply = world.ask(mount, FileRequest::Fsync { inode, handle });
    assert!(reply.is_err(), "the unsynced bytes are gone: {reply:?}");
}

/// The lease that an fsync needs for what was closed is refused, as no disk has room. It is
/// told so as often as it is asked, until there is.
#[test]
fn an_fsync_that_gets_no_lease_for_what_was_closed_says_so() {
    let mut world = World::new(7, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.close(mount, file);
    world.master.is_crowded = true;
    let (inode, handle) = (file.0, world.open(mount, file.0));
    for _ in 0..2 {
        let reply = world.ask(mount, FileRequest::Fsync { inode, handle });
        assert_eq!(reply.err(), Some(Errno::ENOSPC), "nothing synced it");
    }
    world.master.is_crowded = false;
    world.fsync(mount, (inode, handle));
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, (inode, handle), 0, 5000)[..], [1; 5000]);
}

/// The same, when the lease was there and the copies had no room for the sync.
#[test]
fn an_fsync_whose_copies_fail_for_good_says_so_of_what_was_closed() {
    let mut world = World::new(8, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.close(mount, file);
    for server in world.servers.values_mut() {
        server.is_full = true;
    }
    let (inode, handle) = (file.0, world.open(mount, file.0));
    let waiting = world.request(mount, FileRequest::Fsync { inode, handle });
    world.run_for(Duration::from_millis(5));
    world.master.is_crowded = true;
    let reply = world.wait(mount, waiting);
    assert_eq!(reply.err(), Some(Errno::ENOSPC), "nothing synced it");
    world.master.is_crowded = false;
    for server in world.servers.values_mut() {
        server.is_full = false;
    }
    world.fsync(mount, (inode, handle));
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, (inode, handle), 0, 5000)[..], [1; 5000]);
}

#[test]
fn too_much_unsynced_is_synced_without_being_asked() {
    let mut world = World::new(7, 2, 1);
    let mut config = world.config();
    config.limits.write_window_bytes = 100_000;
    config.limits.unsynced_bytes_max = 200_000;
    config.limits.piece_bytes = 8192;
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let file = world.create(mount, "a");
    for place in 0..100_u64 {
        world.write(mount, file, place * 8192, &[place as u8; 8192]);
    }
    assert!(world.mounts[mount].client.marks().has(Mark::UnsyncedFull));
    assert!(world.servers[&ServerId(1)].syncs > 0);
    world.close(mount, file);
    assert_eq!(world.attributes(mount, file.0).size, 819_200);
}

#[test]
fn an_idle_lease_goes_back_synced() {
    let mut world = World::new(8, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 5000]);
    world.run_for(Duration::from_secs(4));
    assert_eq!(world.master.state.leased().count(), 0);
    world.power_cycle(ServerId(1));
    world.power_cycle(ServerId(2));
    assert_eq!(world.read(mount, file, 0, 5000)[..], [1; 5000]);
}

#[test]
fn sequential_reads_are_read_ahead() {
    let mut world = World::new(9, 2, 1);
    let mut config = world.config();
    config.limits.piece_bytes = 64 << 10;
    let mount = world.mount(config);
    world.run_until(|world| world.mounts[mount].is_ready);
    let file = world.create(mount, "a");
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| (n / 1000) as u8).collect();
    world.write(mount, file, 0, &data);
    world.close(mount, file);
    world.run_for(Duration::from_millis(100));
    world.delay = (5000, 5000);
    let again = (file.0, world.open(mount, file.0));
    let before = world.now;
    for place in (0..data.len()).step_by(32 << 10) {
        let end = data.len().min(place + (32 << 10));
        let read = world.read(mount, again, place as u64, 32 << 10);
        assert_eq!(read[..], data[place..end]);
    }
    // 62 reads at 10 ms each would take 620 ms.
    let taken = world.now - before;
    assert!(taken < 120_000_000, "{taken} ns");
    let links = world.links_to(|target| matches!(target, Target::Server(_)));
    assert!(!links.is_empty());
}

#[test]
fn no_space_is_told_and_the_file_works_again_with_space() {
    let mut world = World::new(10, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.run_for(Duration::from_secs(3));
    world.master.is_full = true;
    world.write(mount, file, 0, &[1; 5000]);
    let (inode, handle) = file;
    let reply = world.ask(mount, FileRequest::Fsync { inode, handle });
    assert_eq!(reply.err(), Some(Errno::ENOSPC));
    world.master.is_full = false;
    assert_eq!(world.attributes(mount, inode).size, 0, "the write is lost");
    world.write(mount, file, 0, &[2; 5000]);
    world.fsync(mount, file);
    assert_eq!(world.read(mount, file, 0, 9000)[..], [2; 5000]);
}

/// An fsync of what was made part of the file before tells the leader, and changes no times:
/// a program may have set them since.
#[test]
fn an_fsync_of_what_is_committed_is_told_and_changes_no_times() {
    let mut world = World::new(6, 2, 1);
    let mount = world.mount_ready();
    let file = world.create(mount, "a");
    world.write(mount, file, 0, &[1; 4096]);
    let committed = world.attributes(mount, file.0);
    world.run_for(Duration::from_millis(50));
    assert_eq!(committed.size, 4096);
    let count = |world: &World| {
        let told = world.master.mutations.iter();
        told.filter(|name| **name == "commit").count()
    };
    let before = count(&world);
    world.fsync(mount, file);
    assert_eq!(count(&world), before + 1, "{:?}", world.master.mutations);
    let after = world.attributes(mount, file.0);
    assert_eq!(
        (after.mtime, after.ctime),
        (committed.mtime, committed.ctime)
    );
    world.fsync(mount, file);
    assert_eq!(count(&world), before + 1, "once for each lease");
}

/// The version of the only chunk, and that which each copy has durably.
fn versions(world: &World, file: InodeId) -> (u64, Vec<u64>) {
    let place = world.master.state.chunk_at(file, 0);
    let (chunk, _) = place.expect("the file is there").expect("it has content");
    let known = world.master.state.chunk(chunk).expect("it is in the table");
    let parts = world.servers.values().map(|server| {
        let durable = server.parts[&chunk].durable.as_ref();
        durable.map_or(0, |image| image.version.0)
    });
    (known.version.0, parts.collect())
}

#[test]
fn a_lease_given_back_tells_how_often_its_copies_were_synced() {
    for puts_off in [0, 1, 3] {
        let mut world = World::new(9, 2, 1);
        let mount = world.mount_ready();
        let file = world.create(mount, "a");
        for byte in 1..=3 {
            world.write(mount, file, 0, &[byte; 5000]);
            let last = world.servers.get_mut(&ServerId(2)).expect("it is there");
            last.puts_off = puts_off * u32::from(byte == 3);
            world.fsync(mount, file);
        }
        world.close(mount, file);
        world.run_for(Duration::from_secs(1));
        let (told, copies) = versions(&world, file.0);
        // What was put off at one copy only is another sync when it comes again.
        assert!(told >= (1 << 20) + 3 + u64::from(puts_off.min(1)), "{told}");
        assert_eq!(copies, [told, told]);
    }
}
