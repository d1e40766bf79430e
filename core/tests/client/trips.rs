//! How often a program waits for the network, operation by operation: round trips in
//! sequence, and requests in all, as docs/wan.md lists them. The peers answer at once.

use crate::world::World;
use antler_core::attributes::{AttributeChange, FileKind, RenameMode, XattrMode};
use antler_core::client::request::FileRequest;
use antler_core::ids::InodeId;
use antler_core::time::Duration;
use std::fmt::Write;

/// One way, in microseconds: two sites some 2,000 km apart.
const DELAY: u64 = 10_000;
const MOUNT: usize = 0;

type File = (InodeId, u64);

/// A mount that is connected to everything, has nothing under way, and knows the root.
fn world() -> World {
    let mut world = World::new(1, 2, 1);
    world.mount_ready();
    for name in ["warm", "up"] {
        let file = world.create(MOUNT, name);
        world.write(MOUNT, file, 0, &[1; 4096]);
        world.fsync(MOUNT, file);
        world.close(MOUNT, file);
    }
    world.run_for(Duration::from_secs(5));
    world.delay = (DELAY, DELAY);
    world
}

/// A second mount makes a file of 4 KiB and a directory: the first one knows of neither.
fn strange(world: &mut World) -> InodeId {
    let other = world.mount_ready();
    let file = world.create(other, "file");
    world.write(other, file, 0, &[7; 4096]);
    world.fsync(other, file);
    world.close(other, file);
    world.done_or_made(other, make("dir", FileKind::Directory));
    world.run_for(Duration::from_secs(5));
    // The kernel asks for them first.
    world.attributes(MOUNT, InodeId::ROOT);
    file.0
}

fn make(name: &str, kind: FileKind) -> FileRequest {
    FileRequest::Make {
        parent: InodeId::ROOT,
        name: name.into(),
        kind,
        mode: 0o755,
        device: 0,
        target: Vec::new(),
    }
}

fn unlink(name: &str) -> FileRequest {
    FileRequest::Unlink {
        parent: InodeId::ROOT,
        name: name.into(),
    }
}

/// A file that is open and was written to a moment ago.
fn open_file(world: &mut World) -> File {
    let file = world.create(MOUNT, "open");
    world.write(MOUNT, file, 0, &[1; 8192]);
    world.fsync(MOUNT, file);
    file
}

/// The line of the table for what an operation costs.
fn line(
    table: &mut String,
    name: &str,
    prepare: impl Fn(&mut World) -> File,
    run: impl Fn(&mut World, File),
) {
    let mut world = world();
    let file = prepare(&mut world);
    let (began, before) = (world.now, world.asked);
    run(&mut world, file);
    let trips = (world.now - began) as f64 / (2_000 * DELAY) as f64;
    // What goes out behind the answer belongs to it.
    world.run_for(Duration::from_secs(1));
    let (master, servers) = (world.asked.0 - before.0, world.asked.1 - before.1);
    let waits = trips.round();
    assert!((trips - waits).abs() < 0.1, "{name}: {trips} round trips");
    writeln!(table, "| {name} | {waits} | {master} | {servers} |").expect("a string takes it");
}

fn nothing(_: &mut World) -> File {
    (InodeId::ROOT, 0)
}

fn known(world: &mut World) -> File {
    let inode = strange(world);
    world.lookup(MOUNT, "file").expect("it is there");
    (inode, 0)
}

/// A closed file that no other mount knows of: nobody else has to drop anything.
fn own(world: &mut World) -> File {
    world.delay = (50, 500);
    let file = world.create(MOUNT, "file");
    world.write(MOUNT, file, 0, &[7; 4096]);
    world.fsync(MOUNT, file);
    world.close(MOUNT, file);
    world.run_for(Duration::from_secs(5));
    world.delay = (DELAY, DELAY);
    file
}

