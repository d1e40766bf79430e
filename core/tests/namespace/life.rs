//! A life of files: made, written, renamed, removed, and kept in an image.

use crate::world::{ROOT, World, image, load, root};
use antler_core::attributes::RenameMode;
use antler_core::errno::Errno;
use antler_core::namespace::record::Reply;

#[test]
fn a_tree_is_made_written_moved_and_removed() {
    let mut world = World::new();
    let folder = world.folder(ROOT, "a");
    let file = world.file(folder, "f");
    let grant = world.lease(file, 0).expect("servers were offered");
    world
        .commit(file, &grant, 5000, true)
        .expect("the lease is held");
    let attributes = world.state.path(b"/a/f").expect("it was made");
    assert_eq!((attributes.size, attributes.allocated), (5000, 8192));
    assert_eq!(world.rmdir(&root(), ROOT, "a"), Err(Errno::ENOTEMPTY));

    let moved = world.rename(&root(), (folder, "f"), (ROOT, "g"), RenameMode::Replace);
    assert_eq!(moved, Ok(Reply::Done));
    assert_eq!(world.state.path(b"/a/f"), Err(Errno::ENOENT));
    assert_eq!(world.rmdir(&root(), ROOT, "a"), Ok(Reply::Done));
    assert_eq!(world.state.chunk_at(file, 0), Ok(Some((grant.chunk, 5000))));

    let copy = load(&image(&world.state)).expect("an image loads");
    assert_eq!(copy.digest(), world.state.digest());
    assert_eq!(copy.path(b"/g").expect("it is in the image").inode, file);

    world.unlink(&root(), ROOT, "g").expect("it is there");
    assert_eq!(world.state.counts().chunks, 0);
    assert_eq!(world.state.attributes(file), Err(Errno::ESTALE));
}
