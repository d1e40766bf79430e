//! Storage classes and labels in the replicated state: who may change them, what
//! follows for files and chunks, and that a copy against a law is refused at apply.

use crate::world::{ROOT, World, alice, image, load, root, servers};
use antler_core::attributes::{Credentials, FileKind, RenameMode};
use antler_core::errno::Errno;
use antler_core::ids::{BootId, InodeId, ServerId};
use antler_core::namespace::Change;
use antler_core::namespace::record::{ClassChange, Mutation, Outcome, Record, RecordBody, Reply};
use antler_core::placement::{ClassId, Policy, StorageClass};

fn class(keep: &str) -> StorageClass {
    StorageClass {
        create: None,
        keep: keep.parse().expect("the policy is well written"),
        archive: None,
    }
}

/// A cluster of servers 1 and 2 in the west, 3 and 4 in the east.
fn two_sides() -> World {
    let mut world = World::new();
    for (server, dc) in [(1, "west"), (2, "west"), (3, "east"), (4, "east")] {
        let labels = vec![("dc".to_owned(), dc.to_owned())];
        let server = ServerId(server);
        let applied = world.record(RecordBody::ServerLabels { server, labels });
        assert_eq!(applied.changes, [Change::Labels(server)]);
    }
    world
}

fn create(world: &mut World, who: &Credentials, name: &str, keep: &str) -> Outcome {
    let (name, class) = (name.to_owned(), class(keep));
    let change = ClassChange::Create { name, class };
    world.run(who, Mutation::ChangeClass(change))
}

fn modify(world: &mut World, name: &str, class: StorageClass) -> Outcome {
    let name = name.to_owned();
    let change = ClassChange::Modify { name, class };
    world.run(&root(), Mutation::ChangeClass(change))
}

fn set(world: &mut World, who: &Credentials, inode: InodeId, class: &str) -> Outcome {
    let class = class.to_owned();
    world.run(who, Mutation::SetClass { inode, class })
}

fn label(world: &mut World, server: u64, value: Option<&str>) -> Outcome {
    let set = Mutation::SetLabel {
        server: ServerId(server),
        key: "dc".to_owned(),
        value: value.map(str::to_owned),
    };
    world.run(&root(), set)
}

/// Servers in their first life.
fn on(servers: &[u64]) -> Vec<(ServerId, BootId)> {
    let life = |n: &u64| (ServerId(*n), BootId(100 + n));
    servers.iter().map(life).collect()
}

fn new_file(world: &mut World, parent: InodeId, name: &str) -> Outcome {
    let create = Mutation::Create {
        parent,
        name: name.into(),
        kind: FileKind::Regular,
        mode: 0o644,
        device: 0,
        target: Vec::new(),
        exclusive: true,
        write: true,
    };
    world.run(&root(), create)
}

#[test]
fn a_class_is_made_changed_renamed_and_removed_by_root_alone() {
    let mut world = World::new();
    assert_eq!(
        create(&mut world, &alice(), "gold", "copies(3)"),
        Err(Errno::EPERM)
    );
    assert_eq!(
        create(&mut world, &root(), "gold", "copies(3)"),
        Ok(Reply::Done)
    );
    for (name, errno) in [
        ("gold", Errno::EEXIST),
        ("copies-3", Errno::EINVAL),
        ("copies-30", Errno::EINVAL),
        ("", Errno::EINVAL),
        ("two words", Errno::EINVAL),
    ] {
        assert_eq!(create(&mut world, &root(), name, "copies(3)"), Err(errno));
    }
    let mut unsound = class("copies(2)");
    unsound.keep.copies = 0;
    assert_eq!(modify(&mut world, "gold", unsound), Err(Errno::EINVAL));
    let two = class("copies(2)");
    assert_eq!(
        modify(&mut world, "silver", two.clone()),
        Err(Errno::ENOENT)
    );
    assert_eq!(
        modify(&mut world, "copies-2", two.clone()),
        Err(Errno::EPERM)
    );
    assert_eq!(modify(&mut world, "gold", two.clone()), Ok(Reply::Done));
    let rename = |world: &mut World, name: &str, new_name: &str| {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        let change = ClassChange::Rename { name, new_name };
        world.run(&root(), Mutation::ChangeClass(change))
    };
    assert_eq!(rename(&mut world, "gold", "silver"), Ok(Reply::Done));
    assert_eq!(rename(&mut world, "gold", "bronze"), Err(Errno::ENOENT));
    let known = world.state.classes();
    let known = known.map(|(id, name, class)| (id, name.to_owned(), class.clone()));
    assert_eq!(
        known.collect::<Vec<_>>(),
        [(ClassId::FIRST, "silver".to_owned(), two)]
    );
    let delete = |world: &mut World| {
        let name = "silver".to_owned();
        world.run(&root(), Mutation::ChangeClass(ClassChange::Delete { name }))
    };
    assert_eq!(set(&mut world, &root(), ROOT, "silver").map(|_| ()), Ok(()));
    assert_eq!(
        delete(&mut world),
        Err(Errno::EBUSY),
        "the root directory is of it"
    );
    assert_eq!(
        set(&mut world, &root(), ROOT, "copies-2").map(|_| ()),
        Ok(())
    );
    assert_eq!(delete(&mut world), Ok(Reply::Done));
    assert!(!world.state.has_classes());
}

