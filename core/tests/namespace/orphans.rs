//! Files that were unlinked while open.

use crate::world::{ROOT, World, root};
use antler_core::attributes::RenameMode;
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, SessionId};
use antler_core::namespace::Change;
use antler_core::namespace::record::{Mutation, RecordBody};

/// A file with a chunk, unlinked while these sessions have it open.
fn orphan(world: &mut World, sessions: &[SessionId]) -> InodeId {
    let file = world.file(ROOT, "f");
    let grant = world.lease(file, 0).expect("servers are offered");
    world
        .commit(file, &grant, 10, true)
        .expect("the lease is held");
    world.choice.open_by = sessions.iter().map(|session| (file, *session)).collect();
    world.unlink(&root(), ROOT, "f").expect("it is there");
    world.choice.open_by.clear();
    file
}

#[test]
fn an_orphan_lives_until_the_last_session_closes_it() {
    let mut world = World::new();
    let (one, two) = (world.session, world.begin("other", 8));
    let file = orphan(&mut world, &[one, two, SessionId(99)]);
    assert_eq!(world.state.attributes(file).expect("it is kept").nlink, 0);
    assert_eq!(world.state.orphans_of(two).collect::<Vec<_>>(), [file]);
    assert_eq!(world.link(&root(), file, ROOT, "back"), Err(Errno::ENOENT));
    world.lease(file, 0).expect("it can still be written");

    let inodes = vec![file, InodeId(77)];
    world
        .run(&root(), Mutation::CloseOrphans { inodes })
        .expect("it is ours");
    assert!(
        world.state.attributes(file).is_ok(),
        "the other session has it open"
    );
    assert_eq!(world.state.orphans_of(one).count(), 0);
    let inodes = vec![file];
    let applied = world.record(RecordBody::CloseOrphans {
        session: two,
        inodes,
    });
    assert!(applied.changes.contains(&Change::Inode(file)));
    assert_eq!(world.state.attributes(file), Err(Errno::ESTALE));
    assert_eq!(
        (world.state.counts().inodes, world.state.counts().chunks),
        (1, 0)
    );
}

#[test]
fn an_orphan_goes_with_its_session() {
    let mut world = World::new();
    let session = world.session;
    let file = orphan(&mut world, &[session]);
    world.record(RecordBody::EndSession { session });
    assert_eq!(world.state.attributes(file), Err(Errno::ESTALE));
}

#[test]
fn nobody_keeps_what_nobody_has_open() {
    let mut world = World::new();
    let file = orphan(&mut world, &[SessionId(99)]);
    assert_eq!(
        world.state.attributes(file),
        Err(Errno::ESTALE),
        "no such session"
    );
}

#[test]
fn a_replaced_file_and_a_removed_directory_become_orphans() {
    let mut world = World::new();
    let session = world.session;
    let (file, folder) = (world.file(ROOT, "f"), world.folder(ROOT, "d"));
    world.file(ROOT, "g");
    world.choice.open_by = vec![(file, session), (folder, session)];
    let moved = world.rename(&root(), (ROOT, "g"), (ROOT, "f"), RenameMode::Replace);
    assert!(moved.is_ok());
    world.rmdir(&root(), ROOT, "d").expect("it is empty");
    assert_eq!(
        world.state.orphans_of(session).collect::<Vec<_>>(),
        [file, folder]
    );
    let kind = antler_core::attributes::FileKind::Regular;
    assert_eq!(
        world.make(&root(), folder, "x", kind, 0o600),
        Err(Errno::ENOENT)
    );
    let into = world.rename(&root(), (ROOT, "f"), (folder, "f"), RenameMode::Replace);
    assert_eq!(into, Err(Errno::ENOENT));
    assert_eq!(
        world.state.read_directory(folder, 0, 10),
        Ok((Vec::new(), true))
    );
}

#[test]
fn a_file_with_another_name_is_no_orphan() {
    let mut world = World::new();
    let session = world.session;
    let file = world.file(ROOT, "f");
    world.link(&root(), file, ROOT, "g").expect("a new name");
    assert_eq!(world.state.unlink_target(ROOT, b"f"), Some((file, 2)));
    world.choice.open_by = vec![(file, session)];
    world.unlink(&root(), ROOT, "f").expect("it is there");
    assert_eq!(world.state.orphans_of(session).count(), 0);
    assert_eq!(world.state.unlink_target(ROOT, b"g"), Some((file, 1)));
    assert_eq!(world.state.unlink_target(ROOT, b"f"), None);
}
