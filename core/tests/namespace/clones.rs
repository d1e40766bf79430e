//! A clone stays as it was, whatever becomes of the state.

use crate::world::{ROOT, World, image, load, root};

#[test]
fn a_clone_does_not_see_later_records() {
    let mut world = World::new();
    world.checked = false;
    let folder = world.folder(ROOT, "d");
    for n in 0..3000 {
        world.file(folder, &format!("before-{n}"));
    }
    let clone = world.state.clone();
    let (digest, sections) = (clone.digest(), image(&clone));
    for n in 0..3000 {
        world.file(folder, &format!("after-{n}"));
        world
            .unlink(&root(), folder, &format!("before-{n}"))
            .expect("it is there");
    }
    clone.check_invariants(true);
    world.state.check_invariants(true);
    assert_eq!(clone.digest(), digest);
    assert_eq!(image(&clone), sections, "an image written late is the same");
    assert_eq!(clone.counts().inodes, 3002);
    assert!(clone.lookup(folder, b"before-7", &root()).is_ok());
    assert!(clone.lookup(folder, b"after-7", &root()).is_err());
    assert_eq!(load(&sections).expect("it loads").digest(), digest);
}

#[test]
fn memory_is_given_back() {
    let mut world = World::new();
    world.checked = false;
    let empty = world.state.memory();
    for n in 0..5000 {
        world.file(
            ROOT,
            &format!("a-name-that-is-too-long-to-stand-inline-{n}"),
        );
    }
    let full = world.state.memory();
    assert!(
        (5000 * 150..5000 * 250).contains(&(full - empty)),
        "{}",
        full - empty
    );
    for n in 0..5000 {
        let name = format!("a-name-that-is-too-long-to-stand-inline-{n}");
        world.unlink(&root(), ROOT, &name).expect("it is there");
    }
    assert!(world.state.memory() < empty + 1000);
    world.state.check_invariants(true);
}