#[test]
fn a_class_is_inherited_and_its_chunks_follow() {
    let mut world = two_sides();
    create(&mut world, &root(), "west", "2 in dc=west").expect("root may");
    let folder = world.folder(ROOT, "d");
    set(&mut world, &root(), folder, "west").expect("root may");
    let below = world.folder(folder, "e");
    let file = world.file(below, "f");
    let west = world.state.find_class("west").expect("it was made");
    assert_eq!(world.state.class_of(file), Ok(west));
    assert_eq!(world.state.class_users(west), 3);
    let grant = world
        .lease_on(file, 0, on(&[1, 2]))
        .expect("both are in the west");
    world
        .commit(file, &grant, 10, true)
        .expect("its lease is held");
    let chunk = grant.chunk;
    assert_eq!(world.state.chunk(chunk).expect("it is there").class, west);
    let class = "copies-1".to_owned();
    let applied = world.apply(&root(), Mutation::SetClass { inode: file, class });
    assert!(applied.changes.contains(&Change::Copies(chunk)));
    assert_eq!(
        world.state.chunk(chunk).expect("it is there").class,
        ClassId::copies(1)
    );
    assert_eq!(world.state.class_users(west), 2);
    world.unlink(&root(), below, "f").expect("root may");
    world.rmdir(&root(), folder, "e").expect("it is empty");
    assert_eq!(world.state.class_users(west), 1);
}

#[test]
fn an_owner_moves_between_built_in_classes_only() {
    let mut world = World::new();
    world.chmod(&root(), ROOT, 0o777).expect("root may");
    create(&mut world, &root(), "west", "2 in dc=west").expect("root may");
    let file = world.make(&alice(), ROOT, "f", FileKind::Regular, 0o644);
    let file = file.expect("alice may");
    let copies = |world: &mut World| {
        let (inode, copies) = (file, 1);
        world.run(&alice(), Mutation::SetCopies { inode, copies })
    };
    assert!(set(&mut world, &alice(), file, "copies-3").is_ok());
    assert!(copies(&mut world).is_ok());
    assert_eq!(set(&mut world, &alice(), file, "west"), Err(Errno::EPERM));
    assert_eq!(
        set(&mut world, &alice(), file, "nothing"),
        Err(Errno::ENOENT)
    );
    assert!(set(&mut world, &root(), file, "west").is_ok());
    assert_eq!(
        copies(&mut world),
        Err(Errno::EPERM),
        "it would leave the law"
    );
    assert_eq!(
        set(&mut world, &alice(), file, "copies-3"),
        Err(Errno::EPERM)
    );
    let link = world.make(&root(), ROOT, "s", FileKind::Symlink, 0o777);
    let link = link.expect("root may");
    assert_eq!(set(&mut world, &root(), link, "west"), Err(Errno::EINVAL));
}

