//! Images: what was written is what is read; anything else is an error.

use crate::world::{ROOT, World, image, load, root, servers};
use antler_core::attributes::{FileKind, XattrMode};
use antler_core::ids::LogPosition;
use antler_core::namespace::record::RecordBody;
use antler_core::namespace::{DecodeError, SectionId, State, StateLoader};
use antler_core::rng::Rng;
use proptest::prelude::*;

/// A state with something in every table.
fn full() -> World {
    let mut world = World::new();
    world.checked = false;
    let other = world.begin("other", 8);
    for (n, kind) in [FileKind::Symlink, FileKind::CharDevice, FileKind::Fifo]
        .into_iter()
        .enumerate()
    {
        world
            .make(&root(), ROOT, &format!("special-{n}"), kind, 0o600)
            .expect("root may");
    }
    let folder = world.folder(ROOT, "d");
    for n in 0..200 {
        let file = world.file(folder, &format!("f{n}"));
        for index in 0..n % 4 {
            let grant = world.lease(file, index).expect("servers are offered");
            match n % 3 {
                0 => world
                    .commit(file, &grant, 100, true)
                    .map(drop)
                    .expect("it is held"),
                1 => world
                    .commit(file, &grant, 100, false)
                    .map(drop)
                    .expect("it is held"),
                _ => {}
            }
        }
    }
    let file = world.file(ROOT, "x");
    let long = "v".repeat(300);
    for name in ["user.short", "trusted.a", "security.b"] {
        world
            .set_xattr(&root(), file, name, &long, XattrMode::Any)
            .expect("root may");
    }
    let orphan = world.file(ROOT, "orphan");
    world.choice.open_by = vec![(orphan, other), (orphan, world.session)];
    world.unlink(&root(), ROOT, "orphan").expect("it is there");
    world.choice.open_by.clear();
    let address = "host:1".to_owned();
    world.record(RecordBody::Member { member: 3, address });
    world.record(RecordBody::Recover { incarnation: 2 });
    world.session = world.begin("new", 9);
    world.next_request = 1;
    let kept = world.file(ROOT, "kept");
    world
        .lease_on(kept, 0, servers(2))
        .expect("servers are offered");
    world.choice.open_by = vec![(kept, world.session)];
    world.unlink(&root(), ROOT, "kept").expect("it is there");
    world.state.check_invariants(true);
    world
}

#[test]
fn an_image_is_the_state() {
    let world = full();
    let sections = image(&world.state);
    let tables: std::collections::BTreeSet<_> = sections
        .iter()
        .map(|(id, _)| id.to_string().split('/').next().map(str::to_owned))
        .collect();
    assert_eq!(tables.len(), 12, "every table is in it");
    let loaded = load(&sections).expect("undamaged");
    loaded.check_invariants(true);
    assert_eq!(loaded.digest(), world.state.digest());
    assert_eq!(loaded.applied(), world.state.applied());
    assert_eq!(loaded.capability_secret(), world.state.capability_secret());
    assert_eq!(image(&loaded).len(), sections.len());
    assert!(loaded.sessions().eq(world.state.sessions()));
    assert!(loaded.leased().eq(world.state.leased()));
    assert_eq!(loaded.find_session(9), Some(world.session));
}

#[test]
fn a_loaded_state_goes_on_alike() {
    let mut world = full();
    let mut copy = world.clone();
    copy.state = load(&image(&world.state)).expect("undamaged");
    for (n, w) in [&mut world, &mut copy].into_iter().enumerate() {
        w.choice.open_by.clear();
        let folder = w.state.path(b"d").expect("it is there").inode;
        for n in 0..100 {
            w.file(folder, &format!("new-{n}"));
            w.unlink(&root(), folder, &format!("f{n}"))
                .expect("it is there");
        }
        let session = w.session;
        w.record(RecordBody::EndSession { session });
        w.state.check_invariants(true);
        assert_eq!(w.state.orphans_of(session).count(), 0, "{n}");
    }
    assert_eq!(world.state.digest(), copy.state.digest());
}

#[test]
fn sections_load_in_any_order() {
    let world = full();
    let mut sections = image(&world.state);
    sections.reverse();
    assert_eq!(
        load(&sections).expect("undamaged").digest(),
        world.state.digest()
    );
}

#[test]
fn an_empty_state_has_an_image() {
    let mut state = State::default();
    state.pass(LogPosition(9));
    let loaded = load(&image(&state)).expect("undamaged");
    assert_eq!(
        (loaded.digest(), loaded.applied()),
        (state.digest(), LogPosition(9))
    );
    loaded.check_invariants(true);
}

#[test]
fn missing_doubled_and_foreign_sections_are_refused() {
    let sections = image(&full().state);
    for gone in 0..sections.len() {
        let mut fewer = sections.clone();
        fewer.remove(gone);
        assert!(load(&fewer).is_err(), "without {}", sections[gone].0);
    }
    for twice in &sections {
        let mut more = sections.clone();
        more.push(twice.clone());
        assert_eq!(load(&more).err(), Some(DecodeError::Twice(twice.0)));
    }
    let other = image(&World::new().state);
    for (n, section) in sections.iter().enumerate() {
        let mut mixed = sections.clone();
        if let Some(foreign) = other.iter().find(|foreign| foreign.0 == section.0) {
            mixed[n] = foreign.clone();
            let same = foreign.1 == section.1;
            assert_eq!(load(&mixed).is_ok(), same, "{}", section.0);
        }
    }
}

#[test]
fn an_unknown_table_is_named() {
    let id: SectionId = minicbor::decode(&minicbor::to_vec((99_u8, 5_u64)).expect("it encodes"))
        .expect("a section id");
    let error = StateLoader::decode_section(id, &[0x80]).err();
    assert_eq!(error, Some(DecodeError::Table(id)));
}

#[test]
fn a_large_count_allocates_nothing() {
    let world = full();
    let (id, _) = image(&world.state)[1];
    // An array of 2^62 items, and one of as many as a section may have.
    let huge = [0x9b, 0x40, 0, 0, 0, 0, 0, 0, 0];
    assert!(matches!(
        StateLoader::decode_section(id, &huge),
        Err(DecodeError::Damaged { .. })
    ));
    assert!(StateLoader::decode_section(id, &[0x99, 0x20, 0x00]).is_err());
    assert!(StateLoader::decode_section(id, &[]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No damage loads as another state, and none panics.
    #[test]
    fn damage_is_an_error(seed in any::<u64>()) {
        let world = full();
        let mut sections = image(&world.state);
        let mut rng = Rng::new(seed);
        let at = rng.below(sections.len() as u64) as usize;
        let bytes = &mut sections[at].1;
        match rng.below(3) {
            0 => {
                let bit = rng.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            1 => bytes.truncate(rng.below(bytes.len() as u64) as usize),
            _ => bytes.push(rng.word() as u8),
        }
        if let Ok(state) = load(&sections) {
            // Another way to write the same, or the position, which is not digested.
            prop_assert_eq!(state.digest(), world.state.digest());
            state.check_invariants(true);
        }
    }
}
