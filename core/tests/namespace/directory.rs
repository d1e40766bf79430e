//! Reading a directory while it changes.

use crate::world::{ROOT, World, root};
use antler_core::errno::Errno;
use antler_core::ids::InodeId;
use antler_core::namespace::COOKIE_MIN;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Reads on from a cookie; the names with their cookies.
fn page(world: &World, folder: InodeId, cookie: u64, most: usize) -> (Vec<(String, u64)>, bool) {
    let (entries, end) = world
        .state
        .read_directory(folder, cookie, most)
        .expect("a folder");
    let name = |bytes: Vec<u8>| String::from_utf8(bytes).expect("names here are text");
    (
        entries
            .into_iter()
            .map(|entry| (name(entry.name), entry.cookie))
            .collect(),
        end,
    )
}

#[test]
fn pages_end_exactly() {
    let mut world = World::new();
    let folder = world.folder(ROOT, "d");
    assert_eq!(page(&world, folder, 0, 10), (Vec::new(), true));
    for n in 0..5 {
        world.file(folder, &format!("f{n}"));
    }
    let (all, end) = page(&world, folder, 0, 5);
    assert!(end && all.len() == 5 && all.is_sorted_by_key(|(_, cookie)| *cookie));
    let (some, end) = page(&world, folder, 0, 4);
    assert_eq!((&some[..], end), (&all[..4], false));
    assert_eq!(
        page(&world, folder, some[3].1, 4),
        (all[4..].to_vec(), true)
    );
    assert_eq!(page(&world, folder, u64::MAX, 4), (Vec::new(), true));
    let file = world.file(ROOT, "f");
    assert_eq!(world.state.read_directory(file, 0, 4), Err(Errno::ENOTDIR));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What is there from the first page to the last is read exactly once, at the
    /// cookie that it always had, whatever comes and goes meanwhile.
    #[test]
    fn what_stays_is_read_once(
        stay in prop::collection::btree_set(0_u32..500, 0..120),
        changes in prop::collection::vec((500_u32..600, any::<bool>(), 1_usize..20), 1..60),
    ) {
        let mut world = World::new();
        world.checked = false;
        let folder = world.folder(ROOT, "d");
        for n in &stay {
            world.file(folder, &format!("name-{n}"));
        }
        let cookies: BTreeMap<_, _> = page(&world, folder, 0, 1000).0.into_iter().collect();
        let mut read = Vec::new();
        let (mut cookie, mut end) = (0, false);
        let mut changes = changes.into_iter().cycle();
        while !end {
            let (n, make, most) = changes.next().expect("it cycles");
            let name = format!("name-{n}");
            if make && world.state.unlink_target(folder, name.as_bytes()).is_none() {
                world.file(folder, &name);
            } else {
                let _ = world.unlink(&root(), folder, &name);
            }
            let (entries, last) = page(&world, folder, cookie, most);
            cookie = entries.last().map_or(cookie, |entry| entry.1);
            read.extend(entries);
            end = last;
        }
        let stayed = read.iter().filter(|(name, _)| cookies.contains_key(name));
        let seen: BTreeSet<_> = stayed.clone().map(|(name, _)| name.clone()).collect();
        prop_assert_eq!(seen.len(), stay.len(), "all of it");
        for (name, cookie) in stayed {
            prop_assert_eq!(cookies.get(name), Some(cookie));
        }
        prop_assert!(read.is_sorted_by(|left, right| left.1 < right.1), "each once");
        prop_assert!(read.iter().all(|(_, cookie)| (COOKIE_MIN..1 << 63).contains(cookie)));
        world.state.check_invariants(true);
    }
}