#[test]
fn copies_against_a_law_are_refused_whatever_the_leader_chose() {
    let mut world = two_sides();
    create(&mut world, &root(), "west", "2 in dc=west").expect("root may");
    let folder = world.folder(ROOT, "d");
    set(&mut world, &root(), folder, "west").expect("root may");
    for wrong in [on(&[1, 3]), on(&[1]), on(&[]), on(&[1, 5]), on(&[1, 2, 3])] {
        world.choice.copies = wrong;
        assert_eq!(new_file(&mut world, folder, "f"), Err(Errno::ENOSPC));
        assert!(
            world.state.lookup(folder, b"f", &root()).is_err(),
            "nothing is left"
        );
    }
    world.choice.copies = on(&[1, 2]);
    let made = new_file(&mut world, folder, "f");
    let Ok(Reply::Created {
        attributes,
        lease: Some(grant),
        ..
    }) = made
    else {
        panic!("both are in the west: {made:?}");
    };
    let file = attributes.inode;
    world
        .commit(file, &grant, 10, true)
        .expect("its lease is held");
    for wrong in [on(&[1, 3]), on(&[1]), on(&[])] {
        assert_eq!(world.lease_on(file, 1, wrong), Err(Errno::ENOSPC));
    }
    assert_eq!(world.lease_on(file, 0, on(&[1, 3])), Err(Errno::EAGAIN));
    let alone = world
        .lease_on(file, 0, on(&[1]))
        .expect("one of those that are there");
    world
        .commit(file, &alone, 10, true)
        .expect("its lease is held");
    // A label that changes between the choice and its record changes the verdict.
    label(&mut world, 2, Some("east")).expect("root may");
    assert_eq!(world.lease_on(file, 1, on(&[1, 2])), Err(Errno::ENOSPC));
    label(&mut world, 2, None).expect("root may");
    assert!(
        world.lease_on(file, 1, on(&[1, 2])).is_ok(),
        "as it is configured"
    );
    // So does a class.
    modify(&mut world, "west", class("2 in dc=east")).expect("root may");
    assert_eq!(world.lease_on(file, 2, on(&[1, 2])), Err(Errno::ENOSPC));
    assert!(world.lease_on(file, 2, on(&[3, 4])).is_ok());
}

#[test]
fn copies_of_a_law_are_judged_together() {
    let mut world = two_sides();
    create(&mut world, &root(), "both", "1 in dc=west, 1 in dc=east").expect("root may");
    create(&mut world, &root(), "apart", "copies(2), differ by dc").expect("root may");
    let file = world.file(ROOT, "f");
    for name in ["both", "apart"] {
        set(&mut world, &root(), file, name).expect("root may");
        assert_eq!(world.lease_on(file, 9, on(&[1, 2])), Err(Errno::ENOSPC));
        assert_eq!(world.lease_on(file, 9, on(&[1])), Err(Errno::ENOSPC));
        let grant = world
            .lease_on(file, 9, on(&[3, 1]))
            .expect("one on each side");
        world.release(grant.chunk, grant.epoch, true);
    }
}

#[test]
fn what_is_made_may_be_judged_by_another_policy_than_what_rests() {
    let mut world = two_sides();
    let fast = StorageClass {
        create: Some("1 in dc=west".parse::<Policy>().expect("well written")),
        keep: "1 in dc=west, 1 in dc=east".parse().expect("well written"),
        archive: None,
    };
    let (name, class) = ("fast".to_owned(), fast);
    let change = ClassChange::Create { name, class };
    world
        .run(&root(), Mutation::ChangeClass(change))
        .expect("root may");
    let file = world.file(ROOT, "f");
    set(&mut world, &root(), file, "fast").expect("root may");
    assert_eq!(world.lease_on(file, 0, on(&[3])), Err(Errno::ENOSPC));
    let grant = world.lease_on(file, 0, on(&[1])).expect("as it is made");
    world
        .commit(file, &grant, 10, true)
        .expect("its lease is held");
    assert!(world.lease_on(file, 0, on(&[1, 3])).is_ok(), "as it rests");
}