fn names(table: &mut String) {
    let unknown = |world: &mut World| (strange(world), 0);
    line(table, "`stat` of a name", unknown, |world, _| {
        world.lookup(MOUNT, "file").expect("it is there");
    });
    line(table, "`stat` of a known name", known, |world, file| {
        world.lookup(MOUNT, "file").expect("it is there");
        world.attributes(MOUNT, file.0);
    });
    line(
        table,
        "`readdir`, `stat` of each name in it",
        unknown,
        |world, _| {
            let list = FileRequest::ReadDirectory {
                inode: InodeId::ROOT,
                cookie: 0,
                most: 100,
            };
            world.ask(MOUNT, list).expect("a directory");
            world.lookup(MOUNT, "file").expect("it is there");
            world.lookup(MOUNT, "dir").expect("it is there");
        },
    );
    line(table, "`mkdir`", nothing, |world, _| {
        world.done_or_made(MOUNT, make("new", FileKind::Directory));
    });
    line(table, "`rename`", own, |world, _| {
        let rename = FileRequest::Rename {
            parent: InodeId::ROOT,
            name: b"file".to_vec(),
            new_parent: InodeId::ROOT,
            new_name: b"other".to_vec(),
            mode: RenameMode::Replace,
        };
        world.done(MOUNT, rename);
    });
    line(table, "`unlink`", own, |world, _| {
        world.done(MOUNT, unlink("file"));
    });
    line(table, "`chmod`", own, |world, file| {
        let change = AttributeChange {
            mode: Some(0o600),
            ..AttributeChange::default()
        };
        let inode = file.0;
        let change = FileRequest::SetAttributes { inode, change };
        world.ask(MOUNT, change).expect("it is root's");
    });
    line(table, "`setxattr`", own, |world, file| {
        let set = FileRequest::SetXattr {
            inode: file.0,
            name: b"user.a".to_vec(),
            value: b"1".to_vec(),
            mode: XattrMode::Any,
        };
        world.done(MOUNT, set);
    });
}

fn content(table: &mut String) {
    line(table, "open, read 4 KiB, close", own, |world, file| {
        let file = (file.0, world.open(MOUNT, file.0));
        world.read(MOUNT, file, 0, 4096);
        world.close(MOUNT, file);
    });
    line(table, "create, write 4 KiB, close", nothing, |world, _| {
        let file = world.create(MOUNT, "new");
        world.write(MOUNT, file, 0, &[1; 4096]);
        world.close(MOUNT, file);
    });
    line(
        table,
        "create, write 4 KiB, `fsync`, close",
        nothing,
        |world, _| {
            let file = world.create(MOUNT, "new");
            world.write(MOUNT, file, 0, &[1; 4096]);
            world.fsync(MOUNT, file);
            world.close(MOUNT, file);
        },
    );
    line(table, "append 4 KiB, `fsync`", open_file, |world, file| {
        world.write(MOUNT, file, 8192, &[1; 4096]);
        world.fsync(MOUNT, file);
    });
    line(
        table,
        "overwrite 4 KiB, `fsync`",
        open_file,
        |world, file| {
            world.write(MOUNT, file, 0, &[1; 4096]);
            world.fsync(MOUNT, file);
        },
    );
    line(
        table,
        "`fsync` with nothing new",
        open_file,
        |world, file| {
            world.fsync(MOUNT, file);
        },
    );
    line(
        table,
        "`truncate` of an open file",
        open_file,
        |world, file| {
            let change = AttributeChange {
                size: Some(4096),
                ..AttributeChange::default()
            };
            let inode = file.0;
            let change = FileRequest::SetAttributes { inode, change };
            world.ask(MOUNT, change).expect("it is open for writing");
        },
    );
}

#[test]
fn operations_wait_for_the_network_as_often_as_the_documentation_says() {
    let mut table = String::new();
    names(&mut table);
    content(&mut table);
    let told = include_str!("../../../docs/wan.md");
    assert!(told.contains(&table), "docs/wan.md should list:\n{table}");
}
