//! Two mounts that take turns on the same files, as close-to-open consistency lets
//! them: each opens, works, and closes; the other sees all of it.

use crate::world::{World, opened};
use antler_core::attributes::AttributeChange;
use antler_core::client::request::{FileReply, FileRequest};
use antler_core::ids::InodeId;
use antler_core::rng::Rng;
use antler_core::time::Duration;

fn turn(world: &mut World, mount: usize, inode: InodeId, content: &mut Vec<u8>, rng: &mut Rng) {
    let truncate = rng.one_in(6);
    let body = FileRequest::Open {
        inode,
        read: true,
        write: true,
        truncate,
    };
    let file = opened(world.ask(mount, body));
    if truncate {
        content.clear();
    }
    for _ in 0..rng.between(1, 5) {
        match rng.below(4) {
            0 => {
                let size = rng.below(40_000);
                let change = AttributeChange {
                    size: Some(size),
                    by_handle: true,
                    ..AttributeChange::default()
                };
                let reply = world.ask(mount, FileRequest::SetAttributes { inode, change });
                assert!(matches!(reply, Ok(FileReply::Attributes(..))), "{reply:?}");
                content.resize(size as usize, 0);
            }
            1 => {
                let data = world.read(mount, file, 0, 100_000);
                assert_eq!(data[..], content[..]);
            }
            _ => {
                let offset = rng.below(30_000) as usize;
                let data = vec![rng.below(255) as u8; rng.between(1, 9000) as usize];
                world.write(mount, file, offset as u64, &data);
                let end = offset + data.len();
                content.resize(content.len().max(end), 0);
                content[offset..end].copy_from_slice(&data);
            }
        }
    }
    if rng.one_in(2) {
        world.fsync(mount, file);
    }
    world.close(mount, file);
}

#[test]
fn each_mount_sees_what_the_other_closed() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(seed, 3, 2);
        let mounts = [world.mount_ready(), world.mount_ready()];
        let mut files = Vec::new();
        for name in ["a", "b"] {
            let file = world.create(mounts[0], name);
            world.close(mounts[0], file);
            files.push((file.0, Vec::new()));
        }
        for _ in 0..60 {
            let mount = mounts[rng.below(2) as usize];
            let (inode, content) = &mut files[rng.below(2) as usize];
            turn(&mut world, mount, *inode, content, &mut rng);
            let other = mounts[rng.below(2) as usize];
            let size = world.attributes(other, *inode).size;
            assert_eq!(size, content.len() as u64, "seed {seed}");
            if rng.one_in(5) {
                world.run_for(Duration::from_millis(rng.below(1500)));
            }
            if rng.one_in(5) {
                let links = world.links_to(|_| true);
                world.break_link(links[rng.below(links.len() as u64) as usize]);
            }
        }
    }
}