#[test]
fn a_name_in_a_directory_with_a_law_is_for_its_class_alone() {
    let mut world = two_sides();
    create(&mut world, &root(), "west", "2 in dc=west").expect("root may");
    create(&mut world, &root(), "east", "2 in dc=east").expect("root may");
    create(&mut world, &root(), "wish", "2 in dc=east soft").expect("root may");
    let [west, east, wish] = ["west", "east", "wish"].map(|name| {
        let folder = world.folder(ROOT, name);
        set(&mut world, &root(), folder, name).expect("root may");
        folder
    });
    let (in_west, plain) = (world.file(west, "f"), world.file(ROOT, "p"));
    world.file(east, "g");
    let mut go = |from, to, mode| world.rename(&root(), from, to, mode);
    for to in [(east, "f"), (east, "g")] {
        assert_eq!(go((west, "f"), to, RenameMode::Replace), Err(Errno::EXDEV));
    }
    assert_eq!(
        go((west, "f"), (east, "g"), RenameMode::Exchange),
        Err(Errno::EXDEV)
    );
    assert_eq!(
        go((ROOT, "p"), (east, "p"), RenameMode::Replace),
        Err(Errno::EXDEV)
    );
    assert_eq!(
        go((ROOT, "wish"), (east, "w"), RenameMode::Replace),
        Err(Errno::EXDEV)
    );
    // Within it, and out of it with the class that it has.
    assert!(go((west, "f"), (west, "h"), RenameMode::Replace).is_ok());
    assert!(go((west, "h"), (wish, "h"), RenameMode::Replace).is_ok());
    assert!(go((wish, "h"), (west, "h"), RenameMode::Replace).is_ok());
    assert_eq!(world.link(&root(), plain, west, "p"), Err(Errno::EXDEV));
    assert_eq!(world.link(&root(), in_west, east, "p"), Err(Errno::EXDEV));
    assert!(world.link(&root(), in_west, ROOT, "q").is_ok());
    let link = world.make(&root(), ROOT, "s", FileKind::Symlink, 0o777);
    assert!(
        world
            .link(&root(), link.expect("root may"), east, "s")
            .is_ok()
    );
}

#[test]
fn labels_are_set_over_the_configured_ones() {
    let mut world = two_sides();
    let labels = |world: &World, server| {
        let known = world
            .state
            .server_labels(ServerId(server))
            .expect("it is known");
        known.over(&known.configured)
    };
    let pair = |value: &str| ("dc".to_owned(), value.to_owned());
    label(&mut world, 1, Some("north")).expect("root may");
    assert_eq!(labels(&world, 1), [pair("north")]);
    let (server, configured) = (ServerId(1), vec![pair("south")]);
    world.record(RecordBody::ServerLabels {
        server,
        labels: configured,
    });
    assert_eq!(
        labels(&world, 1),
        [pair("north")],
        "it wins until it is removed"
    );
    label(&mut world, 1, None).expect("root may");
    assert_eq!(labels(&world, 1), [pair("south")]);
    label(&mut world, 9, Some("west")).expect("a server that is to come");
    assert_eq!(label(&mut world, 1, Some("we st")), Err(Errno::EINVAL));
    let set = Mutation::SetLabel {
        server,
        key: "dc".to_owned(),
        value: None,
    };
    assert_eq!(world.run(&alice(), set), Err(Errno::EPERM));
}

#[test]
fn classes_and_labels_are_in_images_and_in_the_digest() {
    let mut world = two_sides();
    let empty = World::new();
    assert_eq!(
        image(&empty.state).len(),
        image(&World::new().state).len(),
        "no section is written for tables without an entry"
    );
    let before = world.state.digest();
    create(
        &mut world,
        &root(),
        "west",
        "2 in dc=west, differ by rack soft",
    )
    .expect("root may");
    assert_ne!(world.state.digest(), before);
    let file = world.file(ROOT, "f");
    set(&mut world, &root(), file, "west").expect("root may");
    let west = world.state.find_class("west").expect("it was made");
    let loaded = load(&image(&world.state)).expect("what was written is read");
    assert_eq!(loaded.digest(), world.state.digest());
    assert_eq!(loaded.class(west), world.state.class(west));
    assert_eq!(loaded.class_users(west), 1);
    loaded.check_invariants(true);
}

/// Records of before there were classes, as they lie in logs.
#[test]
fn older_records_are_read() {
    let mut world = World::new();
    let file = world.file(ROOT, "f");
    // [time, [0, [[client]]]] with SetCopies {inode, copies: 3}, and a body of its own.
    let time = antler_core::time::Timestamp {
        seconds: 7,
        nanos: 0,
    };
    let body = RecordBody::EndSession {
        session: world.session,
    };
    let record = Record { time, body };
    let bytes = minicbor::to_vec(&record).expect("memory");
    assert_eq!(hex(&bytes), "8282070082028101");
    let copies = Mutation::SetCopies {
        inode: file,
        copies: 3,
    };
    let bytes = minicbor::to_vec(&copies).expect("memory");
    assert_eq!(hex(&bytes), format!("820882{:02x}03", file.0));
    world.choice.copies = servers(2);
    world.run(&root(), copies).expect("root may");
    assert_eq!(world.state.class_of(file), Ok(ClassId::copies(3)));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
