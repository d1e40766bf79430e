//! Patterns of directories: which class a file gets by its name, who may say so, and that they
//! go with what they are of.

use crate::world::{ROOT, World, alice, image, load, root, servers};
use antler_core::attributes::{FileKind, RenameMode};
use antler_core::errno::Errno;
use antler_core::ids::{InodeId, ServerId};
use antler_core::namespace::record::{
    ClassChange, ClassPattern, Mutation, Outcome, RecordBody, Reply,
};
use antler_core::placement::StorageClass;
use antler_core::version::FeatureLevel;

fn set(world: &mut World, inode: InodeId, patterns: &[(&str, &str)]) -> Outcome {
    let pattern = |(glob, class): &(&str, &str)| ClassPattern {
        glob: glob.as_bytes().to_vec(),
        class: (*class).to_owned(),
    };
    let patterns = patterns.iter().map(pattern).collect();
    world.run(&root(), Mutation::SetPatterns { inode, patterns })
}

fn class(world: &mut World, name: &str, keep: &str) {
    let class = StorageClass {
        create: None,
        keep: keep.parse().expect("it is well written"),
        archive: None,
    };
    let name = name.to_owned();
    let change = ClassChange::Create { name, class };
    let made = world.run(&root(), Mutation::ChangeClass(change));
    assert_eq!(made, Ok(Reply::Done));
}

fn delete(world: &mut World, name: &str) -> Outcome {
    let name = name.to_owned();
    world.run(&root(), Mutation::ChangeClass(ClassChange::Delete { name }))
}

fn create(parent: InodeId, name: &str, kind: FileKind, write: bool) -> Mutation {
    let target = match kind {
        FileKind::Symlink => b"x".to_vec(),
        _ => Vec::new(),
    };
    Mutation::Create {
        parent,
        name: name.into(),
        kind,
        mode: 0o755,
        device: 0,
        target,
        exclusive: true,
        write,
    }
}

fn make(world: &mut World, parent: InodeId, name: &str, kind: FileKind) -> InodeId {
    match world.run(&root(), create(parent, name, kind, false)) {
        Ok(Reply::Created { attributes, .. }) => attributes.inode,
        other => panic!("{name} was not made: {other:?}"),
    }
}

fn class_of(world: &World, inode: InodeId) -> String {
    let class = world.state.class_of(inode).expect("it is there");
    world.state.class_name(class)
}

#[test]
fn a_new_file_gets_the_class_of_the_first_pattern_that_stands_for_its_name() {
    let mut world = World::new();
    class(&mut world, "scratch", "copies(1)");
    let own = class_of(&world, ROOT);
    let patterns = [("keep.*", "copies-3"), ("*.tmp", "scratch")];
    assert!(set(&mut world, ROOT, &patterns).is_ok());
    for (name, kind, wanted) in [
        ("a.tmp", FileKind::Regular, "scratch"),
        ("keep.tmp", FileKind::Regular, "copies-3"),
        ("a", FileKind::Regular, &own),
        ("d.tmp", FileKind::Directory, &own),
        ("l.tmp", FileKind::Symlink, &own),
    ] {
        let made = make(&mut world, ROOT, name, kind);
        assert_eq!(class_of(&world, made), wanted, "{name}");
    }
    // It keeps the class that it was created with.
    let route = |name: &str, new_name: &str| Mutation::Rename {
        parent: ROOT,
        name: name.into(),
        new_parent: ROOT,
        new_name: new_name.into(),
        mode: RenameMode::Replace,
    };
    let file = make(&mut world, ROOT, "b.tmp", FileKind::Regular);
    assert_eq!(world.run(&root(), route("b.tmp", "b")), Ok(Reply::Done));
    assert_eq!(class_of(&world, file), "scratch");
    assert!(set(&mut world, ROOT, &[]).is_ok());
    let late = make(&mut world, ROOT, "late.tmp", FileKind::Regular);
    assert_eq!(class_of(&world, late), own);
    assert_eq!(world.state.patterns_of(ROOT), []);
}

#[test]
fn new_directories_get_them_too_and_a_class_in_a_pattern_is_in_use() {
    let mut world = World::new();
    class(&mut world, "scratch", "copies(1)");
    assert!(set(&mut world, ROOT, &[("*.tmp", "scratch")]).is_ok());
    let below = make(&mut world, ROOT, "d", FileKind::Directory);
    assert!(set(&mut world, ROOT, &[]).is_ok());
    let file = make(&mut world, below, "a.tmp", FileKind::Regular);
    assert_eq!(class_of(&world, file), "scratch");
    let unlink = Mutation::Unlink {
        parent: below,
        name: b"a.tmp".to_vec(),
    };
    assert_eq!(world.run(&root(), unlink), Ok(Reply::Done));
    assert_eq!(delete(&mut world, "scratch"), Err(Errno::EBUSY));
    // An image holds them, and what they count.
    let mut world = World {
        state: load(&image(&world.state)).expect("it is whole"),
        ..world
    };
    assert_eq!(world.state.patterns_of(below)[0].class, "scratch");
    assert_eq!(delete(&mut world, "scratch"), Err(Errno::EBUSY));
    let rmdir = Mutation::Rmdir {
        parent: ROOT,
        name: b"d".to_vec(),
    };
    assert_eq!(world.run(&root(), rmdir), Ok(Reply::Done));
    assert_eq!(delete(&mut world, "scratch"), Ok(Reply::Done));
    world.state.check_invariants(true);
}

#[test]
fn only_what_makes_sense_is_taken_from_the_superuser_alone_at_its_level() {
    let mut world = World::new();
    let file = make(&mut world, ROOT, "f", FileKind::Regular);
    let long = "x".repeat(256);
    for (inode, patterns, wrong) in [
        (ROOT, vec![("[", "copies-1")], Errno::EINVAL),
        (ROOT, vec![("", "copies-1")], Errno::EINVAL),
        (ROOT, vec![(&*long, "copies-1")], Errno::EINVAL),
        (ROOT, vec![("*", "copies-1"); 65], Errno::EINVAL),
        (ROOT, vec![("*", "nothing")], Errno::ENOENT),
        (file, vec![("*", "copies-1")], Errno::ENOTDIR),
        (InodeId(99), vec![], Errno::ESTALE),
    ] {
        assert_eq!(
            set(&mut world, inode, &patterns),
            Err(wrong),
            "{patterns:?}"
        );
    }
    let mutation = Mutation::SetPatterns {
        inode: ROOT,
        patterns: Vec::new(),
    };
    let refused = world.run(&alice(), mutation.clone());
    assert_eq!(refused, Err(Errno::EPERM));
    let mut older = World::at(FeatureLevel::COUNTS);
    let refused = older.run(&root(), mutation);
    assert_eq!(refused, Err(Errno::EOPNOTSUPP));
}

#[test]
fn a_law_is_that_of_the_class_that_the_name_stands_for() {
    let mut world = World::new();
    for (server, dc) in [(1, "west"), (2, "east")] {
        let labels = vec![("dc".to_owned(), dc.to_owned())];
        let server = ServerId(server);
        world.record(RecordBody::ServerLabels { server, labels });
    }
    class(&mut world, "west", "1 in dc=west");
    class(&mut world, "east", "1 in dc=east");
    let into = make(&mut world, ROOT, "into", FileKind::Directory);
    let set_class = Mutation::SetClass {
        inode: into,
        class: "west".to_owned(),
    };
    assert!(world.run(&root(), set_class).is_ok());
    assert!(set(&mut world, into, &[("*.east", "east")]).is_ok());
    let plain = make(&mut world, ROOT, "plain", FileKind::Regular);
    let eastern = make(&mut world, into, "own.east", FileKind::Regular);
    let link = |inode, name: &str| Mutation::Link {
        inode,
        parent: into,
        name: name.into(),
    };
    for name in ["x", "x.east"] {
        let refused = world.run(&root(), link(plain, name));
        assert_eq!(refused, Err(Errno::EXDEV), "{name}");
    }
    assert!(world.run(&root(), link(eastern, "y.east")).is_ok());
    assert_eq!(world.run(&root(), link(eastern, "y")), Err(Errno::EXDEV));
    // What is created there is judged by it as well.
    let written = |name| create(into, name, FileKind::Regular, true);
    world.choice.copies = servers(1);
    assert!(world.run(&root(), written("a")).is_ok());
    assert_eq!(world.run(&root(), written("a.east")), Err(Errno::ENOSPC));
}
